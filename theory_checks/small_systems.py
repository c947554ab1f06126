"""A small system of any kind, with inputs and targets that fit it: what checks are run on at a prompt."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from learning.catalogue import build
from learning.costs import CrossEntropy
from substrates.substrate import Cost, Equilibrium, Substrate, parameter_dtype, relax_batch
from theory_checks.ranges import ranges

HIDDEN = (4,)
"""Hidden sizes, where a kind takes them."""


def small_system(
    kind: type[Substrate],
    n_inputs: int = 2,
    n_outputs: int = 2,
    *,
    sizes: tuple[int, ...] | None = None,
    key: PRNGKeyArray,
) -> Substrate:
    """What `for_task` of a class builds, as small as it lets; without one, what the class builds without arguments.

    Args:
        kind: a class of substrates.
        n_inputs, n_outputs, sizes, key: as of `for_task`; without sizes 4 hidden, or the class's own where those are
            too few.

    Raises:
        TypeError: the class has no `for_task` and wants arguments.
        ValueError: as `for_task`.
    """
    if getattr(kind.for_task, "__func__", None) is Substrate.for_task.__func__:
        return kind()
    try:
        return build(kind, n_inputs, n_outputs, sizes=sizes or HIDDEN, key=key)
    except ValueError:
        if sizes is not None:
            raise
        return build(kind, n_inputs, n_outputs, sizes=None, key=key)


def small_batch(
    system: Substrate, count: int = 2, *, n_inputs: int = 2, cost: Cost | None = None, key: PRNGKeyArray
) -> tuple[Float[Array, "batch ..."], Float[Array, "batch outputs"]]:
    """Inputs within the ranges of a system, and targets within its reach where it does not rest.

    Args:
        system: which is settled once, to see its outputs.
        count: of examples.
        n_inputs: numbers in x, where the system does not say.
        cost: the targets of cross-entropy are classes.
        key: draws inputs, and whatever a relaxation draws.
    """
    draw, relax = jax.random.split(key)
    limits = ranges(system)
    shape = (count, *((n_inputs,) if system.x_shape is None else system.x_shape))
    if limits.discrete:
        x = jax.random.rademacher(draw, shape, parameter_dtype(system))
    else:
        lower, upper = limits.inputs
        x = jax.random.uniform(draw, shape, parameter_dtype(system), lower, upper) / 2 + (lower + upper) / 4
    free: Equilibrium = relax_batch(system, x, keys=jax.random.split(relax, count))
    shown = np.asarray(jax.vmap(system.read)(free.state, x))
    if isinstance(cost, CrossEntropy):
        return x, jnp.eye(shown.shape[1], dtype=x.dtype)[np.arange(count) % shown.shape[1]]
    return x, jnp.asarray(0.9 * shown + 0.05, shown.dtype)
