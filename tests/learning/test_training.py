"""Training against closed forms and contracts."""

import os
import re
import signal
import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_response import LinearResponse

from learning import EquilibriumPropagation, SquaredError, evaluate, fit, training
from learning.rule import ConvergenceError, Estimator, Moved, Mover
from learning.steps import _advance
from substrates import ResistorNetwork, Status
from substrates.substrate import split_parameters

RULE = EquilibriumPropagation(beta=0.5)


def make(n_inputs=3, n_outputs=2, weak_point=jnp.inf, dtype=jnp.float64):
    return LinearResponse(
        jnp.zeros((n_outputs, n_inputs), dtype), jnp.zeros(n_outputs, dtype), jnp.asarray(weak_point, dtype)
    )


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(41, 3))
    return x, x @ rng.normal(size=(3, 2)) + rng.normal(size=2) + 0.1 * rng.normal(size=(41, 2))


def arrays(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf)]


def assert_same_bytes(a, b):
    for left, right in zip(arrays(a), arrays(b), strict=True):
        assert left.dtype == right.dtype
        assert left.tobytes() == right.tobytes()


def test_reaches_the_least_squares_optimum(examples, key):
    x, y = examples
    run = fit(make(), RULE, examples, optimiser=optax.sgd(0.3), epochs=200, batch_size=41, key=key, progress=False)
    design = np.concatenate([x, np.ones((41, 1))], axis=1)
    best = np.linalg.lstsq(design, y)[0]
    np.testing.assert_allclose(run.substrate.weight, best[:3].T, atol=1e-9)
    np.testing.assert_allclose(run.substrate.offset, best[3], atol=1e-9)
    least = 0.5 * np.mean(np.sum((design @ best - y) ** 2, axis=1))
    np.testing.assert_allclose(run.history["cost"][-1], least, rtol=1e-9)
    assert run.epochs == 200
    assert run.history["cost"].shape == run.epoch_seconds.shape == (200,)
    assert "200 epochs" in repr(run)


def test_one_epoch_by_hand(examples, key):
    """The order, the wrapped last batch, the optimiser and the history, against a loop in numpy."""
    x, y = examples
    run = fit(make(), RULE, examples, optimiser=optax.sgd(0.1), epochs=1, batch_size=8, key=key, progress=False)
    order = np.random.default_rng([*jax.random.key_data(key).tolist(), 0]).permutation(41)
    order = np.concatenate([order, order[:7]])
    weight, offset, costs = np.zeros((2, 3)), np.zeros(2), []
    for batch in order.reshape(6, 8):
        gap = x[batch] @ weight.T + offset - y[batch]
        costs.append(0.5 * np.mean(np.sum(gap**2, axis=1)))
        # between -beta and beta the pull of the nudge on W x + b is gap / (1 - beta^2)
        gap /= 1 - 0.5**2
        weight -= 0.1 * gap.T @ x[batch] / 8
        offset -= 0.1 * gap.mean(axis=0)
    np.testing.assert_allclose(run.substrate.weight, weight, rtol=1e-12)
    np.testing.assert_allclose(run.substrate.offset, offset, rtol=1e-12)
    np.testing.assert_allclose(run.history["cost"], [np.mean(costs)], rtol=1e-12)


def test_every_epoch_has_its_own_order_with_every_example(key):
    examples = training.prepare(make(), (np.arange(123.0).reshape(41, 3), np.zeros((41, 2))))
    trainer = training.Trainer(make(), RULE, optax.sgd(0.1), examples, 8, key, True)
    orders = [np.asarray(trainer.order(epoch)[0]) for epoch in range(3)]
    for order in orders:
        assert sorted(order[:41]) == list(range(41))
        np.testing.assert_array_equal(order[41:], order[:7])
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[1], orders[2])


def test_does_not_depend_on_chunks(examples, key, monkeypatch):
    optimiser = optax.adam(0.01)
    train = lambda: fit(make(), RULE, examples, optimiser=optimiser, epochs=3, batch_size=4, key=key, progress=False)
    whole = train()
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 0.0)
    single = train()
    assert_same_bytes(whole.substrate, single.substrate)
    assert_same_bytes(whole.history, single.history)


class Traced(Estimator):
    rule: Estimator
    log: list = eqx.field(static=True)

    def __call__(self, substrate, x, y, *, key=None):
        self.log.append(x.shape)
        return self.rule(substrate, x, y, key=key)

    def __hash__(self):
        return id(self)


class CountedPhases(LinearResponse):
    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        PHASES.append("free" if nudge is None else "nudged")
        return LinearResponse.relax(self, x, nudge, start)


PHASES = []


def test_an_epoch_compiles_each_phase_once(examples, key, monkeypatch):
    weak = jnp.full((2, 3), 0.0)  # of a weak type, as literals are
    net = CountedPhases(weak, jnp.zeros(2))
    optimiser = optax.sgd(0.1)
    train = lambda epochs: fit(
        net, RULE, examples, optimiser=optimiser, epochs=epochs, batch_size=4, key=key, progress=False
    )
    PHASES.clear()
    train(1)
    first = list(PHASES)
    assert len(first) == 1  # one program serves the free phase and both nudged ones
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 0.0)  # other chunks, other lengths: nothing new
    train(3)
    assert first == PHASES


def test_labels_are_encoded_and_errors_counted(key):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40)
    x = rng.normal(size=(40, 3)) + 4 * labels[:, None]
    train = lambda y: fit(
        make(), RULE, (x, y), optimiser=optax.sgd(0.01), epochs=4, batch_size=8, key=key, progress=False
    )
    coded, real = train(labels), train(np.eye(2)[labels])
    assert_same_bytes(coded.substrate, real.substrate)
    assert "error" not in real.history
    assert coded.history["error"][-1] < coded.history["error"][0]
    found = evaluate(coded.substrate, (x, labels), outputs=True)
    shown = x @ np.asarray(coded.substrate.weight).T + np.asarray(coded.substrate.offset)
    np.testing.assert_allclose(found.output, shown, rtol=1e-12)
    assert found.error == np.mean(np.argmax(shown, axis=1) != labels)
    assert found.accuracy == 1 - found.error


def test_evaluation_does_not_depend_on_its_batches(examples):
    net = LinearResponse(jnp.ones((2, 3)), jnp.ones(2))
    x, y = examples
    expected = 0.5 * np.mean(np.sum((x.sum(axis=1)[:, None] + 1 - y) ** 2, axis=1))
    for batch_size in (None, 1, 7, 41, 100):
        found = evaluate(net, examples, batch_size=batch_size, outputs=True)
        np.testing.assert_allclose(found.cost, expected, rtol=1e-12)
        assert found.size == len(found.output) == 41
        assert found.error is None
        assert found.unconverged == 0
    assert "41 examples" in str(found)


def test_learning_rates_per_parameter(examples, key):
    labels = lambda tree: eqx.tree_at(lambda t: (t.weight, t.offset), tree, ("slow", "still"))
    optimiser = optax.multi_transform({"slow": optax.sgd(0.1), "still": optax.set_to_zero()}, labels)
    run = fit(make(), RULE, examples, optimiser=optimiser, epochs=1, batch_size=41, key=key, progress=False)
    np.testing.assert_array_equal(run.substrate.offset, np.zeros(2))
    x, y = examples
    np.testing.assert_allclose(run.substrate.weight, 0.1 * y.T @ x / 41 / 0.75, rtol=1e-12)


def test_fixed_fields_and_the_given_system_stay_as_they_are(examples, key):
    net = make(weak_point=100.0)
    optimiser = optax.adamw(0.1, weight_decay=0.5)
    run = fit(net, RULE, examples, optimiser=optimiser, epochs=1, batch_size=20, key=key, progress=False)
    assert float(run.substrate.weak_point) == 100.0
    np.testing.assert_array_equal(net.weight, np.zeros((2, 3)))
    assert float(jnp.abs(run.substrate.weight).max()) > 0


def test_constrained_parameters(examples, key):
    class Positive(LinearResponse):
        def constrained(self):
            return eqx.tree_at(lambda net: net.weight, self, jnp.maximum(self.weight, 0.0))

    net = Positive(jnp.zeros((2, 3)), jnp.zeros(2))
    x, y = examples
    run = fit(net, RULE, (x, y), optimiser=optax.sgd(0.3), epochs=200, batch_size=41, key=key, progress=False)
    from scipy.optimize import lsq_linear

    design = np.concatenate([x, np.ones((41, 1))], axis=1)
    for row in range(2):
        best = lsq_linear(design, y[:, row], bounds=([0, 0, 0, -np.inf], np.inf), tol=1e-14).x
        np.testing.assert_allclose(run.substrate.weight[row], best[:3], atol=1e-7)


def test_float32_stays_float32(examples, key):
    run = fit(make(dtype=jnp.float32), RULE, examples, optimiser=optax.adam(0.01), epochs=2, key=key, progress=False)
    assert run.substrate.weight.dtype == jnp.float32
    assert run.history["cost"][1] < run.history["cost"][0]


# movers


class GradientMover(Mover):
    rate: float
    cost: SquaredError = eqx.field(default_factory=SquaredError)

    def step(self, system, x, y, *, key=None):
        found = RULE(system, x, y)
        parameters, rest = split_parameters(system)
        moved = eqx.combine(jax.tree.map(lambda p, g: p - self.rate * g, parameters, found.gradient), rest)
        return Moved(moved, found.cost, found.output, found.residual, found.unconverged)


class Jammed(Mover):
    def step(self, system, x, y, *, key=None):
        weight = eqx.error_if(system.weight + 1.0, jnp.sum(system.weight) > 15, "the plant is jammed")
        return Moved(eqx.tree_at(lambda s: s.weight, system, weight), jnp.zeros(()), y)


def test_a_mover_moves_the_parameters_itself(examples, key):
    options = dict(epochs=2, batch_size=8, key=key, progress=False, validation=examples)
    moved = fit(make(), GradientMover(0.1), examples, **options)
    stepped = fit(make(), RULE, examples, optimiser=optax.sgd(0.1), **options)
    np.testing.assert_allclose(moved.substrate.weight, stepped.substrate.weight, rtol=1e-12)
    np.testing.assert_allclose(moved.history["validation_cost"], stepped.history["validation_cost"], rtol=1e-12)
    for name in ("cost", "residual", "unconverged"):
        np.testing.assert_allclose(moved.history[name], stepped.history[name], rtol=1e-9, atol=1e-12)


def test_a_mover_that_fails_loses_nothing(examples, key, monkeypatch):
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 0.0)
    with pytest.raises(training.TrainingError, match="jammed") as raised:
        fit(make(), Jammed(), examples, epochs=2, batch_size=8, key=key, progress=False)
    np.testing.assert_array_equal(raised.value.run.substrate.weight, np.full((2, 3), 3.0))


# convergence


@pytest.fixture(scope="module")
def one_bad(examples):
    """One example, the 7th batch's in the first epoch's order, does not settle."""
    x, y = (array.copy() for array in examples)
    order = np.random.default_rng([*jax.random.key_data(jax.random.key(0)).tolist(), 0]).permutation(41)
    x[order[6 * 4]] = [50.0, 0.0, 0.0]
    return x, y


def test_strict_stops_before_the_bad_batch(one_bad, key, tmp_path):
    options = dict(optimiser=optax.sgd(0.001), batch_size=4, key=key, progress=False)
    with pytest.raises(ConvergenceError, match="epoch 1, batch 7 of 11") as raised:
        fit(make(weak_point=40.0), RULE, one_bad, epochs=2, **options, out=tmp_path / "run")
    message = str(raised.value)
    assert "3 times: " + Status[Status.out_of_steps] in message
    assert "strict=False" in message
    assert str(tmp_path / "run") in message
    trainer = training.Trainer(make(), RULE, options["optimiser"], training.prepare(make(), one_bad), 4, key, True)
    _, before = trainer.advance(trainer.initial, trainer.order(0), 0, 6)
    assert_same_bytes(raised.value.run.substrate.weight, before.parameters.weight)


def test_lenient_counts(one_bad, key):
    rule = EquilibriumPropagation(beta=0.5, strict=False)
    options = dict(optimiser=optax.sgd(0.001), epochs=2, batch_size=4, key=key, progress=False)
    lenient = fit(make(weak_point=40.0), rule, one_bad, **options)
    np.testing.assert_array_equal(lenient.history["unconverged"], [3, 3])
    assert_same_bytes(lenient.substrate.weight, fit(make(), RULE, one_bad, **options).substrate.weight)
    with pytest.raises(ConvergenceError):
        fit(make(weak_point=40.0), rule, one_bad, strict=True, **options)
    again = fit(make(weak_point=40.0), RULE, one_bad, strict=False, **options)
    assert_same_bytes(lenient.substrate, again.substrate)


@pytest.mark.parametrize("strict", [True, False])
def test_divergence_is_an_error_and_the_finite_system_is_kept(examples, key, strict):
    with pytest.raises(training.TrainingError, match="smaller") as raised:
        fit(
            make(dtype=jnp.float32), RULE, examples,
            optimiser=optax.sgd(1e4), epochs=50, batch_size=4, key=key, progress=False, strict=strict,
        )  # fmt: skip
    assert np.all(np.isfinite(raised.value.run.substrate.weight))


# interruption


def test_ctrl_c_keeps_what_is_done(examples, key, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 0.0)
    handler = signal.getsignal(signal.SIGINT)
    options = dict(optimiser=optax.adam(0.01), batch_size=4, key=key, progress=False)
    steps, advance = [], training.Trainer.advance

    def press(self, *arguments):
        steps.append(None)
        if len(steps) == 15:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self, *arguments)

    monkeypatch.setattr(training.Trainer, "advance", press)
    run = fit(make(), RULE, examples, epochs=4, out=tmp_path / "run", **options)
    assert run.interrupted
    assert len(steps) == 15
    assert run.epochs == 1
    assert "interrupted" in repr(run)
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = fit(make(), RULE, examples, epochs=4, out=tmp_path / "run", resume=True, **options)
    whole = fit(make(), RULE, examples, epochs=4, **options)
    assert not resumed.interrupted
    assert_same_bytes(resumed.substrate, whole.substrate)
    assert_same_bytes(resumed.history, whole.history)


def test_trains_outside_the_main_thread(examples, key):
    runs = []
    train = lambda: runs.append(
        fit(make(), RULE, examples, optimiser=optax.sgd(0.1), epochs=1, key=key, progress=False)
    )
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert runs[0].epochs == 1


def test_progress_shows_what_matters(examples, key, capsys):
    fit(make(), RULE, examples, optimiser=optax.sgd(0.1), epochs=2, key=key)
    shown = capsys.readouterr().err
    for word in ("cost=", "residual=", "unconverged=0", "4/4"):
        assert word in shown


# bad input

X, Y = np.ones((4, 3)), np.ones((4, 2))
SGD = optax.sgd(0.1)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (dict(optimiser=None), ValueError, "optimiser: EquilibriumPropagation estimates gradients"),
        (dict(rule=GradientMover(0.1)), ValueError, "GradientMover moves the parameters itself"),
        (dict(rule=lambda *_: None), TypeError, "rule: wanted an Estimator or a Mover"),
        (dict(substrate=3), TypeError, "substrate: wanted a Substrate"),
        (dict(epochs=-1), ValueError, "epochs"),
        (dict(epochs=1.5), ValueError, "epochs"),
        (dict(batch_size=0), ValueError, "batch_size"),
        (dict(batch_size=5), ValueError, "batch_size: wanted at most the 4 examples"),
        (dict(resume=True), ValueError, "give out="),
        (dict(config={"a": 1}), ValueError, "give out="),
        (dict(data=X), ValueError, "wanted a pair"),
        (dict(data=(X, Y[:3])), ValueError, "same number of examples"),
        (dict(data=(X[:0], Y[:0])), ValueError, "at least one"),
        (dict(data=(X, Y[:, :1])), ValueError, r"targets of shape \(n, 2\)"),
        (dict(data=(X, np.array([0, 1, 2, 0]))), ValueError, "labels from 0 to 2"),
        (dict(data=(X, np.array([0, -1, 1, 0]))), ValueError, "labels from -1 to 1"),
        (dict(data=(X * np.nan, Y)), ValueError, "finite"),
        (dict(data=(X.astype(str), Y)), ValueError, "wanted numbers"),
        (dict(validation=(X, Y[:, :1])), ValueError, "validation: wanted"),
        (dict(test=(X[:2], Y)), ValueError, "test: wanted"),
    ],
)
def test_bad_arguments(changes, error, words, key):
    options = dict(substrate=make(), rule=RULE, data=(X, Y), optimiser=SGD, epochs=1, key=key, progress=False) | changes
    if isinstance(options["rule"], Mover):
        options["optimiser"] = SGD
    with pytest.raises(error, match=words):
        fit(options.pop("substrate"), options.pop("rule"), options.pop("data"), **options)


def test_wrong_input_size_names_the_shapes(key):
    with pytest.raises(TypeError, match="shape"):
        fit(make(), RULE, (np.ones((4, 5)), Y), optimiser=SGD, epochs=1, key=key, progress=False)


def test_a_step_copies_no_parameter(examples, key):
    """Gradient descent updates the parameters in place; a copy of them would double the cost of a step."""
    net = LinearResponse(jnp.zeros((29, 37)), jnp.zeros(29))
    prepared = training.prepare(net, (np.ones((8, 37)), np.ones((8, 29))))
    trainer = training.Trainer(net, RULE, optax.sgd(0.1), prepared, 4, key, True)
    order, steps_key = trainer.order(0)
    bounds = (jnp.asarray(0, jnp.int32), jnp.asarray(2, jnp.int32))
    program = _advance.lower((trainer.standing, order, *bounds, steps_key), trainer.initial).compile()
    text = program.compiled.as_text()
    assert "while(" in text
    assert "f64[29,37]" in text
    assert not re.findall(r"= f64\[29,37\]\S* copy\(.*", text)


def of_a_divider(beta, target=0.2, rate=0.1, dtype=jnp.float32):
    """One epoch of a voltage divider in 32 bits, 1 V across 1 S and 2 S in a row."""
    values = jnp.array([1.0, 2.0], dtype)
    net = ResistorNetwork.from_edges([(0, 1), (1, 2)], 3, inputs=[0, 2], outputs=[1], conductance=values)
    data = np.array([[1.0, 0.0]]), np.array([[target]])
    rule = EquilibriumPropagation(beta)
    return fit(net, rule, data, optimiser=optax.sgd(rate), epochs=1, key=jax.random.key(0), progress=False)


def test_a_nudge_too_faint_for_the_precision_is_told():
    with pytest.warns(UserWarning, match=r"epoch 1 has changed no parameter, .* 0.00889: .* what float32 tells apart"):
        run = of_a_divider(1e-9)
    assert run.history["unconverged"][0] == 0
    moved = of_a_divider(1e-2)  # any warning would be an error
    assert not np.array_equal(moved.substrate.conductance, run.substrate.conductance)


def test_a_standstill_without_a_cost_is_what_is_wanted():
    exact = of_a_divider(1e-2, target=1 / 3, dtype=jnp.float64)
    assert exact.history["cost"][0] < 1e-30
    with pytest.warns(UserWarning, match="the learning rate is 0"):
        of_a_divider(1e-2, rate=0.0)
