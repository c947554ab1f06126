"""Whether nudged phases have stayed in the basin of their free state."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact, PyTree

from learning.rule import check_positive
from substrates.substrate import Equilibrium, Nudge, SquaredError, Substrate, ready_inputs, relax_batch, same_batch


def basin_jumps(
    substrate: Substrate, x: PyTree, free: Equilibrium, nudged: Equilibrium, part: float = 0.1
) -> Bool[Array, "batch"]:
    """Which examples a nudge has moved into another basin: let go, they do not return to their free state.

        max_j |released_j - free_j| > part max_j |nudged_j - free_j|

    beyond rounding, or released it does not settle at all. The contrast of two basins is no gradient: of a finite size,
    it is divided by beta, and outweighs other examples the more the weaker the nudge is. Count them with the equilibria
    of an `Estimate`: `basin_jumps(net, x, estimate.equilibria[0], estimate.equilibria[1])`.

    A nudge lets go by falling to zero strength, so that solvers that draw new starts for a free phase do not.

    Args:
        substrate: what has settled.
        x: the inputs of a batch.
        free, nudged: equilibria of that batch, by a nudge or with outputs held.
        part: how much of its way a state may be short of its return and still count as returned, below 1. A solver that
            is truncated may want more than the default.

    Raises:
        TypeError: for what is no equilibrium.
        ValueError: for batches that differ in size, and a `part` that is not between 0 and 1.

    Source: Scellier and Bengio 2017, arXiv 1602.05179, whose theorem follows one minimum as beta grows from 0.
    """
    check_positive("part", part)
    if part >= 1:
        raise ValueError(f"part: wanted less than 1, with which nothing returns, got {part}; 0.1 is the default")
    for name, found in (("free", free), ("nudged", nudged)):
        if not isinstance(found, Equilibrium):
            raise TypeError(
                f"{name}: wanted the Equilibrium of a batch, got {type(found).__name__}; give one of "
                "estimate.equilibria, of which the first is the free one"
            )
    x = ready_inputs(substrate, x, "x")
    same_batch(x=x, free=free.state, nudged=nudged.state)
    outputs = jax.vmap(substrate.read)(nudged.state, x)
    released = relax_batch(substrate, x, Nudge(SquaredError(), outputs, 0.0), nudged.state)
    rounding = math.sqrt(jnp.finfo(outputs.dtype).eps) * _largest(free.state)
    allowed = jnp.maximum(part * _apart(nudged.state, free.state), rounding)
    return (_apart(released.state, free.state) > allowed) | ~released.usable


def _apart(states: PyTree, others: PyTree) -> Inexact[Array, "batch"]:
    return _largest(jax.tree.map(jnp.subtract, states, others))


def _largest(states: PyTree) -> Inexact[Array, "batch"]:
    """The largest entry of each state of a batch, by its size."""
    sizes = [jnp.max(jnp.abs(leaf).reshape(len(leaf), -1), axis=1) for leaf in jax.tree.leaves(states)]
    return functools.reduce(jnp.maximum, sizes)
