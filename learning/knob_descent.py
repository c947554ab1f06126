"""Knob descent: rules of order zero on the bench, by setting knobs, clamping, waiting and reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from learning.bench import KnobRule, by_copies, settle
from learning.costs import mean_cost
from learning.examples import prepare
from learning.perturbation import Differences, OrderZero, SimultaneousPerturbation
from learning.rule import Moved
from substrates.laboratory.system import PhysicalSystem, checked_reading

Array = np.ndarray


class KnobDescent(KnobRule):
    """Gradient descent of the mean cost of a batch in the knobs of any physical system, by a rule of order zero.

    The knobs u are set to u + c D and u - c D along the directions D of the rule, kept inside their range; each time
    every input of the batch is clamped, the system settles and its outputs are read, and the operator works out the
    mean cost. With the gradient g that the rule makes of this,

        u <- u - learning_rate g,    kept inside the range.

    What is divided by is the distance between the knobs as they were read back, so that the ends of their range and
    levels between which they cannot stand count as what they are; knobs that did not move stay. Knobs of few levels
    move only where a step exceeds half a level. Parameters yield to every example: nothing holds them but the knobs.

    It uses the five verbs of a `PhysicalSystem`, and no nudge. A batch of n examples settles n (1 + 2 K) + 1 times,
    with K directions; a system of several copies takes as many examples at once.

    Attributes:
        rule: a rule of order zero; its step c is one number, in the unit of the knobs.
        learning_rate: of the descent.
        strict: raise `ConvergenceError` where the system does not come to rest, with its knobs back where they were,
            rather than count it.

    Source: Spall 1992, as of `SimultaneousPerturbation`; in the laboratory, Momeni et al. 2024, arXiv 2406.03372.
    """

    in_short: ClassVar[str] = "a rule of order zero by knobs, on the bench; 1 + 2 pushes relaxations; bias of that rule"

    usual: ClassVar[Mapping[str, Any]] = {"push": SimultaneousPerturbation(0.01), "learning_rate": 0.1}

    rule: OrderZero = eqx.field(metadata={"of_number": SimultaneousPerturbation, "number": "push"})

    def __check_init__(self):
        if not isinstance(self.rule, OrderZero):
            raise TypeError(
                f"rule: wanted a rule of order zero, such as SimultaneousPerturbation(0.1), got "
                f"{type(self.rule).__name__}"
            )
        if isinstance(self.rule.step, Mapping):
            raise ValueError(f"rule: wanted a step of one number, since knobs have no names, got {self.rule.step}")

    def step(self, system: PhysicalSystem, x: Any, y: Any, *, key: PRNGKeyArray | None = None) -> Moved:
        """One step for all examples together.

        Args:
            system: on the bench; its knobs are moved. It is left at rest, its inputs released.
            x, y: inputs and targets with a leading axis of examples, a multiple of the copies; targets as in `fit`,
                integer labels or numbers of shape (n, outputs).
            key: draws the directions, where the rule does.

        Raises:
            ValueError: the examples do not fit the system, or a key is wanted.
            ConvergenceError: see `strict`.
            LaboratoryError: the system does not answer, or with what is no number.
        """
        self.rule.require_key(key)
        xs, ys = prepare(system, (x, y), "x, y")[:2]
        xs, knobs = by_copies(system.spec, xs), system.spec.knobs
        u = kept = np.array(checked_reading(system.spec, system.read()).knobs, float)
        inside = lambda u: np.clip(u, knobs.lower, knobs.upper)
        try:
            system.nudge(None, 0.0)
            outputs, _, unsettled = self._show(system, u, xs)
            sums = Differences.none(jnp.asarray(u))
            for number in range(self.rule.pushes(u.size)):
                direction = self.rule.direction(number, key, jnp.asarray(u))
                push = np.asarray(self.rule.step, float) * np.asarray(direction, float)
                ends = [self._show(system, inside(u + sign * push), xs) for sign in (1, -1)]
                (up, above, _), (down, below, _) = ends
                change = mean_cost(self.cost, up, ys) - mean_cost(self.cost, down, ys)
                sums = sums.add(jnp.asarray(change), jnp.asarray(above - below), direction)
                unsettled += sum(end[2] for end in ends)
            gradient = np.asarray(sums.gradient(self.rule.of_each(u.size)), float)
            kept = inside(u - float(self.learning_rate) * gradient)
        finally:
            system.set_knobs(kept)
            system.clamp(None)
        unsettled += settle(system, self.strict, "give it more time")
        return Moved(system, mean_cost(self.cost, outputs, ys), outputs, unconverged=unsettled)

    def _show(
        self, system: PhysicalSystem, u: Float[Array, "knobs"], xs: Array
    ) -> tuple[Float[Array, "n outputs"], Float[Array, "knobs"], int]:
        """What the system shows for every input with its knobs at u, where they then stand, how often it did not
        settle.
        """
        system.set_knobs(u)
        shown, unsettled = [], 0
        for x in xs:
            system.clamp(x)
            unsettled += settle(system, self.strict, "give it more time")
            shown.append(checked_reading(system.spec, system.read()))
        outputs = np.concatenate([reading.outputs.reshape(-1, system.spec.outputs.size) for reading in shown])
        return outputs, shown[-1].knobs, unsettled
