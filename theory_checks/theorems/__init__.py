"""The theorems, each a statement with its source and a function that measures both of its sides on a system."""

from theory_checks.theorems import (
    agnostic,
    circuits,
    dynamics,
    holomorphy,
    in_time,
    locality,
    objectives,
    predictive,
    propagation,
    quantum_systems,
    stationary,
    symmetries,
    thermal,
    without_energy,
)
from theory_checks.theorems.agnostic import SinhWell, agnostic_lyapunov, agnostic_metric, agnostic_step
from theory_checks.theorems.circuits import (
    co_content,
    coordinate_descent,
    diode_complementarity,
    universal_approximation,
)
from theory_checks.theorems.dynamics import hamiltonian_echo, lagrangian_boundary
from theory_checks.theorems.holomorphy import holomorphic, lock_in
from theory_checks.theorems.in_time import continual, gradient_descending_updates, temporal_identity
from theory_checks.theorems.locality import parameter_locality
from theory_checks.theorems.objectives import contrastive_objective, coupled_objective, stochastic
from theory_checks.theorems.predictive import feed_forward_residual, predictive_coding, predictive_coding_kernel
from theory_checks.theorems.propagation import (
    bias_orders,
    equilibrium_propagation,
    finite_beta_surrogate,
    sandwich_bounds,
)
from theory_checks.theorems.quantum_systems import free_fermions, gaussian, quantum
from theory_checks.theorems.stationary import driven, force_matching, natural_frequencies, skew_gradient
from theory_checks.theorems.symmetries import gauge_symmetries, onsager_reciprocity
from theory_checks.theorems.theorem import Finding, NotApplicableError, Theorem
from theory_checks.theorems.thermal import gibbs, homogeneous_limits
from theory_checks.theorems.without_energy import adjoint_repair, homeostatic, vector_field_bias

__all__ = [
    "ALL",
    "Finding",
    "NotApplicableError",
    "SinhWell",
    "Theorem",
    "adjoint_repair",
    "agnostic_lyapunov",
    "agnostic_metric",
    "agnostic_step",
    "bias_orders",
    "co_content",
    "continual",
    "contrastive_objective",
    "coordinate_descent",
    "coupled_objective",
    "diode_complementarity",
    "driven",
    "equilibrium_propagation",
    "feed_forward_residual",
    "find",
    "finite_beta_surrogate",
    "force_matching",
    "free_fermions",
    "gauge_symmetries",
    "gaussian",
    "gibbs",
    "gradient_descending_updates",
    "hamiltonian_echo",
    "holomorphic",
    "homeostatic",
    "homogeneous_limits",
    "lagrangian_boundary",
    "lock_in",
    "natural_frequencies",
    "onsager_reciprocity",
    "parameter_locality",
    "predictive_coding",
    "predictive_coding_kernel",
    "quantum",
    "sandwich_bounds",
    "skew_gradient",
    "stochastic",
    "temporal_identity",
    "universal_approximation",
    "vector_field_bias",
]

ALL: tuple[Theorem, ...] = (
    *propagation.THEOREMS,
    *locality.THEOREMS,
    *in_time.THEOREMS,
    *without_energy.THEOREMS,
    *holomorphy.THEOREMS,
    *agnostic.THEOREMS,
    *objectives.THEOREMS,
    *circuits.THEOREMS,
    *quantum_systems.THEOREMS,
    *thermal.THEOREMS,
    *dynamics.THEOREMS,
    *stationary.THEOREMS,
    *symmetries.THEOREMS,
    *predictive.THEOREMS,
)
"""All theorems, those of learning first."""


def find(name: str) -> Theorem:
    """The theorem of a name, "bias-orders", say. Raises KeyError for another, with the names there are."""
    for theorem in ALL:
        if theorem.name == name:
            return theorem
    raise KeyError(f"name: wanted one of {', '.join(theorem.name for theorem in ALL)}, got {name!r}")
