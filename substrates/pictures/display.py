"""What notebooks show of an object: a small picture beside a table, as HTML; nothing is relaxed or read from disk."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (3.6, 2.7)
"""The size of a small picture, inches."""


def picture(draw: Callable[[Axes], Any], *, size: tuple[float, float] = SIZE, flat: bool = True) -> str:
    """A picture as an HTML element.

    Args:
        draw: draws on axes.
        size: inches.
        flat: whether the axes are of the plane; axes in space otherwise.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure.add_subplot(**({} if flat else {"projection": "3d"})))
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=80)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'


def table(rows: Sequence[tuple[Any, ...]]) -> str:
    """A table as an HTML element, its cells as text."""
    cell = lambda text: f'<td style="text-align:left">{html.escape(str(text))}</td>'
    lines = ("".join(map(cell, row)) for row in rows)
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def in_short(array: Any) -> tuple[str, str]:
    """The shape of an array, and the span of its numbers, of complex ones of their sizes."""
    values = np.asarray(array)
    if not values.size:
        return str(values.shape), ""
    complex_ = np.iscomplexobj(values)
    values = np.abs(values) if complex_ else values
    low, high = float(values.min()), float(values.max())
    span = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    return str(values.shape), f"|.| {span}" if complex_ else span


def beside(title: str, shown: str, rows: Sequence[tuple[Any, ...]]) -> str:
    """A title, and under it a picture beside a table, as an HTML element."""
    look = "display:flex;align-items:center;gap:1em;flex-wrap:wrap"
    return f'<b>{html.escape(title)}</b><div style="{look}"><div>{shown}</div>{table(rows)}</div>'
