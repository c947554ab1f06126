"""Room for compiled programs: JAX keeps each for ever, and Linux allows a process only so many memory maps."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import jax
from jax.core import Tracer
from jaxtyping import PyTree

LOOK_EVERY = 50
"""After so many programs more, the room is looked at."""

MOST_PROGRAMS = 500
"""So many programs are kept where nothing tells how much room they take: each takes some fifty maps."""

_PROGRAM = "/jax/core/compile/backend_compile_duration"


class _Count:
    """The programs that were compiled since the room was last looked at, and last made."""

    def __init__(self) -> None:
        self.unseen = self.kept = 0
        jax.monitoring.register_event_duration_secs_listener(self.compiled)

    def compiled(self, event: str, duration_secs: float, **kwargs: Any) -> None:
        if event == _PROGRAM:
            self.unseen += 1
            self.kept += 1


_count = _Count()


def make_room(*given: PyTree) -> None:
    """Drops all compiled programs of the process where they crowd it, outside compiled code.

    Args:
        given: what is about to be computed with; tracers among it say that this is inside compiled code.
    """
    if _count.unseen < LOOK_EVERY or any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given)):
        return
    _count.unseen = 0
    if crowded():
        jax.clear_caches()
        _count.kept = 0


def crowded() -> bool:
    """Whether compiled programs take a third of the memory maps that Linux allows a process."""
    taken = memory_maps()
    with contextlib.suppress(OSError):
        return taken > int(Path("/proc/sys/vm/max_map_count").read_text()) / 3
    return _count.kept > MOST_PROGRAMS


def memory_maps() -> int:
    """How many memory maps this process has; 0 where the platform does not tell."""
    with contextlib.suppress(OSError), open("/proc/self/maps") as lines:
        return sum(1 for _ in lines)
    return 0
