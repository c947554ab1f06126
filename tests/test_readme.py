"""The README is a test: its examples run, and its commands are the ones that continuous integration runs."""

import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_runs(number, capsys):
    with jax.numpy_dtype_promotion("standard"):  # as a user has it
        exec(compile(EXAMPLES[number], f"README.md, example {number + 1}", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out


def test_there_are_three_examples_and_two_commands():
    assert len(EXAMPLES) == 3
    assert len(COMMANDS) == 2


def test_continuous_integration_runs_the_test_command():
    assert COMMANDS[1].strip() in (ROOT / ".ci" / "run").read_text()


def test_every_file_that_it_names_exists():
    for name in re.findall(r"\b(?:notebooks|tests|benchmarks)/[\w./-]+\w", README):
        assert (ROOT / name).exists(), name
