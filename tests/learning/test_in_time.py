"""Updates of equilibrium propagation step by step: gradients of back-propagation where there is an energy, not else."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import CIRCUIT, KEY, SIZES, X, Y, smooth, unsettled

from learning import BackpropThroughTime, CrossEntropy, SquaredError, UpdatesInTime, updates_in_time
from learning.rule import ConvergenceError
from substrates import (
    DiscreteTime,
    HopfieldNetwork,
    IsingModel,
    PredictiveCodingNetwork,
    RecurrentNetwork,
    SmoothHopfieldNetwork,
    Substrate,
)

IMAGES = jax.random.uniform(jax.random.key(1), (2, 4, 4, 2))
SYSTEMS = {
    "hard": (HopfieldNetwork.layered(SIZES, key=KEY), X),
    "smooth": (smooth(), X),
    "convolutions": (HopfieldNetwork.convolutional((4, 4, 2), (3,), 2, key=KEY, pooling="average"), IMAGES),
    "max pooling": (HopfieldNetwork.convolutional((4, 4, 2), (3,), 2, key=KEY, pooling="max"), IMAGES),
    "soft pooling": (SmoothHopfieldNetwork.convolutional((4, 4, 2), (3,), 2, key=KEY), IMAGES),
    "circuit": (CIRCUIT, X[:, :2]),
    "predictive coding": (PredictiveCodingNetwork.dense((3, 4, 2), key=KEY), X),
}
EULER = DiscreteTime(0.25, "energy-based")
SETTINGS = pytest.mark.parametrize("solver", [DiscreteTime(), EULER], ids=lambda s: s.setting)


@pytest.mark.parametrize(
    ("name", "solver"),
    [*((name, DiscreteTime()) for name in SYSTEMS), *((name, EULER) for name in ("hard", "smooth", "circuit"))],
    ids=lambda each: getattr(each, "setting", each),
)
def test_updates_are_gradients_step_by_step(name, solver):
    """To 1e-6 of the largest, at every step, in every layer and parameter; and not because all are nothing."""
    system, x = SYSTEMS[name]
    found = updates_in_time(system, x, Y, 1e-7, 8, solver=solver, free_steps=1000)
    for where, error in found.errors_in_time().items():
        assert np.max(error) < 1e-6, where
    assert max(found.errors().values()) < 1e-6
    sizes = [np.max(np.abs(leaf), axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(found.gradient)]
    assert np.all(np.max(sizes, axis=0)[:4] > 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("pooling", "beta", "most"), [("average", 1e-7, 1e-6), ("max", 1e-6, 1.1e-6)])
def test_updates_are_gradients_in_a_network_of_the_published_width(pooling, beta, most):
    """32 and 64 maps by kernels of 5x5, on images of 16x16: off by beta, and by rounding, 3e-13 over beta at most."""
    net = HopfieldNetwork.convolutional((16, 16, 1), (32, 64), 10, key=KEY, pooling=pooling, kernel=5, padding=0)
    x, y = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1)), jnp.eye(10)[:2]
    found = updates_in_time(net, x, y, beta, 10, free_steps=200)
    assert jax.tree.leaves(found.update)[0].dtype == jnp.float64
    for where, error in found.errors_in_time().items():
        assert np.max(error) < most, where
    sizes = [np.max(np.abs(leaf), axis=tuple(range(1, leaf.ndim))) for leaf in jax.tree.leaves(found.gradient)]
    assert np.all(np.max(sizes, axis=0)[:6] > 1e-5)


@given(seed=st.integers(0, 1000), sign=st.sampled_from([1.0, -1.0]))
@settings(max_examples=8)
def test_they_differ_in_proportion_to_beta(seed, sign):
    net = smooth(seed)
    errors = [updates_in_time(net, X, Y, sign * beta, 8).errors() for beta in (1e-3, 1e-4)]
    ratios = [errors[0][name] / errors[1][name] for name in errors[0]]
    np.testing.assert_allclose(ratios, 10.0, rtol=0.05)


@eqx.filter_jit
def by_hand(system, solver, x, y, steps, free_steps):
    """(dL/dp, dL/dtheta) of every step of one example, the last first, by reverse mode through all of them at once."""
    state = system.relax(x).state
    for _ in range(free_steps):
        state = solver.step(system, state, x)
    no_push = jax.tree.map(jnp.zeros_like, state)

    def loss(systems, pushes):
        s = state
        for copy, push in zip(systems, pushes, strict=True):
            s = solver.step(copy, s, x, None, push)
        return CrossEntropy()(system.read(s, x), y)

    of_systems, of_pushes = jax.grad(loss, (0, 1))([system] * steps, [no_push] * steps)
    return of_pushes[::-1], of_systems[::-1]


@SETTINGS
def test_gradients_are_those_of_unrolled_steps(solver):
    """Each step with parameters and forces of its own, even where nothing has settled."""
    system = SYSTEMS["hard"][0]
    found = updates_in_time(system, X, Y, 1e-3, 3, solver=solver, cost=CrossEntropy(), free_steps=2)
    wanted = [by_hand(system, solver, x, y, 3, 2) for x, y in zip(X, Y, strict=True)]
    for t in range(3):
        of_state = jax.tree.map(lambda *each: jnp.stack(each), *[pushes[t] for pushes, _ in wanted])
        mean = jax.tree.map(lambda *each: sum(each) / 2, *[systems[t] for _, systems in wanted])
        for tree, other in ((found.state_gradient, of_state), (found.gradient, mean)):
            for one, two in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
                np.testing.assert_allclose(one[t], two, atol=1e-13)


def test_their_sum_is_truncated_back_propagation():
    system, x = SYSTEMS["circuit"]
    found = updates_in_time(system, x, Y, 1e-3, 6, solver=DiscreteTime(0.25, "energy-based"))
    wanted = BackpropThroughTime(600, 0.25, truncate=6)(system, x, Y).gradient
    np.testing.assert_allclose(jnp.sum(found.gradient.conductance, axis=0), wanted.conductance, rtol=1e-9)


class Units(Substrate):
    """Three units, each pulled towards what it feels: with an energy if the weights are symmetric."""

    weight: jax.Array

    def force(self, state, x):
        return self.weight @ state + x - state

    def initial_state(self, x):
        return jnp.zeros(3, x.dtype)

    def read(self, state, x):
        return state[1:]


def units(antisymmetric):
    draw = np.random.default_rng(3).normal(size=(3, 3))
    return Units(jnp.asarray(0.1 * (draw + draw.T + antisymmetric * (draw - draw.T))))


@SETTINGS
def test_without_an_energy_they_are_not(solver):
    """The nudge itself is the gradient of the first step; what comes back through other weights is not."""
    first, later = [], []
    for beta in (1e-4, 1e-6):
        error = updates_in_time(units(1.0), X, Y, beta, 6, solver=solver).errors_in_time()["state"]
        first.append(error[0])
        later.append(np.max(error[1:]))
    assert max(first) < 1e-4
    assert min(later) > 0.05
    np.testing.assert_allclose(*later, rtol=1e-2)  # whatever beta
    assert max(updates_in_time(units(0.0), X, Y, 1e-6, 6, solver=solver).errors().values()) < 1e-5


def test_feedback_at_an_angle_is_told_by_layer():
    """Weights there and back at 0, 45 and 90 degrees: the farther apart the worse, most of all far from outputs."""
    worst = []
    for angle in (0.0, 45.0, 90.0):
        net = RecurrentNetwork.layered(SIZES, key=KEY, angle=angle, activation="tanh", gain=2.0)
        errors = updates_in_time(net, X, Y, 1e-6, 8).errors()
        worst.append(max(errors.values()))
        assert angle == 0 or errors["bias[0]"] > errors["bias[2]"]
    assert worst[0] < 1e-4
    assert 0.1 < worst[1] < worst[2]


def test_what_did_not_settle_is_refused():
    system = unsettled(Units)(units(0.0).weight)
    with pytest.raises(ConvergenceError, match="2 of 2 free equilibria"):
        updates_in_time(system, X, Y, 1e-3, 3)
    found = updates_in_time(system, X, Y, 1e-3, 3, strict=False)
    assert max(found.errors().values()) < 1e-2


MADE = UpdatesInTime(
    (np.array([[[3.0, -1.0]], [[1.0, 0.0]]]),),
    (np.array([[[-3.0, -2.0]], [[-1.0, 0.0]]]),),
    {"weight": np.array([[1.0, 1.0, 0.0], [-3.0, 1.0, 0.0]])},
    {"weight": np.array([[-1.0, -1.0, 0.0], [3.0, 1.0, 0.0]])},
)


def test_errors_and_signs_of_made_up_updates():
    errors, in_time, signs = MADE.errors(), MADE.errors_in_time(), MADE.sign_agreement()
    np.testing.assert_allclose(errors["state[0]"], 3 / np.sqrt(14))
    np.testing.assert_allclose(errors["['weight']"], 2 / np.sqrt(12))
    np.testing.assert_allclose(in_time["state[0]"], [3 / np.sqrt(13), 0])
    assert signs == {"state[0]": 0.5, "['weight']": 0.5}


def test_a_drawing_holds_the_numbers():
    import matplotlib.pyplot as plt

    ax = MADE.draw("['weight']", entries=2)
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) == 2 and line.get_label() != "_nolegend_"]
    shown = [line.get_ydata() for line in lines]
    wanted = [[1, -3], [1, -3], [1, 1], [1, -1]]
    assert all(any(np.array_equal(one, other) for other in shown) for one in wanted)
    other = plt.subplots()[1]
    assert MADE.draw("state[0]", ax=other) is other
    plt.close("all")
    with pytest.raises(ValueError, match=r"name: wanted one of state\[0\]"):
        MADE.draw("bias")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((0.0, 3), ValueError, "beta: wanted a positive number"),
        ((float("nan"), 3), ValueError, "beta: wanted a positive number"),
        ((0.1, 0), ValueError, "steps: wanted a whole number, at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        updates_in_time(CIRCUIT, X[:, :2], Y, *arguments)


def test_discrete_states_are_refused():
    spins = IsingModel.layered((2, 3, 1), key=KEY)
    with pytest.raises(TypeError, match=r"updates_in_time: wanted .* numbers, .* got discrete"):
        updates_in_time(spins, jnp.array([[1.0, -1.0]]), jnp.array([[1.0]]), 0.1, 3, key=KEY)


def test_another_beta_compiles_nothing():
    traces = []

    class Traced(Units):
        def force(self, state, x):
            traces.append(1)
            return Units.force(self, state, x)

    system = Traced(units(0.0).weight)
    updates_in_time(system, X, Y, 1e-3, 3)
    before = len(traces)
    updates_in_time(system, X, Y, 1e-2, 3, cost=SquaredError(), free_steps=5)
    assert len(traces) == before
