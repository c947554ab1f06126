"""Quantum systems: spins in a transverse field, and oscillators joined by springs."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from hypothesis.strategies import SearchStrategy
from jax.typing import DTypeLike

from substrates.quantum.oscillator import QuantumOscillatorNetwork
from substrates.quantum.transverse_ising import TransverseFieldIsing
from theory_checks.strategies.draws import Draw, drawn, random_graph, terminals

MOST_QUANTUM_SPINS = 8


def transverse_field_ising_models(
    spins: int = 3, inputs: int = 1, outputs: int = 1, *, graph: int = 0, dtype: DTypeLike = float
) -> SearchStrategy[TransverseFieldIsing]:
    """Quantum spins on one random graph, whose transverse fields keep a gap above the ground state.

    Inputs are longitudinal fields on the first spins, outputs <Z> of the last.

    Args:
        spins: how many, at most 8.
        inputs, outputs: how many.
        graph: the seed of the graph.
        dtype: of the parameters.

    Raises ValueError for more spins than are quickly diagonalised, and for fewer than terminals.
    """
    if spins > MOST_QUANTUM_SPINS:
        raise ValueError(f"spins: wanted at most {MOST_QUANTUM_SPINS}, whose matrix is small, got {spins}")
    ends, edges = terminals(spins, inputs, outputs), random_graph(spins, graph)

    def build(draw: Draw) -> TransverseFieldIsing:
        return TransverseFieldIsing.from_edges(
            edges,
            spins,
            **ends,
            coupling=jnp.asarray(draw.numbers(len(edges), 0.5), dtype),
            transverse_field=jnp.asarray(draw.magnitudes(spins, 1.0, 1.5), dtype),
            longitudinal_field=jnp.asarray(draw.numbers(spins, 0.3), dtype),
        )

    return drawn(build)


def quantum_oscillators(
    oscillators: int = 4,
    inputs: int = 2,
    outputs: int = 2,
    *,
    drive: Literal["force", "anchor", "stiffness"] = "force",
    reading: Literal["mean", "moments"] = "mean",
    graph: int = 0,
    dtype: DTypeLike = float,
) -> SearchStrategy[QuantumOscillatorNetwork]:
    """Oscillators on one random graph of springs; masses and stiffnesses shrink to 1.

    Args:
        oscillators: how many; the first are driven, the last are read.
        inputs, outputs: how many.
        drive, reading: as in `QuantumOscillatorNetwork.from_edges`.
        graph: the seed of the graph.
        dtype: of the parameters.

    Raises ValueError for fewer oscillators than terminals, and for what the class refuses.
    """
    ends, edges = terminals(oscillators, inputs, outputs), random_graph(oscillators, graph)

    def build(draw: Draw) -> QuantumOscillatorNetwork:
        return QuantumOscillatorNetwork.from_edges(
            edges,
            oscillators,
            **ends,
            stiffness=jnp.asarray(draw.magnitudes(len(edges)), dtype),
            onsite_stiffness=jnp.asarray(draw.magnitudes(oscillators), dtype),
            mass=jnp.asarray(draw.magnitudes(oscillators), dtype),
            drive=drive,
            reading=reading,
        )

    return drawn(build)
