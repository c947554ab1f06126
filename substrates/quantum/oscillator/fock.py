"""The same oscillators in a truncated Fock space, by QuTiP: a check that knows nothing of Gaussian states."""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

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


def in_fock_space(net: Any, levels: int, x: Float[Array, "inputs"]) -> FockSpace:
    """H and its equilibrium state, each oscillator with its lowest `levels` levels at the frequency sqrt(K_ii/m_i).

    Levels are those about the equilibrium positions, so that forces need no more of them; what is cut off falls
    exponentially in `levels`.

    Args:
        net: the network.
        levels: of each oscillator, at least 2.
        x: the input.

    Raises:
        ValueError: for classical oscillators, fewer than 2 levels, a Hilbert space of more than 20,000 dimensions.
    """
    if net.hbar == 0:
        raise ValueError("hbar: wanted a positive number, got 0; classical oscillators have no levels")
    levels = operator.index(levels)
    if levels < 2:
        raise ValueError(f"levels: wanted at least 2 for each oscillator, got {levels}")
    most = MOST_DIMENSIONS if net.temperature == 0 else 1_000
    if net.n * math.log(levels) > math.log(most):
        raise ValueError(
            f"levels: wanted a Hilbert space of at most {most:,} dimensions, got {levels}^{net.n}: take "
            "fewer levels or fewer oscillators"
        )
    import qutip

    stiffness, force, mass = (
        np.asarray(values, float) for values in (net.stiffness_matrix(x), net.total_bias(x), net.mass)
    )
    middle = np.linalg.solve(stiffness, force)
    one, ladder = qutip.qeye(levels), qutip.destroy(levels)
    positions, momenta = [], []
    for k in range(net.n):
        at = lambda operator, k=k: qutip.tensor([operator if j == k else one for j in range(net.n)])
        scale = math.sqrt(net.hbar / (2 * math.sqrt(stiffness[k, k] * mass[k])))
        positions.append(at(scale * (ladder + ladder.dag()) + middle[k]))
        momenta.append(at(1j * net.hbar / (2 * scale) * (ladder.dag() - ladder)))
    hamiltonian: Any = sum(p * p / (2 * m) for p, m in zip(momenta, mass, strict=True))
    for i in range(net.n):
        hamiltonian -= force[i] * positions[i]
        for j in range(net.n):
            if stiffness[i, j]:
                hamiltonian += 0.5 * stiffness[i, j] * positions[i] * positions[j]
    if net.drive == "anchor":
        anchored = np.asarray(net.onsite_stiffness, float)[list(net.inputs)]
        hamiltonian += 0.5 * float(anchored @ (net.gain * np.asarray(x, float)) ** 2)
    if net.temperature > 0:
        weighted = ((hamiltonian.groundstate()[0] - hamiltonian) / net.temperature).expm()
        return FockSpace(hamiltonian, weighted / weighted.tr(), tuple(positions), tuple(momenta))
    return FockSpace(hamiltonian, hamiltonian.groundstate()[1], tuple(positions), tuple(momenta))
