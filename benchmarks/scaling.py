"""What an equilibrium costs against the size of the system, for every substrate, with slopes.

    python benchmarks/scaling.py                                     # all of them, at most six seconds a point
    python benchmarks/scaling.py resistor ising --seconds 60         # some of them, farther
    python benchmarks/scaling.py --figure scaling.png

Sizes grow by the square root of ten, from some hundred numbers in a state (from 2 where masses are driven, 32 where
nodes react), until a point would take longer than it may or three decades and a half are full. Lattices where a
substrate has them (resistors uniform in (0.5, 1.5), springs stretched by 1 %, spins of couplings +-1 annealed by four
replicas in 50 sweeps, nodes that react and diffuse, driven masses), chains of quantum oscillators, whose state has the
square of their number, the path of four pendulums in ever finer steps; else the network that `for_task` builds with one
hidden layer, whose parameters are 26 for each unit; of quantum spins the state has 2^spins numbers.
Seconds are of all threads of the process, the least of three relaxations after one that compiles; the slope is that of
their logarithm, over all sizes and over the last decade. Ising lattices stand beside a floor: the roll-and-where sweep
of a checkerboard of one replica, with its uniform numbers, written in four lines of JAX; the annealer's descents at the
end count as its time, not as its updates.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from substrates import (
    ActivatorInhibitor,
    DrivenNetwork,
    ElasticNetwork,
    HopfieldNetwork,
    IsingModel,
    OscillatorNetwork,
    PredictiveCodingNetwork,
    QuantumOscillatorNetwork,
    RecurrentNetwork,
    ResistorNetwork,
    SmoothHopfieldNetwork,
    Trajectory,
    TransverseFieldIsing,
)
from substrates.classical.ising.annealing import Annealing
from substrates.classical.trajectory import CoupledPendulums, Samples
from substrates.pictures import style

SWEEPS, REPLICAS = 50, 4
STEP, DECADES = math.sqrt(10), 3.5


def side_of(n: int) -> int:
    return round(math.sqrt(n))


def resistors(n: int) -> tuple[Any, Any]:
    side = side_of(n)
    g = np.random.default_rng(0).uniform(0.5, 1.5, 2 * side * (side - 1))
    ends = {"inputs": [0, side * side - 1], "outputs": [side]}
    return ResistorNetwork.lattice((side, side), conductance=g, **ends), jnp.array([1.0, -1.0])


def springs(n: int) -> tuple[Any, Any]:
    side = side_of(n // 2)
    words: dict[str, Any] = {"clamped": ["left"], "inputs": [{"right": (1.0, 0.0)}], "outputs": [side * side // 2]}
    net = ElasticNetwork.lattice("triangular", (side, side), disorder=0.05, key=jax.random.key(0), **words)
    return net, jnp.array([0.01 * (side - 1)])


def glass(n: int) -> tuple[Any, Any]:
    side = side_of(n)
    weights = np.random.default_rng(0).choice([-1.0, 1.0], 2 * side * (side - 1))
    return IsingModel.lattice((side, side), coupling=weights), jnp.zeros(0)


def chain(n: int) -> tuple[Any, Any]:
    return TransverseFieldIsing.chain(round(math.log2(n)), coupling=1.0, transverse_field=1.5), jnp.zeros(0)


def spots(n: int) -> tuple[Any, Any]:
    side = side_of(n // 2)
    bias = np.random.default_rng(0).uniform(-1, 1, side * side)
    ends = {"inputs": [0], "outputs": [side * side - 1]}
    return ActivatorInhibitor.lattice((side, side), gain=-0.1, bias=bias, **ends), jnp.array([1.0])


def pendulums(n: int) -> tuple[Any, Any]:
    law = CoupledPendulums.random(4, 1, key=jax.random.key(0))
    first, last = np.zeros(4), np.array([0.3, 0.0, -0.2, 0.1])
    steps = n // 4
    path = {"duration": 2.0, "steps": steps, "meter": Samples([3], [steps // 2]), "n_inputs": 1}
    return Trajectory.between(law, first, last, **path), jnp.array([0.5])


def shaken(n: int) -> tuple[Any, Any]:
    side = side_of(n // 2)
    stiffness = np.random.default_rng(0).uniform(0.5, 1.5, 2 * side * (side - 1))
    words: dict[str, Any] = {
        "inputs": [0],
        "outputs": [side * side - 1],
        "frequencies": [1.0],
        "reading": "quadratures",
    }
    return DrivenNetwork.lattice((side, side), stiffness=stiffness, **words), jnp.array([1.0])


def oscillators(n: int) -> tuple[Any, Any]:
    count = side_of(n)
    stiffness = np.random.default_rng(0).uniform(0.5, 1.5, count - 1)
    return QuantumOscillatorNetwork.chain(count, inputs=[0], outputs=[count - 1], stiffness=stiffness), jnp.array([1.0])


def task(kind: Any) -> Callable[[int], tuple[Any, Any]]:
    """A network for a task of 16 inputs and 10 outputs."""

    def build(n: int) -> tuple[Any, Any]:
        x = jax.random.uniform(jax.random.key(1), (16,))
        return kind.for_task(16, 10, sizes=(n,), key=jax.random.key(0)), x

    return build


BUILD: dict[str, Callable[[int], tuple[Any, Any]]] = {
    "resistor": resistors,
    "elastic": springs,
    "ising": glass,
    "oscillator": task(OscillatorNetwork),
    "hopfield": task(HopfieldNetwork),
    "smooth-hopfield": task(SmoothHopfieldNetwork),
    "predictive-coding": task(PredictiveCodingNetwork),
    "recurrent": task(RecurrentNetwork),
    "activator-inhibitor": spots,
    "trajectory": pendulums,
    "driven": shaken,
    "quantum-oscillator": oscillators,
    "transverse-ising": chain,
}


FIRST = {"driven": 2, "activator-inhibitor": 32}
"""How many numbers the smallest state has; 100 elsewhere. A driven lattice is solved as a dense matrix."""


@eqx.filter_jit
def settle(net: Any, x: Any, solver: Any) -> Any:
    return net.relax(x, key=jax.random.key(0), solver=solver)


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    found = jax.block_until_ready(run())
    return time.process_time() - begun, found


def costs(name: str, most: float) -> list[tuple[int, float]]:
    """(numbers in the state, seconds of an equilibrium) at growing sizes."""
    points: list[tuple[int, float]] = []
    for step in range(1 + int(2 * DECADES)):
        net, x = BUILD[name](round(FIRST.get(name, 100) * STEP**step))
        solver = Annealing(sweeps=SWEEPS, replicas=REPLICAS) if name == "ising" else None
        compiling, found = seconds(lambda net=net, x=x, solver=solver: settle(net, x, solver))
        size = sum(leaf.size for leaf in jax.tree.leaves(found.state))
        best = min(seconds(lambda net=net, x=x, solver=solver: settle(net, x, solver))[0] for _ in range(3))
        points.append((size, best))
        usable = "" if bool(found.usable) else f": {found}"
        print(f"  {name:20} {size:9,} numbers {best:10.5f} s{usable}", flush=True)
        growth = STEP ** max(slope(points[-3:]), 1.0) if len(points) > 1 else STEP
        if 3 * best * growth > most or compiling > 10 * most:
            break
    return points


def slope(points: list[tuple[int, float]]) -> float:
    """The exponent of cost against size."""
    sizes, times = np.log(np.array(points, float)).T
    return float(np.polyfit(sizes, times, 1)[0]) if len(set(sizes)) > 1 else math.nan


def floor(side: int, count: int = SWEEPS) -> float:
    """Nanoseconds of an update by so many checkerboard sweeps of rolled arrays."""
    odd = (jnp.arange(side)[:, None] + jnp.arange(side)[None]) % 2

    @jax.jit
    def sweeps(s: Any, key: Any) -> Any:
        def half(s: Any, turn: Any) -> tuple[Any, None]:
            field = sum(jnp.roll(s, shift, axis) for shift in (1, -1) for axis in (0, 1))
            uniform = jax.random.uniform(jax.random.fold_in(key, turn), s.shape, jnp.float32)
            flips = (uniform < jnp.exp(-0.9 * s * field)) & (odd == turn % 2)
            return jnp.where(flips, -s, s), None

        return jax.lax.scan(half, s, jnp.arange(2 * count))[0]

    s = jnp.ones((side, side), jnp.float32)
    jax.block_until_ready(sweeps(s, jax.random.key(0)))
    return 1e9 * seconds(lambda: sweeps(s, jax.random.key(1)))[0] / (count * side**2)


def draw(found: dict[str, list[tuple[int, float]]], path: str) -> None:
    ax = style.axes(None)
    for number, (name, points) in enumerate(found.items()):
        ax.plot(*zip(*points, strict=True), label=f"{name}, {slope(points[-3:]):.2f}", **style.line(number))
    ax.set(xscale="log", yscale="log", xlabel="numbers in the state", ylabel="seconds of an equilibrium")
    ax.legend(fontsize="small", title="slope of the last decade", loc="upper left", bbox_to_anchor=(1.02, 1.0))
    ax.figure.savefig(path, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("substrates", nargs="*", choices=[*BUILD, []], default=[])
    parser.add_argument("--seconds", type=float, default=6.0, help="the most of a point, its compilation apart")
    parser.add_argument("--figure", help="where the figure goes")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    found = {name: costs(name, options.seconds) for name in options.substrates or BUILD}
    for name, points in found.items():
        decades = math.log10(points[-1][0] / points[0][0])
        print(f"{name:20} {decades:.1f} decades, slope {slope(points):5.2f}, of the last {slope(points[-3:]):5.2f}")
    if "ising" in found:
        size, spent = found["ising"][-1]
        ours, least = 1e9 * spent / (SWEEPS * REPLICAS * size), floor(side_of(size))
        print(
            f"ising, {size:,} spins: {1 / ours:.4f} updates a nanosecond, the floor {1 / least:.4f}: {least / ours:.2f}"
        )
    if options.figure:
        draw(found, options.figure)


if __name__ == "__main__":
    main()
