"""Whether a system that multiplies in bfloat16 still learns in the direction that 64 bits would."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from learning.rule import Estimator
from learning.steps import lenient
from substrates.substrate import Substrate, by_path

LEAST_COSINE = 0.99
"""A gradient that deviates farther from that of 64 bits, in any parameter, is refused."""


class RoundingError(ValueError):
    """Products in bfloat16 lose the direction of a gradient, or keep equilibria from converging."""


@dataclass(frozen=True)
class Rounding:
    """What products in bfloat16 do to the gradient of a batch.

    Attributes:
        cosine: with the gradient of 64 bits, by the path of each parameter; 1 where both vanish.
        unsettled: how many equilibria did not converge (those truncated on request are not among them).
        unsettled_in_full: how many did not in 64 bits.
        equilibria: how many there were.
        residual: the largest part of the forces that was left over.
    """

    cosine: dict[str, float]
    unsettled: int
    unsettled_in_full: int
    equilibria: int
    residual: float

    @property
    def worst(self) -> str:
        """The parameter whose gradient deviates most."""
        return min(self.cosine, key=lambda path: self.cosine[path])

    @property
    def safe(self) -> bool:
        """Whether a system may be trained so."""
        return self.unsettled == 0 and self.cosine[self.worst] >= LEAST_COSINE

    @property
    def advice(self) -> str:
        """What to do where it is not safe."""
        if self.unsettled and self.unsettled_in_full:
            return (
                f"{self.unsettled_in_full} do not settle in 64 bits either: give the solver more steps, or take a "
                "weaker nudge (beta)"
            )
        return "Settle in 32 bits, or take a stronger nudge (beta), whose answer is farther above rounding"

    def __str__(self) -> str:
        settled = "all settled" if self.unsettled == 0 else f"{self.unsettled} did not settle"
        return (
            f"bfloat16: {self.equilibria} equilibria, {settled}, largest residual {self.residual:.1e}; the gradient's "
            f"cosine with that of 64 bits is at least {self.cosine[self.worst]:.6f} ({self.worst})"
        )


def check_bfloat16(
    substrate: Substrate, rule: Estimator, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
) -> Rounding:
    """What products in bfloat16 do to the gradient of a batch, where they do little: cos(g, g_64) of every parameter.

    Args:
        substrate: of `in_bfloat16`.
        rule: estimates the gradients.
        x, y: a batch as the rule takes it.
        key: as the rule takes it.

    Raises:
        RoundingError: where an equilibrium does not converge, or a cosine is below 0.99; with the numbers.
    """
    if not isinstance(rule, Estimator):
        raise TypeError(f"rule: wanted an Estimator, which gives a gradient, got {type(rule).__name__}")
    if not isinstance(substrate, Substrate) or not getattr(substrate.solver, "mixed", False):
        raise ValueError(
            f"substrate: wanted one that multiplies in bfloat16, got {type(substrate).__name__}, which does not; give "
            "in_bfloat16(substrate)"
        )
    forgiving = lenient(rule)
    found = forgiving(substrate, x, y, key=key)
    rounded = _numbers(found.gradient)
    with jax.enable_x64(True):
        full = dataclasses.replace(substrate, solver=dataclasses.replace(substrate.solver, mixed=False))
        wanted = forgiving(*in_64_bits((full, x, y)), key=key)
        exact = _numbers(wanted.gradient)
    cosine = {path: _cosine(rounded[path], exact[path]) for path in exact}
    rounding = Rounding(
        cosine,
        int(found.unusable),
        int(wanted.unusable),
        sum(each.residual.size for each in found.equilibria),
        float(found.residual),
    )
    if not rounding.safe:
        raise RoundingError(f"{rounding}; wanted all settled and at least {LEAST_COSINE}. {rounding.advice}")
    return rounding


def in_64_bits(tree: Any) -> Any:
    """A tree whose real numbers have 64 bits, which are switched on."""
    wide = lambda leaf: jnp.asarray(leaf, float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
    return jax.tree.map(lambda leaf: wide(leaf) if eqx.is_array_like(leaf) and hasattr(leaf, "dtype") else leaf, tree)


def _numbers(gradient: PyTree) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf, np.float64) for path, leaf in by_path(gradient).items()}


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    sizes = float(np.linalg.norm(a) * np.linalg.norm(b))
    if sizes == 0:
        return float(np.array_equal(a, b))
    return float(np.sum(a * b)) / sizes
