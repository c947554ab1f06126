"""Circuits as SPICE netlists, and SPICE netlists as circuits."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from substrates.spice.deck import (
    GROUND,
    THERMAL_VOLTAGE,
    TIGHT,
    Deck,
    DiodeModel,
    Element,
    NetlistError,
    parse_deck,
    write_deck,
)

NEAR_IDEAL_SATURATION_CURRENT = 1e-12
NEAR_IDEAL_EMISSION_VOLTAGE = 1e-6


class Described(NamedTuple):
    """What a netlist describes.

    Attributes:
        elements: of the circuit, by the names of the arguments of `ResistorNetwork.from_edges`, all but its diode.
        diode: None for ideal diodes, or the saturation current in amperes and the emission voltage in volts of all.
        names: the name of each node in the netlist, in the order of the circuit's nodes.
        x: the volts that the netlist puts on the inputs, shape (inputs,).
    """

    elements: dict[str, Any]
    diode: tuple[float, float] | None
    names: tuple[str, ...]
    x: Float[np.ndarray, "inputs"]

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Makes a NetlistError that names the nodes of a ValueError raised inside."""
        try:
            yield
        except ValueError as problem:
            raise NetlistError(f"netlist: nodes {_abridged(self.names)}: {problem}") from problem


class Elements(Protocol):
    """The elements of a circuit; `ResistorNetwork` says what each of it is."""

    @property
    def n(self) -> int: ...
    @property
    def labels(self) -> Any: ...
    @property
    def inputs(self) -> tuple[int, ...]: ...
    @property
    def outputs(self) -> tuple[int, ...]: ...
    @property
    def rails(self) -> tuple[int, ...]: ...
    @property
    def edges(self) -> Any: ...
    @property
    def diodes(self) -> Any: ...
    @property
    def voltage_sources(self) -> Any: ...
    @property
    def current_sources(self) -> Any: ...
    @property
    def controlled_sources(self) -> Any: ...
    @property
    def conductance(self) -> Any: ...
    @property
    def rail_voltage(self) -> Any: ...
    @property
    def source_voltage(self) -> Any: ...
    @property
    def source_current(self) -> Any: ...
    @property
    def gain(self) -> Any: ...
    @property
    def reverse_gain(self) -> Any: ...
    @property
    def diode(self) -> Any: ...


def write_netlist(circuit: Elements, x: Any) -> str:
    """A circuit at the input x of shape (inputs,) volts, as a complete SPICE deck.

    Node k is called n<k>. Every number has all its digits (up to 17); comments carry what SPICE has no word for
    (inputs, outputs, the order of nodes, resistors of zero conductance), so the deck reads back as the same circuit.
    Shockley diodes get N = emission voltage / (kT/q) at 27 degrees Celsius. An ideal diode becomes a near-ideal one,
    i = Is (exp(v/Ve) - 1) with Is = 1e-12 A and Ve = 1e-6 V: conducting I it drops Ve log(1 + I/Is), 28 uV at 1 A,
    and blocking it leaks Is. A bidirectional amplifier is an E, a source of 0 V that senses its current, and an F.

    Args:
        circuit: its elements.
        x: volts of the inputs.

    Raises ValueError for an x of the wrong shape or not finite.
    """
    volts = np.asarray(x, dtype=np.float64)
    if volts.shape != (len(circuit.inputs),) or not np.all(np.isfinite(volts)):
        raise ValueError(
            f"x: wanted {len(circuit.inputs)} finite volts, shape ({len(circuit.inputs)},), "
            f"got shape {volts.shape}; give one example, not a batch"
        )
    name = lambda node: GROUND if node < 0 else f"n{node}"
    names = lambda nodes: tuple(name(int(node)) for node in nodes)
    numbers = lambda values: np.asarray(values, dtype=np.float64).tolist()
    elements: list[Element] = []

    def add(kind: str, pairs: Any, values: Any) -> None:
        for k, (pair, value) in enumerate(zip(np.asarray(pairs).tolist(), numbers(values), strict=True)):
            elements.append(Element(f"{kind}{k}", names(pair), value))

    with np.errstate(divide="ignore"):
        resistance = 1 / np.asarray(circuit.conductance, dtype=np.float64)
    add("vinput", [(node, -1) for node in circuit.inputs], volts)
    add("vrail", [(node, -1) for node in circuit.rails], circuit.rail_voltage)
    add("r", circuit.edges, resistance)
    add("v", circuit.voltage_sources, circuit.source_voltage)
    add("i", circuit.current_sources, circuit.source_current)
    gains = zip(numbers(circuit.gain), numbers(circuit.reverse_gain), strict=True)
    for k, (nodes, (gain, reverse)) in enumerate(zip(np.asarray(circuit.controlled_sources), gains, strict=True)):
        plus, minus, *control = names(nodes)
        inner = f"sense{k}" if reverse else minus
        elements.append(Element(f"e{k}", (plus, inner, *control), gain))
        if reverse:
            elements.append(Element(f"vsense{k}", (minus, inner), 0.0))
            elements.append(Element(f"f{k}", tuple(control), reverse, f"vsense{k}"))
    notes = {
        "nodes": [name(node) for node in range(circuit.n)],
        "inputs": [name(node) for node in circuit.inputs],
        "outputs": [name(node) for node in circuit.outputs],
    }
    models = {}
    if len(circuit.diodes):
        law, model = circuit.diode, "shockley"
        if law is None:
            model, notes["ideal"] = "ideal", ["ideal"]
            current, emission = NEAR_IDEAL_SATURATION_CURRENT, NEAR_IDEAL_EMISSION_VOLTAGE
        else:
            current, emission = float(law.saturation_current), float(law.emission_voltage)
        models[model] = DiodeModel(current, emission / THERMAL_VOLTAGE)
        for k, pair in enumerate(np.asarray(circuit.diodes).tolist()):
            elements.append(Element(f"d{k}", names(pair), reference=model))
    title = "A circuit by Groundstate; all digits of the operating point: ngspice -n -b -r point.raw deck.cir"
    return write_deck(Deck(title, tuple(elements), models, notes), f"{TIGHT} itl1=10000 numdgt=16")


def read_circuit(text: str, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None) -> Described:
    """The circuit that a netlist describes; see `ResistorNetwork.read_netlist`."""
    deck = parse_deck(text)
    by_kind: dict[str, list[Element]] = {kind: [] for kind in "rvidef"}
    for element in deck.elements:
        _require_distinct_terminals(element)
        by_kind[element.name[0]].append(element)
    controlled, sensing = _controlled_sources(by_kind)
    hidden = {node for element in sensing.values() for node in element.nodes[1:]}
    index = _number_nodes(deck, hidden)
    node = lambda name: -1 if name == GROUND else index[name]
    pair = lambda element: (node(element.nodes[0]), node(element.nodes[1]))

    held, floating = held_nodes(by_kind["v"], sensing)
    input_names, output_names = terminals(deck, inputs, outputs, index)
    for name in input_names:
        if name not in held:
            raise NetlistError(f"netlist: input {name} is not held by a voltage source to ground; add one")
    rails = {index[name]: volts for name, volts in held.items() if name not in set(input_names)}
    elements = {
        "edges": np.array([pair(element) for element in by_kind["r"]], dtype=np.int64).reshape(-1, 2),
        "n": len(index),
        "inputs": [index[name] for name in input_names],
        "outputs": [index[name] for name in output_names],
        "conductance": np.array([1 / element.value for element in by_kind["r"]]),
        "rails": rails,
        "diodes": [pair(element) for element in by_kind["d"]],
        "current_sources": [(*pair(element), element.value) for element in by_kind["i"]],
        "voltage_sources": [(*pair(element), element.value) for element in floating],
        "controlled_sources": [(*map(node, nodes), *gains) for nodes, gains in controlled],
    }
    return Described(
        elements, _diode_law(deck, by_kind["d"]), tuple(index), np.array([held[name] for name in input_names])
    )


def _require_distinct_terminals(element: Element) -> None:
    if element.name[0] != "f" and element.nodes[0] == element.nodes[1]:
        raise NetlistError(
            f"netlist, line {element.line}: both ends of {element.name} are node {element.nodes[0]}; remove it"
        )


def _controlled_sources(by_kind: dict[str, list[Element]]) -> tuple[list[tuple], dict[str, Element]]:
    """((plus, minus, control plus, control minus), (gain, reverse gain)) of each E, and the V's that sense for an F.

    The pattern of a bidirectional amplifier: E from plus to an inner node, a source of 0 V from minus to it, and an F
    that draws that current from the control nodes. The inner node joins nothing else.
    """
    sources = {element.name: element for element in by_kind["v"]}
    uses = Counter(name for elements in by_kind.values() for element in elements for name in element.nodes)
    backward: dict[str, tuple[Element, Element]] = {}
    for element in by_kind["f"]:
        sense = sources.get(element.reference)
        inner = GROUND if sense is None else sense.nodes[1]
        if sense is None or sense.value != 0 or inner == GROUND or uses[inner] != 2 or inner in backward:
            raise _lone_current_source(element)
        backward[inner] = (element, sense)
    controlled, sensing = [], {}
    for element in by_kind["e"]:
        plus, minus, *control = element.nodes
        reverse, sense = backward.pop(minus, (None, None))
        if reverse is not None and sense is not None:
            if list(reverse.nodes) != control:
                raise _lone_current_source(reverse)
            sensing[sense.name] = sense
            minus = sense.nodes[0]
        controlled.append(((plus, minus, *control), (element.value, 0.0 if reverse is None else reverse.value)))
    for element, _ in backward.values():
        raise _lone_current_source(element)
    return controlled, sensing


def _lone_current_source(element: Element) -> NetlistError:
    return NetlistError(
        f"netlist, line {element.line}: {element.name} is a current-controlled current source, understood only as the "
        "backward half of a bidirectional amplifier: E plus inner cp cm gain, V minus inner 0, F cp cm V gain"
    )


def _number_nodes(deck: Deck, hidden: set[str]) -> dict[str, int]:
    index: dict[str, int] = {}
    for name in deck.notes.get("nodes", []):
        index.setdefault(name, len(index))
    for element in deck.elements:
        for name in element.nodes:
            if name != GROUND and name not in hidden:
                index.setdefault(name, len(index))
    if GROUND in index or not index:
        raise NetlistError("netlist: wanted at least one node besides ground, and ground in no list of nodes")
    return index


def held_nodes(sources: list[Element], sensing: dict[str, Element]) -> tuple[dict[str, float], list[Element]]:
    """The volts of each node that a source holds against ground, and the sources between two other nodes."""
    held: dict[str, float] = {}
    floating = []
    for element in sources:
        plus, minus = element.nodes
        if element.name in sensing:
            continue
        if GROUND not in element.nodes:
            floating.append(element)
            continue
        name, volts = (plus, element.value) if minus == GROUND else (minus, -element.value)
        if name in held:
            raise NetlistError(f"netlist, line {element.line}: node {name} is already held by another voltage source")
        held[name] = volts
    return held, floating


def terminals(
    deck: Deck, inputs: Sequence[str] | None, outputs: Sequence[str] | None, nodes: Collection[str]
) -> tuple[list[str], list[str]]:
    """The nodes that are inputs and outputs: those that are named, or else those that the deck's comments list."""
    chosen = lambda role, names: named_nodes(role, deck.notes.get(role, []) if names is None else names, nodes)
    return chosen("inputs", inputs), chosen("outputs", outputs)


def named_nodes(argument: str, names: Sequence[str], known: Collection[str], kind: str = "node") -> list[str]:
    """The names in lower case; NetlistError for one that is not among the known ones of its kind, or comes twice."""
    if isinstance(names, str):
        raise NetlistError(f"{argument}: wanted a list of {kind} names, got the text {names!r}")
    lowered = [str(name).lower() for name in names]
    for name in lowered:
        if name not in known:
            raise NetlistError(f"{argument}: the netlist has no {kind} {name!r}; it has {_abridged(known)}")
    if len(set(lowered)) != len(lowered):
        raise NetlistError(f"{argument}: a {kind} is named twice in {_abridged(lowered)}")
    return lowered


def _diode_law(deck: Deck, diodes: list[Element]) -> tuple[float, float] | None:
    """None for ideal diodes, or the one law that all diodes follow."""
    ideal = set(deck.notes.get("ideal", []))
    laws: dict[tuple[float, float] | None, Element] = {}
    for element in diodes:
        law = deck.models[element.reference].at(deck.temperature, deck.nominal_temperature)
        if not all(0 < value < np.inf for value in law):
            raise NetlistError(
                f"netlist, line {element.line}: at {deck.temperature:g} degrees Celsius the saturation current of "
                f"model {element.reference} is {law[0]:g} A; wanted a positive number that float64 holds"
            )
        laws.setdefault(None if element.reference in ideal else law, element)
    if len(laws) > 1:
        first, second = list(laws.values())[:2]
        raise NetlistError(
            f"netlist, line {second.line}: {second.name} follows the diode model {second.reference} and {first.name} "
            f"follows {first.reference}; a circuit has one law for all its diodes"
        )
    return next(iter(laws), None)


def _abridged(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
