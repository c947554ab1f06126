"""The solver for any substrate: descend first, polish then, judge by the substrate's own residual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.sparse.linalg
import lineax as lx
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin
from substrates.solvers.precision import LBFGS, levenberg_marquardt
from substrates.solvers.solver import Equilibrium, Solver, judge, tolerance


class DescendThenPolish(Solver):
    """Settles any substrate: a descent of the energy, then Levenberg-Marquardt on its stationarity.

    Descent alone stops too early and Newton alone lands on saddles, so both, in this order. The descent is L-BFGS;
    projected spectral gradient where there are bounds; implicit Euler flow with growing steps where there is no
    energy. A pin is solved as a root of (force + (dread)' multiplier, read - target) from the free state. A complex
    state only polishes, from the free state, so that it stays on its branch.

    Attributes:
        max_steps: the most steps of each stage.
        dense_size: up to this many state variables the polish is Levenberg-Marquardt with a factorised Jacobian; above,
            Newton-Krylov without a matrix.
        absolute_tolerance, relative_tolerance: on the residual; None takes them from the dtype.

    Source for the flow: Kelley and Keyes 1998, "Convergence analysis of pseudo-transient continuation".
    """

    max_steps: int = 500
    dense_size: int = 512
    absolute_tolerance: float | None = None
    relative_tolerance: float | None = None

    def __call__(
        self, substrate: Any, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        limit = tolerance(substrate, start, x, nudge, self.absolute_tolerance, self.relative_tolerance)
        if isinstance(nudge, Pin):
            return _pinned(self, substrate, x, nudge, start, limit)
        flat, unravel = ravel_pytree(start)
        residual = lambda y: substrate.residual(unravel(y), x, nudge)
        steps = jnp.zeros((), jnp.int32)
        if not jnp.iscomplexobj(flat):
            settled = residual(flat) <= limit
            descended, steps = self._descend(substrate, x, nudge, flat, unravel, limit)
            flat = jnp.where(settled, flat, _better(residual, flat, descended))
            steps = jnp.where(settled, 0, steps)
        root = lambda y: ravel_pytree(substrate.stationarity(unravel(y), x, nudge))[0]
        symmetric = substrate.conservative and substrate.bounds(x) is None
        polished, polish_steps = polish(root, flat, limit, self.max_steps, self.dense_size, symmetric)
        flat = _better(residual, flat, polished)
        return judge(substrate, unravel(flat), x, nudge, steps + polish_steps, limit)

    def _descend(self, substrate, x, nudge, flat, unravel, limit):
        force = lambda y: ravel_pytree(substrate.total_force(unravel(y), x, nudge))[0]
        if not substrate.conservative:
            return implicit_flow(force, flat, limit, self.max_steps)
        energy = lambda y: substrate.total_energy(unravel(y), x, nudge)
        bounds = substrate.bounds(x)
        if bounds is not None:
            lower, upper = (ravel_pytree(side)[0].astype(flat.dtype) for side in bounds)
            return projected_gradient(energy, flat, lower, upper, limit, self.max_steps)
        coarse = float(jnp.finfo(flat.dtype).eps) ** 0.5
        found = optx.minimise(
            lambda y, _: energy(y),
            LBFGS(rtol=coarse, atol=coarse),
            flat,
            max_steps=self.max_steps,
            throw=False,
        )
        return found.value, jnp.asarray(found.stats["num_steps"], jnp.int32)


class Newton(Solver):
    """Goes to the root of the stationarity near the start, minimum or saddle: for actions, which are saddles.

    Attributes:
        max_steps: the most steps.
        dense_size: up to this many state variables its Jacobian is factorised; above, Newton-Krylov without a matrix.
        absolute_tolerance, relative_tolerance: on the residual; None takes them from the dtype.
    """

    max_steps: int = 500
    dense_size: int = 512
    absolute_tolerance: float | None = None
    relative_tolerance: float | None = None

    def __call__(
        self, substrate: Any, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        limit = tolerance(substrate, start, x, nudge, self.absolute_tolerance, self.relative_tolerance)
        if isinstance(nudge, Pin):
            return _pinned(self, substrate, x, nudge, start, limit)
        flat, unravel = ravel_pytree(start)
        root = lambda y: ravel_pytree(substrate.stationarity(unravel(y), x, nudge))[0]
        symmetric = substrate.conservative and substrate.bounds(x) is None
        flat, steps = polish(root, flat, limit, self.max_steps, self.dense_size, symmetric)
        return judge(substrate, unravel(flat), x, nudge, steps, limit)


def polish(
    root: Callable,
    flat: Inexact[Array, " n"],
    limit: Float[Array, ""],
    max_steps: int,
    dense_size: int,
    symmetric: bool,
):
    """The root of a map near a start, which may be complex: Levenberg-Marquardt, or `newton_krylov`; (root, steps)."""
    complex_valued = jnp.iscomplexobj(flat)
    size = flat.size * (2 if complex_valued else 1)
    split = lambda y: jnp.concatenate([y.real, y.imag]) if complex_valued else y
    join = lambda z: jax.lax.complex(z[: flat.size], z[flat.size :]) if complex_valued else z
    equations = lambda z: split(root(join(z)))

    def run(z):
        if size > dense_size:
            return newton_krylov(equations, z, limit, max_steps, symmetric)
        fine = float(jnp.finfo(z.dtype).eps)
        scale = jnp.max(jnp.abs(equations(z)))
        found = optx.least_squares(
            lambda z, _: equations(z) / scale,
            levenberg_marquardt(fine, fine**2, lx.QR()),
            z,
            max_steps=max_steps,
            throw=False,
        )
        return found.value, jnp.asarray(found.stats["num_steps"], jnp.int32)

    z = split(flat)
    settled = jnp.max(jnp.abs(equations(z))) <= limit
    found, steps = jax.lax.cond(settled, lambda z: (z, jnp.zeros((), jnp.int32)), run, z)
    return join(found), steps


def implicit_flow(force, flat: Float[Array, " n"], limit: Float[Array, ""], max_steps: int):
    """ds/dt = force(s) by implicit Euler steps (1/dt - J) ds = force, dt growing as the force falls; (state, steps).

    For systems without an energy: it follows the flow to a stable fixed point and ends as Newton's method.
    """

    def running(carry):
        _, _, size, step = carry
        return (step < max_steps) & (size > limit) & jnp.isfinite(size)

    def advance(carry):
        state, dt, size, step = carry
        jacobian = jax.jacfwd(force)(state)
        matrix = jnp.eye(state.size, dtype=state.dtype) / dt - jacobian
        moved = state + lx.linear_solve(lx.MatrixLinearOperator(matrix), force(state), lx.LU(), throw=False).value
        new_size = jnp.max(jnp.abs(force(moved)))
        growth = jnp.clip(size / new_size, 0.5, 10.0)
        return moved, dt * growth, new_size, step + 1

    first = (flat, jnp.ones((), flat.dtype), jnp.max(jnp.abs(force(flat))), jnp.zeros((), jnp.int32))
    state, _, _, steps = jax.lax.while_loop(running, advance, first)
    return state, steps


def newton_krylov(root, flat: Float[Array, " n"], limit: Float[Array, ""], max_steps: int, symmetric: bool):
    """Newton's method whose linear systems are solved without a matrix, by Krylov iterations; (state, steps).

    Conjugate gradients where the Jacobian is symmetric (a Hessian), GMRES elsewhere. A step is halved until it lowers
    the norm of the root map; it stops where no fraction does.
    """
    krylov = jax.scipy.sparse.linalg.cg if symmetric else jax.scipy.sparse.linalg.gmres
    norm = jnp.linalg.norm

    def running(carry):
        _, value, step, moving = carry
        return (step < max_steps) & moving & (jnp.max(jnp.abs(value)) > limit)

    def advance(carry):
        state, value, step, _ = carry
        action = lambda direction: jax.jvp(root, (state,), (direction,))[1]
        direction = -krylov(action, value, tol=1e-3, maxiter=10 * flat.size if symmetric else 50)[0]
        shorter = lambda fraction: root(state + fraction * direction)

        def too_long(trial):
            fraction, new_value = trial
            return ~(norm(new_value) < (1 - 1e-4 * fraction) * norm(value)) & (fraction > 1e-6)

        halve = lambda trial: (trial[0] / 2, shorter(trial[0] / 2))
        one = jnp.ones((), flat.dtype)
        fraction, new_value = jax.lax.while_loop(too_long, halve, (one, shorter(one)))
        moving = fraction > 1e-6
        moved = jnp.where(moving, state + fraction * direction, state)
        return moved, jnp.where(moving, new_value, value), step + 1, moving

    first = (flat, root(flat), jnp.zeros((), jnp.int32), jnp.asarray(True))
    state, _, steps, _ = jax.lax.while_loop(running, advance, first)
    return state, steps


def projected_gradient(energy, flat, lower, upper, limit, max_steps: int):
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

        def too_high(trial):
            fraction, new_value = trial
            return ~(new_value <= value + 1e-4 * fraction * descent) & (fraction > 1e-12)

        def halve(trial):
            fraction = trial[0] / 2
            return fraction, energy(y + fraction * direction)

        one = jnp.ones((), y.dtype)
        fraction, new_value = jax.lax.while_loop(too_high, halve, (one, energy(y + direction)))
        moving = fraction > 1e-12
        moved = jnp.where(moving, y + fraction * direction, y)
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


def _pinned(solver, substrate, x, nudge, start, limit):
    free = solver(substrate, x, None, start, None)
    flat, unravel = ravel_pytree(free.state)
    output = substrate.read(free.state, x)

    def root(unknowns):
        state, multiplier = unravel(unknowns[: flat.size]), unknowns[flat.size :]
        shown, transpose = jax.vjp(lambda s: substrate.read(s, x), state)
        balance = jax.tree.map(jnp.add, substrate.total_force(state, x), transpose(multiplier)[0])
        return jnp.concatenate([ravel_pytree(balance)[0], shown - nudge.target])

    unknowns = jnp.concatenate([flat, jnp.zeros_like(output)])
    found, steps = polish(root, unknowns, limit, solver.max_steps, solver.dense_size, False)
    return judge(substrate, unravel(found[: flat.size]), x, nudge, free.steps + steps, limit)
