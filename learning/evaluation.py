"""How well a trained system does on examples that it does not learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from learning.costs import SquaredError
from learning.examples import Examples, free_phase, prepare
from learning.homeostat import Homeostat
from substrates.laboratory.system import PhysicalSystem
from substrates.substrate import Cost, Substrate, as_tree, check_key, shared, whole

_LARGEST_BATCH = 1000


@dataclass(frozen=True)
class Evaluation:
    """What a system shows for a set of examples.

    Attributes:
        cost: the mean cost.
        error: the part of the examples whose largest output is not the one of their label; None without labels.
        unconverged: how many equilibria did not converge (they are counted in the cost and the error all the same).
        residual: the largest residual.
        size: how many examples there were.
        output: the outputs, shape (size, outputs), if they were asked for.
    """

    cost: float
    error: float | None
    unconverged: int
    residual: float
    size: int
    output: Float[np.ndarray, "n outputs"] | None = None

    @property
    def accuracy(self) -> float | None:
        """1 - error."""
        return None if self.error is None else 1 - self.error

    def __str__(self) -> str:
        right = "" if self.accuracy is None else f"accuracy {100 * self.accuracy:.2f} %, "
        return (
            f"{self.size:,} examples: {right}cost {self.cost:.4g}, largest residual {self.residual:.1e}, "
            f"{self.unconverged} unconverged"
        )


def evaluate(
    substrate: Substrate,
    data: tuple[Any, Any],
    *,
    cost: Cost | None = None,
    batch_size: int | None = None,
    outputs: bool = False,
    classes: Sequence[str] | None = None,
    key: PRNGKeyArray | None = None,
) -> Evaluation:
    """Settles freely on every example and compares the outputs with the targets.

    Args:
        substrate: the system.
        data: (X, Y) as in `fit`.
        cost: a callable (output, target) -> scalar; by default `SquaredError`.
        batch_size: how many examples settle together, by default all up to 1000. The last batch is filled up with
            examples that are not counted, so that one compiled program serves all.
        outputs: keep what every example shows.
        classes: the texts that stand for labels, one for each output, where labels are texts; by default those of Y.
        key: randomness, for systems that use it; split once per example.

    Raises ValueError for data that does not fit the system.
    """
    if not isinstance(substrate, Substrate):
        raise TypeError(
            f"substrate: wanted a Substrate, got {type(substrate).__name__}; evaluate_on_bench takes physical systems"
        )
    if key is not None:
        check_key("key", key)
    examples = prepare(substrate, data, cost=cost, classes=classes)
    if batch_size is not None and (not isinstance(batch_size, int | np.integer) or batch_size < 1):
        raise ValueError(f"batch_size: wanted a whole number, at least 1, got {batch_size!r}")
    return evaluate_examples(
        substrate,
        examples,
        SquaredError() if cost is None else as_tree(cost),
        batch_size or default_batch(examples),
        outputs,
        key,
    )


def default_batch(examples: Examples) -> int:
    """How many examples are evaluated together where nothing else is asked."""
    return min(_LARGEST_BATCH, examples.size)


def evaluate_examples(
    substrate: Substrate,
    examples: Examples,
    cost: Cost,
    batch_size: int,
    outputs: bool = False,
    key: PRNGKeyArray | None = None,
) -> Evaluation:
    """`evaluate` for examples that are ready."""
    total, wrong, unconverged, residual, shown = 0.0, 0, 0, 0.0, []
    for found in settle_examples(substrate, examples, cost, batch_size, key):
        total += float(np.sum(found.cost, dtype=np.float64))
        wrong += int(np.sum(found.wrong))
        unconverged += int(np.sum(~found.converged))
        residual = float(np.maximum(residual, np.max(found.residual)))
        if outputs:
            shown.append(found.output)
    return Evaluation(
        cost=total / examples.size,
        error=wrong / examples.size if examples.labelled else None,
        unconverged=unconverged,
        residual=residual,
        size=examples.size,
        output=np.concatenate(shown) if outputs else None,
    )


class Shown(NamedTuple):
    """What each example of a batch shows: outputs, cost, residual, whether it converged, whether it is wrong."""

    output: Any
    cost: Any
    residual: Any
    converged: Any
    wrong: Any


def settle_examples(
    substrate: Substrate, examples: Examples, cost: Cost, batch_size: int, key: PRNGKeyArray | None
) -> Iterator[Shown]:
    """What a substrate shows for examples, batch after batch, as numpy arrays."""
    for batch, start in enumerate(range(0, examples.size, batch_size)):
        index = np.arange(start, start + batch_size)
        counted = index < examples.size
        x, y = jax.tree.map(lambda leaf, i=index: leaf[i % examples.size], (examples.x, examples.y))
        batch_key = None if key is None else jax.random.fold_in(key, batch)
        found = jax.device_get(_show(substrate, cost, x, y, batch_key))
        yield jax.tree.map(lambda leaf, c=counted: leaf[c], found)


class Held(NamedTuple):
    """What a physical system shows for examples.

    Attributes:
        output: shape (n, outputs).
        settled: whether each came to rest with its parameters held, shape (n,).
        error: the farthest that a parameter was from where it should be.
    """

    output: Float[np.ndarray, "n outputs"]
    settled: Bool[np.ndarray, "n"]
    error: float


def evaluate_on_bench(
    system: PhysicalSystem, examples: Examples, cost: Cost, homeostat: Homeostat | None = None, outputs: bool = False
) -> Evaluation:
    """How a physical system does on examples that it does not learn from.

    Args:
        system: it settles freely on every example.
        examples: ready for it.
        cost: a callable (output, target) -> scalar.
        homeostat: holds the parameters where they are on every example; None lets them yield to each.
        outputs: keep what every example shows.
    """
    found = settle_on_bench(system, examples, homeostat)
    costs = jax.vmap(cost)(jnp.asarray(found.output), jnp.asarray(examples.y))
    wrong = count_misses(found.output, examples.y)
    width = system.spec.copies or 1
    return Evaluation(
        cost=float(jnp.mean(costs)),
        error=float(jnp.mean(wrong)) if examples.labelled else None,
        unconverged=int(np.sum(~found.settled[::width])),
        residual=found.error,
        size=examples.size,
        output=found.output if outputs else None,
    )


def settle_on_bench(system: PhysicalSystem, examples: Examples, homeostat: Homeostat | None) -> Held:
    """What a physical system shows for examples; see `evaluate_on_bench`."""
    width = system.spec.copies or 1
    theta = system.read().parameters
    system.nudge(None, 0.0)
    shown, errors, settled = [], [0.0], []
    for start in range(0, examples.size, width):
        index = np.arange(start, start + width) % examples.size
        x = examples.x[index]
        system.clamp(x if system.spec.copies else x[0])
        if homeostat is None:
            system.settle()
            held, reading = None, system.read()
        else:
            held = homeostat.hold(system, theta)
            reading = held.reading
            errors.append(held.error)
        settled += [held is None or held.settled] * width
        shown.append(reading.outputs.reshape(width, -1))
    output = np.concatenate(shown)[: examples.size]
    return Held(output, np.asarray(settled)[: examples.size], max(errors))


def count_misses(output: Any, target: Any) -> Any:
    """Whether the largest output of each example is not the one of its label, for targets of the outputs' shape."""
    return output.argmax(axis=-1) != target.argmax(axis=-1)


@eqx.filter_jit
def _show(substrate, cost, x, y, key):
    x, y = shared((x, y))
    free, output, _ = free_phase(substrate, x, key)
    comparable = eqx.is_array(y) and y.shape == output.shape
    misses = count_misses(output, y) if comparable else jnp.zeros(len(output), bool)
    return whole(Shown(output, jax.vmap(cost)(output, y), free.residual, free.converged, misses))
