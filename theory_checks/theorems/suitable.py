"""What theorems ask of a system before they measure anything, and how two sides are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from substrates.substrate import Cost, Substrate, reads_parameters, split_parameters
from theory_checks.case import Case, flat, relative
from theory_checks.differences import along_directions
from theory_checks.entrance import case_for
from theory_checks.laws_of_response import HALVINGS, at_minimum
from theory_checks.orders import fit_order
from theory_checks.theorems.measured import ORDER_BOUND, fitted
from theory_checks.theorems.theorem import Finding, NotApplicableError


def refuse(substrate: Any, reason: str) -> NoReturn:
    """Raises NotApplicableError, in the name of a system."""
    raise NotApplicableError(f"{type(substrate).__name__}: {reason}")


def suitable(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    cost: Cost | None,
    key: PRNGKeyArray | None,
    beta: float | None,
    *,
    energy: bool | None = True,
    smooth: bool = True,
    distribution: bool = False,
    needs: Callable[[Substrate], str | None] = lambda _: None,
) -> Case:
    """The case of a system of which a theorem speaks.

    Args:
        substrate, x, y, cost, key, beta: as of `check_substrate`.
        energy: whether it must have one; None where that does not matter.
        smooth: whether its equilibria must respond smoothly to a nudge, with a gradient that is not zero.
        distribution: whether its state must be a distribution; if not, it must be none.
        needs: what else, asked before anything is computed: why the theorem does not apply, or None.

    Raises NotApplicableError with the reason where it is none, TypeError and ValueError as `check_substrate`.
    """
    if isinstance(substrate, Substrate):
        if energy is not None and substrate.conservative != energy:
            refuse(
                substrate,
                "the theorem speaks of systems with an energy, and this one has a force only"
                if energy
                else "the theorem speaks of systems without an energy, and this one has one: there equilibrium "
                "propagation has no such bias",
            )
        if smooth and substrate.discrete:
            refuse(substrate, "states are discrete: no force moves them, and nothing can be differentiated")
        if substrate.distribution != distribution:
            refuse(
                substrate,
                "the theorem speaks of a state that is a distribution, whose covariances are known"
                if distribution
                else "its state is a distribution, in which a nudge acts on every configuration: see `stochastic`",
            )
        reason = needs(substrate)
        if reason:
            refuse(substrate, reason)
    case = case_for(substrate, x, y, cost=cost, key=key, beta=beta)
    settled = np.asarray(case.free.converged)
    if not settled.all():
        refuse(substrate, f"{int(np.sum(~settled))} of {case.size} free phases did not come to rest")
    if smooth and not case.smooth:
        refuse(substrate, "its free equilibria do not move smoothly: dG/dstate is singular there, or G has no root")
    if smooth and not np.linalg.norm(flat(case.reference)) > 0:
        refuse(substrate, "the gradient is zero: there is nothing to learn from these targets")
    return case


def no_bounds(case: Case) -> None:
    """Raises NotApplicableError for states with bounds."""
    if case.bounds is not None:
        refuse(case.substrate, "its states have bounds: a variable that is held by one has no response")


def no_saddle(case: Case) -> None:
    """Raises NotApplicableError where a flow down the energy does not stay at the free states."""
    if not at_minimum(case):
        refuse(case.substrate, "its free equilibrium is a saddle, from which a flow down the energy runs away")


def with_room(case: Case) -> None:
    """Raises NotApplicableError where a physical limit stops a parameter that goes down, or up, the gradient."""
    size = np.linalg.norm(flat(case.reference)) / (np.linalg.norm(flat(split_parameters(case.substrate)[0])) + 1e-3)
    for sign in (1.0, -1.0):
        moved = case.shifted(case.reference, sign * case.epsilon**0.25 / size)
        if not np.array_equal(flat(split_parameters(moved)[0]), flat(split_parameters(moved.constrained())[0])):
            refuse(case.substrate, "a parameter stands at its physical limit, where it cannot follow the gradient")


def trained_reading(case: Case) -> bool:
    """Whether outputs depend on trainable parameters at a given state."""
    return reads_parameters(case.substrate, *(case.example(tree, 0) for tree in (case.free.state, case.xs)))


def by_differences(
    case: Case, compared: str, gradient: PyTree, function: Callable[[Substrate], float], bound: float | None = None
) -> Finding:
    """A gradient along two random directions of the parameters against differences of a function of the system; the
    error is relative to |gradient| |direction|."""
    step = case.epsilon**0.25
    found = along_directions(case, gradient, function, step)
    rounding = float(np.max([100 * case.epsilon * one.largest / (one.size * step) for one in found]))
    return Finding(
        compared,
        np.asarray([one.gradient for one in found]),
        np.asarray([one.slope for one in found]),
        float(np.max([one.error for one in found])),
        (1e4 * case.epsilon**0.75 if bound is None else bound) + rounding,
    )


def halved(strength: float, ratio: float = 2.0, count: int = HALVINGS) -> list[float]:
    """A strength, and ever smaller ones."""
    return [strength / ratio**k for k in range(count)]


def centred_estimates(case: Case, wanted: PyTree | None = None) -> tuple[list[PyTree], list[float]]:
    """The centred estimates of equilibrium propagation at ever smaller nudges, and their distances from a gradient, by
    default the reference of the case."""
    found = [case.propagate(beta) for beta in halved(case.beta)]
    return found, [relative(estimate, case.reference if wanted is None else wanted) for estimate in found]


def nearest(found: Sequence[PyTree], errors: Sequence[float]) -> PyTree:
    """The estimate with the least error; NaN is none."""
    return found[int(np.argmin(np.where(np.isnan(errors), np.inf, errors)))]


def order_of(
    case: Case,
    compared: str,
    strengths: Sequence[float],
    errors: Sequence[float],
    order: int,
    noise: float | None = None,
) -> Finding:
    """The order in which errors fall with a strength, by `fit_order`.

    Errors that are below the resolution have no order, and are compared with zero: all of them, or that of the largest
    strength where the others show no order. Those that stay as strengths
    fall, or fall and rise again without an order and above the resolution, have the order 0: no gradient is approached.

    Args:
        strengths: falling.
        noise: of the errors, where it is known; else what grows as 1/strength, as of `fit_order`.

    Raises NotApplicableError where the arithmetic is too coarse to tell.
    """
    values = np.asarray(errors)
    found = fit_order(strengths, errors, order, noise)
    largest = float(values[0] if found is None else np.max(values))
    if largest <= case.resolution:
        none = f"{compared}: no bias, at the largest strength either"
        return Finding(none, largest, 0.0, largest, case.resolution)
    best = int(np.argmin(np.where(np.isnan(values), np.inf, values)))
    off = values[best] > case.resolution
    if off and (np.max(values[-4:]) < 1.1 * np.min(values[-4:]) or (found is None and best > 0)):
        stays = f"{compared}: it goes to no zero, {values[best]:.1e} at best: what is estimated is not the gradient"
        return Finding(stays, 0.0, float(order), float(order), ORDER_BOUND)
    if found is None:
        finer = "let relaxations be more exact, or give a larger beta" if case.dtype == np.float64 else "use float64"
        refuse(case.substrate, f"{compared}: the arithmetic is too coarse to tell bias from noise; {finer}")
    return fitted(compared, found, order)


def on_vectors(function: Callable[..., Any], *trees: PyTree) -> PyTree:
    """A function of numpy arrays, leaf by leaf."""
    return jax.tree.map(lambda *leaves: function(*map(np.asarray, leaves)), *trees)
