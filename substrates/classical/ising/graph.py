"""Spins on any graph."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from substrates import arguments
from substrates.classical.ising.counter import counted_uniform
from substrates.classical.ising.layout import Layout, layout_of
from substrates.classical.ising.model import IsingModel, cost_of_flips
from substrates.classical.ising.sweeps import Sweeps, decided
from substrates.nudge import Nudge, Pin
from substrates.wiring import Bonds


class SpinGraph(IsingModel):
    """Spins on the nodes of a graph, E = -sum_(ij) J_ij s_i s_j - sum_i h_i s_i over its edges and nodes.

    Attributes:
        coupling: J, one per edge (`coupling.weight`, shape (m,)).
        field: h, shape (n,).
        inputs: the nodes that the input x, shape (inputs,), holds.
        outputs: the nodes that are read; an output shows its spin, -1 or 1.
        shape: of the lattice that the nodes number in C order, for pictures; () if they form none.

    The state is the free spins, those of no input, in the order of their nodes.
    """

    coupling: Bonds
    field: Float[Array, "nodes"]
    inputs: tuple[int, ...] = eqx.field(static=True, default=())
    outputs: tuple[int, ...] = eqx.field(static=True, default=())
    shape: tuple[int, ...] = eqx.field(static=True, default=())

    @property
    def layout(self) -> Layout:
        """Where the free spins sit."""
        return layout_of(self.coupling.graph, self.inputs, self.outputs)

    @property
    def n(self) -> int:
        """The number of spins, inputs included."""
        return self.coupling.graph.n

    @property
    def size(self) -> int:
        return self.layout.size

    @property
    def levels(self) -> tuple[float, float]:
        return (-1.0, 1.0)

    def configuration(self, state: Float[Array, "free"], x: Float[Array, "inputs"]) -> Float[Array, "nodes"]:
        """All spins, free and held, in the order of the nodes."""
        s = jnp.zeros(self.n, state.dtype).at[self.layout.free].set(state)
        return s.at[self.layout.inputs].set(jnp.asarray(x).astype(state.dtype))

    def energy(self, state: Float[Array, "free"], x: Float[Array, "inputs"]) -> Float[Array, ""]:
        s = self.configuration(state, x)
        i, j = self.coupling.graph.edges.T
        return -jnp.sum(self.coupling.weight * (s[i] * s[j])) - jnp.sum(self.field * s)

    @property
    def input_size(self) -> int:
        return len(self.inputs)

    def initial_state(self, x: Float[Array, "inputs"]) -> Float[Array, "free"]:
        arguments.refuse_complex_input(x, self.field.dtype)
        if jnp.shape(x) != (len(self.inputs),):
            raise ValueError(
                f"x: wanted shape ({len(self.inputs)},), one number for each spin that is held, got {jnp.shape(x)}"
            )
        return jnp.zeros(self.size, self.field.dtype)

    def output_spins(self, state: Float[Array, "free"]) -> Float[Array, "outputs 1"]:
        return state[self.layout.outputs][:, None]

    def with_outputs(self, state: Float[Array, "free"], spins: Float[Array, "outputs 1"]) -> Float[Array, "free"]:
        return state.at[self.layout.outputs].set(spins[:, 0])

    def held_field(self, x: Float[Array, "inputs"]) -> Float[Array, "free"]:
        """h_i + sum_j J_ij x_j at every free spin i, over the inputs j."""
        spin, source, edge = self.layout.held
        x = jnp.asarray(x).astype(self.field.dtype)
        return self.field[self.layout.free].at[spin].add(self.coupling.weight[edge] * x[source])

    def local_field(self, state: Float[Array, "free"], x: Float[Array, "inputs"]) -> Float[Array, "free"]:
        return (self.coupling.product(self.configuration(state, x)) + self.field)[self.layout.free]

    def strengths(self, state: Float[Array, "free"], x: Float[Array, "inputs"]) -> Float[Array, "free"]:
        free = jnp.zeros(self.n, state.dtype).at[self.layout.free].set(jnp.abs(state))
        couplings = Bonds(jnp.abs(self.coupling.weight), self.coupling.graph)
        return jnp.abs(self.held_field(x)) + couplings.product(free)[self.layout.free]

    def free_couplings(self) -> tuple[Int[np.ndarray, "m 2"], Float[Array, "m"]]:
        layout = self.layout
        once = layout.rows < layout.columns
        pairs = np.stack([layout.order[layout.rows[once]], layout.order[layout.columns[once]]], axis=1)
        return pairs, self.coupling.weight[layout.along[once]]

    def sweeps(self, x: Float[Array, "inputs"], nudge: Nudge | Pin | None) -> GraphSweeps:
        return GraphSweeps(self, x, nudge)


class GraphSweeps(Sweeps):
    """Sweeps over a graph: class by class of uncoupled spins, or one by one where there are too many classes.

    Arrays have the shape (places, replicas), with a margin of zeros where neighbours are shifted slices.
    """

    replica_axis = -1

    def __init__(self, model: SpinGraph, x: Float[Array, "inputs"], nudge: Nudge | Pin | None):
        self.model, self.layout, self.dtype = model, model.layout, model.field.dtype
        layout, weight = self.layout, model.coupling.weight
        held = model.held_field(x)
        squares = jnp.zeros_like(held).at[layout.order[layout.rows]].add(weight[layout.along] ** 2)
        meeting = model.force_scale(held, x)
        self.nudge = nudge if isinstance(nudge, Nudge) and not nudge.separable else None
        if isinstance(nudge, Nudge) and nudge.separable:
            up = jnp.ones((len(model.outputs), 1), self.dtype)
            # flipping a spin that points up gains 2 f, so a cost acts as the field (C(down) - C(up))/2
            change, size = cost_of_flips(model, up, nudge)
            held = held.at[layout.outputs].add(0.5 * change[:, 0])
            meeting = meeting.at[layout.outputs].add(size[:, 0])
        self.scale = jnp.sqrt(jnp.mean(squares + held**2))
        self.field, self.meeting = held[layout.order], meeting[layout.order]
        self.fixed = jnp.zeros(layout.size, bool)
        self.holds = isinstance(nudge, Pin) or self.nudge is not None
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
            self.nodes, padded = jnp.asarray(nodes), jnp.concatenate([weight, jnp.zeros(1, self.dtype)])
            self.weights = jnp.where(along <= layout.along.max(initial=-1), padded[jnp.minimum(along, weight.size)], 0)

    def along_replicas(self, values: Float[Array, "replicas"]) -> Float[Array, "replicas"]:
        return values

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
