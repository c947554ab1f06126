"""Systems with a signature: some variables go down an energy and some go up it; they come to rest on its saddles."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Inexact, Int, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin
from substrates.solvers.batching import in_turn
from substrates.solvers.certificate import state_tolerance
from substrates.solvers.generic import DescendThenPolish
from substrates.solvers.host import on_host
from substrates.solvers.meeting import slopes
from substrates.solvers.solver import Equilibrium, Solver, Status, allowed, judged, left_over
from substrates.substrate import Substrate

MOST_DENSE = 512
"""Up to so many variables the spectrum of the flow is computed."""


class SkewFlow(Solver):
    """Settles a `SkewGradient` where its flow comes to rest, and says whether it would stay.

    Implicit Euler steps (1/dt + Q H) d = -Q grad F along ds/dt = -Q grad F, whose dt grows as the forces fall, so that
    they end as those of Newton's method. At the end the spectrum of -Q H is computed: with a part of it to the right
    of the imaginary axis the status is `unstable`, with one on it, but for rounding, `zero_mode`. Above 512 variables,
    and under a complex nudge, the generic solver follows the flow and polishes without a matrix, and nothing is said of
    stability; so it holds pins.

    Attributes:
        max_steps: the most steps.

    Source: Kelley and Keyes 1998, "Convergence analysis of pseudo-transient continuation".
    """

    max_steps: int = 500

    def __call__(
        self, substrate: SkewGradient, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        state, unravel = ravel_pytree(start)
        flow = _Flow(substrate)
        if isinstance(nudge, Pin) or jnp.iscomplexobj(state) or state.size > MOST_DENSE:
            found = DescendThenPolish(self.max_steps)(flow, x, nudge, start, key)
            return dataclasses.replace(found, energy=substrate.total_energy(found.state, x, nudge))
        rate = lambda s: ravel_pytree(flow.total_force(unravel(s), x, nudge))[0]
        eye, close = np.eye(state.size, dtype=state.dtype), state_tolerance(state.dtype) / 4
        solve = in_turn(jnp.linalg.solve)
        largest = lambda values: jnp.max(jnp.abs(values), initial=0.0)

        def advance(carry):
            now, step, _ = carry
            force, bent = slopes(rate, now.state)
            tree = unravel(now.state)
            inner, brought, added = substrate.force_scale(tree, x), None, 0.0
            if nudge is not None:
                output, transpose = jax.vjp(lambda s: substrate.read(s, x), tree)
                brought, added = (transpose(value)[0] for value in (nudge.pull(output), nudge.size(output)))
                added = jnp.abs(ravel_pytree(added)[0])
            scale = ravel_pytree(inner)[0] + added
            left, limit = left_over(force, scale), allowed(state.dtype, nudge, brought, inner)
            stiffest = jnp.max(jnp.sum(jnp.abs(bent), axis=1), initial=0.0)
            growth = jnp.where(step > 0, jnp.clip(2 * now.left / left, 0.5, 10.0) * now.growth, 1.0)
            moved = solve(eye * stiffest / growth - bent, force)
            going = ~((left <= limit) & (largest(moved) <= close * largest(now.state))) & jnp.isfinite(left)
            going &= ~((left <= limit) & (largest(force) == 0))
            more = going & (step < self.max_steps)
            ahead = jnp.where(more, now.state + moved, now.state)
            return _Pace(ahead, bent, scale, left, limit, growth, going), step + more.astype(jnp.int32), more

        zero = jnp.zeros((), state.dtype)
        first = _Pace(state, jnp.zeros_like(eye), jnp.zeros_like(state), zero, zero, zero, jnp.asarray(True))
        begin = first, jnp.zeros((), jnp.int32), first.going
        end, steps, _ = jax.lax.while_loop(lambda carry: carry[2], advance, begin)
        tree = unravel(end.state)
        found = judged(tree, substrate.total_energy(tree, x, nudge), end.left, steps, end.limit)
        rounded = jnp.abs(solve(end.slopes, eye)) @ end.scale * float(jnp.finfo(state.dtype).eps)
        precise = largest(rounded) <= state_tolerance(state.dtype) * largest(end.state)
        status = Status.where(precise | (largest(end.scale) == 0), Status.converged, Status.ill_conditioned)
        growth = _growth(end.slopes)
        status = Status.where(growth < 0, status, Status.zero_mode)
        status = Status.where(growth > 0, Status.unstable, status)
        status = Status.where(end.going & found.converged, Status.out_of_steps, status)
        return dataclasses.replace(found, status=Status.where(found.converged, status, found.status))


class _Pace(eqx.Module):
    """Where the flow is, what its last look found, and how long a step may be, in units of the stiffest motion.

    Attributes:
        slopes: -Q H.
        scale: the forces that meet at each variable.
        left, limit: the part of them that is left over, and the one that may be.
        going: whether another step must follow.
    """

    state: Float[Array, " n"]
    slopes: Float[Array, "n n"]
    scale: Float[Array, " n"]
    left: Float[Array, ""]
    limit: Float[Array, ""]
    growth: Float[Array, ""]
    going: Bool[Array, ""]


class _Flow(Substrate):
    """-Q grad F as a force without an energy."""

    inner: SkewGradient

    def force(self, state: PyTree, x: PyTree) -> PyTree:
        return self._turned(state, self.inner.force(state, x))

    def total_force(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> PyTree:
        return self._turned(state, self.inner.total_force(state, x, nudge))

    def _turned(self, state: PyTree, force: PyTree) -> PyTree:
        return jax.tree.map(lambda sign, f: sign * f, self.inner.signature(state), force)

    def initial_state(self, x: PyTree) -> PyTree:
        return self.inner.initial_state(x)

    def read(self, state: PyTree, x: PyTree) -> Inexact[Array, "outputs"]:
        return self.inner.read(state, x)

    def force_scale(self, state: PyTree, x: PyTree) -> PyTree:
        return self.inner.force_scale(state, x)


def _growth(rates: Float[Array, "n n"]) -> Int[Array, ""]:
    """The sign of the fastest growth of what a linear flow moves: -1 where all dies away, 0 within rounding."""

    def look(matrices: Any) -> Any:
        matrices = np.asarray(matrices)
        size = np.max(np.sum(np.abs(matrices), axis=-1), axis=-1)
        finite = np.isfinite(size)
        fastest = np.linalg.eigvals(np.where(finite[..., None, None], matrices, 0.0)).real.max(axis=-1)
        rounding = 4 * matrices.shape[-1] * np.finfo(matrices.dtype).eps * size
        return np.where(finite & (np.abs(fastest) > rounding), np.sign(fastest), 0).astype(np.int32)

    return on_host(look, jax.ShapeDtypeStruct((), jnp.int32), rates, vmap_method="broadcast_all")


class SkewGradient(Substrate):
    """A system whose variables go down an energy Phi or up it, as their signs Q = +-1 say:

        ds/dt = -Q grad(Phi + beta C).

    Activators and inhibitors, the players of a min-max game, multipliers and what they constrain. What comes to rest
    is a stationary point of Phi, as a rule a saddle, and it is stable where the spectrum of -Q H lies to the left of
    the imaginary axis, H the Hessian of Phi + beta C. Equilibrium propagation holds at any stationary point that is
    not degenerate: the contrast of dPhi/dtheta is the gradient of the cost, up to O(beta^2) centred. What needs a
    minimum does not hold: nudges of either sign do not bound the cost, and C need not fall along a nudge.

    Define `energy` (Phi), `initial_state`, `read` and `signature`.

    Source: 2026, arXiv 2605.21568, for learning in skew-gradient systems; Yanagida 2002, "Mini-maximizers for
    reaction-diffusion systems with skew-gradient structure".
    """

    solver: ClassVar[Any] = SkewFlow()

    @abc.abstractmethod
    def signature(self, state: PyTree) -> PyTree:
        """Q, a tree like the state: 1 for what goes down the energy, -1 for what goes up."""
