"""Which way down from a state of an elastic network, and whether it is a minimum: the Hessian, factorised."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from substrates.classical.elastic import grid, sparse_factor
from substrates.classical.elastic.balance import Balance, Objective
from substrates.classical.elastic.springs import Topology, zero_mode_threshold
from substrates.solvers.batching import in_turn, spectra_in_turn
from substrates.solvers.certificate import inverse_of, rounding_of, state_tolerance
from substrates.solvers.host import on_host
from substrates.solvers.solver import Equilibrium, Status
from substrates.wiring import taken

DENSE_SIZE = 400
"""Up to so many free coordinates matrices are dense, unless a solver is told otherwise."""

ENOUGH = 0.05
"""Conjugate gradients stop where so small a part of the forces is left."""

LEAST = 0.03
"""Where the Hessian is not definite no motion counts as softer than that at first, in units of the stiffnesses at the
nodes: nor is it known how far it leads.
"""


class Anchor(eqx.Module):
    """Where a sparse Hessian is factorised: parameters and positions of all nodes.

    A training loop may keep one and give it to the solver, so that steps share the factor.

    Attributes:
        stiffness, rest_length: shape (m,).
        positions: shape (n, dim).
    """

    stiffness: Float[Array, "springs"]
    rest_length: Float[Array, "springs"]
    positions: Float[Array, "n dim"]


class Stability(eqx.Module):
    """Whether a state is decided, as far as it is known.

    Attributes:
        eigenvalue: the smallest of the Hessian, balanced by the stiffnesses at its nodes, so that it has no unit and
            weak parts count as much as strong ones; infinite where it is known to be positive definite, or not known.
        step: how far the forces that are left over move the nodes, in units of the size of the network.
        rounding: how far rounding of the forces moves them.
    """

    eigenvalue: Float[Array, ""]
    step: Float[Array, ""]
    rounding: Float[Array, ""]

    @property
    def negative(self) -> Bool[Array, ""]:
        """Whether the state is a saddle."""
        return self.eigenvalue < -zero_mode_threshold(self.eigenvalue.dtype)

    @property
    def zero(self) -> Bool[Array, ""]:
        """Whether some direction costs no energy to second order."""
        return jnp.abs(self.eigenvalue) <= zero_mode_threshold(self.eigenvalue.dtype)

    @property
    def decided(self) -> Bool[Array, ""]:
        """Whether no further step would tell more of a balanced state that is no saddle."""
        most = state_tolerance(self.step.dtype)
        return (self.step <= most / 4) | self.zero | ~(self.rounding <= most)

    def judged(self, found: Equilibrium) -> Equilibrium:
        """The equilibrium with the status that this leaves it."""
        precise = self.step + self.rounding <= state_tolerance(self.step.dtype)
        status = Status.where(found.converged & ~precise, Status.ill_conditioned, found.status)
        status = Status.where(self.zero, Status.zero_mode, status)
        # elsewhere than at a balance, or after a coordinate ran away, the curvature tells nothing
        known = found.converged | (self.eigenvalue == -jnp.inf)
        status = Status.where(self.negative & known, Status.unstable, status)
        status = Status.where(found.status == Status.not_finite, Status.not_finite, status)
        return eqx.tree_at(lambda e: e.status, found, status)


class Outlook(eqx.Module):
    """From a state: the step that Newton's method would take, how stable it is, and its softest mode.

    `direction` is downhill even where the Hessian is not definite. `mode` is zero where it was not needed, `count` how
    many conjugate gradients a factor elsewhere needed.
    """

    direction: Float[Array, "free"]
    stability: Stability
    mode: Float[Array, "free"]
    count: Int[Array, ""] | None = None


def held_by(objective: Objective, at: Balance) -> Float[Array, "free"]:
    """What springs and a nudge oppose to each free coordinate, newtons per metre: what balances a Hessian."""
    at_nodes = objective.net.topology.node_stiffness(objective.net.stiffness)
    return at_nodes if at.curvature is None else at_nodes + objective.spread(jnp.sum(jnp.abs(at.curvature), axis=1))


def by_dense_factor(
    objective: Objective, at: Balance, wanted: Bool[Array, ""], least: Float[Array, ""] | float = LEAST
) -> Outlook:
    """By Cholesky; where that fails and it is `wanted`, by all modes, with |H| in place of H and no mode softer than
    `least`.
    """
    topology, size = objective.net.topology, objective.net.topology.free.size
    threshold = zero_mode_threshold(at.energy.dtype)
    root = 1 / jnp.sqrt(held_by(objective, at))
    hessian = topology.hessian(at.springs.blocks)
    if at.curvature is not None:
        hessian = hessian.at[np.ix_(objective.read, objective.read)].add(at.curvature)
    balanced = root[:, None] * hessian * root[None]
    identity = np.eye(size, dtype=balanced.dtype)
    inverse = in_turn(_inverted)(balanced - threshold * identity)
    definite = jnp.all(jnp.isfinite(inverse))

    # a loop rather than a conditional: under vmap it runs only while some example needs it
    def decomposed(carry):
        values, modes = spectra_in_turn(jnp.linalg.eigh)(carry[0])
        inverse = (modes / jnp.maximum(jnp.maximum(jnp.abs(values), least), threshold)[None]) @ modes.T
        return inverse, values[0], modes[:, 0], jnp.asarray(True)

    known = definite | ~wanted
    # the matrix is carried, or the compiler would take what does not change out of the loop
    first = jax.lax.select(known, inverse, balanced), jnp.asarray(jnp.inf, root.dtype), jnp.zeros_like(root), known
    inverse, eigenvalue, mode, _ = jax.lax.while_loop(lambda carry: ~carry[3], decomposed, first)
    direction = -root * (inverse @ (root * at.gradient))
    direction = jnp.where(definite, direction, _within(direction, at.spacing))
    step = jnp.max(jnp.abs(direction), initial=0.0) / at.size
    stability = Stability(eigenvalue, step, rounding_of(inverse, root, at.scale, at.size))
    return Outlook(direction, stability, root * mode)


def by_sparse_factor(
    objective: Objective,
    at: Balance,
    anchor: Anchor,
    wanted: Bool[Array, ""],
    balanced: Bool[Array, ""],
    last: Float[Array, ""] | float = jnp.inf,
) -> Outlook:
    """By conjugate gradients on the Hessian, preconditioned by the factor at an anchor; where it is `wanted`. The
    factor, or else one at hand, tells of the stability of a state that is `balanced`; of others nothing is known.

    Where forces balance and the `last` step was short none that follows is computed: it would be shorter.
    """
    net, topology = objective.net, objective.net.topology
    blocks = at.springs.blocks
    solve = lambda right: _on_host(functools.partial(_solved, topology), right, *jax.tree.leaves(anchor), right)

    def product(way):
        moved = topology.vectors(topology.placed(way, jnp.zeros_like(objective.prescribed)))
        felt = -topology.meet(jnp.sum(blocks * moved[:, None, :], axis=2))[0]
        if at.curvature is None:
            return felt
        return felt + objective.spread(at.curvature @ taken(way, objective.read))

    there = balanced & (last <= state_tolerance(at.energy.dtype) / 4 * at.size)
    direction, count = truncated_newton(product, solve, at, wanted & ~there)
    step = jnp.where(there, last, jnp.max(jnp.abs(direction), initial=0.0))
    none = jnp.zeros((), direction.dtype)
    unknown = (none + jnp.inf, jnp.zeros_like(direction), step, none + jnp.inf)
    curvature = jnp.zeros((0, 0), direction.dtype) if at.curvature is None else at.curvature
    here = Anchor(at.springs.stiffness, net.rest_length, at.positions)
    arrays = *jax.tree.leaves(anchor), *jax.tree.leaves(here), curvature, at.gradient, at.scale
    host = functools.partial(_verdict, topology, objective.read)
    judged = lambda: _on_host(host, unknown, *arrays, at.size, step, wanted & balanced)
    eigenvalue, mode, step, rounding = jax.lax.cond(wanted & balanced, judged, lambda: unknown)
    stability = Stability(eigenvalue, step / at.size, rounding / at.size)
    return Outlook(direction, stability, mode, count)


def truncated_newton(
    product: Callable[[Array], Array], solve: Callable[[Array], Array], at: Balance, wanted: Bool[Array, ""]
) -> tuple[Float[Array, "free"], Array]:
    """The step of Newton's method by preconditioned conjugate gradients, as exactly as it is worth; (step, count).

    They stop where the forces have fallen, and before a direction of negative curvature, which is taken if it is the
    first.
    """
    largest = lambda vector: jnp.max(jnp.abs(vector), initial=0.0)
    tiny = float(jnp.finfo(at.gradient.dtype).tiny)

    def advance(carry):
        move, left, way, weight, count, _ = carry
        steered = solve(left)
        new_weight = jnp.sum(left * steered)
        way = steered + new_weight / weight * way
        curved = product(way)
        curvature = jnp.sum(way * curved)
        positive = curvature > 0
        reach = largest(way)
        stride = jnp.where(positive, new_weight / jnp.where(positive, curvature, 1.0), 0.0)
        stride = jnp.where(positive | (count > 0), stride, jnp.minimum(1.0, at.spacing / (reach + tiny)))
        move = move + stride * way
        left = left - stride * curved
        more = jnp.sum((left / at.scale) ** 2) > ENOUGH**2 * at.uneven
        return move, left, way, new_weight, count + 1, positive & more

    none = jnp.zeros_like(at.gradient)
    first = (none, -at.gradient, none, jnp.full_like(at.energy, jnp.inf), jnp.zeros((), jnp.int32), wanted)
    move, *_, count, _ = jax.lax.while_loop(lambda carry: carry[5] & (carry[4] < 100), advance, first)
    return move, count


def _inverted(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    return inverse_of(jax.lax.linalg.cholesky(matrix, symmetrize_input=False))


def _within(way: Float[Array, "free"], reach: Float[Array, ""]) -> Float[Array, "free"]:
    """A direction shortened so that no coordinate moves farther."""
    farthest = jnp.max(jnp.abs(way), initial=0.0)
    return way * jnp.where(farthest > reach, reach / farthest, 1.0)


def _on_host(function: Callable, like: PyTree, *arrays: Array) -> PyTree:
    """function(*arrays) in numpy, example by example of a batch; `like` says what comes back."""
    own = [jnp.ndim(array) for array in arrays]
    leaves, structure = jax.tree.flatten(like)

    def host(*arrays):
        leading, examples = sparse_factor.examples(*zip(arrays, own, strict=True))
        found = [jax.tree.leaves(function(*example)) for example in examples]
        parts = zip(leaves, *found, strict=True)
        return structure.unflatten([np.asarray(part, old.dtype).reshape(leading + old.shape) for old, *part in parts])

    shapes = structure.unflatten([jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves])
    return on_host(host, shapes, *arrays, vmap_method="expand_dims")


def _solved(topology: Topology, *arrays: np.ndarray) -> np.ndarray:
    *anchor, right = arrays
    inverse = grid.grid_at if grid.by_grid(topology) else sparse_factor.anchor_factor
    return inverse(topology, anchor).solve(right[None])[0]


def _verdict(topology: Topology, read: np.ndarray, *arrays: np.ndarray) -> tuple[Any, ...]:
    *springs, curvature, left, scale, size, step, wanted = arrays
    if not wanted:
        return np.inf, np.zeros_like(left), step, 0.0
    extra = (read, np.asarray(curvature, float)) if np.any(curvature) else None
    if grid.by_grid(topology):
        eps = float(np.finfo(scale.dtype).eps)
        forces, threshold = (left, eps * scale), zero_mode_threshold(scale.dtype)
        return tuple(grid.softest(topology, springs[3:], extra, threshold, forces=forces, anchor=springs[:3]))
    return tuple(
        sparse_factor.verdict(topology, springs[:3], springs[3:], extra, (left, scale), float(size), float(step))
    )
