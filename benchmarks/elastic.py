"""Stretched disordered triangular lattices: our equilibrium against SciPy's L-BFGS-B with compiled JAX gradients.

    python benchmarks/elastic.py                    # 64 x 64 and 256 x 256 nodes, cold and warm (three minutes)
    python benchmarks/elastic.py --sides 64 --fire  # with FIRE's iterations

Nodes are shifted by up to 5 % of the spacing, the left side is clamped and the right side pulled out by 10 %; float64.
Both contenders start from the affine deformation, take turns, and medians are reported. Ours goes on until no force
exceeds 1e-10 (stiffness and spacing are 1) and certifies that it is at a minimum; SciPy stops where the rounding of
the energy stops it. Programs are compiled, and the order of elimination known, before the clock starts.

Cold: stiffnesses that were not seen before, so that the Hessian is factorised inside the clock. Warm: a step of
training moves every stiffness by up to 0.1 % and both contenders settle again from the equilibrium before it; ours
keeps the factor that was made at the first one.
"""

from __future__ import annotations

import argparse
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from substrates import ElasticNetwork
from substrates.classical.elastic import FIRE, ElasticEquilibrium, anchor_of

FORCE = 1e-10


def stretched(side: int, seed: int) -> tuple[ElasticNetwork, jax.Array]:
    """The lattice, and the input that stretches it by 10 %."""
    net = ElasticNetwork.lattice(
        "triangular",
        (side, side),
        clamped=["left"],
        inputs=[{"right": (1.0, 0.0)}],
        outputs=[side // 2 * (side + 1)],
        disorder=0.05,
        key=jax.random.key(seed),
    )
    return net, jnp.array([0.1 * (side - 1)])


def jittered(net: ElasticNetwork, draw: np.random.Generator, size: float) -> ElasticNetwork:
    """The network with every stiffness moved by up to a part `size` of itself."""
    factors = 1 + size * draw.uniform(-1, 1, net.stiffness.shape)
    return eqx.tree_at(lambda n: n.stiffness, net, net.stiffness * factors)


settle = eqx.filter_jit(lambda net, x, start, solver: net.relax(x, start=start, solver=solver))
begin = eqx.filter_jit(lambda net, x: net.initial_state(x))


@eqx.filter_jit
def energy_and_gradient(net, x, flat):
    state = flat.reshape(net.topology.state_shape)
    return net.energy(state, x), -net.force(state, x).reshape(-1)


def scipy_settle(net, x, start):
    """SciPy's answer, its positions and what it says."""

    def function(flat):
        energy, gradient = energy_and_gradient(net, x, flat)
        return float(energy), np.asarray(gradient)

    options = {"maxiter": 100_000, "maxfun": 200_000, "ftol": 0.0, "gtol": FORCE, "maxcor": 20}
    return scipy.optimize.minimize(function, np.asarray(start).ravel(), jac=True, method="L-BFGS-B", options=options)


def clock(run):
    began = time.perf_counter()
    found = jax.block_until_ready(run())
    return time.perf_counter() - began, found


def compare(side: int, rounds: int, seed: int) -> dict[str, float]:
    """Times both, cold and warm; prints what they found, and returns the medians of ours and of the ratios."""
    net, x = stretched(side, seed)
    draw = np.random.default_rng(seed)
    start = begin(net, x)
    cold = ElasticEquilibrium(absolute_tolerance=FORCE, relative_tolerance=0.0)
    first = settle(net, x, start, cold)
    warm = eqx.tree_at(lambda s: s.anchor, cold, anchor_of(net, first.state, x), is_leaf=lambda leaf: leaf is None)
    jax.block_until_ready(settle(net, x, first.state, warm))
    scipy_settle(net, x, first.state)
    contests = {
        "cold": (cold, lambda: (jittered(net, draw, 1e-2), start)),
        "warm": (warm, lambda: (jittered(net, draw, 1e-3), first.state)),
    }
    medians = {}
    print(f"{side} x {side} nodes, {len(net.edges):,} springs, {rounds} rounds")
    for name, (solver, problem) in contests.items():
        times: dict[str, list[float]] = {"ours": [], "scipy": []}
        apart = []
        for _ in range(rounds):
            moved, origin = problem()
            ours_time, ours = clock(lambda m=moved, s=origin, solver=solver: settle(m, x, s, solver))
            theirs_time, theirs = clock(lambda m=moved, s=origin: scipy_settle(m, x, s))
            times["ours"].append(ours_time)
            times["scipy"].append(theirs_time)
            apart.append(abs(float(ours.energy) - theirs.fun) / theirs.fun)
            assert bool(ours.converged), str(ours)
        ours_median, theirs_median = (statistics.median(values) for values in times.values())
        medians[name], medians[f"{name} ratio"] = ours_median, theirs_median / ours_median
        print(
            f"  {name}: ours {ours_median:8.4f} s ({int(ours.steps)} steps, force {float(ours.residual):.1e}), "
            f"SciPy {theirs_median:8.3f} s ({theirs.nit} iterations, force {np.abs(theirs.jac).max():.1e}): "
            f"{theirs_median / ours_median:6.1f} times; energies within {max(apart):.1e}"
        )
    return medians


def fire_iterations(side: int, seed: int) -> None:
    net, x = stretched(side, seed)
    solver = FIRE(absolute_tolerance=FORCE, relative_tolerance=0.0)
    seconds, found = clock(lambda: settle(net, x, begin(net, x), solver))
    print(f"  FIRE on {side} x {side} nodes, {seconds:.1f} s with its compilation: {found}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fire", action="store_true", help="settle the lattices by FIRE, too")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    per_node = {}
    for side in options.sides:
        medians = compare(side, options.rounds, options.seed)
        per_node[side] = medians["cold"] / side**2
        if options.fire:
            fire_iterations(side, options.seed)
    smallest = min(per_node)
    for side, seconds in per_node.items():
        print(f"{side} x {side}: {1e6 * seconds:.2f} us per node, {seconds / per_node[smallest]:.2f} times as at "
              f"{smallest} x {smallest}")  # fmt: skip


if __name__ == "__main__":
    main()
