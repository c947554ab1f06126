"""Pictures of elastic networks: springs by strain or tension, nodes by their part. Axes in (or None), axes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from substrates.pictures import style
from substrates.pictures.crowd import MOST_DRAWN_ONE_BY_ONE, nodes_as_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUANTITIES = {
    "strain": ("strain $(r - \\ell)/\\ell$", style.SIGNED),
    "tension": ("tension $k (r - \\ell)$ (N)", style.SIGNED),
    "extension": ("extension $r - \\ell$ (m)", style.SIGNED),
    "energy": ("stored energy $k (r - \\ell)^2/2$ (J)", style.POSITIVE),
}
"""What springs may be coloured by: (label, colour map). Extension is what learning contrasts."""


def network(
    places: np.ndarray,
    edges: np.ndarray,
    stiffness: np.ndarray,
    rest_length: np.ndarray,
    roles: Mapping[str, np.ndarray],
    ax: Axes | None = None,
    *,
    behind: np.ndarray | None = None,
    colour: str = "strain",
    values: ArrayLike | None = None,
    label: str = "",
) -> Axes:
    """Springs between nodes at their places, shape (n, dim), before those of a network that stands elsewhere.

    Args:
        edges: the two nodes of each spring, shape (m, 2).
        stiffness, rest_length: of each spring, shape (m,).
        roles: the nodes that are "inputs", "clamped" and "outputs".
        behind: where the nodes of the other network stand; None for none.

    The others, and what is refused: see `ElasticNetwork.draw`.
    """
    if colour not in QUANTITIES:
        raise ValueError(f"colour: wanted one of {', '.join(QUANTITIES)}, got {colour!r}")
    if values is not None and np.shape(values) != stiffness.shape:
        raise ValueError(f"values: wanted shape {stiffness.shape}, one per spring, got {np.shape(values)}")
    if values is None:
        shown, (label, colours) = _quantity(edges, places, stiffness, rest_length)[colour], QUANTITIES[colour]
    else:
        shown = np.asarray(values, dtype=float)
        colours = style.SIGNED if shown.min(initial=0.0) < 0 else style.POSITIVE
    if len(places) > MOST_DRAWN_ONE_BY_ONE and places.shape[1] == 2:
        ends = edges.ravel()
        count = np.maximum(np.bincount(ends, minlength=len(places)), 1)
        meeting = np.bincount(ends, np.repeat(shown, 2), minlength=len(places)) / count
        limits = (0.0, style.largest(meeting)) if colours == style.POSITIVE else None
        return nodes_as_image(ax, places, meeting, roles, f"{label}, mean of the springs", limits, colours)
    ax = style.axes(ax, (6.4, 4.8), **({"projection": "3d"} if places.shape[1] == 3 else {}))
    if behind is not None:
        _springs(ax, behind[edges], label="reference").set(color="0.85", linewidths=0.6, zorder=0)
    springs = _springs(ax, places[edges], label="springs")
    springs.set(linewidths=0.4 + 2.8 * stiffness / stiffness.max(), array=shown, cmap=colours, zorder=1)
    largest = style.largest(shown)
    springs.set_clim(-largest if colours == style.SIGNED else 0.0, largest)
    size = float(np.clip(6000 / len(places), 3, 60))
    ax.scatter(*places.T, s=0.4 * size, c="0.2", linewidths=0, zorder=2, label="nodes")
    for name, members in roles.items():
        if members.size:
            marker, edge = style.ROLES[name]
            look: dict[str, Any] = {"marker": marker, "edgecolors": edge, "facecolors": "none", "linewidths": 1.3}
            ax.scatter(*places[members].T, s=1.6 * size, zorder=3, label=name, **look)
    style.colour_bar(ax, springs, label)
    handles = [h for h in ax.get_legend_handles_labels()[0] if h.get_label() in style.ROLES]
    if handles:
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, frameon=False)
    if places.shape[1] == 2:
        style.plane(ax, 0.05)
    return ax


def _springs(ax: Any, ends: np.ndarray, label: str) -> Any:
    """The springs as lines, added to the axes."""
    if ends.shape[-1] == 3:
        from mpl_toolkits.mplot3d.art3d import Line3DCollection

        lines = Line3DCollection(ends.tolist(), label=label)
        ax.add_collection3d(lines)
    else:
        from matplotlib.collections import LineCollection

        lines = LineCollection(ends.tolist(), label=label, capstyle="round")
        ax.add_collection(lines)
    return lines


def _quantity(
    edges: np.ndarray, places: np.ndarray, stiffness: np.ndarray, rest_length: np.ndarray
) -> dict[str, np.ndarray]:
    extension = np.linalg.norm(places[edges[:, 1]] - places[edges[:, 0]], axis=1) - rest_length
    return {
        "strain": extension / np.where(rest_length > 0, rest_length, np.inf),
        "tension": stiffness * extension,
        "extension": extension,
        "energy": stiffness * extension**2 / 2,
    }
