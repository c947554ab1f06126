"""Which elements join which nodes, on the host, and what the voltage sources leave free."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import scipy

from substrates import explained
from substrates.classical.resistor.elements import GROUND
from substrates.classical.resistor.source_tree import MOST_PATH_ENTRIES, SourceTree, TreeMap
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


class CircuitError(ValueError):
    """Elements that make no circuit with one operating point.

    Attributes:
        nodes: those where the fault is.
    """

    def __init__(self, message: str, nodes: Iterable[int]):
        self.nodes = tuple(int(node) for node in nodes)
        super().__init__(message, self.nodes)  # what it is built again from in another process

    def __str__(self) -> str:
        return f"{self.args[0]}; see {explained.CIRCUIT}"


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
    def tree(self) -> SourceTree:
        """How the voltage sources join nodes into groups."""
        return SourceTree.of(self.n, self.source_pairs)

    @property
    def potentials(self) -> np.ndarray:
        """The nodes whose voltages are the independent potentials, ascending."""
        return self.tree.potentials

    @functools.cached_property
    def _forward(self) -> tuple[Any, Any]:
        return eliminate(self.tree, self.controlled_sources, self.gains[0], "gain")

    @functools.cached_property
    def _reverse(self) -> tuple[Any, Any]:
        if self.conservative:
            return self._forward
        return eliminate(self.tree, self.controlled_sources, self.gains[1], "reverse_gain")

    def refuse_undetermined(self) -> None:
        """Raises ValueError where the controlled sources determine one another without a solution."""
        _ = self._forward, self._reverse

    def _along_sources(self, steps: Any, shown: Any = None) -> SparseMap | TreeMap:
        """The map, of node voltages or what is shown of them, whose steps at the nodes are these."""
        if self.tree.entries <= MOST_PATH_ENTRIES:
            written_out = self.tree.summed_from(steps)
            return SparseMap.from_scipy(written_out if shown is None else shown @ written_out)
        last = None if shown is None else SparseMap.from_scipy(shown)
        return TreeMap(SparseMap.from_scipy(steps), self.tree.jumps, last)

    @functools.cached_property
    def _voltage_steps(self) -> Any:
        """The step of each node from what `voltages` takes."""
        independent = len(self.potentials) + len(self.source_pairs) - self.gains.shape[1]
        return self._forward[1][:, :independent]

    @functools.cached_property
    def voltages(self) -> SparseMap | TreeMap:
        """Node voltages from the independent potentials and the values of the sources that are not controlled."""
        return self._along_sources(self._voltage_steps)

    def voltages_shown(self, shown: Any) -> Any:
        """A few combinations of node voltages, a sparse matrix of shape (few, n), from what `voltages` takes."""
        return self.tree.summed_for(shown) @ self._voltage_steps

    @functools.cached_property
    def test(self) -> SparseMap:
        """Its transpose sums the currents that leave the nodes over what Kirchhoff's law balances."""
        return SparseMap.from_scipy(self._reverse[0])

    @functools.cached_property
    def _incidence(self) -> Any:
        return incidence(self.n, np.concatenate([self.edges, self.diodes, self.current_sources]))

    @functools.cached_property
    def drops(self) -> SparseMap | TreeMap:
        """The drops of all elements (resistors, diodes, current sources), from what `voltages` takes."""
        return self._along_sources(self._voltage_steps, self._incidence)

    @functools.cached_property
    def leaving(self) -> SparseMap:
        """Its transpose sums the currents through all elements over what Kirchhoff's law balances."""
        return SparseMap.from_scipy(self._incidence @ self._reverse[0])

    @functools.cached_property
    def delivered(self) -> SparseMap | TreeMap:
        """Its transpose gives the current of every voltage source from the currents through all elements."""
        return self._along_sources(self._reverse[1][:, len(self.potentials) :], self._incidence)

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
        count = len(self.outputs)
        shown = (np.ones(count), (np.arange(count), self.outputs))
        return SparseMap.from_scipy(self.voltages_shown(scipy.sparse.csr_array(shown, shape=(count, self.n))))

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
        root = self.tree.root
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


def eliminate(tree: SourceTree, sources: np.ndarray, gain: np.ndarray, name: str) -> tuple[Any, Any]:
    """(T, D): the sparse map T of the independent potentials u to node voltages, with every source at 0 but what
    controls make of u; and D, that of (u, values of all sources) to the step of every node, shape (n, potentials +
    sources), where the value of a controlled source is what is added to its own.

    With S the steps that sources make and S_c those of the controlled ones, P their sums on the ways from the roots,
    R u the voltages of the roots, and C the controls, the controlled values are w = gain C v + offset, so that
    (1 - gain C P S_c) w = gain C (R u + P S_b b) + offset.

    Args:
        tree: of all voltage sources, the controlled ones last.
        sources: (plus, minus, control plus, control minus) of the controlled ones.
        gain: of each.
        name: of the gain, for messages.

    Raises:
        ValueError: where the controlled sources determine one another without a solution.
    """
    n, count = tree.steps.shape
    roots = np.arange(len(tree.potentials))
    at_roots = scipy.sparse.csr_array((np.ones(len(roots)), (tree.potentials, roots)), shape=(n, len(roots)))
    if not len(gain):
        return tree.free, scipy.sparse.hstack([at_roots, tree.steps], format="csr")
    first = count - len(gain)
    control = scipy.sparse.diags_array(gain) @ incidence(n, sources[:, 2:])
    along = tree.summed_for(control) @ tree.steps
    between = along[:, first:].tocoo()
    coupled = np.unique(np.concatenate([between.row, between.col]))
    inverse = _inverse(scipy.sparse.eye_array(len(coupled)) - between.tocsr()[coupled][:, coupled])
    if inverse is None:
        raise CircuitError(
            f"controlled_sources: wanted sources whose {name}s leave their voltages determined, but together they have "
            "no single solution: change a gain of their loop",
            sources[coupled, :2].ravel(),
        )
    inverse = scipy.sparse.block_diag(
        [scipy.sparse.csr_array(inverse), scipy.sparse.eye_array(len(gain) - len(coupled))]
    )
    order = np.argsort(np.concatenate([coupled, np.setdiff1d(np.arange(len(gain)), coupled)]))
    inverse = inverse.tocsr()[order][:, order]
    from_potentials = inverse @ (control @ tree.free)
    values = scipy.sparse.hstack([from_potentials, inverse @ along[:, :first], inverse], format="csr")
    independent, controlled = tree.steps[:, :first], tree.steps[:, first:]
    nothing = scipy.sparse.csr_array((n, len(gain)))
    steps = scipy.sparse.hstack([at_roots, independent, nothing]) + controlled @ values
    return (tree.free + tree.summed_from(controlled @ from_potentials)).tocsr(), steps.tocsr()


def _inverse(loop: Any) -> np.ndarray | None:
    """The inverse of a sparse matrix of controlled sources; None where rounding leaves none."""
    if not loop.shape[0]:
        return np.zeros((0, 0))
    try:
        inverse = scipy.sparse.linalg.splu(loop.tocsc()).solve(np.eye(loop.shape[0]))
    except RuntimeError:
        return None
    return inverse if np.max(np.abs(inverse)) * abs(loop).max() < 1e12 else None


def check_sources(layout: Layout, values: Sequence[float | None], name: Callable[[int], str] = str) -> None:
    """Raises ValueError, naming the nodes, where voltage sources form a loop.

    Args:
        layout: of the circuit.
        values: volts of every source, None for inputs and controlled sources.
        name: that of a node, for messages.
    """
    pairs = layout.source_pairs % (layout.n + 1)  # ground, -1, becomes the last node
    if len(pairs) == layout.n - connected_parts(layout.n + 1, pairs).max():
        return
    import networkx as nx
    from networkx.utils import UnionFind

    joined, forest = UnionFind(), nx.Graph()
    for index, (plus, minus) in enumerate(layout.source_pairs.tolist()):
        if joined[plus] != joined[minus]:
            joined.union(plus, minus)
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
        shown = [*loop, minus] if len(loop) <= 12 else [*loop[:6], None, *loop[-5:], minus]
        around = " - ".join("..." if k is None else "ground" if k == GROUND else name(k) for k in shown)
        if not determined:
            what = "which contains an input or a controlled source, so that nothing makes its voltages agree"
        elif total:
            what = f"whose voltages contradict one another by {abs(total):g} V"
        else:
            what = "whose voltages agree but whose current nothing determines"
        raise CircuitError(
            f"voltage_sources: wanted no loop of voltage sources (inputs and rails are sources to ground), got the "
            f"loop {around}, {what}: remove one of its sources or put a resistor in series",
            [plus, minus],
        )


def floating_nodes(layout: Layout, conductance: np.ndarray) -> list[int]:
    """The nodes without a path to ground, an input or a rail through conducting resistors, sources or real diodes."""
    joined = [layout.edges[conductance > 0], layout.source_pairs]
    if not layout.ideal_diodes:
        joined.append(layout.diodes)
    pairs = np.concatenate(joined) % (layout.n + 1)  # ground, -1, becomes the last node
    part = connected_parts(layout.n + 1, pairs)
    return np.flatnonzero(part[:-1] != part[-1]).tolist()
