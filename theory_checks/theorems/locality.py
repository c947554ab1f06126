"""The theorem of locality: a part learns from what is measured at it."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PRNGKeyArray, PyTree

from substrates.substrate import Cost, Substrate, split_parameters
from theory_checks.case import Case, compiled, flat, on_host
from theory_checks.theorems.measured import agreement, smaller
from theory_checks.theorems.suitable import refuse, suitable
from theory_checks.theorems.theorem import Finding, Theorem


def parameter_locality(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
) -> tuple[Finding, ...]:
    """The contrast of a parameter changes only with the variables that it acts on, and with parameters that act on one
    of these.

    theta_k acts on s_i where the work of moving s_i depends on it, d[E(s with s_i moved) - E(s)]/dtheta_k != 0, here at
    two random states of the first example. The contrast is what `contrast` reads of the same states.

    Args:
        substrate, x, y, cost, key: as of `check_substrate`.
        beta: not used but to make the case.

    Raises NotApplicableError without an energy, for distributions, and where every parameter acts on every variable.

    Source: Scellier and Bengio 2017, arXiv 1602.05179; of circuits Kendall et al. 2020, arXiv 2006.01981.
    """
    case = suitable(substrate, x, y, cost, key, beta, smooth=False)
    work, read, slopes = _readings(substrate, *_two_states(case), case.example(case.xs, 0))
    acts = np.any(np.abs(work) > 1e3 * case.epsilon * np.max(np.abs(work)), axis=0)
    if acts.all():
        refuse(substrate, "every parameter acts on every variable: nothing is far from anything")
    size, most, bound = float(np.max(np.abs(read))), int(np.max(acts.sum(axis=0))), 1e4 * case.epsilon
    elsewhere = np.abs(read[:, ~acts])
    moving = f"contrasts as other variables move (a parameter acts on {most} of {len(acts)} at most)"
    found = [
        agreement("contrasts as a variable moves, and its work's slope in parameters", read, work, case.epsilon**0.5),
        smaller(moving, elsewhere, np.zeros_like(elsewhere), size, bound),
    ]
    apart = ~(acts.T.astype(int) @ acts).astype(bool)
    if apart.any():
        parameters = np.abs(flat(on_host(split_parameters(substrate)[0]))) + 0.1
        change = np.abs(slopes * parameters)[apart]
        found.append(smaller("contrasts as parameters of parts apart change", change, 0 * change, size, bound))
    return tuple(found)


def _two_states(case: Case) -> tuple[PyTree, PyTree]:
    """Two states of the first example that differ in every variable."""
    if not case.discrete:
        return case.example(case.nearby(60, 0.3), 0), case.example(case.nearby(61, 0.3), 0)
    state = case.example(case.free.state, 0)
    return state, jax.tree.map(np.negative, state)


@compiled
def _readings(substrate: Substrate, state: PyTree, moved: PyTree, x: PyTree) -> tuple[Any, Any, Any]:
    """How the work of moving each variable from one state to where it is in the other depends on each parameter, what
    the parameter's contrast is between the same states, both of shape (2, variables, parameters), and how the contrast
    of all variables moved depends on the parameters."""
    parameters, rest = split_parameters(substrate)
    theta, with_theta = ravel_pytree(parameters)
    here, unravel = ravel_pytree(state)
    there = ravel_pytree(moved)[0]
    system = lambda theta: eqx.combine(with_theta(theta), rest)
    batch = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)
    slope = jax.grad(lambda theta, end: system(theta).energy(unravel(end), x))

    def contrast(theta, end, start):
        found = system(theta).contrast(batch(unravel(end)), batch(unravel(start)), batch(x))
        return ravel_pytree(eqx.filter(found, eqx.is_inexact_array))[0]

    def one_by_one(start, other):
        ends = jnp.where(jnp.eye(here.size, dtype=bool), other, start)
        work = jax.vmap(lambda end: slope(theta, end) - slope(theta, start))(ends)
        return work, jax.vmap(lambda end: contrast(theta, end, start))(ends)

    work, read = jax.vmap(one_by_one)(jnp.stack([here, there]), jnp.stack([there, here]))
    return work, read, jax.jacfwd(contrast)(theta, there, here)


THEOREMS = (
    Theorem(
        name="parameter-locality",
        statement=r"The contrast of $\theta_k$ changes only with the variables that $\theta_k$ acts on, "
        r"$\partial^2 E/\partial\theta_k \partial s_i \neq 0$, and with parameters that act on one of these: a part "
        r"learns from what is measured at it, though $dL/d\theta_k$ depends on the whole system.",
        assumptions=("an energy", "some part that does not act on every variable"),
        source="Scellier and Bengio 2017, arXiv 1602.05179; Kendall et al. 2020, arXiv 2006.01981, for circuits",
        applies_to="systems with an energy made of parts, discrete states included",
        check=parameter_locality,
        universal=True,
        rules=("equilibrium-propagation", "contrastive", "coupled"),
    ),
)
