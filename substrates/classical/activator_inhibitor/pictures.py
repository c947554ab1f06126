"""Pictures of activators and inhibitors on their graph. Arrays in, axes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from substrates.places import places_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INPUT, OUTPUT = "#0072B2", "#D55E00"  # Okabe and Ito's colours, apart to every kind of eye


def network(
    n: int, edges: Any, state: Any, roles: Mapping[str, Sequence[int]], ax: Axes | None, positions: Any
) -> Axes:
    """Draws n nodes, their edges and (activator, inhibitor), each of shape (n,); `ActivatorInhibitor.draw` tells."""
    import matplotlib.pyplot as plt
    from matplotlib.collections import LineCollection

    edges = np.asarray(edges)
    places = places_of(n, edges, "node", positions)
    ax = plt.subplots(figsize=(6.0, 4.6), layout="constrained")[1] if ax is None else ax
    ax.add_collection(LineCollection(places[edges].tolist(), color="0.8", linewidths=0.8, label="diffusion"))
    size = float(np.clip(9000 / n, 12, 420))
    rims = ax.scatter(*places.T, s=1.8 * size, c="0.85", zorder=2, label="inhibitor")
    nodes = ax.scatter(*places.T, s=size, c="white", edgecolors="0.15", linewidths=0.4, zorder=3, label="activator")
    if state is not None:
        activator, inhibitor = (np.asarray(values, float) for values in state)
        largest = float(max(np.abs(activator).max(), np.abs(inhibitor).max())) or 1.0
        for drawn, values in ((nodes, activator), (rims, inhibitor)):
            drawn.set(array=values, facecolors=None, cmap="RdBu_r", clim=(-largest, largest))
        ax.figure.colorbar(nodes, ax=ax, label="activator; rims: inhibitor", shrink=0.75, pad=0.02)
    for label, marker, colour in (("inputs", "s", INPUT), ("outputs", "o", OUTPUT)):
        if roles[label]:
            style: dict[str, Any] = {"marker": marker, "fillstyle": "none", "linestyle": "none", "color": colour}
            ax.plot(*places[list(roles[label])].T, markersize=1.7 * size**0.5, label=label, **style)
    handles = [line for line in ax.lines if line.get_label() in ("inputs", "outputs")]
    if handles:
        legend = ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, frameon=False)
        for handle in legend.legend_handles:
            handle.set_markersize(9)  # type: ignore[union-attr]
    ax.set(aspect="equal", xticks=[], yticks=[])
    ax.margins(0.12)
    ax.spines[:].set_visible(False)
    return ax
