"""Predictive coding networks: each layer of activities is predicted by the layer before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from substrates import arguments
from substrates.classical.predictive_coding.error_sweep import ErrorSweep
from substrates.solvers.solver import Solver
from substrates.strength import Strength
from substrates.substrate import Substrate, parameter_dtype
from substrates.wiring import Convolution, Dense, chain_of_groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

State = tuple[Float[Array, "..."], ...]
Rectifier = Literal["buffered", "bounded", "free"]


class Skip(eqx.Module):
    """A connection past some layers: a 1x1 convolution with a stride, added to the pre-activation of a later layer.

    Attributes:
        weight: shape (channels of the source, channels of the target); nodes in place of channels for dense layers.
        source: the number of the layer that it leaves; 0 is the input.
        target: the number of the layer that it enters.
        stride: how many rows and columns of the source make one of the target.
    """

    weight: Float[Array, "before after"]
    source: int = eqx.field(static=True)
    target: int = eqx.field(static=True)
    stride: int = eqx.field(static=True, default=1)

    def forward(self, u: Float[Array, "*space before"]) -> Float[Array, "*strided after"]:
        """What the target layer receives."""
        return (u[:: self.stride, :: self.stride] if u.ndim == 3 else u) @ self.weight

    def backward(self, v: Float[Array, "*strided after"], u: Float[Array, "*space before"]) -> Float[Array, "..."]:
        """What the source layer u receives: d<v, forward(u)>/du."""
        felt = v @ self.weight.T
        if u.ndim == 1 or self.stride == 1:
            return felt
        return jnp.zeros_like(u).at[:: self.stride, :: self.stride].set(felt)


class PredictiveCodingNetwork(Substrate):
    """A predictive coding network: each layer of activities is predicted by the layer before it.

    The energy is the sum of the squared prediction errors,

        E = 1/2 sum_k |eps_k|^2,    eps_k = h_k - f_k(h_{k-1}),    h_0 = x,

    with f_k = ReLU(a_k) for k < L and f_L = a_L, where the pre-activation a_k is a product or a (pooled) convolution,
    plus a bias, plus what skip connections bring. The free equilibrium is the forward pass: there E = 0 and
    dE/dtheta = 0. Under a nudge the errors become -beta times the deltas of back-propagation, to first order in beta,
    so that dE/dtheta_k = -eps_k df_k/dtheta_k is beta times its gradient: each weight sees its own two layers only.

    Three rectifiers share this free equilibrium and this response, and differ in what a hidden node may do beyond:

    | rectifier | hidden activities | energy | a step of rate one |
    |---|---|---|---|
    | "buffered" | h_k >= 0 | E + sum_k h_k . ReLU(-a_k) | h_k = ReLU(a_k + D_k) |
    | "bounded" | h_k >= 0 | E | h_k = ReLU(ReLU(a_k) + D_k) |
    | "free" | any | E | h_k = ReLU(a_k) + D_k |

    D_k is the feedback from above. In a buffered network a negative pre-activation holds its node at zero; the added
    energy vanishes wherever h_k = f_k, has no kink (each layer has |h_k|^2/2 - h_k . a_k + |ReLU(a_k)|^2/2, the energy
    of lifted networks), and makes the published modified scheme its gradient descent. It settles under any nudge that
    leaves it a minimum, and its centred bias is of order beta^2. A bounded one, the
    published system, settles too, but nodes with a_k < 0, which no force holds at their bound, answer to one sign of
    the nudge only: its centred bias is of order beta, and implicit differentiation does not apply. In a free one a
    nudge can pull a node to the kink of its ReLU, where no force vanishes and nothing settles.

    The state is the tuple of the activities h_1, ..., h_L: vectors, or maps of shape (height, width, channels).

    Attributes:
        coupling: for each layer a `Dense` or a `Convolution` from the layer before it; the last one is dense.
        bias: for each layer a vector, one number per node or channel.
        skips: connections past some layers.
        shape: of the input, (inputs,) or (height, width, channels); a flat input is folded into it.
        rectifier: "buffered", "bounded" or "free", as above.
        solver: how it settles.

    Source: Kerjan, Hoier and Scellier 2026, arXiv 2606.03584; Whittington and Bogacz 2017 for the model; Gu, Askari and
    El Ghaoui 2018, arXiv 1811.08039, for lifted networks.
    """

    coupling: tuple[Dense | Convolution, ...]
    bias: tuple[Float[Array, "channels"], ...]
    skips: tuple[Skip, ...] = ()
    shape: tuple[int, ...] = eqx.field(static=True, kw_only=True)
    rectifier: Rectifier = eqx.field(static=True, default="buffered", kw_only=True)
    solver: Solver = eqx.field(static=True, default=ErrorSweep(), kw_only=True)

    contrast_points: ClassVar[int] = 0

    def __check_init__(self):
        shapes = self.shapes
        if self.rectifier not in get_args(Rectifier):
            raise ValueError(f"rectifier: wanted one of {get_args(Rectifier)}, got {self.rectifier!r}")
        if not self.coupling:
            raise ValueError("coupling: wanted at least one layer, got none")
        if not isinstance(self.coupling[-1], Dense):
            raise ValueError("coupling: wanted a Dense last layer, which is read, got a Convolution")
        for name in ("coupling", "bias", "skips"):
            arguments.refuse_complex(name, *jax.tree.leaves(getattr(self, name)))
            if not all(map(_finite_if_known, jax.tree.leaves(getattr(self, name)))):
                raise ValueError(f"{name}: wanted finite numbers, got NaN or infinity")
        if len(self.bias) != len(self.coupling):
            raise ValueError(
                f"bias: wanted one vector for each of the {len(self.coupling)} layers, got {len(self.bias)}"
            )
        for k, (bias, shape) in enumerate(zip(self.bias, shapes[1:], strict=True), 1):
            if bias.shape != shape[-1:]:
                raise ValueError(f"bias: wanted shape {shape[-1:]} in layer {k}, got {bias.shape}")
        for skip in self.skips:
            self._check_skip(skip, shapes)

    def _check_skip(self, skip: Skip, shapes: tuple[tuple[int, ...], ...]) -> None:
        layers = len(shapes) - 1
        name = f"skip connection from layer {skip.source} to layer {skip.target}"
        if not (skip.source >= 0 and skip.source + 2 <= skip.target <= layers):
            raise ValueError(
                f"skips: wanted a target at least two layers after the source, between 0 and {layers}, got a {name}"
            )
        source, target = shapes[skip.source], shapes[skip.target]
        strided = tuple(-(-side // skip.stride) for side in source[:-1])
        if strided != target[:-1] or skip.weight.shape != (source[-1], target[-1]):
            raise ValueError(
                f"skips: wanted a weight of shape {(source[-1], target[-1])} and a stride that makes {source} into "
                f"{target}, got a weight of shape {skip.weight.shape} and stride {skip.stride} in the {name}"
            )

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the input and of every layer."""
        return chain_of_groups(self.coupling, self.shape)

    # the contract

    def energy(self, state: State, x: Float[Array, "inputs"]) -> Float[Array, ""]:
        energy = jnp.zeros((), state[0].dtype)
        for k, (h, a) in enumerate(zip(state, self.drives(state, x), strict=True), 1):
            energy += 0.5 * jnp.sum((h - self.activation(k, a)) ** 2)
            if self.rectifier == "buffered" and k < len(state):
                energy += jnp.sum(h * jnp.where(a > 0, 0, -a))
        return energy

    @property
    def input_size(self) -> int:
        return int(np.prod(self.shape))

    def initial_state(self, x: Float[Array, "inputs"]) -> State:
        """The forward pass, which is the free equilibrium."""
        arguments.refuse_complex_input(x, parameter_dtype(self))
        if not _finite_if_known(x):
            raise ValueError("x: wanted finite inputs, got NaN or infinity")
        return self.predict(x)

    def read(self, state: State, x: Float[Array, "inputs"]) -> Float[Array, "outputs"]:
        return state[-1]

    def bounds(self, x: Float[Array, "inputs"]) -> tuple[State, State] | None:
        if self.rectifier == "free":
            return None
        dtype = parameter_dtype(self)
        hidden, output = self.shapes[1:-1], self.shapes[-1]
        lower = (*(jnp.zeros(shape, dtype) for shape in hidden), jnp.full(output, -jnp.inf, dtype))
        return lower, tuple(jnp.full(shape, jnp.inf, dtype) for shape in (*hidden, output))

    def force_scale(self, state: State, x: Float[Array, "inputs"]) -> State:
        """|h| and what predicts it, and what the same sizes in the layers that it predicts send back (`Strength`)."""
        meeting = [jnp.abs(h) + jnp.abs(b) for h, b in zip(state, self.bias, strict=True)]
        # what is clamped counts as a whole: its products are at hand
        meeting[0] = jnp.abs(state[0]) + jnp.abs(self.drive(1, state, x))
        links = [(Strength.of(self.coupling[k]), k, k + 1) for k in range(1, len(state))]
        links += [(Strength.of(skip), skip.source, skip.target) for skip in self.skips]
        for strength, source, target in links:
            meeting[target - 1] += strength.forward(self._layer(source, state, x))
        scale = list(meeting)
        for strength, source, target in links:
            if source > 0:
                scale[source - 1] += strength.backward(meeting[target - 1], state[source - 1].shape)
        return tuple(scale)

    def bound_stiffness(self, state: State, x: Float[Array, "inputs"]) -> State:
        """1, of the energy h^2/2 of every node."""
        return jax.tree.map(jnp.ones_like, state)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> PredictiveCodingNetwork:
        """A dense network for a data set: `sizes` hidden layers (by default two of 128 nodes)."""
        return cls.dense((n_inputs, *((128, 128) if sizes is None else sizes), n_outputs), key=key)

    def training_defaults(self) -> dict[str, Any]:
        """Nudges in the middle of the range over which results do not change, and Adam."""
        return {
            "beta": 0.1,
            "epochs": 40,
            "batch_size": 32,
            "optimiser": "adam",
            "learning_rate": 1e-3,
            "decay": 0.95,
            "bench": {"epsilon": 0.01, "beta": 1.0, "epochs": 15},
        }

    # the physics

    def errors(self, state: State, x: Float[Array, "inputs"]) -> State:
        """eps_k = h_k - f_k(h_{k-1}): what the layer before each layer fails to predict."""
        predictions = (self.activation(k, a) for k, a in enumerate(self.drives(state, x), 1))
        return tuple(h - f for h, f in zip(state, predictions, strict=True))

    def predict(self, x: Float[Array, "inputs"]) -> State:
        """The forward pass h_k = f_k(h_{k-1})."""
        state: list[Array] = []
        for k in range(1, len(self.coupling) + 1):
            state.append(self.activation(k, self.drive(k, state, x)))
        return tuple(state)

    def drive(self, k: int, state: Sequence[Array], x: Float[Array, "inputs"]) -> Float[Array, "..."]:
        """The pre-activation a_k of layer k, given the activities of the layers before it."""
        coupling = self.coupling[k - 1]
        before = self._layer(k - 1, state, x)
        a = coupling.forward(before.ravel() if isinstance(coupling, Dense) else before) + self.bias[k - 1]
        for skip in self.skips:
            if skip.target == k:
                a += skip.forward(self._layer(skip.source, state, x))
        return a

    def drives(self, state: Sequence[Array], x: Float[Array, "inputs"]) -> list[Float[Array, "..."]]:
        """The pre-activations of all layers."""
        return [self.drive(k, state, x) for k in range(1, len(self.coupling) + 1)]

    def activation(self, k: int, drive: Float[Array, "..."]) -> Float[Array, "..."]:
        """f_k as a function of its pre-activation: rectified in hidden layers."""
        return drive if k == len(self.coupling) else jax.nn.relu(drive)

    def settled(self, k: int, drive: Float[Array, "..."], feedback: Float[Array, "..."]) -> Float[Array, "..."]:
        """The activity of layer k that balances its pre-activation and a constant feedback."""
        if k == len(self.coupling):
            return drive + feedback
        if self.rectifier == "buffered":
            return jax.nn.relu(drive + feedback)
        moved = jax.nn.relu(drive) + feedback
        return moved if self.rectifier == "free" else jax.nn.relu(moved)

    def response(self, k: int, drive: Float[Array, "..."], feedback: Float[Array, "..."]) -> Float[Array, "..."]:
        """The error that a feedback makes, settled(drive, feedback) - activation(drive), without their cancellation."""
        if k == len(self.coupling) or self.rectifier == "free":
            return feedback
        held = jnp.maximum(feedback, -jax.nn.relu(drive))
        return jnp.where(drive > 0, held, jax.nn.relu(drive + feedback)) if self.rectifier == "buffered" else held

    def feedback(
        self,
        k: int,
        state: Sequence[Array],
        x: Float[Array, "inputs"],
        drives: Sequence[Array],
        errors: Sequence[Any],
    ) -> Float[Array, "..."]:
        """D_k = sum_j (df_j/dh_k)' eps_j over the layers j that layer k predicts: what pulls on layer k from above.

        The ReLU of layer j passes the errors of nodes with a_j > 0; with buffers all of them, for then -dE/da_j is the
        error on both sides of zero.
        """
        u = self._layer(k, state, x)
        through = self.rectifier == "buffered"
        gated = lambda j: (
            errors[j - 1] if through or j == len(self.coupling) else jnp.where(drives[j - 1] > 0, errors[j - 1], 0)
        )
        coupling = self.coupling[k]
        if isinstance(coupling, Dense):
            pull = coupling.backward(gated(k + 1)).reshape(u.shape)
        else:
            pull = coupling.backward(gated(k + 1), u)
        for skip in self.skips:
            if skip.source == k:
                pull += skip.backward(gated(skip.target), u)
        return pull

    def draw(self, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
        """Draws the layers with their activities and prediction errors; see `pictures.network`."""
        from substrates.classical.predictive_coding.pictures import network

        return network(self, state, x, ax)

    def _layer(self, k: int, state: Sequence[Array], x: Float[Array, "inputs"]) -> Float[Array, "..."]:
        if k > 0:
            return state[k - 1]
        if jnp.shape(x) not in (self.shape, (int(np.prod(self.shape)),)):
            raise ValueError(f"x: wanted shape {self.shape}, flat or not, got {jnp.shape(x)}")
        return jnp.reshape(x, self.shape).astype(parameter_dtype(self))

    # ways to build one

    @classmethod
    def dense(
        cls,
        sizes: Sequence[int],
        *,
        key: PRNGKeyArray,
        gain: float = 1.0,
        rectifier: Rectifier = "buffered",
        solver: Solver | None = None,
        dtype: Any = None,
    ) -> PredictiveCodingNetwork:
        """Layers of nodes, each fully coupled to the next; see `dense_network` for the arguments."""
        from substrates.classical.predictive_coding.build import dense_network

        return dense_network(sizes, key=key, gain=gain, rectifier=rectifier, solver=solver, dtype=dtype)

    @classmethod
    def convolutional(
        cls,
        shape: tuple[int, int, int],
        channels: Sequence[int],
        dense: Sequence[int],
        *,
        key: PRNGKeyArray,
        **options: Any,
    ) -> PredictiveCodingNetwork:
        """Feature maps, then dense layers; see `convolutional_network` for the arguments."""
        from substrates.classical.predictive_coding.build import convolutional_network

        return convolutional_network(shape, channels, dense, key=key, **options)

    @classmethod
    def vgg5(
        cls,
        shape: tuple[int, int, int] = (32, 32, 3),
        n_outputs: int = 10,
        *,
        key: PRNGKeyArray,
        width: float = 1.0,
        **options: Any,
    ) -> PredictiveCodingNetwork:
        """The published five-layer network: 128, 256-P, 512-P, 512-P channels, dense; see `vgg5`."""
        from substrates.classical.predictive_coding.build import vgg5

        return vgg5(shape, n_outputs, key=key, width=width, **options)

    @classmethod
    def vgg10(
        cls,
        shape: tuple[int, int, int] = (224, 224, 3),
        n_outputs: int = 1000,
        *,
        key: PRNGKeyArray,
        width: float = 1.0,
        **options: Any,
    ) -> PredictiveCodingNetwork:
        """The published ten-layer network for ImageNet; see `vgg10`."""
        from substrates.classical.predictive_coding.build import vgg10

        return vgg10(shape, n_outputs, key=key, width=width, **options)


def _finite_if_known(array: Any) -> bool:
    """Whether all entries are finite; arrays that compiled code traces have none yet."""
    return isinstance(array, Tracer | jax.ShapeDtypeStruct) or bool(np.all(np.isfinite(np.asarray(array))))
