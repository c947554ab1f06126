"""What measurements of spins show: means, correlations, single outcomes, entanglement, fidelity."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from substrates.quantum.basis import all_signs, group_sizes
from substrates.quantum.observables import check_basis
from substrates.solvers.spectra import singular_values


def in_basis(vector: Float[Array, "amplitudes"], basis: str = "Z") -> Float[Array, "amplitudes"]:
    """The amplitudes of the outcomes of measuring all spins in the basis "Z" or "X", the latter by Hadamard gates."""
    check_basis(basis)
    if basis == "Z":
        return vector
    left = 1
    for size in group_sizes(_count(vector)):
        gate = jnp.asarray(_hadamard(size), vector.dtype)
        vector = jnp.einsum("ab,lbr->lar", gate, vector.reshape(left, 2**size, -1)).ravel()
        left *= 2**size
    return vector


def probabilities(vector: Float[Array, "amplitudes"], basis: str = "Z") -> Float[Array, "outcomes"]:
    """The probability of every outcome of measuring all spins in a basis."""
    squares = in_basis(vector, basis) ** 2
    return squares / jnp.sum(squares)


def spin_means(vector: Float[Array, "amplitudes"], basis: str = "Z") -> Float[Array, "spins"]:
    """<Z_i> of every spin, or <X_i>."""
    table, left, right = _halves(probabilities(vector, basis))
    return jnp.concatenate([jnp.sum(table, 1) @ left, jnp.sum(table, 0) @ right])


def spin_correlations(
    vector: Float[Array, "amplitudes"], basis: str = "Z", *, connected: bool = False
) -> Float[Array, "spins spins"]:
    """<Z_i Z_j> of every pair, or <X_i X_j>; `connected` subtracts the product of the means."""
    table, left, right = _halves(probabilities(vector, basis))
    between = left.T @ table @ right
    first = left.T @ (jnp.sum(table, 1)[:, None] * left)
    second = right.T @ (jnp.sum(table, 0)[:, None] * right)
    pairs = jnp.block([[first, between], [between.T, second]])
    if connected:
        means = spin_means(vector, basis)
        pairs -= means[:, None] * means[None]
    return pairs


def sample(
    vector: Float[Array, "amplitudes"], shots: int, basis: str = "Z", *, key: PRNGKeyArray
) -> Float[Array, "shots spins"]:
    """Outcomes +1 and -1 of measuring all spins in a basis, as many times.

    Raises:
        ValueError: for fewer than one shot, or an unknown basis.
    """
    if shots < 1:
        raise ValueError(f"shots: wanted at least one, got {shots}")
    steps = jnp.cumsum(probabilities(vector, basis))
    drawn = jax.random.uniform(key, (shots,), vector.dtype) * steps[-1]
    outcome = jnp.minimum(jnp.searchsorted(steps, drawn, side="right"), steps.size - 1).astype(jnp.int32)
    bits = (outcome[:, None] >> jnp.arange(_count(vector), dtype=jnp.int32)[None, ::-1]) & 1
    return (1 - 2 * bits).astype(vector.dtype)


def sampled_measure(
    net: Any, state: Float[Array, "amplitudes"], x: Float[Array, "inputs"], shots: int, *, key: PRNGKeyArray
) -> Any:
    """`measure` of one state of a `TransverseFieldIsing`, estimated from outcomes in two settings of as many shots.

    All spins in the Z basis give dE/dJ = -<Z_i Z_j> and dE/db = -<Z_i>, all in the X basis dE/dh = -<X_i>; the standard
    errors fall as 1/sqrt(shots). A tree like `measure` returns. Use one key for both phases of a contrast, for the
    noise that they share cancels.
    """
    keys = jax.random.split(key)
    z = jnp.zeros((shots, net.n), state.dtype).at[:, net.free].set(sample(state, shots, "Z", key=keys[0]))
    along_x = jnp.zeros(net.n, state.dtype)
    along_x = along_x.at[net.free].set(jnp.mean(sample(state, shots, "X", key=keys[1]), axis=0))
    if net.entry == "clamps":
        z = z.at[:, np.asarray(net.inputs, int)].set(jnp.asarray(x).astype(state.dtype))
    i, j = net.graph.edges.T
    gradient = eqx.filter(net, eqx.is_inexact_array)
    parts = (-jnp.mean(z[:, i] * z[:, j], axis=0), -jnp.mean(z, axis=0), -along_x)
    return eqx.tree_at(lambda n: (n.coupling, n.longitudinal_field, n.transverse_field), gradient, parts)


def entanglement_entropy(vector: Float[Array, "amplitudes"], spins: Sequence[int]) -> Float[Array, ""]:
    """-tr rho log rho of the spins in a part of the whole, in nats; log 2 for one spin of a Bell pair.

    Raises:
        ValueError: for spins that repeat or are none of the state's.
    """
    n, chosen = _count(vector), [int(spin) for spin in spins]
    if len(set(chosen)) < len(chosen) or not all(0 <= spin < n for spin in chosen):
        raise ValueError(f"spins: wanted different spins from 0 to {n - 1}, got {chosen}")
    others = [spin for spin in range(n) if spin not in chosen]
    table = jnp.transpose(vector.reshape((2,) * n), (*chosen, *others)).reshape(2 ** len(chosen), -1)
    p = singular_values(table) ** 2
    p /= jnp.sum(p)
    return -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1)), 0))


def fidelity(first: Array, second: Array) -> Float[Array, ""]:
    """|<first|second>|^2 of two vectors, whatever their norms."""
    norms = jnp.vdot(first, first).real * jnp.vdot(second, second).real
    return jnp.abs(jnp.vdot(first, second)) ** 2 / norms


def _count(vector: Array) -> int:
    n = int(vector.shape[0]).bit_length() - 1
    if vector.shape != (2**n,):
        raise ValueError(f"state: wanted the 2^n amplitudes of n spins, got shape {vector.shape}")
    return n


def _halves(p: Array) -> tuple[Array, Array, Array]:
    """The outcomes as a table of those of the first and of the second half of the spins, and the signs of both."""
    n = _count(p)
    left, right = (jnp.asarray(all_signs(k), p.dtype) for k in (n // 2, n - n // 2))
    return p.reshape(left.shape[0], right.shape[0]), left, right


@functools.cache
def _hadamard(n: int) -> np.ndarray:
    gate = np.ones((1, 1))
    for _ in range(n):
        gate = np.kron(gate, np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2))
    return gate
