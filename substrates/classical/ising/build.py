"""Builds spins on graphs, and refuses what makes no Ising model."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

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
    largest = [int(np.max(nodes)) for nodes in (pairs, inputs, outputs) if np.size(nodes)]
    if n is None:
        n = max([*largest, np.size(field) - 1 if np.ndim(field) else -1]) + 1 if largest or np.ndim(field) else 0
    if n < 1:
        raise ValueError(f"n: wanted at least one spin, got {n}")
    graph = Graph.from_edges(pairs, int(n))
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
    weight = _numbers("coupling", coupling, len(graph.edges), "edge")
    fields = _numbers("field", field, int(n), "spin")
    dtype = jnp.result_type(weight.dtype, fields.dtype)
    return SpinGraph(Bonds(weight.astype(dtype), graph), fields.astype(dtype), inputs, outputs, shape)


def from_networkx(
    graph: Any, *, coupling: Any, field: Any, inputs: Sequence[Hashable], outputs: Sequence[Hashable]
) -> SpinGraph:
    """The model that `IsingModel.from_networkx` describes."""
    if graph.is_directed():
        raise ValueError("graph: wanted an undirected graph, as couplings are symmetric; got a directed one")
    number = {label: k for k, label in enumerate(graph.nodes)}
    for name, labels in (("inputs", inputs), ("outputs", outputs)):
        for label in labels:
            if label not in number:
                raise ValueError(f"{name}: wanted labels of nodes of the graph, got {label!r}")
    if isinstance(coupling, str):
        for a, b, attributes in graph.edges(data=True):
            if coupling not in attributes:
                raise ValueError(
                    f"coupling: wanted the attribute {coupling!r} on every edge, got none on ({a!r}, {b!r}): set it or "
                    "give an array"
                )
        coupling = np.asarray([attributes[coupling] for _, _, attributes in graph.edges(data=True)], float)
    return from_edges(
        [(number[a], number[b]) for a, b in graph.edges()],
        len(number),
        coupling=coupling,
        field=field,
        inputs=[number[label] for label in inputs],
        outputs=[number[label] for label in outputs],
    )


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
    _refuse_traced("coupling", coupling)
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


def _numbers(name: str, values: Any, count: int, each: str) -> jax.Array:
    _refuse_traced(name, values)
    array = jnp.asarray(values)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        if not jnp.issubdtype(array.dtype, jnp.integer):
            raise ValueError(f"{name}: wanted real numbers, got {array.dtype}")
        array = array.astype(float)
    if array.shape not in ((), (count,)):
        raise ValueError(f"{name}: wanted one number or shape ({count},), one per {each}, got shape {array.shape}")
    wrong = np.flatnonzero(~np.isfinite(np.asarray(jnp.atleast_1d(array))))
    if wrong.size:
        raise ValueError(f"{name}: wanted finite numbers, got NaN or infinity at {wrong[:5].tolist()}")
    return jnp.broadcast_to(array, (count,))


def _refuse_traced(name: str, values: Any) -> None:
    if isinstance(values, Tracer):
        raise ValueError(
            f"{name}: wanted numbers when the model is built, got a traced array: build it outside compiled code and "
            "replace the numbers inside with equinox.tree_at"
        )
