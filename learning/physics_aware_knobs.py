"""Physics-aware training on the bench: outputs read from a physical system, errors sent back through its model."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PRNGKeyArray

from learning.bench import KnobRule, by_copies, settle
from learning.examples import prepare
from learning.physics_aware import PhysicsAware, pulled_back
from learning.rule import ConvergenceError, Moved
from substrates.laboratory.system import PhysicalSystem, checked_reading
from substrates.substrate import Substrate, split_parameters


class PhysicsAwareKnobs(KnobRule):
    """Physics-aware training of any physical system with a model: the system shows the error, the model its cause.

    Every input of a batch is clamped, the system settles and its outputs o and parameters theta are read. The model at
    theta, or its twin by the rule, settles on a computer, and sends the slope of the cost at o back through its
    equilibrium to the parameters; see `PhysicsAware`. With the mean g over the batch,

        u <- u - learning_rate g,      kept inside the range of the knobs.

    It is the step of `PhysicsAware` where knobs set the parameters, and off by a part of the order of their compliance
    where they hold them softly. A batch of n examples settles n + 1 times; it uses no nudge.

    Attributes:
        rule: the twin and the cost; `Mismatch(0.0)` takes the model as it is.
        learning_rate: of the step; knobs per unit of the gradient.
        model: a substrate whose trainable parameters, in the order of its fields, are those that the system reads back.
        strict: raise `ConvergenceError` where the system does not come to rest or the model has no smooth equilibrium,
            with the knobs back where they were, rather than count it.

    Source: Wright et al. 2022, "Deep physical neural networks trained with backpropagation", arXiv 2104.13386.
    """

    in_short: ClassVar[str] = (
        "forward by a system on the bench, backward by its model; 1 relaxation; bias O(mismatch of the model)"
    )

    rule: PhysicsAware
    model: Substrate = eqx.field(kw_only=True)

    def __check_init__(self):
        if not isinstance(self.rule, PhysicsAware):
            raise TypeError(f"rule: wanted PhysicsAware(Mismatch(0.0)), say, got {type(self.rule).__name__}")
        if not isinstance(self.model, Substrate):
            raise TypeError(f"model: wanted a Substrate, got {type(self.model).__name__}")

    def step(self, system: PhysicalSystem, x: Any, y: Any, *, key: PRNGKeyArray | None = None) -> Moved:
        """One step for all examples together.

        Args:
            system: on the bench; its knobs are moved. It is left at rest, its inputs released.
            x, y: inputs and targets with a leading axis of examples, a multiple of the copies; targets as in `fit`,
                integer labels or numbers of shape (n, outputs).
            key: randomness of the model, where it uses any.

        Raises:
            ValueError: the examples do not fit the system, or the model does not.
            ConvergenceError: see `strict`.
            LaboratoryError: the system does not answer, or with what is no number.
        """
        spec = system.spec
        parameters, rest = split_parameters(self.model)
        flat, unravel = ravel_pytree(parameters)
        if flat.size != spec.parameters.size:
            raise ValueError(
                f"model: wanted one trainable parameter for each of the {spec.parameters.size} that the system reads "
                f"back, got {flat.size}"
            )
        xs, ys = prepare(system, (x, y), "x, y")[:2]
        knobs = kept = np.array(checked_reading(spec, system.read()).knobs, float)
        outputs, read_back, unsettled = [], [], 0
        try:
            system.nudge(None, 0.0)
            for one in by_copies(spec, xs):
                system.clamp(one)
                unsettled += settle(system, self.strict, "give it more time")
                reading = checked_reading(spec, system.read())
                outputs.append(reading.outputs.reshape(-1, spec.outputs.size))
                read_back.append(reading.parameters)
            shown = np.concatenate(outputs)
            model = eqx.combine(unravel(jnp.asarray(np.mean(read_back, axis=0), flat.dtype)), rest)
            xs, ys, outputs = jax.tree.map(lambda leaf: jnp.asarray(leaf, flat.dtype), (xs, ys, shown))
            cost, gradient, modelled, exists = pulled_back(self.rule, model, xs, ys, outputs, key)
            lost = int(jnp.sum(~modelled.usable)) + int(not exists)
            if lost and self.strict:
                raise ConvergenceError(
                    "the model has no equilibrium that moves smoothly at the parameters that the system reads back; "
                    "smaller steps, a better model, or count it with strict=False"
                )
            kept = np.clip(
                knobs - float(self.learning_rate) * np.asarray(ravel_pytree(gradient)[0], float),
                spec.knobs.lower,
                spec.knobs.upper,
            )
        finally:
            system.set_knobs(kept)
            system.clamp(None)
        unsettled += settle(system, self.strict, "give it more time")
        return Moved(system, cost, shown, unconverged=unsettled + lost)
