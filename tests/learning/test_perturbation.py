"""Rules of order zero and their kin: against closed forms, exact gradients and the laws of their variances."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from black_boxes import LinearSystem, SpringScale
from hypothesis import given
from hypothesis import strategies as st
from linear_response import LinearResponse
from scipy.stats import norm

from learning import (
    EquilibriumPropagation,
    EvolutionStrategy,
    FeedbackAlignment,
    FiniteDifferences,
    ImplicitGradient,
    KnobDescent,
    Mismatch,
    NodePerturbation,
    PhysicsAware,
    RandomWeights,
    SimultaneousPerturbation,
    SquaredError,
    fit,
)
from learning.perturbation import OrderZero, _by_forces, _by_pushes
from learning.physics_aware import _through_twin
from learning.rule import ConvergenceError
from learning.training import TrainingError
from substrates import (
    HopfieldNetwork,
    IsingModel,
    Noisy,
    Plant,
    PredictiveCodingNetwork,
    ResistorNetwork,
    Status,
    Substrate,
)
from substrates.laboratory.system import LaboratoryError, Reading
from substrates.solvers.solver import Solver, judge, tolerance
from substrates.substrate import relax_batch
from theory_checks import SealedSubstrate, SealedSystem


class Newton(Solver):
    """A given number of Newton steps on the force."""

    count: int = 25

    def __call__(self, substrate, x, nudge, start, key):
        balance = lambda state: substrate.total_force(state, x, nudge)
        step = lambda _, state: state - jnp.linalg.solve(jax.jacfwd(balance)(state), balance(state))
        state = jax.lax.fori_loop(0, self.count, step, start)
        return judge(substrate, state, x, nudge, self.count, tolerance(substrate, start, x, nudge))


class Springs(Substrate):
    """A convex chain of hardening springs, none of them softer than a limit."""

    stiffness: jax.Array
    hardness: jax.Array
    solver = Newton()

    def energy(self, state, x):
        stretch = jnp.diff(jnp.concatenate([x, state]))
        return 0.5 * jnp.sum(self.stiffness * stretch**2) + 0.25 * jnp.sum(self.hardness * state**4)

    def initial_state(self, x):
        return jnp.full(3, 0.1, x.dtype)

    def read(self, state, x):
        return state[1:]

    def constrained(self):
        return eqx.tree_at(lambda s: s.stiffness, self, jnp.maximum(self.stiffness, 0.6))


class HastySprings(Springs):
    """The same chain, given one step to settle."""

    solver = Newton(1)


class AllSigns(OrderZero):
    """Simultaneous perturbation along all combinations of signs, one after the other: its exact mean."""

    draws = False

    def pushes(self, size):
        return 2**size

    def of_each(self, size):
        return 2**size

    def direction(self, number, key, parameters):
        bits = (number >> jnp.arange(parameters.size)) & 1
        return (2 * bits - 1).astype(parameters.dtype)


SYSTEM = Springs(jnp.array([1.0, 2.0, 1.5]), jnp.array([1.0, 0.5, 0.8]))
X, Y = jnp.array([[0.6], [-0.8], [0.3]]), jnp.array([[0.5, 0.7], [-0.3, -0.5], [0.9, -0.2]])
LINEAR = LinearResponse(jnp.array([[0.3, -0.5, 0.8], [0.1, 0.9, -0.4]]), jnp.array([0.2, -0.1]))
XL, YL = jnp.array([[0.7, -0.2, 0.4]]), jnp.array([[0.5, 0.1]])
KEY = jax.random.key(0)
exact = eqx.filter_jit(ImplicitGradient())
estimate = eqx.filter_jit(lambda rule, system, x, y, key: rule(system, x, y, key=key))


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def cost_of(system, x=X, y=Y):
    return jnp.mean(jax.vmap(SquaredError())(jax.vmap(system.read)(relax_batch(system, x).state, x), y))


def moved(system, change):
    leaves, structure = jax.tree.flatten(eqx.filter(system, eqx.is_inexact_array))
    parts = np.split(np.asarray(change), np.cumsum([leaf.size for leaf in leaves])[:-1])
    return structure.unflatten(
        [leaf + jnp.asarray(part).reshape(leaf.shape) for leaf, part in zip(leaves, parts, strict=True)]
    )


WANTED = flat(exact(SYSTEM, X, Y).gradient)


# pushes of parameters


@pytest.mark.parametrize("kind", [FiniteDifferences, AllSigns])
def test_the_bias_falls_with_the_square_of_the_step(kind):
    steps = (0.1, 0.05, 0.025, 0.0125)
    found = [flat(estimate(kind(jnp.asarray(c)), SYSTEM, X, Y, None).gradient) for c in steps]
    errors = np.array([np.linalg.norm(each - WANTED) for each in found])
    np.testing.assert_allclose(errors[:-1] / errors[1:], 4, rtol=0.05)
    assert errors[-1] < 1e-3 * np.linalg.norm(WANTED)


@pytest.mark.parametrize("kind", [SimultaneousPerturbation, EvolutionStrategy])
@given(seed=st.integers(0, 10_000), c=st.floats(0.01, 0.05))
def test_a_probe_is_the_difference_of_two_costs_along_its_direction(kind, seed, c):
    key = jax.random.key(seed)
    found = flat(estimate(kind(jnp.asarray(c), 1), SYSTEM, X, Y, key).gradient)
    direction = np.asarray(kind(c, 1).direction(0, jax.random.fold_in(key, len(X)), jnp.zeros(6)))
    if kind is SimultaneousPerturbation:
        np.testing.assert_array_equal(np.abs(direction), 1)
    slope = (mean_cost(moved(SYSTEM, c * direction)) - mean_cost(moved(SYSTEM, -c * direction))) / (2 * c)
    np.testing.assert_allclose(found, slope * direction, rtol=1e-8, atol=1e-10)


mean_cost = eqx.filter_jit(cost_of)


def test_probes_are_averaged_and_drawn_anew():
    """The mean of the estimates, and the covariance of their directions, which is one."""
    count = 4000
    rule = SimultaneousPerturbation(1e-3, count)
    found = flat(estimate(rule, SYSTEM, X, Y, KEY).gradient)
    draw = jax.random.fold_in(KEY, len(X))
    signs = np.asarray(jax.vmap(lambda k: rule.direction(k, draw, jnp.zeros(6)))(jnp.arange(count)))
    np.testing.assert_allclose(signs.T @ signs / count, np.eye(6), atol=5 / count**0.5)
    np.testing.assert_allclose(found, WANTED @ signs.T @ signs / count, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "factor"),
    [(SimultaneousPerturbation(1e-2, 1), 8), (EvolutionStrategy(1e-2, 1), 8 + 2), (NodePerturbation(1e-2, 1), 2)],
    ids=["signs", "normal", "nodes"],
)
def test_mean_squares_grow_with_what_is_pushed(rule, factor):
    """P parameters: <|D D.g|^2> = P |g|^2 for signs, (P + 2) |g|^2 for normal numbers; n nodes: n |g|^2."""
    keys = jax.random.split(KEY, 4000)
    gradients = jax.jit(lambda keys: jax.lax.map(lambda key: rule(LINEAR, XL, YL, key=key).gradient, keys))(keys)
    found = np.concatenate([np.reshape(leaf, (len(keys), -1)) for leaf in jax.tree.leaves(gradients)], axis=1)
    wanted = flat(exact(LINEAR, XL, YL).gradient)
    size = np.linalg.norm(wanted)
    np.testing.assert_allclose(np.mean(np.sum(found**2, axis=1)) / size**2, factor, rtol=0.12)
    assert np.linalg.norm(np.mean(found, axis=0) - wanted) < 2 * size * (factor / len(keys)) ** 0.5


def test_an_evolution_strategy_follows_the_smoothed_cost_where_there_is_no_gradient():
    """A spin shows sign(J x + h), and the cost is 2 where it is wrong: smoothed, 2 Phi(-(J x + h) / (c sqrt 2))."""
    spins = IsingModel.from_edges([(0, 1)], coupling=[0.3], field=[0.0, 0.1], inputs=[0], outputs=[1])
    x, y, c = jnp.array([[1.0]]), jnp.array([[1.0]]), 0.4
    found = EvolutionStrategy(c, 20_000)(spins, x, y, key=KEY).gradient
    wanted = -2 * norm.pdf(0.4 / (c * 2**0.5)) / (c * 2**0.5)
    coupling, *field = flat(found)
    np.testing.assert_allclose([coupling, field[1]], wanted, rtol=0.08)
    np.testing.assert_allclose(field[0], 0, atol=0.06)
    assert flat(FiniteDifferences(0.01)(spins, x, y).gradient).tolist() == [0, 0, 0]


def test_it_trains_a_system_in_a_sealed_box():
    outside, inside = (
        flat(estimate(SimultaneousPerturbation(0.02, 2), system, X, Y, KEY).gradient)
        for system in (SealedSubstrate(SYSTEM), SYSTEM)
    )
    np.testing.assert_allclose(outside, inside, rtol=1e-10)


def test_steps_go_by_the_paths_of_parameters():
    one = flat(estimate(SimultaneousPerturbation(0.02), SYSTEM, X, Y, KEY).gradient)
    same = SimultaneousPerturbation({"stiffness": 0.02, "hardness": 0.02})
    np.testing.assert_allclose(flat(estimate(same, SYSTEM, X, Y, KEY).gradient), one, rtol=1e-12)
    uneven = FiniteDifferences({"stiffness": 1e-4, "hardness": 0.1})
    errors = np.abs(flat(estimate(uneven, SYSTEM, X, Y, None).gradient) - WANTED)
    assert np.max(errors[:3]) < 1e-7 < 1e-6 < np.max(errors[3:])
    for step, match in ((({"stiffness": 0.1}), "step: nothing for hardness"), ({"mass": 0.1}, "step: .*stiffness")):
        with pytest.raises(ValueError, match=match):
            FiniteDifferences(step)(SYSTEM, X, Y)


LIMITED = eqx.tree_at(lambda s: s.stiffness, SYSTEM, jnp.array([0.6, 2.0, 0.605]))


def test_at_a_limit_differences_have_one_side():
    c = 0.02
    found = FiniteDifferences(c)(LIMITED, X, Y).gradient.stiffness
    ends = [((0, c), (0, 0.0)), ((1, c), (1, -c)), ((2, c), (2, -0.005))]
    for k, (up, down) in enumerate(ends):
        costs = [mean_cost(moved(LIMITED, h * np.eye(6)[at])) for at, h in (up, down)]
        np.testing.assert_allclose(found[k], (costs[0] - costs[1]) / (up[1] - down[1]), rtol=1e-8)


def test_limits_cost_an_order_of_the_bias_and_no_more():
    wanted = flat(exact(LIMITED, X, Y).gradient)
    found = [flat(estimate(AllSigns(jnp.asarray(c)), LIMITED, X, Y, None).gradient) for c in (0.04, 0.02, 0.01)]
    errors = [np.linalg.norm(each - wanted) for each in found]
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, rtol=0.3)
    assert errors[-1] < 0.02 * np.linalg.norm(wanted)
    normal = flat(estimate(EvolutionStrategy(0.01, 6000), LIMITED, X, Y, KEY).gradient)
    assert np.linalg.norm(normal - wanted) < 3 * np.linalg.norm(wanted) * (8 / 6000) ** 0.5


class Jittery(LinearResponse):
    """Settles beside its equilibrium, by a number that the key draws."""

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        found = LinearResponse.relax(self, x, nudge, start)
        shift = jax.random.normal(key, found.state.shape, found.state.dtype)
        return eqx.tree_at(lambda e: (e.state, e.status), found, (found.state + shift, Status.converged))


def test_all_phases_of_an_example_share_its_key():
    system = Jittery(LINEAR.weight, LINEAR.offset)
    x, y = jnp.concatenate([XL, -2 * XL]), jnp.concatenate([YL, YL])
    found = FiniteDifferences(1e-3)(system, x, y, key=KEY)
    assert np.abs(np.diff(found.output - x @ LINEAR.weight.T, axis=0)).min() > 1e-3
    np.testing.assert_allclose(found.gradient.weight, (found.output - y).T @ x / 2, rtol=1e-9)


@pytest.mark.parametrize(
    ("rule", "count"),
    [(SimultaneousPerturbation(0.01, 3), 7), (EvolutionStrategy(0.01), 17), (FiniteDifferences(0.01), 13),
     (NodePerturbation(0.01, 2), 5), (PhysicsAware(Mismatch(0.1)), 1)],
)  # fmt: skip
def test_estimates_say_what_was_settled(rule, count):
    found = rule(SYSTEM, X, Y, key=KEY)
    assert found.relaxations == count
    np.testing.assert_allclose(found.cost, mean_cost(SYSTEM), rtol=1e-12)
    free, probes = found.equilibria
    assert free.residual.shape == (3,)
    assert probes.residual.shape == ((3,) if count == 1 else (count - 1, 3))
    assert jax.tree.structure(found.gradient) == jax.tree.structure(exact(SYSTEM, X, Y).gradient)


@pytest.mark.parametrize("rule", [SimultaneousPerturbation(0.01, 3), PhysicsAware(Mismatch(0.1))])
def test_strict_rules_raise_and_lenient_ones_count(rule):
    hasty = HastySprings(SYSTEM.stiffness, SYSTEM.hardness)
    with pytest.raises(ConvergenceError, match="free equilibria"):
        rule(hasty, X, Y, key=KEY)
    assert int(dataclasses.replace(rule, strict=False)(hasty, X, Y, key=KEY).unusable) >= 3


@pytest.mark.parametrize(
    ("program", "make"),
    [(_by_pushes, SimultaneousPerturbation), (_by_forces, NodePerturbation),
     (_through_twin, lambda size: PhysicsAware(Mismatch(size)))],
)  # fmt: skip
def test_another_number_compiles_nothing(program, make):
    sizes = []
    for number in (0.013, 0.024):
        make(number)(SYSTEM, X, Y, key=KEY)
        sizes.append(program._cached._cache_size())
    assert sizes[0] == sizes[1]


def test_fit_trains_by_a_rule_of_order_zero():
    data = (np.asarray(jax.random.normal(KEY, (16, 3))), None)
    data = (data[0], data[0] @ np.array([[0.5, 0.1], [-0.2, 0.4], [0.8, 0.0]]))
    rule = SimultaneousPerturbation(0.01, 2)
    run = fit(LINEAR, rule, data, optimiser=optax.sgd(0.05), epochs=60, batch_size=16, key=KEY, progress=False)
    assert run.history["cost"][-1] < 1e-2 * run.history["cost"][0]


# pushes of nodes


class Walled(LinearResponse):
    """The same masses above a floor, settled by the generic solver."""

    relax = Substrate.relax

    def bounds(self, x):
        return jnp.zeros_like(self.offset), jnp.full_like(self.offset, jnp.inf)


class Swirl(Substrate):
    """Forces W x - M s that have no energy."""

    weight: jax.Array
    twist: jax.Array

    def force(self, state, x):
        return self.weight @ x - (jnp.array([[1.0, 0.0], [0.0, 2.0]]) + self.twist) @ state

    def initial_state(self, x):
        return jnp.zeros(2, x.dtype)

    def read(self, state, x):
        return state[:1]


@given(seed=st.integers(0, 10_000))
def test_a_probe_of_forces_is_known_in_closed_form(seed):
    """With s = W x + b + push and r = s - y, e = D (D.r), and the gradient in b is e, in W e x'."""
    found = estimate(NodePerturbation(jnp.asarray(0.1)), LINEAR, XL, YL, jax.random.key(seed))
    left = np.asarray(found.output - YL)[0]
    felt = np.asarray(found.gradient.offset)
    signs = [np.array(each) for each in itertools.product((-1, 1), repeat=2)]
    assert min(np.max(np.abs(felt - each * (each @ left))) for each in signs) < 1e-8
    np.testing.assert_allclose(found.gradient.weight, np.outer(felt, XL[0]), rtol=1e-12)


def test_node_perturbation_finds_the_gradient_without_an_energy():
    net = Swirl(jnp.array([[0.3, -0.5, 0.8], [0.1, 0.9, -0.4]]), jnp.array([[0.1, 0.9], [-0.7, 0.2]]))
    wanted = flat(exact(net, XL, YL[:, :1]).gradient)
    found = flat(estimate(NodePerturbation(1e-3, 1500), net, XL, YL[:, :1], KEY).gradient)
    assert np.linalg.norm(found - wanted) < 0.12 * np.linalg.norm(wanted)


def test_the_bias_of_node_perturbation_falls_with_the_square_of_the_force():
    found = [flat(estimate(NodePerturbation(jnp.asarray(c)), SYSTEM, X, Y, KEY).gradient) for c in (0.04, 0.02, 0.01)]
    first, second = (np.linalg.norm(np.subtract(*pair)) for pair in itertools.pairwise(found))
    np.testing.assert_allclose(first / second, 4, rtol=0.1)


def test_forces_do_not_move_what_a_bound_holds():
    walled = Walled(LINEAR.weight, jnp.array([-5.0, 0.5]))
    found = NodePerturbation(0.01, 3)(walled, XL, YL, key=KEY)
    np.testing.assert_allclose(found.output[0, 0], 0, atol=1e-12)
    np.testing.assert_array_equal(found.gradient.weight[0], 0)
    np.testing.assert_allclose(found.gradient.weight[1], (found.output - YL)[0, 1] * XL[0], rtol=1e-5)


# twins


def test_with_a_perfect_twin_it_is_the_exact_gradient():
    found = PhysicsAware(Mismatch(0.0))(SYSTEM, X, Y)
    np.testing.assert_allclose(flat(found.gradient), WANTED, rtol=1e-12)


@given(seed=st.integers(0, 10_000), size=st.floats(0, 1))
def test_the_slope_is_taken_at_the_physical_output(seed, size):
    """W' = W m: the twin's output moves with W by m x, what drives it is W x + b - y of the physical system."""
    twin = Mismatch(size, seed)(LINEAR)
    found = PhysicsAware(Mismatch(size, seed))(LINEAR, XL, YL)
    left = np.asarray(XL) @ np.asarray(LINEAR.weight).T + np.asarray(LINEAR.offset) - np.asarray(YL)
    np.testing.assert_allclose(found.output - YL, left, rtol=1e-12)
    np.testing.assert_allclose(found.gradient.weight, twin.weight / LINEAR.weight * np.outer(left, XL), rtol=1e-10)
    np.testing.assert_allclose(found.gradient.offset, twin.offset / LINEAR.offset * left[0], rtol=1e-10)


def angle(one, other):
    one, other = flat(one), flat(other)
    return np.arccos(np.clip(one @ other / np.linalg.norm(one) / np.linalg.norm(other), -1, 1))


def test_the_angle_to_the_gradient_grows_with_the_mismatch():
    sizes, right = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64), exact(SYSTEM, X, Y).gradient
    found = np.array(
        [[angle(PhysicsAware(Mismatch(h, seed))(SYSTEM, X, Y).gradient, right) for h in sizes] for seed in range(10)]
    )
    means = found.mean(axis=0)
    assert np.all(np.diff(means) > 0)
    np.testing.assert_allclose(means[1] / means[0], 2, rtol=0.15)  # to first order


# feedback


def layered(*sizes, seed=3, **options):
    return PredictiveCodingNetwork.dense(sizes, key=jax.random.key(seed), **options)


def forward_cost(net, x, y):
    return jnp.mean(jax.vmap(lambda x, y: SquaredError()(net.predict(x)[-1], y))(x, y))


XP, YP = jax.random.normal(KEY, (4, 3)), jax.random.normal(jax.random.key(1), (4, 2))


@pytest.mark.parametrize("rectifier", ["buffered", "free"])
def test_with_the_transposed_weights_it_is_backpropagation(rectifier):
    net = layered(3, 5, 4, 2, rectifier=rectifier)
    found = FeedbackAlignment(lambda net: net)(net, XP, YP)
    np.testing.assert_allclose(flat(found.gradient), flat(jax.grad(forward_cost)(net, XP, YP)), rtol=1e-11, atol=1e-15)
    assert found.relaxations == 1


def test_connections_past_layers_and_convolutions_carry_errors_back():
    net = PredictiveCodingNetwork.convolutional((4, 4, 1), (2, 2), (2,), skips=((0, 2),), key=KEY)
    x = jax.random.normal(KEY, (2, 4, 4, 1))
    found = FeedbackAlignment(lambda net: net)(net, x, YP[:2])
    np.testing.assert_allclose(
        flat(found.gradient), flat(jax.grad(forward_cost)(net, x, YP[:2])), rtol=1e-10, atol=1e-14
    )


def test_errors_return_through_fixed_random_matrices():
    net, back = layered(3, 5, 4, 2), RandomWeights(7, 1.5)(layered(3, 5, 4, 2, seed=9))
    found = FeedbackAlignment(RandomWeights(7, 1.5))(net, XP, YP).gradient
    B = [np.asarray(each.weight) for each in back.coupling]
    assert all(np.max(np.abs(b)) <= 1.5 / len(b) ** 0.5 for b in B)
    wanted = [np.zeros(each.weight.shape) for each in net.coupling]
    for x, y in zip(np.asarray(XP), np.asarray(YP), strict=True):
        h = [x, *(np.asarray(layer) for layer in net.predict(jnp.asarray(x)))]
        delta = h[3] - y
        for k in (2, 1, 0):
            wanted[k] += np.outer(h[k], delta) / len(XP)
            delta = (B[k] @ delta) * (h[k] > 0)
    for each, gradient in zip(wanted, found.coupling, strict=True):
        np.testing.assert_allclose(gradient.weight, each, rtol=1e-10, atol=1e-14)


def test_it_learns_and_its_angle_falls_below_a_right_one():
    teacher, net = layered(3, 8, 2, seed=1), layered(3, 12, 2, seed=5, gain=0.3)
    x = np.asarray(jax.random.normal(KEY, (32, 3)))
    y = np.asarray(jax.vmap(lambda x: teacher.predict(x)[-1])(jnp.asarray(x)))
    rule = FeedbackAlignment(RandomWeights(2))
    start = angle(rule(net, x, y).gradient.coupling[0], jax.grad(forward_cost)(net, x, y).coupling[0])
    run = fit(net, rule, (x, y), optimiser=optax.sgd(0.3), epochs=200, batch_size=32, key=KEY, progress=False)
    end = angle(rule(run.substrate, x, y).gradient.coupling[0], jax.grad(forward_cost)(run.substrate, x, y).coupling[0])
    assert run.history["cost"][-1] < 0.2 * run.history["cost"][0]
    assert end < np.pi / 2
    assert end < start


# knobs


def line(n=12):
    x = np.random.default_rng(3).normal(size=(n, 3))
    return x, x @ np.array([[0.5], [-0.2], [0.8]])


def scale(**options):
    return SpringScale([0.4, -0.7, 1.1], 1.3, 0.1, (0.3, -0.2, 0.1), **options)


@pytest.mark.parametrize("rule", [FiniteDifferences(0.1), AllSigns(0.1)], ids=["differences", "all signs"])
def test_knobs_descend_the_cost(rule):
    """Free, theta = u - epsilon pull and s = theta.x: the cost is a parabola in u, whose differences are exact."""
    system, (x, y) = scale(), line()
    before, theta = system.read().knobs, system.theta - 0.1 * system.pull
    found = KnobDescent(rule, 0.3).step(system, x, y)
    left = x @ theta - y[:, 0]
    np.testing.assert_allclose(system.read().knobs, before - 0.3 * left @ x / len(x), rtol=1e-10)
    np.testing.assert_allclose(found.cost, np.mean(left**2) / 2, rtol=1e-12)
    np.testing.assert_allclose(found.output[:, 0], x @ theta, rtol=1e-12)
    assert found.system is system
    assert system.settled == len(x) * (1 + 2 * rule.pushes(3)) + 1


def test_knobs_stay_in_their_range_and_count_as_far_as_they_went():
    system, (x, y) = scale(knob_range=(-0.7, 1.1)), line()
    theta = system.theta - 0.1 * system.pull
    rule = KnobDescent(FiniteDifferences(0.1), 0.3)
    cost = lambda theta: np.mean((x @ theta - y[:, 0]) ** 2) / 2
    ends = [(0.1, -0.1), (0.1, 0.0), (0.0, -0.1)]
    slopes = [
        (cost(theta + up * np.eye(3)[k]) - cost(theta + down * np.eye(3)[k])) / (up - down)
        for k, (up, down) in enumerate(ends)
    ]
    rule.step(system, x, y)
    np.testing.assert_allclose(
        system.read().knobs, np.clip(theta + 0.1 * system.pull - 0.3 * np.array(slopes), -0.7, 1.1)
    )


EDGES = [(0, 2), (0, 3), (1, 3), (1, 2), (2, 3)]
NET = ResistorNetwork.from_edges(EDGES, n=4, inputs=[0, 1], outputs=[3], conductance=jnp.linspace(0.5, 1.5, 5))
XN, YN = np.array([[1.0, 0.5], [0.2, -0.6]]), np.array([[0.9], [-0.1]])


def test_on_a_stiff_plant_it_is_gradient_descent_of_the_substrate():
    plant = Plant(NET, 1e-6, inputs=2)
    KnobDescent(FiniteDifferences(1e-3), 0.1).step(SealedSystem(plant), XN, YN)
    wanted = flat(exact(NET, jnp.asarray(XN), jnp.asarray(YN)).gradient)
    np.testing.assert_allclose((plant.read().knobs - flat(NET.conductance)) / -0.1, wanted, rtol=1e-3, atol=1e-6)


def test_copies_settle_together():
    one, two = (Plant(NET, 1e-6, inputs=2, copies=copies) for copies in (None, 2))
    found = [KnobDescent(FiniteDifferences(1e-3), 0.1).step(plant, XN, YN) for plant in (one, two)]
    np.testing.assert_allclose(found[0].output, found[1].output, rtol=1e-6)
    np.testing.assert_allclose(one.read().knobs, two.read().knobs, rtol=1e-6)
    with pytest.raises(ValueError, match="x: wanted a multiple of the 2 copies of the system, got 1"):
        KnobDescent(FiniteDifferences(1e-3), 0.1).step(two, XN[:1], YN[:1])


@pytest.mark.parametrize("kind", ["linear", "noisy"])
def test_imperfect_systems_learn(kind, key):
    if kind == "linear":
        system, teacher = LinearSystem.drawn(twist=0.3), LinearSystem.drawn(twist=0.3)
        x = np.random.default_rng(1).normal(size=(4, 3))
        teacher.set_knobs(np.array([1.4, 0.7, 1.2, 0.9, 1.3, 0.6]))
        y = []
        for each in x:
            teacher.clamp(each)
            teacher.settle()
            y.append(teacher.read().outputs)
        data, rule = (x, np.stack(y)), KnobDescent(SimultaneousPerturbation(0.1, 2), 0.5)
    else:
        plant = Plant(NET, 1e-3, inputs=2, knob_range=(0.05, 4.0))
        system = Noisy(plant, output_noise=1e-4, bits=10, dead=[1], drift=1e-4, spread=0.1, seed=1)
        data, rule = (XN, YN), KnobDescent(SimultaneousPerturbation(0.1), 5.0)
    run = fit(system, rule, data, epochs=40, batch_size=len(data[0]), key=key, progress=False)
    assert run.history["cost"][-1] < 0.5 * run.history["cost"][0]


def test_a_resumed_run_ends_as_one_that_was_never_stopped(key, tmp_path):
    rule = KnobDescent(SimultaneousPerturbation(0.05), 0.1)
    options = dict(batch_size=4, key=key, progress=False)
    whole, first, again = scale(), scale(), scale()
    run = fit(whole, rule, line(), epochs=4, validation=line(5), **options)
    fit(first, rule, line(), epochs=2, out=tmp_path / "run", **options)
    fit(again, rule, line(), epochs=4, out=tmp_path / "run", resume=True, **options)
    np.testing.assert_array_equal(again.read().knobs, whole.read().knobs)
    left = line(5)[0] @ (whole.u - 0.1 * whole.pull) - line(5)[1][:, 0]
    np.testing.assert_allclose(run.history["validation_cost"][-1], np.mean(left**2) / 2, rtol=1e-9)
    np.testing.assert_allclose(run.predict(line(5)[0]).outputs[:, 0], left + line(5)[1][:, 0], rtol=1e-9)


class Broken(SpringScale):
    """Stops settling, or shows no number, after so many settlings."""

    def __init__(self, good, kind):
        super().__init__([0.4, -0.7, 1.1])
        self.good, self.kind = good, kind

    def settle(self):
        status = super().settle()
        return Status.out_of_steps if self.kind == "restless" and self.settled > self.good else status

    def read(self):
        shown = super().read()
        blind = self.kind == "blind" and self.settled > self.good
        return Reading(shown.outputs * np.nan, shown.parameters, shown.knobs) if blind else shown


@pytest.mark.parametrize(
    ("kind", "error", "match"),
    [("restless", ConvergenceError, "the system did not settle"), ("blind", LaboratoryError, "wanted finite readings")],
)
def test_a_step_that_fails_leaves_the_knobs_where_they_were(kind, error, match, key):
    system, rule = Broken(20, kind), KnobDescent(FiniteDifferences(0.1), 0.3)
    with pytest.raises(error, match=match):
        rule.step(system, *line())
    np.testing.assert_array_equal(system.u, [0.4, -0.7, 1.1])
    with pytest.raises(TrainingError, match=match):
        fit(Broken(20, kind), rule, line(), epochs=1, batch_size=12, key=key, progress=False)


def test_a_lenient_rule_counts_what_did_not_settle():
    lenient = KnobDescent(FiniteDifferences(0.1), 0.3, strict=False)
    assert lenient.step(Broken(20, "restless"), *line()).unconverged == 12 * 7 + 1 - 20


# refusals


@pytest.mark.parametrize("kind", [SimultaneousPerturbation, EvolutionStrategy, FiniteDifferences, NodePerturbation])
def test_steps_that_are_none_are_refused(kind):
    for step, error in ((0.0, ValueError), (-1.0, ValueError), (np.nan, ValueError), ("0.1", TypeError)):
        with pytest.raises(error, match="step: wanted a positive number"):
            kind(step)
    if kind is not NodePerturbation:
        with pytest.raises(ValueError, match="step: wanted a positive number"):
            kind({"stiffness": 0.1, "hardness": 0.0})
        with pytest.raises(ValueError, match=r"step: wanted .* got an empty dict"):
            kind({})
    if kind is not FiniteDifferences:
        for probes in (0, 1.5, True):
            with pytest.raises(ValueError, match="probes: wanted a whole number, at least 1"):
                kind(0.1, probes)
        with pytest.raises(ValueError, match="key: wanted a key, which draws"):
            kind(0.1)(SYSTEM, X, Y)


MISTAKES = [
    (lambda: NodePerturbation(0.1)(IsingModel.layered((1, 2, 1), key=KEY), X, Y[:, :1], key=KEY), ValueError,
     "got .* whose states are discrete; push its parameters"),
    (lambda: PhysicsAware(0.1), TypeError, "twin: wanted a callable .* got 0.1; give Mismatch"),
    (lambda: PhysicsAware(lambda net: 0.1)(SYSTEM, X, Y), TypeError, "returns a Substrate, got one that returns float"),
    (lambda: PhysicsAware(lambda net: LinearResponse(jnp.ones((1, 1)), jnp.ones(1)))(SYSTEM, X, Y), ValueError,
     r"twin: wanted a model with outputs of shape \(2,\), got \(1,\)"),
    (lambda: PhysicsAware(Mismatch(0.1))(IsingModel.layered((1, 2, 1), key=KEY), X, Y[:, :1]), ValueError,
     "twin: wanted a model with states that can be differentiated, got .* discrete"),
    (lambda: Mismatch(-0.1), ValueError, "size: wanted a positive number, got -0.1, or 0"),
    (lambda: Mismatch("a"), TypeError, "size: wanted a positive number, got 'a', or 0"),
    (lambda: Mismatch(0.1, 0.5), TypeError, "seed: wanted a whole number, got 0.5"),
    (lambda: FeedbackAlignment()(SYSTEM, X, Y), TypeError, "substrate: FeedbackAlignment wanted .* got Springs; train"),
    (lambda: FeedbackAlignment()(HopfieldNetwork.layered((1, 2, 2), key=KEY), X, Y), TypeError, "feed-forward layers"),
    (lambda: FeedbackAlignment(lambda net: SYSTEM)(layered(3, 4, 2), XP, YP), TypeError, "feedback: .* got Springs"),
    (lambda: FeedbackAlignment(3), TypeError, "feedback: wanted a callable .* got 3; give RandomWeights"),
    (lambda: RandomWeights(0.5), TypeError, "seed: wanted a whole number, got 0.5"),
    (lambda: RandomWeights(-1), ValueError, "seed: wanted a whole number from 0"),
    (lambda: RandomWeights(0, 0.0), ValueError, "gain: wanted a positive number, got 0.0"),
    (lambda: KnobDescent(EquilibriumPropagation(0.1), 0.1), TypeError, "rule: wanted a rule of order zero"),
    (lambda: KnobDescent(FiniteDifferences({"a": 0.1}), 0.1), ValueError, "rule: wanted a step of one number"),
    (lambda: KnobDescent(FiniteDifferences(0.1), 0.0), ValueError, "learning_rate: wanted a positive number, got 0.0"),
    (lambda: KnobDescent(SimultaneousPerturbation(0.1), 0.1).step(scale(), *line()), ValueError, "key: wanted a key"),
    (lambda: fit(SYSTEM, KnobDescent(FiniteDifferences(0.1), 0.1), (X, Y), epochs=1, key=KEY), TypeError,
     r"KnobDescent trains a PhysicalSystem, got Springs; put it on the bench with Plant"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "match"), MISTAKES)
def test_mistakes_are_explained(call, error, match):
    with pytest.raises(error, match=match):
        call()
