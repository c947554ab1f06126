"""Networks of layers: Hopfield, predictive coding, and recurrent vector fields of a given asymmetry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis.strategies import SearchStrategy
from jax.typing import DTypeLike

from substrates.classical.hopfield import HopfieldNetwork, SmoothHopfieldNetwork
from substrates.classical.predictive_coding import PredictiveCodingNetwork
from substrates.classical.recurrent import RecurrentNetwork
from theory_checks.strategies.draws import Draw, drawn, refilled


def hopfield_networks(
    sizes: Sequence[int] = (3, 4, 2),
    *,
    activation: Literal["hard", "sigmoid", "tanh"] = "hard",
    gain: float = 0.5,
    dtype: DTypeLike = float,
) -> SearchStrategy[HopfieldNetwork | SmoothHopfieldNetwork]:
    """Deep Hopfield networks whose couplings, below gain / sqrt(units before), leave one equilibrium.

    Args:
        sizes: the numbers of inputs, of units in each hidden layer, and of outputs.
        activation: "hard" for units clipped to [0, 1], or that of a `SmoothHopfieldNetwork`.
        gain: scales the couplings; above 1 there may be several equilibria.
        dtype: of the parameters.

    Raises ValueError for another activation, and for what the class refuses.
    """
    if activation not in ("hard", "sigmoid", "tanh"):
        raise ValueError(f"activation: wanted 'hard', 'sigmoid' or 'tanh', got {activation!r}")
    kind, key = jnp.zeros((), dtype).dtype, jax.random.key(0)
    if activation == "hard":
        template = HopfieldNetwork.layered(sizes, key=key, gain=gain, dtype=kind)
    else:
        template = SmoothHopfieldNetwork.layered(sizes, key=key, gain=gain, activation=activation, dtype=kind)
    return drawn(lambda draw: refilled(template, _filler(draw, gain)))


def predictive_coding_networks(
    sizes: Sequence[int] = (3, 4, 2), *, gain: float = 1.0, dtype: DTypeLike = float
) -> SearchStrategy[PredictiveCodingNetwork]:
    """Dense predictive coding networks; with the equal weights to which they shrink all nodes are active.

    Args:
        sizes: the numbers of inputs, of nodes in each hidden layer, and of outputs.
        gain: scales the weights.
        dtype: of the parameters.

    Raises ValueError for what the class refuses.
    """
    kind = jnp.zeros((), dtype).dtype
    template = PredictiveCodingNetwork.dense(sizes, key=jax.random.key(0), gain=gain, dtype=kind)
    return drawn(lambda draw: refilled(template, _filler(draw, gain)))


def recurrent_networks(
    sizes: Sequence[int] = (3, 4, 2),
    *,
    angle: float = 30.0,
    activation: Literal["sigmoid", "tanh"] = "tanh",
    gain: float = 0.5,
    dtype: DTypeLike = float,
) -> SearchStrategy[RecurrentNetwork]:
    """Vector fields without an energy: forward weights W, and cos(angle) W + sin(angle) R back, |R| of the size of W.

    At an angle of 0 the weights are tied, the Jacobian is symmetric, and equilibrium propagation has no bias but that
    of beta.

    Args:
        sizes: the numbers of inputs, of units in each hidden layer, and of outputs.
        angle: the asymmetry, in degrees from 0 to 180.
        activation: "sigmoid" or "tanh".
        gain: scales the weights; well below 1 the flow contracts.
        dtype: of the parameters.

    Raises ValueError for what the class refuses.
    """
    kind = jnp.zeros((), dtype).dtype
    options = {"angle": angle, "activation": activation, "gain": gain, "dtype": kind}
    template = RecurrentNetwork.layered(sizes, key=jax.random.key(0), **options)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    weights = lambda net: [each.coupling.weight for each in net.connection]

    def build(draw: Draw) -> RecurrentNetwork:
        net = refilled(template, _filler(draw, gain))
        forward = {(each.source, each.target): each.coupling.weight for each in net.connection if not each.transposed}
        tied = [
            cosine * forward[each.target, each.source] + sine * _alternating(each.coupling.weight)
            if each.transposed
            else each.coupling.weight
            for each in net.connection
        ]
        return eqx.tree_at(weights, net, [jnp.asarray(weight, kind) for weight in tied])

    return drawn(build)


def _alternating(weight: jax.Array) -> jax.Array:
    """The same sizes with alternating signs, so that weights that are all equal have feedback of another direction."""
    return weight * (1 - 2 * (np.indices(weight.shape).sum(axis=0) % 2)).astype(weight.dtype)


def _filler(draw: Draw, gain: float):
    """Weights up to gain / sqrt(fan in), and biases up to 0.3."""
    return lambda shape: draw.numbers(shape, gain / shape[0] ** 0.5 if len(shape) > 1 else 0.3)
