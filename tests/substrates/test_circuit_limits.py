"""Circuits at the limits of what has an operating point: shorts, nodes that float, amplifiers of any gain."""

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from scipy.optimize import brentq

from learning import EquilibriumPropagation
from learning.rule import ConvergenceError
from substrates import ResistorNetwork, Shockley, Status

SILICON = Shockley(jnp.asarray(1e-12), jnp.asarray(0.0258))


def shorted(volts, law=SILICON):
    net = ResistorNetwork.from_edges(
        [(0, 1)], inputs=[0], outputs=[1], rails={2: 0.0}, conductance=np.ones(1), diodes=[(0, 1), (1, 2)], diode=law
    )
    return net, net.relax(jnp.array([volts]))


@pytest.mark.parametrize("volts", [5.0, 50.0])
def test_diodes_that_short_a_source_are_no_circuit_with_a_solution(volts):
    assert bool(shorted(volts)[1].status == Status.infeasible)


def test_a_diode_between_two_held_nodes_leaves_the_rest_as_it_is():
    options = {"inputs": [0], "outputs": [1], "rails": {2: 0.0}, "conductance": np.ones(2)}
    net = ResistorNetwork.from_edges([(0, 1), (1, 2)], diodes=[(0, 2), (1, -1)], diode=SILICON, **options)
    bare = ResistorNetwork.from_edges([(0, 1), (1, 2)], diodes=[(1, -1)], diode=SILICON, **options)
    x = jnp.array([2.0])
    found = net.relax(x)
    assert bool(found.converged)
    np.testing.assert_allclose(found.state, bare.relax(x).state, rtol=1e-12)
    assert float(found.energy) == pytest.approx(float(net.energy(found.state, x)), rel=1e-12)


def test_a_diode_between_held_nodes_hides_no_step_of_the_others():
    """Its content of 1e30 W is no part of what falls on the way: the rest settles as without it."""
    edges, pairs = [(0, 2), (2, 3), (3, 4), (4, 1)], [(2, 3), (3, 4), (4, -1)]
    options = {"inputs": [0, 1], "outputs": [3], "conductance": np.array([1.0, 1e-3, 1e-2, 1e-5]), "diode": SILICON}
    x = jnp.array([3.0, 0.0])
    alone, beside = (
        ResistorNetwork.from_edges(edges, diodes=diodes, **options) for diodes in (pairs, [*pairs, (0, 1)])
    )
    found = beside.relax(x)
    assert bool(found.converged)
    np.testing.assert_allclose(found.state, alone.relax(x).state, rtol=1e-9)
    assert float(found.energy) == pytest.approx(float(beside.energy(found.state, x)), rel=1e-12)


def test_diodes_across_a_source_carry_what_their_law_says():
    net, found = shorted(1.2)
    left = lambda v: float(SILICON.current(1.2 - v)) + 1.2 - v - float(SILICON.current(v))
    assert bool(found.converged)
    assert float(found.state[0]) == pytest.approx(brentq(left, 0.0, 1.2, xtol=1e-15), rel=1e-12)
    assert float(found.energy) == pytest.approx(float(net.energy(found.state, jnp.array([1.2]))), rel=1e-12)


def test_what_training_took_to_zero_is_named():
    net = ResistorNetwork.from_networkx(
        nx.Graph([("a", "b"), ("b", "c"), ("b", "tip")]), inputs=["a"], outputs=["c"], conductance=np.ones(3)
    )
    assert net.undecided() == ""
    bare = eqx.tree_at(lambda net: net.conductance, net, jnp.array([1.0, 1.0, 0.0]))
    with pytest.raises(ConvergenceError, match=r"Nodes tip float: .* conductance of 0\. Give the circuit a floor"):
        EquilibriumPropagation(0.01)(bare, jnp.ones((1, 1)), jnp.array([[0.2]]))


@pytest.mark.parametrize("gain", [1e6, 1e9])
@pytest.mark.parametrize("diode", [None, SILICON])
def test_operational_amplifiers_settle_to_the_closed_form(gain, diode):
    """An inverting amplifier of two equal resistors: v = -x / (1 + 2/gain); a load, or a diode, hangs on its output."""
    load = {"diodes": [(2, -1)], "diode": diode} if diode else {}
    edges = [(0, 1), (1, 2)] + ([] if diode else [(2, -1)])
    net = ResistorNetwork.from_edges(
        edges, inputs=[0], outputs=[2], conductance=1e-3, controlled_sources=[(2, -1, -1, 1, gain)], **load
    )
    found = net.relax(jnp.array([-0.4]))
    assert bool(found.converged)
    assert float(net.read(found.state, jnp.array([-0.4]))[0]) == pytest.approx(0.4 / (1 + 2 / gain), rel=1e-12)


def test_an_amplifier_that_single_precision_does_not_decide_is_not_called_converged():
    """Conductances over six decades beside a bidirectional gain of 1000, against Lagrange's equations in 64 bits."""
    gain, volts, count = 1000.0, -3.9, 400
    edges = [(0, 1), (-1, 2), (0, 3), (1, 4), (2, 5), (0, 6), (2, 7), (4, 8), (6, 9), (5, 7), (4, 9), (-1, 7), (5, 9)]
    edges += [(4, 6), (7, 9)]
    draw = np.random.default_rng(0)
    conductance = 10 ** draw.uniform(-9, -3, (count, len(edges))).astype(np.float32)
    x = (draw.uniform(-1, 1, (count, 2)) * 10 ** draw.uniform(-3, 2, (count, 1))).astype(np.float32)
    net = ResistorNetwork.from_edges(
        edges, 10, inputs=[0, 9], outputs=[6, 7], conductance=jnp.asarray(conductance[0]),
        voltage_sources=[(2, 3, volts)], controlled_sources=[(4, -1, 5, 1, gain, gain)],
    )  # fmt: skip

    @jax.jit
    @jax.vmap
    def settled(conductance, x):
        drawn = eqx.tree_at(lambda net: net.conductance, net, conductance)
        found = drawn.relax(x)
        return found.converged, drawn.voltages(found.state, x)

    converged, found = map(np.asarray, settled(conductance, x))
    ends = np.zeros((len(edges), 11))  # ground is the last column
    for k, (a, b) in enumerate(edges):
        ends[k, a], ends[k, b] = 1, -1
    held = np.zeros((4, 10))
    held[0, 0], held[1, 9] = 1, 1
    held[2, [2, 3]] = 1, -1
    held[3, [4, 5, 1]] = 1, -gain, gain
    wrong = []
    for g, inputs, voltages in zip(conductance.astype(float), x.astype(float), found, strict=True):
        laplacian = ends[:, :10].T @ (g[:, None] * ends[:, :10]) / 1e-6
        equations = np.block([[laplacian, held.T], [held, np.zeros((4, 4))]])
        exact = np.linalg.solve(equations, np.concatenate([np.zeros(10), inputs, [volts, 0]]))[:10]
        wrong.append(np.max(np.abs(voltages - exact)) / np.max(np.abs(exact)))
    assert np.sum(converged) > 100
    assert np.max(np.array(wrong)[converged]) < 5e-4
