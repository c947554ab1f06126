"""Every public system once, small; run as a script it goes over what each can do in JAX's default precision.

python every_system.py FILE [NAME ...]      saves the parameters, inputs and states of each system
"""

import sys
import traceback

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np

from substrates import (
    ElasticNetwork,
    FreeFermionChain,
    HamiltonianSubstrate,
    HopfieldNetwork,
    IsingModel,
    OscillatorNetwork,
    PredictiveCodingCircuit,
    PredictiveCodingNetwork,
    QuantumOscillatorNetwork,
    RecurrentNetwork,
    ResistorNetwork,
    SmoothHopfieldNetwork,
    TransverseFieldIsing,
    keep_compiled,
)

KEY = jax.random.key(0)
SQUARE = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]
PAULI_X, PAULI_Y, PAULI_Z = np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])


def spins():
    coupling, field = np.array([0.7, -0.4, 0.9, 0.3, -0.6]), np.array([0.1, 0.3, -0.2, 0.4])
    return IsingModel.from_edges(SQUARE, coupling=coupling, field=field, inputs=[0], outputs=[2])


def quantum_spins(n, **options):
    return TransverseFieldIsing.chain(
        n, coupling=0.8, transverse_field=1.1, longitudinal_field=0.2, inputs=(0,), outputs=["Z1"], **options
    )


SYSTEMS = {
    "resistors": lambda: ResistorNetwork.from_edges(
        SQUARE, inputs=[0], outputs=[2], conductance=np.array([1.0, 0.5, 2.0, 0.7, 0.3]), diodes=[(-1, 1), (2, 3)]
    ),
    "resistors of a graph": lambda: ResistorNetwork.from_networkx(
        nx.cycle_graph(4), conductance=np.array([1.0, 0.5, 2.0, 0.7]), inputs=[0, 2], outputs=[1]
    ),
    "layered resistors": lambda: ResistorNetwork.for_task(3, 2, sizes=(4,), key=KEY),
    "springs": lambda: ElasticNetwork.for_task(2, 2, sizes=(3,), key=KEY),
    "spins": spins,
    "layered spins": lambda: IsingModel.layered((2, 4, 1), key=KEY),
    "spins at a temperature": lambda: spins().ensemble(0.8),
    "sampled spins": lambda: spins().sampled(2.0),
    "oscillators": lambda: OscillatorNetwork.for_task(3, 2, sizes=(4,), key=KEY),
    "continuous Hopfield": lambda: HopfieldNetwork.for_task(3, 2, sizes=(4,), key=KEY),
    "smooth Hopfield": lambda: SmoothHopfieldNetwork.for_task(3, 2, sizes=(4,), key=KEY),
    "predictive coding": lambda: PredictiveCodingNetwork.for_task(3, 2, sizes=(4,), key=KEY),
    "recurrent": lambda: RecurrentNetwork.for_task(3, 2, sizes=(4,), key=KEY),
    "predictive coding circuit": lambda: PredictiveCodingCircuit.for_task(3, 2, sizes=(4,), key=KEY),
    "quantum spins": lambda: quantum_spins(4),
    "excited quantum spins": lambda: quantum_spins(4, level=1),
    "seven quantum spins": lambda: quantum_spins(7),
    "quantum spins of a task": lambda: TransverseFieldIsing.for_task(2, 2, sizes=(7,), key=KEY),
    "quantum spins at a temperature": lambda: quantum_spins(3).ensemble(0.8),
    "quantum oscillators": lambda: QuantumOscillatorNetwork.for_task(2, 2, key=KEY),
    "free fermions": lambda: FreeFermionChain.chain(5, coupling=0.8, transverse_field=1.1, inputs=(0,), outputs=["X1"]),
    "matrices": lambda: HamiltonianSubstrate.from_operators(
        [PAULI_X, PAULI_Z], [0.7, 0.4], drives=[PAULI_Z], outputs=[PAULI_X]
    ),
    "complex matrices": lambda: HamiltonianSubstrate.from_operators(
        [PAULI_X, PAULI_Y], [0.7, 0.4], drives=[PAULI_Z], outputs=[PAULI_Y]
    ),
}

FITTED = "resistors", "springs", "spins", "continuous Hopfield", "quantum spins", "quantum oscillators"
"""Those that are trained for an epoch; the others' gradients alone are asked for."""

BETAS = {"springs": 1e-4, "predictive coding circuit": 0.5}
"""Strengths of the nudge, 0.01 where none is given: these springs hold their outputs more weakly than that, and 32 bits
tell errors of error neurons, which are differences, only where they are large."""

relax = eqx.filter_jit(lambda net, x, nudge, start, key: net.relax(x, nudge, start, key=key))


def input_size(net):
    return net.model.input_size if hasattr(net, "model") else net.input_size


def replaced(net, leaves):
    """The system with other arrays, in its own structure."""
    arrays, rest = eqx.partition(net, eqx.is_inexact_array)
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), leaves), rest)


class SquaredErrorCost(eqx.Module):
    """1/2 |o - y|^2."""

    separable = True

    def __call__(self, output, target):
        return 0.5 * jnp.sum((output - target) ** 2)


def narrow(what, tree):
    wide = [leaf.dtype for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf) and leaf.dtype != jnp.float32]
    assert not wide, f"{what}: wanted float32, got {wide}"
    values = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in values), f"{what}: not finite"


def go_over(name, net, x):
    """What a system can do, in 32 bits; returns its parameters, input and states as numpy arrays."""
    import optax

    from learning import EquilibriumPropagation, fit

    narrow("parameters", net)
    shown = net.read(net.start(x, KEY), x)
    narrow("read", shown)
    target = shown * 0.9 + 0.05
    data = (jnp.stack([x, x]), jnp.stack([target, target]))
    rule = EquilibriumPropagation(BETAS.get(name, 0.01), "centered", SquaredErrorCost())
    estimate = rule(net, *data, key=KEY)
    narrow("estimate", estimate)
    free = jax.tree.map(lambda leaf: leaf[0], estimate.equilibria[0])
    if net.conservative:
        narrow("measure", net.measure(jax.tree.map(lambda leaf: leaf[None], free.state), x[None]))
    if name in FITTED:
        run = fit(net, rule, data, optimiser=optax.sgd(1e-3), epochs=1, batch_size=2, key=KEY, progress=False)
        narrow("fit", run.substrate)
    if hasattr(net, "draw"):
        net.draw(free.state, x)
    leaves = jax.tree.leaves(eqx.filter(net, eqx.is_inexact_array))
    states = [np.asarray(leaf) for leaf in jax.tree.leaves(free.state)]
    return [np.asarray(leaf) for leaf in leaves], np.asarray(x), states


def bench_step():
    """One step of agnostic equilibrium propagation on a plant of resistors."""
    from learning import AgnosticEP
    from substrates import Plant

    net = SYSTEMS["resistors of a graph"]()
    plant = Plant(net, 0.1, inputs=2)
    moved = AgnosticEP(0.1).step(plant, np.array([[1.0, 0.0]]), np.array([[0.3]]))
    assert np.all(np.isfinite(moved.system.read().parameters))


def main(path, *names):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    keep_compiled()
    assert jnp.zeros(1).dtype == jnp.float32
    failed, saved = [], {}
    for name in names or SYSTEMS:
        try:
            net = SYSTEMS[name]()
            size = input_size(net)
            x = jnp.asarray(np.linspace(0.2, 0.6, size), jnp.float32)
            leaves, x, states = go_over(name, net, x)
            saved[f"{name}/x"] = x
            saved.update({f"{name}/leaf {k}": leaf for k, leaf in enumerate(leaves)})
            saved.update({f"{name}/state {k}": state for k, state in enumerate(states)})
        except Exception:
            failed.append(name)
            print(f"== {name}\n{traceback.format_exc(limit=-6)}", flush=True)
        matplotlib.pyplot.close("all")
        jax.clear_caches()
    try:
        bench_step()
    except Exception:
        failed.append("plant")
        print(f"== plant\n{traceback.format_exc(limit=-6)}", flush=True)
    np.savez(path, **saved)
    print("failed:", failed)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
