"""Graphs and the bonds along their edges.

What a large graph is, is part of the programs that are compiled for it; a small one is run-time numbers, so that
another of the same size compiles nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int, Shaped

from substrates import arguments


class HashedByContent:
    """Gives frozen dataclasses of numpy arrays an equality and a hash by content, as static fields of a module need."""

    @functools.cached_property
    def _digest(self) -> bytes:
        digest = hashlib.sha256()
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                digest.update(f"{field.name} {value.shape} {value.dtype}".encode())
                digest.update(np.ascontiguousarray(value).tobytes())
            elif isinstance(value, HashedByContent):
                digest.update(value._digest)
            else:
                digest.update(f"{field.name} {value!r}".encode())
        return digest.digest()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._digest == other._digest  # pyright: ignore[reportAttributeAccessIssue]

    def __hash__(self) -> int:
        return hash(self._digest)


def taken(values: Shaped[Any, "*batch nodes"], nodes: Int[Any, "*places"]) -> Any:
    """values[..., nodes] for numbers of nodes that are known to exist: one gather, without a look at their signs."""
    return jnp.asarray(values).at[..., nodes].get(mode="promise_in_bounds", wrap_negative_indices=False)


def with_leading_axes(values: Shaped[Any, "*shape"], ndim: int) -> Any:
    """Values with axes of length 1 before theirs, ndim axes in all."""
    return jnp.asarray(values).reshape((1,) * (ndim - jnp.ndim(values)) + jnp.shape(values))


def added(a: Shaped[Any, "*shape"], b: Shaped[Any, "*shape"]) -> Any:
    """a + b, the one with fewer axes repeated along the leading ones of the other: biases of channels, say."""
    ndim = max(jnp.ndim(a), jnp.ndim(b))
    return with_leading_axes(a, ndim) + with_leading_axes(b, ndim)


def summed(
    values: Inexact[Any, "places"], nodes: Int[Any, "places"], n: int, in_order: bool = False
) -> Inexact[Array, "n"]:
    """The sums of the values that belong to each of n nodes; a value of node n belongs to none and is dropped."""
    zeros = jnp.zeros(n, values.dtype)
    return zeros.at[nodes].add(values, mode="drop", wrap_negative_indices=False, indices_are_sorted=in_order)


def lattice_edges(shape: tuple[int, ...], periodic: bool = False) -> np.ndarray:
    """The nearest-neighbour pairs of a grid of any dimension, shape (m, 2); nodes are numbered in C order.

    A periodic axis of length 2 joins its two nodes once.
    """
    nodes = np.arange(int(np.prod(shape))).reshape(shape)
    pairs = []
    for axis, length in enumerate(shape):
        first = np.take(nodes, range(length - 1), axis)
        second = np.take(nodes, range(1, length), axis)
        pairs.append(np.stack([first.ravel(), second.ravel()], axis=1))
        if periodic and length > 2:
            ends = np.take(nodes, [length - 1], axis), np.take(nodes, [0], axis)
            pairs.append(np.stack([end.ravel() for end in ends], axis=1))
    return np.concatenate(pairs) if pairs else np.zeros((0, 2), int)


def connected_parts(n: int, edges: np.ndarray) -> np.ndarray:
    """The number of the connected part of each of n nodes, shape (n,), parts numbered by their first node.

    Args:
        n: how many nodes.
        edges: shape (m, 2), integers from 0 to n - 1; in any direction, loops and repetitions allowed.
    """
    first, second = edges.T
    part = np.arange(n)
    while np.any(part[first] != part[second]):
        ends = part[first], part[second]
        np.minimum.at(part, np.maximum(*ends), np.minimum(*ends))
        while np.any(part[part] != part):
            part = part[part]
    return np.unique(part, return_inverse=True)[1]


def colour_classes(n: int, edges: np.ndarray) -> tuple[np.ndarray, ...]:
    """Classes of n nodes, none joined to another of its class, few of them: greedily in the order of a search in
    breadth, so two for a bipartite graph.

    Args:
        n: how many nodes.
        edges: shape (m, 2), integers from 0 to n - 1, without loops.
    """
    neighbours: list[list[int]] = [[] for _ in range(n)]
    for first, second in edges.tolist():
        neighbours[first].append(second)
        neighbours[second].append(first)
    colour: dict[int, int] = {}
    seen: set[int] = set()
    for first in range(n):
        queue = [] if first in seen else [first]
        for node in queue:
            taken = {colour.get(other) for other in neighbours[node]}
            colour[node] = next(c for c in range(n) if c not in taken)
            seen.add(node)
            for other in neighbours[node]:
                if other not in seen:
                    seen.add(other)
                    queue.append(other)
    found = np.asarray([colour[node] for node in range(n)], int)
    return tuple(np.flatnonzero(found == c) for c in range(found.max(initial=-1) + 1))


def neighbour_table(n: int, nodes: np.ndarray, others: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of n nodes its neighbours and the edges to them, each of shape (n, largest degree, at least 1).

    Rows are filled up with node 0 along an edge that stands for none, one more than the largest.

    Args:
        n: how many nodes.
        nodes, others, edges: for every edge seen from either end that node, the one at the other end, and the number of
            the edge.
    """
    order = np.argsort(nodes, kind="stable")
    degree = np.bincount(nodes, minlength=n)
    slot = np.arange(len(nodes)) - np.repeat(np.cumsum(degree) - degree, degree)
    table = np.zeros((n, max(int(degree.max(initial=0)), 1)), np.int32)
    along = np.full_like(table, edges.max(initial=-1) + 1)
    table[nodes[order], slot], along[nodes[order], slot] = others[order], edges[order]
    return table, along


MOST_NODES_AT_RUN_TIME = 64
"""Up to this many nodes a graph is run-time numbers, and couplings along its edges a whole matrix."""


class Joined(HashedByContent):
    """Nodes and what joins them, as numbers: of a large graph, part of the programs that are compiled for it.

    Attributes:
        n: the number of nodes.
        pairs: the nodes that each edge joins, shape (m, 2), integers.
        count: the number of edges, m.
        degree: the largest number of edges at a node, at least 1; a lattice may tell a larger one.
        neighbours: for every node its neighbours and the edges to them, each of shape (n, largest degree); see
            `neighbour_table`.
        between: the edge that joins each two nodes, shape (n, n); m where none does.
        colours, parts: see `Graph`.
    """

    n: int
    pairs: Any

    @property
    def count(self) -> int:
        return len(self.pairs)

    @property
    def degree(self) -> int:
        return self.neighbours[0].shape[1]

    def product(self, weight: Array, s: Inexact[Any, "*batch nodes"]) -> Inexact[Array, "*batch nodes"]:
        """What every node feels from its neighbours by couplings along the edges, shape (m,); see `Bonds.product`."""
        nodes, along = self.neighbours
        none = jnp.concatenate([weight, np.zeros(1, weight.dtype)])
        return jnp.sum(with_leading_axes(taken(none, along), jnp.ndim(s) + 1) * taken(s, nodes), axis=-1)

    def alignment(self, weight: Array, s: Inexact[Any, "nodes"]) -> Inexact[Array, ""]:
        """The sum of W_ij s_i s_j over the edges; see `Bonds.alignment`."""
        return alignment(weight, s, self.pairs)

    @functools.cached_property
    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        ends = np.concatenate([self.pairs, self.pairs[:, ::-1]])
        return neighbour_table(self.n, ends[:, 0], ends[:, 1], np.tile(np.arange(len(self.pairs)), 2))

    @functools.cached_property
    def between(self) -> np.ndarray:
        table = np.full((self.n, self.n), len(self.pairs), np.int32)
        i, j = self.pairs.T
        table[i, j] = table[j, i] = np.arange(len(self.pairs))
        return table

    @functools.cached_property
    def colours(self) -> tuple[np.ndarray, ...]:
        return tuple(members.astype(np.int32) for members in colour_classes(self.n, self.pairs))

    @functools.cached_property
    def parts(self) -> np.ndarray:
        return connected_parts(self.n, self.pairs)


@dataclasses.dataclass(frozen=True, eq=False)
class Edges(Joined):
    """Nodes that any edges join, which are listed."""

    n: int
    pairs: np.ndarray


def alignment(
    weight: Float[Array, "edges"], s: Inexact[Any, "nodes"], pairs: Int[Any, "edges 2"]
) -> Inexact[Array, ""]:
    """The sum of W_ij s_i s_j over pairs of nodes."""
    return jnp.sum(weight * jnp.prod(taken(s, pairs), axis=1))


class Graph(eqx.Module):
    """An undirected graph of n nodes without loops or parallel edges.

    Attributes:
        n: the number of nodes.
        run_time: the edges of a small graph, shape (m, 2), integers: arguments of compiled programs, traced inside.
        between: of a small graph the edge that joins each two nodes, shape (n, n); m where none does.
        compiled: the edges of a larger one, part of the program.
    """

    n: int = eqx.field(static=True)
    run_time: Int[Any, "edges 2"] | None
    between: Int[Any, "n n"] | None
    compiled: Joined | None = eqx.field(static=True)

    @classmethod
    def from_edges(cls, edges: Any, n: int) -> Graph:
        """The graph with these edges, checked.

        Raises:
            ValueError: for edges that are not (m, 2) integers, nodes out of range, loops and parallel edges.
        """
        edges = np.asarray(edges)
        edges = edges.reshape(0, 2).astype(int) if edges.size == 0 else edges
        if edges.ndim != 2 or edges.shape[1] != 2 or not np.issubdtype(edges.dtype, np.integer):
            raise ValueError(f"edges: wanted an (m, 2) array of integers, got {edges.dtype} of shape {edges.shape}")
        outside = edges[((edges < 0) | (edges >= n)).any(axis=1)]
        if len(outside):
            raise ValueError(f"edges: wanted nodes from 0 to {n - 1}, got {tuple(map(int, outside[0]))}")
        loops = edges[edges[:, 0] == edges[:, 1]]
        if len(loops):
            raise ValueError(f"edges: wanted two different nodes, got the self-coupling {tuple(map(int, loops[0]))}")
        ordered, counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                f"edges: wanted each pair once, got {tuple(map(int, ordered[np.argmax(counts)]))} more than once; add "
                "their couplings"
            )
        return cls.joining(edges, n)

    @classmethod
    def naming(
        cls,
        edges: Any,
        n: int | None,
        named: Mapping[str, Sequence[int]],
        sized: Sequence[Any],
        what: str = "node",
    ) -> Graph:
        """The graph of n nodes with these edges; without n, of as many as arguments name or have numbers for.

        Args:
            edges: pairs of nodes.
            n: how many nodes there are, or None.
            named: other arguments that name nodes.
            sized: arguments that may hold one number per node.
            what: what a node is, for the error.

        Raises ValueError for no node at all, and as `from_edges`.
        """
        pairs = np.asarray(edges)
        if n is None:
            n = arguments.count_nodes({"edges": pairs, **named}, sized, grow=True)
        n = arguments.whole("n", n)
        if n < 1:
            raise ValueError(f"n: wanted at least one {what}, got {n}")
        return cls.from_edges(pairs, n)

    @classmethod
    def joining(cls, edges: Int[np.ndarray, "edges 2"], n: int) -> Graph:
        """The graph with edges that are known to be right."""
        known = Edges(n, edges.astype(np.int32))
        small = n <= MOST_NODES_AT_RUN_TIME
        return cls(n, known.pairs, known.between, None) if small else cls(n, None, None, known)

    @property
    def edges(self) -> Any:
        """Shape (m, 2), integers; a tracer inside compiled programs where the graph is small."""
        return self.run_time if self.compiled is None else self.compiled.pairs

    @property
    def known(self) -> Joined:
        """The edges as numbers; of a small graph only outside compiled programs."""
        return Edges(self.n, np.asarray(self.run_time)) if self.compiled is None else self.compiled

    @property
    def count(self) -> int:
        """The number of edges."""
        return len(self.edges) if self.compiled is None else self.compiled.count

    @property
    def colours(self) -> tuple[np.ndarray, ...]:
        """Classes of nodes that are not joined to one another, few of them; two for a bipartite graph."""
        return self.known.colours

    @property
    def parts(self) -> np.ndarray:
        """The number of the connected part of every node, shape (n,)."""
        return self.known.parts

    def __repr__(self) -> str:
        return f"Graph({self.n} nodes, {self.count} edges)"


class Bonds(eqx.Module):
    """Symmetric couplings W_ij along the edges of a graph, one number per pair: product(s)_i = sum_j W_ij s_j.

    Attributes:
        weight: W_ij of each edge, shape (m,).
        graph: which nodes the edges join.
    """

    weight: Float[Array, "edges"]
    graph: Graph

    def __check_init__(self):
        if jnp.shape(self.weight) != (self.graph.count,):
            raise ValueError(
                f"weight: wanted shape ({self.graph.count},), one coupling per edge, got {jnp.shape(self.weight)}"
            )

    @property
    def dense(self) -> bool:
        """Whether `product` goes by the matrix: for small graphs, and where nodes have so many neighbours that it is
        quicker.
        """
        known = self.graph.compiled
        return known is None or known.degree > self.graph.n // 8

    def along(self, edges: Int[Any, "*shape"]) -> Float[Array, "*shape"]:
        """The couplings of edges given by their numbers; 0 for the number that stands for none."""
        return taken(jnp.concatenate([self.weight, np.zeros(1, self.weight.dtype)]), edges)

    def matrix(self) -> Float[Array, "nodes nodes"]:
        """W as a symmetric matrix with zeros on the diagonal."""
        known = self.graph.compiled
        if known is None:
            return self.along(self.graph.between)
        i, j = known.pairs.T
        return jnp.zeros((known.n, known.n), self.weight.dtype).at[i, j].set(self.weight).at[j, i].set(self.weight)

    def product(self, s: Inexact[Any, "*batch nodes"]) -> Inexact[Array, "*batch nodes"]:
        """W s: what every node feels from its neighbours."""
        if self.dense:
            return s @ self.matrix()
        assert self.graph.compiled is not None
        return self.graph.compiled.product(self.weight, s)

    def alignment(self, s: Inexact[Any, "nodes"]) -> Inexact[Array, ""]:
        """The sum over pairs of W_ij s_i s_j, each pair once."""
        known = self.graph.compiled
        return alignment(self.weight, s, self.graph.edges) if known is None else known.alignment(self.weight, s)

    def interaction(
        self, s: Inexact[Array, "*batch nodes"], t: Inexact[Array, "*batch nodes"]
    ) -> Inexact[Array, "*batch"]:
        """The sum over pairs of W_ij (s_i t_j + t_i s_j) / 2: for t = s the sum of W_ij s_i s_j, each pair once."""
        return 0.5 * jnp.sum(s * self.product(t), axis=-1)
