"""What a trained system says to inputs without targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray, PyTree, Shaped

from learning.costs import SquaredError
from learning.evaluation import default_batch, settle_examples, settle_on_bench
from learning.examples import output_shape, prepare
from learning.homeostat import Homeostat, IntegralControl
from substrates.laboratory.system import PhysicalSystem
from substrates.substrate import Substrate, check_batch


@dataclass(frozen=True)
class Prediction:
    """What a system shows for a batch of inputs.

    Attributes:
        outputs: shape (n, outputs).
        labels: the class of the largest output of each example, shape (n,); None where outputs stand for no classes.
        converged: whether each example came to rest, shape (n,); what the others show is not to be relied on.
    """

    outputs: Float[np.ndarray, "n outputs"]
    labels: Shaped[np.ndarray, "n"] | None
    converged: Bool[np.ndarray, "n"]

    def __str__(self) -> str:
        shown = "outputs" if self.labels is None else "outputs and labels"
        return f"{shown} of {len(self.outputs):,} examples, {int(np.sum(~self.converged))} unconverged"


def predict(
    substrate: Substrate | PhysicalSystem,
    x: PyTree,
    *,
    classes: Sequence[Any] | None = None,
    batch_size: int | None = None,
    homeostat: Homeostat | None = None,
    key: PRNGKeyArray | None = None,
) -> Prediction:
    """Settles freely on every input and reads the outputs.

    Args:
        substrate: the system, in simulation or on the bench.
        x: inputs with a leading axis of n examples, (n, inputs), a list of rows, or a tree.
        classes: what each output stands for, one for each; None for outputs that stand for no classes.
        batch_size: how many examples settle together, by default all up to 1000; a physical system has its copies.
        homeostat: holds the parameters of a physical system, by default `IntegralControl`; of no use to a substrate.
        key: randomness, for systems that use it; split once per example.

    Raises ValueError for inputs that do not fit the system, and for classes that are not one for each output.
    """
    on_bench = not isinstance(substrate, Substrate)
    if on_bench and not isinstance(substrate, PhysicalSystem):
        raise TypeError(f"substrate: wanted a Substrate or a PhysicalSystem, got {type(substrate).__name__}")
    if batch_size is not None and (on_bench or batch_size < 1):
        wanted = "none for a physical system, which takes as many as it has copies" if on_bench else "at least 1"
        raise ValueError(f"batch_size: wanted {wanted}, got {batch_size}")
    if homeostat is not None and not on_bench:
        raise ValueError(f"homeostat: {type(substrate).__name__} holds its parameters itself; leave it out")
    if isinstance(x, list):
        x = _rows(x)
    _require_batch(substrate, x)
    shape = (substrate.spec.outputs.size,) if on_bench else output_shape(substrate, jax.tree.map(np.asarray, x))
    if classes is not None and (len(classes),) != tuple(shape):
        raise ValueError(f"classes: wanted one for each output, {', '.join(map(str, shape))}, got {len(classes)}")
    blank = np.zeros((len(jax.tree.leaves(x)[0]), *shape))
    examples = prepare(substrate, (x, blank), "x")
    if on_bench:
        found = settle_on_bench(substrate, examples, IntegralControl() if homeostat is None else homeostat)
        outputs, converged = found.output, found.settled
    else:
        batches = list(settle_examples(substrate, examples, SquaredError(), batch_size or default_batch(examples), key))
        outputs = np.concatenate([batch.output for batch in batches])
        converged = np.concatenate([batch.converged for batch in batches])
    labels = None if classes is None else np.asarray(classes)[np.argmax(outputs, axis=-1)]
    return Prediction(outputs, labels, converged)


def _rows(x: list) -> np.ndarray:
    try:
        return np.asarray(x, float)
    except (TypeError, ValueError):
        raise ValueError("x: wanted as many numbers for each example, got a list of rows that differ") from None


def _require_batch(substrate: Substrate | PhysicalSystem, x: PyTree) -> None:
    if isinstance(substrate, Substrate):
        check_batch(substrate, x, "x")
    elif np.ndim(x) != 2 or np.shape(x)[1] != substrate.spec.inputs.size:
        single = ": add a leading axis, x[None]" if np.shape(x) == (substrate.spec.inputs.size,) else ""
        raise ValueError(f"x: wanted shape (n, {substrate.spec.inputs.size}), got {np.shape(x)}{single}")
    if any(len(leaf) == 0 for leaf in jax.tree.leaves(x)):
        raise ValueError("x: wanted at least one example, got none")
