"""The laws of circuits: Kirchhoff's, superposition, reciprocity, power balance, equivalents, the laws of diodes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from circuits import CONSERVATIVE, EDGES, KINDS, N, circuit, every, inputs, potentials
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from learning import CrossEntropy, SquaredError
from substrates import Nudge, ResistorNetwork, Shockley, Status
from substrates.classical.resistor import ResistorCircuit
from substrates.solvers.solver import Equilibrium
from substrates.substrate import relax_batch

seeds = st.integers(0, 2**31 - 1)
LAWS = ("sources", "amplifier", "one-way amplifier", "bounds", "diode loop", "real diodes")
injection = lambda output, current: -jnp.sum(current * output)  # the energy of constant currents into the outputs
relax = eqx.filter_jit(lambda net, x, nudge=None, start=None: net.relax(x, nudge, start))


@pytest.mark.parametrize("kind", every(KINDS, *LAWS))
@given(seed=seeds)
def test_currents_balance_at_every_node(kind, seed):
    """Kirchhoff's current law node by node from measured currents alone, sources and control currents included."""
    net, x = circuit(kind, seed), inputs(seed)
    found = relax(net, x)
    assert found.status == Status.converged
    leaving = np.zeros(N + 1)

    def carry(pairs, currents):
        for (a, b), i in zip(pairs, np.asarray(currents), strict=True):
            leaving[a] += i
            leaving[b] -= i

    carry(net.edges, net.currents(found.state, x))
    carry(net.diodes, net.diode_currents(found.state, x))
    carry(net.current_sources, net.source_current)
    out = np.asarray(net.source_currents(found.state, x))
    held = [(node, -1) for node in (*net.inputs, *net.rails)]
    carry(held + net.voltage_sources.tolist() + net.controlled_sources[:, :2].tolist(), -out)
    carry(net.controlled_sources[:, 2:], net.reverse_gain * out[len(out) - len(net.gain) :])
    np.testing.assert_allclose(leaving[:N], 0, atol=1e-9)


@pytest.mark.parametrize("kind", every(KINDS, *LAWS))
@given(seed=seeds)
def test_sources_impose_their_voltages(kind, seed):
    net, x = circuit(kind, seed), inputs(seed)
    v = np.append(net.voltages(relax(net, x).state, x), 0.0)
    np.testing.assert_array_equal(v[list(net.inputs)], x)
    np.testing.assert_array_equal(v[list(net.rails)], net.rail_voltage)
    plus, minus = net.voltage_sources.T
    np.testing.assert_allclose(v[plus] - v[minus], net.source_voltage, atol=1e-13)
    plus, minus, control_plus, control_minus = net.controlled_sources.T
    np.testing.assert_allclose(v[plus] - v[minus], net.gain * (v[control_plus] - v[control_minus]), atol=1e-12)


@pytest.mark.parametrize("kind", every(KINDS, *LAWS))
@given(seed=seeds)
def test_delivered_power_is_dissipated(kind, seed):
    """Tellegen: sources deliver what resistors and diodes dissipate; one-way amplifiers add power of their own."""
    net, x = circuit(kind, seed), inputs(seed)
    state = relax(net, x).state
    v = np.append(net.voltages(state, x), 0.0)
    pairs = net.topology.layout.source_pairs
    delivered = np.sum((v[pairs[:, 0]] - v[pairs[:, 1]]) * np.asarray(net.source_currents(state, x)))
    pairs = net.current_sources
    delivered += np.sum((v[pairs[:, 1]] - v[pairs[:, 0]]) * np.asarray(net.source_current))
    control = net.controlled_sources[:, 2:]
    drawn = (
        net.reverse_gain
        * np.asarray(net.source_currents(state, x))[len(net.topology.layout.source_pairs) - len(net.gain) :]
    )
    delivered -= np.sum((v[control[:, 0]] - v[control[:, 1]]) * drawn)
    spent = np.sum(net.dissipated_power(state, x)) + np.sum(net.diode_drops(state, x) * net.diode_currents(state, x))
    np.testing.assert_allclose(delivered, spent, rtol=1e-9)
    if kind == "amplifier":  # ideal bidirectional amplifiers deliver no power of their own
        own = (v[net.controlled_sources[:, 0]] - v[net.controlled_sources[:, 1]]) * drawn / net.reverse_gain
        np.testing.assert_allclose(own, (v[control[:, 0]] - v[control[:, 1]]) * drawn, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["linear", "sources", "amplifier", "one-way amplifier"])
@given(seed=seeds)
def test_superposition(kind, seed):
    net, a, b = circuit(kind, seed), inputs(seed), inputs(seed + 7)
    v = lambda x: net.voltages(relax(net, x).state, x)
    np.testing.assert_allclose(v(a) + v(b) - v(0 * a), v(a + b), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["linear", "sources", "amplifier"])
@given(seed=seeds)
def test_transfer_resistance_is_reciprocal(kind, seed):
    """A current into output a moves output b as much as the same current into b moves a."""
    net, x = circuit(kind, seed), inputs(seed)
    shown = lambda currents: net.read(relax(net, x, Nudge(injection, jnp.array(currents), 1.0)).state, x)
    rest, first, second = shown([0.0, 0.0]), shown([1.0, 0.0]), shown([0.0, 1.0])
    np.testing.assert_allclose((first - rest)[1], (second - rest)[0], rtol=1e-9, atol=1e-11)
    assert abs((first - rest)[1]) > 1e-6


@pytest.mark.slow
@given(seed=seeds)
def test_effective_resistance_of_all_edges_obeys_foster(seed):
    """Foster's theorem: sum g_e R_e over all resistors is the number of nodes less one."""
    net = circuit("linear", seed)
    net = ResistorNetwork.from_edges(EDGES, N, inputs=[], outputs=[7], conductance=net.conductance)
    resistance = eqx.filter_jit(lambda net: jnp.stack([net.effective_resistance(a, b) for a, b in EDGES]))
    total = jnp.sum(net.conductance * resistance(net))
    np.testing.assert_allclose(total, N, rtol=1e-10)  # ground is a node too


@pytest.mark.slow
@given(r=st.lists(st.floats(0.1, 10), min_size=3, max_size=3))
def test_series_parallel_and_star_triangle(r):
    g = 1 / np.asarray(r)
    build = lambda edges, g: ResistorNetwork.from_edges(edges, inputs=[0], outputs=[], conductance=g)
    series = build([(0, 1), (1, 2), (2, 3)], g)
    parallel = build([(0, 1), (0, 1), (0, 1)], g)
    np.testing.assert_allclose(series.effective_resistance(0, 3), sum(r), rtol=1e-12)
    np.testing.assert_allclose(parallel.effective_resistance(0, 1), 1 / sum(g), rtol=1e-12)
    star = build([(0, 3), (1, 3), (2, 3)], g)
    pairs = [(0, 1), (1, 2), (2, 0)]
    triangle = build(pairs, [g[a] * g[b] / sum(g) for a, b in pairs])
    for a, b in pairs:
        np.testing.assert_allclose(star.effective_resistance(a, b), triangle.effective_resistance(a, b), rtol=1e-12)


@pytest.mark.parametrize("kind", ["bounds", "diodes", "diode loop"])
@given(seed=seeds)
def test_ideal_diodes_block_or_conduct(kind, seed):
    net, x = circuit(kind, seed), inputs(seed)
    found = relax(net, x)
    drop, current = net.diode_drops(found.state, x), net.diode_currents(found.state, x)
    assert found.status == Status.converged
    assert jnp.all(drop <= 1e-11)
    assert jnp.all(current >= -1e-10)
    np.testing.assert_allclose(drop * current, 0, atol=1e-10)


@given(volts=st.floats(-2000, 2000, allow_subnormal=False), siemens=st.floats(1e-6, 10))
def test_real_diode_against_a_root_of_one_equation(volts, siemens):
    law = Shockley(1e-14, 0.02585)
    net = ResistorNetwork.from_edges(
        [(0, 1)], inputs=[0], outputs=[1], conductance=siemens, diodes=[(1, -1)], diode=law
    )
    found = relax(net, jnp.array([volts]))
    assert found.status == Status.converged
    excess = lambda v: float(siemens * (volts - v) - 1e-14 * np.expm1(v / 0.02585))
    ceiling = 0.02585 * np.log1p(siemens * abs(volts) / 1e-14) + 1e-9
    wanted = brentq(excess, min(volts, 0.0) - 1e-9, min(abs(volts) + 1e-9, ceiling), xtol=1e-14)
    np.testing.assert_allclose(found.state[0], wanted, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("gain", [0.3, 12.0])
@given(seed=seeds)
def test_amplifier_chain_in_closed_form(gain, seed):
    """0 -g1- 1 |> 2 -g2- 3 -g3- ground: one way a divider; both ways it loads node 1 with gain^2 times the divider."""
    g = 10 ** np.random.default_rng(seed).uniform(-1, 1, 3)
    build = lambda reverse: ResistorNetwork.from_edges(
        [(0, 1), (2, 3), (3, -1)],
        inputs=[0],
        outputs=[3],
        conductance=g,
        controlled_sources=[(2, -1, 1, -1, gain, reverse)],
    )
    load = gain**2 * g[1] * g[2] / (g[1] + g[2])
    for reverse, first in ((0.0, 1.0), (gain, g[0] / (g[0] + load))):
        net, x = build(reverse), jnp.array([1.5])
        found = relax(net, x)
        shown = np.array([1.0, first, gain * first, gain * first * g[1] / (g[1] + g[2])]) * 1.5
        np.testing.assert_allclose(net.voltages(found.state, x), shown, rtol=1e-11)


@pytest.mark.parametrize("kind", every(CONSERVATIVE, "amplifier", "diode loop", "real diodes"))
@given(seed=seeds)
def test_force_and_measurements_are_gradients_of_the_energy(kind, seed):
    net, x = circuit(kind, seed), inputs(seed)
    state = jax.tree.map(lambda leaf: leaf + 0.3, relax(net, x).state)
    gradient = jax.grad(net.energy)(state, x)
    for force, slope in zip(jax.tree.leaves(net.force(state, x)), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(force, -slope, rtol=1e-9, atol=1e-9)
    batch = jax.tree.map(lambda leaf: leaf[None], (state, x))
    np.testing.assert_allclose(
        net.measure(*batch).conductance, net.voltage_drops(state, x) ** 2 / 2, rtol=1e-12, atol=1e-14
    )
    amplifier = circuit("one-way amplifier", seed)
    with pytest.raises(TypeError, match="reverse gain"):
        amplifier.energy(amplifier.initial_state(x), x)


@pytest.mark.parametrize("kind", every(KINDS, "sources", "real diodes"))
def test_batch_jit_and_eager_agree(kind):
    net, xs = circuit(kind, 3), inputs(3, batch=4)
    nudges = Nudge(SquaredError(), jnp.ones((4, 2)), 0.05)
    batched = relax_batch(net, xs, nudges)
    assert jnp.all(batched.converged)
    for k in range(4):
        nudge = Nudge(SquaredError(), jnp.ones(2), 0.05)
        for single in (relax(net, xs[k], nudge), net.relax(xs[k], nudge)):  # one compiled by us, one called eagerly
            for one, many in zip(jax.tree.leaves(single.state), jax.tree.leaves(batched.state), strict=True):
                np.testing.assert_allclose(one, many[k], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", every(KINDS, "one-way amplifier", "diodes", "real diodes"))
@given(seed=seeds)
def test_single_precision(kind, seed):
    wide, narrow = circuit(kind, seed), circuit(kind, seed, jnp.float32)
    x = inputs(seed, dtype=jnp.float32)
    found = relax(narrow, x)
    assert found.converged
    assert {leaf.dtype for leaf in jax.tree.leaves(found.state)} == {jnp.dtype("float32")}
    exact = relax(wide, x.astype(jnp.float64)).state
    np.testing.assert_allclose(potentials(found.state), potentials(exact), atol=2e-3 * float(jnp.max(jnp.abs(x)) + 1))


@given(seed=seeds)
def test_relabelled_nodes_change_nothing(seed):
    net, x = circuit("diodes", seed), inputs(seed)
    order = np.random.default_rng(5).permutation(N)
    rename = lambda nodes: np.where(np.asarray(nodes) < 0, -1, order[np.asarray(nodes)])
    other = ResistorNetwork.from_edges(
        rename(net.edges),
        N,
        inputs=rename(net.inputs).tolist(),
        outputs=rename(net.outputs).tolist(),
        conductance=net.conductance,
        diodes=rename(net.diodes),
        current_sources=[
            (*rename(pair).tolist(), float(i)) for pair, i in zip(net.current_sources, net.source_current, strict=True)
        ],
    )
    v, w = net.voltages(relax(net, x).state, x), other.voltages(relax(other, x).state, x)
    np.testing.assert_allclose(w[order], v, rtol=1e-9, atol=1e-10)


def test_networkx_and_lattice_are_the_same_circuit():
    graph = nx.grid_2d_graph(3, 4)
    g = np.random.default_rng(0).uniform(0.5, 1.5, 17)
    lattice = ResistorNetwork.lattice((3, 4), inputs=[0, 11], outputs=[5], conductance=g, rails={3: 0.5})
    for (a, b), value in zip(lattice.edges, g, strict=True):
        graph.edges[divmod(int(a), 4), divmod(int(b), 4)]["conductance"] = value
    net = ResistorNetwork.from_networkx(graph, inputs=[(0, 0), (2, 3)], outputs=[(1, 1)], rails={(0, 3): 0.5})
    x = jnp.array([1.0, -1.0])
    assert list(graph.nodes) == [divmod(k, 4) for k in range(12)]
    np.testing.assert_allclose(net.relax(x).state, lattice.relax(x).state, rtol=1e-12)


@pytest.mark.parametrize(("shape", "periodic"), [((5,), False), ((3, 4), True), ((2, 3, 4), False), ((3, 3, 3), True)])
def test_lattices_have_the_edges_of_grids(shape, periodic):
    net = ResistorNetwork.lattice(shape, inputs=[0], outputs=[1], periodic=periodic)
    grid = nx.grid_graph(shape[::-1], periodic=periodic)
    number = lambda node: int(np.ravel_multi_index(node if isinstance(node, tuple) else (node,), shape))
    wanted = {frozenset((number(a), number(b))) for a, b in grid.edges}
    assert {frozenset(pair) for pair in net.edges.tolist()} == wanted
    assert len(net.edges) == len(wanted)


def test_cubic_lattice_across_an_edge():
    """By symmetry and Foster's theorem a periodic lattice of N nodes and dN edges has R = (N - 1) / (d N) per edge."""
    net = ResistorNetwork.lattice((4, 4, 4), inputs=[0], outputs=[1], periodic=True)
    np.testing.assert_allclose(net.effective_resistance(0, 1), 63 / 192, rtol=1e-12)


def test_trained_parameters_stay_physical():
    net = ResistorNetwork.from_edges([(0, 1), (1, 2)], inputs=[0], outputs=[1], conductance=1.0, floor=0.1)
    moved = eqx.tree_at(lambda net: net.conductance, net, jnp.array([-2.0, 3.0]))
    np.testing.assert_array_equal(moved.constrained().conductance, [0.1, 3.0])
    assert isinstance(moved.relax(jnp.array([1.0])), Equilibrium)


@pytest.mark.parametrize(("cost", "beta"), [(SquaredError(), -0.05), (CrossEntropy(), 0.3)])
@pytest.mark.parametrize("kind", every(KINDS, "amplifier", "diodes", "real diodes"))
def test_nudges_inject_the_current_of_their_cost(kind, beta, cost):
    """At a nudged equilibrium the outputs carry away exactly -beta dC as an extra current."""
    net, x, target = circuit(kind, 1), inputs(1), jnp.array([0.3, 0.7])
    nudge = Nudge(cost, target, beta)
    found = relax(net, x, nudge)
    assert found.status == Status.converged
    injected = nudge.pull(net.read(found.state, x))
    again = relax(net, x, Nudge(injection, injected, 1.0))
    np.testing.assert_allclose(potentials(again.state), potentials(found.state), rtol=1e-7, atol=1e-9)


class Copper(ResistorNetwork):
    """A network of another class."""


def test_a_subclass_builds_itself():
    """Whatever a subclass is built from it is one of the subclass; its layered networks unfold to it."""
    net = Copper.from_edges([(0, 1), (1, 2)], inputs=[0], outputs=[1], conductance=1.0, rails={2: 0.0})
    graph = nx.path_graph(2)
    same = (
        Copper.from_networkx(graph, inputs=[0], outputs=[1], conductance=np.ones(1)),
        Copper.lattice((2, 2), inputs=[0], outputs=[3]),
        Copper.from_netlist(net.to_netlist(jnp.ones(1))),
        net.to_circuit(),
        Copper.layered((2, 3, 1), key=jax.random.key(0)).to_circuit(),
        Copper.from_relu([np.ones((1, 2)), np.ones((2, 1))], [np.zeros(2), np.zeros(1)], 0.1).to_circuit(),
        Copper.for_task(2, 1, sizes=(3,), key=jax.random.key(0)).to_circuit(),
    )
    assert {type(built) for built in same} == {Copper}
    for built in (net, *same):
        assert built.relax(jnp.ones(built.input_size)).converged


def test_networks_on_graphs_and_in_layers_stand_on_one_base():
    layered = ResistorNetwork.layered((2, 3, 1), key=jax.random.key(0))
    assert isinstance(layered, ResistorCircuit)
    assert not isinstance(layered, ResistorNetwork)
    with pytest.raises(TypeError, match="abstract"):
        ResistorCircuit()
    assert jax.tree.structure(layered) == jax.tree.structure(
        ResistorNetwork.layered((2, 3, 1), key=jax.random.key(1))
    )  # so that both run in one compiled program


def test_resistance_distances_are_those_of_networkx():
    club = nx.karate_club_graph()
    for edge in club.edges.values():
        edge["conductance"] = float(edge["weight"])
    net = ResistorNetwork.from_networkx(club, inputs=[0, 33], outputs=[5])
    wanted = nx.resistance_distance(club, weight="conductance", invert_weight=False)
    wanted = np.array([[wanted[a][b] for b in club] for a in club])
    np.testing.assert_allclose(net.resistance_distances(), wanted, rtol=1e-12, atol=1e-12)
    # between driven nodes an ohmmeter sees the sources alone
    assert float(net.effective_resistance(0, 33)) == 0.0


@given(g=st.lists(st.floats(-12, 12), min_size=4, max_size=4).map(lambda powers: 10.0 ** np.array(powers)))
def test_resistance_distances_of_a_chain_add_up(g):
    net = ResistorNetwork.from_edges([(0, 1), (1, 2), (3, -1), (4, -1)], inputs=[0], outputs=[1], conductance=g)
    found = np.asarray(net.resistance_distances())
    apart = 1 / g[:1] + 1 / g[1:2]
    np.testing.assert_allclose([found[0, 1], found[0, 2], found[3, 4]], [1 / g[0], *apart, 1 / g[2] + 1 / g[3]], 1e-12)
    assert np.all(np.isinf(found[:3, 3:]))


def test_resistance_distances_know_a_resistor_that_does_not_conduct():
    net = ResistorNetwork.from_edges([(0, 1), (1, 2)], inputs=[0, 2], outputs=[1], conductance=np.array([1.0, 0.0]))
    np.testing.assert_array_equal(net.resistance_distances()[0], [0.0, 1.0, np.inf])
