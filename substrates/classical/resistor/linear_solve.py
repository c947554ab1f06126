"""Solves linear equations with a circuit's conductance matrix: dense in JAX, or sparse through SciPy."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Inexact

from substrates.classical.resistor.topology import Topology
from substrates.solvers.batching import in_turn

Solve = Callable[[Array, Array, Array | None], tuple[Array, Array]]


def conductance_solver(topology: Topology, dtype: Any, dense_size: int = 512) -> Solve:
    """A function (conductance, current, curvature) -> (potentials, positive) that solves M u = current.

    M = K + O_S' curvature O_T: K is the conductance matrix of the elements (resistors, then, if their conductances
    are given too, diodes), the rest is what a nudge adds at the outputs. `positive` says whether M is positive
    definite; for a circuit without an energy, whether its determinant is positive, which an instability ends first;
    for complex numbers it is always true.

    Up to `dense_size` potentials M is factorised by Cholesky or LU; above, by SuperLU in a host callback, once for all
    right-hand sides of a batch that shares its conductances.
    """
    symmetric = topology.conservative and not jnp.issubdtype(dtype, jnp.complexfloating)
    if len(topology.potentials) <= dense_size:
        return functools.partial(_solve_dense, topology, symmetric)
    return functools.partial(_solve_sparse, topology, symmetric)


def _pattern(topology: Topology, elements: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rows, columns, element, coefficient = topology.conductance_pattern
    if elements == len(topology.edges):
        resistors = element < elements
        return rows[resistors], columns[resistors], element[resistors], coefficient[resistors]
    return rows, columns, element, coefficient


def _by_cholesky(matrix: Array, current: Array) -> tuple[Array, Array]:
    factor = jnp.linalg.cholesky(matrix, symmetrize_input=False)
    return jax.scipy.linalg.cho_solve((factor, True), current), factor


def _by_elimination(matrix: Array, current: Array) -> tuple[Array, Array, Array]:
    factor, pivots = jax.scipy.linalg.lu_factor(matrix)
    return jax.scipy.linalg.lu_solve((factor, pivots), current), factor, pivots


def _solve_dense(
    topology: Topology, symmetric: bool, conductance: Array, current: Array, curvature: Array | None
) -> tuple[Inexact[Array, "potentials"], Bool[Array, ""]]:
    size, dtype = len(topology.potentials), conductance.dtype
    rows, columns, element, coefficient = _pattern(topology, conductance.shape[0])
    matrix = jnp.zeros((size, size), dtype).at[rows, columns].add(coefficient.astype(dtype) * conductance[element])
    if curvature is not None:
        matrix += topology.read_test_map.dense(dtype).T @ curvature @ topology.read_map.dense(dtype)
    if symmetric:
        solution, factor = in_turn(_by_cholesky)(matrix, current)
        return solution, jnp.all(jnp.isfinite(factor))
    solution, factor, pivots = in_turn(_by_elimination)(matrix, current)
    if jnp.iscomplexobj(matrix):
        return solution, jnp.asarray(True)
    pivot = jnp.diagonal(factor)
    odd = (jnp.sum(pivots != jnp.arange(size, dtype=pivots.dtype)) + jnp.sum(pivot < 0)) % 2
    return solution, (odd == 0) & jnp.all(pivot != 0)


def _solve_sparse(
    topology: Topology, symmetric: bool, conductance: Array, current: Array, curvature: Array | None
) -> tuple[Inexact[Array, "potentials"], Bool[Array, ""]]:
    shapes = (jax.ShapeDtypeStruct(current.shape, current.dtype), jax.ShapeDtypeStruct((), jnp.bool_))
    curvature = jnp.zeros((0, 0), current.dtype) if curvature is None else curvature
    host = functools.partial(_solve_batch, topology, symmetric)
    return jax.pure_callback(host, shapes, conductance, current, curvature, vmap_method="expand_dims")


def _solve_batch(
    topology: Topology, symmetric: bool, conductance: Any, current: Any, curvature: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The host's side: every array may have leading batch axes, of length 1 where the batch shares a value."""
    conductance, current, curvature = np.asarray(conductance), np.asarray(current), np.asarray(curvature)
    leading = np.broadcast_shapes(conductance.shape[:-1], current.shape[:-1], curvature.shape[:-2])
    own = (conductance.shape[-1:], current.shape[-1:], curvature.shape[-2:])
    count = math.prod(leading)
    conductances, currents, curvatures = (
        np.broadcast_to(array, leading + shape).reshape(count, *shape)
        for array, shape in zip((conductance, current, curvature), own, strict=True)
    )
    shared = math.prod(conductance.shape[:-1]) == 1
    batches = [slice(0, count)] if shared else [slice(k, k + 1) for k in range(count)]
    solutions, positive = np.empty(currents.shape, currents.dtype), np.zeros(count, bool)
    for batch in batches:
        solutions[batch], positive[batch] = _solve_shared(
            topology, symmetric, conductances[batch][0], currents[batch], curvatures[batch]
        )
    return solutions.reshape(leading + own[1]), positive.reshape(leading)


def _solve_shared(
    topology: Topology, symmetric: bool, conductance: np.ndarray, currents: np.ndarray, curvatures: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Factorises K once; then M^-1 = K^-1 - K^-1 O_S' (1 + C O_T K^-1 O_S')^-1 C O_T K^-1 for every curvature C."""
    import scipy.sparse.linalg

    wide = np.complex128 if np.iscomplexobj(currents) else np.float64
    matrix = _sparse_matrix(topology, conductance.astype(wide))
    symmetric_mode: Any = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    no_solution = np.full(currents.shape, np.nan), np.zeros(len(currents), bool)
    if not np.all(np.isfinite(matrix.data)):
        return no_solution
    try:
        factors = scipy.sparse.linalg.splu(matrix, **(symmetric_mode if symmetric else {}))
    except RuntimeError:  # exactly singular
        return no_solution
    solve = lambda rows: factors.solve(np.ascontiguousarray(rows.T)).T
    positive = np.full(len(currents), wide is np.complex128 or _is_positive(factors, symmetric))
    currents = currents.astype(wide)
    solutions = solve(currents)
    outputs = curvatures.shape[-1]
    if outputs == 0:
        return solutions + solve(currents - (matrix @ solutions.T).T), positive
    left, right = topology.read_test_map.to_scipy(), topology.read_map.to_scipy()
    spread = solve(left.toarray().astype(wide)).T
    for k, curvature in enumerate(curvatures.astype(wide)):
        inner = np.eye(outputs) + curvature @ (right @ spread)
        correct = lambda u, c=curvature, i=inner: u - spread @ np.linalg.solve(i, c @ (right @ u))
        solution = correct(solutions[k])
        residual = currents[k] - matrix @ solution - left.T @ (curvature @ (right @ solution))
        solutions[k] = solution + correct(solve(residual[None])[0])
        if wide is np.float64:
            positive[k] &= bool(np.all(np.linalg.eigvals(inner).real > 0) if symmetric else np.linalg.det(inner) > 0)
    return solutions, positive


@functools.lru_cache(maxsize=16)
def _column_pattern(topology: Topology, elements: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row indices, column pointers, position of every contribution) of K in compressed columns."""
    rows, columns, _, _ = _pattern(topology, elements)
    size = len(topology.potentials)
    occupied, position = np.unique(columns.astype(np.int64) * size + rows, return_inverse=True)
    pointers = np.searchsorted(occupied, np.arange(size + 1) * size)
    return (occupied % size).astype(np.int32), pointers.astype(np.int32), position


def _sparse_matrix(topology: Topology, conductance: Any) -> Any:
    import scipy.sparse

    _, _, element, coefficient = _pattern(topology, len(conductance))
    indices, pointers, position = _column_pattern(topology, len(conductance))
    values = coefficient * conductance[element]
    total = lambda part: np.bincount(position, weights=part, minlength=len(indices))
    entries = total(values.real) + 1j * total(values.imag) if np.iscomplexobj(values) else total(values)
    size = len(topology.potentials)
    return scipy.sparse.csc_array((entries, indices, pointers), shape=(size, size))


def _is_positive(factors: Any, symmetric: bool) -> bool:
    pivot = factors.U.diagonal()
    if symmetric:
        return bool(np.all(pivot > 0) and np.array_equal(factors.perm_r, factors.perm_c))
    odd = np.sum(pivot < 0) + _is_odd(factors.perm_r) + _is_odd(factors.perm_c)
    return bool(odd % 2 == 0 and np.all(pivot != 0))


def _is_odd(permutation: np.ndarray) -> bool:
    import scipy.sparse
    import scipy.sparse.csgraph

    size = len(permutation)
    graph = scipy.sparse.coo_array((np.ones(size), (np.arange(size), permutation)), shape=(size, size))
    cycles = scipy.sparse.csgraph.connected_components(graph, directed=False)[0]
    return bool((size - cycles) % 2)
