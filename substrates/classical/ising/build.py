"""Builds spins on graphs, and refuses what makes no Ising model."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from substrates import arguments
from substrates.classical.ising.graph import SpinGraph
from substrates.wiring import Bonds, Graph, lattice_edges


def from_edges(
    edges: Any,
    n: int | None,
    *,
    coupling: Any,
    field: Any,
    inputs: Sequence[int],
    outputs: Sequence[int],
    shape: tuple[int, ...] = (),
) -> SpinGraph:
    """The model that `IsingModel.from_edges` describes."""
    inputs, outputs = _nodes("inputs", inputs), _nodes("outputs", outputs)
    pairs = np.asarray(edges)
    if n is None:
        n = arguments.count_nodes({"edges": pairs, "inputs": inputs, "outputs": outputs}, [field], grow=True)
    n = arguments.whole("n", n)
    graph = Graph.from_edges(pairs, n)
    if n < 1:
        raise ValueError(f"n: wanted at least one spin, got {n}")
    for name, nodes in (("inputs", inputs), ("outputs", outputs)):
        wrong = [node for node in nodes if not 0 <= node < n]
        if wrong:
            raise ValueError(f"{name}: wanted spins from 0 to {n - 1}, got {wrong[:5]}")
        if len(set(nodes)) < len(nodes):
            raise ValueError(f"{name}: wanted each spin once, got {list(nodes)}")
    both = sorted(set(inputs) & set(outputs))
    if both:
        raise ValueError(f"outputs: wanted spins that no input holds, got {both[:5]}, which are inputs")
    if len(inputs) == n:
        raise ValueError(f"inputs: wanted at least one free spin, got all {n} held")
    weight = arguments.one_each("coupling", coupling, len(graph.edges), "edge", owner="model")
    fields = arguments.one_each("field", field, n, "spin", owner="model")
    dtype = jnp.result_type(weight.dtype, fields.dtype)
    return SpinGraph(Bonds(weight.astype(dtype), graph), fields.astype(dtype), inputs, outputs, shape)


def from_networkx(
    graph: Any, *, coupling: Any, field: Any, inputs: Sequence[Hashable], outputs: Sequence[Hashable]
) -> SpinGraph:
    """The model that `IsingModel.from_networkx` describes."""
    number = arguments.numbering(graph)
    words: dict[str, Any] = {
        "coupling": arguments.of_edges("coupling", coupling, graph),
        "field": arguments.of_nodes("field", field, graph),
        "inputs": arguments.numbers_of("inputs", inputs, number),
        "outputs": arguments.numbers_of("outputs", outputs, number),
    }
    with arguments.explained(tuple(number)):
        return from_edges([(number[a], number[b]) for a, b in graph.edges()], len(number), **words)


def lattice(
    shape: int | Sequence[int],
    *,
    coupling: Any,
    field: Any,
    periodic: bool,
    inputs: Sequence[int],
    outputs: Sequence[int],
) -> SpinGraph:
    """The model that `IsingModel.lattice` describes."""
    sides = tuple(np.atleast_1d(np.asarray(shape)).tolist())
    if not sides or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"shape: wanted positive numbers of spins along each axis, got {shape}")
    return from_edges(
        lattice_edges(sides, periodic),
        int(np.prod(sides)),
        coupling=coupling,
        field=field,
        inputs=inputs,
        outputs=outputs,
        shape=sides,
    )


def all_to_all(coupling: Any, *, field: Any, inputs: Sequence[int], outputs: Sequence[int]) -> SpinGraph:
    """The model that `IsingModel.all_to_all` describes."""
    arguments.refuse_traced("coupling", coupling, "model")
    arguments.refuse_complex("coupling", coupling)
    matrix = np.asarray(coupling)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"coupling: wanted a square matrix of shape (n, n), got shape {matrix.shape}")
    diagonal = np.flatnonzero(np.diagonal(matrix))
    if diagonal.size:
        raise ValueError(
            f"coupling: wanted zeros on the diagonal, got the self-coupling {matrix[diagonal[0], diagonal[0]]} of spin "
            f"{diagonal[0]}; s^2 = 1, so it only shifts the energy: leave it out"
        )
    unequal = np.argwhere(~np.isclose(matrix, matrix.T, rtol=1e-6, atol=0, equal_nan=True))
    if unequal.size:
        i, j = unequal[0]
        raise ValueError(
            f"coupling: wanted a symmetric matrix, got J[{i}, {j}] = {matrix[i, j]} and J[{j}, {i}] = {matrix[j, i]}; "
            "each pair counts once in the energy, so give (J + J.T)/2"
        )
    i, j = np.triu_indices(len(matrix), 1)
    pairs = np.stack([i, j], axis=1)
    return from_edges(pairs, len(matrix), coupling=matrix[i, j], field=field, inputs=inputs, outputs=outputs)


def _nodes(name: str, nodes: Any) -> tuple[int, ...]:
    array = np.asarray(nodes)
    if array.size == 0:
        return ()
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: wanted a sequence of integer spin numbers, got {nodes}; from_networkx takes labels")
    return tuple(array.tolist())
