"""Weights outside the relaxing system: a read-out that learns with it."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin, batch_axes
from substrates.solvers.generic import DescendThenPolish
from substrates.substrate import Equilibrium, Solver, Substrate
from substrates.wrapper import Wrapper, replaced


class LinearReadout(Wrapper):
    """A substrate whose outputs are a trainable linear map of another's: output = weight @ inner output.

    The map stands outside the relaxing system, which feels the nudge through it: with `CrossEntropy` the force
    beta weight' (target - softmax(output)). Energy, state, bounds and solver are those of the inner substrate, and
    one contrast trains both: the inner parameters through the states, the weight through the nudge itself. A pin holds
    the mapped outputs, by the generic solver.

    Attributes:
        inner: the substrate that relaxes.
        weight: shape (outputs, inner outputs).

    Source: Laborieux et al. 2021, arXiv 2006.03824.
    """

    linear_in_parameters: ClassVar[bool] = False

    inner: Substrate
    weight: Float[Array, "outputs inner"]

    def read(self, state: PyTree, x: PyTree) -> Inexact[Array, "outputs"]:
        return self.weight @ self.inner.read(state, x)

    def inside(self, given: PyTree) -> PyTree:
        if any(isinstance(leaf, Pin) for leaf in jax.tree.leaves(given, is_leaf=lambda node: isinstance(node, Pin))):
            return NotImplemented
        through = lambda nudge: nudge.through(_Linear(self.weight))
        return Wrapper.inside(self, replaced(given, Nudge, through))

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
            solver = DescendThenPolish() if solver is None else solver
            return Substrate.relax(self, x, nudge, start, key=key, solver=solver)
        return self.inner.relax(x, self._inside(nudge), start, key=key, solver=solver)

    def measure(self, states: PyTree, xs: PyTree, nudges: Nudge | Pin | None = None) -> Self:
        inner = self.inner.measure(states, xs, self._inside(nudges))
        return dataclasses.replace(self, inner=inner, weight=self._weight_gradient(states, xs, nudges))

    def measure_from(self, free: PyTree, states: PyTree, xs: PyTree, nudges: Nudge | Pin | None = None) -> Self:
        inner = self.inner.measure_from(free, states, xs, self._inside(nudges))
        return dataclasses.replace(self, inner=inner, weight=self._weight_gradient(states, xs, nudges))

    def contrast(
        self,
        plus: PyTree,
        minus: PyTree,
        xs: PyTree,
        nudges_plus: Nudge | Pin | None = None,
        nudges_minus: Nudge | Pin | None = None,
    ) -> Self:
        inner = self.inner.contrast(plus, minus, xs, self._inside(nudges_plus), self._inside(nudges_minus))
        weight = self._weight_gradient(plus, xs, nudges_plus) - self._weight_gradient(minus, xs, nudges_minus)
        return dataclasses.replace(self, inner=inner, weight=weight)

    def relax_jointly(self, *arguments: Any, **named: Any) -> Any:
        """The weight settles too, so that no solver of the inner substrate will do."""
        return Substrate.relax_jointly(self, *arguments, **named)

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
