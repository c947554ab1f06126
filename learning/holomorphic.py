"""Holomorphic equilibrium propagation: the gradient as a Cauchy integral over complex nudges of finite strength."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, PRNGKeyArray, PyTree

from learning.contrastive import EquilibriumPropagation, estimate_by_contrast
from learning.costs import SquaredError
from learning.examples import free_phase, outputs_at_start, ready_batch
from learning.rule import Estimate, Estimator, check_positive, require_usable
from substrates.substrate import (
    Cost,
    Equilibrium,
    Nudge,
    NudgeRefusedError,
    Status,
    Substrate,
    as_tree,
    check_count,
    fit_target,
    relax_batch,
    split_parameters,
)

_ADVICE = (
    "The radius may leave the disc in which the equilibrium is analytic: choose a smaller one. Or give the solver more "
    "steps, or learn from them all the same with strict=False."
)


class HolomorphicEP(Estimator):
    """Holomorphic equilibrium propagation: nudges on a circle in the complex plane, whose bias falls as radius^points.

        gradient = 1/(N r) sum_k dF/dtheta(s at beta_k) exp(-2 pi i k/N),   beta_k = r exp(2 pi i k/N),   k < N,

    Cauchy's integral for the derivative at beta = 0, by the trapezoidal rule: exact but for Taylor coefficients of
    order N + 1 and higher, at any radius within which the equilibrium is analytic. One point is the one-sided
    difference of `EquilibriumPropagation` and two are the centred one; both need real nudges only. More points need a
    system that says it is `holomorphic`. Equilibria at conjugate nudges are conjugate, so that 2 + N // 2 relaxations
    serve for each example, the free one included.

    The equilibria on the circle average to the free one as long as nothing singular is inside. Where outputs miss
    that by more than 1/N of the most that a nudge moves them, as by a pole they do, the status is `unstable`: some
    nudge within the disc pushes harder than the system holds.

    A system without an energy has no dF/dtheta. There the work -(dforce/dtheta)' s(beta_k) of the force at the free
    state is measured (`measure_from`): generalised holomorphic EP, whose gradient -(dforce/dtheta)' ds/dbeta is free of
    what finite nudges err by, and keeps what a Jacobian that is not symmetric does.

    Attributes:
        radius: r, the nudging strength; finite, a large one outweighs noise.
        points: N, how many nudges stand on the circle.
        cost: a callable (output, target) -> scalar, analytic in its output.
        strict: raise `ConvergenceError` rather than learn from an equilibrium that did not converge.

    Source: Laborieux and Zenke 2022, arXiv 2209.00530; without an energy, Laborieux and Zenke 2024, arXiv 2309.02214.
    """

    in_short: ClassVar[str] = "nudges on a complex circle; 2 + points // 2 relaxations; bias O(radius^points)"
    usual: ClassVar[Mapping[str, Any]] = {"radius": "beta"}

    radius: float
    points: int = eqx.field(static=True, default=4)
    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree)
    strict: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_positive("radius", self.radius)
        check_count("points", self.points, 1)

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        x, y = ready_batch(substrate, x, y, self.cost, key)
        if self.points > 2 and not substrate.holomorphic:
            raise NudgeRefusedError(
                f"substrate: {self.points} points on a circle want states with an analytic continuation, which those "
                f"of {type(substrate).__name__} do not have: {substrate.why_not_holomorphic}; take points=2, with real "
                "nudges, or EquilibriumPropagation"
            )
        estimate = _on_a_circle(jax.tree.map(jnp.asarray, self), substrate, x, y, key)
        return require_usable(estimate, substrate, _ADVICE) if self.strict else estimate


class OscillatingEP(Estimator):
    """Equilibrium propagation by an oscillating nudge and lock-in detection: one running system, no separate phases.

    The nudge turns, beta(t) = r exp(2 pi i t/N) at the steps t = 0, 1, ... of the system's own relaxation, which never
    stops, and the gradient is read out at its frequency over the last period:

        gradient = 1/(N r) sum_t dF/dtheta(s(t)) exp(-2 pi i t/N),     output = 1/N sum_t o(t).

    It tends to that of `HolomorphicEP` as the period outlasts the relaxation; a system that lags errs by O(1/N) times
    its relaxation time in the imaginary part, which is left out, and by the square of that in the real part.

    Attributes:
        radius: r, the nudging strength.
        period: N, steps of a period, at least 3.
        periods: how many periods run; all but the last let the system come into step.
        sweeps: how many steps or sweeps of its solver the system takes at each nudge, or None for as many as it wants.
        cost: a callable (output, target) -> scalar, analytic in its output.
        strict: raise `ConvergenceError` where a step ends in failure; not to have settled is none.

    Source: Laborieux and Zenke 2022, arXiv 2209.00530.
    """

    in_short: ClassVar[str] = (
        "an oscillating nudge and lock-in; periods x period steps; bias O(1/period) of a system that lags"
    )
    usual: ClassVar[Mapping[str, Any]] = {"radius": "beta"}

    radius: float
    period: int = eqx.field(static=True, default=60)
    periods: int = eqx.field(static=True, default=2)
    sweeps: int | None = eqx.field(static=True, default=1)
    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree)
    strict: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_positive("radius", self.radius)
        check_count("period", self.period, 3)
        check_count("periods", self.periods, 1)
        if self.sweeps is not None:
            check_count("sweeps", self.sweeps, 1)

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        x, y = ready_batch(substrate, x, y, self.cost, key)
        estimate = _running(jax.tree.map(jnp.asarray, self), substrate, x, y, key)
        return require_usable(estimate, substrate, _ADVICE) if self.strict else estimate


def _circle(count: int, radius: Any, dtype: Any) -> tuple[Complex[Array, "count"], Complex[Array, "count"]]:
    """`count` nudges on a circle, the first real, and the weights of what is measured there."""
    turns = np.exp(2j * np.pi * np.arange(count) / count)
    kind = np.result_type(dtype, np.complex64)
    radius = jnp.asarray(radius, dtype).astype(kind)
    return radius * jnp.asarray(turns, kind), jnp.asarray(turns.conj() / count, kind) / radius


def cauchy_estimate(
    rule: HolomorphicEP, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray | None
) -> Estimate:
    """The estimate from complex nudges, for two points and more; lenient and not compiled."""
    free, output, keys = free_phase(substrate, x, key)
    y = fit_target(y, output, rule.cost, name="y", batched=True)
    cost = jnp.mean(jax.vmap(rule.cost)(output, y))
    nudges, weights = _circle(rule.points, rule.radius, output.dtype)
    half = rule.points // 2 + 1
    twice = jnp.asarray([1 if 2 * k % rule.points == 0 else 2 for k in range(half)], output.dtype)

    def phase(total: PyTree, point: tuple[Array, Array]) -> tuple[PyTree, Any]:
        nudge = Nudge(rule.cost, y, point[0])
        found = relax_batch(substrate, x, nudge, free.state, keys)
        moved = jax.vmap(substrate.read)(found.state, x) - output.astype(weights.dtype)
        measured = substrate.measure_from(free.state, found.state, x, nudge)
        return _gather(total, point[1], measured), (found, moved)

    still = jax.tree.map(jnp.zeros_like, split_parameters(substrate)[0])
    gradient, (circle, moved) = jax.lax.scan(
        phase, still, (nudges[:half], weights[:half] * twice.astype(weights.dtype))
    )
    largest = lambda moved: jnp.max(jnp.abs(moved).reshape(*moved.shape[:2], -1), axis=(0, 2))
    missed = largest(jnp.tensordot(twice / rule.points, jnp.real(moved), 1)[None])
    rounding = float(jnp.finfo(output.dtype).eps) ** 0.5 * jnp.max(jnp.abs(output))
    broken = missed > largest(moved) / rule.points + rounding
    judge = jax.vmap(lambda broken, status: Status.where(broken, Status.unstable, status))
    circle = dataclasses.replace(circle, status=jax.vmap(judge, in_axes=(None, 0))(broken, circle.status))
    return Estimate(gradient, cost, output, (free, circle), relaxations=1 + half)


@eqx.filter_jit
def _on_a_circle(rule: HolomorphicEP, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray | None) -> Estimate:
    if rule.points > 2:
        return cauchy_estimate(rule, substrate, x, y, key)
    real = EquilibriumPropagation(rule.radius, "positive" if rule.points == 1 else "centered", rule.cost)
    return estimate_by_contrast(real, substrate, x, y, key)


@eqx.filter_jit
def _running(rule: OscillatingEP, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray | None) -> Estimate:
    size = jax.tree.leaves(x)[0].shape[0]
    keys = None if key is None else jax.random.split(key, size)
    shown = eqx.filter_eval_shape(outputs_at_start, substrate, x, keys)
    y = fit_target(y, shown, rule.cost, name="y", batched=True)
    nudges, weights = _circle(rule.period, rule.radius, shown.dtype)
    solver = None if rule.sweeps is None else substrate.solver.limited(rule.sweeps)
    axis = None if keys is None else 0
    begin = jax.vmap(substrate.start, in_axes=(0, axis))(x, keys)

    def go_on(states: PyTree, beta: Array) -> tuple[PyTree, Equilibrium]:
        one = lambda x, t, s, k: substrate.relax(x, Nudge(rule.cost, t, beta), s, key=k, solver=solver)
        found = jax.vmap(one, in_axes=(0, 0, 0, axis))(x, y, states, keys)
        return found.state, found

    def locked_in(carry: tuple[PyTree, PyTree, Array], point: tuple[Array, Array]) -> tuple[Any, Equilibrium]:
        states, total, output = carry
        beta, weight = point
        states, found = go_on(states, beta)
        total = _gather(total, weight, substrate.measure(states, x, Nudge(rule.cost, y, beta)))
        return (states, total, output + jnp.real(jax.vmap(substrate.read)(states, x)) / rule.period), found

    # the first step, from a real state, makes it complex
    first, found = go_on(begin, nudges[0])
    warming = jnp.tile(nudges, rule.periods - 1)[1:] if rule.periods > 1 else nudges[:0]
    states, transient = jax.lax.scan(go_on, first, warming)
    still = jax.tree.map(jnp.zeros_like, split_parameters(substrate)[0])
    carry = states, still, jnp.zeros(shown.shape, shown.dtype)
    (_, gradient, output), steady = jax.lax.scan(locked_in, carry, (nudges, weights))
    cost = jnp.mean(jax.vmap(rule.cost)(output, y))
    steps = 1 + len(warming) + rule.period
    ran = (found, transient, steady) if len(warming) else (found, steady)
    return Estimate(gradient, cost, output, ran, relaxations=steps)


def _gather(total: PyTree, weight: Array, measured: PyTree) -> PyTree:
    """The total with the real part of what is measured, weighted."""
    return jax.tree.map(lambda t, m: t + jnp.real(weight * m), total, split_parameters(measured)[0])
