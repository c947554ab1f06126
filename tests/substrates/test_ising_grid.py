"""Lattices as grids against the same lattices as graphs, exact ensembles, planar glasses, and what programs hold."""

import itertools
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learning import CrossEntropy, SquaredError
from substrates import IsingModel, Nudge, Pin
from substrates.classical.ising import build
from substrates.classical.ising.annealing import Annealing
from substrates.classical.ising.clusters import Clusters
from substrates.classical.ising.enumeration import Enumeration
from substrates.classical.ising.grid import GridSweeps
from substrates.classical.ising.onsager import torus_energy
from substrates.wiring import Bonds, Graph, Grid, bonds_along, lattice_edges

STORED = Path(__file__).parents[2] / "benchmarks" / "ising_ground_energies.npy"
NONE, WORDS = jnp.zeros(0), jnp.zeros(2, jnp.uint32)
COSTS = {"free": None, "fields": SquaredError(), "weighed": CrossEntropy()}

relax = eqx.filter_jit(lambda net, x, nudge, solver, key: net.relax(x, nudge, solver=solver, key=key))


def nudge_of(cost, target, beta=0.7):
    return None if COSTS[cost] is None else Nudge(COSTS[cost], jnp.asarray(target), jnp.asarray(beta))


@pytest.fixture
def lattices(monkeypatch):
    """Builds a lattice by random couplings and fields as a graph and as a grid."""

    def make(shape, periodic=False, inputs=(), outputs=(), seed=0, **options):
        draw, found = np.random.default_rng(seed), []
        words = {
            "coupling": draw.normal(size=len(lattice_edges(shape, periodic))),
            "field": draw.normal(size=np.prod(shape)),
            "inputs": inputs,
            "outputs": outputs,
            **options,
        }
        for fewest in (2**60, 0):
            monkeypatch.setattr(build, "FEWEST_ON_A_GRID", fewest)
            found.append(IsingModel.lattice(shape, periodic=periodic, **words))
        assert isinstance(found[1].coupling.graph.compiled, Grid)
        return found

    return make


@eqx.filter_jit
def contract(net, state, other, x):
    change = net.energy_change(state, other, x, None)
    measured = net.measure(state[None], x[None])
    return (
        net.energy(state, x),
        net.local_field(state, x),
        net.strengths(state, x),
        net.configuration(state, x),
        change[0],
        (measured.coupling.weight, measured.field),
    )


@eqx.filter_jit
def swept(net, states, x, nudge):
    kernel = net.sweeps(x, nudge)
    spins = kernel.load(states, WORDS)
    energies = kernel.energies(spins)
    down, steps = kernel.descend(spins, 400)
    ends = kernel.states(down)
    residuals = jax.vmap(lambda s: net.residual(s, x, nudge))(ends)
    return kernel.scale, energies - energies[0], kernel.states(spins), ends, residuals, steps


SHAPES = [((6, 7), False), ((7, 6), False), ((6, 8), True), ((48,), True), ((4, 3, 5), False), ((4, 2, 6), True)]


@pytest.mark.parametrize(("shape", "periodic"), SHAPES)
def test_a_grid_is_the_lattice_of_its_edges(lattices, shape, periodic):
    inputs, outputs = (11, 3), (5, 12, 13, 4)
    graph, grid = lattices(shape, periodic, inputs, outputs)
    draw = np.random.default_rng(1)
    x, (state, other) = jnp.asarray(draw.normal(size=2)), jnp.asarray(draw.choice([-1.0, 1.0], (2, graph.size)))
    assert (grid.size, grid.n, grid.input_size) == (graph.size, graph.n, 2)
    wanted, found = contract(graph, state, other, x), contract(grid, state, other, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12), wanted, found)
    np.testing.assert_array_equal(grid.roles.slots, graph.roles.slots)
    jax.tree.map(np.testing.assert_array_equal, graph.free_couplings(), grid.free_couplings())
    for name in ("free", "place"):
        np.testing.assert_array_equal(getattr(grid.roles, name), getattr(graph.roles, name))


SWEPT = [
    ((6, 8), True, "weighed"),
    ((6, 7), False, "free"),
    ((7, 6), False, "weighed"),
    ((48,), True, "fields"),
    ((3, 5, 4), False, "fields"),
    ((4, 6, 2), True, "free"),
]


@pytest.mark.parametrize(("shape", "periodic", "cost"), SWEPT)
def test_sweeps_over_a_grid_see_the_energies_of_its_spins(lattices, shape, periodic, cost):
    graph, grid = lattices(shape, periodic, (11, 3), (5, 12, 13, 4))
    draw = np.random.default_rng(2)
    x, states = jnp.asarray(draw.normal(size=2)), jnp.asarray(draw.choice([-1.0, 1.0], (3, graph.size)))
    nudge = nudge_of(cost, [1.0, 0.0, 0.0, 0.0])
    scale, energies, same, ends, residuals, steps = swept(grid, states, x, nudge)
    np.testing.assert_allclose(scale, graph.sweeps(x, nudge).scale, rtol=1e-12)
    wanted = np.array([graph.total_energy(s, x, nudge) for s in states])
    np.testing.assert_allclose(energies, wanted - wanted[0], atol=1e-11)
    np.testing.assert_array_equal(same, states)
    assert np.all(np.abs(ends) == 1)
    assert np.all(np.asarray(residuals) == 0)
    assert 1 < int(steps) < 400
    lower = [float(grid.total_energy(s, x, nudge)) for s in ends]
    assert np.all(lower < wanted)


@pytest.mark.parametrize("cost", list(COSTS))
def test_a_grid_anneals_to_the_ground_state_of_all_configurations(lattices, cost):
    graph, grid = lattices((3, 4), False, (0,), (5, 6, 9))
    x, nudge = jnp.array([0.7]), nudge_of(cost, [-1.0, 1.0, 0.0], 2.0)
    solver = Annealing(sweeps=60, replicas=12)
    exact = relax(graph, x, nudge, Enumeration(), None)
    found = relax(grid, x, nudge, solver, jax.random.key(0))
    np.testing.assert_allclose(found.energy, exact.energy, rtol=1e-12)
    np.testing.assert_array_equal(found.state, exact.state)
    assert found.converged


def test_a_pin_holds_the_outputs_of_a_grid(lattices):
    graph, grid = lattices((3, 4), False, (0,), (5, 6))
    for target in itertools.product([-1.0, 1.0], repeat=2):
        pin = Pin(jnp.asarray(target))
        found = relax(grid, jnp.array([0.3]), pin, Annealing(sweeps=60, replicas=12), jax.random.key(0))
        exact = relax(graph, jnp.array([0.3]), pin, Enumeration(), None)
        np.testing.assert_array_equal(found.state, exact.state)
        assert found.converged


def test_planar_glasses_on_a_grid_reach_their_exact_ground_energy(lattices):
    couplings = np.random.default_rng(2024).choice([-1.0, 1.0], (100, 264))
    for number in (0, 41):
        grid = lattices((12, 12), coupling=couplings[number], field=0.0)[1]
        found = relax(grid, NONE, None, Annealing(sweeps=400, replicas=64), jax.random.key(0))
        assert float(found.energy) == float(np.load(STORED)[number])
        assert found.converged


@pytest.mark.parametrize("update", ["heat bath", "metropolis", "clusters"])
def test_samples_of_a_grid_have_the_means_of_the_exact_ensemble(lattices, update):
    shape, temperature = (4, 4), 1.7
    grid = lattices(shape, True, (), (3,))[1]
    system = grid.sampled(temperature, chains=1024, draws=8, burn_in=60, thinning=4, update=update)
    found = eqx.filter_jit(lambda s: s.relax(NONE, key=jax.random.key(3)))(system)
    s = 2.0 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1) - 1
    pairs = lattice_edges(shape, True)
    bonds = s[:, pairs[:, 0]] * s[:, pairs[:, 1]]
    energy = -bonds @ np.asarray(grid.coupling.weight) - s @ np.asarray(grid.field)
    p = np.exp(-(energy - energy.min()) / temperature)
    p /= p.sum()
    samples = np.asarray(found.state).reshape(-1, 16)
    error = 5 / np.sqrt(len(samples) / 3)
    np.testing.assert_allclose(samples.mean(axis=0), p @ s, atol=error)
    np.testing.assert_allclose((samples[:, pairs[:, 0]] * samples[:, pairs[:, 1]]).mean(axis=0), p @ bonds, atol=error)
    spread = np.sqrt(p @ energy**2 - (p @ energy) ** 2)
    np.testing.assert_allclose(found.energy, p @ energy, atol=spread * error)
    assert found.usable


def test_both_halves_of_a_grid_draw_their_own_numbers(lattices):
    kernel = lattices((8, 8), coupling=0.0, field=0.0)[1].sweeps(NONE, None)
    spins = kernel.load(jnp.ones((64, 64)), WORDS)
    even, odd = kernel.heat_bath(spins, jnp.ones(64), jnp.asarray([3, 5], jnp.uint32))
    assert abs(float(jnp.mean(even * odd, dtype=float))) < 5 / np.sqrt(even.size)


@pytest.mark.parametrize(("temperature", "update", "burn_in"), [(2.0, "clusters", 25), (3.0, "heat bath", 100)])
def test_a_large_torus_has_kaufmans_energy(temperature, update, burn_in):
    net = IsingModel.lattice((32, 32), periodic=True)
    assert isinstance(net.sweeps(NONE, None), GridSweeps)
    system = net.sampled(temperature, chains=16, draws=20, burn_in=burn_in, thinning=1, update=update)
    found = eqx.filter_jit(lambda s: s.relax(NONE, key=jax.random.key(1)))(system)
    energies = np.asarray(jax.vmap(jax.vmap(lambda s: net.energy(s, NONE)))(found.state)).mean(axis=0) / 1024
    error = energies.std(ddof=1) / 4
    assert abs(energies.mean() - torus_energy((32, 32), temperature)) < 4 * error
    assert error < 0.01


def test_clusters_of_a_grid_are_the_connected_parts_of_its_bonds(lattices):
    import scipy.sparse.csgraph

    coupled = Clusters(lattices((4, 6), True)[1].sweeps(NONE, None))
    bonds = np.random.default_rng(0).random((48, 5)) < 0.45
    labels = np.asarray(coupled.labels(jnp.asarray(bonds), 24))
    number = jnp.broadcast_to(jnp.arange(24.0)[:, None], (24, 5))
    first, second = (np.asarray(end)[:, 0].astype(int) for end in coupled.coupled.ends(number))
    assert {frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)} == {
        frozenset(pair) for pair in lattice_edges((4, 6), True).tolist()
    }
    for replica in range(5):
        i, j = (end[bonds[:, replica]] for end in (first, second))
        matrix = scipy.sparse.coo_array((np.ones(i.size), (i, j)), shape=(24, 24))
        parts = scipy.sparse.csgraph.connected_components(matrix, directed=False)[1]
        np.testing.assert_array_equal(labels[:, replica], [np.flatnonzero(parts == part)[0] for part in parts])


def test_a_program_holds_nothing_of_the_size_of_a_lattice():
    for inputs in ((), (17, 4)):
        net = IsingModel.lattice((64, 64), inputs=inputs, outputs=[9])
        x, nudge = jnp.zeros(len(inputs)), Nudge(CrossEntropy(), jnp.ones(1), jnp.asarray(0.1))
        arrays, rest = eqx.partition(net, eqx.is_array)
        settle = lambda arrays, x, nudge, rest=rest: eqx.combine(arrays, rest).relax(x, nudge, solver=Annealing()).state
        traced = jax.make_jaxpr(settle)(arrays, x, nudge)
        assert sum(np.size(constant) for constant in traced.consts) < 100
        assert not re.search('dense<"0x[0-9A-F]{1000}', jax.jit(settle).lower(arrays, x, nudge).as_text())


def test_single_precision_sums_a_million_spins():
    side = 1024
    draw = np.random.default_rng(0)
    coupling = draw.choice(np.array([-1, 1], np.float32), 2 * side * (side - 1))
    net = IsingModel.lattice((side, side), coupling=coupling, field=np.float32(0))
    s = draw.choice(np.array([-1, 1], np.float32), side**2)
    whole, down = s.reshape(side, side), coupling[: side * (side - 1)].reshape(side - 1, side)
    right = coupling[side * (side - 1) :].reshape(side, side - 1)
    exact = -np.sum(down * whole[1:] * whole[:-1], dtype=float) - np.sum(
        right * whole[:, 1:] * whole[:, :-1], dtype=float
    )
    energy = eqx.filter_jit(lambda net, s: net.energy(s, jnp.zeros(0, jnp.float32)))
    assert abs(float(energy(net, s)) - exact) < 1
    aligned = eqx.tree_at(lambda n: n.coupling.weight, net, jnp.ones_like(net.coupling.weight))
    assert abs(float(energy(aligned, np.ones_like(s))) / (-2.0 * side * (side - 1)) - 1) < 1e-6


@pytest.mark.parametrize("periodic", [False, True])
def test_couplings_may_be_arrays_by_axis(periodic):
    shape = (4, 5)
    draw = np.random.default_rng(0)
    down, right = (draw.normal(size=bonds) for bonds in bonds_along(shape, periodic))
    net = IsingModel.lattice(shape, coupling=(down, right), periodic=periodic)
    s = draw.choice([-1.0, 1.0], shape)
    after = [np.roll(s, -1, axis)[tuple(slice(n) for n in b.shape)] for axis, b in enumerate((down, right))]
    exact = -sum(np.sum(w * s[tuple(slice(n) for n in w.shape)] * t) for w, t in zip((down, right), after, strict=True))
    np.testing.assert_allclose(net.energy(jnp.asarray(s.ravel()), NONE), exact, rtol=1e-12)
    same = IsingModel.lattice(shape, coupling=(0.5, np.ones(right.shape)), periodic=periodic)
    assert sorted(set(np.asarray(same.coupling.weight).tolist())) == [0.5, 1.0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IsingModel.lattice((3, 4), coupling=(np.ones((3, 4)), 1.0)), r"coupling\[0\]: .* \(2, 4\).* \(3, 4\)"),
        (
            lambda: IsingModel.lattice((3, 4), coupling=(np.ones((2, 4)),)),
            "coupling: wanted one number, a number or an array for each of the 2 axes",
        ),
        (lambda: Grid.of((4, 5), True), r"shape: wanted even sides of a lattice that closes on itself, got \(4, 5\)"),
        (lambda: IsingModel.lattice((40, 40), coupling=np.ones(7)), r"coupling: wanted one number or shape \(3120,\)"),
        (lambda: IsingModel.lattice((40, 40), outputs=[1600]), "outputs: wanted spins from 0 to 1599"),
        (lambda: Bonds(jnp.ones(3), Graph(20, None, None, Grid.of((4, 5), False))), r"weight: wanted shape \(31,\)"),
        (
            lambda: (
                IsingModel.lattice((40, 40), inputs=[0], outputs=[3])
                .sampled(1.0, update="clusters")
                .relax(jnp.ones(1), Nudge(CrossEntropy(), jnp.ones(1), 0.1))
            ),
            "update: cluster updates see a nudge as fields",
        ),
    ],
)
def test_what_makes_no_grid_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_torus_of_odd_sides_is_a_graph():
    net = IsingModel.lattice((33, 34), periodic=True)
    assert not isinstance(net.coupling.graph.compiled, Grid)
    assert float(net.energy(jnp.ones(net.n), NONE)) == -2 * net.n


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("sides", [(3, 4), (40, 40), (9,), (1100,)])
def test_a_number_for_each_axis_couples_along_it(sides, periodic):
    strengths = [2.0, 3.0][: len(sides)] if len(sides) > 1 else [np.full((sides[0] if periodic else sides[0] - 1), 2.0)]
    net = IsingModel.lattice(sides, coupling=strengths, periodic=periodic)
    s = np.random.default_rng(0).choice([-1.0, 1.0], sides)
    wanted = 0.0
    for axis, strength in enumerate([2.0, 3.0][: len(sides)]):
        other = np.roll(s, -1, axis)
        pairs = s * other if periodic else np.delete(s * other, -1, axis)
        wanted -= strength * pairs.sum()
    assert float(net.energy(jnp.asarray(s.ravel()), jnp.zeros(0))) == pytest.approx(wanted, rel=1e-12)


def test_two_couplings_of_two_edges_are_theirs():
    """A row of three spins has two axes and two edges; numbers are those of edges, as for any graph."""
    net = IsingModel.lattice((1, 3), coupling=[2.0, 3.0])
    assert float(net.energy(jnp.array([1.0, 1.0, -1.0]), jnp.zeros(0))) == 1.0
