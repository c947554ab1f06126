"""Resistor and elastic lattices of up to a million nodes by multigrid, and Ising lattices of sixteen million spins:
time, memory, and a step of training.

    python benchmarks/large.py resistor            # 1,000 x 1,000 nodes beside pyamg alone
    python benchmarks/large.py elastic             # 1,000 x 1,000 nodes beside 256 x 256
    python benchmarks/large.py ising               # 4,096 x 4,096 spins beside a sweep of rolled arrays
    python benchmarks/large.py resistor --side 500 # another size

Resistors: conductances uniform in (0.5, 1.5) by numpy's default_rng, two opposite corners driven. Ours is timed from
the input to the equilibrium with its residual and energy, with conductances that were not seen before; pyamg's
smoothed aggregation, as it comes, from the assembled matrix through its setup and conjugate gradients to 1e-10; they
take turns. Elastic: `benchmarks/elastic.py`'s lattice, 10 % stretched, every stiffness moved by up to 1 % before
each round, to a force of 1e-10. Ising: couplings +-1 by numpy's default_rng in 32 bits, four replicas annealed in 20
sweeps, whose descents at the end count as time and not as updates; then a torus of couplings 1, two chains of 30
heat-bath sweeps at T = 3 beside Onsager's energy; the floor, `benchmarks/scaling.py`'s, takes turns. A step is a
centred gradient of equilibrium propagation on one example. Programs are compiled before the clock starts. Seconds are
of all threads of the process, which depend less on what else the machine does; the clock's stand beside them.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from elastic import FORCE, jittered, stretched
from lattice import laplacian
from scaling import floor

from learning import EquilibriumPropagation, SquaredError
from substrates import IsingModel, ResistorNetwork
from substrates.classical.elastic import ElasticEquilibrium
from substrates.classical.ising.annealing import Annealing
from substrates.classical.ising.onsager import onsager_energy

SWEEPS, REPLICAS = 20, 4
CHAINS, SAMPLED_SWEEPS, TEMPERATURE = 2, 30, 3.0

settle = eqx.filter_jit(lambda net, x, solver: net.relax(x, solver=solver))


def clock(run):
    """(seconds of the process, seconds of the clock, what came out)."""
    process, wall = time.process_time(), time.perf_counter()
    found = jax.block_until_ready(run())
    return time.process_time() - process, time.perf_counter() - wall, found


def peak() -> float:
    """Gigabytes that the process has ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def pyamg_alone(matrix, known):
    """Its setup and its solution."""
    import pyamg

    return pyamg.smoothed_aggregation_solver(matrix).solve(known, tol=1e-10, accel="cg")


def shown(times: list[tuple[float, float]]) -> str:
    process, wall = (statistics.median(column) for column in zip(*times, strict=True))
    return f"{process:7.2f} s of the process, {wall:7.2f} s of the clock"


def train(nets: list[Any], x: jax.Array, y: jax.Array) -> None:
    """A step of each network in turn: the first compiles."""
    rule = EquilibriumPropagation(beta=0.1, variant="centered", cost=SquaredError())
    step = eqx.filter_jit(lambda net, xs, ys: rule(net, xs, ys))
    for what, net in zip(["a step, compiled:", "the next        "], nets, strict=True):
        seconds, wall, found = clock(lambda net=net: step(net, x[None], y[None]))
        print(f"  {what} {seconds:7.2f} s of the process, {wall:7.2f} s of the clock; {peak():.2f} GB at most")
    print(*(f"  {phase}" for phase in found.equilibria), sep="\n")


def resistor(side: int, rounds: int) -> None:
    draw, x = np.random.default_rng(0), jnp.array([1.0, -1.0])
    inputs, outputs = [0, side * side - 1], [side * side // 2]
    fresh = lambda: draw.uniform(0.5, 1.5, 2 * side * (side - 1))
    seconds, _, net = clock(
        lambda: ResistorNetwork.lattice((side, side), inputs=inputs, outputs=outputs, conductance=fresh())
    )
    print(f"{side} x {side} nodes, {len(net.edges):,} resistors, built in {seconds:.2f} s")
    seconds, wall, _ = clock(lambda: settle(net, x, None))
    print(f"  first, compiled: {seconds:7.2f} s of the process, {wall:7.2f} s of the clock; {peak():.2f} GB at most")
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "pyamg": []}
    for _ in range(rounds):
        net = eqx.tree_at(lambda n: n.conductance, net, jnp.asarray(fresh()))
        matrix, coupling = laplacian(net, np.array(inputs))
        matrix, known = scipy.sparse.csr_matrix(matrix), -coupling @ np.asarray(x)
        *ours, found = clock(lambda net=net: settle(net, x, None))
        *theirs, wanted = clock(lambda m=matrix, k=known: pyamg_alone(m, k))
        times["ours"].append(tuple(ours))
        times["pyamg"].append(tuple(theirs))
    left = np.linalg.norm(known - matrix @ np.asarray(found.state)) / np.linalg.norm(known)
    print(f"  {found}")
    print(f"  left over of the currents {left:.1e}, apart from pyamg's by {np.abs(found.state - wanted).max():.1e} V")
    for name, column in times.items():
        print(f"  {name:6} {shown(column)}")
    ratio = statistics.median(o[0] / t[0] for o, t in zip(times["ours"], times["pyamg"], strict=True))
    print(f"  ours over pyamg alone {ratio:.2f} (wanted at most 1.5); {peak():.2f} GB at most, pyamg's among them")
    train([net, eqx.tree_at(lambda n: n.conductance, net, jnp.asarray(fresh()))], x, jnp.array([0.3]))


def elastic(side: int, rounds: int) -> None:
    solver = ElasticEquilibrium(absolute_tolerance=FORCE, relative_tolerance=0.0)
    per_node = {}
    for size in (256, side):
        (net, x), draw = stretched(size, 0), np.random.default_rng(0)
        clock(lambda net=net, x=x: settle(net, x, solver))
        times = []
        for _ in range(rounds):
            moved = jittered(net, draw, 1e-2)
            *seconds, found = clock(lambda net=moved, x=x: settle(net, x, solver))
            times.append(tuple(seconds))
        per_node[size] = statistics.median(seconds for seconds, _ in times) / size**2
        print(f"{size} x {size}: {shown(times)}, {1e6 * per_node[size]:.1f} us per node, {peak():.2f} GB at most")
        print(f"  {found}")
        train([moved, jittered(net, draw, 1e-2)], x, net.read(found.state, x) + 0.01)
    print(f"time per node over that of 256 x 256: {per_node[side] / per_node[256]:.2f} (wanted at most 2)")


def ising(side: int, rounds: int) -> None:
    draw, none = np.random.default_rng(0), jnp.zeros(0, jnp.float32)
    fresh = lambda: draw.choice(np.array([-1, 1], np.float32), 2 * side * (side - 1))
    seconds, _, net = clock(lambda: IsingModel.lattice((side, side), coupling=fresh(), field=np.float32(0)))
    print(f"{side} x {side} spins, {net.coupling.graph.count:,} couplings, built in {seconds:.2f} s")
    solver = Annealing(sweeps=SWEEPS, replicas=REPLICAS)
    anneal = eqx.filter_jit(lambda net, key: net.relax(none, key=key, solver=solver))
    chains = {"chains": CHAINS, "draws": 1, "burn_in": SAMPLED_SWEEPS - 1, "thinning": 1}
    sample = eqx.filter_jit(lambda net, key: net.sampled(np.float32(TEMPERATURE), **chains).relax(none, key=key))
    magnet = IsingModel.lattice((side, side), coupling=np.float32(1), field=np.float32(0), periodic=True)
    seconds, wall, _ = clock(lambda: anneal(net, jax.random.key(0)))
    print(f"  first, compiled: {seconds:7.2f} s of the process, {wall:7.2f} s of the clock; {peak():.2f} GB at most")
    clock(lambda: sample(magnet, jax.random.key(0)))
    rates: dict[str, list[float]] = {"anneal": [], "sample": [], "floor": []}
    for number in range(1, rounds + 1):
        net = eqx.tree_at(lambda n: n.coupling.weight, net, jnp.asarray(fresh()))
        seconds, _, found = clock(lambda net=net, number=number: anneal(net, jax.random.key(number)))
        rates["anneal"].append(SWEEPS * REPLICAS * side**2 / seconds / 1e9)
        seconds, _, drawn = clock(lambda number=number: sample(magnet, jax.random.key(number)))
        rates["sample"].append(SAMPLED_SWEEPS * CHAINS * side**2 / seconds / 1e9)
        rates["floor"].append(1 / floor(side, SWEEPS))
    print(f"  {found}")
    energy, exact = float(drawn.energy) / side**2, onsager_energy(TEMPERATURE)
    print(f"  energy of a spin at T = {TEMPERATURE}: {energy:.5f}, Onsager's {exact:.5f}")
    for name, column in rates.items():
        ratio = statistics.median(a / b for a, b in zip(column, rates["floor"], strict=True))
        print(f"  {name:6} {statistics.median(column):.3f} updates a nanosecond, {ratio:.2f} of the floor's")
    print(f"  wanted at least 0.8 of the floor, and 6 GB; {peak():.2f} GB at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=["resistor", "elastic", "ising"])
    parser.add_argument("--side", type=int, help="1,000 nodes by default, 4,096 spins")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore", scipy.sparse.SparseEfficiencyWarning)
    measure, side = {"resistor": (resistor, 1000), "elastic": (elastic, 1000), "ising": (ising, 4096)}[options.system]
    measure(options.side or side, options.rounds)


if __name__ == "__main__":
    main()
