"""Pictures of layered networks: a column per layer, coloured by what its nodes do, and the strongest couplings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from substrates.pictures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NODES_DRAWN_ONE_BY_ONE = 32
MOST_LINES_BETWEEN_LAYERS = 80


def activities(
    layers: Sequence[Any],
    ax: Axes | None = None,
    *,
    weights: Sequence[Any] | None = None,
    captions: Sequence[str] | None = None,
    quantity: str = "activity",
    limits: tuple[float, float] = (-1.0, 1.0),
    colours: str = style.SIGNED,
    strongest: str = "strongest couplings",
) -> Axes:
    """Draws layers as columns, small ones node by node, large ones as strips with one cell per node.

    Args:
        layers: for each layer the values of its nodes (any shape, flattened), or its number of nodes to leave it bare.
        ax: where to draw; None opens a new figure.
        weights: for each pair of successive layers a matrix (before, after), of which the strongest entries are drawn
            as lines, or None for a pair without lines.
        captions: a text below each layer; by default its place and its number of nodes.
        quantity: what the values are, at the colour bar.
        limits: the values at the ends of the colours.
        colours: the name of a colour map; a cyclic one for phases.
        strongest: what the lines are, their label.
    """
    values = [None if np.ndim(layer) == 0 else np.asarray(layer, dtype=float).ravel() for layer in layers]
    sizes = [int(layer) if v is None else v.size for layer, v in zip(layers, values, strict=True)]
    ax = style.axes(ax, (1.2 + 1.9 * len(sizes), 4.4))
    for layer, matrix in enumerate(weights or ()):
        if matrix is not None:
            _lines(ax, layer, np.asarray(matrix, dtype=float), f"{strongest} {layer}")
    if captions is None:
        names = ["inputs", *(f"hidden {k}" for k in range(1, len(sizes) - 1)), "outputs"]
        captions = [f"{name}\n{size} nodes" for name, size in zip(names, sizes, strict=True)]
    picture = None
    for layer, (size, column, caption) in enumerate(zip(sizes, values, captions, strict=True)):
        drawn = _column(ax, layer, size, column, limits, colours)
        picture = picture if column is None else drawn
        ax.text(layer, -0.1, caption, ha="center", va="top")
    if picture is not None:
        style.colour_bar(ax, picture, quantity, shrink=0.7, aspect=30)
    ax.set(xlim=(-0.45, len(sizes) - 0.55), ylim=(-0.36, 1.1), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def by_largest(values: Any) -> tuple[np.ndarray, float]:
    """Numbers, flattened, as parts of the largest of their sizes; and that size."""
    column = np.asarray(values, dtype=float).ravel()
    largest = float(np.abs(column).max(initial=0))
    return column / (largest or 1.0), largest


def _lines(ax: Axes, layer: int, matrix: np.ndarray, label: str) -> None:
    from matplotlib.collections import LineCollection

    size = np.abs(matrix)
    order = np.argsort(size, axis=None)[::-1][:MOST_LINES_BETWEEN_LAYERS]
    before, after = np.unravel_index(order[size.ravel()[order] > 0], matrix.shape)
    if before.size == 0:
        return
    near, far = layer + _half_width(matrix.shape[0]), layer + 1 - _half_width(matrix.shape[1])
    ends = np.stack([np.full(before.size, near), _heights(matrix.shape[0])[before]], axis=1)
    others = np.stack([np.full(after.size, far), _heights(matrix.shape[1])[after]], axis=1)
    strength = size[before, after] / size.max()
    signs = ["0.35" if weight > 0 else style.VERMILION for weight in matrix[before, after]]
    lines = LineCollection(np.stack([ends, others], axis=1).tolist(), linewidths=1.5 * strength, colors=signs)
    lines.set(alpha=0.2 + 0.4 * strength**2, zorder=1, label=label)
    ax.add_collection(lines)


def _heights(size: int) -> np.ndarray:
    """Heights of a layer's nodes, the first on top."""
    return 1 - (np.arange(size) + 0.5) / size


def _half_width(size: int) -> float:
    """Where lines meet a column: at its nodes, or at the edge of its strip."""
    return 0.05 if size <= MOST_NODES_DRAWN_ONE_BY_ONE else 0.08


def _column(
    ax: Axes, layer: int, size: int, values: np.ndarray | None, limits: tuple[float, float], colours: str
) -> Any:
    """One layer: nodes up to a number that the eye can part, a strip of cells above it."""
    if size <= MOST_NODES_DRAWN_ONE_BY_ONE:
        area = float(np.clip(1600 / size, 20, 140))
        nodes = ax.scatter(np.full(size, layer), _heights(size), s=area, c="white", edgecolors="0.15", zorder=3)
        nodes.set(linewidths=0.6, label=f"layer {layer}")
        if values is not None:
            nodes.set(array=values, cmap=colours, clim=limits)
        return nodes
    cells = np.full(size, np.nan) if values is None else values
    edges = np.linspace(1.0, 0.0, size + 1)
    strip = ax.pcolormesh([layer - 0.08, layer + 0.08], edges, cells[:, None], cmap=colours)
    strip.set(clim=limits, label=f"layer {layer}", zorder=2, rasterized=True)
    ax.plot(layer + 0.08 * np.array([-1, 1, 1, -1, -1]), [0, 0, 1, 1, 0], color="0.15", linewidth=0.6, zorder=3)
    return strip
