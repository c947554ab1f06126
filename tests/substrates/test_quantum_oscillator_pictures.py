"""Pictures of quantum oscillators show the means, variances and modes that they claim to."""

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from substrates import QuantumOscillatorNetwork
from substrates.quantum.oscillator import pictures

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NET = QuantumOscillatorNetwork.from_edges(
    [(0, 1), (1, 2), (2, 3)], 4, inputs=[0], outputs=[3], stiffness=[1.0, -0.1, 0.5],
    onsite_stiffness=[1.0, 2.0, 1.0, 0.5], mass=[1.0, 2.0, 1.0, 0.7], hbar=0.8,
)  # fmt: skip
X = jnp.array([0.6])
STATE = NET.relax(X).state


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def labelled(ax, label):
    (found,) = [artist for artist in [*ax.collections, *ax.lines] if artist.get_label() == label]
    return found


def test_the_network_shows_means_and_variances():
    places = np.array([[0.0, 0], [1, 0], [2, 0], [3, 0]])
    for ax in (NET.draw(STATE, X, positions=places), NET.draw(x=X, positions=places)):
        nodes, springs = labelled(ax, "oscillators"), labelled(ax, "springs")
        np.testing.assert_allclose(nodes.get_array(), STATE.mean)
        variance = np.diagonal(NET.covariance(STATE))
        np.testing.assert_allclose(nodes.get_sizes() / nodes.get_sizes().max(), variance / variance.max())
        assert [style[1] is not None for style in springs.get_linestyle()] == [False, True, False]
        assert np.argmax(springs.get_linewidths()) == 0
        np.testing.assert_array_equal(labelled(ax, "outputs").get_xydata(), places[[3]])
        ax.figure.canvas.draw()
    assert labelled(NET.draw(), "oscillators").get_array() is None


def test_normal_modes_are_orthonormal_columns():
    ax = pictures.normal_modes(NET, X)
    shape = np.asarray(ax.images[0].get_array())
    np.testing.assert_allclose(shape.T @ shape, np.eye(4), atol=1e-12)
    labels = [float(text.get_text()) for text in ax.get_xticklabels()]
    np.testing.assert_allclose(labels, NET.normal_modes(X).frequency, rtol=5e-3)


def test_a_wigner_function_is_normalised_and_as_wide_as_the_fluctuations():
    ax = pictures.wigner(NET, STATE, 1, extent=6.0, points=241)
    mesh = ax.collections[0]
    corners = mesh.get_coordinates()
    cell = np.diff(corners[0, :2, 0])[0] * np.diff(corners[:2, 0, 1])[0]
    weight = np.asarray(mesh.get_array()).reshape(241, 241) * cell
    x = (corners[0, 1:, 0] + corners[0, :-1, 0]) / 2
    np.testing.assert_allclose(weight.sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(weight.sum(axis=0) @ x, STATE.mean[1], rtol=1e-6)
    variance = weight.sum(axis=0) @ (x - float(STATE.mean[1])) ** 2
    np.testing.assert_allclose(variance, NET.covariance(STATE)[1, 1], rtol=1e-5)
    assert ax.patches[0].width * ax.patches[0].height / 4 >= NET.hbar / 2


def test_densities_are_normalised():
    ax = pictures.densities(NET, STATE, points=401)
    mesh = ax.collections[0]
    step = np.diff(mesh.get_coordinates()[:2, 0, 1])[0]
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(401, 4).sum(axis=0) * step, 1.0, rtol=1e-3)
    np.testing.assert_allclose(labelled(ax, "means").get_ydata(), STATE.mean)


def test_given_axes_are_drawn_on():
    for draw in (
        lambda ax: NET.draw(STATE, X, ax),
        lambda ax: pictures.normal_modes(NET, ax=ax),
        lambda ax: pictures.wigner(NET, STATE, 0, ax),
        lambda ax: pictures.densities(NET, STATE, ax),
    ):
        ax = plt.subplots()[1]
        assert draw(ax) is ax


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="positions: wanted shape"):
        NET.draw(STATE, X, positions=np.zeros((3, 2)))
    with pytest.raises(ValueError, match="oscillator: wanted one from 0 to 3"):
        pictures.wigner(NET, STATE, 4)
    cold = NET.with_hbar(0.0)
    for draw in (lambda s: pictures.wigner(cold, s, 0), lambda s: pictures.densities(cold, s)):
        with pytest.raises(ValueError, match="wanted fluctuations to draw"):
            draw(cold.relax(X).state)
