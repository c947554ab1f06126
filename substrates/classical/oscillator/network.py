"""Networks of phase oscillators on any graph, and the ways to build one."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, PRNGKeyArray

from substrates import arguments
from substrates.classical.oscillator.build import checked_readout, checked_starts, edges_of_matrix, graph_fields
from substrates.classical.oscillator.coupled_phases import CoupledPhases
from substrates.classical.oscillator.layered import LayeredOscillators
from substrates.classical.oscillator.phase_descent import GraphBlocks
from substrates.classical.oscillator.phases import Readout, arrows, spread_phases
from substrates.classical.oscillator.pictures import draw_graph
from substrates.classical.oscillator.whole import Whole
from substrates.nudge import Nudge, Pin
from substrates.substrate import fixed
from substrates.wiring import Bonds, CompiledRoles, Roles, lattice_edges, summed, taken

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class OscillatorNetwork(CoupledPhases):
    """A network of coupled phase oscillators (Kuramoto, XY), which settles to a phase-locked state.

    In the frame that rotates with the oscillators the phases phi descend

        E = -sum_pairs W_ij cos(phi_i - phi_j) - sum_i h_i cos(phi_i - psi_i) - 1/2 sum_i K_i cos(2 phi_i)
            - sum_i omega_i phi_i,

    by dphi/dt = -dE/dphi, Kuramoto's equation. Phases are in radians, the other quantities in radians per unit of
    time. Trainable are the couplings W (each pair once), the fields h and their phases psi and, where there are any,
    the second harmonics K (the injection that binarises the phases of an oscillator Ising machine) and the natural
    frequencies omega. Some oscillators are clamped by the input, some held as references, the others settle. Build one
    by `from_edges`, `from_matrix`, `from_networkx`, `all_to_all` or `lattice`; `layered`, `from_layers` and `for_task`
    build its sibling for layers, `LayeredOscillators`.

    Outputs are read as phases (`readout="phase"`, for `PhaseCost`), or as their sines (`readout="sine"`, for squared
    errors and cross-entropies).

    An energy with many minima has many equilibria. Nudged phases start from the free state and stay on its branch.
    With `random_starts` the free phase starts from phases that the key draws, as Wang et al. do; give examples several
    times to average over starts, or settle by `BestOf`; `learning.basin_jumps` finds nudges that left the basin.
    With `spectral_starts` it starts from the eigenvectors of the couplings, without the vortices of random phases that
    keep natural frequencies from locking.

    Attributes:
        coupling: W along the edges, a `Bonds` of weight (m,).
        field, field_phase: h and psi of every oscillator, shape (n,).
        second_harmonic, frequency: K and omega of every oscillator, shape (n,), or None.
        reference_phase: the phases of the references, radians, shape (references,).
        roles: which oscillators are inputs, references and outputs.
        readout: "phase" or "sine".
        random_starts: whether initial phases are drawn from the key that `relax` gets.
        spectral_starts: whether they come from the spectrum of the couplings, see `spectral_phases`.
        labels: of the oscillators, in their order, where the network was built from labels; else None.

    The state holds the phases of the free oscillators in ascending order, radians; `phases` gives those of all.

    Up to 64 oscillators the graph is run-time numbers: another with as many oscillators, edges, inputs, references and
    outputs compiles nothing. Sweeps over a larger one are laid out, and compiled, for it.

    Source: Wang, Wanjura and Marquardt 2024, arXiv 2402.08579; Kuramoto 1975; for oscillator Ising machines Wang and
    Roychowdhury 2019, arXiv 1903.07163.
    """

    coupling: Bonds
    field: Float[Array, "n"]
    field_phase: Float[Array, "n"]
    second_harmonic: Float[Array, "n"] | None
    frequency: Float[Array, "n"] | None
    reference_phase: Float[Array, "references"] = fixed(kw_only=True)
    roles: Roles | CompiledRoles = eqx.field(kw_only=True)
    readout: Readout = eqx.field(static=True, default="phase")
    random_starts: bool = eqx.field(static=True, default=False)
    spectral_starts: bool = eqx.field(static=True, default=False)
    labels: tuple[Hashable, ...] | None = eqx.field(static=True, default=None)

    @property
    def n(self) -> int:
        """How many oscillators there are, clamped ones included."""
        return self.coupling.graph.n

    @property
    def input_size(self) -> int:
        return len(self.roles.inputs)

    def phases(
        self, state: Inexact[Array, "*batch free"], x: Inexact[Array, "*batch inputs"]
    ) -> Inexact[Array, "*batch n"]:
        """The phases of all oscillators in their order, radians."""
        return taken(jnp.concatenate([state, self._clamped(x, state.dtype)], axis=-1), self.roles.place)

    def by_label(self, values: Any) -> dict[Hashable, Any]:
        """{label: entry} of one entry per oscillator, such as `phases(state, x)`; {number: entry} without labels.

        Raises:
            ValueError: for another number of entries.
        """
        return arguments.by_label(values, self.n, self.labels)

    def _clamped(self, x: Inexact[Array, "*batch inputs"], dtype: Any) -> Inexact[Array, "*batch clamped"]:
        """The phases of the inputs and of the references."""
        if not len(self.roles.references):
            return x.astype(dtype)
        held = jnp.broadcast_to(self.reference_phase.astype(dtype), (*x.shape[:-1], len(self.roles.references)))
        return jnp.concatenate([x.astype(dtype), held], axis=-1)

    def settling(self, values: Inexact[Array, "*parts n"]) -> Inexact[Array, "*parts free"]:
        return taken(values, self.roles.free)

    def everywhere(self, values: Inexact[Array, "*batch free"]) -> Inexact[Array, "*batch n"]:
        clamped = jnp.zeros((*values.shape[:-1], self.n - values.shape[-1]), values.dtype)
        return taken(jnp.concatenate([values, clamped], axis=-1), self.roles.place)

    # the contract

    def initial_state(self, x: Float[Array, "inputs"]) -> Float[Array, "free"]:
        self.check_input(x)
        return spread_phases(len(self.roles.free), self.field.dtype)

    def energy(self, state: Inexact[Array, "free"], x: Float[Array, "inputs"]) -> Inexact[Array, ""]:
        phase = self.phases(state, x)
        z = arrows(phase)
        return -jnp.sum(self.coupling.interaction(z, z)) + self.local_terms.energy(phase)

    def felt(self, z: Inexact[Array, "2 n"], x: Float[Array, "inputs"]) -> Inexact[Array, "2 n"]:
        return self.coupling.product(z)

    def with_strengths(self, sizes: Float[Array, "n"]) -> Float[Array, "n"]:
        return sizes + Bonds(jnp.abs(self.coupling.weight), self.coupling.graph).product(np.ones(self.n, sizes.dtype))

    def mean_cosines(self, phase: Inexact[Array, "batch n"], xs: Float[Array, "batch inputs"]) -> Bonds:
        z = jnp.concatenate([jnp.cos(phase), jnp.sin(phase)])
        return Bonds(self._along_edges(z, z) / (2 * phase.shape[0]), self.coupling.graph)

    def cosine_contrast(
        self, middle: Inexact[Array, "batch n"], change: Inexact[Array, "batch n"], xs: Float[Array, "batch inputs"]
    ) -> Bonds:
        c, s, ch, sh = jnp.cos(middle), jnp.sin(middle), jnp.cos(change / 2), jnp.sin(change / 2)
        before, after = jnp.concatenate([s * sh, -s * ch]), jnp.concatenate([c * ch, c * sh])
        return Bonds(2 / middle.shape[0] * self._along_edges(before, after), self.coupling.graph)

    def _along_edges(self, u: Inexact[Array, "rows n"], v: Inexact[Array, "rows n"]) -> Inexact[Array, "edges"]:
        """The sum over rows of u_i v_j + v_i u_j, along the edges (i, j).

        By a matrix product where nodes have many neighbours, edge by edge elsewhere.
        """
        i, j = self.coupling.graph.edges.T
        if self.coupling.dense:
            products = u.T @ v
            return taken((products + products.T).ravel(), self.n * i + j)
        return jnp.sum(taken(u, i) * taken(v, j) + taken(v, i) * taken(u, j), axis=0)

    def draw(
        self,
        state: Float[Array, "free"] | None = None,
        x: Float[Array, "inputs"] | None = None,
        ax: Axes | None = None,
        positions: Any = None,
    ) -> Axes:
        """Draws the oscillators with their phases as arrows and cyclic colours; see `oscillator.pictures.draw_graph`.

        Args:
            state: an equilibrium state; None with an x (or without inputs) settles the network, else it is drawn bare.
            x: the input, shape (inputs,), radians.
            ax: where to draw; None opens a new figure.
            positions: (n, 2) places of the oscillators; None finds some, see `substrates.pictures.places`.

        Raises:
            ValueError: for positions of another shape, and for a state without the input that it belongs to.
        """
        drawn = self.drawn(state, x)
        phases = None if drawn is None else self.phases(*drawn)
        roles = {name: np.asarray(getattr(self.roles, name)) for name in ("inputs", "references", "outputs")}
        edges = np.asarray(self.coupling.graph.edges)
        return draw_graph(self.n, edges, self.coupling.weight, phases, roles, ax, positions)

    # what the solvers ask

    def blocks(self, x: Float[Array, "inputs"], small: bool) -> Whole | GraphBlocks:
        if small or isinstance(self.roles, Roles):
            return self.whole(x)
        return GraphBlocks(self.coupling, self.roles, self.local_terms, lambda state: self.phases(state, x))

    def whole(self, x: Float[Array, "inputs"]) -> Whole:
        roles, free = self.roles, len(self.roles.free)
        rows = self.coupling.along(roles.rows)
        source = self.settling(self.field[None] * arrows(self.field_phase))
        if free < self.n:
            source += arrows(self._clamped(x, self.field.dtype)) @ rows[:, free:].T
        local = [None if v is None else self.settling(v) for v in (self.second_harmonic, self.frequency)]
        classes = roles.colour, roles.colours
        return Whole.of(rows[:, :free], source, local, classes, roles.slots, self.readout, free == self.n)

    def neighbours(self, values: Float[Array, "free"]) -> Float[Array, "free"]:
        sizes = Bonds(jnp.abs(self.coupling.weight), self.coupling.graph)
        return self.settling(sizes.product(self.everywhere(values)))

    def adrift(self, nudge: Nudge | Pin | None) -> Bool[Array, "free"] | None:
        roles, roots = self.roles, self.roles.roots
        clamped = roles.place >= len(roles.free)
        if isinstance(roles, CompiledRoles) and np.all(np.isin(roots, roots[clamped])):
            return None
        anchored = jnp.asarray(clamped | (self.field != 0))
        if self.second_harmonic is not None:
            anchored |= self.second_harmonic != 0
        if nudge is not None:
            acts = isinstance(nudge, Pin) | (getattr(nudge, "beta", 0) != 0)
            anchored = anchored.at[roles.outputs].max(acts)
        held = summed(anchored.astype(self.field.dtype), roots, self.n) > 0
        return taken((roots == np.arange(self.n, dtype=np.int32)) & ~held, roles.free)

    def output_phases(self, state: Inexact[Array, "free"]) -> Inexact[Array, "outputs"]:
        return taken(state, self.roles.slots)

    def with_outputs(self, state: Inexact[Array, "free"], phases: Inexact[Array, "outputs"]) -> Inexact[Array, "free"]:
        return state.at[self.roles.slots].set(phases.astype(state.dtype))

    # the ways to build one

    @classmethod
    def from_edges(
        cls,
        edges: Any,
        n: int | None = None,
        *,
        coupling: Any,
        inputs: Sequence[int] = (),
        outputs: Sequence[int] = (),
        field: Any = 0.0,
        field_phase: Any = 0.0,
        second_harmonic: Any = None,
        frequency: Any = None,
        references: Mapping[int, float] | None = None,
        readout: Readout = "phase",
        random_starts: bool = False,
        spectral_starts: bool = False,
    ) -> Self:
        """Oscillators on the nodes 0 to n-1 of any graph.

        Args:
            edges: pairs of coupled oscillators, integers of shape (m, 2), each pair once.
            n: the number of oscillators; by default one more than the largest that is mentioned.
            coupling: W of each edge, shape (m,) or one number; positive pulls phases together.
            inputs: the oscillators whose phases the input x clamps, radians.
            outputs: the oscillators that are read.
            field, field_phase: h and psi of each oscillator, shape (n,) or one number.
            second_harmonic: K of each oscillator, shape (n,) or one number; None for none.
            frequency: omega of each oscillator relative to the rotating frame, shape (n,) or one number; None for none.
            references: {oscillator: phase} held for good, radians. A part of the graph that is joined to no input, no
                reference, no field and no second harmonic turns freely as a whole, and a nudge would turn it without
                end: a network with outputs must not have one. One without outputs settles, the phases of such a part
                against one another, with the status `zero_mode`.
            readout: "phase" or "sine".
            random_starts: draw initial phases from the key that `relax` gets.
            spectral_starts: take them from the eigenvectors of the couplings, once and for all the same (a
                decomposition of a matrix of all phases that settle).

        Raises:
            ValueError: for what makes no such network; the message says which argument.
        """
        terms = {"field": field, "field_phase": field_phase, "second_harmonic": second_harmonic, "frequency": frequency}
        fields = graph_fields(edges, n, coupling, terms, inputs, outputs, references or {})
        starts = checked_starts(random_starts, spectral_starts)
        return cls(**fields, readout=checked_readout(readout), **starts)

    @classmethod
    def from_matrix(cls, coupling: Any, **options: Any) -> Self:
        """Oscillators joined wherever a symmetric matrix of couplings, shape (n, n), is not zero.

        Takes the options of `from_edges`. Raises ValueError for a matrix that is not symmetric or has a diagonal.
        """
        edges, values, n = edges_of_matrix(coupling)
        return cls.from_edges(edges, n, coupling=values, **options)

    @classmethod
    def all_to_all(cls, n: int, *, coupling: Any, **options: Any) -> Self:
        """n oscillators, each coupled to every other: Kuramoto's model with coupling = K/n.

        Args:
            n: the number of oscillators.
            coupling: one number, or one per pair in the order (0, 1), (0, 2), ..., (1, 2), ...
            options: those of `from_edges`.
        """
        return cls.from_edges(np.stack(np.triu_indices(n, 1), axis=1), n, coupling=coupling, **options)

    @classmethod
    def from_networkx(
        cls,
        graph: Any,
        *,
        coupling: Any = "coupling",
        inputs: Sequence[Hashable] = (),
        outputs: Sequence[Hashable] = (),
        references: Mapping[Hashable, float] | None = None,
        **options: Any,
    ) -> Self:
        """The network on a NetworkX graph; oscillators are numbered in the graph's order.

        Args:
            graph: undirected, without parallel edges.
            coupling: the edge attribute that holds W, or an array in the order of `graph.edges`, or one number.
            inputs, outputs, references: as in `from_edges`, by labels of nodes.
            options: the other options of `from_edges`; what every oscillator has is one number, an array in the order
                of `graph.nodes`, {label: number}, or the name of a node attribute.

        Raises:
            ValueError: for a label that is no node, an edge without the attribute, and whatever `from_edges` refuses.
        """
        number = arguments.numbering(graph)
        terms = ("field", "field_phase", "second_harmonic", "frequency")
        options |= {name: arguments.of_nodes(name, options[name], graph) for name in terms if name in options}
        options |= {
            "coupling": arguments.of_edges("coupling", coupling, graph),
            "inputs": arguments.numbers_of("inputs", inputs, number),
            "outputs": arguments.numbers_of("outputs", outputs, number),
            "references": arguments.by_number("references", references, number),
        }
        with arguments.explained(tuple(number)):
            net = cls.from_edges([(number[a], number[b]) for a, b in graph.edges()], len(number), **options)
        return dataclasses.replace(net, labels=tuple(number))

    @classmethod
    def lattice(
        cls, shape: int | Sequence[int], *, coupling: Any = 1.0, periodic: bool = False, **options: Any
    ) -> Self:
        """The XY model on a grid of any dimension, nearest neighbours coupled; nodes are numbered in C order.

        Args:
            shape: the number of oscillators along each axis.
            coupling: one number, or one per edge in the order of `substrates.wiring.lattice_edges`.
            periodic: whether all axes close on themselves.
            options: the other options of `from_edges`.
        """
        sides = arguments.sides(shape, periodic, "oscillator")
        return cls.from_edges(lattice_edges(sides, periodic), int(np.prod(sides)), coupling=coupling, **options)

    @staticmethod
    def layered(sizes: Sequence[int], *, key: PRNGKeyArray, **options: Any) -> LayeredOscillators:
        """Layers of oscillators with random couplings; see `LayeredOscillators.layered` for the options."""
        return LayeredOscillators.layered(sizes, key=key, **options)

    @staticmethod
    def from_layers(coupling: Sequence[Any], **options: Any) -> LayeredOscillators:
        """Layers of oscillators with given couplings; see `LayeredOscillators.from_layers` for the options."""
        return LayeredOscillators.from_layers(coupling, **options)

    @classmethod
    def for_task(cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray) -> Any:
        """Layers of oscillators for a data set; see `LayeredOscillators.for_task`."""
        return LayeredOscillators.for_task(n_inputs, n_outputs, sizes=sizes, key=key)
