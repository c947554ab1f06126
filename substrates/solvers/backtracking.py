"""The one line search: fractions of a step, each half of the one before, until one will do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

T = TypeVar("T")

SHORTEST = 1e-6
"""A step is given up when so small a fraction of it leads nowhere."""


def backtrack(
    trial: Callable[[Float[Array, ""]], T],
    refused: Callable[[Float[Array, ""], T], Bool[Array, ""]],
    dtype: Any,
    shortest: float = SHORTEST,
    like: T | None = None,
) -> tuple[T, Bool[Array, ""]]:
    """trial(fraction) for the first of 1, 1/2, 1/4, ... that is not refused, and whether there was one.

    Args:
        trial: where a fraction of the step leads, a tree.
        refused: whether a fraction and its trial will not do.
        dtype: of fractions.
        shortest: it ends with the first fraction that is not larger.
        like: a trial of any numbers, where one is at hand.
    """
    one = jnp.ones((), dtype)
    # begun before the first trial, so that compiled programs hold the trial once
    zeros = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)
    nothing = jax.tree.map(zeros, jax.eval_shape(trial, one)) if like is None else like
    going = lambda tried: (tried[0] > 1) | (refused(*tried) & (tried[0] > shortest))
    halve = lambda tried: (tried[0] / 2, trial(tried[0] / 2))
    fraction, found = jax.lax.while_loop(going, halve, (2 * one, nothing))
    return found, fraction > shortest
