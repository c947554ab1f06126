"""The exact solver of predictive coding networks: errors travel back, activities travel forward."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from substrates.classical.predictive_coding.layers import Predicting, State
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Equilibrium, Solver, Status, default_tolerance, judge, tolerance
from substrates.wiring import Convolution, Dense
from substrates.wiring.near import ROUGHNESS, in_full, roughly


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
        mixed: multiply changes of activities and errors in bfloat16 (`Solver.in_bfloat16`). A number of sweeps goes on
            from the products of the start, without its errors; a converging solve does them in full again until what
            bfloat16 leaves is as small as a sweep may change.

    Source: the identity of eps/beta and minus the deltas of back-propagation, Kerjan, Hoier and Scellier 2026, arXiv
    2606.03584; errors as coordinates, Goemaere et al. 2025.
    """

    sweeps: int | None = None
    max_sweeps: int = 300
    mixed: bool = eqx.field(static=True, default=False)

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
        with in_full(self.mixed):
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
            net = substrate.near(_rough(substrate), state, x) if self.mixed else substrate
            for _ in range(self.sweeps):
                state, drives = _forward(net, x, nudge, _feedbacks(net, x, nudge, state, drives)[0], first)
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
        dtype = start[-1].dtype
        part, eps = default_tolerance(dtype) / 8, float(jnp.finfo(dtype).eps)

        def above(sizes: Sequence[Array], reached: _Reached) -> Array:
            """Whether any size is more than a sweep may change where it ends."""
            layers = enumerate(zip(sizes, reached.feedback, reached.state, strict=True), 1)
            enough = lambda k, d, h: jnp.maximum(part * jnp.abs(d), eps * net.largest(k, h))
            return jnp.any(jnp.stack([jnp.any(jnp.abs(s) > enough(k, d, h)) for k, (s, d, h) in layers]))

        def settle(
            net: Predicting, begin: _Reached, most: Array | int, told: Callable[[_Reached], Sequence[Array]]
        ) -> tuple[_Reached, Array]:
            """Sweeps until nothing that a sweep told of is above what it may change."""

            def advance(carry):
                reached = _swept(net, x, nudge, first, carry[0])
                return reached, above(told(reached), reached)

            running = lambda carry: carry[1] & (carry[0].sweep < most)
            return jax.lax.while_loop(running, advance, (begin, jnp.asarray(True)))

        still = tuple(jnp.zeros_like(h) for h in start)
        rate, sweep = jnp.ones((), dtype), jnp.zeros((), jnp.int32)
        begin = _Reached(start, _drives(net, start, x, first), still, still, rate, sweep)
        if not self.mixed:
            reached, moving = settle(net, begin, self.max_sweeps, lambda reached: reached.step)
            return reached.state, reached.sweep, moving
        rough = _rough(net)

        def again(carry):
            origin = carry[0]._replace(drives=_drives(net, carry[0].state, x, first))
            wanted, errors = _feedbacks(net, x, nudge, origin.state, origin.drives)
            close = net.near(rough, origin.state, x, origin.drives, errors)

            def lost(reached: _Reached) -> list[Array]:
                """What bfloat16 may have left out of each layer."""
                gone = [
                    jnp.maximum(net.largest(k, h - h0), net.largest(k, d - d0))
                    for k, (h, h0, d, d0) in enumerate(
                        zip(reached.state, origin.state, reached.feedback, wanted, strict=True), 1
                    )
                ]
                return [ROUGHNESS * size for size in gone]

            def told(reached: _Reached) -> list[Array]:
                pairs = zip(reached.step, lost(reached), strict=True)
                return [jnp.where(jnp.abs(step) > size, step, 0) for step, size in pairs]

            reached, _ = settle(close, origin, jnp.minimum(origin.sweep + ROUND, self.max_sweeps), told)
            return reached, above(reached.step, reached) | above(lost(reached), reached)

        going = lambda carry: carry[1] & (carry[0].sweep < self.max_sweeps)
        reached, moving = jax.lax.while_loop(going, again, (begin, jnp.asarray(True)))
        return reached.state, reached.sweep, moving


ROUND = 16
"""So many sweeps in bfloat16 are made good by products in full."""


class _Reached(NamedTuple):
    """Where a converging solve stands: activities and what drives them, what pulls on them and by how much that changed
    in the last sweep, the rate of the next step, and the number of sweeps.
    """

    state: State
    drives: State
    feedback: State
    step: State
    rate: Array
    sweep: Array


def _swept(net: Predicting, x: Array, nudge: Nudge | Pin, first: Array, here: _Reached) -> _Reached:
    wanted, _ = _feedbacks(net, x, nudge, here.state, here.drives)
    step = tuple(w - d for w, d in zip(wanted, here.feedback, strict=True))
    # the steps are minus the gradients of |eps|^2 / 2 + beta C before and now: the rate of Barzilai and Borwein
    squared = _product(here.step, here.step)
    turned = squared - _product(here.step, step)
    secant = here.rate * squared / jnp.where(turned > 0, turned, 1)
    rate = jnp.where((here.sweep > 0) & (turned > 0), jnp.clip(secant, 1 / 16, 4), 1)
    feedback = tuple(d + rate * s for d, s in zip(here.feedback, step, strict=True))
    return _Reached(*_forward(net, x, nudge, feedback, first), feedback, step, rate, here.sweep + 1)


def _rough(net: Predicting) -> tuple[Dense | Convolution, ...]:
    return tuple(map(roughly, net.coupling))


def _product(left: State, right: State) -> Float[Array, ""]:
    return jnp.sum(jnp.stack([jnp.sum(a * b) for a, b in zip(left, right, strict=True)]))


def _drives(net: Predicting, state: State, x: Array, first: Array) -> State:
    return (first, *(net.drive(k, state, x) for k in range(2, len(state) + 1)))


def _feedbacks(
    net: Predicting, x: Array, nudge: Nudge | Pin, state: State, drives: State
) -> tuple[State, State]:
    """(what pulls on every layer from above, the errors that it makes), from the outputs back."""
    last = len(state) - 1
    feedback = [_output_error(nudge, state[last], drives[last])] * len(state)
    errors = list(feedback)
    for k in reversed(range(last)):
        feedback[k], errors[k] = net.backward(k + 1, state, x, drives, errors)
    return tuple(feedback), tuple(errors)


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
