"""What makes no elastic network is refused by name, with what to do about it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from substrates import ElasticNetwork

TRIANGLE = {
    "edges": [(0, 1), (1, 2), (0, 2)],
    "positions": [[0.0, 0.0], [1.0, 0.0], [0.4, 0.8]],
    "clamped": [0],
    "inputs": [(1, 0), (1, 1)],
    "outputs": [2],
}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"positions": [[0.0, 0.0], [1.0, np.nan], [0.4, 0.8]]}, "positions: wanted finite numbers"),
        ({"positions": [[0.0], [1.0], [2.0]]}, "positions: wanted shape"),
        ({"positions": [[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]}, r"nodes \[1, 2\] of spring 1 at the same place"),
        ({"n": 4}, "positions: wanted one for each of the 4 nodes"),
        ({"edges": []}, "edges: wanted at least one"),
        ({"edges": [(0, 1), (1, 1), (0, 2)]}, "two different nodes"),
        ({"edges": [(0, 1), (1, 3), (0, 2)]}, "edges: wanted nodes from 0 to 2"),
        ({"edges": [(0.5, 1.0)]}, "edges: wanted pairs of whole node numbers"),
        ({"stiffness": 0.0}, "stiffness: wanted positive finite"),
        ({"stiffness": [1.0, -1.0, 1.0]}, r"on springs \[1\]"),
        ({"stiffness": np.nan}, "stiffness: wanted positive finite"),
        ({"stiffness": [1.0, 1.0]}, "stiffness: wanted one number or shape"),
        ({"rest_length": [-0.1, 1.0, 1.0]}, r"rest_length: wanted finite numbers, none negative, .* springs \[0\]"),
        ({"rest_length": np.inf}, "rest_length: wanted finite numbers, none negative"),
        ({"stiffness_floor": 2.0}, "stiffness_floor: wanted a positive number not above"),
        ({"rest_length_floor": -1.0}, "rest_length_floor: wanted"),
        ({"clamped": [0, 1]}, "inputs: wanted coordinates that are not clamped"),
        ({"clamped": [0, 2]}, "at least one free coordinate"),
        ({"clamped": [0, 0]}, "clamped: wanted each coordinate once"),
        ({"clamped": [7]}, "clamped: wanted nodes from 0 to 2"),
        ({"clamped": ["left"]}, "clamped: wanted nodes"),
        ({"inputs": [(1, 2)]}, "inputs: wanted an axis from 0 to 1"),
        ({"inputs": [{1: 1.0}]}, "inputs: wanted a vector of 2 numbers"),
        ({"inputs": [{1: (0.0, 0.0)}]}, "inputs: wanted a dict that moves"),
        ({"inputs": [{(1, 0): np.inf}]}, "inputs: wanted finite numbers"),
        ({"outputs": []}, "outputs: wanted at least one"),
        ({"outputs": [5]}, "outputs: wanted nodes from 0 to 2"),
        ({"reading": "colour"}, "reading: wanted one of displacement, position, distance"),
        ({"reading": "distance", "outputs": [(1, 1)]}, "outputs: wanted two different nodes"),
        ({"loads": {5: (1.0, 0.0)}}, "loads: wanted nodes from 0 to 2"),
        ({"loads": {2: (1.0, np.nan)}}, "loads: wanted 2 finite numbers"),
    ],
)
def test_impossible_networks_are_refused_by_name(options, named):
    with pytest.raises(ValueError, match=named):
        ElasticNetwork.from_edges(**{**TRIANGLE, **options})


def test_loose_parts_and_loose_nodes_are_refused_and_named():
    apart = {
        "edges": [(0, 1), (2, 3), (3, 4), (2, 4)],
        "positions": [[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [4.0, 0.0], [3.4, 0.8]],
        "clamped": [0, (1, 1)],
        "inputs": [],
        "outputs": [(1, 0)],
    }
    with pytest.raises(ValueError, match=r"nodes \[2, 3, 4\] joined to no clamped or driven node"):
        ElasticNetwork.from_edges(**apart)
    dangling = {**TRIANGLE, "edges": [(0, 1), (0, 2)], "clamped": [0, 1], "inputs": []}
    with pytest.raises(ValueError, match=r"motion that stretches none .* nodes \[2\] move most"):
        ElasticNetwork.from_edges(**dangling)
    accepted = ElasticNetwork.from_edges(**dangling, floppy=True)
    assert not accepted.rigidity().stable
    with pytest.raises(ValueError, match="edges: wanted springs that hold every free node"):
        ElasticNetwork.lattice("square", (4, 4), clamped=["left"], inputs=[], outputs=[5])


@pytest.mark.parametrize(
    ("build", "options", "named"),
    [
        ("lattice", {"kind": "penrose"}, "kind: wanted one of"),
        ("lattice", {"shape": (4,)}, "shape: wanted 2 positive"),
        ("lattice", {"shape": (4, 0)}, "shape: wanted 2 positive"),
        ("lattice", {"spacing": -1.0}, "spacing: wanted a positive"),
        ("lattice", {"disorder": 0.1}, "key: wanted a key"),
        ("lattice", {"disorder": 0.7}, "disorder: wanted a part"),
        ("lattice", {"clamped": ["back"]}, "clamped: wanted nodes or one of left, right, bottom, top"),
        ("packing", {"n": 3}, "n: wanted a whole number"),
        ("packing", {"dim": 4}, "dim: wanted 2 or 3"),
        ("packing", {"coordination": 2.0}, "coordination: wanted a number from 3"),
        ("packing", {"coordination": 9.0}, "coordination: wanted a number from 3"),
    ],
)
def test_impossible_lattices_and_packings_are_refused_by_name(build, options, named, key):
    common = {"clamped": ["left"], "inputs": [], "outputs": [5]}
    own = {"lattice": {"kind": "triangular", "shape": (4, 4)}, "packing": {"n": 30, "key": key}}[build]
    with pytest.raises(ValueError, match=named):
        getattr(ElasticNetwork, build)(**{**own, **common, **options})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sizes": (3,)}, "sizes: wanted"),
        ({"sizes": (3, 0, 2)}, "sizes: wanted"),
        ({"input_gain": 0.0}, "input_gain: wanted a positive"),
        ({"height": np.nan}, "height: wanted a positive"),
        ({"ground": 1.0}, "ground: wanted a part"),
    ],
)
def test_impossible_layers_are_refused_by_name(options, named, key):
    with pytest.raises(ValueError, match=named):
        ElasticNetwork.layered(**{"sizes": (2, 3, 1), "key": key, **options})


def test_wrong_inputs_are_refused(key):
    net = ElasticNetwork.from_edges(**TRIANGLE)
    with pytest.raises(ValueError, match=r"x: wanted shape \(2,\)"):
        net.relax(jnp.ones(3))
    with pytest.raises(ValueError, match="stiffness: wanted numbers when the network is built"):
        jax.jit(lambda k: ElasticNetwork.from_edges(**TRIANGLE, stiffness=k).stiffness)(jnp.ones(3))
    with pytest.raises(ValueError, match="colour: wanted one of"):
        net.draw(colour="mood")
    with pytest.raises(ValueError, match="x: wanted the input that belongs to the state"):
        net.draw(net.initial_state(jnp.zeros(2)))
    with pytest.raises(ValueError, match="values: wanted shape"):
        net.draw(values=np.ones(4))


def test_a_graph_without_positions_or_with_other_labels_is_refused():
    import networkx as nx

    graph = nx.path_graph(3)
    with pytest.raises(ValueError, match="positions: wanted the attribute"):
        ElasticNetwork.from_networkx(graph, inputs=[], outputs=[1])
    positions = [[0.0, 0.0], [1.0, 0.0], [0.4, 0.8]]
    with pytest.raises(ValueError, match="stiffness: wanted the attribute"):
        ElasticNetwork.from_networkx(graph, inputs=[], outputs=[1], positions=positions)
    with pytest.raises(ValueError, match="outputs: wanted labels of nodes"):
        ElasticNetwork.from_networkx(graph, inputs=[], outputs=["middle"], positions=positions, stiffness=1.0)


def test_rigidity_of_what_is_too_large_or_has_no_length_is_refused():
    net = ElasticNetwork.from_edges(**TRIANGLE)
    with pytest.raises(ValueError, match="state: wanted joined nodes apart"):
        net.rigidity(jnp.zeros(2), jnp.zeros((1, 2)))
    large = ElasticNetwork.lattice("triangular", (50, 50), clamped=["left"], inputs=[], outputs=[60])
    with pytest.raises(ValueError, match="rigidity: wanted at most 4000"):
        large.rigidity()
