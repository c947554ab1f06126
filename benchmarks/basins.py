"""How nudged phases that fall into another basin spoil an estimate, by the nudge's strength and how long it lasts.

    python benchmarks/basins.py [--epochs 2] [--images 16000] [--of 1024]

A convolutional Hopfield network learns some MNIST images by the settings of `published.py`. Then, for nudges of
several strengths and lengths, printed are the cosine and the ratio of sizes of the centred estimate, summed over other
training images, with the derivative of the mean cost through the free phase's sweeps, for each coupling; how many
images jumped, that is, do not return to their free state when a nudge lets go; and the same without those. Free phases
are of 64 sweeps.
"""

from __future__ import annotations

import argparse
import functools
import math
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from published import EXPERIMENTS, after_each_epoch, moved

from learning import EquilibriumPropagation, SquaredError, basin_jumps, load_data
from learning.examples import prepare
from learning.steps import Trainer
from substrates import Nudge
from substrates.classical.hopfield.block_descent import BlockDescent
from substrates.substrate import relax_batch

FREE = 64  # sweeps
NUDGES = ((0.03, 8), (0.1, 8), (0.25, 8), (0.5, 8), (0.5, 4), (0.5, 2), (0.5, 1), (0.1, 1))  # (beta, sweeps)
AT_ONCE = 32
COST = SquaredError()


def trained(epochs: int, images: int, others: int) -> tuple[Any, Any, Any]:
    """(a network that has learned from images; others, with their targets, moved in the same way)."""
    chosen, data = replace(EXPERIMENTS["hopfield-conv"], epochs=epochs), load_data("mnist", seed=0)
    net = chosen.network(jax.random.key(0))
    examples, shown = (
        prepare(net, (data.train[0][part], data.train[1][part]))
        for part in (slice(images), slice(images, images + others))
    )
    rule = EquilibriumPropagation(chosen.beta, strict=False)
    descent = chosen.optimiser(net, math.ceil(images / chosen.batch))
    trainer = Trainer(net, rule, descent, examples, chosen.batch, jax.random.key(100), strict=False)
    *_, moving = after_each_epoch(trainer, chosen)
    anew = moved(jnp.asarray(shown.x).reshape(-1, 28, 28, 1), chosen.moves, jax.random.key(7))
    return trainer.system(moving), anew.reshape(shown.x.shape), jnp.asarray(shown.y)


def couplings(gradient: Any) -> list[Any]:
    return [coupling.weight for coupling in gradient.coupling]


@eqx.filter_jit
def through_sweeps(net: Any, x: Any, y: Any) -> list[Any]:
    """The derivative of each example's cost through the sweeps of its free phase."""
    solver = BlockDescent(sweeps=FREE)

    def one(x: Any, y: Any) -> list[Any]:
        cost = lambda net: COST(net.read(solver(net, x, None, net.start(x, None), None).state, x), y)
        return couplings(eqx.filter_grad(cost)(net))

    return jax.vmap(one)(x, y)


@eqx.filter_jit
def contrasted(net: Any, x: Any, y: Any, beta: Any, sweeps: int) -> tuple[list[Any], Any]:
    """(the centred estimate of each example; which examples jumped)."""
    patient, quick = (replace(net, solver=BlockDescent(sweeps=count)) for count in (FREE, sweeps))
    free = relax_batch(patient, x)
    plus, minus = (relax_batch(quick, x, Nudge(COST, y, strength), free.state) for strength in (beta, -beta))

    def estimate(plus: Any, minus: Any, x: Any) -> list[Any]:
        contrast = net.contrast(*jax.tree.map(lambda leaf: leaf[None], (plus, minus, x)))
        return [weight / (2 * beta) for weight in couplings(contrast)]

    jumped = [basin_jumps(patient, x, free, nudged) for nudged in (plus, minus)]
    return jax.vmap(estimate)(plus.state, minus.state, x), jnp.any(jnp.stack(jumped), axis=0)


def in_parts(function: Any, *arrays: Any) -> Any:
    parts = [function(*(array[at : at + AT_ONCE] for array in arrays)) for at in range(0, len(arrays[0]), AT_ONCE)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def compared(found: list[Any], exact: list[Any], kept: Any) -> str:
    def shown(a: Any, b: Any) -> str:
        a, b = (each[kept].sum(axis=0).ravel().astype(float) for each in (a, b))
        sizes = np.linalg.norm(a), np.linalg.norm(b)
        return f"{a @ b / (sizes[0] * sizes[1]):.3f} ({sizes[0] / sizes[1]:.2f})"

    return ", ".join(shown(a, b) for a, b in zip(found, exact, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2, help="of training")
    parser.add_argument("--images", type=int, default=16_000, help="so many images are learned")
    parser.add_argument("--of", type=int, default=1024, help="so many others are looked at")
    options = parser.parse_args()
    net, x, y = trained(options.epochs, options.images, options.of)
    exact = in_parts(lambda x, y: through_sweeps(net, x, y), x, y)
    print("beta, sweeps: cosine (ratio of sizes) of the estimate for each coupling; images that jumped; without them")
    for beta, sweeps in NUDGES:
        estimated = functools.partial(contrasted, net, beta=jnp.float32(beta), sweeps=sweeps)
        found, jumped = in_parts(estimated, x, y)
        parts = compared(found, exact, slice(None)), int(jumped.sum()), compared(found, exact, ~jumped)
        print(f"{beta}, {sweeps}:", *parts, sep="  ", flush=True)


if __name__ == "__main__":
    main()
