"""A linear resistor lattice of 300 x 300 nodes: our operating point against scipy.sparse.linalg.spsolve.

    python benchmarks/lattice.py

Both solve the same matrix in float64 in the same run, taking turns; medians. Ours is timed from the input to the
equilibrium with its residual and energy, spsolve from the assembled matrix to the voltages.
"""

from __future__ import annotations

import argparse
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from substrates import ResistorNetwork


def laplacian(net, clamped: np.ndarray):
    """The conductance matrix of the free nodes and their coupling to the clamped ones, by SciPy alone."""
    i, j = np.asarray(net.edges).T
    g = np.asarray(net.conductance)
    rows, columns = np.concatenate([i, j, i, j]), np.concatenate([j, i, i, j])
    full = scipy.sparse.coo_array((np.concatenate([-g, -g, g, g]), (rows, columns)), shape=(net.n, net.n)).tocsr()
    free = np.setdiff1d(np.arange(net.n), clamped)
    return full[free][:, free].tocsc(), full[free][:, clamped]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    side = options.side
    rng = np.random.default_rng(0)
    inputs = [0, side * side - 1]
    net = ResistorNetwork.lattice(
        (side, side),
        inputs=inputs,
        outputs=[side * side // 2],
        conductance=rng.uniform(0.5, 1.5, 2 * side * (side - 1)),
    )
    x = jnp.array([1.0, -1.0])
    matrix, coupling = laplacian(net, np.array(inputs))
    known = -coupling @ np.asarray(x)
    relax = eqx.filter_jit(lambda net, x: net.relax(x))
    found = relax(net, x)
    wanted = scipy.sparse.linalg.spsolve(matrix, known)
    times: dict[str, list[float]] = {"ours": [], "spsolve": []}
    for _ in range(options.rounds):
        began = time.perf_counter()
        jax.block_until_ready(relax(net, x))
        times["ours"].append(time.perf_counter() - began)
        began = time.perf_counter()
        scipy.sparse.linalg.spsolve(matrix, known)
        times["spsolve"].append(time.perf_counter() - began)
    ours, theirs = (statistics.median(times[name]) for name in times)
    print(f"{side} x {side} nodes, {len(net.edges):,} resistors, {options.rounds} rounds: {found}")
    print(f"  apart by           {np.abs(np.asarray(found.state) - wanted).max():.1e} V")
    print(f"  scipy's spsolve    {theirs:8.4f} s")
    print(f"  ours               {ours:8.4f} s, {ours / theirs:.2f} times spsolve (wanted at most 1.5)")


if __name__ == "__main__":
    main()
