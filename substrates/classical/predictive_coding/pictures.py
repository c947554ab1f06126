"""Pictures of predictive coding networks: the activities of every layer beside its prediction errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from substrates.columns import activities

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from substrates.classical.predictive_coding.network import PredictiveCodingNetwork


def network(net: PredictiveCodingNetwork, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
    """Draws a column for the input and two for every layer: its activities h_k and its prediction errors eps_k.

    Each column has colours of its own range, written below it: under a nudge the errors are of order beta. In a free
    equilibrium they are zero.

    Args:
        net: the network.
        state: an equilibrium state; None with an x takes the free equilibrium, None without one draws bare layers.
        x: the input.
        ax: where to draw; None opens a new figure.

    Raises ValueError for a state without the input that belongs to it.
    """
    sizes = [int(np.prod(shape)) for shape in net.shapes]
    names = ["inputs\n$x$"]
    for k in range(1, len(sizes)):
        layer = f"hidden {k}" if k < len(sizes) - 1 else "outputs"
        names += [f"{layer}\n$h_{{{k}}}$", f"errors\n$\\epsilon_{{{k}}}$"]
    if x is None:
        if state is not None:
            raise ValueError("x: wanted the input that belongs to the state, got None")
        bare = [sizes[0], *(size for size in sizes[1:] for _ in range(2))]
        captions = [f"{name}\n{size} nodes" for name, size in zip(names, bare, strict=True)]
        return activities(bare, ax, captions=captions)
    x = jnp.asarray(x, net.bias[0].dtype)
    state = net.predict(x) if state is None else state
    columns = [x]
    for h, error in zip(state, net.errors(state, x), strict=True):
        columns += [h, error]
    shown, captions = [], []
    for column, name in zip(columns, names, strict=True):
        values = np.asarray(column, dtype=float)
        largest = float(np.abs(values).max())
        shown.append(values / largest if largest > 0 else values)
        captions.append(f"{name}\n{values.size} nodes\n$\\leq$ {largest:.2g}")
    return activities(shown, ax, captions=captions, quantity="activity or error / largest in its column")
