"""Theorems of what happens while outputs are nudged: step by step it is back-propagation through time."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from learning.continual import ContinualEP
from learning.in_time import UpdatesInTime, updates_in_time
from learning.rule import check_positive
from learning.unrolled import RecurrentBackprop
from substrates.substrate import Cost, DiscreteTime, Substrate, check_count, split_parameters
from theory_checks.case import Case, flat, on_host, relative
from theory_checks.laws_of_response import jacobians
from theory_checks.theorems.measured import agreement
from theory_checks.theorems.suitable import halved, no_saddle, on_vectors, order_of, suitable, with_room
from theory_checks.theorems.theorem import Finding, Theorem

AT_REST = "the free phase has come to rest, where its flow is stable"
ENERGY = "an energy: the Jacobian of the force is symmetric"


def temporal_identity(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
    steps: int = 12,
    rate: float | None = None,
) -> tuple[Finding, ...]:
    """-(1/beta) dS/dt of the nudged flow is the error of recurrent back-propagation at every moment, and
    (1/beta) [dF/dtheta(S) - dE/dtheta(s_0)] its gradient so far.

    Args:
        substrate, x, y, cost, key: as of `check_substrate`.
        beta: a strength of the nudge that suits the system, of which a very small part is used.
        steps: how many.
        rate: of the flow, in units of the state per force; by default 1 over the largest stiffness.

    Raises NotApplicableError without an energy, for discrete states, distributions, saddles, and equilibria that do not
    move smoothly.

    Source: Scellier and Bengio 2019, arXiv 1711.08416.
    """
    check_count("steps", steps)
    case = _flowing(substrate, x, y, cost, key, beta)
    rate = steady_rate(case) if rate is None else rate
    found = _centred(case, steps, DiscreteTime(rate, "energy-based"))
    rule = RecurrentBackprop(steps, rate, case.cost, strict=False)
    course = on_host(rule.course(substrate, case.xs, case.ys, key=case.key))
    so_far = on_vectors(lambda u: -np.cumsum(u, axis=0), found.update)
    return (
        agreement(
            "speed of the nudged state, over -beta, and the error that flows back",
            on_vectors(lambda u: -u / rate, found.state_update),
            on_vectors(lambda e: e[:steps], course.error),
            case.resolution,
        ),
        agreement(
            "change of dF/dtheta so far, over beta, and the gradient that has come back",
            so_far,
            on_vectors(lambda g: g[1:], course.gradient),
            case.resolution,
        ),
    )


def gradient_descending_updates(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
    steps: int = 12,
    solver: DiscreteTime | None = None,
) -> tuple[Finding, ...]:
    """The updates of every step of a nudged phase are minus the gradients of back-propagation through as many last
    steps of the free one: of the state, and of the parameters.

    Args:
        substrate, x, y, cost, key: as of `check_substrate`.
        beta: as of `temporal_identity`.
        steps: how many.
        solver: the steps; by default energy-based ones of 1 over the largest stiffness.

    Raises NotApplicableError as `temporal_identity`.

    Source: Ernoult, Grollier, Querlioz, Bengio and Scellier 2019, arXiv 1905.13633.
    """
    check_count("steps", steps)
    case = _flowing(substrate, x, y, cost, key, beta)
    found = _centred(case, steps, DiscreteTime(steady_rate(case), "energy-based") if solver is None else solver)
    minus = lambda tree: on_vectors(np.negative, tree)
    return (
        agreement(
            f"updates of the state and minus its gradients, {steps} steps",
            found.state_update,
            minus(found.state_gradient),
            case.resolution,
        ),
        agreement(
            f"updates of the parameters and minus their gradients, {steps} steps",
            found.update,
            minus(found.gradient),
            case.resolution,
        ),
    )


def continual(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
    ratio: float = 1e-4,
    steps: int = 8,
) -> tuple[Finding, ...]:
    """While states and parameters move together, the updates over eta tend to minus the gradients of back-propagation
    through time as first eta and then beta go to 0: the error is O(beta) + O(eta/beta).

    Args:
        substrate, x, y, cost, key: as of `check_substrate`.
        beta: a strength of the nudge that suits the system, of which small parts are used.
        ratio: eta/beta at which the updates are held against their limit, as a part of what makes them err by as much
            as they are; they fail it unless that is much below 1.
        steps: of the nudged phase.

    Raises NotApplicableError as `temporal_identity`, and for parameters that a physical limit stops.

    Source: Ernoult, Grollier, Querlioz, Bengio and Scellier 2020, arXiv 2005.04168.
    """
    check_count("steps", steps)
    check_positive("ratio", ratio)
    case = _flowing(substrate, x, y, cost, key, beta)
    with_room(case)
    solver = DiscreteTime(steady_rate(case), "energy-based")
    wanted = on_vectors(lambda g: -np.sum(g, axis=0), _centred(case, steps, solver).gradient)
    before = flat(on_host(split_parameters(substrate)[0]))

    def moved(beta: float, ratio: float) -> np.ndarray:
        rule = ContinualEP(beta, ratio * beta, steps, solver=solver, cost=case.cost, strict=False)
        after = rule.step(substrate, case.xs, case.ys, key=case.key).system
        return (flat(on_host(split_parameters(after)[0])) - before) / (ratio * beta)

    error = lambda beta, ratio: relative(moved(beta, ratio), wanted)
    small = 1e-4 * case.beta
    unit = _natural_ratio(lambda ratio: error(small, ratio))
    ratios, betas = halved(0.1, count=6), halved(case.beta / 4, count=7)
    # below these, what rounding leaves of the parameters' motion counts for more
    of_ratio = [error(small, unit * each) for each in ratios]
    of_beta = [error(each, 3e-5 * unit) for each in betas]
    told = f"eta/beta = {unit * ratio:.1e}, {ratio:.1g} of what errs by 1"
    return (
        agreement(f"updates at {told}, and minus the gradients", moved(small, unit * ratio), wanted, 1e-2),
        order_of(case, "error in beta at a very small eta/beta", betas, of_beta, 1, 5e-5),
        order_of(case, "error in eta/beta at a small beta", ratios, of_ratio, 1, 5e-5),
        agreement(
            "updates at a tenth of that eta/beta for two small beta: the error stays as both go to 0",
            moved(small, 0.1 * unit),
            moved(small / 10, 0.1 * unit),
            1e-2,
        ),
    )


def _natural_ratio(error: Callable[[float], float]) -> float:
    """The eta/beta at which an error that grows with it would be 1, or a large one where it does not grow."""
    for ratio in 10.0 ** np.arange(-3, 7):
        found = error(float(ratio))
        if found > 0.01:
            break
    return float(ratio) / found


def _flowing(
    substrate: Substrate, x: PyTree, y: PyTree, cost: Cost | None, key: PRNGKeyArray | None, beta: float | None
) -> Case:
    case = suitable(substrate, x, y, cost, key, beta)
    no_saddle(case)
    return case


def steady_rate(case: Case) -> float:
    """1 over the largest stiffness at the free equilibria."""
    return 1 / float(np.max(np.linalg.norm(jacobians(case.substrate, case.free.state, case.xs), 2, axis=(1, 2))))


def _centred(case: Case, steps: int, solver: DiscreteTime) -> UpdatesInTime:
    """The mean of what nudges of either sign find, without what both have in common: the forces that are left over."""
    beta = case.beta * case.epsilon ** (1 / 4)
    up, down = (
        updates_in_time(
            case.substrate,
            case.xs,
            case.ys,
            sign * beta,
            steps,
            solver=solver,
            cost=case.cost,
            key=case.key,
            strict=False,
        )
        for sign in (1.0, -1.0)
    )
    return jax.tree.map(lambda a, b: (np.asarray(a) + np.asarray(b)) / 2, up, down)


THEOREMS = (
    Theorem(
        name="temporal-identity",
        statement=r"Along the nudged flow from the free state $-\frac{1}{\beta}\frac{dS}{dt}$ is the error, and "
        r"$\frac{1}{\beta}\left[\frac{\partial F}{\partial\theta}(S) - \frac{\partial E}{\partial\theta}(s_0)\right]$ "
        r"the gradient, of recurrent back-propagation at every moment, as $\beta \to 0$.",
        assumptions=(ENERGY, AT_REST),
        source="Scellier and Bengio 2019, arXiv 1711.08416",
        applies_to="systems at a minimum of an energy, whose states move continuously",
        check=temporal_identity,
        universal=True,
        rules=("equilibrium-propagation", "recurrent-backprop"),
    ),
    Theorem(
        name="gradient-descending-updates",
        statement=r"The updates of a nudged phase are, step by step, minus the gradients of back-propagation through "
        r"the last steps of the free one: $\Delta_s(t) \to -\nabla_s(t)$ and $\Delta_\theta(t) \to -\nabla_\theta(t)$ "
        r"as $\beta \to 0$.",
        assumptions=("steps with a primitive function: an energy", "a steady state, held for as many steps"),
        source="Ernoult, Grollier, Querlioz, Bengio and Scellier 2019, arXiv 1905.13633",
        applies_to="systems at a minimum of an energy, whose states move continuously",
        check=gradient_descending_updates,
        universal=True,
        rules=("equilibrium-propagation", "backprop-through-time"),
    ),
    Theorem(
        name="continual",
        statement=r"Where states and parameters move together, $\lim_{\beta \to 0} \lim_{\eta \to 0}$ of the updates "
        r"over $\eta$ are minus the gradients of back-propagation through time; the error is "
        r"$O(\beta) + O(\eta/\beta)$.",
        assumptions=(ENERGY, AT_REST, r"$\eta \ll \beta \ll 1$, in this order"),
        source="Ernoult, Grollier, Querlioz, Bengio and Scellier 2020, arXiv 2005.04168",
        applies_to="systems at a minimum of an energy, whose states move continuously",
        check=continual,
        universal=True,
        rules=("continual",),
    ),
)
