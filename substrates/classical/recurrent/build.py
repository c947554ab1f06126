"""From the words of the constructors of recurrent networks to their fields, checked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from substrates import arguments
from substrates.classical.recurrent.connection import Connection
from substrates.wiring import Convolution, Dense, Pooling, chain_of_groups
from substrates.wiring.random_layers import (
    floating,
    image_shape,
    no_bias,
    positive_gains,
    positive_integers,
    uniform_each,
)


def layered_fields(
    sizes: Sequence[int], key: PRNGKeyArray, angle: float, gain: float | Sequence[float], dtype: Any
) -> dict[str, Any]:
    """The fields of `RecurrentNetwork.layered`."""
    sizes, dtype = positive_integers("sizes", sizes, 2), floating(dtype)
    gains = positive_gains(gain, len(sizes) - 1)
    there, back = there_and_back(key, tuple(itertools.pairwise(sizes)), gains, sizes[:-1], angle, dtype)
    shapes = tuple((size,) for size in sizes)
    return {
        **_chain(list(map(Dense, there)), list(map(Dense, back))),
        "bias": no_bias(sizes[1:], dtype),
        "shapes": shapes,
    }


def graph_fields(
    sizes: Sequence[int],
    connections: Sequence[tuple[int, int]],
    key: PRNGKeyArray,
    gain: float | Sequence[float],
    dtype: Any,
) -> dict[str, Any]:
    """The fields of `RecurrentNetwork.from_connections`."""
    sizes, dtype = positive_integers("sizes", sizes, 2), floating(dtype)
    pairs = np.asarray(connections)
    if pairs.ndim != 2 or pairs.shape[1:] != (2,) or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(f"connections: wanted pairs (source, target) of whole numbers, got {connections!r}")
    outside = [pair for pair in pairs.tolist() if not (0 <= pair[0] < len(sizes) and 1 <= pair[1] < len(sizes))]
    if outside:
        raise ValueError(
            f"connections: wanted sources from 0 to {len(sizes) - 1} and targets from 1, for the input is clamped, got "
            f"{tuple(outside[0])}"
        )
    twice = {tuple(pair) for pair in pairs.tolist() if pairs.tolist().count(pair) > 1}
    if twice:
        raise ValueError(f"connections: wanted each once, got {min(twice)} more than once; add their weights")
    gains = positive_gains(gain, len(pairs))
    bounds = gains / np.asarray([sizes[source] for source, _ in pairs.tolist()]) ** 0.5
    weights = uniform_each(key, tuple((sizes[a], sizes[b]) for a, b in pairs.tolist()), bounds, dtype)
    joined = tuple(Connection(Dense(w), a, b) for w, (a, b) in zip(weights, pairs.tolist(), strict=True))
    return {"connection": joined, "bias": no_bias(sizes[1:], dtype), "shapes": tuple((size,) for size in sizes)}


def convolutional_fields(
    input_shape: Sequence[int],
    channels: Sequence[int],
    n_outputs: int,
    key: PRNGKeyArray,
    angle: float,
    pooling: Pooling | None,
    kernel: int,
    padding: int,
    gain: float | Sequence[float],
    dtype: Any,
) -> dict[str, Any]:
    """The fields of `RecurrentNetwork.convolutional`."""
    shape, channels = image_shape("input_shape", input_shape), positive_integers("channels", channels)
    if not channels:
        raise ValueError("channels: wanted at least one hidden layer, got none; use layered for a network without")
    (kernel,), (n_outputs,) = positive_integers("kernel", [kernel]), positive_integers("n_outputs", [n_outputs])
    dtype, gains = floating(dtype), positive_gains(gain, len(channels) + 1)
    kernels = tuple((kernel, kernel, *pair) for pair in itertools.pairwise((shape[2], *channels)))
    maps = [Convolution(jnp.zeros(k, dtype), pooling, padding) for k in kernels]
    shapes = chain_of_groups(maps, shape)
    last = int(np.prod(shapes[-1]))
    fans = [*(int(np.prod(k[:3])) for k in kernels), last]
    there, back = there_and_back(key, (*kernels, (last, n_outputs)), gains, fans, angle, dtype)
    couple = lambda weights: [*(Convolution(w, pooling, padding) for w in weights[:-1]), Dense(weights[-1])]
    bias = no_bias((*channels, n_outputs), dtype)
    return {**_chain(couple(there), couple(back)), "bias": bias, "shapes": (*shapes, (n_outputs,))}


def circuit_fields(
    sizes: Sequence[int], key: PRNGKeyArray, angle: float, gain: float | Sequence[float], dtype: Any
) -> dict[str, Any]:
    """The fields of `PredictiveCodingCircuit.layered`."""
    sizes, dtype = positive_integers("sizes", sizes, 2), floating(dtype)
    gains = positive_gains(gain, len(sizes) - 1)
    there, back = there_and_back(key, tuple(itertools.pairwise(sizes)), gains, sizes[:-1], angle, dtype)
    return {"forward": tuple(map(Dense, there)), "feedback": tuple(map(Dense, back)), "bias": no_bias(sizes[1:], dtype)}


def there_and_back(
    key: PRNGKeyArray,
    shapes: tuple[tuple[int, ...], ...],
    gains: Sequence[float],
    fans: Sequence[int],
    angle: float,
    dtype: jnp.dtype,
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Random weights W forward, and B = cos(angle) W + sin(angle) R back, for all pairs of layers but the first.

    Raises ValueError for an angle that is no number of degrees from 0 to 180.
    """
    degrees = float(arguments.real_floats("angle", angle))
    if not 0 <= degrees <= 180:
        raise ValueError(f"angle: wanted degrees from 0 (tied) to 180, got {angle}")
    bounds = np.asarray(gains) / np.asarray(fans) ** 0.5
    forward, aside = jax.random.split(key)
    there = uniform_each(forward, shapes, bounds, dtype)
    others = uniform_each(aside, shapes[1:], bounds[1:], dtype) if len(shapes) > 1 else ()
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    mixed = tuple(
        jnp.asarray(cosine, dtype) * w + jnp.asarray(sine, dtype) * r for w, r in zip(there[1:], others, strict=True)
    )
    return there, mixed


def _chain(there: Sequence[Dense | Convolution], back: Sequence[Dense | Convolution]) -> dict[str, Any]:
    """Couplings along a chain, and those that lead back, not to the input."""
    forward = tuple(Connection(c, k, k + 1) for k, c in enumerate(there))
    return {"connection": (*forward, *(Connection(c, k + 1, k, transposed=True) for k, c in enumerate(back, 1)))}
