"""Substrates around other substrates: what a wrapper does not say itself, the one inside does."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, ClassVar

import jax
from jaxtyping import Array, Inexact, PyTree

from substrates.substrate import Substrate


def in_contract(name: str) -> bool:
    """Whether a name is a public one of the contract, `Substrate`."""
    return not name.startswith("_") and name in vars(Substrate)


def overrides(substrate: Substrate, name: str) -> bool:
    """Whether a substrate says itself what the contract derives; what a wrapper forwards, its inner one says."""
    return not substrate.derives(name)


def replaced(tree: PyTree, kind: Any, make: Any) -> PyTree:
    """A tree with make(node) in place of every node of a class."""
    chosen = lambda node: isinstance(node, kind)
    return jax.tree.map(lambda node: make(node) if chosen(node) else node, tree, is_leaf=chosen)


class Wrapper(Substrate):
    """A substrate around another one, `inner`: of the contract it says itself what its class defines; the rest, with
    whatever the contract gains, is asked of the inner substrate.

    What goes inside passes through `inside`, what comes back through `outside`.

    Attributes:
        inner: the substrate inside.
    """

    forwards: ClassVar[bool] = True

    inner: Substrate

    def inside(self, given: PyTree) -> PyTree:
        """What the inner substrate is given where the wrapper is given a tree; `NotImplemented` where nothing that it
        knows means the same, so that the wrapper does what the contract derives.
        """
        return replaced(given, type(self), lambda wrapper: wrapper.inner)

    def outside(self, found: PyTree) -> PyTree:
        """What the wrapper returns where the inner substrate returned a tree."""
        return replaced(found, type(self.inner), lambda inner: dataclasses.replace(self, inner=inner))

    def derives(self, *names: str) -> bool:
        return Substrate.derives(self, *names) and self.inner.derives(*names)

    def initial_state(self, x: PyTree) -> PyTree:
        return self.inner.initial_state(x)

    def read(self, state: PyTree, x: PyTree) -> Inexact[Array, "outputs"]:
        return self.inner.read(state, x)

    def __getattribute__(self, name: str) -> Any:
        get = lambda name: Substrate.__getattribute__(self, name)
        if not in_contract(name) or any(name in vars(kind) for kind in _below(type(self))):
            return get(name)
        asked = getattr(get("inner"), name)
        if not inspect.isroutine(getattr(Substrate, name)):
            return asked

        def forwarded(*arguments: Any, **named: Any) -> Any:
            given = self.inside((arguments, named))
            if given is NotImplemented:
                return get(name)(*arguments, **named)
            return self.outside(asked(*given[0], **given[1]))

        return forwarded


def _below(kind: type) -> tuple[type, ...]:
    """The class and its ancestors down to `Wrapper`, and this."""
    order = kind.__mro__
    return order[: order.index(Wrapper) + 1]
