"""What every solver returns and obeys: equilibria, their status, and the one tolerance."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from substrates.nudge import Nudge, Pin


class Status(eqx.Enumeration):
    """How a relaxation ended; every entry is a sentence."""

    converged = "The residual is below the tolerance."
    truncated = "Stopped after the sweeps that were asked for, without a test of convergence."
    out_of_steps = "The residual was still above the tolerance when the steps ran out, or the samples had not mixed."
    not_finite = "The state or the residual became infinite or NaN."
    unstable = "No minimum: the nudge pushes the outputs harder than the system holds them."
    zero_mode = "No single minimum: some motion costs no energy to second order, so nothing decides where it settles."
    infeasible = "No solution: the sources force a current through ideal elements without limit."


def at_rest(status: Status) -> Bool[Array, "..."]:
    """Whether a relaxation came to rest: converged, or truncated on request."""
    return (status == Status.converged) | (status == Status.truncated)


class Equilibrium(eqx.Module):
    """Where a relaxation ended.

    Attributes:
        state: a tree; the array or tuple that a physicist would name.
        energy: the total energy F at the state; None for a system without an energy.
        residual: the distance from equilibrium that the substrate defines.
        steps: how many steps the solver took.
        status: a `Status`.
    """

    state: PyTree
    energy: Float[Array, "..."] | None
    residual: Float[Array, "..."]
    steps: Int[Array, "..."]
    status: Status

    @property
    def converged(self) -> Bool[Array, "..."]:
        """Whether the residual is below the tolerance."""
        return self.status == Status.converged

    @property
    def usable(self) -> Bool[Array, "..."]:
        """Whether a rule may learn from it: converged, or truncated on request."""
        return at_rest(self.status)

    def __str__(self) -> str:
        sizes = ", ".join(str(jnp.shape(leaf)) for leaf in jax.tree.leaves(self.state))
        if jnp.ndim(self.residual):
            return (
                f"{self.residual.size} equilibria with states {sizes}: {int(jnp.sum(self.converged))} converged, "
                f"largest residual {float(jnp.max(self.residual)):.2e}, at most {int(jnp.max(self.steps))} steps"
            )
        energy = "" if self.energy is None else f", energy {float(jnp.real(self.energy)):.6g}"
        sentence = Status[self.status]
        return f"state {sizes}{energy}, residual {float(self.residual):.2e} after {int(self.steps)} steps. {sentence}"


class Solver(eqx.Module):
    """A way to settle: called with a substrate, an input, a nudge, a start and a key, returns an `Equilibrium`."""

    @abc.abstractmethod
    def __call__(
        self, substrate: Any, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium: ...


def max_norm(tree: PyTree) -> Float[Array, ""]:
    """The largest magnitude of any number in a tree; 0 for an empty one."""
    sizes = [jnp.max(jnp.abs(leaf), initial=0.0) for leaf in jax.tree.leaves(tree)]
    return jnp.max(jnp.stack(sizes)) if sizes else jnp.zeros(())


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
    """The tree with the dtypes of another of the same structure."""
    return jax.tree.map(lambda leaf, other: jnp.asarray(leaf).astype(other.dtype), tree, like)


def default_tolerances(dtype: Any) -> tuple[float, float]:
    """(absolute, relative) tolerances on the residual for a dtype: powers of its rounding error."""
    epsilon = float(jnp.finfo(dtype).eps)
    return epsilon**0.75, epsilon**0.75 * 4


def tolerance(
    substrate: Any,
    state: PyTree,
    x: PyTree,
    nudge: Nudge | Pin | None,
    absolute: float | None = None,
    relative: float | None = None,
) -> Float[Array, ""]:
    """The residual below which a relaxation counts as converged.

    absolute + relative * (forces at play), where these are the forces inside the system in the free phase and
    |beta dC/dstate| in a nudged one, where EP's error is the residual over beta. Below 16 rounding errors of the
    forces inside the system nothing can be asked.
    """
    dtype = jnp.result_type(*jax.tree.leaves(state))
    default_absolute, default_relative = default_tolerances(dtype)
    absolute = default_absolute if absolute is None else absolute
    relative = default_relative if relative is None else relative
    inside = substrate.force_scale(state, x)
    at_play = inside
    if isinstance(nudge, Nudge):
        output, transpose = jax.vjp(lambda s: substrate.read(s, x), state)
        at_play = max_norm(transpose(nudge.pull(output)))
    return absolute + jnp.maximum(relative * at_play, 16 * jnp.finfo(dtype).eps * inside)


def judge(
    substrate: Any,
    state: PyTree,
    x: PyTree,
    nudge: Nudge | Pin | None,
    steps: Int[Array, ""] | int,
    limit: Float[Array, ""],
) -> Equilibrium:
    """The equilibrium at a state, with its residual and energy, judged against a tolerance."""
    residual = substrate.residual(state, x, nudge)
    finite = jnp.isfinite(residual)
    for leaf in jax.tree.leaves(state):
        finite &= jnp.all(jnp.isfinite(leaf))
    status = Status.where(
        finite, Status.where(residual <= limit, Status.converged, Status.out_of_steps), Status.not_finite
    )
    energy = substrate.total_energy(state, x, nudge) if substrate.conservative else None
    return Equilibrium(state, energy, residual, jnp.asarray(steps, dtype=jnp.int32), status)
