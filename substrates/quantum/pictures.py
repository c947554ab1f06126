"""Pictures of quantum spins: the network, magnetisations, correlations. Axes in (or None), axes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from substrates.pictures import style
from substrates.quantum.measurement import spin_correlations, spin_means

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Spins(Protocol):
    """What pictures know of spins: how many there are, which are free, the shape of a lattice, and their labels."""

    @property
    def n(self) -> int: ...
    @property
    def free(self) -> np.ndarray: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def labels(self) -> Sequence[Any] | None: ...


def network(
    edges: np.ndarray,
    coupling: Any,
    shape: tuple[int, ...],
    names: Sequence[Any],
    inputs: Sequence[int],
    means: Any,
    ax: Axes | None,
) -> Axes:
    """Draws spins by their names, coloured by <Z> if it is given, and couplings; `TransverseFieldIsing.draw` tells."""
    from matplotlib.collections import LineCollection

    places = _places(shape, len(names))
    ax = style.axes(ax, (5.0, 4.0))
    weight = np.asarray(coupling)
    widest = np.abs(weight).max(initial=0) or 1.0
    colours = np.where(weight >= 0, "0.35", style.VERMILION)
    lines = LineCollection(list(places[edges]), linewidths=0.3 + 3 * np.abs(weight) / widest, colors=colours, zorder=1)
    ax.add_collection(lines)
    rims = [style.BLUE if spin in inputs else "0.15" for spin in range(len(names))]
    nodes = ax.scatter(*places.T, s=180, c="white", edgecolors=rims, linewidths=1.8, zorder=2)
    if means is not None:
        nodes.set(array=means, cmap=style.SIGNED, clim=(-1, 1), facecolors=None)
        style.colour_bar(ax, nodes, r"$\langle Z_i \rangle$")
    for name, place in zip(names, places, strict=True):
        ax.annotate(str(name), place, ha="center", va="center", fontsize=8, zorder=3)
    return style.plane(ax, 0.15)


def magnetisation(net: Spins, state: Any, basis: str = "Z", ax: Axes | None = None) -> Axes:
    """Draws <Z_i> or <X_i> of the free spins: as a map on a lattice of two dimensions, as bars otherwise."""
    values = np.asarray(spin_means(state, basis))
    ax = style.axes(ax, (5.0, 3.2))
    label = rf"$\langle {basis}_i \rangle$"
    if len(net.shape) == 2 and values.size == net.n:
        image = ax.imshow(values.reshape(net.shape), cmap=style.SIGNED, vmin=-1, vmax=1)
        style.colour_bar(ax, image, label)
        ax.set(xlabel="column", ylabel="row")
        return ax
    ax.bar(net.free, values, color=style.BLUE)
    ax.axhline(0, color="0.3", linewidth=0.8)
    ax.set(xlabel="spin", ylabel=label, ylim=(-1.05, 1.05))
    return style.curves(ax, whole=True)


def correlations(net: Spins, state: Any, basis: str = "Z", *, connected: bool = True, ax: Axes | None = None) -> Axes:
    """Draws the matrix of <Z_i Z_j> or <X_i X_j> between free spins, less the product of the means if `connected`."""
    values = np.asarray(spin_correlations(state, basis, connected=connected))
    ax = style.axes(ax, (4.6, 3.8))
    image = ax.imshow(values, cmap=style.SIGNED, vmin=-1, vmax=1)
    pair = rf"\langle {basis}_i {basis}_j \rangle"
    means = rf" - \langle {basis}_i \rangle \langle {basis}_j \rangle" if connected else ""
    style.colour_bar(ax, image, f"${pair}{means}$")
    ticks = np.arange(len(net.free))
    names = [str(spin if net.labels is None else net.labels[spin]) for spin in net.free]
    ax.set(xlabel="spin", ylabel="spin")
    ax.set_xticks(ticks, names)
    ax.set_yticks(ticks, names)
    return ax


def _places(shape: tuple[int, ...], n: int) -> np.ndarray:
    if len(shape) in (1, 2):
        grid = np.stack(np.unravel_index(np.arange(n), shape), axis=1).astype(float)
        return np.stack([grid[:, -1], -grid[:, 0] if len(shape) == 2 else np.zeros(n)], axis=1)
    angle = 2 * np.pi * np.arange(n) / n
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)
