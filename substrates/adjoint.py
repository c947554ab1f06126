"""The exact repair of a system without an energy: under nudges it answers by its transposed response."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin
from substrates.parameters import fixed
from substrates.solvers.solver import Equilibrium, Status
from substrates.substrate import Solver, Substrate
from substrates.wrapper import Wrapper


class AdjointResponse(Wrapper):
    """A system without an energy whose nudged phases are corrected, so that what it answers is its transposed response.

    With mu the force, s_0 the free state, J = dmu/ds there and A = (J - J')/2, a nudged phase settles where

        mu(s) - 2 A (s - s_0) - beta dC/ds = 0.

    The Jacobian of that force at s_0 is J - 2 A = J', so that ds/dbeta = J'^-1 dC/ds, and equilibrium propagation finds
    -(dmu/dtheta)' J'^-1 dC/ds, the exact gradient, in the limit beta -> 0. The spectrum of J' is that of J, so that
    it is as stable. 2 A v = J v - J' v is a product with J and one with its transpose: no matrix is formed.

    Free phases are those of the inner system; a nudged one settles it freely first, from its start, which takes no step
    where that is the free state already, as in every rule. Where there is an energy A is 0 and nothing changes.

    Attributes:
        inner: the substrate, without bounds on its states.

    Raises:
        ValueError: for a substrate with bounds, whose held variables have no response, and one of discrete states.

    Source: Scurria, Vanden Abeele, Mognetti and Massar 2026, arXiv 2602.03670.
    """

    inner: Substrate

    def __check_init__(self):
        if self.inner.discrete:
            raise ValueError(f"inner: wanted states that forces move, got {type(self.inner).__name__}, discrete ones")

    def relax(
        self,
        x: PyTree,
        nudge: Nudge | Pin | None = None,
        start: PyTree | None = None,
        *,
        key: PRNGKeyArray | None = None,
        solver: Solver | None = None,
    ) -> Equilibrium:
        if self.inner.bounds(x) is not None:
            raise ValueError(
                f"inner: wanted states without bounds, got those of {type(self.inner).__name__}, which bounds hold: "
                "train it by EquilibriumPropagation as it is"
            )
        if not isinstance(nudge, Nudge):
            return self.inner.relax(x, nudge, start, key=key, solver=solver)
        complex_beta = jnp.iscomplexobj(nudge.beta)
        real = lambda tree: jax.tree.map(jnp.real, tree)
        start = real(start) if complex_beta and start is not None else start
        free = self.inner.relax(x, None, start, key=key, solver=solver)
        about = jax.lax.stop_gradient(free.state)
        system: Substrate = _Corrected(self.inner, about)
        found = system.relax(x, nudge, about, key=key, solver=self.inner.solver if solver is None else solver)
        status = Status.where(free.usable, found.status, free.status)
        return dataclasses.replace(found, status=status, steps=found.steps + free.steps)


class _Corrected(Substrate):
    """The inner system with the force mu(s) - 2 A (s - s_0).

    Attributes:
        about: s_0.
    """

    forwards: ClassVar[bool] = True

    inner: Substrate
    about: PyTree = fixed()

    def force(self, state: PyTree, x: PyTree) -> PyTree:
        moved = jax.tree.map(jnp.subtract, state, self.about)
        force = lambda s: self.inner.force(s, x)
        product = jax.linearize(force, self.about)[1]
        (back,) = jax.linear_transpose(product, self.about)(moved)
        return jax.tree.map(lambda mu, j, t: mu - (j - t), self.inner.force(state, x), product(moved), back)

    def initial_state(self, x: PyTree) -> PyTree:
        return self.about

    def read(self, state: PyTree, x: PyTree) -> Inexact[Array, "outputs"]:
        return self.inner.read(state, x)

    def bound_stiffness(self, state: PyTree, x: PyTree) -> PyTree:
        return self.inner.bound_stiffness(state, x)

    def force_scale(self, state: PyTree, x: PyTree) -> PyTree:
        return self.inner.force_scale(state, x)

    @property
    def holomorphic(self) -> bool:  # type: ignore[override]
        return self.inner.holomorphic
