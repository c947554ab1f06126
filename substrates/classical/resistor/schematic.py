"""Where the elements of a circuit lie on the page, and the symbols of those that are not resistors."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from substrates.spice.netlist import Elements

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KINDS = ("resistor", "diode", "current", "voltage", "controlled")
STUB = {"resistor": 0.42, "diode": 0.58}  # lengths of leads to ground, in typical distances between joined nodes
LONG_STUB = 0.75  # for those that carry a source
APART = 0.2  # distance between parallel elements
MARGIN = 0.35  # between the outermost node and the edge of the drawing
SYMBOL = 0.11  # half the size of a symbol, where there is room


class Schematic:
    """The geometry of a circuit drawn at given places.

    Attributes:
        places: (n, 2) of the nodes, scaled so that joined nodes lie one unit apart (median).
        paths: for each kind of element a list of polylines, from its first node to its second, one per element.
        grounds: (k, 2, 2) the end of each lead to ground and the direction in which it came.
        corners: the lower left and the upper right corner of the drawing.
        span: the larger side of the drawing.
        closest: the distance between the closest two nodes.
        symbol: half the size of a symbol, smaller where nodes crowd.
    """

    @staticmethod
    def of(net: Elements, places: np.ndarray) -> Schematic:
        """That of a circuit, kept, for pictures are drawn again and again while their circuit stays."""
        kinds = (net.edges, net.diodes, net.current_sources, net.voltage_sources, net.controlled_sources)
        return _laid_out(np.asarray(places, float).tobytes(), *(np.asarray(kind, int).tobytes() for kind in kinds))

    def __init__(self, places: np.ndarray, pairs: Mapping[str, np.ndarray], control: np.ndarray):
        elements = [(kind, int(a), int(b)) for kind in KINDS for a, b in pairs[kind]]
        joined = np.array([(a, b) for _, a, b in elements if a >= 0 and b >= 0], dtype=int).reshape(-1, 2)
        lengths = np.linalg.norm(places[joined[:, 0]] - places[joined[:, 1]], axis=1)
        typical = float(np.median(lengths)) if np.any(lengths > 0) else 1.0
        self.places = places / (typical if typical > 0 else 1.0)
        nearest = _nearest(self.places)
        self.closest = float(nearest.min())
        self.symbol = SYMBOL * float(np.clip(1.3 * np.median(nearest), 0.5, 1.0))
        self.paths: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
        self.control = control.tolist()
        grounds = []
        strands: dict[tuple[int, int], int] = defaultdict(int)
        count: dict[tuple[int, int], int] = defaultdict(int)
        for _, a, b in elements:
            count[min(a, b), max(a, b)] += 1
        leads = self._leads(joined, {node: number for (low, node), number in count.items() if low < 0 <= node})
        for kind, a, b in elements:
            pair = (min(a, b), max(a, b))
            strand = strands[pair]
            strands[pair] += 1
            if pair[0] < 0:
                direction = leads[pair[1]][strand]
                start = self.places[pair[1]]
                end = start + STUB.get(kind, LONG_STUB) * (0.5 + 0.5 * self.symbol / SYMBOL) * direction
                grounds.append((end, direction))
                path = np.stack([start, end])
            else:
                path = self._strand(pair, strand - (count[pair] - 1) / 2)
            self.paths[kind].append(path if a == pair[pair[0] < 0] else path[::-1])
        self.grounds = np.array(grounds).reshape(-1, 2, 2)
        ends = np.concatenate([self.places, self.grounds[:, 0]])
        self.corners = np.stack([ends.min(axis=0) - MARGIN, ends.max(axis=0) + MARGIN])
        self.span = float(np.ptp(self.corners, axis=0).max())

    def _strand(self, pair: tuple[int, int], offset: float) -> np.ndarray:
        """A path between two nodes; parallel ones are moved sideways."""
        start, end = self.places[pair[0]], self.places[pair[1]]
        if offset == 0:
            return np.stack([start, (start + end) / 2, end])
        along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-9)
        aside = offset * APART * _across(along)
        bend = min(0.25, float(np.linalg.norm(end - start)) / 3) * along
        return np.stack([start, start + bend + aside, end - bend + aside, end])

    def _leads(self, joined: np.ndarray, wanted: dict[int, int]) -> dict[int, np.ndarray]:
        """Directions for the leads to ground of each node: fanned out in the widest gap between its neighbours."""
        neighbours: dict[int, list[float]] = defaultdict(list)
        for a, b in joined:
            for here, there in ((a, b), (b, a)):
                across = self.places[there] - self.places[here]
                neighbours[int(here)].append(float(np.arctan2(across[1], across[0])))
        leads = {}
        for node, number in wanted.items():
            angles = np.unique(np.round(neighbours[node], 6)) if neighbours[node] else np.array([np.pi / 2])
            gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
            middles = angles + gaps / 2
            widest = np.flatnonzero(gaps > gaps.max() - 1e-3)
            chosen = widest[np.argmin(np.sin(middles[widest]))]  # of equal gaps the one that points down
            fan = gaps[chosen] * min(0.6, 0.25 * (number - 1)) * np.linspace(-0.5, 0.5, number)
            directions = middles[chosen] + (fan if number > 1 else 0.0)
            leads[node] = np.stack([np.cos(directions), np.sin(directions)], axis=-1).reshape(number, 2)
        return leads

    def middle(self, path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The middle of a path and its direction there."""
        first, second = (path[0], path[-1]) if len(path) < 4 else (path[1], path[2])
        across = second - first
        return (first + second) / 2, across / max(float(np.linalg.norm(across)), 1e-9)

    def arrowheads(self, currents: np.ndarray) -> np.ndarray:
        """(m, 4, 2) arrowheads on the resistors that point along the current, larger for larger currents."""
        middle, along = np.moveaxis(self.resistors, 1, 0)
        size = self.symbol * (0.5 + 0.4 * np.abs(currents) / (np.abs(currents).max(initial=0) or 1.0))
        along = np.where(currents >= 0, 1.0, -1.0)[:, None] * along
        across = 0.8 * _across(along)
        wings = np.stack([along, -along - across, -0.35 * along, -along + across], axis=1)
        return middle[:, None] + size[:, None, None] * wings

    @functools.cached_property
    def resistors(self) -> np.ndarray:
        """(m, 2, 2) the middle of each resistor and its direction there."""
        return np.array([self.middle(path) for path in self.paths["resistor"]]).reshape(-1, 2, 2)


@functools.lru_cache(maxsize=16)
def _laid_out(places: bytes, *kinds: bytes) -> Schematic:
    *pairs, controlled = (np.frombuffer(kind, int) for kind in kinds)
    sources = controlled.reshape(-1, 4)
    ends: dict[str, np.ndarray] = {kind: pair.reshape(-1, 2) for kind, pair in zip(KINDS, pairs, strict=False)}
    ends["controlled"] = sources[:, :2]
    return Schematic(np.frombuffer(places).reshape(-1, 2), ends, sources[:, 2:])


def _triangle(middle: np.ndarray, along: np.ndarray, size: float) -> np.ndarray:
    """A triangle about `middle` that points along a unit vector."""
    across = _across(along)
    return np.stack([middle + size * along, middle - size * (along - across), middle - size * (along + across)])


def _nearest(places: np.ndarray) -> np.ndarray:
    """The distance from each node to the next one."""
    from scipy.spatial import KDTree

    return KDTree(places).query(places, k=2)[0][:, 1] if len(places) > 1 else np.ones(1)


def _across(along: np.ndarray) -> np.ndarray:
    return np.stack([-along[..., 1], along[..., 0]], axis=-1)


def _bar(middle: np.ndarray, along: np.ndarray, half: float) -> np.ndarray:
    return np.stack([middle - half * along, middle + half * along])


def draw_symbols(ax: Axes, schematic: Schematic) -> None:
    """Draws the leads and symbols of diodes, sources and ground."""
    from matplotlib.collections import LineCollection, PatchCollection, PolyCollection
    from matplotlib.patches import Circle, Polygon

    symbol = schematic.symbol
    ink = {"colors": "0.15", "linewidths": 0.9}
    black = [path for kind in KINDS[1:] for path in schematic.paths[kind]]
    ax.add_collection(LineCollection(black, zorder=2, label="leads", **ink))
    bars = []
    for end, along in schematic.grounds:
        for step, width in enumerate((1.0, 0.62, 0.25)):
            middle = end + 0.45 * symbol * step * along
            bars.append(_bar(middle, _across(along), width * symbol))
    ax.add_collection(LineCollection(bars, zorder=2, label="ground", **ink))
    diodes = [schematic.middle(path) for path in schematic.paths["diode"]]
    cathodes = [_bar(middle + symbol * along, _across(along), symbol) for middle, along in diodes]
    ax.add_collection(
        PolyCollection(
            [_triangle(*diode, symbol) for diode in diodes],
            facecolors="white",
            edgecolors="0.15",
            linewidths=0.9,
            zorder=3,
            label="diodes",
        )
    )
    ax.add_collection(LineCollection(cathodes, zorder=3, label="cathodes", colors="0.15", linewidths=1.4))
    outlines, marks = [], []
    for kind in KINDS[2:]:
        for number, path in enumerate(schematic.paths[kind]):
            middle, along = schematic.middle(path)
            across = _across(along)
            size = 1.25 * symbol
            if kind == "controlled":
                corners = 1.2 * size * np.stack([along, across, -along, -across])
                outlines.append(Polygon(middle + corners, closed=True))
                for node in schematic.control[number]:
                    if node >= 0:
                        ax.plot(
                            *np.stack([schematic.places[node], middle]).T, ":", color="0.5", linewidth=0.8, zorder=0
                        )
            else:
                outlines.append(Circle(tuple(middle), size))
            if kind == "current":
                tip = middle + 0.75 * size * along
                marks.append(np.stack([middle - 0.75 * size * along, tip]))
                marks += [np.stack([tip, tip - 0.4 * size * (along + side * across)]) for side in (-1, 1)]
            else:
                plus, minus = middle - 0.45 * size * along, middle + 0.45 * size * along
                marks += [_bar(plus, along, size / 4), _bar(plus, across, size / 4), _bar(minus, across, size / 4)]
    ax.add_collection(PatchCollection(outlines, facecolor="white", edgecolor="0.15", linewidth=0.9, zorder=3))
    ax.add_collection(LineCollection(marks, zorder=4, label="source marks", **ink))
