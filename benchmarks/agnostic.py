"""Agnostic equilibrium propagation by the five verbs: MNIST, digits, slopes, the cost of a step, and broken hardware.

    python benchmarks/agnostic.py --mnist 0     # Hopfield network 784-2048-10, seed 0: test error (half an hour)

MNIST: all 60,000 training images less their mean, in an order that the seed draws; the official 10,000 test images
evaluated once, at the end. Fifty copies share the parameters; knobs become stiffer by 7 % per epoch. Settings chosen by
the error on 3,000 validation images after three epochs of 10,000 training images. MNIST is read from
$GROUNDSTATE_DATA/mnist or the user's cache, or downloaded.
"""

from __future__ import annotations

import argparse
import time

import jax

from learning import AgnosticEP, SelfControl, evaluate, fit, load_data
from substrates import HopfieldNetwork, Plant


def mnist(seed: int, epochs: int = 16, copies: int = 50) -> None:
    data = load_data("mnist", seed=seed, validation=0)
    mean = data.train[0].mean(axis=0)
    train, test = ((part[0] - mean, part[1]) for part in (data.train, data.test))
    net = HopfieldNetwork.layered((784, 2048, 10), key=jax.random.key(seed))
    rule = AgnosticEP(1.0, "centered", SelfControl(), strict=False)
    began = time.perf_counter()
    for epoch in range(epochs):
        yields = {"coupling[0]": 0.1, "coupling[1]": 0.003, "bias[0]": 0.02, "bias[1]": 0.0006}
        plant = Plant(net, {name: value * 0.93**epoch for name, value in yields.items()}, copies=copies)
        key = jax.random.fold_in(jax.random.key(seed + 100), epoch)
        run = fit(plant, rule, train, epochs=1, batch_size=copies, key=key, progress=False)
        net = plant.substrate
        history = {name: float(values[0]) for name, values in run.history.items()}
        print(f"seed {seed}, epoch {epoch + 1}: error while learning {100 * history['error']:.2f} %, "
              f"{history['unconverged']:.0f} phases unsettled, {time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip
    found = evaluate(net, test)
    print(f"seed {seed}: test error {100 * (1 - found.accuracy):.2f} % (wanted 2.3 %)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=int, nargs="*", metavar="SEED")
    options = parser.parse_args()
    for seed in options.mnist or ():
        mnist(seed)


if __name__ == "__main__":
    main()
