"""How the outputs of oscillators answer to pulls: forces on means, stiffnesses on second moments."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from substrates.quantum.oscillator.modes import Compliance, GaussianState, Modes
from substrates.solvers.batching import in_turn


class Settled(NamedTuple):
    """Outputs in equilibrium under a pull, and what carries them where the pull changes it."""

    pull: Float[Array, "outputs"]
    output: Float[Array, "outputs"]
    modes: Modes | None = None
    held: Compliance | None = None
    mean: Float[Array, "n"] | None = None


class MeanResponse:
    """Outputs <x_o>: a pull is a force on them, which leaves the modes alone."""

    def __init__(self, net: Any, x: PyTree):
        self.net, self.nodes = net, np.asarray(net.outputs, int)
        self.force, self.stiffness = net.total_bias(x), net.stiffness_matrix(x)
        self.free_modes = in_turn(Modes.of)(self.stiffness, net.mass)
        self.free_held = in_turn(Compliance.of)(self.stiffness)
        self.free_mean = self.free_held.mean(self.stiffness, self.force)
        arms = jnp.zeros((net.n, len(self.nodes)), self.force.dtype).at[self.nodes, jnp.arange(len(self.nodes))].set(1)
        self.compliance = self.free_held(arms)[self.nodes]

    def settled(self, pull: Float[Array, "outputs"]) -> Settled:
        """The outputs under a pull."""
        return Settled(pull, self.free_mean[self.nodes] + self.compliance @ pull)

    def modes(self, settled: Settled) -> Modes:
        """The normal modes under a pull."""
        return self.free_modes

    def stable(self, settled: Settled) -> Bool[Array, ""]:
        """Whether the oscillators are held under a pull."""
        return self.free_held.definite

    def blurred(self, settled: Settled) -> Bool[Array, ""]:
        """Whether rounding moves the state by more than it may."""
        blurred = self.free_held.blurred(*self._means(settled))
        return blurred if self.net.single.sharp else blurred | self.free_modes.blurred

    def susceptibility(self, settled: Settled) -> Float[Array, "outputs outputs"]:
        """doutput/dpull, symmetric and not negative."""
        return self.compliance

    def state(self, settled: Settled) -> GaussianState:
        """The whole state under a pull."""
        return GaussianState(self._means(settled)[-1], self.free_modes.factor(self.net.single))

    def _means(self, settled: Settled) -> tuple[Array, Array, Array]:
        """(stiffness, force, means)."""
        force = self.force.at[self.nodes].add(settled.pull)
        return self.stiffness, force, self.free_held.mean(self.stiffness, force)


class MomentResponse:
    """Outputs (<x_o>, <x_o^2>): a pull (u, v) is a force f_o += u and a stiffness K_oo -= 2v."""

    def __init__(self, net: Any, x: PyTree):
        self.net, self.nodes = net, np.asarray(net.outputs, int)
        self.force, self.stiffness = net.total_bias(x), net.stiffness_matrix(x)

    def settled(self, pull: Float[Array, "outputs"]) -> Settled:
        """The outputs under a pull."""
        stiffness = self._stiffness(pull)
        modes, held = in_turn(Modes.of)(stiffness, self.net.mass), in_turn(Compliance.of)(stiffness)
        mean = held.mean(stiffness, self._force(pull))
        shown = mean[self.nodes]
        second = shown**2
        if not self.net.single.sharp:
            second += self.shape_squared(modes) @ self.net.single.variance(modes.frequency)
        return Settled(pull, jnp.concatenate([shown, second]), modes, held, mean)

    def modes(self, settled: Settled) -> Modes:
        """The normal modes under a pull."""
        assert settled.modes is not None
        return settled.modes

    def stable(self, settled: Settled) -> Bool[Array, ""]:
        """Whether the oscillators are held under a pull."""
        assert settled.held is not None
        return settled.held.definite

    def blurred(self, settled: Settled) -> Bool[Array, ""]:
        """Whether rounding moves the state by more than it may."""
        assert settled.held is not None
        assert settled.mean is not None
        blurred = settled.held.blurred(self._stiffness(settled.pull), self._force(settled.pull), settled.mean)
        return blurred if self.net.single.sharp else blurred | self.modes(settled).blurred

    def susceptibility(self, settled: Settled) -> Float[Array, "outputs outputs"]:
        """doutput/dpull, symmetric and not negative."""
        modes, mean = self.modes(settled), settled.output[: len(self.nodes)]
        assert settled.held is not None
        compliance = settled.held(jnp.eye(self.net.n, dtype=mean.dtype)[:, self.nodes])[self.nodes]
        between = 2 * compliance * mean
        corner = 4 * mean[:, None] * compliance * mean + 2 * modes.softening(self.nodes, self.net.single)
        return jnp.block([[compliance, between], [between.T, corner]])

    def state(self, settled: Settled) -> GaussianState:
        """The whole state under a pull."""
        assert settled.mean is not None
        return GaussianState(settled.mean, self.modes(settled).factor(self.net.single))

    def shape_squared(self, modes: Modes) -> Float[Array, "outputs modes"]:
        """How much of each mode's variance each output shows."""
        return modes.shape[self.nodes] ** 2

    def _stiffness(self, pull: Float[Array, "outputs"]) -> Float[Array, "n n"]:
        return self.stiffness.at[self.nodes, self.nodes].add(-2 * pull[len(self.nodes) :])

    def _force(self, pull: Float[Array, "outputs"]) -> Float[Array, "n"]:
        return self.force.at[self.nodes].add(pull[: len(self.nodes)])


def response_of(net: Any, x: PyTree) -> MeanResponse | MomentResponse:
    """How the outputs of a network answer at an input."""
    return MeanResponse(net, x) if net.reading == "mean" else MomentResponse(net, x)
