"""Spins in a transverse field: ground states beside QuTiP, large systems, nudges, gradients, free fermions, iris.

    python benchmarks/transverse_ising.py --speed      # 16 spins beside QuTiP's sparse groundstate
    python benchmarks/transverse_ising.py --large 20   # time and memory of one ground state; 20, 22 or 24 spins
    python benchmarks/transverse_ising.py --nudged     # products with H, free and nudged
    python benchmarks/transverse_ising.py --slopes     # EP beside finite differences, over five decades of beta
    python benchmarks/transverse_ising.py --fermions   # a chain of 2,000 spins and its gradient
    python benchmarks/transverse_ising.py --batch      # 100 inputs on 12 spins beside QuTiP
    python benchmarks/transverse_ising.py --iris       # 4 clamped inputs and 6 free spins, test accuracy of 10 seeds

Spins: chains with next-nearest neighbours, J and b normal with standard deviations 1 and 0.3, h uniform in (0.5, 1.5),
by numpy's default_rng(seed). Float64; times exclude compilation; contenders take turns, medians. With `--processor`
times are seconds of all threads of the process, which depend less on what else the machine does.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from scipy.special import softmax
from slopes import central_differences, report_slopes

from learning import EquilibriumPropagation, SquaredError, evaluate, fit, load_data
from substrates import Nudge, TransverseFieldIsing
from substrates.quantum import FreeFermionChain
from substrates.quantum.eigensolvers import EigenstateSolver
from substrates.substrate import relax_batch

jax.config.update("jax_enable_x64", True)

NONE = jnp.zeros(0)
OPERATOR = lambda output, target: jnp.sum(output)
SOLVER = EigenstateSolver(absolute=1e-8)
relax = eqx.filter_jit(lambda net, x, nudge, start, solver: net.relax(x, nudge, start, solver=solver))


def parameters(n: int, seed: int) -> dict:
    draw = np.random.default_rng(seed)
    edges = [(i, i + 1) for i in range(n - 1)] + [(i, i + 2) for i in range(n - 2)]
    return {
        "edges": edges,
        "coupling": draw.normal(size=len(edges)),
        "longitudinal_field": 0.3 * draw.normal(size=n),
        "transverse_field": draw.uniform(0.5, 1.5, n),
    }


def spins(n: int, seed: int, **options) -> TransverseFieldIsing:
    values = parameters(n, seed)
    return TransverseFieldIsing.from_edges(values.pop("edges"), n, **values, **options)


def qutip_operators(n: int, edges: list) -> list:
    """-dH/dtheta of every coupling, longitudinal and transverse field."""
    import qutip

    place = lambda op, *at: qutip.tensor([op if i in at else qutip.qeye(2) for i in range(n)])
    fields = [place(op, i) for op in (qutip.sigmaz(), qutip.sigmax()) for i in range(n)]
    return [place(qutip.sigmaz(), i, j) for i, j in edges] + fields


def qutip_hamiltonian(n: int, seed: int):
    values = parameters(n, seed)
    operators = qutip_operators(n, values.pop("edges"))
    terms = [-value * term for value, term in zip(np.concatenate(list(values.values())), operators, strict=True)]
    return sum(terms[1:], terms[0])


def timed(clock: Callable[[], float], function, *arguments):
    began = clock()
    found = jax.block_until_ready(function(*arguments))
    return clock() - began, found


def speed(rounds: int, clock: Callable[[], float]) -> None:
    n, ratios, firsts, times = 16, [], [], {"ours": [], "qutip": []}
    relax(spins(n, 99), NONE, None, None, SOLVER).energy.block_until_ready()
    for seed in range(rounds):
        net = spins(n, seed)
        time.sleep(0.3)  # threads of QuTiP's linear algebra wait busily for a while after their work
        calls = [timed(clock, relax, net, NONE, None, None, SOLVER) for _ in range(3)]
        ours, found = statistics.median(seconds for seconds, _ in calls), calls[0][1]
        began = clock()
        energy, _ = qutip_hamiltonian(n, seed).groundstate(sparse=True)
        theirs = clock() - began
        times["ours"].append(ours)
        times["qutip"].append(theirs)
        ratios.append(theirs / ours)
        firsts.append(theirs / calls[0][0])
        print(f"seed {seed}: ours {ours:.4f} s ({calls[0][0]:.4f} the first call), {int(found.steps)} products; QuTiP "
              f" {theirs:.3f} s; energies differ by {abs(float(found.energy) - energy):.1e}, residual "
              f"{float(found.residual):.1e}")  # fmt: skip
    print(f"medians: ours {statistics.median(times['ours']):.4f} s, QuTiP {statistics.median(times['qutip']):.3f} s, "
          f"ratio {statistics.median(ratios):.1f} (wanted 15, better 25), smallest {min(ratios):.1f}; with the first "
          f"call of three {statistics.median(firsts):.1f}")  # fmt: skip


def large(n: int, clock: Callable[[], float]) -> None:
    net = spins(n, 0)
    first, _ = timed(clock, relax, net, NONE, None, None, SOLVER)
    again, found = timed(clock, relax, spins(n, 1), NONE, None, None, SOLVER)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{n} spins: {first:.2f} s with compilation, {again:.2f} s without; {found}; peak memory {memory:.2f} GB")


def nudged() -> None:
    for n in (12, 14, 16):
        for name in ("Z3", "X3", "Z3 Z4"):
            free_steps, tight, loose = [], [], []
            for seed in range(5):
                net = spins(n, seed, outputs=(name,))
                free = relax(net, NONE, None, None, SOLVER)
                about = net.read(free.state, NONE)
                free_steps.append(int(free.steps))
                for beta in (0.01, -0.01):
                    nudge = jax.tree.map(jnp.asarray, Nudge(OPERATOR, about, beta, about))
                    for parts, solver in ((tight, SOLVER), (loose, EigenstateSolver(absolute=1e-6))):
                        parts.append(int(relax(net, NONE, nudge, free.state, solver).steps) / free_steps[-1])
            print(f"{n} spins, cost {name:<6} free {free_steps} products; nudged, parts of that: at 1e-8 at most "
                  f"{max(tight):.2f}, mean {np.mean(tight):.2f} (0.7); at 1e-4 beta at most {max(loose):.2f}, mean "
                  f"{np.mean(loose):.2f} (0.5)")  # fmt: skip


def slopes() -> None:
    """<Z_5>, <X_2>, <Z_0 Z_1> of 6 spins, squared error; the exact loss by diagonalising QuTiP's matrices."""
    n, temperature, target = 6, 0.5, np.array([0.5, -0.2, 0.3])
    values = parameters(n, 0)
    edges = values.pop("edges")
    operators = np.array([operator.full().real for operator in qutip_operators(n, edges)])
    read = operators[[len(edges) + 5, len(edges) + n + 2, edges.index((0, 1))]]
    net = spins(n, 0, outputs=(5, "X2", "Z0 Z1"))
    excited = spins(n, 0, outputs=(5, "X2", "Z0 Z1"), level=1)
    only = lambda level: lambda levels: np.arange(levels.size) == level
    cases = {
        "ground state": (net, only(0)),
        "first excited state": (excited, only(1)),
        f"Gibbs state at T = {temperature}": (
            net.ensemble(temperature),
            lambda e: softmax(-e / temperature),
        ),
    }
    for name, (system, occupation) in cases.items():

        def loss(theta: np.ndarray, occupation=occupation) -> float:
            levels, vectors = np.linalg.eigh(-np.tensordot(theta, operators, axes=1))
            means = np.sum(vectors * (read @ vectors), axis=1) @ occupation(levels)
            return 0.5 * np.sum((means - target) ** 2)

        def gradient(variant: str, beta: float, system=system) -> np.ndarray:
            found = EquilibriumPropagation(jnp.asarray(beta), variant)(system, jnp.zeros((1, 0)), target[None]).gradient
            return np.asarray(ravel_pytree(found)[0])

        wanted = central_differences(loss, np.concatenate(list(values.values())), step=1e-3)
        report_slopes(f"{n} spins, {name}", gradient, wanted)


def fermions(n: int, clock: Callable[[], float]) -> None:
    draw = np.random.default_rng(0)
    values = {"coupling": draw.uniform(0.5, 1.5, n - 1), "transverse_field": draw.uniform(1.0, 2.0, n)}
    chain = FreeFermionChain.chain(n, **values, outputs=(f"X{n // 2}",))
    settle = eqx.filter_jit(lambda c: c.relax(NONE))
    first, _ = timed(clock, settle, chain)
    again, found = timed(clock, settle, chain)
    print(
        f"{n} spins: {first:.2f} s with compilation, {again:.2f} s without (wanted 10 s); {found}; mean <ZZ> "
        f"{float(jnp.mean(chain.bond_means(found.state))):.6f}"
    )
    rule = EquilibriumPropagation(1e-4, cost=OPERATOR)
    seconds, estimate = timed(clock, lambda: rule(chain, jnp.zeros((1, 0)), jnp.ones((1, 1))).gradient)
    left, singular, right = np.linalg.svd(np.asarray(chain.matrix(NONE)))
    skew = np.outer(left[n // 2], right[:, n // 2]) / (singular[:, None] + singular)
    wanted = left @ (skew - skew.T) @ right
    errors = [np.diagonal(wanted) - estimate.transverse_field, np.diagonal(wanted, 1) - estimate.coupling]
    error = max(np.abs(e).max() for e in errors) / np.abs(wanted).max()
    print(f"EP gradient of <X_{n // 2}> in {seconds:.1f} s, against the exact derivative: {error:.1e} (wanted 1e-6)")


def batch(rounds: int, clock: Callable[[], float]) -> None:
    import qutip

    n, count = 12, 100
    net = spins(n, 0, inputs=(0, 1, 2, 3))
    xs = np.random.default_rng(1).normal(size=(count, 4))
    settle = lambda: relax_batch(net, jnp.asarray(xs)).energy
    settle().block_until_ready()
    ratios = []
    for _ in range(rounds):
        ours, energies = timed(clock, settle)
        began = clock()
        base = qutip_hamiltonian(n, 0)
        fields = [qutip.tensor([qutip.sigmaz() if i == j else qutip.qeye(2) for i in range(n)]) for j in range(4)]
        theirs = [(base - sum(v * z for v, z in zip(x, fields, strict=True))).groundstate(sparse=True)[0] for x in xs]
        seconds = clock() - began
        ratios.append(seconds / ours)
        off = np.abs(np.asarray(energies) - theirs).max()
        print(f"ours {ours:.3f} s, QuTiP {seconds:.2f} s (H built once), energies differ by at most {off:.1e}")
    print(f"median ratio {statistics.median(ratios):.1f} (wanted 10)")


def iris(seeds: int, validation: bool, epochs: int, rate: float, beta: float) -> None:
    right = []
    for seed in range(seeds):
        data = load_data("iris", seed=seed)
        build, train = jax.random.split(jax.random.key(seed))
        net = TransverseFieldIsing.for_task(4, 3, key=build)
        rule = EquilibriumPropagation(beta, cost=SquaredError(), linearised=True)
        batches = -(-len(data.train[1]) // 10)
        schedule = optax.exponential_decay(rate, batches, 0.95)
        run = fit(net, rule, data.train, optimiser=optax.adam(schedule), epochs=epochs, key=train, batch_size=10)
        part = data.validation if validation else data.test
        right.append(100 * evaluate(run.substrate, part).accuracy)
        print(f"seed {seed}: {right[-1]:.1f} % in {run.seconds:.1f} s", flush=True)
    which = "validation" if validation else "test"
    print(f"{which} accuracy, mean of {seeds} seeds: {np.mean(right):.2f} +- {np.std(right):.2f} % (wanted 93)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--large", type=int, metavar="N")
    parser.add_argument("--nudged", action="store_true")
    parser.add_argument("--slopes", action="store_true")
    parser.add_argument("--fermions", action="store_true")
    parser.add_argument("--batch", action="store_true")
    parser.add_argument("--iris", action="store_true")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--validation", action="store_true", help="judge by the validation part, to choose settings")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--rate", type=float, default=0.03)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument(
        "--processor", action="store_true", help="count processor seconds, for a machine that is shared"
    )
    options = parser.parse_args()
    clock = time.process_time if options.processor else time.perf_counter
    if options.speed:
        speed(options.rounds, clock)
    if options.large:
        large(options.large, clock)
    if options.nudged:
        nudged()
    if options.slopes:
        slopes()
    if options.fermions:
        fermions(2000, clock)
    if options.batch:
        batch(options.rounds, clock)
    if options.iris:
        iris(options.seeds, options.validation, options.epochs, options.rate, options.beta)


if __name__ == "__main__":
    main()
