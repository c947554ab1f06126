"""Deep Hopfield networks: MNIST by centred equilibrium propagation, and relaxation against its bare convolutions.

    python benchmarks/hopfield.py --epochs 20 --seed 0    # test error of 784-1024-10 (four minutes)
    python benchmarks/hopfield.py --seconds               # an epoch of 60,000 (a minute)
    python benchmarks/hopfield.py --sweeps                # a sweep of the 32x32 network (a minute)

MNIST: all 60,000 training images, the official 10,000 test images evaluated once, at the end; the seed draws the
couplings and the order. Settings chosen on 10,000 validation images taken from the training set: beta 1/2, squared
error, batch 16, plain gradient descent at 0.3 and 0.05 for the couplings (0.03 and 0.005 for the biases) times 0.92
per epoch, couplings uniform in 0.3 / sqrt(fan-in). Published: 1.79 % after 100 epochs (Scellier, Ernoult, Kendall and
Kumar 2023, arXiv 2312.15103). MNIST is read from $GROUNDSTATE_DATA/mnist or the user's cache, or downloaded.

The 32x32 network is that paper's: 3x3 convolutions and 2x2 pooling to 128, 256, 512 and 512 maps, 10 outputs. A sweep
needs one transposed convolution and one convolution for each coupling between its layers, one after the other; a chain
of those alone is the floor. Both are compiled for a given length, in float32, and take turns; what a sweep costs is the
difference between a long and a short chain, over the number of sweeps between them.
"""

from __future__ import annotations

import argparse
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
from floor import Floor

from learning import EquilibriumPropagation, fit, load_data
from learning.catalogue import optimiser
from learning.examples import prepare
from learning.steps import Trainer
from substrates import HopfieldNetwork, Nudge
from substrates.classical.hopfield.block_descent import BlockDescent
from substrates.substrate import relax_phases
from substrates.wiring import Convolution

BATCH = 16
RATES = {"coupling[0]": 0.3, "coupling[1]": 0.05, "bias[0]": 0.03, "bias[1]": 0.005}
DECAY = 0.92


def network(seed: int) -> HopfieldNetwork:
    return HopfieldNetwork.layered((784, 1024, 10), key=jax.random.key(seed), gain=0.3)


def rule() -> EquilibriumPropagation:
    return EquilibriumPropagation(beta=0.5)


def accuracy(epochs: int, seed: int) -> None:
    data = load_data("mnist", seed=seed, validation=0)
    net = network(seed)
    steps = -(-len(data.train[1]) // BATCH)
    run = fit(
        net,
        rule(),
        data.train,
        optimiser=optimiser("sgd", RATES, DECAY, steps, net),
        epochs=epochs,
        batch_size=BATCH,
        test=data.test,
        key=jax.random.key(seed + 100),
    )
    print(f"seed {seed}: {run}")


def seconds_per_epoch(rounds: int, steps: int = 400) -> None:
    """Steps of training from a network that has learned for a while, through the compiled loop that `fit` runs.

    They take turns with their floor: one product with the couplings of the inputs, two with those of the outputs for
    every sweep that the phases need, and one update.
    """
    examples = prepare(network(0), load_data("mnist", validation=0).train)
    net = network(0)
    total = -(-examples.size // BATCH)
    trainer = Trainer(
        net, rule(), optimiser("sgd", RATES, DECAY, total, net), examples, BATCH, jax.random.key(1), strict=True
    )
    moving, order, times, ratios, at = trainer.initial, trainer.order(0), [], [], 0
    floor = None
    for turn in range(rounds + 1):
        began = time.perf_counter()
        reached, moving = trainer.advance(moving, order, at, at + steps)
        jax.block_until_ready(moving)
        if reached != at + steps:
            raise RuntimeError(f"training stopped at step {reached}")
        taken, at = (time.perf_counter() - began) / steps, reached
        if floor is None:
            batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[:BATCH]), (examples.x, examples.y))
            nudges = Nudge(rule().cost, batch[1], rule().beta * jnp.array([0.0, 1.0, -1.0]))
            sweeps = int(jnp.sum(jnp.max(relax_phases(trainer.system(moving), batch[0], nudges).steps, axis=1)))
            floor = Floor((784, 1024, 10), BATCH, (1, 2 * sweeps))
        least = floor.seconds()
        if turn:  # the first turn compiles
            times.append(taken)
            ratios.append(taken / least)
    step = statistics.median(times)
    spread = f"{total * min(times):.1f} to {total * max(times):.1f}"
    print(
        f"784-1024-10, batch {BATCH}: {1e3 * step:.3f} ms a step, an epoch of 60,000 in {total * step:.2f} s "
        f"({spread}); {statistics.median(ratios):.2f} times its floor ({min(ratios):.2f} to {max(ratios):.2f}; "
        f"wanted 2.0) of {sweeps} sweeps"
    )


@eqx.filter_jit
def truncated(net: HopfieldNetwork, xs, starts, count: int):
    """A relaxation of so many sweeps."""
    return jax.vmap(lambda x, s: net.relax(x, start=s, solver=BlockDescent(sweeps=count)).state)(xs, starts)


@eqx.filter_jit
def settled(net: HopfieldNetwork, xs, starts):
    """A relaxation until it has converged."""
    return jax.vmap(lambda x, s: net.relax(x, start=s))(xs, starts)


@eqx.filter_jit
def bare(couplings, lifts, count: int):
    """What so many sweeps convolve, back and there, in the order of a sweep, and nothing else.

    A number of each product times zero joins the next one, which makes it wait, as it waits in a sweep.
    """
    lifts, waiting = list(lifts), jnp.zeros((), lifts[0].dtype)
    for _ in range(count):
        for k, coupling in enumerate(couplings):
            shape = (*lifts[k].shape[1:3], coupling.weight.shape[2])
            layer = jax.vmap(lambda z, c=coupling, shape=shape: c.convolve_back(z, shape))(lifts[k] + waiting)
            lifts[k] = jax.vmap(coupling.convolve)(layer)
            waiting = 0 * lifts[k][0, 0, 0, 0]
    return lifts


def seconds(function, *arguments) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - began


def sweeps(rounds: int, batch: int, count: int = 4) -> None:
    """Seconds per sweep and per bare chain link: (1 + count) of them less 1 of them, over count."""
    for pooling in ("average", "max"):
        net = HopfieldNetwork.convolutional(
            (32, 32, 3), (128, 256, 512, 512), 10, key=jax.random.key(0), pooling=pooling, dtype=jnp.float32
        )
        xs = jax.random.uniform(jax.random.key(1), (batch, 32, 32, 3), jnp.float32)
        starts = jax.vmap(net.initial_state)(xs)
        couplings = [c for c in net.coupling[1:] if isinstance(c, Convolution)]
        lifts = [jax.vmap(c.convolve)(layer) for c, layer in zip(couplings, starts, strict=False)]
        pairs, whole = [], []
        for turn in range(rounds + 1):
            few, many = (seconds(truncated, net, xs, starts, n) for n in (1, 1 + count))
            one, chain = (seconds(bare, couplings, lifts, n) for n in (1, 1 + count))
            total = seconds(settled, net, xs, starts)
            if turn:  # the first turn compiles
                pairs.append(((many - few) / count, (chain - one) / count))
                whole.append(total)
        sweep, floor = (statistics.median(pair[k] for pair in pairs) for k in (0, 1))
        ratios = sorted(pair[0] / pair[1] for pair in pairs)
        found = settled(net, xs, starts)
        steps = int(jnp.max(found.steps))
        print(
            f"{pooling:>8} pooling, batch {batch}: a sweep {1e3 * sweep:6.1f} ms, its bare convolutions "
            f"{1e3 * floor:6.1f} ms, ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}; "
            f"wanted at most 1.3); converged: {int(jnp.sum(found.converged))} of {batch} in at most {steps} sweeps, "
            f"with input field, energy and residual {1e3 * statistics.median(whole) / steps:.1f} ms a sweep",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=0, help="train for so many epochs and report the test error")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", action="store_true", help="time an epoch")
    parser.add_argument("--sweeps", action="store_true", help="time a sweep of the convolutional network")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8, help="images in the convolutional network")
    options = parser.parse_args()
    if not (options.epochs or options.seconds or options.sweeps):
        parser.error("ask for --epochs N, --seconds or --sweeps")
    if options.seconds:
        seconds_per_epoch(options.rounds)
    if options.sweeps:
        sweeps(options.rounds, options.batch)
    if options.epochs:
        accuracy(options.epochs, options.seed)


if __name__ == "__main__":
    main()
