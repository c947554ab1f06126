"""Where the free spins of a graph sit in memory, so that whole classes of them are updated at once."""

from __future__ import annotations

import functools

import numpy as np

from substrates.wiring import Graph

MOST_CLASSES = 16
"""With more classes of uncoupled spins than this, spins are updated one by one."""


class Layout:
    """The free spins of a graph: those that no input holds, and how they are ordered for sweeps.

    Sweeps see them class by class, the spins of a class not coupled to one another. Where the couplings then lie on few
    diagonals, as on any lattice, the neighbours of a class are shifted slices of it.

    Attributes:
        free: the nodes of the free spins, ascending: the order of the state.
        order: the free spin (its place in the state) at each place of a sweep.
        blocks: (first, end) of each class of a sweep.
        rows, columns, along: the couplings between free spins at places of a sweep, both ways, and their edges.
        held: for the couplings of free spins to inputs: (free spin, input, edge), by place in the state.
        offsets: the diagonals, columns - rows, or None where they are too many.
    """

    def __init__(self, graph: Graph, inputs: tuple[int, ...], outputs: tuple[int, ...]):
        self.n = graph.n
        self.inputs = np.asarray(inputs, np.int32)
        is_free = np.ones(graph.n, bool)
        is_free[self.inputs] = False
        self.free = np.flatnonzero(is_free).astype(np.int32)
        self.size = len(self.free)
        number = np.full(graph.n, -1)
        number[self.free] = np.arange(self.size)
        held_number = np.full(graph.n, -1)
        held_number[self.inputs] = np.arange(len(inputs))
        self.outputs = number[np.asarray(outputs, int)].astype(np.int32)

        ends = np.concatenate([graph.edges, graph.edges[:, ::-1]])
        edge = np.tile(np.arange(len(graph.edges)), 2)
        between = is_free[ends[:, 0]] & is_free[ends[:, 1]]
        to_input = is_free[ends[:, 0]] & ~is_free[ends[:, 1]]
        self.held = number[ends[to_input, 0]], held_number[ends[to_input, 1]], edge[to_input]

        joined = number[ends[between]]
        inside = Graph(self.size, number[graph.edges[is_free[graph.edges].all(axis=1)]].astype(np.int32))
        classes = inside.colours
        self.one_by_one = len(classes) > MOST_CLASSES
        if self.one_by_one:
            classes = (np.arange(self.size),)
        self.order = np.concatenate(classes).astype(np.int32) if classes else np.zeros(0, np.int32)
        bounds = np.cumsum([0, *(len(c) for c in classes)])
        self.blocks = tuple(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
        place = np.empty(self.size, np.int32)
        place[self.order] = np.arange(self.size)
        self.place = place
        self.rows, self.columns = place[joined[:, 0]], place[joined[:, 1]]
        self.along = edge[between]
        self.degree = np.bincount(self.rows, minlength=self.size)
        offsets = np.unique(self.columns - self.rows)
        few = len(offsets) <= 4 * max(int(self.degree.max(initial=0)), 1) and not self.one_by_one
        self.offsets = offsets if few else None

    @functools.cached_property
    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """For each place of a sweep its neighbours and the edges to them, shape (size, largest degree).

        Filled up with place 0 along the edge m, which stands for none.
        """
        start = np.argsort(self.rows, kind="stable")
        slot = np.arange(len(start)) - np.repeat(np.cumsum(self.degree) - self.degree, self.degree)
        nodes = np.zeros((self.size, max(int(self.degree.max(initial=0)), 1)), np.int32)
        along = np.full_like(nodes, self.along.max(initial=-1) + 1)
        nodes[self.rows[start], slot], along[self.rows[start], slot] = self.columns[start], self.along[start]
        return nodes, along

    @property
    def dense(self) -> bool:
        """Whether fields go by the whole matrix: where spins have so many neighbours that it is quicker."""
        return int(self.degree.max(initial=0)) > self.size // 8 and self.size <= 4096


@functools.lru_cache(maxsize=128)
def layout_of(graph: Graph, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Layout:
    """The layout of the free spins of a graph, remembered."""
    return Layout(graph, inputs, outputs)
