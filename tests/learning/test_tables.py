"""Frames, series, lists and the parts that scikit-learn splits go into fit, evaluate and predict as they are."""

import jax
import numpy as np
import optax
import pytest
from linear_response import LinearResponse
from sklearn.model_selection import train_test_split

from learning import EquilibriumPropagation, evaluate, fit, predict

pandas = pytest.importorskip("pandas")

X = np.random.default_rng(0).normal(size=(12, 3))
Y = np.arange(12) % 2
ROWS = [f"row {k}" for k in range(12)]
SYSTEM = LinearResponse.for_task(3, 2, key=jax.random.key(0))


def trained(x, y):
    rule = EquilibriumPropagation(beta=0.1)
    key = jax.random.key(1)
    return fit(SYSTEM, rule, (x, y), optimiser=optax.sgd(0.1), epochs=2, batch_size=3, key=key, progress=False)


@pytest.fixture(scope="module")
def wanted():
    return trained(X, Y)


def frame(values=X, **options):
    return pandas.DataFrame(values, columns=["height", "width", "age"], index=ROWS, **options)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (frame(), pandas.Series(Y, index=ROWS)),
        (frame(), pandas.Series(Y, index=ROWS, dtype="Int64")),
        (frame(), pandas.Series(["no", "yes"] * 6)),
        (frame(), pandas.Series(["no", "yes"] * 6, dtype="category")),
        (frame(), pandas.Series(Y == 1)),
        (X.tolist(), Y.tolist()),
        (frame(), ["no", "yes"] * 6),
    ],
    ids=["whole numbers", "with gaps", "texts", "categories", "truth values", "lists", "frame and list"],
)
def test_fit_takes_them_as_arrays(x, y, wanted):
    found = trained(x, y)
    np.testing.assert_array_equal(found.history["cost"], wanted.history["cost"])
    np.testing.assert_array_equal(found.history["error"], wanted.history["error"])


def test_targets_may_be_a_frame():
    targets = np.random.default_rng(1).normal(size=(12, 2))
    found = trained(frame(), pandas.DataFrame(targets, columns=["left", "right"]))
    np.testing.assert_array_equal(found.history["cost"], trained(X, targets).history["cost"])


def test_evaluate_and_predict_take_them():
    x, y = frame(), pandas.Series(Y)
    assert evaluate(SYSTEM, (x, y)).cost == evaluate(SYSTEM, (X, Y)).cost
    np.testing.assert_array_equal(predict(SYSTEM, x).outputs, predict(SYSTEM, X).outputs)
    np.testing.assert_array_equal(predict(SYSTEM, X.tolist()).outputs, predict(SYSTEM, X).outputs)


@pytest.mark.parametrize(
    ("x", "y"), [(X, Y), (frame(), pandas.Series(Y)), (X.tolist(), Y.tolist())], ids=["arrays", "frames", "lists"]
)
def test_what_scikit_learn_splits_trains_and_is_evaluated(x, y):
    x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0)
    run = trained(x_train, y_train)
    chosen = train_test_split(np.arange(12), random_state=0)
    assert evaluate(run.substrate, (x_test, y_test)).cost == evaluate(run.substrate, (X[chosen[1]], Y[chosen[1]])).cost


def test_what_is_missing_in_a_table_is_said():
    holes = frame()
    holes.iloc[3, 1] = np.nan
    with pytest.raises(ValueError, match="wanted finite numbers, got NaN"):
        trained(holes, Y)
    with pytest.raises(ValueError, match="wanted numbers, got"):
        trained(frame().assign(name="Ann"), Y)
