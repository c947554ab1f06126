"""Stiffnesses at which oscillators have a ground state: whether they are, and the nearest that certainly are."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from substrates.wiring import summed, taken

_MOST_STEPS = 20_000


def nearest_stable(
    stiffness: Float[Array, "springs"],
    onsite: Float[Array, "n"],
    edges: Int[Any, "springs 2"],
    stiffness_floor: Float[Array, ""],
    onsite_floor: Float[Array, ""],
    compliance: tuple[Float[Array, "springs"], Float[Array, "n"]] | None = None,
) -> tuple[Float[Array, "springs"], Float[Array, "n"]]:
    """The point nearest to (k_ij, k_i) with k_ij >= stiffness_floor and k_i >= onsite_floor + 2 sum_j max(0, -k_ij).

    There every circle of Gershgorin lies above zero, and the stiffness matrix is positive definite. The set is convex.
    Distances are sum_ij (k_ij - k'_ij)^2 / c_ij + sum_i (k_i - k'_i)^2 / c_i with the compliances c, 1 by default.
    With a multiplier lambda_i >= 0 of each oscillator's inequality the nearest point is

        k_i + c_i lambda_i,   k_ij + 2 c_ij (lambda_i + lambda_j) but not above 0 where k_ij < 0,

    and the multipliers maximise a concave function whose gradient is what is missing, found by accelerated ascent
    (Nesterov 2004, "Introductory Lectures on Convex Optimization"). Nothing is done where nothing is missing.
    """
    at_ends = lambda values: summed(jnp.repeat(values, 2), edges.ravel(), onsite.size)
    degree = jnp.max(at_ends(jnp.ones_like(stiffness)))
    yields, sags = (jnp.ones_like(stiffness), jnp.ones_like(onsite)) if compliance is None else compliance
    least = jnp.min(sags, initial=jnp.inf)
    steepest = jnp.max(sags, initial=0) + 8 * degree * jnp.max(yields, initial=0)  # a bound on the Hessian
    root = jnp.sqrt(steepest / least)
    momentum = (root - 1) / (root + 1)

    def springs(multiplier):
        given = 2 * yields * jnp.sum(taken(multiplier, edges), axis=1)
        pushed = jnp.where(stiffness < 0, jnp.minimum(stiffness + given, 0), stiffness)
        return jnp.maximum(pushed, stiffness_floor)

    def needed(springs):
        pushed = 2 * jnp.maximum(-springs, 0)
        return onsite_floor + at_ends(pushed)

    def advance(carry):
        multiplier, ahead, _, step = carry
        missing = needed(springs(ahead)) - onsite - sags * ahead
        new = jnp.maximum(ahead + missing / steepest, 0)
        return new, new + momentum * (new - multiplier), least * jnp.max(jnp.abs(new - ahead)), step + 1

    def going(carry):
        return (carry[2] > enough) & (carry[3] < _MOST_STEPS)

    zero = jnp.zeros_like(onsite)
    missing = jnp.max(needed(springs(zero)) - onsite, initial=0)
    enough = 4 * jnp.finfo(onsite.dtype).eps * jnp.maximum(missing, jnp.max(jnp.abs(onsite), initial=0))
    start = (zero, zero, jnp.where(missing > 0, jnp.inf, 0).astype(onsite.dtype), jnp.zeros((), jnp.int32))
    found, *_ = jax.lax.while_loop(going, advance, start)
    held = springs(found)
    return held, jnp.maximum(onsite + sags * found, needed(held))


def require_stable(stiffness: Float[np.ndarray, "n n"]) -> None:
    """Raises ValueError for a matrix K that is not positive definite."""
    own = np.diagonal(stiffness)
    # next to what oscillators cost one by one, so that soft parts may stand beside stiff ones
    root = 1 / np.sqrt(np.where(own > 0, own, 1.0))
    least = np.linalg.eigvalsh((root[:, None] * stiffness) * root)[0]
    if np.any(own <= 0) or least <= 2 * math.sqrt(len(own)) * np.finfo(float).eps:
        lowest = np.linalg.eigvalsh(stiffness)[0]
        raise ValueError(
            f"stiffness, onsite_stiffness: wanted a positive definite stiffness matrix K, got one with the eigenvalue "
            f"{lowest:.3g}, along which nothing holds the oscillators: hold each connected part by a positive "
            "on-site stiffness, larger than twice what negative springs take from it"
        )
