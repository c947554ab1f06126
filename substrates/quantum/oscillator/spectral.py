"""Functions of symmetric matrices whose derivatives survive degenerate eigenvalues."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from substrates.solvers.batching import in_turn

Scalar = Callable[[Float[Array, "..."]], Float[Array, "..."]]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def trace_of(function: Scalar, slope: Scalar, curvature: Scalar, matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    """tr f(A) of a symmetric matrix, with the derivative tr(f'(A) dA); f, f' and f'' are given."""
    return jnp.sum(function(in_turn(jnp.linalg.eigvalsh)(matrix)))


@trace_of.defjvp
def _trace_jvp(function, slope, curvature, primals, tangents):
    value = trace_of(function, slope, curvature, *primals)
    return value, jnp.sum(matrix_function(slope, curvature, *primals) * tangents[0])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def matrix_function(function: Scalar, slope: Scalar, matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """f(A) of a symmetric matrix; its derivative has the divided differences of f (Daleckii and Krein 1965)."""
    values, vectors = in_turn(jnp.linalg.eigh)(matrix)
    return (vectors * function(values)) @ vectors.T


@matrix_function.defjvp
def _matrix_jvp(function, slope, primals, tangents):
    values, vectors = in_turn(jnp.linalg.eigh)(primals[0])
    differences = divided_differences(function, slope, values)
    inner = differences * (vectors.T @ tangents[0] @ vectors)
    return (vectors * function(values)) @ vectors.T, vectors @ inner @ vectors.T


def divided_differences(function: Scalar, slope: Scalar, values: Float[Array, "n"]) -> Float[Array, "n n"]:
    """(f(a) - f(b)) / (a - b) for all pairs, f' at their middle where they are so close that rounding would win."""
    a, b = values[:, None], values
    near = jnp.abs(a - b) <= jnp.finfo(values.dtype).eps ** (1 / 3) * (jnp.abs(a) + jnp.abs(b))
    apart = jnp.where(near, 1, a - b)
    image = function(values)
    return jnp.where(near, slope((a + b) / 2), (image[:, None] - image) / apart)
