"""Networks of phase oscillators: the public name, the ways to build one, and what all kinds share."""

from __future__ import annotations

import abc
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Inexact, PRNGKeyArray, PyTree

from substrates import arguments
from substrates.classical.oscillator.local import Readout, shown
from substrates.classical.oscillator.phase_descent import PhaseDescent
from substrates.nudge import Nudge, Pin
from substrates.substrate import Equilibrium, Solver, Substrate, parameter_dtype

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from substrates.classical.oscillator.graph import OscillatorGraph
    from substrates.classical.oscillator.layered import LayeredOscillators

GOLDEN = (5**0.5 - 1) / 2


class OscillatorNetwork(Substrate):
    """A network of coupled phase oscillators (Kuramoto, XY), which settles to a phase-locked state.

    In the frame that rotates with the oscillators the phases phi descend

        E = -sum_pairs W_ij cos(phi_i - phi_j) - sum_i h_i cos(phi_i - psi_i) - 1/2 sum_i K_i cos(2 phi_i)
            - sum_i omega_i phi_i,

    by dphi/dt = -dE/dphi, Kuramoto's equation. Phases are in radians, the other quantities in radians per unit of
    time. Trainable are the couplings W (each pair once), the fields h and their phases psi and, where there are any,
    the second harmonics K (the injection that binarises the phases of an oscillator Ising machine) and the natural
    frequencies omega. Inputs are clamped phases. Build one by `from_edges`, `from_matrix`, `from_networkx`,
    `all_to_all` or `lattice` (any graph), by `layered`, `from_layers` or `for_task` (layers).

    Outputs are read as phases (`readout="phase"`, for `PhaseCost`), or as their sines (`readout="sine"`, for squared
    errors and cross-entropies).

    An energy with many minima has many equilibria. Nudged phases start from the free state and stay on its branch.
    With `random_starts` the free phase starts from phases that the key draws, as Wang et al. do; give examples several
    times to average over starts, or settle by `BestOf`; `basin_jumps` finds nudges that left the basin.

    Source: Wang, Wanjura and Marquardt 2024, arXiv 2402.08579; Kuramoto 1975; for oscillator Ising machines Wang and
    Roychowdhury 2019, arXiv 1903.07163.
    """

    solver = PhaseDescent()

    # what each kind says of itself

    @property
    @abc.abstractmethod
    def readout(self) -> Readout:
        """What the outputs show: "phase" or "sine"."""

    @property
    @abc.abstractmethod
    def random_starts(self) -> bool:
        """Whether initial phases are drawn from the key that `relax` gets."""

    @abc.abstractmethod
    def blocks(self, x: Float[Array, "inputs"]) -> Any:
        """The blocks of phases that `PhaseDescent` turns together, at the input x."""

    @abc.abstractmethod
    def output_phases(self, state: PyTree) -> Inexact[Array, "outputs"]:
        """The phases of the outputs, radians."""

    @abc.abstractmethod
    def with_outputs(self, state: PyTree, phases: Inexact[Array, "outputs"]) -> PyTree:
        """The state with other phases at the outputs."""

    @abc.abstractmethod
    def neighbours(self, values: PyTree) -> PyTree:
        """sum_j |W_ij| v_j over the neighbours j that settle, for values v of them, a tree like the state."""

    @abc.abstractmethod
    def adrift(self, nudged: bool) -> Bool[Array, "phases"] | None:
        """One phase, of the flattened state, of each part that nothing keeps from turning as a whole; None if all are
        held for certain. A nudge holds the parts that it acts on.
        """

    @abc.abstractmethod
    def steepest(self) -> Float[Array, ""]:
        """A bound on the curvature of the energy anywhere, twice the sum of all couplings of one oscillator."""

    # what all kinds share

    def read(self, state: PyTree, x: Float[Array, "inputs"]) -> Inexact[Array, "outputs"]:
        return shown(self.output_phases(state), self.readout)

    def relax(
        self,
        x: Float[Array, "inputs"],
        nudge: Nudge | Pin | None = None,
        start: PyTree | None = None,
        *,
        key: PRNGKeyArray | None = None,
        solver: Solver | None = None,
    ) -> Equilibrium:
        if start is None and self.random_starts:
            if key is None:
                raise ValueError("key: a network with random_starts draws its initial phases from a key; give one")
            start = random_phases(key, self.initial_state(x))
        return Substrate.relax(self, x, nudge, start, key=key, solver=solver)

    def check_input(self, x: Any) -> None:
        """Raises ValueError unless x has one real phase (or feature) per input and, where it is known, is finite."""
        if jnp.shape(x) != (self.input_size,):
            raise ValueError(f"x: wanted shape ({self.input_size},), one number per input, got {jnp.shape(x)}")
        arguments.refuse_complex_input(x, parameter_dtype(self))
        if not isinstance(x, Tracer) and not np.all(np.isfinite(np.asarray(x))):
            raise ValueError("x: wanted finite inputs, got NaN or infinity")

    def hessian(self, state: PyTree, x: Float[Array, "inputs"], nudge: Nudge | None = None) -> Float[Array, "n n"]:
        """d2F/dphi2, the linear stability of a state: a minimum has no negative eigenvalue."""
        flat, unravel = ravel_pytree(state)
        torque = lambda y: ravel_pytree(self.total_force(unravel(y), x, nudge))[0]
        return -jax.jacfwd(torque)(flat)

    def evolve(
        self,
        x: Float[Array, "inputs"],
        start: PyTree,
        *,
        duration: float,
        steps: int,
        nudge: Nudge | None = None,
    ) -> PyTree:
        """Kuramoto's dynamics dphi/dt = -dF/dphi from a start, by the fourth-order Runge-Kutta method.

        Args:
            x: the clamped input of one example.
            start: phases, a tree like the state.
            duration: how long, in the unit of time of the couplings.
            steps: of equal length; `duration / steps` times `steepest()` should stay below 1.
            nudge: what acts on the outputs, or None.

        Returns the phases at all steps + 1 times, a tree like the state with a leading axis. Drifting phases wind.
        """
        from substrates.classical.oscillator.flow import trajectory

        self.check_input(x)
        if not (np.isfinite(duration) and duration > 0 and steps >= 1):
            raise ValueError(f"duration, steps: wanted a positive time and at least one step, got {duration}, {steps}")
        return trajectory(self, x, start, duration, steps, nudge)

    def draw(
        self, state: PyTree | None = None, x: Float[Array, "inputs"] | None = None, ax: Axes | None = None
    ) -> Axes:
        """Draws the network with its phases as arrows and cyclic colours; see `oscillator.pictures.draw`."""
        from substrates.classical.oscillator.pictures import draw

        return draw(self, state, x, ax)

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
    ) -> OscillatorGraph:
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

        Raises:
            ValueError: for what makes no such network; the message says which argument.
        """
        from substrates.classical.oscillator.build import graph_network

        return graph_network(
            edges,
            n,
            coupling=coupling,
            inputs=inputs,
            outputs=outputs,
            field=field,
            field_phase=field_phase,
            second_harmonic=second_harmonic,
            frequency=frequency,
            references=references,
            readout=readout,
            random_starts=random_starts,
        )

    @classmethod
    def from_matrix(cls, coupling: Any, **options: Any) -> OscillatorGraph:
        """Oscillators joined wherever a symmetric matrix of couplings, shape (n, n), is not zero.

        Takes the options of `from_edges`. Raises ValueError for a matrix that is not symmetric or has a diagonal.
        """
        from substrates.classical.oscillator.build import edges_of_matrix

        edges, values, n = edges_of_matrix(coupling)
        return cls.from_edges(edges, n, coupling=values, **options)

    @classmethod
    def all_to_all(cls, n: int, *, coupling: Any, **options: Any) -> OscillatorGraph:
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
    ) -> OscillatorGraph:
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
        from substrates.classical.oscillator.build import network_from_networkx

        return network_from_networkx(
            graph, coupling=coupling, inputs=inputs, outputs=outputs, references=references, **options
        )

    @classmethod
    def lattice(
        cls, shape: int | Sequence[int], *, coupling: Any = 1.0, periodic: bool = False, **options: Any
    ) -> OscillatorGraph:
        """The XY model on a grid of any dimension, nearest neighbours coupled; nodes are numbered in C order.

        Args:
            shape: the number of oscillators along each axis.
            coupling: one number, or one per edge in the order of `substrates.wiring.lattice_edges`.
            periodic: whether each axis closes on itself.
            options: the other options of `from_edges`.
        """
        from substrates.wiring import lattice_edges

        sides = tuple(int(side) for side in np.atleast_1d(np.asarray(shape)))
        if not sides or min(sides) < 1:
            raise ValueError(f"shape: wanted positive numbers of oscillators along each axis, got {shape}")
        return cls.from_edges(lattice_edges(sides, periodic), int(np.prod(sides)), coupling=coupling, **options)

    @classmethod
    def layered(cls, sizes: Sequence[int], *, key: PRNGKeyArray, **options: Any) -> LayeredOscillators:
        """Layers of oscillators with random couplings; see `oscillator.build.layered_network` for the options."""
        from substrates.classical.oscillator.build import layered_network

        return layered_network(sizes, key=key, **options)

    @classmethod
    def from_layers(cls, coupling: Sequence[Any], **options: Any) -> LayeredOscillators:
        """Layers of oscillators with given couplings; see `oscillator.build.network_of_layers` for the options."""
        from substrates.classical.oscillator.build import network_of_layers

        return network_of_layers(coupling, **options)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> LayeredOscillators:
        """Layers of oscillators for a data set with features in [0, 1]; `sizes` hidden layers (by default one of 128).

        Features clamp the inputs between 0 and pi/2, the outputs are read as sines.
        """
        from substrates.classical.oscillator.build import layered_network

        hidden = (128,) if sizes is None else tuple(sizes)
        quarter = np.pi / 2
        return layered_network((n_inputs, *hidden, n_outputs), key=key, phase_range=(0.0, quarter), readout="sine")


def spread_phases(n: int, dtype: Any) -> Float[Array, "n"]:
    """Phases within a quarter radian of 0, no two alike: near the aligned state, and on no axis of symmetry."""
    return jnp.asarray(0.5 * ((np.arange(1, n + 1) * GOLDEN) % 1.0 - 0.5), dtype)


def random_phases(key: PRNGKeyArray, like: PyTree) -> PyTree:
    """Phases uniform in [-pi, pi), a tree like another."""
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    draw = lambda k, leaf: jax.random.uniform(k, leaf.shape, leaf.dtype, -jnp.pi, jnp.pi)
    return structure.unflatten([draw(k, leaf) for k, leaf in zip(keys, leaves, strict=True)])
