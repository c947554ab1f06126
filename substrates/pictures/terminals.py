"""Where inputs, outputs and held nodes are, in pictures of graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from substrates.pictures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def mark_terminals(ax: Axes, places: np.ndarray, roles: Mapping[str, Any], width: float) -> None:
    """Frames the nodes that play a part, says so below, and takes the axes' own frame away.

    Args:
        ax: where nodes are drawn.
        places: of all nodes, shape (n, 2).
        roles: the numbers of the nodes, by the names of `style.ROLES`.
        width: of a mark, points.
    """
    handles = []
    for label, members in roles.items():
        if len(members):
            marker, colour = style.ROLES[label]
            look: dict[str, Any] = {"marker": marker, "fillstyle": "none", "linestyle": "none", "color": colour}
            look |= {"markersize": width, "markeredgewidth": 1.5, "zorder": 2}
            handles += ax.plot(*places[np.asarray(members, int)].T, label=label, **look)
    if handles:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "ncols": len(handles), "frameon": False}
        for handle in ax.legend(handles=handles, **below).legend_handles:
            handle.set_markersize(9)  # type: ignore[union-attr]
    style.plane(ax)
