"""From what users say to the fields of spins on graphs and in layers; refuses what makes no Ising model."""

from __future__ import annotations

import math
import operator
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from substrates import arguments
from substrates.wiring import Bonds, Dense, Graph, Grid, Roles, bonds_along, edges_by_axis, lattice_edges

# graphs


FEWEST_ON_A_GRID = 1024
"""Lattices of as many spins are grids, of which programs hold no edges; smaller ones are graphs like any other."""


def from_edges(edges: Any, n: int | None, coupling: Any, field: Any, inputs: Any, outputs: Any) -> dict[str, Any]:
    """The fields of the model that `IsingModel.from_edges` describes."""
    members, pairs = {"inputs": inputs, "outputs": outputs}, np.asarray(edges)
    if n is None:
        n = arguments.count_nodes({"edges": pairs, **members}, [field], grow=True)
    n = arguments.whole("n", n)
    graph = Graph.from_edges(pairs, n)
    if n < 1:
        raise ValueError(f"n: wanted at least one spin, got {n}")
    return _on(graph, coupling, field, inputs, outputs)


def _on(
    graph: Graph, coupling: Any, field: Any, inputs: Any, outputs: Any, shape: tuple[int, ...] = ()
) -> dict[str, Any]:
    """The fields of the model on a graph."""
    n, members = graph.n, {"inputs": inputs, "outputs": outputs}
    inputs, outputs = (arguments.different_nodes(name, nodes, n, "spin") for name, nodes in members.items())
    both = sorted(set(inputs) & set(outputs))
    if both:
        raise ValueError(f"outputs: wanted spins that no input holds, got {both[:5]}, which are inputs")
    if len(inputs) == n:
        raise ValueError(f"inputs: wanted at least one free spin, got all {n} held")
    weight = arguments.one_each("coupling", coupling, graph.count, "edge", owner="model")
    fields = arguments.one_each("field", field, n, "spin", owner="model")
    dtype = jnp.result_type(weight.dtype, fields.dtype)
    return {
        "coupling": Bonds(weight.astype(dtype), graph),
        "field": fields.astype(dtype),
        "roles": Roles.of(graph, inputs, outputs=outputs),
        "shape": shape,
    }


def from_networkx(
    graph: Any, coupling: Any, field: Any, inputs: Sequence[Hashable], outputs: Sequence[Hashable]
) -> dict[str, Any]:
    """The fields of the model that `IsingModel.from_networkx` describes."""
    number = arguments.numbering(graph)
    weights = arguments.of_edges("coupling", coupling, graph)
    fields = arguments.of_nodes("field", field, graph)
    roles = arguments.numbers_of("inputs", inputs, number), arguments.numbers_of("outputs", outputs, number)
    edges = [(number[a], number[b]) for a, b in graph.edges()]
    with arguments.explained(tuple(number)):
        return {**from_edges(edges, len(number), weights, fields, *roles), "labels": tuple(number)}


def lattice(
    shape: int | Sequence[int], periodic: bool, coupling: Any, field: Any, inputs: Any, outputs: Any
) -> dict[str, Any]:
    """The fields of the model that `IsingModel.lattice` describes."""
    sides = arguments.sides(shape, periodic, "spin")
    n = math.prod(sides)
    if n >= FEWEST_ON_A_GRID and Grid.fits(sides, periodic):
        graph = Graph(n, None, None, Grid.of(sides, periodic))
    else:
        graph = Graph.joining(lattice_edges(sides, periodic), n)
    return _on(graph, _by_axis(coupling, sides, periodic), field, inputs, outputs, sides)


def _by_axis(coupling: Any, sides: tuple[int, ...], periodic: bool) -> Any:
    """The couplings of a lattice as one number or one for each edge; from one array or number for each axis, too."""
    if not isinstance(coupling, list | tuple):
        return coupling
    shapes = bonds_along(sides, periodic)
    edges = sum(map(math.prod, shapes))
    if len(coupling) == edges and all(np.ndim(along) == 0 for along in coupling):
        return coupling
    if len(coupling) != len(sides):
        raise ValueError(
            f"coupling: wanted one number, a number or an array for each of the {len(sides)} axes, or a number for "
            f"each of the {edges} edges, got a list of {len(coupling)}"
        )
    found = []
    for axis, (along, wanted) in enumerate(zip(coupling, shapes, strict=True)):
        values = np.asarray(arguments.real_array(f"coupling[{axis}]", along, owner="model"))
        if values.shape not in ((), wanted):
            raise ValueError(
                f"coupling[{axis}]: wanted one number or shape {wanted}, one for each two neighbours along the axis, "
                f"got shape {values.shape}"
            )
        arguments.refuse_not_finite(f"coupling[{axis}]", values)
        found.append(np.broadcast_to(values, wanted))
    return edges_by_axis(found, sides)


def all_to_all(coupling: Any, field: Any, inputs: Any, outputs: Any) -> dict[str, Any]:
    """The fields of the model that `IsingModel.all_to_all` describes."""
    matrix = arguments.square("coupling", coupling)
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
    return from_edges(np.stack([i, j], axis=1), len(matrix), matrix[i, j], field, inputs, outputs)


def from_bqm(bqm: Any, inputs: Sequence[Hashable], outputs: Sequence[Hashable]) -> dict[str, Any]:
    """The fields of the model that `IsingModel.from_bqm` describes."""
    import dimod

    if not isinstance(bqm, dimod.BinaryQuadraticModel):
        raise ValueError(f"bqm: wanted a dimod.BinaryQuadraticModel, got {type(bqm).__name__}")
    if not len(bqm.variables):
        raise ValueError("bqm: wanted at least one variable, got none")
    bqm = bqm.change_vartype(dimod.SPIN, inplace=False)
    linear = {label: float(bqm.linear[label]) for label in bqm.variables}
    return _of_terms(linear, bqm.quadratic, float(bqm.offset), inputs, outputs)


def from_qubo(qubo: Any, offset: float, inputs: Sequence[Hashable], outputs: Sequence[Hashable]) -> dict[str, Any]:
    """The fields of the model that `IsingModel.from_qubo` describes."""
    if not isinstance(qubo, Mapping):
        matrix = arguments.square("qubo", qubo.toarray() if hasattr(qubo, "toarray") else qubo)
        entries = {(i, i): 0.0 for i in range(len(matrix))}
        entries |= {(i, j): float(matrix[i, j]) for i, j in np.argwhere(matrix).tolist()}
    else:
        entries = dict(qubo)
        strange = next((pair for pair in entries if not (isinstance(pair, tuple) and len(pair) == 2)), None)
        if strange is not None:
            raise ValueError(f"qubo: wanted numbers by pairs of labels, {{(a, b): Q_ab}}, got the entry {strange!r}")
    if not entries:
        raise ValueError("qubo: wanted at least one variable, got none")
    found = arguments.real_floats("qubo", list(entries.values()))
    arguments.refuse_not_finite("qubo", found)
    if found.ndim != 1:
        raise ValueError(f"qubo: wanted one number for each pair of labels, got shape {found.shape[1:]}")
    labels: dict[Hashable, None] = dict.fromkeys(label for pair in entries for label in pair)
    if all(type(label) is int for label in labels) and set(labels) == set(range(len(labels))):
        labels = dict.fromkeys(range(len(labels)))  # counted, in whatever order they came
    linear: dict[Hashable, float] = dict.fromkeys(labels, 0.0)
    quadratic: dict[tuple[Hashable, Hashable], float] = {}
    # b = (1 + s)/2
    for (a, b), value in zip(entries, found.tolist(), strict=True):
        if a == b:
            linear[a] += value / 2
            offset += value / 2
            continue
        pair = (b, a) if (b, a) in quadratic else (a, b)
        quadratic[pair] = quadratic.get(pair, 0.0) + value / 4
        linear[a] += value / 4
        linear[b] += value / 4
        offset += value / 4
    return _of_terms(linear, quadratic, offset, inputs, outputs)


def _of_terms(
    linear: Mapping[Hashable, float],
    quadratic: Mapping[tuple[Hashable, Hashable], float],
    offset: float,
    inputs: Sequence[Hashable],
    outputs: Sequence[Hashable],
) -> dict[str, Any]:
    """The fields of spins with E = offset + sum linear_i s_i + sum quadratic_ij s_i s_j, dimod's sign."""
    number = {label: k for k, label in enumerate(linear)}
    numbers = lambda name, labels: [
        arguments.number_of(name, label, number, "variables of the model") for label in labels
    ]
    held, read = numbers("inputs", inputs), numbers("outputs", outputs)
    couplings, fields = (-np.asarray(list(values), float) for values in (quadratic.values(), linear.values()))
    with arguments.explained(tuple(number)):
        found = from_edges([(number[a], number[b]) for a, b in quadratic], len(number), couplings, fields, held, read)
    arguments.refuse_not_finite("offset", np.asarray(offset))
    dtype = found["field"].dtype
    return {**found, "labels": tuple(number), "offset": jnp.asarray(offset, dtype) if offset else None}


# layers


def layers(
    sizes: Any, key: PRNGKeyArray, copies: int, levels: Any, gain: float, dtype: Any, **limits: float | None
) -> dict[str, Any]:
    """The fields of the layers that `LayeredSpins.layered` describes."""
    refused = ValueError(f"sizes: wanted at least two positive integers (inputs, ..., outputs), got {sizes}")
    try:
        sizes = tuple(operator.index(size) for size in sizes)
    except TypeError:
        raise refused from None
    if len(sizes) < 2 or min(sizes) < 1:
        raise refused
    if not isinstance(copies, int) or copies < 1:
        raise ValueError(f"copies: wanted a whole number of spins per output, at least 1, got {copies}")
    arguments.refuse_complex("levels", *levels)
    arguments.refuse_complex("gain", gain)
    low, high = (float(level) for level in levels)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"levels: wanted two finite numbers, the lower one first, got {levels}")
    if not (np.isfinite(gain) and gain > 0):
        raise ValueError(f"gain: wanted a positive finite number, got {gain}")
    for name, limit in limits.items():
        if limit is not None and not (np.isfinite(limit) and limit > 0):
            raise ValueError(f"{name}: wanted a positive finite number or None, got {limit}")
    dtype = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
    widths = (*sizes[:-1], sizes[-1] * copies)
    keys = jax.random.split(key, len(sizes) - 1)
    draw = lambda k, m, n: gain / m**0.5 * jax.random.normal(k, (m, n), dtype)
    coupling = tuple(Dense(draw(k, m, n)) for k, m, n in zip(keys, widths[:-1], widths[1:], strict=True))
    field = tuple(jnp.zeros(n, dtype) for n in widths[1:])
    return {"coupling": coupling, "field": field, "copies": copies, "levels": (low, high), **limits}
