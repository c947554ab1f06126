"""Circuits as SPICE netlists, and SPICE netlists as circuits."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from substrates.arguments import abridged
from substrates.spice.compose import Controlled, composed, refuse_lost_minimum
from substrates.spice.deck import GROUND, THERMAL_VOLTAGE, TIGHT, Deck, DiodeModel, Element, write_deck
from substrates.spice.lines import NetlistError
from substrates.spice.reader import parse_deck

NEAR_IDEAL_SATURATION_CURRENT = 1e-12
NEAR_IDEAL_EMISSION_VOLTAGE = 1e-6


class Described(NamedTuple):
    """What a netlist describes.

    Attributes:
        elements: of the circuit, by the names of the arguments of `ResistorNetwork.from_edges`, all but its diode.
        diode: None for ideal diodes, or saturation currents in amperes and emission voltages in volts, of all or each.
        names: the name of each node in the netlist, in the order of the circuit's nodes.
        x: the volts that the netlist puts on the inputs, shape (inputs,).
        notes: what the netlist says that is not in the circuit, or is there as something else.
        deck: the elements of the netlist.
    """

    elements: dict[str, Any]
    diode: tuple[Any, Any] | None
    names: tuple[str, ...]
    x: Float[np.ndarray, "inputs"]
    notes: tuple[str, ...]
    deck: tuple[Element, ...]

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Makes a NetlistError with the line of an element of a ValueError raised inside, which may name nodes."""
        try:
            yield
        except ValueError as problem:
            wrong = {self.names[node] if node >= 0 else GROUND for node in getattr(problem, "nodes", ())}
            touching = lambda element: sum(name in wrong for name in set(element.nodes))
            element = max(self.deck, key=touching, default=None)
            there = "" if element is None or not touching(element) else f", {element.where}, {element.name}"
            raise NetlistError(f"netlist{there}: {problem}") from problem


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
    models: dict[str, DiodeModel] = {}
    if len(circuit.diodes):
        law, count = circuit.diode, len(circuit.diodes)
        if law is None:
            notes["ideal"] = ["ideal"]
            laws = [(NEAR_IDEAL_SATURATION_CURRENT, NEAR_IDEAL_EMISSION_VOLTAGE)] * count
        else:
            each = (np.broadcast_to(number, count) for number in (law.saturation_current, law.emission_voltage))
            laws = list(zip(*map(numbers, each), strict=True))
        name_of = {law: f"shockley{k or ''}" if circuit.diode else "ideal" for k, law in enumerate(dict.fromkeys(laws))}
        models = {name_of[law]: DiodeModel(law[0], law[1] / THERMAL_VOLTAGE) for law in name_of}
        for k, pair in enumerate(np.asarray(circuit.diodes).tolist()):
            elements.append(Element(f"d{k}", names(pair), reference=name_of[laws[k]]))
    title = "A circuit by Groundstate; all digits of the operating point: ngspice -n -b -r point.raw deck.cir"
    return write_deck(Deck(title, tuple(elements), models, notes), f"{TIGHT} itl1=10000 numdgt=16")


def read_circuit(
    text: str,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    folder: str | Path | None = None,
) -> Described:
    """The circuit that a netlist describes; see `ResistorNetwork.read_netlist`."""
    deck = parse_deck(text, folder)
    for element in deck.elements:
        if element.kind not in "fg" and element.nodes[0] == element.nodes[1]:
            raise NetlistError(
                f"netlist, {element.where}: both ends of {element.name} are node {element.nodes[0]}; remove it"
            )
    names = {name for element in deck.elements for name in element.nodes}
    input_names, output_names = terminals(deck, inputs, outputs, _numbered(deck, deck.elements))
    if GROUND not in names:
        raise NetlistError(
            "netlist: ground is missing, node 0 (or gnd): nothing is joined to it; name the node at 0 volts 0"
        )
    elements, controlled = composed(deck, set(input_names))
    index = _numbered(deck, elements, controlled)
    node = lambda name: -1 if name == GROUND else index[name]
    pair = lambda element: (node(element.nodes[0]), node(element.nodes[1]))
    of_kind = lambda kind: [element for element in elements if element.kind == kind]

    held, floating = held_nodes(of_kind("v"))
    for name in input_names:
        if name not in held:
            raise NetlistError(f"netlist: input {name} is not held by a voltage source to ground; add one")
    resistors = sorted(of_kind("r"), key=lambda element: not element.own)
    described = Described(
        {
            "edges": np.array([pair(element) for element in resistors], dtype=np.int64).reshape(-1, 2),
            "n": len(index),
            "inputs": [index[name] for name in input_names],
            "outputs": [index[name] for name in output_names],
            "conductance": np.array([1 / element.value for element in resistors]),
            "rails": {index[name]: volts for name, volts in held.items() if name not in set(input_names)},
            "diodes": [pair(element) for element in of_kind("d")],
            "current_sources": [(*pair(element), element.value) for element in of_kind("i")],
            "voltage_sources": [(*pair(element), element.value) for element in floating],
            "controlled_sources": [(*map(node, source.nodes), source.gain, source.reverse) for source in controlled],
        },
        _diode_law(deck, of_kind("d")),
        tuple(index),
        np.array([held[name] for name in input_names]),
        (*deck.passed_over, *_made_resistors(resistors)),
        deck.elements,
    )
    refuse_lost_minimum(deck)
    return described


def _made_resistors(resistors: Sequence[Element]) -> list[str]:
    """Which conductances, last in their array, are those of no resistor line."""
    return [
        f"{element.where}: {element.name} is conductance {k} of the circuit, trainable like the others"
        for k, element in enumerate(resistors)
        if not element.own
    ]


def _numbered(deck: Deck, elements: Sequence[Element], controlled: Sequence[Controlled] = ()) -> dict[str, int]:
    index: dict[str, int] = {}
    for name in deck.notes.get("nodes", []):
        index.setdefault(name, len(index))
    remaining = {name for element in (*elements, *controlled) for name in element.nodes}
    for element in (*deck.elements, *elements, *controlled):
        for name in element.nodes:
            if name != GROUND and name in remaining:
                index.setdefault(name, len(index))
    if GROUND in index or not index:
        raise NetlistError("netlist: wanted at least one node besides ground, and ground in no list of nodes")
    return index


def held_nodes(sources: Sequence[Element]) -> tuple[dict[str, float], list[Element]]:
    """The volts of each node that a source holds against ground, and the sources between two other nodes."""
    held: dict[str, float] = {}
    floating = []
    for element in sources:
        plus, minus = element.nodes
        if GROUND not in element.nodes:
            floating.append(element)
            continue
        name, volts = (plus, element.value) if minus == GROUND else (minus, -element.value)
        if name in held:
            raise NetlistError(f"netlist, {element.where}: node {name} is already held by another voltage source")
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
            raise NetlistError(f"{argument}: the netlist has no {kind} {name!r}; it has {abridged(list(known))}")
    if len(set(lowered)) != len(lowered):
        raise NetlistError(f"{argument}: a {kind} is named twice in {abridged(lowered)}")
    return lowered


def _diode_law(deck: Deck, diodes: Sequence[Element]) -> tuple[Any, Any] | None:
    """None for ideal diodes, or the law of all diodes: two numbers, or two arrays where the laws differ."""
    ideal = set(deck.notes.get("ideal", []))
    laws: list[tuple[float, float] | None] = []
    for element in diodes:
        law = deck.models[element.reference].at(deck.temperature, deck.nominal_temperature)
        if not all(0 < value < np.inf for value in law):
            raise NetlistError(
                f"netlist, {element.where}: at {deck.temperature:g} degrees Celsius the saturation current of "
                f"model {element.reference} is {law[0]:g} A; wanted a positive number that float64 holds"
            )
        laws.append(None if element.reference in ideal else law)
        if (laws[0] is None) != (laws[-1] is None):
            raise NetlistError(
                f"netlist, {element.where}: {element.name} follows the diode model {element.reference} and "
                f"{diodes[0].name} follows {diodes[0].reference}; ideal diodes and real ones do not go together"
            )
    real = [law for law in laws if law is not None]
    if len(set(real)) > 1:
        currents, voltages = np.array(real).T
        return currents, voltages
    return real[0] if real else None
