"""The same oscillators in a truncated Fock space, by QuTiP: a check that knows nothing of Gaussian states."""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import numpy as np

MOST_DIMENSIONS = 20_000


class FockSpace(NamedTuple):
    """Oscillators as QuTiP objects, in the product basis of the lowest levels of each.

    Attributes:
        hamiltonian: H.
        state: its ground state, a ket; at T > 0 the density matrix exp(-H/T)/Z.
        positions: x_i, one operator per oscillator.
        momenta: p_i.
    """

    hamiltonian: Any
    state: Any
    positions: tuple[Any, ...]
    momenta: tuple[Any, ...]


def in_fock_space(
    stiffness: Any, force: Any, mass: Any, constant: Any, hbar: float, temperature: float, levels: int
) -> FockSpace:
    """H = sum p_i^2/2m_i + x'Kx/2 - f'x + a constant, and its state, as `QuantumOscillatorNetwork.to_qutip` describes.

    Args:
        stiffness: K, shape (n, n).
        force, mass: f and m, shape (n,).
        constant: energy of the input alone.
        hbar, temperature: constants.
        levels: of each oscillator, at least 2.

    Raises:
        ValueError: for classical oscillators, fewer than 2 levels, a Hilbert space of more than 20,000 dimensions.
    """
    if hbar == 0:
        raise ValueError("hbar: wanted a positive number, got 0; classical oscillators have no levels")
    levels = operator.index(levels)
    if levels < 2:
        raise ValueError(f"levels: wanted at least 2 for each oscillator, got {levels}")
    n, most = len(mass), MOST_DIMENSIONS if temperature == 0 else 1_000
    if n * math.log(levels) > math.log(most):
        raise ValueError(
            f"levels: wanted a Hilbert space of at most {most:,} dimensions, got {levels}^{n}: take "
            "fewer levels or fewer oscillators"
        )
    import qutip

    stiffness, force, mass = (np.asarray(values, float) for values in (stiffness, force, mass))
    middle = np.linalg.solve(stiffness, force)
    one, ladder = qutip.qeye(levels), qutip.destroy(levels)
    positions, momenta = [], []
    for k in range(n):
        at = lambda operator, k=k: qutip.tensor([operator if j == k else one for j in range(n)])
        scale = math.sqrt(hbar / (2 * math.sqrt(stiffness[k, k] * mass[k])))
        positions.append(at(scale * (ladder + ladder.dag()) + middle[k]))
        momenta.append(at(1j * hbar / (2 * scale) * (ladder.dag() - ladder)))
    hamiltonian: Any = sum(p * p / (2 * m) for p, m in zip(momenta, mass, strict=True))
    for i in range(n):
        hamiltonian -= force[i] * positions[i]
        for j in range(n):
            if stiffness[i, j]:
                hamiltonian += 0.5 * stiffness[i, j] * positions[i] * positions[j]
    hamiltonian += float(constant)
    if temperature > 0:
        weighted = ((hamiltonian.groundstate()[0] - hamiltonian) / temperature).expm()
        return FockSpace(hamiltonian, weighted / weighted.tr(), tuple(positions), tuple(momenta))
    return FockSpace(hamiltonian, hamiltonian.groundstate()[1], tuple(positions), tuple(momenta))
