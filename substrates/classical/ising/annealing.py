"""Simulated annealing of many replicas, forward from hot and in reverse from spins."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from substrates.classical.ising.spins import Spins
from substrates.classical.ising.sweeps import DRAW, Sweeps, check_counts, sweep_words
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Equilibrium, Solver, judge, tolerance


class Annealing(Solver):
    """Simulated annealing: Metropolis sweeps of replicas while the temperature falls, then a descent; the best is kept.

    The inverse temperature rises linearly from 1/hot to 1/cold. Temperatures are given in units of the root mean square
    of the local field at random spins, sqrt(mean_i (h_i^2 + sum_j J_ij^2)), at the input and nudge at hand. The descent
    flips every spin that releases energy until none does, so that the residual is zero.

    From a start whose spins are all decided it anneals in reverse, from the temperature `warm`. The start itself
    descends beside the replicas and wins ties. So it never ends above its start, and a nudge that does nothing changes
    nothing.

    Attributes:
        sweeps: how many sweeps from hot to cold.
        replicas: how many anneal side by side.
        hot, cold: the first and last temperature.
        warm: the first temperature of a reverse annealing.
        reverse_sweeps: how many sweeps a reverse annealing takes.

    Source: Kirkpatrick, Gelatt and Vecchi 1983; reverse annealing for the nudged phase, Laydevant, Markovic and
    Grollier 2024, arXiv 2305.18321.
    """

    sweeps: int = 200
    replicas: int = 16
    hot: float = 1.5
    cold: float = 0.1
    warm: float = 0.4
    reverse_sweeps: int = 100

    def __check_init__(self):
        check_counts(self, sweeps=0, replicas=1, reverse_sweeps=0)
        for name in ("cold", "hot", "warm"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}: wanted a positive temperature, got {value}")
            if value < self.cold:
                raise ValueError(f"{name}: wanted a temperature of at least cold = {self.cold}, got {value}")

    def __call__(
        self, substrate: Spins, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        key = jax.random.key(0) if key is None else key
        undecided = jnp.any(ravel_pytree(start)[0] == 0)
        start = pinned(substrate, start, nudge)
        kernel = substrate.sweeps(x, nudge)
        first = jnp.where(undecided, self.hot, self.warm).astype(kernel.dtype)
        count = jnp.where(undecided, self.sweeps, self.reverse_sweeps)
        spins = kernel.replicate(start, self.replicas, sweep_words(key, DRAW))
        spins = anneal(kernel, spins, key, first, self.cold, count)
        state, steps = best(substrate, x, nudge, kernel, spins, start, sweep_words(key, DRAW - 1))
        return judge(substrate, state, x, nudge, count + steps, tolerance(substrate, state, x, nudge))


def anneal(
    kernel: Sweeps,
    spins: PyTree,
    key: PRNGKeyArray,
    first: Float[Array, ""],
    last: float,
    count: Int[Array, ""],
) -> PyTree:
    """Metropolis sweeps at inverse temperatures that rise linearly, `first` and `last` in units of the scale."""
    replicas = jax.tree.leaves(spins)[0].shape[kernel.replica_axis]

    def sweep(t: Int[Array, ""], spins: PyTree) -> PyTree:
        part = (t / jnp.maximum(count - 1, 1)).astype(kernel.dtype)
        inverse = ((1 - part) / first + part / last) / kernel.unit
        return kernel.metropolis(spins, jnp.broadcast_to(inverse, (replicas,)), sweep_words(key, t))

    return jax.lax.fori_loop(0, count, sweep, spins)


def best(
    model: Spins, x: PyTree, nudge: Nudge | Pin | None, kernel: Sweeps, spins: PyTree, start: PyTree, words: Array
) -> tuple[PyTree, Array]:
    """The state of lowest energy after all replicas and the start have descended; the start wins ties.

    Returns it and the number of sweeps of the descent.
    """
    joined = jax.tree.map(
        lambda first, rest: jnp.concatenate([first, rest], axis=kernel.replica_axis),
        kernel.replicate(start, 1, words),
        spins,
    )
    joined, steps = kernel.descend(joined, 2 * model.size + 2)
    states = kernel.states(joined)
    at = lambda index: jax.tree.map(lambda leaf: leaf[index], states)
    change, rounding = jax.vmap(lambda state: model.energy_change(at(0), state, x, nudge))(states)
    return at(jnp.argmin(jnp.where(change < -rounding, change, 0))), steps


def pinned(substrate: Spins, state: PyTree, nudge: Nudge | Pin | None) -> PyTree:
    """The state with the outputs of a pin at the level nearest to its target."""
    if not isinstance(nudge, Pin):
        return state
    low, high = substrate.levels
    spins = substrate.output_spins(state)
    up = jnp.asarray(nudge.target) > (low + high) / 2
    return substrate.with_outputs(
        state, jnp.broadcast_to(jnp.where(up, 1.0, -1.0).astype(spins.dtype)[:, None], spins.shape)
    )
