"""Feed-forward starts of Hopfield networks: where they are the equilibrium, what they leave over, and no more."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates import HopfieldNetwork, SmoothHopfieldNetwork
from substrates.classical.hopfield.layers import chain_is_convex

KEY = jax.random.key(0)


def chain(*weights):
    """Single units in a row."""
    net = HopfieldNetwork.layered((1,) * (len(weights) + 1), key=KEY)
    return eqx.tree_at(lambda n: [c.weight for c in n.coupling], net, [jnp.full((1, 1), w) for w in weights])


def test_an_auto_encoder_starts_at_its_equilibrium():
    """s = a x + w o and o = w s agree from both sides where w^2 = 1/2: then s = 2 a x."""
    net, x = chain(0.2, 0.5**0.5), jnp.ones(1)
    start = net.feed_forward(x, doubled=True)
    np.testing.assert_allclose(jnp.concatenate(start), [0.4, 0.4 * 0.5**0.5], rtol=1e-14)
    np.testing.assert_allclose(net.disagreement(start, x), [0.0], atol=1e-15)
    assert float(net.residual(start, x)) < 1e-14
    np.testing.assert_array_equal(jnp.concatenate(net.warm_start(x)), jnp.concatenate(start))
    cold, warm = net.relax(x), net.relax(x, start=net.warm_start(x))
    assert int(warm.steps) < int(cold.steps)


def test_disagreement_is_what_both_sides_send():
    """By hand in a chain of three: up 0.3 x = 0.3, then 0.8 s_1; down 0.8 s_2, then -0.5 o."""
    net, x = chain(0.3, 0.8, -0.5), jnp.ones(1)
    state = jnp.array([0.6]), jnp.array([0.1]), jnp.array([0.7])
    np.testing.assert_allclose(net.disagreement(state, x), [abs(0.3 - 0.08), abs(0.48 + 0.35)], rtol=1e-14)


def test_without_feedback_of_the_same_size_the_plain_pass_is_better():
    net, x = chain(0.2, 0.1), jnp.ones(1)
    np.testing.assert_array_equal(jnp.concatenate(net.warm_start(x)), jnp.concatenate(net.initial_state(x)))
    assert float(net.disagreement(net.warm_start(x), x)[0]) > 0.15


@pytest.mark.parametrize("kind", [HopfieldNetwork, SmoothHopfieldNetwork])
@given(seed=st.integers(0, 1000))
@settings(max_examples=5)
def test_a_warm_start_never_changes_the_equilibrium_of_a_convex_network(kind, seed):
    net = kind.layered((3, 5, 4, 2), key=jax.random.key(seed), gain=(1.0, 0.5, 0.5))
    assert bool(chain_is_convex(net.coupling[1:], 1.0, net.unit.stiffness))
    x = jax.random.uniform(jax.random.key(seed + 1), (3,))
    wanted = net.relax(x)
    for start in (net.warm_start(x), net.feed_forward(x, doubled=True)):
        found = net.relax(x, start=start)
        assert bool(found.converged)
        for one, other in zip(found.state, wanted.state, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-9)


def test_images_start_by_a_pass_too():
    """The layers of maps hear the same from a doubled pass as twice from a plain one."""
    net = HopfieldNetwork.convolutional((4, 4, 2), (3,), 2, key=KEY, pooling="average")
    x = jax.random.uniform(KEY, (4, 4, 2))
    plain, doubled = net.feed_forward(x), net.feed_forward(x, doubled=True)
    np.testing.assert_allclose(doubled[0], jnp.clip(2 * net.coupling[0].forward(x), 0, 1), atol=1e-14)
    np.testing.assert_allclose(plain[0], jnp.clip(net.coupling[0].forward(x), 0, 1), atol=1e-14)
    assert len(net.disagreement(plain, x)) == 1
