"""Linear networks driven at one or several frequencies, with damping."""

from substrates.classical.driven.network import DrivenNetwork

__all__ = ["DrivenNetwork"]
