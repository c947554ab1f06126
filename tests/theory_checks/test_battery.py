"""The battery of theorems and its command: what holds, what fails, what is refused, and how it is said."""

import dataclasses
import json
from pathlib import Path

import matplotlib
import numpy as np
from linear_response import LinearResponse
from matplotlib.colors import to_hex

from learning import catalogue, cli
from theory_checks.battery import NO_RULE, OWN, PROPERTIES, Cell, battery, measure
from theory_checks.battery_picture import FAILS, HOLDS, REFUSED, draw_battery
from theory_checks.conformance import CHECKS
from theory_checks.proofs import PROOFS
from theory_checks.theorems import ALL, Finding, NotApplicableError, find

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PLUGIN = f"{Path(__file__).parent.parent / 'helpers' / 'linear_response.py'}:LinearResponse"


def told(error, bound):
    return Finding("a length", 1.0 + error, 1.0, error, bound)


def refuses(*arguments, **options):
    raise NotApplicableError("it has no length")


THEOREM = dataclasses.replace(
    find("bias-orders"), name="length", universal=False, rules=(), check=lambda *given: (told(1e-9, 1e-6),)
)
FALSE = dataclasses.replace(THEOREM, name="breadth", check=lambda *given: (told(1e-9, 1e-6), told(1e-3, 1e-6)))
UNKNOWN = dataclasses.replace(THEOREM, name="height", check=lambda *given: (told(float("nan"), 1e-6),))
ABSENT = dataclasses.replace(THEOREM, name="depth", check=refuses)
RAISING = dataclasses.replace(THEOREM, name="volume", check=lambda *given: given[9])
OF_RULES = dataclasses.replace(
    THEOREM,
    name="girth",
    rules=("coupled", "contrastive"),
    check=lambda *given: (Finding("p", 1.98, 2.0, 0.02, 0.1, 0.01),),
)


def test_every_law_and_theorem_of_a_property_exists():
    names = {theorem.name for theorem in ALL}
    laws = {law for check in CHECKS for law in check.names}
    for each in PROPERTIES:
        assert set(each.theorems) <= names
        assert set(each.laws) <= laws
        assert each.theorems or each.laws
    assert set(PROOFS) <= names
    assert [each.name for each in PROPERTIES] == [f"P{k}" for k in range(1, 19)]
    assert {theorem for each in PROPERTIES for theorem in each.theorems} <= names
    assert {rule for theorem in ALL for rule in theorem.rules} <= set(catalogue.names(catalogue.RULES))


def test_a_cell_says_what_was_measured_or_why_nothing_was():
    holds, fails, unknown, absent = (measure(theorem, OWN) for theorem in (THEOREM, FALSE, UNKNOWN, ABSENT))
    assert [cell.verdict for cell in (holds, fails, unknown, absent)] == ["holds", "fails", "fails", "refused"]
    assert fails.worst is not None
    assert fails.worst.error == 1e-3
    assert absent.reason == "it has no length"
    assert absent.worst is None
    assert holds.as_dict()["findings"] == [{"compared": "a length", "error": 1e-9, "bound": 1e-6}]
    assert holds.as_dict()["proved"] is False
    raising, fitted = measure(RAISING, OWN), measure(OF_RULES, OWN)
    assert (raising.verdict, raising.mark) == ("fails", "FAILS")
    assert raising.reason == "IndexError: tuple index out of range"
    assert [one.measured for one in fitted.orders] == [1.98]
    assert fitted.as_dict()["findings"][0]["order"] == 1.98
    assert fitted.as_dict()["findings"][0]["error_bar"] == 0.01
    assert not holds.orders


def test_one_failure_fails_a_battery_and_shows_in_the_table():
    found = battery({}, (THEOREM, ABSENT))
    assert found.passed
    assert [cell.theorem for cell in found.cells] == ["length", "depth"]
    assert battery({}, (THEOREM, ABSENT), own=False).cells == ()
    found = battery({}, (THEOREM, FALSE, ABSENT))
    assert not found.passed
    rows = {line.split()[0]: line.split()[1:] for line in str(found).splitlines() if line.startswith("  ")}
    assert rows["length"] == ["1e-09"]
    assert rows["breadth"] == ["FAILS", "1e-03"]
    assert rows["depth"] == ["."]


def test_theorems_stand_under_each_of_their_rules_and_those_of_none_last():
    found = battery({}, (THEOREM, OF_RULES))
    assert found.rows == (("coupled", "girth"), ("contrastive", "girth"), (NO_RULE, "length"))
    shown = [line.strip() for line in str(found).splitlines()]
    assert [line for line in shown if line.endswith(":")] == ["coupled:", "contrastive:", f"{NO_RULE}:"]
    proved = dataclasses.replace(THEOREM, name="bias-orders")
    assert "bias-orders, proved" in str(battery({}, (proved,)))


def test_a_picture_has_a_cell_for_every_verdict():
    found = battery({}, (THEOREM, FALSE, ABSENT, OF_RULES))
    ax = draw_battery(found)
    colours = [to_hex(patch.get_facecolor()) for patch in ax.patches]
    wanted = [HOLDS] * 3 + [FAILS, REFUSED]
    assert sorted(colours) == sorted(colour.lower() for colour in wanted)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["girth", "girth", "length", "breadth", "depth"]
    assert [text.get_text() for text in ax.texts] == ["1.98", "1.98", "$10^{-9}$", "$10^{-3}$", ""]
    assert draw_battery(found, ax) is ax
    plt.close("all")


def test_universal_theorems_meet_every_kind():
    """Outputs are linear in parameters and input: centred nudges err by the square of the nudge alone."""
    theorems = tuple(map(find, ("equilibrium-propagation", "vector-field-bias")))
    found = battery({"linear": LinearResponse}, theorems)
    assert isinstance(found.at("equilibrium-propagation", "linear"), Cell)
    assert found.at("equilibrium-propagation", "linear").verdict == "holds"
    assert found.at("vector-field-bias", "linear").verdict == "refused"
    assert "this one has one" in found.at("vector-field-bias", "linear").reason
    assert found.at("equilibrium-propagation", OWN) is None


def test_the_command_lists_proves_and_measures(capsys, monkeypatch):
    assert cli.main(["theorems", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [theorem.name for theorem in ALL]
    assert sum(row["proved"] for row in rows) == len(PROOFS)
    assert cli.main(["theorems"]) == 0
    assert "P18 motion there and back: lagrangian-boundary, hamiltonian-echo" in capsys.readouterr().out
    assert cli.main(["theorems", "free-fermions"]) == 0
    shown = capsys.readouterr().out
    assert "holds (" in shown
    assert "free-fermions on its own: holds" in shown
    arguments = ["theorems", "equilibrium-propagation", "--substrates", PLUGIN, "--json", "--jobs", "1"]
    assert cli.main(arguments) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert [cell["verdict"] for cell in cells] == ["holds"]
    assert all(np.isfinite(finding["error"]) for finding in cells[0]["findings"])
    monkeypatch.setattr("theory_checks.theorems_command.ALL", (FALSE,))
    assert cli.main(["theorems", "breadth"]) == 1
    assert cli.main(["theorems", "--battery", "--substrates", PLUGIN, "--jobs", "1"]) == 1
    assert "FAILS" in capsys.readouterr().out


def test_unknown_theorems_are_refused(capsys):
    assert cli.main(["theorems", "sandwich"]) == 2
    assert "wanted one of equilibrium-propagation" in capsys.readouterr().err
