"""What the command finds by name: substrates, rules, costs and optimisers."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import PRNGKeyArray

from learning.costs import CrossEntropy, SquaredError
from learning.rule import Estimator, Mover
from substrates.substrate import Substrate, match_paths, split_parameters

SUBSTRATES, RULES, COMMANDS = "groundstate.substrates", "groundstate.rules", "groundstate.commands"

_KINDS: dict[str, tuple[type, ...]] = {SUBSTRATES: (Substrate,), RULES: (Estimator, Mover)}

COSTS = {"squared-error": SquaredError, "cross-entropy": CrossEntropy}

OPTIMISERS = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "adam": optax.adam,
    "rmsprop": optax.rmsprop,
}
"""From names to functions of the learning rate; the momentum is 0.9."""

_FROM_FILE = "_groundstate_"
"""What the names of modules begin with that are files of a user's own."""


class CatalogueError(ValueError):
    """A name or a file leads to nothing."""


def names(group: str) -> dict[str, str]:
    """The names of an entry-point group, and what each leads to."""
    return {point.name: point.value for point in sorted(entry_points(group=group), key=lambda point: point.name)}


def file_of(name: str) -> Path | None:
    """The file of `path/to/file.py:ClassName`, None for a name of an entry-point group."""
    path, colon, _ = name.rpartition(":")
    return Path(path) if colon and path.endswith(".py") else None


def place_of(error: BaseException) -> str:
    """Where in a file of a user's own an error arose, in words that a message can begin with; "" where in none."""
    own = [
        f"{frame.f_code.co_filename}, line {line}, in {frame.f_code.co_name}: "
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).startswith(_FROM_FILE)
    ]
    return own[-1] if own else ""


def text_of(file: Path) -> str:
    """A checksum of a file and of those beside it that it imported."""
    here, folder = file.resolve(), file.resolve().parent
    loaded = [Path(found) for module in [*sys.modules.values()] if (found := getattr(module, "__file__", None))]
    beside = sorted({path for path in loaded if path.parent == folder and path != here})
    return hashlib.sha256(b"".join(path.read_bytes() for path in [here, *beside])).hexdigest()[:16]


def find(group: str, name: str, kind: type = type) -> Any:
    """The class that a name of an entry-point group, or `path/to/file.py:ClassName`, leads to.

    Args:
        group: of entry points.
        name: in the group, or of a file and what it defines.
        kind: of what a file may define under that name, `object` for anything.

    Raises CatalogueError if there is none, if its module cannot be imported, or if it is no class of the group's kind.
    """
    what, wanted = group.rpartition(".")[2].removesuffix("s"), _KINDS.get(group, (object,))
    file = file_of(name)
    if file is not None:
        found = _from_file(what, file, name.rpartition(":")[2], kind)
        if kind is type and not issubclass(found, wanted):
            known = " or ".join(each.__name__ for each in wanted)
            raise CatalogueError(f"{what}: wanted a class derived from {known}, got {name}, which is not")
        return found
    found = list(entry_points(group=group, name=name))
    if not found:
        known = names(group)
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise CatalogueError(
            f"{what}: wanted one of {', '.join(known) or '(none is installed)'}, or path/to/file.py:ClassName, got "
            f"{name!r}; {hint}see groundstate list"
        )
    try:
        return found[0].load()
    except (ImportError, AttributeError) as error:
        raise CatalogueError(f"{what} {name}: {found[0].value} cannot be imported ({error})") from error


def build(
    kind: type[Substrate], n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None, key: PRNGKeyArray
) -> Substrate:
    """What `for_task` of a class builds; the arguments are those of `for_task`.

    Raises CatalogueError for one that is no class method, or that builds no substrate.
    """
    if not inspect.ismethod(kind.for_task):
        raise CatalogueError(f"for_task: wanted a class method of {kind.__name__}; write @classmethod above it")
    found = kind.for_task(n_inputs, n_outputs, sizes=sizes, key=key)
    if not isinstance(found, Substrate):
        raise CatalogueError(
            f"for_task: wanted a Substrate from {kind.__name__}.for_task, got {type(found).__name__}; return what it "
            "builds"
        )
    return found


def optimiser(
    name: str,
    learning_rate: float | Mapping[str, float],
    decay: float,
    batches: int,
    substrate: Any,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """An optimiser with a learning rate per parameter that falls by a factor every epoch.

    Args:
        name: one of `OPTIMISERS`.
        learning_rate: one number, or numbers by the paths of parameters ("conductance", "conductance[0]"); the
            longest path that leads to a parameter counts.
        decay: the factor per epoch.
        batches: steps per epoch.
        substrate: whose parameters they are.
        weight_decay: so many times each parameter is added to its gradient.

    Raises CatalogueError for an unknown name, a path that leads to no parameter, and a parameter without a learning
    rate.
    """
    if name not in OPTIMISERS:
        raise CatalogueError(f"optimiser: wanted one of {', '.join(OPTIMISERS)}, got {name!r}")

    def build(rate: float) -> optax.GradientTransformation:
        schedule = rate if decay == 1 else optax.exponential_decay(rate, batches, decay, staircase=True)
        step = OPTIMISERS[name](schedule)
        return optax.chain(optax.add_decayed_weights(weight_decay), step) if weight_decay else step

    if not isinstance(learning_rate, Mapping):
        return build(learning_rate)
    parameters = split_parameters(substrate)[0]
    try:
        tree = match_paths(learning_rate, parameters)
    except ValueError as error:
        raise CatalogueError(f"learning rate: {error}") from error
    used = set(jax.tree.leaves(tree))
    return optax.multi_transform(
        {path: build(rate) for path, rate in learning_rate.items() if path in used}, lambda _: tree
    )


def accepted(rule: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given (not None), all of which the rule's class must have.

    Raises CatalogueError for one that it would ignore.
    """
    known = getattr(rule, "__dataclass_fields__", {}) if issubclass(rule, eqx.Module) else {}
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in known:
            raise CatalogueError(f"{name}: {rule.__name__} has none; leave the option out")
    return given


def _from_file(what: str, path: Path, attribute: str, kind: type) -> Any:
    if not path.is_file():
        raise CatalogueError(f"{what}: there is no file {path}")
    name, folder = f"{_FROM_FILE}{path.stem}", str(path.resolve().parent)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if folder not in sys.path:  # last, so that what lies beside the file hides no package
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CatalogueError(
            f"{what}: {path} cannot be imported ({place_of(error)}{type(error).__name__}: {error})"
        ) from error
    if not isinstance(getattr(module, attribute, None), kind) or not hasattr(module, attribute):
        raise CatalogueError(f"{what}: {path} defines no {'class ' if kind is type else ''}{attribute}")
    return getattr(module, attribute)
