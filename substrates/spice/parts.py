"""Which things are joined, while more joints come in."""

from __future__ import annotations

from collections.abc import Hashable


class Parts:
    """Disjoint sets of things; each stands alone until it is joined to another."""

    def __init__(self) -> None:
        self._above: dict[Hashable, Hashable] = {}

    def of(self, thing: Hashable) -> Hashable:
        """A representative of the part that holds a thing."""
        top = thing
        while (above := self._above.get(top, top)) != top:
            top = above
        while (above := self._above.get(thing, thing)) != top:
            self._above[thing], thing = top, above
        return top

    def join(self, a: Hashable, b: Hashable) -> bool:
        """Joins the parts of two things; False where they are one already."""
        first, second = self.of(a), self.of(b)
        self._above[first] = second
        return first != second
