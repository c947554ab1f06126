"""Resistor networks against ngspice: the same circuits, the same machine, the same run.

    python benchmarks/spice.py                     # the deep resistive network 2x784-100-10 (minutes)
    python benchmarks/spice.py --sizes 64 40 10    # a small one (seconds)

Times are medians over rounds in which all contestants take turns. ngspice gets the deck as a file and its own default
tolerances, which suit it; agreement is measured with tight ones. Needs ngspice: apt-get install ngspice.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from substrates import ResistorNetwork
from substrates.classical.resistor.elements import Shockley
from substrates.spice.ngspice import operating_point, run_deck
from substrates.substrate import relax_batch


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def layered_against_ngspice(sizes: tuple[int, ...], rounds: int, batch: int, timeout: float) -> None:
    """One equilibrium, and a batch of them, against one ngspice process on the same circuit."""
    net = ResistorNetwork.layered(sizes, key=jax.random.key(0), input_gain=100.0, dtype=jnp.float32)
    xs = jax.random.uniform(jax.random.key(1), (batch, sizes[0]), jnp.float32)
    circuit = net.to_circuit()
    tight = net.to_netlist(xs[0])
    default = re.sub(r"(?m)^\.options.*$", "", tight)
    one = eqx.filter_jit(lambda net, x: net.relax(x))
    many = eqx.filter_jit(relax_batch)
    free, all_free = one(net, xs[0]), many(net, xs)
    if not (free.converged and jnp.all(all_free.converged)):
        raise RuntimeError("the network did not settle; its times would mean nothing")
    contestants = {
        "ngspice": lambda: run_deck(default, timeout),
        "one": lambda: one(net, xs[0]).state,
        "batch": lambda: many(net, xs).state,
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            times[name].append(timed(work))
    spice, single, whole = (statistics.median(times[name]) for name in contestants)
    print(f"2x{'-'.join(map(str, sizes))}: {circuit.n:,} nodes, {len(circuit.edges):,} resistors, {rounds} rounds")
    print(f"  ngspice process           {spice:10.4g} s")
    print(f"  one equilibrium, cold     {single:10.4g} s   {spice / single:12,.0f} times faster (wanted 1,000)")
    print(f"  each in a batch of {batch:<6,} {whole / batch:10.4g} s   {spice * batch / whole:12,.0f} times faster "
          "(wanted 100,000)")  # fmt: skip
    point = operating_point(tight, timeout)
    theirs = np.array([point[f"n{node}"] for node in circuit.outputs])
    largest = max(abs(volts) for volts in point.values())
    error = np.abs(np.asarray(net.read(free.state, xs[0])) - theirs).max()
    print(f"  outputs apart by          {error:10.2e} V   ({error / largest:.1e} of the largest voltage; float32, "
          "ideal diodes against near-ideal ones)")  # fmt: skip


def real_diodes_against_ngspice(circuits: int, n: int) -> None:
    """Random circuits with Shockley diodes between any nodes: the largest difference of any node's voltage."""
    settle = eqx.filter_jit(lambda net, x: net.relax(x))
    rng = np.random.default_rng(0)
    tree = [(k, int(rng.integers(k))) for k in range(1, n)]
    chords = [tuple(rng.choice(n, 2, replace=False).tolist()) for _ in range(n)]
    diodes = [tuple(rng.choice(np.arange(-1, n), 2, replace=False).tolist()) for _ in range(n // 2)]
    edges = [*tree, *chords, (n - 1, -1)]
    errors, unsettled = [], 0
    for _ in range(circuits):
        net = ResistorNetwork.from_edges(
            edges,
            n,
            inputs=[0, 1],
            outputs=[n - 1],
            conductance=10 ** rng.uniform(-5, -2, len(edges)),
            diodes=diodes,
            diode=Shockley(jnp.asarray(10 ** rng.uniform(-14, -9)), jnp.asarray(rng.uniform(0.02, 0.06))),
            current_sources=[(-1, n - 1, 1e-3 * rng.normal())],
        )
        x = jnp.asarray(2 * rng.normal(size=2))
        found = settle(net, x)
        unsettled += not bool(found.converged)
        point = operating_point(net.to_netlist(x))
        theirs = np.array([point[f"n{k}"] for k in range(n)])
        errors.append(np.abs(np.asarray(net.voltages(found.state, x)) - theirs).max() / np.abs(theirs).max())
    print(f"{circuits} circuits with real diodes: {n} nodes, {len(edges)} resistors, {len(diodes)} diodes; float64")
    print(f"  did not settle            {unsettled:10d}")
    print(f"  apart, worst and median   {max(errors):10.1e}, {statistics.median(errors):.1e} of the largest voltage "
          "(wanted 1e-6)")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[784, 100, 10], help="inputs, hidden layers, outputs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one ngspice process")
    parser.add_argument("--circuits", type=int, default=50, help="random circuits with real diodes")
    parser.add_argument("--nodes", type=int, default=40, help="nodes of each random circuit")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)  # for the circuits with real diodes; the layered network is float32
    layered_against_ngspice(tuple(options.sizes), options.rounds, options.batch, options.timeout)
    real_diodes_against_ngspice(options.circuits, options.nodes)


if __name__ == "__main__":
    main()
