"""Coupled learning on the bench: outputs held a little towards their targets, one knob for every local meter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from learning.bench import KnobRule, by_copies, settle
from learning.costs import mean_cost
from learning.coupled import CoupledLearning, Variant
from learning.examples import prepare
from learning.rule import Moved
from substrates.laboratory.system import ConjugateReadout, OutputClamp, PhysicalSystem, checked_reading
from substrates.substrate import Cost, Nudge

_ADVICE = "give it more time, or choose a smaller eta"


class CoupledKnobs(KnobRule):
    """Coupled learning of a physical system that can hold its outputs and has a meter at every parameter.

    For an example (x, y) the system settles freely and shows o; with the outputs held at o + eta (y - o), or on the
    other side too, it settles again. The meters, dE/dtheta of each parameter (v^2/2 of a resistor, say), tell each knob
    by itself where to go:

        u <- u - learning_rate [m(held) - m(free)] / eta,      kept inside the range of the knobs,

    the mean over the examples of a batch. It is the step of `CoupledLearning` where knobs set the parameters, and off
    by a part of the order of their compliance where they hold them softly. Two copies side by side, one free and one
    held, make it one measurement, as the published circuits do.

    Attributes:
        rule: how far outputs are held from where they are free, on which side, and for what cost.
        learning_rate: of the step; knobs per dE/dtheta.
        strict: raise `ConvergenceError` where the system does not come to rest, with its knobs back where they were,
            rather than count it.

    Source: Stern, Hexner, Rocks and Liu 2021, arXiv 2011.03861; in circuits, Dillavou, Stern, Liu and Durian 2022,
    arXiv 2108.00275.
    """

    in_short: ClassVar[str] = (
        "outputs held a part of the way to targets, on the bench; 3 relaxations centred, else 2; bias of that rule"
    )

    usual: ClassVar[Mapping[str, Any]] = {"part": CoupledLearning(0.1), "learning_rate": 0.1}

    rule: CoupledLearning = eqx.field(metadata={"of_number": CoupledLearning, "number": "part"})

    def __check_init__(self):
        if not isinstance(self.rule, CoupledLearning):
            raise TypeError(f"rule: wanted CoupledLearning(0.1), say, got {type(self.rule).__name__}")

    def step(self, system: PhysicalSystem, x: Any, y: Any, *, key: PRNGKeyArray | None = None) -> Moved:
        """One step for all examples together.

        Args:
            system: on the bench, an `OutputClamp` and a `ConjugateReadout`; its knobs are moved. It is left at rest,
                its inputs and outputs released.
            x, y: inputs and targets with a leading axis of examples, a multiple of the copies; targets as in `fit`,
                integer labels or numbers of shape (n, outputs).
            key: is not used.

        Raises:
            TypeError: the system cannot hold its outputs, or has no meters at its parameters.
            ValueError: the examples do not fit the system.
            ConvergenceError: see `strict`.
            LaboratoryError: the system does not answer, or with what is no number.
        """
        _require_capabilities(system)
        bench: Any = system
        spec = system.spec
        xs, ys = prepare(system, (x, y), "x, y")[:2]
        xs, ys = by_copies(spec, xs), by_copies(spec, ys)
        knobs = kept = np.array(checked_reading(spec, system.read()).knobs, float)
        outputs, contrast, unsettled = [], np.zeros_like(knobs), 0
        system.nudge(None, 0.0)
        try:
            for one, target in zip(xs, ys, strict=True):
                output, difference, failed = self._contrast(bench, one, target)
                outputs.append(output.reshape(-1, spec.outputs.size))
                contrast, unsettled = contrast + difference, unsettled + failed
            moved = knobs - float(self.learning_rate) * contrast / len(xs)
            kept = np.clip(moved, spec.knobs.lower, spec.knobs.upper)
        finally:
            bench.hold_outputs(None)
            system.set_knobs(kept)
            system.clamp(None)
        unsettled += settle(system, self.strict, _ADVICE)
        shown = np.concatenate(outputs)
        return Moved(system, mean_cost(self.cost, shown, ys.reshape(shown.shape)), shown, unconverged=unsettled)

    def _contrast(
        self, system: Any, x: Array, target: Array
    ) -> tuple[Float[np.ndarray, "*copies outputs"], Float[np.ndarray, "knobs"], int]:
        """The free outputs, [m(plus) - m(minus)] over the distance between the two, and how often it did not settle."""
        system.clamp(x)
        unsettled = settle(system, self.strict, _ADVICE)
        output = np.asarray(checked_reading(system.spec, system.read()).outputs, float)
        free = np.asarray(system.read_conjugate(), float)
        eta = float(self.rule.eta)
        shown = output.reshape(-1, output.shape[-1])
        step = np.asarray(_pulled(self.cost, shown, target.reshape(shown.shape), eta)).reshape(output.shape)
        sides: dict[Variant, tuple[int, ...]] = {"positive": (1,), "negative": (-1,), "centered": (1, -1)}
        held = []
        for side in sides[self.rule.variant]:
            system.hold_outputs(output + side * step)
            unsettled += settle(system, self.strict, _ADVICE)
            held.append(np.asarray(system.read_conjugate(), float))
        system.hold_outputs(None)
        pair = {"positive": (held[0], free), "negative": (free, held[0]), "centered": (held[0], held[-1])}
        plus, minus = pair[self.rule.variant]
        return output, (plus - minus) / (len(held) * eta), unsettled


def _require_capabilities(system: Any) -> None:
    wanted = {OutputClamp: "hold_outputs(target)", ConjugateReadout: "read_conjugate()"}
    missing = [verb for capability, verb in wanted.items() if not isinstance(system, capability)]
    if missing or not isinstance(system, PhysicalSystem):
        raise TypeError(
            f"system: CoupledKnobs wanted a PhysicalSystem with {' and '.join(missing) or 'the five verbs'}, which "
            f"{type(system).__name__} lacks; train it by AgnosticEP or KnobDescent, which need the five verbs alone"
        )


@eqx.filter_jit
def _pulled(cost: Cost, outputs: Any, targets: Any, eta: Any) -> Any:
    """-eta dC/do of each copy."""
    return jax.vmap(lambda output, target: Nudge(cost, target, eta).pull(output))(outputs, targets)
