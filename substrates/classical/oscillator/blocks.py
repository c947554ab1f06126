"""Blocks of phases that turn together: what a block feels, and where it stands among the arrows of all nodes."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from substrates.classical.oscillator.local import angle_between, arrows

MOST_COLOURS = 8


class Outputs(NamedTuple):
    """The outputs in a block: `index` of each, and its `slot` in the block of `size` nodes."""

    index: np.ndarray
    slot: np.ndarray
    size: int

    @property
    def held(self) -> np.ndarray:
        """Which nodes of the block are outputs."""
        held = np.zeros(self.size, bool)
        held[self.slot] = True
        return held

    def spread(self, values: tuple[Array, ...]) -> tuple[Array, ...]:
        """Numbers per output as numbers per node of the block, zero elsewhere."""
        if np.array_equal(self.index, np.arange(values[0].size)) and np.array_equal(self.slot, np.arange(self.size)):
            return values  # a layer of outputs, in order
        return tuple(jnp.zeros(self.size, v.dtype).at[self.slot].set(v[self.index]) for v in values)


class Block(NamedTuple):
    """Nodes that turn together: what they feel beside the field of the others; None for what there is not."""

    shift: Float[Array, "block"] | None
    harmonic: Float[Array, "block"] | None
    frequency: Float[Array, "block"] | None
    outputs: Outputs | None


class LayerBlocks:
    """The layers of a layered network, one block each; arrows are a tuple of (2, nodes)."""

    def __init__(self, net: Any, x: Float[Array, "inputs"]):
        self.coupling = net.coupling
        self.last = len(net.coupling) - 1
        self.source = [h * arrows(psi) for h, psi in zip(net.field, net.field_phase, strict=True)]
        self.source[0] += net.coupling[0].forward(arrows(net.input_phase(x)))
        self.nodes = []
        for layer, h in enumerate(net.field):
            index = np.arange(h.size)
            outputs = Outputs(index, index, h.size) if layer == self.last else None
            self.nodes.append(
                Block(None, net.of_layer("second_harmonic", layer), net.of_layer("frequency", layer), outputs)
            )

    def split(self, values: tuple) -> tuple:
        return values

    def arrows(self, state: tuple) -> tuple:
        return tuple(arrows(phase) for phase in state)

    def field(self, z: tuple, k: int) -> Inexact[Array, "2 nodes"]:
        field = self.source[k]
        if k > 0:
            field += self.coupling[k].forward(z[k - 1])
        if k < self.last:
            field += self.coupling[k + 1].backward(z[k + 1])
        return field

    def get(self, z: tuple, k: int) -> Array:
        return z[k]

    def put(self, z: tuple, k: int, new: Array) -> tuple:
        return (*z[:k], new, *z[k + 1 :])

    def outputs(self, z: tuple) -> Inexact[Array, "2 outputs"]:
        return z[-1]

    def unwound(self, z: tuple, first: tuple) -> tuple:
        return tuple(phase + angle_between(new, arrows(phase)) for new, phase in zip(z, first, strict=True))


class GraphBlocks:
    """The colour classes of a graph's free nodes, or all of them at once if the colours are many.

    Arrows are one array (2, n) of all nodes, the clamped ones among them.
    """

    def __init__(self, net: Any, x: Float[Array, "inputs"]):
        self.net, self.x = net, x
        roles, coupling = net.roles, net.coupling
        self.members = roles.blocks(coupling.graph, MOST_COLOURS)
        matrix = coupling.matrix() if coupling.dense else None
        self.source = net.field * arrows(net.field_phase)
        self.rows, self.nodes = [], []
        weight = jnp.concatenate([coupling.weight, jnp.zeros(1, coupling.weight.dtype)])
        neighbours, along = coupling.graph.neighbours
        free = np.zeros(roles.n, bool)
        free[roles.free] = True
        for members in self.members:
            rows = matrix[:, members] if matrix is not None else (weight[along[members]], neighbours[members])
            self.rows.append(rows)
            shift = None
            if np.isin(coupling.graph.edges, members).all(axis=1).any():  # joined to one another
                sizes = jnp.abs(weight[along[members]])
                shift = jnp.sum(jnp.where(free[neighbours[members]], sizes, 0), axis=1)
            place = {int(node): slot for slot, node in enumerate(members)}
            here = [(i, place[node]) for i, node in enumerate(roles.outputs) if node in place]
            index, slot = np.asarray(here, int).reshape(-1, 2).T
            self.nodes.append(
                Block(
                    shift,
                    None if net.second_harmonic is None else net.second_harmonic[members],
                    None if net.frequency is None else net.frequency[members],
                    Outputs(index, slot, len(members)) if len(index) else None,
                )
            )

    def split(self, values: Array) -> tuple:
        return tuple(values[np.searchsorted(self.net.roles.free, members)] for members in self.members)

    def arrows(self, state: Array) -> Array:
        return arrows(self.net.phases(state, self.x))

    def field(self, z: Array, k: int) -> Inexact[Array, "2 block"]:
        if self.net.coupling.dense:
            return self.source[:, self.members[k]] + z @ self.rows[k]
        weight, neighbours = self.rows[k]
        return self.source[:, self.members[k]] + jnp.sum(weight * z[:, neighbours], axis=-1)

    def get(self, z: Array, k: int) -> Array:
        return z[:, self.members[k]]

    def put(self, z: Array, k: int, new: Array) -> Array:
        return z.at[:, self.members[k]].set(new)

    def outputs(self, z: Array) -> Inexact[Array, "2 outputs"]:
        return z[:, np.asarray(self.net.roles.outputs, int)]

    def unwound(self, z: Array, first: Array) -> Array:
        return first + angle_between(z[:, self.net.roles.free], arrows(first))
