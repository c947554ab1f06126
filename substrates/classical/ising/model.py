"""Ising models: spins on any graph, their energy, and the ways to build one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from substrates import arguments
from substrates.classical.ising import build, pictures
from substrates.classical.ising.annealing import Annealing
from substrates.classical.ising.ensemble import boltzmann_ensemble
from substrates.classical.ising.enumeration import MOST_SPINS_UNASKED, Enumeration
from substrates.classical.ising.graph import GraphSweeps
from substrates.classical.ising.grid import GridSweeps
from substrates.classical.ising.layered import LayeredSpins
from substrates.classical.ising.sampling import sampled_ensemble
from substrates.classical.ising.spins import Spins
from substrates.classical.ising.sweeps import Sweeps
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Solver
from substrates.substrate import fixed
from substrates.wiring import Bonds, CompiledRoles, Grid, Roles, taken

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class IsingModel(Spins):
    """Spins s_i = +-1 that settle to the ground state of E = -sum_(ij) J_ij s_i s_j - sum_i h_i s_i, each pair once.

    The spins sit on the nodes of a graph and are coupled along its edges. Inputs are held, so they act as fields;
    outputs are spins. Energies, couplings J, fields h and temperatures have one common unit. Build one by `from_edges`,
    `from_networkx`, `lattice`, `all_to_all` or `from_bqm` (any graph); `layered` and `for_task` build its sibling
    `LayeredSpins`, whose outputs are copies of spins of which the mean is read.

    The state is what is not held, in the order of the nodes. It starts undecided, all zeros, as at infinite
    temperature: from there `relax` anneals from hot; from spins it anneals in reverse, warming no further than needed
    to look around, and never ends at a higher total energy F = E + beta C than where it started. Nudged by a cost that
    is linear in the output spins (the squared error of single spins), F is again an Ising energy with a field
    -beta dC/ds on the outputs; other costs are weighed exactly, flip by flip. Equilibrium means that no single flip
    releases energy, and the residual is the largest energy that one releases, as a part of what meets at its spin.

    With discrete states the gradient of the cost is zero almost everywhere. What a finite beta gives is the gradient of
    the mean of C over [0, beta] along the nudged ground states, which bounds the cost from below (from above for
    negative beta).

    Attributes:
        coupling: J, one per edge (`coupling.weight`, shape (m,)); positive is ferromagnetic.
        field: h, shape (n,).
        roles: the nodes that the input x, shape (inputs,), holds (`roles.inputs`), and those that are read
            (`roles.outputs`), which show their spin, -1 or 1.
        shape: of the lattice that the nodes number in C order, for pictures; () if they form none.
        offset: an energy that no spin changes, added to E; None for 0.
        labels: of the spins, in their order, where the model was built from labels; None where they are numbers.

    Up to 64 nodes the graph is run-time numbers: another with as many nodes, edges, inputs and outputs compiles
    nothing. Sweeps over a larger one are laid out, and compiled, for it; of a large lattice only the sides are.

    Source: Laydevant, Markovic and Grollier 2024, arXiv 2305.18321 (where the energy has the opposite sign).
    """

    coupling: Bonds
    field: Float[Array, "nodes"]
    roles: Roles | CompiledRoles
    shape: tuple[int, ...] = eqx.field(static=True, default=())
    offset: Float[Array, ""] | None = fixed(default=None)
    labels: tuple[Hashable, ...] | None = eqx.field(static=True, default=None)

    def energy(self, state: Float[Array, "free"], x: Float[Array, "inputs"]) -> Float[Array, ""]:
        """E = -sum_(ij) J_ij s_i s_j - sum_i h_i s_i over all spins, free and held, and the offset."""
        s = self.configuration(state, x)
        energy = -self.coupling.alignment(s) - jnp.sum(self.field * s)
        return energy if self.offset is None else energy + self.offset

    def local_field(self, state: Float[Any, "free"], x: Float[Array, "inputs"]) -> Float[Array, "free"]:
        return self.roles.settled(self.coupling.product(self.configuration(state, x)) + self.field)

    def held_field(self, x: Float[Array, "inputs"]) -> Float[Array, "free"]:
        return self.local_field(jnp.zeros(self.size, self.field.dtype), x)

    def strengths(self, state: Float[Array, "free"], x: Float[Array, "inputs"]) -> Float[Array, "free"]:
        return jnp.abs(self.held_field(x)) + self._coupled(jnp.abs(state))

    def _coupled(self, sizes: Float[Any, "free"]) -> Float[Array, "free"]:
        """sum_j |J_ij| times the sizes of free spins j."""
        couplings = Bonds(jnp.abs(self.coupling.weight), self.coupling.graph)
        return self.roles.settled(couplings.product(self.configuration(sizes, np.zeros(self.input_size))))

    def configuration(self, state: Float[Any, "free"], x: Float[Any, "inputs"]) -> Float[Array, "nodes"]:
        """All spins, free and held, in the order of the nodes."""
        return self.roles.arranged(state, x.astype(state.dtype))

    def initial_state(self, x: Float[Array, "inputs"]) -> Float[Array, "free"]:
        return jnp.zeros(self.size, self.field.dtype)

    def by_label(self, values: Any) -> dict[Hashable, Any]:
        """{label: entry} of one entry per spin, such as `configuration(state, x)`; {number: entry} without labels.

        Raises:
            ValueError: for another number of entries.
        """
        return arguments.by_label(values, self.n, self.labels)

    def output_spins(self, state: Float[Array, "free"]) -> Float[Array, "outputs 1"]:
        return taken(state, self.roles.slots)[:, None]

    def with_outputs(self, state: Float[Array, "free"], spins: Float[Array, "outputs 1"]) -> Float[Array, "free"]:
        return state.at[self.roles.slots].set(spins[:, 0], mode="promise_in_bounds", wrap_negative_indices=False)

    @property
    def solver(self) -> Solver:  # type: ignore[override]
        """Exact enumeration up to 12 free spins, annealing above."""
        return Enumeration() if self.size <= MOST_SPINS_UNASKED else Annealing()

    # sizes

    @property
    def n(self) -> int:
        """The number of spins, inputs included."""
        return self.coupling.graph.n

    @property
    def size(self) -> int:
        return self.roles.size

    @property
    def input_size(self) -> int:
        return len(self.roles.inputs)

    @property
    def levels(self) -> tuple[float, float]:
        return (-1.0, 1.0)

    @property
    def state_labels(self) -> Sequence[Hashable]:
        return range(self.size) if self.labels is None else [self.labels[k] for k in np.asarray(self.roles.free)]

    # what solvers ask

    def free_couplings(self) -> tuple[Int[Any, "m 2"], Float[Array, "m"]]:
        pairs = taken(self.roles.place, self.coupling.graph.edges)
        return pairs, jnp.where(jnp.all(pairs < self.size, axis=1), self.coupling.weight, 0)

    def sweeps(self, x: Float[Array, "inputs"], nudge: Nudge | Pin | None) -> Sweeps:
        field = self.held_field(x)
        meeting = jnp.abs(field) + self._coupled(jnp.ones(self.size, field.dtype))
        if isinstance(nudge, Nudge) and nudge.separable:
            up = np.ones((len(self.roles.outputs), 1), self.field.dtype)
            # flipping a spin that points up gains 2 f, so a cost acts as the field (C(down) - C(up))/2
            change, size = self.cost_of_flips(up, nudge)
            pulled = self.with_outputs(jnp.zeros_like(field), change)
            field, meeting, nudge = field + 0.5 * pulled, meeting + self.with_outputs(jnp.zeros_like(field), size), None
        if isinstance(self.coupling.graph.compiled, Grid) and isinstance(self.roles, CompiledRoles):
            return GridSweeps(self.coupling, self.roles, field, meeting, nudge)
        return GraphSweeps(self.coupling, self.roles, field, meeting, nudge)

    # the ways to build one

    @classmethod
    def from_edges(
        cls,
        edges: Any,
        n: int | None = None,
        *,
        coupling: Any,
        field: Any = 0.0,
        inputs: Sequence[int] = (),
        outputs: Sequence[int] = (),
    ) -> Self:
        """Spins on the nodes 0 to n-1 of any graph.

        Args:
            edges: pairs of coupled spins, integers of shape (m, 2), each pair once.
            n: the number of spins; by default one more than the largest that is mentioned.
            coupling: J of each edge, shape (m,) or one number; positive is ferromagnetic.
            field: h of each spin, shape (n,) or one number.
            inputs: the spins that the input x holds; x may be any real number, which acts as the field J_ij x_i.
            outputs: the spins that are read, each once, none of them an input.

        Raises:
            ValueError: naming what makes no Ising model: self-couplings, repeated pairs, NaN, nodes out of range, ...
        """
        return cls(**build.from_edges(edges, n, coupling, field, inputs, outputs))

    @classmethod
    def from_networkx(
        cls,
        graph: Any,
        *,
        coupling: Any = "coupling",
        field: Any = 0.0,
        inputs: Sequence[Hashable] = (),
        outputs: Sequence[Hashable] = (),
    ) -> Self:
        """Spins on the nodes of an undirected NetworkX graph, numbered in its order.

        Args:
            graph: without loops and parallel edges.
            coupling: the edge attribute that holds J, or an array in the order of `graph.edges`, or one number.
            field: one number, an array in the order of `graph.nodes`, {label: number}, or the node attribute that holds
                h.
            inputs, outputs: labels of nodes.

        Raises:
            ValueError: for a label that is no node, an edge without the attribute, and whatever `from_edges` refuses.
        """
        return cls(**build.from_networkx(graph, coupling, field, inputs, outputs))

    @classmethod
    def lattice(
        cls,
        shape: int | Sequence[int],
        *,
        coupling: Any = 1.0,
        field: Any = 0.0,
        periodic: bool = False,
        inputs: Sequence[int] = (),
        outputs: Sequence[int] = (),
    ) -> Self:
        """Spins on a grid of any dimension, coupled to their nearest neighbours; numbered in C order.

        From 1,024 spins on, programs hold no edges: they shift whole halves of a checkerboard, and 4,096 x 4,096 spins
        settle in 4 GB. Only a lattice that closes on itself along an odd side, which is no checkerboard, stays a graph.

        Args:
            shape: the number of spins along each axis.
            coupling: one number; one per edge in the order of `substrates.wiring.lattice_edges`; or a list with a
                number for each axis, or an array with an entry for each spin and the next along it: (rows - 1, columns)
                along the first axis and (rows, columns - 1) along the second. Where the lattice is periodic, a side of
                three spins or more has one bond more, so that of such sides both are (rows, columns); a side of two
                still joins them once and one of a single spin nothing: 2 x 600 spins take (1, 600) and (2, 600).
            field: one number, or one per spin.
            periodic: whether all axes close on themselves.
            inputs, outputs: spins, as in `from_edges`; `numpy.ravel_multi_index` numbers them.
        """
        return cls(**build.lattice(shape, periodic, coupling, field, inputs, outputs))

    @classmethod
    def all_to_all(
        cls, coupling: Any, *, field: Any = 0.0, inputs: Sequence[int] = (), outputs: Sequence[int] = ()
    ) -> Self:
        """Spins that are all coupled to one another.

        Args:
            coupling: J, a symmetric matrix of shape (n, n) with a zero diagonal.
            field: one number, or one per spin.
            inputs, outputs: spins, as in `from_edges`.

        Raises:
            ValueError: for an asymmetric matrix, a self-coupling on its diagonal, and whatever `from_edges` refuses.
        """
        return cls(**build.all_to_all(coupling, field, inputs, outputs))

    @classmethod
    def from_bqm(cls, bqm: Any, *, inputs: Sequence[Hashable] = (), outputs: Sequence[Hashable] = ()) -> Self:
        """The model of a dimod binary quadratic model, whose energy has the opposite sign: J = -quadratic, h = -linear.

        Spins are numbered in the order of `bqm.variables`, which are their `labels`; the offset is kept. A model of
        binary values is turned into spins first, s = 2 b - 1, of the same energy.

        Args:
            bqm: a dimod.BinaryQuadraticModel.
            inputs, outputs: labels of variables.

        Raises:
            ValueError: for anything else, a model without variables, labels that are none, and whatever `from_edges`
                refuses.
        """
        return cls(**build.from_bqm(bqm, inputs, outputs))

    @classmethod
    def from_qubo(
        cls, qubo: Any, *, offset: float = 0.0, inputs: Sequence[Hashable] = (), outputs: Sequence[Hashable] = ()
    ) -> Self:
        """The model of a quadratic unconstrained binary optimisation: E = offset + sum_ij Q_ij b_i b_j, b = (1 + s)/2.

        Args:
            qubo: Q, a square matrix (of scipy.sparse, too) or {(a, b): Q_ab} with any labels; linear terms by (a, a).
                Every entry counts: a symmetric matrix is its upper triangle with doubled entries above the diagonal.
            offset: an energy that no bit changes.
            inputs, outputs: labels of variables; numbers for a matrix.

        Raises:
            ValueError: for other shapes, NaN, labels that are none, and whatever `from_edges` refuses.
        """
        return cls(**build.from_qubo(qubo, offset, inputs, outputs))

    @classmethod
    def layered(cls, sizes: Sequence[int], *, key: PRNGKeyArray, **options: Any) -> LayeredSpins:
        """Layers of spins above real inputs, each coupled to the next; see `LayeredSpins.layered` for the options."""
        return LayeredSpins.layered(sizes, key=key, **options)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> LayeredSpins:
        """Layers for a data set; see `LayeredSpins.for_task`."""
        return LayeredSpins.for_task(n_inputs, n_outputs, sizes=sizes, key=key)

    # at a temperature, and in pictures

    ensemble = boltzmann_ensemble
    sampled = sampled_ensemble

    def draw(self, state: Any = None, x: Any = None, ax: Axes | None = None, positions: Any = None) -> Axes:
        """Draws the spins and their couplings: lattices of two dimensions as cells (with walls up to 2^18 spins), other
        graphs as discs and lines.

        Args:
            state: spins; None with an x (or without inputs) settles the model, else its spins are drawn undecided.
            x: the held input, shape (inputs,).
            ax: where to draw; None opens a new figure.
            positions: (n, 2) places of the spins, to draw them as a graph; None chooses.
        """
        if x is None and self.input_size:
            spins = np.zeros(self.n)
        else:
            x = jnp.zeros(0, self.field.dtype) if x is None else jnp.asarray(x)
            spins = self.configuration(self.relax(x).state if state is None else jnp.asarray(state), x)
        spins = np.asarray(spins, float)
        if len(self.shape) == 2 and positions is None and self.n > pictures.MOST_WALLED:
            return pictures.lattice(spins, np.zeros((0, 2), int), np.zeros(0), self.shape, ax)
        drawn = spins, np.asarray(self.coupling.graph.edges), self.coupling.weight
        if len(self.shape) == 2 and positions is None:
            return pictures.lattice(*drawn, self.shape, ax)
        roles = {"inputs": self.roles.inputs, "outputs": self.roles.outputs}
        return pictures.graph(*drawn, roles, positions=positions, shape=self.shape, ax=ax)
