"""ReLU multilayer perceptrons as resistive networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from substrates import arguments


def relu_fields(weights: Sequence[Any], biases: Sequence[Any], gamma: float) -> dict[str, Any]:
    """The fields of the layered network with the outputs of a ReLU multilayer perceptron, up to an error O(gamma).

    The perceptron is h_l = relu(h_{l-1} W_l + b_l), with a linear last layer. Each hidden unit becomes two nodes, an
    excitatory one at +h and an inhibitory one at -h. With W = W_plus - W_minus, equal kinds are joined by W_plus and
    unlike kinds by W_minus; a leak to ground brings every node of a layer to the same total G_l, an amplifier of gain
    G_l before the layer undoes the division by it, and a current source G_l b is the bias. The conductances (and
    currents) of layer l are scaled by gamma^(l-1), so that a layer feels the next one only at a relative weight of
    order gamma, and the network becomes feed-forward as gamma -> 0. Nudges shrink by gamma per layer on their way
    back. The node voltages are the activations.

    Args:
        weights: for each layer a matrix W_l of shape (n_{l-1}, n_l), as in `x @ W + b`.
        biases: for each layer a vector b_l of shape (n_l,).
        gamma: the scale of one layer's conductances to those of the layer before it, above 0 and below 1.

    Raises:
        ValueError: for matrices that do not fit together, values that are not finite, or a gamma outside (0, 1).

    Source: Scellier and Mishra 2025, arXiv 2312.15063.
    """
    matrices = [arguments.real_floats(f"weights[{layer}]", w) for layer, w in enumerate(weights)]
    vectors = [arguments.real_floats(f"biases[{layer}]", b) for layer, b in enumerate(biases)]
    _check(matrices, vectors, gamma)
    dtype = jnp.zeros(()).dtype
    conductance, bias_current, leak, totals = [], [], [], []
    for layer, (W, b) in enumerate(zip(matrices, vectors, strict=True)):
        excitatory, inhibitory = np.maximum(W, 0), np.maximum(-W, 0)
        g, bias = np.concatenate([excitatory, inhibitory]), b
        if layer < len(matrices) - 1:
            g = np.concatenate([g, np.concatenate([inhibitory, excitatory])], axis=1)
            bias = np.concatenate([b, -b])
        total = float(g.sum(axis=0).max()) or 1.0
        scale = gamma**layer
        conductance.append(jnp.asarray(scale * g, dtype))
        bias_current.append(jnp.asarray(scale * total * bias, dtype))
        leak.append(jnp.asarray(scale * (total - g.sum(axis=0))[None, :], dtype))
        totals.append(total)
    amplifiers = jnp.asarray(totals[1:], dtype)
    return {
        "conductance": tuple(conductance),
        "bias_current": tuple(bias_current),
        "rail_conductance": tuple(leak),
        "rail_voltage": jnp.zeros(1, dtype),
        "gain": amplifiers,
        "reverse_gain": amplifiers,
        "input_gain": jnp.asarray(totals[0], dtype),
    }


def _check(matrices: list[np.ndarray], vectors: list[np.ndarray], gamma: float) -> None:
    if not 0 < gamma < 1:
        raise ValueError(f"gamma: wanted a number above 0 and below 1, got {gamma}")
    if not matrices or len(matrices) != len(vectors):
        raise ValueError(
            f"weights, biases: wanted one matrix and one vector per layer, got {len(matrices)} and {len(vectors)}"
        )
    width = None
    for layer, (W, b) in enumerate(zip(matrices, vectors, strict=True)):
        if W.ndim != 2 or 0 in W.shape or (width is not None and W.shape[0] != width):
            before = "n_inputs" if width is None else width
            raise ValueError(f"weights[{layer}]: wanted shape ({before}, n), got {W.shape}")
        width = W.shape[1]
        if b.shape != (width,):
            raise ValueError(f"biases[{layer}]: wanted shape ({width},), got {b.shape}")
        if not (np.all(np.isfinite(W)) and np.all(np.isfinite(b))):
            raise ValueError(f"weights[{layer}], biases[{layer}]: wanted finite numbers, got infinities or NaN")
