"""Spins in a transverse field to QuTiP and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from substrates.quantum.basis import all_signs
from substrates.quantum.observables import Observables, PauliString

MOST_SPINS = 16


@dataclasses.dataclass(frozen=True)
class QutipModel:
    """A system as QuTiP sees it.

    Attributes:
        hamiltonian: H at an input, a Qobj on a tensor product of qubits (2 x 2 x ...).
        outputs: the operators that are read.
        state: a ket, or None.
    """

    hamiltonian: Any
    outputs: tuple[Any, ...]
    state: Any


def to_qutip(diagonal: Any, transverse: Any, observables: Observables, state: Any) -> QutipModel:
    """H = diag(d) - sum_i h_i X_i, operators and a state of n spins as Qobj; spin 0 is the first factor."""
    import qutip

    n = len(transverse)
    dims = [[2] * n, [2] * n]
    factors = lambda given: qutip.tensor([given.get(spin, qutip.qeye(2)) for spin in range(n)])
    total = qutip.qdiags(np.asarray(diagonal, float), 0, dims=dims)
    for spin, field in enumerate(np.asarray(transverse, float)):
        total = total - field * factors({spin: qutip.sigmax()})

    def as_qobj(string: PauliString) -> Any:
        kinds = {spin: qutip.sigmax() for spin in string.flips} | {spin: qutip.sigmaz() for spin in string.signs}
        kinds |= {spin: qutip.sigmay() for spin in set(string.flips) & set(string.signs)}
        return factors(kinds)

    strings = [as_qobj(string) for string in observables.strings]
    outputs = [sum(weight * s for weight, s in zip(row, strings, strict=True) if weight) for row in observables.mixing]
    ket = None if state is None else qutip.Qobj(np.asarray(state)[:, None], dims=[[2] * n, [1] * n]).unit()
    return QutipModel(total, tuple(outputs), ket)


def from_qutip(hamiltonian: Any) -> tuple[dict[str, Any], float]:
    """Edges, n, coupling J, and fields b and h of the spins that `TransverseFieldIsing.from_qutip` describes, and the
    share of the identity.
    """
    rows = hamiltonian.dims[0]
    if hamiltonian.dims != [rows, rows] or not all(side == 2 for side in rows) or len(rows) > MOST_SPINS:
        raise ValueError(
            f"hamiltonian: wanted an operator on at most {MOST_SPINS} qubits, dims [[2, ...], [2, ...]], got "
            f"{hamiltonian.dims}"
        )
    if not hamiltonian.isherm:
        raise ValueError("hamiltonian: wanted a Hermitian operator, got one that differs from its adjoint")
    n = len(rows)
    matrix = hamiltonian.to("csr").data_as("csr_matrix").tocoo()
    flips = matrix.row ^ matrix.col
    diagonal = np.zeros(2**n, complex)
    on = flips == 0
    diagonal[matrix.row[on]] = matrix.data[on]
    h, left = np.zeros(n), np.zeros(0, complex)
    for spin in range(n):
        here = flips == 1 << (n - 1 - spin)
        values = np.zeros(2**n, complex)
        values[matrix.row[here]] = matrix.data[here]
        h[spin] = -values.mean().real
        left = np.append(left, np.abs(values + h[spin]).max())
    single = np.isin(flips, [0, *(1 << np.arange(n))])
    left = np.append(left, np.abs(matrix.data[~single]))
    signs = all_signs(n)
    pairs = np.stack(np.triu_indices(n, 1), axis=1)
    b = -(signs.T @ np.real(diagonal)) / 2**n
    J = -((signs.T * np.real(diagonal)) @ signs)[pairs[:, 0], pairs[:, 1]] / 2**n
    offset = diagonal.mean().real
    rest = diagonal - offset + signs @ b
    for (i, j), weight in zip(pairs, J, strict=True):
        rest += weight * signs[:, i] * signs[:, j]
    left = np.append(left, np.abs(rest).max())
    scale = np.abs(matrix.data).max(initial=0.0)
    if left.max() > 1e-9 * scale:
        raise ValueError(
            f"hamiltonian: wanted terms Z_i Z_j, Z_i and X_i only, got others of size {left.max():.3g}; use "
            "HamiltonianSubstrate, which takes any operators"
        )
    joined = np.abs(J) > 1e-12 * scale
    words = {
        "edges": pairs[joined],
        "n": n,
        "coupling": J[joined],
        "longitudinal_field": b,
        "transverse_field": h,
    }
    return words, offset if abs(offset) > 1e-12 * scale else 0.0
