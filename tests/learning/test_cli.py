"""The command, in this process and as a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_response import PLUGIN, LinearResponse

from learning import (
    CoupledKnobs,
    CoupledLearning,
    CrossEntropy,
    HolomorphicEP,
    KnobDescent,
    Mismatch,
    OscillatingEP,
    PhysicsAware,
    SimultaneousPerturbation,
    catalogue,
    cli,
    evaluate,
    fit,
    list_command,
    load_data,
    load_run,
)
from learning.lock import FolderLock
from learning.options import UsageError, options_of, rule_of, settings_of
from substrates import HopfieldNetwork, Plant, SmoothHopfieldNetwork


def train(command, *arguments):
    return command("train", PLUGIN, "--data", "iris", *arguments)


def test_trains_and_ends_with_the_folder(command, tmp_path):
    code, out, err = train(command, "--seed", "3")
    assert (code, err) == (0, "")
    folder = Path(out.splitlines()[-1])
    assert folder.parent == Path("runs")
    assert folder.name.startswith("LinearResponse-iris-")
    summary = json.loads((folder / "summary.json").read_text())
    for name in ("test_accuracy", "validation_accuracy", "train_accuracy"):
        assert 0.5 < summary[name] <= 1
    assert summary["seed"] == 3
    assert summary["epochs"] == 3
    assert 0 < summary["seconds"] < 300
    assert f"{100 * summary['test_accuracy']:.2f} % right" in out
    with np.load(folder / "checkpoint.npz") as saved:
        header = json.loads(saved["header"].tobytes())
    assert [dtype for _, dtype, _ in header["arrays"]][:2] == ["float32", "float32"]


def test_quiet_prints_the_folder_alone(command):
    code, out, _ = train(command, "--quiet", "--out", "here", "--validation", "0", "--precision", "64")
    assert (code, out) == (0, "here\n")
    assert json.loads(Path("here/summary.json").read_text())["validation_accuracy"] is None


def test_options_reach_the_training(command):
    options = {
        "--sizes": None, "--beta": "0.25", "--variant": "positive", "--cost": "cross-entropy", "--epochs": "2",
        "--batch-size": "10", "--optimiser": "momentum", "--learning-rate": "weight=0.1,offset=0.2", "--decay": "0.5",
        "--device": "cpu", "--lenient": None, "--validation": "20",
    }  # fmt: skip
    arguments = [part for name, value in options.items() if name != "--sizes" for part in (name, value) if part]
    code, out, err = train(command, "--out", "run", *arguments)
    assert (code, err) == (0, "")
    config = json.loads(Path("run/config.json").read_text())
    assert config["settings"] == {
        "batch_size": 10, "optimiser": "momentum", "learning_rate": {"weight": 0.1, "offset": 0.2}, "decay": 0.5,
    }  # fmt: skip
    assert config["examples"] == 100
    assert not config["strict"]
    for word in ("positive", "beta=0.25", "CrossEntropy"):
        assert word in config["rule"]
    assert "2 epochs of 10 batches" in out


def test_a_substrate_says_what_its_outputs_are_judged_by(command):
    plugin, _, _ = PLUGIN.rpartition(":")
    Path("judged.py").write_text(
        Path(plugin).read_text() + "\n\nclass Judged(LinearResponse):\n    def training_defaults(self):\n"
        "        return {**super().training_defaults(), 'cost': 'cross-entropy'}\n"
    )
    for out, asked, wanted in (("own", (), "CrossEntropy"), ("other", ("--cost", "squared-error"), "SquaredError")):
        assert (
            command("train", "judged.py:Judged", "--data", "iris", "--epochs", 1, "--lenient", "--out", out, *asked)[0]
            == 0
        )
        assert wanted in json.loads(Path(out, "config.json").read_text())["rule"]


def test_the_seed_decides_everything(command):
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert train(command, "--seed", seed, "--out", out)[0] == 0
    rows = [[json.loads(line)["cost"] for line in Path(out, "metrics.jsonl").read_text().splitlines()] for out in "abc"]
    assert rows[0] == rows[1] != rows[2]


def test_resume(command):
    assert train(command, "--out", "whole", "--epochs", 4)[0] == 0
    code, out, _ = train(command, "--out", "parts", "--epochs", 2, "--resume")
    assert code == 0
    assert "There is no run in parts yet" in out
    code, out, err = train(command, "--out", "parts", "--resume", "--epochs", 4)
    assert (code, err, out.splitlines()[-1]) == (0, "", "parts")
    costs = lambda folder: [json.loads(line)["cost"] for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    assert costs("parts") == costs("whole")
    code, _, err = train(command, "--out", "parts", "--resume", "--beta", "0.1")
    assert code == 2
    assert "--beta: the run in parts was started with its default, got 0.1" in err
    code, _, err = train(command, "--out", "parts")
    assert code == 2
    assert "already holds a run" in err


def test_what_it_trained_can_be_used(command):
    assert train(command, "--out", "run", "--seed", 3, "--validation", 20)[0] == 0
    run = load_run("run")
    data = load_data("iris", seed=3, validation=20)
    assert run.classes == data.classes
    np.testing.assert_array_equal(run.data.validation[0], data.validation[0])
    summary = json.loads(Path("run", "summary.json").read_text())
    right = np.mean(run.predict(data.test[0]).labels == np.asarray(data.classes)[data.test[1]])
    np.testing.assert_allclose(right, summary["test_accuracy"])
    assert summary["versions"]["groundstate"] == json.loads(Path("run", "config.json").read_text())["groundstate"]


def test_what_it_trained_on_the_bench_can_be_used(command):
    arguments = ("--rule", "agnostic", "--data", "iris", "--epochs", 1, "--out", "run")
    assert command("train", "hopfield", *arguments)[0] == 0
    run = load_run("run")
    assert isinstance(run.substrate, HopfieldNetwork)
    summary = json.loads(Path("run", "summary.json").read_text())
    found = evaluate(run.substrate, run.data.test)
    np.testing.assert_allclose(found.accuracy, summary["test_accuracy"], atol=0.05)


def test_a_folder_that_is_being_written_is_refused(command, tmp_path):
    held = FolderLock(tmp_path)
    code, _, err = train(command, "--out", tmp_path)
    assert code == 2
    assert f"groundstate: error: out: {tmp_path} is being written by process {os.getpid()}" in err
    held.release()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train nothing", "substrate: wanted one of "),
        ("train resistr", "did you mean 'resistor'"),
        ("train absent.py:Thing", "there is no file absent.py"),
        ("train PLUGIN:Nothing", "defines no class Nothing"),
        ("train PLUGIN --data mnits", "did you mean 'mnist'"),
        ("train PLUGIN --data iris --sizes 5", "sizes: LinearResponse has no hidden layers"),
        ("train PLUGIN --sizes 0", "--sizes: wanted positive whole numbers"),
        ("train PLUGIN --sizes 5,x", "--sizes: wanted positive whole numbers"),
        ("train PLUGIN --epochs 0", "--epochs: wanted a positive whole number"),
        ("train PLUGIN --beta -1", "--beta: wanted a positive number"),
        ("train PLUGIN --beta nan", "--beta: wanted a positive number"),
        ("train PLUGIN --validation 1.5", "--validation: wanted a fraction below 1"),
        ("train PLUGIN --data iris --validation 500", "validation: wanted"),
        ("train PLUGIN --seed x", "--seed: wanted a whole number"),
        ("train PLUGIN --data iris --learning-rate weight=0.1", "nothing for .*offset"),
        ("train PLUGIN --data iris --learning-rate weight=1,offset=1,mass=1", "no parameter mass; the parameters are"),
        ("train PLUGIN --rule backprop", "rule: wanted one of agnostic, backprop-through-time, continual, contrastive"),
        ("train PLUGIN --data iris --variant upside-down", "variant: wanted one of"),
        ("train PLUGIN --optimiser sgdd", "invalid choice: 'sgdd'"),
        ("train PLUGIN --out /proc/here", "cannot write in /proc/here"),
        ("train PLUGIN --resume", "name its folder with --out"),
        ("train", "the following arguments are required"),
        ("fly", "invalid choice: 'fly'"),
    ],
)
def test_wrong_usage_is_one_clear_line_and_code_2(command, arguments, words):
    code, _, err = command(
        *arguments.replace("PLUGIN:Nothing", PLUGIN.replace("LinearResponse", "Nothing"))
        .replace("PLUGIN", PLUGIN)
        .split()
    )
    assert code == 2
    assert re.search(words, err.splitlines()[-1])
    assert "Traceback" not in err
    assert not list(Path().iterdir()) or not list(Path("runs").iterdir())


@pytest.mark.parametrize("rule", ["feedback-alignment", "hamiltonian-echo"])
def test_a_rule_that_cannot_train_the_substrate_says_so_and_leaves_no_folder(command, rule):
    code, _, err = train(command, "--rule", rule, "--out", "run")
    assert code == 2
    assert err.startswith("groundstate: error: ")
    assert "LinearResponse" in err
    assert "train it by EquilibriumPropagation" in err
    assert err.count("\n") == 1
    assert not Path("run").exists()


BROKEN = """
from linear_response import LinearResponse

class Misspelt(LinearResponse):
    def energy(self, state, x):
        return self.wait @ x

class Misshapen(LinearResponse):
    def energy(self, state, x):
        return state @ (self.weight @ x + state[:2])

class Unbuilt(LinearResponse):
    @classmethod
    def for_task(cls, n_inputs, n_outputs, *, sizes=None, key):
        pass

class Bound(LinearResponse):
    def for_task(self, n_inputs, n_outputs, *, sizes=None, key):
        return self

class Silent(LinearResponse):
    def training_defaults(self):
        pass

class Optimised(LinearResponse):
    def training_defaults(self):
        return {"beta": 0.5, "optimiser": "adamw"}

class Priced(LinearResponse):
    def training_defaults(self):
        return {"beta": 0.5, "cost": "hinge"}

class Stranger:
    pass
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Misspelt", "line 6, in energy: AttributeError: 'Misspelt' object has no attribute 'wait'"),
        ("Misshapen", "line 10, in energy: TypeError: "),
        ("Unbuilt", "for_task: wanted a Substrate from Unbuilt.for_task, got NoneType; return what it builds"),
        ("Bound", "for_task: wanted a class method of Bound; write @classmethod above it"),
        ("Silent", "training_defaults: wanted a dict from Silent.training_defaults, got NoneType"),
        ("Optimised", "optimiser: wanted one of sgd, "),
        ("Priced", "--cost: wanted one of squared-error, cross-entropy, got 'hinge'"),
        ("Stranger", "substrate: wanted a class derived from Substrate, got own.py:Stranger, which is not"),
    ],
)
def test_a_mistake_in_a_users_file_is_told_with_its_line(command, tmp_path, name, words):
    (tmp_path / "own.py").write_text(BROKEN)
    code, _, err = command("train", f"own.py:{name}", "--data", "iris", "--out", "run")
    assert code == 2
    place = f"{tmp_path / 'own.py'}, " * words.startswith("line")
    assert err.startswith(f"groundstate: error: {place}{words}")
    assert not Path("run").exists()


def test_a_class_that_is_no_rule_is_refused(command):
    code, _, err = train(command, "--rule", PLUGIN)
    assert code == 2
    assert f"rule: wanted a class derived from Estimator or Mover, got {PLUGIN}, which is not" in err


def test_an_error_that_is_no_mistake_of_the_user_keeps_its_traceback(monkeypatch):
    def broken(options):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(list_command, "_list", broken)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        cli.main(["list"])


def test_a_users_file_imports_what_lies_beside_it(command, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "neighbour_of_mine.py").write_text(Path(PLUGIN.rpartition(":")[0]).read_text())
    (folder / "own.py").write_text("from neighbour_of_mine import LinearResponse\n")
    (folder / "numpy.py").write_text("raise ImportError('not this one')")  # which hides no package
    code, _, err = command("train", "mine/own.py:LinearResponse", "--data", "iris", "--epochs", "1", "--quiet")
    assert (code, err) == (0, "")


def test_a_failed_training_is_code_1(command):
    code, _, err = train(command, "--learning-rate", "1e6", "--out", "run", "--epochs", 20)
    assert code == 1
    assert err.startswith("groundstate: training stopped. epoch ")
    assert len(err.splitlines()) == 1
    assert Path("run/checkpoint.npz").exists()


def test_ctrl_c_is_code_130_and_says_how_to_go_on(command, monkeypatch):
    def press(*arguments, **options):
        from learning import training

        advance = training.Trainer.advance

        def advance_and_press(*arguments):
            training.Trainer.advance = advance
            os.kill(os.getpid(), signal.SIGINT)
            return advance(*arguments)

        training.Trainer.advance = advance_and_press
        return fit(*arguments, **options)

    monkeypatch.setattr(cli, "fit", press)
    code, out, _ = train(command, "--out", "run")
    assert code == 130
    assert out.splitlines()[-1] == "run"
    assert f"groundstate train {PLUGIN} --out run --resume" in out
    assert json.loads(Path("run/summary.json").read_text())["interrupted"]
    monkeypatch.setattr(cli, "fit", fit)
    assert train(command, "--out", "run", "--resume")[0] == 0
    assert not json.loads(Path("run/summary.json").read_text())["interrupted"]


def test_list(command):
    code, out, _ = command("list")
    assert code == 0
    for word in ("resistor", "equilibrium-propagation", "digits", "mnist", "fashion-mnist", "squared-error"):
        assert f"  {word} " in out


def test_help_reads_well(command):
    code, out, _ = command("train", "--help")
    assert code == 0
    for word in ("examples:", "default: digits", "--learning-rate", "--resume", "groundstate train resistor\n"):
        assert word in out
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.slow
def test_a_killed_command_resumes_to_the_same_end(tmp_path):
    start = [sys.executable, "-m", "learning.cli", "train", PLUGIN, "--data", "digits", "--epochs", "400", "--out"]
    costs = []
    for name in ("whole", "parts"):
        folder = tmp_path / name
        if name == "parts":
            process = subprocess.Popen([*start, folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text():
                assert process.poll() is None
                time.sleep(0.01)
            process.kill()
            process.wait()
            assert not (folder / "summary.json").exists()
        done = subprocess.run([*start, folder, "--resume"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == str(folder)
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        costs.append([row["cost"] for row in rows])
    assert len(costs[0]) == 400
    assert costs[0] == costs[1]


def test_a_rule_on_the_bench_trains_a_plant_around_the_substrate(command):
    arguments = ("train", "hopfield", "--rule", "agnostic", "--data", "iris", "--sizes", "8", "--out", "run")
    code, out, err = command(*arguments, "--epochs", "3")
    assert (code, err) == (0, "")
    assert "epsilon 0.01" in out
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["train_accuracy"] > 0.8
    assert summary["unconverged"] == 0
    assert json.loads(Path("run/config.json").read_text())["settings"] == {"epsilon": 0.01, "batch_size": 1}


def test_every_substrate_at_a_minimum_has_settings_for_the_bench():
    """A plant can be put together from them, and a dictionary of compliances names every parameter. Parameters that
    relax with a state want a minimum, which saddles and fixed points without an energy are not."""
    others = {"activator-inhibitor", "driven", "recurrent", "trajectory"}
    for name in set(catalogue.names(catalogue.SUBSTRATES)) - others:
        substrate = catalogue.find(catalogue.SUBSTRATES, name).for_task(3, 2, key=jax.random.key(0))
        settings = substrate.training_defaults()["bench"]
        assert settings["beta"] > 0
        Plant(substrate, settings["epsilon"], inputs=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rule", "agnostic", "--beta", "1"), "--epsilon: neither the substrate nor you"),
        (("--rule", "agnostic", "--epsilon", "0.1", "--learning-rate", "0.1"), "--learning-rate: the rule AgnosticEP"),
        (("--epsilon", "0.1"), "--epsilon: the rule EquilibriumPropagation"),
        (("--read-back",), "--read-back: the rule EquilibriumPropagation"),
        (
            ("--radius", "0.1"),
            "has no use for it; leave it out, or take --rule holomorphic or oscillating",
        ),
        (("--step", "1", "--rule", "recurrent-backprop"), "--step: the rule RecurrentBackprop has no use for it"),
        (("--rule", "holomorphic", "--points", "0"), "--points: wanted a whole number, at least 1"),
        (("--rule", "holomorphic", "--points", "four"), "--points: wanted a whole number, got 'four'"),
        (("--rule", "holomorphic", "--radius", "-1"), "--radius: wanted a positive number, got -1"),
        (("--rule", "physics-aware", "--twin", "-1"), "--twin: size: wanted a positive number, got -1.0, or 0"),
        (("--rule", "fluctuation-response"), "--temperature: neither the substrate nor you"),
        (("--unknown", "1"), "--unknown: unrecognised"),
        (("--rule", "agnostic", "--weight-decay", "1"), "--weight-decay: the rule AgnosticEP has no use for it"),
    ],
)
def test_options_of_another_kind_of_rule_are_refused(command, arguments, message):
    code, _, err = train(command, *arguments)
    assert code == 2
    assert message in err


OF_ONE_WORD = {
    "contrastive": (), "coupled": ("--eta", "0.25", "--variant", "positive"),
    "evolution-strategy": ("--step", "weight=0.02,offset=0.01", "--probes", "3"),
    "equilibrium-propagation": ("--linearised",), "finite-differences": ("--step", "0.125"),
    "holomorphic": ("--radius", "0.25", "--points", "6"), "implicit": (), "node-perturbation": ("--probes", "2"),
    "oscillating": ("--period", "5", "--periods", "1"), "physics-aware": ("--twin", "0.25"),
    "recurrent-backprop": ("--steps", "7", "--rate", "0.5"), "simultaneous-perturbation": ("--probes", "2"),
    "backprop-through-time": ("--steps", "7", "--rate", "0.5", "--truncate", "3"),
}  # fmt: skip


@pytest.mark.parametrize("name", OF_ONE_WORD)
def test_every_rule_trains_with_the_options_that_its_fields_are(command, name):
    """What was asked for is what the rule was given; the rest is the substrate's, or what is usual."""
    cheap = ("--epochs", 1, "--batch-size", 60, "--precision", 64, "--lenient")
    # the plug-in does not settle at complex nudges, and learns nothing where its outputs are held
    elsewhere = name in ("holomorphic", "oscillating", "contrastive", "coupled")
    system = ("smooth-hopfield", "--sizes", 4) if elsewhere else (PLUGIN,)
    start = ("train", *system, "--data", "iris", "--rule", name, "--out", "run")
    code, _, err = command(*start, *cheap, *OF_ONE_WORD[name])
    assert (code, err) == (0, "")
    config = json.loads(Path("run/config.json").read_text())
    rule = catalogue.find(catalogue.RULES, name)
    assert config["rule"].startswith(rule.__name__)
    words = OF_ONE_WORD[name]
    for flag, value in zip(words[::2], words[1::2], strict=False):
        field = flag.removeprefix("--")
        if field == "twin":
            assert "Mismatch(size=0.25" in config["rule"].replace("\n", "").replace("  ", "")
        elif "=" not in value:
            assert re.search(rf"\b{field}={value}\b|\b{field}='{value}'", config["rule"]), config["rule"]
    if name == "holomorphic":
        again, _, err = command(*start, "--resume", "--epochs", 2)
        assert (again, err) == (0, "")


def test_defaults_are_the_substrates_and_else_the_usual_ones():
    substrate = LinearResponse.for_task(4, 3, key=jax.random.key(0))
    found = lambda rule, **asked: settings_of(substrate, rule, asked)[0]
    assert found(HolomorphicEP)["radius"] == substrate.training_defaults()["beta"]
    assert found(HolomorphicEP, radius=0.125)["radius"] == 0.125
    assert found(CoupledLearning)["eta"] == CoupledLearning.usual["eta"]
    assert found(PhysicsAware, twin=0.5)["twin"] == Mismatch(0.5)


def test_rules_that_turn_knobs_are_built_from_one_number_and_a_rate():
    assert options_of(KnobDescent)["push"].field == options_of(CoupledKnobs)["part"].field == "rule"
    linear = LinearResponse.for_task(4, 3, key=jax.random.key(0))
    build = lambda kind, **asked: rule_of(kind, settings_of(linear, kind, {"epsilon": 1e-6, **asked})[0])
    descent = build(KnobDescent, push=0.02, learning_rate=0.5, cost="cross-entropy")
    assert (descent.rule.step, descent.learning_rate) == (0.02, 0.5)
    assert isinstance(descent.rule, SimultaneousPerturbation)
    assert isinstance(descent.cost, CrossEntropy)
    usual = build(CoupledKnobs)
    assert (usual.rule.eta, usual.rule.variant, usual.learning_rate) == (0.1, "centered", 0.1)
    with pytest.raises(UsageError, match="--learning-rate: CoupledKnobs turns knobs, which have no names"):
        build(CoupledKnobs, learning_rate={"weight": 0.1})
    with pytest.raises(UsageError, match="--part: eta: wanted a part of the way"):
        build(CoupledKnobs, part=2.0)
    with pytest.raises(UsageError, match="--decay: the rule KnobDescent has no use"):
        build(KnobDescent, decay=0.9)


def test_options_say_what_the_class_says():
    options = options_of(OscillatingEP)
    assert list(options) == ["radius", "period", "periods", "sweeps"]
    assert options["period"].about == "N, steps of a period, at least 3."
    assert (options["radius"].required, options["period"].required) == (True, False)
    assert (options["radius"].default, options["period"].default) == ("the substrate's beta", "60")
    assert options_of(FinalRule)["probes"].about == "how many."


def test_help_of_a_rule_lists_its_options_only(command):
    code, out, _ = command("train", "--rule", "holomorphic", "--help")
    assert code == 0
    assert "options of HolomorphicEP" in out
    assert "--points N" in out
    assert "--beta" not in out
    assert "--epsilon" not in out


def test_the_list_says_of_every_rule_what_it_takes(command):
    """And what it says of relaxations is what an estimate counts."""
    _, out, _ = command("list")
    substrate = LinearResponse.for_task(4, 3, key=jax.random.key(0))
    smooth = SmoothHopfieldNetwork.for_task(4, 3, sizes=(2,), key=jax.random.key(0))
    x, y, key = jnp.ones((2, 4)), jnp.ones((2, 3)), jax.random.key(0)
    parameters = 15
    counts = {
        "equilibrium-propagation": 3, "contrastive": 2, "coupled": 3, "holomorphic": 2 + 4 // 2, "oscillating": 2 * 60,
        "implicit": 1, "recurrent-backprop": 1, "backprop-through-time": 1, "simultaneous-perturbation": 1 + 2,
        "evolution-strategy": 1 + 2 * 8, "finite-differences": 1 + 2 * parameters, "node-perturbation": 1 + 2,
        "physics-aware": 1,
    }  # fmt: skip
    for name in catalogue.names(catalogue.RULES):
        rule = catalogue.find(catalogue.RULES, name)
        assert f"  {name:<26} {rule.in_short}" in out
        assert rule.in_short.count("; ") == 2
        if name in counts:
            ready = rule_of(rule, settings_of(substrate, rule, {})[0], lenient=True)
            system = smooth if name in ("holomorphic", "oscillating") else substrate
            found = eqx.filter_eval_shape(lambda net, ready=ready: ready(net, x, y, key=key), system)
            assert found.relaxations == counts[name], name


def test_weight_decay_adds_to_the_gradient():
    """By plain descent a step takes rate x (gradient + decay x parameter)."""
    substrate = LinearResponse(jnp.full((3, 4), 2.0), jnp.zeros(3))
    parameters = {"a": jnp.array([2.0, -1.0])}
    plain, decayed = (catalogue.optimiser("sgd", 0.1, 1.0, 5, substrate, decay) for decay in (0.0, 0.25))
    gradient = {"a": jnp.array([1.0, 1.0])}
    steps = [each.update(gradient, each.init(parameters), parameters)[0]["a"] for each in (plain, decayed)]
    np.testing.assert_allclose(steps[1] - steps[0], -0.1 * 0.25 * parameters["a"], rtol=1e-12)


class FinalRule(SimultaneousPerturbation):
    """A rule of somebody else's.

    Attributes:
        probes: how many.
    """


# products in bfloat16


@pytest.mark.slow
def test_bfloat16_is_compared_with_64_bits_recorded_and_resumed(command):
    words = ("train", "hopfield", "--data", "iris", "--sizes", "8,8", "--dtype", "bfloat16", "--batch-size", 10)
    code, out, err = command(*words, "--epochs", 1, "--out", "run")
    assert (code, err) == (0, "")
    assert "bfloat16: 30 equilibria, all settled" in out
    assert json.loads(Path("run/summary.json").read_text())["bfloat16"] in out
    assert json.loads(Path("run/config.json").read_text())["options"]["dtype"] == "bfloat16"
    assert load_run("run").substrate.solver.mixed
    assert command("train", "hopfield", "--out", "run", "--resume", "--epochs", 2)[0] == 0
    assert command(*words, "--epochs", 2, "--out", "whole")[0] == 0
    for one, other in zip(*(jax.tree.leaves(load_run(name).substrate) for name in ("run", "whole")), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("oscillator",), "--dtype: LayeredOscillators: in_bfloat16: .* got PhaseDescent.* settle in 32 bits"),
        (("hopfield", "--rule", "agnostic"), "--dtype: AgnosticEP moves parameters while states settle; leave it out"),
        (
            ("hopfield", "--beta", "1e-7"),
            r"bfloat16: .* cosine with that of 64 bits is at least -?0\..* stronger nudge",
        ),
    ],
)
def test_where_bfloat16_is_not_safe_it_is_refused(command, words, reason):
    code, _, err = command("train", *words, "--data", "iris", "--dtype", "bfloat16", "--out", "run")
    assert code == 2
    assert re.search(reason, err)
    assert not Path("run").exists()
