"""Spins in a transverse field to QuTiP and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from substrates.quantum.observables import PauliString
from substrates.quantum.spin_hamiltonian import all_signs
from substrates.quantum.transverse_ising import TransverseFieldIsing

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


def to_qutip(net: TransverseFieldIsing, x: Any, state: Any = None) -> QutipModel:
    """H(x), the outputs and a state of the free spins as Qobj; spin 0 is the first factor, up is basis(2, 0)."""
    import qutip

    n = len(net.free)
    operator = net.hamiltonian(x)
    dims = [[2] * n, [2] * n]
    factors = lambda given: qutip.tensor([given.get(spin, qutip.qeye(2)) for spin in range(n)])
    total = qutip.qdiags(np.asarray(operator.diagonal, float), 0, dims=dims)
    for spin, field in enumerate(np.asarray(operator.transverse, float)):
        total = total - field * factors({spin: qutip.sigmax()})

    def as_qobj(string: PauliString) -> Any:
        kinds = {spin: qutip.sigmax() for spin in string.flips} | {spin: qutip.sigmaz() for spin in string.signs}
        kinds |= {spin: qutip.sigmay() for spin in set(string.flips) & set(string.signs)}
        return factors(kinds)

    strings = [as_qobj(string) for string in net.outputs.strings]
    outputs = [sum(weight * s for weight, s in zip(row, strings, strict=True) if weight) for row in net.outputs.mixing]
    ket = None if state is None else qutip.Qobj(np.asarray(state)[:, None], dims=[[2] * n, [1] * n]).unit()
    return QutipModel(total, tuple(outputs), ket)


def from_qutip(
    hamiltonian: Any, *, inputs: Sequence[int] = (), outputs: Sequence[Any] = (), level: int = 0
) -> TransverseFieldIsing:
    """The spins whose Hamiltonian this is, up to a constant: -sum J_ij Z_i Z_j - sum b_i Z_i - sum h_i X_i.

    Args:
        hamiltonian: a Qobj on a tensor product of at most 16 qubits.
        inputs: spins at which x adds to b.
        outputs, level: as in `TransverseFieldIsing.from_edges`.

    Raises:
        ValueError: for other dimensions, a Hamiltonian that is not Hermitian, and one with other terms than these,
            whose size is named.
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
    rest = diagonal - diagonal.mean() + signs @ b
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
    return TransverseFieldIsing.from_edges(
        pairs[joined],
        n,
        coupling=J[joined],
        longitudinal_field=b,
        transverse_field=h,
        inputs=inputs,
        outputs=outputs,
        level=level,
    )
