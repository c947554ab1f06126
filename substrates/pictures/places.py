"""Where the nodes of a graph lie on the page."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from substrates.wiring import connected_parts, lattice_edges

MOST_BY_STRESS = 150
"""Up to so many nodes every distance on the page is fitted to one in the graph."""

PIVOTS = 50
"""So many nodes to which distances are taken in larger graphs; fewer where that would take longer than a second."""


def grid_positions(rows: int, columns: int) -> np.ndarray:
    """Places (rows * columns, 2) of the nodes of a square lattice numbered row by row, the first row on top."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    return np.stack([column, -row], axis=1).astype(float)


def places_of(n: int, edges: Any, what: str, positions: Any = None) -> np.ndarray:
    """(n, 2) places of nodes: those given, or on their grid where the edges are those of a lattice of two dimensions,
    or such that distances on the page follow those in the graph (Kamada and Kawai 1989; for more than
    `MOST_BY_STRESS` nodes distances to `PIVOTS` of them, Brandes and Pich 2007, "Eigensolver methods for progressive
    multidimensional scaling").

    Args:
        n: the number of nodes.
        edges: pairs of nodes, shape (m, 2).
        what: what a node is, for the error.
        positions: (n, 2), or None.

    Raises ValueError for positions of another shape, or not finite.
    """
    if positions is not None:
        places = np.asarray(positions, dtype=float)
        if places.shape != (n, 2) or not np.all(np.isfinite(places)):
            raise ValueError(f"positions: wanted shape ({n}, 2), one finite place per {what}, got {places.shape}")
        return places
    return _found(n, np.asarray(edges, int).tobytes())


@lru_cache(maxsize=32)
def _found(n: int, pairs: bytes) -> np.ndarray:
    """Kept, for pictures are drawn again and again while their graph stays."""
    edges = np.frombuffer(pairs, int).reshape(-1, 2)
    columns = _columns(n, edges)
    if columns:
        return grid_positions(n // columns, columns)
    return _by_stress(n, edges) if n <= MOST_BY_STRESS else _by_pivots(n, edges)


def _columns(n: int, edges: np.ndarray) -> int:
    """How many columns the grid has of which these are the edges, periodic or not; 0 where there is none."""
    known = lambda pairs: np.unique(np.sort(pairs, axis=1) @ np.array([n, 1]))  # one number a pair sorts fast
    wanted = known(edges)
    neighbours = wanted[wanted < n]
    for columns in neighbours[(neighbours > 1) & (neighbours < n)].tolist():
        if n % columns == 0:
            for periodic in (False, True):
                if np.array_equal(known(lattice_edges((n // columns, columns), periodic)), wanted):
                    return columns
    return 0


def _by_stress(n: int, edges: np.ndarray) -> np.ndarray:
    import networkx as nx

    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(edges.tolist())
    places = nx.kamada_kawai_layout(graph)
    return np.array([places[node] for node in range(n)])


def _by_pivots(n: int, edges: np.ndarray) -> np.ndarray:
    import scipy.sparse

    graph = scipy.sparse.csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n))
    steps = lambda nodes: scipy.sparse.csgraph.shortest_path(graph, directed=False, unweighted=True, indices=nodes)
    part = connected_parts(n, edges)
    places, right = np.zeros((n, 2)), 0.0
    most = int(np.clip(PIVOTS * 20_000 / n, 8, PIVOTS))
    for members in (np.flatnonzero(part == number) for number in np.unique(part)):
        distances, pivots = np.empty((0, len(members))), [int(members[0])]
        while len(pivots) <= min(most, len(members)):
            distances = np.vstack([distances, steps(pivots[-1])[members]])
            pivots.append(int(members[np.argmax(distances.min(axis=0))]))
        squares = distances.T**2
        centred = squares - squares.mean(axis=0) - squares.mean(axis=1, keepdims=True) + squares.mean()
        left, sizes, _ = np.linalg.svd(-0.5 * centred, full_matrices=False)
        found = np.zeros((len(members), 2))
        flat = (left * np.sqrt(sizes / max(sizes[0], 1.0)))[:, :2]
        found[:, : flat.shape[1]] = flat / max(float(np.abs(flat).max()), 1e-9) * len(members) ** 0.5 / 2
        found[:, 0] += right - found[:, 0].min()
        places[members] = found
        right = places[members, 0].max() + 1.0
    return places
