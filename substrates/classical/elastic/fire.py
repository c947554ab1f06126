"""FIRE: inertial relaxation, which needs forces alone."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from substrates.classical.elastic.balance import Objective
from substrates.classical.elastic.steering import DENSE_SIZE, Anchor, by_dense_factor, by_sparse_factor, held_by
from substrates.nudge import Nudge
from substrates.solvers.solver import Equilibrium, Solver, judge, tolerance

LONGEST_STEP = 1.1
"""In units of 1/omega."""


class FIRE(Solver):
    """The fast inertial relaxation engine: masses move under the forces and are steered downhill.

    The masses are as large as the stiffnesses that meet at their nodes, so that weak parts ring as fast as strong ones.
    While the power P = f.v is positive the velocity is turned towards the force and the time step grows; otherwise the
    masses stop and the step shrinks. The longest step is a fraction of 1/omega, where omega^2 = 2 bounds the stiffness
    of any mode: with longer ones the stiffest modes keep ringing. It needs thousands of forces where
    `ElasticEquilibrium` needs ten factorised steps, and no matrices but for the test of stability in the end. It stays
    at the saddle that it finds, and says so.

    Attributes:
        max_steps: the most steps.
        absolute_tolerance, relative_tolerance: what may be left over of the forces: newtons, and a part of those that
            meet at a node; None takes them from the dtype.

    Source: Bitzek, Koskinen, Gaehler, Moseler and Gumbsch 2006, "Structural relaxation made simple".
    """

    pins: ClassVar[bool] = False

    max_steps: int = 50_000
    absolute_tolerance: float | None = None
    relative_tolerance: float | None = None

    def __call__(
        self, substrate: Any, x: PyTree, nudge: Nudge | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        flat = jnp.asarray(start).reshape(-1)
        objective = Objective(substrate, substrate.prescribed(x), nudge)
        limit = tolerance(substrate, start, x, nudge, self.absolute_tolerance, self.relative_tolerance)
        first = objective.balance(flat)
        # everything in coordinates of unit mass
        root = 1 / jnp.sqrt(held_by(objective, first))
        longest = LONGEST_STEP / 2**0.5
        norm = lambda v: jnp.sqrt(jnp.sum(v * v))
        felt = lambda at: (-at.gradient * root, jnp.max(jnp.abs(at.gradient) / at.scale, initial=0.0))

        def running(carry):
            *_, left, step = carry
            return (step < self.max_steps) & (left > limit) & jnp.isfinite(left)

        def advance(carry):
            flat, velocity, force, time, turn, descended, _, step = carry
            downhill = jnp.sum(force * velocity) > 0
            turned = (1 - turn) * velocity + turn * norm(velocity) / norm(force) * force
            velocity = jnp.where(downhill, turned, 0.0)
            late = downhill & (descended > 5)
            time = jnp.where(downhill, jnp.where(late, jnp.minimum(1.1 * time, longest), time), 0.5 * time)
            turn = jnp.where(downhill, jnp.where(late, 0.99 * turn, turn), 0.1)
            velocity = velocity + time * force
            flat = flat + time * velocity * root
            force, left = felt(objective.balance(flat))
            return flat, velocity, force, time, turn, jnp.where(downhill, descended + 1, 0), left, step + 1

        number = lambda value: jnp.asarray(value, flat.dtype)
        count = jnp.zeros((), jnp.int32)
        force, left = felt(first)
        begun = flat, jnp.zeros_like(flat), force, number(0.3 * longest), number(0.1), count, left, count
        flat, *_, steps = jax.lax.while_loop(running, advance, begun)
        found = judge(substrate, flat.reshape(jnp.shape(start)), x, nudge, steps, limit)
        at = objective.balance(flat)
        if flat.size <= DENSE_SIZE:
            return by_dense_factor(objective, at, found.converged).stability.judged(found)
        anchor = Anchor(at.springs.stiffness, substrate.rest_length, at.positions)
        return by_sparse_factor(objective, at, anchor, found.converged, found.converged).stability.judged(found)
