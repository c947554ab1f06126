"""Weights there and back that learn alike, so that they align."""

from __future__ import annotations

from typing import Protocol, Self, cast, runtime_checkable

import jax
from jaxtyping import PyTree

from substrates.nudge import Nudge, Pin
from substrates.substrate import Substrate
from substrates.wrapper import Wrapper


@runtime_checkable
class Paired(Protocol):
    """Capability: some parameters lead there and back, and have the same shape."""

    def shared(self, gradient: PyTree) -> PyTree:
        """A tree like the substrate, in which both of every pair are their mean."""
        ...


class SameUpdates(Wrapper):
    """A network whose weights there and back are measured alike: both of a pair show the mean of their contrasts.

    Any rule then gives both the same step, and with weight decay lambda and learning rate eta their difference shrinks
    by the factor 1 - eta lambda at every step of gradient descent, whatever the data: |W - B| = (1 - eta lambda)^n of
    what it was. Each step is local to the pair, and no weight is carried over.

    Attributes:
        inner: a network that is `Paired`: `RecurrentNetwork`, `PredictiveCodingCircuit`.

    Raises:
        TypeError: for one that has no pairs of weights.

    Source: Kolen and Pollack 1994, "Backpropagation without weight transport"; with equilibrium propagation, Laborieux
    et al. 2021, arXiv 2006.03824.
    """

    inner: Substrate

    def __check_init__(self):
        if not isinstance(self.inner, Paired):
            raise TypeError(
                f"inner: wanted a network with weights there and back, RecurrentNetwork, say, got "
                f"{type(self.inner).__name__}"
            )

    def measure_from(self, free: PyTree, states: PyTree, xs: PyTree, nudges: Nudge | Pin | None = None) -> Self:
        return self._shared(self.inner.measure_from(free, states, xs, nudges))

    def contrast(
        self,
        plus: PyTree,
        minus: PyTree,
        xs: PyTree,
        nudges_plus: Nudge | Pin | None = None,
        nudges_minus: Nudge | Pin | None = None,
    ) -> Self:
        return self._shared(self.inner.contrast(plus, minus, xs, nudges_plus, nudges_minus))

    def _shared(self, found: PyTree) -> Self:
        return self.outside(cast(Paired, self.inner).shared(found))


def mean_of(first: PyTree, second: PyTree) -> PyTree:
    """(first + second) / 2 of two trees."""
    return jax.tree.map(lambda a, b: (a + b) / 2, first, second)
