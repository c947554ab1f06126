"""Examples made ready for a substrate: checked, cast, labels encoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Int, PRNGKeyArray, PyTree

from substrates import explained
from substrates.laboratory.system import PhysicalSystem
from substrates.substrate import (
    Cost,
    Equilibrium,
    Substrate,
    check_batch,
    check_finite,
    check_key,
    fit_target,
    make_room,
    parameter_dtype,
    ready_inputs,
    relax_batch,
    same_batch,
    takes_own_targets,
)


class Examples(NamedTuple):
    """Inputs and targets with a leading axis, as numpy arrays of the substrate's dtype.

    `labelled` says that the targets encode labels, so that an error can be counted; `classes` are the texts that
    stood for them, in the order of the outputs, None where labels were numbers.
    """

    x: PyTree
    y: PyTree
    labelled: bool
    classes: tuple[str, ...] | None = None

    @property
    def size(self) -> int:
        """How many examples there are."""
        return jax.tree.leaves(self.x)[0].shape[0]


def prepare(
    substrate: Substrate | PhysicalSystem,
    data: tuple[Any, Any],
    name: str = "data",
    cost: Cost | None = None,
    classes: Sequence[str] | None = None,
) -> Examples:
    """The examples of a pair (X, Y) as a substrate wants them.

    Args:
        substrate: decides the dtype and the shape of the outputs; a physical system reads float64.
        data: X with a leading axis of n examples (an array, a list of rows, or a tree); Y either labels of shape (n,),
            encoded one-hot to the outputs, or real targets of shape (n, outputs), or a tree with a leading axis.
            Labels are whole numbers, or texts.
        name: what to call it in messages.
        cost: what the targets are meant for; those of a cost with `own_targets` are left as they are, but for a
            physical system, whose nudge takes numbers in the shape of its outputs.
        classes: the texts that stand for labels, one for each output; by default those of Y in their alphabetical
            order, of which there must be as many as outputs.

    Raises ValueError if the sizes disagree, a number is not finite, or a label has no output.
    """
    if not isinstance(substrate, Substrate | PhysicalSystem):
        raise TypeError(f"substrate: wanted a Substrate or a PhysicalSystem, got {type(substrate).__name__}")
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(f"{name}: wanted a pair (X, Y), got {type(data).__name__}")
    dtype = parameter_dtype(substrate) if isinstance(substrate, Substrate) else np.dtype(float)
    if isinstance(substrate, Substrate):
        refuse_whole_numbers(substrate)
    given, targets = (_listed(part, name) for part in data)
    if _are_texts(targets):
        targets, classes = _numbered(targets, classes, name)
    else:
        classes = None
    x, y = (jax.tree.map(lambda leaf: _cast(leaf, dtype, name), part) for part in (given, targets))
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves((x, y))}
    if len(sizes) != 1 or sizes in ({()}, {(0,)}) or not all(jax.tree.leaves(part) for part in (x, y)):
        raise ValueError(
            f"{name}: wanted X and Y with the same number of examples, at least one, got {_shapes((x, y))}; of one "
            f"example give X[None], Y[None]; see {explained.SHAPES}"
        )
    if isinstance(substrate, Substrate):
        check_batch(substrate, x, f"{name}, X")
    if not isinstance(y, np.ndarray) or (takes_own_targets(cost) and isinstance(substrate, Substrate)):
        return Examples(x, y, labelled=False)
    if isinstance(substrate, Substrate):
        shape = output_shape(substrate, x)
    else:
        shape, wanted = (substrate.spec.outputs.size,), (substrate.spec.inputs.size,)
        if x.shape[1:] != wanted:
            raise ValueError(f"{name}: wanted X of shape (n, {wanted[0]}), like the inputs, got {x.shape}")
    if _are_labels(y):
        if classes is not None and len(classes) != int(np.prod(shape)):
            raise ValueError(
                f"{name}: wanted one class for each of the {int(np.prod(shape))} outputs, got {len(classes)}, "
                f"{', '.join(map(repr, classes[:10]))}; give classes=, or a system with as many outputs"
            )
        return Examples(x, encode_labels(y, shape, dtype, name), labelled=True, classes=classes)
    if y.shape[1:] != shape and not (y.ndim == 1 and shape == (1,)):
        raise ValueError(
            f"{name}: wanted integer labels of shape (n,) or targets of shape (n, {', '.join(map(str, shape))}), like "
            f"the outputs, got {y.dtype.name} of shape {y.shape}; see {explained.SHAPES}"
        )
    if np.iscomplexobj(y) and not np.issubdtype(dtype, np.complexfloating):
        raise ValueError(f"{name}: wanted real targets, like the outputs, got {y.dtype.name}; give their real parts")
    return Examples(x, y.astype(dtype, copy=False).reshape(len(y), *shape), labelled=False)


def encode_labels(labels: np.ndarray, shape: tuple[int, ...], dtype: Any, name: str) -> np.ndarray:
    """Labels of shape (n,) one-hot, for outputs of the given shape: (n, outputs). Raises ValueError for a label that
    has no output, and where a single output leaves open what a label means.
    """
    outputs = int(np.prod(shape))
    if len(shape) != 1 or outputs == 1:
        raise ValueError(
            f"{name}: wanted real targets of shape (n, {', '.join(map(str, shape))}), like the outputs, which labels "
            f"cannot stand for, got {labels.dtype.name} of shape {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= outputs:
        raise ValueError(
            f"{name}: wanted labels from 0 to {outputs - 1}, one output for each, got labels from "
            f"{labels.min()} to {labels.max()}; number classes from 0, as numpy.unique(labels, return_inverse=True)[1] "
            "does, or give real targets of shape (n, outputs), or more outputs"
        )
    return np.eye(outputs, dtype=dtype)[labels.astype(int)]


def ready_batch(
    substrate: Substrate, x: PyTree, y: PyTree, cost: Cost | None, key: PRNGKeyArray | None
) -> tuple[PyTree, PyTree]:
    """Inputs and targets of a batch as an estimator compiles them in: as many of both, of the shapes that the system
    has, finite, labels encoded as by `fit`.

    Values are looked at where they are known, and shapes before anything is compiled.

    Raises TypeError for what is no substrate, ValueError for the rest.
    """
    if not isinstance(substrate, Substrate):
        raise TypeError(f"substrate: wanted a Substrate, got {type(substrate).__name__}")
    refuse_whole_numbers(substrate)
    if key is not None:
        check_key("key", key)
    if not jax.tree.leaves(y):
        raise ValueError(f"y: wanted targets with a leading axis of examples, got {y!r}")
    x = ready_inputs(substrate, x, "x")
    make_room(substrate, x, y)
    if takes_own_targets(cost):
        same_batch(x=x, y=y)
        return x, y
    y = as_arrays("y", y)
    same_batch(x=x, y=y)
    check_finite("y", y)
    if not eqx.is_array(y):
        return x, y
    keys = None if key is None else jax.random.split(key, len(y))
    output = eqx.filter_eval_shape(outputs_at_start, substrate, x, keys)
    if isinstance(y, Tracer) or not _are_labels(y):
        return x, fit_target(y, output, cost, name="y", batched=True)
    return x, jnp.asarray(encode_labels(np.asarray(y), output.shape[1:], jnp.finfo(output.dtype).dtype, "y"))


def refuse_whole_numbers(substrate: Substrate) -> None:
    """Raises ValueError for a system whose arrays are all whole numbers, so that none of them would learn."""
    arrays = [leaf for leaf in jax.tree.leaves(substrate) if eqx.is_array_like(leaf) and jnp.ndim(leaf) > 0]
    if arrays and not any(jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in arrays):
        raise ValueError(
            f"substrate: {type(substrate).__name__} has nothing to train: its arrays are "
            f"{', '.join(sorted({str(jnp.result_type(leaf)) for leaf in arrays}))}; give floats"
        )


def as_arrays(name: str, tree: PyTree) -> PyTree:
    """A list of numbers or rows as an array; other trees as they are. Raises ValueError where a leaf is no array."""
    tree = _listed(tree, name)
    if _are_texts(tree):
        raise ValueError(f"{name}: wanted numbers, got texts; fit and evaluate encode them, or number them in advance")
    for leaf in jax.tree.leaves(tree):
        kind = getattr(leaf, "dtype", np.asarray(leaf).dtype if isinstance(leaf, int | float | complex) else None)
        if kind is None or not (jnp.issubdtype(kind, jnp.number) or jnp.issubdtype(kind, np.bool_)):
            raise ValueError(f"{name}: wanted arrays of numbers, got {type(leaf).__name__ if kind is None else kind}")
    return tree


def free_phase(substrate: Substrate, x: PyTree, key: PRNGKeyArray | None) -> tuple[Equilibrium, Any, Any]:
    """The free equilibria of a batch, its outputs, and the keys for all phases of each example (None without a key)."""
    size = jax.tree.leaves(x)[0].shape[0]
    keys = None if key is None else jax.random.split(key, size)
    free = relax_batch(substrate, x, keys=keys)
    return free, jax.vmap(substrate.read)(free.state, x), keys


def outputs_at_start(substrate: Substrate, x: PyTree, keys: PRNGKeyArray | None) -> Any:
    """What a batch shows before it settles."""
    start = jax.vmap(substrate.start, in_axes=(0, None if keys is None else 0))(x, keys)
    return jax.vmap(substrate.read)(start, x)


def output_shape(substrate: Substrate, x: PyTree) -> tuple[int, ...]:
    """The shape of what the substrate reads for one example of a batch of inputs."""
    first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)
    read = lambda system, x: system.read(system.initial_state(x), x)
    return eqx.filter_eval_shape(read, substrate, first).shape


def _are_labels(y: Any) -> bool:
    return y.ndim == 1 and (np.issubdtype(y.dtype, np.integer) or y.dtype == bool)


def _are_texts(y: Any) -> bool:
    if not isinstance(y, np.ndarray) or not y.size or y.dtype.kind not in "OU":
        return False
    return y.dtype.kind == "U" or all(isinstance(entry, str) for entry in y.ravel())


def _numbered(
    labels: np.ndarray, classes: Sequence[str] | None, name: str
) -> tuple[Int[np.ndarray, "n"], tuple[str, ...]]:
    """The places of texts among their classes, and these."""
    if labels.ndim != 1:
        raise ValueError(f"{name}: wanted one label for each example, shape (n,), got texts of shape {labels.shape}")
    known = tuple(sorted(set(labels.tolist())) if classes is None else classes)
    strange = [label for label in labels.tolist() if label not in known]
    if strange:
        raise ValueError(f"{name}: wanted labels out of {', '.join(map(repr, known[:10]))}, got {strange[0]!r}")
    return np.asarray([known.index(label) for label in labels.tolist()]), known


def _listed(part: Any, name: str) -> Any:
    """An array in place of a list of numbers, rows or texts; other trees as they are."""
    if hasattr(part, "toarray") and hasattr(part, "nnz"):
        raise ValueError(f"{name}: wanted arrays, got a sparse matrix ({type(part).__name__}); give its toarray()")
    if hasattr(part, "to_numpy"):  # a table or a column of one
        return np.asarray(part.to_numpy())
    if not isinstance(part, list) or any(eqx.is_array(leaf) and leaf.ndim for leaf in jax.tree.leaves(part)):
        return part
    try:
        return np.asarray(part)
    except ValueError as error:
        raise ValueError(f"{name}: wanted an array, got a list with rows of unequal length") from error


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
    return array.astype(np.result_type(dtype, np.complex64) if np.iscomplexobj(array) else dtype, copy=False)


def _shapes(data: Any) -> str:
    shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(part)] for part in data]
    return f"X of {shapes[0]} and Y of {shapes[1]}"
