"""Pictures of learning: how it went, and what equilibrium propagation measured. Axes in (or None), axes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from learning.rule import Estimate
from substrates.pictures import style
from substrates.substrate import by_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def learning_curve(history: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Plots costs (solid) and error rates (dashed) against the number of epochs.

    Draws every entry whose name is or ends in "cost" or "error" and that holds a finite number; the scale is
    logarithmic where they span more than a factor of five, and linear below the smallest of them, so that a zero shows.
    Without such entries the axes stay empty.

    Args:
        history: one value per epoch for each quantity, as `fit` returns it.
        ax: where to draw; None opens a new figure.
    """
    curves = {
        name: np.asarray(values, dtype=float)
        for name, values in history.items()
        if name.split("_")[-1] in ("cost", "error") and np.any(np.isfinite(np.asarray(values, dtype=float)))
    }
    ax = style.axes(ax)
    kinds = sorted({name.split("_")[-1] for name in curves})
    sets = list(dict.fromkeys(name.rpartition("_")[0] for name in history))
    for name, values in curves.items():
        prefix, _, kind = name.rpartition("_")
        colour = style.COLOURS[sets.index(prefix) % len(style.COLOURS)]
        ax.plot(
            np.arange(1, values.size + 1),
            values,
            color=colour,
            linestyle="-" if kind == "cost" else "--",
            linewidth=1.5,
            marker="o" if values.size <= 30 else None,
            markersize=3,
            label=name.replace("_", " "),
        )
    everything = np.concatenate([np.zeros(0), *(values[np.isfinite(values)] for values in curves.values())])
    positive = everything[everything > 0]
    if positive.size and everything.min() >= 0 and positive.max() > 5 * positive.min():
        if everything.min() > 0:
            ax.set_yscale("log")
        else:
            ax.set_yscale("symlog", linthresh=positive.min(), linscale=0.5)
            ax.set_ylim(bottom=0.0)
    ax.set(xlabel="epoch", ylabel=" and ".join({"cost": "mean cost", "error": "error rate"}[kind] for kind in kinds))
    return style.curves(ax, whole=True)


def contrast(estimate: Any, ax: Axes | None = None, *, name: str | None = None) -> Axes:
    """Draws what a rule measured for one parameter: a matrix as an image, a vector as stems.

    Stems have the colour of contrasts. Those of an image are symmetric about zero: red where the cost grows with the
    parameter, blue where it falls. Arrays of more than two dimensions are drawn as a matrix with all dimensions but the
    first in one row.

    Args:
        estimate: an `Estimate`, or a tree such as its `gradient` or what `Substrate.contrast` returns.
        ax: where to draw; None opens a new figure.
        name: which parameter, such as "conductance" or "conductance[1]"; None takes the first.

    Raises ValueError for a name that is not there, and for a tree without arrays.
    """
    from matplotlib.ticker import MaxNLocator

    values, name = _leaf(estimate.gradient if isinstance(estimate, Estimate) else estimate, name)
    ax = style.axes(ax)
    label = _slope(estimate, name)
    if values.ndim < 2:
        values = values.reshape(-1)
        places = np.arange(values.size)
        ax.axhline(0.0, color="0.6", linewidth=0.8, zorder=0)
        ax.vlines(places, 0.0, values, colors=style.CONTRAST, linewidth=1.2 if values.size <= 100 else 0.6)
        ax.scatter(places, values, s=14 if values.size <= 100 else 3, color=style.CONTRAST, zorder=3)
        ax.set(xlabel=f"index of {name.replace('_', ' ')}", ylabel=label)
        return style.curves(ax, whole=True)
    matrix = values.reshape(values.shape[0], -1)
    largest = style.largest(matrix)
    rows, columns = matrix.shape
    image = ax.imshow(
        matrix,
        cmap=style.SIGNED,
        vmin=-largest,
        vmax=largest,
        interpolation="nearest",
        aspect="equal" if max(rows, columns) <= 3 * min(rows, columns) else "auto",
    )
    ax.set(xlabel="to node", ylabel="from node") if values.ndim == 2 else ax.set(ylabel="first index")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    style.colour_bar(ax, image, label)
    return ax


def draw_contrast(
    estimate: Any, edges: Any, free: Any, nudged: Any = None, ax: Axes | None = None, *, name: str | None = None
) -> Axes:
    """Draws what a rule measured on the edges of a graph where it was measured: lines as wide as the contrast is large.

    They are solid where the cost grows with the parameter, and dotted where it falls. Arrows show how nudges move the
    nodes, all enlarged by the number in the legend.

    Args:
        estimate: as of `contrast`.
        edges: pairs of nodes, shape (m, 2), one for each entry of the parameter; those to ground, -1, are left out.
        free: where the nodes are, shape (n, 2).
        nudged: where they are when they are nudged, shape (n, 2); None where nodes do not move.
        ax: where to draw; None opens a new figure.
        name: which parameter; None takes the first.

    Raises ValueError for another number of edges than there are entries, and for places of another shape.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D

    values, name = _leaf(estimate.gradient if isinstance(estimate, Estimate) else estimate, name)
    pairs, places = np.asarray(edges, int), np.asarray(free, float)
    if pairs.shape != (values.size, 2):
        raise ValueError(f"edges: wanted shape ({values.size}, 2), like {name}, got {pairs.shape}")
    moved = places if nudged is None else np.asarray(nudged, float)
    if places.ndim != 2 or places.shape[1] != 2 or moved.shape != places.shape:
        raise ValueError(f"free, nudged: wanted shape (n, 2), got {places.shape} and {moved.shape}")
    values, joined = values.ravel(), np.all(pairs >= 0, axis=1)
    ends, shown = places[pairs[joined]], values[joined]
    ax = style.axes(ax)
    ax.add_collection(LineCollection(list(ends), colors="0.85", linewidths=0.6, zorder=0))
    widths = 5 * np.abs(shown) / style.largest(shown)
    handles = []
    for sign, dashes, label in ((1, "-", "contrast above 0"), (-1, (0, (1.0, 1.0)), "contrast below 0")):
        chosen = np.sign(shown) == sign
        look: dict[str, Any] = {"color": style.CONTRAST, "linestyle": dashes}
        lines = LineCollection(list(ends[chosen]), linewidths=widths[chosen], label=label, zorder=1, **look)
        ax.add_collection(lines)
        handles.append(Line2D([], [], linewidth=2, label=label, **look))
    handles += ax.plot(*places.T, "o", color=style.FREE, markersize=4, label="free", zorder=3)
    if nudged is not None:
        step = moved - places
        longest = style.largest(np.linalg.norm(step, axis=1))
        lengths = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
        scale = float(np.median(lengths) if lengths.size else style.largest(np.ptp(places, axis=0))) / longest
        arrows = {"angles": "xy", "scale_units": "xy", "scale": 1 / scale, "width": 0.006, "zorder": 2}
        ax.quiver(*places.T, *step.T, color=style.NUDGED, label="nudged", **arrows)
        handles.append(Line2D([], [], color=style.NUDGED, linewidth=2, label=f"nudged, {scale:.3g} times"))
        ax.update_datalim(places + scale * step)
    ax.set_title(_slope(estimate, name), fontsize="medium")
    ax.legend(handles=handles, frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2)
    return style.plane(ax)


def compared(
    curves: Mapping[str, tuple[Any, Any]], ax: Axes | None = None, *, xlabel: str = "relaxations", ylabel: str = ""
) -> Axes:
    """Draws a curve for each of several rules with its spread: the mean over repetitions and one standard deviation.

    Args:
        curves: for each rule the places on the axis, shape (points,), and the values, shape (repetitions, points); what
            is not finite is left out.
        ax: where to draw; None opens a new figure.
        xlabel, ylabel: what the axes show.
    """
    ax = style.axes(ax)
    for number, (name, (places, values)) in enumerate(curves.items()):
        values = np.asarray(values, dtype=float)
        look = style.line(number)
        mean, spread = values.mean(axis=0), values.std(axis=0)
        ax.plot(places, mean, **look, linewidth=1.5, label=name)
        ax.fill_between(places, mean - spread, mean + spread, color=look["color"], alpha=0.15, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return style.curves(ax, legend=False)


def draw_in_time(updates: Any, targets: Any, name: str = "", entries: int = 5, ax: Axes | None = None) -> Axes:
    """Draws what changes in a nudged phase step by step as lines, and what it is to be compared with as dots.

    Args:
        updates, targets: of the same shape, the first axis being time.
        name: what they are of.
        entries: the most entries that are drawn, those whose targets are largest.
        ax: where to draw; None opens a new figure.
    """
    ax = style.axes(ax)
    updates, targets = (np.asarray(values, dtype=float).reshape(len(values), -1) for values in (updates, targets))
    largest = np.argsort(-np.abs(targets).max(axis=0), kind="stable")[:entries]
    times = np.arange(len(updates))
    for number, entry in enumerate(largest):
        colour = style.COLOURS[number % len(style.COLOURS)]
        ax.plot(times, updates[:, entry], color=colour, linewidth=1.5, label="EP update" if number == 0 else None)
        label = "minus the gradient" if number == 0 else None
        ax.plot(times, targets[:, entry], color=colour, linestyle="", marker="o", markersize=3, label=label)
    ax.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    ax.set(xlabel="step t", ylabel="per step", title=name)
    return style.curves(ax, whole=True)


def bias_split(radii: Any, errors: Mapping[str, Any], asymmetry: float | None = None, ax: Axes | None = None) -> Axes:
    """Plots the error of gradients against the nudging strength, and what an asymmetric Jacobian leaves of it.

    What falls with the strength is the bias of finite nudges, the faster the more points stand on the circle of
    `HolomorphicEP`; what stays is that of asymmetry.

    Args:
        radii: strengths, shape (n,), positive.
        errors: by label, relative to the true gradient, shape (n,) each.
        asymmetry: the relative error of the vector-field formula, drawn as a dashed line; None for none.
        ax: where to draw; None opens a new figure.

    Source: Laborieux and Zenke 2024, arXiv 2309.02214, figure 2.
    """
    ax = style.axes(ax)
    for k, (label, values) in enumerate(errors.items()):
        ax.loglog(radii, np.asarray(values, float), marker="o", markersize=3, **style.line(k), label=label)
    if asymmetry is not None:
        ax.axhline(asymmetry, color="0.3", linestyle="--", linewidth=1, label="asymmetry alone")
    ax.set(xlabel=r"nudging strength $|\beta|$", ylabel="relative error of the gradient")
    return style.curves(ax)


def along_training(histories: Mapping[str, Mapping[str, Any]], quantity: str, ax: Axes | None = None) -> Axes:
    """Plots one quantity of several runs against the number of epochs: "angle", "symmetry", "validation_error".

    Args:
        histories: by label, as `fit` returns them, with what it observed.
        quantity: a name that all of them have.
        ax: where to draw; None opens a new figure.

    Raises:
        ValueError: for a quantity that a history does not have.

    Source: Laborieux and Zenke 2024, arXiv 2309.02214, figures 3 to 5.
    """
    for label, history in histories.items():
        if quantity not in history:
            raise ValueError(
                f"quantity: wanted one of {', '.join(history)}, which {label!r} has, got {quantity!r}; "
                "fit(observe=Tracking(...)) records more"
            )
    ax = style.axes(ax, (4.0, 3.0))
    for k, (label, history) in enumerate(histories.items()):
        values = np.asarray(history[quantity], dtype=float)
        ax.plot(np.arange(1, values.size + 1), values, **style.line(k), linewidth=1.5, label=label)
    units = {"angle": "angle to the true gradient (degrees)", "symmetry": "|S| / (|S| + |A|)"}
    ax.set(xlabel="epoch", ylabel=units.get(quantity, quantity.replace("_", " ")))
    return style.curves(ax, whole=True)


def _slope(estimate: Any, name: str) -> str:
    """What the values of a parameter's contrast are called."""
    return ("d cost / d " if isinstance(estimate, Estimate) else "") + name.replace("_", " ")


def _leaf(tree: Any, name: str | None) -> tuple[np.ndarray, str]:
    """The array of a tree that has this name, and its full name."""
    named = {name: leaf for name, leaf in by_path(tree).items() if np.size(leaf) > 0}
    if not named:
        raise ValueError("estimate: wanted a tree with at least one array that is not empty")
    if name is None:
        name = next(iter(named))
    elif name not in named:
        raise ValueError(f"name: wanted one of {list(named)}, got {name!r}")
    return np.asarray(named[name], dtype=float), name
