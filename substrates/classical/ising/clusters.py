"""Cluster updates of spins on graphs: whole domains flip at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from substrates.classical.ising.graph import GraphSweeps
from substrates.classical.ising.sweeps import Sweeps, counted_uniform, counters, mix
from substrates.wiring import taken


class Clusters:
    """The update of Swendsen and Wang, for all replicas at once.

    A coupling that is satisfied becomes a bond with probability 1 - exp(-2 |J|/T); clusters of spins joined by bonds
    flip as one with probability 1/2. A satisfied field ties its spin to a spin outside, which never flips, with
    probability 1 - exp(-2 |h|/T). Right for couplings of any sign, quick where they are not frustrated.

    Source: Swendsen and Wang 1987, Phys. Rev. Lett. 58, 86.
    """

    def __init__(self, kernel: Sweeps):
        if not isinstance(kernel, GraphSweeps):
            raise ValueError("update: wanted spins on a graph for cluster updates, got layers; take update='heat bath'")
        if kernel.holds:
            raise ValueError(
                "update: cluster updates see a nudge as fields, got a cost that is not a sum over outputs; take "
                "update='heat bath', or give the nudge `about=` an output"
            )
        self.kernel, self.neighbours, self.bonds_at = kernel, kernel.nodes, kernel.along
        weight, layout = kernel.coupling.weight, kernel.layout
        if layout is None:
            places = taken(kernel.roles.place, kernel.coupling.graph.edges)
            self.weight = jnp.where(jnp.all(places < kernel.size, axis=1), weight, 0)
            self.ends = tuple(jnp.minimum(places, kernel.size - 1).T)
            return
        once = np.flatnonzero(layout.rows < layout.columns)
        self.ends, self.weight = (layout.rows[once], layout.columns[once]), weight[layout.along[once]]
        number = np.full(len(weight) + 1, len(once))  # the last bond stands for none
        number[layout.along[once]] = np.arange(len(once))
        self.bonds_at = number[kernel.along]

    def update(
        self,
        spins: Float[Array, "places replicas"],
        inverse_temperature: Float[Array, "replicas"],
        words: UInt32[Array, "2"],
    ) -> Float[Array, "places replicas"]:
        """One update of every cluster."""
        kernel, s = self.kernel, self.kernel.inner(spins)
        n, replicas = s.shape
        m = self.weight.shape[0]
        satisfied = self.weight[:, None] * s[self.ends[0]] * s[self.ends[1]]
        tied = kernel.field[:, None] * s
        chance = lambda gain: -jnp.expm1(-2 * inverse_temperature[None] * jnp.maximum(gain, 0))
        uniform = lambda first, rows: counted_uniform(words, first * replicas, (rows, replicas), kernel.dtype)
        labels = self.labels(uniform(0, m) < chance(satisfied), n)
        replica = jnp.arange(replicas, dtype=jnp.int32)
        frozen = jnp.zeros((n, replicas), bool).at[labels, replica].max(uniform(m, n) < chance(tied))
        at = (labels * replicas + replica[None]).astype(jnp.uint32) + counters((m + n) * replicas, ())
        flips = (mix(words, at, kernel.dtype) < 0.5) & ~frozen[labels, replica]
        return spins.at[kernel.margin : kernel.margin + n].set(jnp.where(flips, -s, s))

    def labels(self, bonds: Bool[Array, "m replicas"], n: int) -> Int[Array, "n replicas"]:
        """The lowest place in each place's cluster: neighbours' labels spread along bonds, and labels of labels."""
        joined = jnp.concatenate([bonds, jnp.zeros((1, bonds.shape[1]), bool)])[self.bonds_at]
        start = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32)[:, None], (n, bonds.shape[1]))

        def spread(carry):
            labels, _ = carry
            across = jnp.where(joined, labels[self.neighbours], n)
            new = jnp.minimum(labels, jnp.min(across, axis=1))
            for _ in range(2):
                new = jnp.take_along_axis(new, new, axis=0)
            return new, jnp.any(new != labels)

        return jax.lax.while_loop(lambda carry: carry[1], spread, (start, jnp.asarray(True)))[0]
