"""From lists of springs to the fields of an elastic network; what has no single equilibrium is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from substrates import arguments
from substrates.classical.elastic import grid, sparse_factor
from substrates.classical.elastic.springs import Topology
from substrates.wiring import SparseMap, connected_parts

READINGS = ("displacement", "position", "distance")

_LEAST_LENGTH = 1e-9
"""Nodes nearer than this, in units of the extent of the network, stand on each other."""

_LEAST_STRETCH = 1e-10
"""A motion whose squared stretches are a smaller part of its squared displacements stretches no spring."""


def connected(
    edges: Any,
    n: int | None,
    positions: Any,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    clamped: Sequence[Any],
    reading: str,
) -> Topology:
    """Which springs join which nodes, what is held, driven and read; see `ElasticNetwork.from_edges`."""
    places = _positions(positions, n)
    count, dim = places.shape
    pairs = _pairs("edges", edges, count)
    if not len(pairs):
        raise ValueError("edges: wanted at least one spring, got none")
    coordinate = _Coordinates(count, dim)
    held = coordinate.several("clamped", clamped)
    moves = coordinate.weighted("inputs", inputs, whole=True)
    driven = np.unique([c for move in moves for c in move]).astype(int)
    both = np.intersect1d(held, driven)
    if both.size:
        node, axis = divmod(int(both[0]), dim)
        raise ValueError(f"inputs: wanted coordinates that are not clamped, got axis {axis} of node {node}, which is")
    prescribed = np.union1d(held, driven).astype(int)
    if prescribed.size == count * dim:
        raise ValueError("clamped, inputs: wanted at least one free coordinate, got every coordinate clamped or driven")
    drive = _matrix(moves, prescribed)
    if reading not in READINGS:
        raise ValueError(f"reading: wanted one of {', '.join(READINGS)}, got {reading!r}")
    if len(outputs) == 0:
        raise ValueError("outputs: wanted at least one, got none")
    if reading == "distance":
        read_map, read_pairs = None, _pairs("outputs", outputs, count)
        if np.any(_apart(places, read_pairs) <= _least_length(places)):
            raise ValueError("outputs: wanted nodes apart for a distance, got two at the same place: move one of them")
    else:
        reads = coordinate.weighted("outputs", outputs, whole=False)
        read_map, read_pairs = _matrix(reads, np.arange(count * dim), transpose=True), np.zeros((0, 2), int)
    return Topology(count, dim, pairs, places, prescribed, drive, reading, read_map, read_pairs)


def fields(
    topology: Topology,
    stiffness: Any,
    rest_length: Any,
    loads: Mapping[int, Any] | None,
    stiffness_floor: float | None,
    rest_length_floor: float | None,
    tension_only: Any,
    floppy: bool,
) -> dict[str, Any]:
    """The fields of an `ElasticNetwork`; see `ElasticNetwork.from_edges`."""
    m = len(topology.edges)
    topology = dataclasses.replace(topology, ropes=_ropes(tension_only, m))
    k = _numbers("stiffness", stiffness, m, "newtons per metre")
    lengths = _apart(topology.reference, topology.edges) if rest_length is None else rest_length
    lengths = _numbers("rest_length", lengths, m, "metres", k.dtype, zero=True)
    ideal = (np.asarray(lengths) == 0) & (rest_length is not None)
    _refuse_no_direction(topology, ideal)
    built = {
        "stiffness": k,
        "rest_length": lengths,
        "topology": topology,
        "load": _loads(loads, topology.n, topology.dim, k.dtype),
        "stiffness_floor": _floor("stiffness_floor", stiffness_floor, k),
        "rest_length_floor": _floor("rest_length_floor", rest_length_floor, lengths, zero=True),
    }
    if not floppy:
        _refuse_loose_parts(topology)
        _refuse_floppy(topology, ideal)
    return built


def by_labels(
    graph: Any,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    clamped: Sequence[Hashable],
    positions: Any,
    stiffness: Any,
    **options: Any,
) -> dict[str, Any]:
    """The arguments of `ElasticNetwork.from_edges` that those of `ElasticNetwork.from_networkx` stand for."""
    number = arguments.numbering(graph, parallel=True)

    def renamed(name: str, entry: Any) -> Any:
        if isinstance(entry, Mapping):
            return {renamed(name, key): value for key, value in entry.items()}
        with_axis = isinstance(entry, tuple) and len(entry) == 2 and arguments.is_label(entry[0], number)
        if not arguments.is_label(entry, number):
            return (number[entry[0]], entry[1]) if with_axis else arguments.number_of(name, entry, number)
        if with_axis and _whole(entry[1]):
            raise ValueError(
                f"{name}: wanted entries of one meaning, got {entry!r}, which is the label of a node and an axis of "
                f"another, {entry[0]!r}: relabel the nodes"
            )
        return number[entry]

    def apart(entry: Any) -> Any:
        if not (isinstance(entry, tuple | list) and len(entry) == 2):
            raise ValueError(f"outputs: wanted pairs of labels of nodes, whose distances are read, got {entry!r}")
        return tuple(arguments.numbers_of("outputs", entry, number))

    distances = options.get("reading") == "distance"
    words = {
        "edges": [(number[a], number[b]) for a, b in graph.edges()],
        "n": len(number),
        "loads": arguments.by_number("loads", options.pop("loads", None), number),
        "rest_length": arguments.of_edges("rest_length", options.pop("rest_length", None), graph),
        "positions": arguments.of_nodes("positions", positions, graph),
        "stiffness": arguments.of_edges("stiffness", stiffness, graph),
        "inputs": [renamed("inputs", entry) for entry in inputs],
        "outputs": [apart(entry) if distances else renamed("outputs", entry) for entry in outputs],
        "clamped": [renamed("clamped", entry) for entry in clamped],
    }
    return dict(**words, **options)  # which refuses what is given twice


class _Coordinates:
    """Reads nodes, (node, axis) and dicts of them as coordinates node * dim + axis."""

    def __init__(self, n: int, dim: int):
        self.n, self.dim = n, dim

    def of(self, name: str, entry: Any) -> list[int]:
        if _whole(entry):
            self._check(name, int(entry))
            return [int(entry) * self.dim + axis for axis in range(self.dim)]
        if isinstance(entry, tuple | list) and len(entry) == 2 and all(map(_whole, entry)):
            node, axis = int(entry[0]), int(entry[1])
            self._check(name, node)
            if not 0 <= axis < self.dim:
                raise ValueError(f"{name}: wanted an axis from 0 to {self.dim - 1}, got {axis} for node {node}")
            return [node * self.dim + axis]
        raise ValueError(f"{name}: wanted nodes (whole numbers) or pairs (node, axis), got {entry!r}")

    def several(self, name: str, entries: Sequence[Any]) -> np.ndarray:
        found = [c for entry in entries for c in self.of(name, entry)]
        if len(set(found)) < len(found):
            twice = next(c for c in found if found.count(c) > 1)
            raise ValueError(f"{name}: wanted each coordinate once, got node {twice // self.dim} more than once")
        return np.asarray(found, int)

    def weighted(self, name: str, entries: Sequence[Any], whole: bool) -> list[dict[int, float]]:
        """{coordinate: weight} for each dict, pair (node, axis), and axis of a node alone; with `whole` a vector for a
        node names all its coordinates, even with weight 0.
        """
        found: list[dict[int, float]] = []
        for entry in entries:
            if isinstance(entry, Mapping):
                found.append(self._summed(name, entry, whole))
            else:
                found += [{coordinate: 1.0} for coordinate in self.of(name, entry)]
        return found

    def _summed(self, name: str, entry: Mapping[Any, Any], whole: bool) -> dict[int, float]:
        found: dict[int, float] = {}
        for key, value in entry.items():
            at = self.of(name, key)
            weights = arguments.real_floats(name, value)
            if weights.shape != ((len(at),) if _whole(key) else ()):
                wanted = f"a vector of {self.dim} numbers" if _whole(key) else "a number"
                raise ValueError(f"{name}: wanted {wanted} for {key!r}, got {value!r}")
            if not np.all(np.isfinite(weights)):
                raise ValueError(f"{name}: wanted finite numbers, got {value!r} for {key!r}")
            for coordinate, weight in zip(at, weights.reshape(-1).tolist(), strict=True):
                if weight != 0 or whole:
                    found[coordinate] = found.get(coordinate, 0.0) + weight
        if not any(found.values()):
            raise ValueError(f"{name}: wanted a dict that moves or reads something, got {dict(entry)!r}")
        return found

    def _check(self, name: str, node: int) -> None:
        if not 0 <= node < self.n:
            raise ValueError(f"{name}: wanted nodes from 0 to {self.n - 1}, got {node}")


def _whole(entry: Any) -> bool:
    return isinstance(entry, int | np.integer) and not isinstance(entry, bool)


def _matrix(columns: list[dict[int, float]], coordinates: np.ndarray, transpose: bool = False) -> SparseMap:
    place = {int(c): row for row, c in enumerate(coordinates)}
    entries = [(place[c], column, w) for column, move in enumerate(columns) for c, w in move.items() if w != 0]
    rows, numbers, weights = zip(*entries, strict=True) if entries else ((), (), ())
    shape = (len(coordinates), len(columns))
    ends = (np.asarray(rows, int), np.asarray(numbers, int))
    matrix = scipy.sparse.coo_array((np.asarray(weights, float), ends), shape=shape)
    return SparseMap.from_scipy(matrix.T if transpose else matrix)


def _apart(places: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.linalg.norm(places[pairs[:, 1]] - places[pairs[:, 0]], axis=1)


def _positions(positions: Any, n: int | None) -> np.ndarray:
    places = arguments.real_floats("positions", positions)
    if places.ndim != 2 or places.shape[1] not in (2, 3) or len(places) < 2:
        raise ValueError(f"positions: wanted shape (n, 2) or (n, 3) with n at least 2, got shape {places.shape}")
    if n is not None and len(places) != n:
        raise ValueError(f"positions: wanted one for each of the {n} nodes, got {len(places)}")
    arguments.refuse_not_finite("positions", np.abs(places).max(axis=1))
    return places


def _pairs(name: str, pairs: Any, n: int) -> np.ndarray:
    array = np.asarray(pairs)
    if array.size == 0:
        return np.zeros((0, 2), int)
    if array.ndim != 2 or array.shape[1] != 2 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: wanted pairs of whole node numbers, shape (count, 2), got {array.dtype} of shape "
                         f"{array.shape}")  # fmt: skip
    wrong = np.unique(array[(array < 0) | (array >= n)])
    if wrong.size:
        raise ValueError(f"{name}: wanted nodes from 0 to {n - 1}, got {wrong[:5].tolist()}")
    loops = np.flatnonzero(array[:, 0] == array[:, 1])
    if loops.size:
        raise ValueError(f"{name}: wanted two different nodes each, got node {array[loops[0], 0]} twice in number "
                         f"{loops[0]}: remove it")  # fmt: skip
    return array.astype(int)


def _numbers(name: str, values: Any, count: int, unit: str, dtype: Any = None, zero: bool = False) -> jax.Array:
    array = arguments.one_each(name, values, count, "spring", dtype=dtype, finite=False)
    numbers = np.asarray(array)
    wrong = np.flatnonzero(~(np.isfinite(numbers) & ((numbers >= 0) if zero else (numbers > 0))))
    if wrong.size:
        wanted = "finite numbers, none negative," if zero else "positive finite numbers"
        raise ValueError(
            f"{name}: wanted {wanted} of {unit}, got {numbers[wrong[:5]].tolist()} on springs "
            f"{wrong[:5].tolist()}: raise them or remove the springs"
        )
    return array


def _floor(name: str, floor: float | None, values: jax.Array, zero: bool = False) -> float:
    least = float(np.min(values))
    if floor is None:
        return 1e-3 * least
    arguments.refuse_complex(name, floor)
    if not (np.isfinite(floor) and (floor > 0 or (zero and floor == 0)) and floor <= least * (1 + 1e-6)):
        wanted = "0 or a positive number" if zero else "a positive number"
        raise ValueError(f"{name}: wanted {wanted} not above the smallest value, {least:g}, got {floor}")
    return float(floor)


def _least_length(places: np.ndarray) -> float:
    return _LEAST_LENGTH * float(np.max(np.ptp(places, axis=0)))


def _refuse_no_direction(topology: Topology, ideal: np.ndarray) -> None:
    short = np.flatnonzero((_apart(topology.reference, topology.edges) <= _least_length(topology.reference)) & ~ideal)
    if short.size:
        raise ValueError(
            f"positions: wanted joined nodes apart, got nodes {topology.edges[short[0]].tolist()} of spring {short[0]} "
            "at the same place, where a spring has no direction: move one of them, or give it the rest length 0"
        )


def _ropes(tension_only: Any, m: int) -> np.ndarray | None:
    chosen = np.asarray(tension_only)
    if chosen.dtype != bool or chosen.shape not in ((), (m,)):
        raise ValueError(
            f"tension_only: wanted True or False, or one of them for each of the {m} springs, got {chosen.dtype} of "
            f"shape {chosen.shape}"
        )
    return np.broadcast_to(chosen, (m,)).copy() if chosen.any() else None


def _loads(loads: Mapping[int, Any] | None, n: int, dim: int, dtype: Any) -> jax.Array | None:
    if not loads:
        return None
    table = np.zeros((n, dim))
    for node, force in loads.items():
        if not _whole(node) or not 0 <= node < n:
            raise ValueError(f"loads: wanted nodes from 0 to {n - 1}, got {node!r}")
        vector = arguments.real_floats("loads", force)
        if vector.shape != (dim,) or not np.all(np.isfinite(vector)):
            raise ValueError(f"loads: wanted {dim} finite numbers of newtons for node {node}, got {force!r}")
        table[node] = vector
    return jnp.asarray(table, dtype)


def _refuse_loose_parts(topology: Topology) -> None:
    part = connected_parts(topology.n, topology.edges)
    holding = np.bincount(part[topology.prescribed // topology.dim], minlength=part.max() + 1)
    loose = np.flatnonzero(holding[part] == 0)
    if loose.size:
        raise ValueError(
            f"clamped, inputs: wanted every part of the network held somewhere, got nodes {loose[:8].tolist()}"
            f"{' and more' if loose.size > 8 else ''} joined to no clamped or driven node: clamp or join some, or say "
            "floppy=True"
        )


def _refuse_floppy(topology: Topology, ideal: np.ndarray) -> None:
    """Refuses a network whose springs, without pre-stress, leave some motion free; those without a rest length hold
    every way.
    """
    # whether a motion stretches a spring is a matter of directions alone
    one = np.ones(len(topology.edges))
    outer, identity, _ = sparse_factor.spring_parts(topology, (one, one, topology.reference))
    outer = np.where(ideal[:, None, None], identity, outer)
    shift = -_LEAST_STRETCH * sparse_factor.node_stiffness(topology, one)
    unstressed = one, np.where(ideal, 0.0, _apart(topology.reference, topology.edges)), topology.reference
    if grid.by_grid(topology):
        found = grid.softest(topology, unstressed, None, _LEAST_STRETCH)
        if found.eigenvalue == np.inf:
            return
        mode = found.mode
    elif sparse_factor.positive_factor(topology, outer, shift, np.float64) is not None:
        return
    else:
        mode = sparse_factor.softest(topology, unstressed, None, _LEAST_STRETCH).mode
    owners = topology.free // topology.dim
    moving = np.bincount(owners, np.abs(mode), minlength=topology.n)
    movers = np.argsort(-moving)[: min(4, int(np.sum(moving > 0.1 * moving.max())))]
    spare = topology.free.size - len(topology.edges)
    count = f" ({topology.free.size} free coordinates, {len(topology.edges)} springs)" if spare > 0 else ""
    raise ValueError(
        f"edges: wanted springs that hold every free node, got a motion that stretches none of them{count}; nodes "
        f"{movers.tolist()} move most in it: add springs or clamps there, or say floppy=True if pre-stress holds it"
    )
