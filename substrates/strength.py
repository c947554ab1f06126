"""How strongly layers pull on each other, from the couplings alone, without a product with any of them."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from substrates.wiring import Convolution, Dense

NARROW = 32
"""So many nodes of a group let its coupling be multiplied with itself, to bound its norm more tightly."""


def spread(values: Array, axis: Any = None) -> Array:
    """A bound of the 2-norm that neither overflows nor underflows: (sum |v|)^1/2 (max |v|)^1/2."""
    sizes = jnp.abs(values)
    return jnp.sqrt(jnp.sum(sizes, axis)) * jnp.sqrt(jnp.max(sizes, axis, initial=0.0))


class Strength(eqx.Module):
    """Bounds of the sum of the sizes of all that a node receives through a coupling, by Cauchy and Schwarz.

    They are the sum of |W_ij| |u_j|, within a small factor, where the entries of a group and of a coupling's row are
    of one order of magnitude, and no less than it otherwise.

    Attributes:
        columns: the norm of what joins the earlier group to each node (or channel) of the later one.
        rows: the norm of what joins each node (or channel) of the earlier group to the later one.
        joined: to how many nodes a node of the later, and of the earlier group is joined.
    """

    columns: Float[Array, "after"]
    rows: Float[Array, "before"]
    joined: tuple[int, int] = eqx.field(static=True)

    @classmethod
    def of(cls, coupling: Any) -> Strength:
        """The strength of a coupling; its `weight` has the groups (or channels) before and after as its last axes."""
        weight = coupling.weight
        kernel = tuple(range(weight.ndim - 2))
        joined = tuple(weight.size // count for count in reversed(weight.shape[-2:]))
        return cls(spread(weight, (*kernel, -2)), spread(weight, (*kernel, -1)), (joined[0], joined[1]))

    def forward(self, u: Array) -> Array:
        """Of what the later group feels, one number for each of its nodes or channels."""
        return self.columns * _group(u, self.joined[0])

    def backward(self, v: Array, shape: tuple[int, ...]) -> Array:
        """Of what an earlier group of a shape feels."""
        felt = self.rows * _group(v, self.joined[1])
        return felt.reshape(shape) if felt.size > shape[-1] else felt


def _group(values: Array, joined: int) -> Array:
    """The norm of the largest so many entries of a group, or more."""
    whole = spread(values)
    return whole if joined >= values.size else jnp.minimum(whole, joined**0.5 * jnp.max(jnp.abs(values), initial=0.0))


def squared_norm(coupling: Dense | Convolution) -> Float[Array, ""]:
    """A bound of the largest squared singular value of a coupling.

    Of a dense one |W'W|_F, or |W|_F^2 where both groups are wide; of a convolution the largest sum along a row times
    the largest along a column (Schur), a quarter of it with average pooling. Soft pooling has no bound.
    """
    weight = coupling.weight
    if isinstance(coupling, Dense):
        narrow = weight if weight.shape[1] <= weight.shape[0] else weight.T
        return jnp.linalg.norm(narrow.T @ narrow) if narrow.shape[1] <= NARROW else jnp.sum(weight**2)
    if coupling.pooling == "soft":
        return jnp.asarray(jnp.inf, weight.dtype)
    sizes = jnp.abs(weight)
    bound = jnp.max(jnp.sum(sizes, (0, 1, 2))) * jnp.max(jnp.sum(sizes, (0, 1, 3)))
    return bound / 4 if coupling.pooling == "average" else bound
