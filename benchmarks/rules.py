"""What learning rules take beyond their relaxations: MNIST images on three networks, batch 16, single precision.

    python benchmarks/rules.py            # two minutes

Of every rule two programs are compiled: the whole estimate, and one that returns its equilibria alone, from which the
compiler leaves out what only the gradient needs. They take turns; medians over rounds. Wanted: at most 1.2. Relaxations
converge; the couplings are those of a start, so that a network in training, which settles more slowly, comes lower.
"""

from __future__ import annotations

import argparse
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp

from learning import (
    ContrastiveLearning,
    CoupledLearning,
    EquilibriumPropagation,
    HolomorphicEP,
    load_data,
)
from learning.rule import Estimator
from substrates import HopfieldNetwork, ResistorNetwork, SmoothHopfieldNetwork, Substrate

BATCH = 16
NETWORKS: dict[str, Substrate] = {
    "resistors, 2x784-256-10": ResistorNetwork.for_task(784, 10, sizes=(256,), key=jax.random.key(0)),
    "Hopfield, 784-256-256-10": HopfieldNetwork.layered((784, 256, 256, 10), key=jax.random.key(0), gain=0.5),
    "smooth Hopfield, 784-256-256-10": SmoothHopfieldNetwork.layered((784, 256, 256, 10), key=jax.random.key(0)),
}
RULES: dict[str, Estimator] = {
    "EP, one-sided": EquilibriumPropagation(0.1, "positive", strict=False),
    "EP, centred": EquilibriumPropagation(0.1, strict=False),
    "contrastive": ContrastiveLearning(strict=False),
    "coupled, centred": CoupledLearning(0.1, strict=False),
    "holomorphic, 4 points": HolomorphicEP(0.1, points=4, strict=False),
}


def seconds(program, *arguments) -> float:
    began = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    images, labels = load_data("mnist", seed=0).train
    x, y = jnp.asarray(images[:BATCH]), jax.nn.one_hot(jnp.asarray(labels[:BATCH]), 10)
    for place, net in NETWORKS.items():
        for name, rule in RULES.items():
            if isinstance(rule, HolomorphicEP) and not net.holomorphic:
                continue
            whole = eqx.filter_jit(lambda net, x, y, rule=rule: rule(net, x, y))
            bare = eqx.filter_jit(lambda net, x, y, rule=rule: rule(net, x, y).equilibria)
            taken = [[seconds(program, net, x, y) for program in (whole, bare)] for _ in range(rounds)][1:]
            step, ratio = statistics.median(t for t, _ in taken), statistics.median(t / b for t, b in taken)
            print(f"{place:32s} {name:24s} {1e3 * step:8.2f} ms a batch, {ratio:.2f} times its relaxations", flush=True)


if __name__ == "__main__":
    main()
