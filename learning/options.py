"""From words of the command line to a rule and its settings: the options of a rule are its fields."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from learning import catalogue
from learning.homeostat import SelfControl
from learning.rule import Mover

FALLBACK: dict[str, Any] = {"epochs": 20, "batch_size": 32, "optimiser": "adam", "learning_rate": 0.01, "decay": 1.0}
"""What a substrate is trained with where neither it nor the user says anything."""

ON_BENCH = ("epsilon", "read_back")
"""The options that every rule on the bench has."""

_SAID_OTHERWISE = frozenset({"cost", "strict", "homeostat", "precision", "learning_rate"})
"""Fields with an option of their own for every rule, or with the name of such an option."""


class UsageError(ValueError):
    """What was asked for makes no sense."""


def reader(convert: Callable[[str], Any], sensible: Callable[[Any], bool], wanted: str) -> Callable[[str], Any]:
    """What reads a word of the command line, and refuses one that cannot be converted or makes no sense."""

    def read(text: str) -> Any:
        with contextlib.suppress(ValueError):
            value = convert(text)
            if sensible(value):
                return value
        raise argparse.ArgumentTypeError(f"wanted {wanted}, got {text!r}")

    return read


whole = lambda text: int(text) if text.isdecimal() else -1
positive = reader(float, lambda value: 0 < value < math.inf, "a positive number")
not_negative = reader(float, lambda value: 0 <= value < math.inf, "a number from 0")
count = reader(whole, lambda value: value >= 1, "a positive whole number")
_number = reader(float, lambda value: True, "a number")
_whole = reader(int, lambda value: True, "a whole number")


def by_parameter(text: str) -> float | dict[str, float]:
    """One positive number, or parameter=number,..."""
    if "=" not in text:
        return positive(text)
    pairs = [part.partition("=") for part in text.split(",")]
    return {name.strip(): positive(value) for name, _, value in pairs}


class Option(NamedTuple):
    """A field of a rule that one word can say.

    Attributes:
        read: from the word to the value; None for a field that is true or false, whose option takes no word.
        wanted: what stands for the word in a help text.
        about: what the class says of the field.
        make: from the value to what the rule is given.
        field: the name of the field.
        required: whether the rule has no default.
        default: in words, what it is where nobody says anything.
    """

    read: Callable[[str], Any] | None
    wanted: str
    about: str
    make: Callable[[Any], Any] = lambda value: value
    field: str = ""
    required: bool = False
    default: str = "the substrate's own"


def options_of(rule: type) -> dict[str, Option]:
    """The options of a rule by the names of its fields: numbers, whole numbers, those that are true or false, choices,
    numbers by parameter, and what a class makes of one number, where a field's metadata names it as `of_number` (and
    that number, if the field's own name does not fit it, as `number`).

    Fields that no single word can say are left out, as are those that every rule has.
    """
    about, hints, options = _described(rule), get_type_hints(rule), {}
    for field in dataclasses.fields(rule):
        maker = field.metadata.get("of_number")
        kind = float if maker is not None else hints[field.name]
        said = None if field.name in _SAID_OTHERWISE else _how_to_read(kind)
        name = field.metadata.get("number", field.name)
        if said is not None:
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            more: dict[str, Any] = {} if maker is None else {"make": maker}
            usual = rule.usual.get(name) if required else field.default
            if usual is not None:
                more["default"] = f"the substrate's {usual}" if required and isinstance(usual, str) else str(usual)
            elif not required:
                more["default"] = "none"
            more |= {"field": field.name, "required": required}
            options[name] = Option(*said, about.get(field.name, ""), **more)
    return options


def rule_and_options(words: str) -> tuple[type, dict[str, Any]]:
    """The class and the options of a rule in one word: NAME, or NAME,option=value,option=value.

    Raises CatalogueError for a name that leads to nothing, UsageError for an option that the rule does not have and a
    value that the option does not take.
    """
    name, *pairs = words.split(",")
    rule = catalogue.find(catalogue.RULES, name)
    options, asked = options_of(rule), {}
    for pair in pairs:
        key, equals, word = pair.partition("=")
        key = key.strip().replace("-", "_")
        if key not in options or not equals:
            known = ", ".join(options) or "none"
            raise UsageError(f"{words}: wanted {name},option=value with an option of {known}, got {pair!r}")
        read = options[key].read or reader(
            lambda word: {"true": True, "false": False}.get(word, word),
            lambda value: value in (True, False),
            "true or false",
        )
        try:
            asked[key] = read(word.strip())
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{words}: {key}: {error}") from error
    return rule, asked


def in_words(words: str) -> str:
    """A rule in one word as `rule_and_options` reads it: the same for all words that mean the same.

    Raises as `rule_and_options`.
    """
    rule, asked = rule_and_options(words)

    def said(value: Any) -> str:
        if isinstance(value, Mapping):
            return ",".join(f"{path}={said(number)}" for path, number in value.items())
        if isinstance(value, bool):
            return str(value).lower()
        return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)

    name = words.partition(",")[0]
    return ",".join([name, *(f"{option}={said(asked[option])}" for option in options_of(rule) if option in asked)])


def _how_to_read(kind: Any) -> tuple[Callable[[str], Any] | None, str] | None:
    """How to read a word as a value of a type, and what to call it."""
    kinds = {float: (_number, "X"), int: (_whole, "N"), bool: (None, "")}
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return reader(str, lambda value: value in choices, f"one of {', '.join(choices)}"), "|".join(choices)
    if isinstance(kind, UnionType) or get_origin(kind) is not None:
        members = [member for member in get_args(kind) if member is not NoneType]
        if len(members) == 1:
            return _how_to_read(members[0])
        if float in members and any(get_origin(member) is Mapping for member in members):
            return by_parameter, "X"
    return kinds.get(kind) if isinstance(kind, type) else None


def _described(rule: type) -> dict[str, str]:
    """What a class and those that it is made of say of their fields, under "Attributes:"."""
    said: dict[str, str] = {}
    for kind in reversed(rule.__mro__):
        block = re.search(r"^Attributes:\n((?: +.*\n?|\n)+)", inspect.cleandoc(kind.__doc__ or ""), flags=re.MULTILINE)
        for entry in re.findall(r"^    (\w.*(?:\n {5,}.*)*)", block.group(1) if block else "", flags=re.MULTILINE):
            names, _, text = " ".join(entry.split()).partition(": ")
            said |= dict.fromkeys(names.split(", "), text)
    return said


def on_bench(rule: type) -> bool:
    """Whether a rule moves a physical system by its five verbs."""
    return issubclass(rule, Mover) and rule.on_bench


def moves_itself(rule: type) -> bool:
    """Whether a rule moves the parameters of a simulated system itself, at a learning rate of its own."""
    return issubclass(rule, Mover) and not rule.on_bench


def settings_of(substrate: Any, rule: type, asked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what a rule is given, what a substrate is trained with): what was asked for, else the substrate's own defaults
    for the kind of rule, else what is usual.

    Raises UsageError for what the rule has no use for, and for what it needs and nobody says.
    """
    said = substrate.training_defaults()
    if not isinstance(said, Mapping):
        raise UsageError(
            f"training_defaults: wanted a dict from {type(substrate).__name__}.training_defaults, got "
            f"{type(said).__name__}; return {{}} where nothing is to be said"
        )
    own = dict(said)
    for_bench = own.pop("bench", {})
    if on_bench(rule):
        given = {"epochs": 10, "batch_size": 1, **for_bench}
        names, meaningless = ("epochs", "batch_size", "epsilon"), ("optimiser", "decay", "weight_decay")
        meaningless += () if _has_own_rate(rule) else ("learning_rate",)
    elif moves_itself(rule):
        usual = {name: rule.usual[name] for name in rule.usual if name == "learning_rate"}
        given, names = {**FALLBACK, **own, **usual}, ("epochs", "batch_size", "learning_rate")
        meaningless = ("optimiser", "decay", "weight_decay", *ON_BENCH)
    else:
        given, names, meaningless = {**FALLBACK, **own}, (*FALLBACK, "weight_decay"), ON_BENCH
    for name in meaningless:
        if asked.get(name) is not None:
            raise UsageError(f"--{name.replace('_', '-')}: the rule {rule.__name__} has no use for it; leave it out")
    options = options_of(rule)
    trained = given | {name: asked[name] for name in names if asked.get(name) is not None}
    trained = {name: trained[name] for name in names if name in trained}
    if on_bench(rule) and trained.get("epsilon") is None:
        raise UsageError(
            "--epsilon: neither the substrate nor you say how far parameters yield; give one, such as 0.001"
        )
    ruled = {"cost": given.get("cost") if asked.get("cost") is None else asked["cost"]}
    for name, option in options.items():
        flag, value = name.replace("_", "-"), asked.get(name)
        if value is not None:
            try:
                value = option.make(value)
            except ValueError as error:
                raise UsageError(f"--{flag}: {error}") from error
        elif name in given and _takes(option, given[name]):
            value = option.make(given[name])
        elif name in rule.usual:
            value = given.get(rule.usual[name]) if isinstance(rule.usual[name], str) else rule.usual[name]
        if value is None and option.required:
            raise UsageError(f"--{flag}: neither the substrate nor you give one, and {rule.__name__} needs it")
        ruled[option.field] = value
    if _has_own_rate(rule):
        rate = rule.usual["learning_rate"] if asked.get("learning_rate") is None else asked["learning_rate"]
        if not isinstance(rate, float):
            raise UsageError(f"--learning-rate: {rule.__name__} turns knobs, which have no names; give one number")
        ruled["learning_rate"] = rate
    if moves_itself(rule):
        ruled["learning_rate"] = trained["learning_rate"]
    return ruled, trained


def _has_own_rate(rule: type) -> bool:
    """Whether a rule on the bench descends by a learning rate of its own."""
    return on_bench(rule) and "learning_rate" in {field.name for field in dataclasses.fields(rule)}


def _takes(option: Option, value: Any) -> bool:
    """Whether an option takes a default of the substrate, which may be meant for another rule's choices."""
    if not isinstance(value, str) or option.read is None:
        return True
    try:
        option.read(value)
    except argparse.ArgumentTypeError:
        return False
    return True


def rule_of(rule: type, ruled: Mapping[str, Any], *, lenient: bool = False, read_back: bool = False) -> Any:
    """A rule as `settings_of` has it; raises UsageError for a value that it refuses."""
    names = {field.name for field in dataclasses.fields(rule)}
    given = dict(ruled)
    if ruled["cost"] is not None and ruled["cost"] not in catalogue.COSTS:
        raise UsageError(f"--cost: wanted one of {', '.join(catalogue.COSTS)}, got {ruled['cost']!r}")
    given["cost"] = None if ruled["cost"] is None else catalogue.COSTS[ruled["cost"]]()
    given["strict"] = False if lenient else None
    if given["cost"] is not None and "cost" not in names and "rule" in names:
        given["rule"] = dataclasses.replace(given["rule"], cost=given.pop("cost"))
    given["homeostat"] = SelfControl() if "homeostat" in names and not read_back else None
    try:
        return rule(**catalogue.accepted(rule, given))
    except ValueError as error:
        named = str(error).partition(":")[0]
        raise UsageError(f"{'--' * (named in ruled)}{error}") from error


def who_has(name: str) -> list[str]:
    """The rules that are known by a name and have an option of this one."""
    found = {known: catalogue.find(catalogue.RULES, known) for known in catalogue.names(catalogue.RULES)}
    return [known for known, rule in found.items() if name in (*options_of(rule), *on_bench(rule) * ON_BENCH)]
