"""How nodes are joined: couplings between groups of nodes and along the bonds of a graph, and sparse linear maps.

Pairwise systems share one algebra. Between an earlier group u and a later group v a coupling W offers `forward`, what
the later group feels, and `backward`, what the earlier one feels: the two derivatives of the interaction
<v, forward(u)>. Within a group, bonds offer `product`, W s. The energies of Hopfield networks -v'Wu, of Ising models
-s'Ws/2 and of oscillators -Re(z*'Wz)/2 are then a few lines each, dense, convolutional or on any graph; groups that are
not joined to one another (every other layer, the colours of a graph) settle together.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from substrates.correlation import correlate

Pooling = Literal["max", "average", "soft"]


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
            else:
                digest.update(f"{field.name} {value!r}".encode())
        return digest.digest()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._digest == other._digest  # pyright: ignore[reportAttributeAccessIssue]

    def __hash__(self) -> int:
        return hash(self._digest)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SparseMap(HashedByContent):
    """A constant sparse matrix A of shape (targets, sources), applied inside compiled code by segment sums.

    Attributes:
        shape: (targets, sources).
        rows, columns, values: its entries; the rows ascend.
    """

    shape: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    @classmethod
    def from_scipy(cls, matrix: Any) -> SparseMap:
        """The map of a SciPy sparse matrix."""
        entries = matrix.tocsr()
        entries.sum_duplicates()
        entries.eliminate_zeros()
        entries = entries.tocoo()
        return cls(tuple(entries.shape), entries.row.astype(np.int32), entries.col.astype(np.int32), entries.data)

    def to_scipy(self) -> Any:
        """The matrix in SciPy's compressed sparse row format."""
        import scipy.sparse

        return scipy.sparse.csr_array((self.values, (self.rows, self.columns)), shape=self.shape)

    def __call__(self, vector: Inexact[Array, "sources"]) -> Inexact[Array, "targets"]:
        """A @ vector."""
        products = self.values.astype(vector.dtype) * vector[self.columns]
        return jax.ops.segment_sum(products, self.rows, self.shape[0], indices_are_sorted=True)

    def transpose(self, vector: Inexact[Array, "targets"]) -> Inexact[Array, "sources"]:
        """A' @ vector."""
        products = self.values.astype(vector.dtype) * vector[self.rows]
        return jax.ops.segment_sum(products, self.columns, self.shape[1])

    @functools.cached_property
    def absolute(self) -> SparseMap:
        """The map of the magnitudes of the entries."""
        return SparseMap(self.shape, self.rows, self.columns, np.abs(self.values))

    def dense(self, dtype: Any) -> Inexact[Array, "targets sources"]:
        """The matrix, dense."""
        matrix = np.zeros(self.shape, dtype)
        np.add.at(matrix, (self.rows, self.columns), self.values.astype(dtype))
        return jnp.asarray(matrix)

    def __repr__(self) -> str:
        return f"SparseMap({self.shape[0]}x{self.shape[1]}, {self.values.size} entries)"


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
        return self.pool(self.convolve(u))

    def backward(
        self, v: Inexact[Array, "rows columns after"], u: Inexact[Array, "height width before"]
    ) -> Inexact[Array, "height width before"]:
        """What the earlier group feels: d<v, P(w * u)>/du."""
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


@dataclasses.dataclass(frozen=True, eq=False)
class Graph(HashedByContent):
    """An undirected graph of n nodes without loops or parallel edges; static under compilation.

    Attributes:
        n: the number of nodes.
        edges: shape (m, 2), integers.
    """

    n: int
    edges: np.ndarray

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
        return cls(n, edges.astype(np.int32))

    @functools.cached_property
    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """For every node its neighbours and the edges to them, each of shape (n, largest degree).

        Rows are filled up with node 0 along the edge m, which stands for none.
        """
        m = len(self.edges)
        ends = np.concatenate([self.edges, self.edges[:, ::-1]])
        order = np.argsort(ends[:, 0], kind="stable")
        start, other, edge = ends[order, 0], ends[order, 1], np.tile(np.arange(m), 2)[order]
        degree = np.bincount(start, minlength=self.n)
        slot = np.arange(2 * m) - np.repeat(np.cumsum(degree) - degree, degree)
        nodes = np.zeros((self.n, max(int(degree.max(initial=0)), 1)), np.int32)
        along = np.full_like(nodes, m)
        nodes[start, slot], along[start, slot] = other, edge
        return nodes, along

    @functools.cached_property
    def colours(self) -> tuple[np.ndarray, ...]:
        """Classes of nodes that are not joined to one another, few of them; two for a bipartite graph."""
        import networkx as nx

        graph = nx.Graph()
        graph.add_nodes_from(range(self.n))
        graph.add_edges_from(self.edges.tolist())
        colour = nx.coloring.greedy_color(graph, strategy="connected_sequential_bfs")
        found = np.asarray([colour[node] for node in range(self.n)], int)
        return tuple(np.flatnonzero(found == c).astype(np.int32) for c in range(found.max(initial=-1) + 1))

    @functools.cached_property
    def parts(self) -> np.ndarray:
        """The number of the connected part of every node, shape (n,)."""
        import scipy.sparse.csgraph

        ones = np.ones(len(self.edges), np.int8)
        matrix = scipy.sparse.coo_array((ones, (self.edges[:, 0], self.edges[:, 1])), shape=(self.n, self.n))
        return scipy.sparse.csgraph.connected_components(matrix, directed=False)[1]

    def __repr__(self) -> str:
        return f"Graph({self.n} nodes, {len(self.edges)} edges)"


class Bonds(eqx.Module):
    """Symmetric couplings W_ij along the edges of a graph, one number per pair: product(s)_i = sum_j W_ij s_j.

    Attributes:
        weight: W_ij of each edge, shape (m,).
        graph: which nodes the edges join.
    """

    weight: Float[Array, "edges"]
    graph: Graph = eqx.field(static=True)

    def __check_init__(self):
        if jnp.shape(self.weight) != (len(self.graph.edges),):
            raise ValueError(
                f"weight: wanted shape ({len(self.graph.edges)},), one coupling per edge, got {jnp.shape(self.weight)}"
            )

    @property
    def dense(self) -> bool:
        """Whether `product` goes by the matrix: where nodes have so many neighbours that it is quicker."""
        return self.graph.neighbours[0].shape[1] > self.graph.n // 8

    def matrix(self) -> Float[Array, "nodes nodes"]:
        """W as a symmetric matrix with zeros on the diagonal."""
        i, j = self.graph.edges.T
        half = jnp.zeros((self.graph.n, self.graph.n), self.weight.dtype).at[i, j].set(self.weight)
        return half + half.T

    def product(self, s: Inexact[Array, "*batch nodes"]) -> Inexact[Array, "*batch nodes"]:
        """W s: what every node feels from its neighbours."""
        if self.dense:
            return s @ self.matrix()
        nodes, along = self.graph.neighbours
        weight = jnp.concatenate([self.weight, jnp.zeros(1, self.weight.dtype)])
        return jnp.sum(weight[along] * s[..., nodes], axis=-1)

    def interaction(
        self, s: Inexact[Array, "*batch nodes"], t: Inexact[Array, "*batch nodes"]
    ) -> Inexact[Array, "*batch"]:
        """The sum over pairs of W_ij (s_i t_j + t_i s_j) / 2: for t = s the sum of W_ij s_i s_j, each pair once."""
        return 0.5 * jnp.sum(s * self.product(t), axis=-1)


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
