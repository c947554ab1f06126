"""Functions in words: what they are called and the values that they close over, to tell one optimiser from another."""

from __future__ import annotations

import functools
import inspect
import re
from types import CellType
from typing import Any

import equinox as eqx
import jax
import numpy as np

from learning.checkpoint import digest

_KEY = re.compile(r"(?:\[([^\[\]]*)\]|\.(\w+))+: ")
_TOKEN = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[()\[\],]|[^'"()\[\],]+""")


def describe_functions(tree: Any) -> str:
    """A tree of functions, such as an optax transformation, as text that is the same in every process.

    A function is its name, the numbers and texts that stand in its code, and what it closes over and has as defaults,
    each described in the same way; so `adam(0.02)` and `adam(0.01)` differ, and so do two schedules. An array is a
    checksum.
    """
    return _described(tree, ())


def _described(value: Any, within: tuple[int, ...]) -> str:
    if id(value) in within:
        return "itself"
    inner = lambda part: _described(part, (*within, id(value)))
    if isinstance(value, functools.partial):
        return inner((value.func, value.args, value.keywords))
    if inspect.ismethod(value):
        return f"{value.__func__.__qualname__} of {inner(value.__self__)}"
    if hasattr(value, "__wrapped__"):
        return inner(value.__wrapped__)
    if inspect.isfunction(value):
        constants = [part for part in value.__code__.co_consts if isinstance(part, int | float | complex | str)]
        named = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        held = [(name, cell.cell_contents) for name, cell in named if cell != CellType()]
        usual = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).items()]
        constants = [repr(part) for part in constants if part != value.__doc__]
        parts = [*constants, *(f"{name}={inner(content)}" for name, content in held), *map(inner, usual)]
        return f"{value.__qualname__}({', '.join(parts)})"
    if value is None or isinstance(value, bool | int | float | complex | str):
        return repr(value)
    if eqx.is_array(value) or isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        return repr(array.item()) if array.ndim == 0 and array.dtype.kind in "biufc" else digest(array)
    leaves = jax.tree_util.tree_leaves_with_path(value)
    if leaves and leaves[0][1] is not value:
        return "[" + ", ".join(f"{jax.tree_util.keystr(path)}: {inner(leaf)}" for path, leaf in leaves) + "]"
    if hasattr(value, "__qualname__") or inspect.ismodule(value):
        return getattr(value, "__qualname__", "a module")
    held = getattr(value, "__dict__", None)
    return type(value).__qualname__ + (inner(held) if held else "")


def differing_parts(one: str, other: str) -> tuple[str, str]:
    """What stands in one of two texts of `describe_functions` only, each as function(setting=value, ...), to be read.

    Of a function that both have the settings that differ are shown, of any other all that have a name and a value.
    """
    parts = _parts(one), _parts(other)
    shown = _only(*parts), _only(*reversed(parts))
    if not any(shown):
        return "the same parts", "in another order"
    return shown[0] or "nothing in their place", shown[1] or "nothing in their place"


def _only(parts: dict[str, list[str]], others: dict[str, list[str]]) -> str:
    shown = []
    for name, settings in parts.items():
        if name in others:
            differing = [setting for setting in settings if setting not in others[name]]
        else:
            named = [setting for setting in settings if "=" in setting]
            differing = [setting for setting in named if not setting.endswith("=None")] or settings
        if differing:
            shown.append(f"{name}({', '.join(dict.fromkeys(differing))})")
    return ", ".join(shown)


def _parts(text: str) -> dict[str, list[str]]:
    """The settings of each function that a text names, those of the functions inside it put together."""
    parts: dict[str, list[str]] = {}
    within, word = [("", "")], ""
    for token in _TOKEN.findall(_KEY.sub(r"\1\2: ", text)):
        if token not in "()[],":
            word += token
            continue
        name, prefix = within[-1]
        if token == "(":
            within.append((re.split("[ =]", word)[-1].partition(".<locals>")[0], ""))
        elif token == "[":
            within.append((name, word.strip() if word.endswith("=") else ""))
        elif word.strip() not in ("", "None"):
            parts.setdefault(name, []).append(prefix + word.strip())
        if token in ")]":
            within.pop()
        word = ""
    return parts
