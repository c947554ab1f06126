"""Networks of resistors, sources and diodes."""

from substrates.classical.resistor.circuit import ResistorCircuit
from substrates.classical.resistor.elements import GROUND, Shockley
from substrates.classical.resistor.network import ResistorNetwork

__all__ = ["GROUND", "ResistorCircuit", "ResistorNetwork", "Shockley"]
