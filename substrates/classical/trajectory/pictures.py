"""Pictures of paths: coordinates over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from substrates.pictures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 8
"""So many coordinates are drawn as lines; more as colours over time."""


def draw_path(
    times: Float[np.ndarray, " nodes"],
    path: Float[np.ndarray, "nodes n"],
    ax: Axes | None = None,
    names: Sequence[str] | None = None,
) -> Axes:
    """Draws every coordinate of a path over time: as a line, or, of more than eight, as a row of colours.

    Args:
        times: of the nodes, seconds.
        path: the coordinates at each node.
        ax: where to draw; None opens a new figure.
        names: of the coordinates; by default q_0, q_1, ...
    """
    ax = style.axes(ax, (6.0, 3.2))
    count = path.shape[1]
    if count <= MOST_LINES:
        for k, name in enumerate([f"$q_{{{k}}}$" for k in range(count)] if names is None else names):
            ax.plot(times, path[:, k], **style.line(k), label=name)
        ax.set(xlabel="time t (s)", ylabel="position q")
        return style.curves(ax)
    largest = style.largest(path)
    places = np.arange(count)
    picture = ax.pcolormesh(times, places, path.T, cmap=style.SIGNED, vmin=-largest, vmax=largest, shading="nearest")
    picture.set_label("path")
    style.colour_bar(ax, picture, "position q")
    ax.set(xlabel="time t (s)", ylabel="coordinate")
    if names is not None:
        ax.set_yticks(places, names)
    return ax
