"""What was costly to make on the host, kept for those who ask again with the same numbers."""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")

IDLE = 4
"""What is kept goes after so many requests more than there are others, none of them for it: its memory serves the next
one, and touching new memory may take longer than computing."""


class Kept(Generic[T]):
    """The latest results of functions of large arrays; the one asked for longest ago goes first, the last one stays.

    Attributes:
        most: bytes of all that is kept, about. While another as large as the largest is made, there is room for it.
    """

    def __init__(self, most: int):
        self.most = most
        self._known: collections.OrderedDict[int, tuple[Hashable, Sequence[np.ndarray], T, int]]
        self._known = collections.OrderedDict()
        self._requests, self._lock = itertools.count(), threading.Lock()

    def get(self, key: Hashable, numbers: Sequence[np.ndarray], make: Callable[[], T], size: Callable[[T], int]) -> T:
        """What `make` made for these numbers, made at the first request; what is asked for, not when, decides it.

        Args:
            key, numbers: decide what is made.
            make: makes it.
            size: how many bytes it takes, about.
        """
        with self._lock:
            now = next(self._requests)
            while self._known and now - next(iter(self._known)) > IDLE + len(self._known):
                self._known.popitem(last=False)
            for asked, (known_key, known, made, _) in reversed(self._known.items()):
                if known_key == key and all(map(np.array_equal, known, numbers)):
                    self._known[now] = self._known.pop(asked)
                    return made
            self._let_go(max((size for *_, size in self._known.values()), default=0), 0)
        made = make()
        with self._lock:
            self._known[now] = key, tuple(np.array(array) for array in numbers), made, size(made)
            self._let_go(0, 1)
        return made

    def _let_go(self, needed: int, least: int) -> None:
        while len(self._known) > least and needed + sum(size for *_, size in self._known.values()) > self.most:
            self._known.popitem(last=False)
