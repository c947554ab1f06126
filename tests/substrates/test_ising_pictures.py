"""Pictures of spins show the spins, the couplings, and those that are not satisfied."""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from substrates import IsingModel
from substrates.classical.ising import pictures

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NONE = jnp.zeros(0)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def labelled(ax, label):
    return next(part for part in (*ax.collections, *ax.images) if part.get_label() == label)


def test_a_lattice_shows_the_walls_of_its_domains():
    net = IsingModel.lattice((5, 6))
    spins = np.ones((5, 6))
    spins[1:3, 2:5] = -1
    own = plt.subplots()[1]
    ax = net.draw(jnp.asarray(spins.ravel()), ax=own)
    assert ax is own
    np.testing.assert_array_equal(labelled(ax, "spins").get_array(), spins)
    walls = np.array(labelled(ax, "unsatisfied").get_segments())
    assert len(walls) == 2 * (2 + 3)
    np.testing.assert_allclose(np.linalg.norm(walls[:, 1] - walls[:, 0], axis=1), 1.0)
    corners = walls.reshape(-1, 2)
    np.testing.assert_allclose(corners.min(axis=0), [1.5, 0.5])
    np.testing.assert_allclose(corners.max(axis=0), [4.5, 2.5])
    assert len(labelled(net.draw(jnp.ones(30)), "unsatisfied").get_segments()) == 0


def test_walls_do_not_cross_a_lattice_that_closes_on_itself():
    net = IsingModel.lattice((4, 4), periodic=True)
    spins = np.ones((4, 4))
    spins[:, 0] = -1
    assert len(labelled(net.draw(jnp.asarray(spins.ravel())), "unsatisfied").get_segments()) == 4


def test_a_graph_shows_spins_couplings_inputs_and_outputs():
    edges = np.array([(0, 1), (1, 2), (2, 0), (2, 3)])
    net = IsingModel.from_edges(edges, coupling=[1.0, 1.0, -0.5, -2.0], inputs=[0], outputs=[3])
    ax = net.draw(x=jnp.array([1.0]))
    spins = np.asarray(net.configuration(net.relax(jnp.array([1.0])).state, jnp.array([1.0])))
    np.testing.assert_array_equal(labelled(ax, "spins").get_array(), spins)
    broken = sum(J * spins[i] * spins[j] < 0 for (i, j), J in zip(edges, [1.0, 1.0, -0.5, -2.0], strict=True))
    assert broken == 1  # the triangle is frustrated
    assert len(labelled(ax, "unsatisfied").get_segments()) == broken
    assert len(labelled(ax, "satisfied").get_segments()) == 4 - broken
    widths = labelled(ax, "satisfied").get_linewidths()
    assert max(widths) == pytest.approx(3.6)
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {
        "satisfied",
        "unsatisfied",
        "inputs",
        "outputs",
    }


def test_a_lattice_is_drawn_as_a_graph_where_places_are_given():
    places = np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
    ax = IsingModel.lattice((2, 2)).draw(jnp.array([1.0, 1.0, 1.0, -1.0]), positions=places)
    np.testing.assert_array_equal(labelled(ax, "spins").get_offsets(), places)
    assert len(labelled(ax, "unsatisfied").get_segments()) == 2


def test_layers_show_their_spins():
    net = IsingModel.layered((3, 4, 2), key=jax.random.key(0), copies=2)
    x = jnp.array([0.5, -1.0, 0.2])
    state = net.relax(x).state
    ax = net.draw(x=x)
    shown = [np.ravel(part.get_array()) for part in (*ax.collections, *ax.images) if part.get_array() is not None]
    for layer in state:
        assert any(len(column) == layer.size and np.array_equal(column, layer) for column in shown)
    assert any("2 x 2 spins" in text.get_text() for text in ax.texts)
    net.draw()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: pictures.lattice(np.ones(4), np.zeros((0, 2), int), np.zeros(0), (4,)),
            "model: wanted a lattice of two dimensions",
        ),
        (
            lambda: IsingModel.lattice((2, 2)).draw(jnp.ones(3)),
            r"state: wanted shape \(4,\), a state of this system, got \(3,\)",
        ),
        (
            lambda: IsingModel.lattice((2, 2)).draw(jnp.ones(4), positions=np.zeros((3, 2))),
            r"positions: wanted shape \(4, 2\)",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
