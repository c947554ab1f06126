"""A cheap counter-based generator: one uniform number for each (key, sweep, spin, replica), without any state."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt32

_WEYL = np.uint32(0x9E3779B9)
_FIRST, _SECOND = np.uint32(0x21F0AAAD), np.uint32(0x735A2D97)


def sweep_words(key: PRNGKeyArray, sweep: Int[Array, ""] | int) -> UInt32[Array, "2"]:
    """The two words that key the numbers of one sweep, drawn by JAX's own generator."""
    return jax.random.bits(jax.random.fold_in(key, sweep), (2,), jnp.uint32)


def counted_uniform(words: UInt32[Array, "2"], first: int, shape: tuple[int, ...], dtype: Any) -> Float[Array, "..."]:
    """Uniform numbers in [0, 1), multiples of 2^-24, of the counters first, first + 1, ... in C order.

    A keyed mixer of 32 bits: two rounds of xor-shift and multiply, with one word of the sweep's key added before the
    first round and the other before the second. Ten operations on integers, which compilers fuse into the update that
    uses the number; JAX's Threefry takes over a hundred.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", for counters in place of states; the
    multipliers, Wellons 2018, "Prospecting for hash functions".
    """
    return mix(words, counters(first, shape), dtype)


def counters(first: int, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """first, first + 1, ... in C order."""
    total = jnp.full(shape, first, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        total += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride)
        stride *= shape[axis]
    return total


def mix(words: UInt32[Array, "2"], counter: UInt32[Array, "..."], dtype: Any) -> Float[Array, "..."]:
    """The uniform number in [0, 1) of each counter."""
    bits = counter * _WEYL + words[0]
    bits = (bits ^ (bits >> np.uint32(16))) * _FIRST
    bits = (bits ^ (bits >> np.uint32(15)) ^ words[1]) * _SECOND
    bits = bits ^ (bits >> np.uint32(15))
    # as a signed integer, which processors convert to floating point directly
    return (bits >> np.uint32(8)).astype(jnp.int32).astype(dtype) * jnp.asarray(2.0**-24, dtype)
