"""Which nodes of a graph are clamped, which are read, which settle, and how the graph looks from them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Int

from substrates.wiring.graphs import Edges, Graph, HashedByContent

MOST_CLASSES = 16
"""With more classes of unjoined nodes than this, nodes are `crowded`."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class CompiledRoles(HashedByContent):
    """The roles of the nodes of a large graph, part of the programs that are compiled for it; see `Roles`."""

    edges: Edges
    inputs: np.ndarray
    references: np.ndarray
    outputs: np.ndarray

    @functools.cached_property
    def order(self) -> np.ndarray:
        """The nodes that settle, the inputs and the references."""
        clamped = np.concatenate([self.inputs, self.references])
        return np.concatenate([np.setdiff1d(np.arange(self.edges.n, dtype=np.int32), clamped), clamped])

    @functools.cached_property
    def free(self) -> np.ndarray:
        return self.order[: self.edges.n - self.inputs.size - self.references.size]

    @functools.cached_property
    def place(self) -> np.ndarray:
        return np.argsort(self.order).astype(np.int32)

    @functools.cached_property
    def slots(self) -> np.ndarray:
        return self.place[self.outputs]

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
