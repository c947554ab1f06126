"""Arithmetic as netlists write it: parsed and computed here, never evaluated by Python."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

MAX_EXPRESSION_LENGTH = 2_000
MAX_NESTING = 50

SUFFIXES = {"t": 12, "g": 9, "meg": 6, "k": 3, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15}
NUMBER = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)(?:[ed]([+-]?\d+))?([a-z]*)")
_SYMBOL = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[ed][+-]?\d+)?[a-z]*)|(?P<name>[a-z_][\w.]*)"
    r"|(?P<operator>\*\*|<=|>=|==|!=|<>|&&|\|\||[-+*/%^<>!?:(),{}]))"
)
_PROBE = re.compile(r"\s*\(\s*([^\s(),]+)\s*(?:,\s*([^\s(),]+)\s*)?\)")

_PRECEDENCE = {
    "||": 1,
    "&&": 2,
    **dict.fromkeys(("==", "!=", "<>", "<", "<=", ">", ">="), 3),
    **dict.fromkeys("+-", 4),
    **dict.fromkeys("*/%", 5),
    **dict.fromkeys(("^", "**"), 7),
}
_NEGATION = 6
"""Binds less than a power: -2^2 is -4."""


class Law(NamedTuple):
    """constant + sum of coefficient times probe, which is a voltage ("v", a, b) from node a to b, or ("i", source)."""

    constant: float
    terms: dict[tuple[str, ...], float]


def parse_number(token: str) -> float:
    """A SPICE number such as 4.7k, 3meg, 1e-3 or 10uF, in SI units; letters after the suffix are units. ValueError."""
    match = NUMBER.fullmatch(token.lower())
    if match is None:
        raise ValueError(f"wanted a number such as 4.7k, 3meg or 1e-3, got {show(token)}")
    sign, digits, exponent, letters = match.groups()
    if letters.startswith("mil"):
        value = float(f"{sign}{digits}e{exponent or 0}") * 25.4e-6
    else:
        scale = SUFFIXES["meg"] if letters.startswith("meg") else SUFFIXES.get(letters[:1], 0)
        value = float(f"{sign}{digits}e{int(exponent or 0) + scale}")
    if not math.isfinite(value):
        raise ValueError(f"wanted a number that float64 holds, got {show(token)}")
    return value


def evaluate(text: str, parameter: Callable[[str], float]) -> float:
    """The value of an expression.

    The operators are those of ngspice, `^` and `**` from left to right like the others. `log` is natural.

    Args:
        text: in lower case.
        parameter: the value of a name; it raises KeyError for one that it does not know.

    Raises:
        ValueError: for what is no such expression, or has no finite value.
    """
    value = _run(_compiled(text, False), parameter)
    assert isinstance(value, float)
    return value


def evaluate_law(text: str, parameter: Callable[[str], float]) -> Law:
    """The value of an expression that may hold v(node), v(node, node) and i(source), to the first degree.

    Raises ValueError, also for an expression of a higher degree.
    """
    value = _run(_compiled(text, True), parameter)
    return value if isinstance(value, Law) else Law(value, {})


def show(text: str) -> str:
    """A text from a netlist as messages show it."""
    return ascii(text if len(text) <= 80 else text[:80] + "...")


def _power(base: float, exponent: float) -> float:
    if base < 0:
        raise ValueError(
            "programs differ in powers of negative numbers by ^ and **: write pow(a, b), or pwr(a, b) for |a|^b"
        )
    return math.pow(base, exponent)


_OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "%": math.fmod,
    "^": _power,
    "**": _power,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<>": lambda a, b: a != b,
    "&&": lambda a, b: bool(a) and bool(b),
    "||": lambda a, b: bool(a) or bool(b),
}

_FUNCTIONS: dict[str, tuple[int, Callable[..., float]]] = {
    **{name: (1, getattr(math, name)) for name in ("sqrt", "exp", "log10", "floor", "ceil", "sin", "cos", "tan")},
    **{name: (1, getattr(math, name)) for name in ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh")},
    **{name: (1, getattr(math, name)) for name in ("asin", "acos", "atan")},
    **{f"arc{name}": (1, getattr(math, f"a{name}")) for name in ("sin", "cos", "tan")},
    "ln": (1, math.log),
    "log": (1, math.log),
    "abs": (1, math.fabs),
    "sqr": (1, lambda a: a * a),
    "int": (1, lambda a: float(math.trunc(a))),
    "nint": (1, lambda a: float(round(a))),
    "sgn": (1, lambda a: (a > 0) - (a < 0)),
    "min": (2, lambda a, b: min(a, b)),
    "max": (2, lambda a, b: max(a, b)),
    "pow": (2, math.pow),
    "pwr": (2, lambda a, b: math.pow(abs(a), b)),
    "if": (3, lambda a, b, c: b if a else c),
    "ternary_fcn": (3, lambda a, b, c: b if a else c),
}
_CONSTANTS = {"pi": math.pi}


def _law(value: float | Law) -> Law:
    return value if isinstance(value, Law) else Law(value, {})


def _combine(operator: str, a: float | Law, b: float | Law) -> float | Law:
    if isinstance(a, float) and isinstance(b, float):
        return float(_OPERATIONS[operator](a, b))
    if operator in ("+", "-"):
        first, second, sign = _law(a), _law(b), 1.0 if operator == "+" else -1.0
        terms = dict(first.terms)
        for probe, coefficient in second.terms.items():
            terms[probe] = terms.get(probe, 0.0) + sign * coefficient
        return Law(first.constant + sign * second.constant, terms)
    if operator == "*" and isinstance(a, float):
        a, b = b, a
    if operator in ("*", "/") and isinstance(a, Law) and isinstance(b, float):
        scale = lambda number: float(_OPERATIONS[operator](number, b))
        return Law(scale(a.constant), {probe: scale(c) for probe, c in a.terms.items()})
    if operator in ("^", "**") and b == 1.0:
        return a
    raise _not_linear(operator)


def _not_linear(what: str) -> ValueError:
    return ValueError(
        f"{show(what)} makes a law that is not linear in voltages and currents; wanted sums of constants, "
        "constants times v(...) and constants times i(...)"
    )


def _run(code: tuple[tuple[str, Any], ...], parameter: Callable[[str], float]) -> float | Law:
    """What a program for a stack computes: numbers, names, probes, operators, calls and jumps."""
    stack: list[Any] = []
    place = 0
    try:
        while place < len(code):
            kind, what = code[place]
            place += 1
            if kind == "push":
                stack.append(what)
            elif kind == "name":
                stack.append(_value_of(what, parameter))
            elif kind == "operator":
                b, a = stack.pop(), stack.pop()
                stack.append(_combine(what, a, b))
            elif kind == "jump":
                place = what
            else:
                count = 1 if kind in ("unless", "not") else what[1]
                values = stack[-count:]
                del stack[-count:]
                if any(isinstance(value, Law) for value in values):
                    raise _not_linear(what[0] if kind == "call" else "?" if kind == "unless" else "!")
                if kind == "unless":
                    place = place if values[0] else what
                else:
                    stack.append(_called(what[0], values) if kind == "call" else float(not values[0]))
    except (ArithmeticError, TypeError):
        raise ValueError("the expression has no finite value") from None
    (value,) = stack
    for number in (value,) if isinstance(value, float) else (value.constant, *value.terms.values()):
        if not math.isfinite(number):
            raise ValueError("the expression has no finite value")
    return value


def _called(name: str, values: list[float]) -> float:
    try:
        return float(_FUNCTIONS[name][1](*values))
    except ValueError:
        raise ValueError(
            f"{name} has no value there: its arguments are {', '.join(f'{v:g}' for v in values)}"
        ) from None


def _value_of(name: str, parameter: Callable[[str], float]) -> float:
    try:
        return float(parameter(name))
    except KeyError:
        if name in _CONSTANTS:
            return _CONSTANTS[name]
    raise ValueError(f"no .param defines {show(name)}")


@functools.lru_cache(maxsize=4096)
def _compiled(text: str, probes: bool) -> tuple[tuple[str, Any], ...]:
    if len(text) > MAX_EXPRESSION_LENGTH:
        raise ValueError(f"wanted expressions of at most {MAX_EXPRESSION_LENGTH} characters, got {len(text)}")
    compiler = _Compiler(text, probes)
    compiler.expression()
    if compiler.symbol:
        raise compiler.error("the end")
    return tuple(compiler.code)


class _Compiler:
    """Turns an expression into a program for a stack, so that computing it needs no recursion."""

    def __init__(self, text: str, probes: bool):
        self.text, self.probes = text, probes
        self.code: list[tuple[str, Any]] = []
        self.place = self.depth = 0
        self.kind = self.symbol = ""
        self.advance()

    def advance(self) -> None:
        match = _SYMBOL.match(self.text, self.place)
        if match is None:
            if self.text[self.place :].strip():
                raise self.error("arithmetic")
            self.kind = self.symbol = ""
            return
        self.kind, self.symbol, self.place = str(match.lastgroup), match[match.lastgroup or 0], match.end()
        # braces group like parentheses: B sources hold parameters in them
        self.symbol = {"{": "(", "}": ")"}.get(self.symbol, self.symbol)

    def error(self, wanted: str) -> ValueError:
        found = show(self.symbol or self.text[self.place :].strip()[:20]) if self.text.strip() else "nothing"
        return ValueError(f"wanted {wanted} in the expression {show(self.text.strip())}, got {found}")

    def expect(self, symbol: str) -> None:
        if self.symbol != symbol:
            raise self.error(repr(symbol))
        self.advance()

    def expression(self, least: int = 0) -> None:
        """Operators that bind at least so; with 0 also ? and :."""
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise ValueError(f"wanted expressions nested at most {MAX_NESTING} deep")
        self.operand()
        while self.symbol in _PRECEDENCE and _PRECEDENCE[self.symbol] >= max(least, 1):
            operator = self.symbol
            self.advance()
            self.expression(_PRECEDENCE[operator] + 1)
            self.code.append(("operator", operator))
        if least == 0 and self.symbol == "?":
            self.advance()
            unless = self.hole()
            self.expression()
            self.expect(":")
            jump = self.hole()
            self.code[unless] = ("unless", len(self.code))
            self.expression()
            self.code[jump] = ("jump", len(self.code))
        self.depth -= 1

    def hole(self) -> int:
        self.code.append(("jump", 0))
        return len(self.code) - 1

    def operand(self) -> None:
        kind, symbol = self.kind, self.symbol
        if kind == "number":
            self.code.append(("push", parse_number(symbol)))
            self.advance()
        elif kind == "name":
            self.named(symbol)
        elif symbol in ("-", "+", "!"):
            self.advance()
            if symbol == "-":
                self.code.append(("push", 0.0))
            self.expression(_NEGATION)
            if symbol != "+":
                self.code.append(("operator", "-") if symbol == "-" else ("not", None))
        elif symbol == "(":
            self.advance()
            self.expression()
            self.expect(")")
        else:
            raise self.error("a number, a name or '('")

    def named(self, name: str) -> None:
        if self.probes and name in ("v", "i") and (probe := _PROBE.match(self.text, self.place)):
            first, second = probe.groups()
            if name == "i" and second is not None:
                raise ValueError(f"wanted i(source), got {show(probe[0].strip())}")
            key = ("i", first) if name == "i" else ("v", first, second or "0")
            self.code.append(("push", Law(0.0, {key: 1.0})))
            self.place = probe.end()
            self.advance()
            return
        self.advance()
        if self.symbol != "(":
            self.code.append(("name", name))
            return
        if name not in _FUNCTIONS:
            raise ValueError(f"there is no function {show(name)} here; it has {', '.join(sorted(_FUNCTIONS))}")
        count = 0
        while count == 0 or self.symbol == ",":
            self.advance()
            self.expression()
            count += 1
        self.expect(")")
        if count != _FUNCTIONS[name][0]:
            raise ValueError(f"{name} wants {_FUNCTIONS[name][0]} arguments, got {count}")
        self.code.append(("call", (name, count)))
