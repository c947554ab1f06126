"""Cluster updates of spins on graphs and lattices: whole domains flip at once."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from substrates.classical.ising.graph import GraphSweeps
from substrates.classical.ising.grid import GridSweeps
from substrates.classical.ising.sweeps import Sweeps, counted_uniform, counters, mix
from substrates.wiring import taken


class Coupled(Protocol):
    """Which spins of a sweep are coupled, with the replicas on the last axis.

    Attributes:
        weight: J of each coupling; those of 0 join nothing.
        field: what acts on each spin.
    """

    weight: Float[Array, "m"]
    field: Float[Array, "n"]

    def inner(self, spins: PyTree) -> Float[Array, "n replicas"]:
        """The spins of a sweep."""
        ...

    def outer(self, spins: PyTree, inner: Float[Array, "n replicas"]) -> PyTree:
        """What a sweep holds in place of `spins` where they have become these."""
        ...

    def ends(self, s: Float[Array, "n replicas"]) -> tuple[Float[Array, "m replicas"], Float[Array, "m replicas"]]:
        """What the spins at both ends of each coupling have."""
        ...

    def least_across(
        self, labels: Int[Array, "n replicas"], joined: Bool[Array, "m replicas"]
    ) -> Int[Array, "n replicas"]:
        """The least label of the spins that bonds join to each; n for none."""
        ...


class CoupledOnGraph:
    """The couplings of a graph, by tables of neighbours; see `Coupled`."""

    def __init__(self, kernel: GraphSweeps):
        self.kernel, self.field, self.neighbours, self.bonds_at = kernel, kernel.field, kernel.nodes, kernel.along
        weight, layout = kernel.coupling.weight, kernel.layout
        if layout is None:
            places = taken(kernel.roles.place, kernel.coupling.graph.edges)
            self.weight = jnp.where(jnp.all(places < kernel.size, axis=1), weight, 0)
            self.places = tuple(jnp.minimum(places, kernel.size - 1).T)
            return
        once = np.flatnonzero(layout.rows < layout.columns)
        self.places, self.weight = (layout.rows[once], layout.columns[once]), weight[layout.along[once]]
        number = np.full(len(weight) + 1, len(once))  # the last bond stands for none
        number[layout.along[once]] = np.arange(len(once))
        self.bonds_at = number[kernel.along]

    def inner(self, spins: Any) -> Array:
        return self.kernel.inner(spins)

    def outer(self, spins: Any, inner: Array) -> Array:
        return spins.at[self.kernel.margin : self.kernel.margin + self.kernel.size].set(inner)

    def ends(self, s: Array) -> tuple[Array, Array]:
        return s[self.places[0]], s[self.places[1]]

    def least_across(self, labels: Array, joined: Array) -> Array:
        joined = jnp.concatenate([joined, jnp.zeros((1, joined.shape[1]), bool)])[self.bonds_at]
        return jnp.min(jnp.where(joined, labels[self.neighbours], len(labels)), axis=1)


class CoupledOnGrid:
    """The couplings of a lattice, one for each spin and axis, by shifts; see `Coupled`."""

    def __init__(self, kernel: GridSweeps):
        self.kernel, self.axes = kernel, range(len(kernel.grid.sides))
        self.field = kernel.nodes(kernel.field)
        self.weight = jnp.concatenate([along.ravel() for along in kernel.along])

    def inner(self, spins: Any) -> Array:
        return self.kernel.nodes(spins).T.astype(self.kernel.dtype)

    def outer(self, spins: Any, inner: Array) -> Any:
        return self.kernel.halves(inner.T.astype(spins[0].dtype))

    def ends(self, s: Array) -> tuple[Array, Array]:
        after = [self._moved(s, -1, axis) for axis in self.axes]
        return jnp.concatenate([s for _ in self.axes]), jnp.concatenate(after)

    def least_across(self, labels: Array, joined: Array) -> Array:
        least = jnp.full_like(labels, len(labels))
        for axis, here in zip(self.axes, jnp.split(joined, len(self.axes)), strict=True):
            for bonds, step in ((here, -1), (self._moved(here, 1, axis), 1)):
                least = jnp.minimum(least, jnp.where(bonds, self._moved(labels, step, axis), len(labels)))
        return least

    def _moved(self, values: Array, step: int, axis: int) -> Array:
        return jnp.roll(values.reshape(*self.kernel.grid.sides, -1), step, axis).reshape(values.shape)


class Clusters:
    """The update of Swendsen and Wang, for all replicas at once.

    A coupling that is satisfied becomes a bond with probability 1 - exp(-2 |J|/T); clusters of spins joined by bonds
    flip as one with probability 1/2. A satisfied field ties its spin to a spin outside, which never flips, with
    probability 1 - exp(-2 |h|/T). Right for couplings of any sign, quick where they are not frustrated.

    Source: Swendsen and Wang 1987, Phys. Rev. Lett. 58, 86.
    """

    def __init__(self, kernel: Sweeps):
        if not isinstance(kernel, GraphSweeps | GridSweeps):
            raise ValueError("update: wanted spins on a graph for cluster updates, got layers; take update='heat bath'")
        if kernel.holds:
            raise ValueError(
                "update: cluster updates see a nudge as fields, got a cost that is not a sum over outputs; take "
                "update='heat bath', or give the nudge `about=` an output"
            )
        self.dtype = kernel.dtype
        self.coupled: Coupled = CoupledOnGrid(kernel) if isinstance(kernel, GridSweeps) else CoupledOnGraph(kernel)

    def update(self, spins: PyTree, inverse_temperature: Float[Array, "replicas"], words: UInt32[Array, "2"]) -> PyTree:
        """One update of every cluster."""
        coupled, s = self.coupled, self.coupled.inner(spins)
        n, replicas = s.shape
        m = coupled.weight.shape[0]
        first, second = coupled.ends(s)
        satisfied = coupled.weight[:, None] * first * second
        tied = coupled.field[:, None] * s
        chance = lambda gain: -jnp.expm1(-2 * inverse_temperature[None] * jnp.maximum(gain, 0))
        uniform = lambda first, rows: counted_uniform(words, first * replicas, (rows, replicas), self.dtype)
        labels = self.labels(uniform(0, m) < chance(satisfied), n)
        replica = jnp.arange(replicas, dtype=jnp.int32)
        frozen = jnp.zeros((n, replicas), bool).at[labels, replica].max(uniform(m, n) < chance(tied))
        at = (labels * replicas + replica[None]).astype(jnp.uint32) + counters((m + n) * replicas, ())
        flips = (mix(words, at, self.dtype) < 0.5) & ~frozen[labels, replica]
        return coupled.outer(spins, jnp.where(flips, -s, s))

    def labels(self, bonds: Bool[Array, "m replicas"], n: int) -> Int[Array, "n replicas"]:
        """The lowest place in each place's cluster: neighbours' labels spread along bonds, and labels of labels."""
        start = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32)[:, None], (n, bonds.shape[1]))

        def spread(carry):
            labels, _ = carry
            new = jnp.minimum(labels, self.coupled.least_across(labels, bonds))
            for _ in range(2):
                new = jnp.take_along_axis(new, new, axis=0)
            return new, jnp.any(new != labels)

        return jax.lax.while_loop(lambda carry: carry[1], spread, (start, jnp.asarray(True)))[0]
