"""Predictive coding networks: layers of activities, each predicted by the layer before it."""

from substrates.classical.predictive_coding.network import PredictiveCodingNetwork, Skip

__all__ = ["PredictiveCodingNetwork", "Skip"]
