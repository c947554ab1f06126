"""Any quantum system of finitely many levels: a Hamiltonian put together from given operators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from substrates import arguments
from substrates.quantum.eigensolvers import Operator
from substrates.quantum.gibbs import GibbsEnsemble, gibbs_ensemble
from substrates.quantum.system import QuantumSubstrate, root_of_squares
from substrates.solvers.batching import spectra_in_turn
from substrates.substrate import fixed

MOST_LEVELS = 8192


class MatrixHamiltonian(eqx.Module):
    """A symmetric matrix as an operator."""

    entries: Float[Array, "amplitudes amplitudes"]

    def __call__(self, vector: Float[Array, "amplitudes"]) -> Float[Array, "amplitudes"]:
        """H |v>."""
        return self.entries @ vector

    def matrix(self) -> Float[Array, "amplitudes amplitudes"]:
        """H, dense."""
        return self.entries


class HamiltonianSubstrate(QuantumSubstrate):
    """A quantum system of d levels with H(theta; x) = H_0 + sum_k theta_k A_k + sum_j x_j B_j.

    Built by `from_operators` from Hermitian matrices or QuTiP's Qobj. Real operators act on d real amplitudes. Complex
    ones, A + iB, are stored as the real symmetric [[A, -B], [B, A]], and a state as the real parts of its d amplitudes
    before their imaginary parts. Every level then occurs twice, as psi and i psi; the phase is fixed by making the
    overlap with `initial_state` real.

    Attributes:
        weight: theta, shape (terms,), trainable.
        base: H_0.
        terms: A_k, shape (terms, amplitudes, amplitudes).
        drives: B_j, shape (inputs, amplitudes, amplitudes).
        observables: the operators whose means are read, shape (outputs, amplitudes, amplitudes).
        is_complex: whether amplitudes are complex, 2 d real numbers.
        level: which level it settles to.

    Source: Wanjura and Marquardt 2024, arXiv 2406.06482.
    """

    weight: Float[Array, "terms"]
    base: Float[Array, "amplitudes amplitudes"] = fixed()
    terms: Float[Array, "terms amplitudes amplitudes"] = fixed()
    drives: Float[Array, "inputs amplitudes amplitudes"] = fixed()
    observables: Float[Array, "outputs amplitudes amplitudes"] = fixed()
    is_complex: bool = eqx.field(static=True, default=False)
    level: int = eqx.field(static=True, default=0)

    # the contract

    @property
    def dimension(self) -> int:
        return self.base.shape[0]

    def hamiltonian(
        self, x: Float[Array, "inputs"], weights: Float[Array, "outputs"] | None = None
    ) -> MatrixHamiltonian:
        x = self._checked(x)
        total = self.base + jnp.tensordot(self.weight, self.terms, 1) + jnp.tensordot(x, self.drives, 1)
        return MatrixHamiltonian(total if weights is None else total + jnp.tensordot(weights, self.observables, 1))

    def means(self, vector: Float[Array, "amplitudes"]) -> Float[Array, "outputs"]:
        return (self.observables @ vector) @ vector

    def energy_scale(self, x: Float[Array, "inputs"]) -> Float[Array, ""]:
        """The largest sum of magnitudes in a row of H."""
        return jnp.max(jnp.sum(jnp.abs(self.hamiltonian(x).entries), axis=1))

    def norm_stiffness(self, x: Float[Array, "inputs"]) -> Float[Array, ""]:
        """The root of the mean square of the eigenvalues, |H| by Frobenius over the root of the dimension."""
        return root_of_squares(self.hamiltonian(x).entries) / math.sqrt(self.dimension)

    @property
    def input_size(self) -> int:
        return self.drives.shape[0]

    def initial_state(self, x: Float[Array, "inputs"]) -> Float[Array, "amplitudes"]:
        """A random unit vector, always the same; with complex amplitudes it sets the phase of every state."""
        size = self.dimension // 2 if self.is_complex else self.dimension
        draw = np.random.default_rng(size).normal(size=self.dimension)
        return jnp.asarray(draw / np.linalg.norm(draw), self.weight.dtype)

    def excitations(self, vector: Float[Array, "amplitudes"]) -> Float[Array, "amplitudes"]:
        """A random sum of the terms applied to the vector, and some of a random vector."""
        share = jnp.asarray(np.random.default_rng(1).normal(size=self.weight.size), vector.dtype)
        noise = jax.random.normal(jax.random.key(1), vector.shape, vector.dtype)
        moved = jnp.tensordot(share, self.terms @ vector, 1)
        size = jnp.linalg.norm(moved)
        return moved / jnp.where(size > 0, size, 1) + 0.7 * noise / jnp.linalg.norm(noise)

    def diagonalised(self, operator: Operator) -> tuple[Float[Array, "levels"], Float[Array, "levels amplitudes"]]:
        energies, vectors = spectra_in_turn(jnp.linalg.eigh)(operator.matrix())
        step = 2 if self.is_complex else 1  # psi and i psi
        return energies[::step], vectors.T[::step]

    def aligned(self, vector: Float[Array, "amplitudes"], start: Float[Array, "amplitudes"]) -> Array:
        """The vector with the phase of the gauge, and the sign with which it overlaps with another."""
        if self.is_complex:
            gauge = self._reference()
            real, imaginary = jnp.vdot(gauge, vector), jnp.vdot(_times_i(gauge), vector)
            size = jnp.sqrt(real**2 + imaginary**2)
            turned = (real * vector - imaginary * _times_i(vector)) / jnp.where(size > 0, size, 1)
            vector = jnp.where(size > 0, turned, vector)
        return jnp.where(jnp.vdot(vector, start) < 0, -vector, vector)

    def same_ray(self, vector: Float[Array, "amplitudes"]) -> Float[Array, "vectors amplitudes"]:
        return jnp.stack([vector, _times_i(vector)]) if self.is_complex else vector[None]

    def gauge(self, x: Float[Array, "inputs"]) -> Float[Array, "amplitudes"] | None:
        return _times_i(self._reference()) if self.is_complex else None

    # the way to build one

    @classmethod
    def from_operators(
        cls,
        terms: Sequence[Any],
        weight: Any,
        *,
        base: Any = None,
        drives: Sequence[Any] = (),
        outputs: Sequence[Any] = (),
        level: int = 0,
    ) -> Self:
        """The system with these operators, each a Hermitian matrix or a Qobj.

        Args:
            terms: the A_k, at least one.
            weight: theta, shape (terms,) or one number.
            base: H_0; None for zero.
            drives: the B_j, which the inputs multiply.
            outputs: the operators whose expectation values are read.
            level: 0 for the ground state, k for the k-th excited one.

        Raises:
            ValueError: for operators that are not Hermitian, not finite or of different sizes, weights that do not fit,
                and more levels than dense matrices serve.
        """
        lists = {"terms": list(terms), "base": [] if base is None else [base], "drives": drives, "outputs": outputs}
        matrices = {name: [_matrix(name, operator) for operator in given] for name, given in lists.items()}
        if not matrices["terms"]:
            raise ValueError("terms: wanted at least one operator with a trainable weight, got none")
        size = matrices["terms"][0].shape[0]
        if size > MOST_LEVELS:
            count = sum(map(len, matrices.values()))
            raise ValueError(
                f"terms: wanted at most {MOST_LEVELS} levels, got {size}: {count} dense operators would need "
                f"{8e-9 * count * size**2:.3g} GB"
            )
        for name, given in matrices.items():
            for k, matrix in enumerate(given):
                if matrix.shape[0] != size:
                    raise ValueError(
                        f"{name}: wanted operators of the size of terms[0], {size}, got {matrix.shape[0]} at {k}"
                    )
        is_complex = any(np.iscomplexobj(matrix) for given in matrices.values() for matrix in given)
        if not 0 <= level < size:
            raise ValueError(f"level: wanted a level from 0 to {size - 1}, got {level}")
        amplitudes = 2 * size if is_complex else size
        embed = _as_real if is_complex else (lambda matrix: matrix)

        def stacked(given: list[np.ndarray]) -> Array:
            entries = [embed(matrix) for matrix in given]
            return jnp.asarray(np.stack(entries) if entries else np.zeros((0, amplitudes, amplitudes)), float)

        theta = _weights(weight, len(matrices["terms"]))
        return cls(
            theta,
            jnp.sum(stacked(matrices["base"]), axis=0).astype(theta.dtype),
            *(stacked(matrices[name]).astype(theta.dtype) for name in ("terms", "drives", "outputs")),
            is_complex=is_complex,
            level=level,
        )

    # what it knows besides

    def ensemble(self, temperature: float) -> GibbsEnsemble:
        """The system at a temperature, in units of energy; with real operators, up to 1024 levels."""
        if self.is_complex:
            raise ValueError(
                "ensemble: wanted real operators, got complex ones; write them in a basis where they are real"
            )
        return gibbs_ensemble(self, temperature)

    def amplitudes(self, state: Float[Array, "amplitudes"]) -> Array:
        """The d amplitudes of a state: complex numbers where the operators are complex."""
        if not self.is_complex:
            return state
        half = self.dimension // 2
        return jax.lax.complex(state[:half], state[half:])

    def _reference(self) -> Float[Array, "amplitudes"]:
        return self.initial_state(jnp.zeros(self.drives.shape[0], self.weight.dtype))

    def _checked(self, x: Any) -> Float[Array, "inputs"]:
        return jnp.asarray(x).astype(self.weight.dtype)


def _times_i(vector: Float[Array, "amplitudes"]) -> Float[Array, "amplitudes"]:
    """i v, for real parts before imaginary parts."""
    half = vector.shape[0] // 2
    return jnp.concatenate([-vector[half:], vector[:half]])


def _as_real(matrix: np.ndarray) -> np.ndarray:
    return np.block([[np.real(matrix), -np.imag(matrix)], [np.imag(matrix), np.real(matrix)]])


def _matrix(name: str, operator: Any) -> np.ndarray:
    matrix = np.asarray(operator.full() if hasattr(operator, "full") else operator)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] < 2:
        raise ValueError(f"{name}: wanted square matrices of at least two levels, got shape {matrix.shape}")
    if not np.issubdtype(matrix.dtype, np.number) or not np.isfinite(matrix).all():
        raise ValueError(f"{name}: wanted finite numbers, got NaN, infinity or {matrix.dtype}")
    scale = np.abs(matrix).max()
    off = np.abs(matrix - matrix.conj().T).max()
    if off > 1e-10 * scale:
        raise ValueError(
            f"{name}: wanted Hermitian operators, got one that differs from its adjoint by {off:.3g}; "
            "observables and energies are real, so give (A + A^dagger)/2"
        )
    return np.real(matrix) if np.abs(np.imag(matrix)).max() <= 1e-14 * scale else matrix


def _weights(weight: Any, count: int) -> Array:
    values = weight if eqx.is_inexact_array(weight) else arguments.real_floats("weight", weight)
    return arguments.one_each("weight", values, count, "term", owner="system")
