"""Predictive coding networks: layers of activities, each predicted by the layer before it."""

from substrates.classical.predictive_coding.layers import Skip
from substrates.classical.predictive_coding.network import PredictiveCodingNetwork

__all__ = ["PredictiveCodingNetwork", "Skip"]
