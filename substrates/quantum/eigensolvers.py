"""Eigenvectors of the lowest levels, dense or by conjugate gradients; and nudges that feel the state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin
from substrates.quantum.conjugate_gradients import lowest_eigenvector
from substrates.solvers.batching import in_groups
from substrates.solvers.generic import DescendThenPolish
from substrates.solvers.solver import Equilibrium, Solver, Status, everywhere, judge, tolerance

DENSE_DIMENSION = 64
NEARLY_DEGENERATE = 1e-6
"""Gaps below so large a part of the scale of the energies are none."""

LEAST_GAP = 256
"""Nor are gaps below so many rounding errors of that scale, of which eigenvectors move by a part of the gap."""

ROUNDINGS = 64
"""So many rounding errors of the scale of the energies are never asked for in a residual."""

MOST_LEFT = 0.1
"""The search for the next level ends with a residual of at most so large a part of the gap that it found."""

_ROUNDS = 60

GROUP = 1
"""So many examples of a batch are settled together on a CPU, where the vectors of more do not fit its cache."""


class Operator(Protocol):
    """A symmetric operator on vectors of amplitudes."""

    def __call__(self, vector: Array, /) -> Array: ...
    def matrix(self) -> Array: ...


class EigenstateSolver(Solver):
    """Settles a quantum system to the eigenvector of its level, free or nudged.

    Up to `dense` amplitudes by diagonalising the matrix; above, level after level by conjugate gradients, which need
    products with H only, a few vectors of memory, and few steps from a start that is nearly right. Energies are
    measured against their scale S, so that their unit does not matter. The gap to the next level (and to the one
    before) is looked at in the free phase: below `degenerate` S, or 256 rounding errors of S, the status is
    `zero_mode`. The search for the next level starts from what simple operators make of the state and a random vector,
    and stops at a residual that it would not reach with the random part of a still lower level in it; `steps` does not
    count its products.

    A nudge whose cost is not linear acts through the outputs that it changes. The outputs are then the root of
    o = <O>(psi of H - sum pull_k(o) O_k), found by Broyden's method from the start's outputs, with as many
    eigenproblems as that takes, each from the state before. Where it does not converge (strong nudges) the status is
    `out_of_steps`.

    Attributes:
        absolute: the residual to reach, a part of S; by default `eigen_tolerance`.
        dense: the largest dimension that is diagonalised.
        max_steps: the most products with H in one eigenproblem.
        degenerate: which part of S is no gap; 0 skips the search for the next level.

    Source: Yang 1993, "Conjugate gradient methods for the Rayleigh quotient minimization of generalized eigenvalue
    problems"; Broyden 1965.
    """

    absolute: float | None = None
    dense: int = DENSE_DIMENSION
    max_steps: int = 5000
    degenerate: float = NEARLY_DEGENERATE

    def __call__(
        self, substrate: Any, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        if isinstance(nudge, Pin):
            return DescendThenPolish()(substrate, x, nudge, start, key)
        start = start / jnp.sqrt(jnp.vdot(start, start))
        limit = (
            eigen_tolerance(substrate, start, x, nudge, substrate.energy_scale(x))
            if self.absolute is None
            else jnp.asarray(self.absolute, start.dtype)
        )
        given = (substrate, x, nudge, start, limit)
        if substrate.dimension <= self.dense:
            state, steps, gap = self._settled(self._by_matrix, *given)
        else:
            state, steps, gap = in_groups(GROUP, lambda *given: self._settled(self._by_products, *given), *given)
        found = judge(substrate, state, x, nudge, steps, limit)
        tied = found.converged & (gap <= self._no_gap(start.dtype))
        status = Status.where(tied, Status.zero_mode, found.status)
        return Equilibrium(found.state, found.energy, found.residual, found.steps, status)

    def _no_gap(self, dtype: Any) -> float:
        """The part of S up to which a gap is none."""
        return max(self.degenerate, LEAST_GAP * float(jnp.finfo(dtype).eps)) if self.degenerate > 0 else 0.0

    def _settled(self, find, substrate, x, nudge, start, limit) -> tuple[Array, Array, Array]:
        solve = lambda weights, start, limit: find(substrate, substrate.hamiltonian(x, weights), start, limit, x, nudge)
        if isinstance(nudge, Nudge):
            return self_consistent(substrate, x, nudge, start, solve, limit)
        return solve(None, start, limit)

    def _by_matrix(self, substrate, operator: Operator, start, limit, x, nudge) -> tuple[Array, Array, Array]:
        energies, vectors = substrate.diagonalised(operator)
        k = substrate.level
        state = substrate.aligned(vectors[k], start)
        around = jnp.concatenate([energies[k + 1 : k + 2] - energies[k], energies[k] - energies[max(k - 1, 0) : k]])
        gap = jnp.min(around / _positive(substrate.energy_scale(x)), initial=jnp.inf)
        return state, jnp.ones((), jnp.int32), gap

    def _by_products(self, substrate, operator: Operator, start, limit, x, nudge) -> tuple[Array, Array, Array]:
        below, steps, scale = [], jnp.zeros((), jnp.int32), _positive(substrate.energy_scale(x))
        reduced = lambda vector: operator(vector) / scale
        # what the vectors below leave of an excited state's residual adds up
        enough = lambda energy, residual, step: residual <= limit / math.sqrt(substrate.level + 1)
        energies = []
        for level in range(substrate.level + 1):
            first = substrate.excitations(start) if level < substrate.level else start
            energy, vector, used = lowest_eigenvector(reduced, first, below, enough, self.max_steps)
            below += substrate.same_ray(vector)
            energies.append(energy)
            steps += used
        gap = jnp.asarray(jnp.inf, start.dtype)
        if nudge is None and self.degenerate > 0:
            none = self._no_gap(start.dtype)
            # near a higher level the residual is twice the distance in energy times the amplitude of a lower one, which
            # starts at about 0.3/sqrt(dimension) and grows as Chebyshev polynomials do
            first, least = 0.01 / math.sqrt(substrate.dimension), ROUNDINGS * float(jnp.finfo(start.dtype).eps)

            def decided(above, residual, step):
                distance = jnp.maximum(above - energy, 0)
                growth = jnp.cosh(jnp.minimum(step.astype(distance.dtype) * jnp.sqrt(2 * distance), 30))
                part = jnp.minimum(first * growth, MOST_LEFT)
                return (residual <= jnp.maximum(part * distance, least)) | (distance <= none)

            above, _, _ = lowest_eigenvector(reduced, substrate.excitations(vector), below, decided, self.max_steps)
            gap = above - energy
            if substrate.level:
                gap = jnp.minimum(gap, energy - energies[-2])
        return substrate.aligned(vector, start), steps, gap


def eigen_tolerance(
    substrate: Any, state: Array, x: PyTree, nudge: Nudge | Pin | None, scale: Float[Array, ""]
) -> Float[Array, ""]:
    """The part of a scale S of the energies that the residual may be: `tolerance`, and never below 64 eps."""
    least = ROUNDINGS * float(jnp.finfo(state.dtype).eps)
    return jnp.maximum(tolerance(substrate, state, x, nudge, scale=everywhere(scale, state)), least)


def _positive(scale: Float[Array, ""]) -> Float[Array, ""]:
    """A scale to divide by: 1 where it is zero."""
    return jnp.where(scale > 0, scale, 1)


def self_consistent(
    substrate: Any, x: PyTree, nudge: Nudge, start: Array, solve: Callable, limit: Float[Array, ""]
) -> tuple[Array, Int[Array, ""], Float[Array, ""]]:
    """The state under a nudge that may depend on the outputs, by Broyden's method on o -> <O>(o) - o."""
    first = substrate.read(start, x)
    inverse = -jnp.eye(first.size, dtype=first.dtype)
    infinite = jnp.asarray(jnp.inf, first.dtype)

    def unsettled(carry):
        _, _, residual, round = carry[:4]
        return (residual > limit) & (round < _ROUNDS) & jnp.all(jnp.isfinite(carry[4][0]))

    def advance(carry):
        state, steps, residual, round, (guess, best, miss, inverse), _ = carry
        # early rounds need not be exact: their outputs are not the last ones
        target = jnp.where(jnp.isfinite(residual), jnp.maximum(0.5 * limit, 1e-3 * residual), 0.5 * limit)
        state, used, gap = solve(-nudge.pull(guess), state, target)
        new = substrate.read(state, x) - guess
        change, response = guess - best, new - miss
        along = inverse.T @ change
        scale = jnp.vdot(along, response)
        secant = jnp.where(
            scale == 0, 0, jnp.outer(change - inverse @ response, along) / jnp.where(scale == 0, 1, scale)
        )
        inverse = inverse + jnp.where(round > 0, secant, 0)
        better = ~(jnp.vdot(new, new) >= jnp.vdot(miss, miss))
        best, miss = jnp.where(better, guess, best), jnp.where(better, new, miss)
        residual = substrate.residual(state, x, nudge)
        return state, steps + used, residual, round + 1, (best - inverse @ miss, best, miss, inverse), gap

    zero = jnp.zeros((), jnp.int32)
    carry = (start, zero, infinite, zero, (first, first, jnp.full_like(first, jnp.inf), inverse), infinite)
    carry = jax.lax.while_loop(unsettled, advance, carry)
    return carry[0], carry[1], carry[5]
