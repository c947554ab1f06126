"""Couplings between successive groups of nodes: dense, convolutional with pooling, in a chain, and how strong."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Inexact

from substrates.nudge import Nudge, Pin

Pooling = Literal["max", "average", "soft"]
Layers = TypeVar("Layers")


def sweep_layers(
    sweep: Callable[[Layers, Sequence[int]], Layers], layers: Layers, count: int, nudge: Nudge | Pin | None
) -> Layers:
    """A sweep over layers that begins where they are acted on: at the inputs in a free phase, else at the outputs.

    Args:
        sweep: updates layers, in the order of numbers that it is given.
        layers, count: what it updates, and how many of them there are.
        nudge: what acts on the outputs; a nudge of strength 0 is a free phase.
    """
    forwards, backwards = tuple(range(count)), tuple(reversed(range(count)))
    if not isinstance(nudge, Nudge):
        return sweep(layers, forwards if nudge is None else backwards)
    onwards, back = (lambda layers, order=order: sweep(layers, order) for order in (forwards, backwards))
    return jax.lax.cond(nudge.beta == 0, onwards, back, layers)


class Dense(eqx.Module):
    """Every node of a group coupled to every node of the next: forward(u) = W'u, backward(v) = W v.

    Attributes:
        weight: W, shape (before, after).
    """

    weight: Float[Array, "before after"]

    def forward(self, u: Inexact[Array, "*batch before"]) -> Inexact[Array, "*batch after"]:
        """What the later group feels: u @ W."""
        return u @ self.weight

    def backward(
        self, v: Inexact[Array, "*batch after"], u: Inexact[Array, "*batch before"] | None = None
    ) -> Inexact[Array, "*batch before"]:
        """What the earlier group feels: v @ W', whatever the earlier group u itself does."""
        return v @ self.weight.T

    def after(self, before: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the later group, given that of the earlier; raises ValueError where it does not fit."""
        if before != (self.weight.shape[0],):
            raise ValueError(
                f"weight: wanted {int(np.prod(before))} rows for a group of shape {before}, flattened, "
                f"got {self.weight.shape}"
            )
        return (self.weight.shape[1],)


class Convolution(eqx.Module):
    """Feature maps coupled to the next by a convolution w and 2x2 pooling P: forward(u) = P(w * u).

    Groups have the shape (height, width, channels). Without pooling or with average pooling the interaction
    <v, P(w * u)> is bilinear. Maximum pooling chooses, in each window, the largest entry of w * u; soft pooling weighs
    the entries z of a window with softmax(z). There `backward` depends on u: it un-pools v the way u pools.

    Attributes:
        weight: w, shape (kernel height, kernel width, channels before, channels after).
        pooling: None, "max", "average" or "soft".
        padding: zeros added on each side before the convolution.

    Source: Laborieux et al. 2021, arXiv 2006.03824; soft pooling, Laborieux and Zenke 2022, arXiv 2209.00530.
    """

    weight: Float[Array, "kernel_height kernel_width before after"]
    pooling: Pooling | None = eqx.field(static=True, default=None)
    padding: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.pooling is not None and self.pooling not in get_args(Pooling):
            raise ValueError(f"pooling: wanted None or one of {get_args(Pooling)}, got {self.pooling!r}")
        if self.padding < 0:
            raise ValueError(f"padding: wanted a number of zeros, at least 0, got {self.padding}")

    def convolve(self, u: Inexact[Array, "height width before"]) -> Inexact[Array, "rows columns after"]:
        """w * u, before pooling (a cross-correlation, as in every deep-learning library)."""
        return correlate(u, self.weight, (self.padding, self.padding))

    def pool(self, z: Inexact[Array, "rows columns after"]) -> Inexact[Array, "pooled_rows pooled_columns after"]:
        """P(z) over windows of 2x2."""
        if self.pooling is None:
            return z
        rows, columns, channels = z.shape
        windows = z.reshape(rows // 2, 2, columns // 2, 2, channels)
        if self.pooling == "average":
            return jnp.mean(windows, axis=(1, 3))
        if self.pooling == "max":
            return jnp.max(windows, axis=(1, 3))
        # the shift keeps exponentials finite and cancels, so that a complex z is continued analytically all the same
        shift = jax.lax.stop_gradient(jnp.max(windows.real, axis=(1, 3), keepdims=True)).astype(z.dtype)
        weights = jnp.exp(windows - shift)
        return jnp.sum(weights * windows, axis=(1, 3)) / jnp.sum(weights, axis=(1, 3))

    def forward(self, u: Inexact[Array, "height width before"]) -> Inexact[Array, "rows columns after"]:
        """What the later group feels: P(w * u)."""
        return self._averaged(u) if self.pooling == "average" else self.pool(self.convolve(u))

    def _averaged(self, u: Inexact[Array, "height width before"]) -> Inexact[Array, "rows columns after"]:
        """P(w * u) with average pooling, as one correlation of fewer products.

        The mean over windows of 2x2 is a kernel a row and a column larger, in steps of two. Where each 2x2 entries of a
        map are those of four maps, it takes steps of one.
        """
        height, width, before, after = self.weight.shape
        sides = [(size + 2) // 2 for size in (height, width)]
        spare = [2 * side - size for side, size in zip(sides, (height, width), strict=True)]
        shifted = lambda i, j: jnp.pad(self.weight, ((i, spare[0] - i), (j, spare[1] - j), (0, 0), (0, 0)))
        mean = functools.reduce(jnp.add, [shifted(i, j) for i in (0, 1) for j in (0, 1)]) / 4
        kernel = mean.reshape(sides[0], 2, sides[1], 2, before, after).transpose(0, 2, 1, 3, 4, 5)
        # an even kernel has a row and a column of zeros at its end, for which the maps have one more too
        zeros = [(self.padding, self.padding + more - 1) for more in spare]
        maps = jnp.pad(u, (*zeros, (0, 0)))
        rows, columns = (size // 2 for size in maps.shape[:2])
        fours = maps.reshape(rows, 2, columns, 2, before).transpose(0, 2, 1, 3, 4).reshape(rows, columns, 4 * before)
        return correlate(fours, kernel.reshape(*sides, 4 * before, after), (0, 0))

    def backward(
        self, v: Inexact[Array, "rows columns after"], u: Inexact[Array, "height width before"]
    ) -> Inexact[Array, "height width before"]:
        """What the earlier group feels: d<v, P(w * u)>/du."""
        if self.pooling == "average":
            return jax.vjp(self._averaged, u)[1](v)[0]
        return self.convolve_back(self.unpool(v, self.convolve(u)), u.shape)

    def unpool(
        self, v: Inexact[Array, "pooled_rows pooled_columns after"], z: Inexact[Array, "rows columns after"]
    ) -> Inexact[Array, "rows columns after"]:
        """d<v, P(z)>/dz: to each entry of z its share in the pooled one."""
        return jax.vjp(self.pool, z)[1](v)[0]

    def convolve_back(
        self, z: Inexact[Array, "rows columns after"], before: tuple[int, ...]
    ) -> Inexact[Array, "height width before"]:
        """The transpose of `convolve`, for an earlier group of the shape `before`."""
        height, width = self.weight.shape[:2]
        if before[:2] != (z.shape[0] + height - 1 - 2 * self.padding, z.shape[1] + width - 1 - 2 * self.padding):
            raise ValueError(
                f"before: wanted the shape of maps whose convolution has the shape {z.shape}, got {before}"
            )
        turned = jnp.flip(self.weight, (0, 1)).swapaxes(2, 3)
        return correlate(z, turned, (height - 1 - self.padding, width - 1 - self.padding))

    def after(self, before: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the later group, given that of the earlier; raises ValueError where it does not fit."""
        height, width, channels_before, channels_after = self.weight.shape
        if len(before) != 3 or before[2] != channels_before:
            raise ValueError(
                f"weight: wanted an earlier group of shape (height, width, {channels_before}) for a kernel of shape "
                f"{self.weight.shape}, got {before}"
            )
        rows, columns = before[0] + 2 * self.padding - height + 1, before[1] + 2 * self.padding - width + 1
        if rows < 1 or columns < 1:
            raise ValueError(
                f"weight: a {height}x{width} kernel does not fit into maps of {before[0]}x{before[1]} padded by "
                f"{self.padding}; choose a smaller kernel or more padding"
            )
        if self.pooling is None:
            return rows, columns, channels_after
        if rows % 2 or columns % 2:
            raise ValueError(
                f"pooling: windows of 2x2 do not divide maps of {rows}x{columns}; choose other sizes or no pooling"
            )
        return rows // 2, columns // 2, channels_after


def chain_of_groups(couplings: Sequence[Dense | Convolution], shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The shapes of the groups that couplings in a row join, the first of them given.

    A dense coupling sees the group before it flattened.

    Raises:
        ValueError: naming the coupling that does not fit.
    """
    shapes = [tuple(shape)]
    for index, coupling in enumerate(couplings):
        before = (int(np.prod(shapes[-1])),) if isinstance(coupling, Dense) else shapes[-1]
        try:
            shapes.append(coupling.after(before))
        except ValueError as error:
            raise ValueError(f"coupling {index}: {error}") from None
    return tuple(shapes)


def as_group(x: Inexact[Array, "..."], shape: tuple[int, ...], dtype: jnp.dtype) -> Inexact[Array, "..."]:
    """The input in the shape and dtype of its group; raises ValueError unless it has that shape or comes flat."""
    if jnp.shape(x) not in (shape, (int(np.prod(shape)),)):
        raise ValueError(f"x: wanted shape {shape}, flat or not, got {jnp.shape(x)}")
    return jnp.asarray(x).astype(jnp.result_type(dtype)).reshape(shape)


def feed(coupling: Dense | Convolution, u: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """What the later group feels from an earlier one, which a dense coupling sees flattened."""
    return coupling.forward(u.ravel() if isinstance(coupling, Dense) else u)


def lifted(coupling: Dense | Convolution, u: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """What the later group feels from an earlier one, before pooling."""
    return coupling.convolve(u) if isinstance(coupling, Convolution) else coupling.forward(u.ravel())


def feed_back(
    coupling: Dense | Convolution, v: Inexact[Array, "..."], u: Inexact[Array, "..."]
) -> Inexact[Array, "..."]:
    """What the earlier group u feels from a later one, in its own shape."""
    return coupling.backward(v).reshape(u.shape) if isinstance(coupling, Dense) else coupling.backward(v, u)


def hidden_between(
    lower: float, upper: float, shapes: tuple[tuple[int, ...], ...], dtype: jnp.dtype
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Bounds on the groups after the first: two numbers for all between, none for the last."""
    *hidden, last = shapes[1:]
    side = lambda bound, end: (*(jnp.full(shape, bound, dtype) for shape in hidden), jnp.full(last, end, dtype))
    return side(lower, -jnp.inf), side(upper, jnp.inf)


class Strength(eqx.Module):
    """Bounds of the sum of the sizes of all that a node receives through a coupling.

    They are the sums of |W_ij| max |u|: those of |W_ij| |u_j|, within a small factor, where the activities of a group
    are of one order of magnitude, and no less otherwise.

    Attributes:
        columns: sum of |W| over what joins the earlier group to each node (or channel) of the later one.
        rows: sum of |W| over what joins each node (or channel) of the earlier group to the later one.
    """

    columns: Float[Array, "after"]
    rows: Float[Array, "before"]

    @classmethod
    def of(cls, weight: Float[Array, "*kernel before after"]) -> Strength:
        """The strength of a coupling by its weight, whose last axes are the groups (or channels) before and after."""
        sizes = jnp.abs(weight)
        kernel = tuple(range(sizes.ndim - 2))
        return cls(jnp.sum(sizes, (*kernel, sizes.ndim - 2)), jnp.sum(sizes, (*kernel, sizes.ndim - 1)))

    def forward(self, u: Array) -> Array:
        """Of what the later group feels, one number for each of its nodes or channels."""
        return self.columns * jnp.max(jnp.abs(u))

    def backward(self, v: Array, shape: tuple[int, ...]) -> Array:
        """Of what an earlier group of a shape feels."""
        felt = self.rows * jnp.max(jnp.abs(v))
        return felt.reshape(shape) if felt.size > shape[-1] else felt


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def correlate(
    u: Inexact[Array, "height width before"],
    weight: Inexact[Array, "kernel_height kernel_width before after"],
    padding: tuple[int, int],
) -> Inexact[Array, "rows columns after"]:
    """Maps correlated with a kernel, after so many zeros above and below, left and right.

    Its derivatives are products of matrices. Those that JAX derives are convolutions in layouts for which XLA, inside
    loops on CPUs, has no fast kernels: measured on 128 to 256 maps of 16x16, 6 times slower for the derivative in the
    maps and 65 times for the one in the kernel.
    """
    sides = ((padding[0], padding[0]), (padding[1], padding[1]))
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(u[None], weight, (1, 1), sides, dimension_numbers=layout)[0]


def _tangent(padding: tuple[int, int], values: tuple, directions: tuple) -> tuple:
    (u, weight), (du, dweight) = values, directions
    product = lambda u, weight: _windows(u, weight.shape[:2], padding) @ weight.reshape(-1, weight.shape[3])
    tangents = []
    if not isinstance(du, SymbolicZero):
        tangents.append(product(du, weight))
    if not isinstance(dweight, SymbolicZero):
        tangents.append(product(u, dweight))
    value = correlate(u, weight, padding)
    return value, sum(tangents) if tangents else jnp.zeros_like(value)


correlate.defjvp(_tangent, symbolic_zeros=True)


def _windows(u: Array, kernel: tuple[int, int], padding: tuple[int, int]) -> Array:
    """The entries below a kernel at each of its places, along the last axis in the order of the kernel."""
    zero = jnp.zeros((), u.dtype)
    padded = jax.lax.pad(u, zero, [(padding[0], padding[0], 0), (padding[1], padding[1], 0), (0, 0, 0)])
    rows, columns = (padded.shape[axis] - kernel[axis] + 1 for axis in (0, 1))
    places = [padded[i : i + rows, j : j + columns] for i in range(kernel[0]) for j in range(kernel[1])]
    return jnp.concatenate(places, axis=-1)
