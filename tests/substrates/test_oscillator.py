"""Oscillators against closed forms, brute force, an independent integrator and the laws of phase-locked states."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import minimize

from learning import EquilibriumPropagation, SquaredError
from substrates import Nudge, OscillatorNetwork, Pin, Status, Substrate
from substrates.classical.oscillator import BestOf, KuramotoFlow, PhaseDescent, Ramped, order_parameter
from substrates.classical.oscillator.layered import LayeredOscillators
from substrates.solvers.generic import DescendThenPolish
from substrates.substrate import relax_batch

seeds = st.integers(0, 2**31 - 1)
angles = st.floats(-3.0, 3.0)
NOTHING = jnp.zeros(0)

relax = eqx.filter_jit(
    lambda net, x, nudge=None, start=None, solver=None, key=None: net.relax(x, nudge, start, solver=solver, key=key)
)
energy = eqx.filter_jit(lambda net, state, x, nudge=None: net.total_energy(state, x, nudge))
torque = eqx.filter_jit(lambda net, state, x, nudge=None: net.total_force(state, x, nudge))
measure = eqx.filter_jit(lambda net, states, xs: net.measure(states, xs))
contrast = eqx.filter_jit(lambda net, plus, minus, xs: net.contrast(plus, minus, xs))
derived_measure = eqx.filter_jit(lambda net, states, xs: Substrate.measure(net, states, xs))
stiffness = eqx.filter_jit(lambda net, state, x: net.hessian(state, x))

PAIR = OscillatorNetwork.from_edges([(0, 1)], coupling=1.0, inputs=[0], outputs=[1], field=1.0)
FREE_PAIR = OscillatorNetwork.from_edges([(0, 1)], coupling=1.0, frequency=[0.5, -0.5])
GRAPH = [(0, 1), (0, 3), (1, 2), (1, 4), (2, 3), (2, 5), (3, 4), (4, 5), (0, 5), (3, 6), (5, 6)]
SMALL = OscillatorNetwork.from_edges(
    GRAPH,
    inputs=[0, 1],
    outputs=[5, 6],
    references={2: 0.4},
    coupling=1.0,
    field=0.3,
    field_phase=0.2,
    second_harmonic=0.1,
    frequency=0.1,
)
CROWD = OscillatorNetwork.all_to_all(12, coupling=1.0, second_harmonic=0.5, field=0.1)


def drawn(net, seed, scale=1.0):
    """The same network with random parameters, natural frequencies small enough to lock."""
    keys = jax.random.split(jax.random.key(seed), 5)
    normal = lambda key, leaf: scale * jax.random.normal(key, leaf.shape, leaf.dtype)
    net = eqx.tree_at(lambda n: n.coupling.weight, net, normal(keys[0], net.coupling.weight))
    net = eqx.tree_at(lambda n: n.field, net, 1 + normal(keys[1], net.field) ** 2)
    net = eqx.tree_at(lambda n: n.field_phase, net, normal(keys[2], net.field_phase))
    if net.second_harmonic is not None:
        net = eqx.tree_at(lambda n: n.second_harmonic, net, normal(keys[3], net.second_harmonic))
    if net.frequency is not None:
        net = eqx.tree_at(lambda n: n.frequency, net, 0.1 * normal(keys[4], net.frequency))
    return net


def inputs(seed, shape=(2,)):
    return jax.random.uniform(jax.random.key(seed + 1), shape, minval=-3.0, maxval=3.0)


def largest(*trees):
    gaps = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b), initial=0.0), *trees)
    return max(float(gap) for gap in jax.tree.leaves(gaps))


# closed forms


@given(st.floats(-2, 2), st.floats(-2, 2), angles, angles)
def test_one_oscillator_turns_to_the_resultant_of_its_neighbour_and_its_field(w, h, x, psi):
    resultant = w * np.exp(1j * x) + h * np.exp(1j * psi)
    if abs(resultant) < 1e-2:
        return
    net = eqx.tree_at(
        lambda n: (n.coupling.weight, n.field, n.field_phase), PAIR, (jnp.array([w]), jnp.full(2, h), jnp.full(2, psi))
    )
    found = relax(net, jnp.array([x]))
    assert found.converged
    np.testing.assert_allclose(np.exp(1j * float(found.state[0])), resultant / abs(resultant), atol=1e-9)
    np.testing.assert_allclose(found.energy, -abs(resultant) - h * np.cos(x - psi), atol=1e-12)


@given(st.floats(0.2, 3.0), st.floats(-0.97, 0.97))
def test_two_oscillators_of_different_frequency_lock_at_the_arcsine(w, ratio):
    detuning = 2 * w * ratio
    net = eqx.tree_at(
        lambda n: (n.coupling.weight, n.frequency), FREE_PAIR, (jnp.array([w]), jnp.array([detuning, -detuning]) / 2)
    )
    found = relax(net, NOTHING)
    assert found.status == Status.zero_mode  # as a whole the pair turns freely
    np.testing.assert_allclose(jnp.sin(found.state[0] - found.state[1]), detuning / (2 * w), atol=1e-9)
    assert jnp.cos(found.state[0] - found.state[1]) > 0


@pytest.mark.parametrize("solver", [PhaseDescent(), KuramotoFlow(max_steps=200)], ids=["descent", "flow"])
def test_beyond_the_critical_frequency_nothing_locks_and_it_is_said(solver):
    drifting = eqx.tree_at(lambda n: n.frequency, FREE_PAIR, jnp.array([1.02, -1.02]))
    found = relax(drifting, NOTHING, solver=solver)
    assert found.status == Status.out_of_steps
    assert found.residual > 0.015


def test_a_ring_keeps_its_twist():
    n = 8
    ring = OscillatorNetwork.lattice(n, periodic=True)
    nodes = jnp.arange(float(n))
    twisted = 2 * np.pi * nodes / n
    found = relax(ring, NOTHING, start=twisted + 0.2 * jnp.sin(3 * nodes))
    assert found.status == Status.zero_mode
    np.testing.assert_allclose(found.energy, -n * np.cos(2 * np.pi / n), rtol=1e-12)
    np.testing.assert_allclose(np.diff(found.state), 2 * np.pi / n, atol=1e-9)
    np.testing.assert_allclose(relax(ring, NOTHING).energy, -n, rtol=1e-12)


def test_a_frustrated_triangle_settles_at_120_degrees_in_either_sense():
    triangle = OscillatorNetwork.all_to_all(3, coupling=-1.0, references={0: 0.0}, random_starts=True)
    settle = eqx.filter_jit(jax.vmap(lambda key: triangle.relax(NOTHING, key=key)))
    found = settle(jax.random.split(jax.random.key(0), 16))
    assert jnp.all(found.converged)
    np.testing.assert_allclose(found.energy, -1.5, rtol=1e-12)
    chirality = np.sin(found.state[:, 0])
    np.testing.assert_allclose(np.abs(chirality), np.sqrt(3) / 2, atol=1e-9)
    assert 0 < np.sum(chirality > 0) < 16
    with pytest.raises(ValueError, match="key: a network with random_starts"):
        triangle.relax(NOTHING)


def test_the_synchronisation_transition_of_lorentzian_frequencies():
    # quantiles of g(omega) = 1 / (pi (1 + omega^2)): K_c = 2 / (pi g(0)) = 2
    n = 400
    frequency = np.tan(np.pi * ((np.arange(n) + 0.5) / n - 0.5))
    start = jax.random.uniform(jax.random.key(0), (n,), maxval=2 * np.pi)
    crowd = OscillatorNetwork.all_to_all(n, coupling=1.0 / n, frequency=frequency - frequency.mean())
    evolve = eqx.filter_jit(lambda net: order_parameter(net.evolve(NOTHING, start, duration=40.0, steps=600)))

    def coherence(k):
        return float(
            jnp.mean(evolve(eqx.tree_at(lambda m: m.coupling.weight, crowd, replace_fn=lambda w: k * w))[300:])
        )

    assert coherence(1.0) < 0.12
    for k in (3.0, 6.0):
        np.testing.assert_allclose(coherence(k), np.sqrt(1 - 2 / k), atol=0.02)


def test_a_large_second_harmonic_finds_ising_ground_states():
    n = 8
    states = np.array(list(itertools.product([-1.0, 1.0], repeat=n)))
    machine = OscillatorNetwork.all_to_all(n, coupling=1.0, second_harmonic=3.0)
    pairs = np.triu_indices(n, 1)
    settle = eqx.filter_jit(lambda net: net.relax(NOTHING, solver=BestOf(24, Ramped(4)), key=jax.random.key(0)))
    for seed in range(5):
        weight = np.random.default_rng(seed).normal(size=len(pairs[0]))
        found = settle(eqx.tree_at(lambda m: m.coupling.weight, machine, jnp.asarray(weight)))
        assert found.converged
        np.testing.assert_allclose(jnp.sin(found.state), 0, atol=1e-6)
        least = np.min(-(states[:, pairs[0]] * states[:, pairs[1]]) @ weight)
        np.testing.assert_allclose(found.energy + 0.5 * 3.0 * n, least, rtol=1e-9)


# brute force and independent calculations


@given(seeds)
def test_energy_and_torques_are_the_sums_over_pairs(seed):
    net, x = drawn(SMALL, seed), inputs(seed)
    state = jax.random.uniform(jax.random.key(seed + 2), (4,), minval=-4.0, maxval=4.0)
    phi = np.zeros(7)
    phi[[3, 4, 5, 6]], phi[[0, 1]], phi[2] = state, x, 0.4
    np.testing.assert_array_equal(net.phases(state, x), phi)
    pairs = [(i, j, float(w)) for (i, j), w in zip(GRAPH, net.coupling.weight, strict=True)]
    h, psi, k, omega = (np.asarray(values) for values in net.local_terms)
    total = -sum(w * np.cos(phi[i] - phi[j]) for i, j, w in pairs) - np.sum(h * np.cos(phi - psi))
    total += -0.5 * np.sum(k * np.cos(2 * phi)) - np.sum(omega * phi)
    np.testing.assert_allclose(energy(net, state, x), total, rtol=1e-12, atol=1e-12)
    felt = -h * np.sin(phi - psi) - k * np.sin(2 * phi) + omega
    for i, j, w in pairs:
        felt[i] += w * np.sin(phi[j] - phi[i])
        felt[j] += w * np.sin(phi[i] - phi[j])
    np.testing.assert_allclose(torque(net, state, x), felt[[3, 4, 5, 6]], atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_many_starts_is_the_least_energy_of_a_grid(seed):
    net, x = eqx.tree_at(lambda n: n.frequency, drawn(SMALL, seed, 2.0), jnp.zeros(7)), inputs(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-np.pi, np.pi, 12, endpoint=False)] * 4), -1).reshape(-1, 4)
    levels = eqx.filter_jit(jax.vmap(lambda s: net.energy(s, x)))(jnp.asarray(grid))
    lowest = np.argsort(np.asarray(levels))[:5]
    value_and_slope = jax.jit(jax.value_and_grad(lambda s: net.energy(s, x)))
    oracle = min(
        minimize(lambda s: tuple(map(np.asarray, value_and_slope(jnp.asarray(s)))), grid[i], jac=True).fun
        for i in lowest
    )
    found = relax(net, x, solver=BestOf(24), key=jax.random.key(seed))
    np.testing.assert_allclose(found.energy, oracle, rtol=1e-8)


def test_the_flow_is_that_of_an_independent_integrator_and_lowers_the_energy():
    net, x = drawn(SMALL, 3), inputs(3)
    start = jnp.array([2.0, -1.0, 0.5, -2.5])
    path = net.evolve(x, start, duration=3.0, steps=300)
    wanted = solve_ivp(
        lambda t, s: np.asarray(torque(net, jnp.asarray(s), x)), (0, 3), start, rtol=1e-11, atol=1e-12, t_eval=[1, 2, 3]
    )
    np.testing.assert_allclose(path[jnp.array([100, 200, 300])], wanted.y.T, atol=1e-7)
    levels = jax.vmap(lambda s: net.energy(s, x))(path)
    assert jnp.all(jnp.diff(levels) < 0)


@given(seeds)
def test_layers_are_the_graph_of_their_pairs(seed):
    keys = jax.random.split(jax.random.key(seed), 3)
    weights = [jax.random.normal(keys[0], (2, 3)), jax.random.normal(keys[1], (3, 2))]
    first = np.stack(np.meshgrid(range(2), range(2, 5), indexing="ij"), -1).reshape(-1, 2)
    second = np.stack(np.meshgrid(range(2, 5), range(5, 7), indexing="ij"), -1).reshape(-1, 2)
    layers = OscillatorNetwork.from_layers(weights, field=0.7, second_harmonic=[0.2, -0.1], frequency=[0.05, 0.0])
    graph = OscillatorNetwork.from_edges(
        np.concatenate([first, second]),
        coupling=jnp.concatenate([w.ravel() for w in weights]),
        inputs=[0, 1],
        outputs=[5, 6],
        field=[0.0] * 2 + [0.7] * 5,
        second_harmonic=[0.0] * 2 + [0.2] * 3 + [-0.1] * 2,
        frequency=[0.0] * 2 + [0.05] * 3 + [0.0] * 2,
    )
    x, start = inputs(seed), jax.random.normal(keys[2], (5,))
    layered_start = (start[:3], start[3:])
    np.testing.assert_allclose(energy(layers, layered_start, x), energy(graph, start, x), rtol=1e-12)
    np.testing.assert_allclose(jnp.concatenate(torque(layers, layered_start, x)), torque(graph, start, x), atol=1e-12)
    settled = relax(graph, x, start=start)
    nearby = (settled.state[:3] + 1e-3, settled.state[3:] - 1e-3)
    np.testing.assert_allclose(jnp.concatenate(relax(layers, x, start=nearby).state), settled.state, atol=1e-7)


# the solvers


@given(seeds)
def test_the_solver_ends_at_a_minimum_where_the_generic_solver_stays(seed):
    net, x = drawn(SMALL, seed), inputs(seed)
    found = relax(net, x)
    assert found.converged
    left = torque(net, found.state, x) / net.force_scale(found.state, x)
    np.testing.assert_allclose(found.residual, largest(left, jnp.zeros(4)), atol=1e-14)
    assert jnp.linalg.eigvalsh(stiffness(net, found.state, x))[0] > 0
    generic = relax(net, x, start=found.state + 1e-3, solver=DescendThenPolish())
    assert largest(generic.state, found.state) < 1e-7
    assert jnp.all(jnp.abs(found.state - net.initial_state(x)) < np.pi + 1e-6)


@given(seeds, st.booleans())
def test_no_sweep_raises_the_energy(seed, crowded):
    net = drawn(CROWD if crowded else SMALL, seed)
    net = net if crowded else eqx.tree_at(lambda n: n.frequency, net, jnp.zeros(7))
    x = NOTHING if crowded else inputs(seed)
    state = jax.random.uniform(jax.random.key(seed), net.initial_state(x).shape, minval=-3.0, maxval=3.0)
    level = energy(net, state, x)
    for _ in range(6):
        found = relax(net, x, start=state, solver=PhaseDescent(sweeps=1))
        assert found.status == Status.truncated
        assert found.energy <= level + 1e-12 * abs(level)
        state, level = found.state, found.energy
    settled = relax(net, x, start=state)
    assert settled.converged
    assert settled.energy <= level + 1e-12


def test_the_flow_settles_in_the_basin_of_the_dynamics():
    net, x = drawn(SMALL, 11, 2.0), inputs(11)
    start = jnp.array([2.0, -2.0, 1.0, 3.0])
    settled = relax(net, x, start=start, solver=KuramotoFlow())
    assert settled.converged
    path = net.evolve(x, start, duration=200.0, steps=8000)
    np.testing.assert_allclose(settled.state, path[-1], atol=1e-6)


def test_a_state_stays_on_the_branch_of_its_start():
    net, x = drawn(SMALL, 4), inputs(4)
    base = relax(net, x).state
    wound = base + 2 * np.pi * jnp.array([0.0, 1.0, -2.0, 3.0])
    np.testing.assert_allclose(relax(net, x, start=wound).state, wound, atol=1e-9)
    nudged = relax(net, x, Nudge(SquaredError(), net.read(wound, x) + 0.5, jnp.array(0.01)), wound)
    assert nudged.converged
    assert largest(nudged.state, wound) < 0.1


def test_complex_nudges_continue_analytically():
    """Cauchy: the mean over a circle of complex beta is the value at its centre."""
    net, x = drawn(SMALL, 2), inputs(2)
    free = relax(net, x).state
    wide = lambda tree: jax.tree.map(lambda leaf: leaf.astype(complex) if eqx.is_inexact_array(leaf) else leaf, tree)
    turned = [np.exp(2j * np.pi * k / 8) for k in range(8)]
    nudge = lambda beta: Nudge(SquaredError(), jnp.array([0.5 + 0j, 1.0]), jnp.asarray(beta))
    found = [relax(wide(net), wide(x), nudge(0.02 * p), wide(free)) for p in turned]
    assert all(one.converged for one in found)
    assert max(jnp.max(jnp.abs(one.state.imag)) for one in found) > 1e-4
    np.testing.assert_allclose(sum(one.state for one in found) / 8, free, atol=1e-9)


@pytest.mark.parametrize("readout", ["phase", "sine"])
def test_a_pin_holds_what_is_read_and_settles_the_rest(readout):
    net, x, target = drawn(SMALL, 6), inputs(6), jnp.array([0.4, -0.3])
    net = OscillatorNetwork.from_edges(
        GRAPH,
        inputs=[0, 1],
        outputs=[5, 6],
        references={2: 0.4},
        readout=readout,
        coupling=net.coupling.weight,
        field=net.field,
    )
    pinned = relax(net, x, Pin(target))
    assert pinned.converged
    np.testing.assert_allclose(net.read(pinned.state, x), target, atol=1e-12)
    np.testing.assert_allclose(torque(net, pinned.state, x)[:2], 0, atol=1e-9)
    stiff = relax(net, x, Nudge(SquaredError(), target, jnp.array(1e7)), pinned.state)
    assert largest(pinned.state, stiff.state) < 1e-5
    if readout == "sine":
        assert relax(net, x, Pin(jnp.array([1.5, 0.0]))).status == Status.not_finite


def test_a_lattice_of_many_oscillators_settles_without_a_matrix():
    lattice = OscillatorNetwork.lattice((20, 20), coupling=1.0, field=0.05, references={0: 1.0})
    found = relax(lattice, NOTHING, start=jax.random.uniform(jax.random.key(1), (399,), maxval=1.5))
    assert found.converged
    again = relax(lattice, NOTHING, start=found.state, solver=PhaseDescent(max_sweeps=1))
    assert largest(again.state, found.state) < 1e-8


# one program for many graphs, and for all phases


def other_graph(seed):
    """A random graph of 8 oscillators and 11 edges with 2 inputs, 2 outputs and a reference."""
    draw = np.random.default_rng(seed)
    edges = np.array(list(itertools.combinations(range(8), 2)))[draw.permutation(28)[:11]]
    roles = draw.permutation(8).tolist()
    return OscillatorNetwork.from_edges(
        edges,
        8,
        inputs=roles[:2],
        outputs=roles[2:4],
        references={roles[4]: 0.3},
        coupling=draw.normal(size=11),
        field=draw.uniform(0.5, 1.0, size=8),
        field_phase=draw.normal(size=8),
    ), edges


def test_ten_graphs_of_one_size_are_compiled_for_once():
    traced = []
    xs, ys, rule = inputs(0, (2, 2)), inputs(1, (2, 2)) / 3, EquilibriumPropagation(1e-3)

    @eqx.filter_jit
    def settled(net, x):
        traced.append("relaxation")
        return net.relax(x)

    @eqx.filter_jit
    def gradient(net):
        traced.append("gradient")
        return rule(net, xs, ys).gradient

    for seed in range(10):
        net, edges = other_graph(seed)
        found = settled(net, xs[0])
        assert found.converged
        phi = np.zeros(8)
        for nodes, phases in ((net.roles.free, found.state), (net.roles.inputs, xs[0]), (net.roles.references, 0.3)):
            phi[np.asarray(nodes)] = phases
        i, j = edges.T
        across = np.asarray(net.coupling.weight) * np.sin(phi[j] - phi[i])
        felt = -np.asarray(net.field) * np.sin(phi - np.asarray(net.field_phase))
        np.add.at(felt, i, across)
        np.add.at(felt, j, -across)
        np.testing.assert_allclose(felt[np.asarray(net.roles.free)], 0, atol=1e-11)
        assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(gradient(net)))
    assert sorted(traced) == ["gradient", "relaxation"]


LAYERS = OscillatorNetwork.layered((2, 5, 4, 2), key=jax.random.key(0), field=0.4, readout="sine")
LARGE = {
    "lattice": OscillatorNetwork.lattice((10, 10), field=0.2, field_phase=np.linspace(0, 3, 100), outputs=[5, 50]),
    "layers": OscillatorNetwork.for_task(2, 2, sizes=(120,), key=jax.random.key(1)),
}


@pytest.mark.parametrize("net", [drawn(SMALL, 1), LAYERS, *LARGE.values()], ids=["graph", "layers", *LARGE])
def test_a_free_phase_is_a_nudge_of_no_strength(net):
    x, other = inputs(0, (net.input_size,)), inputs(5, (net.input_size,))
    for start in (None, relax(net, other).state):
        free, nudged = (
            relax(net, x, nudge, start)
            for nudge in (None, Nudge(SquaredError(), jnp.array([0.3, -0.4]), jnp.zeros(())))
        )
        assert (nudged.status, nudged.converged) == (free.status, True)
        assert largest(nudged.state, free.state) < 1e-12
        np.testing.assert_allclose(nudged.energy, free.energy, rtol=1e-12)


# the ways to build one


class Graph(OscillatorNetwork):
    pass


class Layers(LayeredOscillators):
    pass


def test_what_a_subclass_builds_is_of_that_subclass(key):
    pair = networkx.Graph([("a", "b")])
    graphs = [
        Graph.from_edges([(0, 1)], coupling=1.0),
        Graph.from_matrix([[0.0, 1.0], [1.0, 0.0]]),
        Graph.all_to_all(3, coupling=1.0),
        Graph.from_networkx(pair, coupling=1.0),
        Graph.lattice((2, 2)),
    ]
    layers = [
        Layers.layered((2, 3, 1), key=key),
        Layers.from_layers([jnp.ones((2, 1))]),
        Layers.for_task(2, 1, key=key),
    ]
    assert {type(net) for net in graphs} == {Graph}
    assert {type(net) for net in layers} == {Layers}
    measured = [
        graphs[0].measure(jnp.zeros((1, 2)), jnp.zeros((1, 0))),
        layers[1].measure((jnp.zeros((1, 1)),), jnp.zeros((1, 2))),
    ]
    assert [type(found) for found in measured] == [Graph, Layers]


# symmetries


@given(seeds, angles)
def test_turning_everything_turns_the_equilibrium(seed, turn):
    net, x = drawn(SMALL, seed), inputs(seed)
    net = eqx.tree_at(lambda n: (n.second_harmonic, n.frequency), net, (jnp.zeros(7), jnp.zeros(7)))
    start = jax.random.normal(jax.random.key(seed), (4,))
    turned = eqx.tree_at(
        lambda n: (n.field_phase, n.reference_phase), net, (net.field_phase + turn, net.reference_phase + turn)
    )
    found, after = relax(net, x, start=start), relax(turned, x + turn, start=start + turn)
    np.testing.assert_allclose(after.energy, found.energy, rtol=1e-12)
    np.testing.assert_allclose(after.state, found.state + turn, atol=1e-7)


def test_without_fields_all_phases_turn_together():
    ring = OscillatorNetwork.lattice((3, 4), periodic=True)
    state = jax.random.normal(jax.random.key(0), (12,))
    np.testing.assert_allclose(ring.energy(state + 0.7, NOTHING), ring.energy(state, NOTHING), rtol=1e-13)
    np.testing.assert_allclose(jnp.sum(torque(ring, state, NOTHING)), 0, atol=1e-12)
    mode = jnp.linalg.eigh(stiffness(ring, relax(ring, NOTHING).state, NOTHING))
    np.testing.assert_allclose(mode[0][0], 0, atol=1e-12)
    np.testing.assert_allclose(jnp.abs(mode[1][:, 0]), 12**-0.5, atol=1e-9)


@given(st.permutations(range(7)), seeds)
def test_renumbering_renumbers_the_equilibrium(order, seed):
    net, x = drawn(SMALL, seed), inputs(seed)
    order = np.asarray(order)  # oscillator i becomes order[i]
    back = np.argsort(order)
    renumbered = OscillatorNetwork.from_edges(
        order[np.asarray(GRAPH)],
        inputs=order[[0, 1]].tolist(),
        outputs=order[[5, 6]].tolist(),
        references={int(order[2]): 0.4},
        coupling=net.coupling.weight,
        **{name: getattr(net, name)[back] for name in ("field", "field_phase", "second_harmonic", "frequency")},
    )
    found = relax(net, x)
    state = net.phases(found.state, x)[back][renumbered.roles.free]
    np.testing.assert_allclose(Substrate.total_energy(renumbered, state, x), found.energy, rtol=1e-12)
    assert largest(renumbered.force(state, x), jnp.zeros(4)) < 1e-9


# measurements


@pytest.mark.parametrize("kind", ["sparse", "dense", "layers"])
def test_measurements_are_the_derived_ones(kind):
    keys = jax.random.split(jax.random.key(3), 3)
    xs = jax.random.normal(keys[0], (5, 2))
    if kind == "layers":
        net = OscillatorNetwork.layered(
            (2, 5, 4, 3),
            key=keys[1],
            field=0.5,
            field_phase=0.3,
            second_harmonic=0.4,
            frequency=0.2,
            phase_range=(0, 3),
        )
        shape = lambda key: tuple(
            jax.random.normal(k, (5, n)) for k, n in zip(jax.random.split(key, 3), (5, 4, 3), strict=True)
        )
    elif kind == "sparse":
        net = OscillatorNetwork.lattice(
            80, inputs=[0, 20], outputs=[79], field=0.5, field_phase=0.3, second_harmonic=0.4, frequency=0.2
        )
        shape = lambda key: jax.random.normal(key, (5, 78))
    else:
        net, shape = drawn(SMALL, 5), lambda key: jax.random.normal(key, (5, 4))
    assert kind == "layers" or net.coupling.dense == (kind == "dense")
    plus, minus = shape(keys[1]), shape(keys[2])
    assert largest(measure(net, plus, xs), derived_measure(net, plus, xs)) < 1e-12
    plain = jax.tree.map(jnp.subtract, measure(net, plus, xs), measure(net, minus, xs))
    assert largest(contrast(net, plus, minus, xs), plain) < 1e-12


def test_the_contrast_does_not_cancel_in_float32():
    cast = lambda tree, dtype: jax.tree.map(
        lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree
    )
    net = OscillatorNetwork.layered((20, 30, 10), key=jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 5)
    xs = jax.random.normal(keys[0], (8, 20))
    minus = tuple(jax.random.normal(k, (8, n)) for k, n in zip(keys[1:3], (30, 10), strict=True))
    plus = tuple(m + 1e-4 * jax.random.normal(k, m.shape) for k, m in zip(keys[3:], minus, strict=True))
    plus, minus = cast((plus, minus), jnp.float32)  # the differences of these float32 numbers are exact
    exact = contrast(net, *cast((plus, minus), jnp.float64), xs).coupling
    single, xs = cast(net, jnp.float32), xs.astype(jnp.float32)
    error = lambda found: max(
        float(jnp.linalg.norm(f.weight.astype(float) - e.weight) / jnp.linalg.norm(e.weight))
        for f, e in zip(found.coupling, exact, strict=True)
    )
    found = contrast(single, plus, minus, xs)
    assert found.coupling[0].weight.dtype == jnp.float32
    plain = jax.tree.map(jnp.subtract, measure(single, plus, xs), measure(single, minus, xs))
    assert error(found) < 1e-5
    assert error(plain) > 50 * error(found)


def test_batch_equals_singles_and_jit_equals_eager():
    net, xs = drawn(SMALL, 8), inputs(8, (3, 2))
    batched = relax_batch(net, xs)
    for k, x in enumerate(xs):
        assert largest(batched.state[k], relax(net, x).state) < 1e-9
    assert largest(net.relax(xs[0]).state, relax(net, xs[0]).state) < 1e-12
