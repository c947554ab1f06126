"""A training run as one folder: config, metrics, checkpoint, summary and figure."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import equinox as eqx
import jax
import numpy as np

from learning.checkpoint import (
    CheckpointError,
    read_checkpoint,
    remove_unfinished,
    require_writable,
    save_checkpoint,
    write_atomically,
    write_json,
)
from learning.closures import differing_parts
from learning.data import DATA_SETS, Data, Split, load_data
from learning.lock import FolderLock, LockedError
from learning.pictures import learning_curve
from learning.structure import StructureError, build, write_down
from substrates.laboratory.system import PhysicalSystem
from substrates.substrate import Substrate

CONFIG, METRICS, CHECKPOINT, SUMMARY = "config.json", "metrics.jsonl", "checkpoint.npz", "summary.json"
SYSTEM, DATA, TIMES = "system.npz", "data.npz", "times.json"
FIGURE = Path("figures") / "learning_curve.png"

OPTIMISER = "optimiser"
_MAY_CHANGE = ("epochs", "groundstate")
_MOST_DATA = 64 * 2**20
_WRITTEN_AGAIN = f"remove {SYSTEM} and {DATA}, and resume the run as it was started: that writes them again"


class RunFolderError(ValueError):
    """A folder cannot hold the run that was asked for."""


@runtime_checkable
class Simulation(PhysicalSystem, Protocol):
    """A physical system that is simulated, by a substrate that anybody may look at."""

    @property
    def substrate(self) -> Substrate: ...


class RunFolder:
    """The folder of one run.

    | file | content |
    |---|---|
    | config.json | what was run, and which class and version ran it; a resumed run must agree with it |
    | system.npz | the system before training, to build it again; what its labels mean and which data it learned |
    | data.npz | the data, where they are no set of `load_data` and take at most 64 MB |
    | metrics.jsonl | one line per epoch |
    | checkpoint.npz | parameters, optimiser state and position, equal bytes for equal runs |
    | times.json | the seconds that belong to the checkpoint |
    | summary.json | how it ended: accuracies, seconds, seed, versions, hardware |
    | figures/learning_curve.png | the learning curve |

    Everything but metrics.jsonl, which grows line by line, is written atomically; nothing is pickled. The folder is
    locked until `close`, or until the process ends.
    """

    def __init__(self, path: str | os.PathLike, config: dict[str, Any], *, resume: bool):
        """Makes the folder, or opens an existing one to resume its run.

        Raises RunFolderError, with nothing changed, if the folder cannot be written, holds other files or a run that
        is not to be resumed, was started with another config, or is being written by another run.
        """
        self.path, self.config, self._new = Path(path), config, False
        claim(self.path, resume=resume)
        try:
            self._lock = FolderLock(self.path)
        except LockedError as error:
            raise RunFolderError(str(error)) from error
        try:
            claim(self.path, resume=resume)  # another run may have ended before the lock was had
            remove_unfinished(self.path)
            recorded = read_config(self.path)
            self._new = recorded is None
            if recorded is not None:
                _require_same(self.path, recorded, config)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets other runs have the folder."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *problem: object) -> None:
        if kind is not None and issubclass(kind, Exception) and self._new and not self._holds_anything:
            for name in (CONFIG, METRICS, SYSTEM, DATA):  # nothing came of the run, and nothing of it is worth a folder
                (self.path / name).unlink(missing_ok=True)
        self.close()
        with contextlib.suppress(OSError):
            self.path.rmdir()  # only if it is empty

    @property
    def _holds_anything(self) -> bool:
        metrics = self.path / METRICS
        return (self.path / CHECKPOINT).exists() or (metrics.exists() and metrics.stat().st_size > 0)

    def save(self, tree: Any, facts: dict[str, Any], times: dict[str, Any]) -> None:
        """Writes the times, and then the checkpoint, in which no time stands."""
        write_json(self.path / TIMES, times)
        save_checkpoint(self.path / CHECKPOINT, tree, facts)

    def describe(self, system: Any, classes: tuple[Any, ...] | None, data: Data | Split) -> None:
        """Writes what it takes to use the trained system, unless the folder has it already.

        Args:
            system: a substrate before training, or None for a physical system, which nobody can build from a file.
            classes: what each label means, or None.
            data: the examples, kept where they are few and nowhere else to be had.
        """
        if (self.path / SYSTEM).exists():
            return
        structure, arrays, reason = None, [], None
        try:
            structure, arrays = write_down(system)
        except StructureError as error:
            reason = str(error)
        facts = {"structure": structure, "reason": reason, "classes": classes, "data": self._keep(data)}
        save_checkpoint(self.path / SYSTEM, arrays, facts)

    def _keep(self, data: Data | Split) -> dict[str, Any]:
        """Where the data can be had again; keeps them if need be."""
        if isinstance(data, Data) and data.name in DATA_SETS:
            asked = {"name": data.name, "seed": data.seed, "validation": data.validation_part}
            return {"set": asked, "fingerprint": _fingerprint(data)}
        try:
            structure, arrays = write_down(data if isinstance(data, Data) else _in_numpy(data))
        except StructureError as error:
            return {"reason": f"{error}, which is not kept"}
        size = sum(array.nbytes for array in arrays)
        if size > _MOST_DATA:
            return {"reason": f"they take {size / 2**20:,.0f} MB, and up to {_MOST_DATA // 2**20} MB are kept"}
        save_checkpoint(self.path / DATA, arrays, {})
        return {"kept": structure}

    def begin(self, rows: list[dict[str, Any]]) -> None:
        """Writes the config, and the metrics of the epochs that are done in place of whatever the file held."""
        write_json(self.path / CONFIG, self.config)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(self.path / METRICS, lambda file: file.write(text.encode()))

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Adds the line of one epoch."""
        with open(self.path / METRICS, "ab", buffering=0) as file:
            file.write((json.dumps(row) + "\n").encode())

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes the summary."""
        write_json(self.path / SUMMARY, summary)

    def draw(self, history: dict[str, np.ndarray]) -> None:
        """Draws the learning curve."""
        from matplotlib.figure import Figure

        figure = Figure(layout="constrained")
        learning_curve(history, ax=figure.add_subplot())
        (self.path / FIGURE).parent.mkdir(exist_ok=True)
        write_atomically(self.path / FIGURE, lambda file: figure.savefig(file, format="png", dpi=150))


def claim(path: Path, *, resume: bool) -> None:
    """Makes a folder for a run, or makes sure that an existing one can take it.

    Raises RunFolderError if it cannot be written, holds files that are no run, or a run that is not to be resumed.
    """
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"out: {path} is a file; name a folder that does not exist yet")
    try:
        require_writable(path)
        held = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise RunFolderError(f"out: cannot write in {path} ({error}); name another folder") from error
    if CONFIG in held and not resume:
        raise RunFolderError(
            f"out: {path} already holds a run; resume it (resume=True, --resume) or name another folder"
        )
    if held and CONFIG not in held:
        raise RunFolderError(f"out: {path} holds files that are no run ({', '.join(held[:3])}); name another folder")


def read_config(path: Path) -> dict[str, Any] | None:
    """The config that a folder's run was started with, or None if there is none. Raises RunFolderError if damaged."""
    try:
        return json.loads((path / CONFIG).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path / CONFIG}: cannot be read ({error}); start the run again elsewhere") from error


def read_times(path: Path, epochs: int) -> tuple[list[float], float, float]:
    """(the seconds of each of the epochs that are done, those of the one that is not, those of all training up to the
    last checkpoint or the last summary, whichever is later).

    Without their file the first are NaN and 0. Raises CheckpointError if it is damaged.
    """
    summed_up = read_seconds(path)
    try:
        times = json.loads((path / TIMES).read_text())
        each, partial, total = times["epoch_seconds"], times["partial_seconds"], times["seconds"]
        known = [float(seconds) for seconds in each[:epochs]]
        return known + [math.nan] * (epochs - len(known)), float(partial), max(float(total), summed_up)
    except FileNotFoundError:
        return [math.nan] * epochs, 0.0, summed_up
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path / TIMES}: damaged ({error}); remove this file to go on without the seconds so far"
        ) from error


def read_seconds(path: Path) -> float:
    """The seconds of a run up to its last summary, its evaluations and pictures included; 0 where none can be read."""
    try:
        return float(json.loads((path / SUMMARY).read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def read_system(path: Path) -> tuple[Any, str | None, dict[str, Any]]:
    """(the system of a run before training, why there is none, what else `describe` wrote).

    Raises CheckpointError if the file is damaged or absent.
    """
    arrays, facts = read_checkpoint(path / SYSTEM, _WRITTEN_AGAIN)
    if facts["structure"] is None:
        return None, facts["reason"] or "it stands on a bench, and no file can build it", facts
    try:
        return build(facts["structure"], dict(enumerate(arrays.values()))), None, facts
    except StructureError as error:
        return None, str(error), facts


def read_data(path: Path) -> Data | Split:
    """The data that a run learned.

    Raises RunFolderError if the folder does not hold them and nothing else does, CheckpointError if a file is damaged
    or lost, DataError if a data set cannot be had.
    """
    where = read_checkpoint(path / SYSTEM, _WRITTEN_AGAIN)[1]["data"]
    if "kept" in where:
        arrays, _ = read_checkpoint(path / DATA, _WRITTEN_AGAIN)
        return build(where["kept"], dict(enumerate(arrays.values())))
    if "reason" in where:
        raise RunFolderError(f"data: {path} does not hold its examples: {where['reason']}")
    data = load_data(**where["set"])
    if not np.allclose(_fingerprint(data), where["fingerprint"], rtol=1e-6):
        raise RunFolderError(f"data: {data.name} has other examples here than the run in {path} learned")
    return data


def version() -> str:
    """The version of this library."""
    return _version_of("groundstate")


def describe_tree(tree: Any) -> str:
    """The structure and settings of a tree as text, the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", eqx.tree_pformat(tree, short_arrays=True))


def surroundings() -> dict[str, Any]:
    """The versions and the hardware that a summary records."""
    packages = ("groundstate", "jax", "jaxlib", "equinox", "optax", "numpy", "scipy", "scikit-learn")
    versions = {"python": platform.python_version(), **{package: _version_of(package) for package in packages}}
    device = jax.devices()[0]
    hardware = {
        "device": device.device_kind,
        "platform": device.platform,
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    return {"versions": versions, "hardware": hardware, "command": " ".join(sys.argv)}


def _version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _in_numpy(split: Split) -> Split:
    """The examples as arrays of numpy, whatever they were; a list of numbers is an array too."""

    def converted(part: Any) -> Any:
        return np.asarray(part) if isinstance(part, list) else jax.tree.map(np.asarray, part)

    return Split(*(None if pair is None else tuple(map(converted, pair)) for pair in split))


def _fingerprint(data: Data) -> list[float]:
    """A number for each part of a data set, which tells other examples from rounding."""
    parts = [part for part in (data.train, data.validation, data.test) if part is not None]
    return [float(np.abs(x).sum(axis=1, dtype=float) @ np.arange(len(x)) + y.sum()) for x, y in parts]


def _require_same(path: Path, recorded: dict[str, Any], config: dict[str, Any]) -> None:
    if "groundstate" in config and "groundstate" not in recorded:
        raise RunFolderError(
            f"resume: {path} was written by an earlier version of groundstate, in another format; resume it with that "
            "version, or name another folder"
        )
    may_change: set[str] = {*_MAY_CHANGE}
    if (recorded.get(OPTIMISER) or {}).get("optax") != (config.get(OPTIMISER) or {}).get("optax"):
        may_change.add(OPTIMISER)  # another version may build the same optimiser in another way
    for name in [*config, *recorded]:
        if name not in may_change and recorded.get(name) != _as_json(config.get(name)):
            before, now = recorded.get(name), config.get(name)
            if name == OPTIMISER:
                there, here = differing_parts(*((found or {}).get("made of", "") for found in (before, now)))
            else:
                there, here = _differing(before, now)
            raise RunFolderError(
                f"resume: {path} was started with another {name}: {there} there, {here} here; give what it was "
                "started with, or name another folder"
            )


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _differing(*values: Any) -> list[str]:
    """Two values in short, from a little before they differ."""
    texts = [" ".join(str(value).split()) for value in values]
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False))
    start = max(0, sum(1 for _ in same) - 60)
    texts = [f"...{text[start:]}" if start else text for text in texts]
    return [text if len(text) <= 160 else text[:157] + "..." for text in texts]
