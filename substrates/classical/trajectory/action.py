"""The action of a path in steps of time, with its first and second derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

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
    ends, times = jnp.stack([before, after]), jnp.stack([time, time + step])
    return step / 2 * jnp.sum(jax.vmap(lambda q, t: lagrangian(q, velocity, t, x))(ends, times))


class Curvature(NamedTuple):
    """The derivatives of an action: the second ones a block for every node and one for every two neighbours.

    Attributes:
        slope: dS/dq_k, shape (nodes, n).
        diagonal: d2S/dq_k dq_k, shape (nodes, n, n).
        upper: d2S/dq_k dq_(k+1), shape (nodes - 1, n, n); of a loop (nodes, n, n), the last to node 0.
        apart: of each step, that along motions of its two nodes in opposite directions, shape (steps, n, n).
    """

    slope: Inexact[Array, "nodes n"]
    diagonal: Inexact[Array, "nodes n n"]
    upper: Inexact[Array, "links n n"]
    apart: Inexact[Array, "steps n n"]

    @property
    def loop(self) -> bool:
        """Whether the last node is the first one's neighbour."""
        return len(self.upper) == len(self.diagonal)

    def scale(self, state: Inexact[Array, "nodes n"]) -> Float[Array, "nodes n"]:
        """sum_j |H_ij q_j| of every variable, with what pushes where all q_j are 0."""
        rows = self._rows()
        return _added(jnp.abs(rows), jnp.abs(state)) + jnp.abs(self.slope - _added(rows, state))

    def row_sizes(self, size: Float[Array, " n"]) -> Float[Array, "nodes n"]:
        """sum_j |H_ij| size_j of every variable."""
        return _added(jnp.abs(self._rows()), jnp.broadcast_to(size[None], self.slope.shape))

    def _rows(self) -> Inexact[Array, "nodes n 3n"]:
        if self.loop:
            before, after = jnp.swapaxes(jnp.roll(self.upper, 1, axis=0), 1, 2), self.upper
        else:
            none = jnp.zeros_like(self.diagonal[:1])
            before = jnp.concatenate([none, jnp.swapaxes(self.upper, 1, 2)])
            after = jnp.concatenate([self.upper, none])
        return jnp.concatenate([before, self.diagonal, after], axis=2)


def _added(rows: Inexact[Array, "nodes n 3n"], felt: Inexact[Array, "nodes n"]) -> Inexact[Array, "nodes n"]:
    """What each node feels of the one before it, itself and the one after it."""
    around = jnp.concatenate([jnp.roll(felt, 1, axis=0), felt, jnp.roll(felt, -1, axis=0)], axis=1)
    return jnp.einsum("kij,kj->ki", rows, around)


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
    bent = jax.jacfwd(lambda *given: (slope(*given),) * 2, has_aux=True, holomorphic=continued)
    bend, slope = jax.vmap(bent)(pairs, times)
    before, across, after = bend[:, :n, :n], bend[:, :n, n:], bend[:, n:, n:]
    apart = before - across - jnp.swapaxes(across, 1, 2) + after
    if loop:
        shared = lambda first, second: first + jnp.roll(second, 1, axis=0)
        return Curvature(shared(slope[:, :n], slope[:, n:]), shared(before, after), across, apart)
    return Curvature(slope[1:, :n] + slope[:-1, n:], before[1:] + after[:-1], across[1:-1], apart)
