"""Gradients through the steps of a system that settles: references that look inside, like those of `reference`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from learning.costs import SquaredError
from learning.examples import free_phase, outputs_at_start, ready_batch
from learning.reference import check_state
from learning.rule import Estimate, Estimator, check_positive, require, require_usable
from substrates.substrate import (
    Cost,
    Equilibrium,
    Status,
    Substrate,
    as_tree,
    bounds_at,
    check_count,
    fit_target,
    split_parameters,
)

T = TypeVar("T")


class Course(eqx.Module):
    """The time course of recurrent back-propagation, from its start to its last step, both included.

    Attributes:
        error: Sb of each example, a tree like a batch of states with a leading axis of steps + 1.
        gradient: Tb, mean over the batch, a tree like the substrate with a leading axis of steps + 1.
    """

    error: PyTree
    gradient: PyTree


class RecurrentBackprop(Estimator):
    """The gradient of the cost at the free equilibrium, by errors that flow through the system step by step.

    With f the force, J = -df/ds at the free state s,

        Sb(0) = dC/ds,              Sb <- Sb - rate J' Sb,
        Tb(0) = dC/dtheta,          Tb <- Tb + rate (df/dtheta)' Sb,

    whose end, as steps grow, is the gradient of the cost; earlier it is that of back-propagation through so many last
    steps of rate x force (`BackpropThroughTime`). Variables that a bound holds at s have no error. Where the system
    has an energy the course is what equilibrium propagation shows in the limit beta -> 0: when the nudged system
    follows its force in steps of the same rate, S <- S + rate (f(S) - beta dC/ds), from s,

        Sb = -(1/beta) dS/dt,       Tb = (1/beta) [dF/dtheta(S) - dE/dtheta(s)].

    This rule looks inside: it differentiates the force and reads the whole state, which no experimenter can. No matrix
    is formed.

    Attributes:
        steps: how many.
        rate: the step, in units of the state per force: below 2 over the largest stiffness the errors of a stable
            system fade.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` for an equilibrium that did not converge, and for errors that are larger after
            all steps than at first, or not finite.

    Raises TypeError for states that are not real floating-point numbers.

    Source: Almeida 1987 and Pineda 1987; Scellier and Bengio 2019, arXiv 1711.08416, for the equality of the courses.
    """

    in_short: ClassVar[str] = "errors that flow back at equilibrium, a reference; 1 relaxation; exact as steps grow"
    usual: ClassVar[Mapping[str, Any]] = {"steps": 100, "rate": 0.1}

    steps: int = eqx.field(static=True)
    rate: float
    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree)
    strict: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_count("steps", self.steps)
        check_positive("rate", self.rate)

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        x, y = ready_batch(substrate, x, y, self.cost, key)
        estimate, fading = _gradient(jax.tree.map(jnp.asarray, self), substrate, x, y, key)
        return self._checked(substrate, estimate, fading, estimate)

    def course(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Course:
        """Errors and gradients after every step, to be compared with a nudged phase.

        Args:
            substrate, x, y, key: as for an estimate.
        """
        x, y = ready_batch(substrate, x, y, self.cost, key)
        course, estimate, fading = _course(jax.tree.map(jnp.asarray, self), substrate, x, y, key)
        return self._checked(substrate, estimate, fading, course)

    def _checked(self, substrate: Substrate, estimate: Estimate, fading: Bool[Array, ""], value: T) -> T:
        if not self.strict:
            return value
        if not isinstance(fading, Tracer):
            require_usable(estimate, substrate)
        return require(
            value,
            fading & (estimate.unusable == 0),
            "RecurrentBackprop: the errors grow from step to step, or an equilibrium did not converge: choose a "
            "smaller rate, below 2 over the largest stiffness, or let the system settle where it is stable",
        )


class BackpropThroughTime(Estimator):
    """The gradient of the cost after a number of steps, by reverse-mode differentiation of these steps.

        s <- clip(s + rate f(s, x), lower, upper)

    with f the force, from the start of the substrate. It is exact for the cost of the state after the last step, and
    tends to the gradient at the free equilibrium as steps grow. Truncated, the last few steps alone depend on the
    parameters: once the state has settled, that is `RecurrentBackprop` after as many steps.

    This rule looks inside: it differentiates the force and reads the whole state, which no experimenter can. It keeps
    the states of all steps that it differentiates.

    Attributes:
        steps: how many.
        rate: the step, in units of the state per force.
        truncate: how many of the last steps are differentiated; all of them where it is None.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` where the state does not stay finite.

    The estimate holds the states after the last step, `truncated`, with their residual.

    Raises TypeError for states that are not real floating-point numbers.

    Source: Werbos 1990; Ernoult, Grollier, Querlioz, Bengio and Scellier 2019, arXiv 1905.13633, for its equality with
    equilibrium propagation.
    """

    in_short: ClassVar[str] = "reverse mode through steps, a reference; 1 relaxation; exact for the cost after them"
    usual: ClassVar[Mapping[str, Any]] = {"steps": 100, "rate": 0.1}

    steps: int = eqx.field(static=True)
    rate: float
    truncate: int | None = eqx.field(static=True, default=None)
    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree)
    strict: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_count("steps", self.steps)
        check_positive("rate", self.rate)
        if self.truncate is not None:
            check_count("truncate", self.truncate)
            if self.truncate > self.steps:
                raise ValueError(f"truncate: wanted at most the {self.steps} steps there are, got {self.truncate}")

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        x, y = ready_batch(substrate, x, y, self.cost, key)
        estimate = _through_time(jax.tree.map(jnp.asarray, self), substrate, x, y, key)
        if not self.strict:
            return estimate
        message = "BackpropThroughTime: the state does not stay finite: choose a smaller rate"
        return require(estimate, estimate.unusable == 0, message)


def _errors(rule: RecurrentBackprop, substrate: Substrate, state: PyTree, x: PyTree, y: PyTree) -> PyTree:
    """Sb of one example at every step, with a leading axis of steps + 1."""
    free = _not_held(substrate, state, x)
    only_free = lambda tree: jax.tree.map(lambda leaf, free: jnp.where(free, leaf, 0), tree, free)
    transpose = jax.vjp(lambda s: substrate.force(s, x), state)[1]

    def step(error: PyTree, _: None) -> tuple[PyTree, PyTree]:
        return only_free(_moved(error, rule.rate, transpose(error)[0])), error

    first = only_free(jax.grad(lambda s: rule.cost(substrate.read(s, x), y))(state))
    last, before = jax.lax.scan(step, first, None, rule.steps)
    return jax.tree.map(lambda one, all: jnp.concatenate([all, one[None]]), last, before)


def _prepared(
    rule: RecurrentBackprop, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray | None
) -> tuple[Estimate, Bool[Array, ""], Callable[[PyTree], PyTree], PyTree]:
    """The estimate without its gradient, whether errors fade, multipliers -> gradient, and the errors of all steps, of
    shape (batch, steps + 1, ...)."""
    free, output, _ = free_phase(substrate, x, key)
    check_state("RecurrentBackprop", substrate, free.state)
    y = fit_target(y, output, rule.cost, name="y", batched=True)
    cost = jnp.mean(jax.vmap(rule.cost)(output, y))
    errors = jax.vmap(lambda state, x, y: _errors(rule, substrate, state, x, y))(free.state, x, y)
    sizes = jax.vmap(jax.vmap(lambda error: jnp.linalg.norm(ravel_pytree(error)[0])))(errors)
    parameters, rest = split_parameters(substrate)

    def gradient(multipliers: PyTree) -> PyTree:
        def work(parameters: PyTree) -> Float[Array, ""]:
            system = eqx.combine(parameters, rest)

            def one(state: PyTree, x: PyTree, y: PyTree, multiplier: PyTree) -> Float[Array, ""]:
                done = jax.tree.map(lambda m, f: jnp.sum(m * f), multiplier, system.force(state, x))
                return rule.cost(system.read(state, x), y) + sum(jax.tree.leaves(done))

            return jnp.mean(jax.vmap(one)(free.state, x, y, multipliers))

        return jax.grad(work)(parameters)

    fading = jnp.all(sizes[:, -1] <= sizes[:, 0])
    return Estimate(None, cost, output, (free,), relaxations=1), fading, gradient, errors


@eqx.filter_jit
def _gradient(
    rule: RecurrentBackprop, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray | None
) -> tuple[Estimate, Bool[Array, ""]]:
    estimate, fading, gradient, errors = _prepared(rule, substrate, x, y, key)
    total = jax.tree.map(lambda e: jnp.asarray(rule.rate, e.dtype) * jnp.sum(e[:, :-1], axis=1), errors)
    return dataclasses.replace(estimate, gradient=gradient(total)), fading


@eqx.filter_jit
def _course(
    rule: RecurrentBackprop, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray | None
) -> tuple[Course, Estimate, Bool[Array, ""]]:
    estimate, fading, gradient, errors = _prepared(rule, substrate, x, y, key)
    errors = jax.tree.map(lambda e: jnp.moveaxis(e, 1, 0), errors)
    after = lambda e: jnp.concatenate(
        [jnp.zeros_like(e[:1]), jnp.asarray(rule.rate, e.dtype) * jnp.cumsum(e[:-1], axis=0)]
    )
    return Course(errors, jax.lax.map(gradient, jax.tree.map(after, errors))), estimate, fading


@eqx.filter_jit
def _through_time(
    rule: BackpropThroughTime, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray | None
) -> Estimate:
    keys = None if key is None else jax.random.split(key, jax.tree.leaves(x)[0].shape[0])
    shown = eqx.filter_eval_shape(outputs_at_start, substrate, x, keys)
    y = fit_target(y, shown, rule.cost, name="y", batched=True)
    starts = jax.vmap(substrate.start, in_axes=(0, None if keys is None else 0))(x, keys)
    check_state("BackpropThroughTime", substrate, starts)
    last = rule.steps if rule.truncate is None else rule.truncate
    parameters, rest = split_parameters(substrate)

    def settled(system: Substrate, states: PyTree, steps: int) -> PyTree:
        def step(state: PyTree, x: PyTree) -> PyTree:
            moved, bounds = _moved(state, rule.rate, system.force(state, x)), bounds_at(system, x, state)
            return moved if bounds is None else jax.tree.map(jnp.clip, moved, *bounds)

        return jax.lax.scan(lambda states, _: (jax.vmap(step)(states, x), None), states, None, steps)[0]

    def mean_cost(parameters: PyTree, states: PyTree) -> tuple[Float[Array, ""], tuple[PyTree, Array]]:
        system = eqx.combine(parameters, rest)
        states = settled(system, states, last)
        output = jax.vmap(system.read)(states, x)
        return jnp.mean(jax.vmap(rule.cost)(output, y)), (states, output)

    starts = settled(substrate, starts, rule.steps - last)
    (cost, (states, output)), gradient = jax.value_and_grad(mean_cost, has_aux=True)(parameters, starts)
    found = jax.vmap(lambda state, x: _after(substrate, state, x, rule.steps))(states, x)
    return Estimate(gradient, cost, output, (found,), relaxations=1)


def _after(substrate: Substrate, state: PyTree, x: PyTree, steps: int) -> Equilibrium:
    """A state after so many steps, as the equilibrium that it was not asked to be."""
    finite = jnp.all(jnp.isfinite(ravel_pytree(state)[0]))
    energy = substrate.energy(state, x) if substrate.conservative else None
    status = Status.where(finite, Status.truncated, Status.not_finite)
    return Equilibrium(state, energy, substrate.residual(state, x), jnp.asarray(steps, jnp.int32), status)


def _moved(state: PyTree, rate: float, force: PyTree) -> PyTree:
    """A state after a step along a force."""
    return jax.tree.map(lambda s, f: s + jnp.asarray(rate, s.dtype) * f, state, force)


def _not_held(substrate: Substrate, state: PyTree, x: PyTree) -> PyTree:
    """Where no bound holds a variable against the force that pushes it there, a tree like the state."""
    bounds = substrate.bounds(x)
    if bounds is None:
        return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), state)
    held = lambda s, f, lower, upper: ((s <= lower) & (f < 0)) | ((s >= upper) & (f > 0))
    return jax.tree.map(lambda *leaves: ~held(*leaves), state, substrate.force(state, x), *bounds)
