"""From the words of `HopfieldNetwork`'s constructors to its fields, checked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from substrates import arguments
from substrates.wiring import Convolution, Dense, Pooling, chain_of_groups
from substrates.wiring.random_layers import (
    floating,
    image_shape,
    no_bias,
    positive_gains,
    positive_integers,
    uniform,
    uniform_each,
)


def layered_fields(
    sizes: Sequence[int], key: PRNGKeyArray, gain: float | Sequence[float], dtype: Any
) -> dict[str, Any]:
    """The fields of `HopfieldNetwork.layered`."""
    sizes, dtype = positive_integers("sizes", sizes, 2), floating(dtype)
    gains = positive_gains(gain, len(sizes) - 1)
    bounds = gains / np.asarray(sizes[:-1]) ** 0.5
    coupling = tuple(map(Dense, uniform_each(key, tuple(itertools.pairwise(sizes)), bounds, dtype)))
    return {"coupling": coupling, "bias": no_bias(sizes[1:], dtype), "input_shape": sizes[:1]}


def convolutional_fields(
    input_shape: Sequence[int],
    channels: Sequence[int],
    n_outputs: int,
    key: PRNGKeyArray,
    pooling: Pooling | None,
    kernel: int,
    padding: int,
    gain: float | Sequence[float],
    dtype: Any,
) -> dict[str, Any]:
    """The fields of `HopfieldNetwork.convolutional`."""
    shape, channels = image_shape("input_shape", input_shape), positive_integers("channels", channels)
    if not channels:
        raise ValueError("channels: wanted at least one hidden layer, got none; use layered for a network without")
    (kernel,), (n_outputs,) = positive_integers("kernel", [kernel]), positive_integers("n_outputs", [n_outputs])
    dtype, gains = floating(dtype), positive_gains(gain, len(channels) + 1)
    *keys, last = jax.random.split(key, len(gains))
    maps = []
    for k, (before, after), g in zip(keys, itertools.pairwise((shape[2], *channels)), gains[:-1], strict=True):
        weight = uniform(k, (kernel, kernel, before, after), kernel**2 * before, g, dtype)
        maps.append(Convolution(weight, pooling, padding))
    size = int(np.prod(chain_of_groups(maps, shape)[-1]))
    outputs = Dense(uniform(last, (size, n_outputs), size, gains[-1], dtype))
    return {"coupling": (*maps, outputs), "bias": no_bias((*channels, n_outputs), dtype), "input_shape": shape}


def memory_fields(patterns: Any, dtype: Any) -> dict[str, Any]:
    """The fields of `HopfieldNetwork.from_patterns`."""
    xi = arguments.real_floats("patterns", patterns)
    if xi.ndim == 2 and xi.size and np.all((xi == 0) | (xi == 1)) and np.any(xi == 0):
        raise ValueError("patterns: wanted entries +1 and -1, got 0 and 1: give 2 * patterns - 1")
    if xi.ndim != 2 or 0 in xi.shape or not np.all(np.abs(xi) == 1):
        raise ValueError(f"patterns: wanted a matrix (patterns, units) of +1 and -1, got shape {xi.shape}")
    count, units = xi.shape
    weight = xi.T / count**0.5
    row_sums = weight @ weight.sum(axis=0) - 1.0
    dtype = floating(dtype)
    coupling = Dense(jnp.zeros((1, units), dtype)), Dense(jnp.asarray(weight, dtype))
    bias = jnp.asarray(-row_sums / 2, dtype), jnp.zeros(count, dtype)
    return {"coupling": coupling, "bias": bias, "input_shape": (1,)}
