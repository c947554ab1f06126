"""Paths that make an action stationary, between two fixed ends or in a loop."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, PyTree

from substrates.classical.trajectory.action import Curvature, action_curvature, step_action
from substrates.classical.trajectory.build import launch_fields, loop_fields, path_fields
from substrates.classical.trajectory.initial_value import InitialValueTrajectory
from substrates.classical.trajectory.lagrangian import CoupledPendulums, Lagrangian, MechanicalLagrangian
from substrates.classical.trajectory.meter import Meter, Samples
from substrates.classical.trajectory.newton import PathNewton
from substrates.classical.trajectory.pictures import draw_path
from substrates.solvers.solver import Solver
from substrates.substrate import Substrate, fixed

if TYPE_CHECKING:
    from matplotlib.axes import Axes


LEARNING_RATES = {"lagrangian": 0.05, "lagrangian.coupling": 0.002}
"""Of Adam: each spring adds to what holds its pendulums, and all of them move together at first."""


class Trajectory(Substrate):
    """A Lagrangian system whose whole path settles: it makes the action stationary,

        S = sum_k h/2 [L(q_k, v_k, t_k; x) + L(q_(k+1), v_k, t_(k+1); x)],   v_k = (q_(k+1) - q_k)/h,   t_k = k h,

    with both ends fixed, or as a loop, q_N = q_0. The state is the path, the energy the action, and a nudge adds beta C
    of what is read along the path to it. A stationary path obeys the equations of motion d/dt dL/dv = dL/dq (those of
    leapfrog, where masses move in a potential); it is a minimum of the action where it is short, else a saddle, so that
    the bounds which hold for minima do not hold here.

    Equilibrium propagation gives the gradient all the same, dC/dtheta = d/dbeta dS/dtheta: both phases share their
    boundary conditions, so that no boundary term p dq is left over. A launch, q_0 and p_0 fixed and the end free,
    leaves one: see `InitialValueTrajectory`, which learns by an echo. Build one by `between`, `loop` or `for_task`;
    `launched` builds that sibling.

    Attributes:
        lagrangian: L, whose arrays are the parameters.
        meter: what is read.
        n_inputs: how many numbers x holds.
        guess: the free nodes of the path from which a free phase starts, metres (radians), constants, shape (N - 1, n)
            between ends, (N, n) in a loop.
        ends: q_0 and q_N, constants, shape (2, n); None for a loop.
        duration: T = N h, seconds, a constant.

    Source: Scellier 2021, arXiv 2103.09985; Massar 2025, arXiv 2505.07363.
    """

    pins: ClassVar[bool] = False

    solver: ClassVar[Solver] = PathNewton()

    lagrangian: Lagrangian
    meter: Meter
    n_inputs: int = eqx.field(static=True)
    guess: Float[Array, "nodes n"] = fixed()
    ends: Float[Array, "2 n"] | None = fixed()
    duration: Float[Array, ""] = fixed()

    # the path

    @property
    def steps(self) -> int:
        """N, how many steps the path has."""
        return len(self.guess) + (0 if self.ends is None else 1)

    @property
    def step(self) -> Float[Array, ""]:
        """h, seconds."""
        return self.duration / self.steps

    @property
    def times(self) -> Float[Array, " nodes"]:
        """t_k of all nodes, both ends included, seconds."""
        return jnp.arange(self.steps + 1).astype(self.duration.dtype) * self.step

    def path(self, state: Inexact[Array, "free n"]) -> Inexact[Array, "nodes n"]:
        """All nodes of a path from t = 0 to T, both ends included."""
        if self.ends is None:
            return jnp.concatenate([state, state[:1]])
        first, last = self.ends.astype(state.dtype)
        return jnp.concatenate([first[None], state, last[None]])

    # the contract

    @property
    def input_size(self) -> int:
        return self.n_inputs

    def energy(self, state: Inexact[Array, "free n"], x: Inexact[Array, " inputs"]) -> Inexact[Array, ""]:
        """The action, joule seconds."""
        path = self.path(state)
        one = lambda before, after, time: step_action(self.lagrangian, before, after, time, self.step, x)
        return jnp.sum(jax.vmap(one)(path[:-1], path[1:], self.times[:-1]))

    def initial_state(self, x: Inexact[Array, " inputs"]) -> Float[Array, "free n"]:
        return self.guess

    def read(self, state: Inexact[Array, "free n"], x: Inexact[Array, " inputs"]) -> Inexact[Array, "outputs"]:
        nodes = state if self.ends is None else self.path(state)
        return jnp.sum(jax.vmap(self.meter)(nodes, jnp.arange(len(nodes))), axis=0)

    def force_scale(self, state: Inexact[Array, "free n"], x: Inexact[Array, " inputs"]) -> Float[Array, "free n"]:
        return self.curvature(state, x).scale(state)

    # what the solver sees

    def curvature(self, state: Inexact[Array, "free n"], x: Inexact[Array, " inputs"]) -> Curvature:
        """The derivatives of the action."""
        loop = self.ends is None
        return action_curvature(self.lagrangian, self.path(state), self.times[:-1], self.step, x, loop)

    def reading_slopes(self, state: Inexact[Array, "free n"], x: PyTree) -> Inexact[Array, "free n outputs"]:
        """do/dq of every free node."""
        holomorphic = jnp.iscomplexobj(state)
        slope = jax.jacfwd(self.meter, holomorphic=holomorphic)
        return jnp.swapaxes(jax.vmap(slope)(state, self._free_steps), 1, 2)

    def reading_curvature(
        self, state: Inexact[Array, "free n"], x: PyTree, weights: Inexact[Array, "outputs"]
    ) -> Inexact[Array, "free n n"]:
        """d2/dq2 of sum_j weights_j o_j, node by node."""
        holomorphic = jnp.iscomplexobj(state)
        weighted = lambda q, k: jnp.sum(weights * self.meter(q, k))
        bend = jax.jacfwd(jax.grad(weighted, holomorphic=holomorphic), holomorphic=holomorphic)
        return jax.vmap(bend)(state, self._free_steps)

    @property
    def _free_steps(self) -> Array:
        return jnp.arange(len(self.guess)) + (0 if self.ends is None else 1)

    def constrained(self) -> Self:
        return dataclasses.replace(self, lagrangian=self.lagrangian.constrained())

    def draw(self, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
        """Draws the coordinates of a path over time; without a state those of the guess.

        Args:
            state, x: a state and its input.
            ax: where to draw; None opens a new figure.
        """
        path = self.path(self.guess if state is None else jnp.asarray(state))
        return draw_path(np.asarray(self.times), np.asarray(path), ax)

    # ways to build one

    @classmethod
    def between(
        cls,
        lagrangian: Lagrangian,
        first: Any,
        last: Any,
        *,
        duration: float,
        steps: int,
        meter: Meter,
        n_inputs: int = 0,
        guess: Any = None,
    ) -> Self:
        """Paths from one place to another.

        Args:
            lagrangian: L.
            first, last: q_0 and q_N, shape (n,).
            duration: T, seconds.
            steps: N, at least 2.
            meter: what is read.
            n_inputs: how many numbers x holds.
            guess: where Newton's method starts, shape (N - 1, n); by default a straight line at constant speed.

        Raises ValueError for shapes and numbers that are no path, and for a meter that reads beyond it.
        """
        return cls(
            lagrangian=lagrangian, meter=meter, **path_fields(first, last, duration, steps, meter, n_inputs, guess)
        )

    @classmethod
    def loop(
        cls,
        lagrangian: Lagrangian,
        n: int,
        *,
        duration: float,
        steps: int,
        meter: Meter,
        n_inputs: int = 0,
        guess: Any = None,
    ) -> Self:
        """Paths that repeat after a time T, as those of a driven system in its steady state.

        A system that nothing drives in time may start its loop anywhere: its status is `zero_mode`.

        Args:
            lagrangian: L, with any drive periodic in T.
            n: how many coordinates.
            duration: T, seconds.
            steps: N, even, at least 4.
            meter: what is read, at steps 0 to N - 1.
            n_inputs: how many numbers x holds.
            guess: where Newton's method starts, shape (N, n); by default at rest at 0.

        Raises ValueError for shapes and numbers that are no loop, and for a meter that reads beyond it.
        """
        return cls(lagrangian=lagrangian, meter=meter, **loop_fields(n, duration, steps, meter, n_inputs, guess))

    @staticmethod
    def launched(
        lagrangian: MechanicalLagrangian,
        position: Any,
        momentum: Any,
        *,
        duration: float,
        steps: int,
        meter: Meter,
        n_inputs: int = 0,
        friction: float = 0.0,
    ) -> InitialValueTrajectory:
        """The motion from a place with a momentum; see `InitialValueTrajectory`.

        Args:
            lagrangian: L, of masses in a potential.
            position, momentum: q_0 and p_0, shape (n,).
            duration: T, seconds.
            steps: N, at least 1.
            meter: what is read.
            n_inputs: how many numbers x holds.
            friction: a rate, per second, at which momenta are lost; see there.

        Raises TypeError for a Lagrangian of another kind, ValueError for shapes and numbers that are no motion, and for
        a meter that reads beyond it.
        """
        fields = launch_fields(lagrangian, position, momentum, duration, steps, meter, n_inputs, friction)
        return InitialValueTrajectory(lagrangian=lagrangian, meter=meter, **fields)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> Self:
        """Coupled pendulums that the features drive; each output is how far one of them is halfway along the path.

        They leave 0 at t = 0 and return to it at T = 1 s, in 4 steps; `sizes` are the pendulums beside those of the
        outputs (by default 8).
        """
        hidden = 8 if sizes is None else sum(sizes)
        n, steps = hidden + n_outputs, 4
        system = CoupledPendulums.random(n, n_inputs, frequency=1.5, key=key)
        meter = Samples(range(hidden, n), [steps // 2])
        nowhere = np.zeros(n)
        return cls.between(system, nowhere, nowhere, duration=1.0, steps=steps, meter=meter, n_inputs=n_inputs)

    def training_defaults(self) -> dict[str, Any]:
        return {"beta": 0.1, "optimiser": "adam", "learning_rate": LEARNING_RATES, "epochs": 5, "batch_size": 20}
