"""Parts of solvers that compute in numpy, on the host, in the middle of compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, Shaped


def on_host(function: Callable[..., PyTree], like: PyTree, *arrays: PyTree, vmap_method: str) -> PyTree:
    """`jax.pure_callback`, which loses no bits on the way.

    It runs in a thread of XLA's, always on a GPU and at times on a CPU, where what goes in and out is rounded to 32
    bits if 64 were switched on by `jax.enable_x64`, which holds in its own thread alone. So numbers of 64 bits cross
    over as words of 32.

    Args:
        function: of numpy arrays.
        like: shapes and dtypes of what it returns.
        arrays: what it takes, None for what is absent.
        vmap_method: as of `jax.pure_callback`.

    Raises ValueError where it is differentiated.
    """

    def called(*words: PyTree) -> PyTree:
        found = function(*jax.tree.map(_numbers_of, given, words))
        return jax.tree.map(lambda leaf, part: _words_of(np.asarray(part, leaf.dtype)), like, found)

    @jax.custom_jvp
    def crossing(*arrays: PyTree) -> PyTree:
        words = jax.tree.map(lambda leaf: jax.eval_shape(_as_words, leaf), like)
        found = jax.pure_callback(called, words, *jax.tree.map(_as_words, arrays), vmap_method=vmap_method)
        return jax.tree.map(_from_words, like, found)

    @crossing.defjvp
    def _(primals: PyTree, tangents: PyTree) -> PyTree:
        raise ValueError("what is computed on the host has no derivative; give it one by jax.custom_jvp")

    given = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), arrays)
    return crossing(*arrays)


def _wide(dtype: Any) -> bool:
    """Whether numbers are of 64 bits, or pairs of such."""
    return np.dtype(dtype) in (np.float64, np.int64, np.uint64, np.complex128)


def _as_words(numbers: Shaped[Array, "*shape"]) -> Shaped[Array, "..."]:
    if not _wide(numbers.dtype):
        return numbers
    parts = [numbers.real, numbers.imag] if jnp.iscomplexobj(numbers) else [numbers]
    words = jax.lax.bitcast_convert_type(jnp.stack(parts, axis=-1), jnp.uint32)
    return words.reshape(*numbers.shape, 2 * len(parts))


def _from_words(like: Any, words: Shaped[Array, "..."]) -> Shaped[Array, "*shape"]:
    if not _wide(like.dtype):
        return words
    if not jnp.issubdtype(like.dtype, jnp.complexfloating):
        return jax.lax.bitcast_convert_type(words, like.dtype)
    parts = jax.lax.bitcast_convert_type(words.reshape(*words.shape[:-1], 2, 2), jnp.float64)
    return jax.lax.complex(parts[..., 0], parts[..., 1])


def _words_of(numbers: np.ndarray) -> np.ndarray:
    return np.asarray(numbers, order="C")[..., None].view(np.uint32) if _wide(numbers.dtype) else numbers


def _numbers_of(like: Any, words: Any) -> np.ndarray:
    words = np.asarray(words, order="C")
    return words.view(like.dtype)[..., 0] if _wide(like.dtype) else words
