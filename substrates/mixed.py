"""A substrate whose solver multiplies in bfloat16 what may be multiplied so."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from substrates.substrate import Substrate

AnySubstrate = TypeVar("AnySubstrate", bound=Substrate)


def in_bfloat16(substrate: AnySubstrate) -> AnySubstrate:
    """The same system, whose solver multiplies couplings with changes of the state in bfloat16 (`Solver.in_bfloat16`).

    Parameters, states, energies, contrasts and the test of convergence keep their dtype: with changes d of the state
    since products were last done in full and the couplings W, what rounding leaves is at most some 2^-8 |W| |d|, and
    d shrinks from each time to the next by about 2^-8 times the condition of the equilibrium. Above a condition of
    about 2^8 it does not: equilibria then do not converge, and say so.

    Raises:
        TypeError: for a system whose solver has no such products, and one that does not let its solver be chosen.

    Source: Higham and Mary 2022, "Mixed precision algorithms in numerical linear algebra", for iterative refinement.
    """
    name = type(substrate).__name__
    try:
        solver = substrate.solver.in_bfloat16()
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from error
    if "solver" not in {field.name for field in dataclasses.fields(substrate)}:
        raise TypeError(f"{name}: wanted a system that is given its solver, got one that chooses it; settle in 32 bits")
    return dataclasses.replace(substrate, solver=solver)
