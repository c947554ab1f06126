"""Settles elastic networks: Newton's method with a line search, which leaves saddles and certifies minima."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from substrates.classical.elastic import grid
from substrates.classical.elastic.balance import Balance, Objective
from substrates.classical.elastic.springs import SpringNetwork, State
from substrates.classical.elastic.steering import (
    DENSE_SIZE,
    LEAST,
    Anchor,
    Stability,
    by_dense_factor,
    by_sparse_factor,
)
from substrates.nudge import HeldBySprings, Nudge, Pin
from substrates.solvers.batching import in_groups
from substrates.solvers.generic import DescendThenPolish
from substrates.solvers.solver import Equilibrium, Solver, Status, judge, tolerance

ESCAPES = 8
"""How often a saddle is left along its softest mode before the search for a minimum is given up."""

GROUP = 16
"""So many examples of a batch descend together on a CPU."""

FARTHEST = 100.0
"""A coordinate this many times as large as the largest at the start has run away: the energy has no minimum."""

SHORTEST = 1e-4
"""A step is given up when so small a fraction of it leads nowhere."""

COUNT, COUNT_WHEN_GIVEN, COUNT_BY_GRID = 1, 8, 30
"""A sparse factor that conjugate gradients ask more often than this in a step is replaced by one at hand: soon where
the certificate will need another one anyway, late where the next call will ask for the same, and
later where it is a hierarchy, which certifies nothing.
"""

ROUNDS = 60
"""So often may the springs that hold outputs at a pin be loaded."""


class ElasticEquilibrium(Solver):
    """Finds a stable equilibrium of an elastic network.

    Newton's method: at every state the Hessian is factorised, and a step is halved until the energy falls enough or,
    where rounding hides that, until the forces do. Where the Hessian is not definite |H| stands in for it. It ends
    where every force is small beside those that meet at its node and the step that would follow is small beside the
    network: forces alone may balance to rounding where a part is held weakly. There the factor certifies that the state
    is a minimum, and tells how far rounding moves it. From a saddle it goes on downhill along the softest mode; a zero
    mode is reported, and so is a state that rounding moves too far. A pin is an augmented Lagrangian of stiff springs.

    Up to `dense_size` free coordinates all of this is compiled and dense. Above, steps are found by conjugate gradients
    preconditioned by a sparse factor, made on the host, in an order of nested dissection, at an anchor, and kept for
    the next call with the same one. It is replaced where it no longer helps, and certifies the state where every spring
    has kept so much of its stiffness since that the Hessian must be positive definite; or else the Hessian there is
    factorised, too.

    A complex state (analytic continuation) is left to the generic solver.

    Attributes:
        max_steps: the most steps.
        dense_size: up to this many free coordinates matrices are dense.
        absolute_tolerance, relative_tolerance: what may be left over of the forces: newtons, and a part of those that
            meet at a node; None takes them from the dtype.
        anchor: where the first sparse factor is made; None for the start. Steps of a training loop that share one,
            `anchor_of(net, state, x)`, share its factor.

    Source: Nocedal and Wright 2006, "Numerical Optimization", algorithms 3.2 and 7.1; Dauphin et al. 2014, arXiv
    1406.2572, for |H|.
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
        settle: Any = _pinned if isinstance(nudge, Pin) else _settled
        flat = jnp.asarray(start).reshape(-1)
        given = (self, substrate, x, nudge, flat)
        return in_groups(GROUP, settle, *given) if flat.size <= self.dense_size else settle(*given)


def anchor_of(net: SpringNetwork, state: State | None = None, x: Float[Array, "inputs"] | None = None) -> Anchor:
    """The anchor at a state for an input; without a state, at the reference."""
    if state is None:
        return Anchor(net.stiffness, net.rest_length, jnp.asarray(net.reference, net.stiffness.dtype))
    if x is None:
        raise ValueError("x: wanted the input that belongs to the state, got None")
    return Anchor(net.stiffness, net.rest_length, net.positions(state, x))


class Walk(eqx.Module):
    """A state on the way down, and the step from it that is tried next.

    Attributes:
        flat: the free coordinates.
        direction, fraction: the next state to try is flat + fraction * direction.
        energy, uneven, rounding: of the state, see `Balance`; infinite before the first look.
        slope: how steeply the energy falls along the direction.
        residual, limit: what is left over of the forces, and what may be.
        farthest: how large a coordinate may become.
        stability: of the state.
        least: how soft a motion may count where the Hessian is not definite: less and less while it leads where it was
            expected to, or it would take a hundred steps from a saddle that is nearly flat.
        steps, escapes: how many were taken, and how many of them from saddles.
        anchor: of the sparse factor.
        finished: whether no step is left to try.
    """

    flat: Float[Array, "free"]
    direction: Float[Array, "free"]
    fraction: Float[Array, ""]
    energy: Float[Array, ""]
    slope: Float[Array, ""]
    uneven: Float[Array, ""]
    rounding: Float[Array, ""]
    residual: Float[Array, ""]
    limit: Float[Array, ""]
    farthest: Float[Array, ""]
    stability: Stability
    least: Float[Array, ""]
    steps: Int[Array, ""]
    escapes: Int[Array, ""]
    anchor: Anchor | None
    finished: Bool[Array, ""]

    @classmethod
    def begun(cls, flat: Float[Array, "free"], anchor: Anchor | None) -> Walk:
        """At a start that nobody has looked at."""
        number, count = (lambda value: jnp.asarray(value, flat.dtype)), jnp.zeros((), jnp.int32)
        zero, infinite = number(0.0), number(jnp.inf)
        return cls(
            flat=flat,
            direction=jnp.zeros_like(flat),
            fraction=number(1.0),
            energy=infinite,
            slope=zero,
            uneven=infinite,
            rounding=zero,
            residual=infinite,
            limit=zero,
            farthest=infinite,
            stability=Stability(infinite, zero, zero),
            least=number(LEAST),
            steps=count - 1,
            escapes=count,
            anchor=anchor,
            finished=jnp.asarray(False),
        )


def _settled(
    solver: ElasticEquilibrium,
    net: SpringNetwork,
    x: Float[Array, "inputs"],
    nudge: Nudge | None,
    start: Float[Array, "free"],
) -> Equilibrium:
    shape = net.topology.state_shape
    options = x, nudge, solver.absolute_tolerance, solver.relative_tolerance
    limit = lambda at: tolerance(net, start.reshape(shape), *options, scale=at.scale.reshape(shape))
    walk = _walked(solver, Objective(net, net.prescribed(x), nudge), start, limit)
    status = Status.where(walk.residual <= walk.limit, Status.converged, Status.out_of_steps)
    status = Status.where(jnp.isfinite(walk.residual), status, Status.not_finite)
    found = Equilibrium(walk.flat.reshape(shape), walk.energy, walk.residual, jnp.maximum(walk.steps, 0), status)
    return walk.stability.judged(found)


def _pinned(
    solver: ElasticEquilibrium, net: SpringNetwork, x: Float[Array, "inputs"], pin: Pin, start: Float[Array, "free"]
) -> Equilibrium:
    """The augmented Lagrangian: the multiplier grows by the force of the springs until they are not stretched."""
    shape, prescribed = net.topology.state_shape, net.prescribed(x)
    target = jnp.asarray(pin.target, start.dtype)
    limit = tolerance(net, start.reshape(shape), x, pin, solver.absolute_tolerance, solver.relative_tolerance)
    # how far a newton at an output would move it if it moved the nodes it reads alone
    held, free = net.topology.node_stiffness(net.stiffness), Objective(net, prescribed, None)
    slopes = free.reading(net.topology.placed(start, prescribed))[1]
    yields = jnp.sum(slopes**2 / held[free.read][None], axis=1)
    strength = 10 / jnp.where(yields > 0, yields, 1 / jnp.max(held))

    def loaded(carry):
        found, _, multiplier, round_ = carry
        springs = HeldBySprings(target, multiplier, strength)
        flat = found.state.reshape(-1)
        walk = _walked(solver, Objective(net, prescribed, springs), flat, lambda _: 0.1 * limit)
        state, steps = walk.flat.reshape(shape), found.steps + jnp.maximum(walk.steps, 0)
        multiplier += strength * (net.read(state, x) - target)
        return judge(net, state, x, pin, steps, limit), walk.stability, multiplier, round_ + 1

    none, infinite = jnp.zeros((), start.dtype), jnp.asarray(jnp.inf, start.dtype)
    count = jnp.zeros((), jnp.int32)
    unknown = Equilibrium(start.reshape(shape), infinite, infinite, count, Status.out_of_steps)
    first = unknown, Stability(infinite, none, none), jnp.zeros_like(target), count
    running = lambda carry: (carry[3] < ROUNDS) & ~carry[0].converged
    found, stability, *_ = jax.lax.while_loop(running, loaded, first)
    return stability.judged(found)


def _walked(
    solver: ElasticEquilibrium,
    objective: Objective,
    start: Float[Array, "free"],
    limit: Callable[[Balance], Float[Array, ""]],
) -> Walk:
    """Downhill from a start; `limit` of the first look is what may be left over of the forces."""
    net, anchor = objective.net, solver.anchor
    patience = COUNT_BY_GRID if grid.by_grid(net.topology) else COUNT if anchor is None else COUNT_WHEN_GIVEN
    dense = start.size <= solver.dense_size
    if dense:
        anchor = None
    elif anchor is None:
        anchor = Anchor(net.stiffness, net.rest_length, net.topology.placed(start, objective.prescribed))

    def advance(walk: Walk) -> Walk:
        flat = walk.flat + walk.fraction * walk.direction
        at = objective.balance(flat)
        # what the first look decides
        begun = lambda new, old: jnp.where(walk.steps < 0, new, old)
        most, farthest = begun(limit(at), walk.limit), begun(FARTHEST * (at.extent + at.spacing), walk.farthest)
        falls = walk.energy - at.energy > jnp.maximum(1e-4 * walk.fraction * walk.slope, walk.rounding)
        # what a few nodes still feel may be lost among the rounding of all
        evens = (at.uneven <= walk.uneven) & (at.residual <= 0.9 * walk.residual)
        flattens = ((at.uneven <= 0.81 * walk.uneven) | evens) & (at.energy <= walk.energy + walk.rounding)
        accepted = (falls | flattens) & jnp.isfinite(at.energy)
        # whoever judges may add up the same forces in another order
        balanced = at.residual <= 0.9 * most
        led = (walk.fraction == 1) & jnp.isfinite(walk.stability.eigenvalue)
        least = jnp.where(led, walk.least / 4, LEAST)
        if walk.anchor is None:
            outlook = by_dense_factor(objective, at, accepted, least)
        else:
            last = jnp.where(walk.steps < 0, jnp.inf, jnp.max(jnp.abs(walk.direction), initial=0.0))
            outlook = by_sparse_factor(objective, at, walk.anchor, accepted, balanced, last)
        gone = ~(at.extent < farthest)
        # the energy has no minimum where a coordinate runs away
        lost = lambda eigenvalue: jnp.where(gone, -jnp.inf, eigenvalue)
        stability = eqx.tree_at(lambda s: s.eigenvalue, outlook.stability, replace_fn=lost)
        saddle = balanced & stability.negative
        longest = jnp.max(jnp.abs(outlook.mode), initial=0.0)
        mode = outlook.mode * (at.spacing / 2 / jnp.where(longest > 0, longest, 1.0))
        direction = jnp.where(saddle, mode, outlook.direction)
        slope = jnp.sum(direction * at.gradient)
        steps, escapes = walk.steps + 1, walk.escapes + saddle.astype(walk.escapes.dtype)
        spent = gone | (steps >= solver.max_steps) | (escapes > ESCAPES)
        anchor = None
        if walk.anchor is not None and outlook.count is not None:
            here, stale = Anchor(at.springs.stiffness, net.rest_length, at.positions), outlook.count > patience
            anchor = jax.tree.map(lambda new, old: jnp.where(stale, new, old), here, walk.anchor)
        taken = Walk(
            flat=flat,
            direction=jnp.where(slope > 0, -direction, direction),
            fraction=jnp.ones_like(walk.fraction),
            energy=at.energy,
            slope=jnp.abs(slope),
            uneven=at.uneven,
            rounding=at.rounding,
            residual=at.residual,
            limit=most,
            farthest=farthest,
            stability=stability,
            least=least,
            steps=steps,
            escapes=escapes,
            anchor=anchor,
            finished=(balanced & ~saddle & stability.decided) | spent,
        )
        half = walk.fraction / 2
        refused = eqx.tree_at(lambda w: (w.fraction, w.finished), walk, (half, half < SHORTEST))
        return jax.tree.map(lambda new, old: jax.lax.select(accepted, new, old), taken, refused)

    return jax.lax.while_loop(lambda walk: ~walk.finished, advance, Walk.begun(start, anchor))
