"""Phases as angles and as arrows, what acts on each of them alone, and what solvers ask of networks of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, PRNGKeyArray, PyTree

from substrates.classical.oscillator.whole import Whole
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import System

Readout = Literal["phase", "sine"]

GOLDEN = (5**0.5 - 1) / 2


class Oscillators(System, Protocol):
    """What the solvers ask of a network, beside the contract; trees are like its state."""

    @property
    def readout(self) -> Readout: ...

    @property
    def second_harmonic(self) -> PyTree: ...

    def output_phases(self, state: PyTree) -> Inexact[Array, "outputs"]: ...

    def with_outputs(self, state: PyTree, phases: Inexact[Array, "outputs"]) -> PyTree:
        """The state with other phases at the outputs."""
        ...

    def steepest(self) -> Float[Array, ""]:
        """A bound on the curvature of the energy anywhere."""
        ...

    def holding(self) -> PyTree:
        """sum_j |W_ij| + |h_i| + |K_i|, the largest torque that can turn each phase back."""
        ...

    def neighbours(self, values: PyTree) -> PyTree:
        """sum_j |W_ij| v_j over the neighbours j that settle, for values v of them."""
        ...

    def adrift(self, nudge: Nudge | Pin | None) -> Bool[Array, "phases"] | None:
        """One phase, of the flattened state, of each part that nothing keeps from turning as a whole; None if all are
        held for certain. A nudge holds the parts that it acts on.
        """
        ...

    def whole(self, x: Float[Array, "inputs"]) -> Whole:
        """The network at an input as one matrix."""
        ...


class LocalTerms(NamedTuple):
    """What acts on single phases: -sum_i h_i cos(phi_i - psi_i) - 1/2 sum_i K_i cos(2 phi_i) - sum_i omega_i phi_i.

    Attributes:
        field, field_phase: h and psi, trees like the phases.
        second_harmonic, frequency: K and omega, or None.
    """

    field: PyTree
    field_phase: PyTree
    second_harmonic: PyTree
    frequency: PyTree

    def energy(self, phase: PyTree) -> Inexact[Array, ""]:
        """The sum over the phases of one example."""
        single = lambda phi, h, psi: -jnp.sum(h * jnp.cos(phi - psi))
        energy = jax.tree.map(single, phase, self.field, self.field_phase)
        if self.second_harmonic is not None:
            doubled = lambda e, phi, k: e - 0.5 * jnp.sum(k * jnp.cos(2 * phi))
            energy = jax.tree.map(doubled, energy, phase, self.second_harmonic)
        if self.frequency is not None:
            energy = jax.tree.map(lambda e, phi, omega: e - jnp.sum(omega * phi), energy, phase, self.frequency)
        return jax.tree.reduce(jnp.add, energy)

    def torque(self, phase: PyTree) -> PyTree:
        """-d(energy)/dphi = -h sin(phi - psi) - K sin 2 phi + omega."""
        torque = jax.tree.map(lambda phi, h, psi: -h * jnp.sin(phi - psi), phase, self.field, self.field_phase)
        if self.second_harmonic is not None:
            doubled = lambda t, phi, k: t - k * jnp.sin(2 * phi)
            torque = jax.tree.map(doubled, torque, phase, self.second_harmonic)
        return torque if self.frequency is None else jax.tree.map(jnp.add, torque, self.frequency)

    def measure(self, phase: PyTree) -> LocalTerms:
        """The derivatives of the energy by h, psi, K and omega, averaged over the leading axis."""
        apart = jax.tree.map(lambda phi, psi: phi - psi[None], phase, self.field_phase)
        return LocalTerms(
            _mean(lambda a: -jnp.cos(a), apart),
            jax.tree.map(lambda h, sine: -h * sine, self.field, _mean(jnp.sin, apart)),
            None if self.second_harmonic is None else _mean(lambda phi: -0.5 * jnp.cos(2 * phi), phase),
            None if self.frequency is None else _mean(jnp.negative, phase),
        )

    def contrast(self, middle: PyTree, change: PyTree) -> LocalTerms:
        """`measure` at middle + change/2 minus that at middle - change/2, without cancellation."""
        apart = jax.tree.map(lambda phi, psi: phi - psi[None], middle, self.field_phase)
        half = jax.tree.map(lambda d: 2 * jnp.sin(d / 2), change)
        doubled = lambda m, d: jnp.sin(2 * m) * jnp.sin(d)
        return LocalTerms(
            _mean(lambda a, d: jnp.sin(a) * d, apart, half),
            jax.tree.map(lambda h, along: -h * along, self.field, _mean(lambda a, d: jnp.cos(a) * d, apart, half)),
            None if self.second_harmonic is None else _mean(doubled, middle, change),
            None if self.frequency is None else _mean(jnp.negative, change),
        )


def _mean(of: Callable[..., Array], *trees: PyTree) -> PyTree:
    """Of each leaf the mean over its leading axis."""
    return jax.tree.map(lambda *leaves: jnp.mean(of(*leaves), axis=0), *trees)


def arrows(phase: Inexact[Array, "*batch nodes"]) -> Inexact[Array, "*batch 2 nodes"]:
    """e^(i phi) as pairs (cos phi, sin phi) of reals."""
    return jnp.stack([jnp.cos(phase), jnp.sin(phase)], axis=-2)


def angle_between(new: Inexact[Array, "2 nodes"], old: Inexact[Array, "2 nodes"]) -> Inexact[Array, "nodes"]:
    """The angle in (-pi, pi] by which each arrow has turned."""
    cross = new[1] * old[0] - new[0] * old[1]
    return jnp.arctan2(cross, new[0] * old[0] + new[1] * old[1])


def wrapped(angle: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    """The same angle in [-pi, pi]."""
    return angle - 2 * jnp.pi * jnp.round(angle / (2 * jnp.pi))


def spread_phases(n: int, dtype: Any) -> Float[Array, "n"]:
    """Phases within a quarter radian of 0, no two alike: near the aligned state, and on no axis of symmetry."""
    return jnp.asarray(0.5 * ((np.arange(1, n + 1) * GOLDEN) % 1.0 - 0.5), dtype)


def random_phases(key: PRNGKeyArray, like: PyTree) -> PyTree:
    """Phases uniform in [-pi, pi), a tree like another."""
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    draw = lambda k, leaf: jax.random.uniform(k, leaf.shape, leaf.dtype, -jnp.pi, jnp.pi)
    return structure.unflatten([draw(k, leaf) for k, leaf in zip(keys, leaves, strict=True)])
