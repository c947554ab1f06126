"""A rule that learns from thermal fluctuations alone."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from learning.costs import SquaredError
from learning.examples import free_phase, ready_batch
from learning.rule import Estimate, Estimator, check_positive, require_usable
from substrates.substrate import Cost, Nudge, Substrate, as_tree, check_count, fit_target, relax_batch, split_parameters

SAMPLES = 16
"""So many samples are drawn of a system where nothing else is asked for."""


class FluctuationResponse(Estimator):
    """The gradient of the mean cost of a system at a temperature T, from its free fluctuations: no nudge.

        d<C>/dtheta = -(1/T) Cov(C, dE/dtheta),

    the fluctuation-dissipation form of stochastic equilibrium propagation, without its bias in beta. It descends <C>,
    the mean of the cost over what single configurations show, as nudges do that act in each of them. The cost of the
    mean output is another loss, unless the cost is linear.

    Where the state is the whole distribution (as that of `IsingModel.ensemble(T)`), one relaxation gives the exact
    covariance. Any other system is relaxed several times, each time with a key of its own, and must settle into one
    thermal sample each time (as `IsingModel.sampled(T, chains=1, draws=1)` does). That estimate is unbiased; its
    variance, as that of any covariance, falls with the number of samples alone, so it suits systems with few outputs or
    cheap samples.

    Attributes:
        temperature: T of the system, in units of energy.
        samples: relaxations per example, at least 2; None for a state that is a distribution, and for 16 of any other.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` rather than learn from a relaxation that is unusable.

    The estimate has <C> as its cost, and the mean output.

    Raises ValueError for samples of a distribution, and where there is no key to draw others by.

    Source: Scellier and Bengio 2017, arXiv 1602.05179, the stochastic version; Kubo 1966 for the identity.
    """

    in_short: ClassVar[str] = (
        "thermal fluctuations, no nudge; 1 relaxation of a distribution, else so many samples; unbiased"
    )

    temperature: float
    samples: int | None = eqx.field(static=True, default=None)
    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree)
    strict: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_positive("temperature", self.temperature)
        if self.samples is not None:
            check_count("samples", self.samples, 2, " for a covariance")

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        x, y = ready_batch(substrate, x, y, self.cost, key)
        ready = jax.tree.map(jnp.asarray, self)
        if substrate.distribution:
            if self.samples is not None:
                raise ValueError(
                    f"samples: wanted None, got {self.samples}; the state of {type(substrate).__name__} is the whole "
                    "distribution, of which nothing is drawn"
                )
            estimate = _exact(ready, substrate, x, y, key)
        elif key is None:
            raise ValueError("key: wanted a key, which draws the thermal samples, got None")
        else:
            estimate = _sampled(ready, substrate, x, y, key)
        return require_usable(estimate, substrate) if self.strict else estimate


@eqx.filter_jit
def _exact(rule: FluctuationResponse, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray | None) -> Estimate:
    free, output, _ = free_phase(substrate, x, key)
    y = fit_target(y, output, rule.cost, name="y", batched=True)
    cost, covariance = substrate.covariance(free.state, x, Nudge(rule.cost, y, jnp.ones((), output.dtype)))
    gradient = jax.tree.map(lambda leaf: -leaf / jnp.asarray(rule.temperature, leaf.dtype), covariance)
    return Estimate(gradient, cost, output, (free,), relaxations=1)


@eqx.filter_jit
def _sampled(rule: FluctuationResponse, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray) -> Estimate:
    samples = SAMPLES if rule.samples is None else rule.samples
    size = jax.tree.leaves(x)[0].shape[0]
    repeat = lambda tree: jax.tree.map(lambda leaf: jnp.repeat(leaf, samples, axis=0), tree)
    xs = repeat(x)
    free = relax_batch(substrate, xs, keys=jax.random.split(key, size * samples))
    outputs = jax.vmap(substrate.read)(free.state, xs)
    one_each = jax.ShapeDtypeStruct((size, *outputs.shape[1:]), outputs.dtype)
    ys = repeat(fit_target(y, one_each, rule.cost, name="y", batched=True))
    costs = jax.vmap(rule.cost)(outputs, ys).reshape(size, samples)
    excess = costs - jnp.mean(costs, axis=1, keepdims=True)
    weights = -excess.ravel() / ((samples - 1) * size * rule.temperature)

    def add(total: PyTree, sample: tuple) -> tuple[PyTree, None]:
        state, x, weight = sample
        one = substrate.measure(*jax.tree.map(lambda leaf: leaf[None], (state, x)))
        return jax.tree.map(lambda t, m: t + weight * m, total, split_parameters(one)[0]), None

    zero = jax.tree.map(jnp.zeros_like, split_parameters(substrate)[0])
    gradient, _ = jax.lax.scan(add, zero, (free.state, xs, weights))
    output = jnp.mean(outputs.reshape(size, samples, -1), axis=1)
    return Estimate(gradient, jnp.mean(costs), output, (free,), relaxations=samples)
