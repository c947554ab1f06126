"""A rule that learns from thermal fluctuations alone."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from learning.costs import SquaredError
from learning.examples import ready_batch
from learning.rule import Estimate, Estimator, check_positive, require_usable
from substrates.substrate import Cost, Substrate, as_tree, fit_target, relax_batch, split_parameters


class FluctuationResponse(Estimator):
    """The gradient of the mean cost of a system at a temperature T, from its free fluctuations: no nudge.

        d<C>/dtheta = -(1/T) Cov(C, dE/dtheta),

    the fluctuation-dissipation form of stochastic equilibrium propagation, without its bias in beta. The system is
    relaxed several times, each time with a key of its own, and must settle into one thermal sample each time (as
    `IsingModel.sampled(T, chains=1, draws=1)` does). The estimate is unbiased; its variance, as that of any covariance,
    falls with the number of samples alone, so it suits systems with few outputs or cheap samples.

    Attributes:
        temperature: T, in units of energy.
        samples: relaxations per example, at least 2.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` rather than learn from a relaxation that is unusable.

    Source: Scellier and Bengio 2017, arXiv 1602.05179, the stochastic version; Kubo 1966 for the identity.
    """

    temperature: float
    samples: int = eqx.field(static=True, default=16)
    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree)
    strict: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_positive("temperature", self.temperature)
        if not isinstance(self.samples, int) or self.samples < 2:
            raise ValueError(f"samples: wanted a whole number, at least 2 for a covariance, got {self.samples}")

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        if key is None:
            raise ValueError("key: wanted a key, which draws the thermal samples, got None")
        x, y = ready_batch(substrate, x, y, self.cost, key)
        estimate = _compiled(jax.tree.map(jnp.asarray, self), substrate, x, y, key)
        return require_usable(estimate, substrate) if self.strict else estimate


@eqx.filter_jit
def _compiled(rule: FluctuationResponse, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray) -> Estimate:
    size = jax.tree.leaves(x)[0].shape[0]
    repeat = lambda tree: jax.tree.map(lambda leaf: jnp.repeat(leaf, rule.samples, axis=0), tree)
    xs = repeat(x)
    free = relax_batch(substrate, xs, keys=jax.random.split(key, size * rule.samples))
    outputs = jax.vmap(substrate.read)(free.state, xs)
    one_each = jax.ShapeDtypeStruct((size, *outputs.shape[1:]), outputs.dtype)
    ys = repeat(fit_target(y, one_each, rule.cost, name="y", batched=True))
    costs = jax.vmap(rule.cost)(outputs, ys).reshape(size, rule.samples)
    excess = costs - jnp.mean(costs, axis=1, keepdims=True)
    weights = -excess.ravel() / ((rule.samples - 1) * size * rule.temperature)

    def add(total: PyTree, sample: tuple) -> tuple[PyTree, None]:
        state, x, weight = sample
        one = substrate.measure(*jax.tree.map(lambda leaf: leaf[None], (state, x)))
        return jax.tree.map(lambda t, m: t + weight * m, total, split_parameters(one)[0]), None

    zero = jax.tree.map(jnp.zeros_like, split_parameters(substrate)[0])
    gradient, _ = jax.lax.scan(add, zero, (free.state, xs, weights))
    output = jnp.mean(outputs.reshape(size, rule.samples, -1), axis=1)
    return Estimate(gradient, jnp.mean(costs), output, (free,), relaxations=rule.samples)
