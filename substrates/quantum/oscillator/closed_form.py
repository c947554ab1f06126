"""The equilibrium of oscillators in closed form: one eigenvalue problem, and the outputs under a nudge."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin
from substrates.quantum.oscillator.response import MeanResponse, MomentResponse, Settled, response_of
from substrates.solvers.batching import in_turn
from substrates.solvers.generic import DescendThenPolish
from substrates.solvers.solver import Equilibrium, Solver, Status, judge, tolerance


class ClosedForm(Solver):
    """Settles oscillators by their normal modes.

    Free, <x> = K^-1 f and Cov_x = (hbar/2) M^-1/2 Omega^-1 coth(hbar Omega / 2T) M^-1/2. A nudge acts through the pull
    that it exerts on the outputs: on <x_o> it is a force and leaves the modes alone, so that a batch of inputs that are
    forces shares one eigenvalue problem; on <x_o^2> it is a stiffness. As the pull depends on the outputs, it is the
    root of pull - nudge.pull(outputs(pull)), found by Newton's method with the susceptibilities of the outputs: in one
    step for quadratic costs of means and for costs that are linear in the outputs. A pin is the pull that brings the
    outputs to their targets. A complex beta goes to the generic solver.

    Attributes:
        max_steps: the most steps of Newton's method.
    """

    max_steps: int = 50

    def __call__(
        self, substrate: Any, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(start)):
            return DescendThenPolish()(substrate, x, nudge, start, key)
        response = response_of(substrate, x)
        pulls = len(substrate.outputs) * (1 if substrate.reading == "mean" else 2)
        free = settled = response.settled(jnp.zeros(pulls, response.force.dtype))
        steps, held = jnp.ones((), jnp.int32), jnp.asarray(True)
        if nudge is not None:
            settled, steps = self._pulled(response, settled, nudge)
        if isinstance(nudge, Nudge):
            held = _is_minimum(response, settled, nudge)
        modes, state = response.modes(settled), response.state(settled)
        found = judge(substrate, state, x, nudge, steps, tolerance(substrate, state, x, nudge))
        status = Status.where(response.blurred(settled), Status.ill_conditioned, found.status)
        indifferent = jnp.abs(modes.squared[0]) <= modes.threshold
        fallen = Status.where(indifferent, Status.zero_mode, Status.unstable)
        status = Status.where(response.stable(free) & held, status, fallen)
        known = jnp.all(jnp.isfinite(response.modes(free).squared)) & jnp.all(jnp.isfinite(response.force))
        status = Status.where(known, status, Status.not_finite)
        return Equilibrium(found.state, found.energy, found.residual, found.steps, status)

    def _pulled(
        self, response: MeanResponse | MomentResponse, free: Settled, nudge: Nudge | Pin
    ) -> tuple[Settled, Array]:
        def imbalance(settled: Settled) -> Array:
            return (
                settled.output - nudge.target if isinstance(nudge, Pin) else settled.pull - nudge.pull(settled.output)
            )

        def slope(settled: Settled) -> Array:
            susceptibility = response.susceptibility(settled)
            if isinstance(nudge, Pin):
                return susceptibility
            return (
                jnp.eye(len(susceptibility), dtype=susceptibility.dtype)
                + nudge.curvature(settled.output) @ susceptibility
            )

        fine = 4 * jnp.finfo(free.output.dtype).eps

        def scale(settled: Settled) -> Array:
            """What each imbalance is small against; forces and stiffnesses have units of their own."""
            if isinstance(nudge, Pin):
                sizes = jnp.abs(nudge.target) + jnp.abs(free.output)
            else:
                # a pull that depends on outputs is rounded as they are
                bends = jnp.abs(nudge.curvature(settled.output)) @ jnp.abs(settled.output)
                sizes = jnp.abs(settled.pull) + jnp.abs(nudge.pull(settled.output)) + bends
            return jnp.where(sizes > 0, sizes, 1.0)

        size = lambda settled, scale: jnp.max(jnp.abs(imbalance(settled)) / scale)

        def running(carry):
            settled, moving, step = carry
            return moving & (step < self.max_steps) & (size(settled, scale(settled)) > fine)

        def advance(carry):
            settled, _, step = carry
            direction = -jnp.linalg.solve(slope(settled), imbalance(settled))
            units = scale(settled)
            at = lambda fraction: response.settled(settled.pull + fraction * direction)

            def too_long(trial):
                fraction, there = trial
                better = size(there, units) < (1 - 1e-4 * fraction) * size(settled, units)
                return ~(better & response.stable(there)) & (fraction > 1e-6)

            one = jnp.ones((), settled.pull.dtype)
            halve = lambda trial: (trial[0] / 2, at(trial[0] / 2))
            fraction, there = jax.lax.while_loop(too_long, halve, (one, at(one)))
            moving = fraction > 1e-6
            return jax.tree.map(lambda new, old: jnp.where(moving, new, old), there, settled), moving, step + 1

        first = (free, jnp.asarray(True), jnp.zeros((), jnp.int32))
        settled, _, steps = jax.lax.while_loop(running, advance, first)
        return settled, steps


def _is_minimum(response: MeanResponse | MomentResponse, settled: Settled, nudge: Nudge) -> Bool[Array, ""]:
    """Whether the modes stay stable and X^-1 + beta C'' is positive definite, with X the susceptibility."""
    asked = response.settled(nudge.pull(settled.output))
    susceptibility = response.susceptibility(settled)
    root = jnp.sqrt(jnp.maximum(jnp.diagonal(susceptibility), 0))  # means and second moments have units of their own
    safe = jnp.where(root > 0, root, 1.0)
    sizes, vectors = in_turn(jnp.linalg.eigh)((susceptibility / safe[:, None]) / safe)
    half = root[:, None] * vectors * jnp.sqrt(jnp.maximum(sizes, 0))
    least = in_turn(jnp.linalg.eigvalsh)(half.T @ nudge.curvature(settled.output) @ half)[0]
    return response.stable(asked) & (least > -1)
