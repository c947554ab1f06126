# ruff: noqa: F401
"""Rules that train physical systems through their contract, and what it takes to use them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for those who read without running
    from learning.agnostic import AgnosticEP
    from learning.averaging import Averaged
    from learning.basins import basin_jumps
    from learning.calibration import Calibration, calibrate
    from learning.comparison import Comparison, ComparisonSettings, compare
    from learning.continual import ContinualEP
    from learning.contrastive import EquilibriumPropagation
    from learning.costs import CrossEntropy, NegativeLogLikelihood, PhaseCost, PositionError, SquaredError
    from learning.coupled import ContrastiveLearning, CoupledLearning
    from learning.coupled_knobs import CoupledKnobs
    from learning.data import Data, load_data
    from learning.echo import HamiltonianEcho
    from learning.evaluation import Evaluation, evaluate
    from learning.feedback_alignment import FeedbackAlignment, RandomWeights
    from learning.fluctuations import FluctuationResponse
    from learning.holomorphic import HolomorphicEP, OscillatingEP
    from learning.homeostasis import JacobianHomeostasis, Tracking, alignment, homeostatic_loss, symmetry
    from learning.homeostat import FixedKnobs, IntegralControl, SelfControl
    from learning.in_time import UpdatesInTime, updates_in_time
    from learning.knob_descent import KnobDescent
    from learning.loading import load_run
    from learning.perturbation import (
        EvolutionStrategy,
        FiniteDifferences,
        NodePerturbation,
        SimultaneousPerturbation,
    )
    from learning.physics_aware import Mismatch, PhysicsAware
    from learning.physics_aware_knobs import PhysicsAwareKnobs
    from learning.prediction import Prediction, predict
    from learning.reference import ImplicitGradient
    from learning.rounding import Rounding, RoundingError, check_bfloat16
    from learning.snapshots import Snapshots
    from learning.training import Run, fit
    from learning.unrolled import BackpropThroughTime, Course, RecurrentBackprop

_HOMES = {
    "learning.agnostic": "AgnosticEP",
    "learning.averaging": "Averaged",
    "learning.basins": "basin_jumps",
    "learning.calibration": "Calibration calibrate",
    "learning.comparison": "Comparison ComparisonSettings compare",
    "learning.continual": "ContinualEP",
    "learning.contrastive": "EquilibriumPropagation",
    "learning.costs": "CrossEntropy NegativeLogLikelihood PhaseCost PositionError SquaredError",
    "learning.coupled": "ContrastiveLearning CoupledLearning",
    "learning.coupled_knobs": "CoupledKnobs",
    "learning.data": "Data load_data",
    "learning.echo": "HamiltonianEcho",
    "learning.evaluation": "Evaluation evaluate",
    "learning.feedback_alignment": "FeedbackAlignment RandomWeights",
    "learning.fluctuations": "FluctuationResponse",
    "learning.holomorphic": "HolomorphicEP OscillatingEP",
    "learning.homeostat": "FixedKnobs IntegralControl SelfControl",
    "learning.in_time": "UpdatesInTime updates_in_time",
    "learning.homeostasis": "JacobianHomeostasis Tracking alignment homeostatic_loss symmetry",
    "learning.knob_descent": "KnobDescent",
    "learning.loading": "load_run",
    "learning.perturbation": "EvolutionStrategy FiniteDifferences NodePerturbation SimultaneousPerturbation",
    "learning.physics_aware": "Mismatch PhysicsAware",
    "learning.physics_aware_knobs": "PhysicsAwareKnobs",
    "learning.prediction": "Prediction predict",
    "learning.reference": "ImplicitGradient",
    "learning.rounding": "Rounding RoundingError check_bfloat16",
    "learning.snapshots": "Snapshots",
    "learning.training": "Run fit",
    "learning.unrolled": "BackpropThroughTime Course RecurrentBackprop",
}
__all__ = [name for names in _HOMES.values() for name in names.split()]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first asked for: nobody waits for what a program does not use."""
    for home, names in _HOMES.items():
        if name in names.split():
            return globals().setdefault(name, getattr(import_module(home), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
