"""The equilibrium of oscillators in closed form: one eigenvalue problem, and the outputs under a nudge."""

from __future__ import annotations

import abc
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin
from substrates.quantum.oscillator.modes import Compliance, GaussianState, Modes
from substrates.quantum.oscillator.thermal import SingleOscillator
from substrates.solvers.batching import in_turn
from substrates.solvers.generic import DescendThenPolish
from substrates.solvers.solver import Equilibrium, Solver, Status, System, judge, tolerance


class ClosedForm(Solver):
    """Settles oscillators by their normal modes.

    Free, <x> = K^-1 f and Cov_x = (hbar/2) M^-1/2 Omega^-1 coth(hbar Omega / 2T) M^-1/2. A nudge acts through the pull
    that it exerts on the outputs: on <x_o> it is a force and leaves the modes alone, so that a batch of inputs that are
    forces shares one eigenvalue problem; on <x_o^2> it is a stiffness. As the pull depends on the outputs, it is the
    root of pull - nudge.pull(outputs(pull)), found by Newton's method with the susceptibilities of the outputs: in one
    step for quadratic costs of means and for costs that are linear in the outputs. A pin is the pull that brings the
    outputs to their targets. A complex beta goes to the generic solver.

    Attributes:
        max_steps: the most steps of Newton's method.
    """

    max_steps: int = 50

    def __call__(
        self, substrate: Oscillators, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(start)):
            return DescendThenPolish()(substrate, x, nudge, start, key)
        response = (MeanResponse if substrate.reading == "mean" else MomentResponse)(substrate, x)
        pulls = len(substrate.outputs) * (1 if substrate.reading == "mean" else 2)
        free = settled = response.settled(jnp.zeros(pulls, response.force.dtype))
        steps, held = jnp.ones((), jnp.int32), jnp.asarray(True)
        if nudge is not None:
            settled, steps = self._pulled(response, settled, nudge)
        if isinstance(nudge, Nudge):
            held = _is_minimum(response, settled, nudge)
        modes, state = response.modes(settled), response.state(settled)
        found = judge(substrate, state, x, nudge, steps, tolerance(substrate, state, x, nudge))
        status = Status.where(response.blurred(settled), Status.ill_conditioned, found.status)
        indifferent = jnp.abs(modes.squared[0]) <= modes.threshold
        fallen = Status.where(indifferent, Status.zero_mode, Status.unstable)
        status = Status.where(response.stable(free) & held, status, fallen)
        known = jnp.all(jnp.isfinite(response.modes(free).squared)) & jnp.all(jnp.isfinite(response.force))
        status = Status.where(known, status, Status.not_finite)
        return Equilibrium(found.state, found.energy, found.residual, found.steps, status)

    def _pulled(self, response: Response, free: Settled, nudge: Nudge | Pin) -> tuple[Settled, Array]:
        def imbalance(settled: Settled) -> Array:
            if isinstance(nudge, Pin):
                return settled.output - nudge.target
            return settled.pull - nudge.pull(settled.output)

        def slope(settled: Settled) -> Array:
            susceptibility = response.susceptibility(settled)
            if isinstance(nudge, Pin):
                return susceptibility
            one = jnp.eye(len(susceptibility), dtype=susceptibility.dtype)
            return one + nudge.curvature(settled.output) @ susceptibility

        fine = 4 * jnp.finfo(free.output.dtype).eps

        def scale(settled: Settled) -> Array:
            """What each imbalance is small against; forces and stiffnesses have units of their own."""
            if isinstance(nudge, Pin):
                sizes = jnp.abs(nudge.target) + jnp.abs(free.output)
            else:
                # a pull that depends on outputs is rounded as they are
                bends = jnp.abs(nudge.curvature(settled.output)) @ jnp.abs(settled.output)
                sizes = jnp.abs(settled.pull) + jnp.abs(nudge.pull(settled.output)) + bends
            return jnp.where(sizes > 0, sizes, 1.0)

        size = lambda settled, scale: jnp.max(jnp.abs(imbalance(settled)) / scale)

        def running(carry):
            settled, moving, step = carry
            return moving & (step < self.max_steps) & (size(settled, scale(settled)) > fine)

        def advance(carry):
            settled, _, step = carry
            direction = -jnp.linalg.solve(slope(settled), imbalance(settled))
            units = scale(settled)
            at = lambda fraction: response.settled(settled.pull + fraction * direction)

            def too_long(trial):
                fraction, there = trial
                better = size(there, units) < (1 - 1e-4 * fraction) * size(settled, units)
                return ~(better & response.stable(there)) & (fraction > 1e-6)

            one = jnp.ones((), settled.pull.dtype)
            halve = lambda trial: (trial[0] / 2, at(trial[0] / 2))
            fraction, there = jax.lax.while_loop(too_long, halve, (one, at(one)))
            moving = fraction > 1e-6
            return jax.tree.map(lambda new, old: jnp.where(moving, new, old), there, settled), moving, step + 1

        first = (free, jnp.asarray(True), jnp.zeros((), jnp.int32))
        settled, _, steps = jax.lax.while_loop(running, advance, first)
        return settled, steps


def _is_minimum(response: Response, settled: Settled, nudge: Nudge) -> Bool[Array, ""]:
    """Whether the modes stay stable and X^-1 + beta C'' is positive definite, with X the susceptibility."""
    asked = response.settled(nudge.pull(settled.output))
    susceptibility = response.susceptibility(settled)
    root = jnp.sqrt(jnp.maximum(jnp.diagonal(susceptibility), 0))  # means and second moments have units of their own
    safe = jnp.where(root > 0, root, 1.0)
    sizes, vectors = in_turn(jnp.linalg.eigh)((susceptibility / safe[:, None]) / safe)
    half = root[:, None] * vectors * jnp.sqrt(jnp.maximum(sizes, 0))
    least = in_turn(jnp.linalg.eigvalsh)(half.T @ nudge.curvature(settled.output) @ half)[0]
    return response.stable(asked) & (least > -1)


class Oscillators(System, Protocol):
    """What the solver knows of a network; `QuantumOscillatorNetwork` tells what each is."""

    @property
    def n(self) -> int: ...
    @property
    def mass(self) -> Float[Array, "n"]: ...
    @property
    def outputs(self) -> tuple[int, ...]: ...
    @property
    def reading(self) -> str: ...
    @property
    def single(self) -> SingleOscillator: ...
    def stiffness_matrix(self, x: PyTree) -> Inexact[Array, "n n"]: ...
    def total_bias(self, x: PyTree) -> Inexact[Array, "n"]: ...


class Settled(NamedTuple):
    """Outputs in equilibrium under a pull, and what carries them where the pull changes it."""

    pull: Float[Array, "outputs"]
    output: Float[Array, "outputs"]
    modes: Modes | None = None
    held: Compliance | None = None
    mean: Float[Array, "n"] | None = None


class Response(abc.ABC):
    """How the outputs of oscillators answer to a pull on them."""

    def __init__(self, net: Oscillators, x: PyTree):
        self.net, self.nodes = net, np.asarray(net.outputs, int)
        self.force, self.stiffness = net.total_bias(x), net.stiffness_matrix(x)

    @abc.abstractmethod
    def settled(self, pull: Float[Array, "outputs"]) -> Settled:
        """The outputs under a pull."""

    @abc.abstractmethod
    def modes(self, settled: Settled) -> Modes:
        """The normal modes under a pull."""

    @abc.abstractmethod
    def held(self, settled: Settled) -> Compliance:
        """K^-1 under a pull."""

    @abc.abstractmethod
    def balance(self, settled: Settled) -> tuple[Array, Array, Array]:
        """(stiffness, force, means) under a pull."""

    @abc.abstractmethod
    def mean(self, settled: Settled) -> Float[Array, "n"]:
        """The means under a pull."""

    @abc.abstractmethod
    def susceptibility(self, settled: Settled) -> Float[Array, "outputs outputs"]:
        """doutput/dpull, symmetric and not negative."""

    def stable(self, settled: Settled) -> Bool[Array, ""]:
        """Whether the oscillators are held under a pull."""
        return self.held(settled).definite

    def blurred(self, settled: Settled) -> Bool[Array, ""]:
        """Whether rounding moves the state by more than it may."""
        blurred = self.held(settled).blurred(*self.balance(settled))
        return blurred if self.net.single.sharp else blurred | self.modes(settled).blurred

    def state(self, settled: Settled) -> GaussianState:
        """The whole state under a pull."""
        return GaussianState(self.mean(settled), self.modes(settled).factor(self.net.single))


class MeanResponse(Response):
    """Outputs <x_o>: a pull is a force on them, which leaves the modes alone."""

    def __init__(self, net: Oscillators, x: PyTree):
        Response.__init__(self, net, x)
        self.free_modes = in_turn(Modes.of)(self.stiffness, net.mass)
        self.free_held = in_turn(Compliance.of)(self.stiffness)
        self.free_mean = self.free_held.mean(self.stiffness, self.force)
        arms = jnp.zeros((net.n, len(self.nodes)), self.force.dtype).at[self.nodes, jnp.arange(len(self.nodes))].set(1)
        self.compliance = self.free_held(arms)[self.nodes]

    def settled(self, pull: Float[Array, "outputs"]) -> Settled:
        return Settled(pull, self.free_mean[self.nodes] + self.compliance @ pull)

    def modes(self, settled: Settled) -> Modes:
        return self.free_modes

    def held(self, settled: Settled) -> Compliance:
        return self.free_held

    def balance(self, settled: Settled) -> tuple[Array, Array, Array]:
        force = self.force.at[self.nodes].add(settled.pull)
        return self.stiffness, force, self.free_held.mean(self.stiffness, force)

    def mean(self, settled: Settled) -> Float[Array, "n"]:
        return self.balance(settled)[-1]

    def susceptibility(self, settled: Settled) -> Float[Array, "outputs outputs"]:
        return self.compliance


class MomentResponse(Response):
    """Outputs (<x_o>, <x_o^2>): a pull (u, v) is a force f_o += u and a stiffness K_oo -= 2v."""

    def settled(self, pull: Float[Array, "outputs"]) -> Settled:
        stiffness, force = self._under(pull)
        modes, held = in_turn(Modes.of)(stiffness, self.net.mass), in_turn(Compliance.of)(stiffness)
        mean = held.mean(stiffness, force)
        shown = mean[self.nodes]
        second = shown**2
        if not self.net.single.sharp:
            second += modes.shape[self.nodes] ** 2 @ self.net.single.variance(modes.frequency)
        return Settled(pull, jnp.concatenate([shown, second]), modes, held, mean)

    def modes(self, settled: Settled) -> Modes:
        assert settled.modes is not None
        return settled.modes

    def held(self, settled: Settled) -> Compliance:
        assert settled.held is not None
        return settled.held

    def balance(self, settled: Settled) -> tuple[Array, Array, Array]:
        return *self._under(settled.pull), self.mean(settled)

    def mean(self, settled: Settled) -> Float[Array, "n"]:
        assert settled.mean is not None
        return settled.mean

    def susceptibility(self, settled: Settled) -> Float[Array, "outputs outputs"]:
        mean = settled.output[: len(self.nodes)]
        compliance = self.held(settled)(jnp.eye(self.net.n, dtype=mean.dtype)[:, self.nodes])[self.nodes]
        between = 2 * compliance * mean
        softening = self.modes(settled).softening(self.nodes, self.net.single)
        corner = 4 * mean[:, None] * compliance * mean + 2 * softening
        return jnp.block([[compliance, between], [between.T, corner]])

    def _under(self, pull: Float[Array, "outputs"]) -> tuple[Array, Array]:
        """(stiffness, force) under a pull."""
        force, count = self.force.at[self.nodes].add(pull[: len(self.nodes)]), len(self.nodes)
        return self.stiffness.at[self.nodes, self.nodes].add(-2 * pull[count:]), force
