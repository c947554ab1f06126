"""Pictures of activators and inhibitors on their graph. Arrays in, axes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from substrates.pictures import style
from substrates.pictures.crowd import MOST_DRAWN_ONE_BY_ONE, nodes_as_image
from substrates.pictures.places import places_of
from substrates.pictures.terminals import mark_terminals

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def network(
    n: int, edges: Any, state: Any, roles: Mapping[str, Sequence[int]], ax: Axes | None, positions: Any
) -> Axes:
    """Draws n nodes, their edges and (activator, inhibitor), each of shape (n,); `ActivatorInhibitor.draw` tells."""
    from matplotlib.collections import LineCollection

    edges = np.asarray(edges)
    places = places_of(n, edges, "node", positions)
    if n > MOST_DRAWN_ONE_BY_ONE:
        return nodes_as_image(ax, places, None if state is None else state[0], roles, "activator")
    ax = style.axes(ax, (6.0, 4.6))
    ax.add_collection(LineCollection(places[edges].tolist(), color="0.8", linewidths=0.8, label="diffusion"))
    size = float(np.clip(9000 / n, 12, 420))
    rims = ax.scatter(*places.T, s=1.8 * size, c="0.85", zorder=2, label="inhibitor")
    nodes = ax.scatter(*places.T, s=size, c="white", edgecolors="0.15", linewidths=0.4, zorder=3, label="activator")
    if state is not None:
        activator, inhibitor = (np.asarray(values, float) for values in state)
        largest = float(max(np.abs(activator).max(), np.abs(inhibitor).max())) or 1.0
        for drawn, values in ((nodes, activator), (rims, inhibitor)):
            drawn.set(array=values, facecolors=None, cmap=style.SIGNED, clim=(-largest, largest))
        style.colour_bar(ax, nodes, "activator; rims: inhibitor")
    mark_terminals(ax, places, roles, 1.7 * size**0.5)
    return ax
