"""Pictures of Hopfield networks: activities, feature maps, and what a nudge changes in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from substrates.columns import activities
from substrates.wiring import Dense

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from substrates.classical.hopfield.network import HopfieldNetwork

MOST_MAPS = 12


def layers(net: HopfieldNetwork, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
    """Draws a network as columns of units coloured by activity, with its strongest couplings where they are dense.

    Feature maps are flattened; `maps` shows them as images. Each layer's colours span its own largest activity, which
    is written below it.

    Args:
        net: the network.
        state: a state; None with an x settles the network, None without one draws it bare. The difference of two
            equilibria, minus their free state, shows what the contrast of the two phases sees.
        x: the input; None leaves the column of the inputs bare.
        ax: where to draw; None opens a new figure.
    """
    sizes = [int(np.prod(shape)) for shape in net.shapes]
    captions = [f"{_name(k, len(sizes))}\n{_shape(shape)}" for k, shape in enumerate(net.shapes)]
    columns: list[Any] = list(sizes)
    if state is None and x is not None:
        state = net.relax(jnp.asarray(x)).state
    if state is not None:
        values = [None if x is None else net.clamped(jnp.asarray(x)), *state]
        for k, layer in enumerate(values):
            if layer is not None:
                column = np.asarray(layer, dtype=float).ravel()
                largest = float(np.abs(column).max(initial=0))
                columns[k] = column / (largest or 1.0)
                captions[k] += f"\n$|s| \\leq$ {largest:.3g}"
    return activities(
        columns,
        ax,
        weights=[c.weight if isinstance(c, Dense) else None for c in net.coupling],
        captions=captions,
        quantity="activity / largest in its layer",
    )


def maps(net: HopfieldNetwork, state: Any, layer: int = 0, ax: Axes | None = None) -> Axes:
    """Draws the feature maps of one layer side by side, the first twelve, in common colours.

    Args:
        net: the network.
        state: a state, or the difference of two.
        layer: which layer after the input; it must hold feature maps.
        ax: where to draw; None opens a new figure.

    Raises:
        ValueError: for a layer that is not one of feature maps.
    """
    import matplotlib.pyplot as plt

    kinds = [k for k, shape in enumerate(net.shapes[1:]) if len(shape) == 3]
    if layer not in kinds:
        raise ValueError(f"layer: wanted one of the layers of feature maps, {kinds}, got {layer}")
    values = np.asarray(state[layer], dtype=float)[..., :MOST_MAPS]
    height, width, count = values.shape
    columns = min(count, 4)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for k in range(count):
        top, left = (k // columns) * (height + 1), (k % columns) * (width + 1)
        sheet[top : top + height, left : left + width] = values[..., k]
    if ax is None:
        ax = plt.subplots(figsize=(1.3 * columns + 1.0, 1.3 * rows), layout="constrained")[1]
    largest = float(np.abs(values).max(initial=0)) or 1.0
    picture = ax.imshow(sheet, cmap="RdBu_r", vmin=-largest, vmax=largest)
    picture.set_label(f"layer {layer}")
    ax.figure.colorbar(picture, ax=ax, label="activity", shrink=0.8)
    ax.set(
        xticks=[], yticks=[], title=f"{_name(layer + 1, len(net.shapes))}: {count} of {net.shapes[layer + 1][2]} maps"
    )
    ax.spines[:].set_visible(False)
    return ax


def _name(layer: int, count: int) -> str:
    return "input" if layer == 0 else "outputs" if layer == count - 1 else f"hidden {layer}"


def _shape(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} units" if len(shape) == 1 else " x ".join(map(str, shape))
