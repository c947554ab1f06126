"""Pictures of recurrent networks and of how they align show the numbers they were given."""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from learning.pictures import along_training, bias_split
from substrates import RecurrentNetwork
from substrates.classical.recurrent.pictures import draw_jacobian

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NET = RecurrentNetwork.from_connections((3, 4, 2), [(0, 1), (1, 2), (2, 1), (1, 1)], key=jax.random.key(0))


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def test_a_network_shows_its_activities_and_every_connection():
    x = jnp.array([0.2, -0.4, 0.6])
    state = NET.relax(x).state
    figure, axes = plt.subplots()
    assert NET.draw(state, x, ax=axes) is axes
    shown = {artist.get_label(): artist for artist in axes.collections}
    for k, values in enumerate(NET.activities(state, x)):
        np.testing.assert_allclose(shown[f"layer {k}"].get_array(), np.asarray(values) / np.abs(values).max())
    arrows = {patch.get_label(): patch.get_linewidth() for patch in axes.patches}
    assert set(arrows) == {"0 to 1", "1 to 2", "2 to 1", "1 to 1"}
    sizes = {f"{c.source} to {c.target}": float(jnp.mean(c.coupling.weight**2)) ** 0.5 for c in NET.connection}
    assert max(arrows, key=arrows.get) == max(sizes, key=sizes.get)
    assert NET.draw() is not axes
    figure.canvas.draw()


def test_a_jacobian_tells_how_symmetric_it_is():
    matrix = np.array([[-1.0, 3.0], [1.0, -2.0]])
    ax = draw_jacobian(matrix, (1, 1))
    np.testing.assert_array_equal(ax.images[0].get_array(), matrix)
    even, odd = (matrix + matrix.T) / 2, (matrix - matrix.T) / 2
    share = np.linalg.norm(even) / (np.linalg.norm(even) + np.linalg.norm(odd))
    assert f"{share:.3f}" in ax.get_title()
    with pytest.raises(ValueError, match="jacobian: wanted a square matrix"):
        draw_jacobian(matrix[:1])


def test_curves_show_what_they_are_given():
    histories = {"plain": {"angle": np.array([40.0, 50.0])}, "homeostasis": {"angle": np.array([20.0, 10.0])}}
    ax = along_training(histories, "angle")
    for line, history in zip(ax.lines, histories.values(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), history["angle"])
    with pytest.raises(ValueError, match="quantity: wanted one of angle, which 'plain' has, got 'symmetry'"):
        along_training(histories, "symmetry")
    split = bias_split([0.1, 0.2], {"2 points": [1e-2, 4e-2]}, 0.3)
    np.testing.assert_array_equal(split.lines[0].get_ydata(), [1e-2, 4e-2])
    np.testing.assert_array_equal(split.lines[1].get_ydata(), [0.3, 0.3])
