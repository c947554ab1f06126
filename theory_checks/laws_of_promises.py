"""Laws of what every system and every relaxation promises: finite parameters, an input and a state that show; the same
again, in the same precision, at its own input, never uphill.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from substrates.substrate import by_path, split_parameters
from theory_checks.case import Case, compiled, flat, larger, measure, on_host, outputs, starts, total_energies
from theory_checks.laws_of_capabilities import OWN
from theory_checks.laws_of_equilibrium import DISCRETE, NO_ENERGY, fresh_residuals, worst_of
from theory_checks.laws_of_response import at_minimum
from theory_checks.report import Law, at_least, at_most, does_not_apply


def repetition(case: Case) -> list[Law]:
    """One key gives the same numbers again, to the last bit."""
    again = case.settle()
    gap = np.max(np.abs(flat(again.state) - flat(case.free.state)), initial=0.0)
    return [at_most("one key, the same again", "free states of two relaxations with the same key", gap, 0)]


def precision(case: Case) -> list[Law]:
    """States, energies, outputs and measurements have the precision of the parameters."""
    shown = {"state": case.free.state, "outputs": case.shown}
    if case.substrate.conservative:
        shown["energy"] = case.free.energy
        shown["measure"] = measure(case.substrate, case.free.state, case.xs, case.nudge(0.0))
    real = lambda leaf: np.finfo(leaf.dtype).dtype if jnp.issubdtype(leaf.dtype, jnp.inexact) else case.dtype
    others = [name for name, tree in shown.items() if any(real(leaf) != case.dtype for leaf in jax.tree.leaves(tree))]
    compared = f"of {', '.join(shown)}, how many are not {case.dtype}" + (f": {', '.join(others)}" if others else "")
    return [at_most("precision of the parameters is kept", compared, len(others), 0)]


def warm_starts(case: Case) -> list[Law]:
    """From another input's equilibrium a relaxation that says it converged is at that of its own input."""
    name = "warm starts end at their own input"
    others = jax.tree.map(lambda leaf: np.roll(leaf, 1, axis=0), case.free.state)
    if case.size == 1:
        others = case.nearby(50, 0.5)
    found = [case.relax_alone(index, case.example(others, index)) for index in range(case.size)]
    states = jax.tree.map(lambda *leaves: np.stack(leaves), *[each.state for each in found])
    converged = np.asarray([bool(each.converged) for each in found])
    if not np.any(converged):
        return [does_not_apply(name, "No relaxation from there says that it converged.")]
    _, residuals, limit = fresh_residuals(case, states, case.nudge(0.0))
    most, allowed = worst_of(np.where(converged, residuals, 0.0), limit)
    return [at_most(name, "residual, computed afresh, where another example's state was the start", most, allowed)]


@compiled
def _acted_upon(substrate, states, xs, discrete):
    """What an input may act on: force (or energy), reading, and bounds."""

    def one(state, x):
        felt = substrate.energy(state, x) if discrete else substrate.force(state, x)
        return felt, substrate.read(state, x), substrate.bounds(x)

    return jax.vmap(one)(states, xs)


def inputs(case: Case) -> list[Law]:
    """The clamped input acts: another input changes the forces (or energies), the reading or the bounds."""
    name = "the input acts"
    leaves = [leaf for leaf in jax.tree.leaves(case.xs) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    if not sum(leaf.size for leaf in leaves):
        return [does_not_apply(name, "x holds no numbers.")]
    draw = case.draw(51)
    real = lambda leaf: jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)
    other = lambda leaf: np.asarray(leaf) + draw.uniform(0.1, 0.5, leaf.shape).astype(leaf.dtype)
    moved = lambda leaf: other(leaf) if real(leaf) else leaf
    states = case.free.state if case.discrete else case.nearby(52)
    here, there = (
        _acted_upon(case.substrate, states, xs, case.discrete) for xs in (case.xs, jax.tree.map(moved, case.xs))
    )
    changes = [0.0]
    for before, after in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        finite = np.isfinite(before) & np.isfinite(after)  # bounds may be infinite
        size = float(np.max(np.abs(before[finite]), initial=0.0))
        changes.append(float(np.max(np.abs(after[finite] - before[finite]), initial=0.0)) / (size or 1.0))
    compared = "change of forces, outputs or bounds with the input, as a part of them"
    return [at_least(name, compared, max(changes), case.epsilon)]


def numbers(case: Case) -> list[Law]:
    """No array of the system holds NaN, and no trainable one infinity, even where nothing uses it: it would be learned,
    saved and measured.
    """
    parts = [eqx.filter(part, eqx.is_inexact_array) for part in split_parameters(on_host(case.substrate))]
    strange = {}
    for part, wrong in zip(parts, (lambda leaf: ~np.isfinite(leaf), np.isnan), strict=True):
        strange |= {name: int(np.sum(wrong(leaf))) for name, leaf in by_path(part).items()}
    named = ", ".join(name for name, count in strange.items() if count)
    compared = "NaN in arrays, and infinity in trainable ones" + (f": {named}" if named else "")
    return [at_most("parameters are numbers", compared, sum(strange.values()), 0)]


def readings(case: Case) -> list[Law]:
    """Outputs show the state: another state of the same input reads otherwise."""
    name = "the state shows"
    if not case.variables:
        return [does_not_apply(name, "The state holds no numbers.")]
    draws = [case.draw(seed) for seed in range(53, 57)]
    flipped = lambda draw: jax.tree.map(lambda s: s * draw.choice((-1, 1), s.shape).astype(s.dtype), case.free.state)
    others = map(flipped, draws) if case.discrete else (case.nearby(seed, 0.5) for seed in range(53, 57))
    size = float(np.max(np.abs(case.shown), initial=0.0)) or 1.0
    changes = [np.max(np.abs(outputs(case.substrate, s, case.xs) - case.shown), initial=0.0) / size for s in others]
    return [at_least(name, "change of outputs with the state, as a part of them", np.max(changes), case.epsilon)]


def descent(case: Case) -> list[Law]:
    """A minimum that a relaxation finds lies no higher than where it started, free and nudged."""
    name = "energy not above its start"
    if not case.substrate.conservative:
        return [does_not_apply(name, NO_ENERGY)]
    if not case.discrete:
        if case.own_stationarity:
            return [does_not_apply(name, "Equilibrium is what the class says, which need not be a least energy.")]
        if not at_minimum(case):
            return [does_not_apply(name, "The equilibrium is a saddle: only minima obey it.")]
    worst = 0.0
    for beta in (0.0, case.beta):
        nudge = case.nudge(beta)
        first, last = case.free.state, case.settle(nudge).state
        if not beta:
            first, last = starts(case.substrate, case.xs, case.keys), case.free.state
        before, after = (total_energies(case.substrate, states, case.xs, nudge) for states in (first, last))
        worst = larger(worst, float(np.max((after - before) / (1 + np.abs(before)))))
    return [at_most(name, "rise of F in a relaxation, free and nudged, relative to it", worst, 1e3 * case.epsilon)]


def truncation(case: Case) -> list[Law]:
    """Stopped after a step that was asked for, a relaxation says so, and goes on from there to equilibrium."""
    name = "truncated phases"
    if case.own_relaxation:
        return [does_not_apply(name, OWN)]
    if case.discrete:
        return [does_not_apply(name, DISCRETE)]
    last = case.size - 1
    try:
        short = case.relax_alone(last, count=1)
    except TypeError as error:
        return [does_not_apply(name, str(error).partition(": ")[2] or str(error))]
    whole = case.relax_alone(last, short.state)
    states = jax.tree.map(lambda leaf, end: np.concatenate([leaf[:-1], end[None]]), case.free.state, whole.state)
    _, residuals, limit = fresh_residuals(case, states, case.nudge(0.0))
    number = float(residuals[last]) if bool(short.usable) and bool(whole.converged) else float("inf")
    return [at_most(name, "residual after one step, a stop, and the rest of the way", number, float(limit[last]))]
