"""Pictures of resistor networks: circuits on any graph, layered networks, voltages. Axes in (or None), axes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np

from substrates.classical.resistor.schematic import Schematic, draw_symbols
from substrates.pictures import style
from substrates.pictures.columns import activities
from substrates.pictures.crowd import MOST_DRAWN_ONE_BY_ONE, nodes_as_image
from substrates.pictures.places import grid_positions, places_of
from substrates.spice.netlist import Elements

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["circuit", "grid_positions", "layers", "network", "voltages"]


class Settled(Protocol):
    """What pictures ask of a network at equilibrium; `ResistorCircuit` says what each of it is."""

    @property
    def conductance(self) -> Any: ...
    def relax(self, x: Any, /) -> Any: ...
    def voltages(self, state: Any, x: Any, /) -> Any: ...
    def currents(self, state: Any, x: Any, /) -> Any: ...


class Drawn(Settled, Protocol):
    """A network that draws itself."""

    def draw(self, state: Any, x: Any, ax: Any, /) -> Any: ...


class Circuit(Elements, Settled, Protocol):
    """A circuit of single elements."""


def network(net: Drawn, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
    """Draws a network as its kind is drawn best: `layers` for a layered one, `circuit` for any other."""
    return net.draw(state, x, ax)


def circuit(
    net: Circuit,
    state: Any = None,
    x: Any = None,
    ax: Axes | None = None,
    positions: Any = None,
) -> Axes:
    """Draws a circuit: nodes coloured by voltage, resistors as wide as their conductance, coloured by their current.

    Arrowheads on the resistors point along the current; diodes, sources and ground are drawn as their symbols.

    Args:
        net: the circuit.
        state: an equilibrium state; None with an x settles the circuit, None without one draws the bare circuit.
        x: the input, shape (inputs,), volts.
        ax: where to draw; None opens a new figure.
        positions: (n, 2) places of the nodes; None finds some, see `places_of`.
    """
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.lines import Line2D

    state = _settled(net, state, x)
    elements = (net.edges, net.diodes, net.voltage_sources, net.current_sources, net.controlled_sources)
    pairs = np.concatenate([np.asarray(kind)[:, :2] for kind in elements]).astype(int)
    places = places_of(net.n, pairs[np.all(pairs >= 0, axis=1)], "node", positions)
    if net.n > MOST_DRAWN_ONE_BY_ONE:
        volts = None if state is None else np.asarray(net.voltages(state, x), dtype=float)
        colours = {} if volts is None else _voltage_colours(volts)
        shown = {"limits": colours.get("clim"), "colours": colours.get("cmap", style.SIGNED)}
        roles = {label: members for label, members, *_ in _terminals(net)}
        return nodes_as_image(ax, places, volts, roles, "voltage (V)", **shown)
    schematic = Schematic.of(net, places)
    width, height = np.ptp(schematic.corners, axis=0)
    if ax is None:
        inches = float(np.clip(1.7 + 0.45 * net.n**0.5, 3.0, 9.0)) / schematic.span
        ax = style.axes(None, (width * inches + 1.2, height * inches + 0.4))
    frame = ax.get_window_extent()
    spacing = 72 / ax.figure.dpi * min(frame.width / width, frame.height / height)
    diameter = float(np.clip(min(0.32, 0.95 * schematic.closest) * spacing, 2.5, 17.0))
    conductance = np.asarray(net.conductance, dtype=float)
    widest = float(np.clip(0.075 * spacing, 1.2, 4.0))
    widths = widest * (0.1 + 0.9 * conductance / max(conductance.max(initial=0), np.finfo(float).tiny))
    wires = LineCollection(schematic.paths["resistor"], linewidths=widths, zorder=1, label="resistors")
    ax.add_collection(wires)
    if state is None:
        wires.set(color="0.5")
    else:
        currents = np.asarray(net.currents(state, x), dtype=float)
        wires.set(array=np.abs(currents), cmap=_ink(), clim=(0.0, _positive(np.abs(currents).max(initial=0))))
        carrying = np.abs(currents) > 0.02 * np.abs(currents).max(initial=0)
        heads = PolyCollection(
            cast(Any, schematic.arrowheads(currents)[carrying]), zorder=2, label="currents", linewidths=0
        )
        heads.set(array=np.abs(currents[carrying]), cmap=wires.get_cmap(), clim=wires.get_clim())
        ax.add_collection(heads)
    draw_symbols(ax, schematic)
    nodes = ax.scatter(
        *schematic.places.T, s=diameter**2, c="white", edgecolors="0.15", linewidths=0.6, zorder=5, label="nodes"
    )
    if state is not None:
        volts = np.asarray(net.voltages(state, x), dtype=float)
        nodes.set(array=volts, facecolors=None, **_voltage_colours(volts))
    handles = []
    for label, members, marker, colour in _terminals(net):
        if members:
            look: dict[str, Any] = {
                "marker": marker,
                "markeredgecolor": colour,
                "fillstyle": "none",
                "linestyle": "none",
            }
            place = schematic.places[list(members)].T
            ax.plot(*place, markersize=1.45 * diameter, markeredgewidth=1.5, zorder=4, label=label, **look)
            handles.append(Line2D([], [], markersize=9, markeredgewidth=1.5, label=label, **look))
    if diameter >= 12:
        _number_nodes(ax, net, schematic, nodes, diameter)
    if state is not None:
        bars = [(nodes, "voltage (V)"), *([(wires, "|current| (A)")] if len(conductance) else [])]
        for row, (artist, label) in enumerate(bars):
            style.colour_bar(ax, artist, label, place=(1.02, 0.56 - 0.5 * row, 0.022, 0.38))
    low, high = schematic.corners
    ax.set(aspect="equal", xticks=[], yticks=[], xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    ax.spines[:].set_visible(False)
    if handles:
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(handles), frameon=False)
    return ax


def layers(net: Settled, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
    """Draws a layered network: a column of voltages per layer, and the strongest conductances between layers.

    Small layers are columns of nodes, large ones strips with one cell per node. Each layer has colours of its own
    range, written below it: the voltages of a deep network fall by decades from layer to layer.

    Args:
        net: the layered network.
        state: an equilibrium state; None with an x settles the network, None without one draws the bare network.
        x: the input, shape (inputs,), volts.
        ax: where to draw; None opens a new figure.
    """
    state = _settled(net, state, x)
    sizes = [net.conductance[0].shape[0], *(g.shape[1] for g in net.conductance)]
    columns = None if state is None else net.voltages(state, _as_input(net, x))
    captions = [f"{_layer_name(layer, len(sizes))}\n{size} nodes" for layer, size in enumerate(sizes)]
    scales = [1.0] * len(sizes)
    if columns is not None:
        scales = [_positive(np.abs(np.asarray(volts, dtype=float)).max()) for volts in columns]
        columns = [np.asarray(volts, dtype=float) / scale for volts, scale in zip(columns, scales, strict=True)]
        captions = [f"{c}\n$|v| \\leq$ {scale:.3g} V" for c, scale in zip(captions, scales, strict=True)]
    ax = activities(
        sizes if columns is None else columns,
        ax,
        weights=net.conductance,
        captions=captions,
        quantity="voltage / largest in its layer",
        strongest="strongest conductances",
    )
    for layer in range(1, len(sizes) - 1):
        ax.text(layer, 1.02, "$v \\geq 0$", ha="center", va="bottom", fontsize="small", color="0.3")
        ax.text(layer, -0.02, "$v \\leq 0$", ha="center", va="top", fontsize="small", color="0.3")
    return ax


def voltages(net: Settled | Circuit, state: Any, x: Any, ax: Axes | None = None) -> Axes:
    """Plots the voltage of every node: by number in a circuit, sorted within each layer in a layered network.

    Args:
        net: a circuit or a layered network.
        state: an equilibrium state.
        x: the input, shape (inputs,), volts.
        ax: where to draw; None opens a new figure.
    """
    ax = style.axes(ax, (6.0, 3.4))
    ax.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
    ax.set_ylabel("voltage (V)")
    shown = net.voltages(state, _as_input(net, x))
    if isinstance(shown, tuple):
        columns = [np.asarray(column) for column in shown]
        for layer, column in enumerate(columns):
            across = layer + 0.8 * ((np.arange(column.size) + 0.5) / column.size - 0.5)
            ax.plot(across, np.sort(column), ".", markersize=4, color=_shade(layer, len(columns)))
        largest = [float(np.abs(column).max()) for column in columns]
        if max(largest) > 30 * min(largest) > 0:
            ax.set_yscale("symlog", linthresh=min(largest), linscale=1.5)
        ax.set_xticks(range(len(columns)), [_layer_name(layer, len(columns)) for layer in range(len(columns))])
        ax.set_xlabel("nodes, sorted by voltage within each layer")
        return style.curves(ax)
    volts = np.asarray(shown, dtype=float)
    ax.vlines(np.arange(volts.size), 0.0, volts, color="0.75", linewidth=0.8 if volts.size <= 60 else 0.3, zorder=1)
    ax.plot(
        np.arange(volts.size),
        volts,
        "o",
        color="0.25",
        markersize=4 if volts.size <= 60 else 2,
        label="all nodes",
        zorder=2,
    )
    for label, members, marker, colour in _terminals(cast(Circuit, net)):
        if members:
            ax.plot(
                list(members), volts[list(members)], marker, color=colour, fillstyle="none", markersize=9, label=label
            )
    ax.set_xlabel("node")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return style.curves(ax, whole=True, legend=False)


def _settled(net: Settled, state: Any, x: Any) -> Any:
    if state is not None and x is None:
        raise ValueError("x: wanted the input that belongs to the state, got None")
    return state if state is not None or x is None else net.relax(_as_input(net, x)).state


def _as_input(net: Settled, x: Any) -> Any:
    return jnp.asarray(x, jax.tree.leaves(net.conductance)[0].dtype)


def _terminals(net: Elements) -> list[tuple[str, tuple[int, ...], str, str]]:
    parts = {"inputs": net.inputs, "outputs": net.outputs, "rails": net.rails}
    return [(label, tuple(members), *style.ROLES[label]) for label, members in parts.items()]


def _number_nodes(ax: Axes, net: Elements, schematic: Schematic, nodes: Any, diameter: float) -> None:
    for node, (place, colour) in enumerate(zip(schematic.places, _facecolours(nodes, net.n), strict=True)):
        dark = colour[:3] @ np.array([0.299, 0.587, 0.114]) < 0.5
        ax.annotate(
            str(node if net.labels is None else net.labels[node]),
            place,
            ha="center",
            va="center",
            fontsize=0.5 * diameter,
            color="white" if dark else "black",
            zorder=6,
        )


def _facecolours(nodes: Any, count: int) -> np.ndarray:
    values = nodes.get_array()
    colours = nodes.get_facecolors() if values is None else nodes.to_rgba(values)
    return np.broadcast_to(np.asarray(colours), (count, 4))


def _voltage_colours(volts: np.ndarray) -> dict[str, Any]:
    """A diverging map with white at 0 V where both signs occur, a sequential one elsewhere."""
    low, high = float(volts.min()), float(volts.max())
    if low < 0 < high:
        return {"cmap": style.SIGNED, "clim": (-max(-low, high), max(-low, high))}
    return {"cmap": "viridis", "clim": (low, high if high > low else low + 1.0)}


def _ink() -> Any:
    """From light grey to black, so that small currents stay visible on white."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("ink", ["0.82", "0.0"])


def _shade(layer: int, count: int) -> Any:
    import matplotlib

    return matplotlib.colormaps["viridis"](0.85 * layer / max(count - 1, 1))


def _positive(value: float) -> float:
    return float(value) if value > 0 else 1.0


def _layer_name(layer: int, count: int) -> str:
    return "inputs $\\pm x$" if layer == 0 else "outputs" if layer == count - 1 else f"hidden {layer}"
