"""Theorems of equilibrium propagation where there is an energy: the gradient, its bias, and what it is exact for."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from substrates.substrate import Cost, Substrate
from theory_checks.case import Case, relative
from theory_checks.laws_of_response import at_minimum, least_energy
from theory_checks.theorems.measured import agreement, smaller
from theory_checks.theorems.suitable import (
    by_differences,
    centred_estimates,
    halved,
    nearest,
    order_of,
    refuse,
    suitable,
)
from theory_checks.theorems.theorem import Finding, Theorem

ENERGY = "an energy, and an equilibrium that is a stationary point of it"
SMOOTH = "the Hessian of the energy is not singular there, and no event (a diode, a kink) lies between the phases"


def equilibrium_propagation(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
) -> tuple[Finding, ...]:
    """dL/dtheta = d/dbeta dF/dtheta(s_beta) at beta = 0: the contrast of two equilibria, the implicit function theorem
    and differences of the cost tell one number.

    Args:
        substrate, x, y, cost, key: as of `check_substrate`.
        beta: the largest nudge; by default one that suits the system.

    Raises NotApplicableError without an energy, for discrete states, distributions and equilibria that do not move
    smoothly.

    Source: Scellier and Bengio 2017, arXiv 1602.05179.
    """
    case = suitable(substrate, x, y, cost, key, beta)
    found = nearest(*centred_estimates(case))
    return (
        agreement("centred contrast, at its best beta, and implicit gradient", found, case.reference, case.resolution),
        by_differences(
            case,
            "implicit gradient and differences of the cost",
            case.reference,
            lambda moved: case.mean_cost(moved),
            case.resolution,
        ),
    )


def bias_orders(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
) -> tuple[Finding, ...]:
    """One-sided estimates err by O(beta), centred ones by O(beta^2).

    Args:
        substrate, x, y, cost, key, beta: as of `equilibrium_propagation`.

    Raises NotApplicableError as `equilibrium_propagation`, and where the arithmetic is too coarse to tell.

    Source: Scellier and Bengio 2017, arXiv 1602.05179; Laborieux et al. 2021, arXiv 2006.03824.
    """
    case = suitable(substrate, x, y, cost, key, beta)
    betas = halved(case.beta)
    one_sided = [relative(case.propagate_one_sided(beta), case.reference) for beta in betas]
    return (
        order_of(case, "one-sided error in beta", betas, one_sided, 1),
        order_of(case, "centred error in beta", betas, centred_estimates(case)[1], 2),
    )


def finite_beta_surrogate(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
) -> tuple[Finding, ...]:
    """At any beta the estimate is the exact gradient of the mean of C(s_b) over the nudges between the phases,
    (Fm(b2) - Fm(b1)) / (b2 - b1), with Fm the least total energy.

    Args:
        substrate, x, y, cost, key: as of `check_substrate`.
        beta: the nudge, which need not be small; by default one that suits the system.

    Raises NotApplicableError as `equilibrium_propagation`.

    Source: Scellier, Ernoult, Kendall and Kumar 2023, arXiv 2312.15103.
    """
    case = suitable(substrate, x, y, cost, key, beta)
    beta = case.beta
    pairs = {
        "positive": (0.0, beta, case.propagate_one_sided(beta)),
        "negative": (-beta, 0.0, case.propagate_one_sided(-beta)),
        "centered": (-beta, beta, case.propagate(beta)),
    }
    return tuple(
        by_differences(
            case,
            f"{variant} contrast at beta = {beta:.3g} and differences of its surrogate",
            contrast,
            functools.partial(surrogate, case, first, second),
        )
        for variant, (first, second, contrast) in pairs.items()
    )


def surrogate(case: Case, first: float, second: float, substrate: Substrate | None = None) -> float:
    """(Fm(second) - Fm(first)) / (second - first), averaged over the batch."""
    high, low = (least_energy(case, beta, substrate) for beta in (second, first))
    return float(np.mean(high - low)) / (second - first)


def sandwich_bounds(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
) -> tuple[Finding, ...]:
    """At minima C(s_beta) never rises with beta, so that L_(0,beta) <= L <= L_(-beta,0): positive nudges learn by a
    lower bound of the cost and negative ones by an upper bound. Of least energies nothing needs to be smooth.

    Args:
        substrate, x, y, cost, key: as of `check_substrate`.
        beta: the nudge; by default one that suits the system.

    Raises NotApplicableError without an energy, for distributions, and at saddles.

    Source: Scellier, Ernoult, Kendall and Kumar 2023, arXiv 2312.15103.
    """
    case = suitable(substrate, x, y, cost, key, beta, smooth=False)
    if not (case.discrete or case.own_stationarity or at_minimum(case)):
        refuse(substrate, "its free equilibrium is a saddle, and only minima obey the bounds")
    beta = case.beta
    below, middle, above = (least_energy(case, sign * beta) for sign in (-1.0, 0.0, 1.0))
    free = case.costs(case.free.state)
    size = float(np.max(np.abs(free))) + 1e-3
    slack = 1e3 * case.epsilon * (1 + float(np.max(np.abs(middle))) / (beta * size)) + 10 * case.epsilon**0.75
    grid = [beta * k / 4 for k in range(-4, 5)]
    along = np.stack([case.costs(case.settle(case.nudge(strength)).state) for strength in grid])
    return (
        smaller(f"L(0, b) below the cost, b = {beta:.3g}", (above - middle) / beta, free, size, slack),
        smaller(f"the cost below L(-b, 0), b = {beta:.3g}", free, (middle - below) / beta, size, slack),
        smaller("the cost at nine strengths below that at the one before", along[1:], along[:-1], size, slack),
    )


THEOREMS = (
    Theorem(
        name="equilibrium-propagation",
        statement=r"The gradient of the cost at the free equilibrium is the derivative in the nudge of what is "
        r"measured: $\frac{dL}{d\theta} = "
        r"\frac{d}{d\beta}|_0 \frac{\partial F}{\partial\theta}(\theta, \beta, s_\beta)$.",
        assumptions=(ENERGY, SMOOTH),
        source="Scellier and Bengio 2017, arXiv 1602.05179",
        applies_to="systems with an energy and smooth equilibria, minima or saddles",
        check=equilibrium_propagation,
        universal=True,
        rules=("equilibrium-propagation",),
    ),
    Theorem(
        name="bias-orders",
        statement=r"At a finite nudge one-sided estimates err by $O(\beta)$ and centred ones by $O(\beta^2)$: by "
        r"$\frac{\beta}{2} \frac{dm_2}{d\theta}$ and $\frac{\beta^2}{6} \frac{dm_3}{d\theta}$ to leading order, with "
        r"$m_k$ the $k$-th derivative of the total energy at equilibrium in $\beta$, at 0.",
        assumptions=(ENERGY, SMOOTH),
        source="Scellier and Bengio 2017, arXiv 1602.05179; Laborieux et al. 2021, arXiv 2006.03824",
        applies_to="systems with an energy and smooth equilibria, minima or saddles",
        check=bias_orders,
        universal=True,
        rules=("equilibrium-propagation",),
    ),
    Theorem(
        name="finite-beta-surrogate",
        statement=r"At any nudge the estimate is the exact gradient of "
        r"$L_{\beta_1, \beta_2} = \frac{F_m(\beta_2) - F_m(\beta_1)}{\beta_2 - \beta_1} = "
        r"\frac{1}{\beta_2 - \beta_1} \int_{\beta_1}^{\beta_2} C(s_\beta)\, d\beta$, with $F_m(\beta)$ the total "
        r"energy at equilibrium.",
        assumptions=(ENERGY, SMOOTH),
        source="Scellier, Ernoult, Kendall and Kumar 2023, arXiv 2312.15103",
        applies_to="systems with an energy and smooth equilibria, minima or saddles",
        check=finite_beta_surrogate,
        universal=True,
        rules=("equilibrium-propagation",),
    ),
    Theorem(
        name="sandwich-bounds",
        statement=r"At minima the total energy is concave in $\beta$ and $C(s_\beta)$ never rises with it, so that "
        r"$L_{0, \beta} \leq L \leq L_{-\beta, 0}$.",
        assumptions=("an energy, and an equilibrium that is the least of it; nothing need be differentiable",),
        source="Scellier, Ernoult, Kendall and Kumar 2023, arXiv 2312.15103",
        applies_to="systems that minimise an energy, discrete states included",
        check=sandwich_bounds,
        universal=True,
        rules=("equilibrium-propagation",),
    ),
)
