"""Element lines as elements at the operating point: what each kind of line may say, and what it comes to."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Protocol

from substrates.spice.deck import DiodeModel, Element
from substrates.spice.expression import Law, evaluate_law, show
from substrates.spice.lines import Line, NetlistError

HARMLESS_RESISTOR_PARAMETERS = ("noisy", "ac", "tol", "pwr")
"""Of a resistor; none of them matters at the operating point."""

HARMLESS_DIODE_PARAMETERS = frozenset(
    name
    for names in (
        "cjo cj0 cj cjp cjsw vj pb m mj php vjsw mjsw tt fc fcs kf af level cta ctc ctp tpb tm1 tm2 tnoise trs2 tvj",
        "iave vpk mfg type nbv ibvl nbvl tbv1 tbv2 tcv vpt irms ptot bv_max fv_max id_max te_max pd_max",
    )
    for name in names.split()
)
"""Of a diode model: charges, noise and ratings, none of which a direct current feels, and what only goes with BV."""

BREAKDOWN = frozenset(("bv", "vb", "ibv", "ib"))
UNLIMITED = frozenset(("ikf", "ik", "ikr", "isr", "jsw", "ns", "trs", "trs1", "jtun", "jtunsw"))
"""Of a diode model: a law beyond Shockley's, unless it is zero."""

_LAWS = {
    "b": re.compile(r"[\s)][vi]\s*=(?!=)\s*(.*)"),
    **dict.fromkeys("eg", re.compile(r"[\s)](?:value|vol|cur)\s*=?\s*(.*)")),
}
_WANTED = {
    "r": "name node node ohms",
    "c": "name node node farads",
    "l": "name node node henries",
    "v": "name plus minus [DC] volts",
    "i": "name from to [DC] amperes",
    "d": "name anode cathode model",
    "e": "name plus minus control-plus control-minus gain",
    "g": "name from to control-plus control-minus siemens",
    "f": "name from to sensing-source gain",
    "h": "name plus minus sensing-source ohms",
    "b": "name plus minus V=law or I=law",
}
KINDS = ", ".join(letter.upper() for letter in (*_WANTED, "x"))


class Model(Protocol):
    """A .model card: its kind and its numbers."""

    @property
    def kind(self) -> str: ...
    def number(self, key: str, default: float) -> float: ...


class Place(Protocol):
    """Where a line stands, at the top or inside an instance of a subcircuit; `reader.Instance` says what each is."""

    @property
    def path(self) -> str: ...
    @property
    def multiplier(self) -> float: ...
    @property
    def celsius(self) -> float: ...
    @property
    def nominal_celsius(self) -> float: ...
    def node(self, line: Line, token: str) -> str: ...
    def number(self, line: Line, token: str) -> float: ...
    def is_number(self, token: str) -> bool: ...
    def parameter(self, name: str) -> float: ...
    def model(self, line: Line, name: str) -> Model | None: ...
    def diode_model(self, line: Line, name: str, factor: float) -> tuple[str, float]: ...
    def add(self, line: Line, *elements: Element) -> None: ...
    def remark(self, line: Line, text: str) -> None: ...


def read_element(place: Place, line: Line) -> None:
    """Adds what one element line describes to the circuit. Raises NetlistError."""
    name, *rest = line.tokens
    kind = name[0]
    if kind == "k":
        place.remark(line, f"{name} couples inductors, which are shorts at the operating point")
        return
    if kind not in _WANTED:
        raise line.error(f"element {show(name)} is none of {KINDS}: replace it by elements that are")
    if len(rest) < 2 or "=" in rest[:2]:
        raise line.error(f"wanted: {_WANTED[kind]}")
    nodes = (place.node(line, rest[0]), place.node(line, rest[1]))
    if nodes[0] == nodes[1] and kind in "rcldigb" and not _is_voltage_law(line, kind):
        place.remark(line, f"{name} has both ends on node {nodes[0]} and is left out")
        return
    _READERS[kind](place, line, nodes, rest[2:])


def arguments(line: Line, tokens: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The tokens before the first `key =`, and those after each such key."""
    words: list[str] = []
    named: dict[str, list[str]] = {}
    current = words
    k = 0
    while k < len(tokens):
        if tokens[k] == "=":
            raise line.error("wanted a name before '='")
        if k + 1 < len(tokens) and tokens[k + 1] == "=":
            if k + 2 == len(tokens):
                raise line.error("wanted a value after '='")
            current = named.setdefault(tokens[k], [])
            k += 2
        current.append(tokens[k])
        k += 1
    return words, named


def _named_numbers(
    place: Place, line: Line, named: dict[str, list[str]], wanted: str, passed_over: Sequence[str] = ()
) -> dict[str, float]:
    """The numbers of the keys that are wanted; NetlistError for one that is neither wanted nor to be passed over."""
    numbers = {}
    for key, values in named.items():
        if key in passed_over:
            continue
        if key not in wanted.split() or len(values) != 1:
            raise line.error(f"wanted: {_WANTED[line.tokens[0][0]]}, and of named numbers only {wanted or 'none'}")
        numbers[key] = place.number(line, values[0])
    return numbers


def _resistor(place: Place, line: Line, nodes: tuple[str, ...], rest: Sequence[str]) -> None:
    plain = len(rest) == 1 and place.model(line, rest[0]) is None
    ohms = (place.number(line, rest[0]) if plain else _ohms(place, line, rest)) / place.multiplier
    if ohms == 0:
        _short(place, line, nodes, "has 0 ohms: a short, a source of 0 volts")
    elif not (math.isfinite(ohms) and math.isfinite(1 / ohms)):
        raise line.error("wanted a resistance whose reciprocal float64 holds, or 0 for a short")
    else:
        _add(place, line, nodes, ohms)


def _ohms(place: Place, line: Line, rest: Sequence[str]) -> float:
    """The resistance that a line with models, named numbers and temperatures comes to."""
    words, named = arguments(line, rest)
    coefficients = [place.number(line, token) for token in named.pop("tc", [])]
    keys = "r resistance l w m scale temp dtemp tc1 tc2 tce"
    if len(coefficients) > 2:
        raise line.error("wanted at most two temperature coefficients")
    numbers = _named_numbers(place, line, named, keys, HARMLESS_RESISTOR_PARAMETERS)
    value = numbers.get("r", numbers.get("resistance"))
    models = [model for word in words if (model := place.model(line, word)) is not None]
    plain = [word for word in words if place.model(line, word) is None]
    if len(models) > 1 or len(plain) + (value is not None) > 1 or (not models and value is None and not plain):
        raise line.error(f"wanted: {_WANTED['r']}")
    if plain:
        value = place.number(line, plain[0])
    model = models[0] if models else None
    if model is not None and model.kind not in ("r", "res"):
        raise line.error(f"wanted a model of resistors, R(...), got one of kind {show(model.kind)}")
    if value is None:
        value = _sheet(line, model, numbers)
    defaults = dict(zip(("tc1", "tc2"), coefficients, strict=False))
    of = lambda key: numbers.get(key, defaults.get(key, model.number(key, 0.0) if model is not None else 0.0))
    nominal = place.nominal_celsius if model is None else model.number("tnom", place.nominal_celsius)
    warmer = numbers.get("temp", place.celsius + numbers.get("dtemp", 0.0)) - nominal
    exponential = of("tce")
    factor = 1.01 ** (exponential * warmer) if exponential else 1 + warmer * (of("tc1") + warmer * of("tc2"))
    copies = numbers.get("m", 1.0)
    if copies <= 0:
        raise line.error("wanted a positive multiplier m")
    return value * numbers.get("scale", 1.0) * factor / copies


def _sheet(line: Line, model: Model | None, numbers: dict[str, float]) -> float:
    """The ohms that a model gives a resistor by its length and width, or flatly."""
    assert model is not None
    sheet = model.number("rsh", 0.0)
    if not sheet or "l" not in numbers:
        flat = model.number("r", math.nan)
        if math.isnan(flat):
            raise line.error("its model does not determine its resistance; give ohms, or R, or RSH with l and w")
        return flat
    width = numbers.get("w", model.number("defw", 1e-5)) - 2 * model.number("narrow", 0.0)
    length = numbers["l"] - 2 * model.number("short", 0.0)
    if width <= 0 or length <= 0:
        raise line.error("wanted a length and a width that are left positive by SHORT and NARROW")
    return sheet * length / width


def _capacitor(place: Place, line: Line, nodes: tuple[str, ...], rest: Sequence[str]) -> None:
    leak = _ohms_of_part(place, line, rest, "rpar")
    if leak:
        _add(place, line, nodes, leak / place.multiplier, "r", part="rpar")
    left = ", but for its RPAR" if leak else ""
    place.remark(line, f"{line.tokens[0]} is open at the operating point{left}, as every capacitor")


def _inductor(place: Place, line: Line, nodes: tuple[str, ...], rest: Sequence[str]) -> None:
    loss = _ohms_of_part(place, line, rest, "rser")
    if loss:
        _add(place, line, nodes, loss / place.multiplier, "r", part="rser")
        place.remark(line, f"{line.tokens[0]} is its RSER alone at the operating point")
    else:
        _short(place, line, nodes, "is a short at the operating point, a source of 0 volts, as every inductor")


def _ohms_of_part(place: Place, line: Line, rest: Sequence[str], key: str) -> float:
    """What LTspice keeps in a capacitor or an inductor."""
    _, named = arguments(line, rest)
    ohms = place.number(line, named[key][0]) if key in named else 0.0
    if ohms < 0:
        raise line.error(f"wanted {key} of at least 0 ohms")
    return ohms


def _short(place: Place, line: Line, nodes: tuple[str, ...], why: str) -> None:
    place.remark(line, f"{line.tokens[0]} {why}")
    _add(place, line, nodes, 0.0, "v", own=False)


def _source(place: Place, line: Line, nodes: tuple[str, ...], rest: Sequence[str]) -> None:
    kind, name = line.tokens[0][0], line.tokens[0]
    volts, series, copies = None, 0.0, place.multiplier if kind == "i" else 1.0
    function, k = None, 0
    while k < len(rest):
        word = rest[k]
        ahead = k + 1
        while ahead < len(rest) and (place.is_number(rest[ahead]) and rest[ahead + 1 : ahead + 2] != ["="]):
            ahead += 1
        if rest[k + 1 : k + 2] == ["="] and word not in ("dc", "ac"):
            if k + 2 >= len(rest):
                raise line.error("wanted a value after '='")
            number = place.number(line, rest[k + 2])
            if word == "rser" and kind == "v" and number >= 0:
                series = number
            elif word == "m" and kind == "i":
                copies *= number
            elif word != "cpar":
                raise line.error(f"wanted: {_WANTED[kind]}, got {show(word)} with it")
            k += 3
        elif word in _AT_TIME_ZERO:
            function = word, [place.number(line, token) for token in rest[k + 1 : ahead]]
            k = ahead
        elif word in ("ac", "distof1", "distof2"):
            k = ahead + 2 if rest[k + 1 : k + 2] == ["="] else ahead
        elif word == "dc" or (k == 0 and place.is_number(word)):
            at = k + (word == "dc") + (rest[k + 1 : k + 2] == ["="])
            volts = place.number(line, rest[at]) if at < len(rest) else 0.0
            k = at + 1
        else:
            raise line.error(f"wanted: {_WANTED[kind]}, got {show(word)} with it")
    if function is not None and volts is None:
        volts = _at_time_zero(line, *function)
        place.remark(line, f"{name} counts by its value at the operating point, {volts:g} {'VA'[kind == 'i']}")
    elif function is not None:
        place.remark(line, f"{name} counts by its DC value, not by {function[0]}(...)")
    value = 0.0 if volts is None else volts * copies
    if series:
        inner = _inside(place, line)
        _add(place, line, (nodes[0], inner), series / place.multiplier, "r", part="rser")
        nodes = (inner, nodes[1])
    _add(place, line, nodes, value)


def _at_time_zero(line: Line, function: str, numbers: Sequence[float]) -> float:
    """What a function of time is at time 0, as ngspice has it."""
    wanted, least = _AT_TIME_ZERO[function]
    if len(numbers) < least:
        raise line.error(f"wanted {function}({wanted}), at least {least} numbers")
    first, second = (*numbers, 0.0)[:2]
    degrees = lambda k: math.radians(numbers[k]) if len(numbers) > k else 0.0
    delays = {"pulse": (2,), "exp": (2, 4), "sin": (2,), "sine": (2,)}.get(function, ())
    if any(len(numbers) > k and numbers[k] < 0 for k in delays):
        raise line.error(f"{function} with a delay below 0: give its value at time 0 as DC")
    if function in ("sin", "sine"):
        return first + second * math.sin(degrees(5))
    if function == "sffm":
        index = numbers[3] if len(numbers) > 3 else 0.0
        return first + second * math.sin(degrees(5) + index * math.sin(degrees(6)))
    if function == "pwl":
        times, values = numbers[0::2], numbers[1::2]
        if len(times) != len(values) or any(a >= b for a, b in itertools.pairwise(times)):
            raise line.error("wanted pwl(t1 v1 t2 v2 ...) with times that grow")
        after = next((k for k, time in enumerate(times) if time >= 0), len(times) - 1)
        before = max(after - 1, 0)
        span = times[after] - times[before]
        part = min(-times[before] / span, 1.0) if span and times[before] < 0 else 0.0 if span else 1.0
        return values[before] + part * (values[after] - values[before])
    return 0.0 if function == "am" else first


_AT_TIME_ZERO = {
    "sin": ("offset amplitude frequency delay damping phase", 2),
    "sine": ("offset amplitude frequency delay damping phase", 2),
    "pulse": ("low high delay ...", 1),
    "exp": ("low high delay ...", 1),
    "pwl": ("t1 v1 t2 v2 ...", 2),
    "sffm": ("offset amplitude ...", 2),
    "am": ("amplitude offset ...", 1),
}


def _diode(place: Place, line: Line, nodes: tuple[str, ...], rest: Sequence[str]) -> None:
    words, named = arguments(line, [token for token in rest if token != "off"])
    named.pop("ic", None)
    numbers = _named_numbers(place, line, named, "area m pj temp dtemp", ("lm", "wm", "lp", "wp"))
    if len(words) not in (1, 2) or words[0].startswith("{"):
        raise line.error(f"wanted: {_WANTED['d']}")
    if numbers.get("dtemp", 0.0) != 0 or numbers.get("temp", place.celsius) != place.celsius:
        raise line.error("a diode has the temperature of the circuit; set that by .temp")
    area = place.number(line, words[1]) if len(words) == 2 else numbers.get("area", 1.0)
    factor = area * numbers.get("m", 1.0) * place.multiplier
    if not factor > 0:
        raise line.error("wanted a positive area and a positive multiplier m")
    model, series = place.diode_model(line, words[0], factor)
    if series:
        inner = _inside(place, line)
        _add(place, line, (nodes[0], inner), series, "r", part="rs")
        nodes = (inner, nodes[1])
    _add(place, line, nodes, reference=model)


def diode_law(line: Line, named: dict[str, float]) -> tuple[DiodeModel, float, float | None, list[str]]:
    """(law, series resistance, nominal temperature, remarks) of the numbers of a diode's .model card."""
    values = dict(zip(("is", "n", "eg", "xti"), DiodeModel(), strict=True))
    series, nominal, remarks = 0.0, None, []
    for key, number in named.items():
        key = {"js": "is", "tref": "tnom"}.get(key, key)
        if key in values:
            values[key] = number
        elif key == "rs":
            series = number
        elif key == "tnom":
            nominal = number
        elif key in ("bv", "vb"):
            remarks.append(f"it does not break down: currents are wrong beyond {number:g} V in reverse")
        elif key in UNLIMITED and number != 0:
            raise line.error(
                f"diode parameter {key} is beyond Shockley's law, which is IS, N, EG, XTI and RS: remove it where the "
                "circuit does not reach it"
            )
        elif key not in HARMLESS_DIODE_PARAMETERS | BREAKDOWN | UNLIMITED:
            raise line.error(
                f"diode parameter {show(key)} is not known: the law is IS, N, EG, XTI and RS; remove it if it does not "
                "matter"
            )
    model = DiodeModel(*values.values())
    if not (model.saturation_current > 0 and 1e-9 <= model.emission_coefficient <= 1e9 and series >= 0):
        raise line.error("wanted IS > 0, N between 1e-9 and 1e9, and RS >= 0")
    return model, series, nominal, remarks


def _controlled(place: Place, line: Line, nodes: tuple[str, ...], rest: Sequence[str]) -> None:
    """E and G, F and H: by a gain, POLY(n) to the first degree, or a law."""
    kind = line.tokens[0][0]
    words, named = arguments(line, rest)
    if rest and rest[0] in ("value", "vol", "cur") and kind in "eg":
        _behavioural(place, line, nodes, rest)
        return
    copies = place.multiplier * _named_numbers(place, line, named, "m" if kind in "gf" else "").get("m", 1.0)
    copies = copies if kind in "gf" else 1.0
    controls = 2 if kind in "eg" else 1
    if words[:1] == ["poly"] and len(words) > controls + 1:
        _polynomial(place, line, nodes, words[1:], controls, copies)
        return
    if len(words) != controls + 1:
        raise line.error(f"wanted: {_WANTED[kind]}, {kind}... POLY(n) ... of the first degree, or a law: VALUE={{...}}")
    gain = place.number(line, words[-1]) * copies
    if kind in "eg":
        _add(place, line, (*nodes, *(place.node(line, word) for word in words[:2])), gain)
    else:
        _add(place, line, nodes, gain, reference=place.path + words[0])


def _polynomial(
    place: Place, line: Line, nodes: tuple[str, ...], words: Sequence[str], controls: int, copies: float
) -> None:
    count = place.number(line, words[0]) if words else 0.0
    if count not in range(1, 65) or len(words) < 2 + controls * int(count):
        raise line.error("wanted POLY(n) with n controls and coefficients p0 p1 ...")
    count = int(count)
    names, numbers = words[1 : 1 + controls * count], words[1 + controls * count :]
    coefficients = [copies * place.number(line, token) for token in numbers]
    if len(coefficients) == 1 and count == 1:
        coefficients = [0.0, *coefficients]  # SPICE: a single coefficient is the gain
    if any(coefficients[count + 1 :]):
        raise line.error("POLY is understood to the first degree: p0 p1 ... pn, one for each control")
    terms: dict[tuple[str, ...], float] = {}
    for k, coefficient in enumerate(coefficients[1 : count + 1]):
        of = names[controls * k : controls * (k + 1)]
        probe = ("v", *of) if controls == 2 else ("i", *of)
        terms[probe] = terms.get(probe, 0.0) + coefficient
    _add_law(place, line, nodes, Law(coefficients[0], terms), line.tokens[0][0] in "gf")


def _is_voltage_law(line: Line, kind: str) -> bool:
    return kind == "b" and (len(line.tokens) < 4 or line.tokens[3] != "i")


def _behavioural(place: Place, line: Line, nodes: tuple[str, ...], rest: Sequence[str]) -> None:
    kind = line.tokens[0][0]
    match = _LAWS[kind].search(line.text.lower())
    if match is None or (kind == "b" and (rest[:2] not in (["v", "="], ["i", "="]))):
        raise line.error(f"wanted: {_WANTED[kind]}")
    text = match[1].strip()
    if text[:1] in ("'", '"') and text[-1:] == text[0]:
        text = text[1:-1]
    try:
        law = evaluate_law(text, place.parameter)
    except ValueError as problem:
        raise problem if isinstance(problem, NetlistError) else line.error(problem) from None
    currents = kind == "g" or rest[0] == "i"
    if currents:
        law = Law(law.constant * place.multiplier, {probe: c * place.multiplier for probe, c in law.terms.items()})
    _add_law(place, line, nodes, law, currents)


def _add_law(place: Place, line: Line, nodes: tuple[str, ...], law: Law, currents: bool) -> None:
    """A source whose current (voltage) follows a law: sources of its terms in parallel (in series)."""
    parts: list[tuple[str, float, tuple[str, ...], str]] = []
    if place.multiplier != 1 and any(probe[0] == "i" for probe in law.terms):
        raise line.error("a law with currents in a subcircuit that m multiplies is refused; write its copies out")
    for probe, value in law.terms.items():
        if value:
            if probe[0] == "v":
                control = (place.node(line, probe[1]), place.node(line, probe[2]))
                parts.append(("g" if currents else "e", value, control, ""))
            else:
                parts.append(("f" if currents else "h", value, (), place.path + probe[1]))
    if law.constant or not parts:
        parts.append(("i" if currents else "v", law.constant, (), ""))
    ends = nodes[:1]
    for k, (letter, value, control, reference) in enumerate(parts):
        last = k == len(parts) - 1
        if currents:
            pair = nodes
        else:
            ends = (ends[-1], nodes[1] if last else f"{_inside(place, line)}{k}")
            pair = ends
        part = "" if len(parts) == 1 else f"term{k}"
        _add(place, line, (*pair, *control), value, letter, reference=reference, part=part, own=not part)


def _inside(place: Place, line: Line) -> str:
    """The name of a node inside an element, as ngspice has it."""
    return f"{place.path}{line.tokens[0]}#internal"


def _add(
    place: Place,
    line: Line,
    nodes: tuple[str, ...],
    value: float = math.nan,
    letter: str = "",
    *,
    reference: str = "",
    part: str = "",
    own: bool = True,
) -> None:
    name = line.tokens[0]
    kind = letter or name[0]
    full = place.path + name + (f"#{part}" if part else "")
    letter = "" if kind == full[0] else kind
    place.add(line, Element(full, nodes, value, reference, line.where, letter, own and not part))


_READERS: dict[str, Callable[[Place, Line, tuple[str, ...], Sequence[str]], None]] = {
    "r": _resistor,
    "c": _capacitor,
    "l": _inductor,
    "v": _source,
    "i": _source,
    "d": _diode,
    **dict.fromkeys("egfh", _controlled),
    "b": _behavioural,
}
