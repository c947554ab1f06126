"""Smooth activations of units, and the energy that a unit pays for its own activity."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

Activation = Literal["sigmoid", "tanh"]

Curve = Callable[[Inexact[Array, "..."]], Inexact[Array, "..."]]


class _Shape(NamedTuple):
    """rho(u), rho'(u) and the integral of rho from minus infinity or 0, all without cancellation at either end, and the
    largest rho' on the real axis."""

    value: Curve
    slope: Curve
    integral: Curve
    steepest: float


def _softplus(u: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    return jnp.logaddexp(u, jnp.zeros_like(u))


_SHAPES = {
    "sigmoid": _Shape(
        jax.lax.logistic,
        lambda u: jax.lax.logistic(u) * jax.lax.logistic(-u),
        _softplus,
        0.25,
    ),
    "tanh": _Shape(
        jnp.tanh,
        lambda u: 4 * jax.lax.logistic(2 * u) * jax.lax.logistic(-2 * u),
        lambda u: u + _softplus(-2 * u) - jnp.log(2 * jnp.ones_like(u)),
        1.0,
    ),
}
assert set(_SHAPES) == set(get_args(Activation))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def activity(kind: Activation, u: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """rho(u)."""
    return _SHAPES[kind].value(u)


def slope(kind: Activation, u: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """rho'(u)."""
    return _SHAPES[kind].slope(u)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def own_energy(kind: Activation, u: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """u rho(u) - int rho, whose derivative is u rho'(u): the Legendre transform of int rho at the activity rho(u)."""
    return u * activity(kind, u) - _SHAPES[kind].integral(u)


@activity.defjvp
def _(kind: Activation, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (u,), (along,) = primals, tangents
    return activity(kind, u), _SHAPES[kind].slope(u) * along


@own_energy.defjvp
def _(kind: Activation, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (u,), (along,) = primals, tangents
    return own_energy(kind, u), u * _SHAPES[kind].slope(u) * along


def steepest(kind: Activation) -> float:
    """The largest rho' on the real axis."""
    return _SHAPES[kind].steepest
