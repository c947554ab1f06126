"""Nothing is lost on the way in and out: dimod's models, QUBO, NetworkX's labels and attributes, QuTiP's operators."""

import gzip
import itertools
import math

import dimod
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from learning.idx import DataError, encode_idx, read_idx
from substrates import (
    ElasticNetwork,
    HamiltonianSubstrate,
    IsingModel,
    OscillatorNetwork,
    QuantumOscillatorNetwork,
    ResistorNetwork,
    TransverseFieldIsing,
)

NOTHING = jnp.zeros(0)
LABELS = ["a", 3, ("b", 1), 0, 2.5]

numbers = st.floats(-4.0, 4.0).map(lambda value: round(value, 3))
vartypes = st.sampled_from(["SPIN", "BINARY"])


@st.composite
def models(draw):
    """Binary quadratic models of two to five variables with any labels, an offset among them."""
    labels = draw(st.permutations(LABELS))[: draw(st.integers(2, 5))]
    linear = {label: draw(numbers) for label in labels}
    pairs = draw(st.lists(st.sampled_from(list(itertools.combinations(labels, 2))), unique=True))
    quadratic = {pair: draw(numbers) for pair in pairs}
    return dimod.BinaryQuadraticModel(linear, quadratic, draw(numbers), draw(vartypes))


def values_of(bqm, spins):
    """A configuration of spins in the values of a model."""
    return {label: int(spin if bqm.vartype is dimod.SPIN else (1 + spin) // 2) for label, spin in spins.items()}


def configurations(labels):
    return (dict(zip(labels, spins, strict=True)) for spins in itertools.product([-1, 1], repeat=len(labels)))


def same_energies(net, bqm):
    """Those of every configuration, by labels: the model's own, and of what goes back to dimod."""
    back = net.to_bqm()
    assert set(back.variables) == set(bqm.variables)
    for spins in configurations(list(bqm.variables)):
        state = jnp.array([float(spins[label]) for label in net.state_labels])
        wanted = bqm.energy(values_of(bqm, spins))
        np.testing.assert_allclose(net.energy(state, NOTHING), wanted, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(back.energy(spins), wanted, rtol=1e-12, atol=1e-12)


@given(models())
def test_models_of_dimod_keep_their_energies_offset_and_labels(bqm):
    net = IsingModel.from_bqm(bqm)
    assert net.labels == tuple(bqm.variables)
    same_energies(net, bqm)
    again = IsingModel.from_bqm(net.to_bqm())
    same_energies(again, bqm)


def test_the_lowest_sample_is_that_of_dimod():
    bqm = dimod.BinaryQuadraticModel(
        {"a": 1.0, "b": -2.0, "c": 0.5}, {("a", "b"): 1.5, ("c", "a"): -3.0}, 0.5, "BINARY"
    )
    assert bqm.energy({"a": 0, "b": 0, "c": 0}) == 0.5
    best = dimod.ExactSolver().sample(bqm).first
    net = IsingModel.from_bqm(bqm, outputs=["c"])
    found = net.relax(NOTHING)
    np.testing.assert_allclose(found.energy, best.energy, rtol=1e-12)
    assert values_of(bqm, net.by_label(net.configuration(found.state, NOTHING))) == best.sample
    held = IsingModel.from_bqm(bqm, inputs=["b"])
    for b in (0, 1):
        back = held.to_bqm(jnp.array([2.0 * b - 1]))
        assert list(back.variables) == ["a", "c"]
        for spins in configurations(["a", "c"]):
            bits = values_of(bqm, spins)
            np.testing.assert_allclose(back.energy(spins), bqm.energy(bits | {"b": b}), atol=1e-12)


@given(st.integers(1, 4), st.data())
def test_qubo_matrices_have_the_energies_of_dimod(size, data):
    flat = data.draw(st.lists(numbers, min_size=size**2, max_size=size**2))
    matrix, offset = np.array(flat).reshape(size, size), data.draw(numbers)
    bqm = dimod.BinaryQuadraticModel.from_qubo({(i, j): matrix[i, j] for i, j in np.ndindex(size, size)}, offset)
    upper = np.triu(matrix + np.tril(matrix, -1).T)
    symmetric = (matrix + matrix.T) / 2
    for given_as in (matrix, upper, symmetric, scipy.sparse.csr_array(matrix), matrix.tolist()):
        same_energies(IsingModel.from_qubo(given_as, offset=offset), bqm)


@given(st.dictionaries(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), numbers, min_size=1), numbers)
def test_qubo_dictionaries_have_the_energies_of_dimod(qubo, offset):
    bqm = dimod.BinaryQuadraticModel.from_qubo(qubo, offset)
    same_energies(IsingModel.from_qubo(qubo, offset=offset), bqm)


@pytest.mark.parametrize(
    ("qubo", "words"),
    [
        ({}, "qubo: wanted at least one variable"),
        ({"a": 1.0}, r"qubo: wanted numbers by pairs of labels, .* got the entry 'a'"),
        ({("a", "b"): math.nan}, "qubo: wanted finite numbers"),
        ({("a", "b"): "1k"}, "qubo: wanted real numbers, got"),
        ({("a", "b"): 1j}, "qubo: wanted real numbers, got complex"),
        ([[1.0, 2.0]], r"qubo: wanted a square matrix of shape \(n, n\), got shape \(1, 2\)"),
        ("qubo", "qubo: wanted real numbers"),
        (None, "qubo: wanted real numbers"),
    ],
)
def test_what_is_no_qubo_is_refused(qubo, words):
    with pytest.raises(ValueError, match=words):
        IsingModel.from_qubo(qubo)


@st.composite
def labelled_graphs(draw):
    """Connected graphs with any labels, numbers on nodes and edges, their nodes in any order."""
    labels = draw(st.permutations(LABELS))[: draw(st.integers(3, 5))]
    graph = nx.Graph()
    positive = st.floats(0.2, 3.0).map(lambda value: round(value, 3))
    for k, label in enumerate(labels):
        graph.add_node(label, h=draw(numbers), place=(math.cos(2.1 * k) + k, math.sin(2.1 * k)), k=draw(positive))
    inner = draw(st.permutations(labels))
    for a, b in itertools.pairwise(inner):
        graph.add_edge(a, b, w=draw(positive))
    for a, b in itertools.combinations(labels, 2):
        if not graph.has_edge(a, b) and draw(st.booleans()):
            graph.add_edge(a, b, w=draw(positive))
    return graph


def ends(graph):
    """An input and an output."""
    first, *_, last = graph
    return {"inputs": [first], "outputs": [last]}


def same_edges(net, edges, values, graph, attribute="w"):
    """The attribute of every edge, found again by the labels of its ends."""
    found = {frozenset((net.labels[i], net.labels[j])): value for (i, j), value in zip(edges, values, strict=True)}
    assert set(found) == {frozenset(pair) for pair in graph.edges}
    for a, b, wanted in graph.edges(data=attribute):
        np.testing.assert_allclose(found[frozenset((a, b))], wanted, rtol=1e-12)


@given(labelled_graphs())
def test_graphs_keep_labels_and_attributes(graph):
    heights = dict(graph.nodes(data="h"))
    same_nodes = lambda net, values: all(abs(net.by_label(values)[a] - heights[a]) < 1e-12 for a in graph)
    spins = IsingModel.from_networkx(graph, coupling="w", field="h", **ends(graph))
    same_edges(spins, spins.coupling.graph.edges, spins.coupling.weight, graph)
    assert same_nodes(spins, spins.field)
    phases = OscillatorNetwork.from_networkx(graph, coupling="w", field="h", **ends(graph))
    same_edges(phases, phases.coupling.graph.edges, phases.coupling.weight, graph)
    assert same_nodes(phases, phases.field)
    quantum = TransverseFieldIsing.from_networkx(
        graph, coupling="w", transverse_field="k", longitudinal_field="h", **ends(graph)
    )
    same_edges(quantum, quantum.graph.edges, quantum.coupling, graph)
    assert same_nodes(quantum, quantum.longitudinal_field)
    sharp = QuantumOscillatorNetwork.from_networkx(
        graph, stiffness="w", onsite_stiffness="k", bias_force="h", hbar=0.0, **ends(graph)
    )
    same_edges(sharp, sharp.graph.edges, sharp.stiffness, graph)
    assert same_nodes(sharp, sharp.bias_force)
    springs = ElasticNetwork.from_networkx(graph, positions="place", stiffness="w", floppy=True, **ends(graph))
    same_edges(springs, springs.edges, springs.stiffness, graph)
    for label, place in springs.by_label(springs.reference).items():
        np.testing.assert_allclose(place, graph.nodes[label]["place"], rtol=1e-12)
    siemens = ResistorNetwork.from_networkx(graph, conductance="w", **ends(graph))
    same_edges(siemens, siemens.edges, siemens.conductance, graph)
    ohms = ResistorNetwork.from_networkx(graph, resistance="w", **ends(graph))
    same_edges(ohms, ohms.edges, 1 / ohms.conductance, graph)


def test_resistances_of_a_graph_are_those_of_networkx():
    graph = nx.karate_club_graph()
    for k, (a, b) in enumerate(graph.edges):
        graph.edges[a, b]["ohm"] = 0.5 + 0.1 * (k % 7)
    net = ResistorNetwork.from_networkx(graph, resistance="ohm", inputs=[0], outputs=[33])
    for a, b in [(5, 16), (8, 33), (0, 33), (1, 2)]:
        wanted = nx.resistance_distance(graph, a, b, weight="ohm", invert_weight=True)
        np.testing.assert_allclose(net.effective_resistance(a, b), wanted, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resistance": "w", "conductance": "w"}, "resistance: wanted siemens or ohms, got both"),
        ({"resistance": [1.0, -2.0]}, r"resistance: wanted positive ohms, got -2.0 on the edge \('b', 'c'\)"),
        (
            {"resistance": "name"},
            r"resistance: wanted real numbers, got .*'1k' in the attribute 'name' of the edge \('a', 'b'\)",
        ),
        ({"resistance": [1.0]}, r"resistance: wanted one number or shape \(2,\), one per edge, got shape \(1,\)"),
        ({"conductance": "no"}, r"conductance: wanted the attribute 'no' on every edge, got none on \('a', 'b'\)"),
    ],
)
def test_what_is_no_resistance_is_refused(options, words):
    graph = nx.Graph([("a", "b", {"w": 1.0, "name": "1k"}), ("b", "c", {"w": 2.0, "name": "2k"})])
    with pytest.raises(ValueError, match=words):
        ResistorNetwork.from_networkx(graph, inputs=["a"], outputs=["c"], **options)


def test_voltages_spins_phases_and_positions_by_label():
    graph = nx.Graph([("in", "mid", {"g": 1.0}), ("mid", "out", {"g": 0.5})])
    net = ResistorNetwork.from_networkx(graph, conductance="g", inputs=["in", "out"], outputs=["mid"])
    x = jnp.array([1.0, 0.0])
    volts = net.by_label(net.voltages(net.relax(x), x))
    assert list(volts) == ["in", "mid", "out"]
    np.testing.assert_allclose([volts["in"], volts["mid"], volts["out"]], [1.0, 2 / 3, 0.0], rtol=1e-12)
    plain = ResistorNetwork.from_edges([(0, 1), (1, 2)], inputs=[0, 2], outputs=[1], conductance=1.0)
    assert list(plain.by_label(plain.voltages(plain.relax(x), x))) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"values: wanted one entry for each of the 3 nodes, got shape \(1,\)"):
        net.by_label(net.relax(x).state)


@given(arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, max_side=5)), st.sampled_from(["", ".gz"]))
def test_idx_files_there_and_back(tmp_path_factory, array, ending):
    path = tmp_path_factory.mktemp("idx") / f"images{ending}"
    path.write_bytes(gzip.compress(encode_idx(array)) if ending else encode_idx(array))
    found = read_idx(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array)


def test_what_is_no_idx_array_is_not_written():
    for array in (np.ones(3), np.zeros((2, 2), np.int32), np.zeros((1, 1, 1, 1), np.uint8)):
        with pytest.raises(DataError, match="array: wanted 1 to 3 axes of unsigned bytes, got"):
            encode_idx(array)


@given(st.integers(1, 4), st.data())
def test_hamiltonians_of_qutip_there_and_back(n, data):
    """Matrix elements, the identity's among them, and dimensions."""
    draw = lambda count: np.array(data.draw(st.lists(numbers, min_size=count, max_size=count)), float)
    pairs = list(itertools.combinations(range(n), 2))
    net = TransverseFieldIsing.from_edges(
        pairs, n, coupling=draw(len(pairs)), transverse_field=draw(n), longitudinal_field=draw(n)
    )
    hamiltonian = net.to_qutip(NOTHING).hamiltonian + draw(1)[0]
    assert hamiltonian.dims == [[2] * n, [2] * n]
    back = TransverseFieldIsing.from_qutip(hamiltonian)
    again = back.to_qutip(NOTHING).hamiltonian
    assert again.dims == hamiltonian.dims
    np.testing.assert_allclose(again.full(), hamiltonian.full(), atol=1e-9)
    whole = HamiltonianSubstrate.from_operators([hamiltonian], [1.0])
    np.testing.assert_allclose(whole.hamiltonian(NOTHING).entries, hamiltonian.full().real, atol=1e-12)
