"""Oscillators learn: gradients against finite differences, the conformance kit, a sealed box, XOR, digits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning import (
    CrossEntropy,
    EquilibriumPropagation,
    ImplicitGradient,
    PhaseCost,
    SquaredError,
    evaluate,
    fit,
    load_data,
)
from learning.rule import ConvergenceError
from substrates import Nudge, OscillatorNetwork
from substrates.substrate import relax_batch
from theory_checks import SealedSubstrate, check_substrate

run = eqx.filter_jit(lambda rule, *arguments: rule(*arguments))
XOR = jnp.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]) * jnp.pi / 2
PARITY = jnp.array([[-1.0], [1.0], [1.0], [-1.0]]) * jnp.pi / 2
GRAPH = [(0, 1), (0, 3), (1, 2), (1, 4), (2, 3), (2, 5), (3, 4), (4, 5), (0, 5), (3, 6), (5, 6)]
ANY = OscillatorNetwork.from_edges(
    GRAPH,
    inputs=[0, 1],
    outputs=[5, 6],
    references={2: 0.4},
    coupling=jax.random.normal(jax.random.key(0), (11,)),
    field=0.6,
    field_phase=jax.random.normal(jax.random.key(1), (7,)),
    second_harmonic=0.2,
    frequency=0.1,
)
XS = jax.random.uniform(jax.random.key(2), (3, 2), minval=-2.0, maxval=2.0)
YS = jax.random.uniform(jax.random.key(3), (3, 2), minval=-1.0, maxval=1.0)


# the cost


@given(st.floats(-9, 9), st.floats(-3, 3), st.floats(0.01, 1.0))
def test_phase_cost_pulls_by_its_own_slope_and_is_periodic(output, target, softening):
    cost, d = PhaseCost(softening), output - target
    value = cost(jnp.array([output]), jnp.array([target]))
    np.testing.assert_allclose(value, np.log((2 + softening) / (1 + softening + np.cos(d))), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(cost(jnp.array([output + 2 * np.pi]), jnp.array([target])), value, atol=1e-9)
    assert value >= -1e-12
    nudge = Nudge(cost, jnp.array([target]), 0.7)
    pull = -0.7 * np.sin(d) / (1 + softening + np.cos(d))
    np.testing.assert_allclose(nudge.pull(jnp.array([output])), [pull], rtol=1e-9, atol=1e-12)
    assert abs(pull) <= 0.7 / np.sqrt(2 * softening + softening**2) + 1e-12
    hard = np.log(2 / (1 + np.cos(d)))  # e = 0, the published cost, where it is finite
    if abs(np.cos(d) + 1) > 0.1:
        np.testing.assert_allclose(PhaseCost(1e-9)(jnp.array([output]), jnp.array([target])), hard, atol=1e-7)


# gradients


@pytest.mark.slow
def test_a_graph_with_everything_obeys_every_law():
    check_substrate(ANY, XS, YS, cost=PhaseCost()).raise_if_failed()


@pytest.mark.slow
@pytest.mark.parametrize("readout", ["phase", "sine"])
def test_layers_obey_every_law(readout):
    net = OscillatorNetwork.layered(
        (2, 6, 5, 2), key=jax.random.key(4), field=0.3, field_phase=0.5, second_harmonic=0.1, readout=readout
    )
    check_substrate(net, XS, YS).raise_if_failed()


@pytest.mark.parametrize(
    "cost",
    [pytest.param(SquaredError(), id="squared"), pytest.param(CrossEntropy(), id="entropy", marks=pytest.mark.slow)],
)
def test_gradient_is_that_of_the_loss(cost):
    net = OscillatorNetwork.layered(
        (2, 6, 5, 2), key=jax.random.key(4), field=0.3, field_phase=0.5, second_harmonic=0.1, readout="sine"
    )
    targets = jax.nn.softmax(YS)

    @eqx.filter_jit
    def loss(net):
        return jnp.mean(jax.vmap(lambda s, x, y: cost(net.read(s, x), y))(relax_batch(net, XS).state, XS, targets))

    gradient = run(EquilibriumPropagation(1e-3, cost=cost), net, XS, targets).gradient
    for where in (
        lambda n: n.coupling[0].weight,
        lambda n: n.coupling[2].weight,
        lambda n: n.field[0],
        lambda n: n.field_phase[1],
        lambda n: n.second_harmonic[2],
    ):
        direction = jax.random.normal(jax.random.key(9), where(net).shape)
        up, down = (loss(eqx.tree_at(where, net, where(net) + h * direction)) for h in (1e-6, -1e-6))
        np.testing.assert_allclose(jnp.sum(where(gradient) * direction), (up - down) / 2e-6, rtol=2e-4, atol=1e-8)


@pytest.mark.slow
def test_one_sided_bias_is_linear_in_beta_and_centred_quadratic():
    exact = run(ImplicitGradient(cost=PhaseCost()), ANY, XS, YS).gradient
    size = optax.tree_utils.tree_norm(exact)

    def errors(variant):
        rule = EquilibriumPropagation(jnp.array(1.0), variant, PhaseCost())
        found = [
            run(eqx.tree_at(lambda r: r.beta, rule, jnp.asarray(b)), ANY, XS, YS).gradient for b in (0.04, 0.02, 0.01)
        ]
        return [float(optax.tree_utils.tree_norm(jax.tree.map(jnp.subtract, f, exact)) / size) for f in found]

    one_sided, centred = errors("positive"), errors("centered")
    np.testing.assert_allclose(np.log2(np.divide(one_sided[:-1], one_sided[1:])), 1, atol=0.15)
    np.testing.assert_allclose(np.log2(np.divide(centred[:-1], centred[1:])), 2, atol=0.15)
    assert centred[-1] < 1e-3


def test_a_box_that_shows_its_outputs_only_gives_the_same_gradient():
    rule = EquilibriumPropagation(0.05, cost=PhaseCost())
    outside, inside = run(rule, SealedSubstrate(ANY), XS, YS), run(rule, ANY, XS, YS)
    for found, wanted in zip(jax.tree.leaves(outside.gradient), jax.tree.leaves(inside.gradient), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.slow
def test_float32_gradients_keep_their_direction():
    net = OscillatorNetwork.layered((64, 40, 10), key=jax.random.key(0), phase_range=(-1.5, 1.5), readout="sine")
    xs, targets = jax.random.uniform(jax.random.key(1), (8, 64)), jax.nn.one_hot(jnp.arange(8), 10)
    cast = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, tree)
    rule = EquilibriumPropagation(beta=0.1)
    exact = run(rule, net, xs, targets).gradient.coupling[0].weight
    single = run(rule, *cast((net, xs, targets))).gradient.coupling[0].weight
    assert single.dtype == jnp.float32
    cosine = jnp.vdot(exact, single.astype(float)) / jnp.linalg.norm(exact) / jnp.linalg.norm(single.astype(float))
    assert cosine > 0.9999


def test_no_array_holds_every_example_of_every_coupling():
    net = OscillatorNetwork.layered((7, 11, 3), key=jax.random.key(0))
    rule = EquilibriumPropagation(beta=0.1, strict=False)
    program = str(eqx.filter_make_jaxpr(rule)(net, jnp.ones((5, 7)), jnp.ones((5, 3)))[0])
    assert "5,7,11]" not in program
    assert "5,11,3]" not in program


def test_natural_frequencies_learn_from_phases_alone():
    """dL/domega_i = -dphi_i/dbeta: the change of the oscillator's own phase, against differences of the loss."""
    x, y, beta = XS[0], YS[0], 1e-3
    settled = lambda net, nudge=None: net.relax(x, nudge, free)
    free = ANY.relax(x).state
    plus, minus = (settled(ANY, Nudge(PhaseCost(), y, jnp.asarray(b))).state for b in (beta, -beta))
    found = run(EquilibriumPropagation(beta, cost=PhaseCost()), ANY, x[None], y[None]).gradient.frequency
    moved = (ANY.phases(plus, x) - ANY.phases(minus, x)) / (2 * beta)
    np.testing.assert_allclose(found, -moved, atol=1e-10)

    def loss(step, e):
        net = eqx.tree_at(lambda n: n.frequency, ANY, ANY.frequency + step * e)
        return float(PhaseCost()(net.read(settled(net).state, x), y))

    slopes = [(loss(1e-4, e) - loss(-1e-4, e)) / 2e-4 for e in np.eye(7)]
    np.testing.assert_allclose(found, slopes, rtol=1e-4, atol=1e-7)
    assert np.count_nonzero(slopes) == 4  # those that settle


def test_nothing_is_learned_from_oscillators_that_drift():
    pair = OscillatorNetwork.from_edges([(0, 1)], coupling=1.0, references={0: 0.0}, outputs=[1], frequency=[0.0, 1.5])
    with pytest.raises(ConvergenceError, match="1 of 1 free equilibria"):
        EquilibriumPropagation(0.1)(pair, jnp.zeros((1, 0)), jnp.zeros((1, 1)))


@pytest.mark.slow
def test_every_equilibrium_of_the_digits_converges_in_float32():
    """Sweeps of large systems must not stop at what the last blocks felt before the others had turned."""
    with jax.enable_x64(False):
        digits = load_data("digits", seed=0)
        images, labels = jnp.asarray(digits.train[0], jnp.float32), jnp.asarray(digits.train[1])
        for seed in range(2):
            net = OscillatorNetwork.for_task(digits.n_inputs, digits.n_outputs, key=jax.random.key(seed))
            found = EquilibriumPropagation(0.5, strict=False)(net, images, jax.nn.one_hot(labels, 10))
            assert int(found.unconverged) == 0


# training


@pytest.mark.slow
def test_oscillators_learn_xor():
    """Five oscillators, all coupled: two inputs at phases -pi/2 or pi/2, three that settle, one of them read."""
    keys = jax.random.split(jax.random.key(5))
    net = OscillatorNetwork.all_to_all(
        5,
        coupling=jax.random.normal(keys[0], (10,)),
        inputs=[0, 1],
        outputs=[4],
        field=0.5,
        field_phase=jax.random.uniform(keys[1], (5,), minval=-3.0, maxval=3.0),
    )
    rule = EquilibriumPropagation(0.1, cost=PhaseCost())
    data, key = (XOR, PARITY), jax.random.key(0)
    trained = fit(net, rule, data, optimiser=optax.adam(0.03), epochs=120, key=key, progress=False).substrate
    shown = relax_batch(trained, XOR)
    assert jnp.all(shown.converged)
    outputs = jax.vmap(trained.read)(shown.state, XOR)
    assert jnp.all(jnp.sin(outputs) * jnp.sign(PARITY) > 0.95)


@pytest.mark.slow
def test_oscillators_read_digits():
    with jax.enable_x64(False):
        digits = load_data("digits", seed=0)
        net = OscillatorNetwork.for_task(digits.n_inputs, digits.n_outputs, key=jax.random.key(0))
        defaults = net.training_defaults()
        trained = fit(
            net,
            EquilibriumPropagation(defaults["beta"]),
            digits.train,
            optimiser=optax.adam(defaults["learning_rate"]),
            epochs=15,
            batch_size=defaults["batch_size"],
            key=jax.random.key(1),
            progress=False,
        ).substrate
        accuracy = evaluate(trained, digits.test).accuracy
        assert accuracy is not None
        assert accuracy > 0.95
