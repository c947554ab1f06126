"""Sweeps over the spins of a graph, and where they sit in memory, so that whole classes of them are updated at once."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from substrates.classical.ising.sweeps import Sweeps, counted_uniform, decided
from substrates.nudge import Nudge, Pin
from substrates.wiring import Graph

MOST_CLASSES = 16
"""With more classes of uncoupled spins than this, spins are updated one by one."""


class Layout:
    """The free spins of a graph: those that no input holds, and how they are ordered for sweeps.

    Sweeps see them class by class, the spins of a class not coupled to one another. Where the couplings then lie on few
    diagonals, as on any lattice, the neighbours of a class are shifted slices of it.

    Attributes:
        free: the nodes of the free spins, ascending: the order of the state.
        inputs, outputs: the nodes of the inputs; the free spins that are read (their places in the state).
        inside: the edges between free spins; `placed` is their graph by places of a sweep.
        order: the free spin (its place in the state) at each place of a sweep; `place` is the reverse.
        blocks: (first, end) of each class of a sweep.
        rows, columns, along: the couplings between free spins at places of a sweep, both ways, and their edges.
        neighbours: for each place of a sweep its neighbours and the edges to them, shape (size, largest degree);
            filled up with place 0 along the edge m, which stands for none.
        held: for the couplings of free spins to inputs: (free spin, input, edge), by place in the state.
        offsets: the diagonals, columns - rows, or None where they are too many.
        dense: whether fields go by the whole matrix: where spins have so many neighbours that it is quicker.
    """

    def __init__(self, graph: Graph, inputs: tuple[int, ...], outputs: tuple[int, ...]):
        self.graph = graph
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
        to_input = is_free[ends[:, 0]] & ~is_free[ends[:, 1]]
        self.held = number[ends[to_input, 0]], held_number[ends[to_input, 1]], edge[to_input]

        self.inside = np.flatnonzero(is_free[graph.edges].all(axis=1))
        joined = number[graph.edges[self.inside]].astype(np.int32)
        classes = Graph.joining(joined, self.size).colours
        self.one_by_one = len(classes) > MOST_CLASSES
        if self.one_by_one:
            classes = (np.arange(self.size),)
        self.order = np.concatenate(classes).astype(np.int32) if classes else np.zeros(0, np.int32)
        bounds = np.cumsum([0, *(len(c) for c in classes)])
        self.blocks = tuple(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
        self.place = np.argsort(self.order).astype(np.int32)
        self.placed = Graph.joining(self.place[joined], self.size)
        self.rows, self.columns = np.concatenate([self.placed.edges, self.placed.edges[:, ::-1]]).T
        self.along = np.tile(self.inside, 2)
        degree = int(np.bincount(self.rows).max(initial=0))
        self.dense = degree > self.size // 8 and self.size <= 4096
        offsets = np.unique(self.columns - self.rows)
        self.offsets = offsets if len(offsets) <= 4 * max(degree, 1) and not self.one_by_one else None

    @functools.cached_property
    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        nodes, along = self.placed.neighbours
        return nodes, np.append(self.inside, len(self.graph.edges))[along]


layout_of = functools.lru_cache(maxsize=128)(Layout)
"""The layout of the free spins of a graph, remembered."""


class GraphSweeps(Sweeps):
    """Sweeps over a graph: class by class of uncoupled spins, or one by one where there are too many classes.

    Arrays have the shape (places, replicas), with a margin of zeros where neighbours are shifted slices.

    Args:
        layout: where the free spins sit.
        weight: J of each edge.
        field: what acts on each free spin beside the others.
        meeting: the sum of the sizes of what meets at each free spin.
        nudge: a cost that is weighed flip by flip, a pin, which holds the outputs, or None.
    """

    replica_axis = -1

    def __init__(
        self,
        layout: Layout,
        weight: Float[Array, "edges"],
        field: Float[Array, "free"],
        meeting: Float[Array, "free"],
        nudge: Nudge | Pin | None,
    ):
        self.layout, self.weight, self.dtype = layout, weight, field.dtype
        squares = jnp.zeros_like(field).at[layout.order[layout.rows]].add(weight[layout.along] ** 2)
        self.scale = jnp.sqrt(jnp.mean(squares + field**2))
        self.field, self.meeting = field[layout.order], meeting[layout.order]
        self.fixed = jnp.zeros(layout.size, bool)
        self.nudge = nudge if isinstance(nudge, Nudge) else None
        self.holds = nudge is not None
        if self.holds:
            self.fixed = self.fixed.at[layout.place[layout.outputs]].set(True)
        self.margin = 0 if layout.offsets is None else int(abs(layout.offsets).max(initial=0))
        if layout.offsets is not None:
            slot = layout.offsets.searchsorted(layout.columns - layout.rows)
            empty = jnp.zeros((len(layout.offsets), layout.size), self.dtype)
            self.diagonals = empty.at[slot, layout.rows].set(weight[layout.along])
        elif layout.dense:
            empty = jnp.zeros((layout.size, layout.size), self.dtype)
            self.matrix = empty.at[layout.rows, layout.columns].set(weight[layout.along])
        else:
            nodes, along = layout.neighbours
            self.nodes = jnp.asarray(nodes)
            self.weights = jnp.concatenate([weight, jnp.zeros(1, self.dtype)])[along]

    def load(self, states, words):
        spins = states.T[self.layout.order]
        spins = decided(spins, counted_uniform(words, 0, spins.shape, self.dtype))
        return jnp.pad(spins, ((self.margin, self.margin), (0, 0)))

    def inner(self, spins: Float[Array, "places replicas"]) -> Float[Array, "size replicas"]:
        """The spins without the margin."""
        return spins[self.margin : self.margin + self.layout.size]

    def coupled_field(
        self, spins: Float[Array, "places replicas"], first: int, end: int
    ) -> Float[Array, "block replicas"]:
        """sum_j J_ij s_j at the places from `first` to `end`."""
        layout = self.layout
        if layout.offsets is not None:
            total = jnp.zeros((end - first, spins.shape[1]), self.dtype)
            inside = (layout.rows >= first) & (layout.rows < end)
            used = set((layout.columns - layout.rows)[inside].tolist())
            for slot, offset in enumerate(layout.offsets.tolist()):
                if offset in used:
                    start = self.margin + first + offset
                    total += self.diagonals[slot, first:end, None] * spins[start : start + end - first]
            return total
        if layout.dense:
            return self.matrix[first:end] @ spins
        return jnp.sum(self.weights[first:end, :, None] * spins[self.nodes[first:end]], axis=1)

    def sweep(self, spins, accept):
        if self.layout.one_by_one:
            spins = self._one_by_one(spins, accept)
        else:
            for first, end in self.layout.blocks:
                place = slice(self.margin + first, self.margin + end)
                s = spins[place]
                gain = 2 * s * (self.coupled_field(spins, first, end) + self.field[first:end, None])
                flips = accept(gain, s, first * s.shape[1], self.meeting[first:end, None])
                if self.holds:
                    flips &= ~self.fixed[first:end, None]
                spins = spins.at[place].set(jnp.where(flips, -s, s))
        return spins if self.nudge is None else self._outputs(spins, accept)

    def energies(self, spins):
        s = self.inner(spins)
        total = -jnp.sum(s * (0.5 * self.coupled_field(spins, 0, self.layout.size) + self.field[:, None]), axis=0)
        if self.nudge is None:
            return total
        return total + jax.vmap(self.nudge.energy, in_axes=1)(s[self.layout.place[self.layout.outputs]])

    def states(self, spins):
        return self.inner(spins)[self.layout.place].T

    def _field_at(self, spins, place):
        if self.layout.offsets is not None:
            columns = place + self.margin + jnp.asarray(self.layout.offsets, jnp.int32)
            return self.diagonals[:, place] @ spins[columns] + self.field[place]
        if self.layout.dense:
            return self.matrix[place] @ spins + self.field[place]
        return self.weights[place] @ spins[self.nodes[place]] + self.field[place]

    def _one_by_one(self, spins, accept):
        def update(place, spins):
            s = spins[place]
            flips = accept(2 * s * self._field_at(spins, place), s, place * s.shape[0], self.meeting[place])
            return spins.at[place].set(jnp.where(flips & ~self.fixed[place], -s, s))

        return jax.lax.fori_loop(0, self.layout.size, update, spins)

    def _outputs(self, spins, accept):
        """The outputs one after the other, each flip weighed with what it does to the cost."""
        assert self.nudge is not None
        places = jnp.asarray(self.layout.place[self.layout.outputs])
        cost = jax.vmap(self.nudge.energy, in_axes=1)

        def update(k, spins):
            place = places[k]
            s = spins[place + self.margin]
            output = spins[places + self.margin]
            before, after = cost(output), cost(output.at[k].set(-s))
            gain = 2 * s * self._field_at(spins, place) + after - before
            meeting = self.meeting[place] + jnp.abs(before) + jnp.abs(after)
            # numbers that no other spin of this sweep has used: the outputs were held in the classes
            flips = accept(gain, s, place * s.shape[0], meeting)
            return spins.at[place + self.margin].set(jnp.where(flips, -s, s))

        return jax.lax.fori_loop(0, len(self.layout.outputs), update, spins)
