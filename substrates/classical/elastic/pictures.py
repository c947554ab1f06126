"""Pictures of elastic networks: springs by strain or tension, nodes by their part. Axes in (or None), axes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INPUT, OUTPUT, CLAMPED = "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito's colours, apart to every kind of eye

QUANTITIES = {
    "strain": ("strain $(r - \\ell)/\\ell$", "RdBu_r"),
    "tension": ("tension $k (r - \\ell)$ (N)", "RdBu_r"),
    "extension": ("extension $r - \\ell$ (m)", "RdBu_r"),
    "energy": ("stored energy $k (r - \\ell)^2/2$ (J)", "magma_r"),
}
"""What springs may be coloured by: (label, colour map). Extension is what learning contrasts."""


def network(
    net: Any,
    state: Any = None,
    x: Any = None,
    ax: Axes | None = None,
    *,
    colour: str = "strain",
    reference: bool = True,
    values: Any = None,
    label: str = "",
) -> Axes:
    """Draws the springs where they stand, as wide as they are stiff, and behind them the network at rest.

    Inputs (driven nodes) are squares, clamped nodes diamonds, outputs circles; rollers count as what moves them.

    Args:
        net: an elastic network in two or three dimensions.
        state: an equilibrium state; None with an x settles the network, None without one draws it at its reference.
        x: the input, shape (inputs,), metres.
        ax: where to draw (with a 3D projection for a network in 3D); None opens a new figure.
        colour: one of `QUANTITIES`; at the reference, too, where rest lengths may differ from distances.
        reference: whether to draw the network at its reference, in light grey.
        values: colour the springs by these numbers instead, shape (m,), such as a contrast or a change of stiffness.
        label: what they are, at the colour bar.

    Raises:
        ValueError: for a colour that is not known, values of another shape, and a state without its input.
    """
    import jax.numpy as jnp
    import matplotlib.pyplot as plt

    if colour not in QUANTITIES:
        raise ValueError(f"colour: wanted one of {', '.join(QUANTITIES)}, got {colour!r}")
    if state is not None and x is None:
        raise ValueError("x: wanted the input that belongs to the state, got None")
    if values is not None and np.shape(values) != net.stiffness.shape:
        raise ValueError(f"values: wanted shape {net.stiffness.shape}, one per spring, got {np.shape(values)}")
    x = None if x is None else jnp.asarray(x, net.stiffness.dtype)
    if state is None and x is not None:
        state = net.relax(x).state
    places = net.reference if state is None else np.asarray(net.positions(state, x), dtype=float)
    if ax is None:
        projection = {"projection": "3d"} if net.dim == 3 else {}
        ax = plt.figure(figsize=(6.4, 4.8), layout="constrained").add_subplot(**projection)
    if values is None:
        shown, (label, colours) = _quantity(net, places, colour), QUANTITIES[colour]
    else:
        shown = np.asarray(values, dtype=float)
        colours = "RdBu_r" if shown.min(initial=0.0) < 0 else "magma_r"
    if reference and state is not None:
        _springs(ax, net, net.reference, label="reference").set(color="0.85", linewidths=0.6, zorder=0)
    stiffness = np.asarray(net.stiffness, dtype=float)
    springs = _springs(ax, net, places, label="springs")
    springs.set(linewidths=0.4 + 2.8 * stiffness / stiffness.max(), array=shown, cmap=colours, zorder=1)
    largest = float(np.abs(shown).max()) or 1.0
    springs.set_clim(-largest if colours == "RdBu_r" else 0.0, largest)
    size = float(np.clip(6000 / net.n, 3, 60))
    ax.scatter(*places.T, s=0.4 * size, c="0.2", linewidths=0, zorder=2, label="nodes")
    for name, nodes, marker, edge in _roles(net):
        if nodes.size:
            style: dict[str, Any] = {"marker": marker, "edgecolors": edge, "facecolors": "none", "linewidths": 1.3}
            ax.scatter(*places[nodes].T, s=1.6 * size, zorder=3, label=name, **style)
    ax.figure.colorbar(springs, ax=ax, label=label, shrink=0.75, pad=0.02)
    handles = [h for h in ax.get_legend_handles_labels()[0] if h.get_label() in ("inputs", "clamped", "outputs")]
    if handles:
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, frameon=False)
    if net.dim == 2:
        ax.set(aspect="equal", xticks=[], yticks=[])
        ax.margins(0.05)
        ax.spines[:].set_visible(False)
    return ax


def _springs(ax: Any, net: Any, places: np.ndarray, label: str) -> Any:
    """The springs as lines, added to the axes."""
    ends = places[net.edges]
    if net.dim == 3:
        from mpl_toolkits.mplot3d.art3d import Line3DCollection

        lines = Line3DCollection(ends.tolist(), label=label)
        ax.add_collection3d(lines)
    else:
        from matplotlib.collections import LineCollection

        lines = LineCollection(ends.tolist(), label=label, capstyle="round")
        ax.add_collection(lines)
    return lines


def _quantity(net: Any, places: np.ndarray, colour: str) -> np.ndarray:
    lengths = np.linalg.norm(places[net.edges[:, 1]] - places[net.edges[:, 0]], axis=1)
    stiffness, rest_length = (np.asarray(array, dtype=float) for array in (net.stiffness, net.rest_length))
    extension = lengths - rest_length
    return {
        "strain": extension / rest_length,
        "tension": stiffness * extension,
        "extension": extension,
        "energy": stiffness * extension**2 / 2,
    }[colour]


def _roles(net: Any) -> list[tuple[str, np.ndarray, str, str]]:
    topology = net.topology
    driven = np.unique(topology.prescribed[np.unique(topology.drive.rows)] // net.dim)
    clamped = np.setdiff1d(topology.prescribed // net.dim, driven)
    read = topology.pairs if topology.read_map is None else topology.read_map.columns // net.dim
    return [
        ("inputs", driven, "s", INPUT),
        ("clamped", clamped, "D", CLAMPED),
        ("outputs", np.unique(read), "o", OUTPUT),
    ]
