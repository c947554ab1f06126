"""What is read along a path: sums over its steps, so that whoever runs along it need not keep it."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Int

from substrates import arguments


class Meter(eqx.Module):
    """Outputs that are sums over the steps of a path, o = sum_k reading(q_k, k)."""

    @abc.abstractmethod
    def __call__(self, position: Inexact[Array, " n"], step: Int[Array, ""]) -> Inexact[Array, "outputs"]:
        """What step k at the position q_k adds to the outputs."""

    def check(self, n: int, steps: int) -> None:
        """Raises ValueError where a path of n coordinates and steps 0 to `steps` does not have what it reads."""


class Samples(Meter):
    """Coordinates at some steps: o = q_k[coordinates], step after step in one row.

    Attributes:
        coordinates: which ones, each once.
        steps: when, each once.
    """

    coordinates: tuple[int, ...] = eqx.field(static=True, converter=lambda given: _whole("coordinates", given))
    steps: tuple[int, ...] = eqx.field(static=True, converter=lambda given: _whole("steps", given))

    def __call__(self, position: Inexact[Array, " n"], step: Int[Array, ""]) -> Inexact[Array, "outputs"]:
        now = np.asarray(self.steps)[:, None] == step
        return jnp.where(now, _taken(position, self.coordinates)[None], 0).ravel()

    def check(self, n: int, steps: int) -> None:
        arguments.different_nodes("coordinates", self.coordinates, n, "coordinate")
        arguments.different_nodes("steps", self.steps, steps + 1, "step")


class MeanSquare(Meter):
    """The mean of q^2 over steps start, ..., stop - 1, for each of some coordinates: how strongly they move.

    Attributes:
        coordinates: which ones, each once.
        start, stop: from and up to which step.
    """

    coordinates: tuple[int, ...] = eqx.field(static=True, converter=lambda given: _whole("coordinates", given))
    start: int = eqx.field(static=True)
    stop: int = eqx.field(static=True)

    def __call__(self, position: Inexact[Array, " n"], step: Int[Array, ""]) -> Inexact[Array, "outputs"]:
        now = (step >= self.start) & (step < self.stop)
        return jnp.where(now, _taken(position, self.coordinates) ** 2, 0) / (self.stop - self.start)

    def check(self, n: int, steps: int) -> None:
        arguments.different_nodes("coordinates", self.coordinates, n, "coordinate")
        if not 0 <= self.start < self.stop <= steps + 1:
            raise ValueError(
                f"start, stop: wanted 0 <= start < stop <= {steps + 1}, got start = {self.start}, stop = {self.stop}"
            )


def _taken(position: Inexact[Array, " n"], coordinates: tuple[int, ...]) -> Inexact[Array, " m"]:
    """Some coordinates; by sums over a mask, whose derivative compilers fuse, and not that of indices."""
    mask = np.asarray(coordinates)[:, None] == np.arange(position.size)
    return jnp.sum(jnp.where(mask, position[None], 0), axis=1)


def _whole(name: str, given: Sequence[Any]) -> tuple[int, ...]:
    found = tuple(arguments.whole(name, value) for value in arguments.listed(name, given))
    if not found:
        raise ValueError(f"{name}: wanted at least one, got none")
    return found
