"""Writing files so that a reader finds the old one or the new one, never a part of one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

_PREFIX = ".unfinished-"


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file through a temporary one beside it, flushed to the disk and then renamed.

    Args:
        path: the file, replaced if it exists.
        write: called with the open temporary file.

    Raises OSError if the folder cannot be written; the old file is then untouched.
    """
    temporary = path.with_name(f"{_PREFIX}{os.getpid()}-{path.name}")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file atomically."""
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def require_writable(folder: Path) -> None:
    """Makes a folder if need be. Raises OSError if no file can be made in it."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f"{_PREFIX}{os.getpid()}-probe"
    probe.touch()
    probe.unlink()


def remove_unfinished(folder: Path) -> None:
    """Removes what a killed writer left behind in a folder."""
    for leftover in folder.glob(_PREFIX + "*"):
        leftover.unlink(missing_ok=True)
