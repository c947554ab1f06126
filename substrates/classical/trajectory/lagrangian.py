"""Lagrangians: all that a user writes of a system whose paths learn."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, Self

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
    """

    mass: eqx.AbstractVar[Float[Array, " n"]]
    """m_i of each coordinate, kilograms (moments of inertia, for angles); a constant, or trainable."""

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


class Pendulum(MechanicalLagrangian):
    """A pendulum driven by a torque: V = -m g l cos q - x cos(w t) q, with one input x, newton metres.

    Attributes:
        weight: m g l, joules, shape (1,).
        mass: the moment of inertia m l^2, shape (1,), a constant.
        frequency: w, radians per second, a constant.
    """

    weight: Float[Array, " 1"]
    mass: Float[Array, " 1"] = fixed()
    frequency: Float[Array, ""] = fixed()

    def potential(self, position: Inexact[Array, " 1"], time: Any, x: Inexact[Array, " 1"]) -> Inexact[Array, ""]:
        return -jnp.sum(self.weight * jnp.cos(position) + x * jnp.cos(self.frequency * time) * position)


class CoupledOscillators(MechanicalLagrangian):
    """Masses that springs hold in place and join, driven in time with w by forces that the inputs make:

        V = sum_i (1/2 k_i q_i^2 + 1/4 h_i q_i^4) + sum_edges 1/2 c_e (q_i - q_j)^2 - cos(w t) sum_i (D x)_i q_i.

    The hardening h makes what they show more than a linear function of what drives them.

    Attributes:
        stiffness, hardening: k, newtons per metre, and h of each mass, shape (n,), at least 0.
        coupling: c of each edge, newtons per metre, shape (edges,), at least 0.
        drive: D, newtons per input, shape (n, inputs).
        mass: m, kilograms, shape (n,), constants.
        frequency: w, radians per second, a constant.
        edges: pairs of masses.
    """

    stiffness: Float[Array, " n"]
    hardening: Float[Array, " n"]
    coupling: Float[Array, " edges"]
    drive: Float[Array, "n inputs"]
    mass: Float[Array, " n"] = fixed()
    frequency: Float[Array, ""] = fixed()
    edges: tuple[tuple[int, int], ...] = eqx.field(static=True)

    def __check_init__(self):
        n = self.mass.size
        for name, wanted in (("stiffness", n), ("hardening", n), ("coupling", len(self.edges))):
            if jnp.shape(getattr(self, name)) != (wanted,):
                raise ValueError(f"{name}: wanted shape ({wanted},), got {jnp.shape(getattr(self, name))}")
        if self.drive.ndim != 2 or self.drive.shape[0] != n:
            raise ValueError(f"drive: wanted shape ({n}, inputs), one row for each mass, got {self.drive.shape}")
        wrong = [edge for edge in self.edges if not (0 <= edge[0] < n and 0 <= edge[1] < n and edge[0] != edge[1])]
        if wrong:
            raise ValueError(f"edges: wanted pairs of different masses from 0 to {n - 1}, got {wrong[:5]}")

    def potential(self, position: Inexact[Array, " n"], time: Any, x: Inexact[Array, " inputs"]) -> Inexact[Array, ""]:
        held = jnp.sum(self.stiffness * position**2) / 2 + jnp.sum(self.hardening * position**4) / 4
        stretch = self._incidence.astype(position.dtype) @ position
        driven = jnp.cos(self.frequency * time) * jnp.sum((self.drive @ x) * position)
        return held + jnp.sum(self.coupling * stretch**2) / 2 - driven

    @property
    def _incidence(self) -> Float[np.ndarray, "edges n"]:
        """+1 and -1 at the ends of each edge: products with it compile to faster second derivatives than indices."""
        ends = np.asarray(self.edges, int).reshape(-1, 2)
        nodes = np.arange(self.mass.size)
        return (ends[:, :1] == nodes).astype(float) - (ends[:, 1:] == nodes)

    def constrained(self) -> Self:
        """Stiffnesses, hardenings and couplings that are not negative."""
        above = lambda values: jnp.maximum(values, 0)
        return dataclasses.replace(
            self,
            stiffness=above(self.stiffness),
            hardening=above(self.hardening),
            coupling=above(self.coupling),
        )

    @classmethod
    def random(cls, n: int, inputs: int, *, frequency: float, key: PRNGKeyArray, dtype: Any = None) -> Self:
        """Masses of 1, each joined to all others, with random couplings and drives.

        Args:
            n: how many masses.
            inputs: how many inputs.
            frequency: w, radians per second; stiffnesses are spread about that of resonance, m w^2.
            key: draws the parameters.
            dtype: of the parameters; JAX's default if None.
        """
        arguments.check_key("key", key)
        edges = tuple((i, j) for i in range(n) for j in range(i + 1, n))
        keys = jax.random.split(key, 3)
        dtype = jnp.zeros((), dtype).dtype
        uniform = lambda key, shape, low, high: jax.random.uniform(key, shape, dtype, low, high)
        width = 1 / max(inputs, 1) ** 0.5
        return cls(
            stiffness=frequency**2 * uniform(keys[0], (n,), 1.5, 2.5),
            hardening=jnp.full((n,), frequency**2, dtype),
            coupling=frequency**2 * uniform(keys[1], (len(edges),), 0.0, 2 / n),
            drive=frequency**2 * uniform(keys[2], (n, inputs), -width, width),
            mass=jnp.ones((n,), dtype),
            frequency=jnp.asarray(frequency, dtype),
            edges=edges,
        )
