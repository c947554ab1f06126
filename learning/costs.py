"""What the outputs should do: costs C(output, target), scalar, analytic and without parameters."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from substrates.substrate import Cost, SquaredError

__all__ = ["CrossEntropy", "NegativeLogLikelihood", "PhaseCost", "PositionError", "SquaredError"]


class CrossEntropy(eqx.Module):
    """C = -sum_k target_k log softmax(output)_k, with target a distribution (one-hot labels, say).

    The softmax is read outside the relaxing system: the outputs feel the pull beta (target - softmax(output)).

    Source: Laborieux et al. 2021, arXiv 2006.03824.
    """

    def __call__(self, output: Inexact[Array, "outputs"], target: Inexact[Array, "outputs"]) -> Inexact[Array, ""]:
        shift = jax.lax.stop_gradient(jnp.max(output.real)).astype(output.dtype)
        log_normaliser = jnp.log(jnp.sum(jnp.exp(output - shift))) + shift
        return jnp.sum(target) * log_normaliser - jnp.sum(target * output)


class PhaseCost(eqx.Module):
    """C = sum_k log((2 + e) / (1 + e + cos(output_k - target_k))), for outputs and targets that are phases, radians.

    Periodic, zero at the target, and of growing torque sin d / (1 + e + cos d) up to phase errors d close to pi, where
    squared chords 1 - cos d have lost theirs (and training with them collapses). At e = 0 the torque tan(d/2) and the
    cost are infinite at d = pi; e > 0 bounds them, the torque by 1 / sqrt(2 e + e^2).

    Attributes:
        softening: e, positive.

    Source: Wang, Wanjura and Marquardt 2024, arXiv 2402.08579, where e = 0.
    """

    softening: float = 0.05

    def __check_init__(self):
        if isinstance(self.softening, (int, float)) and not 0 < self.softening < float("inf"):
            raise ValueError(f"softening: wanted a positive number, got {self.softening}")

    def __call__(self, output: Inexact[Array, "outputs"], target: Inexact[Array, "outputs"]) -> Inexact[Array, ""]:
        return -jnp.sum(jnp.log((1 + self.softening + jnp.cos(output - target)) / (2 + self.softening)))


class PositionError(eqx.Module):
    """C = 1/2 sum_o <(x_o - y_o)^2>, the squared error of positions that fluctuate, their variance included.

    For outputs that are moments, <x_o> of all followed by <x_o^2>; the target holds those of y, (y, y^2) for a sharp
    one. It is linear in the outputs: a nudge is the operator beta (x - y)^2/2 added to the Hamiltonian, a spring to y,
    which stiffens the output and so quietens it. `SquaredError` of the means alone is a force on them.
    """

    def __call__(self, output: Inexact[Array, "outputs"], target: Inexact[Array, "outputs"]) -> Inexact[Array, ""]:
        if output.shape != target.shape or output.size % 2:
            raise ValueError(
                f"target: wanted moments (y, y^2) in the shape of the outputs, {output.shape}, got {target.shape}"
            )
        (mean, second), (wanted, squared) = jnp.split(output, 2), jnp.split(target, 2)
        return 0.5 * jnp.sum(second - 2 * mean * wanted + squared)


class NegativeLogLikelihood(eqx.Module):
    """C = -sum_k target_k log output_k, for outputs that are probabilities: cross-entropy of a measurement's outcomes.

    The target is a distribution (one-hot labels, say). The pull beta target / output asks for outputs that are
    positive; the cost of an outcome that never happens is infinite.
    """

    separable: ClassVar[bool] = True

    def __call__(self, output: Inexact[Array, "outputs"], target: Inexact[Array, "outputs"]) -> Inexact[Array, ""]:
        return -jnp.sum(target * jnp.log(output))


def mean_cost(cost: Cost, outputs: Float[np.ndarray, "n outputs"], targets: Float[np.ndarray, "n outputs"]) -> float:
    """The mean over examples, computed on a power of two of them, so that few programs serve all numbers."""
    size = len(outputs)
    padded = np.arange(2 ** math.ceil(math.log2(size))) % size
    return float(np.mean(np.asarray(_costs(cost, outputs[padded], targets[padded]))[:size]))


@eqx.filter_jit
def _costs(cost: Cost, outputs: Any, targets: Any) -> Any:
    return jax.vmap(cost)(outputs, targets)
