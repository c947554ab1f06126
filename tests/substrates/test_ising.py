"""Ising models against brute force, dimod, exact planar energies, and the laws that hold for global minimisers."""

import itertools
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning import CrossEntropy, EquilibriumPropagation, SquaredError
from substrates import IsingModel, Nudge, Pin, Status
from substrates.classical.ising.annealing import Annealing
from substrates.classical.ising.enumeration import Enumeration
from substrates.classical.ising.layered import LayeredSpins
from substrates.classical.ising.sweeps import counted_uniform, sweep_words
from substrates.classical.ising.tempering import Tempering, exchanged
from substrates.wiring import lattice_edges
from theory_checks import SealedSubstrate, check_substrate

EDGES = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 3), (1, 4), (5, 6), (2, 6)])
INPUTS, OUTPUTS = (0,), (4, 6)
SIZES, COPIES = (3, 4, 2), 2
ANNEAL = Annealing(sweeps=60, replicas=12, reverse_sweeps=40)
TEMPER = Tempering(sweeps=60, temperatures=6)
STORED = Path(__file__).parents[2] / "benchmarks" / "ising_ground_energies.npy"

seeds = st.integers(0, 2**31 - 1)
betas = st.sampled_from([-4.0, -0.7, 0.3, 2.0, 9.0])
_relax = eqx.filter_jit(lambda net, x, nudge, start, solver, key: net.relax(x, nudge, start, solver=solver, key=key))
_judged = eqx.filter_jit(lambda net, s, x, nudge: (net.residual(s, x, nudge), net.total_energy(s, x, nudge)))
estimate = eqx.filter_jit(lambda rule, *arguments, **options: rule(*arguments, **options))


def relax(net, x, nudge=None, start=None, solver=None, key=None):
    return _relax(net, x, jax.tree.map(jnp.asarray, nudge), start, solver, key)


def judged(net, state, x, nudge=None):
    return _judged(net, state, x, jax.tree.map(jnp.asarray, nudge))


def graph(seed):
    draw = np.random.default_rng(seed)
    return IsingModel.from_edges(
        EDGES, 7, coupling=draw.normal(size=10), field=draw.normal(size=7), inputs=INPUTS, outputs=OUTPUTS
    )


def layered(seed):
    keys = jax.random.split(jax.random.key(seed), 3)
    net = IsingModel.layered(SIZES, key=keys[0], copies=COPIES, levels=(0.0, 1.0))
    fields = tuple(0.5 * jax.random.normal(k, f.shape) for k, f in zip(keys[1:], net.field, strict=True))
    return eqx.tree_at(lambda n: n.field, net, fields)


BUILD = {"graph": graph, "layered": layered}
N_INPUTS = {"graph": 1, "layered": 3}
kinds = pytest.mark.parametrize("kind", ["graph", "layered"])


def case(kind, seed, batch=None):
    """A model, an input and a target; with a batch, arrays of them."""
    draw, shape = np.random.default_rng(seed + 1), () if batch is None else (batch,)
    low = {"graph": -1.0, "layered": 0.0}[kind]
    y = draw.choice([low, 1.0], (*shape, 2))
    return BUILD[kind](seed), jnp.asarray(draw.normal(size=(*shape, N_INPUTS[kind]))), jnp.asarray(y)


def brute_force(net, x, y, beta, cost="squared"):
    """(least F, every F, every state, every output) over all configurations, in numpy, from the formulas alone."""
    if hasattr(net.coupling, "graph"):
        spins = np.array(list(itertools.product([-1.0, 1.0], repeat=6)))
        s = np.insert(spins, 0, np.asarray(x), axis=1)
        J, h = np.asarray(net.coupling.weight), np.asarray(net.field)
        energy = -sum(J[k] * s[:, i] * s[:, j] for k, (i, j) in enumerate(EDGES)) - s @ h
        output = s[:, list(OUTPUTS)]
    else:
        spins = np.array(list(itertools.product([-1.0, 1.0], repeat=8)))
        hidden, out = spins[:, :4], spins[:, 4:]
        W = [np.asarray(block.weight) for block in net.coupling]
        h = [np.asarray(field) for field in net.field]
        energy = -hidden @ (np.asarray(x) @ W[0] + h[0]) - np.sum((hidden @ W[1] + h[1]) * out, axis=1)
        output = (out.reshape(-1, 2, 2) > 0).mean(axis=2)
    costs = {
        "squared": lambda o: 0.5 * np.sum((o - np.asarray(y)) ** 2, axis=1),
        "entropy": lambda o: np.sum(y) * np.log(np.sum(np.exp(o), axis=1)) - o @ np.asarray(y),
    }[cost](output)
    total = energy + beta * costs
    return total.min(), total, spins, output, costs


def flat(state):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state)])


# ground states


def test_a_large_graph_weighs_a_cost_flip_by_flip():
    draw, graph = np.random.default_rng(0), nx.random_regular_graph(3, 80, seed=0)
    net = IsingModel.from_networkx(graph, coupling=draw.normal(size=120), outputs=list(graph)[:3])
    nudge = Nudge(CrossEntropy(), jnp.array([1.0, 0.0, 0.0]), jnp.asarray(2.0))
    free = relax(net, jnp.zeros(0), None, None, ANNEAL)
    found = relax(net, jnp.zeros(0), nudge, free.state, ANNEAL)
    assert float(judged(net, found.state, jnp.zeros(0), nudge)[0]) == 0
    assert float(found.energy) <= float(judged(net, free.state, jnp.zeros(0), nudge)[1])


@kinds
@pytest.mark.parametrize("cost", ["squared", "entropy"])
@pytest.mark.parametrize("solver", [Enumeration(), ANNEAL, TEMPER], ids=["enumeration", "annealing", "tempering"])
def test_every_solver_finds_the_ground_state_that_brute_force_finds(kind, cost, solver):
    costs = {"squared": SquaredError(), "entropy": CrossEntropy()}
    for seed, beta in itertools.product(range(4), (-4.0, 0.0, 0.5, 3.0)):
        net, x, y = case(kind, seed)
        wanted, total, spins, *_ = brute_force(net, x, y, beta, cost)
        found = relax(net, x, Nudge(costs[cost], y, beta), None, solver)
        assert found.converged
        np.testing.assert_allclose(found.energy, wanted, atol=1e-12)
        np.testing.assert_allclose(flat(found.state), spins[np.argmin(total)])
        assert float(found.residual) == 0.0


@kinds
def test_reverse_annealing_finds_the_nudged_ground_state_from_the_free_one(kind):
    for seed, beta in itertools.product(range(4), (-4.0, 0.5, 3.0)):
        net, x, y = case(kind, seed)
        start = relax(net, x).state
        found = relax(net, x, Nudge(SquaredError(), y, beta), start, ANNEAL)
        np.testing.assert_allclose(found.energy, brute_force(net, x, y, beta)[0], atol=1e-12)


def meeting(net, x):
    """The sum of the sizes of the fields on each free spin, in numpy, what inputs add counted with the field."""
    if hasattr(net.coupling, "graph"):
        J, x = np.asarray(net.coupling.matrix()), np.asarray(x)
        return np.abs(J[1:, 0] * x[0] + np.asarray(net.field)[1:]) + np.abs(J[1:, 1:]).sum(axis=1)
    W = [np.asarray(block.weight) for block in net.coupling]
    hidden = np.abs(np.asarray(x) @ W[0] + net.field[0]) + np.abs(W[1]).sum(axis=1)
    return np.concatenate([hidden, np.abs(net.field[1]) + np.abs(W[1]).sum(axis=0)])


@kinds
def test_the_residual_is_the_largest_energy_that_one_flip_releases(kind):
    """As a part of what meets at its spin: twice the fields, and what the flip changes of the cost."""
    net, x, y = case(kind, 3)
    nudge = Nudge(CrossEntropy(), y, 1.7)
    _, total, spins, _, costs = brute_force(net, x, y, 1.7, "entropy")
    energy = {tuple(s): e for s, e in zip(spins, total, strict=True)}
    cost = {tuple(s): 1.7 * c for s, c in zip(spins, costs, strict=True)}
    template = net.initial_state(x)
    unravel = jax.flatten_util.ravel_pytree(template)[1]
    for s in spins[::7]:
        flipped = [tuple(np.where(np.arange(s.size) == k, -s, s)) for k in range(s.size)]
        released = [energy[tuple(s)] - energy[f] for f in flipped]
        felt = 2 * meeting(net, x) + [abs(cost[tuple(s)] - cost[f]) for f in flipped]
        residual, found = judged(net, unravel(jnp.asarray(s)), x, nudge)
        np.testing.assert_allclose(found, energy[tuple(s)], atol=1e-12)
        np.testing.assert_allclose(residual, max(*(released / felt), 0.0), atol=1e-12)
    assert np.isnan(judged(net, template, x, nudge)[0])


@kinds
def test_a_pin_holds_the_outputs(kind):
    net, x, y = case(kind, 5)
    _, total, _, output, _ = brute_force(net, x, y, 0.0)
    wanted = total[np.all(output == np.asarray(y), axis=1)].min()
    for solver in (Enumeration(), ANNEAL):
        found = relax(net, x, Pin(y), None, solver)
        np.testing.assert_allclose(found.energy, wanted, atol=1e-12)
        np.testing.assert_allclose(net.read(found.state, x), y)
        assert found.converged


def test_twenty_spins_all_coupled():
    draw = np.random.default_rng(0)
    half = np.triu(draw.normal(size=(20, 20)), 1)
    net = IsingModel.all_to_all(half + half.T, field=draw.normal(size=20))
    configurations = 2.0 * ((np.arange(2**20)[:, None] >> np.arange(20)) & 1) - 1
    energy = -np.einsum("ci,ci->c", configurations @ half, configurations) - configurations @ np.asarray(net.field)
    for solver in (Enumeration(), Annealing(sweeps=100, replicas=16)):
        found = relax(net, jnp.zeros(0), None, None, solver)
        np.testing.assert_allclose(found.energy, energy.min(), rtol=1e-12)
        np.testing.assert_allclose(found.state, configurations[np.argmin(energy)])


def glass(number):
    """One of the 100 stored +-J lattices, and its exact ground energy."""
    coupling = np.random.default_rng(2024).choice([-1.0, 1.0], (100, 264))[number]
    return IsingModel.lattice((12, 12), coupling=coupling), float(np.load(STORED)[number])


def test_the_stored_ground_energies_are_those_of_the_planar_solver():
    dimod = pytest.importorskip("dimod")
    samplers = pytest.importorskip("dwave.samplers")
    for number in (0, 41):
        net, stored = glass(number)
        pairs = {
            (int(i), int(j)): -J
            for (i, j), J in zip(lattice_edges((12, 12)), net.coupling.weight.tolist(), strict=True)
        }
        bqm = dimod.BinaryQuadraticModel.from_ising({}, pairs)
        answer = samplers.PlanarGraphSolver().sample(bqm, pos={k: (k % 12, k // 12) for k in range(144)})
        assert answer.first.energy == stored


@pytest.mark.parametrize("solver", [Annealing(sweeps=400, replicas=64), Tempering(sweeps=400)])
def test_spin_glasses_reach_their_exact_ground_energy(solver):
    for number in range(4):
        net, exact = glass(number)
        found = relax(net, jnp.zeros(0), None, None, solver)
        assert float(found.energy) == exact
        assert found.converged


@given(seeds)
def test_no_annealing_ends_below_the_exact_ground_energy_or_off_a_local_minimum(seed):
    net, exact = glass(seed % 100)
    found = relax(net, jnp.zeros(0), None, None, Annealing(sweeps=5, replicas=1), jax.random.key(seed))
    assert float(found.energy) >= exact
    assert float(found.residual) == 0.0
    assert float(found.energy) == float(judged(net, found.state, jnp.zeros(0))[1])


@pytest.mark.parametrize(
    "solver", [Annealing(sweeps=0, replicas=1), Tempering(sweeps=0)], ids=["annealing", "tempering"]
)
def test_without_a_sweep_random_spins_are_quenched(solver):
    net, exact = glass(7)
    found = relax(net, jnp.zeros(0), None, None, solver)
    assert float(found.residual) == 0.0
    assert exact < float(found.energy) < -144


@kinds
@given(seeds, betas)
def test_reverse_annealing_never_ends_above_its_start(kind, seed, beta):
    net, x, y = case(kind, seed)
    draw = np.random.default_rng(seed)
    template = net.initial_state(x)
    start = jax.tree.map(lambda s: jnp.asarray(draw.choice([-1.0, 1.0], s.shape)), template)
    nudge = Nudge(SquaredError(), y, beta)
    weak = Annealing(replicas=1, reverse_sweeps=2, warm=0.5)
    found = relax(net, x, nudge, start, weak, jax.random.key(seed))
    assert float(found.energy) <= float(judged(net, start, x, nudge)[1]) + 1e-12
    again = relax(net, x, nudge, found.state, weak, jax.random.key(seed + 1))
    assert float(again.energy) <= float(found.energy) + 1e-12


def test_a_start_that_is_a_ground_state_stays_though_another_is_as_low():
    net = IsingModel.lattice((3, 3))
    for sign in (1.0, -1.0):
        start = jnp.full(9, sign)
        for solver in (Enumeration(), ANNEAL):
            np.testing.assert_array_equal(relax(net, jnp.zeros(0), None, start, solver).state, start)


# one program for many graphs


def other_graph(seed):
    """A random graph of 8 spins and 11 edges with 2 inputs and 2 outputs, and its edges."""
    draw = np.random.default_rng(seed)
    edges = np.array(list(itertools.combinations(range(8), 2)))[draw.permutation(28)[:11]]
    roles = draw.permutation(8)
    fields = {"inputs": roles[:2].tolist(), "outputs": roles[2:4].tolist()}
    return IsingModel.from_edges(edges, 8, coupling=draw.normal(size=11), field=draw.normal(size=8), **fields), edges


@pytest.mark.parametrize("kind", ["enumeration", "annealing", "sampling", "clusters"])
def test_ten_graphs_of_one_size_are_compiled_for_once(kind):
    traced = []
    options = {"chains": 4, "draws": 4, "burn_in": 20}
    system = {
        "enumeration": lambda net: net,
        "annealing": lambda net: net,
        "sampling": lambda net: net.sampled(2.0, **options),
        "clusters": lambda net: net.sampled(2.0, update="clusters", **options),
    }[kind]
    solver = ANNEAL if kind == "annealing" else None
    xs, ys = jnp.array([[0.3, -0.8], [1.0, 0.2]]), jnp.array([[1.0, -1.0], [1.0, 1.0]])
    rule = EquilibriumPropagation(1.0, strict=False)

    @eqx.filter_jit
    def settled(system, x, key):
        traced.append("relaxation")
        return system.relax(x, solver=solver, key=key)

    @eqx.filter_jit
    def gradient(system, key):
        traced.append("gradient")
        return rule(system, xs, ys, key=key).gradient

    for seed in range(10):
        net, edges = other_graph(seed)
        found, gradients = settled(system(net), xs[0], jax.random.key(0)), gradient(system(net), jax.random.key(0))
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(eqx.filter(gradients, eqx.is_inexact_array)))
        spins = np.array(list(itertools.product([-1.0, 1.0], repeat=6)))
        s = np.empty((64, 8))
        s[:, np.asarray(net.roles.free)], s[:, np.asarray(net.roles.inputs)] = spins, xs[0]
        i, j = edges.T
        energy = -(s[:, i] * s[:, j]) @ np.asarray(net.coupling.weight) - s @ np.asarray(net.field)
        if solver is not None or kind == "enumeration":
            np.testing.assert_array_equal(found.state, spins[np.argmin(energy)])
            np.testing.assert_allclose(found.energy, energy.min(), rtol=1e-12)
        else:
            at = np.all(spins == np.asarray(found.state)[:, :, None], axis=-1) @ energy
            np.testing.assert_allclose(found.energy, at.mean(), rtol=1e-12)
    assert sorted(traced) == ["gradient", "relaxation"]


@kinds
@pytest.mark.parametrize("solver", [Enumeration(), ANNEAL, TEMPER], ids=["enumeration", "annealing", "tempering"])
def test_a_free_phase_is_a_nudge_of_no_strength(kind, solver):
    for seed in range(3):
        net, x, y = case(kind, seed)
        for start in (None, relax(net, -x, None, None, solver).state):
            free = relax(net, x, None, start, solver)
            for cost in (SquaredError(), CrossEntropy()):
                nudged = relax(net, x, Nudge(cost, y, 0.0), start, solver)
                np.testing.assert_array_equal(flat(nudged.state), flat(free.state))
                assert nudged.status == free.status
                np.testing.assert_allclose(nudged.energy, free.energy, rtol=1e-12)


# what physics leaves unchanged


@given(seeds)
def test_turning_every_spin_and_field_round_leaves_the_energy(seed):
    net, x, _ = case("graph", seed)
    turned = eqx.tree_at(lambda n: n.field, net, -net.field)
    one, other = relax(net, x), relax(turned, -x)
    np.testing.assert_allclose(one.energy, other.energy, rtol=1e-12)
    np.testing.assert_array_equal(one.state, -other.state)


@given(seeds)
def test_a_gauge_transformation_turns_the_ground_state(seed):
    """s_i -> g_i s_i, J_ij -> g_i g_j J_ij, h_i -> g_i h_i (Mattis)."""
    net, x, _ = case("graph", seed)
    g = np.random.default_rng(seed).choice([-1.0, 1.0], 7)
    i, j = EDGES.T
    moved = (net.coupling.weight * g[i] * g[j], net.field * g)
    turned = eqx.tree_at(lambda n: (n.coupling.weight, n.field), net, moved)
    one, other = relax(net, x), relax(turned, x * g[0])
    np.testing.assert_allclose(one.energy, other.energy, rtol=1e-12)
    np.testing.assert_array_equal(one.state * g[1:], other.state)


@pytest.mark.parametrize("seed", range(3))
def test_relabelling_the_spins_relabels_the_ground_state(seed):
    draw = np.random.default_rng(seed)
    net, x, _ = case("graph", seed)
    p = draw.permutation(7)
    field = np.empty(7)
    field[p] = net.field
    other = IsingModel.from_edges(p[EDGES], 7, coupling=net.coupling.weight, field=field, inputs=[int(p[0])])
    whole = np.asarray(net.configuration(net.relax(x).state, x))
    moved = np.asarray(other.configuration(other.relax(x, solver=ANNEAL).state, x))
    np.testing.assert_allclose(moved[p], whole)


def test_layers_are_a_graph():
    """The same energy written twice: layers, and a graph whose inputs are held."""
    net, x, _ = case("layered", 2)
    W = [np.asarray(block.weight) for block in net.coupling]
    edges = [*itertools.product(range(3), range(3, 7)), *itertools.product(range(3, 7), range(7, 11))]
    coupling = np.concatenate([W[0].ravel(), W[1].ravel()])
    field = np.concatenate([np.zeros(3), *net.field])
    same = IsingModel.from_edges(edges, 11, coupling=coupling, field=field, inputs=[0, 1, 2])
    np.testing.assert_allclose(relax(net, x).energy, relax(same, x).energy, rtol=1e-12)
    np.testing.assert_array_equal(flat(relax(net, x).state), relax(same, x).state)


def test_graphs_from_networkx_and_from_a_matrix_are_those_from_edges():
    net = graph(4)
    labels = "abcdefg"
    drawn = nx.Graph()
    drawn.add_nodes_from(labels)
    for (i, j), J in zip(EDGES, net.coupling.weight.tolist(), strict=True):
        drawn.add_edge(labels[i], labels[j], coupling=J)
    other = IsingModel.from_networkx(drawn, field=net.field, inputs=["a"], outputs=["e", "g"])
    matrix = IsingModel.all_to_all(net.coupling.matrix(), field=net.field, inputs=[0], outputs=[4, 6])
    x = jnp.array([0.7])
    for same in (other, matrix):
        np.testing.assert_allclose(relax(same, x).energy, relax(net, x).energy, rtol=1e-12)
        np.testing.assert_array_equal(relax(same, x).state, relax(net, x).state)


@pytest.mark.parametrize(("shape", "periodic"), [((4,), True), ((3, 4), False), ((3, 3, 3), True)])
def test_a_ferromagnetic_lattice_has_all_its_bonds_satisfied(shape, periodic):
    net = IsingModel.lattice(shape, coupling=1.5, periodic=periodic)
    bonds = sum(int(np.prod(shape)) // n * (n - 1 + (periodic and n > 2)) for n in shape)
    found = net.relax(jnp.zeros(0), solver=ANNEAL)
    np.testing.assert_allclose(found.energy, -1.5 * bonds)
    assert abs(float(jnp.sum(found.state))) == np.prod(shape)


# nudges, bounds, gradients


@kinds
@pytest.mark.parametrize("cost", ["squared", "entropy"])
@given(seeds)
def test_bounds_and_monotone_costs_of_global_minimisers(kind, cost, seed):
    net, x, y = case(kind, seed)
    costs = {"squared": SquaredError(), "entropy": CrossEntropy()}
    strengths = [-3.0, -1.0, -0.3, 0.0, 0.3, 1.0, 3.0]
    found = [relax(net, x, Nudge(costs[cost], y, b)) for b in strengths]
    energies = np.array([float(e.energy) for e in found])
    shown = [float(costs[cost](net.read(e.state, x), y)) for e in found]
    assert np.all(np.diff(shown) <= 1e-12)
    for b in (0.3, 1.0, 3.0):
        plus, minus = energies[strengths.index(b)], energies[strengths.index(-b)]
        assert (plus - energies[3]) / b <= shown[3] + 1e-12
        assert shown[3] <= (energies[3] - minus) / b + 1e-12
    slopes = np.diff(energies) / np.diff(strengths)
    assert np.all(np.diff(slopes) <= 1e-12)  # the least energy is concave in beta


def test_the_squared_error_of_spins_is_a_field_on_the_outputs():
    net, x, y = case("graph", 6)
    beta = 1.3
    nudged = relax(net, x, Nudge(SquaredError(), y, beta))
    pulled = eqx.tree_at(lambda n: n.field, net, net.field.at[jnp.array(OUTPUTS)].add(beta * y))
    field = relax(pulled, x)
    np.testing.assert_array_equal(nudged.state, field.state)
    np.testing.assert_allclose(nudged.energy, field.energy + beta * (1 + 0.5 * jnp.sum(y**2)), rtol=1e-12)


@kinds
@pytest.mark.parametrize("variant", ["positive", "negative", "centered"])
def test_the_update_is_the_exact_gradient_of_the_surrogate(kind, variant):
    net, xs, ys = case(kind, 8, batch=3)
    beta = 2.0
    found = estimate(EquilibriumPropagation(beta, variant), net, xs, ys).gradient
    high, low = {"positive": (beta, 0.0), "negative": (0.0, -beta), "centered": (beta, -beta)}[variant]

    def surrogate(net):
        both = [[brute_force(net, x, y, b)[0] for x, y in zip(xs, ys, strict=True)] for b in (high, low)]
        return np.mean(np.subtract(*both)) / (high - low)

    leaf = lambda n: n.coupling.weight if kind == "graph" else n.coupling[1].weight
    for tree in (leaf, lambda n: jax.tree.leaves(n.field)[0]):
        at, step = tree(net), 1e-6
        for index in list(np.ndindex(at.shape))[::3]:
            sides = [surrogate(eqx.tree_at(tree, net, at.at[index].add(h))) for h in (step, -step)]
            np.testing.assert_allclose(tree(found)[index], (sides[0] - sides[1]) / (2 * step), atol=1e-8)


@kinds
def test_the_laws_of_the_contract(kind):
    net, xs, ys = case(kind, 11, batch=4)
    report = check_substrate(net, xs, ys)
    report.raise_if_failed()
    assert sum(law.verdict == "holds" for law in report.laws) >= 14


@kinds
def test_batches_are_singles_and_seeds_repeat(kind):
    net, xs, _ = case(kind, 9, batch=3)
    keys = jax.random.split(jax.random.key(4), 3)
    many = jax.vmap(lambda x, k: net.relax(x, key=k, solver=ANNEAL))(xs, keys)
    for index in range(3):
        one = relax(net, xs[index], None, None, ANNEAL, keys[index])
        np.testing.assert_array_equal(flat(one.state), flat(jax.tree.map(lambda s, k=index: s[k], many.state)))
    draws = [flat(relax(net, xs[0], None, None, Annealing(sweeps=1, replicas=1), k).state) for k in keys]
    again = [flat(relax(net, xs[0], None, None, Annealing(sweeps=1, replicas=1), k).state) for k in keys]
    np.testing.assert_array_equal(draws, again)


class OwnSpins(IsingModel):
    """A kind of one's own."""


class OwnLayers(LayeredSpins):
    """A kind of one's own."""


def test_what_a_subclass_builds_is_of_that_subclass():
    graphs = [
        OwnSpins.from_edges(EDGES, coupling=1.0),
        OwnSpins.from_networkx(nx.path_graph(3), coupling=1.0),
        OwnSpins.lattice((2, 3)),
        OwnSpins.all_to_all(np.ones((3, 3)) - np.eye(3)),
        OwnSpins.from_bqm(OwnSpins.lattice((2, 2)).to_bqm()),
    ]
    assert {type(net) for net in graphs} == {OwnSpins}
    key = jax.random.key(0)
    built = [OwnLayers.layered((2, 3, 1), key=key, coupling_limit=0.1), OwnLayers.for_task(2, 1, key=key)]
    assert {type(net) for net in built} == {OwnLayers}
    assert type(built[0].constrained()) is OwnLayers
    assert type(IsingModel.for_task(2, 1, key=key)) is LayeredSpins
    np.testing.assert_array_equal(IsingModel.for_task(2, 1, key=key).coupling[0].weight, built[1].coupling[0].weight)


def test_single_precision():
    net = IsingModel.layered(SIZES, key=jax.random.key(0), copies=COPIES, dtype=jnp.float32)
    x = jnp.ones(3, jnp.float32)
    for solver in (ANNEAL, TEMPER):
        found = relax(net, x, Nudge(SquaredError(), jnp.ones(2, jnp.float32), 1.0), None, solver)
        assert found.converged
        assert {leaf.dtype for leaf in jax.tree.leaves(found.state)} == {jnp.dtype(jnp.float32)}


def test_what_is_not_a_number_is_reported():
    net = graph(1)
    for solver in (Enumeration(), ANNEAL):
        assert relax(net, jnp.full(1, jnp.nan), None, None, solver).status == Status.not_finite


def test_couplings_and_fields_stay_within_the_limits_of_a_machine():
    net = IsingModel.layered((3, 4, 2), key=jax.random.key(0), coupling_limit=0.3, field_limit=0.2)
    far = jax.tree.map(lambda leaf: 10 * leaf + 1, net).constrained()
    assert max(float(jnp.max(jnp.abs(block.weight))) for block in far.coupling) == pytest.approx(0.3)
    assert max(float(jnp.max(jnp.abs(field))) for field in far.field) == pytest.approx(0.2)


# learning


XOR = jnp.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
PARITY = jnp.array([[-1.0], [1.0], [1.0], [-1.0]])


def test_spins_learn_xor_in_a_sealed_box():
    net = IsingModel.layered((2, 8, 1), key=jax.random.key(2), copies=3, levels=(-1.0, 1.0))
    system, rule = SealedSubstrate(net), EquilibriumPropagation(2.0, "positive")
    step = eqx.filter_jit(
        lambda system, key: jax.tree.map(
            lambda leaf, g: leaf - 0.02 * g,
            system,
            rule(system, XOR, PARITY, key=key).gradient,
        )
    )
    for k in range(200):
        system = step(system, jax.random.key(k))
    shown = estimate(rule, system, XOR, PARITY).output
    np.testing.assert_array_equal(jnp.sign(shown), PARITY)


# random numbers


def test_counted_numbers_are_uniform_and_independent():
    """Bins, serial pairs, neighbouring sweeps and keys, single bits: each within five standard deviations."""
    key, shape = jax.random.key(7), (256, 512)
    draws = [counted_uniform(sweep_words(key, t), 0, shape, jnp.float64) for t in range(4)]
    draws.append(counted_uniform(sweep_words(jax.random.key(8), 0), 0, shape, jnp.float64))
    u = np.stack([np.asarray(d).ravel() for d in draws])
    n = u.shape[1]
    assert u.min() >= 0
    assert u.max() < 1
    for row in u:
        counts = np.bincount((row * 128).astype(int), minlength=128)
        chi2 = np.sum((counts - n / 128) ** 2) / (n / 128)
        assert abs(chi2 - 127) < 5 * np.sqrt(2 * 127)
        pairs = np.bincount((row[:-1] * 16).astype(int) * 16 + (row[1:] * 16).astype(int), minlength=256)
        assert abs(np.sum((pairs - n / 256) ** 2) / (n / 256) - 255) < 6 * np.sqrt(2 * 255)
        bits = (row * 2**24).astype(np.int64)
        for bit in range(24):
            assert abs(np.mean((bits >> bit) & 1) - 0.5) < 5 * 0.5 / np.sqrt(n)
        for lag in (1, 2, 512, 513):
            assert abs(np.corrcoef(row[:-lag], row[lag:])[0, 1]) < 5 / np.sqrt(n)
    assert np.max(np.abs(np.corrcoef(u) - np.eye(5))) < 5 / np.sqrt(n)


def test_counters_continue_where_the_last_left_off():
    words = sweep_words(jax.random.key(0), 3)
    whole = counted_uniform(words, 0, (6, 4), jnp.float32)
    np.testing.assert_array_equal(counted_uniform(words, 8, (4, 4), jnp.float32), whole[2:])


def test_exchanges_of_replicas_keep_the_joint_distribution():
    """Two rungs, two levels: the rate of exchange obeys detailed balance."""
    ladder, energies = jnp.array([0.5, 2.0]), jnp.array([1.0, -0.4])
    uniform = jnp.linspace(0.0, 1.0, 2001)[:-1]
    moved = jax.vmap(lambda u: exchanged(jnp.array([0, 1]), energies, jnp.array([u, u]), ladder, 0))(uniform)
    back = jax.vmap(lambda u: exchanged(jnp.array([1, 0]), energies, jnp.array([u, u]), ladder, 0))(uniform)
    forth, away = (float(jnp.mean(rungs[:, 0] != k)) for rungs, k in ((moved, 0), (back, 1)))
    weight = lambda first, second: np.exp(-ladder[first] * energies[0] - ladder[second] * energies[1])
    np.testing.assert_allclose(forth / away, weight(1, 0) / weight(0, 1), rtol=2e-3)
    still = exchanged(jnp.array([0, 1]), energies, jnp.zeros(2), ladder, 1)
    np.testing.assert_array_equal(still, [0, 1])
