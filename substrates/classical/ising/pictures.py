"""Pictures of spins: graphs and lattices with their couplings and domain walls, and layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from substrates.pictures import style
from substrates.pictures.columns import activities
from substrates.pictures.crowd import MOST_DRAWN_ONE_BY_ONE, nodes_as_image
from substrates.pictures.places import grid_positions, places_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOWN, UP = "#2166AC", "#FDDBC7"
BROKEN = style.VERMILION

MOST_WALLED = 2**18
"""Larger lattices are drawn without walls, of which a picture could show none."""


def graph(
    spins: Any,
    edges: np.ndarray,
    coupling: Any,
    roles: Mapping[str, Any],
    *,
    positions: Any = None,
    shape: tuple[int, ...] = (),
    ax: Axes | None = None,
) -> Axes:
    """Draws spins as discs, light where they point up and dark where down, and couplings as lines of width |J|.

    Antiferromagnetic couplings are dashed. Couplings that the spins do not satisfy, J s_i s_j < 0, stand out.

    Args:
        spins: of all nodes, shape (n,).
        edges, coupling: the coupled pairs, shape (m, 2), and their J.
        roles: the nodes that are ringed as "inputs" and "outputs".
        positions: (n, 2) places of the spins; None finds some, see `substrates.pictures.places`.
        shape: of the lattice that the spins number in C order; () if they form none.
        ax: where to draw; None opens a new figure.
    """
    from matplotlib.collections import LineCollection

    n, coupling = len(spins), np.asarray(coupling, float)
    if positions is None and 1 <= len(shape) <= 2:
        positions = grid_positions(n // shape[-1], shape[-1])
    places = places_of(n, edges, "spin", positions)
    if n > MOST_DRAWN_ONE_BY_ONE:
        return nodes_as_image(ax, places, spins, roles, "spin", (-1.0, 1.0))
    ax = style.axes(ax, (4.6, 4.0))
    broken = _broken(spins, edges, coupling)
    widths = 0.6 + 3.0 * np.abs(coupling) / max(np.abs(coupling).max(initial=0), 1e-300)
    for part, label, colour in ((~broken, "satisfied", "0.6"), (broken, "unsatisfied", BROKEN)):
        styles = ["solid" if J >= 0 else (0, (2, 1)) for J in coupling[part]]
        lines = LineCollection(list(places[edges[part]]), linewidths=widths[part], colors=colour, linestyles=styles)
        lines.set(label=label, zorder=1)
        ax.add_collection(lines)
    size = float(np.clip(2400 / n, 20, 240))
    discs = ax.scatter(*places.T, s=size, c=spins, cmap=_colours(), vmin=-1, vmax=1, edgecolors="0.2", zorder=3)
    discs.set_label("spins")
    for label, members in roles.items():
        if len(members):
            ring = {"facecolors": "none", "edgecolors": style.ROLES[label][1], "linewidths": 2.0}
            ax.scatter(*places[np.asarray(members, int)].T, s=2.2 * size, zorder=4, label=label, **ring)
    style.plane(ax)
    named = [part for part in ax.collections if part.get_label() != "spins" and part.get_paths()]
    ax.legend(handles=named, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, markerscale=0.6)
    return ax


def lattice(spins: Any, edges: np.ndarray, coupling: Any, shape: tuple[int, ...], ax: Axes | None = None) -> Axes:
    """Draws a two-dimensional lattice as cells, with a wall across every coupling that is not satisfied.

    In a ferromagnet these are the walls between domains; in a spin glass they end at frustrated squares.

    Args:
        spins: of all nodes, in the C order of the lattice.
        edges, coupling: the coupled pairs, shape (m, 2), and their J.
        shape: the rows and columns of the lattice.
        ax: where to draw; None opens a new figure.
    """
    from matplotlib.collections import LineCollection

    if len(shape) != 2:
        raise ValueError(f"model: wanted a lattice of two dimensions, got the shape {shape}; use graph")
    rows, columns = shape
    ax = style.axes(ax, (4.4, 4.4 * rows / columns + 0.3))
    image = ax.imshow(spins.reshape(rows, columns), cmap=_colours(), vmin=-1, vmax=1, interpolation="nearest")
    image.set_label("spins")
    row, column = np.divmod(edges[_broken(spins, edges, np.asarray(coupling, float))], columns)
    near = (np.abs(np.diff(row, axis=1)) + np.abs(np.diff(column, axis=1)) == 1).ravel()  # not around the edge
    middle = np.stack([column[near].mean(axis=1), row[near].mean(axis=1)], axis=1)
    along = 0.5 * np.stack([np.diff(row[near], axis=1), np.diff(column[near], axis=1)], axis=2)[:, 0]
    walls = LineCollection(list(np.stack([middle - along, middle + along], axis=1)), colors=BROKEN)
    walls.set(label="unsatisfied", linewidths=float(np.clip(90 / max(rows, columns), 0.4, 2.5)), zorder=2)
    ax.add_collection(walls)
    ax.set(xticks=[], yticks=[])
    return ax


def layers(weights: Sequence[Any], copies: int, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
    """Draws layers of spins as columns, light up and dark down, with the strongest couplings between them.

    Args:
        weights: J between successive layers, from the inputs to the copies of the outputs, matrices (before, after).
        copies: how many spins show one output.
        state: the layers after the input; None leaves them bare.
        x: the input; None leaves its column bare.
        ax: where to draw; None opens a new figure.
    """
    weights = [np.asarray(weight) for weight in weights]
    columns: list[Any] = [weights[0].shape[0], *(weight.shape[1] for weight in weights)]
    captions = [f"inputs\n{columns[0]}", *(f"hidden {k}\n{n} spins" for k, n in enumerate(columns[1:-1], 1))]
    captions.append(f"outputs\n{columns[-1] // copies} x {copies} spins")
    if x is not None:
        inputs = np.asarray(x, float)
        largest = float(np.abs(inputs).max(initial=0)) or 1.0
        columns[0] = inputs / largest
        captions[0] += f", |x| $\\leq$ {largest:.3g}"
    if state is not None:
        columns[1:] = [np.asarray(layer, float) for layer in state]
    return activities(columns, ax, weights=weights, captions=captions, quantity="spin")


def _broken(spins: np.ndarray, edges: np.ndarray, coupling: np.ndarray) -> np.ndarray:
    i, j = edges.T
    return coupling * spins[i] * spins[j] < 0


def _colours() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("spins", [DOWN, "white", UP])
