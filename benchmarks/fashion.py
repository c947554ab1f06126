"""The seven rules of the comparative study on a task that is not easy: Fashion-MNIST by 784-128-128-10.

    python benchmarks/fashion.py --seeds 0 1 2

Contrastive learning; equilibrium propagation and coupled learning with positive, negative and centred nudges of 1/2.
Of a seed all rules get the same initial network (couplings uniform in 0.4 / sqrt(fan-in)), the same 54,000 training
images in the same order, and five epochs of batches of 32. Plain gradient descent at rates in the ratio 0.3, 0.1, 0.05
for the three couplings, a tenth of that for the biases, times 0.7 per epoch; how large they are (1 or 1/3 of these)
each rule has chosen for it on the first seed by 6,000 validation images. The 10,000 test images are evaluated once a
run, at the end. Published, on a convolutional network: all alike on MNIST; here negative nudges better than positive
ones, the centred ones best (Scellier, Ernoult, Kendall and Kumar 2023, arXiv 2312.15103).

Fashion-MNIST is read from $GROUNDSTATE_DATA/fashion-mnist or the user's cache, or downloaded.
"""

from __future__ import annotations

import argparse
import statistics

import jax

from learning import ContrastiveLearning, CoupledLearning, EquilibriumPropagation, Run, fit, load_data
from learning.catalogue import optimiser
from learning.rule import Estimator
from substrates import HopfieldNetwork
from substrates.session import keep_compiled

SIZES = (784, 128, 128, 10)
GAIN = 0.4
STRENGTH = 0.5
BATCH = 32
EPOCHS = 5
RATES = (0.3, 0.1, 0.05)
DECAY = 0.7
SCALES = (1.0, 1 / 3)
RULES: dict[str, Estimator] = {
    "contrastive": ContrastiveLearning(strict=False),
    **{
        f"EP, {name}": EquilibriumPropagation(STRENGTH, name, strict=False)
        for name in ("positive", "negative", "centered")
    },
    **{
        f"coupled, {name}": CoupledLearning(STRENGTH, name, strict=False)
        for name in ("positive", "negative", "centered")
    },
}


def trained(name: str, seed: int, scale: float, examined: bool) -> Run:
    """A run that says its validation error after every epoch, and its test error if it is to be examined."""
    data = load_data("fashion-mnist", seed=seed)
    net = HopfieldNetwork.layered(SIZES, key=jax.random.key(seed), gain=GAIN)
    rates = {f"coupling[{k}]": scale * rate for k, rate in enumerate(RATES)}
    rates |= {f"bias[{k}]": scale * rate / 10 for k, rate in enumerate(RATES)}
    return fit(
        net,
        RULES[name],
        data.train,
        optimiser=optimiser("sgd", rates, DECAY, -(-len(data.train[1]) // BATCH), net),
        epochs=EPOCHS,
        batch_size=BATCH,
        validation=data.validation,
        test=data.test if examined else None,
        key=jax.random.key(seed + 100),
        progress=False,
    )


def study(names: list[str], seeds: list[int]) -> None:
    for name in names:
        tried = {}
        for scale in SCALES:
            run = trained(name, seeds[0], scale, examined=False)
            tried[scale] = float(run.history["validation_error"][-1])
            print(f"{name}, rates times {scale:.2g}: {100 * tried[scale]:.2f} % of validation images wrong", flush=True)
        best = min(tried, key=lambda scale: tried[scale])
        errors = []
        for seed in seeds:
            run = trained(name, seed, best, examined=True)
            assert run.test is not None
            assert run.test.accuracy is not None
            errors.append(100 * (1 - run.test.accuracy))
        spread = f" +- {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
        shown = ", ".join(f"{error:.2f}" for error in errors)
        print(f"{name}: {statistics.mean(errors):.2f}{spread} % of test images wrong ({shown})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES), metavar="NAME")
    options = parser.parse_args()
    keep_compiled()
    study(options.rules, options.seeds)


if __name__ == "__main__":
    main()
