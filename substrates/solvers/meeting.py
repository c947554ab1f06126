"""What meets at each variable of a system of which only the sum of its forces is known."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

PROBES = 16
"""So many random directions stand for all, where there are more variables."""

Field = Callable[[Inexact[Array, " n"]], Inexact[Array, " n"]]


def meeting_forces(force: Field, state: Inexact[Array, " n"], size: Float[Array, " n"]) -> Float[Array, " n"]:
    """The sizes of the forces that meet at each variable: |f_i + sum_j J_ij s_j| and the |J_ij| size_j, J = df/ds.

    For a quadratic energy 1/2 s'Hs - b's they are |b_i| and |H_ij| size_j: what is constant in the force, and what
    answers to each variable. `size` says how large the variables are.
    """
    value, towards = jax.jvp(force, (state,), (state,))
    return jnp.abs(value + towards) + row_sizes(force, state, size)


def row_sizes(force: Field, state: Inexact[Array, " n"], size: Float[Array, " n"]) -> Float[Array, " n"]:
    """sum_j |J_ij| size_j of every variable i, J = df/ds, by products with J alone.

    Exact up to 16 variables; for more the mean of |sum_j +- J_ij size_j| over random signs, which is at least the root
    of half the sum of the squares (Khintchine) and at most the sum.
    """
    along = lambda direction: jnp.abs(jax.jvp(force, (state,), (direction,))[1])
    few = state.size <= PROBES
    signs = np.eye(state.size) if few else np.random.default_rng(0).choice([-1.0, 1.0], (PROBES, state.size))
    sizes = jax.vmap(along)((jnp.asarray(signs, size.dtype) * size).astype(state.dtype))
    return jnp.sum(sizes, axis=0) if few else jnp.mean(sizes, axis=0)
