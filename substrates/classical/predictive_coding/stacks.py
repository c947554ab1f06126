"""Runs of equal layers as one part of a predictive coding network, so that programs of deep ones stay short."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from substrates.classical.predictive_coding.layers import Skip
from substrates.wiring import Convolution, Dense, Strength


class Stack(Dense):
    """Dense couplings of equal layers in a row as one: W_1, ..., W_m, each from the layer below its own.

    Programs grow with the number of parts of a network, and with them the time of compilation: a run of equal layers
    is one part.

    Attributes:
        weight: the weights, one behind the other; activities, drives and errors of its layers have the same first axis.
    """

    weight: Float[Array, "layers nodes nodes"]

    def forward(self, u: Float[Array, "..."]) -> Float[Array, "layers nodes"]:
        """What each layer feels from the one below, given those below, flat or not."""
        return jnp.einsum("ki,kij->kj", u.reshape(self.weight.shape[:2]), self.weight)

    def backward(
        self, v: Float[Array, "layers nodes"], u: Float[Array, "..."] | None = None
    ) -> Float[Array, "layers nodes"]:
        """What each layer sends to the one below."""
        return jnp.einsum("kj,kij->ki", v, self.weight)

    def after(self, before: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of each of its layers."""
        return before

    def below(self, first: Float[Array, "nodes"], layers: Float[Array, "layers nodes"]) -> Float[Array, "layers nodes"]:
        """The activities below each layer: those below the stack, then its own but for the last layer."""
        return jnp.concatenate([first[None], layers[:-1]])


TOGETHER = 8
"""So many layers are taken out of a stack one by one."""


def joined(layers: Sequence[Array]) -> Array:
    """What belongs to layers as one array with an axis of layers in front."""
    return jnp.concatenate(layers).reshape(len(layers), *layers[0].shape)


def separated(stack: Float[Array, "layers ..."]) -> list[Float[Array, "..."]]:
    """What is `joined`, layer by layer."""
    layers: list[Array] = []
    for first in range(0, len(stack), TOGETHER):
        group = stack[first : first + TOGETHER]
        # XLA compiles a kernel for every place that is cut out, and one for all equal cuts: those out of groups of one
        # size are equal, if the group is an array by itself, which the last part and the barrier make it
        padded = jax.lax.optimization_barrier(jnp.concatenate([group, stack[: TOGETHER + 1 - len(group)]]))
        layers += [padded[k] for k in range(len(group))]
    return layers


class Strengths(Strength):
    """The `Strength` of each coupling in a stack."""

    columns: Float[Array, "layers nodes"]
    rows: Float[Array, "layers nodes"]

    @classmethod
    def of(cls, weight: Float[Array, "layers nodes nodes"]) -> Strengths:
        """The strengths of a stack by its weights."""
        sizes = jnp.abs(weight)
        return cls(jnp.sum(sizes, 1), jnp.sum(sizes, 2))

    def forward(self, u: Array) -> Array:
        """Of what each layer feels from the one below."""
        return self.columns * largest(u)

    def backward(self, v: Array, shape: tuple[int, ...]) -> Array:
        """Of what each layer sends to the one below."""
        return self.rows * largest(v)


def largest(layers: Float[Array, "layers nodes"]) -> Float[Array, "layers 1"]:
    """The largest magnitude in each layer of a stack."""
    return jnp.max(jnp.abs(layers), axis=1, keepdims=True)


FEWEST = 10
"""So many equal layers in a row are worth a stack: with fewer, as many programs of one layer compile as fast."""


def runs(coupling: Sequence[Dense | Convolution], skips: Sequence[Skip]) -> list[range]:
    """The layers, counted from 0, cut into runs of at least `FEWEST` hidden layers to stack, and single ones.

    A run has square dense couplings of one size, nodes below it, and no skip connection that enters or leaves it.
    """
    touched = {layer - 1 for skip in skips for layer in (skip.source, skip.target)}

    def kind(k: int) -> tuple[int, ...]:
        rows, columns = coupling[k].weight.shape[-2:]
        inside = 0 < k < len(coupling) - 1 and k not in touched and isinstance(coupling[k - 1], Dense)
        return (-1, rows) if inside and type(coupling[k]) is Dense and rows == columns else (k, 0)

    groups = [list(group) for _, group in itertools.groupby(range(len(coupling)), kind)]
    cut = [[group] if len(group) >= FEWEST else [[k] for k in group] for group in groups]
    return [range(group[0], group[-1] + 1) for group in itertools.chain.from_iterable(cut)]
