"""Physics-aware training: forward through the physical system, backward through its model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from learning.costs import SquaredError
from learning.examples import free_phase, ready_batch
from learning.reference import check_state, require_response, response_gradient
from learning.rule import Estimate, Estimator, as_map, check_positive, check_seed, require_usable
from substrates.substrate import Cost, Equilibrium, Substrate, as_tree, fit_target, split_parameters

Twin = Callable[[Substrate], Substrate]


class Mismatch(eqx.Module):
    """A twin that is known badly: every trainable parameter times exp(size n), with n normal, drawn once.

    Attributes:
        size: of the mismatch, from 0, where the twin is the system itself; small ones are relative errors.
        seed: of the draws, one number for each parameter.
    """

    size: float
    seed: int = 0

    def __check_init__(self):
        zero = isinstance(self.size, int | float | np.number) and not isinstance(self.size, bool) and self.size == 0
        if not zero:
            check_positive("size", self.size, ", or 0 for a perfect twin")
        check_seed(self.seed)

    def __call__(self, substrate: Substrate) -> Substrate:
        """The twin of a substrate."""
        parameters, rest = split_parameters(substrate)
        leaves, structure = jax.tree.flatten(parameters)
        keys = jax.random.split(jax.random.key(self.seed), max(len(leaves), 1))
        draw = lambda leaf, key: jax.random.normal(key, leaf.shape, leaf.dtype)
        wrong = [
            leaf * jnp.exp(jnp.asarray(self.size, leaf.dtype) * draw(leaf, key))
            for leaf, key in zip(leaves, keys, strict=False)
        ]
        return eqx.combine(structure.unflatten(wrong), rest)


class PhysicsAware(Estimator):
    """Physics-aware training: the physical system shows how wrong it is, its digital twin how to change that.

    The system settles freely and its outputs o are read; the slope dC/do is taken there. It is pulled back through the
    equilibrium s' of the twin, a model on a computer that settles by itself, by the implicit function theorem, and
    then through the map from the system's parameters theta to the twin's:

        gradient = (dtwin/dtheta)' (do'/dtheta')' dC/do(o).

    With a perfect twin it is the exact gradient; what the twin gets wrong turns it away, to first order in the
    mismatch, while the error that drives it stays that of the physical outputs.

    It differentiates the twin, never the system. `PhysicsAwareKnobs` trains systems on the bench so.

    Attributes:
        twin: a callable, from a substrate to its model: a substrate with the same inputs and outputs. See `Mismatch`.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` for an equilibrium, of the system or of the twin, that did not converge, or one
            of the twin that does not move smoothly.

    One example takes one physical relaxation; the equilibria of the estimate are those of the system, then the twin's.

    Source: Wright et al. 2022, "Deep physical neural networks trained with backpropagation", arXiv 2104.13386.
    """

    in_short: ClassVar[str] = "forward by the system, backward by its twin; 1 relaxation; bias O(mismatch of the twin)"
    usual: ClassVar[Mapping[str, Any]] = {"twin": Mismatch(0.1)}

    twin: Twin = eqx.field(
        converter=lambda given: as_map("twin", given, "Mismatch(0.1), say"), metadata={"of_number": Mismatch}
    )
    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree)
    strict: bool = eqx.field(static=True, default=True)

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        x, y = ready_batch(substrate, x, y, self.cost, key)
        estimate, exists = _through_twin(jax.tree.map(jnp.asarray, self), substrate, x, y, key)
        if not self.strict:
            return estimate
        return require_response(require_usable(estimate, substrate), exists, "PhysicsAware")


class _Along(eqx.Module):
    """The cost whose slope is given: slope . output."""

    def __call__(self, output: Array, slope: Array) -> Array:
        return jnp.sum(slope * output)


@eqx.filter_jit
def _through_twin(
    rule: PhysicsAware, substrate: Substrate, x: PyTree, y: PyTree, key: PRNGKeyArray | None
) -> tuple[Estimate, Bool[Array, ""]]:
    free, output, _ = free_phase(substrate, x, key)
    y = fit_target(y, output, rule.cost, name="y", batched=True)
    cost, gradient, modelled, exists = pulled_back(rule, substrate, x, y, output, key)
    return Estimate(gradient, cost, output, (free, modelled), relaxations=1), exists


@eqx.filter_jit
def pulled_back(
    rule: PhysicsAware,
    substrate: Substrate,
    x: PyTree,
    y: PyTree,
    output: Float[Array, "batch outputs"],
    key: PRNGKeyArray | None,
) -> tuple[Float[Array, ""], PyTree, Equilibrium, Bool[Array, ""]]:
    """What outputs cost, the gradient that the twin of a substrate makes of it, and how the twin settled and moves."""
    costs, slopes = jax.vmap(jax.value_and_grad(rule.cost))(output, y)
    twin = rule.twin(substrate)
    if not isinstance(twin, Substrate):
        raise TypeError(f"twin: wanted a callable that returns a Substrate, got one that returns {type(twin).__name__}")
    if twin.discrete:
        raise ValueError(
            f"twin: wanted a model with states that can be differentiated, got {type(twin).__name__}, whose states are "
            "discrete; give a continuous model of it"
        )
    modelled, shown, _ = free_phase(twin, x, key)
    check_state("PhysicsAware", twin, modelled.state)
    if shown.shape != output.shape:
        raise ValueError(f"twin: wanted a model with outputs of shape {output.shape[1:]}, got {shown.shape[1:]}")
    in_twin, exists = response_gradient(twin, modelled.state, x, slopes, _Along())
    parameters, rest = split_parameters(substrate)
    of_twin = lambda parameters: split_parameters(rule.twin(eqx.combine(parameters, rest)))[0]
    gradient = jax.vjp(of_twin, parameters)[1](in_twin)[0]
    return jnp.mean(costs), gradient, modelled, jnp.all(exists)
