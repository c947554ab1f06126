"""Layers of oscillators: each coupled to all oscillators of the next layer, the inputs clamped."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from substrates.classical.oscillator import local
from substrates.classical.oscillator.blocks import LayerBlocks
from substrates.classical.oscillator.local import Readout, arrows
from substrates.classical.oscillator.network import OscillatorNetwork, spread_phases
from substrates.nudge import Nudge, Pin
from substrates.wiring import Dense

State = tuple[Float[Array, "nodes"], ...]


class LayeredOscillators(OscillatorNetwork):
    """Oscillators in layers, each coupled to all of the layers before and after it; the first layer is clamped.

        E = -sum_l Re[(z_(l-1) W_l) . conj(z_l)] + sum_l (local energies of the layer l),   z = e^(i phi).

    Attributes:
        coupling: for each pair of successive layers a `Dense` of weight (n_before, n_after).
        field, field_phase: for each layer after the input h and psi, shape (nodes,).
        second_harmonic, frequency: the same for K and omega, or None.
        phase_range: None for inputs that are phases in radians; else (low, high), and a feature x in [0, 1] clamps its
            oscillator at the phase low + (high - low) x.
        readout: "phase" or "sine".
        random_starts: whether initial phases are drawn from the key that `relax` gets.

    The state is the tuple of the phases of the layers after the input, radians.
    """

    coupling: tuple[Dense, ...]
    field: tuple[Float[Array, "nodes"], ...]
    field_phase: tuple[Float[Array, "nodes"], ...]
    second_harmonic: tuple[Float[Array, "nodes"], ...] | None = None
    frequency: tuple[Float[Array, "nodes"], ...] | None = None
    phase_range: tuple[float, float] | None = eqx.field(static=True, default=None)
    readout: Readout = eqx.field(static=True, default="phase")
    random_starts: bool = eqx.field(static=True, default=False)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of inputs, of oscillators in each hidden layer, and of outputs."""
        return (self.coupling[0].weight.shape[0], *(w.weight.shape[1] for w in self.coupling))

    def of_layer(self, name: str, layer: int) -> Float[Array, "nodes"] | None:
        """A field of this class for one layer after the input, or None."""
        values = getattr(self, name)
        return None if values is None else values[layer]

    def local_terms(self, layer: int) -> tuple[Any, ...]:
        """h, psi, K and omega of one layer after the input."""
        return tuple(self.of_layer(name, layer) for name in ("field", "field_phase", "second_harmonic", "frequency"))

    def input_phase(self, x: Inexact[Array, "*batch inputs"]) -> Inexact[Array, "*batch inputs"]:
        """The phases at which the inputs are clamped, radians."""
        x = x.astype(jnp.result_type(self.field[0].dtype, x.dtype) if jnp.iscomplexobj(x) else self.field[0].dtype)
        if self.phase_range is None:
            return x
        low, high = self.phase_range
        return low + (high - low) * x

    # the contract

    def initial_state(self, x: Float[Array, "inputs"]) -> State:
        self.check_input(x)
        return tuple(spread_phases(h.size, h.dtype) for h in self.field)

    def energy(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, ""]:
        z = [arrows(self.input_phase(x)), *(arrows(phase) for phase in state)]
        total = jnp.zeros((), state[0].dtype)
        for layer, phase in enumerate(state):
            total -= jnp.sum(self.coupling[layer].forward(z[layer]) * z[layer + 1])
            total += local.local_energy(phase, *self.local_terms(layer))
        return total

    def force(self, state: State, x: Float[Array, "inputs"], nudge: Nudge | Pin | None = None) -> State:
        """The torques Im(conj(z) sum_j W_ij z_j) + local torques, by matrix products."""
        z = [arrows(self.input_phase(x)), *(arrows(phase) for phase in state)]
        torques = []
        for layer, phase in enumerate(state):
            felt = self.coupling[layer].forward(z[layer])
            if layer + 1 < len(state):
                felt += self.coupling[layer + 1].backward(z[layer + 2])
            cosine, sine = z[layer + 1]
            torques.append(cosine * felt[1] - sine * felt[0] + local.local_torque(phase, *self.local_terms(layer)))
        if isinstance(nudge, Nudge):
            output, transpose = jax.vjp(lambda s: self.read(s, x), state)
            torques = jax.tree.map(jnp.add, tuple(torques), transpose(nudge.pull(output))[0])
        return tuple(torques)

    def force_scale(self, state: State, x: Float[Array, "inputs"]) -> State:
        """The largest torque that can act on each oscillator, sum_j |W_ij| + |h_i| + |K_i| + |omega_i|."""
        totals = []
        for layer, (h, _, harmonic, frequency) in enumerate(map(self.local_terms, range(len(state)))):
            total = jnp.abs(h) + jnp.sum(jnp.abs(self.coupling[layer].weight), axis=0)
            if layer + 1 < len(state):
                total += jnp.sum(jnp.abs(self.coupling[layer + 1].weight), axis=1)
            for values in (harmonic, frequency):
                total += 0 if values is None else jnp.abs(values)
            totals.append(total)
        return tuple(totals)

    def measure(self, states: State, xs: Float[Array, "batch inputs"], nudges: Nudge | Pin | None = None) -> Self:
        """dE/dW = -cos(phi_i - phi_j), dE/dh = -cos(phi - psi) and so on, averaged over the batch."""
        size = xs.shape[0]
        # cosines above sines: one product over 2 batch rows
        z = [jnp.concatenate([jnp.cos(p), jnp.sin(p)]) for p in (self.input_phase(xs), *states)]
        weights = [-before.T @ after / size for before, after in itertools.pairwise(z)]
        return self._observables(weights, [local.local_measure(p, *self.local_terms(k)) for k, p in enumerate(states)])

    def contrast(
        self,
        plus: State,
        minus: State,
        xs: Float[Array, "batch inputs"],
        nudges_plus: Nudge | Pin | None = None,
        nudges_minus: Nudge | Pin | None = None,
    ) -> Self:
        """measure(plus) - measure(minus) without cancellation, by matrix products.

        With A = phi_i - phi_j, the means m of the two phases and their differences d,
        cos A(-) - cos A(+) = 2 sin(m_i - m_j) sin((d_i - d_j)/2), where both sines split into products over i and j.
        """
        size = xs.shape[0]
        middle = jax.tree.map(lambda p, m: (p + m) / 2, plus, minus)
        change = jax.tree.map(jnp.subtract, plus, minus)
        inputs = self.input_phase(xs)
        parts = [(jnp.cos(m), jnp.sin(m), jnp.cos(d / 2), jnp.sin(d / 2)) for m, d in zip(middle, change, strict=True)]
        weights = []
        for layer, (c, s, ch, sh) in enumerate(parts):
            if layer == 0:  # the inputs do not move
                before, after = [-jnp.sin(inputs), jnp.cos(inputs)], [c * sh, s * sh]
            else:
                cb, sb, chb, shb = parts[layer - 1]
                before, after = [sb * shb, -sb * chb, -cb * shb, cb * chb], [c * ch, c * sh, s * ch, s * sh]
            weights.append(2 / size * (jnp.concatenate(before).T @ jnp.concatenate(after)))
        locals_ = [
            local.local_contrast(m, d, *self.local_terms(k))
            for k, (m, d) in enumerate(zip(middle, change, strict=True))
        ]
        return self._observables(weights, locals_)

    def training_defaults(self) -> dict[str, Any]:
        """Centred nudges on squared errors of the sines, by Adam."""
        return {
            "beta": 0.5,
            "epochs": 30,
            "batch_size": 20,
            "optimiser": "adam",
            "learning_rate": 0.003,
            "decay": 0.95,
            "bench": {"epsilon": 0.01, "beta": 1.0, "variant": "centered", "epochs": 15},
        }

    # what the solver asks

    @property
    def input_size(self) -> int:
        return self.sizes[0]

    def blocks(self, x: Float[Array, "inputs"]) -> LayerBlocks:
        return LayerBlocks(self, x)

    def neighbours(self, values: State) -> State:
        felt = [jnp.zeros_like(v) for v in values]
        for layer, coupling in enumerate(self.coupling[1:]):
            size = jnp.abs(coupling.weight)
            felt[layer] += size @ values[layer + 1]
            felt[layer + 1] += values[layer] @ size
        return tuple(felt)

    def adrift(self, nudged: bool) -> None:
        """Nothing: the inputs hold every layer."""

    def steepest(self) -> Float[Array, ""]:
        """2 max_i (sum_j |W_ij| + |h_i| + 2 |K_i|)."""
        sums = []
        for layer, (h, _, harmonic, _) in enumerate(map(self.local_terms, range(len(self.field)))):
            total = jnp.sum(jnp.abs(self.coupling[layer].weight), axis=0) + jnp.abs(h)
            if layer + 1 < len(self.field):
                total += jnp.sum(jnp.abs(self.coupling[layer + 1].weight), axis=1)
            sums.append(jnp.max(total if harmonic is None else total + 2 * jnp.abs(harmonic)))
        return 2 * jnp.max(jnp.stack(sums))

    def output_phases(self, state: State) -> Inexact[Array, "outputs"]:
        return state[-1]

    def with_outputs(self, state: State, phases: Inexact[Array, "outputs"]) -> State:
        return (*state[:-1], phases)

    def _observables(self, weights: list[Array], locals_: list[tuple[Any, ...]]) -> Self:
        """The tree of the parameters with these numbers in it."""
        field, field_phase, harmonic, frequency = zip(*locals_, strict=True)
        return dataclasses.replace(
            self,
            coupling=tuple(Dense(weight) for weight in weights),
            field=field,
            field_phase=field_phase,
            second_harmonic=None if self.second_harmonic is None else harmonic,
            frequency=None if self.frequency is None else frequency,
        )
