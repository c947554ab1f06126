"""From the words of constructors of trajectories to their fields, checked."""

from __future__ import annotations

from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from substrates import arguments
from substrates.classical.trajectory.lagrangian import MechanicalLagrangian


class Reads(Protocol):
    """A meter, which knows what it reads."""

    def check(self, n: int, steps: int) -> None: ...


def path_fields(
    first: Any, last: Any, duration: float, steps: int, meter: Reads, n_inputs: int, guess: Any
) -> dict[str, Any]:
    """The fields of `Trajectory.between` beside its Lagrangian and meter."""
    first, last = _place("first", first), _place("last", last)
    if first.shape != last.shape:
        raise ValueError(f"last: wanted shape {first.shape}, like first, got {last.shape}")
    _steps(steps, 2)
    meter.check(first.size, steps)
    ends = jnp.stack([first, last.astype(first.dtype)])
    along = (np.arange(1, steps) / steps)[:, None]
    straight = np.asarray(first)[None] * (1 - along) + np.asarray(last)[None] * along
    start = _guess(guess, straight, first.dtype)
    return {"guess": start, "ends": ends, "duration": _duration(duration, first.dtype), "n_inputs": _inputs(n_inputs)}


def loop_fields(n: int, duration: float, steps: int, meter: Reads, n_inputs: int, guess: Any) -> dict[str, Any]:
    """The fields of `Trajectory.loop` beside its Lagrangian and meter."""
    _steps(steps, 4)
    if steps % 2:
        raise ValueError(f"steps: wanted an even number for a loop, got {steps}")
    if arguments.whole("n", n) < 1:
        raise ValueError(f"n: wanted at least one coordinate, got {n}")
    meter.check(n, steps - 1)
    start = _guess(guess, np.zeros((steps, n)), None)
    return {"guess": start, "ends": None, "duration": _duration(duration, start.dtype), "n_inputs": _inputs(n_inputs)}


def launch_fields(
    lagrangian: Any,
    position: Any,
    momentum: Any,
    duration: float,
    steps: int,
    meter: Reads,
    n_inputs: int,
    friction: float,
) -> dict[str, Any]:
    """The fields of `InitialValueTrajectory` beside its Lagrangian and meter."""
    if not isinstance(lagrangian, MechanicalLagrangian):
        raise TypeError(
            f"lagrangian: wanted a MechanicalLagrangian, masses in a potential, which leapfrog runs back the way it "
            f"came, got {type(lagrangian).__name__}; give it `mass` and `potential`, or fix both ends of its path "
            "(Trajectory.between)"
        )
    q, p = _place("position", position), _place("momentum", momentum)
    if q.shape != p.shape or jnp.shape(lagrangian.mass) != q.shape:
        raise ValueError(
            f"position, momentum: wanted one number for each of the masses, shape {jnp.shape(lagrangian.mass)}, got "
            f"{q.shape} and {p.shape}"
        )
    _steps(steps, 1)
    meter.check(q.size, steps)
    lost = arguments.real_array("friction", friction, dtype=q.dtype, owner="trajectory")
    if lost.shape != () or not 0 <= float(lost) < float("inf"):
        raise ValueError(f"friction: wanted a rate, a finite number that is not negative, got {friction}")
    return {
        "position": q,
        "momentum": p.astype(q.dtype),
        "duration": _duration(duration, q.dtype),
        "friction": lost,
        "steps": steps,
        "n_inputs": _inputs(n_inputs),
    }


def _place(name: str, given: Any) -> Array:
    place = arguments.real_array(name, given, owner="trajectory")
    arguments.refuse_not_finite(name, place)
    if place.ndim != 1 or not place.size:
        raise ValueError(f"{name}: wanted shape (n,), one number for each coordinate, got shape {place.shape}")
    return place


def _guess(given: Any, usual: np.ndarray, dtype: Any) -> Array:
    if given is None:
        return jnp.asarray(usual, dtype)
    guess = arguments.real_array("guess", given, dtype=dtype, owner="trajectory")
    arguments.refuse_not_finite("guess", guess)
    if guess.shape != usual.shape:
        raise ValueError(f"guess: wanted shape {usual.shape}, one row for each free node, got {guess.shape}")
    return guess


def _duration(duration: Any, dtype: Any) -> Array:
    time = arguments.real_array("duration", duration, dtype=dtype, owner="trajectory")
    if time.shape != () or not 0 < float(time) < float("inf"):
        raise ValueError(f"duration: wanted a positive time in seconds, got {duration}")
    return time


def _steps(steps: Any, least: int) -> None:
    if arguments.whole("steps", steps) < least:
        raise ValueError(f"steps: wanted at least {least}, got {steps}")


def _inputs(n_inputs: Any) -> int:
    if arguments.whole("n_inputs", n_inputs) < 0:
        raise ValueError(f"n_inputs: wanted how many numbers x holds, got {n_inputs}")
    return n_inputs
