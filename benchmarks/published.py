"""Published results of layered networks on images, each trained again by one command.

    python benchmarks/published.py                          # what there is, with its settings
    python benchmarks/published.py drn-2                    # trains it and prints the test error, once, at the end
    python benchmarks/published.py drn-2 --validation 5000  # the error on held-out images after every epoch instead
    python benchmarks/published.py drn-2 --epochs 5 --batch 16 --scale 2    # other settings; all rates times two

Networks learn by centred equilibrium propagation in float32 from all 60,000 training images, less those held out, and
the official 10,000 test images are evaluated once, at the end; the seed draws parameters and order. Rates were chosen
on 5,000 held-out images after two or three epochs of 16,000 others, numbers of epochs by what an hour of two cores
allows. Published are deep resistive networks and dense Hopfield networks of one to three hidden layers, Scellier 2024
(arXiv 2402.11674), and resistive ones on clothes, Scellier and Mishra 2025 (arXiv 2312.15063). Commands of their own
have 2x784-1024-10 (`mnist.py`), 784-1024-10 (`hopfield.py`), oscillators (`oscillator.py`) and spins (`ising.py`).
Images are read from $GROUNDSTATE_DATA or the user's cache, or downloaded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learning import EquilibriumPropagation, fit, load_data
from learning.catalogue import optimiser
from substrates import HopfieldNetwork, ResistorNetwork
from substrates.parameters import match_paths, split_parameters


@dataclass(frozen=True)
class Experiment:
    """A network, how it learns, and the test error that was published for its like, in percent.

    `rates` go by the paths of parameters. They fall by the factor `decay` every epoch; where it is None, along half a
    cosine to zero, with Nesterov's momentum of 0.9.
    """

    published: str
    network: Callable[[Any], Any]
    rates: Mapping[str, float]
    epochs: int
    beta: float
    batch: int
    decay: float | None = None
    data: str = "mnist"

    def optimiser(self, net: Any, steps: int) -> optax.GradientTransformation:
        """Gradient descent with a rate for each layer; `steps` make an epoch."""
        if self.decay is not None:
            return optimiser("sgd", self.rates, self.decay, steps, net)
        paths = match_paths(self.rates, split_parameters(net)[0])
        scaled = optax.stateless(lambda g, _: jax.tree.map(lambda path, leaf: self.rates[path] * leaf, paths, g))
        cosine = optax.cosine_decay_schedule(1.0, self.epochs * steps)
        return optax.chain(scaled, optax.sgd(cosine, momentum=0.9, nesterov=True))


def resistive(*hidden: int, input_gain: float) -> Callable[[Any], Any]:
    return lambda key: ResistorNetwork.layered((784, *hidden, 10), key=key, input_gain=input_gain, dtype=jnp.float32)


def hopfield(*hidden: int) -> Callable[[Any], Any]:
    return lambda key: HopfieldNetwork.layered((784, *hidden, 10), key=key, gain=0.3, dtype=jnp.float32)


def conductances(*rates: float) -> dict[str, float]:
    return _by_layer("conductance", rates) | _by_layer("bias_current", rates) | {"rail_conductance": 0.0}


def couplings(*rates: float) -> dict[str, float]:
    return _by_layer("coupling", rates) | _by_layer("bias", tuple(0.1 * rate for rate in rates))


def _by_layer(name: str, rates: tuple[float, ...]) -> dict[str, float]:
    return {f"{name}[{layer}]": rate for layer, rate in enumerate(rates)}


EXPERIMENTS = {
    "drn-xs": Experiment("3.46", resistive(100, input_gain=100.0), conductances(0.006, 0.006), 10, 1.0, 4, 0.99),
    "drn-2": Experiment(
        "1.48", resistive(1024, 1024, input_gain=2000.0), conductances(0.001, 0.3, 0.1), 20, 1.0, 32
    ),
    "drn-3": Experiment(
        "1.66", resistive(1024, 1024, 1024, input_gain=4000.0), conductances(0.001, 0.5, 5.0, 1.0), 20, 2.0, 32
    ),
    "drn-clothes": Experiment(
        "10.38", resistive(1024, input_gain=480.0), conductances(0.006, 0.006), 50, 1.0, 4, 0.99, "fashion-mnist"
    ),
    "hopfield-2": Experiment("1.65", hopfield(512, 512), couplings(0.3, 0.2, 0.05), 20, 0.5, 16, 0.92),
    "hopfield-3": Experiment("1.65", hopfield(512, 512, 512), couplings(0.3, 0.2, 0.1, 0.05), 20, 0.5, 16, 0.92),
}  # fmt: skip


def run(name: str, chosen: Experiment, seed: int, held_out: int, part: int | None) -> None:
    data = load_data(chosen.data, seed=seed, validation=held_out)
    net = chosen.network(jax.random.key(seed))
    train: Any = tuple(half[:part] for half in data.train)
    judged_by: dict[str, Any] = {"validation": data.validation} if held_out else {"test": data.test}
    began, clock = time.process_time(), time.perf_counter()
    found = fit(
        net,
        EquilibriumPropagation(beta=chosen.beta),
        train,
        optimiser=chosen.optimiser(net, -(-len(train[1]) // chosen.batch)),
        epochs=chosen.epochs,
        batch_size=chosen.batch,
        key=jax.random.key(seed + 100),
        progress=False,
        **judged_by,
    )
    lasted = f"{time.process_time() - began:.0f} s of the process, {time.perf_counter() - clock:.0f} s of the clock"
    for what in ("error", "validation_error"):
        if what in found.history:
            errors = 100 * np.asarray(found.history[what])
            print(f"{what} by epoch, %:", ", ".join(f"{error:.2f}" for error in errors))
    error = found.test.error if found.test else None
    end = "" if error is None else f"test error {100 * error:.2f} %, published {chosen.published}; "
    print(f"{name}, seed {seed}: {end}{chosen.epochs} epochs, {lasted}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=EXPERIMENTS, help="which; without it they are listed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validation", type=int, default=0, help="hold out so many training images and look at them")
    parser.add_argument("--part", type=int, help="learn from the first so many images only")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--beta", type=float)
    parser.add_argument("--scale", type=float, default=1.0, help="a factor on all rates")
    options = parser.parse_args()
    if options.name is None:
        for name, experiment in EXPERIMENTS.items():
            settings = {key: value for key, value in vars(experiment).items() if key != "network"}
            print(name, *(f"{key} {value}" for key, value in settings.items()), sep="; ")
        return
    asked = {what: getattr(options, what) for what in ("epochs", "batch", "beta") if getattr(options, what) is not None}
    chosen = EXPERIMENTS[options.name]
    rates = {path: options.scale * rate for path, rate in chosen.rates.items()}
    run(options.name, replace(chosen, rates=rates, **asked), options.seed, options.validation, options.part)


if __name__ == "__main__":
    main()
