"""Waiting for slow systems until their meters stand still."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from substrates.laboratory.system import PhysicalSystem, Reading, Spec
from substrates.solvers.solver import Status

Array = np.ndarray


class Patience:
    """A physical system that is given time: it is settled again until its meters stand still; the same five verbs.

    After each wait the change d_k of the readings is compared with the one before. Changes that shrink by a ratio q
    have d_k q / (1 - q) still to go; the wait ends once neither d_k nor what is still to go exceeds the tolerance. A
    change within three standard deviations of the meters, where they state one, counts as none. A system that does not
    come to rest in `most` waits ends as `out_of_steps`; `drift` then tells how fast its outputs still go.

    Args:
        system: what is inside. Its capabilities beyond the five verbs are not passed on.
        tolerance: how far an output may still be from its end, in the unit of the outputs.
        parameter_tolerance: the same for the parameters; by default the tolerance, number for number.
        most: waits before giving up.

    Attributes:
        waits: how many times the system was settled at the last `settle`.
        drift: the mean change of the outputs per wait over the second half of the last `settle`, signed.
    """

    def __init__(
        self, system: PhysicalSystem, tolerance: float, parameter_tolerance: float | None = None, most: int = 100
    ):
        parameter_tolerance = tolerance if parameter_tolerance is None else parameter_tolerance
        for name, value in {"tolerance": tolerance, "parameter_tolerance": parameter_tolerance}.items():
            if not (np.ndim(value) == 0 and np.isfinite(value) and value > 0):
                raise ValueError(f"{name}: wanted a positive number, got {value!r}")
        if not isinstance(most, int) or most < 2:
            raise ValueError(f"most: wanted a whole number from 2, got {most!r}")
        self._system, self._most = system, most
        self._tolerances = (float(tolerance), float(parameter_tolerance))
        self.waits = 0
        self.drift = np.zeros((*system.spec.leading, system.spec.outputs.size))

    @property
    def spec(self) -> Spec:
        """Of the system inside."""
        return self._system.spec

    def set_knobs(self, u: Float[Array, "knobs"]) -> None:
        """Turns every knob."""
        self._system.set_knobs(u)

    def clamp(self, x: Float[Array, "*copies inputs"] | None) -> None:
        """Holds the inputs."""
        self._system.clamp(x)

    def nudge(self, target: Float[Array, "*copies outputs"] | None, beta: float) -> None:
        """Pulls the outputs towards a target."""
        self._system.nudge(target, beta)

    def settle(self) -> Status:
        """Waits until the meters stand still."""
        status = self._system.settle()
        shown, before = [self._system.read()], np.inf
        for waits in range(2, self._most + 1):
            self.waits = waits
            status = self._system.settle()
            shown.append(self._system.read())
            change = self._change(*shown[-2:])
            ratio = change / before if before > 0 else 0.0
            to_go = change * ratio / (1 - ratio) if ratio < 1 else np.inf
            if max(change, to_go) <= 1:
                self.drift = self._drift(shown)
                return status
            before = change
        self.drift = self._drift(shown)
        return Status.out_of_steps

    def read(self) -> Reading:
        """Reads what the meters show."""
        return self._system.read()

    def _change(self, before: Reading, now: Reading) -> float:
        """The largest change in tolerances; one within three standard deviations of its meters counts as none."""
        changes = np.max(np.abs(now.outputs - before.outputs)), np.max(np.abs(now.parameters - before.parameters))
        errors = now.output_error or 0.0, now.parameter_error or 0.0
        parts = [change / tolerance for change, tolerance in zip(changes, self._tolerances, strict=True)]
        noises = [3 * 2**0.5 * error / tolerance for error, tolerance in zip(errors, self._tolerances, strict=True)]
        return max(0.0 if part <= noise else float(part) for part, noise in zip(parts, noises, strict=True))

    @staticmethod
    def _drift(shown: list[Reading]) -> Array:
        first = len(shown) // 2
        spans = max(len(shown) - 1 - first, 1)
        return (shown[-1].outputs - shown[min(first, len(shown) - 2)].outputs) / spans
