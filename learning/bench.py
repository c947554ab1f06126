"""What rules share that turn knobs on the bench: fields, examples by copies, and whether a system came to rest."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Float

from learning.homeostat import FixedKnobs
from learning.rule import ConvergenceError, Mover, check_positive
from substrates import explained
from substrates.laboratory.system import PhysicalSystem, Spec
from substrates.substrate import Cost, Status, at_rest


class KnobRule(Mover):
    """A mover on the bench that turns the knobs by what another rule makes of outputs and meters.

    Attributes:
        rule: the other rule.
        learning_rate: of the steps of the knobs.
        strict: raise `ConvergenceError` where the system does not come to rest, with its knobs back where they were,
            rather than count it.
    """

    on_bench: ClassVar[bool] = True

    rule: Any
    learning_rate: float
    strict: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_positive("learning_rate", self.learning_rate)

    @property
    def cost(self) -> Cost:
        """That of the rule."""
        return self.rule.cost

    @property
    def homeostat(self) -> FixedKnobs:
        """What holds the parameters while the system is evaluated: its knobs alone."""
        return FixedKnobs()


def by_copies(spec: Spec, examples: Float[np.ndarray, "n numbers"]) -> Float[np.ndarray, "rounds *copies numbers"]:
    """As many examples at once as the system has copies. Raises ValueError where they do not fill them."""
    if spec.copies is None:
        return examples
    if len(examples) % spec.copies:
        raise ValueError(
            f"x: wanted a multiple of the {spec.copies} copies of the system, got {len(examples)} examples"
        )
    return examples.reshape(-1, spec.copies, examples.shape[-1])


def settle(system: PhysicalSystem, strict: bool, advice: str) -> int:
    """1 where the system does not come to rest, which a strict rule refuses by ConvergenceError, 0 where it does."""
    status = system.settle()
    if at_rest(status):
        return 0
    if strict:
        raise ConvergenceError(
            f"the system did not settle ({Status[status]}): {advice}, or count it with strict=False; see "
            f"{explained.BENCH}"
        )
    return 1
