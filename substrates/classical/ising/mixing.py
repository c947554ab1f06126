"""Whether Markov chains have mixed: the spread between chains against the spread within them."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import scipy
from jaxtyping import Array, Bool, Float, Int

MOST_RHAT = 1.05
"""Chains whose split R-hat is at most this have mixed, however sharply it can be measured."""

_FALSE_ALARM = 1e-3


class HalfChains(eqx.Module):
    """Sums over either half of every chain, of numbers that are watched while the chains run.

    Attributes:
        reference: the first number that was seen of each kind, subtracted from all, so that squares do not cancel.
        sums, squares: of the numbers less the reference.
        length: how often each half is looked at.
    """

    reference: Float[Array, "kinds"]
    sums: Float[Array, "2 chains kinds"]
    squares: Float[Array, "2 chains kinds"]
    length: int = eqx.field(static=True)

    @classmethod
    def empty(cls, chains: int, kinds: int, length: int, dtype: Any) -> HalfChains:
        """Nothing seen yet."""
        sums = jnp.zeros((2, chains, kinds), dtype)
        return cls(jnp.zeros(kinds, dtype), sums, sums, length)

    def seen(self, index: Int[Array, ""], values: Float[Array, "chains kinds"]) -> HalfChains:
        """With the look of this index, from 0 to 2 length - 1; looks before 0 are not counted."""
        reference = jnp.where(index <= 0, values[0], self.reference)
        moved = jnp.where(index >= 0, values - reference[None], 0)
        half = (index >= self.length).astype(jnp.int32)
        sums, squares = self.sums.at[half].add(moved), self.squares.at[half].add(moved**2)
        return HalfChains(reference, sums, squares, self.length)

    def mixed(self, alone: int) -> Bool[Array, ""]:
        """Whether the first `alone` numbers each, and the others taken together, tell no half chain from another.

        With n looks at each of m half chains, B = n times the variance of their means and W the mean variance within
        them: B/W is 1 for independent looks, the autocorrelation time in looks for long chains, and infinite for chains
        that are frozen in different states. R-hat^2 = (n - 1 + B/W)/n. They have mixed where R-hat <= 1.05 (ten looks
        of every half chain count as independent), or B/W is at most twice what Fisher's distribution with m - 1 and
        m (n - 1) degrees of freedom exceeds once in a thousand: looks that are independent, or nearly, do not fail by
        chance. Less than two looks tell nothing, and one chain that never moves tells nothing: they have not mixed.

        Source: Gelman and Rubin 1992, Statistical Science 7, 457; halves, Gelman et al. 2013, "Bayesian Data Analysis".
        """
        n, halves = self.length, self.sums.shape[0] * self.sums.shape[1]
        if n < 2:
            return jnp.asarray(False)
        means = self.sums / n
        within = jnp.mean(jnp.maximum(self.squares - n * means**2, 0), axis=(0, 1)) / (n - 1)
        between = n * jnp.var(means, axis=(0, 1), ddof=1)
        rounding = n * (16 * jnp.finfo(means.dtype).eps * self.reference) ** 2
        together = lambda values: jnp.append(values[:alone], jnp.sum(values[alone:]))
        chance = float(scipy.special.fdtri(halves - 1, halves * (n - 1), 1 - _FALSE_ALARM / (alone + 1)))
        most = max(1 + n * (MOST_RHAT**2 - 1), 2 * chance)
        mixed = jnp.all(together(between) <= most * together(within) + together(rounding))
        return mixed if self.sums.shape[1] > 1 else mixed & jnp.any(within > 0)
