"""Builds networks of quantum oscillators, and refuses what has no equilibrium."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from substrates import arguments
from substrates.quantum.oscillator.network import Drive, QuantumOscillatorNetwork, Reading
from substrates.wiring import Graph, lattice_edges


def network_from_edges(
    edges: Any,
    n: int | None,
    *,
    inputs: Sequence[int],
    outputs: Sequence[int],
    stiffness: Any,
    onsite_stiffness: Any,
    bias_force: Any,
    mass: Any,
    drive: str,
    reading: str,
    hbar: float,
    temperature: float,
    gain: float,
    stiffness_floor: float | None,
    onsite_floor: float | None,
) -> QuantumOscillatorNetwork:
    """The network that `QuantumOscillatorNetwork.from_edges` describes."""
    pairs = np.asarray(edges)
    if n is None:
        named = {"edges": pairs, "inputs": inputs, "outputs": outputs}
        n = arguments.count_nodes(named, (onsite_stiffness, bias_force, mass), grow=True)
    n = arguments.whole("n", n)
    graph = Graph.from_edges(pairs, n)
    if n < 1:
        raise ValueError(f"n: wanted at least one oscillator, got {n}")
    for name, value, choices in (("drive", drive, get_args(Drive)), ("reading", reading, get_args(Reading))):
        if value not in choices:
            raise ValueError(f"{name}: wanted one of {', '.join(choices)}, got {value!r}")
    springs = arguments.one_each("stiffness", stiffness, len(graph.edges), "spring")
    onsite = arguments.one_each("onsite_stiffness", onsite_stiffness, n, "oscillator")
    masses = arguments.one_each("mass", mass, n, "oscillator")
    dtype = jnp.result_type(springs.dtype, onsite.dtype)
    if float(jnp.min(masses)) <= 0:
        raise ValueError(f"mass: wanted positive numbers, got {float(jnp.min(masses))} at {int(jnp.argmin(masses))}")
    arguments.refuse_complex("gain", gain)
    if not math.isfinite(gain):
        raise ValueError(f"gain: wanted a finite number, got {gain}")
    driven, read = _nodes("inputs", inputs, n), _nodes("outputs", outputs, n)
    if not read:
        raise ValueError("outputs: wanted at least one oscillator to read, got none")
    net = QuantumOscillatorNetwork(
        springs.astype(dtype),
        onsite.astype(dtype),
        None if bias_force is None else arguments.one_each("bias_force", bias_force, n, "oscillator", dtype=dtype),
        masses.astype(dtype),
        graph=graph,
        inputs=driven,
        outputs=read,
        drive=drive,  # pyright: ignore[reportArgumentType]
        reading=reading,  # pyright: ignore[reportArgumentType]
        hbar=not_negative("hbar", hbar),
        temperature=not_negative("temperature", temperature),
        gain=float(gain),
        stiffness_floor=_floor("stiffness", stiffness_floor, springs),
        onsite_floor=_floor("onsite", onsite_floor, onsite),
    )
    _require_stable(net)
    return net


def network_from_networkx(
    graph: Any, *, inputs: Sequence[Hashable], outputs: Sequence[Hashable], stiffness: Any, **options: Any
) -> QuantumOscillatorNetwork:
    """The network that `QuantumOscillatorNetwork.from_networkx` describes."""
    number = arguments.numbering(graph)
    for name in ("onsite_stiffness", "bias_force", "mass"):
        if name in options:
            options[name] = arguments.of_nodes(name, options[name], graph)
    words: dict[str, Any] = {
        "stiffness": arguments.of_edges("stiffness", stiffness, graph),
        "inputs": arguments.numbers_of("inputs", inputs, number),
        "outputs": arguments.numbers_of("outputs", outputs, number),
    }
    with arguments.explained(tuple(number)):
        edges = [(number[a], number[b]) for a, b in graph.edges()]
        net = QuantumOscillatorNetwork.from_edges(edges, len(number), **words, **options)
    return dataclasses.replace(net, labels=tuple(number))


def lattice_network(shape: int | Sequence[int], periodic: bool, **options: Any) -> QuantumOscillatorNetwork:
    """The network that `QuantumOscillatorNetwork.lattice` describes."""
    sides = tuple(np.atleast_1d(np.asarray(shape)).tolist())
    if not sides or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"shape: wanted positive numbers of oscillators along each axis, got {shape}")
    return QuantumOscillatorNetwork.from_edges(lattice_edges(sides, periodic), int(np.prod(sides)), **options)


def not_negative(name: str, value: Any) -> float:
    """A finite number that is not negative, as the constants hbar and T are."""
    arguments.refuse_complex(name, value)
    if isinstance(value, Tracer) or np.ndim(value) or not (0 <= float(value) < math.inf):
        raise ValueError(f"{name}: wanted a finite number, 0 or more, got {value}")
    return float(value)


def _nodes(name: str, nodes: Any, n: int) -> tuple[int, ...]:
    array = np.asarray(nodes)
    if array.size == 0:
        return ()
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: wanted a sequence of integer numbers, got {nodes}; from_networkx takes labels")
    wrong = array[(array < 0) | (array >= n)]
    if wrong.size:
        raise ValueError(f"{name}: wanted oscillators from 0 to {n - 1}, got {wrong[:5].tolist()}")
    if len(np.unique(array)) < len(array):
        raise ValueError(f"{name}: wanted each oscillator once, got {array.tolist()}")
    return tuple(array.tolist())


def _floor(name: str, floor: float | None, values: jax.Array) -> float:
    """A floor of training: a thousandth of the smallest number where all are positive, none where some are negative."""
    least = float(jnp.min(values, initial=math.inf))
    if floor is None:
        return -math.inf if least < 0 and name == "stiffness" else max(least, 0.0) / 1000 if least < math.inf else 0.0
    arguments.refuse_complex(f"{name}_floor", floor)
    if math.isnan(floor) or floor == math.inf:
        raise ValueError(f"{name}_floor: wanted a number, or -infinity for none, got {floor}")
    if least < floor:
        raise ValueError(f"{name}_floor: wanted at most the smallest {name} stiffness, {least}, got {floor}")
    return float(floor)


def _require_stable(net: QuantumOscillatorNetwork) -> None:
    x = jnp.zeros(len(net.inputs), net.onsite_stiffness.dtype)
    stiffness = np.asarray(net.stiffness_matrix(x), float)
    own = np.diagonal(stiffness)
    # next to what oscillators cost one by one, so that soft parts may stand beside stiff ones
    root = 1 / np.sqrt(np.where(own > 0, own, 1.0))
    least = np.linalg.eigvalsh((root[:, None] * stiffness) * root)[0]
    if np.any(own <= 0) or least <= 2 * math.sqrt(net.n) * np.finfo(float).eps:
        lowest = np.linalg.eigvalsh(stiffness)[0]
        raise ValueError(
            f"stiffness, onsite_stiffness: wanted a positive definite stiffness matrix K, got one with the eigenvalue "
            f"{lowest:.3g}, along which nothing holds the oscillators: hold each connected part by a positive "
            "on-site stiffness, larger than twice what negative springs take from it"
        )
