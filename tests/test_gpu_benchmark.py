"""The run that compares an accelerator with the CPU: what it calls right, and what it says where something failed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learning.data import Data
from learning.idx import DataError

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))  # its parts import each other, as they do when it is run

import colour_images  # noqa: E402
import gpu  # noqa: E402
import gpu_networks  # noqa: E402
import gpu_systems  # noqa: E402


def an_answer(**changes):
    found = {
        "outputs": np.array([[1.0, -2.0]]),
        "energies": np.array([[3.0]]),
        "gradient": np.array([0.5, 4.0]),
        "endings": np.arange(len(gpu_systems.ENDINGS))[None] == 0,
    }
    return found | changes


# what is right


@pytest.mark.parametrize(
    ("changes", "bits", "right"),
    [
        ({}, 64, True),
        ({"outputs": np.array([[1.0, -2.0 - 1e-7]])}, 64, True),
        ({"outputs": np.array([[1.0, -2.0 - 1e-6]])}, 64, False),
        ({"outputs": np.array([[1.0, -2.0 - 1e-6]])}, 32, True),
        ({"outputs": np.array([[1.0, np.nan]])}, 32, False),
        ({"gradient": np.array([0.5, 4.001])}, 64, False),
        ({"gradient": np.array([0.5, 4.001])}, 32, True),
        ({"energies": np.array([[3.00001]])}, 64, False),
        ({"endings": np.arange(len(gpu_systems.ENDINGS))[None] == 2}, 64, False),
    ],
)
def test_what_is_right(changes, bits, right):
    row = gpu_systems.judged(an_answer(**changes), an_answer(), bits)
    assert row["right"] is right
    assert row["ended"] == ("out_of_steps" if "endings" in changes else "converged")


def test_differences_are_parts_of_the_largest_number():
    found = an_answer(gradient=np.array([0.6, 4.0]))
    assert gpu_systems.differences(found, an_answer()) == pytest.approx(
        {"outputs": 0.0, "energies": 0.0, "gradient": 0.025}
    )
    nothing = an_answer(energies=np.zeros(0), gradient=np.zeros(2))
    assert gpu_systems.differences(nothing, nothing) == {"outputs": 0.0, "gradient": 0.0}


def test_a_system_that_fails_is_told_and_the_others_go_on(monkeypatch):
    def answer(name):
        if name == "broken":
            raise NotImplementedError("no such\n factorisation here")
        return an_answer(bits=np.asarray(jnp.zeros(1).dtype.itemsize * 8))

    monkeypatch.setattr(gpu_systems, "answer", answer)
    before = jax.config.values["jax_enable_x64"]
    found = {(name, bits): got for name, bits, got in gpu_systems.answers(["broken", "sound"], time.time() + 60)}
    assert jax.config.values["jax_enable_x64"] == before
    assert found["broken", 64] == found["broken", 32] == "NotImplementedError: no such factorisation here"
    assert [int(found["sound", bits]["bits"]) for bits in (64, 32)] == [64, 32]
    assert not list(gpu_systems.answers(["sound"], time.time() - 1))


# the report


def test_rows_are_kept_as_they_come_and_a_stage_that_fails_is_one(tmp_path, capsys):
    report = gpu.Report(tmp_path / "rows.json", 1.0)
    report.add("times", "a", accelerator_over_cpu=0.123456)
    assert json.loads((tmp_path / "rows.json").read_text()) == report.rows

    def broken(seconds):
        assert 0 < seconds <= 60 * gpu.STAGES["times"]
        raise RuntimeError("no memory")

    report.stage("times", broken)
    report.stage("right", lambda seconds: report.add("right", "b", right=True))
    assert [row.get("failed") for row in report.rows if "failed" in row] == ["RuntimeError: no memory"]
    assert json.loads((tmp_path / "rows.json").read_text())[-2]["right"] is True
    assert "accelerator over cpu 0.1235" in capsys.readouterr().out


def test_training_takes_the_fastest_numbers_that_keep_the_gradient():
    report = gpu.Report(None, 1.0)
    assert report.fastest("hopfield") is None
    for what, seconds, cosine in (("float32", 3.0, 1.0), ("tensorfloat32", 2.0, 0.995), ("bfloat16", 1.0, 0.98)):
        report.add("hopfield", what, seconds_a_step=seconds, cosine_with_float32=cosine)
    report.add("error-sweep", "bfloat16", seconds_a_step=0.1, cosine_with_float32=1.0)
    report.add("hopfield", "bfloat16", failed="TypeError: none")
    assert report.fastest("hopfield") == "tensorfloat32"


def test_what_does_not_fit_into_the_time_is_said():
    report = gpu.Report(None, 0.0)
    gpu_systems.times(report, jax.devices()[0], -1.0, small=True)
    assert [row["what"] for row in report.rows] == list(gpu_systems.WORKLOADS)
    assert all(row["left_out"] == "no time was left" for row in report.rows)


# images


def test_a_varied_image_is_cut_out_of_its_border_and_perhaps_turned():
    images = np.random.default_rng(0).uniform(0.1, 1, (40, 32, 32, 3)).astype(np.float32)
    found = np.asarray(colour_images.varied(jnp.asarray(images), jax.random.key(0)))
    bordered = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    places = []
    for image, around in zip(found, bordered, strict=True):
        candidates = [
            (turned, i, j)
            for turned in (False, True)
            for i in range(9)
            for j in range(9)
            if np.array_equal(image[:, ::-1] if turned else image, around[i : i + 32, j : j + 32])
        ]
        assert len(candidates) == 1
        places += candidates
    turned, rows, columns = (set(column) for column in zip(*places, strict=True))
    assert turned == {False, True}
    assert {0, 8} <= rows
    assert {0, 8} <= columns


def test_packed_images_come_back(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    part = lambda n: (rng.integers(0, 256, (n, 3072)).astype(np.float32) / np.float32(255), np.arange(n) % 10)
    data = Data("cifar-10", part(30), None, part(5), tuple("abcdefghij"), "")
    monkeypatch.setattr(colour_images, "load_data", lambda name, validation: data)
    colour_images.pack(tmp_path / "part", 20)
    images = colour_images.published(tmp_path / "part")
    x = np.concatenate([images.train[0], images.validation[0]])
    np.testing.assert_array_equal(x.reshape(20, -1), data.train[0][:20])
    np.testing.assert_array_equal(np.concatenate([images.train[1], images.validation[1]]), data.train[1][:20])
    np.testing.assert_array_equal(images.test[0].reshape(5, -1), data.test[0])
    assert images.origin == "CIFAR-10: 18 train, 2 validation, 5 test"
    scaled = colour_images.standardised(images).train[0]
    np.testing.assert_allclose(scaled.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std((0, 1, 2)), 1, atol=1e-5)
    with pytest.raises(DataError, match="--pack"):
        colour_images.published(tmp_path / "nowhere")


# networks


def test_each_layer_descends_at_its_own_rate_and_decays():
    net = gpu_networks.network("hopfield", "float32", width=1 / 64)
    parameters = jax.tree.map(jnp.ones_like, net)
    descent = gpu_networks.optimiser("hopfield", 10)
    slope = jax.tree.map(lambda leaf: jnp.full_like(leaf, 2.0), net)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = descent.update(slope, descent.init(parameters), parameters)
    decay = gpu_networks.RECIPES["hopfield"].weight_decay
    for k, rate in enumerate(gpu_networks.RECIPES["hopfield"].rates):
        wanted = -rate * 1.9 * (2 + decay)  # Nesterov's first step
        for leaf in (updates.coupling[k].weight, updates.bias[k]):
            np.testing.assert_allclose(leaf, wanted, rtol=1e-6)


@pytest.mark.parametrize(("sweeps", "pairs"), [(0, 0), (3, 3)])
def test_the_floor_convolves_as_often_as_it_says(monkeypatch, sweeps, pairs):
    """Its convolutions are counted while Python runs the loops."""
    counts = {"convolve": 0, "convolve_back": 0}
    kind = gpu_networks.Convolution
    for name in counts:
        of = getattr(kind, name)
        monkeypatch.setattr(
            kind, name, lambda *given, of=of, name=name: counts.update({name: counts[name] + 1}) or of(*given)
        )
    net = gpu_networks.network("hopfield", "float32", width=1 / 64)
    floor = gpu_networks.Floor(net, "bfloat16", 1, sweeps)
    assert {coupling.weight.dtype for coupling in floor.couplings} == {jnp.dtype(jnp.bfloat16)}
    layers = len(floor.couplings)
    with jax.disable_jit():
        gradients = gpu_networks._convolved.__wrapped__(floor.couplings, floor.inputs, floor.pairs)
    assert counts["convolve_back"] == pairs * (layers - 1)
    weights = 1 + (layers - 1) * (2 if sweeps else 1)
    assert counts["convolve"] == pairs * (layers - 1) + layers + weights
    assert len(jax.tree.leaves(gradients)) == weights


@pytest.mark.slow
def test_every_stage_runs_where_the_accelerator_is_a_cpu(tmp_path):
    out = tmp_path / "rows.json"
    found = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "benchmarks" / "gpu.py", "--quick", "--minutes", "30", "--out", out],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    rows = json.loads(out.read_text())
    assert {row["stage"] for row in rows} == {"machine", *gpu.STAGES}
    right = [row for row in rows if "right" in row]
    assert len(right) == 2 * len(gpu.QUICK)
    assert all(row["right"] and row["gradient"] == 0 for row in right)
    assert sum("accelerator_over_cpu" in row for row in rows) == len(gpu_systems.WORKLOADS)
    speeds = [row for row in rows if "over_its_floor" in row]
    assert {(row["stage"], row["what"]) for row in speeds} == {
        ("hopfield", "float32"), ("hopfield", "bfloat16"), ("predictive-coding", "float32"),
        ("error-sweep", "float32"), ("error-sweep", "bfloat16"),
    }  # fmt: skip
    assert all(row["cosine_with_float32"] > 0.99 for row in speeds)
    end = rows[-2]
    assert end["what"].endswith("the end")
    assert end["test_images"] == 4
