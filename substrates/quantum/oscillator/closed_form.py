"""The equilibrium of oscillators in closed form: one eigenvalue problem, and the outputs under a nudge."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin
from substrates.quantum.oscillator.modes import Compliance, GaussianState, Modes, balanced, diagonal_of
from substrates.quantum.oscillator.thermal import SingleOscillator
from substrates.solvers.batching import in_turn, spectra_in_turn
from substrates.solvers.generic import DescendThenPolish
from substrates.solvers.solver import (
    ROUNDINGS,
    Equilibrium,
    Solver,
    Status,
    System,
    default_tolerance,
    left_over,
    tolerance,
)
from substrates.wiring import taken


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
        pull = jnp.zeros(len(substrate.outputs) * (1 if substrate.reading == "mean" else 2), response.force.dtype)
        held, curvature, steps = jnp.asarray(True), None, jnp.ones((), jnp.int32)
        if nudge is None:
            settled = response.settled(pull)
            known, stable = response.known(settled), response.stable(settled)
        else:
            place, known, stable, steps = self._pulled(response, pull, nudge)
            settled, curvature = place.settled, place.curvature
            if isinstance(nudge, Nudge):
                held = _is_minimum(response, place)
        modes, balance = response.modes(settled), response.balance(settled)
        state = GaussianState(balance[2], modes.factor(substrate.single))
        energy = substrate.energy_under(settled.pull, settled.output, modes, balance, x)
        energy, residual, limit = _judged(response, state, energy, x, nudge, curvature)
        status = Status.where(residual <= limit, Status.converged, Status.out_of_steps)
        status = Status.where(jnp.isfinite(residual), status, Status.not_finite)
        blurred = response.held(settled).blurred(*balance)
        blurred = blurred if substrate.single.sharp else blurred | modes.blurred
        status = Status.where(blurred, Status.ill_conditioned, status)
        indifferent = jnp.abs(modes.squared[0]) <= modes.threshold
        fallen = Status.where(indifferent, Status.zero_mode, Status.unstable)
        status = Status.where(stable & held, status, fallen)
        known &= jnp.all(jnp.isfinite(response.force))
        return Equilibrium(state, energy, residual, steps, Status.where(known, status, Status.not_finite))

    def _pulled(
        self, response: Response, pull: Float[Array, "outputs"], nudge: Nudge | Pin
    ) -> tuple[Place, Bool[Array, ""], Bool[Array, ""], Int[Array, ""]]:
        """(where the outputs settle, whether the free modes are finite, whether they are stable, steps).

        Every round looks at one place: the free one first, then where Newton's step leads, or half as far, and so on.
        """
        select, one = jax.lax.select, np.eye(pull.size, dtype=pull.dtype)
        fine = 4 * float(jnp.finfo(pull.dtype).eps)
        about = response.settled(pull).output if isinstance(nudge, Pin) else pull

        def look(settled: Settled) -> Place:
            susceptibility = response.susceptibility(settled)
            if isinstance(nudge, Pin):
                missing, curvature, slope = settled.output - nudge.target, 0 * susceptibility, susceptibility
                sizes = jnp.abs(nudge.target) + jnp.abs(about)
            else:
                asked, curvature = nudge.pull(settled.output), nudge.curvature(settled.output)
                missing, slope = settled.pull - asked, one + curvature @ susceptibility
                # a pull that depends on outputs is rounded as they are
                sizes = jnp.abs(settled.pull) + jnp.abs(asked) + jnp.abs(curvature) @ jnp.abs(settled.output)
            # what each is small against; forces and stiffnesses have units of their own
            units = jnp.where(sizes > 0, sizes, 1.0)
            return Place(settled, missing, units, -jnp.linalg.solve(slope, missing), susceptibility, curvature)

        def going(carry):
            place, step, fraction, *_ = carry
            return (step < self.max_steps) & (fraction > 1e-6) & ((step < 0) | (place.off(place.units) > fine))

        def advance(carry):
            here, step, fraction, known, stable = carry
            first = step < 0
            there = look(response.settled(here.settled.pull + fraction * here.direction))
            holds = response.stable(there.settled)
            better = there.off(here.units) < (1 - 1e-4 * fraction) * here.off(here.units)
            accepted = first | (better & holds)
            here = jax.tree.map(lambda new, old: select(accepted, new, old), there, here)
            known, stable = select(first, response.known(here.settled), known), select(first, holds, stable)
            fraction = select(accepted, jnp.ones_like(fraction), fraction / 2)
            return here, step + accepted.astype(step.dtype), fraction, known, stable

        nothing, no = jnp.zeros_like(one), jnp.asarray(False)
        nowhere = Place(response.blank(pull), pull, pull + 1, pull, nothing, nothing)
        first = (nowhere, jnp.full((), -1, jnp.int32), jnp.ones((), pull.dtype), no, no)
        place, step, _, known, stable = jax.lax.while_loop(going, advance, first)
        return place, known, stable, jnp.maximum(step, 1)


class Place(NamedTuple):
    """Outputs that settled under a pull, and how far the pull is from the nudge's.

    Attributes:
        settled: the outputs, and what carries them.
        missing: the pull less what the nudge asks for there; of a pin the outputs less their targets.
        units: what each part of it is small against.
        direction: Newton's step of the pull.
        susceptibility: of the outputs to the pull.
        curvature: of the nudge.
    """

    settled: Settled
    missing: Float[Array, "outputs"]
    units: Float[Array, "outputs"]
    direction: Float[Array, "outputs"]
    susceptibility: Float[Array, "outputs outputs"]
    curvature: Float[Array, "outputs outputs"]

    def off(self, units: Float[Array, "outputs"]) -> Float[Array, ""]:
        """The largest part that is missing."""
        return jnp.max(jnp.abs(self.missing) / units)


def _is_minimum(response: Response, place: Place) -> Bool[Array, ""]:
    """Whether the modes stay stable and X^-1 + beta C'' is positive definite, with X the susceptibility."""
    # means and second moments have units of their own
    root = jnp.sqrt(jnp.maximum(diagonal_of(place.susceptibility), 0))
    safe = jnp.where(root > 0, root, 1.0)
    sizes, vectors = spectra_in_turn(jnp.linalg.eigh)((place.susceptibility / safe[:, None]) / safe[None])
    half = root[:, None] * vectors * jnp.sqrt(jnp.maximum(sizes, 0))[None]
    least = spectra_in_turn(jnp.linalg.eigvalsh)(half.T @ place.curvature @ half)[0]
    return response.holds(place.settled.pull - place.missing) & (least > -1)


def _judged(
    response: Response,
    state: GaussianState,
    energy: Float[Array, ""],
    x: PyTree,
    nudge: Nudge | Pin | None,
    curvature: Any,
) -> tuple[Array, Array, Array]:
    """(total energy, residual, tolerance) at a state with an energy, as the contract defines them."""
    net, under = response.net, (state, response.stiffness, response.force)
    if isinstance(nudge, Pin):
        return energy, net.residual(state, x, nudge), tolerance(net, state, x, nudge)
    force, scale = jnp.concatenate(net.force_under(*under)), jnp.concatenate(net.scale_under(*under))
    limit = jnp.asarray(default_tolerance(force.dtype), force.dtype)
    if nudge is not None:
        output, transpose = jax.vjp(lambda state: net.read(state, x), state)
        pull = nudge.pull(output)
        size = jnp.abs(pull) + jnp.abs(curvature) @ jnp.abs(output)
        pushed, brought = (jnp.concatenate(transpose(part)[0]) for part in (pull, size))
        nudged = jnp.maximum(limit * left_over(pushed, scale), ROUNDINGS * float(jnp.finfo(force.dtype).eps))
        limit = jax.lax.select(nudge.beta == 0, limit, nudged)
        energy, force, scale = energy + nudge.energy(output), force + pushed, scale + jnp.abs(brought)
    return energy, left_over(force, scale), limit


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
    def energy_under(self, pull: Array, output: Array, modes: Modes, balance: tuple, x: PyTree) -> Array: ...
    def force_under(self, state: GaussianState, stiffness: Array, bias: Array) -> GaussianState: ...
    def scale_under(self, state: GaussianState, stiffness: Array, bias: Array) -> GaussianState: ...


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
        self.rows: Any = np.eye(net.n, dtype=self.force.dtype)[self.nodes]

    @abc.abstractmethod
    def blank(self, pull: Float[Array, "outputs"]) -> Settled:
        """What `settled` returns, with nothing in it."""

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
    def susceptibility(self, settled: Settled) -> Float[Array, "outputs outputs"]:
        """doutput/dpull, symmetric and not negative."""

    @abc.abstractmethod
    def holds(self, pull: Float[Array, "outputs"]) -> Bool[Array, ""]:
        """Whether the oscillators are held under a pull."""

    def stable(self, settled: Settled) -> Bool[Array, ""]:
        """Whether the oscillators are held."""
        return self.held(settled).definite

    def known(self, settled: Settled) -> Bool[Array, ""]:
        """Whether the modes are finite."""
        return jnp.all(jnp.isfinite(self.modes(settled).squared))


class MeanResponse(Response):
    """Outputs <x_o>: a pull is a force on them, which leaves the modes alone."""

    def __init__(self, net: Oscillators, x: PyTree):
        Response.__init__(self, net, x)
        self.free_modes = spectra_in_turn(Modes.of)(self.stiffness, net.mass)
        self.free_held = in_turn(Compliance.of)(self.stiffness)
        self.free_mean = self.free_held.mean(self.stiffness, self.force)
        self.compliance = self.rows @ self.free_held(self.rows.T)

    def blank(self, pull: Float[Array, "outputs"]) -> Settled:
        return Settled(pull, pull)

    def settled(self, pull: Float[Array, "outputs"]) -> Settled:
        return Settled(pull, taken(self.free_mean, self.nodes) + self.compliance @ pull)

    def holds(self, pull: Float[Array, "outputs"]) -> Bool[Array, ""]:
        return self.free_held.definite

    def modes(self, settled: Settled) -> Modes:
        return self.free_modes

    def held(self, settled: Settled) -> Compliance:
        return self.free_held

    def balance(self, settled: Settled) -> tuple[Array, Array, Array]:
        force = self.force + settled.pull @ self.rows
        return self.stiffness, force, self.free_held.mean(self.stiffness, force)

    def susceptibility(self, settled: Settled) -> Float[Array, "outputs outputs"]:
        return self.compliance


class MomentResponse(Response):
    """Outputs (<x_o>, <x_o^2>): a pull (u, v) is a force f_o += u and a stiffness K_oo -= 2v."""

    def blank(self, pull: Float[Array, "outputs"]) -> Settled:
        none, square = jnp.zeros_like(self.force), jnp.zeros_like(self.stiffness)
        return Settled(pull, pull, Modes(none, square, none), Compliance(none, square, jnp.asarray(False)), none)

    def holds(self, pull: Float[Array, "outputs"]) -> Bool[Array, ""]:
        return balanced(self._under(pull)[0])[-1]

    def settled(self, pull: Float[Array, "outputs"]) -> Settled:
        stiffness, force = self._under(pull)
        modes, held = spectra_in_turn(Modes.of)(stiffness, self.net.mass), in_turn(Compliance.of)(stiffness)
        mean = held.mean(stiffness, force)
        shown = taken(mean, self.nodes)
        second = shown**2
        if not self.net.single.sharp:
            second += (self.rows @ modes.shape) ** 2 @ self.net.single.variance(modes.frequency)
        return Settled(pull, jnp.concatenate([shown, second]), modes, held, mean)

    def modes(self, settled: Settled) -> Modes:
        assert settled.modes is not None
        return settled.modes

    def held(self, settled: Settled) -> Compliance:
        assert settled.held is not None
        return settled.held

    def balance(self, settled: Settled) -> tuple[Array, Array, Array]:
        assert settled.mean is not None
        return *self._under(settled.pull), settled.mean

    def susceptibility(self, settled: Settled) -> Float[Array, "outputs outputs"]:
        mean = settled.output[: len(self.nodes)]
        compliance = self.rows @ self.held(settled)(self.rows.T)
        between = 2 * compliance * mean[None]
        softening = self.modes(settled).softening(self.nodes, self.net.single)
        corner = 4 * mean[:, None] * compliance * mean[None] + 2 * softening
        return jnp.vstack([jnp.hstack([compliance, between]), jnp.hstack([between.T, corner])])

    def _under(self, pull: Float[Array, "outputs"]) -> tuple[Array, Array]:
        """(stiffness, force) under a pull."""
        count = len(self.nodes)
        softer = (self.rows.T * (2 * pull[count:])[None]) @ self.rows
        return self.stiffness - softer, self.force + pull[:count] @ self.rows
