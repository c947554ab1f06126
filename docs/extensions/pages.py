"""Pages that are made of the project itself at every build: API, theorems with their proofs, notebooks, gallery."""

from __future__ import annotations

import base64
import hashlib
import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import nbformat
import sympy
from sphinx.util import logging

from theory_checks.proofs import PROOFS, prove
from theory_checks.theorems import ALL, Theorem

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PACKAGES = {
    "substrates": "Physical systems: what settles, and how.",
    "learning": "Rules, costs, data, training and comparison.",
    "theory_checks": "The kit that holds a system against the contract and the theorems.",
    "theory_checks.theorems": "The theorems as functions that measure both of their sides.",
    "theory_checks.strategies": "Random valid systems of every kind, for property tests of your own.",
    "learning.pictures": "Pictures of learning.",
}
_log = logging.getLogger(__name__)


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", _write_all)
    return {"parallel_read_safe": True}


def _write_all(app: Any) -> None:
    folder = Path(app.srcdir) / "generated"
    pages = {f"api/{package}.rst": api_page(package, about) for package, about in PACKAGES.items()}
    pages |= {f"notebooks/{path.name}": path.read_text() for path in NOTEBOOKS}
    pages |= theorem_pages(folder) | {"gallery.md": gallery(folder / "figures")}
    for suffix in ("md", "rst", "ipynb"):
        for path in folder.rglob(f"*.{suffix}"):
            if str(path.relative_to(folder)) not in pages:
                path.unlink()
    for name, text in pages.items():
        _write(folder / name, text.encode())


def api_page(package: str, about: str) -> str:
    """All public names of a package, in the order of the modules that they come from."""
    module = importlib.import_module(package)
    lines = [package, "=" * len(package), "", about, "", f".. module:: {package}", ""]
    for name in public_names(package):
        thing = getattr(module, name)
        kind = "class" if inspect.isclass(thing) else "function" if inspect.isroutine(thing) else "data"
        lines += [f".. auto{kind}:: {package}.{name}"]
        lines += ["   :members:", "   :show-inheritance:"] if kind == "class" else []
        lines += [""]
    return "\n".join(lines)


def public_names(package: str) -> list[str]:
    """What a package offers: `__all__`, or the functions that a module defines."""
    module = importlib.import_module(package)
    defined = [name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == package]
    return getattr(module, "__all__", None) or [name for name in defined if not name.startswith("_")]


def theorem_pages(folder: Path) -> dict[str, str]:
    """A page for each theorem and one that lists them.

    SymPy derives and verifies all proofs, which takes a minute, where the theorems or proofs are others than at the
    last build. A step that fails is a warning, and so ends a build with -W.
    """
    sources = sorted(path for name in ("proofs", "theorems") for path in (ROOT / "theory_checks" / name).glob("*.py"))
    sources.append(Path(__file__))
    made_of = hashlib.sha256(b"".join(path.read_bytes() for path in sources) + sympy.__version__.encode()).hexdigest()
    kept = folder / "theorems.json"
    if kept.exists():
        recorded = json.loads(kept.read_text())
        if recorded["made_of"] == made_of:
            return recorded["pages"]
    pages = {f"theorems/{theorem.name}.md": theorem_page(theorem) for theorem in ALL} | {
        "theorems/index.md": theorem_list()
    }
    _write(kept, json.dumps({"made_of": made_of, "pages": pages}).encode())
    return pages


def theorem_page(theorem: Theorem) -> str:
    lines = [
        f"# {_titled(theorem.name)}",
        theorem.statement,
        f"**Assumes** {'; '.join(theorem.assumptions)}." if theorem.assumptions else "",
        f"**Applies to** {theorem.applies_to}.",
        f"**Source** {theorem.source}.",
        f"Measured on a system of yours by `theory_checks.theorems.find({theorem.name!r}).check`, in the shell by "
        f"`groundstate theorems {theorem.name}`.",
    ]
    if theorem.name not in PROOFS:
        return "\n\n".join([*lines, "It is measured, and not derived here."])
    proof, faults = prove(theorem.name), PROOFS[theorem.name].faults
    about = "Every line was computed anew by SymPy, by the means in brackets."
    lines += ["## Proof", f"Derived for {proof.scope}. {about}" if proof.scope else about]
    for number, one in enumerate(proof.verify().checked, 1):
        if not one.holds:
            _log.warning("the proof of %s fails in step %d: %s", theorem.name, number, one)
        lines += [f"**{number}.** {one.step.claim} *({one.how})*", f"$$\n{one.step.latex()}\n$$"]
    lines += ["## What breaks it", "Each of these, planted on purpose, makes a step fail:"]
    return "\n\n".join([*lines, "\n".join(f"- {fault}: {words}." for fault, words in faults.items())])


def theorem_list() -> str:
    rows = [
        f"| [{_titled(theorem.name)}]({theorem.name}.md) | {theorem.applies_to} | "
        f"{'proved and measured' if theorem.name in PROOFS else 'measured'} |"
        for theorem in ALL
    ]
    about = (
        f"{len(ALL)} theorems, {len(PROOFS)} of them with a derivation that SymPy checks step by step. "
        "`groundstate theorems --battery` measures them on a small system of every kind."
    )
    tree = ["```{toctree}", ":hidden:", *(theorem.name for theorem in ALL), "```"]
    return "\n\n".join(
        ["# Theorems", about, "\n".join(["| theorem | applies to | here |", "|---|---|---|", *rows]), "\n".join(tree)]
    )


def gallery(folder: Path) -> str:
    """All figures of the notebooks, under their headings; the images go into a folder."""
    lines = ["# Gallery", "Every figure links to the notebook that draws it, with the code above it."]
    drawn = set()
    for path in NOTEBOOKS:
        heading = path.stem
        notebook = nbformat.read(path, as_version=4)
        lines += [f"## {_headings(notebook)[0]}"] if _pictures(notebook.cells) else []
        for cell in notebook.cells:
            heading = ([heading, *_headings_of(cell)])[-1]
            for encoded in _pictures([cell]):
                name = f"{path.stem}-{cell.id}-{hashlib.sha256(encoded.encode()).hexdigest()[:8]}.png"
                drawn.add(name)
                _write(folder / name, base64.b64decode(encoded))
                options = f":alt: {heading}\n:target: notebooks/{path.stem}.html"
                lines += [f"```{{figure}} figures/{name}\n{options}\n\n{heading}\n```"]
    for path in folder.glob("*.png"):
        if path.name not in drawn:
            path.unlink()
    return "\n\n".join(lines)


def _headings(notebook: Any) -> list[str]:
    return [heading for cell in notebook.cells for heading in _headings_of(cell)]


def _headings_of(cell: Any) -> list[str]:
    lines = cell.source.split("\n") if cell.cell_type == "markdown" else []
    return [line.lstrip("# ") for line in lines if line.startswith("#")]


def _pictures(cells: list[Any]) -> list[str]:
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]


def _titled(name: str) -> str:
    return name[0].upper() + name[1:].replace("-", " ")


def _write(path: Path, content: bytes) -> None:
    """Writes what is new, so that Sphinx reads again only that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)
