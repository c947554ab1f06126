"""What constructors are told in other words is taken, or refused with the argument, what came, and what to do."""

import jax
import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from where_raised import refusal

from substrates import (
    ElasticNetwork,
    HopfieldNetwork,
    IsingModel,
    OscillatorNetwork,
    QuantumOscillatorNetwork,
    ResistorNetwork,
    TransverseFieldIsing,
)

EDGES = [(0, 1), (1, 2), (0, 2)]
GRAPHS = {
    "circuit": (ResistorNetwork, {"conductance": 1.0}),
    "springs": (ElasticNetwork, {"positions": [[0.0, 0.0], [1.0, 0.0], [0.4, 0.8]], "floppy": True}),
    "spins": (IsingModel, {"coupling": 1.0}),
    "phases": (OscillatorNetwork, {"coupling": 1.0}),
    "quantum spins": (TransverseFieldIsing, {"coupling": 1.0, "transverse_field": 1.0}),
    "quantum oscillators": (QuantumOscillatorNetwork, {}),
}


def build(kind, edges=EDGES, **given):
    cls, options = GRAPHS[kind]
    return cls.from_edges(edges, **{"inputs": [0], "outputs": [2], **options, **given})


@pytest.mark.parametrize("kind", GRAPHS)
def test_edges_come_one_by_one_and_in_an_order(kind):
    wanted = build(kind)
    for edges in ((pair for pair in EDGES), np.array(EDGES), nx.Graph(EDGES).edges):
        sizes = lambda net: [np.shape(leaf) for leaf in jax.tree.leaves(net)]
        assert sizes(build(kind, edges)) == sizes(wanted)
    with pytest.raises(
        ValueError, match=r"edges: wanted a sequence, got a set, which has no order: give sorted\(edges\)"
    ):
        build(kind, set(EDGES))
    with pytest.raises(ValueError, match="edges: wanted an array, got a sparse matrix"):
        build(kind, scipy.sparse.eye(3, format="csr"))
    with pytest.raises(ValueError, match=r"inputs: wanted a sequence, got 0; give \[0\] for a single one"):
        build(kind, inputs=0)
    with pytest.raises(ValueError, match=r"outputs: wanted a sequence, got 'a'; give \['a'\] for a single one"):
        build(kind, outputs="a")


@pytest.mark.parametrize("kind", GRAPHS)
def test_what_is_no_graph_is_refused(kind):
    cls, options = GRAPHS[kind]
    for strange in (None, EDGES, {"a": "b"}, np.eye(3)):
        with pytest.raises(
            ValueError, match=r"graph: wanted a NetworkX graph, got .*; from_edges takes pairs of nodes"
        ):
            cls.from_networkx(strange, inputs=[0], outputs=[2], **options)


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize(
    "edges", [None, 3, "abc", [], [(0,)], [(0, 1, 2)], [(0.5, 1)], [(0, -7)], [(0, 0)], [[0, 1], [2]]]
)
def test_strange_edges_are_refused_by_the_project(kind, edges):
    refusal(lambda: build(kind, edges))  # a single spin without a coupling is a model


@pytest.mark.parametrize("cls", [HopfieldNetwork, IsingModel, OscillatorNetwork, ResistorNetwork])
@pytest.mark.parametrize("key", [None, 7, "key", np.zeros(3)])
def test_keys_of_constructors_are_keys(cls, key):
    with pytest.raises(ValueError, match="key: wanted a JAX key, got"):
        cls.layered((2, 3, 1), key=key)
    with pytest.raises(ValueError, match="key: wanted a JAX key, got"):
        cls.for_task(2, 1, sizes=(3,), key=key)


def test_mistakes_are_explained():
    with pytest.raises(ValueError, match=r"outputs: wanted nodes that elements join, got \[9\], which none does"):
        build("circuit", outputs=[9])
    with pytest.raises(ValueError, match=r"patterns: wanted entries \+1 and -1, got 0 and 1: give 2 \* patterns - 1"):
        HopfieldNetwork.from_patterns([[0, 1, 1], [1, 0, 1]])
    with pytest.raises(ValueError, match="coupling: wanted an array, got a sparse matrix"):
        IsingModel.all_to_all(scipy.sparse.eye(3))
    graph = nx.Graph([("a", "b", {"w": "1k"})])
    with pytest.raises(ValueError, match=r"coupling: .*'1k' in the attribute 'w' of the edge \('a', 'b'\)"):
        IsingModel.from_networkx(graph, coupling="w")
    graph.nodes["a"]["h"], graph.nodes["b"]["h"] = 1.0, "2k"
    with pytest.raises(ValueError, match=r"field: .*'2k' in the attribute 'h' of the node 'b'"):
        IsingModel.from_networkx(graph, coupling=1.0, field="h")
