"""The connectivity of a circuit as compiled code sees it: run-time numbers for small ones, constants for large ones."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact, Int, PyTree

from substrates.classical.resistor.elements import Shockley
from substrates.classical.resistor.layout import WIDTHS, Layout
from substrates.solvers.solver import System
from substrates.wiring import SparseMap, taken
from substrates.wiring.graphs import MOST_NODES_AT_RUN_TIME

LARGEST_AT_RUN_TIME = 2**13
"""Nodes times resistors, diodes and sources of current, up to which whole matrices are as quick as sparse ones."""


class DenseMap(eqx.Module):
    """A matrix of run-time numbers, where large circuits have a `SparseMap`."""

    matrix: Inexact[Array, "targets sources"]

    def __call__(self, vector: Inexact[Array, "sources"]) -> Inexact[Array, "targets"]:
        """A @ vector."""
        return jnp.matmul(self.dense(vector.dtype), vector, precision="highest")

    def transpose(self, vector: Inexact[Array, "targets"]) -> Inexact[Array, "sources"]:
        """A' @ vector."""
        return jnp.matmul(vector, self.dense(vector.dtype), precision="highest")

    @property
    def absolute(self) -> DenseMap:
        """The map of the magnitudes of the entries."""
        return DenseMap(jnp.abs(self.matrix))

    def dense(self, dtype: Any) -> Inexact[Array, "targets sources"]:
        """The matrix; of one that was made complex along with its circuit the real part, for real numbers."""
        real = jnp.iscomplexobj(self.matrix) and not jnp.issubdtype(dtype, jnp.complexfloating)
        return (self.matrix.real if real else self.matrix).astype(dtype)


def least(through: DenseMap | SparseMap, vector: Float[Array, "sources"]) -> Float[Array, "targets"]:
    """The smallest |A_ij| vector_j of every row i of a map; infinite in a row of zeros."""
    if isinstance(through, DenseMap):
        sizes = jnp.abs(through.matrix)
        return jnp.min(jnp.where(sizes > 0, sizes * vector[None], jnp.inf), axis=1)
    reached = np.abs(through.values).astype(vector.dtype) * taken(vector, through.columns)
    return jax.ops.segment_min(reached, through.rows, through.shape[0], indices_are_sorted=True)


class Maps(eqx.Module):
    """What compiled code computes with, of a small circuit; `Layout` says what each of it is, and has it of a large
    one.
    """

    voltages: DenseMap
    test: DenseMap
    drops: DenseMap
    leaving: DenseMap
    delivered: DenseMap
    ends: DenseMap
    meeting: DenseMap
    read: DenseMap
    read_test: DenseMap
    pin_projection: Float[Array, "outputs outputs"]
    diode: DenseMap
    diode_test: DenseMap
    own: DenseMap
    cells: Int[Array, "elements"]
    bounded: Int[Array, "diodes"]
    slopes: Float[Array, "2 diodes"]
    held: Int[Array, "held"]
    colour: Int[Array, "potentials"]

    @classmethod
    def of(cls, layout: Layout, dtype: Any) -> Maps:
        """Those of a layout."""

        def numbers(value: Any) -> Any:
            if isinstance(value, SparseMap):
                return DenseMap(jnp.asarray(value.to_scipy().toarray(), dtype))
            return jnp.asarray(value, dtype if np.issubdtype(value.dtype, np.floating) else None)

        return cls(**{field.name: numbers(getattr(layout, field.name)) for field in dataclasses.fields(cls)})


class Topology(eqx.Module):
    """The connectivity of a circuit, as compiled code sees it.

    What a small circuit is (up to `MOST_NODES_AT_RUN_TIME` nodes, and `LARGEST_AT_RUN_TIME`) is run-time numbers, so
    that another with as many elements of each kind compiles nothing. A large one is part of the programs that are
    compiled for it: its sparse factors are laid out for its graph.

    Attributes:
        n: the number of nodes without ground.
        counts: how many elements there are of each kind of `WIDTHS`.
        ideal_diodes, diodes_between_potentials, conservative: see `Layout`.
        nodes: those of all elements of a small circuit, kind after kind, integers.
        gains: those of the controlled sources of a small circuit.
        run_time: what compiled code computes with, of a small circuit.
        compiled: the layout of a large one.
    """

    n: int = eqx.field(static=True)
    counts: tuple[int, ...] = eqx.field(static=True)
    ideal_diodes: bool = eqx.field(static=True)
    diodes_between_potentials: bool = eqx.field(static=True)
    conservative: bool = eqx.field(static=True)
    nodes: Int[Any, "places"] | None
    gains: Float[Any, "2 controlled_sources"] | None
    run_time: Maps | None
    compiled: Layout | None = eqx.field(static=True)

    @classmethod
    def of(cls, layout: Layout, dtype: Any) -> Topology:
        """That of a layout, with numbers of a dtype."""
        kinds = [getattr(layout, kind) for kind in WIDTHS]
        counts = tuple(len(nodes) for nodes in kinds)
        small = layout.n <= MOST_NODES_AT_RUN_TIME and layout.n * sum(counts[:3]) <= LARGEST_AT_RUN_TIME
        return cls(
            layout.n,
            counts,
            layout.ideal_diodes,
            layout.diodes_between_potentials,
            layout.conservative,
            np.concatenate([nodes.ravel() for nodes in kinds]).astype(np.int32) if small else None,
            layout.gains.astype(dtype) if small else None,
            Maps.of(layout, dtype) if small else None,
            None if small else layout,
        )

    @property
    def maps(self) -> Any:
        """What compiled code computes with: `Maps`, or a `Layout` with the same names."""
        return self.run_time if self.compiled is None else self.compiled

    @property
    def layout(self) -> Layout:
        """Which elements join which nodes; of a small circuit outside compiled code only."""
        if self.compiled is not None:
            return self.compiled
        if isinstance(self.nodes, Tracer):
            raise TypeError(
                "which nodes the elements of a small circuit join are run-time numbers inside compiled code: "
                "read edges, inputs, outputs, diodes and sources outside"
            )
        return self.unpacked(self.nodes, self.gains)

    def unpacked(self, nodes: Any, gains: Any) -> Layout:
        """The layout that the numbers of a small circuit describe."""
        sizes = [count * width for count, width in zip(self.counts, WIDTHS.values(), strict=True)]
        parts = np.split(np.asarray(nodes, int), np.cumsum(sizes)[:-1])
        pairs = {
            kind: part.reshape(-1, width) if width > 1 else part
            for part, (kind, width) in zip(parts, WIDTHS.items(), strict=True)
        }
        return Layout(self.n, **pairs, gains=np.real(gains), ideal_diodes=self.ideal_diodes)

    def count(self, kind: str) -> int:
        """How many elements of a kind of `WIDTHS` there are."""
        return self.counts[tuple(WIDTHS).index(kind)]

    @property
    def size(self) -> int:
        """The number of independent potentials: sources form no loops, so that each of them takes one away."""
        sources = ("voltage_sources", "controlled_sources", "inputs", "rails")
        return self.n - sum(self.count(kind) for kind in sources)

    @property
    def bounded(self) -> bool:
        """Whether there are ideal diodes."""
        return self.ideal_diodes and self.count("diodes") > 0


class Flow(NamedTuple):
    """Voltages and currents in a circuit.

    Attributes:
        voltages: of the nodes.
        drops: of the resistors, the diodes and the current sources.
        diode_drops: of the diodes.
        diode_current: of the diodes; None where it is not known or there are none.
    """

    voltages: Inexact[Array, "n"]
    drops: Inexact[Array, "elements"]
    diode_drops: Inexact[Array, "diodes"]
    diode_current: Inexact[Array, "diodes"] | None


class Circuit(System, Protocol):
    """What solvers know of a circuit; `ResistorNetwork` says what each of it is."""

    @property
    def topology(self) -> Topology: ...
    @property
    def conductance(self) -> Array: ...
    @property
    def diode(self) -> Shockley | None: ...
    def voltages(self, state: PyTree, x: Array, /) -> Array: ...
    def diode_drops(self, state: PyTree, x: Array, /) -> Array: ...
    def flow(self, potentials: Array, x: Array, diode_current: Any = None, /) -> Flow: ...
    def content(self, flow: Flow, /) -> Array: ...
    def leaving(self, flow: Flow, /) -> Array: ...
    def imbalance(self, potentials: Array, x: Array, diode_current: Array | None = None, /) -> Array: ...
    def across_sources(self, flow: Flow, /) -> tuple[Array, Array]: ...
    def meeting_at(self, flow: Flow, ceiling: Any = None, /) -> Array: ...
    def conductance_scale(self) -> Array: ...
    def current_ceiling(self, x: Array, /) -> Array: ...
    def diode_scale(self, held: Array | None = None, /) -> Array: ...
    def held_by(self, nudge: Any, output: Array, /) -> Array: ...
    def output_scale(self) -> Array: ...


def potentials_of(state: Any) -> Any:
    """The independent potentials of a state, with or without diode currents."""
    return state[0] if isinstance(state, tuple) else state
