"""Layers of spins above real inputs, their energy, and sweeps over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from substrates import arguments
from substrates.classical.ising import build, pictures
from substrates.classical.ising.annealing import Annealing
from substrates.classical.ising.ensemble import boltzmann_ensemble
from substrates.classical.ising.enumeration import MOST_SPINS_UNASKED, Enumeration
from substrates.classical.ising.sampling import sampled_ensemble
from substrates.classical.ising.spins import Spins
from substrates.classical.ising.sweeps import Sweeps, counted_uniform, decided
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Solver
from substrates.wiring import Dense, with_leading_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

State = tuple[Float[Array, "spins"], ...]


class LayeredSpins(Spins):
    """Layers of spins, each coupled to the next, above real-valued inputs that act as fields on the first.

    They settle to the ground state as `IsingModel` tells, the sibling on graphs:

        E = -sum_k s_(k-1)' J_k s_k - sum_k h_k' s_k,     s_0 = x.

    Each output has several copies, spins with couplings of their own, and shows the mean of their levels: with binary
    spins a nudge of finite strength can then move an output by part of its range.

    Attributes:
        coupling: J_k between successive layers, `Dense` blocks; the last has a column for every copy of every output,
            the copies of an output side by side.
        field: h_k of each layer after the input, shape (spins,).
        copies: how many spins show one output.
        levels: what an output shows when its spins point down and up: (-1, 1), or (0, 1) to compare with one-hot
            labels.
        coupling_limit, field_limit: the largest |J| and |h| that `constrained` allows, as on a machine; None for none.

    The state is the tuple of the layers after the input.

    Raises:
        ValueError: for couplings and fields that do not fit together, and outputs that the copies do not divide.

    Source: Laydevant, Markovic and Grollier 2024, arXiv 2305.18321.
    """

    coupling: tuple[Dense, ...]
    field: tuple[Float[Array, "spins"], ...]
    copies: int = eqx.field(static=True, default=1)
    levels: tuple[float, float] = eqx.field(static=True, default=(-1.0, 1.0))  # type: ignore[assignment]
    coupling_limit: float | None = eqx.field(static=True, default=None)
    field_limit: float | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if not self.coupling or len(self.field) != len(self.coupling):
            raise ValueError(
                f"coupling, field: wanted one of each for every layer after the input, at least one, got "
                f"{len(self.coupling)} and {len(self.field)}"
            )
        arguments.refuse_complex("coupling", *(block.weight for block in self.coupling))
        arguments.refuse_complex("field", *self.field)
        before = self.coupling[0].weight.shape[0]
        for k, (block, field) in enumerate(zip(self.coupling, self.field, strict=True)):
            rows, columns = block.weight.shape
            if rows != before:
                raise ValueError(f"coupling[{k}]: wanted {before} rows, one per spin of the layer before, got {rows}")
            if jnp.shape(field) != (columns,):
                raise ValueError(f"field[{k}]: wanted shape ({columns},), one per spin, got {jnp.shape(field)}")
            before = columns
        if before % self.copies:
            raise ValueError(f"copies: wanted a divisor of the {before} output spins, got {self.copies}")

    def energy(self, state: State, x: Float[Array, "inputs"]) -> Float[Array, ""]:
        return self.energy_in(self.held_field(x), state)

    def energy_in(self, fields: State, layers: State) -> Float[Array, "*replicas"]:
        """-sum_k s_(k-1)' J_k s_k - sum_k h_k' s_k with the input in the first field, of every replica."""
        total = -jnp.sum(with_leading_axes(fields[0], layers[0].ndim) * layers[0], axis=-1)
        for block, field, before, s in zip(self.coupling[1:], fields[1:], layers[:-1], layers[1:], strict=True):
            total -= jnp.sum((block.forward(before) + with_leading_axes(field, s.ndim)) * s, axis=-1)
        return total

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of inputs, of spins in each hidden layer, and of outputs."""
        widths = [block.weight.shape[0] for block in self.coupling]
        return (*widths, self.coupling[-1].weight.shape[1] // self.copies)

    @property
    def size(self) -> int:
        return sum(field.shape[0] for field in self.field)

    @property
    def solver(self) -> Solver:  # type: ignore[override]
        """Exact enumeration up to 12 spins, above it annealing, quick enough to learn by."""
        few = self.size <= MOST_SPINS_UNASKED
        return Enumeration() if few else Annealing(sweeps=60, replicas=4, reverse_sweeps=30)

    @property
    def input_size(self) -> int:
        return self.sizes[0]

    def initial_state(self, x: Float[Array, "inputs"]) -> State:
        return tuple(jnp.zeros_like(field) for field in self.field)

    def output_spins(self, state: State) -> Float[Array, "outputs copies"]:
        return state[-1].reshape(-1, self.copies)

    def with_outputs(self, state: State, spins: Float[Array, "outputs copies"]) -> State:
        return (*state[:-1], spins.reshape(-1))

    def held_field(self, x: Float[Array, "inputs"]) -> State:
        x = jnp.asarray(x).astype(self.field[0].dtype)
        return (self.field[0] + self.coupling[0].forward(x), *self.field[1:])

    def local_field(self, state: State, x: Float[Array, "inputs"]) -> State:
        return _felt(self.held_field(x), self.coupling[1:], state)

    def strengths(self, state: State, x: Float[Array, "inputs"]) -> State:
        return _felt(*jax.tree.map(jnp.abs, (self.held_field(x), self.coupling[1:], state)))

    def free_couplings(self) -> tuple[Int[np.ndarray, "m 2"], Float[Array, "m"]]:
        pairs, couplings, first = [np.zeros((0, 2), np.int32)], [jnp.zeros(0, self.field[0].dtype)], 0
        for block in self.coupling[1:]:
            before, after = block.weight.shape
            i, j = np.indices((before, after))
            pairs.append(np.stack([first + i.ravel(), first + before + j.ravel()], axis=1, dtype=np.int32))
            couplings.append(block.weight.ravel())
            first += before
        return np.concatenate(pairs), jnp.concatenate(couplings)

    def sweeps(self, x: Float[Array, "inputs"], nudge: Nudge | Pin | None) -> LayerSweeps:
        return LayerSweeps(self, x, nudge)

    def constrained(self) -> Self:
        clip = lambda leaf, limit: leaf if limit is None else jnp.clip(leaf, -limit, limit)
        coupling = tuple(Dense(clip(block.weight, self.coupling_limit)) for block in self.coupling)
        field = tuple(clip(leaf, self.field_limit) for leaf in self.field)
        return eqx.tree_at(lambda net: (net.coupling, net.field), self, (coupling, field))

    def training_defaults(self) -> dict[str, Any]:
        """One-sided nudges, so strong that most outputs reach their targets: weaker ones flip too few spins."""
        return {
            "beta": 3000.0,
            "variant": "positive",
            "epochs": 20,
            "batch_size": 16,
            "optimiser": "adam",
            "learning_rate": 0.005,
            "decay": 0.85,
            "bench": {"epsilon": 1e-3, "beta": 15.0, "epochs": 15},
        }

    # the ways to build one

    @classmethod
    def layered(
        cls,
        sizes: Sequence[int],
        *,
        key: PRNGKeyArray,
        copies: int = 1,
        levels: tuple[float, float] = (-1.0, 1.0),
        gain: float = 1.0,
        coupling_limit: float | None = None,
        field_limit: float | None = None,
        dtype: Any = None,
    ) -> Self:
        """Layers of spins with normal couplings of standard deviation gain / sqrt(spins in the layer before).

        Args:
            sizes: the numbers of inputs, of spins in each hidden layer, and of outputs.
            key: draws the couplings.
            copies: how many spins show one output.
            levels: what an output shows when its spins point down, and up.
            gain: scales the couplings.
            coupling_limit, field_limit: the largest |J| and |h| that training may reach; None for no limit.
            dtype: of the parameters; JAX's default if None.

        Raises:
            ValueError: for sizes that are not at least two positive integers, and options that make no sense.

        Source: Laydevant, Markovic and Grollier 2024, arXiv 2305.18321.
        """
        limits = {"coupling_limit": coupling_limit, "field_limit": field_limit}
        return cls(**build.layers(sizes, key, copies, levels, gain, dtype, **limits)).constrained()

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> Self:
        """Layers for a data set with `n_inputs` features: `sizes` hidden spins (by default one layer of 256), and four
        copies of each output, which shows the part of them that points up."""
        hidden = (256,) if sizes is None else tuple(sizes)
        return cls.layered((n_inputs, *hidden, n_outputs), key=key, copies=4, levels=(0.0, 1.0))

    # at a temperature, and in pictures

    ensemble = boltzmann_ensemble
    sampled = sampled_ensemble

    def draw(self, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
        """Draws layers of spins as columns, light up and dark down, with the strongest couplings between them.

        Args:
            state: the layers after the input; None with an x settles the model, None without one draws it bare. The
                difference of two states, divided by 2, shows which spins a nudge has flipped.
            x: the input that belongs to the state (0 for a difference of states).
            ax: where to draw; None opens a new figure.
        """
        if x is not None and state is None:
            state = self.relax(jnp.asarray(x)).state
        return pictures.layers([block.weight for block in self.coupling], self.copies, state, x, ax)


def _felt(fields: State, couplings: tuple[Dense, ...], state: State) -> State:
    """The fields, with what each layer feels from its neighbours."""
    total = list(fields)
    for k, block in enumerate(couplings):
        total[k] += block.backward(state[k + 1])
        total[k + 1] += block.forward(state[k])
    return tuple(total)


class LayerSweeps(Sweeps):
    """Sweeps over layers: the spins of one at once, given its neighbours. Arrays have the shape (replicas, spins)."""

    replica_axis = 0

    def __init__(self, model: LayeredSpins, x: Float[Array, "inputs"], nudge: Nudge | Pin | None):
        self.model, self.nudge, self.dtype = model, nudge, model.field[0].dtype
        self.field = model.held_field(x)
        squares = sum(jnp.sum(field**2) for field in self.field)
        squares += sum(2 * jnp.sum(block.weight**2) for block in model.coupling[1:])
        self.scale = jnp.sqrt(squares / model.size)
        self.meeting = model.force_scale(self.field, x)
        self.increments, self.costs = None, None
        if isinstance(nudge, Nudge) and nudge.separable:
            self.increments, self.costs = _increments(model, nudge)

    def load(self, states, words):
        spins, first = [], 0
        for layer in states:
            spins.append(decided(layer, counted_uniform(words, first, layer.shape, self.dtype)))
            first += layer.size
        return tuple(spins)

    def field_at(self, spins: tuple[Array, ...], k: int) -> Float[Array, "replicas spins"]:
        """The local field on a layer."""
        total = self.field[k][None]
        if k > 0:
            total = total + self.model.coupling[k].forward(spins[k - 1])
        if k + 1 < len(spins):
            total = total + self.model.coupling[k + 1].backward(spins[k + 1])
        return total

    def sweep(self, spins, accept):
        spins, first = list(spins), 0
        for k, s in enumerate(spins):
            field = self.field_at(tuple(spins), k)
            if k + 1 < len(spins) or self.nudge is None:
                spins[k] = jnp.where(accept(2 * s * field, s, first, self.meeting[k]), -s, s)
            elif self.increments is not None:
                spins[k] = self._copy_by_copy(s, field, accept, first)
            elif isinstance(self.nudge, Nudge):
                spins[k] = self._one_by_one(s, field, accept, first)
            first += s.size
        return tuple(spins)

    def energies(self, spins):
        total = self.model.energy_in(self.field, spins)
        if isinstance(self.nudge, Nudge):
            total += jax.vmap(self.nudge.energy)(self._shown(spins[-1]))
        return total

    def states(self, spins):
        return spins

    def _shown(self, s: Float[Array, "replicas spins"]) -> Float[Array, "replicas outputs"]:
        return self.model.shown(s.reshape(s.shape[0], -1, self.model.copies))

    def _copy_by_copy(self, s, field, accept, first):
        """One copy of every output at once: in a cost that is a sum over outputs they do not feel each other.

        With m of its other copies up, a copy feels the field -(c(m + 1) - c(m))/2, where c is its output's cost.
        """
        assert self.increments is not None
        assert self.costs is not None
        meeting = self.meeting[-1].reshape(-1, self.model.copies) + self.costs[:, None]
        replicas, copies, increments = s.shape[0], self.model.copies, self.increments
        s, field = (array.reshape(replicas, -1, copies) for array in (s, field))
        for copy in range(copies):
            here = s[:, :, copy]
            others = (jnp.sum(s, axis=2) - here + copies - 1) / 2
            pull = sum(jnp.where(jnp.abs(others - m) < 0.5, -0.5 * increments[m][None], 0) for m in range(copies))
            gain = 2 * here * (field[:, :, copy] + pull)
            flips = accept(gain, here, first + copy * here.size, meeting[:, copy])
            s = s.at[:, :, copy].set(jnp.where(flips, -here, here))
        return s.reshape(replicas, -1)

    def _one_by_one(self, s, field, accept, first):
        """The output spins one after the other, each flip weighed with what it does to the cost."""
        assert isinstance(self.nudge, Nudge)
        cost = jax.vmap(self.nudge.energy)

        def update(k, s):
            here = s[:, k]
            before, after = cost(self._shown(s)), cost(self._shown(s.at[:, k].set(-here)))
            gain = 2 * here * field[:, k] + after - before
            meeting = self.meeting[-1][k] + jnp.abs(before) + jnp.abs(after)
            flips = accept(gain[:, None], here[:, None], first + k * here.shape[0], meeting[:, None])[:, 0]
            return s.at[:, k].set(jnp.where(flips, -here, here))

        return jax.lax.fori_loop(0, s.shape[1], update, s)


def _increments(model: LayeredSpins, nudge: Nudge) -> tuple[Float[Array, "copies outputs"], Float[Array, "outputs"]]:
    """beta (C with m + 1 copies of an output up - C with m up), for each m and output; C a sum over outputs. And the
    largest |beta C| for each output, of which these are differences.
    """
    low, high = model.levels
    outputs = model.sizes[-1]
    parts = jnp.asarray(np.linspace(low, high, model.copies + 1), model.field[0].dtype)
    reference = jnp.full(outputs, low, parts.dtype)
    one = lambda part, k: nudge.energy(reference.at[k].set(part))
    costs = jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None))(parts, jnp.arange(outputs))
    return costs[1:] - costs[:-1], jnp.max(jnp.abs(costs), axis=0)
