"""Published results of layered networks on images, each trained again by one command.

    python benchmarks/published.py                          # what there is, with its settings
    python benchmarks/published.py drn-2                    # trains it and prints the test error, once, at the end
    python benchmarks/published.py drn-2 --validation 5000  # the error on held-out images after every epoch instead
    python benchmarks/published.py drn-2 --epochs 5 --batch 16 --scale 2    # other settings; all rates times two

Networks learn by centred equilibrium propagation of the squared error in float32 from all 60,000 training images, less
those held out, and the official 10,000 test images are evaluated once, at the end; the seed draws parameters and order.
Settings were chosen on 5,000 held-out images after one to twenty epochs of 4,000 to 55,000 others, numbers of epochs
by what an hour of two cores allows. How many equilibria failed to settle is printed with every epoch.

Deep resistive networks and dense Hopfield networks of one to three hidden layers: Scellier 2024 (arXiv 2402.11674),
resistive ones on clothes Scellier and Mishra 2025 (arXiv 2312.15063). "hopfield-conv": 5x5 convolutions and 2x2 maximum
pooling to 32 and 64 maps; published, 3x3 to 128, 256, 512 and 512 (Scellier, Ernoult, Kendall and Kumar 2023, arXiv
2312.15103). A free phase is eight sweeps, a nudged one a single sweep from the outputs back, which estimates smaller
gradients (`basins.py`) and learns better than eight. "vgg5": predictive coding at an eighth of the published width and
a quarter of its rate, with maximum pooling, by one error sweep a phase, which has the gradient of five published ones
to first order in beta (Kerjan, Hoier and Scellier 2026, arXiv 2606.03584); its images have a border of two zeros.
"oscillators": phases, clamped by pixels between -pi/2 and pi/2 (Rageau and Grollier 2025). These three see images that
are moved anew in every epoch, by up to one or two pixels each way.

Commands of their own have 2x784-1024-10 (`mnist.py`), 784-1024-10 (`hopfield.py`), oscillators that see images as they
are (`oscillator.py`) and spins (`ising.py`). Images are read from $GROUNDSTATE_DATA or the user's cache, or downloaded.
"""

from __future__ import annotations

import argparse
import functools
import math
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learning import EquilibriumPropagation, load_data
from learning.catalogue import optimiser
from learning.evaluation import Evaluation
from learning.examples import prepare
from learning.steps import Moving, Trainer
from substrates import ByPhase, HopfieldNetwork, OscillatorNetwork, PredictiveCodingNetwork, ResistorNetwork
from substrates.classical.hopfield.block_descent import BlockDescent
from substrates.classical.predictive_coding.error_sweep import ErrorSweep
from substrates.parameters import match_paths, split_parameters


@dataclass(frozen=True)
class Experiment:
    """A network, how it learns, and the test error that was published for its like, in percent.

    `rates` go by the paths of parameters. They fall by the factor `decay` every epoch; where it is None, along half a
    cosine to zero, with Nesterov's momentum of 0.9 or by Adam. `border` is the zeros around every image. Images are
    moved anew in every epoch by up to `moves` pixels each way.
    """

    published: str
    network: Callable[[Any], Any]
    rates: Mapping[str, float]
    epochs: int
    beta: float
    batch: int
    decay: float | None = None
    data: str = "mnist"
    border: int = 0
    moves: int = 0
    weight_decay: float = 0.0
    adam: bool = False

    def optimiser(self, net: Any, steps: int) -> optax.GradientTransformation:
        """Gradient descent with a rate for each layer; `steps` make an epoch."""
        if self.decay is not None:
            return optimiser("sgd", self.rates, self.decay, steps, net)
        paths = match_paths(self.rates, split_parameters(net)[0])
        scaled = optax.stateless(lambda g, _: jax.tree.map(lambda path, leaf: self.rates[path] * leaf, paths, g))
        cosine = optax.cosine_decay_schedule(1.0, self.epochs * steps)
        if self.adam:
            return optax.chain(optax.adam(cosine), scaled)
        decayed = optax.add_decayed_weights(self.weight_decay) if self.weight_decay else optax.identity()
        return optax.chain(decayed, scaled, optax.sgd(cosine, momentum=0.9, nesterov=True))


def resistive(*hidden: int, input_gain: float) -> Callable[[Any], Any]:
    return lambda key: ResistorNetwork.layered((784, *hidden, 10), key=key, input_gain=input_gain, dtype=jnp.float32)


def hopfield(*hidden: int, gain: float) -> Callable[[Any], Any]:
    return lambda key: HopfieldNetwork.layered((784, *hidden, 10), key=key, gain=gain, dtype=jnp.float32)


def convolutional(*channels: int, gain: float, free: int, nudged: int) -> Callable[[Any], Any]:
    settings: dict[str, Any] = {"pooling": "max", "kernel": 5, "padding": 0, "dtype": jnp.float32}

    def build(key: Any) -> Any:
        net = HopfieldNetwork.convolutional((28, 28, 1), channels, 10, key=key, gain=gain, **settings)
        return replace(net, solver=ByPhase(BlockDescent(sweeps=free), BlockDescent(sweeps=nudged)))

    return build


def oscillators(*hidden: int) -> Callable[[Any], Any]:
    settings: dict[str, Any] = {"phase_range": (-math.pi / 2, math.pi / 2), "readout": "sine", "dtype": jnp.float32}
    return lambda key: OscillatorNetwork.layered((784, *hidden, 10), key=key, **settings)


def vgg5(width: float, gain: float) -> Callable[[Any], Any]:
    settings: dict[str, Any] = {"rectifier": "buffered", "solver": ErrorSweep(sweeps=1), "dtype": jnp.float32}
    return lambda key: PredictiveCodingNetwork.vgg5((32, 32, 1), 10, key=key, width=width, gain=gain, **settings)


def conductances(*rates: float) -> dict[str, float]:
    return _by_layer("conductance", rates) | _by_layer("bias_current", rates) | {"rail_conductance": 0.0}


def couplings(*rates: float, biases: float = 0.1) -> dict[str, float]:
    return _by_layer("coupling", rates) | _by_layer("bias", tuple(biases * rate for rate in rates))


def weights(*rates: float) -> dict[str, float]:
    return _by_layer("coupling", rates) | _by_layer("bias", rates)


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
        "10.38", resistive(1024, input_gain=480.0), conductances(3e-4, 3e-3), 50, 1.0, 32, data="fashion-mnist"
    ),
    "hopfield-2": Experiment("1.65", hopfield(512, 512, gain=0.3), couplings(0.3, 0.2, 0.05), 20, 0.5, 16, 0.92),
    "hopfield-3": Experiment(
        "1.65", hopfield(512, 512, 512, gain=0.8), couplings(0.3, 0.2, 0.1, 0.05), 25, 0.5, 16, 0.93
    ),
    "hopfield-conv": Experiment(
        "under 0.6", convolutional(32, 64, gain=0.5, free=8, nudged=1), couplings(0.03, 0.015, 0.0075), 16, 0.5, 16,
        moves=1, weight_decay=3e-4,
    ),
    "oscillators": Experiment(
        "2.0", oscillators(500), {"coupling": 0.001, "field": 0.001, "field_phase": 0.001}, 40, 0.5, 50,
        moves=1, adam=True,
    ),
    "vgg5": Experiment(
        "0.32", vgg5(1 / 8, gain=1.7), weights(*(0.01,) * 6), 10, 0.02, 16, border=2, moves=2, weight_decay=3e-4
    ),
}  # fmt: skip


def bordered(pixels: np.ndarray, border: int) -> np.ndarray:
    wide = np.pad(pixels.reshape(-1, 28, 28), ((0, 0), (border, border), (border, border)))
    return wide.reshape(len(wide), -1)


@functools.partial(jax.jit, static_argnums=1)
def moved(images: jax.Array, pixels: int, key: jax.Array) -> jax.Array:
    """Each image, by up to so many pixels each way."""
    wide = jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * pixels + 1)
    return jax.vmap(lambda image, corner: jax.lax.dynamic_slice(image, (*corner, 0), images.shape[1:]))(wide, corners)


def percent(found: Evaluation) -> str:
    assert found.error is not None
    return f"{100 * found.error:.2f} %"


def after_each_epoch(trainer: Trainer, chosen: Experiment) -> Iterator[Moving]:
    """What moves, after each epoch of an experiment."""
    side, flat = 28 + 2 * chosen.border, trainer.examples.x.shape
    moving, images = trainer.initial, jnp.asarray(trainer.examples.x).reshape(-1, side, side, 1)
    for epoch in range(chosen.epochs):
        if chosen.moves:
            anew = moved(images, chosen.moves, jax.random.fold_in(trainer.key, epoch))
            trainer.standing = trainer.standing._replace(x=anew.reshape(flat))
        reached, moving = trainer.advance(trainer.begin_epoch(moving), trainer.order(epoch), 0, trainer.batches)
        if reached != trainer.batches:
            raise RuntimeError(f"epoch {epoch + 1} stopped at step {reached}: something was not finite")
        yield moving


def run(name: str, chosen: Experiment, seed: int, held_out: int, part: int | None) -> None:
    data = load_data(chosen.data, seed=seed, validation=held_out)
    judged = data.validation if held_out else data.test
    assert judged is not None
    net = chosen.network(jax.random.key(seed))
    shown = lambda pixels, labels: prepare(net, (bordered(pixels, chosen.border), labels))
    examples, judged = shown(*(half[:part] for half in data.train)), shown(*judged)
    steps, key = math.ceil(examples.size / chosen.batch), jax.random.key(seed + 100)
    rule, descent = EquilibriumPropagation(chosen.beta, strict=False), chosen.optimiser(net, steps)
    trainer = Trainer(net, rule, descent, examples, chosen.batch, key, strict=False)
    moving = trainer.initial
    began, clock = time.process_time(), time.perf_counter()
    for epoch, moving in enumerate(after_each_epoch(trainer, chosen), 1):
        wrong = f"{100 * float(moving.tally.wrong) / (steps * chosen.batch):.2f} % of training images wrong"
        failed = f"{int(moving.tally.failures.sum())} equilibria failed"
        if held_out:
            wrong += f", {percent(trainer.evaluate(moving, judged, key))} of those held out"
        print(f"epoch {epoch}: {wrong}, {failed}, {time.perf_counter() - clock:.0f} s", flush=True)
    end = ""
    if not held_out:
        end = f"test error {percent(trainer.evaluate(moving, judged, key))}, published {chosen.published}; "
    lasted = f"{time.process_time() - began:.0f} s of the process, {time.perf_counter() - clock:.0f} s of the clock"
    print(f"{name}, seed {seed}: {end}{chosen.epochs} epochs, {lasted}")


def listed(name: str, experiment: Experiment) -> str:
    """The settings of an experiment, in lines of up to 100 characters."""
    settings = {key: value for key, value in vars(experiment).items() if key not in ("published", "network", "rates")}
    rates = ", ".join(f"{path}={rate:g}" for path, rate in experiment.rates.items())
    shown = [f"{key} {value}" for key, value in settings.items()]
    lines = (", ".join(shown), f"rates {rates}")
    wrapped = (textwrap.fill(line, 100, initial_indent="    ", subsequent_indent=8 * " ") for line in lines)
    return "\n".join([f"{name}: {experiment.published} % of test images wrong, as published", *wrapped])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=EXPERIMENTS, help="which; without it they are listed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validation", type=int, default=0, help="hold out so many training images and look at them")
    parser.add_argument("--part", type=int, help="learn from the first so many images only")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--beta", type=float)
    parser.add_argument("--moves", type=int, help="move images anew in every epoch by up to so many pixels each way")
    parser.add_argument("--scale", type=float, default=1.0, help="a factor on all rates")
    options = parser.parse_args()
    if options.name is None:
        print(*(listed(name, experiment) for name, experiment in EXPERIMENTS.items()), sep="\n")
        return
    asked = {
        what: getattr(options, what)
        for what in ("epochs", "batch", "beta", "moves")
        if getattr(options, what) is not None
    }
    chosen = EXPERIMENTS[options.name]
    rates = {path: options.scale * rate for path, rate in chosen.rates.items()}
    run(options.name, replace(chosen, rates=rates, **asked), options.seed, options.validation, options.part)


if __name__ == "__main__":
    main()
