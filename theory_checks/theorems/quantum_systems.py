"""Theorems of quantum systems: equilibrium propagation of ground states, free fermions and Gaussian states."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from learning.costs import PositionError, SquaredError
from substrates.parameters import split_parameters
from substrates.quantum.free_fermions import FreeFermionChain
from substrates.quantum.hamiltonian import HamiltonianSubstrate
from substrates.quantum.oscillator import QuantumOscillatorNetwork
from substrates.quantum.transverse_ising import TransverseFieldIsing
from substrates.substrate import Cost
from theory_checks.case import compiled, flat, measure
from theory_checks.theorems.measured import agreement, centred_gradient, of_examples, require, require_kind, settled
from theory_checks.theorems.theorem import Finding, Theorem

MOST_DENSE = 1024
"""So many amplitudes are diagonalised densely for the predicted side."""

MOST_SPINS = 10


@of_examples
def quantum(
    net: TransverseFieldIsing | HamiltonianSubstrate | None = None,
    x: Any = None,
    y: Any = None,
    *,
    cost: Cost | None = None,
    beta: float = 1e-2,
) -> tuple[Finding, ...]:
    """Equilibrium propagation of a ground state against perturbation theory of second order, level by level, and
    against differences of exact diagonalisations.

    Args:
        net: spins in a transverse field, or any levels; four spins by default.
        x, y: the input and the target of one example.
        cost: of the outputs' means; the squared error by default.
        beta: the largest nudge, in units of energy per cost.

    Raises NotApplicableError for a level that is degenerate.
    """
    cost = SquaredError() if cost is None else cost
    if net is None:
        net = TransverseFieldIsing.from_edges(
            [(0, 1), (1, 2), (2, 3), (0, 3)],
            coupling=[0.9, -0.5, 0.7, 0.4],
            transverse_field=[0.8, 1.1, 0.6, 0.9],
            longitudinal_field=[0.3, -0.2, 0.1, 0.4],
            inputs=[0],
            outputs=["Z2", "X3"],
        )
        x, y = np.array([0.5]), np.array([0.8, 0.1])
    require_kind(net, (TransverseFieldIsing, HamiltonianSubstrate), "finitely many quantum levels")
    require(
        net.dimension <= MOST_DENSE, f"{net.dimension} amplitudes are too many to diagonalise: {MOST_DENSE} at most."
    )
    x, y = jnp.asarray(x), jnp.asarray(y)
    found = settled(net, x)
    hamiltonian, terms, outputs = _operators(net, x)
    copies = 2 if getattr(net, "is_complex", False) else 1
    energies, vectors = np.linalg.eigh(hamiltonian)
    level = copies * net.level
    apart = energies[level] - energies
    near = np.abs(apart) <= 1e-9 * np.max(np.abs(energies))
    require(np.sum(near) == copies, f"Level {net.level} is degenerate.")
    state = vectors[:, level]
    shown = np.einsum("koj,o,j->k", outputs, state, state)
    pull = np.asarray(jax.grad(cost)(jnp.asarray(shown), y))
    moved = vectors.T @ np.tensordot(pull, outputs, 1) @ state
    excited = np.where(near, 0.0, moved / np.where(near, 1.0, apart))
    parts = [vectors.T @ (term @ state) for term in terms]
    wanted = np.array([2 * excited @ part for part in parts])
    seen = flat(measure(net, found.state[None], x[None]))
    findings = (
        agreement(
            "dE/dtheta that is measured against <dH/dtheta> (Hellmann, Feynman)", seen, [p[level] for p in parts], 1e-7
        ),
        *centred_gradient(net, x, y, wanted, beta, cost),
    )

    def loss(step: float) -> float:
        _, states = np.linalg.eigh(hamiltonian + step * np.tensordot(direction, terms, 1))
        means = np.einsum("koj,o,j->k", outputs, states[:, level], states[:, level])
        return float(cost(jnp.asarray(means), y))

    direction, step = np.random.default_rng(1).normal(size=len(terms)), 1e-4
    slope = (8 * (loss(step) - loss(-step)) - (loss(2 * step) - loss(-2 * step))) / (12 * step)
    exact = agreement("its slope along a direction against exact diagonalisation", wanted @ direction, slope, 1e-8)
    return (*findings, exact)


@compiled
def _operators(net: Any, x: Any) -> tuple[Any, Any, Any]:
    """H, dH/dtheta of every parameter and the operators that are read, dense: all of them matrices of H's size."""
    parameters, rest = split_parameters(net)
    matrix = lambda p: eqx.combine(p, rest).hamiltonian(x).matrix()
    plain = matrix(parameters)
    slopes = jax.tree.leaves(jax.jacfwd(matrix)(parameters))
    size = plain.shape[0]
    terms = jnp.concatenate([jnp.moveaxis(s.reshape(size, size, -1), -1, 0) for s in slopes])
    shown = eqx.filter_eval_shape(net.means, jnp.zeros(size, plain.dtype)).shape[0]
    read = [net.hamiltonian(x, w).matrix() - plain for w in jnp.eye(shown, dtype=plain.dtype)]
    return plain, terms, jnp.stack(read)


@of_examples
def free_fermions(chain: FreeFermionChain | None = None, x: Any = None) -> tuple[Finding, ...]:
    """The polar factor of a bidiagonal matrix against dense diagonalisation of the chain of spins that it stands for.

    Args:
        chain: at most ten spins; six by default.
        x: the input, added to h at the spins `inputs`.

    Raises NotApplicableError for more spins, and for a ground state that is degenerate.
    """
    if chain is None:
        chain = FreeFermionChain.chain(
            6, coupling=[0.9, -0.5, 0.7, 1.2, 0.4], transverse_field=[0.8, 1.1, -0.6, 0.9, 0.7, 1.0], inputs=[1]
        )
        x = np.array([0.3])
    require_kind(chain, FreeFermionChain, "chains of free fermions")
    require(chain.size <= MOST_SPINS, f"{chain.size} spins are too many to diagonalise: {MOST_SPINS} at most.")
    x = jnp.asarray(x)
    found = settled(chain, x)
    field = np.asarray(chain.transverse_field).copy()
    np.add.at(field, list(chain.inputs), np.asarray(x))
    spins = TransverseFieldIsing.chain(chain.size, coupling=chain.coupling, transverse_field=field)
    names = [f"X{i}" for i in range(chain.size)] + [f"Z{i} Z{i + 1}" for i in range(chain.size - 1)]
    read = TransverseFieldIsing.chain(chain.size, coupling=0.0, transverse_field=0.0, outputs=names)
    energies, vectors = np.linalg.eigh(np.asarray(spins.hamiltonian(jnp.zeros(0)).matrix()))
    means = read.means(jnp.asarray(vectors[:, 0]))
    correlators = np.concatenate([chain.transverse_means(found.state), chain.bond_means(found.state)])
    return (
        agreement("the energy -sum S", found.energy, energies[0], 1e-11),
        agreement("the gap 2 min S", chain.spectrum(x)[-1], energies[1] - energies[0], 1e-8),
        agreement("<X_i> and <Z_i Z_(i+1)>, entries of U V'", correlators, means, 1e-8),
    )


@of_examples
def gaussian(
    net: QuantumOscillatorNetwork | None = None, x: Any = None, y: Any = None, *, beta: float = 1e-2
) -> tuple[Finding, ...]:
    """The ground (or thermal) state of coupled oscillators against its closed form, and what zero-point motion teaches.

    Args:
        net: oscillators with hbar above 0; four by default.
        x, y: the input and target of one example; for `reading="moments"` y holds those of the target, (y, y^2).
        beta: the largest nudge.

    Raises NotApplicableError for classical oscillators, which have no zero-point motion.
    """
    if net is None:
        net = QuantumOscillatorNetwork.from_edges(
            [(0, 1), (1, 2), (2, 3), (0, 2)],
            inputs=[0],
            outputs=[2, 3],
            stiffness=[0.8, 0.5, 1.1, 0.3],
            onsite_stiffness=[1.0, 0.7, 0.4, 1.3],
            bias_force=[0.2, -0.3, 0.0, 0.5],
            mass=[1.0, 1.7, 0.6, 1.2],
            reading="moments",
            hbar=0.7,
        )
        x, y = np.array([0.6]), np.array([0.5, -0.4, 0.25, 0.16])
    require_kind(net, QuantumOscillatorNetwork, "quantum oscillators")
    require(net.hbar > 0, "Oscillators with hbar = 0 are classical: no zero-point motion.")
    x, y = jnp.asarray(x), jnp.asarray(y)
    found = settled(net, x)
    mass, stiffness, force = (np.asarray(v) for v in (net.mass, net.stiffness_matrix(x), net.total_bias(x)))
    spread, momenta, zero_point = _closed_form(stiffness, mass, net.hbar, net.temperature)
    still = np.linalg.solve(stiffness, force)
    position, momentum = np.asarray(net.covariance(found.state)), np.asarray(net.momentum_covariance(found.state))
    findings = [
        agreement("<x> against K^-1 f, the classical equilibrium", found.state.mean, still, 1e-9),
        agreement("Cov(x) against (hbar/2) M^-1/2 Omega^-1 coth M^-1/2", position, spread, 1e-7),
        agreement("Cov(p) against (hbar/2) M^1/2 Omega coth M^1/2", momentum, momenta, 1e-7),
        agreement(
            "<p^2/2m> against the mean of x'Kx/2 (virial)",
            np.sum(np.diag(momentum) / mass),
            np.sum(stiffness * position),
            1e-7,
        ),
    ]
    if net.drive != "anchor":
        energy = zero_point - force @ still / 2
        findings.append(agreement("the energy against (hbar/2) tr Omega - f'K^-1 f/2", found.energy, energy, 1e-9))
    if net.temperature == 0:
        least = net.hbar**2 / 4 * np.eye(net.n)
        findings.append(agreement("Cov(x) Cov(p) against hbar^2/4", position @ momentum, least, 1e-7))
    cost = PositionError() if net.reading == "moments" else SquaredError()
    return (*findings, *centred_gradient(net, x, y, _slopes(net, x, y, cost), beta, cost))


def _closed_form(stiffness: np.ndarray, mass: np.ndarray, hbar: float, temperature: float) -> tuple[Any, Any, float]:
    """Cov(x), Cov(p) and the free energy of the modes, from the dynamical matrix M^-1/2 K M^-1/2."""
    root = np.sqrt(mass)
    squares, modes = np.linalg.eigh(stiffness / np.outer(root, root))
    frequency = np.sqrt(squares)
    half = hbar * frequency / 2
    coth = 1 / np.tanh(half / temperature) if temperature > 0 else np.ones_like(frequency)
    energy = np.sum(temperature * np.log(2 * np.sinh(half / temperature))) if temperature > 0 else np.sum(half)
    spread, momenta = (modes * (hbar * coth / (2 * frequency))) @ modes.T, (modes * (half * coth)) @ modes.T
    return spread / np.outer(root, root), momenta * np.outer(root, root), float(energy)


def _slopes(net: QuantumOscillatorNetwork, x: Any, y: Any, cost: Cost) -> np.ndarray:
    """The derivative of the cost of the closed form in each parameter, by differences of fourth order."""
    parameters, rest = split_parameters(net)
    leaves, structure = jax.tree.flatten(parameters)
    sizes = [leaf.size for leaf in leaves]
    values, outputs = flat(parameters), list(net.outputs)

    def loss(values: np.ndarray) -> float:
        parts = np.split(values, np.cumsum(sizes)[:-1])
        shaped = [jnp.asarray(p.reshape(leaf.shape)) for p, leaf in zip(parts, leaves, strict=True)]
        moved = eqx.combine(structure.unflatten(shaped), rest)
        stiffness = np.asarray(moved.stiffness_matrix(x))
        mean = np.linalg.solve(stiffness, np.asarray(moved.total_bias(x)))[outputs]
        spread = _closed_form(stiffness, np.asarray(net.mass), net.hbar, net.temperature)[0]
        second = mean**2 + np.diag(spread)[outputs]
        return float(cost(jnp.asarray(np.append(mean, second) if net.reading == "moments" else mean), y))

    step = 1e-3
    along = lambda e: (
        (
            8 * (loss(values + step * e) - loss(values - step * e))
            - loss(values + 2 * step * e)
            + loss(values - 2 * step * e)
        )
        / (12 * step)
    )
    return np.array([along(e) for e in np.eye(values.size)])


THEOREMS = (
    Theorem(
        "quantum",
        r"For the ground state $\psi_\beta$ of $H(\theta) + \beta C$ the gradient of "
        r"$L = \langle\psi_0|C|\psi_0\rangle$ is $dL/d\theta = "
        r"\frac{d}{d\beta}\langle\psi_\beta|\partial_\theta H|\psi_\beta\rangle|_0 "
        r"= 2\sum_{n>0} \langle 0|\partial_\theta H|n\rangle\langle n|C|0\rangle/(E_0 - E_n)$.",
        ("a level that is not degenerate",),
        "Scellier 2024, arXiv 2406.00879; Massar and Mognetti 2024, arXiv 2405.08467; Wanjura and Marquardt 2024, "
        "arXiv 2406.06482",
        "systems of finitely many quantum levels",
        quantum,
        universal=False,
        rules=("equilibrium-propagation",),
    ),
    Theorem(
        "free-fermions",
        r"For an open chain $H = -\sum J_i Z_i Z_{i+1} - \sum h_i X_i$ let $B = U S V'$ be the bidiagonal matrix of "
        r"$h$ and $J$. Then $E_0 = -\sum S$, the gap is $2 \min S$, $\langle X_i\rangle = (UV')_{ii}$ and "
        r"$\langle Z_i Z_{i+1}\rangle = (UV')_{i,i+1}$.",
        ("an open chain", "no longitudinal field", "a gap"),
        "Lieb, Schultz and Mattis 1961; Pfeuty 1970",
        "chains of free fermions",
        free_fermions,
        universal=False,
    ),
    Theorem(
        "gaussian",
        r"Coupled oscillators rest in a Gaussian state with $\langle x\rangle = K^{-1}f$ and $\mathrm{Cov}(x) = "
        r"\frac{\hbar}{2} M^{-1/2}\Omega^{-1}M^{-1/2}$, $\Omega^2 = M^{-1/2}KM^{-1/2}$, at the energy "
        r"$\frac{\hbar}{2}\mathrm{tr}\,\Omega - \frac{1}{2} f'K^{-1}f$. Zero-point motion teaches: "
        r"$dL/dk_{ij} = \frac{d}{d\beta}\langle (x_i - x_j)^2\rangle/2$, means and variances both.",
        ("K positive definite", "hbar above 0"),
        "Simon, Sudarshan and Mukunda 1987; Audenaert, Eisert, Plenio and Werner 2002, quant-ph/0205025; Scellier "
        "2024, arXiv 2406.00879",
        "quantum oscillators",
        gaussian,
        universal=False,
        rules=("equilibrium-propagation",),
    ),
)
