"""What makes no circuit is refused when it is built, with a message that says what, where and what to do."""

import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

from substrates import ResistorNetwork, Shockley
from substrates.classical.resistor.layout import CircuitError

GOOD = {"edges": [(0, 1), (1, 2), (2, 3)], "n": 4, "inputs": [0], "outputs": [3], "conductance": 1.0}


def build(**changes):
    options = {**GOOD, **changes}
    return ResistorNetwork.from_edges(options.pop("edges"), options.pop("n"), **options)


BAD = {
    "negative": ({"conductance": [1.0, -0.5, 1.0]}, r"conductance: .*-0.5.* on edges 1"),
    "nan": ({"conductance": [1.0, float("nan"), 1.0]}, r"conductance: .*nan"),
    "infinite": ({"conductance": float("inf")}, r"conductance: .*inf"),
    "below the floor": ({"conductance": 0.1, "floor": 0.2}, r"conductance: .*floor 0.2"),
    "bad floor": ({"floor": -1.0}, r"floor: .*-1"),
    "too few conductances": ({"conductance": [1.0, 1.0]}, r"conductance: .*\(3,\).*\(2,\)"),
    "edges of three": ({"edges": [(0, 1, 2)]}, r"edges: wanted shape \(count, 2\), got shape \(1, 3\)"),
    "labels": ({"edges": [("a", "b")]}, r"edges: .*from_networkx"),
    "no such node": ({"edges": [(0, 1), (1, 7), (2, 3)]}, r"edges: wanted nodes from 0 to 3.*\[7\].*larger n"),
    "n too small": ({"n": 3}, r"edges: wanted nodes from 0 to 2.*\[3\]"),
    "negative node": ({"edges": [(0, 1), (1, -2), (2, 3)]}, r"edges: .*\[-2\]"),
    "ground as input": ({"inputs": [-1]}, r"inputs: wanted nodes from 0 to 3, got \[-1\]"),
    "input out of range": ({"inputs": [4]}, r"inputs: .*\[4\]"),
    "output out of range": ({"outputs": [9]}, r"outputs: .*\[9\]"),
    "rail out of range": ({"rails": {5: 1.0}}, r"rails: .*\[5\]"),
    "diode out of range": ({"diodes": [(0, 8)]}, r"diodes: .*\[8\]"),
    "source out of range": ({"voltage_sources": [(0, 8, 1.0)]}, r"voltage_sources: .*\[8\]"),
    "current out of range": ({"current_sources": [(0, 8, 1.0)]}, r"current_sources: .*\[8\]"),
    "control out of range": ({"controlled_sources": [(2, -1, 8, 0, 1.0)]}, r"controlled_sources: .*\[8\]"),
    "self loop": ({"edges": [(0, 1), (2, 2), (2, 3)]}, r"edges: .*node 2 twice in number 1"),
    "diode on one node": ({"diodes": [(1, 1)]}, r"diodes: .*node 1 twice"),
    "source on one node": ({"voltage_sources": [(1, 1, 0.0)]}, r"voltage_sources: .*node 1 twice"),
    "input twice": ({"inputs": [0, 0]}, r"inputs: .*node 0 more than once"),
    "input and rail": ({"rails": {0: 1.0}}, r"rails: .*\[0\], which are both"),
    "infinite rail": ({"rails": {3: float("inf")}}, r"rails: wanted finite"),
    "nan current": ({"current_sources": [(0, 1, float("nan"))]}, r"current_sources: wanted finite"),
    "short source": ({"voltage_sources": [(0, 1)]}, r"voltage_sources: wanted \(plus, minus, volts\)"),
    "fractional node": ({"voltage_sources": [(0.5, 1, 1.0)]}, r"voltage_sources: wanted integer"),
    "floating": ({"edges": [(0, 1), (2, 3)], "conductance": 1.0}, r"floating nodes 2, 3"),
    "cut off by zero": ({"conductance": [1.0, 0.0, 1.0]}, r"floating nodes 2, 3"),
    "only a diode": ({"edges": [(0, 1), (1, 2)], "diodes": [(2, 3)]}, r"floating nodes 3"),
    "only a current": ({"edges": [(0, 1), (1, 2)], "current_sources": [(2, 3, 1.0)]}, r"floating nodes 3"),
    "no fixed node": ({"inputs": []}, r"floating nodes 0, 1, 2, 3"),
    "rails against a source": (
        {"rails": {1: 1.0, 2: 2.0}, "voltage_sources": [(2, 1, 5.0)]},
        r"loop 1 - ground - 2 - 1, whose voltages contradict one another by 4 V",
    ),
    "parallel sources": (
        {"voltage_sources": [(1, 2, 1.0), (2, 1, 1.0)]},
        r"voltage_sources: .*loop 1 - 2 - 1, whose voltages contradict one another by 2 V",
    ),
    "agreeing sources": (
        {"voltage_sources": [(1, 2, 1.0), (2, 1, -1.0)]},
        r"agree but whose current nothing determines",
    ),
    "source across inputs": ({"inputs": [0, 1], "voltage_sources": [(0, 1, 1.0)]}, r"loop .*contains an input"),
    "amplifier onto an input": ({"controlled_sources": [(0, -1, 1, -1, 2.0)]}, r"loop .*a controlled source"),
    "amplifiers that fix one another": (
        {"controlled_sources": [(1, -1, 2, -1, 2.0), (2, -1, 1, -1, 0.5)]},
        r"controlled_sources: .*no single solution",
    ),
    "bootstrap": (
        {"edges": [(0, 1), (2, 3)], "controlled_sources": [(2, -1, 3, -1, 1.0)]},
        r"controlled_sources: .*determinant is not positive",
    ),
    "positive feedback": (
        {"edges": [(0, 1), (1, 2), (2, 3)], "controlled_sources": [(2, -1, 1, -1, 3.0)]},
        r"controlled_sources: .*determinant is not positive",
    ),
    "rails force a diode": ({"rails": {2: 3.0, 3: 1.0}, "diodes": [(2, 3)]}, r"diodes: .*number 0.*\[2, 3\].*2 V"),
    "amplifier forces a diode": (
        {"controlled_sources": [(2, -1, 1, -1, 0.5)], "diodes": [(2, -1)]},
        r"diodes: .*number 0.*one-way controlled sources",
    ),
    "impossible law": ({"diodes": [(1, 2)], "diode": Shockley(0.0, 0.02)}, r"diode: .*saturation_current"),
    "negative law": ({"diodes": [(1, 2)], "diode": Shockley(1e-14, -1.0)}, r"diode: .*emission_voltage"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name):
    changes, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_the_good_circuit_is_accepted():
    assert build().relax(jnp.array([1.0])).converged


@pytest.mark.parametrize("x", [np.ones(2), np.ones(()), np.ones((5, 1))])
def test_wrong_input_shapes(x):
    net = build()
    state = jnp.zeros(3)
    for call in (net.relax, eqx.filter_jit(net.relax), net.initial_state, lambda x: net.read(state, x)):
        with pytest.raises(ValueError, match=r"x: wanted shape \(1,\)"):
            call(jnp.asarray(x))


def test_traced_conductances_are_refused_when_building_but_not_when_replaced():
    with pytest.raises(ValueError, match="outside compiled code"):
        jax.jit(lambda g: build(conductance=g).conductance)(jnp.ones(3))
    net = build()
    replace = lambda g: eqx.tree_at(lambda net: net.conductance, net, g).relax(jnp.array([1.0])).state
    doubled = jax.vmap(replace)(jnp.ones((2, 3)) * jnp.array([[1.0], [2.0]]))
    np.testing.assert_allclose(doubled[0], doubled[1], rtol=1e-12)


def test_labels_and_attributes():
    graph = nx.path_graph(["a", "b", "c"])
    with pytest.raises(ValueError, match=r"conductance: .*attribute 'conductance' .*'a'"):
        ResistorNetwork.from_networkx(graph, inputs=["a"], outputs=["c"])
    with pytest.raises(ValueError, match=r"inputs: .*'z'"):
        ResistorNetwork.from_networkx(graph, inputs=["z"], outputs=["c"], conductance=1.0)
    with pytest.raises(ValueError, match="shape: "):
        ResistorNetwork.lattice((3, 0), inputs=[0], outputs=[1])


def test_measurements_that_make_no_sense():
    with pytest.raises(ValueError, match="diodes"):
        build(diodes=[(1, 2)]).effective_resistance(0, 1)
    with pytest.raises(ValueError, match=r"b: .*12"):
        build().effective_resistance(0, 12)


def test_equal_circuits_share_their_compiled_code():
    traces = []

    @eqx.filter_jit
    def settle(net, x):
        traces.append(1)
        return net.relax(x).state

    for g in (1.0, 2.0):
        settle(build(conductance=g), jnp.array([1.0]))
    assert len(traces) == 1
    assert jax.tree.structure(build()) == jax.tree.structure(build(conductance=2.0))


def test_an_edge_to_a_node_that_is_not_there_is_told_before_an_output_that_nothing_joins():
    words = dict(n=4, inputs=[0], outputs=[2], conductance=1.0)
    for strange in (9, -2):
        with pytest.raises(ValueError, match=rf"edges: wanted nodes from 0 to 3, or -1 for ground, got \[{strange}\]"):
            ResistorNetwork.from_edges([(0, 1), (1, strange)], **words)
    with pytest.raises(ValueError, match=r"outputs: wanted nodes that elements join, got \[2\]"):
        ResistorNetwork.from_edges([(0, 1), (1, 3)], **words)


def test_an_error_of_a_circuit_comes_whole_out_of_another_process():
    with pytest.raises(CircuitError) as raised:
        ResistorNetwork.from_edges([(0, 1), (2, 3)], n=4, inputs=[0], outputs=[1], conductance=1.0)
    again = pickle.loads(pickle.dumps(raised.value))
    assert type(again) is CircuitError
    assert (str(again), again.nodes) == (str(raised.value), raised.value.nodes)
    assert again.nodes
