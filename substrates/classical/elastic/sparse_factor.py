"""Factors of sparse Hessians on the host, in a band or by nested dissection, kept for those who ask again."""

from __future__ import annotations

import collections
import functools
import itertools
import threading
from typing import Any, NamedTuple

import numpy as np

from substrates.classical.elastic.band_factor import BandCholesky, band_layout, positive_band
from substrates.classical.elastic.topology import Topology, hessian_pattern

KEPT = 2**29
"""Bytes of factors that are kept, about; the one asked for longest ago goes first, the last one stays."""

IDLE = 4
"""A factor goes, too, after so many requests more than factors are kept, none of them for it: its memory serves the
next one, and touching new memory may take longer than factorising."""

NARROW = 0.002
"""The spare of the factor that steers: so small that it steers as well as the Hessian itself."""

_LEAF = 8
_kept: collections.OrderedDict[int, tuple[tuple[Any, ...], Factor]] = collections.OrderedDict()
_requests = itertools.count()
_lock = threading.Lock()


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


def anchor_factor(
    topology: Topology, stiffness: np.ndarray, rest_length: np.ndarray, positions: np.ndarray, *, wide: bool = False
) -> Factor:
    """The factor at an anchor, made at the first request; what is asked for, not when, decides the answer.

    It is that of H - spare L, with a narrow spare, to steer by (where that is not definite, of the propped-up Hessian),
    or with a wide one, to certify by.
    """
    key = (topology, wide, stiffness, rest_length, positions)
    with _lock:
        now = next(_requests)
        while _kept and now - next(iter(_kept)) > IDLE + len(_kept):
            _kept.popitem(last=False)
        for asked, (known, factor) in reversed(_kept.items()):
            if known[:2] == key[:2] and all(map(np.array_equal, known[2:], key[2:])):
                _kept[now] = _kept.pop(asked)
                return factor
    factor = _factorise_anchor(*key)
    with _lock:
        _kept[now] = (topology, wide, *(np.array(array) for array in key[2:])), factor
        while len(_kept) > 1 and sum(factor.size for _, factor in _kept.values()) > KEPT:
            _kept.popitem(last=False)
    return factor


def certifies(
    topology: Topology,
    stiffness: np.ndarray,
    rest_length: np.ndarray,
    positions: np.ndarray,
    loss: np.ndarray,
    blur: np.ndarray,
) -> bool:
    """Whether a factor at the anchor proves stability after springs have lost that part of their stiffness.

    And whether none of its pivots is below `blur`: there rounding of forces would move the nodes too far.
    """
    from substrates.classical.elastic.preconditioner import SPARE

    if not loss <= SPARE:
        return False
    steering = anchor_factor(topology, stiffness, rest_length, positions)
    if not steering.exact or not steering.least_pivot >= blur:
        return False
    return bool(loss <= NARROW) or anchor_factor(topology, stiffness, rest_length, positions, wide=True).exact


def _factorise_anchor(topology: Topology, wide: bool, stiffness: Any, rest_length: Any, positions: Any) -> Factor:
    from substrates.classical.elastic.preconditioner import LEAST_SIDEWAYS, SPARE, SUPPORT, zero_mode_threshold

    outer, identity, sideways = spring_parts(topology, stiffness, rest_length, positions)
    at_nodes = node_stiffness(topology, stiffness)
    unit = float(at_nodes.max(initial=0.0)) or 1.0  # single precision has no room for every stiffness
    k, at_nodes = np.asarray(stiffness, float)[:, None, None] / unit, at_nodes / unit
    threshold = zero_mode_threshold(np.asarray(stiffness).dtype)
    exact = k * (outer + sideways * (identity - outer))
    spare = (SPARE if wide else NARROW) * k * identity
    found = positive_factor(topology, exact - spare, -threshold * at_nodes, np.float32)
    if found is not None:
        return Factor(found.factors, found.order, True, unit, found.least_pivot)
    if wide:
        return Factor(None, np.zeros(0, int), False, unit, 0.0)
    propped = k * (outer + np.maximum(sideways, LEAST_SIDEWAYS) * (identity - outer))
    found = positive_factor(topology, propped, SUPPORT * at_nodes, np.float32)
    if found is None:  # positions, stiffnesses or rest lengths that are not numbers
        one = np.ones(topology.free.size)
        found = positive_factor(topology, np.broadcast_to(identity, propped.shape), one, np.float32)
    assert found is not None
    return Factor(found.factors, found.order, False, unit, 0.0)


def node_stiffness(topology: Topology, stiffness: Any) -> np.ndarray:
    """For every free coordinate the sum of the stiffnesses at its node; the largest where that is 0."""
    at_nodes = np.bincount(topology.edges.ravel(), np.repeat(stiffness, 2), topology.n)[topology.free // topology.dim]
    return np.where(at_nodes == 0, at_nodes.max(initial=0.0), at_nodes)


def spring_parts(topology: Topology, stiffness: Any, rest_length: Any, positions: Any) -> tuple[Any, Any, Any]:
    """(n n', 1, 1 - l/r) of every spring, each ready to multiply blocks of shape (m, dim, dim)."""
    positions = np.asarray(positions, float)
    vectors = positions[topology.edges[:, 1]] - positions[topology.edges[:, 0]]
    lengths = np.sqrt(np.sum(vectors**2, axis=1))
    apart = lengths > 0
    unit = vectors / np.where(apart, lengths, 1.0)[:, None]
    sideways = np.where(apart, 1 - np.asarray(rest_length, float) / np.where(apart, lengths, 1.0), 0.0)
    return unit[:, :, None] * unit[:, None, :], np.eye(topology.dim)[None], sideways[:, None, None]


class Positive(NamedTuple):
    """A factorised positive definite matrix over the free coordinates; see `Factor`."""

    factors: Any
    order: np.ndarray
    least_pivot: float


def positive_factor(
    topology: Topology, blocks: np.ndarray, shift: np.ndarray, dtype: Any, extra: Any = None
) -> Positive | None:
    """The factors of the Hessian of blocks plus shift, or None where it is not positive definite.

    Args:
        topology, blocks: see `hessian_pattern`.
        shift: added to the diagonal, shape (free coordinates,).
        dtype: of the arithmetic of nested dissection; a band takes double precision.
        extra: None, or (coordinates, matrix): what a nudge adds on some free coordinates.
    """
    import scipy.sparse
    import scipy.sparse.linalg

    narrow = band_layout(topology) if extra is None else None
    if narrow is not None:
        band = positive_band(narrow, blocks, shift)
        return None if band is None else _decided(band[0], narrow.order, band[0].pivots, band[1])
    matrix, order = assemble(topology, blocks, shift)
    if extra is not None:
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
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


def _decided(factors: Any, order: np.ndarray, pivots: np.ndarray, diagonal: np.ndarray) -> Positive | None:
    """The factor if every pivot is positive and more than rounding of the diagonal entry that it is left of."""
    part = pivots / np.where(diagonal > 0, diagonal, np.inf)
    least = float(part.min(initial=1.0))
    return Positive(factors, order, least) if least > 1e3 * float(np.finfo(pivots.dtype).eps) else None


def assemble(topology: Topology, blocks: np.ndarray, shift: np.ndarray) -> tuple[Any, np.ndarray]:
    """The sparse Hessian of blocks plus shift in compressed columns, in the order of elimination; (matrix, order)."""
    import scipy.sparse

    layout = _layout(topology)
    contributions = blocks.reshape(-1)[layout.entry] * layout.sign
    values = np.bincount(layout.position, contributions, minlength=len(layout.indices))
    values[layout.diagonal] += shift[layout.order]
    size = len(layout.order)
    return scipy.sparse.csc_array((values, layout.indices, layout.pointers), shape=(size, size)), layout.order


class _Layout(NamedTuple):
    order: np.ndarray
    indices: np.ndarray
    pointers: np.ndarray
    position: np.ndarray
    diagonal: np.ndarray
    entry: np.ndarray
    sign: np.ndarray


@functools.lru_cache(maxsize=8)
def _layout(topology: Topology) -> _Layout:
    pattern = hessian_pattern(topology)
    order = elimination_order(topology)
    size = len(order)
    place = np.empty(size, np.int64)
    place[order] = np.arange(size)
    everywhere = np.arange(size)
    rows = np.concatenate([place[pattern.rows], everywhere])
    columns = np.concatenate([place[pattern.columns], everywhere])
    occupied, position = np.unique(columns * size + rows, return_inverse=True)
    pointers = np.searchsorted(occupied, np.arange(size + 1) * size)
    count = len(pattern.rows)
    # contributions in the order of their places: summing them walks through memory once
    walk = np.argsort(position[:count], kind="stable")
    return _Layout(
        order,
        (occupied % size).astype(np.int32),
        pointers.astype(np.int32),
        position[:count][walk],
        position[count:],
        pattern.entry[walk],
        pattern.sign[walk],
    )


def elimination_order(topology: Topology) -> np.ndarray:
    """The free coordinates in an order of geometric nested dissection: halves first, then what separates them.

    Source: George 1973, "Nested dissection of a regular finite element mesh".
    """
    import scipy.sparse

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
    """What a Hessian tells of a state; see `substrates.classical.elastic.stability.Softest`."""

    eigenvalue: float
    mode: np.ndarray
    step: float
    rounding: float


PROBES = 4
"""So many random signs of the rounding errors stand for all."""


def softest(
    topology: Topology,
    stiffness: Any,
    rest_length: Any,
    positions: Any,
    extra: Any,
    threshold: float,
    *,
    forces: Any = None,
    stretched: bool = True,
) -> Soft:
    """The smallest eigenvalue of the Hessian, balanced by the stiffnesses at its nodes, and its mode; infinity and 0
    where one factorisation shows it above the threshold. Then also how far the forces that are left over move the
    nodes, and their rounding.

    Args:
        extra: None, or (coordinates, matrix): what a nudge adds on some free coordinates.
        forces: None, or (what is left over at the free coordinates, what rounding makes of it).
        stretched: whether springs are stressed; if not they resist along their length alone.
    """
    import scipy.sparse.linalg

    outer, identity, sideways = spring_parts(topology, stiffness, rest_length, positions)
    size = topology.free.size
    at_nodes = node_stiffness(topology, stiffness)
    unit = float(at_nodes.max(initial=0.0)) or 1.0
    blocks = np.asarray(stiffness, float)[:, None, None] / unit * (outer + stretched * sideways * (identity - outer))
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
        moved = Factor(found.factors, found.order, True, unit, found.least_pivot).solve(np.vstack([left, signs * blur]))
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
