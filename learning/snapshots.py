"""What a system was like along its training, to be looked at, played and explored afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp


class Snapshots:
    """Keeps the system after each epoch: give it to `fit(observe=...)`.

    With the untrained system in front, `substrates.explore(snapshots.substrates, x)` and `substrates.animate` show how
    it learned. The history of the run stays as it is.

    Attributes:
        substrates: those kept, in order of time.
        every: so many epochs lie between two of them.
    """

    def __init__(self, first: Any = None, *, every: int = 1):
        """
        Args:
            first: the system before training; None leaves it out.
            every: so many epochs lie between two that are kept.

        Raises ValueError for `every` below 1.
        """
        if every < 1:
            raise ValueError(f"every: wanted a whole number of epochs, at least 1, got {every}")
        self.substrates: list[Any] = [] if first is None else [first]
        self.every = every
        self._epochs = 0

    def __call__(self, substrate: Any) -> Mapping[str, float]:
        self._epochs += 1
        if self._epochs % self.every == 0:
            kept = lambda leaf: jnp.array(leaf, copy=True) if eqx.is_array(leaf) else leaf
            self.substrates.append(jax.tree.map(kept, substrate))  # training goes on in the same memory
        return {}
