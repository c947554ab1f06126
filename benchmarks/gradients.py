"""How exact equilibrium propagation is: its bias in beta, and what float32 leaves of it.

    python benchmarks/gradients.py

Bias: random circuits in float64, centred and one-sided, against implicit differentiation, over three decades of beta.
float32: the first layer of deep resistive networks at the published sizes, gains and nudges (three hidden layers at
gain 4000) against float64, batch 4, at initialisation; the stable contrast beside the plain difference.
"""

from __future__ import annotations

import argparse

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from learning import EquilibriumPropagation, ImplicitGradient
from substrates import ResistorNetwork, Shockley
from substrates.substrate import Nudge, relax_batch, split_parameters


def graph(seed: int, **options):
    """A random circuit of 12 nodes: a tree, twelve more resistors, two inputs, three outputs; one shape for all."""
    rng = np.random.default_rng(0)
    tree = [(k, int(rng.integers(k))) for k in range(1, 12)]
    chords = [tuple(rng.choice(12, 2, replace=False).tolist()) for _ in range(12)]
    conductance = np.random.default_rng(seed).uniform(0.5, 1.5, 23)
    diodes = [(4, 5), (6, 7), (8, -1)] if options else []
    return ResistorNetwork.from_edges(
        [*tree, *chords], 12, inputs=[0, 1], outputs=[9, 10, 11], conductance=conductance, diodes=diodes, **options
    )


def deep(seed: int):
    return ResistorNetwork.layered(
        (2, 12, 8, 3), key=jax.random.key(seed), input_gain=5.0, rails=(1.0, -1.0), amplifiers=[(2.0, 2.0)] * 2
    )


def bias(circuits: int) -> None:
    betas = 10.0 ** np.arange(-5, -1.5, 0.5)
    flat = lambda estimate: ravel_pytree(estimate.gradient)[0]
    implicit = eqx.filter_jit(lambda net, x, y: flat(ImplicitGradient()(net, x, y)))
    real = Shockley(jnp.asarray(1e-6), jnp.asarray(0.05))
    kinds = {
        "resistors": graph,
        "resistors and real diodes": lambda seed: graph(seed, diode=real),
        "deep, with ideal diodes": deep,
    }
    print(f"bias against implicit differentiation, median relative error over {circuits} random circuits, float64;")
    print("  beta " + " ".join(f"{beta:.0e}" for beta in betas) + "; the slope is over all of them")
    for kind, build in kinds.items():
        for variant in ("positive", "negative", "centered"):
            table = np.zeros((circuits, betas.size))
            for circuit in range(circuits):
                net = build(circuit)
                x = jax.random.normal(jax.random.key(1000 + circuit), (4, 2))
                y = jax.random.normal(jax.random.key(2000 + circuit), (4, 3))
                exact = implicit(net, x, y)
                for k, beta in enumerate(betas):
                    found = flat(EquilibriumPropagation(beta=float(beta), variant=variant)(net, x, y))
                    table[circuit, k] = jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)
            medians = np.median(table, axis=0)
            slope = np.polyfit(np.log(betas), np.log(medians), 1)[0]
            shown = " ".join(f"{m:.0e}" for m in medians)
            print(f"  {kind:26} {variant:9} {shown}   slope {slope:.3f}   best {medians.min():.1e}")


def rounding(rounds: int) -> None:
    models = {1: (480.0, 1.0), 2: (2000.0, 1.0), 3: (4000.0, 2.0)}
    print("float32 against float64: cosine of the first layer's gradient, 2x784-1024-...-10, batch 4, worst of "
          f"{rounds} seeds")  # fmt: skip
    for hidden, (gain, beta) in models.items():
        cosines: dict[str, list[float]] = {"contrast": [], "difference": []}
        for seed in range(rounds):
            exact = ResistorNetwork.layered(
                (784, *[1024] * hidden, 10), key=jax.random.key(seed), input_gain=gain, dtype=jnp.float64
            )
            keys = jax.random.split(jax.random.key(100 + seed), 3)
            inked = jax.random.bernoulli(keys[0], 0.19, (4, 784))
            x = jnp.where(inked, jax.random.uniform(keys[1], (4, 784)), 0.0)
            y = jax.nn.one_hot(jax.random.randint(keys[2], (4,), 0, 10), 10)
            reference = _first_layer(exact, x, y, beta)["contrast"]
            single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (split_parameters(exact), x, y))
            (parameters, rest), x32, y32 = single
            for name, found in _first_layer(eqx.combine(parameters, rest), x32, y32, beta).items():
                found = np.asarray(found, float).ravel()
                wanted = np.asarray(reference).ravel()
                cosines[name].append(found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted))
        print(f"  {hidden} hidden, gain {gain:4.0f}, beta {beta:.0f}:  contrast {min(cosines['contrast']):.5f}   "
              f"plain difference {min(cosines['difference']):.5f}")  # fmt: skip


@eqx.filter_jit
def _first_layer(net, x, y, beta):
    from learning import SquaredError

    free = relax_batch(net, x)
    beta = jnp.asarray(beta, x.dtype)
    plus, minus = (relax_batch(net, x, Nudge(SquaredError(), y, b), free.state).state for b in (beta, -beta))
    difference = net.measure(plus, x).conductance[0] - net.measure(minus, x).conductance[0]
    return {"contrast": net.contrast(plus, minus, x).conductance[0], "difference": difference}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--circuits", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5, help="of the float32 comparison")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    bias(options.circuits)
    rounding(options.seeds)


if __name__ == "__main__":
    main()
