"""What spins on graphs and in layers have in common: equilibrium, what flips change, and what solvers may ask."""

from __future__ import annotations

import abc
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from substrates import arguments
from substrates.classical.ising.sweeps import ROUNDING, Sweeps
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Equilibrium, Solver, left_over
from substrates.substrate import Substrate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Spins(Substrate):
    """Spins s_i = +-1 with an energy that is linear in each of them, E = -sum_(ij) J_ij s_i s_j - sum_i h_i s_i.

    The state is the free spins, an array or a tuple of arrays; how couplings and fields are stored is left to the kinds
    of spins, `IsingModel` on graphs and `LayeredSpins` in layers.
    """

    contrast_points: ClassVar[int] = 0
    discrete: ClassVar[bool] = True
    holomorphic: ClassVar[bool] = False

    # what each kind says

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """How many spins are free."""

    @property
    @abc.abstractmethod
    def levels(self) -> tuple[float, float]:
        """What an output shows when its spins point down, and up."""

    @property
    def state_labels(self) -> Sequence[Hashable]:
        """The labels of the free spins where there are labels, else their numbers in the flattened state."""
        return range(self.size)

    @abc.abstractmethod
    def output_spins(self, state: PyTree) -> Float[Array, "outputs copies"]:
        """The spins that are read, with the copies of each output in a row."""

    @abc.abstractmethod
    def with_outputs(self, state: PyTree, spins: Float[Array, "outputs copies"]) -> PyTree:
        """The state with other output spins."""

    @abc.abstractmethod
    def held_field(self, x: Float[Array, "inputs"]) -> PyTree:
        """h_i and what the inputs add to it at every free spin, a tree like the state."""

    @abc.abstractmethod
    def local_field(self, state: PyTree, x: Float[Array, "inputs"]) -> PyTree:
        """sum_j J_ij s_j + h_i at every free spin, a tree like the state."""

    @abc.abstractmethod
    def strengths(self, state: PyTree, x: Float[Array, "inputs"]) -> PyTree:
        """sum_j |J_ij s_j| + |h_i + what the inputs add| at every free spin: the sizes in `local_field`."""

    @abc.abstractmethod
    def free_couplings(self) -> tuple[Int[Any, "m 2"], Float[Array, "m"]]:
        """The coupled pairs of free spins, numbered as in the flattened state, and their J. Pairs with a number beyond
        stand for none, and have none.
        """

    @abc.abstractmethod
    def sweeps(self, x: Float[Array, "inputs"], nudge: Nudge | Pin | None) -> Sweeps:
        """Sweeps over the free spins with many replicas at once, under an input and a nudge."""

    @abc.abstractmethod
    def draw(self, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
        """Draws the spins and their couplings."""

    # the contract

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
        for leaf in jax.tree.leaves(start):
            given = np.zeros(0) if isinstance(leaf, Tracer) else np.asarray(leaf)
            wrong = given[~np.isin(given, (-1.0, 0.0, 1.0))]
            if wrong.size:
                raise ValueError(f"start: wanted spins +1 or -1, or 0 where undecided, got {wrong[:5].tolist()}")
        return Substrate.relax(self, x, nudge, start, key=key, solver=solver)

    def force_scale(self, state: PyTree, x: PyTree) -> PyTree:
        """A bound on the local field of each spin: |held field| + sum_j |J_ij|."""
        return self.strengths(jax.tree.map(jnp.ones_like, state), x)

    def residual(self, state: PyTree, x: PyTree, nudge: Nudge | Pin | None = None) -> Float[Array, ""]:
        """The largest energy that one flip releases, as a part of what meets at its spin: 2 (sum_j |J_ij| + |held
        field|) and what the flip changes of the nudge's cost. What rounding makes of the cost does not count. With a
        pin also how far the outputs are from it, as a part of the distance between their levels.

        NaN for a state that is not made of spins +-1.
        """
        gains = jax.tree.map(lambda s, felt: 2 * s * felt, state, self.local_field(state, x))
        meeting = jax.tree.map(lambda size: 2 * size, self.force_scale(state, x))
        off = jnp.zeros((), jax.tree.leaves(state)[0].dtype)
        if isinstance(nudge, Nudge):
            change, size = self.cost_of_flips(self.output_spins(state), nudge)
            rounding = ROUNDING * float(jnp.finfo(off.dtype).eps) * size
            gains = self.with_outputs(gains, self.output_spins(gains) + change + rounding)
            meeting = self.with_outputs(meeting, self.output_spins(meeting) + jnp.abs(change))
        if isinstance(nudge, Pin):
            held = self.output_spins(gains)
            gains = self.with_outputs(gains, jnp.zeros_like(held))
            low, high = self.levels
            off = jnp.max(jnp.abs(self.read(state, x) - nudge.target), initial=0.0) / (high - low)
        released = left_over(jax.tree.map(lambda gain: jnp.minimum(gain, 0), gains), meeting)
        decided = jnp.all(jnp.stack([jnp.all(jnp.abs(s) == 1) for s in jax.tree.leaves(state)]))
        return jnp.where(decided, jnp.maximum(released, off), jnp.nan)

    # what flips change

    def cost_of_flips(self, spins: Float[Any, "outputs copies"], nudge: Nudge) -> tuple[Array, Array]:
        """beta (C after flipping one output spin - C before) for each of them, and |beta C before| + |beta C after|."""
        low, high = self.levels
        output = self.shown(spins)
        change = -(high - low) * spins / spins.shape[1]
        before = nudge.energy(output)
        moved = output[None, None] + np.eye(output.size, dtype=output.dtype)[:, None] * change[:, :, None]
        flipped = jax.vmap(jax.vmap(nudge.energy))(moved)
        return flipped - before, jnp.abs(flipped) + jnp.abs(before)

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

    # as a quadratic form

    def terms(self, x: Float[Array, "inputs"], nudge: Nudge | None = None) -> Terms:
        """The total energy at an input as numbers per free spin and pair, numbered as in the flattened state."""
        start = self.initial_state(x)
        flat, unravel = ravel_pytree(start)
        linear = -ravel_pytree(self.local_field(jax.tree.map(jnp.zeros_like, start), x))[0]
        pairs, couplings = self.free_couplings()
        quadratic = -couplings
        offset = self.energy(unravel(jnp.ones_like(flat)), x) - jnp.sum(linear) - jnp.sum(quadratic)
        if nudge is None:
            return Terms(linear, pairs, quadratic, offset, jnp.zeros_like(offset))
        at = self.output_spins(unravel(jnp.arange(flat.size, dtype=flat.dtype)))
        places = at.astype(pairs.dtype).ravel()
        cost = lambda spins: nudge.energy(self.shown(spins.reshape(at.shape)))
        constant, slope, curvature, misfit = _quadratic(cost, places.size, flat.dtype)
        i, j = np.triu_indices(places.size, 1)
        pairs = jnp.concatenate([pairs, jnp.stack([places[i], places[j]], axis=1)])
        quadratic = jnp.concatenate([quadratic, curvature])
        return Terms(linear.at[places].add(slope), pairs, quadratic, offset + constant, misfit)

    def to_bqm(self, x: Float[Array, "inputs"] | None = None, nudge: Nudge | None = None) -> Any:
        """The total energy at an input as a dimod binary quadratic model of the free spins, offset included.

        Args:
            x: the held input, which acts as a field; None for a model without inputs.
            nudge: None, or a nudge whose cost is at most quadratic in the output spins.

        Variables go by `state_labels`. Raises ValueError for a cost that is not quadratic.
        """
        if nudge is not None and not isinstance(nudge, Nudge):
            raise ValueError(f"nudge: wanted a Nudge or None, got {type(nudge).__name__}; a pin is no energy")
        found = self.terms(jnp.zeros(0) if x is None else jnp.asarray(x), nudge)
        largest = lambda values: float(jnp.max(jnp.abs(values), initial=0.0))
        size = largest(found.linear) + largest(found.quadratic) + largest(found.offset)
        if float(found.misfit) > 1e4 * float(jnp.finfo(found.linear.dtype).eps) * size:
            raise ValueError(
                "nudge: wanted a cost that is at most quadratic in the output spins, got one that differs by "
                f"{float(found.misfit):.2g} from it; give the nudge `about=` the free output to replace it by its "
                "tangent"
            )
        bqm = binary_quadratic_model(found.linear, found.pairs, found.quadratic)
        bqm.offset = float(found.offset)
        bqm.relabel_variables(dict(enumerate(self.state_labels)))
        return bqm


class Terms(NamedTuple):
    """E = offset + sum_i linear_i s_i + sum_k quadratic_k s_i s_j over pairs k = (i, j), dimod's sign.

    `misfit` is how far a nudge's cost is from quadratic, the largest error at random outputs: rounding if it is.
    """

    linear: Float[Array, "free"]
    pairs: Int[Any, "m 2"]
    quadratic: Float[Array, "m"]
    offset: Float[Array, ""]
    misfit: Float[Array, ""]


def binary_quadratic_model(linear: Any, pairs: Any, quadratic: Any) -> Any:
    """A dimod model of spins, without an offset, from the numbers of `Terms`."""
    from dimod import BinaryQuadraticModel

    bqm = BinaryQuadraticModel("SPIN")
    for spin, bias in enumerate(np.asarray(linear, float).tolist()):
        bqm.add_linear(spin, bias)
    inside = np.all(np.asarray(pairs) < len(linear), axis=1)
    for (i, j), bias in zip(np.asarray(pairs)[inside].tolist(), np.asarray(quadratic, float)[inside], strict=True):
        bqm.add_quadratic(i, j, float(bias))
    return bqm


def _quadratic(cost: Any, n: int, dtype: Any) -> tuple[Array, Array, Array, Array]:
    """The c, l, q of cost(s) = c + sum_i l_i s_i + sum_(i<j) q_ij s_i s_j, from few flips, and the error elsewhere."""
    base = jnp.ones(n, dtype)
    none = cost(base)
    one = jax.vmap(lambda k: cost(base.at[k].set(-1)))(jnp.arange(n)) - none
    i, j = np.triu_indices(n, 1)
    both = jax.vmap(lambda a, b: cost(base.at[a].set(-1).at[b].set(-1)))(jnp.asarray(i), jnp.asarray(j)) - none
    # flipping i and j leaves q_ij as it is, flipping one of them turns it round
    q = (both - one[i] - one[j]) / 4
    slope = -one / 2 - jnp.zeros(n, dtype).at[i].add(q).at[j].add(q)
    c = none - jnp.sum(slope) - jnp.sum(q)
    probes = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], (32, n)), dtype)
    found = c + probes @ slope + (probes[:, i] * probes[:, j]) @ q
    return c, slope, q, jnp.max(jnp.abs(found - jax.vmap(cost)(probes)))
