"""The deep resistive network 2x784-1024-10 on MNIST by centred equilibrium propagation, at the published settings.

    python benchmarks/mnist.py --steps             # time per step at batch 4 and 32, beside its floor (a minute)
    python benchmarks/mnist.py --epochs 6          # test error after 6 epochs
    python benchmarks/mnist.py --epochs 50         # test error after 50 epochs (a quarter of an hour)

Settings of Scellier 2024 (arXiv 2402.11674): beta 1, plain gradient descent at 0.006 times 0.99 per epoch, batch 4,
input gain 480, squared error; all 60,000 training images; the official 10,000 test images, evaluated once, at the end.
Published: 1.57 % test error after 50 epochs in 2 h 36 min on an A100 (187 s per epoch). Ours runs in float32.
MNIST is read from $GROUNDSTATE_DATA/mnist or the user's cache, or downloaded.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import optax
from floor import Floor

from learning import EquilibriumPropagation, fit, load_data
from learning.examples import prepare
from learning.steps import Trainer
from substrates import ResistorNetwork


def network(seed: int):
    return ResistorNetwork.layered((784, 1024, 10), key=jax.random.key(seed), input_gain=480.0)


def seconds_per_step(rounds: int, steps: int) -> None:
    """Batch 4 and batch 32 through the compiled steps that `fit` runs, and their floors, taking turns.

    The floor multiplies the doubled inputs with every conductance once, and updates it once.
    """
    examples = prepare(network(0), load_data("mnist", validation=0).train)
    contestants = {}
    for batch in (4, 32):
        trainer = Trainer(
            network(0), EquilibriumPropagation(beta=1.0), optax.sgd(0.006), examples, batch, jax.random.key(1), True
        )
        contestants[batch] = [trainer, trainer.initial, trainer.order(0)]
    times: dict[int, list[float]] = {batch: [] for batch in contestants}
    floors = {batch: Floor((2 * 784, 1024, 10), batch, (1, 1)) for batch in contestants}
    least: dict[int, list[float]] = {batch: [] for batch in contestants}
    for turn in range(rounds + 1):
        for batch, contestant in contestants.items():
            trainer, moving, order = contestant
            began = time.perf_counter()
            reached, moving = trainer.advance(moving, order, 0, steps)
            jax.block_until_ready(moving)
            if reached != steps:
                raise RuntimeError(f"batch {batch}: training stopped at step {reached}")
            contestant[1] = moving
            taken, floor = (time.perf_counter() - began) / steps, floors[batch].seconds()
            if turn:  # the first turn compiles
                times[batch].append(taken)
                least[batch].append(floor)
    four, thirty_two = (statistics.median(times[batch]) for batch in (4, 32))
    for batch, wanted in ((4, 2.0), (32, 1.4)):
        ratios = sorted(a / b for a, b in zip(times[batch], least[batch], strict=True))
        print(
            f"one step at batch {batch:2} {1e3 * statistics.median(times[batch]):8.3f} ms, "
            f"{statistics.median(ratios):.2f} times its floor of {1e3 * statistics.median(least[batch]):.3f} ms "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}; wanted {wanted})"
        )
    print(f"an epoch of 60,000 at batch 4 {15_000 * four:6.2f} s (wanted 20)")
    print(f"a step at batch 32 is {thirty_two / four:.2f} times one at batch 4 (wanted 1.5)")


def accuracy(epochs: int, seed: int) -> None:
    data = load_data("mnist", seed=seed, validation=0)
    steps = len(data.train[1]) // 4
    rule = EquilibriumPropagation(beta=1.0)
    optimiser = optax.sgd(optax.exponential_decay(0.006, steps, 0.99, staircase=True))
    run = fit(
        network(seed),
        rule,
        data.train,
        optimiser=optimiser,
        epochs=epochs,
        batch_size=4,
        test=data.test,
        key=jax.random.key(seed),
    )
    print(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", action="store_true", help="time steps at batch 4 and 32")
    parser.add_argument("--epochs", type=int, default=0, help="train for so many epochs and report the test error")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if options.steps:
        seconds_per_step(options.rounds, 500)
    if options.epochs:
        accuracy(options.epochs, options.seed)
    if not options.steps and not options.epochs:
        parser.error("ask for --steps or --epochs N")


if __name__ == "__main__":
    main()
