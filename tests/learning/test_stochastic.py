"""Stochastic equilibrium propagation on exact ensembles of spins, against sums over all configurations in numpy."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from learning import CrossEntropy, EquilibriumPropagation, FluctuationResponse, ImplicitGradient, SquaredError
from substrates import IsingModel
from theory_checks import SealedSubstrate

EDGES = np.array([(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (3, 4)])
X, Y = jnp.array([[0.8], [-0.5]]), jnp.array([[0.7, -0.4], [-0.2, 0.9]])
OUTPUTS = [2, 4]
run = eqx.filter_jit(lambda rule, system, x, y: rule(system, x, y))


def spins(seed):
    draw = np.random.default_rng(seed)
    coupling, field = 0.6 * draw.normal(size=6), 0.4 * draw.normal(size=5)
    return IsingModel.from_edges(EDGES, 5, coupling=coupling, field=field, inputs=[0], outputs=OUTPUTS)


def soft_gap(shown, target):
    """A cost that couples outputs and is curved in them."""
    return np.exp(shown[..., 0] * target[0] - shown[..., 1]) + 0.3 * (shown[..., 0] * shown[..., 1] - target[1]) ** 2


def soft_gap_in_jax(output, target):
    return jnp.exp(output[0] * target[0] - output[1]) + 0.3 * (output[0] * output[1] - target[1]) ** 2


def squared_error(shown, target):
    return 0.5 * np.sum((shown - target) ** 2, axis=-1)


COSTS = {"squared error": (SquaredError(), squared_error), "curved": (soft_gap_in_jax, soft_gap)}


class Summed:
    """One example of the spins: every configuration, its energy, what it shows and its dE/dtheta (J before h)."""

    def __init__(self, net, x, y, cost):
        s = np.array([(float(x[0]), *rest) for rest in itertools.product([-1.0, 1.0], repeat=4)])
        i, j = EDGES.T
        self.conjugate = np.concatenate([-s[:, i] * s[:, j], -s], axis=1)
        theta = np.concatenate([np.asarray(net.coupling.weight), np.asarray(net.field)])
        self.energy, self.shown = self.conjugate @ theta, s[:, OUTPUTS]
        self.cost = cost(self.shown, np.asarray(y))

    def p(self, temperature, beta=0.0):
        levels = -(self.energy + beta * self.cost) / temperature
        return np.exp(levels - logsumexp(levels))

    def free_energy(self, temperature, beta):
        return -temperature * logsumexp(-(self.energy + beta * self.cost) / temperature)


def over_batch(net, cost, function):
    return np.mean([function(Summed(net, x, y, cost)) for x, y in zip(X, Y, strict=True)], axis=0)


def as_vector(tree):
    return np.concatenate([np.asarray(tree.model.coupling.weight), np.asarray(tree.model.field)])


def moved(net, k, step):
    which, at = (lambda n: n.coupling.weight, k) if k < 6 else (lambda n: n.field, k - 6)
    return eqx.tree_at(which, net, which(net).at[at].add(step))


def slopes(net, loss, step=1e-4):
    """d loss/dtheta by differences of fourth order."""
    at = lambda k, h: loss(moved(net, k, h))
    one = lambda k: (8 * (at(k, step) - at(k, -step)) - (at(k, 2 * step) - at(k, -2 * step))) / (12 * step)
    return np.array([one(k) for k in range(11)])


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize(("beta", "temperature"), [(5.0, 0.7), (0.5, 2.0)])
def test_nudged_at_finite_beta_it_is_the_gradient_of_a_difference_of_free_energies(name, beta, temperature):
    cost, in_numpy = COSTS[name]
    net = spins(1)
    rule = EquilibriumPropagation(beta, "positive", cost)
    found = beta * as_vector(run(rule, net.ensemble(temperature), X, Y).gradient)
    exact = lambda e: e.p(temperature, beta) @ e.conjugate - e.p(temperature) @ e.conjugate
    wanted = over_batch(net, in_numpy, exact)
    np.testing.assert_allclose(found, wanted, atol=1e-12 * np.max(np.abs(wanted)), rtol=0)
    difference = lambda e: e.free_energy(temperature, beta) - e.free_energy(temperature, 0.0)
    np.testing.assert_allclose(found, slopes(net, lambda n: over_batch(n, in_numpy, difference)), atol=1e-9)


@pytest.mark.parametrize("name", COSTS)
def test_the_covariance_is_the_gradient_of_the_mean_cost(name):
    cost, in_numpy = COSTS[name]
    net, temperature = spins(2), 0.9
    found = FluctuationResponse(temperature, cost=cost)(net.ensemble(temperature), X, Y)
    mean_cost = lambda e: e.p(temperature) @ e.cost
    np.testing.assert_allclose(found.cost, over_batch(net, in_numpy, mean_cost), rtol=1e-13)
    np.testing.assert_allclose(
        as_vector(found.gradient), slopes(net, lambda n: over_batch(n, in_numpy, mean_cost)), atol=1e-9
    )
    np.testing.assert_allclose(
        found.output[0], Summed(net, X[0], Y[0], in_numpy).p(temperature) @ Summed(net, X[0], Y[0], in_numpy).shown
    )
    assert found.relaxations == len(found.equilibria) == 1


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.3, 3.0))
def test_a_weak_nudge_shows_the_covariance(seed, temperature):
    system = eqx.tree_at(lambda e: e.temperature, spins(seed).ensemble(1.0), jnp.asarray(temperature))
    wanted = as_vector(run(FluctuationResponse(jnp.asarray(temperature)), system, X, Y).gradient)
    found = as_vector(run(EquilibriumPropagation(1e-3), system, X, Y).gradient)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.max(np.abs(wanted)) / min(1, temperature) ** 2)


def test_three_losses_of_one_ensemble():
    """The mean cost by fluctuations and nudges; the cost of the mean output by tangent nudges and differentiation."""
    net, temperature = spins(4), 0.8
    system = net.ensemble(temperature)

    def cost_of_mean(net):
        examples = [Summed(net, x, y, soft_gap) for x, y in zip(X, Y, strict=True)]
        return np.mean([soft_gap(e.p(temperature) @ e.shown, np.asarray(y)) for e, y in zip(examples, Y, strict=True)])

    wanted = slopes(net, cost_of_mean)
    for rule, atol in (
        (ImplicitGradient(soft_gap_in_jax), 1e-8),
        (EquilibriumPropagation(1e-3, cost=soft_gap_in_jax, linearised=True), 1e-5),
    ):
        np.testing.assert_allclose(as_vector(run(rule, system, X, Y).gradient), wanted, atol=atol)
    mean_cost = as_vector(FluctuationResponse(temperature, cost=soft_gap_in_jax)(system, X, Y).gradient)
    assert np.max(np.abs(mean_cost - wanted)) > 0.05


def test_labels_and_sealed_boxes_are_taken():
    system, rule = spins(5).ensemble(1.1), FluctuationResponse(1.1, cost=CrossEntropy())
    outside = rule(SealedSubstrate(system), X, np.array([1, 0]), key=jax.random.key(0))
    inside = rule(system, X, jnp.array([[0.0, 1.0], [1.0, 0.0]]))
    for found, wanted in zip(jax.tree.leaves(outside.gradient), jax.tree.leaves(inside.gradient), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-13)


def test_samples_of_a_distribution_and_distributions_of_samples_are_refused():
    net = spins(0)
    with pytest.raises(ValueError, match=r"samples: wanted None, got 8; the state of BoltzmannEnsemble is the whole"):
        FluctuationResponse(1.0, samples=8)(net.ensemble(1.0), X, Y)
    with pytest.raises(ValueError, match="key: wanted a key, which draws the thermal samples, got None"):
        FluctuationResponse(1.0)(net.sampled(1.0, chains=1, draws=1), X, Y)
    with pytest.raises(ValueError, match=r"samples: wanted a whole number, at least 2 for a covariance, got 2.5"):
        FluctuationResponse(1.0, samples=2.5)
    with pytest.raises(TypeError, match="covariance: wanted a system whose state is a distribution, got IsingModel"):
        net.covariance(jnp.ones((2, 4)), X, None)
