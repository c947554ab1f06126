"""Which elements join which nodes, checked, and what their voltage sources leave free."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact, Int, PyTree

from substrates.classical.resistor.elements import GROUND, Shockley
from substrates.solvers.solver import System
from substrates.wiring import HashedByContent, SparseMap, colour_classes, connected_parts, taken
from substrates.wiring.graphs import MOST_NODES_AT_RUN_TIME

WIDTHS = {
    "edges": 2,
    "diodes": 2,
    "current_sources": 2,
    "voltage_sources": 2,
    "controlled_sources": 4,
    "inputs": 1,
    "outputs": 1,
    "rails": 1,
}
"""How many nodes each element of a kind has, and in which order `Topology` lists the kinds."""


@dataclasses.dataclass(frozen=True, eq=False)
class Layout(HashedByContent):
    """Which elements of a circuit join which of its n nodes and ground (-1), and what follows from it, on the host.

    The voltage sources are, in this order: inputs and rails (to ground), two-node sources, controlled sources. They
    join nodes into groups; what they leave free is one potential per group without ground, the voltage of its lowest
    node.

    Attributes:
        n: the number of nodes without ground.
        edges: resistors, shape (m, 2).
        diodes: (anode, cathode), shape (k, 2).
        current_sources: (from, to), shape (k, 2).
        voltage_sources: (plus, minus), shape (k, 2).
        controlled_sources: (plus, minus, control plus, control minus), shape (k, 4).
        inputs, outputs, rails: nodes.
        gains: gain and reverse gain of the controlled sources, shape (2, k).
        ideal_diodes: whether the diodes are ideal.
    """

    n: int
    edges: np.ndarray
    diodes: np.ndarray
    current_sources: np.ndarray
    voltage_sources: np.ndarray
    controlled_sources: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    rails: np.ndarray
    gains: np.ndarray
    ideal_diodes: bool

    @functools.cached_property
    def source_pairs(self) -> np.ndarray:
        """(plus, minus) of every voltage source, controlled ones last, shape (sources, 2)."""
        grounded = np.concatenate([self.inputs, self.rails])
        to_ground = np.stack([grounded, np.full_like(grounded, GROUND)], axis=1)
        return np.concatenate([to_ground, self.voltage_sources, self.controlled_sources[:, :2]])

    @property
    def conservative(self) -> bool:
        """Whether the circuit has an energy: whether every controlled source acts back as much as it acts."""
        return bool(np.array_equal(*self.gains))

    @functools.cached_property
    def _groups(self) -> tuple[np.ndarray, np.ndarray, Any]:
        return _group_by_sources(self.n, self.source_pairs)

    @property
    def potentials(self) -> np.ndarray:
        """The nodes whose voltages are the independent potentials, ascending."""
        return self._groups[0]

    @functools.cached_property
    def _forward(self) -> tuple[Any, Any]:
        return eliminate(self._groups, self.controlled_sources[:, 2:], self.gains[0], "gain")

    @functools.cached_property
    def _reverse(self) -> tuple[Any, Any]:
        if self.conservative:
            return self._forward
        return eliminate(self._groups, self.controlled_sources[:, 2:], self.gains[1], "reverse_gain")

    @functools.cached_property
    def voltages(self) -> SparseMap:
        """Node voltages from the independent potentials and the values of the sources that are not controlled."""
        free, driven = self._forward
        independent = len(self.source_pairs) - self.gains.shape[1]
        return SparseMap.from_scipy(scipy.sparse.hstack([free, driven[:, :independent]]))

    @functools.cached_property
    def test(self) -> SparseMap:
        """Its transpose sums the currents that leave the nodes over what Kirchhoff's law balances."""
        return SparseMap.from_scipy(self._reverse[0])

    @functools.cached_property
    def _incidence(self) -> Any:
        return incidence(self.n, np.concatenate([self.edges, self.diodes, self.current_sources]))

    @functools.cached_property
    def drops(self) -> SparseMap:
        """The drops of all elements (resistors, diodes, current sources), from what `voltages` takes."""
        return SparseMap.from_scipy(self._incidence @ self.voltages.to_scipy())

    @functools.cached_property
    def leaving(self) -> SparseMap:
        """Its transpose sums the currents through all elements over what Kirchhoff's law balances."""
        return SparseMap.from_scipy(self._incidence @ self._reverse[0])

    @functools.cached_property
    def delivered(self) -> SparseMap:
        """Its transpose gives the current of every voltage source from the currents through all elements."""
        return SparseMap.from_scipy(self._incidence @ self._reverse[1])

    @functools.cached_property
    def ends(self) -> SparseMap:
        """The sums over the two ends of all elements, of numbers at the nodes."""
        return SparseMap.from_scipy(abs(self._incidence))

    @functools.cached_property
    def meeting(self) -> SparseMap:
        """Its transpose sums the sizes of the currents through all elements at the independent potentials."""
        return SparseMap.from_scipy(abs(self._incidence) @ abs(self._reverse[0]))

    @functools.cached_property
    def read(self) -> SparseMap:
        """Output voltages from the independent potentials and the values of the sources that are not controlled."""
        return SparseMap.from_scipy(self.voltages.to_scipy()[self.outputs])

    @functools.cached_property
    def read_test(self) -> SparseMap:
        """Its transpose distributes a current injected at the outputs over the independent potentials."""
        return SparseMap.from_scipy(self._reverse[0][self.outputs])

    @functools.cached_property
    def pin_projection(self) -> np.ndarray:
        """Currents at the outputs that balance given currents at the potentials as far as they can: (O O')^+."""
        maps = self.read_test.to_scipy()
        return np.linalg.pinv((maps @ maps.T).toarray(), hermitian=True)

    @functools.cached_property
    def diode(self) -> SparseMap:
        """Diode drops from the independent potentials."""
        return SparseMap.from_scipy(self.elements[1][len(self.edges) :])

    @functools.cached_property
    def diode_test(self) -> SparseMap:
        """Its transpose distributes the diode currents over the independent potentials."""
        return SparseMap.from_scipy(self.elements[0][len(self.edges) :])

    @functools.cached_property
    def own(self) -> SparseMap:
        """Its transpose sums the conductances that meet at each independent potential."""
        left, right = (part[: len(self.edges)] for part in self.elements)
        return SparseMap.from_scipy(left.multiply(right))

    @functools.cached_property
    def cells(self) -> np.ndarray:
        """Where each conductance, of resistors and then diodes, stands in the matrix of those between two potentials
        or, as the last, the sources: one integer each, one too many for none. Controlled sources do not count.
        """
        size = len(self.potentials)
        _, root, _ = self._groups
        column = np.append(np.where(root == GROUND, size, np.searchsorted(self.potentials, root)), size)
        ends = np.sort(column[np.concatenate([self.edges, self.diodes])], axis=1)
        inside = ends[:, 0] == ends[:, 1]
        return np.where(inside, (size + 1) ** 2, ends[:, 0] * (size + 1) + ends[:, 1]).astype(np.int32)

    @functools.cached_property
    def diode_reach(self) -> np.ndarray:
        """How many independent potentials each diode's drop depends on, shape (k,)."""
        return np.bincount(self.diode.rows, minlength=len(self.diodes))

    @property
    def diodes_between_potentials(self) -> bool:
        """Whether an ideal diode joins independent potentials, so that the state carries diode currents."""
        return self.ideal_diodes and bool(np.any(self.diode_reach > 1))

    @functools.cached_property
    def bounded(self) -> np.ndarray:
        """The independent potential that each diode bounds, one too many for none, shape (k,)."""
        potential = np.full(len(self.diodes), len(self.potentials), np.int32)
        single = self.diode_reach[self.diode.rows] == 1
        potential[self.diode.rows[single]] = self.diode.columns[single]
        return potential

    @functools.cached_property
    def slopes(self) -> np.ndarray:
        """How a diode's drop and what its current balances depend on the potential that it bounds, shape (2, k)."""
        slopes = np.ones((2, len(self.diodes)))
        for slope, drops in zip(slopes, (self.diode, self.diode_test), strict=True):
            there = drops.columns == self.bounded[drops.rows]
            slope[drops.rows[there]] = drops.values[there]
        return slopes

    @functools.cached_property
    def held(self) -> np.ndarray:
        """The ideal diodes across voltage sources alone, where no diode joins independent potentials."""
        none = (
            self.diode_reach == 0 if self.ideal_diodes and not self.diodes_between_potentials else self.diode_reach < 0
        )
        return np.flatnonzero(none).astype(np.int32)

    @functools.cached_property
    def conductance_pattern(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(row, column, element, coefficient): K[row, column] = sum coefficient * conductance[element].

        Elements are the resistors, then the diodes.
        """
        left, right = self.elements
        left.eliminate_zeros()
        right.eliminate_zeros()
        left_count, right_count = np.diff(left.indptr), np.diff(right.indptr)
        owner = np.repeat(np.arange(len(left_count)), left_count)
        repeats = right_count[owner]
        first = np.repeat(np.arange(left.nnz), repeats)
        element = owner[first]
        within = np.arange(len(first)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        second = right.indptr[element] + within
        rows, columns = left.indices[first].astype(np.int32), right.indices[second].astype(np.int32)
        return rows, columns, element.astype(np.int32), left.data[first] * right.data[second]

    @functools.cached_property
    def elements(self) -> tuple[Any, Any]:
        """(B, A): B' sums the currents through resistors and diodes over what Kirchhoff's law balances, A u are their
        drops.
        """
        across = self._incidence[: len(self.edges) + len(self.diodes)]
        return (across @ self._reverse[0]).tocsr(), (across @ self._forward[0]).tocsr()

    @functools.cached_property
    def colour(self) -> np.ndarray:
        """A colour of each independent potential: none is joined to another of the same."""
        rows, columns, element, _ = self.conductance_pattern
        joined = (rows != columns) & (element < len(self.edges))
        colour = np.zeros(len(self.potentials), np.int32)
        for number, members in enumerate(
            colour_classes(len(self.potentials), np.stack([rows[joined], columns[joined]], axis=1))
        ):
            colour[members] = number
        return colour


LARGEST_AT_RUN_TIME = 2**13
"""Nodes times resistors, diodes and sources of current, up to which whole matrices are as quick as sparse ones."""


class DenseMap(eqx.Module):
    """A matrix of run-time numbers, where large circuits have a `SparseMap`."""

    matrix: Inexact[Array, "targets sources"]

    def __call__(self, vector: Inexact[Array, "sources"]) -> Inexact[Array, "targets"]:
        """A @ vector."""
        return jnp.matmul(self.dense(vector.dtype), vector, precision="highest")

    def transpose(self, vector: Inexact[Array, "targets"]) -> Inexact[Array, "sources"]:
        """A' @ vector."""
        return jnp.matmul(vector, self.dense(vector.dtype), precision="highest")

    @property
    def absolute(self) -> DenseMap:
        """The map of the magnitudes of the entries."""
        return DenseMap(jnp.abs(self.matrix))

    def dense(self, dtype: Any) -> Inexact[Array, "targets sources"]:
        """The matrix; of one that was made complex along with its circuit the real part, for real numbers."""
        real = jnp.iscomplexobj(self.matrix) and not jnp.issubdtype(dtype, jnp.complexfloating)
        return (self.matrix.real if real else self.matrix).astype(dtype)


def least(through: DenseMap | SparseMap, vector: Float[Array, "sources"]) -> Float[Array, "targets"]:
    """The smallest |A_ij| vector_j of every row i of a map; infinite in a row of zeros."""
    if isinstance(through, DenseMap):
        sizes = jnp.abs(through.matrix)
        return jnp.min(jnp.where(sizes > 0, sizes * vector, jnp.inf), axis=1)
    reached = np.abs(through.values).astype(vector.dtype) * taken(vector, through.columns)
    return jax.ops.segment_min(reached, through.rows, through.shape[0], indices_are_sorted=True)


class Maps(eqx.Module):
    """What compiled code computes with, of a small circuit; `Layout` says what each of it is, and has it of a large
    one.
    """

    voltages: DenseMap
    test: DenseMap
    drops: DenseMap
    leaving: DenseMap
    delivered: DenseMap
    ends: DenseMap
    meeting: DenseMap
    read: DenseMap
    read_test: DenseMap
    pin_projection: Float[Array, "outputs outputs"]
    diode: DenseMap
    diode_test: DenseMap
    own: DenseMap
    cells: Int[Array, "elements"]
    bounded: Int[Array, "diodes"]
    slopes: Float[Array, "2 diodes"]
    held: Int[Array, "held"]
    colour: Int[Array, "potentials"]

    @classmethod
    def of(cls, layout: Layout, dtype: Any) -> Maps:
        """Those of a layout."""

        def numbers(value: Any) -> Any:
            if isinstance(value, SparseMap):
                return DenseMap(jnp.asarray(value.to_scipy().toarray(), dtype))
            return jnp.asarray(value, dtype if np.issubdtype(value.dtype, np.floating) else None)

        return cls(**{field.name: numbers(getattr(layout, field.name)) for field in dataclasses.fields(cls)})


class Topology(eqx.Module):
    """The connectivity of a circuit, as compiled code sees it.

    What a small circuit is (up to `MOST_NODES_AT_RUN_TIME` nodes, and `LARGEST_AT_RUN_TIME`) is run-time numbers, so
    that another with as many elements of each kind compiles nothing. A large one is part of the programs that are
    compiled for it: its sparse factors are laid out for its graph.

    Attributes:
        n: the number of nodes without ground.
        counts: how many elements there are of each kind of `WIDTHS`.
        ideal_diodes, diodes_between_potentials, conservative: see `Layout`.
        nodes: those of all elements of a small circuit, kind after kind, integers.
        gains: those of the controlled sources of a small circuit.
        run_time: what compiled code computes with, of a small circuit.
        compiled: the layout of a large one.
    """

    n: int = eqx.field(static=True)
    counts: tuple[int, ...] = eqx.field(static=True)
    ideal_diodes: bool = eqx.field(static=True)
    diodes_between_potentials: bool = eqx.field(static=True)
    conservative: bool = eqx.field(static=True)
    nodes: Int[Any, "places"] | None
    gains: Float[Any, "2 controlled_sources"] | None
    run_time: Maps | None
    compiled: Layout | None = eqx.field(static=True)

    @classmethod
    def of(cls, layout: Layout, dtype: Any) -> Topology:
        """That of a layout, with numbers of a dtype."""
        kinds = [getattr(layout, kind) for kind in WIDTHS]
        counts = tuple(len(nodes) for nodes in kinds)
        small = layout.n <= MOST_NODES_AT_RUN_TIME and layout.n * sum(counts[:3]) <= LARGEST_AT_RUN_TIME
        return cls(
            layout.n,
            counts,
            layout.ideal_diodes,
            layout.diodes_between_potentials,
            layout.conservative,
            np.concatenate([nodes.ravel() for nodes in kinds]).astype(np.int32) if small else None,
            layout.gains.astype(dtype) if small else None,
            Maps.of(layout, dtype) if small else None,
            None if small else layout,
        )

    @property
    def maps(self) -> Any:
        """What compiled code computes with: `Maps`, or a `Layout` with the same names."""
        return self.run_time if self.compiled is None else self.compiled

    @property
    def layout(self) -> Layout:
        """Which elements join which nodes; of a small circuit outside compiled code only."""
        if self.compiled is not None:
            return self.compiled
        if isinstance(self.nodes, Tracer):
            raise TypeError(
                "which nodes the elements of a small circuit join are run-time numbers inside compiled code: "
                "read edges, inputs, outputs, diodes and sources outside"
            )
        return self.unpacked(self.nodes, self.gains)

    def unpacked(self, nodes: Any, gains: Any) -> Layout:
        """The layout that the numbers of a small circuit describe."""
        sizes = [count * width for count, width in zip(self.counts, WIDTHS.values(), strict=True)]
        parts = np.split(np.asarray(nodes, int), np.cumsum(sizes)[:-1])
        pairs = {
            kind: part.reshape(-1, width) if width > 1 else part
            for part, (kind, width) in zip(parts, WIDTHS.items(), strict=True)
        }
        return Layout(self.n, **pairs, gains=np.real(gains), ideal_diodes=self.ideal_diodes)

    def count(self, kind: str) -> int:
        """How many elements of a kind of `WIDTHS` there are."""
        return self.counts[tuple(WIDTHS).index(kind)]

    @property
    def size(self) -> int:
        """The number of independent potentials: sources form no loops, so that each of them takes one away."""
        sources = ("voltage_sources", "controlled_sources", "inputs", "rails")
        return self.n - sum(self.count(kind) for kind in sources)

    @property
    def bounded(self) -> bool:
        """Whether there are ideal diodes."""
        return self.ideal_diodes and self.count("diodes") > 0


class Flow(NamedTuple):
    """Voltages and currents in a circuit.

    Attributes:
        voltages: of the nodes.
        drops: of the resistors, the diodes and the current sources.
        diode_drops: of the diodes.
        diode_current: of the diodes; None where it is not known or there are none.
    """

    voltages: Inexact[Array, "n"]
    drops: Inexact[Array, "elements"]
    diode_drops: Inexact[Array, "diodes"]
    diode_current: Inexact[Array, "diodes"] | None


class Circuit(System, Protocol):
    """What solvers know of a circuit; `ResistorNetwork` says what each of it is."""

    @property
    def topology(self) -> Topology: ...
    @property
    def conductance(self) -> Array: ...
    @property
    def diode(self) -> Shockley | None: ...
    def voltages(self, state: PyTree, x: Array, /) -> Array: ...
    def diode_drops(self, state: PyTree, x: Array, /) -> Array: ...
    def flow(self, potentials: Array, x: Array, diode_current: Any = None, /) -> Flow: ...
    def content(self, flow: Flow, /) -> Array: ...
    def leaving(self, flow: Flow, /) -> Array: ...
    def imbalance(self, potentials: Array, x: Array, diode_current: Array | None = None, /) -> Array: ...
    def across_sources(self, flow: Flow, /) -> tuple[Array, Array]: ...
    def meeting_at(self, flow: Flow, ceiling: Any = None, /) -> Array: ...
    def conductance_scale(self) -> Array: ...
    def current_ceiling(self, x: Array, /) -> Array: ...
    def diode_scale(self, held: Array | None = None, /) -> Array: ...
    def held_by(self, nudge: Any, output: Array, /) -> Array: ...
    def output_scale(self) -> Array: ...


def incidence(n: int, pairs: np.ndarray) -> Any:
    """The sparse matrix that maps node voltages to v[first] - v[second]; ground drops out. Shape (pairs, n)."""
    pairs = np.asarray(pairs, int).reshape(-1, 2)
    index = np.arange(len(pairs))
    rows, nodes = np.concatenate([index, index]), np.concatenate([pairs[:, 0], pairs[:, 1]])
    signs = np.concatenate([np.ones(len(pairs)), -np.ones(len(pairs))])
    real = nodes != GROUND
    return scipy.sparse.csr_array((signs[real], (rows[real], nodes[real])), shape=(len(pairs), n))


def eliminate(
    groups: tuple[np.ndarray, np.ndarray, Any], controls: np.ndarray, gain: np.ndarray, name: str
) -> tuple[Any, Any]:
    """The sparse maps (T, D) with v = T potentials + D values, for every voltage source of a `Layout` with such groups.

    With R and P the maps of potentials and source values along spanning trees of the sources, P_c the columns of the
    controlled ones and C their controls, the controlled values are w = gain C v + offset, so that
    (1 - gain C P_c) w = gain C (R u + P_b b) + offset.

    Raises:
        ValueError: where the controlled sources determine one another without a solution.
    """
    potentials, root, paths = groups
    n, sources = paths.shape
    grouped = np.flatnonzero(root != GROUND)
    columns = np.searchsorted(potentials, root[grouped])
    free = scipy.sparse.csr_array((np.ones(len(grouped)), (grouped, columns)), shape=(n, len(potentials)))
    if not len(gain):
        return free, paths
    first = sources - len(gain)
    control = scipy.sparse.diags_array(gain) @ incidence(n, controls)
    independent, controlled = paths[:, :first], paths[:, first:]
    loop = (scipy.sparse.eye_array(len(gain)) - control @ controlled).tocsc()
    error = ValueError(
        f"controlled_sources: wanted sources whose {name}s leave their voltages determined, but together they have no "
        "single solution: change a gain of their loop"
    )
    try:
        factors = scipy.sparse.linalg.splu(loop)
    except RuntimeError:
        raise error from None
    inverse = factors.solve(np.eye(len(gain)))
    if not np.max(np.abs(inverse)) * abs(loop).max() < 1e12:
        raise error
    inverse = controlled @ scipy.sparse.csr_array(inverse)
    drives = scipy.sparse.hstack([independent + inverse @ (control @ independent), inverse], format="csr")
    return (free + inverse @ (control @ free)).tocsr(), drives


def _group_by_sources(n: int, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
    """Spanning trees of the voltage sources: (roots, root of every node, node offsets as a map of source values)."""
    neighbours: dict[int, list[tuple[int, int, int]]] = {}
    for index, (plus, minus) in enumerate(sources.tolist()):
        neighbours.setdefault(minus, []).append((plus, index, 1))
        neighbours.setdefault(plus, []).append((minus, index, -1))
    root = np.arange(n)
    path: dict[int, dict[int, int]] = {}
    for start in sorted(neighbours):  # ground is -1, so that its group keeps it as its root
        if start in path:
            continue
        path[start] = {}
        stack = [start]
        while stack:
            node = stack.pop()
            if node != GROUND:
                root[node] = start
            for other, index, sign in neighbours[node]:
                if other not in path:
                    path[other] = {**path[node], index: sign}
                    stack.append(other)
    entries = [(node, index, sign) for node, steps in path.items() if node != GROUND for index, sign in steps.items()]
    rows, columns, signs = (np.asarray(part) for part in zip(*entries, strict=True)) if entries else ([], [], [])
    offsets = scipy.sparse.csr_array((np.asarray(signs, float), (rows, columns)), shape=(n, len(sources)))
    return np.flatnonzero(root == np.arange(n)), root, offsets


def check_sources(layout: Layout, values: Sequence[float | None]) -> None:
    """Raises ValueError, naming the nodes, where voltage sources form a loop.

    Args:
        values: volts of every source, None for inputs and controlled sources.
    """
    pairs = layout.source_pairs % (layout.n + 1)  # ground, -1, becomes the last node
    if len(pairs) == layout.n - connected_parts(layout.n + 1, pairs).max():
        return
    import networkx as nx

    forest: Any = nx.Graph()
    for index, (plus, minus) in enumerate(layout.source_pairs.tolist()):
        if not (forest.has_node(plus) and forest.has_node(minus) and nx.has_path(forest, plus, minus)):
            forest.add_edge(plus, minus, source=index)
            continue
        loop = nx.shortest_path(forest, minus, plus)
        own = values[index]
        total, determined = 0.0 if own is None else -own, own is not None
        for a, b in itertools.pairwise(loop):
            source = forest.edges[a, b]["source"]
            value = values[source]
            determined &= value is not None
            total += 0.0 if value is None else value * (1 if layout.source_pairs[source][0] == b else -1)
        around = " - ".join("ground" if node == GROUND else str(node) for node in [*loop, minus])
        if not determined:
            what = "which contains an input or a controlled source, so that nothing makes its voltages agree"
        elif total:
            what = f"whose voltages contradict one another by {abs(total):g} V"
        else:
            what = "whose voltages agree but whose current nothing determines"
        raise ValueError(
            f"voltage_sources: wanted no loop of voltage sources (inputs and rails are sources to ground), got the "
            f"loop {around}, {what}: remove one of its sources or put a resistor in series"
        )


def floating_nodes(layout: Layout, conductance: np.ndarray) -> list[int]:
    """The nodes without a path to ground, an input or a rail through conducting resistors, sources or real diodes."""
    joined = [layout.edges[conductance > 0], layout.source_pairs]
    if not layout.ideal_diodes:
        joined.append(layout.diodes)
    pairs = np.concatenate(joined) % (layout.n + 1)  # ground, -1, becomes the last node
    part = connected_parts(layout.n + 1, pairs)
    return np.flatnonzero(part[:-1] != part[-1]).tolist()


def potentials_of(state: Any) -> Any:
    """The independent potentials of a state, with or without diode currents."""
    return state[0] if isinstance(state, tuple) else state
