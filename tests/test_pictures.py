from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import networkx as nx
import numpy as np
import pytest
from linear_response import LinearResponse

from learning.pictures import contrast, draw_contrast, learning_curve
from learning.rule import Estimate
from substrates.classical.resistor import pictures
from substrates.classical.resistor.network import ResistorNetwork
from substrates.classical.resistor.schematic import Schematic
from substrates.pictures import columns

matplotlib.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def labelled(ax, label):
    (found,) = [artist for artist in [*ax.collections, *ax.lines, *ax.patches] if artist.get_label() == label]
    return found


def every_element(n=9):
    graph = nx.cycle_graph(n)
    graph.add_edge(0, 4)
    return ResistorNetwork.from_edges(
        [*graph.edges, (2, -1)],
        n,
        inputs=[0, 1],
        outputs=[5],
        conductance=np.linspace(0.1, 1.0, n + 2),
        rails={3: -0.5},
        diodes=[(2, -1), (6, 4), (0, 1)],
        current_sources=[(-1, 7, 0.1)],
        voltage_sources=[(7, 8, 0.2)],
        controlled_sources=[(6, -1, 5, 4, 0.5)],
    )


@pytest.fixture(scope="module")
def settled():
    graph = nx.convert_node_labels_to_integers(nx.grid_2d_graph(4, 5))
    net = ResistorNetwork.from_edges(
        list(graph.edges), 20, inputs=[0, 4], outputs=[19], conductance=1.0, diodes=[(7, -1), (-1, 12)]
    )
    x = jnp.array([1.0, -0.4])
    found = net.relax(x)
    assert found.converged
    return net, found.state, x


def test_a_circuit_shows_its_voltages_and_currents(settled):
    net, state, x = settled
    ax = pictures.circuit(net, state, x, positions=pictures.grid_positions(4, 5))
    nodes, wires = labelled(ax, "nodes"), labelled(ax, "resistors")
    np.testing.assert_array_equal(nodes.get_array(), net.voltages(state, x))
    np.testing.assert_array_equal(wires.get_array(), np.abs(net.currents(state, x)))
    np.testing.assert_array_equal(nodes.get_offsets(), pictures.grid_positions(4, 5))
    low, high = nodes.get_clim()
    assert low == -high == -1.0
    ax.figure.canvas.draw()
    darkness = 3 - wires.get_colors()[:, :3].sum(axis=1)
    current = np.abs(np.asarray(net.currents(state, x)))
    assert np.all(np.diff(darkness[np.argsort(current)]) >= 0)
    np.testing.assert_array_equal(labelled(ax, "inputs").get_xydata(), pictures.grid_positions(4, 5)[[0, 4]])
    np.testing.assert_array_equal(labelled(ax, "outputs").get_xydata(), pictures.grid_positions(4, 5)[[19]])
    assert len(labelled(ax, "diodes").get_paths()) == 2
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["inputs", "outputs"]


def test_widths_are_affine_in_the_conductance():
    net = every_element()
    widths = labelled(pictures.circuit(net), "resistors").get_linewidths()
    slopes = np.diff(widths) / np.diff(np.asarray(net.conductance))
    np.testing.assert_allclose(slopes, slopes[0], rtol=1e-9)
    assert slopes[0] > 0


def test_arrowheads_point_along_the_currents():
    net = every_element()
    places = np.array(list(nx.circular_layout(range(net.n)).values()))
    schematic = Schematic.of(net, places)
    currents = np.where(np.arange(len(net.edges)) % 2, 1.0, -1.0)
    for path, head, current in zip(schematic.paths["resistor"], schematic.arrowheads(currents), currents, strict=True):
        assert np.sign((head[0] - head[2]) @ (path[-1] - path[0])) == current


def test_every_element_is_drawn_where_it_is():
    net = every_element()
    schematic = Schematic.of(net, np.array(list(nx.circular_layout(range(net.n)).values())))
    pairs = {
        "resistor": net.edges,
        "diode": net.diodes,
        "current": net.current_sources,
        "voltage": net.voltage_sources,
        "controlled": net.controlled_sources[:, :2],
    }
    grounded = 0
    for kind, expected in pairs.items():
        assert len(schematic.paths[kind]) == len(expected)
        for path, (first, second) in zip(schematic.paths[kind], expected, strict=True):
            for end, node in ((path[0], first), (path[-1], second)):
                if node >= 0:
                    np.testing.assert_allclose(end, schematic.places[node])
                else:
                    grounded += 1
                    assert np.min(np.linalg.norm(schematic.grounds[:, 0] - end, axis=1)) == 0
    assert grounded == len(schematic.grounds) == 4


def test_parallel_elements_do_not_cover_one_another():
    net = ResistorNetwork.from_edges(
        [(0, 1), (0, 1), (1, 0), (1, -1)], 2, inputs=[0], outputs=[1], conductance=1.0, diodes=[(0, 1)]
    )
    schematic = Schematic.of(net, np.array([[0.0, 0.0], [1.0, 0.0]]))
    middles = np.array([schematic.middle(p)[0] for kind in ("resistor", "diode") for p in schematic.paths[kind][:3]])
    apart = np.linalg.norm(middles[:, None] - middles[None], axis=-1) + np.eye(4)
    assert apart.min() > 0.1


@pytest.mark.parametrize("n", [5, 60, 400])
def test_any_graph_draws(n):
    graph = nx.random_regular_graph(4, n, seed=0)
    net = ResistorNetwork.from_edges(list(graph.edges), n, inputs=[0, 1], outputs=[n - 1], conductance=1.0)
    ax = pictures.circuit(net)
    ax.figure.canvas.draw()
    assert len(labelled(ax, "resistors").get_segments()) == 2 * n
    assert len(labelled(ax, "nodes").get_offsets()) == n


def test_an_input_without_a_state_settles(settled):
    net, state, x = settled
    shown = labelled(pictures.network(net, x=x), "nodes").get_array()
    np.testing.assert_allclose(shown, net.voltages(state, x), atol=1e-9)
    with pytest.raises(ValueError, match="x: wanted the input"):
        pictures.circuit(net, state)
    with pytest.raises(ValueError, match=r"positions: wanted shape \(20, 2\)"):
        pictures.circuit(net, positions=np.zeros((3, 2)))


def test_given_axes_are_used_and_returned(settled):
    net, state, x = settled
    layered = ResistorNetwork.layered((3, 4, 2), key=jax.random.key(0))
    xs = jnp.array([1.0, 0.0, -1.0])
    layered_state = (jnp.array([1.0, 0.0, -2.0, 0.0]), jnp.array([0.5, -0.5]))
    figure, axes = plt.subplots(2, 3)
    assert pictures.circuit(net, state, x, ax=axes[0, 0]) is axes[0, 0]
    assert pictures.layers(layered, layered_state, xs, ax=axes[0, 1]) is axes[0, 1]
    assert pictures.voltages(net, state, x, ax=axes[0, 2]) is axes[0, 2]
    assert learning_curve({"cost": [2.0, 1.0]}, ax=axes[1, 0]) is axes[1, 0]
    assert contrast({"g": np.eye(3)}, ax=axes[1, 1]) is axes[1, 1]
    assert layered.draw(ax=axes[1, 2]) is axes[1, 2]
    assert plt.get_fignums() == [figure.number]
    figure.canvas.draw()


@pytest.mark.parametrize("sizes", [(3, 6, 2), (40, 50, 10)])
def test_layers_show_their_voltages(sizes):
    net = ResistorNetwork.layered(sizes, key=jax.random.key(1), input_gain=10.0)
    x = jnp.linspace(-1.0, 1.0, sizes[0])
    state = tuple(jax.random.normal(jax.random.key(n), (n,)) for n in sizes[1:])
    ax = pictures.network(net, state, x)
    ax.figure.canvas.draw()
    for layer, volts in enumerate([net.input_voltages(x), *state]):
        shown = np.ravel(labelled(ax, f"layer {layer}").get_array())
        np.testing.assert_allclose(shown, np.asarray(volts) / np.abs(volts).max(), atol=1e-12)
    for layer, g in enumerate(net.conductance):
        lines = labelled(ax, f"strongest conductances {layer}")
        assert len(lines.get_segments()) == min(columns.MOST_LINES_BETWEEN_LAYERS, int(np.sum(np.asarray(g) > 0)))


def test_voltages_of_a_circuit_and_of_layers(settled):
    net, state, x = settled
    ax = pictures.voltages(net, state, x)
    np.testing.assert_array_equal(labelled(ax, "all nodes").get_ydata(), net.voltages(state, x))
    np.testing.assert_array_equal(labelled(ax, "inputs").get_ydata(), x)
    assert ax.get_ylabel() == "voltage (V)"
    layered = ResistorNetwork.layered((3, 6, 2), key=jax.random.key(1), input_gain=500.0)
    found = (jnp.array([3.0, 0.0, 1.0, 0.0, -2.0, -1.0]), jnp.array([0.2, -0.1]))
    ax = pictures.voltages(layered, found, jnp.ones(3))
    drawn = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) in (6, 2) and line.get_marker() == "."]
    np.testing.assert_array_equal(drawn[1], np.sort(found[0]))
    np.testing.assert_array_equal(drawn[2], np.sort(found[1]))


def test_learning_curves():
    history = {
        "cost": np.array([1.0, 0.1, 0.01]),
        "error": np.array([0.5, 0.2, 0.0]),
        "validation_error": np.array([0.6, np.nan, 0.3]),
        "residual": np.ones(3),
        "epoch_seconds": np.ones(3),
    }
    ax = learning_curve(history)
    ax.figure.canvas.draw()
    assert [line.get_label() for line in ax.lines] == ["cost", "error", "validation error"]
    for line, name in zip(ax.lines, ("cost", "error", "validation_error"), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
        np.testing.assert_array_equal(line.get_ydata(), history[name])
    assert ax.lines[0].get_color() == ax.lines[1].get_color() != ax.lines[2].get_color()
    assert ax.get_yscale() == "symlog"
    assert learning_curve({"cost": [1.0, 0.1]}).get_yscale() == "log"
    assert learning_curve({"cost": [1.0, 0.9]}).get_yscale() == "linear"
    assert learning_curve({"validation_cost": [1.0]}).get_ylabel() == "mean cost"
    for empty in ({}, {"cost": []}, {"cost": [np.nan]}, {"residual": [1.0]}):
        assert len(learning_curve(empty).lines) == 0


def test_contrast_of_what_a_rule_measured():
    gradient = LinearResponse(jnp.array([[1.0, -2.0], [0.5, 3.0]]), jnp.array([0.1, -0.2]), None)
    estimate = Estimate(gradient, jnp.zeros(()), jnp.zeros((4, 2)), (), relaxations=0)
    ax = contrast(estimate)
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), estimate.gradient.weight)
    low, high = image.get_clim()
    assert low == -high == -np.abs(np.asarray(estimate.gradient.weight)).max()
    ax = contrast(estimate, name="offset")
    stems = ax.collections[-1].get_offsets()
    np.testing.assert_array_equal(stems[:, 1], estimate.gradient.offset)
    assert ax.get_ylabel() == "d cost / d offset"
    assert contrast({"kernel": np.ones((4, 3, 2, 2))}).images[0].get_array().shape == (4, 12)
    with pytest.raises(ValueError, match=r"name: wanted one of \['weight', 'offset'\], got 'wieght'"):
        contrast(estimate, name="wieght")
    with pytest.raises(ValueError, match="at least one array"):
        contrast({"nothing": None})


class Slopes(NamedTuple):
    bias: np.ndarray
    g: np.ndarray


def test_contrasts_lie_on_their_edges_as_wide_as_they_are_large():
    places = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0]])
    moves = np.array([[0.0, 0.0], [0.0, 0.25], [0.1, 0.0]])
    edges, values = [(0, 1), (1, 2), (2, 0), (0, -1)], np.array([1.0, -4.0, 2.0, 8.0])
    ax = draw_contrast(Slopes(np.ones(2), values), edges, places, places + moves, name="g")
    grows, falls = (labelled(ax, f"contrast {where} 0") for where in ("above", "below"))
    np.testing.assert_array_equal(grows.get_segments(), places[[[0, 1], [2, 0]]])
    np.testing.assert_array_equal(falls.get_segments(), places[[[1, 2]]])
    widths = np.concatenate([grows.get_linewidths(), falls.get_linewidths()])
    np.testing.assert_allclose(widths / widths[0], [1.0, 2.0, 4.0])
    assert grows.get_linestyles() != falls.get_linestyles()
    arrows = labelled(ax, "nudged")
    np.testing.assert_array_equal(arrows.get_offsets(), places)
    drawn = np.stack([arrows.U, arrows.V], axis=1) / arrows.scale
    np.testing.assert_allclose(drawn, moves * 2.0 / 0.25)  # the longest is as long as the median of the edges
    assert "nudged, 8 times" in [text.get_text() for text in ax.get_legend().get_texts()]
    still = draw_contrast(Slopes(np.ones(0), values[:3]), edges[:3], places)
    assert not [artist for artist in still.collections if artist.get_label() == "nudged"]
    grounded = np.stack([np.arange(3), np.full(3, -1)], axis=1)
    alone = draw_contrast(Slopes(np.ones(0), values[:3]), grounded, places, places + moves)
    assert np.all(np.isfinite(labelled(alone, "nudged").scale))
    with pytest.raises(ValueError, match=r"edges: wanted shape \(4, 2\), like g, got \(3, 2\)"):
        draw_contrast(Slopes(np.ones(0), values), edges[:3], places)
    with pytest.raises(ValueError, match=r"free, nudged: wanted shape \(n, 2\), got \(3, 2\) and \(2, 2\)"):
        draw_contrast(Slopes(np.ones(0), values), edges, places, places[:2])
    with pytest.raises(ValueError, match=r"free, nudged: wanted shape \(n, 2\), got \(3, 3\) and \(3, 3\)"):
        draw_contrast(Slopes(np.ones(0), values), edges, np.ones((3, 3)))
