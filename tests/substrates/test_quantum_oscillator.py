"""Quantum oscillators against closed forms, a truncated Fock space, the generic solver, and classical mechanics."""

import equinox as eqx
import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from substrates import QuantumOscillatorNetwork, Status
from substrates.quantum.oscillator import GaussianState
from substrates.quantum.oscillator.modes import pack, unpack
from substrates.quantum.oscillator.thermal import SingleOscillator, matrix_function, trace_of
from substrates.solvers.generic import DescendThenPolish

EDGES = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 3), (1, 4)]
X = jnp.array([0.7, -0.4])
seeds = st.integers(0, 2**31 - 1)

relax = eqx.filter_jit(lambda net, x, nudge=None, start=None, solver=None: net.relax(x, nudge, start, solver=solver))
measure = eqx.filter_jit(lambda net, states, xs: net.measure(states, xs))


def network(seed=0, **options):
    draw = np.random.default_rng(seed)
    given = {
        "inputs": [0, 2],
        "outputs": [3, 4],
        "stiffness": draw.uniform(0.1, 1.5, len(EDGES)),
        "onsite_stiffness": draw.uniform(0.2, 2.0, 5),
        "bias_force": draw.normal(size=5),
        "mass": draw.uniform(0.5, 2.0, 5),
    }
    return QuantumOscillatorNetwork.from_edges(EDGES, 5, **{**given, **options})


def pair(coupling=0.8, **options):
    options = {"inputs": [0], "outputs": [1], "onsite_stiffness": [1.0, 1.4], "mass": [1.0, 1.7], **options}
    return QuantumOscillatorNetwork.from_edges([(0, 1)], 2, stiffness=coupling, **options)


def batched(state):
    return jax.tree.map(lambda leaf: leaf[None], state)


# one oscillator


@settings(max_examples=10)
@given(st.floats(0.05, 20.0), st.floats(0.05, 10.0), st.sampled_from([0.0, 0.3]))  # hbar is static
def test_one_oscillator_is_the_textbook_one(stiffness, mass, hbar):
    alone = QuantumOscillatorNetwork.from_edges(
        [], 1, inputs=[0], outputs=[0], onsite_stiffness=stiffness, mass=mass, hbar=hbar
    )
    found, frequency = relax(alone, jnp.array([2.0])), (stiffness / mass) ** 0.5
    assert found.status == Status.converged
    np.testing.assert_allclose(found.state.mean, [2 / stiffness], rtol=1e-12)
    np.testing.assert_allclose(alone.covariance(found.state), [[hbar / (2 * mass * frequency)]], rtol=1e-12)
    np.testing.assert_allclose(alone.momentum_covariance(found.state), [[hbar * mass * frequency / 2]], rtol=1e-12)
    np.testing.assert_allclose(found.energy, hbar * frequency / 2 - 2 / stiffness, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("hbar", [1.0, 0.0])
def test_a_thermal_variance_tells_its_frequency(hbar):
    one, frequency = SingleOscillator(hbar, 0.7), jnp.logspace(-4, 3, 29)
    s = one.variance(frequency)
    np.testing.assert_allclose(one.frequency(s), frequency, rtol=1e-12)
    step = 1e-4
    slope = lambda function, at: (function(at * (1 + step)) - function(at * (1 - step))) / (2 * step * at)
    np.testing.assert_allclose(slope(one.rest, s), one.rest_slope(s), rtol=1e-6)
    np.testing.assert_allclose(slope(one.rest_slope, s), one.rest_curvature(s), rtol=1e-6)
    variance = lambda squared: one.variance(jnp.sqrt(squared))
    np.testing.assert_allclose(slope(variance, frequency**2), one.variance_slope(frequency**2), rtol=1e-6)


def test_levels_weighted_by_boltzmann_give_the_thermal_variance_and_free_energy():
    for hbar, temperature, frequency in ((1.0, 0.3, 0.8), (0.5, 2.0, 1.3), (2.0, 0.1, 3.0)):
        one = SingleOscillator(hbar, temperature)
        levels = hbar * frequency * (np.arange(4000) + 0.5)
        weight = np.exp(-levels / temperature)
        mean_energy = levels @ weight / weight.sum()
        np.testing.assert_allclose(frequency**2 * one.variance(jnp.array(frequency)), mean_energy, rtol=1e-12)
        np.testing.assert_allclose(
            one.free_energy(jnp.array(frequency)), -temperature * np.log(weight.sum()), rtol=1e-12
        )


# functions of matrices


def test_derivatives_of_matrix_functions_survive_degeneracy():
    matrix, direction = jnp.diag(jnp.array([2.0, 2.0, 2.0, 5.0])), jax.random.normal(jax.random.key(0), (4, 4))
    direction = direction + direction.T
    cube, slope = lambda a: a**3, lambda a: 3 * a**2
    tangent = jax.jvp(lambda m: matrix_function(cube, slope, m), (matrix,), (direction,))[1]
    d, m = direction, matrix
    np.testing.assert_allclose(tangent, d @ m @ m + m @ d @ m + m @ m @ d, rtol=1e-12, atol=1e-10)
    trace = lambda m: trace_of(cube, slope, lambda a: 6 * a, m)
    np.testing.assert_allclose(jax.grad(trace)(matrix), 3 * matrix @ matrix, atol=1e-12)
    second = jax.jvp(jax.grad(trace), (matrix,), (direction,))[1]
    np.testing.assert_allclose(second, 3 * (d @ m + m @ d), rtol=1e-12, atol=1e-10)


def test_a_triangle_is_packed_row_by_row():
    lower = jnp.tril(jnp.arange(1.0, 17.0).reshape(4, 4))
    np.testing.assert_array_equal(pack(lower), [1, 5, 6, 9, 10, 11, 13, 14, 15, 16])
    np.testing.assert_array_equal(unpack(pack(lower), 4), lower)


# ground and thermal states


@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_a_truncated_fock_space_agrees(temperature):
    import qutip

    net = pair(temperature=temperature, bias_force=[0.3, -0.5], drive="anchor", hbar=0.7)
    x = jnp.array([0.4])
    state = relax(net, x).state
    fock = net.to_qutip(30 if temperature else 16, x)
    mean = [qutip.expect(q, fock.state) for q in fock.positions]
    np.testing.assert_allclose(state.mean, mean, atol=1e-8)
    for matrix, operators, centre in (
        (net.covariance(state), fock.positions, mean),
        (net.momentum_covariance(state), fock.momenta, [0.0, 0.0]),
    ):
        wanted = [[qutip.expect(a * b, fock.state).real for b in operators] for a in operators] - np.outer(
            centre, centre
        )
        np.testing.assert_allclose(matrix, wanted, atol=2e-6)
    energy = qutip.expect(fock.hamiltonian, fock.state)
    if temperature:
        energy -= temperature * qutip.entropy_vn(fock.state)
    np.testing.assert_allclose(relax(net, x).energy, energy, atol=2e-6)


@settings(max_examples=6)
@given(seeds)
def test_ground_states_are_pure_and_obey_the_virial_theorem(seed):
    net = network(seed, drive="stiffness")
    found = relax(net, X)
    state, stiffness = found.state, net.stiffness_matrix(X)
    assert found.status == Status.converged
    positions, momenta = net.covariance(state), net.momentum_covariance(state)
    np.testing.assert_allclose(positions @ momenta, np.eye(5) / 4, atol=1e-12)
    np.testing.assert_allclose(stiffness @ state.mean, net.total_bias(X), atol=1e-12)
    kinetic = jnp.trace(momenta / net.mass[None]) / 2
    np.testing.assert_allclose(kinetic, jnp.trace(stiffness @ positions) / 2, rtol=1e-12)
    np.testing.assert_allclose(kinetic, jnp.sum(net.normal_modes(X).frequency) / 4, rtol=1e-12)
    np.testing.assert_allclose(found.energy, net.free_energy(X), rtol=1e-12, atol=1e-12)


def test_heat_adds_fluctuations_and_never_breaks_the_uncertainty_relation():
    cold = network()
    before, free_energies = np.full(5, 0.25), []
    for temperature in (0.05, 3.0):
        net = cold.at_temperature(temperature)
        found = relax(net, X)
        assert found.status == Status.converged
        np.testing.assert_allclose(found.energy, net.free_energy(X), rtol=1e-12)
        products = net.covariance(found.state) @ net.momentum_covariance(found.state)
        symplectic = np.sort(np.linalg.eigvals(products).real)
        assert np.all(symplectic > before - 1e-12)
        frequency = net.normal_modes(X).frequency
        np.testing.assert_allclose(symplectic, np.sort((0.5 / np.tanh(frequency / temperature / 2)) ** 2), rtol=1e-9)
        before = symplectic
        free_energies.append(float(found.energy))
        np.testing.assert_allclose(found.state.mean, relax(cold, X).state.mean, atol=1e-13)
    assert np.all(np.diff([float(cold.free_energy(X)), *free_energies]) < 0)


def test_hot_oscillators_are_classical():
    wanted = 0.5 * np.linalg.inv(network().stiffness_matrix(X))
    classical = relax(network(hbar=0.0, temperature=0.5), X).state
    np.testing.assert_allclose(network(hbar=0.0, temperature=0.5).covariance(classical), wanted, rtol=1e-11)
    warm = network(hbar=1e-4, temperature=0.5)
    np.testing.assert_allclose(warm.covariance(relax(warm, X).state), wanted, rtol=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.4, "drive": "stiffness"},
        {"hbar": 0.0, "temperature": 0.3},
    ],
)
def test_the_generic_solver_finds_the_same_state_from_uncoupled_oscillators(options):
    net = network(**options)
    own, generic = relax(net, X), relax(net, X, None, None, DescendThenPolish())
    assert generic.status == Status.converged
    np.testing.assert_allclose(generic.state.mean, own.state.mean, atol=1e-9)
    np.testing.assert_allclose(net.covariance(generic.state), net.covariance(own.state), atol=1e-9)
    np.testing.assert_allclose(generic.energy, own.energy, rtol=1e-12)


@eqx.filter_jit
def energies_of(net, states):
    return jax.vmap(lambda state: net.energy(state, X))(states)


@pytest.mark.parametrize("temperature", [0.0, 0.4])
def test_no_gaussian_state_has_less_energy(temperature):
    """Trial states of the whole family: the energy is a variational bound."""
    net = network(temperature=temperature)
    found = relax(net, X)
    for size in (1e-3, 0.3):
        trials = jax.tree.map(
            lambda s, h=size: s[None] + h * jax.random.normal(jax.random.key(0), (50, *s.shape)), found.state
        )
        assert jnp.all(energies_of(net, trials) > found.energy)


@pytest.mark.parametrize(
    "options",
    [
        {"drive": "stiffness", "temperature": 0.4},
        {"drive": "anchor"},
        {"hbar": 0.0},
    ],
)
def test_measurements_are_hellmann_feynman(options):
    net = network(**options)
    found = measure(net, batched(relax(net, X).state), X[None])
    wanted = eqx.filter_jit(eqx.filter_grad(lambda net: net.free_energy(X)))(net)
    for name in ("stiffness", "onsite_stiffness", "bias_force"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-9, atol=1e-12)
    assert found.mass is None


def test_springs_measure_their_stretch_and_its_fluctuations():
    net = network()
    state = relax(net, X).state
    i, j = np.asarray(EDGES).T
    stretch, covariance = state.mean[i] - state.mean[j], net.covariance(state)
    spread = np.diagonal(covariance)[i] + np.diagonal(covariance)[j] - 2 * covariance[i, j]
    found = measure(net, batched(state), X[None])
    np.testing.assert_allclose(found.stiffness, (stretch**2 + spread) / 2, rtol=1e-12)
    np.testing.assert_allclose(found.bias_force, -state.mean, rtol=1e-12)


def test_dense_and_sparse_sums_of_springs_agree():
    sparse = QuantumOscillatorNetwork.chain(16, inputs=[0], outputs=[15], stiffness=1.0, onsite_stiffness=0.5)
    every = [(i, j) for i in range(16) for j in range(i + 1, 16)]
    stiffness = np.array([float(j == i + 1) for i, j in every])
    dense = QuantumOscillatorNetwork.from_edges(
        every, 16, inputs=[0], outputs=[15], stiffness=stiffness, onsite_stiffness=0.5
    )
    draw = jax.random.normal(jax.random.key(0), (16 + 136,))
    state = GaussianState(draw[:16], 1 + 0.3 * draw[16:])
    np.testing.assert_allclose(sparse.energy(state, X[:1]), dense.energy(state, X[:1]), rtol=1e-12)
    near = measure(dense, batched(state), X[None, :1]).stiffness[stiffness == 1]
    np.testing.assert_allclose(measure(sparse, batched(state), X[None, :1]).stiffness, near, rtol=1e-12)


# modes and lattices


def test_a_ring_has_the_dispersion_of_phonons():
    ring = QuantumOscillatorNetwork.chain(9, periodic=True, inputs=[], outputs=[0], stiffness=0.7, onsite_stiffness=0.2)
    q = 2 * np.pi * np.arange(9) / 9
    modes = ring.normal_modes()
    np.testing.assert_allclose(modes.frequency, np.sort(np.sqrt(0.2 + 2.8 * np.sin(q / 2) ** 2)), rtol=1e-12)
    np.testing.assert_allclose(modes.shape.T @ (ring.mass[:, None] * modes.shape), np.eye(9), atol=1e-12)


def test_graphs_and_lattices_are_what_they_say():
    square = QuantumOscillatorNetwork.lattice((2, 3), inputs=[0], outputs=[5])
    graph = networkx.grid_2d_graph(2, 3)
    networkx.set_edge_attributes(graph, 1.0, "stiffness")
    same = QuantumOscillatorNetwork.from_networkx(graph, inputs=[(0, 0)], outputs=[(1, 2)])
    x = jnp.array([0.5])
    np.testing.assert_array_equal(square.stiffness_matrix(x), same.stiffness_matrix(x))
    assert (square.n, square.inputs, same.outputs) == (6, (0,), (5,))


class Trap(QuantumOscillatorNetwork):
    """A subclass, to see that every way to build one builds it."""


def test_a_subclass_builds_itself():
    graph = networkx.relabel_nodes(networkx.path_graph(3), dict(enumerate("abc")))
    labelled = Trap.from_networkx(graph, inputs=["a"], outputs=["c"], stiffness=1.0)
    made = [
        Trap.from_edges([(0, 1)], inputs=[0], outputs=[1]),
        labelled,
        Trap.lattice((2, 2), inputs=[0], outputs=[3]),
        Trap.chain(3, inputs=[0], outputs=[2]),
        Trap.for_task(2, 2, key=jax.random.key(0)),
        labelled.with_hbar(0.5).at_temperature(0.1),
    ]
    assert {type(net) for net in made} == {Trap}
    assert labelled.labels == ("a", "b", "c")


# the classical limit


def test_without_hbar_only_the_means_are_left():
    quantum, classical = network(), network().with_hbar(0.0)
    found = relax(classical, X)
    assert found.status == Status.converged
    assert found.state.factor.size == 0
    np.testing.assert_allclose(found.state.mean, relax(quantum, X).state.mean, atol=1e-14)
    energies = [float(quantum.with_hbar(h).free_energy(X)) for h in (1.0, 1e-3, 1e-6)]
    gaps = np.array(energies) - float(found.energy)
    np.testing.assert_allclose(gaps[1:] / gaps[0], [1e-3, 1e-6], rtol=1e-6)


# entanglement


@pytest.mark.parametrize("coupling", [0.0, 0.3, 4.0])
def test_two_equal_oscillators_are_entangled_by_the_ratio_of_their_modes(coupling):
    net = pair(coupling, onsite_stiffness=1.0, mass=1.0)
    state = relax(net, jnp.zeros(1)).state
    found = net.logarithmic_negativity(state, [0], [1])
    np.testing.assert_allclose(found, 0.25 * np.log(1 + 2 * coupling), atol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 0.35])
def test_partial_transposition_in_fock_space_gives_the_same_negativity(temperature):
    import qutip

    net = pair(1.5, temperature=temperature)
    state = relax(net, jnp.zeros(1)).state
    rho = net.to_qutip(22 if temperature else 16).state
    rho = qutip.ket2dm(rho) if rho.isket else rho
    norm = np.abs(np.linalg.eigvalsh(qutip.partial_transpose(rho, [0, 1]).full())).sum()
    np.testing.assert_allclose(net.logarithmic_negativity(state, [0]), np.log(norm), atol=2e-5)


def test_heat_and_distance_end_entanglement():
    net = network()
    state = relax(net, X).state
    whole = net.logarithmic_negativity(state, [0, 1])
    assert whole > net.logarithmic_negativity(state, [0], [1]) > 0
    hot = net.at_temperature(5.0)
    assert hot.logarithmic_negativity(relax(hot, X).state, [0, 1]) == 0
    free = QuantumOscillatorNetwork.from_edges([], 3, inputs=[0], outputs=[2])
    np.testing.assert_allclose(free.logarithmic_negativity(free.relax(X[:1]).state, [0]), 0, atol=1e-12)


# coarse arithmetic


def test_single_precision_settles_near_the_same_place():
    exact = network()
    coarse = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, exact)
    one, other = relax(exact, X), relax(coarse, X.astype(jnp.float32))
    assert other.status == Status.converged
    assert isinstance(other.state, GaussianState)
    assert {leaf.dtype for leaf in other.state} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(other.state.mean, one.state.mean, atol=1e-5)
    np.testing.assert_allclose(other.state.factor, one.state.factor, atol=1e-5)
