"""Elastic networks: nodes joined by springs that settle where all forces balance."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from substrates import arguments
from substrates.classical.elastic import build, lattices, pictures
from substrates.classical.elastic.equilibrium import ElasticEquilibrium
from substrates.classical.elastic.rigidity import Rigidity, analyse, refuse_large
from substrates.classical.elastic.springs import State, Stretch, Topology, Weighed, length
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Solver, Status
from substrates.substrate import Substrate, fixed

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ElasticNetwork(Substrate):
    """A network of linear springs between nodes in two or three dimensions, at mechanical equilibrium.

    The positions of the free nodes minimise the stored energy less the work of dead loads, in joules,

        E = sum_ij 1/2 k_ij (r_ij - l_ij)^2 - sum_i f_i . x_i,    r_ij = |x_i - x_j|,

    exactly, at any displacement: springs turn, stretch, go into compression and buckle; ropes (`tension_only`) only
    pull, and store nothing where r < l. A spring without a rest length, E = k r^2/2, pulls like a linear one however it
    turns, and may join nodes at one place. The inputs prescribe
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
        labels: of the nodes, in their order, where the network was built from labels; None where they are numbers.

    Source: Stern, Hexner, Rocks and Liu 2021, arXiv 2011.03861, for elastic networks that learn; Scellier and Bengio
    2017, arXiv 1602.05179, for the nudge; Lubensky et al. 2015, arXiv 1503.01324, for rigidity and self-stress.
    """

    stiffness: Float[Array, "springs"]
    rest_length: Float[Array, "springs"]
    topology: Topology = eqx.field(static=True)
    load: Float[Array, "n dim"] | None = fixed(default=None)
    stiffness_floor: float = eqx.field(static=True, default=0.0)
    rest_length_floor: float = eqx.field(static=True, default=0.0)
    labels: tuple[Hashable, ...] | None = eqx.field(static=True, default=None)

    solver: ClassVar[Solver] = ElasticEquilibrium()
    training_precision: ClassVar[int] = 64

    @property
    def holomorphic(self) -> bool:  # type: ignore[override]
        """Whether no rope can go slack."""
        return self.topology.ropes is None

    def energy(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, ""]:
        positions = self.positions(state, x)
        return self._energy(self._stretch(positions), positions)

    def force(self, state: State, x: Float[Array, "inputs"]) -> State:
        """The tensions that meet at each free coordinate, and the load on it, newtons."""
        return self.weighed(self.positions(state, x)).force.reshape(self.topology.state_shape)

    def force_scale(self, state: State, x: Float[Array, "inputs"]) -> State:
        """The sum, over the springs at the node of each coordinate, of stiffness times length (or extent / 8).

        It is what the springs would pull with if they were stretched to twice their length. The extent stands for the
        rounding of positions, eps/2 times the extent at both ends of a spring: half of the 16 eps that rounding may
        leave of the forces that meet.
        """
        return self.weighed(self.positions(state, x)).scale.reshape(self.topology.state_shape)

    def weighed(self, positions: Inexact[Array, "n dim"]) -> Weighed:
        """Energy, forces and what they are small against, in one go."""
        topology, springs = self.topology, self._stretch(positions)
        extent = jnp.max(jnp.abs(positions), initial=0.0)
        longest = jnp.maximum(jnp.maximum(jnp.abs(springs.length), jnp.abs(self.rest_length)), extent / 8)
        sizes = jnp.abs(self.stiffness) * longest
        force, at_nodes = topology.meet(springs.pulls, sizes[:, None].astype(springs.pulls.dtype))
        assert at_nodes is not None
        at_nodes = at_nodes[:, 0].real
        if self.load is not None:
            force += self.load.reshape(-1)[topology.free].astype(force.dtype)
            at_nodes += jnp.max(jnp.abs(self.load), axis=1)[topology.free_nodes].astype(at_nodes.dtype)
        return Weighed(springs, self._energy(springs, positions), force, topology.at_coordinates(at_nodes), extent)

    def positions(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "n dim"]:
        """Where every node stands, metres."""
        flat = jnp.asarray(state).reshape(-1)
        return self.topology.placed(flat, self.prescribed(x).astype(flat.dtype))

    def by_label(self, values: Any) -> dict[Hashable, Any]:
        """{label: entry} of one entry per node, such as `positions(state, x)`; {number: entry} without labels.

        Raises:
            ValueError: for another number of entries.
        """
        return arguments.by_label(values, self.n, self.labels)

    def prescribed(self, x: Float[Array, "inputs"]) -> Inexact[Array, "prescribed"]:
        """Where the prescribed coordinates stand, metres."""
        reference = self.reference.reshape(-1)[self.topology.prescribed].astype(self.stiffness.dtype)
        return self._displaced(x) + reference

    def initial_state(self, x: Float[Array, "inputs"]) -> State:
        """The reference, carried along affinely with the prescribed displacements."""
        topology, dtype = self.topology, self.stiffness.dtype
        fit, carry = (jnp.asarray(matrix, dtype) for matrix in topology.affine)
        moved = carry @ (fit @ self._displaced(x))
        return (jnp.asarray(topology.reference.reshape(-1)[topology.free], dtype) + moved).reshape(topology.state_shape)

    def read(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "outputs"]:
        return self.topology.shown(self.positions(state, x))

    @property
    def input_size(self) -> int:
        return self.topology.inputs

    def measure(self, states: State, xs: Float[Array, "batch inputs"], nudges: Nudge | Pin | None = None) -> Self:
        """dE/dk = (r - l)^2/2 and dE/dl = -k (r - l) of every spring that is not slack, averaged over the batch."""
        extensions = jax.vmap(lambda state, x: self._taut(self.lengths(state, x)))(states, xs)
        return self._observable(jnp.mean(extensions**2, axis=0) / 2, -self.stiffness * jnp.mean(extensions, axis=0))

    def contrast(
        self,
        plus: State,
        minus: State,
        xs: Float[Array, "batch inputs"],
        nudges_plus: Nudge | Pin | None = None,
        nudges_minus: Nudge | Pin | None = None,
    ) -> Self:
        """measure(plus) - measure(minus) exactly and without cancellation.

        With e = r - l: e+ - e- = (d+ - d-).(d+ + d-)/(r+ + r-), and (e+^2 - e-^2)/2 = (e+ - e-)(e+ + e-)/2.
        """

        def one(plus, minus, x):
            d_plus, d_minus = (self.topology.vectors(self.positions(state, x)) for state in (plus, minus))
            total = length(d_plus) + length(d_minus)
            none = total == 0
            work = jnp.sum((d_plus - d_minus) * (d_plus + d_minus), axis=-1)
            difference = jnp.where(none, 0.0, work / jnp.where(none, 1.0, total))
            e_plus, e_minus = (self._taut(length(d)) for d in (d_plus, d_minus))
            if self.topology.ropes is not None:
                # where either is slack the extensions are far apart, or both 0
                slack = self.topology.ropes & ((e_plus == 0) | (e_minus == 0))
                difference = jnp.where(slack, e_plus - e_minus, difference)
            return difference * ((e_plus + e_minus) / 2), -self.stiffness * difference

        by_stiffness, by_rest_length = jax.vmap(one)(plus, minus, xs)
        return self._observable(jnp.mean(by_stiffness, axis=0), jnp.mean(by_rest_length, axis=0))

    def constrained(self) -> Self:
        """The network with every stiffness and rest length at or above its floor."""
        return eqx.tree_at(
            lambda net: (net.stiffness, net.rest_length),
            self,
            (jnp.maximum(self.stiffness, self.stiffness_floor), jnp.maximum(self.rest_length, self.rest_length_floor)),
        )

    # what an instrument shows

    def lengths(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "springs"]:
        """r, metres."""
        return length(self.topology.vectors(self.positions(state, x)))

    def extensions(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "springs"]:
        """r - l of each spring, metres; negative under compression."""
        return self.lengths(state, x) - self.rest_length

    def tensions(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "springs"]:
        """k (r - l) of each spring, newtons; negative under compression, 0 for a slack rope."""
        return self.stiffness * self._taut(self.lengths(state, x))

    def stored_energy(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "springs"]:
        """k (r - l)^2/2 of each spring, joules; 0 for a slack rope."""
        return 0.5 * self.stiffness * self._taut(self.lengths(state, x)) ** 2

    def stress_tensor(
        self, state: State, x: Float[Array, "inputs"], volume: float | None = None
    ) -> Inexact[Array, "dim dim"]:
        """The mean Cauchy stress, sum_ij T_ij r_ij n_ij n_ij' / volume, newtons per metre (2D) or pascals (3D).

        Times the volume it is the derivative of the stored energy in a uniform strain of all nodes.

        Args:
            state, x: an equilibrium, or any state.
            volume: area in 2D; by default that of the convex hull of the reference.
        """
        positions = self.positions(state, x)
        pulls = self._stretch(positions).pulls
        return pulls.T @ self.topology.vectors(positions) / (self.topology.volume if volume is None else volume)

    def reactions(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "n dim"]:
        """The force that holds every clamped or driven coordinate in place, newtons; 0 on free ones."""
        topology, pulls = self.topology, self._stretch(self.positions(state, x)).pulls
        forces = jnp.zeros((self.n, self.dim), pulls.dtype)
        forces = forces.at[self.edges[:, 0]].add(pulls).at[self.edges[:, 1]].add(-pulls).reshape(-1)
        if self.load is not None:
            forces += self.load.reshape(-1).astype(forces.dtype)
        held = jnp.zeros_like(forces).at[topology.prescribed].set(-forces[topology.prescribed])
        return held.reshape(self.n, self.dim)

    def hessian(self, state: State, x: Float[Array, "inputs"]) -> Float[Array, "free free"]:
        """d2E/dstate2, the stiffness against motions of the free coordinates, newtons per metre."""
        return self.topology.hessian(self._stretch(self.positions(state, x)).blocks)

    def rigidity(self, x: Float[Array, "inputs"] | None = None, state: State | None = None) -> Rigidity:
        """Zero modes, states of self-stress and the Maxwell count, to first order and with pre-stress; see `Rigidity`.

        Args:
            x: an input; None means no displacement.
            state: where; None for the equilibrium at x.

        Raises:
            ValueError: for more than `LARGEST` free coordinates, and where there is no equilibrium at x.
        """
        refuse_large(self.topology.free.size)
        dtype = self.stiffness.dtype
        x = jnp.zeros(self.topology.inputs, dtype) if x is None else jnp.asarray(x, dtype)
        if state is None:
            found = self.relax(x)
            if bool((found.status == Status.out_of_steps) | (found.status == Status.not_finite)):
                raise ValueError(f"x: wanted an input with an equilibrium, got {found}; give a state to look at that")
            state = jnp.asarray(found.state)
        positions = self.positions(state, x)
        acting = self._stretch(positions).stiffness
        return analyse(self.topology, acting, positions, self.hessian(state, x), self.rest_length)

    @property
    def in_space(self) -> bool:
        return self.reference.shape[1] == 3

    def draw(
        self,
        state: State | None = None,
        x: Float[Array, "inputs"] | None = None,
        ax: Axes | None = None,
        *,
        colour: str = "strain",
        reference: bool = True,
        values: ArrayLike | None = None,
        label: str = "",
    ) -> Axes:
        """Draws the springs where they stand, as wide as they are stiff, and behind them the network at rest.

        Inputs (driven nodes) are squares, clamped nodes diamonds, outputs circles; rollers count as what moves them.

        Args:
            state: an equilibrium state; None with an x settles the network, None without one draws it at its reference.
            x: the input, shape (inputs,), metres.
            ax: where to draw (with a 3D projection for a network in 3D); None opens a new figure.
            colour: "strain", "tension", "extension" or "energy"; at the reference, too, where rest lengths may differ
                from distances.
            reference: whether to draw the network at its reference, in light grey.
            values: colour the springs by these numbers instead, shape (m,), such as a contrast or a change of
                stiffness.
            label: what they are, at the colour bar.

        Raises:
            ValueError: for a colour that is not known, values of another shape, and a state without its input.
        """
        places = self.reference
        if x is not None:
            x = jnp.asarray(x, self.stiffness.dtype)
            places = np.asarray(self.positions(self.relax(x).state if state is None else state, x), float)
        return pictures.network(
            places,
            self.edges,
            np.asarray(self.stiffness, float),
            np.asarray(self.rest_length, float),
            self.topology.roles,
            ax,
            behind=self.reference if reference and x is not None else None,
            colour=colour,
            values=values,
            label=label,
        )

    # the structure

    @property
    def n(self) -> int:
        """The number of nodes."""
        return self.topology.n

    @property
    def dim(self) -> int:
        """The number of dimensions of space."""
        return self.topology.dim

    @property
    def edges(self) -> np.ndarray:
        """The two nodes of each spring, shape (m, 2)."""
        return self.topology.edges

    @property
    def reference(self) -> np.ndarray:
        """Where the nodes stand for x = 0 before anything relaxes, shape (n, dim), metres."""
        return self.topology.reference

    @property
    def free_nodes(self) -> np.ndarray:
        """The nodes with a free coordinate, ascending."""
        return self.topology.free_nodes

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
        tension_only: Any = False,
        floppy: bool = False,
    ) -> Self:
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
            rest_length: of each spring, metres; by default the distance of its nodes, so that nothing is stressed. With
                0 a spring may join nodes at one place.
            reading: "displacement" (from `positions`), "position" or "distance", all in metres.
            loads: {node: force}, dead loads in newtons.
            stiffness_floor, rest_length_floor: the least that training may reach; by default a thousandth of the
                smallest.
            tension_only: whether a spring is a rope, which only pulls: True, False, or one of them for each.
            floppy: accept a network whose springs do not hold it rigid to first order, because pre-stress will, or
                because its zero modes are wanted; relaxations report the zero modes that are left.

        Raises:
            ValueError: for what makes no network with one equilibrium; the message says what to change.
        """
        topology = build.connected(edges, n, positions, inputs, outputs, clamped, reading)
        floors = stiffness_floor, rest_length_floor
        return cls(**build.fields(topology, stiffness, rest_length, loads, *floors, tension_only, floppy))

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
    ) -> Self:
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
        words = build.by_labels(graph, inputs, outputs, clamped, positions, stiffness, **options)
        with arguments.explained(tuple(graph.nodes)):
            net = cls.from_edges(**words)
        return dataclasses.replace(net, labels=tuple(graph.nodes))

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
    ) -> Self:
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
        points, edges, sides = lattices.lattice(kind, shape, spacing, disorder, key)
        words = lattices.by_sides(sides, inputs=inputs, clamped=clamped)
        return cls.from_edges(edges, positions=points, outputs=outputs, **words, **options)

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
    ) -> Self:
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
        points, edges, sides = lattices.packing(n, dim, coordination, key)
        options.setdefault("stiffness", 1 / np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1))
        words = lattices.by_sides(sides, inputs=inputs, clamped=clamped)
        return cls.from_edges(edges, positions=points, outputs=outputs, **words, **options)

    @classmethod
    def layered(
        cls,
        sizes: Sequence[int],
        *,
        key: PRNGKeyArray,
        input_gain: float = 1.0,
        output_gain: float = 1.0,
        gap: float = 1.0,
        height: float = 1.0,
        ground: float = 0.1,
        dtype: DTypeLike | None = None,
    ) -> Self:
        """Columns of nodes in the plane, every node joined by springs to all nodes of the columns beside it.

        Two driven nodes stand for each input, one on either side of the first column: x pushes the one towards it and
        pulls the other away from it, so that a difference of two stiffnesses gives a weight of either sign. Free nodes
        are also joined to a clamped one above and one below. The outputs are the horizontal displacements of the last
        column.

        Args:
            sizes: the numbers of inputs, of nodes in each hidden column, and of outputs.
            key: draws the heights of the nodes and the stiffnesses.
            input_gain: displacement per unit of an input, metres.
            output_gain: what the displacements of the last column are multiplied by.
            gap: between columns, metres.
            height: of the columns, metres.
            ground: stiffness of the springs to clamped nodes, as a part of what holds a node in all.
            dtype: of the parameters; by default JAX's.
        """
        return cls.from_edges(**lattices.layers(sizes, key, input_gain, output_gain, gap, height, ground, dtype))

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> Self:
        """A layered elastic network fit for a data set; `sizes` are the numbers of free nodes in the hidden columns."""
        columns = (n_inputs, *((24,) if sizes is None else sizes), n_outputs)
        return cls.layered(columns, key=key, input_gain=0.25, output_gain=60.0, ground=0.3)

    def training_defaults(self) -> dict[str, Any]:
        return {
            "beta": 3e-4,
            "cost": "cross-entropy",
            "epochs": 15,
            "batch_size": 16,
            "optimiser": "adam",
            "learning_rate": {"stiffness": 0.004, "rest_length": 0.004},
            "decay": 0.9,
            "bench": {"epsilon": 0.3, "beta": 3e-3, "variant": "centered", "epochs": 8, "cost": "cross-entropy"},
        }

    # how the measured parts are computed

    def _displaced(self, x: Float[Array, "inputs"]) -> Inexact[Array, "prescribed"]:
        x = jnp.asarray(x)
        drive = self.topology.drive
        dtype = jnp.result_type(self.stiffness) if not jnp.iscomplexobj(x) else x.dtype
        return drive(x.astype(dtype))

    def _stretch(self, positions: Inexact[Array, "n dim"]) -> Stretch:
        return Stretch.of(self.stiffness, self.rest_length, self.topology.vectors(positions), self.topology.ropes)

    def _taut(self, lengths: Inexact[Array, "springs"]) -> Inexact[Array, "springs"]:
        """r - l of each spring, 0 for a slack rope."""
        extensions, ropes = lengths - self.rest_length, self.topology.ropes
        return extensions if ropes is None else jnp.where(ropes & (extensions < 0), 0, extensions)

    def _energy(self, springs: Stretch, positions: Inexact[Array, "n dim"]) -> Inexact[Array, ""]:
        stored = 0.5 * jnp.sum(springs.tension * (springs.length - self.rest_length))
        return stored if self.load is None else stored - jnp.sum(self.load * positions)

    def _observable(self, by_stiffness: Array, by_rest_length: Array) -> Self:
        empty = jax.tree.map(lambda _: None, self)
        where = lambda net: (net.stiffness, net.rest_length)
        return eqx.tree_at(where, empty, (by_stiffness, by_rest_length), is_leaf=lambda leaf: leaf is None)
