"""Whether the flow ds/dt = force stays at a fixed point, and how symmetric its Jacobian is."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from substrates.solvers.batching import if_any, in_turn
from substrates.solvers.meeting import or_largest, slopes

Field = Callable[[Float[Array, " n"]], Float[Array, " n"]]

MOST_SPECTRAL = 512
"""Up to so many variables the spectrum of a Jacobian is computed."""

LANCZOS = 16
"""So many steps towards the largest eigenvalue of the symmetric part of a Jacobian."""

WATCHED = 200
"""So many steps is the flow watched near a fixed point of more variables, each half the time of the fastest motion."""


def spectral_abscissa(field: Field, state: Float[Array, " n"]) -> Float[Array, ""]:
    """The largest real part of the eigenvalues of J = df/ds: negative where the flow comes back to a fixed point.

    Above `MOST_SPECTRAL` variables it is the rate at which a small push in a random direction grows or fades in the
    end, over `WATCHED` steps of the linearised flow.
    """
    if state.size <= MOST_SPECTRAL:
        return jnp.max(jnp.real(in_turn(jnp.linalg.eigvals)(slopes(field, state)[1])))
    return _watched_rate(field, state)


def contracts(field: Field, state: Float[Array, " n"], stiffness: Float[Array, " n"]) -> Bool[Array, ""]:
    """Whether the symmetric part of J is seen to be negative definite, so that every small push fades at once.

    A Lanczos iteration of `LANCZOS` steps makes it tridiagonal; the pivots of that matrix tell the signs of its
    eigenvalues (Sturm), and the last one also bears what the iteration has left over. False leaves it open.

    Args:
        field, state: f and where.
        stiffness: of every variable, by which J is balanced (a congruence, which keeps the signs of eigenvalues).
    """
    along = jax.linearize(field, state)[1]
    back = jax.linear_transpose(along, state)
    balance = 1 / jnp.sqrt(or_largest(stiffness))
    product = lambda v: balance * (along(balance * v) + back(balance * v)[0]) / 2
    count = min(LANCZOS, state.size)
    start = jnp.asarray(np.random.default_rng(0).normal(size=state.size), state.dtype)
    basis = jnp.zeros((count, state.size), state.dtype).at[0].set(start / jnp.linalg.norm(start))
    over = lambda value, divisor: value / jnp.where(divisor > 0, divisor, 1.0)

    def step(k, carry):
        basis, pivot, beside, negative = carry
        vector = basis[k]
        moved = product(vector)
        pivot = -jnp.sum(moved * vector) - jnp.where(k > 0, over(beside**2, pivot), 0.0)
        for _ in range(2):  # twice is enough (Parlett 1980)
            moved -= (basis @ moved) @ basis
        beside = jnp.linalg.norm(moved)
        return basis.at[k + 1].set(over(moved, beside), mode="drop"), pivot, beside, negative & (pivot > 0)

    zero = jnp.zeros((), state.dtype)
    _, pivot, beside, negative = jax.lax.fori_loop(0, count, step, (basis, zero, zero, jnp.asarray(True)))
    return negative & (pivot > jnp.where(count < state.size, beside, 0.0))


def is_stable(field: Field, state: Float[Array, " n"], stiffness: Float[Array, " n"]) -> Bool[Array, ""]:
    """Whether the flow stays: seen from the symmetric part of J where that is enough, else from its spectrum.

    Args:
        field, state, stiffness: as of `contracts`.
    """
    contracting = contracts(field, state, stiffness)
    rounding = 8 * state.size * float(jnp.finfo(state.dtype).eps)

    def looked_at(_, state):
        along = jax.linearize(field, state)[1]
        size = jnp.linalg.norm(along(jnp.ones_like(state))) / state.size**0.5
        return spectral_abscissa(field, state) <= rounding * size

    return if_any(~contracting, looked_at, contracting, state)


def _watched_rate(field: Field, state: Float[Array, " n"]) -> Float[Array, ""]:
    along = jax.linearize(field, state)[1]
    push = jnp.asarray(np.random.default_rng(1).normal(size=state.size), state.dtype)

    def norm_of(_, carry):  # the largest singular value, which no motion outruns
        vector, _ = carry
        moved = jax.linear_transpose(along, state)(along(vector))[0]
        size = jnp.linalg.norm(moved)
        return moved / jnp.where(size > 0, size, 1.0), jnp.sqrt(size)

    fastest = jax.lax.fori_loop(0, 12, norm_of, (push / jnp.linalg.norm(push), jnp.ones((), state.dtype)))[1]
    h = 0.5 / jnp.where(fastest > 0, fastest, 1.0)

    def flow(step, carry):  # Runge and Kutta's fourth order, exact to (h |lambda|)^5/120
        vector, growth = carry
        total, term = vector, vector
        for order in (1, 2, 3, 4):
            term = h * along(term) / order
            total += term
        size = jnp.linalg.norm(total)
        late = jnp.where(step >= WATCHED // 2, jnp.log(jnp.where(size > 0, size, 1.0)), 0.0)
        return total / jnp.where(size > 0, size, 1.0), growth + late

    zero = jnp.zeros((), state.dtype)
    growth = jax.lax.fori_loop(0, WATCHED, flow, (push / jnp.linalg.norm(push), zero))[1]
    return growth / (h * (WATCHED - WATCHED // 2))
