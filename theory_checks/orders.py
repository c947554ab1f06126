"""The order in which an error falls with a strength or a step, fitted over several of them, with its error bar."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from theory_checks.report import Law, at_least, does_not_apply

CLEAN = 10
"""By how many times a bias must exceed the noise to count in a fit."""

COARSEST = 1 / 6
"""An order is decided if its error bar is at most this part of it."""


@dataclasses.dataclass(frozen=True)
class Order:
    """A power law fitted to errors, e = c beta^p.

    Attributes:
        power: p.
        error_bar: the standard error of p.
        strengths: of those that were fitted, the largest and the smallest.
        count: how many were fitted.
    """

    power: float
    error_bar: float
    strengths: tuple[float, float]
    count: int

    def __str__(self) -> str:
        first, last = self.strengths
        return (
            f"fitted over {self.count} strengths, {first:.2g} to {last:.2g}: {self.power:.3f} +- {self.error_bar:.3f}"
        )


def fit_order(
    strengths: Sequence[float], errors: Sequence[float], order: float, noise: float | None = None
) -> Order | None:
    """The power of errors in beta by a weighted fit of their logarithms; None where too few rise above the noise.

    An error is taken for a bias c beta^p with noise on it, and a next power of beta above it. Noise of unknown size
    goes as n/beta, with n the root mean square of error times beta at the four smallest strengths, so that one error
    small by chance does not count for little noise. An error weighs with the inverse square of what noise and next
    power, (beta/beta_max)^p at most, leave uncertain of its logarithm. Where the scatter about the line is larger than
    that, it makes the error bar, and alone where the noise is known.

    Args:
        strengths: nudges, or steps of another kind; at least four, or three where the noise is known.
        errors: relative errors of the gradient, say, at each.
        order: the power p that is expected, which scales the next power.
        noise: of the errors, where it is known: the same at all strengths.
    """
    betas, sizes = np.asarray(strengths, float), np.asarray(errors, float)
    usable = np.isfinite(sizes) & (sizes > 0)
    if np.sum(usable) < (4 if noise is None else 3):
        return None
    falling = np.argsort(-betas[usable])
    betas, sizes = betas[usable][falling], sizes[usable][falling]
    around = np.sqrt(np.mean((betas * sizes)[-4:] ** 2)) / betas if noise is None else np.full(betas.shape, noise)
    clean = sizes > CLEAN * around
    if np.sum(clean) < 3:
        return None
    beta, error = betas[clean], sizes[clean]
    doubt = np.hypot(around[clean] / error, (beta / betas[0]) ** order)
    weight = 1 / doubt**2
    x, y = np.log(beta), np.log(error)
    x_mean, y_mean = np.average(x, weights=weight), np.average(y, weights=weight)
    spread = float(np.sum(weight * (x - x_mean) ** 2))
    power = float(np.sum(weight * (x - x_mean) * (y - y_mean))) / spread
    scatter = float(np.sum(weight * (y - y_mean - power * (x - x_mean)) ** 2)) / (len(x) - 2)
    least = 1.0 if noise is None else 0.0
    return Order(power, math.sqrt(max(least, scatter) / spread), (float(beta[0]), float(beta[-1])), len(x))


def order_law(name: str, betas: Sequence[float], errors: Sequence[float], order: int, resolution: float) -> Law:
    """The law that errors fall at least as beta^order: the fitted power, and two error bars, reach 0.9 of it.

    It does not apply where no bias is left to measure, or where the arithmetic is too coarse to tell it from noise.
    """
    if max(errors) <= resolution:
        return does_not_apply(name, f"No bias to measure: the error is at most {max(errors):.1e} at every beta.")
    if all(abs(e / errors[0] - 1) < 0.1 for e in errors):
        return at_least(name, "order of the error, which does not depend on beta", 0.0, 0.9 * order)
    found = fit_order(betas, errors, order)
    if found is None or found.error_bar > COARSEST * order:
        return does_not_apply(name, "The arithmetic is too coarse to tell bias from noise; check in float64.")
    return at_least(name, f"order of the error, {found}", found.power, 0.9 * order - 2 * found.error_bar)
