"""What users give to the methods of a substrate, made ready before anything is computed: inputs, states and keys; and
what the methods that a plug-in writes return, looked at before it is used.

Every public method of a substrate passes here, those of plug-ins too: `admit_words` goes over a class when it is made.
What compiled code traces costs nothing: only its shape is looked at.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from substrates import arguments, explained
from substrates.nudge import Nudge, Pin, fit_target, takes_own_targets
from substrates.parameters import as_complex, parameter_dtype
from substrates.solvers.solver import Equilibrium

OF_ONE_EXAMPLE = (
    "energy",
    "total_energy",
    "force",
    "total_force",
    "read",
    "relax",
    "residual",
    "stationarity",
    "initial_state",
    "start",
    "draw",
)
"""Methods of one example: their input has no leading axis, and their state has the shape of that of a start."""

SEQUENCES = ("edges", "inputs", "outputs")
"""What constructors are told one by one, in an order."""

CONTINUED = ("read", "measure", "contrast")
"""Methods that take states at complex nudges, where system, inputs and targets are continued analytically too."""

STATES = ("state", "start", "states", "starts", "plus", "minus")

WRITTEN = ("energy", "force", "initial_state", "read")
"""Methods that a plug-in writes, whose results are looked at."""


class Entered(Protocol):
    """What is asked of a substrate here."""

    @property
    def x_shape(self) -> tuple[int, ...] | None: ...
    @property
    def initial_state(self) -> Callable[..., PyTree]: ...
    @property
    def check_input(self) -> Callable[..., None]: ...


def admit_words(kind: type) -> None:
    """Lets the public methods that a class defines take what users have at hand.

    Inputs may be lists and whole numbers, None where there is nothing to clamp; states may be an `Equilibrium`, whose
    state is meant. What fits no input, no state or no key of the system is refused by name, and so is what `WRITTEN`
    methods return where it is no energy, force, state or reading. A class that `forwards` what it is given leaves that
    to the system inside.
    """
    if getattr(kind, "forwards", False):
        return
    for name, found in list(vars(kind).items()):
        bare = found.__func__ if isinstance(found, classmethod | staticmethod) else found
        if name.startswith("_") or not inspect.isfunction(bare) or getattr(bare, "enters", False):
            continue
        asked = inspect.signature(bare).parameters
        if name in WRITTEN or any(word in asked for word in ("key", "x", "xs", "graph", *SEQUENCES, *STATES)):
            entered = _entered(name, bare, asked, method=found is bare)
            setattr(kind, name, entered if found is bare else type(found)(entered))


def check_batch(substrate: Entered, xs: PyTree, name: str) -> None:
    """Raises ValueError for inputs without a leading axis of examples, and for examples of another shape."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(xs)]
    wanted, got = substrate.x_shape, " and ".join(map(str, shapes)) or "no array"
    if wanted is None:
        if not shapes or () in shapes:
            raise ValueError(
                f"{name}: wanted arrays with a leading axis of examples, got {got}; add one, x[None]; see "
                f"{explained.SHAPES}"
            )
        return
    accepted = arguments.flat_too(wanted)
    if len(shapes) == 1 and shapes[0] and shapes[0][1:] in accepted:
        return
    hint = ": add a leading axis, x[None]" if shapes and shapes[0] in accepted else ""
    if wanted == (1,) and shapes and len(shapes[0]) == 1:
        hint = ": add an axis of inputs, x[:, None], or of examples, x[None]"
    each = ", ".join(map(str, wanted))
    raise ValueError(
        f"{name}: wanted shape (n, {each}), one row for each example, got {got}{hint}; see {explained.SHAPES}"
    )


def refuse_shape(name: str, wanted: tuple[int, ...], x: PyTree) -> NoReturn:
    """Raises ValueError for an input of another shape than the system takes."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(x)]
    batch = "; relax_batch or jax.vmap take batches" if shapes and shapes[0][1:] in arguments.flat_too(wanted) else ""
    flat = ", flat or not" if len(wanted) > 1 else ", one number per input"
    got = " and ".join(map(str, shapes)) or None
    raise ValueError(f"{name}: wanted shape {wanted}{flat}, got {got}{batch}; see {explained.SHAPES}")


def ready_inputs(substrate: Entered, xs: PyTree, name: str) -> PyTree:
    """Inputs with a leading axis of examples, lists among them as arrays; raises ValueError for what is none."""
    xs = _numbers(substrate, name, xs)
    check_batch(substrate, xs, name)
    return xs


def ready_nudge(system: Any, x: PyTree, nudge: Any) -> Any:
    """A nudge or a pin of numbers in the shape of the outputs; of costs with `own_targets`, and of targets that are
    tuples, the target is left as it is. Raises ValueError for others, TypeError for what is no nudge.
    """
    if not isinstance(nudge, Nudge | Pin):
        raise TypeError(
            f"nudge: wanted a Nudge, a Pin or None, got {type(nudge).__name__}; give Nudge(cost, target, beta)"
        )
    leaves = jax.tree.leaves((system, x, nudge))
    known = not any(isinstance(leaf, Tracer) for leaf in leaves)
    cost = getattr(nudge, "cost", None)
    if not known and isinstance(nudge, Nudge):
        return nudge  # solvers compare shapes once more
    shown = _shapes(system, x)[1]
    own = takes_own_targets(cost) or isinstance(nudge.target, tuple)
    target = nudge.target if own else arguments.numbers("target", nudge.target, shown.dtype)
    target = target if own else fit_target(target, shown, cost)
    if isinstance(nudge, Pin):
        return Pin(target)
    beta = arguments.numbers("beta", nudge.beta, shown.dtype)
    if not isinstance(beta, Tracer) and np.any(np.isinf(np.asarray(beta))):
        raise ValueError("beta: wanted a finite strength of the nudge, got inf; Pin(target) holds outputs at a target")
    if beta.shape:
        raise ValueError(f"beta: wanted one number, the strength of the nudge, got shape {beta.shape}")
    about = nudge.about
    if about is not None:
        about = fit_target(arguments.numbers("about", about, shown.dtype), shown, name="about")
    return Nudge(nudge.cost, target, beta, about)


def _entered(name: str, bare: Callable[..., Any], asked: Any, method: bool) -> Callable[..., Any]:
    by_place = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    words = tuple(word for word, parameter in asked.items() if parameter.kind in by_place)
    of_one = name in OF_ONE_EXAMPLE
    # names in a netlist are looked at by its reader
    listed = [word for word in SEQUENCES if word in asked and not method and "text" not in asked]
    # where something comes before the state it is a part of one, on the way to a whole
    stated = [word for word in ("state", "start") if word in asked and (of_one or words[1:2] == (word,))]
    optional = {word for word, parameter in asked.items() if parameter.default is None}

    @functools.wraps(bare)
    def entered(*given: Any, **named: Any) -> Any:
        if len(given) > len(words) or any(word in named for word in words[: len(given)]):
            return bare(*given, **named)  # which Python itself refuses
        found = dict(zip(words, given, strict=False)) | named
        may_miss = lambda word: word not in found or (found[word] is None and word in optional)
        if "key" in asked and not may_miss("key"):
            arguments.check_key("key", found["key"])
        for word in listed:
            if not may_miss(word):
                found[word] = arguments.listed(word, found[word])
        if "graph" in asked and not method:
            arguments.check_graph(found.get("graph"))
        if method:
            system = found[words[0]]
            for word in STATES:
                if word in asked and isinstance(found.get(word), Equilibrium):
                    found[word] = found[word].state
            drawn = name == "draw" and found.get("state") is not None
            if drawn and found.get("x") is None and system.x_shape != (0,):
                raise ValueError("x: wanted the input that belongs to the state, got None")
            if "x" in asked and (drawn or not may_miss("x")):
                found["x"] = _input(system, found.get("x"), of_one)
            if "xs" in asked and not may_miss("xs"):
                found["xs"] = ready_inputs(system, found["xs"], "xs")
            for word in ("states", "starts", "plus", "minus") if "xs" in asked else ():
                if word in asked and not may_miss(word):
                    found[word] = _states(system, word, found[word], found["xs"])
            for word in stated:
                if not may_miss(word):
                    found[word] = _state(system, word, found[word], found.get("x"), of_one)
            if name in CONTINUED and any(map(jnp.iscomplexobj, jax.tree.leaves([found.get(w) for w in STATES]))):
                found |= {word: as_complex(value) for word, value in found.items() if word not in STATES}
        whole = dict(found)
        placed = [found.pop(word) for word in words[: len(given)]]
        if not method or name not in WRITTEN:
            return bare(*placed, **found)
        system, asked_at, *_ = (*map(whole.get, words), None)
        try:
            returned = bare(*placed, **found)
        except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
            mine = f"{type(system).__name__}.{name}"
            raise TypeError(
                f"{name}: wanted a function that JAX can trace, got {mine}, which asks for a number before there is "
                "one; write jnp in place of np, jnp.where in place of if, and no float() or int(); see "
                f"{explained.METHODS}"
            ) from error
        _refuse_returned(system, name, returned, asked_at)
        return returned

    entered.enters = True  # type: ignore[attr-defined]
    return entered


def _refuse_returned(system: Any, name: str, returned: PyTree, state: PyTree) -> None:
    """Raises ValueError for what a method of `WRITTEN` must not return: it looks at shapes and dtypes alone.

    Args:
        system: whose method it is.
        name: of the method.
        returned: what it returned.
        state: what it was asked at, which a force is like.
    """
    leaves, structure = jax.tree.flatten(returned)
    shapes = [jnp.shape(leaf) if eqx.is_array_like(leaf) else None for leaf in leaves]
    floats = None not in shapes and all(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves)
    alone, advice = structure == jax.tree.structure(0), "give an array of floats, as jnp.asarray(value, float)"
    if name == "energy":
        wanted, fits = "one number, of shape ()", shapes == [()] and alone
        advice = advice if not floats else "add up the energies of all parts, as jnp.sum does"
    elif name == "read":
        wanted, fits = "an array of shape (outputs,)", shapes != [()] and alone
        advice = advice if shapes != [()] else "a single output has shape (1,), as of jnp.atleast_1d(value)"
    elif name == "force":
        like = [jnp.shape(leaf) for leaf in jax.tree.leaves(state)]
        wanted = f"floats of shape {' and '.join(map(str, like))}, like the state,"
        fits = structure == jax.tree.structure(state) and shapes == like
        advice = advice if not floats else "give a force for each variable, in the containers of the state"
    else:
        wanted, fits = "an array of floats, or a tree of them,", bool(leaves) and all(map(_is_array, leaves))
        floats = floats or system.discrete
    if fits and floats:
        return
    got = " and ".join(map(_said, leaves[:5])) or repr(returned)
    raise ValueError(
        f"{name}: wanted {wanted} from {type(system).__name__}.{name}, got "
        f"{'' if alone or not leaves else f'a {type(returned).__name__} of '}{got}; "
        f"{'does it return anything?' if returned is None else advice}; see {explained.METHODS}"
    )


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic)


def _said(leaf: Any) -> str:
    return f"{jnp.result_type(leaf)} of shape {jnp.shape(leaf)}" if _is_array(leaf) else repr(leaf)


def _input(system: Entered, x: PyTree, of_one: bool) -> PyTree:
    wanted = system.x_shape
    if x is None and wanted == (0,):
        return jnp.zeros(wanted, parameter_dtype(system))
    x = _numbers(system, "x", x)
    if of_one:
        system.check_input(x)
    elif wanted is not None and not any(jnp.shape(x)[-len(shape) :] == shape for shape in arguments.flat_too(wanted)):
        refuse_shape("x", wanted, x)
    return x


def _numbers(system: Entered, name: str, x: PyTree) -> PyTree:
    """The input as an array where it is one by its kind; a tree of the user's own passes as it is."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.inexact):
        return x
    listed = isinstance(x, list) and all(isinstance(leaf, int | float | complex) for leaf in jax.tree.leaves(x))
    return arguments.numbers(name, x, parameter_dtype(system)) if listed or system.x_shape is not None else x


def _states(system: Entered, name: str, states: PyTree, xs: PyTree) -> PyTree:
    """A batch of states, looked at like one."""
    arrays = jax.tree.leaves((system, states, xs))
    if system.x_shape is None or any(isinstance(leaf, Tracer) for leaf in arrays):
        return states
    states = _state(system, name, states, None, False)
    count, start = jnp.shape(xs)[0], jax.tree.leaves(_start_of(system, None))
    wanted = [(count, *leaf.shape) for leaf in start]
    got = [leaf.shape for leaf in jax.tree.leaves(states)]
    if got != wanted:
        said = lambda shapes: " and ".join(map(str, shapes))
        raise ValueError(f"{name}: wanted shape {said(wanted)}, a state for each example, got {said(got)}")
    return states


def _start_of(system: Entered, x: PyTree) -> PyTree:
    """The shapes and dtypes of where relaxation starts."""
    x = x if system.x_shape is None else jax.ShapeDtypeStruct(system.x_shape, parameter_dtype(system))
    return _shapes(system, x)[0]


def _shapes(system: Entered, x: PyTree) -> tuple[PyTree, Any]:
    """Shapes and dtypes of where relaxation starts and of what is read there, looked up where systems are alike."""
    return _shapes_of(_Alike((system, x)))


class _Alike:
    """A tree without its numbers, equal to others of the same structure, shapes and dtypes."""

    def __init__(self, tree: PyTree):
        leaves, structure = jax.tree.flatten(tree)
        arrays = jax.Array | np.ndarray
        leaves = [jax.ShapeDtypeStruct(v.shape, v.dtype) if isinstance(v, arrays) else v for v in leaves]
        self.tree, self.signature = jax.tree.unflatten(structure, leaves), (structure, tuple(leaves))

    def __hash__(self) -> int:
        return hash(self.signature)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Alike) and self.signature == other.signature


@functools.lru_cache(maxsize=128)
def _shapes_of(given: _Alike) -> tuple[PyTree, Any]:
    def look(system, x):
        start = system.initial_state(x)
        return start, system.read(start, x)

    return eqx.filter_eval_shape(look, *given.tree)


def _state(system: Entered, name: str, state: PyTree, x: PyTree, of_one: bool) -> PyTree:
    """The state as arrays of the shapes that the system has, with leading axes unless it is `of_one` example; what is
    traced was looked at before.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((system, state, x))):
        return state
    start = _start_of(system, x)
    wanted = [leaf.shape for leaf in jax.tree.leaves(start)]
    if isinstance(start, jax.ShapeDtypeStruct):
        state = arguments.numbers(name, state, start.dtype)
    leaves = jax.tree.leaves(state)
    got = [np.shape(leaf) for leaf in leaves]
    ends = [shape if of_one else shape[len(shape) - len(w) :] for shape, w in zip(got, wanted, strict=False)]
    if ends != wanted or len(got) != len(wanted):
        batch = ": jax.vmap takes batches" if [shape[1:] for shape in got] == wanted else ""
        said = lambda shapes: " and ".join(map(str, shapes)) or "none"
        raise ValueError(f"{name}: wanted shape {said(wanted)}, a state of this system, got {said(got)}{batch}")
    ready = [
        arguments.numbers(name, leaf, like.dtype) for leaf, like in zip(leaves, jax.tree.leaves(start), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(start), ready)
