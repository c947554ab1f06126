"""Without a matrix: linear systems known by products, and Newton's method that solves them by Krylov iterations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import jax.scipy.sparse.linalg
from jaxtyping import Array, Float, Inexact, Int

from substrates.solvers.backtracking import backtrack
from substrates.solvers.meeting import row_sizes
from substrates.solvers.solver import left_over

Action = Callable[[Inexact[Array, " n"]], Inexact[Array, " n"]]

Kind = Literal["positive", "symmetric", "general"]
"""Of a matrix: a Hessian at a minimum; one at a saddle; any other, that of a complex state among them."""

RESTART = 50
"""Generalised minimal residuals keep so many vectors."""


def solve(
    action: Action,
    right: Inexact[Array, " n"],
    kind: Kind,
    *,
    part: float = 1e-3,
    rows: Float[Array, " n"] | None = None,
) -> Inexact[Array, " n"]:
    """x with A x = right up to `part` of its norm: by conjugate gradients where A is positive definite, by minimal
    residuals where it is symmetric, by generalised ones (GMRES) elsewhere.

    Args:
        action: a -> A a; complex-linear where `right` is complex.
        right: the right-hand side.
        kind: what is known of A. A complex symmetric matrix is `general`.
        part: what may be left over of `right`.
        rows: the sizes of the rows of a symmetric A, which is balanced by them.

    Sources: Hestenes and Stiefel 1952; Paige and Saunders 1975; Saad and Schultz 1986.
    """
    if kind == "positive":
        return jax.scipy.sparse.linalg.cg(action, right, tol=part, maxiter=10 * right.size)[0]
    if kind == "symmetric":
        balance = jnp.ones_like(right) if rows is None else 1 / jnp.sqrt(jnp.where(rows > 0, rows, 1.0))
        return balance * minimal_residual(lambda a: balance * action(balance * a), balance * right, part)
    # not lineax's GMRES: it weighs what is left over by each number of the right-hand side, of which many may be 0
    return jax.scipy.sparse.linalg.gmres(action, right, tol=part, restart=min(RESTART, right.size), maxiter=50)[0]


def minimal_residual(action: Action, right: Float[Array, " n"], part: float) -> Float[Array, " n"]:
    """x that minimises |A x - right| over growing Krylov spaces, A symmetric, definite or not; A is met once a step.

    Source: Paige and Saunders 1975, "Solution of sparse indefinite systems of linear equations".
    """
    size = jnp.linalg.norm(right)
    most = 10 * right.size
    over = lambda value, divisor: value / jnp.where(divisor > 0, divisor, 1.0)

    def running(carry):
        *_, left, step = carry
        return (step < most) & (jnp.abs(left) > part * size)

    def advance(carry):
        x, (before, vector), (w_before, w), beta, (c_before, c), (s_before, s), left, step = carry
        moved = action(vector) - beta * before
        alpha = jnp.sum(vector * moved)
        moved -= alpha * vector
        new_beta = jnp.linalg.norm(moved)
        # the next column of the tridiagonal matrix, through the last two rotations and then the one that it defines
        first, second, third = s_before * beta, s * alpha + c_before * c * beta, c * alpha - c_before * s * beta
        length = jnp.hypot(third, new_beta)
        new_c, new_s = over(third, length), over(new_beta, length)
        new_w = over(vector - first * w_before - second * w, length)
        x += new_c * left * new_w
        vectors, directions = (vector, over(moved, new_beta)), (w, new_w)
        return x, vectors, directions, new_beta, (c, new_c), (s, new_s), -new_s * left, step + 1

    zero, one, none = jnp.zeros_like(size), jnp.ones_like(size), jnp.zeros_like(right)
    first = (none, (none, over(right, size)), (none, none), zero, (one, one), (zero, zero), size, jnp.zeros((), int))
    return jax.lax.while_loop(running, advance, first)[0]


def newton_krylov(
    root: Action,
    scale: Callable[[Array], Float[Array, " n"]],
    start: Inexact[Array, " n"],
    limit: Float[Array, ""],
    max_steps: Int[Array, ""] | int,
    kind: Kind,
) -> tuple[Inexact[Array, " n"], Int[Array, ""]]:
    """Newton's method whose linear systems are solved by `solve`: (state, steps).

    Args:
        root, scale: of a state, the map and the forces that meet at each variable.
        kind: of the Jacobian; `positive` where it is the Hessian of a minimum.

    A step is halved until it lowers the norm of the root map, of which each variable counts by the forces that meet
    there; it stops where no fraction does.
    """
    dtype = jnp.finfo(start.dtype).dtype

    def running(carry):
        state, value, step, moving = carry
        return (step < max_steps) & moving & (left_over(value, scale(state)) > limit)

    def advance(carry):
        state, value, step, _ = carry
        meeting = scale(state)
        norm = lambda value: jnp.linalg.norm(jnp.abs(value) / jnp.where(meeting > 0, meeting, 1.0))
        product = jax.linearize(root, state)[1]
        rows = row_sizes(jax.vmap(product), jnp.ones(state.shape, dtype)) if kind == "symmetric" else None
        direction = -solve(product, value, kind, rows=rows)

        def trial(fraction):
            moved = state + fraction.astype(state.dtype) * direction
            return moved, root(moved)

        shrinks = lambda fraction, tried: norm(tried[1]) < (1 - 1e-4 * fraction) * norm(value)
        (moved, new_value), moving = backtrack(trial, lambda fraction, tried: ~shrinks(fraction, tried), dtype)
        return jnp.where(moving, moved, state), jnp.where(moving, new_value, value), step + 1, moving

    first = (start, root(start), jnp.zeros((), jnp.int32), jnp.asarray(True))
    state, _, steps, _ = jax.lax.while_loop(running, advance, first)
    return state, steps
