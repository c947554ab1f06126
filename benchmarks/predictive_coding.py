"""Predictive coding networks against back-propagation on the same network: gradients, cost of a step, MNIST.

    python benchmarks/predictive_coding.py --gradients      # exact after K = L sweeps, not before
    python benchmarks/predictive_coding.py --float32        # float32 against float64 at the published beta
    python benchmarks/predictive_coding.py --steps dense    # time of a step over one of back-propagation
    python benchmarks/predictive_coding.py --choose dense   # learning rates, on validation data
    python benchmarks/predictive_coding.py --train dense    # MNIST, all rules and seeds
    python benchmarks/predictive_coding.py --train convolutional --rules backpropagation centered --seeds 0

Networks: "dense" is 784-256-256-10, "convolutional" is 3x3 convolutions of 8 and 16 channels, each with 2x2 maximum
pooling, then 10 outputs. Squared error, SGD with Nesterov momentum 0.9, cosine decay to zero, batches of 64, float32.
The learning rate was chosen for back-propagation on 5,000 validation images held out of the training ones (--choose),
and serves every rule; beta is the published 0.02. The figures train on all 60,000 training images, from the same
weights and in the same order for every rule, and evaluate the official test images once, at the end. Rules settle by
one error sweep; "published" is the centred rule on the bounded network, settled by K = L sweeps of the modified
projected gradient. MNIST is read from $GROUNDSTATE_DATA/mnist or the user's cache, or downloaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from floor import Floor
from jax.flatten_util import ravel_pytree

from learning import EquilibriumPropagation, SquaredError, fit, load_data
from learning.examples import prepare
from learning.rule import Estimate, Estimator
from learning.steps import Trainer
from substrates import Equilibrium, Nudge, PredictiveCodingNetwork, Status
from substrates.classical.predictive_coding.error_sweep import ErrorSweep
from substrates.classical.predictive_coding.projected_gradient import ProjectedGradient
from substrates.substrate import split_parameters

BETA = 0.02
EPOCHS = {"dense": 5, "convolutional": 3}
RATES = {"dense": 0.2, "convolutional": 0.05}
TRIED = {"dense": (0.05, 0.1, 0.2, 0.4), "convolutional": (0.02, 0.05, 0.1, 0.2)}
RULES = ("backpropagation", "centered", "positive", "random", "published")
ONE_SWEEP = ErrorSweep(sweeps=1)


class BackPropagation(Estimator):
    """The gradient of the mean cost of the forward pass, by automatic differentiation through it."""

    cost: Any = SquaredError()

    def __call__(self, substrate, x, y, *, key=None):
        parameters, rest = split_parameters(substrate)

        def loss(parameters):
            net = eqx.combine(parameters, rest)
            output = jax.vmap(lambda x: net.predict(x)[-1])(x)
            return jnp.mean(jax.vmap(self.cost)(output, y)), output

        (cost, output), gradient = jax.value_and_grad(loss, has_aux=True)(parameters)
        return Estimate(gradient, cost, output, (_nothing_settled(len(x), output.dtype),), relaxations=0)


def _nothing_settled(size: int, dtype: Any) -> Equilibrium:
    """What the log of a run reads of equilibria, for a rule that has none."""
    zeros = jnp.zeros(size, dtype)
    status = jax.vmap(lambda zero: Status.where(zero == 0, Status.converged, Status.not_finite))(zeros)
    return Equilibrium((), zeros, zeros, zeros.astype(jnp.int32), status)


def network(kind: str, seed: int, solver=None, **options):
    key = jax.random.key(seed)
    if kind == "dense":
        return PredictiveCodingNetwork.dense((784, 256, 256, 10), key=key, solver=solver, **options)
    return PredictiveCodingNetwork.convolutional(
        (28, 28, 1), (8, 16), (10,), key=key, pooled=(1, 2), solver=solver, **options
    )


def contender(kind: str, name: str, seed: int):
    """(network, rule) of a name."""
    if name == "backpropagation":
        return network(kind, seed), BackPropagation()
    if name == "published":
        return network(kind, seed, ProjectedGradient(sweeps=3), rectifier="bounded"), EquilibriumPropagation(BETA)
    return network(kind, seed, ONE_SWEEP), EquilibriumPropagation(BETA, name)


def train(kind: str, name: str, seed: int, epochs: int, rate: float, validation: int, batch: int = 64) -> Any:
    data = load_data("mnist", seed=seed, validation=validation)
    net, rule = contender(kind, name, seed)
    steps = epochs * -(-len(data.train[1]) // batch)
    optimiser = optax.sgd(optax.cosine_decay_schedule(rate, steps), momentum=0.9, nesterov=True)
    return fit(
        net,
        rule,
        data.train,
        optimiser=optimiser,
        epochs=epochs,
        batch_size=batch,
        validation=data.validation,
        test=None if validation else data.test,
        key=jax.random.key(1000 + seed),
        progress=False,
    )


def report(kind: str, rules: Sequence[str], seeds: Sequence[int], epochs: int) -> None:
    found: dict[str, list[float]] = {name: [] for name in rules}
    for seed in seeds:
        for name in rules:
            began = time.perf_counter()
            run = train(kind, name, seed, epochs, RATES[kind], 0)
            found[name].append(100 * run.test.error)
            print(
                f"{kind} {name:16} seed {seed}: test error {found[name][-1]:.2f} %, training error "
                f"{100 * float(run.history['error'][-1]):.3f} %, {epochs} epochs, {time.perf_counter() - began:.0f} s",
                flush=True,
            )
    print(f"{kind}, {epochs} epochs, test error in %, mean of {len(seeds)} seeds (from the smallest to the largest)")
    for name, errors in found.items():
        paired = [e - b for e, b in zip(errors, found[rules[0]], strict=True)]
        print(
            f"  {name:16} {statistics.mean(errors):.3f} ({min(errors):.2f} to {max(errors):.2f}), "
            f"{statistics.mean(paired):+.3f} against {rules[0]}"
        )


def choose(kind: str) -> None:
    for rate in TRIED[kind]:
        run = train(kind, "backpropagation", 0, EPOCHS[kind], rate, 5000)
        errors = 100 * np.asarray(run.history["validation_error"])
        print(f"{kind} back-propagation, rate {rate}: validation error {errors[-1]:.2f} % (best {errors.min():.2f})",
              flush=True)  # fmt: skip


def gradients() -> None:
    """The error of the centred gradient after K sweeps of each scheme, in float64."""
    x = jax.random.normal(jax.random.key(1), (8, 192))
    y = jax.nn.one_hot(jnp.arange(8) % 10, 10)
    nets = {
        "dense 192-64-64-64-64-10": PredictiveCodingNetwork.dense((192, 64, 64, 64, 64, 10), key=jax.random.key(0)),
        "8x8x3, 8-P, 16, 16-P, 32, dense 10, skips 0-3 and 1-4": PredictiveCodingNetwork.convolutional(
            (8, 8, 3), (8, 16, 16, 32), (10,), key=jax.random.key(0), pooled=(1, 3), skips=((0, 3), (1, 4))
        ),
    }
    beta = 1e-4

    @eqx.filter_jit
    def swept(net, solver):
        state = lambda x, y, b: net.relax(x, Nudge(SquaredError(), y, b), solver=solver).state
        plus, minus = (jax.vmap(lambda x, y, b=b: state(x, y, b))(x, y) for b in (beta, -beta))
        return ravel_pytree(net.contrast(plus, minus, x))[0] / (2 * beta)

    print(f"relative error of the centred gradient against back-propagation, float64, beta {beta:.0e}, L = 5")
    for title, net in nets.items():
        exact = ravel_pytree(BackPropagation()(net, x, y).gradient)[0]
        print(f"  {title}\n    scheme                       K = 1" + "".join(f"{k:9}" for k in range(2, 8)))
        schemes = {  # a number of sweeps that is an array compiles once
            "modified, bounded": ("bounded", lambda k: ProjectedGradient(sweeps=jnp.asarray(k))),
            "projected, bounded": ("bounded", lambda k: ProjectedGradient(sweeps=jnp.asarray(k), modified=False)),
            "projected, buffered": ("buffered", lambda k: ProjectedGradient(sweeps=jnp.asarray(k))),
            "synchronous, buffered": ("buffered", lambda k: ProjectedGradient(jnp.asarray(k), synchronous=True)),
            "error sweeps, buffered": ("buffered", lambda k: ErrorSweep(sweeps=k)),
        }
        for name, (rectifier, solver) in schemes.items():
            errors = []
            for k in range(1, 3 if name.startswith("error") else 8):
                found = swept(dataclasses.replace(net, rectifier=rectifier), solver(k))
                errors.append(float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)))
            print(f"    {name:24}" + "".join(f" {e:8.0e}" for e in errors), flush=True)


def rounding(seeds: int) -> None:
    """The cosine of the float32 gradient of each layer with the float64 one, batch 64."""
    data = load_data("mnist", validation=0)
    print(f"float32 against float64 at the same beta, worst layer and worst of {seeds} batches, trained for 300 steps:")
    for kind in ("dense", "convolutional"):
        for beta in (0.1, 0.02, 2e-3, 2e-4):
            worst = {"centered": 1.0, "positive": 1.0}
            for seed in range(seeds):
                net = _trained(kind, seed, data, 300)
                index = np.random.default_rng(seed).integers(0, 60_000, 64)
                x, y = data.train[0][index], np.eye(10)[data.train[1][index]]
                for variant in worst:
                    found = [_gradient(net, x, y, beta, variant, dtype) for dtype in (jnp.float32, jnp.float64)]
                    for a, b in zip(*found, strict=True):
                        a, b = (np.asarray(v, float).ravel() for v in (a, b))
                        worst[variant] = min(worst[variant], a @ b / np.linalg.norm(a) / np.linalg.norm(b))
            print(f"  {kind:14} beta {beta:.0e}: 1 - cosine " + ", ".join(f"{v} {1 - c:.1e}" for v, c in worst.items()),
                  flush=True)  # fmt: skip


_networks: dict[tuple[str, int], Any] = {}


def _trained(kind: str, seed: int, data: Any, steps: int) -> Any:
    if (kind, seed) not in _networks:
        net = network(kind, seed, ONE_SWEEP, dtype=jnp.float32)
        part = (data.train[0][: 64 * steps], data.train[1][: 64 * steps])
        optimiser = optax.sgd(RATES[kind], momentum=0.9, nesterov=True)
        run = fit(net, BackPropagation(), part, optimiser=optimiser, epochs=1, batch_size=64,
                  key=jax.random.key(seed), progress=False)  # fmt: skip
        _networks[kind, seed] = run.substrate
    return _networks[kind, seed]


def _gradient(net: Any, x: Any, y: Any, beta: float, variant: Any, dtype: Any) -> list[Any]:
    cast = lambda leaf: jnp.asarray(leaf, dtype) if eqx.is_inexact_array(leaf) or isinstance(leaf, np.ndarray) else leaf
    estimate = EquilibriumPropagation(beta, variant)(jax.tree.map(cast, net), cast(x), cast(y))
    return jax.tree.leaves(estimate.gradient)


def seconds_per_step(kind: str, rounds: int, steps: int = 30) -> None:
    """One step of each rule, taking turns, through the compiled steps that `fit` runs, batch 64, float32.

    The floor of the dense network does what one error sweep per phase needs, and no more: the free phase multiplies
    with every coupling once, a nudged one with all but the first once back and once forth, and all are updated once.
    """
    data = load_data("mnist", validation=0)
    part = (data.train[0][:4096], data.train[1][:4096])
    contestants, times = {}, {}
    systems = {
        "back-propagation": contender(kind, "backpropagation", 0),
        "positive, one error sweep": (network(kind, 0, ONE_SWEEP), EquilibriumPropagation(BETA, "positive")),
        "centred, one error sweep": (network(kind, 0, ONE_SWEEP), EquilibriumPropagation(BETA)),
        "centred, published K = L = 3": contender(kind, "published", 0),
    }
    if kind == "dense":
        systems["centred, until converged"] = (network(kind, 0), EquilibriumPropagation(BETA))
    for name, (net, rule) in systems.items():
        optimiser = optax.sgd(RATES[kind], momentum=0.9, nesterov=True)
        trainer = Trainer(net, rule, optimiser, prepare(net, part), 64, jax.random.key(1), True)
        contestants[name] = [trainer, trainer.initial, trainer.order(0)]
        times[name] = []
    floor, least = Floor((784, 256, 256, 10), 64, (1, 5, 5)), []
    for turn in range(rounds + 1):
        if turn and kind == "dense":
            least.append(floor.seconds())
        for name, contestant in contestants.items():
            trainer, moving, order = contestant
            began = time.perf_counter()
            reached, moving = trainer.advance(moving, order, 0, steps)
            jax.block_until_ready(moving)
            if reached != steps:
                raise RuntimeError(f"{name}: training stopped at step {reached}")
            contestant[1] = moving
            if turn:  # the first turn compiles
                times[name].append((time.perf_counter() - began) / steps)
    base = statistics.median(times["back-propagation"])
    print(f"{kind}, batch 64, medians of {rounds} rounds of {steps} steps")
    for name, values in times.items():
        middle = statistics.median(values)
        above = f", {middle / statistics.median(least):5.2f} times the floor" if least else ""
        print(f"  {name:30} {1e3 * middle:8.2f} ms, {middle / base:5.2f} times back-propagation{above}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gradients", action="store_true", help="errors against back-propagation, sweep by sweep")
    parser.add_argument("--float32", action="store_true", help="what float32 leaves of the gradient")
    parser.add_argument("--steps", choices=tuple(EPOCHS), help="time per step")
    parser.add_argument("--choose", choices=tuple(EPOCHS), help="try learning rates on validation data")
    parser.add_argument("--train", choices=tuple(EPOCHS), help="train and report the test error")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=RULES, help="the first one is compared with")
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2, 3, 4))
    parser.add_argument("--epochs", type=int, help="other than the standard number")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if options.gradients or options.float32:
        jax.config.update("jax_enable_x64", True)
    if options.gradients:
        gradients()
    if options.float32:
        rounding(3)
    if options.steps:
        seconds_per_step(options.steps, options.rounds)
    if options.choose:
        choose(options.choose)
    if options.train:
        report(options.train, options.rules, options.seeds, options.epochs or EPOCHS[options.train])
    if not any((options.gradients, options.float32, options.steps, options.choose, options.train)):
        parser.error("ask for --gradients, --float32, --steps NETWORK, --choose NETWORK or --train NETWORK")


if __name__ == "__main__":
    main()
