"""Quantum oscillators: a thousand of them, batches, and what a Gaussian system can and cannot separate.

    python benchmarks/quantum_oscillator.py --size                   # a ground state with all springs; 64 over one
    python benchmarks/quantum_oscillator.py --choose                 # settings for iris, on validation data
    python benchmarks/quantum_oscillator.py --separate               # exclusive or, rings, iris, by how inputs act
    python benchmarks/quantum_oscillator.py --separate --figure separation.png
    python benchmarks/quantum_oscillator.py --digits
    python benchmarks/quantum_oscillator.py --slopes                 # EP beside finite differences, by beta

--size is 1,000 oscillators on a 25 x 40 lattice with 1,935 random springs, float64: the ground state with its residual,
and <(x_i - x_j)^2>/2 of every spring, compiled, without and with a batch of 64 different forces.

--separate trains by centred equilibrium propagation. "force": inputs are forces, outputs means, which are then linear
in the inputs, whatever the springs: a linear classifier. "stiffness": inputs are on-site stiffnesses k e^x and all
springs are positive; the means are rational functions of the e^x. Exclusive or and rings are judged by 200 points that
were not trained on; iris by its 30 fixed test flowers, with 12 of the other 120 set aside, drawn by the seed. The
settings for iris were chosen by --choose, on 30 flowers set aside. In the plane the gain of stiffnesses is twice that.

With positive springs one mean alone never gives exclusive or. G = K^-1 has no negative entry, d<x_o>/dK_a = -G_oa <x_a>
and the sign of <x_a> does not depend on K_a. As K_b grows <x_a> would have to pass from negative to positive, so that
<x_b> is negative there, at both values of K_a; but between these it must change its sign, too. (The other exclusive or
swaps all signs.) The difference of two means does give it.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import statistics
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from slopes import central_differences, report_slopes

from learning import CrossEntropy, EquilibriumPropagation, PositionError, fit, load_data
from substrates import QuantumOscillatorNetwork
from substrates.substrate import relax_batch

SETTINGS: dict[str, dict[str, float]] = {
    "force": {"gain": 10.0, "rate": 0.02},
    "stiffness": {"gain": 1.0, "rate": 0.05},
}
PLANE_GAIN = {"force": 10.0, "stiffness": 2.0}
TRIED = {
    "force": [(5.0, 0.02), (10.0, 0.02), (20.0, 0.02)],
    "stiffness": [(1.0, 0.05), (2.0, 0.05)],
}
EPOCHS = 100


def size(rounds: int, batch: int = 64) -> None:
    """One ground state and all springs, and a batch over one, taking turns."""
    jax.config.update("jax_enable_x64", True)
    draw = np.random.default_rng(0)
    springs = 25 * 39 + 24 * 40
    net = QuantumOscillatorNetwork.lattice(
        (25, 40),
        inputs=range(25),
        outputs=range(975, 1000),
        stiffness=draw.uniform(0.5, 1.5, springs),
        onsite_stiffness=draw.uniform(0.05, 0.15, 1000),
        mass=draw.uniform(0.5, 2.0, 1000),
    )

    @eqx.filter_jit
    def ground(net, xs):
        found = relax_batch(net, xs)
        return found, net.measure(found.state, xs).stiffness

    inputs = {1: jnp.asarray(draw.normal(size=(1, 25))), batch: jnp.asarray(draw.normal(size=(batch, 25)))}
    times: dict[int, list[float]] = {count: [] for count in inputs}
    for turn in range(rounds + 1):
        for count, xs in inputs.items():
            began = time.perf_counter()
            found, springs_measured = jax.block_until_ready(ground(net, xs))
            if turn:  # the first turn compiles
                times[count].append(time.perf_counter() - began)
            assert bool(jnp.all(found.converged)), found
            assert springs_measured.shape == (springs,)
    one, many = (statistics.median(values) for values in times.values())
    print(f"{net.n} oscillators, {springs} springs, float64, medians of {rounds}")
    print(f"  one ground state and all springs: {one:.2f} s, residual {float(jnp.max(found.residual)):.1e}")
    print(f"  a batch of {batch}: {many:.2f} s, {many / one:.2f} times one")


def network(drive: str, n_inputs: int, n_outputs: int, gain: float, seed: int) -> QuantumOscillatorNetwork:
    """Every pair of oscillators joined but two inputs; springs of either sign for forces, positive for stiffnesses."""
    if drive == "force":
        net = QuantumOscillatorNetwork.for_task(n_inputs, n_outputs, key=jax.random.key(seed))
        return dataclasses.replace(net, gain=gain)
    n, draw = n_inputs + n_outputs, np.random.default_rng(seed)
    pairs = [(i, j) for i, j in itertools.combinations(range(n), 2) if j >= n_inputs]
    return QuantumOscillatorNetwork.from_edges(
        pairs,
        n,
        inputs=range(n_inputs),
        outputs=range(n_inputs, n),
        stiffness=jnp.asarray(draw.uniform(0.0, 3.0, len(pairs)) / n**0.5),
        onsite_stiffness=1.0,
        bias_force=jnp.asarray(draw.normal(size=n)),
        drive="stiffness",
        gain=gain,
        stiffness_floor=0.0,
        onsite_floor=0.05,
    )


@functools.cache  # one optimiser for all seeds, for which training is compiled once
def optimiser(rate: float, steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(rate, steps))


def train(drive: str, train: Any, validation: Any, test: Any, seed: int, options: dict[str, Any]) -> Any:
    epochs, batch = options.get("epochs", EPOCHS), options.get("batch", 16)
    net = network(drive, train[0].shape[1], int(train[1].max()) + 1, options["gain"], seed)
    return fit(
        net,
        EquilibriumPropagation(0.1, cost=CrossEntropy()),
        train,
        optimiser=optimiser(options["rate"], epochs * -(-len(train[1]) // batch)),
        epochs=epochs,
        batch_size=batch,
        validation=validation,
        test=test,
        key=jax.random.key(1000 + seed),
        progress=False,
    )


def points(task: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """400 points in the plane with two labels: noisy corners of a square, or a disc within a ring."""
    draw = np.random.default_rng(seed)
    label = np.arange(400) % 2
    if task == "exclusive or":
        first = draw.choice([-1.0, 1.0], 400)
        middle = np.stack([first, np.where(label == 1, -first, first)], axis=1)
        return (middle + 0.3 * draw.normal(size=(400, 2))).astype(np.float32), label.astype(np.int32)
    angle, radius = draw.uniform(0, 2 * np.pi, 400), np.where(label == 1, 1.6, 0.6) + 0.12 * draw.normal(size=400)
    plane = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return plane.astype(np.float32), label.astype(np.int32)


def halves(task: str, seed: int) -> tuple[Any, Any]:
    x, y = points(task, seed)
    return (x[:200], y[:200]), (x[200:], y[200:])


def choose() -> None:
    for drive, tried in TRIED.items():
        for gain, rate in tried:
            right = []
            for seed in range(5):
                data = load_data("iris", seed=100 + seed, validation=30)
                run = train(drive, data.train, data.validation, None, seed, {"gain": gain, "rate": rate})
                right.append(100 * run.validation.accuracy)
            print(f"{drive:10} gain {gain:4}, rate {rate}: validation accuracy {statistics.mean(right):.1f} %",
                  flush=True)  # fmt: skip


def separate(seeds: int, figure: str | None) -> None:
    shown = {}
    for task in ("exclusive or", "rings", "iris"):
        for drive, options in SETTINGS.items():
            right, failed = [], 0
            for seed in range(seeds if task == "iris" else min(seeds, 5)):
                if task == "iris":
                    data = load_data("iris", seed=seed)
                    run = train(drive, data.train, data.validation, data.test, seed, options)
                else:
                    there, new = halves(task, seed)
                    run = train(drive, there, None, new, seed, {**options, "gain": PLANE_GAIN[drive]})
                right.append(100 * run.test.accuracy)
                failed += int(np.sum(run.history["unconverged"]))
                shown[task, drive] = run.substrate
            print(
                f"{task:13} inputs as {drive:10} test accuracy {statistics.mean(right):5.1f} % "
                f"({min(right):.1f} to {max(right):.1f}, {len(right)} seeds), {failed} equilibria not converged",
                flush=True,
            )
    if figure:
        draw_separation(shown, figure)


def draw_separation(trained: dict[tuple[str, str], Any], path: str) -> None:
    """Where each trained network changes its mind, over the points that judged it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks = ("exclusive or", "rings")
    axes = plt.subplots(2, 2, figsize=(7, 6.6), layout="constrained", sharex=True, sharey=True)[1]
    grid = np.linspace(-2.4, 2.4, 81, dtype=np.float32)
    plane = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    for row, task in enumerate(tasks):
        for column, drive in enumerate(SETTINGS):
            ax, net = axes[row, column], trained[task, drive]
            output = jax.vmap(net.read)(relax_batch(net, jnp.asarray(plane)).state, jnp.asarray(plane))
            ax.contourf(grid, grid, jax.nn.softmax(output)[:, 1].reshape(81, 81), levels=np.linspace(0, 1, 11),
                        cmap="RdBu_r", alpha=0.6)  # fmt: skip
            (x, y), _ = halves(task, 4)
            ax.scatter(*x.T, c=y, cmap="RdBu_r", s=8, edgecolors="k", linewidths=0.3)
            ax.set(title=f"{task}, inputs as {drive}", aspect="equal")
    plt.savefig(path, dpi=120)
    print(path)


def digits(seeds: int) -> None:
    for seed in range(seeds):
        data = load_data("digits", seed=seed)
        options = {**SETTINGS["force"], "epochs": 20, "batch": 32}
        run = train("force", data.train, data.validation, data.test, seed, options)
        print(f"digits, inputs as force, seed {seed}: test accuracy {100 * run.test.accuracy:.2f} %", flush=True)


def slopes() -> None:
    """The mean squared error of two positions, fluctuations included, of six oscillators in a random network."""
    jax.config.update("jax_enable_x64", True)
    n, draw = 6, np.random.default_rng(0)
    edges = list(itertools.combinations(range(n), 2))
    net = QuantumOscillatorNetwork.from_edges(
        edges,
        n,
        inputs=[0],
        outputs=[4, 5],
        stiffness=draw.uniform(0.3, 1.5, len(edges)),
        onsite_stiffness=draw.uniform(0.5, 2.0, n),
        bias_force=draw.normal(size=n),
        mass=draw.uniform(0.5, 2.0, n),
        reading="moments",
    )
    mass, wanted_at = np.asarray(net.mass), np.array([0.6, -0.3])
    x, y = jnp.ones((1, 1)), jnp.concatenate([wanted_at, wanted_at**2])[None]
    at, unravel = ravel_pytree((net.bias_force, net.onsite_stiffness, net.stiffness))
    for temperature in (0.0, 0.4):
        warm = net.at_temperature(temperature)

        def loss(values: np.ndarray, temperature=temperature) -> float:
            force, onsite, stiffness = map(np.array, unravel(jnp.asarray(values)))
            force[0] += 1
            K = np.diag(onsite)
            for k, (i, j) in zip(stiffness, edges, strict=True):
                K[[i, j], [i, j]] += k
                K[[i, j], [j, i]] -= k
            squares, modes = np.linalg.eigh(K / np.sqrt(np.outer(mass, mass)))
            frequency = np.sqrt(squares)
            occupied = 1 / np.tanh(frequency / (2 * temperature)) if temperature else 1.0
            variance = np.sum(modes**2 * occupied / (2 * frequency), axis=1) / mass
            mean = np.linalg.solve(K, force)
            return 0.5 * np.sum((mean[4:] - wanted_at) ** 2 + variance[4:])

        def gradient(variant: str, beta: float, warm=warm) -> np.ndarray:
            found = EquilibriumPropagation(jnp.asarray(beta), variant, PositionError())(warm, x, y).gradient
            return np.asarray(ravel_pytree((found.bias_force, found.onsite_stiffness, found.stiffness))[0])

        wanted = central_differences(loss, np.asarray(at), step=1e-3)
        report_slopes(f"{n} oscillators at temperature {temperature}", gradient, wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="store_true", help="time 1,000 oscillators, and a batch")
    parser.add_argument("--choose", action="store_true", help="try settings for iris on validation data")
    parser.add_argument("--separate", action="store_true", help="what can be separated, by how inputs act")
    parser.add_argument("--digits", action="store_true", help="8 x 8 digits, inputs as forces")
    parser.add_argument("--slopes", action="store_true", help="how the error of the gradient falls with beta")
    parser.add_argument("--figure", metavar="FILE", help="where --separate draws what it found")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.size:
        size(options.rounds)
    if options.choose:
        choose()
    if options.separate:
        separate(options.seeds, options.figure)
    if options.digits:
        digits(min(options.seeds, 3))
    if options.slopes:
        slopes()
    if not any((options.size, options.choose, options.separate, options.digits, options.slopes)):
        parser.error("ask for --size, --choose, --separate, --digits or --slopes")


if __name__ == "__main__":
    main()
