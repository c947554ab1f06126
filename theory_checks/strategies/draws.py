"""What every strategy draws: a spread and a seed, from which all numbers of a system follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from substrates.substrate import split_parameters

T = TypeVar("T")
Shape = int | Sequence[int]

SPREADS = (0.0, 0.25, 1.0)
"""How far drawn numbers lie from one another: all equal, nearly, and as far as they go."""


def unhurried(**options: Any) -> settings:
    """Hypothesis settings for systems that are compiled: `@unhurried(max_examples=20)` above `@given(...)`.

    They set no deadline, for the first example of a shape takes the seconds of its compilation, and let examples be
    slow. For a whole suite, in conftest.py:
    ``settings.register_profile("physics", unhurried()); settings.load_profile("physics")``.

    Args:
        options: others of `hypothesis.settings`, or the same ones with other values.
    """
    return settings(**{"deadline": None, "suppress_health_check": [HealthCheck.too_slow], **options})


def seeds() -> SearchStrategy[int]:
    """Seeds of the generators behind the other strategies: they shrink towards 0."""
    return st.integers(0, 2**31 - 1)


@dataclasses.dataclass
class Draw:
    """Random numbers around simple ones; with a spread of 0 the simple ones themselves, whatever the seed.

    Attributes:
        spread: from 0 to 1.
        seed: of the generator.
    """

    spread: float
    seed: int

    def __post_init__(self) -> None:
        self._generator = np.random.default_rng(self.seed)

    def magnitudes(self, shape: Shape, middle: float = 1.0, factor: float = 3.0) -> np.ndarray:
        """Positive numbers from middle / factor to middle * factor, uniform in their logarithm."""
        return middle * factor ** (self.spread * self._generator.uniform(-1.0, 1.0, shape))

    def numbers(self, shape: Shape, size: float = 1.0) -> np.ndarray:
        """Numbers of either sign, uniform between -size and size; at spread 0 all of them `size`."""
        return size * (1 + self.spread * (self._generator.uniform(-1.0, 1.0, shape) - 1))

    def between(self, shape: Shape, lower: float, upper: float) -> np.ndarray:
        """Numbers uniform between two; at spread 0 all of them three quarters of the way up."""
        return lower + (upper - lower) * (0.75 + self.spread * (self._generator.uniform(0.0, 1.0, shape) - 0.75))

    def signs(self, shape: Shape) -> np.ndarray:
        """Numbers 1 and -1; at spread 0 all of them 1."""
        drawn = self._generator.choice([-1.0, 1.0], shape)
        return drawn if self.spread else np.ones(shape)


def draws() -> SearchStrategy[Draw]:
    """Draws, which shrink towards equal numbers and then towards the seed 0."""
    return st.builds(Draw, st.sampled_from(SPREADS), seeds())


def drawn(build: Callable[[Draw], T]) -> SearchStrategy[T]:
    """What a function builds from a draw; it is called here once, so that arguments are refused at once."""
    build(Draw(0.0, 0))
    return draws().map(build)


def refilled(system: T, fill: Callable[[Sequence[int]], np.ndarray]) -> T:
    """The system with other parameters of the same shapes and dtype, `fill(shape)` of each array."""
    parameters, rest = split_parameters(system)
    return eqx.combine(jax.tree.map(lambda leaf: jnp.asarray(fill(leaf.shape), leaf.dtype), parameters), rest)


def random_graph(nodes: int, graph: int) -> list[tuple[int, int]]:
    """The edges of a connected graph: a random tree, and about as many other edges, each pair once.

    Args:
        nodes: how many nodes, at least 2.
        graph: a seed, so that one graph compiles once.

    Raises ValueError for fewer nodes than 2.
    """
    whole("nodes", nodes, 2)
    wire = np.random.default_rng(graph)
    tree = {(int(wire.integers(k)), k) for k in range(1, nodes)}
    chords = {tuple(sorted(int(k) for k in wire.choice(nodes, 2, replace=False))) for _ in range(nodes)}
    return sorted(tree | chords)  # type: ignore[arg-type]


def terminals(nodes: int, inputs: int, outputs: int) -> dict[str, Any]:
    """The first nodes as inputs and the last as outputs.

    Raises ValueError where there are not enough.
    """
    whole("inputs", inputs, 1)
    whole("outputs", outputs, 1)
    if inputs + outputs > nodes:
        raise ValueError(
            f"nodes: wanted at least inputs + outputs = {inputs + outputs} nodes, got {nodes}; ask for more nodes or "
            "for fewer terminals"
        )
    return {"inputs": list(range(inputs)), "outputs": list(range(nodes - outputs, nodes))}


def whole(name: str, value: Any, least: int) -> None:
    """Raises ValueError unless a value is a whole number that is large enough."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: wanted a whole number from {least}, got {value!r}")
