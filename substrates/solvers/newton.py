"""Newton's method with a factorised Jacobian: to the bottom of a valley, or to the nearest root."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int

from substrates.solvers.backtracking import backtrack
from substrates.solvers.certificate import Balanced, Certificate, state_tolerance
from substrates.solvers.solver import left_over, reach


class Valley(eqx.Module):
    """An energy over real variables, some of them within bounds, as Newton's method sees it.

    Attributes:
        energy, force: of a state; the force is minus the gradient.
        scale: of a state, the forces that meet at each variable.
        lower, upper: None, or the bounds.
        read: what outputs show of a state.
        size: how large the variables are.
        longest: the longest step, in sizes of the variables.
    """

    energy: Callable
    force: Callable
    scale: Callable
    read: Callable
    lower: Float[Array, " n"] | None
    upper: Float[Array, " n"] | None
    size: Float[Array, " n"]
    longest: float = float("inf")

    def projected(self, state: Float[Array, " n"]) -> Float[Array, " n"]:
        """The nearest state within the bounds."""
        return state if self.lower is None else jnp.clip(state, self.lower, self.upper)

    def unbalanced(self, state: Any, force: Any, stiffness: Any) -> Float[Array, " n"]:
        """The force that is left over where a bound does not take it up, and of a variable beyond or short of a bound
        that it is pushed against the force that would bring it there.
        """
        if self.lower is None or self.upper is None:
            return force
        return jnp.clip(force, reach(stiffness, self.lower, state), reach(stiffness, self.upper, state))


class _Point(eqx.Module):
    state: Float[Array, " n"]
    energy: Float[Array, ""]
    force: Float[Array, " n"]
    left: Float[Array, ""]
    stiffness: Balanced

    def unsettled(self, limit: Float[Array, ""], size: Float[Array, " n"]) -> Bool[Array, ""]:
        """Whether forces are left over, or a step leads to another state although they balance."""
        off = jnp.max(jnp.abs(self.stiffness.solve(self.force)) / size, initial=0.0)
        return (self.left > limit) | (off > state_tolerance(size.dtype) / 4)


def descend_by_newton(
    valley: Valley, start: Float[Array, " n"], limit: Float[Array, ""], max_steps: Int[Array, ""] | int
) -> tuple[Float[Array, " n"], Int[Array, ""], Certificate]:
    """The bottom of the valley of a start: (state, steps, certificate).

    Steps solve |H| d = force, where |H| has the magnitudes of the Hessian's eigenvalues, so that they lead downhill
    from anywhere and away from saddles (Dauphin et al. 2014, arXiv 1406.2572); variables that a bound holds are left
    out. A step is halved until the energy falls, or the force or the next step shrinks to a half. Where forces balance
    at a saddle it goes on along the softest mode.
    """
    epsilon = float(jnp.finfo(start.dtype).eps)

    def at(state) -> _Point:
        force = valley.force(state)
        hessian = -jax.jacfwd(valley.force)(state)
        rows = jnp.sum(jnp.abs(hessian), axis=1)
        left = valley.unbalanced(state, force, rows)
        if valley.lower is not None:
            held = left != force
            hessian = jnp.where(held[:, None] | held, jnp.diag(rows), hessian)
        scale = valley.scale(state)
        return _Point(state, valley.energy(state), left, left_over(left, scale), Balanced.of(hessian, scale))

    def running(carry):
        point, step, moving = carry
        return moving & (step < max_steps) & (point.unsettled(limit, valley.size) | point.stiffness.unstable)

    def advance(carry):
        point, step, _ = carry
        settled = ~point.unsettled(limit, valley.size)
        d = jnp.where(settled, point.stiffness.softest(point.force, valley.size), point.stiffness.downhill(point.force))
        d /= jnp.maximum(1.0, jnp.max(jnp.abs(d) / valley.size, initial=0.0) / valley.longest)
        slope = jnp.where(settled, 0.0, jnp.sum(d * point.force))
        scale = point.stiffness.scale
        rounding = 16 * epsilon * (jnp.abs(point.energy) + jnp.sum(scale * jnp.abs(point.state)))
        off = lambda left: jnp.max(jnp.abs(point.stiffness.solve(left)) / valley.size, initial=0.0)

        def trial(fraction):
            state = valley.projected(point.state + fraction * d)
            return state, valley.energy(state), valley.force(state)

        def refused(fraction, tried):
            state, energy, force = tried
            fell = (energy < point.energy) & (energy <= point.energy - 1e-4 * fraction * slope)
            left = valley.unbalanced(state, force, point.stiffness.rows)
            calmed = (left_over(left, scale) <= 0.5 * point.left) | (off(left) <= 0.5 * off(point.force))
            calmed &= (energy <= point.energy + rounding) & ~settled
            return ~(fell | calmed)

        (state, *_), moving = backtrack(trial, refused, start.dtype)
        return at(jnp.where(moving, state, point.state)), step + 1, moving

    first = (at(valley.projected(start)), jnp.zeros((), jnp.int32), jnp.asarray(True))
    point, steps, _ = jax.lax.while_loop(running, advance, first)
    return (
        point.state,
        steps,
        point.stiffness.certificate(point.force, valley.size, jax.jacrev(valley.read)(point.state)),
    )


def root_by_newton(
    root: Callable,
    scale: Callable,
    read: Callable,
    size: Float[Array, " n"],
    start: Inexact[Array, " n"],
    limit: Float[Array, ""],
    max_steps: Int[Array, ""] | int,
) -> tuple[Inexact[Array, " n"], Int[Array, ""], Certificate]:
    """The root of a map near a start, which may be complex: (state, steps, certificate).

    Args:
        root, scale, read: of a state, the map, the forces that meet at each variable, and what outputs show.
        size: how large the variables are.

    A step is halved until the step that would follow with the same Jacobian shrinks, which no scaling of the equations
    changes (Deuflhard 2004, "Newton Methods for Nonlinear Problems"); it stops where no fraction does that.
    """

    def at(state):
        value, measured = root(state), scale(state)
        jacobian = jax.jacfwd(root, holomorphic=jnp.iscomplexobj(state))(state)
        return state, value, left_over(value, measured), Balanced.of(jacobian, measured, symmetric=False)

    off = lambda stiffness, value: jnp.max(jnp.abs(stiffness.solve(value)) / size, initial=0.0)

    def running(carry):
        (_, value, left, stiffness), step, moving = carry
        away = off(stiffness, value) > state_tolerance(size.dtype) / 4
        return moving & (step < max_steps) & ((left > limit) | away)

    def advance(carry):
        (state, value, _, stiffness), step, _ = carry
        d = -stiffness.solve(value)

        def refused(fraction, moved):
            return ~(off(stiffness, root(moved)) < (1 - 0.25 * fraction) * off(stiffness, value))

        moved, moving = backtrack(lambda fraction: state + fraction.astype(d.dtype) * d, refused, size.dtype)
        return at(jnp.where(moving, moved, state)), step + 1, moving

    first = (at(start), jnp.zeros((), jnp.int32), jnp.asarray(True))
    (state, value, _, stiffness), steps, _ = jax.lax.while_loop(running, advance, first)
    slopes = jax.jacrev(read, holomorphic=jnp.iscomplexobj(state))(state)
    return state, steps, stiffness.certificate(value, size, slopes)
