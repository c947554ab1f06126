"""Theorems of systems with a force and no energy: what a nudge finds there, and what repairs it."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PRNGKeyArray, PyTree

from learning.contrastive import EquilibriumPropagation
from learning.homeostasis import homeostatic_loss
from learning.reference import lagrangian_gradient
from substrates.adjoint import AdjointResponse
from substrates.substrate import Cost, Substrate, check_count, split_parameters
from theory_checks.case import Case, Probe, compiled, exact_gradient, flat, on_host, relative
from theory_checks.laws_of_response import jacobians
from theory_checks.theorems.measured import agreement, smaller
from theory_checks.theorems.suitable import (
    centred_estimates,
    halved,
    nearest,
    no_bounds,
    on_vectors,
    suitable,
)
from theory_checks.theorems.theorem import Finding, Theorem

STABLE = "a fixed point of the force whose Jacobian J is not singular"


def vector_field_bias(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
) -> tuple[Finding, ...]:
    """Without an energy a nudge finds g = -(dmu/dtheta)' J^-1 dC/ds, which the true gradient exceeds by
    -(dmu/dtheta)' J'^-1 (2A) J^-1 dC/ds, with mu the force, J = dmu/ds and A = (J - J')/2; and no more than
    2 |J^-1|^2 |A| |dC/ds| |dmu/dtheta| in size.

    Args:
        substrate, x, y, cost, key: as of `check_substrate`.
        beta: the largest nudge; by default one that suits the system.

    Raises NotApplicableError for systems with an energy, discrete states, distributions, states with bounds, and
    equilibria that do not move smoothly.

    Source: Scellier, Goyal, Binas, Mesnard and Bengio 2018, arXiv 1808.04873.
    """
    case = suitable(substrate, x, y, cost, key, beta, energy=False)
    no_bounds(case)
    found, exact = nearest(*centred_estimates(case)), _exact(case)
    every = jacobians(case.substrate, case.free.state, case.xs)
    slopes = _slopes(case)
    inverse = np.linalg.inv(every)
    odd = (every - np.swapaxes(every, 1, 2)) / 2
    multipliers = np.einsum("bji,bjk,bkl,bl->bi", inverse, 2 * odd, inverse, slopes)
    bias = on_vectors(np.negative, _work(case, multipliers))
    missing = on_vectors(np.subtract, exact, found)
    norm = lambda matrices: np.linalg.norm(matrices, 2, axis=(1, 2))
    parts = norm(inverse) ** 2 * norm(odd) * np.linalg.norm(slopes, axis=1) * _sensitivities(case)
    size, most = float(np.linalg.norm(flat(missing))), 2 * float(np.mean(parts))
    scale = float(np.linalg.norm(flat(exact)))
    off = float(np.linalg.norm(flat(missing) - flat(bias))) / scale
    return (
        agreement(
            "centred contrast, at its best beta, and -(dmu/dtheta)' J^-1 dC/ds", found, case.reference, case.resolution
        ),
        Finding(
            "what is missing, over the true gradient, and its formula", flat(missing), flat(bias), off, case.resolution
        ),
        smaller("what is missing, and its bound", size, most, scale, case.resolution),
    )


def adjoint_repair(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
) -> tuple[Finding, ...]:
    """With the force mu(s) - 2A (s - s_0) in its nudged phases a system without an energy has the exact gradient.

    Args:
        substrate, x, y, cost, key, beta: as of `vector_field_bias`; the system as it is, without a repair.

    Raises NotApplicableError as `vector_field_bias`.

    Source: Scurria, Vanden Abeele, Mognetti and Massar 2026, arXiv 2602.03670.
    """
    case = suitable(substrate, x, y, cost, key, beta, energy=False)
    no_bounds(case)
    exact, repaired = _exact(case), AdjointResponse(substrate)

    def estimate(beta: float) -> PyTree:
        rule = EquilibriumPropagation(jnp.asarray(beta, case.dtype), "centered", case.cost, strict=False)  # type: ignore[arg-type]
        return on_host(rule(repaired, case.xs, case.ys, key=case.key).gradient.inner)

    found = [estimate(beta) for beta in halved(case.beta)]
    best = nearest(found, [relative(each, exact) for each in found])
    return (agreement("centred contrast of the repaired system and the exact gradient", best, exact, case.resolution),)


def homeostatic(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
    probes: int = 2000,
) -> tuple[Finding, ...]:
    """The homeostatic loss |J eps|^2 - eps' J^2 eps has the mean |J|^2 - tr J^2 = 2 |A|^2 in the Frobenius norm, zero
    just where the Jacobian is symmetric; here over the number of variables.

    Args:
        substrate, x, y, cost, key: as of `check_substrate`.
        beta: not used but to make the case.
        probes: how many directions are drawn for each example; their mean is held against five standard errors.

    Raises NotApplicableError for discrete states, distributions, and equilibria that do not move smoothly.

    Source: Laborieux and Zenke 2024, arXiv 2309.02214.
    """
    check_count("probes", probes, 2)
    case = suitable(substrate, x, y, cost, key, beta, energy=None)
    every = jacobians(case.substrate, case.free.state, case.xs)
    odd = (every - np.swapaxes(every, 1, 2)) / 2
    wanted = float(np.mean(2 * np.sum(odd**2, axis=(1, 2)))) / case.variables
    size = float(np.mean(np.sum(every**2, axis=(1, 2)))) / case.variables
    # of e' M e, M symmetric, the variance is 2 |M|^2
    forms = np.einsum("bki,bkj->bij", every, every) - every @ every
    forms = (forms + np.swapaxes(forms, 1, 2)) / 2
    spread = float(np.sqrt(np.sum(2 * forms**2) / probes)) / case.size / case.variables
    exact = float(homeostatic_loss(case.substrate, case.free.state, case.xs))
    drawn = float(homeostatic_loss(case.substrate, case.free.state, case.xs, key=case.key, probes=probes))
    bound = 1e3 * case.epsilon
    return (
        Finding("exact loss and 2 |A|^2 / n, over |J|^2 / n", exact, wanted, abs(exact - wanted) / size, bound),
        Finding(
            f"loss by {probes} directions and 2 |A|^2 / n, over |J|^2 / n",
            drawn,
            wanted,
            abs(drawn - wanted) / size,
            5 * spread / size + bound,
        ),
    )


def _exact(case: Case) -> PyTree:
    """The true gradient, by the transposed response."""
    return exact_gradient(case.substrate, case.free.state, case.xs, case.ys, case.cost)[0]


@compiled
def _cost_slopes(substrate, states, xs, ys, cost):
    def one(state, x, y):
        flat_state, unravel = ravel_pytree(state)
        return jax.grad(lambda s: cost(substrate.read(unravel(s), x), y))(flat_state)

    return jax.vmap(one)(states, xs, ys)


def _slopes(case: Case) -> np.ndarray:
    """dC/ds of each example, shape (batch, n)."""
    return _cost_slopes(case.substrate, case.free.state, case.xs, case.ys, case.cost)


@compiled
def _multiplied(substrate, states, xs, ys, multipliers, cost):
    return lagrangian_gradient(substrate, states, xs, ys, multipliers, cost)


def _work(case: Case, multipliers: np.ndarray) -> PyTree:
    """(dmu/dtheta)' m, the mean over the batch."""
    nothing = Probe(case.cost, jnp.zeros((), case.dtype), case.bare.direction)
    return _multiplied(case.substrate, case.free.state, case.xs, case.ys, multipliers, nothing)


@compiled
def _largest_sensitivity(substrate, states, xs):
    parameters, rest = split_parameters(substrate)
    flat_parameters, unravel = ravel_pytree(parameters)

    def one(state, x):
        force = lambda p: ravel_pytree(eqx.combine(unravel(p), rest).force(state, x))[0]
        return jnp.linalg.norm(jax.jacfwd(force)(flat_parameters), 2)

    return jax.lax.map(lambda example: one(*example), (states, xs))


def _sensitivities(case: Case) -> np.ndarray:
    """|dmu/dtheta| of each example, in the 2-norm."""
    return _largest_sensitivity(case.substrate, case.free.state, case.xs)


THEOREMS = (
    Theorem(
        name="vector-field-bias",
        statement=r"Without an energy a nudge finds "
        r"$-\left(\frac{\partial\mu}{\partial\theta}\right)^T J^{-1} \nabla C$; the true gradient exceeds that by "
        r"$-\left(\frac{\partial\mu}{\partial\theta}\right)^T J^{-T} (2A) J^{-1} \nabla C$, $A = (J - J^T)/2$.",
        assumptions=(STABLE, "states without bounds", "outputs that show the state through no trained parameters"),
        source="Scellier, Goyal, Binas, Mesnard and Bengio 2018, arXiv 1808.04873",
        applies_to="systems with a force and no energy",
        check=vector_field_bias,
        universal=True,
        rules=("equilibrium-propagation",),
    ),
    Theorem(
        name="adjoint-repair",
        statement=r"Where nudged phases settle at $\mu(s) - 2A(s - s_0) - \beta \nabla C = 0$, with $A$ the "
        r"antisymmetric part of $J$ at the free state, equilibrium propagation finds the exact gradient.",
        assumptions=(STABLE, "states without bounds"),
        source="Scurria, Vanden Abeele, Mognetti and Massar 2026, arXiv 2602.03670",
        applies_to="systems with a force and no energy",
        check=adjoint_repair,
        universal=True,
        rules=("equilibrium-propagation",),
    ),
    Theorem(
        name="homeostatic-loss",
        statement=r"$\mathbb{E}_\epsilon[|J\epsilon|^2 - \epsilon^T J^2 \epsilon] = |J|_F^2 - \mathrm{tr} J^2 = "
        r"2 |A|_F^2$ for $\epsilon \sim N(0, I)$: zero just where the Jacobian is symmetric.",
        assumptions=("states of real numbers, moved by a force",),
        source="Laborieux and Zenke 2024, arXiv 2309.02214",
        applies_to="systems with a force, with or without an energy",
        check=homeostatic,
        universal=True,
    ),
)
