# ruff: noqa: F401
"""Physical systems that settle to a minimum of an energy."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from substrates._versions import check_versions

if TYPE_CHECKING:  # the same names for those who read without running
    from substrates.adjoint import AdjointResponse
    from substrates.classical.activator_inhibitor import ActivatorInhibitor
    from substrates.classical.driven import DrivenNetwork
    from substrates.classical.elastic import ElasticNetwork
    from substrates.classical.hopfield import HopfieldNetwork, SmoothHopfieldNetwork
    from substrates.classical.ising import IsingModel
    from substrates.classical.oscillator import OscillatorNetwork
    from substrates.classical.predictive_coding import PredictiveCodingNetwork
    from substrates.classical.recurrent import PredictiveCodingCircuit, RecurrentNetwork, SameUpdates
    from substrates.classical.resistor import GROUND, ResistorNetwork, Shockley
    from substrates.classical.trajectory import (
        InitialValueTrajectory,
        Lagrangian,
        MechanicalLagrangian,
        Trajectory,
    )
    from substrates.force_probe import ForceProbe
    from substrates.laboratory.annealer import AnnealedIsing
    from substrates.laboratory.noisy import Noisy
    from substrates.laboratory.patience import Patience
    from substrates.laboratory.plant import Plant
    from substrates.laboratory.recorder import Recorder, Replay
    from substrates.laboratory.spice_circuit import SpiceCircuit
    from substrates.laboratory.system import PhysicalSystem
    from substrates.mixed import in_bfloat16
    from substrates.pictures.exploration import animate, explore_beforehand
    from substrates.pictures.explorer import explore
    from substrates.quantum.free_fermions import FreeFermionChain
    from substrates.quantum.hamiltonian import HamiltonianSubstrate
    from substrates.quantum.oscillator import QuantumOscillatorNetwork
    from substrates.quantum.transverse_ising import TransverseFieldIsing
    from substrates.session import keep_compiled, start_session
    from substrates.skew_gradient import SkewGradient
    from substrates.solvers.by_phase import ByPhase
    from substrates.substrate import DiscreteTime, Equilibrium, Nudge, Pin, Status, Substrate, fixed

_HOMES = {
    "substrates.adjoint": "AdjointResponse",
    "substrates.classical.activator_inhibitor": "ActivatorInhibitor",
    "substrates.classical.driven": "DrivenNetwork",
    "substrates.classical.elastic": "ElasticNetwork",
    "substrates.classical.hopfield": "HopfieldNetwork SmoothHopfieldNetwork",
    "substrates.classical.ising": "IsingModel",
    "substrates.classical.oscillator": "OscillatorNetwork",
    "substrates.classical.predictive_coding": "PredictiveCodingNetwork",
    "substrates.classical.recurrent": "PredictiveCodingCircuit RecurrentNetwork SameUpdates",
    "substrates.classical.resistor": "GROUND ResistorNetwork Shockley",
    "substrates.classical.trajectory": "InitialValueTrajectory Lagrangian MechanicalLagrangian Trajectory",
    "substrates.force_probe": "ForceProbe",
    "substrates.laboratory.annealer": "AnnealedIsing",
    "substrates.laboratory.noisy": "Noisy",
    "substrates.laboratory.patience": "Patience",
    "substrates.laboratory.plant": "Plant",
    "substrates.laboratory.recorder": "Recorder Replay",
    "substrates.laboratory.spice_circuit": "SpiceCircuit",
    "substrates.laboratory.system": "PhysicalSystem",
    "substrates.mixed": "in_bfloat16",
    "substrates.pictures.exploration": "animate explore_beforehand",
    "substrates.pictures.explorer": "explore",
    "substrates.quantum.free_fermions": "FreeFermionChain",
    "substrates.quantum.hamiltonian": "HamiltonianSubstrate",
    "substrates.quantum.oscillator": "QuantumOscillatorNetwork",
    "substrates.quantum.transverse_ising": "TransverseFieldIsing",
    "substrates.session": "keep_compiled start_session",
    "substrates.skew_gradient": "SkewGradient",
    "substrates.solvers.by_phase": "ByPhase",
    "substrates.substrate": "DiscreteTime Equilibrium Nudge Pin Status Substrate fixed",
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


check_versions()
