"""Lagrangians: all that a user writes of a system whose paths learn."""

from __future__ import annotations

import abc
import dataclasses
from typing import TYPE_CHECKING, Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from substrates import arguments
from substrates.parameters import fixed


class Lagrangian(eqx.Module):
    """L(q, v, t; x), a scalar in joules: its arrays are trainable, but for fields marked `fixed()`.

    It must be twice differentiable, and for complex nudges analytic. Everything is written for one example.
    """

    @abc.abstractmethod
    def __call__(
        self, position: Inexact[Array, " n"], velocity: Inexact[Array, " n"], time: Any, x: Any
    ) -> Inexact[Array, ""]:
        """L at a position q, a velocity v and a time t in seconds, under an input x."""

    def constrained(self) -> Self:
        """The nearest Lagrangian whose parameters are physical."""
        return self


class MechanicalLagrangian(Lagrangian):
    """L = 1/2 sum_i m_i v_i^2 - V(q, t; x): masses in a potential. A class defines `mass` and `potential`.

    Such a motion can be run from a launch by leapfrog, and back again.

    Attributes:
        mass: m_i of each coordinate, kilograms (moments of inertia, for angles), shape (n,); a constant, or trainable.
    """

    if TYPE_CHECKING:  # declared in each class, in an order of its own
        mass: Float[Array, " n"]

    @abc.abstractmethod
    def potential(self, position: Inexact[Array, " n"], time: Any, x: Any) -> Inexact[Array, ""]:
        """V at a position and a time, joules."""

    def kinetic(self, velocity: Inexact[Array, " n"]) -> Inexact[Array, ""]:
        """1/2 sum_i m_i v_i^2."""
        return jnp.sum(self.mass * velocity**2) / 2

    def __call__(
        self, position: Inexact[Array, " n"], velocity: Inexact[Array, " n"], time: Any, x: Any
    ) -> Inexact[Array, ""]:
        return self.kinetic(velocity) - self.potential(position, time, x)


class CoupledPendulums(MechanicalLagrangian):
    """Pendulums that springs join and inputs drive in time with w; alone, each swings with sqrt(k/m) at small angles:

        V = sum_i k_i (1 - cos q_i) + sum_edges 1/2 c_e (q_i - q_j)^2 - cos(w t) sum_i (D x)_i q_i.

    Attributes:
        weight: k = m g l of each, joules, shape (n,).
        coupling: c of each edge, joules, shape (edges,), at least 0.
        drive: D, joules per input, shape (n, inputs).
        edges: pairs of pendulums.
        mass: the moment of inertia m l^2 of each, joule seconds squared, shape (n,), constants.
        frequency: w, radians per second, a constant.
    """

    weight: Float[Array, " n"]
    coupling: Float[Array, " edges"]
    drive: Float[Array, "n inputs"]
    edges: tuple[tuple[int, int], ...] = eqx.field(static=True)
    mass: Float[Array, " n"] = fixed()
    frequency: Float[Array, ""] = fixed()

    def __check_init__(self):
        n = self.mass.size
        for name, wanted in (("weight", n), ("coupling", len(self.edges))):
            if jnp.shape(getattr(self, name)) != (wanted,):
                raise ValueError(f"{name}: wanted shape ({wanted},), got {jnp.shape(getattr(self, name))}")
        if self.drive.ndim != 2 or self.drive.shape[0] != n:
            raise ValueError(f"drive: wanted shape ({n}, inputs), one row for each pendulum, got {self.drive.shape}")
        wrong = [edge for edge in self.edges if not (0 <= edge[0] < n and 0 <= edge[1] < n and edge[0] != edge[1])]
        if wrong:
            raise ValueError(f"edges: wanted pairs of different pendulums from 0 to {n - 1}, got {wrong[:5]}")

    def potential(self, position: Inexact[Array, " n"], time: Any, x: Inexact[Array, " inputs"]) -> Inexact[Array, ""]:
        hanging = jnp.sum(self.weight * (1 - jnp.cos(position)))
        driven = jnp.cos(self.frequency * time) * jnp.sum((self.drive @ x) * position)
        stretch = self._incidence.astype(position.dtype) @ position
        return hanging + jnp.sum(self.coupling * stretch**2) / 2 - driven

    @property
    def _incidence(self) -> Float[np.ndarray, "edges n"]:
        """+1 and -1 at the ends of each edge: products with it have faster second derivatives than indices."""
        ends, nodes = np.asarray(self.edges, int).reshape(-1, 2), np.arange(self.mass.size)
        return (ends[:, :1] == nodes).astype(float) - (ends[:, 1:] == nodes)

    def constrained(self) -> Self:
        """Springs that do not push apart."""
        return dataclasses.replace(self, coupling=jnp.maximum(self.coupling, 0))

    @classmethod
    def random(cls, n: int, n_inputs: int, *, frequency: float = 1.0, key: PRNGKeyArray, dtype: Any = None) -> Self:
        """Pendulums of mass 1, each joined to all others, with random weights, couplings and drives.

        Args:
            n: how many.
            n_inputs: how many inputs.
            frequency: w, radians per second; the pendulums have frequencies about it, and couplings and drives that
                move them as much.
            key: draws the parameters.
            dtype: of the parameters; JAX's default if None.
        """
        arguments.check_key("key", key)
        edges = tuple((i, j) for i in range(n) for j in range(i + 1, n))
        keys = jax.random.split(key, 3)
        dtype = jnp.zeros((), dtype).dtype
        unit, width = float(frequency) ** 2, 1 / max(n_inputs, 1) ** 0.5
        uniform = lambda key, shape, low, high: jax.random.uniform(key, shape, dtype, unit * low, unit * high)
        return cls(
            weight=uniform(keys[0], (n,), 0.5, 1.5),
            coupling=uniform(keys[1], (len(edges),), 0.0, 2 / n),
            drive=uniform(keys[2], (n, n_inputs), -width, width),
            mass=jnp.ones((n,), dtype),
            frequency=jnp.asarray(frequency, dtype),
            edges=edges,
        )
