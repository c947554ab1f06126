"""Circuits as SPICE netlists, and SPICE netlists as circuits."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from substrates.classical.resistor.deck import (
    GROUND,
    THERMAL_VOLTAGE_PER_KELVIN,
    ZERO_CELSIUS,
    Deck,
    DiodeModel,
    Element,
    NetlistError,
    parse_deck,
    write_deck,
)
from substrates.classical.resistor.elements import Shockley

if TYPE_CHECKING:
    from substrates.classical.resistor.circuit import CircuitNetwork
    from substrates.classical.resistor.network import ResistorNetwork

TIGHT = "reltol=1e-10 abstol=1e-18 vntol=1e-14 gmin=1e-20 itl1=10000 numdgt=16"
ROOM_TEMPERATURE = 27.0
NEAR_IDEAL_SATURATION_CURRENT = 1e-12
NEAR_IDEAL_EMISSION_VOLTAGE = 1e-6


class CircuitFromNetlist(NamedTuple):
    """What a netlist describes.

    Attributes:
        network: the circuit.
        names: the name of each node in the netlist, in the order of the circuit's nodes.
        x: the volts that the netlist puts on the inputs, shape (inputs,).
    """

    network: CircuitNetwork
    names: tuple[str, ...]
    x: Float[np.ndarray, "inputs"]


def to_netlist(network: ResistorNetwork, x: Any) -> str:
    """The network at the input x of shape (inputs,) volts, as a complete SPICE deck; a layered one is unfolded first.

    Node k is called n<k>. Every number has all its digits (up to 17); comments carry what SPICE has no word for
    (inputs, outputs, the order of nodes, resistors of zero conductance), so the deck reads back as the same circuit.
    Shockley diodes get N = emission voltage / (kT/q) at 27 degrees Celsius. An ideal diode becomes a near-ideal one,
    i = Is (exp(v/Ve) - 1) with Is = 1e-12 A and Ve = 1e-6 V: conducting I it drops Ve log(1 + I/Is), 28 uV at 1 A,
    and blocking it leaks Is. A bidirectional amplifier is an E, a source of 0 V that senses its current, and an F.

    Raises ValueError for an x of the wrong shape or not finite.
    """
    from substrates.classical.resistor.layered import LayeredNetwork

    circuit: Any = network.to_circuit() if isinstance(network, LayeredNetwork) else network
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
        thermal_voltage = THERMAL_VOLTAGE_PER_KELVIN * (ROOM_TEMPERATURE + ZERO_CELSIUS)
        models[model] = DiodeModel(current, emission / thermal_voltage)
        for k, pair in enumerate(np.asarray(circuit.diodes).tolist()):
            elements.append(Element(f"d{k}", names(pair), reference=model))
    title = "A circuit by Groundstate; all digits of the operating point: ngspice -n -b -r point.raw deck.cir"
    return write_deck(Deck(title, tuple(elements), models, notes), TIGHT)


def from_netlist(
    text: str, *, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
) -> CircuitNetwork:
    """The circuit that a netlist of R, V, I, D and E elements describes; see `read_netlist`, which returns more."""
    return read_netlist(text, inputs=inputs, outputs=outputs).network


def read_netlist(
    text: str, *, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
) -> CircuitFromNetlist:
    """The circuit that a netlist describes, with the names of its nodes and the volts on its inputs.

    A voltage source between a node and ground makes the node an input, if `inputs` names it, and a rail otherwise.
    Nodes are numbered by first appearance. E elements become controlled sources; an F element is accepted only as the
    backward half of a bidirectional amplifier, as `to_netlist` writes it.

    Args:
        text: the netlist; its first line is a title. Read as data: nothing in it is ever executed or included.
        inputs, outputs: names of nodes; None takes them from the comments that `to_netlist` writes, or else none.

    Raises NetlistError, with the line's number, for everything that it does not understand, and for circuits that
    have no unique operating point.
    """
    from substrates.classical.resistor.circuit import CircuitNetwork

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
    input_names = named_nodes("inputs", deck.notes.get("inputs", []) if inputs is None else inputs, index)
    output_names = named_nodes("outputs", deck.notes.get("outputs", []) if outputs is None else outputs, index)
    for name in input_names:
        if name not in held:
            raise NetlistError(f"netlist: input {name} is not held by a voltage source to ground; add one")
    rails = {index[name]: volts for name, volts in held.items() if name not in set(input_names)}
    diode = _diode_law(deck, by_kind["d"])
    try:
        network = CircuitNetwork.from_edges(
            np.array([pair(element) for element in by_kind["r"]], dtype=np.int64).reshape(-1, 2),
            len(index),
            inputs=[index[name] for name in input_names],
            outputs=[index[name] for name in output_names],
            conductance=np.array([1 / element.value for element in by_kind["r"]]),
            rails=rails,
            diodes=[pair(element) for element in by_kind["d"]],
            diode=diode,
            current_sources=[(*pair(element), element.value) for element in by_kind["i"]],
            voltage_sources=[(*pair(element), element.value) for element in floating],
            controlled_sources=[
                (node(plus), node(minus), node(control_plus), node(control_minus), gain, reverse)
                for plus, minus, control_plus, control_minus, gain, reverse in controlled
            ],
        )
    except ValueError as problem:
        raise NetlistError(f"netlist: nodes {_abridged(index)}: {problem}") from problem
    network = dataclasses.replace(network, labels=tuple(index))
    return CircuitFromNetlist(network, tuple(index), np.array([held[name] for name in input_names]))


def _require_distinct_terminals(element: Element) -> None:
    if element.name[0] != "f" and element.nodes[0] == element.nodes[1]:
        raise NetlistError(
            f"netlist, line {element.line}: both ends of {element.name} are node {element.nodes[0]}; remove it"
        )


def _controlled_sources(by_kind: dict[str, list[Element]]) -> tuple[list[tuple], dict[str, Element]]:
    """(plus, minus, control plus, control minus, gain, reverse gain) of each E, and the V's that sense for an F.

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
        controlled.append((plus, minus, *control, element.value, 0.0 if reverse is None else reverse.value))
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


def _diode_law(deck: Deck, diodes: list[Element]) -> Shockley | None:
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
    law = next(iter(laws), None)
    return None if law is None else Shockley(*map(jnp.asarray, law))


def _abridged(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
