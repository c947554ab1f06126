"""A substrate whose solver multiplies in bfloat16 what may be multiplied so."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from substrates.substrate import Substrate

AnySubstrate = TypeVar("AnySubstrate", bound=Substrate)


def in_bfloat16(substrate: AnySubstrate) -> AnySubstrate:
    """The same system, whose solver multiplies couplings with changes of the state in bfloat16 (`Solver.in_bfloat16`).

    Parameters, states, energies, contrasts and the test of convergence keep their dtype. With changes d of the state
    since products were last done in full and couplings W, what rounding leaves of a product is at most some 2^-7 of
    |W| |d|; products are done in full again once sweeps tell no more than that, until nothing that counts is left. So
    equilibria are those of the system as it is, not of one with rounded couplings, and the contrast of two nudged ones
    is off by rounding of their difference. After a number of sweeps without a test, products were done in full at the
    start only.

    It saves time where products within the network take most of it (several wide or convolutional layers, in many
    sweeps) and where bfloat16 is multiplied faster. What the inputs send and what `contrast` multiplies is not rounded.

    Raises:
        TypeError: for what is no substrate, one whose solver has no such products, and one that chooses its solver.

    Source: Higham and Mary 2022, "Mixed precision algorithms in numerical linear algebra", for iterative refinement.
    """
    name = type(substrate).__name__
    if not isinstance(substrate, Substrate):
        raise TypeError(f"substrate: wanted a Substrate, got {name}")
    try:
        solver = substrate.solver.in_bfloat16()
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from error
    if "solver" not in {field.name for field in dataclasses.fields(substrate)}:
        raise TypeError(f"{name}: wanted a system that is given its solver, got one that chooses it; settle in 32 bits")
    return dataclasses.replace(substrate, solver=solver)
