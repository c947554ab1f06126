"""Layered elastic networks: columns of nodes that carry displacements from inputs to outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from substrates.classical.elastic.build import build_network
from substrates.classical.elastic.network import ElasticNetwork

TRAINING_DEFAULTS: dict[str, Any] = {
    "beta": 3e-4,
    "cost": "cross-entropy",
    "epochs": 15,
    "batch_size": 16,
    "optimiser": "adam",
    "learning_rate": {"stiffness": 0.004, "rest_length": 0.004},
    "decay": 0.9,
    "bench": {"epsilon": 0.3, "beta": 3e-3, "variant": "centered", "epochs": 8, "cost": "cross-entropy"},
}


def layered_network(
    sizes: Sequence[int],
    *,
    key: PRNGKeyArray,
    input_gain: float = 1.0,
    output_gain: float = 1.0,
    gap: float = 1.0,
    height: float = 1.0,
    ground: float = 0.1,
    dtype: Any = None,
) -> ElasticNetwork:
    """Columns of nodes in the plane, every node joined by springs to all nodes of the columns beside it.

    Two driven nodes stand for each input, one on either side of the first column: x pushes the one towards it and pulls
    the other away from it, so that a difference of two stiffnesses gives a weight of either sign. Free nodes are also
    joined to a clamped one above and one below. The outputs are the horizontal displacements of the last column.

    Args:
        sizes: the numbers of inputs, of nodes in each hidden column, and of outputs.
        key: draws the heights of the nodes and the stiffnesses.
        input_gain: displacement per unit of an input, metres.
        output_gain: what the displacements of the last column are multiplied by.
        gap: between columns, metres.
        height: of the columns, metres.
        ground: stiffness of the springs to clamped nodes, as a part of what holds a node in all.
        dtype: of the parameters; by default JAX's.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes: wanted the numbers of inputs and outputs and of nodes between, got {tuple(sizes)}")
    for name, value in {"input_gain": input_gain, "output_gain": output_gain, "gap": gap, "height": height}.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name}: wanted a positive number, got {value}")
    if not (np.isfinite(ground) and 0 < ground < 1):
        raise ValueError(f"ground: wanted a part from 0 to 1, both excluded, got {ground}")
    draw = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    columns = [2 * sizes[0], *sizes[1:]]
    starts = np.concatenate([[0], np.cumsum(columns)])
    across = [np.zeros(0)] * len(columns)
    across[0] = np.repeat([-gap, gap], sizes[0])
    for layer in range(1, len(columns)):
        across[layer] = np.full(columns[layer], (layer - 1) * 3 * gap)
    places = [np.stack([a, _spread(len(a), height, draw)], axis=1) for a in across]
    places[0][sizes[0] :, 1] = places[0][: sizes[0], 1]
    edges, stiffness = [], []
    for layer in range(1, len(columns)):
        before, after = np.meshgrid(
            np.arange(starts[layer - 1], starts[layer]), np.arange(starts[layer], starts[layer + 1]), indexing="ij"
        )
        edges.append(np.stack([before.ravel(), after.ravel()], axis=1))
        stiffness.append(draw.uniform(0.1, 1.9, before.size) / columns[layer - 1])
    free = np.arange(starts[1], starts[-1])
    everything = np.concatenate(places)
    held = np.arange(starts[-1], starts[-1] + 2 * free.size)
    for sign, nodes in ((1.0, held[: free.size]), (-1.0, held[free.size :])):
        edges.append(np.stack([free, nodes], axis=1))
        stiffness.append(np.full(free.size, ground))
        everything = np.concatenate([everything, everything[free] + [0.0, sign * gap]])
    k = np.concatenate(stiffness).astype(np.zeros(0, dtype or jax.numpy.zeros(()).dtype).dtype)
    return build_network(
        np.concatenate(edges),
        None,
        positions=everything,
        inputs=[{(i, 0): input_gain, (i, 1): 0.0, (sizes[0] + i, 0): -input_gain, (sizes[0] + i, 1): 0.0}
                for i in range(sizes[0])],
        outputs=[{(int(node), 0): output_gain} for node in range(starts[-2], starts[-1])],
        clamped=held.tolist(),
        stiffness=k,
        stiffness_floor=1e-3 * float(k.min()),
    )  # fmt: skip


def _spread(count: int, height: float, draw: np.random.Generator) -> np.ndarray:
    """Heights of a column's nodes, about even, in random order."""
    even = (draw.permutation(count) + draw.uniform(0.25, 0.75, count)) / count
    return height * (even - 0.5)


def task_network(n_inputs: int, n_outputs: int, sizes: Sequence[int] | None, key: PRNGKeyArray) -> ElasticNetwork:
    """The network that `ElasticNetwork.for_task` builds."""
    hidden = (24,) if sizes is None else tuple(sizes)
    return layered_network((n_inputs, *hidden, n_outputs), key=key, input_gain=0.25, output_gain=60.0, ground=0.3)
