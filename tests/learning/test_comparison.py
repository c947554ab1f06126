"""Comparisons of rules: equal means, nothing done twice, a table that says what the runs say."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear_response import LinearResponse

from learning import EquilibriumPropagation, comparison
from learning.cli import main
from learning.comparison import ComparisonSettings, compare
from learning.lock import FolderLock
from learning.options import in_words, rule_and_options
from learning.pictures import compared
from substrates import IsingModel
from substrates.laboratory.imperfect import QuantisedKnobs, ReadNoise

PLUGIN = f"{Path(__file__).parent.parent / 'helpers' / 'linear_response.py'}:LinearResponse"
SMALL = ComparisonSettings(PLUGIN, "iris", None, budget=960, batch_size=8, learning_rates=(0.01, 0.05), checkpoints=2)
TINY = replace(SMALL, budget=80, learning_rates=(0.05,), checkpoints=1)
RULES = ("equilibrium-propagation", "implicit", "finite-differences", "feedback-alignment", "fluctuation-response")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return compare(RULES, SMALL, seeds=(0, 1), out=tmp_path_factory.mktemp("compared") / "all")


def runs_of(found):
    return [json.loads(path.read_text()) for path in sorted((found.folder / "runs").iterdir())]


def test_all_rules_have_the_same_budget_and_the_same_starts(found):
    """A rule makes as many whole steps as the budget pays for: 960 relaxations are 120, 40 and 3 steps of 8."""
    rows = {row["rule"]: row for row in found.rows}
    wanted = {"implicit": (1, 120), "equilibrium-propagation": (3, 40), "finite-differences": (31, 3)}
    assert {rule: (row["relaxations_per_example"], row["steps"]) for rule, row in rows.items()} == wanted
    for row in rows.values():
        assert row["relaxations"] == row["steps"] * 8 * row["relaxations_per_example"] <= SMALL.budget
        assert row["relaxations"] + 8 * row["relaxations_per_example"] > SMALL.budget
    for seed in (0, 1):
        assert len({run["start"] for run in runs_of(found) if run["seed"] == seed and "start" in run}) == 1


def test_exact_rules_have_the_exact_direction(found):
    """Outputs are linear in the parameters, the cost is quadratic: centred nudges and differences are exact."""
    for row in found.rows:
        assert row["cosine_mean"] == pytest.approx(1, abs=1e-3), row["rule"]
        assert row["unconverged"] == 0
        assert row["test_accuracy"] > 0.6


def test_rules_that_cannot_train_the_substrate_say_why(found):
    reasons = {each["rule"]: each["reason"] for each in found.refused}
    assert set(reasons) == {"feedback-alignment", "fluctuation-response"}
    assert "feed-forward layers" in reasons["feedback-alignment"]
    assert "--temperature" in reasons["fluctuation-response"]


def test_the_learning_rate_is_chosen_on_validation_examples(found):
    """What is kept is at least as good as the other one alone, on the validation examples."""
    for run in (run for run in runs_of(found) if run["rule"] == "implicit"):
        with jax.enable_x64(False):
            subject = comparison._Subject(comparison.Task(SMALL, "implicit", comparison.Condition(), run["seed"]))
            ends = [comparison._train(subject, rate)[0] for rate in SMALL.learning_rates]
            right = [subject.accuracy(end[-1][1], subject.validation) for end in ends if end is not None]
        assert run["validation_accuracy"][-1] == pytest.approx(max(right))
        assert run["learning_rate"] == SMALL.learning_rates[int(np.argmax(right))]


@pytest.mark.parametrize("annealed", [False, True])
def test_annealed_rates_fall_to_zero_along_half_a_cosine(annealed):
    """A step of plain descent along a slope of 1 is the rate."""
    settings = replace(SMALL, optimiser="sgd", annealed=annealed)
    subject = comparison._Subject(comparison.Task(settings, RULES[0], comparison.Condition(), 0))
    trainer, moving = subject.trainer(0.05)
    slope, state = jax.tree.map(jnp.ones_like, moving.parameters), moving.optimiser
    rates = []
    for _ in range(subject.steps):
        moved, state = trainer.standing.optimiser.update(slope, state)
        rates.append(-float(jax.tree.leaves(moved)[0].ravel()[0]))
    turns = np.pi * np.arange(subject.steps) / subject.steps
    wanted = 0.05 * ((1 + np.cos(turns)) / 2 if annealed else np.ones(subject.steps))
    np.testing.assert_allclose(rates, wanted, rtol=1e-5, atol=1e-8)


def test_the_table_agrees_with_the_runs(found):
    summary = json.loads((found.folder / "table.json").read_text())
    assert summary["rows"] == found.rows
    table = (found.folder / "table.md").read_text()
    assert table == f"{found}\n"
    for row in found.rows:
        values = [run["test_accuracy"] for run in runs_of(found) if run["rule"] == row["rule"]]
        assert len(values) == row["runs"] == 2
        assert row["test_accuracy"] == pytest.approx(np.mean(values))
        assert row["test_accuracy_deviation"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        shown = f"| {row['rule']} | {100 * np.mean(values):.1f} ± {100 * row['test_accuracy_deviation']:.1f} |"
        assert shown in table
    assert (found.folder / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_done_twice_and_an_interrupted_comparison_goes_on(tmp_path, monkeypatch):
    made, write = [], comparison._write

    def counted(task, folder):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(task)
        write(task, folder)

    rules, seeds = ("feedback-alignment", "implicit"), (0, 1, 2)
    monkeypatch.setattr(comparison, "_write", counted)
    with pytest.raises(KeyboardInterrupt):
        compare(rules, TINY, seeds=seeds, out=tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert len(before) == 3
    monkeypatch.setattr(comparison, "_write", write)
    found = compare(rules, TINY, seeds=seeds, out=tmp_path)
    assert found.done == 3
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    assert len(after) == 6
    assert {name: after[name] for name in before} == before
    assert compare(rules, TINY, seeds=seeds, out=tmp_path).done == 0
    assert compare(rules, TINY, seeds=seeds[:2], out=tmp_path).rows[0]["runs"] == 2


@pytest.mark.slow
def test_what_is_not_ideal_is_a_further_set_of_runs(tmp_path):
    found = compare(
        ("feedback-alignment", "physics-aware"),
        TINY,
        seeds=(0,),
        read_noise=(0.5,),
        knob_bits=(8,),
        twin_mismatch=(0.0, 1.0),
        out=tmp_path,
    )
    rows = {(row["condition"], row["rule"]): row for row in found.rows}
    assert {condition for condition, _ in rows} == {
        "ideal", "read noise 0.5", "knob bits 8", "twin mismatch 0", "twin mismatch 1",
    }  # fmt: skip
    assert {each["condition"] for each in found.refused} == {"ideal", "read noise 0.5", "knob bits 8"}  # it has no twin
    cosine = {condition: row["cosine_first"] for (condition, _), row in rows.items()}
    assert cosine["twin mismatch 0"] == pytest.approx(1, abs=1e-3)
    assert max(cosine["read noise 0.5"], cosine["twin mismatch 1"]) < cosine["ideal"] - 0.005
    assert rows["ideal", "physics-aware"]["test_accuracy_deviation"] is None
    assert "±" not in str(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rules": ("backprop",)}, "rule: wanted one of"),
        ({"rules": ()}, "rules, seeds: wanted at least one"),
        ({"rules": ("coupled,gamma=2",)}, r"wanted coupled,option=value with an option of eta, variant, got 'gamma=2'"),
        ({"rules": ("implicit,beta",)}, r"with an option of none, got 'beta'"),
        ({"rules": ("coupled,variant=upward",)}, "coupled,variant=upward: variant: wanted one of positive"),
        (
            {"rules": ("equilibrium-propagation,beta=nan",)},
            "equilibrium-propagation,beta=nan: --beta: wanted a positive",
        ),
        ({"rules": (*RULES, "coupled,eta=2")}, "coupled,eta=2: --eta: wanted"),
        ({"settings": replace(SMALL, data="irises")}, "data: wanted one of .*, got 'irises'; did you mean 'iris'"),
        ({"settings": replace(SMALL, sizes=(3,))}, "sizes: LinearResponse has no hidden layers"),
        ({"seeds": (-1,)}, "seeds: wanted whole numbers from 0"),
        ({"settings": ComparisonSettings(PLUGIN, "iris", None, budget=961)}, "with budget 960, got 961"),
    ],
)
def test_senseless_comparisons_are_refused(found, change, words):
    with pytest.raises(ValueError, match=words):
        compare(**{"rules": RULES, "settings": SMALL, "seeds": (0, 1), "out": found.folder, **change})


def test_settings_and_folders_are_looked_at_first(tmp_path):
    for name, value in (("budget", 0), ("batch_size", 0.5), ("checkpoints", True), ("learning_rates", ()),
                        ("learning_rates", (-1.0,)), ("optimiser", "sgdd"), ("beta", -0.1)):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name}: wanted"):
            ComparisonSettings(**{name: value})
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds files that are no comparison \(letter.txt\)"):
        compare(RULES, SMALL, out=tmp_path)
    folder = tmp_path / "held"
    folder.mkdir()
    lock = FolderLock(folder)
    with pytest.raises(ValueError, match="is being written by process"):
        compare(RULES, SMALL, out=folder)
    lock.release()


def test_runs_of_another_text_of_the_users_file_are_not_taken_for_those_of_this(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(Path(PLUGIN.rpartition(":")[0]).read_text())
    settings = replace(TINY, substrate=f"{file}:LinearResponse")
    compare(RULES[1:2], settings, seeds=(0,), out=tmp_path / "out")
    assert compare(RULES[1:2], settings, seeds=(0,), out=tmp_path / "out").done == 0
    file.write_text(file.read_text().replace("0.5 * jnp.sum", "0.7 * jnp.sum"))
    with pytest.raises(ValueError, match="source"):
        compare(RULES[1:2], settings, seeds=(0,), out=tmp_path / "out")


def test_a_step_beyond_the_budget_is_refused(tmp_path):
    found = compare(
        ("finite-differences",), ComparisonSettings(PLUGIN, "iris", None, budget=240), seeds=(0,), out=tmp_path
    )
    assert not found.rows
    assert found.refused[0]["reason"] == "one step takes 248 relaxations, and the budget is 240"


def test_a_rule_on_the_bench_is_compared_too(tmp_path):
    """A weak nudge and a weak spring: the step is the gradient's, to a few percent."""
    settings = ComparisonSettings("hopfield", "iris", (4,), budget=480, learning_rates=(0.01,), checkpoints=1)
    found = compare(("agnostic",), settings, seeds=(0,), knob_bits=(8,), out=tmp_path)
    (row,) = found.rows
    assert (row["relaxations_per_example"], row["steps"]) == (2, 30)
    assert row["cosine_first"] > 0.8
    assert found.refused[0]["condition"] == "knob bits 8"


def test_variants_of_a_rule_are_compared_by_their_options(tmp_path):
    """What is not said is the strength of all rules, or the substrate's own."""
    rules = [f"equilibrium-propagation,variant={variant}" for variant in ("positive", "centered")]
    stronger = "equilibrium-propagation,beta=0.3,variant=positive"  # options in the order of the rule's fields
    found = compare([*rules, f"{rules[0]},beta=0.3"], TINY, seeds=(0,), out=tmp_path)
    steps = {row["rule"]: (row["relaxations_per_example"], row["steps"]) for row in found.rows}
    assert steps == {rules[0]: (2, 5), rules[1]: (3, 3), stronger: (2, 5)}
    strength = lambda words, settings: (
        comparison._Subject(comparison.Task(settings, words, comparison.Condition(), 0)).rule.beta
    )
    assert [strength(words, TINY) for words in (*rules, stronger)] == [0.1, 0.1, 0.3]
    assert strength(rules[0], replace(TINY, beta=None)) == 0.5


@given(st.floats(1e-6, 1e6), st.sampled_from(["positive", "centered"]))
def test_words_that_mean_the_same_rule_are_one(beta, variant):
    """Numbers that are written otherwise, blanks and another order change no rule, and no number is lost."""
    words = f"equilibrium-propagation,variant={variant},beta={beta!r}"
    others = f"equilibrium-propagation, beta = {beta:.25e} ,variant={variant}"
    assert in_words(words) == in_words(others) == in_words(in_words(words))
    assert rule_and_options(in_words(words)) == (EquilibriumPropagation, {"beta": beta, "variant": variant})
    assert in_words("implicit") == "implicit"


def test_a_rule_in_other_words_is_not_run_again(tmp_path):
    rules = ("equilibrium-propagation,beta=.30", "equilibrium-propagation,beta=0.3")
    found = compare(rules, TINY, seeds=(0,), out=tmp_path)
    assert (found.done, [row["rule"] for row in found.rows]) == (1, ["equilibrium-propagation,beta=0.3"])


@pytest.mark.parametrize("left", ['{"rule": "impl', "", "[]", '{"rule": "implicit", "seed": 0}'])
def test_a_damaged_run_is_done_again(tmp_path, left):
    done = lambda: compare(("implicit",), TINY, seeds=(0,), out=tmp_path)
    (row,) = done().rows
    (path,) = (tmp_path / "runs").iterdir()
    whole = path.read_text()
    path.write_text(left)
    again = done()
    assert (again.done, again.rows) == (1, [row])
    assert path.read_text() == whole


def test_runs_of_another_text_beside_the_users_file_are_not_taken_for_those_of_this(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    own, beside = tmp_path / "own_system.py", tmp_path / "beside_own_system.py"
    beside.write_text(Path(PLUGIN.rpartition(":")[0]).read_text())
    own.write_text("from beside_own_system import LinearResponse\n")
    settings = replace(TINY, substrate=f"{own}:LinearResponse")
    for done in (1, 0):
        assert compare(RULES[1:2], settings, seeds=(0,), out=tmp_path / "out").done == done
    beside.write_text(beside.read_text().replace("0.5 * jnp.sum", "0.7 * jnp.sum"))
    with pytest.raises(ValueError, match="source"):
        compare(RULES[1:2], settings, seeds=(0,), out=tmp_path / "out")


def test_the_command_compares(tmp_path, capsys):
    arguments = ["compare", PLUGIN, "--data", "iris", "--rules", "implicit", "--seeds", "0", "--budget", "160"]
    for done in (1, 0):
        assert main([*arguments, "--jobs", "1", "--out", str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert "| ideal | implicit |" in out
        assert out.splitlines()[-2:] == [f"{done} runs were done now.", str(tmp_path)]
    assert main([*arguments, "--rules", "nothing", "--out", str(tmp_path)]) == 2
    assert "rule: wanted one of" in capsys.readouterr().err
    alone = [*arguments[:4], "--rules", "feedback-alignment", "--seeds", "0", "--out", str(tmp_path / "none")]
    assert main(alone) == 1  # nothing was trained


# what is not ideal


NET = LinearResponse(jnp.array([[0.5, -1.0, 0.2], [0.1, 0.3, 2.0]]), jnp.array([0.1, -0.4]))
X = jnp.array([[0.3, -0.2, 0.5], [0.1, 0.4, -0.6]])


def test_meters_err_by_their_size_once_for_each_state():
    noisy = ReadNoise(NET, 0.1)
    state = noisy.relax(X[0]).state
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(NET.relax(X[0]).state), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(noisy.read(state, X[0]), noisy.read(state, X[0]))
    shifted = jax.vmap(lambda shift: jax.tree.map(lambda leaf: leaf + shift, state))(jnp.linspace(0, 1e-9, 4000))
    errors = jax.vmap(lambda state: noisy.read(state, X[0]) - NET.read(state, X[0]))(shifted)
    np.testing.assert_allclose(jnp.std(errors), 0.1, rtol=0.05)
    np.testing.assert_allclose(jnp.mean(errors), 0.0, atol=0.01)


def test_without_errors_meters_change_no_gradient():
    rule, targets = EquilibriumPropagation(0.1), jnp.array([[0.2, 0.1], [0.0, 0.4]])
    exact, shown = rule(NET, X, targets).gradient, rule(ReadNoise(NET, 0.0), X, targets).gradient
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(shown), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@given(bits=st.integers(1, 12), scale=st.floats(0.01, 100))
def test_parameters_stand_on_the_nearest_level(bits, scale):
    net = LinearResponse(scale * jnp.array([[0.3, -1.0]]), jnp.zeros(1))
    quantised = QuantisedKnobs.around(net, bits)
    assert all(reach >= 2 * scale for reach in quantised.reach)
    placed = quantised.constrained()
    for before, after, reach in zip(
        (net.weight, net.offset), (placed.inner.weight, placed.inner.offset), quantised.reach, strict=True
    ):
        distance = reach / 2 ** (bits - 1)
        levels = np.asarray(after) / distance
        np.testing.assert_array_equal(levels, np.round(levels))
        assert np.all((levels >= -(2 ** (bits - 1))) & (levels < 2 ** (bits - 1)))
        inside = np.asarray(before) < reach - distance
        assert np.all(np.abs(after - before)[inside] <= distance / 2 * (1 + 1e-12))
    again = placed.constrained()
    np.testing.assert_array_equal(again.inner.weight, placed.inner.weight)


def test_imperfections_that_make_no_sense_are_refused():
    spins = IsingModel.from_edges([(0, 1)], n=2, inputs=[0], outputs=[1], coupling=jnp.ones(1))
    with pytest.raises(ValueError, match="states of real numbers"):
        ReadNoise(spins, 0.1)
    with pytest.raises(ValueError, match="size: wanted a number from 0"):
        ReadNoise(NET, -0.1)
    with pytest.raises(ValueError, match="bits: wanted a positive whole number"):
        QuantisedKnobs.around(NET, 0)


def test_curves_are_drawn_with_their_spread():
    ax = compared({"a": ([0, 1], [[0.0, 1.0], [0.0, 3.0]]), "b": ([0, 2], [[1.0, 1.0]])}, ylabel="accuracy")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0, 2])
    assert [line.get_label() for line in ax.lines] == ["a", "b"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("relaxations", "accuracy")
