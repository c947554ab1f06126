"""How equilibria answer to small changes of what they depend on: the implicit function theorem around every solver."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Inexact, PRNGKeyArray, PyTree

from substrates import explained
from substrates.nudge import Nudge, Pin
from substrates.solvers.batching import if_any, in_turn
from substrates.solvers.krylov import solve
from substrates.solvers.meeting import or_largest, row_sizes
from substrates.solvers.solver import Equilibrium, Solver, System, default_tolerance

MOST_DENSE = 512
"""Up to so many state variables the Jacobian is factorised."""

RANK = 100
"""Pivots below so many rounding errors per variable are none."""

NO_ANSWER = (
    "relax: the equilibrium does not move smoothly with what was differentiated: it did not converge, or the Jacobian "
    "of its stationarity is singular along the change. Look at its status; a state that is tied, indifferent or at a "
    f"corner has no derivative; see {explained.NO_DERIVATIVE}"
)

Field = Callable[[Inexact[Array, " n"]], Inexact[Array, " m"]]
Solution = tuple[Inexact[Array, " n"], Bool[Array, ""]]


class Response(NamedTuple):
    """Solutions of linear systems with the Jacobian J of a stationarity at its root, each with whether there is one.

    Directions along which nothing changes (a gauge, a norm) get the solution of least norm.

    Attributes:
        solve: b -> s with J s = b.
        transposed: b -> s with J' s = b.
    """

    solve: Callable[[Array], Solution]
    transposed: Callable[[Array], Solution]


def response(root: Field, state: Inexact[Array, " n"], symmetric: bool) -> Response:
    """How a root answers: by factors of J up to `MOST_DENSE` variables, by Krylov iterations above.

    Args:
        root: the stationarity, with as many components as the state has.
        state: its root.
        symmetric: whether J is.
    """
    forward = jax.linearize(root, state)[1]
    if state.size <= MOST_DENSE:
        matrix = jax.vmap(forward, out_axes=1)(jnp.eye(state.size, dtype=state.dtype))
        return Response(lambda b: _by_factors(matrix, b), lambda b: _by_factors(matrix.T, b))
    backward = lambda b: jax.linear_transpose(forward, state)(b)[0]
    kind = "symmetric" if symmetric and not jnp.iscomplexobj(state) else "general"
    real = jnp.finfo(state.dtype).dtype
    rows = row_sizes(jax.vmap(forward), jnp.ones(state.shape, real)) if kind == "symmetric" else None
    krylov = lambda action: lambda b: solve(action, b, kind, part=default_tolerance(state.dtype), rows=rows)
    return Response(_looked_at(krylov(forward), forward), _looked_at(krylov(backward), backward))


def _looked_at(solved: Callable[[Array], Array], action: Callable[[Array], Array]) -> Callable[[Array], Solution]:
    def look(right: Array) -> Solution:
        found = solved(right)
        return found, _solves(action(found), right)

    return look


def _solves(product: Array, right: Array) -> Bool[Array, ""]:
    size = lambda v: jnp.max(jnp.abs(v), initial=0.0)
    return size(product - right) <= float(jnp.finfo(right.dtype).eps) ** 0.5 * size(right)


def _balance(matrix: Inexact[Array, "m n"]) -> tuple[Float[Array, " m"], Float[Array, " n"]]:
    """What rows and columns are divided by, so that the largest entries of all are 1."""
    row = or_largest(jnp.max(jnp.abs(matrix), axis=1, initial=0.0))
    return row, or_largest(jnp.max(jnp.abs(matrix) / row[:, None], axis=0, initial=0.0))


def _by_factors(matrix: Inexact[Array, "n n"], right: Inexact[Array, " n"]) -> Solution:
    """s with A s = b by LU factors of A, rows and columns balanced; of least norm where A is singular."""
    row, column = _balance(matrix)
    balanced, wanted = matrix / row[:, None] / column[None], right / row
    factors, pivots = in_turn(lambda a: jax.scipy.linalg.lu_factor(a))(balanced)
    found = jax.scipy.linalg.lu_solve((factors, pivots), wanted)
    size = jnp.abs(jnp.diagonal(factors))
    none = RANK * matrix.shape[0] * float(jnp.finfo(matrix.dtype).eps) * jnp.max(size, initial=0.0)
    singular = ~(jnp.min(size, initial=jnp.inf) > none) | ~jnp.all(jnp.isfinite(found))
    least = lambda _, a, b: jnp.linalg.lstsq(a, b)[0]
    found = if_any(singular, least, found, balanced, wanted) / column
    return found, _solves(matrix @ found, right)


@eqx.filter_custom_jvp
def equilibrium(
    solver: Solver,
    system: System,
    x: PyTree,
    nudge: Nudge | Pin | None,
    start: PyTree,
    key: PRNGKeyArray | None,
) -> Equilibrium:
    """What a solver finds, differentiable in the system, its input and its nudge.

    With G(s; theta) = `stationarity` = 0 at the equilibrium, ds = -J^-1 (dG/dtheta) dtheta, J = dG/ds. It follows the
    branch of the start, which itself changes nothing. Forward and reverse; residual, steps and status have no
    derivative.

    Raises, when it is differentiated, TypeError for discrete states, and an error of run time where the state is no
    root, or does not move smoothly.
    """
    return solver(system, x, nudge, start, key)


@equilibrium.def_jvp
def _(primals: Any, tangents: Any) -> tuple[Equilibrium, Any]:
    _, system, x, nudge, *_ = primals
    _, *changes, _, _ = tangents
    found = equilibrium(*primals)
    none = jax.tree.map(lambda _: None, found)
    if not any(leaf is not None for leaf in jax.tree.leaves(tuple(changes))):
        return found, none
    state, unravel = ravel_pytree(found.state)
    if getattr(system, "discrete", False) or not jnp.issubdtype(state.dtype, jnp.inexact):
        raise TypeError(
            f"relax: states of {type(system).__name__} are discrete, and jump where they change at all: they have no "
            "derivative. Train by a rule that contrasts phases, or differentiate energy(state, x) at a given state; "
            f"see {explained.NO_DERIVATIVE}"
        )
    given = (system, x, nudge)
    balance = lambda given, state: ravel_pytree(given[0].stationarity(unravel(state), *given[1:]))[0]
    pushed = eqx.filter_jvp(lambda *given: balance(given, state), given, tuple(changes))[1]
    symmetric = system.reciprocal(x)
    # JAX stumbles over right-hand sides that do not change at all: these change by zero where the state does
    one = 1 + 0 * jnp.sum(state)
    free = lambda state: ravel_pytree(system.stationarity(unravel(state), x))[0]
    root = lambda state: balance(given, state)
    moved = -one * _answer(root, free, state, found.residual, one * pushed, symmetric)
    energy = None
    if found.energy is not None:
        total = lambda state, system, x, nudge: system.total_energy(state, x, nudge)
        change = eqx.filter_jvp(total, (found.state, *given), (unravel(moved), *changes))[1]
        energy = change.astype(found.energy.dtype)
    return found, dataclasses.replace(none, state=unravel(moved), energy=energy)


def _answer(
    root: Field,
    free: Field,
    state: Inexact[Array, " n"],
    residual: Float[Array, ""],
    pushed: Inexact[Array, " m"],
    symmetric: bool,
) -> Inexact[Array, " n"]:
    """J^-1 of what pushes at a root, linear in it, forward and reverse; `free` is the root without a pin."""
    settled = residual <= float(jnp.finfo(state.dtype).eps) ** 0.5
    sure = lambda solution: eqx.error_if(solution[0], ~(settled & solution[1]), NO_ANSWER)
    if pushed.size == state.size:
        return jax.lax.custom_linear_solve(
            lambda s: jax.jvp(root, (state,), (s,))[1],
            pushed,
            lambda _, b: sure(response(root, state, symmetric).solve(b)),
            lambda _, b: sure(response(root, state, symmetric).transposed(b)),
        )
    # under a pin there are more equations than variables: those of least squares, each a part of what meets there
    row = jax.lax.stop_gradient(_sizes_under_pin(free, root, state))
    balanced = lambda z: jax.jvp(root, (state,), (z,))[1] / row
    across = jax.linear_transpose(balanced, state)
    normal = lambda z: across(balanced(z))[0]
    if state.size <= MOST_DENSE:
        matrix = jax.vmap(jax.linearize(balanced, state)[1], out_axes=1)(jnp.eye(state.size, dtype=state.dtype))
        twice = lambda b: jnp.linalg.lstsq(matrix, jnp.linalg.lstsq(matrix.T, b)[0])[0]
        looked = _looked_at(twice, lambda z: matrix.T @ (matrix @ z))
    else:
        looked = _looked_at(lambda b: solve(normal, b, "positive", part=default_tolerance(state.dtype)), normal)
    once = lambda _, right: sure(looked(right))
    return jax.lax.custom_linear_solve(normal, across(pushed / row)[0], once, symmetric=True)


def _sizes_under_pin(free: Field, root: Field, state: Inexact[Array, " n"]) -> Float[Array, " m"]:
    """How large the rows of J are at each variable before a pin takes some of it away, and those of the outputs."""
    ones = jnp.ones(state.shape, jnp.finfo(state.dtype).dtype)
    along = lambda field: or_largest(row_sizes(jax.vmap(jax.linearize(field, state)[1]), ones, state.dtype))
    return jnp.concatenate([along(free), along(lambda s: root(s)[state.size :])])
