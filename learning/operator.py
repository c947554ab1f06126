"""An operator of a physical system: settles it, counts, and leaves it as it was found."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from jaxtyping import Float

from learning.homeostat import Held, Homeostat, IntegralControl
from substrates.laboratory.system import LaboratoryError, PhysicalSystem, Reading, checked_reading
from substrates.substrate import at_rest

Array = np.ndarray

_ROUNDS_BACK = 20
"""How often the system may settle until its parameters are back."""

_BACK = 1e-8
"""How near they must come, as a part of the largest."""


class Operator:
    """Whoever works a physical system by its five verbs, in a `with` block.

    However the block ends, the nudge is removed, the inputs are released and the knobs are put back; where the
    parameters then rest elsewhere than they were found, the knobs are moved until the parameters are back.

    Attributes:
        found: what the meters showed at the start.
        settles: how often the system settled.
        unsettled: how often it did not come to rest without a nudge.
        at_rest: whether it came to rest the last time.
        noise: readings of parameters that differ by less are the same.
        moved: at the end, the largest distance of a parameter from where it was found.
    """

    def __init__(self, system: PhysicalSystem):
        self.system = system
        self.found = checked_reading(system.spec, system.read())
        self.settles, self.unsettled, self.at_rest = 0, 0, True
        self.noise, self.moved = 0.0, 0.0

    def settle(
        self,
        knobs: Float[Array, "knobs"] | None = None,
        target: Float[Array, "*copies outputs"] | None = None,
        beta: float = 0.0,
    ) -> Reading:
        """Sets the knobs, unless None, and the nudge, waits and reads. Raises LaboratoryError for what is no number."""
        if knobs is not None:
            self.system.set_knobs(knobs)
        self.system.nudge(target, beta)
        status = self.system.settle()
        self.settles += 1
        self.at_rest = bool(at_rest(status))
        self.unsettled += beta == 0 and not self.at_rest
        return checked_reading(self.system.spec, self.system.read())

    def hold(self, homeostat: Homeostat, theta: Float[Array, "parameters"], tolerance: float | None = None) -> Held:
        """Holds the parameters, with inputs and nudge as they are."""
        held = homeostat.hold(self.system, theta, tolerance)
        self.settles += held.rounds
        return held

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, *problem: object) -> None:
        try:
            self._put_back()
        except (LaboratoryError, ValueError):
            if kind is None:
                raise

    def _put_back(self) -> None:
        knobs, theta = self.found.knobs, self.found.parameters
        self.system.nudge(None, 0.0)
        self.system.clamp(None)
        self.system.set_knobs(knobs)
        homeostat = IntegralControl(noise=self.noise, max_rounds=_ROUNDS_BACK)
        held = self.hold(homeostat, theta, _BACK * float(np.max(np.abs(theta))))
        reading = held.reading if held.settled else self.settle(knobs)
        self.moved = float(np.max(np.abs(reading.parameters - theta)))
