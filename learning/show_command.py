"""The command `groundstate show`: what a run learned, and how."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from learning import catalogue
from learning.checkpoint import CheckpointError
from learning.data import DataError
from learning.examples import output_shape, prepare
from learning.loading import load_run
from learning.options import UsageError, reader, whole
from learning.pictures import learning_curve
from learning.run_folder import RunFolderError, read_config
from learning.training import Run
from substrates.session import keep_compiled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_number = reader(whole, lambda value: value >= 0, "a whole number from 0")


def add(commands: Any) -> None:
    """Adds the command to the parsers of `groundstate`."""
    parser = commands.add_parser(
        "show",
        help="draw a run: its learning curve, and the trained system",
        description="Draws costs and error rates along training beside the trained system at rest with an example, and "
        "prints what the run came to. The last printed line is the figure's file.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_show)
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run's folder, which `groundstate train` printed")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the figure, of the kind that its ending says (default: figures/run.png in the run's folder)",
    )
    parser.add_argument(
        "--example", type=_number, default=0, metavar="N", help="of the test examples, else of others (default: 0)"
    )


def _show(options: argparse.Namespace) -> int:
    keep_compiled()
    recorded = ((read_config(options.folder) or {}).get("options") or {}).get("substrate", "")
    if catalogue.file_of(recorded) is not None:
        catalogue.find(catalogue.SUBSTRATES, recorded)  # a class is found by its name only once its file is imported
    with jax.enable_x64(True):
        run = load_run(options.folder)
        figure, note = draw_run(run, options.example)
    file = options.folder / "figures" / "run.png" if options.out is None else options.out
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    print(run)
    if note:
        print(note)
    print(file)
    return 0


def draw_run(run: Run, example: int = 0) -> tuple[Figure, str]:
    """(the learning curve beside the trained system at rest, what could not be drawn and why).

    Args:
        run: its substrate is drawn by its `draw`.
        example: of the test examples, or of the validation or training examples where the run has no others.

    Raises UsageError for an example that is not there.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    x, note = _input(run, example)
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    learning_curve(run.history, axes[0])
    if x is None:
        run.substrate.draw(ax=axes[1])
        return figure, note
    found = run.substrate.relax(x, key=jax.random.key(0))
    run.substrate.draw(found.state, x, ax=axes[1])
    return figure, "" if found.converged else f"The system that is drawn is not at rest: residual {found.residual:.1e}."


def _input(run: Run, example: int) -> tuple[Any, str]:
    """(one input of the run's data, or None; why there is none)."""
    try:
        data = run.data
    except (CheckpointError, DataError, RunFolderError) as error:
        return None, f"The system is drawn without an input: {error}."
    part = next(part for part in (data.test, data.validation, data.train) if part is not None)
    size = len(jax.tree.leaves(part[0])[0])
    if example >= size:
        raise UsageError(f"--example: wanted a number below {size}, the number of examples, got {example}")
    one = jax.tree.map(lambda leaf: np.asarray(leaf[example : example + 1]), part[0])
    blank = np.zeros((1, *output_shape(run.substrate, one)))
    return jax.tree.map(lambda leaf: leaf[0], prepare(run.substrate, (one, blank), "x").x), ""
