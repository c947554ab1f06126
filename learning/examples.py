"""Examples made ready for a substrate: checked, cast, labels encoded."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from substrates.laboratory.system import PhysicalSystem
from substrates.substrate import Substrate, parameter_dtype


class Examples(NamedTuple):
    """Inputs and targets with a leading axis, as numpy arrays of the substrate's dtype.

    `labelled` says that the targets encode labels, so that an error can be counted.
    """

    x: PyTree
    y: PyTree
    labelled: bool

    @property
    def size(self) -> int:
        """How many examples there are."""
        return jax.tree.leaves(self.x)[0].shape[0]


def prepare(substrate: Substrate | PhysicalSystem, data: tuple[Any, Any], name: str = "data") -> Examples:
    """The examples of a pair (X, Y) as a substrate wants them.

    Args:
        substrate: decides the dtype and the shape of the outputs; a physical system reads float64.
        data: X with a leading axis of n examples (an array or a tree); Y either integer labels of shape (n,), encoded
            one-hot to the outputs, or real targets of shape (n, outputs), or a tree with a leading axis.
        name: what to call it in messages.

    Raises ValueError if the sizes disagree, a number is not finite, or a label has no output.
    """
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(f"{name}: wanted a pair (X, Y), got {type(data).__name__}")
    dtype = parameter_dtype(substrate) if isinstance(substrate, Substrate) else np.dtype(float)
    x, y = (jax.tree.map(lambda leaf: _cast(leaf, dtype, name), part) for part in data)
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves((x, y))}
    if len(sizes) != 1 or sizes in ({()}, {(0,)}):
        raise ValueError(f"{name}: wanted X and Y with the same number of examples, at least one, got {_shapes(data)}")
    if not isinstance(y, np.ndarray):
        return Examples(x, y, labelled=False)
    if isinstance(substrate, Substrate):
        shape = output_shape(substrate, x)
    else:
        shape, wanted = (substrate.spec.outputs.size,), (substrate.spec.inputs.size,)
        if x.shape[1:] != wanted:
            raise ValueError(f"{name}: wanted X of shape (n, {wanted[0]}), like the inputs, got {x.shape}")
    if np.issubdtype(y.dtype, np.integer) and y.ndim == 1:
        if len(shape) != 1 or y.min() < 0 or y.max() >= shape[0]:
            raise ValueError(
                f"{name}: wanted labels from 0 to {int(np.prod(shape)) - 1}, one output for each, got labels from "
                f"{y.min()} to {y.max()}; give real targets of shape (n, outputs) instead, or more outputs"
            )
        return Examples(x, np.eye(shape[0], dtype=dtype)[y], labelled=True)
    if y.shape[1:] != shape:
        raise ValueError(
            f"{name}: wanted integer labels of shape (n,) or targets of shape (n, {', '.join(map(str, shape))}), like "
            f"the outputs, got {y.dtype.name} of shape {y.shape}"
        )
    return Examples(x, y.astype(dtype), labelled=False)


def output_shape(substrate: Substrate, x: PyTree) -> tuple[int, ...]:
    """The shape of what the substrate reads for one example of a batch of inputs."""
    first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)
    read = lambda system, x: system.read(system.initial_state(x), x)
    return eqx.filter_eval_shape(read, substrate, first).shape


def _cast(leaf: Any, dtype: Any, name: str) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype == bool:
        return array.astype(np.int32)
    if np.issubdtype(array.dtype, np.integer):
        return array
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        raise ValueError(f"{name}: wanted numbers, got {array.dtype}")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name}: wanted finite numbers, got NaN or infinity in an array of shape {array.shape}")
    return array.astype(jnp.result_type(array.dtype, jnp.complex64) if np.iscomplexobj(array) else dtype)


def _shapes(data: Any) -> str:
    shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(part)] for part in data]
    return f"X of {shapes[0]} and Y of {shapes[1]}"
