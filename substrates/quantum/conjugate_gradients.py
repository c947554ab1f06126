"""The lowest eigenvector of a symmetric operator by locally optimal conjugate gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_ROUNDS = 8


def lowest_eigenvector(
    operator: Callable[[Array], Array],
    start: Float[Array, "..."],
    below: list[Array],
    done: Callable[[Array, Array], Bool[Array, ""]],
    max_steps: int,
) -> tuple[Float[Array, ""], Float[Array, "..."], Int[Array, ""]]:
    """(eigenvalue, unit vector, products with the operator) of the lowest level orthogonal to given vectors.

    Every step minimises the Rayleigh quotient over the span of the vector, its residual and the vector before; one
    product each. What rounding does to the recurrences is mended by starting afresh from the vector that they end at.

    Args:
        operator: v -> H v, real and symmetric.
        start: where to begin; not orthogonal to what is sought.
        below: orthonormal eigenvectors to keep out.
        done: whether an eigenvalue and its residual 2 |H v - e v| suffice.
        max_steps: the most products.

    Source: Knyazev 2001, "Toward the optimal preconditioned eigensolver", with one vector and no preconditioner.
    """
    dtype = start.dtype
    tiny, epsilon = jnp.finfo(dtype).tiny, jnp.finfo(dtype).eps

    def outside(v):
        for u in below:
            v = v - dot(u, v) * u
        return v

    def running(carry):
        energy, square, step, stuck = carry[5], carry[6], carry[8], carry[9]
        return ~done(energy, 2 * jnp.sqrt(square)) & (step < max_steps) & ~stuck

    def advance(carry):
        x, hx, p, hp, w, energy, square, p_energy, step, _ = carry
        overlap = dot(w, p)
        length = jnp.sqrt(jnp.maximum(square - overlap**2, epsilon * square) + tiny)
        w = (w - dot(w, x) * x - overlap * p) / length
        hw = operator(w)
        w_energy, across, between = dot(hw, w), dot(hx, w), dot(hw, p)
        has_p = p_energy < jnp.inf
        far = 10 * (jnp.abs(energy) + jnp.abs(w_energy) + jnp.abs(across) + 1)
        along_p = jnp.where(has_p, p_energy - energy, far)
        small = jnp.array([[0, across, overlap], [across, w_energy - energy, between], [overlap, between, along_p]])
        values, vectors = jnp.linalg.eigh(small)
        y = vectors[:, 0]
        # the direction for the next step: the vector before, made orthogonal to the new one
        z = jnp.array([y[1] ** 2 + y[2] ** 2, -y[0] * y[1], -y[0] * y[2]])
        z /= jnp.sqrt(jnp.maximum(jnp.vdot(z, z), tiny))
        mixed = lambda q, s, t, u: q[0] * s + q[1] * t + q[2] * u
        x, p, hx, hp = mixed(y, x, w, p), mixed(z, x, w, p), mixed(y, hx, hw, hp), mixed(z, hx, hw, hp)
        stuck = length <= 4 * epsilon * (jnp.abs(energy) + jnp.abs(w_energy))
        p_energy = energy + jnp.vdot(z, small @ z)
        energy = energy + values[0]
        w = outside(hx - energy * x)
        return x, hx, p, hp, w, energy, dot(w, w), p_energy, step + 1, stuck

    def fresh(x, step):
        x = outside(x)
        x = x / jnp.sqrt(jnp.maximum(dot(x, x), tiny))
        hx = operator(x)
        energy = dot(x, hx)
        w = outside(hx - energy * x)
        zero = jnp.zeros_like(x)
        infinite = jnp.asarray(jnp.inf, dtype)
        return x, hx, zero, zero, w, energy, dot(w, w), infinite, step + 1, jnp.asarray(False)

    def unsettled(outer):
        inner, rounds = outer
        return ~done(inner[5], 2 * jnp.sqrt(inner[6])) & (inner[8] < max_steps) & (rounds < _ROUNDS)

    def settle(outer):
        inner, rounds = outer
        inner = jax.lax.while_loop(running, advance, inner)
        return fresh(inner[0], inner[8]), rounds + 1

    first = fresh(start, jnp.zeros((), jnp.int32))
    inner, _ = jax.lax.while_loop(unsettled, settle, (first, jnp.zeros((), jnp.int32)))
    return inner[5], inner[0], inner[8]


def dot(u: Float[Array, " n"], v: Float[Array, " n"]) -> Float[Array, ""]:
    """<u|v>, summed first over rows: one long sum does not vectorise."""
    rows = math.gcd(u.size, 512)
    return jnp.sum(jnp.sum((u * v).reshape(rows, -1), axis=0))
