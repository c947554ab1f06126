"""The lowest eigenvector of a symmetric operator by conjugate gradients on the Rayleigh quotient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_STARTS = 8


class Search(NamedTuple):
    """Where a search for an eigenvector stands.

    Attributes:
        energy: the Rayleigh quotient of the vector.
        residual: 2 |H v - e v|, outside what is kept out.
        steps: products with the operator so far.
        growth: by how much the steps so far have multiplied the amplitude of an eigenvector at a given energy.
    """

    energy: Float[Array, ""]
    residual: Float[Array, ""]
    steps: Int[Array, ""]
    growth: Float[Array, ""]


def lowest_eigenvector(
    operator: Callable[[Array], Array],
    start: Float[Array, " n"],
    below: Float[Array, "levels n"],
    count: Int[Array, ""] | int,
    enough: Callable[[Search], Bool[Array, ""]],
    checked: Bool[Array, ""],
    watched: Float[Array, ""],
    max_steps: Int[Array, ""] | int,
) -> tuple[Search, Float[Array, " n"], Float[Array, " n"]]:
    """(where the search ended, unit vector v, H v) of the lowest level orthogonal to given vectors.

    Every step minimises the Rayleigh quotient over the span of the vector x and a direction p; one product each:

        p = beta z - g,   g = H x - e x,   z the vector of the last span orthogonal to x,

    with beta such that <p|H - e|z> = 0. What rounding does to the recurrences is mended by starting afresh from the
    vector that they end at, which is a step along p = x that leaves nothing of the old x.

    Args:
        operator: v -> H v, real and symmetric.
        start: where to begin; not orthogonal to what is sought.
        below: orthonormal eigenvectors to keep out, the first `count` of them.
        enough: whether it may end here.
        checked: whether an end must be confirmed afresh.
        watched: the energy at which `growth` is looked at.
        max_steps: the most products.

    Source: Yang 1993, "Conjugate gradient methods for the Rayleigh quotient minimization of generalized eigenvalue
    problems"; Knyazev 2001, "Toward the optimal preconditioned eigensolver".
    """
    dtype, select = start.dtype, jax.lax.select
    zero, one, none = jnp.zeros((), dtype), jnp.ones((), dtype), jnp.zeros((), jnp.int32)
    tiny, epsilon = float(jnp.finfo(dtype).tiny), float(jnp.finfo(dtype).eps)

    def outside(v: Array) -> Array:
        if isinstance(count, int):
            for u in below[:count]:
                v = v - dot(u, v) * u
            return v
        return jax.lax.fori_loop(0, count, lambda k, v: v - dot(below[k], v) * below[k], v)

    def advance(carry):
        (x, hx, g, p), (along, beta, square, share, pushed), found, fresh, starts, _ = carry
        p = select(fresh, x, beta * (p - along * x) - g)
        pushed = select(fresh, share, beta * (pushed - along * share) - (watched - found.energy) * share)
        hp = operator(p)
        length = jnp.sqrt(dot(p, p) + tiny)
        p_energy = dot(p, hp) / length**2
        # <p|H|x> = <p|g>, and the last minimisation left g orthogonal to z
        across, half = -square / length, (p_energy - found.energy) / 2
        angle = jnp.arctan2(across, half) / 2
        cosine, sine = select(fresh, zero, jnp.cos(angle)), select(fresh, one, -jnp.sin(angle))
        along = sine * length
        x, hx = cosine * x + (sine / length) * p, cosine * hx + (sine / length) * hp
        share = cosine * share + (sine / length) * pushed
        energy = found.energy + 2 * sine * (half * sine + across * cosine)
        g = outside(hx - energy * x)
        square = dot(g, g)
        # z = p - along x of the new x, and <z|H - e|z> from the upper level of the span
        curvature = 2 * jnp.hypot(half, across) * (cosine * length) ** 2
        beta = select(cosine > 0.5, (dot(g, hp) - along * square) / (curvature + tiny), zero)
        found = Search(energy, 2 * jnp.sqrt(square), found.steps + 1, jnp.abs(share))
        stuck = jnp.sqrt(square) <= 4 * epsilon * (jnp.abs(energy) + jnp.abs(p_energy))
        quiet = enough(found) | (found.steps >= max_steps)
        over = (quiet & (fresh | ~checked)) | (fresh & (starts >= _STARTS))
        again = (quiet | stuck) & ~fresh
        starts += again.astype(starts.dtype)
        return (x, hx, g, p), (along, beta, square, share, pushed), found, again, starts, over

    vectors, numbers = (outside(start), *[jnp.zeros_like(start)] * 3), (zero, zero, zero, one, zero)
    first = (vectors, numbers, Search(zero, zero, none, zero), jnp.asarray(True), none, jnp.asarray(False))
    (x, hx, _, _), _, found, *_ = jax.lax.while_loop(lambda carry: ~carry[-1], advance, first)
    return found, x, hx


def dot(u: Float[Array, " n"], v: Float[Array, " n"]) -> Float[Array, ""]:
    """<u|v>, summed first over a few rows: one sum of all, or more rows at once, does not vectorise on a CPU."""
    rows = math.gcd(u.size, 32)
    return jnp.dot(jnp.sum((u * v).reshape(rows, -1), axis=0), jnp.ones(u.size // rows, u.dtype))
