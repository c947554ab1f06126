"""Pictures of any system: what its state holds, and what its outputs show, free and nudged. Axes in, axes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from substrates.pictures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_STEMS = 400
"""Up to so many numbers are drawn as stems; more as dots."""


def numbers(values: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Draws arrays one after the other, entry by entry, each in a colour of its own; of complex ones the sizes.

    Args:
        values: arrays of any shape by name, flattened in C order.
        ax: where to draw; None opens a new figure.
    """
    ax = style.axes(ax)
    first, total = 0, sum(np.size(array) for array in values.values())
    ax.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
    for number, (name, array) in enumerate(values.items()):
        flat = np.ravel(np.asarray(array))
        flat = np.abs(flat) if np.iscomplexobj(flat) else flat.astype(float)
        places = first + np.arange(flat.size)
        colour = style.line(number)["color"]
        if total <= MOST_STEMS:
            ax.vlines(places, 0.0, flat, colors=colour, linewidth=0.8)
        ax.plot(places, flat, ".", color=colour, markersize=4, label=name, rasterized=total > MOST_STEMS)
        first += flat.size
    ax.set(xlabel="entry", ylabel="value")
    return style.curves(ax, whole=True, legend=len(values) > 1)


def outputs(free: Any, nudged: Any = None, target: Any = None, ax: Axes | None = None) -> Axes:
    """Draws what outputs show, free and nudged, and their targets, in the colours of these in all pictures.

    Args:
        free: shape (outputs,).
        nudged, target: likewise; None for none.
        ax: where to draw; None opens a new figure.
    """
    ax = style.axes(ax, (3.2, 3.4))
    ax.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
    shown = [("free", free, style.FREE, "o"), ("nudged", nudged, style.NUDGED, "s")]
    shown += [("target", target, style.TARGET, "D")]
    for place, (label, values, colour, marker) in enumerate(shown):
        if values is not None:
            flat = np.real(np.ravel(np.asarray(values))).astype(float)
            look = {"markersize": 7 if flat.size <= 20 else 3, "fillstyle": "none" if label == "target" else "full"}
            ax.plot(np.arange(flat.size) + 0.12 * (place - 1), flat, marker, color=colour, label=label, **look)
    ax.set(xlabel="output", ylabel="reading", xlim=(-0.6, np.size(free) - 0.4))
    style.curves(ax, legend=False)
    ax.set_xticks(np.unique(np.linspace(0, np.size(free) - 1, min(np.size(free), 6)).round().astype(int)))
    close = {"ncols": 3, "handletextpad": 0.1, "columnspacing": 0.6, "fontsize": "small", "borderaxespad": 0.0}
    ax.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.02), **close)
    return ax
