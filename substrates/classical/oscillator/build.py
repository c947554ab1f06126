"""Builds oscillator networks, and refuses what is none."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from substrates import arguments
from substrates.classical.oscillator.graph import OscillatorGraph, Roles
from substrates.classical.oscillator.layered import LayeredOscillators
from substrates.classical.oscillator.local import Readout
from substrates.wiring import Bonds, Dense, Graph, chain_of_groups


def graph_network(
    edges: Any,
    n: int | None,
    *,
    coupling: Any,
    inputs: Sequence[int],
    outputs: Sequence[int],
    field: Any,
    field_phase: Any,
    second_harmonic: Any,
    frequency: Any,
    references: Mapping[int, float] | None,
    readout: Readout,
    random_starts: bool,
) -> OscillatorGraph:
    """The network that `OscillatorNetwork.from_edges` describes."""
    references = {} if references is None else dict(references)
    pairs = np.asarray(edges)
    if n is None:
        named = {"edges": pairs, "inputs": list(inputs), "outputs": list(outputs), "references": list(references)}
        n = arguments.count_nodes(named, [field, field_phase, second_harmonic, frequency])
    n = arguments.whole("n", n)
    graph = Graph.from_edges(edges, n)
    groups = {name: _nodes(name, nodes, n) for name, nodes in (("inputs", inputs), ("outputs", outputs))}
    groups["references"] = _nodes("references", list(references), n)
    for name, other in (("references", "inputs"), ("outputs", "inputs"), ("outputs", "references")):
        both = sorted(set(groups[name]) & set(groups[other]))
        if both:
            raise ValueError(f"{name}: wanted oscillators that are not among the {other}, got {both}: choose one")
    roles = Roles(n, groups["inputs"], groups["references"], groups["outputs"])
    if not len(roles.free):
        raise ValueError(f"inputs, references: wanted at least one oscillator that settles, got all {n} clamped")
    weight = arguments.one_each("coupling", coupling, len(graph.edges), "edge")
    dtype = weight.dtype
    values: dict[str, Any] = {
        "field": arguments.one_each("field", field, n, "oscillator", dtype=dtype),
        "field_phase": arguments.one_each("field_phase", field_phase, n, "oscillator", dtype=dtype),
    }
    for name, given in (("second_harmonic", second_harmonic), ("frequency", frequency)):
        values[name] = None if given is None else arguments.one_each(name, given, n, "oscillator", dtype=dtype)
    held = arguments.real_floats("references", list(references.values()))
    if not np.all(np.isfinite(held)):
        raise ValueError(f"references: wanted finite phases, radians, got {references}")
    _refuse_free_rotation(graph, roles, values)
    return OscillatorGraph(
        coupling=Bonds(weight, graph),
        **values,
        reference_phase=jnp.asarray(held, dtype),
        roles=roles,
        readout=_readout(readout),
        random_starts=bool(random_starts),
    )


def edges_of_matrix(coupling: Any) -> tuple[np.ndarray, Any, int]:
    """The edges, their couplings and the number of nodes of a symmetric matrix."""
    arguments.refuse_traced("coupling", coupling)
    arguments.refuse_complex("coupling", coupling)
    matrix = np.asarray(coupling)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"coupling: wanted a square matrix, got shape {matrix.shape}")
    if not np.all(np.isfinite(matrix)):
        raise ValueError("coupling: wanted finite numbers, got NaN or infinity")
    if np.any(np.diagonal(matrix)):
        node = int(np.flatnonzero(np.diagonal(matrix))[0])
        raise ValueError(
            f"coupling: wanted zeros on the diagonal, got {matrix[node, node]} at {node}: nothing to couple"
        )
    if np.any(matrix != matrix.T):
        i, j = map(int, np.argwhere(matrix != matrix.T)[0])
        raise ValueError(
            f"coupling: wanted a symmetric matrix, got W[{i}, {j}] = {matrix[i, j]} and W[{j}, {i}] = {matrix[j, i]}: "
            "one-way couplings have no energy; give (W + W') / 2 if that is meant"
        )
    i, j = np.nonzero(np.triu(matrix))
    return np.stack([i, j], axis=1), matrix[i, j], len(matrix)


def network_from_networkx(
    graph: Any,
    *,
    coupling: Any,
    inputs: Sequence[Hashable],
    outputs: Sequence[Hashable],
    references: Mapping[Hashable, float] | None,
    **options: Any,
) -> OscillatorGraph:
    """The network that `OscillatorNetwork.from_networkx` describes."""
    from substrates.classical.oscillator.network import OscillatorNetwork

    number = arguments.numbering(graph)
    for name in ("field", "field_phase", "second_harmonic", "frequency"):
        if name in options:
            options[name] = arguments.of_nodes(name, options[name], graph)
    words: dict[str, Any] = {
        "coupling": arguments.of_edges("coupling", coupling, graph),
        "inputs": arguments.numbers_of("inputs", inputs, number),
        "outputs": arguments.numbers_of("outputs", outputs, number),
        "references": arguments.by_number("references", references, number),
    }
    edges = [(number[a], number[b]) for a, b in graph.edges()]
    with arguments.explained(tuple(number)):
        return OscillatorNetwork.from_edges(edges, len(number), **words, **options)


def layered_network(
    sizes: Sequence[int],
    *,
    key: PRNGKeyArray,
    coupling_gain: float | Sequence[float] = 1.0,
    field: Any = 1.0,
    field_phase: Any = 0.0,
    dtype: Any = None,
    **options: Any,
) -> LayeredOscillators:
    """Layers of oscillators with random couplings, each oscillator held by a field.

    Couplings are uniform within coupling_gain sqrt(6 / (n_before + n_after)) (Glorot and Bengio 2010). A field of about
    the size of what arrives through the couplings makes a hidden phase a smooth function of it,
    phi = psi + arctan(arriving across psi / (h + arriving along psi)); without fields phases jump where it vanishes.

    Args:
        sizes: the numbers of inputs, of oscillators in each hidden layer, and of outputs.
        key: draws the couplings.
        coupling_gain: scales the couplings: one number, or one for each pair of successive layers.
        field, field_phase: h and psi, as in `network_of_layers`.
        dtype: of the parameters; JAX's default if None.
        options: `second_harmonic`, `frequency`, `phase_range`, `readout`, `random_starts` of `network_of_layers`.

    Raises:
        ValueError: for sizes that are not at least two positive integers, and whatever `network_of_layers` refuses.
    """
    sizes = tuple(operator.index(size) for size in sizes)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes: wanted at least two positive integers (inputs, ..., outputs), got {sizes}")
    pairs = list(itertools.pairwise(sizes))
    gains = np.atleast_1d(arguments.real_floats("coupling_gain", coupling_gain))
    if gains.shape not in ((1,), (len(pairs),)) or not np.all(np.isfinite(gains) & (gains > 0)):
        raise ValueError(
            f"coupling_gain: wanted one positive finite number, or {len(pairs)}, one for each pair of successive "
            f"layers, got {coupling_gain}"
        )
    dtype = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
    bounds = np.broadcast_to(gains, len(pairs)) * [(6 / sum(pair)) ** 0.5 for pair in pairs]
    draw = lambda k, pair, bound: jax.random.uniform(k, pair, dtype, -bound, bound)
    coupling = [
        draw(k, pair, bound) for k, pair, bound in zip(jax.random.split(key, len(pairs)), pairs, bounds, strict=True)
    ]
    return network_of_layers(coupling, field=field, field_phase=field_phase, **options)


def network_of_layers(
    coupling: Sequence[Any],
    *,
    field: Any = 0.0,
    field_phase: Any = 0.0,
    second_harmonic: Any = None,
    frequency: Any = None,
    phase_range: tuple[float, float] | None = None,
    readout: Readout = "phase",
    random_starts: bool = False,
) -> LayeredOscillators:
    """Layers of oscillators with given couplings.

    Args:
        coupling: for each pair of successive layers a matrix (n_before, n_after); the first layer is the input.
        field, field_phase, second_harmonic, frequency: h, psi, K and omega: one number for all oscillators, or a
            sequence with a number or an array (nodes,) for each layer after the input; None for no K and no omega.
        phase_range: None for inputs in radians; (low, high) clamps a feature x in [0, 1] at low + (high - low) x.
        readout: "phase" or "sine".
        random_starts: draw initial phases from the key that `relax` gets.

    Raises:
        ValueError: for layers that do not fit, numbers that are not finite, and a range that is none.
    """
    if not len(coupling):
        raise ValueError("coupling: wanted at least one matrix, from the inputs to the outputs, got none")
    weights = []
    for layer, matrix in enumerate(coupling):
        arguments.refuse_traced("coupling", matrix)
        shape = np.shape(matrix)
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(f"coupling[{layer}]: wanted a matrix of shape (n_before, n_after), got shape {shape}")
        weights.append(arguments.real_array(f"coupling[{layer}]", matrix))
        arguments.refuse_not_finite(f"coupling[{layer}]", weights[-1])
    chain = chain_of_groups([Dense(weight) for weight in weights], (weights[0].shape[0],))
    sizes = [shape[0] for shape in chain[1:]]
    dtype = jnp.result_type(*weights)

    def per_layer(name: str, values: Any) -> tuple[jax.Array, ...]:
        single = not isinstance(values, list | tuple) and np.ndim(values) == 0
        values = [values] * len(sizes) if single else list(values)
        if len(values) != len(sizes):
            raise ValueError(
                f"{name}: wanted one number for all, or a sequence with one entry for each of the {len(sizes)} layers "
                f"after the input, got {len(values)}"
            )
        return tuple(
            arguments.one_each(f"{name}[{k}]", v, size, "oscillator", dtype=dtype)
            for k, (v, size) in enumerate(zip(values, sizes, strict=True))
        )

    return LayeredOscillators(
        coupling=tuple(Dense(weight.astype(dtype)) for weight in weights),
        field=per_layer("field", field),
        field_phase=per_layer("field_phase", field_phase),
        second_harmonic=None if second_harmonic is None else per_layer("second_harmonic", second_harmonic),
        frequency=None if frequency is None else per_layer("frequency", frequency),
        phase_range=_phase_range(phase_range),
        readout=_readout(readout),
        random_starts=bool(random_starts),
    )


def _phase_range(phase_range: tuple[float, float] | None) -> tuple[float, float] | None:
    if phase_range is None:
        return None
    arguments.refuse_complex("phase_range", np.asarray(phase_range))
    if np.shape(phase_range) != (2,) or not np.all(np.isfinite(phase_range)):
        raise ValueError(f"phase_range: wanted two finite phases (low, high), radians, got {phase_range}")
    low, high = map(float, phase_range)
    if not 0 < high - low < 2 * np.pi:
        raise ValueError(
            f"phase_range: wanted low < high < low + 2 pi, so that different features are different phases, got "
            f"({low:g}, {high:g})"
        )
    return low, high


def _readout(readout: str) -> Any:
    if readout not in get_args(Readout):
        raise ValueError(f"readout: wanted one of {get_args(Readout)}, got {readout!r}")
    return readout


def _nodes(name: str, nodes: Sequence[Any], n: int) -> tuple[int, ...]:
    array = np.asarray(list(nodes))
    if array.size and (array.ndim != 1 or not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(
            f"{name}: wanted integer numbers of oscillators, got {list(nodes)!r}; from_networkx takes labels"
        )
    wrong = [int(node) for node in array if not 0 <= node < n]
    if wrong:
        raise ValueError(f"{name}: wanted oscillators from 0 to {n - 1}, got {wrong[:5]}")
    if len(np.unique(array)) != len(array):
        raise ValueError(f"{name}: wanted each oscillator once, got {array.tolist()}")
    return tuple(int(node) for node in array)


def _refuse_free_rotation(graph: Graph, roles: Roles, values: Mapping[str, Any]) -> None:
    """Parts that nothing keeps from turning as a whole: a nudge at an output would turn them without end."""
    held = np.zeros(roles.n, bool)
    held[[*roles.inputs, *roles.references]] = True
    for name in ("field", "second_harmonic"):
        if values[name] is not None:
            held |= np.asarray(values[name]) != 0
    adrift = sorted(set(graph.parts) - set(graph.parts[held]))
    for part in adrift:
        members = np.flatnonzero(graph.parts == part)
        shown = ", ".join(map(str, members[:8])) + (", ..." if len(members) > 8 else "")
        if roles.outputs:
            raise ValueError(
                f"references: wanted every part of a network with outputs joined to an input, a reference, a field or "
                f"a second harmonic; oscillators {shown} turn freely as a whole: give references={{{members[0]}: 0.0}}"
            )
        frequency = values["frequency"]
        if frequency is not None:
            mean = float(jnp.mean(frequency[members]))
            size = float(jnp.max(jnp.abs(frequency[members])))
            if abs(mean) > 1e-5 * size:
                raise ValueError(
                    f"frequency: wanted frequencies relative to the rotating frame, of mean 0 where a part turns "
                    f"freely, got mean {mean:g} over oscillators {shown}: subtract it"
                )
