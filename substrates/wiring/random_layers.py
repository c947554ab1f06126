"""What builders of layers with random weights check and draw."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from substrates import arguments


def positive_integers(name: str, values: Sequence[int], least: int = 0) -> tuple[int, ...]:
    """So many positive whole numbers or more; raises ValueError for any others."""
    try:
        found = tuple(arguments.whole(name, value) for value in values)
    except ValueError:
        found = (0,)
    if len(found) < least or min(found, default=1) < 1:
        raise ValueError(f"{name}: wanted {f'at least {least} ' if least else ''}positive integers, got {values!r}")
    return found


def image_shape(name: str, values: Sequence[int]) -> tuple[int, int, int]:
    """The shape of an image; raises ValueError for what is not (height, width, channels)."""
    found = positive_integers(name, values, 3)
    if len(found) != 3:
        raise ValueError(f"{name}: wanted (height, width, channels), got {found}")
    return found


def positive_gains(gain: float | Sequence[float], count: int) -> list[float]:
    """A gain for each of some couplings, given so or as one for all; raises ValueError unless positive and finite."""
    arguments.refuse_complex("gain", np.asarray(gain))
    gains = [float(g) for g in np.broadcast_to(gain, count)] if np.size(gain) in (1, count) else []
    if not gains or not all(np.isfinite(g) and g > 0 for g in gains):
        also = f", or {count} of them" if count > 1 else ""
        raise ValueError(f"gain: wanted a positive finite number{also}, got {gain}")
    return gains


def floating(dtype: Any) -> jnp.dtype:
    """A dtype of real floating-point numbers, JAX's default for None; raises ValueError for any other."""
    found = jnp.zeros((), dtype).dtype
    if not jnp.issubdtype(found, jnp.floating):
        raise ValueError(f"dtype: wanted a real floating-point type, got {found}")
    return found


@functools.partial(jax.jit, static_argnames=("shapes", "dtype"))
def uniform_each(
    key: PRNGKeyArray,
    shapes: tuple[tuple[int, ...], ...],
    bounds: Float[np.ndarray, "arrays"],
    dtype: jnp.dtype,
    least: float = -np.inf,
) -> tuple[Array, ...]:
    """Arrays of numbers uniform between -bound and bound, each with its bound and a key of its own, in one program.

    Numbers below `least` are raised to it.
    """
    drawn = zip(jax.random.split(key, len(shapes)), shapes, bounds.astype(dtype), strict=True)
    raised = lambda numbers: jnp.maximum(numbers, jnp.asarray(least, dtype))
    return tuple(raised(jax.random.uniform(k, shape, dtype, -bound, bound)) for k, shape, bound in drawn)


def uniform(key: PRNGKeyArray, shape: tuple[int, ...], fan: int, gain: float, dtype: jnp.dtype) -> Array:
    """Numbers uniform in gain / sqrt(fan) (-1, 1)."""
    bound = gain / fan**0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def no_bias(sizes: Sequence[int], dtype: jnp.dtype) -> tuple[Array, ...]:
    """Biases of 0."""
    return tuple(jnp.zeros(size, dtype) for size in sizes)
