"""A Hessian that is factorised once, at an anchor, and steers and certifies relaxations near it."""

from __future__ import annotations

import abc
import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from substrates.classical.elastic import sparse_factor
from substrates.classical.elastic.mechanics import stiffness_blocks
from substrates.classical.elastic.topology import Topology

SPARE = 0.08
"""How much of its own stiffness every spring may lose, in every direction, before the certificate of an anchor ends."""

LEAST_SIDEWAYS = 0.02
"""The sideways stiffness, in units of its own, that compressed springs get where the Hessian is not definite."""


def zero_mode_threshold(dtype: Any) -> float:
    """The eigenvalue of the Hessian, relative to the largest stiffness at a node, below which a mode counts as zero."""
    return 8 * float(jnp.finfo(dtype).eps) ** 0.75


class Anchor(eqx.Module):
    """Where a Hessian is factorised: parameters and positions of all nodes.

    A training loop may keep one and give it to the solver, so that steps share the factor.

    Attributes:
        stiffness, rest_length: shape (m,).
        positions: shape (n, dim).
    """

    stiffness: Float[Array, "springs"]
    rest_length: Float[Array, "springs"]
    positions: Float[Array, "n dim"]


class Preconditioner(eqx.Module):
    """M, symmetric and positive definite, close to the Hessian H at an anchor, and what H certifies.

    With L the Hessian of sum 1/2 k_ij |d_i - d_j|^2, springs that resist in every direction alike, one factorisation
    shows whether H - spare L is positive definite. If it is, so is the Hessian of every state in which no spring has
    lost more than spare k_ij of its stiffness since the anchor, in any direction. Where it is not, spare is 0, and M is
    the Hessian with compressed springs propped up sideways.
    """

    topology: eqx.AbstractVar[Topology]
    anchor: eqx.AbstractVar[Anchor]
    spare: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def solve(self, right: Float[Array, "*batch free"]) -> Float[Array, "*batch free"]:
        """M^-1 applied to vectors."""

    @abc.abstractmethod
    def compliance(self, read: np.ndarray) -> Float[Array, "read read"]:
        """(H - spare L)^-1 at some of the free coordinates; only where spare is positive."""

    def certifies(self, net: Any, positions: Float[Array, "n dim"]) -> Bool[Array, ""]:
        """Whether no spring has lost more than `spare` of its stiffness in any direction since the anchor."""
        anchor = self.anchor
        vectors = lambda p: p[self.topology.edges[:, 1]] - p[self.topology.edges[:, 0]]
        before = stiffness_blocks(anchor.stiffness, anchor.rest_length, vectors(anchor.positions))
        now = stiffness_blocks(net.stiffness, net.rest_length, vectors(positions))
        loss = largest_eigenvalue(before - now)
        return (self.spare > 0) & jnp.all(loss <= self.spare * anchor.stiffness)


class DensePreconditioner(Preconditioner):
    """M^-1 as a matrix; M is H where that is definite."""

    topology: Topology = eqx.field(static=True)
    anchor: Anchor
    spare: Float[Array, ""]
    inverse: Float[Array, "free free"]
    margin: Float[Array, "free free"]
    """The Cholesky factor of H - spare L."""

    def solve(self, right: Float[Array, "*batch free"]) -> Float[Array, "*batch free"]:
        return right @ self.inverse

    def compliance(self, read: np.ndarray) -> Float[Array, "read read"]:
        units = jnp.zeros((self.topology.free.size, read.size), self.margin.dtype).at[read, np.arange(read.size)].set(1.0)
        half = jax.scipy.linalg.solve_triangular(self.margin, units, lower=True)
        return half.T @ half


class SparsePreconditioner(Preconditioner):
    """M^-1 by SuperLU on the host, in single precision, factorised once per anchor and kept there; M is H - spare L."""

    topology: Topology = eqx.field(static=True)
    anchor: Anchor
    spare: Float[Array, ""]

    def solve(self, right: Float[Array, "*batch free"]) -> Float[Array, "*batch free"]:
        rows = right.reshape(-1, right.shape[-1])
        shape = jax.ShapeDtypeStruct(rows.shape, rows.dtype)
        host = functools.partial(_solve_on_host, self.topology)
        solved = jax.pure_callback(
            host,
            shape,
            self.anchor.stiffness,
            self.anchor.rest_length,
            self.anchor.positions,
            rows,
            vmap_method="expand_dims",
        )
        return solved.reshape(right.shape)

    def compliance(self, read: np.ndarray) -> Float[Array, "read read"]:
        units = np.zeros((read.size, self.topology.free.size))
        units[np.arange(read.size), read] = 1.0
        found = self.solve(jnp.asarray(units, self.spare.dtype))[:, read]
        return (found + found.T) / 2


def factorise(net: Any, anchor: Anchor, dense_size: int) -> Preconditioner:
    """The preconditioner at an anchor, dense up to `dense_size` free coordinates."""
    topology = net.topology
    if topology.free.size > dense_size:
        shape = jax.ShapeDtypeStruct((), anchor.stiffness.dtype)
        host = functools.partial(_spare_on_host, topology)
        spare = jax.pure_callback(
            host, shape, anchor.stiffness, anchor.rest_length, anchor.positions, vmap_method="expand_dims"
        )
        return SparsePreconditioner(topology=topology, anchor=anchor, spare=spare)
    vectors = anchor.positions[topology.edges[:, 1]] - anchor.positions[topology.edges[:, 0]]
    exact = stiffness_blocks(anchor.stiffness, anchor.rest_length, vectors)
    k = anchor.stiffness[:, None, None]
    identity = jnp.eye(topology.dim, dtype=k.dtype)
    threshold = zero_mode_threshold(k.dtype) * stiffest_node(net)
    eye = jnp.eye(topology.free.size, dtype=k.dtype)
    margin = jnp.linalg.cholesky(net.hessian(exact - SPARE * k * identity) - threshold * eye)
    spared = jnp.all(jnp.isfinite(margin))
    propped = stiffness_blocks(anchor.stiffness, anchor.rest_length, vectors, LEAST_SIDEWAYS)
    support = jnp.where(spared, 0.0, 1e-3 * stiffest_node(net)).astype(k.dtype)
    factor = jnp.linalg.cholesky(net.hessian(jnp.where(spared, exact, propped)) + support * eye)
    half = jax.scipy.linalg.solve_triangular(factor, eye, lower=True)
    spare = jnp.where(spared, SPARE, 0.0).astype(k.dtype)
    return DensePreconditioner(topology=topology, anchor=anchor, spare=spare, inverse=half.T @ half, margin=margin)


def stiffest_node(net: Any) -> Float[Array, ""]:
    """The largest sum of the stiffnesses at a node."""
    return jnp.max(net.topology.sum_at_nodes(net.stiffness), initial=0.0)


def largest_eigenvalue(blocks: Float[Array, "springs dim dim"]) -> Float[Array, "springs"]:
    """The largest eigenvalue of each symmetric block, or in 3D a bound on it; closed forms, no iteration."""
    if blocks.shape[-1] == 2:
        mean = (blocks[:, 0, 0] + blocks[:, 1, 1]) / 2
        return mean + jnp.sqrt(((blocks[:, 0, 0] - blocks[:, 1, 1]) / 2) ** 2 + blocks[:, 0, 1] ** 2)
    # mean + sqrt(2/3) |deviator|, which is attained where two eigenvalues are equal
    dim = blocks.shape[-1]
    mean = jnp.trace(blocks, axis1=1, axis2=2) / dim
    deviator = blocks - mean[:, None, None] * jnp.eye(dim, dtype=blocks.dtype)
    return mean + jnp.sqrt((dim - 1) / dim * jnp.sum(deviator**2, axis=(1, 2)))


def _spare_on_host(topology: Topology, stiffness: Any, rest_length: Any, positions: Any) -> np.ndarray:
    leading, examples = _examples((stiffness, 1), (rest_length, 1), (positions, 2))
    spare = [sparse_factor.anchor_factor(topology, *example).spare for example in examples]
    return np.asarray(spare, np.asarray(stiffness).dtype).reshape(leading)


def _solve_on_host(topology: Topology, stiffness: Any, rest_length: Any, positions: Any, right: Any) -> np.ndarray:
    """Every array may have leading batch axes, of length 1 where the batch shares a value."""
    right = np.asarray(right)
    leading, anchors = _examples((stiffness, 1), (rest_length, 1), (positions, 2))
    if len(anchors) == 1:
        rows = right.reshape(-1, right.shape[-1])
        return sparse_factor.anchor_factor(topology, *anchors[0]).solve(rows).reshape(right.shape)
    whole = np.broadcast_shapes(leading, right.shape[:-2])
    each = np.broadcast_to(right, whole + right.shape[-2:]).reshape(-1, *right.shape[-2:])
    number = np.broadcast_to(np.arange(len(anchors)).reshape(leading), whole).ravel()
    solved = np.empty_like(each)
    for at, rows in enumerate(each):
        solved[at] = sparse_factor.anchor_factor(topology, *anchors[number[at]]).solve(rows)
    return solved.reshape(whole + right.shape[-2:])


def _examples(*arrays: tuple[Any, int]) -> tuple[tuple[int, ...], list[tuple[np.ndarray, ...]]]:
    """(leading shape, one tuple of arrays per example); each array comes with how many axes are its own."""
    values = [(np.asarray(array), own) for array, own in arrays]
    leading = np.broadcast_shapes(*[value.shape[: value.ndim - own] for value, own in values])
    count = math.prod(leading)
    spread = [
        np.broadcast_to(value, leading + value.shape[value.ndim - own :]).reshape(count, *value.shape[value.ndim - own :])
        for value, own in values
    ]
    return leading, [tuple(value[k] for value in spread) for k in range(count)]
