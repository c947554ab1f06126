"""Theorems of rules that descend something else than the cost of the free outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PRNGKeyArray, PyTree

from learning.coupled import ContrastiveLearning, CoupledLearning
from learning.fluctuations import FluctuationResponse
from learning.reference import response_gradient
from learning.rule import check_positive
from substrates.substrate import Cost, Nudge, Pin, Substrate, relax_batch, takes_own_targets
from theory_checks.case import Case, compiled, flat, on_host, relative
from theory_checks.laws_of_response import at_minimum
from theory_checks.theorems.measured import agreement, smaller
from theory_checks.theorems.propagation import surrogate
from theory_checks.theorems.suitable import (
    by_differences,
    centred_estimates,
    halved,
    nearest,
    order_of,
    refuse,
    suitable,
    trained_reading,
)
from theory_checks.theorems.theorem import Finding, Theorem

HOLDABLE = "outputs are variables of the system that can be held at the targets"


def contrastive_objective(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
) -> tuple[Finding, ...]:
    """Contrastive learning is exact gradient descent on E(outputs held at the targets) - E(free), which is never
    negative where the free state is a minimum.

    Args:
        substrate, x, y, cost, key: as of `check_substrate`; the targets must be such that outputs can be held there.
        beta: not used but to make the case.

    Raises NotApplicableError without an energy, for distributions, outputs that cannot be held or are read through
    trained parameters, and held phases that do not come to rest.

    Source: Movellan 1991, "Contrastive Hebbian learning in the continuous Hopfield model"; Scellier, Ernoult, Kendall
    and Kumar 2023, arXiv 2312.15103.
    """
    case = suitable(substrate, x, y, cost, key, beta, smooth=False, needs=lambda system: _not_holdable(system, cost))
    _shown_as_is(case)
    estimate = ContrastiveLearning(cost=case.cost, strict=False)(substrate, case.xs, case.ys, key=case.key)
    held = estimate.equilibria[1]
    if int(np.sum(~np.asarray(held.usable))):
        refuse(substrate, f"held at the targets, {int(np.sum(~np.asarray(held.usable)))} phases do not come to rest")

    size = float(np.linalg.norm(flat(held.state))) + 1e-3

    def objective(moved: Substrate) -> float:
        high, low, ends = _energies(moved, case.xs, case.ys, case.keys, held.state)
        if not case.discrete and np.linalg.norm(flat(ends) - flat(held.state)) > 0.05 * size:
            refuse(substrate, "held at the targets, a phase jumps to another state as the parameters change a little")
        return float(np.mean(high - low))

    found = [
        by_differences(
            case, "contrast with held outputs and differences of its objective", on_host(estimate.gradient), objective
        )
    ]
    if case.discrete or case.own_stationarity or at_minimum(case):
        high, low, _ = _energies(substrate, case.xs, case.ys, case.keys, held.state)
        size = float(np.max(np.abs(high - low))) + 1e-3
        slack = 1e3 * case.epsilon * (1 + float(np.max(np.abs(low))) / size)
        found.append(smaller("the energy of the free state and with held outputs", low, high, size, slack))
    return tuple(found)


def coupled_objective(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
) -> tuple[Finding, ...]:
    """As outputs are held ever less far from where they are free, coupled learning follows
    (do/dtheta)' chi^-1 dC/do, with chi the response of the outputs to forces on them: the gradient of the cost over chi
    of one output, another direction of several. Its bias is O(eta), centred O(eta^2).

    Args:
        substrate, x, y, cost, key: as of `check_substrate`.
        beta: not used but to make the case.

    Raises NotApplicableError as `contrastive_objective`, and for discrete states and equilibria that do not move
    smoothly.

    Source: Stern, Hexner, Rocks and Liu 2021, arXiv 2011.03861; Scellier, Ernoult, Kendall and Kumar 2023, arXiv
    2312.15103.
    """
    case = suitable(substrate, x, y, cost, key, beta, needs=lambda system: _not_holdable(system, cost))
    _shown_as_is(case)
    weights = _stiff_errors(substrate, case.free.state, case.xs, case.ys, case.cost)
    if not np.all(np.isfinite(weights)):
        refuse(substrate, "an output does not respond to a force on it, so that chi has no inverse")
    wanted, exists = _weighed(substrate, case.free.state, case.xs, weights)
    if not np.all(exists):
        refuse(substrate, "its outputs do not respond smoothly to the parameters")
    etas = halved(_weak(lambda eta: relative(_coupled(case, eta, "positive"), wanted)))
    estimates = {variant: [_coupled(case, eta, variant) for eta in etas] for variant in ("positive", "centered")}
    errors = {variant: [relative(each, wanted) for each in found] for variant, found in estimates.items()}
    best = nearest(estimates["centered"], errors["centered"])
    return (
        agreement("centred contrast, at its best eta, and (do/dtheta)' chi^-1 dC/do", best, wanted, case.resolution),
        order_of(case, "one-sided error in eta", etas, errors["positive"], 1),
        order_of(case, "centred error in eta", etas, errors["centered"], 2),
    )


def stochastic(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
    temperature: float | None = None,
) -> tuple[Finding, ...]:
    """At a temperature T the contrast of <dE/dtheta> is the exact gradient of [A(beta) - A(0)]/beta at any beta, with A
    the free energy; its limit is the gradient of <C>, which is -Cov(C, dE/dtheta)/T without any nudge.

    Args:
        substrate, x, y, cost, key: as of `check_substrate`; the state of the system is a distribution.
        beta: the nudge, which need not be small.
        temperature: T, in units of energy; by default the `temperature` that the system has.

    Raises NotApplicableError for systems whose state is no distribution, ValueError where there is no temperature.

    Source: Scellier and Bengio 2017, arXiv 1602.05179, the stochastic version; free energies at finite beta, arXiv
    2511.22024 (2025).
    """
    case = suitable(substrate, x, y, cost, key, beta, smooth=False, distribution=True)
    temperature = float(getattr(substrate, "temperature", np.nan) if temperature is None else temperature)
    if temperature != temperature:
        raise ValueError(f"temperature: wanted a positive number, for {type(substrate).__name__} has none, got None")
    check_positive("temperature", temperature)
    rule = FluctuationResponse(temperature, cost=case.cost, strict=False)
    exact = on_host(rule(substrate, case.xs, case.ys, key=case.key).gradient)
    unit = case.nudge(1.0)
    mean = lambda moved: float(_mean_cost(moved, case.settle(None, moved).state, case.xs, unit))
    return (
        by_differences(
            case,
            f"contrast at beta = {case.beta:.3g} and differences of the free energies",
            case.propagate_one_sided(case.beta),
            lambda moved: surrogate(case, 0.0, case.beta, moved),
        ),
        by_differences(case, "covariance over -T and differences of <C>", exact, mean),
        agreement(
            "centred contrast, at its best beta, and covariance over -T",
            nearest(*centred_estimates(case, exact)),
            exact,
            case.resolution,
        ),
    )


def _not_holdable(substrate: Substrate, cost: Cost | None) -> str | None:
    if not substrate.pins:
        return "its outputs cannot be held"
    if cost is not None and takes_own_targets(cost):
        return "targets of this cost are of a kind of their own, and no numbers to hold outputs at"
    return None


def _shown_as_is(case: Case) -> None:
    if trained_reading(case):
        refuse(case.substrate, "it shows its outputs through trained parameters, which held outputs teach nothing")


@compiled
def _energies(substrate: Substrate, xs: PyTree, ys: Any, keys: Any, start: PyTree) -> tuple[Any, Any, PyTree]:
    """The energies of each example with outputs held at their targets, from a start near which they rest, and of the
    free state; and the states that are held."""
    free = relax_batch(substrate, xs, keys=keys)
    held = relax_batch(substrate, xs, Pin(ys), start, keys)
    energies = jax.vmap(substrate.energy)
    return energies(held.state, xs), energies(free.state, xs), held.state


@compiled
def _stiff_errors(substrate: Substrate, states: PyTree, xs: PyTree, ys: Any, cost: Cost) -> Any:
    """chi^-1 dC/do of each example."""

    def one(state, x, y):
        flat_state, unravel = ravel_pytree(state)
        shows = jax.jacfwd(lambda s: substrate.read(unravel(s), x))(flat_state)
        stiffness = jax.jacfwd(lambda s: ravel_pytree(substrate.stationarity(unravel(s), x))[0])(flat_state)
        chi = shows @ jnp.linalg.lstsq(stiffness, shows.T)[0]
        return jnp.linalg.solve(chi, jax.grad(cost)(substrate.read(state, x), y))

    return jax.lax.map(lambda example: one(*example), (states, xs, ys))


@compiled
def _weighed(substrate: Substrate, states: PyTree, xs: PyTree, weights: Any) -> tuple[PyTree, Any]:
    """(do/dtheta)' weights, the mean over the batch, and for each example whether it exists."""
    return response_gradient(substrate, states, xs, weights, lambda output, weight: jnp.sum(output * weight))


@compiled
def _mean_cost(substrate: Substrate, states: PyTree, xs: PyTree, nudge: Nudge) -> Any:
    return substrate.covariance(states, xs, nudge)[0]


def _weak(error: Callable[[float], float]) -> float:
    """A strength at which an error is below a half: a quarter, or less where outputs hardly respond to forces."""
    for eta in halved(0.25, 8, 7):
        if error(eta) < 0.5:
            break
    return eta


def _coupled(case: Case, eta: float, variant: Any) -> PyTree:
    rule = CoupledLearning(jnp.asarray(eta, case.dtype), variant, cost=case.cost, strict=False)  # type: ignore[arg-type]
    return on_host(rule(case.substrate, case.xs, case.ys, key=case.key).gradient)


THEOREMS = (
    Theorem(
        name="contrastive-objective",
        statement=r"Contrastive learning descends $L = E(o = y) - E(\mathrm{free}) \geq 0$ by its exact gradient.",
        assumptions=("an energy, and a free state that is a minimum of it", HOLDABLE),
        source="Movellan 1991; Scellier, Ernoult, Kendall and Kumar 2023, arXiv 2312.15103",
        applies_to="systems with an energy whose outputs can be held, discrete states included",
        check=contrastive_objective,
        universal=True,
        rules=("contrastive",),
    ),
    Theorem(
        name="coupled-objective",
        statement=r"As $\eta \to 0$ coupled learning follows "
        r"$\left(\frac{do}{d\theta}\right)^T \chi^{-1} \frac{dC}{do}$ with $\chi = \frac{do}{df}$, which for one "
        r"output is the direction of the gradient; its bias is $O(\eta)$, centred $O(\eta^2)$.",
        assumptions=("an energy, and a smooth equilibrium", HOLDABLE, "outputs that respond to forces on them"),
        source="Stern, Hexner, Rocks and Liu 2021, arXiv 2011.03861; Scellier, Ernoult, Kendall and Kumar 2023, arXiv "
        "2312.15103",
        applies_to="systems with an energy and smooth equilibria, whose outputs can be held",
        check=coupled_objective,
        universal=True,
        rules=("coupled",),
    ),
    Theorem(
        name="stochastic",
        statement=r"At a temperature $T$, with $A = -T \log Z$, $\langle \partial E/\partial\theta \rangle_\beta - "
        r"\langle \partial E/\partial\theta \rangle_0 = \frac{d}{d\theta}[A(\beta) - A(0)]$ at any $\beta$; and "
        r"$\frac{d\langle C \rangle}{d\theta} = -\frac{1}{T} \mathrm{Cov}(C, \partial E/\partial\theta)$.",
        assumptions=("states distributed as exp(-F/T)", "a cost without parameters"),
        source="Scellier and Bengio 2017, arXiv 1602.05179; arXiv 2511.22024 (2025)",
        applies_to="systems whose state is the whole distribution at a temperature",
        check=stochastic,
        universal=True,
        rules=("equilibrium-propagation", "fluctuation-response"),
    ),
)
