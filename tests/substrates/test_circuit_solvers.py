"""The solvers of circuits against one another, the generic solver and SciPy, and what they say when there is none."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
from circuits import INPUTS, KINDS, circuit, every, inputs, potentials
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from learning import CrossEntropy, SquaredError
from substrates import Nudge, Pin, ResistorNetwork, Shockley, Status
from substrates.classical.resistor.coordinate_descent import CoordinateDescent
from substrates.classical.resistor.linear_solve import conductance_solver
from substrates.classical.resistor.operating_point import OperatingPoint
from substrates.solvers.generic import DescendThenPolish
from substrates.substrate import relax_batch

seeds = st.integers(0, 2**31 - 1)
relax = eqx.filter_jit(lambda net, x, nudge=None, start=None, solver=None: net.relax(x, nudge, start, solver=solver))


def quadratic_program(net, x):
    """The co-content of a circuit of resistors, sources and ideal diodes as 1/2 u'Ku + q'u with A u + c <= 0."""
    zero = jnp.zeros(net.topology.size)
    K = np.asarray(jax.jacfwd(lambda u: net.imbalance(u, x))(zero))
    drops = lambda u: net.flow(u, x).diode_drops
    return K, np.asarray(net.imbalance(zero, x)), np.asarray(jax.jacfwd(drops)(zero)), np.asarray(drops(zero))


@pytest.mark.parametrize("kind", every(["bounds", "diodes", "diode loop"], "bounds", "diode loop"))
@given(seed=seeds)
def test_ideal_diodes_against_a_quadratic_program_of_scipy(kind, seed):
    net, x = circuit(kind, seed), inputs(seed)
    K, q, A, c = quadratic_program(net, x)
    found = relax(net, x)
    content = lambda u: u @ K @ u / 2 + q @ u
    wanted = minimize(
        content,
        np.zeros(len(q)),
        jac=lambda u: K @ u + q,
        constraints={"type": "ineq", "fun": lambda u: -(A @ u + c), "jac": lambda u: -A},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    u = np.asarray(potentials(found.state))
    assert content(u) <= content(wanted.x) + 1e-9 * abs(content(wanted.x)) + 1e-9
    np.testing.assert_allclose(u, wanted.x, atol=2e-5)


@given(seed=seeds)
def test_coordinate_descent_and_the_generic_solver_agree_with_the_exact_one(seed):
    net, x = circuit("bounds", seed), inputs(seed)
    nudge = Nudge(SquaredError(), jnp.array([0.5, -0.5]), 0.1)
    exact = relax(net, x, nudge)
    for solver in (CoordinateDescent(), DescendThenPolish()):
        other = relax(net, x, nudge, None, solver)
        assert other.status == Status.converged
        np.testing.assert_allclose(other.state, exact.state, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(other.energy, exact.energy, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["sources", "one-way amplifier", "real diodes"])
def test_the_generic_solver_agrees(kind):
    net, x = circuit(kind, 2), inputs(2)
    exact = relax(net, x)
    start = exact.state if kind == "real diodes" else None
    near = None if start is None else start + 0.02 * np.random.default_rng(0).normal(size=start.shape)
    other = relax(net, x, None, near, DescendThenPolish(relative_tolerance=1e-12))
    assert other.status == Status.converged
    np.testing.assert_allclose(other.state, exact.state, rtol=1e-6, atol=1e-7)


@given(seed=seeds)
def test_every_sweep_of_coordinate_descent_lowers_the_energy(seed):
    net, x = circuit("bounds", seed), inputs(seed)
    lower, upper = net.bounds(x)
    state = jnp.clip(jnp.asarray(np.random.default_rng(seed).normal(size=lower.shape)) * 5, lower, upper)
    once = CoordinateDescent(sweeps=1)
    energies = [float(net.energy(state, x))]
    for _ in range(8):
        found = relax(net, x, None, state, once)
        assert found.status == Status.truncated
        state = found.state
        energies.append(float(found.energy))
    assert np.all(np.diff(energies) <= 1e-12 * np.abs(energies[0]))
    assert energies[1] < energies[0]


def test_colours_do_not_touch():
    layout = ResistorNetwork.lattice((4, 5), inputs=[0], outputs=[19]).topology.layout
    colour = layout.colour
    assert np.max(colour) == 1
    rows, columns, _, _ = layout.conductance_pattern
    assert np.all((rows == columns) | (colour[rows] != colour[columns]))


@pytest.mark.parametrize("kind", every(KINDS, "one-way amplifier"))
def test_sparse_equals_dense(kind):
    net, xs = circuit(kind, 4), inputs(4, batch=3)
    run = eqx.filter_jit(
        lambda net, xs, nudge, solver: jax.vmap(lambda x: net.relax(x, nudge, solver=solver))(xs),
    )
    for nudge in (None, Nudge(CrossEntropy(), jnp.array([0.2, 0.8]), 0.1)):
        dense, sparse = (run(net, xs, nudge, OperatingPoint(dense_size=size)) for size in (512, 0))
        assert jnp.all(sparse.converged)
        np.testing.assert_allclose(potentials(sparse.state), potentials(dense.state), rtol=1e-9, atol=1e-10)


def test_lattice_against_spsolve():
    side = 40
    g = np.random.default_rng(0).uniform(0.5, 1.5, 2 * side * (side - 1))
    net = ResistorNetwork.lattice((side, side), inputs=[0, side**2 - 1], outputs=[side // 2], conductance=g)
    x = jnp.array([1.0, -0.5])
    K = scipy.sparse.lil_array((side**2, side**2))
    for (a, b), value in zip(net.edges, g, strict=True):
        K[a, a] += value
        K[b, b] += value
        K[a, b] -= value
        K[b, a] -= value
    K = K.tocsc()
    free = np.arange(1, side**2 - 1)
    wanted = scipy.sparse.linalg.spsolve(K[free][:, free], -(K[free][:, [0, side**2 - 1]] @ np.asarray(x)))
    found = relax(net, x)
    assert found.converged
    assert found.steps == 1
    np.testing.assert_allclose(found.state, wanted, rtol=1e-9, atol=1e-12)


def test_a_batch_on_one_matrix_factorises_once(monkeypatch):
    net = ResistorNetwork.lattice((25, 25), inputs=[0], outputs=[5], conductance=0.377)
    calls = []
    factorise = scipy.sparse.linalg.splu
    monkeypatch.setattr(scipy.sparse.linalg, "splu", lambda *a, **k: calls.append(1) or factorise(*a, **k))
    xs = jnp.linspace(-1, 1, 6)[:, None]
    free = relax_batch(net, xs)
    nudged = relax_batch(net, xs, Nudge(SquaredError(), jnp.ones((6, 1)), 0.1), free.state)
    assert jnp.all(free.converged & nudged.converged)
    assert len(calls) == 1


@given(seeds)
def test_an_output_held_at_zero_is_a_grounded_node(seed):
    draw, edges = np.random.default_rng(seed), [(0, 2), (0, 3), (1, 3), (2, 3), (2, 4), (3, 4)]
    build = lambda inputs, outputs: ResistorNetwork.from_edges(
        edges, n=5, inputs=inputs, outputs=outputs, conductance=draw.uniform(0.1, 2, 6)
    )
    net, x = build([0, 1], [4]), jnp.asarray(draw.normal(size=2))
    grounded = eqx.tree_at(lambda g: g.conductance, build([0, 1, 4], [2]), net.conductance)
    held = relax(net, x, Pin(jnp.zeros(1)), relax(net, x).state)
    wanted = relax(grounded, jnp.append(x, 0.0))
    assert held.converged
    at_nodes = grounded.voltages(wanted.state, jnp.append(x, 0.0))
    np.testing.assert_allclose(net.voltages(held.state, x), at_nodes, atol=1e-9)


@pytest.mark.parametrize("kind", every(KINDS, "sources", "diodes"))
@given(seed=seeds)
@settings(max_examples=8)
def test_pins_hold_the_outputs(kind, seed):
    """Holding the outputs where they already are changes nothing; elsewhere the pin is a source at the output."""
    net, x = circuit(kind, seed), inputs(seed)
    free = relax(net, x)
    still = relax(net, x, Pin(net.read(free.state, x)))
    assert still.status == Status.converged
    np.testing.assert_allclose(potentials(still.state), potentials(free.state), rtol=1e-8, atol=1e-9)
    target = net.read(free.state, x) + 0.05
    pinned = relax(net, x, Pin(target))
    if pinned.status == Status.infeasible:  # a diode may forbid it
        assert kind in ("bounds", "diodes", "diode loop")
        return
    assert pinned.status == Status.converged
    np.testing.assert_allclose(net.read(pinned.state, x), target, atol=1e-12)
    stiff = relax(net, x, Nudge(SquaredError(), target, 1e7))
    np.testing.assert_allclose(potentials(stiff.state), potentials(pinned.state), atol=1e-5)


def fixed_pair(diodes, **options):
    return ResistorNetwork.from_edges(
        [(0, 2), (2, 3), (3, 1)], inputs=[0, 1], outputs=[2], conductance=1.0, diodes=diodes, **options
    )


@pytest.mark.parametrize(
    ("net", "feasible", "infeasible"),
    [
        (fixed_pair([(0, 2), (2, 1)]), [-1.0, 1.0], [1.0, -1.0]),
        (fixed_pair([(0, 2), (2, 3), (3, 1)]), [0.0, 2.0], [2.0, 0.0]),
        (fixed_pair([(0, 1)]), [0.0, 1.0], [1.0, 0.0]),
        (fixed_pair([(0, 2), (2, 3), (3, 1)], voltage_sources=[]), [1.0, 1.0], [1.0, 1.0 - 1e-3]),
    ],
)
def test_sources_that_force_a_current_through_diodes(net, feasible, infeasible):
    assert net.relax(jnp.array(feasible)).status == Status.converged
    assert net.relax(jnp.array(infeasible)).status == Status.infeasible
    if not net.topology.diodes_between_potentials:
        assert net.relax(jnp.array(infeasible), solver=CoordinateDescent()).status == Status.infeasible


def test_a_battery_short_circuited_by_a_floating_diode():
    """A loop of a diode and a battery off ground: infeasible one way round, idle the other."""
    build = lambda volts: ResistorNetwork.from_edges(
        [(0, 1), (1, 3), (3, 2), (2, -1)],
        inputs=[0],
        outputs=[1],
        conductance=1.0,
        voltage_sources=[(1, 2, volts)],
        diodes=[(1, 3), (3, 2)],
    )
    assert build(1.0).relax(jnp.array([1.0])).status == Status.infeasible
    assert build(-1.0).relax(jnp.array([1.0])).status == Status.converged


@given(seed=seeds)
def test_infeasibility_against_linear_programming(seed):
    net = ResistorNetwork.from_edges(
        [(0, 3), (3, 4), (4, 5), (5, 1), (4, 2)],
        inputs=[0, 1, 2],
        outputs=[4],
        conductance=10 ** np.random.default_rng(seed).uniform(-2, 0, 5),
        diodes=[(0, 3), (3, 4), (4, 2), (5, 4), (1, 5)],
    )
    x = inputs(seed)
    _, _, A, c = quadratic_program(net, x)
    possible = linprog(np.zeros(3), A_ub=A, b_ub=-c, bounds=[(None, None)] * 3).status == 0
    assert relax(net, x).status == (Status.converged if possible else Status.infeasible)


@pytest.mark.parametrize(
    "kind",
    every(["linear", "sources", "amplifier", "bounds", "diodes", "real diodes"], "amplifier", "bounds", "real diodes"),
)
def test_a_nudge_harder_than_the_output_is_held_is_unstable(kind):
    """The limit is where K + beta O'O, real diodes included, stops being positive definite."""
    net, x = circuit(kind, 6), inputs(6)
    free = relax(net, x)
    currents = lambda u: net.diode.current(net.diode_drops(u, x)) if net.diode else None
    K = np.asarray(jax.jacfwd(lambda u: net.imbalance(u, x, currents(u)))(potentials(free.state)))
    reading = np.asarray(jax.jacfwd(lambda u: net.read(u, x))(potentials(free.state)))
    limit = 1 / np.max(np.linalg.eigvalsh(reading @ np.linalg.solve(K, reading.T)))
    here = net.read(free.state, x)  # no pull at all: only the curvature can tell
    for solver in (None, *([CoordinateDescent()] if kind in ("linear", "bounds") else [])):
        stable, unstable = (
            relax(net, x, Nudge(SquaredError(), here, jnp.asarray(-factor * limit)), free.state, solver)
            for factor in (0.99, 1.01)
        )
        assert stable.status == Status.converged
        assert unstable.status == Status.unstable
    harder = relax(net, x, Nudge(SquaredError(), here + 1, jnp.asarray(-100.0)))
    assert harder.status == Status.unstable


def test_a_linear_circuit_needs_one_step_and_cross_entropy_a_few():
    net, x = circuit("sources", 0), inputs(0)
    assert relax(net, x).steps == 1
    assert relax(net, x, Nudge(SquaredError(), jnp.ones(2), 0.3)).steps == 1
    assert relax(net, x, Nudge(CrossEntropy(), jnp.array([0.0, 1.0]), 0.3)).steps <= 5


@given(seed=seeds)
def test_complex_nudges_continue_analytically(seed):
    """Cauchy: the mean over a circle of complex beta is the value at its centre."""
    net, x = circuit("sources", seed), inputs(seed)
    phases = np.exp(2j * np.pi * np.arange(8) / 8)
    nudged = [relax(net, x, Nudge(SquaredError(), jnp.ones(2), jnp.asarray(0.005 * p))).state for p in phases]
    np.testing.assert_allclose(sum(nudged) / 8, relax(net, x).state, rtol=1e-9, atol=1e-9)


def test_ideal_diodes_refuse_complex_nudges():
    with pytest.raises(TypeError, match="analytic continuation"):
        circuit("diodes", 0).relax(inputs(0), Nudge(SquaredError(), jnp.ones(2), 0.1 + 0.1j))


def test_real_diodes_settle_from_anywhere():
    """From cold starts at volts across 1e-14 A diodes, and from far away, to the same point."""
    net, x = circuit("real diodes", 5), inputs(5) * 3
    cold = relax(net, x)
    assert cold.status == Status.converged
    for size in (1.0, 30.0):
        start = size * jnp.asarray(np.random.default_rng(1).normal(size=cold.state.shape))
        far = relax(net, x, None, start)
        assert far.status == Status.converged
        np.testing.assert_allclose(far.state, cold.state, rtol=1e-8, atol=1e-9)


def test_conductances_trained_to_zero_are_told():
    net = ResistorNetwork.from_edges([(0, 1), (1, 2), (2, 3)], inputs=[0, 3], outputs=[1], conductance=1.0)
    cut = eqx.tree_at(lambda net: net.conductance, net, jnp.array([0.0, 0.0, 1.0]))
    assert not cut.relax(jnp.array([1.0, 2.0])).usable
    broken = eqx.tree_at(lambda net: net.conductance, net, jnp.array([jnp.nan, 1.0, 1.0]))
    assert broken.relax(jnp.array([1.0, 2.0])).status == Status.not_finite


def test_coordinate_descent_says_what_it_cannot_do():
    for kind in ("diodes", "real diodes"):
        with pytest.raises(ValueError, match="OperatingPoint"):
            circuit(kind, 0).relax(inputs(0), solver=CoordinateDescent())
    with pytest.raises(ValueError, match="Pin"):
        circuit("bounds", 0).relax(inputs(0), Pin(jnp.zeros(2)), solver=CoordinateDescent())
    with pytest.raises(ValueError, match="sweeps"):
        CoordinateDescent(sweeps=0)


def test_a_solved_current_comes_back():
    net = circuit("amplifier", 1)
    solve = conductance_solver(net.topology, net.conductance.dtype)
    current = jnp.arange(1.0, 1 + net.topology.size)
    answer, positive, precise = solve(net.conductance, current, None)
    zero = jnp.zeros(len(INPUTS))
    back = net.imbalance(answer, zero) - net.imbalance(0 * answer, zero)
    assert positive
    assert precise
    np.testing.assert_allclose(back, current, rtol=1e-11)


def test_shockley_and_ideal_diodes_nearly_agree():
    """Real diodes of a tiny emission voltage act as ideal ones."""
    net, x = circuit("diodes", 8), inputs(8)
    sharp = ResistorNetwork.from_edges(
        net.edges,
        net.n,
        inputs=net.inputs,
        outputs=net.outputs,
        conductance=net.conductance,
        diodes=net.diodes,
        diode=Shockley(1e-12, 1e-6),
        current_sources=[
            (int(a), int(b), float(i)) for (a, b), i in zip(net.current_sources, net.source_current, strict=True)
        ],
    )
    np.testing.assert_allclose(relax(sharp, x).state, relax(net, x).state[0], atol=2e-4)
