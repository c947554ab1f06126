"""What users say to constructors, checked: numbers, nodes and labels. It knows no class."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import operator
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

# numbers


def refuse_traced(name: str, values: Any, owner: str = "network") -> None:
    """Raises ValueError for an array that compiled code traces: what it holds cannot be checked."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(values)):
        raise ValueError(
            f"{name}: wanted numbers when the {owner} is built, got a traced array: build it outside compiled code and "
            "replace the numbers inside with equinox.tree_at"
        )


def real_array(name: str, values: Any, *, dtype: Any = None, owner: str = "network", hint: str = "") -> jax.Array:
    """Real numbers as a JAX array: floating-point ones as they are (those of half precision, which no solver takes, in
    single), whole ones in JAX's default precision.

    Args:
        name: of the argument, for messages.
        values: what the user gave.
        dtype: what they are cast to; None leaves them.
        owner: what is built, for messages.
        hint: what to do instead of giving complex numbers, for messages.

    Raises:
        ValueError: for traced, complex and boolean numbers, and for what is no number at all.
    """
    refuse_traced(name, values, owner)
    kind = _real_kind(name, values, hint)
    if jnp.issubdtype(kind, jnp.integer):
        values = np.asarray(values, float)
    if dtype is None and jnp.issubdtype(kind, jnp.floating) and jnp.finfo(kind).bits < 32:
        dtype = np.float32
    return jnp.asarray(values, dtype)


def one_each(
    name: str,
    values: Any,
    count: int,
    each: str,
    *,
    dtype: Any = None,
    owner: str = "network",
    hint: str = "",
    finite: bool = True,
) -> jax.Array:
    """One real number for each of some things, shape (count,), from an array or from one number for all.

    Raises:
        ValueError: for what `real_array` refuses, other shapes and, with `finite`, for NaN and infinity.
    """
    array = real_array(name, values, dtype=dtype, owner=owner, hint=hint)
    if array.shape not in ((), (count,)):
        raise ValueError(f"{name}: wanted one number or shape ({count},), one per {each}, got shape {array.shape}")
    if finite:
        refuse_not_finite(name, array)
    return array if array.ndim else jnp.asarray(np.full(count, array))  # by NumPy, which compiles nothing


def real_floats(name: str, values: Any, hint: str = "") -> np.ndarray:
    """Real numbers as a NumPy array in double precision, not necessarily finite.

    Raises:
        ValueError: for traced, complex and boolean numbers, and for what is no number at all.
    """
    refuse_traced(name, values)
    _real_kind(name, values, hint)
    return np.asarray(values, float)


def refuse_complex(name: str, *arrays: Any) -> None:
    """Raises ValueError for complex arrays; traced ones have a dtype, too."""
    for array in arrays:
        if jnp.iscomplexobj(array):
            raise ValueError(f"{name}: wanted real numbers, got {jnp.result_type(array)}")


def refuse_complex_input(x: Any, dtype: Any) -> None:
    """Raises ValueError for a complex input of a system whose parameters, of this dtype, are real.

    Where an analytic continuation casts a system to complex numbers, its input goes with it.
    """
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        refuse_complex("x", *jax.tree.leaves(x))


def refuse_not_finite(name: str, values: Any) -> None:
    """Raises ValueError for NaN and infinity, naming where they stand; traced arrays have no numbers to refuse."""
    if isinstance(values, Tracer):
        return
    wrong = np.flatnonzero(~np.isfinite(np.asarray(values)))
    if wrong.size:
        raise ValueError(f"{name}: wanted finite numbers, got NaN or infinity at {wrong[:5].tolist()}")


def _real_kind(name: str, values: Any, hint: str) -> Any:
    _refuse_sparse(name, values)
    try:
        kind = values.dtype if isinstance(values, jax.Array) else np.asarray(values).dtype
    except ValueError as error:
        raise ValueError(f"{name}: wanted an array of real numbers, got rows of unequal length") from error
    objects = kind.kind == "O"
    empty = objects and np.size(values) == 0
    if not (empty or jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)):
        given, also = kind, f"; {hint}" if hint else ""
        if objects:
            strange = (entry for entry in np.asarray(values, object).ravel() if not isinstance(entry, int | float))
            given = type(next(strange, values)).__name__
        raise ValueError(f"{name}: wanted real numbers, got {given}{also}")
    return kind


def numbers(name: str, values: Any, dtype: Any) -> jax.Array:
    """Real or complex numbers as a JAX array: inexact ones as they are, lists, whole numbers and truth values cast.

    Raises:
        ValueError: for what is no array of numbers.
    """
    if isinstance(values, jax.Array) and jnp.issubdtype(values.dtype, jnp.inexact):
        return values
    _refuse_sparse(name, values)
    if not (isinstance(values, list | tuple | range | int | float | complex) or hasattr(values, "__array__")):
        raise ValueError(f"{name}: wanted an array of numbers, got {type(values).__name__}")
    try:
        array = values if isinstance(values, jax.Array) else np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: wanted an array of numbers, got rows of unequal length") from error
    if array.dtype == object or not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool):
        given = type(values).__name__ if array.dtype == object else array.dtype
        raise ValueError(f"{name}: wanted an array of numbers, got {given}")
    listed = not isinstance(values, np.ndarray | np.generic | jax.Array)
    if jnp.issubdtype(array.dtype, jnp.complexfloating) or (jnp.issubdtype(array.dtype, jnp.floating) and not listed):
        return jnp.asarray(array)
    return jnp.asarray(array).astype(dtype)


def flat_too(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """A shape, and that of as many numbers in one row."""
    return (shape, (int(np.prod(shape)),))


def check_key(name: str, key: Any) -> None:
    """Raises ValueError for what is no key of JAX's random numbers."""
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
            return
        if key.dtype == np.uint32 and key.shape == (2,):
            return
        got = f"{key.dtype} of shape {key.shape}"
    else:
        got = repr(key) if isinstance(key, int | str | None) else type(key).__name__
    seed = key if isinstance(key, int) and not isinstance(key, bool) else 0
    raise ValueError(f"{name}: wanted a JAX key, got {got}; give jax.random.key({seed})")


def _refuse_sparse(name: str, values: Any) -> None:
    """Raises ValueError for a sparse matrix of SciPy, which NumPy takes for a single object."""
    if hasattr(values, "toarray") and hasattr(values, "nnz"):
        raise ValueError(
            f"{name}: wanted an array, got a sparse matrix ({type(values).__name__}); give {name}.toarray(), or its "
            "entries along edges by from_edges"
        )


def square(name: str, values: Any) -> np.ndarray:
    """A square matrix of real numbers in double precision.

    Raises:
        ValueError: for other shapes, and for what `real_floats` refuses.
    """
    matrix = real_floats(name, values)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name}: wanted a square matrix of shape (n, n), got shape {matrix.shape}")
    return matrix


# words


def one_of(name: str, value: Any, choices: Any) -> Any:
    """A word of a `Literal`; raises ValueError for any other."""
    if value not in get_args(choices):
        raise ValueError(f"{name}: wanted one of {', '.join(get_args(choices))}, got {value!r}")
    return value


# nodes


def listed(name: str, values: Any) -> Any:
    """Things in an order, as a sequence or an array: what is given once, entry by entry, is listed.

    Raises:
        ValueError: for a set, which has no order, a single thing, and a sparse matrix.
    """
    _refuse_sparse(name, values)
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ValueError(f"{name}: wanted a sequence, got {values!r}; give [{values!r}] for a single one")
    if isinstance(values, set | frozenset):
        raise ValueError(f"{name}: wanted a sequence, got a set, which has no order: give sorted({name}), say")
    if isinstance(values, jax.Array | np.ndarray):
        if not values.ndim:
            raise ValueError(f"{name}: wanted a sequence, got the single {values}; give [{values}]")
        return values
    return values if isinstance(values, Sequence) else list(values)


def refuse_unjoined(name: str, nodes: Any, joined: Iterable[Any], n: Any = None) -> None:
    """Raises ValueError for nodes that no element joins, which do not exist for a circuit.

    Args:
        name: of the argument, for messages.
        nodes: their numbers.
        joined: arrays of the numbers of nodes at the ends of elements.
        n: how many nodes there are, or None where the largest number says it.
    """
    arrays = [np.asarray(nodes), *(np.asarray(ends) for ends in joined)]
    whole_numbers = all(np.issubdtype(array.dtype, np.integer) for array in arrays if array.size)
    if not whole_numbers or any(array.ndim == 2 and array.size and array.shape[1] != 2 for array in arrays):
        return  # refused where the elements are looked at
    ends = np.unique(np.concatenate([array.ravel() for array in arrays[1:] if array.size] or [np.zeros(0, int)]))
    if ends.size and (ends[0] < -1 or (isinstance(n, int | np.integer) and ends[-1] >= n)):
        return  # an element's fault, of which they tell there
    missing = [node for node in arrays[0].ravel().tolist() if node not in ends]
    if missing and ends.size:
        raise ValueError(f"{name}: wanted nodes that elements join, got {missing[:5]}, which none does; mend {name}")


def count_nodes(named: Mapping[str, Any], sized: Iterable[Any] = (), *, grow: bool = False) -> int:
    """How many nodes there are where nobody says it: one more than the largest that is named; 0 without any.

    Args:
        named: the numbers of nodes that each argument names; negative ones (ground) do not count.
        sized: arguments that may hold one number per node.
        grow: whether those may hold more numbers than nodes are named.

    Raises:
        ValueError: where node 0 is named nowhere, which is a node that nothing joins if the others count from 1.
    """
    arrays = {name: np.asarray(nodes) for name, nodes in named.items()}
    arrays = {name: nodes for name, nodes in arrays.items() if nodes.size and np.issubdtype(nodes.dtype, np.number)}
    largest = max((int(np.max(nodes)) for nodes in arrays.values()), default=-1)
    lengths = [np.shape(values)[0] for values in sized if np.ndim(values) == 1]
    n = max([largest + 1, *lengths]) if grow else largest + 1
    if n > 1 and n not in lengths and not any(np.any(nodes == 0) for nodes in arrays.values()):
        raise ValueError(
            f"{', '.join(arrays)}: wanted nodes that count from 0, got none named 0: it would be joined to nothing; "
            f"subtract 1 if they count from 1, or give n={n} if that is meant"
        )
    return n


def whole(name: str, value: Any) -> int:
    """A whole number; raises ValueError for any other."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name}: wanted a whole number, got {value!r}") from None


def check_count(name: str, value: Any, least: int = 1, advice: str = "") -> None:
    """Raises ValueError for what is no whole number of at least so many."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: wanted a whole number, at least {least}{advice}, got {value}")


def different_nodes(name: str, nodes: Any, n: int, each: str = "node") -> tuple[int, ...]:
    """Nodes out of n, each at most once.

    Raises:
        ValueError: for what is no sequence of whole numbers, numbers out of range, and repeated ones.
    """
    array = np.asarray(nodes)
    if array.size == 0:
        return ()
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: wanted a sequence of integer numbers, got {nodes}; from_networkx takes labels")
    wrong = array[(array < 0) | (array >= n)]
    if wrong.size:
        raise ValueError(f"{name}: wanted {each}s from 0 to {n - 1}, got {wrong[:5].tolist()}")
    if len(np.unique(array)) < len(array):
        raise ValueError(f"{name}: wanted each {each} once, got {array.tolist()}")
    return tuple(array.tolist())


MOST_NODES = 2**31 - 1
"""So many nodes are numbered by 32 bits."""


def sides(shape: Any, periodic: Any, each: str = "node") -> tuple[int, ...]:
    """The numbers of nodes along the axes of a lattice, all of which close on themselves or none.

    Raises ValueError for what is no such number, more nodes than can be numbered, and axes of which only some close.
    """
    found = tuple(np.atleast_1d(np.asarray(shape)).tolist())
    if not found or not all(isinstance(side, int) and side > 0 for side in found):
        raise ValueError(f"shape: wanted whole numbers of {each}s along each axis, at least 1, got {shape}")
    if math.prod(found) > MOST_NODES:
        raise ValueError(f"shape: wanted at most {MOST_NODES:,} {each}s in all, got {shape}, {math.prod(found):,}")
    if not isinstance(periodic, bool | np.bool_):
        raise ValueError(
            f"periodic: wanted True or False for all axes alike, got {periodic!r}; where only some close, give the "
            "edges to from_edges"
        )
    return found


# labels


def check_graph(graph: Any) -> None:
    """Raises ValueError for what is no NetworkX graph."""
    if not all(hasattr(graph, name) for name in ("nodes", "edges", "is_directed", "is_multigraph")):
        raise ValueError(f"graph: wanted a NetworkX graph, got {type(graph).__name__}; from_edges takes pairs of nodes")


def numbering(graph: Any, *, parallel: bool = False) -> dict[Hashable, int]:
    """The number of every node of a NetworkX graph, in its order.

    Args:
        graph: undirected.
        parallel: whether several edges may join two nodes.

    Raises:
        ValueError: for directed graphs, which would count an edge twice or one way only, and for parallel edges.
    """
    if graph.is_directed():
        raise ValueError(
            "graph: wanted an undirected graph, as an edge acts on both its ends alike, got a directed one; "
            "give graph.to_undirected() if every edge is meant once"
        )
    if graph.is_multigraph() and not parallel:
        twice = next((edge for edge in graph.edges(keys=False) if graph.number_of_edges(*edge) > 1), None)
        if twice is not None:
            raise ValueError(
                f"graph: wanted an undirected graph without parallel edges, got more than one between {twice[0]!r} and "
                f"{twice[1]!r}; join them into one"
            )
    return {label: k for k, label in enumerate(graph.nodes)}


def on_graph(
    from_edges: Callable[..., Any],
    graph: Any,
    *,
    edges: Iterable[str],
    nodes: Iterable[str],
    inputs: Iterable[Hashable],
    outputs: Iterable[Hashable],
    **options: Any,
) -> Any:
    """What a class builds on the edges of a NetworkX graph, whose nodes are numbered in its order, with their labels.

    Args:
        from_edges: the constructor of the class.
        graph: undirected, without parallel edges.
        edges, nodes: which options hold what every edge has, or every node.
        inputs, outputs: labels of nodes.
        options: of the constructor; see `of_edges` and `of_nodes` for those of edges and nodes.

    Raises ValueError for a label that is no node, an edge or a node without the attribute, and whatever the constructor
    refuses.
    """
    number = numbering(graph)
    for names, of in ((edges, of_edges), (nodes, of_nodes)):
        options |= {name: of(name, options[name], graph) for name in names if name in options}
    options |= {"inputs": numbers_of("inputs", inputs, number), "outputs": numbers_of("outputs", outputs, number)}
    with explained(tuple(number)):
        net = from_edges([(number[a], number[b]) for a, b in graph.edges()], len(number), **options)
    return dataclasses.replace(net, labels=tuple(number))


def is_label(entry: Any, number: Mapping[Hashable, int]) -> bool:
    """Whether something is the label of a node."""
    try:
        return entry in number
    except TypeError:  # not hashable
        return False


def number_of(name: str, label: Any, number: Mapping[Hashable, int], of: str = "nodes of the graph") -> int:
    """The number of a label; raises ValueError for what is none."""
    if not is_label(label, number):
        raise ValueError(f"{name}: wanted labels of {of}, got {label!r}")
    return number[label]


def numbers_of(name: str, labels: Iterable[Any], number: Mapping[Hashable, int]) -> list[int]:
    """The numbers of labels; raises ValueError for what is none."""
    return [number_of(name, label, number) for label in labels]


def by_number(name: str, values: Mapping[Hashable, Any] | None, number: Mapping[Hashable, int]) -> dict[int, Any]:
    """{label: value} as {number: value}; raises ValueError for what is no label."""
    return {number_of(name, label, number): value for label, value in (values or {}).items()}


def by_label(values: Any, n: int, labels: Sequence[Hashable] | None) -> dict[Hashable, Any]:
    """{label: entry} of what each of n nodes has, along the first axis; {number: entry} for nodes without labels.

    Raises:
        ValueError: for another number of entries.
    """
    if np.ndim(values) == 0 or len(values) != n:
        raise ValueError(f"values: wanted one entry for each of the {n} nodes, got shape {np.shape(values)}")
    return dict(zip(range(n) if labels is None else labels, values, strict=True))


def of_nodes(name: str, values: Any, graph: Any) -> Any:
    """What the nodes of a graph have, in its order: from the name of their attribute, from {label: value}, or as given.

    Raises:
        ValueError: naming a node without it.
    """
    if isinstance(values, str):
        found = dict(graph.nodes(data=values))
        missing = [label for label, value in found.items() if value is None]
        if missing:
            raise ValueError(f"{name}: wanted the attribute {values!r} on every node, got none on {missing[0]!r}")
        for label, value in found.items():
            _explained_numbers(name, value, f"in the attribute {values!r} of the node {label!r}")
        return list(found.values())
    if isinstance(values, Mapping):
        strange = [label for label in values if not is_label(label, graph.nodes)]
        missing = [label for label in graph.nodes if label not in values]
        if strange or missing:
            got = f"{strange[0]!r}" if strange else f"nothing for {missing[0]!r}"
            raise ValueError(f"{name}: wanted one entry for each label of a node of the graph, got {got}")
        for label, value in values.items():
            _explained_numbers(name, value, f"for the node {label!r}")
        return [values[label] for label in graph.nodes]
    return values


def of_edges(name: str, values: Any, graph: Any, hint: str = "") -> Any:
    """What the edges of a graph have, in the order of `graph.edges`: from the name of their attribute, or as given.

    Raises:
        ValueError: naming an edge without it, or one where it is no real number.
    """
    if not isinstance(values, str):
        return values
    found = []
    for a, b, attributes in graph.edges(data=True):
        if values not in attributes:
            raise ValueError(
                f"{name}: wanted the attribute {values!r} on every edge, got none on ({a!r}, {b!r}): set it or give an "
                "array"
            )
        where = f"in the attribute {values!r} of the edge ({a!r}, {b!r})"
        number = _explained_numbers(name, attributes[values], where, hint)
        if number.ndim:
            raise ValueError(f"{name}: wanted one number, got shape {number.shape} {where}")
        found.append(number)
    return np.asarray(found, float)


def _explained_numbers(name: str, value: Any, where: str, hint: str = "") -> np.ndarray:
    """`real_floats`, whose refusal says where the value stands."""
    try:
        return real_floats(name, value)
    except ValueError as error:
        text = f" {value!r}" if isinstance(value, str) else ""
        raise ValueError(f"{error}{text} {where}{'; ' + hint if hint else ''}") from None


@contextlib.contextmanager
def explained(labels: Sequence[Hashable]) -> Iterator[None]:
    """Adds to a ValueError raised inside how the nodes of a graph are numbered, where labels are not the numbers."""
    try:
        yield
    except ValueError as error:
        if list(labels) == list(range(len(labels))):
            raise
        first = ", ".join(f"{k} is {label!r}" for k, label in enumerate(labels[:8]))
        more = ", ..." if len(labels) > 8 else ""
        raise ValueError(f"{error} (nodes are numbered in the order of the graph: {first}{more})") from None


def abridged(names: Sequence[Any]) -> str:
    """The first eight of some names, and how many more there are."""
    return ", ".join(map(str, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def number_of_node(name: str, node: Any, n: int, labels: Sequence[Hashable] | None, *, ground: bool = False) -> int:
    """The number of a node that is given as the network was built: by its label, or else by its number.

    Args:
        name: of the argument, for messages.
        node: a label or a number.
        n: how many nodes there are.
        labels: of the nodes; None where they have none.
        ground: whether -1 stands for ground, where it is no label.

    Raises:
        ValueError: for what names no node.
    """
    also = ", or -1 for ground" if ground else ""
    if labels is not None and is_label(node, dict.fromkeys(labels, 0)):
        return labels.index(node)
    grounded = ground and isinstance(node, int | np.integer) and node == -1
    if labels is not None and not grounded:
        raise ValueError(
            f"{name}: wanted the label of a node, as the network was built from labels{also}, got {node!r}"
        )
    if grounded:
        return -1
    if not isinstance(node, int | np.integer) or isinstance(node, bool) or not 0 <= node < n:
        raise ValueError(f"{name}: wanted one from 0 to {n - 1}{also}, got {node!r}")
    return int(node)
