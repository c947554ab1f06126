"""Quantum systems: the state that settles is a ground state, and what is read are expectation values."""

from substrates.quantum.free_fermions import FreeFermionChain
from substrates.quantum.hamiltonian import HamiltonianSubstrate
from substrates.quantum.observables import outcomes
from substrates.quantum.transverse_ising import TransverseFieldIsing

__all__ = ["FreeFermionChain", "HamiltonianSubstrate", "TransverseFieldIsing", "outcomes"]
