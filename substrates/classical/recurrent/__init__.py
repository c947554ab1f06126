"""Recurrent networks without an energy."""

from substrates.classical.recurrent.network import RecurrentNetwork

__all__ = ["RecurrentNetwork"]
