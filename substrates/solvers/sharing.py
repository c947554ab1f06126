"""Examples shared by devices, where `jax.set_mesh` has set a mesh with an axis `EXAMPLES`, and the columns of large
matrices, where it has an axis `COLUMNS` too; all is as ever elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import PyTree

T = TypeVar("T")

EXAMPLES = "examples"
"""The axis along which devices share the examples of every batch."""

COLUMNS = "columns"
"""The axis along which devices share the columns of large matrices of parameters."""

LARGE = 4096
"""From so many numbers on a matrix is shared by columns: less saves no memory worth an exchange."""


def by_devices(
    function: Callable[..., T], count: int, axes: tuple[PyTree, ...], out_axis: int, *arguments: PyTree
) -> T:
    """function(*arguments), by every device for its part of the examples where a mesh has an axis `EXAMPLES`.

    A loop that a compiler shares out asks all devices at every turn whether to go on, and so all wait for the slowest
    of all examples at each; here each device loops on its own, or with those that have the other columns of its
    matrices, whose products the compiler shares out. Examples that the devices cannot share evenly are left to it too.

    Args:
        function: of batches; the arrays that it reads must be among the arguments, for a program that is shared out
            must close over none.
        count: how many examples there are.
        axes: where they stand in each argument, as `in_axes` of `jax.vmap`.
        out_axis: where they stand in what it returns.
    """
    devices = _sharers()
    if not devices or count % devices:
        return function(*arguments)
    spec = lambda axis: PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, EXAMPLES)
    arrays, static = eqx.partition(arguments, eqx.is_array)
    shared = jax.shard_map(
        lambda *own: function(*eqx.combine(own, static)),
        in_specs=jax.tree.map(spec, axes, is_leaf=lambda axis: axis is None),
        out_specs=spec(out_axis),
        axis_names={EXAMPLES},
        check_vma=False,  # JAX cannot tell which device knows what in loops that call the host
    )
    return shared(*arrays)


def shared(batch: PyTree) -> PyTree:
    """In compiled code: the examples of a batch, each device having its part of them."""
    return _constrained(batch, lambda leaf: PartitionSpec(EXAMPLES))


def whole(tree: PyTree) -> PyTree:
    """In compiled code: the arrays of a tree, each device having all of them."""
    return _constrained(tree, lambda leaf: PartitionSpec())


def divided(tree: PyTree) -> PyTree:
    """In compiled code: parameters, or what has their shape, each device having its columns (`column_spec`)."""
    devices = jax.sharding.get_abstract_mesh().shape.get(COLUMNS, 1)
    return _constrained(tree, lambda leaf: column_spec(leaf, devices))


def column_spec(leaf: Any, devices: int) -> PartitionSpec:
    """How so many devices share an array: by its last axis if it is a large matrix, or a stack of them, which they can
    share evenly; else each has all of it.
    """
    if devices == 1 or leaf.ndim < 2 or leaf.size < LARGE or leaf.shape[-1] % devices:
        return PartitionSpec()
    return PartitionSpec(*[None] * (leaf.ndim - 1), COLUMNS)


def _constrained(tree: PyTree, spec: Callable[[Any], PartitionSpec]) -> PyTree:
    if not _sharers():
        return tree
    limit = lambda leaf: jax.lax.with_sharding_constraint(leaf, spec(leaf)) if eqx.is_array(leaf) else leaf
    return jax.tree.map(limit, tree)


def _sharers() -> int:
    """How many devices share the examples of a batch in what is being computed; 0 where no mesh says so."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    return mesh.shape[EXAMPLES] if kinds.get(EXAMPLES) == AxisType.Auto else 0
