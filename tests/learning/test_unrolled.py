"""Recurrent back-propagation and back-propagation through time, against each other, implicit differentiation and EP."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_networks import CIRCUIT, unsettled

from learning import BackpropThroughTime, CrossEntropy, ImplicitGradient, RecurrentBackprop, SquaredError
from learning.rule import ConvergenceError
from substrates import HopfieldNetwork, IsingModel, Nudge, PredictiveCodingNetwork, ResistorNetwork, Status, Substrate

RATE = 0.3  # 1/siemens, where the largest stiffness is below 5
X, Y = jnp.array([[1.0, 0.2], [-0.5, 0.8]]), jnp.array([[0.1, 0.4], [0.3, -0.2]])


class Units(Substrate):
    """Three units in a box, each pulled towards what it feels: with an energy if the weights are symmetric."""

    weight: jax.Array
    bias: jax.Array

    def force(self, state, x):
        return jnp.tanh(self.weight @ state + self.bias) + x - state

    def initial_state(self, x):
        return jnp.zeros(3, x.dtype)

    def read(self, state, x):
        return state[1:]

    def bounds(self, x):
        return jnp.full(3, -0.4), jnp.full(3, 0.4)


def units(seed, size=0.4):
    draw = np.random.default_rng(seed)
    return Units(jnp.asarray(size * draw.normal(size=(3, 3))), jnp.asarray(0.1 * draw.normal(size=3)))


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def close(found, wanted, rtol):
    found, wanted = flat(found), flat(wanted)
    np.testing.assert_allclose(found, wanted, atol=rtol * np.max(np.abs(wanted)), rtol=0)


BOX = jnp.array([[0.9, 0.1, -0.05], [-0.9, 0.2, 0.1]])  # the first unit is held at either bound
SYSTEMS = {
    "circuit": (CIRCUIT, X, Y, RATE),
    "Hopfield": (HopfieldNetwork.layered((2, 4, 3, 2), key=jax.random.key(1)), X, Y, 0.3),
    "predictive coding": (PredictiveCodingNetwork.dense((2, 4, 2), key=jax.random.key(2)), X, Y, 0.2),
    "no energy, at bounds": (units(3), BOX, Y, 0.5),
}
each = pytest.mark.parametrize(("system", "x", "y", "rate"), SYSTEMS.values(), ids=SYSTEMS)


@each
def test_the_course_ends_at_the_implicit_gradient(system, x, y, rate):
    wanted = ImplicitGradient()(system, x, y)
    found = RecurrentBackprop(300, rate)(system, x, y)
    close(found.gradient, wanted.gradient, 1e-9)
    close((found.cost, found.output), (wanted.cost, wanted.output), 1e-14)
    assert found.relaxations == len(found.equilibria) == 1


@each
def test_unrolled_for_long_it_is_the_implicit_gradient(system, x, y, rate):
    wanted = ImplicitGradient(CrossEntropy())(system, x, y)
    found = BackpropThroughTime(300, rate, cost=CrossEntropy())(system, x, y)
    close(found.gradient, wanted.gradient, 1e-6)
    close((found.cost, found.output), (wanted.cost, wanted.output), 1e-6)


@each
def test_truncated_it_is_recurrent_backprop_after_as_many_steps(system, x, y, rate):
    wanted = RecurrentBackprop(7, rate)(system, x, y)
    found = BackpropThroughTime(600, rate, truncate=7)(system, x, y)
    close(found.gradient, wanted.gradient, 1e-7)


def nudged(system, x, y, rate, beta, steps):
    """The states of one example along the nudged flow from its free state, the first among them."""
    state = system.relax(x).state
    states = [state]
    for _ in range(steps):
        force = system.total_force(states[-1], x, Nudge(SquaredError(), y, beta))
        states.append(jax.tree.map(lambda s, f: s + rate * f, states[-1], force))
    return states


@pytest.mark.parametrize("beta", [1e-4, 1e-6])
def test_a_nudged_flow_shows_the_course_step_by_step(beta):
    """To first order in beta, all along the way (Scellier and Bengio 2019)."""
    steps = 12
    course = RecurrentBackprop(steps, RATE).course(CIRCUIT, X[:1], Y[:1])
    flow = nudged(CIRCUIT, X[0], Y[0], RATE, beta, steps + 1)
    measured = [CIRCUIT.measure(s[None], X[:1]).conductance for s in flow]
    for t in range(0, steps + 1, 3):
        speed = -(flow[t + 1] - flow[t]) / (RATE * beta)
        np.testing.assert_allclose(speed, course.error[t, 0], atol=3 * beta)
        np.testing.assert_allclose((measured[t] - measured[0]) / beta, course.gradient.conductance[t], atol=3 * beta)


def test_the_course_of_a_circuit_is_the_power_series_of_its_matrix():
    state = CIRCUIT.relax(X[0]).state
    matrix = -jax.jacobian(lambda s: CIRCUIT.force(s, X[0]))(state)
    slope = jax.grad(lambda s: SquaredError()(CIRCUIT.read(s, X[0]), Y[0]))(state)
    course = RecurrentBackprop(9, RATE).course(CIRCUIT, X[:1], Y[:1])
    values, vectors = np.linalg.eigh(matrix)
    for t in range(10):
        wanted = vectors @ ((1 - RATE * values) ** t * (vectors.T @ slope))
        np.testing.assert_allclose(course.error[t, 0], wanted, atol=1e-13)
    np.testing.assert_allclose(course.gradient.conductance[0], 0)
    close(
        jax.tree.map(lambda leaf: leaf[-1], course.gradient),
        RecurrentBackprop(9, RATE)(CIRCUIT, X[:1], Y[:1]).gradient,
        1e-13,
    )


class Sums(Substrate):
    """Outputs with a trainable gain, of one unit on a spring."""

    gain: jax.Array
    stiffness: jax.Array

    def energy(self, state, x):
        return 0.5 * jnp.sum(self.stiffness * (state - x) ** 2) + 0.5 * jnp.sum(state**2)

    def initial_state(self, x):
        return jnp.zeros_like(x)

    def read(self, state, x):
        return self.gain * state


@pytest.mark.parametrize("rule", [RecurrentBackprop(80, 0.4), BackpropThroughTime(80, 0.4)])
def test_what_the_reading_owes_to_parameters_counts(rule):
    """o = g k x/(1 + k), so that dC/dg and dC/dk are known."""
    gain, stiffness, x, y = 1.3, 0.7, 0.9, 0.2
    found = rule(Sums(jnp.array([gain]), jnp.array([stiffness])), jnp.array([[x]]), jnp.array([[y]])).gradient
    shown = stiffness * x / (1 + stiffness)
    error = gain * shown - y
    np.testing.assert_allclose(found.gain, [error * shown], rtol=1e-12)
    np.testing.assert_allclose(found.stiffness, [error * gain * x / (1 + stiffness) ** 2], rtol=1e-12)


@jax.jit
def written_out(parameters, x, y, rate):
    """The cost after four steps of `Units`."""
    weight, bias = parameters
    s = jnp.zeros(3)
    for _ in range(4):
        s = jnp.clip(s + rate * (jnp.tanh(weight @ s + bias) + x - s), -0.4, 0.4)
    return 0.5 * jnp.sum((s[1:] - y) ** 2)


written_out_slope = jax.jit(jax.value_and_grad(written_out))
few_steps = eqx.filter_jit(lambda rate, *arguments: BackpropThroughTime(4, rate)(*arguments))


@given(seed=st.integers(0, 10_000), rate=st.floats(0.05, 0.9))
def test_few_steps_from_the_start_are_those_of_a_program_written_out(seed, rate):
    system, x, y, rate = units(seed), jnp.array([0.2, -0.1, 0.3]), jnp.array([0.1, 0.2]), jnp.asarray(rate)
    cost, wanted = written_out_slope((system.weight, system.bias), x, y, rate)
    found = few_steps(rate, system, x[None], y[None])
    close((found.gradient.weight, found.gradient.bias), wanted, 1e-12)
    assert bool(jnp.all(found.equilibria[0].status == Status.truncated))
    np.testing.assert_allclose(found.cost, cost, rtol=1e-13)


def test_a_system_without_an_energy_gets_its_true_gradient():
    """The transposed Jacobian, where equilibrium propagation uses the Jacobian itself."""
    system, x, y = units(11, 0.8), jnp.array([[0.1, -0.05, 0.02]]), jnp.array([[0.3, -0.2]])
    cost = eqx.filter_jit(lambda s: SquaredError()(s.read(s.relax(x[0]).state, x[0]), y[0]))
    found = RecurrentBackprop(400, 0.5)(system, x, y).gradient.weight
    step = 1e-5
    for i, j in [(0, 1), (1, 0), (2, 1)]:
        moved = [eqx.tree_at(lambda s: s.weight, system, system.weight.at[i, j].add(h)) for h in (step, -step)]
        np.testing.assert_allclose(found[i, j], (cost(moved[0]) - cost(moved[1])) / (2 * step), atol=1e-8)


def ladder(n):
    """Resistors in a row between two inputs, each node also to ground: n free nodes."""
    edges = [(k, k + 1) for k in range(n + 1)] + [(k, -1) for k in range(1, n + 1)]
    conductance = jax.random.uniform(jax.random.key(0), (len(edges),), minval=0.5, maxval=2.0)
    return ResistorNetwork.from_edges(edges, inputs=[0, n + 1], outputs=[3], conductance=conductance)


def test_implicit_differentiation_without_a_matrix_is_that_with_one(monkeypatch):
    """At 700 state variables, where no matrix is factorised unless the limit is moved."""
    system, x, y = ladder(700), jnp.array([[1.0, -0.5]]), jnp.array([[0.3]])
    assert system.relax(x[0]).state.size > 512
    found = ImplicitGradient()(system, x, y).gradient.conductance
    monkeypatch.setattr("substrates.solvers.implicit.MOST_DENSE", 1000)
    wanted = ImplicitGradient()(system, x, y).gradient.conductance
    close(found, wanted, 1e-8)


@pytest.mark.parametrize("kind", [RecurrentBackprop, BackpropThroughTime])
def test_another_rate_compiles_nothing(kind):
    traces = []

    class Traced(Units):
        def force(self, state, x):
            traces.append(1)
            return Units.force(self, state, x)

    system = Traced(units(3).weight, units(3).bias)
    first = kind(5, 0.1)(system, BOX, Y).gradient.weight
    before = len(traces)
    second = kind(5, 0.2)(system, BOX, Y).gradient.weight
    assert len(traces) == before
    assert np.max(np.abs(first - second)) > 1e-3


def test_rates_that_are_too_large_are_refused():
    with pytest.raises(ConvergenceError, match=r"RecurrentBackprop: the errors grow from step to step.*smaller rate"):
        RecurrentBackprop(20, 2.0)(CIRCUIT, X, Y)
    with pytest.raises(ConvergenceError, match="the errors grow"):
        RecurrentBackprop(20, 2.0).course(CIRCUIT, X, Y)
    with pytest.raises(ConvergenceError, match="BackpropThroughTime: the state does not stay finite"):
        BackpropThroughTime(2000, 2.0)(CIRCUIT, X, Y)
    with pytest.raises(RuntimeError, match="the errors grow"):
        jax.block_until_ready(eqx.filter_jit(RecurrentBackprop(20, 2.0))(CIRCUIT, X, Y).cost)
    lenient = RecurrentBackprop(20, 2.0, strict=False)(CIRCUIT, X, Y)
    assert np.max(np.abs(lenient.gradient.conductance)) > 1e3
    assert int(BackpropThroughTime(2000, 2.0, strict=False)(CIRCUIT, X, Y).unusable) == 2


def test_a_state_that_did_not_settle_is_refused():
    system = unsettled(Units)(units(3).weight, units(3).bias)
    with pytest.raises(ConvergenceError, match="2 of 2 free equilibria"):
        RecurrentBackprop(5, 0.1)(system, BOX, Y)
    assert int(RecurrentBackprop(5, 0.1, strict=False)(system, BOX, Y).unusable) == 2


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: RecurrentBackprop(0, 0.1), ValueError, "steps: wanted a whole number, at least 1, got 0"),
        (lambda: RecurrentBackprop(5, -0.1), ValueError, "rate: wanted a positive number, got -0.1"),
        (lambda: BackpropThroughTime(2.5, 0.1), ValueError, "steps: wanted a whole number, at least 1, got 2.5"),
        (lambda: BackpropThroughTime(5, 0.0), ValueError, "rate: wanted a positive number, got 0.0"),
        (lambda: BackpropThroughTime(5, "0.1"), TypeError, "rate: wanted a positive number, got '0.1'"),
        (
            lambda: BackpropThroughTime(5, 0.1, True),
            ValueError,
            "truncate: wanted a whole number, at least 1, got True",
        ),
        (lambda: BackpropThroughTime(5, 0.1, 6), ValueError, "truncate: wanted at most the 5 steps there are, got 6"),
    ],
)
def test_what_makes_no_sense_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("rule", [RecurrentBackprop(5, 0.1), BackpropThroughTime(5, 0.1), ImplicitGradient()])
def test_states_that_have_no_derivative_are_refused(rule):
    spins = IsingModel.layered((2, 3, 1), key=jax.random.key(0))
    with pytest.raises(TypeError, match=rf"{type(rule).__name__}: wanted .* numbers, .* got discrete float64"):
        rule(spins, jnp.array([[1.0, -1.0]]), jnp.array([[1.0]]), key=jax.random.key(1))
