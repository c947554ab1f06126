"""Oscillators that learn by their natural frequencies alone, against by couplings alone: two vowels, or the digits.

    python benchmarks/frequencies.py                    # vowels drawn from measured means and spreads (minutes)
    python benchmarks/frequencies.py --formants FILE    # vowels of a table with columns vowel, F1, F2
    python benchmarks/frequencies.py --digits           # 64-64-10 on the small digits (minutes)
    python benchmarks/frequencies.py --digits --choose  # its learning rates, on validation digits

Vowels: the published network, task and read-out (2026, arXiv 2604.10272: 96.0 % by 7 natural frequencies, 83.3 % by 7
of 24 couplings, among the runs that count). Of 2-5-2 oscillators two get their natural frequencies from the formants F1
and F2, and the first of these is the reference; couplings between successive layers and along the hidden one are
positive and random. A squared error asks the output of the right vowel for -0.2 radians and the other for 0.2. A run
counts where more than 60 % of its training examples are right in the end. Natural frequencies start at random, or from
the spectrum of the couplings (`spectral_frequencies`). The published read-out, `nearest`, takes the output nearest
to phase 0; `lagging` takes the one that lags, which is what the squared error asks for. One output, asked for -0.2 or
0.2, needs no such choice: its sign tells.

All learn by one-sided nudges and plain descent at one rate, a hundred networks side by side, in batches where the
published runs take single examples: rate times steps is twice theirs.

Digits: pixels clamp phases, and only one kind of the parameters of `OscillatorNetwork.layered` learns; free phases
start where --starts says. --choose trains for two epochs on 80 % of the training digits and prints the accuracy on the
others; `CHOSEN` is what did best. The test digits are evaluated once, at the end.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from learning import EquilibriumPropagation, fit, load_data
from substrates import Substrate, start_session
from substrates.classical.oscillator.layered import LayeredOscillators
from substrates.classical.oscillator.phase_descent import PhaseDescent
from substrates.solvers.generic import DescendThenPolish, Newton
from substrates.substrate import split_parameters

INPUTS, HIDDEN = 2, 5
DRIVE, MARGIN, SPREAD = 1.5, 0.2, 0.3
BETA, RATE, STEPS, BATCH = 0.1, 0.4, 220, 10
COUNTS = 0.6
LEARNING = ("frequencies", "as many couplings", "all couplings")
FORMANTS = (
    (136, (877.0, 1493.0), (0.151, 0.136), 0.67),
    (139, (407.0, 2703.0), (0.153, 0.129), 0.70),
)
"""Of /a/ and /i/ in the men, women and children of Hillenbrand et al. 1995: how many, the geometric means of F1 and F2
in hertz, the deviations of their logarithms, and how these correlate."""


def edges(outputs: int) -> np.ndarray:
    """Inputs to hidden, hidden to outputs, and along the hidden ones."""
    first, last = INPUTS + HIDDEN, INPUTS + HIDDEN + outputs
    ahead = [(i, h) for i in range(INPUTS) for h in range(INPUTS, first)]
    ahead += [(h, o) for h in range(INPUTS, first) for o in range(first, last)]
    return np.array(ahead + [(h, h + 1) for h in range(INPUTS, first - 1)])


class Tones(Substrate):
    """Oscillators of which the first two get their natural frequencies from the features; the first is the reference.

    E = -sum_edges W_ij cos(phi_i - phi_j) - sum_i (omega_i - mean of omega) phi_i,     phi_0 = 0.
    """

    solver = Newton()

    coupling: Float[Array, "edges"]
    frequency: Float[Array, "learning"]

    @property
    def outputs(self) -> int:
        return self.frequency.size - HIDDEN

    def energy(self, state: Float[Array, "free"], x: Float[Array, "2"]) -> Float[Array, ""]:
        phase = jnp.concatenate([jnp.zeros(1), state])
        omega = jnp.concatenate([DRIVE * x, self.frequency])
        i, j = edges(self.outputs).T
        pull = jnp.sum(self.coupling * jnp.cos(phase[i] - phase[j]))
        return -pull - jnp.sum((omega - jnp.mean(omega)) * phase)

    def initial_state(self, x: Float[Array, "2"]) -> Float[Array, "free"]:
        return jnp.zeros(self.frequency.size + INPUTS - 1)

    def read(self, state: Float[Array, "free"], x: Float[Array, "2"]) -> Float[Array, "outputs"]:
        return state[-self.outputs :]


def spectral_frequencies(coupling: np.ndarray) -> np.ndarray:
    """L^-1 (e_1 - e_2), its largest entry `SPREAD`, for the Laplacian L of the couplings without the reference.

    That is the answer of all phases to a torque that turns the two outputs apart.

    Source: arXiv 2604.10272.
    """
    pairs = edges(2)
    laplacian = np.zeros((INPUTS + HIDDEN + 2,) * 2)
    for (i, j), strength in zip(pairs, coupling, strict=True):
        laplacian[[i, j], [i, j]] += strength
        laplacian[[i, j], [j, i]] -= strength
    apart = np.zeros(len(laplacian) - 1)
    apart[-2:] = 1, -1
    answer = np.linalg.solve(laplacian[1:, 1:], apart)[INPUTS - 1 :]
    return SPREAD * answer / np.max(np.abs(answer))


def drawn(seed: int, outputs: int, spectral: bool) -> Tones:
    rng = np.random.default_rng(seed)
    omega = rng.uniform(-SPREAD, SPREAD, HIDDEN + outputs)
    between = len(edges(outputs)) - (HIDDEN - 1)
    coupling = 2 * np.concatenate([rng.uniform(0.5, 1.5, between), rng.uniform(0.5, 1.0, HIDDEN - 1)])
    return Tones(jnp.asarray(coupling), jnp.asarray(spectral_frequencies(coupling) if spectral else omega))


def learning_parts(what: str, net: Tones, seed: int) -> Tones:
    """1 where a parameter learns and 0 elsewhere."""
    nothing, many = jax.tree.map(jnp.zeros_like, net), net.frequency.size
    if what == "frequencies":
        return eqx.tree_at(lambda n: n.frequency, nothing, jnp.ones_like(net.frequency))
    total = net.coupling.size
    chosen = np.random.default_rng(seed + 10_000).permutation(total) < (many if what == "as many couplings" else total)
    return eqx.tree_at(lambda n: n.coupling, nothing, jnp.asarray(chosen, net.coupling.dtype))


def drawn_vowels(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """F1 and F2 of as many speakers as were measured, hertz: logarithms normal, by `FORMANTS`."""
    rng, parts = np.random.default_rng(seed + 30_000), []
    for count, middle, spread, correlation in FORMANTS:
        both = np.diag(spread) @ [[1, correlation], [correlation, 1]] @ np.diag(spread)
        parts.append(np.exp(rng.multivariate_normal(np.log(middle), both, count)))
    return np.concatenate(parts), np.repeat([0, 1], [count for count, *_ in FORMANTS])


def measured_vowels(file: str) -> tuple[np.ndarray, np.ndarray]:
    """F1 and F2 of /a/ and /i/."""
    with Path(file).open() as lines:
        rows = [(float(row["F1"]), float(row["F2"]), row["vowel"]) for row in csv.DictReader(lines)]
    rows = [row for row in rows if row[2] in ("a", "i")]
    return np.array([row[:2] for row in rows]), np.array([int(row[2] == "i") for row in rows])


class Task(NamedTuple):
    """Formants scaled to -1 and 1 by those to learn from, and vowels, in an order of the seed's, the test last."""

    x: Array
    y: Array

    @classmethod
    def of(cls, formants: np.ndarray, vowel: np.ndarray, seed: int) -> Task:
        order = np.random.default_rng(seed).permutation(len(vowel))
        x, count = formants[order], learners(len(vowel))
        low, high = x[:count].min(axis=0), x[:count].max(axis=0)
        return cls(jnp.asarray(2 * (x - low) / (high - low) - 1), jnp.asarray(vowel[order]))


def learners(examples: int) -> int:
    return int(0.8 * examples)


def target(y: Array, outputs: int) -> Array:
    return jnp.where(y[:, None] == jnp.arange(outputs)[None], -MARGIN, MARGIN)


@jax.jit
def descended(nets: Tones, masks: Tones, tasks: Task, order: Array, rate: float) -> Tones:
    """Networks side by side after descents along `order`, shape (networks, steps, BATCH)."""
    rule = EquilibriumPropagation(BETA, "positive", strict=False)

    def step(net, mask, task, rows):
        gradient = rule(net, task.x[rows], target(task.y[rows], net.outputs)).gradient
        return jax.tree.map(lambda p, m, g: p - rate * m * g, net, mask, gradient)

    along = lambda net, mask, task, order: jax.lax.scan(
        lambda net, rows: (step(net, mask, task, rows), None), net, order
    )
    return jax.vmap(along)(nets, masks, tasks, order)[0]


@jax.jit
def output_phases(nets: Tones, tasks: Task) -> tuple[Array, Array]:
    """Of every network and example, at what `DescendThenPolish` certifies as a minimum or does not."""

    def one(net, x):
        found = net.relax(x, solver=DescendThenPolish())
        return net.read(found.state, x), found.converged

    return jax.vmap(lambda net, task: jax.vmap(lambda x: one(net, x))(task.x))(nets, tasks)


def told(phases: np.ndarray, readout: str) -> np.ndarray:
    """Which vowel each read-out makes of the outputs."""
    if readout == "sign":
        return (phases[..., 0] > 0).astype(int)
    return np.argmin(np.abs(phases) if readout == "nearest" else phases, axis=-1)


def turns(phases: np.ndarray, vowel: np.ndarray) -> np.ndarray:
    """By how much the mean phase of each output differs between the vowels, shape (networks, outputs)."""
    means = [[p[v == kind].mean(axis=0) for kind in (0, 1)] for p, v in zip(phases, vowel, strict=True)]
    return np.diff(means, axis=1)[:, 0]


def tell(what: str, nets: Tones, tasks: Task) -> None:
    phases, converged = map(np.asarray, output_phases(nets, tasks))
    vowel, count = np.asarray(tasks.y), learners(tasks.y.shape[1])
    for readout in ("nearest", "lagging") if phases.shape[-1] == 2 else ("sign",):
        right = 100 * (told(phases, readout) == vowel)
        test, counted = right[:, count:].mean(axis=1), right[:, :count].mean(axis=1) > 100 * COUNTS
        among = f", test accuracy {test[counted].mean():.1f} +- {test[counted].std():.1f} %" if counted.any() else ""
        print(
            f"  {what}, {readout}: {counted.sum()} of {len(counted)} count{among}; all {test.mean():.1f} %; "
            f"{np.sum(~converged)} of {converged.size:,} equilibria without rest",
            flush=True,
        )


def vowels(file: str | None, seeds: int, rate: float) -> None:
    """Networks with two outputs from random frequencies and from spectral ones, and with one output."""
    measured = measured_vowels(file) if file else None
    tasks = stacked([Task.of(*(measured or drawn_vowels(seed)), seed) for seed in range(seeds)])
    rngs = [np.random.default_rng(seed + 20_000) for seed in range(seeds)]
    count = learners(tasks.y.shape[1])
    order = jnp.asarray([[rng.choice(count, BATCH, replace=False) for _ in range(STEPS)] for rng in rngs])
    for outputs, spectral in ((2, False), (2, True), (1, False)):
        began = time.process_time()
        each = [drawn(seed, outputs, spectral) for seed in range(seeds)]
        nets = stacked(each)
        turn = turns(np.asarray(output_phases(nets, tasks)[0]), np.asarray(tasks.y))
        print(
            f"2-5-{outputs}, frequencies {'from the spectrum' if spectral else 'at random'}; from one vowel to the "
            f"other outputs turn by {np.abs(turn.mean(axis=1)).mean():.3f} radians together, by "
            f"{np.ptp(turn, axis=1).mean():.3f} apart"
        )
        tell("untrained", nets, tasks)
        for what in LEARNING:
            masks = stacked([learning_parts(what, net, seed) for seed, net in enumerate(each)])
            tell(f"{what} learn", descended(nets, masks, tasks, order, rate), tasks)
        print(f"  {time.process_time() - began:.0f} s of processor time", flush=True)


def stacked(trees: list) -> Any:
    return jax.tree.map(lambda *each: jnp.stack(each), *trees)


# the digits

LAYERS, DIGIT_EPOCHS, DIGIT_BATCH, DIGIT_BETA, DECAY = (64, 64, 10), 6, 32, 0.5, 0.9
RATES = (0.003, 0.01, 0.03, 0.1)
CHOSEN = {"frequencies": 0.003, "as many couplings": 0.1, "all couplings": 0.01}
CHOICE_EPOCHS = 2
STARTS = {"spread": {}, "random": {"random_starts": True}, "spectral": {"spectral_starts": True}}


class Swept(LayeredOscillators):
    """Settles by sweeps alone: a decomposition of each Hessian, which certifies minima, takes ten times as long."""

    solver = PhaseDescent(max_sweeps=300, dense_size=0)


def trained(what: str, rate: float, starts: str, examples, seed: int, epochs: int = DIGIT_EPOCHS, **parts):
    """A network of which one kind of parameters has learned."""
    net = Swept.layered(
        LAYERS,
        key=jax.random.key(seed),
        frequency=0.0,
        phase_range=(0.0, np.pi / 2),
        readout="sine",
        **STARTS[starts],
    )
    mask = digit_mask(what, split_parameters(net)[0], seed)
    steps = -(-len(examples[1]) // DIGIT_BATCH)
    moving = optax.adam(optax.exponential_decay(rate, steps, DECAY, staircase=True))
    kept = optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, mask))
    return fit(
        net,
        EquilibriumPropagation(DIGIT_BETA, strict=False),
        examples,
        optimiser=optax.chain(moving, kept),
        epochs=epochs,
        batch_size=DIGIT_BATCH,
        key=jax.random.key(seed + 100),
        progress=False,
        **parts,
    )


def digit_mask(what: str, parameters: LayeredOscillators, seed: int) -> LayeredOscillators:
    """1 where a parameter learns and 0 elsewhere."""
    nothing = jax.tree.map(jnp.zeros_like, parameters)
    if what == "frequencies":
        return eqx.tree_at(lambda n: n.frequency, nothing, jax.tree.map(jnp.ones_like, parameters.frequency))
    flat, unravel = ravel_pytree(parameters.coupling)
    many = flat.size if what == "all couplings" else sum(LAYERS[1:])
    chosen = np.random.default_rng(seed).permutation(flat.size) < many
    return eqx.tree_at(lambda n: n.coupling, nothing, unravel(jnp.asarray(chosen, flat.dtype)))


def slipping(run) -> str:
    """How many equilibria of a training found no rest: their phases slip past one another."""
    return f"{int(sum(run.history['unconverged'])):,} equilibria without rest"


def choose(starts: str) -> None:
    data = load_data("digits", seed=0, validation=0.2)
    for what in CHOSEN:
        for rate in RATES:
            run = trained(what, rate, starts, data.train, 0, CHOICE_EPOCHS, validation=data.validation)
            right = 100 * (1 - float(run.history["validation_error"][-1]))
            print(f"{what} learn, rate {rate}: {right:.1f} % of validation, {slipping(run)}", flush=True)


def digits(starts: str, seeds: int) -> None:
    data = load_data("digits", seed=0, validation=0.2)
    for what, rate in CHOSEN.items():
        rights, began = [], time.process_time()
        for seed in range(seeds):
            run = trained(what, rate, starts, data.train, seed, test=data.test)
            rights.append(100 * (1 - float(run.test.error)))
            print(f"{what} learn, seed {seed}: {rights[-1]:.1f} %, {slipping(run)}", flush=True)
        print(
            f"{what} learn, {starts} starts: test accuracy {', '.join(f'{right:.1f}' for right in rights)} %; "
            f"mean {np.mean(rights):.1f} %; {time.process_time() - began:.0f} s of processor time",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, help="how many runs: 100, or 3 with --digits")
    parser.add_argument("--formants", metavar="FILE", help="a table of vowels, columns vowel, F1 and F2, in hertz")
    parser.add_argument("--rate", type=float, default=RATE, help="of the descent on vowels")
    parser.add_argument("--digits", action="store_true", help="learn the small digits instead")
    parser.add_argument(
        "--choose", action="store_true", help="with --digits: choose learning rates on validation digits"
    )
    parser.add_argument(
        "--starts", choices=list(STARTS), default="spectral", help="with --digits: free phases start so"
    )
    options = parser.parse_args()
    start_session(precision=32 if options.digits else 64)
    if not options.digits:
        vowels(options.formants, options.seeds or 100, options.rate)
    elif options.choose:
        choose(options.starts)
    else:
        digits(options.starts, options.seeds or 3)


if __name__ == "__main__":
    main()
