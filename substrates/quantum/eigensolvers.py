"""Eigenvectors of the lowest levels, dense or by conjugate gradients; and nudges that feel the state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin
from substrates.quantum.conjugate_gradients import Search, lowest_eigenvector
from substrates.solvers.batching import in_groups
from substrates.solvers.generic import DescendThenPolish
from substrates.solvers.solver import Equilibrium, Solver, Status, default_tolerance, left_over

DENSE_DIMENSION = 64
NEARLY_DEGENERATE = 1e-6
"""Gaps below so large a part of the scale of the energies are none."""

LEAST_GAP = 256
"""Nor are gaps below so many rounding errors of that scale, of which eigenvectors move by a part of the gap."""

ROUNDINGS = 64
"""So many rounding errors of the scale of the energies are never asked for in a residual."""

LEAST_SHARE = 2e-4
"""The share that a level has in the start of the search for the next one, times the root of the dimension, is taken to
be no smaller. The random part of the start alone gives it a normally distributed one of 0.7, which is smaller than half
of that once in 9,000 times."""

FAR = 1e-3
"""Gaps above so large a part of the scale of the energies are seen in 32 bits."""

LONG = 2**14
"""Vectors of so many amplitudes are searched for in 32 bits first."""

MOST_LOOKS = 500
"""So many products at most in 32 bits."""

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
    and every step tells by how much the steps so far have multiplied the share of a level at the energy of the state.
    It ends where such a level would leave a larger residual than there is. Without a nudge the next level of a ground
    state of many amplitudes is looked for in 32 bits first. `steps` does not count these products.

    A nudge whose cost is not linear acts through the outputs that it changes. The weights of its operators are
    then the root of w = -pull(<O>(psi of H + sum w_k O_k)), found by Broyden's method from those of the start, with as
    many eigenproblems as that takes, each from the state before. Where it does not converge (strong nudges) the status
    is `out_of_steps`.

    Attributes:
        absolute: the residual to reach, a part of S; by default that of `start_of`.
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
        settle = self._settled
        if substrate.dimension > self.dense:
            settle = lambda *given: in_groups(GROUP, self._settled, *given)
        state, energy, residual, steps, gap, limit = settle(substrate, x, nudge, start)
        state = substrate.aligned(state, start)
        status = judged(state, residual, limit)
        tied = (status == Status.converged) & (gap <= self.no_gap(start.dtype))
        return Equilibrium(state, energy, residual, steps, Status.where(tied, Status.zero_mode, status))

    def no_gap(self, dtype: Any) -> float:
        """The part of S up to which a gap is none."""
        return max(self.degenerate, LEAST_GAP * float(jnp.finfo(dtype).eps)) if self.degenerate > 0 else 0.0

    def _settled(self, substrate, x: PyTree, nudge: Nudge | None, start: Array) -> tuple[Array, ...]:
        """(state, energy, residual, steps, gap, limit), with residual, gap and limit as parts of S."""
        scale = substrate.energy_scale(x)
        unit = jnp.where(scale > 0, scale, 1)
        find = self._by_matrix if substrate.dimension <= self.dense else self._by_products
        weights, limit = start_of(substrate, start, x, nudge, scale)
        if self.absolute is not None:
            limit = jnp.asarray(self.absolute, start.dtype)

        def look(weights, start, target):
            operator = jax.tree.map(lambda leaf: leaf / unit, substrate.hamiltonian(x, weights))
            state, moved, steps, gap = find(substrate, operator, start, target, is_free(nudge))
            if nudge is None:
                own, extra = None, 0.0
            else:
                output, transpose = jax.vjp(substrate.means, state)
                own = -nudge.pull(output)
                # the slope of a mean is 2 O_k psi
                moved += transpose((own - weights) / (2 * unit))[0]
                extra = nudge.energy(output) - jnp.vdot(own, output)
            mean = jnp.vdot(state, moved)
            off = moved - mean * state
            residual = 2 * jnp.sqrt(jnp.vdot(off, off))
            return own, residual, (state, mean * unit + extra, steps, gap)

        first = (start, *unsettled(start.dtype))
        (state, energy, steps, gap), residual = self_consistent(nudge, weights, first, look, limit)
        return state, energy, residual, steps, gap, limit

    def _by_matrix(self, substrate, operator: Operator, start, limit, free) -> tuple[Array, ...]:
        energies, vectors = substrate.diagonalised(operator)
        k = substrate.level
        gap = jnp.min(jnp.diff(energies[max(k - 1, 0) : k + 2]), initial=jnp.inf)
        return vectors[k], operator(vectors[k]), jnp.ones((), jnp.int32), gap

    def _by_products(self, substrate, operator: Operator, start, limit, free) -> tuple[Array, ...]:
        level, none, select, dtype = substrate.level, self.no_gap(start.dtype), jax.lax.select, start.dtype
        # what the vectors below leave of an excited state's residual adds up
        part = limit / math.sqrt(level + 1)
        first, least = LEAST_SHARE / math.sqrt(substrate.dimension), ROUNDINGS * float(jnp.finfo(dtype).eps)
        # worth its compilation where products take long
        quick = free is True and level == 0 and self.degenerate > 0 and dtype == jnp.float64 and start.size >= LONG

        def alone(found: Search, energy: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
            """How far above an energy and its next `none` the search is, and the residual below which it is alone."""
            distance = found.energy - energy - none
            return distance, first * found.growth * distance

        def look(begin: Array, below: Array, energy: Float[Array, ""]) -> Float[Array, ""]:
            """The distance of the next level in 32 bits, where they show that it is far; else infinity."""
            rough = lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)

            def enough(found: Search) -> Bool[Array, ""]:
                distance, most = alone(found, rough(energy))
                return (found.residual <= most) | (distance <= FAR)

            no, (action, begin, rest) = jnp.asarray(False), rough((operator, begin, below))
            given = (action, begin, rest, len(rest), enough, no, rough(energy + none), MOST_LOOKS)
            found, *_ = lowest_eigenvector(*given)
            distance, most = alone(found, rough(energy))
            far = (found.residual <= most) & (distance > FAR)
            return jnp.where(far, distance, jnp.inf).astype(dtype)

        def going(carry):
            k, gap = carry[0], carry[-1]
            return (k < searches) & (gap == jnp.inf) if quick else k < searches

        def search(carry):
            k, begin, below, moved, last, steps, gap = carry
            seeks = k > level

            def enough(found: Search) -> Bool[Array, ""]:
                distance, most = alone(found, last)
                most = select(seeks, jnp.maximum(most, least), part)
                return (found.residual <= most) | (seeks & (distance <= 0))

            given = (operator, begin, below, k * ray, enough, ~seeks, last + none, self.max_steps)
            found, vector, product = lowest_eigenvector(*given)
            below = below.at[k * ray + np.arange(ray, dtype=np.int32)].set(substrate.same_ray(vector), mode="drop")
            known = below[0] if level == 0 else select(k < level, start, below[level * ray])
            begin = substrate.excitations(known)
            begin = begin if level == 0 else select(k + 1 == level, start, begin)
            moved = select(seeks, moved, product)
            steps += select(seeks, jnp.zeros((), jnp.int32), found.steps)
            if quick:
                gap = jax.lax.cond(seeks, lambda *_: found.energy - last, look, begin, below, found.energy)
            else:
                gap = select(k < max(level, 1), gap, jnp.minimum(gap, found.energy - last))
            return k + 1, begin, below, moved, found.energy, steps, gap

        ray = len(substrate.same_ray(start))
        below, zero = jnp.zeros(((level + 1) * ray, start.size), dtype), jnp.zeros((), dtype)
        searches = level + 1 + (jnp.asarray(free, jnp.int32) if self.degenerate > 0 else 0)
        begin = start if level == 0 else substrate.excitations(start)
        carry = (jnp.zeros((), jnp.int32), begin, below, start, zero, *unsettled(dtype)[1:])
        _, _, below, moved, _, steps, gap = jax.lax.while_loop(going, search, carry)
        return below[level * ray], moved, steps, gap


def is_free(nudge: Nudge | None) -> Bool[Array, ""] | bool:
    """Whether nothing nudges: no nudge, or one of strength 0."""
    return nudge is None or nudge.beta == 0


def unsettled(dtype: Any) -> tuple[Array, Array, Array]:
    """The energy, the steps and the gap of what has not settled yet."""
    return jnp.asarray(jnp.nan, dtype), jnp.zeros((), jnp.int32), jnp.asarray(jnp.inf, dtype)


def start_of(
    substrate: Any,
    state: Array,
    x: PyTree,
    nudge: Nudge | None,
    scale: Float[Array, ""],
    roundings: float = ROUNDINGS,
) -> tuple[Array | None, Float[Array, ""]]:
    """The weights of the operators that a nudge adds at a state, and the part of a scale S of the energies that the
    residual may be: `tolerance`, and never below so many rounding errors.
    """
    dtype = state.dtype
    free, least = default_tolerance(dtype), roundings * float(jnp.finfo(dtype).eps)
    if nudge is None:
        return None, jnp.asarray(max(free, least), dtype)
    output, transpose = jax.vjp(lambda s: substrate.read(s, x), state)
    pull = nudge.pull(output)
    pushed = left_over(transpose(pull)[0], scale)
    return -pull, jnp.maximum(jnp.where(is_free(nudge), free, free * pushed), least)


def judged(state: Array, residual: Float[Array, ""], limit: Float[Array, ""]) -> Status:
    """The status of a state with a residual."""
    finite = jnp.isfinite(residual) & jnp.all(jnp.isfinite(state))
    status = Status.where(residual <= limit, Status.converged, Status.out_of_steps)
    return Status.where(finite, status, Status.not_finite)


Look = Callable[[Any, Array, Array], tuple[Any, Array, tuple]]


def self_consistent(
    nudge: Nudge | None, weights: Array | None, start: tuple, look: Look, limit: Float[Array, ""]
) -> tuple[tuple, Float[Array, ""]]:
    """What settles under the weights of a nudge's operators that it decides itself, and its residual.

    By Broyden's method on w -> own(w) - w; without a nudge, or with one of strength 0, in one round.

    Args:
        nudge: or None.
        weights: where to begin, w.
        start: a state, and what stands for its energy, steps and more until the first round is over.
        look: (w, a state to begin with, the residual to reach) -> (the weights of the nudge at the state found under
            w, the residual under these, a tuple of the state, energy, steps and more, like `start`).
        limit: the residual to reach.
    """
    if nudge is None or weights is None:
        _, residual, found = look(None, start[0], limit)
        return found, residual
    free = is_free(nudge)
    most, exact = jnp.where(free, 1, _ROUNDS), jnp.where(free, limit, 0.5 * limit)

    def going(carry):
        _, residual, (guess, *_), round = carry
        return (residual > limit) & (round < most) & jnp.all(jnp.isfinite(guess))

    def advance(carry):
        (state, _, steps, *_), residual, (guess, best, miss, inverse), round = carry
        # early rounds need not be exact: their outputs are not the last ones
        own, residual, found = look(guess, state, jnp.maximum(exact, jnp.where(round > 0, 1e-3 * residual, 0)))
        new = own - guess
        change, response = guess - best, new - miss
        along = inverse.T @ change
        scale = jnp.vdot(along, response)
        inverse += jnp.outer(change - inverse @ response, along) / jnp.where(scale == 0, jnp.inf, scale)
        better = (round == 0) | ~(jnp.vdot(new, new) >= jnp.vdot(miss, miss))
        best, miss = jax.lax.select(better, guess, best), jax.lax.select(better, new, miss)
        state, energy, used, *rest = found
        return (state, energy, steps + used, *rest), residual, (best - inverse @ miss, best, miss, inverse), round + 1

    one = np.eye(weights.size, dtype=weights.dtype)
    first = (start, 2 * limit, (weights, weights, 0 * weights, -one), jnp.zeros((), jnp.int32))
    found, residual, *_ = jax.lax.while_loop(going, advance, first)
    return found, residual
