"""From the words of `PredictiveCodingNetwork`'s constructors to its fields, checked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from substrates.classical.predictive_coding.layers import Skip
from substrates.wiring import Convolution, Dense, Pooling
from substrates.wiring.random_layers import floating, image_shape, positive_gains, positive_integers, uniform

Fan = Literal["in", "out"]
Draw = Callable[[tuple[int, ...], int], Array]


def dense_fields(sizes: Sequence[int], key: PRNGKeyArray, gain: float, dtype: Any) -> dict[str, Any]:
    """The fields of `PredictiveCodingNetwork.dense`."""
    sizes = positive_integers("sizes", sizes, 2)
    draw = _drawing(key, gain, dtype)
    coupling = tuple(Dense(draw((before, after), before)) for before, after in itertools.pairwise(sizes))
    bias = tuple(draw((after,), before) for before, after in itertools.pairwise(sizes))
    return {"coupling": coupling, "bias": bias, "shape": sizes[:1]}


def convolutional_fields(
    shape: Sequence[int],
    channels: Sequence[int],
    dense: Sequence[int],
    key: PRNGKeyArray,
    pooled: Sequence[int],
    pooling: Pooling,
    skips: Sequence[tuple[int, int]],
    gain: float,
    fan: Fan,
    dtype: Any,
) -> dict[str, Any]:
    """The fields of `PredictiveCodingNetwork.convolutional`."""
    shape = image_shape("shape", shape)
    channels, dense = positive_integers("channels", channels, 1), positive_integers("dense", dense, 1)
    wrong = [k for k in pooled if k not in range(1, len(channels) + 1)]
    if wrong:
        raise ValueError(f"pooled: wanted numbers of convolutional layers, 1 to {len(channels)}, got {wrong}")
    if fan not in ("in", "out"):
        raise ValueError(f"fan: wanted 'in' or 'out', got {fan!r}")
    draw = _drawing(key, gain, dtype)
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
    joined = tuple(_skip(source, target, shapes, draw) for source, target in skips)
    return {"coupling": tuple(coupling), "bias": tuple(bias), "skips": joined, "shape": shape}


def scaled(numbers: tuple[int, ...], width: float) -> tuple[int, ...]:
    """Whole numbers, at least 1, times a factor; raises ValueError unless that is positive and finite."""
    if not (np.isfinite(width) and width > 0):
        raise ValueError(f"width: wanted a positive finite number, got {width}")
    return tuple(max(1, round(width * number)) for number in numbers)


def _drawing(key: PRNGKeyArray, gain: float, dtype: Any) -> Draw:
    """Draws arrays uniform in gain / sqrt(fan) (-1, 1), each from a key of its own."""
    (gain,), dtype, count = positive_gains(gain, 1), floating(dtype), itertools.count(1)
    return lambda shape, fan: uniform(jax.random.fold_in(key, next(count)), shape, fan, gain, dtype)


def _skip(source: int, target: int, shapes: list[tuple[int, ...]], draw: Draw) -> Skip:
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
