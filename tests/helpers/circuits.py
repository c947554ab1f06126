"""Circuits on one random graph, of every kind that has a solver: the values are drawn, the graph is not."""

import jax.numpy as jnp
import numpy as np
import pytest

from substrates import ResistorNetwork, Shockley

N = 9
INPUTS, OUTPUTS = (0, 1, 2), (7, 5)
EDGES = [
    *((k, k + 1) for k in range(N - 1)),
    *((0, 4), (1, 6), (2, 8), (3, 5), (5, 8), (4, 7), (4, 7), (6, -1), (-1, 3)),
]
ELEMENTS = {
    "linear": {},
    "sources": {"rails": {3: 0.7}, "voltage_sources": [(4, 6, 0.4), (8, -1, -0.3)]},
    "amplifier": {"controlled_sources": [(4, -1, 6, 7, 0.6, 0.6), (3, 8, 5, -1, -1.2, -1.2)]},
    "one-way amplifier": {"controlled_sources": [(4, -1, 6, 7, 0.3), (3, 8, 5, -1, -0.4, 0.1)]},
    "bounds": {"diodes": [(-1, 4), (5, -1), (6, 0), (1, 8), (2, 8)]},
    "diodes": {"diodes": [(-1, 4), (3, 5), (5, 6), (6, 7), (8, 4)]},
    "diode loop": {"diodes": [(4, 5), (5, 6), (6, 4), (3, -1)]},
    "real diodes": {"diodes": [(-1, 4), (3, 5), (5, 6), (6, 7), (8, 4)], "diode": Shockley(1e-14, 0.02585)},
}
KINDS = tuple(ELEMENTS)
CONSERVATIVE = tuple(kind for kind in KINDS if kind != "one-way amplifier")


def circuit(kind, seed, dtype=jnp.float64):
    """A circuit with conductances between 0.03 and 1 S and current sources near 1 A."""
    draw = np.random.default_rng(seed)
    return ResistorNetwork.from_edges(
        EDGES,
        N,
        inputs=INPUTS,
        outputs=OUTPUTS,
        conductance=jnp.asarray(10 ** draw.uniform(-1.5, 0, len(EDGES)), dtype),
        current_sources=[(3, 5, draw.normal()), (-1, 7, draw.normal())],
        **ELEMENTS[kind],
    )


def inputs(seed, batch=None, dtype=jnp.float64):
    """Voltages of a few volts, one example or a batch."""
    shape = (len(INPUTS),) if batch is None else (batch, len(INPUTS))
    return jnp.asarray(2 * np.random.default_rng(seed + 1).normal(size=shape), dtype)


def potentials(state):
    return state[0] if isinstance(state, tuple) else state


def every(kinds, *quick):
    """All kinds as parameters of a test; those that are not `quick` are slow: each is a program of its own."""
    return [pytest.param(kind, marks=() if kind in quick else pytest.mark.slow) for kind in kinds]
