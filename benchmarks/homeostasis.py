"""What asymmetric weights cost equilibrium propagation, and what homeostasis of the Jacobian gives back: four panels.

    python benchmarks/homeostasis.py --figure homeostasis.png      # minutes on one core
    python benchmarks/homeostasis.py --strengths 1 10 100          # strengths of the penalty, on validation digits

1. The error of one gradient, of a chain of layers whose feedback weights stand at some angle to the forward ones, split
   into what the finite nudge adds, |g(beta) - g(0)|, which falls as beta^2, and what the asymmetry leaves,
   |g(0) - dC/dtheta|, which no nudge removes; g(0) by a circle of complex nudges.
2. Along the training of that chain, from 90 degrees: the angle between g(beta) and the exact gradient, with a penalty
   on the asymmetry of the Jacobian (`JacobianHomeostasis`), without it, and where the exact gradient trains.
3. The same of a loop, input -> A -> B -> outputs -> A, where no connection has one that leads back: the antisymmetric
   part of its Jacobian is as large as all its weights, which a strong penalty takes away.
4. Predictive coding by value and error neurons with feedback weights of their own, from 90 degrees: the error on
   validation digits and the symmetry of the Jacobian.

Small digits, cross-entropy; the strengths of the penalty were chosen on validation digits, the circuit's is that of the
chain. Validation digits are a fifth of the training ones, the test digits are not touched. The panels answer to figures
2 to 5 of Laborieux and Zenke 2024, arXiv 2309.02214, whose networks are larger.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from learning import (
    CrossEntropy,
    EquilibriumPropagation,
    HolomorphicEP,
    ImplicitGradient,
    JacobianHomeostasis,
    Tracking,
    fit,
    load_data,
)
from substrates import PredictiveCodingCircuit, RecurrentNetwork, start_session
from substrates.solvers.anderson import Anderson
from substrates.solvers.generic import Newton
from substrates.substrate import split_parameters

ANGLES = (0.0, 10.0, 30.0, 60.0, 90.0)
BETAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
CIRCLE = 0.1, 8
BATCH, RATE = 50, 0.01
NUDGE = {"chain": 0.25, "loop": 0.25, "predictive coding": 0.01}
STRENGTH = {"chain": 100.0, "loop": 1.0, "predictive coding": 100.0}
WAYS = ("exact gradient", "EP", "EP with homeostasis")
COST = CrossEntropy()


class Trusted(RecurrentNetwork):
    """Settles without a look at stability, which costs more than settling."""

    solver = Anderson(watchful=False)


class WithoutMatrix(PredictiveCodingCircuit):
    """Settles by Newton's method without a matrix: decomposing each Jacobian takes six times as long."""

    solver = Newton(dense_size=0)


class Training(NamedTuple):
    """What was seen before training and after each epoch.

    Attributes:
        error: the part of the validation digits that is wrong; from the first epoch on.
        angle: between the gradient of equilibrium propagation and the exact one, degrees.
        symmetry: |S| / (|S| + |A|) of the Jacobian.
    """

    error: np.ndarray
    angle: np.ndarray
    symmetry: np.ndarray


def chain(hidden: int, angle: float, seed: int) -> RecurrentNetwork:
    return Trusted.layered((64, hidden, 10), key=jax.random.key(seed), angle=angle, gain=(1.0, 2.0))


def network(name: str, hidden: int, seed: int) -> Any:
    if name == "chain":
        return chain(hidden, 90.0, seed)
    if name == "loop":
        joined = [(0, 1), (1, 2), (2, 3), (3, 1)]
        return Trusted.from_connections((64, hidden, hidden, 10), joined, key=jax.random.key(seed), gain=2.0)
    return WithoutMatrix.layered((64, hidden, 10), key=jax.random.key(seed), angle=90.0)


def some(data: Any, count: int) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(data.train[0][:count]), jax.nn.one_hot(jnp.asarray(data.train[1][:count]), 10)


def split(data: Any, hidden: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What finite nudges add, shape (angles, betas), and what asymmetry leaves, (angles,): parts of the gradient."""
    x, y = some(data, BATCH)
    finite, lasting = [], []
    for angle in ANGLES:
        net = chain(hidden, angle, seed)
        flat = lambda rule, net=net: ravel_pytree(split_parameters(rule(net, x, y).gradient)[0])[0]
        exact, limit = flat(ImplicitGradient(COST)), flat(HolomorphicEP(*CIRCLE, cost=COST))
        part = lambda error, exact=exact: float(jnp.linalg.norm(error) / jnp.linalg.norm(exact))
        finite.append([part(flat(EquilibriumPropagation(beta, cost=COST)) - limit) for beta in BETAS])
        lasting.append(part(limit - exact))
    return np.array(finite), np.array(lasting)


def trained(data: Any, name: str, way: str, strength: float, hidden: int, epochs: int, seed: int) -> Training:
    """One network trained in one of the `WAYS`."""
    plain = EquilibriumPropagation(NUDGE[name], cost=COST, strict=False)
    penalised = JacobianHomeostasis(plain, strength)
    rule = dict(zip(WAYS, (ImplicitGradient(COST, strict=False), plain, penalised), strict=True))[way]
    look = Tracking(plain, *some(data, BATCH), key=jax.random.key(seed))
    net = network(name, hidden, seed)
    before = look(net)
    run = fit(
        net,
        rule,
        data.train,
        optimiser=optax.adam(RATE),
        epochs=epochs,
        batch_size=BATCH,
        validation=data.validation,
        observe=look,
        key=jax.random.key(seed + 100),
        progress=False,
    )
    along = {key: np.array([before[key], *run.history[key]], float) for key in ("angle", "symmetry")}
    return Training(np.array(run.history["validation_error"], float), along["angle"], along["symmetry"])


def draw(file: str, bias: tuple[np.ndarray, np.ndarray], seen: dict[str, dict[str, Training]]) -> None:
    """The four panels, as a picture in a file."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    for k, angle in enumerate(ANGLES):
        (line,) = axes[0, 0].loglog(BETAS, bias[0][k], "o-", label=f"{angle:g} degrees")
        if bias[1][k] > 1e-8:
            axes[0, 0].axhline(bias[1][k], ls="--", color=line.get_color())
    axes[0, 0].set(
        title="chain, untrained: finite nudge (dots), asymmetry (dashed)", xlabel="beta", ylabel="part of the gradient"
    )
    for ax, name in ((axes[0, 1], "chain"), (axes[1, 0], "loop")):
        for way, training in seen[name].items():
            ax.plot(training.angle, "o-", ms=3, label=f"{way}: {100 * training.error[-1]:.1f} % wrong")
        ax.set(title=f"{name}: angle of EP to the exact gradient", xlabel="epoch", ylabel="degrees", ylim=(0, None))
    right = axes[1, 1].twinx()
    for way, training in seen["predictive coding"].items():
        epochs = np.arange(1, len(training.error) + 1)
        (line,) = axes[1, 1].plot(epochs, 100 * training.error, "o-", ms=3, label=way)
        right.plot(training.symmetry, "--", color=line.get_color())
    axes[1, 1].set(title="predictive coding circuit", xlabel="epoch", ylabel="validation digits wrong, %")
    right.set(ylabel="symmetry of the Jacobian (dashed)", ylim=(0.5, 1.02))
    for ax in axes.flat:
        ax.legend(frameon=False, fontsize=8)
    axes[1, 1].legend(frameon=False, fontsize=8, loc="center", bbox_to_anchor=(0.6, 0.75))
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", metavar="PNG", help="where to draw the four panels")
    parser.add_argument("--strengths", type=float, nargs="+", help="try these strengths of the penalty, and no more")
    parser.add_argument("--only", nargs="+", choices=list(NUDGE), default=list(NUDGE), help="of the trained networks")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.figure and set(options.only) != set(NUDGE):
        parser.error("--figure: wants all networks, leave --only out")
    start_session()
    data, sizes = load_data("digits", seed=0, validation=0.2), (options.hidden, options.epochs, options.seed)
    if options.strengths:
        for name in options.only:
            for strength in options.strengths:
                tell(f"{name}, strength {strength:g}", trained(data, name, WAYS[2], strength, *sizes))
        return
    bias = split(data, options.hidden, options.seed)
    print(f"nudges {', '.join(map(str, BETAS))}; errors in parts of the gradient of the untrained chain")
    for angle, finite, lasting in zip(ANGLES, *bias, strict=True):
        parts = ", ".join(f"{part:.1e}" for part in finite)
        print(
            f"{angle:g} degrees: finite nudges add {parts} (beta {BETAS}), asymmetry leaves {lasting:.1e}", flush=True
        )
    seen: dict[str, dict[str, Training]] = {}
    for name in options.only:
        seen[name] = {}
        for way in WAYS:
            began = time.process_time()
            seen[name][way] = trained(data, name, way, STRENGTH[name], *sizes)
            tell(f"{name}, {way}, {time.process_time() - began:.0f} s of processor time", seen[name][way])
    if options.figure:
        draw(options.figure, bias, seen)


def tell(what: str, training: Training) -> None:
    ends = lambda values: f"{values[0]:.2f} -> {values[-1]:.2f}"
    print(
        f"{what}: {100 * training.error[-1]:.1f} % of validation wrong, angle {ends(training.angle)} degrees, "
        f"symmetry {ends(training.symmetry)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
