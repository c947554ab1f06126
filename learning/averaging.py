"""Averages of another rule's estimate over repeated relaxations."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from learning.examples import ready_batch
from learning.rule import Estimate, Estimator
from substrates.substrate import Substrate


class Averaged(Estimator):
    """Another rule's gradient, averaged over several relaxations of each example.

    Every repetition has a key of its own: a system with many equilibria that starts at random, or one that is annealed
    or noisy, shows another of them each time, and the mean gradient is that of the mean cost. All phases of one
    repetition share its key.

    Attributes:
        rule: the rule whose estimates are averaged.
        repetitions: how often each example relaxes.

    The estimate has the mean cost of all repetitions, the outputs of the first, and all equilibria, those of an
    example one after the other.

    Source: for phase oscillators, Wang, Wanjura and Marquardt 2024, arXiv 2402.08579.
    """

    rule: Estimator
    repetitions: int = eqx.field(static=True, default=4)

    def __check_init__(self):
        if self.repetitions < 1:
            raise ValueError(f"repetitions: wanted a positive integer, got {self.repetitions}")

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        if key is None:
            raise ValueError("key: without a key every repetition would be the same; give one")
        x, y = ready_batch(substrate, x, y, getattr(self.rule, "cost", None), key)
        repeated = lambda tree: jax.tree.map(lambda leaf: jnp.repeat(leaf, self.repetitions, axis=0), tree)
        found = self.rule(substrate, repeated(x), repeated(y), key=key)
        return Estimate(
            found.gradient,
            found.cost,
            found.output[:: self.repetitions],
            found.equilibria,
            self.repetitions * found.relaxations,
        )
