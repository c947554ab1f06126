"""Spins and phases: Ising models small enough to enumerate, oscillators that lock."""

from __future__ import annotations

import jax.numpy as jnp
from hypothesis.strategies import SearchStrategy
from jax.typing import DTypeLike

from substrates.classical.ising import IsingModel
from substrates.classical.oscillator import OscillatorNetwork
from theory_checks.strategies.draws import Draw, drawn, random_graph, terminals

MOST_SPINS = 20
"""Of so many all configurations can be looked at."""


def ising_models(
    spins: int = 6, inputs: int = 2, outputs: int = 2, *, graph: int = 0, dtype: DTypeLike = float
) -> SearchStrategy[IsingModel]:
    """Spins on one random graph with couplings of either sign, few enough to enumerate; shrinks to a ferromagnet.

    Args:
        spins: how many, at most 20; the first are inputs, the last outputs.
        inputs, outputs: how many.
        graph: the seed of the graph.
        dtype: of the parameters.

    Raises ValueError for more spins than can be enumerated, and for fewer than terminals.
    """
    if spins > MOST_SPINS:
        raise ValueError(f"spins: wanted at most {MOST_SPINS}, which can be enumerated, got {spins}")
    ends, edges = terminals(spins, inputs, outputs), random_graph(spins, graph)

    def build(draw: Draw) -> IsingModel:
        coupling, field = draw.numbers(len(edges)), draw.numbers(spins, 0.3)
        cast = lambda values: jnp.asarray(values, dtype)
        return IsingModel.from_edges(edges, spins, **ends, coupling=cast(coupling), field=cast(field))

    return drawn(build)


def oscillator_networks(
    oscillators: int = 5, inputs: int = 2, outputs: int = 2, *, graph: int = 0, dtype: DTypeLike = float
) -> SearchStrategy[OscillatorNetwork]:
    """Oscillators that pull each other together: with inputs within a quarter turn of one another one locked state.

    Args:
        oscillators: how many; the phases of the first are clamped, those of the last are read.
        inputs, outputs: how many.
        graph: the seed of the graph.
        dtype: of the parameters.

    Raises ValueError for fewer oscillators than terminals.
    """
    ends, edges = terminals(oscillators, inputs, outputs), random_graph(oscillators, graph)

    def build(draw: Draw) -> OscillatorNetwork:
        return OscillatorNetwork.from_edges(
            edges,
            oscillators,
            **ends,
            coupling=jnp.asarray(draw.magnitudes(len(edges)), dtype),
            field=jnp.asarray(draw.magnitudes(oscillators, 0.3), dtype),
            field_phase=jnp.asarray(draw.numbers(oscillators, 0.3), dtype),
        )

    return drawn(build)
