"""From the words of a user to the fields of spins in a transverse field; refuses what makes none."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from substrates import arguments
from substrates.quantum.observables import Observables, PauliString, outcomes
from substrates.wiring import Graph

Entry = Literal["fields", "clamps"]

VECTORS = 18
"""How many vectors of amplitudes a relaxation holds at once."""


def fields(
    edges: Any,
    n: int | None,
    coupling: Any,
    transverse_field: Any,
    longitudinal_field: Any,
    inputs: Sequence[int],
    entry: Any,
    outputs: Sequence[Any],
    level: int,
) -> dict[str, Any]:
    """The fields of the model that `TransverseFieldIsing.from_edges` describes."""
    pairs = np.asarray(edges)
    if n is None:
        names = [name for output in outputs for name in (output if isinstance(output, Mapping) else [output])]
        read = {spin for name in names for spin in PauliString.parse(name).spins}
        # outputs may name spin 0, but add no spins
        named = {"edges": pairs, "inputs": inputs, "outputs": [*(read & {0})]}
        n = arguments.count_nodes(named, [transverse_field, longitudinal_field], grow=True)
    n = arguments.whole("n", n)
    graph = Graph.from_edges(pairs, n)
    if n < 1:
        raise ValueError(f"n: wanted at least one spin, got {n}")
    inputs = arguments.different_nodes("inputs", inputs, n, "spin")
    arguments.one_of("entry", entry, Entry)
    free = [spin for spin in range(n) if entry == "fields" or spin not in inputs]
    if not free:
        raise ValueError(f"inputs: wanted at least one free spin, got all {n} clamped")
    parameters = {"coupling": arguments.one_each("coupling", coupling, len(graph.edges), "edge", owner="model")}
    for name, field in (("longitudinal_field", longitudinal_field), ("transverse_field", transverse_field)):
        parameters[name] = arguments.one_each(name, field, n, "spin", owner="model")
    dtype = jnp.result_type(*(values.dtype for values in parameters.values()))
    count = len(free)
    needed = VECTORS * 2.0**count * jnp.dtype(dtype).itemsize / 1e9
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    if needed > here or count > 30:
        raise ValueError(
            f"n: {count} free spins have 2^{count} amplitudes, and settling them needs about {needed:.3g} GB of memory;"
            f" this machine has {here:.3g} GB. For chains without longitudinal fields use FreeFermionChain"
        )
    if not (isinstance(level, (int, np.integer)) and 0 <= level < 2**count):
        raise ValueError(f"level: wanted a level from 0 to {2**count - 1}, got {level}")
    return {
        **{name: values.astype(dtype) for name, values in parameters.items()},
        "graph": graph,
        "inputs": inputs,
        "entry": entry,
        "outputs": Observables.of(outputs, {spin: k for k, spin in enumerate(free)}, count),
        "level": int(level),
    }


def for_task(n_inputs: int, n_outputs: int, sizes: tuple[int, ...] | None, key: PRNGKeyArray) -> dict[str, Any]:
    """What `TransverseFieldIsing.for_task` gives to `from_edges`."""
    if n_inputs < 1 or n_outputs < 2:
        raise ValueError(f"wanted at least one input and two outputs, got {n_inputs} and {n_outputs}")
    measured = max(1, math.ceil(math.log2(n_outputs)))
    if sizes is not None and len(sizes) != 1:
        raise ValueError(f"sizes: wanted one number, how many free spins, got {sizes}")
    free = max(6, measured + 2) if sizes is None else int(sizes[0])
    if free < measured:
        raise ValueError(f"sizes: wanted at least the {measured} free spins that {n_outputs} outputs need, got {free}")
    n = n_inputs + free
    spins = np.arange(n_inputs, n)
    into = np.stack(np.meshgrid(np.arange(n_inputs), spins, indexing="ij"), -1).reshape(-1, 2)
    among = spins[np.stack(np.triu_indices(free, 1), 1)]
    keys = jax.random.split(key, 3)
    spread = np.concatenate([np.full(len(into), n_inputs**-0.5), np.full(len(among), free**-0.5)])
    coupling = jnp.asarray(spread, float) * jax.random.normal(keys[0], (len(spread),))
    return {
        "edges": np.concatenate([into, among]),
        "n": n,
        "coupling": coupling,
        "transverse_field": jnp.ones(n),
        "longitudinal_field": 0.1 * jax.random.normal(keys[1], (n,)),
        "inputs": range(n_inputs),
        "entry": "clamps",
        "outputs": outcomes(spins[:measured].tolist(), "Z", n_outputs),
    }
