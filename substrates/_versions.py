"""Versions of JAX that compute wrong numbers, and a warning for whoever has one."""

from __future__ import annotations

import warnings
from importlib.metadata import version

WRONG = {
    "0.10.2": "compiled vmaps over 16,385 rows or more are wrong in the third digit on the CPU",
    "0.11.0": "compiled broadcasts crash the process on the CPU",
}


def warn_if_wrong(package: str, installed: str) -> None:
    """RuntimeWarning for a version in `WRONG`, with what to install instead."""
    if installed in WRONG:
        warnings.warn(
            f"{package} {installed} computes wrong numbers: {WRONG[installed]}. "
            "Install another: pip install 'jax>=0.9,!=0.10.2,!=0.11.0' 'jaxlib>=0.9,!=0.10.2,!=0.11.0'",
            RuntimeWarning,
            stacklevel=3,
        )


def check_versions() -> None:
    """Warns about the installed jax and jaxlib where they are known to be wrong."""
    for package in ("jax", "jaxlib"):
        warn_if_wrong(package, version(package))
