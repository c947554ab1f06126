"""Pictures of oscillators show the phases and cosines that they claim to."""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from substrates import OscillatorNetwork

matplotlib.use("Agg")
import matplotlib.pyplot as plt

EDGES = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]
NET = OscillatorNetwork.from_edges(
    EDGES, coupling=[1.0, -0.5, 2.0, 0.1, 0.3], inputs=[0], outputs=[3], references={1: 0.5}
)
X, STATE = jnp.array([0.3]), jnp.array([2.0, 5.0])


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def labelled(ax, label):
    (found,) = [artist for artist in [*ax.collections, *ax.lines] if artist.get_label() == label]
    return found


def test_a_graph_shows_phases_and_the_cosines_of_its_couplings():
    places = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    ax = NET.draw(STATE, X, positions=places)
    phases = np.array([0.3, 0.5, 2.0, 5.0])
    oscillators, couplings, arrows = (labelled(ax, name) for name in ("oscillators", "couplings", "arrows"))
    np.testing.assert_allclose(oscillators.get_array(), [0.3, 0.5, 2.0, 5.0 - 2 * np.pi])
    assert oscillators.get_clim() == (-np.pi, np.pi)
    np.testing.assert_allclose(couplings.get_array(), [np.cos(phases[i] - phases[j]) for i, j in EDGES])
    np.testing.assert_allclose(arrows.U, np.cos(phases))
    np.testing.assert_allclose(arrows.V, np.sin(phases))
    np.testing.assert_array_equal(oscillators.get_offsets(), places)
    widths = couplings.get_linewidths()
    assert np.argmax(widths) == 2
    dashes = [style[1] is not None for style in couplings.get_linestyle()]
    assert dashes == [False, True, False, False, False]
    np.testing.assert_array_equal(labelled(ax, "references").get_xydata(), places[[1]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["inputs", "references", "outputs"]
    ax.figure.canvas.draw()


def test_a_network_is_settled_when_no_state_is_given():
    own = plt.subplots()[1]
    ax = NET.draw(x=X, ax=own)
    assert ax is own
    wanted = np.asarray(NET.phases(NET.relax(X).state, X))
    np.testing.assert_allclose(np.exp(1j * labelled(ax, "oscillators").get_array()), np.exp(1j * wanted), atol=1e-9)
    bare = NET.draw()
    assert labelled(bare, "oscillators").get_array() is None


def test_layers_show_their_phases_and_arrows():
    net = OscillatorNetwork.layered((3, 40, 2), key=jax.random.key(0), phase_range=(0.0, 1.0))
    x = jnp.array([0.1, 0.5, 0.9])
    state = (jnp.linspace(0, 9, 40), jnp.array([0.3, 4.0]))
    ax = net.draw(state, x)
    np.testing.assert_allclose(labelled(ax, "layer 0").get_array(), [0.1, 0.5, 0.9])
    wrapped = np.angle(np.exp(1j * np.linspace(0, 9, 40)))
    np.testing.assert_allclose(labelled(ax, "layer 1").get_array().ravel(), wrapped, atol=1e-12)
    np.testing.assert_allclose(labelled(ax, "layer 2").get_array(), [0.3, 4.0 - 2 * np.pi])
    assert len([artist for artist in ax.collections if artist.get_label() == "arrows"]) == 2  # none on a strip
    ax.figure.canvas.draw()
    assert net.draw().collections


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="x: wanted the input that belongs to the state, got None"):
        NET.draw(STATE)
    with pytest.raises(ValueError, match=r"positions: wanted shape \(4, 2\)"):
        NET.draw(positions=np.zeros((3, 2)))
