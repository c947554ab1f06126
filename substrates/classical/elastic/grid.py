"""Large Hessians on the host: conjugate gradients with algebraic multigrid that knows how the network moves rigidly."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any, NamedTuple, Self

import numpy as np
import scipy
from jaxtyping import Float

from substrates.classical.elastic.sparse_factor import (
    LEAST_SIDEWAYS,
    Extra,
    Soft,
    Springs,
    node_stiffness,
    spring_parts,
)
from substrates.classical.elastic.springs import Topology
from substrates.solvers.kept import Kept
from substrates.solvers.multigrid import Multigrid

MOST_FACTORED = 2**18
"""Up to so many free coordinates sparse Hessians are factorised; larger ones are left to multigrid, which is as quick
at twice as many, in a quarter of the memory.
"""

KEPT = 2**29
"""Bytes of hierarchies that are kept, about."""

PROOF = 1e-6
"""Random forces that conjugate gradients balance up to such a part, without meeting negative curvature, prove a Hessian
positive definite: where all Ritz values are positive, no force along a negative mode becomes smaller. That both forces
were so small along it from the start has a chance of some 1e-12 times the number of free coordinates.
"""

PROBES = 2
"""So many random signs are such forces, and stand for all roundings."""

ROUGH = 1e-2
"""What may be left of other forces."""

SUPPORT = 1e-9
"""What is added to the diagonal of what a hierarchy is made of, in units of the stiffnesses at the node."""

MODES, ROUNDS = 3, 60
"""So many soft modes are sought together, in at most so many rounds."""


def by_grid(topology: Topology) -> bool:
    """Whether a network is so large that multigrid serves it."""
    return topology.free.size > MOST_FACTORED


class Blocks(NamedTuple):
    """Where the blocks of springs stand in a Hessian of whole nodes, those with a free coordinate.

    Attributes:
        nodes: how many there are.
        free: where the free coordinates stand among those of whole nodes.
        held: coordinates of these nodes that are prescribed.
        edge, sign, position: of every contribution its spring, its sign, and the block that it adds to.
        indices, pointers: of blocks in compressed rows.
        diagonal: the blocks on the diagonal.
        row: of each block.
    """

    nodes: int
    free: np.ndarray
    held: np.ndarray
    edge: np.ndarray
    sign: np.ndarray
    position: np.ndarray
    indices: np.ndarray
    pointers: np.ndarray
    diagonal: np.ndarray
    row: np.ndarray

    @classmethod
    def of(cls, topology: Topology) -> Self:
        """Those of a network."""
        nodes, dim, m = topology.free_nodes, topology.dim, len(topology.edges)
        place = np.full(topology.n, -1)
        place[nodes] = np.arange(len(nodes))
        first, second = place[topology.edges].T
        everywhere = np.arange(len(nodes))
        rows = np.concatenate([first, second, first, second, everywhere])
        columns = np.concatenate([first, second, second, first, everywhere])
        edge = np.concatenate([np.tile(np.arange(m), 4), np.zeros(len(nodes), int)])
        sign = np.concatenate([np.repeat([1.0, 1.0, -1.0, -1.0], m), np.zeros(len(nodes))])
        kept = (rows >= 0) & (columns >= 0)
        rows, columns = rows[kept], columns[kept]
        occupied, position = np.unique(rows * len(nodes) + columns, return_inverse=True)
        free = place[topology.free // dim] * dim + topology.free % dim
        pointers = np.searchsorted(occupied, np.arange(len(nodes) + 1) * len(nodes)).astype(np.int32)
        row = occupied // len(nodes)
        indices = (occupied % len(nodes)).astype(np.int32)
        held = np.setdiff1d(np.arange(len(nodes) * dim), free)
        diagonal = position[-len(nodes) :]
        return cls(len(nodes), free, held, edge[kept], sign[kept], position, indices, pointers, diagonal, row)

    def matrix(self, blocks: np.ndarray, shift: np.ndarray) -> Any:
        """The Hessian of blocks, shape (springs, dim, dim), plus shifts of the free coordinates."""
        dim = blocks.shape[1]
        values = np.empty((len(self.indices), dim, dim))
        for u in range(dim):
            for v in range(dim):
                values[:, u, v] = np.bincount(self.position, blocks[self.edge, u, v] * self.sign, len(values))
        added = np.zeros(self.nodes * dim)
        added[self.free] = shift
        if self.held.size:
            moves = np.ones((self.nodes, dim))
            moves.reshape(-1)[self.held] = 0.0
            values *= moves[self.row][:, :, None] * moves[self.indices][:, None, :]
            added[self.held] = 1.0
        axes = np.arange(dim)
        values[self.diagonal[:, None], axes, axes] += added.reshape(self.nodes, dim)
        size = self.nodes * dim
        return scipy.sparse.bsr_matrix((values, self.indices, self.pointers), shape=(size, size))


@functools.lru_cache(maxsize=4)
def _blocks_of(topology: Topology) -> Blocks:
    return Blocks.of(topology)


@dataclasses.dataclass(frozen=True)
class Grid:
    """About the inverse of a Hessian in which every spring resists sideways.

    Attributes:
        layout: of the network.
        multigrid: of its whole nodes.
    """

    layout: Blocks
    multigrid: Multigrid

    def solve(self, rows: Float[np.ndarray, "count free"]) -> Float[np.ndarray, "count free"]:
        """Each row, about, by one cycle."""
        return np.stack([self.multigrid.cycle(self.whole(row))[self.layout.free] for row in rows])

    def whole(self, values: Float[np.ndarray, "free"]) -> Float[np.ndarray, "coordinates"]:
        """Numbers at the free coordinates among those of whole nodes, 0 at the others."""
        found = np.zeros(self.multigrid.matrix.shape[0])
        found[self.layout.free] = values
        return found


_kept: Kept[Grid] = Kept(KEPT)


def grid_at(topology: Topology, springs: Springs) -> Grid:
    """The hierarchy at an anchor, made at the first request. Springs under compression resist sideways a little, so
    that it is positive definite wherever springs hold the network.
    """

    def make() -> Grid:
        outer, identity, sideways = spring_parts(topology, springs)
        k = np.asarray(springs[0], float)[:, None, None]
        blocks = k * (outer + np.maximum(sideways, LEAST_SIDEWAYS) * (identity - outer))
        layout, support = _blocks_of(topology), SUPPORT * node_stiffness(topology, springs[0])
        motions = rigid_motions(np.asarray(springs[2], float)[topology.free_nodes])
        return Grid(layout, Multigrid.of(layout.matrix(blocks, support), motions))

    return _kept.get(topology, springs, make, lambda grid: grid.multigrid.size)


def softest(
    topology: Topology,
    springs: Springs,
    extra: Extra,
    threshold: float,
    *,
    forces: tuple[np.ndarray, np.ndarray] | None = None,
    anchor: Springs | None = None,
) -> Soft:
    """What `sparse_factor.softest` tells, from conjugate gradients in place of factors: see `PROOF`. Where they meet
    negative curvature, or come to no end, the softest mode is sought by itself.

    Args:
        anchor: where the hierarchy is made; None for the springs.
    """
    grid = grid_at(topology, springs if anchor is None else anchor)
    outer, identity, sideways = spring_parts(topology, springs)
    blocks = np.asarray(springs[0], float)[:, None, None] * (outer + sideways * (identity - outer))
    at_nodes, size = node_stiffness(topology, springs[0]).astype(float), topology.free.size
    if extra is not None:
        at_nodes[extra[0]] += np.sum(np.abs(extra[1]), axis=1)
    if not np.all(np.isfinite(blocks)):
        return Soft(np.inf, np.zeros(size), 0.0, 0.0)
    hessian = grid.layout.matrix(blocks, -threshold * at_nodes)
    read = None if extra is None else grid.layout.free[extra[0]]

    def action(moved: np.ndarray) -> np.ndarray:
        felt = hessian @ moved
        if read is not None and extra is not None:
            felt[read] += extra[1] @ moved[read]
        return felt

    left, blur = (np.zeros(size), at_nodes) if forces is None else (np.asarray(force, float) for force in forces)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (PROBES, size))
    solved = [grid.multigrid.solve(grid.whole(sign * blur), PROOF, action) for sign in signs]
    if all(done for _, done in solved):
        if forces is None:
            return Soft(np.inf, np.zeros(size), 0.0, 0.0)
        step = np.abs(grid.multigrid.solve(grid.whole(left), ROUGH, action)[0]).max(initial=0.0)
        rounding = np.sqrt(np.mean([found**2 for found, _ in solved], axis=0))
        return Soft(np.inf, np.zeros(size), float(step), float(rounding.max(initial=0.0)))
    root = np.sqrt(grid.whole(at_nodes) + (grid.whole(np.ones(size)) == 0))
    operator: Any = functools.partial(scipy.sparse.linalg.LinearOperator, hessian.shape, dtype=float)
    guess = np.random.default_rng(1).standard_normal((hessian.shape[0], MODES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # how precise the eigenvalue is matters less than its sign
        values, modes = scipy.sparse.linalg.lobpcg(
            operator(lambda v: action(v.ravel() / root) / root),
            guess,
            M=operator(lambda v: root * grid.multigrid.cycle(root * v.ravel())),
            largest=False,
            maxiter=ROUNDS,
        )
    softest = int(np.argmin(values))
    return Soft(float(values[softest]) + threshold, (modes[:, softest] / root)[grid.layout.free], 0.0, 0.0)


def rigid_motions(positions: Float[np.ndarray, "nodes dim"]) -> Float[np.ndarray, "coordinates motions"]:
    """The translations and, about the centre, the rotations to first order, of one size."""
    n, dim = positions.shape
    apart = positions - positions.mean(axis=0)
    apart = apart / (np.abs(apart).max(initial=0.0) or 1.0)
    planes = [(u, v) for v in range(dim) for u in range(v)]
    motions = np.zeros((n, dim, dim + len(planes)))
    motions[:, np.arange(dim), np.arange(dim)] = 1.0
    for number, (u, v) in enumerate(planes):
        motions[:, u, dim + number], motions[:, v, dim + number] = -apart[:, v], apart[:, u]
    return motions.reshape(n * dim, -1)
