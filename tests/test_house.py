"""The house rules: imports go one way, rules know no substrate by name, importing the library is quick work."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [path for package in ("substrates", "learning", "theory_checks") for path in (ROOT / package).rglob("*.py")]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    below = {"substrates": (), "learning": ("substrates",), "theory_checks": ("substrates", "learning")}[package]
    for module in imports(path):
        top = module.split(".")[0]
        if top in ("substrates", "learning", "theory_checks") and top != package:
            assert top in below, f"{path.name} imports {module}"
            if package == "learning":
                contracts = ["substrates.substrate", "substrates.laboratory.system"]
                if path.name == "cli.py":  # no rule: it puts what it was asked for together
                    contracts.append("substrates.laboratory.plant")
                assert module in contracts, f"{path.name} imports {module}, not a contract"


def test_importing_the_substrates_loads_nothing_heavy():
    heavy = ("qutip", "sympy", "networkx", "dimod", "matplotlib", "sklearn")
    program = f"import sys, substrates; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"


def test_nothing_is_flipped_by_importing():
    program = (
        "import jax; before = (jax.config.jax_enable_x64, jax.config.jax_numpy_dtype_promotion)\n"
        "import substrates, learning, theory_checks\n"
        "assert before == (jax.config.jax_enable_x64, jax.config.jax_numpy_dtype_promotion)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
