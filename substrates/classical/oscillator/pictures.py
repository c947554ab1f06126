"""Pictures of oscillator networks: phases as cyclic colours and arrows, couplings by how well they are satisfied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from substrates.columns import MOST_NODES_DRAWN_ONE_BY_ONE, activities
from substrates.places import places_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PHASES = "twilight_shifted"
ROLES = {"inputs": ("s", "#0072B2"), "references": ("D", "#009E73"), "outputs": ("o", "#D55E00")}
"""The marker of each, and one of Okabe and Ito's colours, apart to every kind of eye."""
MOST_ARROWS = 400


def draw_graph(
    n: int,
    edges: np.ndarray,
    weight: Any,
    phases: Any,
    roles: Mapping[str, Any],
    ax: Axes | None = None,
    positions: Any = None,
) -> Axes:
    """Draws oscillators as arrows e^(i phi) on discs of a cyclic colour, couplings coloured by cos(phi_i - phi_j).

    That cosine is what a coupling contributes to the energy (times -W) and what its learning contrasts. Couplings are
    as wide as |W|; negative ones are dashed.

    Args:
        n: the number of oscillators.
        edges, weight: which are coupled, shape (m, 2), and W of each edge.
        phases: of all oscillators, radians, shape (n,); None for a bare picture.
        roles: the oscillators that are "inputs", "references" and "outputs".
        ax: where to draw; None opens a new figure.
        positions: (n, 2) places of the oscillators; None finds some, see `places_of`.

    Raises:
        ValueError: for positions of another shape.
    """
    import matplotlib.pyplot as plt
    from matplotlib.collections import LineCollection

    places = places_of(n, edges, "oscillator", positions)
    ax = plt.subplots(figsize=(6.0, 4.6), layout="constrained")[1] if ax is None else ax
    weight = np.asarray(weight, dtype=float)
    strongest = np.abs(weight).max(initial=0) or 1.0
    lines = LineCollection(places[edges].tolist(), zorder=1, label="couplings")
    lines.set(linewidths=0.3 + 3.2 * np.abs(weight) / strongest, linestyles=["-" if w >= 0 else "--" for w in weight])
    ax.add_collection(lines)
    size = float(np.clip(9000 / n, 12, 420))
    nodes = ax.scatter(*places.T, s=size, c="white", edgecolors="0.15", linewidths=0.6, zorder=3, label="oscillators")
    if phases is None:
        lines.set(color="0.6")
    else:
        phases = np.asarray(phases)
        lines.set(array=np.cos(phases[edges[:, 0]] - phases[edges[:, 1]]), cmap="PiYG", clim=(-1.0, 1.0))
        nodes.set(array=_principal(phases), cmap=PHASES, clim=(-np.pi, np.pi))
        if n <= MOST_ARROWS:
            _arrows(ax, places, phases, size)
        bar = ax.figure.colorbar(nodes, ax=ax, label=r"phase $\phi$ (rad)", shrink=0.75, pad=0.02)
        bar.set_ticks([-np.pi, 0, np.pi], labels=[r"$-\pi$", "0", r"$\pi$"])
        if len(edges):
            ax.figure.colorbar(lines, ax=ax, label=r"$\cos(\phi_i - \phi_j)$", shrink=0.75, pad=0.02)
    _mark_roles(ax, roles, places, size)
    ax.set(aspect="equal", xticks=[], yticks=[])
    ax.margins(0.12)
    ax.spines[:].set_visible(False)
    return ax


def draw_layers(sizes: Sequence[int], weights: Sequence[Any], phases: Sequence[Any] | None, ax: Axes | None) -> Axes:
    """Draws layers as columns in cyclic colours, with an arrow e^(i phi) on every node of a small layer.

    Args:
        sizes: the numbers of oscillators in the layers, inputs first.
        weights: W between successive layers, shape (before, after).
        phases: of each layer, radians; None for a bare picture.
        ax: where to draw; None opens a new figure.
    """
    columns = list(sizes) if phases is None else [_principal(layer) for layer in phases]
    ax = activities(
        columns, ax, weights=weights, quantity=r"phase $\phi$ (rad)", limits=(-np.pi, np.pi), colours=PHASES
    )
    for layer, angles in enumerate(phases or ()):
        if len(angles) <= MOST_NODES_DRAWN_ONE_BY_ONE:
            heights = 1 - (np.arange(len(angles)) + 0.5) / len(angles)
            area = float(np.clip(1600 / len(angles), 20, 140))
            _arrows(ax, np.stack([np.full(len(angles), layer), heights], axis=1), angles, area)
    return ax


def _principal(phases: Any) -> np.ndarray:
    return np.angle(np.exp(1j * np.asarray(phases, dtype=float)))


def _arrows(ax: Axes, places: np.ndarray, phases: Any, area: float) -> None:
    """Arrows through the middles of nodes of that area, in points squared."""
    across = area**0.5 / 72  # inches
    ax.quiver(
        *places.T,
        np.cos(phases),
        np.sin(phases),
        units="inches",
        scale_units="inches",
        scale=1 / (1.5 * across),
        width=0.11 * across,
        pivot="mid",
        color="0.1",
        edgecolor="white",
        linewidth=0.4,
        zorder=4,
        label="arrows",
    )


def _mark_roles(ax: Axes, roles: Mapping[str, Any], places: np.ndarray, size: float) -> None:
    handles = []
    for label, members in roles.items():
        if len(members):
            marker, colour = ROLES[label]
            style: dict[str, Any] = {"marker": marker, "fillstyle": "none", "linestyle": "none", "color": colour}
            style |= {"markersize": 1.5 * size**0.5, "markeredgewidth": 1.8, "zorder": 2}
            handles += ax.plot(*places[np.asarray(members)].T, label=label, **style)
    if handles:
        legend = ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, frameon=False)
        for handle in legend.legend_handles:
            handle.set_markersize(9)  # type: ignore[union-attr]
