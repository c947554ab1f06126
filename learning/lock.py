"""A folder for one process at a time: a lock that the system lets go when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import time
import warnings
from pathlib import Path
from typing import IO, Any

LOCK = ".lock"

_FAR = 2**30  # Windows lets nobody read the byte that is locked: no holder's name is as long as this


class LockedError(ValueError):
    """Another run holds the folder."""


class FolderLock:
    """Holds a folder until `release`, or until the process ends, be it killed.

    The lock lies on the open file `.lock` (flock, or on Windows a locked byte), which says who holds it; a file that a
    killed process left behind locks nothing. Two runs in one process exclude each other too. A file system without
    locks is told by a warning, and its folder is not locked.
    """

    def __init__(self, folder: Path):
        """Raises LockedError, which names the holder, if the folder is held; OSError if it cannot be written."""
        self._path = folder / LOCK
        self._file: IO[bytes] | None = None
        while self._file is None:
            file = open(self._path, "a+b")  # noqa: SIM115
            try:
                self._take(file)
                if _same_file(file, self._path):  # else it was removed by its holder before it was locked here
                    self._file = file
                    self._sign(file)
            finally:
                if self._file is None:
                    file.close()

    def release(self) -> None:
        """Lets the folder go and removes the file; a second time it does nothing."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):  # Windows removes no file that is open
            self._path.unlink()
        self._file.close()
        self._file = None
        with contextlib.suppress(OSError):
            if os.name == "nt":
                self._path.unlink()

    def _take(self, file: IO[bytes]) -> None:
        try:
            locked = _lock(file)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            holder = file.read(1000).decode(errors="replace").strip() or "another process"
            raise LockedError(
                f"out: {self._path.parent} is being written by {holder}; wait until it ends, or name another folder"
            ) from error
        if not locked:
            warnings.warn(
                f"out: {self._path.parent} cannot be locked on this system; see to it that no other run writes there",
                stacklevel=2,
            )

    def _sign(self, file: IO[bytes]) -> None:
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {platform.node() or 'this machine'}, since {since}".encode())
        file.flush()


def _lock(file: IO[bytes]) -> bool:
    """Whether an open file was locked; raises BlockingIOError or PermissionError if somebody else has locked it."""
    unix, windows = _module("fcntl"), _module("msvcrt")
    if unix is not None:
        try:
            unix.flock(file, unix.LOCK_EX | unix.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise
        except OSError:  # a file system that knows no locks
            return False
        return True
    if windows is not None:
        file.seek(_FAR)
        windows.locking(file.fileno(), windows.LK_NBLCK, 1)
        return True
    return False


def _module(name: str) -> Any:
    """A module that only some systems have."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _same_file(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
