"""Deep Hopfield networks of smooth units, which settle under complex nudges too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, get_args

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, PyTree

from substrates.activation import Activation, activity, own_energy, slope
from substrates.classical.hopfield.base import CoupledLayers
from substrates.classical.hopfield.block_descent import BlockDescent
from substrates.classical.hopfield.build import convolutional_fields, layered_fields
from substrates.classical.hopfield.layers import State, meeting_layers
from substrates.classical.hopfield.network import HopfieldNetwork
from substrates.classical.hopfield.unit import Unit, smooth_unit
from substrates.nudge import Nudge, Pin
from substrates.solvers.generic import DescendThenPolish
from substrates.substrate import Solver
from substrates.wiring import Convolution, Pooling, Strength, added
from substrates.wiring.layers import feed


class SmoothHopfieldNetwork(CoupledLayers):
    """A deep Hopfield network with a smooth activation rho, holomorphic in every state and parameter.

    The state holds what units feel, u_k, and their activities are s_k = rho(u_k); outputs are linear, s_L = u_L. With
    R the integral of rho (u^2/2 for the outputs),

        E = sum_k [<u_k, s_k> - R(u_k)] - sum_k <s_k, P(w_k * s_(k-1))> - sum_k <b_k, s_k>,     s_0 = x,

    with force -rho'(u) (u - a), where a is what a unit feels from the layers before and after it. So at equilibrium
    u = a, and every hidden activity is rho(a). The first bracket is the Legendre transform of R at the activity. For
    the sigmoid it is minus the entropy of a unit that is 1 with probability s, and E the mean-field free energy of a
    Boltzmann machine at temperature 1. Written in u it has no branch cut between the poles of rho, at Im u = pi for the
    sigmoid and pi/2 for tanh, which bound how far a complex nudge may carry a unit. Energies and activities have no
    unit.

    Attributes:
        coupling: w_k between successive layers, each a `Dense` or a `Convolution`; the last is dense.
        bias: b_k of each layer after the input, shape (units,), or (channels,) for feature maps.
        input_shape: (units,), or (height, width, channels) for images; x may be given flat.
        activation: "sigmoid", between 0 and 1, or "tanh", between -1 and 1.

    The state is the tuple of what the layers after the input feel. It settles layer by layer, as hard units do, under
    complex nudges too; with soft pooling by the solver for any substrate.

    Raises:
        ValueError: for couplings that do not fit together, biases of the wrong size, a last coupling that is not dense,
            another activation, and maximum pooling, which is not smooth.

    Source: Hopfield 1984, for the energy of graded units; Laborieux and Zenke 2022, arXiv 2209.00530, for complex
    nudges of smooth units and soft pooling.
    """

    activation: Activation = eqx.field(static=True, default="sigmoid")

    # the contract

    def energy(self, state: State, x: Float[Array, "..."]) -> Inexact[Array, ""]:
        total = 0.5 * jnp.sum(state[-1] ** 2)
        for u in state[:-1]:
            total += jnp.sum(own_energy(self.activation, u))
        before = self.clamped(x)
        for coupling, bias, s in zip(self.coupling, self.bias, self.activities(state), strict=True):
            total -= jnp.sum(added(bias, feed(coupling, before)) * s)
            before = s
        return total

    def read(self, state: State, x: Float[Array, "..."]) -> Inexact[Array, "outputs"]:
        return state[-1]

    def bound_stiffness(self, state: State, x: Float[Array, "..."]) -> State:
        """rho'(u), how stiffly a unit keeps to what it feels; 1 for outputs."""
        return (*(slope(self.activation, u) for u in state[:-1]), jnp.ones_like(state[-1]))

    def force_scale(self, state: State, x: Float[Array, "..."]) -> State:
        """rho'(u) times |u| + |b| + a bound of what each neighbour sends; of the input, its field as a whole."""
        field = added(self.bias[0], feed(self.coupling[0], self.clamped(x)))
        strengths = tuple(Strength.of(c.weight) for c in self.coupling[1:])
        *hidden, last = meeting_layers(field, self.bias, strengths, state, self.unit)
        steep = [jnp.abs(slope(self.activation, u)) for u in state[:-1]]
        return (*(ds * size for ds, size in zip(steep, hidden, strict=True)), last)

    def contrast(
        self,
        plus: State,
        minus: State,
        xs: PyTree,
        nudges_plus: Nudge | Pin | None = None,
        nudges_minus: Nudge | Pin | None = None,
    ) -> Self:
        """`Substrate.contrast` between activities, which couplings join bilinearly: exact but for soft pooling."""
        hard = HopfieldNetwork(self.coupling, self.bias, self.input_shape)
        found = hard.contrast(self.activities(plus), self.activities(minus), xs)
        return eqx.tree_at(lambda net: (net.coupling, net.bias), self, (found.coupling, found.bias))

    def training_defaults(self) -> dict[str, Any]:
        """Centred nudges of 1/4, and one learning rate for all."""
        return {
            "beta": 0.25,
            "epochs": 40,
            "batch_size": 8,
            "optimiser": "adam",
            "learning_rate": 0.003,
            "bench": {"epsilon": 0.01, "beta": 1.0, "epochs": 15},
        }

    # the physics

    def activities(self, state: State) -> State:
        """rho(u) of the hidden layers, and the outputs."""
        return (*(activity(self.activation, u) for u in state[:-1]), state[-1])

    # its parts

    def __check_init__(self):
        if self.activation not in get_args(Activation):
            raise ValueError(f"activation: wanted one of {get_args(Activation)}, got {self.activation!r}")
        if any(isinstance(c, Convolution) and c.pooling == "max" for c in self.coupling):
            raise ValueError("pooling: wanted None, 'average' or 'soft', which are smooth, got 'max'")

    @property
    def unit(self) -> Unit:
        return smooth_unit(self.activation)

    @property
    def solver(self) -> Solver:  # type: ignore[override]
        """Layer by layer; with soft pooling, whose layers are no minimum given the others, that for any substrate."""
        return DescendThenPolish() if self.contrast_points > 1 else BlockDescent()

    @property
    def contrast_points(self) -> int:  # type: ignore[override]
        """1 where the interactions are bilinear; 2 with soft pooling."""
        return 2 if any(isinstance(c, Convolution) and c.pooling == "soft" for c in self.coupling) else 1

    # ways to build one

    @classmethod
    def layered(
        cls,
        sizes: Sequence[int],
        *,
        key: PRNGKeyArray,
        activation: Activation = "sigmoid",
        gain: float | Sequence[float] = 1.0,
        dtype: Any = None,
    ) -> Self:
        """Dense layers with random couplings, uniform in gain / sqrt(n_before) times (-1, 1), and no bias.

        Args:
            sizes: the numbers of inputs, of units in each hidden layer, and of outputs.
            key: draws the couplings.
            activation: "sigmoid" or "tanh".
            gain: one number, or one for each coupling.
            dtype: of the parameters; JAX's default if None.

        Raises:
            ValueError: for sizes that are not at least two positive integers, or gains that are not positive and
                finite.
        """
        return cls(**layered_fields(sizes, key, gain, dtype), activation=activation)

    @classmethod
    def convolutional(
        cls,
        input_shape: Sequence[int],
        channels: Sequence[int],
        n_outputs: int,
        *,
        key: PRNGKeyArray,
        activation: Activation = "sigmoid",
        pooling: Pooling | None = "soft",
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
            activation: "sigmoid" or "tanh".
            pooling: None, "average" or "soft", the published choice.
            kernel: the side of every kernel.
            padding: zeros added on each side before a convolution.
            gain: one number, or one for each coupling, the last to the outputs.
            dtype: of the parameters; JAX's default if None.

        Raises:
            ValueError: for numbers that are not positive, windows of pooling that do not divide the maps, and maximum
                pooling.

        Source: Laborieux and Zenke 2022, arXiv 2209.00530.
        """
        fields = convolutional_fields(input_shape, channels, n_outputs, key, pooling, kernel, padding, gain, dtype)
        return cls(**fields, activation=activation)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> Self:
        """A dense network for a data set: `sizes` hidden layers (by default one of 64 units)."""
        return cls.layered((n_inputs, *((64,) if sizes is None else sizes), n_outputs), key=key)
