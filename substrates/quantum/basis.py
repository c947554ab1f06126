"""The 2^n basis states of n spins in which every Z_i is diagonal, spin 0 the slowest index, up (Z = +1) before down."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def by_groups(
    total: Float[Array, "amplitudes"], vector: Float[Array, "amplitudes"], blocks: list[Array]
) -> Float[Array, "amplitudes"]:
    """A total, and the sum over groups of spins of a symmetric matrix that acts on the group's spins of a vector."""
    left = 1
    for block in blocks:
        size = block.shape[0]
        shaped = vector.reshape(left, size, -1)
        if shaped.shape[2] == 1:
            moved = shaped[:, :, 0] @ block
        elif left == 1:
            moved = block @ shaped[0]
        else:
            moved = jnp.broadcast_to(block, (left, size, size)) @ shaped
        total += moved.ravel()
        left *= size
    return total


def group_sizes(n: int) -> list[int]:
    """How n spins are parted into groups of about equal size, so that the matrix products are quick."""
    count = max(1, -(-n // 5))
    return [n // count + (k < n % count) for k in range(count)]


def ising_diagonal(
    coupling: Float[Array, "n n"], field: Float[Array, "n"], offset: Float[Array, ""] | float = 0.0
) -> Float[Array, "amplitudes"]:
    """offset - sum_(i<j) J_ij z_i z_j - sum_i b_i z_i of every basis state, with J symmetric and zero on its diagonal.

    The spins are parted into halves, so that all of it is one matrix product of the signs of both.
    """
    half = field.size // 2
    left, right = (all_signs(k).astype(field.dtype) for k in (half, field.size - half))
    inside = lambda s, J, b: -jnp.sum(s * (s @ (J / 2) + b[None]), axis=1)
    first = inside(left, coupling[:half, :half], field[:half]) + offset
    second = inside(right, coupling[half:, half:], field[half:])
    between = left @ coupling[:half, half:] @ right.T
    return (first[:, None] + second[None] - between).ravel()


@functools.cache
def all_signs(n: int) -> np.ndarray:
    """The signs of n spins in every basis state, shape (2^n, n): +1 up, -1 down, spin 0 the slowest."""
    bits = (np.arange(2**n)[:, None] >> np.arange(n)[::-1]) & 1
    return 1.0 - 2.0 * bits


@functools.cache
def single_flips(n: int) -> np.ndarray:
    """X_i of each of n spins as a matrix, shape (n, 2^n, 2^n)."""
    index = np.arange(2**n)
    matrices = np.zeros((n, 2**n, 2**n))
    for spin in range(n):
        matrices[spin, index, index ^ (1 << (n - 1 - spin))] = 1
    return matrices
