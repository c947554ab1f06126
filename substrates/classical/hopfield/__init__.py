"""Hopfield networks of layers, dense and convolutional."""

from substrates.classical.hopfield.network import HopfieldNetwork

__all__ = ["HopfieldNetwork"]
