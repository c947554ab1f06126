"""Committed notebooks hold their outputs, and these are of the code beside them."""

import json
import runpy
from pathlib import Path

import nbformat
import pytest

COMMAND = runpy.run_path(str(Path(__file__).parent.parent / "notebooks" / "execute.py"))
every_notebook = pytest.mark.parametrize("path", COMMAND["notebooks"](), ids=lambda path: path.stem)


@every_notebook
def test_outputs_are_of_the_committed_code(path):
    assert COMMAND["is_current"](path), f"run: python notebooks/execute.py {path.stem}"


@every_notebook
def test_outputs_are_whole_and_small(path):
    assert path.stat().st_size <= COMMAND["LARGEST"] == 400_000
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert {"error"}.isdisjoint(output.output_type for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(" at 0x" in json.dumps(output) for output in outputs), "an address in memory varies from run to run"


@pytest.fixture
def small(tmp_path):
    cells = [
        nbformat.v4.new_markdown_cell("# Sum", id="title"),
        nbformat.v4.new_code_cell("print(2 + 3)", id="sum"),
        nbformat.v4.new_code_cell(
            "import matplotlib.pyplot as plt\nplt.imshow([[k * j % 255 for k in range(300)] for j in range(300)]);",
            id="figure",
        ),
    ]
    path = tmp_path / "99-sum.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def test_executed_twice_it_is_the_same(small):
    assert not COMMAND["is_current"](small)
    assert COMMAND["execute"](small) == 0
    first = small.read_bytes()
    assert COMMAND["execute"](small) == 0
    assert small.read_bytes() == first
    assert COMMAND["is_current"](small)
    _, code, figure = nbformat.read(small, as_version=4).cells
    assert code.outputs[0].text == "5\n"
    assert figure.outputs[0].data["image/png"].startswith("iVBOR")


def test_changed_code_is_noticed_and_changed_prose_is_not(small):
    assert COMMAND["execute"](small) == 0
    notebook = nbformat.read(small, as_version=4)
    notebook.cells[0].source = "# A sum"
    nbformat.write(notebook, small)
    assert COMMAND["is_current"](small)
    notebook.cells[1].source = "print(2 + 4)"
    nbformat.write(notebook, small)
    assert not COMMAND["is_current"](small)


@pytest.mark.parametrize(
    ("source", "said"),
    [("import sys; print('careful', file=sys.stderr)", "careful"), ("print('x' * 500_000)", "400,000")],
)
def test_what_may_not_be_committed_is_said(small, capsys, source, said):
    notebook = nbformat.read(small, as_version=4)
    notebook.cells[1].source = source
    nbformat.write(notebook, small)
    assert COMMAND["execute"](small) == 1
    assert said in capsys.readouterr().out


def test_a_failing_notebook_is_left_as_it_was(small):
    notebook = nbformat.read(small, as_version=4)
    notebook.cells[1].source = "1 / 0"
    nbformat.write(notebook, small)
    before = small.read_bytes()
    with pytest.raises(Exception, match="ZeroDivisionError"):
        COMMAND["execute"](small)
    assert small.read_bytes() == before


def test_names_that_lead_nowhere_are_refused():
    with pytest.raises(SystemExit, match="wanted the start of one of 01-quickstart"):
        COMMAND["named"]("elastic")
