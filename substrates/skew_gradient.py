"""Systems with a signature: some variables go down an energy and some go up it; they come to rest on its saddles."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Inexact, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin
from substrates.solvers.generic import DescendThenPolish
from substrates.solvers.solver import Equilibrium, Solver, Status
from substrates.substrate import Substrate

MOST_DENSE = 512
"""Up to so many variables the spectrum of the flow is computed."""


class SkewFlow(Solver):
    """Settles a `SkewGradient` where its flow comes to rest, and says whether it would stay.

    Implicit Euler steps along ds/dt = -Q grad F, growing as the forces fall, then Newton's method. Up to 512 variables
    the spectrum of -Q H is computed; where part of it lies on or to the right of the imaginary axis, but for rounding,
    the status is `unstable`. A complex nudge polishes only, and a pin is held without a test of stability.
    """

    def __call__(
        self, substrate: SkewGradient, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        flow = _Flow(substrate)
        found = DescendThenPolish()(flow, x, nudge, start, key)
        found = dataclasses.replace(found, energy=substrate.total_energy(found.state, x, nudge))
        state, unravel = ravel_pytree(found.state)
        if isinstance(nudge, Pin) or jnp.iscomplexobj(state) or state.size > MOST_DENSE:
            return found
        rate = lambda s: ravel_pytree(flow.total_force(unravel(s), x, nudge))[0]
        falls = _falls(jax.vmap(jax.linearize(rate, state)[1], out_axes=1)(np.eye(state.size, dtype=state.dtype)))
        status = Status.where(found.converged & ~falls, Status.unstable, found.status)
        return dataclasses.replace(found, status=status)


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


def _falls(rates: Float[Array, "n n"]) -> Bool[Array, ""]:
    """Whether all that a linear flow moves dies away, but for rounding."""

    def look(matrices: Any) -> Any:
        matrices = np.asarray(matrices)
        size = np.max(np.sum(np.abs(matrices), axis=-1), axis=-1, initial=0.0)
        finite = np.isfinite(size)
        growth = np.linalg.eigvals(np.where(finite[..., None, None], matrices, 0.0)).real.max(axis=-1)
        return finite & (growth < -4 * matrices.shape[-1] * np.finfo(matrices.dtype).eps * size)

    shape = jax.ShapeDtypeStruct((), jnp.bool_)
    return jax.pure_callback(look, shape, rates, vmap_method="broadcast_all")


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
