"""Rules that contrast two equilibria."""

from __future__ import annotations

from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from learning.costs import SquaredError
from learning.examples import free_phase, ready_targets
from learning.rule import Estimate, Estimator, require_usable
from substrates.substrate import Cost, Nudge, Substrate, as_tree, fit_target, relax_batch

Variant = Literal["positive", "negative", "centered", "random"]


class EquilibriumPropagation(Estimator):
    """Equilibrium propagation: the gradient of the cost from a contrast of two equilibria.

    gradient = [dF/dtheta(beta+) - dF/dtheta(beta-)] / (beta+ - beta-), which at finite beta is the exact gradient of
    the mean of C over [beta-, beta+]. The free phase settles first; each nudged phase starts from the free state.

    | variant | beta+ | beta- | bias | surrogate |
    |---|---|---|---|---|
    | "positive" | beta | 0 | O(beta) | lower bound of the cost |
    | "negative" | 0 | -beta | O(beta) | upper bound of the cost |
    | "centered" | beta | -beta | O(beta^2) | close to the cost |
    | "random" | one of the first two rows, by a sign drawn for each example | O(beta), O(beta^2) in the mean | |

    The mean of "random" over its signs is "centered", at the price of one nudged phase.

    With `linearised` every nudge is the tangent of the cost at the free output of its example: a constant pull (a
    current, a field, an operator), which makes no equilibrium unstable and no quantum eigenproblem nonlinear. The limit
    beta -> 0 is the same gradient; at finite beta it is that of the mean of the tangent cost, its slope held fixed.

    Attributes:
        beta: the nudging strength, positive; stiffness units per cost.
        variant: which pair is contrasted.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` rather than learn from an equilibrium that did not converge.
        linearised: nudge by the tangent of the cost at the free output.

    Source: Scellier and Bengio 2017, arXiv 1602.05179, random signs included; the centred variant, Laborieux et al.
    2021, arXiv 2006.03824; the bounds, Scellier, Ernoult, Kendall and Kumar 2023, arXiv 2312.15103.
    """

    beta: float
    variant: Variant = eqx.field(static=True, default="centered")
    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree)
    strict: bool = eqx.field(static=True, default=True)
    linearised: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.variant not in get_args(Variant):
            raise ValueError(f"variant: wanted one of {get_args(Variant)}, got {self.variant!r}")
        if isinstance(self.beta, (int, float)) and not 0 < self.beta < float("inf"):
            raise ValueError(f"beta: wanted a positive number, got {self.beta}; the variant chooses the sign")

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        y = ready_targets(substrate, x, y, self.cost, key)
        estimate = _compiled(jax.tree.map(jnp.asarray, self), substrate, x, y, key)
        return require_usable(estimate) if self.strict else estimate


def estimate_by_contrast(
    rule: EquilibriumPropagation, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray | None
) -> Estimate:
    """The estimate of the rule, lenient and not compiled as a whole."""
    free, output, keys = free_phase(substrate, x, key)
    y = fit_target(y, output, rule.cost, name="y", batched=True)
    cost = jnp.mean(jax.vmap(rule.cost)(output, y))

    about = output if rule.linearised else None

    def nudged(beta):
        nudge = Nudge(rule.cost, y, beta, about)
        return relax_batch(substrate, x, nudge, free.state, keys), nudge

    beta = jnp.asarray(rule.beta, output.dtype)
    gap = beta
    if rule.variant == "random":
        if key is None:
            raise ValueError("key: wanted a key, which draws the sign of each example's nudge, got None")
        size = len(output)
        up = jax.random.bernoulli(jax.random.fold_in(key, size), shape=(size,))
        moved, _ = nudged(jnp.where(up, beta, -beta))
        choose = lambda a, b: jnp.where(up.reshape(-1, *[1] * (a.ndim - 1)), a, b)
        plus, minus = jax.tree.map(choose, moved.state, free.state), jax.tree.map(choose, free.state, moved.state)
        nudge_plus, nudge_minus = (
            Nudge(rule.cost, y, b, about) for b in (jnp.where(up, beta, 0), jnp.where(up, 0, -beta))
        )
        equilibria = (free, moved)
    else:
        high, nudge_plus = (free, None) if rule.variant == "negative" else nudged(beta)
        low, nudge_minus = (free, None) if rule.variant == "positive" else nudged(-beta)
        gap = 2 * beta if rule.variant == "centered" else beta
        plus, minus = high.state, low.state
        equilibria = (free, *(e for e in (high, low) if e is not free))
    contrast = substrate.contrast(plus, minus, x, nudge_plus, nudge_minus)
    gradient = jax.tree.map(lambda leaf: leaf / gap, contrast)
    return Estimate(gradient, cost, output, equilibria, relaxations=len(equilibria))


_compiled = eqx.filter_jit(estimate_by_contrast)
