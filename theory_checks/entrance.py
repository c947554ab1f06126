"""From what a user gives to a case that laws and theorems measure."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from learning.costs import SquaredError
from learning.examples import as_arrays, ready_batch
from substrates.substrate import Cost, Substrate
from theory_checks.case import Case


def case_for(
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    *,
    cost: Cost | None = None,
    key: PRNGKeyArray | None = None,
    beta: float | None = None,
) -> Case:
    """The case of a system at its inputs and targets; arguments, defaults and errors are those of `check_substrate`."""
    if not isinstance(substrate, Substrate):
        raise TypeError(f"substrate: wanted a Substrate, got {type(substrate).__name__}")
    x, y = as_arrays("x", x), as_arrays("y", y)
    if not jax.tree.leaves(x) or not jax.tree.leaves(y):
        raise ValueError("x, y: wanted inputs and targets, got none")
    one_input = substrate.input_size is None or all(jnp.ndim(leaf) == 1 for leaf in jax.tree.leaves(x))
    single = one_input and jnp.ndim(jax.tree.leaves(y)[0]) == 1
    xs, ys = (jax.tree.map(lambda leaf: jnp.asarray(leaf)[None] if single else jnp.asarray(leaf), t) for t in (x, y))
    sizes = {jnp.shape(leaf)[0] if jnp.ndim(leaf) else None for leaf in jax.tree.leaves((xs, ys))}
    if len(sizes) != 1 or None in sizes:
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves((x, y))]
        raise ValueError(
            f"x, y: wanted the same leading batch axis on inputs and targets, got shapes {shapes}; "
            "for one example give y the shape (outputs,)"
        )
    key, cost = jax.random.key(0) if key is None else key, SquaredError() if cost is None else cost
    return Case(substrate, *ready_batch(substrate, xs, ys, cost, key), cost, key, beta)
