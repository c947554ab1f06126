"""Networks of activators and inhibitors, which settle at saddles."""

from substrates.classical.activator_inhibitor.network import ActivatorInhibitor

__all__ = ["ActivatorInhibitor"]
