"""Hypothesis strategies that build small valid systems, so that users' property tests start from sound ones.

They need the test extra: ``pip install 'groundstate[test]'``. Shapes are fixed by arguments and values are drawn, so
that compiled code is shared between examples.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Inexact

from substrates.classical.resistor import ResistorNetwork
from substrates.substrate import Substrate


class ConvexSprings(Substrate):
    """Springs between all pairs of nodes on a hardening ground, a convex system written in three methods.

    E = 1/4 sum_ij stiffness_ij (s_i - s_j)^2 + sum_i (ground_i s_i^2 / 2 + hardness_i s_i^4 / 4) - (input_weight x)' s.
    Outputs are the last nodes.

    Attributes:
        stiffness: shape (nodes, nodes), its symmetric part not negative, newtons per metre.
        ground: shape (nodes,), positive, newtons per metre.
        hardness: shape (nodes,), not negative, newtons per cubic metre.
        input_weight: shape (nodes, inputs), newtons per unit of input.
        outputs: how many nodes are read.
    """

    contrast_points: ClassVar[int] = 2

    stiffness: Float[Array, "nodes nodes"]
    ground: Float[Array, "nodes"]
    hardness: Float[Array, "nodes"]
    input_weight: Float[Array, "nodes inputs"]
    outputs: int

    def energy(self, state: Inexact[Array, "nodes"], x: Inexact[Array, "inputs"]) -> Inexact[Array, ""]:
        springs = jnp.sum(self.stiffness * (state[:, None] - state[None]) ** 2) / 4
        ground = jnp.sum(self.ground * state**2 / 2 + self.hardness * state**4 / 4)
        return springs + ground - (self.input_weight @ x) @ state

    def initial_state(self, x: Inexact[Array, "inputs"]) -> Inexact[Array, "nodes"]:
        return jnp.zeros_like(self.ground)

    def read(self, state: Inexact[Array, "nodes"], x: Inexact[Array, "inputs"]) -> Inexact[Array, "outputs"]:
        return state[-self.outputs :]


def seeds() -> SearchStrategy[int]:
    """Seeds of the generators behind the other strategies: they shrink towards 0."""
    return st.integers(0, 2**31 - 1)


def convex_springs(
    nodes: int = 5, inputs: int = 3, outputs: int = 2, dtype: DTypeLike = jnp.float64
) -> SearchStrategy[ConvexSprings]:
    """Convex systems in three methods with random stiffnesses between 0.1 and 2."""

    def build(seed: int) -> ConvexSprings:
        draw = np.random.default_rng(seed)
        cast = lambda values: jnp.asarray(values, dtype)
        return ConvexSprings(
            stiffness=cast(draw.uniform(0.1, 2.0, (nodes, nodes))),
            ground=cast(draw.uniform(0.1, 2.0, nodes)),
            hardness=cast(draw.uniform(0.0, 1.0, nodes)),
            input_weight=cast(draw.normal(size=(nodes, inputs))),
            outputs=outputs,
        )

    return seeds().map(build)


def resistor_circuits(
    nodes: int = 7,
    inputs: int = 2,
    outputs: int = 2,
    *,
    diodes: int = 0,
    graph: int = 0,
    dtype: DTypeLike = jnp.float64,
) -> SearchStrategy[ResistorNetwork]:
    """Connected circuits on one random graph, with conductances between 0.03 and 1 siemens.

    Args:
        nodes: how many nodes; the first are clamped inputs, the last are outputs.
        inputs: how many inputs.
        outputs: how many outputs.
        diodes: how many ideal diodes, each from ground to a free node or from a free node to ground.
        graph: the seed of the graph and of the diodes, so that one graph compiles once.
        dtype: of the conductances.
    """
    if inputs + outputs + diodes > nodes:
        raise ValueError(
            f"nodes: wanted at least inputs + outputs + diodes = {inputs + outputs + diodes} nodes, got {nodes}"
        )
    wire = np.random.default_rng(graph)
    tree = [(int(wire.integers(k)), k) for k in range(1, nodes)]
    chords = [tuple(int(k) for k in wire.choice(nodes, 2, replace=False)) for _ in range(nodes)]
    edges = tree + chords
    between = range(inputs, inputs + diodes)
    ideal = [(-1, node) if wire.integers(2) else (node, -1) for node in between]

    def build(seed: int) -> ResistorNetwork:
        conductance = 10 ** np.random.default_rng(seed).uniform(-1.5, 0.0, len(edges))
        return ResistorNetwork.from_edges(
            edges,
            nodes,
            inputs=list(range(inputs)),
            outputs=list(range(nodes - outputs, nodes)),
            conductance=jnp.asarray(conductance, dtype),
            diodes=ideal,
        )

    return seeds().map(build)


def examples(
    inputs: int = 3, outputs: int = 2, batch: int = 3, dtype: DTypeLike = jnp.float64
) -> SearchStrategy[tuple[Float[Array, "batch inputs"], Float[Array, "batch outputs"]]]:
    """Batches of normal inputs and normal targets."""

    def build(seed: int) -> tuple[Array, Array]:
        keys = jax.random.split(jax.random.key(seed))
        return jax.random.normal(keys[0], (batch, inputs), dtype), jax.random.normal(keys[1], (batch, outputs), dtype)

    return seeds().map(build)
