"""Predictive coding networks with random weights: dense, convolutional, and the published VGG shapes."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from substrates import arguments
from substrates.classical.predictive_coding.error_sweep import ErrorSweep
from substrates.classical.predictive_coding.network import PredictiveCodingNetwork, Rectifier, Skip
from substrates.solvers.solver import Solver
from substrates.wiring import Convolution, Dense, Pooling

Fan = Literal["in", "out"]


def dense_network(
    sizes: Sequence[int],
    *,
    key: PRNGKeyArray,
    gain: float = 1.0,
    rectifier: Rectifier = "buffered",
    solver: Solver | None = None,
    dtype: Any = None,
) -> PredictiveCodingNetwork:
    """Layers of nodes, each fully coupled to the next, with weights and biases uniform in gain / sqrt(fan in) (-1, 1).

    Args:
        sizes: the numbers of inputs, of nodes in each hidden layer, and of outputs.
        key: draws the weights.
        gain: scales them.
        rectifier: what hidden activities may do; see `PredictiveCodingNetwork`.
        solver: how it settles; by default `ErrorSweep()`, until converged.
        dtype: of the parameters; JAX's default if None.

    Raises:
        ValueError: for sizes that are not at least two positive integers, and a gain that is not positive and finite.
    """
    sizes = _whole("sizes", sizes, 2)
    draw = _Draw(key, gain, dtype)
    coupling = tuple(Dense(draw((before, after), before)) for before, after in itertools.pairwise(sizes))
    bias = tuple(draw((after,), before) for before, after in itertools.pairwise(sizes))
    return PredictiveCodingNetwork(
        coupling, bias, shape=(sizes[0],), rectifier=rectifier, solver=ErrorSweep() if solver is None else solver
    )


def convolutional_network(
    shape: tuple[int, int, int],
    channels: Sequence[int],
    dense: Sequence[int],
    *,
    key: PRNGKeyArray,
    pooled: Sequence[int] = (),
    pooling: Pooling = "max",
    skips: Sequence[tuple[int, int]] = (),
    gain: float = 1.0,
    fan: Fan = "in",
    rectifier: Rectifier = "buffered",
    solver: Solver | None = None,
    dtype: Any = None,
) -> PredictiveCodingNetwork:
    """Feature maps joined by 3x3 convolutions of stride one with a border of zeros, some pooled, then dense layers.

    Args:
        shape: of the input, (height, width, channels).
        channels: of each convolutional layer.
        dense: the numbers of nodes in each layer after them; the last one is read.
        key: draws the weights, uniform in gain / sqrt(fan) (-1, 1).
        pooled: the numbers of the layers, the first being 1, whose maps are pooled by 2x2.
        pooling: "max", "average" or "soft".
        skips: pairs (source, target) of layers joined by a 1x1 convolution with the stride that makes one's maps the
            other's; 0 is the input.
        gain: scales the weights.
        fan: "in" or "out", what the convolutions' weights are scaled by; dense layers and skips use "in".
        rectifier: what hidden activities may do; see `PredictiveCodingNetwork`.
        solver: how it settles; by default `ErrorSweep()`, until converged, but for maximum pooling two sweeps without
            a test: there a nudge brings the largest entries of a window to a tie, where no force vanishes.
        dtype: of the parameters; JAX's default if None.

    Raises:
        ValueError: for sizes that are no positive integers, windows that do not divide the maps, layers to pool or
            to skip that do not exist or do not fit.
    """
    shape = _whole("shape", shape, 3)
    channels = _whole("channels", channels, 1)
    dense = _whole("dense", dense, 1)
    if len(shape) != 3:
        raise ValueError(f"shape: wanted (height, width, channels), got {shape}")
    wrong = [k for k in pooled if k not in range(1, len(channels) + 1)]
    if wrong:
        raise ValueError(f"pooled: wanted numbers of convolutional layers, 1 to {len(channels)}, got {wrong}")
    if fan not in ("in", "out"):
        raise ValueError(f"fan: wanted 'in' or 'out', got {fan!r}")
    draw = _Draw(key, gain, dtype)
    coupling: list[Dense | Convolution] = []
    bias: list[Array] = []
    shapes: list[tuple[int, ...]] = [shape]
    for k, after in enumerate(channels, 1):
        before = shapes[-1][2]
        scale = 9 * (before if fan == "in" else after)
        layer = Convolution(draw((3, 3, before, after), scale), pooling if k in pooled else None)
        try:
            shapes.append(layer.after(shapes[-1]))
        except ValueError as error:
            raise ValueError(f"pooled: layer {k}: {error}") from None
        coupling.append(layer)
        bias.append(draw((after,), 9 * before))
    for after in dense:
        before = int(np.prod(shapes[-1]))
        coupling.append(Dense(draw((before, after), before)))
        bias.append(draw((after,), before))
        shapes.append((after,))
    return PredictiveCodingNetwork(
        tuple(coupling),
        tuple(bias),
        tuple(_skip(source, target, shapes, draw) for source, target in skips),
        shape=shape,
        rectifier=rectifier,
        solver=ErrorSweep(2 if pooled and pooling == "max" else None) if solver is None else solver,
    )


def vgg5(
    shape: tuple[int, int, int], n_outputs: int, *, key: PRNGKeyArray, width: float = 1.0, **options: Any
) -> PredictiveCodingNetwork:
    """Channels 128, 256-P, 512-P, 512-P, 512-P (P: pooled), then the outputs: for inputs of 32x32.

    Args:
        shape: of the input; its sides must be multiples of 16.
        n_outputs: how many classes.
        key: draws the weights.
        width: a factor on the numbers of channels.
        options: of `convolutional_network`.

    Source: Kerjan, Hoier and Scellier 2026, arXiv 2606.03584.
    """
    channels = _scaled((128, 256, 512, 512, 512), width)
    defaults: dict[str, Any] = {"pooled": (2, 3, 4, 5)}
    return convolutional_network(shape, channels, (n_outputs,), key=key, **(defaults | options))


def vgg10(
    shape: tuple[int, int, int], n_outputs: int, *, key: PRNGKeyArray, width: float = 1.0, **options: Any
) -> PredictiveCodingNetwork:
    """Channels 64-P, 128-P, 256, 256-P, 512, 512-P, 512, 512-P, then 2048 nodes and the outputs: for ImageNet.

    Args:
        shape: of the input; its sides must be multiples of 32.
        n_outputs: how many classes.
        key: draws the weights.
        width: a factor on the numbers of channels and of nodes in the dense hidden layer.
        options: of `convolutional_network`; the published skip connections are skips=((2, 5), (5, 8)).

    Source: Kerjan, Hoier and Scellier 2026, arXiv 2606.03584.
    """
    channels = _scaled((64, 128, 256, 256, 512, 512, 512, 512), width)
    dense = (*_scaled((2048,), width), n_outputs)
    defaults: dict[str, Any] = {"pooled": (1, 2, 4, 6, 8), "fan": "out"}
    return convolutional_network(shape, channels, dense, key=key, **(defaults | options))


class _Draw:
    """Arrays uniform in gain / sqrt(fan) (-1, 1), each from a key of its own."""

    def __init__(self, key: PRNGKeyArray, gain: float, dtype: Any):
        arguments.refuse_complex("gain", gain)
        if not (np.isfinite(gain) and gain > 0):
            raise ValueError(f"gain: wanted a positive finite number, got {gain}")
        self.key, self.gain, self.count = key, gain, 0
        self.dtype = jnp.zeros((), dtype).dtype

    def __call__(self, shape: tuple[int, ...], fan: int) -> Array:
        self.count += 1
        reach = self.gain / fan**0.5
        return jax.random.uniform(jax.random.fold_in(self.key, self.count), shape, self.dtype, -reach, reach)


def _skip(source: int, target: int, shapes: list[tuple[int, ...]], draw: _Draw) -> Skip:
    if not (source >= 0 and source + 2 <= target < len(shapes)):
        raise ValueError(
            f"skips: wanted pairs (source, target) with the target at least two layers after the source, between 0 "
            f"and {len(shapes) - 1}, got {(source, target)}"
        )
    before, after = shapes[source], shapes[target]
    if len(before) != len(after):
        raise ValueError(
            f"skips: wanted layers of one kind, maps or nodes, got {before} and {after} in the pair {(source, target)}"
        )
    stride = -(-before[0] // after[0]) if len(before) == 3 else 1
    return Skip(draw((before[-1], after[-1]), before[-1]), source, target, stride)


def _whole(name: str, numbers: Sequence[int], least: int) -> Any:
    try:
        found = tuple(operator.index(number) for number in numbers)
    except TypeError:
        found = ()
    if len(found) < least or min(found) < 1:
        raise ValueError(f"{name}: wanted at least {least} positive integers, got {numbers!r}")
    return found


def _scaled(numbers: tuple[int, ...], width: float) -> tuple[int, ...]:
    if not (np.isfinite(width) and width > 0):
        raise ValueError(f"width: wanted a positive finite number, got {width}")
    return tuple(max(1, round(width * number)) for number in numbers)
