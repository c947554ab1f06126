"""Pictures of paths show the coordinates that they claim to."""

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from substrates import Trajectory
from substrates.classical.trajectory import CoupledPendulums, Samples
from substrates.classical.trajectory.pictures import draw_path

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PENDULUMS = CoupledPendulums(
    weight=jnp.ones(2),
    coupling=jnp.ones(1),
    drive=jnp.ones((2, 0)),
    edges=((0, 1),),
    mass=jnp.ones(2),
    frequency=jnp.ones(()),
)


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def test_few_coordinates_are_lines_over_time():
    net = Trajectory.between(PENDULUMS, [0.0, 1.0], [0.5, -1.0], duration=3.0, steps=6, meter=Samples([0], [3]))
    state = jnp.arange(10.0).reshape(5, 2)
    ax = net.draw(state, None)
    assert len(ax.lines) == 2
    for k, line in enumerate(ax.lines):
        np.testing.assert_allclose(line.get_xdata(), 0.5 * np.arange(7))
        np.testing.assert_array_equal(line.get_ydata(), [[0.0, 1.0][k], *state[:, k], [0.5, -1.0][k]])
    guess = net.draw(ax=plt.subplots()[1])
    np.testing.assert_allclose(guess.lines[0].get_ydata(), np.linspace(0, 0.5, 7))


def test_many_coordinates_are_colours_over_time():
    path = np.random.default_rng(0).standard_normal((5, 12))
    ax = plt.subplots()[1]
    assert draw_path(np.arange(5.0), path, ax, [f"mass {k}" for k in range(12)]) is ax
    (picture,) = [artist for artist in ax.collections if artist.get_label() == "path"]
    np.testing.assert_array_equal(picture.get_array(), path.T)
    low, high = picture.get_clim()
    assert high == -low == np.abs(path).max()
    assert ax.get_yticklabels()[3].get_text() == "mass 3"
