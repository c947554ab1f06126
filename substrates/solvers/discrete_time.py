"""Discrete time: every variable steps along its force at once, as a recurrent network computes."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, NudgeRefusedError, Pin
from substrates.solvers.solver import Equilibrium, Solver, System, bounds_at, judged, tolerance

Setting = Literal["energy-based", "prototypical"]


class DiscreteTime(Solver):
    """Settles in discrete time, all variables at once, whatever the system:

        s <- clip(s + dt (f(s) - beta dC/ds) / K, lower, upper),     f = -dE/ds,

    with K = 1 in the "energy-based" setting, and in the "prototypical" one the stiffness with which each variable is
    held where the others leave it (`Substrate.bound_stiffness`), so that dt = 1 takes it to its rest there.

    With a primitive function Phi the map is s <- dPhi/ds - beta dC/ds. Energy-based, Phi = |s|^2/2 - dt E. Prototypical
    at dt = 1 it is a recurrent network as such: with Phi(s) = sum_k <s_k, P(w_k * s_(k-1))> + sum_k <b_k, s_k>, hard
    units go to clip(dPhi/ds, 0, 1), and smooth ones, whose states are what they feel, to dPhi/ds at s = rho(u). In both
    settings dt below 2 over the largest stiffness (in units of K) is stable; above, units that are updated at once may
    swing for ever, which is `out_of_steps`.

    It steps before it looks, so that `limited(n)` makes n steps, or fewer once it has converged, and at least one.

    Attributes:
        dt: the step, in units of the state per force; in units of what takes a variable to rest where it is
            "prototypical".
        setting: "energy-based" or "prototypical".
        max_steps: the most steps.

    Pins are refused. Raises ValueError for a dt that is not positive, and for another setting.

    Source: Ernoult, Grollier, Querlioz, Bengio and Scellier 2019, arXiv 1905.13633.
    """

    pins: ClassVar[bool] = False

    dt: float | Array = 1.0
    setting: Setting = eqx.field(static=True, default="prototypical")
    max_steps: int | Array = 1000

    def __check_init__(self):
        if self.setting not in get_args(Setting):
            raise ValueError(f"setting: wanted one of {get_args(Setting)}, got {self.setting!r}")
        if isinstance(self.dt, int | float) and not 0 < self.dt < float("inf"):
            raise ValueError(f"dt: wanted a positive number, got {self.dt}")

    def __call__(
        self, substrate: System, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        if isinstance(nudge, Pin):
            raise NudgeRefusedError("nudge: wanted a Nudge or None, got a Pin, which DiscreteTime cannot hold")
        limit = tolerance(substrate, start, x, nudge)

        def going(carry):
            state, _, residual, step = carry
            finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state)]
            unsettled = (residual > limit) & jnp.all(jnp.stack(finite))
            return (step == 0) | (unsettled & (step < self.max_steps))

        def advance(carry):
            state, force, _, step = carry
            moved = self._moved(substrate, state, x, force)
            # beside the residual, whose forces are the same, so that the compiler computes them once
            force = substrate.total_force(moved, x, nudge)
            return moved, force, substrate.residual(moved, x, nudge).astype(limit.dtype), step + 1

        force = substrate.total_force(start, x, nudge)
        begin = (start, force, jnp.full_like(limit, jnp.inf), jnp.zeros((), jnp.int32))
        state, _, residual, steps = jax.lax.while_loop(going, advance, begin)
        energy = substrate.total_energy(state, x, nudge) if substrate.conservative else None
        return judged(state, energy, residual, steps, limit)

    def step(
        self, substrate: System, state: PyTree, x: PyTree, nudge: Nudge | None = None, push: PyTree | None = None
    ) -> PyTree:
        """The state one step later; a push is one more force on every variable, a tree like the state."""
        force = substrate.total_force(state, x, nudge)
        if push is not None:
            force = jax.tree.map(jnp.add, force, push)
        return self._moved(substrate, state, x, force)

    def _moved(self, substrate: System, state: PyTree, x: PyTree, force: PyTree) -> PyTree:
        """The state after a step along a force."""
        if self.setting == "prototypical":
            held = lambda f, k: f / jnp.where(k > 0, k, 1).astype(f.dtype)
            force = jax.tree.map(held, force, substrate.bound_stiffness(state, x))
        moved = jax.tree.map(lambda s, f: s + jnp.asarray(self.dt, s.dtype) * f, state, force)
        bounds = bounds_at(substrate, x, state)
        return moved if bounds is None else jax.tree.map(jnp.clip, moved, *bounds)
