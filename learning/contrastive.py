"""Rules that contrast two equilibria."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from learning.costs import SquaredError
from learning.examples import outputs_at_start, ready_batch
from learning.rule import Estimate, Estimator, check_positive, require_usable
from substrates.substrate import Cost, Equilibrium, Nudge, Substrate, as_tree, fit_target, relax_phases

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

    Of an ensemble of spins, whose state is their distribution at a temperature, it is stochastic equilibrium
    propagation: a nudge acts in every configuration, F is a free energy A(beta), and the estimate the exact gradient of
    (A(beta+) - A(beta-)) / (beta+ - beta-) at any beta. It descends the mean of C over configurations, and not the
    `cost` of the estimate, which is that of the mean output; `FluctuationResponse` is its limit beta -> 0. With
    `linearised` it descends the cost of the mean output. Quantum ensembles are nudged at their mean outputs, and
    descend the cost of these.

    Attributes:
        beta: the nudging strength, positive; stiffness units per cost.
        variant: which pair is contrasted.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` rather than learn from an equilibrium that did not converge.
        linearised: nudge by the tangent of the cost at the free output.

    Source: Scellier and Bengio 2017, arXiv 1602.05179, random signs included; the centred variant, Laborieux et al.
    2021, arXiv 2006.03824; the bounds, Scellier, Ernoult, Kendall and Kumar 2023, arXiv 2312.15103; free energies at
    finite beta, arXiv 2511.22024 (2025).
    """

    in_short: ClassVar[str] = (
        "two nudged equilibria contrasted; 3 relaxations centred, else 2; bias O(beta^2) centred, else O(beta)"
    )

    beta: float
    variant: Variant = eqx.field(static=True, default="centered")
    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree)
    strict: bool = eqx.field(static=True, default=True)
    linearised: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if self.variant not in get_args(Variant):
            raise ValueError(f"variant: wanted one of {get_args(Variant)}, got {self.variant!r}")
        check_positive("beta", self.beta, "; the variant chooses the sign")

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        x, y = ready_batch(substrate, x, y, self.cost, key)
        estimate = _compiled(jax.tree.map(jnp.asarray, self), substrate, x, y, key)
        return require_usable(estimate, substrate) if self.strict else estimate


def estimate_by_contrast(
    rule: EquilibriumPropagation,
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    key: PRNGKeyArray | None,
    settle: Callable[..., Equilibrium] = relax_phases,
) -> Estimate:
    """The estimate of the rule, lenient and not compiled as a whole; `settle` finds its phases."""
    size = jax.tree.leaves(x)[0].shape[0]
    keys = None if key is None else jax.random.split(key, size)
    shown = eqx.filter_eval_shape(outputs_at_start, substrate, x, keys)
    y = fit_target(y, shown, rule.cost, name="y", batched=True)
    beta = jnp.asarray(rule.beta, shown.dtype)
    up = None
    if rule.variant == "random":
        if key is None:
            raise ValueError("key: wanted a key, which draws the sign of each example's nudge, got None")
        up = jax.random.bernoulli(jax.random.fold_in(key, size), shape=(size,))
        beta = jnp.broadcast_to(beta, (size,))
    nudged = {"positive": (beta,), "negative": (-beta,), "centered": (beta, -beta)}
    strengths = (0 * beta, *(nudged[rule.variant] if up is None else (jnp.where(up, beta, -beta),)))
    found = settle(substrate, x, Nudge(rule.cost, y, jnp.stack(strengths)), keys, rule.linearised)
    equilibria = tuple(jax.tree.map(lambda leaf, k=k: leaf[k], found) for k in range(len(strengths)))
    output = jax.vmap(substrate.read)(equilibria[0].state, x)
    cost = jnp.mean(jax.vmap(rule.cost)(output, y))

    about = output if rule.linearised else None
    phases = [(e.state, Nudge(rule.cost, y, b, about)) for e, b in zip(equilibria, strengths, strict=True)]
    first, *_, last = phases
    (plus, nudge_plus), (minus, nudge_minus) = {
        "positive": (last, first),
        "negative": (first, last),
        "centered": phases[1:],
        "random": (last, first),
    }[rule.variant]
    if up is not None:
        either = lambda a, b: jnp.where(up.reshape(-1, *[1] * (a.ndim - 1)), a, b)
        plus, minus = jax.tree.map(either, plus, minus), jax.tree.map(either, minus, plus)
        nudge_plus, nudge_minus = (
            Nudge(rule.cost, y, b, about) for b in (jnp.where(up, beta, 0), jnp.where(up, 0, -beta))
        )
    contrast = substrate.contrast(plus, minus, x, nudge_plus, nudge_minus)
    gap = 2 * rule.beta if rule.variant == "centered" else rule.beta
    gradient = jax.tree.map(lambda leaf: leaf / jnp.asarray(gap, shown.dtype), contrast)
    return Estimate(gradient, cost, output, equilibria, relaxations=len(equilibria))


_compiled = eqx.filter_jit(estimate_by_contrast)
