"""Lattices, disordered packings, layers: where their nodes stand and which are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import PRNGKeyArray

_HALF3 = 3**0.5 / 2

KINDS: dict[str, tuple[Any, Any, tuple[float, ...]]] = {
    "square": (np.eye(2), [[0, 0]], (1.0,)),
    "braced square": (np.eye(2), [[0, 0]], (1.0, 2**0.5)),
    "triangular": ([[1, 0], [0, 2 * _HALF3]], [[0, 0], [0.5, _HALF3]], (1.0,)),
    "honeycomb": ([[2 * _HALF3, 0], [0, 3]], [[0, 0], [_HALF3, 0.5], [_HALF3, 1.5], [0, 2]], (1.0,)),
    "kagome": (
        [[2, 0], [0, 4 * _HALF3]],
        [[0, 0], [1, 0], [0.5, _HALF3], [1, 2 * _HALF3], [0, 2 * _HALF3], [1.5, 3 * _HALF3]],
        (1.0,),
    ),
    "cubic": (np.eye(3), [[0, 0, 0]], (1.0,)),
    "braced cubic": (np.eye(3), [[0, 0, 0]], (1.0, 2**0.5)),
    "bcc": (np.eye(3) * 2 / 3**0.5, [[0, 0, 0], [3**-0.5] * 3], (1.0, 2 / 3**0.5)),
    "fcc": (
        np.eye(3) * 2**0.5,
        np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2**0.5,
        (1.0,),
    ),
}
"""Kinds of lattice: rows of the (right-angled) cell, the nodes in it, and the lengths of the springs, in spacings."""

SIDES = {"left": (0, 0), "right": (0, 1), "bottom": (1, 0), "top": (1, 1), "front": (2, 0), "back": (2, 1)}
"""Names of sides: (axis, whether the far end)."""


def lattice_points(kind: str, shape: Sequence[int], spacing: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Where the nodes of a lattice stand, shape (n, dim), and the springs between neighbours, shape (m, 2).

    Args:
        kind: see `ElasticNetwork.lattice`.
        shape: for "square", "triangular" and "cubic" lattices (braced or not) nodes along each axis, for the others
            unit cells.
        spacing: between nearest neighbours, metres.
    """
    from scipy.spatial import KDTree

    if kind not in KINDS:
        raise ValueError(f"kind: wanted one of {', '.join(KINDS)}, got {kind!r}")
    cell, basis, lengths = (np.asarray(part, float) for part in KINDS[kind])
    dim = len(cell)
    counts = np.atleast_1d(np.asarray(shape))
    if counts.shape != (dim,) or not np.issubdtype(counts.dtype, np.integer) or counts.min() < 1:
        raise ValueError(f"shape: wanted {dim} positive whole numbers for a {kind} lattice, got {shape!r}")
    _refuse_not_positive(spacing=spacing)
    if kind == "triangular":  # row by row, every other row shifted by half a spacing
        row, column = np.divmod(np.arange(counts[0] * counts[1]), counts[0])
        points = np.stack([column + 0.5 * (row % 2), _HALF3 * row], axis=1)
    else:
        corners = np.stack(np.meshgrid(*map(np.arange, counts[::-1]), indexing="ij"), axis=-1)[..., ::-1]
        points = (corners.reshape(-1, 1, dim) @ cell + basis).reshape(-1, dim)
    pairs = KDTree(points).query_pairs(lengths.max() * 1.001, output_type="ndarray")
    apart = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    pairs = pairs[np.any(np.abs(apart[:, None] - lengths) < 1e-6, axis=1)]
    return spacing * points, pairs[np.lexsort(pairs.T[::-1])].astype(int)


def lattice(
    kind: str, shape: Sequence[int], spacing: float, disorder: float, key: PRNGKeyArray | None
) -> tuple[np.ndarray, np.ndarray, dict[str, list[int]]]:
    """(where nodes stand, springs, the nodes of each side) of the network that `ElasticNetwork.lattice` describes."""
    points, edges = lattice_points(kind, shape, spacing)
    sides = side_nodes(points, 0.75 * spacing if kind in ("honeycomb", "kagome", "triangular") else 0.25 * spacing)
    if not (np.isfinite(disorder) and 0 <= disorder < 0.5):
        raise ValueError(f"disorder: wanted a part of the spacing from 0 to below 0.5, got {disorder}")
    if disorder > 0:
        if key is None:
            raise ValueError("key: wanted a key that draws the disorder, got None")
        points = points + spacing * np.asarray(jax.random.uniform(key, points.shape, float, -disorder, disorder))
    return points, edges, sides


def packing(
    n: int, dim: int, coordination: float | None, key: PRNGKeyArray
) -> tuple[np.ndarray, np.ndarray, dict[str, list[int]]]:
    """(where nodes stand, springs, the nodes of each side) of the network that `ElasticNetwork.packing` describes."""
    if dim not in (2, 3):
        raise ValueError(f"dim: wanted 2 or 3, got {dim}")
    if not isinstance(n, int | np.integer) or n < 2 * dim + 2:
        raise ValueError(f"n: wanted a whole number of nodes, at least {2 * dim + 2}, got {n!r}")
    draw = _drawing(key)
    points = spread_points(int(n), dim, draw)
    edges = delaunay_edges(points)
    if coordination is not None:
        edges = thinned(edges, len(points), dim, coordination, draw)
    return points, edges, side_nodes(points, 0.6 * len(points) ** (-1 / dim))


def spread_points(n: int, dim: int, draw: np.random.Generator) -> np.ndarray:
    """n random points in the unit square or cube, evened out: each moves to the mean of the samples nearest to it.

    Source: Lloyd 1982, "Least squares quantization in PCM", with the box sampled at random.
    """
    from scipy.spatial import KDTree

    points = draw.random((n, dim))
    for _ in range(8):
        samples = draw.random((60 * n, dim))
        nearest = KDTree(points).query(samples)[1]
        count = np.bincount(nearest, minlength=n)
        sums = np.stack([np.bincount(nearest, samples[:, axis], minlength=n) for axis in range(dim)], axis=1)
        points = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], points)
    return points


def delaunay_edges(points: np.ndarray) -> np.ndarray:
    """The edges of the Delaunay triangulation without the long ones that close its hull, shape (m, 2)."""
    from scipy.spatial import Delaunay

    simplices = Delaunay(points).simplices
    corners = np.arange(simplices.shape[1])
    pairs = np.concatenate([simplices[:, [a, b]] for a in corners for b in corners if a < b])
    edges = np.unique(np.sort(pairs, axis=1), axis=0)
    lengths = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    return edges[lengths <= 2.2 * np.median(lengths)].astype(int)


def thinned(edges: np.ndarray, n: int, dim: int, coordination: float, draw: np.random.Generator) -> np.ndarray:
    """The edges with some taken out at random, down to a mean number per node, dim + 1 left at every node."""
    degree = np.bincount(edges.ravel(), minlength=n)
    target = round(coordination * n / 2)
    if not dim + 1 <= coordination <= degree.mean() + 1e-9:
        raise ValueError(
            f"coordination: wanted a number from {dim + 1} to {degree.mean():.3g}, which the triangulation has, got "
            f"{coordination}"
        )
    kept = np.ones(len(edges), bool)
    for edge in draw.permutation(len(edges)):
        if kept.sum() <= target:
            break
        if np.all(degree[edges[edge]] > dim + 1):
            kept[edge] = False
            degree[edges[edge]] -= 1
    if kept.sum() > target:
        raise ValueError(
            f"coordination: wanted {coordination}, but {dim + 1} springs at every node leave no fewer than "
            f"{2 * kept.sum() / n:.3g}: raise it"
        )
    return edges[kept]


def side_nodes(points: np.ndarray, reach: float) -> dict[str, list[int]]:
    """The nodes of each side: those within `reach` of the end of the network along its axis."""
    found = {}
    for name, (axis, far) in SIDES.items():
        if axis < points.shape[1]:
            along = points[:, axis]
            near = along >= along.max() - reach if far else along <= along.min() + reach
            found[name] = np.flatnonzero(near).tolist()
    return found


def by_sides(sides: dict[str, list[int]], **words: Sequence[Any]) -> dict[str, list[Any]]:
    """Arguments that name nodes, with the names of sides replaced by their nodes; each node is named once."""
    return {name: _without_sides(name, entries, sides) for name, entries in words.items()}


def _without_sides(name: str, entries: Sequence[Any], sides: dict[str, list[int]]) -> list[Any]:
    def nodes(entry: Any) -> list[Any]:
        side, *axis = entry if isinstance(entry, tuple) and entry else (entry,)
        if not isinstance(side, str):
            return [entry]
        if side not in sides:
            raise ValueError(f"{name}: wanted nodes or one of {', '.join(sides)}, got {side!r}")
        return [(node, *axis) for node in sides[side]] if axis else sides[side]

    spread: list[Any] = []
    for entry in entries:
        if isinstance(entry, Mapping):
            spread.append({node: value for key, value in entry.items() for node in nodes(key)})
        else:
            again = spread if isinstance(entry, str) else ()
            spread += [node for node in nodes(entry) if node not in again]
    return spread


def layers(
    sizes: Sequence[int],
    key: PRNGKeyArray,
    input_gain: float,
    output_gain: float,
    gap: float,
    height: float,
    ground: float,
    dtype: DTypeLike | None,
) -> dict[str, Any]:
    """The arguments of `ElasticNetwork.from_edges` for the network that `ElasticNetwork.layered` describes."""
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes: wanted the numbers of inputs and outputs and of nodes between, got {tuple(sizes)}")
    _refuse_not_positive(input_gain=input_gain, output_gain=output_gain, gap=gap, height=height)
    if not (np.isfinite(ground) and 0 < ground < 1):
        raise ValueError(f"ground: wanted a part from 0 to 1, both excluded, got {ground}")
    draw = _drawing(key)
    columns = [2 * sizes[0], *sizes[1:]]
    starts = np.concatenate([[0], np.cumsum(columns)])
    across = [np.repeat([-gap, gap], sizes[0])]
    across += [np.full(count, layer * 3 * gap) for layer, count in enumerate(sizes[1:])]
    places = [np.stack([a, _spread(len(a), height, draw)], axis=1) for a in across]
    places[0][sizes[0] :, 1] = places[0][: sizes[0], 1]
    edges, stiffness = [], []
    for layer in range(1, len(columns)):
        before, after = np.meshgrid(
            np.arange(starts[layer - 1], starts[layer]), np.arange(starts[layer], starts[layer + 1]), indexing="ij"
        )
        edges.append(np.stack([before.ravel(), after.ravel()], axis=1))
        stiffness.append(draw.uniform(0.1, 1.9, before.size) / columns[layer - 1])
    free = np.arange(starts[1], starts[-1])
    everything = np.concatenate(places)
    held = np.arange(starts[-1], starts[-1] + 2 * free.size)
    for sign, nodes in ((1.0, held[: free.size]), (-1.0, held[free.size :])):
        edges.append(np.stack([free, nodes], axis=1))
        stiffness.append(np.full(free.size, ground))
        everything = np.concatenate([everything, everything[free] + [0.0, sign * gap]])
    return {
        "edges": np.concatenate(edges),
        "positions": everything,
        "inputs": [
            {(i, 0): input_gain, (i, 1): 0.0, (sizes[0] + i, 0): -input_gain, (sizes[0] + i, 1): 0.0}
            for i in range(sizes[0])
        ],
        "outputs": [{(int(node), 0): output_gain} for node in range(starts[-2], starts[-1])],
        "clamped": held.tolist(),
        "stiffness": np.concatenate(stiffness).astype(jnp.zeros(()).dtype if dtype is None else dtype),
    }


def _spread(count: int, height: float, draw: np.random.Generator) -> np.ndarray:
    """Heights of a column's nodes, about even, in random order."""
    even = (draw.permutation(count) + draw.uniform(0.25, 0.75, count)) / count
    return height * (even - 0.5)


def _drawing(key: PRNGKeyArray) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())


def _refuse_not_positive(**values: float) -> None:
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name}: wanted a positive number, got {value}")
