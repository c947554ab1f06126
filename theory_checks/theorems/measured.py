"""How the two sides of a theorem are measured and compared."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from learning.contrastive import EquilibriumPropagation
from learning.costs import SquaredError
from learning.rule import ConvergenceError, Estimate, Estimator
from substrates.arguments import flat_too
from substrates.substrate import Cost, Equilibrium, Substrate, parameter_dtype
from theory_checks.case import flat, relative, relax
from theory_checks.orders import Order, fit_order
from theory_checks.theorems.theorem import Finding, NotApplicableError

GRADIENT_BOUND = 1e-6
"""What solvers and the terms of fourth order in beta leave of a gradient, where beta is small for the system."""

ORDER_BOUND = 0.1
"""How far a measured order may be from what theory says."""


def agreement(compared: str, measured: PyTree, predicted: PyTree, bound: float) -> Finding:
    """That two sides are equal; the error is |measured - predicted| / |predicted|, over all numbers of both."""
    one, other = flat(measured), flat(predicted)
    return Finding(compared, one, other, relative(one, other), bound)


def smaller(compared: str, measured: Any, limit: Any, size: float, bound: float) -> Finding:
    """That no number exceeds its limit; the error is the largest excess over `size`."""
    one, other = np.ravel(np.asarray(measured, float)), np.ravel(np.asarray(limit, float))
    excess = one - other
    # a comparison with NaN would let it pass
    worst = max(float(np.max(excess, initial=0.0)), 0.0) if np.all(np.isfinite(excess)) else float("nan")
    return Finding(compared, one, other, worst / size, bound)


def fitted(compared: str, found: Order, order: float) -> Finding:
    """That a fitted order is the one that theory says."""
    told = f"{compared}: order {found.power:.3f} +- {found.error_bar:.3f}"
    return Finding(told, found.power, float(order), abs(found.power - order), ORDER_BOUND, found.error_bar)


def power_law(compared: str, steps: Any, errors: Any, order: float) -> Finding:
    """That errors free of noise go as a power of a step, by `fit_order`."""
    found = fit_order(steps, errors, order, noise=0.0)
    if found is None or found.count < len(errors):
        return Finding(f"{compared}: errors that are no positive numbers", np.nan, float(order), np.nan, ORDER_BOUND)
    return fitted(compared, found, order)


def of_examples(check: Callable[..., tuple[Finding, ...]]) -> Callable[..., tuple[Finding, ...]]:
    """A check of a system at one example as a check of a batch too, called as those of all theorems are.

    It takes `(substrate, x, y, **options)`, or nothing for a system of its own. A y that the theorem does not need is
    left alone.

    Args:
        check: `(substrate=None, x=None, y=None, *, ...)`, y only where it is needed, x and y of one example.

    Raises TypeError where a system comes without x or y, or x without a system; ValueError where x and y are batches
    of different sizes.
    """
    needed = ("x", "y") if "y" in inspect.signature(check).parameters else ("x",)

    @functools.wraps(check)
    def alike(substrate: Any = None, x: Any = None, y: Any = None, **options: Any) -> tuple[Finding, ...]:
        given = {name: value for name, value in {"x": x, "y": y}.items() if name in needed}
        if substrate is None:
            if x is not None or y is not None:
                raise TypeError("substrate: wanted the system that x and y are for, got None")
            return check(**options)
        for name, value in given.items():
            if value is None:
                raise TypeError(
                    f"{name}: wanted that of one example or of a batch, got None; give none of them, and the theorem "
                    "takes a system of its own"
                )
        if not _batched(substrate, x, y):
            return check(substrate, **given, **options)
        if len({len(value) for value in given.values()}) > 1:
            raise ValueError(f"x, y: wanted the same leading batch axis, got shapes {np.shape(x)} and {np.shape(y)}")
        found = [check(substrate, **{n: v[k] for n, v in given.items()}, **options) for k in range(len(x))]
        return tuple(
            dataclasses.replace(one, compared=f"example {number}: {one.compared}")
            for number, findings in enumerate(found, 1)
            for one in findings
        )

    return alike


def _batched(substrate: Any, x: Any, y: Any) -> bool:
    shape, one = np.shape(x), getattr(substrate, "x_shape", None)
    if one is None:
        return len(shape) > 1 and np.ndim(y) != 1
    return bool(shape) and shape not in flat_too(one) and shape[1:] in flat_too(one)


def require(condition: Any, reason: str) -> None:
    """Raises NotApplicableError with a reason where a condition does not hold."""
    if not bool(condition):
        raise NotApplicableError(reason)


def require_kind(substrate: Any, kind: type | tuple[type, ...], speaks_of: str) -> None:
    """Raises NotApplicableError for a system of another kind, or one with parameters of less than 64 bits."""
    require(isinstance(substrate, kind), f"It speaks of {speaks_of}, got {type(substrate).__name__}.")
    dtype = parameter_dtype(substrate)
    require(
        dtype == jnp.float64,
        f"Its bounds are for 64 bits, the parameters are {dtype}: call jax.config.update('jax_enable_x64', True) "
        "before the system is built.",
    )


def settled(substrate: Substrate, x: PyTree, nudge: Any = None, start: PyTree | None = None) -> Equilibrium:
    """The equilibrium of one example; raises NotApplicableError where there is none."""
    found = relax(substrate, x, nudge, start, None)
    require(found.converged, f"{type(substrate).__name__} does not come to rest: {found.status}.")
    return found


def gradient(rule: Estimator, substrate: Substrate, x: PyTree, y: PyTree) -> PyTree:
    """The gradient that a rule estimates from one example; raises as `estimated` does."""
    batch = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tree)
    return estimated(rule, substrate, batch(x), batch(y)).gradient


def estimated(rule: Estimator, substrate: Substrate, xs: PyTree, ys: PyTree) -> Estimate:
    """What a rule estimates from a batch; raises NotApplicableError where it refuses the system's equilibria."""
    try:
        return rule(substrate, xs, ys)
    except ConvergenceError as error:
        raise NotApplicableError(f"{type(substrate).__name__} does not come to rest: {error}") from error


def centred_gradient(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    wanted: PyTree,
    beta: float,
    cost: Cost | None = None,
    rule: type[Estimator] = EquilibriumPropagation,
    bound: float = GRADIENT_BOUND,
    **options: Any,
) -> tuple[Finding, ...]:
    """That a centred contrast, extrapolated from beta and beta/2 to 0, is a gradient, and that its bias goes as beta^2.

    The order is left out where there is no bias to speak of.

    Args:
        x, y: the input and target of one example.
        wanted: the gradient, a tree with as many numbers as the parameters, in their order.
        rule: an estimator with a `beta` and a `cost`.
    """
    cost, betas = SquaredError() if cost is None else cost, (beta, beta / 2, beta / 4)
    found = [flat(gradient(rule(beta=b, cost=cost, **options), substrate, x, y)) for b in betas]  # type: ignore[call-arg]
    vector = flat(wanted)
    limit = agreement("the centred contrast, extrapolated to beta = 0", (4 * found[1] - found[0]) / 3, vector, bound)
    errors = [relative(one, vector) for one in found]
    if errors[0] < 100 * bound**1.5:
        return (limit,)
    return limit, power_law("the order of its bias in beta", betas, errors, 2)
