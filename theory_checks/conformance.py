"""The conformance kit: which laws of the contract a substrate obeys, with the numbers."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import PRNGKeyArray, PyTree

from substrates.substrate import Cost, Substrate
from theory_checks import laws_of_agreement as agreement
from theory_checks import laws_of_capabilities as capabilities
from theory_checks import laws_of_equilibrium as equilibrium
from theory_checks import laws_of_response as response
from theory_checks import laws_of_units
from theory_checks.entrance import case_for
from theory_checks.report import Law, Report, does_not_apply

LAWS = (
    equilibrium.convergence,
    equilibrium.stationarity,
    equilibrium.residual,
    equilibrium.energy,
    equilibrium.force,
    equilibrium.measurement,
    equilibrium.contrasts,
    equilibrium.constraints,
    response.reciprocity,
    response.envelope,
    response.bounds,
    response.propagation,
    response.surrogate,
    response.quiet,
    agreement.batches,
    agreement.compilation,
    agreement.solvers,
    laws_of_units.units,
    capabilities.continuation,
    capabilities.pinning,
    capabilities.discreteness,
)

OF_GRADIENTS = (
    equilibrium.measurement,
    equilibrium.contrasts,
    response.propagation,
    response.surrogate,
    response.quiet,
    agreement.batches,
)


def _unusable(check: Callable) -> Law:
    sentence = str(check.__doc__).strip().split(":")[0].rstrip(".")
    return does_not_apply(
        check.__name__, f"{sentence}: the gradients do not fit the parameters, so it cannot be tested."
    )


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
    laws = equilibrium.trained(case)
    usable = all(law.verdict == "holds" for law in laws)
    for check in LAWS:
        laws += check(case) if usable or check not in OF_GRADIENTS else [_unusable(check)]
    system = (
        f"{type(substrate).__name__}: {case.variables} state variables, {case.shown.shape[1]} outputs, "
        f"{case.size} examples, {case.dtype}, beta = {case.beta:.3g}"
    )
    return Report(system, tuple(laws))
