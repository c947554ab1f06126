"""Whether equilibrium propagation can work on a physical system, and at which nudge: measured from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from learning.agnostic import AgnosticEP
from learning.costs import SquaredError
from learning.homeostat import IntegralControl
from learning.probing import (
    Defect,
    Experiment,
    Nudging,
    Probing,
    Rest,
    nudge_reciprocity,
    probe_knobs,
    probe_nudge,
    rest,
)
from substrates import explained
from substrates.laboratory.system import PhysicalSystem, Spec, checked_input, checked_nudge
from substrates.substrate import Cost

Array = np.ndarray

_RATE = 0.1
"""The part of a cost that a step should remove."""

_LEAST_STEP = 3.0
"""How far above the noise of the readings the parameters must move."""

_RETURN = 0.1
"""The part of what a nudge moves by which a system may fail to come back."""

_FINER = 3
"""How many sizes of step and nudge are tried, each a quarter of the last, before a law of reciprocity is broken."""


@dataclass(frozen=True)
class Calibration:
    """What was measured of a physical system at one input and one target.

    Attributes:
        system: its kind and its sizes.
        settles: how often it settled for that.
        unsettled: how often it did not come to rest without a nudge.
        cost: what the nudge adds.
        linear: the asymmetry up to which its answers to nudges count as linear.
        rest: what it shows with its knobs as found and no nudge, and the noise of its meters.
        probing: how the parameters and outputs answer to the knobs.
        nudging: how they answer to the nudge, at the strongest nudges +-beta that they answer linearly.
        nudge_reciprocity: the defect of <v/c, dtheta(nudge)> = epsilon <df, do(v)>; None where noise hides it.
        epsilon: compliance of the knobs, how far a parameter yields to a unit of force; None as above.
        progress: the part of the cost that a centred step of the suggested beta removes, to first order.
        moved: how far a parameter is at the end from where it was found.
    """

    system: str
    settles: int
    unsettled: int
    cost: Cost
    linear: float
    rest: Rest
    probing: Probing
    nudging: Nudging
    nudge_reciprocity: Defect | None
    epsilon: float | None
    progress: float | None
    moved: float

    @property
    def problems(self) -> tuple[str, ...]:
        """Sentences that say what was wanted, what was measured and what to do; none if the system is usable."""
        return tuple(_problems(self))

    @property
    def usable(self) -> bool:
        """Whether equilibrium propagation can work on the system, for all that can be seen from outside."""
        return not self.problems

    @property
    def beta(self) -> float:
        """The difference of the two nudges that is suggested, from -beta/2 to beta/2."""
        return 2 * self.nudging.beta

    @property
    def step(self) -> float:
        """How far the nudge +beta/2 moves a parameter at most."""
        return float(np.max(np.abs(self.nudging.parameters)))

    @property
    def parameter_return_bound(self) -> float:
        """How far a parameter may be from where it was after it went away and came back."""
        return max(2**0.5 * self.rest.parameter_bound, _RETURN * self.step)

    @property
    def output_return_bound(self) -> float:
        """The same for an output."""
        return max(2**0.5 * self.rest.output_bound, _RETURN * float(np.max(np.abs(self.nudging.outputs))))

    @property
    def hold_error(self) -> float:
        """How finely parameters can be held, for the noise of their readings and the levels of the knobs."""
        return max(self.rest.parameter_bound, self.probing.hold_error)

    @property
    def precision(self) -> float:
        """How finely parameters should be held, as a part of what a nudge moves: 1 %, or what is possible."""
        return float(np.clip(self.hold_error / self.step, 0.01, 0.5)) if self.step > 0 else 0.01

    @property
    def softer(self) -> float | None:
        """How much softer knobs (a larger epsilon) would remove a tenth of the cost in a step; below 1: stiffer."""
        return _RATE / self.progress if self.progress else None

    @property
    def homeostat(self) -> IntegralControl:
        """Integral control with the gain and the noise that were measured."""
        return IntegralControl(gain=1 / self.probing.typical, noise=self.hold_error)

    @property
    def rule(self) -> AgnosticEP:
        """Centred agnostic equilibrium propagation with the strength that was measured."""
        return AgnosticEP(self.beta, "centered", self.homeostat, precision=self.precision, cost=self.cost)

    def __str__(self) -> str:
        optional = lambda value: "below the noise" if value is None else f"{value:.3g}"
        defect = lambda law: optional(law and law.number)
        rows = [
            ("noise of outputs, parameters", f"{self.rest.output_noise:.2g}, {self.rest.parameter_noise:.2g}"),
            ("parameter not back by", f"{self.probing.parameter_return:.2g}"),
            ("parameter per knob", f"{self.probing.typical:.3g}"),
            ("dead knobs", ", ".join(map(str, self.probing.dead)) or "none"),
            ("knobs not reciprocal by", defect(self.probing.reciprocity)),
            ("nudge and knobs not reciprocal by", defect(self.nudge_reciprocity)),
            ("epsilon of the knobs", optional(self.epsilon)),
            ("linear up to beta", f"+-{self.nudging.beta:.3g}"),
            ("way to the target at that beta", f"{self.nudging.pull:.3g}"),
            ("asymmetry at that beta", f"{self.nudging.asymmetry:.2g}"),
            ("part of the cost removed per step", optional(self.progress)),
            ("softer knobs for a tenth of the cost", "" if self.softer is None else f"{self.softer:.3g} times"),
            ("settles", str(self.settles)),
        ]
        verdict = ["usable"] if self.usable else ["not usable:", *(f"- {problem}" for problem in self.problems)]
        return "\n".join([self.system, *(f"  {name:<38}{value}" for name, value in rows), *verdict])


def calibrate(
    system: PhysicalSystem,
    x: Float[Array, "*copies inputs"],
    y: Float[Array, "*copies outputs"],
    *,
    cost: Cost | None = None,
    compliance: Float[Array, "knobs"] | float = 1.0,
    step: float = 0.02,
    pairs: int = 4,
    repeats: int = 8,
    linear: float = 0.1,
    seed: int = 0,
) -> Calibration:
    """Checks by the five verbs alone whether equilibrium propagation can work on a physical system.

    At rest (theta, s) minimises sum_i |u_i - theta_i|^2/(2 epsilon c_i) + E(theta, s, x) + beta C(o, y), if there is
    such an energy. Then H, its second derivative, is symmetric, and so are the answers to small forces. A knob is a
    force du_i/(epsilon c_i) on its parameter, a nudge a force f = -beta dC/do on the outputs. Hence, with c_i the
    relative compliances of the knobs, for any directions v, w of the knobs and their answers R v, R w,

        <w/c, R v> = <v/c, R w>                            (knobs)
        <v/c, dtheta(nudge)> = epsilon <df, do(v)>         (nudge and knobs)

    where forces are means over copies. dtheta/du itself is symmetric only for knobs that are equally soft; for others
    give `compliance`. The second law says that a nudge moves the parameters down the gradient of the cost, and measures
    epsilon. The first is tried on directions without a common knob, so that <w, R v> holds nothing but the coupling.

    The system is left as it was found, inputs and nudge removed, also when this raises.

    Args:
        system: on the bench.
        x: the input, as the system's clamp takes it: one example, or one for each copy.
        y: the target, as its nudge takes it; not what the system shows anyway.
        cost: what the nudge adds, beta cost(output, target); by default `SquaredError`, a spring.
        compliance: how soft the knobs are relative to one another, c.
        step: how far knobs are turned, as a part of where they stand, and not by less than ten times the noise of the
            parameters.
        pairs: pairs of random directions of the knobs; each settles four times.
        repeats: readings at rest, for the noise.
        linear: the asymmetry |o(b) + o(-b) - 2 o(0)| / |o(b) - o(-b)| up to which outputs answer linearly to a nudge b.
            A reciprocity that seems broken is tried again with a quarter and a sixteenth of this and of the step:
            where a kink (a diode, a saturated unit) was crossed, it is not.
        seed: of the directions.

    Returns a `Calibration`, which prints as a table.
    Raises ValueError for arguments that do not fit, and LaboratoryError where the system shows what is no number.

    Source: Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021, for the total energy; Onsager 1931,
    "Reciprocal relations in irreversible processes", for the kind of law.
    """
    if not isinstance(system, PhysicalSystem):
        raise TypeError(
            f"system: wanted a PhysicalSystem, got {type(system).__name__}; put a substrate on the bench with "
            "Plant(substrate, epsilon)"
        )
    spec = system.spec
    x, y = _task(spec, x, y)
    softness = np.broadcast_to(np.asarray(compliance, float), np.shape(compliance) or (spec.knobs.size,))
    if softness.shape != (spec.knobs.size,) or not np.all((softness > 0) & (softness < np.inf)):
        raise ValueError(f"compliance: wanted positive numbers, one or shape ({spec.knobs.size},), got {compliance!r}")
    for name, value in {"step": step, "linear": linear}.items():
        if not 0 < value < 1:
            raise ValueError(f"{name}: wanted a number between 0 and 1, got {value!r}")
    for name, value, least in (("pairs", pairs, 1), ("repeats", repeats, 2)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: wanted a whole number from {least}, got {value!r}")
    cost = SquaredError() if cost is None else cost
    with Experiment(system) as experiment:
        system.clamp(x)
        free = rest(experiment, repeats)
        experiment.noise = free.parameter_bound
        for part in (4.0**-finer for finer in range(_FINER)):
            nudging = probe_nudge(experiment, free, y, cost, part * linear)
            probing = probe_knobs(experiment, free, softness, part * step, pairs, np.random.default_rng(seed))
            experiment.noise = max(free.parameter_bound, probing.hold_error)
            defect, epsilon, progress = nudge_reciprocity(free, probing, nudging, softness)
            if all(law is None or law.holds for law in (probing.reciprocity, defect)):
                break
    return Calibration(
        f"{type(system).__name__}: {spec.knobs.size} knobs, {spec.inputs.size} inputs, {spec.outputs.size} outputs",
        experiment.settles,
        experiment.unsettled,
        cost,
        linear,
        free,
        probing,
        nudging,
        defect,
        epsilon,
        progress,
        experiment.moved,
    )


def _task(spec: Spec, x: Any, y: Any) -> tuple[Array, Array]:
    """The input and the target, refused where the system would refuse them."""
    if x is None or y is None:
        raise ValueError("x, y: wanted an input and a target, got None: give an example that the system should learn")
    try:
        return checked_input(spec, x), checked_nudge(spec, y, 1.0)[0]
    except ValueError as error:
        raise ValueError(f"x, y: {error}; give them as the system's clamp and nudge take them") from error


def _problems(calibration: Calibration) -> list[str]:
    free, probing, nudging = calibration.rest, calibration.probing, calibration.nudging
    found = []
    listed = lambda numbers: ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
    if calibration.unsettled:
        found.append(
            f"rest: wanted the system to come to rest, got {calibration.unsettled} of "
            f"{calibration.settles} times when it did not: give it more time (`Patience`)"
        )
    for name, back, bound in (
        ("parameters", probing.parameter_return, calibration.parameter_return_bound),
        ("outputs", probing.output_return, calibration.output_return_bound),
    ):
        if back > bound:
            found.append(
                f"{name}: wanted them back after the knobs went away and came back, within {bound:.2g} (the noise, or "
                f"{_RETURN:.0%} of what a nudge moves), got {back:.2g}: look for play, drift, or a second state of rest"
            )
    if probing.dead:
        found.append(
            f"knobs: wanted every parameter to follow its knob, got no answer from {len(probing.dead)} "
            f"({listed(probing.dead)}): repair them, turn them further (step=), or leave their parameters out"
        )
    short = probing.short(nudging.parameters)
    if short:
        found.append(
            f"knobs: wanted room for twice what a nudge asks of them, got less at {len(short)} ({listed(short)}): "
            "widen their range or start further from its ends"
        )
    if not probing.hold_error < calibration.step / 2 and probing.knob_error > 0:
        found.append(
            f"knobs: wanted to set them more finely than the {calibration.step:.2g} that a nudge moves a parameter, "
            f"got them {probing.knob_error:.2g} from where they were set: use finer levels, or softer knobs"
        )
    for name, law in (("knobs", probing.reciprocity), ("nudge and knobs", calibration.nudge_reciprocity)):
        if law is not None and not law.holds:
            found.append(
                f"reciprocity of {name}: wanted a defect of at most {law.bound:.2g}, got {law.number:.2g}: no energy "
                "holds the system and its knobs together, or the knobs are not equally soft (compliance=)"
            )
    if not nudging.pull > 0:
        found.append(
            f"nudge: wanted the outputs to move towards the target for beta > 0, got {nudging.pull:.2g} of the way at "
            f"beta = {nudging.beta:.2g}: look for a reversed sign, or outputs that are not nudged"
        )
    if nudging.asymmetry > calibration.linear + 3 * nudging.asymmetry_noise:
        found.append(
            f"nudge: wanted opposite answers to +-beta, within {calibration.linear:.2g}, got {nudging.asymmetry:.2g} "
            f"even at beta = {nudging.beta:.2g}: look for friction, a diode at its knee, or too much noise"
        )
    if not calibration.step > _LEAST_STEP * free.parameter_resolution:
        found.append(
            f"nudge: wanted the parameters to move by {_LEAST_STEP:g} times the noise of their readings, "
            f"{free.parameter_resolution:.2g}, got {calibration.step:.2g}: soften the knobs, or read more finely; see "
            f"{explained.STRENGTH}"
        )
    return found
