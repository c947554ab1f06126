"""Pictures of driven networks: the motion on the graph, and resonance curves. Arrays in, axes out."""

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

PHASE = "phase of $X$ (rad)"


def network(
    n: int,
    edges: Any,
    stiffness: Any,
    amplitudes: Any,
    roles: Mapping[str, Sequence[int]],
    ax: Axes | None,
    positions: Any,
) -> Axes:
    """Draws n nodes, their springs, and their complex amplitudes, shape (n,); `DrivenNetwork.draw` tells."""
    from matplotlib.collections import LineCollection

    edges = np.asarray(edges)
    places = places_of(n, edges, "node", positions)
    if n > MOST_DRAWN_ONE_BY_ONE:
        phases = None if amplitudes is None else np.angle(np.asarray(amplitudes))
        return nodes_as_image(ax, places, phases, roles, PHASE, (-np.pi, np.pi), style.ANGLE)
    ax = style.axes(ax, (6.0, 4.6))
    strength = np.asarray(stiffness, float)
    widths = 0.3 + 3.2 * strength / (strength.max(initial=0) or 1.0)
    ax.add_collection(LineCollection(places[edges].tolist(), color="0.6", linewidths=widths, label="springs"))
    size = float(np.clip(9000 / n, 12, 420))
    nodes = ax.scatter(*places.T, s=size, c="white", edgecolors="0.15", linewidths=0.6, zorder=3, label="nodes")
    if amplitudes is not None:
        motion = np.asarray(amplitudes)
        largest = float(np.abs(motion).max()) or 1.0
        nodes.set(array=np.angle(motion), facecolors=None, cmap=style.ANGLE, clim=(-np.pi, np.pi))
        nodes.set_sizes(size * np.maximum(np.abs(motion) / largest, 0.1) ** 2)
        style.phase_bar(ax, nodes, PHASE)
    mark_terminals(ax, places, roles, 1.4 * size**0.5)
    return ax


def resonance(frequencies: Any, amplitudes: Any, labels: Sequence[Any] | None = None, ax: Axes | None = None) -> Axes:
    """Draws |X| of some nodes over the frequency, on a logarithmic scale.

    Args:
        frequencies: shape (frequencies,), rad/s.
        amplitudes: shape (frequencies, nodes), complex.
        labels: of the nodes, for the legend; None for none.
        ax: where to draw; None opens a new figure.
    """
    ax = style.axes(ax, (4.6, 3.2))
    order = np.argsort(np.asarray(frequencies))
    ax.set_prop_cycle(color=style.COLOURS)
    lines = ax.semilogy(np.asarray(frequencies)[order], np.abs(np.asarray(amplitudes))[order])
    ax.set(xlabel=r"frequency $\omega$ (rad/s)", ylabel=r"amplitude $|X|$")
    if labels is not None:
        ax.legend(lines, [str(label) for label in labels], frameon=False)
    return style.curves(ax, legend=False)
