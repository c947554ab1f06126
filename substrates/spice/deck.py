"""SPICE decks as plain data: a strict reader and writer for R, V, I, D, E and F elements.

A deck is data here, never a program: no includes, no libraries, no control blocks, no expressions. The reader knows
every line it accepts and refuses the rest with the line's number; it takes time linear in the text.
Source of the format: Nagel and Pederson 1973, "SPICE (Simulation Program with Integrated Circuit Emphasis)", and the
ngspice manual.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MAX_CHARACTERS = 64 * 2**20
MAX_LINES = 2_000_000
MAX_LINE_LENGTH = 2_000
MAX_CONTINUATIONS = 100
MAX_TOKEN_LENGTH = 64

GROUND = "0"
ZERO_CELSIUS = 273.15
THERMAL_VOLTAGE_PER_KELVIN = 1.38064852e-23 / 1.6021766208e-19
"""k/q in volts per kelvin as ngspice has it (CODATA 2014); the exact SI value is 3.4e-7 larger."""
ROOM_TEMPERATURE = 27.0
THERMAL_VOLTAGE = THERMAL_VOLTAGE_PER_KELVIN * (ROOM_TEMPERATURE + ZERO_CELSIUS)
"""Volts at the temperature, in degrees Celsius, of a deck that names none."""

TIGHT = "reltol=1e-10 abstol=1e-18 vntol=1e-14 gmin=1e-20"
"""Options with which ngspice solves the equations to rounding."""

SUFFIXES = {"t": 12, "g": 9, "meg": 6, "k": 3, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15}
NUMBER = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)(?:[ed]([+-]?\d+))?([a-z]*)")
COMMENT = re.compile(r";|(?:^|(?<=\s))(?:\$(?=\s|$)|//)")
NOTE = re.compile(r"\*\s*groundstate\s+([a-z]+):(.*)", re.IGNORECASE)
NOTES = ("inputs", "outputs", "nodes", "ideal", "open")
FORBIDDEN = re.compile(r"[^ -~\t\r]|[{}'\"`\\]")

HARMLESS_CARDS = (".op", ".print", ".plot", ".probe", ".save", ".width", ".title", ".dc", ".ac", ".tran", ".tf")
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

HARMLESS_DIODE_PARAMETERS = frozenset(("cjo", "cj0", "vj", "pb", "m", "mj", "tt", "fc", "kf", "af", "level"))


class NetlistError(ValueError):
    """A netlist that can't be read as a circuit; the message has the line's number and its text."""


class Element(NamedTuple):
    """One element: a name whose first letter is its kind, its nodes, and a value in ohms, volts, amperes or as a gain.

    Nodes of R, V, I, D: two; of E: plus, minus, control plus, control minus; of F: from, to. `reference` is the model
    of a D, the current-sensing V of an F. A resistor of infinite ohms is an open one.
    """

    name: str
    nodes: tuple[str, ...]
    value: float = math.nan
    reference: str = ""
    line: int = 0


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

    `notes` are lists of names that the deck carries in comments: its inputs, outputs, the order of its nodes, and the
    diode models that stand for ideal diodes.
    """

    title: str
    elements: tuple[Element, ...]
    models: dict[str, DiodeModel]
    notes: dict[str, list[str]]
    temperature: float = ROOM_TEMPERATURE
    nominal_temperature: float = ROOM_TEMPERATURE


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


def parse_deck(text: str) -> Deck:
    """Reads a deck; the first line is its title. Raises NetlistError for anything that it does not know."""
    if not isinstance(text, str):
        raise TypeError(f"netlist: wanted text, got {type(text).__name__}; read the file first")
    if len(text) > MAX_CHARACTERS:
        raise NetlistError(f"netlist: wanted at most {MAX_CHARACTERS} characters, got {len(text)}")
    if text.count("\n") >= MAX_LINES:
        raise NetlistError(f"netlist: wanted at most {MAX_LINES} lines, got {text.count(chr(10)) + 1}")
    reader = _Reader()
    title, *lines = text.split("\n")
    _warn_about_title(title)
    for line in _logical_lines(lines):
        reader.read(line)
    return reader.deck(title.strip())


def plainly_named(deck: Deck) -> tuple[Deck, list[str]]:
    """The deck with names that mean nothing to ngspice, and the old names of its nodes n0, n1, ..."""
    elements = [element for element in deck.elements if element.value != math.inf]
    nodes = {GROUND: GROUND}
    for element in elements:
        for name in element.nodes:
            nodes.setdefault(name, f"n{len(nodes) - 1}")
    models = {name: f"m{k}" for k, name in enumerate(deck.models)}
    renamed = {element.name: f"{element.name[0]}{k}" for k, element in enumerate(elements)}
    references = {"d": models, "f": renamed}
    plain = tuple(
        Element(
            renamed[element.name],
            tuple(nodes[name] for name in element.nodes),
            element.value,
            references.get(element.name[0], {}).get(element.reference, ""),
        )
        for element in elements
    )
    laws = {models[name]: model for name, model in deck.models.items()}
    return deck._replace(title="operating point", elements=plain, models=laws, notes={}), list(nodes)[1:]


def parse_number(token: str) -> float:
    """A SPICE number such as 4.7k, 3meg, 1e-3 or 10uF, in SI units; letters after the suffix are units. ValueError."""
    match = NUMBER.fullmatch(token.lower())
    if match is None:
        raise ValueError(f"wanted a number such as 4.7k, 3meg or 1e-3, got {_show(token)}")
    sign, digits, exponent, letters = match.groups()
    if letters.startswith("mil"):
        value = float(f"{sign}{digits}e{exponent or 0}") * 25.4e-6
    else:
        scale = SUFFIXES["meg"] if letters.startswith("meg") else SUFFIXES.get(letters[:1], 0)
        value = float(f"{sign}{digits}e{int(exponent or 0) + scale}")
    if not math.isfinite(value):
        raise ValueError(f"wanted a number that float64 holds, got {_show(token)}")
    return value


class _Line(NamedTuple):
    number: int
    text: str
    tokens: Sequence[str]
    note: str = ""

    def error(self, problem: str) -> NetlistError:
        return NetlistError(f"netlist, line {self.number}: {problem}. The line is {_show(self.text)}")


class _Reader:
    """Collects the logical lines of one deck."""

    def __init__(self) -> None:
        self.elements: dict[str, Element] = {}
        self.models: dict[str, DiodeModel] = {}
        self.notes: dict[str, list[str]] = {}
        self.temperatures: dict[str, float] = {}
        self.leaking: _Line | None = None
        self.ended = False

    def deck(self, title: str) -> Deck:
        if self.leaking is not None and any(name[0] == "d" for name in self.elements):
            raise self.leaking.error(
                f"option gmin: wanted at most {LARGEST_GMIN:g} siemens, as nothing but a diode conducts here where "
                "a diode stands; remove it and put a resistor across every diode"
            )
        for element in self.elements.values():
            if element.name[0] == "d" and element.reference not in self.models:
                raise NetlistError(
                    f"netlist, line {element.line}: diode {element.name} names a model {element.reference} "
                    "that no .model card defines"
                )
            if element.name[0] == "f" and not (element.reference[0] == "v" and element.reference in self.elements):
                raise NetlistError(
                    f"netlist, line {element.line}: {element.name} senses {element.reference}, "
                    "which is no voltage source here"
                )
        temperature = self.temperatures.get("temp", ROOM_TEMPERATURE)
        nominal = self.temperatures.get("tnom", ROOM_TEMPERATURE)
        return Deck(title, tuple(self.elements.values()), self.models, self.notes, temperature, nominal)

    def read(self, line: _Line) -> None:
        if self.ended:
            raise line.error("wanted nothing after .end")
        if line.note == "open":
            self._add(line, self._open_resistor(line))
        elif line.note:
            self.notes.setdefault(line.note, []).extend(line.tokens)
        elif line.tokens[0].startswith("."):
            self._card(line)
        else:
            self._add(line, parse_element(line))

    def _add(self, line: _Line, element: Element) -> None:
        other = self.elements.setdefault(element.name, element)
        if other is not element:
            raise line.error(f"element {element.name} is already there, on line {other.line}; give it another name")

    def _open_resistor(self, line: _Line) -> Element:
        if len(line.tokens) != 3 or not line.tokens[0].startswith("r"):
            raise line.error("an open resistor wants: name node node")
        name, *nodes = line.tokens
        return Element(name, _nodes(nodes), math.inf, line=line.number)

    def _card(self, line: _Line) -> None:
        card, *rest = line.tokens
        if card == ".end":
            self.ended = True
        elif card == ".model":
            self._model(line, rest)
        elif card == ".temp":
            if len(rest) != 1:
                raise line.error("wanted one temperature in degrees Celsius")
            self._temperature(line, "temp", rest[0])
        elif card in (".option", ".options"):
            for key, value in _assignments(line, rest):
                if key in ("temp", "tnom"):
                    self._temperature(line, key, value)
                elif key == "gmin":
                    self._gmin(line, value)
                elif key not in HARMLESS_OPTIONS:
                    raise line.error(f"option {_show(key)} is not known to leave the circuit as it is; remove it")
        elif card not in HARMLESS_CARDS:
            raise line.error(
                f"{_show(card)} is refused: a netlist here is elements, .model, .temp, .options and requests for output"
            )

    def _gmin(self, line: _Line, token: str) -> None:
        siemens = _number(line, token)
        if siemens < 0:
            raise line.error(f"option gmin: wanted siemens, at least 0, got {_show(token)}")
        if siemens > LARGEST_GMIN:
            self.leaking = line

    def _temperature(self, line: _Line, key: str, token: str) -> None:
        celsius = _number(line, token)
        if not -ZERO_CELSIUS < celsius < 1e6:
            raise line.error(f"{key}: wanted degrees Celsius above absolute zero, got {_show(token)}")
        if self.temperatures.setdefault(key, celsius) != celsius:
            raise line.error(f"{key}: already set to {self.temperatures[key]:g} degrees; give one temperature")

    def _model(self, line: _Line, rest: Sequence[str]) -> None:
        if len(rest) < 2 or rest[1] != "d":
            raise line.error("wanted a diode model: .model NAME D(IS=... N=...)")
        values = dict(zip(("is", "n", "eg", "xti"), DiodeModel(), strict=True))
        for key, token in _assignments(line, rest[2:]):
            if key in values:
                values[key] = _number(line, token)
            elif not (key in HARMLESS_DIODE_PARAMETERS or (key == "rs" and _number(line, token) == 0)):
                raise line.error(f"diode parameter {_show(key)} is beyond Shockley's law, which is IS, N, EG and XTI")
        model = DiodeModel(*values.values())
        if not (model.saturation_current > 0 and 1e-9 <= model.emission_coefficient <= 1e9):
            raise line.error("wanted IS > 0 and N between 1e-9 and 1e9")
        if rest[0] in self.models:
            raise line.error(f"model {rest[0]} is already defined")
        self.models[rest[0]] = model


def parse_element(line: _Line) -> Element:
    """One element line."""
    name, *rest = line.tokens
    kind = name[0]
    wanted = {
        "r": "name node node ohms",
        "v": "name plus minus [DC] volts",
        "i": "name from to [DC] amperes",
        "d": "name anode cathode model",
        "e": "name plus minus control-plus control-minus gain",
        "f": "name from to sensing-source gain",
    }
    if kind not in wanted:
        raise line.error(f"element {_show(name)} is none of R, V, I, D, E, F")
    if kind in "vi":
        rest = _direct_current(rest)
    if len(rest) != len(wanted[kind].replace("[DC] ", "").split()) - 1 or "=" in rest:
        raise line.error(f"wanted: {wanted[kind]}")
    if kind == "d":
        return Element(name, _nodes(rest[:2]), reference=rest[2], line=line.number)
    value = _number(line, rest[-1])
    if kind == "f":
        return Element(name, _nodes(rest[:2]), value, rest[2], line.number)
    if kind == "r" and not (value > 0 and math.isfinite(1 / value)):
        raise line.error("wanted a positive resistance; a short is a voltage source of 0 volts")
    return Element(name, _nodes(rest[:-1]), value, line=line.number)


def _nodes(tokens: Sequence[str]) -> tuple[str, ...]:
    return tuple(GROUND if token == "gnd" else token for token in tokens)


def _direct_current(rest: Sequence[str]) -> Sequence[str]:
    """Without the word DC, and without an AC part, which is not there at the operating point."""
    if "ac" in rest[2:]:
        rest = rest[: rest.index("ac", 2)]
    return [*rest[:2], *rest[3:]] if len(rest) == 4 and rest[2] == "dc" else rest


def _assignments(line: _Line, tokens: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs (key, value) of `key=value` and flags (key, "")."""
    position = 0
    while position < len(tokens):
        if tokens[position] == "=":
            raise line.error("wanted a name before '='")
        if position + 1 < len(tokens) and tokens[position + 1] == "=":
            if position + 2 == len(tokens):
                raise line.error("wanted a value after '='")
            yield tokens[position], tokens[position + 2]
            position += 3
        else:
            yield tokens[position], ""
            position += 1


def _logical_lines(lines: Sequence[str]) -> Iterator[_Line]:
    """Lines with comments taken off, continuations joined, in lower case and cut into tokens."""
    pending: list[str] = []
    first = 0
    for number, text in enumerate(lines, start=2):
        if len(text) > MAX_LINE_LENGTH:
            raise _Line(number, text, ()).error(f"wanted at most {MAX_LINE_LENGTH} characters, got {len(text)}")
        note = NOTE.match(text) if text.startswith("*") else None
        if note is None:
            code = "" if text.startswith("*") else text[: _comment_start(text)].strip()
            if not code:
                continue
            if code.startswith("+"):
                if not pending:
                    raise _Line(number, text, ()).error("there is no line for '+' to continue")
                if len(pending) > MAX_CONTINUATIONS:
                    raise _Line(number, text, ()).error(f"wanted at most {MAX_CONTINUATIONS} continuation lines")
                pending.append(code[1:])
                continue
        if pending:
            yield _tokenised(first, " ".join(pending))
            pending = []
        if note is not None:
            key = note.group(1).lower()
            if key not in NOTES:
                raise _Line(number, text, ()).error(f"a groundstate note is one of {', '.join(NOTES)}")
            yield _tokenised(number, note.group(2), key)
        else:
            pending, first = [code], number
    if pending:
        yield _tokenised(first, " ".join(pending))


def _comment_start(text: str) -> int:
    match = COMMENT.search(text)
    return len(text) if match is None else match.start()


def _tokenised(number: int, text: str, note: str = "") -> _Line:
    line = _Line(number, text, (), note)
    bad = FORBIDDEN.search(text)
    if bad is not None:
        raise line.error(f"{_show(bad.group())} is refused: no expressions, quotes or characters beyond ASCII")
    tokens = re.findall(r"=|[^\s=(),]+", text.lower())
    if any(len(token) > MAX_TOKEN_LENGTH for token in tokens):
        raise line.error(f"wanted names and numbers of at most {MAX_TOKEN_LENGTH} characters")
    if not tokens and not note:
        raise line.error("there is nothing but punctuation")
    return line._replace(tokens=tokens)


def _warn_about_title(title: str) -> None:
    """A deck without a title loses its first element, in SPICE as here: say so."""
    try:
        parse_element(_tokenised(1, title[: _comment_start(title)][:MAX_LINE_LENGTH]))
    except NetlistError:
        return
    message = f"netlist, line 1: the first line is the title, and this one reads like an element: {_show(title)}"
    warnings.warn(message, stacklevel=3)


def _number(line: _Line, token: str) -> float:
    try:
        return parse_number(token)
    except ValueError as problem:
        raise line.error(str(problem)) from None


def _write_element(element: Element) -> str:
    name, nodes = element.name, " ".join(element.nodes)
    if name[0] == "d":
        return f"{name} {nodes} {element.reference}"
    if element.value == math.inf:
        return f"* groundstate open: {name} {nodes}"
    reference = f" {element.reference}" if element.reference else ""
    return f"{name} {nodes}{reference} {element.value!r}"


def node_number(name: str) -> int:
    """The number k of a node n<k>, -1 of ground."""
    return -1 if name == GROUND else int(name[1:])


def _show(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:80] + "...")
