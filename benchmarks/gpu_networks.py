"""The convolutional Hopfield network and the predictive coding VGG5 on colour images, for `benchmarks/gpu.py`.

"hopfield": 3x3 convolutions and 2x2 pooling to 128, 256, 512 and 512 maps, 10 outputs, at the settings of Scellier,
Ernoult, Kendall and Kumar 2023 (arXiv 2312.15103): squared error, beta 1/4, gains 1/2, learning rates from 0.0625 to
0.0125. A phase sweeps until it has converged, at most 60 times, the published number of its free phase. Pooling is by
averages, where the interactions are bilinear; the published one takes maxima.

"predictive-coding": VGG5 at the settings of Kerjan, Hoier and Scellier 2026 (arXiv 2606.03584): cross-entropy, beta
0.02, five sweeps of the modified projected gradient in a bounded network, learning rate 0.01. "error-sweep": the same
with buffers and one error sweep a phase, which has the same gradient to first order in beta.

All: centred nudges, Nesterov momentum 0.9, weight decay, cosine to zero; flips and crops of images with a border of
four, and inputs standardised by colour.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from colour_images import SIDE, Images, standardised, varied
from gpu_systems import in_short

from learning import CrossEntropy, EquilibriumPropagation, SquaredError
from learning.evaluation import Evaluation
from learning.examples import Examples, prepare
from learning.steps import Trainer
from substrates import HopfieldNetwork, PredictiveCodingNetwork
from substrates.classical.hopfield.block_descent import BlockDescent
from substrates.classical.predictive_coding.error_sweep import ErrorSweep
from substrates.classical.predictive_coding.projected_gradient import ProjectedGradient
from substrates.mixed import in_bfloat16
from substrates.substrate import Solver
from substrates.wiring import Convolution

EPOCH = 50_000
"""Images of an epoch of the published runs."""

PART = 20
"""So many steps between two looks at the clock."""

PRODUCTS = {"float32": "float32", "tensorfloat32": "tensorfloat32", "bfloat16": "float32"}
"""Kinds of numbers, and how 32-bit ones are multiplied: tensorfloat32 is float32 in memory, and of bfloat16 what is not
rounded by the solver is not rounded at all."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network settles and is trained: a learning rate for each of its layers, and the rest of its settings.

    `dtypes` are the kinds of numbers that its solver can multiply.
    """

    solver: Solver
    rule: EquilibriumPropagation
    batch: int
    rates: tuple[float, ...]
    dtypes: tuple[str, ...] = tuple(PRODUCTS)
    weight_decay: float = 3e-4


CODING: dict[str, Any] = {
    "rule": EquilibriumPropagation(0.02, cost=CrossEntropy(), strict=False),
    "batch": 64,
    "rates": (0.01,) * 6,
}

RECIPES = {
    "hopfield": Recipe(
        BlockDescent(max_sweeps=60),
        EquilibriumPropagation(0.25, cost=SquaredError(), strict=False),
        batch=128,
        rates=(0.0625, 0.0375, 0.025, 0.02, 0.0125),
    ),
    "predictive-coding": Recipe(ProjectedGradient(sweeps=5), **CODING, dtypes=("float32", "tensorfloat32")),
    "error-sweep": Recipe(ErrorSweep(sweeps=1), **CODING),
}


def network(kind: str, dtype: str, seed: int = 0, width: float = 1.0) -> Any:
    """A network of a kind, in 32 bits, whose solver multiplies numbers of a kind; the width is a factor on its numbers
    of maps.
    """
    key, solver = jax.random.key(seed), RECIPES[kind].solver
    if kind == "hopfield":
        channels = [max(1, round(width * maps)) for maps in (128, 256, 512, 512)]
        net = HopfieldNetwork.convolutional((SIDE, SIDE, 3), channels, 10, key=key, dtype=jnp.float32)
        net = dataclasses.replace(net, solver=solver)
    else:
        rectifier = "bounded" if kind == "predictive-coding" else "buffered"
        net = PredictiveCodingNetwork.vgg5(key=key, width=width, rectifier=rectifier, solver=solver, dtype=jnp.float32)
    return in_bfloat16(net) if dtype == "bfloat16" else net


def optimiser(kind: str, steps: int) -> optax.GradientTransformation:
    """Nesterov momentum with a learning rate for each layer that falls along a cosine in so many steps."""
    recipe = RECIPES[kind]

    def build(rate: float) -> optax.GradientTransformation:
        descent = optax.sgd(optax.cosine_decay_schedule(rate, steps), momentum=0.9, nesterov=True)
        return optax.chain(optax.add_decayed_weights(recipe.weight_decay), descent)

    def layers(parameters: Any) -> Any:
        number = lambda path: next(str(key.idx) for key in path if isinstance(key, jax.tree_util.SequenceKey))
        return jax.tree_util.tree_map_with_path(lambda path, _: number(path), parameters)

    return optax.multi_transform({str(k): build(rate) for k, rate in enumerate(recipe.rates)}, layers)


# the floor


class Floor:
    """The convolutions of a step and nothing else, on a batch, one after the other.

    Every coupling but the first convolves once onwards and once back in each sweep of each phase, in the forward pass
    once, and twice for the gradient of its weights; the first only once onwards and once for the gradient.

    Args:
        net: whose convolutions they are.
        dtype: a kind of numbers.
        batch: how many images.
        sweeps: of all phases together.
    """

    def __init__(self, net: Any, dtype: str, batch: int, sweeps: int):
        numbers = jnp.bfloat16 if dtype == "bfloat16" else jnp.float32
        convolutions = [coupling for coupling in net.coupling if isinstance(coupling, Convolution)]
        self.couplings = [dataclasses.replace(c, weight=c.weight.astype(numbers)) for c in convolutions]
        shapes: list[tuple[int, ...]] = [(SIDE, SIDE, 3)]
        key = jax.random.key(0)
        for coupling in self.couplings:
            shapes.append(coupling.after(shapes[-1]))
        self.inputs = [jax.random.uniform(key, (batch, *shape), numbers) for shape in shapes[:-1]]
        self.pairs = [0] + [sweeps] * (len(self.couplings) - 1)

    def seconds(self) -> float:
        began = time.perf_counter()
        jax.block_until_ready(_convolved(self.couplings, self.inputs, self.pairs))
        return time.perf_counter() - began


@eqx.filter_jit
def _convolved(couplings: Sequence[Convolution], inputs: Sequence[jax.Array], pairs: Sequence[int]) -> Any:
    found = []
    for coupling, u, count in zip(couplings, inputs, pairs, strict=True):
        onwards = jax.vmap(coupling.convolve)
        back = jax.vmap(lambda z, c=coupling, shape=u.shape[1:]: c.convolve_back(z, shape))
        settled = jax.lax.fori_loop(0, count, lambda _, u, on=onwards, back=back: back(on(u)), u)
        slope = lambda u, z, c=coupling: jax.vjp(
            lambda weight: jax.vmap(dataclasses.replace(c, weight=weight).convolve)(u), c.weight
        )[1](z)[0]
        after = onwards(settled)
        found.append(slope(u, after) if count == 0 else (slope(u, after), slope(settled, after)))
    return found


# speed


def products(dtype: str) -> Any:
    """The precision of products of 32-bit numbers that a kind of numbers stands for."""
    return jax.default_matmul_precision(PRODUCTS[dtype])


def gradient_of(kind: str, dtype: str, width: float, batch: tuple[Any, Any]) -> tuple[np.ndarray, int]:
    """The gradient of a batch as one vector, and the sweeps of its phases together, each as many as its slowest
    example takes.
    """
    with products(dtype):
        estimate = RECIPES[kind].rule(network(kind, dtype, width=width), *batch)
    settled = estimate.equilibria if kind == "hopfield" else estimate.equilibria[1:]  # else a forward pass is free
    vector = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(estimate.gradient)])
    return vector, sum(int(np.max(each.steps)) for each in settled)


class Steps:
    """Steps of training, compiled, which go on, and the floor of one of them.

    Attributes:
        row: what is known of them beforehand.
        ours, least: seconds of a step and of its floor, round by round.
    """

    def __init__(self, kind: str, dtype: str, examples: Examples, batch: int, count: int, width: float):
        self.dtype, self.count, recipe = dtype, count, RECIPES[kind]
        self.gradient, sweeps = gradient_of(kind, dtype, width, (examples.x[:batch], examples.y[:batch]))
        self.floor = Floor(network(kind, dtype, width=width), dtype, batch, sweeps)
        descent = optimiser(kind, 10_000)
        # the steps are given the arrays of their network, which nothing else may hold
        self.trainer = Trainer(
            network(kind, dtype, width=width), recipe.rule, descent, examples, batch, jax.random.key(1), strict=False
        )
        self.moving, self.ours, self.least = self.trainer.initial, [], []
        began = time.perf_counter()
        self.go()
        self.row = {"batch": batch, "sweeps": sweeps, "first": time.perf_counter() - began}
        self.ours.clear()
        self.least.clear()

    def go(self) -> None:
        """A round."""
        with products(self.dtype):
            began = time.perf_counter()
            self.moving = advanced(self.trainer, self.moving, self.count)
            self.ours.append((time.perf_counter() - began) / self.count)
            self.least.append(self.floor.seconds())


def speed(report: Any, kind: str, dtypes: Sequence[str], images: Images, seconds: float, width: float) -> None:
    """A row for every dtype: seconds of a step beside its floor, and the cosine of its gradient with that of float32.

    Rounds of all dtypes take turns as long as the time allows, one at least.
    """
    until = time.time() + seconds
    batch = min(RECIPES[kind].batch, len(images.train[1]))
    count = 1 if width < 1 else 5
    x, y = images.train
    examples = prepare(network(kind, "float32", width=width), (x[: batch * count], y[: batch * count]))
    ready: list[Steps] = []
    for dtype in dtypes:
        if ready and time.time() > until:
            report.add(kind, dtype, left_out="no time was left")
            continue
        try:
            ready.append(Steps(kind, dtype, examples, batch, count, width))
        except Exception as error:
            report.add(kind, dtype, failed=in_short(error))
    for turn in range(7):
        if turn and time.time() > until:
            break
        for steps in ready:
            steps.go()
    exact = next((steps.gradient for steps in ready if steps.dtype == "float32"), None)
    for steps in ready:
        ours, least = statistics.median(steps.ours), statistics.median(steps.least)
        ratios = [mine / bare for mine, bare in zip(steps.ours, steps.least, strict=True)]
        report.add(
            kind,
            steps.dtype,
            seconds_a_step=ours,
            seconds_of_its_convolutions=least,
            over_its_floor=statistics.median(ratios),
            seconds_an_epoch=ours * math.ceil(EPOCH / batch),
            cosine_with_float32=math.nan if exact is None else _cosine(steps.gradient, exact),
            rounds=len(steps.ours),
            **steps.row,
        )


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def advanced(trainer: Trainer, moving: Any, count: int) -> Any:
    """What moves, after so many steps of the first epoch. Raises RuntimeError where they stop before."""
    reached, moving = trainer.advance(trainer.begin_epoch(moving), trainer.order(0), 0, count)
    if reached != count:
        raise RuntimeError(f"training stopped at step {reached}: something was not finite")
    return jax.block_until_ready(moving)


# training


class Course:
    """A network that is trained in parts of an epoch, on images that vary from epoch to epoch.

    Attributes:
        batches: steps of an epoch.
        moving: what the steps move.
        done: how many there were.
    """

    def __init__(self, kind: str, dtype: str, images: Images, width: float, seed: int):
        self.kind, self.recipe, self.build = kind, RECIPES[kind], lambda: network(kind, dtype, seed, width)
        self.examples, self.validation, self.test = (prepare(self.build(), part) for part in images[:3])
        self.batch = min(self.recipe.batch, self.examples.size)
        self.batches = math.ceil(self.examples.size / self.batch)
        self.key, self.pixels = jax.random.key(seed + 100), jnp.asarray(self.examples.x)

    def begin(self, steps: int) -> None:
        """From the start, with learning rates that fall to zero in so many steps."""
        descent = optimiser(self.kind, steps)
        self.trainer = Trainer(
            self.build(), self.recipe.rule, descent, self.examples, self.batch, self.key, strict=False
        )
        self.moving, self.done, self.epoch = self.trainer.initial, 0, 0

    def estimate(self) -> tuple[float, float]:
        """Seconds of a step and of an evaluation of an image, compilation apart."""
        self.begin(self.batches)
        self._vary()
        trial = min(PART, self.batches)
        self.moving = advanced(self.trainer, self.moving, trial)
        began = time.perf_counter()
        self.moving = advanced(self.trainer, self.moving, trial)
        step = (time.perf_counter() - began) / trial
        self.evaluate(self.validation)
        began = time.perf_counter()
        self.evaluate(self.validation)
        return step, (time.perf_counter() - began) / self.validation.size

    def epoch_within(self, planned: int, until: float) -> float:
        """An epoch, or what is planned or fits of it; returns the part of its images that were taken for another."""
        self._vary()
        moving, order, at = self.trainer.begin_epoch(self.moving), self.trainer.order(self.epoch), 0
        last = min(self.batches, planned - self.done)
        while at < last and time.time() < until:
            wanted = min(at + PART, last)
            at, moving = self.trainer.advance(moving, order, at, wanted)
            if at != wanted:
                raise RuntimeError(f"training stopped at step {self.done + at}: something was not finite")
        self.moving, self.done, self.epoch = moving, self.done + at, self.epoch + 1
        return float(moving.tally.wrong) / max(1, at * self.batch)

    def evaluate(self, examples: Examples) -> Evaluation:
        return self.trainer.evaluate(self.moving, examples, self.key)

    def _vary(self) -> None:
        x = varied(self.pixels, jax.random.fold_in(self.key, self.epoch))
        self.trainer.standing = self.trainer.standing._replace(x=x)


def train(
    report: Any, kind: str, dtype: str, images: Images, seconds: float, width: float, seed: int, most: int = 100
) -> None:
    """Trains for the time that is left, with a row for every epoch, and evaluates the test images once, at the end.

    How many steps fit is estimated by a few beforehand; the learning rate falls to zero with them. The most epochs are
    those of the published runs.
    """
    until, name = time.time() + seconds, f"{kind} in {dtype}"
    course = Course(kind, dtype, standardised(images), width, seed)
    with products(dtype):
        step, look = course.estimate()
        last = (
            2 * look * (course.test.size + course.validation.size)
        )  # twice, since other sizes may have to be compiled
        epoch = step * course.batches + look * course.validation.size
        left = until - time.time() - last
        planned = min(most * course.batches, int(0.9 * left / epoch * course.batches))
        if planned < 1:
            report.add("train", name, left_out=f"a step takes {step:.2g} s, and {left:.2g} s are left")
            return
        course.begin(planned)
        began = time.time()
        while course.done < planned and time.time() < until - last:
            wrong = course.epoch_within(planned, until - last)
            report.add(
                "train",
                f"{name}, {course.done} of {planned} steps",
                seconds=time.time() - began,
                training_error=wrong,
                validation_error=course.evaluate(course.validation).error,
                unconverged=int(course.moving.tally.unconverged),
            )
        judged = course.evaluate(course.test)
    report.add(
        "train",
        f"{name}, the end",
        steps=course.done,
        epochs=course.done / course.batches,
        seed=seed,
        batch=course.batch,
        test_error=judged.error,
        test_images=judged.size,
        images=images.origin,
    )
