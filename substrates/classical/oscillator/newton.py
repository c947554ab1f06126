"""Newton's method on the torques, as a descent of the energy, and what it tells about the state that it ends at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from substrates.classical.oscillator.phases import Oscillators
from substrates.nudge import Nudge, Pin
from substrates.solvers.backtracking import backtrack
from substrates.solvers.certificate import Certificate, state_tolerance
from substrates.solvers.newton import Valley, descend_by_newton
from substrates.solvers.solver import Equilibrium, judge, left_over

DENSE_SIZE = 96
"""Up to so many phases the Hessian is decomposed."""
MOST_STEPS = 60
WALK = 8


def settle_by_newton(
    net: Oscillators,
    x: PyTree,
    nudge: Nudge | Pin | None,
    start: PyTree,
    limit: Float[Array, ""],
    steps: Int[Array, ""],
    dense: bool,
    opposed: Bool[Array, ""] | bool = False,
) -> Equilibrium:
    """The equilibrium at the bottom of the valley of a state that `steps` have led to, judged and certified.

    Small systems decompose the Hessian; see `substrates.solvers.newton.descend_by_newton`. Large ones solve
    H d = torque by conjugate gradients, where torques are left over or where phases are held so weakly that balanced
    torques do not tell how far they are from rest; see `descend_by_krylov`. No step turns a phase by more than a
    radian. Outputs held by a pin do not move, and neither does one phase of each part that turns freely: the others
    settle against it, and the status is `zero_mode`.

    Args:
        net: the network.
        x, nudge: what acts on it.
        start: the state, and `steps` the steps that it took.
        limit: see `tolerance`.
        dense: whether to decompose the Hessian.
        opposed: of a large system, whether some phase of the start stands opposed to what it feels.
    """
    flat, unravel = ravel_pytree(start)
    meeting = ravel_pytree(net.force_scale(start, x))[0]
    held = net.adrift(nudge is not None)
    turning = jnp.asarray(False) if held is None else jnp.any(held)
    if isinstance(nudge, Pin):
        pinned = net.with_outputs(jax.tree.map(jnp.zeros_like, start), jnp.ones_like(net.output_phases(start)))
        pinned = ravel_pytree(pinned)[0] > 0
        held = pinned if held is None else held | pinned
    place = (lambda y: y) if held is None else lambda y: jnp.where(held, flat, y)
    total = lambda y: ravel_pytree(net.total_force(unravel(place(y)), x, nudge))[0]
    # what is held hangs on springs of its own: the Hessian stays symmetric, and regular
    spring = jnp.where(meeting > 0, meeting, 1.0)
    torque = total if held is None else lambda y: jnp.where(held, spring * (flat - y), total(y))
    energy = lambda y: net.total_energy(unravel(place(y)), x, nudge)
    valley = Valley(energy, torque, lambda y: meeting, lambda y: y, None, None, jnp.ones_like(flat), longest=1.0)
    if dense:
        found, more, certificate = descend_by_newton(valley, flat, limit, MOST_STEPS)
        certificate = dataclasses.replace(certificate, zero_mode=certificate.zero_mode | turning)
    else:
        doubtful = holding_time(net, start, held) * limit > state_tolerance(flat.dtype)
        found, more, off = descend_by_krylov(valley, flat, meeting, limit, doubtful)
        imprecise = doubtful & ~(jnp.sum(off) <= state_tolerance(flat.dtype))
        certificate = Certificate(jnp.asarray(opposed) & (more == 0), turning, imprecise)
    return certificate.judged(judge(net, unravel(place(found)), x, nudge, steps + more, limit))


def descend_by_krylov(
    valley: Valley,
    start: Float[Array, "n"],
    meeting: Float[Array, "n"],
    limit: Float[Array, ""],
    doubtful: Bool[Array, ""],
) -> tuple[Float[Array, "n"], Int[Array, ""], Float[Array, "2"]]:
    """The bottom of the valley of a start without a matrix: (state, steps, distances).

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
    at = lambda y: (y, valley.energy(y), valley.force(y))
    part = lambda torque: left_over(torque, meeting)
    rounding = 8 * epsilon * jnp.sum(meeting)

    def direction(y: Array, torque: Array) -> tuple[Array, Array]:
        action = lambda v: -jax.jvp(valley.force, (y,), (v,))[1]
        precision = jnp.where(doubtful, epsilon**0.5, 1e-3)
        solve = lambda force: conjugate_gradients(lambda v: root * action(root * v), root * force, precision)
        found, bent, _ = solve(torque)
        shaken, _, solved = solve(jnp.where(doubtful, epsilon * meeting, 0.0))
        d, farthest = root * found, jnp.max(jnp.abs(root * found))
        sure = ~bent & (jnp.max(jnp.abs(torque - action(d)) * unit) <= 0.1 * part(torque))
        off = jnp.where(jnp.stack([sure, solved]), jnp.stack([farthest, jnp.max(jnp.abs(root * shaken))]), jnp.inf)
        return d * jnp.where(bent, valley.longest / farthest, 1.0), off

    def running(carry):
        (_, _, torque), off, step, moving = carry
        return moving & ((part(torque) > limit) | (doubtful & (off[0] > close))) & (step < MOST_STEPS)

    def advance(carry):
        (y, energy, torque), _, step, _ = carry
        d, off = direction(y, torque)
        d /= jnp.maximum(1.0, jnp.max(jnp.abs(d)) / valley.longest)
        slope = d @ torque

        def refused(fraction, tried):
            _, new_energy, new_torque = tried
            fell = (new_energy < energy) & (new_energy <= energy - 1e-4 * fraction * slope)
            calmed = (part(new_torque) <= 0.5 * part(torque)) & (new_energy <= energy + rounding)
            return ~(fell | calmed)

        found, moving = backtrack(lambda fraction: at(y + fraction * d), refused, y.dtype)
        kept = jax.tree.map(lambda new, old: jnp.where(moving, new, old), found, (y, energy, torque))
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
