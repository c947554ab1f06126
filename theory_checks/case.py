"""A case for the laws: a substrate at its inputs, with all that the laws measure on it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from learning.contrastive import EquilibriumPropagation, estimate_by_contrast
from learning.examples import outputs_at_start
from learning.reference import response_gradient
from substrates.nudge import batch_axes
from substrates.solvers.solver import default_tolerance, tolerance
from substrates.substrate import (
    Cost,
    Equilibrium,
    Nudge,
    Substrate,
    as_tree,
    fit_target,
    parameter_dtype,
    relax_phases,
    split_parameters,
    takes_own_targets,
)
from substrates.wrapper import overrides

MOST_STATE_VARIABLES = 2000
MOST_STEPS = 10_000


def on_host(tree: PyTree) -> PyTree:
    """A tree with numpy arrays, on which arithmetic compiles nothing."""
    plain = lambda leaf: eqx.is_array(leaf) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda leaf: np.asarray(leaf) if plain(leaf) else leaf, tree)


@functools.cache
def _in_a_hurry() -> dict[str, Any]:
    """The options with which the compiler is soonest done."""
    plain: dict[str, Any] = {"xla_backend_optimization_level": 0}
    sooner: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options=sooner)
    except jax.errors.JaxRuntimeError:  # not every version of the compiler has it
        return plain
    return plain | sooner


def compiled(function: Callable) -> Callable:
    """The function compiled in a hurry, for it runs a few times only; its results on the host."""
    quick = functools.cache(lambda: eqx.filter_jit(function, compiler_options=_in_a_hurry()))  # type: ignore[call-overload]
    return functools.wraps(function)(lambda *arguments: on_host(quick()(*arguments)))


class Probe(eqx.Module):
    """C = weight * cost(output, target) + <direction, output>: one compiled experiment serves every nudge."""

    cost: Cost = eqx.field(converter=as_tree)
    weight: Float[Array, ""]
    direction: Float[Array, "outputs"]

    @property
    def own_targets(self) -> bool:
        return takes_own_targets(self.cost)

    def __call__(self, output, target):
        return self.weight * self.cost(output, target) + jnp.sum(self.direction * output)


@eqx.filter_jit
def relax(substrate: Substrate, x: PyTree, nudge: Any, start: PyTree | None, key: PRNGKeyArray | None) -> Equilibrium:
    """The substrate's relaxation of one example, compiled."""
    return substrate.relax(x, nudge, start, key=key)


_relax_phases = compiled(relax_phases)


@compiled
def _relax_free(substrate: Substrate, xs: PyTree, keys: PRNGKeyArray) -> Equilibrium:
    return jax.vmap(lambda x, key: substrate.relax(x, key=key))(xs, keys)


@compiled
def _relax_one(substrate: Substrate, x: PyTree, start: PyTree | None, key: PRNGKeyArray) -> Equilibrium:
    return substrate.relax(x, None, start, key=key)


@compiled
def _estimate(rule: EquilibriumPropagation, substrate: Substrate, xs: PyTree, ys: PyTree, found: Equilibrium) -> PyTree:
    return estimate_by_contrast(rule, substrate, xs, ys, None, lambda *_: found).gradient


@compiled
def starts(substrate: Substrate, xs: PyTree, keys: PRNGKeyArray) -> PyTree:
    """Where the free phase of each example starts."""
    return jax.vmap(substrate.start)(xs, keys)


@compiled
def relax_in_turn(substrate: Substrate, xs: PyTree, nudges: Any, starts: PyTree | None, keys: PRNGKeyArray):
    """The equilibria of a batch, one after the other, which compiles sooner: for what is asked only once."""

    def one(example):
        x, target, start, key = example
        nudge = None if nudges is None else dataclasses.replace(nudges, target=target)
        return substrate.relax(x, nudge, start, key=key)

    return jax.lax.map(one, (xs, None if nudges is None else nudges.target, starts, keys))


@compiled
def _bounds(substrate: Substrate, xs: PyTree) -> Any:
    return jax.vmap(substrate.bounds)(xs)


@compiled
def measure(substrate: Substrate, states: PyTree, xs: PyTree, nudges: Nudge | None = None) -> PyTree:
    """The substrate's measure, compiled."""
    return substrate.measure(states, xs, nudges)


@compiled
def contrast(substrate: Substrate, plus: PyTree, minus: PyTree, xs: PyTree, nudges_plus=None, nudges_minus=None):
    """The substrate's contrast, compiled."""
    return substrate.contrast(plus, minus, xs, nudges_plus, nudges_minus)


@compiled
def total_energies(substrate: Substrate, states: PyTree, xs: PyTree, nudges: Nudge | None = None) -> Array:
    """F = E + beta C of each example, shape (batch,)."""
    one = lambda s, x, n: substrate.total_energy(s, x, n)
    return jax.vmap(one, in_axes=(0, 0, batch_axes(nudges)))(states, xs, nudges)


@compiled
def outputs(substrate: Substrate, states: PyTree, xs: PyTree) -> Array:
    """What each example shows, shape (batch, outputs)."""
    return jax.vmap(substrate.read)(states, xs)


@compiled
def costs(cost: Cost, shown: Array, ys: PyTree) -> Array:
    """The cost of each example, shape (batch,)."""
    return jax.vmap(cost)(shown, ys)


@compiled
def _slopes_of_cost(cost: Cost, shown: Array, ys: PyTree) -> Array:
    return jax.vmap(jax.grad(cost))(shown, ys)


@compiled
def limits(substrate: Substrate, states: PyTree, xs: PyTree, nudges: Nudge | None) -> Array:
    """The residual at which the contract counts each example as converged, shape (batch,)."""
    one = lambda s, x, n: tolerance(substrate, s, x, n)
    return jax.vmap(one, in_axes=(0, 0, batch_axes(nudges)))(states, xs, nudges)


exact_gradient = compiled(functools.partial(response_gradient, transpose=True))
"""The gradient by the transposed response, and for each example whether it exists; compiled."""

vector_field_gradient = compiled(functools.partial(response_gradient, transpose=False))
"""What nudges measure in a system without an energy, likewise."""


@compiled
def _natural_strengths(substrate, states, xs, ys, cost):
    def one(state, x, y):
        flat, unravel = ravel_pytree(state)
        root = lambda s: ravel_pytree(substrate.stationarity(unravel(s), x))[0]
        read = lambda s: substrate.read(unravel(s), x)
        output, transpose = jax.vjp(read, flat)
        pull = jax.grad(cost)(output, y)
        moved = jnp.linalg.lstsq(jax.jacfwd(root)(flat), transpose(pull)[0])[0]
        compliance = jnp.linalg.norm(jax.jvp(read, (flat,), (moved,))[1]) / jnp.linalg.norm(pull)
        room = (1 + jnp.max(jnp.abs(flat))) / jnp.max(jnp.abs(moved))
        return jnp.minimum(1 / compliance, room)

    return jax.lax.map(lambda example: one(*example), (states, xs, ys))


class Case:
    """A substrate with its inputs, targets, free equilibria and a natural nudging strength, for the laws to try.

    Attributes:
        beta: a strength at which a nudge moves the outputs about as far as they move themselves, divided by four.
        bounds: None, or those of every example.
        discrete: whether the substrate says that its states are.
        smooth: whether the free equilibria respond smoothly to a nudge.
    """

    def __init__(self, substrate: Substrate, xs: PyTree, ys: PyTree, cost: Cost, key: PRNGKeyArray, beta: float | None):
        self.substrate, self.xs, self.cost, self.key = substrate, xs, cost, key
        self.size = jax.tree.leaves(xs)[0].shape[0]
        self.dtype = parameter_dtype(substrate)
        self.epsilon = float(jnp.finfo(self.dtype).eps)
        self.resolution = 30 * default_tolerance(self.dtype) ** (2 / 3)
        self.keys = jax.random.split(jax.random.fold_in(key, 0), self.size)
        self.own_stationarity = overrides(substrate, "stationarity")
        self.own_residual = overrides(substrate, "residual")
        self.own_relaxation = overrides(substrate, "relax")
        shown = eqx.filter_eval_shape(outputs_at_start, substrate, xs, self.keys)
        self.ys = fit_target(ys, shown, cost, name="y", batched=True)
        self.bare = Probe(cost, jnp.ones((), self.dtype), jnp.zeros(shown.shape[1], self.dtype))
        self.free = self.settle()
        variables = sum(leaf.size for leaf in jax.tree.leaves(self.free.state)) // self.size
        if variables > MOST_STATE_VARIABLES:
            raise ValueError(
                f"substrate: wanted at most {MOST_STATE_VARIABLES} state variables, which the kit factorises, got "
                f"{variables}; check a smaller system of the same class"
            )
        self.variables = variables
        inexact = all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(self.free.state))
        self.shown = outputs(substrate, self.free.state, xs)
        self.reference, self.smooth = None, False
        if inexact:
            gradient = exact_gradient if substrate.conservative else vector_field_gradient
            self.reference, exists = gradient(substrate, self.free.state, xs, self.ys, cost)
            self.smooth = bool(np.all(exists))
        self.discrete = substrate.discrete
        self.bounds = _bounds(substrate, xs)
        if self.bounds is not None and not np.all(flat(self.bounds[0]) <= flat(self.bounds[1])):
            raise ValueError(
                f"bounds: wanted lower bounds that are not above the upper ones, from "
                f"{type(substrate).__name__}.bounds, got some that are, or NaN; give (lower, upper), in this order"
            )
        self.beta = self._strength() if beta is None else beta

    def _strength(self) -> float:
        if not self.smooth:
            return 0.5
        strengths = _natural_strengths(self.substrate, self.free.state, self.xs, self.ys, self.cost)
        strengths = strengths[np.isfinite(strengths) & (strengths > 0)]
        return float(np.min(strengths)) / 4 if strengths.size else 0.25

    def nudge(self, beta: float, *, weight: float = 1.0, direction: Array | None = None) -> Nudge:
        """beta * (weight * cost + <direction, output>) on every example."""
        direction = self.bare.direction if direction is None else direction
        return Nudge(
            Probe(self.cost, jnp.asarray(weight, self.dtype), direction), self.ys, jnp.asarray(beta, self.dtype)
        )

    def settle(self, nudge: Nudge | None = None, substrate: Substrate | None = None) -> Equilibrium:
        """The equilibria under a nudge, from the free states; without one the free equilibria.

        By the program that the centred rule compiles: three phases, the first free. Where the class relaxes in a way of
        its own, it is left alone with its free phase.
        """
        system = self.substrate if substrate is None else substrate
        if nudge is None and self.own_relaxation:
            return _relax_free(system, self.xs, self.keys)
        nudge = self.nudge(0.0) if nudge is None else nudge
        return jax.tree.map(lambda leaf: leaf[1], self._phases(system, nudge, nudge.beta, nudge.beta))

    def _phases(self, system: Substrate, nudge: Nudge, *strengths: Any) -> Equilibrium:
        beta = jnp.asarray(np.asarray([0.0, *strengths]), self.dtype)
        return _relax_phases(system, self.xs, dataclasses.replace(nudge, beta=beta), self.keys)

    def propagate(self, beta: float, *, weight: float = 1.0) -> PyTree:
        """The centred estimate of equilibrium propagation itself, with a cost multiplied by `weight`."""
        nudge = self.nudge(beta, weight=weight)
        rule = EquilibriumPropagation(nudge.beta, "centered", nudge.cost, strict=False)  # type: ignore[arg-type]
        return _estimate(rule, self.substrate, self.xs, self.ys, self._phases(self.substrate, nudge, beta, -beta))

    def propagate_one_sided(self, beta: float) -> PyTree:
        """The one-sided estimate, the contrast with the free states over beta, of either sign: by programs that other
        laws compile."""
        nudge = self.nudge(beta)
        found = contrast(self.substrate, self.settle(nudge).state, self.free.state, self.xs, nudge, self.nudge(0.0))
        return jax.tree.map(lambda leaf: leaf / np.asarray(beta, leaf.dtype), found)

    def relax_alone(self, index: int, start: PyTree | None = None, count: int | None = None) -> Equilibrium:
        """One example relaxed by itself: by one program for all starts and counts, where its solver counts steps.

        Raises TypeError where a number of steps is asked of a solver that counts none.
        """
        x, key = jax.tree.map(jnp.asarray, self.example(self.xs, index)), self.keys[index]
        if self.own_relaxation:
            start = None if start is None else jax.tree.map(jnp.asarray, start)
            return _relax_one(self.substrate, x, start, key)
        start = self.example(starts(self.substrate, self.xs, self.keys), index) if start is None else start
        start = jax.tree.map(jnp.asarray, start)
        return on_host(self.substrate.relax(x, start=start, key=key, solver=self._limited(count)))

    def _limited(self, count: int | None) -> Any:
        try:
            return self.substrate.solver.limited(MOST_STEPS if count is None else count)
        except TypeError:
            if count is not None:
                raise
            return self.substrate.solver

    @functools.cached_property
    def pull(self) -> float:
        """The largest slope of the cost in an output, at the free states."""
        return float(np.max(np.abs(_slopes_of_cost(self.cost, self.shown, self.ys)), initial=0.0))

    def costs(self, states: PyTree) -> Array:
        """The cost of each example at given states."""
        return costs(self.cost, outputs(self.substrate, states, self.xs), self.ys)

    def mean_cost(self, substrate: Substrate) -> float:
        """The mean cost of the free outputs of a system, settled afresh."""
        shown = outputs(substrate, self.settle(None, substrate).state, self.xs)
        return float(np.mean(costs(self.cost, shown, self.ys)))

    def example(self, tree: PyTree, index: int | slice) -> PyTree:
        """One example of a batched tree, or several; on the host."""
        return jax.tree.map(lambda leaf: leaf[index], on_host(tree))

    def draw(self, seed: int) -> np.random.Generator:
        """A generator of its own for each seed."""
        return np.random.default_rng([*np.ravel(jax.random.key_data(self.key)).tolist(), seed])

    def nearby(self, seed: int, distance: float = 0.1) -> PyTree:
        """States near the free ones and within bounds, displaced at random by `distance` of their own size."""
        draw = self.draw(seed)
        moved = lambda s: s + (distance * _size(s) * draw.normal(size=s.shape)).astype(s.dtype)
        states = jax.tree.map(moved, self.free.state)
        return states if self.bounds is None else jax.tree.map(np.clip, states, *self.bounds)

    def direction(self, seed: int) -> PyTree:
        """A random direction of the trainable parameters, each array of the size of the array that it moves."""
        draw = self.draw(seed)
        towards = lambda p: (_size(p) * draw.normal(size=p.shape)).astype(p.dtype)
        return jax.tree.map(towards, on_host(split_parameters(self.substrate)[0]))

    def shifted(self, direction: PyTree, step: float) -> Substrate:
        """The substrate with its parameters moved by step * direction."""
        parameters, rest = split_parameters(self.substrate)
        return eqx.combine(
            jax.tree.map(lambda p, d: jnp.asarray(np.asarray(p) + (step * d).astype(d.dtype)), parameters, direction),
            rest,
        )


def _size(leaf: np.ndarray) -> float:
    return max(float(np.max(np.abs(leaf), initial=0.0)), 0.1)


def flat(tree: PyTree) -> np.ndarray:
    """All numbers of a tree as one vector."""
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(tree)]
    return np.concatenate(leaves) if leaves else np.zeros(0)


def inner_product(first: PyTree, second: PyTree) -> float:
    """The sum of the products of two trees, leaf by leaf."""
    return float(np.vdot(flat(first), flat(second)))


def relative(found: PyTree, wanted: PyTree) -> float:
    """|found - wanted| / |wanted|, in the 2-norm over all numbers."""
    size = np.linalg.norm(flat(wanted))
    return float(np.linalg.norm(flat(found) - flat(wanted)) / (size if size > 0 else 1.0))


def larger(first: float, second: Any) -> float:
    """The larger of two numbers, NaN if one of them is: `max` may pass over it."""
    return float(np.maximum(first, second))


def worst_leaf(found: PyTree, wanted: PyTree) -> float:
    """The largest max-norm of found - wanted over that of wanted, array by array."""
    largest = lambda leaf: float(np.max(np.abs(np.asarray(leaf)), initial=0.0))
    top = max((largest(w) for w in jax.tree.leaves(wanted)), default=0.0)
    worst = 0.0
    for f, w in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        size, gap = max(largest(w), 1e-3 * top), largest(np.asarray(f) - np.asarray(w))
        worst = larger(worst, gap / size if size > 0 else gap)
    return worst
