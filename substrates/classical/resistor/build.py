"""From the user's words to the checked fields of circuits; refuses what has no single operating point."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from substrates import arguments
from substrates.classical.resistor.elements import GROUND, Shockley
from substrates.classical.resistor.layout import CircuitError, Layout, check_sources, floating_nodes, incidence
from substrates.classical.resistor.linear_solve import conductance_solver
from substrates.classical.resistor.topology import Topology
from substrates.wiring.random_layers import uniform_each

NO_IMPEDANCES = "conductances here are real: this class has no impedances"


def circuit_fields(
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
) -> dict[str, Any]:
    """The fields of the circuit that `ResistorNetwork.from_edges` describes."""
    rails = {} if rails is None else dict(rails)
    current_nodes, source_current = _sources("current_sources", current_sources, 2, "(from, to, amperes)")
    voltage_nodes, source_voltage = _sources("voltage_sources", voltage_sources, 2, "(plus, minus, volts)")
    controlled = [(*source, 0.0) if len(source) == 5 else source for source in controlled_sources]
    control_nodes, gains = _sources(
        "controlled_sources", controlled, 4, "(plus, minus, control plus, control minus, gain[, reverse gain])", 2
    )
    pairs = {
        "edges": _nodes("edges", edges, 2),
        "diodes": _nodes("diodes", diodes, 2),
        "current_sources": current_nodes,
        "voltage_sources": voltage_nodes,
        "controlled_sources": control_nodes,
    }
    single = {
        name: _nodes(name, nodes, 1).ravel()
        for name, nodes in (("inputs", inputs), ("outputs", outputs), ("rails", list(rails)))
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

    siemens = _conductances(conductance, len(pairs["edges"]), floor)
    dtype = siemens.dtype
    rail_voltage = _finite("rails", list(rails.values()))
    layout = Layout(n, **pairs, **single, gains=gains.T, ideal_diodes=diode is None)
    values = [None] * len(inputs) + rail_voltage.tolist() + source_voltage[:, 0].tolist() + [None] * len(gains)
    name = _namer(labels)
    check_sources(layout, values, name)
    floating = floating_nodes(layout, np.asarray(siemens))
    if floating:
        raise CircuitError(
            f"edges: got floating nodes {arguments.abridged([name(node) for node in floating])}: wanted every node "
            "joined to an input, a rail or ground by positive conductances, voltage sources or real diodes; join them "
            "or leave them out",
            floating,
        )
    law = _diode(diode, len(pairs["diodes"]), dtype)
    layout.refuse_undetermined()
    topology = Topology.of(layout, dtype)
    if diode is None:
        _refuse_unstable_amplifiers(topology, siemens)
        _refuse_impossible_diodes(layout, np.concatenate([rail_voltage, source_voltage[:, 0]]), name)
    return {
        "conductance": siemens,
        "topology": topology,
        "rail_voltage": jnp.asarray(rail_voltage, dtype),
        "source_voltage": jnp.asarray(source_voltage[:, 0], dtype),
        "source_current": jnp.asarray(source_current[:, 0], dtype),
        "diode": law,
        "floor": float(floor),
        "labels": labels,
    }


def layered_fields(
    sizes: Sequence[int],
    *,
    key: PRNGKeyArray,
    input_gain: float = 1.0,
    weight_gain: float = 1.0,
    amplifiers: Sequence[tuple[float, float]] | None = None,
    rails: Sequence[float] = (),
    floor: float = 0.0,
    dtype: Any = None,
) -> dict[str, Any]:
    """The fields of a deep resistive network with random conductances: uniform in weight_gain / sqrt(n_before) times
    (-1, 1), those below the floor put at the floor.

    Args:
        sizes: the numbers of inputs, of nodes in each hidden layer, and of outputs.
        key: draws the conductances.
        input_gain: what the doubled inputs (x, -x) are multiplied by.
        weight_gain: scales the conductances, siemens.
        amplifiers: for each hidden layer a pair (A, B): the next layer sees A times its voltages, and it feels B
            times the current that the amplifier delivers; None means none (A = B = 1).
        rails: fixed voltages to which every node after the input has trainable conductances (0: a leak to ground),
            drawn like the others.
        floor: the smallest conductance, siemens.
        dtype: of the parameters; JAX's default if None.

    Raises:
        ValueError: for sizes that are not at least two positive integers, or gains that are not positive and finite.

    Source: Scellier 2024, arXiv 2402.11674; the amplifiers, Kendall et al. 2020, arXiv 2006.01981.
    """
    sizes = tuple(operator.index(size) for size in sizes)
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes: wanted at least two positive integers (inputs, ..., outputs), got {sizes}")
    amplifiers = [(1.0, 1.0)] * (len(sizes) - 2) if amplifiers is None else list(amplifiers)
    if len(amplifiers) != len(sizes) - 2:
        raise ValueError(
            f"amplifiers: wanted one pair (A, B) per hidden layer, {len(sizes) - 2} in all, got {len(amplifiers)}"
        )
    for name, values in (
        ("input_gain", [input_gain]),
        ("weight_gain", [weight_gain]),
        ("amplifiers", [g for pair in amplifiers for g in pair]),
    ):
        if not all(np.isfinite(value) and value > 0 for value in arguments.real_floats(name, values)):
            raise ValueError(f"{name}: wanted positive finite numbers, got {values}")
    _finite("rails", rails)
    _check_floor(floor)
    dtype = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
    before, after = (2 * sizes[0], *sizes[1:-1]), sizes[1:]
    shapes = tuple(shape for m, n in zip(before, after, strict=True) for shape in ((m, n), (len(rails), n)))
    bounds = weight_gain / np.repeat(before, 2) ** 0.5
    drawn = uniform_each(key, shapes, bounds, dtype, floor)
    return {
        "conductance": drawn[::2],
        "bias_current": tuple(jnp.zeros(n, dtype) for n in after),
        "rail_conductance": drawn[1::2],
        "rail_voltage": jnp.asarray(rails, dtype),
        "gain": jnp.asarray([pair[0] for pair in amplifiers], dtype),
        "reverse_gain": jnp.asarray([pair[1] for pair in amplifiers], dtype),
        "input_gain": jnp.asarray(input_gain, dtype),
        "floor": float(floor),
    }


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
    array = arguments.real_floats(name, values, NO_IMPEDANCES)
    arguments.refuse_not_finite(name, array)
    return array


def _check_floor(floor: float) -> None:
    arguments.refuse_complex("floor", floor)
    if not (np.isfinite(floor) and floor >= 0):
        raise ValueError(f"floor: wanted a finite number of siemens, at least 0, got {floor}")


def _conductances(conductance: Any, count: int, floor: float) -> jax.Array:
    siemens = arguments.one_each(
        "conductance", conductance, count, "edge", owner="circuit", hint=NO_IMPEDANCES, finite=False
    )
    _check_floor(floor)
    values = np.asarray(siemens)
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= np.asarray(floor, values.dtype))))
    if wrong.size:
        raise ValueError(
            f"conductance: wanted finite numbers of siemens, at least the floor {floor:g}, got "
            f"{values[wrong[:5]].tolist()} on edges {arguments.abridged(wrong.tolist())}: raise them or remove the "
            "edges"
        )
    return siemens


def _diode(diode: Shockley | None, count: int, dtype: Any) -> Shockley | None:
    if diode is None:
        return None
    for name in ("saturation_current", "emission_voltage"):
        value = arguments.real_floats(f"diode: {name}", getattr(diode, name))
        if value.shape not in ((), (count,)) or not np.all(np.isfinite(value) & (value > 0)):
            raise ValueError(
                f"diode: wanted one positive finite {name} for all diodes, or shape ({count},), one for each, got "
                f"{value if value.size <= 8 else f'shape {value.shape}'}"
            )
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


def _refuse_impossible_diodes(layout: Layout, constants: np.ndarray, name: Callable[[int], str]) -> None:
    """Ideal diodes across voltage sources: nothing limits their current."""
    if not len(layout.diodes):
        return
    held = np.flatnonzero(layout.diode_reach == 0)
    drops = layout.voltages_shown(incidence(layout.n, layout.diodes[held]))[:, len(layout.potentials) :]
    x_size = len(layout.inputs)
    decided_by_input = abs(drops[:, :x_size]).sum(axis=1) > 0  # at run time
    forced = np.where(decided_by_input, 0.0, drops[:, x_size:] @ constants)
    ends = lambda k: f"number {k}, [{', '.join(map(name, layout.diodes[k].tolist()))}]"
    for k, drop in zip(held, forced, strict=True):
        if drop > 0:
            raise CircuitError(
                f"diodes: wanted diodes that can block or conduct, got {ends(k)}, where voltage sources force a "
                f"forward drop of {drop:g} V: turn it or put a resistor in series",
                layout.diodes[k],
            )
    reach_back = np.bincount(layout.diode_test.rows, minlength=len(layout.diodes))
    for k in np.flatnonzero((layout.diode_reach > 0) & (reach_back == 0)):
        raise CircuitError(
            f"diodes: wanted diodes whose current some resistor limits, got {ends(k)}, which lies across one-way "
            "controlled sources alone: put a resistor in series",
            layout.diodes[k],
        )


def _refuse_unstable_amplifiers(topology: Topology, conductance: jax.Array) -> None:
    """Controlled sources whose feedback leaves no stable operating point; real diodes may yet mend it."""
    if not topology.count("controlled_sources") or not topology.size:
        return
    nothing = jnp.zeros(topology.size, conductance.dtype)
    if not conductance_solver(topology, conductance.dtype)(conductance, nothing, None).positive:
        raise CircuitError(
            "controlled_sources: wanted feedback that leaves one stable operating point, got a conductance matrix "
            "whose determinant is not positive: change the sign or the size of a gain",
            topology.layout.controlled_sources.ravel(),
        )


def _namer(labels: tuple[Hashable, ...] | None) -> Callable[[int], str]:
    """How messages call nodes: by their labels, where all of these are texts, or by their numbers."""
    if labels is None or not all(isinstance(label, str) for label in labels):
        return str
    return lambda node: "ground" if node == GROUND else str(labels[node])
