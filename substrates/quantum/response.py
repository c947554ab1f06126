"""How a ground state responds to operators added to its Hamiltonian."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def ground_state_response(substrate: Any, state: PyTree, x: PyTree) -> Float[Array, "outputs outputs"]:
    """-2 <psi|O_k (H - E)^-1 O_l|psi> outside psi: d<O_k>/dlambda_l for H + sum_l lambda_l O_l."""
    norm = jnp.sqrt(jnp.vdot(state, state))
    state = state / norm
    ray = substrate.same_ray(state)
    operator = substrate.hamiltonian(x)
    energy = jnp.vdot(state, operator(state))

    def outside(vector):
        for unit in ray:
            vector -= jnp.vdot(unit, vector) * unit
        return vector

    shifted = lambda vector: outside(operator(outside(vector)) - energy * outside(vector))
    slopes, transpose = jax.vjp(substrate.means, state)
    # d<O_k> = 2 <psi|O_k|dpsi>, and the slope of a mean is 2 O_k psi
    pushed = jax.vmap(lambda e: outside(transpose(e)[0]))(jnp.eye(slopes.size, dtype=slopes.dtype))
    moved = jax.lax.map(lambda push: jax.scipy.sparse.linalg.cg(shifted, -push / 2, tol=1e-12, maxiter=2000)[0], pushed)
    return jnp.tensordot(pushed, moved, axes=(tuple(range(1, pushed.ndim)),) * 2)
