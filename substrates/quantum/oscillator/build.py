"""From the words of a user to the fields of a network of quantum oscillators; refuses what makes none."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PRNGKeyArray

from substrates import arguments
from substrates.wiring import Graph


def parameters(graph: Graph, stiffness: Any, onsite_stiffness: Any, bias_force: Any, mass: Any) -> dict[str, Any]:
    """The numbers of every spring and every oscillator, in one precision."""
    springs = arguments.one_each("stiffness", stiffness, len(graph.edges), "spring")
    onsite = arguments.one_each("onsite_stiffness", onsite_stiffness, graph.n, "oscillator")
    masses = arguments.one_each("mass", mass, graph.n, "oscillator")
    dtype = jnp.result_type(springs.dtype, onsite.dtype)
    if np.min(masses) <= 0:
        raise ValueError(f"mass: wanted positive numbers, got {np.min(masses)} at {np.argmin(masses)}")
    if bias_force is not None:
        bias_force = arguments.one_each("bias_force", bias_force, graph.n, "oscillator", dtype=dtype)
    given = {"stiffness": springs.astype(dtype), "onsite_stiffness": onsite.astype(dtype), "mass": masses.astype(dtype)}
    return {**given, "bias_force": bias_force}


def for_task(n_inputs: int, n_outputs: int, sizes: tuple[int, ...] | None, key: PRNGKeyArray) -> dict[str, Any]:
    """What `QuantumOscillatorNetwork.for_task` gives to `from_edges`."""
    hidden, softest = sum(sizes or ()), 0.2
    n = n_inputs + hidden + n_outputs
    pairs = [(i, j) for i, j in itertools.combinations(range(n), 2) if j >= n_inputs]
    draw = jax.random.uniform(key, (len(pairs),), minval=-0.5, maxval=0.5) / math.sqrt(n)
    pushed = np.zeros(n)
    for (i, j), k in zip(pairs, np.asarray(draw, float), strict=True):
        pushed[[i, j]] += 2 * max(-k, 0.0)
    return {
        "edges": pairs,
        "n": n,
        "inputs": range(n_inputs),
        "outputs": range(n - n_outputs, n),
        "stiffness": draw,
        "onsite_stiffness": jnp.asarray(np.maximum(1.0, softest + pushed), draw.dtype),
        "bias_force": jnp.zeros(n, draw.dtype),
        "gain": 10.0,
        "stiffness_floor": -math.inf,
        "onsite_floor": softest,
    }


def finite(name: str, value: Any) -> float:
    """A finite number; raises ValueError for any other."""
    arguments.refuse_complex(name, value)
    if not math.isfinite(value):
        raise ValueError(f"{name}: wanted a finite number, got {value}")
    return float(value)


def not_negative(name: str, value: Any) -> float:
    """A finite number that is not negative, as the constants hbar and T are."""
    arguments.refuse_complex(name, value)
    if isinstance(value, Tracer) or np.ndim(value) or not (0 <= float(value) < math.inf):
        raise ValueError(f"{name}: wanted a finite number, 0 or more, got {value}")
    return float(value)


def floor_of(name: str, floor: float | None, values: jax.Array) -> jax.Array:
    """A floor of training: a thousandth of the smallest number where all are positive, none where some are negative.

    None is the lowest number that there is, so that every floor is finite.
    """
    least = float(np.min(values, initial=math.inf))
    lowest = float(jnp.finfo(values.dtype).min)
    if floor is None:
        positive = max(least, 0.0) / 1000 if least < math.inf else 0.0
        return jnp.asarray(lowest if least < 0 and name == "stiffness" else positive, values.dtype)
    arguments.refuse_complex(f"{name}_floor", floor)
    if math.isnan(floor) or floor == math.inf:
        raise ValueError(f"{name}_floor: wanted a number, or -infinity for none, got {floor}")
    if least < floor:
        raise ValueError(f"{name}_floor: wanted at most the smallest {name} stiffness, {least}, got {floor}")
    return jnp.asarray(max(float(floor), lowest), values.dtype)
