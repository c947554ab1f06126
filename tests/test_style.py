"""One family of pictures: axes given are used, crowds are images, colours keep their meaning, references are met."""

import inspect
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import pytest
from every_system import SYSTEMS, input_size
from PIL import Image

from learning import EquilibriumPropagation, fit
from learning import pictures as of_learning
from substrates import HopfieldNetwork, IsingModel, ResistorNetwork
from substrates.classical.oscillator.pictures import draw_graph
from substrates.pictures import any_system as of_any
from substrates.pictures import places, style
from substrates.pictures.columns import activities
from substrates.pictures.crowd import nodes_as_image
from theory_checks import check_substrate
from theory_checks.pictures import margins

matplotlib.use("Agg")
import matplotlib.pyplot as plt

REFERENCES = Path(__file__).parent / "reference_pictures"
EDGES = [(0, 1), (1, 2), (2, 3), (3, 0), (1, 3)]


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def circuit():
    g = np.array([1.0, 0.5, 2.0, 0.7, 0.3])
    return ResistorNetwork.from_edges(EDGES, 4, inputs=[0, 2], outputs=[3], conductance=g, diodes=[(-1, 1)])


GRID = places.grid_positions(9, 12)


class Slopes(NamedTuple):
    conductance: np.ndarray


SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
MOVES = np.array([[0.0, 0.0], [0.02, 0.0], [0.0, 0.01], [-0.02, 0.0]])
SLOPES = np.array([0.5, -1.0, 0.2, 0.0, 0.8])


# references: drawn in 2026, looked at, and kept


PICTURES = {
    "outputs": lambda ax: of_any.outputs([0.1, 0.5, -0.2], [0.2, 0.4, 0.0], [0.3, 0.3, 0.3], ax),
    "numbers": lambda ax: of_any.numbers({"a": np.linspace(-1, 1, 9), "b": np.cos(np.arange(5.0))}, ax),
    "columns": lambda ax: activities([np.linspace(-1, 1, 4), np.linspace(1, -1, 40)], ax, weights=[np.eye(4, 40)]),
    "phases": lambda ax: draw_graph(
        4,
        np.array(EDGES),
        [1, -1, 0.5, 2, 1],
        [0.0, 1.5, 3.0, -1.5],
        {"inputs": [0], "outputs": [3]},
        ax,
        [(0, 0), (1, 0), (1, 1), (0, 1)],
    ),
    "learning curve": lambda ax: of_learning.learning_curve({"cost": [1.0, 0.1, 0.02], "error": [0.5, 0.3, 0.2]}, ax),
    "contrast": lambda ax: of_learning.contrast(Slopes(SLOPES), ax),
    "contrast on edges": lambda ax: of_learning.draw_contrast(Slopes(SLOPES), EDGES, SQUARE, SQUARE + MOVES, ax),
    "crowd": lambda ax: nodes_as_image(
        ax, places.grid_positions(9, 12), np.sin(np.arange(108)), {"inputs": [0]}, "v (V)"
    ),
}


def small(draw):
    """The picture, 240 by 180, its details blurred so that only what an eye sees counts."""
    figure = plt.figure(figsize=(4.8, 3.6), dpi=100, layout="constrained")
    draw(figure.add_subplot())
    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
    return image.resize((240, 180), Image.Resampling.BOX)


def apart(one, other):
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_look_as_their_references(name):
    """To make them anew: python tests/test_style.py, then look at them."""
    with Image.open(REFERENCES / f"{name}.png") as reference:
        assert apart(small(PICTURES[name]), reference.convert("RGB")) < 2.0


def test_a_swap_of_colours_is_seen(monkeypatch):
    with Image.open(REFERENCES / "outputs.png") as reference:
        close = apart(small(PICTURES["outputs"]), reference.convert("RGB"))
        monkeypatch.setattr(style, "FREE", style.NUDGED)
        assert apart(small(PICTURES["outputs"]), reference.convert("RGB")) > close + 0.2


def test_the_colours_are_apart_for_every_kind_of_eye():
    """Also to eyes without one kind of cone (Vienot, Brettel and Mollon 1999)."""
    linear = lambda name: np.array([int(name[k : k + 2], 16) / 255 for k in (1, 3, 5)]) ** 2.2
    lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    protan = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    deutan = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    for blind in (np.eye(3), protan, deutan):
        seen = [np.linalg.solve(lms, blind @ lms @ linear(name)) for name in style.COLOURS[:4]]
        assert min(np.linalg.norm(a - b) for k, a in enumerate(seen) for b in seen[:k]) > 0.08
    assert len({style.FREE, style.NUDGED, style.CONTRAST, style.TARGET}) == 4


def test_phases_and_their_contrast_have_the_colours_of_these():
    ax = of_learning.draw_contrast(Slopes(SLOPES), EDGES, SQUARE, SQUARE + MOVES)
    _, grows, falls, arrows = ax.collections
    (nodes,) = ax.lines
    assert nodes.get_color() == style.FREE
    assert matplotlib.colors.same_color(arrows.get_facecolor(), style.NUDGED)
    for lines in (grows, falls):
        np.testing.assert_array_equal(lines.get_edgecolor(), matplotlib.colors.to_rgba_array(style.CONTRAST))
    stems, _ = of_learning.contrast(Slopes(SLOPES)).collections
    np.testing.assert_array_equal(stems.get_edgecolor(), matplotlib.colors.to_rgba_array(style.CONTRAST))


# every plotting function


def plotting_functions():
    """All public functions of the project's pictures that draw."""
    import substrates.classical.activator_inhibitor.pictures as a
    import substrates.classical.driven.pictures as b
    import substrates.classical.elastic.pictures as c
    import substrates.classical.hopfield.pictures as d
    import substrates.classical.ising.pictures as e
    import substrates.classical.oscillator.pictures as f
    import substrates.classical.predictive_coding.pictures as g
    import substrates.classical.recurrent.pictures as h
    import substrates.classical.resistor.pictures as i
    import substrates.classical.trajectory.pictures as j
    import substrates.quantum.oscillator.pictures as k
    import substrates.quantum.pictures as m

    for module in (a, b, c, d, e, f, g, h, i, j, k, m, of_learning, of_any):
        for name, found in inspect.getmembers(module, inspect.isfunction):
            if (
                found.__module__ == module.__name__
                and not name.startswith("_")
                and found.__annotations__.get("return") == "Axes"
            ):
                yield pytest.param(found, id=f"{module.__name__}.{name}")


@pytest.mark.parametrize("function", list(plotting_functions()))
def test_every_plotting_function_takes_axes(function):
    assert "ax" in inspect.signature(function).parameters


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_draws_itself_on_given_axes_and_shows_itself_in_notebooks(name):
    net = SYSTEMS[name]()
    shown = net._repr_html_()
    assert type(net).__name__ in shown
    assert "data:image/png" in shown
    x = jnp.asarray(np.linspace(0.2, 0.6, input_size(net)), jnp.result_type(float))
    state = net.start(x, jax.random.key(0))
    ax = plt.subplots()[1]
    assert net.draw(state, x, ax) is ax
    first = len(ax.figure.axes)
    style.wipe(ax)
    net.draw(state, x, ax)
    assert len(ax.figure.axes) == first  # colour bars go on


# crowds


def test_many_nodes_are_an_image_within_a_second():
    rows = 317
    edges = np.array(
        [(k, k + 1) for k in range(rows**2 - 1) if (k + 1) % rows] + [(k, k + rows) for k in range(rows**2 - rows)]
    )
    angles = np.linspace(0, 6, rows**2)
    began = time.process_time()
    ax = draw_graph(rows**2, edges, np.ones(len(edges)), angles, {"inputs": [0], "outputs": [7]})
    ax.figure.canvas.draw()
    assert time.process_time() - began < 3.0  # 0.6 s on a machine that does nothing else
    (image,) = ax.images
    assert image.get_array().size <= 330**2
    assert not ax.collections


def test_cells_show_the_mean_of_their_nodes():
    spots = np.array([[0.0, 0.0], [0.0, 0.0], [320.0, 0.0], [0.0, 320.0], [320.0, 320.0]])
    values = np.array([1.0, 3.0, -1.0, 0.5, -4.0])
    shown = nodes_as_image(None, spots, values, {}, "v (V)").images[0].get_array()
    assert shown[0, 0] == 2.0
    assert shown[-1, -1] == -4.0
    angles = np.array([3.0, -3.0, 0.0, 0.0, 0.0])
    cell = nodes_as_image(None, spots, angles, {}, "phase", colours=style.ANGLE).images[0].get_array()[0, 0]
    assert abs(cell) == pytest.approx(np.pi)


def test_places_of_a_lattice_are_found_whatever_the_order_of_its_edges():
    rng = np.random.default_rng(0)
    edges = np.array([(k, k + 1) for k in range(20) if (k + 1) % 5 and k < 19] + [(k, k + 5) for k in range(15)])
    mixed = rng.permutation(edges)
    mixed[::2] = mixed[::2, ::-1]
    np.testing.assert_array_equal(places.places_of(20, mixed, "node"), places.grid_positions(4, 5))


# colours keep their meaning


def test_redrawn_pictures_keep_one_colour_bar_and_widen_its_range():
    ax = plt.subplots()[1]
    style.colour_bar(ax, ax.scatter([0], [0], c=[1.0], vmin=-1, vmax=1), "v (V)")
    count = len(ax.figure.axes)
    style.wipe(ax)
    assert not ax.collections
    wider = ax.scatter([0], [0], c=[1.0], vmin=0, vmax=3)
    style.colour_bar(ax, wider, "v (V)")
    assert len(ax.figure.axes) == count
    assert wider.get_clim() == (-1, 3)
    assert style.colour_limits(ax) == {"v (V)": (-1, 3)}


# displays


def test_runs_equilibria_and_reports_show_themselves():
    net = circuit()
    x = jnp.array([1.0, -0.5])
    shown = net.relax(x)._repr_html_()
    assert "converged" in shown.lower() or "below the tolerance" in shown
    assert "residual" in shown
    assert "data:image/png" in shown
    data = jnp.stack([x, -x]), jnp.array([[0.3], [-0.3]])
    run = fit(
        net,
        EquilibriumPropagation(0.1),
        data,
        optimiser=optax.sgd(0.1),
        epochs=2,
        key=jax.random.key(0),
        progress=False,
    )
    assert '<td style="text-align:left">cost</td>' in run._repr_html_()
    assert "data:image/png" in run._repr_html_()
    report = check_substrate(HopfieldNetwork.layered((2, 2, 1), key=jax.random.key(0)), data[0], data[1])
    assert "data:image/png" in report._repr_html_()
    law = next(law for law in report.laws if law.bound.startswith("<=") and law.number)
    assert law.decades == pytest.approx(np.log10(float(law.bound[3:]) / law.number))


def test_margins_point_to_the_side_of_their_verdict():
    ax = margins(["holds", "fails", "nothing measured", "exact"], [2.0, -1.0, np.nan, np.inf])
    assert [bar.get_width() for bar in ax.patches] == [2.0, -1.0, -8.0, 8.0]


def test_showing_a_network_relaxes_nothing(monkeypatch):
    monkeypatch.setattr(IsingModel, "relax", None)
    net = IsingModel.lattice((2, 2), inputs=[0])
    assert "IsingModel" in net._repr_html_()
    (image,) = net.draw().images
    np.testing.assert_array_equal(image.get_array(), np.zeros((2, 2)))


if __name__ == "__main__":
    REFERENCES.mkdir(exist_ok=True)
    for name, draw in PICTURES.items():
        small(draw).save(REFERENCES / f"{name}.png", optimize=True)
