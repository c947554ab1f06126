"""Parts of solvers that compute in numpy, on the host, in the middle of compiled code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree


def on_host(function: Callable[..., PyTree], like: PyTree, *arrays: PyTree, vmap_method: str) -> PyTree:
    """`jax.pure_callback`, which stops where it would lose bits.

    It runs in a thread of XLA's, always on a GPU and at times on a CPU, which rounds what goes in and out to 32 bits
    unless 64 are switched on for all threads. Then it raises RuntimeError, which JAX hands on as an error of its own
    with the same words.

    Args:
        function: of numpy arrays.
        like: shapes and dtypes of what it returns.
        arrays: what it takes, None for what is absent.
        vmap_method: as of `jax.pure_callback`.
    """
    config: Any = jax.config
    wide = config.jax_enable_x64

    def called(*given: PyTree) -> PyTree:
        if wide and not config.jax_enable_x64:
            raise RuntimeError(
                "64 bits: wanted them in all threads, since a part of this solver computes in numpy, in another one, "
                "got jax.enable_x64, which holds in one; call start_session(), or jax.config.update('jax_enable_x64', "
                "True)"
            )
        return function(*given)

    return jax.pure_callback(called, like, *arrays, vmap_method=vmap_method)
