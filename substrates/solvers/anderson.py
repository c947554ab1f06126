"""Anderson acceleration: fixed points of systems without an energy, from differences of their last few steps."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Inexact, Int, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin
from substrates.solvers.generic import DescendThenPolish
from substrates.solvers.meeting import or_largest, shown
from substrates.solvers.solver import Equilibrium, Solver, Status, System, judged, left_over, tolerance
from substrates.solvers.stability import WATCHED, Motion

KEPT = 6
"""So many steps are remembered."""

ROUNDS = 6
"""So often it may come to rest where the flow would not stay, or creep."""

LONG = 100
"""After so many steps that led to no rest it is pushed on."""

PUSH = 0.2
"""As a part of 1 + |u|, how far a state is pushed off a fixed point that the flow would leave; each time farther."""

CALM = 100
"""So many half plain steps follow the flow from there."""


class Anderson(Solver):
    """Settles a system by its forces alone: where every variable would go by itself, mixed over the last few steps.

    With K the stiffness of every variable, `bound_stiffness` and what a nudge adds to it, a plain step
    g = force / K takes each variable to its rest with the others held. From the last steps u_j and g_j it goes to

        u + g - sum_j gamma_j (du_j + dg_j),     gamma = argmin |g - sum_j gamma_j dg_j|,

    with differences d of successive steps, and each variable measured against the forces that meet at it. Where the
    residual has doubled it forgets them and takes half a plain step.

    It may find a fixed point that the flow ds/dt = force would leave. With `watchful` that is looked for at every real
    state it finds, in the symmetric part of the Jacobian, and where that leaves it open in its spectrum (see
    `solvers.stability`). Such a state is pushed aside along the motion that grows, follows the flow for a while, and
    settles again; where nothing stable is found then, it is `unstable`. A state that creeps, as beside a fold where a
    fixed point has just gone, is pushed on in the same way. Complex states are continued from real ones.

    Pins are held by `DescendThenPolish`.

    Attributes:
        max_steps: the most steps.
        watchful: whether stability is looked at.
        relative_tolerance: see `tolerance`.

    Source: Anderson 1965, "Iterative procedures for nonlinear integral equations"; Walker and Ni 2011, "Anderson
    acceleration for fixed-point iterations".
    """

    max_steps: int = 1000
    watchful: bool = True
    relative_tolerance: float | None = None

    def __call__(
        self, substrate: System, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        if isinstance(nudge, Pin):
            return DescendThenPolish(self.max_steps, relative_tolerance=self.relative_tolerance)(
                substrate, x, nudge, start, key
            )
        limit = tolerance(substrate, start, x, nudge, relative=self.relative_tolerance)
        first, unravel = ravel_pytree(start)
        real = limit.dtype
        flat = lambda tree: ravel_pytree(tree)[0]
        force = lambda u: flat(substrate.total_force(unravel(u), x, nudge))

        def held(u: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
            """The stiffness K of every variable."""
            own = flat(substrate.bound_stiffness(unravel(u), x)).astype(u.dtype)
            return own + _added_stiffness(substrate, unravel(u), x, nudge)

        def look(u: Inexact[Array, " n"]):
            """The plain step, the forces that meet, and the part of them that is left over."""
            pushed, meeting = force(u), flat(substrate.meeting(unravel(u), x, nudge))
            own = held(u)
            own = jnp.where(jnp.abs(own) > 0, own, jnp.ones_like(own))
            weight = (jnp.abs(own) / or_largest(meeting)).astype(u.dtype)
            return pushed / own, weight, left_over(pushed, meeting)

        places = jnp.arange(KEPT, dtype=jnp.int32)
        zero, none = jnp.zeros((), jnp.int32), jnp.zeros((KEPT, first.size), first.dtype)

        def settle(u, calm, begun, most):
            """(u, force, residual, steps): Anderson acceleration after so many steps along the flow."""

            def advance(carry):
                u, (last_u, last_g), steps, changes, count, before, step, _ = carry
                g, weight, left = look(u)
                here = ((places == count % KEPT) & (step > begun))[:, None]
                steps = jnp.where(here, (u - last_u)[None], steps)
                changes = jnp.where(here, (g - last_g)[None], changes)
                flowing = (left > 2 * before) | (step - begun < calm)
                count = jnp.where(flowing | (step == begun), 0, count + 1)
                kept = places < count
                rows = jnp.where(kept[:, None], weight[None] * changes, 0)
                gram = jnp.conj(rows) @ rows.T
                rounding = 8 * float(jnp.finfo(real).eps) * jnp.max(jnp.real(jnp.diagonal(gram)))
                floor = jnp.diag(jnp.where(kept, rounding, 1.0).astype(gram.dtype))
                gamma = jnp.linalg.solve(gram + floor, jnp.conj(rows) @ (weight * g))
                gamma = jnp.where(jnp.isfinite(gamma), gamma, 0)
                plain = jnp.where(flowing, 0.5, 1.0).astype(g.dtype) * g
                going = (step < self.max_steps) & (step < begun + calm + most) & (left > limit) & jnp.isfinite(left)
                moved = jnp.where(going, u + plain - gamma @ (steps + changes), u)
                return moved, (u, g), steps, changes, count, left, step + going.astype(jnp.int32), going

            begin = (u, (u, u), none, none, zero, jnp.full((), jnp.inf, real), begun, jnp.asarray(True))
            u, (_, g), *_, left, steps, _ = jax.lax.while_loop(lambda carry: carry[-1], advance, begin)
            return u, g, left, steps

        if not self.watchful or jnp.iscomplexobj(first):
            u, _, left, steps = settle(first, zero, zero, self.max_steps)
            return _found(substrate, unravel(u), x, nudge, left, steps, limit)

        def again(carry):
            u, aside, _, _, unstable, steps, round_ = carry
            u, g, left, steps = settle(u + aside, jnp.where(round_ > 0, CALM, 0), steps, LONG)
            motion, balanced = Motion.about(u, force), left <= limit
            stays = motion.stable(jnp.abs(held(u)))
            rests = balanced & stays
            away = motion.fastest(jnp.where(rests, 0, WATCHED))[1]
            away = jnp.where(jnp.sum(away * g) < 0, -away, away)
            aside = PUSH * (round_ + 1).astype(real) * away / jnp.max(jnp.abs(away) / (1 + jnp.abs(u)))
            return u, aside, left, rests, unstable | (balanced & ~stays), steps, round_ + 1

        def leaving(carry):
            _, _, left, rests, _, steps, round_ = carry
            going = ~rests & ~jnp.isnan(left) & (steps < self.max_steps) & (round_ < ROUNDS)
            return going | (round_ == 0)

        no = jnp.asarray(False)
        begin = (first, jnp.zeros_like(first), jnp.full((), jnp.inf, real), no, no, zero, zero)
        u, _, left, rests, unstable, steps, _ = jax.lax.while_loop(leaving, again, begin)
        found = _found(substrate, unravel(u), x, nudge, left, steps, limit)
        unstable &= ~rests & (found.status != Status.not_finite)
        return dataclasses.replace(found, status=Status.where(unstable, Status.unstable, found.status))


def _found(
    substrate: System,
    state: PyTree,
    x: PyTree,
    nudge: Nudge | None,
    left: Float[Array, ""],
    steps: Int[Array, ""],
    limit: Float[Array, ""],
) -> Equilibrium:
    energy = substrate.total_energy(state, x, nudge) if substrate.conservative else None
    return judged(state, energy, left, steps, limit)


def _added_stiffness(
    substrate: System, state: PyTree, x: PyTree, nudge: Nudge | None
) -> Inexact[Array, " n"] | Float[Array, ""]:
    """What a nudge adds to the stiffness of each variable: the diagonal of (dread)' beta C'' dread."""
    flat, unravel = ravel_pytree(state)
    if nudge is None:
        return jnp.zeros((), flat.dtype)
    output, ways = shown(lambda u: substrate.read(unravel(u), x), flat)
    return nudge.stiffness(output) @ ways**2
