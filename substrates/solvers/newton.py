"""Newton's method with a factorised Jacobian: to the bottom of a valley, or to the nearest root."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int

from substrates.solvers.backtracking import backtrack
from substrates.solvers.certificate import Balanced, Certificate, state_tolerance
from substrates.solvers.meeting import of_matrix, shown, slopes
from substrates.solvers.solver import clipped_by_bounds, left_by_bounds, left_over


class Forces(eqx.Module):
    """The forces at a state.

    Attributes:
        force, slopes: the force, and the matrix of its derivatives.
        scale: the forces that meet at each variable.
        left: what is left over of the force where a bound does not take it up.
        wall: what makes a force of the distance from a bound.
        limit: the part of the forces that meet that may be left over where this is the start.
        energy: 0 where Newton's method needs none.
        residual: how far from equilibrium the state is, for one who asks.
    """

    force: Inexact[Array, " n"]
    slopes: Inexact[Array, "n n"]
    scale: Float[Array, " n"]
    left: Inexact[Array, " n"]
    wall: Float[Array, " n"]
    limit: Float[Array, ""]
    energy: Inexact[Array, ""]
    residual: Float[Array, ""]


class Landscape(Protocol):
    """What Newton's method sees: forces on numbers, some of them within bounds, and their energy if any."""

    @property
    def downhill(self) -> bool:
        """Whether it goes down the energy; else to the nearest root of the force, which may be complex."""
        ...

    @property
    def lower(self) -> Float[Array, " n"] | None: ...
    @property
    def upper(self) -> Float[Array, " n"] | None: ...
    @property
    def longest(self) -> float:
        """The longest step down, in sizes of the variables."""
        ...

    def look(self, state: Inexact[Array, " n"]) -> Forces:
        """The forces at a state, with their derivatives."""
        ...

    def feel(self, state: Inexact[Array, " n"]) -> tuple[Inexact[Array, ""], Inexact[Array, " n"]]:
        """The energy and the force at a state."""
        ...

    def show(self, state: Inexact[Array, " n"]) -> Inexact[Array, " outputs"]:
        """What outputs show of a state."""
        ...

    def sizes(self, state: Inexact[Array, " n"]) -> Float[Array, " n"]:
        """How large the variables are."""
        ...


def nearest(land: Landscape, state: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
    """The nearest state within the bounds."""
    if land.lower is None or land.upper is None:
        return state
    return jnp.minimum(jnp.maximum(state, land.lower), land.upper)


def unbalanced(land: Landscape, state: Any, force: Any, wall: Any) -> Inexact[Array, " n"]:
    """The force that bounds leave over."""
    if land.lower is None or land.upper is None:
        return force
    return left_by_bounds(state, force, wall, land.lower, land.upper)


class Valley(eqx.Module):
    """An energy over real variables.

    Attributes:
        energy, force: of a state; the force is minus the gradient.
        scale: of a state, the forces that meet at each variable.
        read: what outputs show of a state.
        size: how large the variables are.
        limit: the part of the forces that meet that may be left over.
    """

    energy: Callable
    force: Callable
    scale: Callable
    read: Callable
    lower: Float[Array, " n"] | None
    upper: Float[Array, " n"] | None
    size: Float[Array, " n"]
    longest: float = float("inf")
    downhill: bool = True
    limit: Float[Array, ""] | float = float("inf")

    def look(self, state: Inexact[Array, " n"]) -> Forces:
        force, bent = slopes(self.force, state)
        wall, scale = jnp.sum(jnp.abs(bent), axis=1), self.scale(state)
        left, limit = unbalanced(self, state, force, wall), jnp.asarray(self.limit, scale.dtype)
        return Forces(force, bent, scale, left, wall, limit, self.energy(state), jnp.zeros_like(limit))

    def feel(self, state: Inexact[Array, " n"]) -> tuple[Inexact[Array, ""], Inexact[Array, " n"]]:
        return self.energy(state), self.force(state)

    def show(self, state: Inexact[Array, " n"]) -> Inexact[Array, " outputs"]:
        return self.read(state)

    def sizes(self, state: Inexact[Array, " n"]) -> Float[Array, " n"]:
        return self.size


class Found(eqx.Module):
    """Where Newton's method ended.

    Attributes:
        state, energy, residual: as the last look found them.
        steps: of a descent and of Newton's method.
        limit: up to which residual counts as converged.
        certificate: of the state.
        left, stiffness: the forces that are left over there, and what they push against.
    """

    state: Inexact[Array, " n"]
    energy: Inexact[Array, ""]
    residual: Float[Array, ""]
    steps: Int[Array, ""]
    limit: Float[Array, ""]
    certificate: Certificate
    left: Inexact[Array, " n"]
    stiffness: Any

    @property
    def ahead(self) -> Inexact[Array, " n"]:
        """Where one more step of Newton's method leads."""
        return self.state + self.stiffness.solve(self.left)


Descent = Callable[..., tuple[Any, Any]]
"""(state, steps) from a state, its energy, its force, `Products` of its slopes, sizes, a limit and the most steps."""


class _Round(eqx.Module):
    """Between two looks: where the next one falls, what came before, and what the last one found.

    Attributes:
        start_residual, limit: as the first look found them.
        descended, steps: how many steps of the descent, and of Newton's method.
        fresh, fallen: whether the next look is the first, or the first after a descent.
        moving: whether there is a next look.
    """

    state: Inexact[Array, " n"]
    start_residual: Float[Array, ""]
    limit: Float[Array, ""]
    descended: Int[Array, ""]
    steps: Int[Array, ""]
    fresh: Bool[Array, ""]
    fallen: Bool[Array, ""]
    moving: Bool[Array, ""]
    left: Inexact[Array, " n"]
    stiffness: Balanced
    energy: Inexact[Array, ""]
    residual: Float[Array, ""]


def settle_by_newton(
    land: Landscape,
    start: Inexact[Array, " n"],
    most: Callable[[Int[Array, ""] | int], Int[Array, ""] | int],
    descend: Descent | None = None,
    trusted: bool = False,
) -> Found:
    """The bottom of the valley of a start, or the root of the force near it.

    Downhill, steps solve |H| d = force, where |H| has the magnitudes of the Hessian's eigenvalues, so that they lead
    down from anywhere and away from saddles (Dauphin et al. 2014, arXiv 1406.2572); variables that a bound holds are
    left out. A step is halved until the energy falls, or the force or the next step shrinks to a half. Energies may
    hide what they are differences of, as 1 - cos does, and then round by more than a step changes them: a short step in
    a valley counts, too, if the forces at its ends do work along it and the next step shrinks. Where forces balance at
    a saddle it goes on along the softest mode.

    To a root, a step is halved until the step that would follow with the same Jacobian shrinks, which no scaling of
    the equations changes (Deuflhard 2004, "Newton Methods for Nonlinear Problems"); it stops where no fraction does.

    The descent stands inside the loop, as what the first look leads to, so that compiled programs hold each look once.

    Args:
        land: what it goes over.
        start: a state.
        most: how many steps may be taken, of so many already taken by a descent.
        descend: what goes first where the start is not at rest.
        trusted: whether its end is taken even where the residual has grown.
    """
    real = jnp.finfo(start.dtype).dtype
    epsilon, close = float(jnp.finfo(real).eps), state_tolerance(real) / 4
    select, no, start = jax.lax.select, jnp.asarray(False), nearest(land, start)
    none, nothing, zero = jnp.zeros((), jnp.int32), jnp.zeros_like(start), jnp.zeros((), real)

    def advance(now: _Round) -> _Round:
        state = now.state
        seen, size = land.look(state), land.sizes(state)
        start_residual = select(now.fresh, seen.residual, now.start_residual)
        limit = select(now.fresh, seen.limit, now.limit)
        bent = -seen.slopes
        if land.lower is not None and land.upper is not None:
            held = clipped_by_bounds(state, seen.force, seen.wall, land.lower, land.upper)[1]
            held = held[:, None] | held[None] if land.downhill else jnp.broadcast_to(held[:, None], bent.shape)
            bent = select(held, jnp.diag(seen.wall), bent)
        stiffness = Balanced.of(bent, seen.scale, land.downhill)
        off = lambda left: jnp.max(jnp.abs(stiffness.solve(left)) / size, initial=0.0)
        part, away = left_over(seen.left, seen.scale), off(seen.left)
        settled = ~((part > limit) | (away > close))
        falling, back, fallen, descended = no, no, state, now.descended
        if descend is not None:
            falling = now.fresh & (seen.residual > limit)
            budget = select(falling, jnp.asarray(most(0), jnp.int32), none)
            fallen, descended = descend(state, seen.energy, seen.force, of_matrix(seen.slopes), size, limit, budget)
            descended = select(falling, descended, now.descended)
            better = jnp.isfinite(seen.residual) & ~(seen.residual > start_residual)
            back = no if trusted else now.fallen & ~better
        going = (now.steps < most(descended)) & (~settled | stiffness.unstable) & ~(falling | back)
        d = stiffness.downhill(seen.left) if land.downhill else stiffness.solve(seen.left)
        if land.downhill:
            d = select(settled, stiffness.softest(seen.left, size), d)
        length = jnp.max(jnp.abs(d) / size, initial=0.0)
        if land.longest < float("inf"):
            d /= jnp.maximum(1.0, length / land.longest)
            length = jnp.minimum(length, land.longest)

        def trial(fraction):
            moved = nearest(land, state + fraction.astype(d.dtype) * d)
            energy, force = land.feel(moved)
            return moved, energy, unbalanced(land, moved, force, seen.wall)

        def refused(fraction, tried):
            _, energy, left = tried
            if not land.downhill:
                return going & ~(off(left) < (1 - 0.25 * fraction) * away)
            fall = select(settled, zero, jnp.sum(d * seen.left))
            rounding = 16 * epsilon * (jnp.abs(seen.energy) + jnp.sum(seen.scale * jnp.abs(state)))
            fell = (energy < seen.energy) & (energy <= seen.energy - 1e-4 * fraction * fall)
            next_off = off(left)
            calmed = (left_over(left, seen.scale) <= 0.5 * part) | (next_off <= 0.5 * away)
            calmed &= energy <= seen.energy + rounding
            worked = (jnp.sum(d * (seen.left + left)) >= 0) & (next_off <= (1 - 0.5 * fraction) * away)
            worked &= (fraction * length <= 0.1) & ~stiffness.unstable & (energy < jnp.inf)
            return going & ~(fell | (calmed | worked) & ~settled)

        (moved, *_), able = backtrack(trial, refused, real, like=(state, seen.energy, seen.left))
        stepped = going & able
        return _Round(
            state=select(stepped, moved, select(falling, fallen, select(back, start, state))),
            start_residual=start_residual,
            limit=limit,
            descended=descended,
            steps=now.steps + going.astype(jnp.int32),
            fresh=no,
            fallen=falling,
            moving=stepped | falling | back,
            left=seen.left,
            stiffness=stiffness,
            energy=seen.energy,
            residual=seen.residual,
        )

    begin = _Round(
        state=start,
        start_residual=zero,
        limit=zero,
        descended=none,
        steps=none,
        fresh=~no,
        fallen=no,
        moving=~no,
        left=nothing,
        stiffness=Balanced.empty(start, land.downhill),
        energy=zero,
        residual=zero,
    )
    end = jax.lax.while_loop(lambda now: now.moving, advance, begin)
    certificate = end.stiffness.certificate(end.left, land.sizes(end.state), shown(land.show, end.state)[1])
    steps = end.descended + end.steps
    return Found(end.state, end.energy, end.residual, steps, end.limit, certificate, end.left, end.stiffness)


def descend_by_newton(
    valley: Valley, start: Float[Array, " n"], limit: Float[Array, ""], max_steps: Int[Array, ""] | int
) -> tuple[Float[Array, " n"], Int[Array, ""], Certificate]:
    """The bottom of the valley of a start: (state, steps, certificate)."""
    found = settle_by_newton(dataclasses.replace(valley, limit=limit), start, lambda _: max_steps)
    return found.state, found.steps, found.certificate
