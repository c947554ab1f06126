"""The lowest eigenvector of a symmetric operator by locally optimal conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


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
    dot = lambda u, v: jnp.vdot(u, v)
    tiny = jnp.finfo(dtype).tiny
    epsilon = jnp.finfo(dtype).eps

    def outside(v):
        for u in below:
            v = v - dot(u, v) * u
        return v

    def unit(v):
        return v / jnp.sqrt(jnp.maximum(dot(v, v), tiny))

    def running(carry):
        _, _, _, _, energy, residual, _, step, _ = carry
        return ~done(energy, residual) & (step < max_steps) & ~carry[8]

    def advance(carry):
        x, hx, p, hp, energy, _, p_energy, step, _ = carry
        w = outside(hx - energy * x)
        w -= dot(x, w) * x
        square, overlap = dot(w, w), dot(w, p)
        length = jnp.sqrt(jnp.maximum(square - overlap**2, epsilon * square) + tiny)
        w = (w - overlap * p) / length
        hw = operator(w)
        has_p = p_energy < jnp.inf
        a, b, c, d = dot(hx, w), dot(hx, p), dot(hw, w), dot(hw, p)
        f = jnp.where(has_p, p_energy, 0)
        high = jnp.abs(energy) + jnp.abs(c) + jnp.abs(a) + 1
        small = jnp.array([[0, a, b], [a, c - energy, d], [b, d, jnp.where(has_p, f - energy, 10 * high)]])
        y = jnp.linalg.eigh(small)[1][:, 0]
        # the direction for the next step: the vector before, made orthogonal to the new one
        z = jnp.array([y[1] ** 2 + y[2] ** 2, -y[0] * y[1], -y[0] * y[2]])
        z /= jnp.sqrt(jnp.maximum(jnp.vdot(z, z), tiny))
        moved = lambda q, s, t, u: q[0] * s + q[1] * t + q[2] * u
        x, p = moved(y, x, w, p), moved(z, x, w, p)
        hx, hp = moved(y, hx, hw, hp), moved(z, hx, hw, hp)
        size = dot(x, x)
        energy, p_energy = dot(x, hx) / size, dot(p, hp)
        scale = jax.lax.rsqrt(size)
        x, hx = x * scale, hx * scale
        left = hx - energy * x
        residual = 2 * jnp.sqrt(dot(left, left))
        stuck = length <= 4 * epsilon * (jnp.abs(energy) + jnp.abs(c))
        return x, hx, p, hp, energy, residual, p_energy, step + 1, stuck

    def fresh(x, step):
        x = unit(outside(x))
        hx = operator(x)
        energy = dot(x, hx)
        left = outside(hx - energy * x)
        residual = 2 * jnp.sqrt(dot(left, left))
        zero = jnp.zeros_like(x)
        return x, hx, zero, zero, energy, residual, jnp.asarray(jnp.inf, dtype), step + 1, jnp.asarray(False)

    def unsettled(outer):
        inner, rounds = outer
        return ~done(inner[4], inner[5]) & (inner[7] < max_steps) & (rounds < 8)

    def settle(outer):
        inner, rounds = outer
        inner = jax.lax.while_loop(running, advance, inner)
        return fresh(inner[0], inner[7]), rounds + 1

    first = fresh(start, jnp.zeros((), jnp.int32))
    inner, _ = jax.lax.while_loop(unsettled, settle, (first, jnp.zeros((), jnp.int32)))
    return inner[4], inner[0], inner[7]
