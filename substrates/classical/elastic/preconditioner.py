"""A Hessian that is factorised once, at an anchor, and steers and certifies relaxations near it."""

from __future__ import annotations

import abc
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from substrates.classical.elastic import sparse_factor
from substrates.classical.elastic.sparse_factor import LEAST_SIDEWAYS, SPARE, SUPPORT
from substrates.classical.elastic.springs import SpringNetwork, Topology, stiffness_blocks, zero_mode_threshold
from substrates.solvers.batching import in_turn
from substrates.solvers.certificate import inverse_of, rounding_of, state_tolerance

DENSE_SIZE = 400
"""Up to so many free coordinates matrices are dense, unless a solver is told otherwise."""


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
    shows whether N = H - spare L is positive definite. If it is, so is the Hessian of every state in which no spring
    has lost more than spare k_ij of its stiffness since the anchor, in any direction. Where H is not definite, M is the
    Hessian with compressed springs propped up sideways, and nothing is certified.
    """

    topology: eqx.AbstractVar[Topology]
    anchor: eqx.AbstractVar[Anchor]

    @abc.abstractmethod
    def solve(self, right: Float[Array, "*batch free"]) -> Float[Array, "*batch free"]:
        """M^-1 applied to vectors."""

    @abc.abstractmethod
    def certifies(self, now: Anchor, scale: Float[Array, "free"], size: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether the Hessian of the springs must be positive definite as they are now, and rounding of the forces that
        meet, `scale`, moves no coordinate by more than `state_tolerance` of a size.
        """

    @abc.abstractmethod
    def compliance(self, now: Anchor, read: np.ndarray) -> Float[Array, "read read"]:
        """N^-1 at some of the free coordinates, of an N that certifies the springs as they are now."""

    def loss(self, now: Anchor) -> Float[Array, ""]:
        """The largest part of its stiffness that a spring has lost since the anchor, in its worst direction."""
        blocks = lambda at: stiffness_blocks(at.stiffness, at.rest_length, self.topology.vectors(at.positions))
        lost = blocks(self.anchor) - blocks(now)
        return jnp.max(largest_eigenvalue(lost / self.anchor.stiffness[:, None, None]))


class DensePreconditioner(Preconditioner):
    """M^-1 as a matrix; M is H where that is definite.

    Matrices are balanced, D H D with D^-2 the stiffnesses at the nodes: weak parts count as much as strong ones.

    Attributes:
        root: the diagonal of D.
        inverse: (D M D)^-1.
        margin: the Cholesky factor of D N D, not a number where N is not definite.
    """

    topology: Topology = eqx.field(static=True)
    anchor: Anchor
    root: Float[Array, "free"]
    inverse: Float[Array, "free free"]
    margin: Float[Array, "free free"]

    def solve(self, right: Float[Array, "*batch free"]) -> Float[Array, "*batch free"]:
        return self.root * ((self.root * right) @ self.inverse)

    def certifies(self, now: Anchor, scale: Float[Array, "free"], size: Float[Array, ""]) -> Bool[Array, ""]:
        stable = (self.loss(now) <= SPARE) & jnp.all(jnp.isfinite(self.margin))
        return stable & (rounding_of(self.inverse, self.root, scale, size) <= state_tolerance(scale.dtype))

    def compliance(self, now: Anchor, read: np.ndarray) -> Float[Array, "read read"]:
        units = jnp.zeros((self.topology.free.size, read.size), self.margin.dtype)
        units = units.at[read, np.arange(read.size)].set(self.root[read])
        half = in_turn(functools.partial(jax.scipy.linalg.solve_triangular, lower=True))(self.margin, units)
        return half.T @ half


class SparsePreconditioner(Preconditioner):
    """M^-1 by SuperLU on the host, in single precision, factorised once per anchor and kept there.

    M is itself an N with a small spare; N with a large one is factorised when a certificate needs it.
    """

    topology: Topology = eqx.field(static=True)
    anchor: Anchor

    def solve(self, right: Float[Array, "*batch free"]) -> Float[Array, "*batch free"]:
        return self._solve(right, jnp.asarray(False))

    def certifies(self, now: Anchor, scale: Float[Array, "free"], size: Float[Array, ""]) -> Bool[Array, ""]:
        host = functools.partial(_certified_on_host, self.topology)
        shape = jax.ShapeDtypeStruct((), jnp.bool_)
        # the smallest pivot shows how weakly a strong part is held: its inverse is an entry of the inverse of the part
        lengths = scale / self.topology.node_stiffness(self.anchor.stiffness)
        blur = float(jnp.finfo(scale.dtype).eps) / state_tolerance(scale.dtype) * jnp.max(lengths, initial=0.0) / size
        arrays = *jax.tree.leaves(self.anchor), self.loss(now), blur
        return jax.pure_callback(host, shape, *arrays, vmap_method="expand_dims")

    def compliance(self, now: Anchor, read: np.ndarray) -> Float[Array, "read read"]:
        units = np.zeros((read.size, self.topology.free.size))
        units[np.arange(read.size), read] = 1.0
        wide = self.loss(now) > sparse_factor.NARROW
        found = self._solve(jnp.asarray(units, now.positions.dtype), wide)[:, read]
        return (found + found.T) / 2

    def _solve(self, right: Array, wide: Bool[Array, ""]) -> Array:
        rows = right.reshape(-1, right.shape[-1])
        host = functools.partial(_solve_on_host, self.topology)
        shape = jax.ShapeDtypeStruct(rows.shape, rows.dtype)
        arrays = *jax.tree.leaves(self.anchor), wide, rows
        return jax.pure_callback(host, shape, *arrays, vmap_method="expand_dims").reshape(right.shape)


def factorise(net: SpringNetwork, anchor: Anchor, dense_size: int) -> Preconditioner:
    """The preconditioner at an anchor, dense up to `dense_size` free coordinates."""
    topology = net.topology
    if topology.free.size > dense_size:
        return SparsePreconditioner(topology=topology, anchor=anchor)
    vectors = topology.vectors(anchor.positions)
    exact = stiffness_blocks(anchor.stiffness, anchor.rest_length, vectors)
    k = anchor.stiffness[:, None, None]
    identity = jnp.eye(topology.dim, dtype=k.dtype)
    eye = jnp.eye(topology.free.size, dtype=k.dtype)
    threshold = zero_mode_threshold(k.dtype) * eye
    root = 1 / jnp.sqrt(topology.node_stiffness(anchor.stiffness))
    balanced = lambda blocks: (root[:, None] * topology.hessian(blocks)) * root
    cholesky = in_turn(jnp.linalg.cholesky)
    margin = cholesky(balanced(exact - SPARE * k * identity) - threshold)
    plain = cholesky(balanced(exact) - threshold)
    definite = jnp.all(jnp.isfinite(plain))
    propped = stiffness_blocks(anchor.stiffness, anchor.rest_length, vectors, LEAST_SIDEWAYS)
    factor = jnp.where(definite, plain, cholesky(balanced(propped) + SUPPORT * eye))
    return DensePreconditioner(topology=topology, anchor=anchor, root=root, inverse=inverse_of(factor), margin=margin)


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


def _certified_on_host(topology: Topology, *arrays: Array) -> np.ndarray:
    leading, examples = sparse_factor.examples(*zip(arrays, (1, 1, 2, 0, 0), strict=True))
    found = [sparse_factor.certifies(topology, springs, loss, blur) for *springs, loss, blur in examples]
    return np.asarray(found, bool).reshape(leading)


def _solve_on_host(topology: Topology, *arrays: Array) -> np.ndarray:
    """Every array may have leading batch axes, of length 1 where the batch shares a value."""
    right = np.asarray(arrays[-1])
    factor = lambda example: sparse_factor.anchor_factor(topology, example[:3], wide=bool(example[3]))
    leading, anchors = sparse_factor.examples(*zip(arrays[:-1], (1, 1, 2, 0), strict=True))
    if len(anchors) == 1:
        rows = right.reshape(-1, right.shape[-1])
        return factor(anchors[0]).solve(rows).reshape(right.shape)
    whole = np.broadcast_shapes(leading, right.shape[:-2])
    each = np.broadcast_to(right, whole + right.shape[-2:]).reshape(-1, *right.shape[-2:])
    number = np.broadcast_to(np.arange(len(anchors)).reshape(leading), whole).ravel()
    solved = np.empty_like(each)
    for at, rows in enumerate(each):
        solved[at] = factor(anchors[number[at]]).solve(rows)
    return solved.reshape(whole + right.shape[-2:])
