"""One training step of a motion of 10,000 steps, by its Hamiltonian echo, against one integration by leapfrog.

    python benchmarks/trajectory.py

Float64, four coupled pendulums, compiled; both in the same run, taking turns; the shortest processor times, of all
threads, for a pass is milliseconds and any other work on the machine shows. Beside them back-propagation
through all steps, which stores them, with how far the gradients are apart and what memory each needs.
"""

from __future__ import annotations

import argparse
import time

import equinox as eqx
import jax
import jax.numpy as jnp

from learning import HamiltonianEcho, SquaredError
from substrates import Trajectory
from substrates.classical.trajectory import CoupledPendulums, Samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    steps = options.steps
    law = CoupledPendulums.random(4, 2, frequency=1.5, key=jax.random.key(0))
    net = Trajectory.launched(
        law,
        [0.0, 0.5, -0.4, 0.1],
        [0.3, 0.0, 0.1, 0.0],
        duration=5e-3 * steps,
        steps=steps,
        meter=Samples([1, 2], [steps // 2, steps]),
        n_inputs=2,
    )
    x, y = jnp.array([0.8, -0.5]), jnp.array([0.3, 0.1, 0.2, 0.1])

    def echo(law, x):
        found = HamiltonianEcho(1e-5, strict=False)(eqx.tree_at(lambda net: net.lagrangian, net, law), x[None], y[None])
        return eqx.filter(found.gradient.lagrangian, eqx.is_array)

    def cost(law, x):
        moved = eqx.tree_at(lambda net: net.lagrangian, net, law)
        return SquaredError()(moved.read(moved.relax(x).state, x), y)

    through_time = lambda law, x: eqx.filter_grad(cost)(law, x)
    programs = {"integrate": lambda law, x: net.relax(x).state, "echo": echo, "through time": through_time}
    ready = {name: jax.jit(program).lower(law, x).compile() for name, program in programs.items()}
    found = {name: jax.block_until_ready(program(law, x)) for name, program in ready.items()}
    times: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(options.rounds):
        for name, program in ready.items():
            began = time.process_time()
            jax.block_until_ready(program(law, x))
            times[name].append(time.process_time() - began)
    one = min(times["integrate"])
    wanted = found["through time"]
    parts = [(found["echo"].weight, wanted.weight), (found["echo"].coupling, wanted.coupling)]
    gap = max(float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))) for a, b in parts)
    print(f"{steps:,} steps of {law.mass.size} pendulums, {options.rounds} rounds; shortest processor times")
    for name, program in ready.items():
        shortest, memory = min(times[name]), program.memory_analysis().temp_size_in_bytes
        print(f"  {name:14} {1e3 * shortest:8.2f} ms, {shortest / one:5.2f} integrations, {memory:10,} bytes")
    print(f"  echo against through time: {gap:.1e} apart; wanted at most 1e-8, and at most 5 integrations")
    print(f"  returns to the launch up to {float(net.retrace(x)):.1e}; wanted at most 1e-12")


if __name__ == "__main__":
    main()
