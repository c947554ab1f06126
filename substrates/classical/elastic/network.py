"""Elastic networks: nodes joined by springs that settle where all forces balance."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from substrates.classical.elastic.equilibrium import ElasticEquilibrium
from substrates.classical.elastic.springs import Springs, State
from substrates.classical.elastic.topology import Topology
from substrates.substrate import fixed

if TYPE_CHECKING:
    from substrates.classical.elastic.rigidity import Rigidity


class ElasticNetwork(Springs):
    """A network of linear springs between nodes in two or three dimensions, at mechanical equilibrium.

    The positions of the free nodes minimise the stored energy less the work of dead loads, in joules,

        E = sum_ij 1/2 k_ij (r_ij - l_ij)^2 - sum_i f_i . x_i,    r_ij = |x_i - x_j|,

    exactly, at any displacement: springs turn, stretch, go slack into compression and buckle. The inputs prescribe
    displacements of chosen nodes or coordinates; other nodes may be clamped. The outputs are displacements, positions,
    or distances between nodes. Stiffnesses and rest lengths are trainable. Build one by `from_edges`, `from_networkx`,
    `lattice`, `packing`, `layered` or `for_task`.

    The state holds the positions of the free nodes, shape (free nodes, dim), metres; where single coordinates of a node
    are prescribed (rollers), the free coordinates, shape (free coordinates,).

    An equilibrium with a negative eigenvalue of the Hessian is left for a lower one; one with a zero mode, a direction
    that costs no energy to second order, is reported as `Status.zero_mode`, which no strict rule learns from.

    Attributes:
        stiffness: k of each spring, shape (m,), newtons per metre.
        rest_length: l of each spring, shape (m,), metres.
        load: dead loads f on the nodes, shape (n, dim), newtons; None for none.
        topology: which spring joins which nodes, and what is prescribed and read.
        stiffness_floor, rest_length_floor: the least that `constrained` allows.

    Source: Stern, Hexner, Rocks and Liu 2021, arXiv 2011.03861, for elastic networks that learn; Scellier and Bengio
    2017, arXiv 1602.05179, for the nudge; Lubensky et al. 2015, arXiv 1503.01324, for rigidity and self-stress.
    """

    stiffness: Float[Array, "springs"]
    rest_length: Float[Array, "springs"]
    topology: Topology = eqx.field(static=True)
    load: Float[Array, "n dim"] | None = fixed(default=None)
    stiffness_floor: float = eqx.field(static=True, default=0.0)
    rest_length_floor: float = eqx.field(static=True, default=0.0)

    solver: ClassVar[Any] = ElasticEquilibrium()
    training_precision: ClassVar[int] = 64

    # ways to build one

    @classmethod
    def from_edges(
        cls,
        edges: Any,
        n: int | None = None,
        *,
        positions: Any,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        clamped: Sequence[Any] = (),
        stiffness: Any = 1.0,
        rest_length: Any = None,
        reading: str = "displacement",
        loads: Mapping[int, Any] | None = None,
        stiffness_floor: float | None = None,
        rest_length_floor: float | None = None,
        floppy: bool = False,
    ) -> ElasticNetwork:
        """A network on any graph.

        Args:
            edges: springs between two nodes each, integers of shape (m, 2).
            n: the number of nodes; by default as many as positions.
            positions: where the nodes stand for x = 0 before anything relaxes, shape (n, 2) or (n, 3), metres.
            inputs: what each number of x displaces, in metres: a node (one input per axis), a pair (node, axis), or a
                dict from nodes to vectors and from (node, axis) to numbers: one input that moves them all, by x times
                the vector. Whatever is driven is no longer free.
            outputs: what is read: a node (one output per axis), a pair (node, axis), a dict from (node, axis) to
                weights, which are summed; for `reading="distance"` pairs of nodes.
            clamped: nodes, or pairs (node, axis), that stay where they are.
            stiffness: of each spring, newtons per metre, shape (m,) or one number; trainable.
            rest_length: of each spring, metres; by default the distance of its nodes, so that nothing is stressed.
            reading: "displacement" (from `positions`), "position" or "distance", all in metres.
            loads: {node: force}, dead loads in newtons.
            stiffness_floor, rest_length_floor: the least that training may reach; by default a thousandth of the
                smallest.
            floppy: accept a network whose springs do not hold it rigid to first order, because pre-stress will, or
                because its zero modes are wanted; relaxations report the zero modes that are left.

        Raises:
            ValueError: for what makes no network with one equilibrium; the message says what to change.
        """
        from substrates.classical.elastic.build import build_network

        return build_network(
            edges,
            n,
            positions=positions,
            inputs=inputs,
            outputs=outputs,
            clamped=clamped,
            stiffness=stiffness,
            rest_length=rest_length,
            reading=reading,
            loads=loads,
            stiffness_floor=stiffness_floor,
            rest_length_floor=rest_length_floor,
            floppy=floppy,
        )

    @classmethod
    def from_networkx(
        cls,
        graph: Any,
        *,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        clamped: Sequence[Hashable] = (),
        positions: Any = "position",
        stiffness: Any = "stiffness",
        **options: Any,
    ) -> ElasticNetwork:
        """The network with a spring on every edge of a NetworkX graph; nodes are numbered in the graph's order.

        Args:
            graph: undirected; a multigraph's parallel edges are parallel springs.
            inputs, outputs, clamped: as in `from_edges`, by labels of nodes.
            positions: the node attribute that holds the position, {label: position}, or an array in the order of
                `graph.nodes`.
            stiffness: the edge attribute that holds the stiffness, or a number or array in the order of `graph.edges`.
            options: the others of `from_edges`, `loads` by labels of nodes, `rest_length` like `stiffness`.

        Raises:
            ValueError: for a label that is no node, a pair that is a label and a label with an axis, a node or an edge
                without its attribute, and whatever `from_edges` refuses.
        """
        from substrates.classical.elastic.build import network_from_networkx

        return network_from_networkx(
            graph,
            inputs=inputs,
            outputs=outputs,
            clamped=clamped,
            positions=positions,
            stiffness=stiffness,
            **options,
        )

    @classmethod
    def lattice(
        cls,
        kind: str,
        shape: Sequence[int],
        *,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        clamped: Sequence[Any] = (),
        spacing: float = 1.0,
        disorder: float = 0.0,
        key: PRNGKeyArray | None = None,
        **options: Any,
    ) -> ElasticNetwork:
        """A regular lattice of springs between nearest neighbours, or one whose nodes are shifted at random.

        Args:
            kind: "triangular", "square", "braced square", "honeycomb" or "kagome" in 2D; "cubic", "braced cubic",
                "bcc" or "fcc" in 3D.
            shape: how many unit cells along each axis; `lattice_points` tells where the nodes stand.
            inputs, outputs, clamped: as in `from_edges`; the names "left", "right", "bottom", "top", "front", "back"
                stand for the nodes of a side, in a dict for each of them.
            spacing: between nearest neighbours, metres.
            disorder: the largest shift of a node along each axis, in spacings; rest lengths follow.
            key: draws the shifts.
            options: the others of `from_edges`.
        """
        from substrates.classical.elastic.lattices import lattice_network

        return lattice_network(
            kind,
            shape,
            inputs=inputs,
            outputs=outputs,
            clamped=clamped,
            spacing=spacing,
            disorder=disorder,
            key=key,
            **options,
        )

    @classmethod
    def packing(
        cls,
        n: int,
        *,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        clamped: Sequence[Any] = (),
        dim: int = 2,
        coordination: float | None = None,
        key: PRNGKeyArray,
        **options: Any,
    ) -> ElasticNetwork:
        """A disordered network: the Delaunay triangulation of evenly spread random points in the unit square or cube.

        Args:
            n: the number of nodes.
            inputs, outputs, clamped: as in `lattice`.
            dim: 2 or 3.
            coordination: the mean number of springs at a node; springs are taken out at random to reach it, never so
                that a node keeps fewer than dim + 1. None keeps all.
            key: draws the points and the springs that go.
            options: the others of `from_edges`; stiffnesses are 1 N/m divided by the length by default.
        """
        from substrates.classical.elastic.lattices import packing_network

        return packing_network(
            n, inputs=inputs, outputs=outputs, clamped=clamped, dim=dim, coordination=coordination, key=key, **options
        )

    @classmethod
    def layered(cls, sizes: Sequence[int], *, key: PRNGKeyArray, **options: Any) -> ElasticNetwork:
        """Columns of nodes, each joined by springs to all nodes of the next; see `layered_network` for the options."""
        from substrates.classical.elastic.tasks import layered_network

        return layered_network(sizes, key=key, **options)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> ElasticNetwork:
        """A layered elastic network fit for a data set; `sizes` are the numbers of free nodes in the hidden columns."""
        from substrates.classical.elastic.tasks import task_network

        return task_network(n_inputs, n_outputs, sizes, key)

    def training_defaults(self) -> dict[str, Any]:
        from substrates.classical.elastic.tasks import TRAINING_DEFAULTS

        return dict(TRAINING_DEFAULTS)

    def constrained(self) -> Self:
        """The network with every stiffness and rest length at or above its floor."""
        return eqx.tree_at(
            lambda net: (net.stiffness, net.rest_length),
            self,
            (
                jnp.maximum(self.stiffness, self.stiffness_floor),
                jnp.maximum(self.rest_length, self.rest_length_floor),
            ),
        )

    def rigidity(self, x: Float[Array, "inputs"] | None = None, state: State | None = None) -> Rigidity:
        """Zero modes, states of self-stress and the Maxwell count, to first order and with pre-stress; see `Rigidity`.

        Args:
            x: an input; None means no displacement.
            state: where; None for the equilibrium at x.
        """
        from substrates.classical.elastic.rigidity import analyse

        return analyse(self, x, state)

    def draw(self, state: State | None = None, x: Any = None, ax: Any = None, **options: Any) -> Any:
        """Draws the network at an equilibrium; see `substrates.classical.elastic.pictures.network`."""
        from substrates.classical.elastic.pictures import network

        return network(self, state, x, ax, **options)
