"""Spins in a transverse field against dense matrices, QuTiP, closed forms, and the laws of ground states."""

from functools import reduce

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning import EquilibriumPropagation, SquaredError
from substrates import IsingModel, Nudge, Pin, Status, TransverseFieldIsing
from substrates.quantum.eigensolvers import EigenstateSolver
from substrates.quantum.observables import outcomes
from substrates.substrate import relax_batch
from theory_checks import check_substrate

N = 6
EDGES = [(i, i + 1) for i in range(N - 1)] + [(i, i + 2) for i in range(N - 2)]
PAULI = {"X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]]), "Z": np.diag([1, -1])}
DENSE, PRODUCTS = EigenstateSolver(), EigenstateSolver(dense=0)
READ = (3, "X2", "Z0 Z1", "Y0 Y1")

seeds = st.integers(0, 2**31 - 1)
linear = lambda output, target: jnp.vdot(output, target)
relax = eqx.filter_jit(lambda net, x, nudge, start, solver: net.relax(x, nudge, start, solver=solver))
estimate = eqx.filter_jit(lambda rule, net, x, y: rule(net, x, y))
measure = eqx.filter_jit(lambda net, states, xs: net.measure(states, xs))


def settled(net, x, nudge=None, start=None, solver=None):
    return relax(net, x, jax.tree.map(jnp.asarray, nudge), start, solver)


def operator(name, n=N):
    """A Pauli string as a matrix, by Kronecker products."""
    factors = {int(part[1:]): PAULI[part[0]] for part in name.split()}
    return reduce(np.kron, [factors.get(i, np.eye(2)) for i in range(n)]).real


def parameters(seed, n=N, edges=EDGES):
    draw = np.random.default_rng(seed)
    return {
        "coupling": draw.normal(size=len(edges)),
        "longitudinal_field": 0.5 * draw.normal(size=n),
        "transverse_field": draw.uniform(0.4, 1.2, n) * draw.choice([-1, 1], n),
    }


def model(seed, **options):
    return TransverseFieldIsing.from_edges(
        EDGES, N, **parameters(seed), **{"outputs": READ, "inputs": (1, 4), **options}
    )


def matrix(net, x, edges=EDGES, n=N):
    """H with inputs as fields, by Kronecker products."""
    field = np.asarray(net.longitudinal_field).copy()
    np.add.at(field, list(net.inputs), np.asarray(x))
    total = -sum(float(J) * operator(f"Z{i} Z{j}", n) for J, (i, j) in zip(net.coupling, edges, strict=True))
    for i in range(n):
        total = total - field[i] * operator(f"Z{i}", n) - float(net.transverse_field[i]) * operator(f"X{i}", n)
    return total


# eigenstates


@pytest.mark.parametrize("solver", [DENSE, PRODUCTS], ids=["dense", "products"])
@pytest.mark.parametrize("level", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_levels_and_outputs_are_those_of_the_matrix(solver, level):
    net, x = model(1, level=level), jnp.array([0.3, -0.7])
    levels, vectors = np.linalg.eigh(matrix(net, x))
    found = settled(net, x, solver=solver)
    assert found.converged
    np.testing.assert_allclose(found.energy, levels[level], atol=1e-12)
    psi = vectors[:, level]
    assert abs(psi @ np.asarray(found.state)) > 1 - 1e-12
    wanted = [psi @ operator(name) @ psi for name in ("Z3", "X2", "Z0 Z1", "Y0 Y1")]
    np.testing.assert_allclose(net.read(found.state, x), wanted, atol=1e-9)
    left = matrix(net, x) @ found.state - levels[level] * np.asarray(found.state)
    np.testing.assert_allclose(found.residual * net.energy_scale(x), 2 * np.linalg.norm(left), atol=1e-12)


@given(seeds)
def test_products_with_h_are_those_of_the_matrix(seed):
    net, draw = model(seed), np.random.default_rng(seed)
    x, v = draw.normal(size=2), draw.normal(size=2**N)
    weights = draw.normal(size=4)
    wanted = matrix(net, x) + sum(
        w * operator(name) for w, name in zip(weights, ("Z3", "X2", "Z0 Z1", "Y0 Y1"), strict=True)
    )
    found = net.hamiltonian(jnp.asarray(x), jnp.asarray(weights))(jnp.asarray(v))
    np.testing.assert_allclose(found, wanted @ v, atol=1e-12)


def test_qutip_finds_the_same_ground_state_of_ten_spins():
    import qutip

    n, edges = 10, [(i, (i + 1) % 10) for i in range(10)] + [(0, 5)]
    net = TransverseFieldIsing.from_edges(
        edges, n, **parameters(3, n, edges), outputs=[outcome for outcome in outcomes([2, 7], "X")]
    )
    place = lambda op, *spins: qutip.tensor([op if i in spins else qutip.qeye(2) for i in range(n)])
    z, x = qutip.sigmaz(), qutip.sigmax()
    H = -sum(float(J) * place(z, i, j) for J, (i, j) in zip(net.coupling, edges, strict=True))
    H -= sum(
        float(net.longitudinal_field[i]) * place(z, i) + float(net.transverse_field[i]) * place(x, i) for i in range(n)
    )
    energy, ground = H.groundstate()
    found = settled(net, jnp.zeros(0))
    np.testing.assert_allclose(found.energy, energy, atol=1e-10)
    assert abs(ground.full().ravel().conj() @ np.asarray(found.state)) > 1 - 1e-10
    up, down = [(1 + sign * x) / 2 for sign in (1, -1)]
    both = lambda a, b: qutip.tensor([{2: a, 7: b}.get(i, qutip.qeye(2)) for i in range(n)])
    wanted = [qutip.expect(both(a, b), ground) for a in (up, down) for b in (up, down)]
    np.testing.assert_allclose(net.read(found.state, jnp.zeros(0)), wanted, atol=1e-8)


def test_clamped_spins_are_fields_of_their_couplings():
    clamped = model(5, inputs=(1, 4), entry="clamps", outputs=(3, "Z0 Z2"))
    free, x = [0, 2, 3, 5], np.array([0.8, -1.3])
    assert clamped.free.tolist() == free
    given_, number = dict(zip((1, 4), x, strict=True)), {spin: k for k, spin in enumerate(free)}
    field = {i: float(clamped.longitudinal_field[i]) for i in free}
    energy, pairs, weights = -sum(float(clamped.longitudinal_field[j]) * v for j, v in given_.items()), [], []
    for J, (i, j) in zip(np.asarray(clamped.coupling), EDGES, strict=True):
        for a, b in ((i, j), (j, i)):
            if a in given_ and b in field:
                field[b] += J * given_[a]
        if i in given_ and j in given_:
            energy -= J * given_[i] * given_[j]
        if i in field and j in field:
            pairs.append((number[i], number[j]))
            weights.append(J)
    small = TransverseFieldIsing.from_edges(
        pairs,
        4,
        coupling=np.array(weights),
        longitudinal_field=np.array([field[i] for i in free]),
        transverse_field=np.asarray(clamped.transverse_field)[free],
        outputs=(2, "Z0 Z1"),
    )
    found, wanted = settled(clamped, jnp.asarray(x)), settled(small, jnp.zeros(0))
    np.testing.assert_allclose(found.energy, wanted.energy + energy, atol=1e-12)
    np.testing.assert_allclose(clamped.read(found.state, x), small.read(wanted.state, jnp.zeros(0)), atol=1e-10)


@given(seeds)
def test_without_transverse_fields_it_is_the_classical_ising_model(seed):
    values = {**parameters(seed), "transverse_field": 1e-4}
    net = TransverseFieldIsing.from_edges(EDGES, N, **values, outputs=range(N))
    classical = IsingModel.from_edges(
        EDGES, N, coupling=values["coupling"], field=values["longitudinal_field"], outputs=range(N)
    )
    found = settled(net, jnp.zeros(0), solver=DENSE)
    spins = settled(classical, jnp.zeros(0))
    np.testing.assert_allclose(found.energy, spins.energy, atol=1e-5)
    np.testing.assert_allclose(net.read(found.state, jnp.zeros(0)), spins.state, atol=1e-2)


def test_the_sign_is_that_of_the_start():
    net, x = model(2), jnp.array([0.1, 0.2])
    for solver in (DENSE, PRODUCTS):
        state = settled(net, x, solver=solver).state
        nudge = Nudge(SquaredError(), jnp.zeros(4), 0.1)
        assert settled(net, x, nudge, -state, solver).state @ state < -0.9
        assert settled(net, x, nudge, state, solver).state @ state > 0.9


def test_float32_settles_near_the_same_place():
    net, x = model(2), jnp.array([0.1, 0.2])
    gap = np.diff(np.linalg.eigvalsh(matrix(net, x))[:2])[0]
    coarse = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, net)
    for solver in (DENSE, PRODUCTS):
        found = settled(coarse, x, solver=solver)
        assert found.converged
        assert found.state.dtype == jnp.float32
        # the distance from an eigenvector is at most the eigen-residual over the gap
        away = np.linalg.norm(np.asarray(found.state, float) - np.asarray(settled(net, x).state))
        assert away < float(found.residual * coarse.energy_scale(x)) / gap + 1e-5
        assert away < 2e-3


# degenerate levels


@pytest.mark.parametrize("solver", [DENSE, PRODUCTS], ids=["dense", "products"])
@pytest.mark.parametrize(
    ("field", "bias", "tied"), [(0.0, 0.0, True), (0.02, 0.0, True), (1.0, 0.0, False), (0.02, 0.1, False)]
)
def test_a_degenerate_ground_state_is_reported(solver, field, bias, tied):
    chain = TransverseFieldIsing.chain(N, transverse_field=field, longitudinal_field=bias, outputs=[0])
    found = settled(chain, jnp.zeros(0), solver=solver)
    assert (found.status == Status.zero_mode) == tied
    assert bool(found.converged) != tied


def test_training_on_a_degenerate_ground_state_is_refused():
    from learning.rule import ConvergenceError

    chain = TransverseFieldIsing.chain(N, transverse_field=0.0, outputs=[0])
    with pytest.raises(ConvergenceError, match=r"No single minimum.* at most 1e-06 of the scale of .*field"):
        EquilibriumPropagation(0.1)(chain, jnp.zeros((1, 0)), jnp.ones((1, 1)))


def test_how_small_a_gap_counts_as_degenerate_is_said_where_one_does():
    chain = TransverseFieldIsing.chain(N, transverse_field=0.02, inputs=[0], outputs=[0])
    assert "at most 1e-06 of the scale" in chain.undecided()
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, chain)
    assert f"at most {256 * np.finfo(np.float32).eps:.2g} of the scale" in single.undecided()


def test_statuses_of_a_batch_are_counted_by_kind():
    chain = TransverseFieldIsing.chain(N, transverse_field=0.02, inputs=[0], outputs=[0])
    found = relax_batch(chain, jnp.array([[0.0], [0.5], [0.0], [0.2], [-0.3], [jnp.nan]]))
    assert found.counts() == {"converged": 3, "zero_mode": 2, "not_finite": 1}
    assert int((found.status == Status.zero_mode).sum()) == 2
    assert "3 converged, 2 zero_mode, 1 not_finite, largest residual" in str(found)
    assert chain.relax(jnp.array([0.5])).counts() == {"converged": 1}


# nudges


@pytest.mark.slow
def test_a_nudge_that_feels_the_state_is_self_consistent():
    net, x, y = model(4), jnp.array([0.2, -0.4]), np.array([0.9, -0.3, 0.1, 0.4])
    free = settled(net, x)
    named = [operator(name) for name in ("Z3", "X2", "Z0 Z1", "Y0 Y1")]
    for beta in (0.4, -0.2):
        shown = np.asarray(net.read(free.state, x))
        for _ in range(400):  # a damped iteration of the definition
            weights = beta * (shown - y)
            psi = np.linalg.eigh(matrix(net, x) + sum(w * o for w, o in zip(weights, named, strict=True)))[1][:, 0]
            shown = 0.7 * shown + 0.3 * np.array([psi @ o @ psi for o in named])
        for solver in (DENSE, PRODUCTS):
            found = settled(net, x, Nudge(SquaredError(), jnp.asarray(y), beta), free.state, solver)
            assert found.converged
            np.testing.assert_allclose(net.read(found.state, x), shown, atol=1e-8)


def test_strong_nudges_settle_or_say_that_they_do_not():
    net, x, y = model(4), jnp.array([0.2, -0.4]), jnp.array([0.9, -0.3, 0.1, 0.4])
    free = settled(net, x)
    for beta in (3.0, 30.0, -30.0):
        found = settled(net, x, Nudge(SquaredError(), y, beta), free.state)
        assert bool(found.converged) == bool(found.residual < 1e-9)
        assert found.converged or found.status == Status.out_of_steps


def test_with_a_free_output_a_nudge_is_one_linear_eigenproblem():
    net, x, y = model(4), jnp.array([0.2, -0.4]), np.array([0.9, -0.3, 0.1, 0.4])
    free = settled(net, x)
    about = net.read(free.state, x)
    weights = 2.0 * (np.asarray(about) - y)
    tilted = matrix(net, x) + sum(
        w * operator(name) for w, name in zip(weights, ("Z3", "X2", "Z0 Z1", "Y0 Y1"), strict=True)
    )
    found = settled(net, x, Nudge(SquaredError(), jnp.asarray(y), 2.0, about), free.state)
    psi = np.linalg.eigh(tilted)[1][:, 0]
    assert abs(psi @ np.asarray(found.state)) > 1 - 1e-12


@pytest.mark.slow
def test_a_pin_holds_an_expectation_value():
    net, x = model(4, outputs=(3,)), jnp.array([0.2, -0.4])
    free = settled(net, x)
    target = net.read(free.state, x) - 0.1
    found = settled(net, x, Pin(target), free.state)
    assert found.converged
    np.testing.assert_allclose(net.read(found.state, x), target, atol=1e-9)
    assert found.energy > free.energy


def test_a_warm_start_takes_few_products():
    net, x = model(4), jnp.array([0.2, -0.4])
    solver = EigenstateSolver(absolute=1e-8, dense=0)
    free = settled(net, x, solver=solver)
    again = settled(net, x, start=free.state, solver=solver)
    assert int(again.steps) <= 2
    about = net.read(free.state, x)
    nudged = settled(net, x, Nudge(SquaredError(), about - 0.5, 0.01, about), free.state, solver)
    assert int(nudged.steps) <= 0.8 * int(free.steps)


# laws


def directional(net, seed):
    parts, rest = eqx.partition(net, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(parts)
    draw = np.random.default_rng(seed)
    directions = [jnp.asarray(draw.normal(size=leaf.shape)) for leaf in leaves]
    moved = lambda step: eqx.combine(
        structure.unflatten([p + step * d for p, d in zip(leaves, directions, strict=True)]), rest
    )
    return moved, directions


@given(seeds)
def test_hellmann_and_feynman(seed):
    net, x = model(seed), jnp.array([0.5, 0.1])
    moved, directions = directional(net, seed)
    found = settled(net, x)
    conjugate = measure(net, found.state[None], x[None])
    slope = sum(float(jnp.vdot(g, d)) for g, d in zip(jax.tree.leaves(conjugate), directions, strict=True))
    energy = lambda step: np.linalg.eigvalsh(matrix(moved(step), x))[0]
    gap = np.diff(np.linalg.eigvalsh(matrix(net, x))[:2])[0]
    assert abs((energy(1e-5) - energy(-1e-5)) / 2e-5 - slope) < 1e-6 * max(1.0, 1 / gap)


@given(seeds)
def test_the_ground_energy_is_concave_in_beta(seed):
    net, x = model(seed), jnp.array([0.5, 0.1])
    direction = jnp.asarray(np.random.default_rng(seed).normal(size=4))
    energies = [float(settled(net, x, Nudge(linear, direction, beta)).energy) for beta in np.linspace(-2, 2, 5)]
    assert np.all(np.diff(energies, 2) <= 1e-10)


@given(seeds)
def test_susceptibilities_are_symmetric_and_those_of_perturbation_theory(seed):
    net, x = model(seed), jnp.array([0.5, 0.1])
    levels, vectors = np.linalg.eigh(matrix(net, x))
    named = [vectors.T @ operator(name) @ vectors[:, 0] for name in ("Z3", "X2", "Z0 Z1", "Y0 Y1")]
    wanted = [[-2 * np.sum(a[1:] * b[1:] / (levels[1:] - levels[0])) for b in named] for a in named]
    found = np.asarray(susceptibility(net, x))
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, atol=1e-7 * scale)
    np.testing.assert_allclose(found, found.T, atol=1e-8 * scale)


susceptibility = eqx.filter_jit(lambda net, x: net.susceptibility(net.relax(x).state, x))


def loss_gradient(solve, net, x, seed):
    """The derivative along a random direction of the parameters, by Richardson's differences of an exact loss."""
    moved, directions = directional(net, seed)
    slope = lambda h: (solve(moved(h)) - solve(moved(-h))) / (2 * h)
    return (4 * slope(5e-4) - slope(1e-3)) / 3, directions


@pytest.mark.parametrize(
    ("level", "linearised"), [(0, False), (1, True), pytest.param(1, False, marks=pytest.mark.slow)]
)
def test_equilibrium_propagation_has_the_exact_gradient_in_the_limit(level, linearised):
    net, x, y = model(7, level=level), jnp.array([[0.5, 0.1]]), jnp.array([[0.6, -0.2, 0.3, 0.1]])
    named = [operator(name) for name in ("Z3", "X2", "Z0 Z1", "Y0 Y1")]

    def loss(net):
        psi = np.linalg.eigh(matrix(net, x[0]))[1][:, level]
        return 0.5 * np.sum((np.array([psi @ o @ psi for o in named]) - np.asarray(y[0])) ** 2)

    wanted, directions = loss_gradient(loss, net, x[0], 7)
    errors = {}
    for variant in ("positive", "centered"):
        for beta in (0.01, 0.005, 1e-4):
            rule = EquilibriumPropagation(jnp.asarray(beta), variant, linearised=linearised)
            gradient = estimate(rule, net, x, y).gradient
            slope = sum(float(jnp.vdot(g, d)) for g, d in zip(jax.tree.leaves(gradient), directions, strict=True))
            errors[variant, beta] = abs(slope - wanted) / abs(wanted)
    assert 1.8 < errors["positive", 0.01] / errors["positive", 0.005] < 2.2
    assert 3.6 < errors["centered", 0.01] / errors["centered", 0.005] < 4.4
    assert errors["centered", 1e-4] < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("entry", [pytest.param("fields", marks=pytest.mark.slow), "clamps"])
def test_it_keeps_the_contract(entry):
    outputs = (2, "X3") if entry == "fields" else outcomes([2, 3], count=3)
    net = TransverseFieldIsing.from_edges(
        [*EDGES[:4], (0, 3), (1, 4)],
        5,
        coupling=np.array([0.6, -0.4, 0.3, 0.5, -0.2, 0.4]),
        longitudinal_field=np.array([0.2, -0.1, 0.4, 0.3, -0.3]),
        transverse_field=np.array([0.9, -1.1, 1.0, 0.8, 1.2]),
        inputs=(0, 1),
        entry=entry,
        outputs=outputs,
    )
    x = jnp.array([[0.4, -0.6], [1.1, 0.3]])
    y = jnp.array([[0.5, 0.2], [-0.3, 0.7]]) if entry == "fields" else jnp.eye(3)[:2]
    check_substrate(net, x, y).raise_if_failed()


def test_the_two_solvers_agree_on_a_batch():
    net = model(9, outputs=outcomes([0, 5]))
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))
    found = relax_batch(net, xs)
    for k in range(4):
        one = settled(net, xs[k], solver=PRODUCTS)
        np.testing.assert_allclose(found.energy[k], one.energy, atol=1e-12)
        np.testing.assert_allclose(found.state[k], one.state, atol=1e-8)


# building


def test_graphs_lattices_and_tasks():
    graph = nx.cycle_graph(["a", "b", "c", "d"])
    nx.set_edge_attributes(graph, {edge: 0.5 + k for k, edge in enumerate(graph.edges)}, "coupling")
    ring = TransverseFieldIsing.from_networkx(graph, transverse_field=0.7, inputs=["c"], outputs=["d"])
    np.testing.assert_allclose(ring.coupling, [0.5, 1.5, 2.5, 3.5])
    assert ring.inputs == (2,)
    square = TransverseFieldIsing.lattice((2, 3), coupling=0.4)
    assert (square.n, len(square.graph.edges), square.shape) == (6, 7, (2, 3))
    task = TransverseFieldIsing.for_task(4, 3, key=jax.random.key(0))
    shown = task.read(settled(task, jnp.ones(4)).state, jnp.ones(4))
    assert shown.shape == (3,)
    assert 0 < float(jnp.sum(shown)) < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edges": [(0, 0)]}, "self-coupling"),
        ({"edges": [(0, 1), (1, 0)]}, "more than once"),
        ({"edges": [(0, 9)], "n": 3}, "nodes from 0 to 2"),
        ({"coupling": [1.0, 2.0]}, "coupling: wanted one number or shape"),
        ({"coupling": np.nan}, "coupling: wanted finite"),
        ({"transverse_field": [1.0, np.inf, 0.0]}, "transverse_field: wanted finite"),
        ({"longitudinal_field": [1.0]}, "longitudinal_field: wanted one number or shape"),
        ({"coupling": 1j}, "coupling: wanted real"),
        ({"inputs": (0, 0)}, "inputs: wanted each spin once"),
        ({"inputs": (7,), "n": 3}, "inputs: wanted spins from 0"),
        ({"inputs": ("a",)}, "inputs: wanted a sequence of integer"),
        ({"inputs": (0, 1, 2), "entry": "clamps"}, "at least one free spin"),
        ({"entry": "spins"}, "entry: wanted"),
        ({"outputs": ["W1"]}, "bases X, Y or Z"),
        ({"outputs": ["Z1 Z1"]}, "each spin once in a string"),
        ({"outputs": ["Y1"]}, "even number of Y"),
        ({"outputs": ["Z9"]}, "free spins"),
        ({"outputs": ["up"]}, "factors such as"),
        ({"outputs": [1.5]}, "spin number or a name"),
        ({"outputs": [{"Z0": np.nan}]}, "finite weights"),
        ({"outputs": [0], "inputs": (0,), "entry": "clamps"}, "free spins"),
        ({"level": 8}, "level: wanted"),
        ({"n": 0, "edges": np.zeros((0, 2), int)}, "at least one spin"),
        ({"n": 60, "edges": [(0, 1)]}, "GB of memory"),
    ],
)
def test_what_makes_no_model_is_refused(options, message):
    settings = {"edges": [(0, 1), (1, 2), (0, 2)], "coupling": 1.0, "transverse_field": 1.0, **options}
    with pytest.raises(ValueError, match=message):
        TransverseFieldIsing.from_edges(settings.pop("edges"), settings.pop("n", None), **settings)


class Magnet(TransverseFieldIsing):
    """A subclass, to see that every way to build one builds it."""


def test_a_subclass_builds_itself():
    graph = nx.relabel_nodes(nx.path_graph(3), dict(enumerate("abc")))
    labelled = Magnet.from_networkx(graph, coupling=1.0, transverse_field=0.5, outputs=[("X", "b")])
    lattice = Magnet.lattice((2, 3), periodic=True)
    made = [
        Magnet.from_edges([(0, 1)], coupling=1.0, transverse_field=1.0),
        labelled,
        lattice,
        Magnet.chain(3),
        Magnet.for_task(2, 3, key=jax.random.key(0)),
        Magnet.from_qutip(Magnet.chain(3).to_qutip(jnp.zeros(0)).hamiltonian),
    ]
    assert {type(net) for net in made} == {Magnet}
    assert labelled.labels == ("a", "b", "c")
    assert lattice.shape == (2, 3)


def test_wrong_inputs_are_refused():
    net = model(0)
    with pytest.raises(ValueError, match="x: wanted shape"):
        net.relax(jnp.zeros(3))
    with pytest.raises(ValueError, match="beta: wanted a real number"):
        net.relax(jnp.zeros(2), Nudge(SquaredError(), jnp.zeros(4), 0.1j))
    with pytest.raises(ValueError, match="basis: wanted"):
        outcomes([0], "Q")
    with pytest.raises(ValueError, match="spins: wanted"):
        outcomes([0, 0])
    with pytest.raises(ValueError, match="count: wanted"):
        outcomes([0], count=5)
    with pytest.raises(ValueError, match="undirected"):
        TransverseFieldIsing.from_networkx(nx.DiGraph([(0, 1)]), transverse_field=1.0)
    with pytest.raises(ValueError, match="on every edge"):
        TransverseFieldIsing.from_networkx(nx.path_graph(3), transverse_field=1.0)
    with pytest.raises(ValueError, match="labels of nodes"):
        TransverseFieldIsing.from_networkx(nx.path_graph(3), coupling=1.0, transverse_field=1.0, inputs=["q"])
    with pytest.raises(ValueError, match="shape: wanted"):
        TransverseFieldIsing.lattice((2, 0))
    with pytest.raises(ValueError, match="traced"):
        jax.jit(lambda J: TransverseFieldIsing.chain(3, coupling=J).coupling)(1.0)
    with pytest.raises(ValueError, match="sizes: wanted"):
        TransverseFieldIsing.for_task(4, 3, sizes=(1,), key=jax.random.key(0))
