"""From the words of a user to the fields of a network of activators and inhibitors; refuses what makes none."""

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


def parameters(graph: Graph, diffusion: Mapping[str, Any], reaction: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of every edge and every node, in one precision."""
    count = len(graph.edges)
    found = {name: arguments.one_each(name, values, count, "edge") for name, values in diffusion.items()}
    found |= {name: arguments.one_each(name, values, graph.n, "node") for name, values in reaction.items()}
    for name in diffusion:
        least = float(np.min(found[name], initial=0.0))
        if least < 0:
            raise ValueError(f"{name}: wanted numbers of 0 or more, got {least}: what diffuses backwards has no rest")
    least = float(np.min(found["decay"]))
    if least <= 0:
        raise ValueError(f"decay: wanted positive numbers, got {least}: an inhibitor that does not decay grows")
    dtype = jnp.result_type(*found.values())
    return {name: values.astype(dtype) for name, values in found.items()}


def decay_floor(value: float | None, decay: jax.Array) -> jax.Array:
    """The least decay in training; by default a thousandth of the smallest."""
    least = float(np.min(decay))
    if value is None:
        return jnp.asarray(least / 1000, decay.dtype)
    arguments.refuse_complex("decay_floor", value)
    if not 0 < value <= least:
        raise ValueError(f"decay_floor: wanted a positive number, at most the smallest decay, {least}, got {value}")
    return jnp.asarray(value, decay.dtype)


def gain_ceiling(value: float | None, gain: jax.Array) -> jax.Array:
    """The largest gain in training; None is the largest number that there is."""
    if value is None:
        return jnp.asarray(jnp.finfo(gain.dtype).max, gain.dtype)
    arguments.refuse_complex("gain_ceiling", value)
    largest = float(np.max(gain))
    if not largest <= value < np.inf:
        raise ValueError(f"gain_ceiling: wanted a finite number, at least the largest gain, {largest}, got {value}")
    return jnp.asarray(value, gain.dtype)


def for_task(n_inputs: int, n_outputs: int, sizes: tuple[int, ...] | None, key: PRNGKeyArray) -> dict[str, Any]:
    """What `ActivatorInhibitor.for_task` gives to `from_edges`."""
    hidden = sum(sizes or (2 * n_outputs,))
    n = n_inputs + hidden + n_outputs
    pairs = [(i, j) for i, j in itertools.combinations(range(n), 2) if j >= n_inputs]
    keys = jax.random.split(key, 3)
    return {
        "edges": pairs,
        "n": n,
        "inputs": range(n_inputs),
        "outputs": range(n - n_outputs, n),
        "activator_diffusion": jax.random.uniform(keys[0], (len(pairs),), maxval=4 / n),
        "inhibitor_diffusion": jax.random.uniform(keys[1], (len(pairs),), maxval=4 / n),
        "bias": 0.1 * jax.random.normal(keys[2], (n,)),
        "gain": -0.1,
        "gain_ceiling": 0.0,
    }
