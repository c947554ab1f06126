"""From the words of a user to the fields of a driven network; refuses what makes none."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from substrates import arguments
from substrates.wiring import Graph


def frequencies(values: Any) -> jax.Array:
    """Different positive angular frequencies, shape (frequencies,); one number for a single one."""
    found = jnp.atleast_1d(arguments.real_array("frequencies", values))
    known = np.asarray(found, float)
    arguments.refuse_not_finite("frequencies", found)
    if known.ndim != 1 or not known.size or known.min() <= 0 or len(np.unique(known)) < known.size:
        raise ValueError(
            f"frequencies: wanted different positive numbers, radians per second, shape (frequencies,), got {values}"
        )
    return found


def elements(graph: Graph, edges: Mapping[str, Any], nodes: Mapping[str, Any], dtype: Any) -> dict[str, Any]:
    """One number of each kind for every edge and every node, none of them negative: what is passive."""
    found: dict[str, Any] = {}
    for given, count, each in ((edges, len(graph.edges), "edge"), (nodes, graph.n, "node")):
        for name, values in given.items():
            if values is None:
                found[name] = None
                continue
            found[name] = arguments.one_each(name, values, count, each, dtype=dtype)
            least = float(np.min(found[name], initial=0.0))
            if least < 0:
                raise ValueError(
                    f"{name}: wanted numbers of 0 or more, got {least}: an element that gives off energy makes motion "
                    "grow without end"
                )
    return found


def bias(values: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array | None:
    """Constant drives, real and imaginary parts; one number is that in phase at every node and frequency."""
    if values is None:
        return None
    array = arguments.real_array("bias_force", values, dtype=dtype)
    if array.shape not in ((), shape):
        raise ValueError(f"bias_force: wanted one number or shape {shape}, got shape {array.shape}")
    arguments.refuse_not_finite("bias_force", array)
    return array if array.ndim else jnp.zeros(shape, array.dtype).at[:, 0].set(array)


def damping_floor(value: float | None, damping: jax.Array) -> jax.Array:
    """The least damping of nodes; by default a thousandth of the smallest."""
    least = float(np.min(damping))
    if value is None:
        return jnp.asarray(least / 1000, damping.dtype)
    arguments.refuse_complex("damping_floor", value)
    if not 0 <= value <= least:
        raise ValueError(f"damping_floor: wanted a number from 0 to the smallest onsite_damping, {least}, got {value}")
    return jnp.asarray(value, damping.dtype)


def gain(value: Any) -> float:
    """A finite number."""
    arguments.refuse_complex("gain", value)
    if not np.isfinite(value):
        raise ValueError(f"gain: wanted a finite number, got {value}")
    return float(value)


def for_task(n_inputs: int, n_outputs: int, sizes: tuple[int, ...] | None, key: PRNGKeyArray) -> dict[str, Any]:
    """What `DrivenNetwork.for_task` gives to `from_edges`."""
    hidden = sum(sizes or (2 * n_outputs,))
    n = n_inputs + hidden + n_outputs
    pairs = [(i, j) for i, j in itertools.combinations(range(n), 2) if j >= n_inputs]
    keys = jax.random.split(key, 3)
    frequency = np.asarray([0.8, 1.3])
    biases = 0.3 * jax.random.normal(keys[2], (len(frequency), 2, n))
    return {
        "edges": pairs,
        "n": n,
        "inputs": range(n_inputs),
        "outputs": range(n - n_outputs, n),
        "frequencies": jnp.asarray(frequency, biases.dtype),
        "stiffness": jax.random.uniform(keys[0], (len(pairs),), maxval=2 / n),
        "damping": 0.02,
        "onsite_stiffness": jax.random.uniform(keys[1], (n,), minval=0.2, maxval=1.2),
        "onsite_damping": 0.3,
        "bias_force": biases,
        "drive": "chord",
    }
