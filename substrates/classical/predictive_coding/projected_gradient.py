"""The published solver of predictive coding networks: projected gradient steps, even layers and odd layers in turn."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from substrates.classical.predictive_coding.layers import Predicting, State
from substrates.nudge import Nudge
from substrates.solvers.solver import Equilibrium, Solver, Status, judge, left_over, tolerance


class ProjectedGradient(Solver):
    """Settles a predictive coding network by projected gradient steps on its activities, all even layers, then all odd.

    With the top-down feedback D_k = J_{k+1}' eps_{k+1} and the pre-activation a_k, a step of rate one makes

        h_k <- ReLU(ReLU(a_k) + D_k)      in a bounded network,
        h_k <- ReLU(a_k + D_k)            in a buffered one, and in a bounded one by the modified scheme,
        h_k <- ReLU(a_k) + D_k            in a free one,
        h_L <- a_L - beta dC/dh_L.

    The free phase is one forward pass. From there the gradient of equilibrium propagation is exact to first order in
    beta after as many sweeps as there are layers, and not before. In a bounded network the modified scheme, the
    published one, keeps a negative pre-activation as an inhibitory buffer: where a_k < 0 < D_k it rests at 0 although
    the force there is D_k, so that its fixed points are no equilibria. They are, but for terms of second order in
    beta, those of the buffered network.

    Attributes:
        sweeps: a number of sweeps over all layers to do without a test (status `truncated`), or None to go on until
            converged.
        modified: in a bounded network, keep negative pre-activations as buffers.
        synchronous: update all layers at once, from the same state. At rate one it does not converge, however weak the
            nudge.
        rate: the step. At rate one the sweeps are nilpotent at beta = 0 and settle under weak nudges; under strong ones
            they settle at rates below 2 / (1 + |J|^2), with |J| the largest singular value of any layer's slope.
        max_sweeps: the most sweeps of a converging solve. It stops when a sweep moves no activity by more than a
            fraction of the tolerance, as a part of the largest pre-activation of its layer in a free phase; it is then
            judged by the residual.

    Source: Kerjan, Hoier and Scellier 2026, arXiv 2606.03584.
    """

    pins: ClassVar[bool] = False

    sweeps: int | None = None
    modified: bool = True
    synchronous: bool = False
    rate: float = 1.0
    max_sweeps: int = 500

    def __check_init__(self):
        if self.sweeps is not None and self.sweeps < 1:
            raise ValueError(f"sweeps: wanted None or a positive number, got {self.sweeps}")
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate: wanted a number above 0 and at most 1, got {self.rate}")

    def __call__(
        self,
        substrate: Predicting,
        x: Float[Array, "inputs"],
        nudge: Nudge | None,
        start: State,
        key: PRNGKeyArray | None,
    ) -> Equilibrium:
        if nudge is not None:
            self._check(substrate)
        found = self._settle(substrate.stacked(), x, nudge, substrate.stack(start))
        return dataclasses.replace(found, state=substrate.unstack(found.state))

    def _settle(self, substrate: Predicting, x: Array, nudge: Nudge | None, start: State) -> Equilibrium:
        if nudge is None:
            return judge(substrate, substrate.predict(x), x, None, 1, tolerance(substrate, start, x, None))
        limit = tolerance(substrate, start, x, nudge)
        if self.sweeps is not None:
            # a loop keeps the program short; the number of sweeps is the number of layers
            state = jax.lax.fori_loop(0, self.sweeps, lambda _, h: self._sweep(substrate, x, nudge, h), start)
            steps: Array | int = self.sweeps
        else:
            state, steps = self._converge(substrate, x, nudge, start, self.rate * limit / 8)
        found = judge(substrate, state, x, nudge, steps, limit)
        status = found.status
        if self.sweeps is not None:
            status = Status.where((nudge.beta == 0) | (status == Status.not_finite), status, Status.truncated)
        return Equilibrium(state, found.energy, found.residual, found.steps, status)

    def _check(self, net: Predicting) -> None:
        if self.synchronous:
            return
        for skip in net.skips:
            if (skip.target - skip.source) % 2 == 0:
                raise ValueError(
                    f"solver: even and odd layers cannot take turns with a skip connection from layer {skip.source} to "
                    f"layer {skip.target}, which are updated together; use ErrorSweep, or skip an odd number of layers"
                )

    def _converge(self, net: Predicting, x: Array, nudge: Nudge, start: State, limit: Float[Array, ""]):
        drives = net.drives(net.predict(x), x)
        scale = tuple(jnp.full_like(a, net.largest(k, a)) for k, a in enumerate(drives, 1))

        def moving(carry):
            _, change, sweep = carry
            return (change > limit) & (sweep < self.max_sweeps)

        def advance(carry):
            state, _, sweep = carry
            new = self._sweep(net, x, nudge, state)
            return new, left_over(jax.tree.map(jnp.subtract, new, state), scale), sweep + 1

        first = (start, jnp.asarray(jnp.inf, start[-1].dtype), jnp.zeros((), jnp.int32))
        state, _, sweeps = jax.lax.while_loop(moving, advance, first)
        return state, sweeps

    def _sweep(self, net: Predicting, x: Array, nudge: Nudge, state: State) -> State:
        if self.synchronous:
            return self._update(net, x, nudge, state, (0, 1))
        for parity in (0, 1):
            state = self._update(net, x, nudge, state, (parity,))
        return state

    def _update(self, net: Predicting, x: Array, nudge: Nudge, state: State, parities: tuple[int, ...]) -> State:
        """One step of the layers whose numbers are even, odd or both, all from the same state."""
        drives = net.drives(state, x)
        errors = [h - net.activation(k, a) for k, (h, a) in enumerate(zip(state, drives, strict=True), 1)]
        new = list(state)
        for k, (h, a) in enumerate(zip(state, drives, strict=True), 1):
            turns = np.array([number % 2 in parities for number in net.numbers(k)])
            if not turns.any():
                continue
            if k == len(state):
                new[k - 1] = h + self.rate * (a + nudge.pull(h) - h)
                continue
            feedback = net.feedback(k, state, x, drives, errors)
            buffered = net.rectifier == "buffered" or (net.rectifier == "bounded" and self.modified)
            prediction = a if buffered else net.activation(k, a)
            moved = h + self.rate * (prediction + feedback - h)
            moved = moved if net.rectifier == "free" else jax.nn.relu(moved)
            new[k - 1] = moved if turns.all() else jnp.where(turns[:, None], moved, h)
        return tuple(new)
