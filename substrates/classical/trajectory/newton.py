"""Newton's method for stationary paths, in time proportional to their number of steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int, PRNGKeyArray, PyTree

from substrates.classical.trajectory.action import Curvature
from substrates.classical.trajectory.elimination import solve_path
from substrates.nudge import Nudge, Pin
from substrates.solvers.backtracking import backtrack
from substrates.solvers.certificate import state_tolerance
from substrates.solvers.meeting import or_largest
from substrates.solvers.solver import Equilibrium, Solver, Status, System, allowed, judged, left_over

LOST = 1e-2
"""A path that rounding moves by so large a part of itself is decided by nothing."""

SHARP = 8.0
"""A path is as good as it gets where a step is so many times what rounding of the forces makes of one."""


class Paths(System, Protocol):
    """What the solver sees of a trajectory."""

    def curvature(self, state: Inexact[Array, "nodes n"], x: PyTree) -> Curvature: ...
    def reading_slopes(self, state: Inexact[Array, "nodes n"], x: PyTree) -> Inexact[Array, "nodes n outputs"]: ...
    def reading_curvature(
        self, state: Inexact[Array, "nodes n"], x: PyTree, weights: Inexact[Array, "outputs"]
    ) -> Inexact[Array, "nodes n n"]: ...


class PathNewton(Solver):
    """Goes to the stationary path near the start: a step solves H d = -dF/dq by block elimination.

    H is the second derivative of the action, which couples neighbours in time alone, with what the nudge adds: its own
    curvature through the outputs, of a rank as high as there are outputs (Woodbury's identity). A step is halved until
    the step that would follow with the same H shrinks, which no scaling of the equations changes (Deuflhard 2004,
    "Newton Methods for Nonlinear Problems"). It ends where the next one is no longer than rounding makes it, or where
    no step leads on.

    Statuses beyond those of the tolerance: `too_coarse` where nodes that alternate in time lower the action, so that
    the steps do not resolve the fastest motion (w h > 2 of a mass on a spring); `zero_mode` where some motion leaves
    the action as it is (a loop that may start anywhere, ends that are conjugate points), `ill_conditioned` where
    rounding alone moves the path by more than `state_tolerance`.

    Attributes:
        max_steps: the most steps.
    """

    pins = False

    max_steps: int | Int[Array, ""] = 50

    def __call__(
        self, substrate: Paths, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        acting = nudge if isinstance(nudge, Nudge) else None
        going = lambda now: now.moving & (now.steps < self.max_steps)
        end = jax.lax.while_loop(
            going, partial(_advance, substrate, x, acting), _Round.before(substrate, x, acting, start)
        )
        path, felt = end.look.path, end.look.felt
        energy = substrate.total_energy(path, x, acting)
        found = judged(path, energy, felt.residual, jnp.maximum(end.steps, 0), felt.limit)
        precise = end.look.rounding <= state_tolerance(start.dtype)
        status = Status.where(precise, Status.converged, Status.ill_conditioned)
        status = Status.where(found.converged & end.arrived, status, Status.out_of_steps)
        status = Status.where(end.look.rounding <= LOST, status, Status.zero_mode)
        status = Status.where(felt.fine, status, Status.too_coarse)
        known = found.status != Status.not_finite
        return eqx.tree_at(lambda e: e.status, found, Status.where(known, status, found.status))


class _Felt(eqx.Module):
    """What acts on a path.

    Attributes:
        push, blur: the forces, and what rounding makes of them.
        curvature, slopes, bend: of the action, of the outputs, and of the cost in them; H of all.
        size: of each coordinate.
        residual, limit: what is left over, and up to which part that counts as converged.
        fine: whether the steps of time resolve the motion.
    """

    push: Inexact[Array, "nodes n"]
    blur: Inexact[Array, "nodes n"]
    curvature: Curvature
    slopes: Inexact[Array, "nodes n outputs"]
    bend: Inexact[Array, "outputs outputs"] | None
    size: Float[Array, " n"]
    residual: Float[Array, ""]
    limit: Float[Array, ""]
    fine: Bool[Array, ""]

    @classmethod
    def at(cls, system: Paths, x: PyTree, nudge: Nudge | None, path: Inexact[Array, "nodes n"]) -> _Felt:
        real, curvature = jnp.finfo(path.dtype), system.curvature(path, x)
        push, scale, limit = -curvature.slope, curvature.scale(path), allowed(path.dtype, None, None, None)
        signs = np.random.default_rng(0).choice([-1.0, 1.0], path.shape)
        size = or_largest(jnp.max(jnp.abs(path), axis=0))
        blur = (float(real.eps) * curvature.row_sizes(size) * signs.astype(real.dtype)).astype(path.dtype)
        fine, slopes, bend = resolved(curvature), jnp.zeros((*path.shape, 0), path.dtype), None
        if nudge is not None:
            output, slopes = system.read(path, x), system.reading_slopes(path, x)
            pull, bend = nudge.pull(output), nudge.curvature(output)
            push += slopes @ pull
            limit = allowed(path.dtype, nudge, slopes @ pull, scale)
            scale += jnp.abs(slopes @ nudge.size(output, pull))
            own = system.reading_curvature(path, x, pull)
            curvature = curvature._replace(diagonal=curvature.diagonal - own)
        return cls(push, blur, curvature, slopes, bend, size, left_over(push, scale), limit, fine)

    def solve(self, right: Inexact[Array, "nodes n k"]) -> Inexact[Array, "nodes n k"]:
        """H^-1 of some right-hand sides."""
        k = right.shape[2]
        solved = solve_path(self.curvature, jnp.concatenate([right, self.slopes], axis=2))
        found, responses = solved[..., :k], solved[..., k:]
        return found if self.bend is None else _through_outputs(self.slopes, self.bend, responses)(found)

    def part(self, way: Inexact[Array, "nodes n"]) -> Float[Array, ""]:
        """How far a way leads, as a part of the path."""
        return jnp.max(jnp.abs(way) / self.size[None])


class _Look(eqx.Module):
    """What a path tells of itself.

    Attributes:
        felt: what acts on it.
        step: where Newton's method leads from it, and `away` how far, as a part of it.
        still: how far it would with the H of the path before, as a part of that.
        rounding: how far rounding of the forces moves the path, as a part of it.
    """

    path: Inexact[Array, "nodes n"]
    felt: _Felt
    step: Inexact[Array, "nodes n"]
    away: Float[Array, ""]
    still: Float[Array, ""]
    rounding: Float[Array, ""]

    @property
    def sharp(self) -> Bool[Array, ""]:
        """Whether the next step is as short as rounding makes it."""
        return self.away <= SHARP * self.rounding


class _Round(eqx.Module):
    """Between two steps.

    Attributes:
        arrived, moving: whether the next step is short enough, and whether it is made.
    """

    look: _Look
    steps: Int[Array, ""]
    arrived: Bool[Array, ""]
    moving: Bool[Array, ""]

    @classmethod
    def before(cls, system: Paths, x: PyTree, nudge: Nudge | None, path: Inexact[Array, "nodes n"]) -> _Round:
        """The round whose step, which is none, leads to the start: compiled programs hold the look at a path once."""
        shapes = jax.eval_shape(partial(_Felt.at, system, x, nudge), path)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        infinite, no = jnp.full((), jnp.inf, jnp.finfo(path.dtype).dtype), jnp.asarray(False)
        look = _Look(path, nothing, jnp.zeros_like(path), infinite, infinite, infinite)
        return cls(look, jnp.full((), -1, jnp.int32), no, ~no)


def _advance(system: Paths, x: PyTree, nudge: Nudge | None, now: _Round) -> _Round:
    begin = now.look

    def trial(fraction: Float[Array, ""]) -> _Look:
        path = begin.path + fraction.astype(begin.path.dtype) * begin.step
        felt = _Felt.at(system, x, nudge, path)
        # H of both paths in one program of elimination
        both = jax.tree.map(lambda *leaves: jnp.stack(leaves), begin.felt, felt)
        right = jnp.stack([jnp.stack([felt.push, other], axis=2) for other in (felt.push, felt.blur)])
        before, after = jax.vmap(_Felt.solve)(both, right)
        step, blurred = jnp.moveaxis(after, 2, 0)
        return _Look(path, felt, step, felt.part(step), begin.felt.part(before[..., 0]), felt.part(blurred))

    def refused(fraction: Array, tried: _Look) -> Bool[Array, ""]:
        shorter = (tried.still <= (1 - fraction / 4) * begin.away) | (tried.still <= SHARP * begin.rounding)
        return (begin.away < jnp.inf) & ~shorter

    found, able = backtrack(trial, refused, begin.away.dtype, like=begin)
    look = jax.tree.map(lambda found, begin: jnp.where(able, found, begin), found, begin)
    # the scale of a path that was at rest tells nothing of the one it moved to
    sharp = look.sharp & ((look.felt.residual <= look.felt.limit) | begin.sharp)
    at_rest = ~able & (begin.away <= state_tolerance(begin.path.dtype))
    moving = able & ~sharp & jnp.isfinite(look.away)
    return _Round(look, now.steps + 1, (able & sharp) | at_rest, moving)


def _through_outputs(
    slopes: Inexact[Array, "nodes n outputs"],
    bend: Inexact[Array, "outputs outputs"],
    responses: Inexact[Array, "nodes n outputs"],
) -> Callable[[Array], Array]:
    """From H^-1 b to (H + slopes bend slopes')^-1 b, with responses H^-1 slopes: Woodbury's identity."""
    shown = lambda ways: jnp.einsum("kio,kij->oj", slopes, ways)
    inner = jnp.eye(len(bend), dtype=bend.dtype) + bend @ shown(responses)
    back = lambda found: jnp.einsum("kio,oj->kij", responses, jnp.linalg.solve(inner, bend @ shown(found)))
    return lambda found: found - back(found)


def resolved(curvature: Curvature) -> Bool[Array, ""]:
    """Whether the steps of time resolve the motion: no two neighbours in time gain by moving apart.

    With masses m in a potential V and steps h that is 4 m/h - h V'' > 0, the stability of leapfrog. A path in complex
    numbers is judged by its real part.
    """
    apart = jnp.real(curvature.apart)
    factor = jnp.linalg.cholesky((apart + jnp.swapaxes(apart, 1, 2)) / 2)
    return jnp.all(jnp.isfinite(factor))
