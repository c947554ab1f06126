"""Networks of quantum harmonic oscillators."""

from substrates.quantum.oscillator.modes import GaussianState, Modes
from substrates.quantum.oscillator.network import QuantumOscillatorNetwork

__all__ = ["GaussianState", "Modes", "QuantumOscillatorNetwork"]
