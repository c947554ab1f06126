"""Anderson acceleration: fixed points of systems without an energy, from differences of their last few steps."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin
from substrates.solvers.generic import DescendThenPolish
from substrates.solvers.meeting import or_largest, shown
from substrates.solvers.solver import Equilibrium, Solver, Status, System, judged, left_over, tolerance
from substrates.solvers.stability import is_stable

KEPT = 6
"""So many steps are remembered."""


class Anderson(Solver):
    """Settles a system by its forces alone: where every variable would go by itself, mixed over the last few steps.

    With K the stiffness of every variable, `bound_stiffness` and what a nudge adds to it, a plain step
    g = force / K takes each variable to its rest with the others held. From the last steps u_j and g_j it goes to

        u + g - sum_j gamma_j (du_j + dg_j),     gamma = argmin |g - sum_j gamma_j dg_j|,

    with differences d of successive steps, and each variable measured against the forces that meet at it. Where the
    residual has doubled it forgets them and takes half a plain step.

    It may find a fixed point that the flow ds/dt = force would leave. With `watchful` such a one is `unstable`: that
    is looked for at every real state that is found, in the symmetric part of the Jacobian, and where that leaves it
    open in its spectrum (see `solvers.stability`). Complex states are continued from real ones.

    Pins are held by `DescendThenPolish`.

    Attributes:
        max_steps: the most steps.
        watchful: whether stability is looked at.
        relative_tolerance: see `tolerance`.

    Source: Anderson 1965, "Iterative procedures for nonlinear integral equations"; Walker and Ni 2011, "Anderson
    acceleration for fixed-point iterations".
    """

    max_steps: int = 500
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

        def advance(carry):
            u, (last_u, last_g), steps, changes, count, before, step, _ = carry
            g, weight, left = look(u)
            here = ((places == count % KEPT) & (step > 0))[:, None]
            steps = jnp.where(here, (u - last_u)[None], steps)
            changes = jnp.where(here, (g - last_g)[None], changes)
            lost = left > 2 * before
            count = jnp.where(lost | (step == 0), 0, count + 1)
            kept = places < count
            rows = jnp.where(kept[:, None], weight[None] * changes, 0)
            gram = jnp.conj(rows) @ rows.T
            rounding = 8 * float(jnp.finfo(real).eps) * jnp.max(jnp.real(jnp.diagonal(gram)))
            floor = jnp.diag(jnp.where(kept, rounding, 1.0).astype(gram.dtype))
            gamma = jnp.linalg.solve(gram + floor, jnp.conj(rows) @ (weight * g))
            gamma = jnp.where(jnp.isfinite(gamma), gamma, 0)
            plain = jnp.where(lost, 0.5, 1.0).astype(g.dtype) * g
            going = (step < self.max_steps) & (left > limit) & jnp.isfinite(left)
            moved = jnp.where(going, u + plain - gamma @ (steps + changes), u)
            return moved, (u, g), steps, changes, count, left, step + going.astype(jnp.int32), going

        none = jnp.zeros((KEPT, first.size), first.dtype)
        zero = jnp.zeros((), jnp.int32)
        begin = (first, (first, first), none, none, zero, jnp.full((), jnp.inf, real), zero, jnp.asarray(True))
        u, *_, left, steps, _ = jax.lax.while_loop(lambda carry: carry[-1], advance, begin)
        state = unravel(u)
        energy = substrate.total_energy(state, x, nudge) if substrate.conservative else None
        found = judged(state, energy, left, steps, limit)
        if not self.watchful or jnp.iscomplexobj(u):
            return found
        stiffness = jnp.abs(held(u))
        stable = is_stable(force, u, stiffness)
        status = Status.where(stable | ~found.converged, found.status, Status.unstable)
        return dataclasses.replace(found, status=status)


def _added_stiffness(
    substrate: System, state: PyTree, x: PyTree, nudge: Nudge | None
) -> Inexact[Array, " n"] | Float[Array, ""]:
    """What a nudge adds to the stiffness of each variable: the diagonal of (dread)' beta C'' dread."""
    flat, unravel = ravel_pytree(state)
    if nudge is None:
        return jnp.zeros((), flat.dtype)
    output, ways = shown(lambda u: substrate.read(unravel(u), x), flat)
    return nudge.stiffness(output) @ ways**2
