"""Constant sparse linear maps, applied inside compiled code."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact

from substrates.wiring.graphs import HashedByContent, summed, taken


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
        products = self.values.astype(vector.dtype) * taken(vector, self.columns)
        return summed(products, self.rows, self.shape[0], in_order=True)

    def transpose(self, vector: Inexact[Array, "targets"]) -> Inexact[Array, "sources"]:
        """A' @ vector."""
        products = self.values.astype(vector.dtype) * taken(vector, self.rows)
        return summed(products, self.columns, self.shape[1])

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
