"""Which elements join which nodes, on the host, and what the voltage sources leave free."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy

from substrates.classical.resistor.elements import GROUND
from substrates.wiring import HashedByContent, SparseMap, colour_classes, connected_parts

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
