"""Convex systems in three methods, as a user writes them."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from hypothesis.strategies import SearchStrategy
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Inexact

from substrates.substrate import Substrate
from theory_checks.strategies.draws import Draw, drawn, whole


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

    @property
    def input_size(self) -> int:
        return self.input_weight.shape[1]

    def energy(self, state: Inexact[Array, "nodes"], x: Inexact[Array, "inputs"]) -> Inexact[Array, ""]:
        springs = jnp.sum(self.stiffness * (state[:, None] - state[None]) ** 2) / 4
        ground = jnp.sum(self.ground * state**2 / 2 + self.hardness * state**4 / 4)
        return springs + ground - (self.input_weight @ x) @ state

    def initial_state(self, x: Inexact[Array, "inputs"]) -> Inexact[Array, "nodes"]:
        return jnp.zeros_like(self.ground)

    def read(self, state: Inexact[Array, "nodes"], x: Inexact[Array, "inputs"]) -> Inexact[Array, "outputs"]:
        return state[-self.outputs :]


def convex_springs(
    nodes: int = 5, inputs: int = 3, outputs: int = 2, dtype: DTypeLike = float
) -> SearchStrategy[ConvexSprings]:
    """Convex systems in three methods, with magnitudes between 1/3 and 3 that shrink to 1."""
    for name, value, least in (("nodes", nodes, 1), ("inputs", inputs, 1), ("outputs", outputs, 1)):
        whole(name, value, least)
    if outputs > nodes:
        raise ValueError(f"outputs: wanted at most as many as nodes, {nodes}, got {outputs}")

    def build(draw: Draw) -> ConvexSprings:
        cast = lambda values: jnp.asarray(values, dtype)
        return ConvexSprings(
            stiffness=cast(draw.magnitudes((nodes, nodes))),
            ground=cast(draw.magnitudes(nodes)),
            hardness=cast(draw.magnitudes(nodes)),
            input_weight=cast(draw.numbers((nodes, inputs))),
            outputs=outputs,
        )

    return drawn(build)
