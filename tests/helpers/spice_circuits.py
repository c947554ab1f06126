"""Circuits with every kind of element, for the tests of netlists: fixed graphs, drawn values."""

import shutil

import numpy as np
import pytest

from substrates.classical.resistor.elements import Shockley
from substrates.classical.resistor.network import ResistorNetwork

needs_ngspice = pytest.mark.skipif(
    shutil.which("ngspice") is None, reason="ngspice is not on the PATH; install it with: apt-get install ngspice"
)

KINDS = ("linear", "real diodes", "ideal diodes", "amplifiers")


def circuit(kind, seed, n=12):
    """(network, x) of one kind; the same graph for every seed."""
    graph = np.random.default_rng(7)
    values = np.random.default_rng(seed)
    tree = [(k, int(graph.integers(k))) for k in range(1, n)]
    extra = [tuple(int(node) for node in graph.choice(n, 2, replace=False)) for _ in range(n)]
    edges = [*tree, *extra, (int(graph.integers(n)), -1), (-1, n - 1)]
    free = np.arange(2, n)
    any_pairs = [tuple(int(v) for v in graph.choice(np.arange(-1, n), 2, replace=False)) for _ in range(n // 2)]
    ordered_pairs = [tuple(sorted(int(v) for v in graph.choice(free, 2, replace=False))) for _ in range(n // 3)]
    options = {}
    if kind == "linear":
        options = {
            "rails": {2: values.normal(), 3: values.normal()},
            "voltage_sources": [(4, 5, values.normal())],
            "controlled_sources": [(6, -1, 7, 8, graph.uniform(-0.5, 0.5))],
        }
    elif kind == "amplifiers":
        gains = graph.uniform(0.5, 2.0, 2)
        options = {
            "controlled_sources": [(4, -1, 5, -1, gains[0], gains[0]), (6, 7, 8, 2, gains[1], gains[1])],
        }
    elif kind == "real diodes":
        law = Shockley(10 ** values.uniform(-14, -9), values.uniform(0.02, 0.06))
        options = {"diodes": any_pairs, "diode": law}
    elif kind == "ideal diodes":
        options = {"diodes": [*ordered_pairs, (2, -1), (-1, n - 1)]}
    network = ResistorNetwork.from_edges(
        edges,
        n,
        inputs=[0, 1],
        outputs=[n - 1, n - 2],
        conductance=10 ** values.uniform(-5, -2, len(edges)),
        current_sources=[(-1, n - 1, 1e-3 * values.normal()), (0, n - 2, 1e-3 * values.normal())],
        **options,
    )
    return network, 2 * values.normal(size=2)
