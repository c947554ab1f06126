"""ReLU perceptrons as circuits: the outputs agree to order gamma."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from substrates import ResistorNetwork
from substrates.substrate import relax_batch


def perceptron(sizes, seed=0):
    keys = jax.random.split(jax.random.key(seed), 2 * len(sizes))
    weights = [jax.random.normal(k, (m, n)) / m**0.5 for k, m, n in zip(keys, sizes[:-1], sizes[1:], strict=False)]
    biases = [jax.random.normal(k, (n,)) for k, n in zip(keys[len(sizes) :], sizes[1:], strict=False)]
    return weights, biases


def forward(weights, biases, xs):
    activations = [xs]
    for layer, (W, b) in enumerate(zip(weights, biases, strict=True)):
        z = activations[-1] @ W + b[None]
        activations.append(jax.nn.relu(z) if layer < len(weights) - 1 else z)
    return activations[1:]


@pytest.mark.parametrize("sizes", [(3, 10, 10, 2), (4, 6, 3)])
def test_error_falls_in_proportion_to_gamma(sizes):
    weights, biases = perceptron(sizes)
    xs = jax.random.normal(jax.random.key(5), (30, sizes[0]))
    wanted = forward(weights, biases, xs)
    errors = []
    for gamma in (1e-4, 1e-5, 1e-6):
        found = relax_batch(ResistorNetwork.from_relu(weights, biases, gamma), xs)
        assert jnp.all(found.converged)
        errors.append(float(jnp.max(jnp.abs(found.state[-1] - wanted[-1]))))
    np.testing.assert_allclose(np.array(errors[:-1]) / np.array(errors[1:]), 10, rtol=0.2)
    assert errors[-1] < 1e-3


def test_node_voltages_are_the_activations_of_both_signs():
    weights, biases = perceptron((3, 5, 2))
    xs = jax.random.normal(jax.random.key(5), (30, 3))
    hidden = forward(weights, biases, xs)[0]
    voltages = relax_batch(ResistorNetwork.from_relu(weights, biases, 1e-9), xs).state[0]
    np.testing.assert_allclose(voltages, jnp.concatenate([hidden, -hidden], axis=1), atol=1e-6)


def test_a_single_layer_is_exact():
    weights, biases = perceptron((4, 3))
    xs = jax.random.normal(jax.random.key(5), (10, 4))
    found = relax_batch(ResistorNetwork.from_relu(weights, biases, 0.5), xs).state[-1]
    np.testing.assert_allclose(found, forward(weights, biases, xs)[-1], rtol=1e-12, atol=1e-12)


def test_the_unfolded_circuit_computes_the_same():
    weights, biases = perceptron((3, 4, 2))
    net = ResistorNetwork.from_relu(weights, biases, 1e-3)
    x = jnp.array([0.3, -1.0, 0.7])
    circuit = net.to_circuit()
    np.testing.assert_allclose(circuit.read(circuit.relax(x).state, x), net.read(net.relax(x).state, x), atol=1e-9)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w, b: (w, b, 1.0), "gamma"),
        (lambda w, b: (w, b, 0.0), "gamma"),
        (lambda w, b: (w[:1], b, 0.1), "weights, biases"),
        (lambda w, b: ([w[0], w[0]], b, 0.1), r"weights\[1\]"),
        (lambda w, b: (w, [b[0], b[0]], 0.1), r"biases\[1\]"),
        (lambda w, b: ([w[0].at[0, 0].set(jnp.nan), w[1]], b, 0.1), "finite"),
    ],
)
def test_what_is_no_perceptron_is_refused_by_name(change, named):
    weights, biases = perceptron((3, 4, 2))
    with pytest.raises(ValueError, match=named):
        ResistorNetwork.from_relu(*change(weights, biases))
