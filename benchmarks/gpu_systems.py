"""Every system on an accelerator against the CPU of the same machine: what it settles to, and in which time.

`benchmarks/gpu.py` measures this. Run by itself it writes what the CPU answers, in a process that sees nothing else:

    JAX_PLATFORMS=cpu python benchmarks/gpu_systems.py FILE SECONDS [NAME ...]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from learning import EquilibriumPropagation
from substrates import (
    ActivatorInhibitor,
    DrivenNetwork,
    ElasticNetwork,
    FreeFermionChain,
    HopfieldNetwork,
    IsingModel,
    OscillatorNetwork,
    PredictiveCodingCircuit,
    PredictiveCodingNetwork,
    QuantumOscillatorNetwork,
    RecurrentNetwork,
    ResistorNetwork,
    SmoothHopfieldNetwork,
    Status,
    Trajectory,
    TransverseFieldIsing,
    start_session,
)
from substrates.classical.ising.annealing import Annealing
from substrates.substrate import FAILURES
from theory_checks.small_systems import small_batch, small_system

SQUARE = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]


def spins() -> IsingModel:
    coupling, field = np.array([0.7, -0.4, 0.9, 0.3, -0.6]), np.array([0.1, 0.3, -0.2, 0.4])
    return IsingModel.from_edges(SQUARE, coupling=coupling, field=field, inputs=[0], outputs=[2])


def quantum_spins(n: int, **options: Any) -> TransverseFieldIsing:
    return TransverseFieldIsing.chain(
        n, coupling=0.8, transverse_field=1.1, longitudinal_field=0.2, inputs=(0,), outputs=["Z1"], **options
    )


def resistors(side: int) -> ResistorNetwork:
    """A lattice; from some hundred nodes on its sparse factors are made on the host, through a callback."""
    conductance = np.random.default_rng(0).uniform(0.5, 1.5, 2 * side * (side - 1))
    ends: dict[str, Any] = {"inputs": [0, side * side - 1], "outputs": [side]}
    return ResistorNetwork.lattice((side, side), conductance=conductance, **ends)


def springs(side: int) -> ElasticNetwork:
    words: dict[str, Any] = {"clamped": ["left"], "inputs": [{"right": (1.0, 0.0)}], "outputs": [side * side // 2]}
    return ElasticNetwork.lattice("triangular", (side, side), disorder=0.05, key=jax.random.key(0), **words)


def of_a_task(kind: type[Any]) -> Callable[[], Any]:
    return lambda: small_system(kind, key=jax.random.key(0))


SYSTEMS: dict[str, Callable[[], Any]] = {
    "resistors and ideal diodes": lambda: ResistorNetwork.from_edges(
        SQUARE, inputs=[0], outputs=[2], conductance=np.array([1.0, 0.5, 2.0, 0.7, 0.3]), diodes=[(-1, 1), (2, 3)]
    ),
    "deep resistive network": of_a_task(ResistorNetwork),
    "resistor lattice by sparse factors": lambda: resistors(40),
    "springs": of_a_task(ElasticNetwork),
    "elastic lattice by sparse factors": lambda: springs(12),
    "spins": spins,
    "layers of spins": of_a_task(IsingModel),
    "spins at a temperature": lambda: spins().ensemble(0.8),
    "sampled spins": lambda: spins().sampled(2.0),
    "oscillators": of_a_task(OscillatorNetwork),
    "Hopfield": of_a_task(HopfieldNetwork),
    "convolutional Hopfield": lambda: HopfieldNetwork.convolutional((8, 8, 3), (4, 6), 3, key=jax.random.key(0)),
    "smooth Hopfield": of_a_task(SmoothHopfieldNetwork),
    "predictive coding": of_a_task(PredictiveCodingNetwork),
    "convolutional predictive coding": lambda: PredictiveCodingNetwork.convolutional(
        (8, 8, 3), (4, 6), (3,), pooled=(2,), key=jax.random.key(0)
    ),
    "predictive coding circuit": of_a_task(PredictiveCodingCircuit),
    "recurrent": of_a_task(RecurrentNetwork),
    "activators and inhibitors": of_a_task(ActivatorInhibitor),
    "driven": of_a_task(DrivenNetwork),
    "paths": of_a_task(Trajectory),
    "quantum spins": lambda: quantum_spins(4),
    "seven excited quantum spins": lambda: quantum_spins(7, level=1),
    "quantum spins at a temperature": lambda: quantum_spins(3).ensemble(0.8),
    "free fermions": lambda: FreeFermionChain.chain(5, coupling=0.8, transverse_field=1.1, inputs=(0,), outputs=["X1"]),
    "quantum oscillators": of_a_task(QuantumOscillatorNetwork),
}
"""A small system of every kind, and of every way to solve one."""

BETAS = {"springs": 1e-4, "elastic lattice by sparse factors": 1e-4, "predictive coding circuit": 0.5}
"""Strengths of the nudge, 0.01 where none is given: springs hold their outputs more weakly than that, and 32 bits tell
errors of error neurons, which are differences, only where they are large."""

BOUNDS = {64: {"outputs": 1e-7, "energies": 1e-9, "gradient": 1e-5}, 32: {"outputs": 2e-3, "energies": 2e-3}}
"""The largest relative difference that counts as the same: a state is certain to about the root of the rounding. In 32
bits a gradient of weak nudges is told and not judged."""

ENDINGS = ("converged", "truncated", *FAILURES)

Answer = dict[str, np.ndarray]


def answer(name: str) -> Answer:
    """What a system shows, its energies, its centred gradient, and how its relaxations ended.

    They do not depend on signs of eigenvectors or on directions that cost no energy, unlike a state.
    """
    net = SYSTEMS[name]()
    x, y = small_batch(net, n_inputs=1, key=jax.random.key(1))
    estimate = EquilibriumPropagation(BETAS.get(name, 0.01), strict=False)(net, x, y, key=jax.random.key(2))
    energies = [e.energy for e in estimate.equilibria if e.energy is not None]
    ended = [[e.status == getattr(Status, word) for word in ENDINGS] for e in estimate.equilibria]
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(estimate.gradient)]
    return {
        "outputs": np.asarray(estimate.output),
        "energies": np.asarray(energies),
        "gradient": np.concatenate(leaves),
        "endings": np.asarray(ended),
    }


def answers(names: Sequence[str], until: float) -> Iterator[tuple[str, int, Answer | str]]:
    """(name, bits, the answer, or what kept it from being given), in 64 bits first; programs compile beside each other.

    What is not begun at the moment `until` of the clock is left out.
    """

    def attempt(name: str, bits: int) -> Answer | str | None:
        if time.time() > until:
            return None
        try:
            with jax.enable_x64(bits == 64):
                return answer(name)
        except Exception as error:
            return in_short(error)

    for bits in (64, 32):
        with ThreadPoolExecutor(max(1, (os.cpu_count() or 2) // 2)) as pool:
            for name, found in zip(names, pool.map(partial(attempt, bits=bits), names), strict=True):
                if found is not None:
                    yield name, bits, found


def in_short(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def differences(found: Answer, wanted: Answer) -> dict[str, float]:
    """How far numbers are apart, as a part of the largest of them."""
    apart = {}
    for field in ("outputs", "energies", "gradient"):
        if wanted[field].size:
            size = np.max(np.abs(wanted[field]))
            apart[field] = float(np.max(np.abs(found[field] - wanted[field])) / (size if size > 0 else 1.0))
    return apart


def judged(found: Answer, wanted: Answer, bits: int) -> dict[str, Any]:
    """The row of a system that both answered: differences, endings, and whether that is right."""
    apart = differences(found, wanted)
    same = bool(np.array_equal(found["endings"], wanted["endings"]))
    near = all(apart[field] <= bound for field, bound in BOUNDS[bits].items() if field in apart)
    ended = ", ".join(word for k, word in enumerate(ENDINGS) if found["endings"][:, k].any())
    return {**apart, "ended": ended, "ended_alike": same, "right": same and near}


def correctness(report: Any, names: Sequence[str], seconds: float) -> None:
    """A row for every system and precision: the accelerator in this process, the CPU in another at the same time."""
    until = time.time() + seconds
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "answers.npz"
        process = subprocess.Popen(
            [sys.executable, __file__, str(kept), str(0.8 * seconds), *names],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            own = {(name, bits): found for name, bits, found in answers(names, until - 0.2 * seconds)}
            said = process.communicate(timeout=max(1.0, until - time.time()))[1]
        finally:
            process.kill()
        if process.returncode:
            raise RuntimeError(f"the process on the CPU failed: {said.strip().splitlines()[-1:]}")
        reference = _loaded(kept)
    for bits in (64, 32):
        for name in names:
            found, wanted = own.get((name, bits)), reference.get((name, bits))
            if found is None or wanted is None:
                report.add("right", f"{name}, {bits} bits", left_out="no time was left")
            elif isinstance(found, str):
                report.add("right", f"{name}, {bits} bits", right=False, failed=found)
            elif isinstance(wanted, str):
                report.add("right", f"{name}, {bits} bits", right=False, failed=f"on the CPU: {wanted}")
            else:
                report.add("right", f"{name}, {bits} bits", **judged(found, wanted, bits))


def _loaded(path: Path) -> dict[tuple[str, int], Answer | str]:
    found: dict[tuple[str, int], Any] = {}
    with np.load(path) as file:
        for label in file.files:
            name, bits, field = label.split("|")
            if field == "failed":
                found[name, int(bits)] = str(file[label])
            else:
                found.setdefault((name, int(bits)), {})[field] = file[label]
    return found


# times


@eqx.filter_jit
def gradient(net: Any, x: Any, y: Any, rule: Any) -> Any:
    return rule(net, x, y).gradient


@eqx.filter_jit
def settle(net: Any, x: Any, key: Any, solver: Any) -> Any:
    return net.relax(x, key=key, solver=solver).state


def step_of(build: Callable[..., Any], sizes: Sequence[int], batch: int, beta: float) -> tuple[Callable, tuple]:
    """A centred gradient of a layered network on a batch."""
    key = jax.random.key(0)
    x = jax.random.uniform(jax.random.key(1), (batch, sizes[0]))
    y = jax.nn.one_hot(jnp.arange(batch) % sizes[-1], sizes[-1])
    return gradient, (build(tuple(sizes), key=key), x, y, EquilibriumPropagation(beta, strict=False))


def relaxation(net: Any, x: Any, solver: Any = None) -> tuple[Callable, tuple]:
    return settle, (net, jnp.asarray(x), jax.random.key(0), solver)


def glass(side: int) -> IsingModel:
    weights = np.random.default_rng(0).choice([-1.0, 1.0], 2 * side * (side - 1))
    return IsingModel.lattice((side, side), coupling=weights)


def deep_resistive(sizes: tuple[int, ...], key: Any) -> Any:
    return ResistorNetwork.layered(sizes, key=key, input_gain=480.0)


def oscillators(sizes: tuple[int, ...], key: Any) -> OscillatorNetwork:
    return OscillatorNetwork.for_task(sizes[0], sizes[-1], sizes=sizes[1:-1], key=key)


MNIST = {False: (784, 1024, 10), True: (16, 8, 3)}
"""Sizes of layers, and those of a quick run."""

Workload = Callable[[bool], tuple[Callable, tuple]]

WORKLOADS: dict[str, tuple[int, Workload]] = {
    **{
        f"deep resistive 2x784-1024-10, gradient, batch {batch}": (
            32,
            lambda small, batch=batch: step_of(deep_resistive, MNIST[small], batch, 1.0),
        )
        for batch in (4, 32, 256)
    },
    "Hopfield 784-1024-10, gradient, batch 256": (
        32,
        lambda small: step_of(HopfieldNetwork.layered, MNIST[small], 256, 0.5),
    ),
    "predictive coding 784-1024-10, gradient, batch 256": (
        32,
        lambda small: step_of(PredictiveCodingNetwork.dense, MNIST[small], 256, 0.1),
    ),
    "oscillators 784-1024-10, gradient, batch 64": (32, lambda small: step_of(oscillators, MNIST[small], 64, 0.1)),
    "spin glass of 512 x 512, 4 replicas, 50 sweeps": (
        32,
        lambda small: relaxation(glass(8 if small else 512), np.zeros(0), Annealing(sweeps=50, replicas=4)),
    ),
    "20 quantum spins, ground state": (64, lambda small: relaxation(quantum_spins(6 if small else 20), [0.3])),
    "resistor lattice of 300 x 300": (64, lambda small: relaxation(resistors(12 if small else 300), [1.0, -1.0])),
    "elastic lattice of 100 x 100": (64, lambda small: relaxation(springs(6 if small else 100), [0.01])),
}
"""Bits, and what makes a program and its arguments, small for a quick run."""


def times(report: Any, device: Any, seconds: float, small: bool, rounds: int = 7) -> None:
    """A row for every workload: medians on a device and on the CPU, which take turns, and what the first calls took."""
    until = time.time() + seconds
    devices = {"accelerator": device, "cpu": jax.devices("cpu")[0]}
    for name, (bits, build) in WORKLOADS.items():
        if time.time() > until:
            report.add("times", name, left_out="no time was left")
            continue
        try:
            report.add("times", name, **timed(build, bits, devices, until, small, rounds))
        except Exception as error:
            report.add("times", name, failed=in_short(error))


def timed(
    build: Workload, bits: int, devices: dict[str, Any], until: float, small: bool, rounds: int
) -> dict[str, Any]:
    """Seconds on each device of a dict, in rounds as long as the clock says less than `until`, but one at least."""
    programs, row = {}, {}
    for where, device in devices.items():
        with jax.enable_x64(bits == 64), jax.default_device(device):
            programs[where] = build(small)
            row[f"first_{where}"] = seconds_of(*programs[where])
    spent: dict[str, list[float]] = {where: [] for where in devices}
    for turn in range(rounds):
        if turn and time.time() > until:
            break
        for where, device in devices.items():
            with jax.enable_x64(bits == 64), jax.default_device(device):
                spent[where].append(seconds_of(*programs[where]))
    row |= {where: statistics.median(values) for where, values in spent.items()}
    ours, theirs = row["accelerator"], row["cpu"]
    return {**row, "bits": bits, "rounds": len(spent["cpu"]), "accelerator_over_cpu": ours / theirs}


def seconds_of(function: Callable, arguments: tuple) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - began


def main(path: str, seconds: str, *names: str) -> None:
    start_session(32)
    kept: dict[str, Any] = {}
    for name, bits, found in answers(names or tuple(SYSTEMS), time.time() + float(seconds)):
        fields = {"failed": np.asarray(found)} if isinstance(found, str) else found
        kept |= {f"{name}|{bits}|{field}": value for field, value in fields.items()}
    np.savez(path, **kept)


if __name__ == "__main__":
    main(*sys.argv[1:])
