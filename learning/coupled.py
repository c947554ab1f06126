"""Rules that hold the outputs: contrastive learning at the targets, coupled learning a little towards them."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from learning.costs import SquaredError
from learning.examples import free_phase, ready_batch
from learning.rule import Estimate, Estimator, check_positive, require_usable
from substrates.substrate import (
    Cost,
    Nudge,
    NudgeRefusedError,
    Pin,
    Substrate,
    as_tree,
    fit_target,
    reads_parameters,
    relax_batch,
    takes_own_targets,
)

Variant = Literal["positive", "negative", "centered"]


class HoldingRule(Estimator):
    """A rule that contrasts equilibria with outputs that are held: [dE/dtheta(plus) - dE/dtheta(minus)] / distance.

    The free phase settles first; each held phase starts from the free state. A system that cannot hold its outputs (an
    ensemble, whose outputs are means) refuses the pin; one whose outputs are read through trainable parameters is
    refused here, since held outputs teach its read-out nothing.
    """

    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree, kw_only=True)
    strict: bool = eqx.field(static=True, default=True, kw_only=True)

    @abc.abstractmethod
    def held(self, output: Float[Array, "batch outputs"], y: PyTree) -> tuple[list[Any], float | Array]:
        """What plus and minus show, None for the free phase, and the distance between them."""

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        if takes_own_targets(self.cost):
            raise ValueError(
                f"cost: {type(self).__name__} holds outputs at numbers, one for each; got {self.cost}, whose targets "
                "are of a kind of their own"
            )
        x, y = ready_batch(substrate, x, y, self.cost, key)
        estimate = _contrast_of_held(jax.tree.map(jnp.asarray, self), substrate, x, y, key)
        return require_usable(estimate, substrate) if self.strict else estimate


class ContrastiveLearning(HoldingRule):
    """Contrastive learning: the free equilibrium against the one whose outputs are held at the targets.

        gradient = dE/dtheta(o = y) - dE/dtheta(free),

    the exact gradient of L = E(o = y) - E(free), which is never negative and vanishes where the outputs are right; near
    there it is (y - o)' chi^-1 (y - o) / 2 with chi = do/df the response of the outputs to forces on them. So it
    descends another objective than the cost, which is only reported. Two relaxations for each example.

    Attributes:
        cost: what is reported of the free outputs, a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` rather than learn from an equilibrium that did not converge.

    Source: Movellan 1991, "Contrastive Hebbian learning in the continuous Hopfield model"; as one of seven rules,
    Scellier, Ernoult, Kendall and Kumar 2023, arXiv 2312.15103.
    """

    in_short: ClassVar[str] = "free against outputs held at targets; 2 relaxations; descends another objective"

    def held(self, output: Float[Array, "batch outputs"], y: PyTree) -> tuple[list[Any], float]:
        return [y, None], 1.0


class CoupledLearning(HoldingRule):
    """Coupled learning: outputs held a part eta of the way from where they are free towards the targets.

    With o+- = o -+ eta dC/do, which is o +- eta (y - o) for the squared error,

    | variant | gradient | |
    |---|---|---|
    | "positive" | [dE/dtheta(o+) - dE/dtheta(free)] / eta | at eta = 1 contrastive learning |
    | "negative" | [dE/dtheta(free) - dE/dtheta(o-)] / eta | |
    | "centered" | [dE/dtheta(o+) - dE/dtheta(o-)] / (2 eta) | bias of order eta^2 |

    As eta goes to 0 this is (do/dtheta)' chi^-1 dC/do, where equilibrium propagation finds (do/dtheta)' dC/do, with
    chi = do/df the response of the outputs to forces on them: the same direction for one output, another for several.
    It is not the gradient of its contrast, for where outputs are held moves with the parameters. Two relaxations for
    each example, three centred.

    Attributes:
        eta: the part, above 0 and at most 1.
        variant: which pair is contrasted.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` rather than learn from an equilibrium that did not converge.

    Source: Stern, Hexner, Rocks and Liu 2021, arXiv 2011.03861; the negative and centred variants, and dC/do in place
    of the error, Scellier, Ernoult, Kendall and Kumar 2023, arXiv 2312.15103.
    """

    in_short: ClassVar[str] = (
        "outputs held a part of the way to targets; 3 relaxations centred, else 2; exact direction for one output"
    )
    usual: ClassVar[Mapping[str, Any]] = {"eta": 0.1}

    eta: float
    variant: Variant = eqx.field(static=True, default="centered")

    def __check_init__(self):
        if self.variant not in get_args(Variant):
            raise ValueError(f"variant: wanted one of {get_args(Variant)}, got {self.variant!r}")
        check_positive("eta", self.eta, "; the variant chooses the sign")
        if not isinstance(self.eta, jax.Array) and self.eta > 1:
            raise ValueError(f"eta: wanted a part of the way to the target, above 0 and at most 1, got {self.eta}")

    def held(self, output: Float[Array, "batch outputs"], y: PyTree) -> tuple[list[Any], Array]:
        eta = jnp.asarray(self.eta, output.dtype)
        step = jax.vmap(lambda o, t: Nudge(self.cost, t, eta).pull(o))(output, y)
        pair = {"positive": [output + step, None], "negative": [None, output - step]}
        return pair.get(self.variant, [output + step, output - step]), 2 * eta if self.variant == "centered" else eta


@eqx.filter_jit
def _contrast_of_held(
    rule: HoldingRule, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray | None
) -> Estimate:
    _refuse_trained_reading(substrate, x)
    free, output, keys = free_phase(substrate, x, key)
    y = fit_target(y, output, rule.cost, name="y", batched=True)
    cost = jnp.mean(jax.vmap(rule.cost)(output, y))
    pair, distance = rule.held(output, y)
    targets = [target for target in pair if target is not None]
    found = jax.lax.map(lambda target: relax_batch(substrate, x, Pin(target), free.state, keys), jnp.stack(targets))
    held = [jax.tree.map(lambda leaf, k=k: leaf[k], found) for k in range(len(targets))]
    remaining = iter(held)
    plus, minus = (free if target is None else next(remaining) for target in pair)
    contrast = substrate.contrast(plus.state, minus.state, x)
    gradient = jax.tree.map(lambda leaf: leaf / jnp.asarray(distance, output.dtype), contrast)
    return Estimate(gradient, cost, output, (free, *held), relaxations=1 + len(held))


def _refuse_trained_reading(substrate: Substrate, x: PyTree) -> None:
    """Raises NudgeRefusedError for outputs that depend on parameters at a given state."""
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf)[1:], jnp.result_type(leaf)), x)
    state = eqx.filter_eval_shape(lambda x: substrate.start(x), example)
    if reads_parameters(substrate, state, example):
        raise NudgeRefusedError(
            f"substrate: wanted outputs that are variables of the system, got {type(substrate).__name__}, which reads "
            "them through trainable parameters: held outputs teach these nothing; use EquilibriumPropagation"
        )
