"""Motions from a launch, by leapfrog: forwards, and back again as an echo."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, NoReturn, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from substrates.classical.trajectory.lagrangian import MechanicalLagrangian
from substrates.classical.trajectory.meter import Meter
from substrates.nudge import Nudge, NudgeRefusedError, Pin, batch_axes
from substrates.solvers.meeting import or_largest
from substrates.solvers.solver import Equilibrium, Solver, Status
from substrates.substrate import Substrate, fixed, split_parameters

State = tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, "outputs"]]
"""Where a motion is: positions, momenta, and what was read so far."""

BOUNDARY = (
    "its end is free, so that two launches under different nudges differ there and leave a boundary term p dq: their "
    "contrast is wrong by as much as the gradient itself. Train it by HamiltonianEcho, which nudges on the way back, "
    "or fix both ends (Trajectory.between) or make a loop (Trajectory.loop)"
)

LIMIT = 4.0
"""(w h)^2 from which on leapfrog is unstable."""


class InitialValueTrajectory(Substrate):
    """Masses in a potential V, launched at q_0 with the momentum p_0, that move by leapfrog (velocity Verlet):

        p' = p_k - h/2 dV/dq(q_k, t_k),   q_(k+1) = q_k + h p'/m,   p_(k+1) = p' - h/2 dV/dq(q_(k+1), t_(k+1)).

    It is the path of stationary action (that of `Trajectory`) with a given launch; so its momenta can be reversed at
    the end, and it runs back to where it set out, whatever its length, with nothing stored on the way. Nudged on the
    way back, at the steps that were read, by +-beta times the slope of the cost of what was read, this is a
    Hamiltonian echo:

        dC/dtheta = [ dS/dtheta(echo, +beta) - dS/dtheta(echo, -beta) ] / (2 beta) + O(beta^2),

    along paths that share their end, where the way out had its free one (`learning.HamiltonianEcho`). A nudge on the
    way out is refused: the two launches would not share a boundary condition at T.

    It has no energy that settles. `force` is how far a state is from the end of the motion, so that implicit
    differentiation of the equilibrium is automatic differentiation through leapfrog.

    Attributes:
        lagrangian: masses in a potential, whose arrays are the parameters.
        meter: what is read along the way.
        steps: N.
        n_inputs: how many numbers x holds.
        position, momentum: q_0 and p_0, constants, shape (n,). The momentum is what stays if masses are trained.
        duration: T = N h, seconds, a constant.
        friction: a rate g, per second, a constant: dp/dt = -dV/dq - g p. In every step momenta lose a part 1 -
            exp(-g h), out and back, half of it (a factor exp(-g h/2)) before the positions move and half after, which
            keeps leapfrog of second order in h. An echo then does not return, and is refused.

    Source: Pourcel and Ernoult 2025, arXiv 2506.05259, Hamiltonian echo learning; Lopez-Pastor and Marquardt 2021,
    arXiv 2103.04992, for the echo; the form for leapfrog is derived here.
    """

    pins: ClassVar[bool] = False

    holomorphic: ClassVar[bool] = False

    why_not_holomorphic: ClassVar[str] = "they are where a motion ended, and nudges act on its way back alone"

    reversible: ClassVar[bool] = True

    lagrangian: MechanicalLagrangian
    meter: Meter
    steps: int = eqx.field(static=True)
    n_inputs: int = eqx.field(static=True)
    position: Float[Array, " n"] = fixed()
    momentum: Float[Array, " n"] = fixed()
    duration: Float[Array, ""] = fixed()
    friction: Float[Array, ""] = fixed()

    @property
    def step(self) -> Float[Array, ""]:
        """h, seconds."""
        return self.duration / self.steps

    # the contract

    @property
    def input_size(self) -> int:
        return self.n_inputs

    def initial_state(self, x: Float[Array, " inputs"]) -> State:
        """The launch, and what is read there."""
        return self.position, self.momentum, self.meter(self.position, jnp.asarray(0))

    def read(self, state: State, x: Float[Array, " inputs"]) -> Float[Array, "outputs"]:
        return state[2]

    def force(self, state: State, x: Float[Array, " inputs"]) -> State:
        """Where the motion ends, less the state."""
        return jax.tree.map(jnp.subtract, self._end(x)[0], state)

    def relax(
        self,
        x: Float[Array, " inputs"],
        nudge: Nudge | Pin | None = None,
        start: State | None = None,
        *,
        key: PRNGKeyArray | None = None,
        solver: Solver | None = None,
    ) -> Equilibrium:
        """Moves from the launch to the end, by N steps of leapfrog; memory does not grow with N.

        Args:
            x: the input of one example.
            nudge: None; anything else raises `NudgeRefusedError`, for there would be a boundary term.
            start: without effect, for the launch is a part of the system.
            key: not needed.
            solver: None; there is one way to move.

        The status is `too_coarse` where steps are too long for leapfrog: where along the motion, in the mean,
        dq (dV/dq(q + dq) - dV/dq(q)) is more than 4 dq m dq / h^2.
        """
        if nudge is not None:
            raise NudgeRefusedError(f"nudge: wanted None, got a {type(nudge).__name__}: {BOUNDARY}")
        if solver is not None:
            raise ValueError(f"solver: wanted None, for a launch has leapfrog alone, got {type(solver).__name__}")
        return _moved(self, x)

    def measure(self, states: State, xs: PyTree, nudges: Nudge | Pin | None = None) -> NoReturn:
        """Raises TypeError: a state is the end of a motion, and the action that of the way."""
        raise TypeError(f"measure: {type(self).__name__} shows dS/dtheta along an echo alone; {BOUNDARY}")

    def contrast(
        self,
        plus: State,
        minus: State,
        xs: PyTree,
        nudges_plus: Nudge | Pin | None = None,
        nudges_minus: Nudge | Pin | None = None,
    ) -> NoReturn:
        """Raises TypeError: the contrast of two launches is not the gradient."""
        raise TypeError(f"contrast: {type(self).__name__} cannot be contrasted: {BOUNDARY}")

    def constrained(self) -> Self:
        return dataclasses.replace(self, lagrangian=self.lagrangian.constrained())

    def training_defaults(self) -> dict[str, Any]:
        return {"beta": 1e-3, "optimiser": "adam", "learning_rate": 0.01, "epochs": 20, "batch_size": 20}

    # there and back

    def path(self, x: Float[Array, " inputs"]) -> Float[Array, "nodes n"]:
        """All positions from t = 0 to T, for pictures; memory grows with N here."""
        return _path(self, x)

    def energies(self, x: Float[Array, " inputs"]) -> Float[Array, "nodes"]:
        """The kinetic and potential energy at every node, joules: constant up to h^2 where nothing drives or rubs."""
        return _energies(self, x)

    def retrace(self, x: Float[Array, " inputs"]) -> Float[Array, ""]:
        """How far from the launch the motion is when it has run to the end and, momenta reversed, back: a part of how
        far it went, in the coordinate and momentum where that is largest. Rounding, without friction.
        """
        batch = lambda tree: jax.tree.map(lambda leaf: leaf[None], tree)
        found = batch(self.relax(x).state)
        nothing = Nudge(_Sum(), jnp.zeros_like(found[2]), jnp.zeros((), found[2].dtype), found[2])
        return self.echo(found, batch(x), nothing)[1].residual[0]

    def echo(self, states: State, xs: PyTree, nudges: Nudge) -> tuple[Self, Equilibrium]:
        """Two echoes side by side, with forces +-(do/dq)' pull at every step: the contrast of dS/dtheta, and where they
        came back, (q, p, o) with the launch's o.

        The residual is by how much the mean of both misses the launch, and the status `irreversible` where that is more
        than rounding explains (a part eps^(1/2)) and more than half of what sets the two apart, which is what the
        nudge does to first order.
        """
        if nudges.about is None:
            raise ValueError("nudges: wanted `about`, what was shown, from which an echo takes the slope of the cost")
        return _echoed(self, states, xs, nudges)

    def _returned(self, plus: _Motion, minus: _Motion, sizes: tuple[Array, Array]) -> Equilibrium:
        """Where both echoes of one example came back, judged; `sizes` of positions and momenta on the way."""
        both = jax.tree.map(lambda p, m: jnp.stack([p, m]), plus, minus)
        ends = (both.position, self.position, sizes[0]), (-both.momentum, self.momentum, sizes[1])
        scaled = lambda part, size: jnp.max(jnp.abs(part) / or_largest(jnp.max(size)[None]))
        missed = jnp.maximum(*(scaled(jnp.mean(end, axis=0) - launch, size) for end, launch, size in ends))
        apart = jnp.maximum(*(scaled((end[0] - end[1]) / 2, size) for end, _, size in ends))
        allowed = jnp.maximum(apart / 2, float(jnp.finfo(missed.dtype).eps) ** 0.5)
        status = Status.where(missed <= allowed, Status.converged, Status.irreversible)
        status = Status.where(jnp.isfinite(missed), status, Status.not_finite)
        arrived = *(jnp.mean(end, axis=0) for end, _, _ in ends), self.meter(self.position, jnp.asarray(0))
        return Equilibrium(arrived, None, missed, jnp.asarray(self.steps, jnp.int32), status)

    # leapfrog

    def _push(self, position: Float[Array, " n"], time: Any, x: Any) -> Float[Array, " n"]:
        return -jax.grad(self.lagrangian.potential)(position, time, x)

    def _time(self, k: Any) -> Float[Array, ""]:
        return jnp.asarray(k).astype(self.duration.dtype) * self.step

    def _glide(self, position: Array, momentum: Array, push: Array) -> tuple[Array, Array]:
        """The first half of a step: the momentum halfway, and the next position."""
        half = (momentum + self.step / 2 * push) * self._kept
        return half, position + self.step * half / self.lagrangian.mass

    def _land(self, half: Array, push: Array) -> Array:
        """The second half of a step: the momentum at the next position, under the push there."""
        return half * self._kept + self.step / 2 * push

    @property
    def _kept(self) -> Float[Array, ""]:
        """The part of a momentum that friction leaves in half a step."""
        return jnp.exp(-self.friction * self.step / 2)

    def _forwards(self, x: Any, seen: Callable[[Any], Any]) -> tuple[Any, Any]:
        """(position, momentum, push, outputs) at the end, with the means that tell a step too long; and what was seen
        of them on the way."""
        first = self.position, self.momentum, self._push(self.position, self._time(0), x)
        shown = self.meter(self.position, jnp.asarray(0))
        nothing = jnp.zeros((), self.position.dtype)

        def advance(carry: Any, _: None) -> tuple[Any, Any]:
            (position, momentum, push, shown), (bent, moved), k = carry
            half, there = self._glide(position, momentum, push)
            pushed = self._push(there, self._time(k + 1), x)
            dq = there - position
            bends, moves = jnp.sum(dq * (push - pushed)), jnp.sum(self.lagrangian.mass * dq**2)
            finite = jnp.isfinite(bends) & jnp.isfinite(bent + bends) & jnp.isfinite(moved + moves)
            sums = jnp.where(finite, bent + bends, bent), jnp.where(finite, moved + moves, moved)
            now = there, self._land(half, pushed), pushed, shown + self.meter(there, k + 1)
            return (now, sums, k + 1), seen(now)

        begin = (*first, shown), (nothing, nothing), jnp.asarray(0)
        return jax.lax.scan(advance, begin, None, self.steps)

    def _end(self, x: Any) -> tuple[State, tuple[Array, Array]]:
        (position, momentum, _, shown), sums, _ = self._forwards(x, lambda _: None)[0]
        return (position, momentum, shown), sums


class _Sum(eqx.Module):
    """The sum of the outputs: a cost whose slope is known everywhere."""

    def __call__(self, output: Array, target: Array) -> Array:
        return jnp.sum(output)


@eqx.filter_jit
def _moved(system: InitialValueTrajectory, x: PyTree) -> Equilibrium:
    state, (bent, moved) = system._end(x)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in (*state, x)]))
    status = Status.where(finite, Status.converged, Status.not_finite)
    coarse = bent * system.step**2 > LIMIT * moved
    residual = jnp.where(finite, 0.0, jnp.inf).astype(state[0].dtype)
    return Equilibrium(
        state, None, residual, jnp.asarray(system.steps, jnp.int32), Status.where(coarse, Status.too_coarse, status)
    )


@eqx.filter_jit
def _path(system: InitialValueTrajectory, x: PyTree) -> Array:
    return jnp.concatenate([system.position[None], system._forwards(x, lambda now: now[0])[1]])


@eqx.filter_jit
def _energies(system: InitialValueTrajectory, x: PyTree) -> Array:
    positions, momenta = system._forwards(x, lambda now: now[:2])[1]
    positions = jnp.concatenate([system.position[None], positions])
    momenta = jnp.concatenate([system.momentum[None], momenta])
    law, times = system.lagrangian, jax.vmap(system._time)(jnp.arange(system.steps + 1))
    return jax.vmap(lambda q, p, t: law.kinetic(p / law.mass) + law.potential(q, t, x))(positions, momenta, times)


def _larger(size: Array, seen: Array) -> Array:
    return jnp.maximum(size, jnp.abs(seen))


class _Motion(NamedTuple):
    """Where the echoes of a batch with one sign are, momenta reversed, with the forces there."""

    position: Float[Array, "batch n"]
    momentum: Float[Array, "batch n"]
    push: Float[Array, "batch n"]


@eqx.filter_jit
def _echoed(system: InitialValueTrajectory, states: State, xs: PyTree, nudges: Nudge) -> tuple[Any, Equilibrium]:
    """See `InitialValueTrajectory.echo`.

    Momenta are reversed, so that the way back is the way out with time reversed; where leapfrog has half a kick by the
    potential on either side of a node, a nudge has its whole. The potential is differentiated once a step, in the
    position for the force and in the parameters for dS/dtheta, which is the sum over the nodes of T - w V with the
    weights w of the trapezoidal rule. Both echoes go side by side, so that no large sums cancel.
    """
    parameters, rest = split_parameters(system)
    pull = lambda nudge, shown: nudge.pull(shown)
    pulls = jax.vmap(pull, in_axes=(batch_axes(nudges), 0))(nudges, states[2])

    def potential(parameters: PyTree, position: Array, k: Array) -> Array:
        law = eqx.combine(parameters, rest).lagrangian
        return jnp.sum(jax.vmap(lambda q, x: law.potential(q, system._time(k), x))(position, xs))

    def kinetic(parameters: PyTree, momentum: Array) -> Array:
        law = eqx.combine(parameters, rest).lagrangian
        return jnp.sum(jax.vmap(lambda p: law.kinetic(p / system.lagrangian.mass))(momentum))

    def step(motion: _Motion, pull: Array, k: Array) -> tuple[_Motion, Array, PyTree]:
        """One node back, to k: the motion there, the momentum on the way, and what it adds to dS/dtheta / h."""
        nudge = lambda q, pull: jax.vjp(lambda q: system.meter(q, k + 1), q)[1](pull)[0]
        kicked = motion.momentum - jax.vmap(nudge)(motion.position, pull)
        half, there = jax.vmap(system._glide)(motion.position, kicked, motion.push)
        felt, slope = jax.grad(potential, (0, 1))(parameters, there, k)
        moved = jax.grad(kinetic)(parameters, half)
        weight = jnp.where(k == 0, 0.5, 1.0)
        shown = jax.tree.map(lambda moved, felt: moved - weight.astype(felt.dtype) * felt, moved, felt)
        return _Motion(there, system._land(half, -slope), -slope), half, shown

    def back(i: Array, carry: tuple[Any, PyTree, tuple[Array, Array]]) -> tuple[Any, PyTree, tuple[Array, Array]]:
        (plus, minus), total, (farthest, fastest) = carry
        k = system.steps - 1 - i
        plus, half, more = step(plus, pulls, k)
        minus, _, less = step(minus, -pulls, k)
        total = jax.tree.map(lambda total, more, less: total + (more - less), total, more, less)
        return (plus, minus), total, (_larger(farthest, plus.position), _larger(fastest, half))

    start = _Motion(states[0], -states[1], -jax.grad(potential, 1)(parameters, states[0], jnp.asarray(system.steps)))
    begin = (start, start), jax.tree.map(jnp.zeros_like, parameters), (jnp.abs(states[0]), jnp.abs(states[1]))
    (plus, minus), total, sizes = jax.lax.fori_loop(0, system.steps, back, begin)
    contrast = jax.tree.map(lambda leaf: (system.step / len(states[0])).astype(leaf.dtype) * leaf, total)
    return contrast, jax.vmap(system._returned)(plus, minus, sizes)
