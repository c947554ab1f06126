"""Recurrent networks without an energy: layers joined by one-way connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from substrates import arguments
from substrates.activation import Activation, activity, slope
from substrates.classical.recurrent.build import convolutional_fields, graph_fields, layered_fields
from substrates.classical.recurrent.connection import Connection
from substrates.classical.recurrent.pictures import draw_connections
from substrates.classical.recurrent.same_updates import mean_of
from substrates.nudge import Nudge, Pin
from substrates.solvers.anderson import Anderson
from substrates.solvers.meeting import slopes
from substrates.solvers.stability import Motion
from substrates.substrate import Solver, Substrate
from substrates.wiring import Convolution, Pooling, Strength, added
from substrates.wiring.layers import as_group

if TYPE_CHECKING:
    from matplotlib.axes import Axes

State = tuple[Inexact[Array, "..."], ...]


class RecurrentNetwork(Substrate):
    """Layers of smooth units joined by one-way connections, each with weights of its own: a force without an energy.

    The state holds what units feel, u_k, and their activities are s_k = rho(u_k); outputs are linear, s_L = u_L, and
    s_0 = x is clamped. With a_k what the connections j -> k and the bias bring to layer k,

        force_k = rho'(u_k) (a_k - u_k),     a_k = b_k + sum_j W_kj s_j,

    the pull on the activities of a layer times what they move: where W_jk = W_kj' for every pair of layers it is
    -dE/du for the energy of `SmoothHopfieldNetwork`, and its Jacobian is symmetric. (The same equation without the
    factor rho' has a Jacobian -1 + W rho' that is not, however symmetric the weights.) Activities and forces have no
    unit.

    An equilibrium is a fixed point of the flow du/dt = force; one that the flow would leave is `unstable`, and
    `stability` tells by how much. `EquilibriumPropagation` trains it as any other system, and finds
    -(dforce/dtheta)' J^-1 dC/du where the gradient is -(dforce/dtheta)' J'^-1 dC/du: a bias that is linear in the
    antisymmetric part of J. `AdjointResponse` removes it exactly; `SameUpdates` and `JacobianHomeostasis` shrink it
    while the network learns.

    Attributes:
        connection: any number of `Connection`, several into one layer, backward and past layers, to itself too.
        bias: b_k of each layer after the input, shape (units,), or (channels,) for feature maps.
        shapes: of the input and of the layers after it: (units,), or (height, width, channels); the last is of units.
        activation: "sigmoid", between 0 and 1, or "tanh", between -1 and 1.

    The state is the tuple of what the layers after the input feel.

    Raises:
        ValueError: for connections and biases that do not fit the layers, layers that nothing reaches, another
            activation, and maximum pooling, which is not smooth.

    Source: Scellier, Goyal, Binas, Mesnard and Bengio 2018, arXiv 1808.04873; Laborieux and Zenke 2024, arXiv
    2309.02214.
    """

    solver: ClassVar[Solver] = Anderson()

    connection: tuple[Connection, ...]
    bias: tuple[Float[Array, "units"], ...]
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    activation: Activation = eqx.field(static=True, default="sigmoid")

    # the contract

    def force(self, state: State, x: Float[Array, "..."]) -> State:
        felt = self.felt(state, x)
        pulls = [a - u for a, u in zip(felt, state, strict=True)]
        return (*(slope(self.activation, u) * p for u, p in zip(state[:-1], pulls, strict=False)), pulls[-1])

    def initial_state(self, x: Float[Array, "..."]) -> State:
        """One pass along the connections that lead to later layers, without what comes back."""
        activities = [self.clamped(x)]
        state = []
        for layer, bias in enumerate(self.bias, 1):
            total = jnp.broadcast_to(added(bias, jnp.zeros(self.shapes[layer], bias.dtype)), self.shapes[layer])
            for c in self.connection:
                if c.target == layer and c.source < layer and not c.transposed:
                    total = total + c.felt(activities).reshape(self.shapes[layer])
            state.append(total)
            activities.append(activity(self.activation, total))
        return tuple(state)

    def read(self, state: State, x: Float[Array, "..."]) -> Inexact[Array, "outputs"]:
        return state[-1]

    def bound_stiffness(self, state: State, x: Float[Array, "..."]) -> State:
        """rho'(u), how stiffly a unit keeps to what it feels; 1 for outputs."""
        return (*(slope(self.activation, u) for u in state[:-1]), jnp.ones_like(state[-1]))

    def force_scale(self, state: State, x: Float[Array, "..."]) -> State:
        """rho'(u) (|u| + |b| + a bound of what each connection sends)."""
        activities = self.activities(state, x)
        sizes = [added(jnp.abs(u), jnp.abs(b)) for u, b in zip(state, self.bias, strict=True)]
        for c in self.connection:
            meeting = c.meeting(Strength.of(c.coupling.weight), activities, self.shapes[c.target])
            sizes[c.target - 1] = added(sizes[c.target - 1], self._fitted(meeting, c.target))
        stiffness = self.bound_stiffness(state, x)
        return tuple(jnp.abs(k) * size for k, size in zip(stiffness, sizes, strict=True))

    def training_defaults(self) -> dict[str, Any]:
        """Centred nudges of 1/4, and one learning rate for all."""
        return {"beta": 0.25, "epochs": 40, "batch_size": 8, "optimiser": "adam", "learning_rate": 0.003}

    # the physics

    def activities(self, state: State, x: Float[Array, "..."]) -> State:
        """The input, rho(u) of the hidden layers, and the outputs."""
        return (self.clamped(x), *(activity(self.activation, u) for u in state[:-1]), state[-1])

    def felt(self, state: State, x: Float[Array, "..."]) -> State:
        """a_k: what every layer is brought by its bias and its connections."""
        activities = self.activities(state, x)
        felt = [added(b, jnp.zeros(shape, b.dtype)) for b, shape in zip(self.bias, self.shapes[1:], strict=True)]
        for c in self.connection:
            felt[c.target - 1] = felt[c.target - 1] + c.felt(activities).reshape(self.shapes[c.target])
        return tuple(felt)

    def jacobian(self, state: State, x: Float[Array, "..."]) -> Inexact[Array, "n n"]:
        """J = dforce/du, of all layers in a row; its antisymmetric part is what equilibrium propagation errs by."""
        flat, unravel = ravel_pytree(state)
        return slopes(lambda u: ravel_pytree(self.force(unravel(u), x))[0], flat)[1]

    def stability(self, state: State, x: Float[Array, "..."], nudge: Nudge | Pin | None = None) -> Float[Array, ""]:
        """The largest real part of the eigenvalues of the Jacobian of the total force: below 0 where the flow stays.

        In units of one over the time in which an output follows what it feels; see `solvers.stability`.
        """
        flat, unravel = ravel_pytree(state)
        force = lambda u: ravel_pytree(self.total_force(unravel(u), x, nudge))[0]
        return Motion.about(flat, force).spectral_abscissa()

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """The numbers of two connections each that lead there and back by weights of the same shape."""
        numbered = list(enumerate(self.connection))
        return tuple((i, j) for i, a in numbered for j, b in numbered[i + 1 :] if a.returns(b))

    def shared(self, gradient: Self) -> Self:
        """A gradient in which both weights of each of the `pairs` have their mean: see `SameUpdates`."""
        couplings = [c.coupling for c in gradient.connection]
        for i, j in self.pairs:
            couplings[i] = couplings[j] = mean_of(couplings[i], couplings[j])
        return eqx.tree_at(lambda net: [c.coupling for c in net.connection], gradient, couplings)

    def draw(self, state: State | None = None, x: Any = None, ax: Axes | None = None) -> Axes:
        """Draws the layers, coloured by activity, and an arrow for each connection.

        Args:
            state: a state; None with an x settles the network, None without one draws it bare.
            x: the input that belongs to the state.
            ax: where to draw; None opens a new figure.
        """
        if state is None and x is not None:
            state = self.relax(jnp.asarray(x)).state
        values = None if state is None else self.activities(state, jnp.asarray(x))
        arrows = [(c.source, c.target, float(jnp.sqrt(jnp.mean(c.coupling.weight**2)))) for c in self.connection]
        return draw_connections(self.shapes, values, arrows, ax)

    # its parts

    def __check_init__(self):
        if self.activation not in get_args(Activation):
            raise ValueError(f"activation: wanted one of {get_args(Activation)}, got {self.activation!r}")
        if len(self.shapes) < 2 or len(self.shapes[-1]) != 1:
            raise ValueError(f"shapes: wanted those of an input and of at least outputs (units,), got {self.shapes}")
        arguments.refuse_complex("connection", *(c.coupling.weight for c in self.connection))
        arguments.refuse_complex("bias", *self.bias)
        if len(self.bias) != len(self.shapes) - 1:
            raise ValueError(
                f"bias: wanted one vector for each of the {len(self.shapes) - 1} layers after the input, "
                f"got {len(self.bias)}"
            )
        for k, (bias, shape) in enumerate(zip(self.bias, self.shapes[1:], strict=True)):
            if jnp.shape(bias) != shape[-1:]:
                raise ValueError(f"bias[{k}]: wanted shape {shape[-1:]}, got {jnp.shape(bias)}")
        for k, c in enumerate(self.connection):
            c.check(f"connection[{k}]", self.shapes)
            if isinstance(c.coupling, Convolution) and c.coupling.pooling == "max":
                raise ValueError("pooling: wanted None, 'average' or 'soft', which are smooth, got 'max'")
        reached = {c.target for c in self.connection}
        alone = [k for k in range(1, len(self.shapes)) if k not in reached]
        if alone:
            raise ValueError(f"connection: wanted at least one into every layer after the input, got none into {alone}")

    @property
    def input_size(self) -> int:
        return int(np.prod(self.shapes[0]))

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.shapes[0]

    def clamped(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The input as connections see it, in its own shape."""
        return as_group(x, self.shapes[0], self.bias[0].dtype)

    def _fitted(self, sizes: Array, layer: int) -> Array:
        """Sizes for each node of a layer, or for each of its channels."""
        return sizes.reshape(self.shapes[layer]) if sizes.size == int(np.prod(self.shapes[layer])) else sizes

    # ways to build one

    @classmethod
    def layered(
        cls,
        sizes: Sequence[int],
        *,
        key: PRNGKeyArray,
        angle: float = 90.0,
        activation: Activation = "sigmoid",
        gain: float | Sequence[float] = 1.0,
        dtype: Any = None,
    ) -> Self:
        """Dense layers in a chain, joined there and back by weights of their own, and no bias.

        Forward weights W are uniform in gain / sqrt(n_before) times (-1, 1), and feedback weights
        B = cos(angle) W + sin(angle) R with R drawn likewise.

        Args:
            sizes: the numbers of inputs, of units in each hidden layer, and of outputs.
            key: draws the weights.
            angle: between forward and feedback weights, in degrees: 0 ties them at the start, 90 makes them
                independent.
            activation: "sigmoid" or "tanh".
            gain: one number, or one for each pair of layers.
            dtype: of the parameters; JAX's default if None.

        Raises:
            ValueError: for sizes that are not at least two positive integers, an angle outside 0 to 180, and gains
                that are not positive and finite.

        Source: Laborieux and Zenke 2024, arXiv 2309.02214, for the angle.
        """
        return cls(**layered_fields(sizes, key, angle, gain, dtype), activation=activation)

    @classmethod
    def from_connections(
        cls,
        sizes: Sequence[int],
        connections: Sequence[tuple[int, int]],
        *,
        key: PRNGKeyArray,
        activation: Activation = "sigmoid",
        gain: float | Sequence[float] = 1.0,
        dtype: Any = None,
    ) -> Self:
        """Dense layers joined by any connections: forward, backward, past layers, in loops.

        Args:
            sizes: the numbers of inputs, of units in each hidden layer, and of outputs.
            connections: pairs (source, target) of layers; 0 is the input.
            key: draws the weights, uniform in gain / sqrt(n_source) times (-1, 1).
            activation: "sigmoid" or "tanh".
            gain: one number, or one for each connection.
            dtype: of the parameters; JAX's default if None.

        Raises:
            ValueError: as `layered`, and for connections that are no pairs of layers, lead to the input or leave a
                layer unreached.
        """
        return cls(**graph_fields(sizes, connections, key, gain, dtype), activation=activation)

    @classmethod
    def convolutional(
        cls,
        input_shape: Sequence[int],
        channels: Sequence[int],
        n_outputs: int,
        *,
        key: PRNGKeyArray,
        angle: float = 90.0,
        activation: Activation = "sigmoid",
        pooling: Pooling | None = "soft",
        kernel: int = 3,
        padding: int = 1,
        gain: float | Sequence[float] = 0.5,
        dtype: Any = None,
    ) -> Self:
        """Layers of feature maps, each a convolution and 2x2 pooling of the one before, and dense outputs; what leads
        back has kernels of its own.

        Args:
            input_shape: (height, width, channels) of the images.
            channels: of each hidden layer, at least one.
            n_outputs: how many outputs.
            key: draws the weights, uniform in gain / sqrt(fan-in) times (-1, 1).
            angle: between forward and feedback weights, in degrees, as of `layered`.
            activation: "sigmoid" or "tanh".
            pooling: None, "average" or "soft", the published choice.
            kernel: the side of every kernel.
            padding: zeros added on each side before a convolution.
            gain: one number, or one for each pair of layers.
            dtype: of the parameters; JAX's default if None.

        Raises:
            ValueError: for numbers that are not positive, windows of pooling that do not divide the maps, and maximum
                pooling.

        Source: Laborieux and Zenke 2024, arXiv 2309.02214.
        """
        fields = convolutional_fields(
            input_shape, channels, n_outputs, key, angle, pooling, kernel, padding, gain, dtype
        )
        return cls(**fields, activation=activation)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> Self:
        """A chain of dense layers with untied weights: `sizes` hidden layers (by default one of 64 units)."""
        return cls.layered((n_inputs, *((64,) if sizes is None else sizes), n_outputs), key=key)
