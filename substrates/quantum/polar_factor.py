"""Chains of free fermions settle to the orthogonal factor of their matrix."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from substrates.nudge import Nudge
from substrates.quantum.eigensolvers import judged, self_consistent, start_of, unsettled
from substrates.solvers.batching import spectra_in_turn
from substrates.solvers.solver import Equilibrium, Solver, Status

_svd = spectra_in_turn(jnp.linalg.svd)
_eigh = spectra_in_turn(jnp.linalg.eigh)


class PolarFactor(Solver):
    """The closed form: for B = U S V' of the chain with its nudge, the state is U V'; its polar factor.

    A nudge on <X_i> or <Z_i Z_(i+1)> adds its pull to an entry of B. The status is `zero_mode` where the gap 2 min S
    vanishes to rounding, and where the two lowest S are below sqrt(eps) of the largest entry of B: then the factor is
    not unique, or moved by rounding.
    """

    def __call__(
        self, substrate: Any, x: PyTree, nudge: Nudge | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        scale = jnp.max(jnp.abs(substrate.matrix(x)))
        rounding = 4 * float(jnp.finfo(start.dtype).eps) * substrate.size
        weights, limit = start_of(substrate, start, x, nudge, scale)
        limit = jnp.maximum(limit, rounding)

        def look(weights, start, target):
            matrix = substrate.matrix(x, weights)
            # LAPACK may never return from a matrix that is not finite; the residual tells
            sound = jnp.where(jnp.all(jnp.isfinite(matrix)), matrix, jnp.eye(substrate.size, dtype=matrix.dtype))
            left, singular, right = _svd(sound)
            # one small singular value leaves a sign to be decided, two a rotation between their vectors
            part = float(jnp.finfo(start.dtype).eps) ** 0.5
            resolved = jnp.minimum(2 * singular[-1] / rounding, (singular[-2] + singular[-1]) / part)
            state, own = left @ right, None
            energy = -jnp.vdot(state, matrix)
            if nudge is not None:
                output = substrate.entries(state)
                own = -nudge.pull(output)
                matrix, energy = substrate.nudged(matrix, own - weights), energy - jnp.vdot(weights, output)
                energy += nudge.energy(output)
            return own, substrate.imbalance(state, matrix, scale), (state, energy, jnp.ones((), jnp.int32), resolved)

        first = (start, *unsettled(start.dtype))
        (state, energy, steps, resolved), residual = self_consistent(nudge, weights, first, look, limit)
        status = judged(state, residual, limit)
        tied = (status != Status.not_finite) & (resolved <= scale)
        return Equilibrium(state, energy, residual, steps, Status.where(tied, Status.zero_mode, status))


@jax.custom_jvp
def polar_factor(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The orthogonal factor P of M = P H, H symmetric and positive; differentiable to any order where M is regular."""
    left, _, right = _svd(matrix)
    return left @ right


@polar_factor.defjvp
def _polar_factor_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (matrix,), (change,) = primals, tangents
    factor = polar_factor(matrix)
    # dP = P X with the skew solution of X H + H X = P'dM - dM'P
    stretch = factor.T @ matrix
    stretch = (stretch + stretch.T) / 2
    turned = factor.T @ change
    return factor, factor @ _sylvester(stretch, turned - turned.T)


def _sylvester(stretch: Array, right: Array) -> Array:
    """X of X H + H X = R for a symmetric positive H."""

    def solve(_, right):
        values, vectors = _eigh(jax.lax.stop_gradient(stretch))
        inside = vectors.T @ right @ vectors
        return vectors @ (inside / (values[:, None] + values[None])) @ vectors.T

    return jax.lax.custom_linear_solve(lambda X: X @ stretch + stretch @ X, right, solve, symmetric=True)
