"""Pictures of Hopfield networks show the activities of every layer, the strongest couplings, and feature maps."""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from substrates import HopfieldNetwork
from substrates.classical.hopfield import pictures

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DENSE = HopfieldNetwork.layered((3, 5, 2), key=jax.random.key(0))
MAPS = HopfieldNetwork.convolutional((8, 8, 1), (3, 14), 2, key=jax.random.key(1))
X = jnp.array([0.5, -1.0, 0.2])


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def columns(ax):
    """The values of every layer that is coloured."""
    parts = (*ax.collections, *ax.images)
    return [np.ravel(part.get_array()) for part in parts if part.get_array() is not None]


def test_layers_show_their_activities_as_parts_of_their_largest():
    state = DENSE.relax(X).state
    own = plt.subplots()[1]
    assert DENSE.draw(state, X, own) is own
    shown = columns(own)
    for layer in (X, *state):
        scaled = np.asarray(layer / jnp.max(jnp.abs(layer)))
        assert any(column.shape == scaled.shape and np.allclose(column, scaled) for column in shown)
    assert sum(f"{float(jnp.max(jnp.abs(state[0]))):.3g}" in text.get_text() for text in own.texts) >= 1
    lines = [part for part in own.collections if part.get_label() == "strongest couplings 0"]
    assert len(lines[0].get_segments()) == 15


def test_without_a_state_it_settles_and_without_an_input_it_is_bare():
    state = DENSE.relax(X).state
    scaled = np.asarray(state[0] / jnp.max(jnp.abs(state[0])))
    assert any(np.array_equal(column, scaled) for column in columns(DENSE.draw(x=X)))
    assert columns(DENSE.draw()) == []


def test_feature_maps_stand_side_by_side_in_common_colours():
    state = MAPS.relax(jax.random.uniform(jax.random.key(2), (64,))).state
    for layer, (side, count) in enumerate(((4, 3), (2, 12))):
        ax = pictures.maps(MAPS, state, layer)
        sheet = np.ma.filled(ax.images[0].get_array(), np.nan)
        for k in range(count):
            top, left = (k // min(count, 4)) * (side + 1), (k % min(count, 4)) * (side + 1)
            np.testing.assert_array_equal(sheet[top : top + side, left : left + side], state[layer][..., k])
        assert np.nansum(np.isfinite(sheet)) == side * side * count
        assert ax.get_title() == f"hidden {layer + 1}: {count} of {state[layer].shape[2]} maps"
        low, high = ax.images[0].get_clim()
        assert -low == high == pytest.approx(float(np.max(np.abs(state[layer][..., :12]))))
    MAPS.draw(state, jnp.zeros(64))
    with pytest.raises(ValueError, match="x: wanted the input that belongs to the state, got None"):
        MAPS.draw(state)


def test_what_is_no_feature_map_is_refused():
    with pytest.raises(ValueError, match=r"layer: wanted one of the layers of feature maps, \[0, 1\], got 2"):
        pictures.maps(MAPS, MAPS.initial_state(jnp.zeros(64)), 2)
