"""What oscillators on graphs and in layers share: the torques, their sizes, and what is measured."""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, PyTree

from substrates.classical.oscillator.flow import trajectory
from substrates.classical.oscillator.phase_descent import PhaseDescent
from substrates.classical.oscillator.phases import LocalTerms, Readout, arrows, random_phases
from substrates.classical.oscillator.spectral import spectral_phases
from substrates.classical.oscillator.whole import Whole
from substrates.nudge import Nudge, Pin
from substrates.substrate import Substrate, parameter_dtype, split_parameters


class CoupledPhases(Substrate):
    """Phases that descend E = -sum_pairs W_ij cos(phi_i - phi_j) + (local energies, see `LocalTerms`).

    Trees are like the state, or like `field`, where clamped oscillators have fields, too.
    """

    solver = PhaseDescent()

    coupling: eqx.AbstractVar[PyTree]
    field: eqx.AbstractVar[PyTree]
    field_phase: eqx.AbstractVar[PyTree]
    second_harmonic: eqx.AbstractVar[PyTree]
    frequency: eqx.AbstractVar[PyTree]
    readout: eqx.AbstractVar[Readout]
    random_starts: eqx.AbstractVar[bool]
    spectral_starts: eqx.AbstractVar[bool]

    # what each kind says of itself

    @abc.abstractmethod
    def whole(self, x: Float[Array, "inputs"]) -> Whole:
        """The network at an input as one matrix."""

    @abc.abstractmethod
    def phases(self, state: PyTree, x: Inexact[Array, "*batch inputs"]) -> PyTree:
        """The phases of all oscillators that have fields, radians, a tree like `field`."""

    @abc.abstractmethod
    def settling(self, values: PyTree) -> PyTree:
        """Of a tree like `field` the part that settles, a tree like the state."""

    @abc.abstractmethod
    def everywhere(self, values: PyTree) -> PyTree:
        """A tree like the state as one like `field`, zero where phases are clamped."""

    @abc.abstractmethod
    def felt(self, z: PyTree, x: Float[Array, "inputs"]) -> PyTree:
        """sum_j W_ij z_j, for the arrows z = e^(i phi) of the `phases` of one example."""

    @abc.abstractmethod
    def with_strengths(self, sizes: PyTree) -> PyTree:
        """sum_j |W_ij| added to the sizes of all oscillators, a tree like `field`."""

    @abc.abstractmethod
    def mean_cosines(self, phase: PyTree, xs: Float[Array, "batch inputs"]) -> PyTree:
        """cos(phi_i - phi_j), averaged over a batch of `phases`, a tree like `coupling`."""

    @abc.abstractmethod
    def cosine_contrast(self, middle: PyTree, change: PyTree, xs: Float[Array, "batch inputs"]) -> PyTree:
        """`mean_cosines` at middle - change/2 minus that at middle + change/2, without cancellation.

        With A = phi_i - phi_j, the means m of the two phases and their differences d,
        cos A(-) - cos A(+) = 2 sin(m_i - m_j) sin((d_i - d_j)/2), where both sines split into products over i and j.
        """

    @abc.abstractmethod
    def output_phases(self, state: PyTree) -> Inexact[Array, "outputs"]:
        """The phases of the outputs, radians."""

    # what all kinds share

    @property
    def local_terms(self) -> LocalTerms:
        """h, psi, K and omega."""
        return LocalTerms(self.field, self.field_phase, self.second_harmonic, self.frequency)

    def read(self, state: PyTree, x: Float[Array, "inputs"]) -> Inexact[Array, "outputs"]:
        phase = self.output_phases(state)
        return jnp.sin(phase) if self.readout == "sine" else phase

    def force(self, state: PyTree, x: Float[Array, "inputs"]) -> PyTree:
        """The torques sum_j W_ij sin(phi_j - phi_i) + local torques, by products with W."""
        phase = self.phases(state, x)
        z = jax.tree.map(arrows, phase)
        across = lambda z, felt, torque: z[0] * felt[1] - z[1] * felt[0] + torque
        return self.settling(jax.tree.map(across, z, self.felt(z, x), self.local_terms.torque(phase)))

    def force_scale(self, state: PyTree, x: Float[Array, "inputs"]) -> PyTree:
        """The largest torque that can act on each oscillator, sum_j |W_ij| + |h_i| + |K_i| + |omega_i|."""
        return self._largest_torques(self.second_harmonic, self.frequency)

    def holding(self) -> PyTree:
        return self._largest_torques(self.second_harmonic)

    def _largest_torques(self, *terms: PyTree) -> PyTree:
        total = self.with_strengths(jax.tree.map(jnp.abs, self.field))
        for term in terms:
            total = total if term is None else jax.tree.map(lambda t, v: t + jnp.abs(v), total, term)
        return self.settling(total)

    def steepest(self) -> Float[Array, ""]:
        """A bound on the curvature of the energy anywhere, 2 max_i (sum_j |W_ij| + |h_i| + 2 |K_i|)."""
        total = self.with_strengths(jax.tree.map(jnp.abs, self.field))
        if self.second_harmonic is not None:
            total = jax.tree.map(lambda t, k: t + 2 * jnp.abs(k), total, self.second_harmonic)
        return 2 * functools.reduce(jnp.maximum, map(jnp.max, jax.tree.leaves(total)))

    def measure(self, states: PyTree, xs: Float[Array, "batch inputs"], nudges: Nudge | Pin | None = None) -> Self:
        """dE/dW = -cos(phi_i - phi_j), dE/dh = -cos(phi - psi) and so on, averaged over the batch."""
        phase = self.phases(states, xs)
        coupling = jax.tree.map(jnp.negative, self.mean_cosines(phase, xs))
        return self._observables(coupling, self.local_terms.measure(phase))

    def contrast(
        self,
        plus: PyTree,
        minus: PyTree,
        xs: Float[Array, "batch inputs"],
        nudges_plus: Nudge | Pin | None = None,
        nudges_minus: Nudge | Pin | None = None,
    ) -> Self:
        """measure(plus) - measure(minus) without cancellation, by products; see `cosine_contrast`."""
        middle = self.phases(jax.tree.map(lambda p, m: (p + m) / 2, plus, minus), xs)
        change = self.everywhere(jax.tree.map(jnp.subtract, plus, minus))
        return self._observables(self.cosine_contrast(middle, change, xs), self.local_terms.contrast(middle, change))

    def _observables(self, coupling: PyTree, terms: LocalTerms) -> Self:
        """The tree of the parameters with these numbers in it, and none for constants."""
        return split_parameters(dataclasses.replace(self, coupling=coupling, **terms._asdict()))[0]

    def start(self, x: Float[Array, "inputs"], key: PRNGKeyArray | None = None) -> PyTree:
        first = Substrate.start(self, x)
        if self.spectral_starts:
            return ravel_pytree(first)[1](spectral_phases(self.whole(x)))
        if not self.random_starts:
            return first
        if key is None:
            raise ValueError("key: a network with random_starts draws its initial phases from a key; give one")
        return random_phases(key, first)

    def check_input(self, x: Any) -> None:
        """Raises ValueError unless x has one real phase (or feature) per input and, where it is known, is finite."""
        super().check_input(x)
        if not isinstance(x, Tracer) and not np.all(np.isfinite(np.asarray(x))):
            raise ValueError("x: wanted finite inputs, got NaN or infinity")

    def hessian(self, state: PyTree, x: Float[Array, "inputs"], nudge: Nudge | None = None) -> Float[Array, "n n"]:
        """d2F/dphi2, the linear stability of a state: a minimum has no negative eigenvalue."""
        flat, unravel = ravel_pytree(state)
        torque = lambda y: ravel_pytree(self.total_force(unravel(y), x, nudge))[0]
        return -jax.jacfwd(torque)(flat)

    def evolve(
        self,
        x: Float[Array, "inputs"],
        start: PyTree,
        *,
        duration: float,
        steps: int,
        nudge: Nudge | None = None,
    ) -> PyTree:
        """Kuramoto's dynamics dphi/dt = -dF/dphi from a start, by the fourth-order Runge-Kutta method.

        Args:
            x: the clamped input of one example.
            start: phases, a tree like the state.
            duration: how long, in the unit of time of the couplings.
            steps: of equal length; `duration / steps` times `steepest()` should stay below 1.
            nudge: what acts on the outputs, or None.

        Returns the phases at all steps + 1 times, a tree like the state with a leading axis. Drifting phases wind.
        """
        self.check_input(x)
        if not (np.isfinite(duration) and duration > 0 and steps >= 1):
            raise ValueError(f"duration, steps: wanted a positive time and at least one step, got {duration}, {steps}")
        return trajectory(lambda state: self.total_force(state, x, nudge), start, duration / steps, steps)

    def drawn(self, state: PyTree = None, x: Any = None) -> tuple[PyTree, Array] | None:
        """The state and the input of a picture, settled where no state is given; None without an input."""
        x = np.zeros(0) if x is None and self.input_size == 0 else x
        if x is None:
            return None
        x = jnp.asarray(x, parameter_dtype(self))
        return self.relax(x).state if state is None else state, x
