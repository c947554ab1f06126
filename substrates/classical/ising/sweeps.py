"""Sweeps over the spins of many replicas at once, and their random numbers: what annealing, tempering and thermal
sampling have in common.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt32

from substrates.arguments import check_count
from substrates.wiring import with_leading_axes

Accept = Callable[[Float[Array, "..."], Float[Array, "..."], Any, Float[Array, "..."]], Bool[Array, "..."]]
"""Whether spins flip, given what the energy gains by each flip, the spins, the number of the first of them, and the
sum of the sizes of what meets at each."""

ROUNDING = 4
"""So many rounding errors of what meets at a spin are no energy that its flip releases."""

DRAW = 2**31 - 1
"""Numbers the words of drawn starts; sweeps are numbered from 0."""

_WEYL = np.uint32(0x9E3779B9)
_FIRST, _SECOND = np.uint32(0x21F0AAAD), np.uint32(0x735A2D97)


class Sweeps(abc.ABC):
    """Sweeps over the free spins of one model under one input and one nudge, with a replica axis on every array.

    Spins that do not feel each other are updated together, so that each sweep obeys detailed balance spin by spin.

    Attributes:
        replica_axis: which axis of the arrays counts the replicas.
        scale: the root mean square of the local field where neighbours point at random; what temperatures are
            measured against.
        dtype: of the spins.
    """

    replica_axis: int
    scale: Float[Array, ""]
    dtype: Any

    @property
    def unit(self) -> Float[Array, ""]:
        """The unit of temperatures: the scale, or 1 where nothing acts on any spin."""
        return jnp.where(self.scale > 0, self.scale, 1.0)

    @abc.abstractmethod
    def load(self, states: PyTree, words: UInt32[Array, "2"]) -> PyTree:
        """The spins of states with a leading replica axis; where they are undecided (0) each replica draws its own."""

    def replicate(self, state: PyTree, replicas: int, words: UInt32[Array, "2"]) -> PyTree:
        """The spins of replicas of one state; where it is undecided (0) each draws its own."""
        return self.load(jax.tree.map(lambda s: jnp.broadcast_to(s, (replicas, *s.shape)), state), words)

    @abc.abstractmethod
    def sweep(self, spins: PyTree, accept: Accept) -> PyTree:
        """Every free spin of every replica asked once whether it flips."""

    @abc.abstractmethod
    def energies(self, spins: PyTree) -> Float[Array, "replicas"]:
        """The total energy of each replica, up to a constant."""

    @abc.abstractmethod
    def states(self, spins: PyTree) -> PyTree:
        """The states of all replicas, with a leading replica axis."""

    def along_replicas(self, values: Float[Array, "replicas"]) -> Float[Array, "..."]:
        """One number per replica, shaped to act on the arrays of spins."""
        return values[:, None] if self.replica_axis == 0 else values

    def metropolis(
        self, spins: PyTree, inverse_temperature: Float[Array, "replicas"], words: UInt32[Array, "2"]
    ) -> PyTree:
        """A sweep in which a spin flips with probability min(1, exp(-gain/T))."""
        cold = self.along_replicas(inverse_temperature)

        def accept(gain, s, first, _):
            lost = gain * with_leading_axes(cold, gain.ndim)
            return counted_uniform(words, first, gain.shape, self.dtype) < jnp.exp(jnp.minimum(-lost, 0))

        return self.sweep(spins, accept)

    def heat_bath(
        self, spins: PyTree, inverse_temperature: Float[Array, "replicas"], words: UInt32[Array, "2"]
    ) -> PyTree:
        """A sweep in which a spin points up with probability 1/(1 + exp(-2 field/T)), wherever it pointed before.

        Two runs with the same numbers, under slightly different fields, soon move together: common random numbers.
        """
        cold = self.along_replicas(inverse_temperature)

        def accept(gain, s, first, _):
            up = jax.nn.sigmoid(s * gain * with_leading_axes(cold, gain.ndim))
            return jnp.where(counted_uniform(words, first, gain.shape, self.dtype) < up, 1.0, -1.0) != s

        return self.sweep(spins, accept)

    def descend(self, spins: PyTree, most: int) -> tuple[PyTree, Int[Array, ""]]:
        """Sweeps in which every spin flips that releases energy, more than rounding of what meets at it, until none
        does; (spins, sweeps).
        """
        rounding = ROUNDING * float(jnp.finfo(self.dtype).eps)
        downhill = lambda gain, s, first, meeting: gain < -rounding * with_leading_axes(meeting, gain.ndim)

        def moving(carry):
            _, changed, step = carry
            return changed & (step < most)

        def advance(carry):
            old, _, step = carry
            new = self.sweep(old, downhill)
            pairs = zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True)
            return new, jnp.any(jnp.stack([jnp.any(a != b) for a, b in pairs])), step + 1

        spins, _, steps = jax.lax.while_loop(moving, advance, (spins, jnp.asarray(True), jnp.zeros((), jnp.int32)))
        return spins, steps


def decided(spins: Float[Array, "..."], uniform: Float[Array, "..."]) -> Float[Array, "..."]:
    """The spins, with a random one wherever there is 0."""
    return jnp.where(spins == 0, jnp.where(uniform < 0.5, -1.0, 1.0).astype(spins.dtype), spins)


def check_counts(solver: Any, **least: int) -> None:
    """Raises ValueError for attributes of a solver that are not whole numbers, or fewer than these."""
    for name, fewest in least.items():
        check_count(name, getattr(solver, name), fewest)


# one uniform number for each (key, sweep, spin, replica), by a cheap generator without any state


def sweep_words(key: PRNGKeyArray, sweep: Int[Array, ""] | int) -> UInt32[Array, "2"]:
    """The two words that key the numbers of one sweep, drawn by JAX's own generator."""
    return jax.random.bits(jax.random.fold_in(key, sweep), (2,), jnp.uint32)


def counted_uniform(words: UInt32[Array, "2"], first: int, shape: tuple[int, ...], dtype: Any) -> Float[Array, "..."]:
    """Uniform numbers in [0, 1), multiples of 2^-24, of the counters first, first + 1, ... in C order.

    A keyed mixer of 32 bits: two rounds of xor-shift and multiply, with one word of the sweep's key added before the
    first round and the other before the second. Ten operations on integers, which compilers fuse into the update that
    uses the number; JAX's Threefry takes over a hundred.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", for counters in place of states; the
    multipliers, Wellons 2018, "Prospecting for hash functions".
    """
    return mix(words, counters(first, shape), dtype)


def counters(first: int, shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """first, first + 1, ... in C order."""
    total = jnp.full(shape, first, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        total += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride)
        stride *= shape[axis]
    return total


def mix(words: UInt32[Array, "2"], counter: UInt32[Array, "..."], dtype: Any) -> Float[Array, "..."]:
    """The uniform number in [0, 1) of each counter."""
    bits = counter * _WEYL + words[0]
    bits = (bits ^ (bits >> np.uint32(16))) * _FIRST
    bits = (bits ^ (bits >> np.uint32(15)) ^ words[1]) * _SECOND
    bits = bits ^ (bits >> np.uint32(15))
    # as a signed integer, which processors convert to floating point directly
    return (bits >> np.uint32(8)).astype(jnp.int32).astype(dtype) * jnp.asarray(2.0**-24, dtype)
