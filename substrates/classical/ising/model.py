"""Ising models: the public name, what all of them share, and the ways to build one."""

from __future__ import annotations

import abc
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from substrates import arguments
from substrates.classical.ising.annealing import Annealing, GroundStateSolver
from substrates.classical.ising.enumeration import Enumeration
from substrates.classical.ising.sweeps import ROUNDING
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Equilibrium, Solver, left_over
from substrates.substrate import Substrate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from substrates.classical.ising.ensemble import BoltzmannEnsemble
    from substrates.classical.ising.graph import SpinGraph
    from substrates.classical.ising.layered import LayeredSpins
    from substrates.classical.ising.sampling import SampledEnsemble
    from substrates.classical.ising.sweeps import Sweeps

MOST_SPINS_ENUMERATED_UNASKED = 12


class IsingModel(Substrate):
    """Spins s_i = +-1 that settle to the ground state of E = -sum_(ij) J_ij s_i s_j - sum_i h_i s_i, each pair once.

    Inputs are held, so they act as fields; outputs are spins, or copies of spins of which the mean is read. Energies,
    couplings J, fields h and temperatures have one common unit. Build one by `from_edges`, `from_networkx`, `lattice`,
    `all_to_all` or `from_bqm` (any graph), by `layered` or `for_task`.

    The state is what is not held. It starts undecided, all zeros, as at infinite temperature: from there `relax`
    anneals from hot; from spins it anneals in reverse, warming no further than needed to look around, and never ends at
    a higher total energy F = E + beta C than where it started. Nudged by a cost that is linear in the output spins (the
    squared error of single spins), F is again an Ising energy with a field -beta dC/ds on the outputs; other costs are
    weighed exactly, flip by flip. Equilibrium means that no single flip releases energy, and the residual is the
    largest energy that one releases, as a part of what meets at its spin.

    With discrete states the gradient of the cost is zero almost everywhere. What a finite beta gives is the gradient of
    the mean of C over [0, beta] along the nudged ground states, which bounds the cost from below (from above for
    negative beta).

    Source: Laydevant, Markovic and Grollier 2024, arXiv 2305.18321 (where the energy has the opposite sign).
    """

    contrast_points: ClassVar[int] = 0

    # what each kind of model says

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """How many spins are free."""

    @property
    @abc.abstractmethod
    def levels(self) -> tuple[float, float]:
        """What an output shows when its spins point down, and up."""

    @abc.abstractmethod
    def output_spins(self, state: PyTree) -> Float[Array, "outputs copies"]:
        """The spins that are read, with the copies of each output in a row."""

    @abc.abstractmethod
    def with_outputs(self, state: PyTree, spins: Float[Array, "outputs copies"]) -> PyTree:
        """The state with other output spins."""

    @abc.abstractmethod
    def local_field(self, state: PyTree, x: Float[Array, "inputs"]) -> PyTree:
        """sum_j J_ij s_j + h_i at every free spin, a tree like the state."""

    @abc.abstractmethod
    def strengths(self, state: PyTree, x: Float[Array, "inputs"]) -> PyTree:
        """sum_j |J_ij s_j| + |h_i + what the inputs add| at every free spin: the sizes in `local_field`."""

    @abc.abstractmethod
    def free_couplings(self) -> tuple[Int[np.ndarray, "m 2"], Float[Array, "m"]]:
        """The coupled pairs of free spins, numbered as in the flattened state, and their J."""

    @abc.abstractmethod
    def sweeps(self, x: Float[Array, "inputs"], nudge: Nudge | Pin | None) -> Sweeps:
        """Sweeps over the free spins with many replicas at once, under an input and a nudge."""

    # the contract

    @property
    def solver(self) -> Solver:  # type: ignore[override]
        """Exact enumeration up to 12 free spins, annealing above."""
        return Enumeration() if self.size <= MOST_SPINS_ENUMERATED_UNASKED else Annealing()

    def read(self, state: PyTree, x: Float[Array, "inputs"]) -> Float[Array, "outputs"]:
        return self.shown(self.output_spins(state))

    def shown(self, spins: Float[Array, "... copies"]) -> Float[Array, "..."]:
        """What outputs with these spins show: the mean of the levels of the copies."""
        low, high = self.levels
        return low + (high - low) * jnp.mean((1 + spins) / 2, axis=-1)

    def relax(
        self,
        x: PyTree,
        nudge: Nudge | Pin | None = None,
        start: PyTree | None = None,
        *,
        key: PRNGKeyArray | None = None,
        solver: Solver | None = None,
    ) -> Equilibrium:
        """The ground state, or what the solver finds of it; `Substrate.relax` tells the arguments.

        Solvers that draw use the key, by default that of 0.

        Raises:
            ValueError: for a start that is not made of spins +-1 (0: undecided), and for NaN and infinity in x, if they
                are not traced.
        """
        arguments.refuse_not_finite("x", x)
        if isinstance(nudge, Nudge) and jnp.iscomplexobj(nudge.beta):
            raise ValueError("beta: wanted a real number, got a complex one; spins have no analytic continuation")
        for leaf in jax.tree.leaves(start):
            if not isinstance(leaf, Tracer) and not np.isin(np.asarray(leaf), (-1.0, 0.0, 1.0)).all():
                wrong = np.asarray(leaf)[~np.isin(np.asarray(leaf), (-1.0, 0.0, 1.0))]
                wrong = wrong.ravel()[:5].tolist()
                raise ValueError(f"start: wanted spins +1 or -1, or 0 where undecided, got {wrong}")
        solver = self.solver if solver is None else solver
        if start is not None and isinstance(solver, GroundStateSolver):
            solver = solver.reversed()
        return Substrate.relax(self, x, nudge, start, key=key, solver=solver)

    def energy_of_flips(self, state: PyTree, x: Float[Array, "inputs"], nudge: Nudge | Pin | None = None) -> PyTree:
        """What the total energy F gains when one spin flips: 2 s_i (sum_j J_ij s_j + h_i) + beta dC."""
        gains = jax.tree.map(lambda s, f: 2 * s * f, state, self.local_field(state, x))
        if isinstance(nudge, Nudge):
            at_outputs = self.output_spins(gains) + cost_of_flips(self, self.output_spins(state), nudge)[0]
            return self.with_outputs(gains, at_outputs)
        return gains

    def force_scale(self, state: PyTree, x: PyTree) -> PyTree:
        """A bound on the local field of each spin: |held field| + sum_j |J_ij|."""
        return self.strengths(jax.tree.map(jnp.ones_like, state), x)

    def energy_change(
        self, before: PyTree, after: PyTree, x: Float[Array, "inputs"], nudge: Nudge | Pin | None
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """F(after) - F(before), and what rounding may make of it.

        It is -sum_i (s_i - r_i) times the local field on i of spins (s + r)/2: what two states share cancels exactly,
        so that strong couplings do not hide what weak ones decide.
        """
        middle = jax.tree.map(lambda s, r: (s + r) / 2, after, before)
        moved = jax.tree.map(jnp.subtract, after, before)
        dot = lambda a, b: jnp.vdot(ravel_pytree(a)[0], ravel_pytree(b)[0])
        change = -dot(moved, self.local_field(middle, x))
        size = dot(jax.tree.map(jnp.abs, moved), self.strengths(middle, x))
        if isinstance(nudge, Nudge):
            old, new = (nudge.energy(self.read(state, x)) for state in (before, after))
            change += new - old
            size += jnp.where(new == old, 0, jnp.abs(new) + jnp.abs(old))
        return change, 16 * float(jnp.finfo(change.dtype).eps) * size

    def residual(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> Float[Array, ""]:
        """The largest energy that one flip releases, as a part of what meets at its spin: 2 (sum_j |J_ij| + |held
        field|) and what the flip changes of the nudge's cost. What rounding makes of the cost does not count. With a
        pin also how far the outputs are from it, as a part of the distance between their levels.

        NaN for a state that is not made of spins +-1.
        """
        gains = self.energy_of_flips(state, x, nudge)
        meeting = jax.tree.map(lambda size: 2 * size, self.force_scale(state, x))
        off = jnp.zeros((), jax.tree.leaves(state)[0].dtype)
        if isinstance(nudge, Nudge):
            change, size = cost_of_flips(self, self.output_spins(state), nudge)
            rounding = ROUNDING * float(jnp.finfo(off.dtype).eps) * size
            gains = self.with_outputs(gains, self.output_spins(gains) + rounding)
            meeting = self.with_outputs(meeting, self.output_spins(meeting) + jnp.abs(change))
        if isinstance(nudge, Pin):
            held = self.output_spins(gains)
            gains = self.with_outputs(gains, jnp.zeros_like(held))
            low, high = self.levels
            off = jnp.max(jnp.abs(self.read(state, x) - nudge.target), initial=0.0) / (high - low)
        released = left_over(jax.tree.map(lambda gain: jnp.minimum(gain, 0), gains), meeting)
        decided = jnp.all(jnp.stack([jnp.all(jnp.abs(s) == 1) for s in jax.tree.leaves(state)]))
        return jnp.where(decided, jnp.maximum(released, off), jnp.nan)

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
    ) -> SpinGraph:
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
        from substrates.classical.ising.build import from_edges

        return from_edges(edges, n, coupling=coupling, field=field, inputs=inputs, outputs=outputs)

    @classmethod
    def from_networkx(
        cls,
        graph: Any,
        *,
        coupling: Any = "coupling",
        field: Any = 0.0,
        inputs: Sequence[Hashable] = (),
        outputs: Sequence[Hashable] = (),
    ) -> SpinGraph:
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
        from substrates.classical.ising.build import from_networkx

        return from_networkx(graph, coupling=coupling, field=field, inputs=inputs, outputs=outputs)

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
    ) -> SpinGraph:
        """Spins on a grid of any dimension, coupled to their nearest neighbours; numbered in C order.

        Args:
            shape: the number of spins along each axis.
            coupling: one number, or one per edge in the order of `substrates.wiring.lattice_edges`.
            field: one number, or one per spin.
            periodic: whether each axis closes on itself.
            inputs, outputs: spins, as in `from_edges`; `numpy.ravel_multi_index` numbers them.
        """
        from substrates.classical.ising.build import lattice

        return lattice(shape, coupling=coupling, field=field, periodic=periodic, inputs=inputs, outputs=outputs)

    @classmethod
    def all_to_all(
        cls, coupling: Any, *, field: Any = 0.0, inputs: Sequence[int] = (), outputs: Sequence[int] = ()
    ) -> SpinGraph:
        """Spins that are all coupled to one another.

        Args:
            coupling: J, a symmetric matrix of shape (n, n) with a zero diagonal.
            field: one number, or one per spin.
            inputs, outputs: spins, as in `from_edges`.

        Raises:
            ValueError: for an asymmetric matrix, a self-coupling on its diagonal, and whatever `from_edges` refuses.
        """
        from substrates.classical.ising.build import all_to_all

        return all_to_all(coupling, field=field, inputs=inputs, outputs=outputs)

    @classmethod
    def from_bqm(cls, bqm: Any, *, inputs: Sequence[Hashable] = (), outputs: Sequence[Hashable] = ()) -> SpinGraph:
        """The model of a dimod binary quadratic model, whose energy has the opposite sign: J = -quadratic, h = -linear.

        Spins are numbered in the order of `bqm.variables`; the offset is dropped. A binary-valued model is turned into
        spins first, s = 2 b - 1.

        Args:
            bqm: a dimod.BinaryQuadraticModel.
            inputs, outputs: labels of variables.
        """
        from substrates.classical.ising.bqm import from_bqm

        return from_bqm(bqm, inputs=inputs, outputs=outputs)

    def to_bqm(self, x: Float[Array, "inputs"] | None = None, nudge: Nudge | None = None) -> Any:
        """The total energy at an input as a dimod binary quadratic model of the free spins, offset included.

        Args:
            x: the held input, which acts as a field; None for a model without inputs.
            nudge: None, or a nudge whose cost is at most quadratic in the output spins.

        Variables are numbered as the free spins in the state (flattened).
        """
        from substrates.classical.ising.bqm import to_bqm

        return to_bqm(self, x, nudge)

    @classmethod
    def layered(cls, sizes: Sequence[int], *, key: PRNGKeyArray, **options: Any) -> LayeredSpins:
        """Layers of spins above real inputs, each coupled to the next; see `layered_spins` for the options."""
        from substrates.classical.ising.layered import layered_spins

        return layered_spins(sizes, key=key, **options)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> LayeredSpins:
        """Layers for a data set with `n_inputs` features: `sizes` hidden spins (by default one layer of 256), and four
        copies of each output, which shows the part of them that points up."""
        from substrates.classical.ising.layered import layered_spins

        hidden = (256,) if sizes is None else tuple(sizes)
        return layered_spins((n_inputs, *hidden, n_outputs), key=key, copies=4, levels=(0.0, 1.0))

    # at a temperature, and in pictures

    def ensemble(self, temperature: float) -> BoltzmannEnsemble:
        """The exact thermal ensemble of this model, by enumeration; up to 20 free spins."""
        from substrates.classical.ising.ensemble import boltzmann_ensemble

        return boltzmann_ensemble(self, temperature)

    def sampled(self, temperature: float, **options: Any) -> SampledEnsemble:
        """A thermal ensemble of this model, sampled by Markov chains; see `sampled_ensemble` for the options."""
        from substrates.classical.ising.sampling import sampled_ensemble

        return sampled_ensemble(self, temperature, **options)

    def draw(self, state: PyTree = None, x: Any = None, ax: Axes | None = None) -> Axes:
        """Draws the spins and their couplings; see `substrates.classical.ising.pictures`."""
        from substrates.classical.ising import pictures

        return pictures.draw(self, state, x, ax)


def cost_of_flips(model: IsingModel, spins: Float[Array, "outputs copies"], nudge: Nudge) -> tuple[Array, Array]:
    """beta (C after flipping one output spin - C before) for each of them, and |beta C before| + |beta C after|."""
    low, high = model.levels
    output = model.shown(spins)
    change = -(high - low) * spins / spins.shape[1]
    before = nudge.energy(output)
    after = lambda k, moved: nudge.energy(output.at[k].add(moved))
    flipped = jax.vmap(jax.vmap(after, in_axes=(None, 0)))(jnp.arange(output.size), change)
    return flipped - before, jnp.abs(flipped) + jnp.abs(before)
