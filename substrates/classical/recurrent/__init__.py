"""Recurrent networks without an energy, and what aligns their weights there and back."""

from substrates.classical.recurrent.network import RecurrentNetwork
from substrates.classical.recurrent.predictive_coding import PredictiveCodingCircuit
from substrates.classical.recurrent.same_updates import SameUpdates

__all__ = ["PredictiveCodingCircuit", "RecurrentNetwork", "SameUpdates"]
