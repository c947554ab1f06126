"""Which nodes of a graph are clamped, which are read, which settle, and how the graph looks from them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

from substrates.wiring.graphs import Edges, Graph, HashedByContent, Joined, taken
from substrates.wiring.grids import Grid

MOST_CLASSES = 16
"""With more classes of unjoined nodes than this, nodes are `crowded`."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class CompiledRoles(HashedByContent):
    """The roles of the nodes of a large graph, part of the programs that are compiled for it; see `Roles`."""

    edges: Joined
    inputs: np.ndarray
    references: np.ndarray
    outputs: np.ndarray

    @functools.cached_property
    def clamped(self) -> np.ndarray:
        """The inputs and the references."""
        return np.concatenate([self.inputs, self.references])

    @property
    def size(self) -> int:
        return self.edges.n - self.clamped.size

    @functools.cached_property
    def free(self) -> np.ndarray:
        return np.setdiff1d(np.arange(self.edges.n, dtype=np.int32), self.clamped)

    @functools.cached_property
    def place(self) -> np.ndarray:
        return self._places(np.arange(self.edges.n, dtype=np.int32), np)

    @functools.cached_property
    def slots(self) -> np.ndarray:
        return self._places(self.outputs, np)

    def _places(self, nodes: Any, xp: Any) -> Any:
        """`place` of some nodes, by NumPy or, inside compiled programs, by JAX."""
        turn = np.argsort(self.clamped)
        ordered = xp.asarray(np.append(self.clamped[turn], self.edges.n), np.int32)
        held = xp.asarray(np.append(self.size + turn, 0), np.int32)
        below = xp.searchsorted(ordered, nodes).astype(np.int32)
        return xp.where(ordered[below] == nodes, held[below], nodes - below)

    def settled(self, values: Shaped[Any, "nodes"]) -> Shaped[Array, "free"]:
        if not self.clamped.size:
            return jnp.asarray(values)
        if not isinstance(self.edges, Grid):
            return taken(values, self.free)
        slot = jnp.arange(self.size, dtype=jnp.int32)
        before = np.sort(self.clamped) - np.arange(self.clamped.size, dtype=np.int32)
        return taken(values, slot + jnp.searchsorted(before, slot, side="right").astype(jnp.int32))

    def arranged(self, state: Shaped[Any, "free"], clamped: Shaped[Any, "clamped"]) -> Shaped[Array, "nodes"]:
        if not self.clamped.size:
            return jnp.asarray(state)
        grid = isinstance(self.edges, Grid)
        place = self._places(jnp.arange(self.edges.n, dtype=jnp.int32), jnp) if grid else self.place
        return taken(jnp.concatenate([state, clamped]), place)

    @functools.cached_property
    def inside(self) -> np.ndarray:
        """The edges between nodes that settle."""
        return np.flatnonzero((self.place[self.edges.pairs] < self.free.size).all(axis=1))

    @functools.cached_property
    def within(self) -> Edges:
        """They as a graph of their own."""
        return Edges(self.free.size, self.place[self.edges.pairs[self.inside]])

    @functools.cached_property
    def rows(self) -> np.ndarray:
        m, (i, j) = len(self.edges.pairs), self.place[self.edges.pairs].T
        table = np.full((self.free.size, self.edges.n), m, np.int32)
        for here, there in ((i, j), (j, i)):
            seen = here < self.free.size
            table[here[seen], there[seen]] = np.flatnonzero(seen)
        return table

    @functools.cached_property
    def classes(self) -> list[np.ndarray]:
        """Places in the state of nodes that are not joined to one another: those of the colours of the whole graph."""
        places = [self.place[colour] for colour in self.edges.colours]
        found = [np.sort(members[members < self.free.size]) for members in places]
        return [members for members in found if len(members)]

    @functools.cached_property
    def colour(self) -> np.ndarray:
        return np.concatenate([np.full(len(members), k, np.int32) for k, members in enumerate(self.classes)])[
            np.argsort(np.concatenate(self.classes))
        ]

    @property
    def colours(self) -> np.ndarray:
        return np.asarray(len(self.classes), np.int32)

    @functools.cached_property
    def roots(self) -> np.ndarray:
        return np.unique(self.edges.parts, return_index=True)[1].astype(np.int32)[self.edges.parts]

    @property
    def crowded(self) -> bool:
        return len(self.classes) > MOST_CLASSES


class Roles(eqx.Module):
    """The roles of the nodes of a small graph: run-time numbers, traced in compiled programs.

    Attributes:
        inputs, references, outputs: the nodes that an input clamps, that are held for good, and that are read.
        free: the nodes that settle, those that are not clamped, ascending: the order of the state.
        place: where each node stands among the free ones, the inputs and the references, in this order.
        slots: where each output stands in the state.
        rows: for each free node the edges to the nodes in that order, shape (free, n); the number of edges for none.
        colour: the class of each free node among free nodes that are not joined to one another.
        colours: how many classes there are.
        roots: of each node the first node of its connected part.
        crowded: whether the classes are more than `MOST_CLASSES`.
        size: how many nodes settle.
    """

    inputs: Int[Any, "inputs"]
    references: Int[Any, "references"]
    outputs: Int[Any, "outputs"]
    free: Int[Any, "free"]
    place: Int[Any, "n"]
    slots: Int[Any, "outputs"]
    rows: Int[Any, "free n"]
    colour: Int[Any, "free"]
    colours: Int[Any, ""]
    roots: Int[Any, "n"]
    crowded: bool = eqx.field(static=True)

    @staticmethod
    def of(graph: Graph, inputs: Any = (), references: Any = (), outputs: Any = ()) -> Roles | CompiledRoles:
        """The roles of the nodes of a graph: part of the program where it is large."""
        known = CompiledRoles(graph.known, *(np.asarray(nodes, np.int32) for nodes in (inputs, references, outputs)))
        if graph.compiled is not None:
            return known
        return Roles(**{field.name: getattr(known, field.name) for field in dataclasses.fields(Roles)})

    @property
    def size(self) -> int:
        return len(self.free)

    def settled(self, values: Shaped[Any, "nodes"]) -> Shaped[Array, "free"]:
        """What the nodes that settle have, of what all nodes have."""
        return taken(values, self.free)

    def arranged(self, state: Shaped[Any, "free"], clamped: Shaped[Any, "clamped"]) -> Shaped[Array, "nodes"]:
        """What all nodes have, from what those that settle have, and the inputs and references."""
        return taken(jnp.concatenate([state, clamped]), self.place)
