"""Couplings near a place where their products are known: only changes are multiplied, and in bfloat16."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from substrates.wiring.layers import Convolution, Dense

ROUGH = jnp.bfloat16
"""What changes and couplings are rounded to: 8 bits, which tensor cores multiply several times as fast as 32."""

ROUGHNESS = float(jnp.finfo(ROUGH).eps)
"""A change is off by so much of itself, in the products that are made of it."""


def multiplied_roughly(product: Callable[[Array], Array], change: Float[Array, "..."]) -> Float[Array, "..."]:
    """A product of a change with a coupling in bfloat16, in the dtype of the change."""
    return product(change.astype(ROUGH)).astype(change.dtype)


class NearDense(Dense):
    """A dense coupling near a place (u_0, v_0): u'W is u_0'W, which is known, plus the rounded (u - u_0)' times the
    rounded W. So what rounding leaves is a part of the change, and shrinks with it, as in iterative refinement.

    Attributes:
        rough: the coupling in bfloat16.
        u, v: the place; v is None where nothing came back there.
        sent, returned: u_0'W and W v_0.

    Source: Higham and Mary 2022, "Mixed precision algorithms in numerical linear algebra".
    """

    rough: Dense
    u: Array
    sent: Array
    v: Array | None
    returned: Array | None

    def forward(self, u: Float[Array, "before"]) -> Float[Array, "after"]:
        return self.sent + multiplied_roughly(self.rough.forward, u - self.u)

    def backward(self, v: Float[Array, "after"], u: Float[Array, "before"] | None = None) -> Float[Array, "before"]:
        return _returned(self.rough.backward, v, self.v, self.returned)


class NearConvolution(Convolution):
    """A convolution near a place, as `NearDense`: pooling, which is no product, is done in full.

    Attributes:
        rough: the coupling in bfloat16.
        u, v: the place; v is what came back there, un-pooled, or None.
        sent, returned: w * u_0 before pooling, and its transpose of v.
    """

    rough: Convolution = eqx.field(kw_only=True)
    u: Array = eqx.field(kw_only=True)
    sent: Array = eqx.field(kw_only=True)
    v: Array | None = eqx.field(kw_only=True)
    returned: Array | None = eqx.field(kw_only=True)

    def convolve(self, u: Float[Array, "height width before"]) -> Float[Array, "rows columns after"]:
        return self.sent + multiplied_roughly(self.rough.convolve, u - self.u)

    def convolve_back(
        self, z: Float[Array, "rows columns after"], before: tuple[int, ...]
    ) -> Float[Array, "height width before"]:
        return _returned(lambda change: self.rough.convolve_back(change, before), z, self.v, self.returned)

    def forward(self, u: Float[Array, "height width before"]) -> Float[Array, "rows columns after"]:
        return self.pool(self.convolve(u))

    def backward(
        self, v: Float[Array, "rows columns after"], u: Float[Array, "height width before"]
    ) -> Float[Array, "height width before"]:
        return self.convolve_back(self.unpool(v, self.convolve(u)), u.shape)


def _returned(product: Callable[[Array], Array], v: Array, place: Array | None, known: Array | None) -> Array:
    if place is None or known is None:
        return multiplied_roughly(product, v)
    return known + multiplied_roughly(product, v - place)


def roughly(coupling: Dense | Convolution) -> Dense | Convolution:
    """A coupling in bfloat16."""
    return eqx.tree_at(lambda c: c.weight, coupling, coupling.weight.astype(ROUGH))


def near(
    coupling: Dense | Convolution, rough: Dense | Convolution, u: Array, sent: Array, v: Array | None
) -> Dense | Convolution:
    """A coupling near the place (u, v).

    Args:
        coupling, rough: the coupling, and `roughly` the same.
        u: of the earlier group, and `sent`, its product before pooling, which is known.
        v: of the later group, None where nothing comes back.
    """
    if isinstance(coupling, Convolution):
        v = None if v is None else coupling.unpool(v, sent)
        returned = None if v is None else coupling.convolve_back(v, u.shape)
        known = {"u": u, "sent": sent, "v": v, "returned": returned}
        return NearConvolution(coupling.weight, coupling.pooling, coupling.padding, rough=rough, **known)
    return NearDense(coupling.weight, rough, u.ravel(), sent, v, None if v is None else coupling.backward(v))


def in_full(mixed: bool) -> AbstractContextManager[None]:
    """Where products that are not rounded here are not rounded by the hardware either, which may do so by itself."""
    return jax.default_matmul_precision("highest") if mixed else contextlib.nullcontext()
