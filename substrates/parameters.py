"""The parameters of a system: which of its arrays learn, what they are called, and of what kind their numbers are."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

T = TypeVar("T")


def fixed(**options: Any) -> Any:
    """A field that holds a physical constant: no optimiser, weight decay or measurement touches it.

    Takes the options of ``equinox.field``. Use it as ``mass: Array = fixed()``.
    """
    metadata = {**options.pop("metadata", {}), "fixed": True}
    return eqx.field(metadata=metadata, **options)


def split_parameters(substrate: T) -> tuple[T, T]:
    """Two trees like the substrate: its trainable parameters (None elsewhere), and the rest.

    Trainable are the inexact arrays outside fields marked `fixed`; `equinox.combine` joins the two again.
    """

    def trainable(path: tuple, leaf: Any) -> bool:
        node: Any = substrate
        for key in path:
            if isinstance(key, jax.tree_util.GetAttrKey):
                if dataclasses.is_dataclass(node):
                    field = next(f for f in dataclasses.fields(node) if f.name == key.name)
                    if field.metadata.get("fixed", False):
                        return False
                node = getattr(node, key.name)
            elif isinstance(key, jax.tree_util.SequenceKey):
                node = node[key.idx]
            elif isinstance(key, jax.tree_util.DictKey):
                node = node[key.key]
        return eqx.is_inexact_array(leaf)

    return eqx.partition(substrate, jax.tree_util.tree_map_with_path(trainable, substrate))


def by_path(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by their paths ("conductance", "coupling[0].weight"), in its order."""
    return {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def match_paths(rules: Collection[str], parameters: PyTree) -> PyTree:
    """For each parameter the rule that names it, by its path ("conductance", "coupling[0].weight"), the longest if
    several do: a tree like the parameters.

    Raises ValueError for a parameter without a rule, and for a rule that leads to no parameter.
    """
    paths = list(by_path(parameters))
    leads = lambda rule, path: path == rule or (path.startswith(rule) and path[len(rule)] in ".[")
    found = [max((rule for rule in rules if leads(rule, path)), key=len, default=None) for path in paths]
    missing = [path for path, rule in zip(paths, found, strict=True) if rule is None]
    idle = [rule for rule in rules if not any(leads(rule, path) for path in paths)]
    if missing or idle:
        which = f"nothing for {', '.join(missing)}" if missing else f"no parameter {', '.join(idle)}"
        raise ValueError(f"{which}; the parameters are {', '.join(paths)}")
    return jax.tree.unflatten(jax.tree.structure(parameters), found)


def parameter_dtype(substrate: PyTree) -> jnp.dtype:
    """The common dtype of the substrate's floating-point arrays (trainable or not); JAX's default without any."""
    leaves = [leaf.dtype for leaf in jax.tree.leaves(substrate) if eqx.is_inexact_array(leaf)]
    return jnp.result_type(*leaves) if leaves else jnp.zeros(()).dtype


def cast(leaf: Any, dtype: jnp.dtype) -> Any:
    """An array of another dtype where it holds inexact numbers, else as it is."""
    leaf = jnp.asarray(leaf)
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf


def as_complex(tree: T) -> T:
    """The tree with all its real inexact numbers complex."""

    def widen(leaf):
        if not eqx.is_inexact_array(leaf) or jnp.iscomplexobj(leaf):
            return leaf
        return jax.lax.complex(leaf, jnp.zeros_like(leaf))

    return jax.tree.map(widen, tree)


def reads_parameters(system: Any, state: PyTree, x: PyTree) -> bool:
    """Whether what the system shows depends on trainable parameters at a given state, of which only shapes are used."""
    parameters, rest = split_parameters(system)
    read = lambda parameters, state, x: eqx.combine(parameters, rest).read(state, x)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)), (state, x))
    traced = jax.make_jaxpr(read)(parameters, *shapes).jaxpr
    needed = {id(variable) for variable in traced.outvars}
    for equation in reversed(traced.eqns):
        if any(id(variable) in needed for variable in equation.outvars):
            needed |= {id(variable) for variable in equation.invars}
    return any(id(variable) in needed for variable in traced.invars[: len(jax.tree.leaves(parameters))])
