"""Sweeps over the spins of a graph, and where they sit in memory, so that whole classes of them are updated at once."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from substrates.classical.ising.sweeps import Sweeps, counted_uniform, decided
from substrates.nudge import Nudge, Pin
from substrates.wiring import Bonds, CompiledRoles, Edges, Roles
from substrates.wiring.roles import MOST_CLASSES


class Layout:
    """How the free spins of a large graph are ordered for sweeps.

    Sweeps see them class by class, the spins of a class not coupled to one another. Where the couplings then lie on few
    diagonals, as on any lattice, the neighbours of a class are shifted slices of it.

    Attributes:
        crowded: whether spins are updated one by one, as the classes are too many.
        order: the free spin (its place in the state) at each place of a sweep; `place` is the reverse.
        slots: where the outputs are in a sweep.
        blocks: (first, end) of each class of a sweep.
        rows, columns, along: the couplings between free spins at places of a sweep, both ways, and their edges.
        neighbours: for each place of a sweep its neighbours and the edges to them, shape (size, largest degree);
            filled up with place 0 along the edge m, which stands for none.
        offsets: the diagonals, columns - rows, or None where they are too many.
        dense: whether fields go by the whole matrix: where spins have so many neighbours that it is quicker.
    """

    def __init__(self, roles: CompiledRoles):
        self.size = len(roles.free)
        classes = roles.within.colours
        self.crowded = len(classes) > MOST_CLASSES
        if self.crowded:
            classes = (np.arange(self.size),)
        self.order = np.concatenate(classes).astype(np.int32)
        bounds = np.cumsum([0, *(len(c) for c in classes)])
        self.blocks = tuple(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
        self.place = np.argsort(self.order).astype(np.int32)
        self.slots = self.place[roles.slots]
        placed = Edges(self.size, self.place[roles.within.pairs])
        self.rows, self.columns = np.concatenate([placed.pairs, placed.pairs[:, ::-1]]).T
        self.along = np.tile(roles.inside, 2)
        nodes, along = placed.neighbours
        self.neighbours = nodes, np.append(roles.inside, len(roles.edges.pairs))[along]
        degree = int(np.bincount(self.rows).max(initial=0))
        self.dense = degree > self.size // 8 and self.size <= 4096
        offsets = np.unique(self.columns - self.rows)
        self.offsets = offsets if len(offsets) <= 4 * max(degree, 1) and not self.crowded else None


layout_of = functools.lru_cache(maxsize=128)(Layout)
"""The layout of the free spins of a large graph, remembered."""


class GraphSweeps(Sweeps):
    """Sweeps over a graph: class by class of uncoupled spins, or one by one where there are too many classes.

    Arrays have the shape (places, replicas), with a margin of zeros where neighbours are shifted slices. Spins of a
    small graph stay in the order of the state: its classes are run-time numbers, and fields go by the whole matrix.

    Args:
        coupling: J along the edges.
        roles: of the spins.
        field: what acts on each free spin beside the others.
        meeting: the sum of the sizes of what meets at each free spin.
        nudge: a cost that is weighed flip by flip, a pin, which holds the outputs, or None.
    """

    replica_axis = -1

    def __init__(
        self,
        coupling: Bonds,
        roles: Roles | CompiledRoles,
        field: Float[Array, "free"],
        meeting: Float[Array, "free"],
        nudge: Nudge | Pin | None,
    ):
        self.coupling, self.roles, self.dtype, self.size = coupling, roles, field.dtype, field.size
        self.nudge = nudge if isinstance(nudge, Nudge) else None
        self.holds, self.margin, self.diagonals, self.matrix = nudge is not None, 0, None, None
        if isinstance(roles, Roles):
            self.layout = None
            self.field, self.meeting, self.slots, self.crowded = field, meeting, roles.slots, roles.crowded
            self.nodes = np.broadcast_to(np.arange(self.size), (self.size, self.size))
            self.along = roles.rows[:, : self.size]
            self.matrix = coupling.along(self.along)
            squares = jnp.sum(self.matrix**2, axis=1)
        else:
            self.layout = layout = layout_of(roles)
            self.field, self.meeting = field[layout.order], meeting[layout.order]
            self.slots, self.crowded = layout.slots, layout.crowded
            self.nodes, self.along = layout.neighbours
            weight = coupling.weight[layout.along]
            squares = jnp.zeros_like(field).at[layout.rows].add(weight**2)
            if layout.offsets is not None:
                self.margin = int(abs(layout.offsets).max(initial=0))
                slot = layout.offsets.searchsorted(layout.columns - layout.rows)
                empty = jnp.zeros((len(layout.offsets), self.size), self.dtype)
                self.diagonals = empty.at[slot, layout.rows].set(weight)
            elif layout.dense:
                self.matrix = jnp.zeros((self.size, self.size), self.dtype).at[layout.rows, layout.columns].set(weight)
            else:
                self.weights = coupling.along(self.along)
        self.scale = jnp.sqrt(jnp.mean(squares + self.field**2))
        self.fixed = jnp.zeros(self.size, bool).at[self.slots].set(True) if self.holds else None

    def load(self, states, words):
        spins = states.T if self.layout is None else states.T[self.layout.order]
        spins = decided(spins, counted_uniform(words, 0, spins.shape, self.dtype))
        return jnp.pad(spins, ((self.margin, self.margin), (0, 0))) if self.margin else spins

    def inner(self, spins: Float[Array, "places replicas"]) -> Float[Array, "size replicas"]:
        """The spins without the margin."""
        return spins[self.margin : self.margin + self.size] if self.margin else spins

    def coupled_field(
        self, spins: Float[Array, "places replicas"], first: int, end: int
    ) -> Float[Array, "block replicas"]:
        """sum_j J_ij s_j at the places from `first` to `end`."""
        if self.matrix is not None:
            return self.matrix[first:end] @ spins
        if self.layout is None or self.layout.offsets is None or self.diagonals is None:
            return jnp.sum(self.weights[first:end, :, None] * spins[self.nodes[first:end]], axis=1)
        total = jnp.zeros((end - first, spins.shape[1]), self.dtype)
        inside = (self.layout.rows >= first) & (self.layout.rows < end)
        used = set((self.layout.columns - self.layout.rows)[inside].tolist())
        for slot, offset in enumerate(self.layout.offsets.tolist()):
            if offset in used:
                start = self.margin + first + offset
                total += self.diagonals[slot, first:end, None] * spins[start : start + end - first]
        return total

    def sweep(self, spins, accept):
        if self.crowded:
            spins = self._one_by_one(spins, accept)
        elif self.layout is None:
            spins = self._class_by_class(spins, accept)
        else:
            for first, end in self.layout.blocks:
                place = slice(self.margin + first, self.margin + end)
                s = spins[place]
                gain = 2 * s * (self.coupled_field(spins, first, end) + self.field[first:end, None])
                flips = accept(gain, s, first * s.shape[1], self.meeting[first:end, None])
                if self.fixed is not None:
                    flips &= ~self.fixed[first:end, None]
                spins = spins.at[place].set(jnp.where(flips, -s, s))
        return spins if self.nudge is None else self._outputs(spins, accept)

    def _class_by_class(self, spins, accept):
        turns = self.roles.colour if self.fixed is None else jnp.where(self.fixed, -1, self.roles.colour)

        def update(number, s):
            gain = 2 * s * (self.matrix @ s + self.field[:, None])
            flips = accept(gain, s, 0, self.meeting[:, None])
            return jnp.where(flips & (turns == number)[:, None], -s, s)

        return jax.lax.fori_loop(0, self.roles.colours, update, spins)

    def energies(self, spins):
        s = self.inner(spins)
        total = -jnp.sum(s * (0.5 * self.coupled_field(spins, 0, self.size) + self.field[:, None]), axis=0)
        if self.nudge is None:
            return total
        return total + jax.vmap(self.nudge.energy, in_axes=1)(s[self.slots])

    def states(self, spins):
        return spins.T if self.layout is None else self.inner(spins)[self.layout.place].T

    def _field_at(self, spins, place):
        if self.layout is not None and self.diagonals is not None:
            columns = place + self.margin + jnp.asarray(self.layout.offsets, jnp.int32)
            return self.diagonals[:, place] @ spins[columns] + self.field[place]
        if self.matrix is not None:
            return self.matrix[place] @ spins + self.field[place]
        return self.weights[place] @ spins[jnp.asarray(self.nodes)[place]] + self.field[place]

    def _one_by_one(self, spins, accept):
        def update(place, spins):
            s = spins[place]
            flips = accept(2 * s * self._field_at(spins, place), s, place * s.shape[0], self.meeting[place])
            flips = flips if self.fixed is None else flips & ~self.fixed[place]
            return spins.at[place].set(jnp.where(flips, -s, s))

        return jax.lax.fori_loop(0, self.size, update, spins)

    def _outputs(self, spins, accept):
        """The outputs one after the other, each flip weighed with what it does to the cost."""
        assert self.nudge is not None
        places = jnp.asarray(self.slots)
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

        return jax.lax.fori_loop(0, len(self.slots), update, spins)
