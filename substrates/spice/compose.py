"""SPICE's controlled sources and negative resistors, made of voltage sources that are controlled by a voltage.

Such a source has a gain, v_plus - v_minus = gain (v_control plus - v_control minus), and a reverse gain: that times the
current out of its plus terminal is drawn from the control nodes. With a gain of 0 it is an ammeter whose control nodes
carry what it shows. So an F is one; an H is one into a resistor, and an E from there; a G is an E onto a resistor, and
one that shows its current; a negative resistor is an E onto a positive one whose current it draws backwards.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy

from substrates.spice.deck import GROUND, Deck, Element
from substrates.spice.lines import NetlistError
from substrates.spice.parts import Parts


class Controlled(NamedTuple):
    """A controlled source: (plus, minus, control plus, control minus), its gain and its reverse gain."""

    nodes: tuple[str, ...]
    gain: float
    reverse: float = 0.0


def composed(deck: Deck, inputs: Collection[str]) -> tuple[list[Element], list[Controlled]]:
    """The elements of a deck as positive resistors, V, I and D alone, and its controlled sources.

    Args:
        deck: of R, V, I, D, E, F, G and H elements.
        inputs: nodes that must stay held by a source to ground.
    """
    pattern, sensing = _bidirectional(deck)
    moved: dict[str, str] = {}
    sensed: dict[str, list[Element]] = {}
    for element in deck.elements:
        if element.kind in "fh" and element.name not in pattern:
            sensed.setdefault(element.reference, []).append(element)
    controlled: list[Controlled] = []
    sources: dict[str, Element | None] = {}
    # first those that move what stands at a node
    for source in sorted(deck.of_kind("v"), key=lambda source: GROUND not in source.nodes):
        if source.name in sensed:
            sources[source.name] = _with_ammeters(source, sensed[source.name], inputs, controlled, moved)
    elements: list[Element] = []
    for element in deck.elements:
        at = tuple(moved.get(name, name) for name in element.nodes)
        if element.kind == "e":
            reverse = pattern.get(element.name)
            if reverse is None:
                controlled.append(Controlled(at, element.value))
            else:
                minus = sensing[reverse.reference].nodes[0]
                controlled.append(Controlled((at[0], moved.get(minus, minus), *at[2:]), element.value, reverse.value))
        elif element.kind == "g" or (element.kind == "r" and element.value < 0):
            elements += _transconductance(element, at, controlled)
        elif element.kind == "h":
            elements += _transresistance(element, at, controlled)
        elif element.kind == "v" and element.name in sources:
            rest = sources[element.name]
            elements += [] if rest is None else [rest]
        elif element.kind != "f" and not (element.kind == "v" and element.name in sensing):
            held = element.kind == "v" and GROUND in element.nodes
            elements.append(element if held else element._replace(nodes=at))
    return elements, [_at(source, moved) for source in controlled]


def _at(source: Controlled, moved: dict[str, str]) -> Controlled:
    """An ammeter draws from where the other elements of a node are."""
    control = tuple(moved.get(name, name) for name in source.nodes[2:])
    return source._replace(nodes=(*source.nodes[:2], *control))


def _bidirectional(deck: Deck) -> tuple[dict[str, Element], dict[str, Element]]:
    """The F that is the backward half of each E, by the names of both, and the V's of 0 volts that only they sense.

    The pattern of a bidirectional amplifier: E from plus to an inner node, a source of 0 V from minus to it, and an F
    that draws that current from the control nodes. The inner node joins nothing else.
    """
    sources = {element.name: element for element in deck.of_kind("v")}
    uses = Counter(name for element in deck.elements for name in element.nodes)
    senses = Counter(element.reference for element in deck.elements if element.kind in "fh")
    ends = {element.nodes[1]: element for element in deck.of_kind("e") if uses[element.nodes[1]] == 2}
    pattern: dict[str, Element] = {}
    sensing: dict[str, Element] = {}
    for element in deck.of_kind("f"):
        sense = sources[element.reference]
        forward = ends.get(sense.nodes[1])
        alone = sense.value == 0 and senses[sense.name] == 1 and sense.nodes[1] != GROUND
        if alone and forward is not None and forward.nodes[2:] == element.nodes:
            pattern[forward.name] = pattern[element.name] = element
            sensing[sense.name] = sense
    return pattern, sensing


def _with_ammeters(
    source: Element,
    users: Sequence[Element],
    inputs: Collection[str],
    controlled: list[Controlled],
    moved: dict[str, str],
) -> Element | None:
    """The source that is left when ammeters are put in series with it, one for each F and H; None where they do alone.

    A node that it holds against ground keeps its name, and the other elements there move behind the ammeters.
    """
    plus, minus = source.nodes
    ends = [f"{source.name}#sensed{k or ''}" for k in range(len(users))]
    left: Element | None = source
    at = lambda name: moved.get(name, name)
    if source.value == 0 and not (GROUND in source.nodes and set(inputs) & set(source.nodes)):
        chain, left = [at(plus), *ends[1:], at(minus)], None
    elif minus == GROUND:
        moved[plus] = ends[0]
        chain = [*ends, plus]
    elif plus == GROUND:
        moved[minus] = ends[0]
        chain = [minus, *ends[1:], ends[0]]
    else:
        chain, left = [at(plus), *ends], source._replace(nodes=(ends[-1], at(minus)))
    for user, (start, end) in zip(users, itertools.pairwise(chain), strict=True):
        control, gain = (user.nodes, user.value) if user.kind == "f" else ((GROUND, f"{user.name}#ohms"), 1.0)
        controlled.append(Controlled((end, start, *control), 0.0, gain))
    return left


def _transconductance(element: Element, at: tuple[str, ...], controlled: list[Controlled]) -> list[Element]:
    """A G, or a negative resistor: the resistor that it is, or that it is made of."""
    siemens, ends = (1 / element.value, at * 2) if element.kind == "r" else (element.value, at)
    part = element._replace(
        name=f"{element.name}#siemens", letter="r", value=1 / abs(siemens) if siemens else 0.0, own=False
    )
    if siemens == 0 or ends[0] == ends[1] or ends[2] == ends[3]:
        return []
    if ends[:2] == ends[2:]:
        if siemens > 0:
            return [part._replace(nodes=tuple(ends[:2]))]
        inner = f"{element.name}#control"
        controlled.append(Controlled((inner, GROUND, *ends[2:]), 1.0, -1.0))
        return [part._replace(nodes=(inner, GROUND))]
    inner, shown = f"{element.name}#control", f"{element.name}#current"
    controlled.append(Controlled((inner, GROUND, *ends[2:]), 1.0))
    controlled.append(Controlled((shown, GROUND, *ends[:2]), 0.0, -float(np.sign(siemens))))
    return [part._replace(nodes=(inner, shown))]


def _transresistance(element: Element, at: Sequence[str], controlled: list[Controlled]) -> list[Element]:
    """An H: the resistor into which the current that it senses is led."""
    inner = f"{element.name}#ohms"
    controlled.append(Controlled((*at, inner, GROUND), float(np.sign(element.value))))
    ohms = abs(element.value) or 1.0
    return [Element(f"{element.name}#r", (inner, GROUND), ohms, "", element.where, "r", own=False)]


def refuse_lost_minimum(deck: Deck) -> None:
    """Raises NetlistError where negative resistors leave no minimum of the power, whatever the diodes do.

    Circuits with controlled sources have no power to minimise, and are judged by their determinant when they are built.
    """
    resistors = [element for element in deck.of_kind("r") if element.value != np.inf]
    negative = [element for element in resistors if element.value < 0]
    if not negative or any(element.kind in "efgh" for element in deck.elements):
        return
    held, islands = Parts(), Parts()
    for source in deck.of_kind("v"):
        held.join(*source.nodes)
    ends = lambda element: [part for name in element.nodes if (part := held.of(name)) != held.of(GROUND)]
    for element in resistors:
        if len(set(ends(element))) == 2:
            islands.join(*ends(element))
    shaken = {islands.of(part) for element in negative for part in ends(element)}
    parts = list(dict.fromkeys(p for element in resistors for p in ends(element) if islands.of(p) in shaken))
    number = {part: k for k, part in enumerate(parts)}
    lost = _lost_minimum(
        len(parts),
        [([number[part] for part in ends(element) if part in number], 1 / element.value) for element in resistors],
    )
    if lost is not None:
        name = min(name for element in resistors for name in element.nodes if held.of(name) == parts[lost])
        culprit = next((element for element in negative if name in element.nodes), negative[0])
        raise NetlistError(
            f"netlist, {culprit.where}: with the negative resistance of {culprit.name} the power has no minimum at "
            f"node {name}, so that no operating point is stable: make it larger in size, or put a smaller positive "
            "resistance across it"
        )


def _lost_minimum(count: int, conductances: Sequence[tuple[list[int], float]]) -> int | None:
    """The number of a node whose pivot in the conductance matrix is not positive; None where all are."""
    entries: list[tuple[float, int, int]] = []
    size = np.zeros(count)
    for ends, siemens in conductances:
        if len(ends) == 2 and ends[0] == ends[1]:
            continue
        for node in ends:
            entries.append((siemens, node, node))
            size[node] += abs(siemens)
        if len(ends) == 2:
            entries += [(-siemens, ends[0], ends[1]), (-siemens, ends[1], ends[0])]
    if not entries:
        return None
    values, rows, columns = np.array(entries).reshape(-1, 3).T
    matrix = scipy.sparse.csc_array((values, (rows.astype(int), columns.astype(int))), shape=(count, count))
    options: Any = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    try:
        factors = scipy.sparse.linalg.splu(matrix, **options)
    except RuntimeError:  # exactly singular
        return int(np.argmin(matrix.diagonal()))
    order = np.argsort(factors.perm_c)
    lost = order[factors.U.diagonal() <= 1e-12 * size[order]]
    if not np.array_equal(factors.perm_r, factors.perm_c):  # a pivot on the diagonal was zero
        return int(np.argmin(matrix.diagonal()))
    return int(lost[0]) if lost.size else None
