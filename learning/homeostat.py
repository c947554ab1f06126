"""Homeostatic control: holding the parameters of a physical system where they are by turning its knobs."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from learning.rule import ConvergenceError
from substrates import explained
from substrates.laboratory.system import PhysicalSystem, Reading, SelfHolding, Terminals, checked_reading
from substrates.substrate import Status, at_rest

Array = np.ndarray

_SECANTS = 5
"""How many secants are remembered."""

_LEAST_SECANT = 1e-6
"""Secants smaller than this part of the largest tell nothing."""

_GROWTH = 2.0
"""An error that grew by more than this since the best round calls for a smaller gain."""


class HomeostasisError(ConvergenceError):
    """The parameters of a physical system could not be held where they should be."""


@dataclass(frozen=True)
class Held:
    """How a homeostat ended.

    Attributes:
        reading: what the meters showed at the end.
        error: the largest distance of a parameter from where it should be held.
        settled: whether that is within the tolerance, with the system at rest.
        rounds: how often the system settled.
        saturated: how many knobs stand at the end of their range and would have to go further.
        at_noise: whether the tolerance is that of the readings, so that no homeostat could do better.
        status: how the last settling ended.
    """

    reading: Reading
    error: float
    settled: bool
    rounds: int
    saturated: int
    at_noise: bool
    status: Status


class Homeostat(eqx.Module):
    """Something that holds parameters by moving knobs."""

    @abc.abstractmethod
    def hold(self, system: Any, theta: Float[Array, "parameters"], tolerance: float | None = None) -> Held:
        """Moves the knobs until every parameter is within the tolerance of theta, and reports how it ended.

        The system keeps its inputs and its nudge. A tolerance is of the parameters' unit; None leaves it to the
        homeostat.
        """


class IntegralControl(Homeostat):
    """An integral controller on the read-back alone: u <- u + G (theta_wanted - theta_read), until they agree.

    At its fixed point the knobs are u = theta + epsilon dE/dtheta (springs), whatever E is, though neither is known.
    How the parameters answer to the knobs, which depends on how hard the rest of the system pushes back, is learned
    from secants through the last rounds (Anderson's method); where an error grew, or a parameter fell to its physical
    limit, they are forgotten, the knobs return to the best round so far and the gain is halved. A parameter that rests
    at its limit from the beginning does not answer at all: its knob takes steps that double, the others wait. Knobs are
    never asked beyond their range.

    Attributes:
        gain: G of the first round; 1 suits knobs that are much stiffer than what they hold.
        relative: the tolerance where none is asked for, as a part of the error before the first round.
        max_rounds: how often the system may settle.
        noise: readings that differ by less are the same; the tolerance is never below it. Where readings come with an
            error of their own, three of those count too.

    Source: Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021, for the homeostatic phase; Anderson 1965,
    "Iterative procedures for nonlinear integral equations".
    """

    gain: float = 1.0
    relative: float = 1e-3
    max_rounds: int = 50
    noise: float = 0.0

    def __check_init__(self):
        if not 0 < self.gain < float("inf"):
            raise ValueError(f"gain: wanted a positive number, got {self.gain}")
        if not isinstance(self.max_rounds, int) or self.max_rounds < 2:
            raise ValueError(f"max_rounds: wanted a whole number of at least 2, got {self.max_rounds}")
        if not 0 <= self.noise < float("inf"):
            raise ValueError(f"noise: wanted a number of at least 0, got {self.noise}")

    def hold(self, system: PhysicalSystem, theta: Float[Array, "parameters"], tolerance: float | None = None) -> Held:
        spec = system.spec
        gain, best, push = self.gain, None, np.ones(spec.knobs.size)
        before: tuple[Array, Array] | None = None
        secants: list[tuple[Array, Array]] = []
        held = self._judge(system, theta, tolerance, 1)
        tolerance = self.relative * held.error if tolerance is None else tolerance
        while not held.settled and held.rounds < self.max_rounds:
            knobs, left = held.reading.knobs, theta - held.reading.parameters
            stuck = _stuck(spec.parameters, held.reading.parameters, left)
            push = np.where(stuck, 2 * push, 1.0)
            if np.any(stuck) and best is None:  # a parameter at its limit does not answer until its knob has gone far
                asked = knobs + np.where(stuck, gain * push * left, 0)
            elif best is not None and (np.any(stuck) or held.error > _GROWTH * best[0]):
                gain, before, secants = gain / 2, None, []
                asked = best[1] + gain * best[2]
            else:
                if best is None or held.error < best[0]:
                    best = (held.error, knobs, left)
                if before is not None:
                    secants = [*secants, (knobs - before[0], left - before[1])][-_SECANTS:]
                before = knobs, left
                asked = _secant_step(knobs, left, secants, gain)
            reachable = np.clip(asked, spec.knobs.lower, spec.knobs.upper)
            system.set_knobs(reachable)
            held = self._judge(system, theta, tolerance, held.rounds + 1, int(np.sum(reachable != asked)))
        return held

    def _judge(
        self, system: PhysicalSystem, theta: Array, tolerance: float | None, rounds: int, saturated: int = 0
    ) -> Held:
        """Settles, and compares the read-back with theta."""
        status = system.settle()
        reading = checked_reading(system.spec, system.read())
        error = float(np.max(np.abs(theta - reading.parameters)))
        wanted = self.relative * error if tolerance is None else tolerance
        noise = max(self.noise, 3 * (reading.parameter_error or 0.0))
        settled = error <= max(wanted, noise)
        return Held(
            reading,
            error,
            settled=settled and bool(at_rest(status)),
            rounds=rounds,
            saturated=0 if settled else saturated,
            at_noise=noise > wanted,
            status=status,
        )


class SelfControl(Homeostat):
    """Homeostasis by a system that knows the knobs which hold its parameters, as a simulation does; see `SelfHolding`.

    One settling in place of several, and no error.
    """

    def hold(self, system: Any, theta: Float[Array, "parameters"], tolerance: float | None = None) -> Held:
        known: Any = system
        if not isinstance(known, SelfHolding):
            raise TypeError(
                f"homeostat: {type(system).__name__} cannot hold its parameters by itself; use IntegralControl(), "
                "which needs the read-back alone"
            )
        status = known.hold(theta)
        reading = checked_reading(system.spec, system.read())
        at_hand = reading.parameters
        error = 0.0 if at_hand is theta else float(np.max(np.abs(theta - at_hand)))
        return Held(reading, error, bool(at_rest(status)), 1, 0, True, status)


class FixedKnobs(Homeostat):
    """No control at all: the knobs stay, and the parameters yield to every example as far as the knobs let them."""

    def hold(self, system: PhysicalSystem, theta: Float[Array, "parameters"], tolerance: float | None = None) -> Held:
        status = system.settle()
        return Held(checked_reading(system.spec, system.read()), 0.0, bool(at_rest(status)), 1, 0, True, status)


def describe(held: Held) -> str:
    """Why a homeostat that did not settle failed, and what to do."""
    if not at_rest(held.status):
        return unsettled(held.status)
    if held.saturated:
        return (
            f"{held.saturated} knobs stand at the end of their range and {held.error:.2e} of a parameter is left: "
            f"widen the range of the knobs, or choose a smaller epsilon; see {explained.BENCH}"
        )
    return (
        f"after {held.rounds} rounds a parameter is still {held.error:.2e} from where it should be held: allow more "
        f"rounds, state the noise of the readings (noise=), or choose a smaller gain; see {explained.BENCH}"
    )


def unsettled(status: Status) -> str:
    """That a system did not come to rest, how, and what to do."""
    return f"the system did not settle ({Status[status]}): give it more time, or a weaker nudge; see {explained.BENCH}"


def _stuck(limits: Terminals, parameters: Array, left: Array) -> Array:
    """Which parameters rest at a physical limit and should leave it."""
    return ((left > 0) & (parameters <= limits.lower)) | ((left < 0) & (parameters >= limits.upper))


def _secant_step(knobs: Array, left: Array, secants: list[tuple[Array, Array]], gain: float) -> Array:
    """The knobs at which secants, changes of (knobs, what is left), foretell that nothing is left."""
    step = gain * left
    if secants:
        # the normal equations: a decomposition of the tall matrix of the changes would take far longer
        gram = np.array([[one @ other for _, other in secants] for _, one in secants])
        weights = np.linalg.pinv(gram, rcond=_LEAST_SECANT**2, hermitian=True) @ [
            change @ left for _, change in secants
        ]
        for weight, (knob_change, left_change) in zip(weights, secants, strict=True):
            step -= weight * (knob_change + gain * left_change)
    return knobs + step
