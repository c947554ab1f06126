"""Inputs, targets and nudges that fit a system."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from substrates.substrate import Cost, Nudge, SquaredError, Substrate, parameter_dtype
from theory_checks.ranges import Ranges, ranges
from theory_checks.strategies.draws import Draw, drawn, whole


def examples(
    inputs: int = 3, outputs: int = 2, batch: int = 3, dtype: DTypeLike = float
) -> SearchStrategy[tuple[Float[Array, "batch inputs"], Float[Array, "batch outputs"]]]:
    """Batches of inputs and of targets between -1 and 1; they shrink to ones half as large, all equal."""
    for name, value in (("inputs", inputs), ("outputs", outputs), ("batch", batch)):
        whole(name, value, 1)
    return drawn(lambda draw: _batch(draw, Ranges(), (batch, inputs), (batch, outputs), dtype))


def examples_of(
    substrate: Substrate, batch: int = 3, *, inputs: int | None = None
) -> SearchStrategy[tuple[Float[Array, "batch inputs"], Float[Array, "batch outputs"]]]:
    """Batches of inputs and targets of a system's own sizes, dtype and `ranges`.

    Args:
        substrate: the system; of `@given(st.data())` or in `strategy.flatmap(...)` one that was drawn.
        batch: how many examples.
        inputs: how many numbers x holds, where the class does not know (`input_size`).

    Raises ValueError where nobody says how many numbers x holds, and for a batch of none.
    """
    whole("batch", batch, 1)
    given, shown, dtype = _shapes(substrate, inputs)
    return drawn(lambda draw: _batch(draw, ranges(substrate), (batch, *given), (batch, *shown), dtype))


def nudges(
    substrate: Substrate, *, cost: Cost | None = None, beta: float | None = None, inputs: int | None = None
) -> SearchStrategy[Nudge]:
    """Nudges of one example towards targets that fit, of strengths of either sign that shrink to 0, the free phase.

    Args:
        substrate: the system.
        cost: by default the squared error.
        beta: the largest strength; by default one within `ranges(substrate)`.
        inputs: as of `examples_of`.

    Raises ValueError for a largest strength that is not positive and finite, and as `examples_of`.
    """
    _, shown, dtype = _shapes(substrate, inputs)
    limits = ranges(substrate)
    largest = limits.beta if beta is None else float(beta)
    if not 0 < largest < float("inf"):
        raise ValueError(f"beta: wanted a positive strength, got {beta!r}")
    cost = SquaredError() if cost is None else cost

    def build(draw: Draw, part: int) -> Nudge:
        target = _values(draw, shown, limits.targets, limits.discrete)
        return Nudge(cost, jnp.asarray(target, dtype), jnp.asarray(largest * part / 4, dtype))

    return st.builds(build, drawn(lambda draw: draw), st.sampled_from((0, 1, -1, 2, -2, 4, -4)))


def systems_with_examples(
    systems: SearchStrategy[Substrate], batch: int = 3
) -> SearchStrategy[tuple[Substrate, Array, Array]]:
    """A drawn system with inputs and targets that fit it: `@given(systems_with_examples(hopfield_networks()))`."""
    return systems.flatmap(lambda system: examples_of(system, batch).map(lambda pair: (system, *pair)))


def _shapes(substrate: Substrate, inputs: int | None) -> tuple[tuple[int, ...], tuple[int, ...], Any]:
    if not isinstance(substrate, Substrate):
        raise TypeError(f"substrate: wanted a Substrate, got {type(substrate).__name__}")
    given = substrate.x_shape if inputs is None else (inputs,)
    if given is None:
        raise ValueError(
            f"inputs: wanted how many numbers x holds, which {type(substrate).__name__} does not say; give inputs=..., "
            "or define its property input_size"
        )
    dtype = parameter_dtype(substrate)
    x = jax.ShapeDtypeStruct(given, dtype)
    shown = jax.eval_shape(lambda x: substrate.read(substrate.start(x, jax.random.key(0)), x), x)
    return given, shown.shape, dtype


def _batch(draw: Draw, limits: Ranges, given: tuple[int, ...], shown: tuple[int, ...], dtype: Any):
    x = _values(draw, given, limits.inputs, limits.discrete)
    return jnp.asarray(x, dtype), jnp.asarray(_values(draw, shown, limits.targets, limits.discrete), dtype)


def _values(draw: Draw, shape: tuple[int, ...], between: tuple[float, float], discrete: bool) -> np.ndarray:
    return draw.signs(shape) if discrete else draw.between(shape, *between)
