"""What the outputs should do: costs C(output, target), scalar, analytic and without parameters."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact


class SquaredError(eqx.Module):
    """C = 1/2 |output - target|^2; as a nudge, a spring (a conductance) of strength beta to the target."""

    def __call__(self, output: Inexact[Array, "outputs"], target: Inexact[Array, "outputs"]) -> Inexact[Array, ""]:
        return 0.5 * jnp.sum((output - target) ** 2)


class CrossEntropy(eqx.Module):
    """C = -sum_k target_k log softmax(output)_k, with target a distribution (one-hot labels, say).

    The softmax is read outside the relaxing system: the outputs feel the pull beta (target - softmax(output)).

    Source: Laborieux et al. 2021, arXiv 2006.03824.
    """

    def __call__(self, output: Inexact[Array, "outputs"], target: Inexact[Array, "outputs"]) -> Inexact[Array, ""]:
        shift = jax.lax.stop_gradient(jnp.max(output.real)).astype(output.dtype)
        log_normaliser = jnp.log(jnp.sum(jnp.exp(output - shift))) + shift
        return jnp.sum(target) * log_normaliser - jnp.sum(target * output)
