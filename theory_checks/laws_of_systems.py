"""Laws of physical systems: what their verbs do, and what agnostic equilibrium propagation does with them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from learning.calibration import Calibration
from learning.homeostat import HomeostasisError
from learning.probing import DEFECT, HIDDEN, Experiment, each
from substrates.laboratory.system import Reading, Spec
from theory_checks.report import Law, at_least, at_most, broken, does_not_apply

Array = np.ndarray

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(3)
_READINGS = 5
"""How many readings are taken in a row."""


@dataclass(frozen=True)
class Trial:
    """A system at its input, with its calibration.

    Attributes:
        experiment: of the system, which stays at its input.
        calibration: at this input and target.
        x, y: input and target.
        softness: the relative compliances of the knobs, shape (knobs,).
    """

    experiment: Experiment
    calibration: Calibration
    x: Array
    y: Array
    softness: Array

    @property
    def spec(self) -> Spec:
        """Of the system."""
        return self.experiment.system.spec

    def rows(self, values: Array) -> Array:
        """Outputs or targets, copy by copy."""
        return values.reshape(self.spec.copies or 1, -1)

    def costs(self, reading: Reading) -> float:
        """The mean over copies."""
        return float(np.mean(each(self.calibration.cost, self.rows(reading.outputs), self.rows(self.y))))

    def slope(self, reading: Reading) -> Array:
        """dC/do, the mean over copies, shape (outputs of all copies,)."""
        slopes = each(jax.grad(self.calibration.cost), self.rows(reading.outputs), self.rows(self.y))
        return slopes.ravel() / (self.spec.copies or 1)

    def held(self, theta: Array, beta: float = 0.0) -> Reading:
        """What is shown under a nudge with the parameters held. Raises HomeostasisError where they cannot be."""
        self.experiment.system.nudge(self.y, beta)
        tolerance = self.calibration.precision * self.calibration.step
        found = self.experiment.hold(self.calibration.homeostat, theta, tolerance)
        if not found.settled:
            raise HomeostasisError(f"a parameter is {found.error:.2g} from where it should be held")
        return found.reading

    def step(self) -> Array:
        """The parameters after a step of the rule."""
        batch = (self.x, self.y) if self.spec.copies else (self.x[None], self.y[None])
        self.calibration.rule.step(self.experiment.system, *batch)
        return self.experiment.system.read().parameters


def calibrated(trial: Trial) -> Iterator[Law]:
    """What the calibration measured."""
    calibration = trial.calibration
    probing, nudging = calibration.probing, calibration.nudging
    yield at_most("readings", "Readings that are not finite, or not of the shape that the spec says.", 0, 0)
    yield at_most("rest", "Settlings without a nudge that did not come to rest.", calibration.unsettled, 0)
    for name, number, bound in (
        ("parameters", probing.parameter_return, calibration.parameter_return_bound),
        ("outputs", probing.output_return, calibration.output_return_bound),
    ):
        yield at_most(f"return of {name}", f"How far {name} are off after the knobs went and came back.", number, bound)
    yield at_most("knobs", "Knobs that their parameters do not follow.", len(probing.dead), 0)
    yield at_most("range", "Knobs without room to hold a parameter.", len(probing.short(nudging.parameters)), 0)
    for name, defect, compared in (
        ("knobs", probing.reciprocity, "<w/c, R v> with <v/c, R w>, R the answer of the parameters to the knobs."),
        (
            "nudge and knobs",
            calibration.nudge_reciprocity,
            "What a nudge does to the parameters with what the knobs do to the outputs.",
        ),
    ):
        law = f"reciprocity of {name}"
        if defect is None:
            yield does_not_apply(law, "What should be equal is below the noise of the readings.")
        else:
            yield at_most(law, compared, defect.number, defect.bound)
    distance = float(np.linalg.norm(trial.y - calibration.rest.reading.outputs))
    least = calibration.rest.output_resolution / distance
    yield at_least("pull", "Part of the way to the target that the outputs go under beta > 0.", nudging.pull, least)
    if nudging.asymmetry_noise > 1:
        yield does_not_apply("opposite nudges", "What nudges do to the outputs is below the noise of the readings.")
    else:
        compared = "|o(beta) + o(-beta) - 2 o(0)| with |o(beta) - o(-beta)|."
        bound = calibration.linear + 3 * nudging.asymmetry_noise
        yield at_most("opposite nudges", compared, nudging.asymmetry, bound)
    yield _yielding(calibration)


def _yielding(calibration: Calibration) -> Law:
    rest = calibration.rest
    if calibration.step <= 3 * rest.parameter_resolution < 6 * rest.parameter_noise:
        return does_not_apply("yielding", "Noise hides what a nudge does to the parameters.")
    compared = "How far a nudge moves a parameter, in the resolution of the readings."
    return at_least("yielding", compared, calibration.step / rest.parameter_resolution, 3)


def verbs(trial: Trial) -> Iterator[Law]:
    """What the verbs refuse, and what they leave alone."""
    experiment, rest = trial.experiment, trial.calibration.rest
    before = experiment.settle()
    difference = lambda a, b: max(
        float(np.max(np.abs(a.outputs - b.outputs))) / rest.output_bound,
        float(np.max(np.abs(a.parameters - b.parameters))) / rest.parameter_bound,
    )
    shown = [experiment.system.read() for _ in range(_READINGS)]
    worst = max(difference(each, before) for each in [*shown, experiment.settle()])
    yield at_most("reading", "Readings one after the other, in what noise reaches.", worst, 2)
    yield _clamped(trial, before)
    zero = experiment.settle(None, trial.y, 0.0)
    yield at_most("no nudge", "The same after a nudge of beta = 0, in what noise reaches.", difference(zero, before), 2)
    accepted = [name for name, verb in _nonsense(trial) if not _refuses(trial, verb)]
    compared = "Calls without sense that raise no ValueError" + (f": {', '.join(accepted)}." if accepted else ".")
    yield at_most("refusals", compared, len(accepted), 0)
    after = experiment.settle()
    yield at_most("kept", "Readings after refused calls, in what noise reaches.", difference(after, before), 2)


def _clamped(trial: Trial, before: Reading) -> Law:
    """The clamped input acts: another one, within its range, moves outputs or parameters."""
    experiment, rest, ends = trial.experiment, trial.calibration.rest, trial.spec.inputs
    step = lambda end, aside: np.where(np.isfinite(end), (trial.x + np.where(np.isfinite(end), end, 0.0)) / 2, aside)
    up, down = step(ends.upper, trial.x + 0.5), step(ends.lower, trial.x - 0.5)
    other = np.where(up != trial.x, up, down)
    experiment.system.clamp(other)
    moved = experiment.settle()
    experiment.system.clamp(trial.x)
    experiment.settle()
    change = max(
        float(np.max(np.abs(moved.outputs - before.outputs))) / max(rest.output_resolution, 1e-300),
        float(np.max(np.abs(moved.parameters - before.parameters))) / max(rest.parameter_resolution, 1e-300),
    )
    if change <= 3 and rest.output_resolution < 2 * rest.output_noise:
        return does_not_apply("clamp", "Noise hides what another input does.")
    compared = "How far another clamped input moves outputs or parameters, in the resolution of the readings."
    return at_least("clamp", compared, change, 3)


def _nonsense(trial: Trial) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Calls that every system must refuse."""
    system, spec, knobs = trial.experiment.system, trial.spec, trial.calibration.rest.reading.knobs
    nan = lambda values: np.full(np.shape(values), np.nan)
    longer = lambda values: np.concatenate([values, values[..., :1]], axis=-1)
    for name, verb, good in (
        ("set_knobs", system.set_knobs, knobs),
        ("clamp", system.clamp, trial.x),
        ("nudge", lambda target: system.nudge(target, trial.calibration.beta), trial.y),
    ):
        yield f"{name} of a wrong shape", lambda verb=verb, good=good: verb(longer(good))
        yield f"{name} with NaN", lambda verb=verb, good=good: verb(nan(good))
    yield "nudge without a target", lambda: system.nudge(None, trial.calibration.beta)
    yield "nudge of infinite beta", lambda: system.nudge(trial.y, np.inf)
    for end, sign in ((spec.knobs.lower, -1), (spec.knobs.upper, 1)):
        beyond = np.where(np.isfinite(end), end + sign * (1 + np.abs(end)), knobs)
        if np.any(beyond != knobs):
            yield "set_knobs out of range", lambda beyond=beyond: system.set_knobs(beyond)


def _refuses(trial: Trial, verb: Callable[[], Any]) -> bool:
    """Whether a call raises a ValueError; what it did otherwise is undone."""
    try:
        verb()
    except ValueError:
        return True
    except Exception:
        pass
    system = trial.experiment.system
    system.set_knobs(trial.calibration.rest.reading.knobs)
    system.clamp(trial.x)
    system.nudge(None, 0.0)
    return False


def learning(trial: Trial, steps: int) -> list[Law]:
    """The step and what it does to the cost."""
    names = ("holding", "bias", "gradient", "descent", "mean cost")
    calibration = trial.calibration
    if not (calibration.nudging.pull > 0 and calibration.step > 3 * calibration.rest.parameter_resolution):
        reason = "No step can be seen: the nudge does not pull, or noise hides what it does to the parameters."
        return [does_not_apply(name, reason) for name in names]
    laws: list[Law] = []
    try:
        theta = calibration.rest.reading.parameters
        trial.experiment.settle(calibration.rest.reading.knobs)
        laws.append(_bias(trial))
        laws += [_holding(trial, theta), *_one_step(trial, theta), _mean_cost(trial, theta, steps)]
    except HomeostasisError as error:
        laws.append(broken("holding", f"Parameters are held under nudges: {error}"))
        done = [law.name for law in laws]
        laws += [does_not_apply(name, "The parameters cannot be held.") for name in names if name not in done]
    return laws


def _holding(trial: Trial, theta: Array) -> Law:
    calibration = trial.calibration
    found = trial.held(theta, -calibration.beta / 2)
    bound = max(calibration.precision * calibration.step, calibration.hold_error)
    error = np.max(np.abs(found.parameters - theta))
    return at_most("holding", "How far parameters are from where they are held, nudged.", error, bound)


def _bias(trial: Trial) -> Law:
    """D(b) = (theta(b) - theta(-b))/2b, from differences of D at b, b/2 and b/4: the error is of order b^2."""
    beta = trial.calibration.beta / 2
    strengths = [beta, beta / 2, beta / 4]
    moved = lambda b: trial.experiment.settle(None, trial.y, b).parameters
    slopes = [(moved(b) - moved(-b)) / (2 * b) for b in strengths]
    trial.experiment.settle()
    first, second = (float(np.linalg.norm(a - b)) for a, b in itertools.pairwise(slopes))
    noise = 4 * trial.calibration.rest.parameter_resolution * slopes[0].size ** 0.5 / beta
    if second * HIDDEN < noise:
        return does_not_apply("bias", "The bias of centred nudges is below the noise.")
    return at_least("bias", "The order in beta of the error of centred nudges.", np.log2(first / second), 1.7)


def _one_step(trial: Trial, theta: Array) -> Iterator[Law]:
    """A step of the rule against differences of the cost along random directions, and what it does to the cost."""
    calibration, probing, rest = trial.calibration, trial.calibration.probing, trial.calibration.rest
    moved = trial.step() - theta
    slope = trial.slope(rest.reading)
    rises, promised = probing.outputs @ slope, -(probing.parameters / trial.softness) @ moved
    size, square = float(np.linalg.norm(rises)), float(promised @ promised)
    noise = np.hypot(
        rest.output_resolution * float(np.linalg.norm(slope)) * (2 * rises.size) ** 0.5 / max(size, 1e-300),
        rest.parameter_resolution * float(np.linalg.norm(probing.parameters)) * 2**0.5 / max(square**0.5, 1e-300),
    )
    if noise > HIDDEN:
        yield does_not_apply("gradient", "Noise hides the step, or what it should be compared with.")
    else:
        rate = float(rises @ promised) / square
        follow = np.linalg.norm(probing.parameters - probing.turns) / np.linalg.norm(probing.parameters)
        yield at_most(
            "gradient",
            "The step with differences of the cost along random directions of the parameters.",
            np.linalg.norm(rises - rate * promised) / size if rate > 0 else np.inf,
            DEFECT + follow + 2 * calibration.precision + 3 * noise,
        )
    after, before = trial.held(theta + moved), trial.held(theta)
    if calibration.epsilon is None or not calibration.epsilon > 0:
        yield does_not_apply(
            "descent", "How far the cost should fall is not known without the compliance of the knobs."
        )
        return
    # the knobs that make the same change of held parameters count, as in the law of nudge and knobs
    turned = (after.knobs - before.knobs) / trial.softness
    wanted = float(turned @ moved) / (calibration.epsilon * calibration.beta)
    share = _cost_noise(trial) / max(abs(wanted), 1e-300)
    if share > HIDDEN:
        yield does_not_apply("descent", "Noise hides the fall of the cost.")
    else:
        drop = trial.costs(before) - trial.costs(after)
        bound = 2 * DEFECT + abs(wanted) / calibration.nudging.cost + 2 * calibration.precision + 3 * share
        compared = "The fall of the cost in a step with <step, knobs that hold it> / (epsilon beta), less one."
        yield at_most("descent", compared, abs(drop / wanted - 1), bound)


def _mean_cost(trial: Trial, theta: Array, steps: int) -> Law:
    """The mean of the cost over nudges from -beta/2 to beta/2, parameters held: the Lyapunov function of the rule."""
    nudges = trial.calibration.beta / 2 * _NODES
    shown = [_mean(trial, theta, nudges)]
    for _ in range(steps):
        trial.held(theta)
        theta = trial.step()
        shown.append(_mean(trial, theta, nudges))
    noise = 3 * _cost_noise(trial) / shown[0]
    if noise > 1 - shown[-1] / shown[0] and max(np.diff(shown)) < noise * shown[0]:
        return does_not_apply("mean cost", f"Noise hides the fall of the cost in {steps} steps.")
    compared = f"The largest rise in a step of the mean cost over the nudges, in {steps} steps, with that cost."
    return at_most("mean cost", compared, max(np.diff(shown)) / shown[0], noise)


def _mean(trial: Trial, theta: Array, nudges: Array) -> float:
    costs = [trial.costs(trial.held(theta, float(beta))) for beta in nudges]
    return float(_WEIGHTS @ costs) / 2


def _cost_noise(trial: Trial) -> float:
    """The standard deviation of a difference of two costs."""
    rest = trial.calibration.rest
    return 2**0.5 * rest.output_resolution * float(np.linalg.norm(trial.slope(rest.reading)))
