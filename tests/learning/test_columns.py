"""Parameters that devices share by columns: parts of what is large, and the numbers of one device."""

import json
import math
import shutil
from pathlib import Path

import column_training
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from column_training import FIRST, train
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import PartitionSpec
from linear_response import PLUGIN, LinearResponse
from processes import ended, port, started
from shared_training import check_numbers, numbers

from learning import EquilibriumPropagation
from learning.devices import ColumnsError, Devices
from learning.hosts import named_as_options
from learning.options import UsageError
from substrates.solvers.sharing import COLUMNS, LARGE, column_spec


def in_processes(folder, names, processes, columns):
    at = port()
    words = (column_training.__file__, folder, json.dumps(names), at)
    ended(*(started(*words, process, processes, columns) for process in range(processes)))
    return [json.loads((folder / f"told {process}.json").read_text()) for process in range(processes)]


def check_parts(told, columns, matrices):
    """Every device has its columns of so many large matrices, of parameters and of the optimiser's, and all the rest;
    none gathers as much as its part of the largest in a step.
    """
    found = [(tuple(shape), {tuple(part) for part in parts}) for shape, parts in told["parts"]]
    large = [(shape, parts) for shape, parts in found if len(shape) > 1 and math.prod(shape) >= LARGE]
    assert len(large) == matrices
    for shape, parts in found:
        divided = (*shape[:-1], shape[-1] // columns) if (shape, parts) in large else shape
        assert parts == {divided}
    assert max(told["gathered"], default=0) < LARGE / columns


# two processes


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("columns")
    train(FIRST, out=folder / "alone")
    return folder, in_processes(folder, [FIRST], 2, 2)


def test_two_processes_that_share_columns_give_the_numbers_of_one_device(two):
    check_numbers(two[0], FIRST, 2, numbers(train(FIRST)))


def test_each_has_its_columns_of_parameters_and_of_what_the_optimiser_keeps(two):
    for told in two[1]:
        check_parts(told[FIRST], columns=2, matrices=3)


def test_one_process_writes_what_both_have_and_it_is_resumed_on_other_devices(two, tmp_path):
    """By columns, then on two devices with all parameters, and then on one; and by columns what one has begun."""
    weight = lambda run: np.asarray(run.substrate.weight)
    for name, epochs in (("run", 3), ("alone", 2)):
        folder = two[0] / name
        assert not list(folder.glob(".*"))
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
        copy = shutil.copytree(folder, tmp_path / name)
        resumed = train(FIRST, epochs=epochs, out=copy, resume=True)
        np.testing.assert_allclose(weight(resumed), weight(train(FIRST, epochs=epochs)), rtol=1e-10)


def test_a_bad_batch_leaves_the_whole_system_as_it_was(two):
    for told in two[1]:
        epochs, weight = told["stopped"]
        assert epochs == 0
        assert np.shape(weight) == (64, 64)
        assert np.all(np.isfinite(weight))
    np.testing.assert_array_equal(*(told["stopped"][1] for told in two[1]))


def test_what_cannot_be_shared_is_refused_by_both(two):
    for told in two[1]:
        assert told["on the bench"].startswith("ColumnsError: mesh: AgnosticEP moves the parameters itself")
        assert told["moved"].startswith("ColumnsError: mesh: ContinualEP moves the parameters itself")
        assert told["small"].startswith("ColumnsError: mesh: LinearResponse trains no matrix of 4,096 numbers or more")
        assert told["small"].endswith("jax.make_mesh((2,), ('examples',)), by which each has all parameters")
        assert told["host"].startswith("ColumnsError: mesh: this system computes on the host while it settles")
        assert told["unequal parts"].startswith("ValueError: batch_size: wanted a multiple of the 2 devices")


MATRICES = {"Hopfield": 3, "resistors": 3, "predictive coding": 2}
"""Of 4,096 numbers or more: one of parameters, and those of its shape that the optimiser keeps."""


@pytest.mark.slow
@pytest.mark.parametrize("name", MATRICES)
def test_networks_whose_columns_are_shared_settle_as_on_one_device(tmp_path, name):
    for told in in_processes(tmp_path, [name], 2, 2):
        check_parts(told[name], columns=2, matrices=MATRICES[name])
    check_numbers(tmp_path, name, 2, numbers(train(name)))


@pytest.mark.slow
def test_four_processes_share_examples_and_columns(tmp_path):
    for told in in_processes(tmp_path, ["Hopfield"], 4, 2):
        check_parts(told["Hopfield"], columns=2, matrices=3)
    check_numbers(tmp_path, "Hopfield", 4, numbers(train("Hopfield")))


# how arrays are shared


@given(st.lists(st.integers(1, 300), max_size=3), st.integers(1, 8))
def test_columns_are_shared_where_a_matrix_is_large_and_all_have_as_many(shape, devices):
    spec = column_spec(jax.ShapeDtypeStruct(tuple(shape), jnp.float32), devices)
    worth = devices > 1 and len(shape) > 1 and math.prod(shape) >= LARGE and shape[-1] % devices == 0
    assert spec == (PartitionSpec(*[None] * (len(shape) - 1), COLUMNS) if worth else PartitionSpec())


def test_a_second_axis_of_one_device_is_none():
    devices = Devices(jax.make_mesh((1, 1), ("a", "b"), devices=jax.devices()[:1]))
    assert devices.mesh.axis_names == ("examples",)
    devices.check_columns(LinearResponse(jnp.zeros((2, 3)), jnp.zeros(2)), EquilibriumPropagation(0.5))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--columns 2", "--columns: wanted with --devices or --distributed, got neither; give --devices 2 too"),
        ("--columns 0", "--columns: wanted a positive whole number"),
        ("--devices 1 --columns 2", "--columns: wanted what divides 1, the devices, got 2; give 1"),
    ],
)
def test_bad_words(command, words, message):
    code, out, err = command("train", PLUGIN, "--data", "iris", *words.split())
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("run").exists()


@pytest.fixture
def two_columns(monkeypatch):
    """Devices, all of which are this one, are taken for two that share columns."""
    made = Devices.__init__
    doubled = lambda self, mesh=None: (made(self, mesh), vars(self).update(columns=2))[0]
    monkeypatch.setattr(Devices, "__init__", doubled)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--rule continual --beta 0.5", "ContinualEP moves the parameters itself and takes them whole"),
        ("", "LinearResponse trains no matrix of 4,096 numbers or more whose columns 2 devices can share evenly"),
    ],
)
def test_the_command_refuses_before_it_says_anything(command, two_columns, words, reason):
    code, out, err = command("train", PLUGIN, "--data", "iris", *words.split())
    assert (code, out) == (2, "")
    assert (
        err == f"groundstate: error: --columns: {reason}; leave it out, and each of the --devices has all parameters\n"
    )
    assert not Path("runs").exists() or not any(Path("runs").iterdir())


def test_what_shows_while_training_is_refused_in_the_same_words():
    with pytest.raises(UsageError, match="--columns: it computes on the host; leave it out"), named_as_options():
        raise ColumnsError("it computes on the host", 2)
    with pytest.raises(ValueError, match=r"^epochs: none") as raised, named_as_options():
        raise ValueError("epochs: none")
    assert type(raised.value) is ValueError


@pytest.mark.slow
def test_the_command_shares_columns_and_resumes_alone(tmp_path):
    train = ["-m", "learning.cli", "train", "hopfield", "--data", "digits", "--sizes", 64]
    command = [*train, "--batch-size", 64, "--precision", 64]
    at, run = port(), tmp_path / "run"
    many = [*command, "--epochs", 1, "--columns", 2, "--out", run, "--distributed", "--coordinator", f"localhost:{at}"]
    ended(*(started(*many, "--process", f"{k}/2") for k in range(2)))
    ended(started(*command, "--epochs", 2, "--out", run, "--resume"))
    ended(started(*command, "--epochs", 2, "--out", tmp_path / "whole"))
    costs = [
        [json.loads(line)["cost"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("run", "whole")
    ]
    assert len(costs[0]) == 2
    np.testing.assert_allclose(*costs, rtol=1e-10)
