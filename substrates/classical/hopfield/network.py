"""Deep Hopfield networks, dense and convolutional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from substrates import arguments
from substrates.classical.hopfield.block_descent import BlockDescent, meeting_layers
from substrates.classical.hopfield.joint import relax_with_couplings
from substrates.nudge import Nudge, Pin
from substrates.solvers.joint import Control, JointEquilibrium, SpringControl
from substrates.strength import Strength
from substrates.substrate import Equilibrium, Solver, Substrate
from substrates.wiring import Convolution, Dense, Pooling, chain_of_groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

State = tuple[Float[Array, "..."], ...]


class HopfieldNetwork(Substrate):
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

    The state is the tuple of the activities of the layers after the input.

    Raises:
        ValueError: for couplings that do not fit together, biases of the wrong size, or a last coupling that is not
            dense.

    Source: Hopfield 1984; Scellier and Bengio 2017, arXiv 1602.05179; the convolutional one, Scellier, Ernoult, Kendall
    and Kumar 2023, arXiv 2312.15103.
    """

    coupling: tuple[Dense | Convolution, ...]
    bias: tuple[Float[Array, "units"], ...]
    input_shape: tuple[int, ...] = eqx.field(static=True)

    solver: ClassVar[Any] = BlockDescent()

    def __check_init__(self):
        if not self.coupling or not isinstance(self.coupling[-1], Dense):
            raise ValueError("coupling: wanted at least one coupling, and a Dense one to the outputs at the end")
        arguments.refuse_complex("coupling", *(block.weight for block in self.coupling))
        arguments.refuse_complex("bias", *self.bias)
        if len(self.bias) != len(self.coupling):
            raise ValueError(
                f"bias: wanted one vector for each of the {len(self.coupling)} layers after the input, "
                f"got {len(self.bias)}"
            )
        for k, (bias, shape) in enumerate(zip(self.bias, self.shapes[1:], strict=True)):
            if jnp.shape(bias) != shape[-1:]:
                raise ValueError(f"bias[{k}]: wanted shape {shape[-1:]}, got {jnp.shape(bias)}")

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the input and of the layers after it."""
        return chain_of_groups(self.coupling, self.input_shape)

    @property
    def contrast_points(self) -> int:  # type: ignore[override]
        """1 where the interactions are bilinear; 2 with soft pooling; 0 with max pooling, whose choice may change."""
        poolings = {c.pooling for c in self.coupling if isinstance(c, Convolution)}
        return 0 if "max" in poolings else 2 if "soft" in poolings else 1

    # the contract

    def energy(self, state: State, x: Float[Array, "..."]) -> Float[Array, ""]:
        total = jnp.zeros((), state[0].dtype)
        for k, (before, s) in enumerate(zip((self.clamped(x), *state[:-1]), state, strict=True)):
            total += jnp.sum(0.5 * s**2 - (self.bias[k] + self.arriving(k, before)) * s)
        return total

    @property
    def input_size(self) -> int:
        return int(np.prod(self.input_shape))

    def initial_state(self, x: Float[Array, "..."]) -> State:
        """One feed-forward pass, without what the layers send back.

        Source: Bengio et al. 2016, arXiv 1606.01651.
        """
        arguments.refuse_complex_input(x, self.bias[0].dtype)
        before, state = self.clamped(x), []
        for k, bias in enumerate(self.bias):
            felt = bias + self.arriving(k, before)
            before = felt if k == len(self.bias) - 1 else jnp.clip(felt, 0, 1)
            state.append(before)
        return tuple(state)

    def read(self, state: State, x: Float[Array, "..."]) -> Float[Array, "outputs"]:
        return state[-1]

    def bounds(self, x: Float[Array, "..."]) -> tuple[State, State]:
        dtype = self.bias[0].dtype
        sides = [[jnp.full(shape, side, dtype) for shape in self.shapes[1:-1]] for side in (0, 1)]
        outputs = jnp.full(self.shapes[-1], jnp.inf, dtype)
        return (*sides[0], -outputs), (*sides[1], outputs)

    def relax(
        self,
        x: Float[Array, "..."],
        nudge: Nudge | Pin | None = None,
        start: State | None = None,
        *,
        key: PRNGKeyArray | None = None,
        solver: Solver | None = None,
    ) -> Equilibrium:
        if isinstance(nudge, Nudge) and jnp.iscomplexobj(nudge.beta):
            raise ValueError(
                "beta: wanted a real number, got a complex one; activities that are clipped to [0, 1] have no analytic "
                "continuation"
            )
        return Substrate.relax(self, x, nudge, start, key=key, solver=solver)

    def relax_jointly(
        self,
        control: Control,
        knobs: PyTree,
        xs: Float[Array, "batch ..."],
        nudges: Nudge | None = None,
        starts: State | None = None,
        keys: PRNGKeyArray | None = None,
        *,
        max_rounds: int = 1000,
    ) -> JointEquilibrium:
        """`Substrate.relax_jointly`; dense couplings held by springs are eliminated, and a round is one sweep."""
        if not isinstance(control, SpringControl) or not all(isinstance(c, Dense) for c in self.coupling):
            return Substrate.relax_jointly(self, control, knobs, xs, nudges, starts, keys, max_rounds=max_rounds)
        starts = jax.vmap(self.initial_state)(xs) if starts is None else starts
        return relax_with_couplings(self, control, knobs, xs, nudges, starts, max_rounds)

    def force_scale(self, state: State, x: Float[Array, "..."]) -> State:
        """|s| + |b| + a bound of what each neighbour sends (`Strength`); of the input, its field as a whole."""
        field = self.bias[0] + self.arriving(0, self.clamped(x))
        return meeting_layers(field, self.bias, tuple(map(Strength.of, self.coupling[1:])), state)

    def bound_stiffness(self, state: State, x: Float[Array, "..."]) -> State:
        """1, of the energy s^2/2 of every unit."""
        return jax.tree.map(jnp.ones_like, state)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> HopfieldNetwork:
        """A dense network for a data set: `sizes` hidden layers (by default one of 256 units)."""
        return cls.layered((n_inputs, *((256,) if sizes is None else sizes), n_outputs), key=key)

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

    # builders

    @classmethod
    def layered(
        cls, sizes: Sequence[int], *, key: PRNGKeyArray, gain: float | Sequence[float] = 1.0, dtype: Any = None
    ) -> HopfieldNetwork:
        """Dense layers of given sizes with random couplings; see `layered_network`."""
        from substrates.classical.hopfield.build import layered_network

        return layered_network(sizes, key=key, gain=gain, dtype=dtype)

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
    ) -> HopfieldNetwork:
        """Layers of feature maps and dense outputs, with random couplings; see `convolutional_network`."""
        from substrates.classical.hopfield.build import convolutional_network

        return convolutional_network(
            input_shape,
            channels,
            n_outputs,
            key=key,
            pooling=pooling,
            kernel=kernel,
            padding=padding,
            gain=gain,
            dtype=dtype,
        )

    @classmethod
    def from_patterns(cls, patterns: Any, *, dtype: Any = None) -> HopfieldNetwork:
        """Hopfield's associative memory of binary patterns; see `memory_of_patterns`."""
        from substrates.classical.hopfield.build import memory_of_patterns

        return memory_of_patterns(patterns, dtype=dtype)

    # the physics

    def clamped(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The input as the first coupling sees it, in the shape `input_shape`."""
        if jnp.shape(x) not in (self.input_shape, (int(np.prod(self.input_shape)),)):
            raise ValueError(
                f"x: wanted shape {self.input_shape} or ({int(np.prod(self.input_shape))},), got {jnp.shape(x)}"
            )
        return jnp.asarray(x).astype(jnp.result_type(self.bias[0].dtype)).reshape(self.input_shape)

    def arriving(self, k: int, before: Float[Array, "..."]) -> Float[Array, "..."]:
        """What layer k + 1 feels from the layer before it, P(w * s), without its bias."""
        coupling = self.coupling[k]
        return coupling.forward(before.ravel() if isinstance(coupling, Dense) else before)

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
        """A picture of the network, with its activities at equilibrium; see `pictures.layers`."""
        from substrates.classical.hopfield.pictures import layers

        return layers(self, state, x, ax)
