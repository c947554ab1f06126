"""Factors of sparse Hessians on the host, in a band or by nested dissection, kept for those who ask again."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy
import threadpoolctl
from numpy.typing import DTypeLike

from substrates.classical.elastic.springs import HessianPattern, Topology, hessian_pattern, zero_mode_threshold
from substrates.solvers.certificate import state_tolerance
from substrates.solvers.kept import Kept

SPARE = 0.1
"""How much of its own stiffness every spring may lose, in every direction, before the certificate of an anchor ends."""

NARROW = 0.002
"""The spare of the factor that steers: so small that it steers as well as the Hessian itself."""

LEAST_SIDEWAYS = 0.02
"""The sideways stiffness, in units of its own, that compressed springs get where the Hessian is not definite."""

SUPPORT = 1e-3
"""What is then added to the diagonal, in units of the stiffnesses at the node."""

WIDEST = 160
"""A band of that many diagonals is factorised in half the time that nested dissection takes; a wider one is not."""

KEPT = 2**29
"""Bytes of factors that are kept, about."""

PROBES = 4
"""So many random signs of the rounding errors stand for all."""

Springs = Sequence[np.ndarray]
"""(stiffness of each spring, rest length of each, positions of the nodes)."""

Extra = tuple[np.ndarray, np.ndarray] | None
"""What a nudge adds to a Hessian: None, or (some free coordinates, matrix over these)."""

_LEAF = 8


class Factor(NamedTuple):
    """A factorised matrix over the free coordinates.

    Attributes:
        factors: a `BandCholesky` or SciPy's SuperLU object of the permuted matrix; None where the matrix was not
            positive definite.
        order: the free coordinates in the order of elimination.
        exact: whether the matrix was the Hessian less a spare, rather than a propped-up one.
        unit: newtons per metre, in which the matrix was factorised.
        least_pivot: the least that elimination left of a diagonal entry, in units of the entry.
    """

    factors: Any
    order: np.ndarray
    exact: bool
    unit: float
    least_pivot: float

    def solve(self, rows: np.ndarray) -> np.ndarray:
        """Each row solved, shape (count, free)."""
        if self.factors is None:
            return np.full_like(rows, np.nan)
        # rows may be smaller than single precision can hold
        size = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
        size[size == 0] = 1
        ordered = rows[:, self.order] / size
        if not isinstance(self.factors, BandCholesky):
            ordered = ordered.astype(np.float32)
        solved = self.factors.solve(np.asfortranarray(ordered.T)).T
        found = np.empty_like(rows)
        found[:, self.order] = solved * (size / self.unit)
        return found

    @property
    def size(self) -> int:
        """Bytes, about."""
        return 0 if self.factors is None else 16 * self.factors.nnz


_kept: Kept[Factor] = Kept(KEPT)


def anchor_factor(topology: Topology, springs: Springs, *, wide: bool = False) -> Factor:
    """The factor at an anchor, made at the first request; what is asked for, not when, decides the answer.

    It is that of H - spare L, with a narrow spare, to steer by (where that is not definite, of the propped-up Hessian),
    or with a wide one, to certify by.
    """
    make = lambda: _factorise_anchor(topology, springs, wide)
    return _kept.get((topology, wide), springs, make, lambda factor: factor.size)


def certifies(topology: Topology, springs: Springs, loss: float, blur: float) -> bool:
    """Whether a factor at the anchor proves stability after springs have lost that part of their stiffness.

    And whether none of its pivots is below `blur`: there rounding of forces would move the nodes too far.
    """
    if not loss <= SPARE:
        return False
    steering = anchor_factor(topology, springs)
    if not steering.exact or not steering.least_pivot >= blur:
        return False
    return bool(loss <= NARROW) or anchor_factor(topology, springs, wide=True).exact


def loss(topology: Topology, anchor: Springs, springs: Springs) -> float:
    """The largest part of its stiffness that a spring has lost since an anchor, in its worst direction."""

    def parts(springs: Springs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        vectors, lengths, sideways = _measured(topology, springs)
        across = sideways * springs[0]
        return vectors / np.where(lengths > 0, lengths, 1.0)[:, None], across, springs[0] - across

    # K = across + along n n': the largest eigenvalue of p n n' - q m m', whose other eigenvalues are no larger than 0
    (before, across, p), (now, across_now, q) = parts(anchor), parts(springs)
    turned = 1 - np.einsum("ij,ij->i", before, now) ** 2
    largest = (p - q + np.sqrt((p - q) ** 2 + 4 * p * q * np.maximum(turned, 0))) / 2
    held = np.asarray(anchor[0]) > 0  # what is slack has nothing to lose
    return float(np.max((across - across_now + largest)[held] / anchor[0][held], initial=0.0))


def verdict(
    topology: Topology,
    anchor: Springs,
    springs: Springs,
    extra: Extra,
    forces: tuple[np.ndarray, np.ndarray],
    size: float,
    step: float,
) -> Soft:
    """What the factor at an anchor, or else the Hessian itself, tells of the state of some springs.

    The Hessian is above N = H - spare L of the anchor where every spring has kept its stiffness. With a nudge's
    curvature W at the outputs it stays definite if N + W is: if 1 + C'WC is, where C C' is N^-1 there.

    Args:
        topology, anchor, springs: where the factor was made, and the state.
        extra: the curvature of a nudge.
        forces: (what is left over at the free coordinates, the sizes of those that meet there).
        size: of the network.
        step: how far the forces that are left over are known to move the nodes.
    """
    left, scale = forces
    eps = float(np.finfo(scale.dtype).eps)
    # the smallest pivot shows how weakly a strong part is held: its inverse is an entry of the inverse of the part
    lengths = scale / node_stiffness(topology, anchor[0])
    blur = eps / state_tolerance(scale.dtype) * lengths.max(initial=0.0) / size
    lost = loss(topology, anchor, springs)
    if certifies(topology, anchor, lost, blur) and (extra is None or _holds(topology, anchor, lost > NARROW, *extra)):
        return Soft(np.inf, np.zeros(topology.free.size), step, 0.0)
    return softest(topology, springs, extra, zero_mode_threshold(scale.dtype), forces=(left, eps * scale))


def _holds(topology: Topology, anchor: Springs, wide: bool, read: np.ndarray, curvature: np.ndarray) -> bool:
    """Whether an anchor's factor outweighs a nudge's curvature at the coordinates that are read."""
    units = np.zeros((read.size, topology.free.size))
    units[np.arange(read.size), read] = 1.0
    compliance = anchor_factor(topology, anchor, wide=wide).solve(units)[:, read]
    values, modes = np.linalg.eigh((compliance + compliance.T) / 2)
    half = modes * np.sqrt(np.maximum(values, 0))
    return bool(np.linalg.eigvalsh(half.T @ curvature @ half)[0] > -0.9)


def _factorise_anchor(topology: Topology, springs: Springs, wide: bool) -> Factor:
    outer, identity, sideways = spring_parts(topology, springs)
    at_nodes = node_stiffness(topology, springs[0])
    unit = float(at_nodes.max(initial=0.0)) or 1.0  # single precision has no room for every stiffness
    k, at_nodes = np.asarray(springs[0], float)[:, None, None] / unit, at_nodes / unit
    threshold = zero_mode_threshold(springs[0].dtype)
    exact = k * (outer + sideways * (identity - outer))
    spare = (SPARE if wide else NARROW) * k * identity
    found = positive_factor(topology, exact - spare, -threshold * at_nodes, np.float32)
    if found is not None:
        return found._replace(unit=unit)
    if wide:
        return Factor(None, np.zeros(0, int), False, unit, 0.0)
    propped = k * (outer + np.maximum(sideways, LEAST_SIDEWAYS) * (identity - outer))
    found = positive_factor(topology, propped, SUPPORT * at_nodes, np.float32)
    if found is None:  # positions, stiffnesses or rest lengths that are not numbers
        one = np.ones(topology.free.size)
        found = positive_factor(topology, np.broadcast_to(identity, propped.shape), one, np.float32)
    assert found is not None
    return found._replace(exact=False, unit=unit, least_pivot=0.0)


def node_stiffness(topology: Topology, stiffness: np.ndarray) -> np.ndarray:
    """For every free coordinate the sum of the stiffnesses at its node; the largest where that is 0, or else 1."""
    at_nodes = np.bincount(topology.edges.ravel(), np.repeat(stiffness, 2), topology.n)[topology.free // topology.dim]
    return np.where(at_nodes == 0, at_nodes.max(initial=0.0) or 1.0, at_nodes)


def spring_parts(topology: Topology, springs: Springs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n n', 1, 1 - l/r) of every spring, each ready to multiply blocks of shape (m, dim, dim)."""
    vectors, lengths, sideways = _measured(topology, springs)
    unit = vectors / np.where(lengths > 0, lengths, 1.0)[:, None]
    return unit[:, :, None] * unit[:, None, :], np.eye(topology.dim)[None], sideways[:, None, None]


def _measured(topology: Topology, springs: Springs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The vector of every spring, its length, and 1 - l/r; for one of no length 1 where l = 0, else 0."""
    rest_length, positions = (np.asarray(array, float) for array in springs[1:])
    first, second = topology.edges.T
    vectors = positions.take(second, axis=0) - positions.take(first, axis=0)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    apart = lengths > 0
    return vectors, lengths, np.where(apart, 1 - rest_length / np.where(apart, lengths, 1.0), rest_length == 0)


def positive_factor(
    topology: Topology, blocks: np.ndarray, shift: np.ndarray, dtype: DTypeLike, extra: Extra = None
) -> Factor | None:
    """The factors of the Hessian of blocks plus shift, or None where it is not positive definite.

    Args:
        topology, blocks: see `hessian_pattern`.
        shift: added to the diagonal, shape (free coordinates,).
        dtype: of the arithmetic of nested dissection; a band takes double precision.
    """
    narrow = band_layout(topology) if extra is None else None
    if narrow is not None:
        return _positive_band(*narrow, blocks, shift)
    matrix, order = assemble(topology, blocks, shift)
    if extra is not None:
        place = _places(order)
        coordinates, added = extra
        rows, columns = np.meshgrid(place[coordinates], place[coordinates], indexing="ij")
        added = scipy.sparse.coo_array((np.ravel(added), (rows.ravel(), columns.ravel())), shape=matrix.shape)
        matrix = (matrix + added).tocsc()
    matrix = matrix.astype(dtype)
    if not np.all(np.isfinite(matrix.data)):
        return None
    try:
        factors = scipy.sparse.linalg.splu(
            matrix, permc_spec="NATURAL", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
    except RuntimeError:  # exactly singular
        return None
    # a symmetric elimination that never pivots has as many negative pivots as the matrix has negative eigenvalues
    if not np.array_equal(factors.perm_r, factors.perm_c):
        return None
    return _decided(factors, order, factors.U.diagonal(), matrix.diagonal())


def _decided(factors: Any, order: np.ndarray, pivots: np.ndarray, diagonal: np.ndarray) -> Factor | None:
    """The factor if every pivot is positive and more than rounding of the diagonal entry that it is left of."""
    part = pivots / np.where(diagonal > 0, diagonal, np.inf)
    least = float(part.min(initial=1.0))
    return Factor(factors, order, True, 1.0, least) if least > 1e3 * float(np.finfo(pivots.dtype).eps) else None


class Layout(NamedTuple):
    """Where the contributions of `hessian_pattern` stand in a matrix that is factorised.

    Attributes:
        order: the free coordinates in the order of elimination.
        occupied: the places that are not zero, column by column.
        position: for every contribution that counts, which of these it adds to.
        diagonal: which of these stand on the main diagonal.
        entry, sign: those contributions.
    """

    order: np.ndarray
    occupied: np.ndarray
    position: np.ndarray
    diagonal: np.ndarray
    entry: np.ndarray
    sign: np.ndarray

    @classmethod
    def of(cls, pattern: HessianPattern, order: np.ndarray, stride: int, lower: bool) -> Layout:
        """The layout of a matrix whose columns stand `stride` apart; of its lower triangle, or of all of it."""
        place = _places(order)
        rows, columns = place[pattern.rows], place[pattern.columns]
        kept = np.flatnonzero(rows >= columns) if lower else np.arange(len(rows))
        everywhere = np.arange(len(order))
        targets = np.concatenate([columns[kept] * stride + rows[kept], everywhere * (stride + 1)])
        occupied, position = np.unique(targets, return_inverse=True)
        # contributions in the order of their places: summing them walks through memory once
        walk = np.argsort(position[: len(kept)], kind="stable")
        kept, position, diagonal = kept[walk], position[: len(kept)][walk], position[len(kept) :]
        return cls(order, occupied, position, diagonal, pattern.entry[kept], pattern.sign[kept])

    def values(self, blocks: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """The Hessian of blocks plus shifts of the free coordinates, at the places that are not zero."""
        values = np.bincount(self.position, blocks.reshape(-1)[self.entry] * self.sign, len(self.occupied))
        values[self.diagonal] += shift[self.order]
        return values


def _places(order: np.ndarray) -> np.ndarray:
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place


class BandCholesky(NamedTuple):
    """The Cholesky factor of a banded matrix; `solve` and `nnz` are named as SuperLU names them."""

    lower: np.ndarray

    @property
    def pivots(self) -> np.ndarray:
        """What elimination left of each diagonal entry."""
        return self.lower[0] ** 2

    @property
    def nnz(self) -> int:
        """How many numbers the factor holds."""
        return self.lower.size

    def solve(self, columns: np.ndarray) -> np.ndarray:
        """Each column solved."""
        (solve,) = scipy.linalg.get_lapack_funcs(("pbtrs",), (self.lower,))
        solved, _ = solve(self.lower, columns.reshape(len(columns), -1), lower=1)
        return solved.reshape(columns.shape)


@functools.lru_cache(maxsize=8)
def band_layout(topology: Topology) -> tuple[Layout, int] | None:
    """The narrowest band of three, and how many diagonals stand below the main one: nodes as they are numbered, along
    the longest axis, or by Cuthill and McKee. None where even that is wider than `WIDEST`.

    Source: Cuthill and McKee 1969, "Reducing the bandwidth of sparse symmetric matrices".
    """
    pattern = hessian_pattern(topology)
    size = topology.free.size
    joined = np.ones(len(pattern.rows), bool), (pattern.rows, pattern.columns)
    graph: Any = scipy.sparse.coo_array(joined, shape=(size, size))
    places = topology.reference.reshape(-1, topology.dim)
    along = places[topology.free // topology.dim, np.argmax(np.ptp(places, axis=0))]
    orders = [
        np.arange(size),
        np.argsort(along, kind="stable"),
        scipy.sparse.csgraph.reverse_cuthill_mckee(graph.tocsr(), symmetric_mode=True),
    ]
    apart = lambda place: int(np.abs(place[pattern.rows] - place[pattern.columns]).max(initial=0))
    widths = [apart(_places(order)) for order in orders]
    width = min(widths)
    return None if width > WIDEST else (Layout.of(pattern, orders[widths.index(width)], width, lower=True), width)


@functools.lru_cache(maxsize=1)
def _blas() -> threadpoolctl.ThreadpoolController:
    return threadpoolctl.ThreadpoolController()


def _positive_band(layout: Layout, width: int, blocks: np.ndarray, shift: np.ndarray) -> Factor | None:
    """In double precision: in single, what decays away from the diagonal would become denormal numbers: slow ones."""
    values = layout.values(blocks, shift)
    if not np.all(np.isfinite(values)):
        return None
    band = np.zeros((len(layout.order), width + 1))
    band.reshape(-1)[layout.occupied] = values
    (factorise,) = scipy.linalg.get_lapack_funcs(("pbtrf",), (band,))
    with _blas().limit(limits=1, user_api="blas"):  # its blocks are too small to share
        lower, failed = factorise(band.T, lower=1, overwrite_ab=1)
    if failed:
        return None
    factor = BandCholesky(lower)
    return _decided(factor, layout.order, factor.pivots, values[layout.diagonal])


def assemble(topology: Topology, blocks: np.ndarray, shift: np.ndarray) -> tuple[Any, np.ndarray]:
    """The sparse Hessian of blocks plus shift in compressed columns, in the order of elimination; (matrix, order)."""
    layout, indices, pointers = _column_layout(topology)
    size = len(layout.order)
    return scipy.sparse.csc_array((layout.values(blocks, shift), indices, pointers), shape=(size, size)), layout.order


@functools.lru_cache(maxsize=8)
def _column_layout(topology: Topology) -> tuple[Layout, np.ndarray, np.ndarray]:
    order = elimination_order(topology)
    size = len(order)
    layout = Layout.of(hessian_pattern(topology), order, size, lower=False)
    pointers = np.searchsorted(layout.occupied, np.arange(size + 1) * size)
    return layout, (layout.occupied % size).astype(np.int32), pointers.astype(np.int32)


def elimination_order(topology: Topology) -> np.ndarray:
    """The free coordinates in an order of geometric nested dissection: halves first, then what separates them.

    Source: George 1973, "Nested dissection of a regular finite element mesh".
    """
    nodes = topology.free_nodes
    first, second = topology.edges.T
    ends = np.concatenate([first, second]), np.concatenate([second, first])
    graph: Any = scipy.sparse.coo_array((np.ones(len(ends[0]), bool), ends), shape=(topology.n, topology.n)).tocsr()
    above = np.zeros(topology.n, bool)

    def dissect(nodes: np.ndarray) -> list[np.ndarray]:
        if len(nodes) <= _LEAF:
            return [nodes]
        places = topology.reference[nodes]
        along = places[:, np.argmax(np.ptp(places, axis=0))]
        # the median by rank, so that nodes in line are split too
        rank = np.empty(len(nodes), int)
        rank[np.argsort(along, kind="stable")] = np.arange(len(nodes))
        low, high = nodes[rank < len(nodes) // 2], nodes[rank >= len(nodes) // 2]
        above[high] = True
        reached = graph[low]
        touches = np.zeros(len(low), bool)
        hits = above[reached.indices]
        touches[np.repeat(np.arange(len(low)), np.diff(reached.indptr))[hits]] = True
        above[high] = False
        if touches.all():
            return [nodes]
        return [*dissect(low[~touches]), *dissect(high), low[touches]]

    ordered = np.concatenate([*dissect(nodes), np.zeros(0, int)])
    rank = np.empty(topology.n, int)
    rank[ordered] = np.arange(len(ordered))
    owner = topology.free // topology.dim
    return np.argsort(rank[owner], kind="stable")


class Soft(NamedTuple):
    """What a Hessian tells of a state: as `steering.Stability`, in metres, and the softest mode."""

    eigenvalue: float
    mode: np.ndarray
    step: float
    rounding: float


def softest(
    topology: Topology,
    springs: Springs,
    extra: Extra,
    threshold: float,
    *,
    forces: tuple[np.ndarray, np.ndarray] | None = None,
) -> Soft:
    """The smallest eigenvalue of the Hessian, balanced by the stiffnesses at its nodes, and its mode; infinity and 0
    where one factorisation shows it above the threshold. Then also how far the forces that are left over move the
    nodes, and their rounding.

    Args:
        forces: None, or (what is left over at the free coordinates, what rounding makes of it).
    """
    outer, identity, sideways = spring_parts(topology, springs)
    size = topology.free.size
    at_nodes = node_stiffness(topology, springs[0])
    unit = float(at_nodes.max(initial=0.0)) or 1.0
    blocks = np.asarray(springs[0], float)[:, None, None] / unit * (outer + sideways * (identity - outer))
    if not np.all(np.isfinite(blocks)):
        return Soft(np.inf, np.zeros(size), 0.0, 0.0)
    at_nodes = at_nodes / unit
    if extra is not None:
        extra = extra[0], np.asarray(extra[1], float) / unit
        at_nodes[extra[0]] += np.sum(np.abs(extra[1]), axis=1)
    factor = lambda shift, dtype: positive_factor(topology, blocks, shift * at_nodes, dtype, extra)
    # single precision, which is faster, suffices to show stability where it succeeds
    found = factor(-threshold, np.float32) or factor(-threshold, np.float64)
    if found is not None:
        if forces is None:
            return Soft(np.inf, np.zeros(size), 0.0, 0.0)
        left, blur = (np.asarray(force, float) for force in forces)
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (PROBES, size))
        moved = found._replace(unit=unit).solve(np.vstack([left, signs * blur]))
        rounding = np.sqrt(np.mean(moved[1:] ** 2, axis=0))
        return Soft(np.inf, np.zeros(size), np.abs(moved[0]).max(initial=0.0), rounding.max(initial=0.0))
    shift = max(8 * threshold, 1e-9)
    found = factor(shift, np.float64)
    while found is None:  # ends: at a shift of several times the stiffness at the nodes nothing is negative
        shift *= 4
        found = factor(shift, np.float64)
    root = np.sqrt(at_nodes)[found.order]
    inverse: Any = scipy.sparse.linalg.LinearOperator
    inverse = inverse((size, size), matvec=lambda v: root * found.factors.solve(root * v.ravel()), dtype=float)
    start = np.random.default_rng(0).standard_normal(size)
    eigsh: Any = scipy.sparse.linalg.eigsh
    values, vectors = eigsh(inverse, k=1, which="LA", v0=start, tol=1e-6)
    mode = np.empty(size)
    mode[found.order] = vectors[:, 0] / root
    return Soft(1 / values[0] - shift, mode, 0.0, 0.0)


def examples(*arrays: tuple[Any, int]) -> tuple[tuple[int, ...], list[tuple[np.ndarray, ...]]]:
    """(leading shape, one tuple of arrays per example); each array comes with how many axes are its own."""
    values = [(np.asarray(array), own) for array, own in arrays]
    leading = np.broadcast_shapes(*[value.shape[: value.ndim - own] for value, own in values])
    count = math.prod(leading)
    spread = [
        np.broadcast_to(value, leading + value.shape[value.ndim - own :]).reshape(
            count, *value.shape[value.ndim - own :]
        )
        for value, own in values
    ]
    return leading, [tuple(value[k] for value in spread) for k in range(count)]
