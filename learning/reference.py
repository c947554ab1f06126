"""Exact gradients that look inside the system: references to judge physical rules by, not physical rules themselves."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from learning.costs import SquaredError
from learning.examples import free_phase, ready_batch
from learning.rule import Estimate, Estimator, require, require_usable
from substrates import explained
from substrates.substrate import Cost, Substrate, as_tree, fit_target, response, split_parameters


class ImplicitGradient(Estimator):
    """The exact gradient of the cost at the free equilibrium, by the implicit function theorem.

    With G(state, theta) = 0 the map whose root is the equilibrium (`Substrate.stationarity`) and J = dG/dstate,
    gradient = dC/dtheta - multiplier' dG/dtheta, where J' multiplier = dC/dstate. With bounds G is the natural map of
    the Karush-Kuhn-Tucker conditions, and directions held at a bound do not move. Directions along which the system
    is indifferent (a gauge, a norm) get the multiplier of least norm. It is the true gradient with or without an
    energy.

    This rule looks inside: it differentiates the force and reads the whole state, which no experimenter can. It
    exists to judge rules that do not. It factorises J up to 512 state variables, and iterates without a matrix above.

    Attributes:
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` for an equilibrium that did not converge, that is no root of G, or whose
            response to the cost does not exist (J singular along dC/dstate).

    Source: Scellier and Bengio 2017, arXiv 1602.05179, for its equality with equilibrium propagation; Almeida 1987 and
    Pineda 1987 for the multiplier.
    """

    in_short: ClassVar[str] = "implicit function theorem, a reference that looks inside; 1 relaxation; exact"

    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree)
    strict: bool = eqx.field(static=True, default=True)

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        x, y = ready_batch(substrate, x, y, self.cost, key)
        free, output, _ = free_phase(substrate, x, key)
        check_state("ImplicitGradient", substrate, free.state)
        y = fit_target(y, output, self.cost, name="y", batched=True)
        cost = jnp.mean(jax.vmap(self.cost)(output, y))
        gradient, exists = response_gradient(substrate, free.state, x, y, self.cost)
        estimate = Estimate(gradient, cost, output, (free,), relaxations=1)
        if not self.strict:
            return estimate
        return require_response(require_usable(estimate, substrate), jnp.all(exists), "ImplicitGradient")


def response_gradient(
    substrate: Substrate, states: PyTree, xs: PyTree, ys: PyTree, cost: Cost, *, transpose: bool = True
) -> tuple[PyTree, Bool[Array, "batch"]]:
    """The gradient of the mean cost through the response of equilibria, and for each example whether it exists.

    gradient = dC/dtheta - multiplier' dG/dtheta with J' multiplier = dC/dstate, G = stationarity, J = dG/dstate.
    With `transpose=False` J takes the place of J': what a nudge measures in a system without an energy (Scellier et
    al. 2018, arXiv 1808.04873), equal to the gradient where J is symmetric.
    """

    def multiplier(example):
        state, x, y = example
        flat, unravel = ravel_pytree(state)
        root = lambda s: ravel_pytree(substrate.stationarity(unravel(s), x))[0]
        slope = jax.grad(lambda s: cost(substrate.read(unravel(s), x), y))(flat)
        answer = response(root, flat, substrate.reciprocal(x))
        found, solved = answer.transposed(slope) if transpose else answer.solve(slope)
        return found, solved & (substrate.residual(state, x) <= float(jnp.finfo(flat.dtype).eps) ** 0.5)

    multipliers, exists = jax.lax.map(multiplier, (states, xs, ys))
    return lagrangian_gradient(substrate, states, xs, ys, multipliers, cost), exists


def lagrangian_gradient(
    substrate: Substrate, states: PyTree, xs: PyTree, ys: PyTree, multipliers: Float[Array, "batch n"], cost: Cost
) -> PyTree:
    """The gradient in the parameters, at given states, of the mean of C - multiplier' G, with G = stationarity.

    The multiplier of a state variable is the change of the cost with a force on it.
    """
    parameters, rest = split_parameters(substrate)

    def lagrangian(parameters):
        system = eqx.combine(parameters, rest)

        def one(state, x, y, multiplier):
            balance = ravel_pytree(system.stationarity(state, x))[0]
            return cost(system.read(state, x), y) - jnp.vdot(multiplier, balance)

        return jnp.mean(jax.vmap(one)(states, xs, ys, multipliers))

    return jax.grad(lagrangian)(parameters)


def require_response(estimate: Estimate, exists: Bool[Array, ""], name: str) -> Estimate:
    """The same estimate, unless an equilibrium has no response: then ConvergenceError, also from compiled code."""
    return require(
        estimate,
        exists,
        f"{name}: the equilibrium does not move smoothly with the parameters: stationarity(state, x) is not zero "
        "there, or its Jacobian is singular along the slope of the cost. Relax more tightly, or compare with finite "
        f"differences of the cost; see {explained.NO_DERIVATIVE}",
    )


def check_state(rule: str, substrate: Substrate, states: PyTree) -> None:
    """Raises TypeError, in the name of a rule, for states that are not real floating-point numbers, or discrete."""
    leaves = jax.tree.leaves(states)
    if substrate.discrete or not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        kinds = "discrete " * substrate.discrete + ", ".join(str(leaf.dtype) for leaf in leaves)
        raise TypeError(
            f"{rule}: wanted a state of real floating-point numbers, which can be differentiated, "
            f"got {kinds}; for discrete or complex states compare with finite differences of the cost; see "
            f"{explained.NO_DERIVATIVE}"
        )
