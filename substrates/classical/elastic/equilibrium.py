"""Settles elastic networks: a descent steered by one factorised Hessian, a trust region behind it, a certificate."""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from substrates.classical.elastic import sparse_factor
from substrates.classical.elastic.descent import Going, Memory, Objective, Point, backtrack, descend, trust_region
from substrates.classical.elastic.preconditioner import DENSE_SIZE, Anchor, Preconditioner, factorise
from substrates.classical.elastic.springs import SpringNetwork, State
from substrates.classical.elastic.stability import (
    Softest,
    certified_status,
    curvature_at_outputs,
    is_certified,
    softest_mode,
)
from substrates.nudge import HeldBySprings, Nudge, Pin
from substrates.solvers.batching import in_groups, only_where
from substrates.solvers.certificate import state_tolerance
from substrates.solvers.generic import DescendThenPolish
from substrates.solvers.solver import Equilibrium, Solver, judge, tolerance

ESCAPES = 8
"""How often a saddle is left along its softest mode before the search for a minimum is given up."""

GROUP = 16
"""So many examples of a batch descend together on a CPU."""

FARTHEST = 100.0
"""A coordinate this many times as large as the largest at the start has run away: the energy has no minimum."""


class ElasticEquilibrium(Solver):
    """Finds a stable equilibrium of an elastic network.

    L-BFGS whose initial inverse Hessian is one factorised Hessian M^-1, at an anchor: the network at its reference,
    so that the examples of a batch and all phases share one factor. Where it stalls (buckling, large turns) a trust
    region takes over: Steihaug's conjugate gradients on the true Hessian, preconditioned by the factor at the current
    state. It ends where every force is small beside those that meet at its node and the step that led there was small
    beside the network: forces alone may balance to rounding where a part is held weakly. The state is then certified:
    every spring has kept so much of its stiffness since the anchor that the Hessian must be positive definite, or else
    the Hessian itself is factorised, which also tells how far the state is off and how far rounding moves it. From a
    saddle it goes on downhill along the softest mode; a zero mode is reported, and so is a state that rounding moves
    too far. A pin is an augmented Lagrangian of stiff springs.

    Up to `dense_size` free coordinates all of this is compiled and dense; above, factors are sparse, on the host, in an
    order of nested dissection, and kept for the next call with the same anchor.

    A complex state (analytic continuation) is left to the generic solver.

    Attributes:
        max_steps: the most steps of each stage.
        dense_size: up to this many free coordinates matrices are dense.
        absolute_tolerance, relative_tolerance: what may be left over of the forces: newtons, and a part of those that
            meet at a node; None takes them from the dtype.
        anchor: where M is factorised; None for the reference of the network at hand. Steps of a training loop that
            share one, `anchor_of(net, state, x)`, share its factor.

    Source: Nocedal and Wright 2006, "Numerical Optimization", algorithms 7.4 and 7.2; Steihaug 1983, "The conjugate
    gradient method and trust regions in large scale optimization".
    """

    max_steps: int = 300
    dense_size: int = DENSE_SIZE
    absolute_tolerance: float | None = None
    relative_tolerance: float | None = None
    anchor: Anchor | None = None

    def __call__(
        self, substrate: Any, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        if jnp.iscomplexobj(start) or jnp.iscomplexobj(substrate.stiffness):
            generic = DescendThenPolish(
                absolute_tolerance=self.absolute_tolerance, relative_tolerance=self.relative_tolerance
            )
            return generic(substrate, x, nudge, start, key)
        limit = tolerance(substrate, start, x, nudge, self.absolute_tolerance, self.relative_tolerance)
        settle = _pinned if isinstance(nudge, Pin) else _settled
        flat = jnp.asarray(start).reshape(-1)
        together = lambda *given: settle(self, *given)
        given = (substrate, x, nudge, flat, limit)
        dense = flat.size <= self.dense_size
        flat, steps, softest = in_groups(GROUP, together, *given) if dense else together(*given)
        return certified_status(judge(substrate, flat.reshape(jnp.shape(start)), x, nudge, steps, limit), softest)


def anchor_of(net: SpringNetwork, state: State | None = None, x: Float[Array, "inputs"] | None = None) -> Anchor:
    """The anchor at a state for an input; without a state, at the reference."""
    if state is None:
        return Anchor(net.stiffness, net.rest_length, jnp.asarray(net.reference, net.stiffness.dtype))
    if x is None:
        raise ValueError("x: wanted the input that belongs to the state, got None")
    return Anchor(net.stiffness, net.rest_length, net.positions(state, x))


def _settled(
    solver: ElasticEquilibrium,
    net: SpringNetwork,
    x: Float[Array, "inputs"],
    nudge: Nudge | HeldBySprings | None,
    start: Float[Array, "free"],
    limit: Float[Array, ""],
) -> tuple[Float[Array, "free"], Array, Softest]:
    """(state, steps, its softest mode)."""
    objective = Objective(net, x, nudge)
    far = FARTHEST * (jnp.max(jnp.abs(start), initial=0.0) + objective.typical_length(start))
    # the judge may add up the same forces in another order
    bounds = _Bounds(objective, 0.9 * limit, far)
    scale = objective.scale(start)
    going = lambda flat, gradient, step: bounds.going(flat, gradient, step, scale)
    point, step, steering, steps = _descended(solver, objective, start, going)
    flat, _, gradient = point
    outputs = curvature_at_outputs(objective, flat)
    finished = bounds.at_rest(flat, gradient, step) & is_certified(objective, flat, outputs, steering)
    carry = (point, steps, Softest.unknown(start, step))
    search = functools.partial(_searched, solver)
    (flat, _, _), steps, softest = only_where(~finished, search, objective, bounds, steering, carry)
    lost = eqx.tree_at(lambda s: s.eigenvalue, softest, jnp.where(bounds.gone(flat), -jnp.inf, softest.eigenvalue))
    return flat, steps, lost


class _Bounds(eqx.Module):
    """When a search ends: what an equilibrium leaves over of the forces, and the coordinate that has run away."""

    objective: Objective
    limit: Float[Array, ""]
    far: Float[Array, ""]

    def gone(self, flat: Float[Array, "free"]) -> Bool[Array, ""]:
        return ~(jnp.max(jnp.abs(flat), initial=0.0) < self.far)

    def at_rest(
        self,
        flat: Float[Array, "free"],
        gradient: Float[Array, "free"],
        step: Array | float,
        scale: Array | None = None,
    ) -> Bool[Array, ""]:
        """Whether forces balance and the step was short; `scale` is what meets at the coordinates, by default here."""
        scale = self.objective.scale(flat) if scale is None else scale
        short = step <= state_tolerance(flat.dtype) / 4
        return short & (jnp.max(jnp.abs(gradient) / scale, initial=0.0) <= self.limit)

    def going(
        self,
        flat: Float[Array, "free"],
        gradient: Float[Array, "free"],
        step: Array | float,
        scale: Array | None = None,
    ) -> Bool[Array, ""]:
        return ~self.at_rest(flat, gradient, step, scale) & ~self.gone(flat)


def _searched(
    solver: ElasticEquilibrium,
    objective: Objective,
    bounds: _Bounds,
    steering: Preconditioner,
    carry: tuple[Point, Array, Softest],
) -> tuple[Point, Array, Softest]:
    """Downhill from where L-BFGS ended, and on from every saddle along its softest mode; (point, steps, softest)."""

    balanced = lambda point: bounds.at_rest(point[0], point[2], 0.0)

    def unsettled(carry):
        point, _, softest, tries = carry
        short = bounds.at_rest(point[0], point[2], softest.step)
        elsewhere = softest.negative | (~short & ~softest.zero & ~softest.blurred)
        return (tries == 0) | ((tries < ESCAPES) & elsewhere & balanced(point) & ~bounds.gone(point[0]))

    def search(carry):
        point, steps, softest, tries = carry
        point, step = _escaped(objective, point, softest)
        point, step, more = trust_region(objective, point, step, bounds.going, solver.max_steps, solver.dense_size)
        softest = Softest.unknown(point[0], step)
        outputs = curvature_at_outputs(objective, point[0])
        # also where the forces do not quite balance: the judge is a little more lenient
        uncertain = ~is_certified(objective, point[0], outputs, steering) & ~bounds.gone(point[0])
        softest = softest_mode(objective, point, outputs, softest, uncertain, solver.dense_size)
        return point, steps + more, softest, tries + 1

    point, steps, softest, _ = jax.lax.while_loop(unsettled, search, (*carry, jnp.zeros((), jnp.int32)))
    return point, steps, softest


def _descended(
    solver: ElasticEquilibrium, objective: Objective, start: Float[Array, "free"], going: Going
) -> tuple[Point, Array, Preconditioner, Array]:
    """Downhill by L-BFGS; (point, length of the last step, what steered it, steps).

    A large network of which no anchor is given is steered by a factor at the start, until the force has fallen a
    three-hundredfold; from there, if too much has changed to certify the minimum by that factor, by one at hand.
    """
    net = objective.net
    steer = lambda anchor: factorise(net, anchor, solver.dense_size)
    point, memory = objective.point(start), Memory.empty(start)
    if solver.anchor is not None or start.size <= solver.dense_size:
        steering = steer(anchor_of(net) if solver.anchor is None else solver.anchor)
        point, memory, step = descend(objective, point, memory, steering, going, solver.max_steps)
        return point, step, steering, memory.steps
    scale = objective.scale(start)
    size = lambda gradient: jnp.sqrt(jnp.sum((gradient / scale) ** 2))
    coarse = lambda flat, gradient, step: going(flat, gradient, step) & (size(gradient) > 3e-3 * size(point[2]))
    anchor = objective.springs(start)
    steering = steer(anchor)
    near, memory, _ = descend(objective, point, memory, steering, coarse, solver.max_steps)
    here = objective.springs(near[0])
    suffices = steering.loss(here) <= sparse_factor.NARROW / 2
    chosen = jnp.where(suffices, anchor.positions, here.positions)
    steering = steer(Anchor(net.stiffness, net.rest_length, chosen))
    point, memory, step = descend(objective, near, memory, steering, going, solver.max_steps)
    return point, step, steering, memory.steps


def _escaped(objective: Objective, point: Point, softest: Softest) -> tuple[Point, Float[Array, ""]]:
    """A lower point along the softest mode of a saddle, or the same point where there is none; with the length of the
    step that is known to lead there.
    """
    flat, energy, gradient = point
    mode = softest.mode / jnp.maximum(jnp.max(jnp.abs(softest.mode)), jnp.finfo(flat.dtype).tiny)
    mode = jnp.where(jnp.sum(mode * gradient) > 0, -mode, mode)
    reach = objective.typical_length(flat)

    refused = lambda _, found: softest.negative & ~(found < energy)
    trial = lambda fraction: (objective.energy(flat + fraction * reach * mode),)
    untried = (jnp.asarray(0.5, flat.dtype), jnp.asarray(jnp.inf, flat.dtype))
    fraction, found = backtrack(trial, refused, untried, 1e-6)
    lower = softest.negative & (found < energy)
    moved = jnp.where(lower, flat + fraction * reach * mode, flat)
    keep = lambda new, old: jnp.where(lower, new, old)
    gradient = jax.lax.cond(lower, lambda: objective.gradient(moved), lambda: gradient)
    return (moved, keep(found, energy), gradient), keep(jnp.asarray(jnp.inf, flat.dtype), softest.step)


def _compliance_at_outputs(
    net: SpringNetwork, x: Float[Array, "inputs"], flat: Float[Array, "free"]
) -> Float[Array, "outputs"]:
    """How far a newton at each output would move it if it moved the nodes it reads alone, metres per newton."""
    at_nodes = net.topology.node_stiffness(net.stiffness)
    read = net.topology.read_coordinates
    shown = lambda part: net.read(flat.at[read].set(part).reshape(net.topology.state_shape), x)
    rows = jax.jacrev(shown)(flat[read])
    yields = jnp.sum(rows * (rows / at_nodes[read]), axis=1)
    return jnp.where(yields > 0, yields, 1 / jnp.max(at_nodes))


def _pinned(
    solver: ElasticEquilibrium,
    net: SpringNetwork,
    x: Float[Array, "inputs"],
    pin: Pin,
    start: Float[Array, "free"],
    limit: Float[Array, ""],
) -> tuple[Float[Array, "free"], Array, Softest]:
    """The augmented Lagrangian: the multiplier grows by the force of the springs until they are not stretched."""
    shape = net.topology.state_shape
    target = jnp.asarray(pin.target, start.dtype)
    strength = 10 / _compliance_at_outputs(net, x, start)

    def running(carry):
        flat, _, _, _, step = carry
        return (step < 60) & ~(net.residual(flat.reshape(shape), x, pin) <= limit)

    def round_(carry):
        flat, multiplier, steps, _, step = carry
        springs = HeldBySprings(target, multiplier, strength)
        flat, more, softest = _settled(solver, net, x, springs, flat, 0.1 * limit)
        multiplier += strength * (net.read(flat.reshape(shape), x) - target)
        return flat, multiplier, steps + more, softest, step + 1

    zero = jnp.zeros((), jnp.int32)
    first = round_((start, jnp.zeros_like(target), zero, Softest.unknown(start, jnp.zeros((), start.dtype)), zero))
    flat, _, steps, softest, _ = jax.lax.while_loop(running, round_, first)
    return flat, steps, softest
