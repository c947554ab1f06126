"""Every mutation of the package is caught by the test that is named for it."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "mutations.py"
MUTATIONS = runpy.run_path(str(SCRIPT))["MUTATIONS"]


@pytest.mark.slow
def test_no_mutation_survives():
    done = subprocess.run([sys.executable, str(SCRIPT), "--jobs", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_every_mutation_still_finds_its_line(mutation):
    root = SCRIPT.parent.parent
    assert (root / mutation.path).read_text().count(mutation.before) == 1
    file, _, name = mutation.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (root / file).read_text()
