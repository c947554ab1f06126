"""The steps of training, batch after batch, with a tally of what happened: compiled, or by a system on the bench."""

from __future__ import annotations

import abc
import math
from dataclasses import fields, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from learning.checkpoint import raw
from learning.costs import SquaredError
from learning.devices import Devices
from learning.evaluation import Evaluation, count_misses, default_batch, evaluate_examples, evaluate_on_bench
from learning.examples import Examples
from learning.homeostat import IntegralControl
from learning.rule import Estimator, Moved, Mover
from substrates.laboratory.system import PhysicalSystem
from substrates.substrate import FAILURES, Status, by_devices, divided, parameter_dtype, shared, split_parameters


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
        missed = count_misses(estimate.output, target) if labelled else jnp.zeros(len(estimate.output), bool)
        ended = missed, [(each.residual, each.status) for each in estimate.equilibria]
        # each device counts its own before all are added up: one sum over devices in place of one for each quantity
        common = math.gcd(*(leaf.shape[-1] for leaf in jax.tree.leaves(ended)))
        found = by_devices(_counted, common, jax.tree.map(lambda leaf: leaf.ndim - 1, ended), 0, *ended)
        residual, (wrong, unconverged, *failures) = jnp.max(found[0]), jnp.sum(found[1], axis=0, dtype=jnp.int32)
        return Tally(
            self.cost + estimate.cost.astype(self.cost.dtype),
            self.wrong + wrong,
            jnp.maximum(self.residual, residual.astype(self.residual.dtype)),
            self.unconverged + unconverged,
            self.failures + jnp.stack(failures),
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


def _counted(missed: Array, equilibria: list[tuple[Array, Any]]) -> tuple[Float[Array, "1"], Int[Array, "1 counts"]]:
    """(the largest residual; how many outputs are wrong, how many equilibria unconverged, how many of `FAILURES`)."""
    residual = jnp.max(jnp.stack([jnp.max(residual) for residual, _ in equilibria]))
    number = lambda holds: sum(jnp.sum(holds(status), dtype=jnp.int32) for _, status in equilibria)
    failures = [number(lambda status, f=f: status == getattr(Status, f)) for f in FAILURES]
    counts = [jnp.sum(missed, dtype=jnp.int32), number(lambda status: status != Status.converged), *failures]
    return residual[None], jnp.stack(counts)[None]


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
    are given back to it, so that no parameter is copied. Where devices share the examples (`Devices.sharing`), each
    takes its part of every batch; gradients, costs and counts are sums over all of them.
    """
    standing, order, start, stop, key = reading

    def step(at: Array, moving: Moving) -> Moving:
        index = jax.lax.dynamic_slice_in_dim(order, at * standing.batch_size, standing.batch_size)
        x, y = shared(jax.tree.map(lambda leaf: leaf[index], (standing.x, standing.y)))
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

    at, moving = jax.lax.while_loop(going, lambda carry: (carry[0] + 1, divided(step(*carry))), (start, moving))
    return at, divided(moving)  # as it came in, so that the next call is of the same program


def epoch_order(key: PRNGKeyArray, epoch: int, size: int, filled: int) -> np.ndarray:
    """The examples in an order drawn from the key, its beginning once more at the end to fill the last batch."""
    words = np.asarray(raw(key)).ravel()
    order = np.random.default_rng([*words.tolist(), epoch]).permutation(size).astype(np.int32)
    return np.concatenate([order, order[: filled - size]])


class Epochs(abc.ABC):
    """The steps of training, epoch after epoch: what they need, what moves, and the order of the examples.

    Attributes:
        initial: what moves, before the first step.
        last: how far the present call of `advance` got, and what moved until then, where that outlives an error.
    """

    last: tuple[int, Any] | None = None

    def __init__(
        self,
        system: Any,
        rule: Any,
        optimiser: optax.GradientTransformation | None,
        examples: Examples,
        batch_size: int,
        key: PRNGKeyArray,
        strict: bool,
        devices: Devices | None = None,
    ):
        self.rule, self.examples, self.batch_size, self.key, self.strict = rule, examples, batch_size, key, strict
        self.devices = Devices() if devices is None else devices
        self.cost = getattr(rule, "cost", SquaredError())
        self.initial: Any = self._begin(system, optimiser)

    @property
    def estimates(self) -> bool:
        """Whether the outputs that a step reports are estimated; see `Mover`."""
        return isinstance(self.rule, Mover) and self.rule.estimates

    @property
    def batches(self) -> int:
        """Steps per epoch."""
        return math.ceil(self.examples.size / self.batch_size)

    def begin_epoch(self, moving: Any) -> Any:
        """The same with an empty tally."""
        return moving._replace(tally=self.devices.place(Tally.zero(moving.tally.cost.dtype)))

    def order(self, epoch: int) -> tuple[Array, PRNGKeyArray]:
        """The examples in the order of an epoch, in full batches, and the key of its steps."""
        order = epoch_order(self.key, epoch, self.examples.size, self.batches * self.batch_size)
        return jnp.asarray(order), jax.random.fold_in(self.key, epoch)

    @abc.abstractmethod
    def _begin(self, system: Any, optimiser: optax.GradientTransformation | None) -> Any:
        """What moves, before the first step."""

    @abc.abstractmethod
    def advance(self, moving: Any, order: tuple[Array, PRNGKeyArray], start: int, stop: int) -> tuple[int, Any]:
        """The next batches of an epoch: how far they got, and what moved; `moving` must not be used again."""

    @abc.abstractmethod
    def system(self, moving: Any) -> Any:
        """The whole system."""

    @abc.abstractmethod
    def restore(self, moving: Any) -> Any:
        """Goes on from what was saved."""

    @abc.abstractmethod
    def evaluate(self, moving: Any, examples: Examples, key: PRNGKeyArray) -> Evaluation:
        """How well the system does on examples."""


class Trainer(Epochs):
    """The steps of a substrate, compiled."""

    def _begin(self, system: Any, optimiser: optax.GradientTransformation | None) -> Moving:
        moves_itself = isinstance(self.rule, Mover)
        parameters, rest = eqx.partition(system, eqx.is_array) if moves_itself else split_parameters(system)
        x, y = jax.tree.map(jnp.asarray, (self.examples.x, self.examples.y))
        counting = self.rule if moves_itself else lenient(self.rule)
        standing = Standing(rest, counting, optimiser, x, y, self.examples.labelled, self.strict, self.batch_size)
        self.standing = self.devices.place(standing)
        tally = self.devices.place(Tally.zero(jnp.finfo(parameter_dtype(system)).dtype))
        placed = self.devices.divide(parameters)
        if optimiser is None:
            return Moving(placed, None, tally)
        if self.devices.columns == 1:
            return Moving(placed, self.devices.place(optimiser.init(parameters)), tally)
        with self.devices.sharing():  # compiled, so that no device ever has all of it
            return Moving(placed, eqx.filter_jit(lambda given: divided(optimiser.init(given)))(placed), tally)

    def advance(self, moving: Moving, order: tuple[Array, PRNGKeyArray], start: int, stop: int) -> tuple[int, Moving]:
        bounds = (jnp.asarray(start, jnp.int32), jnp.asarray(stop, jnp.int32))
        places, first, last, key = self.devices.place((order[0], *bounds, order[1]))
        try:
            with self.devices.sharing():
                at, moving = _advance((self.standing, places, first, last, key), moving)
        except NotImplementedError as error:
            if self.devices.columns == 1:
                raise
            raise self.devices.refusal(
                f"this system computes on the host while it settles, for which JAX cannot share columns ({error})"
            ) from error
        return int(at), moving

    def system(self, moving: Moving) -> Any:
        return self.devices.own(self._system(moving))

    def restore(self, moving: Moving) -> Moving:
        return self.devices.divide(moving)

    def evaluate(self, moving: Moving, examples: Examples, key: PRNGKeyArray) -> Evaluation:
        size = self.devices.rounded(default_batch(examples))
        with self.devices.sharing():
            return evaluate_examples(self._system(moving), examples, self.cost, size, key=self.devices.place(key))

    def _system(self, moving: Moving) -> Any:
        return eqx.combine(moving.parameters, self.standing.rest)


class Stand(NamedTuple):
    """Where a physical system stands in training: what is saved of it."""

    parameters: Float[np.ndarray, "parameters"]
    knobs: Float[np.ndarray, "knobs"]
    tally: Tally


class BenchTrainer(Epochs):
    """The steps of a physical system on the bench, by a mover; its parameters are held while it is evaluated."""

    def _begin(self, system: PhysicalSystem, optimiser: Any) -> Stand:
        self.bench, self.homeostat = system, getattr(self.rule, "homeostat", None)
        return self._stand(Tally.zero(jnp.zeros(()).dtype))

    def advance(self, moving: Stand, order: tuple[Array, PRNGKeyArray], start: int, stop: int) -> tuple[int, Stand]:
        with self.devices.sharing():
            return self._advance(moving, order, start, stop)

    def _advance(self, moving: Stand, order: tuple[Array, PRNGKeyArray], start: int, stop: int) -> tuple[int, Stand]:
        reached, places = (start, moving), np.asarray(order[0])
        together = stop - start if self.rule.steps_itself(self.bench) else 1
        for at in range(start, stop, together):
            self.last = reached
            index = places[at * self.batch_size : (at + together) * self.batch_size]
            x, y = self.examples.x[index], self.examples.y[index]
            found = self.rule.step(self.bench, x, y, key=jax.random.fold_in(order[1], at))
            tally = reached[1].tally.add_moved(found, y, self.examples.labelled, together)
            reached = (at + together, self._stand(tally))
        return reached

    def system(self, moving: Stand) -> PhysicalSystem:
        return self.bench

    def restore(self, moving: Stand) -> Stand:
        self.bench.set_knobs(moving.knobs)
        self.bench.clamp(None)
        self.bench.nudge(None, 0.0)
        (self.homeostat or IntegralControl()).hold(self.bench, moving.parameters)
        return moving

    def evaluate(self, moving: Stand, examples: Examples, key: PRNGKeyArray) -> Evaluation:
        with self.devices.sharing():
            return evaluate_on_bench(self.bench, examples, self.cost, self.homeostat)

    def _stand(self, tally: Tally) -> Stand:
        reading = self.bench.read()
        kept = lambda values: values.copy() if values.flags.writeable else values
        return Stand(kept(reading.parameters), kept(reading.knobs), tally)


def lenient(rule: Estimator) -> Estimator:
    """The same rule, and every rule inside it, that raises nothing in compiled code; the loop judges in its place."""
    changes: dict[str, Any] = {}
    for each in fields(rule):
        value = getattr(rule, each.name)
        if each.name == "strict":
            changes["strict"] = False
        elif isinstance(value, Estimator):
            changes[each.name] = lenient(value)
    return replace(rule, **changes) if changes else rule
