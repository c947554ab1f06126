"""The theorems as derivations that SymPy checks step by step, each with faults that must break it."""

from theory_checks.proofs.circuits import co_content, diode_complementarity, universal_approximation
from theory_checks.proofs.clamped import (
    agnostic_lyapunov,
    agnostic_metric,
    agnostic_step,
    contrastive_objective,
    coupled_objective,
    force_matching,
)
from theory_checks.proofs.gradients import (
    bias_orders,
    equilibrium_propagation,
    finite_beta_surrogate,
    holomorphic,
    sandwich_bounds,
)
from theory_checks.proofs.in_time import (
    continual,
    gradient_descending_updates,
    hamiltonian_echo,
    lagrangian_boundary,
    temporal_identity,
)
from theory_checks.proofs.layers import feed_forward_residual, predictive_coding
from theory_checks.proofs.locality import parameter_locality
from theory_checks.proofs.proof import Checked, Proof, Provable, Step, Verification
from theory_checks.proofs.quantum_systems import free_fermions, gaussian, homogeneous_limits, quantum
from theory_checks.proofs.responses import driven, lock_in, natural_frequencies, onsager_reciprocity
from theory_checks.proofs.thermal import gibbs, stochastic
from theory_checks.proofs.without_energy import adjoint_repair, homeostatic_loss, skew_gradient, vector_field_bias
from theory_checks.theorems import ALL

PROOFS: dict[str, Provable] = {
    proof.theorem.name: proof
    for proof in (
        equilibrium_propagation,
        bias_orders,
        finite_beta_surrogate,
        sandwich_bounds,
        parameter_locality,
        temporal_identity,
        gradient_descending_updates,
        continual,
        vector_field_bias,
        adjoint_repair,
        holomorphic,
        lock_in,
        agnostic_step,
        agnostic_lyapunov,
        agnostic_metric,
        contrastive_objective,
        coupled_objective,
        homeostatic_loss,
        stochastic,
        co_content,
        diode_complementarity,
        universal_approximation,
        quantum,
        onsager_reciprocity,
        gibbs,
        free_fermions,
        gaussian,
        lagrangian_boundary,
        hamiltonian_echo,
        skew_gradient,
        driven,
        natural_frequencies,
        force_matching,
        predictive_coding,
        feed_forward_residual,
        homogeneous_limits,
    )
}
"""The proof of each theorem by its name: `PROOFS[name](fault)` builds it, `PROOFS[name].faults` says what can break
it."""


def prove(name: str, fault: str | None = None) -> Proof:
    """The proof of a theorem, to be shown in a notebook or verified.

    Args:
        name: one of `PROOFS`.
        fault: one of `PROOFS[name].faults` plants it, so that the proof must fail; None for the honest proof.

    Raises:
        ValueError: when the name or the fault is unknown, and for a theorem that is measured only.
    """
    if name in {theorem.name for theorem in ALL} - set(PROOFS):
        raise ValueError(f"name: {name} is measured only, it has no proof; see groundstate theorems {name}")
    if name not in PROOFS:
        raise ValueError(f"name: wanted one of {', '.join(PROOFS)}, got {name!r}; choose one of these")
    return PROOFS[name](fault)


__all__ = [
    "PROOFS",
    "Checked",
    "Proof",
    "Provable",
    "Step",
    "Verification",
    "prove",
]
