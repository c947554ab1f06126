"""Oscillators on the nodes of any graph."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact

from substrates.classical.oscillator import local
from substrates.classical.oscillator.blocks import GraphBlocks
from substrates.classical.oscillator.local import Readout, arrows
from substrates.classical.oscillator.network import OscillatorNetwork, spread_phases
from substrates.nudge import Nudge, Pin
from substrates.substrate import fixed
from substrates.wiring import Bonds, Graph, HashedByContent


@dataclasses.dataclass(frozen=True, eq=False)
class Roles(HashedByContent):
    """Which oscillators are clamped by the input, held for good, and read; static under compilation."""

    n: int
    inputs: tuple[int, ...]
    references: tuple[int, ...]
    outputs: tuple[int, ...]

    @functools.cached_property
    def free(self) -> np.ndarray:
        """The oscillators that settle, in the order of the state."""
        return np.setdiff1d(np.arange(self.n), np.asarray([*self.inputs, *self.references], int))

    @functools.cached_property
    def place(self) -> np.ndarray:
        """Where each oscillator stands in the state followed by the inputs and the references."""
        return np.argsort(np.concatenate([self.free, np.asarray([*self.inputs, *self.references], int)]))

    def blocks(self, graph: Graph, most: int) -> tuple[np.ndarray, ...]:
        """The free oscillators by colours, or all at once where there are more than `most` colours."""
        classes = [np.intersect1d(colour, self.free) for colour in graph.colours]
        classes = tuple(members for members in classes if len(members))
        return classes if len(classes) <= most else (self.free,)


class OscillatorGraph(OscillatorNetwork):
    """Oscillators on any graph; some are clamped by the input, some held as references, the others settle.

    Attributes:
        coupling: W along the edges, a `Bonds` of weight (m,).
        field, field_phase: h and psi of every oscillator, shape (n,).
        second_harmonic, frequency: K and omega of every oscillator, shape (n,), or None.
        reference_phase: the phases of the references, radians, shape (references,).
        roles: which oscillators are inputs, references and outputs.
        readout: "phase" or "sine".
        random_starts: whether initial phases are drawn from the key that `relax` gets.

    The state holds the phases of the free oscillators in ascending order, radians; `phases` gives those of all.
    """

    coupling: Bonds
    field: Float[Array, "n"]
    field_phase: Float[Array, "n"]
    second_harmonic: Float[Array, "n"] | None
    frequency: Float[Array, "n"] | None
    reference_phase: Float[Array, "references"] = fixed()
    roles: Roles = eqx.field(static=True, kw_only=True)
    readout: Readout = eqx.field(static=True, default="phase")
    random_starts: bool = eqx.field(static=True, default=False)

    @property
    def n(self) -> int:
        """How many oscillators there are, clamped ones included."""
        return self.roles.n

    @property
    def local_terms(self) -> tuple[Any, ...]:
        """h, psi, K and omega."""
        return self.field, self.field_phase, self.second_harmonic, self.frequency

    def phases(
        self, state: Inexact[Array, "*batch free"], x: Inexact[Array, "*batch inputs"]
    ) -> Inexact[Array, "*batch n"]:
        """The phases of all oscillators in their order, radians."""
        held = jnp.broadcast_to(
            self.reference_phase.astype(state.dtype), (*state.shape[:-1], len(self.roles.references))
        )
        return jnp.concatenate([state, x.astype(state.dtype), held], axis=-1)[..., self.roles.place]

    # the contract

    def initial_state(self, x: Float[Array, "inputs"]) -> Float[Array, "free"]:
        self.check_input(x)
        return spread_phases(len(self.roles.free), self.field.dtype)

    def energy(self, state: Inexact[Array, "free"], x: Float[Array, "inputs"]) -> Inexact[Array, ""]:
        phase = self.phases(state, x)
        z = arrows(phase)
        return -jnp.sum(self.coupling.interaction(z, z)) + local.local_energy(phase, *self.local_terms)

    def force(
        self, state: Inexact[Array, "free"], x: Float[Array, "inputs"], nudge: Nudge | Pin | None = None
    ) -> Array:
        """The torques sum_j W_ij sin(phi_j - phi_i) + local torques, by products with W."""
        phase = self.phases(state, x)
        cosine, sine = z = arrows(phase)
        felt = self.coupling.product(z)
        torque = cosine * felt[1] - sine * felt[0] + local.local_torque(phase, *self.local_terms)
        torque = torque[self.roles.free]
        if isinstance(nudge, Nudge):
            output, transpose = jax.vjp(lambda s: self.read(s, x), state)
            torque += transpose(nudge.pull(output))[0]
        return torque

    def force_scale(self, state: Inexact[Array, "free"], x: Float[Array, "inputs"]) -> Float[Array, "free"]:
        """The largest torque that can act on each oscillator, sum_j |W_ij| + |h_i| + |K_i| + |omega_i|."""
        i, j = self.coupling.graph.edges.T
        size = jnp.abs(self.coupling.weight)
        total = jnp.abs(self.field).at[i].add(size).at[j].add(size)
        for values in (self.second_harmonic, self.frequency):
            total += 0 if values is None else jnp.abs(values)
        return total[self.roles.free]

    def measure(
        self, states: Inexact[Array, "batch free"], xs: Float[Array, "batch inputs"], nudges: Nudge | Pin | None = None
    ) -> Self:
        """dE/dW = -cos(phi_i - phi_j), dE/dh = -cos(phi - psi) and so on, averaged over the batch."""
        phase = self.phases(states, xs)
        z = jnp.concatenate([jnp.cos(phase), jnp.sin(phase)])
        weight = -self._along_edges(z, z) / (2 * phase.shape[0])
        return self._observables(weight, local.local_measure(phase, *self.local_terms))

    def contrast(
        self,
        plus: Inexact[Array, "batch free"],
        minus: Inexact[Array, "batch free"],
        xs: Float[Array, "batch inputs"],
        nudges_plus: Nudge | Pin | None = None,
        nudges_minus: Nudge | Pin | None = None,
    ) -> Self:
        """measure(plus) - measure(minus) without cancellation, by products.

        With A = phi_i - phi_j, the means m of the two phases and their differences d,
        cos A(-) - cos A(+) = 2 sin(m_i - m_j) sin((d_i - d_j)/2), where both sines split into products over i and j.
        """
        middle = self.phases((plus + minus) / 2, xs)
        moved = jnp.concatenate([plus - minus, jnp.zeros((plus.shape[0], self.n - plus.shape[1]), plus.dtype)], axis=1)
        change = moved[:, self.roles.place]
        c, s, ch, sh = jnp.cos(middle), jnp.sin(middle), jnp.cos(change / 2), jnp.sin(change / 2)
        before, after = jnp.concatenate([s * sh, -s * ch]), jnp.concatenate([c * ch, c * sh])
        weight = 2 / plus.shape[0] * self._along_edges(before, after)
        return self._observables(weight, local.local_contrast(middle, change, *self.local_terms))

    # what the solver asks

    @property
    def input_size(self) -> int:
        return len(self.roles.inputs)

    def blocks(self, x: Float[Array, "inputs"]) -> GraphBlocks:
        return GraphBlocks(self, x)

    def neighbours(self, values: Float[Array, "free"]) -> Float[Array, "free"]:
        everywhere = jnp.zeros(self.n, values.dtype).at[self.roles.free].set(values)
        return Bonds(jnp.abs(self.coupling.weight), self.coupling.graph).product(everywhere)[self.roles.free]

    def adrift(self, nudged: bool) -> Bool[Array, "free"] | None:
        parts = self.coupling.graph.parts
        held = np.zeros(self.n, bool)
        held[[*self.roles.inputs, *self.roles.references, *(self.roles.outputs if nudged else ())]] = True
        loose = np.setdiff1d(parts, parts[held])
        if not len(loose):
            return None
        anchors = self.field != 0 if self.second_harmonic is None else (self.field != 0) | (self.second_harmonic != 0)
        anchored = jnp.zeros(int(parts.max()) + 1, bool).at[parts].max(anchors)
        first = [int(np.flatnonzero(parts == part)[0]) for part in loose]
        return jnp.zeros(self.n, bool).at[np.asarray(first)].set(~anchored[loose])[self.roles.free]

    def steepest(self) -> Float[Array, ""]:
        """2 max_i (sum_j |W_ij| + |h_i| + 2 |K_i|)."""
        i, j = self.coupling.graph.edges.T
        size = jnp.abs(self.coupling.weight)
        total = jnp.abs(self.field).at[i].add(size).at[j].add(size)
        return 2 * jnp.max(total if self.second_harmonic is None else total + 2 * jnp.abs(self.second_harmonic))

    def output_phases(self, state: Inexact[Array, "free"]) -> Inexact[Array, "outputs"]:
        return state[self._output_places]

    def with_outputs(self, state: Inexact[Array, "free"], phases: Inexact[Array, "outputs"]) -> Inexact[Array, "free"]:
        return state.at[self._output_places].set(phases.astype(state.dtype))

    @property
    def _output_places(self) -> np.ndarray:
        return np.searchsorted(self.roles.free, np.asarray(self.roles.outputs, int))

    def _along_edges(self, u: Inexact[Array, "rows n"], v: Inexact[Array, "rows n"]) -> Inexact[Array, "edges"]:
        """The sum over rows of u_i v_j + v_i u_j, along the edges (i, j).

        By a matrix product where nodes have many neighbours, edge by edge elsewhere.
        """
        i, j = self.coupling.graph.edges.T
        if self.coupling.dense:
            products = u.T @ v
            return products[i, j] + products[j, i]
        return jnp.sum(u[:, i] * v[:, j] + v[:, i] * u[:, j], axis=0)

    def _observables(self, weight: Array, locals_: tuple[Any, ...]) -> Self:
        """The tree of the parameters with these numbers in it."""
        field, field_phase, harmonic, frequency = locals_
        return dataclasses.replace(
            self,
            coupling=Bonds(weight, self.coupling.graph),
            field=field,
            field_phase=field_phase,
            second_harmonic=harmonic,
            frequency=frequency,
            reference_phase=None,
        )
