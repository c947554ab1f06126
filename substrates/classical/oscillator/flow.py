"""Kuramoto's dynamics: phases in time, as a trajectory and as a way to settle."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from substrates.classical.oscillator.newton import settle_by_newton
from substrates.classical.oscillator.phase_descent import DENSE_SIZE, InBlocks, PhaseDescent
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Equilibrium, Solver, left_over, tolerance

NEAR = 1e-3
"""The torque, as a part of what meets at a phase, at which Newton's method takes over."""


class KuramotoFlow(Solver):
    """Settles as the oscillators themselves do, dphi/dt = -dF/dphi, and finishes by Newton's method.

    The flow ends in the basin that the physical dynamics chooses; faster solvers may step over a ridge. It runs by the
    fourth-order Runge-Kutta method with the time step 1 / the network's `steepest()`. A pin is left to `PhaseDescent`.

    Attributes:
        max_steps: the most steps in time.
    """

    max_steps: int = 5000

    def __call__(
        self, substrate: InBlocks, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        if isinstance(nudge, Pin) or any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(start)):
            return PhaseDescent()(substrate, x, nudge, start, key)
        limit = tolerance(substrate, start, x, nudge)
        near = jnp.maximum(limit, NEAR)
        meeting = substrate.force_scale(start, x)
        torque = lambda state: substrate.total_force(state, x, nudge)
        dt = 1 / substrate.steepest()

        def moving(carry):
            state, step = carry
            return (left_over(torque(state), meeting) > near) & (step < self.max_steps)

        advance = lambda carry: (runge_kutta(torque, carry[0], dt), carry[1] + 1)
        state, steps = jax.lax.while_loop(moving, advance, (start, jnp.zeros((), jnp.int32)))
        small = sum(leaf.size for leaf in jax.tree.leaves(start)) <= DENSE_SIZE
        return settle_by_newton(substrate, x, nudge, state, limit, steps, substrate.whole(x) if small else None)


def runge_kutta(velocity: Callable[[PyTree], PyTree], state: PyTree, dt: Array | float) -> PyTree:
    """The state a time dt later, to fourth order."""
    moved = lambda slope, time: jax.tree.map(lambda s, v: s + time * v, state, slope)
    first = velocity(state)
    second = velocity(moved(first, dt / 2))
    third = velocity(moved(second, dt / 2))
    fourth = velocity(moved(third, dt))
    mean = jax.tree.map(lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, first, second, third, fourth)
    return moved(mean, dt)


def trajectory(velocity: Callable[[PyTree], PyTree], start: PyTree, dt: float, steps: int) -> PyTree:
    """The states at times 0, dt, ..., steps dt: a tree like the state with a leading axis."""

    def advance(state, _):
        state = runge_kutta(velocity, state, dt)
        return state, state

    _, later = jax.lax.scan(advance, start, None, length=steps)
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, later)


def order_parameter(phases: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """Kuramoto's r = |mean of e^(i phi)|: 1 where all phases agree, of order 1/sqrt(n) where they are random."""
    return jnp.hypot(jnp.mean(jnp.cos(phases), axis=-1), jnp.mean(jnp.sin(phases), axis=-1))
