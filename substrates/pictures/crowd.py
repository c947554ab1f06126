"""Pictures of so many nodes that they are drawn as an image: each cell shows the mean of the nodes that lie in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from substrates.pictures import style
from substrates.pictures.terminals import mark_terminals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_DRAWN_ONE_BY_ONE = 5000
"""More nodes than these are drawn as an image."""

CELLS = 320
"""So many cells along the longer side of an image, at most."""


def nodes_as_image(
    ax: Axes | None,
    places: np.ndarray,
    values: Any,
    roles: Mapping[str, Any],
    label: str,
    limits: tuple[float, float] | None = None,
    colours: str = style.SIGNED,
) -> Axes:
    """Draws many nodes as an image, without what joins them.

    Args:
        ax: where to draw; None opens a new figure.
        places: of the nodes, shape (n, 2).
        values: one per node, shape (n,); None draws where nodes are. Angles, in the colours of `style.ANGLE`, are
            averaged as arrows.
        roles: the numbers of nodes to be marked, by the names of `style.ROLES`.
        label: what the values are, at the colour bar.
        limits: the values at the ends of the colours; None takes the largest size, on both sides of 0.
        colours: the name of a colour map.
    """
    ax = style.axes(ax, (6.0, 4.6))
    low, extent = places.min(axis=0), np.ptp(places, axis=0)
    around, area = float(extent.sum()), float(extent.prod())
    # (width + cell) (height + cell) = n cell^2: a lattice falls into cells of one node each
    even = (around + (around**2 + 4 * (len(places) - 1) * area) ** 0.5) / (2 * max(len(places) - 1, 1))
    cell = max(float(extent.max()) / CELLS, even) or 1.0
    column, row = np.round((places - low) / cell).astype(int).T
    shape = int(row.max()) + 1, int(column.max()) + 1
    flat = row * shape[1] + column
    total = lambda weights: np.bincount(flat, weights, minlength=shape[0] * shape[1]).reshape(shape)
    count = total(None)
    if values is None:
        shown, limits, colours = np.where(count > 0, 0.35, np.nan), (0.0, 1.0), "Greys"
    elif colours == style.ANGLE:
        shown = np.where(count > 0, np.arctan2(total(np.sin(values)), total(np.cos(values))), np.nan)
    else:
        shown = np.where(count > 0, total(np.asarray(values, float)) / np.maximum(count, 1), np.nan)
    size = style.largest(shown)
    edges = low[0] - cell / 2, low[0] + (shape[1] - 0.5) * cell, low[1] - cell / 2, low[1] + (shape[0] - 0.5) * cell
    image = ax.imshow(shown, cmap=colours, extent=edges, origin="lower", interpolation="nearest")
    image.set_clim(*(limits or (-size, size)))
    image.set_label("nodes")
    mark_terminals(ax, places, roles, 5.0)
    if colours == style.ANGLE:
        style.phase_bar(ax, image, label)
    elif values is not None:
        style.colour_bar(ax, image, label)
    return ax
