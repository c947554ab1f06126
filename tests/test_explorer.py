"""Sliders driven without a browser: what is drawn is the equilibrium of what is set."""

import base64
import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from learning import EquilibriumPropagation, Snapshots, SquaredError, fit
from substrates import (
    ElasticNetwork,
    HopfieldNetwork,
    IsingModel,
    Nudge,
    ResistorNetwork,
    Substrate,
    animate,
    explore,
    explore_beforehand,
)
from substrates.pictures import extras, style
from substrates.pictures.exploration import Canvas, Exploration
from substrates.pictures.flipbook import SCRIPT, Flipbook

EDGES = [(0, 1), (1, 2), (2, 3), (3, 0), (1, 3)]
CONDUCTANCE = np.array([1.0, 0.5, 2.0, 0.7, 0.3])
X = jnp.array([1.0, -0.5])


def circuit(conductance=CONDUCTANCE):
    return ResistorNetwork.from_edges(EDGES, 4, inputs=[0, 2], outputs=[3], conductance=conductance)


@pytest.fixture
def explorer():
    return explore(circuit(), X, target=[0.4])


def drawn(explorer):
    """The voltages that the picture shows."""
    (nodes,) = [part for part in explorer._canvas.system.collections if part.get_label() == "nodes"]
    return np.asarray(nodes.get_array())


def tree(widget):
    """A widget and all in it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from tree(child)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def by_hand(conductance, x):
    """Kirchhoff's laws, with nodes 0 and 2 held."""
    laplacian = np.zeros((4, 4))
    for (i, j), g in zip(EDGES, conductance, strict=True):
        laplacian[[i, j], [i, j]] += g
        laplacian[[i, j], [j, i]] -= g
    volts, free = np.array([x[0], 0.0, x[1], 0.0]), [1, 3]
    volts[free] = np.linalg.solve(laplacian[np.ix_(free, free)], -laplacian[np.ix_(free, [0, 2])] @ x)
    return volts


def test_inputs_move_the_equilibrium(explorer):
    before = explorer.picture.value
    np.testing.assert_allclose(drawn(explorer), by_hand(CONDUCTANCE, [1.0, -0.5]), atol=1e-12)
    explorer.sliders["x[0]"].value = 0.25
    np.testing.assert_allclose(drawn(explorer), by_hand(CONDUCTANCE, [0.25, -0.5]), atol=1e-12)
    assert np.any(pixels(before) != pixels(explorer.picture.value))
    explorer.reset()
    assert explorer.settings == {}
    np.testing.assert_array_equal(pixels(before), pixels(explorer.picture.value))


def test_factors_and_single_entries_of_parameters(explorer):
    explorer.sliders["leaf"].value, explorer.sliders["index"].value = "conductance", 3
    assert explorer.sliders["entry"].value == pytest.approx(0.7)
    explorer.sliders["entry"].value = 1.5
    changed = CONDUCTANCE.copy()
    changed[3] = 1.5
    np.testing.assert_allclose(drawn(explorer), by_hand(changed, [1.0, -0.5]), atol=1e-12)
    explorer.sliders["conductance"].value = 2.0
    (wires,) = [part for part in explorer._canvas.system.collections if part.get_label() == "resistors"]
    scaled = 2 * CONDUCTANCE
    scaled[3] = 1.5  # an entry that was set is not scaled
    volts = by_hand(scaled, [1.0, -0.5])
    currents = [abs(g * (volts[i] - volts[j])) for (i, j), g in zip(EDGES, scaled, strict=True)]
    np.testing.assert_allclose(wires.get_array(), currents, atol=1e-12)


def test_parameters_stay_physical(explorer):
    explorer.sliders["leaf"].value, explorer.sliders["index"].value = "conductance", 0
    explorer.sliders["entry"].value = -0.5
    assert float(explorer.settled.system.conductance[0]) >= 0.0
    np.testing.assert_array_equal(
        explorer.settled.system.conductance, explorer.settled.system.constrained().conductance
    )


def test_a_nudge_draws_the_output_towards_its_target(explorer):
    explorer.sliders["beta"].value = 0.5
    settled = explorer.settled
    wanted = circuit().relax(X, Nudge(SquaredError(), jnp.array([0.4]), jnp.asarray(0.5)))
    np.testing.assert_allclose(settled.shown.state, wanted.state, atol=1e-10)
    gap = lambda found: abs(float(circuit().read(found.state, X)[0]) - 0.4)
    assert gap(settled.nudged) < gap(settled.free)
    points = {line.get_label(): line.get_ydata() for line in explorer._canvas.outputs.lines}
    assert points["free"] == pytest.approx(np.asarray(circuit().read(settled.free.state, X)))
    assert points["nudged"] == pytest.approx(np.asarray(circuit().read(wanted.state, X)))
    assert points["target"] == pytest.approx([0.4])
    explorer.sliders["nudged"].value = False
    np.testing.assert_allclose(drawn(explorer), by_hand(CONDUCTANCE, [1.0, -0.5]), atol=1e-12)


class Chain(Substrate):
    stiffness: jax.Array

    def energy(self, position, x):
        return 0.5 * jnp.sum(self.stiffness * jnp.diff(jnp.concatenate([x, position])) ** 2) + jnp.sum(position**4)

    def initial_state(self, x):
        return jnp.zeros(self.stiffness.shape)

    def read(self, position, x):
        return position[-1:]


class Guarded(Chain):
    def check_input(self, x):
        if not isinstance(x, jax.core.Tracer) and float(jnp.max(x)) > 0.5:
            raise ValueError(f"x: wanted at most 0.5, got {x}")


def test_what_is_refused_is_said_and_the_picture_stays():
    shown = explore(Guarded(jnp.array([1.0, 2.0])), jnp.array([0.3]))
    before = shown.picture.value
    shown.sliders["x[0]"].value = 0.8
    assert "x: wanted at most 0.5" in shown.message.value
    assert shown.picture.value == before
    shown.sliders["x[0]"].value = -0.4
    assert shown.message.value == ""
    assert shown.picture.value != before


def test_sliders_compile_nothing_after_they_have_each_moved_once(explorer):
    def move(value):
        for name in ("x[0]", "target[0]", "beta", "conductance"):
            explorer.sliders[name].value = value

    move(0.3)
    move(0.4)
    events = []
    listen = lambda name, *_, **__: events.append(name)
    jax.monitoring.register_event_duration_secs_listener(listen)
    move(0.5)
    move(0.6)
    assert not [name for name in events if "compile" in name]
    jax.clear_caches()
    move(0.7)
    assert [name for name in events if "compile" in name]  # which is what was listened for


def test_a_relaxation_is_scrubbed_from_its_start():
    net = HopfieldNetwork.layered((2, 4, 1), key=jax.random.key(0), gain=2.0)
    shown = explore(net, jnp.array([0.8, 0.3]))
    last = shown.sliders["step"].max
    played = [each for each in tree(shown.panel) if type(each).__name__ == "Play"]
    assert [each.value for each in played] == [last]  # else a browser would start the slider elsewhere
    whole = net.relax(jnp.array([0.8, 0.3]))
    assert last == int(whole.steps) > 1
    for steps in (1, last - 1):
        shown.sliders["step"].value = steps
        wanted = net.relax(jnp.array([0.8, 0.3]), solver=net.solver.limited(steps))
        for got, right in zip(shown.settled.shown.state, wanted.state, strict=True):
            np.testing.assert_array_equal(got, right)
    shown.sliders["step"].value = last
    assert "step" not in shown.settings
    assert bool(shown.settled.shown.converged)


def test_a_training_is_played():
    net = circuit()
    kept = Snapshots(net)
    data = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([[0.4], [0.5]])
    rule = EquilibriumPropagation(0.1, "centered", SquaredError())
    run = fit(net, rule, data, optimiser=optax.sgd(0.5), epochs=3, key=jax.random.key(0), observe=kept, progress=False)
    assert len(kept.substrates) == 4
    np.testing.assert_array_equal(kept.substrates[-1].conductance, run.substrate.conductance)
    assert not np.array_equal(kept.substrates[1].conductance, kept.substrates[2].conductance)
    shown = explore(kept.substrates, X)
    assert shown.sliders["epoch"].max == 3
    for epoch in (0, 2):
        shown.sliders["epoch"].value = epoch
        np.testing.assert_allclose(drawn(shown), by_hand(kept.substrates[epoch].conductance, [1.0, -0.5]), atol=1e-10)
    assert len(animate(kept.substrates, X).pages) == 4
    assert list(run.history) == list(fit_without(net, rule, data).history)
    with pytest.raises(ValueError, match="every: wanted a whole number of epochs, at least 1, got 0"):
        Snapshots(every=0)


def fit_without(net, rule, data):
    return fit(net, rule, data, optimiser=optax.sgd(0.5), epochs=1, key=jax.random.key(0), progress=False)


def test_many_inputs_share_a_slider():
    shown = explore(HopfieldNetwork.layered((9, 2), key=jax.random.key(0)), jnp.linspace(0, 1, 9))
    assert "x" in shown.sliders
    assert "x[0]" not in shown.sliders
    shown.sliders["x"].value = 0.5
    np.testing.assert_allclose(shown.settled.x, np.linspace(0, 0.5, 9))


def test_springs_in_space_are_explored_in_space():
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    pairs = [(i, j) for i in range(4) for j in range(i)]
    net = ElasticNetwork.from_edges(pairs, positions=corners, clamped=[0, 1, 2], inputs=[], outputs=[3])
    assert net.in_space
    assert explore(net)._canvas.system.name == "3d"


def test_a_system_of_three_methods_is_drawn_and_explored():
    chain = Chain(jnp.array([1.0, 2.0]))
    shown = explore(chain, jnp.array([0.3]))
    (dots,) = [line for line in shown._canvas.system.lines if line.get_marker() == "."]
    np.testing.assert_allclose(dots.get_ydata(), chain.relax(jnp.array([0.3])).state, atol=1e-8)
    with pytest.raises(ValueError, match="x: wanted the input, for this system does not say its shape"):
        explore(chain)
    with pytest.raises(TypeError, match="substrate: wanted a Substrate, or several"):
        explore("circuit")


def test_notebooks_without_widgets_get_the_picture(explorer):
    bundle = explorer._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert base64.b64decode(data["image/png"]) == explorer.picture.value  # text, as files of notebooks want it
    assert "Explorer of ResistorNetwork" in data["text/plain"]


def test_a_missing_package_is_named(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(extras, "import_module", missing)
    with pytest.raises(ImportError, match=r"ipywidgets: wanted this package.*pip install 'groundstate\[notebooks\]'"):
        explore(circuit(), X)


# drawn beforehand


def test_pages_are_the_pictures_of_their_settings(tmp_path):
    grid = {"x[0]": [-1.0, 0.5], "conductance[3]": [0.1, 1.0, 10.0]}
    book = explore_beforehand(circuit(), X, grid=grid)
    assert book.settings == {"x[0]": ("-1", "0.5"), "conductance[3]": ("0.1", "1", "10")}
    assert len(book.pages) == 6
    seen, canvas = Exploration(circuit(), X), Canvas(dpi=60)
    draw = lambda x, g: canvas.page(seen.settle({"x[0]": x, "conductance[3]": g}))
    for x, g in ((0.5, 10.0), (-1.0, 0.1), *((x, g) for x in (-1.0, 0.5) for g in (0.1, 1.0, 10.0))):
        draw(x, g)
    np.testing.assert_array_equal(pixels(book.pages[3]), pixels(draw(0.5, 0.1)))
    np.testing.assert_array_equal(pixels(book.pages[1]), pixels(draw(-1.0, 1.0)))
    assert len({page for page in book.pages}) == 6
    page = book.save(tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") >= 1
    assert SCRIPT.read_text() in page
    with pytest.raises(ValueError, match="a GIF has one slider, time; these are 2"):
        book.save(tmp_path / "page.gif")
    with pytest.raises(ValueError, match=r"wanted a name that ends in .gif or .html, got 'page.mp4'"):
        book.save(tmp_path / "page.mp4")


def test_what_a_canvas_keeps_is_what_it_would_draw_anew():
    """A legend that gains a line among it, and one that lies on what is drawn."""
    weak = np.array([1.0, 1.0, 1.0, 1.0, -0.5])
    nets = [IsingModel.from_edges(EDGES, n=4, coupling=J, inputs=[0, 2], outputs=[3]) for J in (np.ones(5), weak)]
    seen, x = [Exploration(net, jnp.array([1.0, 1.0])) for net in nets], {"x[0]": 1.0}
    canvas = Canvas()
    for each in (*seen, *seen):
        kept = pixels(canvas.page(each.settle(x)))
        canvas.frame = ()  # unlike that of any page
        np.testing.assert_array_equal(kept, pixels(canvas.page(each.settle(x))))
    words = style.legend_of(canvas.system)
    assert "unsatisfied" in words
    assert style.has_legend_beside(canvas.system)
    canvas.system.legend(loc="center")
    assert not style.has_legend_beside(canvas.system)
    assert canvas.system.get_legend() in style.drawn_on(canvas.system)
    assert canvas.system.get_legend() not in style.drawn_on(canvas.system, legend=False)


def test_a_book_is_a_widget_too():
    book = explore_beforehand(circuit(), X, grid={"x[1]": [0.0, 1.0]})
    widget = book.widget()
    assert widget.names == ["x[1]"]
    assert widget.values == [["0", "1"]]
    assert len(widget.frames) == 2
    assert widget.place == [0]


def test_an_animation_ends_at_the_equilibrium(tmp_path):
    net = HopfieldNetwork.layered((2, 4, 1), key=jax.random.key(0), gain=2.0)
    x = jnp.array([0.8, 0.3])
    film = animate(net, x, frames=5)
    assert list(film.settings) == ["step"]
    assert film.settings["step"][-1] == str(int(net.relax(x).steps))
    path = film.save(tmp_path / "settling.gif")
    with Image.open(path) as moving:
        durations = [moving.seek(frame) or moving.info["duration"] for frame in range(moving.n_frames)]
    assert len(durations) > 2  # equal pages are one that stays longer
    assert sum(durations) == 120 * len(film.pages)
    assert f"{len(film.pages)} pictures over step" in repr(film)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"voltage": [1.0]}, "settings: 'voltage' is none; wanted beta, step, epoch, one of x, target, conductance"),
        ({"x[7]": [1.0]}, r"settings: x\[7\] is no entry of an array of shape \(2,\)"),
        ({"beta": np.zeros(401)}, "grid: wanted 1 to 400 combinations of values, got 401"),
        ({"beta": []}, "grid: wanted 1 to 400 combinations of values, got 0"),
    ],
)
def test_what_cannot_be_turned_is_refused(grid, words):
    with pytest.raises(ValueError, match=words):
        explore_beforehand(circuit(), X, grid=grid)


def test_the_script_names_what_a_book_gives():
    facts = Flipbook({"x": ("0",)}, (Canvas().page(Exploration(circuit(), X).settle({})),))._facts()
    asked = set(re.findall(r'model\.get\("(\w+)"\)', SCRIPT.read_text()))
    assert asked == set(facts)
