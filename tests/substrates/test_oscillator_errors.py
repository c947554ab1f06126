"""Every oscillator network that is none is refused, by the name of the argument."""

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

from learning import PhaseCost
from substrates import OscillatorNetwork
from substrates.classical.oscillator import BestOf, Ramped

EDGES = [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"edges": [(0, 1), (1, 1)]}, "edges: wanted two different nodes"),
        ({"edges": [(0, 1), (1, 0)]}, "edges: wanted each pair once"),
        ({"edges": [(0, 9)]}, "edges: wanted nodes from 0 to 3"),
        ({"edges": [(0.0, 1.0)]}, r"edges: wanted an \(m, 2\) array of integers"),
        ({"coupling": [1.0, 2.0]}, r"coupling: wanted one number or shape \(3,\), one per edge"),
        ({"coupling": [1.0, np.nan, 2.0]}, "coupling: wanted finite numbers, got NaN"),
        ({"coupling": 1j}, "coupling: wanted real numbers"),
        ({"field": [1.0, 2.0]}, r"field: wanted one number or shape \(4,\), one per oscillator"),
        ({"field": np.inf}, "field: wanted finite numbers"),
        ({"field_phase": np.nan}, "field_phase: wanted finite numbers"),
        ({"second_harmonic": [np.nan] * 4}, "second_harmonic: wanted finite numbers"),
        ({"frequency": [1.0]}, r"frequency: wanted one number or shape \(4,\)"),
        ({"inputs": [0, 0]}, "inputs: wanted each oscillator once"),
        ({"inputs": [7]}, "inputs: wanted oscillators from 0 to 3"),
        ({"inputs": ["a"]}, "inputs: wanted a sequence of integer numbers"),
        ({"inputs": [0, 3]}, "outputs: wanted oscillators that are not among the inputs"),
        ({"references": {0: 0.0}}, "references: wanted oscillators that are not among the inputs"),
        ({"references": {3: 0.0}}, "outputs: wanted oscillators that are not among the references"),
        ({"references": {1: np.nan}}, "references: wanted finite phases"),
        ({"inputs": [0, 1, 2, 3], "outputs": []}, "inputs, references: wanted at least one oscillator that settles"),
        ({"inputs": []}, "references: wanted every part of a network with outputs joined .* 0, 1, 2, 3 turn freely"),
        ({"edges": [(0, 1), (2, 3)]}, r"oscillators 2, 3 turn freely as a whole: give references=\{2: 0.0\}"),
        ({"readout": "cosine"}, "readout: wanted one of"),
    ],
)
def test_impossible_graphs_are_refused_by_name(options, named):
    with pytest.raises(ValueError, match=named):
        OscillatorNetwork.from_edges(
            **{"edges": EDGES, "n": 4, "coupling": 1.0, "inputs": [0], "outputs": [3], **options}
        )


@pytest.mark.parametrize(
    "anchor", [{"references": {2: 0.3}}, {"field": [1.0, 0, 1.0, 0]}, {"second_harmonic": [0, 0, 1.0, 0]}]
)
def test_a_reference_a_field_or_a_second_harmonic_holds_the_phase_of_a_part(anchor):
    apart = {"edges": [(0, 1), (2, 3)], "coupling": 1.0, "outputs": [3], "field": [1.0, 0, 0, 0]}
    with pytest.raises(ValueError, match="oscillators 2, 3 turn freely"):
        OscillatorNetwork.from_edges(**apart)
    assert OscillatorNetwork.from_edges(**{**apart, **anchor}).n == 4


def test_frequencies_of_a_free_part_are_relative_to_its_frame():
    with pytest.raises(
        ValueError, match=r"frequency: wanted frequencies relative to the rotating frame, .* got mean 2"
    ):
        OscillatorNetwork.from_edges(EDGES, coupling=1.0, frequency=[1.0, 2.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("matrix", "named"),
    [
        ([[0.0, 1.0], [2.0, 0.0]], r"wanted a symmetric matrix, got W\[0, 1\] = 1.0 and W\[1, 0\] = 2.0"),
        ([[1.0, 1.0], [1.0, 0.0]], "wanted zeros on the diagonal"),
        ([[0.0, np.nan], [np.nan, 0.0]], "wanted finite numbers"),
        ([[0.0, 1.0]], "wanted a square matrix"),
    ],
)
def test_impossible_matrices_are_refused(matrix, named):
    with pytest.raises(ValueError, match=named):
        OscillatorNetwork.from_matrix(matrix)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sizes": (3,)}, "sizes: wanted at least two positive integers"),
        ({"sizes": (3, 0, 2)}, "sizes"),
        ({"coupling_gain": -1.0}, "coupling_gain: wanted one positive finite number, or 2"),
        ({"coupling_gain": (1.0, 1.0, 1.0)}, "coupling_gain"),
        ({"field": [1.0]}, "field: wanted one number for all, or a sequence with one entry for each of the 2 layers"),
        ({"field": [1.0, jnp.ones(3)]}, r"field\[1\]: wanted one number or shape \(2,\)"),
        ({"field_phase": np.nan}, r"field_phase\[0\]: wanted finite numbers"),
        ({"second_harmonic": (np.inf, 0.0)}, r"second_harmonic\[0\]"),
        ({"phase_range": (1.0, 1.0)}, r"phase_range: wanted low < high < low \+ 2 pi"),
        ({"phase_range": (1.0, -1.0)}, "phase_range"),
        ({"phase_range": (0.0, 7.0)}, "phase_range"),
        ({"phase_range": (0.0, np.nan)}, "phase_range: wanted two finite phases"),
        ({"phase_range": 3.0}, "phase_range: wanted two finite phases"),
        ({"readout": "tan"}, "readout"),
    ],
)
def test_impossible_layers_are_refused_by_name(options, named, key):
    with pytest.raises(ValueError, match=named):
        OscillatorNetwork.layered(**{"sizes": (3, 4, 2), "key": key, **options})


@pytest.mark.parametrize(
    ("coupling", "named"),
    [
        ([], "coupling: wanted at least one matrix"),
        ([np.ones((3, 4)), np.ones((5, 2))], "coupling 1: weight: wanted 4 rows"),
        ([np.ones(3)], r"coupling\[0\]: wanted a matrix"),
        ([np.full((3, 4), np.nan)], r"coupling\[0\]: wanted finite numbers"),
    ],
)
def test_layers_that_do_not_fit_are_refused(coupling, named):
    with pytest.raises(ValueError, match=named):
        OscillatorNetwork.from_layers(coupling)


def test_graphs_of_networkx():
    graph = nx.Graph()
    graph.add_edge("a", "b", coupling=2.0)
    graph.add_edge("b", "c", coupling=-1.0)
    net = OscillatorNetwork.from_networkx(graph, inputs=["a"], outputs=["c"])
    np.testing.assert_array_equal(net.coupling.weight, [2.0, -1.0])
    assert (net.roles.inputs, net.roles.outputs) == ((0,), (2,))
    with pytest.raises(ValueError, match="inputs: wanted labels of nodes of the graph, got 'z'"):
        OscillatorNetwork.from_networkx(graph, inputs=["z"])
    with pytest.raises(ValueError, match="coupling: wanted the attribute 'strength' on every edge"):
        OscillatorNetwork.from_networkx(graph, coupling="strength", inputs=["a"])
    with pytest.raises(ValueError, match="graph: wanted an undirected graph"):
        OscillatorNetwork.from_networkx(nx.DiGraph(graph), inputs=["a"])


def test_wrong_inputs_keys_and_times_are_refused(key):
    net = OscillatorNetwork.from_edges(EDGES, coupling=1.0, inputs=[0], outputs=[3])
    with pytest.raises(ValueError, match=r"x: wanted shape \(1,\), one number per input, got \(2,\)"):
        net.relax(jnp.ones(2))
    with pytest.raises(ValueError, match="x: wanted finite inputs, got NaN or infinity"):
        net.relax(jnp.array([jnp.nan]))
    with pytest.raises(ValueError, match="key: BestOf draws its starts from a key"):
        net.relax(jnp.ones(1), solver=BestOf())
    with pytest.raises(ValueError, match="second_harmonic: Ramped wants a network that has one"):
        net.relax(jnp.ones(1), solver=Ramped())
    with pytest.raises(ValueError, match="duration, steps"):
        net.evolve(jnp.ones(1), jnp.zeros(3), duration=-1.0, steps=10)
    with pytest.raises(ValueError, match="shape: wanted whole numbers of oscillators"):
        OscillatorNetwork.lattice((3, 0))
    with pytest.raises(ValueError, match="softening: wanted a positive number"):
        PhaseCost(0.0)


def test_networks_are_built_outside_compiled_code():
    with pytest.raises(ValueError, match="coupling: wanted numbers when the network is built, got a traced array"):
        jax.jit(
            lambda w: OscillatorNetwork.from_edges(EDGES, coupling=w, inputs=[0]).energy(jnp.zeros(3), jnp.ones(1))
        )(1.0)
