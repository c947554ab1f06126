"""How all pictures look: colours that every kind of eye tells apart, axes, colour bars, and redrawing in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""For lines, in this order: those of Okabe and Ito 2008, "Color universal design"."""

BLUE, VERMILION, GREEN, PURPLE = COLOURS[:4]

FREE, NUDGED, TARGET, CONTRAST = BLUE, VERMILION, GREEN, PURPLE
"""What is free, nudged, wanted, and the difference between nudged and free, in all pictures."""

ROLES = {
    "inputs": ("s", BLUE),
    "clamped": ("D", GREEN),
    "references": ("D", GREEN),
    "rails": ("D", GREEN),
    "outputs": ("o", VERMILION),
}
"""How nodes with a part to play are marked: (marker, colour)."""

SIGNED, POSITIVE, ANGLE = "RdBu_r", "magma_r", "twilight_shifted"
"""Colour maps of numbers about 0, of numbers from 0, and of angles."""

CURVE = (5.0, 3.4)
"""The size of a figure of curves, inches."""

_BARS: WeakKeyDictionary[Axes, dict[str, Colorbar]] = WeakKeyDictionary()


def axes(ax: Axes | None, size: tuple[float, float] = CURVE, **options: Any) -> Axes:
    """The axes that were given, or those of a new figure.

    Args:
        ax: where to draw; None opens a new figure.
        size: of the new figure, inches.
        options: of its axes, such as `projection`.
    """
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.figure(figsize=size, layout="constrained").add_subplot(**options)


def line(number: int) -> dict[str, Any]:
    """The colour and the dashes of the curve of that number, from 0: 24 that look different."""
    turn, colour = divmod(number, len(COLOURS))
    return {"color": COLOURS[colour], "linestyle": ("-", "--", ":", "-.")[turn % 4]}


def curves(ax: Axes, *, whole: bool = False, legend: bool = True) -> Axes:
    """Axes of curves: open above and on the right, with faint lines at the ticks of y, and a legend of what has a name.

    Args:
        ax: where curves are drawn.
        whole: whether x counts, and has ticks at whole numbers only.
        legend: whether names are shown.
    """
    from matplotlib.ticker import MaxNLocator

    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.9", linewidth=0.6)
    if whole:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if legend and ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False)
    return ax


def plane(ax: Axes, margin: float = 0.12) -> Axes:
    """Axes of a plane where only places count: equal scales, no ticks, no frame."""
    ax.set(aspect="equal", xticks=[], yticks=[])
    ax.margins(margin)
    ax.spines[:].set_visible(False)
    return ax


def colour_bar(
    ax: Axes, artist: Any, label: str, *, place: tuple[float, float, float, float] | None = None, **options: Any
) -> Colorbar:
    """A colour bar beside the axes; where they have one of that label, that one goes on with the new artist.

    Colours of pictures that are drawn one after the other into the same axes thus mean the same: they span what any
    of them spans.

    Args:
        ax: where the artist is drawn.
        artist: what the colours belong to.
        label: what they show, with its unit.
        place: left, bottom, width and height in parts of the axes; None places it beside them.
        options: of `matplotlib.figure.Figure.colorbar`.
    """
    bars = _BARS.setdefault(ax, {})
    bar = bars.get(label)
    if bar is not None and bar.ax.get_figure() is not None:
        ends = [end for each in (bar.mappable, artist) for end in each.get_clim()]
        artist.set_clim(min(ends), max(ends))
        if bar.mappable.get_clim() == artist.get_clim() and bar.cmap == artist.get_cmap():
            bar.mappable = artist
        else:
            bar.update_normal(artist)
        return bar
    if place is None:
        options = {"shrink": 0.75, "pad": 0.02} | options
        bar = ax.figure.colorbar(artist, ax=ax, label=label, **options)
    else:
        bar = ax.figure.colorbar(artist, cax=ax.inset_axes(place), label=label, **options)
    bars[label] = bar
    return bar


def phase_bar(ax: Axes, artist: Any, label: str) -> Colorbar:
    """A colour bar of angles from -pi to pi."""
    bar = colour_bar(ax, artist, label)
    bar.set_ticks([-np.pi, 0, np.pi], labels=[r"$-\pi$", "0", r"$\pi$"])
    return bar


def drawn_on(ax: Axes, *, legend: bool = True) -> list[Any]:
    """What is drawn on axes, from the back to the front: all but their frame, ticks and colour bars.

    Args:
        ax: the axes.
        legend: whether their legend counts.
    """
    drawn = [*ax.collections, *ax.lines, *ax.images, *ax.patches, *ax.texts, ax.title]
    drawn += [ax.get_legend()] if legend and ax.get_legend() else []
    return sorted(drawn, key=lambda artist: artist.get_zorder())


def legend_of(ax: Axes) -> tuple[str, ...]:
    """The words of the legend of axes."""
    legend = ax.get_legend()
    return tuple(text.get_text() for text in legend.get_texts()) if legend else ()


def has_legend_beside(ax: Axes) -> bool:
    """Whether axes have a legend that covers nothing of what is drawn on them, once their figure has been laid out."""
    legend = ax.get_legend()
    return legend is not None and not legend.get_window_extent().overlaps(ax.bbox)


def wipe(ax: Axes) -> None:
    """Takes away what is drawn on axes, and leaves their frame, limits and colour bars to what is drawn next."""
    for artist in drawn_on(ax):
        if artist is not ax.title:
            artist.remove()
    ax.set_title("")


def colour_limits(ax: Axes) -> dict[str, tuple[float, float]]:
    """The values at the ends of the colour bars of axes, by their labels."""
    return {label: bar.mappable.get_clim() for label, bar in _BARS.get(ax, {}).items()}


def largest(values: Any) -> float:
    """The largest size of any number that is finite; 1 where there is none, or only zeros."""
    sizes = np.abs(np.asarray(values))
    return float(sizes[np.isfinite(sizes)].max(initial=0)) or 1.0
