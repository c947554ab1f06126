"""Sweeps over large lattices: halves of a checkerboard, whose neighbours are shifted halves."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, Shaped

from substrates.classical.ising.sweeps import Accept, Sweeps, counted_uniform, decided
from substrates.nudge import Nudge, Pin
from substrates.wiring import Bonds, CompiledRoles, Grid

Halves = tuple[Int8[Array, "replicas *half"], Int8[Array, "replicas *half"]]


class GridSweeps(Sweeps):
    """Sweeps over a lattice, one half of its checkerboard after the other.

    Of two neighbours along the last axis one is of either half, so that a half is an array of the lattice's shape whose
    last side is half as long (rounded up: at places without a node the spin is 0). Along the other axes the neighbours
    of a spin stand at its place in the other half, one step along the axis; along the last one of them stands at its
    place and the other one step beside it, on a side that alternates. Spins are kept as small integers; those of inputs
    are 0, for they act as a field.

    Args:
        coupling: J along the edges of a `Grid`.
        roles: of the spins.
        field: what acts on each free spin beside the others.
        meeting: the sum of the sizes of what meets at each free spin.
        nudge: a cost that is weighed flip by flip, a pin, which holds the outputs, or None.
    """

    replica_axis = 0

    def __init__(
        self,
        coupling: Bonds,
        roles: CompiledRoles,
        field: Float[Array, "free"],
        meeting: Float[Array, "free"],
        nudge: Nudge | Pin | None,
    ):
        grid = coupling.graph.compiled
        assert isinstance(grid, Grid)
        self.grid, self.roles, self.dtype, self.size = grid, roles, field.dtype, field.size
        self.nudge, self.holds = nudge if isinstance(nudge, Nudge) else None, nudge is not None
        none = jnp.zeros(roles.clamped.size, field.dtype)
        along = grid.by_axis(coupling.weight)
        if roles.clamped.size:
            free = grid.whole(roles.arranged(jnp.ones_like(field), none))
            along = [w * free * jnp.roll(free, -1, axis) for axis, w in enumerate(along)]
        self.along = along
        self.field, self.meeting = (self.halves(roles.arranged(part, none)) for part in (field, meeting))
        forth = [self._split(w) for w in along]
        back = [self._split(jnp.roll(w, 1, axis)) for axis, w in enumerate(along)]
        self.weights = tuple(self._weights(half, forth, back) for half in (0, 1))
        squares = sum(jnp.sum(w**2) for w in along)
        self.scale = jnp.sqrt((2 * squares + jnp.sum(field**2)) / self.size)
        places = np.unravel_index(roles.outputs, grid.sides)
        self.half_of = np.sum(places, axis=0) % 2
        self.outputs = (*places[:-1], places[-1] // 2)

    def along_replicas(self, values):
        return values.reshape(-1, *(1,) * len(self.grid.sides))

    def load(self, states, words):
        spins = decided(states, counted_uniform(words, 0, states.shape, self.dtype)).astype(jnp.int8)
        none = np.zeros(self.roles.clamped.size, np.int8)
        return self.halves(jax.vmap(lambda s: self.roles.arranged(s, none))(spins))

    def states(self, spins):
        return jax.vmap(self.roles.settled)(self.nodes(spins)).astype(self.dtype)

    # between nodes in their order and the halves of the checkerboard

    def halves(self, values: Shaped[Array, "*replicas nodes"]) -> tuple[Array, Array]:
        """What nodes have, as the halves."""
        return self._split(self.grid.whole(values))

    def nodes(self, halves: tuple[Array, Array]) -> Shaped[Array, "*replicas nodes"]:
        """What the halves have, in the order of the nodes."""
        even, odd = halves
        first = self._side(0, even.ndim) == 0
        pairs = jnp.stack([jnp.where(first, even, odd), jnp.where(first, odd, even)], axis=-1)
        whole = pairs.reshape(*even.shape[:-1], -1)[..., : self.grid.sides[-1]]
        return whole.reshape(*whole.shape[: whole.ndim - len(self.grid.sides)], self.grid.n)

    def _split(self, whole: Shaped[Array, "*replicas *sides"]) -> tuple[Array, Array]:
        odd = whole.shape[-1] % 2
        whole = jnp.pad(whole, [(0, 0)] * (whole.ndim - 1) + [(0, odd)]) if odd else whole
        pairs = whole.reshape(*whole.shape[:-1], -1, 2)
        first = [self._side(half, whole.ndim) == 0 for half in (0, 1)]
        even, odd = (jnp.where(here, pairs[..., 0], pairs[..., 1]) for here in first)
        return even, odd

    def _side(self, half: int, ndim: int) -> Array:
        """Which of each two neighbouring columns is of this half, 0 or 1, with ndim axes, the last one of length 1."""
        shape = (*(1,) * (ndim - len(self.grid.sides)), *self.grid.sides[:-1], 1)
        steps = [jax.lax.broadcasted_iota(jnp.int32, shape, ndim - 1 - k) for k in range(1, len(self.grid.sides))]
        return sum(steps, jnp.full(shape, half, jnp.int32)) % 2

    # sweeps

    def _weights(self, half: int, forth: list[Any], back: list[Any]) -> list[Array]:
        """The couplings of a half to its neighbours, in the order of `_neighbours`."""
        pairs = [(f[half], b[half]) for f, b in zip(forth, back, strict=True)]
        first = self._side(half, len(self.grid.sides)) == 0
        ahead, behind = pairs.pop()
        return [*sum(pairs, ()), jnp.where(first, ahead, behind), jnp.where(first, behind, ahead)]

    def _neighbours(self, half: int, other: Int8[Array, "replicas *half"]) -> list[Array]:
        """The spins beside those of a half: after and before along each axis; along the last, here and beside."""
        mode = "wrap" if self.grid.periodic else "constant"
        # a compiler that fused the margin into the update would look for it at every spin
        padded = jax.lax.optimization_barrier(jnp.pad(other, [(0, 0)] + [(1, 1)] * (other.ndim - 1), mode=mode))

        def beside(axis: int, step: int) -> Array:
            starts = [0] + [1 + step * (k == axis) for k in range(1, other.ndim)]
            return jax.lax.slice(padded, starts, [a + length for a, length in zip(starts, other.shape, strict=True)])

        last = other.ndim - 1
        beyond = jnp.where(self._side(half, other.ndim) == 0, beside(last, -1), beside(last, 1))
        return [*(beside(axis, step) for axis in range(1, last) for step in (1, -1)), other, beyond]

    def coupled_field(self, spins: Halves, half: int) -> Float[Array, "replicas *half"]:
        """sum_j J_ij s_j at the spins of a half."""
        pairs = zip(self.weights[half], self._neighbours(half, spins[1 - half]), strict=True)
        return sum((w[None] * s.astype(self.dtype) for w, s in pairs), jnp.zeros((), self.dtype))

    def sweep(self, spins, accept):
        spins = list(spins)
        for half in (0, 1):
            old = spins[half]
            s = old.astype(self.dtype)
            gain = 2 * s * (self.coupled_field(tuple(spins), half) + self.field[half][None])
            flips = accept(gain, s, half * s.size, self.meeting[half][None])
            spins[half] = jnp.where(flips, -old, old)
            if self.holds:
                at = self._outputs_at(half)
                spins[half] = spins[half].at[at].set(old[at])
        return tuple(spins) if self.nudge is None else self._outputs(tuple(spins), accept)

    def energies(self, spins):
        apart = [s.astype(self.dtype) for s in spins]
        felt = self.coupled_field(spins, 0) + self.field[0][None], self.field[1][None]
        axes = tuple(range(1, apart[0].ndim))
        total = -sum(jnp.sum(s * f, axis=axes) for s, f in zip(apart, felt, strict=True))
        return total if self.nudge is None else total + jax.vmap(self.nudge.energy)(self._at_outputs(apart))

    # outputs

    def _outputs_at(self, half: int) -> tuple[Any, ...]:
        return (slice(None), *(place[self.half_of == half] for place in self.outputs))

    def _at_outputs(self, halves: Any) -> Shaped[Array, "replicas outputs"]:
        """What the outputs have, of what the halves have."""
        every = (slice(None), *self.outputs)
        return jnp.where(self.half_of[None] == 0, halves[0][every], halves[1][every])

    def _outputs(self, spins: Halves, accept: Accept) -> Halves:
        """The outputs one after the other, each flip weighed with what it does to the cost."""
        assert self.nudge is not None
        cost = jax.vmap(self.nudge.energy)
        felt = [self.coupled_field(spins, half) + self.field[half][None] for half in (0, 1)]
        s, between = self._at_outputs(spins).astype(self.dtype), self._between_outputs()
        apart = self._at_outputs(felt) - s @ between
        meeting = self._at_outputs([part[None] for part in self.meeting])[0]
        # numbers that no spin of this sweep has used
        first, ones = 2 * spins[0].size, (1,) * len(self.grid.sides)

        def update(k, s):
            before, after = cost(s), cost(s.at[:, k].set(-s[:, k]))
            gain = 2 * s[:, k] * (apart[:, k] + s @ between[:, k]) + after - before
            sizes = meeting[k] + jnp.abs(before) + jnp.abs(after)
            shaped = [part.reshape(-1, *ones) for part in (gain, s[:, k], sizes)]
            flips = accept(shaped[0], shaped[1], first + k * s.shape[0], shaped[2]).ravel()
            return s.at[:, k].set(jnp.where(flips, -s[:, k], s[:, k]))

        s = jax.lax.fori_loop(0, len(self.half_of), update, s).astype(jnp.int8)
        ends = [spins[half].at[self._outputs_at(half)].set(s[:, self.half_of == half]) for half in (0, 1)]
        return ends[0], ends[1]

    def _between_outputs(self) -> Float[Array, "outputs outputs"]:
        """J between the outputs."""
        places = np.stack(np.unravel_index(self.roles.outputs, self.grid.sides))
        total = jnp.zeros((places.shape[1], places.shape[1]), self.dtype)
        for axis, w in enumerate(self.along):
            after = places.copy()
            after[axis] = (after[axis] + 1) % self.grid.sides[axis]
            joined = np.all(after[:, :, None] == places[:, None], axis=0).astype(self.dtype)
            one_way = w[tuple(places)][:, None] * joined
            total += one_way + one_way.T
        return total
