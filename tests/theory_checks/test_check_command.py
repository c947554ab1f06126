"""The command `groundstate check`, and laws as tests: exit codes, JSON, what is refused, names."""

import argparse
import json
import tomllib
import unittest
from importlib.metadata import EntryPoint
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from learning import catalogue, cli
from substrates import Substrate
from theory_checks import BrokenLawError, Law, Report, check_command, laws_of
from theory_checks.conformance import CHECKS
from theory_checks.hints import HINTS

PROJECT = Path(__file__).parents[2] / "pyproject.toml"

SYSTEMS = """
import jax, jax.numpy as jnp
from substrates import Equilibrium, Status, Substrate

class Cell(Substrate):
    stiffness: jax.Array
    sign: float = 1.0

    def energy(self, state, x):
        return 0.5 * jnp.sum(self.stiffness * state**2) - jnp.sum(state * x)

    def initial_state(self, x):
        return jnp.zeros_like(self.stiffness)

    def read(self, state, x):
        return state

    def force(self, state, x):
        return self.sign * (x - self.stiffness * state)

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        pull = lambda s: 0 * s if nudge is None else nudge.pull(s)
        state = jnp.zeros_like(self.stiffness)
        for _ in range(2):
            slope = self.stiffness - jax.jacfwd(pull)(state)[0, 0]
            state = state + (x - self.stiffness * state + pull(state)) / slope
        energy = self.total_energy(state, x, nudge)
        return Equilibrium(state, energy, self.residual(state, x, nudge), jnp.asarray(2), Status.converged)

class Bare(Cell):
    pass

class Ready(Cell):
    @classmethod
    def for_task(cls, n_inputs, n_outputs, *, sizes=None, key):
        return cls(jnp.full(1, 1.5))

class Sized(Cell):
    input_size = 1

class Unbuilt(Cell):
    @classmethod
    def for_task(cls, n_inputs, n_outputs, *, sizes=None, key):
        pass

class Bound(Cell):
    def for_task(self, n_inputs, n_outputs, *, sizes=None, key):
        return self

class Crooked(Ready):
    def energy(self, state, x):
        return self.stiffness * state**2

sized = Sized(jnp.asarray([2.0]))
wrong = Cell(jnp.asarray([2.0]), -1.0)
number = 3
"""


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The command line with the commands that pyproject.toml declares, and a file of systems."""
    declared = tomllib.loads(PROJECT.read_text())["project"]["entry-points"][catalogue.COMMANDS]
    points = [EntryPoint(name, value, catalogue.COMMANDS) for name, value in declared.items()]
    installed = catalogue.entry_points

    def entry_points(group, **wanted):
        if group != catalogue.COMMANDS:
            return installed(group=group, **wanted)
        return [point for point in points if wanted.get("name", point.name) == point.name]

    monkeypatch.setattr(catalogue, "entry_points", entry_points)
    file = tmp_path / "systems.py"
    file.write_text(SYSTEMS)
    return lambda name, *words: cli.main(["check", f"{file}:{name}" if name else "", *words])


def test_a_sound_system_exits_with_0_and_prints_its_laws(command, capsys):
    assert command("Ready", "--inputs", "1", "--outputs", "1") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Ready: 1 state variables, 1 outputs, 2 examples, float64")
    assert " 0 fail," in shown


def test_a_broken_law_exits_with_1_and_json_says_where_to_look(command, capsys):
    assert command("wrong", "--inputs", "1", "--json", "--examples", "1") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False
    (law,) = (law for law in report["laws"] if law["name"] == "force = -dE/dstate")
    assert law["verdict"] == "fails"
    assert law["number"] == pytest.approx(2.0)
    assert law["hint"] == HINTS["force = -dE/dstate"]


def exit_code(run):
    """Of a command that returns it, or stops with it as argparse does."""
    try:
        return run()
    except SystemExit as stopped:
        return stopped.code


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("Bare", [], "Bare has no for_task and is not built without arguments"),
        ("number", [], "which is of type int"),
        ("Missing", [], "defines no Missing"),
        ("Ready", ["--examples", "0"], "wanted a positive whole number"),
        ("", [], "wanted one of activator-inhibitor"),
        ("Unbuilt", [], "for_task: wanted a Substrate from Unbuilt.for_task, got NoneType"),
        ("Bound", [], "for_task: wanted a class method of Bound"),
        (
            "Crooked",
            ["--inputs", "1"],
            "energy: wanted one number, of shape () from Crooked.energy, got float64 of shape",
        ),
    ],
)
def test_what_cannot_be_checked_exits_with_2(command, capsys, name, words, said):
    assert exit_code(lambda: command(name, *words)) == 2
    assert said in capsys.readouterr().err


def test_inputs_of_another_number_than_the_system_takes_are_refused(command, capsys):
    assert command("sized", "--inputs", "2") == 2
    assert "--inputs: Sized takes x of shape (1,), got 2" in capsys.readouterr().err


def test_train_does_not_wait_for_commands_of_other_packages(command, monkeypatch):
    asked = []
    monkeypatch.setattr(catalogue, "names", lambda group: asked.append(group) or {})
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    assert catalogue.COMMANDS not in asked
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert catalogue.COMMANDS in asked


# the commands of every built-in system are listed, each buildable small


@pytest.mark.parametrize("name", sorted(catalogue.names(catalogue.SUBSTRATES)))
def test_every_system_of_the_catalogue_is_built_small(name):
    options = argparse.Namespace(substrate=name, inputs=None, outputs=2, sizes=None)
    system = check_command._system(options, jax.random.key(0))
    assert isinstance(system, Substrate)
    assert system.x_shape is not None


# laws as tests


class Cell(Substrate):
    stiffness: jnp.ndarray
    factor: float = 1.0

    def energy(self, state, x):
        return 0.5 * jnp.sum(self.stiffness * state**2) - jnp.sum(state * x)

    def force(self, state, x):
        return self.factor * (x - self.stiffness * state)

    def initial_state(self, x):
        return jnp.zeros_like(self.stiffness)

    def read(self, state, x):
        return state


X, Y = jnp.array([[0.3], [-0.4]]), jnp.array([[0.5], [0.1]])
Sound = laws_of(lambda: Cell(jnp.array([1.5])), X, Y)
Broken = laws_of(Cell(jnp.array([1.5]), 2.0), X, Y)


def test_each_law_is_a_test_with_its_name():
    names = {name for name in dir(Sound) if name.startswith("test_")}
    assert len(names) == len({name for check in CHECKS for name in check.names})
    assert {"test_free_stationarity", "test_reciprocity_of_the_response", "test_pins_said"} <= names
    Sound().test_the_input_acts()
    Sound().test_force_dE_dstate()
    with pytest.raises(unittest.SkipTest, match="One output"):
        Sound().test_reciprocity_of_the_response()


def test_a_test_fails_with_the_law_and_where_to_look():
    with pytest.raises(BrokenLawError, match=r"(?s)broken: force = -dE/dstate.*is not minus the derivative"):
        Broken().test_force_dE_dstate()


def test_every_law_has_a_hint():
    assert {name for check in CHECKS for name in check.names} <= set(HINTS)


def test_a_report_tells_json_that_what_is_not_finite_is_none():
    report = Report("a system", (Law("law", "compared", "fails", float("nan"), "<= 1", "look here"),))
    assert report.as_dict()["laws"][0]["number"] is None
    assert "law: look here" in str(report)
    assert "law: look here" in report._repr_html_()
