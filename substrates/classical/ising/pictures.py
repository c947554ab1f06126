"""Pictures of spins: graphs and lattices with their couplings and domain walls, and layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from substrates.classical.ising.graph import SpinGraph
from substrates.classical.ising.layered import LayeredSpins
from substrates.classical.ising.model import IsingModel
from substrates.columns import activities

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DOWN, UP = "#2166ac", "#fddbc7"
BROKEN = "#d55e00"
INPUT, OUTPUT = "#009e73", "#000000"


def draw(model: IsingModel, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
    """Draws a model as its kind is drawn best: `layers`, `lattice` for two dimensions, `graph` for any other."""
    if isinstance(model, LayeredSpins):
        return layers(model, state, x, ax)
    if not isinstance(model, SpinGraph):
        raise ValueError(f"model: wanted spins on a graph or in layers, got {type(model).__name__}")
    return lattice(model, state, x, ax) if len(model.shape) == 2 else graph(model, state, x, ax)


def graph(model: SpinGraph, state: Any = None, x: Any = None, ax: Axes | None = None, positions: Any = None) -> Axes:
    """Draws spins as discs, light where they point up and dark where down, and couplings as lines of width |J|.

    Antiferromagnetic couplings are dashed. Couplings that the spins do not satisfy, J s_i s_j < 0, stand out.

    Args:
        model: spins on a graph.
        state: spins; None with an x (or without inputs) settles the model.
        x: the held input, shape (inputs,).
        ax: where to draw; None opens a new figure.
        positions: (n, 2) places of the spins; None asks networkx.
    """
    import matplotlib.pyplot as plt
    from matplotlib.collections import LineCollection

    spins = _settled(model, state, x)
    places = _places(model) if positions is None else np.asarray(positions, float)
    if places.shape != (model.n, 2):
        raise ValueError(f"positions: wanted shape ({model.n}, 2), one place per spin, got {places.shape}")
    if ax is None:
        ax = plt.subplots(figsize=(4.6, 4.0), layout="constrained")[1]
    coupling = np.asarray(model.coupling.weight, float)
    edges = model.coupling.graph.edges
    broken = _broken(model, spins)
    widths = 0.6 + 3.0 * np.abs(coupling) / max(np.abs(coupling).max(initial=0), 1e-300)
    for part, label, colour in ((~broken, "satisfied", "0.6"), (broken, "unsatisfied", BROKEN)):
        styles = ["solid" if J >= 0 else (0, (2, 1)) for J in coupling[part]]
        lines = LineCollection(list(places[edges[part]]), linewidths=widths[part], colors=colour, linestyles=styles)
        lines.set(label=label, zorder=1)
        ax.add_collection(lines)
    size = float(np.clip(2400 / model.n, 20, 240))
    discs = ax.scatter(*places.T, s=size, c=spins, cmap=_colours(), vmin=-1, vmax=1, edgecolors="0.2", zorder=3)
    discs.set_label("spins")
    for nodes, label, colour in ((model.inputs, "inputs", INPUT), (model.outputs, "outputs", OUTPUT)):
        if nodes:
            ring = {"facecolors": "none", "edgecolors": colour, "linewidths": 2.0}
            ax.scatter(*places[list(nodes)].T, s=2.2 * size, zorder=4, label=label, **ring)
    ax.set(aspect="equal", xticks=[], yticks=[])
    ax.margins(0.12)
    ax.spines[:].set_visible(False)
    named = [part for part in ax.collections if part.get_label() != "spins" and part.get_paths()]
    ax.legend(
        handles=named,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        markerscale=0.6,
    )
    return ax


def lattice(model: SpinGraph, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
    """Draws a two-dimensional lattice as cells, with a wall across every coupling that is not satisfied.

    In a ferromagnet these are the walls between domains; in a spin glass they end at frustrated squares.

    Args:
        model: spins on a lattice of two dimensions.
        state: spins; None settles the model.
        x: the held input, shape (inputs,).
        ax: where to draw; None opens a new figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.collections import LineCollection

    if len(model.shape) != 2:
        raise ValueError(f"model: wanted a lattice of two dimensions, got the shape {model.shape}; use graph")
    spins = _settled(model, state, x)
    rows, columns = model.shape
    if ax is None:
        ax = plt.subplots(figsize=(4.4, 4.4 * rows / columns + 0.3), layout="constrained")[1]
    image = ax.imshow(spins.reshape(rows, columns), cmap=_colours(), vmin=-1, vmax=1, interpolation="nearest")
    image.set_label("spins")
    row, column = np.divmod(model.coupling.graph.edges[_broken(model, spins)], columns)
    near = (np.abs(np.diff(row, axis=1)) + np.abs(np.diff(column, axis=1)) == 1).ravel()  # not around the edge
    middle = np.stack([column[near].mean(axis=1), row[near].mean(axis=1)], axis=1)
    along = 0.5 * np.stack([np.diff(row[near], axis=1), np.diff(column[near], axis=1)], axis=2)[:, 0]
    walls = LineCollection(list(np.stack([middle - along, middle + along], axis=1)), colors=BROKEN)
    walls.set(label="unsatisfied", linewidths=float(np.clip(90 / max(rows, columns), 0.4, 2.5)), zorder=2)
    ax.add_collection(walls)
    ax.set(xticks=[], yticks=[])
    return ax


def layers(model: LayeredSpins, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
    """Draws layers of spins as columns, light up and dark down, with the strongest couplings between them.

    Args:
        model: layers of spins.
        state: the layers after the input; None with an x settles the model, None without one draws it bare. The
            difference of two states, divided by 2, shows which spins a nudge has flipped.
        x: the input; None leaves its column bare.
        ax: where to draw; None opens a new figure.
    """
    sizes = [model.sizes[0], *(field.shape[0] for field in model.field)]
    columns: list[Any] = list(sizes)
    captions = [f"inputs\n{sizes[0]}", *(f"hidden {k}\n{n} spins" for k, n in enumerate(sizes[1:-1], 1))]
    captions.append(f"outputs\n{model.sizes[-1]} x {model.copies} spins")
    if x is not None:
        inputs = np.asarray(x, float)
        largest = float(np.abs(inputs).max(initial=0)) or 1.0
        columns[0] = inputs / largest
        captions[0] += f", |x| $\\leq$ {largest:.3g}"
        state = model.relax(jnp.asarray(x)).state if state is None else state
    if state is not None:
        columns[1:] = [np.asarray(layer, float) for layer in state]
    weights = [np.asarray(block.weight) for block in model.coupling]
    return activities(columns, ax, weights=weights, captions=captions, quantity="spin")


def _settled(model: SpinGraph, state: Any, x: Any) -> np.ndarray:
    if x is None and model.inputs:
        raise ValueError(f"x: wanted the {len(model.inputs)} held spins, got None")
    x = jnp.zeros(0, model.field.dtype) if x is None else jnp.asarray(x)
    state = model.relax(x).state if state is None else jnp.asarray(state)
    if state.shape != (model.size,):
        raise ValueError(f"state: wanted shape ({model.size},), the free spins, got {state.shape}")
    return np.asarray(model.configuration(state, x), float)


def _broken(model: SpinGraph, spins: np.ndarray) -> np.ndarray:
    i, j = model.coupling.graph.edges.T
    return np.asarray(model.coupling.weight, float) * spins[i] * spins[j] < 0


def _places(model: SpinGraph) -> np.ndarray:
    if 1 <= len(model.shape) <= 2:
        row, column = np.divmod(np.arange(model.n), model.shape[-1])
        return np.stack([column, -row], axis=1).astype(float)
    import networkx as nx

    drawn = nx.Graph()
    drawn.add_nodes_from(range(model.n))
    drawn.add_edges_from(model.coupling.graph.edges.tolist())
    found = nx.kamada_kawai_layout(drawn) if model.n <= 150 else nx.spring_layout(drawn, seed=0)
    return np.array([found[node] for node in range(model.n)])


def _colours() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("spins", [DOWN, "white", UP])
