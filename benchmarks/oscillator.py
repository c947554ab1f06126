"""Layers of oscillators, 784-500-10: a relaxation against the pairwise formula, and learning by centred equilibrium
propagation.

    python benchmarks/oscillator.py --step                      # relaxations of 20 steps, taking turns (a minute)
    python benchmarks/oscillator.py --mnist --epochs 12         # test error, all 60,000 training images
    python benchmarks/oscillator.py --mnist --validation 5000   # the same on held-out images, as settings were chosen
    groundstate train oscillator                                # the digits

MNIST in float32: pixels clamp their oscillators between -pi/2 and pi/2, the outputs are read as sines against one-hot
targets (squared error), beta 0.5, Adam at 0.001 times 0.8 per epoch, batches of 50. Settings were chosen on 5,000
images held out of the training set; the official 10,000 test images are evaluated once, at the end.
Published: 97.2 to 98 % (oscillator Ising machines, Gower 2025; phase oscillators, Rageau and Grollier 2025).
MNIST is read from $GROUNDSTATE_DATA/mnist or the user's cache, or downloaded.
"""

from __future__ import annotations

import argparse
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from learning import EquilibriumPropagation, basin_jumps, fit, load_data
from substrates import OscillatorNetwork
from substrates.classical.oscillator import PhaseDescent

QUARTER = np.pi / 2
STEPS, BATCH = 20, 20


def network(seed: int):
    return OscillatorNetwork.layered(
        (784, 500, 10), key=jax.random.key(seed), phase_range=(-QUARTER, QUARTER), readout="sine"
    )


def pairwise_torques(net, state, x):
    """sum_j W_ij sin(phi_j - phi_i) + h_i sin(psi_i - phi_i), the formula as it stands, pair by pair."""
    phases = (net.input_phase(x), *state)
    torques = []
    for layer, phase in enumerate(state):
        before = net.coupling[layer].weight * jnp.sin(phases[layer][:, None] - phase)
        torque = jnp.sum(before, axis=0) + net.field[layer] * jnp.sin(net.field_phase[layer] - phase)
        if layer + 1 < len(state):
            torque += jnp.sum(net.coupling[layer + 1].weight * jnp.sin(state[layer + 1] - phase[:, None]), axis=1)
        torques.append(torque)
    return tuple(torques)


def products_torques(net, state, x):
    return net.force(state, x)


@eqx.filter_jit
def gradient_steps(net, xs, torques):
    """Steps of gradient flow, every torque afresh in each."""

    def relax(x):
        step = lambda state, _: (jax.tree.map(lambda s, t: s + 0.05 * t, state, torques(net, state, x)), None)
        return jax.lax.scan(step, net.initial_state(x), None, length=STEPS)[0]

    return jax.vmap(relax)(xs)


@eqx.filter_jit
def block_sweeps(net, xs):
    """Sweeps of exact block updates; what the inputs exert is computed once."""
    return jax.vmap(lambda x: net.relax(x, solver=PhaseDescent(sweeps=STEPS)).state)(xs)


def step_times(rounds: int) -> None:
    net, xs = network(0), jax.random.uniform(jax.random.key(1), (BATCH, 784))
    contestants = {
        "gradient flow, pair by pair": lambda: gradient_steps(net, xs, pairwise_torques),
        "gradient flow, by products": lambda: gradient_steps(net, xs, products_torques),
        "exact block updates": lambda: block_sweeps(net, xs),
    }
    gap = jax.tree.map(
        lambda a, b: float(jnp.max(jnp.abs(a - b))),
        contestants["gradient flow, pair by pair"](),
        contestants["gradient flow, by products"](),
    )
    print(
        f"largest difference of the phases after {STEPS} steps of either formula: {max(jax.tree.leaves(gap)):.1e} rad"
    )
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            if turn:  # the first turn compiles
                times[name].append((time.perf_counter() - began) / STEPS)
    slowest = statistics.median(times["gradient flow, pair by pair"])
    print(f"a step of a relaxation of {STEPS} steps, batch {BATCH}, inputs included, median of {rounds}:")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"  {name:<28} {1e3 * median:8.3f} ms   {slowest / median:6.1f} times faster")


def train(epochs: int, seed: int, validation: int) -> None:
    data = load_data("mnist", seed=seed, validation=validation)
    steps = len(data.train[1]) // 50
    rule = EquilibriumPropagation(beta=0.5, strict=False)
    run = fit(
        network(seed),
        rule,
        data.train,
        optimiser=optax.adam(optax.exponential_decay(1e-3, steps, 0.8, staircase=True)),
        epochs=epochs,
        batch_size=50,
        validation=data.validation if validation else None,
        test=None if validation else data.test,
        key=jax.random.key(seed),
    )
    print(run)
    images, labels = (jnp.asarray(part[:1000]) for part in data.train)
    estimate = rule(run.substrate, images.astype(jnp.float32), jax.nn.one_hot(labels, 10))
    free, plus, minus = estimate.equilibria
    jumped = [int(jnp.sum(basin_jumps(run.substrate, images, free, nudged))) for nudged in (plus, minus)]
    print(f"nudges that left the basin, of 1,000 each: {jumped[0]} at +beta, {jumped[1]} at -beta")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", action="store_true", help="time relaxation steps")
    parser.add_argument("--mnist", action="store_true", help="train on MNIST")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--validation", type=int, default=0, help="images held out and evaluated instead of the test set"
    )
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if options.step:
        step_times(options.rounds)
    if options.mnist:
        train(options.epochs, options.seed, options.validation)
    if not options.step and not options.mnist:
        parser.error("ask for --step or --mnist")


if __name__ == "__main__":
    main()
