"""Large circuits by multigrid, against SciPy, factors, elimination, and the laws of circuits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from learning import EquilibriumPropagation, SquaredError
from substrates import Nudge, Pin, ResistorNetwork, Shockley, Status
from substrates.classical.resistor import linear_solve
from substrates.classical.resistor.operating_point import OperatingPoint
from substrates.classical.resistor.sparse_inverse import WIDEST, bandwidth
from substrates.solvers.multigrid import Multigrid
from substrates.solvers.solver import default_tolerance
from substrates.substrate import relax_batch
from substrates.wiring import lattice_edges

GRID = OperatingPoint(dense_size=0, widest=0)
FACTORS = OperatingPoint(dense_size=0, widest=10**9)

relax = eqx.filter_jit(lambda net, x, nudge=None, start=None, solver=GRID: net.relax(x, nudge, start, solver=solver))


def graph(kind):
    """The edges and the number of nodes of a lattice or a random graph of some thousand nodes."""
    if kind == "random":
        return np.array(nx.random_regular_graph(4, 2000, seed=0).edges), 2000
    shape = {"square": (45, 50), "cubic": (12, 13, 14), "small": (9, 11)}[kind]
    return lattice_edges(shape), int(np.prod(shape))


def circuit(kind, decades, seed=0, **elements):
    """Conductances spread evenly over so many decades to either side of a siemens, two inputs, two outputs."""
    edges, n = graph(kind)
    g = 10 ** np.random.default_rng(seed).uniform(-decades, decades, len(edges))
    words = {"inputs": [0, n - 1], "outputs": [n // 2, n // 3]} | elements
    return ResistorNetwork.from_edges(edges, n, conductance=g, **words)


X = jnp.array([1.0, -0.5])


def laplacian(net):
    """(conductance matrix of the free nodes, currents from the inputs), assembled by SciPy from the edges alone."""
    ends, g = np.asarray(net.edges).T, np.asarray(net.conductance)
    signs = scipy.sparse.coo_array((np.repeat([1.0, -1.0], len(g)), (np.tile(np.arange(len(g)), 2), ends.ravel())))
    full = (signs.T @ scipy.sparse.diags_array(g) @ signs).tocsr()
    free = np.setdiff1d(np.arange(net.n), net.inputs)
    return full[free][:, free].tocsc(), -full[free][:, list(net.inputs)]


@pytest.mark.parametrize("decades", [0.2, 1.0])
@pytest.mark.parametrize("kind", ["square", "cubic", "random"])
def test_voltages_are_those_of_scipy(kind, decades, monkeypatch):
    net = circuit(kind, decades)
    matrix, known = laplacian(net)
    wanted = scipy.sparse.linalg.spsolve(matrix, known @ np.asarray(X))
    monkeypatch.setattr(scipy.sparse.linalg, "splu", lambda *_, **__: pytest.fail("factorised"))
    found = relax(net, X)
    assert found.status == Status.converged
    np.testing.assert_allclose(found.state, wanted, atol=1e-10)


@pytest.mark.parametrize("kind", ["square", "cubic", "random"])
def test_kirchhoff_holds_at_every_node_over_twelve_decades_of_conductance(kind):
    net = circuit(kind, 6.0)
    found = relax(net, X)
    assert found.status == Status.converged
    volts, g = np.asarray(net.voltages(found.state, X), np.longdouble), np.asarray(net.conductance, np.longdouble)
    (first, second), through = np.asarray(net.edges).T, np.zeros(net.n, np.longdouble)
    current = g * (volts[first] - volts[second])
    np.add.at(through, first, current)
    np.add.at(through, second, -current)
    meeting = np.zeros(net.n, np.longdouble)
    for ends in (first, second):
        np.add.at(meeting, ends, g * (abs(volts[first]) + abs(volts[second])))
    free = np.setdiff1d(np.arange(net.n), net.inputs)
    assert np.max(abs(through[free]) / meeting[free]) < default_tolerance(np.float64)
    # what the inputs deliver is what the resistors turn into heat, and no voltage lies outside of theirs
    np.testing.assert_allclose(
        float(np.sum(volts * through)), float(net.dissipated_power(found.state, X).sum()), rtol=1e-9
    )
    assert volts.min() >= -0.5 - 1e-12
    assert volts.max() <= 1 + 1e-12


@given(seed=st.integers(0, 2**31 - 1), decades=st.floats(0, 6))
@settings(max_examples=10)
def test_voltages_are_those_of_elimination_without_subtraction(seed, decades):
    net = circuit("small", decades, seed)
    exact, found = relax(net, X, solver=OperatingPoint()), relax(net, X)
    assert bool(found.status == Status.converged) or bool(found.status == Status.ill_conditioned)
    if found.converged:
        np.testing.assert_allclose(found.state, exact.state, atol=1e-7)


@pytest.mark.parametrize("decades", [0.2, 6.0])
def test_nudged_and_pinned_circuits_settle_where_factors_put_them(decades):
    net = circuit("square", decades)
    free = relax(net, X)
    y = jnp.array([0.3, -0.1])
    for hold in (Nudge(SquaredError(), y, jnp.array(0.2)), Nudge(SquaredError(), y, jnp.array(-1e-7)), Pin(y)):
        grid, factors = (relax(net, X, hold, free.state, solver) for solver in (GRID, FACTORS))
        assert grid.status == factors.status == Status.converged
        np.testing.assert_allclose(grid.state, factors.state, atol=1e-8)


def test_a_nudge_that_outweighs_the_circuit_is_unstable():
    net = circuit("square", 0.2)
    shown = relax(net, X)
    for beta, stable in ((-0.1, True), (-30.0, False)):
        hold = Nudge(SquaredError(), jnp.zeros(2), jnp.array(beta))
        grid, factors = (relax(net, X, hold, shown.state, solver) for solver in (GRID, FACTORS))
        assert grid.status == factors.status == (Status.converged if stable else Status.unstable)


def test_real_diodes_settle_by_newton_around_it():
    edges, _ = graph("small")
    net = circuit("small", 0.5, diodes=[(int(a), int(b)) for a, b in edges[::7]], diode=Shockley())
    grid, exact = relax(net, 3 * X), relax(net, 3 * X, solver=OperatingPoint())
    assert grid.status == exact.status == Status.converged
    np.testing.assert_allclose(grid.state, exact.state, atol=1e-9)


def test_single_precision_is_solved_in_double_and_rounded():
    net = circuit("square", 0.2)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, net)
    found = relax(single, X.astype(jnp.float32))
    assert found.status == Status.converged
    assert found.state.dtype == jnp.float32
    np.testing.assert_allclose(found.state, relax(net, X).state, atol=1e-5)


def test_the_gradient_is_that_by_factors_and_takes_one_hierarchy(monkeypatch):
    net, made, make = circuit("square", 0.3, seed=5), [], Multigrid.of
    monkeypatch.setattr(Multigrid, "of", lambda *matrices: made.append(1) or make(*matrices))
    rule = EquilibriumPropagation(beta=0.01, variant="centered", cost=SquaredError())
    xs, ys = jnp.array([[1.0, -0.5], [0.2, 0.4], [-1.0, 0.3]]), jnp.array([[0.1, 0.0], [0.2, 0.1], [0.0, -0.3]])
    found = {}
    for name, solver in (("grid", GRID), ("factors", FACTORS)):
        monkeypatch.setattr(ResistorNetwork, "solver", solver)
        jax.clear_caches()
        found[name] = rule(net, xs, ys).gradient.conductance
    assert len(made) == 1
    scale = float(jnp.max(jnp.abs(found["factors"])))
    np.testing.assert_allclose(found["grid"], found["factors"], atol=1e-9 * scale)


def test_reverse_mode_goes_through_it():
    net = circuit("square", 0.2)
    shown = lambda net, solver: jnp.sum(net.read(net.relax(X, solver=solver).state, X) ** 2)
    grid, factors = (eqx.filter_grad(shown)(net, solver).conductance for solver in (GRID, FACTORS))
    np.testing.assert_allclose(grid, factors, atol=1e-9 * float(jnp.max(jnp.abs(factors))))


def test_resistors_that_are_gone_let_nodes_float_or_do_not():
    net = circuit("square", 0.2)
    edges = np.asarray(net.edges)
    joined = np.flatnonzero((edges == 777).any(axis=1))
    for gone in (joined, joined[1:]):
        loose = eqx.tree_at(lambda c: c.conductance, net, net.conductance.at[gone].set(0.0))
        grid, factors = (relax(loose, X, solver=solver) for solver in (GRID, FACTORS))
        assert grid.status == factors.status
        assert bool(grid.converged) == (len(gone) < len(joined))
        if grid.converged:
            np.testing.assert_allclose(grid.state, factors.state, atol=1e-10)


def test_what_no_multigrid_is_for_is_factorised(monkeypatch):
    """Amplifiers, and analytic continuation."""
    monkeypatch.setattr(Multigrid, "of", lambda *_: pytest.fail("no matrix of conductances alone"))
    amplified = circuit("small", 0.2, controlled_sources=[(40, -1, 20, -1, 0.5, 0.5)])
    complex_ = lambda leaf: leaf.astype(jnp.complex128) if eqx.is_inexact_array(leaf) else leaf
    for net in (amplified, jax.tree.map(complex_, circuit("small", 0.2))):
        assert relax(net, X.astype(net.conductance.dtype)).status == Status.converged


def test_a_batch_shares_a_hierarchy(monkeypatch):
    net, made, make = circuit("square", 0.3, seed=8), [], Multigrid.of
    monkeypatch.setattr(Multigrid, "of", lambda *matrices: made.append(1) or make(*matrices))
    monkeypatch.setattr(ResistorNetwork, "solver", GRID)
    jax.clear_caches()
    found = relax_batch(net, jnp.stack([X, 2 * X, 0 * X]))
    assert jnp.all(found.converged)
    assert len(made) == 1
    np.testing.assert_allclose(found.state[1], 2 * found.state[0], atol=1e-9)
    assert jnp.all(found.state[2] == 0)


def test_a_hierarchy_serves_no_other_conductances():
    for seed in (11, 12, 11):
        net = circuit("square", 1.0, seed)
        matrix, known = laplacian(net)
        found = relax(net, X)
        assert found.status == Status.converged
        np.testing.assert_allclose(found.state, scipy.sparse.linalg.spsolve(matrix, known @ np.asarray(X)), atol=1e-10)


def test_rough_solutions_are_refined_by_the_currents_of_elements(monkeypatch):
    net = circuit("square", 0.2, seed=13)
    matrix, known = laplacian(net)
    monkeypatch.setattr(linear_solve, "FINE", 1e-2)
    found = relax(net, X)
    assert found.steps == 1
    assert found.status == Status.converged
    np.testing.assert_allclose(found.state, scipy.sparse.linalg.spsolve(matrix, known @ np.asarray(X)), atol=1e-9)


@pytest.mark.parametrize(("shape", "width"), [((30, 90), 30), ((8, 8, 40), 64)])
def test_the_band_of_a_lattice_is_its_section(shape, width):
    net = ResistorNetwork.lattice(shape, inputs=[0], outputs=[7])
    assert width <= bandwidth(net.topology.layout, len(net.edges)) <= 1.2 * width < WIDEST


def test_hopeless_matrices_are_given_up():
    poisson = scipy.sparse.diags_array([2.0 * np.ones(400), -np.ones(399), -np.ones(399)], offsets=[0, 1, -1])
    right = np.random.default_rng(0).normal(size=400)
    found, done = Multigrid.of(scipy.sparse.csr_matrix(poisson)).solve(right, 1e-10)
    assert done
    np.testing.assert_allclose(poisson @ found, right, atol=1e-8)
    indefinite = scipy.sparse.csr_matrix(poisson - 0.5 * scipy.sparse.eye_array(400))
    assert not Multigrid.of(indefinite).solve(right, 1e-10)[1]
    assert not Multigrid.of(scipy.sparse.csr_matrix(poisson)).solve(np.full(400, np.nan), 1e-10)[1]


@pytest.mark.slow
def test_a_lattice_of_half_a_million_nodes_settles_by_itself(monkeypatch):
    monkeypatch.setattr(scipy.sparse.linalg, "splu", lambda *_, **__: pytest.fail("factorised"))
    side = WIDEST + 10
    g = np.random.default_rng(0).uniform(0.5, 1.5, 2 * side * (side - 1))
    net = ResistorNetwork.lattice((side, side), inputs=[0, side**2 - 1], outputs=[side], conductance=g)
    found = net.relax(X)
    assert found.status == Status.converged
    assert found.residual < 1e-11
