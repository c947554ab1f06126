"""Theorems of temperature and of limits: Gibbs states, and what is left as h, hbar and T go to 0."""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from learning.contrastive import EquilibriumPropagation
from learning.costs import SquaredError
from learning.fluctuations import FluctuationResponse
from substrates.classical.ising import IsingModel
from substrates.classical.ising.ensemble import BoltzmannEnsemble
from substrates.parameters import split_parameters
from substrates.quantum.oscillator import QuantumOscillatorNetwork
from substrates.quantum.transverse_ising import TransverseFieldIsing
from substrates.substrate import Cost, Nudge, Substrate
from theory_checks.case import flat, relative
from theory_checks.theorems.measured import (
    agreement,
    centred_gradient,
    gradient,
    of_examples,
    power_law,
    require,
    require_kind,
    settled,
)
from theory_checks.theorems.theorem import Finding, NotApplicableError, Theorem

_SQUARE = [(0, 1), (1, 2), (2, 3), (0, 3), (0, 2)]


def _ensemble() -> BoltzmannEnsemble:
    words = {"coupling": [0.7, -0.4, 0.9, 0.3, -0.6], "field": [0.1, 0.3, -0.2, 0.4], "inputs": [0], "outputs": [2, 3]}
    return IsingModel.from_edges(_SQUARE, **words).ensemble(0.8)


@of_examples
def gibbs(
    ensemble: BoltzmannEnsemble | None = None,
    x: Any = None,
    y: Any = None,
    *,
    cost: Cost | None = None,
    beta: float = 1e-2,
    strong: float = 5.0,
) -> tuple[Finding, ...]:
    """The covariance form, the nudged form and the derivative of the mean cost of a Gibbs state at a temperature T; and
    the exactness of the nudged form at any strength.

    Args:
        ensemble: the exact ensemble of some spins, `IsingModel.ensemble(T)`; one of four spins by default.
        x, y: the input and target of one example.
        cost: of what a configuration shows; the squared error by default.
        beta: the largest of the weak nudges.
        strong: a nudge that is not small.

    Raises NotApplicableError for a state that is not the whole distribution.
    """
    cost = SquaredError() if cost is None else cost
    if ensemble is None:
        ensemble, x, y = _ensemble(), np.array([0.8]), np.array([0.7, -0.4])
    require_kind(ensemble, BoltzmannEnsemble, "exact ensembles of spins")
    x, y = jnp.asarray(x), jnp.asarray(y)
    temperature = float(ensemble.temperature)
    parameters, rest = split_parameters(ensemble)

    def mean_cost(parameters: Any) -> Any:
        """<C>, every configuration with its Boltzmann weight."""
        system = eqx.combine(parameters, rest)
        plain, nudged = (system.levels(x, nudge) for nudge in (None, Nudge(cost, y, jnp.ones(()))))
        return jax.nn.softmax(-plain / system.temperature) @ (nudged - plain)

    def surrogate(parameters: Any) -> Any:
        """(A(beta) - A(0))/beta, A = -T log Z."""
        system = eqx.combine(parameters, rest)
        least = lambda nudge: -system.temperature * jax.nn.logsumexp(-system.levels(x, nudge) / system.temperature)
        return (least(Nudge(cost, y, jnp.asarray(strong))) - least(None)) / strong

    wanted, at_any = eqx.filter_jit(lambda p: (jax.grad(mean_cost)(p), jax.grad(surrogate)(p)))(parameters)
    free = gradient(FluctuationResponse(temperature, cost=cost), ensemble, x, y)
    nudged = gradient(EquilibriumPropagation(strong, "positive", cost), ensemble, x, y)
    return (
        agreement("-Cov(C, dE/dtheta)/T against the derivative of <C>", free, wanted, 1e-9),
        *centred_gradient(ensemble, x, y, wanted, beta, cost),
        agreement(f"at beta = {strong} the contrast against the slope of (A(beta) - A(0))/beta", nudged, at_any, 1e-9),
    )


@of_examples
def homogeneous_limits(system: Substrate | None = None, x: Any = None, y: Any = None) -> tuple[Finding, ...]:
    """What is left of spins as the transverse field goes to 0, of quantum oscillators as hbar does, and of an ensemble
    as the temperature does: the classical system at rest, approached with the order that theory predicts.

    Args:
        system: a `TransverseFieldIsing`, a `QuantumOscillatorNetwork` or the `ensemble` of an `IsingModel`; by default
            one of each.
        x: the input of one example.
        y: the target, which oscillators learn, whose gradient has a limit too.

    Raises NotApplicableError for other systems, and where the classical ground state is degenerate.
    """
    if system is None:
        spins = TransverseFieldIsing.from_edges(
            _SQUARE,
            coupling=[0.9, 0.5, -0.7, 0.4, 0.3],
            transverse_field=[0.8, 1.1, 0.6, 0.9],
            longitudinal_field=[0.5, -0.2, 0.3, 0.4],
            outputs=["Z1"],
        )
        oscillators = QuantumOscillatorNetwork.chain(
            3, stiffness=[0.8, 0.5], onsite_stiffness=[1.0, 0.7, 0.4], inputs=[0], outputs=[2], reading="moments"
        )
        return (
            *homogeneous_limits(spins, np.zeros(0), np.zeros(1)),
            *homogeneous_limits(oscillators, np.array([0.6]), np.array([0.5, 0.25])),
            *homogeneous_limits(_ensemble(), np.array([0.8]), np.zeros(2)),
        )
    kinds = (TransverseFieldIsing, QuantumOscillatorNetwork, BoltzmannEnsemble)
    require_kind(system, kinds, "spins in a field, quantum oscillators and ensembles")
    return _limit(system, jnp.asarray(x), y)


@functools.singledispatch
def _limit(system: Any, x: Any, y: Any) -> tuple[Finding, ...]:
    raise NotApplicableError(f"No limit is known of {type(system).__name__}.")


@_limit.register
def _(net: TransverseFieldIsing, x: Any, y: Any) -> tuple[Finding, ...]:
    require(net.entry == "fields" and net.level == 0, "It speaks of ground states with inputs that are fields.")
    require(net.n <= 16, f"{net.n} spins are too many for a small test of a limit: 16 at most.")
    field = np.asarray(net.longitudinal_field).copy()
    np.add.at(field, list(net.inputs), np.asarray(x))
    edges = np.asarray(net.graph.edges)
    classical = IsingModel.from_edges(edges, net.n, coupling=net.coupling, field=field)
    rest = settled(classical, jnp.zeros(0))
    matrix = np.zeros((net.n, net.n))
    matrix[edges[:, 0], edges[:, 1]] = np.asarray(net.coupling)
    local = ((matrix + matrix.T) @ np.asarray(rest.state) + field) * np.asarray(rest.state)
    ensemble = classical.ensemble(1.0)
    levels = np.sort(np.asarray(ensemble.levels(jnp.zeros(0))))
    require(levels[1] - levels[0] > 1e-6 * np.ptp(levels), "The classical ground state is degenerate.")
    lowest = float(levels[0])
    scales, shifts = np.array([0.04, 0.02, 0.01]) * float(levels[1] - levels[0]), []
    for scale in scales:
        weak = eqx.tree_at(lambda n: n.transverse_field, net, scale * net.transverse_field)
        shifts.append(_energy(weak, x) - lowest)
    second = -np.sum(np.asarray(net.transverse_field) ** 2 / (2 * local))
    last, before = shifts[-1] / scales[-1] ** 2, shifts[-2] / scales[-2] ** 2
    return (
        power_law("h -> 0: the order of E - E_Ising", scales, np.abs(shifts), 2),
        agreement(
            "(E - E_Ising)/h^2, extrapolated, against -1/(2 local field) of each spin",
            (4 * last - before) / 3,
            second,
            1e-5,
        ),
    )


@_limit.register
def _(net: QuantumOscillatorNetwork, x: Any, y: Any) -> tuple[Finding, ...]:
    require(net.temperature == 0, "The limit of hbar is that of ground states: temperature 0.")
    stiffness, force = np.asarray(net.stiffness_matrix(x)), np.asarray(net.total_bias(x))
    still = np.linalg.solve(stiffness, force)
    sizes = 0.02, 0.01, 0.005
    quantum = [net.with_hbar(size) for size in sizes]
    states = [settled(one, x).state for one in quantum]
    spreads = [np.trace(np.asarray(one.covariance(s))) for one, s in zip(quantum, states, strict=True)]
    energies = [float(one.free_energy(x)) - float(net.with_hbar(0.0).free_energy(x)) for one in quantum]
    found = [
        agreement("hbar -> 0: <x> against the springs at rest", states[-1].mean, still, 1e-9),
        power_law("the order of the zero-point energy", sizes, energies, 1),
        power_law("the order of the spread", sizes, spreads, 1),
    ]
    if net.reading == "moments":
        rule = EquilibriumPropagation(1e-3)
        limit = flat(gradient(rule, net.with_hbar(0.0), x, jnp.asarray(y)))
        errors = [relative(flat(gradient(rule, one, x, jnp.asarray(y))), limit) for one in quantum]
        found.append(power_law("the order of what zero-point motion adds to the gradient", sizes, errors, 1))
    return tuple(found)


@_limit.register
def _(ensemble: BoltzmannEnsemble, x: Any, y: Any) -> tuple[Finding, ...]:
    levels = np.sort(np.asarray(ensemble.levels(x)))
    gap = levels[1] - levels[0]
    require(gap > 1e-6 * np.ptp(levels), "The ground state is degenerate: an entropy is left at T = 0.")
    ground = settled(ensemble.model, x)
    temperatures, missing = gap / np.array([10.0, 12.0, 14.0]), []
    for temperature in temperatures:
        cold = eqx.tree_at(lambda e: e.temperature, ensemble, jnp.asarray(temperature))
        state = settled(cold, x)
        missing.append((float(levels[0]) - _energy(cold, x)) / temperature)
    rate = -np.polyfit(1 / temperatures, np.log(missing), 1)[0]
    shown = cold.read(state.state, x)
    return (
        agreement("T -> 0: the rate of log((E_0 - A)/T) in -1/T against the gap", rate, gap, 0.05),
        agreement(
            "the outputs at T = gap/14 against those of the ground state",
            shown,
            ensemble.model.read(ground.state, x),
            1e-4,
        ),
    )


def _energy(system: Substrate, x: Any) -> float:
    """The least energy of a system."""
    found = settled(system, x).energy
    assert found is not None
    return float(found)


THEOREMS = (
    Theorem(
        "gibbs",
        r"At temperature $T$ the gradient of $L = \langle C\rangle$ is $-\frac{1}{T}\mathrm{Cov}(C, \partial_\theta E) "
        r"= \frac{d}{d\beta}\langle\partial_\theta E\rangle_\beta|_0$, and at any $\beta$ "
        r"$\langle\partial_\theta E\rangle_\beta - \langle\partial_\theta E\rangle_0$ is the gradient of "
        r"$A(\beta) - A(0)$, $A = -T \log Z$.",
        ("the Gibbs state of E + beta C", "T above 0"),
        "Scellier and Bengio 2017, arXiv 1602.05179; Massar and Mognetti 2024, arXiv 2405.08467; for any beta 2025, "
        "arXiv 2511.22024",
        "exact thermal ensembles of spins",
        gibbs,
        universal=False,
        rules=("equilibrium-propagation", "fluctuation-response"),
    ),
    Theorem(
        "homogeneous-limits",
        r"As $h \to 0$ the energy of spins in a transverse field is that of the Ising model less $\sum_i h_i^2/2f_i$ "
        r"($f_i$ the local field); as $\hbar \to 0$ quantum oscillators rest, learn and spread as springs do, up to "
        r"$O(\hbar)$; as $T \to 0$ a free energy is the ground energy up to $T e^{-\Delta/T}$.",
        ("a classical ground state that is not degenerate",),
        "Scellier 2024, arXiv 2406.00879, for the networks; Pfeuty 1970 for chains; textbook perturbation theory for "
        "the orders",
        "spins in a transverse field, quantum oscillators, ensembles of spins",
        homogeneous_limits,
        universal=False,
    ),
)
