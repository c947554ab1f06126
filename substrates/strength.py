"""How strongly layers pull on each other, from the couplings alone, without a product with any of them."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from substrates.wiring import Convolution, Dense

NARROW = 32
"""So many nodes of a group let its coupling be multiplied with itself, to bound its norm more tightly."""


class Strength(eqx.Module):
    """Bounds of the sum of the sizes of all that a node receives through a coupling.

    They are the sums of |W_ij| max |u|: those of |W_ij| |u_j|, within a small factor, where the activities of a group
    are of one order of magnitude, and no less otherwise.

    Attributes:
        columns: sum of |W| over what joins the earlier group to each node (or channel) of the later one.
        rows: sum of |W| over what joins each node (or channel) of the earlier group to the later one.
    """

    columns: Float[Array, "after"]
    rows: Float[Array, "before"]

    @classmethod
    def of(cls, coupling: Any) -> Strength:
        """The strength of a coupling; its `weight` has the groups (or channels) before and after as its last axes."""
        sizes = jnp.abs(coupling.weight)
        kernel = tuple(range(sizes.ndim - 2))
        return cls(jnp.sum(sizes, (*kernel, sizes.ndim - 2)), jnp.sum(sizes, (*kernel, sizes.ndim - 1)))

    def forward(self, u: Array) -> Array:
        """Of what the later group feels, one number for each of its nodes or channels."""
        return self.columns * jnp.max(jnp.abs(u))

    def backward(self, v: Array, shape: tuple[int, ...]) -> Array:
        """Of what an earlier group of a shape feels."""
        felt = self.rows * jnp.max(jnp.abs(v))
        return felt.reshape(shape) if felt.size > shape[-1] else felt


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
