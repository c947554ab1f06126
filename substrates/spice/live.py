"""The deck of a circuit on the bench: what is fixed, and what an experimenter sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from substrates.spice.deck import GROUND, THERMAL_VOLTAGE, TIGHT, Deck, Element, plainly_named, write_deck
from substrates.spice.lines import NetlistError
from substrates.spice.netlist import held_nodes, named_nodes, terminals
from substrates.spice.reader import parse_deck

Array = np.ndarray

STOP = 1.005
"""Where the stop of a control voltage stands, in floors; it gives by less than half a percent of the floor."""

_STOP_CURRENT = 1e-12
_STOP_SHARPNESS = 1e-4
"""Emission voltage of the stop's diode, in floors: sharper ones cost ngspice its convergence (measured)."""

_ALTERATION, _LINE, _BEHAVIOUR = 4.0, 1.0, 8.0
"""What a change costs, and a line and a behavioural source of a deck that is read anew, in units of 6 us (measured)."""


class Setting(NamedTuple):
    """An element whose value is set on the bench.

    Attributes:
        head: its line in the deck, without the value at the end.
        change: the command that changes it, without the value at the end.
    """

    head: str
    change: str


class Roles(NamedTuple):
    """A deck with names that mean nothing to ngspice, and which of its elements and nodes do what.

    Attributes:
        deck: with nodes n0, n1, ...
        inputs: the voltage source of each input.
        outputs: the name of each output's node.
        trainable: the resistors whose conductance is trained.
        notes: what the netlist says that is not in the circuit, or is there as something else.
    """

    deck: Deck
    inputs: tuple[Element, ...]
    outputs: tuple[str, ...]
    trainable: tuple[Element, ...]
    notes: tuple[str, ...] = ()


def assign_roles(
    text: str,
    inputs: Sequence[str] | None,
    outputs: Sequence[str] | None,
    trainable: Sequence[str] | None,
    open_resistance: float,
    folder: str | Path | None = None,
) -> Roles:
    """Reads a netlist, which is data and never executed, and finds the elements and nodes that are named.

    Raises NetlistError, a ValueError, for a netlist or a name that it does not understand.
    """
    deck = parse_deck(text, folder)
    resistors = [element.name for element in deck.of_kind("r") if element.own and element.value > 0]
    wanted = resistors if trainable is None else named_nodes("trainable", trainable, resistors, "resistor")
    if not wanted:
        raise NetlistError("trainable: wanted at least one resistor, got none")
    opened = tuple(
        element._replace(value=open_resistance) if element.name in wanted and element.value == math.inf else element
        for element in deck.elements
    )
    deck = deck._replace(elements=tuple(element for element in opened if element.value != math.inf))
    nodes = dict.fromkeys(node for element in deck.elements for node in element.nodes if node != GROUND)
    input_names, output_names = terminals(deck, inputs, outputs, nodes)
    held, _ = held_nodes(deck.of_kind("v"))
    for argument, names in (("inputs", input_names), ("outputs", output_names)):
        if not names:
            raise NetlistError(f"{argument}: wanted at least one node, got none, neither here nor in the netlist")
    for name in input_names:
        if name not in held:
            raise NetlistError(f"inputs: node {name} is not held by a voltage source to ground; add one")
    for name in output_names:
        if name in held:
            raise NetlistError(f"outputs: node {name} is held by a voltage source; it shows nothing")
    plain, order = plainly_named(deck)
    renamed = dict(zip((element.name for element in deck.elements), plain.elements, strict=True))
    new_node = {name: f"n{k}" for k, name in enumerate(order)}
    source = {_other_end(element): element for element in deck.of_kind("v") if GROUND in element.nodes}
    return Roles(
        plain,
        tuple(renamed[source[name].name] for name in input_names),
        tuple(new_node[name] for name in output_names),
        tuple(renamed[name] for name in wanted),
        deck.passed_over,
    )


class LiveDeck:
    """The deck of the circuit on the bench, with a `Setting` for everything that is set there, in this order:

    inputs in volts; knobs u in siemens; the conductance beta of the nudge of each output; its current beta y.

    A soft knob (compliance epsilon > 0) is a current source u/epsilon beside a conductance 1/epsilon, the Norton
    equivalent of a source u behind it, at a control node whose voltage is the conductance theta of its resistor. A
    behavioural source draws the co-content dv^2/2 there, so that theta = u - epsilon dv^2/2; a diode stops theta at the
    floor. A hard knob (epsilon = 0) is the resistor itself. A nudge is a conductance to a source at the target.
    """

    def __init__(self, roles: Roles, epsilon: float, floor: float):
        inputs, knobs, controls = set(roles.inputs), set(roles.trainable), []
        fixed = [element for element in roles.deck.elements if element not in inputs | knobs]
        settings = [
            Setting(f"{source.name} {_other_end(source)} {GROUND}", f"alter {source.name} dc =")
            for source in roles.inputs
        ]
        if epsilon:
            controls = [
                f"vstop stop {GROUND} {STOP * floor!r}",
                f".model stop D(IS={_STOP_CURRENT!r} N={_STOP_SHARPNESS * floor / THERMAL_VOLTAGE!r})",
            ]
        for k, resistor in enumerate(roles.trainable):
            if not epsilon:
                settings.append(Setting(f"{resistor.name} {' '.join(resistor.nodes)}", f"alter {resistor.name} ="))
                continue
            drop = f"v({','.join(resistor.nodes)})"
            settings.append(Setting(f"iu{k} {GROUND} k{k}", f"alter iu{k} dc ="))
            controls += [
                f"ru{k} k{k} {GROUND} {epsilon!r}",
                f"dstop{k} stop k{k} stop",
                f"bg{k} {' '.join(resistor.nodes)} i=({floor!r}+uramp(v(k{k})-{floor!r}))*{drop}",
                f"bp{k} k{k} {GROUND} i=0.5*{drop}*{drop}",
            ]
        for j, node in enumerate(roles.outputs):
            settings.append(Setting(f"gb{j} {node} {GROUND} {node} {GROUND}", f"alter gb{j} gain ="))
        for j, node in enumerate(roles.outputs):
            settings.append(Setting(f"ib{j} {GROUND} {node}", f"alter ib{j} dc ="))
        title, *rest = write_deck(roles.deck._replace(elements=tuple(fixed)), f"{TIGHT} itl1=500").split("\n")
        self._settings, self._above, self._below = settings, [title, *controls], rest
        behaviours = 2 * len(knobs) if epsilon else 0
        lines = len(settings) + len(controls) + len(rest)
        self._reading_costs = _LINE * lines + _BEHAVIOUR * behaviours

    def text(self, values: Float[Array, "settings"]) -> str:
        """The whole deck with these settings."""
        set_lines = [
            f"{setting.head} {value!r}" for setting, value in zip(self._settings, values.tolist(), strict=True)
        ]
        return "\n".join([*self._above, *set_lines, *self._below])

    def changes(self, before: Float[Array, "settings"], after: Float[Array, "settings"]) -> list[str] | None:
        """The commands that change the settings, or None where reading the whole deck anew is faster."""
        changed = np.flatnonzero(before != after)
        if _ALTERATION * changed.size > self._reading_costs:
            return None
        return [f"{self._settings[k].change} {after[k].item()!r}" for k in changed]


def _other_end(source: Element) -> str:
    """The node that a source holds against ground; its first one if it holds none."""
    return source.nodes[source.nodes[0] == GROUND]
