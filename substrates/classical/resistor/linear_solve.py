"""Solves linear equations with a circuit's conductance matrix: by elimination in JAX, or sparse on the host."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Inexact

from substrates.classical.resistor.layout import Layout
from substrates.classical.resistor.sparse_inverse import FINE, ROUGH, WIDEST, inverse_of, pattern
from substrates.classical.resistor.star_mesh import star_mesh, with_held
from substrates.classical.resistor.topology import Topology
from substrates.solvers.batching import in_turn
from substrates.solvers.certificate import state_tolerance
from substrates.solvers.host import on_host
from substrates.wiring import summed

DENSE_SIZE = 128
"""Up to so many potentials the nodes of a circuit are eliminated one by one."""


class Solved(NamedTuple):
    """Potentials u with M u = current.

    Attributes:
        potentials: u.
        positive: whether M is positive definite; for a circuit without an energy, whether its determinant is positive,
            which an instability ends first; for complex numbers always true.
        precise: whether rounding leaves the potentials to a small part of themselves, as far as the method tells; what
            is solved by Cholesky or LU does not (`NewtonCircuit.decided`).
    """

    potentials: Inexact[Array, "potentials"]
    positive: Bool[Array, ""]
    precise: Bool[Array, ""]


Solve = Callable[..., Solved]


def conductance_solver(topology: Topology, dtype: Any, dense_size: int = DENSE_SIZE, widest: int = WIDEST) -> Solve:
    """A function (conductance, current, curvature) -> `Solved` that solves M u = current.

    M = K + O_S' curvature O_T: K is the conductance matrix of the elements (resistors, then, if their conductances
    are given too, diodes), the rest is what a nudge adds at the outputs.

    Up to `dense_size` potentials nodes are eliminated one by one (`star_mesh`), which conductances of any size leave
    exact; circuits with controlled sources, which are no networks of conductances, by Cholesky or LU. Above, in a host
    callback, by an `inverse_of` K (sparse factors, or multigrid for bands wider than `widest`) that all right-hand
    sides with the same conductances share, refined by the currents that single elements carry.
    """
    symmetric = topology.conservative and not jnp.issubdtype(dtype, jnp.complexfloating)
    if topology.size > dense_size:
        return functools.partial(_solve_sparse, topology, widest, symmetric)
    if eliminates(topology, dense_size):
        return functools.partial(_solve_by_elimination, topology)
    return functools.partial(_solve_dense, topology, symmetric)


def eliminates(topology: Topology, dense_size: int = DENSE_SIZE) -> bool:
    """Whether potentials come out exactly, however far conductances are apart."""
    return topology.size <= dense_size and not topology.count("controlled_sources")


def conductances(
    topology: Topology, conductance: Inexact[Array, "elements"], curvature: Inexact[Array, "outputs outputs"] | None
) -> tuple[Inexact[Array, "potentials potentials"], Inexact[Array, "potentials"]]:
    """The conductances between independent potentials and from each to the sources, of a circuit without controlled
    sources; a curvature at the outputs counts as conductances among them and to ground.
    """
    size = topology.size
    joined = summed(conductance, topology.maps.cells[: conductance.size], (size + 1) ** 2).reshape(size + 1, size + 1)
    joined += joined.T
    between, grounded = joined[:size, :size], joined[:size, size]
    if curvature is not None:
        read = topology.maps.read_test.dense(conductance.dtype)
        added = read.T @ curvature
        between -= added @ read
        grounded += added @ jnp.sum(read, axis=1)
    return between, grounded


def _by_cholesky(matrix: Array, current: Array) -> tuple[Array, Array]:
    factor = jnp.linalg.cholesky(matrix, symmetrize_input=False)
    return jax.scipy.linalg.cho_solve((factor, True), current), factor


def _by_elimination(matrix: Array, current: Array) -> tuple[Array, Array, Array]:
    factor, pivots = jax.scipy.linalg.lu_factor(matrix)
    return jax.scipy.linalg.lu_solve((factor, pivots), current), factor, pivots


def _solve_by_elimination(
    topology: Topology,
    conductance: Array,
    current: Array,
    curvature: Array | None,
    at_bound: Array | None = None,
    bound: Any = None,
) -> Solved:
    circuit = (*conductances(topology, conductance, curvature), current)
    potentials, pivots = star_mesh(*(circuit if at_bound is None else with_held(*circuit, at_bound, bound)))
    held = jnp.asarray(True) if jnp.iscomplexobj(pivots) else jnp.all(pivots > 0)
    return Solved(potentials, held, jnp.asarray(True))


def _solve_dense(
    topology: Topology, symmetric: bool, conductance: Array, current: Array, curvature: Array | None
) -> Solved:
    size = topology.size
    matrix = _matrix(topology, lambda part: part, conductance, curvature)
    if symmetric:
        solution, factor = in_turn(_by_cholesky)(matrix, current)
        return Solved(solution, jnp.all(jnp.isfinite(factor)), jnp.asarray(True))
    solution, factor, pivots = in_turn(_by_elimination)(matrix, current)
    if jnp.iscomplexobj(matrix):
        return Solved(solution, jnp.asarray(True), jnp.asarray(True))
    pivot = jnp.diagonal(factor)
    odd = (jnp.sum(pivots != jnp.arange(size, dtype=pivots.dtype)) + jnp.sum(pivot < 0)) % 2
    return Solved(solution, (odd == 0) & jnp.all(pivot != 0), jnp.asarray(True))


def matrix_rounding(
    topology: Topology,
    inverse: Inexact[Array, "potentials potentials"],
    conductance: Inexact[Array, "elements"],
    curvature: Inexact[Array, "outputs outputs"] | None,
) -> Inexact[Array, ""]:
    """The part of itself by which a column of M^-1 may be off, the largest: |M^-1| eps |M| |M^-1|, with the sum of the
    sizes of its terms for |M|. A refinement leaves so much of an error over.
    """
    sizes = _matrix(topology, jnp.abs, conductance, curvature)
    off = jnp.abs(inverse) @ (sizes @ jnp.abs(inverse))
    return float(jnp.finfo(off.dtype).eps) * jnp.max(jnp.max(off, axis=0) / jnp.max(jnp.abs(inverse), axis=0))


def _matrix(
    topology: Topology, each: Callable[[Array], Array], conductance: Array, curvature: Array | None
) -> Inexact[Array, "potentials potentials"]:
    """M, or the sum of `each` of what it is made of."""
    size, dtype, conductance = topology.size, conductance.dtype, each(conductance)
    if topology.compiled is None:
        maps = topology.maps.leaving, topology.maps.drops
        left, right = (each(by.dense(dtype)[: conductance.size, :size]) for by in maps)
        matrix = (left.T * conductance[None]) @ right
    else:
        rows, columns, element, coefficient = pattern(topology.compiled, conductance.size)
        terms = each(jnp.asarray(coefficient, dtype)) * conductance[element]
        matrix = jnp.zeros((size, size), dtype).at[rows, columns].add(terms)
    if curvature is not None:
        read = topology.maps.read.dense(dtype)[:, :size]
        matrix += each(topology.maps.read_test.dense(dtype).T) @ each(curvature) @ each(read)
    return matrix


def _solve_sparse(
    topology: Topology,
    widest: int,
    symmetric: bool,
    conductance: Array,
    current: Array,
    curvature: Array | None,
) -> Solved:
    shapes = (jax.ShapeDtypeStruct(current.shape, current.dtype), *(2 * (jax.ShapeDtypeStruct((), jnp.bool_),)))
    curvature = jnp.zeros((0, 0), current.dtype) if curvature is None else curvature
    sizes = eqx.filter(topology, eqx.is_array, inverse=True)
    graph = () if topology.compiled else (topology.nodes, topology.gains)
    host = functools.partial(_solve_batch, sizes, widest, symmetric)
    return Solved(*on_host(host, shapes, conductance, current, curvature, *graph, vmap_method="expand_dims"))


def _solve_batch(
    topology: Topology, widest: int, symmetric: bool, *arrays: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The host's side: every array may have leading batch axes, of length 1 where the batch shares a value."""
    arrays = tuple(map(np.asarray, arrays))
    axes = (1, 1, 2, 1, 2)
    leading = np.broadcast_shapes(*(a.shape[: a.ndim - own] for a, own in zip(arrays, axes, strict=False)))
    count = math.prod(leading)
    rows = [
        np.broadcast_to(a, leading + a.shape[a.ndim - own :]).reshape(count, *a.shape[a.ndim - own :])
        for a, own in zip(arrays, axes, strict=False)
    ]
    conductances, currents, curvatures, *graphs = rows
    shared = all(math.prod(arrays[k].shape[: arrays[k].ndim - axes[k]]) == 1 for k in (0, *range(3, len(arrays))))
    batches = [slice(0, count)] if shared else [slice(k, k + 1) for k in range(count)]
    solutions = np.empty(currents.shape, currents.dtype)
    positive, precise = np.zeros(count, bool), np.zeros(count, bool)
    for batch in batches:
        layout = topology.unpacked(*(graph[batch][0] for graph in graphs)) if graphs else topology.layout
        solutions[batch], positive[batch], precise[batch] = _solve_shared(
            layout, widest, symmetric, conductances[batch][0], currents[batch], curvatures[batch]
        )
    return solutions.reshape(leading + currents.shape[1:]), positive.reshape(leading), precise.reshape(leading)


REFINEMENTS = 4
"""A sparse solution is refined at most so often; once, unless that changes it."""


def _solve_shared(
    layout: Layout, widest: int, symmetric: bool, conductance: np.ndarray, currents: np.ndarray, curvatures: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inverts K once; then M^-1 = K^-1 - K^-1 O_S' (1 + C O_T K^-1 O_S')^-1 C O_T K^-1 for every curvature C.

    Solutions are refined by the currents that the elements carry: of the difference of two potentials nothing is
    lost, as there is in the diagonal of K. So the inverse needs to know K only roughly.
    """
    wide = np.complex128 if np.iscomplexobj(currents) else np.float64
    conductance, currents, curvatures = (array.astype(wide) for array in (conductance, currents, curvatures))
    inverse = inverse_of(layout, widest, symmetric, conductance)
    collect, drops = _element_maps(layout, len(conductance))
    carried = lambda rows: (collect @ (conductance[:, None] * (drops @ rows.T))).T
    if curvatures.shape[-1] == 0:
        solutions, precise = _refined(inverse.solve, carried, currents)
        return solutions, np.full(len(currents), inverse.positive), precise
    left, right, spread = inverse.left, inverse.right, inverse.spread
    solutions, precise = np.empty_like(currents), np.zeros(len(currents), bool)
    positive = np.full(len(currents), inverse.positive)
    for k, curvature in enumerate(curvatures):
        inner = np.eye(len(curvature)) + curvature @ (right @ spread)
        correct = lambda u, c=curvature, i=inner: u - spread @ np.linalg.solve(i, c @ (right @ u))
        solutions[k : k + 1], precise[k : k + 1] = _refined(
            lambda rows, part, f=correct: f(inverse.solve(rows, part)[0])[None],
            lambda rows, c=curvature: carried(rows) + (left.T @ (c @ (right @ rows[0])))[None],
            currents[k : k + 1],
        )
        if positive[k] and wide is np.float64:
            eigenvalues = np.linalg.eigvals(inner)
            positive[k] = np.all(eigenvalues.real > 0) if symmetric else np.linalg.det(inner) > 0
    return solutions, positive, precise


def _refined(
    solve: Callable[[np.ndarray, float], np.ndarray],
    carried: Callable[[np.ndarray], np.ndarray],
    currents: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Solutions, one per row, refined until that changes them no more; and whether it came to that."""
    solutions = solve(currents, FINE)
    enough = state_tolerance(np.float64) * np.max(np.abs(solutions), axis=1, initial=0.0)
    for _ in range(REFINEMENTS):
        change = solve(currents - carried(solutions), ROUGH)
        solutions = solutions + change
        precise = np.max(np.abs(change), axis=1, initial=0.0) <= enough
        if precise.all():
            break
    return solutions, precise


@functools.lru_cache(maxsize=16)
def _element_maps(layout: Layout, elements: int) -> tuple[Any, Any]:
    """(B', A): B' sums the currents that leave through elements, A u are their drops."""
    left, right = layout.elements
    return left[:elements].T.tocsr(), right[:elements]
