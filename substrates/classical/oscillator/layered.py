"""Layers of oscillators: each coupled to all oscillators of the next layer, the inputs clamped."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from substrates.classical.oscillator.build import checked_readout, checked_starts, layer_fields, random_couplings
from substrates.classical.oscillator.coupled_phases import CoupledPhases
from substrates.classical.oscillator.phase_descent import LayerBlocks
from substrates.classical.oscillator.phases import Readout, arrows, spread_phases
from substrates.classical.oscillator.pictures import draw_layers
from substrates.classical.oscillator.whole import Whole
from substrates.nudge import Nudge, Pin
from substrates.wiring import Dense

if TYPE_CHECKING:
    from matplotlib.axes import Axes

State = tuple[Float[Array, "nodes"], ...]


class LayeredOscillators(CoupledPhases):
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
        spectral_starts: whether they come from the spectrum of the couplings, see `spectral_phases`.

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
    spectral_starts: bool = eqx.field(static=True, default=False)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of inputs, of oscillators in each hidden layer, and of outputs."""
        return (self.coupling[0].weight.shape[0], *(w.weight.shape[1] for w in self.coupling))

    @property
    def input_size(self) -> int:
        return self.sizes[0]

    def input_phase(self, x: Inexact[Array, "*batch inputs"]) -> Inexact[Array, "*batch inputs"]:
        """The phases at which the inputs are clamped, radians."""
        x = x.astype(jnp.result_type(self.field[0].dtype, x.dtype) if jnp.iscomplexobj(x) else self.field[0].dtype)
        if self.phase_range is None:
            return x
        low, high = self.phase_range
        return low + (high - low) * x

    def phases(self, state: State, x: Inexact[Array, "*batch inputs"]) -> State:
        return state

    def settling(self, values: State) -> State:
        return values

    def everywhere(self, values: State) -> State:
        return values

    # the contract

    def initial_state(self, x: Float[Array, "inputs"]) -> State:
        self.check_input(x)
        return tuple(spread_phases(h.size, h.dtype) for h in self.field)

    def energy(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, ""]:
        energy = self.local_terms.energy(state)
        z = [arrows(phase) for phase in (self.input_phase(x), *state)]
        for coupling, before, after in zip(self.coupling, z[:-1], z[1:], strict=True):
            energy -= jnp.sum(coupling.forward(before) * after)
        return energy

    def felt(self, z: State, x: Float[Array, "inputs"]) -> State:
        felt = []
        for layer, before in enumerate((arrows(self.input_phase(x)), *z[:-1])):
            felt.append(self.coupling[layer].forward(before))
            if layer + 1 < len(z):
                felt[layer] += self.coupling[layer + 1].backward(z[layer + 1])
        return tuple(felt)

    def with_strengths(self, sizes: State) -> State:
        total = []
        for layer, size in enumerate(sizes):
            total.append(size + jnp.sum(jnp.abs(self.coupling[layer].weight), axis=0))
            if layer + 1 < len(sizes):
                total[layer] += jnp.sum(jnp.abs(self.coupling[layer + 1].weight), axis=1)
        return tuple(total)

    def mean_cosines(self, phase: State, xs: Float[Array, "batch inputs"]) -> tuple[Dense, ...]:
        # cosines above sines: one product over 2 batch rows
        z = [jnp.concatenate([jnp.cos(p), jnp.sin(p)]) for p in (self.input_phase(xs), *phase)]
        return tuple(Dense(before.T @ after / xs.shape[0]) for before, after in itertools.pairwise(z))

    def cosine_contrast(self, middle: State, change: State, xs: Float[Array, "batch inputs"]) -> tuple[Dense, ...]:
        inputs = self.input_phase(xs)
        parts = [(jnp.cos(m), jnp.sin(m), jnp.cos(d / 2), jnp.sin(d / 2)) for m, d in zip(middle, change, strict=True)]
        contrasts = []
        for layer, (c, s, ch, sh) in enumerate(parts):
            if layer == 0:  # the inputs do not move
                before, after = [-jnp.sin(inputs), jnp.cos(inputs)], [c * sh, s * sh]
            else:
                cb, sb, chb, shb = parts[layer - 1]
                before, after = [sb * shb, -sb * chb, -cb * shb, cb * chb], [c * ch, c * sh, s * ch, s * sh]
            contrasts.append(Dense(2 / xs.shape[0] * (jnp.concatenate(before).T @ jnp.concatenate(after))))
        return tuple(contrasts)

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

    def draw(self, state: State | None = None, x: Float[Array, "inputs"] | None = None, ax: Axes | None = None) -> Axes:
        """Draws the layers as columns, phases as arrows and cyclic colours; see `oscillator.pictures.draw_layers`.

        Args:
            state: an equilibrium state; None with an x settles the network, None without one draws the bare network.
            x: the input, shape (inputs,).
            ax: where to draw; None opens a new figure.

        Raises:
            ValueError: for a state without the input that it belongs to.
        """
        drawn = self.drawn(state, x)
        phases = None if drawn is None else [self.input_phase(drawn[1]), *drawn[0]]
        return draw_layers(self.sizes, [coupling.weight for coupling in self.coupling], phases, ax)

    # what the solvers ask

    def whole(self, x: Float[Array, "inputs"]) -> Whole:
        widths = self.sizes[1:]
        n, ends = sum(widths), np.cumsum((0, *widths))
        flat = lambda values: values[0] if len(values) == 1 else jnp.concatenate(values)
        pad = lambda values, *edges: jax.lax.pad(values, np.zeros((), values.dtype), edges)
        drive = self.coupling[0].forward(arrows(self.input_phase(x)))
        source = flat(self.field)[None] * arrows(flat(self.field_phase)) + pad(drive, (0, 0, 0), (0, n - widths[0], 0))
        half = jnp.zeros((n, n), source.dtype)
        for k, block in enumerate(self.coupling[1:]):
            rows, columns = ((ends[i], n - ends[i + 1], 0) for i in (k, k + 1))
            half += pad(block.weight, rows, columns)
        local = [None if values is None else flat(values) for values in (self.second_harmonic, self.frequency)]
        classes = (
            np.repeat(np.arange(len(widths), dtype=np.int32) % 2, widths),
            np.asarray(min(len(widths), 2), np.int32),
        )
        outputs = np.arange(ends[-2], n, dtype=np.int32)
        return Whole.of(half + half.T, source, local, classes, outputs, self.readout, complete=True)

    def blocks(self, x: Float[Array, "inputs"], small: bool) -> Whole | LayerBlocks:
        return self.whole(x) if small else LayerBlocks(self.coupling, self.local_terms, arrows(self.input_phase(x)))

    def neighbours(self, values: State) -> State:
        felt = [jnp.zeros_like(v) for v in values]
        for layer, coupling in enumerate(self.coupling[1:]):
            size = jnp.abs(coupling.weight)
            felt[layer] += size @ values[layer + 1]
            felt[layer + 1] += values[layer] @ size
        return tuple(felt)

    def adrift(self, nudge: Nudge | Pin | None) -> None:
        """Nothing: the inputs hold every layer."""

    def output_phases(self, state: State) -> Inexact[Array, "outputs"]:
        return state[-1]

    def with_outputs(self, state: State, phases: Inexact[Array, "outputs"]) -> State:
        return (*state[:-1], phases)

    # the ways to build one

    @classmethod
    def layered(
        cls,
        sizes: Sequence[int],
        *,
        key: PRNGKeyArray,
        coupling_gain: float | Sequence[float] = 1.0,
        field: Any = 1.0,
        dtype: Any = None,
        **options: Any,
    ) -> Self:
        """Layers of oscillators with random couplings, each oscillator held by a field.

        Couplings are uniform within coupling_gain sqrt(6 / (n_before + n_after)) (Glorot and Bengio 2010). A field of
        about the size of what arrives through the couplings makes a hidden phase a smooth function of it,
        phi = psi + arctan(arriving across psi / (h + arriving along psi)); without fields phases jump where it
        vanishes.

        Args:
            sizes: the numbers of inputs, of oscillators in each hidden layer, and of outputs.
            key: draws the couplings.
            coupling_gain: scales the couplings: one number, or one for each pair of successive layers.
            field: h, as in `from_layers`.
            dtype: of the parameters; JAX's default if None.
            options: the other options of `from_layers`.

        Raises:
            ValueError: for sizes that are not at least two positive integers, and whatever `from_layers` refuses.
        """
        return cls.from_layers(random_couplings(sizes, key, coupling_gain, dtype), field=field, **options)

    @classmethod
    def from_layers(
        cls,
        coupling: Sequence[Any],
        *,
        field: Any = 0.0,
        field_phase: Any = 0.0,
        second_harmonic: Any = None,
        frequency: Any = None,
        phase_range: tuple[float, float] | None = None,
        readout: Readout = "phase",
        random_starts: bool = False,
        spectral_starts: bool = False,
    ) -> Self:
        """Layers of oscillators with given couplings.

        Args:
            coupling: for each pair of successive layers a matrix (n_before, n_after); the first layer is the input.
            field, field_phase, second_harmonic, frequency: h, psi, K and omega: one number for all oscillators, or a
                sequence with a number or an array (nodes,) for each layer after the input; None for no K and no omega.
            phase_range: None for inputs in radians; (low, high) clamps a feature x in [0, 1] at low + (high - low) x.
            readout: "phase" or "sine".
            random_starts: draw initial phases from the key that `relax` gets.
            spectral_starts: take them from the eigenvectors of the couplings, once and for all the same (a
                decomposition of a matrix of all phases that settle).

        Raises:
            ValueError: for layers that do not fit, numbers that are not finite, and a range that is none.
        """
        terms = {"field": field, "field_phase": field_phase, "second_harmonic": second_harmonic, "frequency": frequency}
        fields = layer_fields(coupling, terms, phase_range)
        starts = checked_starts(random_starts, spectral_starts)
        return cls(**fields, readout=checked_readout(readout), **starts)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> Self:
        """Layers for a data set with features in [0, 1]; `sizes` are hidden layers (by default one of 128).

        Features clamp the inputs between 0 and pi/2, the outputs are read as sines.
        """
        hidden = (128,) if sizes is None else tuple(sizes)
        return cls.layered((n_inputs, *hidden, n_outputs), key=key, phase_range=(0.0, np.pi / 2), readout="sine")
