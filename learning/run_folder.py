"""A training run as one folder: config, metrics, checkpoint, summary and figure."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from learning.checkpoint import (
    load_checkpoint,
    raw,
    remove_unfinished,
    require_writable,
    save_checkpoint,
    write_atomically,
    write_json,
)
from learning.pictures import learning_curve

CONFIG, METRICS, CHECKPOINT, SUMMARY = "config.json", "metrics.jsonl", "checkpoint.npz", "summary.json"
FIGURE = Path("figures") / "learning_curve.png"

_MAY_CHANGE = ("epochs",)


class RunFolderError(ValueError):
    """A folder cannot hold the run that was asked for."""


class RunFolder:
    """The folder of one run.

    | file | content |
    |---|---|
    | config.json | what was run; a resumed run must agree with it |
    | metrics.jsonl | one line per epoch |
    | checkpoint.npz | parameters, optimiser state and position, without pickle |
    | summary.json | how it ended: accuracies, seconds, seed, versions, hardware |
    | figures/learning_curve.png | the learning curve |

    Everything but metrics.jsonl, which grows line by line, is written atomically.
    """

    def __init__(self, path: str | os.PathLike, config: dict[str, Any], *, resume: bool):
        """Makes the folder, or opens an existing one to resume its run.

        Raises RunFolderError, with nothing changed, if the folder cannot be written, holds other files or a run that
        is not to be resumed, or was started with another config.
        """
        self.path, self.config = Path(path), config
        claim(self.path, resume=resume)
        remove_unfinished(self.path)
        recorded = read_config(self.path)
        if recorded is not None:
            _require_same(self.path, recorded, config)

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return (self.path / CHECKPOINT).exists()

    def save(self, tree: Any, facts: dict[str, Any]) -> None:
        """Writes the checkpoint."""
        save_checkpoint(self.path / CHECKPOINT, tree, facts)

    def load(self, like: Any) -> tuple[Any, dict[str, Any]]:
        """Reads the checkpoint; raises CheckpointError."""
        return load_checkpoint(self.path / CHECKPOINT, like)

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


def describe_tree(tree: Any) -> str:
    """The structure and settings of a tree as text, the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", eqx.tree_pformat(tree, short_arrays=True))


def digest(tree: Any) -> str:
    """A checksum of all arrays of a tree."""
    checksum = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(tree):
        if eqx.is_array(leaf) or isinstance(leaf, np.ndarray):
            array = np.ascontiguousarray(raw(leaf))
            checksum.update(f"{array.dtype}{array.shape}".encode())
            checksum.update(array.data if array.size else b"")
    return checksum.hexdigest()


def surroundings() -> dict[str, Any]:
    """The versions and the hardware that a summary records."""
    packages = ("groundstate", "jax", "jaxlib", "equinox", "optax", "numpy", "scipy", "scikit-learn")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    device = jax.devices()[0]
    hardware = {
        "device": device.device_kind,
        "platform": device.platform,
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    return {"versions": versions, "hardware": hardware, "command": " ".join(sys.argv)}


def _require_same(path: Path, recorded: dict[str, Any], config: dict[str, Any]) -> None:
    for name in [*config, *recorded]:
        if name not in _MAY_CHANGE and recorded.get(name) != _as_json(config.get(name)):
            raise RunFolderError(
                f"resume: {path} was started with another {name}: {_short(recorded.get(name))} there, "
                f"{_short(config.get(name))} here; give what it was started with, or name another folder"
            )


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 160 else text[:157] + "..."
