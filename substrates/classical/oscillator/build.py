"""From what users say of oscillator networks to checked fields; what makes none is refused."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from substrates import arguments
from substrates.classical.oscillator.phases import Readout
from substrates.wiring import Bonds, CompiledRoles, Dense, Graph, Roles, chain_of_groups
from substrates.wiring.random_layers import uniform_each

# graphs


def graph_fields(
    edges: Any,
    n: int | None,
    coupling: Any,
    terms: Mapping[str, Any],
    inputs: Sequence[int],
    outputs: Sequence[int],
    references: Mapping[int, float],
) -> dict[str, Any]:
    """The fields of the network that `OscillatorNetwork.from_edges` describes; `terms` are h, psi, K and omega."""
    members = {"inputs": list(inputs), "outputs": list(outputs), "references": list(references)}
    if n is None:
        n = arguments.count_nodes({"edges": np.asarray(edges), **members}, terms.values())
    n = arguments.whole("n", n)
    graph = Graph.from_edges(edges, n)
    chosen = {name: arguments.different_nodes(name, nodes, n, "oscillator") for name, nodes in members.items()}
    for name, other in (("references", "inputs"), ("outputs", "inputs"), ("outputs", "references")):
        both = sorted(set(chosen[name]) & set(chosen[other]))
        if both:
            raise ValueError(f"{name}: wanted oscillators that are not among the {other}, got {both}: choose one")
    if len(chosen["inputs"]) + len(chosen["references"]) == n:
        raise ValueError(f"inputs, references: wanted at least one oscillator that settles, got all {n} clamped")
    roles = Roles.of(graph, **chosen)
    weight = arguments.one_each("coupling", coupling, len(graph.edges), "edge")
    values = _each(terms, lambda name, given: arguments.one_each(name, given, n, "oscillator", dtype=weight.dtype))
    held = arguments.real_floats("references", list(references.values()))
    if not np.all(np.isfinite(held)):
        raise ValueError(f"references: wanted finite phases, radians, got {dict(references)}")
    _refuse_free_rotation(graph, roles, values)
    return dict(coupling=Bonds(weight, graph), **values, reference_phase=jnp.asarray(held, weight.dtype), roles=roles)


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


def _refuse_free_rotation(graph: Graph, roles: Roles | CompiledRoles, values: Mapping[str, Any]) -> None:
    """Parts that nothing keeps from turning as a whole: a nudge at an output would turn them without end."""
    held = np.asarray(roles.place) >= len(roles.free)
    for name in ("field", "second_harmonic"):
        if values[name] is not None:
            held |= np.asarray(values[name]) != 0
    adrift = sorted(set(graph.parts) - set(graph.parts[held]))
    for part in adrift:
        members = np.flatnonzero(graph.parts == part)
        shown = ", ".join(map(str, members[:8])) + (", ..." if len(members) > 8 else "")
        if len(roles.outputs):
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


# layers


def random_couplings(
    sizes: Sequence[int], key: PRNGKeyArray, gain: float | Sequence[float], dtype: Any
) -> list[jax.Array]:
    """The couplings that `LayeredOscillators.layered` describes."""
    sizes = tuple(operator.index(size) for size in sizes)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes: wanted at least two positive integers (inputs, ..., outputs), got {sizes}")
    pairs = list(itertools.pairwise(sizes))
    gains = np.atleast_1d(arguments.real_floats("coupling_gain", gain))
    if gains.shape not in ((1,), (len(pairs),)) or not np.all(np.isfinite(gains) & (gains > 0)):
        raise ValueError(
            f"coupling_gain: wanted one positive finite number, or {len(pairs)}, one for each pair of successive "
            f"layers, got {gain}"
        )
    dtype = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
    bounds = np.broadcast_to(gains, len(pairs)) * [(6 / sum(pair)) ** 0.5 for pair in pairs]
    return list(uniform_each(key, tuple(pairs), bounds, dtype))


def layer_fields(
    coupling: Sequence[Any], terms: Mapping[str, Any], phase_range: tuple[float, float] | None
) -> dict[str, Any]:
    """The fields of the layers that `LayeredOscillators.from_layers` describes; `terms` are h, psi, K and omega."""
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

    return dict(
        coupling=tuple(Dense(weight.astype(dtype)) for weight in weights),
        **_each(terms, per_layer),
        phase_range=_phase_range(phase_range),
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


# both


def _each(terms: Mapping[str, Any], checked: Callable[[str, Any], Any]) -> dict[str, Any]:
    """h, psi, K and omega, checked; K and omega may be None for none."""
    missing = lambda name: terms[name] is None and name in ("second_harmonic", "frequency")
    return {name: None if missing(name) else checked(name, given) for name, given in terms.items()}


def checked_readout(readout: Readout) -> Readout:
    """The read-out; raises ValueError for what is none."""
    if readout not in get_args(Readout):
        raise ValueError(f"readout: wanted one of {get_args(Readout)}, got {readout!r}")
    return readout


def checked_starts(random: bool, spectral: bool) -> dict[str, Any]:
    """Where free phases start, as fields; raises ValueError for two places at once."""
    if random and spectral:
        raise ValueError("spectral_starts: wanted one kind of start, got random_starts too: leave one of them out")
    return {"random_starts": bool(random), "spectral_starts": bool(spectral)}
