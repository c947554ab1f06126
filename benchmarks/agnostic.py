"""Agnostic equilibrium propagation by the five verbs: slopes, the cost of a step, imperfect laboratories, data.

    python benchmarks/agnostic.py --slopes      # the step against gradient descent, on eight substrates (minutes)
    python benchmarks/agnostic.py --cost        # a step beside one of centred equilibrium propagation (a minute)
    python benchmarks/agnostic.py --noise       # iris against read noise, bits of knobs and dead knobs (half an hour)
    python benchmarks/agnostic.py --digits 0    # resistors 64-512-10, seed 0: test accuracy (20 minutes)
    python benchmarks/agnostic.py --mnist 0     # Hopfield network 784-2048-10, seed 0: test error (8 minutes)

Slopes: one example, float64, knobs known in closed form (`SelfControl`). In epsilon, at a tenth of the largest
beta, against the estimate of equilibrium propagation between the same two nudges; in beta, at 1e-4 of the largest
epsilon, against the exact gradient by the implicit function theorem. Errors are relative 2-norms over all parameters.

Noise: a Hopfield network 4-16-3 behind imperfect meters and knobs from -4 to 4; 108 flowers to learn from, three
epochs, parameters held by read-back alone; accuracy of the network that results on 30 test flowers, mean of three
seeds. Order zero is simultaneous perturbation of all knobs of the same system on the cost that its meters show, two
settles each time, for as many settles as agnostic learning took; its steps were chosen on validation flowers without
noise.

Digits: one example per step, knobs that become stiffer by 10 % per epoch; settings chosen by the validation error of
ordinary equilibrium propagation with plain descent at the same rates.

MNIST: all 60,000 training images less their mean, in an order that the seed draws; the official 10,000 test images
evaluated once, at the end. Sixteen copies share the parameters; knobs become stiffer by 7 % per epoch. Settings chosen
by the error on 5,000 images set aside of the training images, seed 0. MNIST is read from
$GROUNDSTATE_DATA/mnist or the user's cache, or downloaded.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from learning import (
    AgnosticEP,
    EquilibriumPropagation,
    ImplicitGradient,
    IntegralControl,
    SelfControl,
    evaluate,
    fit,
    load_data,
)
from substrates import (
    ElasticNetwork,
    HopfieldNetwork,
    Noisy,
    OscillatorNetwork,
    Plant,
    QuantumOscillatorNetwork,
    ResistorNetwork,
    Shockley,
    TransverseFieldIsing,
)
from substrates.substrate import split_parameters

flat = lambda tree: np.asarray(ravel_pytree(split_parameters(tree)[0])[0])


def systems() -> Iterator[tuple[str, Any, np.ndarray, np.ndarray, float, float]]:
    """(name, substrate, x, y, the largest epsilon, the largest beta) of every kind."""
    key, draw = jax.random.key(0), np.random.default_rng(0)
    edges = [(0, 2), (0, 3), (1, 3), (1, 4), (2, 3), (3, 4), (2, 5), (3, 5), (4, 5)]
    ends = {"n": 6, "inputs": [0, 1], "outputs": [5]}
    siemens = jnp.linspace(0.5, 1.5, 9)
    diode = {"diodes": [(2, 4), (3, 5)], "diode": Shockley(jnp.asarray(0.1), jnp.asarray(0.1))}
    two, one = np.array([1.0, 0.5]), np.array([0.2])
    yield "resistors", ResistorNetwork.from_edges(edges, **ends, conductance=siemens), two, one, 0.1, 1.0
    rectifying = ResistorNetwork.from_edges(edges, **ends, conductance=siemens, **diode)
    yield "resistors and diodes", rectifying, two, one, 0.1, 1.0
    deep = ResistorNetwork.for_task(2, 1, sizes=(6,), key=key)
    deep = eqx.tree_at(lambda net: net.conductance, deep, tuple(g + 0.1 for g in deep.conductance))
    yield "deep resistors", deep, two, one, 1e-3, 0.3
    yield "elastic", ElasticNetwork.for_task(2, 2, sizes=(4,), key=key), two, np.array([0.1, -0.1]), 0.1, 1e-4
    yield "oscillators", OscillatorNetwork.for_task(2, 2, sizes=(6,), key=key), two, np.array([0.5, -0.5]), 0.01, 0.5
    yield "Hopfield", HopfieldNetwork.layered((2, 6, 2), key=key), two, np.array([0.5, -0.5]), 0.01, 0.5
    spins = TransverseFieldIsing.from_edges(
        [(i, j) for i in range(5) for j in range(i)], coupling=draw.normal(size=10), longitudinal_field=0.3,
        transverse_field=draw.uniform(0.5, 1.5, 5), inputs=(0, 1), outputs=(3, 4),
    )  # fmt: skip
    yield "quantum spins", spins, two, np.array([0.5, -0.5]), 0.01, 0.3
    masses = QuantumOscillatorNetwork.for_task(2, 2, sizes=(3,), key=key)
    yield "quantum oscillators", masses, two / 10, one.repeat(2), 0.01, 0.3


def step(system: Any, x: np.ndarray, y: np.ndarray, epsilon: float, beta: float, variant: Any) -> np.ndarray:
    """-(theta_new - theta)/(epsilon beta)."""
    plant = Plant(system, epsilon, inputs=len(x))
    before = plant.read().parameters
    AgnosticEP(beta, variant, SelfControl()).step(plant, x[None], y[None])
    return (before - plant.read().parameters) / (epsilon * beta)


def fitted(sizes: np.ndarray, errors: list[float], floor: float) -> str:
    """The slope of errors over sizes, where they are above a floor, with the number of decades."""
    use = np.asarray(errors) > floor
    if use.sum() < 2:
        return f"no bias above {floor:.0e}"
    slope = np.polyfit(np.log(sizes[use]), np.log(np.asarray(errors)[use]), 1)[0]
    return f"{slope:.2f} over {np.log10(sizes[use].max() / sizes[use].min()):.1f} decades"


def slopes() -> None:
    off = lambda found, wanted: float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
    parts = 10.0 ** np.arange(0, -3.1, -0.5)
    for name, system, x, y, most_epsilon, most_beta in systems():
        exact = flat(ImplicitGradient()(system, x[None], y[None]).gradient)
        bias = []
        for variant in ("optimistic", "centered"):
            # of the centred bias only the first decades are above what the states are settled to
            betas = most_beta * (parts if variant == "optimistic" else 10.0 ** np.arange(0, -2.1, -0.5))
            errors = [off(step(system, x, y, 1e-4 * most_epsilon, beta, variant), exact) for beta in betas]
            bias.append(f"{variant} {fitted(betas, errors, 2e-4 * errors[0])} (least error {min(errors):.0e})")
        beta = 0.1 * most_beta
        between = EquilibriumPropagation(beta / 2, "centered")(system, x[None], y[None])
        epsilons = most_epsilon * parts
        errors = [off(step(system, x, y, e, beta, "centered"), flat(between.gradient)) for e in epsilons]
        print(f"{name:20} slope in beta: {'; '.join(bias)}; in epsilon {fitted(epsilons, errors, 1e-7)} "
              f"({errors[0]:.0e} to {errors[-1]:.0e})", flush=True)  # fmt: skip


def cost(rounds: int, steps: int = 256) -> None:
    """A step of agnostic EP in `fit`, homeostasis included, over one of centred EP with plain descent."""
    key = jax.random.key(0)
    hopfield = lambda *sizes: HopfieldNetwork.layered(sizes, key=key)
    for title, system, copies, epsilon, beta in (
        ("Hopfield 64-256-10, 16 copies", hopfield(64, 256, 10), 16, 0.02, 0.5),
        ("Hopfield 784-2048-10, 16 copies", hopfield(784, 2048, 10), 16, 0.02, 0.5),
        ("resistors 64-256-10, 16 copies", ResistorNetwork.for_task(64, 10, key=key), 16, 5e-6, 1.0),
    ):
        draw = np.random.default_rng(0)
        data = draw.uniform(-0.5, 0.5, (steps * copies, system.input_size)), draw.integers(10, size=steps * copies)
        descent, usual = optax.sgd(epsilon * beta), EquilibriumPropagation(beta / 2, "centered", strict=False)
        known, found = (AgnosticEP(beta, "centered", hold, strict=False) for hold in (SelfControl(), IntegralControl()))
        times: dict[str, list[float]] = {"known knobs": [], "centred EP": [], "read-back": []}
        for turn in range(rounds + 1):
            for name, rule in (("known knobs", known), ("centred EP", usual), ("read-back", found)):
                bench = system if name == "centred EP" else Plant(system, epsilon, copies=copies)
                optimiser = descent if name == "centred EP" else None
                count = steps // 16 if name == "read-back" else steps
                part = tuple(values[: count * copies] for values in data)
                options = {"optimiser": optimiser, "epochs": 2, "batch_size": copies, "key": key, "progress": False}
                run = fit(bench, rule, part, **options)
                if turn:
                    times[name].append(run.epoch_seconds[-1] / count)
        centred = times["centred EP"]
        ratios = {n: statistics.median(a / c for a, c in zip(t, centred, strict=True)) for n, t in times.items()}
        shown = ", ".join(f"{name} {1e3 * statistics.median(values):.2f} ms" for name, values in times.items())
        print(f"{title}: {shown}; over centred EP {ratios['known knobs']:.2f} (wanted 1.7), by read-back "
              f"{ratios['read-back']:.0f}", flush=True)  # fmt: skip


class Counted:
    """A system that counts how often it settles."""

    def __init__(self, system: Any):
        self.system, self.settles = system, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.system, name)

    def settle(self) -> Any:
        self.settles += 1
        return self.system.settle()


def simultaneous_perturbation(
    system: Counted, x: np.ndarray, y: np.ndarray, settles: int, seed: int, rate: float = 1e-3, size: float = 0.1
) -> None:
    """Order zero: knobs move against the change of the cost that a random change of all knobs made."""
    draw, (lower, upper) = np.random.default_rng(seed), (system.spec.knobs.lower, system.spec.knobs.upper)
    u = system.read().knobs.copy()

    def shown(knobs: np.ndarray, target: np.ndarray) -> float:
        system.set_knobs(np.clip(knobs, lower, upper))
        system.settle()
        return 0.5 * float(np.sum((system.read().outputs - target) ** 2))

    while system.settles < settles:
        k = int(draw.integers(len(x)))
        system.clamp(x[k])
        change = size * draw.choice([-1.0, 1.0], size=u.size)
        slope = (shown(u + change, y[k]) - shown(u - change, y[k])) / 2
        u = np.clip(u - rate * slope / size**2 * change, lower, upper)
    system.set_knobs(u)
    system.clamp(None)
    system.settle()


def imperfect(seed: int, settings: dict[str, Any], part: str = "test", **order_zero: float) -> tuple[float, float, int]:
    """(accuracy by agnostic EP, accuracy at order zero, settles) of one imperfect laboratory."""
    data = load_data("iris", seed=seed)
    assert data.train is not None
    x, y = np.asarray(data.train[0], float), np.eye(3)[np.asarray(data.train[1])]
    right = []
    for agnostic in (True, False):
        plant = Plant(HopfieldNetwork.layered((4, 16, 3), key=jax.random.key(seed)), 0.03, knob_range=(-4, 4))
        bench = Counted(Noisy(plant, seed=seed, **settings))
        if agnostic:
            rule = AgnosticEP(1.0, "optimistic", IntegralControl(max_rounds=15), strict=False)
            fit(bench, rule, data.train, epochs=3, key=jax.random.key(seed), progress=False)
            settles = bench.settles
        else:
            simultaneous_perturbation(bench, x, y, settles, seed, **order_zero)
        right.append(100 * evaluate(plant.substrate, getattr(data, part)).accuracy)
    return right[0], right[1], settles


def noise(seeds: int = 3) -> None:
    axes = {
        "read noise": [{"parameter_noise": n, "output_noise": n} for n in (0.0, 1e-4, 1e-3, 3e-3, 1e-2)],
        "bits of knobs": [{"bits": bits} for bits in (10, 8, 7, 6, 5, 4, 3)],
        "dead knobs": [{"dead": part} for part in (0.05, 0.1, 0.2)],
    }
    for axis, steps in axes.items():
        for settings in steps:
            found = np.array([imperfect(seed, settings) for seed in range(seeds)])
            first, other, settles = found.mean(axis=0)
            print(
                f"{axis}, {settings}: agnostic {first:.1f} %, order zero {other:.1f} %, {settles:.0f} settles",
                flush=True,
            )


def digits(seed: int, epochs: int = 10) -> None:
    data = load_data("digits", seed=seed)
    net = ResistorNetwork.for_task(64, 10, sizes=(512,), key=jax.random.key(seed))
    rule = AgnosticEP(3.0, "centered", SelfControl(), strict=False)
    began = time.perf_counter()
    for epoch in range(epochs):
        yields = {"conductance[0]": 4e-6, "conductance[1]": 1.5e-4, "bias_current": 1.5e-4, "rail_conductance": 1.0}
        plant = Plant(net, {name: value * 0.9**epoch for name, value in yields.items()}, max_rounds=200)
        key = jax.random.fold_in(jax.random.key(seed + 100), epoch)
        run = fit(plant, rule, data.train, epochs=1, key=key, progress=False)
        net, unsettled = plant.substrate, int(run.history["unconverged"][0])
        right = 100 * evaluate(net, data.validation).accuracy
        print(f"seed {seed}, epoch {epoch + 1}: validation {right:.1f} %, {unsettled} phases unsettled, "
              f"{time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip
    print(f"seed {seed}: test accuracy {100 * evaluate(net, data.test).accuracy:.1f} % (wanted 95 %)", flush=True)


def mnist(seed: int, epochs: int = 20, copies: int = 16) -> None:
    data = load_data("mnist", seed=seed, validation=0)
    mean = data.train[0].mean(axis=0)
    train, test = ((part[0] - mean, part[1]) for part in (data.train, data.test))
    net = HopfieldNetwork.layered((784, 2048, 10), key=jax.random.key(seed))
    rule = AgnosticEP(1.0, "centered", SelfControl(), strict=False)
    began = time.perf_counter()
    for epoch in range(epochs):
        yields = {"coupling[0]": 0.06, "coupling[1]": 0.0015, "bias[0]": 0.012, "bias[1]": 0.0003}
        plant = Plant(net, {name: value * 0.93**epoch for name, value in yields.items()}, copies=copies)
        key = jax.random.fold_in(jax.random.key(seed + 100), epoch)
        run = fit(plant, rule, train, epochs=1, batch_size=copies, key=key, progress=False)
        net = plant.substrate
        unsettled = int(run.history["unconverged"][0])
        print(f"seed {seed}, epoch {epoch + 1}: {unsettled} phases unsettled, {time.perf_counter() - began:.0f} s",
              flush=True)  # fmt: skip
    found = evaluate(net, test)
    print(f"seed {seed}: test error {100 * (1 - found.accuracy):.2f} % (wanted 2.3 %)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slopes", action="store_true")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--digits", type=int, nargs="*", metavar="SEED")
    parser.add_argument("--mnist", type=int, nargs="*", metavar="SEED")
    options = parser.parse_args()
    if options.slopes:
        with jax.enable_x64(True):
            slopes()
    if options.cost:
        cost(options.rounds)
    if options.noise:
        noise()
    for seed in options.digits or ():
        digits(seed)
    for seed in options.mnist or ():
        mnist(seed)


if __name__ == "__main__":
    main()
