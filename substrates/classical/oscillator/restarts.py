"""Many equilibria: settling from many starts and ramping the second harmonic."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from substrates.classical.oscillator.phase_descent import PhaseDescent
from substrates.classical.oscillator.phases import Oscillators, random_phases
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Equilibrium, Solver, Status


class BestOf(Solver):
    """Settles from many random starts beside the given one and keeps the converged equilibrium of least energy.

    A nudged phase starts from the free state alone, so that it stays in its basin.

    Attributes:
        starts: how many random starts, drawn from the key that `relax` gets.
        inner: the solver that settles from each.
    """

    starts: int = 16
    inner: Solver = eqx.field(default_factory=PhaseDescent)

    def __call__(
        self, substrate: Oscillators, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        if nudge is not None:
            return self.inner(substrate, x, nudge, start, key)
        if key is None:
            raise ValueError("key: BestOf draws its starts from a key; give relax one")
        drawn = jax.vmap(lambda k: random_phases(k, start))(jax.random.split(key, self.starts))
        starts = jax.tree.map(lambda one, many: jnp.concatenate([one[None], many]), start, drawn)
        found = jax.vmap(lambda s: self.inner(substrate, x, None, s, key))(starts)
        energy = jnp.asarray(found.energy)
        settled = found.usable | (found.status == Status.zero_mode)  # of parts that turn freely as a whole
        best = jnp.argmin(jnp.where(settled, energy, jnp.inf))
        return jax.tree.map(lambda leaf: leaf[best], found)


class Ramped(Solver):
    """Settles while the second harmonic rises from nothing to its value, as an oscillator Ising machine is annealed.

    Without it the phases find a low state of the XY model, which the growing harmonic rounds to 0 or pi. A nudged
    phase starts from the free state at full strength.

    Attributes:
        stages: in how many equal steps the harmonic rises.
        inner: the solver that settles at each.
    """

    stages: int = 10
    inner: Solver = eqx.field(default_factory=PhaseDescent)

    def __call__(
        self, substrate: Oscillators, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        if substrate.second_harmonic is None:
            raise ValueError("second_harmonic: Ramped wants a network that has one, got None")
        if nudge is not None:
            return self.inner(substrate, x, nudge, start, key)

        def stage(state: PyTree, fraction: Array) -> tuple[PyTree, None]:
            weaker = jax.tree.map(lambda k: fraction * k, substrate.second_harmonic)
            net = eqx.tree_at(lambda n: n.second_harmonic, substrate, weaker)
            return self.inner(net, x, None, state, key).state, None

        fractions = jnp.linspace(0, 1, self.stages + 1)[:-1].astype(jax.tree.leaves(start)[0].dtype)
        state, _ = jax.lax.scan(stage, start, fractions)
        return self.inner(substrate, x, None, state, key)
