"""Contrastive and coupled learning against differences of what they descend and the response of linear theory."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from every_system import SYSTEMS
from hypothesis import given
from hypothesis import strategies as st

from learning import ContrastiveLearning, CoupledLearning, CrossEntropy, EquilibriumPropagation, SquaredError
from learning.rule import ConvergenceError
from substrates import Pin, ResistorNetwork, Substrate
from substrates.substrate import NudgeRefusedError, relax_batch, split_parameters
from theory_checks import SealedSubstrate


class Springs(Substrate):
    """A convex chain of hardening springs between an input and the ground."""

    stiffness: jax.Array
    hardness: jax.Array
    outputs: tuple[int, ...] = eqx.field(static=True, default=(1, 2))

    def energy(self, state, x):
        stretch = jnp.diff(jnp.concatenate([x, state]))
        return 0.5 * jnp.sum(self.stiffness * stretch**2) + 0.25 * jnp.sum(self.hardness * state**4)

    def initial_state(self, x):
        return jnp.full(3, 0.1, x.dtype)

    def read(self, state, x):
        return state[np.asarray(self.outputs)]


class Readout(Substrate):
    """Springs read through a trained matrix."""

    inner: Springs
    weight: jax.Array

    def energy(self, state, x):
        return self.inner.energy(state, x)

    def initial_state(self, x):
        return self.inner.initial_state(x)

    def read(self, state, x):
        return self.weight @ state


SYSTEM = Springs(jnp.array([1.0, 2.0, 1.5]), jnp.array([1.0, 0.5, 0.8]))
ALONE = Springs(SYSTEM.stiffness, SYSTEM.hardness, (2,))
X, Y = jnp.array([[0.6], [-0.8], [0.3]]), jnp.array([[0.5, 0.7], [-0.3, -0.5], [0.9, -0.2]])
VARIANTS = ("positive", "negative", "centered")
relax = eqx.filter_jit(lambda system, x, nudge=None, start=None: system.relax(x, nudge, start))


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def apart(found, wanted):
    return np.linalg.norm(flat(found) - flat(wanted)) / np.linalg.norm(flat(wanted))


@eqx.filter_jit
def response(system, x, y):
    """(do/dtheta)' chi^-1 dC/do and (do/dtheta)' dC/do of the squared error, from dense derivatives at the free state,
    and chi.
    """
    parameters, rest = split_parameters(system)

    def one(x, y):
        state = system.relax(x).state
        hessian = jax.hessian(system.energy)(state, x)
        shows = jax.jacfwd(system.read)(state, x)
        chi = shows @ jnp.linalg.solve(hessian, shows.T)
        mixed = jax.jacfwd(lambda p: jax.grad(eqx.combine(p, rest).energy)(state, x))(parameters)
        moved = jax.tree.map(lambda m: -shows @ jnp.linalg.solve(hessian, m), mixed)
        error = system.read(state, x) - y
        weigh = lambda slope: jax.tree.map(lambda m: slope @ m, moved)
        return weigh(jnp.linalg.solve(chi, error)), weigh(error), chi

    coupled, exact, chi = jax.vmap(one)(x, y)
    return *(jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), tree) for tree in (coupled, exact)), chi


# what they descend


@pytest.mark.parametrize(
    "name",
    [
        "resistors",
        "springs",
        "spins",
        "oscillators",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("layered resistors", "layered spins", "continuous Hopfield", "predictive coding", "matrices")
        ),
    ],
)
def test_contrastive_learning_is_the_gradient_of_its_own_objective(name):
    """L = E(o = y) - E(free), by differences along a random direction of the parameters."""
    net = SYSTEMS[name]()
    draw = np.random.default_rng(4)
    size = net.input_size
    x = jnp.asarray(draw.uniform(0.2, 0.8, (2, size)))
    shown = jax.vmap(net.read)(relax_batch(net, x).state, x)
    y = -shown if net.discrete else shown + 0.05 * jnp.asarray(draw.normal(size=shown.shape))
    estimate = ContrastiveLearning()(net, x, y)
    parameters, rest = split_parameters(net)
    leaves, tree = jax.tree.flatten(parameters)
    towards = [0.1 * jnp.asarray(draw.normal(size=leaf.shape)) for leaf in leaves]

    @jax.jit
    def objective(step):
        moved = jax.tree.unflatten(tree, [leaf + step * d for leaf, d in zip(leaves, towards, strict=True)])
        system = eqx.combine(moved, rest)
        free = relax_batch(system, x)
        held = relax_batch(system, x, Pin(y), free.state)
        return jnp.mean(held.energy - free.energy), held.usable.all() & free.usable.all()

    step = 1e-4
    (up, settled), (down, too) = objective(step), objective(-step)
    assert settled
    assert too
    slope = sum(np.vdot(g, d) for g, d in zip(jax.tree.leaves(estimate.gradient), towards, strict=True))
    scale = np.linalg.norm(flat(estimate.gradient)) * np.linalg.norm(flat(towards))
    np.testing.assert_allclose((up - down) / (2 * step), slope, atol=2e-6 * scale, rtol=0)
    assert estimate.relaxations == 2


@given(st.integers(0, 2**31 - 1))
def test_the_contrastive_objective_is_never_negative_and_vanishes_where_outputs_are_right(seed):
    draw = np.random.default_rng(seed)
    system = Springs(*(jnp.asarray(draw.uniform(0.3, 2, 3)) for _ in range(2)))
    x = jnp.asarray(draw.normal(size=1))
    free = relax(system, x)
    shown = system.read(free.state, x)
    target = shown + jnp.asarray(draw.normal(size=2))
    assert relax(system, x, Pin(target), free.state).energy > free.energy
    np.testing.assert_allclose(relax(system, x, Pin(shown), free.state).energy, free.energy, atol=1e-12)
    estimate = ContrastiveLearning()(system, x[None], shown[None])
    np.testing.assert_allclose(flat(estimate.gradient), 0, atol=1e-9)


# coupled learning


def test_several_outputs_are_weighed_by_the_inverse_of_their_response():
    wanted, exact, _ = response(SYSTEM, X, Y)
    found = CoupledLearning(1e-3)(SYSTEM, X, Y)
    assert apart(found.gradient, wanted) < 1e-5  # eta^2, and a few
    cosine = flat(wanted) @ flat(exact) / np.linalg.norm(flat(wanted)) / np.linalg.norm(flat(exact))
    assert cosine < 0.98  # the two rules differ here


def test_one_output_has_the_direction_of_equilibrium_propagation():
    x, y = X[:1], Y[:1, 1:]
    wanted, exact, chi = response(ALONE, x, y)
    found = CoupledLearning(1e-3)(ALONE, x, y)
    assert apart(jax.tree.map(lambda leaf: leaf * chi[0, 0, 0], found.gradient), exact) < 1e-5
    propagated = EquilibriumPropagation(1e-3)(ALONE, x, y)
    assert apart(jax.tree.map(lambda leaf: leaf * chi[0, 0, 0], found.gradient), propagated.gradient) < 1e-5
    assert apart(found.gradient, wanted) < 1e-5


@pytest.mark.parametrize(("variant", "order"), [("positive", 1), ("negative", 1), ("centered", 2)])
def test_the_bias_falls_with_eta(variant, order):
    wanted = response(SYSTEM, X, Y)[0]
    errors = [apart(CoupledLearning(eta, variant)(SYSTEM, X, Y).gradient, wanted) for eta in (0.08, 0.04, 0.02)]
    ratios = np.log2(np.divide(errors[:-1], errors[1:]))
    np.testing.assert_allclose(ratios, order, atol=0.1)


def test_outputs_are_held_on_either_side_of_where_they_are_free():
    free = relax_batch(SYSTEM, X)
    shown = jax.vmap(SYSTEM.read)(free.state, X)
    for variant, places in (("positive", [1]), ("negative", [-1]), ("centered", [1, -1])):
        found = CoupledLearning(0.25, variant)(SYSTEM, X, Y)
        assert found.relaxations == len(found.equilibria) == 1 + len(places)
        np.testing.assert_allclose(found.equilibria[0].state, free.state, atol=1e-12)
        for held, sign in zip(found.equilibria[1:], places, strict=True):
            np.testing.assert_allclose(jax.vmap(SYSTEM.read)(held.state, X), shown + sign * 0.25 * (Y - shown))


def test_the_whole_way_to_the_target_is_contrastive_learning():
    found, wanted = CoupledLearning(1.0, "positive")(SYSTEM, X, Y), ContrastiveLearning()(SYSTEM, X, Y)
    assert apart(found.gradient, wanted.gradient) < 1e-9


def test_another_cost_moves_outputs_down_its_slope():
    """Softmax and cross-entropy: o - eta (p - y)."""
    y = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = CoupledLearning(0.5, "positive", cost=CrossEntropy())(SYSTEM, X, y)
    shown = found.output
    np.testing.assert_allclose(
        jax.vmap(SYSTEM.read)(found.equilibria[1].state, X), shown - 0.5 * (jax.nn.softmax(shown) - y), atol=1e-9
    )
    np.testing.assert_allclose(found.cost, -np.mean(np.sum(y * jax.nn.log_softmax(shown), axis=1)))


# both


@pytest.mark.parametrize("rule", [ContrastiveLearning(), CoupledLearning(0.1)])
def test_a_batch_gives_the_mean_of_its_examples_and_a_sealed_system_the_same(rule):
    whole = rule(SYSTEM, X, Y)
    singles = [rule(SYSTEM, X[k : k + 1], Y[k : k + 1]).gradient for k in range(len(X))]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *singles)
    assert apart(whole.gradient, mean) < 1e-9
    assert apart(rule(SealedSubstrate(SYSTEM), X, Y).gradient, whole.gradient) < 1e-12


@pytest.mark.parametrize("rule", [ContrastiveLearning(), *(CoupledLearning(0.1, variant) for variant in VARIANTS)])
def test_a_sealed_circuit_learns(rule):
    edges = [(0, 2), (0, 3), (1, 3), (1, 4), (2, 3), (3, 4), (2, 5), (3, 5), (4, 5)]
    net = ResistorNetwork.from_edges(edges, n=6, inputs=[0, 1], outputs=[5], conductance=jnp.ones(9))
    x = jax.random.uniform(jax.random.key(0), (20, 2))
    y = 0.7 * x[:, :1] + 0.3 * x[:, 1:]
    optimiser = optax.adam(0.03)

    @eqx.filter_jit
    def step(system, state):
        estimate = rule(system, x, y)
        with jax.numpy_dtype_promotion("standard"):  # which optax relies on
            updates, state = optimiser.update(estimate.gradient, state)
        return eqx.apply_updates(system, updates).constrained(), state, estimate.cost

    system, costs = SealedSubstrate(net), []
    state = optimiser.init(split_parameters(system)[0])
    for _ in range(60):
        system, state, cost = step(system, state)
        costs.append(float(cost))
    assert costs[-1] < 0.02 * costs[0]


def test_labels_are_held_one_hot():
    found = ContrastiveLearning()(SYSTEM, X, np.array([1, 0, 1]))
    np.testing.assert_allclose(jax.vmap(SYSTEM.read)(found.equilibria[1].state, X), np.eye(2)[[1, 0, 1]], atol=1e-9)


# refusals


@pytest.mark.parametrize(
    ("eta", "variant", "message"),
    [
        (0.0, "positive", "eta: wanted a positive number, got 0.0"),
        (-0.1, "centered", "eta: wanted a positive number, got -0.1; the variant chooses the sign"),
        (float("nan"), "centered", "eta: wanted a positive number, got nan"),
        (1.5, "positive", "eta: wanted a part of the way to the target, above 0 and at most 1, got 1.5"),
        (0.1, "random", "variant: wanted one of"),
    ],
)
def test_impossible_parts_are_refused(eta, variant, message):
    with pytest.raises(ValueError, match=message):
        CoupledLearning(eta, variant)


def test_what_cannot_be_held_is_refused():
    spins = SYSTEMS["spins at a temperature"]()
    x, y = jnp.zeros((1, spins.input_size)), jnp.zeros((1, 1))
    with pytest.raises(NudgeRefusedError, match="cannot hold them at a pin"):
        ContrastiveLearning()(spins, x, y)
    read = Readout(SYSTEM, jnp.ones((2, 3)))
    with pytest.raises(NudgeRefusedError, match="got Readout, which reads them through trainable parameters"):
        CoupledLearning(0.1)(read, X, Y)
    with pytest.raises(ValueError, match=r"y: wanted shape \(n, 2\)"):
        CoupledLearning(0.1)(SYSTEM, X, jnp.zeros((3, 5)))
    own = dataclasses.replace(CoupledLearning(0.1), cost=LabelledError())
    with pytest.raises(ValueError, match="cost: CoupledLearning holds outputs at numbers"):
        own(SYSTEM, X, Y)


class LabelledError(SquaredError):
    own_targets = True


def test_a_target_that_no_state_shows_is_reported():
    """Divided voltages lie between those of the inputs."""
    net = ResistorNetwork.from_edges([(0, 1), (1, 2)], n=3, inputs=[0, 2], outputs=[1, 0], conductance=jnp.ones(2))
    with pytest.raises((ConvergenceError, ValueError)):
        ContrastiveLearning()(net, jnp.array([[1.0, 0.0]]), jnp.array([[0.5, 2.0]]))
