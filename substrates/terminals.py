"""Where inputs and outputs are, in pictures of graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INPUT, OUTPUT = "#0072B2", "#D55E00"  # Okabe and Ito's colours, apart to every kind of eye


def mark_terminals(ax: Axes, places: np.ndarray, roles: Mapping[str, Sequence[int]], width: float) -> None:
    """Frames the nodes that are "inputs" and "outputs" among the roles, says so below, and takes the axes' own frame
    away.

    Args:
        ax: where nodes are drawn.
        places: of all nodes, shape (n, 2).
        roles: the numbers of the nodes.
        width: of a mark, points.
    """
    for label, marker, colour in (("inputs", "s", INPUT), ("outputs", "o", OUTPUT)):
        if roles[label]:
            style: dict[str, Any] = {"marker": marker, "fillstyle": "none", "linestyle": "none", "color": colour}
            style |= {"markersize": width, "markeredgewidth": 1.5, "zorder": 2}
            ax.plot(*places[list(roles[label])].T, label=label, **style)
    handles = [line for line in ax.lines if line.get_label() in ("inputs", "outputs")]
    if handles:
        legend = ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, frameon=False)
        for handle in legend.legend_handles:
            handle.set_markersize(9)  # type: ignore[union-attr]
    ax.set(aspect="equal", xticks=[], yticks=[])
    ax.margins(0.12)
    ax.spines[:].set_visible(False)
