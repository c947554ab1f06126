"""Pictures of recurrent networks: layers and what joins them, and Jacobians."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from substrates.pictures import style
from substrates.pictures.columns import activities, by_largest

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_connections(
    shapes: Sequence[tuple[int, ...]],
    values: Sequence[Any] | None,
    arrows: Sequence[tuple[int, int, float]],
    ax: Axes | None = None,
) -> Axes:
    """Draws layers as columns of units coloured by activity, and an arrow for each connection.

    Arrows to later layers pass above, those that lead back below; their widths are as the weights.

    Args:
        shapes: of the input and of the layers after it; feature maps are flattened.
        values: the activities of each, or None to leave them bare.
        arrows: (source, target, size of the weights) of each connection.
        ax: where to draw; None opens a new figure.
    """
    from matplotlib.patches import FancyArrowPatch

    columns: list[Any] = []
    captions = []
    for k, shape in enumerate(shapes):
        name = "input" if k == 0 else "outputs" if k == len(shapes) - 1 else f"hidden {k}"
        caption = f"{name}\n" + (f"{shape[0]} units" if len(shape) == 1 else " x ".join(map(str, shape)))
        column: Any = int(np.prod(shape))
        if values is not None:
            column, largest = by_largest(values[k])
            caption += f"\n$|s| \\leq$ {largest:.3g}"
        columns.append(column)
        captions.append(caption)
    ax = activities(columns, ax, captions=captions, quantity="activity / largest in its layer")
    widest = max((size for *_, size in arrows), default=1.0) or 1.0
    for source, target, size in arrows:
        onwards = target > source
        height = 1.03 if onwards else -0.02
        bend = (-0.35 if onwards else -0.07) / max(abs(target - source), 1)
        ends = (source + 0.03, height), (target - 0.03 if onwards else target + 0.03, height)
        if source == target:
            ends, bend = ((source - 0.06, -0.02), (source + 0.06, -0.02)), 2.0
        arrow = FancyArrowPatch(*ends, connectionstyle=f"arc3,rad={bend}", arrowstyle="-|>", mutation_scale=10)
        arrow.set(linewidth=0.6 + 1.6 * size / widest, color="0.35" if onwards else style.VERMILION)
        arrow.set(label=f"{source} to {target}", clip_on=False)
        ax.add_patch(arrow)
    ax.set_ylim(-0.45, 1.3)
    return ax


def draw_jacobian(jacobian: Any, sizes: Sequence[int] = (), ax: Axes | None = None) -> Axes:
    """Draws a Jacobian J as an image; its title tells how symmetric it is, |S| / (|S| + |A|).

    Args:
        jacobian: a square matrix.
        sizes: of the layers, between which lines are drawn.
        ax: where to draw; None opens a new figure.

    Raises:
        ValueError: for what is no square matrix.
    """
    matrix = np.asarray(jacobian, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"jacobian: wanted a square matrix, got shape {matrix.shape}")
    ax = style.axes(ax, (4.0, 3.6))
    off = matrix - np.diag(np.diag(matrix))
    largest = style.largest(off)
    picture = ax.imshow(matrix, cmap=style.SIGNED, vmin=-largest, vmax=largest)
    picture.set_label("jacobian")
    style.colour_bar(ax, picture, r"$\partial f_i / \partial s_j$")
    for edge in np.cumsum(sizes)[:-1]:
        ax.axhline(edge - 0.5, color="0.6", linewidth=0.6)
        ax.axvline(edge - 0.5, color="0.6", linewidth=0.6)
    symmetric, antisymmetric = (np.linalg.norm(matrix + sign * matrix.T) for sign in (1, -1))
    ax.set(xticks=[], yticks=[], title=f"|S| / (|S| + |A|) = {symmetric / ((symmetric + antisymmetric) or 1):.3f}")
    return ax
