"""A system held near a point by springs, which measure the force that it exerts there."""

from __future__ import annotations

from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Inexact, PyTree

from substrates import arguments
from substrates.substrate import Substrate, fixed, parameter_dtype


class ForceProbe(Substrate):
    """The state s of another system held by springs at a point x, which show the force that it exerts there:

        E(s; x) = E_inner(s) + k |s - x|^2 / 2,    read = k (s - x) = f(x) + O(1/k),    f = -dE_inner/ds.

    The targets of outputs are wanted forces: nudged by `SquaredError`, the inner energy learns to exert them, by a
    contrast of its own observables. The gradient is that of |f - v|^2/2 at x up to O(1/k). With v the velocity of a
    flow from noise to data, force matching makes a generative model of the system: its own motion ds/dt = f(s) carries
    noise to data. The nudge beta is a softening of k by beta k^2: keep it well below 1/k.

    Attributes:
        inner: the system that learns; it must have an energy and no bounds on its state.
        clamped: the input of the inner system, a constant.
        stiffness: k, a constant; the forces are read with a rounding of eps k |x|.

    The input x is a point of the state, flat; the state is that of the inner system.

    Raises ValueError for a stiffness that is not positive and for a system without an energy or with bounds.

    Source: 2026, arXiv 2604.08150.
    """

    inner: Substrate
    clamped: Any = fixed()
    stiffness: Float[Array, ""] = fixed()

    def __init__(self, inner: Substrate, clamped: Any, stiffness: Any):
        dtype = parameter_dtype(inner)
        self.inner, self.clamped = inner, jnp.asarray(clamped, dtype)
        self.stiffness = jnp.asarray(stiffness, dtype)
        arguments.refuse_complex("stiffness", stiffness)
        if not isinstance(self.stiffness, Tracer) and not 0 < float(self.stiffness) < np.inf:
            raise ValueError(f"stiffness: wanted a positive number, got {stiffness}")
        if not inner.conservative or inner.discrete or inner.bounds(self.clamped) is not None:
            raise ValueError(
                f"inner: wanted a system with an energy over states without bounds, got {type(inner).__name__}"
            )

    def energy(self, state: PyTree, x: Float[Array, "variables"]) -> Inexact[Array, ""]:
        return self.inner.energy(state, self.clamped) + self.stiffness * jnp.sum(self._stretch(state, x) ** 2) / 2

    def force(self, state: PyTree, x: Float[Array, "variables"]) -> PyTree:
        pull = ravel_pytree(state)[1](-self.stiffness * self._stretch(state, x))
        return jax.tree.map(jnp.add, self.inner.force(state, self.clamped), pull)

    def _stretch(self, state: PyTree, x: Float[Array, "variables"]) -> Inexact[Array, "variables"]:
        flat = ravel_pytree(state)[0]
        return flat - jnp.asarray(x).astype(flat.dtype)

    @property
    def input_size(self) -> int:
        leaves = jax.tree.leaves(eqx.filter_eval_shape(self.inner.initial_state, self.clamped))
        return sum(leaf.size for leaf in leaves)

    def initial_state(self, x: Float[Array, "variables"]) -> PyTree:
        """At the point."""
        like = self.inner.initial_state(self.clamped)
        return ravel_pytree(like)[1](jnp.asarray(x).astype(ravel_pytree(like)[0].dtype))

    def read(self, state: PyTree, x: Float[Array, "variables"]) -> Inexact[Array, "variables"]:
        """The forces of the springs, k (s - x)."""
        return self.stiffness * self._stretch(state, x)

    def constrained(self) -> Self:
        return eqx.tree_at(lambda probe: probe.inner, self, self.inner.constrained())
