"""Hopfield networks of layers, dense and convolutional."""

from substrates.classical.hopfield.network import HopfieldNetwork
from substrates.classical.hopfield.smooth import SmoothHopfieldNetwork

__all__ = ["HopfieldNetwork", "SmoothHopfieldNetwork"]
