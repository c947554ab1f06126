"""The solver for any substrate: descend first, polish then, judge by the substrate's own residual."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Inexact, Int, PRNGKeyArray, PyTree

from substrates.nudge import HeldBySprings, Nudge, Pin
from substrates.solvers.batching import spectra_in_turn
from substrates.solvers.descent import projected_gradient, quasi_newton
from substrates.solvers.krylov import Kind, newton_krylov, solve
from substrates.solvers.meeting import (
    Products,
    meeting_forces,
    of_matrix,
    or_largest,
    products,
    row_sizes,
    shown,
    slopes,
)
from substrates.solvers.newton import Forces, settle_by_newton, unbalanced
from substrates.solvers.solver import (
    ROUNDINGS,
    Equilibrium,
    Solver,
    Status,
    System,
    allowed,
    bounds_at,
    cast_like,
    judge,
    judged,
    left_over,
    max_norm,
    tolerance,
)
from substrates.solvers.stability import Motion

MOST_ROUNDS = 50
"""So many rounds may springs take to bring outputs to a pin."""

Most = Callable[[Int[Array, ""] | int], Int[Array, ""] | int]
"""How many steps may follow so many already taken."""


class DescendThenPolish(Solver):
    """Settles any substrate: a descent of the energy, then Newton's method on what it leaves.

    Descent alone stops too early and Newton alone may be far from the basin of the start, so both, in this order. The
    descent is L-BFGS; projected spectral gradient where there are bounds; implicit Euler flow with growing steps where
    there is no energy. It works in units of its own: displacements as large as the state or as a first Newton step,
    forces as large as these displacements make them. Newton's method then goes to the bottom of the valley, leaves
    saddles along their softest mode, and certifies the state: what rounding moves by more than its tolerance is
    `ill_conditioned`, what some motion leaves undecided `zero_mode`. A fixed point of a system without an energy that
    the flow would leave, as one that it was started at, is `unstable`; so far as `dense_size` goes.

    A pin is solved as a root of (force + (dread)' multiplier, read - target) from the free state, with bounds as the
    complementarity of what is left over and the distance from them; where no motion brings the outputs nearer to a pin
    that they miss it is `infeasible`. A complex state only polishes, from the free state, so that it stays on its
    branch.

    Attributes:
        max_steps: the most steps of each stage.
        budget: None, or the most steps of all stages together.
        dense_size: up to this many state variables Newton's method decomposes the Jacobian; above, it is Newton-Krylov
            without a matrix, and the state is judged by its forces alone.
        absolute_tolerance, relative_tolerance: see `tolerance`.

    Source for the flow: Kelley and Keyes 1998, "Convergence analysis of pseudo-transient continuation".
    """

    max_steps: int = 500
    budget: Int[Array, ""] | None = None
    dense_size: int = 512
    absolute_tolerance: float | None = None
    relative_tolerance: float | None = None

    def stopped_after(self, count: Int[Array, ""]) -> Self:
        return dataclasses.replace(self, budget=count)

    def left(self, steps: Int[Array, ""] | int) -> Int[Array, ""] | int:
        """How many steps the next stage may take where so many were taken."""
        return self.max_steps if self.budget is None else jnp.clip(self.budget - steps, 0, self.max_steps)

    def __call__(
        self, substrate: System, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        if isinstance(nudge, Pin):
            return _pinned(self, substrate, x, nudge, start, self.left)
        descends = not any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(start))
        return _settled(self, substrate, x, nudge, start, self.left, descends, self.budget is not None)


class Newton(Solver):
    """Goes to the root of the stationarity near the start, minimum or saddle: for actions, which are saddles.

    Attributes:
        max_steps: the most steps.
        dense_size: up to this many state variables its Jacobian is decomposed; above, Newton-Krylov without a matrix.
        absolute_tolerance, relative_tolerance: see `tolerance`.
    """

    max_steps: int = 500
    dense_size: int = 512
    absolute_tolerance: float | None = None
    relative_tolerance: float | None = None

    def __call__(
        self, substrate: System, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        most = lambda _: self.max_steps
        if isinstance(nudge, Pin):
            return _pinned(self, substrate, x, nudge, start, most)
        return _settled(self, substrate, x, nudge, start, most, descends=False)


class _Example(eqx.Module):
    """One example of a substrate under a nudge, as numbers in a row.

    Attributes:
        unravel: the state of such numbers.
        first: the sizes of the initial state.
        absolute, relative: see `tolerance`.
        dense: whether a matrix of their size may be decomposed.
    """

    substrate: System
    x: PyTree
    nudge: Nudge | None
    unravel: Callable
    first: PyTree
    lower: Float[Array, " n"] | None
    upper: Float[Array, " n"] | None
    absolute: float | None
    relative: float | None
    dense: bool
    downhill: bool
    longest: float = float("inf")

    @property
    def derived(self) -> bool:
        """Whether the substrate leaves what an equilibrium is to the contract, so that its parts are computed once."""
        return self.substrate.derives("total_force", "stationarity", "meeting", "residual")

    def on_tree(self, method: Callable[..., PyTree]) -> Callable:
        """A method of the substrate as a function of numbers in a row."""
        return lambda state: ravel_pytree(method(self.unravel(state), self.x))[0]

    def energy(self, state: Inexact[Array, " n"]) -> Inexact[Array, ""]:
        """The total energy."""
        return self.substrate.total_energy(self.unravel(state), self.x, self.nudge)

    def force(self, state: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
        """The total force; minus the stationarity where a substrate says itself what that is."""
        if self.downhill or self.derived:
            return ravel_pytree(self.substrate.total_force(self.unravel(state), self.x, self.nudge))[0]
        return -ravel_pytree(self.substrate.stationarity(self.unravel(state), self.x, self.nudge))[0]

    def scale(self, state: Inexact[Array, " n"]) -> Float[Array, " n"]:
        """The forces that meet at each variable."""
        return self.on_tree(self.substrate.force_scale)(state)

    def look(self, state: Inexact[Array, " n"]) -> Forces:
        return self.forces(state, judged=True)

    def forces(self, state: Inexact[Array, " n"], judged: bool) -> Forces:
        """The forces at a state, with or without a judgement of it."""
        substrate, nudge, derived = self.substrate, self.nudge, self.derived
        force, bent = slopes(self.on_tree(substrate.force) if derived else self.force, state)
        along, wall = of_matrix(bent), jnp.ones((), state.real.dtype)
        if derived and substrate.derives("force_scale"):
            scale = meeting_forces(force, along, state, jnp.maximum(jnp.abs(state), ravel_pytree(self.first)[0]))
        else:
            scale = self.scale(state)
        if self.lower is not None and derived and substrate.derives("bound_stiffness"):
            wall = or_largest(row_sizes(along, jnp.ones_like(state)))
        elif self.lower is not None:
            wall = self.on_tree(substrate.bound_stiffness)(state)
        brought, meeting = None, scale
        if derived and isinstance(nudge, Nudge):
            brought, bent_too = slopes(self.brought(nudge.pull), state)
            force, bent = force + brought, bent + bent_too
            meeting = scale + jnp.abs(self.brought(nudge.size)(state)) if judged else scale
        left, zero = unbalanced(self, state, force, wall), jnp.zeros((), scale.dtype)
        seen = Forces(force, bent, scale, left, wall, zero, zero, zero)
        if not judged:
            return seen
        tree = self.unravel(state)
        if derived:
            limit = allowed(state.dtype, nudge, brought, scale, self.absolute, self.relative)
            residual = left_over(left, meeting)
        else:
            limit = tolerance(substrate, tree, self.x, nudge, self.absolute, self.relative)
            residual = substrate.residual(tree, self.x, nudge)
        energy = self.energy(state) if self.downhill else zero
        return dataclasses.replace(seen, limit=limit, energy=energy, residual=residual)

    def brought(self, by: Callable[[Array], Array]) -> Callable[[Array], Array]:
        """What outputs bring to the variables that they show, of what they are given."""

        def back(state):
            output, transpose = jax.vjp(lambda s: self.show(s), state)
            return transpose(by(output))[0]

        return back

    def feel(self, state: Inexact[Array, " n"]) -> tuple[Inexact[Array, ""], Inexact[Array, " n"]]:
        force = self.force(state)
        return self.energy(state) if self.downhill else jnp.zeros((), force.real.dtype), force

    def show(self, state: Inexact[Array, " n"]) -> Inexact[Array, " outputs"]:
        return self.substrate.read(self.unravel(state), self.x)

    def sizes(self, state: Inexact[Array, " n"]) -> Float[Array, " n"]:
        """Now or at the initial state: the largest of each leaf."""

        def size(leaf, first):
            largest = jnp.max(jnp.maximum(jnp.abs(leaf), first), initial=0.0)
            return jnp.broadcast_to(jnp.where(largest > 0, largest, 1.0), leaf.shape)

        return ravel_pytree(jax.tree.map(size, self.unravel(state), self.first))[0]


def _example(
    solver: DescendThenPolish | Newton, substrate: System, x: PyTree, nudge: Nudge | None, start: PyTree, downhill: bool
) -> _Example:
    bounds = bounds_at(substrate, x, start)
    lower, upper = (None, None) if bounds is None else (ravel_pytree(side)[0] for side in bounds)
    first = jax.tree.map(jnp.abs, cast_like(substrate.initial_state(x), start))
    limits = solver.absolute_tolerance, solver.relative_tolerance
    flat, unravel = ravel_pytree(start)
    dense = flat.size <= solver.dense_size
    return _Example(substrate, x, nudge, unravel, first, lower, upper, *limits, dense, downhill)


def _settled(
    solver: DescendThenPolish | Newton,
    substrate: System,
    x: PyTree,
    nudge: Nudge | None,
    start: PyTree,
    most: Most,
    descends: bool,
    trusted: bool = False,
) -> Equilibrium:
    """The equilibrium near a start, judged; `trusted` where a descent is not asked whether it led nearer."""
    example = _example(solver, substrate, x, nudge, start, descends and substrate.conservative)
    found = _found(solver, example, start, most, descends, trusted)
    if example.lower is None or example.upper is None:
        return found
    status = Status.where(jnp.all(example.lower <= example.upper), found.status, Status.infeasible)
    return dataclasses.replace(found, status=status)


def _found(
    solver: DescendThenPolish | Newton, example: _Example, start: PyTree, most: Most, descends: bool, trusted: bool
) -> Equilibrium:
    """The same whether or not its bounds leave a state."""
    substrate, x, nudge = example.substrate, example.x, example.nudge
    flat, unravel = ravel_pytree(start)
    descend = _descend if example.downhill else _flow
    if flat.size <= solver.dense_size:
        first = partial(descend, example) if descends else None
        found = settle_by_newton(example, flat, most, first, trusted)
        state, energy = unravel(found.state), found.energy if example.downhill else None
        if substrate.conservative and not example.downhill:
            energy = substrate.total_energy(state, x, nudge)
        settled = found.certificate.judged(judged(state, energy, found.residual, found.steps, found.limit))
        flows = descends and not substrate.conservative and example.derived and example.lower is None
        return _staying(example, found.ahead, settled) if flows else settled
    limit = tolerance(substrate, start, x, nudge, solver.absolute_tolerance, solver.relative_tolerance)
    residual = lambda y: substrate.residual(unravel(y), x, nudge)

    def better(old, new):
        before, after = residual(old), residual(new)
        nearer = jnp.isfinite(after) & ~(after > before)
        if example.downhill:
            nearer &= example.energy(new) < jnp.inf
        return jnp.where(nearer, new, old)

    steps = 0
    if descends:
        (energy, force), along = example.feel(flat), products(example.force, flat)[1]
        going = jnp.where(residual(flat) > limit, most(0), 0)
        fallen, steps = descend(example, flat, energy, force, along, example.sizes(flat), limit, going)
        flat = fallen if trusted else better(flat, fallen)
    bound = example.lower is not None or jnp.iscomplexobj(flat) or not substrate.conservative
    kind: Kind = "general" if bound else "positive" if example.downhill else "symmetric"
    root = example.on_tree(lambda state, x: substrate.stationarity(state, x, nudge))
    polished, more = newton_krylov(root, example.scale, flat, limit, most(steps), kind)
    flat = better(flat, polished) if example.downhill else polished
    return judge(substrate, unravel(flat), x, nudge, steps + more, limit)


def _staying(example: _Example, state: Float[Array, " n"], found: Equilibrium) -> Equilibrium:
    """A fixed point, `unstable` where the flow ds/dt = force would leave it; looked at one step of Newton's method
    further, since the motions about a state off by its residual may fade where those about the fixed point do not.
    """
    stiffness = or_largest(row_sizes(of_matrix(slopes(example.force, state)[1]), jnp.ones_like(state)))
    leaves = found.converged & ~Motion.about(state, example.force).stable(stiffness)
    return dataclasses.replace(found, status=Status.where(leaves, Status.unstable, found.status))


def _descend(
    example: _Example,
    flat: Float[Array, " n"],
    energy: Float[Array, ""],
    force: Float[Array, " n"],
    along: Products,
    size: Float[Array, " n"],
    limit: Float[Array, ""],
    most: Int[Array, ""] | int,
) -> tuple[Float[Array, " n"], Int[Array, ""]]:
    """Down the energy, in units of its own: displacements from the start, and energies; (state, steps)."""
    stiffness, pull, largest = _units(force, along, size)
    unit = jnp.maximum(largest, pull / stiffness)
    place = lambda z: flat + unit * z
    height = lambda z: (example.energy(place(z)) - energy) / (stiffness * unit) / unit
    z = jnp.zeros_like(flat)
    if example.lower is None or example.upper is None:
        found, steps = quasi_newton(height, z, float(jnp.finfo(flat.dtype).eps) ** 0.5, most)
    else:
        lower, upper = ((side - flat) / unit for side in (example.lower, example.upper))
        found, steps = projected_gradient(height, z, lower, upper, limit, most)
    return place(found), steps


def _flow(
    example: _Example,
    flat: Float[Array, " n"],
    energy: Float[Array, ""],
    force: Float[Array, " n"],
    along: Products,
    size: Float[Array, " n"],
    limit: Float[Array, ""],
    most: Int[Array, ""] | int,
) -> tuple[Float[Array, " n"], Int[Array, ""]]:
    """ds/dt = force(s) by implicit Euler steps (1/dt - J) ds = force, dt growing as the force falls; (state, steps).

    For systems without an energy: it follows the flow to a stable fixed point and ends as Newton's method.
    """

    def advance(carry):
        state, dt, before, step, _ = carry
        if example.dense:
            seen = example.forces(state, judged=False)
            force, scale = seen.force, seen.scale
            solved = lambda dt: jnp.linalg.solve(jnp.diag(jnp.full_like(state, 1 / dt)) - seen.slopes, force)
        else:
            force, product = jax.linearize(example.force, state)
            scale = example.scale(state)
            solved = lambda dt: solve(lambda d: d / dt - product(d), force, "general")
        left = left_over(force, scale)
        growth = jnp.minimum(jnp.maximum(2 * before / left, 0.5), 10.0)
        dt = dt * jnp.where(step > 0, growth, 1.0)
        going = (left > limit) & jnp.isfinite(left)
        return jnp.where(going, state + solved(dt), state), dt, left, step + going.astype(jnp.int32), going

    zero = jnp.zeros((), flat.dtype)
    first = (flat, 1 / _units(force, along, size)[0], zero, jnp.zeros((), jnp.int32), jnp.asarray(True))
    state, *_, steps, _ = jax.lax.while_loop(lambda carry: carry[-1] & (carry[-2] < most), advance, first)
    return state, steps


def _units(
    force: Float[Array, " n"], along: Products, size: Float[Array, " n"]
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """The largest stiffness, force and size of any variable."""
    largest, pull = jnp.max(size, initial=0.0), jnp.max(jnp.abs(force), initial=0.0)
    stiffness = jnp.max(row_sizes(along, jnp.ones_like(force)), initial=0.0)
    return jnp.where(stiffness > 0, stiffness, jnp.where(pull > 0, pull / largest, 1.0)), pull, largest


class _Held(eqx.Module):
    """The root that holds outputs at a pin: of states and of the forces that hold, one after the other.

    Attributes:
        root, scale, read: of both, the map, the forces that meet at each variable, and what outputs show.
        size: how large the variables are.
    """

    root: Callable
    scale: Callable
    read: Callable
    size: Float[Array, " unknowns"]
    limit: Float[Array, ""]
    lower: None = None
    upper: None = None
    longest: float = float("inf")
    downhill: bool = False

    def look(self, state: Inexact[Array, " unknowns"]) -> Forces:
        value, bent = slopes(self.root, state)
        zero = jnp.zeros_like(self.limit)
        return Forces(-value, -bent, self.scale(state), -value, zero, self.limit, zero, zero)

    def feel(self, state: Inexact[Array, " unknowns"]) -> tuple[Inexact[Array, ""], Inexact[Array, " unknowns"]]:
        return jnp.zeros_like(self.limit), -self.root(state)

    def show(self, state: Inexact[Array, " unknowns"]) -> Inexact[Array, " outputs"]:
        return self.read(state)

    def sizes(self, state: Inexact[Array, " unknowns"]) -> Float[Array, " unknowns"]:
        return self.size


def _held_by_springs(
    solver: DescendThenPolish | Newton, substrate: System, x: PyTree, pin: Pin, start: PyTree
) -> tuple[Float[Array, " unknowns"], Int[Array, ""]]:
    """The state within its bounds that springs hold at a pin, and their forces: where Newton's method knows which
    bounds hold; and the steps of the free phase, which is the first round, without springs.
    """
    like, unravel = jax.eval_shape(substrate.read, start, x), ravel_pytree(start)[1]
    epsilon = float(jnp.finfo(like.dtype).eps)
    none, infinite = jnp.zeros(like.shape, like.dtype), jnp.full((), jnp.inf, like.dtype)

    def going(carry):
        *_, gap, close, _, round_ = carry
        return (gap > close) & (round_ <= MOST_ROUNDS)

    def advance(carry):
        state, multiplier, strength, _, close, steps, round_ = carry
        springs, free = HeldBySprings(pin.target, multiplier, strength), round_ == 0
        nudge = Nudge(lambda output, _: springs.energy(output), pin.target, jnp.where(free, 0.0, jnp.ones_like(close)))
        found = solver(substrate, x, nudge, state, None)
        output, ways = shown(lambda s: substrate.read(unravel(s), x), ravel_pytree(found.state)[0])
        shares = jnp.sum(ways**2, axis=1)
        stiffness = max_norm(substrate.bound_stiffness(found.state, x))
        apart = output - pin.target
        return (
            found.state,
            multiplier + strength * apart,
            jnp.where(free, 10 * stiffness / jnp.where(shares > 0, shares, 1.0), strength),
            jnp.where(free, jnp.inf, jnp.max(jnp.abs(apart))),
            jnp.where(free, epsilon**0.5 * (jnp.max(jnp.abs(output)) + jnp.max(jnp.abs(pin.target))), close),
            jnp.where(free, found.steps, steps),
            round_ + 1,
        )

    count = jnp.zeros((), jnp.int32)
    first = (start, none, none, infinite, jnp.zeros_like(infinite), count, count)
    state, multiplier, *_, steps, _ = jax.lax.while_loop(going, advance, first)
    return jnp.concatenate([ravel_pytree(state)[0], -multiplier]), steps


def _redundant(ways: Inexact[Array, "outputs n"]) -> Inexact[Array, "outputs outputs"]:
    """What yields to the forces at a pin that no state feels, where the other outputs decide what one shows; else 0.

    Shares that add up to 1 are an example. Nothing decides such forces: they are asked to vanish, in units of a
    stiffness as large as the system's, with a softness of the order of the outputs' own.

    Args:
        ways: the derivative of each output in the state.
    """
    root = jnp.sqrt(jnp.sum(jnp.abs(ways) ** 2, axis=1))
    unit = ways / jnp.where(root > 0, root, 1.0).astype(ways.dtype)[:, None]
    values, vectors = spectra_in_turn(jnp.linalg.eigh)(unit @ unit.conj().T)
    idle = values <= ROUNDINGS * root.size * float(jnp.finfo(ways.dtype).eps)
    unfelt = jnp.where(idle[None], vectors, 0)
    return (unfelt @ vectors.conj().T) * jnp.outer(root, root).astype(ways.dtype)


def _out_of_reach(
    example: _Example, state: Inexact[Array, " n"], target: Inexact[Array, " outputs"], most: Int[Array, ""] | int
) -> Bool[Array, ""]:
    """Whether outputs miss a pin at a state within its bounds from which no motion brings them nearer: one that a
    descent of their distance, of so many steps at most, finds.
    """
    output, ways = shown(example.show, state)
    shares = jnp.sum(jnp.abs(ways) ** 2, axis=1)
    shares = jnp.where(shares > 0, shares, 1.0)
    epsilon = float(jnp.finfo(state.dtype).eps)
    if example.lower is not None and example.upper is not None:
        unit = jnp.sum(jnp.abs(target - output) ** 2 / shares)
        unit = jnp.where(unit > 0, unit, 1.0)
        distance = lambda state: 0.5 * jnp.sum((target - example.show(state)) ** 2 / shares) / unit
        limit = jnp.asarray(epsilon**0.75, unit.dtype)
        state = projected_gradient(distance, state, example.lower, example.upper, limit, most)[0]
        output, ways = shown(example.show, state)
    gap = target - output
    nearer, terms = ways.conj().T @ (gap / shares), jnp.abs(ways).T @ jnp.abs(gap / shares)
    if example.lower is not None and example.upper is not None:
        blocked = ((state <= example.lower) & (nearer < 0)) | ((state >= example.upper) & (nearer > 0))
        nearer = jnp.where(blocked, 0, nearer)
    idle = max_norm(nearer) <= epsilon**0.5 * max_norm(terms)
    return idle & (max_norm(gap) > epsilon**0.5 * (max_norm(output) + max_norm(target)))


def _pinned(
    solver: DescendThenPolish | Newton, substrate: System, x: PyTree, pin: Pin, start: PyTree, most: Most
) -> Equilibrium:
    """The pinned state, judged; `most` tells how many steps may follow those of the free phase."""
    limit = tolerance(substrate, start, x, pin, solver.absolute_tolerance, solver.relative_tolerance)
    example = _example(solver, substrate, x, None, start, downhill=False)
    unravel, lower, upper = example.unravel, example.lower, example.upper
    if lower is None:
        free = solver(substrate, x, None, start, None)
        steps, output = free.steps, substrate.read(free.state, x)
        unknowns = jnp.concatenate([ravel_pytree(free.state)[0], jnp.zeros_like(output)])
    else:
        unknowns, steps = _held_by_springs(solver, substrate, x, pin, start)
    n = ravel_pytree(start)[0].size
    redundant = _redundant(shown(lambda s: substrate.read(unravel(s), x), unknowns[:n])[1])
    stiffness = max_norm(substrate.bound_stiffness(unravel(unknowns[:n]), x))
    stiffness = jnp.where(stiffness > 0, stiffness, 1.0).astype(unknowns.dtype)
    unknowns = unknowns.at[n:].divide(stiffness)

    def root(unknowns):  # in units of a displacement, for forces and outputs are balanced together
        state, multiplier = unravel(unknowns[:n]), stiffness * unknowns[n:]
        output, transpose = jax.vjp(lambda s: substrate.read(s, x), state)
        balance = ravel_pytree(jax.tree.map(jnp.add, substrate.total_force(state, x), transpose(multiplier)[0]))[0]
        if lower is not None:
            wall = ravel_pytree(substrate.bound_stiffness(state, x))[0]
            balance = unbalanced(example, unknowns[:n], balance, wall)
        return jnp.concatenate([balance / stiffness, output - pin.target + redundant @ unknowns[n:]])

    def within(unknowns):
        found = unknowns[:n]
        if lower is None or upper is None:
            return unravel(found)
        near = ROUNDINGS * float(jnp.finfo(found.dtype).eps) * example.sizes(found)
        found = jnp.where(found - lower <= near, lower, found)
        return unravel(jnp.where(upper - found <= near, upper, found))

    unit = jnp.ones(unknowns.shape, limit.dtype).at[:n].set(stiffness.real)
    scale = lambda unknowns: ravel_pytree(substrate.meeting(unravel(unknowns[:n]), x, pin))[0] / unit
    left = lambda more: most(steps + more)

    def told(found):
        count = jnp.where(found.converged, 0, solver.max_steps)
        out_of_reach = _out_of_reach(example, ravel_pytree(found.state)[0], pin.target, count)
        status = Status.where(out_of_reach & ~found.converged, Status.infeasible, found.status)
        return dataclasses.replace(found, status=status)

    if unknowns.size > solver.dense_size:
        symmetric = substrate.conservative and lower is None and not jnp.iscomplexobj(unknowns)
        kind: Kind = "symmetric" if symmetric else "general"
        found, more = newton_krylov(root, scale, unknowns, limit, left(0), kind)
        return told(judge(substrate, within(found), x, pin, steps + more, limit))
    size = jnp.concatenate([example.sizes(unknowns[:n]), jnp.full(unknowns.size - n, jnp.inf, limit.dtype)])
    read = lambda unknowns: example.show(unknowns[:n])
    found = settle_by_newton(_Held(root, scale, read, size, limit), unknowns, left)
    return told(found.certificate.judged(judge(substrate, within(found.state), x, pin, steps + found.steps, limit)))
