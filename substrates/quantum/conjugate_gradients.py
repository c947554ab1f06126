"""The lowest eigenvector of a symmetric operator by conjugate gradients on the Rayleigh quotient."""

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
    done: Callable[[Array, Array, Array], Bool[Array, ""]],
    max_steps: int,
) -> tuple[Float[Array, ""], Float[Array, "..."], Int[Array, ""]]:
    """(eigenvalue, unit vector, products with the operator) of the lowest level orthogonal to given vectors.

    Every step minimises the Rayleigh quotient over the span of the vector x and a direction p; one product each:

        p = beta z - g,   g = H x - e x,   z the vector of the last span orthogonal to x,

    with beta such that <p|H - e|z> = 0. What rounding does to the recurrences is mended by starting afresh from the
    vector that they end at.

    Args:
        operator: v -> H v, real and symmetric.
        start: where to begin; not orthogonal to what is sought.
        below: orthonormal eigenvectors to keep out.
        done: whether an eigenvalue, its residual 2 |H v - e v| and so many products suffice.
        max_steps: the most products.

    Source: Yang 1993, "Conjugate gradient methods for the Rayleigh quotient minimization of generalized eigenvalue
    problems"; Knyazev 2001, "Toward the optimal preconditioned eigensolver".
    """
    dtype = start.dtype
    tiny, epsilon = jnp.finfo(dtype).tiny, jnp.finfo(dtype).eps

    def outside(v):
        for u in below:
            v = v - dot(u, v) * u
        return v

    def running(carry):
        energy, square, step, stuck = carry[6], carry[7], carry[8], carry[9]
        return ~done(energy, 2 * jnp.sqrt(square), step) & (step < max_steps) & ~stuck

    def advance(carry):
        x, hx, g, p, hp, (beta, along), energy, square, step, _ = carry
        p = beta * (p - along * x) - g
        hp = operator(p)
        length = jnp.sqrt(dot(p, p) + tiny)
        p_energy = dot(p, hp) / length**2
        # <p|H|x> = <p|g>, and the last minimisation left g orthogonal to z
        across, half = -square / length, (p_energy - energy) / 2
        angle = jnp.arctan2(across, half) / 2
        cosine, sine = jnp.cos(angle), -jnp.sin(angle)
        x, hx = cosine * x + (sine / length) * p, cosine * hx + (sine / length) * hp
        energy = energy + 2 * sine * (half * sine + across * cosine)
        g = outside(hx - energy * x)
        square, along = dot(g, g), sine * length
        # z = p - along x of the new x, and <z|H - e|z> from the upper level of the span
        curvature = 2 * jnp.hypot(half, across) * (cosine * length) ** 2
        beta = jnp.where(cosine > 0.5, (dot(g, hp) - along * square) / (curvature + tiny), 0)
        stuck = jnp.sqrt(square) <= 4 * epsilon * (jnp.abs(energy) + jnp.abs(p_energy))
        return x, hx, g, p, hp, (beta, along), energy, square, step + 1, stuck

    def fresh(x, step):
        x = outside(x)
        x = x / jnp.sqrt(jnp.maximum(dot(x, x), tiny))
        hx = operator(x)
        energy = dot(x, hx)
        g = outside(hx - energy * x)
        nothing, none = jnp.zeros_like(x), jnp.zeros((), dtype)
        return x, hx, g, nothing, nothing, (none, none), energy, dot(g, g), step + 1, jnp.asarray(False)

    def unsettled(outer):
        inner, rounds = outer
        return ~done(inner[6], 2 * jnp.sqrt(inner[7]), inner[8]) & (inner[8] < max_steps) & (rounds < _ROUNDS)

    def settle(outer):
        inner, rounds = outer
        inner = jax.lax.while_loop(running, advance, inner)
        return fresh(inner[0], inner[8]), rounds + 1

    first = fresh(start, jnp.zeros((), jnp.int32))
    inner, _ = jax.lax.while_loop(unsettled, settle, (first, jnp.zeros((), jnp.int32)))
    return inner[6], inner[0], inner[8]


def dot(u: Float[Array, " n"], v: Float[Array, " n"]) -> Float[Array, ""]:
    """<u|v>, summed first over a few rows: one sum of all, or more rows at once, does not vectorise on a CPU."""
    rows = math.gcd(u.size, 32)
    return jnp.dot(jnp.sum((u * v).reshape(rows, -1), axis=0), jnp.ones(u.size // rows, u.dtype))
