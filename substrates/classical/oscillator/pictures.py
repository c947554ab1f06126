"""Pictures of oscillator networks: phases as cyclic colours and arrows, couplings by how well they are satisfied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from substrates.classical.oscillator.graph import OscillatorGraph
from substrates.classical.oscillator.layered import LayeredOscillators
from substrates.columns import MOST_NODES_DRAWN_ONE_BY_ONE, activities

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PHASES = "twilight_shifted"
INPUT, OUTPUT, REFERENCE = "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito's colours, apart to every kind of eye
MOST_ARROWS = 400


def draw(net: Any, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
    """Draws a network as its kind is drawn best: `layers` for a layered one, `graph` for any other."""
    if isinstance(net, LayeredOscillators):
        return layers(net, state, x, ax)
    return graph(net, state, x, ax)


def graph(
    net: OscillatorGraph, state: Any = None, x: Any = None, ax: Axes | None = None, positions: Any = None
) -> Axes:
    """Draws oscillators as arrows e^(i phi) on discs of a cyclic colour, couplings coloured by cos(phi_i - phi_j).

    That cosine is what a coupling contributes to the energy (times -W) and what its learning contrasts. Couplings are
    as wide as |W|; negative ones are dashed.

    Args:
        net: the network.
        state: an equilibrium state; None with an x (or without inputs) settles the network, else it is drawn bare.
        x: the input, shape (inputs,), radians.
        ax: where to draw; None opens a new figure.
        positions: (n, 2) places of the oscillators; None asks networkx for a layout.

    Raises:
        ValueError: for positions of another shape, and for a state without the input that it belongs to.
    """
    import matplotlib.pyplot as plt
    from matplotlib.collections import LineCollection

    places = _layout(net) if positions is None else np.asarray(positions, dtype=float)
    if places.shape != (net.n, 2):
        raise ValueError(f"positions: wanted shape ({net.n}, 2), one place per oscillator, got {places.shape}")
    ax = plt.subplots(figsize=(6.0, 4.6), layout="constrained")[1] if ax is None else ax
    phases = _phases(net, state, x)
    edges, weight = net.coupling.graph.edges, np.asarray(net.coupling.weight, dtype=float)
    strongest = np.abs(weight).max(initial=0) or 1.0
    lines = LineCollection(places[edges].tolist(), zorder=1, label="couplings")
    lines.set(linewidths=0.3 + 3.2 * np.abs(weight) / strongest, linestyles=["-" if w >= 0 else "--" for w in weight])
    ax.add_collection(lines)
    size = float(np.clip(9000 / net.n, 12, 420))
    nodes = ax.scatter(*places.T, s=size, c="white", edgecolors="0.15", linewidths=0.6, zorder=3, label="oscillators")
    if phases is None:
        lines.set(color="0.6")
    else:
        apart = phases[edges[:, 0]] - phases[edges[:, 1]] if len(edges) else np.zeros(0)
        lines.set(array=np.cos(apart), cmap="PiYG", clim=(-1.0, 1.0))
        nodes.set(array=_principal(phases), cmap=PHASES, clim=(-np.pi, np.pi))
        if net.n <= MOST_ARROWS:
            _arrows(ax, places, phases, size)
        _phase_bar(ax, nodes)
        if len(edges):
            ax.figure.colorbar(lines, ax=ax, label=r"$\cos(\phi_i - \phi_j)$", shrink=0.75, pad=0.02)
    _mark_roles(ax, net, places, size)
    ax.set(aspect="equal", xticks=[], yticks=[])
    ax.margins(0.12)
    ax.spines[:].set_visible(False)
    return ax


def layers(net: LayeredOscillators, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
    """Draws layers as columns in cyclic colours, with an arrow e^(i phi) on every node of a small layer.

    Args:
        net: the layered network.
        state: an equilibrium state; None with an x settles the network, None without one draws the bare network.
        x: the input, shape (inputs,).
        ax: where to draw; None opens a new figure.

    Raises:
        ValueError: for a state without the input that it belongs to.
    """
    phases = _phases(net, state, x)
    columns = list(net.sizes) if phases is None else [_principal(layer) for layer in phases]
    ax = activities(
        columns,
        ax,
        weights=[np.asarray(coupling.weight) for coupling in net.coupling],
        quantity=r"phase $\phi$ (rad)",
        limits=(-np.pi, np.pi),
        colours=PHASES,
    )
    for layer, angles in enumerate(phases or ()):
        if len(angles) <= MOST_NODES_DRAWN_ONE_BY_ONE:
            heights = 1 - (np.arange(len(angles)) + 0.5) / len(angles)
            area = float(np.clip(1600 / len(angles), 20, 140))
            _arrows(ax, np.stack([np.full(len(angles), layer), heights], axis=1), angles, area)
    return ax


def _phases(net: Any, state: Any, x: Any) -> Any:
    """The phases of all oscillators, of layers a list with the inputs first; None for a bare picture."""
    if x is None and net.input_size == 0:
        x = np.zeros(0)
    if x is None:
        if state is not None:
            raise ValueError("x: a state is drawn with the input that it belongs to; give it too")
        return None
    dtype = np.asarray(net.field[0]).dtype
    x = np.asarray(x, dtype)
    state = net.relax(x).state if state is None else state
    if isinstance(net, LayeredOscillators):
        import jax.numpy as jnp

        return [np.asarray(net.input_phase(jnp.asarray(x))), *(np.asarray(layer) for layer in state)]
    return np.asarray(net.phases(state, x))


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


def _phase_bar(ax: Axes, nodes: Any) -> None:
    bar = ax.figure.colorbar(nodes, ax=ax, label=r"phase $\phi$ (rad)", shrink=0.75, pad=0.02)
    bar.set_ticks([-np.pi, 0, np.pi], labels=[r"$-\pi$", "0", r"$\pi$"])


def _mark_roles(ax: Axes, net: OscillatorGraph, places: np.ndarray, size: float) -> None:
    marked = False
    for label, members, marker, colour in (
        ("inputs", net.roles.inputs, "s", INPUT),
        ("references", net.roles.references, "D", REFERENCE),
        ("outputs", net.roles.outputs, "o", OUTPUT),
    ):
        if members:
            marked = True
            style: dict[str, Any] = {"marker": marker, "fillstyle": "none", "linestyle": "none", "color": colour}
            ax.plot(
                *places[list(members)].T,
                markersize=1.5 * size**0.5,
                markeredgewidth=1.8,
                zorder=2,
                label=label,
                **style,
            )
    if marked:
        handles = [line for line in ax.lines if line.get_label() in ("inputs", "references", "outputs")]
        legend = ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, frameon=False)
        for handle in legend.legend_handles:
            handle.set_markersize(9)  # type: ignore[union-attr]


def _layout(net: OscillatorGraph) -> np.ndarray:
    import networkx as nx

    drawn = nx.Graph()
    drawn.add_nodes_from(range(net.n))
    drawn.add_edges_from(net.coupling.graph.edges.tolist())
    layout = nx.kamada_kawai_layout(drawn) if nx.is_connected(drawn) else nx.spring_layout(drawn, seed=0)
    return np.asarray([layout[node] for node in range(net.n)])
