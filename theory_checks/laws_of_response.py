"""Laws of what a nudge does: reciprocity, the envelope theorem, bounds, and equilibrium propagation's gradient."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from theory_checks.case import (
    Case,
    compiled,
    exact_gradient,
    flat,
    larger,
    outputs,
    relative,
    total_energies,
)
from theory_checks.differences import along_directions
from theory_checks.laws_of_equilibrium import DISCRETE, NO_ENERGY
from theory_checks.orders import order_law
from theory_checks.report import Law, at_most, broken, does_not_apply

HALVINGS = 13


@compiled
def jacobians(substrate, states, xs):
    def one(state, x):
        vector, unravel = ravel_pytree(state)
        return jax.jacfwd(lambda s: ravel_pytree(substrate.total_force(unravel(s), x))[0])(vector)

    return jax.lax.map(lambda example: one(*example), (states, xs))


def reciprocity(case: Case) -> list[Law]:
    """What a push here does there, the same push there does here: of the force, and of the outputs' response."""
    names = "reciprocity of the force", "reciprocity of the response"
    if case.discrete:
        return [does_not_apply(name, DISCRETE) for name in names]
    jacobian = jacobians(case.substrate, case.nearby(20), case.xs)
    gap = float(np.max(np.abs(jacobian - np.swapaxes(jacobian, 1, 2))) / np.max(np.abs(jacobian)))
    if not case.substrate.conservative:
        reason = f"{NO_ENERGY} dforce_i/dstate_j and its transpose differ by {gap:.2g} of the largest."
        return [does_not_apply(name, reason) for name in names]
    first = at_most(names[0], "dforce_i/dstate_j against its transpose", gap, 1e3 * case.epsilon)
    count = case.shown.shape[1]
    if count == 1:
        return [first, does_not_apply(names[1], "One output: nothing to be reciprocal with.")]
    if not case.smooth:
        return [first, broken(names[1], "the equilibria do not respond smoothly to a nudge")]
    beta = case.beta * case.epsilon ** (1 / 4)
    shown = lambda sign, e: outputs(case.substrate, case.settle(_field(case, sign * beta, e)).state, case.xs)
    columns = [(shown(1, e) - shown(-1, e)) / (2 * beta) for e in np.eye(count, dtype=case.dtype)]
    matrix = np.stack(columns, axis=-1)
    size = float(np.max(np.abs(matrix)))
    gap = float(np.max(np.abs(matrix - np.swapaxes(matrix, 1, 2)))) / size if size > 0 else 0.0
    return [first, at_most(names[1], "d output_k / d beta_j against its transpose", gap, _response_bound(case, beta))]


def _field(case: Case, beta: float, direction):
    return case.nudge(beta, weight=0.0, direction=direction)


def _response_bound(case: Case, beta: float) -> float:
    """Bias of second order in beta, and the solver's tolerance over beta."""
    small = beta / case.beta
    return 30 * small**2 + 1e3 * case.epsilon**0.75 / small


def envelope(case: Case) -> list[Law]:
    """dFm/dbeta = C at the nudged state, where Fm is the total energy at equilibrium."""
    name = "envelope: dFm/dbeta = C(s_beta)"
    if not case.substrate.conservative:
        return [does_not_apply(name, NO_ENERGY)]
    if case.discrete:
        return [does_not_apply(name, DISCRETE)]
    step = case.epsilon ** (1 / 3) * case.beta
    worst, rounding = 0.0, 0.0
    for beta in (0.0, case.beta):
        high, low = (least_energy(case, beta + sign * step) for sign in (1.0, -1.0))
        cost = case.costs(case.settle(case.nudge(beta)).state)
        size = float(np.max(np.abs(cost))) + 1e-3
        worst = larger(worst, float(np.max(np.abs((high - low) / (2 * step) - cost))) / size)
        rounding = larger(rounding, case.epsilon * float(np.max(np.abs(high))) / (step * size))
    bound = 100 * ((step / case.beta) ** 2 + rounding)
    return [at_most(name, f"differences of Fm in beta, at 0 and {case.beta:.3g}", worst, bound)]


def least_energy(case: Case, beta: float, substrate=None):
    nudge = case.nudge(beta)
    found = case.settle(nudge, substrate)
    return total_energies(case.substrate if substrate is None else substrate, found.state, case.xs, nudge)


def bounds(case: Case) -> list[Law]:
    """At minima C(s_beta) never increases with beta, so L_{0,beta} <= L <= L_{-beta,0}."""
    names = "bounds: L(0,b) <= L <= L(-b,0)", "C(s_beta) never increases with beta"
    if not case.substrate.conservative:
        return [does_not_apply(name, NO_ENERGY) for name in names]
    if not (case.discrete or case.own_stationarity or at_minimum(case)):
        return [does_not_apply(name, "The equilibrium is a saddle: only minima obey it.") for name in names]
    beta = case.beta
    below, middle, above = (least_energy(case, sign * beta) for sign in (-1.0, 0.0, 1.0))
    cost = case.costs(case.free.state)
    size = float(np.max(np.abs(cost))) + 1e-3
    lower, upper = (above - middle) / beta, (middle - below) / beta
    excess = float(np.max(np.maximum(lower - cost, cost - upper))) / size
    slack = 1e3 * case.epsilon * (1 + float(np.max(np.abs(middle))) / (beta * size)) + 10 * case.epsilon**0.75
    first = at_most(names[0], f"largest excess over a bound, relative to C; b = {beta:.3g}", excess, slack)
    grid = [float(beta) * k / 4 for k in range(-4, 5)]
    along = np.stack([case.costs(case.settle(case.nudge(b)).state) for b in grid])
    rise = float(np.max(np.diff(along, axis=0))) / size
    return [first, at_most(names[1], "largest rise between nine strengths, relative to C", rise, slack)]


def at_minimum(case: Case) -> bool:
    """Whether no direction that the bounds leave free lowers the energy at any free state."""
    bounds = case.bounds
    for index, jacobian in enumerate(jacobians(case.substrate, case.free.state, case.xs)):
        hessian = -(jacobian + jacobian.T) / 2
        if bounds is not None:
            state, lower, upper = (flat(case.example(tree, index)) for tree in (case.free.state, *bounds))
            inside = (state > lower) & (state < upper)
            hessian = np.where(inside[:, None] & inside, hessian, 0.0)
        softest = np.min(np.linalg.eigvalsh(hessian)) if np.all(np.isfinite(hessian)) else np.nan
        if not softest > -(case.epsilon**0.5) * np.max(np.abs(hessian), initial=1e-30):
            return False
    return True


def propagation(case: Case) -> list[Law]:
    """The estimate of equilibrium propagation tends to the exact gradient, as beta one-sided and beta^2 centred."""
    conservative = case.substrate.conservative
    target = "exact gradient" if conservative else "vector-field formula"
    names = f"EP -> {target}", "EP one-sided: error ~ beta", "EP centred: error ~ beta^2"
    if case.discrete:
        return [does_not_apply(name, DISCRETE) for name in names]
    if not case.smooth:
        reason = "the exact gradient does not exist: at the free states G is no root, or dG/dstate is singular"
        return [broken(name, reason) for name in names]
    size = float(np.linalg.norm(flat(case.reference)))
    if size == 0:
        return [does_not_apply(name, "The exact gradient is zero.") for name in names]
    betas = [case.beta / 2**k for k in range(HALVINGS)]
    one_sided, centred = (
        [relative(estimate(beta), case.reference) for beta in betas]
        for estimate in (case.propagate_one_sided, case.propagate)
    )
    finest = min(centred, key=lambda e: e if e == e else math.inf)
    how = "implicit differentiation" if conservative else "-(dmu/dtheta)' J^-1 dC/ds"
    laws = [at_most(names[0], f"centred at its best beta against {how}, relative", finest, case.resolution)]
    for name, errors, order in ((names[1], one_sided, 1), (names[2], centred, 2)):
        laws.append(order_law(name, betas, errors, order, case.resolution))
    return laws


def slope_of_cost(case: Case) -> list[Law]:
    """EP's estimate, less the bias of a vector field, is the slope of the cost: by differences of the cost itself.

    The bias is -(dmu/dtheta)' (J^-1 - J^-T) dC/ds, mu the force and J its Jacobian: none where there is an energy.
    """
    name = "EP less its bias = slope of the cost"
    if case.discrete:
        return [does_not_apply(name, DISCRETE)]
    if not case.smooth:
        return [
            broken(name, "the exact gradient does not exist: at the free states G is no root, or dG/dstate is singular")
        ]
    small = case.beta * case.epsilon ** (1 / 4)
    found = case.propagate(small)
    if not case.substrate.conservative:
        exact, _ = exact_gradient(case.substrate, case.free.state, case.xs, case.ys, case.cost)
        found = jax.tree.map(lambda ep, formula, true: ep - (formula - true), found, case.reference, exact)
    step = case.epsilon ** (1 / 3)
    slopes = along_directions(case, found, case.mean_cost, step, (32, 33))
    noise = lambda one: (case.epsilon * one.largest + case.epsilon**0.75 * case.pull) / (step * one.size)
    bound = 100 * (step**2 + float(np.max([noise(one) for one in slopes]))) + _response_bound(case, small)
    worst = float(np.max([one.error for one in slopes]))
    return [at_most(name, "centred, less the bias of a vector field, against differences of C in theta", worst, bound)]


def surrogate(case: Case) -> list[Law]:
    """At a large beta too, the one-sided estimate is the exact gradient of L_{0,beta} = (Fm(beta) - Fm(0))/beta."""
    name = "EP = gradient of its surrogate"
    if not case.substrate.conservative:
        return [does_not_apply(name, NO_ENERGY)]
    step = case.epsilon ** (1 / 3)

    def mean_of_costs(moved: Any) -> float:
        return float(np.mean(least_energy(case, case.beta, moved) - least_energy(case, 0.0, moved))) / case.beta

    slopes = along_directions(case, case.propagate_one_sided(case.beta), mean_of_costs, step)
    largest = float(np.max(np.abs(least_energy(case, case.beta))))
    noise = lambda one: case.epsilon * largest / (case.beta * step * one.size)
    bound = 100 * (step**2 + float(np.max([noise(one) for one in slopes])))
    compared = f"one-sided at beta = {case.beta:.3g} against differences of L(0,beta) in theta"
    return [at_most(name, compared, float(np.max([one.error for one in slopes])), bound)]


def quiet(case: Case) -> list[Law]:
    """Where the cost has no slope, nothing is learned."""
    found = float(np.linalg.norm(flat(case.propagate(case.beta, weight=0.0))))
    moved = float(np.linalg.norm(flat(case.propagate(case.beta))))
    bound = case.epsilon**0.75 * 1e3
    return [
        at_most(
            "no slope, no update", "update for a cost of zero, over that for the cost", found / (moved or 1.0), bound
        )
    ]
