"""A live ngspice circuit on the bench: how often it settles, what it leaks, and what it learns.

    python benchmarks/live_circuit.py --speed            # settles per second and memory (a minute or two)
    python benchmarks/live_circuit.py --learn xor iris   # by agnostic EP, and by EP on conjugate read-outs

Speed: 30 nodes, 61 resistors, 10 real diodes; one core if pinned to it. Times are medians. Learning: a hidden layer
of real diodes; agnostic EP sees the five verbs and holds the parameters by read-back alone. Iris: 75
examples for training, 37 for validation, 38 for the test, drawn anew and stratified for every seed. Needs ngspice.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from learning import AgnosticEP, fit
from learning.evaluation import evaluate_on_bench
from learning.examples import prepare
from substrates import ResistorNetwork, Shockley, SpiceCircuit, Status

DIODE = {"saturation_current": 3e-6, "emission_voltage": 0.0274}
"""A zero-bias Schottky diode: 0.16 V at 1 mA. Diodes that conduct late leave a circuit of few volts nearly linear."""


PARTS = ("train", "validation", "test")

NUDGE = 2e-3
"""The difference of the two nudges of ordinary EP, siemens."""


def random_circuit(seed: int = 0) -> ResistorNetwork:
    """30 nodes, 61 resistors from 0.1 to 10 mS, 10 diodes, two inputs and two outputs."""
    rng, n = np.random.default_rng(seed), 30
    tree = [(k, int(rng.integers(k))) for k in range(1, n)]
    chords = [tuple(rng.choice(n, 2, replace=False).tolist()) for _ in range(31)]
    diodes = [tuple(rng.choice(np.arange(2, n), 2, replace=False).tolist()) for _ in range(10)]
    return ResistorNetwork.from_edges(
        [*tree, *chords, (n - 1, -1)],
        n,
        inputs=[0, 1],
        outputs=[n - 1, n - 2],
        conductance=10 ** rng.uniform(-4, -2, 61),
        diodes=diodes,
        diode=Shockley(*map(jnp.asarray, DIODE.values())),
        floor=1e-6,
    )


def resident(pid: int | None) -> float:
    """The resident memory of a process in megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def speed(rounds: int) -> None:
    """Settles per second with a reading after each, the contestants taking turns."""
    net, rng = random_circuit(), np.random.default_rng(1)
    g = np.asarray(net.conductance)
    hard, soft = SpiceCircuit.from_network(net, epsilon=0.0), SpiceCircuit.from_network(net, epsilon=1e-6)
    turn = lambda live: live.set_knobs(g * rng.uniform(0.99, 1.01, g.size))
    clamp = lambda live: live.clamp(rng.normal(size=2))
    contestants: dict[str, tuple[SpiceCircuit, Callable, int]] = {
        "inputs change": (hard, clamp, 1000),
        "61 knobs change": (hard, turn, 150),
        "agnostic, inputs change": (soft, clamp, 100),
        "agnostic, 61 knobs change": (soft, turn, 100),
    }
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, (live, change, _) in contestants.items():
            start = time.perf_counter()
            for _ in range(50):
                change(live)
                if live.settle() != Status.converged:
                    raise RuntimeError(f"{name}: the circuit did not settle; its times would mean nothing")
                live.read()
            rates[name].append(50 / (time.perf_counter() - start))
    for name, (_, _, wanted) in contestants.items():
        print(f"  {name:<28} {statistics.median(rates[name]):8,.0f} settles per second (wanted {wanted:,})")
    hard.close()
    soft.close()


def memory(settles: int) -> None:
    """The largest growth of resident memory over many settles, for each way of changing something."""
    net, rng = random_circuit(), np.random.default_rng(1)
    g = np.asarray(net.conductance)
    for epsilon in (0.0, 1e-6):
        for knobs in (False, True):
            live = SpiceCircuit.from_network(net, epsilon=epsilon)
            pids, before, most = {live.pid}, resident(live.pid), 0.0
            for k in range(settles):
                live.set_knobs(g * rng.uniform(0.99, 1.01, g.size)) if knobs else live.clamp(rng.normal(size=2))
                live.settle()
                if live.pid not in pids or k % 50 == 0 or k == settles - 1:
                    pids.add(live.pid)
                    most = max(most, resident(live.pid) - before)
            live.close()
            left = sum(Path(f"/proc/{pid}").exists() for pid in pids)
            what = f"epsilon {epsilon:g}, {'knobs' if knobs else 'inputs'} change"
            print(
                f"  {what:<28} {most:8.1f} MB over {settles:,} settles (wanted 30), {len(pids)} processes, {left} left"
            )


class Task(NamedTuple):
    """Examples, inputs in volts with their negatives beside them and labels, and what trains them.

    Attributes:
        hidden, epochs, rate: of ordinary EP: nodes with diodes, epochs, and the step in S^2/V^2.
        agnostic: of agnostic EP: nodes with diodes, epochs, epsilon in S/V^2, beta in S, and variant; how far above the
            floor it holds conductances, `margin`: a knob pressed below it answers only once it is lifted.
    """

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    hidden: int
    epochs: int
    rate: float
    agnostic: dict[str, Any]


def xor(seed: int) -> Task:
    """Exclusive or at +-1, as volts."""
    x = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    examples = (6.0 * np.concatenate([x, -x], axis=1), np.array([0, 1, 1, 0]))
    agnostic = {"hidden": 16, "epochs": 200, "epsilon": 3e-6, "beta": 0.02, "variant": "optimistic", "margin": 0.1}
    return Task(examples, examples, examples, hidden=16, epochs=200, rate=2e-7, agnostic=agnostic)


def iris(seed: int) -> Task:
    """Fisher's irises, standardised by the training part; 75 train, 37 validation, 38 test, stratified."""
    from sklearn.datasets import load_iris
    from sklearn.model_selection import train_test_split

    x, y = load_iris(return_X_y=True)
    x_rest, x_test, y_rest, y_test = train_test_split(x, y, test_size=38, stratify=y, random_state=seed)
    x_train, x_val, y_train, y_val = train_test_split(x_rest, y_rest, test_size=37, stratify=y_rest, random_state=seed)
    mean, scale = x_train.mean(0), x_train.std(0)
    volts = lambda x: np.concatenate([z := 4.0 * (x - mean) / scale, -z], axis=1)
    return Task(
        (volts(x_train), y_train), (volts(x_val), y_val), (volts(x_test), y_test),
        hidden=6, epochs=90, rate=1e-7,
        agnostic={"hidden": 8, "epochs": 100, "epsilon": 6e-6, "beta": 0.005, "variant": "centered", "margin": 0.1},
    )  # fmt: skip


def layered(inputs: int, hidden: int, outputs: int, seed: int) -> ResistorNetwork:
    """Inputs and two rails to a hidden layer of diodes to ground, half of them each way, and on to the outputs."""
    rails = [inputs, inputs + 1]
    middle = list(range(inputs + 2, inputs + 2 + hidden))
    ends = list(range(inputs + 2 + hidden, inputs + 2 + hidden + outputs))
    edges = [(a, b) for b in middle for a in [*range(inputs), *rails]]
    edges += [(a, b) for b in ends for a in [*middle, *rails]]
    rng = np.random.default_rng(seed)
    return ResistorNetwork.from_edges(
        edges,
        inputs + 2 + hidden + outputs,
        inputs=range(inputs),
        outputs=ends,
        conductance=1e-3 * rng.uniform(0.05, 1.0, len(edges)),
        rails={rails[0]: 3.0, rails[1]: -3.0},
        diodes=[(-1, node) if k % 2 else (node, -1) for k, node in enumerate(middle)],
        diode=Shockley(*map(jnp.asarray, DIODE.values())),
        floor=1e-6,
    )


def learn(name: str, seed: int, rule: str, epochs: int | None = None, epsilon: float | None = None,
          beta: float | None = None) -> dict[str, float]:  # fmt: skip
    """Trains a live circuit from scratch; the parts of wrong answers."""
    task = {"xor": xor, "iris": iris}[name](seed)
    asked = {name: value for name, value in {"epochs": epochs, "epsilon": epsilon, "beta": beta}.items() if value}
    how = task.agnostic | asked
    task = task._replace(epochs=epochs or task.epochs)
    classes = int(task.train[1].max()) + 1
    net = layered(task.train[0].shape[1], how["hidden"] if rule == "agnostic" else task.hidden, classes, seed)
    start = time.perf_counter()
    with SpiceCircuit.from_network(net, epsilon=how["epsilon"] if rule == "agnostic" else 0.0) as live:
        if rule == "agnostic":
            agnostic = AgnosticEP(how["beta"], how["variant"], margin=how["margin"], strict=False)
            run = fit(live, agnostic, task.train, epochs=how["epochs"], key=jax.random.key(seed), progress=False)
            unsettled = int(run.history["unconverged"].sum())
            print(f"  {unsettled} of {2 * how['epochs'] * len(task.train[1])} phases did not settle", flush=True)
            errors = {
                part: evaluate_on_bench(
                    live, prepare(live, getattr(task, part)), agnostic.cost, agnostic.homeostat
                ).error
                for part in PARTS
            }
        else:
            errors = by_conjugate_read_out(live, task, classes, seed)
    return {**errors, "seconds": time.perf_counter() - start}


def by_conjugate_read_out(live: SpiceCircuit, task: Task, classes: int, seed: int) -> dict[str, float]:
    """Ordinary EP by hand: knobs move down the contrast of powers between two small nudges of opposite sign."""
    rng, targets = np.random.default_rng(seed), np.eye(classes)
    x, y = task.train
    for _ in range(task.epochs):
        for k in rng.permutation(len(x)):
            live.clamp(x[k])
            powers = []
            for sign in (1, -1):
                live.nudge(targets[y[k]], sign * NUDGE / 2)
                if live.settle() != Status.converged:
                    raise RuntimeError("the circuit did not settle")
                powers.append(live.read_conjugate())
            u = live.read().knobs - task.rate * (powers[0] - powers[1]) / NUDGE
            live.set_knobs(np.maximum(u, live.spec.knobs.lower))
    live.nudge(None, 0.0)

    def error(x: np.ndarray, y: np.ndarray) -> float:
        wrong = 0
        for inputs, label in zip(x, y, strict=True):
            live.clamp(inputs)
            live.settle()
            wrong += int(live.read().outputs.argmax() != label)
        return wrong / len(x)

    return {part: error(*getattr(task, part)) for part in PARTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--settles", type=int, default=10_000, help="over which memory is watched")
    parser.add_argument("--learn", nargs="*", default=[], choices=["xor", "iris"])
    parser.add_argument("--rules", nargs="*", default=["agnostic", "conjugate"], choices=["agnostic", "conjugate"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    for name, kind in (("epochs", int), ("epsilon", float), ("beta", float)):
        parser.add_argument(f"--{name}", type=kind, help="in place of the task's own")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if options.speed:
        speed(options.rounds)
        memory(options.settles)
    for name in options.learn:
        for rule in options.rules:
            for seed in options.seeds:
                found = learn(name, seed, rule, options.epochs, options.epsilon, options.beta)
                shown = ", ".join(f"{part} {100 * found[part]:.1f} %" for part in PARTS)
                print(f"  {name} by {rule}, seed {seed}: errors {shown}; {found['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
