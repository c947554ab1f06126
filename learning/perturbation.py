"""Rules of order zero: gradients from the costs of pushed parameters, or of pushed nodes."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Inexact, Int, PRNGKeyArray, PyTree

from learning.costs import SquaredError
from learning.examples import free_phase, outputs_at_start, ready_batch
from learning.reference import check_state, lagrangian_gradient
from learning.rule import Estimate, Estimator, check_positive, require_usable
from substrates import explained
from substrates.substrate import (
    Cost,
    Substrate,
    as_tree,
    check_count,
    fit_target,
    fixed,
    match_paths,
    relax_batch,
    split_parameters,
)

Step = float | Mapping[str, float]


class OrderZero(Estimator):
    """A rule that pushes all parameters along directions D_k, to and fro, and sees how the mean cost L changes:

        gradient = 1/n sum_k [L(theta + c D_k) - L(theta - c D_k)] / (2 c) D_k,    sum_k <D_k D_k'> = n 1.

    One direction serves the whole batch, as it must where examples share the parameters, and all phases of an example
    share its key (common random numbers). The free phase settles once, for the cost and the outputs; every push starts
    from its state.

    Parameters are only ever pushed to physical values, by `constrained`, and what is divided by is the distance
    between the two that they really had. At a physical limit of its own a parameter so gets a difference of one side,
    with a bias of order c in place of c^2; where limits tie parameters to each other the estimate is biased more.

    Attributes:
        step: c, a length in the unit of the parameters: one number, or a dict from the paths of parameters
            ("conductance", "coupling[0]") to numbers; the longest path that leads to a parameter counts.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` rather than learn from an equilibrium that did not converge.
    """

    draws: ClassVar[bool] = True
    """Whether directions are drawn, for which a key is needed."""

    step: Step
    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree, kw_only=True)
    strict: bool = eqx.field(static=True, default=True, kw_only=True)

    def __check_init__(self):
        if isinstance(self.step, Mapping) and not self.step:
            raise ValueError("step: wanted a positive number for each parameter, got an empty dict")
        for each in self.step.values() if isinstance(self.step, Mapping) else [self.step]:
            check_positive("step", each)

    @abc.abstractmethod
    def pushes(self, size: int) -> int:
        """How many directions are tried for so many parameters."""

    @abc.abstractmethod
    def of_each(self, size: int) -> int:
        """n: how often each of so many parameters is pushed, all directions together."""

    @abc.abstractmethod
    def direction(
        self, number: Int[Array, ""] | int, key: PRNGKeyArray | None, parameters: Float[Array, "parameters"]
    ) -> Float[Array, "parameters"]:
        """D_k of a number k from 0, for parameters in one vector."""

    def require_key(self, key: PRNGKeyArray | None) -> None:
        """Raises ValueError where directions are drawn and there is no key."""
        if self.draws and key is None:
            raise ValueError("key: wanted a key, which draws the directions, got None")

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        self.require_key(key)
        x, y = ready_batch(substrate, x, y, self.cost, key)
        estimate = _by_pushes(jax.tree.map(jnp.asarray, self), substrate, x, y, key)
        return require_usable(estimate, substrate) if self.strict else estimate


class RandomDirections(OrderZero):
    """A rule that pushes all parameters at once, along directions that are drawn.

    Attributes:
        probes: directions for each batch.
    """

    probes: eqx.AbstractVar[int]

    def __check_init__(self):
        check_count("probes", self.probes)

    def pushes(self, size: int) -> int:
        return self.probes

    def of_each(self, size: int) -> int:
        return self.probes


class SimultaneousPerturbation(RandomDirections):
    """Simultaneous perturbation: all parameters move at once by c D, with signs D = +-1 drawn at random.

        gradient = mean over probes of [L(theta + c D) - L(theta - c D)] / (2 c) D,

    two relaxations a probe whatever the number P of parameters. Its bias is of order c^2; its mean square is P times
    that of the gradient for one probe, and so falls with the number of probes alone.

    Attributes:
        step: c, see `OrderZero`, which says what happens at physical limits.
        probes: directions for each batch.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` rather than learn from an equilibrium that did not converge.

    Source: Spall 1992, "Multivariate stochastic approximation using a simultaneous perturbation gradient
    approximation"; among rules for physical systems, Momeni et al. 2024, arXiv 2406.03372.
    """

    in_short: ClassVar[str] = (
        "all parameters pushed at random; 1 + 2 probes relaxations; bias O(step^2), variance of P parameters"
    )
    usual: ClassVar[Mapping[str, Any]] = {"step": 0.01}

    probes: int = eqx.field(static=True, default=1)

    def direction(
        self, number: Int[Array, ""] | int, key: PRNGKeyArray | None, parameters: Float[Array, "parameters"]
    ) -> Float[Array, "parameters"]:
        return jax.random.rademacher(_numbered(key, number), parameters.shape, parameters.dtype)


class EvolutionStrategy(RandomDirections):
    """An evolution strategy: all parameters move at once by c D, with D normal, to and fro (antithetic pairs).

        gradient = mean over probes of [L(theta + c D) - L(theta - c D)] / (2 c) D,

    which is in the mean the exact gradient of the smoothed cost <L(theta + c D)>, whether or not L has a gradient
    itself. Limits of parameters cut the directions short; see `OrderZero`.

    Attributes:
        step: c, the standard deviation of the pushes; see `OrderZero`.
        probes: pairs for each batch.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` rather than learn from an equilibrium that did not converge.

    Source: Salimans, Ho, Chen, Sidor and Sutskever 2017, arXiv 1703.03864; Nesterov and Spokoiny 2017, "Random
    gradient-free minimization of convex functions".
    """

    in_short: ClassVar[str] = (
        "normal pushes of all parameters; 1 + 2 probes relaxations; exact for a smoothed cost, variance of P"
    )
    usual: ClassVar[Mapping[str, Any]] = {"step": 0.01}

    probes: int = eqx.field(static=True, default=8)

    def direction(
        self, number: Int[Array, ""] | int, key: PRNGKeyArray | None, parameters: Float[Array, "parameters"]
    ) -> Float[Array, "parameters"]:
        return jax.random.normal(_numbered(key, number), parameters.shape, parameters.dtype)


class FiniteDifferences(OrderZero):
    """Central differences of every parameter, one after the other.

        gradient_k = [L(theta + c e_k) - L(theta - c e_k)] / (2 c) + O(c^2),

    2 P relaxations for P parameters, and no randomness but the system's own.

    Attributes:
        step: c, see `OrderZero`, which says what happens at physical limits.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` rather than learn from an equilibrium that did not converge.

    Source: Kiefer and Wolfowitz 1952, "Stochastic estimation of the maximum of a regression function".
    """

    in_short: ClassVar[str] = "every parameter pushed in turn; 1 + 2 P relaxations for P parameters; bias O(step^2)"
    usual: ClassVar[Mapping[str, Any]] = {"step": 0.01}

    draws: ClassVar[bool] = False

    def pushes(self, size: int) -> int:
        return size

    def of_each(self, size: int) -> int:
        return 1

    def direction(
        self, number: Int[Array, ""] | int, key: PRNGKeyArray | None, parameters: Float[Array, "parameters"]
    ) -> Float[Array, "parameters"]:
        return (jnp.arange(parameters.size) == number).astype(parameters.dtype)


class Differences(eqx.Module):
    """What pushes have added up for every parameter so far; see `gradient`.

    Attributes:
        products: of the change of the cost and the distance between the two values of the parameter.
        squares: of that distance.
        asked: squares of the direction, with which the distance would be 2 c D.
    """

    products: Float[Array, "parameters"]
    squares: Float[Array, "parameters"]
    asked: Float[Array, "parameters"]

    @classmethod
    def none(cls, like: Float[Array, "parameters"]) -> Differences:
        return cls(*[jnp.zeros_like(like)] * 3)

    def add(
        self,
        change: Float[Array, ""],
        distance: Float[Array, "parameters"],
        direction: Float[Array, "parameters"],
    ) -> Differences:
        """With one push more."""
        return Differences(self.products + change * distance, self.squares + distance**2, self.asked + direction**2)

    def gradient(self, of_each: int) -> Float[Array, "parameters"]:
        """sum change distance / n, divided by the mean square distance of a unit direction; 0 where nothing moved.

        With distances of 2 c D it is sum change D / (2 c n) whatever the directions, and where each of them was cut
        short by the same part this part drops out.
        """
        unit = jnp.where(self.squares > 0, self.squares, 1)
        return self.products * self.asked / (unit * of_each)


@eqx.filter_jit
def _by_pushes(rule: OrderZero, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray | None) -> Estimate:
    size = jax.tree.leaves(x)[0].shape[0]
    keys, draw = (None, None) if key is None else (jax.random.split(key, size), jax.random.fold_in(key, size))
    y = fit_target(y, eqx.filter_eval_shape(outputs_at_start, substrate, x, keys), rule.cost, name="y", batched=True)
    parameters, rest = split_parameters(substrate)
    theta, unravel = ravel_pytree(parameters)
    lengths, count = _lengths(rule.step, parameters), rule.pushes(theta.size)

    def pushed(number: Array, sign: Array) -> Array:
        moved = eqx.combine(unravel(theta + sign * lengths * rule.direction(number, draw, theta)), rest)
        return ravel_pytree(split_parameters(moved.constrained())[0])[0]

    def phase(states: PyTree, at: Array) -> tuple[PyTree, tuple[Any, Array]]:
        # the free phase is a round like the others, for which the program of a relaxation is compiled once
        free, number, sign = at == 0, (at - 1) // 2, jnp.where(at % 2 == 1, 1, -1).astype(theta.dtype)
        system = eqx.combine(unravel(jnp.where(free, theta, pushed(number, sign))), rest)
        found = relax_batch(system, x, starts=states, keys=keys)
        costs = jax.vmap(rule.cost)(jax.vmap(system.read)(found.state, x), y)
        states = jax.tree.map(lambda new, old: jnp.where(free, new, old), found.state, states)
        return states, (found, jnp.mean(costs))

    start = jax.vmap(substrate.start, in_axes=(0, None if keys is None else 0))(x, keys)
    found, costs = jax.lax.scan(phase, start, jnp.arange(1 + 2 * count))[1]

    def add(sums: Differences, number: Array) -> tuple[Differences, None]:
        one = jnp.ones((), theta.dtype)
        change = (costs[2 * number + 1] - costs[2 * number + 2]).astype(theta.dtype)
        distance = pushed(number, one) - pushed(number, -one)
        return sums.add(change, distance, rule.direction(number, draw, theta)), None

    sums = jax.lax.scan(add, Differences.none(theta), jnp.arange(count))[0]
    free, probes = (jax.tree.map(lambda leaf, part=part: leaf[part], found) for part in (0, slice(1, None)))
    output = jax.vmap(substrate.read)(free.state, x)
    gradient = unravel(sums.gradient(rule.of_each(theta.size)))
    return Estimate(gradient, costs[0], output, (free, probes), relaxations=1 + 2 * count)


def _lengths(step: Step, parameters: PyTree) -> Float[Array, "parameters"]:
    """c of every parameter, in one vector."""
    if not isinstance(step, Mapping):
        return ravel_pytree(jax.tree.map(lambda leaf: jnp.full_like(leaf, step), parameters))[0]
    try:
        paths = match_paths(step, parameters)
    except ValueError as error:
        raise ValueError(f"step: {error}") from error
    return ravel_pytree(jax.tree.map(lambda leaf, path: jnp.full_like(leaf, step[path]), parameters, paths))[0]


class NodePerturbation(Estimator):
    """Node perturbation: random forces on all state variables at once, and what they change of the cost.

    With a force c D, D = +-1, drawn for each example and probe, the energy becomes E - c D . s, and

        e = mean over probes of [C(c D) - C(-c D)] / (2 c) D

    estimates the change of the cost with a force on each variable, with a bias of order c^2. A parameter acts on the
    cost through the forces that it exerts, which one knows in place: gradient = e . dforce/dtheta, and dC/dtheta where
    the reading has parameters. The mean square of e is n times that of what it estimates for n variables, where that
    of `SimultaneousPerturbation` grows with the number of parameters.

    This rule looks inside: it pushes every state variable and differentiates the force. Pushed systems settle by the
    generic solver, from the free state.

    Attributes:
        step: c, a force (dE/dstate).
        probes: directions for each example.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` rather than learn from an equilibrium that did not converge.

    Raises ValueError for systems with discrete states, which no force moves.

    Source: Widrow and Lehr 1990, "30 years of adaptive neural networks" (madaline rule III); Werfel, Xie and Seung
    2005, "Learning curves for stochastic gradient descent in linear feedforward networks", for the variances.
    """

    in_short: ClassVar[str] = (
        "random forces on all nodes; 1 + 2 probes relaxations; bias O(step^2), variance of n nodes"
    )
    usual: ClassVar[Mapping[str, Any]] = {"step": 0.01}

    step: float
    probes: int = eqx.field(static=True, default=1)
    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree)
    strict: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_positive("step", self.step)
        check_count("probes", self.probes)

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        if key is None:
            raise ValueError("key: wanted a key, which draws the forces, got None")
        x, y = ready_batch(substrate, x, y, self.cost, key)
        if substrate.discrete:
            raise ValueError(
                f"substrate: NodePerturbation wanted states that forces move, got {type(substrate).__name__}, whose "
                "states are discrete; push its parameters, by SimultaneousPerturbation or EvolutionStrategy; see "
                f"{explained.RULES}"
            )
        estimate = _by_forces(jax.tree.map(jnp.asarray, self), substrate, x, y, key)
        return require_usable(estimate, substrate) if self.strict else estimate


class Pushed(Substrate):
    """A substrate on whose state variables constant forces act: its energy is E - push . s.

    Attributes:
        inner: the substrate.
        push: a force on each variable, a tree like the state.
    """

    forwards: ClassVar[bool] = True

    inner: Substrate
    push: PyTree = fixed()

    @property
    def conservative(self) -> bool:
        """Whether the substrate inside has an energy."""
        return self.inner.conservative

    def energy(self, state: PyTree, x: PyTree) -> Inexact[Array, ""]:
        work = jax.tree.map(lambda p, s: jnp.sum(p * s), self.push, state)
        return self.inner.energy(state, x) - sum(jax.tree.leaves(work))

    def force(self, state: PyTree, x: PyTree) -> PyTree:
        return jax.tree.map(jnp.add, self.inner.force(state, x), self.push)

    def initial_state(self, x: PyTree) -> PyTree:
        return self.inner.initial_state(x)

    def read(self, state: PyTree, x: PyTree) -> Inexact[Array, "outputs"]:
        return self.inner.read(state, x)

    def bounds(self, x: PyTree) -> tuple[PyTree, PyTree] | None:
        return self.inner.bounds(x)

    def bound_stiffness(self, state: PyTree, x: PyTree) -> PyTree:
        return self.inner.bound_stiffness(state, x)

    def force_scale(self, state: PyTree, x: PyTree) -> PyTree:
        return jax.tree.map(lambda s, p: s + jnp.abs(p), self.inner.force_scale(state, x), self.push)


@eqx.filter_jit
def _by_forces(rule: NodePerturbation, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray) -> Estimate:
    free, output, keys = free_phase(substrate, x, key)
    check_state("NodePerturbation", substrate, free.state)
    y = fit_target(y, output, rule.cost, name="y", batched=True)
    flat = jax.vmap(lambda state: ravel_pytree(state)[0])(free.state)
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], free.state))[1]
    draw, step = jax.random.fold_in(key, len(flat)), jnp.asarray(rule.step, flat.dtype)
    directions = lambda number: jax.random.rademacher(jax.random.fold_in(draw, number), flat.shape, flat.dtype)

    def phase(at: Array) -> tuple[Any, Array]:
        sign = jnp.where(at % 2 == 0, step, -step)
        settle = lambda x, push, state, key: Pushed(substrate, unravel(push)).relax(x, None, state, key=key)
        found = jax.vmap(settle)(x, sign * directions(at // 2), free.state, keys)
        return found, jax.vmap(rule.cost)(jax.vmap(substrate.read)(found.state, x), y)

    found, costs = jax.lax.map(phase, jnp.arange(2 * rule.probes))

    def add(total: Array, number: Array) -> tuple[Array, None]:
        slope = (costs[2 * number] - costs[2 * number + 1]).astype(flat.dtype) / (2 * step * rule.probes)
        return total + slope[:, None] * directions(number), None

    felt = jax.lax.scan(add, jnp.zeros_like(flat), jnp.arange(rule.probes))[0]
    gradient = lagrangian_gradient(substrate, free.state, x, y, felt, rule.cost)
    cost = jnp.mean(jax.vmap(rule.cost)(output, y))
    return Estimate(gradient, cost, output, (free, found), relaxations=1 + 2 * rule.probes)


def _numbered(key: PRNGKeyArray | None, number: Int[Array, ""] | int) -> PRNGKeyArray:
    assert key is not None
    return jax.random.fold_in(key, number)
