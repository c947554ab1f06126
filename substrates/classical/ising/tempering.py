"""Parallel tempering: replicas at many temperatures that change places."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from substrates.classical.ising.annealing import best, pinned
from substrates.classical.ising.spins import Spins
from substrates.classical.ising.sweeps import DRAW, Sweeps, check_counts, counted_uniform, sweep_words
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Equilibrium, Solver, judge, tolerance


class Tempering(Solver):
    """Parallel tempering: one replica at each of a geometric ladder of temperatures; neighbours exchange places.

    After each Metropolis sweep the neighbours k and k + 1 of a ladder exchange their temperatures with probability
    min(1, exp((1/T_k - 1/T_(k+1)) (E_k - E_(k+1)))), even and odd k in turn. In the end all replicas, the lowest
    configuration that any of them ever was in, and the start descend, and the lowest is kept; the start wins ties.
    Where valleys are deep it beats annealing: a replica that is stuck is warmed and cooled again. Temperatures are in
    the units of `Annealing`.

    Attributes:
        sweeps: how many sweeps.
        temperatures: how many temperatures a ladder has.
        ladders: how many independent ladders.
        hot, cold: the ends of a ladder.

    Source: Hukushima and Nemoto 1996, J. Phys. Soc. Jpn. 65, 1604.
    """

    sweeps: int = 400
    temperatures: int = 12
    ladders: int = 2
    hot: float = 1.5
    cold: float = 0.1

    def __check_init__(self):
        check_counts(self, sweeps=0, temperatures=2, ladders=1)
        if not 0 < self.cold < self.hot < float("inf"):
            raise ValueError(f"cold, hot: wanted 0 < cold < hot, got {self.cold} and {self.hot}")

    def __call__(
        self, substrate: Spins, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        key = jax.random.key(0) if key is None else key
        start = pinned(substrate, start, nudge)
        kernel = substrate.sweeps(x, nudge)
        replicas = self.temperatures * self.ladders
        spins = kernel.replicate(start, replicas, sweep_words(key, DRAW))
        spins, lowest = self.run(kernel, spins, key)
        spins = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=kernel.replica_axis), spins, lowest)
        state, steps = best(substrate, x, nudge, kernel, spins, start, sweep_words(key, DRAW - 1))
        return judge(substrate, state, x, nudge, self.sweeps + steps, tolerance(substrate, state, x, nudge))

    def run(self, kernel: Sweeps, spins: PyTree, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """All replicas after the last sweep, and the lowest configuration that any of them was in after a sweep."""
        ladder = 1 / (jnp.geomspace(self.hot, self.cold, self.temperatures, dtype=kernel.dtype) * kernel.unit)
        rungs = jnp.tile(jnp.arange(self.temperatures, dtype=jnp.int32), self.ladders)
        pick = lambda spins, index: jax.tree.map(
            lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, kernel.replica_axis), spins
        )

        def step(t, carry):
            spins, rungs, lowest, least = carry
            words = sweep_words(key, t)
            spins = kernel.metropolis(spins, ladder[rungs], words)
            energies = kernel.energies(spins)
            index = jnp.argmin(energies)
            better = energies[index] < least
            lowest = jax.tree.map(lambda new, old: jnp.where(better, new, old), pick(spins, index), lowest)
            uniform = counted_uniform(sweep_words(key, DRAW - 2 - t), 0, energies.shape, kernel.dtype)
            rungs = jax.vmap(exchanged, in_axes=(0, 0, 0, None, None))(
                *(leaf.reshape(self.ladders, -1) for leaf in (rungs, energies, uniform)), ladder, t % 2
            )
            return spins, rungs.reshape(-1), lowest, jnp.minimum(energies[index], least)

        start = (spins, rungs, pick(spins, 0), jnp.asarray(jnp.inf, kernel.dtype))
        spins, _, lowest, _ = jax.lax.fori_loop(0, self.sweeps, step, start)
        return spins, lowest


def exchanged(
    rungs: Int[Array, "replicas"],
    energies: Float[Array, "replicas"],
    uniform: Float[Array, "replicas"],
    ladder: Float[Array, "replicas"],
    parity: Int[Array, ""] | int,
) -> Int[Array, "replicas"]:
    """The rungs of the replicas of one ladder after neighbours from rungs of this parity have tried to exchange.

    Args:
        rungs: the rung of each replica.
        energies: of each replica.
        uniform: a number for each rung.
        ladder: the inverse temperature of each rung.
        parity: 0 or 1: whether the lower rung of a pair is even or odd.
    """
    count = rungs.shape[0]
    at = jnp.zeros_like(rungs).at[rungs].set(jnp.arange(count, dtype=rungs.dtype))  # the replica on each rung
    rung = jnp.arange(count - 1)
    gain = (ladder[1:] - ladder[:-1]) * (energies[at[1:]] - energies[at[:-1]])
    swap = (rung % 2 == parity) & (uniform[:-1] < jnp.exp(jnp.minimum(gain, 0)))
    up, down = jnp.append(swap, False), jnp.append(jnp.zeros(1, bool), swap)
    place = jnp.arange(count, dtype=rungs.dtype) + up.astype(rungs.dtype) - down.astype(rungs.dtype)
    return rungs.at[at].set(place)
