"""Jacobian homeostasis: systems without an energy made to answer as if they had one; and how near to it they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from learning.examples import ready_batch
from learning.reference import ImplicitGradient, check_state
from learning.rule import Estimate, Estimator, check_positive
from substrates.substrate import Substrate, check_count, split_parameters

MOST_AT_ONCE = 1024
"""Up to so many variables are Jacobians measured exactly, one direction after the other."""


class JacobianHomeostasis(Estimator):
    """Another rule's gradient, and that of a penalty on the antisymmetric part of the Jacobian J of the force.

        L = 1/n mean_eps [ |J eps|^2 - eps' J^2 eps ],   E[L] = (|J|_F^2 - tr J^2)/n = 2 |A|_F^2 / n,   A = (J - J')/2,

    with eps of n independent normal numbers, at the free state of each example, which is held fixed: strength dL/dtheta
    is added to the gradient. What equilibrium propagation errs by without an energy is linear in A, so that rule and
    network meet.

    This rule looks inside: it differentiates the force along directions, twice, which no experimenter can. A system
    with an energy has A = 0, and gets the gradient of the rule alone, but for rounding. The estimate has the `cost` of
    the rule, without the penalty.

    Attributes:
        rule: an estimator whose first equilibria are the free ones.
        strength: of the penalty, positive.
        probes: how many directions eps are drawn for each example.

    Raises:
        ValueError: for a call without a key, which draws the directions.
        TypeError: for states that are not real floating-point numbers.

    Source: Laborieux and Zenke 2024, arXiv 2309.02214.
    """

    in_short: ClassVar[str] = (
        "another rule with a penalty on asymmetric Jacobians, looks inside; relaxations of the rule"
    )

    rule: Estimator
    strength: float
    probes: int = eqx.field(static=True, default=5)

    def __check_init__(self):
        if not isinstance(self.rule, Estimator):
            raise TypeError(f"rule: wanted an estimator, EquilibriumPropagation, say, got {type(self.rule).__name__}")
        check_positive("strength", self.strength)
        check_count("probes", self.probes)

    @property
    def cost(self) -> Any:
        """That of the rule."""
        return cast(Any, self.rule).cost

    @property
    def strict(self) -> bool:
        """Whether the rule is."""
        return bool(getattr(self.rule, "strict", True))

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        if key is None:
            raise ValueError("key: wanted a key, which draws the directions, got None")
        found = self.rule(substrate, x, y, key=key)
        x, _ = ready_batch(substrate, x, y, self.cost, key)
        states = found.equilibria[0].state
        check_state("JacobianHomeostasis", substrate, states)
        penalty = _penalty(substrate, states, x, jax.random.fold_in(key, 0), self.probes)
        strength = jnp.asarray(self.strength, found.cost.dtype)
        add = lambda g, p: g + strength * p
        return dataclasses.replace(found, gradient=jax.tree.map(add, found.gradient, penalty))


def homeostatic_loss(
    substrate: Substrate, states: PyTree, xs: PyTree, *, key: PRNGKeyArray | None = None, probes: int = 5
) -> Float[Array, ""]:
    """L of `JacobianHomeostasis`, averaged over a batch: exact without a key, else over random directions.

    Args:
        substrate: has a force.
        states, xs: with a leading axis of examples.
        key: draws the directions.
        probes: how many of them for each example.

    Raises ValueError for an exact one of more than `MOST_AT_ONCE` variables.
    """
    size, trace, n = _moments(substrate, states, xs, key, probes)
    return jnp.mean(size - trace) / jnp.asarray(n, size.dtype)


def symmetry(
    substrate: Substrate, states: PyTree, xs: PyTree, *, key: PRNGKeyArray | None = None, probes: int = 64
) -> Float[Array, ""]:
    """|S| / (|S| + |A|) of the Jacobian of the force, S and A its symmetric and antisymmetric parts in the Frobenius
    norm, averaged over a batch: 1 where it is symmetric, 1/2 where nothing tells J_ij from -J_ij.

    Args:
        substrate, states, xs, key, probes: as of `homeostatic_loss`.
    """
    size, trace, _ = _moments(substrate, states, xs, key, probes)
    even, odd = jnp.sqrt(jnp.maximum(size + trace, 0)), jnp.sqrt(jnp.maximum(size - trace, 0))
    return jnp.mean(even / (even + odd))


class Tracking(eqx.Module):
    """What to record along training: how symmetric a system is, and how a rule's gradient aligns with the true one.

    Called with a substrate it returns numbers by name: `symmetry`, `homeostatic_loss`, `cosine` (of the angle between
    the rule's gradient and that of recurrent back-propagation at the equilibrium, `ImplicitGradient`), and `angle`, in
    degrees. Give it to `fit(observe=...)`.

    Attributes:
        rule: whose gradient is judged, an estimator.
        x, y: the examples that it is judged on, as for an estimate.
        key: draws the directions where states have more than `MOST_AT_ONCE` variables, and whatever the rule draws.
    """

    rule: Estimator
    x: PyTree
    y: PyTree
    key: PRNGKeyArray | None = None

    def __call__(self, substrate: Substrate) -> Mapping[str, float]:
        cost = cast(Any, self.rule).cost
        x, y = ready_batch(substrate, self.x, self.y, cost, self.key)
        found = self.rule(substrate, x, y, key=self.key)
        wanted = _exact(ImplicitGradient(cost, strict=False), substrate, x, y, self.key)
        states = wanted.equilibria[0].state
        size = sum(leaf[0].size for leaf in jax.tree.leaves(states))
        key = self.key if size > MOST_AT_ONCE else None
        cosine = alignment(found.gradient, wanted.gradient)
        return {
            "symmetry": float(_symmetry(substrate, states, x, key)),
            "homeostatic_loss": float(_loss(substrate, states, x, key)),
            "cosine": float(cosine),
            "angle": float(jnp.degrees(jnp.arccos(jnp.clip(cosine, -1, 1)))),
        }


def alignment(found: PyTree, wanted: PyTree) -> Float[Array, ""]:
    """The cosine of the angle between two gradients, over all parameters; 0 where one of them vanishes."""
    a, b = (ravel_pytree(split_parameters(tree)[0])[0] for tree in (found, wanted))
    size = jnp.linalg.norm(a) * jnp.linalg.norm(b)
    return jnp.sum(a * b) / jnp.where(size > 0, size, 1.0)


def _moments(
    substrate: Substrate, states: PyTree, xs: PyTree, key: PRNGKeyArray | None, probes: int
) -> tuple[Float[Array, "batch"], Float[Array, "batch"], int]:
    """|J|_F^2 and tr J^2 of every example, and the number of variables."""
    leaves = jax.tree.leaves(states)
    count, n = leaves[0].shape[0], sum(leaf[0].size for leaf in leaves)
    if key is None and n > MOST_AT_ONCE:
        raise ValueError(f"key: wanted a key, which draws directions, for {n} variables, got None")
    keys = None if key is None else jax.random.split(key, count)

    def one(state: PyTree, x: PyTree, key: PRNGKeyArray | None) -> tuple[Array, Array]:
        flat, unravel = ravel_pytree(state)
        product = jax.linearize(lambda s: ravel_pytree(substrate.force(unravel(s), x))[0], flat)[1]
        random = lambda key: jax.random.normal(key, (probes, n), flat.dtype) / probes**0.5
        directions = jnp.eye(n, dtype=flat.dtype) if key is None else random(key)
        pushed = jax.vmap(product)(directions)
        return jnp.sum(pushed**2), jnp.sum(directions * jax.vmap(product)(pushed))

    size, trace = jax.vmap(one, in_axes=(0, 0, None if key is None else 0))(states, xs, keys)
    return size, trace, n


_exact = eqx.filter_jit(lambda rule, system, x, y, key: rule(system, x, y, key=key))
_loss = eqx.filter_jit(lambda system, states, xs, key: homeostatic_loss(system, states, xs, key=key))
_symmetry = eqx.filter_jit(lambda system, states, xs, key: symmetry(system, states, xs, key=key))


@eqx.filter_jit
def _penalty(substrate: Substrate, states: PyTree, xs: PyTree, key: PRNGKeyArray, probes: int) -> PyTree:
    parameters, rest = split_parameters(substrate)
    loss = lambda parameters: homeostatic_loss(eqx.combine(parameters, rest), states, xs, key=key, probes=probes)
    return jax.grad(loss)(parameters)
