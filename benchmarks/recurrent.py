"""Weights that are not symmetric: Fashion-MNIST by 784-256-256-10, with homeostasis of the Jacobian and without.

    python benchmarks/recurrent.py --epochs 5 --seeds 0 1 2    # half an hour on one core

Forward and feedback weights begin at 90 degrees from each other. Three ways to learn from there, with the same starts
and batches: recurrent back-propagation, whose gradient is exact; equilibrium propagation, which errs by the asymmetry
of the Jacobian; the same with a penalty on that asymmetry (`JacobianHomeostasis`), of a strength chosen among 10, 100
and 1000 by three epochs of 8,000 images. 54,000 of the training images, the error of the other 6,000 (which the seed
draws, with weights and order) after each epoch; the test images are not touched. The angle told is that of the
estimate of equilibrium propagation, without a penalty, whatever trains. Published: the penalty recovers most
of what asymmetry costs (Laborieux and Zenke 2024, arXiv 2309.02214).

Fashion-MNIST is read from $GROUNDSTATE_DATA/fashion-mnist or the user's cache, or downloaded.
"""

from __future__ import annotations

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learning import (
    CrossEntropy,
    EquilibriumPropagation,
    JacobianHomeostasis,
    RecurrentBackprop,
    Tracking,
    fit,
    load_data,
)
from substrates import RecurrentNetwork
from substrates.solvers.anderson import Anderson

BATCH = 50
BETA = 0.25


class Trusted(RecurrentNetwork):
    """Settles without a look at stability, which costs more than settling; trained ones are looked at in the end."""

    solver = Anderson(watchful=False)


RECURRENT = "recurrent back-propagation"
PLAIN = "EP"


def rule(name: str):
    """A rule by its name: a number is the strength of homeostasis."""
    cost = CrossEntropy()
    if name == RECURRENT:
        return RecurrentBackprop(steps=30, rate=0.5, cost=cost, strict=False)
    plain = EquilibriumPropagation(BETA, cost=cost, strict=False)
    return plain if name == PLAIN else JacobianHomeostasis(plain, float(name))


def network(seed: int) -> RecurrentNetwork:
    return Trusted.layered((784, 256, 256, 10), key=jax.random.key(seed), angle=90.0, gain=(1.0, 2.0, 2.0))


def trained(name: str, seed: int, epochs: int, rate: float, examples: int | None = None):
    data = load_data("fashion-mnist", seed=seed, validation=6_000)
    x, y = (part[:examples] for part in data.train)
    total = epochs * -(-len(y) // BATCH)
    some = jnp.asarray(x[:32]), jax.nn.one_hot(jnp.asarray(y[:32]), 10)
    return fit(
        network(seed),
        rule(name),
        (x, y),
        optimiser=optax.adam(optax.cosine_decay_schedule(rate, total)),
        epochs=epochs,
        batch_size=BATCH,
        validation=data.validation,
        observe=Tracking(rule(PLAIN), *some, key=jax.random.key(seed)),
        key=jax.random.key(seed + 100),
        progress=False,
    )


def compare(names: list[str], seeds: list[int], epochs: int, rate: float, examples: int | None) -> None:
    for name in names:
        ends = []
        for seed in seeds:
            began = time.perf_counter()
            run = trained(name, seed, epochs, rate, examples)
            errors = [round(100 * float(error), 2) for error in run.history["validation_error"]]
            end = {key: float(run.history[key][-1]) for key in ("angle", "symmetry")}
            images = jnp.asarray(load_data("fashion-mnist", seed=seed, validation=6_000).test[0][:50])
            settled = jax.jit(jax.vmap(lambda x, net=run.substrate: net.relax(x, solver=Anderson())))(images)
            print(
                f"{name}, seed {seed}: validation error {errors} %; angle of EP to the exact gradient "
                f"{end['angle']:.1f} degrees, symmetry {end['symmetry']:.3f}; "
                f"{int(jnp.sum(settled.converged))} of 50 at stable fixed points; {time.perf_counter() - began:.0f} s",
                flush=True,
            )
            ends.append(errors[-1])
        print(f"{name}: {np.mean(ends):.2f} % of validation images wrong, seeds {seeds} give {ends}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rules", nargs="+", default=[RECURRENT, PLAIN, "1000"])
    parser.add_argument("--rate", type=float, default=0.002)
    parser.add_argument("--examples", type=int, help="of the training images, all by default")
    options = parser.parse_args()
    compare(options.rules, options.seeds, options.epochs, options.rate, options.examples)


if __name__ == "__main__":
    main()
