"""Runs notebooks and keeps what they show: `python notebooks/execute.py` those whose code has changed, or those named.

What varies from run to run without meaning (times of execution, versions of the kernel) is left out, figures are kept
with 256 colours, and the notebook records which code its outputs are of. A test compares that record with the code.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parent
LARGEST = 400_000
"""Bytes of a notebook with its outputs."""
SECONDS = 900
"""Of one cell, the most."""


def main(arguments: list[str] | None = None) -> int:
    """Executes in place; the exit code is 1 where a notebook fails, is too large or wrote to stderr."""
    parser = argparse.ArgumentParser(description="Execute notebooks in place.")
    parser.add_argument("names", nargs="*", help="such as 03-ising, or 03 (default: those whose code has changed)")
    names = parser.parse_args(arguments).names
    paths = [path for name in names for path in named(name)] or [path for path in notebooks() if not is_current(path)]
    return max([_executed(path) for path in paths], default=0)


def _executed(path: Path) -> int:
    try:
        return execute(path)
    except Exception as error:  # of this notebook: the others are executed all the same
        print(f"{path.name}: {type(error).__name__}: {error}", flush=True)
        return 1


def notebooks() -> list[Path]:
    return sorted(FOLDER.glob("*.ipynb"))


def named(name: str) -> list[Path]:
    """The notebooks whose file name starts so. Raises SystemExit if there is none."""
    found = [path for path in notebooks() if path.stem.startswith(name.removesuffix(".ipynb"))]
    if not found:
        raise SystemExit(
            f"names: wanted the start of one of {', '.join(path.stem for path in notebooks())}; got {name}"
        )
    return found


def code_of(notebook: Any) -> str:
    """A checksum of the code of all cells, in their order."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def is_current(path: Path) -> bool:
    """Whether the outputs that a notebook holds are those of its code."""
    notebook = nbformat.read(path, as_version=4)
    return notebook.metadata.get("groundstate", {}).get("outputs_of") == code_of(notebook)


def execute(path: Path) -> int:
    """Executes a notebook, writes it back if no cell fails, and returns 0 if it may be committed, else 1."""
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": FOLDER}}).execute()
    seconds = time.perf_counter() - start
    complaints = [
        f"{cell.id} wrote to stderr: {output.text.strip()[:500]}"
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stderr"
    ]
    _strip(notebook)
    nbformat.write(notebook, path)
    size = path.stat().st_size
    if size > LARGEST:
        complaints.append(f"wanted at most {LARGEST:,} bytes, got {size:,}; draw fewer or smaller figures")
    print(f"{path.name}: {seconds:.0f} s, {size:,} bytes", *complaints, sep="\n  ", flush=True)
    return int(bool(complaints))


def _strip(notebook: Any) -> None:
    """Takes out what differs between equal runs, and records the code."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)  # no kernel, no sliders
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _in_few_colours(output.data["image/png"])
                output.metadata = {}
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}
    notebook.metadata.groundstate = {"outputs_of": code_of(notebook)}


def _in_few_colours(encoded: str) -> str:
    image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    written = io.BytesIO()
    image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode() + "\n"


if __name__ == "__main__":
    sys.exit(main())
