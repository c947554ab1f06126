"""Predictive coding as a circuit of value and error neurons, whose errors travel back by weights of their own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, Self, get_args

import equinox as eqx
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from substrates import arguments
from substrates.activation import Activation, activity, slope
from substrates.classical.recurrent.build import circuit_fields
from substrates.classical.recurrent.same_updates import mean_of
from substrates.nudge import Nudge, Pin
from substrates.solvers.generic import Newton
from substrates.solvers.meeting import slopes
from substrates.solvers.stability import Motion
from substrates.substrate import Solver, Substrate
from substrates.wiring import Dense
from substrates.wiring.layers import as_group

State = tuple[tuple[Inexact[Array, "..."], ...], tuple[Inexact[Array, "..."], ...]]


class PredictiveCodingCircuit(Substrate):
    """Predictive coding with neurons for values and for errors, and feedback weights of its own: no energy.

    Layer k has values v_k and errors e_k; v_0 = x is clamped, outputs are v_L. With rho the identity at the input,

        de_k/dt = v_k - b_k - W_k' rho(v_{k-1}) - e_k,
        dv_k/dt = -e_k + rho'(v_k) (B_{k+1} e_{k+1}),

    so that at rest an error is what a prediction misses. Freely all errors are 0 and the values those of one pass
    forward; a nudge makes errors at the outputs, which travel back by B. The force of the contract is
    -dPhi/d(v, e) with Phi = sum_k <e_k, v_k - b_k - W_k' rho(v_{k-1})> - |e_k|^2/2 where B = W: stationary, a saddle.
    It is that of the circuit with the sign of the equations for e turned, which moves no root, so that the Jacobian is
    symmetric where weights are tied; `stability` is that of the circuit itself.

    Equilibrium propagation gives it, as beta tends to 0, the steps of feedback alignment, back-propagation where B = W,
    and leaves B as it is, for the free state does not feel it: `SameUpdates` and `JacobianHomeostasis` turn B.

    Attributes:
        forward: W_k, `Dense` couplings between successive layers.
        feedback: B_k of the same shapes, from the second on.
        bias: b_k of each layer after the input.
        activation: rho of the hidden layers, "sigmoid" or "tanh"; outputs are linear.

    Errors are differences of values: in 32 bits those of a well-predicted example are rounding, which is found out
    (`ill_conditioned`), so that it trains in 64.

    The state is (values, errors), each a tuple of the layers after the input.

    Raises:
        ValueError: for couplings that are not a chain, feedback or biases of other shapes, another activation.

    Source: Whittington and Bogacz 2017, "An approximation of the error backpropagation algorithm in a predictive
    coding network"; with weights of its own back, Laborieux and Zenke 2024, arXiv 2309.02214.
    """

    solver: ClassVar[Solver] = Newton()

    training_precision: ClassVar[int] = 64

    forward: tuple[Dense, ...]
    feedback: tuple[Dense, ...]
    bias: tuple[Float[Array, "units"], ...]
    activation: Activation = eqx.field(static=True, default="tanh")

    # the contract

    def force(self, state: State, x: Float[Array, "inputs"]) -> State:
        values, errors = state
        before = self._sent(values, x)
        misses = [v - b - w.forward(s) for v, b, w, s in zip(values, self.bias, self.forward, before, strict=True)]
        pulls = [-e for e in errors]
        for k, back in enumerate(self.feedback):
            pulls[k] = pulls[k] + slope(self.activation, values[k]) * back.backward(errors[k + 1])
        return tuple(pulls), tuple(e - miss for e, miss in zip(errors, misses, strict=True))

    def initial_state(self, x: Float[Array, "inputs"]) -> State:
        """The free state itself: one pass forward, and no errors."""
        values, sent = [], self.clamped(x)
        for w, b in zip(self.forward, self.bias, strict=True):
            values.append(b + w.forward(sent))
            sent = activity(self.activation, values[-1])
        return tuple(values), tuple(jnp.zeros_like(v) for v in values)

    def read(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "outputs"]:
        return state[0][-1]

    def force_scale(self, state: State, x: Float[Array, "inputs"]) -> State:
        """|v| + |b| + |W|' |rho(v)|, what meets where a layer is predicted, and |e|: an error is their difference,
        and as uncertain wherever it goes.
        """
        values, errors = state
        before = self._sent(values, x)
        sizes = [
            jnp.abs(v) + jnp.abs(b) + jnp.abs(s) @ jnp.abs(w.weight)
            for v, b, w, s in zip(values, self.bias, self.forward, before, strict=True)
        ]
        meeting = tuple(jnp.abs(e) + size for e, size in zip(errors, sizes, strict=True))
        return meeting, meeting

    def training_defaults(self) -> dict[str, Any]:
        """Centred nudges of 1/100, and one learning rate for all."""
        return {"beta": 0.01, "epochs": 40, "batch_size": 8, "optimiser": "adam", "learning_rate": 0.003}

    # the physics

    def jacobian(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "n n"]:
        """dforce/dstate, of all values and then all errors."""
        flat, unravel = ravel_pytree(state)
        return slopes(lambda s: ravel_pytree(self.force(unravel(s), x))[0], flat)[1]

    def stability(self, state: State, x: Float[Array, "inputs"], nudge: Nudge | Pin | None = None) -> Float[Array, ""]:
        """The largest real part of the eigenvalues of the circuit's own Jacobian: below 0 where it stays."""
        flat, unravel = ravel_pytree(state)

        def flow(s):
            values, errors = self.total_force(unravel(s), x, nudge)
            return ravel_pytree((values, tuple(-e for e in errors)))[0]

        return Motion.about(flat, flow).spectral_abscissa()

    def shared(self, gradient: Self) -> Self:
        """A gradient in which W_k and B_k have their mean: see `SameUpdates`."""
        mean = tuple(mean_of(w, b) for w, b in zip(gradient.forward[1:], gradient.feedback, strict=True))
        both = (gradient.forward[0], *mean), mean
        return eqx.tree_at(lambda net: (net.forward, net.feedback), gradient, both)

    # its parts

    def __check_init__(self):
        if self.activation not in get_args(Activation):
            raise ValueError(f"activation: wanted one of {get_args(Activation)}, got {self.activation!r}")
        for name in ("forward", "feedback"):
            arguments.refuse_complex(name, *(c.weight for c in getattr(self, name)))
        arguments.refuse_complex("bias", *self.bias)
        there = [jnp.shape(c.weight) for c in self.forward]
        chained = all(a[1] == b[0] for a, b in itertools.pairwise(there))
        if not there or not chained:
            raise ValueError(f"forward: wanted couplings between successive layers, got shapes {there}")
        if [jnp.shape(c.weight) for c in self.feedback] != there[1:]:
            raise ValueError(
                f"feedback: wanted the shapes {there[1:]} of the way forward, from the second on, got "
                f"{[jnp.shape(c.weight) for c in self.feedback]}"
            )
        if [jnp.shape(b) for b in self.bias] != [(shape[1],) for shape in there]:
            raise ValueError(
                f"bias: wanted one vector for each layer after the input, of sizes {[shape[1] for shape in there]}, "
                f"got shapes {[jnp.shape(b) for b in self.bias]}"
            )

    @property
    def input_size(self) -> int:
        return self.forward[0].weight.shape[0]

    def clamped(self, x: Float[Array, "inputs"]) -> Float[Array, "inputs"]:
        """The input as the first coupling sees it."""
        return as_group(x, (self.input_size,), self.bias[0].dtype)

    def _sent(self, values: Sequence[Array], x: Array) -> list[Array]:
        return [self.clamped(x), *(activity(self.activation, v) for v in values[:-1])]

    # ways to build one

    @classmethod
    def layered(
        cls,
        sizes: Sequence[int],
        *,
        key: PRNGKeyArray,
        angle: float = 90.0,
        activation: Activation = "tanh",
        gain: float | Sequence[float] = 1.0,
        dtype: Any = None,
    ) -> Self:
        """Layers with random weights there and back, as of `RecurrentNetwork.layered`.

        Args:
            sizes: the numbers of inputs, of values in each hidden layer, and of outputs.
            key: draws the weights.
            angle: between forward and feedback weights, in degrees: 0 ties them at the start.
            activation: "sigmoid" or "tanh".
            gain: one number, or one for each pair of layers.
            dtype: of the parameters; JAX's default if None.

        Raises:
            ValueError: as `RecurrentNetwork.layered`.
        """
        return cls(**circuit_fields(sizes, key, angle, gain, dtype), activation=activation)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> Self:
        """A circuit with weights of its own back: `sizes` hidden layers (by default one of 64 values)."""
        return cls.layered((n_inputs, *((64,) if sizes is None else sizes), n_outputs), key=key)
