"""Training and evaluation of physical systems on the bench: example after example, verb by verb."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from learning.costs import SquaredError
from learning.evaluation import Evaluation, count_misses
from learning.examples import Examples
from learning.homeostat import Homeostat, IntegralControl
from learning.rule import Mover
from learning.steps import Tally, epoch_order
from substrates.laboratory.system import PhysicalSystem
from substrates.substrate import Cost

Array = np.ndarray


class Stand(NamedTuple):
    """Where a physical system stands in training: what is saved of it."""

    parameters: Float[Array, "parameters"]
    knobs: Float[Array, "knobs"]
    tally: Tally


class BenchTrainer:
    """The steps of training a physical system by a mover; the interface of `learning.steps.Trainer`.

    Attributes:
        last: how far the present call of `advance` got, and where the system stood then.
    """

    def __init__(
        self, system: PhysicalSystem, rule: Mover, examples: Examples, batch_size: int, key: PRNGKeyArray, strict: bool
    ):
        self.bench, self.rule, self.examples = system, rule, examples
        self.batch_size, self.key, self.strict = batch_size, key, strict
        self.cost = getattr(rule, "cost", SquaredError())
        self.homeostat = getattr(rule, "homeostat", None)
        self.initial = self._stand(Tally.zero(jnp.zeros(()).dtype))
        self.last = (0, self.initial)

    @property
    def batches(self) -> int:
        """Steps per epoch."""
        return math.ceil(self.examples.size / self.batch_size)

    def begin_epoch(self, moving: Stand) -> Stand:
        """The same with an empty tally."""
        return moving._replace(tally=Tally.zero(moving.tally.cost.dtype))

    def order(self, epoch: int) -> tuple[Array, PRNGKeyArray]:
        """The examples in the order of an epoch, in full batches, and the key of its steps."""
        order = epoch_order(self.key, epoch, self.examples.size, self.batches * self.batch_size)
        return order, jax.random.fold_in(self.key, epoch)

    def advance(self, moving: Stand, order: tuple[Array, PRNGKeyArray], start: int, stop: int) -> tuple[int, Stand]:
        """The next batches of an epoch."""
        self.last = (start, moving)
        together = stop - start if self.rule.steps_itself(self.bench) else 1
        for at in range(start, stop, together):
            index = order[0][at * self.batch_size : (at + together) * self.batch_size]
            x, y = self.examples.x[index], self.examples.y[index]
            found = self.rule.step(self.bench, x, y, key=jax.random.fold_in(order[1], at))
            tally = self.last[1].tally.add_moved(found, y, self.examples.labelled, together)
            self.last = (at + together, self._stand(tally))
        return self.last

    def system(self, moving: Stand) -> PhysicalSystem:
        """The system itself."""
        return self.bench

    def restore(self, moving: Stand) -> Stand:
        """Puts the knobs back and holds the parameters where they were."""
        self.bench.set_knobs(moving.knobs)
        self.bench.clamp(None)
        self.bench.nudge(None, 0.0)
        (self.homeostat or IntegralControl()).hold(self.bench, moving.parameters)
        return moving

    def evaluate(self, moving: Stand, examples: Examples, key: PRNGKeyArray) -> Evaluation:
        """How well the system does on examples, its parameters held."""
        return evaluate_on_bench(self.bench, examples, self.cost, self.homeostat)

    def _stand(self, tally: Tally) -> Stand:
        reading = self.bench.read()
        kept = lambda values: values.copy() if values.flags.writeable else values
        return Stand(kept(reading.parameters), kept(reading.knobs), tally)


def evaluate_on_bench(
    system: PhysicalSystem, examples: Examples, cost: Cost, homeostat: Homeostat | None = None, outputs: bool = False
) -> Evaluation:
    """How a physical system does on examples that it does not learn from.

    Args:
        system: it settles freely on every example.
        examples: ready for it.
        cost: a callable (output, target) -> scalar.
        homeostat: holds the parameters where they are on every example; None lets them yield to each.
        outputs: keep what every example shows.
    """
    width = system.spec.copies or 1
    theta = system.read().parameters
    system.nudge(None, 0.0)
    shown, errors, unsettled = [], [0.0], 0
    for start in range(0, examples.size, width):
        index = np.arange(start, start + width) % examples.size
        x = examples.x[index]
        system.clamp(x if system.spec.copies else x[0])
        if homeostat is None:
            held, reading = None, _settled(system)
        else:
            held = homeostat.hold(system, theta)
            reading = held.reading
            errors.append(held.error)
        unsettled += int(held is not None and not held.settled)
        shown.append(reading.outputs.reshape(width, -1))
    output = np.concatenate(shown)[: examples.size]
    costs = jax.vmap(cost)(jnp.asarray(output), jnp.asarray(examples.y))
    wrong = count_misses(output, examples.y)
    return Evaluation(
        cost=float(jnp.mean(costs)),
        error=float(jnp.mean(wrong)) if examples.labelled else None,
        unconverged=unsettled,
        residual=max(errors),
        size=examples.size,
        output=output if outputs else None,
    )


def _settled(system: PhysicalSystem) -> Any:
    system.settle()
    return system.read()
