"""Substrates and physical systems in a sealed box: what a rule may do to them, and nothing else."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, PRNGKeyArray, PyTree

from substrates.laboratory.system import PhysicalSystem
from substrates.substrate import Equilibrium, Nudge, Pin, Solver, Substrate
from substrates.wrapper import in_contract, replaced


class SealError(RuntimeError):
    """A rule looked inside a sealed substrate."""


class SealedState(eqx.Module):
    """A state that can be handed back to its substrate, copied and batched, but neither read nor computed with.

    Its numbers are kept as bit patterns, so that arithmetic on its leaves means nothing and has no derivative.
    """

    _bits: PyTree
    _kinds: Any = eqx.field(static=True)

    def __getattr__(self, name: str) -> NoReturn:
        raise _broken(f"state.{name}") if not name.startswith("__") else AttributeError(name)

    def _refuse(self, *_: Any) -> NoReturn:
        raise _broken("arithmetic on a state")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __getitem__ = __iter__ = _refuse


OPEN = (
    "constrained",
    "covariance",
    "discrete",
    "distribution",
    "holomorphic",
    "input_size",
    "nearest_physical",
    "pins",
    "relax_jointly",
    "training_defaults",
    "training_precision",
    "why_not_holomorphic",
    "x_shape",
)
"""What a rule may use besides start, relax, read, measure and contrast: how parameters stay physical, how they settle
with the states, how observables fluctuate, what the system can do, and how it is best trained."""


class SealedSubstrate(Substrate):
    """Any substrate, sealed: start, relax, read, measure, contrast and what is `OPEN` work; the rest of the contract,
    with whatever it gains, raises `SealError`.

    Equilibria keep their residual, steps and status; their energy is None and their states are opaque. A rule that
    trains it uses nothing that a physical system could not offer. It is a pytree like any substrate, so optimisers
    move its parameters.

    Attributes:
        _contents: the substrate in the box.
    """

    forwards: ClassVar[bool] = True

    _contents: Substrate

    def relax(
        self,
        x: PyTree,
        nudge: Nudge | Pin | None = None,
        start: PyTree | None = None,
        *,
        key: PRNGKeyArray | None = None,
        solver: Solver | None = None,
    ) -> Equilibrium:
        start = None if start is None else _open(start)
        return _closed(self._contents.relax(x, nudge, start, key=key, solver=solver))

    def start(self, x: PyTree, key: PRNGKeyArray | None = None) -> PyTree:
        return _seal(self._contents.start(x, key))

    def read(self, state: PyTree, x: PyTree) -> Inexact[Array, "outputs"]:
        return self._contents.read(_open(state), x)

    def measure(self, states, xs, nudges=None):
        return SealedSubstrate(self._contents.measure(_open(states), xs, nudges))

    def measure_from(self, free, states, xs, nudges=None):
        return SealedSubstrate(self._contents.measure_from(_open(free), _open(states), xs, nudges))

    def contrast(self, plus, minus, xs, nudges_plus=None, nudges_minus=None):
        return SealedSubstrate(self._contents.contrast(_open(plus), _open(minus), xs, nudges_plus, nudges_minus))

    def __getattribute__(self, name: str) -> Any:
        if not in_contract(name) or name in vars(SealedSubstrate):
            return Substrate.__getattribute__(self, name)
        if name not in OPEN:
            raise _broken(name)
        contents = self._contents
        asked = getattr(contents, name)
        if not inspect.isroutine(getattr(Substrate, name)):
            return asked

        def forwarded(*arguments: Any, **named: Any) -> Any:
            given = replaced((arguments, named), SealedSubstrate, lambda box: box._contents)
            given = replaced(given, SealedState, _open)
            found = replaced(asked(*given[0], **given[1]), type(contents), SealedSubstrate)
            return replaced(found, Equilibrium, _closed)

        return forwarded

    def initial_state(self, x: PyTree) -> NoReturn:
        raise _broken("initial_state")


class SealedSystem:
    """Any physical system, sealed: the five verbs and the spec work, the rest raises `SealError`."""

    def __init__(self, system: PhysicalSystem):
        verbs = (system.set_knobs, system.clamp, system.nudge, system.settle, system.read)
        self.set_knobs, self.clamp, self.nudge, self.settle, self.read = verbs
        self.spec = system.spec

    def __getattr__(self, name: str) -> NoReturn:
        raise AbsentError(
            f"the rule used {name}, which a physical system does not have: it has knobs, clamps, nudges, time to "
            "settle and meters"
        )


class AbsentError(SealError, AttributeError):
    """What a sealed system lacks; an AttributeError, so that looking for a capability finds none."""


def _broken(what: str) -> SealError:
    return SealError(
        f"the rule used {what}, which no experiment on a physical system gives: a rule may relax, read, measure and "
        "contrast, and may not look inside a state"
    )


def _closed(found: Equilibrium) -> Equilibrium:
    return Equilibrium(_seal(found.state), None, found.residual, found.steps, found.status)


def _seal(state: PyTree) -> SealedState:
    leaves, structure = jax.tree.flatten(state)
    kinds = structure, tuple(jnp.dtype(leaf.dtype).name for leaf in leaves)
    return SealedState([_to_bits(leaf) for leaf in leaves], kinds)


def _open(sealed: Any) -> PyTree:
    if not isinstance(sealed, SealedState):
        raise SealError(f"wanted a state that this substrate's relax returned, got {type(sealed).__name__}")
    structure, kinds = sealed._kinds
    return structure.unflatten([_from_bits(bits, kind) for bits, kind in zip(sealed._bits, kinds, strict=True)])


def _to_bits(leaf: Array) -> PyTree:
    if jnp.iscomplexobj(leaf):
        return _to_bits(leaf.real), _to_bits(leaf.imag)
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * leaf.dtype.itemsize}"))


def _from_bits(bits: PyTree, kind: str) -> Array:
    dtype = jnp.dtype(kind)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        part = jnp.finfo(dtype).dtype.name
        return jax.lax.complex(_from_bits(bits[0], part), _from_bits(bits[1], part))
    return jax.lax.bitcast_convert_type(bits, dtype) if jnp.issubdtype(dtype, jnp.floating) else bits
