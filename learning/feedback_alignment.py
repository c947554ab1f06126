"""Feedback alignment: errors sent back through random weights that never learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from learning.costs import SquaredError
from learning.examples import free_phase, ready_batch
from learning.rule import Estimate, Estimator, as_map, check_positive, check_seed, require_usable
from substrates.substrate import Cost, Substrate, as_tree, fit_target, split_parameters


@runtime_checkable
class FeedForward(Protocol):
    """Capability: layers h_1, ..., h_L, the state as a tuple, of which each follows from those before it when free:
    h_k = activation(k, drive(k, state, x)), with a drive that is linear in the layers before.
    """

    @property
    def coupling(self) -> Sequence[Any]:
        """As many as there are layers."""
        ...

    def drive(self, k: int, state: Sequence[Array], x: Array) -> Float[Array, "..."]:
        """The pre-activation a_k of layer k from 1, given the layers before it."""
        ...

    def activation(self, k: int, drive: Array) -> Float[Array, "..."]:
        """f_k of a pre-activation."""
        ...


class RandomWeights(eqx.Module):
    """A substrate's parameters replaced by numbers uniform in gain / sqrt(fan in) (-1, 1), the same ones each time.

    Attributes:
        seed: of the draws.
        gain: scales them; the fan in is the product of all axes of an array but the last.
    """

    seed: int = 0
    gain: float = 1.0

    def __check_init__(self):
        check_seed(self.seed)
        check_positive("gain", self.gain)

    def __call__(self, substrate: Substrate) -> Substrate:
        """The substrate with random parameters."""
        parameters, rest = split_parameters(substrate)
        leaves, structure = jax.tree.flatten(parameters)
        keys = jax.random.split(jax.random.key(self.seed), max(len(leaves), 1))

        def draw(leaf: Array, key: PRNGKeyArray) -> Array:
            width = jnp.asarray(self.gain, leaf.dtype) / float(np.prod(leaf.shape[:-1])) ** 0.5
            return jax.random.uniform(key, leaf.shape, leaf.dtype, -width, width)

        return eqx.combine(structure.unflatten([draw(*pair) for pair in zip(leaves, keys, strict=False)]), rest)


class FeedbackAlignment(Estimator):
    """Feedback alignment: back-propagation in which fixed random matrices B_k stand for the transposed weights.

        delta_k = f_k'(a_k) * e_k,   e_k = B_k delta_{k+1},   e_L = dC/dh_L,   gradient_k = delta_k . da_k/dtheta_k,

    with pre-activations a_k and layers h_k of the free equilibrium. The forward weights turn until the errors that
    arrive are of use. With B_k the transposed weights it is back-propagation, the exact gradient.

    This rule looks inside: it sees the layers of the state and their activation functions. It takes systems that are
    `FeedForward`. Feedback goes through the drives of the substrate that `feedback` returns, with which convolutions
    and connections past layers have theirs; where maps are pooled by their largest entries, drives are not linear, and
    what is sent back chooses those entries that are largest for the feedback weights.

    Attributes:
        feedback: a callable, from a substrate to one with the parameters that send errors back.
        cost: a callable (output, target) -> scalar.
        strict: raise `ConvergenceError` rather than learn from an equilibrium that did not converge.

    Source: Lillicrap, Cownden, Tweed and Akerman 2016, "Random synaptic feedback weights support error backpropagation
    for deep learning", arXiv 1411.0247.
    """

    in_short: ClassVar[str] = "errors sent back by random weights; 1 relaxation; biased until the weights align"

    feedback: Callable[[Any], Any] = eqx.field(
        default_factory=RandomWeights, converter=lambda given: as_map("feedback", given, "RandomWeights(seed), say")
    )
    cost: Cost = eqx.field(default_factory=SquaredError, converter=as_tree)
    strict: bool = eqx.field(static=True, default=True)

    def __call__(self, substrate: Substrate, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None) -> Estimate:
        x, y = ready_batch(substrate, x, y, self.cost, key)
        _require_layers("substrate", substrate)
        estimate = _align(jax.tree.map(jnp.asarray, self), substrate, x, y, key)
        return require_usable(estimate, substrate) if self.strict else estimate


@eqx.filter_jit
def _align(rule: FeedbackAlignment, substrate: Any, x: PyTree, y: PyTree, key: PRNGKeyArray | None) -> Estimate:
    free, output, _ = free_phase(substrate, x, key)
    y = fit_target(y, output, rule.cost, name="y", batched=True)
    costs, slopes = jax.vmap(jax.value_and_grad(rule.cost))(output, y)
    back = _require_layers("feedback", rule.feedback(substrate))

    def deltas(state: Sequence[Array], x: PyTree, slope: Array) -> list[Array]:
        errors = jax.vjp(lambda s: substrate.read(s, x), state)[1](slope)[0]
        found = []
        for k in range(len(substrate.coupling), 0, -1):
            activation = lambda a, k=k: substrate.activation(k, a)
            (delta,) = jax.vjp(activation, substrate.drive(k, state, x))[1](errors[k - 1])
            (sent,) = jax.vjp(lambda s, k=k: back.drive(k, s, x), state)[1](delta)
            errors = jax.tree.map(jnp.add, errors, sent)
            found.insert(0, delta)
        return found

    parameters, rest = split_parameters(substrate)
    signals = jax.vmap(deltas)(free.state, x, slopes)

    def work(parameters: PyTree) -> Float[Array, ""]:
        system = eqx.combine(parameters, rest)

        def one(state: Sequence[Array], x: PyTree, y: PyTree, deltas: Sequence[Array]) -> Float[Array, ""]:
            moved = [jnp.sum(delta * system.drive(k, state, x)) for k, delta in enumerate(deltas, 1)]
            return sum(moved, rule.cost(system.read(state, x), y))

        return jnp.mean(jax.vmap(one)(free.state, x, y, signals))

    return Estimate(jax.grad(work)(parameters), jnp.mean(costs), output, (free,), relaxations=1)


def _require_layers(name: str, substrate: Any) -> FeedForward:
    """The same substrate, where it has feed-forward layers; others raise TypeError."""
    if not isinstance(substrate, FeedForward):
        raise TypeError(
            f"{name}: FeedbackAlignment wanted a substrate with feed-forward layers, which offers coupling, "
            f"drive(k, state, x) and activation(k, drive) as PredictiveCodingNetwork does, got "
            f"{type(substrate).__name__}; train it by EquilibriumPropagation"
        )
    return cast(FeedForward, substrate)
