"""Steps of training with products in bfloat16, beside the same in 32 bits.

    python benchmarks/bfloat16.py --seconds             # a gradient of a batch of 64, and its sweeps (minutes)
    python benchmarks/bfloat16.py --mnist --epochs 1    # 10,000 MNIST images, 784-256-256-10, test error on 2,000

Each pair is timed in turns, the shortest of ROUNDS counts. Networks with a number of sweeps settle without a test, the
others until they have converged. MNIST is read from $GROUNDSTATE_DATA/mnist or the user's cache, or downloaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import jax
import jax.numpy as jnp
import optax

from learning import EquilibriumPropagation, check_bfloat16, fit, load_data
from substrates import HopfieldNetwork, PredictiveCodingNetwork, ResistorNetwork, in_bfloat16
from substrates.classical.hopfield.block_descent import BlockDescent
from substrates.classical.predictive_coding.error_sweep import ErrorSweep
from substrates.session import keep_compiled

ROUNDS = 5
BATCH = 64
DEEP = (784, 512, 512, 512, 10)


def networks() -> dict:
    """(a network, the strength of its nudges) by what it is."""
    key = jax.random.key(0)
    deep = HopfieldNetwork.layered(DEEP, key=key, gain=0.6)
    maps = HopfieldNetwork.convolutional((28, 28, 1), (32, 64), 10, key=key)
    predictive = PredictiveCodingNetwork.dense(DEEP, key=key, gain=1.5)
    return {
        "Hopfield, 3 hidden layers of 512": (deep, 0.5),
        "the same, 30 sweeps": (dataclasses.replace(deep, solver=BlockDescent(sweeps=30)), 0.5),
        "Hopfield, 1,024 hidden units": (HopfieldNetwork.layered((784, 1024, 10), key=key), 0.5),
        "Hopfield, 32 and 64 maps, 20 sweeps": (dataclasses.replace(maps, solver=BlockDescent(sweeps=20)), 0.5),
        "resistors, 3 hidden layers of 512": (ResistorNetwork.layered(DEEP, key=key), 1.0),
        "predictive coding, 2 sweeps": (dataclasses.replace(predictive, solver=ErrorSweep(2)), 0.1),
    }


def seconds() -> None:
    """Prints what a gradient takes, and the sweeps of its phases."""
    keys = jax.random.split(jax.random.key(1))
    y = jax.random.randint(keys[1], (BATCH,), 0, 10)
    for name, (net, beta) in networks().items():
        x = jax.random.uniform(keys[0], (BATCH, *net.x_shape))
        rule = EquilibriumPropagation(beta, strict=False)
        pair = {"32 bits": net, "bfloat16": in_bfloat16(net)}
        found = {kind: rule(each, x, y) for kind, each in pair.items()}
        shortest = dict.fromkeys(pair, float("inf"))
        for _ in range(ROUNDS):
            for kind, each in pair.items():
                began = time.perf_counter()
                jax.block_until_ready(rule(each, x, y).gradient)
                shortest[kind] = min(shortest[kind], time.perf_counter() - began)
        for kind, estimate in found.items():
            sweeps = [int(jnp.max(phase.steps)) for phase in estimate.equilibria]
            print(f"{name}, {kind}: {1e3 * shortest[kind]:.0f} ms, sweeps {sweeps}, {int(estimate.unusable)} unusable")
        print(f"{name}: times as long {shortest['bfloat16'] / shortest['32 bits']:.2f}", flush=True)


def mnist(epochs: int, seed: int) -> None:
    """Trains the same network both ways and prints the test errors."""
    data = load_data("mnist", seed=0, validation=0)
    (x, y), (x_test, y_test) = data.train, data.test
    net = HopfieldNetwork.layered((784, 256, 256, 10), key=jax.random.key(seed))
    rule = EquilibriumPropagation(0.5)
    print(check_bfloat16(in_bfloat16(net), rule, jnp.asarray(x[:32], jnp.float32), y[:32]))
    for kind, each in {"32 bits": net, "bfloat16": in_bfloat16(net)}.items():
        run = fit(
            each,
            rule,
            (x[:10_000], y[:10_000]),
            optimiser=optax.adam(1e-3),
            epochs=epochs,
            batch_size=BATCH,
            key=jax.random.key(seed),
            test=(x_test[:2000], y_test[:2000]),
            progress=False,
        )
        print(f"{kind}: {run.test}, {run.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", action="store_true")
    parser.add_argument("--mnist", action="store_true")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    keep_compiled()
    if options.seconds:
        seconds()
    if options.mnist:
        mnist(options.epochs, options.seed)
