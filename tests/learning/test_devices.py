"""Batches shared by devices, in one process and in two: the numbers of one device, whatever is drawn."""

import contextlib
import json
import re
import signal
import socket
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import shared_training
from jax.sharding import Mesh
from linear_response import PLUGIN, LinearResponse
from processes import ended, port, started
from shared_training import FIRST, TRAININGS, check_numbers, numbers, train

from learning import ContinualEP, EquilibriumPropagation, SquaredError, fit
from learning.devices import Devices
from substrates import HopfieldNetwork, Nudge, Plant, Recorder, SmoothHopfieldNetwork
from substrates.solvers.sharing import EXAMPLES
from substrates.substrate import relax_batch, relax_phases

NEW_ENOUGH = jax.__version_info__ >= (0, 12)
"""Older ones can wait for ever in an all-reduce of several virtual devices of one process on a machine of few cores."""


def in_two_processes(folder, names):
    at = port()
    script = shared_training.__file__
    ended(*(started(script, folder, json.dumps(names), at, process, 2) for process in range(2)))


# two processes


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    in_two_processes(folder, [FIRST])
    told = [json.loads((folder / f"told {process}.json").read_text()) for process in range(2)]
    return folder, told


def test_two_processes_give_the_numbers_of_one_device(two):
    check_numbers(two[0], FIRST, 2, numbers(train(FIRST)))


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one_device_by_all_kinds_of_rules(tmp_path):
    others = [name for name in TRAININGS if name != FIRST]
    in_two_processes(tmp_path, others)
    for name in others:
        check_numbers(tmp_path, name, 2, numbers(train(name)))


def test_gradients_are_summed_at_once_and_no_loop_waits_for_another_device(two):
    """What is summed over devices: all gradients with the cost, counts, and the largest residual, once a step each."""
    for told in two[1]:
        assert told["collectives"] == ["all-reduce"] * 3
        (gradients,) = told["reduced at once"]
        assert len(re.findall(r"f64\[\d", gradients)) >= 4  # those of all parameters


def test_processes_that_differ_say_in_what(two):
    for told in two[1]:
        assert told["unequal parts"].startswith("ValueError: batch_size: wanted a multiple of the 2 devices")
        assert told["unequal parts"].endswith("got 5; give 4 or 6, or a number of devices that divides it")
        assert told["another key"].startswith("ProcessError: key: wanted the same in all 2 processes, got [0, 0] in")
    assert two[1][0]["devices of one process"] == "nothing"
    assert "wanted devices of this process or of all 2" in two[1][1]["devices of one process"]


def test_what_process_0_cannot_write_ends_both(two):
    assert "RunFolderError: out: " in two[1][0]["no folder"]
    assert two[1][1]["no folder"].startswith("ProcessError: process 0 has stopped")


def test_one_process_writes_the_folder(two):
    folder = two[0] / "run"
    assert [told["kept in"] for told in two[1]] == [str(folder)] * 2
    assert (folder / "checkpoint.npz").exists()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
    assert not list(folder.glob(".*"))


MEETING = """
import argparse, sys
import jax
from learning import hosts

parser = argparse.ArgumentParser()
parser.add_argument("--out")
hosts.add(parser)
hosts.join(parser.parse_args())
print("is", jax.process_index(), "of", jax.process_count(), "with", jax.device_count(), "devices")
"""
LAUNCHERS = {
    "Slurm": lambda process, job: {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
    },
    "Open MPI": lambda process, job: {
        "OMPI_MCA_orte_hnp_uri": f"{job * 2**12}.0;tcp://127.0.0.1:51059;tcp6://[::1]:54507",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(process),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(process),
    },
}
"""What srun of Slurm 22.05 and mpirun of Open MPI 4.1 tell their processes, as far as JAX asks for it."""


def free_job():
    """A job whose number leads to a port that is free: JAX takes one of the 4,096 highest by it."""
    for job in range(4096):
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("localhost", 65535 - 4095 + job))
            return job
    raise OSError("no port is free")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_processes_that_a_launcher_started_find_each_other(launcher, tmp_path):
    job = free_job()
    words = ("-c", MEETING, "--distributed", "--out", tmp_path)
    processes = [started(*words, **LAUNCHERS[launcher](k, job), JAX_NUM_CPU_DEVICES="1") for k in range(2)]
    said = ended(*processes, seconds=100)
    assert [f"is {k} of 2 with 2 devices" in text for k, text in enumerate(said)] == [True, True], said


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_which_says_how_to_resume(tmp_path, victim):
    """And the run resumes alone, to the numbers of a run that was never shared."""
    command = ["-m", "learning.cli", "train", PLUGIN, "--data", "iris", "--batch-size", 18, "--precision", 64]
    at, run = port(), tmp_path / "run"
    many = [*command, "--epochs", 10**6, "--out", run, "--distributed", "--coordinator", f"localhost:{at}", "--process"]
    processes = [started(*many, f"{k}/2") for k in range(2)]
    try:
        until = time.monotonic() + 200
        while not (run / "checkpoint.npz").exists():
            assert time.monotonic() < until
            assert all(process.poll() is None for process in processes), processes[0].communicate()[0]
            time.sleep(0.1)
        processes[victim].send_signal(signal.SIGKILL)
        said = processes[1 - victim].communicate(timeout=60)[0]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[1 - victim].returncode != 0
    assert f"groundstate train {PLUGIN} --out {run} --resume (alone, or --distributed" in said
    done = 1 + len((run / "metrics.jsonl").read_text().splitlines())
    ended(started(*command, "--epochs", done, "--out", run, "--resume"))
    ended(started(*command, "--epochs", done, "--out", tmp_path / "whole"))
    resumed, whole = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("run", "whole")
    )
    costs = [np.array([row["cost"] for row in rows]) for rows in (resumed, whole)]
    assert len(costs[0]) == done
    np.testing.assert_allclose(*costs, rtol=1e-10)


# several devices of one process


@pytest.mark.skipif(not NEW_ENOUGH, reason=f"jax {jax.__version__}: virtual devices of one process may wait for ever")
def test_four_devices_of_one_process_give_the_numbers_of_one(tmp_path):
    ended(started(shared_training.__file__, tmp_path, json.dumps([FIRST]), JAX_NUM_CPU_DEVICES="4"))
    check_numbers(tmp_path, FIRST, 1, numbers(train(FIRST)))


def test_devices_that_may_wait_for_ever_are_told():
    made = "import jax; from learning.devices import Devices; Devices(jax.make_mesh((2,), ('batch',)))"
    said = started("-c", made, JAX_NUM_CPU_DEVICES="2").communicate(timeout=60)[0]
    assert ("may wait for each other for ever" in said) != NEW_ENOUGH


def test_the_command_warns_once_in_a_line_and_refuses_in_words_of_its_own(tmp_path):
    words = ["train", PLUGIN, "--data", "iris", "--devices", "2", "--batch-size", "33", "--out", tmp_path / "run"]
    process = started("-m", "learning.cli", *words, JAX_NUM_CPU_DEVICES="2")
    *warned, refused = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 2
    assert refused == (
        "groundstate: error: --batch-size: wanted a multiple of the 2 devices, each of which has as many examples, got "
        "33; give 32 or 34, or a number of devices that divides it"
    )
    assert len(warned) == (0 if NEW_ENOUGH else 1)
    assert all(line.startswith("groundstate: warning: mesh: several CPU devices of one process") for line in warned)
    assert not (tmp_path / "run").exists()


# one device: the program is that of many


MESH = lambda: jax.make_mesh((1,), ("batch",), devices=jax.devices()[:1])


@pytest.mark.parametrize("name", [FIRST, pytest.param("copies on the bench", marks=pytest.mark.slow)])
def test_a_mesh_of_one_device_changes_nothing(name):
    alone, shared = numbers(train(name)), numbers(train(name, MESH()))
    for part in alone:
        np.testing.assert_allclose(shared[part], alone[part], rtol=1e-10, atol=1e-13)


def test_relaxations_under_a_mesh_are_those_without(key):
    net = HopfieldNetwork.for_task(3, 2, sizes=(4,), key=key)
    x = jax.random.uniform(key, (6, 3))
    y, up = jnp.eye(2)[jnp.arange(6) % 2], jnp.linspace(0.1, 0.3, 6)
    each = Nudge(SquaredError(), y, jnp.stack([0 * up, up]))
    keys = jax.random.split(key, 6)
    found = lambda: (
        relax_batch(net, x, keys=keys),
        relax_batch(net, x, Nudge(SquaredError(), y, 0.2)),
        relax_phases(net, x, each, keys, True),
    )
    alone = found()
    with jax.set_mesh(Mesh(jax.devices()[:1], (EXAMPLES,), axis_types=(jax.sharding.AxisType.Auto,))):
        shared = found()
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(shared), strict=True):
        np.testing.assert_array_equal(one, other)


def test_nudged_steps_of_parameters_that_move_are_shared_like_free_phases(key):
    """Each device loops over its own examples in both, and the numbers are those of one."""
    net = SmoothHopfieldNetwork.for_task(3, 2, sizes=(4,), key=key)
    rule = ContinualEP(beta=0.3, learning_rate=0.01, steps=3, variant="random")
    x, y = jax.random.uniform(key, (6, 3)), jnp.eye(2)[jnp.arange(6) % 2]
    alone = rule.step(net, x, y, key=key)
    with jax.set_mesh(Mesh(jax.devices()[:1], (EXAMPLES,), axis_types=(jax.sharding.AxisType.Auto,))):
        shared = rule.step(net, x, y, key=key)
        program = str(eqx.filter_make_jaxpr(rule.step)(net, x, y, key=key)[0])
    assert program.count("shard_map[") == 2
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(shared), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-13)


def test_what_a_run_returns_is_of_one_device_and_resumes_without_a_mesh(tmp_path, key):
    net, data = LinearResponse(jnp.zeros((2, 3)), jnp.zeros(2)), (np.ones((8, 3)), np.ones((8, 2)))
    options = dict(optimiser=optax.sgd(0.1), batch_size=4, key=key, progress=False)
    rule = EquilibriumPropagation(beta=0.5)
    shared = fit(net, rule, data, epochs=1, mesh=MESH(), out=tmp_path / "run", **options)
    assert {type(leaf.sharding).__name__ for leaf in jax.tree.leaves(shared.substrate)} == {"SingleDeviceSharding"}
    resumed = fit(net, rule, data, epochs=2, out=tmp_path / "run", resume=True, **options)
    whole = fit(net, rule, data, epochs=2, **options)
    np.testing.assert_allclose(resumed.substrate.weight, whole.substrate.weight, rtol=1e-10)


# what makes no sense


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (dict(mesh=4), TypeError, "mesh: wanted a jax.sharding.Mesh, got 4"),
        (dict(mesh=jax.make_mesh((1, 1, 1), ("a", "b", "c"))), ValueError, r"mesh: wanted one axis.*'b': 1, 'c': 1}"),
    ],
)
def test_bad_meshes(changes, error, words, key):
    net, data = LinearResponse(jnp.zeros((2, 3)), jnp.zeros(2)), (np.ones((4, 3)), np.ones((4, 2)))
    with pytest.raises(error, match=words):
        fit(net, EquilibriumPropagation(0.5), data, optimiser=optax.sgd(0.1), epochs=1, key=key, **changes)


def test_what_is_no_simulation_is_not_shared(key):
    data = np.ones((4, 3)), np.ones((4, 2))
    net = LinearResponse(jnp.zeros((2, 3)), jnp.zeros(2))
    system = Recorder(Plant(net, 0.1, inputs=3))
    with pytest.raises(ValueError, match="mesh: Recorder is no simulation"):
        fit(system, shared_training.AgnosticEP(beta=0.1), data, epochs=1, key=key, mesh=MESH())


@pytest.fixture
def counted(monkeypatch):
    """Devices by any number, all of which are this one: batches are checked and rounded for so many."""
    made = Devices.__init__

    def counting(number):
        monkeypatch.setattr(
            Devices, "__init__", lambda self, mesh=None: (made(self, mesh), vars(self).update(count=number))[0]
        )

    return counting


def test_the_default_batch_is_rounded_up_recorded_and_resumed_on_other_devices(command, counted):
    train = lambda *words: command("train", PLUGIN, "--data", "iris", *words)
    recorded = lambda: json.loads(Path("run/config.json").read_text())
    counted(3)
    assert train("--out", "run", "--epochs", 1)[0] == 0
    assert [recorded()[part]["batch_size"] for part in ("options", "settings")] == [18, 18]
    counted(1)
    assert train("--out", "run", "--resume", "--epochs", 2)[0] == 0
    counted(4)
    code, _, err = train("--out", "run", "--resume", "--epochs", 3)
    assert code == 2
    assert "error: --batch-size: wanted a multiple of the 4 devices" in err
    assert "give 16 or 20, or a number of devices that divides it" in err
    counted(3)
    code, _, err = train("--out", "other", "--batch-size", 32)
    assert code == 2
    assert "got 32; give 30 or 33" in err


def test_the_default_batch_of_fit_is_rounded_up_and_resumed_on_other_devices(tmp_path, key, counted):
    net, data = LinearResponse(jnp.zeros((2, 3)), jnp.zeros(2)), (np.ones((70, 3)), np.ones((70, 2)))
    train = lambda epochs, **options: fit(
        net,
        EquilibriumPropagation(0.5),
        data,
        optimiser=optax.sgd(0.1),
        epochs=epochs,
        key=key,
        progress=False,
        **options,
    )
    counted(3)
    train(1, out=tmp_path / "run")
    counted(1)
    resumed, whole = train(2, out=tmp_path / "run", resume=True), train(2, batch_size=33)
    np.testing.assert_array_equal(resumed.substrate.weight, whole.substrate.weight)


def test_no_default_batch_has_more_examples_than_there_are():
    devices = Devices()
    devices.count = 4
    assert [devices.rounded(n, n) for n in (3, 4, 6, 8)] == [3, 4, 4, 8]
    assert devices.rounded(6, 100) == 8


@pytest.mark.parametrize(
    ("size", "count", "advice"), [(32, 3, "got 32; give 30 or 33"), (2, 4, "got 2; give 4"), (30, 3, None)]
)
def test_every_device_has_as_many_examples(size, count, advice):
    devices = Devices()
    devices.count = count
    assert devices.rounded(size) == -(-size // count) * count
    if advice is None:
        devices.check_batch(size)
    else:
        with pytest.raises(ValueError, match=advice):
            devices.check_batch(size)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--devices 0", "--devices: wanted a positive whole number"),
        ("--devices 1000", f"--devices: wanted 1000, JAX finds {jax.local_device_count()} "),
        ("--distributed --coordinator node", "--coordinator: wanted HOST:PORT"),
        ("--distributed --coordinator :7", "--coordinator: wanted HOST:PORT"),
        ("--distributed --coordinator node:70000", "--coordinator: wanted HOST:PORT"),
        ("--distributed --coordinator node:7 --process 2/2", "--process: wanted I/N"),
        ("--distributed --coordinator node:7 --process 1", "--process: wanted I/N"),
        ("--distributed --coordinator node:7 --process -1/2", "expected one argument"),
        ("--distributed --coordinator node:7 --out run", "--process: wanted with --coordinator, got none"),
        ("--distributed --process 0/2 --out run", "--coordinator: wanted with --process, got none"),
        ("--coordinator node:7 --process 0/2", "--coordinator: this is for processes that train together"),
        ("--distributed", "--out: processes that train together need one folder"),
    ],
)
def test_bad_words(command, words, message):
    code, out, err = command("train", PLUGIN, "--data", "iris", *words.split())
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("run").exists()


def test_processes_that_nobody_started_together(tmp_path):
    words = ["-m", "learning.cli", "train", PLUGIN, "--data", "iris", "--distributed", "--out", tmp_path / "run"]
    process = started(*words)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 2
    assert "--distributed: neither Slurm nor Open MPI started this process; give --coordinator HOST:PORT" in said


def test_the_command_shares_batches(command):
    train = lambda *words: command("train", PLUGIN, "--data", "iris", "--epochs", 1, "--precision", 64, *words)
    assert train("--out", "shared", "--devices", 1)[0] == 0
    assert train("--out", "alone")[0] == 0
    shared, alone = (json.loads(Path(name, "metrics.jsonl").read_text()) for name in ("shared", "alone"))
    np.testing.assert_allclose(shared["cost"], alone["cost"], rtol=1e-10)
    assert (
        json.loads(Path("shared/config.json").read_text())["options"]
        == json.loads(Path("alone/config.json").read_text())["options"]
    )
    assert train("--out", "shared", "--resume", "--epochs", 2)[0] == 0
