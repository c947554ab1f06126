"""Large sparse equations on the host: conjugate gradients preconditioned by algebraic multigrid."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from jaxtyping import Float

STRONG = 0.04
"""Entries of a matrix below so much of the geometric mean of their diagonal ones join no aggregate of variables."""

COARSEST = 100
"""A grid of so few variables is solved by its pseudo-inverse."""

PATIENCE = 25
"""In so many iterations what is left over must fall to a tenth, or the hierarchy is no good for its matrix."""


@dataclasses.dataclass(frozen=True)
class Multigrid:
    """Smoothed aggregation for a symmetric, positive definite matrix, and conjugate gradients around its V-cycle.

    Variables that are strongly joined are lumped together, level by level; interpolation from the lumps carries the
    motions that cost next to no energy, and is smoothed by a Jacobi step. A cycle sweeps forwards through the
    variables on the way down and backwards on the way up, so that it is symmetric. Strong and weak entries at random
    over more than a few decades leave no lumps that sweeps could not reach, and then `solve` gives up.

    Attributes:
        matrix: the matrix, in compressed rows.
        levels: pyamg's, the finest first.
        coarsest: solves on the last of them.

    Source: Vanek, Mandel and Brezina 1996, "Algebraic multigrid by smoothed aggregation for second and fourth order
    elliptic problems"; Bell, Olson and Schroder 2022, "PyAMG: algebraic multigrid solvers in Python".
    """

    matrix: Any
    levels: Any
    coarsest: Callable[..., np.ndarray]

    @classmethod
    def of(cls, matrix: Any, soft: Float[np.ndarray, "variables modes"] | None = None) -> Self:
        """The hierarchy of a SciPy matrix in compressed or block rows; `soft` are the motions that cost next to no
        energy where nothing holds them, by default the constant one.
        """
        import pyamg

        options: dict[str, Any] = {
            "strength": ("symmetric", {"theta": STRONG}),
            "smooth": ("jacobi", {"weighting": "local"}),
            "presmoother": ("gauss_seidel", {"sweep": "forward"}),
            "postsmoother": ("gauss_seidel", {"sweep": "backward"}),
            "improve_candidates": None,
            "max_coarse": COARSEST,
        }
        hierarchy = pyamg.smoothed_aggregation_solver(matrix, B=soft, **options)
        return cls(matrix, hierarchy.levels, hierarchy.coarse_solver)

    @property
    def size(self) -> int:
        """Bytes of matrices, about."""
        matrices = [level.A for level in self.levels] + [m for level in self.levels[:-1] for m in (level.P, level.R)]
        return sum(matrix.data.nbytes + matrix.indices.nbytes for matrix in matrices)

    def cycle(self, right: Float[np.ndarray, "variables"], depth: int = 0) -> Float[np.ndarray, "variables"]:
        """One V-cycle from zero: about the solution."""
        level = self.levels[depth]
        if depth == len(self.levels) - 1:
            return np.ravel(self.coarsest(level.A, right))
        found = np.zeros_like(right)
        level.presmoother(level.A, found, right)
        found += level.P @ self.cycle(level.R @ (right - level.A @ found), depth + 1)
        level.postsmoother(level.A, found, right)
        return found

    def solve(
        self,
        right: Float[np.ndarray, "variables"],
        part: float,
        action: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> tuple[Float[np.ndarray, "variables"], bool]:
        """The solution, and whether no more than a part of the right-hand side was left over.

        Left over is measured in r'D^-1 r, D being the diagonal, which weighs variables by how stiffly they are held.

        Args:
            right: the right-hand side.
            part: what may be left over of it.
            action: the product with a matrix near the one that the hierarchy was made for; None for that one.
        """
        product_with = (lambda vector: self.matrix @ vector) if action is None else action
        weight = 1 / np.sqrt(self.matrix.diagonal())
        size = lambda vector: float(np.linalg.norm(weight * vector))
        found, left = np.zeros_like(right), right.astype(float)
        enough = part * size(left)
        direction, before = np.zeros_like(found), np.inf
        checked, steps = size(left), 0
        while (now := size(left)) > enough:
            if steps and steps % PATIENCE == 0:
                if now > checked / 10:
                    return found, False
                checked = now
            improved = self.cycle(left)
            product = float(left @ improved)
            direction = improved + (product / before) * direction
            moved = product_with(direction)
            curvature = float(direction @ moved)
            if not (curvature > 0 and product > 0):
                return found, False
            found += (product / curvature) * direction
            left -= (product / curvature) * moved
            before, steps = product, steps + 1
        return found, bool(np.isfinite(now))
