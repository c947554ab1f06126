"""One oscillator at a temperature: its variances and free energy, as functions of its frequency and of its variance.

And functions of symmetric matrices, whose derivatives survive degenerate eigenvalues: the same of coupled oscillators.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from substrates.solvers.batching import spectra_in_turn

Scalar = Callable[[Float[Array, "..."]], Float[Array, "..."]]

_NEWTON_STEPS = 8
"""From the starting guess, relative errors fall below rounding in five at every variance."""


@dataclasses.dataclass(frozen=True)
class SingleOscillator:
    """An oscillator of unit mass, H = p^2/2 + omega^2 x^2/2, at temperature T: formulas in u = hbar omega / 2T.

    Every thermal state of zero mean is given by its variance s = <x^2> alone, from which its frequency follows. With it
    the free energy least among all states of variance s is A(s) = omega^2 s / 2 + r(s), r(s) = A - omega^2 s / 2, a
    convex function with r'(s) = -omega(s)^2 / 2.

    Attributes:
        hbar: Planck's constant over 2 pi; 0 for a classical oscillator, whose phase space counts in units of action.
        temperature: T, in units of energy; 0 for the ground state.
    """

    hbar: float
    temperature: float

    @property
    def sharp(self) -> bool:
        """Whether the oscillator is classical and cold, so that it does not move at all."""
        return self.hbar == 0 and self.temperature == 0

    def variance(self, frequency: Float[Array, "..."]) -> Float[Array, "..."]:
        """s = <x^2> = (hbar / 2 omega) coth u; <p^2> = omega^2 s."""
        if self.hbar == 0:
            return self.temperature / frequency**2
        if self.temperature == 0:
            return self.hbar / (2 * frequency)
        return self.hbar / (2 * frequency * jnp.tanh(self._u(frequency)))

    def free_energy(self, frequency: Float[Array, "..."]) -> Float[Array, "..."]:
        """A = T log(2 sinh u); at T = 0 the zero-point energy hbar omega / 2."""
        if self.temperature == 0:
            return self.hbar * frequency / 2
        if self.hbar == 0:
            return self.temperature * jnp.log(frequency / (2 * math.pi * self.temperature))
        return self.temperature * _log_two_sinh(self._u(frequency))

    def frequency(self, variance: Float[Array, "..."]) -> Float[Array, "..."]:
        """The frequency of the thermal state of a variance s: by Newton's method where coth u / u = 4 T s / hbar^2."""
        if self.hbar == 0:
            return jnp.sqrt(self.temperature / variance)
        if self.temperature == 0:
            return self.hbar / (2 * variance)
        wanted = 4 * (self.temperature / self.hbar) * (variance / self.hbar)
        log_u = jnp.log((1 + jnp.sqrt(1 + 4 * wanted)) / (2 * wanted))

        def newton(_, log_u):  # where the slope is between -2 and -1
            u = jnp.exp(log_u)
            return log_u + (-jnp.log(jnp.tanh(u) * u) - jnp.log(wanted)) / self._steepness(u)

        log_u = jax.lax.fori_loop(0, _NEWTON_STEPS, newton, log_u)
        return 2 * self.temperature / self.hbar * jnp.exp(log_u)

    def rest(self, variance: Float[Array, "..."]) -> Float[Array, "..."]:
        """r(s), the least of <p^2>/2 - T entropy at a variance s; at T = 0 it is hbar^2 / 8s."""
        frequency = self.frequency(variance)
        return self.free_energy(frequency) - frequency**2 * variance / 2

    def rest_slope(self, variance: Float[Array, "..."]) -> Float[Array, "..."]:
        """r'(s) = -omega(s)^2 / 2."""
        return -(self.frequency(variance) ** 2) / 2

    def rest_curvature(self, variance: Float[Array, "..."]) -> Float[Array, "..."]:
        """r''(s) = -d(omega^2)/2ds."""
        frequency = self.frequency(variance)
        return frequency**2 / (variance * self._steepness_at(frequency))

    def variance_slope(self, squared_frequency: Float[Array, "..."]) -> Float[Array, "..."]:
        """ds/d(omega^2)."""
        frequency = jnp.sqrt(squared_frequency)
        return -self.variance(frequency) * self._steepness_at(frequency) / (2 * squared_frequency)

    def _u(self, frequency: Float[Array, "..."]) -> Float[Array, "..."]:
        return self.hbar * frequency / (2 * self.temperature)

    def _steepness_at(self, frequency: Float[Array, "..."]) -> Float[Array, "..."]:
        """-d log s / d log omega: 1 at T = 0, 2 where the oscillator is classical."""
        if self.temperature == 0:
            return jnp.ones_like(frequency)
        return jnp.full_like(frequency, 2.0) if self.hbar == 0 else self._steepness(self._u(frequency))

    @staticmethod
    def _steepness(u: Float[Array, "..."]) -> Float[Array, "..."]:
        """1 + 2u / sinh 2u, without overflow."""
        return 1 + 4 * u * jnp.exp(-2 * u) / -jnp.expm1(-4 * u)


def _log_two_sinh(u: Float[Array, "..."]) -> Float[Array, "..."]:
    return u + jnp.log(-jnp.expm1(-2 * u))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def trace_of(function: Scalar, slope: Scalar, curvature: Scalar, matrix: Float[Array, "n n"]) -> Float[Array, ""]:
    """tr f(A) of a symmetric matrix, with the derivative tr(f'(A) dA); f, f' and f'' are given."""
    return jnp.sum(function(spectra_in_turn(jnp.linalg.eigvalsh)(matrix)))


@trace_of.defjvp
def _trace_jvp(function, slope, curvature, primals, tangents):
    value = trace_of(function, slope, curvature, *primals)
    return value, jnp.sum(matrix_function(slope, curvature, *primals) * tangents[0])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def matrix_function(function: Scalar, slope: Scalar, matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """f(A) of a symmetric matrix; its derivative has the divided differences of f (Daleckii and Krein 1965)."""
    values, vectors = spectra_in_turn(jnp.linalg.eigh)(matrix)
    return (vectors * function(values)[None]) @ vectors.T


@matrix_function.defjvp
def _matrix_jvp(function, slope, primals, tangents):
    values, vectors = spectra_in_turn(jnp.linalg.eigh)(primals[0])
    differences = divided_differences(function, slope, values)
    inner = differences * (vectors.T @ tangents[0] @ vectors)
    return (vectors * function(values)[None]) @ vectors.T, vectors @ inner @ vectors.T


def divided_differences(function: Scalar, slope: Scalar, values: Float[Array, "n"]) -> Float[Array, "n n"]:
    """(f(a) - f(b)) / (a - b) for all pairs, f' at their middle where they are so close that rounding would win."""
    a, b = values[:, None], values[None]
    near = jnp.abs(a - b) <= jnp.finfo(values.dtype).eps ** (1 / 3) * (jnp.abs(a) + jnp.abs(b))
    apart = jnp.where(near, 1, a - b)
    image = function(values)
    return jnp.where(near, slope((a + b) / 2), (image[:, None] - image[None]) / apart)
