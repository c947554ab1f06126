"""Netlists as ngspice, LTspice, KiCad and PSpice write them, as decks of single elements at the operating point.

A netlist is data here, never a program: no control blocks, no files but those of a folder that the caller passes, and
expressions are computed by a parser of this package. The reader knows every line that it accepts and refuses the rest
with the line's number; its time is linear in the text, with the subcircuits written out.
"""

from __future__ import annotations

import dataclasses
import math
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from substrates.spice.deck import GROUND, ROOM_TEMPERATURE, ZERO_CELSIUS, Deck, DiodeModel, Element
from substrates.spice.devices import arguments, diode_law, read_element
from substrates.spice.expression import NUMBER, evaluate, parse_number, show
from substrates.spice.lines import (
    FILE_CARDS,
    MAX_CHARACTERS,
    MAX_LINES,
    Folder,
    Line,
    NetlistError,
    logical_lines,
    title_line,
)
from substrates.spice.parts import Parts

MAX_EXPANDED = 2**24
"""Characters that a netlist may have with its subcircuits written out."""
MAX_DEPTH = 20
"""How deep subcircuits may stand in one another, and parameters may refer to others that are defined later."""

PASSED_OVER_CARDS = {
    name: reason
    for reason, names in {
        "asks for an analysis; the circuit is read at its operating point": """.op .tran .ac .dc .tf .noise .four .fft
        .sens .pz .disto .sp .hb .net""",
        "asks for output": ".print .plot .probe .save .width .meas .measure .wave .savebias .backanno",
        "is a title": ".title",
        "is where a solver starts": ".ic .nodeset",
    }.items()
    for name in names.split()
}
"""Cards that are passed over, and what they are."""

HARMLESS_OPTIONS = {
    name: reason
    for reason, names in {
        "how nearly ngspice solves the equations; here they are solved to rounding": "reltol abstol vntol",
        "how ngspice looks for the point, not where it is": """itl1 itl2 itl6 gminsteps srcsteps noopiter pivtol pivrel
        sparse klu""",
        "steps in time, and an operating point takes none": "chgtol trtol itl3 itl4 itl5 method maxord lvltim",
        "what is printed, and in how many digits": """numdgt nopage noacct acct node list opts nomod post ingold
        limpts""",
    }.items()
    for name in names.split()
}
"""Options that are passed over, and why the operating point does not depend on them."""

LARGEST_GMIN = 1e-12
"""Siemens across every junction, the value of a deck that says nothing: circuits here have none there. A deck that asks
for more is another circuit where it has diodes."""

_REFUSED = {
    ".func": "write the function's expression where it is used",
    ".step": "read one circuit for each value",
    ".control": "nothing in a netlist is executed; remove the block to .endc",
    ".if": "keep the lines of one branch",
    ".csparam": "use .param",
    ".end_if": "keep the lines of one branch",
}
_PARAMETER = re.compile(r"(?<![\w.<>=!])([a-z_][\w.]*)\s*=(?!=)")
_NAME = re.compile(r"[a-z_][\w.]*")


def parse_deck(text: str, folder: str | Path | None = None) -> Deck:
    """Reads a netlist; its first line is the title.

    Args:
        text: the netlist.
        folder: that of the files which it includes; None for none. No other file is read.

    Raises:
        NetlistError: for anything that it does not know.
    """
    if not isinstance(text, str):
        raise TypeError(f"netlist: wanted text, got {type(text).__name__}; read the file first")
    if "\n" not in text and re.search(r"\.(cir|net|sp|spi|spice|ckt|cki|asc|lib|txt)\s*$", text, re.IGNORECASE):
        raise NetlistError(
            f"netlist: wanted the text of a netlist, got what looks like the path of one, {show(text)}: "
            "pass Path(...).read_text()"
        )
    if len(text) > MAX_CHARACTERS:
        raise NetlistError(f"netlist: wanted at most {MAX_CHARACTERS} characters, got {len(text)}")
    if text.count("\n") >= MAX_LINES:
        raise NetlistError(f"netlist: wanted at most {MAX_LINES} lines, got {text.count(chr(10)) + 1}")
    text = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    _warn_about_title(text)
    reader = _Reader(Folder(folder))
    reader.read(logical_lines(text))
    return reader.deck(text.split("\n", 1)[0].strip())


@dataclasses.dataclass(eq=False)
class _Subcircuit:
    """What stands between .subckt and .ends; the netlist itself is the outermost."""

    name: str
    line: Line
    ports: Sequence[str] = ()
    defaults: dict[str, tuple[Line, str]] = dataclasses.field(default_factory=dict)
    outer: _Subcircuit | None = None
    elements: list[Line] = dataclasses.field(default_factory=list)
    models: dict[str, Line] = dataclasses.field(default_factory=dict)
    inner: dict[str, _Subcircuit] = dataclasses.field(default_factory=dict)
    parameters: dict[str, tuple[Line, str]] = dataclasses.field(default_factory=dict)
    size: int = 0
    depth: int = 0

    def find(self, name: str) -> _Subcircuit | None:
        """The subcircuit that a name means inside of this one."""
        at: _Subcircuit | None = self
        while at is not None and name not in at.inner:
            at = at.outer
        return None if at is None else at.inner[name]

    def mentions(self, name: str) -> bool:
        """Whether a line inside has a name in it, which need not have a default."""
        lines = [*self.elements, *self.models.values(), *(line for line, _ in self.parameters.values())]
        return any(re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", line.text.lower()) for line in lines)


class _Call:
    """A line X: the nodes, the subcircuit's name and the parameters that it gives."""

    def __init__(self, line: Line):
        words, self.parameters = _words_and_parameters(line)
        if not words:
            raise line.error("wanted: name node ... subcircuit [parameter=value ...]")
        *self.nodes, self.name = words


class Scope:
    """Parameters by name, computed when they are asked for; what is not here is looked for outside."""

    def __init__(self, pending: dict[str, tuple[Line, str]], values: dict[str, float], outer: Scope | None):
        self._pending, self._values, self._outer = pending, values, outer
        self._open: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether there is such a parameter."""
        at: Scope | None = self
        while at is not None:
            if name in at._values or name in at._pending:
                return True
            at = at._outer
        return False

    def parameter(self, name: str) -> float:
        """The value of a parameter. Raises KeyError where there is none, NetlistError where it has no value."""
        if name in self._values:
            return self._values[name]
        if name not in self._pending:
            if self._outer is None:
                raise KeyError(name)
            return self._outer.parameter(name)
        line, text = self._pending[name]
        if name in self._open or len(self._open) >= MAX_DEPTH:
            raise line.error(
                f"parameter {show(name)} depends on itself"
                if name in self._open
                else f"parameters refer to one another more than {MAX_DEPTH} deep; define each before it is used"
            )
        self._open.add(name)
        try:
            self._values[name] = self.value(line, text)
        finally:
            self._open.discard(name)
        return self._values[name]

    def value(self, line: Line, text: str) -> float:
        """The value of an expression on a line."""
        try:
            return evaluate(text, self.parameter)
        except NetlistError:
            raise
        except ValueError as problem:
            raise line.error(problem) from None

    def settle(self) -> None:
        """Computes all parameters, in their order."""
        for name in self._pending:
            self.parameter(name)


@dataclasses.dataclass(eq=False)
class Model:
    """A .model card where it is used."""

    kind: str
    line: Line
    scope: Scope
    tokens: dict[str, list[str]]

    def number(self, key: str, default: float) -> float:
        """One of its numbers."""
        tokens = self.tokens.get(key)
        return default if tokens is None else number_in(self.scope, self.line, tokens[0])


@dataclasses.dataclass(eq=False)
class Instance:
    """The netlist, or one instance of a subcircuit: what the readers of element lines know of where they are.

    Attributes:
        path: what the names inside begin with.
        multiplier: how many copies there are in parallel.
        celsius, nominal_celsius: temperatures.
    """

    reader: _Reader
    definition: _Subcircuit
    path: str
    scope: Scope
    ports: dict[str, str]
    multiplier: float = 1.0

    @property
    def celsius(self) -> float:
        return self.reader.temperatures.get("temp", ROOM_TEMPERATURE)

    @property
    def nominal_celsius(self) -> float:
        return self.reader.temperatures.get("tnom", ROOM_TEMPERATURE)

    def node(self, line: Line, token: str) -> str:
        """The node that a name means here."""
        if token in (GROUND, "gnd"):
            return GROUND
        if token[0] == "{":
            raise line.error(f"wanted the name of a node, got the expression {show(token)}")
        return self.ports.get(token) or (token if token in self.reader.globals else self.path + token)

    def number(self, line: Line, token: str) -> float:
        """The number that a token says: a SPICE number, a parameter, or an expression in braces or quotes."""
        return number_in(self.scope, line, token)

    def is_number(self, token: str) -> bool:
        """Whether a token says a number."""
        return token[0] == "{" or NUMBER.fullmatch(token) is not None or self.scope.has(token)

    def parameter(self, name: str) -> float:
        """The value of a parameter; see `Scope`."""
        return self.scope.parameter(name)

    def model(self, line: Line, name: str) -> Model | None:
        """The .model card that a name means here; None where there is none."""
        at: _Subcircuit | None = self.definition
        while at is not None and name not in at.models:
            at = at.outer
        if at is None:
            return None
        card = at.models[name]
        _, named = arguments(card, card.tokens[3:])
        return Model(card.tokens[2], card, self.scope, named)

    def diode_model(self, line: Line, name: str, factor: float) -> tuple[str, float]:
        """(the name of the law, ohms in series) of so many diodes of a model in parallel."""
        return self.reader.diode_model(self, line, name, factor)

    def add(self, line: Line, *elements: Element) -> None:
        """Adds elements to the circuit."""
        for element in elements:
            other = self.reader.elements.setdefault(element.name, element)
            if other is not element:
                raise line.error(f"element {element.name} is already there, on {other.where}; give it another name")

    def remark(self, line: Line, text: str) -> None:
        """Notes what becomes of a line."""
        self.reader.passed_over.append(f"{line.where}: {self.path}{text}")


def number_in(scope: Scope, line: Line, token: str) -> float:
    """The number that a token says among such parameters."""
    if token[0] == "{":
        return scope.value(line, token[1:-1])
    if NUMBER.fullmatch(token) is None and _NAME.fullmatch(token) and scope.has(token):
        return scope.parameter(token)
    try:
        return parse_number(token)
    except ValueError as problem:
        raise line.error(problem) from None


class _Reader:
    """Collects the logical lines of one netlist, then writes its subcircuits out."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.top = self.current = _Subcircuit("the netlist", Line("line 1", ""))
        self.globals: set[str] = set()
        self.notes: dict[str, list[str]] = {}
        self.settings: list[Line] = []
        self.temperatures: dict[str, float] = {}
        self.elements: dict[str, Element] = {}
        self.models: dict[str, DiodeModel] = {}
        self.passed_over: list[str] = []
        self.calls: dict[int, _Call] = {}
        self.leaking: Line | None = None
        self.ended = False

    def read(self, lines: Iterable[Line], inside: tuple[str, ...] = ()) -> None:
        for line in lines:
            if self.ended:
                raise line.error("wanted nothing after .end")
            if line.note == "open":
                self.current.elements.append(line)
            elif line.note:
                self.notes.setdefault(line.note, []).extend(line.tokens)
            elif not line.tokens[0].startswith("."):
                self.current.elements.append(line)
            elif line.tokens[0] in FILE_CARDS:
                name, included = self.folder.lines(line, inside)
                self.read(included, (*inside, name))
                self.ended = False  # by an .end of the file
            else:
                self._card(line)

    def _card(self, line: Line) -> None:
        card, *rest = line.tokens
        if card == ".end":
            self.ended = True
        elif card in (".subckt", ".macro"):
            self._begin(line)
        elif card in (".ends", ".eom"):
            if self.current.outer is None:
                raise line.error("there is no .subckt for it to end")
            if rest and rest[0] != self.current.name:
                raise line.error(f"wanted .ends {self.current.name}, which began on {self.current.line.where}")
            self.current = self.current.outer
        elif card == ".model":
            if len(rest) < 2:
                raise line.error("wanted a model: .model NAME D(IS=... N=...)")
            if rest[0] in self.current.models:
                raise line.error(f"model {rest[0]} is already defined")
            if rest[1] in ("d", "r", "res"):
                words, named = arguments(line, rest[2:])
                if words or any(len(values) != 1 for values in named.values()):
                    raise line.error(f"wanted .model NAME {rest[1].upper()}(NAME=VALUE ...)")
            self.current.models[rest[0]] = line
        elif card in (".param", ".params"):
            self.current.parameters |= _parameters(line, line.text.strip()[len(card) :].lower())
        elif card == ".global":
            self.globals |= set(rest)
        elif card in (".temp", ".option", ".options"):
            self.settings.append(line)
        elif card in PASSED_OVER_CARDS:
            self.passed_over.append(f"{line.where}: {card} {PASSED_OVER_CARDS[card]}")
        else:
            advice = _REFUSED.get(card, "remove it")
            raise line.error(
                f"{show(card)} is refused: a netlist here is elements, .model, .param, .subckt, .temp, .options and "
                f"requests for output; {advice}"
            )

    def _begin(self, line: Line) -> None:
        words, defaults = _words_and_parameters(line)
        if not words:
            raise line.error("wanted: .subckt NAME node ... [parameter=value ...]")
        name, *ports = words
        if name in self.current.inner:
            raise line.error(f"subcircuit {show(name)} is already defined")
        if len(set(ports)) != len(ports) or {GROUND, "gnd"} & set(ports):
            raise line.error("wanted the nodes of a subcircuit to be different, and none of them ground")
        inner = _Subcircuit(name, line, ports, defaults, self.current, depth=self.current.depth + 1)
        if inner.depth > MAX_DEPTH:
            raise line.error(f"wanted subcircuits at most {MAX_DEPTH} deep")
        self.current.inner[name] = self.current = inner

    def deck(self, title: str) -> Deck:
        if self.current.outer is not None:
            raise self.current.line.error(f"subcircuit {show(self.current.name)} has no .ends")
        size = self._size(self.top, ())
        if size > MAX_EXPANDED:
            raise NetlistError(
                f"netlist: with its subcircuits written out it has {size} characters; wanted at most {MAX_EXPANDED}"
            )
        scope = Scope(self.top.parameters, {}, None)
        scope.settle()
        for line in self.settings:
            self._setting(line, scope)
        self._write_out(Instance(self, self.top, "", scope, {}))
        if self.leaking is not None and any(element.kind == "d" for element in self.elements.values()):
            raise self.leaking.error(
                f"option gmin: wanted at most {LARGEST_GMIN:g} siemens, as nothing but a diode conducts here where "
                "a diode stands; remove it and put a resistor across every diode"
            )
        for element in self.elements.values():
            sensed = self.elements.get(element.reference) if element.kind in "fh" else element
            if sensed is None or (element.kind in "fh" and sensed.kind != "v"):
                raise NetlistError(
                    f"netlist, {element.where}: {element.name} senses {element.reference}, "
                    "which is no voltage source here; sense the current of a source of 0 volts"
                )
        elements = self._without_loops_of_shorts()
        return Deck(
            title,
            elements,
            self.models,
            self.notes,
            self.temperatures.get("temp", ROOM_TEMPERATURE),
            self.temperatures.get("tnom", ROOM_TEMPERATURE),
            tuple(self.passed_over),
        )

    def _size(self, definition: _Subcircuit, trail: tuple[_Subcircuit, ...]) -> int:
        """How many characters a definition has written out; its time is that of reading the definitions."""
        if definition in trail:
            names = " in ".join(part.name for part in reversed(trail[trail.index(definition) :]))
            raise definition.line.error(f"subcircuit {definition.name} holds itself: {definition.name} in {names}")
        if len(trail) > MAX_DEPTH:
            raise definition.line.error(f"wanted subcircuits at most {MAX_DEPTH} deep")
        if not definition.size:
            size = 1 + sum(len(text) + 8 for _, text in definition.parameters.values())
            for line in definition.elements:
                size += len(line.text) + 8
                if line.tokens and line.tokens[0].startswith("x") and not line.note:
                    size += self._size(self._called(definition, line), (*trail, definition))
            definition.size = size
        return definition.size

    def _call(self, line: Line) -> _Call:
        """A line X, taken apart once."""
        if id(line) not in self.calls:
            self.calls[id(line)] = _Call(line)
        return self.calls[id(line)]

    def _called(self, inside: _Subcircuit, line: Line) -> _Subcircuit:
        name = self._call(line).name
        found = inside.find(name)
        if found is None:
            raise line.error(f"there is no subcircuit {show(name)}: put its .subckt into the netlist")
        return found

    def _write_out(self, place: Instance) -> None:
        for line in place.definition.elements:
            if line.note:
                place.add(line, _open_resistor(place, line))
            elif line.tokens[0].startswith("x"):
                self._write_out(self._inside(place, line))
            else:
                read_element(place, line)

    def _inside(self, place: Instance, line: Line) -> Instance:
        call, definition = self._call(line), self._called(place.definition, line)
        if len(call.nodes) != len(definition.ports):
            raise line.error(
                f"subcircuit {show(definition.name)} has {len(definition.ports)} nodes "
                f"({', '.join(definition.ports)}), got {len(call.nodes)}"
            )
        given = {name: place.scope.value(own, text) for name, (own, text) in call.parameters.items()}
        copies = given.pop("m", 1.0) if "m" not in definition.defaults else 1.0
        for name in given:
            if name in definition.parameters or not (name in definition.defaults or definition.mentions(name)):
                known = ", ".join(definition.defaults) or "none"
                raise line.error(
                    f"parameter {show(name)} is not one that can be given to subcircuit {show(definition.name)}, whose "
                    f"line has {known}"
                )
        if not copies > 0:
            raise line.error("wanted a positive multiplier m")
        if copies != 1 and any(inner.tokens[0][0] in "fhbx" for inner in definition.elements if inner.tokens):
            raise line.error(
                "m multiplies subcircuits of R, C, L, V, I, D, E and G elements; write one that senses currents or "
                "holds others out as often as it is there"
            )
        pending = definition.defaults | definition.parameters
        scope = Scope(pending, given, place.scope)
        scope.settle()
        ports = dict(zip(definition.ports, (place.node(line, token) for token in call.nodes), strict=True))
        path = f"{place.path}{line.tokens[0]}."
        return Instance(self, definition, path, scope, ports, place.multiplier * copies)

    def _setting(self, line: Line, scope: Scope) -> None:
        card, *rest = line.tokens
        if card == ".temp":
            if len(rest) != 1:
                raise line.error("wanted one temperature in degrees Celsius")
            self._temperature(line, "temp", number_in(scope, line, rest[0]), rest[0])
            return
        for key, token in _options(line, rest):
            if key in ("temp", "tnom"):
                self._temperature(line, key, number_in(scope, line, token or "?"), token)
            elif key == "gmin":
                siemens = number_in(scope, line, token or "?")
                if siemens < 0:
                    raise line.error(f"option gmin: wanted siemens, at least 0, got {show(token)}")
                if siemens > LARGEST_GMIN:
                    self.leaking = line
            elif key not in HARMLESS_OPTIONS:
                raise line.error(f"option {show(key)} is not known to leave the circuit as it is; remove it")

    def _temperature(self, line: Line, key: str, celsius: float, token: str) -> None:
        if not -ZERO_CELSIUS < celsius < 1e6:
            raise line.error(f"{key}: wanted degrees Celsius above absolute zero, got {show(token)}")
        if self.temperatures.setdefault(key, celsius) != celsius:
            raise line.error(f"{key}: already set to {self.temperatures[key]:g} degrees; give one temperature")

    def diode_model(self, place: Instance, line: Line, name: str, factor: float) -> tuple[str, float]:
        """See `Instance.diode_model`."""
        model = place.model(line, name)
        if model is None:
            raise line.error(
                f"diode {line.tokens[0]} names a model {show(name)} that no .model card defines: add it to the netlist"
            )
        if model.kind != "d":
            raise model.line.error("wanted a diode model: .model NAME D(IS=... N=...)")
        text = ("mfg", "type")
        law, series, nominal, remarks = diode_law(
            model.line, {key: 0.0 if key in text else model.number(key, 0.0) for key in model.tokens}
        )
        full = name if model.line is self.top.models.get(name) else place.path + name
        if nominal is not None and nominal != place.nominal_celsius:
            current, _ = law.at(place.nominal_celsius, nominal)
            law = law._replace(saturation_current=current)
        if factor != 1 and full not in self.notes.get("ideal", []):
            full, law = f"{full}*{factor!r}", law._replace(saturation_current=law.saturation_current * factor)
        if full not in self.models:
            self.passed_over += [f"{model.line.where}: model {name}: {remark}" for remark in remarks]
            self.models[full] = law
        return full, series / factor

    def _without_loops_of_shorts(self) -> tuple[Element, ...]:
        """Inductors and resistors of 0 ohms that join what others have joined carry an unknown part of the current."""
        sensed = {element.reference for element in self.elements.values() if element.kind in "fh"}
        joined, kept = Parts(), []
        for element in self.elements.values():
            short = element.kind == "v" and not element.own and element.value == 0 and element.name not in sensed
            if short and "#" not in element.name and not joined.join(*element.nodes):
                self.passed_over.append(
                    f"{element.where}: {element.name} joins what other shorts join, and is left out"
                )
            else:
                kept.append(element)
        return tuple(kept)


def _open_resistor(place: Instance, line: Line) -> Element:
    if len(line.tokens) != 3 or not line.tokens[0].startswith("r"):
        raise line.error("an open resistor wants: name node node")
    name, *nodes = line.tokens
    return Element(name, tuple(place.node(line, node) for node in nodes), math.inf, where=line.where)


def _words_and_parameters(line: Line) -> tuple[list[str], dict[str, tuple[Line, str]]]:
    """What stands after the name of a line X or of .subckt: words, and then parameters."""
    first = next((k - 1 for k, token in enumerate(line.tokens) if token == "="), len(line.tokens))
    words = [token for token in line.tokens[1:first] if token not in ("params:", "optional:")]
    text = line.text.lower()
    match = _PARAMETER.search(text)
    return words, {} if first == len(line.tokens) else _parameters(line, text[match.start() if match else 0 :])


def _parameters(line: Line, text: str) -> dict[str, tuple[Line, str]]:
    """The expressions of `a = 1 b = {2*a} c = 'a+b'` by name."""
    names = list(_PARAMETER.finditer(text))
    if not names or text[: names[0].start()].strip(" ,"):
        raise line.error("wanted NAME = VALUE of parameters")
    ends = [match.start() for match in names[1:]] + [len(text)]
    found = {}
    for match, end in zip(names, ends, strict=True):
        value = text[match.end() : end].strip(" ,\t")
        if len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]:
            value = value[1:-1]
        found[match[1]] = (line, value)
    return found


def _options(line: Line, tokens: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Pairs (key, value) of `key=value` and flags (key, "")."""
    words, named = arguments(line, tokens)
    yield from ((word, "") for word in words)
    for key, values in named.items():
        yield key, values[0]
        yield from ((word, "") for word in values[1:])


def _warn_about_title(text: str) -> None:
    """A deck without a title loses its first element, in SPICE as here: say so."""
    line = title_line(text)
    if line is None or len(line.tokens) < 4 or line.tokens[0][0] not in "rvidefghblc" or "=" in line.tokens[:3]:
        return
    top = _Subcircuit("the title", line)
    reader = _Reader(Folder(None))
    try:
        read_element(Instance(reader, top, "", Scope({}, {}, None), {}), line)
    except NetlistError:
        return
    message = f"netlist, line 1: the first line is the title, and this one reads like an element: {show(line.text)}"
    warnings.warn(message, stacklevel=4)
