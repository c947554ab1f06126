"""Deep Hopfield networks, dense and convolutional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from substrates.classical.hopfield.base import CoupledLayers
from substrates.classical.hopfield.block_descent import BlockDescent
from substrates.classical.hopfield.build import convolutional_fields, layered_fields, memory_fields
from substrates.classical.hopfield.joint import relax_with_couplings
from substrates.classical.hopfield.layers import State, meeting_layers
from substrates.classical.hopfield.pictures import draw_layers
from substrates.classical.hopfield.unit import HARD, Unit
from substrates.nudge import Nudge, Pin
from substrates.solvers.joint import Control, JointEquilibrium, SpringControl
from substrates.substrate import Solver, Substrate
from substrates.wiring import Convolution, Dense, Pooling, Strength, added
from substrates.wiring.layers import feed, hidden_between

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class HopfieldNetwork(CoupledLayers):
    """A deep Hopfield network: layers of units that settle together, joined by dense couplings or convolutions.

        E = 1/2 sum_k |s_k|^2 - sum_k <s_k, P(w_k * s_(k-1))> - sum_k <b_k, s_k>,     s_0 = x,

    with hidden activities in [0, 1] and linear outputs, the last layer. At equilibrium every hidden unit is the hard
    sigmoid clip(a, 0, 1) of what it feels from the layers before and after it, and an output is what it feels.
    Energies and activities have no unit. Build one by `layered`, `convolutional`, `from_patterns` or `for_task`.

    Max pooling makes the energy of a layer convex minus convex, with a kink wherever two entries of a window tie. A
    kink points up, so a minimum never rests on one, unless the bounds hold its units there; each choice of entries has
    minima of its own, and they end abruptly where the choice changes. Equilibrium propagation is exact on the branch
    of the free state (contrasts are plain differences there), finite differences of the cost only if they stay on it.
    Measured over 120 digits in random networks of 4 and 6 maps: where nothing switches the centred gradient is off by
    1.4e-3, 1.3e-5 and 1.0e-7 at beta = 1e-2, 1e-3 and 1e-4 (medians); at 1e-2 windows or units switch in 46 % of the
    examples (medians of 2 to 5 %, at worst 50 %), and 3 do not come back when the nudge ends (at worst 320 %); at 1/4
    all switch and 61 do not come back. With average pooling units still switch and none is lost. `ties` counts the
    windows that are undecided.

    Attributes:
        coupling: w_k between successive layers, each a `Dense` or a `Convolution`; the last is dense.
        bias: b_k of each layer after the input, shape (units,), or (channels,) for feature maps.
        input_shape: (units,), or (height, width, channels) for images; x may be given flat.
        solver: how it settles.

    The state is the tuple of the activities of the layers after the input.

    Raises:
        ValueError: for couplings that do not fit together, biases of the wrong size, or a last coupling that is not
            dense.

    Source: Hopfield 1984; Scellier and Bengio 2017, arXiv 1602.05179; the convolutional one, Scellier, Ernoult, Kendall
    and Kumar 2023, arXiv 2312.15103.
    """

    holomorphic: ClassVar[bool] = False

    solver: Solver = eqx.field(static=True, default=BlockDescent(), kw_only=True)  # type: ignore[override]

    # the contract

    def energy(self, state: State, x: Float[Array, "..."]) -> Float[Array, ""]:
        total = jnp.zeros((), state[0].dtype)
        for k, (before, s) in enumerate(zip((self.clamped(x), *state[:-1]), state, strict=True)):
            total += jnp.sum(0.5 * s**2 - added(self.bias[k], feed(self.coupling[k], before)) * s)
        return total

    def read(self, state: State, x: Float[Array, "..."]) -> Float[Array, "outputs"]:
        return state[-1]

    @property
    def unit(self) -> Unit:
        return HARD

    def bounds(self, x: Float[Array, "..."]) -> tuple[State, State]:
        return hidden_between(0, 1, self.shapes, self.bias[0].dtype)

    def relax_jointly(
        self,
        control: Control,
        knobs: PyTree,
        xs: Float[Array, "batch ..."],
        nudges: Nudge | Pin | None = None,
        starts: State | None = None,
        keys: PRNGKeyArray | None = None,
        *,
        max_rounds: int = 1000,
    ) -> JointEquilibrium:
        """`Substrate.relax_jointly`; dense couplings held by springs are eliminated, and a round is one sweep."""
        dense = all(isinstance(c, Dense) for c in self.coupling)
        if isinstance(nudges, Pin) or not isinstance(control, SpringControl) or not dense:
            return Substrate.relax_jointly(self, control, knobs, xs, nudges, starts, keys, max_rounds=max_rounds)
        starts = jax.vmap(self.initial_state)(xs) if starts is None else starts
        return relax_with_couplings(self, control, knobs, xs, nudges, starts, max_rounds)

    def force_scale(self, state: State, x: Float[Array, "..."]) -> State:
        """|s| + |b| + a bound of what each neighbour sends (`Strength`); of the input, its field as a whole."""
        field = added(self.bias[0], feed(self.coupling[0], self.clamped(x)))
        return meeting_layers(field, self.bias, tuple(Strength.of(c.weight) for c in self.coupling[1:]), state)

    def bound_stiffness(self, state: State, x: Float[Array, "..."]) -> State:
        """1, of the energy s^2/2 of every unit."""
        return jax.tree.map(jnp.ones_like, state)

    def training_defaults(self) -> dict[str, Any]:
        """Centred nudges of 1/2, and learning rates that fall towards the outputs."""
        rates = {f"coupling[{k}]": 0.1 / 2**k for k in range(len(self.coupling))}
        rates |= {f"bias[{k}]": 0.02 / 2**k for k in range(len(self.bias))}
        return {
            "beta": 0.5,
            "epochs": 40,
            "batch_size": 8,
            "optimiser": "sgd",
            "learning_rate": rates,
            "decay": 0.99,
            "bench": {"epsilon": 0.01, "beta": 1.0, "epochs": 15},
        }

    # the physics

    def ties(self, state: State, x: Float[Array, "..."]) -> Int[Array, ""]:
        """How many windows of max pooling are on a kink: their largest entry is shared, and somebody listens to it."""
        count = jnp.zeros((), jnp.int32)
        for coupling, before, after in zip(self.coupling[1:], state[:-1], state[1:], strict=True):
            if isinstance(coupling, Convolution) and coupling.pooling == "max":
                share = coupling.unpool(after, coupling.convolve(before))
                winners = Convolution(coupling.weight, "max").pool(share)
                count += jnp.sum((after > 0) & (winners < after), dtype=jnp.int32)
        return count

    def draw(self, state: State | None = None, x: Any = None, ax: Axes | None = None) -> Axes:
        """Draws columns of units coloured by activity, with the strongest couplings where they are dense.

        Feature maps are flattened; `pictures.maps` shows them as images. Each layer's colours span its own largest
        activity, which is written below it.

        Args:
            state: a state; None with an x settles the network, None without one draws it bare. The difference of two
                equilibria, minus their free state, shows what the contrast of the two phases sees.
            x: the input that belongs to the state (0 for a difference of states).
            ax: where to draw; None opens a new figure.
        """
        if state is None and x is not None:
            state = self.relax(jnp.asarray(x)).state
        values = None if x is None else self.clamped(jnp.asarray(x)), *(state or [None] * len(self.coupling))
        weights = [c.weight if isinstance(c, Dense) else None for c in self.coupling]
        return draw_layers(self.shapes, values, weights, ax)

    # its parts

    @property
    def contrast_points(self) -> int:  # type: ignore[override]
        """1 where the interactions are bilinear; 2 with soft pooling; 0 with max pooling, whose choice may change."""
        poolings = {c.pooling for c in self.coupling if isinstance(c, Convolution)}
        return 0 if "max" in poolings else 2 if "soft" in poolings else 1

    # ways to build one

    @classmethod
    def layered(
        cls, sizes: Sequence[int], *, key: PRNGKeyArray, gain: float | Sequence[float] = 1.0, dtype: Any = None
    ) -> Self:
        """Dense layers with random couplings, uniform in gain / sqrt(n_before) times (-1, 1), and no bias.

        Args:
            sizes: the numbers of inputs, of units in each hidden layer, and of outputs.
            key: draws the couplings.
            gain: one number, or one for each coupling.
            dtype: of the parameters (float32, float64 or bfloat16); JAX's default if None.

        Raises:
            ValueError: for sizes that are not at least two positive integers, or gains that are not positive and
                finite.
        """
        return cls(**layered_fields(sizes, key, gain, dtype))

    @classmethod
    def convolutional(
        cls,
        input_shape: Sequence[int],
        channels: Sequence[int],
        n_outputs: int,
        *,
        key: PRNGKeyArray,
        pooling: Pooling | None = "average",
        kernel: int = 3,
        padding: int = 1,
        gain: float | Sequence[float] = 0.5,
        dtype: Any = None,
    ) -> Self:
        """Layers of feature maps, each a convolution and 2x2 pooling of the one before, and dense outputs.

        Args:
            input_shape: (height, width, channels) of the images.
            channels: of each hidden layer, at least one.
            n_outputs: how many outputs.
            key: draws the couplings, uniform in gain / sqrt(fan-in) times (-1, 1).
            pooling: None, "average", "max" or "soft". Average pooling keeps the interactions bilinear; maximum
                pooling, the published choice, has kinks.
            kernel: the side of every kernel.
            padding: zeros added on each side before a convolution.
            gain: one number, or one for each coupling, the last to the outputs.
            dtype: of the parameters; JAX's default if None.

        Raises:
            ValueError: for numbers that are not positive, and for windows of pooling that do not divide the maps.

        Source: Scellier, Ernoult, Kendall and Kumar 2023, arXiv 2312.15103.
        """
        return cls(**convolutional_fields(input_shape, channels, n_outputs, key, pooling, kernel, padding, gain, dtype))

    @classmethod
    def from_patterns(cls, patterns: Any, *, dtype: Any = None) -> Self:
        """Hopfield's associative memory as a network of two layers: N units in [0, 1] and P linear ones, the overlaps.

        With couplings xi / sqrt(P) the linear layer, at its minimum, leaves the Hebbian interaction J = xi' xi / P
        between the units, and their own energy 1/2 s^2 cancels its diagonal exactly. What remains,
        -1/2 sum_(i != j) J_ij s_i s_j - b s, is linear in every unit, so its minima are corners of the cube: in the
        spins sigma = 2 s - 1 they are the stable states of E = -1/2 sum_(i != j) J_ij sigma_i sigma_j (the bias b
        removes the field that the change of variables brings). Give a cue by `start = (s, xi s / sqrt(P))`; the input
        has no effect.

        Args:
            patterns: xi, shape (P, N), entries +1 and -1.
            dtype: of the parameters; JAX's default if None.

        Raises:
            ValueError: for anything but a matrix of +1 and -1.

        Source: Hopfield 1982; as two layers, Krotov and Hopfield 2021, arXiv 2008.06996.
        """
        return cls(**memory_fields(patterns, dtype))

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> Self:
        """A dense network for a data set: `sizes` hidden layers (by default one of 256 units)."""
        return cls.layered((n_inputs, *((256,) if sizes is None else sizes), n_outputs), key=key)
