"""What goes before Newton's method: descents of an energy, within bounds or without, by its slopes alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

HISTORY = 10
"""So many steps, and the changes of the slope along them, tell how an energy curves."""

SHORTEST = 1e-12
"""A descent ends where so small a fraction of its step leads nowhere."""

Energy = Callable[[Float[Array, " n"]], Float[Array, ""]]
Count = Int[Array, ""] | int


class _Look(eqx.Module):
    """Where a descent is, its memory, and what it tries next.

    Attributes:
        state, energy, slope: of the best so far.
        tried: where it looks next.
        fraction: of the step there.
        memory: of the steps before.
        step: how many.
        going: whether it goes on.
    """

    state: Float[Array, " n"]
    energy: Float[Array, ""]
    slope: Float[Array, " n"]
    tried: Float[Array, " n"]
    fraction: Float[Array, ""]
    memory: PyTree
    step: Int[Array, ""]
    going: Bool[Array, ""]


def _descend(
    energy: Energy,
    start: Float[Array, " n"],
    memory: PyTree,
    learn: Callable[..., PyTree],
    turn: Callable[..., Float[Array, " n"]],
    at_rest: Callable[..., Bool[Array, ""]],
    share: float,
    max_steps: Count,
    count_all: bool,
) -> tuple[Float[Array, " n"], Int[Array, ""]]:
    """The line search of both descents: steps are halved until the energy falls by a share of what the slope promises.

    The energy stands in the program once: what a look finds is used in the round that looks.
    """
    choose = lambda which, new, old: jax.tree.map(lambda n, o: jax.lax.select(which, n, o), new, old)

    def advance(now: _Look) -> _Look:
        value, slope = jax.value_and_grad(energy)(now.tried)
        change, bend = now.tried - now.state, slope - now.slope
        promised = jnp.sum(now.slope * change)
        taken = (value <= now.energy + share * promised) & (promised <= 0)
        opening = jnp.isinf(now.energy)
        learnt = learn(now.memory, change, bend, slope, opening)
        rest = taken & at_rest(now.tried, change, slope, value, now.energy)
        state, value, slope, memory = choose(
            taken, (now.tried, value, slope, learnt), (now.state, now.energy, now.slope, now.memory)
        )
        fraction = choose(taken, jnp.ones_like(value), now.fraction / 2)
        tried = state + fraction * turn(memory, state, slope)
        step = now.step + (1 if count_all else (taken & ~opening).astype(jnp.int32))
        return _Look(state, value, slope, tried, fraction, memory, step, ~rest & (fraction > SHORTEST))

    infinite, one = jnp.full((), jnp.inf, start.dtype), jnp.ones((), start.dtype)
    begin = _Look(
        start, infinite, jnp.zeros_like(start), start, one, memory, jnp.zeros((), jnp.int32), jnp.asarray(True)
    )
    end = jax.lax.while_loop(lambda now: now.going & (now.step < max_steps), advance, begin)
    return end.state, end.step


def quasi_newton(
    energy: Energy, start: Float[Array, " n"], close: float, max_steps: Count
) -> tuple[Float[Array, " n"], Int[Array, ""]]:
    """Minimises an energy by limited-memory BFGS until neither state nor energy moves by `close`; (state, steps).

    Every look at the energy counts as a step. Source: Byrd, Nocedal and Schnabel 1994, "Representations of quasi-Newton
    matrices and their use in limited memory methods", algorithm 4.1.
    """
    epsilon = float(jnp.finfo(start.dtype).eps)

    def learn(memory, change, bend, slope, opening):
        along = jnp.sum(change * bend)
        longer = lambda old, new: jnp.concatenate([old[1:], new[None]])
        new = jax.tree.map(longer, memory, (change, bend, 1 / along))
        return jax.tree.map(lambda n, o: jax.lax.select(along > epsilon, n, o), new, memory)

    def turn(memory, state, slope):
        def back(slope, step):
            change, bend, inverse = step
            part = inverse * jnp.sum(change * slope)
            return slope - part * bend, part

        def forth(way, step):
            (change, bend, inverse), part = step
            return way + (part - inverse * jnp.sum(bend * way)) * change, None

        way, parts = jax.lax.scan(back, slope, memory, reverse=True)
        change, bend = memory[0][-1], memory[1][-1]
        size = jnp.sum(bend * bend)
        curved = size > 0
        scaled = jnp.where(curved, jnp.sum(change * bend) / jnp.where(curved, size, 1.0), 1.0)
        return -jax.lax.scan(forth, scaled * way, (memory, parts))[0]

    def at_rest(tried, change, slope, value, before):
        moved = jnp.max(jnp.abs(change) / (close + close * jnp.abs(tried)), initial=0.0)
        return (moved < 1) & (jnp.abs(value - before) < close + close * jnp.abs(value))

    rows = jnp.zeros((HISTORY, start.size), start.dtype)
    memory = rows, rows, jnp.zeros(HISTORY, start.dtype)
    return _descend(energy, start, memory, learn, turn, at_rest, 0.1, max_steps, True)


def projected_gradient(
    energy: Energy, start: Float[Array, " n"], lower: Any, upper: Any, limit: Float[Array, ""], max_steps: Count
) -> tuple[Float[Array, " n"], Int[Array, ""]]:
    """Minimises an energy within bounds by projected gradients with Barzilai-Borwein steps; (state, steps).

    Source: Birgin, Martinez and Raydan 2000, "Nonmonotone spectral projected gradient methods"; monotone here.
    """
    project = lambda y: jnp.minimum(jnp.maximum(y, lower), upper)

    def learn(rate, change, bend, slope, opening):
        curvature = jnp.sum(change * bend)
        curved = curvature > 0
        rate = jnp.where(curved, jnp.sum(change**2) / jnp.where(curved, curvature, 1.0), 2 * rate)
        steepest = 1 / jnp.maximum(jnp.max(jnp.abs(slope), initial=0.0), 1.0)
        return jnp.where(opening, steepest, jnp.minimum(jnp.maximum(rate, 1e-10), 1e10))

    turn = lambda rate, state, slope: project(state - rate * slope) - state
    at_rest = lambda tried, change, slope, *_: ~(jnp.max(jnp.abs(tried - project(tried - slope)), initial=0.0) > limit)
    return _descend(energy, project(start), jnp.ones((), start.dtype), learn, turn, at_rest, 1e-4, max_steps, False)
