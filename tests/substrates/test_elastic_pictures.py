"""Pictures of elastic networks show the places and the strains that they claim to."""

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from substrates import ElasticNetwork
from substrates.classical.elastic import pictures

matplotlib.use("Agg")
import matplotlib.pyplot as plt

EDGES = [(0, 1), (1, 2), (0, 3), (1, 3), (2, 3)]
PLACES = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [1.0, 1.0]])
K = np.array([1.0, 0.5, 2.0, 0.1, 0.3])
NET = ElasticNetwork.from_edges(EDGES, positions=PLACES, clamped=[0, (1, 1)], inputs=[2], outputs=[(3, 1)], stiffness=K)
X, STATE = jnp.array([0.5, 0.25]), jnp.array([1.2, 1.1, 1.5])
MOVED = np.array([[0.0, 0.0], [1.2, 0.0], [2.5, 0.25], [1.1, 1.5]])


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def labelled(ax, label):
    (found,) = [artist for artist in ax.collections if artist.get_label() == label]
    return found


def lengths(places):
    return np.array([np.linalg.norm(places[i] - places[j]) for i, j in EDGES])


def test_springs_stand_where_their_nodes_do_and_show_what_they_bear():
    extension = lengths(MOVED) - lengths(PLACES)
    shown = {
        "strain": extension / lengths(PLACES),
        "tension": K * extension,
        "extension": extension,
        "energy": K * extension**2 / 2,
    }
    assert shown.keys() == pictures.QUANTITIES.keys()
    for colour, wanted in shown.items():
        ax = NET.draw(STATE, X, colour=colour)
        springs = labelled(ax, "springs")
        np.testing.assert_allclose(springs.get_array(), wanted, atol=1e-12)
        np.testing.assert_allclose(springs.get_clim()[1], np.abs(wanted).max())
        np.testing.assert_allclose(springs.get_clim()[0], 0.0 if colour == "energy" else -np.abs(wanted).max())
        np.testing.assert_allclose(springs.get_segments(), MOVED[np.array(EDGES)])
    np.testing.assert_array_equal(np.argsort(springs.get_linewidths()), np.argsort(K))
    np.testing.assert_allclose(labelled(ax, "reference").get_segments(), PLACES[np.array(EDGES)])
    np.testing.assert_allclose(labelled(ax, "nodes").get_offsets(), MOVED)
    for role, nodes in {"inputs": [2], "clamped": [0, 1], "outputs": [3]}.items():
        np.testing.assert_allclose(labelled(ax, role).get_offsets(), MOVED[nodes])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["inputs", "clamped", "outputs"]
    ax.figure.canvas.draw()


def test_a_network_is_settled_when_no_state_is_given_and_drawn_at_rest_without_an_input():
    own = plt.subplots()[1]
    ax = NET.draw(x=X, ax=own)
    assert ax is own
    settled = np.asarray(NET.positions(NET.relax(X).state, X))
    np.testing.assert_allclose(labelled(ax, "nodes").get_offsets(), settled, atol=1e-9)
    at_rest = NET.draw(values=np.arange(5.0))
    np.testing.assert_allclose(labelled(at_rest, "nodes").get_offsets(), PLACES)
    np.testing.assert_array_equal(labelled(at_rest, "springs").get_array(), np.arange(5.0))


def test_a_network_in_space_is_drawn_in_space():
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    pairs = [(i, j) for i in range(4) for j in range(i)]
    net = ElasticNetwork.from_edges(pairs, positions=corners, clamped=[0, 1, 2], inputs=[], outputs=[3])
    ax = net.draw()
    assert ax.name == "3d"
    ax.figure.canvas.draw()
    assert len(labelled(ax, "springs").get_segments()) == len(pairs)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="x: wanted the input that belongs to the state"):
        NET.draw(STATE)
    with pytest.raises(ValueError, match="colour: wanted one of strain, tension, extension, energy, got 'red'"):
        NET.draw(colour="red")
    with pytest.raises(ValueError, match=r"values: wanted shape \(5,\), one per spring"):
        NET.draw(values=np.zeros(4))
