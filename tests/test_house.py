"""The house rules: imports go one way, rules know no substrate by name, importing the library is quick work."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("substrates", "learning", "theory_checks")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
TREES = {path: ast.parse(path.read_text()) for path in FILES}
SHARED_PICTURES = set((ROOT / "substrates" / "pictures").glob("*.py")) - {
    ROOT / "substrates" / "pictures" / name
    for name in ("exploration.py", "explorer.py")  # they settle what they show
}
named = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


def imports(path, within=None):
    for node in ast.walk(within or TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            files = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from dict.fromkeys(file if found_at(file) else node.module for file in files)


def found_at(module):
    """The file of a module of the project; None for others."""
    places = (ROOT.joinpath(*module.split(".")).with_suffix(".py"), ROOT.joinpath(*module.split("."), "__init__.py"))
    return next((place for place in places if place in TREES), None)


def imported(path):
    """(file, name) of all that a file imports of the project, wherever it does; the name is None for a whole file."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from ((found_at(alias.name), None) for alias in node.names if found_at(alias.name))
        elif isinstance(node, ast.ImportFrom) and found_at(node.module):
            for alias in node.names:
                submodule = found_at(f"{node.module}.{alias.name}")
                yield (submodule, None) if submodule else (found_at(node.module), alias.name)


def substrate_classes():
    """The names of all classes under `Substrate`, and the files that define them."""
    bases = lambda node: {getattr(base, "attr", getattr(base, "id", None)) for base in node.bases}
    classes = [(path, node) for path in FILES for node in ast.walk(TREES[path]) if isinstance(node, ast.ClassDef)]
    names, before = {"Substrate"}, set()
    while names != before:
        before, names = names, names | {node.name for _, node in classes if bases(node) & names}
    return names, {path for path, node in classes if bases(node) & names}


def test_no_import_leads_back_to_where_it_started():
    """Deferred imports and those for type checkers count, like all others."""
    graph = networkx.DiGraph((path, file) for path in FILES for file, _ in imported(path))
    knots = [part for part in networkx.strongly_connected_components(graph) if len(part) > 1]
    knots += [{path} for path in graph if graph.has_edge(path, path)]
    shown = sorted(sorted(str(path.relative_to(ROOT)) for path in knot) for knot in knots)
    assert not shown, "\n".join(" <-> ".join(knot) for knot in shown)


@named
def test_no_project_import_stands_inside_a_function(path):
    functions = [node for node in ast.walk(TREES[path]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {module for node in functions for module in imports(path, node) if found_at(module)}
    assert not inside, f"{path.name} imports {', '.join(sorted(inside))} inside a function"


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.name in ("pictures.py", "schematic.py") or path in SHARED_PICTURES],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_pictures_know_no_substrate(path):
    names, files = substrate_classes()
    known = [name or file.name for file, name in imported(path) if name in names or file in files]
    assert not known, f"{path.name} imports {', '.join(known)}: draw arrays"


@named
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    below = {"substrates": (), "learning": ("substrates",), "theory_checks": ("substrates", "learning")}[package]
    for module in imports(path):
        top = module.split(".")[0]
        if top in ("substrates", "learning", "theory_checks") and top != package:
            assert top in below, f"{path.name} imports {module}"
            if package == "learning":
                contracts = ["substrates.substrate", "substrates.laboratory.system", "substrates.session"]
                contracts += [
                    "substrates.pictures.style",
                    "substrates.pictures.display",
                ]  # how pictures look, of whatever
                contracts += ["substrates.explained"]  # where the documentation explains an error
                if path.name in ("cli.py", "comparison.py"):  # no rules: they put what they were asked for together
                    contracts += ["substrates.laboratory.plant", "substrates.laboratory.imperfect", "substrates.mixed"]
                assert module in contracts, f"{path.name} imports {module}, not a contract"


@pytest.mark.parametrize("package", ["substrates", "learning"])
def test_names_are_imported_late_from_where_type_checkers_find_them(package):
    module, path = importlib.import_module(package), ROOT / package / "__init__.py"
    (block,) = [node for node in TREES[path].body if isinstance(node, ast.If)]
    written = {alias.name: node.module for node in block.body for alias in node.names}
    homes = {name: home for home, names in module._HOMES.items() for name in names.split()}
    assert homes == written
    for name, home in homes.items():
        assert getattr(module, name) is getattr(importlib.import_module(home), name)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        module.Nothing  # noqa: B018
    assert dir(module) == sorted({*vars(module), *homes})


SPECTRAL = ("eigh", "eigvals", "eigvalsh", "svd")


@pytest.mark.parametrize("path", [path for path in FILES if path.is_relative_to(ROOT / "substrates")], ids=str)
def test_spectra_of_batches_are_taken_in_turn(path):
    """Else two threads of a batch can wait for each other for ever: see `spectra_in_turn`."""

    def strays(node, within=False):
        if isinstance(node, ast.Call):
            within = within or getattr(node.func, "id", None) == "spectra_in_turn"
        if isinstance(node, ast.Attribute) and node.attr in SPECTRAL and not within:
            library = ast.unparse(node.value)
            if library in ("jnp.linalg", "jax.numpy.linalg", "jax.lax.linalg", "lax.linalg", "jax.scipy.linalg"):
                yield f"{library}.{node.attr}, line {node.lineno}"
        for child in ast.iter_child_nodes(node):
            yield from strays(child, within)

    assert not list(strays(TREES[path]))


def test_importing_the_substrates_loads_nothing_heavy():
    heavy = (
        "qutip",
        "sympy",
        "networkx",
        "dimod",
        "matplotlib",
        "sklearn",
        "scipy.linalg",
        "scipy.sparse",
        "scipy.special",
    )
    program = f"import sys; from substrates import *; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"


def test_nothing_is_flipped_by_importing():
    program = (
        "import jax; before = (jax.config.jax_enable_x64, jax.config.jax_numpy_dtype_promotion)\n"
        "import substrates, learning, theory_checks\n"
        "assert before == (jax.config.jax_enable_x64, jax.config.jax_numpy_dtype_promotion)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
