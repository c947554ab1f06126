"""Pictures of oscillator networks: phases as cyclic colours and arrows, couplings by how well they are satisfied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from substrates.pictures import style
from substrates.pictures.columns import MOST_NODES_DRAWN_ONE_BY_ONE, activities
from substrates.pictures.crowd import MOST_DRAWN_ONE_BY_ONE, nodes_as_image
from substrates.pictures.places import places_of
from substrates.pictures.terminals import mark_terminals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ARROWS = 400
PHASE = r"phase $\phi$ (rad)"


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
    from matplotlib.collections import LineCollection

    places = places_of(n, edges, "oscillator", positions)
    if n > MOST_DRAWN_ONE_BY_ONE:
        return nodes_as_image(ax, places, phases, roles, PHASE, (-np.pi, np.pi), style.ANGLE)
    ax = style.axes(ax, (6.0, 4.6))
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
        nodes.set(array=_principal(phases), cmap=style.ANGLE, clim=(-np.pi, np.pi))
        if n <= MOST_ARROWS:
            _arrows(ax, places, phases, size)
        style.phase_bar(ax, nodes, PHASE)
        if len(edges):
            style.colour_bar(ax, lines, r"$\cos(\phi_i - \phi_j)$")
    mark_terminals(ax, places, roles, 1.5 * size**0.5)
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
    ax = activities(columns, ax, weights=weights, quantity=PHASE, limits=(-np.pi, np.pi), colours=style.ANGLE)
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
