"""Circuits of single elements as plain data, and their text as a deck for SPICE.

A deck is data here, never a program; `reader.py` reads one, its subcircuits written out, its expressions computed.
Source of the format: Nagel and Pederson 1973, "SPICE (Simulation Program with Integrated Circuit Emphasis)", and the
ngspice manual.
"""

from __future__ import annotations

import math
from typing import NamedTuple

GROUND = "0"
ZERO_CELSIUS = 273.15
THERMAL_VOLTAGE_PER_KELVIN = 1.38064852e-23 / 1.6021766208e-19
"""k/q in volts per kelvin as ngspice has it (CODATA 2014); the exact SI value is 3.4e-7 larger."""
ROOM_TEMPERATURE = 27.0
THERMAL_VOLTAGE = THERMAL_VOLTAGE_PER_KELVIN * (ROOM_TEMPERATURE + ZERO_CELSIUS)
"""Volts at the temperature, in degrees Celsius, of a deck that names none."""

TIGHT = "reltol=1e-10 abstol=1e-18 vntol=1e-14 gmin=1e-20"
"""Options with which ngspice solves the equations to rounding."""


class Element(NamedTuple):
    """One element: its nodes, and a value in ohms, volts, amperes, siemens or as a gain.

    Nodes of R, V, I, D, F, H: two; of E, G: plus, minus, control plus, control minus. `reference` is the model of a D,
    the current-sensing V of an F or H. A resistor of infinite ohms is an open one.

    Attributes:
        where: the line that it stands on, in words.
        letter: its kind, where its name does not begin with it: in a subcircuit, or where it stands for another one.
        own: whether it is an element of the netlist, not a part of one that this package made.
    """

    name: str
    nodes: tuple[str, ...]
    value: float = math.nan
    reference: str = ""
    where: str = ""
    letter: str = ""
    own: bool = True

    @property
    def kind(self) -> str:
        """The letter of its kind in SPICE, in lower case."""
        return self.letter or self.name[0]


class DiodeModel(NamedTuple):
    """SPICE's junction diode at direct current: i = IS (exp(v / (N kT/q)) - 1), IS in amperes, the gap EG in eV."""

    saturation_current: float = 1e-14
    emission_coefficient: float = 1.0
    energy_gap: float = 1.11
    temperature_exponent: float = 3.0

    def at(self, celsius: float, nominal_celsius: float) -> tuple[float, float]:
        """(saturation current in amperes, emission voltage in volts) at a temperature."""
        kelvin, nominal = celsius + ZERO_CELSIUS, nominal_celsius + ZERO_CELSIUS
        emission_voltage = self.emission_coefficient * THERMAL_VOLTAGE_PER_KELVIN * kelvin
        exponent = (kelvin / nominal - 1) * self.energy_gap / emission_voltage
        exponent += self.temperature_exponent / self.emission_coefficient * math.log(kelvin / nominal)
        return self.saturation_current * math.exp(exponent) if exponent < 700 else math.inf, emission_voltage


class Deck(NamedTuple):
    """A whole deck; temperatures in degrees Celsius.

    Attributes:
        notes: lists of names that the deck carries in comments: its inputs, outputs, the order of its nodes, and the
            diode models that stand for ideal diodes.
        passed_over: what was read but is not in the circuit, or is there as something else, a sentence each.
    """

    title: str
    elements: tuple[Element, ...]
    models: dict[str, DiodeModel]
    notes: dict[str, list[str]]
    temperature: float = ROOM_TEMPERATURE
    nominal_temperature: float = ROOM_TEMPERATURE
    passed_over: tuple[str, ...] = ()

    def of_kind(self, kind: str) -> list[Element]:
        """Its elements of a kind."""
        return [element for element in self.elements if element.kind == kind]


def write_deck(deck: Deck, options: str = "") -> str:
    """The text of a deck, numbers with all their digits. Reads back as the same deck."""
    lines = [deck.title]
    for key, names in deck.notes.items():
        lines += [f"* groundstate {key}: {' '.join(names[k : k + 12])}" for k in range(0, max(len(names), 1), 12)]
    lines += [_write_element(element) for element in deck.elements]
    for name, model in deck.models.items():
        values = " ".join(f"{k}={v!r}" for k, v in zip(("IS", "N", "EG", "XTI"), model, strict=True))
        lines.append(f".model {name} D({values})")
    lines += [f".temp {deck.temperature!r}", f".options tnom={deck.nominal_temperature!r} {options}".rstrip()]
    return "\n".join([*lines, ".op", ".end", ""])


def plainly_named(deck: Deck) -> tuple[Deck, list[str]]:
    """The deck with names that mean nothing to ngspice, and the old names of its nodes n0, n1, ..."""
    elements = [element for element in deck.elements if element.value != math.inf]
    nodes = {GROUND: GROUND}
    for element in elements:
        for name in element.nodes:
            nodes.setdefault(name, f"n{len(nodes) - 1}")
    models = {name: f"m{k}" for k, name in enumerate(deck.models)}
    renamed = {element.name: f"{element.kind}{k}" for k, element in enumerate(elements)}
    references = {"d": models, "f": renamed, "h": renamed}
    plain = tuple(
        Element(
            renamed[element.name],
            tuple(nodes[name] for name in element.nodes),
            element.value,
            references.get(element.kind, {}).get(element.reference, ""),
        )
        for element in elements
    )
    laws = {models[name]: model for name, model in deck.models.items()}
    return deck._replace(title="operating point", elements=plain, models=laws, notes={}), list(nodes)[1:]


def _write_element(element: Element) -> str:
    name, nodes = element.name, " ".join(element.nodes)
    if element.kind == "d":
        return f"{name} {nodes} {element.reference}"
    if element.value == math.inf:
        return f"* groundstate open: {name} {nodes}"
    reference = f" {element.reference}" if element.reference else ""
    return f"{name} {nodes}{reference} {element.value!r}"


def node_number(name: str) -> int:
    """The number k of a node n<k>, -1 of ground."""
    return -1 if name == GROUND else int(name[1:])
