"""Free and nudged phases settled in different ways."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Equilibrium, Solver, System


class ByPhase(Solver):
    """One solver for free phases, another for nudged ones: T and K steps of the literature, say.

    A nudged phase starts at the free state, near where it ends, and may take fewer steps; and one that is stopped early
    has less time to fall into another basin, from where its contrast is no gradient (`learning.basin_jumps`). A phase
    whose nudge has zero strength is a free one, held outputs are nudged. Where every example of a batch has a strength
    of its own both solvers run, and one result is kept.

    Attributes:
        free: settles free phases.
        nudged: settles the others.

    Source: Ernoult, Grollier, Querlioz, Bengio and Scellier 2019, arXiv 1905.13633, for T and K.
    """

    free: Solver
    nudged: Solver

    def __check_init__(self):
        for name in ("free", "nudged"):
            if not isinstance(getattr(self, name), Solver):
                raise TypeError(f"{name}: wanted a Solver, got {type(getattr(self, name)).__name__}")

    @property
    def pins(self) -> bool:  # type: ignore[override]
        """Whether the solver of nudged phases can hold outputs at a `Pin`."""
        return self.nudged.pins

    def __call__(
        self, substrate: System, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        settle = lambda solver: jax.tree.map(jnp.asarray, solver(substrate, x, nudge, start, key))
        if not isinstance(nudge, Nudge):
            return settle(self.free if nudge is None else self.nudged)
        return jax.lax.cond(nudge.beta == 0, lambda: settle(self.free), lambda: settle(self.nudged))

    def limited(self, count: Int[Array, ""] | int) -> Self:  # type: ignore[override]
        """Both solvers, each stopped after `count` steps or sweeps (`Solver.limited`)."""
        return type(self)(self.free.limited(count), self.nudged.limited(count))

    def in_bfloat16(self) -> Self:
        """Both solvers, with products of changes in bfloat16 (`Solver.in_bfloat16`)."""
        return type(self)(self.free.in_bfloat16(), self.nudged.in_bfloat16())
