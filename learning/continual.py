"""Continual equilibrium propagation: states and parameters move together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from learning.costs import SquaredError
from learning.examples import free_phase, ready_batch
from learning.rule import Estimate, Moved, Mover, check_positive, require, require_usable
from substrates.substrate import (
    Cost,
    DiscreteTime,
    Nudge,
    Solver,
    Substrate,
    as_tree,
    batch_axes,
    by_devices,
    check_count,
    fit_target,
    match_paths,
    split_parameters,
)

Variant = Literal["positive", "negative", "random"]


class ContinualEP(Mover):
    """Continual equilibrium propagation: while the outputs are nudged, states and parameters move together.

    The free phase settles. From its state s_0, for t = 0, ..., steps - 1,

        s_(t+1)     = one step of the nudged system with parameters theta_t,
        theta_(t+1) = theta_t - (eta/beta) [dF/dtheta(s_(t+1), theta_t) - dF/dtheta(s_t, theta_t)],

    so that nothing of a phase needs to be remembered: a synapse sees its own change. With eta -> 0 and then beta -> 0
    the updates are those of back-propagation through time, step by step (`updates_in_time`), and together they move
    the parameters by -eta dL/dtheta. The order of the limits matters: the error is O(beta) + O(eta/beta), for the
    parameters that have moved move the state, by O(eta), in a contrast that is divided by beta. So learning rates are
    to be much smaller than beta, in the units of the parameters.

    Every step's contrast is the mean over the batch, whose examples settle side by side and share the parameters; after
    every step the parameters are made physical by `constrained`. Without an energy it is continual vector-field
    learning (C-VF), where connections there and back have weights of their own.

    Attributes:
        beta: the nudging strength, positive.
        learning_rate: eta, one number, or a dict from the paths of parameters ("conductance", "coupling[0]") to
            numbers; the longest path that leads to a parameter counts.
        steps: how many steps the nudged phase has.
        variant: the sign of the nudge; "random" draws one for each example, whose bias in beta vanishes in the mean.
        solver: what makes one step, as its own `limited(1)`.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` for a free phase that did not converge, and where states or parameters do not
            stay finite.

    Source: Ernoult, Grollier, Querlioz, Bengio and Scellier 2020, arXiv 2005.04168.
    """

    in_short: ClassVar[str] = (
        "parameters move while outputs are nudged, as a mover; 1 relaxation and so many steps; bias O(beta, eta/beta)"
    )
    usual: ClassVar[Mapping[str, Any]] = {"steps": 20, "learning_rate": 0.01}

    beta: float
    learning_rate: float | Mapping[str, float]
    steps: int
    variant: Variant = eqx.field(static=True, default="positive")
    solver: Solver = eqx.field(default_factory=DiscreteTime)
    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree)
    strict: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        if self.variant not in get_args(Variant):
            raise ValueError(f"variant: wanted one of {get_args(Variant)}, got {self.variant!r}")
        check_positive("beta", self.beta, "; the variant chooses the sign")
        check_count("steps", self.steps)
        if not isinstance(self.solver, Solver):
            raise TypeError(f"solver: wanted a Solver, got {type(self.solver).__name__}")
        self.solver.limited(1)  # raises for one that makes no steps
        if isinstance(self.learning_rate, Mapping) and not self.learning_rate:
            raise ValueError("learning_rate: wanted a positive number for each parameter, got an empty dict")
        for rate in self.learning_rate.values() if isinstance(self.learning_rate, Mapping) else [self.learning_rate]:
            check_positive("learning_rate", rate)
            known = all(isinstance(number, int | float) for number in (rate, self.beta))
            if known and not 0 < rate / self.beta < math.inf:
                raise ValueError(
                    f"learning_rate: wanted much less than beta, and learning_rate / beta a positive number, got "
                    f"{rate} / {self.beta}"
                )

    @property
    def relaxations(self) -> int | None:
        return 2

    def _with_numbers(self) -> ContinualEP:
        """The same rule with numbers of run time, so that others compile nothing."""
        numbers = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, float) else leaf, tree)
        ready: Any = numbers(self)
        return eqx.tree_at(lambda rule: rule.steps, ready, jnp.asarray(self.steps, jnp.int32))

    def step(self, system: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Moved:
        """One free phase, and one nudged phase in which the parameters move.

        Args:
            system: whose parameters are moved; the one that is given stays as it is.
            x, y: as for an estimate, with a leading axis of examples.
            key: for systems that use it, and for "random" signs.

        Raises:
            ValueError: the examples do not fit the system, or "random" has no key.
            TypeError: for discrete states, which make no steps.
            ConvergenceError: see `strict`.
        """
        x, y = ready_batch(system, x, y, self.cost, key)
        if system.discrete:
            raise TypeError(f"system: wanted states that move continuously, got {type(system).__name__}, whose flip")
        if self.variant == "random" and key is None:
            raise ValueError("key: wanted a key, which draws the sign of each example's nudge, got None")
        moved, free, finite = _moved(self._with_numbers(), system, x, y, key)
        if self.strict:
            require_usable(free, system)
            message = "ContinualEP: states or parameters do not stay finite: choose a smaller learning_rate, or dt"
            moved = require(moved, finite & (free.unusable == 0), message)
        return moved


@eqx.filter_jit
def _moved(
    rule: ContinualEP, system: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray | None
) -> tuple[Moved, Estimate, Array]:
    """The step, its free phase, and whether all numbers stayed finite."""
    free, output, keys = free_phase(system, x, key)
    y = fit_target(y, output, rule.cost, name="y", batched=True)
    cost = jnp.mean(jax.vmap(rule.cost)(output, y))
    beta = jnp.asarray(rule.beta, output.dtype)
    up = jnp.broadcast_to(jnp.asarray(rule.variant == "positive"), len(output))
    if rule.variant == "random":
        assert key is not None
        up = jax.random.bernoulli(jax.random.fold_in(key, len(output)), shape=up.shape)
    strengths = jnp.where(up, beta, -beta)
    either = lambda a, b: jnp.where(up.reshape(-1, *[1] * (a.ndim - 1)), a, b)
    parameters, rest = split_parameters(system)
    rates = _rates(rule.learning_rate, parameters)
    solver = rule.solver.limited(1)

    def advance(
        _: Array, carry: tuple[PyTree, PyTree, Float[Array, "batch"]]
    ) -> tuple[PyTree, PyTree, Float[Array, "batch"]]:
        parameters, states, before = carry
        now = eqx.combine(parameters, rest)
        nudge = Nudge(rule.cost, y, strengths)
        axes = (0, batch_axes(nudge), 0, None if keys is None else 0)
        after = by_devices(_nudged, len(output), (None, None, *axes), 0, now, solver, x, nudge, states, keys)
        # a nudge of strength -beta swaps the two, so that all are divided by beta
        plus, minus = jax.tree.map(either, after, states), jax.tree.map(either, states, after)
        at_plus, at_minus = either(strengths, before), either(before, strengths)
        contrast = now.contrast(plus, minus, x, Nudge(rule.cost, y, at_plus), Nudge(rule.cost, y, at_minus))
        moving = zip(*map(jax.tree.leaves, (parameters, rates, split_parameters(contrast)[0])), strict=True)
        leaves = [theta - rate / beta.astype(rate.dtype) * change for theta, rate, change in moving]
        changed = eqx.combine(jax.tree.unflatten(jax.tree.structure(parameters), leaves), rest)
        return split_parameters(changed.constrained())[0], after, strengths

    begin = (parameters, free.state, jnp.zeros_like(strengths))
    parameters, states, _ = jax.lax.fori_loop(0, rule.steps, advance, begin)
    ended = eqx.combine(parameters, rest)
    shown = jax.vmap(ended.read)(states, x)
    finite = jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in (shown, *jax.tree.leaves(parameters))])
    estimate = Estimate(None, cost, output, (free,), relaxations=1)
    moved = Moved(ended, cost, output, estimate.residual, estimate.unconverged)
    return moved, estimate, jnp.all(finite)


def _nudged(
    system: Substrate, solver: Solver, x: PyTree, nudge: Nudge, states: PyTree, keys: PRNGKeyArray | None
) -> PyTree:
    """The states of a batch after one relaxation by a solver."""
    relax = lambda x, n, s, k: system.relax(x, n, s, key=k, solver=solver).state
    return jax.vmap(relax, in_axes=(0, batch_axes(nudge), 0, None if keys is None else 0))(x, nudge, states, keys)


def _rates(rates: Any, parameters: PyTree) -> PyTree:
    """The learning rate of each parameter, a tree like the parameters."""
    if not isinstance(rates, Mapping):
        return jax.tree.map(lambda leaf: jnp.asarray(rates, leaf.dtype), parameters)
    try:
        chosen = match_paths(rates, parameters)
    except ValueError as error:
        raise ValueError(f"learning_rate: {error}") from error
    return jax.tree.map(lambda path, leaf: jnp.asarray(rates[path], leaf.dtype), chosen, parameters)
