"""Predictive coding networks: each layer of activities is predicted by the layer before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray

from substrates import arguments
from substrates.classical.predictive_coding.build import Fan, convolutional_fields, dense_fields, scaled
from substrates.classical.predictive_coding.error_sweep import ErrorSweep
from substrates.classical.predictive_coding.layers import Rectifier, Skip, State
from substrates.classical.predictive_coding.pictures import draw_layers
from substrates.classical.predictive_coding.stacks import Stack, Strengths, joined, largest, runs, separated
from substrates.solvers.solver import Solver
from substrates.substrate import Substrate, parameter_dtype, split_parameters
from substrates.wiring import Convolution, Dense, Pooling, Strength, added, chain_of_groups
from substrates.wiring.layers import as_group, feed, feed_back, hidden_between, lifted
from substrates.wiring.near import near

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    holomorphic: ClassVar[bool] = False

    # the contract

    def energy(self, state: State, x: Float[Array, "inputs"]) -> Float[Array, ""]:
        net, state = self.stacked(), self.stack(state)
        energy = jnp.zeros((), state[0].dtype)
        for k, (h, a) in enumerate(zip(state, net.drives(state, x), strict=True), 1):
            energy += 0.5 * jnp.sum((h - net.activation(k, a)) ** 2)
            if self.rectifier == "buffered" and k < len(state):
                energy += jnp.sum(h * jnp.where(a > 0, 0, -a))
        return energy

    @property
    def input_size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.shape

    def check_input(self, x: Float[Array, "inputs"]) -> None:
        """Raises ValueError for other shapes, complex numbers and, where they are known, for NaN and infinity."""
        super().check_input(x)
        if not _finite_if_known(x):
            raise ValueError("x: wanted finite inputs, got NaN or infinity")

    def initial_state(self, x: Float[Array, "inputs"]) -> State:
        """The forward pass, which is the free equilibrium."""
        self.check_input(x)
        return self.predict(x)

    def read(self, state: State, x: Float[Array, "inputs"]) -> Float[Array, "outputs"]:
        return state[-1]

    def bounds(self, x: Float[Array, "inputs"]) -> tuple[State, State] | None:
        free = self.rectifier == "free"
        return None if free else hidden_between(0, jnp.inf, self.shapes, parameter_dtype(self))

    def force_scale(self, state: State, x: Float[Array, "inputs"]) -> State:
        """|h| and what predicts it, and what the same sizes in the layers that it predicts send back (`Strength`)."""
        net, state = self.stacked(), self.stack(state)
        stacks = [isinstance(coupling, Stack) for coupling in net.coupling]
        meeting = [added(jnp.abs(h), jnp.abs(b)) for h, b in zip(state, net.bias, strict=True)]
        # what is clamped counts as a whole: its products are at hand
        meeting[0] = jnp.abs(state[0]) + jnp.abs(net.drive(1, state, x))
        of = lambda k: (Strengths if stacks[k] else Strength).of(net.coupling[k].weight)
        links = [(of(k), k, k + 1, net._below(k + 1, state, x)) for k in range(1, len(state))]
        for skip in net.skips:
            links.append((Strength.of(skip.weight), skip.source, skip.target, net._layer(skip.source, state, x)))
        for strength, _, target, u in links:
            meeting[target - 1] = added(meeting[target - 1], strength.forward(u))
        scale = list(meeting)
        for strength, source, target, u in links:
            if source > 0:
                sent = strength.backward(meeting[target - 1], u.shape)
                if stacks[target - 1]:
                    scale[target - 1] = scale[target - 1].at[:-1].add(sent[1:])
                    sent = sent[0]
                if stacks[source - 1]:
                    scale[source - 1] = scale[source - 1].at[-1].add(sent)
                else:
                    scale[source - 1] = added(scale[source - 1], sent)
        return self.unstack(scale)

    def bound_stiffness(self, state: State, x: Float[Array, "inputs"]) -> State:
        """1, of the energy h^2/2 of every node."""
        return jax.tree.map(jnp.ones_like, state)

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
        net, state = self.stacked(), []
        for k in range(1, len(net.coupling) + 1):
            state.append(net.forward(k, state, x, lambda a, k=k: net.activation(k, a))[1])
        return self.unstack(state)

    def drive(self, k: int, state: Sequence[Array], x: Float[Array, "inputs"]) -> Float[Array, "..."]:
        """The pre-activation a_k of layer k, given the activities of the layers before it."""
        a = added(feed(self.coupling[k - 1], self._below(k, state, x)), self.bias[k - 1])
        for skip in self.skips:
            if skip.target == k:
                a += skip.forward(self._layer(skip.source, state, x))
        return a

    def drives(self, state: State, x: Float[Array, "inputs"]) -> State:
        """The pre-activations of all layers."""
        net, state = self.stacked(), self.stack(state)
        return self.unstack([net.drive(k, state, x) for k in range(1, len(state) + 1)])

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
        errors: Sequence[Array],
    ) -> Float[Array, "..."]:
        """D_k = sum_j (df_j/dh_k)' eps_j over the layers j that layer k predicts: what pulls on layer k from above.

        The ReLU of layer j passes the errors of nodes with a_j > 0; with buffers all of them, for then -dE/da_j is the
        error on both sides of zero.
        """
        pull = self._from_above(k, state, x, drives, errors)
        coupling = self.coupling[k - 1]
        if not isinstance(coupling, Stack):
            return pull
        inside = coupling.backward(self._passed(k, drives[k - 1], errors[k - 1]))[1:]
        return jnp.concatenate([inside, pull[None]])

    def _from_above(
        self, k: int, state: Sequence[Array], x: Array, drives: Sequence[Array], errors: Sequence[Array]
    ) -> Array:
        u = self._layer(k, state, x)
        passed = lambda j: self._passed(j, drives[j - 1], errors[j - 1])
        above, error = self.coupling[k], passed(k + 1)
        if isinstance(above, Stack):
            above, error = Dense(above.weight[0]), error[0]
        pull = feed_back(above, error, u)
        for skip in self.skips:
            if skip.source == k:
                pull += skip.backward(passed(skip.target), u)
        return pull

    def _passed(self, k: int, drive: Array, error: Array) -> Array:
        through = self.rectifier == "buffered" or k == len(self.coupling)
        return error if through else jnp.where(drive > 0, error, 0)

    def _layer(self, k: int, state: Sequence[Array], x: Float[Array, "inputs"]) -> Float[Array, "..."]:
        if k == 0:
            return as_group(x, self.shape, parameter_dtype(self))
        return state[k - 1][-1] if isinstance(self.coupling[k - 1], Stack) else state[k - 1]

    def _below(self, k: int, state: Sequence[Array], x: Float[Array, "inputs"]) -> Float[Array, "..."]:
        u, coupling = self._layer(k - 1, state, x), self.coupling[k - 1]
        return coupling.below(u, state[k - 1]) if isinstance(coupling, Stack) else u

    def near(
        self,
        rough: Sequence[Dense | Convolution],
        state: Sequence[Array],
        x: Float[Array, "inputs"],
        drives: Sequence[Array] = (),
        errors: Sequence[Array] = (),
    ) -> Self:
        """The network with couplings that multiply changes of the activities and errors from here in bfloat16; those of
        the input, of skips and of stacks stay.

        Args:
            rough: its couplings, `roughly` the same.
            state: the activities from which changes count.
            x: the input.
            drives, errors: those of all layers there; without them errors are multiplied as they are.
        """
        couplings = list(self.coupling)
        for k, coupling in enumerate(self.coupling[1:], 2):
            if not isinstance(coupling, Stack):
                u = self._below(k, state, x)
                v = self._passed(k, drives[k - 1], errors[k - 1]) if errors else None
                couplings[k - 1] = near(coupling, rough[k - 1], u, lifted(coupling, u), v)
        return eqx.tree_at(lambda net: net.coupling, self, tuple(couplings))

    # runs of equal layers, for short programs

    def stacked(self) -> Self:
        """The network with its `runs` of equal layers as one `Stack` each, in place of as many layers; itself without.

        The state, drives and errors of a stack have an axis of layers in front. It is for solvers, and for what they
        ask of a system; only the methods between the layers know of it.
        """
        cut = self._runs
        if len(cut) == len(self.coupling):
            return self
        weights = self.stack([c.weight for c in self.coupling])
        coupling = tuple(
            Stack(weight) if len(run) > 1 else self.coupling[run[0]] for run, weight in zip(cut, weights, strict=True)
        )
        number = {0: 0} | {run[-1] + 1: k for k, run in enumerate(cut, 1)}
        skips = tuple(Skip(s.weight, number[s.source], number[s.target], s.stride) for s in self.skips)
        fields = {"coupling": coupling, "bias": self.stack(self.bias)} | ({"skips": skips} if skips else {})
        return eqx.tree_at(lambda net: [getattr(net, name) for name in fields], self, list(fields.values()))

    @property
    def _runs(self) -> list[range]:
        # a subclass may treat every layer in its own way
        known = type(self) is PredictiveCodingNetwork
        return runs(self.coupling, self.skips) if known else [range(k, k + 1) for k in range(len(self.coupling))]

    def stack(self, values: Sequence[Array]) -> State:
        """What belongs to layers, as the `stacked` network has it."""
        parts = ([values[k] for k in run] for run in self._runs)
        return tuple(joined(part) if len(part) > 1 else part[0] for part in parts)

    def unstack(self, values: Sequence[Array]) -> State:
        """What belongs to the layers of the `stacked` network, layer by layer."""
        parts = zip(values, self._runs, strict=True)
        return tuple(layer for part, run in parts for layer in (separated(part) if len(run) > 1 else [part]))

    def _mean_gradient(self, states: State, xs: Array, nudges: Any, holomorphic: bool = False) -> Self:
        net = self.stacked()
        if net is self:
            return super()._mean_gradient(states, xs, nudges, holomorphic)
        found = net._mean_gradient(jax.vmap(self.stack)(states), xs, nudges, holomorphic)
        weights = [*self.unstack([c.weight for c in found.coupling]), *(skip.weight for skip in found.skips)]
        own = lambda net: [*(part.weight for part in (*net.coupling, *(net.skips if self.skips else ()))), *net.bias]
        return eqx.tree_at(own, split_parameters(self)[0], [*weights, *self.unstack(found.bias)])

    def numbers(self, k: int) -> range:
        """The numbers of the layers in part k, the first layer being 1."""
        counts = [len(c.weight) if isinstance(c, Stack) else 1 for c in self.coupling[:k]]
        return range(sum(counts[:-1]) + 1, sum(counts) + 1)

    def largest(self, k: int, values: Float[Array, "..."]) -> Float[Array, "..."]:
        """The largest magnitude in layer k, of a stack that in each of its layers."""
        return largest(values) if isinstance(self.coupling[k - 1], Stack) else jnp.max(jnp.abs(values))

    def forward(
        self,
        k: int,
        state: Sequence[Array],
        x: Float[Array, "inputs"],
        settle: Callable[..., Array],
        *pull: Float[Array, "..."],
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(a_k, settle(a_k, pull)): one layer onwards, or the layers of a stack one after the other."""
        coupling = self.coupling[k - 1]
        if not isinstance(coupling, Stack):
            drive = self.drive(k, state, x)
            return drive, settle(drive, *pull)

        def onwards(h: Array, layer: tuple) -> tuple[Array, tuple]:
            weight, bias, *pull = layer
            drive = Dense(weight).forward(h) + bias
            h = settle(drive, *pull)
            return h, (drive, h)

        return jax.lax.scan(onwards, self._layer(k - 1, state, x), (coupling.weight, self.bias[k - 1], *pull))[1]

    def backward(
        self,
        k: int,
        state: Sequence[Array],
        x: Float[Array, "inputs"],
        drives: Sequence[Array],
        errors: Sequence[Array],
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(D_k, its `response`) by the errors above: one layer back, or the layers of a stack one after the other."""
        pull, coupling = self._from_above(k, state, x, drives, errors), self.coupling[k - 1]
        if not isinstance(coupling, Stack):
            return pull, self.response(k, drives[k - 1], pull)

        def back(pull: Array, layer: tuple) -> tuple[Array, tuple]:
            weight, drive = layer
            error = self.response(k, drive, pull)
            return Dense(weight).backward(self._passed(k, drive, error)), (pull, error)

        return jax.lax.scan(back, pull, (coupling.weight, drives[k - 1]), reverse=True)[1]

    def draw(self, state: State | None = None, x: Any = None, ax: Axes | None = None) -> Axes:
        """Draws a column for the input and two for every layer: its activities h_k and its prediction errors eps_k.

        Each column has colours of its own range, written below it: under a nudge the errors are of order beta. In a
        free equilibrium they are zero.

        Args:
            state: an equilibrium state; None with an x takes the free equilibrium, None without one draws bare layers.
            x: the input.
            ax: where to draw; None opens a new figure.

        Raises ValueError for a state without the input that belongs to it.
        """
        if x is None:
            return draw_layers(self.shapes, None, ax)
        x = jnp.asarray(x, self.bias[0].dtype)
        state = self.predict(x) if state is None else state
        pairs = zip(state, self.errors(state, x), strict=True)
        return draw_layers(self.shapes, [x, *(column for pair in pairs for column in pair)], ax)

    # its parts

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
            skip.check(shapes)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the input and of every layer."""
        shapes = chain_of_groups(self.coupling, self.shape)
        stacked = lambda c, shape: (len(c.weight), *shape) if isinstance(c, Stack) else shape
        return shapes[0], *map(stacked, self.coupling, shapes[1:])

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
    ) -> Self:
        """Layers of nodes, each fully coupled to the next, all numbers uniform in gain / sqrt(fan in) (-1, 1).

        Args:
            sizes: the numbers of inputs, of nodes in each hidden layer, and of outputs.
            key: draws the weights and biases.
            gain: scales them.
            rectifier: what hidden activities may do.
            solver: how it settles; by default `ErrorSweep()`, until converged.
            dtype: of the parameters; JAX's default if None.

        Raises:
            ValueError: for sizes that are not at least two positive integers, and a gain that is not positive and
                finite.
        """
        solver = ErrorSweep() if solver is None else solver
        return cls(**dense_fields(sizes, key, gain, dtype), rectifier=rectifier, solver=solver)

    @classmethod
    def convolutional(
        cls,
        shape: Sequence[int],
        channels: Sequence[int],
        dense: Sequence[int],
        *,
        key: PRNGKeyArray,
        pooled: Sequence[int] = (),
        pooling: Pooling = "max",
        skips: Sequence[tuple[int, int]] = (),
        gain: float = 1.0,
        fan: Fan = "in",
        rectifier: Rectifier = "buffered",
        solver: Solver | None = None,
        dtype: Any = None,
    ) -> Self:
        """Feature maps joined by 3x3 convolutions of stride one with a border of zeros, some pooled, then dense layers.

        Args:
            shape: of the input, (height, width, channels).
            channels: of each convolutional layer.
            dense: the numbers of nodes in each layer after them; the last one is read.
            key: draws the weights, uniform in gain / sqrt(fan) (-1, 1).
            pooled: the numbers of the layers, the first being 1, whose maps are pooled by 2x2.
            pooling: "max", "average" or "soft".
            skips: pairs (source, target) of layers joined by a 1x1 convolution with the stride that makes one's maps
                the other's; 0 is the input.
            gain: scales the weights.
            fan: "in" or "out", what the convolutions' weights are scaled by; dense layers and skips use "in".
            rectifier: what hidden activities may do.
            solver: how it settles; by default `ErrorSweep()`, until converged, but for maximum pooling two sweeps
                without a test: there a nudge brings the largest entries of a window to a tie, where no force vanishes.
            dtype: of the parameters; JAX's default if None.

        Raises:
            ValueError: for sizes that are no positive integers, windows that do not divide the maps, layers to pool
                or to skip that do not exist or do not fit.
        """
        fields = convolutional_fields(shape, channels, dense, key, pooled, pooling, skips, gain, fan, dtype)
        solver = ErrorSweep(2 if pooled and pooling == "max" else None) if solver is None else solver
        return cls(**fields, rectifier=rectifier, solver=solver)

    @classmethod
    def vgg5(
        cls,
        shape: Sequence[int] = (32, 32, 3),
        n_outputs: int = 10,
        *,
        key: PRNGKeyArray,
        width: float = 1.0,
        **options: Any,
    ) -> Self:
        """Channels 128, 256-P, 512-P, 512-P, 512-P (P: pooled), then the outputs: for inputs of 32x32.

        Args:
            shape: of the input; its sides must be multiples of 16.
            n_outputs: how many classes.
            key: draws the weights.
            width: a factor on the numbers of channels.
            options: of `convolutional`.

        Source: Kerjan, Hoier and Scellier 2026, arXiv 2606.03584.
        """
        channels = scaled((128, 256, 512, 512, 512), width)
        return cls.convolutional(shape, channels, (n_outputs,), key=key, **{"pooled": (2, 3, 4, 5), **options})

    @classmethod
    def vgg10(
        cls,
        shape: Sequence[int] = (224, 224, 3),
        n_outputs: int = 1000,
        *,
        key: PRNGKeyArray,
        width: float = 1.0,
        **options: Any,
    ) -> Self:
        """Channels 64-P, 128-P, 256, 256-P, 512, 512-P, 512, 512-P, then 2048 nodes and the outputs: for ImageNet.

        Args:
            shape: of the input; its sides must be multiples of 32.
            n_outputs: how many classes.
            key: draws the weights.
            width: a factor on the numbers of channels and of nodes in the dense hidden layer.
            options: of `convolutional`; the published skip connections are skips=((2, 5), (5, 8)).

        Source: Kerjan, Hoier and Scellier 2026, arXiv 2606.03584.
        """
        channels = scaled((64, 128, 256, 256, 512, 512, 512, 512), width)
        dense = (*scaled((2048,), width), n_outputs)
        return cls.convolutional(
            shape, channels, dense, key=key, **{"pooled": (1, 2, 4, 6, 8), "fan": "out", **options}
        )

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> Self:
        """A dense network for a data set: `sizes` hidden layers (by default two of 128 nodes)."""
        return cls.dense((n_inputs, *((128, 128) if sizes is None else sizes), n_outputs), key=key)


def _finite_if_known(array: Any) -> bool:
    """Whether all entries are finite; arrays that compiled code traces have none yet."""
    return isinstance(array, Tracer | jax.ShapeDtypeStruct) or bool(np.all(np.isfinite(np.asarray(array))))
