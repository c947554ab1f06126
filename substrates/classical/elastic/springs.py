"""What single springs do, which nodes they join, which coordinates are free, and how forces and stiffnesses add up."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from substrates.solvers.solver import System
from substrates.wiring import HashedByContent, SparseMap

State = Inexact[Array, "..."]
"""The positions of the free nodes, shape (free nodes, dim), or the free coordinates, metres."""

DENSE_INCIDENCE = 2**18
"""Up to so many pairs of a free node and a spring, forces are added up by a matrix product."""


def length(vectors: Inexact[Array, "*springs dim"]) -> Inexact[Array, "*springs"]:
    """The length of each vector; analytic, and with the derivative 0 for a vector of no length."""
    square = jnp.sum(vectors * vectors, axis=-1)
    none = square == 0
    return jnp.where(none, 0.0, jnp.sqrt(jnp.where(none, 1.0, square)))


def direction(
    vectors: Inexact[Array, "springs dim"], lengths: Inexact[Array, "springs"]
) -> Inexact[Array, "springs dim"]:
    """The unit vector along each spring; 0 for one of no length."""
    none = lengths == 0
    return vectors * jnp.where(none, 0.0, 1 / jnp.where(none, 1.0, lengths))[..., None]


def stiffness_blocks(
    stiffness: Float[Array, "springs"],
    rest_length: Float[Array, "springs"],
    vectors: Float[Array, "springs dim"],
    least: float | None = None,
) -> Float[Array, "springs dim dim"]:
    """The Hessian of each spring's energy in its vector, K = k (n n' + (1 - l/r)(1 - n n')), shape (m, dim, dim).

    1 - l/r, the stiffness against sideways motion in units of its own, is negative under compression. With `least` it
    is at least that, so that K is positive definite.
    """
    lengths = length(vectors)
    unit = direction(vectors, lengths)
    sideways = 1 - rest_length / jnp.where(lengths == 0, rest_length, lengths)
    if least is not None:
        sideways = jnp.maximum(sideways, least)
    identity = jnp.eye(vectors.shape[-1], dtype=vectors.dtype)
    outer = unit[..., :, None] * unit[..., None, :]
    return stiffness[..., None, None] * (sideways[..., None, None] * (identity - outer) + outer)


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

    @functools.cached_property
    def incident(self) -> np.ndarray | None:
        """For every node its springs, as `springs_at` lists them."""
        return self.springs_at(np.arange(self.n))

    @functools.cached_property
    def incident_to_free(self) -> np.ndarray | None:
        """For every node with a free coordinate its springs, as `springs_at` lists them."""
        return self.springs_at(self.free_nodes)

    def free_of(self, at_nodes: Inexact[Array, "nodes dim"]) -> Inexact[Array, "free"]:
        """The free coordinates of vectors at the nodes with a free coordinate."""
        flat = at_nodes.reshape(-1)
        if self.whole_nodes:
            return flat
        return flat[np.searchsorted(self.free_nodes, self.free // self.dim) * self.dim + self.free % self.dim]

    def springs_at(self, nodes: np.ndarray) -> np.ndarray | None:
        """For each of some nodes its springs: k for the second end of spring k, m + k for its first, 2m to pad.

        None where a few nodes have so many springs that the table would be mostly padding.
        """
        m = len(self.edges)
        degree = np.bincount(self.edges.ravel(), minlength=self.n)
        width = int(degree[nodes].max(initial=0))
        if nodes.size * width > 8 * max(2 * m, self.n):
            return None
        ends = np.concatenate([self.edges[:, 1], self.edges[:, 0]])
        order = np.argsort(ends, kind="stable")
        row = np.full(self.n, -1)
        row[nodes] = np.arange(nodes.size)
        column = np.arange(2 * m) - np.concatenate([[0], np.cumsum(degree)])[ends[order]]
        listed = row[ends[order]] >= 0
        table = np.full((nodes.size, width), 2 * m, np.int32)
        table[row[ends[order]][listed], column[listed]] = order[listed]
        return table

    def collect(self, pulls: Inexact[Array, "springs dim"]) -> Inexact[Array, "coordinates"]:
        """The force on every coordinate from what each spring does to its second node; the first feels the opposite."""
        total = jnp.zeros((self.n, self.dim), pulls.dtype)
        return total.at[self.edges[:, 1]].add(pulls).at[self.edges[:, 0]].add(-pulls).reshape(-1)

    @functools.cached_property
    def incidence_at_free(self) -> np.ndarray | None:
        """1 where a spring has its second end at a node with a free coordinate, -1 its first; None for large ones."""
        m = len(self.edges)
        if self.free_nodes.size * m > DENSE_INCIDENCE:
            return None
        incidence = np.zeros((self.n, m))
        incidence[self.edges[:, 1], np.arange(m)] += 1
        incidence[self.edges[:, 0], np.arange(m)] -= 1
        return incidence[self.free_nodes]

    def collect_at_free(self, pulls: Inexact[Array, "springs dim"]) -> Inexact[Array, "free"]:
        """The force on the free coordinates alone."""
        if self.incidence_at_free is not None:
            incidence = jnp.asarray(self.incidence_at_free, pulls.dtype)
            return self.free_of(jnp.matmul(incidence, pulls, precision="highest"))
        if self.incident_to_free is None:
            return self.collect(pulls)[self.free]
        padded = jnp.concatenate([pulls, -pulls, jnp.zeros((1, self.dim), pulls.dtype)])
        return self.free_of(jnp.sum(padded[self.incident_to_free], axis=1))

    def sum_at_nodes(self, weights: Inexact[Array, "springs"]) -> Inexact[Array, "n"]:
        """For every node the sum over its springs."""
        if self.incident is None:
            return jax.ops.segment_sum(
                jnp.concatenate([weights, weights]), jnp.asarray(self.edges.T.reshape(-1)), self.n
            )
        padded = jnp.concatenate([weights, weights, jnp.zeros(1, weights.dtype)])
        return jnp.sum(padded[self.incident], axis=1)

    def vectors(self, positions: Inexact[Array, "n dim"]) -> Inexact[Array, "springs dim"]:
        """The vector of each spring from its first node to its second, metres."""
        return positions[self.edges[:, 1]] - positions[self.edges[:, 0]]

    def node_stiffness(self, stiffness: Float[Array, "springs"]) -> Float[Array, "free"]:
        """For every free coordinate the sum of the stiffnesses at its node; the largest where that is 0."""
        at_nodes = self.sum_at_nodes(stiffness)[self.free // self.dim]
        largest = jnp.max(at_nodes, initial=0.0)
        return jnp.where(at_nodes > 0, at_nodes, jnp.where(largest > 0, largest, 1.0))

    def hessian(self, blocks: Float[Array, "springs dim dim"]) -> Float[Array, "free free"]:
        """The dense Hessian over the free coordinates of spring energies with given `stiffness_blocks`."""
        pattern = hessian_pattern(self)
        entries = blocks.reshape(-1)[pattern.entry] * pattern.sign.astype(blocks.dtype)
        return jnp.zeros((self.free.size,) * 2, blocks.dtype).at[pattern.rows, pattern.columns].add(entries)

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
    def energy(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, ""]: ...
    def positions(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "n dim"]: ...
