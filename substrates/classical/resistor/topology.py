"""Which elements join which nodes, checked, and what their voltage sources leave free."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import scipy
from jaxtyping import Array, PyTree

from substrates.classical.resistor.elements import GROUND, Shockley
from substrates.solvers.solver import System
from substrates.wiring import HashedByContent, SparseMap


@dataclasses.dataclass(frozen=True, eq=False)
class Topology(HashedByContent):
    """The connectivity of a circuit of n nodes and ground (-1); static under compilation.

    The voltage sources are, in this order: inputs and rails (to ground), two-node sources, controlled sources. They
    join nodes into groups; what they leave free is one potential per group without ground, the voltage of its lowest
    node.

    Attributes:
        n: the number of nodes without ground.
        edges: resistors, shape (m, 2).
        inputs, outputs, rails: nodes.
        diodes: (anode, cathode), shape (k, 2).
        ideal_diodes: whether the diodes are ideal.
        current_sources: (from, to), shape (k, 2).
        voltage_sources: (plus, minus), shape (k, 2).
        controlled_sources: (plus, minus, control plus, control minus), shape (k, 4).
        gain, reverse_gain: of the controlled sources, shape (k,).
    """

    n: int
    edges: np.ndarray
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    rails: tuple[int, ...]
    diodes: np.ndarray
    ideal_diodes: bool
    current_sources: np.ndarray
    voltage_sources: np.ndarray
    controlled_sources: np.ndarray
    gain: np.ndarray
    reverse_gain: np.ndarray

    @functools.cached_property
    def sources(self) -> np.ndarray:
        """(plus, minus) of every voltage source, controlled ones last, shape (sources, 2)."""
        grounded = np.asarray([*self.inputs, *self.rails], int)
        to_ground = np.stack([grounded, np.full_like(grounded, GROUND)], axis=1)
        return np.concatenate([to_ground, self.voltage_sources, self.controlled_sources[:, :2]])

    @property
    def independent(self) -> int:
        """The number of voltage sources that are not controlled."""
        return len(self.sources) - len(self.gain)

    @property
    def conservative(self) -> bool:
        """Whether the circuit has an energy: whether every controlled source acts back as much as it acts."""
        return bool(np.array_equal(self.gain, self.reverse_gain))

    @functools.cached_property
    def potentials(self) -> np.ndarray:
        """The nodes whose voltages are the independent potentials, ascending."""
        return _group_by_sources(self.n, self.sources)[0]

    @functools.cached_property
    def _forward(self) -> tuple[Any, Any]:
        return eliminate(self.n, self.sources, self.controlled_sources[:, 2:], self.gain, "gain")

    @functools.cached_property
    def _reverse(self) -> tuple[Any, Any]:
        if self.conservative:
            return self._forward
        return eliminate(self.n, self.sources, self.controlled_sources[:, 2:], self.reverse_gain, "reverse_gain")

    @functools.cached_property
    def voltage_map(self) -> SparseMap:
        """Node voltages from the independent potentials."""
        return SparseMap.from_scipy(self._forward[0])

    @functools.cached_property
    def drive_map(self) -> SparseMap:
        """Node voltages from the values of the independent sources."""
        return SparseMap.from_scipy(self._forward[1][:, : self.independent])

    @functools.cached_property
    def test_map(self) -> SparseMap:
        """Its transpose sums the currents that leave the nodes over what Kirchhoff's law balances."""
        return SparseMap.from_scipy(self._reverse[0])

    @functools.cached_property
    def source_current_map(self) -> SparseMap:
        """Its transpose gives the current of every voltage source from the currents that leave the nodes."""
        return SparseMap.from_scipy(self._reverse[1])

    @functools.cached_property
    def read_map(self) -> SparseMap:
        """Output voltages from the independent potentials."""
        return SparseMap.from_scipy(self._forward[0][list(self.outputs)])

    @functools.cached_property
    def read_test_map(self) -> SparseMap:
        """Its transpose distributes a current injected at the outputs over the independent potentials."""
        return SparseMap.from_scipy(self._reverse[0][list(self.outputs)])

    @functools.cached_property
    def pin_projection(self) -> np.ndarray:
        """Currents at the outputs that balance given currents at the potentials as far as they can: (O O')^+."""
        maps = self.read_test_map.to_scipy()
        return np.linalg.pinv((maps @ maps.T).toarray(), hermitian=True)

    @functools.cached_property
    def diode_map(self) -> SparseMap:
        """Diode drops from the independent potentials."""
        return SparseMap.from_scipy(incidence(self.n, self.diodes) @ self._forward[0])

    @functools.cached_property
    def diode_test_map(self) -> SparseMap:
        """Its transpose distributes the diode currents over the independent potentials."""
        return SparseMap.from_scipy(incidence(self.n, self.diodes) @ self._reverse[0])

    @functools.cached_property
    def conductance_pattern(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(row, column, element, coefficient): K[row, column] = sum coefficient * conductance[element].

        Elements are the resistors, then the diodes.
        """
        elements = incidence(self.n, np.concatenate([self.edges, self.diodes]))
        left, right = (elements @ self._reverse[0]).tocsr(), (elements @ self._forward[0]).tocsr()
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
    def colours(self) -> tuple[np.ndarray, ...]:
        """Independent potentials grouped by a greedy colouring: none of one group is joined to another of it."""
        import networkx as nx

        rows, columns, element, _ = self.conductance_pattern
        graph: Any = nx.empty_graph(len(self.potentials))
        joined = (rows != columns) & (element < len(self.edges))
        graph.add_edges_from(np.stack([rows, columns], axis=1)[joined].tolist())
        coloured = nx.greedy_color(graph, strategy="connected_sequential_bfs")  # two colours for a bipartite graph
        colour = np.asarray([coloured[node] for node in range(len(self.potentials))], int)
        return tuple(np.flatnonzero(colour == c) for c in range(colour.max(initial=-1) + 1))

    @functools.cached_property
    def diode_reach(self) -> np.ndarray:
        """How many independent potentials each diode's drop depends on, shape (k,)."""
        return np.bincount(self.diode_map.rows, minlength=len(self.diodes))

    @property
    def diodes_between_potentials(self) -> bool:
        """Whether an ideal diode joins independent potentials, so that the state carries diode currents."""
        return self.ideal_diodes and bool(np.any(self.diode_reach > 1))


class Circuit(System, Protocol):
    """What solvers know of a circuit; `ResistorNetwork` says what each of it is."""

    @property
    def topology(self) -> Topology: ...
    @property
    def conductance(self) -> Array: ...
    @property
    def diode(self) -> Shockley | None: ...
    def content(self, potentials: Array, x: Array, /) -> Array: ...
    def imbalance(self, potentials: Array, x: Array, diode_current: Array | None = None, /) -> Array: ...
    def voltages(self, state: PyTree, x: Array, /) -> Array: ...
    def diode_drops(self, state: PyTree, x: Array, /) -> Array: ...
    def conductance_scale(self) -> Array: ...
    def current_ceiling(self, x: Array, /) -> Array: ...
    def diode_scale(self) -> Array: ...
    def output_scale(self) -> Array: ...


def incidence(n: int, pairs: np.ndarray) -> Any:
    """The sparse matrix that maps node voltages to v[first] - v[second]; ground drops out. Shape (pairs, n)."""
    pairs = np.asarray(pairs, int).reshape(-1, 2)
    index = np.arange(len(pairs))
    rows, nodes = np.concatenate([index, index]), np.concatenate([pairs[:, 0], pairs[:, 1]])
    signs = np.concatenate([np.ones(len(pairs)), -np.ones(len(pairs))])
    real = nodes != GROUND
    return scipy.sparse.csr_array((signs[real], (rows[real], nodes[real])), shape=(len(pairs), n))


def eliminate(n: int, sources: np.ndarray, controls: np.ndarray, gain: np.ndarray, name: str) -> tuple[Any, Any]:
    """The sparse maps (T, D) with v = T potentials + D values, for every voltage source.

    With R and P the maps of potentials and source values along spanning trees of the sources, P_c the columns of the
    controlled ones and C their controls, the controlled values are w = gain C v + offset, so that
    (1 - gain C P_c) w = gain C (R u + P_b b) + offset.

    Raises:
        ValueError: where the controlled sources determine one another without a solution.
    """
    potentials, root, paths = _group_by_sources(n, sources)
    grouped = np.flatnonzero(root != GROUND)
    columns = np.searchsorted(potentials, root[grouped])
    free = scipy.sparse.csr_array((np.ones(len(grouped)), (grouped, columns)), shape=(n, len(potentials)))
    if not len(gain):
        return free, paths
    first = len(sources) - len(gain)
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


def check_sources(topology: Topology, values: Sequence[float | None]) -> None:
    """Raises ValueError, naming the nodes, where voltage sources form a loop.

    Args:
        values: volts of every source, None for inputs and controlled sources.
    """
    import networkx as nx

    forest: Any = nx.Graph()
    for index, (plus, minus) in enumerate(topology.sources.tolist()):
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
            total += 0.0 if value is None else value * (1 if topology.sources[source][0] == b else -1)
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


def floating_nodes(topology: Topology, conductance: np.ndarray) -> list[int]:
    """The nodes without a path to ground, an input or a rail through conducting resistors, sources or real diodes."""
    joined = [topology.edges[conductance > 0], topology.sources]
    if not topology.ideal_diodes:
        joined.append(topology.diodes)
    pairs = np.concatenate(joined) % (topology.n + 1)  # ground, -1, becomes the last node
    graph = scipy.sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(topology.n + 1,) * 2)
    label = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
    return np.flatnonzero(label[:-1] != label[-1]).tolist()


def potentials_of(state: Any) -> Any:
    """The independent potentials of a state, with or without diode currents."""
    return state[0] if isinstance(state, tuple) else state
