"""Pictures of quantum spins: the network, magnetisations, correlations. Axes in (or None), axes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from substrates.quantum.measurement import spin_correlations, spin_means

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from substrates.quantum.transverse_ising import TransverseFieldIsing

INPUT, OUTPUT = "#0072B2", "#D55E00"


def network(net: TransverseFieldIsing, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
    """Draws the spins and their couplings: spins coloured by <Z>, couplings by the sign of J and as wide as |J|.

    Spins at which the input enters have a blue rim.

    Args:
        net: the spins.
        state: an equilibrium state; None with an x settles the spins, None without one draws them bare.
        x: the input, shape (inputs,).
        ax: where to draw; None opens a new figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.collections import LineCollection

    if state is None and x is not None:
        state = net.relax(x).state
    places = _places(net)
    if ax is None:
        ax = plt.subplots(figsize=(5.0, 4.0), layout="constrained")[1]
    weight = np.asarray(net.coupling)
    widest = np.abs(weight).max(initial=0) or 1.0
    colours = np.where(weight >= 0, "0.35", OUTPUT)
    lines = LineCollection(
        list(places[net.graph.edges]), linewidths=0.3 + 3 * np.abs(weight) / widest, colors=colours, zorder=1
    )
    ax.add_collection(lines)
    rims = [INPUT if spin in net.inputs else "0.15" for spin in range(net.n)]
    nodes = ax.scatter(*places.T, s=180, c="white", edgecolors=rims, linewidths=1.8, zorder=2)
    if state is not None:
        z = np.zeros(net.n)
        z[net.free] = np.asarray(spin_means(state))
        if net.entry == "clamps" and x is not None:
            z[list(net.inputs)] = np.asarray(x)
        nodes.set(array=z, cmap="PuOr", clim=(-1, 1), facecolors=None)
        ax.figure.colorbar(nodes, ax=ax, label=r"$\langle Z_i \rangle$")
    names = _names(net)
    for spin, place in enumerate(places):
        ax.annotate(str(names[spin]), place, ha="center", va="center", fontsize=8, zorder=3)
    ax.set(aspect="equal", xticks=[], yticks=[])
    ax.margins(0.15)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


def magnetisation(net: TransverseFieldIsing, state: Any, basis: str = "Z", ax: Axes | None = None) -> Axes:
    """Draws <Z_i> or <X_i> of the free spins: as a map on a lattice of two dimensions, as bars otherwise."""
    import matplotlib.pyplot as plt

    values = np.asarray(spin_means(state, basis))
    if ax is None:
        ax = plt.subplots(figsize=(5.0, 3.2), layout="constrained")[1]
    label = rf"$\langle {basis}_i \rangle$"
    if len(net.shape) == 2 and values.size == net.n:
        image = ax.imshow(values.reshape(net.shape), cmap="PuOr", vmin=-1, vmax=1)
        ax.figure.colorbar(image, ax=ax, label=label)
        ax.set(xlabel="column", ylabel="row")
        return ax
    ax.bar(net.free, values, color=INPUT)
    ax.axhline(0, color="0.3", linewidth=0.8)
    ax.set(xlabel="spin", ylabel=label, ylim=(-1.05, 1.05))
    return ax


def correlations(
    net: TransverseFieldIsing, state: Any, basis: str = "Z", *, connected: bool = True, ax: Axes | None = None
) -> Axes:
    """Draws the matrix of <Z_i Z_j> or <X_i X_j> between free spins, less the product of the means if `connected`."""
    import matplotlib.pyplot as plt

    values = np.asarray(spin_correlations(state, basis, connected=connected))
    if ax is None:
        ax = plt.subplots(figsize=(4.6, 3.8), layout="constrained")[1]
    image = ax.imshow(values, cmap="PuOr", vmin=-1, vmax=1)
    pair = rf"\langle {basis}_i {basis}_j \rangle"
    means = rf" - \langle {basis}_i \rangle \langle {basis}_j \rangle" if connected else ""
    ax.figure.colorbar(image, ax=ax, label=f"${pair}{means}$")
    ticks = np.arange(len(net.free))
    ax.set(xlabel="spin", ylabel="spin", xticks=ticks, yticks=ticks)
    free = [str(_names(net)[spin]) for spin in net.free]
    ax.set_xticklabels(free)
    ax.set_yticklabels(free)
    return ax


def _names(net: TransverseFieldIsing) -> Sequence[Any]:
    """What the spins are called: their labels, or their numbers."""
    return range(net.n) if net.labels is None else net.labels


def _places(net: TransverseFieldIsing) -> np.ndarray:
    if len(net.shape) in (1, 2):
        grid = np.stack(np.unravel_index(np.arange(net.n), net.shape), axis=1).astype(float)
        return np.stack([grid[:, -1], -grid[:, 0] if len(net.shape) == 2 else np.zeros(net.n)], axis=1)
    angle = 2 * np.pi * np.arange(net.n) / net.n
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)
