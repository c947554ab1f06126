"""Spins in a transverse field on any graph: H = -sum_(ij) J_ij Z_i Z_j - sum_i b_i Z_i - sum_i h_i X_i."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from substrates import arguments
from substrates.quantum import build, pictures, qutip_bridge
from substrates.quantum.basis import all_signs, by_groups, group_sizes, ising_diagonal, single_flips
from substrates.quantum.build import Entry
from substrates.quantum.gibbs import GibbsEnsemble, gibbs_ensemble
from substrates.quantum.measurement import spin_means
from substrates.quantum.observables import Observables, PauliString, apply_string, over_labels
from substrates.quantum.system import QuantumSubstrate, root_of_squares
from substrates.substrate import fixed
from substrates.wiring import Bonds, Graph, lattice_edges, summed, taken

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class SpinHamiltonian(eqx.Module):
    """H = diag(d) - sum_i h_i X_i + sum_a w_a P_a on the 2^n amplitudes of n spins; spin 0 is the slowest index.

    The X part goes by groups of spins: on k spins it is a symmetric matrix of size 2^k, so each group is one matrix
    product with the vector, reshaped.

    Attributes:
        diagonal: d, shape (2^n,).
        transverse: h, shape (n,).
        weights: w, one for each string.
        strings: what else acts, beyond the diagonal and single X.
    """

    diagonal: Float[Array, "amplitudes"]
    transverse: Float[Array, "n"]
    weights: Float[Array, "strings"] | tuple[()] = ()
    strings: tuple[PauliString, ...] = eqx.field(static=True, default=())

    @property
    def n(self) -> int:
        """The number of spins."""
        return self.transverse.shape[0]

    def __call__(self, vector: Float[Array, "amplitudes"]) -> Float[Array, "amplitudes"]:
        """H |v>."""
        total = by_groups(self.diagonal * vector, vector, self._blocks())
        for a, string in enumerate(self.strings):
            total += self.weights[a] * apply_string(string, vector, self.n)
        return total

    def matrix(self) -> Float[Array, "amplitudes amplitudes"]:
        """H, dense and symmetric."""
        return jax.vmap(self)(jnp.eye(2**self.n, dtype=self.diagonal.dtype))

    def with_operators(self, observables: Observables, weights: Float[Array, "operators"]) -> SpinHamiltonian:
        """H + sum_k weights_k O_k, for an H that is nothing but the diagonal and single X."""
        diagonal, single, other = observables.kinds
        share = lambda chosen: weights @ observables.mixing[:, chosen].astype(weights.dtype)
        total, transverse = self.diagonal, self.transverse
        if diagonal:
            left, right = (signs.astype(total.dtype) for signs in observables.signs)
            total += ((left.T * share(diagonal)[None]) @ right).ravel()
        if single:
            spins = np.eye(self.n)[[observables.strings[a].flips[0] for a in single]]
            transverse -= share(single) @ spins.astype(total.dtype)
        return SpinHamiltonian(total, transverse, share(other), tuple(observables.strings[a] for a in other))

    def _blocks(self) -> list[Array]:
        """-sum h_i X_i of each group of spins, as a matrix."""
        blocks, first = [], 0
        for size in group_sizes(self.n):
            flips = single_flips(size).reshape(size, -1).astype(self.diagonal.dtype)
            blocks.append((self.transverse[first : first + size] @ -flips).reshape(2**size, 2**size))
            first += size
        return blocks


class TransverseFieldIsing(QuantumSubstrate):
    """Spins in a transverse field that settle to their quantum ground state:

        H = -sum_(ij) J_ij Z_i Z_j - sum_i b_i Z_i - sum_i h_i X_i,     each pair once.

    The state is the ground vector: 2^n real amplitudes for n free spins, spin 0 the slowest index, up (Z = +1) before
    down. Inputs enter as longitudinal fields, x_j added to b at the spin inputs[j]; or they clamp spins, which then are
    no quantum spins any more: Z_j is the number x_j, any real number, and acts as the field J_ij x_j. Outputs are
    expectation values of sums of Pauli strings: 3 for <Z_3>, "X3", "Z0 Z1", {"": 0.5, "Z2": 0.5} for a probability, or
    `substrates.quantum.outcomes` for the probabilities of a measurement. Energies and fields have one common unit.

    Measuring everything in the Z basis gives dE/dJ = -<Z_i Z_j> and dE/db = -<Z_i>, measuring in the X basis gives
    dE/dh = -<X_i>: two settings for any number of parameters. At h -> 0 it is the classical Ising model.

    Attributes:
        coupling: J of each edge, shape (m,); positive is ferromagnetic.
        longitudinal_field: b, shape (n,).
        transverse_field: h, shape (n,).
        graph: which spins the edges join.
        inputs: the spins at which the input x, shape (inputs,), enters.
        entry: how it enters, as "fields" or by "clamps".
        outputs: what is read, operators of the free spins.
        level: which level it settles to, 0 for the ground state.
        shape: of the lattice that the spins number in C order, for pictures; () if they form none.
        labels: of the spins, in their order, where the model was built from labels; None where they are numbers.
        offset: an energy that no spin changes, added to H; None for 0.

    Source: Scellier 2024, arXiv 2406.00879; Massar and Mognetti 2024, arXiv 2405.08467.
    """

    coupling: Float[Array, "edges"]
    longitudinal_field: Float[Array, "spins"]
    transverse_field: Float[Array, "spins"]
    graph: Graph
    inputs: tuple[int, ...] = eqx.field(static=True, default=())
    entry: Entry = eqx.field(static=True, default="fields")
    outputs: Observables = eqx.field(static=True, default=Observables(0, (), np.zeros((0, 0))))
    level: int = eqx.field(static=True, default=0)
    shape: tuple[int, ...] = eqx.field(static=True, default=())
    labels: tuple[Hashable, ...] | None = eqx.field(static=True, default=None)
    offset: Float[Array, ""] | None = fixed(default=None)

    @property
    def n(self) -> int:
        """The number of spins, clamped ones included."""
        return self.graph.n

    @property
    def free(self) -> np.ndarray:
        """The spins that are not clamped, ascending: those of the state."""
        held = self.inputs if self.entry == "clamps" else ()
        return np.setdiff1d(np.arange(self.n), held)

    @property
    def dimension(self) -> int:
        return 2 ** len(self.free)

    # the contract

    def hamiltonian(self, x: Float[Array, "inputs"], weights: Float[Array, "outputs"] | None = None) -> SpinHamiltonian:
        x, field, offset = self._checked(x), self.longitudinal_field, 0.0 if self.offset is None else self.offset
        coupling = Bonds(self.coupling, self.graph).matrix()
        if self.entry == "fields":
            field = self._with_input(field, x)
        elif self.inputs:
            held = self._placed(x)
            felt, free = coupling @ held, self._columns(self.free)
            offset -= held @ (felt / 2 + field)
            coupling, field = free @ coupling @ free.T, free @ (field + felt)
        operator = SpinHamiltonian(ising_diagonal(coupling, field, offset), self._of_free(self.transverse_field))
        return operator if weights is None else operator.with_operators(self.outputs, weights)

    def _placed(self, x: Float[Array, "inputs"]) -> Float[Array, "spins"]:
        """An input at its spins."""
        return summed(x, np.asarray(self.inputs, int), self.n)

    def _columns(self, spins: Any) -> Any:
        """The matrix that takes the numbers of some spins from those of all."""
        return np.eye(self.n, dtype=self.coupling.dtype)[np.asarray(spins, int)]

    def _with_input(self, field: Float[Array, "spins"], x: Float[Array, "inputs"]) -> Float[Array, "spins"]:
        """The fields with those of an input that is one."""
        return field + self._placed(x) if self.entry == "fields" and self.inputs else field

    def _of_free(self, values: Float[Array, "spins"]) -> Float[Array, "free"]:
        """The numbers of the free spins out of those of all."""
        return values if len(self.free) == self.n else self._columns(self.free) @ values

    def means(self, vector: Float[Array, "amplitudes"]) -> Float[Array, "outputs"]:
        return self.outputs.means(vector)

    def energy_scale(self, x: Float[Array, "inputs"]) -> Float[Array, ""]:
        """sum |J| + sum |b| + sum |h| of the free spins, a bound on every eigenvalue up to a constant.

        Inputs count with the fields b; clamped spins are the fields J_ij x_j.
        """
        return jnp.sum(jnp.abs(self._strengths(x)))

    def norm_stiffness(self, x: Float[Array, "inputs"]) -> Float[Array, ""]:
        """The root of sum J^2 + sum b^2 + sum h^2, taken as in `energy_scale`."""
        return root_of_squares(self._strengths(x))

    def _strengths(self, x: Float[Array, "inputs"]) -> Float[Array, "strengths"]:
        """The numbers that multiply operators of free spins."""
        x, weight = self._checked(x), self.coupling
        if self.entry == "clamps" and self.inputs:
            # 1 of a free spin and 0 of a clamped one; 1 of a free spin and 2 |x| of a clamped one
            moves = jnp.asarray(np.isin(np.arange(self.n), self.free), x.dtype)
            size = moves + 2 * self._placed(jnp.abs(x))
            ends = taken(size, self.graph.edges) * taken(moves, self.graph.edges[:, ::-1])
            weight, x = weight * jnp.sum(ends, axis=1) / 2, x[:0]
        fields = self._of_free(self.longitudinal_field), self._of_free(self.transverse_field)
        return jnp.concatenate([weight, *fields, x])

    @property
    def input_size(self) -> int:
        return len(self.inputs)

    def initial_state(self, x: Float[Array, "inputs"]) -> Float[Array, "amplitudes"]:
        """The product of the ground states of single spins in their own fields, none of them quite along Z.

        Where no h vanishes its overlap with the ground state is not zero: with the signs of h that of Perron and
        Frobenius.
        """
        x = self._checked(x)
        field = self._with_input(self.longitudinal_field, x)
        tilt = jnp.abs(self.transverse_field)
        tilt = jnp.maximum(tilt, 0.3 * jnp.maximum(jnp.abs(field), jnp.max(tilt)))
        tilt = jnp.where(tilt > 0, tilt, 1)
        angle = 0.5 * jnp.arctan2(tilt, field)
        signs = jnp.where(self.transverse_field < 0, -1.0, 1.0).astype(angle.dtype)
        up, down = self._of_free(jnp.cos(angle)), self._of_free(signs * jnp.sin(angle))
        product = lambda up, down: jnp.prod(jnp.where(all_signs(up.size) > 0, up[None], down[None]), axis=1)
        half = up.size // 2
        return jnp.outer(product(up[:half], down[:half]), product(up[half:], down[half:])).ravel()

    def by_label(self, values: Any) -> dict[Hashable, Any]:
        """{label: entry} of one entry per spin, such as `longitudinal_field`; {number: entry} without labels.

        Raises:
            ValueError: for another number of entries.
        """
        return arguments.by_label(values, self.n, self.labels)

    def excitations(self, vector: Float[Array, "amplitudes"]) -> Float[Array, "amplitudes"]:
        """A random sum of single Z_i applied to the vector, and some of a random vector."""
        n = len(self.free)
        draw = np.random.default_rng(n).normal(size=n)
        draw, half = draw / np.linalg.norm(draw), n // 2
        # the barrier keeps the compiler from working out 2^n constants
        left = jax.lax.optimization_barrier(jnp.asarray(all_signs(half) @ draw[:half], vector.dtype))
        right = (all_signs(n - half) @ draw[half:]).astype(vector.dtype)
        random = ((left[:, None] + right[None]) * vector.reshape(left.size, right.size)).ravel()
        scattered = jnp.arange(vector.size, dtype=jnp.uint32) * np.uint32(2654435769)
        scattered = (scattered ^ (scattered >> np.uint32(15))).astype(vector.dtype) * 2.0**-31 - 1
        return random + 0.7 * math.sqrt(3 / vector.size) * scattered

    def _checked(self, x: Any) -> Float[Array, "inputs"]:
        return jnp.asarray(x).astype(self.coupling.dtype)

    # the ways to build one

    @classmethod
    def from_edges(
        cls,
        edges: Any,
        n: int | None = None,
        *,
        coupling: Any,
        transverse_field: Any,
        longitudinal_field: Any = 0.0,
        inputs: Sequence[int] = (),
        entry: Entry = "fields",
        outputs: Sequence[Any] = (),
        level: int = 0,
    ) -> Self:
        """Spins on the nodes 0 to n-1 of any graph.

        Args:
            edges: pairs of coupled spins, integers of shape (m, 2), each pair once.
            n: the number of spins; by default one more than the largest that is mentioned.
            coupling: J of each edge, shape (m,) or one number.
            transverse_field, longitudinal_field: h and b of each spin, shape (n,) or one number.
            inputs: the spins at which x enters, each once.
            entry: "fields" (x adds to b there) or "clamps" (x takes the place of Z there).
            outputs: operators of free spins: 3 or "Z3", "X0", "Z0 Z1", sums as dicts; see `Observables.of`.
            level: 0 for the ground state, k for the k-th excited one.

        Raises:
            ValueError: naming what is wrong: self-couplings, repeated pairs, NaN, spins out of range, an unknown basis,
                more amplitudes than this machine's memory holds, ...
        """
        given = (edges, n, coupling, transverse_field, longitudinal_field, inputs, entry, outputs, level)
        return cls(**build.fields(*given))

    @classmethod
    def from_networkx(
        cls,
        graph: Any,
        *,
        transverse_field: Any,
        coupling: Any = "coupling",
        longitudinal_field: Any = 0.0,
        inputs: Sequence[Hashable] = (),
        entry: Entry = "fields",
        outputs: Sequence[Any] = (),
        level: int = 0,
    ) -> Self:
        """Spins on the nodes of an undirected NetworkX graph, numbered in its order.

        Args:
            graph: without loops and parallel edges.
            coupling: the edge attribute that holds J, or an array in the order of `graph.edges`, or one number.
            transverse_field, longitudinal_field: one number, an array in the order of `graph.nodes`, {label: number},
                or the node attribute that holds it.
            inputs: labels of nodes.
            outputs: operators of free spins: a label for <Z> there; ("X", label); a tuple of such pairs for a product,
                (("Z", "a"), ("Z", "b")); names such as "Z0 X3" where labels are whole numbers; dicts from these to
                weights for sums.
            entry, level: as in `from_edges`.

        Raises:
            ValueError: for a label that is no node, an output that could mean two things, an edge without the
                attribute, and whatever `from_edges` refuses.
        """
        number = arguments.numbering(graph)
        words: dict[str, Any] = {
            "coupling": arguments.of_edges("coupling", coupling, graph),
            "transverse_field": arguments.of_nodes("transverse_field", transverse_field, graph),
            "longitudinal_field": arguments.of_nodes("longitudinal_field", longitudinal_field, graph),
            "inputs": arguments.numbers_of("inputs", inputs, number),
            "outputs": over_labels(outputs, number),
        }
        with arguments.explained(tuple(number)):
            edges = [(number[a], number[b]) for a, b in graph.edges()]
            net = cls.from_edges(edges, len(number), entry=entry, level=level, **words)
        return dataclasses.replace(net, labels=tuple(number))

    @classmethod
    def lattice(
        cls,
        shape: int | Sequence[int],
        *,
        coupling: Any = 1.0,
        transverse_field: Any = 1.0,
        periodic: bool = False,
        **options: Any,
    ) -> Self:
        """Spins on a grid of any dimension, coupled to their nearest neighbours; numbered in C order.

        Args:
            shape: the number of spins along each axis.
            coupling: one number, or one per edge in the order of `substrates.wiring.lattice_edges`.
            periodic: whether all axes close on themselves.
            transverse_field, options: as in `from_edges`.
        """
        sides = arguments.sides(shape, periodic, "spin")
        edges = lattice_edges(sides, periodic)
        net = cls.from_edges(edges, math.prod(sides), coupling=coupling, transverse_field=transverse_field, **options)
        return dataclasses.replace(net, shape=sides)

    @classmethod
    def chain(cls, n: int, **options: Any) -> Self:
        """A row of n spins, or a ring with `periodic=True`: `lattice` in one dimension, with its options."""
        return cls.lattice(n, **options)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> Self:
        """Clamped inputs coupled to all free spins, these all coupled to one another; outputs are probabilities.

        The first ceil(log2 n_outputs) free spins are measured in the Z basis, and outcome k of them is output k.
        `sizes` is one number, how many free spins; by default 6, or as many as are measured and two more.
        """
        return cls.from_edges(**build.for_task(n_inputs, n_outputs, sizes, key))

    # what it knows besides

    def ensemble(self, temperature: float) -> GibbsEnsemble:
        """These spins at a temperature, in units of energy; by diagonalisation, up to 10 free spins."""
        return gibbs_ensemble(self, temperature)

    def to_qutip(self, x: Any, state: Any = None) -> qutip_bridge.QutipModel:
        """The Hamiltonian at an input, the outputs and a state of the free spins as Qobj; spin 0 is the first factor,
        up is basis(2, 0).
        """
        operator = self.hamiltonian(x)
        return qutip_bridge.to_qutip(operator.diagonal, operator.transverse, self.outputs, state)

    @classmethod
    def from_qutip(
        cls, hamiltonian: Any, *, inputs: Sequence[int] = (), outputs: Sequence[Any] = (), level: int = 0
    ) -> Self:
        """The spins whose Hamiltonian this is; its share of the identity is their `offset`.

        Args:
            hamiltonian: a Qobj on a tensor product of at most 16 qubits.
            inputs: spins at which x adds to b.
            outputs, level: as in `from_edges`.

        Raises:
            ValueError: for other dimensions, a Hamiltonian that is not Hermitian, and one with other terms than these,
                whose size is named.
        """
        words, offset = qutip_bridge.from_qutip(hamiltonian)
        net = cls.from_edges(**words, inputs=inputs, outputs=outputs, level=level)
        return dataclasses.replace(net, offset=jnp.asarray(offset, net.coupling.dtype)) if offset else net

    def draw(self, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
        """Draws the spins and their couplings: spins coloured by <Z>, couplings by the sign of J and as wide as |J|.

        Spins at which the input enters have a blue rim. `substrates.quantum.pictures` has magnetisations and
        correlations.

        Args:
            state: an equilibrium state; None with an x settles the spins, None without one draws them bare.
            x: the input, shape (inputs,).
            ax: where to draw; None opens a new figure.
        """
        if state is None and x is not None:
            state = self.relax(x).state
        shown = None
        if state is not None:
            shown = np.zeros(self.n)
            shown[self.free] = np.asarray(spin_means(state))
            if self.entry == "clamps" and x is not None:
                shown[list(self.inputs)] = np.asarray(x)
        names = range(self.n) if self.labels is None else self.labels
        return pictures.network(self.graph.edges, self.coupling, self.shape, names, self.inputs, shown, ax)

    def training_defaults(self) -> dict[str, Any]:
        """Weak centred nudges: at 0.1 a squared error may have no self-consistent state."""
        return {
            "beta": 0.02,
            "epochs": 50,
            "batch_size": 10,
            "optimiser": "adam",
            "learning_rate": 0.03,
            "decay": 0.95,
            "bench": {"epsilon": 0.02, "beta": 1.0, "epochs": 40},
        }
