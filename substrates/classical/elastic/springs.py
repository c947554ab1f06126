"""The mechanics of springs between nodes: energies, forces, measurements."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from substrates import arguments
from substrates.classical.elastic.mechanics import direction, extension_difference, length
from substrates.classical.elastic.topology import Topology, hessian_pattern
from substrates.nudge import Nudge, Pin
from substrates.substrate import Substrate

State = Any
"""The positions of the free nodes, shape (free nodes, dim), or the free coordinates, metres."""


class Springs(Substrate):
    """Linear springs between nodes, some of them held or driven; what they store, how they pull, what is measured."""

    stiffness: eqx.AbstractVar[Float[Array, "springs"]]
    rest_length: eqx.AbstractVar[Float[Array, "springs"]]
    topology: eqx.AbstractVar[Topology]
    load: eqx.AbstractVar[Float[Array, "n dim"] | None]

    contrast_points: ClassVar[int] = 2

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

    # the contract

    @property
    def input_size(self) -> int:
        return self.topology.inputs

    def initial_state(self, x: Float[Array, "inputs"]) -> State:
        """The reference, carried along affinely with the prescribed displacements."""
        topology, dtype = self.topology, self.stiffness.dtype
        arguments.refuse_complex_input(x, dtype)
        fit, carry = (jnp.asarray(matrix, dtype) for matrix in topology.affine)
        moved = carry @ (fit @ self._displaced(x))
        return (jnp.asarray(topology.reference.reshape(-1)[topology.free], dtype) + moved).reshape(topology.state_shape)

    def read(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "outputs"]:
        positions = self.positions(state, x)
        topology = self.topology
        if topology.read_map is None:
            return length(positions[topology.pairs[:, 1]] - positions[topology.pairs[:, 0]])
        if topology.reading == "displacement":
            positions = positions - topology.reference.astype(positions.real.dtype)
        return topology.read_map(positions.reshape(-1))

    def energy(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, ""]:
        positions = self.positions(state, x)
        stored = 0.5 * jnp.sum(self.stiffness * (length(self.vectors(positions)) - self.rest_length) ** 2)
        return stored if self.load is None else stored - jnp.sum(self.load * positions)

    def force(self, state: State, x: Float[Array, "inputs"], nudge: Nudge | Pin | None = None) -> State:
        """The tensions that meet at each free coordinate, and the load on it, newtons."""
        if nudge is not None:
            return self.total_force(state, x, nudge)
        forces = self.topology.collect_at_free(self.pulls(self.positions(state, x)))
        if self.load is not None:
            forces += self.load.reshape(-1)[self.topology.free].astype(forces.dtype)
        return forces.reshape(self.topology.state_shape)

    def force_scale(self, state: State, x: Float[Array, "inputs"]) -> State:
        """The sum, over the springs at the node of each coordinate, of stiffness times length (or extent / 32).

        It is what the springs would pull with if they were stretched to twice their length; the extent stands for the
        rounding of positions.
        """
        positions, topology = jnp.abs(self.positions(state, x)), self.topology
        lengths = jnp.maximum(jnp.abs(length(self.vectors(self.positions(state, x)))), self.rest_length)
        extent = jnp.max(positions, initial=0.0)
        at_springs = self.stiffness * jnp.maximum(lengths, extent / 32)
        at_nodes = topology.sum_at_nodes(at_springs)
        if self.load is not None:
            at_nodes += jnp.max(jnp.abs(self.load), axis=1).astype(at_nodes.dtype)
        return at_nodes[topology.free // topology.dim].reshape(topology.state_shape)

    def measure(self, states: State, xs: Float[Array, "batch inputs"], nudges: Nudge | Pin | None = None) -> Self:
        """dE/dk = (r - l)^2/2 and dE/dl = -k (r - l) of every spring, averaged over the batch."""
        extensions = jax.vmap(self.extensions)(states, xs)
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
            ends = [self.vectors(self.positions(state, x)) for state in (plus, minus)]
            difference, total = extension_difference(*ends)
            return difference * (total / 2 - self.rest_length), -self.stiffness * difference

        by_stiffness, by_rest_length = jax.vmap(one)(plus, minus, xs)
        return self._observable(jnp.mean(by_stiffness, axis=0), jnp.mean(by_rest_length, axis=0))

    # what an instrument shows

    def positions(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "n dim"]:
        """Where every node stands, metres."""
        topology = self.topology
        flat = jnp.asarray(state).reshape(-1)
        held = jnp.asarray(topology.reference.reshape(-1)[topology.prescribed], self.stiffness.dtype)
        prescribed = (held + self._displaced(x)).astype(flat.dtype)
        return jnp.concatenate([flat, prescribed])[topology.gather].reshape(topology.n, topology.dim)

    def vectors(self, positions: Inexact[Array, "n dim"]) -> Inexact[Array, "springs dim"]:
        """The vector of each spring from its first node to its second, metres."""
        return positions[self.edges[:, 1]] - positions[self.edges[:, 0]]

    def lengths(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "springs"]:
        """r, metres."""
        return length(self.vectors(self.positions(state, x)))

    def extensions(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "springs"]:
        """r - l of each spring, metres; negative under compression."""
        return self.lengths(state, x) - self.rest_length

    def tensions(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "springs"]:
        """k (r - l) of each spring, newtons; negative under compression."""
        return self.stiffness * self.extensions(state, x)

    def stored_energy(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "springs"]:
        """k (r - l)^2/2 of each spring, joules."""
        return 0.5 * self.stiffness * self.extensions(state, x) ** 2

    def stress_tensor(
        self, state: State, x: Float[Array, "inputs"], volume: float | None = None
    ) -> Inexact[Array, "dim dim"]:
        """The mean Cauchy stress, sum_ij T_ij r_ij n_ij n_ij' / volume, newtons per metre (2D) or pascals (3D).

        times the volume it is the derivative of the stored energy in a uniform strain of all nodes.

        Args:
            state, x: an equilibrium, or any state.
            volume: area in 2D; by default that of the convex hull of the reference.
        """
        vectors = self.vectors(self.positions(state, x))
        lengths = length(vectors)
        pulls = (self.stiffness * (lengths - self.rest_length))[:, None] * direction(vectors, lengths)
        return pulls.T @ vectors / (self.topology.volume if volume is None else volume)

    def reactions(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "n dim"]:
        """The force that holds every clamped or driven coordinate in place, newtons; 0 on free ones."""
        topology = self.topology
        forces = self.forces(self.positions(state, x))
        held = jnp.zeros_like(forces).at[topology.prescribed].set(-forces[topology.prescribed])
        return held.reshape(topology.n, topology.dim)

    # what solvers build on

    def forces(self, positions: Inexact[Array, "n dim"]) -> Inexact[Array, "coordinates"]:
        """The force of springs and loads on every coordinate, newtons."""
        forces = self.topology.collect(self.pulls(positions))
        return forces if self.load is None else forces + self.load.reshape(-1).astype(forces.dtype)

    def pulls(self, positions: Inexact[Array, "n dim"]) -> Inexact[Array, "springs dim"]:
        """The force of each spring on its second node, newtons."""
        vectors = self.vectors(positions)
        lengths = length(vectors)
        return -(self.stiffness * (lengths - self.rest_length))[:, None] * direction(vectors, lengths)

    def hessian(self, blocks: Float[Array, "springs dim dim"]) -> Float[Array, "free free"]:
        """The dense Hessian over the free coordinates of spring energies with given `stiffness_blocks`."""
        pattern = hessian_pattern(self.topology)
        entries = blocks.reshape(-1)[pattern.entry] * pattern.sign.astype(blocks.dtype)
        size = self.topology.free.size
        return jnp.zeros((size, size), blocks.dtype).at[pattern.rows, pattern.columns].add(entries)

    def _displaced(self, x: Any) -> Inexact[Array, "prescribed"]:
        x = jnp.asarray(x)
        if x.shape != (self.topology.inputs,):
            raise ValueError(
                f"x: wanted shape ({self.topology.inputs},), one displacement per input, got shape {x.shape}; "
                "jax.vmap or relax_batch take batches"
            )
        drive = self.topology.drive
        dtype = jnp.result_type(self.stiffness) if not jnp.iscomplexobj(x) else x.dtype
        return drive(x.astype(dtype))

    def _observable(self, by_stiffness: Array, by_rest_length: Array) -> Any:
        empty = jax.tree.map(lambda _: None, self)
        where = lambda net: (net.stiffness, net.rest_length)
        return eqx.tree_at(where, empty, (by_stiffness, by_rest_length), is_leaf=lambda leaf: leaf is None)
