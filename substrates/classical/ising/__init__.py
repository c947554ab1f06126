"""Ising models: spins on any graph and in layers, their ground states, and their ensembles at a temperature."""

from substrates.classical.ising.model import IsingModel

__all__ = ["IsingModel"]
