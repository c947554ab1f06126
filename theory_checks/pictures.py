"""Pictures of checks: how far each number lies inside its bound. Axes in (or None), axes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from substrates.pictures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_DECADES = 8.0
"""What lies further inside or outside its bound is drawn as far."""


def margins(names: Sequence[str], decades: Sequence[float], ax: Axes | None = None) -> Axes:
    """Draws a bar for each law: to the right where it holds, as long as the decades between the number and its bound.

    Args:
        names: of the laws.
        decades: log10 of bound over number, or of number over bound where that is the least; negative where it fails.
        ax: where to draw; None opens a new figure.
    """
    ax = style.axes(ax, (4.6, 0.7 + 0.16 * len(names)))
    length = np.clip(np.nan_to_num(np.asarray(decades, float), nan=-MOST_DECADES), -MOST_DECADES, MOST_DECADES)
    colours = [style.FREE if each >= 0 else style.NUDGED for each in length]
    places = np.arange(len(names))
    ax.barh(places, length, color=colours, height=0.7)
    ax.axvline(0.0, color="0.3", linewidth=0.8)
    ax.set_yticks(places, list(names), fontsize=6)
    ax.invert_yaxis()
    ax.set_xlabel("decades inside the bound", fontsize=7)
    ax.tick_params(axis="x", labelsize=6)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
