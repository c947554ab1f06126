"""What the user says to constructors is taken as meant, or refused by name: labels, real numbers, nodes, inputs."""

import itertools
import math

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.checkpoint import load_checkpoint, save_checkpoint
from substrates import (
    ElasticNetwork,
    FreeFermionChain,
    HamiltonianSubstrate,
    HopfieldNetwork,
    IsingModel,
    OscillatorNetwork,
    PredictiveCodingNetwork,
    QuantumOscillatorNetwork,
    ResistorNetwork,
    Shockley,
    Status,
    TransverseFieldIsing,
)
from substrates.substrate import Substrate, relax_batch
from substrates.wiring import Dense

LABELS = [3, 1, "a", (5, 5), 0]
PAIRS = list(itertools.combinations(LABELS, 2))
STRENGTH = {frozenset(pair): 0.5 + 0.1 * k for k, pair in enumerate(PAIRS)}
FIELD = {label: 0.3 + 0.2 * k for k, label in enumerate(LABELS)}
PLACE = {3: (0.0, 0.0), 1: (1.0, 0.1), "a": (1.1, 0.9), (5, 5): (0.2, 1.2), 0: (0.5, 0.4)}
VALUE = {label: math.sin(1.0 + 2 * k) for k, label in enumerate(LABELS)}


@st.composite
def drawn(draw):
    """The same complete graph, its nodes and edges added in any order."""
    graph = nx.Graph()
    graph.add_nodes_from(
        (label, {"place": PLACE[label], "field": FIELD[label]}) for label in draw(st.permutations(LABELS))
    )
    for pair in draw(st.permutations(PAIRS)):
        graph.add_edge(*pair, strength=STRENGTH[frozenset(pair)])
    return graph


def over_pairs(term):
    return sum(strength * term(*pair) for pair, strength in STRENGTH.items())


def at(net_labels, numbers):
    return [list(net_labels)[k] for k in numbers]


same_for_any_order = settings(max_examples=8, deadline=None)


@given(drawn())
@same_for_any_order
def test_circuits_from_labels(graph):
    net = ResistorNetwork.from_networkx(
        graph, inputs=["a"], outputs=[3, (5, 5)], rails={1: VALUE[1]}, conductance="strength"
    )
    assert net.labels == tuple(graph.nodes)
    state = jnp.array([VALUE[label] for label in at(graph, net.topology.layout.potentials)])
    x = jnp.array([VALUE["a"]])
    expected = over_pairs(lambda a, b: 0.5 * (VALUE[a] - VALUE[b]) ** 2)
    np.testing.assert_allclose(net.energy(state, x), expected, rtol=1e-12)
    np.testing.assert_allclose(net.read(state, x), [VALUE[3], VALUE[(5, 5)]], rtol=1e-12)


@given(drawn())
@same_for_any_order
def test_springs_from_labels(graph):
    loads = {"a": (0.3, -0.2), (5, 5): (0.1, 0.4)}
    net = ElasticNetwork.from_networkx(
        graph,
        positions="place",
        stiffness="strength",
        clamped=[3, (0, 1)],
        inputs=[{1: (1.0, 0.0)}],
        outputs=["a", (0, 0), {("a", 0): 1.0, ((5, 5), 1): 2.0}],
        loads=loads,
        rest_length=0.5,
    )
    moved = {label: np.add(PLACE[label], 0.1 * VALUE[label]) for label in LABELS}
    moved |= {3: np.asarray(PLACE[3]), 1: np.add(PLACE[1], (0.2, 0.0))}
    moved[0][1] = PLACE[0][1]
    free = at(graph, range(5))
    state = jnp.array([moved[free[c // 2]][c % 2] for c in net.topology.free])
    x = jnp.array([0.2])
    energy = over_pairs(lambda a, b: 0.5 * (np.linalg.norm(moved[a] - moved[b]) - 0.5) ** 2)
    energy -= sum(np.dot(force, moved[label]) for label, force in loads.items())
    np.testing.assert_allclose(net.energy(state, x), energy, rtol=1e-12)
    shift = {label: moved[label] - PLACE[label] for label in LABELS}
    shown = [*shift["a"], shift[0][0], shift["a"][0] + 2 * shift[(5, 5)][1]]
    np.testing.assert_allclose(net.read(state, x), shown, rtol=1e-9, atol=1e-12)


@given(drawn())
@same_for_any_order
def test_spins_from_labels(graph):
    net = IsingModel.from_networkx(graph, coupling="strength", field=FIELD, inputs=["a"], outputs=[3, (5, 5)])
    spin = {label: 1.0 if VALUE[label] > 0 else -1.0 for label in LABELS} | {"a": 0.7}
    state = jnp.array([spin[label] for label in graph if label != "a"])
    x = jnp.array([0.7])
    expected = -over_pairs(lambda a, b: spin[a] * spin[b]) - sum(FIELD[label] * spin[label] for label in LABELS)
    np.testing.assert_allclose(net.energy(state, x), expected, rtol=1e-12)
    np.testing.assert_allclose(net.read(state, x), [spin[3], spin[(5, 5)]])


@given(drawn())
@same_for_any_order
def test_oscillators_from_labels(graph):
    net = OscillatorNetwork.from_networkx(
        graph,
        coupling="strength",
        field="field",
        field_phase={label: VALUE[label] / 2 for label in LABELS},
        inputs=["a"],
        outputs=[3, (5, 5)],
        references={1: VALUE[1]},
    )
    state = jnp.array([VALUE[label] for label in graph if label not in ("a", 1)])
    x = jnp.array([VALUE["a"]])
    expected = -over_pairs(lambda a, b: math.cos(VALUE[a] - VALUE[b]))
    expected -= sum(FIELD[label] * math.cos(VALUE[label] / 2) for label in LABELS)
    np.testing.assert_allclose(net.energy(state, x), expected, rtol=1e-12)
    np.testing.assert_allclose(net.read(state, x), [VALUE[3], VALUE[(5, 5)]])


@given(drawn())
@same_for_any_order
def test_quantum_spins_from_labels(graph):
    """A product state of spins tilted by angles: <Z> and <X> are their cosines and sines."""
    net = TransverseFieldIsing.from_networkx(
        graph,
        coupling="strength",
        transverse_field=FIELD,
        longitudinal_field="field",
        inputs=["a"],
        outputs=["a", ("X", 3), (("Z", "a"), ("X", (5, 5))), "Z3 X1", {(): 0.5, 0: 2.0, (("Z", 3), ("Z", 1)): -1.0}],
    )
    assert net.labels == tuple(graph.nodes)
    state = np.ones(1)
    for label in graph:
        state = np.kron(state, [math.cos(VALUE[label] / 2), math.sin(VALUE[label] / 2)])
    z, x = ({label: f(VALUE[label]) for label in LABELS} for f in (math.cos, math.sin))
    expected = -over_pairs(lambda a, b: z[a] * z[b])
    expected -= sum(FIELD[label] * (z[label] + x[label]) for label in LABELS) + 0.4 * z["a"]
    given_x = jnp.array([0.4])
    np.testing.assert_allclose(net.energy(jnp.asarray(state), given_x), expected, rtol=1e-12)
    shown = [z["a"], x[3], z["a"] * x[(5, 5)], z[3] * x[1], 0.5 + 2 * z[0] - z[3] * z[1]]
    np.testing.assert_allclose(net.read(jnp.asarray(state), given_x), shown, rtol=1e-9, atol=1e-12)


@given(drawn())
@same_for_any_order
def test_quantum_oscillators_from_labels(graph):
    net = QuantumOscillatorNetwork.from_networkx(
        graph,
        stiffness="strength",
        onsite_stiffness=FIELD,
        bias_force="field",
        inputs=["a"],
        outputs=[3, (5, 5)],
        hbar=0.0,
    )
    assert net.labels == tuple(graph.nodes)
    x = jnp.array([0.4])
    mean = jnp.array([VALUE[label] for label in graph])
    state = net.initial_state(x)._replace(mean=mean)
    expected = over_pairs(lambda a, b: 0.5 * (VALUE[a] - VALUE[b]) ** 2) - 0.4 * VALUE["a"]
    expected += sum(FIELD[label] * (0.5 * VALUE[label] ** 2 - VALUE[label]) for label in LABELS)
    np.testing.assert_allclose(net.energy(state, x), expected, rtol=1e-12)
    np.testing.assert_allclose(net.read(state, x), [VALUE[3], VALUE[(5, 5)]])


def shuffled_path(**attributes):
    """A path 0 - 1 - 2 - 3 whose nodes were added in another order."""
    graph = nx.Graph()
    graph.add_nodes_from([3, 1, 0, 2])
    graph.add_edges_from([(0, 1), (1, 2), (2, 3)], **attributes)
    return graph


def test_what_was_built_from_labels_is_asked_by_labels():
    net = ResistorNetwork.from_networkx(shuffled_path(), inputs=[0], outputs=[3], conductance=[1.0, 0.5, 0.25])
    edges = dict(zip(shuffled_path().edges, [1.0, 0.5, 0.25], strict=True))
    for (a, b), siemens in edges.items():
        np.testing.assert_allclose(net.effective_resistance(a, b), 1 / siemens, rtol=1e-12)
    np.testing.assert_allclose(net.effective_resistance(3, -1), sum(1 / g for g in edges.values()), rtol=1e-12)
    with pytest.raises(ValueError, match=r"a: wanted the label of a node.*, or -1 for ground, got 4"):
        net.effective_resistance(4, 0)
    named = nx.relabel_nodes(shuffled_path(), {k: f"n{k}" for k in range(4)})
    net = ResistorNetwork.from_networkx(named, inputs=["n0"], outputs=["n3"], conductance=1.0)
    np.testing.assert_allclose(net.effective_resistance("n0", "n2"), 2.0, rtol=1e-12)
    with pytest.raises(ValueError, match=r"b: wanted the label of a node.* got 2"):
        net.effective_resistance("n0", 2)


def test_nodes_of_a_netlist_go_by_their_names():
    net = ResistorNetwork.from_netlist("t\nV1 2 0 1\nR1 2 1 1\nR2 1 3 5\nR3 3 0 1\n", inputs=["2"], outputs=["3"])
    floating = ResistorNetwork.from_netlist("t\nV1 2 0 1\nR1 2 1 1\nR2 1 3 5\n", inputs=["2"], outputs=["3"])
    np.testing.assert_allclose(floating.effective_resistance("1", "3"), 5.0, rtol=1e-12)
    np.testing.assert_allclose(net.effective_resistance("3", -1), 6 / 7, rtol=1e-12)
    with pytest.raises(ValueError, match="a: wanted the label of a node"):
        net.effective_resistance(1, -1)


def test_groups_of_oscillators_go_by_their_labels():
    """In a chain the end and the middle are entangled with the rest in different measure."""
    chain = QuantumOscillatorNetwork.from_edges([(0, 1), (1, 2), (2, 3)], inputs=[], outputs=[0])
    net = QuantumOscillatorNetwork.from_networkx(shuffled_path(), inputs=[], outputs=[0], stiffness=1.0)
    x = jnp.zeros(0)
    states = chain.relax(x).state, net.relax(x).state
    for group, other in (([0], None), ([1], None), ([0, 1], [2])):
        expected = chain.logarithmic_negativity(states[0], group, other)
        found = net.logarithmic_negativity(states[1], group, other)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="group: wanted the label of a node"):
        net.logarithmic_negativity(states[1], [7])


def test_labels_are_part_of_the_structure_and_not_of_a_checkpoint(tmp_path):
    net = ResistorNetwork.from_networkx(shuffled_path(), inputs=[0], outputs=[3], conductance=1.0)
    trained = jax.tree.map(lambda leaf: 2 * leaf, net)
    assert jax.tree.structure(trained) == jax.tree.structure(net)
    save_checkpoint(tmp_path / "net.npz", trained, {})
    again, _ = load_checkpoint(tmp_path / "net.npz", net)
    assert again.labels == (3, 1, 0, 2)
    np.testing.assert_array_equal(again.conductance, trained.conductance)


def from_networkx(kind, graph, **options):
    rest = {
        ResistorNetwork: {"conductance": 1.0},
        ElasticNetwork: {"stiffness": 1.0, "positions": {k: (k, k * k) for k in graph}, "floppy": True},
        IsingModel: {"coupling": 1.0},
        OscillatorNetwork: {"coupling": 1.0},
        TransverseFieldIsing: {"coupling": 1.0, "transverse_field": 1.0},
        QuantumOscillatorNetwork: {"stiffness": 1.0},
    }[kind]
    return kind.from_networkx(graph, **{"inputs": [0], "outputs": [3], **rest, **options})


GRAPHS = [
    ResistorNetwork,
    ElasticNetwork,
    IsingModel,
    OscillatorNetwork,
    TransverseFieldIsing,
    QuantumOscillatorNetwork,
]


@pytest.mark.parametrize("kind", GRAPHS)
def test_directed_graphs_and_strange_labels_are_refused_alike(kind):
    for directed in (nx.DiGraph(shuffled_path()), nx.MultiDiGraph(shuffled_path())):
        with pytest.raises(
            ValueError, match="graph: wanted an undirected graph, as an edge acts on both its ends alike"
        ):
            from_networkx(kind, directed)
    for name in ("inputs", "outputs"):
        for strange in (4, "0", [0]):
            with pytest.raises(ValueError, match=f"{name}: wanted labels of nodes of the graph"):
                from_networkx(kind, shuffled_path(), **{name: [strange]})


@pytest.mark.parametrize("kind", GRAPHS)
def test_parallel_edges_are_in_parallel_or_refused(kind):
    graph = nx.MultiGraph(shuffled_path())
    from_networkx(kind, graph)
    graph.add_edge(1, 0)
    if kind not in (ResistorNetwork, ElasticNetwork):
        with pytest.raises(ValueError, match=r"graph: .* without parallel edges, got more than one between . and ."):
            from_networkx(kind, graph)
        return
    name = "conductance" if kind is ResistorNetwork else "stiffness"
    values = {name: [0.5 if {a, b} == {0, 1} else 1.0 for a, b in graph.edges()]}
    twice, once = from_networkx(kind, graph, **values), from_networkx(kind, shuffled_path())
    x = 0.1 * jnp.ones(once.input_size)
    start = once.initial_state(x)
    state = start + 0.05 * jnp.arange(start.size, dtype=start.dtype).reshape(start.shape)
    np.testing.assert_allclose(twice.energy(state, x), once.energy(state, x), rtol=1e-12)
    np.testing.assert_allclose(twice.force(state, x), once.force(state, x), rtol=1e-9, atol=1e-14)


NO_LABELS = [
    (ResistorNetwork, {"rails": {4: 1.0}}, "rails: wanted labels of nodes"),
    (OscillatorNetwork, {"references": {4: 1.0}}, "references: wanted labels of nodes"),
    (ElasticNetwork, {"loads": {4: (1, 0)}}, "loads: wanted labels of nodes"),
    (ElasticNetwork, {"clamped": [(4, 0)]}, "clamped: wanted labels of nodes"),
    (ElasticNetwork, {"inputs": [{(4, 0): 1.0}]}, "inputs: wanted labels of nodes"),
    (ElasticNetwork, {"reading": "distance", "outputs": [(0, 4)]}, "outputs: wanted labels of nodes"),
    (ElasticNetwork, {"reading": "distance", "outputs": [0]}, "outputs: wanted pairs of labels of nodes"),
    (ElasticNetwork, {"positions": {0: (0, 0)}}, "positions: wanted one entry for each label"),
    (IsingModel, {"field": {0: 1.0}}, "field: wanted one entry for each label .* got nothing for 3"),
    (IsingModel, {"field": "h"}, "field: wanted the attribute 'h' on every node"),
    (TransverseFieldIsing, {"outputs": ["Z4"]}, "outputs: wanted labels of nodes"),
    (TransverseFieldIsing, {"outputs": [("W", 0)]}, "outputs: wanted labels of nodes"),
    (TransverseFieldIsing, {"outputs": [{("X", 4): 1.0}]}, "outputs: wanted labels of nodes"),
    (IsingModel, {"inputs": [0, 0]}, "each spin once, .*in the order of the graph: 0 is 3, 1 is 1, 2 is 0"),
]


@pytest.mark.parametrize(("kind", "options", "words"), NO_LABELS)
def test_what_is_no_label_is_refused(kind, options, words):
    with pytest.raises(ValueError, match=words):
        from_networkx(kind, shuffled_path(), **options)


def test_what_could_mean_two_things_is_refused():
    renamed = nx.relabel_nodes(shuffled_path(), {3: "Z0"})
    options = {"coupling": 1.0, "transverse_field": 1.0}
    with pytest.raises(ValueError, match="outputs: wanted entries of one meaning, got 'Z0'"):
        TransverseFieldIsing.from_networkx(renamed, outputs=["Z0"], **options)
    TransverseFieldIsing.from_networkx(renamed, outputs=[("Z", "Z0"), ("Z", 0)], **options)
    renamed = nx.relabel_nodes(shuffled_path(), {3: (0, 1)})
    options = {"positions": [[0, 0], [1, 0], [2, 1], [3, 5]], "stiffness": 1.0, "floppy": True, "inputs": [0]}
    with pytest.raises(ValueError, match=r"outputs: wanted entries of one meaning, got \(0, 1\)"):
        ElasticNetwork.from_networkx(renamed, outputs=[(0, 1)], **options)
    ElasticNetwork.from_networkx(renamed, outputs=[((0, 1), 0), (1, 0)], **options)


def test_distances_between_labels():
    net = from_networkx(ElasticNetwork, shuffled_path(), reading="distance", outputs=[(0, 3)])
    positions = jnp.asarray(net.reference.reshape(-1)[net.topology.free]).reshape(net.topology.state_shape)
    np.testing.assert_allclose(net.read(positions, jnp.zeros(2)), [math.hypot(3, 9)], rtol=1e-12)


EDGES = [(0, 1), (1, 2), (0, 2)]
CORNERS = [[0.0, 0.0], [1.0, 0.0], [0.4, 0.8]]
KEY = jax.random.key(0)


def circuit(**given):
    return ResistorNetwork.from_edges(EDGES, **{"inputs": [0], "outputs": [2], "conductance": 1.0, **given})


def springs(**given):
    return ElasticNetwork.from_edges(
        EDGES, **{"positions": CORNERS, "clamped": [0], "inputs": [(1, 0), (1, 1)], "outputs": [2], **given}
    )


def spins(**given):
    return IsingModel.from_edges(EDGES, **{"coupling": 1.0, "inputs": [0], "outputs": [2], **given})


def phases(**given):
    return OscillatorNetwork.from_edges(EDGES, **{"coupling": 1.0, "inputs": [0], "outputs": [2], **given})


def quantum_spins(**given):
    return TransverseFieldIsing.from_edges(
        EDGES, **{"coupling": 1.0, "transverse_field": 1.0, "inputs": [0], "outputs": [2], **given}
    )


def quantum_oscillators(**given):
    return QuantumOscillatorNetwork.from_edges(EDGES, **{"inputs": [0], "outputs": [2], **given})


def operators(**given):
    return HamiltonianSubstrate.from_operators(**{"terms": [np.diag([1.0, -1.0])], "weight": [1.0], **given})


def memristive(**given):
    return ResistorNetwork.layered((2, 3, 1), key=KEY, **given)


LAYERS = {"coupling": (Dense(jnp.ones((2, 1))),), "bias": (jnp.ones(1),)}

TAKES = {  # argument: how it is given to a constructor, with some numbers
    "circuit conductance": lambda c: circuit(conductance=[c, 1.0, 1.0]),
    "circuit rails": lambda c: circuit(rails={1: c}),
    "circuit current_sources": lambda c: circuit(current_sources=[(0, 1, c)]),
    "circuit voltage_sources": lambda c: circuit(voltage_sources=[(0, 1, c)]),
    "circuit controlled_sources": lambda c: circuit(controlled_sources=[(1, -1, 2, -1, c)]),
    "circuit diode": lambda c: circuit(diodes=[(1, 2)], diode=Shockley(c, 0.02)),
    "circuit floor": lambda c: circuit(floor=c),
    "layers rails": lambda c: memristive(rails=[c]),
    "layers input_gain": lambda c: memristive(input_gain=c),
    "layers weights": lambda c: ResistorNetwork.from_relu([[[c], [1.0]]], [[0.0]], 0.1),
    "layers biases": lambda c: ResistorNetwork.from_relu([[[1.0], [1.0]]], [[c]], 0.1),
    "springs stiffness": lambda c: springs(stiffness=[c, 1.0, 1.0]),
    "springs rest_length": lambda c: springs(rest_length=[c, 1.0, 1.0]),
    "springs positions": lambda c: springs(positions=[[c, 0.0], *CORNERS[1:]]),
    "springs loads": lambda c: springs(loads={2: (c, 0.0)}),
    "springs inputs": lambda c: springs(inputs=[{1: (c, 0.0)}]),
    "springs outputs": lambda c: springs(outputs=[{(2, 0): c}]),
    "springs stiffness_floor": lambda c: springs(stiffness_floor=c),
    "spins coupling": lambda c: spins(coupling=[c, 1.0, 1.0]),
    "spins field": lambda c: spins(field=[c, 1.0, 1.0]),
    "matrix of spins coupling": lambda c: IsingModel.all_to_all(np.asarray([[0, c], [c, 0]])),
    "phases coupling": lambda c: phases(coupling=[c, 1.0, 1.0]),
    "phases field": lambda c: phases(field=[c, 1.0, 1.0]),
    "phases field_phase": lambda c: phases(field_phase=[c, 1.0, 1.0]),
    "phases second_harmonic": lambda c: phases(second_harmonic=[c, 1.0, 1.0]),
    "phases frequency": lambda c: phases(frequency=[c, 1.0, 1.0]),
    "phases references": lambda c: phases(references={1: c}),
    "matrix of phases coupling": lambda c: OscillatorNetwork.from_matrix(np.asarray([[0, c], [c, 0]]), inputs=[0]),
    "layers of phases coupling": lambda c: OscillatorNetwork.from_layers([[[c], [1.0]]]),
    "layers of phases field": lambda c: OscillatorNetwork.from_layers([jnp.ones((2, 1))], field=[[c]]),
    "layers of phases phase_range": lambda c: OscillatorNetwork.from_layers([jnp.ones((2, 1))], phase_range=(0.0, c)),
    "hopfield coupling": lambda c: HopfieldNetwork((Dense(jnp.full((2, 1), c)),), (jnp.ones(1),), (2,)),
    "hopfield bias": lambda c: HopfieldNetwork(LAYERS["coupling"], (jnp.full(1, c),), (2,)),
    "hopfield patterns": lambda c: HopfieldNetwork.from_patterns([[c, -1.0], [1.0, 1.0]]),
    "predictive coding coupling": lambda c: PredictiveCodingNetwork(
        (Dense(jnp.full((2, 1), c)),), LAYERS["bias"], shape=(2,)
    ),
    "predictive coding bias": lambda c: PredictiveCodingNetwork(LAYERS["coupling"], (jnp.full(1, c),), shape=(2,)),
    "quantum spins coupling": lambda c: quantum_spins(coupling=[c, 1.0, 1.0]),
    "quantum spins transverse_field": lambda c: quantum_spins(transverse_field=[c, 1.0, 1.0]),
    "quantum spins longitudinal_field": lambda c: quantum_spins(longitudinal_field=[c, 1.0, 1.0]),
    "quantum spins outputs": lambda c: quantum_spins(outputs=[{"Z2": c}]),
    "quantum oscillators stiffness": lambda c: quantum_oscillators(stiffness=[c, 1.0, 1.0]),
    "quantum oscillators onsite_stiffness": lambda c: quantum_oscillators(onsite_stiffness=[c, 1.0, 1.0]),
    "quantum oscillators bias_force": lambda c: quantum_oscillators(bias_force=[c, 1.0, 1.0]),
    "quantum oscillators mass": lambda c: quantum_oscillators(mass=[c, 1.0, 1.0]),
    "quantum oscillators temperature": lambda c: quantum_oscillators(temperature=c),
    "quantum oscillators gain": lambda c: quantum_oscillators(gain=c),
    "operators weight": lambda c: operators(weight=[c]),
    "chain coupling": lambda c: FreeFermionChain.chain(3, coupling=[c, 1.0]),
    "chain transverse_field": lambda c: FreeFermionChain.chain(3, transverse_field=[c, 1.0, 1.0]),
}


@pytest.mark.parametrize("argument", TAKES)
@pytest.mark.parametrize("kind", [complex, np.complex64])
def test_complex_parameters_are_refused_by_name(argument, kind):
    with pytest.raises(ValueError, match=rf"{argument.split()[-1]}.*: wanted real numbers, got complex"):
        TAKES[argument](kind(1 + 1j))


@pytest.mark.parametrize("argument", ["circuit conductance", "springs stiffness", "spins field", "phases field"])
@pytest.mark.parametrize("strange", [None, "1.0"])
def test_what_is_no_number_is_refused_by_name(argument, strange):
    with pytest.raises(ValueError, match=f"{argument.split()[-1]}: wanted real numbers, got"):
        TAKES[argument](strange)


def test_a_circuit_says_that_it_has_no_impedances():
    with pytest.raises(ValueError, match=r"conductance: wanted real numbers, got complex128; .* no impedances"):
        circuit(conductance=1j)
    with pytest.raises(ValueError, match=r"got complex128 in the attribute 'y' of the edge \(3, 2\); .* no impedances"):
        ResistorNetwork.from_networkx(shuffled_path(y=1j), inputs=[0], outputs=[3], conductance="y")


def test_whole_numbers_become_numbers_of_the_default_precision():
    default = jnp.zeros(()).dtype
    assert circuit(conductance=2).conductance.dtype == default
    assert springs(stiffness=np.array([1, 2, 3])).stiffness.dtype == default
    assert spins(coupling=jnp.array([1, 2, 3])).coupling.weight.dtype == default
    assert phases(coupling=np.uint8(3)).coupling.weight.dtype == default
    assert spins(coupling=np.float16(0.5), field=np.float16(0)).field.dtype == jnp.float32


ONE_BASED = {
    "circuit": lambda **n: ResistorNetwork.from_edges([(1, 2), (2, 3)], inputs=[1], outputs=[3], conductance=1.0, **n),
    "spins": lambda **n: IsingModel.from_edges([(1, 2), (2, 3)], coupling=1.0, inputs=[1], outputs=[3], **n),
    "phases": lambda **n: OscillatorNetwork.from_edges(
        [(1, 2), (2, 3)], coupling=1.0, field=1.0, inputs=[1], outputs=[3], **n
    ),
    "quantum spins": lambda **n: TransverseFieldIsing.from_edges(
        [(1, 2), (2, 3)], coupling=1.0, transverse_field=1.0, inputs=[1], outputs=[3], **n
    ),
    "quantum oscillators": lambda **n: QuantumOscillatorNetwork.from_edges(
        [(1, 2), (2, 3)], inputs=[1], outputs=[3], **n
    ),
}


@pytest.mark.parametrize("kind", ONE_BASED)
def test_nodes_that_count_from_one_are_refused_unless_their_number_is_given(kind):
    with pytest.raises(ValueError, match=r"edges.*: wanted nodes that count from 0, .* subtract 1 .* or give n=4"):
        ONE_BASED[kind]()
    if kind != "circuit":
        assert ONE_BASED[kind](n=4).n == 4
    else:
        with pytest.raises(ValueError, match="floating nodes 0"):
            ONE_BASED[kind](n=4)


def test_a_node_that_only_another_argument_names_is_named():
    assert IsingModel.from_edges([(1, 2)], coupling=1.0, outputs=[0]).n == 3
    assert IsingModel.from_edges([(1, 2)], coupling=1.0, field=[0.1, 0.2, 0.3]).n == 3
    assert OscillatorNetwork.from_edges([(1, 2)], coupling=1.0, references={0: 0.0}).n == 3
    assert TransverseFieldIsing.from_edges([(1, 2)], coupling=1.0, transverse_field=1.0, outputs=["X0"]).n == 3
    with pytest.raises(ValueError, match=r"n: wanted a whole number, got 2\.5"):
        spins(n=2.5)


SYSTEMS = {
    "circuit": circuit,
    "layers": memristive,
    "springs": springs,
    "spins": spins,
    "layers of spins": lambda: IsingModel.layered((2, 3, 1), key=KEY),
    "phases": phases,
    "layers of phases": lambda: OscillatorNetwork.layered((2, 3, 1), key=KEY),
    "hopfield": lambda: HopfieldNetwork.layered((2, 3, 1), key=KEY),
    "predictive coding": lambda: PredictiveCodingNetwork.dense((2, 3, 1), key=KEY),
    "quantum spins": quantum_spins,
    "quantum oscillators": quantum_oscillators,
    "operators": lambda: operators(drives=[np.diag([1.0, 0.0])]),
    "chain": lambda: FreeFermionChain.chain(3, inputs=[0]),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_complex_inputs_are_refused_by_name(name):
    net = SYSTEMS[name]()
    x = jnp.full(net.input_size, 0.3 + 0.1j)
    for call in (net.relax, net.initial_state, lambda x: relax_batch(net, x[None])):
        with pytest.raises(ValueError, match="x: wanted real numbers, got complex"):
            call(x)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_spins_refuse_an_input_that_is_not_finite(bad):
    for net in (spins(), SYSTEMS["layers of spins"]()):
        with pytest.raises(ValueError, match=r"x: wanted finite numbers, got NaN or infinity at \[0"):
            net.relax(jnp.full(net.input_size, bad))


HIDING = {  # systems whose state stays finite under an infinite input, or whose factorisation would not return
    "spins": (spins, [np.inf, -np.inf, np.nan]),
    "a node behind a diode": (lambda: circuit(rails={1: 0.0}, diodes=[(2, 1)]), [np.inf, np.nan]),
    "a chain of fermions": (SYSTEMS["chain"], [np.inf, -np.inf, np.nan]),
    "a spring that vanishes": (lambda: quantum_oscillators(drive="stiffness"), [-np.inf, np.nan]),
}


@pytest.mark.parametrize("name", HIDING)
def test_an_input_that_is_not_finite_never_counts_as_converged(name):
    build, bad = HIDING[name]
    found = relax_batch(build(), jnp.array([[0.3], *([value] for value in bad)]))
    assert found.converged.tolist() == [True, *(False for _ in bad)]
    assert (found.status == Status.not_finite).tolist() == [False, *(True for _ in bad)]


OVERFLOWING = {"node by node": 2, "by sparse factors": 300}


@pytest.mark.parametrize("nodes", OVERFLOWING.values(), ids=OVERFLOWING)
@pytest.mark.parametrize(
    ("volts", "status"),
    [(1e150, Status.converged), (1e200, Status.not_finite), (1e308, Status.not_finite), (jnp.nan, Status.not_finite)],
)
def test_energies_that_no_number_holds_are_not_finite_and_nothing_is_tried_in_vain(nodes, volts, status):
    """A chain of resistors under 1e200 volts has voltages, and 1e400 watts."""
    n = nodes + 1
    chain = [(k, k + 1) for k in range(nodes)]
    net = ResistorNetwork.from_edges(chain, n=n, inputs=[0, nodes], outputs=[1], conductance=jnp.ones(nodes))
    found = net.relax(jnp.array([volts, 0.0]))
    assert found.status == status
    assert bool(jnp.isfinite(found.energy)) == (status == Status.converged)
    assert found.steps <= 10


def test_an_energy_without_a_floor_is_not_finite():
    class Hill(Substrate):
        width: jax.Array

        def energy(self, position, x):
            return -jnp.sum((position / self.width) ** 2) / 2 - position @ x

        def initial_state(self, x):
            return jnp.zeros_like(x)

        def read(self, position, x):
            return position

    found = Hill(jnp.ones(2)).relax(jnp.ones(2))
    assert found.energy == -jnp.inf
    assert found.status == Status.not_finite
