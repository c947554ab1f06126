"""Builds spins in a transverse field, and refuses what makes none."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from substrates import arguments
from substrates.quantum.observables import Observables, PauliString, outcomes, over_labels
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
    labels: tuple[Hashable, ...] | None = None,
) -> TransverseFieldIsing:
    """The model that `TransverseFieldIsing.from_edges` describes."""
    pairs, inputs = np.asarray(edges), _spins("inputs", inputs)
    if n is None:
        # outputs may name spin 0, but add no spins
        named = {"edges": pairs, "inputs": inputs, "outputs": [spin for spin in _read(outputs) if spin == 0]}
        n = arguments.count_nodes(named, [transverse_field, longitudinal_field], grow=True)
    n = arguments.whole("n", n)
    graph = Graph.from_edges(pairs, n)
    if n < 1:
        raise ValueError(f"n: wanted at least one spin, got {n}")
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
    weight = arguments.one_each("coupling", coupling, len(graph.edges), "edge", owner="model")
    fields = [
        arguments.one_each(name, field, n, "spin", owner="model")
        for name, field in (("longitudinal_field", longitudinal_field), ("transverse_field", transverse_field))
    ]
    dtype = jnp.result_type(weight.dtype, *(field.dtype for field in fields))
    check_memory(len(free), dtype)
    if not (isinstance(level, (int, np.integer)) and 0 <= level < 2 ** len(free)):
        raise ValueError(f"level: wanted a level from 0 to {2 ** len(free) - 1}, got {level}")
    place = {spin: k for k, spin in enumerate(free)}
    observables = Observables.of(outputs, place, len(free))
    b, h = (field.astype(dtype) for field in fields)
    return TransverseFieldIsing(
        weight.astype(dtype), b, h, graph, inputs, entry, observables, int(level), shape, labels
    )


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
    number = arguments.numbering(graph)
    labels = tuple(number)
    words = (
        arguments.of_edges("coupling", coupling, graph),
        arguments.of_nodes("transverse_field", transverse_field, graph),
        arguments.of_nodes("longitudinal_field", longitudinal_field, graph),
        arguments.numbers_of("inputs", inputs, number),
        entry,
        over_labels(outputs, number),
        level,
    )
    with arguments.explained(labels):
        edges = [(number[a], number[b]) for a, b in graph.edges()]
        return from_edges(edges, len(number), *words, shape=(), labels=labels)


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


def _read(outputs: Sequence[Any]) -> list[int]:
    """The spins that outputs read."""
    names = [name for output in outputs for name in (output if isinstance(output, Mapping) else [output])]
    return [spin for name in names for spin in PauliString.parse(name).spins]
