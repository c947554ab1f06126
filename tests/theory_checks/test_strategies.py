"""The strategies draw systems that settle and obey the laws that they are drawn to test."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from learning import SquaredError
from substrates import Nudge, Shockley
from substrates.substrate import Status, relax_batch, split_parameters
from theory_checks import check_substrate
from theory_checks.strategies import (
    Ranges,
    activator_inhibitor_systems,
    convex_springs,
    draws,
    driven_networks,
    elastic_networks,
    examples,
    examples_of,
    hopfield_networks,
    ising_models,
    nudges,
    oscillator_networks,
    predictive_coding_networks,
    quantum_oscillators,
    ranges,
    recurrent_networks,
    resistor_circuits,
    systems_with_examples,
    trajectories,
    transverse_field_ising_models,
    unhurried,
)

KINDS = {
    "springs in three methods": convex_springs,
    "circuits": resistor_circuits,
    "circuits with ideal diodes": lambda **given: resistor_circuits(diodes=2, graph=1, **given),
    "circuits with real diodes": lambda **given: resistor_circuits(diodes=2, diode=Shockley(1e-3, 0.1), **given),
    "elastic": elastic_networks,
    "driven": driven_networks,
    "activators and inhibitors": activator_inhibitor_systems,
    "spins": ising_models,
    "oscillators": oscillator_networks,
    "hard Hopfield": hopfield_networks,
    "smooth Hopfield": lambda **given: hopfield_networks(activation="sigmoid", **given),
    "predictive coding": predictive_coding_networks,
    "recurrent": recurrent_networks,
    "quantum spins": transverse_field_ising_models,
    "quantum oscillators": quantum_oscillators,
    "paths": trajectories,
}


@eqx.filter_jit
def both_phases(system, x, y, nudge):
    free = relax_batch(system, x, keys=jax.random.split(jax.random.key(0), x.shape[0]))
    nudged = relax_batch(system, x, Nudge(nudge.cost, y, nudge.beta), free.state)
    return free, jax.vmap(system.read)(free.state, x), nudged


settle = eqx.filter_jit(relax_batch)
curvature = eqx.filter_jit(lambda system, state, x: jax.hessian(lambda s: system.energy(s, x))(state))


def simplest(strategy):
    return find(strategy, lambda _: True, settings=settings(max_examples=3, database=None))


def numbers(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(split_parameters(tree)[0])]


@pytest.mark.parametrize("kind", KINDS)
def test_systems_of_every_kind_settle_free_and_nudged_where_their_examples_put_them(kind):
    shapes = set()

    @unhurried(max_examples=4)
    @given(st.data())
    def settles(data):
        system = data.draw(KINDS[kind]())
        x, y = data.draw(examples_of(system, 2))
        nudge = data.draw(nudges(system))
        free, shown, nudged = both_phases(system, x, y, nudge)
        assert bool(jnp.all(free.converged)), [Status(int(code)) for code in free.status]
        assert shown.shape == y.shape
        assert shown.dtype == y.dtype == x.dtype == jnp.float64
        assert bool(jnp.all(nudged.converged))
        shapes.add(jax.tree.structure(system))  # what is static is the same, so that compiled code is shared

    settles()
    assert len(shapes) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_simplest_system_of_a_kind_has_equal_parameters(kind):
    simple = simplest(KINDS[kind](angle=0.0) if kind == "recurrent" else KINDS[kind]())
    for leaf in numbers(simple):
        if kind == "elastic" and leaf.max() != leaf.min():
            continue  # rest lengths are those of the places
        assert np.ptp(np.abs(leaf)) < 1e-12


@pytest.mark.parametrize("kind", ["circuits", "hard Hopfield", "quantum spins", "driven", "paths", "recurrent"])
def test_parameters_are_of_the_precision_that_was_asked_for(kind):
    system = simplest(KINDS[kind](dtype=jnp.float32))
    assert {leaf.dtype for leaf in numbers(system)} == {np.dtype("float32")}


@given(convex_springs(), examples())
def test_springs_are_convex(system, batch):
    found = settle(system, batch[0])
    assert np.linalg.eigvalsh(curvature(system, found.state[0], batch[0][0]))[0] > 0


@given(resistor_circuits(), examples(inputs=2))
def test_circuits_settle_within_their_inputs(system, batch):
    x, _ = batch
    found = settle(system, x)
    voltages = eqx.filter_jit(jax.vmap(lambda s, v: system.voltages(s, v)))(found.state, x)
    assert bool(jnp.all(voltages <= jnp.max(x, axis=1, keepdims=True) + 1e-9))
    assert bool(jnp.all(voltages >= jnp.min(x, axis=1, keepdims=True) - 1e-9))


@given(st.data())
def test_spins_are_few_enough_to_be_enumerated_and_settle_to_the_least_energy(data):
    system = data.draw(ising_models())
    x = data.draw(examples_of(system, 1))[0][0]
    assert set(np.unique(x)) <= {-1.0, 1.0}
    found = system.relax(x, key=jax.random.key(0))
    every = jnp.asarray(list(itertools.product((-1.0, 1.0), repeat=4)))
    least = jnp.min(jax.vmap(lambda s: system.energy(s, x))(every))
    assert float(system.energy(found.state, x)) == pytest.approx(float(least), abs=1e-12)


@pytest.mark.parametrize(("angle", "symmetric"), [(0.0, True), (60.0, False)])
def test_the_asymmetry_of_a_vector_field_is_the_one_that_was_asked_for(angle, symmetric):
    @given(recurrent_networks(angle=angle))
    def asymmetric(system):
        state = system.start(jnp.asarray([0.2, -0.4, 0.1]))
        jacobian = system.jacobian(state, jnp.asarray([0.2, -0.4, 0.1]))
        matrix = np.asarray(jacobian)
        gap = np.max(np.abs(matrix - matrix.T)) / np.max(np.abs(matrix - np.diag(np.diag(matrix))))
        assert (gap < 1e-12) == symmetric

    asymmetric()


@given(st.data())
def test_nudges_have_both_signs_within_their_strength_and_shrink_to_none(data):
    system = data.draw(resistor_circuits())
    nudge = data.draw(nudges(system, beta=0.4))
    assert abs(float(nudge.beta)) <= 0.4
    assert nudge.target.shape == (2,)


def test_nudges_shrink_to_the_free_phase_and_reach_their_strength():
    system = simplest(resistor_circuits())
    assert float(simplest(nudges(system)).beta) == 0
    strongest = find(nudges(system), lambda nudge: float(nudge.beta) < -0.09, settings=settings(database=None))
    assert float(strongest.beta) == pytest.approx(-0.1)


def test_a_user_may_say_what_a_system_of_theirs_can_be_given():
    springs = simplest(convex_springs())
    kind = type("Own", (type(springs),), {})
    own = kind(
        **{name: getattr(springs, name) for name in ("stiffness", "ground", "hardness", "input_weight")}, outputs=2
    )
    ranges.register(kind, lambda system: Ranges(inputs=(5.0, 6.0)))

    @given(examples_of(own))
    def within(batch):
        assert bool(jnp.all((batch[0] >= 5) & (batch[0] <= 6)))

    within()


# a theorem of one's own, in ten lines


@unhurried(max_examples=10)
@given(systems_with_examples(hopfield_networks(activation="sigmoid")))
def test_a_nudge_never_raises_the_cost(drawn):
    system, x, y = drawn
    cost = lambda found: jax.vmap(SquaredError())(jax.vmap(system.read)(found.state, x), y)
    free, _, nudged = both_phases(system, x, y, Nudge(SquaredError(), y[0], 0.1))
    assert bool(jnp.all(cost(nudged) <= cost(free) + 1e-12))


@given(draws())
def test_what_is_drawn_lies_where_it_should(draw):
    assert np.all((draw.magnitudes(50, 2.0, 4.0) >= 0.5) & (draw.magnitudes(50, 2.0, 4.0) <= 8.0))
    assert np.all(np.abs(draw.numbers(50, 0.3)) <= 0.3)
    assert np.all((draw.between(50, -3.0, -1.0) >= -3) & (draw.between(50, -3.0, -1.0) <= -1))
    assert set(draw.signs(50)) <= {-1.0, 1.0}


@pytest.mark.slow
@settings(max_examples=3)
@given(convex_springs(), examples())
def test_springs_pass_the_kit(system, batch):
    check_substrate(system, *batch).raise_if_failed()


@pytest.mark.parametrize(
    ("ask", "match"),
    [
        (lambda: resistor_circuits(nodes=3, inputs=2, outputs=2), "nodes: wanted at least"),
        (lambda: resistor_circuits(diodes=5), "inputs . outputs . diodes = 9"),
        (lambda: resistor_circuits(diodes=-1), "diodes: wanted a whole number from 0, got -1"),
        (lambda: convex_springs(outputs=6), "outputs: wanted at most as many as nodes, 5, got 6"),
        (lambda: convex_springs(nodes=0), "nodes: wanted a whole number from 1, got 0"),
        (lambda: elastic_networks(rows=2), "rows: wanted a whole number from 3"),
        (lambda: elastic_networks(inputs=4), "inputs: wanted at most one for each of the 3 nodes"),
        (lambda: driven_networks(inputs=0), "inputs: wanted a whole number from 1"),
        (lambda: activator_inhibitor_systems(nodes=2.5), "nodes"),
        (lambda: ising_models(spins=30), "spins: wanted at most 20"),
        (lambda: oscillator_networks(outputs=4), "nodes: wanted at least inputs . outputs = 6 nodes, got 5"),
        (lambda: hopfield_networks(sizes=(3,)), "sizes"),
        (lambda: hopfield_networks(activation="relu"), "activation: wanted 'hard', 'sigmoid' or 'tanh', got 'relu'"),
        (lambda: predictive_coding_networks(gain=-1.0), "gain"),
        (lambda: recurrent_networks(angle=200.0), "angle: wanted degrees from 0"),
        (lambda: transverse_field_ising_models(spins=9), "spins: wanted at most 8"),
        (lambda: quantum_oscillators(drive="light"), "drive"),
        (lambda: trajectories(steps=1), "steps: wanted a whole number from 2"),
        (lambda: examples(batch=0), "batch: wanted a whole number from 1, got 0"),
    ],
)
def test_arguments_that_make_no_system_are_refused_when_the_strategy_is_made(ask, match):
    with pytest.raises(ValueError, match=match):
        ask()


class Unsized(eqx.Module):
    """No substrate at all."""


def test_what_fits_no_system_is_refused():
    springs = simplest(convex_springs())
    with pytest.raises(TypeError, match="substrate: wanted a Substrate, got Unsized"):
        examples_of(Unsized())
    with pytest.raises(ValueError, match="beta: wanted a positive strength, got -1"):
        nudges(springs, beta=-1.0)
    sizeless = type("Sizeless", (type(springs),), {"input_size": None})
    fields = {name: getattr(springs, name) for name in ("stiffness", "ground", "hardness", "input_weight")}
    with pytest.raises(ValueError, match=r"inputs: wanted how many numbers x holds, which Sizeless does not say"):
        examples_of(sizeless(**fields, outputs=2))
    x, _ = simplest(examples_of(sizeless(**fields, outputs=2), inputs=3))
    assert x.shape == (3, 3)
