"""Hypothesis strategies that build small valid systems of every kind, so that property tests start from sound ones.

They need the test extra: ``pip install 'groundstate[test]'``. Shapes are fixed by arguments and values are drawn, so
that compiled code is shared between examples. Drawn systems settle, and shrink towards equal or unit parameters;
`examples_of` and `nudges` fit inputs, targets and strengths to a system.
"""

from theory_checks.ranges import Ranges, ranges
from theory_checks.strategies.batches import examples, examples_of, nudges, systems_with_examples
from theory_checks.strategies.draws import Draw, draws, seeds, unhurried
from theory_checks.strategies.layers import hopfield_networks, predictive_coding_networks, recurrent_networks
from theory_checks.strategies.networks import (
    activator_inhibitor_systems,
    driven_networks,
    elastic_networks,
    resistor_circuits,
)
from theory_checks.strategies.paths import trajectories
from theory_checks.strategies.quantum import quantum_oscillators, transverse_field_ising_models
from theory_checks.strategies.spins_and_phases import ising_models, oscillator_networks
from theory_checks.strategies.springs import ConvexSprings, convex_springs

__all__ = [
    "ConvexSprings",
    "Draw",
    "Ranges",
    "activator_inhibitor_systems",
    "convex_springs",
    "draws",
    "driven_networks",
    "elastic_networks",
    "examples",
    "examples_of",
    "hopfield_networks",
    "ising_models",
    "nudges",
    "oscillator_networks",
    "predictive_coding_networks",
    "quantum_oscillators",
    "ranges",
    "recurrent_networks",
    "resistor_circuits",
    "seeds",
    "systems_with_examples",
    "trajectories",
    "transverse_field_ising_models",
    "unhurried",
]
