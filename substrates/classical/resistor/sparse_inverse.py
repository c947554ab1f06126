"""Inverts large conductance matrices on the host, by sparse factors or by multigrid, and keeps the latest."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import scipy

from substrates.classical.resistor.layout import Layout, floating_nodes
from substrates.solvers.kept import Kept
from substrates.solvers.multigrid import Multigrid
from substrates.wiring import connected_parts

WIDEST = 700
"""Up to so wide a band, in Cuthill and McKee's order, a matrix is factorised; wider ones are left to multigrid, if they
are made of conductances alone. Measured, it takes over at square lattices of 700 x 700 nodes, cubic ones of 30 x 30 x
30, and random graphs of 2,000 nodes with four resistors each.
"""

HOPELESS = 4000
"""Matrices of so wide a band are not factorised where multigrid failed: their factors would fill the memory."""

FINE, ROUGH = 1e-10, 1e-3
"""What an iterated solution may leave over of the currents, and a refinement of what it left."""

KEPT = 2**29
"""Bytes of inverses that are kept, about."""


class Inverse:
    """K^-1 of a conductance matrix K, roughly: by multigrid, or by factors where that is not for K or has failed.

    Attributes:
        left, right: sparse O_S and O_T, of the currents into the outputs and of what they show.
    """

    def __init__(self, layout: Layout, widest: int, symmetric: bool, conductance: np.ndarray):
        self._symmetric, self._matrix = symmetric, _sparse_matrix(layout, conductance)
        self._band = bandwidth(layout, len(conductance))
        self._grid: Multigrid | None = None
        self.left, self.right = layout.read_test.to_scipy(), layout.read.to_scipy()[:, : len(layout.potentials)]
        if self._band > widest and self._matrix.dtype == np.float64 and _holds_every_node(layout, conductance):
            rows = self._matrix.data, self._matrix.indices, self._matrix.indptr
            self._grid = Multigrid.of(scipy.sparse.csr_matrix(rows, self._matrix.shape))
        else:
            _ = self._factors

    @functools.cached_property
    def _factors(self) -> Any:
        """SuperLU's; None for a singular matrix, and for one that is not finite."""
        symmetric_mode: Any = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0}
        symmetric_mode["options"] = {"SymmetricMode": True}
        if not np.all(np.isfinite(self._matrix.data)):
            return None
        try:
            return scipy.sparse.linalg.splu(self._matrix, **(symmetric_mode if self._symmetric else {}))
        except RuntimeError:  # exactly singular
            return None

    def solve(self, rows: np.ndarray, part: float = FINE) -> np.ndarray:
        """Each row solved, up to a part of it that may be left over; NaN where K is singular."""
        if self._grid is not None:
            solved = [self._grid.solve(row, part) for row in rows]
            if all(done for _, done in solved) or self._band > HOPELESS:
                return np.stack([found for found, _ in solved])
            self._grid = None
        if self._factors is None:
            return np.full_like(rows, np.nan)
        return self._factors.solve(np.ascontiguousarray(rows.T)).T

    @functools.cached_property
    def spread(self) -> np.ndarray:
        """K^-1 O_S', shape (potentials, outputs)."""
        return self.solve(self.left.toarray().astype(self._matrix.dtype)).T

    @functools.cached_property
    def _pivots_positive(self) -> bool:
        factors = self._factors
        if factors is None:
            return False
        if np.iscomplexobj(self._matrix):
            return True
        pivot = factors.U.diagonal()
        if self._symmetric:
            return bool(np.all(pivot > 0) and np.array_equal(factors.perm_r, factors.perm_c))
        odd = np.sum(pivot < 0) + _is_odd(factors.perm_r) + _is_odd(factors.perm_c)
        return bool(odd % 2 == 0 and np.all(pivot != 0))

    @property
    def positive(self) -> bool:
        """Whether K is positive definite, or without an energy its determinant positive; of complex numbers whether
        they have an inverse. Conductances that hold every node always are.
        """
        return self._grid is not None or self._pivots_positive

    @property
    def size(self) -> int:
        """Bytes, about."""
        inverse = 16 * self._factors.nnz if self._grid is None and self._factors else 0
        grid = 0 if self._grid is None else self._grid.size
        return inverse + grid + 12 * self._matrix.nnz + 8 * self.left.shape[0] * self.left.shape[1]


_kept: Kept[Inverse] = Kept(KEPT)


def inverse_of(layout: Layout, widest: int, symmetric: bool, conductance: np.ndarray) -> Inverse:
    """The inverse of the conductance matrix of resistors or, given the conductances of diodes too, of both: made at
    the first request, so that nudged phases share that of the free one.

    Args:
        layout: of the circuit.
        widest: see `WIDEST`.
        symmetric: whether the matrix is.
        conductance: of the elements, real or complex in double precision.
    """
    make = lambda: Inverse(layout, widest, symmetric, conductance)
    return _kept.get((layout, widest, symmetric, conductance.dtype), [conductance], make, lambda made: made.size)


def pattern(layout: Layout, elements: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`Layout.conductance_pattern` of the resistors alone, if there are as many elements, or of diodes too."""
    rows, columns, element, coefficient = layout.conductance_pattern
    if elements == len(layout.edges):
        resistors = element < elements
        return rows[resistors], columns[resistors], element[resistors], coefficient[resistors]
    return rows, columns, element, coefficient


@functools.lru_cache(maxsize=16)
def bandwidth(layout: Layout, elements: int) -> int:
    """How far from the diagonal entries of K stand in the order of Cuthill and McKee.

    Source: Cuthill and McKee 1969, "Reducing the bandwidth of sparse symmetric matrices".
    """
    indices, pointers, _ = _column_pattern(layout, elements)
    size = len(pointers) - 1
    graph: Any = scipy.sparse.csr_array((np.ones(len(indices), bool), indices, pointers), shape=(size, size))
    place = np.empty(size, np.int32)
    place[scipy.sparse.csgraph.reverse_cuthill_mckee(graph, symmetric_mode=True)] = np.arange(size)
    return int(np.abs(place[indices] - np.repeat(place, np.diff(pointers))).max(initial=0))


def _holds_every_node(layout: Layout, conductance: np.ndarray) -> bool:
    """Whether the matrix is one of conductances alone, finite, none negative, that join every node to a driven one."""
    if len(layout.controlled_sources) or not np.all(np.isfinite(conductance) & (conductance >= 0)):
        return False
    # a circuit was refused where nodes float, and resistors that are still there hold what they held
    return bool(np.all(conductance > 0)) or not floating_nodes(layout, conductance[: len(layout.edges)])


@functools.lru_cache(maxsize=16)
def _column_pattern(layout: Layout, elements: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row indices, column pointers, position of every contribution) of K in compressed columns."""
    rows, columns, _, _ = pattern(layout, elements)
    size = len(layout.potentials)
    occupied, position = np.unique(columns.astype(np.int64) * size + rows, return_inverse=True)
    pointers = np.searchsorted(occupied, np.arange(size + 1) * size)
    return (occupied % size).astype(np.int32), pointers.astype(np.int32), position


def _sparse_matrix(layout: Layout, conductance: Any) -> Any:
    _, _, element, coefficient = pattern(layout, len(conductance))
    indices, pointers, position = _column_pattern(layout, len(conductance))
    values = coefficient * conductance[element]
    total = lambda part: np.bincount(position, weights=part, minlength=len(indices))
    entries = total(values.real) + 1j * total(values.imag) if np.iscomplexobj(values) else total(values)
    size = len(layout.potentials)
    return scipy.sparse.csc_array((entries, indices, pointers), shape=(size, size))


def _is_odd(permutation: np.ndarray) -> bool:
    size = len(permutation)
    last_cycle = connected_parts(size, np.stack([np.arange(size), permutation], axis=1)).max(initial=-1)
    return bool((size - 1 - last_cycle) % 2)
