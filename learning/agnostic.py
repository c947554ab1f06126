"""Agnostic equilibrium propagation: learning by knobs, clamps, nudges, waiting and reading, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from learning.costs import SquaredError, mean_cost
from learning.examples import prepare
from learning.homeostat import HomeostasisError, Homeostat, IntegralControl, SelfControl, describe, unsettled
from learning.rule import Moved, Mover
from substrates.laboratory.system import (
    LaboratoryError,
    PhysicalSystem,
    Place,
    Simulated,
    Simulation,
    checked_input,
    checked_nudge,
    checked_reading,
    inside,
)
from substrates.substrate import Cost, Status, as_tree, at_rest, whole

Array = np.ndarray
Variant = Literal["optimistic", "pessimistic", "centered"]

_ATTEMPTS = 4
"""How often the homeostatic phase is repeated, each time held more finely, to reach the precision."""

STEPS_AT_ONCE = 16
"""So many steps of a simulated system are made by one call of a compiled function."""


class _Step(NamedTuple):
    """The free outputs, as both phases tell of them, how far a held parameter was from where it should be, and how
    many phases failed.
    """

    outputs: Array
    error: float
    unsettled: int


class AgnosticEP(Mover):
    """Agnostic equilibrium propagation: the physics makes the step of gradient descent, unknown to the operator.

    For an example (x, y), with b1 < b2:

    1. Homeostatic phase: x clamped, the outputs nudged with b1, the knobs u are moved until every parameter is held
       where it was, theta. For springs of compliance epsilon that is u = theta + epsilon dE/dtheta(s_b1).
    2. Clamped phase: the knobs rest, the nudge becomes b2, and parameters and state relax together. Where the
       parameters come to rest is the new theta:

        theta_new = theta - epsilon (b2 - b1) dL/dtheta + O(epsilon^2 beta) + O(epsilon beta^2), centred beta^3,

    the step of gradient descent on the cost L at a rate of epsilon (b2 - b1). For any epsilon and b2 > b1 the mean of
    the cost over nudges between b1 and b2 does not rise, as long as the first phase holds theta at a minimum.

    | variant | b1 | b2 |
    |---|---|---|
    | "optimistic" | 0 | beta |
    | "pessimistic" | -beta | 0 |
    | "centered" | -beta/2 | beta/2 |

    The outputs that a step reports, and with them `cost` and `error` of a history, are free ones only where b1 = 0, in
    the optimistic variant. The others settle under nudges and after the step only, and report the line through both
    phases at no nudge,

        o_0 = (b2 o_b1 - b1 o_b2) / (b2 - b1) + O(beta^2) + O(epsilon beta), pessimistic O(epsilon beta),

    an estimate that costs no settling: what it finds wrong is `estimated_error` in a history, not `error`.

    It uses the five verbs of a `PhysicalSystem` and knows no energy, no derivative and no state. A parameter at its
    physical limit would be held there by any knob beyond it and never move again; it is held a little inside.
    One example makes one step; a system of several copies takes as many examples at once.

    Attributes:
        beta: the difference of the two nudges, positive.
        variant: which two nudges.
        homeostat: how the parameters are held.
        margin: how far inside its limit a parameter is held at least, as a part of the root mean square distance of
            the parameters from their limits.
        precision: how finely the parameters are held, as a part of what the nudge then moves them by: the relative
            error that imperfect homeostasis may add to a step.
        cost: what `fit` reports; what the nudge does to the system is the system's own business.
        strict: raise `HomeostasisError` where parameters cannot be held or a phase does not come to rest, rather than
            count it.

    Source: Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021.
    """

    in_short: ClassVar[str] = (
        "parameters moved by physics alone, on the bench; "
        "2 relaxations where a plant knows its knobs; bias O(epsilon, beta)"
    )

    on_bench: ClassVar[bool] = True

    beta: float
    variant: Variant = eqx.field(static=True, default="optimistic")
    homeostat: Homeostat = eqx.field(default_factory=IntegralControl)
    margin: float = eqx.field(static=True, default=1e-3)
    precision: float = eqx.field(static=True, default=0.01)
    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree)
    strict: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if self.variant not in get_args(Variant):
            raise ValueError(f"variant: wanted one of {get_args(Variant)}, got {self.variant!r}")
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"beta: wanted a positive number, got {self.beta}; the variant chooses the signs")
        if not 0 <= self.margin < 1:
            raise ValueError(f"margin: wanted a number from 0 to 1, got {self.margin}")
        if not 0 < self.precision < 1:
            raise ValueError(f"precision: wanted a number between 0 and 1, got {self.precision}")

    @property
    def nudges(self) -> tuple[float, float]:
        """(b1, b2), the nudges of the homeostatic and of the clamped phase."""
        beta = float(self.beta)
        return {"optimistic": (0.0, beta), "pessimistic": (-beta, 0.0), "centered": (-beta / 2, beta / 2)}[self.variant]

    @property
    def relaxations(self) -> int | None:
        return 2 if isinstance(self.homeostat, SelfControl) else None

    @property
    def estimates(self) -> bool:
        return self.variant != "optimistic"

    @property
    def _shares(self) -> Array:
        """Of the outputs of both phases in the free ones."""
        first, second = self.nudges
        return np.array([second, -first]) / (second - first)

    def step(self, system: PhysicalSystem, x: Any, y: Any, *, key: PRNGKeyArray | None = None) -> Moved:
        """One step for each example, or for as many examples as the system has copies, one step after another.

        Args:
            system: on the bench; its parameters are moved.
            x, y: inputs and targets with a leading axis of examples, a multiple of the copies; targets as in `fit`,
                integer labels or numbers of shape (n, outputs).
            key: not used; randomness is the system's own.

        Raises:
            ValueError: the examples do not fit the system.
            HomeostasisError: see `strict`.
            LaboratoryError: the system does not answer, or with what is no number.
        """
        xs, ys = prepare(system, (x, y), "x, y")[:2]
        copies = system.spec.copies
        if copies is not None:
            if len(xs) % copies:
                raise ValueError(
                    f"x: wanted {copies} examples for each step, one for each copy of the system, got {len(xs)}"
                )
            xs, ys = (values.reshape(-1, copies, *values.shape[1:]) for values in (xs, ys))
        if self.steps_itself(system):
            blocks = range(0, len(xs), STEPS_AT_ONCE)
            pairs = ((xs[at : at + STEPS_AT_ONCE], ys[at : at + STEPS_AT_ONCE]) for at in blocks)
            done = [step for pair in pairs for step in self._steps(system, *pair)]
        else:
            done = [self._step(system, *pair) for pair in zip(xs, ys, strict=True)]
        outputs = np.concatenate([each.outputs.reshape(-1, ys.shape[-1]) for each in done])
        return Moved(
            system,
            cost=mean_cost(self.cost, outputs, ys.reshape(-1, ys.shape[-1])),
            output=outputs,
            residual=max(each.error for each in done),
            unconverged=sum(each.unsettled for each in done),
        )

    def steps_itself(self, system: Any) -> bool:
        """Whether the steps are compiled: those of a simulation that knows the knobs which hold it."""
        return isinstance(self.homeostat, SelfControl) and isinstance(system, Simulated)

    def _steps(self, system: Any, xs: Array, ys: Array) -> list[_Step]:
        """As many examples as one compiled call takes; a step that raises is taken back."""
        simulation, parameters, met = system.simulation()
        spec, dtype, count = system.spec, simulation.dtype, len(xs)
        shaped = lambda rows: np.stack(rows).reshape(count, -1, rows[0].shape[-1]).astype(dtype)
        inputs = shaped([checked_input(spec, x) for x in xs])
        targets = shaped([checked_nudge(spec, y, 1.0)[0] for y in ys])
        filled = [np.pad(part, ((0, STEPS_AT_ONCE - count), (0, 0), (0, 0))) for part in (inputs, targets)]
        betas = tuple(None if beta == 0 else np.asarray(beta, dtype) for beta in self.nudges)
        make = lambda most: _make_steps(
            simulation,
            parameters,
            filled,
            betas,
            self._shares.astype(dtype),
            np.array([met, most], np.int32),
            self.margin,
            self.strict,
        )
        made, seen, last, good, kept = make(count)
        made, (outputs, calm) = jax.device_get((made, seen))
        lasting = int(made) if good else int(made) - 1
        if lasting and not good:  # the steps before it once more, without it
            kept = make(lasting)[-1]
        place = Place(*kept, inputs[lasting - 1], targets[lasting - 1], self.nudges[1]) if lasting else None
        system.resume(place, last[1], met + int(made))
        for phase, status, fine in zip(("homeostatic", "clamped"), last, calm[made - 1], strict=True):
            if not fine and bool(status == Status.not_finite):
                raise LaboratoryError(f"{phase} phase: wanted finite readings. {Status[status]}")
            if not fine and self.strict:
                raise HomeostasisError(f"{phase} phase: {unsettled(status)}")
        return [_Step(outputs[k].astype(float), 0.0, int(np.sum(~calm[k]))) for k in range(made)]

    def _step(self, system: PhysicalSystem, x: Array, y: Array) -> _Step:
        """One example by the five verbs."""
        before = checked_reading(system.spec, system.read())
        limits = system.spec.parameters
        theta = before.parameters
        if limits.limited:
            theta = inside(theta, limits.lower, limits.upper, self.margin)
        first, second = self.nudges
        system.clamp(x)
        system.nudge(None if first == 0 else y, first)
        tolerance = None
        for attempt in range(1, _ATTEMPTS + 1):
            held = self.homeostat.hold(system, theta, tolerance)
            if not held.settled and self.strict:
                raise HomeostasisError(f"homeostatic phase: {describe(held)}")
            system.nudge(None if second == 0 else y, second)
            status = system.settle()
            after = checked_reading(system.spec, system.read())
            moved = after.parameters
            if held.at_noise or not held.settled or attempt == _ATTEMPTS:
                break
            # how finely the parameters must be held is known once the nudge has shown how far it moves them
            tolerance = self.precision * float(np.max(np.abs(moved - held.reading.parameters)))
            if held.error <= tolerance:
                break
            tolerance /= 2
            system.nudge(None if first == 0 else y, first)
        settled = bool(at_rest(status))
        if not settled and self.strict:
            raise HomeostasisError(f"clamped phase: {unsettled(status)}")
        outputs = _between(self._shares, held.reading.outputs, after.outputs)
        return _Step(outputs, held.error, [held.settled, settled].count(False))


@eqx.filter_jit
def _make_steps(
    simulation: Simulation,
    first: PyTree,
    examples: Sequence[Any],
    betas: Sequence[Any],
    shares: Any,
    counts: Any,
    margin: float,
    strict: bool,
) -> tuple[Any, tuple[Any, Any], tuple[Status, Status], Any, tuple[PyTree, PyTree, PyTree]]:
    """Steps of agnostic equilibrium propagation, example after example, up to the first that is bad.

    Bad is a step with a phase that is not finite or, if `strict`, that did not come to rest.

    Args:
        simulation, first: of the system, and its parameters.
        examples: inputs and targets, shape (steps, copies, ...).
        betas: of both phases, None for none.
        shares: of the outputs of both phases in the free ones.
        counts: (how many examples there were before, how many of these to take).
        margin, strict: of the rule.

    Returns (how many steps were made; the free outputs of each, and whether both phases came to rest; how
    those of the last step ended; whether that step is good; parameters, knobs and states at its end).
    """

    inputs, targets = examples

    def step(k, parameters):
        x, target = inputs[k], targets[k]
        keys = simulation.keys(counts[0] + 1 + k, x.shape[0])
        theta = simulation.inside(parameters, margin)
        nudge, stronger = (simulation.nudge(target, beta) for beta in betas)
        knobs, states, held = simulation.hold(theta, x, nudge, None, keys)
        moved, settled, status = simulation.settle(theta, knobs, x, stronger, states, keys)
        outputs = _between(shares, simulation.read(theta, states, x), simulation.read(moved, settled, x))
        seen = outputs, jnp.stack([at_rest(held), at_rest(status)])
        return seen, (held, status), (moved, knobs, settled)

    def advance(carry):
        k, (parameters, *_), seen, *_ = carry
        shown, last, moved = step(k, parameters)
        seen = jax.tree.map(lambda all, each: all.at[k].set(each), seen, shown)
        finite = [status != Status.not_finite for status in last]
        good = jnp.all(shown[1]) if strict else finite[0] & finite[1]
        return k + 1, moved, seen, last, good

    shapes = jax.eval_shape(step, counts[0], first)
    empty = lambda tree, *axes: jax.tree.map(lambda leaf: jnp.zeros((*axes, *leaf.shape), leaf.dtype), tree)
    kept = first, first, empty(shapes[2][2])
    start = counts[0] * 0, kept, empty(shapes[0], inputs.shape[0]), empty(shapes[1]), jnp.ones((), bool)
    going = lambda carry: carry[-1] & (carry[0] < counts[1])
    made, kept, seen, last, good = jax.lax.while_loop(going, advance, start)
    return whole((made, seen, last, good, kept))


def _between(shares: Any, first: Any, second: Any) -> Any:
    """The line through what both phases show, where no nudge acts."""
    return shares[0] * first + shares[1] * second
