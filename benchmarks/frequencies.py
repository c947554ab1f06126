"""Oscillators that learn the small digits by their natural frequencies alone, against by their couplings alone.

    python benchmarks/frequencies.py --choose        # learning rates and gains, on validation digits (minutes)
    python benchmarks/frequencies.py                 # test accuracy, three seeds (minutes)

Both networks are `OscillatorNetwork.layered`, 64-HIDDEN-10, with the same random couplings, starts, batches, epochs and
centred nudges, so with the same relaxations; in one only omega learns, by dL/domega = -dphi/dbeta, a measurement of
phases alone, in the other only W. What else there is (fields and their phases) keeps its value. Free phases start from
the spectrum of the couplings, or with --starts random or spread, as named. --choose trains on 80 % of the training
digits and prints the accuracy on the others; the defaults in `CHOSEN` are first guesses, to be replaced by what it
finds. The test digits are evaluated once, at the end. Published: 96.0 % by frequencies against 83.3 % by couplings
(2026, arXiv 2604.10272; recalled from its abstract, so that neither task nor network are known here).
"""

from __future__ import annotations

import argparse
import itertools
import time

import jax
import numpy as np
import optax

from learning import EquilibriumPropagation, fit, load_data
from substrates import OscillatorNetwork
from substrates.substrate import match_paths, split_parameters

HIDDEN, EPOCHS, BATCH, BETA, DECAY = 64, 6, 32, 0.5, 0.9
LEARNING = ("frequency", "coupling")
RATES, GAINS = (0.003, 0.01, 0.03, 0.1), (1.0, 3.0)
CHOSEN = {"frequency": (0.03, 1.0), "coupling": (0.003, 1.0)}
STARTS = {"spread": {}, "random": {"random_starts": True}, "spectral": {"spectral_starts": True}}


def trained(name: str, settings: tuple[float, float], starts: str, examples, seed: int, **parts):
    """A network that has learned by the parameters of one name alone."""
    rate, gain = settings
    net = OscillatorNetwork.layered(
        (64, HIDDEN, 10),
        key=jax.random.key(seed),
        coupling_gain=gain,
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
        epochs=EPOCHS,
        batch_size=BATCH,
        key=jax.random.key(seed + 100),
        progress=False,
        **parts,
    )


def parameters(name: str) -> int:
    return HIDDEN + 10 if name == "frequency" else HIDDEN * 74


def choose(starts: str) -> None:
    data = load_data("digits", seed=0, validation=0.2)
    for name, settings in itertools.product(LEARNING, itertools.product(RATES, GAINS)):
        run = trained(name, settings, starts, data.train, 0, validation=data.validation)
        right = 100 * (1 - float(run.history["validation_error"][-1]))
        print(f"{name}, rate and gain {settings}: {right:.1f} % of validation", flush=True)


def compare(starts: str, seeds: int) -> None:
    data = load_data("digits", seed=0, validation=0.2)
    for name in LEARNING:
        rights, unconverged, began = [], 0, time.perf_counter()
        for seed in range(seeds):
            run = trained(name, CHOSEN[name], starts, data.train, seed, test=data.test)
            rights.append(100 * (1 - float(run.test.error)))
            unconverged += int(sum(run.history["unconverged"]))
        print(
            f"by {name} alone ({parameters(name)} numbers), {starts} starts: test accuracy "
            f"{', '.join(f'{right:.1f}' for right in rights)} %; mean {np.mean(rights):.1f} %; {unconverged} "
            f"equilibria did not converge; {time.perf_counter() - began:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="choose learning rates and gains on validation digits")
    parser.add_argument("--starts", choices=list(STARTS), default="spectral", help="where free phases start")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    if options.choose:
        choose(options.starts)
    else:
        compare(options.starts, options.seeds)


if __name__ == "__main__":
    main()
