"""Pictures of predictive coding networks: the activities of every layer beside its prediction errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from substrates.pictures.columns import activities, by_largest

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_layers(shapes: Sequence[tuple[int, ...]], values: Sequence[Any] | None, ax: Axes | None = None) -> Axes:
    """Draws a column for the input and two for every layer: its activities h_k and its prediction errors eps_k.

    Args:
        shapes: of the input and of every layer.
        values: of every column, each shown as parts of its largest; None draws bare columns.
        ax: where to draw; None opens a new figure.
    """
    sizes: list[Any] = [
        int(np.prod(shape)) for shape in (shapes[0], *(shape for shape in shapes[1:] for _ in range(2)))
    ]
    captions = ["inputs\n$x$"]
    for k in range(1, len(shapes)):
        layer = f"hidden {k}" if k < len(shapes) - 1 else "outputs"
        captions += [f"{layer}\n$h_{{{k}}}$", f"errors\n$\\epsilon_{{{k}}}$"]
    captions = [f"{caption}\n{size} nodes" for caption, size in zip(captions, sizes, strict=True)]
    if values is None:
        return activities(sizes, ax, captions=captions)
    columns, largest = zip(*map(by_largest, values), strict=True)
    captions = [f"{caption}\n$\\leq$ {size:.2g}" for caption, size in zip(captions, largest, strict=True)]
    return activities(columns, ax, captions=captions, quantity="activity or error / largest in its column")
