"""Imperfections of a laboratory around any physical system."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from substrates.laboratory.system import PhysicalSystem, Reading, Spec, checked_knobs
from substrates.solvers.solver import Status

Array = np.ndarray


class Noisy:
    """A physical system behind noisy meters and imperfect knobs; the same five verbs.

    What is set, u, reaches the system as follows. It is rounded to the nearest of 2^bits levels that divide the range
    of the knob. Every device has its own gain: the knob moves from where it first stood by (1 + spread n) times what it
    was told, n normal, drawn once. Play: it follows only when it is pushed by more than `hysteresis`. A dead knob stays
    where it first stood. At every settle each knob that is not dead slips by `drift` n, which adds up. A knob stops at
    the ends of its range. Meters show the outputs and parameters with normal errors, drawn at each reading, and the
    knobs as the dial shows them: as set, on their levels.

    Args:
        system: what is inside. Its capabilities beyond the five verbs (conjugate read-outs, self-holding) are not
            passed on: a noisy laboratory does not have them.
        output_noise, parameter_noise: standard deviations of readings, in the units of outputs and parameters.
        bits: levels of a knob; None for a continuous one.
        hysteresis: half the width of the play, in the unit of the knobs.
        drift: standard deviation of the slip per settle, in the unit of the knobs.
        dead: the numbers of the knobs that do not move, or the part of all knobs, drawn at random.
        spread: standard deviation of the gains.
        seed: of all draws.
    """

    def __init__(
        self,
        system: PhysicalSystem,
        *,
        output_noise: float = 0.0,
        parameter_noise: float = 0.0,
        bits: int | None = None,
        hysteresis: float = 0.0,
        drift: float = 0.0,
        dead: Sequence[int] | float = 0.0,
        spread: float = 0.0,
        seed: int = 0,
    ):
        sizes = {"output_noise": output_noise, "parameter_noise": parameter_noise, "hysteresis": hysteresis}
        for name, value in (sizes | {"drift": drift, "spread": spread}).items():
            if not (np.ndim(value) == 0 and np.isfinite(value) and value >= 0):
                raise ValueError(f"{name}: wanted a number from 0, got {value!r}")
        self._system, self._draw = system, np.random.default_rng(seed)
        spec = system.spec
        self._lower, self._upper = (
            np.broadcast_to(np.asarray(bound, float), (spec.knobs.size,))
            for bound in (spec.knobs.lower, spec.knobs.upper)
        )
        if bits is not None:
            if not isinstance(bits, int) or not 1 <= bits <= 52:
                raise ValueError(f"bits: wanted a whole number from 1 to 52 or None, got {bits!r}")
            if not np.all(np.isfinite(self._upper - self._lower)):
                raise ValueError("bits: wanted knobs of a finite range to divide, got an infinite one: limit the range")
        self._noise, self._bits = (float(output_noise), float(parameter_noise)), bits
        self._hysteresis, self._drift = float(hysteresis), float(drift)
        self._live = np.ones(spec.knobs.size, bool)
        self._live[self._dead(dead, spec.knobs.size)] = False
        self._gain = 1 + spread * self._draw.standard_normal(spec.knobs.size)
        self._first = np.array(system.read().knobs, float)
        self._dial, self._at, self._slip = self._first.copy(), self._first.copy(), np.zeros_like(self._first)

    @property
    def spec(self) -> Spec:
        """Of the system inside."""
        return self._system.spec

    def set_knobs(self, u: Float[Array, "knobs"]) -> None:
        """Turns every knob as far as it follows."""
        dial = self._rounded(checked_knobs(self.spec, u))
        told = dial + (self._gain - 1) * (dial - self._first)
        at = np.clip(self._at, told - self._hysteresis, told + self._hysteresis)
        self._system.set_knobs(self._standing(at, self._slip))
        self._dial, self._at = dial, at

    def clamp(self, x: Float[Array, "*copies inputs"] | None) -> None:
        """Holds the inputs."""
        self._system.clamp(x)

    def nudge(self, target: Float[Array, "*copies outputs"] | None, beta: float) -> None:
        """Pulls the outputs towards a target."""
        self._system.nudge(target, beta)

    def settle(self) -> Status:
        """Waits until the system is at rest; the knobs slip before it is."""
        if self._drift:
            self._slip = self._slip + self._drift * self._draw.standard_normal(self._slip.size)
            self._system.set_knobs(self._standing(self._at, self._slip))
        return self._system.settle()

    def read(self) -> Reading:
        """Reads what the meters show."""
        reading = self._system.read()
        noisy = lambda values, size: values + size * self._draw.standard_normal(np.shape(values)) if size else values
        output, parameter = self._noise
        return dataclasses.replace(
            reading,
            outputs=noisy(reading.outputs, output),
            parameters=noisy(reading.parameters, parameter),
            knobs=self._dial.copy(),
            output_error=_together(output, reading.output_error),
            parameter_error=_together(parameter, reading.parameter_error),
        )

    def _standing(self, at: Array, slip: Array) -> Array:
        """Where the knobs really stand."""
        return np.where(self._live, np.clip(at + slip, self._lower, self._upper), self._first)

    def _rounded(self, u: Array) -> Array:
        if self._bits is None:
            return u
        width = self._upper - self._lower
        step = np.where(width > 0, width, 1.0) / (2**self._bits - 1)
        return np.minimum(self._lower + step * np.round((u - self._lower) / step), self._upper)

    def _dead(self, dead: Sequence[int] | float, knobs: int) -> Array:
        if np.ndim(dead) == 0:
            part = float(np.asarray(dead))
            if not 0 <= part <= 1:
                raise ValueError(f"dead: wanted a part from 0 to 1, or the numbers of knobs, got {dead!r}")
            return self._draw.permutation(knobs)[: round(part * knobs)]
        numbers = np.asarray(dead)
        if numbers.size and not (
            np.issubdtype(numbers.dtype, np.integer) and 0 <= numbers.min() <= numbers.max() < knobs
        ):
            raise ValueError(f"dead: wanted numbers of knobs from 0 to {knobs - 1}, got {dead!r}")
        return numbers.astype(int)


def _together(noise: float, error: float | None) -> float | None:
    """The standard deviation of two independent errors; None where none is known."""
    return error if noise == 0 else float(np.hypot(noise, error or 0.0))
