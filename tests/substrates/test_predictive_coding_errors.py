"""What predictive coding networks refuse, by name, and what their pictures show."""

import dataclasses

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from learning import SquaredError
from substrates import Nudge, Pin, PredictiveCodingNetwork
from substrates.classical.predictive_coding import Skip
from substrates.classical.predictive_coding.error_sweep import ErrorSweep
from substrates.classical.predictive_coding.projected_gradient import ProjectedGradient
from substrates.wiring import Convolution, Dense

KEY = jax.random.key(0)
NET = PredictiveCodingNetwork.dense((4, 6, 5, 3), key=KEY)
IMAGE = (8, 8, 2)


def convolutional(**options):
    return PredictiveCodingNetwork.convolutional(
        options.pop("shape", IMAGE), options.pop("channels", (3, 4)), options.pop("dense", (3,)), key=KEY, **options
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sizes": (4,)}, "sizes: wanted at least 2 positive integers"),
        ({"sizes": (4, 0, 3)}, "sizes: wanted at least 2 positive integers"),
        ({"sizes": (4, 2.5, 3)}, "sizes: wanted at least 2 positive integers"),
        ({"gain": 0.0}, "gain: wanted a positive finite number"),
        ({"gain": float("nan")}, "gain: wanted a positive finite number"),
        ({"rectifier": "tanh"}, "rectifier: wanted one of"),
    ],
)
def test_dense_networks_refuse(options, words):
    with pytest.raises(ValueError, match=words):
        PredictiveCodingNetwork.dense(**{"sizes": (4, 6, 3), "key": KEY, **options})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": (8, 8)}, "shape: wanted at least 3 positive integers"),
        ({"shape": (8, 8, 2, 1)}, r"shape: wanted \(height, width, channels\)"),
        ({"channels": ()}, "channels: wanted at least 1 positive integers"),
        ({"dense": ()}, "dense: wanted at least 1 positive integers"),
        ({"pooled": (3,)}, "pooled: wanted numbers of convolutional layers, 1 to 2"),
        ({"pooled": (0,)}, "pooled: wanted numbers of convolutional layers, 1 to 2"),
        ({"shape": (6, 6, 1), "pooled": (1, 2)}, "pooled: layer 2: pooling: windows of 2x2 do not divide maps of 3x3"),
        ({"pooled": (1,), "pooling": "median"}, "pooling: wanted None or one of"),
        ({"fan": "both"}, "fan: wanted 'in' or 'out'"),
        ({"skips": ((0, 1),)}, "skips: wanted pairs .* at least two layers after the source"),
        ({"skips": ((0, 4),)}, "skips: wanted pairs"),
        ({"skips": ((-1, 2),)}, "skips: wanted pairs"),
        ({"skips": ((1, 3),)}, "skips: wanted layers of one kind, maps or nodes"),
    ],
)
def test_convolutional_networks_refuse(options, words):
    with pytest.raises(ValueError, match=words):
        convolutional(**options)


@pytest.mark.parametrize("build", ["vgg5", "vgg10"])
def test_published_shapes_refuse(build):
    with pytest.raises(ValueError, match=r"pooled: layer \d+: pooling: windows of 2x2 do not divide"):
        getattr(PredictiveCodingNetwork, build)((28, 28, 1), 10, key=KEY, width=0.02)
    with pytest.raises(ValueError, match="width: wanted a positive finite number"):
        getattr(PredictiveCodingNetwork, build)((32, 32, 3), 10, key=KEY, width=-1.0)


def test_what_a_subclass_builds_is_that_subclass():
    class Own(PredictiveCodingNetwork):
        pass

    built = (
        Own.dense((4, 5, 3), key=KEY),
        Own.convolutional(IMAGE, (3,), (2,), key=KEY),
        Own.vgg5(key=KEY, width=0.01),
        Own.vgg10((32, 32, 1), 2, key=KEY, width=0.01),
        Own.for_task(3, 2, key=KEY),
    )
    assert [type(net) for net in built] == [Own] * 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"coupling": ()}, "coupling: wanted at least one layer"),
        ({"coupling": (*NET.coupling[:2], Dense(jnp.ones((4, 3))))}, "coupling 2: weight: wanted 5 rows"),
        ({"shape": (7,)}, "coupling 0: weight: wanted 7 rows"),
        ({"bias": NET.bias[:2]}, "bias: wanted one vector for each of the 3 layers, got 2"),
        ({"bias": (*NET.bias[:2], jnp.zeros(4))}, r"bias: wanted shape \(3,\) in layer 3, got \(4,\)"),
        ({"coupling": (*NET.coupling[:2], Dense(jnp.full((5, 3), jnp.nan)))}, "coupling: wanted finite numbers"),
        ({"bias": (*NET.bias[:2], jnp.full(3, jnp.inf))}, "bias: wanted finite numbers"),
        ({"skips": (Skip(jnp.ones((4, 6)), 0, 1),)}, "skips: wanted a target at least two layers after the source"),
        ({"skips": (Skip(jnp.ones((4, 4)), 0, 2),)}, r"skips: wanted a weight of shape \(4, 5\)"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(NET, **change)


def test_the_last_layer_is_read_and_must_be_dense():
    kernel = Convolution(jnp.ones((3, 3, 1, 1)))
    with pytest.raises(ValueError, match="coupling: wanted a Dense last layer"):
        PredictiveCodingNetwork((kernel,), (jnp.zeros(1),), shape=(4, 4, 1))


def test_a_skip_whose_stride_does_not_make_one_map_the_other_is_refused():
    net = convolutional(pooled=(2,), skips=((0, 2),))
    with pytest.raises(ValueError, match=r"a stride that makes \(8, 8, 2\) into \(4, 4, 4\), got .* stride 3"):
        dataclasses.replace(net, skips=(dataclasses.replace(net.skips[0], stride=3),))


@pytest.mark.parametrize("x", [[1.0, jnp.nan, 0.0, 0.0], [jnp.inf, 0.0, 0.0, 0.0]])
def test_inputs_that_are_not_finite_are_refused(x):
    with pytest.raises(ValueError, match="x: wanted finite inputs"):
        NET.relax(jnp.array(x))


@pytest.mark.parametrize(("net", "shape"), [(NET, (5,)), (NET, (2, 4)), (convolutional(), (8, 8, 1))])
def test_inputs_of_another_shape_are_refused(net, shape):
    with pytest.raises(ValueError, match="x: wanted shape"):
        net.relax(jnp.ones(shape))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: ErrorSweep(0), "sweeps: wanted None or a positive number"),
        (lambda: ProjectedGradient(-1), "sweeps: wanted None or a positive number"),
        (lambda: ProjectedGradient(rate=0.0), "rate: wanted a number above 0 and at most 1"),
        (lambda: ProjectedGradient(rate=1.5), "rate: wanted a number above 0 and at most 1"),
        (lambda: NET.relax(jnp.ones(4), Pin(jnp.ones(3)), solver=ProjectedGradient()), "cannot hold them at a pin"),
    ],
)
def test_solvers_refuse(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_even_and_odd_layers_cannot_take_turns_over_an_even_skip():
    net = convolutional(skips=((0, 2),))
    with pytest.raises(ValueError, match="skip connection from layer 0 to layer 2, which are updated together"):
        net.relax(jnp.ones(128), Nudge(SquaredError(), jnp.ones(3), 0.1), solver=ProjectedGradient())


# pictures


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_a_picture_shows_every_layer_beside_its_errors():
    x = jnp.array([0.5, -1.0, 2.0, 0.1])
    nudged = NET.relax(x, Nudge(SquaredError(), jnp.ones(3), 0.1))
    figure, ax = plt.subplots()
    assert NET.draw(nudged.state, x, ax) is ax
    captions = [text for text in texts(ax) if "nodes" in text]
    assert len(captions) == 7
    shown = [float(np.max(np.abs(c))) for pair in zip(nudged.state, NET.errors(nudged.state, x), strict=True)
             for c in pair]  # fmt: skip
    for caption, largest in zip(captions, [2.0, *shown], strict=True):
        assert f"{largest:.2g}" in caption
    plt.close(figure)


def test_a_free_picture_has_no_errors_and_a_bare_one_no_colours():
    free = NET.draw(x=jnp.ones(4))
    assert sum(text.endswith("$\\leq$ 0") for text in texts(free)) == 3
    bare = NET.draw()
    assert len(bare.figure.axes) == 1, "no colour bar"
    with pytest.raises(ValueError, match="x: wanted the input that belongs to the state"):
        NET.draw(NET.predict(jnp.ones(4)))
    plt.close("all")
