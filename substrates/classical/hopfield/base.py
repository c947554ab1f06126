"""What all deep Hopfield networks share: layers joined in a chain by couplings."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from substrates import arguments
from substrates.substrate import Substrate
from substrates.wiring import Convolution, Dense, chain_of_groups
from substrates.wiring.layers import as_group


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
