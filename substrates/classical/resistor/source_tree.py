"""The trees that voltage sources form: node voltages as sums of source values along the way from a root."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Inexact

from substrates.classical.resistor.elements import GROUND
from substrates.wiring import SparseMap, connected_parts, summed, taken

MOST_PATH_ENTRIES = 2**20
"""Up to so many steps on the ways to all nodes a map along them is written out; n sources in series have n^2/2."""


class SourceTree(NamedTuple):
    """Spanning trees of the voltage sources of a circuit without loops of them.

    Sources join nodes into groups. The root of a group is ground, or its lowest node, whose voltage is an independent
    potential. The voltage of a node is that of its root and the sum of its own step and those on the way there.

    Attributes:
        potentials: the roots but ground, ascending; a node without sources is one.
        root: of every node; GROUND for ground.
        steps: the step of each node from the source values, +1 or -1 times that of one source; shape (n, sources).
        jumps: in row k the node that is 2^k steps nearer to the root, n where there is none; shape (rows, n).
        entries: how many steps there are on the ways to all nodes.
    """

    potentials: np.ndarray
    root: np.ndarray
    steps: Any
    jumps: np.ndarray
    entries: int

    @classmethod
    def of(cls, n: int, sources: np.ndarray) -> Self:
        """That of n nodes and sources (plus, minus), shape (sources, 2), without loops."""
        parent, source, sign = _nearer(n, sources)
        moved = np.flatnonzero(source >= 0)
        shape = (n, len(sources))
        steps = scipy.sparse.csr_array((sign[moved], (moved, source[moved])), shape=shape)
        jumps, jump = [], parent
        depth = (source >= 0).astype(np.int64)
        while np.any(jump < n):
            jumps.append(jump)
            depth += np.append(depth, 0)[jump]
            jump = np.append(jump, n)[jump]
        part = connected_parts(n + 1, sources % (n + 1))
        lowest = np.full(n + 1, n)
        np.minimum.at(lowest, part[:-1], np.arange(n))
        root = np.where(part[:-1] == part[-1], GROUND, lowest[part[:-1]])
        return cls(
            np.flatnonzero(root == np.arange(n)),
            root,
            steps,
            np.array(jumps, np.int32).reshape(-1, n),
            int(depth.sum()),
        )

    @property
    def free(self) -> Any:
        """The sparse map of the independent potentials to the nodes of their groups, shape (n, potentials)."""
        grouped = np.flatnonzero(self.root != GROUND)
        columns = np.searchsorted(self.potentials, self.root[grouped])
        shape = (len(self.root), len(self.potentials))
        return scipy.sparse.csr_array((np.ones(len(grouped)), (grouped, columns)), shape=shape)

    def summed_from(self, steps: Any) -> Any:
        """P S of sparse steps S at the nodes: their sums on the way to each node."""
        for jump in self._factors():
            steps = steps + jump @ steps
        return steps.tocsr()

    def summed_for(self, rows: Any) -> Any:
        """C P of a sparse map C of node voltages: it, of steps."""
        for jump in self._factors():
            rows = rows + rows @ jump
        return rows.tocsr()

    def _factors(self) -> Sequence[Any]:
        """A^(2^k) for the map A of every node's parent: P = (1 - A)^-1 is the product of all 1 + A^(2^k)."""
        n = len(self.root)
        there = [(np.flatnonzero(jump < n), jump[jump < n]) for jump in self.jumps]
        return [scipy.sparse.csr_array((np.ones(len(i)), (i, j)), shape=(n, n)) for i, j in there]


def _nearer(n: int, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each node the next one on the way to its root (n for none or ground), the source between, and its sign."""
    neighbours: dict[int, list[tuple[int, int, int]]] = {}
    for index, (plus, minus) in enumerate(sources.tolist()):
        neighbours.setdefault(minus, []).append((plus, index, 1))
        neighbours.setdefault(plus, []).append((minus, index, -1))
    parent, source, sign = np.full(n, n), np.full(n, -1), np.zeros(n)
    seen: set[int] = set()
    for start in sorted(neighbours):  # ground is -1, so that its group keeps it as its root
        if start in seen:
            continue
        seen.add(start)
        stack = [start]
        while stack:
            node = stack.pop()
            for other, index, way in neighbours[node]:
                if other not in seen:
                    seen.add(other)
                    parent[other] = n if node == GROUND else node
                    source[other], sign[other] = index, way
                    stack.append(other)
    return parent, source, sign


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TreeMap:
    """What a `SparseMap` does, for sums along ways so long that their entries must not be written out.

    The sums are made by pointer doubling: row k of the jumps adds to each node what is 2^k steps nearer to the root.

    Attributes:
        steps: the step of every node from what the map takes, a potential being the step of its own root.
        jumps: those of a `SourceTree`.
        shown: what the map gives, from the voltages of all nodes; None for these.
    """

    steps: SparseMap
    jumps: np.ndarray
    shown: SparseMap | None = None

    def __call__(self, vector: Inexact[Array, "sources"]) -> Inexact[Array, "targets"]:
        """A @ vector."""

        def add(sums, jump):
            return sums + taken(jnp.append(sums, 0.0), jump), None

        sums, _ = jax.lax.scan(add, self.steps(vector), self.jumps)
        return sums if self.shown is None else self.shown(sums)

    def transpose(self, vector: Inexact[Array, "targets"]) -> Inexact[Array, "sources"]:
        """A' @ vector."""

        def add(sums, jump):
            return sums + summed(sums, jump, sums.size), None

        sums = vector if self.shown is None else self.shown.transpose(vector)
        sums, _ = jax.lax.scan(add, sums, self.jumps)
        return self.steps.transpose(sums)
