"""Pictures of quantum oscillators: the network, its normal modes, densities and Wigner functions. Axes in, axes out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from substrates import arguments
from substrates.pictures import style
from substrates.pictures.places import places_of
from substrates.pictures.terminals import mark_terminals
from substrates.quantum.oscillator.modes import GaussianState

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def network(
    n: int,
    edges: np.ndarray,
    stiffness: Any,
    spread: Any,
    roles: Mapping[str, Sequence[int]],
    ax: Axes | None,
    positions: Any,
) -> Axes:
    """Draws n oscillators and their springs, and their spread, (<x>, Var x); `QuantumOscillatorNetwork.draw` tells."""
    from matplotlib.collections import LineCollection

    places = places_of(n, edges, "oscillator", positions)
    ax = style.axes(ax, (6.0, 4.6))
    stiffness = np.asarray(stiffness, dtype=float)
    strongest = np.abs(stiffness).max(initial=0) or 1.0
    springs = LineCollection(places[edges].tolist(), color="0.6", zorder=1, label="springs")
    springs.set(linewidths=0.3 + 3.2 * np.abs(stiffness) / strongest)
    springs.set(linestyles=["-" if k >= 0 else "--" for k in stiffness])
    ax.add_collection(springs)
    size = float(np.clip(9000 / n, 12, 420))
    nodes = ax.scatter(*places.T, s=size, c="white", edgecolors="0.15", linewidths=0.6, zorder=3, label="oscillators")
    if spread is not None:
        mean, variance = (np.asarray(values, dtype=float) for values in spread)
        largest = float(np.abs(mean).max()) or 1.0
        nodes.set(array=mean, facecolors=None, cmap=style.SIGNED, clim=(-largest, largest))
        if variance.max() > 0:
            nodes.set_sizes(size * variance / variance.max())
        style.colour_bar(ax, nodes, r"$\langle x \rangle$")
    mark_terminals(ax, places, roles, 1.4 * size**0.5)
    return ax


def normal_modes(net: Any, x: Any = None, ax: Axes | None = None) -> Axes:
    """Draws how every oscillator takes part in every normal mode, with the frequencies along the axis.

    Args:
        net: the network.
        x: the input; None means x = 0.
        ax: where to draw; None opens a new figure.
    """
    modes = net.normal_modes(None if x is None else np.asarray(x, net.stiffness.dtype))
    shape = np.asarray(modes.shape, dtype=float) * np.sqrt(np.asarray(net.mass, dtype=float))[:, None]
    ax = style.axes(ax, (6.0, 4.2))
    largest = float(np.abs(shape).max())
    shown = ax.imshow(shape, cmap=style.SIGNED, vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest")
    style.colour_bar(ax, shown, r"amplitude $\sqrt{m}\, x$ of the mode")
    frequency = np.asarray(modes.frequency, dtype=float)
    ticks = np.unique(np.linspace(0, net.n - 1, min(net.n, 8)).round().astype(int))
    ax.set_xticks(ticks, [f"{frequency[k]:.3g}" for k in ticks])
    ax.set(xlabel=r"frequency $\omega$ of the mode", ylabel="oscillator")
    return ax


def wigner(
    net: Any,
    state: GaussianState,
    oscillator: Hashable,
    ax: Axes | None = None,
    *,
    extent: float = 4.0,
    points: int = 121,
) -> Axes:
    """Draws the Wigner function W(x, p) of one oscillator, the others traced out.

    It is a Gaussian; the ellipse is its one-sigma contour, of area pi sqrt(Var x Var p), at least pi hbar/2.

    Args:
        net: the network.
        state: one of its states.
        oscillator: which one, by its label where the network was built from labels.
        ax: where to draw; None opens a new figure.
        extent: how far to draw, in standard deviations.
        points: along each axis.

    Raises:
        ValueError: for an oscillator that is none, and where nothing fluctuates.
    """
    from matplotlib.patches import Ellipse

    k = arguments.number_of_node("oscillator", oscillator, net.n, net.labels)
    _require_fluctuations(net)
    mean = float(state.mean[k])
    width, height = (float(c[k, k]) ** 0.5 for c in (net.covariance(state), net.momentum_covariance(state)))
    along, up = (extent * size * np.linspace(-1, 1, points) for size in (width, height))
    density = np.exp(-((along / width) ** 2) / 2 - (up[:, None] / height) ** 2 / 2) / (2 * np.pi * width * height)
    ax = style.axes(ax, (4.6, 3.8))
    shown = ax.pcolormesh(mean + along, up, density, cmap=style.POSITIVE, shading="nearest")
    ax.add_patch(Ellipse((mean, 0.0), 2 * width, 2 * height, fill=False, color="white", linewidth=1.0))
    style.colour_bar(ax, shown, "$W(x, p)$")
    ax.set(xlabel=f"$x_{{{oscillator}}}$", ylabel=f"$p_{{{oscillator}}}$")
    return ax


def densities(net: Any, state: GaussianState, ax: Axes | None = None, *, points: int = 201) -> Axes:
    """Draws the probability density of every position, one column per oscillator, with the means as dots.

    Args:
        net: the network.
        state: one of its states.
        ax: where to draw; None opens a new figure.
        points: along the axis of positions.

    Raises:
        ValueError: where nothing fluctuates.
    """
    _require_fluctuations(net)
    mean = np.asarray(state.mean, dtype=float)
    deviation = np.sqrt(np.diagonal(np.asarray(net.covariance(state), dtype=float)))
    x = np.linspace((mean - 3.5 * deviation).min(), (mean + 3.5 * deviation).max(), points)
    density = np.exp(-(((x[:, None] - mean) / deviation) ** 2) / 2) / (np.sqrt(2 * np.pi) * deviation)
    ax = style.axes(ax, (6.0, 3.6))
    shown = ax.pcolormesh(np.arange(net.n), x, density, cmap=style.POSITIVE, shading="nearest")
    ax.plot(np.arange(net.n), mean, ".", color="white", markersize=4, label="means")
    style.colour_bar(ax, shown, r"$|\psi(x)|^2$" if net.temperature == 0 else "probability density")
    ax.set(xlabel="oscillator", ylabel="position $x$")
    return ax


def _require_fluctuations(net: Any) -> None:
    if net.single.sharp:
        raise ValueError("hbar: wanted fluctuations to draw, got none: hbar and the temperature are 0")
