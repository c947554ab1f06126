"""How nodes are joined: connectivity that is static under compilation, and sparse linear maps along it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact


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
