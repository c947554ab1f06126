"""The conformance kit: which laws of the contract a substrate obeys, with the numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import PRNGKeyArray, PyTree

from substrates.substrate import Cost, Substrate
from theory_checks import laws_of_agreement as agreement
from theory_checks import laws_of_capabilities as capabilities
from theory_checks import laws_of_equilibrium as equilibrium
from theory_checks import laws_of_promises as promises
from theory_checks import laws_of_response as response
from theory_checks import laws_of_units
from theory_checks.case import Case
from theory_checks.entrance import case_for
from theory_checks.hints import hinted
from theory_checks.laws_of_capabilities import PHASES
from theory_checks.report import Law, Report, does_not_apply


class Check(NamedTuple):
    """A function that holds laws against a case.

    Attributes:
        function: from a `Case` to laws.
        names: of all the laws that it may return.
        of_gradients: whether it needs gradients that fit the parameters.
    """

    function: Callable[[Case], list[Law]]
    names: tuple[str, ...]
    of_gradients: bool = False


CHECKS = (
    Check(equilibrium.trained, ("gradients fit the parameters",)),
    Check(equilibrium.convergence, ("relaxations converge",)),
    Check(equilibrium.stationarity, ("free stationarity", "nudged stationarity")),
    Check(equilibrium.residual, ("residual measures equilibrium",)),
    Check(equilibrium.energy, ("reported energy = F(state)",)),
    Check(equilibrium.force, ("force = -dE/dstate", "force = -dE/dstate, by differences")),
    Check(equilibrium.measurement, ("measure = dF/dtheta", "measure = dF/dtheta, by differences"), True),
    Check(equilibrium.contrasts, ("contrast = difference of measures",), True),
    Check(equilibrium.constraints, ("constrained() is a projection",)),
    Check(response.reciprocity, ("reciprocity of the force", "reciprocity of the response")),
    Check(response.envelope, ("envelope: dFm/dbeta = C(s_beta)",)),
    Check(response.bounds, ("bounds: L(0,b) <= L <= L(-b,0)", "C(s_beta) never increases with beta")),
    Check(
        response.propagation,
        (
            "EP -> exact gradient",
            "EP -> vector-field formula",
            "EP one-sided: error ~ beta",
            "EP centred: error ~ beta^2",
        ),
        True,
    ),
    Check(response.slope_of_cost, ("EP less its bias = slope of the cost",), True),
    Check(response.surrogate, ("EP = gradient of its surrogate",), True),
    Check(response.quiet, ("no slope, no update",), True),
    Check(agreement.batches, ("batch = singles: equilibria", "batch = singles: measurements"), True),
    Check(agreement.compilation, ("jit = eager",)),
    Check(agreement.solvers, ("generic solver = own solver",)),
    Check(laws_of_units.units, ("the same equilibrium in other units",)),
    Check(promises.repetition, ("one key, the same again",)),
    Check(promises.precision, ("precision of the parameters is kept",), True),
    Check(promises.warm_starts, ("warm starts end at their own input",)),
    Check(promises.numbers, ("parameters are numbers",)),
    Check(promises.inputs, ("the input acts",)),
    Check(promises.readings, ("the state shows",)),
    Check(promises.descent, ("energy not above its start",)),
    Check(promises.truncation, ("truncated phases",)),
    Check(capabilities.continuation, ("holomorphic = said",)),
    Check(capabilities.analytic_order, (f"EP on a circle of {PHASES}: error ~ beta^{PHASES}",), True),
    Check(capabilities.pinning, ("pins = said",)),
    Check(capabilities.discreteness, ("discrete = said",)),
    Check(capabilities.linearity, ("linear in parameters = said",), True),
)
"""All that a substrate is held against, in the order of a report."""


def hold(check: Check, case: Case) -> list[Law]:
    """The laws of a check, each that fails with a hint."""
    if check.of_gradients and any(law.verdict != "holds" for law in equilibrium.trained(case)):
        return [
            does_not_apply(name, "The gradients do not fit the parameters, so it cannot be tested.")
            for name in check.names
        ]
    return [hinted(law) for law in check.function(case)]


def check_substrate(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
) -> Report:
    """Holds a substrate against the laws of its contract and of equilibrium propagation.

    Every number is computed afresh: residuals from the energy (or force) and the reading alone, forces and
    measurements also by finite differences, gradients by implicit differentiation. Bounds follow from the dtype of the
    parameters: rounding eps, and the contract's tolerance eps^(3/4). Laws that say nothing about a system (no energy,
    discrete states) are listed with the reason. Use small systems: Jacobians are factorised.

    Args:
        substrate: the system.
        x: inputs with a leading batch axis, or of one example.
        y: targets, shape (batch, outputs), or (outputs,) for one example; labels of shape (batch,) where x is known to
            be a batch of vectors; a tree with a leading axis for a cost that takes it.
        cost: a callable (output, target) -> scalar; by default `SquaredError()`.
        key: randomness of the relaxations and of the directions that are tried; by default the key of 0.
        beta: the largest nudging strength used; by default one that suits the system.

    Returns a `Report`, which prints as a table and can `raise_if_failed()`.
    Raises ValueError when shapes do not fit or the system is too large.
    """
    case = case_for(substrate, x, y, cost=cost, key=key, beta=beta)
    laws = [law for check in CHECKS for law in hold(check, case)]
    system = (
        f"{type(substrate).__name__}: {case.variables} state variables, {case.shown.shape[1]} outputs, "
        f"{case.size} examples, {case.dtype}, beta = {case.beta:.3g}"
    )
    return Report(system, tuple(laws))
