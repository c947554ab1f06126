"""Killed with SIGKILL at any moment and resumed, a run ends as if nothing had happened, bit for bit."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_response import LinearResponse

from learning import EquilibriumPropagation, fit
from learning.checkpoint import CheckpointError
from learning.closures import describe_functions, differing_parts
from learning.run_folder import RunFolderError

SCRIPT = Path(__file__).parent.parent / "helpers" / "killed_runs.py"


def run_killed(folder, schedule):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", SCRIPT, folder / "run", json.dumps(schedule)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    found = run_killed(tmp_path_factory.mktemp("whole"), [])
    assert found.pop("died") == 0
    assert found["epochs"] == 5
    return found


@pytest.mark.parametrize(
    "schedule",
    [
        [["event", n] for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 20)],
        [["half", 1], ["flush", 4], ["half", 2], ["flush", 7], ["half", 5], ["flush", 3], ["event", 30], ["half", 8]],
        [["time", s] for s in (0.01, 0.02, 0.03, 0.05, 0.08, 0.13)],
    ],
    ids=["at every file", "inside checkpoints", "at any time"],
)
def test_killed_and_resumed_is_bit_identical(tmp_path, uninterrupted, schedule):
    found = run_killed(tmp_path, schedule)
    assert found.pop("died") >= len(schedule) // 2
    assert found == uninterrupted
    assert not list((tmp_path / "run").glob(".*"))


# what a resumed run must agree with

RULE = EquilibriumPropagation(beta=0.5)
ADAM = optax.adam(0.01)
NET = LinearResponse(jnp.zeros((2, 3)), jnp.zeros(2))
DATA = (np.arange(24.0).reshape(8, 3) / 24, np.ones((8, 2)))


def train(out, resume=False, **changes):
    options = dict(optimiser=ADAM, epochs=2, batch_size=4, key=jax.random.key(0), progress=False) | changes
    net, rule, data = options.pop("net", NET), options.pop("rule", RULE), options.pop("data", DATA)
    return fit(net, rule, data, out=out, resume=resume, **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done") / "run"
    train(folder)
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_folder_holds_the_run(done):
    found = sorted(str(path.relative_to(done)) for path in done.rglob("*") if path.is_file())
    assert found == [
        "checkpoint.npz", "config.json", "data.npz", "figures/learning_curve.png", "metrics.jsonl", "summary.json",
        "system.npz", "times.json",
    ]  # fmt: skip
    summary = json.loads((done / "summary.json").read_text())
    assert summary["epochs"] == 2
    assert summary["seconds"] > 0
    assert not summary["interrupted"]
    assert {"python", "jax", "jaxlib", "numpy"} <= set(summary["versions"])
    rows = [json.loads(line) for line in (done / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    with np.load(done / "checkpoint.npz", allow_pickle=False) as saved:
        assert all(saved[name].dtype == np.uint8 for name in saved.files)


def test_more_epochs_go_on_where_it_ended(done, tmp_path):
    train(tmp_path / "a")
    longer = train(tmp_path / "a", resume=True, epochs=3)
    whole = train(tmp_path / "b", epochs=3)
    assert longer.seconds > 0
    np.testing.assert_array_equal(longer.substrate.weight, whole.substrate.weight)
    np.testing.assert_array_equal(longer.history["cost"], whole.history["cost"])


def test_seconds_add_up(tmp_path):
    first = train(tmp_path / "run")
    second = train(tmp_path / "run", resume=True, epochs=3)
    assert second.seconds > first.seconds
    np.testing.assert_array_equal(second.epoch_seconds[:2], first.epoch_seconds)


def test_seconds_after_the_last_checkpoint_are_kept_over_a_resume(tmp_path):
    """Those of the evaluations and the figure stand in the summary alone."""
    train(tmp_path / "run")
    summary = tmp_path / "run" / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"seconds": 1000.0}))
    (tmp_path / "lost").mkdir()
    for file in ("config.json", "checkpoint.npz", "summary.json"):
        shutil.copy(tmp_path / "run" / file, tmp_path / "lost")
    assert train(tmp_path / "run", resume=True, epochs=3).seconds > 1000
    assert train(tmp_path / "lost", resume=True, epochs=3).seconds > 1000
    assert json.loads(summary.read_text())["seconds"] > 1000


def test_equal_runs_write_equal_files(done, tmp_path):
    train(tmp_path / "run")
    for name in ("checkpoint.npz", "config.json", "system.npz", "data.npz"):
        assert (tmp_path / "run" / name).read_bytes() == (done / name).read_bytes()


def test_the_seconds_may_be_lost_but_not_damaged(tmp_path):
    train(tmp_path / "run")
    (tmp_path / "run" / "times.json").write_text('{"epoch_seconds": 3}')
    with pytest.raises(CheckpointError, match=r"times\.json: damaged .* remove this file"):
        train(tmp_path / "run", resume=True, epochs=3)
    (tmp_path / "run" / "times.json").unlink()
    run = train(tmp_path / "run", resume=True, epochs=3)
    assert np.isnan(run.epoch_seconds).tolist() == [True, True, False]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["seconds"] is None for row in rows] == [True, True, False]


def test_another_version_may_resume(tmp_path, monkeypatch):
    train(tmp_path / "run")
    monkeypatch.setattr("learning.training.version", lambda: "9.9")
    train(tmp_path / "run", resume=True, epochs=3)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["groundstate"] == "9.9"


def test_a_folder_of_an_earlier_version_is_refused_by_name(tmp_path):
    train(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    old = {name: value for name, value in json.loads(path.read_text()).items() if name not in ("groundstate", "class")}
    path.write_text(json.dumps(old))
    with pytest.raises(RunFolderError, match="was written by an earlier version of groundstate"):
        train(tmp_path / "run", resume=True)


def test_an_existing_run_is_not_overwritten(done):
    before = contents(done)
    with pytest.raises(RunFolderError, match="already holds a run"):
        train(done)
    assert contents(done) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(key=jax.random.key(1)), "another key"),
        (dict(batch_size=8), "another batch_size"),
        (dict(rule=EquilibriumPropagation(beta=0.25)), "another rule"),
        (dict(data=(DATA[0], 2 * DATA[1])), "another data"),
        (dict(net=LinearResponse(jnp.ones((2, 3)), jnp.zeros(2))), "another initial_arrays"),
        (dict(net=jax.tree.map(lambda leaf: leaf.astype(jnp.float32), NET)), "another substrate"),
        (dict(config={"learning_rate": 0.1}), "another learning_rate"),
    ],
)
def test_another_config_is_refused_and_nothing_lost(done, changes, words):
    before = contents(done)
    with pytest.raises(RunFolderError, match=words) as raised:
        train(done, resume=True, **changes)
    assert str(done) in str(raised.value)
    assert contents(done) == before


@pytest.mark.parametrize("other", [optax.sgd(0.1), optax.adam(0.06), optax.adam(0.05, b1=0.8)])
def test_another_optimiser_is_refused(done, other):
    """Its state may have the same arrays, by which the checkpoint could not tell."""
    before = contents(done)
    with pytest.raises(RunFolderError, match="was started with another optimiser: ") as raised:
        train(done, resume=True, optimiser=other)
    there, here = differing_parts(describe_functions(ADAM), describe_functions(other))
    assert f"another optimiser: {there} there, {here} here; give what it was started with" in str(raised.value)
    assert contents(done) == before


def test_an_optimiser_of_another_optax_is_told_by_its_arrays_alone(tmp_path):
    train(tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"optimiser": {"optax": "0.1", "made of": "adam"}}))
    with pytest.raises(CheckpointError, match="another system or optimiser"):
        train(tmp_path / "run", resume=True, optimiser=optax.sgd(0.1))
    train(tmp_path / "run", resume=True, epochs=3)


OPTIMISERS = {
    "adam": lambda: optax.adam(0.05),
    "slower": lambda: optax.adam(0.04),
    "decaying": lambda: optax.adam(optax.exponential_decay(0.05, 100, 0.9)),
    "in steps": lambda: optax.adam(optax.exponential_decay(0.05, 100, 0.9, staircase=True)),
    "by a function": lambda: optax.adam(lambda count: 0.1 / (1 + count)),
    "by another function": lambda: optax.adam(lambda count: 0.2 / (1 + count)),
    "chained": lambda: optax.chain(optax.clip(1.0), optax.sgd(0.1)),
    "one for each": lambda: optax.multi_transform({"a": optax.sgd(0.1), "b": optax.sgd(0.2)}, lambda _: "a"),
    "another for each": lambda: optax.multi_transform({"a": optax.sgd(0.1), "b": optax.sgd(0.2)}, lambda _: "b"),
    "every fourth": lambda: optax.MultiSteps(optax.sgd(0.1), 4).gradient_transformation(),
    "every fifth": lambda: optax.MultiSteps(optax.sgd(0.1), 5).gradient_transformation(),
    "an array": lambda: optax.sgd(jnp.asarray(0.1)),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(0.05),
    "injected slower": lambda: optax.inject_hyperparams(optax.adam)(0.04),
}


def test_optimisers_are_described_alike_where_they_are_alike_and_only_there():
    texts = {name: describe_functions(build()) for name, build in OPTIMISERS.items()}
    assert len(set(texts.values())) == len(texts)
    assert texts == {name: describe_functions(build()) for name, build in OPTIMISERS.items()}
    assert not any(" at 0x" in text for text in texts.values())


def test_what_differs_between_optimisers_is_named_without_their_closures():
    for one, other in itertools.combinations([describe_functions(build()) for build in OPTIMISERS.values()], 2):
        there, here = differing_parts(one, other)
        assert there != here
        assert "the same parts" not in there
        assert "<locals>" not in there + here
        assert differing_parts(other, one) == (here, there)


@pytest.mark.parametrize(
    ("one", "other", "there", "here"),
    [
        (optax.adam(0.05), optax.adam(0.04), "scale(step_size=-0.05)", "scale(step_size=-0.04)"),
        (optax.adam(0.05), optax.adam(0.05, b1=0.8), "scale_by_adam(b1=0.9)", "scale_by_adam(b1=0.8)"),
        (optax.sgd(0.1), optax.sgd(0.1, 0.9), "nothing in their place", "trace(decay=0.9, nesterov=False)"),
        (
            optax.adam(0.05),
            optax.sgd(0.1),
            "scale_by_adam(b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0, nesterov=False), scale(step_size=-0.05)",
            "scale(step_size=-0.1)",
        ),
        (
            optax.sgd(optax.piecewise_constant_schedule(0.1, {100: 0.5})),
            optax.sgd(optax.piecewise_constant_schedule(0.1, {200: 0.5})),
            "piecewise_constant_schedule(boundaries_and_scales=100: 0.5)",
            "piecewise_constant_schedule(boundaries_and_scales=200: 0.5)",
        ),
        (
            optax.chain(optax.clip(1.0), optax.sgd(0.1)),
            optax.chain(optax.sgd(0.1), optax.clip(1.0)),
            "the same parts",
            "in another order",
        ),
    ],
)
def test_optimisers_differ_in_words(one, other, there, here):
    assert differing_parts(describe_functions(one), describe_functions(other)) == (there, here)


def test_fewer_epochs_are_refused(done):
    before = contents(done)
    with pytest.raises(ValueError, match="already done 2 epochs"):
        train(done, resume=True, epochs=1)
    assert contents(done) == before


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "other"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    train(tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.npz"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[content.index(b"\x93NUMPY") + 130] ^= 0xFF
    elif damage == "empty":
        content = b""
    else:
        np.savez(path, array0=np.zeros(3))
        content = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="truncated or damaged") as raised:
        train(tmp_path / "run", resume=True)
    assert str(path) in str(raised.value)
    assert "remove this file" in str(raised.value)
    assert "allow_pickle" not in str(raised.value)
    assert path.read_bytes() == bytes(content)
    path.unlink()
    again = train(tmp_path / "run", resume=True)
    assert again.epochs == 2


def test_folders_that_cannot_hold_a_run(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        with pytest.raises(RunFolderError, match="name a"):
            train(folder)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").write_text("E = mc^2")
    for resume in (False, True):
        with pytest.raises(RunFolderError, match=r"thesis\.tex"):
            train(tmp_path / "notes", resume=resume)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(RunFolderError, match="cannot be read"):
        train(tmp_path / "run", resume=True)
