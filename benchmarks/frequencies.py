"""Oscillators that learn the small digits by their natural frequencies alone, against by their couplings alone.

    python benchmarks/frequencies.py --choose        # learning rates, on validation digits (minutes)
    python benchmarks/frequencies.py                 # test accuracy, three seeds (minutes)

Both networks are `OscillatorNetwork.layered`, 64-HIDDEN-10, with the same random couplings, starts, batches, epochs and
centred nudges, so with the same relaxations; in one only omega learns, by dL/domega = -dphi/dbeta, a measurement of
phases alone, in the other only W. What else there is (fields and their phases) keeps its value. Free phases start from
the spectrum of the couplings, or with --starts random or spread, as named. --choose trains for two epochs on 80 % of
the training digits and prints the accuracy on the others; `CHOSEN` is what did best. The test digits are evaluated
once, at the end. Published: 96.0 % by frequencies against 83.3 % by couplings (2026, arXiv
2604.10272; recalled from its abstract, so that neither task nor network are known here).
"""

from __future__ import annotations

import argparse
import time

import jax
import numpy as np
import optax

from learning import EquilibriumPropagation, fit, load_data
from substrates import start_session
from substrates.classical.oscillator.layered import LayeredOscillators
from substrates.classical.oscillator.phase_descent import PhaseDescent
from substrates.substrate import match_paths, split_parameters

HIDDEN, EPOCHS, BATCH, BETA, DECAY = 64, 6, 32, 0.5, 0.9
LEARNING = ("frequency", "coupling")
RATES = {"frequency": (0.003, 0.01, 0.03), "coupling": (0.003, 0.01, 0.03)}
CHOSEN = {"frequency": 0.003, "coupling": 0.01}
CHOICE_EPOCHS = 2
STARTS = {"spread": {}, "random": {"random_starts": True}, "spectral": {"spectral_starts": True}}


class Swept(LayeredOscillators):
    """Settles by sweeps alone: a decomposition of each Hessian, which certifies minima, takes ten times as long."""

    solver = PhaseDescent(max_sweeps=300, dense_size=0)


def trained(name: str, rate: float, starts: str, examples, seed: int, epochs: int = EPOCHS, **parts):
    """A network that has learned by the parameters of one name alone."""
    net = Swept.layered(
        (64, HIDDEN, 10),
        key=jax.random.key(seed),
        frequency=0.0,
        phase_range=(0.0, np.pi / 2),
        readout="sine",
        **STARTS[starts],
    )
    steps = -(-len(examples[1]) // BATCH)
    moving = optax.adam(optax.exponential_decay(rate, steps, DECAY, staircase=True))
    parameters = split_parameters(net)[0]
    paths = {path: path for path in ("coupling", "field", "field_phase", "frequency")}
    tree = match_paths(paths, parameters)
    kinds = {path: moving if path == name else optax.set_to_zero() for path in paths}
    return fit(
        net,
        EquilibriumPropagation(BETA, strict=False),
        examples,
        optimiser=optax.multi_transform(kinds, lambda _: tree),
        epochs=epochs,
        batch_size=BATCH,
        key=jax.random.key(seed + 100),
        progress=False,
        **parts,
    )


def slipping(run) -> str:
    """How many equilibria of a training found no rest: their phases slip past one another."""
    return f"{int(sum(run.history['unconverged'])):,} without rest"


def parameters(name: str) -> int:
    return HIDDEN + 10 if name == "frequency" else HIDDEN * 74


def choose(starts: str, names: list[str]) -> None:
    data = load_data("digits", seed=0, validation=0.2)
    for name in names:
        for rate in RATES[name]:
            run = trained(name, rate, starts, data.train, 0, CHOICE_EPOCHS, validation=data.validation)
            right = 100 * (1 - float(run.history["validation_error"][-1]))
            print(f"{name}, rate {rate}: {right:.1f} % of validation, {slipping(run)}", flush=True)


def compare(starts: str, names: list[str], seeds: int) -> None:
    data = load_data("digits", seed=0, validation=0.2)
    for name in names:
        rights, began = [], time.process_time()
        for seed in range(seeds):
            run = trained(name, CHOSEN[name], starts, data.train, seed, test=data.test)
            rights.append(100 * (1 - float(run.test.error)))
            print(f"{name}, seed {seed}: {rights[-1]:.1f} %, {slipping(run)}", flush=True)
        print(
            f"by {name} alone ({parameters(name)} numbers), {starts} starts: test accuracy "
            f"{', '.join(f'{right:.1f}' for right in rights)} %; mean {np.mean(rights):.1f} %; "
            f"{time.process_time() - began:.0f} s of processor time",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="choose learning rates on validation digits")
    parser.add_argument("--starts", choices=list(STARTS), default="spectral", help="where free phases start")
    parser.add_argument("--only", nargs="+", choices=LEARNING, default=list(LEARNING), help="what learns")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    start_session(precision=32)
    if options.choose:
        choose(options.starts, options.only)
    else:
        compare(options.starts, options.only, options.seeds)


if __name__ == "__main__":
    main()
