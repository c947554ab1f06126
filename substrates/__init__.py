"""Physical systems that settle to a minimum of an energy."""

from substrates._versions import check_versions
from substrates.classical.elastic import ElasticNetwork
from substrates.classical.hopfield import HopfieldNetwork
from substrates.classical.ising import IsingModel
from substrates.classical.oscillator import OscillatorNetwork
from substrates.classical.predictive_coding import PredictiveCodingNetwork
from substrates.classical.resistor import GROUND, ResistorNetwork, Shockley
from substrates.laboratory.annealer import AnnealedIsing
from substrates.laboratory.noisy import Noisy
from substrates.laboratory.patience import Patience
from substrates.laboratory.plant import Plant
from substrates.laboratory.recorder import Recorder, Replay
from substrates.laboratory.spice_circuit import SpiceCircuit
from substrates.laboratory.system import PhysicalSystem
from substrates.quantum.free_fermions import FreeFermionChain
from substrates.quantum.hamiltonian import HamiltonianSubstrate
from substrates.quantum.oscillator import QuantumOscillatorNetwork
from substrates.quantum.transverse_ising import TransverseFieldIsing
from substrates.substrate import Equilibrium, Nudge, Pin, Status, Substrate, fixed

__all__ = [
    "GROUND",
    "AnnealedIsing",
    "ElasticNetwork",
    "Equilibrium",
    "FreeFermionChain",
    "HamiltonianSubstrate",
    "HopfieldNetwork",
    "IsingModel",
    "Noisy",
    "Nudge",
    "OscillatorNetwork",
    "Patience",
    "PhysicalSystem",
    "Pin",
    "Plant",
    "PredictiveCodingNetwork",
    "QuantumOscillatorNetwork",
    "Recorder",
    "Replay",
    "ResistorNetwork",
    "Shockley",
    "SpiceCircuit",
    "Status",
    "Substrate",
    "TransverseFieldIsing",
    "fixed",
]

check_versions()
