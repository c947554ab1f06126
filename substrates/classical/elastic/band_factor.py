"""Cholesky factors of Hessians whose free coordinates can be numbered so that springs join near numbers."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from substrates.classical.elastic.topology import Topology, hessian_pattern

WIDEST = 160
"""A band of that many diagonals is factorised in half the time that nested dissection takes; a wider one is not."""


class BandLayout(NamedTuple):
    """Where the contributions of `hessian_pattern` stand in a band.

    Attributes:
        order: the free coordinates in the order of elimination.
        width: how many diagonals stand below the main one.
        occupied: the places in the band, column by column, that are not zero.
        position: for every contribution that counts, which of these it adds to.
        diagonal: which of these stand on the main diagonal.
        entry, sign: those contributions.
    """

    order: np.ndarray
    width: int
    occupied: np.ndarray
    position: np.ndarray
    diagonal: np.ndarray
    entry: np.ndarray
    sign: np.ndarray


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
        import scipy.linalg

        (solve,) = scipy.linalg.get_lapack_funcs(("pbtrs",), (self.lower,))
        solved, _ = solve(self.lower, columns.reshape(len(columns), -1), lower=1)
        return solved.reshape(columns.shape)


@functools.lru_cache(maxsize=8)
def band_layout(topology: Topology) -> BandLayout | None:
    """The narrowest band of three: nodes as they are numbered, along the longest axis, or by Cuthill and McKee.

    None where even that is wider than `WIDEST`.

    Source: Cuthill and McKee 1969, "Reducing the bandwidth of sparse symmetric matrices".
    """
    import scipy.sparse
    import scipy.sparse.csgraph

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
    order, width, place = min((_numbered(order, pattern) for order in orders), key=lambda numbered: numbered[1])
    if width > WIDEST:
        return None
    rows, columns = place[pattern.rows], place[pattern.columns]
    kept = np.flatnonzero(rows >= columns)
    everywhere = np.arange(size)
    targets = np.concatenate([columns[kept] * width + rows[kept], everywhere * (width + 1)])
    occupied, position = np.unique(targets, return_inverse=True)
    # contributions in the order of their places: summing them walks through memory once
    walk = np.argsort(position[: len(kept)], kind="stable")
    return BandLayout(
        order,
        width,
        occupied,
        position[: len(kept)][walk],
        position[len(kept) :],
        pattern.entry[kept][walk],
        pattern.sign[kept][walk],
    )


@functools.lru_cache(maxsize=1)
def _blas() -> Any:
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def _numbered(order: np.ndarray, pattern: Any) -> tuple[np.ndarray, int, np.ndarray]:
    """(order, half the width of its band, the place of every free coordinate)."""
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return order, int(np.abs(place[pattern.rows] - place[pattern.columns]).max(initial=0)), place


def positive_band(layout: BandLayout, blocks: np.ndarray, shift: np.ndarray) -> tuple[BandCholesky, np.ndarray] | None:
    """(factor, diagonal) of the Hessian of blocks plus shifts of the free coordinates; None where it is not finite or
    not positive definite.

    In double precision: in single, what decays away from the diagonal would become denormal numbers, which are slow.
    """
    import scipy.linalg

    values = np.bincount(layout.position, blocks.reshape(-1)[layout.entry] * layout.sign, len(layout.occupied))
    values[layout.diagonal] += shift[layout.order]
    if not np.all(np.isfinite(values)):
        return None
    band = np.zeros((len(layout.order), layout.width + 1))
    band.reshape(-1)[layout.occupied] = values
    (factorise,) = scipy.linalg.get_lapack_funcs(("pbtrf",), (band,))
    with _blas().limit(limits=1, user_api="blas"):  # its blocks are too small to share
        lower, failed = factorise(band.T, lower=1, overwrite_ab=1)
    return None if failed else (BandCholesky(lower), values[layout.diagonal])
