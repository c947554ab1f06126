"""Another graph of the same sizes compiles nothing, and a free phase is a nudge of strength 0."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learning import EquilibriumPropagation, SquaredError
from substrates import (
    FreeFermionChain,
    HamiltonianSubstrate,
    Nudge,
    QuantumOscillatorNetwork,
    TransverseFieldIsing,
)
from substrates.quantum.eigensolvers import EigenstateSolver

NODES, EDGES = 8, 11


def random_edges(draw):
    pairs = np.stack(np.triu_indices(NODES, 1), axis=1)
    return draw.permutation(draw.choice(pairs, EDGES, replace=False))


def spins(seed):
    draw = np.random.default_rng(seed)
    return TransverseFieldIsing.from_edges(
        random_edges(draw),
        NODES,
        coupling=draw.normal(size=EDGES),
        transverse_field=draw.uniform(0.5, 1.5, NODES),
        longitudinal_field=draw.normal(size=NODES),
        inputs=(0, 3),
        outputs=(1, "X2"),
    )


def clamped_spins(seed):
    return dataclasses.replace(spins(seed), inputs=(0,), entry="clamps", outputs=small().outputs)


def small():
    return TransverseFieldIsing.chain(NODES - 1, outputs=(1, "X2"))


def oscillators(seed):
    draw = np.random.default_rng(seed)
    return QuantumOscillatorNetwork.from_edges(
        random_edges(draw),
        NODES,
        inputs=[0, 3],
        outputs=[1, 2],
        stiffness=draw.uniform(0.1, 1.5, EDGES),
        onsite_stiffness=draw.uniform(0.2, 2.0, NODES),
        mass=draw.uniform(0.5, 2.0, NODES),
    )


@pytest.mark.parametrize("make", [spins, clamped_spins, oscillators])
def test_another_graph_of_the_same_sizes_compiles_nothing(make):
    traced = {"relax": 0, "gradient": 0, "constrained": 0}
    rule = EquilibriumPropagation(0.01)

    def counted(name, function):
        def run(*arguments):
            traced[name] += 1
            return function(*arguments)

        return eqx.filter_jit(run)

    relax = counted("relax", lambda net, x: net.relax(x).state)
    gradient = counted("gradient", lambda net, xs, ys: dataclasses.replace(rule, strict=False)(net, xs, ys).gradient)
    constrained = counted("constrained", lambda net: net.constrained())
    shown = []
    for seed in range(10):
        net = make(seed)
        x = jnp.linspace(0.3, 0.6, len(net.inputs))
        state = relax(net, x)
        found = gradient(net, jnp.stack([x, -x]), jnp.array([[0.2, -0.1], [0.4, 0.3]]))
        constrained(net)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((state, found)))
        shown.append(np.asarray(net.read(state, x)))
    assert traced == {"relax": 1, "gradient": 1, "constrained": 1}
    assert len(np.unique(np.round(shown, 6), axis=0)) == 10


def matrices(is_complex):
    draw = np.random.default_rng(7)
    terms = draw.normal(size=(3, 6, 6)) + (1j if is_complex else 0) * draw.normal(size=(3, 6, 6))
    terms = [(term + term.conj().T) / 2 for term in terms]
    return HamiltonianSubstrate.from_operators(terms, [0.7, -1.1, 0.4], drives=[terms[1]], outputs=[terms[0], terms[2]])


PRODUCTS = EigenstateSolver(dense=0)
KINDS = {
    "spins": (lambda: spins(1), None),
    "a few spins": (lambda: TransverseFieldIsing.chain(4, inputs=(0,), outputs=(1, "Z0 Z1")), None),
    "excited spins": (lambda: dataclasses.replace(spins(1), level=1), None),
    "clamped spins": (lambda: clamped_spins(2), None),
    "matrices": (lambda: matrices(False), None),
    "complex matrices by products": (lambda: matrices(True), PRODUCTS),
    "an ensemble": (lambda: TransverseFieldIsing.chain(3, inputs=(0,), outputs=(1, "X2")).ensemble(0.7), None),
    "fermions": (lambda: FreeFermionChain.chain(5, coupling=0.7, inputs=(0,), outputs=("X0", "Z2 Z3")), None),
    "oscillators": (lambda: oscillators(1), None),
    "oscillators at a temperature": (lambda: oscillators(1).at_temperature(0.4), None),
    "moments of oscillators": (lambda: dataclasses.replace(oscillators(1), reading="moments"), None),
    "classical oscillators": (lambda: oscillators(1).with_hbar(0.0), None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_free_phase_is_a_nudge_of_strength_0(kind):
    make, solver = KINDS[kind]
    net = make()
    x = jnp.linspace(0.3, 0.5, (net.model if hasattr(net, "model") else net).input_size)
    relax = eqx.filter_jit(lambda net, x, nudge, start: net.relax(x, nudge, start, solver=solver))
    cold = net.initial_state(x)
    free = relax(net, x, None, cold)
    assert free.converged
    target = 0.5 * net.read(free.state, x)
    nudged = relax(net, x, Nudge(SquaredError(), target, jnp.asarray(0.02)), free.state)
    assert nudged.converged
    for start in (cold, nudged.state):
        wanted = relax(net, x, None, start)
        found = relax(net, x, Nudge(SquaredError(), target, jnp.asarray(0.0)), start)
        assert found.status == wanted.status
        assert int(found.steps) == int(wanted.steps)
        for a, b in zip(jax.tree.leaves(found.state), jax.tree.leaves(wanted.state), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
        np.testing.assert_allclose(found.energy, wanted.energy, rtol=1e-12)
        np.testing.assert_allclose(found.residual, wanted.residual, atol=1e-14)
