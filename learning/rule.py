"""The contract of a rule: estimators give a gradient, movers move the parameters themselves."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from substrates import explained
from substrates.substrate import FAILURES, Equilibrium, Status, Substrate, as_tree

T = TypeVar("T")


def check_positive(name: str, value: Any, advice: str = "") -> None:
    """Raises ValueError for what is known to be no positive finite number, TypeError for what is none at all."""
    if isinstance(value, Tracer | jax.Array) and not isinstance(value, Tracer) and value.ndim == 0:
        value = value.item()
    if isinstance(value, Tracer):
        return
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name}: wanted a positive number, got {value!r}{advice}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}: wanted a positive number, got {value}{advice}")


def check_seed(seed: Any) -> None:
    """Raises TypeError for what is no whole number, ValueError for one that 32 bits do not hold."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed: wanted a whole number, got {seed!r}")
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed: wanted a whole number from 0 to 2^31 - 1, got {seed}")


def as_map(name: str, given: Any, example: str) -> Any:
    """A callable that makes one substrate of another as a pytree; raises TypeError for what is none."""
    if isinstance(given, type) or not callable(given):
        raise TypeError(f"{name}: wanted a callable that makes a substrate of another, got {given!r}; give {example}")
    return as_tree(cast(Any, given))


class ConvergenceError(RuntimeError):
    """A strict rule met an equilibrium that it must not learn from."""


class Estimate(eqx.Module):
    """What an estimator found on a batch.

    Attributes:
        gradient: of the mean cost, a tree like the substrate (None where there is nothing to train).
        cost: the mean cost of the free outputs.
        output: the free outputs, shape (batch, outputs).
        equilibria: every batch of equilibria that was used, the free one first.
        relaxations: how many physical relaxations one example took.
    """

    gradient: PyTree
    cost: Float[Array, ""]
    output: Float[Array, "batch outputs"]
    equilibria: tuple[Equilibrium, ...]
    relaxations: int = eqx.field(static=True)

    @property
    def residual(self) -> Float[Array, ""]:
        """The largest residual of all equilibria."""
        return jnp.max(jnp.stack([jnp.max(e.residual) for e in self.equilibria]))

    @property
    def unconverged(self) -> Any:
        """How many equilibria did not converge; those truncated on request are among them."""
        return sum(jnp.sum(~e.converged) for e in self.equilibria)

    @property
    def unusable(self) -> Any:
        """How many equilibria a strict rule must not learn from: neither converged nor truncated on request."""
        return sum(jnp.sum(~e.usable) for e in self.equilibria)


class Estimator(eqx.Module):
    """A rule that estimates the gradient of the mean cost of a batch.

    Its targets are numbers of shape (batch, outputs), or integer labels of shape (batch,), encoded one-hot as by `fit`;
    for a single output real numbers of shape (batch,); or what a cost with `own_targets` takes, with a leading axis.
    Others raise ValueError. In compiled code, where nobody can see whether a label has an output, labels are refused.
    """

    in_short: ClassVar[str] = ""
    """One line for lists: what it is; physical relaxations of each example; bias."""

    usual: ClassVar[Mapping[str, Any]] = {}
    """What the command gives to fields that neither its user nor the substrate names: a value, or the name of the
    entry of the substrate's `training_defaults` that serves."""

    @abc.abstractmethod
    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate: ...


class Moved(eqx.Module):
    """What a mover's step came to.

    Attributes:
        system: with its parameters already moved; a physical system is the very same object.
        cost: the mean cost of the outputs before the step.
        output: those outputs, free of any nudge, shape (batch, outputs); of a mover that `estimates`, an estimate.
        residual: how far from equilibrium the worst phase of the step was; for a physical system, how far its
            parameters were from where they should have been held.
        unconverged: how many phases did not come to rest.
    """

    system: Any
    cost: Any
    output: Any
    residual: Any = 0.0
    unconverged: Any = 0


class Mover(eqx.Module):
    """A rule that moves the parameters of a system itself; no optimiser runs.

    `on_bench` says whether it moves a `PhysicalSystem` by its five verbs, rather than a `Substrate`.
    """

    in_short: ClassVar[str] = ""
    """As of an estimator."""

    usual: ClassVar[Mapping[str, Any]] = {}
    """As of an estimator."""

    on_bench: ClassVar[bool] = False

    @property
    def relaxations(self) -> int | None:
        """How many physical relaxations one example takes; None where there is no telling beforehand."""
        return None

    @property
    def estimates(self) -> bool:
        """Whether the free outputs that a step reports are an estimate, for want of a free phase."""
        return False

    @abc.abstractmethod
    def step(self, system: Any, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Moved: ...

    def steps_itself(self, system: Any) -> bool:
        """Whether a physical system makes many steps at once by itself, so that several batches may come together."""
        return False


_ADVICE = (
    "Give the solver more steps, choose a smaller beta or step, or learn from them all the same with strict=False."
)
_PAGE = f"See {explained.NOT_AT_REST}."


def require_usable(estimate: Estimate, substrate: Substrate, advice: str = _ADVICE) -> Estimate:
    """The same estimate, unless one of its equilibria is unusable: then ConvergenceError, also from compiled code."""
    bad = estimate.unusable
    if isinstance(bad, Tracer):
        return eqx.error_if(estimate, bad > 0, f"an equilibrium did not converge. {advice} {_PAGE}")
    if bad > 0:
        undecided = substrate.undecided()
        undecided = f" {undecided}." if undecided else ""
        raise ConvergenceError(f"{describe_failure(estimate, advice)}{undecided} {_PAGE}")
    return estimate


def require(value: T, holds: Bool[Array, ""], message: str) -> T:
    """The same value where something holds, else ConvergenceError, also from compiled code."""
    if isinstance(holds, Tracer):
        return eqx.error_if(value, ~holds, message)
    if not holds:
        raise ConvergenceError(message)
    return value


def describe_failure(estimate: Estimate, advice: str = _ADVICE) -> str:
    """One sentence for each way in which relaxations failed, with counts and the largest residual, and advice."""
    lines = []
    for phase, equilibria in enumerate(estimate.equilibria):
        for name, count in equilibria.counts().items():
            if name in FAILURES:
                kind = "free" if phase == 0 else "further"
                lines.append(
                    f"{count} of {equilibria.residual.size} {kind} equilibria: {Status[getattr(Status, name)]} "
                    f"Largest residual {float(jnp.max(equilibria.residual)):.2e}."
                )
    return " ".join([*lines, advice])
