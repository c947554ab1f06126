"""Ways to build a Hopfield network."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from substrates import arguments
from substrates.classical.hopfield.network import HopfieldNetwork
from substrates.wiring import Convolution, Dense, Pooling


def layered_network(
    sizes: Sequence[int], *, key: PRNGKeyArray, gain: float | Sequence[float] = 1.0, dtype: Any = None
) -> HopfieldNetwork:
    """Dense layers with random couplings, uniform in gain / sqrt(n_before) times (-1, 1), and no bias.

    Args:
        sizes: the numbers of inputs, of units in each hidden layer, and of outputs.
        key: draws the couplings.
        gain: one number, or one for each coupling.
        dtype: of the parameters (float32, float64 or bfloat16); JAX's default if None.

    Raises:
        ValueError: for sizes that are not at least two positive integers, or gains that are not positive and finite.
    """
    sizes = _integers("sizes", sizes)
    if len(sizes) < 2:
        raise ValueError(f"sizes: wanted at least two numbers (inputs, ..., outputs), got {sizes}")
    dtype, gains = _dtype(dtype), _gains(gain, len(sizes) - 1)
    keys = jax.random.split(key, len(sizes) - 1)
    couplings = tuple(
        Dense(_uniform(k, (m, n), g / m**0.5, dtype))
        for k, m, n, g in zip(keys, sizes[:-1], sizes[1:], gains, strict=True)
    )
    return HopfieldNetwork(couplings, tuple(jnp.zeros(n, dtype) for n in sizes[1:]), (sizes[0],))


def convolutional_network(
    input_shape: Sequence[int],
    channels: Sequence[int],
    n_outputs: int,
    *,
    key: PRNGKeyArray,
    pooling: Pooling | None = "average",
    kernel: int = 3,
    padding: int = 1,
    gain: float | Sequence[float] = 0.5,
    dtype: Any = None,
) -> HopfieldNetwork:
    """Layers of feature maps, each a convolution and 2x2 pooling of the one before, and dense outputs.

    Args:
        input_shape: (height, width, channels) of the images.
        channels: of each hidden layer, at least one.
        n_outputs: how many outputs.
        key: draws the couplings, uniform in gain / sqrt(fan-in) times (-1, 1).
        pooling: None, "average", "max" or "soft". Average pooling keeps the interactions bilinear; maximum pooling,
            the published choice, has kinks (see `HopfieldNetwork`).
        kernel: the side of every kernel.
        padding: zeros added on each side before a convolution.
        gain: one number, or one for each coupling, the last to the outputs.
        dtype: of the parameters; JAX's default if None.

    Raises:
        ValueError: for numbers that are not positive, and for windows of pooling that do not divide the maps.

    Source: Scellier, Ernoult, Kendall and Kumar 2023, arXiv 2312.15103.
    """
    shape, channels = _integers("input_shape", input_shape), _integers("channels", channels)
    if len(shape) != 3:
        raise ValueError(f"input_shape: wanted (height, width, channels), got {shape}")
    if not channels:
        raise ValueError("channels: wanted at least one hidden layer, got none; use layered for a network without")
    (kernel,), (n_outputs,) = _integers("kernel", [kernel]), _integers("n_outputs", [n_outputs])
    dtype, gains = _dtype(dtype), _gains(gain, len(channels) + 1)
    keys = jax.random.split(key, len(channels) + 1)
    couplings: list[Dense | Convolution] = []
    before = shape
    for k, (count, g) in enumerate(zip(channels, gains[:-1], strict=True)):
        weight = (kernel, kernel, before[2], count)
        bound = g / (kernel * kernel * before[2]) ** 0.5
        couplings.append(Convolution(_uniform(keys[k], weight, bound, dtype), pooling, padding))
        try:
            before = couplings[-1].after(before)
        except ValueError as error:
            raise ValueError(f"coupling {k}: {error}") from None
    size = int(np.prod(before))
    couplings.append(Dense(_uniform(keys[-1], (size, n_outputs), gains[-1] / size**0.5, dtype)))
    biases = tuple(jnp.zeros(n, dtype) for n in (*channels, n_outputs))
    return HopfieldNetwork(tuple(couplings), biases, shape)


def memory_of_patterns(patterns: Any, *, dtype: Any = None) -> HopfieldNetwork:
    """Hopfield's associative memory as a network of two layers: N units in [0, 1] and P linear ones, the overlaps.

    With couplings xi / sqrt(P) the linear layer, at its minimum, leaves the Hebbian interaction
    J = xi' xi / P between the units, and their own energy 1/2 s^2 cancels its diagonal exactly. What remains,
    -1/2 sum_(i != j) J_ij s_i s_j - b s, is linear in every unit, so its minima are corners of the cube: in the spins
    sigma = 2 s - 1 they are the stable states of E = -1/2 sum_(i != j) J_ij sigma_i sigma_j (the bias b removes the
    field that the change of variables brings). Give a cue by `start = (s, xi s / sqrt(P))`; the input has no effect.

    Args:
        patterns: xi, shape (P, N), entries +1 and -1.
        dtype: of the parameters; JAX's default if None.

    Raises:
        ValueError: for anything but a matrix of +1 and -1.

    Source: Hopfield 1982; as two layers, Krotov and Hopfield 2021, arXiv 2008.06996.
    """
    xi = arguments.real_floats("patterns", patterns)
    if xi.ndim != 2 or 0 in xi.shape or not np.all(np.abs(xi) == 1):
        raise ValueError(f"patterns: wanted a matrix (patterns, units) of +1 and -1, got shape {xi.shape}")
    count, units = xi.shape
    weight = xi.T / count**0.5
    row_sums = weight @ weight.sum(axis=0) - 1.0
    dtype = _dtype(dtype)
    cast = lambda values: jnp.asarray(values, dtype)
    couplings = Dense(jnp.zeros((1, units), dtype)), Dense(cast(weight))
    return HopfieldNetwork(couplings, (cast(-row_sums / 2), jnp.zeros(count, dtype)), (1,))


def _uniform(key: PRNGKeyArray, shape: tuple[int, ...], bound: float, dtype: Any) -> Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _integers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    try:
        found = tuple(operator.index(value) for value in values)
    except TypeError:
        found = (0,)
    if min(found, default=1) < 1:
        raise ValueError(f"{name}: wanted positive integers, got {values}")
    return found


def _gains(gain: float | Sequence[float], count: int) -> list[float]:
    arguments.refuse_complex("gain", np.asarray(gain))
    gains = [float(g) for g in np.broadcast_to(gain, count)] if np.size(gain) in (1, count) else []
    if not gains or not all(np.isfinite(g) and g > 0 for g in gains):
        raise ValueError(f"gain: wanted a positive finite number, or {count} of them, got {gain}")
    return gains


def _dtype(dtype: Any) -> Any:
    found = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
    if not jnp.issubdtype(found, jnp.floating):
        raise ValueError(f"dtype: wanted a real floating-point type, got {found}")
    return found
