"""The command `groundstate notebook`: the notebooks in JupyterLab."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

from learning.options import UsageError

PLACES = (
    Path("notebooks"),
    Path(__file__).parent.parent / "notebooks",
    Path(sys.prefix) / "share" / "groundstate" / "notebooks",
)
"""Where the notebooks may be: in the folder at hand, in the checkout that is imported, beside an installed package."""


def add(commands: Any) -> None:
    """Adds the command to the parsers of `groundstate`."""
    parser = commands.add_parser(
        "notebook",
        help="open the notebooks in JupyterLab",
        description="Opens the notebooks in JupyterLab, in the browser. What follows the name goes to JupyterLab, "
        "such as -- --no-browser --port 9999. Ctrl-C ends it.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_notebook)
    parser.add_argument("name", nargs="?", help="such as 03-ising, or 03 (default: the folder of all)")
    parser.add_argument("jupyter", nargs="*", metavar="OPTION", help=argparse.SUPPRESS)
    parser.add_argument("--list", action="store_true", help="print the names, and open nothing")


def _notebook(options: argparse.Namespace) -> int:
    notebooks = found()
    if options.list:
        print(*(path.stem for path in notebooks), sep="\n")
        return 0
    name, further = options.name, options.jupyter
    if name is not None and name.startswith("-"):
        name, further = None, [name, *further]
    opened = notebooks[0].parent if name is None else chosen(name, notebooks)
    if importlib.util.find_spec("jupyterlab") is None:
        raise UsageError('notebook: JupyterLab is not installed; in the checkout, pip install ".[notebooks]" brings it')
    return subprocess.run([sys.executable, "-m", "jupyterlab", str(opened), *further]).returncode


def found() -> list[Path]:
    """All notebooks, in their order. Raises UsageError where there are none."""
    for place in PLACES:
        notebooks = sorted(place.glob("[0-9][0-9]-*.ipynb"))
        if notebooks:
            return notebooks
    raise UsageError(f"notebook: wanted notebooks in one of {', '.join(map(str, PLACES))}; run it in the checkout")


def chosen(name: str, notebooks: list[Path]) -> Path:
    """The notebook whose name starts so. Raises UsageError for none or several."""
    matching = [path for path in notebooks if path.stem.startswith(name.removesuffix(".ipynb"))]
    if len(matching) != 1:
        known = ", ".join(path.stem for path in (matching or notebooks))
        raise UsageError(f"name: wanted the start of one of {known}; got {name!r}")
    return matching[0]
