"""The action of a path in steps of time, with its first and second derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

Law = Callable[[Array, Array, Any, Any], Array]
"""A Lagrangian L(q, v, t; x)."""


def step_action(
    lagrangian: Law, before: Inexact[Array, " n"], after: Inexact[Array, " n"], time: Any, step: Any, x: Any
) -> Inexact[Array, ""]:
    """The action of one step of length h from a time t, by the trapezoidal rule,

        S_k = h/2 [L(q_k, v, t) + L(q_(k+1), v, t + h)],     v = (q_(k+1) - q_k)/h,

    whose stationary paths are those of leapfrog (Stoermer and Verlet) where masses move in a potential.

    Source: Marsden and West 2001, "Discrete mechanics and variational integrators".
    """
    velocity = (after - before) / step
    return step / 2 * (lagrangian(before, velocity, time, x) + lagrangian(after, velocity, time + step, x))


class Curvature(NamedTuple):
    """The second derivative of an action, a block for every node and one for every two neighbours.

    Attributes:
        diagonal: d2S/dq_k dq_k, shape (nodes, n, n).
        upper: d2S/dq_k dq_(k+1), shape (nodes - 1, n, n); of a loop (nodes, n, n), the last to node 0.
        apart: of each step, that along motions of its two nodes in opposite directions, shape (steps, n, n).
    """

    diagonal: Inexact[Array, "nodes n n"]
    upper: Inexact[Array, "links n n"]
    apart: Inexact[Array, "steps n n"]

    @property
    def loop(self) -> bool:
        """Whether the last node is the first one's neighbour."""
        return len(self.upper) == len(self.diagonal)


def action_curvature(
    lagrangian: Law, path: Inexact[Array, "nodes n"], times: Inexact[Array, " steps"], step: Any, x: Any, loop: bool
) -> Curvature:
    """The second derivative of the action at the free nodes of a path: all but its two ends, or of a loop, whose last
    node is its first, all but the last.
    """
    n = path.shape[1]
    one = lambda pair, time: step_action(lagrangian, pair[:n], pair[n:], time, step, x)
    pairs = jnp.concatenate([path[:-1], path[1:]], axis=1)
    continued = jnp.iscomplexobj(path)
    slope = jax.grad(one, holomorphic=continued)
    bend = jax.vmap(jax.jacfwd(slope, holomorphic=continued))(pairs, times)
    before, across, after = bend[:, :n, :n], bend[:, :n, n:], bend[:, n:, n:]
    apart = before - across - jnp.swapaxes(across, 1, 2) + after
    if loop:
        return Curvature(before + jnp.roll(after, 1, axis=0), across, apart)
    return Curvature(before[1:] + after[:-1], across[1:-1], apart)
