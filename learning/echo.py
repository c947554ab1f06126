"""A rule that learns from echoes: motions that run back the way they came, nudged."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from learning.costs import SquaredError
from learning.examples import free_phase, ready_batch
from learning.rule import Estimate, Estimator, check_positive, require_usable
from substrates.substrate import Cost, Nudge, Substrate, as_tree, fit_target

_ADVICE = (
    "Take friction away or give shorter motions, more steps of time, another beta; or learn from them all the same "
    "with strict=False."
)


class HamiltonianEcho(Estimator):
    """The gradient of the cost of a motion from two echoes of it: three passes, whatever its length.

    The motion runs freely to its end, where momenta are reversed; on its way back the outputs are nudged by a constant
    force, -+beta times the slope dC/do of what was read. With S the action of the motion,

        gradient = [ dS/dtheta(echo, +beta) - dS/dtheta(echo, -beta) ] / (2 beta) + O(beta^2),

    and, as beta goes to 0, the gradient of automatic differentiation through the steps of the motion. Nothing is
    stored on the way, and dS/dtheta = -int dH/dtheta dt is local.

    Only systems that run back the way they came have it (`Substrate.reversible`). Friction shows: the mean of the two
    echoes then misses the launch by more than the nudges set them apart.

    Attributes:
        beta: the nudging strength, positive.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` rather than learn from a motion that did not return.

    Raises TypeError for a system that is not reversible.

    Source: Pourcel and Ernoult 2025, arXiv 2506.05259; Pourcel, Basu, Ernoult and Gilra 2025, arXiv 2506.06248, for its
    place among boundary conditions.
    """

    in_short: ClassVar[str] = "two nudged echoes of a motion; 3 passes of any length; bias O(beta^2)"

    beta: float
    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree)
    strict: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_positive("beta", self.beta)

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        x, y = ready_batch(substrate, x, y, self.cost, key)
        if not substrate.reversible:
            raise TypeError(
                f"HamiltonianEcho: wanted a motion that runs back the way it came (Trajectory.launched), got "
                f"{type(substrate).__name__}, which settles; train it by EquilibriumPropagation"
            )
        estimate = _estimate(jax.tree.map(jnp.asarray, self), substrate, x, y, key)
        return require_usable(estimate, substrate, _ADVICE) if self.strict else estimate


@eqx.filter_jit
def _estimate(rule: HamiltonianEcho, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray | None) -> Estimate:
    free, output, _ = free_phase(substrate, x, key)
    y = fit_target(y, output, rule.cost, name="y", batched=True)
    beta = jnp.asarray(rule.beta, output.dtype)
    contrast, returned = substrate.echo(free.state, x, Nudge(rule.cost, y, beta, about=output))
    gradient = jax.tree.map(lambda leaf: leaf / (2 * beta).astype(leaf.dtype), contrast)
    cost = jnp.mean(jax.vmap(rule.cost)(output, y))
    return Estimate(gradient, cost, output, (free, returned), relaxations=3)
