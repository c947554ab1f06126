"""Gradients against differences of the function that they are to be the gradient of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import PyTree

from substrates.substrate import Substrate
from theory_checks.case import Case, flat, inner_product, larger


class Difference(NamedTuple):
    """A gradient along a direction of the parameters, and the slope of a function there.

    Attributes:
        gradient: <gradient, direction>.
        slope: of the function, by differences of fourth order.
        size: |gradient| |direction|.
        largest: the function's largest size among the values that were subtracted.
    """

    gradient: float
    slope: float
    size: float
    largest: float

    @property
    def error(self) -> float:
        """How far apart they are, over `size`."""
        return abs(self.gradient - self.slope) / self.size


def along_directions(
    case: Case, gradient: PyTree, function: Callable[[Substrate], float], step: float, seeds: Sequence[int] = (30, 31)
) -> list[Difference]:
    """A gradient beside differences of a function of the system, along a random direction for each seed."""
    found = []
    for seed in seeds:
        towards = case.direction(seed)
        values = [[function(case.shifted(towards, sign * h)) for sign in (1.0, -1.0)] for h in (step, step / 2)]
        coarse, fine = ((up - down) / (2 * h) for (up, down), h in zip(values, (step, step / 2), strict=True))
        size = float(np.linalg.norm(flat(gradient)) * np.linalg.norm(flat(towards)))
        found.append(
            Difference(
                inner_product(gradient, towards),
                (4 * fine - coarse) / 3,
                larger(size, np.finfo(case.dtype).tiny),
                float(np.max(np.abs(values))),
            )
        )
    return found
