"""Lagrangian systems: paths that make an action stationary, between fixed ends, in a loop, or from a launch."""

from substrates.classical.trajectory.initial_value import InitialValueTrajectory
from substrates.classical.trajectory.lagrangian import (
    CoupledPendulums,
    Lagrangian,
    MechanicalLagrangian,
)
from substrates.classical.trajectory.meter import MeanSquare, Meter, Samples
from substrates.classical.trajectory.model import Trajectory

__all__ = [
    "CoupledPendulums",
    "InitialValueTrajectory",
    "Lagrangian",
    "MeanSquare",
    "MechanicalLagrangian",
    "Meter",
    "Samples",
    "Trajectory",
]
