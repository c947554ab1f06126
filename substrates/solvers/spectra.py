"""Eigenvalues and singular values that batches take in turn, with derivatives of both modes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from substrates.solvers.batching import spectra_in_turn

_eigh = spectra_in_turn(lambda matrix: jax.lax.linalg.eigh(matrix, symmetrize_input=False))
_svd = spectra_in_turn(lambda matrix: jnp.linalg.svd(matrix, full_matrices=False))
_singular_values = spectra_in_turn(lambda matrix: jnp.linalg.svd(matrix, compute_uv=False))


@jax.custom_jvp
def eigh(matrix: Inexact[Array, "n n"]) -> tuple[Float[Array, " n"], Inexact[Array, "n n"]]:
    """(eigenvalues w, ascending, and vectors v in columns) of a symmetric matrix A, of which the lower half is read.

    With B = v' dA v: dw_i = B_ii and dv = v (F B), F_ij = 1/(w_j - w_i) for i != j, which equal eigenvalues leave
    without vectors that have derivatives.

    Source: Magnus 1985, "On differentiating eigenvalues and eigenvectors".
    """
    vectors, values = _eigh(matrix)
    return values, vectors


@eigh.defjvp
def _(primals, tangents):
    values, vectors = eigh(*primals)
    turned = vectors.conj().T @ tangents[0] @ vectors
    one = jnp.eye(values.size, dtype=values.dtype)
    apart = (1 / (values[None] - values[:, None] + one) - one).astype(vectors.dtype)
    return (values, vectors), (jnp.real(jnp.diagonal(turned)), vectors @ (apart * turned))


@jax.custom_jvp
def singular_values(matrix: Inexact[Array, "m n"]) -> Float[Array, " k"]:
    """The singular values s of a matrix A, descending: ds_i = re (u' dA v)_ii."""
    return _singular_values(matrix)


@singular_values.defjvp
def _(primals, tangents):
    left, values, right = _svd(*primals)
    turned = jnp.einsum("mk,mn,kn->k", left.conj(), tangents[0], right.conj())
    return values, jnp.real(turned)
