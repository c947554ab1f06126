"""Weights outside the relaxing system: a read-out that learns with it."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin, batch_axes
from substrates.substrate import Equilibrium, Solver, Substrate


class LinearReadout(Substrate):
    """A substrate whose outputs are a trainable linear map of another's: output = weight @ inner output.

    The map stands outside the relaxing system, which feels the nudge through it: with `CrossEntropy` the force
    beta weight' (target - softmax(output)). Energy, state, bounds and solver are those of the inner substrate, and
    one contrast trains both: the inner parameters through the states, the weight through the nudge itself.

    Attributes:
        inner: the substrate that relaxes.
        weight: shape (outputs, inner outputs).

    Source: Laborieux et al. 2021, arXiv 2006.03824.
    """

    inner: Substrate
    weight: Float[Array, "outputs inner"]

    @property
    def conservative(self) -> bool:
        return self.inner.conservative

    @property
    def contrast_points(self) -> int:  # type: ignore[override]
        return self.inner.contrast_points

    def energy(self, state: PyTree, x: PyTree) -> Inexact[Array, ""]:
        return self.inner.energy(state, x)

    def initial_state(self, x: PyTree) -> PyTree:
        return self.inner.initial_state(x)

    def read(self, state: PyTree, x: PyTree) -> Inexact[Array, "outputs"]:
        return self.weight @ self.inner.read(state, x)

    def bounds(self, x: PyTree) -> tuple[PyTree, PyTree] | None:
        return self.inner.bounds(x)

    def force(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> PyTree:
        if self.conservative:
            return self.inner.force(state, x, self._inside(nudge))
        return self.inner.force(state, x)

    def stationarity(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> PyTree:
        if isinstance(nudge, Pin):
            return Substrate.stationarity(self, state, x, nudge)
        return self.inner.stationarity(state, x, self._inside(nudge))

    def residual(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> Float[Array, ""]:
        if isinstance(nudge, Pin):
            return Substrate.residual(self, state, x, nudge)
        return self.inner.residual(state, x, self._inside(nudge))

    def force_scale(self, state: PyTree, x: PyTree) -> PyTree:
        return self.inner.force_scale(state, x)

    def bound_stiffness(self, state: PyTree, x: PyTree) -> PyTree:
        return self.inner.bound_stiffness(state, x)

    def relax(
        self,
        x: PyTree,
        nudge: Nudge | Pin | None = None,
        start: PyTree | None = None,
        *,
        key: PRNGKeyArray | None = None,
        solver: Solver | None = None,
    ) -> Equilibrium:
        if isinstance(nudge, Pin):
            return Substrate.relax(self, x, nudge, start, key=key, solver=solver)
        return self.inner.relax(x, self._inside(nudge), start, key=key, solver=solver)

    def measure(self, states: PyTree, xs: PyTree, nudges: Nudge | Pin | None = None) -> LinearReadout:
        inner = self.inner.measure(states, xs, self._inside(nudges))
        return LinearReadout(inner, self._weight_gradient(states, xs, nudges))

    def contrast(
        self,
        plus: PyTree,
        minus: PyTree,
        xs: PyTree,
        nudges_plus: Nudge | Pin | None = None,
        nudges_minus: Nudge | Pin | None = None,
    ) -> LinearReadout:
        inner = self.inner.contrast(plus, minus, xs, self._inside(nudges_plus), self._inside(nudges_minus))
        weight = self._weight_gradient(plus, xs, nudges_plus) - self._weight_gradient(minus, xs, nudges_minus)
        return LinearReadout(inner, weight)

    def constrained(self) -> LinearReadout:
        return LinearReadout(self.inner.constrained(), self.weight)

    def nearest_physical(self, compliance: LinearReadout) -> LinearReadout:
        return LinearReadout(self.inner.nearest_physical(compliance.inner), self.weight)

    def _inside(self, nudge: Nudge | Pin | None) -> Nudge | None:
        """The nudge as the inner outputs feel it; a pin adds no energy."""
        return nudge.through(_Linear(self.weight)) if isinstance(nudge, Nudge) else None

    def _weight_gradient(self, states: PyTree, xs: PyTree, nudges: Nudge | Pin | None) -> Array:
        """beta dC/dweight = -pull (inner output)', averaged over a batch."""
        inner = jax.vmap(self.inner.read)(states, xs)
        if not isinstance(nudges, Nudge):
            return jnp.zeros_like(self.weight, dtype=inner.dtype)
        pull = lambda z, nudge: nudge.pull(self.weight.astype(z.dtype) @ z)
        pulls = jax.vmap(pull, in_axes=(0, batch_axes(nudges)))(inner, nudges)
        return -pulls.T @ inner / inner.shape[0]


class _Linear(eqx.Module):
    weight: Array

    def __call__(self, inner: Array) -> Array:
        return self.weight @ inner
