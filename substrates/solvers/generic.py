"""The solver for any substrate: descend first, polish then, judge by the substrate's own residual."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from substrates.nudge import HeldBySprings, Nudge, Pin
from substrates.solvers.backtracking import backtrack
from substrates.solvers.krylov import Kind, newton_krylov, solve
from substrates.solvers.meeting import row_sizes
from substrates.solvers.newton import Valley, descend_by_newton, root_by_newton
from substrates.solvers.precision import LBFGS, AtMost
from substrates.solvers.solver import (
    ROUNDINGS,
    Equilibrium,
    Solver,
    System,
    cast_like,
    judge,
    left_over,
    max_norm,
    reach,
    tolerance,
)

MOST_ROUNDS = 50
"""So many rounds may springs take to bring outputs to a pin."""


class DescendThenPolish(Solver):
    """Settles any substrate: a descent of the energy, then Newton's method on what it leaves.

    Descent alone stops too early and Newton alone may be far from the basin of the start, so both, in this order. The
    descent is L-BFGS; projected spectral gradient where there are bounds; implicit Euler flow with growing steps where
    there is no energy. It works in units of its own: displacements as large as the state or as a first Newton step,
    forces as large as these displacements make them. Newton's method then goes to the bottom of the valley, leaves
    saddles along their softest mode, and certifies the state: what rounding moves by more than its tolerance is
    `ill_conditioned`, what some motion leaves undecided `zero_mode`.

    A pin is solved as a root of (force + (dread)' multiplier, read - target) from the free state, with bounds as the
    complementarity of what is left over and the distance from them. A complex state only
    polishes, from the free state, so that it stays on its branch.

    Attributes:
        max_steps: the most steps of each stage.
        budget: None, or the most steps of all stages together.
        dense_size: up to this many state variables Newton's method decomposes the Jacobian; above, it is Newton-Krylov
            without a matrix, and the state is judged by its forces alone.
        absolute_tolerance, relative_tolerance: see `tolerance`.

    Source for the flow: Kelley and Keyes 1998, "Convergence analysis of pseudo-transient continuation".
    """

    max_steps: int = 500
    budget: Int[Array, ""] | None = None
    dense_size: int = 512
    absolute_tolerance: float | None = None
    relative_tolerance: float | None = None

    def stopped_after(self, count: Int[Array, ""]) -> Self:
        return dataclasses.replace(self, budget=count)

    def left(self, steps: Int[Array, ""] | int) -> Int[Array, ""] | int:
        """How many steps the next stage may take where so many were taken."""
        return self.max_steps if self.budget is None else jnp.clip(self.budget - steps, 0, self.max_steps)

    def __call__(
        self, substrate: System, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        limit = tolerance(substrate, start, x, nudge, self.absolute_tolerance, self.relative_tolerance)
        if isinstance(nudge, Pin):
            return _pinned(self, substrate, x, nudge, start, limit, self.left)
        flat, unravel = ravel_pytree(start)
        if jnp.iscomplexobj(flat):
            return _rooted(self, substrate, x, nudge, start, limit, self.left(0))
        residual = lambda y: substrate.residual(unravel(y), x, nudge)
        settled = residual(flat) <= limit
        descended, steps = self._descend(substrate, x, nudge, flat, unravel, limit)
        flat = jnp.where(settled, flat, descended if self.budget is not None else _better(residual, flat, descended))
        steps = jnp.where(settled, 0, steps)
        if not substrate.conservative:
            found = _rooted(self, substrate, x, nudge, unravel(flat), limit, self.left(steps))
            return eqx.tree_at(lambda e: e.steps, found, found.steps + steps)
        bounds = substrate.bounds(x)
        if flat.size > self.dense_size:
            root = lambda y: ravel_pytree(substrate.stationarity(unravel(y), x, nudge))[0]
            scale = lambda y: ravel_pytree(substrate.force_scale(unravel(y), x))[0]
            kind: Kind = "positive" if bounds is None else "general"
            polished, polish_steps = newton_krylov(root, scale, flat, limit, self.left(steps), kind)
            flat = _better(residual, flat, polished)
            return judge(substrate, unravel(flat), x, nudge, steps + polish_steps, limit)
        lower, upper = (None, None) if bounds is None else (_flat_like(side, start) for side in bounds)
        valley = Valley(
            lambda y: substrate.total_energy(unravel(y), x, nudge),
            lambda y: ravel_pytree(substrate.total_force(unravel(y), x, nudge))[0],
            lambda y: ravel_pytree(substrate.force_scale(unravel(y), x))[0],
            lambda y: substrate.read(unravel(y), x),
            lower,
            upper,
            _size(substrate, x, unravel(flat)),
        )
        flat, polish_steps, certificate = descend_by_newton(valley, flat, limit, self.left(steps))
        found = judge(substrate, unravel(flat), x, nudge, steps + polish_steps, limit)
        return certificate.judged(found)

    def _descend(self, substrate, x, nudge, flat, unravel, limit):
        force = lambda y: ravel_pytree(substrate.total_force(unravel(y), x, nudge))[0]
        size = _size(substrate, x, unravel(flat))
        stiffness = jnp.max(row_sizes(force, flat, jnp.ones_like(flat)), initial=0.0)
        pull = jnp.max(jnp.abs(force(flat)), initial=0.0)
        largest = jnp.max(size, initial=0.0)
        stiffness = jnp.where(stiffness > 0, stiffness, jnp.where(pull > 0, pull / largest, 1.0))
        if not substrate.conservative:
            scale = lambda y: ravel_pytree(substrate.force_scale(unravel(y), x))[0]
            return implicit_flow(force, scale, flat, 1 / stiffness, limit, self.left(0), self.dense_size)
        unit = jnp.maximum(largest, pull / stiffness)
        # in units of its own: displacements from the start, and energies
        origin = substrate.total_energy(unravel(flat), x, nudge)
        place = lambda z: flat + unit * z
        energy = lambda z: (substrate.total_energy(unravel(place(z)), x, nudge) - origin) / (stiffness * unit) / unit
        bounds = substrate.bounds(x)
        z = jnp.zeros_like(flat)
        if bounds is not None:
            lower, upper = ((_flat_like(side, unravel(flat)) - flat) / unit for side in bounds)
            found, steps = projected_gradient(energy, z, lower, upper, limit, self.left(0))
            return place(found), steps
        coarse = float(jnp.finfo(flat.dtype).eps) ** 0.5
        method = LBFGS(rtol=coarse, atol=coarse)
        method = method if self.budget is None else AtMost(inner=method, most=self.budget, rtol=coarse, atol=coarse)
        found = optx.minimise(lambda z, _: energy(z), method, z, max_steps=self.max_steps, throw=False)
        return place(found.value), jnp.asarray(found.stats["num_steps"], jnp.int32)


class Newton(Solver):
    """Goes to the root of the stationarity near the start, minimum or saddle: for actions, which are saddles.

    Attributes:
        max_steps: the most steps.
        dense_size: up to this many state variables its Jacobian is decomposed; above, Newton-Krylov without a matrix.
        absolute_tolerance, relative_tolerance: see `tolerance`.
    """

    max_steps: int = 500
    dense_size: int = 512
    absolute_tolerance: float | None = None
    relative_tolerance: float | None = None

    def __call__(
        self, substrate: System, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        limit = tolerance(substrate, start, x, nudge, self.absolute_tolerance, self.relative_tolerance)
        if isinstance(nudge, Pin):
            return _pinned(self, substrate, x, nudge, start, limit, lambda _: self.max_steps)
        return _rooted(self, substrate, x, nudge, start, limit, self.max_steps)


def _size(substrate: System, x: PyTree, state: PyTree) -> Float[Array, " n"]:
    """How large the variables are, now or at the initial state: the largest of each leaf."""

    def size(leaf, first):
        largest = jnp.maximum(jnp.max(jnp.abs(leaf), initial=0.0), jnp.max(jnp.abs(first), initial=0.0))
        return jnp.broadcast_to(jnp.where(largest > 0, largest, 1.0), leaf.shape)

    return ravel_pytree(jax.tree.map(size, state, cast_like(substrate.initial_state(x), state)))[0]


def _flat_like(side: PyTree, state: PyTree) -> Float[Array, " n"]:
    return ravel_pytree(cast_like(side, state))[0]


def _rooted(
    solver: DescendThenPolish | Newton,
    substrate: System,
    x: PyTree,
    nudge: Nudge | Pin | None,
    start: PyTree,
    limit: Float[Array, ""],
    max_steps: Int[Array, ""] | int,
) -> Equilibrium:
    """The root of the stationarity near the start, judged."""
    flat, unravel = ravel_pytree(start)
    root = lambda y: ravel_pytree(substrate.stationarity(unravel(y), x, nudge))[0]
    scale = lambda y: ravel_pytree(substrate.force_scale(unravel(y), x))[0]
    if flat.size > solver.dense_size:
        symmetric = substrate.conservative and substrate.bounds(x) is None and not jnp.iscomplexobj(flat)
        kind: Kind = "symmetric" if symmetric else "general"
        flat, steps = newton_krylov(root, scale, flat, limit, max_steps, kind)
        return judge(substrate, unravel(flat), x, nudge, steps, limit)
    read, size = lambda y: substrate.read(unravel(y), x), _size(substrate, x, start)
    flat, steps, certificate = root_by_newton(root, scale, read, size, flat, limit, max_steps)
    return certificate.judged(judge(substrate, unravel(flat), x, nudge, steps, limit))


def implicit_flow(
    force: Callable,
    scale: Callable,
    flat: Float[Array, " n"],
    dt: Float[Array, ""],
    limit: Float[Array, ""],
    max_steps: Int[Array, ""] | int,
    dense_size: int,
):
    """ds/dt = force(s) by implicit Euler steps (1/dt - J) ds = force, dt growing as the force falls; (state, steps).

    For systems without an energy: it follows the flow to a stable fixed point and ends as Newton's method.
    """
    measure = lambda y, value: left_over(value, scale(y))

    def running(carry):
        _, _, size, step = carry
        return (step < max_steps) & (size > limit) & jnp.isfinite(size)

    def advance(carry):
        state, dt, size, step = carry
        if state.size > dense_size:
            product = jax.linearize(force, state)[1]
            moved = state + solve(lambda d: d / dt - product(d), force(state), "general")
        else:
            matrix = jnp.eye(state.size, dtype=state.dtype) / dt - jax.jacfwd(force)(state)
            moved = state + lx.linear_solve(lx.MatrixLinearOperator(matrix), force(state), lx.LU(), throw=False).value
        new_size = measure(moved, force(moved))
        growth = jnp.clip(2 * size / new_size, 0.5, 10.0)
        return moved, dt * growth, new_size, step + 1

    first = (flat, dt.astype(flat.dtype), measure(flat, force(flat)), jnp.zeros((), jnp.int32))
    state, _, _, steps = jax.lax.while_loop(running, advance, first)
    return state, steps


def projected_gradient(energy, flat, lower, upper, limit, max_steps: Int[Array, ""] | int):
    """Minimises an energy within bounds by projected gradients with Barzilai-Borwein steps; (state, steps).

    Monotone: a step is halved until it gives sufficient decrease.
    Source: Birgin, Martinez and Raydan 2000, "Nonmonotone spectral projected gradient methods".
    """
    gradient = jax.grad(energy)
    project = lambda y: jnp.clip(y, lower, upper)

    def running(carry):
        y, slope, _, _, step, moving = carry
        return (step < max_steps) & moving & (jnp.max(jnp.abs(y - project(y - slope))) > limit)

    def advance(carry):
        y, slope, value, rate, step, _ = carry
        direction = project(y - rate * slope) - y
        descent = jnp.sum(direction * slope)

        def trial(fraction):
            moved = y + fraction * direction
            return moved, energy(moved)

        def too_high(fraction, tried):
            return ~(tried[1] <= value + 1e-4 * fraction * descent)

        (moved, new_value), moving = backtrack(trial, too_high, y.dtype, 1e-12)
        moved, new_value = jnp.where(moving, moved, y), jnp.where(moving, new_value, value)
        new_slope = gradient(moved)
        change, slope_change = moved - y, new_slope - slope
        curvature = jnp.sum(change * slope_change)
        new_rate = jnp.where(curvature > 0, jnp.sum(change**2) / jnp.where(curvature > 0, curvature, 1.0), 2 * rate)
        return moved, new_slope, new_value, jnp.clip(new_rate, 1e-10, 1e10), step + 1, moving

    y = project(flat)
    slope = gradient(y)
    rate = 1.0 / jnp.maximum(jnp.max(jnp.abs(slope)), jnp.finfo(y.dtype).tiny)
    first = (y, slope, energy(y), jnp.minimum(rate, 1.0), jnp.zeros((), jnp.int32), jnp.asarray(True))
    found = jax.lax.while_loop(running, advance, first)
    return found[0], found[4]


def _better(residual, first: Float[Array, " n"], second: Float[Array, " n"]) -> Float[Array, " n"]:
    old, new = residual(first), residual(second)
    return jnp.where(jnp.isfinite(new) & ~(new > old), second, first)


def _held_by_springs(
    solver: DescendThenPolish | Newton, substrate: System, x: PyTree, pin: Pin, free: PyTree
) -> Float[Array, " unknowns"]:
    """The state within its bounds that springs hold at a pin, and their forces: where Newton's method knows which
    bounds hold.
    """
    output, transpose = jax.vjp(lambda s: substrate.read(s, x), free)
    slopes = jax.vmap(lambda e: jnp.sum(ravel_pytree(transpose(e)[0])[0] ** 2))(
        jnp.eye(output.size, dtype=output.dtype)
    )
    strength = 10 * max_norm(substrate.bound_stiffness(free, x)) / jnp.where(slopes > 0, slopes, 1.0)
    size = jnp.max(jnp.abs(output)) + jnp.max(jnp.abs(pin.target))
    close = float(jnp.finfo(output.dtype).eps) ** 0.5 * size

    def going(carry):
        *_, gap, round_ = carry
        return (gap > close) & (round_ < MOST_ROUNDS)

    def advance(carry):
        state, multiplier, _, round_ = carry
        springs = HeldBySprings(pin.target, multiplier, strength)
        nudge = Nudge(lambda output, _: springs.energy(output), pin.target, jnp.ones_like(close))
        state = solver(substrate, x, nudge, state, None).state
        apart = substrate.read(state, x) - pin.target
        return state, multiplier + strength * apart, jnp.max(jnp.abs(apart)), round_ + 1

    first = (free, jnp.zeros_like(output), jnp.full_like(close, jnp.inf), jnp.zeros((), jnp.int32))
    state, multiplier, *_ = jax.lax.while_loop(going, advance, first)
    return jnp.concatenate([ravel_pytree(state)[0], -multiplier])


def _pinned(
    solver: DescendThenPolish | Newton,
    substrate: System,
    x: PyTree,
    nudge: Pin,
    start: PyTree,
    limit: Float[Array, ""],
    left: Callable[[Int[Array, ""]], Int[Array, ""] | int],
) -> Equilibrium:
    """The pinned state, judged; `left` tells how many steps may follow those of the free phase."""
    free = solver(substrate, x, None, start, None)
    flat, unravel = ravel_pytree(free.state)
    output = substrate.read(free.state, x)
    bounds = substrate.bounds(x)
    bounds = None if bounds is None else tuple(_flat_like(side, free.state) for side in bounds)

    def root(unknowns):
        state, multiplier = unravel(unknowns[: flat.size]), unknowns[flat.size :]
        shown, transpose = jax.vjp(lambda s: substrate.read(s, x), state)
        balance = ravel_pytree(jax.tree.map(jnp.add, substrate.total_force(state, x), transpose(multiplier)[0]))[0]
        if bounds is not None:
            stiffness = ravel_pytree(substrate.bound_stiffness(state, x))[0]
            at = unknowns[: flat.size]
            balance = jnp.clip(balance, reach(stiffness, bounds[0], at), reach(stiffness, bounds[1], at))
        return jnp.concatenate([balance, shown - nudge.target])

    def within(unknowns):
        found = unknowns[: flat.size]
        if bounds is None:
            return unravel(found)
        near = ROUNDINGS * float(jnp.finfo(found.dtype).eps) * _size(substrate, x, free.state)
        found = jnp.where(found - bounds[0] <= near, bounds[0], found)
        return unravel(jnp.where(bounds[1] - found <= near, bounds[1], found))

    def scale(unknowns):
        return ravel_pytree(substrate.meeting(unravel(unknowns[: flat.size]), x, nudge))[0]

    unknowns = jnp.concatenate([flat, jnp.zeros_like(output)])
    if bounds is not None:
        unknowns = _held_by_springs(solver, substrate, x, nudge, free.state)
    if unknowns.size > solver.dense_size:
        symmetric = substrate.conservative and bounds is None and not jnp.iscomplexobj(flat)
        kind: Kind = "symmetric" if symmetric else "general"
        found, steps = newton_krylov(root, scale, unknowns, limit, left(free.steps), kind)
        return judge(substrate, within(found), x, nudge, free.steps + steps, limit)
    size = jnp.concatenate([_size(substrate, x, free.state), jnp.full(output.shape, jnp.inf, flat.dtype)])
    read = lambda unknowns: substrate.read(unravel(unknowns[: flat.size]), x)
    found, steps, certificate = root_by_newton(root, scale, read, size, unknowns, limit, left(free.steps))
    return certificate.judged(judge(substrate, within(found), x, nudge, free.steps + steps, limit))
