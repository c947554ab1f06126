"""Units of a Hopfield network, hard or smooth, as solvers see them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Inexact

from substrates.activation import Activation, Curve, activity, own_energy, steepest


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


def smooth_unit(kind: Activation) -> Unit:
    """A unit whose state is what it feels, anywhere, and whose activity is rho of that."""
    return Unit(
        lambda move, _: move,
        functools.partial(activity, kind),
        functools.partial(own_energy, kind),
        1 / steepest(kind),
    )
