"""Whether an equilibrium is decided: stable, without a motion that costs nothing, and not moved by rounding."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

from substrates.solvers.batching import in_turn, spectra_in_turn
from substrates.solvers.meeting import or_largest
from substrates.solvers.solver import Equilibrium, Status


def state_tolerance(dtype: Any) -> float:
    """The part of itself that a state may be off where its forces balance: 2 eps^(1/2) for a dtype."""
    return 2 * float(jnp.finfo(dtype).eps) ** 0.5


class Certificate(eqx.Module):
    """What the stiffness matrix at a state tells about it.

    Attributes:
        unstable: whether a motion lowers the energy, to second order.
        zero_mode: whether a motion that the outputs show costs no energy to second order, next to what its variables
            cost one by one.
        imprecise: whether what is left of the forces, and rounding of them, moves some variable by more than
            `state_tolerance` of its size.
    """

    unstable: Bool[Array, ""]
    zero_mode: Bool[Array, ""]
    imprecise: Bool[Array, ""]

    def judged(self, found: Equilibrium) -> Equilibrium:
        """An equilibrium of balanced forces with the status that the certificate leaves it."""
        status = Status.where(self.imprecise, Status.ill_conditioned, found.status)
        status = Status.where(self.zero_mode, Status.zero_mode, status)
        status = Status.where(self.unstable, Status.unstable, status)
        return eqx.tree_at(lambda e: e.status, found, Status.where(found.converged, status, found.status))


class Balanced(eqx.Module):
    """A stiffness matrix J, balanced as D J D so that weak parts count as much as strong ones, and decomposed.

    Attributes:
        rows: sum_j |J_ij|, by which it is balanced, D = rows^-1/2.
        left, values, right: D J D = left diag(values) right; eigenvalues, ascending, of a symmetric matrix, and
            singular values, descending, of any other.
        scale: the forces that meet at each variable.
        symmetric: whether it is the Hessian of an energy.
    """

    rows: Float[Array, " n"]
    left: Inexact[Array, "n n"]
    values: Float[Array, " n"]
    right: Inexact[Array, "n n"]
    scale: Float[Array, " n"]
    symmetric: bool = eqx.field(static=True)

    @classmethod
    def of(cls, stiffness: Inexact[Array, "n n"], scale: Float[Array, " n"], symmetric: bool = True) -> Balanced:
        """The decomposition of a matrix; not a number where the matrix is not."""
        rows = or_largest(jnp.sum(jnp.abs(stiffness), axis=1))
        d = (1 / jnp.sqrt(rows)).astype(stiffness.dtype)
        balanced = (d[:, None] * stiffness) * d[None]
        if symmetric:
            values, vectors = spectra_in_turn(jnp.linalg.eigh)((balanced + balanced.T) / 2)
            return cls(rows, vectors, values, vectors.T, scale, True)
        left, values, right = spectra_in_turn(jnp.linalg.svd)(balanced)
        return cls(rows, left, values, right, scale, False)

    @classmethod
    def empty(cls, state: Inexact[Array, " n"], symmetric: bool = True) -> Balanced:
        """That of nothing, in the shapes of one at a state."""
        row, square = jnp.zeros(state.shape, jnp.finfo(state.dtype).dtype), jnp.zeros((state.size,) * 2, state.dtype)
        return cls(row, square, row, square, row, symmetric)

    @property
    def threshold(self) -> float:
        """The value, relative to what variables cost one by one, that rounding makes of zero."""
        return 4 * self.rows.size * float(jnp.finfo(self.rows.dtype).eps)

    @property
    def unstable(self) -> Bool[Array, ""]:
        """Whether a motion lowers the energy; what is no Hessian does not tell."""
        return (self.values[0] < -self.threshold) if self.symmetric else jnp.asarray(False)

    def solve(self, force: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        """J^-1 force, along directions that cost something."""
        sizes = jnp.where(jnp.abs(self.values) > self.threshold, self.values, jnp.inf)
        return self._apply(force, sizes)

    def downhill(self, force: Float[Array, " n"]) -> Float[Array, " n"]:
        """|J|^-1 force."""
        return self._apply(force, jnp.maximum(jnp.abs(self.values), self.threshold))

    def softest(self, force: Float[Array, " n"], size: Float[Array, " n"]) -> Float[Array, " n"]:
        """The softest mode, not against the force, as long as the variables are large."""
        mode = self.right[0] / jnp.sqrt(self.rows)
        mode = jnp.where(jnp.sum(mode * force) < 0, -mode, mode)
        longest = jnp.max(jnp.abs(mode) / size, initial=0.0)
        return mode / jnp.where(longest > 0, longest, 1.0)

    def certificate(
        self, force: Inexact[Array, " n"], size: Float[Array, " n"], slopes: Inexact[Array, "outputs n"]
    ) -> Certificate:
        """The certificate of a state with a force left over.

        Args:
            force: what is left over.
            size: how large the variables are.
            slopes: the derivatives of what is read. A motion that costs nothing and shows nothing is a gauge (a norm, a
                global phase), and no zero mode.

        The error of the state is estimated as |J^-1 force| and, for the rounding of the forces, the root of the sum
        of (J^-1_ij eps scale_j)^2.
        """
        d = (1 / jnp.sqrt(self.rows)).astype(self.left.dtype)
        idle = jnp.abs(self.values) <= self.threshold
        modes = d[:, None] * jnp.conj(self.right.T)
        turned = jnp.abs(slopes @ modes)
        visible = jnp.max(jnp.abs(slopes) @ jnp.abs(modes), axis=0, initial=0.0)
        # what is shown of a mode may be no more than rounding of what any motion of its size would show
        rounded = self.threshold * (jnp.abs(slopes) @ jnp.abs(d))
        seen = jnp.max(turned, axis=0, initial=0.0) > float(jnp.finfo(d.dtype).eps) ** 0.5 * visible
        seen &= jnp.any(turned > rounded[:, None], axis=0)
        stiff = jnp.where(idle, jnp.inf, self.values).astype(d.dtype)
        inverse = (modes / stiff[None]) @ (jnp.conj(self.left.T) * d[None])
        rounding = jnp.linalg.norm(jnp.abs(inverse) * (self.scale * float(jnp.finfo(d.dtype).eps))[None], axis=1)
        error = jnp.abs(inverse @ force) + rounding
        imprecise = ~jnp.all(error <= state_tolerance(d.dtype) * size)
        return Certificate(self.unstable, jnp.any(idle & seen), imprecise)

    def _apply(self, force: Inexact[Array, " n"], values: Float[Array, " n"]) -> Inexact[Array, " n"]:
        d = (1 / jnp.sqrt(self.rows)).astype(self.left.dtype)
        return d * (jnp.conj(self.right.T) @ ((jnp.conj(self.left.T) @ (d * force)) / values.astype(d.dtype)))


def inverse_of(factor: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse of the matrix with a lower Cholesky factor."""
    half = in_turn(_lower_solve)(factor, jnp.eye(len(factor), dtype=factor.dtype))
    return half.T @ half


def rounding_of(
    inverse: Float[Array, "n n"], root: Float[Array, "n"], scale: Float[Array, "n"], size: Float[Array, ""]
) -> Float[Array, ""]:
    """How far rounding moves the coordinate that it moves farthest, in units of a size.

    The root of the sum of (H^-1_ij eps scale_j)^2, where H^-1 = D inverse D and D has the diagonal `root`.
    """
    moved = root * jnp.sqrt((inverse * inverse) @ (root * (scale / size)) ** 2)
    return float(jnp.finfo(root.dtype).eps) * jnp.max(moved, initial=0.0)


def _lower_solve(factor: Float[Array, "n n"], right: Float[Array, "n k"]) -> Float[Array, "n k"]:
    return jax.scipy.linalg.solve_triangular(factor, right, lower=True)
