"""Normal modes, and the Gaussian equilibrium that they carry."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact

from substrates.quantum.oscillator.thermal import SingleOscillator, divided_differences
from substrates.solvers.certificate import inverse_of, rounding_of, state_tolerance
from substrates.solvers.spectra import eigh
from substrates.wiring import summed, taken


class GaussianState(NamedTuple):
    """A Gaussian state of oscillators: every number of it is a length.

    Attributes:
        mean: <x>, shape (n,).
        factor: the lower triangle L, row by row, of the covariance of positions L L', shape (n (n + 1) / 2,), with the
            momenta in the state of least free energy for it (Cov_p = hbar^2/4 Cov_x^-1 at T = 0); empty where nothing
            fluctuates, at hbar = 0 and T = 0.
    """

    mean: Float[Array, "n"]
    factor: Float[Array, "triangle"]


class Modes(eqx.Module):
    """The normal modes of oscillators, H = sum p_i^2/2m_i + x'Kx/2.

    Attributes:
        frequency: omega of each mode, ascending, shape (n,); NaN where a mode is unstable.
        shape: displacements of unit amplitude in mass-weighted coordinates, shape (n, modes): shape' M shape = 1.
        squared: omega^2, which is negative for an unstable mode.
    """

    frequency: Float[Array, "n"]
    shape: Float[Array, "n modes"]
    squared: Float[Array, "n"]

    @classmethod
    def of(cls, stiffness: Float[Array, "n n"], mass: Float[Array, "n"]) -> Modes:
        """The modes of a stiffness matrix K."""
        scale = 1 / jnp.sqrt(mass)
        squared, vectors = eigh(scale[:, None] * stiffness * scale[None])
        frequency = jnp.sqrt(squared)  # NaN of a negative one
        return cls(frequency, scale[:, None] * vectors, squared)

    @property
    def threshold(self) -> Float[Array, ""]:
        """The size below which omega^2 counts as zero: what rounding leaves of it."""
        size = self.squared.size
        return 2 * math.sqrt(size) * jnp.finfo(self.squared.dtype).eps * jnp.max(jnp.abs(self.squared))

    @property
    def blurred(self) -> Bool[Array, ""]:
        """Whether rounding, of the size of the stiffest mode, moves the spread of the softest by more than it may.

        Spreads go with omega^(-1/2) at T = 0; what is classical asks for no more than twice as much.
        """
        return ~(self.threshold <= 4 * state_tolerance(self.squared.dtype) * self.squared[0])

    def compliance(self, force: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        """K^-1 f."""
        return (self.shape / self.squared[None]) @ (self.shape.T @ force)

    def factor(self, single: SingleOscillator) -> Float[Array, "triangle"]:
        """The packed Cholesky factor of Cov_x.

        By a QR factorisation of its square root: that keeps the stiff modes, whose variance rounding would bury.
        """
        if single.sharp:
            return jnp.zeros(0, self.squared.dtype)
        root = jnp.linalg.qr((self.shape * jnp.sqrt(single.variance(self.frequency))[None]).T, mode="r")
        return pack((jnp.sign(diagonal_of(root))[:, None] * root).T)

    def softening(self, nodes: Any, single: SingleOscillator) -> Float[Array, "nodes nodes"]:
        """-dVar(x_a)/dk_b for on-site stiffnesses, among some oscillators: symmetric and not negative."""
        if single.sharp:
            return jnp.zeros((len(nodes), len(nodes)), self.squared.dtype)
        differences = divided_differences(lambda q: single.variance(jnp.sqrt(q)), single.variance_slope, self.squared)
        rows = taken(self.shape.T, nodes).T
        pairs = rows[:, None, :] * rows[None, :, :]
        return -jnp.einsum("abi,ij,abj->ab", pairs, differences, pairs)


class Compliance(eqx.Module):
    """K^-1 of a stiffness matrix that is balanced, D K D with D^-2 its diagonal, so that soft parts keep their digits.

    Attributes:
        root: the diagonal of D.
        inverse: (D K D)^-1; the identity where K is not positive definite.
        definite: whether K is positive definite, next to what oscillators cost one by one.
    """

    root: Float[Array, "n"]
    inverse: Float[Array, "n n"]
    definite: Bool[Array, ""]

    @classmethod
    def of(cls, stiffness: Float[Array, "n n"]) -> Compliance:
        """The inverse of a stiffness matrix K."""
        root, matrix, definite = balanced(stiffness)
        sound = jax.lax.select(definite, matrix, diagonal(jnp.ones_like(root)))
        return cls(root, inverse_of(jax.lax.linalg.cholesky(sound, symmetrize_input=False)), definite)

    def __call__(self, force: Float[Array, "n *k"]) -> Float[Array, "n *k"]:
        """K^-1 f."""
        root = self.root.reshape(-1, *[1] * (force.ndim - 1))
        return root * (self.inverse @ (root * force))

    def mean(self, stiffness: Float[Array, "n n"], force: Float[Array, "n"]) -> Float[Array, "n"]:
        """K^-1 f with one step of refinement, which balances the forces to rounding where modes are soft."""
        mean = self(force)
        return mean + self(force - stiffness @ mean)

    def blurred(
        self, stiffness: Float[Array, "n n"], force: Float[Array, "n"], mean: Float[Array, "n"]
    ) -> Bool[Array, ""]:
        """Whether rounding of the forces moves some mean by more than it may, next to the largest."""
        largest = jnp.max(jnp.abs(mean), initial=0.0)
        scale = jnp.abs(stiffness) @ jnp.abs(mean) + jnp.abs(force)
        moved = rounding_of(self.inverse, self.root, scale, jnp.where(largest > 0, largest, 1.0))
        return ~(moved <= state_tolerance(mean.dtype))


def balanced(stiffness: Float[Array, "n n"]) -> tuple[Float[Array, "n"], Float[Array, "n n"], Bool[Array, ""]]:
    """(D, D K D, whether K is positive definite) with D^-2 the diagonal of K."""
    own = diagonal_of(stiffness)
    root = 1 / jnp.sqrt(jnp.where(own > 0, own, 1.0))
    zero = 2 * math.sqrt(own.size) * float(jnp.finfo(own.dtype).eps)  # what rounding makes of it
    matrix = (root[:, None] * stiffness) * root[None]
    shifted = matrix - diagonal(jnp.full_like(own, zero))
    factor = jax.lax.linalg.cholesky(shifted, symmetrize_input=False)
    return root, matrix, jnp.all(own > 0) & jnp.all(jnp.isfinite(factor))


def pack(lower: Inexact[Array, "n n"]) -> Inexact[Array, "triangle"]:
    """The lower triangle of a matrix, row by row."""
    return taken(lower.ravel(), _triangle(len(lower)))


def unpack(packed: Inexact[Array, "triangle"], n: int) -> Inexact[Array, "n n"]:
    """The lower triangular matrix of a packed triangle."""
    return summed(packed, _triangle(n), n * n, in_order=True).reshape(n, n)


def diagonal(values: Inexact[Array, "n"]) -> Inexact[Array, "n n"]:
    """The matrix with these numbers on its diagonal."""
    n = len(values)
    return summed(values, np.arange(n) * (n + 1), n * n, in_order=True).reshape(n, n)


def diagonal_of(matrix: Inexact[Array, "n n"]) -> Inexact[Array, "n"]:
    """The numbers on the diagonal of a matrix."""
    return taken(matrix.ravel(), np.arange(len(matrix)) * (len(matrix) + 1))


@functools.cache
def _triangle(n: int) -> np.ndarray:
    return np.flatnonzero(np.tri(n)).astype(np.int32)
