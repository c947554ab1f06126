"""One-way connections between layers, each with weights of its own."""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Array, Inexact

from substrates.wiring import Convolution, Dense, Strength
from substrates.wiring.layers import feed, feed_back

Shapes = tuple[tuple[int, ...], ...]


class Connection(eqx.Module):
    """What one layer sends to another, and nothing back: coupling.forward(s), or coupling.backward(s) if `transposed`.

    A transposed one runs against its coupling, from the later group to the earlier: feedback whose weights have the
    shape of those of the way forward, and mean the same where they are equal.

    Attributes:
        coupling: a `Dense` or a `Convolution`.
        source, target: numbers of layers; 0 is the input.
        transposed: whether the target is the earlier group of the coupling.
    """

    coupling: Dense | Convolution
    source: int = eqx.field(static=True)
    target: int = eqx.field(static=True)
    transposed: bool = eqx.field(static=True, default=False)

    def felt(self, activities: Sequence[Inexact[Array, "..."]]) -> Inexact[Array, "..."]:
        """What the target feels, given the activities of all layers, the input's first; in the shape of the target,
        flat where a dense coupling leads forward.
        """
        source = activities[self.source]
        if self.transposed:
            return feed_back(self.coupling, source, activities[self.target])
        return feed(self.coupling, source)

    def meeting(
        self, strength: Strength, activities: Sequence[Inexact[Array, "..."]], shape: tuple[int, ...]
    ) -> Inexact[Array, "..."]:
        """A bound of the sizes of what meets at each node of the target, of a shape."""
        source = activities[self.source]
        return strength.backward(source, shape) if self.transposed else strength.forward(source)

    def check(self, name: str, shapes: Shapes) -> None:
        """Raises ValueError unless it joins two layers of these shapes, the target not the input."""
        last = len(shapes) - 1
        if not (0 <= self.source <= last and 1 <= self.target <= last):
            raise ValueError(
                f"{name}: wanted a source from 0 (the input) to {last} and a target from 1, for the input is clamped, "
                f"got {self.source} -> {self.target}"
            )
        before, after = (self.target, self.source) if self.transposed else (self.source, self.target)
        given = (int(np.prod(shapes[before])),) if isinstance(self.coupling, Dense) else shapes[before]
        try:
            found = self.coupling.after(given)
        except ValueError as error:
            raise ValueError(f"{name}, {self.source} -> {self.target}: {error}") from None
        if found != shapes[after] and (len(found) > 1 or found != (int(np.prod(shapes[after])),)):
            raise ValueError(
                f"{name}, {self.source} -> {self.target}: wanted a coupling to a group of shape {shapes[after]}, got "
                f"one to {found}"
                + ("; the weights of a transposed connection have the shape of the way forward" * self.transposed)
            )

    def returns(self, other: Connection) -> bool:
        """Whether the other leads back between the same two layers by weights of the same shape."""
        there_and_back = (self.source, self.target) == (other.target, other.source)
        alike = type(self.coupling) is type(other.coupling)
        same = alike and self.coupling.weight.shape == other.coupling.weight.shape
        return there_and_back and same and self.transposed is not other.transposed
