"""Jacobian homeostasis, holomorphic rules without an energy, and what is recorded, against matrices in numpy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learning import (
    EquilibriumPropagation,
    HolomorphicEP,
    ImplicitGradient,
    JacobianHomeostasis,
    SquaredError,
    Tracking,
    alignment,
    fit,
    homeostatic_loss,
    symmetry,
)
from learning.reference import response_gradient
from substrates import (
    AdjointResponse,
    IsingModel,
    Nudge,
    PredictiveCodingCircuit,
    RecurrentNetwork,
    SmoothHopfieldNetwork,
)
from substrates.readout import LinearReadout
from substrates.substrate import relax_batch
from theory_checks import SealedSubstrate

KEY = jax.random.key(0)
XS, YS = jnp.array([[0.8, -0.5, 0.3], [-0.2, 0.4, 0.9]]), jnp.array([[0.4, -0.9], [0.1, 0.5]])
NET = RecurrentNetwork.layered((3, 4, 3, 2), key=KEY, gain=1.5, activation="tanh")
STATES = relax_batch(NET, XS).state
JACOBIANS = [np.asarray(NET.jacobian(jax.tree.map(lambda leaf, i=i: leaf[i], STATES), XS[i])) for i in (0, 1)]


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def apart(found, wanted):
    return np.linalg.norm(flat(found) - flat(wanted)) / np.linalg.norm(flat(wanted))


def test_the_loss_is_the_antisymmetric_part_of_the_jacobian():
    odd = [np.sum(((j - j.T) / 2) ** 2) for j in JACOBIANS]
    even = [np.sum(((j + j.T) / 2) ** 2) for j in JACOBIANS]
    np.testing.assert_allclose(homeostatic_loss(NET, STATES, XS), 2 * np.mean(odd) / 9, rtol=1e-12)
    wanted = np.mean([s**0.5 / (s**0.5 + a**0.5) for s, a in zip(even, odd, strict=True)])
    np.testing.assert_allclose(symmetry(NET, STATES, XS), wanted, rtol=1e-12)
    drawn = jax.vmap(lambda key: homeostatic_loss(NET, STATES, XS, key=key, probes=5))(jax.random.split(KEY, 2000))
    error = np.std(drawn) / 2000**0.5
    assert error < 0.02 * np.mean(odd)
    np.testing.assert_allclose(np.mean(drawn), 2 * np.mean(odd) / 9, atol=4 * error)
    np.testing.assert_allclose(symmetry(NET, STATES, XS, key=KEY, probes=20000), wanted, rtol=0.01)


def test_the_penalty_has_the_slope_of_its_loss_at_fixed_states():
    rule = EquilibriumPropagation(0.1)
    more, plain = JacobianHomeostasis(rule, 3.0, probes=4000)(NET, XS, YS, key=KEY), rule(NET, XS, YS, key=KEY)
    slope = jax.tree.map(lambda a, b: (a - b) / 3.0, more.gradient, plain.gradient)
    exact = jax.grad(lambda net: homeostatic_loss(net, STATES, XS))(NET)
    assert apart(slope, exact) < 0.1
    assert more.cost == plain.cost


def test_homeostasis_alone_makes_a_jacobian_symmetric_and_the_gradient_true():
    net, judge = NET, Tracking(EquilibriumPropagation(1e-3), XS, YS)
    before = judge(net)
    slope = eqx.filter_jit(jax.grad(lambda net: homeostatic_loss(net, relax_batch(NET, XS).state, XS)))
    for _ in range(200):
        net = jax.tree.map(lambda p, g: p - 0.5 * g, net, slope(net))
    after = judge(net)
    assert before["cosine"] < 0.95
    assert after["homeostatic_loss"] < 0.02 * before["homeostatic_loss"]
    assert after["symmetry"] > 0.9 > before["symmetry"]
    assert after["cosine"] > 0.99
    np.testing.assert_allclose(np.cos(np.radians(after["angle"])), after["cosine"], rtol=1e-12)


def test_systems_with_an_energy_are_left_alone():
    net = SmoothHopfieldNetwork.layered((3, 4, 2), key=KEY)
    rule = EquilibriumPropagation(0.1)
    found, plain = JacobianHomeostasis(rule, 3.0)(net, XS, YS, key=KEY), rule(net, XS, YS, key=KEY)
    np.testing.assert_allclose(flat(found.gradient), flat(plain.gradient), atol=1e-12)


@pytest.mark.slow
def test_holomorphic_nudges_leave_the_bias_of_asymmetry_and_the_repair_removes_that():
    """Halving the radius divides what is left by 2^N; what remains is the vector-field formula, or nothing."""
    formula = response_gradient(NET, STATES, XS, YS, SquaredError(), transpose=False)[0]
    exact = ImplicitGradient()(NET, XS, YS).gradient
    assert apart(formula, exact) > 0.1
    for system, wanted in ((NET, formula), (AdjointResponse(NET), exact)):
        for points in (4, 6):
            errors = [
                apart(HolomorphicEP(jnp.asarray(r), points)(system, XS, YS).gradient, wanted) for r in (0.1, 0.05)
            ]
            assert abs(np.log2(errors[0] / errors[1]) - points) < 0.2 * points


def test_two_points_are_the_centred_difference_and_a_sealed_network_gives_the_same():
    two, centred = HolomorphicEP(0.2, 2)(NET, XS, YS), EquilibriumPropagation(0.2)(NET, XS, YS)
    np.testing.assert_array_equal(flat(two.gradient), flat(centred.gradient))
    net = RecurrentNetwork.layered((3, 4, 2), key=KEY, gain=1.5, activation="tanh")
    sealed = HolomorphicEP(0.2, 3)(SealedSubstrate(net), XS, YS)
    np.testing.assert_allclose(flat(sealed.gradient), flat(HolomorphicEP(0.2, 3)(net, XS, YS).gradient), rtol=1e-12)


def test_what_is_measured_of_moved_states():
    """With an energy that is `measure`; without, its change is the contrast about the free state, with a read-out's."""
    hopfield = SmoothHopfieldNetwork.layered((3, 4, 2), key=KEY)
    states = relax_batch(hopfield, XS).state
    moved = jax.tree.map(lambda u: u + 0.1, states)
    np.testing.assert_array_equal(flat(hopfield.measure_from(states, moved, XS)), flat(hopfield.measure(moved, XS)))
    net = LinearReadout(NET, jnp.array([[0.5, -0.3], [0.2, 0.9]]))
    nudge = Nudge(SquaredError(), YS, jnp.asarray(0.1))
    step = jax.tree.map(lambda u: 1e-6 * jax.random.normal(KEY, u.shape), STATES)
    plus, minus = (jax.tree.map(lambda u, d, s=s: u + s * d, STATES, step) for s in (1, -1))
    found = jax.tree.map(
        jnp.subtract, net.measure_from(STATES, plus, XS, nudge), net.measure_from(STATES, minus, XS, nudge)
    )
    wanted = net.contrast(plus, minus, XS, nudge, nudge)
    np.testing.assert_allclose(flat(found), flat(wanted), atol=1e-13)
    assert np.linalg.norm(found.weight) > 1e-8


@pytest.mark.parametrize("angle", [0.0, 90.0])
def test_error_neurons_learn_by_feedback_alignment_which_is_backpropagation_where_weights_are_tied(angle):
    net = PredictiveCodingCircuit.layered((3, 5, 4, 2), key=KEY, angle=angle, gain=1.5)
    found = EquilibriumPropagation(1e-4)(net, XS, YS)
    weights, back = [np.asarray(w.weight) for w in net.forward], [np.asarray(b.weight) for b in net.feedback]
    sent, felt = [np.asarray(XS)], []
    for w in weights:
        felt.append(sent[-1] @ w)
        sent.append(np.tanh(felt[-1]))
    delta = felt[-1] - np.asarray(YS)
    for k in (2, 1, 0):
        np.testing.assert_allclose(found.gradient.forward[k].weight, sent[k].T @ delta / 2, atol=1e-7)
        delta = delta @ back[k - 1].T / np.cosh(felt[k - 1]) ** 2 if k else delta
    np.testing.assert_allclose(flat(found.gradient.feedback), 0, atol=1e-7)
    exact = ImplicitGradient()(net, XS, YS)
    assert (alignment(found.gradient, exact.gradient) > 1 - 1e-9) == (angle == 0)
    states = relax_batch(net, XS).state
    assert (symmetry(net, states, XS) > 1 - 1e-6) == (angle == 0)


def test_a_circuit_of_error_neurons_that_would_run_away_says_so():
    """Feedback that turns the error's sign and is strong enough drives the values away from what predicts them."""
    net = PredictiveCodingCircuit.layered((1, 2, 1), key=KEY)
    net = eqx.tree_at(
        lambda n: (n.forward[1].weight, n.feedback[0].weight), net, (jnp.ones((2, 1)), jnp.full((2, 1), -5.0))
    )
    x = jnp.zeros(1)
    free = net.relax(x)
    jacobian = np.asarray(net.jacobian(free.state, x))
    flow = np.concatenate([jacobian[:3], -jacobian[3:]])
    np.testing.assert_allclose(net.stability(free.state, x), np.linalg.eigvals(flow).real.max(), rtol=1e-9)
    assert net.stability(free.state, x) > 0


def test_what_is_observed_stands_in_the_history():
    net, judge = RecurrentNetwork.layered((3, 2), key=KEY), lambda net: {"weight": jnp.sum(net.bias[0])}
    options = {"optimiser": optax.sgd(0.1), "epochs": 3, "key": KEY, "progress": False}
    run = fit(net, EquilibriumPropagation(0.1), (XS, YS), observe=judge, **options)
    np.testing.assert_allclose(run.history["weight"][-1], np.sum(run.substrate.bias[0]), rtol=1e-12)
    assert len(run.history["weight"]) == 3
    with pytest.raises(ValueError, match="observe: wanted names that the history has not, got cost"):
        fit(net, EquilibriumPropagation(0.1), (XS, YS), observe=lambda net: {"cost": 1.0}, **options)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: JacobianHomeostasis(EquilibriumPropagation(0.1), -1.0), ValueError, "strength: wanted a positive"),
        (lambda: JacobianHomeostasis(EquilibriumPropagation(0.1), 1.0, 0), ValueError, "probes: wanted a whole"),
        (lambda: JacobianHomeostasis(NET, 1.0), TypeError, "rule: wanted an estimator"),
        (
            lambda: JacobianHomeostasis(EquilibriumPropagation(0.1), 1.0)(NET, XS, YS),
            ValueError,
            "key: wanted a key, which draws the directions",
        ),
        (
            lambda: JacobianHomeostasis(EquilibriumPropagation(0.1), 1.0)(
                IsingModel.layered((3, 4, 2), key=KEY), jnp.sign(XS), jnp.sign(YS), key=KEY
            ),
            TypeError,
            "JacobianHomeostasis: wanted a state of real floating-point numbers",
        ),
        (
            lambda: PredictiveCodingCircuit(NET_FORWARD, (), (jnp.zeros(2), jnp.zeros(1))),
            ValueError,
            r"feedback: wanted the shapes \[\(2, 1\)\]",
        ),
        (
            lambda: PredictiveCodingCircuit(NET_FORWARD[::-1], (), (jnp.zeros(1), jnp.zeros(2))),
            ValueError,
            "forward: wanted couplings between successive layers",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


NET_FORWARD = PredictiveCodingCircuit.layered((3, 2, 1), key=KEY).forward
