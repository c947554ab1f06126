"""Sweeps over the spins of many replicas at once: what annealing, tempering and thermal sampling have in common."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt32

from substrates.classical.ising.counter import counted_uniform, sweep_words

Accept = Callable[[Float[Array, "..."], Float[Array, "..."], Any, Float[Array, "..."]], Bool[Array, "..."]]
"""Whether spins flip, given what the energy gains by each flip, the spins, the number of the first of them, and the
sum of the sizes of what meets at each."""

ROUNDING = 4
"""So many rounding errors of what meets at a spin are no energy that its flip releases."""


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

    @abc.abstractmethod
    def along_replicas(self, values: Float[Array, "replicas"]) -> Float[Array, "..."]:
        """One number per replica, shaped to act on the arrays of spins."""

    def metropolis(
        self, spins: PyTree, inverse_temperature: Float[Array, "replicas"], words: UInt32[Array, "2"]
    ) -> PyTree:
        """A sweep in which a spin flips with probability min(1, exp(-gain/T))."""
        cold = self.along_replicas(inverse_temperature)
        accept = lambda gain, s, first, _: (
            counted_uniform(words, first, gain.shape, self.dtype) < jnp.exp(jnp.minimum(-gain * cold, 0))
        )
        return self.sweep(spins, accept)

    def heat_bath(
        self, spins: PyTree, inverse_temperature: Float[Array, "replicas"], words: UInt32[Array, "2"]
    ) -> PyTree:
        """A sweep in which a spin points up with probability 1/(1 + exp(-2 field/T)), wherever it pointed before.

        Two runs with the same numbers, under slightly different fields, soon move together: common random numbers.
        """
        cold = self.along_replicas(inverse_temperature)

        def accept(gain, s, first, _):
            up = jax.nn.sigmoid(s * gain * cold)
            return jnp.where(counted_uniform(words, first, gain.shape, self.dtype) < up, 1.0, -1.0) != s

        return self.sweep(spins, accept)

    def descend(self, spins: PyTree, most: int) -> tuple[PyTree, Int[Array, ""]]:
        """Sweeps in which every spin flips that releases energy, more than rounding of what meets at it, until none
        does; (spins, sweeps).
        """
        rounding = ROUNDING * float(jnp.finfo(self.dtype).eps)
        downhill = lambda gain, s, first, meeting: gain < -rounding * meeting

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

    def run(
        self,
        spins: PyTree,
        key: PRNGKeyArray,
        inverse_temperatures: Float[Array, "sweeps replicas"],
        first: Int[Array, ""] | int = 0,
    ) -> PyTree:
        """Metropolis sweeps at one row of inverse temperatures after the other."""
        if not len(inverse_temperatures):
            return spins

        def step(t, spins):
            return self.metropolis(spins, inverse_temperatures[t], sweep_words(key, first + t))

        return jax.lax.fori_loop(0, inverse_temperatures.shape[0], step, spins)


def decided(spins: Float[Array, "..."], uniform: Float[Array, "..."]) -> Float[Array, "..."]:
    """The spins, with a random one wherever there is 0."""
    return jnp.where(spins == 0, jnp.where(uniform < 0.5, -1.0, 1.0).astype(spins.dtype), spins)
