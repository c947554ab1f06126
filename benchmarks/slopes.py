"""How far equilibrium propagation is from the gradient of the exact loss, over decades of beta."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BETAS = 10.0 ** np.arange(-6, -0.9, 0.5)
# three decades each, above rounding and below the next order of the bias
FITTED = {"positive": slice(2, 9), "centered": slice(4, 11)}


def central_differences(loss: Callable[[np.ndarray], float], at: np.ndarray, step: float) -> np.ndarray:
    """The gradient of a loss by central differences of fourth order."""
    weights = ((1, 8), (-1, -8), (2, -1), (-2, 1))
    sides = [sum(w * loss(at + k * step * e) for k, w in weights) for e in np.eye(at.size)]
    return np.array(sides) / (12 * step)


def report_slopes(title: str, gradient: Callable[[str, float], np.ndarray], wanted: np.ndarray) -> None:
    """Prints relative errors (2-norm) of one-sided and centred nudges, and their slopes over three decades of beta."""
    print(f"{title}\n  beta     " + " ".join(f"{beta:.0e}" for beta in BETAS))
    for variant, part in FITTED.items():
        errors = np.array([np.linalg.norm(gradient(variant, beta) - wanted) for beta in BETAS]) / np.linalg.norm(wanted)
        slope = np.polyfit(np.log(BETAS[part]), np.log(errors[part]), 1)[0]
        shown = " ".join(f"{error:.0e}" for error in errors)
        print(f"  {variant:8} {shown}   slope {slope:.3f}   best {errors.min():.1e}", flush=True)
