"""Lattices as grids: couplings by direction and shifts of whole arrays, with no list of edges."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Shaped

from substrates.wiring.graphs import Joined, lattice_edges, with_leading_axes


@dataclasses.dataclass(frozen=True, eq=False)
class Grid(Joined):
    """The nodes of a lattice, joined to their nearest neighbours: of it, programs know only its sides.

    Nodes and edges are numbered as `lattice_edges` lists them; the lists themselves are made where something asks.

    Attributes:
        n: the number of nodes.
        sides: the number of nodes along each axis.
        periodic: whether all axes close on themselves; one of two nodes joins them once.
    """

    n: int
    sides: tuple[int, ...]
    periodic: bool

    @classmethod
    def of(cls, sides: tuple[int, ...], periodic: bool) -> Grid:
        """The grid of these sides; raises ValueError for a lattice that is no checkerboard."""
        if not cls.fits(sides, periodic):
            raise ValueError(f"shape: wanted even sides of a lattice that closes on itself, got {sides}")
        return cls(math.prod(sides), sides, periodic)

    @staticmethod
    def fits(sides: tuple[int, ...], periodic: bool) -> bool:
        """Whether the nodes are those of a checkerboard, each half joined to the other alone."""
        return not periodic or all(side % 2 == 0 or side == 1 for side in sides)

    @functools.cached_property
    def pairs(self) -> np.ndarray:
        return lattice_edges(self.sides, self.periodic).astype(np.int32)

    @property
    def count(self) -> int:
        return sum(math.prod(shape) for shape in bonds_along(self.sides, self.periodic))

    @property
    def degree(self) -> int:
        return 2 * len(self.sides)

    @functools.cached_property
    def colours(self) -> tuple[np.ndarray, ...]:
        """The halves of the checkerboard."""
        colour = np.indices(self.sides).sum(axis=0).ravel() % 2
        return tuple(np.flatnonzero(colour == half).astype(np.int32) for half in range(min(self.n, 2)))

    @functools.cached_property
    def parts(self) -> np.ndarray:
        return np.zeros(self.n, int)

    def by_axis(self, weight: Float[Array, "edges"]) -> list[Float[Array, "*sides"]]:
        """For each axis the coupling of every node to the next along it, of the shape of the lattice; 0 for none."""
        found, first = [], 0
        for axis, shape in enumerate(bonds_along(self.sides, self.periodic)):
            parts = []
            # the edges that close an axis are numbered after those inside
            for length in (self.sides[axis] - 1, shape[axis] - self.sides[axis] + 1):
                part = (*shape[:axis], length, *shape[axis + 1 :])
                end = first + math.prod(part)
                parts.append(weight[first:end].reshape(part))
                first = end
            missing = [(0, side - length) for side, length in zip(self.sides, shape, strict=True)]
            found.append(jnp.pad(jnp.concatenate(parts, axis=axis), missing))
        return found

    def product(self, weight: Array, s: Inexact[Any, "*batch nodes"]) -> Inexact[Array, "*batch nodes"]:
        whole = self.whole(s)
        total = jnp.zeros_like(whole)
        for axis, along in enumerate(self.by_axis(weight), -len(self.sides)):
            along = with_leading_axes(along, whole.ndim)
            total += along * jnp.roll(whole, -1, axis) + jnp.roll(along * whole, 1, axis)
        return total.reshape(jnp.shape(s))

    def alignment(self, weight: Array, s: Inexact[Any, "nodes"]) -> Inexact[Array, ""]:
        whole = self.whole(s)
        each = [w * whole * jnp.roll(whole, -1, axis) for axis, w in enumerate(self.by_axis(weight))]
        return jnp.sum(sum(each, jnp.zeros_like(whole)))

    def whole(self, values: Inexact[Any, "*batch nodes"]) -> Inexact[Any, "*batch *sides"]:
        """What nodes have, in the shape of the lattice."""
        return jnp.asarray(values).reshape(*jnp.shape(values)[:-1], *self.sides)


def bonds_along(sides: tuple[int, ...], periodic: bool) -> list[tuple[int, ...]]:
    """For each axis of a lattice the shape of one entry for each edge along it, at the first of its nodes."""
    lengths = [side if periodic and side > 2 else side - 1 for side in sides]
    return [(*sides[:axis], length, *sides[axis + 1 :]) for axis, length in enumerate(lengths)]


def edges_by_axis(
    values: Sequence[Shaped[np.ndarray, "*bonds"]], sides: tuple[int, ...]
) -> Shaped[np.ndarray, "edges"]:
    """What edges have in the order of `lattice_edges`, from one array for each axis, of the shapes of `bonds_along`."""
    parts = [part.ravel() for axis, along in enumerate(values) for part in np.split(along, [sides[axis] - 1], axis)]
    return np.concatenate(parts)
