"""Whether the flow ds/dt = force stays at a fixed point."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int

from substrates.solvers.batching import if_any, spectra_in_turn
from substrates.solvers.meeting import or_largest

Map = Callable[[Float[Array, " n"]], Float[Array, " n"]]

MOST_SPECTRAL = 512
"""Up to so many variables the spectrum of a Jacobian is computed."""

LANCZOS = 16
"""So many steps towards the largest eigenvalue of the symmetric part of a Jacobian."""

WATCHED = 200
"""So many steps is the flow watched near a fixed point, each half the time of the fastest motion."""


class Motion(NamedTuple):
    """Small motions about a state: products with the Jacobian J of a force, and with its transpose.

    Attributes:
        along, back: d -> J d and d -> J' d.
        size: n, how many variables there are.
        dtype: of their numbers.
    """

    along: Map
    back: Map
    size: int
    dtype: jnp.dtype

    @classmethod
    def about(cls, state: Float[Array, " n"], force: Map) -> Self:
        """The motions about a state under a force."""
        along = jax.linearize(force, state)[1]
        transpose = jax.linear_transpose(along, state)
        return cls(along, lambda d: transpose(d)[0], state.size, state.dtype)

    def spectral_abscissa(self) -> Float[Array, ""]:
        """The largest real part of the eigenvalues of J: negative where the flow comes back to a fixed point.

        Above `MOST_SPECTRAL` variables it is the rate at which a small push in a random direction grows in the end.
        """
        return self._abscissa(jnp.ones((), self.dtype))

    def contracts(self, stiffness: Float[Array, " n"]) -> Bool[Array, ""]:
        """Whether the symmetric part of J is seen to be negative definite, so that every small push fades at once.

        A Lanczos iteration of `LANCZOS` steps makes it tridiagonal; the pivots of that matrix tell the signs of its
        eigenvalues (Sturm), and the last one also bears what the iteration has left over. False leaves it open.

        Args:
            stiffness: of every variable, by which J is balanced: a congruence, which keeps the signs of eigenvalues.
        """
        balance = 1 / jnp.sqrt(or_largest(stiffness))
        product = lambda v: balance * (self.along(balance * v) + self.back(balance * v)) / 2
        count = min(LANCZOS, self.size)
        basis = jnp.zeros((count, self.size), self.dtype).at[0].set(_random(0, self.size, self.dtype))

        def step(k, carry):
            basis, pivot, beside, negative = carry
            vector = basis[k]
            moved = product(vector)
            pivot = -jnp.sum(moved * vector) - jnp.where(k > 0, _over(beside**2, pivot), 0.0)
            for _ in range(2):  # twice is enough (Parlett 1980)
                moved -= (basis @ moved) @ basis
            beside = jnp.linalg.norm(moved)
            return basis.at[k + 1].set(_over(moved, beside), mode="drop"), pivot, beside, negative & (pivot > 0)

        zero = jnp.zeros((), self.dtype)
        _, pivot, beside, negative = jax.lax.fori_loop(0, count, step, (basis, zero, zero, jnp.asarray(True)))
        return negative & (pivot > (beside if count < self.size else 0.0))

    def stable(self, stiffness: Float[Array, " n"]) -> Bool[Array, ""]:
        """Whether the flow stays: seen from the symmetric part of J where that is enough, else from its spectrum.

        What neither grows nor fades stays where it is (a gauge); what circles for ever does not come to rest, and is
        no stay, as far as the spectrum is computed.

        Args:
            stiffness: as of `contracts`.
        """
        contracting = self.contracts(stiffness)
        rounding = 8 * self.size * float(jnp.finfo(self.dtype).eps) * jnp.max(stiffness)
        one = jnp.ones((), self.dtype)  # through which the spectrum is hidden where nobody needs it
        return if_any(~contracting, lambda _, one: self._stays(one, rounding), contracting, one)

    def _abscissa(self, one: Float[Array, ""]) -> Float[Array, ""]:
        """`spectral_abscissa`, by products with J and a number that is 1."""
        if self.size > MOST_SPECTRAL:
            return self._replace(along=lambda d: self.along(one * d)).fastest(WATCHED)[0]
        return jnp.max(jnp.real(self._rates(one)))

    def _stays(self, one: Float[Array, ""], rounding: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether nothing grows, and nothing circles without fading, by more than rounding."""
        if self.size > MOST_SPECTRAL:
            return self._abscissa(one) <= rounding
        rates = self._rates(one)
        turns = jnp.abs(jnp.imag(rates)) > rounding
        return jnp.all(jnp.real(rates) <= jnp.where(turns, -rounding, rounding))

    def _rates(self, one: Float[Array, ""]) -> Complex[Array, " n"]:
        """The eigenvalues of J."""
        columns = jax.vmap(self.along)(one * jnp.eye(self.size, dtype=self.dtype))
        return spectra_in_turn(jnp.linalg.eigvals)(columns.T)

    def fastest(self, steps: Int[Array, ""] | int) -> tuple[Float[Array, ""], Float[Array, " n"]]:
        """How fast a small push grows in the end, and what it has become, of length 1; after so many steps of the
        linearised flow, each half the time of the fastest motion.
        """

        def squared(_, carry):  # towards the largest singular value of J, which no motion outruns
            moved = self.back(self.along(carry[0]))
            size = jnp.linalg.norm(moved)
            return _over(moved, size), jnp.sqrt(size)

        push = _random(1, self.size, self.dtype)
        most = jnp.minimum(steps, 12)
        h = 0.5 / or_largest(jax.lax.fori_loop(0, most, squared, (push, jnp.ones((), self.dtype)))[1][None])[0]

        def term(order, carry):
            power = h * self.along(carry[0]) / order.astype(self.dtype)
            return power, carry[1] + power

        def flow(step, carry):  # Runge and Kutta's fourth order: off by (h |lambda|)^5/120
            vector, growth = carry
            total = jax.lax.fori_loop(1, 5, term, (vector, vector))[1]
            size = jnp.linalg.norm(total)
            late = jnp.where(step >= steps // 2, jnp.log(jnp.where(size > 0, size, 1.0)), 0.0)
            return _over(total, size), growth + late

        vector, growth = jax.lax.fori_loop(0, steps, flow, (push, jnp.zeros((), self.dtype)))
        return growth / (h * jnp.maximum(steps - steps // 2, 1)), vector


def _over(value: Array, divisor: Array) -> Array:
    return value / jnp.where(divisor > 0, divisor, 1.0)


def _random(seed: int, size: int, dtype: jnp.dtype) -> Float[Array, " n"]:
    drawn = np.random.default_rng(seed).normal(size=size)
    return jnp.asarray(drawn / np.linalg.norm(drawn), dtype)
