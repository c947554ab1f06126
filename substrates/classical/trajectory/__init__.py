"""Lagrangian systems: paths that make an action stationary, between fixed ends, in a loop, or from a launch."""

from substrates.classical.trajectory.initial_value import InitialValueTrajectory
from substrates.classical.trajectory.lagrangian import (
    CoupledOscillators,
    Lagrangian,
    MechanicalLagrangian,
    Pendulum,
)
from substrates.classical.trajectory.meter import MeanSquare, Meter, Samples
from substrates.classical.trajectory.model import Trajectory

__all__ = [
    "CoupledOscillators",
    "InitialValueTrajectory",
    "Lagrangian",
    "MeanSquare",
    "MechanicalLagrangian",
    "Meter",
    "Pendulum",
    "Samples",
    "Trajectory",
]
