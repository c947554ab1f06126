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
    "Newton Methods for Nonlinear Problems"). It ends where that one is no longer than rounding makes it, or where no
    step leads on.

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
        begin = _Round.at(start)
        going = lambda now: now.moving & (now.steps < self.max_steps)
        end = jax.lax.while_loop(going, lambda now: _advance(substrate, x, acting, now), begin)
        energy = substrate.total_energy(end.path, x, acting)
        found = judged(end.path, energy, end.residual, end.steps, end.limit)
        precise = end.rounding <= state_tolerance(start.dtype)
        status = Status.where(precise, Status.converged, Status.ill_conditioned)
        status = Status.where(found.converged & end.arrived, status, Status.out_of_steps)
        status = Status.where(end.rounding <= LOST, status, Status.zero_mode)
        status = Status.where(end.fine, status, Status.too_coarse)
        known = found.status != Status.not_finite
        return eqx.tree_at(lambda e: e.status, found, Status.where(known, status, found.status))


class _Round(eqx.Module):
    """A path between two steps, and what the last step told of it.

    Attributes:
        residual, limit: what is left over, and up to which part that counts as converged.
        rounding: how far rounding of the forces moves the path, as a part of it.
        arrived, moving: whether the last step was short enough, and whether there is another.
        fine: whether the steps of time resolve the motion.
    """

    path: Inexact[Array, "nodes n"]
    residual: Float[Array, ""]
    limit: Float[Array, ""]
    rounding: Float[Array, ""]
    steps: Int[Array, ""]
    arrived: Bool[Array, ""]
    moving: Bool[Array, ""]
    fine: Bool[Array, ""]

    @classmethod
    def at(cls, path: Inexact[Array, "nodes n"]) -> _Round:
        infinite, no = jnp.full((), jnp.inf, jnp.finfo(path.dtype).dtype), jnp.asarray(False)
        return cls(path, infinite, 0 * infinite, infinite, jnp.zeros((), jnp.int32), no, ~no, no)


def _advance(system: Paths, x: PyTree, nudge: Nudge | None, now: _Round) -> _Round:
    path, real = now.path, jnp.finfo(now.path.dtype)
    curvature = system.curvature(path, x)
    force = lambda path: system.total_force(path, x, nudge)
    push, scale, limit = -curvature.slope, curvature.scale(path), allowed(path.dtype, None, None, None)
    matrix, slopes, through = curvature, jnp.zeros((*path.shape, 0), path.dtype), lambda _: lambda found: found
    if nudge is not None:
        output, slopes = system.read(path, x), system.reading_slopes(path, x)
        pull = nudge.pull(output)
        push += slopes @ pull
        limit = allowed(path.dtype, nudge, slopes @ pull, scale)
        scale += jnp.abs(slopes @ nudge.size(output, pull))
        matrix = curvature._replace(diagonal=curvature.diagonal - system.reading_curvature(path, x, pull))
        through = partial(_through_outputs, slopes, nudge.curvature(output))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], path.shape)
    size = or_largest(jnp.max(jnp.abs(path), axis=0))
    blur = (float(real.eps) * curvature.row_sizes(size) * signs.astype(real.dtype)).astype(path.dtype)
    solved = solve_path(matrix, jnp.concatenate([jnp.stack([push, blur], axis=2), slopes], axis=2))
    with_outputs = through(solved[..., 2:])
    part_of = lambda way: jnp.max(jnp.abs(way) / size[None])
    step, blurred = jnp.moveaxis(with_outputs(solved[..., :2]), 2, 0)
    away, rounding = part_of(step), part_of(blurred)

    def trial(fraction: Float[Array, ""]) -> tuple[Array, Array, Array]:
        there = path + fraction.astype(path.dtype) * step
        left = force(there)
        further = with_outputs(solve_path(matrix, left[..., None]))
        return there, part_of(further[..., 0]), left_over(left, scale)

    def refused(fraction: Array, tried: tuple[Array, Array, Array]) -> Bool[Array, ""]:
        return ~((tried[1] <= (1 - fraction / 4) * away) | (tried[1] <= SHARP * rounding))

    (there, still, left), able = backtrack(trial, refused, real.dtype)
    # the scale of a path that was at rest tells nothing of the one it moved to
    sharp = (still <= SHARP * rounding) & ((left <= limit) | (away <= SHARP * rounding))
    at_rest = ~able & (away <= state_tolerance(path.dtype))
    return _Round(
        path=jnp.where(able, there, path),
        residual=jnp.where(able, left, left_over(push, scale)),
        limit=limit,
        rounding=rounding,
        steps=now.steps + 1,
        arrived=(able & sharp) | at_rest,
        moving=able & ~sharp,
        fine=resolved(curvature),
    )


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
