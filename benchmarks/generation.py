"""A system of springs that learns to carry noise to digits, by equilibrium propagation alone.

    python benchmarks/generation.py --choose                  # systems, on held-out digits (ten minutes)
    python benchmarks/generation.py --figure digits.png       # trains, draws samples, and measures them (minutes)

A flow x(t) = (1 - t) z + t y goes straight from noise z to a digit y. At x its velocity is (y - x)/(1 - t), so a system
whose force is f(x) = <y | x> - x, the pull of a spring to the digit that one expects at x, carries noise to digits by
its own motion ds/dtau = f(s), with tau = -log(1 - t). Force matching trains it: it is held at x by springs
(`ForceProbe`), which show its force and are nudged towards y - x, and `EquilibriumPropagation` contrasts what settles.
No energy is differentiated, and nothing else is known of the system.

The system is `Memories`: groups of hidden units that compete, each with a pattern that it pulls the state to. A sample
is the state at rest after that motion has started at noise. They are measured by their distance to the nearest of the
training digits, beside that of digits that the system has never seen, of noise, and of the mean digit with the noise of
each pixel; by what a classifier that has learned real digits makes of them; and by how evenly they fall into classes.

Source: 2026, arXiv 2604.08150 (abstract); flows that do not know the time, Sun et al. 2025, arXiv 2502.13129; groups
of competing units without their own dynamics, Krotov and Hopfield 2021, arXiv 2008.06996.
"""

from __future__ import annotations

import argparse
import time
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from learning import EquilibriumPropagation, fit, load_data
from learning.catalogue import optimiser
from substrates import DiscreteTime, ForceProbe, Substrate
from substrates.substrate import Solver

STIFFNESS = 100.0
REPEATS, EPOCHS, RATE = 5, 3, 0.01
CHOICES = ((1, 256), (8, 64), (16, 32))
CHOSEN = (8, 64)


class Memories(Substrate):
    """Groups g of units mu that compete, E = |s|^2/2 - b's - sum_g log sum_mu exp(w_(g mu)'s + c_(g mu)).

    The force is b - s + sum_g (the mean of w_(g mu) by the softmax of what the units of a group feel).
    """

    pattern: Float[Array, "groups units variables"]
    threshold: Float[Array, "groups units"]
    field: Float[Array, "variables"]

    @classmethod
    def drawn(cls, groups: int, units: int, field: Float[Array, "variables"], key: PRNGKeyArray) -> Memories:
        pattern = jax.random.normal(key, (groups, units, field.size), field.dtype) / field.size**0.5
        return cls(pattern, jnp.zeros((groups, units), field.dtype), field)

    def energy(self, state, x):
        felt = self.pattern @ state + self.threshold
        return state @ state / 2 - self.field @ state - jnp.sum(jax.nn.logsumexp(felt, axis=1))

    def initial_state(self, x):
        return jnp.zeros_like(self.field)

    def read(self, state, x):
        return state


class Probe(ForceProbe):
    """A `ForceProbe` that takes steps of one over the stiffness of its springs, beside which all others are soft."""

    solver: ClassVar[Solver] = DiscreteTime(1 / STIFFNESS, "energy-based")


def towards_digits(digits: Float[np.ndarray, "n pixels"], repeats: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points between noise and digits, and the ways from them to the digits, in new draws for every repeat."""
    draw = np.random.default_rng(seed)
    y = np.tile(digits, (repeats, 1))
    t = draw.uniform(size=(len(y), 1))
    x = ((1 - t) * draw.normal(size=y.shape) + t * y).astype(np.float32)
    return x, y - x


def trained(groups: int, units: int, digits: np.ndarray, repeats: int, epochs: int, rate: float, seed: int) -> Memories:
    system = Memories.drawn(groups, units, jnp.asarray(digits.mean(axis=0)), jax.random.key(seed))
    probe = Probe(system, jnp.zeros(0), STIFFNESS)
    batch, examples = 128, towards_digits(digits, repeats, seed)
    steps = -(-len(examples[0]) // batch)
    run = fit(
        probe,
        EquilibriumPropagation(0.1 / STIFFNESS),
        examples,
        optimiser=optimiser("adam", rate, 0.7, steps, probe),
        epochs=epochs,
        batch_size=batch,
        key=jax.random.key(seed + 1),
        progress=False,
    )
    print(f"{groups} x {units} units: squared error of the force {2 * run.history['cost'][-1]:.3f}", flush=True)
    return run.substrate.inner


@eqx.filter_jit
def samples(system: Memories, count: int, key: PRNGKeyArray, duration: float = 8.0, step: float = 0.05) -> Array:
    """Where the motion ds/dtau = f(s) ends that starts at noise, by the midpoint rule."""
    force = lambda s: jax.vmap(lambda state: system.force(state, jnp.zeros(0, s.dtype)))(s)
    move = lambda _, s: s + step * force(s + step / 2 * force(s))
    noise = jax.random.normal(key, (count, system.field.size), system.field.dtype)
    return jax.lax.fori_loop(0, round(duration / step), move, noise)


class Judge:
    """Distances to the nearest of the training digits, and what a classifier of real digits makes of pictures."""

    def __init__(self, digits: np.ndarray, labels: np.ndarray):
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import NearestNeighbors

        self.neighbours = NearestNeighbors(n_neighbors=1).fit(digits)
        self.classifier = LogisticRegression(max_iter=2000).fit(digits, labels)

    def __call__(self, name: str, pictures: np.ndarray) -> None:
        distance = self.neighbours.kneighbors(pictures)[0].ravel()
        chances = self.classifier.predict_proba(pictures)
        entropy = lambda p: -np.sum(p * np.log(np.maximum(p, 1e-30)), axis=-1) / np.log(2)
        shares = np.bincount(chances.argmax(axis=1), minlength=10) / len(pictures)
        print(
            f"{name:>22}: distance to the nearest training digit {distance.mean():5.2f} +- {distance.std():.2f}; "
            f"entropy of the label of one {entropy(chances).mean():.2f} bits, of all {entropy(shares):.2f} bits; "
            f"apart {np.sqrt(2 * pictures.var(axis=0).sum()):.2f}",
            flush=True,
        )

    def nearest(self, pictures: np.ndarray) -> np.ndarray:
        """The place of the nearest training digit of each picture."""
        return self.neighbours.kneighbors(pictures)[1].ravel()


def measure(judge: Judge, system: Memories, digits: np.ndarray, held_out: np.ndarray, seed: int) -> np.ndarray:
    """Prints what samples are, beside other pictures; returns the samples, between -1 and 1."""
    drawn = np.asarray(samples(system, len(held_out), jax.random.key(seed + 2)))
    draw = np.random.default_rng(seed)
    noise = draw.normal(size=held_out.shape)
    blurred = digits.mean(axis=0) + digits.std(axis=0) * noise
    clipped = lambda pictures: np.clip(pictures, -1, 1)
    judge("samples", clipped(drawn))
    judge("digits held out", held_out)
    judge("mean digit and noise", clipped(blurred))
    judge("noise", clipped(noise))
    return clipped(drawn)


def draw(path: str, pictures: np.ndarray, nearest: np.ndarray) -> None:
    """Writes a picture of samples, in rows, each above the training digit nearest to it."""
    import matplotlib.pyplot as plt

    rows, columns = 5, 16
    tiles = [pictures, nearest]
    blank = np.full((2 * rows, 10, columns, 10), -1.0)
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        for below, kind in enumerate(tiles):
            blank[2 * row + below, 1:9, column, 1:9] = kind[place].reshape(8, 8)
    ax = plt.subplots(figsize=(8.0, 5.2), layout="constrained")[1]
    ax.imshow(blank.reshape(20 * rows, 10 * columns), cmap="gray_r", vmin=-1, vmax=1)
    for row in range(rows):
        ax.axhspan(20 * row + 9.5, 20 * row + 19.5, color="#0072B2", alpha=0.12, lw=0)
    ax.set(xticks=[], yticks=[], title="samples, and below each the training digit nearest to it (blue)")
    ax.spines[:].set_visible(False)
    ax.figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="measure some systems against validation digits")
    parser.add_argument("--figure", metavar="FILE", help="draw samples of the chosen system")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = load_data("digits", seed=options.seed, validation=0.2)
    scaled = lambda x: 2 * np.asarray(x).reshape(len(x), -1) - 1
    digits, judge = scaled(data.train[0]), Judge(scaled(data.train[0]), data.train[1])
    for groups, units in CHOICES if options.choose else (CHOSEN,):
        began = time.perf_counter()
        system = trained(groups, units, digits, REPEATS, EPOCHS, RATE, options.seed)
        part = data.validation if options.choose else data.test
        pictures = measure(judge, system, digits, scaled(part[0]), options.seed)
        print(f"{time.perf_counter() - began:.0f} s", flush=True)
        if options.figure:
            draw(options.figure, pictures, digits[judge.nearest(pictures)])


if __name__ == "__main__":
    main()
