"""Parameters that settle too: a control holds each of them softly, and they relax together with the states."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin, as_tree, batch_axes
from substrates.parameters import parameter_dtype, split_parameters
from substrates.solvers.backtracking import backtrack
from substrates.solvers.batching import relax_batch
from substrates.solvers.solver import FAILURES, Equilibrium, Status, max_norm

_ROUNDING = 16
"""Energies that differ by less than so many rounding errors are the same."""


class Control(eqx.Module):
    """How knobs u hold parameters theta: an energy U(u, theta)/epsilon on trees of the same structure."""

    @abc.abstractmethod
    def energy(self, knobs: PyTree, parameters: PyTree) -> Float[Array, ""]:
        """U(u, theta)/epsilon."""

    @abc.abstractmethod
    def holding(self, parameters: PyTree, force: PyTree) -> PyTree:
        """The knobs at which the control balances dE/dtheta = `force` at these parameters."""

    @abc.abstractmethod
    def yielding(self, knobs: PyTree, parameters: PyTree, force: PyTree, held: PyTree) -> PyTree:
        """Where the parameters go under a constant dE/dtheta = `force`, those that are not `held` by a limit (a tree of
        booleans, None where each yields by itself); exact for a quadratic U, else Newton's step.
        """

    def within_limits(self, system: Any) -> Any:
        """The system with its parameters where physical limits stop them: those of `constrained`, at plain distance."""
        return system.constrained()


class SpringControl(Control):
    """U/epsilon = sum_k (u_k - theta_k)^2 / (2 epsilon_k): a spring from every knob to its parameter.

    Attributes:
        epsilon: how far a parameter yields to a unit of force; one number, or a tree like the parameters.
    """

    epsilon: PyTree

    def energy(self, knobs: PyTree, parameters: PyTree) -> Float[Array, ""]:
        terms = self._map(lambda e, u, t: jnp.sum((u - t) ** 2 / (2 * e)), knobs, parameters)
        return jnp.sum(jnp.stack(jax.tree.leaves(terms)))

    def holding(self, parameters: PyTree, force: PyTree) -> PyTree:
        """u = theta + epsilon dE/dtheta."""
        return self._map(lambda e, t, f: t + e * f, parameters, force)

    def yielding(self, knobs: PyTree, parameters: PyTree, force: PyTree, held: PyTree) -> PyTree:
        """theta = u - epsilon dE/dtheta, each by itself, whatever limits hold."""
        return self._map(lambda e, u, f: u - e * f, knobs, force)

    def within_limits(self, system: Any) -> Any:
        """`nearest_physical` at these compliances, where the springs bring the parameters to rest."""
        parameters, rest = split_parameters(system)
        return system.nearest_physical(eqx.combine(self.compliance(parameters), rest))

    def compliance(self, parameters: PyTree) -> PyTree:
        """epsilon of every parameter, arrays of their shapes."""
        return self._map(lambda e, t: jnp.broadcast_to(jnp.asarray(e, t.dtype), t.shape), parameters)

    def _map(self, function: Callable, *trees: PyTree) -> PyTree:
        if jax.tree.structure(self.epsilon) == jax.tree.structure(0.0):
            return jax.tree.map(lambda *leaves: function(self.epsilon, *leaves), *trees)
        return jax.tree.map(function, self.epsilon, *trees)


class PotentialControl(Control):
    """Any control energy U(u, theta)/epsilon on flat vectors; the step it makes is Riemannian, of metric d2U/dtheta2.

    Attributes:
        potential: U, a callable of two vectors.
        epsilon: one number.

    Source: Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021.
    """

    potential: Callable[[Array, Array], Array] = eqx.field(converter=as_tree)
    epsilon: Float[Array, ""] | float

    def energy(self, knobs: PyTree, parameters: PyTree) -> Float[Array, ""]:
        return self.potential(ravel_pytree(knobs)[0], ravel_pytree(parameters)[0]) / self.epsilon

    def holding(self, parameters: PyTree, force: PyTree) -> PyTree:
        """The root u of dU/dtheta(u, theta) + epsilon dE/dtheta = 0, by Newton's method from u = theta."""
        theta, unravel = ravel_pytree(parameters)
        pull = self.epsilon * ravel_pytree(force)[0]
        balance = lambda u: jax.grad(self.potential, argnums=1)(u, theta) + pull

        def advance(carry):
            u, _, step = carry
            move = jnp.linalg.solve(jax.jacfwd(balance)(u), balance(u))
            return u - move, jnp.max(jnp.abs(move)), step + 1

        enough = _ROUNDING * jnp.finfo(theta.dtype).eps * (1 + jnp.max(jnp.abs(theta)))
        going = lambda carry: (carry[1] > enough) & (carry[2] < 50)
        first = (theta, jnp.asarray(jnp.inf, theta.dtype), jnp.zeros((), jnp.int32))
        return unravel(jax.lax.while_loop(going, advance, first)[0])

    def yielding(self, knobs: PyTree, parameters: PyTree, force: PyTree, held: PyTree) -> PyTree:
        u = ravel_pytree(knobs)[0]
        theta, unravel = ravel_pytree(parameters)
        slope = jax.grad(self.potential, argnums=1)(u, theta) + self.epsilon * ravel_pytree(force)[0]
        metric = jax.hessian(self.potential, argnums=1)(u, theta)
        free = jnp.where(ravel_pytree(held)[0], 0, jnp.ones_like(theta))
        metric = free[None] * metric * free[:, None] + jnp.diag(1 - free)
        return unravel(theta - jnp.linalg.solve(metric, free * slope))


class JointEquilibrium(eqx.Module):
    """Where parameters and states came to rest together.

    Attributes:
        system: the substrate with the parameters at rest.
        states: a batch of equilibria at those parameters.
        rounds: how often the states settled.
        status: `converged` when the parameters have stopped too.
    """

    system: Any
    states: Equilibrium
    rounds: Int[Array, ""]
    status: Status


def relax_alternately(
    system: Any,
    control: Control,
    knobs: PyTree,
    xs: PyTree,
    nudges: Nudge | Pin | None,
    starts: PyTree,
    keys: PRNGKeyArray | None,
    max_rounds: int,
) -> JointEquilibrium:
    """The minimum of U(u, theta)/epsilon + mean_b F(theta, s_b), states and parameters in turn; see `relax_jointly`.

    The states settle at fixed parameters; then the parameters yield to dF/dtheta at fixed states, in one step where F
    is linear in theta and U quadratic, by a step that is halved until the energy does not rise elsewhere. Physical
    limits are those of `Control.within_limits`; what a limit holds against the forces does not bend the steps of the
    others (Bertsekas 1982, "Projected Newton methods"). No round raises the energy. It ends when parameters at rest
    have yielded once more, by less than `rest_threshold`.
    """
    theta, rest = split_parameters(system)
    dtype = parameter_dtype(system)
    with_parameters = lambda parameters: eqx.combine(parameters, rest)
    physical = lambda parameters: split_parameters(control.within_limits(with_parameters(parameters)))[0]

    def held_by_limits(parameters: PyTree, force: PyTree) -> PyTree:
        slope = jax.tree.map(jnp.add, jax.grad(control.energy, argnums=1)(knobs, parameters), force)
        tiny = float(jnp.finfo(dtype).eps) ** 0.5 * jnp.maximum(max_norm(parameters), max_norm(knobs)).astype(dtype)
        pushed = physical(jax.tree.map(lambda p, s: p - tiny * jnp.sign(s), parameters, slope))
        return jax.tree.map(lambda p, q, s: (p == q) & (s != 0), parameters, pushed, slope)

    def yielded(parameters: PyTree, states: PyTree) -> PyTree:
        net = with_parameters(parameters)
        force = split_parameters(net.measure(states, xs, nudges))[0]
        held = None if isinstance(control, SpringControl) else held_by_limits(parameters, force)
        goal = control.yielding(knobs, parameters, force, held)
        if system.linear_in_parameters and isinstance(control, SpringControl):
            return physical(goal)

        def energy(parameters):
            net = with_parameters(parameters)
            axes = (0, 0, batch_axes(nudges))
            each = jax.vmap(lambda s, x, n: net.total_energy(s, x, n), in_axes=axes)(states, xs, nudges)
            return control.energy(knobs, parameters) + jnp.mean(each), jnp.mean(jnp.abs(each))

        along = lambda t: physical(jax.tree.map(lambda a, b: a + t * (b - a), parameters, goal))
        value, size = energy(parameters)
        slack = _ROUNDING * jnp.finfo(dtype).eps * (jnp.abs(value) + size)
        uphill = lambda _, moved: energy(moved)[0] > value + slack
        return backtrack(along, uphill, dtype)[0]

    def settled(parameters: PyTree, states: PyTree) -> Equilibrium:
        found = relax_batch(with_parameters(parameters), xs, nudges, states, keys)
        return eqx.tree_at(lambda e: e.energy, found, None)

    def going(carry):
        _, _, change, size, round_ = carry
        return (change > rest_threshold(dtype) * size) & (round_ < max_rounds)

    def advance(carry):
        parameters, found, _, size, round_ = carry
        found = settled(parameters, found.state)
        moved = yielded(parameters, found.state)
        change = _largest(jax.tree.map(jnp.subtract, moved, parameters))
        return moved, found, change, jnp.maximum(size, change), round_ + 1

    like = jax.eval_shape(settled, theta, starts)
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    first = (
        theta,
        eqx.tree_at(lambda e: e.state, empty, starts),
        jnp.asarray(jnp.inf, dtype),
        jnp.maximum(max_norm(knobs), max_norm(theta)).astype(dtype),
        jnp.zeros((), jnp.int32),
    )
    parameters, found, change, size, rounds = jax.lax.while_loop(going, advance, first)
    net = with_parameters(parameters)
    energies = jax.vmap(lambda s, x, n: net.total_energy(s, x, n), in_axes=(0, 0, batch_axes(nudges)))
    found = eqx.tree_at(lambda e: e.energy, found, energies(found.state, xs, nudges), is_leaf=lambda e: e is None)
    return JointEquilibrium(net, found, rounds, joint_status(found, change, rest_threshold(dtype) * size))


def _largest(tree: PyTree) -> Float[Array, ""]:
    """`max_norm`, matrices by halves of their rows, which compilers turn into whole-row operations."""

    def folded(leaf: Array) -> Array:
        leaf = jnp.abs(leaf)
        while leaf.ndim > 1 and leaf.shape[0] > 1:
            half = leaf.shape[0] // 2
            leaf = jnp.concatenate([jnp.maximum(leaf[:half], leaf[half : 2 * half]), leaf[2 * half :]])
        return leaf

    return max_norm(jax.tree.map(folded, tree))


def rest_threshold(dtype: Any) -> float:
    """Parameters whose largest moves by less than this part of itself in a round have come to rest."""
    return float(jnp.finfo(dtype).eps) ** 0.75


def joint_status(found: Equilibrium, change: Float[Array, ""], limit: Float[Array, ""]) -> Status:
    """The worst that happened to a state, or else whether the parameters have stopped."""
    status = Status.where(change <= limit, Status.converged, Status.out_of_steps)
    status = Status.where(jnp.isnan(change), Status.not_finite, status)
    for name in FAILURES:
        failure = getattr(Status, name)
        status = Status.where(jnp.any(found.status == failure), failure, status)
    return status
