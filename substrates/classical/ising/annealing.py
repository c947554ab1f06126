"""Simulated annealing of many replicas, forward from hot and in reverse from spins."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from substrates.classical.ising.spins import GroundStateSolver, Spins
from substrates.classical.ising.sweeps import DRAW, Sweeps, check_counts, sweep_words
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Equilibrium, judge, tolerance


class Annealing(GroundStateSolver):
    """Simulated annealing: Metropolis sweeps of replicas while the temperature falls, then a descent; the best is kept.

    The inverse temperature rises linearly from 1/hot to 1/cold. Temperatures are given in units of the root mean square
    of the local field at random spins, sqrt(mean_i (h_i^2 + sum_j J_ij^2)), at the input and nudge at hand. The descent
    flips every spin that releases energy until none does, so that the residual is zero.

    From spins it anneals in reverse: it starts at the temperature `warm`, and the start itself descends beside the
    replicas and wins ties. So it never ends above its start, and a nudge that does nothing changes nothing.

    Attributes:
        sweeps: how many sweeps from hot to cold.
        replicas: how many anneal side by side.
        hot, cold: the first and last temperature.
        warm: the first temperature of a reverse annealing.
        reverse_sweeps: how many sweeps a reverse annealing takes.
        from_spins: whether it anneals in reverse.

    Source: Kirkpatrick, Gelatt and Vecchi 1983; reverse annealing for the nudged phase, Laydevant, Markovic and
    Grollier 2024, arXiv 2305.18321.
    """

    sweeps: int = 200
    replicas: int = 16
    hot: float = 1.5
    cold: float = 0.1
    warm: float = 0.4
    reverse_sweeps: int = 100
    from_spins: bool = False

    def __check_init__(self):
        check_counts(self, sweeps=0, replicas=1, reverse_sweeps=0)
        for name in ("cold", "hot", "warm"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}: wanted a positive temperature, got {value}")
            if value < self.cold:
                raise ValueError(f"{name}: wanted a temperature of at least cold = {self.cold}, got {value}")

    def reversed(self) -> Annealing:
        return eqx.tree_at(lambda solver: solver.from_spins, self, True)

    def __call__(
        self, substrate: Spins, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        key = jax.random.key(0) if key is None else key
        start = pinned(substrate, start, nudge)
        kernel = substrate.sweeps(x, nudge)
        first, count = (self.warm, self.reverse_sweeps) if self.from_spins else (self.hot, self.sweeps)
        spins = kernel.replicate(start, self.replicas, sweep_words(key, DRAW))
        spins = kernel.run(spins, key, schedule(kernel, first, self.cold, count, self.replicas))
        state, steps = best(substrate, x, nudge, kernel, spins, start, sweep_words(key, DRAW - 1))
        return judge(substrate, state, x, nudge, count + steps, tolerance(substrate, state, x, nudge))


def schedule(kernel: Sweeps, first: float, last: float, count: int, replicas: int) -> Float[Array, "sweeps replicas"]:
    """Inverse temperatures that rise linearly, for all replicas alike; `first` and `last` in units of the scale."""
    inverse = jnp.linspace(1 / first, 1 / last, count, dtype=kernel.dtype) / kernel.unit
    return jnp.broadcast_to(inverse[:, None], (count, replicas))


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
