"""Two ways downhill: limited-memory BFGS around a factorised Hessian, and a trust region on the true one."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from substrates.classical.elastic.preconditioner import Anchor, Preconditioner, factorise
from substrates.classical.elastic.springs import SpringNetwork, State, length
from substrates.nudge import HeldBySprings, Nudge

MEMORY = 12
"""How many pairs of steps and changes of the force L-BFGS remembers."""

PATIENCE = 12
"""L-BFGS gives way after so many steps in which the force did not fall by a tenth."""

Going = Callable[[Array, Array, Array], Array]
"""Whether to go on from a state with a gradient, to which a step of a length has led, or from which one would lead; the
length in units of the size of the network, infinite where no step is known."""

Point = tuple[Float[Array, "free"], Float[Array, ""], Float[Array, "free"]]
"""(state, energy, gradient)."""


class Memory(eqx.Module):
    """What L-BFGS remembers: steps s, changes y of the gradient along them, 1/(s.y) (0 for none), and how many."""

    moves: Float[Array, "memory free"]
    changes: Float[Array, "memory free"]
    scales: Float[Array, "memory"]
    steps: Int[Array, ""]

    @classmethod
    def empty(cls, flat: Float[Array, "free"]) -> Memory:
        """Nothing yet."""
        none = jnp.zeros((MEMORY, flat.size), flat.dtype)
        return cls(none, none, jnp.zeros(MEMORY, flat.dtype), jnp.zeros((), jnp.int32))


class Objective(eqx.Module):
    """The total energy over the free coordinates, as one vector."""

    net: SpringNetwork
    x: Float[Array, "inputs"]
    nudge: Nudge | HeldBySprings | None

    def _state(self, flat: Float[Array, "free"]) -> State:
        return flat.reshape(self.net.topology.state_shape)

    def energy(self, flat: Float[Array, "free"]) -> Float[Array, ""]:
        """F = E + beta C, joules."""
        energy = self.net.energy(self._state(flat), self.x)
        return energy if self.nudge is None else energy + self.nudge.energy(self.net.read(self._state(flat), self.x))

    def evaluate(self, flat: Float[Array, "free"]) -> tuple[Float[Array, ""], Float[Array, "free"]]:
        """The total energy and its gradient."""
        return self.energy(flat), self.gradient(flat)

    def point(self, flat: Float[Array, "free"]) -> Point:
        """The state with its total energy and gradient."""
        return flat, *self.evaluate(flat)

    def gradient(self, flat: Float[Array, "free"]) -> Float[Array, "free"]:
        """dF/dstate, newtons."""
        gradient = -self.net.force(self._state(flat), self.x).reshape(-1)
        if self.nudge is None:
            return gradient
        output, transpose = jax.vjp(lambda s: self.net.read(self._state(s), self.x), flat)
        return gradient - transpose(self.nudge.pull(output))[0]

    def positions(self, flat: Float[Array, "free"]) -> Float[Array, "n dim"]:
        """Where all nodes stand."""
        return self.net.positions(self._state(flat), self.x)

    def springs(self, flat: Float[Array, "free"]) -> Anchor:
        """The springs as they are."""
        return Anchor(self.net.stiffness, self.net.rest_length, self.positions(flat))

    def rounding(self, flat: Float[Array, "free"], energy: Float[Array, ""]) -> Float[Array, ""]:
        """How uncertain the energy is."""
        positions = self.positions(flat)
        lengths = length(self.net.topology.vectors(positions))
        pulls = self.net.stiffness * jnp.abs(lengths - self.net.rest_length)
        terms = jnp.abs(energy) + jnp.max(jnp.abs(positions)) * jnp.sqrt(jnp.sum(pulls**2))
        return 4 * float(jnp.finfo(flat.dtype).eps) * terms

    def scale(self, flat: Float[Array, "free"]) -> Float[Array, "free"]:
        """The forces that meet at each free coordinate, newtons; never 0."""
        scale = self.net.force_scale(self._state(flat), self.x).reshape(-1)
        return jnp.where(scale > 0, scale, 1.0)

    def size(self, flat: Float[Array, "free"]) -> Float[Array, ""]:
        """How large the network is, metres: its extent, or a spring where that is longer."""
        positions = self.positions(flat)
        extent = jnp.max(jnp.max(positions, axis=0) - jnp.min(positions, axis=0))
        size = jnp.maximum(extent, self.typical_length(flat))
        return jnp.where(size > 0, size, 1.0)

    def typical_length(self, flat: Float[Array, "free"]) -> Float[Array, ""]:
        """The mean length of the springs, at rest or as they are, whichever is longer."""
        return jnp.mean(jnp.maximum(self.net.rest_length, length(self.net.topology.vectors(self.positions(flat)))))


def backtrack(trial: Callable, refused: Callable[..., Bool[Array, ""]], untried: tuple, shortest: float) -> tuple:
    """(fraction, *where it leads): a fraction of a step is halved while it is refused and longer than the shortest.

    Args:
        trial: a tuple, where a fraction leads.
        refused: whether (fraction, *trial) will not do.
        untried: the first fraction twice, and placeholders for where it leads, which `refused` is asked about first.
    """
    going = lambda tried: refused(*tried) & (tried[0] > shortest)

    def halve(tried):
        fraction = tried[0] / 2
        return fraction, *trial(fraction)

    return jax.lax.while_loop(going, halve, untried)


def descend(
    objective: Objective, start: Point, memory: Memory, steering: Preconditioner, going: Going, max_steps: int
) -> tuple[Point, Memory, Float[Array, ""]]:
    """L-BFGS with M^-1 for its initial inverse Hessian, going on with what it remembers; (point, memory, the length of
    the last step in units of the size of the network).

    A step is halved until the energy falls enough (Armijo); once rounding hides the fall, until the force falls.
    It ends where no step does either, or where the force no longer falls. Forces are measured as parts of those that
    meet at a coordinate. It remembers in units of the size of the network and of its largest force, so that products
    are numbers in single precision, too.
    """
    size, scale = objective.size(start[0]), objective.scale(start[0])
    largest = jnp.max(scale, initial=0.0)
    norm = lambda force: jnp.sqrt(jnp.sum((force / scale) ** 2))
    reach = lambda way: jnp.max(jnp.abs(way), initial=0.0) / size

    def direction(gradient, memory):
        moves, changes, scales = memory.moves, memory.changes, memory.scales
        # the newest first; unused pairs have scale 0
        order = (memory.steps - 1 - jnp.arange(MEMORY, dtype=jnp.int32)) % MEMORY

        def back(vector, k):
            weight = scales[k] * jnp.sum(moves[k] * vector)
            return vector - weight * changes[k], weight

        vector, weights = jax.lax.scan(back, -gradient / largest, order)
        vector = steering.solve(vector * largest) / size

        def forth(vector, pair):
            k, weight = pair
            return vector + (weight - scales[k] * jnp.sum(changes[k] * vector)) * moves[k], None

        return size * jax.lax.scan(forth, vector, (order[::-1], weights[::-1]))[0]

    def running(carry):
        (flat, _, gradient), memory, idle, _, step = carry
        return (memory.steps < max_steps) & (idle < PATIENCE) & going(flat, gradient, step)

    def advance(carry):
        (flat, energy, gradient), memory, idle, best, _ = carry
        towards = direction(gradient, memory)
        there = ~going(flat, gradient, reach(towards))
        slope = jnp.sum(towards * gradient)
        rounding = objective.rounding(flat, energy)
        before = norm(gradient)

        def refused(fraction, _, new_energy, new_gradient):
            falls = new_energy <= energy + 1e-4 * fraction * slope
            flattens = (norm(new_gradient) <= 0.9 * before) & (new_energy <= energy + rounding)
            return ~there & ((fraction > 1) | ~(falls | flattens))

        untried = (jnp.asarray(2.0, flat.dtype), flat, jnp.asarray(jnp.inf, flat.dtype), gradient)
        trial = lambda fraction: objective.point(flat + fraction * towards)
        fraction, moved, new_energy, new_gradient = backtrack(trial, refused, untried, 1e-4)
        failed = ~(fraction > 1e-4) | ~(slope < 0)
        move, change = (moved - flat) / size, (new_gradient - gradient) / largest
        curvature = jnp.sum(move * change)
        alike = jnp.sqrt(jnp.sum(move * move) * jnp.sum(change * change))
        kept = (curvature > 1e-6 * alike) & ~failed & ~there
        slot = memory.steps % MEMORY
        memory = Memory(
            memory.moves.at[slot].set(jnp.where(kept, move, 0.0)),
            memory.changes.at[slot].set(jnp.where(kept, change, 0.0)),
            memory.scales.at[slot].set(jnp.where(kept, 1 / jnp.where(kept, curvature, 1.0), 0.0)),
            jnp.where(there, memory.steps, memory.steps + 1),
        )
        keep = lambda new, old: jnp.where(failed | there, old, new)
        point = keep(moved, flat), keep(new_energy, energy), keep(new_gradient, gradient)
        after = norm(point[2])
        idle = jnp.where(failed, PATIENCE, jnp.where(after < 0.9 * best, 0, idle + 1))
        return point, memory, idle, jnp.minimum(best, after), reach(towards)

    untested = jnp.asarray(jnp.inf, start[0].dtype)
    first = (start, memory, jnp.zeros((), jnp.int32), norm(start[2]), untested)
    point, memory, _, _, step = jax.lax.while_loop(running, advance, first)
    return point, memory, step


def trust_region(
    objective: Objective, start: Point, last: Float[Array, ""], going: Going, max_steps: int, dense_size: int
) -> tuple[Point, Float[Array, ""], Int[Array, ""]]:
    """Newton's method within a trust region, a largest displacement of any coordinate; (point, the length of the last
    step in units of the size of the network, steps). `last` is that of the step that led to the start.

    The quadratic model is minimised by preconditioned conjugate gradients, to the boundary along a direction of
    negative curvature. The region starts at a displacement of half a spring and follows how well the model foretells.
    Where rounding hides the energy a step must lessen the forces, or the step that would follow.
    """
    net, size = objective.net, objective.size(start[0])
    reach = objective.typical_length(start[0])
    least = float(jnp.finfo(start[0].dtype).eps)
    largest = lambda way: jnp.max(jnp.abs(way), initial=0.0)

    def running(carry):
        flat, _, gradient, radius, last, step = carry
        return (step < max_steps) & going(flat, gradient, last) & (radius > least * reach)

    def advance(carry):
        flat, energy, gradient, radius, last, step = carry
        steering = factorise(net, objective.springs(flat), dense_size)
        _, product = jax.linearize(objective.gradient, flat)
        move, bend, steered = steihaug(product, gradient, steering.solve, radius, reach)
        foretold = jnp.sum(gradient * move) + 0.5 * jnp.sum(move * bend)
        moved = flat + move
        new_energy, new_gradient = objective.evaluate(moved)
        rounding = objective.rounding(flat, energy)
        agreement = (new_energy - energy - rounding) / (foretold - rounding)
        scale = objective.scale(flat)
        flattens = jnp.sum((new_gradient / scale) ** 2) <= 0.81 * jnp.sum((gradient / scale) ** 2)
        flattens |= largest(steering.solve(new_gradient)) <= 0.5 * largest(steered)
        flattens &= new_energy <= energy + rounding
        hidden = jnp.abs(foretold) <= rounding
        accepted = jnp.where(hidden, flattens, (agreement > 1e-3) & (new_energy <= energy + rounding))
        accepted &= jnp.isfinite(new_energy)
        moves = largest(move)
        grown = jnp.where(agreement > 0.75, jnp.maximum(radius, 2.5 * moves), radius)
        radius = jnp.where(accepted & (agreement > 0.25), grown, 0.25 * jnp.minimum(moves, radius))
        radius = jnp.where(hidden, jnp.where(accepted, jnp.maximum(radius, moves), 0.0), radius)
        keep = lambda new, old: jnp.where(accepted, new, old)
        return (
            keep(moved, flat),
            keep(new_energy, energy),
            keep(new_gradient, gradient),
            jnp.minimum(radius, 2 * reach),
            keep(moves / size, last),
            step + 1,
        )

    first = (*start, 0.5 * reach, last, jnp.zeros((), jnp.int32))
    flat, energy, gradient, _, last, steps = jax.lax.while_loop(running, advance, first)
    return (flat, energy, gradient), last, steps


def steihaug(
    product: Callable,
    gradient: Float[Array, "free"],
    solve: Callable,
    radius: Float[Array, ""],
    length: Float[Array, ""],
    most: int = 100,
) -> tuple[Float[Array, "free"], Float[Array, "free"], Float[Array, "free"]]:
    """The step that lowers gradient.p + p.Hp/2 within a displacement of `radius` of any coordinate; (p, H p, the
    gradient preconditioned).

    Conjugate gradients preconditioned by `solve`; they stop at the boundary, along a direction of negative curvature on
    it, and at a residual that makes Newton's method converge faster than linearly: where the preconditioned residual
    has shrunk by the root of its first size in units of a length, at least tenfold.
    """
    largest = lambda v: jnp.max(jnp.abs(v))

    def to_boundary(move, way):
        """The largest t >= 0 with |move + t way| <= radius in every coordinate."""
        safe = jnp.where(way == 0, 1.0, way)
        reach = jnp.where(way == 0, jnp.inf, (jnp.sign(way) * radius - move) / safe)
        return jnp.maximum(jnp.min(reach), 0.0)

    def running(carry):
        _, _, _, steered, _, step, going = carry
        return going & (step < most) & (largest(steered) > goal)

    def advance(carry):
        move, bend, residual, steered, way, step, _ = carry
        curved = product(way)
        curvature = jnp.sum(way * curved)
        weight = jnp.sum(residual * steered)
        bounded = to_boundary(move, way)
        positive = curvature > 0
        stride = jnp.where(positive, weight / jnp.where(positive, curvature, 1.0), jnp.inf)
        inside = positive & (stride < bounded)
        stride = jnp.where(inside, stride, bounded)
        move, bend = move + stride * way, bend + stride * curved
        residual = residual + stride * curved
        new_steered = solve(residual)
        ratio = jnp.sum(residual * new_steered) / weight
        return (
            move,
            bend,
            residual,
            new_steered,
            -new_steered + ratio * way,
            step + 1,
            inside & (largest(move) < radius),
        )

    none = jnp.zeros_like(gradient)
    steered = solve(gradient)
    goal = largest(steered) * jnp.minimum(0.1, jnp.sqrt(largest(steered) / length))
    first = (none, none, gradient, steered, -steered, jnp.zeros((), jnp.int32), jnp.asarray(True))
    move, bend, *_ = jax.lax.while_loop(running, advance, first)
    return move, bend, steered
