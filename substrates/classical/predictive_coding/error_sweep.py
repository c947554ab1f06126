"""The exact solver of predictive coding networks: errors travel back, activities travel forward."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from substrates.classical.predictive_coding.layers import Predicting, State
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Equilibrium, Solver, Status, default_tolerance, judge, tolerance


class ErrorSweep(Solver):
    """Settles a predictive coding network by sweeps: errors from the outputs back, activities from the inputs forward.

        eps_L <- -beta dC/dh_L,   eps_k <- J_{k+1}' eps_{k+1},      then      h_k <- f_k(h_{k-1}) + eps_k,

    with hidden activities held as the network's rectifier asks. In the coordinates eps the energy is |eps|^2 / 2, and
    a sweep is a step of gradient descent with rate one on |eps|^2 / 2 + beta C: one sweep is exact to first order in
    beta, and what remains shrinks with beta from sweep to sweep. The output solves h_L + beta dC/dh_L = a_L, at once
    where the cost is quadratic; a pin holds it. The free phase is one forward pass.

    Attributes:
        sweeps: a number of sweeps to do without a test (status `truncated`), or None to sweep until converged.
        max_sweeps: the most sweeps of a converging solve. It stops when a sweep changes what pulls on each node by
            no more than a part of it, or than rounding of its activity, and is then judged by the
            residual; steps have the rate of Barzilai and Borwein.

    Source: the identity of eps/beta and minus the deltas of back-propagation, Kerjan, Hoier and Scellier 2026, arXiv
    2606.03584; errors as coordinates, Goemaere et al. 2025.
    """

    sweeps: int | None = None
    max_sweeps: int = 300

    def __check_init__(self):
        if self.sweeps is not None and self.sweeps < 1:
            raise ValueError(f"sweeps: wanted None or a positive number, got {self.sweeps}")

    def __call__(
        self,
        substrate: Predicting,
        x: Float[Array, "inputs"],
        nudge: Nudge | Pin | None,
        start: State,
        key: PRNGKeyArray | None,
    ) -> Equilibrium:
        found = self._settle(substrate.stacked(), x, nudge, substrate.stack(start))
        return dataclasses.replace(found, state=substrate.unstack(found.state))

    def _settle(self, substrate: Predicting, x: Array, nudge: Nudge | Pin | None, start: State) -> Equilibrium:
        if nudge is None:
            return judge(substrate, substrate.predict(x), x, None, 1, tolerance(substrate, start, x, None))
        limit = tolerance(substrate, start, x, nudge)
        free = nudge.beta == 0 if isinstance(nudge, Nudge) else jnp.asarray(False)
        first = substrate.drive(1, (), x)
        if self.sweeps is not None:
            state, drives = start, _drives(substrate, start, x, first)
            for _ in range(self.sweeps):
                state, drives = _forward(substrate, x, nudge, _feedbacks(substrate, x, nudge, state, drives), first)
            steps, moving = jnp.asarray(self.sweeps, jnp.int32), jnp.asarray(False)
        else:
            still = tuple(map(jnp.zeros_like, start))
            passed = lambda: (
                _forward(substrate, x, nudge, still, first)[0],
                jnp.ones((), jnp.int32),
                jnp.zeros((), bool),
            )
            state, steps, moving = jax.lax.cond(free, passed, lambda: self._converge(substrate, x, nudge, start, first))
        found = judge(substrate, state, x, nudge, steps, limit)
        status = Status.where(found.converged & moving, Status.out_of_steps, found.status)
        if self.sweeps is not None:
            status = Status.where(free | (status == Status.not_finite), status, Status.truncated)
        if isinstance(nudge, Nudge):
            held = jnp.all(1 + nudge.stiffness(state[-1]) > 0)
            status = Status.where(held, status, Status.unstable)
        return Equilibrium(state, found.energy, found.residual, found.steps, status)

    def _converge(
        self, net: Predicting, x: Array, nudge: Nudge | Pin, start: State, first: Array
    ) -> tuple[State, Array, Array]:
        """(state, sweeps, whether it still moves); the inputs drive the first layer once and for all."""
        drives, dtype = _drives(net, start, x, first), start[-1].dtype
        part = default_tolerance(dtype) / 8
        eps = float(jnp.finfo(dtype).eps)

        def running(carry):
            *_, moving, sweep = carry
            return moving & (sweep < self.max_sweeps)

        def advance(carry):
            state, drives, feedback, old, rate, _, sweep = carry
            wanted = _feedbacks(net, x, nudge, state, drives)
            step = tuple(w - d for w, d in zip(wanted, feedback, strict=True))
            # step and old are minus the gradients of |eps|^2 / 2 + beta C now and before: the rate of Barzilai, Borwein
            turned = _product(old, old) - _product(old, step)
            secant = rate * _product(old, old) / jnp.where(turned > 0, turned, 1)
            rate = jnp.where((sweep > 0) & (turned > 0), jnp.clip(secant, 1 / 16, 4), 1)
            feedback = tuple(d + rate * s for d, s in zip(feedback, step, strict=True))
            state, drives = _forward(net, x, nudge, feedback, first)
            layers = enumerate(zip(step, feedback, state, strict=True), 1)
            enough = lambda k, d, h: jnp.maximum(part * jnp.abs(d), eps * net.largest(k, h))
            moving = jnp.any(jnp.stack([jnp.any(jnp.abs(s) > enough(k, d, h)) for k, (s, d, h) in layers]))
            return state, drives, feedback, step, rate, moving, sweep + 1

        still = tuple(jnp.zeros_like(h) for h in start)
        carry = (start, drives, still, still, jnp.ones((), dtype), jnp.asarray(True), jnp.zeros((), jnp.int32))
        state, *_, moving, sweeps = jax.lax.while_loop(running, advance, carry)
        return state, sweeps, moving


def _product(left: State, right: State) -> Float[Array, ""]:
    return jnp.sum(jnp.stack([jnp.sum(a * b) for a, b in zip(left, right, strict=True)]))


def _drives(net: Predicting, state: State, x: Array, first: Array) -> State:
    return (first, *(net.drive(k, state, x) for k in range(2, len(state) + 1)))


def _feedbacks(net: Predicting, x: Array, nudge: Nudge | Pin, state: State, drives: State) -> State:
    """What pulls on every layer from above, from the outputs back."""
    last = len(state) - 1
    feedback = [_output_error(nudge, state[last], drives[last])] * len(state)
    errors = list(feedback)
    for k in reversed(range(last)):
        feedback[k], errors[k] = net.backward(k + 1, state, x, drives, errors)
    return tuple(feedback)


def _forward(net: Predicting, x: Array, nudge: Nudge | Pin, feedback: State, first: Array) -> tuple[State, State]:
    """The activities under a given feedback, from the first layer's drive forward, and what drives all layers."""
    state: list[Array] = []
    drives: list[Array] = []
    for k, pull in enumerate(feedback, 1):
        settle = lambda a, pull, k=k: net.settled(k, a, pull)
        drive, h = net.forward(k, state, x, settle, pull) if k > 1 else (first, settle(first, pull))
        drives.append(drive)
        state.append(h)
    if isinstance(nudge, Pin):
        state[-1] = jnp.asarray(nudge.target, state[-1].dtype)
    return tuple(state), tuple(drives)


def _output_error(nudge: Nudge | Pin, output: Float[Array, "outputs"], drive: Float[Array, "outputs"]) -> Array:
    """eps_L: what a pin leaves, or the root of eps_L + beta dC(a_L + eps_L), of which this is a Newton step with the
    diagonal of the curvature.
    """
    if isinstance(nudge, Pin):
        return jnp.asarray(nudge.target, drive.dtype) - drive
    stiffness = nudge.stiffness(output)
    return (stiffness * (output - drive) + nudge.pull(output)) / (1 + stiffness)
