"""Laws that hold at every state or at one equilibrium: stationarity, forces, measurements and their contrast."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from substrates.nudge import batch_axes
from substrates.solvers.solver import left_over, max_norm, reach
from substrates.substrate import split_parameters
from theory_checks.case import (
    Case,
    compiled,
    contrast,
    flat,
    inner_product,
    larger,
    limits,
    measure,
    on_host,
    relative,
    total_energies,
    worst_leaf,
)
from theory_checks.report import Law, at_least, at_most, broken, does_not_apply

DISCRETE = "Discrete states: the class says by its own residual what equilibrium is, and no force vanishes there."
NO_ENERGY = "The system has a force and no energy."


def convergence(case: Case) -> list[Law]:
    """Every relaxation says that it converged."""
    phases = [case.free, case.settle(case.nudge(case.beta)), case.settle(case.nudge(-case.beta))]
    count = sum(int(np.sum(~np.asarray(phase.converged))) for phase in phases)
    compared = f"relaxations that did not converge, of {3 * case.size} (free, beta = +-{case.beta:.3g})"
    return [at_most("relaxations converge", compared, count, 0)]


@compiled
def _definitions(substrate, states, xs, nudges, derive):
    """The residual of each example, from E, C and the bounds alone, or from the class's own stationarity.

    What is left over at each variable as a part of the forces that meet there; where the class has laws of its own,
    and as many numbers as they have, the largest of the largest.
    """

    def one(state, x, nudge):
        scale = substrate.meeting(state, x, nudge)
        if not derive:
            balance = substrate.stationarity(state, x, nudge)
            if jax.tree.structure(balance) == jax.tree.structure(scale):
                return left_over(balance, scale)
            return max_norm(balance) / max_norm(scale)
        if substrate.conservative:
            total = lambda s: substrate.energy(s, x) + (0 if nudge is None else nudge.energy(substrate.read(s, x)))
            force = jax.tree.map(jnp.negative, jax.grad(total)(state))
        else:
            force = substrate.total_force(state, x, nudge)
        bounds = substrate.bounds(x)
        if bounds is not None:
            clip = lambda s, f, k, lower, upper: jnp.clip(f, reach(k, lower, s), reach(k, upper, s))
            force = jax.tree.map(clip, state, force, substrate.bound_stiffness(state, x), *bounds)
        return left_over(force, scale)

    return jax.vmap(one, in_axes=(0, 0, batch_axes(nudges)))(states, xs, nudges)


@compiled
def _own_residuals(substrate, states, xs, nudges):
    one = lambda s, x, n: substrate.residual(s, x, n)
    return jax.vmap(one, in_axes=(0, 0, batch_axes(nudges)))(states, xs, nudges)


def fresh_residuals(case: Case, states, nudge) -> tuple[str, np.ndarray, np.ndarray]:
    """What was computed, the residual of each example at given states, and the largest one of an equilibrium."""
    slack = 10
    if case.discrete:
        kind, found = "own residual", _own_residuals(case.substrate, states, case.xs, nudge)
    elif case.own_stationarity:
        kind, found = "own stationarity map", _definitions(case.substrate, states, case.xs, nudge, False)
    else:
        kind = "|dF/dstate|" if case.substrate.conservative else "|force|"
        found = _definitions(case.substrate, states, case.xs, nudge, True)
    if case.own_residual and not case.discrete:
        slack = 1000  # the class measures residuals in units of its own
    return kind, found, slack * limits(case.substrate, case.free.state, case.xs, nudge)


def worst_of(found: np.ndarray, limit: np.ndarray) -> tuple[float, float]:
    """The residual that is largest beside its limit, or NaN, and the limit."""
    index = int(np.argmax(np.where(np.isnan(found), np.inf, found / limit)))
    return float(found[index]), float(limit[index])


def stationarity(case: Case) -> list[Law]:
    """At the states that the solver returns, the residual, computed afresh, is below the contract's tolerance."""
    laws = []
    for name, betas in (("free", (0.0,)), ("nudged", (case.beta, -case.beta))):
        kind, worst = "", (0.0, 1.0)
        for beta in betas:
            nudge = case.nudge(beta)
            states = case.settle(nudge).state if beta else case.free.state
            kind, found, limit = fresh_residuals(case, states, nudge)
            most, allowed = worst_of(found, limit)
            if not most / allowed <= worst[0] / worst[1]:
                worst = (most, allowed)
        compared = f"{kind} at the solver's {name} states, computed afresh"
        laws.append(at_most(f"{name} stationarity", compared, *worst))
    return laws


def residual(case: Case) -> list[Law]:
    """The class's residual is the distance from equilibrium that its energy, bounds and reading define."""
    name = "residual measures equilibrium"
    if case.discrete:
        return [does_not_apply(name, DISCRETE)]
    states = case.nearby(1)
    nudge = case.nudge(case.beta)
    own = _own_residuals(case.substrate, states, case.xs, nudge)
    defined = _definitions(case.substrate, states, case.xs, nudge, not case.own_stationarity)
    if case.own_residual:
        ratio = float(np.min(own / defined))
        return [at_least(name, "own residual over the defined one, at states off equilibrium", ratio, 1e-3)]
    gap = float(np.max(np.abs(own - defined) / defined))
    return [at_most(name, "residual against |dF/dstate| (with bounds), off equilibrium", gap, 1e3 * case.epsilon)]


def energy(case: Case) -> list[Law]:
    """The energy that an equilibrium reports is F at its state."""
    name = "reported energy = F(state)"
    if not case.substrate.conservative:
        return [does_not_apply(name, NO_ENERGY)]
    nudge = case.nudge(case.beta)
    nudged = case.settle(nudge)
    worst = 0.0
    for phase, acting in ((case.free, case.nudge(0.0)), (nudged, nudge)):
        fresh = total_energies(case.substrate, phase.state, case.xs, acting)
        size = 1 + np.max(np.abs(fresh))
        worst = larger(worst, float(np.max(np.abs(phase.energy - fresh)) / size))  # type: ignore[operator]
    return [at_most(name, "reported against E + beta C, free and nudged", worst, 1e3 * case.epsilon)]


@compiled
def _forces(substrate, states, xs, nudges):
    def one(state, x, nudge):
        derived = jax.tree.map(jnp.negative, jax.grad(substrate.total_energy)(state, x, nudge))
        free = jax.tree.map(jnp.negative, jax.grad(substrate.energy)(state, x))
        return (
            (substrate.force(state, x), free),
            (substrate.total_force(state, x, nudge), derived),
        )

    return jax.vmap(one, in_axes=(0, 0, batch_axes(nudges)))(states, xs, nudges)


def force(case: Case) -> list[Law]:
    """force = -dE/dstate, total force = -dF/dstate: by automatic differentiation and by differences of the energy."""
    names = "force = -dE/dstate", "force = -dE/dstate, by differences"
    if not case.substrate.conservative or case.discrete:
        return [does_not_apply(name, DISCRETE if case.discrete else NO_ENERGY) for name in names]
    states = case.nearby(2)
    pairs = _forces(case.substrate, states, case.xs, case.nudge(case.beta))
    gap = float(np.max([worst_leaf(own, derived) for own, derived in pairs]))
    derived = at_most(names[0], "force and total force against the derivative of F", gap, 1e3 * case.epsilon)
    own = pairs[0][0]
    step = case.epsilon ** (1 / 3)
    worst, rounding = 0.0, 0.0
    for seed in (3, 4, 5):
        towards = jax.tree.map(lambda a, b: a - b, case.nearby(seed), case.free.state)
        moved = lambda sign, d=towards: jax.tree.map(lambda s, v: s + sign * step * v, states, d)
        high, low = (total_energies(case.substrate, moved(sign), case.xs, case.nudge(0.0)) for sign in (1.0, -1.0))
        forces, ways = (np.stack([flat(case.example(tree, i)) for i in range(case.size)]) for tree in (own, towards))
        wanted = -np.sum(forces * ways, axis=1)
        size = np.linalg.norm(forces, axis=1) * np.linalg.norm(ways, axis=1)
        size = np.maximum(size, np.finfo(case.dtype).tiny)
        worst = larger(worst, float(np.max(np.abs((high - low) / (2 * step) - wanted) / size)))
        rounding = larger(rounding, float(np.max(case.epsilon * np.abs(high) / (step * size))))
    bound = 100 * (step**2 + rounding)
    return [derived, at_most(names[1], "work along random displacements against differences of E", worst, bound)]


@compiled
def _derived_measure(substrate, states, xs, nudges):
    parameters, rest = split_parameters(substrate)

    def mean_energy(parameters):
        one = lambda s, x, n: eqx.combine(parameters, rest).total_energy(s, x, n)
        return jnp.mean(jax.vmap(one, in_axes=(0, 0, batch_axes(nudges)))(states, xs, nudges))

    return jax.grad(mean_energy)(parameters)


def measurement(case: Case) -> list[Law]:
    """measure = dF/dtheta: by automatic differentiation, and by differences of F in random directions of theta."""
    names = "measure = dF/dtheta", "measure = dF/dtheta, by differences"
    if not case.substrate.conservative:
        return [does_not_apply(name, NO_ENERGY + " Its contrast exists.") for name in names]
    states = case.free.state if case.discrete else case.nearby(6)
    nudge = case.nudge(case.beta)
    gap, found = 0.0, None
    for acting in (case.nudge(0.0), nudge):
        found = measure(case.substrate, states, case.xs, acting)
        gap = larger(gap, worst_leaf(found, _derived_measure(case.substrate, states, case.xs, acting)))
    derived = at_most(names[0], "mean over the batch, free and nudged, array by array", gap, 1e3 * case.epsilon)
    step = case.epsilon ** (1 / 3)
    worst, rounding = 0.0, 0.0
    for seed in (7, 8, 9):
        towards = case.direction(seed)
        high, low = (total_energies(case.shifted(towards, sign * step), states, case.xs, nudge) for sign in (1.0, -1.0))
        size = float(np.linalg.norm(flat(found)) * np.linalg.norm(flat(towards)))
        size = max(size, float(np.finfo(case.dtype).tiny))
        slope = float(np.mean(high - low)) / (2 * step)
        worst = larger(worst, abs(slope - float(inner_product(found, towards))) / size)
        rounding = larger(rounding, case.epsilon * float(np.max(np.abs(high))) / (step * size))
    bound = 100 * (step**2 + rounding)
    return [derived, at_most(names[1], "random directions of theta against differences of F", worst, bound)]


def contrasts(case: Case) -> list[Law]:
    """contrast(plus, minus) = measure(plus) - measure(minus), as exactly as the declared number of points promises."""
    name = "contrast = difference of measures"
    substrate, points = case.substrate, case.substrate.contrast_points
    if not substrate.conservative:
        return [does_not_apply(name, NO_ENERGY + " Its contrast is the derivative of -<force, change of state>.")]
    acting = case.nudge(case.beta), case.nudge(-case.beta)
    if case.discrete or points == 0:
        plus, minus = (case.settle(nudge).state for nudge in acting)
        error, rounding = _contrast_error(case, plus, minus, acting)
        compared = "plain difference, at the equilibria of beta = +-" + f"{case.beta:.3g}"
        return [at_most(name, compared, error, 1e3 * rounding)]
    errors = []
    for distance in (0.1, 0.05):
        plus = case.nearby(10, distance)
        minus = jax.tree.map(lambda s, p: 2 * s - p, case.free.state, plus)
        errors.append(_contrast_error(case, plus, minus, acting))
    error, rounding = errors[0]
    declared = f"contrast_points = {points}, states 20 % apart"
    if points == 1 or error <= 1e3 * rounding:
        return [at_most(name, f"relative error with {declared}", error, 1e3 * rounding)]
    if errors[1][0] <= 1e3 * errors[1][1]:
        return [at_most(name, f"relative error with {declared}, halved", errors[1][0], 1e3 * errors[1][1])]
    order = float(np.log2(error / errors[1][0]))
    return [at_least(name, f"order in the distance of the relative error ({error:.1e}) with {declared}", order, 3.0)]


def _contrast_error(case: Case, plus, minus, acting) -> tuple[float, float]:
    found = contrast(case.substrate, plus, minus, case.xs, *acting)
    high, low = (
        measure(case.substrate, plus, case.xs, acting[0]),
        measure(case.substrate, minus, case.xs, acting[1]),
    )
    wanted = jax.tree.map(np.subtract, high, low)
    size = float(np.linalg.norm(flat(wanted)))
    cancelled = float(np.linalg.norm(flat(high))) / size if size > 0 else 1.0
    return relative(found, wanted), case.epsilon * (1 + cancelled)


def trained(case: Case) -> list[Law]:
    """measure and contrast are trees like the trainable parameters: None for constants, the shapes of the rest."""
    name = "gradients fit the parameters"
    wanted, _ = split_parameters(case.substrate)
    states = case.free.state
    nothing = case.nudge(0.0)
    kinds = {"contrast": contrast(case.substrate, states, states, case.xs, nothing, nothing)}
    if case.substrate.conservative:
        kinds["measure"] = measure(case.substrate, states, case.xs, nothing)
    for method, found in kinds.items():
        if jax.tree.structure(found) != jax.tree.structure(wanted):
            reason = (
                f"{method} returns numbers for other fields than the trainable ones, or is not a tree like the class"
            )
            return [broken(name, reason)]
        shapes = [a.shape == b.shape for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)]
        if not all(shapes):
            return [broken(name, f"{method} returns arrays of other shapes than the parameters")]
    count = len(jax.tree.leaves(wanted))
    return [at_most(name, f"arrays out of place, of {count}; fixed fields get None", 0, 0)]


def constraints(case: Case) -> list[Law]:
    """constrained() is a projection: applied twice it does what it does once."""
    far = case.shifted(case.direction(11), 2.0)
    once = far.constrained()
    twice = once.constrained()
    gap = max((float(np.max(np.abs(a - b), initial=0.0)) for a, b in _pairs(once, twice)), default=0.0)
    return [at_most("constrained() is a projection", "largest change on a second application", gap, 0)]


def _pairs(first, second):
    leaves = lambda tree: jax.tree.leaves(on_host(eqx.filter(tree, eqx.is_inexact_array)))
    return zip(leaves(first), leaves(second), strict=True)
