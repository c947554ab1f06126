"""Sliders for inputs, nudges, parameters, relaxation and training of a system, which is redrawn as they move."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from substrates.nudge import Cost
from substrates.pictures.exploration import Canvas, Exploration
from substrates.pictures.extras import needed
from substrates.substrate import Substrate

MOST_SLIDERS = 6
"""Up to so many inputs or targets have a slider each; of more there is a factor for all, and any one entry."""

DECADE = 1.0
"""Factors of parameters go so many decades down and up."""


def explore(
    substrate: Substrate | Sequence[Substrate],
    x: Any = None,
    *,
    cost: Cost | None = None,
    target: Any = None,
    x_range: tuple[float, float] | None = None,
    beta_range: tuple[float, float] = (-1.0, 1.0),
) -> Explorer:
    """Opens sliders in a notebook: the equilibrium is redrawn as they move.

    Args:
        substrate: the system, or several, such as the states of its training that `learning.Snapshots` keeps, which
            then play.
        x: the input to begin with, shape of x; zeros where that is one, else ones.
        cost: of the nudge; half the squared error by default.
        target: of the nudge, shape (outputs,); what the system shows by default.
        x_range: what the sliders of inputs span; by default -1 to 1, or as far as x goes.
        beta_range: what the slider of the nudging strength spans.

    Raises:
        ImportError: without ipywidgets; it says what to install. `explore_beforehand` needs none.
        TypeError: for what is no substrate.
    """
    return Explorer(Exploration(substrate, x, cost=cost, target=target), x_range, beta_range)


class Explorer:
    """The sliders and the picture of one system, shown by notebooks; made by `explore`.

    Attributes:
        sliders: by the names of settings (see `Exploration`), and "leaf", "index" and "entry" for any one entry;
            setting `sliders["x[0]"].value` moves the slider.
        picture: the widget that shows the picture, its `value` in the PNG format.
        settled: what is drawn.
        message: a widget that says what the system refused, if it did.
    """

    def __init__(
        self, seen: Exploration, x_range: tuple[float, float] | None = None, beta_range: tuple[float, float] = (-1, 1)
    ):
        (self._widgets,) = needed("notebooks", "ipywidgets")
        self.seen = seen
        self._turned: dict[str, float] = {}
        self._quiet = False
        self._canvas = Canvas(seen.systems[-1].in_space)
        self.picture = self._widgets.Image(format="png")
        self.message = self._widgets.HTML()
        self.sliders: dict[str, Any] = {}
        boxes = {
            "inputs": self._entries("x", self._span(x_range)),
            "nudge": [self._slider("beta", 0.0, beta_range), self._looked_at(), *self._entries("target", None)],
            "parameters": [*self._factors(), *self._any_entry()],
            "relaxation": self._played("step", self._steps(), "settled at the end"),
            "training": self._played("epoch", len(seen.systems) - 1, ""),
        }
        shown = {name: self._widgets.VBox(box) for name, box in boxes.items() if box}
        tabs = self._widgets.Tab(children=list(shown.values()), titles=list(shown))
        again = self._widgets.Button(description="reset")
        again.on_click(lambda _: self.reset())
        self.panel = self._widgets.VBox([tabs, self.picture, self._widgets.HBox([again, self.message])])
        self._start = {name: slider.value for name, slider in self.sliders.items()}
        self.refresh()

    def __repr__(self) -> str:
        return f"Explorer of {type(self.seen.systems[-1]).__name__}: {', '.join(self.sliders)}"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = self.panel._repr_mimebundle_(**options)
        data, *others = bundle if isinstance(bundle, tuple) else (bundle,)
        data = {**data, "text/plain": repr(self)}
        if self.picture.value:
            data["image/png"] = base64.b64encode(self.picture.value).decode()
        return (data, *others) if others else data

    @property
    def settings(self) -> dict[str, float]:
        """What is set, by name, where it is not as it was given."""
        return dict(self._turned)

    def reset(self) -> None:
        """Turns all sliders back, forgets the branch that was followed, and chooses the colours anew."""
        self._quiet = True
        for name, value in self._start.items():
            self.sliders[name].value = value
        self._quiet = False
        self._turned, self.seen.last = {}, None
        self._canvas = Canvas(self.seen.systems[-1].in_space)
        self.refresh()

    def refresh(self) -> None:
        """Settles the system as it is set, and draws it; what is refused is said below, and the picture stays."""
        try:
            self.settled = self.seen.settle(self._turned, nudged=self.sliders["nudged"].value)
        except ValueError as error:  # the sliders go on: the next place may be a good one
            self.message.value = f"<b>{type(error).__name__}</b>: {error}"
            return
        self.message.value = ""
        self.picture.value = self._canvas.page(self.settled)

    # the sliders

    def _slider(
        self, name: str, value: float, span: tuple[float, float], kind: str = "FloatSlider", **more: Any
    ) -> Any:
        low, high = span
        slider = getattr(self._widgets, kind)(value=value, min=low, max=high, description=name, **more)
        slider.style.description_width = "initial"
        slider.readout_format = "d" if kind == "IntSlider" else ".3g"
        slider.observe(lambda change: self._turn(name, change["new"]), "value")
        self.sliders[name] = slider
        return slider

    def _turn(self, name: str, value: float) -> None:
        if self._quiet:
            return
        if name == "step" and value == self.sliders["step"].max:
            self._turned.pop("step", None)
        else:
            self._turned[name] = float(value)
        self.refresh()

    def _span(self, given: tuple[float, float] | None) -> tuple[float, float]:
        size = max(1.0, float(np.abs(self.seen.x).max(initial=0)))
        return (-size, size) if given is None else given

    def _entries(self, name: str, span: tuple[float, float] | None) -> list[Any]:
        array = self.seen.arrays[name]
        if array.size > MOST_SLIDERS or array.ndim != 1 or np.iscomplexobj(array):
            return [self._slider(name, 1.0, (-2.0, 2.0), step=0.02)] if array.size else []
        size = max(1.0, 2 * float(np.abs(array).max(initial=0)))
        low, high = (-size, size) if span is None else span
        return [
            self._slider(f"{name}[{k}]", float(value), (low, high), step=(high - low) / 200)
            for k, value in enumerate(array)
        ]

    def _factors(self) -> list[Any]:
        names = [name for name in self.seen.arrays if name not in ("x", "target")]
        return [self._slider(name, 1.0, (-DECADE, DECADE), "FloatLogSlider", step=0.02) for name in names]

    def _any_entry(self) -> list[Any]:
        """A choice of any one entry of an array, and its slider."""
        arrays = self.seen.arrays
        names = [name for name, array in arrays.items() if array.size and not np.iscomplexobj(array)]
        leaf = self._widgets.Dropdown(options=names, value=names[-1], description="entry of")
        index = self._widgets.BoundedIntText(value=0, min=0, max=arrays[names[-1]].size - 1, description="number")
        entry = self._widgets.FloatSlider(description="value", readout_format=".3g", step=0.01)
        self.sliders |= {"leaf": leaf, "index": index, "entry": entry}

        def choose(_: Any) -> None:
            array = arrays[leaf.value]
            before, self._quiet = self._quiet, True
            index.max = array.size - 1
            value = float(self._turned.get(f"{leaf.value}[{index.value}]", array.ravel()[index.value]))
            size = 3 * max(abs(value), float(np.abs(array).mean())) or 1.0
            entry.min, entry.max, entry.step = min(-size, entry.min), max(size, entry.max), size / 100
            entry.value = value
            entry.min, entry.max = -size, size
            self._quiet = before

        leaf.observe(choose, "value")
        index.observe(choose, "value")
        choose(None)
        entry.observe(lambda change: self._turn(f"{leaf.value}[{index.value}]", change["new"]), "value")
        return [leaf, index, entry]

    def _looked_at(self) -> Any:
        looked_at = self._widgets.Checkbox(value=True, description="draw the nudged state")
        looked_at.observe(lambda _: None if self._quiet else self.refresh(), "value")
        self.sliders["nudged"] = looked_at
        return looked_at

    def _steps(self) -> int:
        """The steps of the relaxation from its own start; 0 where the solver does not count them."""
        system = self.seen.systems[-1]
        try:
            system.solver.limited(1)
        except TypeError:
            return 0
        return int(self.seen.whole.steps)

    def _played(self, name: str, last: int, note: str) -> list[Any]:
        """A slider of whole numbers that plays; nothing where there is one place only."""
        if last < 1:
            return []
        slider = self._slider(name, last, (0, last), "IntSlider")
        play = self._widgets.Play(value=last, min=0, max=last, interval=150)  # a browser moves the slider to it
        self._widgets.jslink((play, "value"), (slider, "value"))
        return [self._widgets.HBox([play, slider, self._widgets.Label(note)])]
