"""What single springs do, which nodes they join, which coordinates are free, and how forces and stiffnesses add up."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Protocol

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from substrates.solvers.solver import System
from substrates.wiring import HashedByContent, SparseMap, summed, taken

State = Inexact[Array, "..."]
"""The positions of the free nodes, shape (free nodes, dim), or the free coordinates, metres."""

DENSE_INCIDENCE = 2**18
"""Up to so many pairs of a free node and a spring, forces are added up by a matrix product."""


def length(vectors: Inexact[Array, "*springs dim"]) -> Inexact[Array, "*springs"]:
    """The length of each vector; analytic, and with the derivative 0 for a vector of no length."""
    root, none = _root(vectors)
    return root - none


class Stretch(eqx.Module):
    """Springs whose ends stand somewhere.

    Attributes:
        length: of each spring, metres.
        inverse: 1/length; 0 for a spring of no length.
        along: the unit vector from the first node to the second; 0 for a spring of no length.
        stiffness: k, newtons per metre; 0 for a rope that is slack.
        tension: k (length - rest length), newtons.
        every_way: k of a spring whose length and rest length are 0, which resists every motion alike; else 0.
    """

    length: Inexact[Array, "springs"]
    inverse: Inexact[Array, "springs"]
    along: Inexact[Array, "springs dim"]
    stiffness: Inexact[Array, "springs"]
    tension: Inexact[Array, "springs"]
    every_way: Inexact[Array, "springs"]

    @classmethod
    def of(
        cls,
        stiffness: Float[Array, "springs"],
        rest_length: Float[Array, "springs"],
        vectors: Inexact[Array, "springs dim"],
        ropes: np.ndarray | None = None,
    ) -> Stretch:
        """The springs along some vectors; of `ropes`, shape (m,), those that are True only pull."""
        root, none = _root(vectors)
        lengths, inverse = root - none, (1 - none) / root
        if ropes is not None:
            stiffness = jnp.where(ropes & (lengths < rest_length), 0, stiffness)
        tension, every_way = stiffness * (lengths - rest_length), jnp.where(rest_length == 0, stiffness * none, 0)
        return cls(lengths, inverse, vectors * inverse[:, None], stiffness, tension, every_way)

    @property
    def pulls(self) -> Inexact[Array, "springs dim"]:
        """The force of each spring on its first node, newtons."""
        return self.tension[:, None] * self.along

    @property
    def blocks(self) -> Inexact[Array, "springs dim dim"]:
        """The Hessian of each spring's energy in its vector, K = k n n' + (tension/length) (1 - n n').

        The stiffness against sideways motion is negative under compression.
        """
        across = self.tension * self.inverse + self.every_way
        outer = self.along[:, :, None] * self.along[:, None, :]
        identity = np.eye(self.along.shape[1], dtype=self.along.dtype)
        return (self.stiffness - across)[:, None, None] * outer + across[:, None, None] * identity[None]


def _root(vectors: Array) -> tuple[Array, Array]:
    """The length of each vector, 1 where it has none, and there another 1, elsewhere 0."""
    square = jnp.sum(vectors * vectors, axis=-1)
    none = (square == 0).astype(square.dtype)
    return jnp.sqrt(square + none), none


def zero_mode_threshold(dtype: Any) -> float:
    """The eigenvalue of the Hessian, balanced by the stiffnesses at its nodes, below which a mode counts as zero."""
    return 8 * float(jnp.finfo(dtype).eps) ** 0.75


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Topology(HashedByContent):
    """The connectivity of n nodes in `dim` dimensions; static under compilation.

    A coordinate is numbered node * dim + axis. Every coordinate is free, or prescribed: then it stands at its
    reference plus what the inputs displace it by.

    Attributes:
        n, dim: the numbers of nodes and of dimensions.
        edges: the two nodes of each spring, shape (m, 2).
        reference: where the nodes stand unloaded, shape (n, dim), metres.
        prescribed: the coordinates that are held or driven, ascending.
        drive: their displacements per unit of each input, shape (prescribed, inputs).
        reading: "displacement", "position" or "distance".
        read_map: for displacements and positions, outputs from all coordinates, shape (outputs, n dim).
        pairs: for distances, the two nodes of each output, shape (outputs, 2).
        ropes: which springs only pull, shape (m,); None for none.
    """

    n: int
    dim: int
    edges: np.ndarray
    reference: np.ndarray
    prescribed: np.ndarray
    drive: SparseMap
    reading: str
    read_map: SparseMap | None
    pairs: np.ndarray
    ropes: np.ndarray | None = None

    @functools.cached_property
    def free(self) -> np.ndarray:
        """The free coordinates, ascending."""
        return np.setdiff1d(np.arange(self.n * self.dim), self.prescribed)

    @functools.cached_property
    def free_nodes(self) -> np.ndarray:
        """The nodes with a free coordinate, ascending."""
        return np.unique(self.free // self.dim)

    @functools.cached_property
    def whole_nodes(self) -> bool:
        """Whether every node is free in all its coordinates or in none."""
        return self.free.size == self.free_nodes.size * self.dim

    @property
    def inputs(self) -> int:
        """How many numbers an input has."""
        return self.drive.shape[1]

    @property
    def outputs(self) -> int:
        """How many numbers are read."""
        return len(self.pairs) if self.read_map is None else self.read_map.shape[0]

    @functools.cached_property
    def read_coordinates(self) -> np.ndarray:
        """The free coordinates that some output depends on, by their numbers among the free ones."""
        if self.read_map is None:
            nodes = np.unique(self.pairs)
            read = (nodes[:, None] * self.dim + np.arange(self.dim)).ravel()
        else:
            read = np.unique(self.read_map.columns)
        place = self.gather[read]
        return np.sort(place[place < self.free.size])

    @property
    def roles(self) -> dict[str, np.ndarray]:
        """The nodes that are driven ("inputs"), otherwise held ("clamped"), and read ("outputs")."""
        driven = np.unique(self.prescribed[np.unique(self.drive.rows)] // self.dim)
        read = self.pairs if self.read_map is None else self.read_map.columns // self.dim
        held = np.setdiff1d(self.prescribed // self.dim, driven)
        return {"inputs": driven, "clamped": held, "outputs": np.unique(read)}

    @functools.cached_property
    def state_shape(self) -> tuple[int, ...]:
        """(free nodes, dim) where whole nodes are free, else (free coordinates,)."""
        return (self.free_nodes.size, self.dim) if self.whole_nodes else (self.free.size,)

    @functools.cached_property
    def gather(self) -> np.ndarray:
        """For every coordinate its place in (free coordinates, then prescribed ones)."""
        place = np.empty(self.n * self.dim, np.int32)
        place[self.free] = np.arange(self.free.size)
        place[self.prescribed] = self.free.size + np.arange(self.prescribed.size)
        return place

    @functools.cached_property
    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Two matrices that carry prescribed displacements to the free coordinates as an affine map of space does.

        Per axis the affine function of the reference that fits the prescribed displacements best, of least norm.
        """
        centre = self.reference.mean(axis=0)
        spread = np.max(np.abs(self.reference - centre), initial=0.0) or 1.0
        ground = np.concatenate([np.ones((self.n, 1)), (self.reference - centre) / spread], axis=1)
        functions = self.dim + 1
        fit = np.zeros((self.dim * functions, self.prescribed.size))
        carry = np.zeros((self.free.size, self.dim * functions))
        for axis in range(self.dim):
            block = slice(axis * functions, (axis + 1) * functions)
            known, unknown = self.prescribed % self.dim == axis, self.free % self.dim == axis
            fit[block, known] = np.linalg.pinv(ground[self.prescribed[known] // self.dim], rcond=1e-9)
            carry[unknown, block] = ground[self.free[unknown] // self.dim]
        return fit, carry

    def free_of(self, at_nodes: Inexact[Array, "nodes dim"]) -> Inexact[Array, "free"]:
        """The free coordinates of vectors at the nodes with a free coordinate."""
        flat = at_nodes.reshape(-1)
        if self.whole_nodes:
            return flat
        return flat[np.searchsorted(self.free_nodes, self.free // self.dim) * self.dim + self.free % self.dim]

    @functools.cached_property
    def incidence(self) -> np.ndarray | None:
        """For nodes with a free coordinate and springs, 1 at the first end, -1 at the second; None for large ones."""
        m = len(self.edges)
        if self.free_nodes.size * m > DENSE_INCIDENCE:
            return None
        incidence = np.zeros((self.n, m))
        incidence[self.edges[:, 0], np.arange(m)] += 1
        incidence[self.edges[:, 1], np.arange(m)] -= 1
        return incidence[self.free_nodes]

    @functools.cached_property
    def springs_at_free(self) -> np.ndarray | None:
        """For each node with a free coordinate its springs: k for the first end of spring k, m + k for its second, 2m
        to pad; None where a few nodes have so many springs that the table would be mostly padding.
        """
        m, nodes = len(self.edges), self.free_nodes
        ends = self.edges.T.ravel()
        degree = np.bincount(ends, minlength=self.n)
        width = int(degree[nodes].max(initial=0))
        if nodes.size * width > 8 * max(2 * m, self.n):
            return None
        order = np.argsort(ends, kind="stable")
        column = np.arange(2 * m) - np.concatenate([[0], np.cumsum(degree)])[ends[order]]
        table = np.full((self.n, width), 2 * m, np.int32)
        listed = column < width
        table[ends[order][listed], column[listed]] = order[listed]
        return table[nodes]

    def meet(
        self, pulls: Inexact[Array, "springs dim"], sizes: Inexact[Array, "springs sizes"] | None = None
    ) -> tuple[Inexact[Array, "free"], Inexact[Array, "free_nodes sizes"] | None]:
        """What meets at the free coordinates of forces on the first node of each spring and the opposite on its second,
        and at their nodes of numbers that springs bring to both.
        """
        if self.incidence is not None:
            incidence = self.incidence.astype(pulls.dtype)
            forces = jnp.matmul(incidence, pulls, precision="highest")
            if sizes is None:
                return self.free_of(forces), None
            at_nodes = jnp.matmul(abs(incidence).astype(sizes.dtype), sizes, precision="highest")
            return self.free_of(forces), at_nodes
        first = pulls if sizes is None else jnp.concatenate([pulls, sizes], axis=1)
        signs = np.where(np.arange(first.shape[1]) < self.dim, -1.0, 1.0).astype(pulls.dtype)
        if self.springs_at_free is None:
            total = jnp.zeros((self.n, first.shape[1]), pulls.dtype)
            total = total.at[self.edges[:, 0]].add(first).at[self.edges[:, 1]].add(first * signs[None])[self.free_nodes]
        else:
            ends = jnp.concatenate([first, first * signs[None], np.zeros((1, first.shape[1]), pulls.dtype)])
            total = jnp.sum(_rows(ends, self.springs_at_free), axis=1)
        return self.free_of(total[:, : self.dim]), None if sizes is None else total[:, self.dim :]

    def at_coordinates(self, at_nodes: Inexact[Array, "free_nodes"]) -> Inexact[Array, "free"]:
        """For every free coordinate the number of its node."""
        return self.free_of(jnp.broadcast_to(at_nodes[:, None], (self.free_nodes.size, self.dim)))

    def placed(self, free: Inexact[Array, "free"], prescribed: Inexact[Array, "prescribed"]) -> Inexact[Array, "n dim"]:
        """The vectors at all nodes whose free and prescribed coordinates are given."""
        return taken(jnp.concatenate([free, prescribed]), self.gather.reshape(self.n, self.dim))

    def vectors(
        self, positions: Inexact[Array, "n dim"], pairs: np.ndarray | None = None
    ) -> Inexact[Array, "springs dim"]:
        """The vector of each spring, or of other pairs of nodes, from its first node to its second, metres."""
        pairs = self.edges if pairs is None else pairs
        return _rows(positions, pairs[:, 1]) - _rows(positions, pairs[:, 0])

    def shown(self, positions: Inexact[Array, "n dim"]) -> Inexact[Array, "outputs"]:
        """What is read where the nodes stand so."""
        if self.read_map is None:
            return length(self.vectors(positions, self.pairs))
        if self.reading == "displacement":
            positions = positions - self.reference.astype(positions.dtype)
        return self.read_map(positions.reshape(-1))

    @functools.cached_property
    def read_slopes(self) -> np.ndarray:
        """The derivatives in `read_coordinates` of displacements or positions that are read, or of the vectors between
        nodes whose distance is, shape (outputs, dim, read).
        """
        read = self.free[self.read_coordinates]
        if self.read_map is not None:
            return self.read_map.to_scipy().tocsc()[:, read].toarray()
        ends = self.pairs[:, :, None] * self.dim + np.arange(self.dim)
        return 1.0 * (ends[:, 1, :, None] == read) - (ends[:, 0, :, None] == read)

    def node_stiffness(self, stiffness: Float[Array, "springs"]) -> Float[Array, "free"]:
        """For every free coordinate the sum of the stiffnesses at its node; the largest where that is 0."""
        _, at_nodes = self.meet(jnp.zeros((len(self.edges), self.dim), stiffness.dtype), stiffness[:, None])
        assert at_nodes is not None
        largest = jnp.max(at_nodes, initial=0.0)
        held = jnp.where(at_nodes > 0, at_nodes, jnp.where(largest > 0, largest, 1.0))
        return self.at_coordinates(held[:, 0])

    def hessian(self, blocks: Float[Array, "springs dim dim"]) -> Float[Array, "free free"]:
        """The dense Hessian over the free coordinates of spring energies with given `Stretch.blocks`."""
        pattern, size = hessian_pattern(self), self.free.size
        entries = taken(blocks.reshape(-1), pattern.entry) * pattern.sign.astype(blocks.dtype)
        return summed(entries, pattern.rows * size + pattern.columns, size**2).reshape(size, size)

    @functools.cached_property
    def volume(self) -> float:
        """The area (volume in 3D) of the convex hull of the reference."""
        from scipy.spatial import ConvexHull

        return float(ConvexHull(self.reference).volume)

    def __repr__(self) -> str:
        sizes = f"{self.n} nodes in {self.dim}D, {len(self.edges)} springs, {self.free.size} free coordinates"
        return f"Topology({sizes}, {self.inputs} inputs, {self.outputs} outputs)"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class HessianPattern:
    """Where the blocks of the springs stand in the dense or sparse Hessian over the free coordinates."""

    rows: np.ndarray
    columns: np.ndarray
    entry: np.ndarray
    sign: np.ndarray


@functools.lru_cache(maxsize=16)
def hessian_pattern(topology: Topology) -> HessianPattern:
    """Every contribution sign * block[entry] at (row, column); `entry` counts through blocks of shape (m, dim, dim)."""
    dim, m = topology.dim, len(topology.edges)
    place = np.where(topology.gather < topology.free.size, topology.gather, -1).reshape(topology.n, dim)
    first, second = topology.edges.T
    parts = []
    for a, b, sign in ((first, first, 1.0), (second, second, 1.0), (first, second, -1.0), (second, first, -1.0)):
        for u in range(dim):
            for v in range(dim):
                rows, columns = place[a, u], place[b, v]
                kept = (rows >= 0) & (columns >= 0)
                entry = (np.arange(m) * dim + u) * dim + v
                parts.append((rows[kept], columns[kept], entry[kept], np.full(kept.sum(), sign)))
    rows, columns, entry, sign = (np.concatenate(part) for part in zip(*parts, strict=True))
    return HessianPattern(rows, columns, entry, sign)


class Weighed(eqx.Module):
    """What springs and loads do where nodes stand somewhere.

    Attributes:
        springs: how they are stretched.
        energy: joules.
        force: on the free coordinates, newtons.
        scale: the sizes of the forces that meet there, see `ElasticNetwork.force_scale`.
        extent: how far from the origin a coordinate is, metres.
    """

    springs: Stretch
    energy: Inexact[Array, ""]
    force: Inexact[Array, "free"]
    scale: Float[Array, "free"]
    extent: Float[Array, ""]


class SpringNetwork(System, Protocol):
    """What solvers know of an elastic network."""

    @property
    def stiffness(self) -> Float[Array, "springs"]: ...
    @property
    def rest_length(self) -> Float[Array, "springs"]: ...
    @property
    def topology(self) -> Topology: ...
    @property
    def reference(self) -> np.ndarray: ...
    def prescribed(self, x: Float[Array, "inputs"]) -> Inexact[Array, "prescribed"]: ...
    def weighed(self, positions: Inexact[Array, "n dim"]) -> Weighed: ...
    def positions(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "n dim"]: ...


def _rows(values: Inexact[Array, "rows dim"], rows: np.ndarray) -> Inexact[Array, "*places dim"]:
    return values.at[rows].get(mode="promise_in_bounds", wrap_negative_indices=False)
