"""What a physical system shows from outside: its noise, and how it answers to its knobs and to a nudge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from learning.homeostat import Held, Homeostat, IntegralControl
from substrates.laboratory.system import LaboratoryError, PhysicalSystem, Reading, Terminals, checked_reading
from substrates.substrate import Cost, at_rest

Array = np.ndarray

_ROUNDS_BACK = 20
"""How often the system may settle until its parameters are back."""

_BACK = 1e-8
"""How near they must come, as a part of the largest."""

_ROUNDING = 1e-9
"""The finest resolution of a meter that is believed, as a part of the largest reading."""

_LEAST_TURN = 10.0
"""Knobs are turned by this many times the noise of the parameters at least."""

_DEAD = 0.25
"""A knob that moves its parameter by less than this part of what is usual is dead."""

_MOST_TURNED_ALONE = 16
"""How many knobs that seem dead are turned alone, to be sure."""

DEFECT = 0.05
"""How unequal numbers may be that should be equal, for steps that are small but not infinitely so."""

HIDDEN = 0.1
"""Noise that is a larger part of the numbers that should be equal hides whether they are."""

_WAY = 0.1
"""How far a nudge should pull the outputs towards the target."""

_TRIES = 12
"""How many strengths are tried on the way to the right one, and then for a linear answer."""


class Experiment:
    """An experiment on a physical system by its five verbs, in a `with` block.

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


@dataclass(frozen=True)
class Defect:
    """How unequal two rows of numbers are that should be equal.

    Attributes:
        number: the length of their difference, relative to their own.
        bound: what it may be, with the noise that there is.
    """

    number: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the bound is met."""
        return self.number <= self.bound


@dataclass(frozen=True)
class Rest:
    """What a system shows at rest, the mean of repeated readings, and the noise of its meters.

    Attributes:
        reading: the mean; knobs as they stand.
        output_noise, parameter_noise: standard deviations of a reading after a new settling.
        output_resolution, parameter_resolution: the same, not below the error that the readings state and rounding.
    """

    reading: Reading
    output_noise: float
    parameter_noise: float
    output_resolution: float
    parameter_resolution: float

    @property
    def output_bound(self) -> float:
        """What noise alone hardly ever exceeds in any output."""
        return self.output_resolution * _surely(self.reading.outputs.size)

    @property
    def parameter_bound(self) -> float:
        """What noise alone hardly ever exceeds in any parameter."""
        return self.parameter_resolution * _surely(self.reading.parameters.size)


@dataclass(frozen=True)
class Probing:
    """How a system answers to its knobs.

    Attributes:
        gain: dtheta_i/du_i, shape (knobs,); NaN for knobs that could not be turned.
        dead: numbers of the knobs that their parameters do not follow.
        at_limit: numbers of the parameters that rest at a physical limit, whose knobs were not turned.
        room: how far each knob can go both ways, shape (knobs,).
        knob_error: the largest distance of a knob, as the dial shows it, from where it was set.
        parameter_return, output_return: the largest distance from rest after going away and coming back.
        reciprocity: the defect of <w/c, R v> = <v/c, R w>; None where noise hides it.
        turns: of the knobs, v, shape (directions, knobs), zero for dead ones.
        parameters: the answers R v, shape (directions, parameters).
        outputs: of the outputs, shape (directions, outputs of all copies).
    """

    gain: Float[Array, "knobs"]
    dead: tuple[int, ...]
    at_limit: tuple[int, ...]
    room: Float[Array, "knobs"]
    knob_error: float
    parameter_return: float
    output_return: float
    reciprocity: Defect | None
    turns: Float[Array, "directions knobs"] = field(repr=False)
    parameters: Float[Array, "directions parameters"] = field(repr=False)
    outputs: Float[Array, "directions all_outputs"] = field(repr=False)

    @property
    def typical(self) -> float:
        """The median gain of the knobs that are alive, 1 if there are none."""
        alive = np.delete(self.gain, self.dead)
        alive = alive[np.isfinite(alive) & (alive > 0)]
        return float(np.median(alive)) if alive.size else 1.0

    @property
    def hold_error(self) -> float:
        """How far from where it should be a parameter may be held, for knobs that stand only on levels."""
        return 2 * self.typical * self.knob_error

    def short(self, moved: Float[Array, "parameters"]) -> tuple[int, ...]:
        """The knobs without room for twice what it takes to hold parameters that a nudge would move so far."""
        needed = np.maximum(2 * np.abs(moved) / self.typical, np.finfo(float).tiny)
        return tuple(int(knob) for knob in np.flatnonzero(self.room < needed) if knob not in self.at_limit)


@dataclass(frozen=True)
class Nudging:
    """How a system answers to nudges of +-beta, its knobs at rest.

    Attributes:
        beta: the strength.
        outputs, parameters: how far the nudge +beta moves them beyond -beta, halved.
        force: -beta dC/do of +beta less that of -beta, halved, mean over copies, shape (outputs of all copies,).
        cost: without a nudge.
        pull: the part of the way to the target that a nudge +beta makes, halved difference as above.
        asymmetry: |o(beta) + o(-beta) - 2 o(0)| / |o(beta) - o(-beta)|.
        asymmetry_noise: what noise may add to that.
    """

    beta: float
    outputs: Float[Array, "all_outputs"]
    parameters: Float[Array, "parameters"]
    force: Float[Array, "all_outputs"]
    cost: float
    pull: float
    asymmetry: float
    asymmetry_noise: float

    @property
    def output_gain(self) -> float:
        """The length of d output/d beta."""
        return float(np.linalg.norm(self.outputs)) / self.beta

    @property
    def parameter_gain(self) -> Float[Array, "parameters"]:
        """d theta/d beta."""
        return self.parameters / self.beta


def rest(experiment: Experiment, repeats: int) -> Rest:
    """Settles and reads again and again, knobs and inputs as they are."""
    experiment.settle()
    shown = [experiment.settle() for _ in range(repeats)]
    outputs, parameters = (np.stack([getattr(r, name) for r in shown]) for name in ("outputs", "parameters"))
    noise = lambda values: float(np.sqrt(np.mean(np.var(values, axis=0, ddof=1))))
    finest = lambda values, stated: max(noise(values), stated or 0.0, _ROUNDING * float(np.max(np.abs(values))))
    return Rest(
        Reading(outputs.mean(axis=0), parameters.mean(axis=0), shown[-1].knobs),
        noise(outputs),
        noise(parameters),
        finest(outputs, shown[0].output_error),
        finest(parameters, shown[0].parameter_error),
    )


def probe_knobs(
    experiment: Experiment,
    free: Rest,
    softness: Float[Array, "knobs"],
    step: float,
    pairs: int,
    draw: np.random.Generator,
) -> Probing:
    """Turns half of the knobs, drawn at random with random signs, forth and back; then the other half; and so on."""
    spec, knobs = experiment.system.spec, free.reading.knobs
    room = np.minimum(*_distances(spec.knobs, knobs))
    sizes, at_limit = _turns(free, step, room, np.minimum(*_distances(spec.parameters, free.reading.parameters)))
    turns, parameters, outputs, returns, errors = [], [], [], [], []

    def turn(by: Array, sign: int) -> tuple[Array, Array, Array]:
        first, second = experiment.settle(knobs + sign * by), experiment.settle(knobs - sign * by)
        errors.append(np.max(np.abs(first.knobs - (knobs + sign * by))))
        names = ("knobs", "parameters", "outputs")
        by, parameter, output = (sign * (getattr(first, n) - getattr(second, n)).ravel() for n in names)
        return by, parameter, output

    for pair in range(pairs):
        half = draw.permutation(knobs.size) < knobs.size // 2
        signs = draw.choice([-1.0, 1.0], knobs.size)
        for side, chosen in ((1, half), (-1, ~half)):
            by, parameter, output = turn(signs * sizes * chosen, side)
            turns.append(by)
            parameters.append(parameter)
            outputs.append(output)
            if pair == 0:
                returns.append(experiment.settle(knobs))
    turned, followed, shown = np.stack(turns), np.stack(parameters), np.stack(outputs)
    squares = np.sum(turned**2, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = np.where(squares > 0, np.sum(turned * followed, axis=0) / squares, np.nan)
        noise = np.sqrt(2) * free.parameter_bound / np.sqrt(squares)
        weak = np.flatnonzero(gain <= np.maximum(2 * _DEAD * np.nanmedian(gain), noise)) if np.any(squares) else []
    for knob in weak[:_MOST_TURNED_ALONE]:
        by, parameter, _ = turn(sizes * (np.arange(knobs.size) == knob), 1)
        gain[knob] = parameter[knob] / by[knob] if by[knob] else 0.0
    dead = [int(knob) for knob in weak if gain[knob] <= max(_DEAD * np.nanmedian(gain), noise[knob])]
    turned[:, dead] = 0.0
    distance = lambda name: max(float(np.max(np.abs(getattr(r, name) - getattr(free.reading, name)))) for r in returns)
    crossed = np.sum(turned / softness * followed[_partners(2 * pairs)], axis=1)
    scale = np.sqrt(2) * free.parameter_resolution * np.linalg.norm(turned / softness, axis=1)
    experiment.settle(knobs)
    return Probing(
        gain,
        tuple(dead),
        at_limit,
        room,
        float(max(errors)),
        distance("parameters"),
        distance("outputs"),
        _defect(crossed[::2], crossed[1::2], float(np.linalg.norm(scale))),
        turned,
        followed,
        shown,
    )


def probe_nudge(
    experiment: Experiment, free: Rest, y: Float[Array, "*copies outputs"], cost: Cost, linear: float
) -> Nudging:
    """Finds the strongest nudges +-beta that outputs answer linearly, up to a tenth of the way, and what they do."""
    shown = free.reading.outputs
    far = (y - shown).ravel()
    distance = float(np.linalg.norm(far))
    if not distance > free.output_bound:
        raise ValueError(
            f"y: wanted a target that the system does not show anyway, got one within {distance:.2g} of its outputs, "
            f"where noise reaches {free.output_bound:.2g}: choose another, or read more finely"
        )
    floor = free.output_bound / distance
    beta = _strength(experiment, y, lambda reading: float((reading.outputs - shown).ravel() @ far) / distance**2, floor)
    first, calm = _nudged(experiment, free, y, cost, far, beta)
    tried, good, bad = first, None, np.inf
    for _ in range(_TRIES):
        if calm and tried.asymmetry <= linear + tried.asymmetry_noise:
            good = tried
        else:
            bad = tried.beta
        if good is None:
            beta = tried.beta * (float(np.clip(0.8 * linear / tried.asymmetry, 0.1, 0.8)) if calm else 0.25)
        elif np.isfinite(bad) and bad > 2 * good.beta and good.asymmetry < linear / 3:
            beta = float(np.sqrt(good.beta * bad))
        else:
            return good
        tried, calm = _nudged(experiment, free, y, cost, far, beta)
        if tried.asymmetry_noise > linear:  # weaker nudges tell nothing
            break
    return good or first


def nudge_reciprocity(
    free: Rest, probing: Probing, nudging: Nudging, softness: Float[Array, "knobs"]
) -> tuple[Defect | None, float | None, float | None]:
    """(defect, epsilon, progress) of <v/c, dtheta(nudge)> = epsilon <df, do(v)>; None where noise hides them."""
    left, right = (probing.turns / softness) @ nudging.parameters, probing.outputs @ nudging.force
    size, square = float(np.linalg.norm(left)), float(right @ right)
    noise = free.parameter_resolution * float(np.linalg.norm(probing.turns / softness)) / 2**0.5
    output_noise = free.output_resolution * float(np.linalg.norm(nudging.force)) * (2 * left.size) ** 0.5
    if not (size > 0 and square > 0):
        return None, None, None
    share = float(np.hypot(noise / size, output_noise / square**0.5))
    if share > HIDDEN:
        return None, None, None
    epsilon = float(left @ right) / square
    defect = Defect(float(np.linalg.norm(left - epsilon * right)) / size, DEFECT + 3 * share)
    if not epsilon > 0:
        return defect, epsilon, None
    drop = 2 * float(np.sum(nudging.parameters**2 / softness)) / (epsilon * nudging.beta)
    return defect, epsilon, drop / nudging.cost if nudging.cost > 0 else None


def each(function: Callable, outputs: Float[Array, "copies outputs"], targets: Float[Array, "copies outputs"]) -> Array:
    """A cost, or its slope, copy by copy."""
    return np.asarray(jax.vmap(function)(jnp.asarray(outputs), jnp.asarray(targets)), float)


def _turns(free: Rest, step: float, room: Array, inside: Array) -> tuple[Array, tuple[int, ...]]:
    """How far each knob is turned both ways, and the numbers of the parameters at a physical limit."""
    sizes = np.abs(free.reading.knobs)
    usual = float(np.sqrt(np.mean(sizes**2))) or 1.0
    wanted = np.maximum(step * np.clip(sizes, 0.1 * usual, usual), _LEAST_TURN * free.parameter_resolution)
    turns = np.minimum(wanted, np.minimum(room, inside / 2))
    at_limit = tuple(int(knob) for knob in np.flatnonzero(inside / 2 < 0.1 * wanted))
    return np.where(turns < 0.1 * wanted, 0.0, turns), at_limit


def _distances(terminals: Terminals, values: Array) -> tuple[Array, Array]:
    """From the lower and from the upper end of the range."""
    return values - terminals.lower, terminals.upper - values


def _defect(first: Array, second: Array, noise: float) -> Defect | None:
    """|first - second| over the length of both; None where noise hides it."""
    size = float(np.hypot(np.linalg.norm(first), np.linalg.norm(second)))
    if not noise < HIDDEN * size:
        return None
    return Defect(float(np.linalg.norm(first - second)) / size, DEFECT + 3 * noise / size)


def _partners(count: int) -> Array:
    """1, 0, 3, 2, and so on."""
    return np.arange(count) ^ 1


def _surely(count: int) -> float:
    """Standard deviations that none of so many normal numbers exceeds, but once in some hundred times."""
    return float(np.sqrt(2 * np.log(100 * count)))


def _nudged(experiment: Experiment, free: Rest, y: Array, cost: Cost, far: Array, beta: float) -> tuple[Nudging, bool]:
    """What nudges +-beta do, and whether the system came to rest under both."""
    plus, calm = experiment.settle(None, y, beta), experiment.at_rest
    minus = experiment.settle(None, y, -beta)
    shown, copies = free.reading.outputs, experiment.system.spec.copies or 1
    odd, even = (plus.outputs - minus.outputs).ravel(), (plus.outputs + minus.outputs - 2 * shown).ravel()
    size = max(float(np.linalg.norm(odd)), np.finfo(float).tiny)
    rows = lambda values: values.reshape(copies, -1)
    slope = lambda reading: each(jax.grad(cost), rows(reading.outputs), rows(y)).ravel() / copies
    nudging = Nudging(
        beta,
        odd / 2,
        (plus.parameters - minus.parameters) / 2,
        -beta * (slope(plus) + slope(minus)) / 2,
        float(np.mean(each(cost, rows(shown), rows(y)))),
        float(odd @ far) / (2 * float(far @ far)),
        float(np.linalg.norm(even)) / size,
        (6 * odd.size) ** 0.5 * free.output_resolution / size,
    )
    return nudging, calm and experiment.at_rest


def _strength(experiment: Experiment, y: Array, way: Callable[[Reading], float], floor: float) -> float:
    """The beta at which a nudge pulls the outputs a tenth of the way, w: w/(1 - w) grows in proportion to it."""
    beta, wanted = 1e-3, min(max(_WAY, 3 * floor), 0.5)
    wanted /= 1 - wanted
    for _ in range(_TRIES):
        made = way(experiment.settle(None, y, beta))
        if not experiment.at_rest or made > 1 + floor:
            beta /= 10
        elif abs(made) <= floor:
            beta *= 30
        else:
            ratio = wanted * max(1 - made, 1e-3) / abs(made)
            beta *= float(np.clip(ratio, 1e-3, 1e3))
            if 0.7 < ratio < 1.5:
                break
    return beta
