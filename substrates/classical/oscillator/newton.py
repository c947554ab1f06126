"""Newton's method on the torques, as a descent of the energy."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.sparse.linalg
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from substrates.nudge import Nudge, Pin
from substrates.solvers.batching import in_turn


def descend_by_newton(
    net: Any,
    x: PyTree,
    nudge: Nudge | Pin | None,
    start: PyTree,
    limit: Float[Array, ""],
    unsettled: Bool[Array, ""],
    max_steps: int,
    dense: bool,
) -> tuple[PyTree, Int[Array, ""]]:
    """The state at the bottom of the valley of `start`, and the steps that it took; none unless `unsettled`.

    Steps solve |H| d = torque, where |H| has the magnitudes of the Hessian's eigenvalues: downhill from anywhere and
    away from saddles (Dauphin et al. 2014, arXiv 1406.2572). Large systems solve H d = torque by conjugate gradients
    and, where that does not lead downhill, follow the torque. A step turns no phase by more than a radian and is
    halved until the energy falls or the torque shrinks. Outputs held by a pin do not move.
    """
    flat, unravel = ravel_pytree(start)
    moves = jnp.ones_like(flat)
    if isinstance(nudge, Pin):
        outputs = net.output_phases(start)
        moves -= ravel_pytree(net.with_outputs(jax.tree.map(jnp.zeros_like, start), jnp.ones_like(outputs)))[0]
    epsilon = float(jnp.finfo(flat.dtype).eps)
    torque_at = lambda y: moves * ravel_pytree(net.total_force(unravel(y), x, nudge))[0]
    at = lambda y: (y, net.total_energy(unravel(y), x, nudge), torque_at(y))
    largest = lambda v: jnp.max(jnp.abs(v), initial=0.0)

    def direction(y: Array, torque: Array) -> Array:
        if dense:
            hessian = -jax.jacfwd(torque_at)(y) * moves
            values, vectors = in_turn(jnp.linalg.eigh)((hessian + hessian.T) / 2)
            sizes = jnp.maximum(jnp.abs(values), epsilon**0.5 * largest(values))
            return vectors @ ((vectors.T @ torque) / jnp.where(sizes > 0, sizes, 1))
        action = lambda v: -jax.jvp(torque_at, (y,), (v,))[1]
        found = jax.scipy.sparse.linalg.cg(action, torque, tol=1e-3, maxiter=10 * flat.size)[0]
        downhill = (found @ torque > 0) & jnp.all(jnp.isfinite(found))
        return jnp.where(downhill, found, torque / largest(torque))

    def running(carry):
        (_, _, torque), step, moving = carry
        return moving & (largest(torque) > limit) & (step < max_steps)

    def advance(carry):
        (y, energy, torque), step, _ = carry
        d = direction(y, torque)
        d /= jnp.maximum(1.0, largest(d))
        slope, rounding = d @ torque, 8 * epsilon * (1 + jnp.abs(energy))

        def refused(trial):
            fraction, (_, new_energy, new_torque) = trial
            fell = new_energy <= energy - 1e-4 * fraction * slope
            calmed = (largest(new_torque) <= 0.5 * largest(torque)) & (new_energy <= energy + rounding)
            return ~(fell | calmed) & (fraction > 1e-6)

        halve = lambda trial: (trial[0] / 2, at(y + trial[0] / 2 * d))
        untried = (y, jnp.full_like(energy, jnp.inf), torque)
        fraction, found = jax.lax.while_loop(refused, halve, (jnp.full((), 2.0, flat.dtype), untried))
        moving = fraction > 1e-6
        kept = jax.tree.map(lambda new, old: jnp.where(moving, new, old), found, (y, energy, torque))
        return kept, step + 1, moving

    (flat, _, _), steps, _ = jax.lax.while_loop(running, advance, (at(flat), jnp.zeros((), jnp.int32), unsettled))
    return unravel(flat), steps
