"""Deep predictive coding networks, whose equal layers are one part of the program, against layer by layer."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from learning import SquaredError
from substrates import Nudge, Pin, PredictiveCodingNetwork
from substrates.classical.predictive_coding import Skip, stacks
from substrates.classical.predictive_coding.error_sweep import ErrorSweep
from substrates.classical.predictive_coding.projected_gradient import ProjectedGradient
from substrates.wiring import Convolution, Dense


class Plain(PredictiveCodingNetwork):
    """Layer by layer, as every subclass is."""


DEEP = (2, *[3] * 5, *[4] * 5, 5, 2)
"""Two runs of four equal layers, 2 to 5 and 7 to 10, between layers of other sizes."""

SKIPS = ((0, 6), (1, 6), (6, 11))
"""Past the runs."""


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    """Small networks compile faster layer by layer, and slow tests find nothing more."""
    monkeypatch.setattr(stacks, "FEWEST", 3)
    monkeypatch.setattr(stacks, "TOGETHER", 3)


relax = eqx.filter_jit(lambda net, x, nudge, start, solver: net.relax(x, nudge, start, solver=solver))


@eqx.filter_jit
def asked(net, state, x):
    states, xs = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), (state, x))
    return (
        net.energy(state, x), net.drives(state, x), net.errors(state, x), net.predict(x), net.force(state, x),
        net.force_scale(state, x), net.bounds(x), jax.tree.leaves(net.measure(states, xs)),
        jax.tree.leaves(eqx.filter_grad(lambda net: net.energy(state, x))(net)),
    )  # fmt: skip


def plain(net):
    fields = {field.name: getattr(net, field.name) for field in dataclasses.fields(net)}
    return Plain(**fields)


def network(seed=0, rectifier="buffered", skips=()):
    net = PredictiveCodingNetwork.dense(DEEP, key=jax.random.key(seed), gain=1.7, rectifier=rectifier)
    drawn = [
        Skip(0.3 * jax.random.normal(jax.random.key(k), (DEEP[a], DEEP[b])), a, b) for k, (a, b) in enumerate(skips)
    ]
    return dataclasses.replace(net, skips=tuple(drawn))


def lengths(net):
    return [len(c.weight) for c in net.stacked().coupling if isinstance(c, stacks.Stack)]


def same(found, wanted, rtol=1e-12):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(jnp.max(jnp.abs(b), initial=0)))


def test_what_is_stacked():
    assert lengths(network()) == [4, 4]
    assert lengths(plain(network())) == []
    # a skip connection enters or leaves single layers only
    assert lengths(network(skips=SKIPS)) == [4, 4]
    assert [(skip.source, skip.target) for skip in network(skips=SKIPS).stacked().skips] == [(0, 3), (1, 3), (3, 5)]
    assert lengths(network(skips=((0, 2),))) == [3, 4]
    assert lengths(network(skips=((1, 4),))) == [4]
    shallow = PredictiveCodingNetwork.dense([3] * 5, key=jax.random.key(0))
    assert shallow.stacked() is shallow, "layers 2 and 3 are but two"
    dense = tuple(Dense(jnp.eye(4)) for _ in range(5))
    maps = PredictiveCodingNetwork(
        (Convolution(jnp.ones((3, 3, 1, 1))), *dense), tuple(jnp.zeros(n) for n in (1, 4, 4, 4, 4, 4)), shape=(2, 2, 1)
    )
    assert lengths(maps) == [3], "the first dense layer sees maps, and the last one is read"


@given(st.integers(1, 20), st.integers(1, 3))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_joined_is_separated(layers, nodes):
    parts = [k + jnp.arange(float(nodes)) for k in range(layers)]
    for found, wanted in zip(stacks.separated(stacks.joined(parts)), parts, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("rectifier", "skips"), [("buffered", ()), ("bounded", SKIPS)])
def test_everything_asked_is_what_it_is_layer_by_layer(rectifier, skips):
    net, x = network(1, rectifier, skips), jnp.array([0.7, -0.4])
    keys = jax.random.split(jax.random.key(5), len(DEEP))
    state = tuple(jax.random.normal(key, (n,)) for key, n in zip(keys[1:], DEEP[1:], strict=True))
    same(asked(net, state, x), asked(plain(net), state, x))


@pytest.mark.parametrize(
    ("rectifier", "skips", "solver", "acting"),
    [
        ("buffered", SKIPS, ErrorSweep(), "nothing"),
        ("buffered", SKIPS, ErrorSweep(), "nudge"),
        ("buffered", (), ErrorSweep(), "pin"),
        ("bounded", SKIPS, ErrorSweep(2), "nudge"),
        ("free", (), ErrorSweep(1), "pin"),
        ("bounded", ((1, 6), (6, 11)), ProjectedGradient(len(DEEP) - 1), "nudge"),
        ("buffered", (), ProjectedGradient(), "nudge"),
        ("bounded", SKIPS, ProjectedGradient(3, modified=False, rate=0.5, synchronous=True), "nudge"),
    ],
)
def test_it_settles_where_it_does_layer_by_layer(rectifier, skips, solver, acting):
    net, x = network(2, rectifier, skips), jnp.array([0.7, -0.4])
    assert lengths(net) == [4, 4]
    shown, start = net.predict(x)[-1], net.predict(0.9 * x)
    nudges = {
        "nothing": [None],
        "nudge": [Nudge(SquaredError(), shown + 0.3, jnp.asarray(beta)) for beta in (0.05, -0.05, 0.0)],
        "pin": [Pin(shown + 1e-3)],
    }
    for nudge in nudges[acting]:
        found, wanted = (relax(each, x, nudge, start, solver) for each in (net, plain(net)))
        assert found.status == wanted.status
        assert found.steps == wanted.steps
        same(found.state, wanted.state)
        # what is left over of small differences
        np.testing.assert_allclose(found.residual, wanted.residual, rtol=1e-6, atol=1e-13)
        np.testing.assert_allclose(found.energy, wanted.energy, rtol=1e-9, atol=1e-16)
