"""Entanglement of groups of oscillators in a Gaussian state."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from substrates import arguments
from substrates.quantum.oscillator.modes import GaussianState


def logarithmic_negativity(
    net: Any, state: GaussianState, group: Sequence[Hashable], other: Sequence[Hashable] | None = None
) -> Float[Array, ""]:
    """E_N = sum_k max(0, -log(2 nu_k / hbar)) between two groups of oscillators, in nats (divide by log 2 for bits).

    nu_k^2 are the eigenvalues of Cov_x Cov_p once the momenta of the second group are reversed, which is partial
    transposition. It is zero for separable states of one oscillator with any number of others, and never above zero
    without entanglement.

    Args:
        net: the network.
        state: one of its states.
        group, other: oscillators, by their labels where the network was built from labels; `other` is by default all
            that are not in `group`. What is in neither is traced out.

    Raises:
        ValueError: for classical oscillators, groups that are empty, overlap, repeat or name no oscillator.

    Source: Vidal and Werner 2002, quant-ph/0102117; Audenaert, Eisert, Plenio and Werner 2002, quant-ph/0205025.
    """
    if net.hbar == 0:
        raise ValueError("hbar: wanted a positive number, got 0; classical oscillators are not entangled")
    if net.labels is not None:
        numbers = lambda name, nodes: [arguments.number_of_node(name, node, net.n, net.labels) for node in nodes]
        group, other = numbers("group", group), None if other is None else numbers("other", other)
    first = np.asarray(group, int).ravel()
    second = np.setdiff1d(np.arange(net.n), first) if other is None else np.asarray(other, int).ravel()
    both = np.concatenate([first, second])
    if not len(first) or not len(second) or len(np.unique(both)) < len(both) or both.min() < 0 or both.max() >= net.n:
        raise ValueError(
            f"group, other: wanted two groups of different oscillators from 0 to {net.n - 1}, none of them empty, got "
            f"{list(group)} and {second.tolist()}"
        )
    part = np.ix_(both, both)
    sign = jnp.concatenate([jnp.ones(len(first)), -jnp.ones(len(second))]).astype(net.mass.dtype)
    root = jnp.linalg.cholesky(net.covariance(state)[part])
    reversed_momenta = sign[:, None] * net.momentum_covariance(state)[part] * sign
    squared = jnp.linalg.eigvalsh(root.T @ reversed_momenta @ root)
    return jnp.sum(jnp.maximum(0, -0.5 * jnp.log(4 * squared / net.hbar**2)))
