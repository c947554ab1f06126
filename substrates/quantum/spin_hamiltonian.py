"""The Hamiltonian of spins in a transverse field, applied to a vector without a matrix."""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from substrates.quantum.observables import Observables, PauliString, apply_string, signs_of


class SpinHamiltonian(eqx.Module):
    """H = diag(d) - sum_i h_i X_i + sum_a w_a P_a on the 2^n amplitudes of n spins; spin 0 is the slowest index.

    The X part goes by groups of spins: on k spins it is a symmetric matrix of size 2^k, so each group is one matrix
    product with the vector, reshaped.

    Attributes:
        diagonal: d, shape (2^n,).
        transverse: h, shape (n,).
        weights: w, one for each string.
        strings: what else acts, beyond the diagonal and single X.
    """

    diagonal: Float[Array, "amplitudes"]
    transverse: Float[Array, "n"]
    weights: tuple[Float[Array, ""], ...] = ()
    strings: tuple[PauliString, ...] = eqx.field(static=True, default=())

    @property
    def n(self) -> int:
        """The number of spins."""
        return self.transverse.shape[0]

    def __call__(self, vector: Float[Array, "amplitudes"]) -> Float[Array, "amplitudes"]:
        """H |v>."""
        total = self.diagonal * vector + by_groups(vector, self._blocks())
        for weight, string in zip(self.weights, self.strings, strict=True):
            total += weight * apply_string(string, vector, self.n)
        return total

    def matrix(self) -> Float[Array, "amplitudes amplitudes"]:
        """H, dense and symmetric."""
        return jax.vmap(self)(jnp.eye(2**self.n, dtype=self.diagonal.dtype))

    def with_operators(self, observables: Observables, weights: Float[Array, "operators"]) -> SpinHamiltonian:
        """H + sum_k weights_k O_k."""
        diagonal, transverse = self.diagonal, self.transverse
        others, rest = list(self.weights), list(self.strings)
        share = observables.on_strings(weights)
        for a, string in enumerate(observables.strings):
            if not string.flips:
                diagonal = diagonal + share[a] * signs_of(string, self.n, diagonal.dtype)
            elif len(string.flips) == 1 and not string.signs:
                transverse = transverse.at[string.flips[0]].add(-share[a])
            else:
                others.append(share[a])
                rest.append(string)
        return SpinHamiltonian(diagonal, transverse, tuple(others), tuple(rest))

    def _blocks(self) -> list[Array]:
        """-sum h_i X_i of each group of spins, as a matrix."""
        blocks, first = [], 0
        for size in group_sizes(self.n):
            flips = jnp.asarray(_single_flips(size), self.diagonal.dtype)
            blocks.append(-jnp.einsum("i,iab->ab", self.transverse[first : first + size], flips))
            first += size
        return blocks


def by_groups(vector: Float[Array, "amplitudes"], blocks: list[Array]) -> Float[Array, "amplitudes"]:
    """The sum over groups of spins of a symmetric matrix that acts on the group's spins."""
    total, left = jnp.zeros_like(vector), 1
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
    coupling: Float[Array, "n n"], field: Float[Array, "n"], offset: Float[Array, ""]
) -> Float[Array, "amplitudes"]:
    """offset - sum_(i<j) J_ij z_i z_j - sum_i b_i z_i of every basis state, with J upper triangular.

    The spins are parted into halves, so that all of it is one matrix product of the signs of both.
    """
    half = field.size // 2
    left, right = (jnp.asarray(all_signs(k), field.dtype) for k in (half, field.size - half))
    inside = lambda s, J, b: -jnp.sum(s * (s @ J.T + b), axis=1)
    first = inside(left, coupling[:half, :half], field[:half]) + offset
    second = inside(right, coupling[half:, half:], field[half:])
    between = left @ coupling[:half, half:] @ right.T
    return (first[:, None] + second - between).ravel()


@functools.cache
def all_signs(n: int) -> np.ndarray:
    """The signs of n spins in every basis state, shape (2^n, n): +1 up, -1 down, spin 0 the slowest."""
    bits = (np.arange(2**n)[:, None] >> np.arange(n)[::-1]) & 1
    return 1.0 - 2.0 * bits


@functools.cache
def _single_flips(n: int) -> np.ndarray:
    """X_i of each of n spins as a matrix, shape (n, 2^n, 2^n)."""
    index = np.arange(2**n)
    matrices = np.zeros((n, 2**n, 2**n))
    for spin in range(n):
        matrices[spin, index, index ^ (1 << (n - 1 - spin))] = 1
    return matrices
