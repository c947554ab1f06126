"""Physical systems that settle to a minimum of an energy."""

from substrates.substrate import Equilibrium, Nudge, Pin, Status, Substrate, fixed

__all__ = ["Equilibrium", "Nudge", "Pin", "Status", "Substrate", "fixed"]
