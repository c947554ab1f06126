"""Pictures of driven networks: the motion on the graph, and resonance curves. Arrays in, axes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from substrates.places import places_of
from substrates.terminals import mark_terminals

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    import matplotlib.pyplot as plt
    from matplotlib.collections import LineCollection

    edges = np.asarray(edges)
    places = places_of(n, edges, "node", positions)
    ax = plt.subplots(figsize=(6.0, 4.6), layout="constrained")[1] if ax is None else ax
    strength = np.asarray(stiffness, float)
    widths = 0.3 + 3.2 * strength / (strength.max(initial=0) or 1.0)
    ax.add_collection(LineCollection(places[edges].tolist(), color="0.6", linewidths=widths, label="springs"))
    size = float(np.clip(9000 / n, 12, 420))
    nodes = ax.scatter(*places.T, s=size, c="white", edgecolors="0.15", linewidths=0.6, zorder=3, label="nodes")
    if amplitudes is not None:
        motion = np.asarray(amplitudes)
        largest = float(np.abs(motion).max()) or 1.0
        nodes.set(array=np.angle(motion), facecolors=None, cmap="twilight", clim=(-np.pi, np.pi))
        nodes.set_sizes(size * np.maximum(np.abs(motion) / largest, 0.1) ** 2)
        bar = ax.figure.colorbar(nodes, ax=ax, label="phase", shrink=0.75, pad=0.02)
        bar.set_ticks([-np.pi, 0, np.pi], labels=[r"$-\pi$", "0", r"$\pi$"])
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
    import matplotlib.pyplot as plt

    ax = plt.subplots(figsize=(4.6, 3.2), layout="constrained")[1] if ax is None else ax
    order = np.argsort(np.asarray(frequencies))
    lines = ax.semilogy(np.asarray(frequencies)[order], np.abs(np.asarray(amplitudes))[order])
    ax.set(xlabel=r"frequency $\omega$ (rad/s)", ylabel=r"amplitude $|X|$")
    if labels is not None:
        ax.legend(lines, [str(label) for label in labels], frameon=False)
    return ax
