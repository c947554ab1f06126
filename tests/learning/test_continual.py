"""Continual equilibrium propagation: its limits and their order, what moves, in a sealed box, without an energy."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from small_networks import KEY, SIZES, X, Y, smooth, unsettled

from learning import ContinualEP, SquaredError, fit, updates_in_time
from learning.options import UsageError, rule_of, settings_of
from learning.rule import ConvergenceError
from substrates import (
    DiscreteTime,
    HopfieldNetwork,
    IsingModel,
    Nudge,
    RecurrentNetwork,
    ResistorNetwork,
    SmoothHopfieldNetwork,
)
from substrates.solvers.generic import Newton
from theory_checks import SealedSubstrate

NET = smooth()


def flat(system):
    return ravel_pytree(eqx.filter(system, eqx.is_inexact_array))[0]


def moved(rule, system=NET, x=X, y=Y, **options):
    """(theta_steps - theta_0) / eta, in one vector."""
    return (flat(rule.step(system, x, y, **options).system) - flat(system)) / rule.learning_rate


def descent(system, steps, x=X, y=Y):
    """Minus the gradient of back-propagation through the last steps."""
    return -flat(jax.tree.map(lambda g: jnp.sum(g, axis=0), updates_in_time(system, x, y, 1e-3, steps).gradient))


def off(found, wanted):
    return float(jnp.linalg.norm(found - wanted) / jnp.linalg.norm(wanted))


@given(seed=st.integers(0, 1000))
@settings(max_examples=4)
def test_the_error_is_of_order_beta_plus_eta_over_beta(seed):
    """Either part alone where the other is small; so at eta = beta it stays, however small both are."""
    net = smooth(seed)
    wanted = descent(net, 10)
    error = lambda beta, eta: off(moved(ContinualEP(beta, eta, 10), net), wanted)
    np.testing.assert_allclose(error(1e-2, 1e-8) / error(1e-3, 1e-8), 10, rtol=0.1)
    by_ratio = [error(1e-6, 1e-6 * ratio) for ratio in (1e-2, 1e-3)]
    np.testing.assert_allclose(by_ratio[0] / by_ratio[1], 10, rtol=0.3)
    assert error(1e-3, 1e-8) < 1e-2
    assert min(error(beta, beta) for beta in (1e-2, 1e-4, 1e-6)) > 1


@pytest.mark.parametrize("setting", ["prototypical", "energy-based"])
def test_every_step_is_that_of_back_propagation_through_time(setting):
    solver = DiscreteTime(0.5, setting)
    wanted = updates_in_time(NET, X, Y, 1e-3, 3, solver=solver, free_steps=500).gradient
    so_far = jnp.zeros(flat(NET).size)
    for t in range(3):
        through = moved(ContinualEP(1e-5, 1e-10, t + 1, solver=solver))
        assert off(through - so_far, -flat(jax.tree.map(lambda g, t=t: g[t], wanted))) < 1e-3
        so_far = through


@eqx.filter_jit
def by_hand(net, rule, x, y):
    """The rule for one example, from its definition: E differentiated as it is, one step after the other."""
    state = net.relax(x).state
    for _ in range(rule.steps):
        nudge = Nudge(rule.cost, y, rule.beta)
        after = rule.solver.step(net, state, x, nudge)
        slope = lambda s, net=net: jax.grad(lambda n: n.energy(s, x))(net)
        change = jax.tree.map(lambda a, b: a - b, slope(after), slope(state))
        net = jax.tree.map(lambda theta, c: theta - rule.learning_rate / rule.beta * c, net, change)
        state = after
    return net


def test_a_phase_is_the_definition():
    """With learning rates that are felt at once."""
    rule = ContinualEP(0.3, 0.1, 2)
    found, wanted = rule.step(NET, X[:1], Y[:1]).system, by_hand(NET, rule, X[0], Y[0])
    np.testing.assert_allclose(flat(found), flat(wanted), atol=1e-9)
    assert np.max(np.abs(flat(found) - flat(NET))) > 1e-2


def test_examples_share_the_mean_of_their_updates():
    rule = ContinualEP(0.3, 0.1, 1)
    both, each = moved(rule), [moved(rule, x=X[k : k + 1], y=Y[k : k + 1]) for k in range(2)]
    np.testing.assert_allclose(both, (each[0] + each[1]) / 2, atol=1e-9)


def test_negative_and_random_signs():
    """Either sign descends; a random one is drawn for each example from the key."""
    by_sign = {name: [] for name in ("positive", "negative")}
    for name, found in by_sign.items():
        found += [moved(ContinualEP(0.1, 1e-3, 1, name), x=X[k : k + 1], y=Y[k : k + 1]) for k in range(2)]
    assert off(by_sign["negative"][0], by_sign["positive"][0]) < 0.2
    sums = [by_sign[a][0] + by_sign[b][1] for a in by_sign for b in by_sign]
    met = set()
    for seed in range(12):
        found = 2 * moved(ContinualEP(0.1, 1e-3, 1, "random"), key=jax.random.key(seed))
        distances = [float(jnp.max(jnp.abs(found - one))) for one in sums]
        assert min(distances) < 1e-9
        met.add(int(np.argmin(distances)))
    assert len(met) == 4


def test_learning_rates_by_parameter():
    rates = {"coupling": 1e-3, "coupling[1]": 2e-3, "bias": 3e-3}
    by_path = ContinualEP(0.1, rates, 1).step(NET, X, Y).system
    even = ContinualEP(0.1, 1e-3, 1).step(NET, X, Y).system
    factors = {"coupling": [1, 2, 1], "bias": [3, 3, 3]}
    for name, each in factors.items():
        for k, factor in enumerate(each):
            change = lambda net, name=name, k=k: flat(getattr(net, name)[k]) - flat(getattr(NET, name)[k])
            np.testing.assert_allclose(change(by_path), factor * change(even), atol=1e-12)


@pytest.mark.parametrize("variant", ["positive", "random"])
def test_a_sealed_system_is_moved_alike(variant):
    rule = ContinualEP(0.1, 1e-2, 3, variant)
    inside = rule.step(SealedSubstrate(NET), X, Y, key=KEY)
    outside = rule.step(NET, X, Y, key=KEY)
    assert isinstance(inside.system, SealedSubstrate)
    np.testing.assert_allclose(flat(inside.system), flat(outside.system), atol=1e-14)
    np.testing.assert_allclose((inside.cost, inside.residual), (outside.cost, outside.residual))


def test_parameters_stay_physical_and_the_given_ones_stay():
    """An output that is to be below what any conductance makes of it: the one to the source falls to its floor."""
    conductance = np.array([0.05, 1.0, 1.0])
    circuit = ResistorNetwork.from_edges([(0, 1), (1, 2), (2, 0)], inputs=[0, 2], outputs=[1], conductance=conductance)
    x, y = jnp.array([[1.0, 0.0]]), jnp.array([[-1.0]])
    found = ContinualEP(0.5, 0.2, 20, solver=DiscreteTime(0.3)).step(circuit, x, y)
    assert found.system.conductance[0] == 0
    np.testing.assert_array_equal(circuit.conductance, conductance)
    np.testing.assert_allclose(found.output, [[0.05 / 1.05]], rtol=1e-9)


def test_exclusive_or_is_learned():
    x, y = jnp.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), jnp.array([[0.0], [1], [1], [0]])
    net = HopfieldNetwork.layered((2, 12, 1), key=jax.random.key(2))
    run = fit(net, ContinualEP(0.5, 0.05, 10), (x, y), epochs=1500, batch_size=4, key=KEY)
    assert run.history["cost"][0] > 0.1
    assert run.history["cost"][-1] < 0.005


def test_another_beta_or_rate_compiles_nothing():
    traces = []

    class Traced(HopfieldNetwork):
        def energy(self, state, x):
            traces.append(1)
            return HopfieldNetwork.energy(self, state, x)

    net = Traced.layered((3, 4, 2), key=KEY)
    ContinualEP(0.1, 1e-2, 3).step(net, X, Y)
    before = len(traces)
    ContinualEP(0.2, 1e-3, 3).step(net, X, Y)
    assert len(traces) == before


def test_what_fails_is_refused_or_counted():
    net = unsettled(HopfieldNetwork).layered((3, 4, 2), key=KEY)
    with pytest.raises(ConvergenceError, match="2 of 2 free equilibria"):
        ContinualEP(0.1, 1e-2, 2).step(net, X, Y)
    assert int(ContinualEP(0.1, 1e-2, 2, strict=False).step(net, X, Y).unconverged) == 2
    wild = ContinualEP(1e-3, 1.0, 300)
    with pytest.raises(ConvergenceError, match="do not stay finite: choose a smaller learning_rate"):
        wild.step(NET, X, Y)
    lenient = dataclasses.replace(wild, strict=False).step(NET, X, Y)
    assert not np.all(np.isfinite(flat(lenient.system)))
    with pytest.raises(RuntimeError, match="do not stay finite"):
        fit(NET, wild, (X, Y), epochs=1, key=KEY)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ContinualEP(0.0, 0.1, 5), ValueError, "beta: wanted a positive number, got 0.0"),
        (lambda: ContinualEP(-0.1, 0.1, 5), ValueError, "the variant chooses the sign"),
        (lambda: ContinualEP(float("nan"), 0.1, 5), ValueError, "beta: wanted a positive number, got nan"),
        (lambda: ContinualEP(0.1, float("nan"), 5), ValueError, "learning_rate: wanted a positive number, got nan"),
        (lambda: ContinualEP(0.1, 0.0, 5), ValueError, "learning_rate: wanted a positive number, got 0.0"),
        (lambda: ContinualEP(0.1, {}, 5), ValueError, "learning_rate: wanted .* got an empty dict"),
        (lambda: ContinualEP(0.1, {"bias": -1.0}, 5), ValueError, "learning_rate: wanted a positive number, got -1.0"),
        (lambda: ContinualEP(1e-300, 1e300, 5), ValueError, "learning_rate / beta a positive number, got 1e.300"),
        (lambda: ContinualEP(1e300, 1e-300, 5), ValueError, "learning_rate / beta a positive number"),
        (lambda: ContinualEP(0.1, 0.1, 0), ValueError, "steps: wanted a whole number, at least 1, got 0"),
        (lambda: ContinualEP(0.1, 0.1, 5, "centered"), ValueError, "variant: wanted one of .* got 'centered'"),
        (lambda: ContinualEP(0.1, 0.1, 5, solver=3), TypeError, "solver: wanted a Solver, got int"),
        (
            lambda: ContinualEP(0.1, {"weight": 0.1}, 5).step(NET, X, Y),
            ValueError,
            "learning_rate: nothing for coupling",
        ),
        (lambda: ContinualEP(0.1, 0.1, 5, "random").step(NET, X, Y), ValueError, "key: wanted a key, which draws"),
        (
            lambda: ContinualEP(0.1, 0.1, 5).step(
                IsingModel.layered((2, 3, 1), key=KEY), jnp.array([[1.0, -1.0]]), jnp.array([[1.0]]), key=KEY
            ),
            TypeError,
            "wanted states that move continuously, got LayeredIsing|wanted states that move continuously",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_any_solver_that_counts_its_steps_will_do():
    """Newton's method takes the nudged state to its rest at once: then the first step is all of it."""
    rule = ContinualEP(1e-3, 1e-9, 3, solver=Newton())
    one, three = moved(dataclasses.replace(rule, steps=1)), moved(rule)
    wanted = descent(NET, 60)
    assert off(three, wanted) < 5e-3
    assert off(one, wanted) < 5e-3


def test_the_cost_is_that_of_free_outputs():
    found = ContinualEP(0.1, 0.01, 2).step(NET, X, Y)
    output = jax.vmap(NET.read)(jax.vmap(NET.relax)(X).state, X)
    np.testing.assert_allclose(found.output, output, atol=1e-10)
    np.testing.assert_allclose(found.cost, jnp.mean(jax.vmap(SquaredError())(output, Y)), atol=1e-10)


def test_untied_weights_move_each_by_its_own_change():
    """C-VF: tied at the start it is what the network with an energy does; else what leads back learns too, but not the
    gradient."""
    build = lambda angle: RecurrentNetwork.layered(
        SIZES, key=KEY, angle=angle, activation="tanh", gain=(1.0, 0.6, 0.6)
    )  # with one equilibrium
    tied, apart = build(0.0), build(60.0)
    twin = SmoothHopfieldNetwork(
        tuple(c.coupling for c in tied.connection[:3]), tied.bias, (3,), "tanh"
    )  # whose one weight does the work of both
    rule = ContinualEP(1e-3, 1e-8, 10)
    both, one = rule.step(tied, X, Y).system, rule.step(twin, X, Y).system
    change = lambda net, start: [np.asarray(a - b) / 1e-8 for a, b in zip(net, start, strict=True)]
    weights = lambda net: [c.coupling.weight for c in net.connection]
    there_1, there_2, there_3, back_2, back_3 = change(weights(both), weights(tied))
    wanted = change([c.weight for c in one.coupling], [c.weight for c in twin.coupling])
    for found, other in zip((there_1, there_2 + back_2, there_3 + back_3), wanted, strict=True):
        np.testing.assert_allclose(found, other, atol=1e-4 * np.max(np.abs(other)))
    assert off(moved(rule, tied), descent(tied, 10)) < 0.01
    assert off(moved(rule, apart), descent(apart, 10)) > 0.1
    assert min(np.max(np.abs(d)) for d in change(weights(rule.step(apart, X, Y).system), weights(apart))) > 1e-3


def test_the_command_gives_it_a_learning_rate_and_no_optimiser():
    net = HopfieldNetwork.layered((3, 4, 2), key=KEY)
    ruled, trained = settings_of(net, ContinualEP, {})
    rule = rule_of(ContinualEP, ruled)
    assert (rule.beta, rule.learning_rate, rule.steps, rule.variant) == (0.5, 0.01, 20, "positive")
    assert set(trained) == {"epochs", "batch_size", "learning_rate"}
    asked = {"learning_rate": {"coupling": 0.1, "bias": 0.2}, "steps": 7}
    assert rule_of(ContinualEP, settings_of(net, ContinualEP, asked)[0]).learning_rate == asked["learning_rate"]
    for name in ("optimiser", "decay", "weight_decay", "epsilon"):
        with pytest.raises(UsageError, match="the rule ContinualEP has no use for it"):
            settings_of(net, ContinualEP, {name: 0.9})
