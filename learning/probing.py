"""The noise of a physical system, and how it answers to its knobs: measured by an operator from outside."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from learning.operator import Operator
from substrates.laboratory.system import Reading, Terminals

Array = np.ndarray

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


def rest(operator: Operator, repeats: int) -> Rest:
    """Settles and reads again and again, knobs and inputs as they are."""
    operator.settle()
    shown = [operator.settle() for _ in range(repeats)]
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
    operator: Operator,
    free: Rest,
    softness: Float[Array, "knobs"],
    step: float,
    pairs: int,
    draw: np.random.Generator,
) -> Probing:
    """Turns half of the knobs, drawn at random with random signs, forth and back; then the other half; and so on."""
    spec, knobs = operator.system.spec, free.reading.knobs
    room = np.minimum(*_distances(spec.knobs, knobs))
    sizes, at_limit = _turns(free, step, room, np.minimum(*_distances(spec.parameters, free.reading.parameters)))
    turns, parameters, outputs, returns, errors = [], [], [], [], []

    def turn(by: Array, sign: int) -> tuple[Array, Array, Array]:
        first, second = operator.settle(knobs + sign * by), operator.settle(knobs - sign * by)
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
                returns.append(operator.settle(knobs))
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
    operator.settle(knobs)
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
