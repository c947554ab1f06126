"""Builds spins in a transverse field, and refuses what makes none."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PRNGKeyArray

from substrates.quantum.observables import Observables, outcomes
from substrates.quantum.transverse_ising import TransverseFieldIsing
from substrates.wiring import Graph, lattice_edges

VECTORS = 18
"""How many vectors of amplitudes a relaxation holds at once."""


def from_edges(
    edges: Any,
    n: int | None,
    coupling: Any,
    transverse_field: Any,
    longitudinal_field: Any,
    inputs: Sequence[int],
    entry: Any,
    outputs: Sequence[Any],
    level: int,
    *,
    shape: tuple[int, ...],
) -> TransverseFieldIsing:
    """The model that `TransverseFieldIsing.from_edges` describes."""
    pairs, inputs = np.asarray(edges), _spins("inputs", inputs)
    if n is None:
        largest = [int(np.max(spins)) for spins in (pairs, inputs) if np.size(spins)]
        counted = [np.size(field) - 1 for field in (transverse_field, longitudinal_field) if np.ndim(field)]
        n = max([*largest, *counted], default=-1) + 1
    if n < 1:
        raise ValueError(f"n: wanted at least one spin, got {n}")
    graph = Graph.from_edges(pairs, int(n))
    wrong = [spin for spin in inputs if not 0 <= spin < n]
    if wrong:
        raise ValueError(f"inputs: wanted spins from 0 to {n - 1}, got {wrong[:5]}")
    if len(set(inputs)) < len(inputs):
        raise ValueError(f"inputs: wanted each spin once, got {list(inputs)}")
    if entry not in ("fields", "clamps"):
        raise ValueError(f"entry: wanted 'fields' or 'clamps', got {entry!r}")
    held = set(inputs) if entry == "clamps" else set()
    free = [spin for spin in range(n) if spin not in held]
    if not free:
        raise ValueError(f"inputs: wanted at least one free spin, got all {n} clamped")
    weight = checked_numbers("coupling", coupling, len(graph.edges), "edge")
    fields = [
        checked_numbers(name, field, n, "spin")
        for name, field in (("longitudinal_field", longitudinal_field), ("transverse_field", transverse_field))
    ]
    dtype = jnp.result_type(weight.dtype, *(field.dtype for field in fields))
    check_memory(len(free), dtype)
    if not (isinstance(level, (int, np.integer)) and 0 <= level < 2 ** len(free)):
        raise ValueError(f"level: wanted a level from 0 to {2 ** len(free) - 1}, got {level}")
    place = {spin: k for k, spin in enumerate(free)}
    observables = Observables.of(outputs, place, len(free))
    b, h = (field.astype(dtype) for field in fields)
    return TransverseFieldIsing(weight.astype(dtype), b, h, graph, inputs, entry, observables, int(level), shape)


def from_networkx(
    graph: Any,
    coupling: Any,
    transverse_field: Any,
    longitudinal_field: Any,
    inputs: Sequence[Any],
    entry: Any,
    outputs: Sequence[Any],
    level: int,
) -> TransverseFieldIsing:
    """The model that `TransverseFieldIsing.from_networkx` describes."""
    if graph.is_directed():
        raise ValueError("graph: wanted an undirected graph, as couplings are symmetric; got a directed one")
    number = {label: k for k, label in enumerate(graph.nodes)}
    for label in inputs:
        if label not in number:
            raise ValueError(f"inputs: wanted labels of nodes of the graph, got {label!r}")
    if isinstance(coupling, str):
        for a, b, attributes in graph.edges(data=True):
            if coupling not in attributes:
                raise ValueError(
                    f"coupling: wanted the attribute {coupling!r} on every edge, got none on ({a!r}, {b!r}): set it or "
                    "give an array"
                )
        coupling = np.asarray([attributes[coupling] for _, _, attributes in graph.edges(data=True)], float)
    edges = [(number[a], number[b]) for a, b in graph.edges()]
    inputs = [number[label] for label in inputs]
    return from_edges(
        edges, len(number), coupling, transverse_field, longitudinal_field, inputs, entry, outputs, level, shape=()
    )


def lattice(
    shape: int | Sequence[int],
    coupling: Any,
    transverse_field: Any,
    longitudinal_field: Any,
    periodic: bool,
    inputs: Sequence[int],
    entry: Any,
    outputs: Sequence[Any],
    level: int,
) -> TransverseFieldIsing:
    """The model that `TransverseFieldIsing.lattice` describes."""
    sides = tuple(np.atleast_1d(np.asarray(shape)).tolist())
    if not sides or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"shape: wanted positive numbers of spins along each axis, got {shape}")
    return from_edges(
        lattice_edges(sides, periodic),
        math.prod(sides),
        coupling,
        transverse_field,
        longitudinal_field,
        inputs,
        entry,
        outputs,
        level,
        shape=sides,
    )


def for_task(n_inputs: int, n_outputs: int, sizes: tuple[int, ...] | None, key: PRNGKeyArray) -> TransverseFieldIsing:
    """The model that `TransverseFieldIsing.for_task` describes."""
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
    return from_edges(
        np.concatenate([into, among]),
        n,
        coupling,
        jnp.ones(n),
        0.1 * jax.random.normal(keys[1], (n,)),
        range(n_inputs),
        "clamps",
        outcomes(spins[:measured].tolist(), "Z", n_outputs),
        0,
        shape=(),
    )


def check_memory(n: int, dtype: Any) -> None:
    """Refuses spins whose vectors this machine's memory does not hold."""
    needed = VECTORS * 2.0**n * jnp.dtype(dtype).itemsize / 1e9
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    if needed > here or n > 30:
        raise ValueError(
            f"n: {n} free spins have 2^{n} amplitudes, and settling them needs about {needed:.3g} GB of memory; this "
            f"machine has {here:.3g} GB. For chains without longitudinal fields use FreeFermionChain"
        )


def _spins(name: str, spins: Any) -> tuple[int, ...]:
    array = np.asarray(spins)
    if array.size == 0:
        return ()
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: wanted a sequence of integer spin numbers, got {spins}; from_networkx takes labels")
    return tuple(array.tolist())


def checked_numbers(name: str, values: Any, count: int, each: str) -> jax.Array:
    """One finite real number for each of some things, from an array or from one number for all."""
    if isinstance(values, Tracer):
        raise ValueError(
            f"{name}: wanted numbers when the model is built, got a traced array: build it outside compiled code and "
            "replace the numbers inside with equinox.tree_at"
        )
    array = jnp.asarray(values)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        if not jnp.issubdtype(array.dtype, jnp.integer):
            raise ValueError(f"{name}: wanted real numbers, got {array.dtype}")
        array = array.astype(float)
    if array.shape not in ((), (count,)):
        raise ValueError(f"{name}: wanted one number or shape ({count},), one per {each}, got shape {array.shape}")
    wrong = np.flatnonzero(~np.isfinite(np.asarray(jnp.atleast_1d(array))))
    if wrong.size:
        raise ValueError(f"{name}: wanted finite numbers, got NaN or infinity at {wrong[:5].tolist()}")
    return jnp.broadcast_to(array, (count,))
