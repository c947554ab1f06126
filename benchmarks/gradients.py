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
from substrates import ResistorNetwork
from substrates.substrate import Nudge, relax_batch, split_parameters


def bias(circuits: int) -> None:
    betas = 10.0 ** np.arange(-5, -1.5, 0.5)
    estimate = eqx.filter_jit(lambda rule, net, x, y: ravel_pytree(rule(net, x, y).gradient)[0])
    errors = {variant: np.zeros((circuits, betas.size)) for variant in ("positive", "negative", "centered")}
    for circuit in range(circuits):
        net = ResistorNetwork.layered(
            (4, 12, 8, 3), key=jax.random.key(circuit), input_gain=5.0, rails=(1.0, -1.0), amplifiers=[(2.0, 2.0)] * 2
        )
        x = jax.random.normal(jax.random.key(1000 + circuit), (4, 4))
        y = jax.random.normal(jax.random.key(2000 + circuit), (4, 3))
        exact = estimate(ImplicitGradient(), net, x, y)
        for variant, table in errors.items():
            for k, beta in enumerate(betas):
                rule = EquilibriumPropagation(beta=jnp.asarray(beta), variant=variant)
                found = estimate(rule, net, x, y)
                table[circuit, k] = jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)
    print(f"bias against implicit differentiation: median relative error over {circuits} random circuits, float64")
    print("  beta      " + "".join(f"{beta:9.0e}" for beta in betas) + "   slope, 1e-4 to 1e-2   best")
    for variant, table in errors.items():
        medians = np.median(table, axis=0)
        window = slice(2, 7)
        slope = np.polyfit(np.log(betas[window]), np.log(medians[window]), 1)[0]
        print(f"  {variant:10}" + "".join(f"{m:9.1e}" for m in medians) + f"   {slope:19.3f}   {medians.min():.1e}")


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
