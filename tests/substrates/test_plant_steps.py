"""Steps of a plant that are compiled: the same as by the verbs, one after another, and bad ones taken back."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from learning import AgnosticEP, SelfControl, fit
from learning.agnostic import STEPS_AT_ONCE
from learning.homeostat import HomeostasisError
from learning.training import TrainingError
from substrates import HopfieldNetwork, Plant, QuantumOscillatorNetwork, ResistorNetwork
from substrates.laboratory.system import LaboratoryError, Simulated, inside
from substrates.quantum.oscillator.stability import nearest_stable
from substrates.solvers.joint import SpringControl
from substrates.solvers.solver import Status
from substrates.substrate import split_parameters

EDGES = [(0, 2), (0, 3), (1, 3), (1, 4), (2, 3), (3, 4)]
NET = ResistorNetwork.from_edges(EDGES, 5, inputs=[0, 1], outputs=[4], conductance=np.linspace(0.5, 1.5, 6))
seeds = st.integers(0, 2**31 - 1)


def examples(size, seed=0):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(size, 2)), 0.1 * draw.normal(size=(size, 1))


class Verbs:
    """A plant without the capability to be compiled."""

    def __init__(self, plant):
        for name in ("set_knobs", "clamp", "nudge", "settle", "read", "hold"):
            setattr(self, name, getattr(plant, name))
        self.spec = plant.spec


@pytest.mark.parametrize("variant", ["optimistic", "pessimistic", "centered"])
@pytest.mark.parametrize("copies", [None, 3])
def test_they_are_those_of_the_verbs(variant, copies):
    x, y = examples((STEPS_AT_ONCE + 5) * (copies or 1))
    rule = AgnosticEP(0.3, variant, SelfControl())
    alone, led = Plant(NET, 0.05, copies=copies), Plant(NET, 0.05, copies=copies)
    assert isinstance(alone, Simulated)
    assert rule.steps_itself(alone)
    assert not rule.steps_itself(Verbs(led))
    found, wanted = rule.step(alone, x, y), rule.step(Verbs(led), x, y)
    np.testing.assert_allclose(found.output, wanted.output, atol=1e-9)
    assert float(found.cost) == pytest.approx(float(wanted.cost))
    assert np.abs(led.read().parameters - np.linspace(0.5, 1.5, 6)).max() > 1e-3
    for name in ("parameters", "knobs", "outputs"):
        np.testing.assert_allclose(getattr(alone.read(), name), getattr(led.read(), name), atol=1e-9)
    alone.settle()
    np.testing.assert_allclose(alone.read().parameters, led.read().parameters, atol=1e-9)


def test_training_in_batches_is_training_step_by_step():
    data = examples(23)
    rule = AgnosticEP(0.3, homeostat=SelfControl())
    together, apart = Plant(NET, 0.05), Plant(NET, 0.05)
    options = {"epochs": 2, "key": jax.random.key(0), "progress": False}
    first = fit(together, rule, data, batch_size=5, **options)
    second = fit(Verbs(apart), rule, data, batch_size=5, **options)
    np.testing.assert_allclose(together.read().parameters, apart.read().parameters, atol=1e-9)
    np.testing.assert_allclose(first.history["cost"], second.history["cost"], rtol=1e-6)


class Stubborn(type(NET)):
    """Comes to rest only where its first input is not negative."""

    def relax(self, x, nudge=None, start=None, **options):
        found = super().relax(x, nudge, start, **options)
        status = Status.where(x[0] < 0, Status.out_of_steps, found.status)
        return eqx.tree_at(lambda e: e.status, found, status)


def stubborn():
    net = object.__new__(Stubborn)
    for name in vars(NET):
        object.__setattr__(net, name, getattr(NET, name))
    return net


@pytest.mark.parametrize("bad", [STEPS_AT_ONCE + 3, STEPS_AT_ONCE - 1])
def test_a_step_that_does_not_come_to_rest_is_taken_back(bad):
    x, y = examples(STEPS_AT_ONCE + 7)
    x[:, 0] = np.abs(x[:, 0])
    x[bad, 0] *= -1
    rule = AgnosticEP(0.3, homeostat=SelfControl())
    before, plant, lenient = Plant(NET, 0.05), Plant(stubborn(), 0.05), Plant(stubborn(), 0.05)
    rule.step(before, x[:bad], y[:bad])
    with pytest.raises(HomeostasisError, match="homeostatic phase: the system did not settle"):
        rule.step(plant, x, y)
    np.testing.assert_array_equal(plant.read().parameters, before.read().parameters)
    found = AgnosticEP(0.3, homeostat=SelfControl(), strict=False).step(lenient, x, y)
    assert found.unconverged == 2
    assert len(found.output) == len(x)


def test_a_first_step_that_is_taken_back_leaves_everything_where_it_was():
    plant = Plant(stubborn(), 0.05)
    plant.set_knobs(np.linspace(0.6, 1.6, 6))
    before = plant.read()
    with pytest.raises(HomeostasisError):
        AgnosticEP(0.3, homeostat=SelfControl()).step(plant, np.array([[-1.0, 0.5]]), np.array([[0.1]]))
    for name in ("parameters", "knobs", "outputs"):
        np.testing.assert_array_equal(getattr(plant.read(), name), getattr(before, name))


def test_numbers_without_end_stop_the_run_and_keep_what_was():
    net = HopfieldNetwork.layered((3, 20, 2), key=jax.random.key(0), gain=3.0)
    plant = Plant(net, 5.0)
    x, y = np.ones((4, 3)), np.ones((4, 2))
    rule = AgnosticEP(1.0, "centered", SelfControl(), strict=False)
    with pytest.raises(LaboratoryError, match="phase: wanted finite readings"):
        rule.step(plant, x, y)
    assert np.all(np.isfinite(plant.read().parameters))
    with pytest.raises(TrainingError, match="wanted finite readings") as stopped:
        fit(Plant(net, 5.0), rule, (x, y), epochs=1, key=jax.random.key(0), progress=False)
    assert np.all(np.isfinite(stopped.value.run.substrate.read().parameters))


def test_a_wrong_number_of_examples_is_refused():
    x, y = examples(7)
    with pytest.raises(ValueError, match="x: wanted 3 examples for each step, one for each copy"):
        AgnosticEP(0.3, homeostat=SelfControl()).step(Plant(NET, 0.05, copies=3), x, y)


def test_a_reading_does_not_change_with_the_system():
    plant = Plant(NET, 0.05)
    reading = plant.read()
    first = plant.substrate.conductance
    AgnosticEP(0.3, homeostat=SelfControl()).step(plant, *examples(3))
    np.testing.assert_array_equal(reading.parameters, first)
    assert np.abs(plant.read().parameters - reading.parameters).max() > 1e-4


# what the joint relaxation relies on


@given(seeds)
@settings(max_examples=20)
def test_inside_is_the_same_in_compiled_code(seed):
    draw = np.random.default_rng(seed)
    lower, upper = draw.choice([-np.inf, -1.0, 0.0], 9), draw.choice([np.inf, 1.0, 2.0], 9)
    theta = np.clip(2 * draw.normal(size=9), lower, upper)
    found = jax.jit(inside)(*(jnp.asarray(values) for values in (theta, lower, upper)), 0.01)
    wanted = inside(theta, lower, upper, 0.01)
    np.testing.assert_allclose(found, wanted, atol=1e-14)
    assert np.all((wanted > lower) & (wanted < upper))


@pytest.mark.parametrize("net", [NET, ResistorNetwork.for_task(2, 2, sizes=(4,), key=jax.random.key(0))])
@given(seed=seeds)
@settings(max_examples=20)
def test_energies_said_to_be_linear_in_their_parameters_are(net, seed):
    """And a limit looks at its own parameter alone."""
    assert net.linear_in_parameters
    draw = np.random.default_rng(seed)
    theta, rest = split_parameters(net)
    flat, unravel = ravel_pytree(theta)
    build = lambda values: eqx.combine(unravel(jnp.asarray(values)), rest)
    x = jnp.asarray(draw.normal(size=2))
    state = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape)), net.initial_state(x))
    one, other = flat + draw.normal(size=flat.size), flat + draw.normal(size=flat.size)
    energies = [float(build(values).energy(state, x)) for values in (one, other, (one + other) / 2)]
    assert energies[2] == pytest.approx((energies[0] + energies[1]) / 2, rel=1e-9, abs=1e-9)
    limited = lambda values: np.asarray(ravel_pytree(split_parameters(build(values).constrained())[0])[0])
    mixed = np.where(draw.random(flat.size) < 0.5, one, other)
    np.testing.assert_array_equal(limited(mixed), np.where(mixed == one, limited(one), limited(other)))


ALL_PAIRS = np.array([(i, j) for i in range(5) for j in range(i)])
stable = jax.jit(lambda k, onsite, floor, c: nearest_stable(k, onsite, ALL_PAIRS, floor, 0.05, compliance=c))


@given(seeds, st.sampled_from([-np.inf, -0.3, 0.1]), st.sampled_from([0.0, 1.0]))
@settings(max_examples=60)
def test_the_nearest_stable_stiffnesses(seed, floor, decades):
    """Projection on a convex set: it lies inside, nothing inside is nearer, and it is its own projection."""
    draw, n, edges = np.random.default_rng(seed), 5, ALL_PAIRS
    yields, sags = (10 ** (decades * draw.uniform(-2, 0, size)) for size in (len(edges), n))
    at = np.array([[vertex in edge for edge in edges] for vertex in range(n)])

    def project(k, o):
        return [np.asarray(part) for part in stable(jnp.asarray(k), jnp.asarray(o), floor, (yields, sags))]

    needed = lambda k: 0.05 + 2 * at @ np.maximum(-k, 0)
    k, onsite = draw.normal(size=len(edges)), 1 + draw.normal(size=n)
    held, own = project(k, onsite)
    assert np.all(held >= floor)
    assert np.all(own >= needed(held) - 1e-15)
    for _ in range(20):
        other = np.maximum(held + draw.normal(size=k.size) * draw.choice([1e-3, 1]), floor)
        above = needed(other) + draw.choice([0, 1e-3, 1]) * draw.random(n)
        assert (k - held) / yields @ (other - held) + (onsite - own) / sags @ (above - own) <= 1e-9 / min(
            yields.min(), sags.min()
        )
    again = project(held, own)
    np.testing.assert_allclose(np.concatenate(again), np.concatenate([held, own]), atol=1e-12)


def test_limits_of_oscillators_that_depend_on_each_other():
    """A spring may push as long as its ends are stiff enough; an oscillator's own stiffness has a limit of its own."""
    net = QuantumOscillatorNetwork.for_task(2, 2, key=jax.random.key(0))
    lower = Plant(net, 1e-4).spec.parameters.lower
    springs = net.stiffness.size
    assert np.all(np.isinf(lower[:springs]))
    np.testing.assert_allclose(lower[springs : springs + net.n], net.onsite_floor)


@pytest.mark.parametrize("seed", range(4))
def test_parameters_that_yield_unequally_rest_at_their_common_limit(seed):
    """Knobs ask for more softness than there may be: no allowed parameters nearby have a lower joint energy."""
    draw = np.random.default_rng(seed)
    net = QuantumOscillatorNetwork.for_task(2, 2, key=jax.random.key(seed))
    epsilon = {"stiffness": 1e-4, "onsite_stiffness": 2e-6, "bias_force": 1e-2}
    plant = Plant(net, epsilon, max_rounds=200)
    knobs = plant.read().knobs + np.where(np.arange(plant.spec.knobs.size) < net.stiffness.size, -0.5, 0.0)
    plant.set_knobs(knobs)
    x = draw.normal(size=2)
    plant.clamp(x)
    assert plant.settle() == Status.converged
    compliance = SpringControl(plant.epsilon).compliance(split_parameters(net)[0])
    softness = ravel_pytree(compliance)[0]

    def joint(held):
        theta = ravel_pytree(split_parameters(held)[0])[0]
        return float(jnp.sum((knobs - theta) ** 2 / (2 * softness)) + held.free_energy(x))

    found = plant.substrate
    assert isinstance(found, QuantumOscillatorNetwork)
    pushed = 2 * jnp.zeros(net.n).at[found.graph.edges.T].add(jnp.maximum(-found.stiffness, 0))
    assert float(jnp.min(found.onsite_stiffness - pushed)) == pytest.approx(net.onsite_floor)
    flat, unravel = ravel_pytree(split_parameters(found)[0])
    rest, least = split_parameters(found)[1], joint(found)
    for size in (1e-4, 1e-2):
        moved = unravel(flat + size * np.sqrt(softness / softness.max()) * draw.normal(size=flat.size))
        assert joint(eqx.combine(moved, rest).constrained()) >= least - 1e-9 * abs(least)
