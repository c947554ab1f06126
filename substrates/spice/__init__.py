"""SPICE: decks as text and as data, circuits as netlists and back, and ngspice itself."""
