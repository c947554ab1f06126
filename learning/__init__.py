"""Rules that train physical systems through their contract, and what it takes to use them."""

from learning.agnostic import AgnosticEP
from learning.averaging import Averaged
from learning.calibration import Calibration, calibrate
from learning.contrastive import EquilibriumPropagation
from learning.costs import CrossEntropy, NegativeLogLikelihood, PhaseCost, PositionError, SquaredError
from learning.data import Data, load_data
from learning.evaluation import Evaluation, evaluate
from learning.fluctuations import FluctuationResponse
from learning.homeostat import IntegralControl, SelfControl
from learning.reference import ImplicitGradient
from learning.training import Run, fit

__all__ = [
    "AgnosticEP",
    "Averaged",
    "Calibration",
    "CrossEntropy",
    "Data",
    "EquilibriumPropagation",
    "Evaluation",
    "FluctuationResponse",
    "ImplicitGradient",
    "IntegralControl",
    "NegativeLogLikelihood",
    "PhaseCost",
    "PositionError",
    "Run",
    "SelfControl",
    "SquaredError",
    "calibrate",
    "evaluate",
    "fit",
    "load_data",
]
