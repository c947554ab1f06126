"""The compiled steps of training: batch after batch, nothing copied, and a tally of what happened."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from learning.checkpoint import raw
from learning.costs import SquaredError
from learning.evaluation import Evaluation, count_misses, default_batch, evaluate_examples
from learning.examples import Examples
from learning.rule import Estimator, Moved, Mover
from substrates.substrate import FAILURES, Status, parameter_dtype, split_parameters


class Tally(eqx.Module):
    """What an epoch has added up so far."""

    cost: Array
    wrong: Array
    residual: Array
    unconverged: Array
    failures: Array
    """How many equilibria ended in each of `FAILURES`."""

    @classmethod
    def zero(cls, dtype: Any) -> Tally:
        count = lambda *shape: jnp.zeros(shape, jnp.int32)
        return cls(jnp.zeros((), dtype), count(), jnp.zeros((), dtype), count(), count(len(FAILURES)))

    def add(self, estimate: Any, target: PyTree, labelled: bool) -> Tally:
        wrong = jnp.sum(count_misses(estimate.output, target)) if labelled else 0
        failures = [sum(jnp.sum(e.status == getattr(Status, f)) for e in estimate.equilibria) for f in FAILURES]
        return Tally(
            self.cost + estimate.cost.astype(self.cost.dtype),
            self.wrong + jnp.asarray(wrong, jnp.int32),
            jnp.maximum(self.residual, estimate.residual.astype(self.residual.dtype)),
            self.unconverged + jnp.asarray(estimate.unconverged, jnp.int32),
            self.failures + jnp.stack([jnp.asarray(f, jnp.int32) for f in failures]),
        )

    def add_moved(self, moved: Moved, target: PyTree, labelled: bool, batches: int = 1) -> Tally:
        """The same for a mover, which judges its phases itself, and what it made of several batches at once."""
        wrong = count_misses(moved.output, target).sum() if labelled else 0
        return Tally(
            self.cost + batches * jnp.asarray(moved.cost, self.cost.dtype),
            self.wrong + jnp.asarray(wrong, jnp.int32),
            jnp.maximum(self.residual, jnp.asarray(moved.residual, self.residual.dtype)),
            self.unconverged + jnp.asarray(moved.unconverged, jnp.int32),
            self.failures,
        )

    def good(self, strict: bool) -> Array:
        """Whether training may go on."""
        judged = self.failures if strict else self.failures[FAILURES.index("not_finite")]
        return jnp.isfinite(self.cost) & (jnp.sum(judged) == 0)


class Moving(NamedTuple):
    """What a step changes: the trainable parameters (a mover: all arrays), the optimiser's state, the tally."""

    parameters: PyTree
    optimiser: PyTree
    tally: Tally


class Standing(NamedTuple):
    """What the compiled loop reads and does not change."""

    rest: PyTree
    rule: Estimator | Mover
    optimiser: optax.GradientTransformation | None
    x: PyTree
    y: PyTree
    labelled: bool
    strict: bool
    batch_size: int


@eqx.filter_jit(donate="all-except-first")
def _advance(reading: tuple[Standing, Array, Array, Array, Array], moving: Moving) -> tuple[Array, Moving]:
    """Steps from batch `start` to batch `stop` of an epoch, or through the first bad one; returns where it stopped.

    The bounds are run-time values, so that one program serves chunks of every length, and the buffers of what moves
    are given back to it, so that no parameter is copied.
    """
    standing, order, start, stop, key = reading

    def step(at: Array, moving: Moving) -> Moving:
        index = jax.lax.dynamic_slice_in_dim(order, at * standing.batch_size, standing.batch_size)
        x, y = jax.tree.map(lambda leaf: leaf[index], (standing.x, standing.y))
        system = eqx.combine(moving.parameters, standing.rest)
        step_key = jax.random.fold_in(key, at)
        if isinstance(standing.rule, Mover):
            found = standing.rule.step(system, x, y, key=step_key)
            tally = moving.tally.add_moved(found, y, standing.labelled)
            return Moving(eqx.filter(found.system, eqx.is_array), moving.optimiser, tally)
        assert standing.optimiser is not None
        estimate = standing.rule(system, x, y, key=step_key)
        with jax.numpy_dtype_promotion("standard"):  # which optax's optimisers rely on
            updates, state = standing.optimiser.update(estimate.gradient, moving.optimiser, moving.parameters)
            moved: Any = eqx.combine(optax.apply_updates(moving.parameters, updates), standing.rest)
        tally = moving.tally.add(estimate, y, standing.labelled)
        # Nothing is learned from a bad batch. The choice also makes the new parameters wait for everything that reads
        # the old ones, without which the compiler copies them at every step.
        good = tally.good(standing.strict)
        choose = lambda new, old: jnp.where(good, new, old)
        parameters = jax.tree.map(choose, split_parameters(moved.constrained())[0], moving.parameters)
        return Moving(parameters, jax.tree.map(choose, state, moving.optimiser), tally)

    def going(carry: tuple[Array, Moving]) -> Array:
        at, moving = carry
        return (at < stop) & moving.tally.good(standing.strict)

    return jax.lax.while_loop(going, lambda carry: (carry[0] + 1, step(*carry)), (start, moving))


def epoch_order(key: PRNGKeyArray, epoch: int, size: int, filled: int) -> np.ndarray:
    """The examples in an order drawn from the key, its beginning once more at the end to fill the last batch."""
    words = np.asarray(raw(key)).ravel()
    order = np.random.default_rng([*words.tolist(), epoch]).permutation(size).astype(np.int32)
    return np.concatenate([order, order[: filled - size]])


class Trainer:
    """The steps of training: what stands, what moves, and the order of the examples."""

    def __init__(
        self,
        substrate: Any,
        rule: Estimator | Mover,
        optimiser: optax.GradientTransformation | None,
        examples: Examples,
        batch_size: int,
        key: PRNGKeyArray,
        strict: bool,
    ):
        self.examples, self.batch_size, self.key, self.strict = examples, batch_size, key, strict
        self.cost = getattr(rule, "cost", SquaredError())
        moves_itself = isinstance(rule, Mover)
        parameters, rest = eqx.partition(substrate, eqx.is_array) if moves_itself else split_parameters(substrate)
        x, y = jax.tree.map(jnp.asarray, (examples.x, examples.y))
        counting = rule if moves_itself else _lenient(rule)
        self.standing = Standing(rest, counting, optimiser, x, y, examples.labelled, strict, batch_size)
        state = None if optimiser is None else optimiser.init(parameters)
        self.dtype = jnp.finfo(parameter_dtype(substrate)).dtype
        self.initial = Moving(parameters, state, Tally.zero(self.dtype))

    @property
    def batches(self) -> int:
        """Steps per epoch."""
        return math.ceil(self.examples.size / self.batch_size)

    def begin_epoch(self, moving: Moving) -> Moving:
        """The same with an empty tally."""
        return moving._replace(tally=Tally.zero(self.dtype))

    def order(self, epoch: int) -> tuple[Array, PRNGKeyArray]:
        """The examples in the order of an epoch, in full batches, and the key of its steps."""
        order = epoch_order(self.key, epoch, self.examples.size, self.batches * self.batch_size)
        return jnp.asarray(order), jax.random.fold_in(self.key, epoch)

    def advance(self, moving: Moving, order: tuple[Array, PRNGKeyArray], start: int, stop: int) -> tuple[int, Moving]:
        """The next batches of an epoch; `moving` must not be used again."""
        bounds = (jnp.asarray(start, jnp.int32), jnp.asarray(stop, jnp.int32))
        at, moving = _advance((self.standing, order[0], *bounds, order[1]), moving)
        return int(at), moving

    def system(self, moving: Moving) -> Any:
        """The whole system."""
        return eqx.combine(moving.parameters, self.standing.rest)

    def restore(self, moving: Moving) -> Moving:
        """Goes on from what was saved."""
        return moving

    def evaluate(self, moving: Moving, examples: Examples, key: PRNGKeyArray) -> Evaluation:
        """How well the system does on examples."""
        return evaluate_examples(self.system(moving), examples, self.cost, default_batch(examples), key=key)


def _lenient(rule: Estimator) -> Estimator:
    """The same rule, and every rule inside it, that raises nothing in compiled code; the loop judges in its place."""
    changes: dict[str, Any] = {}
    for each in fields(rule):
        value = getattr(rule, each.name)
        if each.name == "strict":
            changes["strict"] = False
        elif isinstance(value, Estimator):
            changes[each.name] = _lenient(value)
    return replace(rule, **changes) if changes else rule
