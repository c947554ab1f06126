"""Costs: values and pulls against closed forms, and their analytic continuation."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from learning import CrossEntropy, NegativeLogLikelihood, SquaredError
from substrates import Nudge

numbers = st.lists(st.floats(-20, 20), min_size=4, max_size=4).map(jnp.array)
classes = st.integers(0, 3).map(lambda k: jnp.eye(4)[k])


@given(numbers, numbers)
def test_squared_error_pulls_like_a_spring(output, target):
    nudge = Nudge(SquaredError(), target, 0.7)
    np.testing.assert_allclose(nudge.energy(output), 0.35 * np.sum((output - target) ** 2), rtol=1e-13)
    np.testing.assert_allclose(nudge.pull(output), 0.7 * (target - output), rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(nudge.stiffness(output), np.full(4, 0.7), rtol=1e-13)


@given(numbers, classes)
def test_cross_entropy_pulls_towards_the_label_and_away_from_the_softmax(output, target):
    nudge = Nudge(CrossEntropy(), target, 0.7)
    share = scipy.special.softmax(output)
    wanted = -np.sum(target * scipy.special.log_softmax(output))
    np.testing.assert_allclose(CrossEntropy()(output, target), wanted, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(nudge.pull(output), 0.7 * (target - share), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(nudge.curvature(output), 0.7 * (np.diag(share) - np.outer(share, share)), atol=1e-12)


@given(numbers, classes)
def test_negative_log_likelihood_is_the_cross_entropy_of_a_softmax_in_its_probabilities(output, target):
    share = scipy.special.softmax(output)
    nudge = Nudge(NegativeLogLikelihood(), target, 0.7)
    np.testing.assert_allclose(nudge.energy(share), 0.7 * CrossEntropy()(output, target), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(nudge.pull(share), 0.7 * target / share, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(nudge.stiffness(share), 0.7 * target / share**2, rtol=1e-12, atol=1e-14)


def test_cross_entropy_survives_large_outputs_in_float32():
    cost = CrossEntropy()(jnp.array([500.0, -500.0, 0.0], jnp.float32), jnp.array([0.0, 1.0, 0.0], jnp.float32))
    assert cost.dtype == jnp.float32
    np.testing.assert_allclose(cost, 1000.0)


def test_costs_continue_analytically():
    output, target, step = jnp.array([0.3, -0.8, 1.1]), jnp.array([0.0, 1.0, 0.0]), 1e-6
    for cost in (SquaredError(), CrossEntropy()):
        aside = jax.lax.complex(output, jnp.array([step, 0.0, 0.0]))
        value = cost(aside, jax.lax.complex(target, jnp.zeros(3)))
        np.testing.assert_allclose(value.imag / step, jax.grad(cost)(output, target)[0], rtol=1e-9)
        np.testing.assert_allclose(value.real, cost(output, target), rtol=1e-9)
