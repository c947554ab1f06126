"""Builds circuits from lists of elements, and refuses what has no single operating point."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from substrates import arguments
from substrates.classical.resistor.circuit import CircuitNetwork
from substrates.classical.resistor.elements import GROUND, Shockley
from substrates.classical.resistor.linear_solve import conductance_solver
from substrates.classical.resistor.topology import Topology, check_sources, floating_nodes, incidence

_NO_IMPEDANCES = "conductances here are real: this class has no impedances"


def build_circuit(
    edges: Any,
    n: int | None,
    *,
    inputs: Sequence[int],
    outputs: Sequence[int],
    conductance: Any,
    rails: Mapping[int, float] | None = None,
    diodes: Sequence[tuple[int, int]] = (),
    diode: Shockley | None = None,
    current_sources: Sequence[tuple[int, int, float]] = (),
    voltage_sources: Sequence[tuple[int, int, float]] = (),
    controlled_sources: Sequence[tuple[float, ...]] = (),
    floor: float = 0.0,
    labels: tuple[Hashable, ...] | None = None,
) -> CircuitNetwork:
    """The circuit that `ResistorNetwork.from_edges` describes."""
    rails = {} if rails is None else dict(rails)
    edge_nodes = _nodes("edges", edges, 2)
    diode_nodes = _nodes("diodes", diodes, 2)
    current_nodes, source_current = _sources("current_sources", current_sources, 2, "(from, to, amperes)")
    voltage_nodes, source_voltage = _sources("voltage_sources", voltage_sources, 2, "(plus, minus, volts)")
    controlled = [(*source, 0.0) if len(source) == 5 else source for source in controlled_sources]
    control_nodes, gains = _sources(
        "controlled_sources", controlled, 4, "(plus, minus, control plus, control minus, gain[, reverse gain])", 2
    )
    single = {
        "inputs": _nodes("inputs", inputs, 1).ravel(),
        "outputs": _nodes("outputs", outputs, 1).ravel(),
        "rails": _nodes("rails", list(rails), 1).ravel(),
    }
    pairs = {
        "edges": edge_nodes,
        "diodes": diode_nodes,
        "current_sources": current_nodes,
        "voltage_sources": voltage_nodes,
        "controlled_sources": control_nodes,
    }
    named = {**pairs, **single}
    n = arguments.count_nodes(named) if n is None else arguments.whole("n", n)
    for name, nodes in named.items():
        lowest = 0 if name in single else GROUND
        wrong = np.unique(nodes[(nodes < lowest) | (nodes >= n)])
        if wrong.size:
            ground = "" if name in single else ", or -1 for ground"
            raise ValueError(
                f"{name}: wanted nodes from 0 to {n - 1}{ground}, got {wrong[:5].tolist()}: "
                "mend them or give a larger n"
            )
    for name, nodes in pairs.items():
        loops = np.flatnonzero(nodes[:, 0] == nodes[:, 1])
        if loops.size:
            raise ValueError(
                f"{name}: wanted two different nodes each, got node {nodes[loops[0], 0]} twice in number {loops[0]}: "
                "remove it"
            )
    _refuse_repeats(single, n)

    siemens = _conductances(conductance, len(edge_nodes), floor)
    dtype = siemens.dtype
    rail_voltage = _finite("rails", list(rails.values()))
    topology = Topology(
        n=n,
        edges=edge_nodes,
        inputs=tuple(single["inputs"].tolist()),
        outputs=tuple(single["outputs"].tolist()),
        rails=tuple(single["rails"].tolist()),
        diodes=diode_nodes,
        ideal_diodes=diode is None,
        current_sources=current_nodes,
        voltage_sources=voltage_nodes,
        controlled_sources=control_nodes,
        gain=gains[:, 0],
        reverse_gain=gains[:, 1],
    )
    values = [None] * len(inputs) + rail_voltage.tolist() + source_voltage[:, 0].tolist() + [None] * len(gains)
    check_sources(topology, values)
    floating = floating_nodes(topology, np.asarray(siemens))
    if floating:
        raise ValueError(
            f"edges: wanted every node joined to an input, a rail or ground by positive conductances, voltage sources "
            f"or real diodes, got floating nodes {_abridged(floating)}: join them or leave them out"
        )
    circuit = CircuitNetwork(
        conductance=siemens,
        rail_voltage=jnp.asarray(rail_voltage, dtype),
        source_voltage=jnp.asarray(source_voltage[:, 0], dtype),
        source_current=jnp.asarray(source_current[:, 0], dtype),
        diode=_diode(diode, dtype),
        topology=topology,
        floor=float(floor),
        labels=labels,
    )
    _refuse_unstable_amplifiers(circuit)
    _refuse_impossible_diodes(topology, np.concatenate([rail_voltage, source_voltage[:, 0]]))
    return circuit


def circuit_from_networkx(
    graph: Any,
    *,
    inputs: Sequence[Hashable],
    outputs: Sequence[Hashable],
    conductance: Any,
    rails: Mapping[Hashable, float] | None,
    floor: float,
) -> CircuitNetwork:
    """The circuit that `ResistorNetwork.from_networkx` describes."""
    number = arguments.numbering(graph, parallel=True)
    labels = tuple(number)
    words: dict[str, Any] = {
        "inputs": arguments.numbers_of("inputs", inputs, number),
        "outputs": arguments.numbers_of("outputs", outputs, number),
        "rails": arguments.by_number("rails", rails, number),
        "conductance": arguments.of_edges("conductance", conductance, graph, _NO_IMPEDANCES),
    }
    with arguments.explained(labels):
        return build_circuit(
            [(number[a], number[b]) for a, b in graph.edges()], len(number), floor=floor, labels=labels, **words
        )


def _nodes(name: str, nodes: Any, width: int) -> np.ndarray:
    array = np.asarray(nodes)
    if array.size == 0:
        return np.zeros((0, width), int)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: wanted integer node numbers, got {array.dtype}; from_networkx takes labels")
    wanted = f"shape (count, {width})" if width > 1 else "a sequence of nodes"
    if (array.ndim != 2 or array.shape[1] != width) if width > 1 else array.ndim != 1:
        raise ValueError(f"{name}: wanted {wanted}, got shape {array.shape}")
    return array.astype(int).reshape(-1, width)


def _sources(name: str, sources: Sequence[Any], width: int, wanted: str, numbers: int = 1) -> tuple[Any, Any]:
    for source in sources:
        if len(source) != width + numbers:
            raise ValueError(f"{name}: wanted {wanted} for each source, got {tuple(source)}")
    nodes = [source[:width] for source in sources]
    if any(int(node) != node for row in nodes for node in row):
        raise ValueError(f"{name}: wanted integer node numbers in {wanted}, got {nodes}")
    values = _finite(name, [source[width:] for source in sources]).reshape(-1, numbers)
    return np.asarray(nodes, int).reshape(-1, width), values


def _finite(name: str, values: Any) -> np.ndarray:
    array = arguments.real_floats(name, values, _NO_IMPEDANCES)
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name}: wanted finite numbers, got {array[~np.isfinite(array)][:5].tolist()}")
    return array


def _conductances(conductance: Any, count: int, floor: float) -> jax.Array:
    siemens = arguments.one_each(
        "conductance", conductance, count, "edge", owner="circuit", hint=_NO_IMPEDANCES, finite=False
    )
    arguments.refuse_complex("floor", floor)
    if not (np.isfinite(floor) and floor >= 0):
        raise ValueError(f"floor: wanted a finite number of siemens, at least 0, got {floor}")
    values = np.asarray(siemens)
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= np.asarray(floor, values.dtype))))
    if wrong.size:
        raise ValueError(
            f"conductance: wanted finite numbers of siemens, at least the floor {floor:g}, got "
            f"{values[wrong[:5]].tolist()} on edges {_abridged(wrong.tolist())}: raise them or remove the edges"
        )
    return siemens


def _diode(diode: Shockley | None, dtype: Any) -> Shockley | None:
    if diode is None:
        return None
    for name in ("saturation_current", "emission_voltage"):
        value = arguments.real_floats(f"diode: {name}", getattr(diode, name))
        if value.shape != () or not (np.isfinite(value) and value > 0):
            raise ValueError(f"diode: wanted one positive finite {name} for all diodes, got {value}")
    return jax.tree.map(lambda leaf: leaf.astype(dtype), diode)


def _refuse_repeats(single: dict[str, np.ndarray], n: int) -> None:
    for name in ("inputs", "rails"):
        nodes = single[name]
        repeated = np.flatnonzero(np.bincount(nodes, minlength=n) > 1)
        if repeated.size:
            raise ValueError(f"{name}: wanted each node once, got node {repeated[0]} more than once")
    both = np.intersect1d(single["inputs"], single["rails"])
    if both.size:
        raise ValueError(f"rails: wanted nodes that are not inputs, got {both.tolist()}, which are both: choose one")


def _refuse_impossible_diodes(topology: Topology, constants: np.ndarray) -> None:
    """Ideal diodes across voltage sources: nothing limits their current."""
    if not topology.ideal_diodes or not len(topology.diodes):
        return
    held = np.flatnonzero(topology.diode_reach == 0)
    drops = (incidence(topology.n, topology.diodes) @ topology.drive_map.to_scipy()).toarray()
    x_size = len(topology.inputs)
    for k in held:
        if np.any(drops[k, :x_size]):
            continue  # an input decides, at run time
        drop = drops[k, x_size:] @ constants
        if drop > 0:
            raise ValueError(
                f"diodes: wanted diodes that can block or conduct, got number {k}, {topology.diodes[k].tolist()}, "
                f"where voltage sources force a forward drop of {drop:g} V: turn it or put a resistor in series"
            )
    reach_back = np.bincount(topology.diode_test_map.rows, minlength=len(topology.diodes))
    for k in np.flatnonzero((topology.diode_reach > 0) & (reach_back == 0)):
        raise ValueError(
            f"diodes: wanted diodes whose current some resistor limits, got number {k}, {topology.diodes[k].tolist()}, "
            "which lies across one-way controlled sources alone: put a resistor in series"
        )


def _refuse_unstable_amplifiers(circuit: CircuitNetwork) -> None:
    """Controlled sources whose feedback leaves no stable operating point; real diodes may yet mend it."""
    if not len(circuit.gain) or circuit.diode is not None or not len(circuit.topology.potentials):
        return
    solve = conductance_solver(circuit.topology, circuit.conductance.dtype, circuit.solver.dense_size)
    nothing = jnp.zeros(len(circuit.topology.potentials), circuit.conductance.dtype)
    if not solve(circuit.conductance, nothing, None).positive:
        raise ValueError(
            "controlled_sources: wanted feedback that leaves one stable operating point, got a conductance matrix "
            "whose determinant is not positive: change the sign or the size of a gain"
        )


def _abridged(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8]))
    return shown if len(numbers) <= 8 else f"{shown}, ... ({len(numbers)} in all)"
