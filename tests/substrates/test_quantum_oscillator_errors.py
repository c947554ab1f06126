"""What makes no network of quantum oscillators is refused, by the name of the argument."""

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest

from learning import PositionError
from substrates import Nudge, QuantumOscillatorNetwork

GIVEN = {"edges": [(0, 1), (1, 2)], "n": 3, "inputs": [0], "outputs": [2]}


def build(**options):
    return QuantumOscillatorNetwork.from_edges(**{**GIVEN, **options})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"n": 0, "edges": []}, "n: wanted at least one"),
        ({"edges": [(0, 0)]}, "edges: wanted two different nodes"),
        ({"edges": [(0, 1), (1, 0)]}, "edges: wanted each pair once"),
        ({"edges": [(0, 3)]}, "edges: wanted nodes from 0 to 2"),
        ({"edges": [(0, 1, 2)]}, "edges: wanted an"),
        ({"inputs": [3]}, "inputs: wanted oscillators from 0 to 2"),
        ({"inputs": [0, 0]}, "inputs: wanted each oscillator once"),
        ({"inputs": ["a"]}, "inputs: wanted a sequence of integer"),
        ({"outputs": [-1]}, "outputs: wanted oscillators"),
        ({"outputs": []}, "outputs: wanted at least one"),
        ({"drive": "current"}, "drive: wanted one of force, anchor, stiffness"),
        ({"reading": "variance"}, "reading: wanted one of mean, moments"),
        ({"stiffness": [1.0]}, r"stiffness: wanted one number or shape \(2,\)"),
        ({"stiffness": jnp.nan}, "stiffness: wanted finite numbers"),
        ({"stiffness": 1j}, "stiffness: wanted real numbers"),
        ({"onsite_stiffness": [1.0, jnp.inf, 1.0]}, r"onsite_stiffness: wanted finite numbers, got .* at \[1\]"),
        ({"bias_force": [1.0, 2.0]}, "bias_force: wanted one number or shape"),
        ({"mass": 0.0}, "mass: wanted positive numbers"),
        ({"mass": [1.0, -1.0, 1.0]}, "mass: wanted positive numbers, got -1.0 at 1"),
        ({"hbar": -1.0}, "hbar: wanted a finite number, 0 or more"),
        ({"hbar": jnp.nan}, "hbar: wanted a finite number"),
        ({"gain": jnp.inf}, "gain: wanted a finite number"),
        ({"temperature": -0.1}, "temperature: wanted a finite number, 0 or more"),
        ({"temperature": jnp.inf}, "temperature: wanted a finite number"),
        ({"onsite_stiffness": 0.0}, "positive definite stiffness matrix"),
        ({"onsite_stiffness": [0.1, -2.0, 0.1]}, "got one with the eigenvalue"),
        ({"stiffness": -1.0}, "positive definite stiffness matrix"),
        ({"stiffness": 1.0, "stiffness_floor": 2.0}, "stiffness_floor: wanted at most the smallest"),
        ({"onsite_floor": jnp.nan}, "onsite_floor: wanted a number"),
    ],
)
def test_impossible_networks_are_refused_by_name(options, named):
    with pytest.raises(ValueError, match=named):
        build(**options)


def test_wrong_graphs_and_shapes_are_refused():
    with pytest.raises(ValueError, match="undirected"):
        QuantumOscillatorNetwork.from_networkx(networkx.DiGraph([(0, 1)]), inputs=[0], outputs=[1])
    graph = networkx.path_graph(3)
    with pytest.raises(ValueError, match="attribute 'stiffness' on every edge"):
        QuantumOscillatorNetwork.from_networkx(graph, inputs=[0], outputs=[1])
    with pytest.raises(ValueError, match="inputs: wanted labels"):
        QuantumOscillatorNetwork.from_networkx(graph, inputs=["a"], outputs=[1], stiffness=1.0)
    for shape in ((), (2, 0), (2.5,)):
        with pytest.raises(ValueError, match="shape: wanted whole numbers"):
            QuantumOscillatorNetwork.lattice(shape, inputs=[0], outputs=[0])
    with pytest.raises(ValueError, match="traced array"):
        jax.jit(lambda k: build(stiffness=k).stiffness)(jnp.ones(2))


def test_wrong_inputs_constants_and_targets_are_refused():
    net = build()
    with pytest.raises(ValueError, match=r"x: wanted shape \(1,\)"):
        net.relax(jnp.ones(2))
    with pytest.raises(ValueError, match="temperature: wanted a finite number"):
        net.at_temperature(-1.0)
    with pytest.raises(ValueError, match="hbar: wanted a finite number"):
        net.with_hbar(-1.0)
    with pytest.raises(ValueError, match="followed at temperature 0 only"):
        net.at_temperature(0.5).relax(jnp.ones(1), Nudge(lambda o, y: jnp.sum(o * y), jnp.ones(1), 0.1j))
    with pytest.raises(ValueError, match=r"target: wanted moments \(y, y\^2\)"):
        PositionError()(jnp.ones(2), jnp.ones(1))


def test_classical_oscillators_have_no_levels_and_no_entanglement():
    net = build(hbar=0.0)
    state = net.relax(jnp.ones(1)).state
    with pytest.raises(ValueError, match="not entangled"):
        net.logarithmic_negativity(state, [0])
    with pytest.raises(ValueError, match="no levels"):
        net.to_qutip(4)
    np.testing.assert_array_equal(net.covariance(state), np.zeros((3, 3)))


@pytest.mark.parametrize(("group", "other"), [([], None), ([0, 1, 2], None), ([0], [0]), ([0, 0], [1]), ([3], [0])])
def test_groups_must_be_two(group, other):
    net = build()
    with pytest.raises(ValueError, match="group, other: wanted two groups"):
        net.logarithmic_negativity(net.initial_state(jnp.ones(1)), group, other)


def test_fock_spaces_that_are_none_or_too_large_are_refused():
    with pytest.raises(ValueError, match="levels: wanted at least 2"):
        build().to_qutip(1)
    with pytest.raises(ValueError, match=r"at most 20,000 dimensions, got 30\^3"):
        build().to_qutip(30)
    with pytest.raises(ValueError, match=r"at most 1,000 dimensions, got 12\^3"):
        build(temperature=0.5).to_qutip(12)
