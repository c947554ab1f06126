"""What one sees of a system while inputs, nudges and parameters are turned: settled, drawn, and drawn beforehand."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from substrates.nudge import Cost, Nudge, SquaredError
from substrates.parameters import by_path, split_parameters
from substrates.pictures import style
from substrates.pictures.any_system import outputs
from substrates.pictures.flipbook import Flipbook
from substrates.solvers.solver import Equilibrium, Status
from substrates.substrate import Substrate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PAGES = 400
"""So many pictures are drawn beforehand, at most."""


@dataclasses.dataclass(frozen=True)
class Settled:
    """What a system came to under some settings.

    Attributes:
        system, x: with what was set.
        free, nudged: its equilibria; nudged is None at beta = 0.
        shown: the one of them that is looked at, or a state on the way there.
        target: of the nudge.
    """

    system: Substrate
    x: Any
    free: Equilibrium
    nudged: Equilibrium | None
    shown: Equilibrium
    target: np.ndarray

    def draw(self, ax: Axes, beside: Axes) -> None:
        """Draws the system on the first axes and its outputs on the others."""
        self.system.draw(self.shown.state, self.x, ax)
        phase = "free" if self.shown is self.free or self.nudged is None else "nudged"
        colour = {"free": style.FREE, "nudged": style.NUDGED}[phase]
        status = str(Status[self.shown.status]).rstrip(".").lower()
        energy = "" if self.shown.energy is None else f", energy {float(jnp.real(self.shown.energy)):.4g}"
        ax.set_title(f"{phase}{energy}\n{status}", color=colour, fontsize="small")
        read = lambda found: self.system.read(found.state, self.x)
        nudged = None if self.nudged is None else read(self.shown if phase == "nudged" else self.nudged)
        free = read(self.shown if phase == "free" else self.free)
        outputs(free, nudged, None if self.nudged is None else self.target, beside)


class Exploration:
    """A system, or one in the states of its training, whose settings are turned by name.

    "x[0]", "target[1]" and "conductance[3]" are entries, "x", "target" and the path of a parameter a factor for all
    of them, "beta" is the strength of the nudge, "step" stops the solver after so many steps from its own start, and
    "epoch" chooses one of several systems. What is not set is as it was given.

    Equilibria follow one another: the free one starts from the last free one, and the nudged one from the free one.
    """

    def __init__(self, systems: Any, x: Any = None, *, cost: Cost | None = None, target: Any = None):
        self.systems: tuple[Substrate, ...] = (systems,) if isinstance(systems, Substrate) else tuple(systems)
        if not self.systems or not all(isinstance(system, Substrate) for system in self.systems):
            raise TypeError("substrate: wanted a Substrate, or several, such as the states of a training")
        system = self.systems[-1]
        self.x = _input(system, x)
        self.cost: Cost = SquaredError() if cost is None else cost
        self.last: Any = None
        self.whole = system.relax(self.x)
        shown = np.real(np.asarray(system.read(self.whole.state, self.x)))
        self.target = shown if target is None else np.broadcast_to(np.asarray(target, shown.dtype), shown.shape)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All that can be turned, by name: inputs, targets and every parameter of the last system."""
        return {"x": np.asarray(self.x), "target": self.target} | {
            name: np.asarray(leaf) for name, leaf in _parameters(self.systems[-1]).items()
        }

    def check(self, names: Sequence[str]) -> None:
        """Raises ValueError for names of nothing that can be turned."""
        known = self.arrays
        for name in names:
            array, index = _entry(name, known)
            if array is None and name not in ("beta", "step", "epoch"):
                raise ValueError(
                    f"settings: {name!r} is none; wanted beta, step, epoch, one of {', '.join(known)}, or an entry of "
                    "these, such as x[0]"
                )
            if array is not None and index is not None:
                _place(name, known[array], index)

    def settle(self, settings: Mapping[str, float], *, nudged: bool = True) -> Settled:
        """The equilibria under these settings.

        Args:
            settings: numbers by the names above.
            nudged: whether the nudged one is looked at, where beta is not 0.

        Raises ValueError for a name of nothing that can be turned, and for what the system refuses.
        """
        self.check(list(settings))
        system = self.systems[int(settings.get("epoch", len(self.systems) - 1))]
        x, target = (_turned(name, array, settings) for name, array in (("x", self.x), ("target", self.target)))
        system = _turned_system(system, settings)
        beta = float(settings.get("beta", 0.0))
        pulled = None if beta == 0 else Nudge(self.cost, target, beta)
        free = system.relax(x, start=self.last)
        if not bool(free.converged) and self.last is not None:
            free = system.relax(x)  # the branch that was followed has ended
        self.last = free.state if bool(free.usable) else None
        held = None if pulled is None else system.relax(x, pulled, free.state)
        looked_at, start = (free, None) if held is None or not nudged else (held, free.state)
        if "step" in settings:
            pull = None if looked_at is free else pulled
            looked_at = system.relax(x, pull, start, solver=system.solver.limited(int(settings["step"])))
        return Settled(system, x, free, held, looked_at, target)


class Canvas:
    """A figure without a window, drawn over and over: a system, and beside it its outputs.

    Colours of successive pages mean the same, and axes stay where the first page found room for them. Frames, ticks,
    colour bars and legends beside the axes are painted anew only when they change.
    """

    def __init__(self, in_space: bool = False, size: tuple[float, float] = (7.4, 3.8), dpi: int = 90):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.figure = Figure(size, dpi, layout="constrained")
        self.painter = FigureCanvasAgg(self.figure)
        grid = self.figure.add_gridspec(1, 2, width_ratios=(2.6, 1))
        self.system = self.figure.add_subplot(grid[0], **({"projection": "3d"} if in_space else {}))
        self.outputs = self.figure.add_subplot(grid[1])
        self.background: Any = None
        self.frame: Any = None
        self.beside: tuple[Axes, ...] = ()

    def page(self, settled: Settled) -> bytes:
        """The picture of a settled system, in the PNG format."""
        from PIL import Image

        both = self.system, self.outputs
        for ax in both:
            style.wipe(ax)
        settled.draw(*both)
        frame = [(ax.get_xlim(), ax.get_ylim(), style.colour_limits(ax), style.legend_of(ax)) for ax in both]
        if frame != self.frame:
            if self.frame is None:
                self.figure.draw_without_rendering()
                self.figure.set_layout_engine("none")
            self.beside = tuple(ax for ax in both if style.has_legend_beside(ax))
        moving = [(ax, artist) for ax in both for artist in style.drawn_on(ax, legend=ax not in self.beside)]
        if frame != self.frame:
            for _, artist in moving:
                artist.set_animated(True)  # which leaves it out of what is drawn once
            self.painter.draw()
            self.background, self.frame = self.painter.copy_from_bbox(self.figure.bbox), frame
        self.painter.restore_region(self.background)
        for ax, artist in moving:
            ax.draw_artist(artist)
        file = io.BytesIO()
        Image.fromarray(np.asarray(self.painter.buffer_rgba())[..., :3]).save(file, "png", compress_level=1)
        return file.getvalue()


def explore_beforehand(
    substrate: Substrate | Sequence[Substrate],
    x: Any = None,
    *,
    grid: Mapping[str, Sequence[float] | np.ndarray],
    cost: Cost | None = None,
    target: Any = None,
    milliseconds: int = 120,
    dpi: int = 60,
) -> Flipbook:
    """Equilibria on a grid of settings, drawn beforehand: sliders that work where no kernel runs.

    Args:
        substrate: the system, or several, such as the states of its training.
        x: its input, shape of x; zeros where that is one, else ones.
        grid: values by the names of settings, such as {"x[0]": np.linspace(-1, 1, 9), "beta": [0, 0.1]}; see
            `Exploration`. At most 400 combinations.
        cost: of the nudge; half the squared error by default.
        target: of the nudge, shape (outputs,); what the system shows by default.
        milliseconds: between pages, where it plays.
        dpi: of the pictures.

    Raises ValueError for names of nothing that can be turned, and for too many combinations.
    """
    seen = Exploration(substrate, x, cost=cost, target=target)
    seen.check(list(grid))
    settings = {name: [float(value) for value in values] for name, values in grid.items()}
    count = int(np.prod([len(values) for values in settings.values()]))
    if not 1 <= count <= MOST_PAGES:
        raise ValueError(f"grid: wanted 1 to {MOST_PAGES} combinations of values, got {count}; take fewer values")
    canvas = Canvas(seen.systems[-1].in_space, dpi=dpi)
    draw = lambda *values: canvas.page(seen.settle(dict(zip(settings, values, strict=True))))
    for side in (-1, 0):  # the colours of the ends hold for what lies between
        draw(*(values[side] for values in settings.values()))
    frame, book = canvas.frame, Flipbook.drawn(settings, draw, milliseconds)
    # where axes grew on the way, all pages get those of the last
    return book if canvas.frame == frame else Flipbook.drawn(settings, draw, milliseconds)


def animate(
    substrate: Substrate | Sequence[Substrate],
    x: Any = None,
    *,
    beta: float = 0.0,
    cost: Cost | None = None,
    target: Any = None,
    frames: int = 40,
    milliseconds: int = 120,
    dpi: int = 80,
) -> Flipbook:
    """The relaxation of a system, step by step, or, of several systems, their training: `save("name.gif")` or ".html".

    Args:
        substrate: the system that relaxes from its start, or the systems along a training, as `learning.Snapshots`
            keeps them.
        x: the input, shape of x; zeros where that is one, else ones.
        beta: of a nudge; a relaxation then starts from the free equilibrium.
        cost, target: of the nudge, as in `explore_beforehand`.
        frames: the most pictures, evenly spaced.
        milliseconds: between pictures.
        dpi: of the pictures.

    Raises TypeError for a relaxation by a solver that does not count its steps.
    """
    several = not isinstance(substrate, Substrate)
    systems = tuple(substrate) if several else (substrate,)
    seen = Exploration(systems, x, cost=cost, target=target)
    if several:
        last, name = len(systems) - 1, "epoch"
    else:
        settled = seen.settle({"beta": beta}).shown if beta else seen.whole
        last, name = max(int(settled.steps), 1), "step"
    times = np.unique(np.linspace(0, last, min(frames, last + 1)).round())
    grid: dict[str, Any] = {name: times} | ({"beta": [beta]} if beta else {})
    found = explore_beforehand(systems, x, grid=grid, cost=cost, target=target, milliseconds=milliseconds, dpi=dpi)
    return dataclasses.replace(found, settings={name: found.settings[name]})


def _input(system: Substrate, x: Any) -> Any:
    if x is not None:
        return jnp.asarray(x)
    shape = system.x_shape
    if shape is None:
        raise ValueError("x: wanted the input, for this system does not say its shape")
    for value in (0.0, 1.0):
        try:
            system.check_input(jnp.full(shape, value))
            return jnp.full(shape, value)
        except ValueError:
            continue
    raise ValueError("x: wanted the input, for this system takes neither zeros nor ones")


def _parameters(system: Substrate) -> dict[str, Any]:
    """Those that hold a number, by their paths."""
    return {name: leaf for name, leaf in by_path(split_parameters(system)[0]).items() if np.size(leaf)}


def _entry(name: str, known: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """What array a setting belongs to, and which entry it is; None for all of them."""
    if name in known:
        return name, None
    found = re.fullmatch(r"(.+)\[([\d, ]+)\]", name)
    return (found[1], found[2]) if found and found[1] in known else (None, None)


def _place(name: str, array: Any, index: str) -> tuple[int, ...]:
    """The place of an entry by its indices, or by one number in C order."""
    places = tuple(int(each) for each in index.split(","))
    try:
        if len(places) == 1:
            return tuple(int(each) for each in np.unravel_index(places[0], np.shape(array)))
        np.ravel_multi_index(places, np.shape(array))
        return places
    except ValueError as error:
        raise ValueError(f"settings: {name} is no entry of an array of shape {np.shape(array)}") from error


def _turned(name: str, array: Any, settings: Mapping[str, float]) -> Any:
    """An array with its factor and its entries as they are set."""
    turned = [(setting, _entry(setting, {name: array})) for setting in settings]
    chosen = [(setting, index) for setting, (base, index) in turned if base == name]
    if not chosen:
        return array
    new = np.array(array)
    for setting, index in sorted(chosen, key=lambda each: each[1] is not None):  # factors first
        if index is None:
            new = new * np.asarray(settings[setting], new.dtype)
        else:
            new[_place(setting, new, index)] = settings[setting]
    return jnp.asarray(new)


def _turned_system(system: Substrate, settings: Mapping[str, float]) -> Substrate:
    if not any(_entry(name, _parameters(system))[0] for name in settings):
        return system
    parameters, rest = split_parameters(system)
    leaves = [_turned(name, leaf, settings) for name, leaf in by_path(parameters).items()]
    turned = jax.tree.unflatten(jax.tree.structure(parameters), leaves)
    return eqx.combine(turned, rest).constrained()
