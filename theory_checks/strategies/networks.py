"""Networks on graphs: circuits, springs, driven motion, activators and inhibitors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis.strategies import SearchStrategy
from jax.typing import DTypeLike

from substrates.classical.activator_inhibitor import ActivatorInhibitor
from substrates.classical.driven import DrivenNetwork
from substrates.classical.elastic import ElasticNetwork
from substrates.classical.resistor import ResistorNetwork, Shockley
from theory_checks.strategies.draws import Draw, drawn, random_graph, refilled, terminals, whole


def resistor_circuits(
    nodes: int = 7,
    inputs: int = 2,
    outputs: int = 2,
    *,
    diodes: int = 0,
    diode: Shockley | None = None,
    graph: int = 0,
    dtype: DTypeLike = float,
) -> SearchStrategy[ResistorNetwork]:
    """Connected circuits on one random graph, with conductances between 0.03 and 3 siemens that shrink to 0.3.

    Args:
        nodes: how many nodes; the first are clamped inputs, the last are outputs.
        inputs: how many inputs.
        outputs: how many outputs.
        diodes: how many diodes, each from ground to a free node or from a free node to ground.
        diode: None for ideal diodes, or the law of all of them.
        graph: the seed of the graph and of the diodes, so that one graph compiles once.
        dtype: of the conductances.

    Raises ValueError for fewer nodes than terminals and diodes need, and for numbers that are not whole.
    """
    ends = terminals(nodes, inputs, outputs)
    whole("diodes", diodes, 0)
    if inputs + outputs + diodes > nodes:
        raise ValueError(
            f"nodes: wanted at least inputs + outputs + diodes = {inputs + outputs + diodes} nodes, got {nodes}"
        )
    edges, turns = random_graph(nodes, graph), np.random.default_rng(graph)
    wired = [(-1, node) if turns.integers(2) else (node, -1) for node in range(inputs, inputs + diodes)]
    unit = jnp.ones(len(edges), dtype)
    template = ResistorNetwork.from_edges(edges, nodes, **ends, conductance=unit, diodes=wired, diode=diode)
    return drawn(lambda draw: refilled(template, lambda shape: draw.magnitudes(shape, 0.3, 10.0)))


def elastic_networks(
    columns: int = 3, rows: int = 3, inputs: int = 1, *, graph: int = 0, dtype: DTypeLike = float
) -> SearchStrategy[ElasticNetwork]:
    """Disordered triangular lattices in the plane, lightly pre-stressed: rigid, and far from buckling.

    The bottom row is clamped, the inputs displace the first nodes of the top row along it, in metres (0.1 of a spring
    is much), and the outputs are both displacements of the node in the middle.

    Args:
        columns: nodes in a row, at least 2.
        rows: at least 3.
        inputs: how many nodes of the top row are displaced.
        graph: the seed of the places of the nodes.
        dtype: of the parameters.

    Raises ValueError for a lattice that is too small, and for more inputs than the top row has nodes.
    """
    for name, value, least in (("columns", columns, 2), ("rows", rows, 3), ("inputs", inputs, 1)):
        whole(name, value, least)
    if inputs > columns:
        raise ValueError(f"inputs: wanted at most one for each of the {columns} nodes of the top row, got {inputs}")
    top, middle = (rows - 1) * columns, (rows // 2) * columns + columns // 2
    template = ElasticNetwork.lattice(
        "triangular",
        (columns, rows),
        inputs=[(top + k, 0) for k in range(inputs)],
        outputs=[middle],
        clamped=list(range(columns)),
        disorder=0.1,
        key=jax.random.key(graph),
    )
    length = np.asarray(template.rest_length)

    def build(draw: Draw) -> ElasticNetwork:
        return ElasticNetwork(
            stiffness=jnp.asarray(draw.magnitudes(length.shape), dtype),
            rest_length=jnp.asarray(length * draw.magnitudes(length.shape, 1.0, 1.02), dtype),
            topology=template.topology,
            stiffness_floor=1e-3,
            rest_length_floor=1e-3,
        )

    return drawn(build)


def driven_networks(
    nodes: int = 4, inputs: int = 2, outputs: int = 2, *, graph: int = 0, dtype: DTypeLike = float
) -> SearchStrategy[DrivenNetwork]:
    """Damped networks driven at 0.7 and 1.6 rad/s, whose mean squares are read; masses and stiffnesses shrink to 1.

    Args:
        nodes, inputs, outputs: how many; inputs are the first nodes, outputs the last.
        graph: the seed of the graph.
        dtype: of the parameters.

    Raises ValueError for fewer nodes than terminals.
    """
    return _on_graph(
        DrivenNetwork,
        (nodes, inputs, outputs, graph, dtype),
        lambda draw, edges: {
            "frequencies": np.array([0.7, 1.6]),
            "stiffness": draw.magnitudes(edges),
            "damping": draw.magnitudes(edges, 0.3),
            "onsite_stiffness": draw.magnitudes(nodes),
            "onsite_damping": draw.magnitudes(nodes, 0.3),
            "mass": draw.magnitudes(nodes),
        },
    )


def activator_inhibitor_systems(
    nodes: int = 4, inputs: int = 2, outputs: int = 2, *, graph: int = 0, dtype: DTypeLike = float
) -> SearchStrategy[ActivatorInhibitor]:
    """Skew-gradient systems with one rest, which is stable: no gain is above 0. Their rest is a saddle of the energy.

    Args:
        nodes, inputs, outputs: how many; inputs are the first nodes, outputs the last.
        graph: the seed of the graph.
        dtype: of the parameters.

    Raises ValueError for fewer nodes than terminals.
    """
    return _on_graph(
        ActivatorInhibitor,
        (nodes, inputs, outputs, graph, dtype),
        lambda draw, edges: {
            "activator_diffusion": draw.magnitudes(edges, 0.3),
            "inhibitor_diffusion": draw.magnitudes(edges),
            "gain": -draw.magnitudes(nodes, 0.3),
            "coupling": draw.magnitudes(nodes),
            "decay": draw.magnitudes(nodes),
            "bias": draw.numbers(nodes, 0.3),
        },
        gain_ceiling=0.0,
    )


def _on_graph(
    kind: Any,
    sizes: tuple[int, int, int, int, DTypeLike],
    numbers: Callable[[Draw, int], dict[str, np.ndarray]],
    **options: Any,
) -> SearchStrategy:
    """Systems on one random graph, with numbers drawn for its edges and nodes.

    Args:
        kind: a class with `from_edges`.
        sizes: nodes, inputs, outputs, the seed of the graph, and the dtype of the numbers.
        numbers: draws the arguments of `from_edges`, given how many edges there are.
    """
    nodes, inputs, outputs, graph, dtype = sizes
    ends, edges = terminals(nodes, inputs, outputs), random_graph(nodes, graph)

    def build(draw: Draw) -> Any:
        drawn_numbers = {name: jnp.asarray(value, dtype) for name, value in numbers(draw, len(edges)).items()}
        return kind.from_edges(edges, nodes, **ends, **drawn_numbers, **options)

    return drawn(build)
