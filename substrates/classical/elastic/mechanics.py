"""What single springs do: lengths, tensions, and their stiffness matrices."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Inexact


def length(vectors: Inexact[Array, "*springs dim"]) -> Inexact[Array, "*springs"]:
    """The length of each vector; analytic, and with the derivative 0 for a vector of no length."""
    square = jnp.sum(vectors * vectors, axis=-1)
    none = square == 0
    return jnp.where(none, 0.0, jnp.sqrt(jnp.where(none, 1.0, square)))


def direction(vectors: Inexact[Array, "springs dim"], lengths: Inexact[Array, "springs"]) -> Any:
    """The unit vector along each spring; 0 for one of no length."""
    none = lengths == 0
    return vectors * jnp.where(none, 0.0, 1 / jnp.where(none, 1.0, lengths))[..., None]


def slack(lengths: Any, rest_length: Any) -> Any:
    """1 - l/r, the stiffness of a spring against sideways motion in units of its own: negative under compression."""
    none = lengths == 0
    return 1 - rest_length / jnp.where(none, rest_length, lengths)


def stiffness_blocks(stiffness: Any, rest_length: Any, vectors: Any, least: float | None = None) -> Any:
    """The Hessian of each spring's energy in its vector, K = k (n n' + (1 - l/r)(1 - n n')), shape (m, dim, dim).

    With `least` the sideways part is at least that, so that K is positive definite.
    """
    lengths = length(vectors)
    unit = direction(vectors, lengths)
    sideways = slack(lengths, rest_length)
    if least is not None:
        sideways = jnp.maximum(sideways, least)
    identity = jnp.eye(vectors.shape[-1], dtype=vectors.dtype)
    outer = unit[..., :, None] * unit[..., None, :]
    return stiffness[..., None, None] * (sideways[..., None, None] * (identity - outer) + outer)


def extension_difference(plus: Any, minus: Any) -> tuple[Any, Any]:
    """(r+ - r-, r+ + r-) of vectors d+ and d-, without cancellation: r+ - r- = (d+ - d-).(d+ + d-) / (r+ + r-)."""
    total = length(plus) + length(minus)
    none = total == 0
    work = jnp.sum((plus - minus) * (plus + minus), axis=-1)
    return jnp.where(none, 0.0, work / jnp.where(none, 1.0, total)), total
