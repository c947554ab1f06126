"""The phases of agnostic equilibrium propagation on a simulated substrate, compiled."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from substrates.laboratory.system import inside
from substrates.nudge import Cost, Nudge
from substrates.solvers.joint import Control, JointEquilibrium, joint_status
from substrates.solvers.solver import Equilibrium, Status, at_rest
from substrates.substrate import Substrate, parameter_dtype, relax_batch, split_parameters

STEPS_AT_ONCE = 16
"""So many steps are made by one call of a compiled function."""


class Apparatus(eqx.Module):
    """What holds a substrate on the bench.

    Attributes:
        control: how knobs hold parameters.
        cost: what a nudge adds to the energy.
        limits: (lower, upper) of the parameters, shape (parameters,) or scalars; None where there are none.
        key: randomness of systems that use it, or None.
        max_rounds: how often the states may settle before a joint relaxation is given up.
    """

    control: Control
    cost: Cost
    limits: tuple[Array, Array] | None
    key: PRNGKeyArray | None
    max_rounds: int

    def nudge(self, target: Any, beta: Any) -> Nudge | None:
        """The nudge towards a batch of targets; none without a beta."""
        return None if beta is None else Nudge(self.cost, target, beta)

    def keys(self, example: Any, copies: int) -> PRNGKeyArray | None:
        """The keys of the copies, for all phases of an example."""
        return None if self.key is None else jax.random.split(jax.random.fold_in(self.key, example), copies)


@eqx.filter_jit
def hold(
    system: Any, apparatus: Apparatus, xs: Array, nudge: Nudge | None, starts: PyTree, keys: PRNGKeyArray | None
) -> tuple[Equilibrium, PyTree]:
    """(states at fixed parameters, with one status for all; the knobs that hold the parameters there)."""
    found = relax_batch(system, xs, nudge, starts, keys)
    force = split_parameters(system.measure(found.state, xs, nudge))[0]
    knobs = apparatus.control.holding(split_parameters(system)[0], force)
    still = jnp.zeros((), parameter_dtype(system))
    return eqx.tree_at(lambda e: e.status, found, joint_status(found, still, still)), knobs


@eqx.filter_jit
def settle(
    system: Any,
    apparatus: Apparatus,
    knobs: PyTree,
    xs: Array,
    nudge: Nudge | None,
    starts: PyTree,
    keys: PRNGKeyArray | None,
) -> JointEquilibrium:
    """The joint relaxation of parameters and states."""
    return system.relax_jointly(apparatus.control, knobs, xs, nudge, starts, keys, max_rounds=apparatus.max_rounds)


@eqx.filter_jit
def make_steps(
    system: Substrate,
    apparatus: Apparatus,
    inputs: Any,
    targets: Any,
    nudges: Any,
    counts: Any,
    margin: float,
    strict: bool,
) -> tuple[Int[Array, ""], tuple[Array, Array], tuple[Status, Status], Bool[Array, ""], tuple[PyTree, PyTree, PyTree]]:
    """Steps of agnostic equilibrium propagation, example after example; see `SelfMoving.make_steps`.

    Args:
        inputs, targets: shape (steps, copies, ...).
        nudges: the betas of both phases, None for none.
        counts: (how many examples there were before, how many of these to take).
        margin, strict: see `SelfMoving`.

    Returns (how many steps were made; the outputs of each homeostatic phase, and whether both phases came to rest; how
    those of the last step ended; whether that step is good; parameters, knobs and states at its end).
    """
    first, rest = split_parameters(system)

    def step(k, parameters):
        x, target = inputs[k], targets[k]
        keys = apparatus.keys(counts[0] + 1 + k, x.shape[0])
        if apparatus.limits is not None:
            flat, unravel = ravel_pytree(parameters)
            parameters = unravel(inside(flat, *apparatus.limits, margin))
        net = eqx.combine(parameters, rest)
        nudge, stronger = (apparatus.nudge(target, beta) for beta in nudges)
        held, knobs = hold(net, apparatus, x, nudge, None, keys)
        moved = settle(net, apparatus, knobs, x, stronger, held.state, keys)
        settled = jnp.stack([at_rest(held.status), at_rest(moved.status)])
        seen = jax.vmap(net.read)(held.state, x), settled
        return seen, (held.status, moved.status), (split_parameters(moved.system)[0], knobs, moved.states.state)

    def advance(carry):
        k, (parameters, *_), seen, *_ = carry
        shown, last, moved = step(k, parameters)
        seen = jax.tree.map(lambda all, each: all.at[k].set(each), seen, shown)
        finite = [status != Status.not_finite for status in last]
        good = jnp.all(shown[1]) if strict else finite[0] & finite[1]
        return k + 1, moved, seen, last, good

    shapes = jax.eval_shape(step, counts[0], first)
    empty = lambda tree, *axes: jax.tree.map(lambda leaf: jnp.zeros((*axes, *leaf.shape), leaf.dtype), tree)
    kept = first, first, empty(shapes[2][2])
    start = counts[0] * 0, kept, empty(shapes[0], inputs.shape[0]), empty(shapes[1]), jnp.ones((), bool)
    going = lambda carry: carry[-1] & (carry[0] < counts[1])
    done, kept, seen, last, good = jax.lax.while_loop(going, advance, start)
    return done, seen, last, good, kept
