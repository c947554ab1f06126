"""A case for the laws: a substrate at its inputs, with all that the laws measure on it."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, PyTree

from learning.contrastive import EquilibriumPropagation, Variant, estimate_by_contrast
from learning.reference import response_gradient
from substrates.nudge import batch_axes
from substrates.solvers.solver import default_tolerance, tolerance
from substrates.substrate import (
    Cost,
    Equilibrium,
    Nudge,
    Substrate,
    fit_target,
    parameter_dtype,
    relax_batch,
    split_parameters,
    takes_own_targets,
)
from substrates.wrapper import Wrapper, overrides

MOST_STATE_VARIABLES = 2000


class Probe(eqx.Module):
    """C = weight * cost(output, target) + <direction, output>: one compiled experiment serves every nudge."""

    cost: Cost
    weight: Float[Array, ""]
    direction: Float[Array, "outputs"]

    @property
    def own_targets(self) -> bool:
        return takes_own_targets(self.cost)

    def __call__(self, output, target):
        return self.weight * self.cost(output, target) + jnp.sum(self.direction * output)


class _Compiled(Wrapper):
    """A substrate whose relaxations and contrasts are compiled once, so that a rule can be run on it many times."""

    inner: Substrate

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        return relax(self.inner, x, nudge, start, key)

    def contrast(self, plus, minus, xs, nudges_plus=None, nudges_minus=None):
        return self.outside(contrast(self.inner, plus, minus, xs, nudges_plus, nudges_minus))


@eqx.filter_jit
def relax(substrate: Substrate, x: PyTree, nudge: Any, start: PyTree | None, key: PRNGKeyArray | None) -> Equilibrium:
    """The substrate's relaxation of one example, compiled."""
    return substrate.relax(x, nudge, start, key=key)


@eqx.filter_jit
def measure(substrate: Substrate, states: PyTree, xs: PyTree, nudges: Nudge | None = None) -> PyTree:
    """The substrate's measure, compiled."""
    return substrate.measure(states, xs, nudges)


@eqx.filter_jit
def contrast(substrate: Substrate, plus: PyTree, minus: PyTree, xs: PyTree, nudges_plus=None, nudges_minus=None):
    """The substrate's contrast, compiled."""
    return substrate.contrast(plus, minus, xs, nudges_plus, nudges_minus)


@eqx.filter_jit
def total_energies(substrate: Substrate, states: PyTree, xs: PyTree, nudges: Nudge | None = None) -> Array:
    """F = E + beta C of each example, shape (batch,)."""
    one = lambda s, x, n: substrate.total_energy(s, x, n)
    return jax.vmap(one, in_axes=(0, 0, batch_axes(nudges)))(states, xs, nudges)


@eqx.filter_jit
def outputs(substrate: Substrate, states: PyTree, xs: PyTree) -> Array:
    """What each example shows, shape (batch, outputs)."""
    return jax.vmap(substrate.read)(states, xs)


@eqx.filter_jit
def costs(cost: Cost, shown: Array, ys: PyTree) -> Array:
    """The cost of each example, shape (batch,)."""
    return jax.vmap(cost)(shown, ys)


@eqx.filter_jit
def limits(substrate: Substrate, states: PyTree, xs: PyTree, nudges: Nudge | None) -> Array:
    """The residual at which the contract counts each example as converged, shape (batch,)."""
    one = lambda s, x, n: tolerance(substrate, s, x, n)
    return jax.vmap(one, in_axes=(0, 0, batch_axes(nudges)))(states, xs, nudges)


@eqx.filter_jit
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
        self.free = relax_batch(_Compiled(substrate), xs, keys=self.keys)
        variables = sum(leaf.size for leaf in jax.tree.leaves(self.free.state)) // self.size
        if variables > MOST_STATE_VARIABLES:
            raise ValueError(
                f"substrate: wanted at most {MOST_STATE_VARIABLES} state variables, which the kit factorises, got "
                f"{variables}; check a smaller system of the same class"
            )
        self.variables = variables
        self.own_stationarity = overrides(substrate, "stationarity")
        self.own_residual = overrides(substrate, "residual")
        self.own_relaxation = overrides(substrate, "relax")
        inexact = all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(self.free.state))
        self.shown = outputs(substrate, self.free.state, xs)
        self.ys = ys = fit_target(ys, self.shown, cost, name="y", batched=True)
        self.bare = Probe(cost, jnp.ones((), self.dtype), jnp.zeros(self.shown.shape[1], self.dtype))
        self.reference, self.smooth = None, False
        if inexact:
            transpose = substrate.conservative
            self.reference, exists = eqx.filter_jit(response_gradient)(
                substrate, self.free.state, xs, ys, cost, transpose=transpose
            )
            self.smooth = bool(jnp.all(exists))
        self.discrete = substrate.discrete
        self.beta = self._strength() if beta is None else beta

    def _strength(self) -> float:
        if not self.smooth:
            return 0.5
        strengths = _natural_strengths(self.substrate, self.free.state, self.xs, self.ys, self.cost)
        strengths = strengths[jnp.isfinite(strengths) & (strengths > 0)]
        return float(jnp.min(strengths)) / 4 if strengths.size else 0.25

    def nudge(self, beta: float, *, weight: float = 1.0, direction: Array | None = None) -> Nudge:
        """beta * (weight * cost + <direction, output>) on every example."""
        direction = self.bare.direction if direction is None else direction
        return Nudge(
            Probe(self.cost, jnp.asarray(weight, self.dtype), direction), self.ys, jnp.asarray(beta, self.dtype)
        )

    def settle(self, nudge: Nudge | None = None, substrate: Substrate | None = None) -> Equilibrium:
        """The equilibria under a nudge, from the free states."""
        substrate = self.substrate if substrate is None else substrate
        return relax_batch(_Compiled(substrate), self.xs, nudge, self.free.state, self.keys)

    def propagate(self, variant: Variant, beta: float, *, weight: float = 1.0) -> PyTree:
        """The gradient that equilibrium propagation itself estimates, with a cost multiplied by `weight`."""
        cost = Probe(self.cost, jnp.asarray(weight, self.dtype), self.bare.direction)
        rule = EquilibriumPropagation(jnp.asarray(beta, self.dtype), variant, cost, strict=False)  # type: ignore[arg-type]
        return estimate_by_contrast(rule, _Compiled(self.substrate), self.xs, self.ys, self.key).gradient.inner

    def costs(self, states: PyTree) -> Array:
        """The cost of each example at given states."""
        return costs(self.cost, outputs(self.substrate, states, self.xs), self.ys)

    def nearby(self, seed: int, distance: float = 0.1) -> PyTree:
        """States near the free ones and within bounds, displaced at random by `distance` of their own size."""
        key = jax.random.fold_in(self.key, seed)
        leaves, structure = jax.tree.flatten(self.free.state)
        keys = jax.random.split(key, len(leaves))
        size = lambda leaf: jnp.maximum(jnp.max(jnp.abs(leaf), initial=0.0), 0.1)
        moved = [
            s + distance * size(s) * jax.random.normal(k, s.shape, s.dtype) for s, k in zip(leaves, keys, strict=True)
        ]
        states = structure.unflatten(moved)
        bounds = jax.vmap(self.substrate.bounds)(self.xs)
        return states if bounds is None else jax.tree.map(jnp.clip, states, *bounds)

    def direction(self, seed: int) -> PyTree:
        """A random direction of the trainable parameters, each array of the size of the array that it moves."""
        parameters, _ = split_parameters(self.substrate)
        leaves, structure = jax.tree.flatten(parameters)
        keys = jax.random.split(jax.random.fold_in(self.key, seed), max(len(leaves), 1))
        size = lambda leaf: jnp.maximum(jnp.max(jnp.abs(leaf), initial=0.0), 0.1)
        return structure.unflatten(
            [size(p) * jax.random.normal(k, p.shape, p.dtype) for p, k in zip(leaves, keys, strict=False)]
        )

    def shifted(self, direction: PyTree, step: float) -> Substrate:
        """The substrate with its parameters moved by step * direction."""
        parameters, rest = split_parameters(self.substrate)
        return eqx.combine(jax.tree.map(lambda p, d: p + step * d, parameters, direction), rest)


def flat(tree: PyTree) -> Inexact[Array, " n"]:
    """All numbers of a tree as one vector."""
    return ravel_pytree(tree)[0]


def inner_product(first: PyTree, second: PyTree) -> Any:
    """The sum of the products of two trees, leaf by leaf."""
    return jnp.vdot(flat(first), flat(second))


def relative(found: PyTree, wanted: PyTree) -> float:
    """|found - wanted| / |wanted|, in the 2-norm over all numbers."""
    size = jnp.linalg.norm(flat(wanted))
    return float(jnp.linalg.norm(flat(found) - flat(wanted)) / jnp.where(size > 0, size, 1.0))


def worst_leaf(found: PyTree, wanted: PyTree) -> float:
    """The largest max-norm of found - wanted over that of wanted, array by array."""
    top = max((float(jnp.max(jnp.abs(w), initial=0.0)) for w in jax.tree.leaves(wanted)), default=0.0)
    worst = 0.0
    for f, w in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        size = max(float(jnp.max(jnp.abs(w), initial=0.0)), 1e-3 * top)
        gap = float(jnp.max(jnp.abs(f - w), initial=0.0))
        worst = max(worst, gap / size if size > 0 else gap)
        if gap != gap:
            return gap
    return worst
