"""Whether an equilibrium of an elastic network is a minimum, and along which mode it is softest."""

from __future__ import annotations

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
from substrates.classical.elastic.preconditioner import Preconditioner, stiffest_node, zero_mode_threshold
from substrates.classical.elastic.topology import Topology
from substrates.solvers.batching import in_turn
from substrates.solvers.solver import Equilibrium, Status


class Softest(eqx.Module):
    """The smallest eigenvalue of the Hessian, as far as it matters.

    Attributes:
        eigenvalue: newtons per metre; infinite where the Hessian is known to be positive definite.
        mode: its eigenvector over the free coordinates; zero where it was not needed.
        threshold: the size below which an eigenvalue counts as zero.
    """

    eigenvalue: Float[Array, ""]
    mode: Float[Array, "free"]
    threshold: Float[Array, ""]

    @classmethod
    def unknown(cls, flat: Float[Array, "free"]) -> Softest:
        """Nothing known against it."""
        return cls(jnp.asarray(jnp.inf, flat.dtype), jnp.zeros_like(flat), jnp.zeros((), flat.dtype))

    @property
    def negative(self) -> Bool[Array, ""]:
        """Whether the state is a saddle."""
        return self.eigenvalue < -self.threshold

    @property
    def zero(self) -> Bool[Array, ""]:
        """Whether some direction costs no energy to second order."""
        return jnp.abs(self.eigenvalue) <= self.threshold


class AtOutputs(eqx.Module):
    """What a nudge adds to the Hessian: a small matrix over the free coordinates that are read."""

    coordinates: tuple[int, ...] = eqx.field(static=True)
    matrix: Float[Array, "read read"]

    @property
    def at(self) -> np.ndarray:
        """The free coordinates that are read."""
        return np.asarray(self.coordinates, int)


@functools.lru_cache(maxsize=16)
def read_coordinates(topology: Topology) -> np.ndarray:
    """The free coordinates that some output depends on, by their numbers among the free ones."""
    if topology.read_map is None:
        nodes = np.unique(topology.pairs)
        read = (nodes[:, None] * topology.dim + np.arange(topology.dim)).ravel()
    else:
        read = np.unique(topology.read_map.columns)
    place = topology.gather[read]
    return np.sort(place[place < topology.free.size])


def curvature_at_outputs(objective: Any, flat: Float[Array, "free"]) -> AtOutputs:
    """The Hessian of the nudge in the free coordinates that are read."""
    net, nudge = objective.net, objective.nudge
    read = read_coordinates(net.topology)
    if nudge is None:
        return AtOutputs((), jnp.zeros((0, 0), flat.dtype))

    def energy(part):
        state = flat.at[read].set(part).reshape(net.topology.state_shape)
        return nudge.energy(net.read(state, objective.x))

    return AtOutputs(tuple(read.tolist()), jax.hessian(energy)(flat[read]))


def is_certified(
    objective: Any, flat: Float[Array, "free"], outputs: AtOutputs, steering: Preconditioner
) -> Bool[Array, ""]:
    """Whether the anchor's factor proves that the Hessian is positive definite.

    The Hessian of the springs is above N = H - spare L of the anchor where every spring has kept its stiffness. With a
    nudge's curvature W at the outputs it stays definite if N + W is: if 1 + C'WC is, where C C' is N^-1 there.
    """
    certain = steering.certifies(objective.net, objective.positions(flat))
    read = outputs.at
    if read.size == 0:
        return certain
    half = in_turn(jnp.linalg.cholesky)(steering.compliance(objective.net, objective.positions(flat), read))
    least = in_turn(jnp.linalg.eigvalsh)(half.T @ outputs.matrix @ half)[0]
    return certain & (least > -0.9)


def softest_mode(
    objective: Any,
    flat: Float[Array, "free"],
    outputs: AtOutputs,
    certain: Bool[Array, ""],
    dense_size: int,
) -> Softest:
    """The softest mode of the Hessian at a state, computed only where stability is not certain."""
    net = objective.net
    threshold = zero_mode_threshold(flat.dtype) * stiffest_node(net)
    vectors = net.vectors(objective.positions(flat))
    read = outputs.at
    if flat.size > dense_size:
        shapes = (jax.ShapeDtypeStruct((), flat.dtype), jax.ShapeDtypeStruct(flat.shape, flat.dtype))
        host = functools.partial(_softest_on_host, net.topology, read)
        arrays = (net.stiffness, net.rest_length, objective.positions(flat), outputs.matrix, threshold, certain)
        eigenvalue, mode = jax.pure_callback(host, shapes, *arrays, vmap_method="broadcast_all")
        return Softest(eigenvalue, mode, threshold)

    def hessian():
        matrix = net.hessian(stiffness_blocks(net.stiffness, net.rest_length, vectors))
        return matrix if read.size == 0 else matrix.at[np.ix_(read, read)].add(outputs.matrix)

    eye = jnp.eye(flat.size, dtype=flat.dtype)
    # loops rather than conditionals: under vmap a loop runs only while some example needs it
    factorised = lambda _: jnp.all(jnp.isfinite(in_turn(jnp.linalg.cholesky)(hessian() - threshold * eye)))
    definite = jax.lax.while_loop(
        lambda carry: ~carry[1], lambda carry: (factorised(None), jnp.asarray(True)), (certain, certain)
    )[0]

    def decompose(_):
        values, modes = in_turn(jnp.linalg.eigh)(hessian())
        return values[0], modes[:, 0], jnp.asarray(True)

    nothing = (jnp.asarray(jnp.inf, flat.dtype), jnp.zeros_like(flat), definite | ~jnp.all(jnp.isfinite(flat)))
    eigenvalue, mode, _ = jax.lax.while_loop(lambda carry: ~carry[2], decompose, nothing)
    return Softest(eigenvalue, mode, threshold)


def certified_status(found: Equilibrium, softest: Softest) -> Equilibrium:
    """The equilibrium with the status that its softest mode gives it."""
    status = Status.where(softest.zero, Status.zero_mode, found.status)
    status = Status.where(softest.negative, Status.unstable, status)
    status = Status.where(found.status == Status.not_finite, Status.not_finite, status)
    return eqx.tree_at(lambda e: e.status, found, status)


def _softest_on_host(topology: Topology, read: np.ndarray, *arrays: Any) -> tuple[np.ndarray, np.ndarray]:
    arrays = tuple(np.asarray(array) for array in arrays)
    certain = arrays[-1]
    leading, count = certain.shape, math.prod(certain.shape)
    dtype = arrays[0].dtype
    eigenvalues, modes = np.full(count, np.inf, dtype), np.zeros((count, topology.free.size), dtype)
    own = (1, 1, 2, 2, 0, 0)
    flat = [a.reshape(count, *a.shape[a.ndim - k :]) for a, k in zip(arrays, own, strict=True)]
    for example in range(count):
        stiffness, rest_length, positions, matrix, threshold, sure = (a[example] for a in flat)
        if sure:
            continue
        extra = None if read.size == 0 else (read, matrix)
        found = sparse_factor.softest(topology, stiffness, rest_length, positions, extra, float(threshold))
        eigenvalues[example], modes[example] = found
    return eigenvalues.reshape(leading), modes.reshape(*leading, topology.free.size)
