"""Whether an equilibrium of an elastic network is a minimum, and along which mode it is softest."""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from substrates.classical.elastic import sparse_factor
from substrates.classical.elastic.descent import Objective, Point
from substrates.classical.elastic.preconditioner import Preconditioner
from substrates.classical.elastic.springs import SpringNetwork, Topology, stiffness_blocks, zero_mode_threshold
from substrates.solvers.batching import in_turn
from substrates.solvers.certificate import inverse_of, rounding_of, state_tolerance
from substrates.solvers.solver import Equilibrium, Status


class Softest(eqx.Module):
    """The smallest eigenvalue of the Hessian, as far as it matters, and what the Hessian tells of the state.

    Attributes:
        eigenvalue: of the Hessian balanced by the stiffnesses at its nodes, so that it has no unit and weak parts count
            as much as strong ones; infinite where it is known to be positive definite.
        mode: its displacements of the free coordinates; zero where it was not needed.
        step: how far the forces that are left over move the nodes, in units of the size of the network.
        rounding: how far rounding of the forces moves them.
    """

    eigenvalue: Float[Array, ""]
    mode: Float[Array, "free"]
    step: Float[Array, ""]
    rounding: Float[Array, ""]

    @classmethod
    def unknown(cls, flat: Float[Array, "free"], step: Float[Array, ""]) -> Softest:
        """Nothing known against it but how far it is from where it settles."""
        return cls(jnp.asarray(jnp.inf, flat.dtype), jnp.zeros_like(flat), step, jnp.zeros((), flat.dtype))

    @property
    def negative(self) -> Bool[Array, ""]:
        """Whether the state is a saddle."""
        return self.eigenvalue < -zero_mode_threshold(self.mode.dtype)

    @property
    def zero(self) -> Bool[Array, ""]:
        """Whether some direction costs no energy to second order."""
        return jnp.abs(self.eigenvalue) <= zero_mode_threshold(self.mode.dtype)

    @property
    def blurred(self) -> Bool[Array, ""]:
        """Whether rounding moves the nodes too far."""
        return ~(self.rounding <= state_tolerance(self.mode.dtype))

    @property
    def imprecise(self) -> Bool[Array, ""]:
        """Whether the forces that are left over and rounding together move the nodes too far."""
        return ~(self.step + self.rounding <= state_tolerance(self.mode.dtype))


class AtOutputs(eqx.Module):
    """What a nudge adds to the Hessian: a small matrix over the free coordinates that are read."""

    coordinates: tuple[int, ...] = eqx.field(static=True)
    matrix: Float[Array, "read read"]

    @property
    def at(self) -> np.ndarray:
        """The free coordinates that are read."""
        return np.asarray(self.coordinates, int)


def curvature_at_outputs(objective: Objective, flat: Float[Array, "free"]) -> AtOutputs:
    """The Hessian of the nudge in the free coordinates that are read."""
    net, nudge = objective.net, objective.nudge
    read = net.topology.read_coordinates
    if nudge is None:
        return AtOutputs((), jnp.zeros((0, 0), flat.dtype))

    def energy(part):
        state = flat.at[read].set(part).reshape(net.topology.state_shape)
        return nudge.energy(net.read(state, objective.x))

    return AtOutputs(tuple(read.tolist()), jax.hessian(energy)(flat[read]))


def is_certified(
    objective: Objective, flat: Float[Array, "free"], outputs: AtOutputs, steering: Preconditioner
) -> Bool[Array, ""]:
    """Whether the anchor's factor proves that the Hessian is positive definite and decides the state.

    The Hessian of the springs is above N = H - spare L of the anchor where every spring has kept its stiffness. With a
    nudge's curvature W at the outputs it stays definite if N + W is: if 1 + C'WC is, where C C' is N^-1 there.
    """
    now = objective.springs(flat)
    certain = steering.certifies(now, objective.scale(flat), objective.size(flat))
    read = outputs.at
    if read.size == 0:
        return certain
    half = in_turn(jnp.linalg.cholesky)(steering.compliance(now, read))
    least = in_turn(jnp.linalg.eigvalsh)(half.T @ outputs.matrix @ half)[0]
    return certain & (least > -0.9)


def softest_mode(
    objective: Objective,
    point: Point,
    outputs: AtOutputs,
    certain: Softest,
    uncertain: Bool[Array, ""],
    dense_size: int,
) -> Softest:
    """The softest mode of the Hessian at a state, computed only where it is uncertain; `certain` is kept elsewhere."""
    net, (flat, _, gradient) = objective.net, point
    threshold = zero_mode_threshold(flat.dtype)
    scale, size = objective.scale(flat), objective.size(flat)
    read = outputs.at
    if flat.size > dense_size:
        number = jax.ShapeDtypeStruct((), flat.dtype)
        shapes = (number, jax.ShapeDtypeStruct(flat.shape, flat.dtype), number, number)
        host = functools.partial(_softest_on_host, net.topology, read, threshold)
        blur = float(jnp.finfo(flat.dtype).eps) * scale
        springs = net.stiffness, net.rest_length, objective.positions(flat)
        arrays = (*springs, outputs.matrix, gradient, blur, uncertain)
        eigenvalue, mode, step, rounding = jax.pure_callback(host, shapes, *arrays, vmap_method="broadcast_all")
        keep = lambda new, old: jnp.where(uncertain, new, old)
        return jax.tree.map(keep, Softest(eigenvalue, mode, step / size, rounding / size), certain)

    vectors = net.topology.vectors(objective.positions(flat))
    root = 1 / jnp.sqrt(held_by(net, outputs))

    def hessian():
        matrix = net.topology.hessian(stiffness_blocks(net.stiffness, net.rest_length, vectors))
        if read.size:
            matrix = matrix.at[np.ix_(read, read)].add(outputs.matrix)
        return (root[:, None] * matrix) * root

    unknown = Softest.unknown(flat, jnp.zeros((), flat.dtype))

    # loops rather than conditionals: under vmap a loop runs only while some example needs it
    def factorised(_):
        factor = in_turn(jnp.linalg.cholesky)(hessian() - threshold * jnp.eye(flat.size, dtype=flat.dtype))
        inverse = inverse_of(factor)
        step = jnp.max(jnp.abs(root * (inverse @ (root * gradient))), initial=0.0) / size
        found = Softest(unknown.eigenvalue, unknown.mode, step, rounding_of(inverse, root, scale, size))
        return found, jnp.all(jnp.isfinite(factor)), jnp.asarray(True)

    finite = jnp.all(jnp.isfinite(flat))
    done = ~uncertain | ~finite
    softest, definite, _ = jax.lax.while_loop(lambda carry: ~carry[2], factorised, (certain, done, done))

    def decompose(_):
        values, modes = in_turn(jnp.linalg.eigh)(hessian())
        return Softest(values[0], root * modes[:, 0], unknown.step, unknown.rounding), jnp.asarray(True)

    return jax.lax.while_loop(lambda carry: ~carry[1], decompose, (softest, definite))[0]


def held_by(net: SpringNetwork, outputs: AtOutputs) -> Float[Array, "free"]:
    """What springs and a nudge oppose to each free coordinate, newtons per metre: what balances a Hessian."""
    at_nodes = net.topology.node_stiffness(net.stiffness)
    return at_nodes.at[outputs.at].add(jnp.sum(jnp.abs(outputs.matrix), axis=1))


def certified_status(found: Equilibrium, softest: Softest) -> Equilibrium:
    """The equilibrium with the status that its softest mode gives it."""
    status = Status.where(found.converged & softest.imprecise, Status.ill_conditioned, found.status)
    status = Status.where(softest.zero, Status.zero_mode, status)
    status = Status.where(softest.negative, Status.unstable, status)
    status = Status.where(found.status == Status.not_finite, Status.not_finite, status)
    return eqx.tree_at(lambda e: e.status, found, status)


def _softest_on_host(topology: Topology, read: np.ndarray, threshold: float, *arrays: Array) -> tuple[np.ndarray, ...]:
    leading, examples = sparse_factor.examples(*zip(arrays, (1, 1, 2, 2, 1, 1, 0), strict=True))
    shapes = ((), (topology.free.size,), (), ())
    parts = [np.zeros((len(examples), *shape), np.asarray(arrays[0]).dtype) for shape in shapes]
    for at, (*springs, matrix, gradient, blur, uncertain) in enumerate(examples):
        if uncertain:
            extra = None if read.size == 0 else (read, matrix)
            soft = sparse_factor.softest(topology, springs, extra, threshold, forces=(gradient, blur))
            for part, value in zip(parts, soft, strict=True):
                part[at] = value
    return tuple(part.reshape(leading + part.shape[1:]) for part in parts)
