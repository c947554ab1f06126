"""Units of a Hopfield network: hard or smooth, and the energy that one pays for its own activity."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

Activation = Literal["sigmoid", "tanh"]

Curve = Callable[[Inexact[Array, "..."]], Inexact[Array, "..."]]


class Unit(NamedTuple):
    """What solvers see of a hidden unit, which rests at a state by what it feels and sends an activity by its state.

    Attributes:
        within: what bounds leave of a move from a state, within(move, state).
        sent: the activity of a state.
        own_energy: what a unit pays for its own activity.
        stiffness: the least curvature of that energy in the activity.
    """

    within: Callable[[Any, Any], Any]
    sent: Curve
    own_energy: Curve
    stiffness: float

    def at_rest(self, felt: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
        """The state at which a unit rests that feels this."""
        return self.within(felt, 0)


HARD = Unit(lambda move, s: jnp.clip(move, 0 - s, 1 - s), lambda s: s, lambda s: 0.5 * s**2, 1.0)
"""Its state is its activity, between 0 and 1."""


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


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def own_energy(kind: Activation, u: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """u rho(u) - int rho, whose derivative is u rho'(u): the Legendre transform of int rho at the activity rho(u)."""
    return u * activity(kind, u) - _SHAPES[kind].integral(u)


def slope(kind: Activation, u: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """rho'(u)."""
    return _SHAPES[kind].slope(u)


def smooth_unit(kind: Activation) -> Unit:
    """A unit whose state is what it feels, anywhere, and whose activity is rho of that."""
    return Unit(
        lambda move, _: move,
        functools.partial(activity, kind),
        functools.partial(own_energy, kind),
        1 / _SHAPES[kind].steepest,
    )


@activity.defjvp
def _(kind: Activation, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (u,), (along,) = primals, tangents
    return activity(kind, u), _SHAPES[kind].slope(u) * along


@own_energy.defjvp
def _(kind: Activation, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (u,), (along,) = primals, tangents
    return own_energy(kind, u), u * _SHAPES[kind].slope(u) * along
