"""What an accelerator does with this library, in one run of ten minutes: right, how fast, and how well it learns colour
images.

    python benchmarks/gpu.py --out gpu.json                            # on JAX's first device, whatever it is
    python benchmarks/gpu.py --quick                                   # small and short: that every stage runs
    python benchmarks/gpu.py --pack part --count 25000                 # the data that a machine without a network takes
    python benchmarks/gpu.py --images part --train hopfield --out gpu.json

Stages, each within its part of `--minutes`, in the order of what they are worth:

1. right: a small system of every kind on the device and, in a process of its own, on the CPU, in 64 and 32 bits: the
   largest relative difference of outputs, energies and gradient, and whether relaxations ended alike.
2. times: typical work on the device and on the CPU, taking turns; medians, compilation apart.
3. hopfield, 4. predictive-coding and error-sweep: seconds of a step and of an epoch of 50,000 images in float32,
   tensorfloat32 and bfloat16, beside the convolutions of that step alone; cosine with the gradient of float32.
5. train: one of them for the minutes that are left, in the fastest kind of numbers whose gradient has a cosine of at
   least 0.99 with that of float32.

Rows are printed and written to `--out` as they come. Time is asked between steps: what did not fit is said, and a stage
that fails is a row. CIFAR-10 is what `load_data` finds, or what `--pack` left in a folder; without it the speeds are
those of drawn images, and nothing is trained. A run on a CPU alone compares it with itself.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
from colour_images import Images, drawn, pack, published
from gpu_networks import RECIPES, speed, train
from gpu_systems import SYSTEMS, correctness, in_short, times

from learning.checkpoint import write_atomically
from learning.idx import DataError
from substrates import start_session

STAGES = {"right": 0.3, "times": 0.2, "hopfield": 0.2, "predictive-coding": 0.15, "error-sweep": 0.15, "train": 1.0}
"""The parts of the time that is left when a stage begins."""

QUICK = ("resistors and ideal diodes", "Hopfield")
"""The systems of a quick run."""


class Report:
    """Rows of numbers, printed as they come and kept in a file.

    Args:
        out: the file, or None.
        minutes: for everything, from now on.
    """

    def __init__(self, out: Path | None, minutes: float):
        self.out, self.until = out, time.time() + 60 * minutes
        self.rows: list[dict[str, Any]] = []

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self.until - time.time())

    def add(self, stage: str, what: str, **found: Any) -> None:
        """A row: what was measured, and what was found, by name."""
        self.rows.append({"stage": stage, "what": what, **found})
        shown = ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in found.items())
        print(f"{stage:18}{what}: {shown}", flush=True)
        if self.out is not None:
            text = json.dumps(self.rows, indent=1).encode()
            write_atomically(self.out, lambda file: file.write(text))

    def stage(self, name: str, measure: Callable[[float], None]) -> None:
        """Measures within the part of the time that is this stage's; an error ends the stage alone."""
        began = time.time()
        try:
            measure(STAGES[name] * self.left)
        except Exception as error:
            self.add(name, "the stage", failed=in_short(error))
        self.add(name, "the stage", took=time.time() - began)

    def fastest(self, kind: str) -> str | None:
        """The kind of numbers in which a network was fastest, of those that keep its gradient; None where none was."""
        rows = [row for row in self.rows if row["stage"] == kind and row.get("cosine_with_float32", 0) >= 0.99]
        return min(rows, key=lambda row: row["seconds_a_step"])["what"] if rows else None


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def images_at_hand(report: Report, folder: Path | None, quick: bool) -> tuple[Images, bool]:
    """The images to learn from, and whether they are published ones or a quick run's."""
    if quick:
        return drawn(16), True
    try:
        images = published(folder)
    except DataError as error:
        report.add("train", "images", failed=in_short(error))
        return drawn(4096), False
    report.add("train", "images", origin=images.origin)
    return images, True


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.5, help="for all stages together (default: 9.5)")
    parser.add_argument("--out", type=Path, help="a JSON file for the rows")
    parser.add_argument("--stages", nargs="+", choices=tuple(STAGES), default=tuple(STAGES))
    parser.add_argument("--train", choices=tuple(RECIPES), default="error-sweep", help="the network that is trained")
    parser.add_argument("--dtype", help="the kind of numbers that it is trained in")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=Path, help="a folder that --pack wrote")
    parser.add_argument("--pack", type=Path, help="write a part of CIFAR-10 to this folder, and do nothing else")
    parser.add_argument("--count", type=int, default=25_000, help="how many training images to pack")
    parser.add_argument("--quick", action="store_true", help="few small systems, narrow networks, drawn images")
    options = parser.parse_args(words)
    if options.pack is not None:
        pack(options.pack, options.count)
        return 0
    start_session(32)
    report, quick = Report(options.out, options.minutes), options.quick
    device = jax.devices()[0]
    kinds = ("float32", "bfloat16") if device.platform == "cpu" else ("float32", "tensorfloat32", "bfloat16")
    report.add(
        "machine", device.device_kind, platform=device.platform, jax=jax.__version__, python=platform.python_version(),
        minutes=options.minutes, began=time.strftime("%Y-%m-%d %H:%M:%S"), seed=options.seed,
    )  # fmt: skip
    if "right" in options.stages:
        report.stage("right", partial(correctness, report, QUICK if quick else tuple(SYSTEMS)))
    if "times" in options.stages:
        report.stage("times", partial(times, report, device, small=quick))
    width = 1 / 64 if quick else 1.0
    chosen = [kind for kind in RECIPES if kind in options.stages]
    if chosen or "train" in options.stages:
        images, real = images_at_hand(report, options.images, quick)
        for kind in chosen:
            dtypes = [dtype for dtype in kinds if dtype in RECIPES[kind].dtypes]
            report.stage(kind, partial(speed, report, kind, dtypes, images, width=width))
        if "train" in options.stages and real:
            dtype = options.dtype or report.fastest(options.train) or "float32"
            settings: dict[str, Any] = {"width": width, "seed": options.seed, "most": 1 if quick else 100}
            report.stage("train", partial(train, report, options.train, dtype, images, **settings))
    wrong = [row for row in report.rows if row.get("right") is False or "failed" in row]
    print(f"{len(report.rows)} rows, of which {len(wrong)} are wrong or failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
