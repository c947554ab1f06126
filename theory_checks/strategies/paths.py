"""Paths that make an action stationary."""

from __future__ import annotations

import jax.numpy as jnp
from hypothesis.strategies import SearchStrategy
from jax.typing import DTypeLike

from substrates.classical.trajectory import CoupledPendulums, Samples, Trajectory
from theory_checks.strategies.draws import Draw, drawn, random_graph, whole


def trajectories(
    pendulums: int = 2, inputs: int = 2, *, steps: int = 6, graph: int = 0, dtype: DTypeLike = float
) -> SearchStrategy[Trajectory]:
    """Paths of coupled pendulums between rest at 0 and rest at 0 in one second, so short that the action is least.

    Inputs drive the pendulums, the first of them is read halfway.

    Args:
        pendulums: how many, at least 2.
        inputs: how many.
        steps: of a path, at least 2.
        graph: the seed of the graph of springs between them.
        dtype: of the parameters.

    Raises ValueError for numbers that are too small.
    """
    whole("inputs", inputs, 1)
    whole("steps", steps, 2)
    edges = tuple(random_graph(pendulums, graph))

    def build(draw: Draw) -> Trajectory:
        cast = lambda values: jnp.asarray(values, dtype)
        law = CoupledPendulums(
            weight=cast(draw.magnitudes(pendulums)),
            coupling=cast(draw.magnitudes(len(edges), 0.3)),
            drive=cast(draw.numbers((pendulums, inputs))),
            edges=edges,
            mass=cast(draw.magnitudes(pendulums, 1.0, 1.5)),
            frequency=cast(1.0),
        )
        ends = cast([0.0] * pendulums)
        meter = Samples([0], [steps // 2])
        return Trajectory.between(law, ends, ends, duration=1.0, steps=steps, meter=meter, n_inputs=inputs)

    return drawn(build)
