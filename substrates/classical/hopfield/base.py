"""What all deep Hopfield networks share: layers joined in a chain by couplings."""

from __future__ import annotations

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from substrates import arguments
from substrates.classical.hopfield.layers import State
from substrates.classical.hopfield.unit import Unit
from substrates.substrate import Substrate
from substrates.wiring import Convolution, Dense, added, chain_of_groups
from substrates.wiring.layers import as_group, feed, feed_back


class CoupledLayers(Substrate):
    """Layers of units after a clamped input, each joined to the one before by a dense coupling or a convolution.

    Attributes:
        coupling: w_k between successive layers, each a `Dense` or a `Convolution`; the last is dense.
        bias: b_k of each layer after the input, shape (units,), or (channels,) for feature maps.
        input_shape: (units,), or (height, width, channels) for images; x may be given flat.

    Raises:
        ValueError: for couplings that do not fit together, biases of the wrong size, or a last coupling that is not
            dense.
    """

    coupling: tuple[Dense | Convolution, ...]
    bias: tuple[Float[Array, "units"], ...]
    input_shape: tuple[int, ...] = eqx.field(static=True)

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
    def input_size(self) -> int:
        return int(np.prod(self.input_shape))

    @property
    def x_shape(self) -> tuple[int, ...]:
        return self.input_shape

    def clamped(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The input as the first coupling sees it, in the shape `input_shape`."""
        return as_group(x, self.input_shape, self.bias[0].dtype)

    @property
    @abc.abstractmethod
    def unit(self) -> Unit:
        """What a hidden unit is."""

    # where it may start

    def initial_state(self, x: Float[Array, "..."]) -> State:
        """One feed-forward pass, without what the layers send back."""
        return self.feed_forward(x)

    def feed_forward(self, x: Float[Array, "..."], doubled: bool = False) -> State:
        """The state after one pass from the inputs to the outputs, in which no layer hears from the one after it.

        Doubled, hidden layers take it that they would hear the same from there as from before, and feel
        b_k + 2 P(w_k * s_(k-1)): the equilibrium itself where successive layers are perfect auto-encoders
        (`disagreement` 0), and often worse than the plain pass where they are not, as in random networks. Give it to
        `relax` as its start, or let `warm_start` choose.

        Source: Bengio, Scellier, Bilaniuk, Sacramento and Senn 2016, arXiv 1606.01651.
        """
        before, hidden = self.clamped(x), []
        for coupling, bias in zip(self.coupling[:-1], self.bias[:-1], strict=True):
            hidden.append(self.unit.at_rest(added(bias, (2 if doubled else 1) * feed(coupling, before))))
            before = self.unit.sent(hidden[-1])
        return (*hidden, added(self.bias[-1], feed(self.coupling[-1], before)))

    def disagreement(self, state: State, x: Float[Array, "..."]) -> tuple[Float[Array, ""], ...]:
        """max |r_up - r_down| of every hidden layer: of what it hears from before, and from the layer after it.

        At 0 everywhere the doubled `feed_forward` pass is an equilibrium.

        Source: Bengio et al. 2016, arXiv 1606.01651.
        """
        sent = (self.clamped(x), *(self.unit.sent(s) for s in state[:-1]), state[-1])
        pairs = zip(self.coupling, self.coupling[1:], sent, sent[1:], sent[2:], strict=False)
        return tuple(jnp.max(jnp.abs(feed(up, a) - feed_back(down, c, b))) for up, down, a, b, c in pairs)

    def warm_start(self, x: Float[Array, "..."]) -> State:
        """The plain or the doubled `feed_forward` pass, whichever has the lower energy."""
        plain, doubled = self.feed_forward(x), self.feed_forward(x, doubled=True)
        better = self.energy(doubled, x) < self.energy(plain, x)
        return jax.tree.map(lambda one, other: jnp.where(better, one, other), doubled, plain)
