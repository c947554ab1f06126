"""What predictive coding networks are made of, and what their solvers see of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, Self

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from substrates.solvers.solver import System
from substrates.wiring import Convolution, Dense

State = tuple[Float[Array, "..."], ...]
Rectifier = Literal["buffered", "bounded", "free"]


class Skip(eqx.Module):
    """A connection past some layers: a 1x1 convolution with a stride, added to the pre-activation of a later layer.

    Attributes:
        weight: shape (channels of the source, channels of the target); nodes in place of channels for dense layers.
        source: the number of the layer that it leaves; 0 is the input.
        target: the number of the layer that it enters.
        stride: how many rows and columns of the source make one of the target.
    """

    weight: Float[Array, "before after"]
    source: int = eqx.field(static=True)
    target: int = eqx.field(static=True)
    stride: int = eqx.field(static=True, default=1)

    def forward(self, u: Float[Array, "*space before"]) -> Float[Array, "*strided after"]:
        """What the target layer receives."""
        return (u[:: self.stride, :: self.stride] if u.ndim == 3 else u) @ self.weight

    def backward(self, v: Float[Array, "*strided after"], u: Float[Array, "*space before"]) -> Float[Array, "..."]:
        """What the source layer u receives: d<v, forward(u)>/du."""
        felt = v @ self.weight.T
        if u.ndim == 1 or self.stride == 1:
            return felt
        return jnp.zeros_like(u).at[:: self.stride, :: self.stride].set(felt)

    def check(self, shapes: tuple[tuple[int, ...], ...]) -> None:
        """Raises ValueError for a connection that does not fit the shapes of the input and of every layer."""
        layers = len(shapes) - 1
        name = f"skip connection from layer {self.source} to layer {self.target}"
        if not (self.source >= 0 and self.source + 2 <= self.target <= layers):
            raise ValueError(
                f"skips: wanted a target at least two layers after the source, between 0 and {layers}, got a {name}"
            )
        source, target = shapes[self.source], shapes[self.target]
        strided = tuple(-(-side // self.stride) for side in source[:-1])
        if strided != target[:-1] or self.weight.shape != (source[-1], target[-1]):
            raise ValueError(
                f"skips: wanted a weight of shape {(source[-1], target[-1])} and a stride that makes {source} into "
                f"{target}, got a weight of shape {self.weight.shape} and stride {self.stride} in the {name}"
            )


class Predicting(System, Protocol):
    """What solvers see of a predictive coding network."""

    @property
    def coupling(self) -> tuple[Dense | Convolution, ...]: ...
    @property
    def skips(self) -> tuple[Skip, ...]: ...
    @property
    def rectifier(self) -> Rectifier: ...
    def stacked(self) -> Self: ...
    def stack(self, state: State) -> State: ...
    def unstack(self, state: Sequence[Array]) -> State: ...
    def near(
        self,
        rough: Sequence[Dense | Convolution],
        state: Sequence[Array],
        x: Array,
        drives: Sequence[Array] = (),
        errors: Sequence[Array] = (),
    ) -> Self: ...
    def numbers(self, k: int) -> range: ...
    def largest(self, k: int, values: Array) -> Array: ...
    def predict(self, x: Array) -> State: ...
    def drive(self, k: int, state: Sequence[Array], x: Array) -> Array: ...
    def drives(self, state: Sequence[Array], x: Array) -> State: ...
    def activation(self, k: int, drive: Array) -> Array: ...
    def settled(self, k: int, drive: Array, feedback: Array) -> Array: ...
    def response(self, k: int, drive: Array, feedback: Array) -> Array: ...
    def feedback(
        self, k: int, state: Sequence[Array], x: Array, drives: Sequence[Array], errors: Sequence[Array]
    ) -> Array: ...
    def forward(
        self, k: int, state: Sequence[Array], x: Array, settle: Callable[..., Array], *pull: Array
    ) -> tuple[Array, Array]: ...
    def backward(
        self, k: int, state: Sequence[Array], x: Array, drives: Sequence[Array], errors: Sequence[Array]
    ) -> tuple[Array, Array]: ...
