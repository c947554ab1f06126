"""What meets at each variable of a system of which only the sum of its forces is known."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Inexact

PROBES = 16
"""So many random directions stand for all, where there are more variables."""

Field = Callable[[Inexact[Array, " n"]], Inexact[Array, " n"]]

Products = Callable[[Inexact[Array, "k n"]], Inexact[Array, "k n"]]
"""J d of directions d, where J = df/ds."""


def products(force: Field, state: Inexact[Array, " n"]) -> tuple[Inexact[Array, " n"], Products]:
    """A field at a state, and its derivatives along directions."""
    value, product = jax.linearize(force, state)
    return value, jax.vmap(product)


def slopes(force: Field, state: Inexact[Array, " n"]) -> tuple[Inexact[Array, " m"], Inexact[Array, "m n"]]:
    """A field at a state, and the matrix of its derivatives."""
    value, along = products(force, state)
    return value, along(jnp.asarray(np.eye(state.size), state.dtype)).T


def shown(read: Field, state: Inexact[Array, " n"]) -> tuple[Inexact[Array, " m"], Inexact[Array, "m n"]]:
    """The same of what is read, for a few outputs of many variables: one product with the transpose for each."""
    output, transpose = jax.vjp(read, state)
    return output, jax.vmap(lambda e: transpose(e)[0])(jnp.asarray(np.eye(output.size), output.dtype))


def of_matrix(matrix: Inexact[Array, "n n"]) -> Products:
    """J d of directions, where J is at hand."""
    return lambda directions: directions @ matrix.T


def meeting_forces(
    value: Inexact[Array, " n"], along: Products, state: Inexact[Array, " n"], size: Float[Array, " n"]
) -> Float[Array, " n"]:
    """The sizes of the forces that meet at each variable: |f_i + sum_j J_ij s_j| and the |J_ij| size_j, J = df/ds.

    For a quadratic energy 1/2 s'Hs - b's they are |b_i| and |H_ij| size_j: what is constant in the force, and what
    answers to each variable. `size` says how large the variables are.
    """
    pushed = along(jnp.concatenate([state[None], _probes(size, state.dtype)]))
    return jnp.abs(value + pushed[0]) + _gathered(pushed[1:], size)


def row_sizes(along: Products, size: Float[Array, " n"], dtype: DTypeLike | None = None) -> Float[Array, " n"]:
    """sum_j |J_ij| size_j of every variable i, J = df/ds, by products with J alone.

    Exact up to 16 variables; for more the mean of |sum_j +- J_ij size_j| over random signs, which is at least the root
    of half the sum of the squares (Khintchine) and at most the sum.
    """
    return _gathered(along(_probes(size, size.dtype if dtype is None else dtype)), size)


def or_largest(sizes: Float[Array, " n"]) -> Float[Array, " n"]:
    """The sizes, none of them 0: in its place the largest, or 1 where all are."""
    largest = jnp.max(sizes, initial=0.0)
    return jnp.where(sizes > 0, sizes, jnp.where(largest > 0, largest, 1.0))


def _probes(size: Float[Array, " n"], dtype: DTypeLike) -> Inexact[Array, "k n"]:
    few = size.size <= PROBES
    signs = np.eye(size.size) if few else np.random.default_rng(0).choice([-1.0, 1.0], (PROBES, size.size))
    return (jnp.asarray(signs, size.dtype) * size[None]).astype(dtype)


def _gathered(pushed: Inexact[Array, "k m"], size: Float[Array, " n"]) -> Float[Array, " m"]:
    return (jnp.sum if size.size <= PROBES else jnp.mean)(jnp.abs(pushed), axis=0)
