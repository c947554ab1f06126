"""Laws that two ways to the same thing agree: batched and single, compiled and eager, own and generic solver."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from substrates.solvers.generic import DescendThenPolish, Newton
from theory_checks.case import Case, compiled, contrast, flat, measure, worst_leaf
from theory_checks.laws_of_equilibrium import DISCRETE
from theory_checks.report import Law, at_most, does_not_apply


def _state_gap(found: PyTree, wanted: PyTree) -> float:
    gap = np.max(np.abs(flat(found) - flat(wanted)), initial=0.0)
    return float(gap / (1 + np.max(np.abs(flat(wanted)), initial=0.0)))


def batches(case: Case) -> list[Law]:
    """A batch is its examples: relaxed one by one they settle alike, and measurements are the means of single ones."""
    last = case.size - 1
    gap = _state_gap(case.relax_alone(last).state, case.example(case.free.state, last))
    laws = [at_most("batch = singles: equilibria", f"example {last} alone and in its batch", gap, case.resolution)]
    name = "batch = singles: measurements"
    if not case.substrate.conservative:
        one = lambda i: _contrast_slice(case, slice(i, i + 1))
        whole = _contrast_slice(case, slice(None))
    else:
        one = lambda i: _measure_slice(case, slice(i, i + 1))
        whole = _measure_slice(case, slice(None))
    mean = jax.tree.map(lambda *leaves: sum(leaves) / case.size, *[one(i) for i in range(case.size)])
    what = "measure" if case.substrate.conservative else "contrast"
    compared = f"{what} of {case.size} examples against the mean of each alone"
    return [*laws, at_most(name, compared, worst_leaf(whole, mean), 1e3 * case.epsilon)]


def _measure_slice(case: Case, part: slice) -> PyTree:
    # off equilibrium, for some systems show nothing at rest
    states = case.free.state if case.discrete else case.nearby(40)
    nudge = case.nudge(0.0)
    states, xs, target = case.example((states, case.xs, nudge.target), part)
    return measure(case.substrate, states, xs, dataclasses.replace(nudge, target=target))


def _contrast_slice(case: Case, part: slice) -> PyTree:
    nudge = case.nudge(0.0)
    plus, minus, xs, target = case.example((case.nearby(40), case.free.state, case.xs, nudge.target), part)
    nudge = dataclasses.replace(nudge, target=target)
    return contrast(case.substrate, plus, minus, xs, nudge, nudge)


def compilation(case: Case) -> list[Law]:
    """Compiled and eager code say the same."""
    last = case.size - 1
    x, state = jax.tree.map(jnp.asarray, case.example((case.xs, case.free.state), last))
    eager = case.substrate.relax(x, key=case.keys[last]) if case.own_relaxation else case.relax_alone(last)
    whole = case.relax_alone(last).state if case.own_relaxation else state
    gap = _state_gap(whole, eager.state)
    gap = max(gap, _state_gap(case.shown[last], case.substrate.read(state, x)))
    return [at_most("jit = eager", "relaxation and reading of one example", gap, case.resolution)]


@compiled
def _generic(substrate, states, xs, keys, solver):
    return jax.vmap(lambda s, x, k: solver(substrate, x, None, s, k))(states, xs, keys)


def solvers(case: Case) -> list[Law]:
    """The generic solvers, which know only the three methods, settle where the class's own solver does: the minimiser,
    or at saddles (excited states, Lagrangians) the one that goes to the root near its start.
    """
    name = "generic solver = own solver"
    if case.discrete:
        return [does_not_apply(name, DISCRETE)]
    if not case.own_relaxation and isinstance(case.substrate.solver, DescendThenPolish):
        return [does_not_apply(name, "The class has no solver of its own: it settles by the generic one.")]
    start = case.nearby(41, 1e-3)
    compared, bound, gap = "states found by a generic solver from a start 0.1 % away", 1e2 * case.resolution, np.inf
    for solver in (DescendThenPolish(), Newton()):
        found = _generic(case.substrate, start, case.xs, case.keys, solver)
        gap = min(gap, _state_gap(found.state, case.free.state))
        if gap <= bound:
            break
    return [at_most(name, compared, gap, bound)]
