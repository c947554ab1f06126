"""Imperfections of a laboratory around a simulated substrate, for rules that go by its contract."""

from __future__ import annotations

import math
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, PyTree, UInt32

from substrates.nudge import Nudge, Pin
from substrates.substrate import Substrate, split_parameters
from substrates.wrapper import Wrapper


class ReadNoise(Wrapper):
    """A substrate whose state variables are read by meters with normal errors: s + size n.

    The substrate itself settles as without it, nudges act on what its outputs are, and it starts from where it is; what
    `read` shows and what `measure` and `contrast` measure goes through the meters. An equilibrium is read once: the
    same state shows the same errors, and any other state, be it of the next phase of the same example, others. No
    derivative goes into the errors.

    Attributes:
        inner: the substrate.
        size: the standard deviation, in the unit of the state; at least 0.

    Raises ValueError for substrates whose states are discrete or distributions, which no meter shows.
    """

    inner: Substrate
    size: float = eqx.field(static=True)

    def __check_init__(self):
        if not 0 <= self.size < math.inf:
            raise ValueError(f"size: wanted a number from 0, got {self.size}")
        if self.inner.discrete or self.inner.distribution:
            raise ValueError(
                f"inner: wanted a substrate with states of real numbers, which meters show, got "
                f"{type(self.inner).__name__}; leave out the read noise"
            )

    def shown(self, state: PyTree) -> PyTree:
        """What the meters show of a state."""
        leaves, structure = jax.tree.flatten(state)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), sum(map(_digest, leaves))), len(leaves))
        errors = [self.size * jax.random.normal(key, s.shape, s.dtype) for key, s in zip(keys, leaves, strict=True)]
        return structure.unflatten([s + jax.lax.stop_gradient(e) for s, e in zip(leaves, errors, strict=True)])

    def read(self, state: PyTree, x: PyTree) -> Inexact[Array, "outputs"]:
        return self.inner.read(self.shown(state), x)

    def measure(self, states: PyTree, xs: PyTree, nudges: Nudge | Pin | None = None) -> Self:
        return self.outside(self.inner.measure(jax.vmap(self.shown)(states), xs, nudges))

    def measure_from(self, free: PyTree, states: PyTree, xs: PyTree, nudges: Nudge | Pin | None = None) -> Self:
        shown = jax.vmap(self.shown)
        return self.outside(self.inner.measure_from(shown(free), shown(states), xs, nudges))

    def contrast(
        self,
        plus: PyTree,
        minus: PyTree,
        xs: PyTree,
        nudges_plus: Nudge | Pin | None = None,
        nudges_minus: Nudge | Pin | None = None,
    ) -> Self:
        shown = jax.vmap(self.shown)
        return self.outside(self.inner.contrast(shown(plus), shown(minus), xs, nudges_plus, nudges_minus))


class QuantisedKnobs(Wrapper):
    """A substrate whose parameters stand on 2^bits levels: `constrained` puts them on the nearest physical ones.

    The levels of an array are k reach / 2^(bits - 1), with k from -2^(bits - 1) to 2^(bits - 1) - 1. A step that is
    shorter than half the distance between two levels changes nothing. Where physics limits parameters (a conductance
    above its floor) they may stand at the limit, between two levels.

    Attributes:
        inner: the substrate.
        bits: of a knob, at least 1.
        reach: of the knobs of each array of parameters, in its unit.
    """

    inner: Substrate
    bits: int = eqx.field(static=True)
    reach: tuple[float, ...] = eqx.field(static=True)

    @classmethod
    def around(cls, inner: Substrate, bits: int) -> Self:
        """Knobs that reach to the power of two that is at least twice the largest parameter of each array; for an array
        of zeros, of all arrays.
        """
        if isinstance(bits, bool) or not isinstance(bits, int) or bits < 1:
            raise ValueError(f"bits: wanted a positive whole number, got {bits!r}")
        largest = [float(jnp.max(jnp.abs(leaf), initial=0.0)) for leaf in jax.tree.leaves(split_parameters(inner)[0])]
        return cls(inner, bits, tuple(2.0 ** math.ceil(math.log2(2 * (x or max(largest) or 1.0))) for x in largest))

    def constrained(self) -> Self:
        parameters, rest = split_parameters(self.inner.constrained())
        leaves, structure = jax.tree.flatten(parameters)
        most = 2 ** (self.bits - 1)
        nearest = lambda leaf, reach: jnp.clip(jnp.round(leaf * (most / reach)), -most, most - 1) * (reach / most)
        standing = structure.unflatten([nearest(*pair) for pair in zip(leaves, self.reach, strict=True)])
        return self.outside(eqx.combine(standing, rest).constrained())


def _digest(leaf: Any) -> UInt32[Array, ""]:
    """A number that depends on every bit of an array."""
    parts = [jnp.real(leaf), jnp.imag(leaf)] if jnp.iscomplexobj(leaf) else [leaf]
    words = jnp.concatenate([jax.lax.bitcast_convert_type(part, jnp.uint32).ravel() for part in parts])
    return jnp.sum(words * (2 * jnp.arange(words.size, dtype=jnp.uint32) + 1), dtype=jnp.uint32)
