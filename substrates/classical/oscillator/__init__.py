"""Networks of coupled phase oscillators."""

from substrates.classical.oscillator.flow import KuramotoFlow, order_parameter
from substrates.classical.oscillator.network import OscillatorNetwork
from substrates.classical.oscillator.phase_descent import PhaseDescent
from substrates.classical.oscillator.restarts import BestOf, Ramped

__all__ = [
    "BestOf",
    "KuramotoFlow",
    "OscillatorNetwork",
    "PhaseDescent",
    "Ramped",
    "order_parameter",
]
