"""Targets mean what they say: labels are encoded as `fit` does it, and nothing else is broadcast to the outputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear_response import LinearResponse

from learning import (
    AgnosticEP,
    Averaged,
    BackpropThroughTime,
    CrossEntropy,
    EquilibriumPropagation,
    FluctuationResponse,
    ImplicitGradient,
    NegativeLogLikelihood,
    PhaseCost,
    RecurrentBackprop,
    SquaredError,
    calibrate,
    evaluate,
    fit,
)
from learning.homeostat import SelfControl
from learning.steps import Trainer
from learning.training import prepare
from substrates import Nudge, Pin, ResistorNetwork, Status
from substrates.laboratory.plant import Plant
from substrates.substrate import fit_target, relax_batch
from theory_checks import SealedSubstrate, check_substrate, check_system, entrance

EDGES = [(i, j) for i in (0, 1) for j in (2, 3, 4)] + [(2, 3), (3, 4)]


def circuit(outputs):
    conductance = 1 + 0.5 * np.cos(np.arange(len(EDGES)))
    return ResistorNetwork.from_edges(EDGES, 5, inputs=[0, 1], outputs=outputs, conductance=conductance)


NET, SINGLE = circuit([2, 3, 4]), circuit([3])
X = jnp.array([[1.0, 0.2], [0.3, -0.5], [-0.4, 0.9], [0.6, 0.7]])
LABELS = np.array([2, 0, 1, 2])
KEY = jax.random.key(3)
ESTIMATORS = {
    "contrast": EquilibriumPropagation(0.01),
    "random signs": EquilibriumPropagation(0.01, "random"),
    "tangents": EquilibriumPropagation(0.01, "positive", linearised=True),
    "averaged": Averaged(EquilibriumPropagation(0.01), repetitions=2),
    "fluctuations": FluctuationResponse(0.5, samples=2),
    "implicit": ImplicitGradient(),
    "recurrent": RecurrentBackprop(3, 0.05),
    "through time": BackpropThroughTime(3, 0.05),
}


class OneLabel(eqx.Module):
    """Minus the log of a softmax at a label, which is a number."""

    own_targets = True

    def __call__(self, output, target):
        return -jax.nn.log_softmax(output)[target]


def one_hot(labels):
    return np.eye(3)[np.asarray(labels)]


def same(found, wanted):
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("rule", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize("system", [NET, SealedSubstrate(NET)], ids=["open", "sealed"])
def test_labels_are_one_hot_targets(rule, system):
    if isinstance(rule, ImplicitGradient | RecurrentBackprop | BackpropThroughTime) and isinstance(
        system, SealedSubstrate
    ):
        pytest.skip("it looks inside")
    found, wanted = (rule(system, X, y, key=KEY) for y in (LABELS, one_hot(LABELS)))
    same((found.gradient, found.cost, found.output), (wanted.gradient, wanted.cost, wanted.output))


@given(st.data())
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()])
def test_the_cost_of_labels_is_that_of_the_definition(cost, size, data):
    """Three outputs and batches of three too, where a label could pass for the target of every output."""
    labels = np.array(data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size)))
    found = EquilibriumPropagation(0.01, "positive", cost)(NET, X[:size], jnp.asarray(labels))
    output = np.asarray(found.output)
    if isinstance(cost, SquaredError):
        wanted = 0.5 * np.sum((output - one_hot(labels)) ** 2, axis=1)
    else:
        wanted = np.log(np.sum(np.exp(output), axis=1)) - output[np.arange(size), labels]
    np.testing.assert_allclose(found.cost, np.mean(wanted), rtol=1e-12)


def test_an_example_by_hand():
    """A circuit that shows 0 everywhere is wrong by 1/2 for every label, whatever its number."""
    quiet = EquilibriumPropagation(0.01)(NET, jnp.zeros((4, 2)), LABELS)
    assert float(quiet.cost) == pytest.approx(0.5)


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_rules_encode_what_fit_encodes(kind):
    examples = prepare(NET, (np.asarray(X), LABELS.astype(kind)))
    np.testing.assert_array_equal(examples.y, one_hot(LABELS))
    rule = EquilibriumPropagation(0.01)
    same(rule(NET, X, LABELS.astype(kind)).gradient, rule(NET, X, examples.y).gradient)


@pytest.mark.parametrize("rule", ESTIMATORS.values(), ids=ESTIMATORS)
def test_a_single_output_takes_one_number_for_each_example(rule):
    y = np.array([0.1, 0.4, -0.2, 0.3])
    found, wanted = (rule(SINGLE, X, each, key=KEY) for each in (y, y[:, None]))
    same((found.gradient, found.cost), (wanted.gradient, wanted.cost))
    if rule is not ESTIMATORS["through time"]:  # whose cost is that of the state after its steps
        assert evaluate(SINGLE, (X, y)).cost == pytest.approx(float(wanted.cost))
    np.testing.assert_array_equal(prepare(SINGLE, (np.asarray(X), y)).y, y[:, None])


WRONG = {
    "scalar": (0.5, "x, y: wanted the same leading axis"),
    "texts": (np.array(["a", "b", "c", "a"]), "y: wanted numbers, got texts; fit and evaluate encode them"),
    "ragged": ([[0.1], [0.2, 0.3]], "y: wanted an array, got a list with rows of unequal length"),
    "nothing": (None, "y: wanted targets with a leading axis of examples, got None"),
    "fewer": (one_hot([0, 1, 2]), r"x, y: wanted the same leading axis .* got x of \(4, 2\), y of \(3, 3\)"),
    "fewer labels": (np.array([0, 1, 2]), "x, y: wanted the same leading axis"),
    "column": (
        np.ones((4, 1)),
        r"y: wanted shape \(n, 3\) with n = \d examples, like the outputs, got float64 of shape",
    ),
    "column of labels": (LABELS[:, None], r"y: wanted shape \(n, 3\) with n = \d examples, .* got int64 .*one-hot"),
    "narrow": (np.ones((4, 2)), r"y: wanted shape \(n, 3\)"),
    "wide": (np.ones((4, 4)), r"y: wanted shape \(n, 3\)"),
    "deep": (np.ones((4, 3, 1)), r"y: wanted shape \(n, 3\)"),
    "one float each": (np.ones(4), r"y: wanted shape \(n, 3\)"),
    "NaN": (np.where(np.arange(3) == 1, np.nan, one_hot(LABELS)), r"y: wanted finite numbers, got nan at \[0, 1\]"),
    "infinity": (np.full((4, 3), np.inf), "y: wanted finite numbers, got inf"),
    "complex": (one_hot(LABELS) + 1j, "y: wanted real numbers, like the outputs, got complex128"),
    "label too large": (LABELS + 1, "y: wanted labels from 0 to 2, one output for each, got labels from 1 to 3"),
    "negative label": (LABELS - 1, "y: wanted labels from 0 to 2"),
}


@pytest.mark.parametrize(("y", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("rule", ESTIMATORS.values(), ids=ESTIMATORS)
def test_estimators_refuse_other_targets(rule, y, message):
    with pytest.raises(ValueError, match=message):
        rule(NET, X, y, key=KEY)


@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy(), PhaseCost(), NegativeLogLikelihood(), jnp.vdot])
def test_costs_are_given_targets_of_the_outputs_shape(cost):
    for y in (np.ones((4, 1)), np.ones(4), np.ones((4, 4))):
        with pytest.raises(ValueError, match=r"y: wanted shape \(n, 3\)"):
            EquilibriumPropagation(0.01, cost=cost)(NET, X, y)


@pytest.mark.parametrize("rule", [EquilibriumPropagation(0.01), ImplicitGradient()])
def test_labels_for_a_single_output_are_refused(rule):
    with pytest.raises(ValueError, match=r"y: wanted real targets of shape \(n, 1\).*which labels cannot stand for"):
        rule(SINGLE, X, np.array([0, 1, 1, 0]))
    with pytest.raises(ValueError, match=r"data: wanted real targets of shape \(n, 1\)"):
        prepare(SINGLE, (np.asarray(X), np.zeros(4, int)))


def test_labels_inside_compiled_code_are_refused():
    with pytest.raises(ValueError, match=r"y: wanted shape \(n, 3\) .* \(labels one-hot\)"):
        eqx.filter_jit(EquilibriumPropagation(0.01))(NET, X, jnp.asarray(LABELS))


@pytest.mark.parametrize("wrap", [lambda cost: cost, lambda cost: jax.tree_util.Partial(lambda o, t: cost(o, t))])
def test_a_cost_may_take_targets_of_its_own(wrap):
    cost = wrap(OneLabel())
    if not isinstance(cost, OneLabel):
        cost.func.own_targets = True  # as of a function
    y = jnp.asarray(LABELS)
    for rule in (EquilibriumPropagation, lambda beta, cost: ImplicitGradient(cost)):
        found, wanted = rule(0.01, cost=cost)(NET, X, y), rule(0.01, cost=CrossEntropy())(NET, X, one_hot(LABELS))
        same((found.gradient, found.cost), (wanted.gradient, wanted.cost))
    assert evaluate(NET, (X, LABELS), cost=cost).cost == pytest.approx(float(wanted.cost))


def test_a_target_may_be_a_tree():
    weighted = lambda o, t: 0.5 * jnp.sum(t[1] * (o - t[0]) ** 2)
    y = (one_hot(LABELS), np.full((4, 1), 2.0))
    found = EquilibriumPropagation(0.01, cost=weighted)(NET, X, y)
    assert float(found.cost) == pytest.approx(2 * float(EquilibriumPropagation(0.01)(NET, X, y[0]).cost))
    with pytest.raises(ValueError, match="x, y: wanted the same leading axis"):
        EquilibriumPropagation(0.01, cost=weighted)(NET, X, (y[0], y[1][:3]))


def test_checking_targets_costs_nothing_in_compiled_code():
    """The same program as that of a cost that checks its own targets."""
    plain = lambda o, t: 0.5 * jnp.sum((o - t) ** 2)

    def unchecked(o, t):
        return plain(o, t)

    unchecked.own_targets = True
    o, t = jnp.ones(3), jnp.zeros(3)
    programs = [
        jax.make_jaxpr(lambda o, t, cost=cost: Nudge(cost, t, 2.0).energy(o))(o, t) for cost in (plain, unchecked)
    ]
    assert str(programs[0]) == str(programs[1])


ACTING = {
    "scalar": (jnp.asarray(0.5), r"target: wanted shape \(3,\), like the outputs, got float64 of shape \(\)"),
    "label": (2, r"target: wanted shape \(3,\), like the outputs, got .* of shape \(\).* \(labels one-hot\)"),
    "one": (jnp.ones(1), r"target: wanted shape \(3,\)"),
    "row": (jnp.ones((1, 3)), r"target: wanted shape \(3,\)"),
    "wide": (jnp.ones(4), r"target: wanted shape \(3,\)"),
    "complex": (jnp.ones(3, complex), "target: wanted real numbers"),
}


@pytest.mark.parametrize(("target", "message"), ACTING.values(), ids=ACTING)
@pytest.mark.parametrize("kind", [Pin, lambda target: Nudge(SquaredError(), target, 0.1)])
def test_nudges_and_pins_refuse_other_targets(kind, target, message):
    with pytest.raises(ValueError, match=message):
        NET.relax(X[0], kind(target))
    with pytest.raises(ValueError, match=message):
        relax_batch(NET, X[:1], kind(jnp.asarray(target)[None]))


@pytest.mark.parametrize("kind", [Pin, lambda target: Nudge(SquaredError(), target, 0.1)])
def test_nudges_and_pins_of_a_batch_are_as_many_as_the_examples(kind):
    with pytest.raises(ValueError, match=r"wanted the same leading axis .* xs of \(4, 2\), target of \(3, 3\)"):
        relax_batch(NET, X, kind(jnp.ones((3, 3))))
    found = relax_batch(NET, X[:2], kind(jnp.array([[0.0, jnp.nan, 1.0], [0.0, 0.5, 1.0]])))
    np.testing.assert_array_equal(found.status == Status.not_finite, [True, False])


@pytest.mark.parametrize("kind", [Pin, lambda target: Nudge(SquaredError(), target, 0.1)])
def test_a_number_is_the_target_of_a_single_output(kind):
    found, wanted = (relax_batch(SINGLE, X, kind(y)) for y in (jnp.ones(4), jnp.ones((4, 1))))
    same(found.state, wanted.state)


def test_the_free_output_of_a_tangent_has_the_shape_of_the_outputs():
    with pytest.raises(ValueError, match=r"about: wanted shape \(3,\)"):
        NET.relax(X[0], Nudge(SquaredError(), jnp.zeros(3), 0.1, jnp.ones(1)))


def test_targets_are_fitted_to_complex_outputs_too():
    output = jnp.ones(3, complex)
    assert fit_target(jnp.array([0, 1, 0]), output).dtype == output.dtype
    np.testing.assert_array_equal(fit_target(output * 1j, output), output * 1j)


def bench(copies=None):
    return Plant(NET, 0.01, copies=copies)


@pytest.mark.parametrize("copies", [None, 2])
def test_agnostic_learning_takes_labels_one_hot(copies):
    moved = []
    for y in (LABELS, one_hot(LABELS)):
        plant = bench(copies)
        found = AgnosticEP(0.1, "centered", SelfControl()).step(plant, X, y)
        moved.append((plant.read().parameters, found.cost, found.output))
    same(*moved)


BENCH = {
    "fewer": (one_hot([0, 1, 2]), "x, y: wanted X and Y with the same number"),
    "scalar": (0.5, "x, y: wanted X and Y with the same number"),
    "column": (np.ones((4, 1)), r"x, y: wanted integer labels of shape \(n,\) or targets of shape \(n, 3\)"),
    "one float each": (np.ones(4), r"x, y: wanted integer labels of shape \(n,\) or targets of shape \(n, 3\)"),
    "label too large": (LABELS + 1, "x, y: wanted labels from 0 to 2"),
    "NaN": (np.full((4, 3), np.nan), "x, y: wanted finite numbers"),
    "complex": (one_hot(LABELS) + 1j, "x, y: wanted real targets"),
}


@pytest.mark.parametrize(("y", "message"), BENCH.values(), ids=BENCH)
def test_agnostic_learning_refuses_other_targets(y, message):
    plant = bench()
    before = plant.read().parameters
    with pytest.raises(ValueError, match=message):
        AgnosticEP(0.1).step(plant, X, y)
    np.testing.assert_array_equal(plant.read().parameters, before)


@pytest.mark.parametrize("y", [0.5, 2, np.ones(1), np.ones(4), np.ones((1, 3)), np.full(3, np.nan), np.ones(3) + 1j])
def test_the_bench_refuses_other_targets(y):
    plant = bench()
    for call in (
        lambda: plant.nudge(y, 0.1),
        lambda: calibrate(plant, np.asarray(X[0]), y),
        lambda: check_system(plant, np.asarray(X[0]), y),
    ):
        with pytest.raises(ValueError, match="target: wanted"):
            call()


def test_evaluate_refuses_complex_and_narrow_targets():
    for y, message in ((one_hot(LABELS) + 1j, "data: wanted real targets"), (np.ones((4, 1)), "data: wanted integer")):
        with pytest.raises(ValueError, match=message):
            evaluate(NET, (X, y))


def test_the_kit_takes_labels_and_refuses_other_targets(monkeypatch):
    for y, message in (
        (LABELS + 1, "y: wanted labels from 0 to 2"),
        (np.ones((4, 1)), r"y: wanted shape \(n, 3\)"),
        (one_hot(LABELS)[:3], "same leading batch axis"),
    ):
        with pytest.raises(ValueError, match=message):
            check_substrate(NET, X, y)

    class SeenError(Exception):
        pass

    def case(substrate, xs, ys, *_):
        raise SeenError(xs, ys)

    monkeypatch.setattr(entrance, "Case", case)
    for x, y, wanted in ((X, LABELS, one_hot(LABELS)), (X[0], np.array([0, 1, 0]), np.array([[0, 1, 0]]))):
        with pytest.raises(SeenError) as seen:
            check_substrate(NET, x, y)
        xs, ys = seen.value.args
        assert xs.shape == (len(wanted), 2)
        np.testing.assert_array_equal(ys, wanted)


def test_compiled_training_is_given_encoded_labels(key):
    net = circuit([2, 3, 4])
    examples = prepare(net, (np.asarray(X), LABELS))
    trainer = Trainer(net, EquilibriumPropagation(0.01), optax.sgd(0.1), examples, 4, key, True)
    _, moved = trainer.advance(trainer.initial, trainer.order(0), 0, 1)
    same(moved.tally.cost, EquilibriumPropagation(0.01)(NET, X, LABELS).cost)


def test_a_system_of_whole_numbers_has_nothing_to_train():
    net = LinearResponse(jnp.ones((1, 2), int), jnp.zeros(1, int), jnp.asarray(10))
    message = "substrate: LinearResponse has nothing to train: its arrays are int64; give floats"
    x, y = jnp.ones((4, 2)), jnp.zeros((4, 1))
    for call in (
        lambda: EquilibriumPropagation(0.1)(net, x, y),
        lambda: fit(net, EquilibriumPropagation(0.1), (x, y), optimiser=optax.sgd(0.1), epochs=1, key=KEY),
    ):
        with pytest.raises(ValueError, match=message):
            call()
