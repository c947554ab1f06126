"""What a session switches on, in the open: double precision, whole products, a folder that keeps what was compiled.

The library flips no switch on import. The command, the tests and the notebooks call what stands here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import stat
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
from jaxlib.version import __version__ as jaxlib_version

KEPT_DAYS = 14
"""Programs compiled longer ago than this are deleted at the start of a session."""

_PROCESSOR = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU part", "Features")


def start_session(precision: int = 64) -> None:
    """Sets the precision of all numbers, 64 or 32 bits, and of products of 32-bit ones (`whole_products`), and keeps
    what gets compiled: the first call of a notebook.
    """
    if precision not in (32, 64):
        raise ValueError(f"precision: wanted 32 or 64 bits, got {precision!r}")
    jax.config.update("jax_enable_x64", precision == 64)
    whole_products()
    keep_compiled()


def whole_products() -> None:
    """Keeps all 24 bits of 32-bit numbers in products and convolutions, of which recent GPUs otherwise read 11.

    With so few a relaxation does not settle to the tolerance of 32 bits. CPUs and other dtypes take no notice. A
    precision that JAX was already given (`jax_default_matmul_precision`) stays as it is.
    """
    if jax.config.values["jax_default_matmul_precision"] is None:
        jax.config.update("jax_default_matmul_precision", "float32")


def keep_compiled() -> Path | None:
    """Keeps what JAX compiles in the user's cache, so that the next process need not compile it again.

    The folder is `compiled` in `cache_folder()`, or `$GROUNDSTATE_CACHE`; `GROUNDSTATE_CACHE=off` keeps nothing. Each
    version of jaxlib and each kind of processor has a folder of its own in there, which is returned; None where nothing
    is kept. A folder that JAX was already given (`jax_compilation_cache_dir`) stays as it is.

    Whoever can write the folder can run code as its user: it is made for the user alone, and left aside with a
    RuntimeWarning where it belongs to somebody else, where others can write it, or where it cannot be made. Entries
    that cannot be read or written cost a compilation and nothing else, so JAX's warnings of them are silenced, and so
    are XLA's log lines below fatal ones, unless `jax_logging_level` was set.
    """
    kept = jax.config.values["jax_compilation_cache_dir"]
    if kept is not None:
        return Path(kept)
    asked = os.environ.get("GROUNDSTATE_CACHE")
    if asked == "off":
        return None
    try:
        shelf = Path(asked).absolute() if asked else cache_folder() / "compiled"
        folder = shelf / f"jaxlib-{jaxlib_version}-{_processor()}"
        shelf.parent.mkdir(parents=True, exist_ok=True)
        shelf.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        _refuse_what_others_can_write(folder.resolve())
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
        warnings.warn(
            f"what gets compiled is not kept: {error}. Mend it, or set GROUNDSTATE_CACHE to another folder or to 'off'",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    _prune(shelf)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")  # their folder would be part of every key
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry", UserWarning)
    if jax.config.values["jax_logging_level"] == "NOTSET":
        # For each entry XLA logs that the processor lacks "prefer-no-gather" (openxla/xla issue 44565): a preference of
        # its compiler and no feature at all. CRITICAL hides it, and NOTSET gives Python's loggers back their level.
        jax.config.update("jax_logging_level", "CRITICAL")
        jax.config.update("jax_logging_level", "NOTSET")
    return folder


def cache_folder() -> Path:
    """The user's cache folder `groundstate`, where the platform has it; `$XDG_CACHE_HOME` goes before."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "groundstate"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "groundstate"
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "groundstate"
    return Path.home() / ".cache" / "groundstate"


@contextlib.contextmanager
def filling_workers() -> Iterator[None]:
    """No word from joblib that it starts a worker anew: compiled programs fill the memory of the one before."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        yield


def _processor() -> str:
    """Sixteen digits for the processor and its features: a program compiled for others may be refused or crash."""
    described = [platform.machine()]
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        described += [line for line in first if line.split(":")[0].strip() in _PROCESSOR]
    except OSError:
        described.append(platform.processor())
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]


def _refuse_what_others_can_write(folder: Path) -> None:
    if os.name != "posix":  # there permission bits say nothing, and others have no access to a user's folders
        return
    found = folder.stat()
    if found.st_uid not in (0, os.getuid()):
        raise PermissionError(f"{folder} belongs to another user, who could run code as you")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"others can write {folder} ({stat.filemode(found.st_mode)}), and so run code as you")
    for parent in folder.parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise PermissionError(f"others can replace {folder}, since all can write {parent}")


def _prune(shelf: Path) -> None:
    """Once a day, deletes what was compiled long ago, and the folders that nothing has come to or gone from since."""
    now, mark = time.time(), shelf / "pruned"
    age = lambda path: now - path.stat().st_mtime
    with contextlib.suppress(OSError):
        if age(mark) < 86400:
            return
    with contextlib.suppress(OSError):
        mark.touch()
    for path in [*shelf.glob("jaxlib-*/*-cache"), *shelf.glob("jaxlib-*")]:
        with contextlib.suppress(OSError):  # another process prunes too, or the folder is not empty
            if age(path) > 86400 * KEPT_DAYS:
                path.rmdir() if path.is_dir() else path.unlink()
