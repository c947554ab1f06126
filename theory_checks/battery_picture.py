"""A picture of a battery of theorems. Axes in (or None), axes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from substrates.pictures import style
from theory_checks.battery import Battery, Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOLDS, FAILS, REFUSED = style.GREEN, style.VERMILION, "#F2F2F2"


def draw_battery(found: Battery, ax: Axes | None = None) -> Axes:
    """Draws a battery: rows are theorems, rule by rule, columns are systems.

    Green cells were measured and hold, with the orders that were fitted, or the decimal power of the largest error;
    orange ones fail; grey ones were refused. A dagger marks theorems that are proved.

    Args:
        found: what `battery` returned.
        ax: where to draw; None opens a new figure, large enough for its cells.
    """
    from matplotlib.patches import Rectangle

    systems, rows = found.systems, found.rows
    ax = style.axes(ax, (3.2 + 0.62 * len(systems), 1.4 + 0.2 * len(rows)))
    proved = {cell.theorem for cell in found.cells if cell.proved}
    for row, (_, theorem) in enumerate(rows):
        for column, system in enumerate(systems):
            cell = found.at(theorem, system)
            if cell is None:
                continue
            colour = {"holds": HOLDS, "fails": FAILS, "refused": REFUSED}[cell.verdict]
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, edgecolor="white"))
            ax.text(column, row, _inscription(cell), ha="center", va="center", fontsize=5.5, color="white")
    rules = [rule for rule, _ in rows]
    for row in range(1, len(rows)):
        if rules[row] != rules[row - 1]:
            ax.axhline(row - 0.5, color="black", linewidth=0.8)
    first = {rule: rules.index(rule) for rule in rules}
    names = [f"{theorem}{'†' if theorem in proved else ''}" for _, theorem in rows]
    ax.set_yticks(range(len(rows)), names, fontsize=6.5)
    beside = ax.secondary_yaxis("right")
    middles = [first[rule] + (rules.count(rule) - 1) / 2 for rule in first]
    beside.set_yticks(middles, list(first), fontsize=6.5)
    beside.tick_params(length=0)
    ax.set_xticks(range(len(systems)), systems, fontsize=6.5, rotation=45, ha="left")
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.set_xlim(-0.5, len(systems) - 0.5)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    return ax


def _inscription(cell: Cell) -> str:
    if cell.orders:
        return "\n".join(f"{float(one.measured):.2f}" for one in cell.orders[:2])
    errors = [one.error for one in cell.findings if one.error > 0 and np.isfinite(one.error)]
    if errors:
        return f"$10^{{{round(np.log10(max(errors)))}}}$"
    return "0" if cell.findings else ""
