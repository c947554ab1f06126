"""Quantum systems: the state that settles is a ground state, and what is read are expectation values."""
