"""The theorems, each a statement with its source and a function that measures both of its sides on a system."""

from theory_checks.theorems import agnostic, holomorphy, in_time, objectives, propagation, without_energy
from theory_checks.theorems.agnostic import SinhWell, agnostic_lyapunov, agnostic_metric, agnostic_step
from theory_checks.theorems.holomorphy import holomorphic, lock_in
from theory_checks.theorems.in_time import continual, gradient_descending_updates, temporal_identity
from theory_checks.theorems.objectives import contrastive_objective, coupled_objective, stochastic
from theory_checks.theorems.propagation import (
    bias_orders,
    equilibrium_propagation,
    finite_beta_surrogate,
    sandwich_bounds,
)
from theory_checks.theorems.theorem import Finding, NotApplicableError, Theorem
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
    "continual",
    "contrastive_objective",
    "coupled_objective",
    "equilibrium_propagation",
    "find",
    "finite_beta_surrogate",
    "gradient_descending_updates",
    "holomorphic",
    "homeostatic",
    "lock_in",
    "sandwich_bounds",
    "stochastic",
    "temporal_identity",
    "vector_field_bias",
]

ALL: tuple[Theorem, ...] = (
    *propagation.THEOREMS,
    *in_time.THEOREMS,
    *without_energy.THEOREMS,
    *holomorphy.THEOREMS,
    *agnostic.THEOREMS,
    *objectives.THEOREMS,
)
"""All theorems, those of learning first."""


def find(name: str) -> Theorem:
    """The theorem of a name, "bias-orders", say. Raises KeyError for another, with the names there are."""
    for theorem in ALL:
        if theorem.name == name:
            return theorem
    raise KeyError(f"name: wanted one of {', '.join(theorem.name for theorem in ALL)}, got {name!r}")
