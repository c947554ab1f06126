"""Theorems of complex nudges: Cauchy's integral for the gradient, at once or by an oscillating nudge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from learning.holomorphic import HolomorphicEP, OscillatingEP
from substrates.substrate import Cost, DiscreteTime, Substrate, check_count
from substrates.wrapper import Wrapper
from theory_checks.case import Case, on_host, relative
from theory_checks.laws_of_response import jacobians
from theory_checks.theorems.in_time import steady_rate
from theory_checks.theorems.measured import agreement
from theory_checks.theorems.suitable import halved, no_bounds, no_saddle, order_of, refuse, suitable
from theory_checks.theorems.theorem import Finding, Theorem

ANALYTIC = "energy (or force), reading and cost are holomorphic, and the equilibrium is in the disc of the nudges"


MOST_STEPS_OF_LAG = 500
"""A system whose slowest motion decays more slowly, in steps of its fastest, is followed by no affordable period."""


def holomorphic(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
    points: Sequence[int] = (3, 4),
) -> tuple[Finding, ...]:
    """N nudges on a circle of radius r in the complex plane estimate the gradient with an error of O(r^N), without an
    energy that of the vector-field formula.

    Args:
        substrate, x, y, cost, key: as of `check_substrate`.
        beta: the largest radius; by default one that suits the system.
        points: N, one or several, at least 1.

    Raises NotApplicableError for systems that are not holomorphic, distributions, equilibria that do not move smoothly,
    and where the arithmetic is too coarse to tell.

    Source: Laborieux and Zenke 2022, arXiv 2209.00530; without an energy, 2024, arXiv 2309.02214.
    """
    for count in points:
        check_count("points", count)
    case = suitable(substrate, x, y, cost, key, beta, energy=None, needs=_not_analytic)
    findings = []
    for count in points:
        radii = halved(case.beta, 2 ** min(1.0, 2 / count), 16)
        errors = [relative(_cauchy(case, radius, count), case.reference) for radius in radii]
        findings.append(order_of(case, f"error in the radius of {count} points", radii, errors, count))
    return tuple(findings)


def lock_in(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
    period: int = 6,
    periods: Sequence[int] | None = None,
) -> tuple[Finding, ...]:
    """Under a nudge r exp(2 pi i t/N) that never rests, what oscillates at its frequency, over r, is the gradient: of
    a system that settles at once as on the circle, of one that lags with an error of O(1/N^2) in the real part.

    Args:
        substrate, x, y, cost, key: as of `check_substrate`.
        beta: the radius; by default one that suits the system.
        period: N of the system that settles at once, at least 3.
        periods: ever longer N of the same system that takes one step of its force at each nudge; by default from twenty
            times the steps in which its slowest motion decays.

    Raises NotApplicableError as `holomorphic`, and without an energy, with bounds, at saddles, and for motions that are
    so slow that no period outlasts them.

    Source: Laborieux and Zenke 2022, arXiv 2209.00530.
    """
    case = suitable(substrate, x, y, cost, key, beta, needs=_not_analytic)
    no_bounds(case)
    no_saddle(case)
    periods = _longer_than_it_lags(case) if periods is None else periods
    slow = _Slow(substrate, DiscreteTime(steady_rate(case), "energy-based"))
    at_once = _locked_in(case, substrate, period, None)
    late = [relative(_locked_in(case, slow, count, 1).inner, case.reference) for count in periods]
    return (
        agreement(
            f"lock-in over a period of {period} and {period} points on the circle",
            at_once,
            _cauchy(case, case.beta, period),
            case.resolution,
        ),
        order_of(case, "error of a system that lags, in 1/period", [1 / n for n in periods], late, 2, 0.0),
    )


def _longer_than_it_lags(case: Case) -> list[int]:
    stiffness = -jacobians(case.substrate, case.free.state, case.xs)
    lag = float(np.max(np.linalg.cond(stiffness, 2)))
    if lag > MOST_STEPS_OF_LAG:
        refuse(case.substrate, f"its slowest motion takes {lag:.0f} steps of its fastest: no period outlasts it")
    return [20 * int(np.ceil(max(lag, 10.0))) * k for k in (1, 2, 4)]


def _not_analytic(substrate: Substrate) -> str | None:
    if substrate.holomorphic:
        return None
    return f"its states have no analytic continuation: {substrate.why_not_holomorphic}"


def _cauchy(case: Case, radius: float, points: int) -> PyTree:
    traced: Any = jnp.asarray(radius, case.dtype)
    rule = HolomorphicEP(traced, points, case.cost, strict=False)
    return on_host(rule(case.substrate, case.xs, case.ys, key=case.key).gradient)


def _locked_in(case: Case, system: Substrate, period: int, sweeps: int | None) -> Any:
    radius: Any = jnp.asarray(case.beta, case.dtype)
    rule = OscillatingEP(radius, period, 2, sweeps, case.cost, strict=False)
    return on_host(rule(system, case.xs, case.ys, key=case.key).gradient)


class _Slow(Wrapper):
    """A system that follows its force in steps, whatever solver its class has."""

    forwards: ClassVar[bool] = True

    inner: Substrate
    pace: DiscreteTime

    @property
    def solver(self) -> Any:  # type: ignore[override]
        return self.pace

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        return self.inner.relax(x, nudge, start, key=key, solver=self.pace if solver is None else solver)


THEOREMS = (
    Theorem(
        name="holomorphic",
        statement=r"$\frac{1}{Nr} \sum_{k<N} \frac{\partial F}{\partial\theta}(s_{\beta_k})\, e^{-2\pi i k/N}$ at "
        r"$\beta_k = r e^{2\pi i k/N}$ is the gradient up to $O(r^N)$.",
        assumptions=(ANALYTIC,),
        source="Laborieux and Zenke 2022, arXiv 2209.00530",
        applies_to="systems whose equilibria continue analytically to complex nudges",
        check=holomorphic,
        universal=True,
        rules=("holomorphic",),
    ),
    Theorem(
        name="lock-in",
        statement=r"Under a nudge $\beta(t) = r e^{2\pi i t/N}$ that never rests, "
        r"$\frac{1}{Nr} \sum_t \frac{\partial F}{\partial\theta}(s(t))\, e^{-2\pi i t/N}$ tends to the gradient as the "
        r"period outlasts the relaxation, with an error of $O(1/N^2)$.",
        assumptions=(ANALYTIC, "a nudge that is slow against the relaxation"),
        source="Laborieux and Zenke 2022, arXiv 2209.00530",
        applies_to="systems with an energy whose equilibria continue analytically to complex nudges",
        check=lock_in,
        universal=True,
        rules=("oscillating",),
    ),
)
