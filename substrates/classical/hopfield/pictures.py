"""Pictures of Hopfield networks: activities, feature maps, and what a nudge changes in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from substrates.pictures import style
from substrates.pictures.columns import activities, by_largest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_MAPS = 12

Shapes = tuple[tuple[int, ...], ...]


class Layered(Protocol):
    """A network that says the shapes of its input and of the layers after it."""

    @property
    def shapes(self) -> Shapes: ...


def draw_layers(shapes: Shapes, values: Sequence[Any], weights: Sequence[Any], ax: Axes | None = None) -> Axes:
    """Draws layers as columns of units coloured by activity, and the strongest couplings between them.

    Args:
        shapes: of the input and of the layers after it; feature maps are flattened.
        values: the activities of each, or None to leave it bare.
        weights: for each pair of successive layers a matrix, or None for a pair without lines.
        ax: where to draw; None opens a new figure.
    """
    columns: list[Any] = []
    captions = []
    for k, (shape, value) in enumerate(zip(shapes, values, strict=True)):
        caption = f"{_name(k, len(shapes))}\n"
        caption += f"{shape[0]} units" if len(shape) == 1 else " x ".join(map(str, shape))
        column: Any = int(np.prod(shape))
        if value is not None:
            column, largest = by_largest(value)
            caption += f"\n$|s| \\leq$ {largest:.3g}"
        columns.append(column)
        captions.append(caption)
    quantity = "activity / largest in its layer"
    return activities(columns, ax, weights=weights, captions=captions, quantity=quantity)


def maps(net: Layered, state: Any, layer: int = 0, ax: Axes | None = None) -> Axes:
    """Draws the feature maps of one layer side by side, the first twelve, in common colours.

    Args:
        net: the network.
        state: a state, or the difference of two.
        layer: which layer after the input; it must hold feature maps.
        ax: where to draw; None opens a new figure.

    Raises:
        ValueError: for a layer that is not one of feature maps.
    """
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
    ax = style.axes(ax, (1.3 * columns + 1.0, 1.3 * rows))
    largest = style.largest(values)
    picture = ax.imshow(sheet, cmap=style.SIGNED, vmin=-largest, vmax=largest)
    picture.set_label(f"layer {layer}")
    style.colour_bar(ax, picture, "activity")
    ax.set(
        xticks=[], yticks=[], title=f"{_name(layer + 1, len(net.shapes))}: {count} of {net.shapes[layer + 1][2]} maps"
    )
    ax.spines[:].set_visible(False)
    return ax


def _name(layer: int, count: int) -> str:
    return "input" if layer == 0 else "outputs" if layer == count - 1 else f"hidden {layer}"
