"""What a system is besides its numbers, as JSON: classes and functions by name, settings by value, arrays by place.

No pickle, and nothing that is read here runs code or imports a module, but for those of this project, of JAX and of
installed plug-ins.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import sys
from collections.abc import Mapping
from importlib import import_module, metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_FROM_FILE = "_groundstate_"  # how the catalogue names the module of a file
_OWN = ("substrates", "learning", "theory_checks", "jax", "equinox", "optax")


class StructureError(ValueError):
    """A system cannot be written down, or not be built from what is written."""


def name_of(thing: Any) -> str:
    """The name of a class or function, "module:name"."""
    return f"{str(thing.__module__).removeprefix(_FROM_FILE)}:{thing.__qualname__}"


def write_down(tree: Any) -> tuple[Any, list[Any]]:
    """(the structure as JSON, the arrays in the order in which it counts them).

    A tree may hold numbers, text, None, arrays and scalars of JAX and numpy, random keys, tuples, lists, dicts,
    dataclasses such as substrates, named tuples, members of enums, dtypes, and classes, functions and class methods
    that can be found by their names.

    Raises StructureError for anything else, with its place.
    """
    arrays: list[Any] = []
    return _written(tree, type(tree).__name__, False, arrays), arrays


def build(structure: Any, arrays: Mapping[int, np.ndarray]) -> Any:
    """The tree that `write_down` was given. Arrays that a program computes with come in the precision of the process:
    where that is 32 bits, numbers of 64 are rounded.

    Raises StructureError for a class or function that is not there, or has other fields than it had.
    """
    if isinstance(structure, list):
        return [build(each, arrays) for each in structure]
    if not isinstance(structure, dict):
        return structure
    (kind, content), *more = structure.items()
    if kind in ("jax", "numpy", "constant", "scalar", "key"):
        return _as_it_was(kind, arrays[content], more)
    if kind == "tuple":
        return tuple(build(content, arrays))
    if kind == "dict":
        return {build(key, arrays): build(value, arrays) for key, value in content}
    if kind == "complex":
        return complex(*content)
    if kind == "dtype":
        return np.dtype(content)
    found = _find(content)
    if kind == "reference":
        return found
    (detail,) = (value for _, value in more)
    if kind == "method":
        return getattr(found, detail)
    if kind == "member":
        return found[detail]
    return _made(kind, found, {name: build(value, arrays) for name, value in detail.items()})


def _written(node: Any, place: str, static: bool, arrays: list[Any]) -> Any:
    kind = type(node)
    if node is None or kind in (bool, int, float, str):
        return node
    if kind is np.str_:
        return str(node)
    if kind is complex:
        return {"complex": [node.real, node.imag]}
    if isinstance(node, jax.Array | np.ndarray | np.generic):
        return _counted(node, place, static, arrays)
    if kind in (tuple, list):
        parts = [_written(each, f"{place}[{i}]", static, arrays) for i, each in enumerate(node)]
        return {"tuple": parts} if kind is tuple else parts
    if kind is dict:
        pairs = [
            [_written(key, place, True, arrays), _written(value, f"{place}[{key!r}]", static, arrays)]
            for key, value in node.items()
        ]
        return {"dict": pairs}
    if isinstance(node, np.dtype):
        return {"dtype": node.name}
    if isinstance(node, enum.Enum):
        return {"member": _findable(kind, place), "name": node.name}
    if inspect.ismethod(node) and isinstance(node.__self__, type):
        return {"method": _findable(node.__self__, place), "name": node.__name__}
    if callable(node) and getattr(node, "__qualname__", None) and getattr(node, "__module__", None):
        return {"reference": _findable(node, place)}
    names = _field_names(kind)
    if names is None or set(getattr(node, "__dict__", ())) - {*names, *_cached(kind)}:
        raise StructureError(f"{place} is of {name_of(kind)}, which is no dataclass")
    own = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    held = {field.name for field in own if field.metadata.get("static", False)}
    fields = {name: _written(getattr(node, name), f"{place}.{name}", static or name in held, arrays) for name in names}
    return {"named tuple" if isinstance(node, tuple) else "object": _findable(kind, place), "fields": fields}


def _counted(node: Any, place: str, static: bool, arrays: list[Any]) -> dict[str, Any]:
    if isinstance(node, np.ndarray | np.generic) and node.dtype.kind in "OUSMm":
        raise StructureError(f"{place} is an array of {node.dtype}, not of numbers")
    arrays.append(node)
    at = len(arrays) - 1
    if isinstance(node, np.generic):
        return {"scalar": at}
    if isinstance(node, np.ndarray):
        return {"constant" if static else "numpy": at}
    if jnp.issubdtype(node.dtype, jax.dtypes.prng_key):
        return {"key": at, "impl": str(jax.random.key_impl(node))}
    return {"jax": at}


def _as_it_was(kind: str, numbers: np.ndarray, more: list[tuple[str, Any]]) -> Any:
    if kind == "key":
        return jax.random.wrap_key_data(jnp.asarray(numbers), impl=more[0][1])
    if kind == "scalar":
        return numbers[()]
    if kind == "constant":
        return numbers
    numbers = numbers.astype(jax.dtypes.canonicalize_dtype(numbers.dtype))
    return numbers if kind == "numpy" else jnp.asarray(numbers)


def _made(kind: str, found: Any, fields: dict[str, Any]) -> Any:
    """An instance with these fields, without its constructor, which may want other things."""
    names = _field_names(found)
    fields = _gained(found, fields) | fields
    if names is None or set(names) != set(fields):
        raise StructureError(
            f"{name_of(found)} has the fields {', '.join(names or ()) or '(none)'} here, and had {', '.join(fields)}"
        )
    if kind == "named tuple":
        return found(**fields)
    made = object.__new__(found)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def _gained(kind: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of settings that a class has and had not when its fields were written down."""
    own = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    gained = [field for field in own if field.name not in known and field.metadata.get("static", False)]
    return {field.name: field.default for field in gained if field.default is not dataclasses.MISSING}


def _field_names(kind: Any) -> tuple[str, ...] | None:
    if not isinstance(kind, type):
        return None
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return getattr(kind, "_fields", None) if issubclass(kind, tuple) else None


def _cached(kind: type) -> set[str]:
    """What instances remember of what they computed."""
    members = inspect.getmembers_static(kind)
    return {name for name, member in members if isinstance(member, functools.cached_property)}


def _findable(thing: Any, place: str) -> str:
    name = name_of(thing)
    try:
        if not any(found is thing for found in _all(name)):
            raise StructureError(f"{name} is another thing by now")
    except StructureError as error:
        raise StructureError(f"{place}: {error}") from error
    return name


def _find(name: str) -> Any:
    """What a name means here."""
    return _all(name)[0]


def _all(name: str) -> list[Any]:
    """What a name means here, in a module that was imported and in one that the catalogue read from a file."""
    module, _, path = name.partition(":")
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names and top != "__main__":
        raise StructureError(f"{name} is a name of Python itself, which no system needs")
    if module not in sys.modules and top in {*_OWN, *_plug_ins()}:
        try:
            import_module(module)
        except ImportError as error:
            raise StructureError(f"{name} cannot be imported ({error})") from error
    places = [sys.modules[each] for each in (module, _FROM_FILE + module) if each in sys.modules]
    if not places:
        raise StructureError(f"{name}: the module {module} is not imported here; import it first")
    found = [_inside(place, path) for place in places]
    found = [thing for thing in found if getattr(thing, "__qualname__", None) and name_of(thing) == name]
    if not found:
        where = "inside a function" if "<locals>" in path else f"not in {module} here"
        raise StructureError(f"{name} is {where}; a system is built from classes that their modules show by name")
    return found


def _inside(place: Any, path: str) -> Any:
    for part in path.split("."):
        place = getattr(place, part, None)
    return place


def _plug_ins() -> set[str]:
    return {point.module.partition(".")[0] for point in metadata.entry_points(group="groundstate.substrates")}
