"""What predictive coding networks learn: back-propagation's gradient, when it is exact, and how far off it is."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from learning import CrossEntropy, EquilibriumPropagation, ImplicitGradient, SquaredError, evaluate, fit, load_data
from substrates import Nudge, PredictiveCodingNetwork
from substrates.classical.predictive_coding.error_sweep import ErrorSweep
from substrates.classical.predictive_coding.projected_gradient import ProjectedGradient
from substrates.substrate import relax_batch
from theory_checks import SealedSubstrate, check_substrate

SIZES = (4, 6, 5, 5, 3)
seeds = st.integers(0, 2**31 - 1)

estimate = eqx.filter_jit(lambda rule, net, x, y, key=None: rule(net, x, y, key=key))
contrast = eqx.filter_jit(lambda net, plus, minus, xs, nudges: net.contrast(plus, minus, xs, nudges))
measure = eqx.filter_jit(lambda net, states, xs, nudges: net.measure(states, xs, nudges))


def network(seed, rectifier="buffered", sizes=SIZES, gain=1.7, solver=None, dtype=None):
    key = jax.random.key(seed)
    return PredictiveCodingNetwork.dense(
        sizes, key=key, gain=gain, rectifier=rectifier, solver=ErrorSweep() if solver is None else solver, dtype=dtype
    )


def examples(seed, batch=4, n=SIZES[0], outputs=3):
    x = jax.random.normal(jax.random.key(seed + 1), (batch, n))
    return x, jax.nn.one_hot(jnp.arange(batch) % outputs, outputs)


@eqx.filter_jit
def deltas(net, x, y, cost):
    """dC/da_k of a forward pass written here, for one example of a dense network."""

    def loss(moves):
        h = x
        for k, (coupling, bias, move) in enumerate(zip(net.coupling, net.bias, moves, strict=True), 1):
            a = h @ coupling.weight + bias + move
            h = jnp.maximum(a, 0) if k < len(net.coupling) else a
        return cost(h, y)

    return jax.grad(loss)([jnp.zeros_like(bias) for bias in net.bias])


@eqx.filter_jit
def backpropagation(net, x, y, cost):
    """The gradient by automatic differentiation of the free outputs; for dense networks from `deltas` instead."""

    def loss(net):
        return jnp.mean(jax.vmap(lambda x, y: cost(net.predict(x)[-1], y))(x, y))

    return jax.grad(loss)(net)


@eqx.filter_jit
def swept(net, x, y, solver, beta=1e-5):
    """The centred estimate from states that a solver has swept; a number of sweeps that is an array compiles once."""

    def state(sign):
        nudge = lambda y: Nudge(SquaredError(), y, sign * beta)
        return jax.vmap(lambda x, y: net.relax(x, nudge(y), solver=solver).state)(x, y)

    return jax.tree.map(lambda leaf: leaf / (2 * beta), net.contrast(state(1), state(-1), x))


def error(found, wanted):
    found, wanted = ravel_pytree(found)[0], ravel_pytree(wanted)[0]
    return float(jnp.linalg.norm(found - wanted) / jnp.linalg.norm(wanted))


# the identity with back-propagation


@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()])
@given(seed=seeds)
def test_errors_over_beta_are_minus_the_deltas(cost, seed):
    net, beta = network(seed), 1e-6
    (x,), (y,) = examples(seed, 1)
    free = relax_batch(net, x[None])
    nudge = Nudge(cost, y[None], jnp.asarray(beta))
    state = jax.tree.map(lambda leaf: leaf[0], relax_batch(net, x[None], nudge, free.state).state)
    wanted = deltas(net, x, y, cost)
    size = max(float(jnp.max(jnp.abs(delta))) for delta in wanted)
    for k, (eps, delta) in enumerate(zip(net.errors(state, x), wanted, strict=True), 1):
        awake = net.drives(state, x)[k - 1] > 0 if k < len(wanted) else True
        # with weights of size one, second derivatives are of order 10
        np.testing.assert_allclose(jnp.where(awake, eps / beta, 0), -delta, atol=1e-4 * size)


def test_the_gradient_is_the_outer_product_of_a_layers_error_and_the_activity_before_it():
    net, beta = network(3), 1e-6
    x, y = examples(3, 1)
    found = estimate(EquilibriumPropagation(beta), net, x, y).gradient
    wanted = deltas(net, x[0], y[0], SquaredError())
    before = [x[0], *net.predict(x[0])[:-1]]
    for k, delta in enumerate(wanted):
        np.testing.assert_allclose(found.bias[k], delta, atol=1e-7)
        np.testing.assert_allclose(found.coupling[k].weight, jnp.outer(before[k], delta), atol=1e-7)


def test_a_weight_sees_its_own_two_layers_only():
    net = network(3)
    x, y = examples(3)
    nudge = Nudge(SquaredError(), y, jnp.asarray(0.3))
    state = relax_batch(net, x, nudge).state
    moved = (*state[:2], state[2] + 1.0, state[3] - 1.0)
    here, there = measure(net, state, x, nudge), measure(net, moved, x, nudge)
    for k in (0, 1):
        np.testing.assert_array_equal(here.coupling[k].weight, there.coupling[k].weight)
    for k in (2, 3):
        assert jnp.max(jnp.abs(here.coupling[k].weight - there.coupling[k].weight)) > 0.1


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_published_sweeps_are_exact_after_as_many_as_there_are_layers_and_not_before(layers):
    sizes = (4, *(6, 5, 5)[: layers - 1], 3)
    net = network(5, "bounded", sizes)
    x, y = examples(5)
    exact = backpropagation(net, x, y, SquaredError())
    errors = [error(swept(net, x, y, ProjectedGradient(jnp.asarray(k))), exact) for k in range(1, layers + 3)]
    assert all(e > 1e-3 for e in errors[: layers - 1]), "before"
    assert all(e < 1e-7 for e in errors[layers - 1 :]), "after"


def test_a_convolutional_network_with_skips_keeps_the_law_of_sweeps():
    options = {"pooled": (1, 3), "skips": ((0, 3), (1, 4)), "gain": 1.5}
    net = PredictiveCodingNetwork.convolutional((8, 8, 2), (3, 4, 4, 3), (3,), key=jax.random.key(0), **options)
    x, y = examples(0, 3, 128)
    exact = backpropagation(net, x, y, SquaredError())
    assert error(swept(net, x, y, ErrorSweep(1)), exact) < 1e-6
    bounded = dataclasses.replace(net, rectifier="bounded")
    for sweeps, low, high in ((4, 1e-3, 1), (5, 0, 1e-6), (6, 0, 1e-6)):
        assert low <= error(swept(bounded, x, y, ProjectedGradient(jnp.asarray(sweeps))), exact) < high


def test_all_layers_at_once_never_find_the_gradient():
    net = network(7, gain=2.0)
    x, y = examples(7)
    exact = backpropagation(net, x, y, SquaredError())
    for sweeps in (4, 8, 16, 32, 64):
        together = ProjectedGradient(jnp.asarray(sweeps), synchronous=True)
        assert not error(swept(net, x, y, together), exact) < 0.05


# how far off the estimate is


@pytest.mark.parametrize(("variant", "order"), [("positive", 1), ("negative", 1), ("centered", 2)])
@pytest.mark.parametrize("solver", [ErrorSweep(), ErrorSweep(1)])
def test_the_bias_has_the_order_of_the_variant(variant, order, solver):
    net = network(2, solver=solver)
    x, y = examples(2)
    exact = backpropagation(net, x, y, CrossEntropy())
    rule = lambda beta: EquilibriumPropagation(jnp.asarray(beta), variant, CrossEntropy())
    errors = [error(estimate(rule(beta), net, x, y).gradient, exact) for beta in (4e-3, 2e-3, 1e-3)]
    np.testing.assert_allclose(np.diff(np.log2(errors)), -order, atol=0.05)


def test_back_propagation_is_the_response_of_the_equilibrium():
    net = network(2)
    x, y = examples(2)
    implicit = estimate(ImplicitGradient(CrossEntropy()), net, x, y).gradient
    assert error(implicit, backpropagation(net, x, y, CrossEntropy())) < 1e-10


def test_the_bounded_network_has_a_bias_of_first_order_and_no_smooth_response():
    # nodes asleep at zero, held by no force, answer to pulls upwards and not to pulls downwards
    net = network(2, "bounded")
    x, y = examples(2)
    exact = backpropagation(net, x, y, SquaredError())
    errors = [
        error(estimate(EquilibriumPropagation(jnp.asarray(beta)), net, x, y).gradient, exact) for beta in (4e-3, 1e-3)
    ]
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]) / 2, 1, atol=0.1)
    implicit = estimate(ImplicitGradient(strict=False), net, x, y).gradient
    assert error(implicit, exact) > 0.01


@pytest.mark.parametrize("variant", ["positive", "negative", "random"])
def test_one_nudged_state_is_enough(variant):
    net = network(4)
    x, y = examples(4)
    beta = -0.1 if variant == "negative" else 0.1
    found = estimate(EquilibriumPropagation(0.1, variant), net, x, y, jax.random.key(0))
    assert found.relaxations == 2, "the free one, which is a forward pass, and a nudged one"
    assert found.equilibria[0].steps.max() == 1
    nudge = Nudge(SquaredError(), y, jnp.asarray(beta))
    state = relax_batch(net, x, nudge, found.equilibria[0].state).state
    if variant != "random":
        single = jax.tree.map(lambda leaf: leaf / beta, measure(net, state, x, nudge))
        assert error(single, found.gradient) < 1e-12
        return
    up, down = (
        jnp.all(jnp.abs(found.equilibria[1].state[-1] - relax_batch(net, x, Nudge(SquaredError(), y, jnp.asarray(b)))
                        .state[-1]) < 1e-9, axis=1) for b in (0.1, -0.1)
    )  # fmt: skip
    assert jnp.all(up != down)
    assert up.any()
    assert down.any()


def test_float32_keeps_the_gradient_at_the_published_nudge():
    single = network(0, sizes=(32, 64, 64, 64, 10), gain=1.0, dtype=jnp.float32)
    double = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, single)
    x, y = examples(0, 8, 32, 10)
    for variant in ("positive", "centered"):
        rule = EquilibriumPropagation(0.02, variant)
        rounded = estimate(rule, single, x.astype(jnp.float32), y.astype(jnp.float32)).gradient
        exact = estimate(rule, double, x, y).gradient
        for a, b in zip(jax.tree.leaves(rounded), jax.tree.leaves(exact), strict=True):
            assert a.dtype == jnp.float32
            a, b = np.asarray(a, float).ravel(), np.asarray(b).ravel()
            assert a @ b > (1 - 1e-6) * np.linalg.norm(a) * np.linalg.norm(b)


# the laws, and learning


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", pytest.param("convolutional", marks=pytest.mark.slow)])
def test_it_obeys_the_laws(kind):
    if kind == "dense":
        net, (x, y), cost = network(0, sizes=(6, 8, 7, 3)), examples(0, 4, 6), SquaredError()
    else:
        net = PredictiveCodingNetwork.convolutional(
            (4, 4, 2), (3, 2), (5, 3), key=jax.random.key(0), gain=1.7, pooled=(1,), pooling="soft", skips=((0, 2),)
        )
        (x, y), cost = examples(0, 2, 32), CrossEntropy()
    report = check_substrate(net, x, y, cost=cost)
    report.raise_if_failed()
    assert sum(law.verdict == "holds" for law in report.laws) >= 15, str(report)


def test_it_trains_in_a_sealed_box():
    system = SealedSubstrate(network(1, sizes=(4, 6, 3)))
    x, y = examples(1, 8)
    rule, optimiser = EquilibriumPropagation(0.1, "random"), optax.sgd(0.1, momentum=0.9)

    @eqx.filter_jit
    def step(system, memory, key):
        found = rule(system, x, y, key=key)
        updates, memory = optimiser.update(found.gradient, memory)
        return eqx.apply_updates(system, updates), memory, found.cost

    memory, costs = optimiser.init(eqx.filter(system, eqx.is_inexact_array)), []
    for key in jax.random.split(jax.random.key(0), 150):
        system, memory, cost = step(system, memory, key)
        costs.append(float(cost))
    assert costs[-1] < 0.1 * costs[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_digits_by_default_settings(seed):
    digits = load_data("digits", seed=seed)
    net = PredictiveCodingNetwork.for_task(64, 10, key=jax.random.key(seed))
    net = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, net)
    defaults = net.training_defaults()
    steps = -(-len(digits.train[1]) // defaults["batch_size"])
    rate = optax.exponential_decay(defaults["learning_rate"], steps, defaults["decay"], staircase=True)
    run = fit(net, EquilibriumPropagation(defaults["beta"]), digits.train, optimiser=optax.adam(rate),
              epochs=defaults["epochs"], batch_size=defaults["batch_size"], key=jax.random.key(seed),
              progress=False)  # fmt: skip
    assert evaluate(run.substrate, digits.test).accuracy >= 0.97
