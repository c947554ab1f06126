"""Chains of free fermions settle to the orthogonal factor of their matrix."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from substrates.nudge import Nudge
from substrates.quantum.eigensolvers import eigen_tolerance, self_consistent
from substrates.solvers.solver import Equilibrium, Solver, Status


class PolarFactor(Solver):
    """The closed form: for B = U S V' of the chain with its nudge, the state is U V'; its polar factor.

    A nudge on <X_i> or <Z_i Z_(i+1)> adds its pull to an entry of B. The status is `zero_mode` where the gap 2 min S
    vanishes to rounding, and where the two lowest S are below sqrt(eps) of the largest entry of B: then the factor is
    not unique, or moved by rounding.
    """

    def __call__(
        self, substrate: Any, x: PyTree, nudge: Nudge | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        one = jnp.ones((), jnp.int32)
        scale = jnp.max(jnp.abs(substrate.matrix(x)))
        rounding = 4 * float(jnp.finfo(start.dtype).eps) * substrate.size
        limit = jnp.maximum(eigen_tolerance(substrate, start, x, nudge, scale), rounding)

        def solve(weights, start, limit):
            matrix = substrate.matrix(x, weights)
            # LAPACK may never return from a matrix that is not finite; the residual tells
            sound = jnp.where(jnp.all(jnp.isfinite(matrix)), matrix, jnp.eye(substrate.size, dtype=matrix.dtype))
            left, singular, right = jnp.linalg.svd(sound)
            # one small singular value leaves a sign to be decided, two a rotation between their vectors
            part = float(jnp.finfo(start.dtype).eps) ** 0.5
            return left @ right, one, jnp.minimum(2 * singular[-1] / rounding, (singular[-2] + singular[-1]) / part)

        if isinstance(nudge, Nudge):
            state, steps, resolved = self_consistent(substrate, x, nudge, start, solve, limit)
        else:
            state, steps, resolved = solve(None, start, limit)
        energy = -jnp.vdot(state, substrate.matrix(x))
        if isinstance(nudge, Nudge):
            energy += nudge.energy(substrate.read(state, x))
        residual = substrate.residual(state, x, nudge)
        status = Status.where(residual <= limit, Status.converged, Status.out_of_steps)
        tied = resolved <= scale
        status = Status.where(tied, Status.zero_mode, status)
        status = Status.where(jnp.isfinite(residual), status, Status.not_finite)
        return Equilibrium(state, energy, residual, steps, status)


@jax.custom_jvp
def polar_factor(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The orthogonal factor P of M = P H, H symmetric and positive; differentiable to any order where M is regular."""
    left, _, right = jnp.linalg.svd(matrix)
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
        values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(stretch))
        inside = vectors.T @ right @ vectors
        return vectors @ (inside / (values[:, None] + values)) @ vectors.T

    return jax.lax.custom_linear_solve(lambda X: X @ stretch + stretch @ X, right, solve, symmetric=True)
