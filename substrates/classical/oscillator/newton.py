"""Newton's method on the torques, as a descent of the energy, and what it tells about the state that it ends at."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from substrates.classical.oscillator.phases import Oscillators
from substrates.classical.oscillator.whole import Whole
from substrates.nudge import Nudge, Pin
from substrates.solvers.backtracking import SHORTEST, backtrack
from substrates.solvers.batching import spectra_in_turn
from substrates.solvers.certificate import Certificate, state_tolerance
from substrates.solvers.solver import Equilibrium, Status, judge, left_over

MOST_STEPS = 60
WALK = 8


def settle_by_newton(
    net: Oscillators,
    x: PyTree,
    nudge: Nudge | Pin | None,
    start: PyTree,
    limit: Float[Array, ""],
    steps: Int[Array, ""],
    whole: Whole | None,
    opposed: Bool[Array, ""] | bool = False,
) -> Equilibrium:
    """The equilibrium at the bottom of the valley of a state that `steps` have led to, judged and certified.

    Small systems decompose the Hessian; see `descend_by_newton`. Large ones solve H d = torque by conjugate gradients,
    where torques are left over or where phases are held so weakly that balanced torques do not tell how far they are
    from rest; see `descend_by_krylov`. No step turns a phase by more than a radian. Outputs held by a pin do not move,
    and neither does one phase of each part that turns freely: the others settle against it, and the status is
    `zero_mode`.

    Args:
        net: the network.
        x, nudge: what acts on it.
        start: the state, and `steps` the steps that it took.
        limit: see `tolerance`.
        whole: the matrix of a small system, to decompose its Hessian.
        opposed: of a large system, whether some phase of the start stands opposed to what it feels.
    """
    flat, unravel = ravel_pytree(start)
    meeting = ravel_pytree(net.force_scale(start, x))[0]
    held = net.adrift(nudge)
    turning = jnp.asarray(False) if held is None else jnp.any(held)
    if isinstance(nudge, Pin):
        pinned = net.with_outputs(jax.tree.map(jnp.zeros_like, start), jnp.ones_like(net.output_phases(start)))
        pinned = ravel_pytree(pinned)[0] > 0
        held = pinned if held is None else held | pinned
    if whole is not None:
        pull = nudge if isinstance(nudge, Nudge) else None
        point, more = descend_by_newton(whole, pull, flat, meeting, held, limit)
        certificate = point.certificate(meeting, turning)
        state = unravel(point.state)
        if isinstance(nudge, Pin):
            return certificate.judged(judge(net, state, x, nudge, steps + more, limit))
        residual = jnp.where(jnp.isfinite(point.energy), left_over(point.torque, meeting + point.brought), jnp.nan)
        status = Status.where(residual <= limit, Status.converged, Status.out_of_steps)
        status = Status.where(jnp.isfinite(residual), status, Status.not_finite)
        energy = point.energy if whole.complete else net.total_energy(state, x, nudge)
        return certificate.judged(Equilibrium(state, energy, residual, steps + more, status))
    place = (lambda y: y) if held is None else lambda y: jnp.where(held, flat, y)
    total = lambda y: ravel_pytree(net.total_force(unravel(place(y)), x, nudge))[0]
    # what is held hangs on springs of its own: the Hessian stays symmetric, and regular
    spring = jnp.where(meeting > 0, meeting, 1.0)
    torque = total if held is None else lambda y: jnp.where(held, spring * (flat - y), total(y))
    energy = lambda y: net.total_energy(unravel(place(y)), x, nudge)
    doubtful = holding_time(net, start, held) * limit > state_tolerance(flat.dtype)
    found, more, off = descend_by_krylov(energy, torque, flat, meeting, limit, doubtful)
    imprecise = doubtful & ~(jnp.sum(off) <= state_tolerance(flat.dtype))
    certificate = Certificate(jnp.asarray(opposed) & (more == 0), turning, imprecise)
    return certificate.judged(judge(net, unravel(place(found)), x, nudge, steps + more, limit))


class _Point(eqx.Module):
    """Where Newton's method is.

    Attributes:
        state, energy, torque: its phases, their energy and the torques on those that are not held.
        brought: the sizes of what a nudge brings to each.
        left: the largest torque, as a part of what meets at its phase.
        modes, values: of the Hessian balanced as D H D, D^-2 its row sums: D times the eigenvectors, as columns, and
            the eigenvalues; infinite where a mode costs nothing.
        step: H^-1 torque, along modes that cost something.
        way: where it goes next: |H|^-1 torque or, from where torques balance, along the softest mode.
        settled: whether torques balance and the step leads nowhere else.
    """

    state: Float[Array, "n"]
    energy: Float[Array, ""]
    torque: Float[Array, "n"]
    brought: Float[Array, "n"]
    left: Float[Array, ""]
    modes: Float[Array, "n n"]
    values: Float[Array, "n"]
    step: Float[Array, "n"]
    way: Float[Array, "n"]
    settled: Bool[Array, ""]

    @property
    def unstable(self) -> Bool[Array, ""]:
        """Whether a motion lowers the energy."""
        return jnp.min(self.values) < 0

    def along_modes(self, torque: Float[Array, "n"]) -> Float[Array, "n"]:
        """H^-1 torque, along modes that cost something."""
        return self.modes @ ((torque @ self.modes) / self.values)

    def certificate(self, meeting: Float[Array, "n"], turning: Bool[Array, ""]) -> Certificate:
        """What the Hessian tells of the state; see `Certificate`."""
        inverse = (self.modes / self.values[None]) @ self.modes.T
        rounding = inverse * (float(jnp.finfo(meeting.dtype).eps) * meeting[None])
        error = jnp.abs(self.step) + jnp.sqrt(jnp.sum(rounding**2, axis=1))
        idle = turning | jnp.any(jnp.isinf(self.values))
        return Certificate(self.unstable, idle, ~(jnp.max(error) <= state_tolerance(meeting.dtype)))


def descend_by_newton(
    whole: Whole,
    nudge: Nudge | None,
    start: Float[Array, "n"],
    meeting: Float[Array, "n"],
    held: Bool[Array, "n"] | None,
    limit: Float[Array, ""],
) -> tuple[_Point, Int[Array, ""]]:
    """The bottom of the valley of a start, and the number of steps.

    Steps solve |H| d = torque, where |H| has the magnitudes of the Hessian's eigenvalues, so that they lead downhill
    from anywhere and away from saddles (Dauphin et al. 2014, arXiv 1406.2572). A step is halved until the energy falls,
    or the torque or the next step shrinks to a half. Where torques balance at a saddle it goes on along the softest
    mode. Every round of the loop looks at one fraction of a step.
    """
    n, epsilon = start.size, float(jnp.finfo(start.dtype).eps)
    threshold = 4 * n * epsilon  # what rounding makes of an eigenvalue that is zero
    decompose = spectra_in_turn(lambda matrix: jax.lax.linalg.eigh(matrix, symmetrize_input=False))
    close = state_tolerance(start.dtype) / 4
    spring = jnp.where(meeting > 0, meeting, 1.0)
    nowhere, first_mode = jnp.zeros_like(start), np.eye(1, n, dtype=start.dtype)[0]

    def at(state: Float[Array, "n"]) -> _Point:
        found = whole.look(state, nudge)
        torque, hessian = found.torque, found.hessian
        if held is not None:
            torque = jnp.where(held, 0, torque)
            hessian = jnp.where(held[:, None] | held[None], np.eye(n, dtype=start.dtype) * spring[None], hessian)
        rows = jnp.sum(jnp.abs(hessian), axis=1)
        d = 1 / jnp.sqrt(jnp.where(rows > 0, rows, 1.0))
        vectors, values = decompose(d[:, None] * hessian * d[None])
        left, modes = left_over(torque, meeting), d[:, None] * vectors
        coefficients, sizes = torque @ modes, jnp.abs(values)
        values = jnp.where(sizes > threshold, values, jnp.inf)
        step = modes @ (coefficients / values)
        settled = (left <= limit) & (jnp.max(jnp.abs(step)) <= close)
        soft = jnp.where(coefficients < 0, -first_mode, first_mode)
        way = modes @ jnp.where(settled, soft, coefficients / jnp.maximum(sizes, threshold))
        farthest = jnp.max(jnp.abs(way))
        # of a mode, and of a step that is too long, a radian
        way /= jnp.where(settled & (farthest > 0), farthest, jnp.maximum(farthest, 1.0))
        return _Point(state, found.energy, torque, found.brought, left, modes, values, step, way, settled)

    def running(carry):
        point, fraction, step = carry
        return (fraction > SHORTEST) & (step < MOST_STEPS) & (~point.settled | point.unstable)

    def advance(carry):
        point, fraction, step = carry
        new = at(point.state + fraction * point.way)
        slope = jnp.where(point.settled, 0.0, point.way @ point.torque)
        rounding = 16 * epsilon * (jnp.abs(point.energy) + meeting @ jnp.abs(point.state))
        fell = (new.energy < point.energy) & (new.energy <= point.energy - 1e-4 * fraction * slope)
        shorter = jnp.max(jnp.abs(point.along_modes(new.torque))) <= 0.5 * jnp.max(jnp.abs(point.step))
        calmed = (new.left <= 0.5 * point.left) | shorter
        forward = fell | (calmed & (new.energy <= point.energy + rounding) & ~point.settled)
        point = jax.tree.map(lambda a, b: jnp.where(forward, a, b), new, point)
        return point, jnp.where(forward, 1.0, fraction / 2), step + forward.astype(jnp.int32)

    infinite, one = jnp.asarray(jnp.inf, start.dtype), jnp.ones((), start.dtype)
    unknown = jnp.full((n, n), jnp.nan, start.dtype)
    # any first look is lower than this
    first = _Point(start, infinite, nowhere, nowhere, infinite, unknown, nowhere, nowhere, nowhere, infinite < 0)
    point, _, steps = jax.lax.while_loop(running, advance, (first, one, jnp.asarray(-1, jnp.int32)))
    return point, steps


def descend_by_krylov(
    energy: Callable[[Array], Array],
    force: Callable[[Array], Array],
    start: Float[Array, "n"],
    meeting: Float[Array, "n"],
    limit: Float[Array, ""],
    doubtful: Bool[Array, ""],
) -> tuple[Float[Array, "n"], Int[Array, ""], Float[Array, "2"]]:
    """The bottom of the valley of a start without a matrix, by an energy and its force: (state, steps, distances).

    The distances, in radians, are how far the last step was to lead, and how far rounding of the torques leads;
    infinite where the conjugate gradients did not solve the equations, and told of doubtful states only.

    Steps solve H d = torque by conjugate gradients, each phase in units of what it feels, and follow the torque where
    that does not lead downhill. They are halved until the energy falls or the torques shrink to a half. It goes on
    while torques are left over and, of a state that they leave doubtful, while steps lead elsewhere.
    """
    epsilon = float(jnp.finfo(start.dtype).eps)
    unit = 1 / jnp.where(meeting > 0, meeting, 1.0)
    root = jnp.sqrt(unit)
    close = state_tolerance(start.dtype) / 4
    at = lambda y: (y, energy(y), force(y))
    part = lambda torque: left_over(torque, meeting)
    rounding = 8 * epsilon * jnp.sum(meeting)

    def direction(y: Array, torque: Array) -> tuple[Array, Array]:
        action = lambda v: -jax.jvp(force, (y,), (v,))[1]
        precision = jnp.where(doubtful, epsilon**0.5, 1e-3)
        solve = lambda right: conjugate_gradients(lambda v: root * action(root * v), root * right, precision)
        found, bent, _ = solve(torque)
        shaken, _, solved = solve(jnp.where(doubtful, epsilon * meeting, 0.0))
        d, farthest = root * found, jnp.max(jnp.abs(root * found))
        sure = ~bent & (jnp.max(jnp.abs(torque - action(d)) * unit) <= 0.1 * part(torque))
        off = jnp.where(jnp.stack([sure, solved]), jnp.stack([farthest, jnp.max(jnp.abs(root * shaken))]), jnp.inf)
        return d * jnp.where(bent, 1.0 / farthest, 1.0), off

    def running(carry):
        (_, _, torque), off, step, moving = carry
        return moving & ((part(torque) > limit) | (doubtful & (off[0] > close))) & (step < MOST_STEPS)

    def advance(carry):
        (y, level, torque), _, step, _ = carry
        d, off = direction(y, torque)
        d /= jnp.maximum(1.0, jnp.max(jnp.abs(d)))
        slope = d @ torque

        def refused(fraction, tried):
            _, new_energy, new_torque = tried
            fell = (new_energy < level) & (new_energy <= level - 1e-4 * fraction * slope)
            calmed = (part(new_torque) <= 0.5 * part(torque)) & (new_energy <= level + rounding)
            return ~(fell | calmed)

        found, moving = backtrack(lambda fraction: at(y + fraction * d), refused, y.dtype)
        kept = jax.tree.map(lambda new, old: jnp.where(moving, new, old), found, (y, level, torque))
        return kept, off, step + 1, moving

    first = (at(start), jnp.full(2, jnp.inf, start.dtype), jnp.zeros((), jnp.int32), jnp.asarray(True))
    (state, _, _), off, steps, _ = jax.lax.while_loop(running, advance, first)
    return state, steps, off


def conjugate_gradients(
    action: Callable[[Array], Array], force: Float[Array, "n"], precision: Float[Array, ""]
) -> tuple[Float[Array, "n"], Bool[Array, ""], Bool[Array, ""]]:
    """The solution of a symmetric system whose diagonal is about 1, or a way along which it bends down: (solution or
    way, whether it bends down, whether it is solved).

    Source: Steihaug 1983, SIAM J. Numer. Anal. 20, 626.
    """
    rounding = force.size * float(jnp.finfo(force.dtype).eps)
    enough = precision**2 * jnp.sum(force**2)

    def running(carry):
        _, left, _, going, bent, step = carry
        return going & ~bent & (jnp.sum(left**2) > enough) & (step < 10 * force.size)

    def advance(carry):
        found, left, way, _, _, step = carry
        image, length, size = action(way), jnp.sum(left**2), jnp.sum(way**2)
        curvature = jnp.sum(way * image)
        going, bent = curvature > rounding * size, curvature < -rounding * size
        stride = jnp.where(going, length / jnp.where(going, curvature, 1.0), 0.0)
        after = left - stride * image
        onward = after + jnp.sum(after**2) / length * way
        return jnp.where(bent, way, found + stride * way), after, onward, going, bent, step + 1

    first = (jnp.zeros_like(force), force, force, jnp.asarray(True), jnp.asarray(False), jnp.zeros((), jnp.int32))
    found, left, _, _, bent, _ = jax.lax.while_loop(running, advance, first)
    return found, bent, ~bent & (jnp.sum(left**2) <= enough)


def holding_time(net: Oscillators, state: PyTree, held: Bool[Array, "n"] | None) -> Float[Array, ""]:
    """How many times further than their torques, in parts of what they feel, phases may be from rest: a bound.

    A walk steps from a phase to a neighbour in proportion to |W|, and ends where it takes a field, a second harmonic or
    a clamped phase instead. Its longest mean length bounds the inverse stiffness of the aligned network with these
    strengths, which is what weakly held parts are soft by; with p_k the largest chance to survive k steps it is at most
    (1 + p_1 + ... + p_(K-1)) / (1 - p_K). Parameters alone decide it, so that a batch pays for it once.
    """
    unravel = ravel_pytree(state)[1]
    meeting = ravel_pytree(net.holding())[0]
    unit = 1 / jnp.where(meeting > 0, meeting, 1.0)
    survives = jnp.ones_like(meeting) if held is None else jnp.where(held, 0.0, 1.0).astype(meeting.dtype)
    start = survives

    def walk(_, carry):
        chance, length = carry
        felt = ravel_pytree(net.neighbours(unravel(chance)))[0]
        return start * unit * felt, length + jnp.max(chance, initial=0.0)

    chance, length = jax.lax.fori_loop(0, WALK, walk, (start, jnp.zeros((), meeting.dtype)))
    escapes = 1 - jnp.max(chance, initial=0.0)
    return jnp.where(escapes > 0, length / jnp.where(escapes > 0, escapes, 1.0), jnp.inf)
