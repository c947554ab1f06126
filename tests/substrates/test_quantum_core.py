"""Free fermions, Gibbs states, and what measurements show, against dense matrices and closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from learning import EquilibriumPropagation
from substrates import HamiltonianSubstrate, Pin, Status, TransverseFieldIsing
from substrates.quantum import FreeFermionChain, outcomes, pictures
from substrates.quantum.free_fermions import ring_energy, ring_gap, ring_means
from substrates.quantum.measurement import (
    entanglement_entropy,
    fidelity,
    in_basis,
    sample,
    sampled_measure,
    spin_correlations,
    spin_means,
)
from substrates.substrate import split_parameters
from theory_checks import check_substrate

matplotlib.use("Agg")

seeds = st.integers(0, 2**31 - 1)
NONE = jnp.zeros(0)
linear = lambda output, target: jnp.vdot(output, target)


def open_chain(seed, n=6, **options):
    draw = np.random.default_rng(seed)
    return {
        "coupling": draw.uniform(0.3, 1.3, n - 1) * draw.choice([-1, 1], n - 1),
        "transverse_field": draw.uniform(0.3, 1.3, n) * draw.choice([-1, 1], n),
        **options,
    }


# free fermions


@given(seeds)
def test_the_polar_factor_has_the_energy_the_gap_and_the_correlators_of_the_matrix(seed):
    values = open_chain(seed)
    fermions = FreeFermionChain.chain(6, **values)
    found = fermions.relax(NONE)
    H = np.asarray(TransverseFieldIsing.chain(6, **values).hamiltonian(NONE).matrix())
    levels, vectors = np.linalg.eigh(H)
    assert found.converged
    np.testing.assert_allclose(found.energy, levels[0], atol=1e-12)
    np.testing.assert_allclose(fermions.spectrum(NONE)[-1], levels[1] - levels[0], atol=1e-10)
    ground = jnp.asarray(vectors[:, 0])
    tolerance = 1e-12 / max(levels[1] - levels[0], 1e-6)
    np.testing.assert_allclose(fermions.transverse_means(found.state), spin_means(ground, "X"), atol=tolerance)
    pairs = np.diagonal(spin_correlations(ground), 1)
    np.testing.assert_allclose(fermions.bond_means(found.state), pairs, atol=tolerance)


@pytest.mark.slow
def test_a_chain_of_fermions_keeps_the_contract():
    fermions = FreeFermionChain.chain(4, **open_chain(3, 4, inputs=(1,), outputs=("X2", "Z0 Z1")))
    x, y = jnp.array([[0.3], [-0.2]]), jnp.array([[0.2, 0.5], [-0.4, 0.1]])
    check_substrate(fermions, x, y).raise_if_failed()


def test_the_amplitudes_and_the_fermions_learn_alike():
    values = open_chain(5, 6, outputs=("X2", "Z3 Z4"))
    y, rule = jnp.array([[0.3, -0.4]]), EquilibriumPropagation(0.05, "positive")
    fermions = rule(FreeFermionChain.chain(6, **values), jnp.zeros((1, 0)), y).gradient
    spins = rule(TransverseFieldIsing.chain(6, **values), jnp.zeros((1, 0)), y).gradient
    np.testing.assert_allclose(fermions.coupling, spins.coupling, atol=1e-8)
    np.testing.assert_allclose(fermions.transverse_field, spins.transverse_field, atol=1e-8)


def exact_fermion_gradient(fermions, row, column):
    """dQ_(row, column)/dB, from Sylvester's equation in the bases of the singular vectors."""
    left, singular, right = np.linalg.svd(np.asarray(fermions.matrix(NONE)))
    # dQ = U [(A - A') / (s_i + s_j)] V' with A = U' dB V
    u, v = left[row], right[:, column]
    skew = np.outer(u, v) / (singular[:, None] + singular)
    return left @ (skew - skew.T) @ right


@pytest.mark.parametrize("n", [60, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["X20", "Z20 Z21"])
def test_equilibrium_propagation_is_exact_on_long_chains(n, name):
    draw = np.random.default_rng(1)
    coupling, field = draw.uniform(-1.0, 1.0, n - 1), draw.uniform(0.9, 1.9, n)
    fermions = FreeFermionChain.chain(n, coupling=coupling, transverse_field=field, outputs=(name,))
    found = EquilibriumPropagation(1e-4, cost=linear)(fermions, jnp.zeros((1, 0)), jnp.ones((1, 1))).gradient
    wanted = exact_fermion_gradient(fermions, 20, 20 if name[0] == "X" else 21)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found.transverse_field, np.diagonal(wanted), atol=1e-6 * scale)
    np.testing.assert_allclose(found.coupling, np.diagonal(wanted, 1), atol=1e-6 * scale)


def test_the_critical_chain_has_the_energy_of_the_thermodynamic_limit():
    assert abs(ring_energy(4000) / 4000 + 4 / np.pi) < 1e-7
    energies = [float(FreeFermionChain.chain(n).relax(NONE).energy) for n in (100, 200)]
    assert abs((energies[1] - energies[0]) / 100 + 4 / np.pi) < 1e-4  # the ends cancel


@pytest.mark.parametrize(("coupling", "field"), [(1.0, 1.0), (0.4, 1.1), (1.2, 0.7)])
def test_rings_in_closed_form(coupling, field):
    ring = TransverseFieldIsing.chain(7, periodic=True, coupling=coupling, transverse_field=field)
    levels, vectors = np.linalg.eigh(np.asarray(ring.hamiltonian(NONE).matrix()))
    np.testing.assert_allclose(ring_energy(7, coupling, field), levels[0], atol=1e-12)
    np.testing.assert_allclose(ring_gap(7, coupling, field), levels[1] - levels[0], atol=1e-11)
    x, pair = ring_means(7, coupling, field)
    np.testing.assert_allclose(spin_means(jnp.asarray(vectors[:, 0]), "X"), x, atol=1e-10)
    np.testing.assert_allclose(spin_correlations(jnp.asarray(vectors[:, 0]))[0, 1], pair, atol=1e-10)


def test_a_chain_without_gap_is_reported():
    fermions = FreeFermionChain.chain(4, transverse_field=np.array([0.0, 1.0, 1.0, 1.0]))
    assert fermions.relax(NONE).status == Status.zero_mode


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 1}, "two spins"),
        ({"outputs": ("Z1",)}, "not quadratic"),
        ({"outputs": ("Z0 Z2",)}, "not quadratic"),
        ({"outputs": ("X9",)}, "not quadratic"),
        ({"inputs": (4,)}, "inputs: wanted"),
        ({"coupling": np.nan}, "finite"),
        ({"coupling": np.ones(4)}, "one per bond"),
    ],
)
def test_what_makes_no_chain_of_fermions_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FreeFermionChain.chain(**{"n": 4, **options})
    with pytest.raises(ValueError, match="wanted at least 3 spins"):
        ring_energy(2)
    with pytest.raises(ValueError, match="got a Pin"):
        FreeFermionChain.chain(3, outputs=("X0",)).relax(NONE, Pin(jnp.zeros(1)))
    with pytest.raises(ValueError, match="x: wanted shape"):
        FreeFermionChain.chain(3).relax(jnp.zeros(2))


# Gibbs states


def small(seed, **options):
    draw = np.random.default_rng(seed)
    return TransverseFieldIsing.from_edges(
        [(0, 1), (1, 2), (0, 2)],
        coupling=draw.normal(size=3),
        longitudinal_field=0.5 * draw.normal(size=3),
        transverse_field=draw.uniform(0.4, 1.2, 3),
        **{"inputs": (0,), "outputs": (2, "X1"), **options},
    )


Z2, X1 = np.kron(np.eye(4), np.diag([1.0, -1.0])), np.kron(np.kron(np.eye(2), [[0.0, 1], [1, 0]]), np.eye(2))


def gibbs(H, temperature):
    weight = scipy.linalg.expm(-H / temperature)
    return weight / np.trace(weight), -temperature * np.log(np.trace(weight))


@given(seeds, st.sampled_from([0.3, 1.0, 5.0]))
def test_gibbs_states_have_the_free_energy_and_the_means_of_the_matrix_exponential(seed, temperature):
    ensemble, x = small(seed).ensemble(temperature), jnp.array([0.4])
    found = ensemble.relax(x)
    rho, free_energy = gibbs(np.asarray(ensemble.model.hamiltonian(x).matrix()), temperature)
    assert found.converged
    np.testing.assert_allclose(found.energy, free_energy, atol=1e-10)
    np.testing.assert_allclose(scipy.linalg.expm(np.asarray(found.state)), rho, atol=1e-10)
    wanted = [np.trace(rho @ operator) for operator in (Z2, X1)]
    np.testing.assert_allclose(ensemble.read(found.state, x), wanted, atol=1e-10)


@pytest.mark.slow
def test_gibbs_states_keep_the_contract():
    ensemble = TransverseFieldIsing.from_edges(
        [(0, 1)], coupling=0.7, longitudinal_field=0.2, transverse_field=0.6, inputs=(0,), outputs=("Z1", "X0")
    ).ensemble(0.5)
    x, y = jnp.array([[0.4], [-0.6]]), jnp.array([[0.5, 0.2], [-0.3, 0.7]])
    check_substrate(ensemble, x, y).raise_if_failed()


def test_equilibrium_propagation_has_the_exact_gradient_of_gibbs_states():
    ensemble, x, y = small(4).ensemble(0.4), jnp.array([[0.4]]), np.array([[0.5, -0.2]])

    def loss(step):
        H = np.asarray(ensemble.model.hamiltonian(x[0]).matrix()) - step * X1
        rho, _ = gibbs(H, 0.4)
        return 0.5 * sum((np.trace(rho @ o) - t) ** 2 for o, t in zip((Z2, X1), y[0], strict=True))

    slope = lambda h: (loss(h) - loss(-h)) / (2 * h)
    wanted = (4 * slope(5e-4) - slope(1e-3)) / 3
    run = jax.jit(
        lambda beta: EquilibriumPropagation(beta)(ensemble, x, jnp.asarray(y)).gradient.model.transverse_field[1]
    )
    errors = [abs(float(run(beta)) / wanted - 1) for beta in (0.04, 0.02, 3e-4)]
    assert 3.6 < errors[0] / errors[1] < 4.4
    assert errors[2] < 1e-6


def test_senseless_ensembles_are_refused():
    with pytest.raises(ValueError, match="temperature: wanted"):
        small(0).ensemble(0.0)
    with pytest.raises(ValueError, match="at most 1024 amplitudes"):
        TransverseFieldIsing.chain(11).ensemble(1.0)
    with pytest.raises(ValueError, match="got a Pin"):
        small(0).ensemble(1.0).relax(jnp.zeros(1), Pin(jnp.zeros(2)))


# measurements


def random_state(seed, n=5):
    v = np.random.default_rng(seed).normal(size=2**n)
    return jnp.asarray(v / np.linalg.norm(v))


def test_means_and_correlations_are_those_of_the_operators():
    state = random_state(0)
    for basis in ("Z", "X"):
        names = [[f"{basis}{i} {basis}{j}" if i != j else "" for j in range(5)] for i in range(5)]
        net = TransverseFieldIsing.chain(5, outputs=[name for row in names for name in row])
        wanted = net.read(state, NONE).reshape(5, 5)
        np.testing.assert_allclose(spin_correlations(state, basis), wanted, atol=1e-12)
        means = TransverseFieldIsing.chain(5, outputs=[f"{basis}{i}" for i in range(5)]).read(state, NONE)
        np.testing.assert_allclose(spin_means(state, basis), means, atol=1e-12)
        np.testing.assert_allclose(
            spin_correlations(state, basis, connected=True), wanted - np.outer(means, means), atol=1e-12
        )


def test_entanglement_fidelity_and_bases():
    bell = jnp.array([1.0, 0, 0, 1.0]) / np.sqrt(2)
    np.testing.assert_allclose(entanglement_entropy(bell, [0]), np.log(2), atol=1e-12)
    product = jnp.kron(jnp.array([0.6, 0.8]), jnp.array([0.8, -0.6]))
    np.testing.assert_allclose(entanglement_entropy(product, [1]), 0, atol=1e-12)
    state = random_state(1)
    np.testing.assert_allclose(entanglement_entropy(state, [0, 3]), entanglement_entropy(state, [1, 2, 4]), atol=1e-12)
    rho = np.asarray(state).reshape(2, 16) @ np.asarray(state).reshape(2, 16).T
    p = np.linalg.eigvalsh(rho)
    np.testing.assert_allclose(entanglement_entropy(state, [0]), -np.sum(p * np.log(p)), atol=1e-12)
    np.testing.assert_allclose(in_basis(in_basis(state, "X"), "X"), state, atol=1e-12)
    np.testing.assert_allclose(fidelity(state, -3 * state), 1, atol=1e-12)
    np.testing.assert_allclose(fidelity(bell, product), ((0.48 - 0.48) ** 2) / 2, atol=1e-12)


def test_shots_converge_as_one_over_the_square_root_of_their_number():
    net, x = small(2), jnp.array([0.3])
    state = net.relax(x).state
    exact = net.measure(state[None], x[None])
    errors = {}
    for shots in (16, 256):
        estimate = jax.vmap(lambda key, shots=shots: sampled_measure(net, state, x, shots, key=key))
        drawn = jax.jit(estimate)(jax.random.split(jax.random.key(shots), 400))
        for name in ("coupling", "longitudinal_field", "transverse_field"):
            found, wanted = np.asarray(getattr(drawn, name)), np.asarray(getattr(exact, name))
            deviation = np.sqrt((1 - wanted**2) / shots)
            assert np.all(np.abs(found.mean(axis=0) - wanted) < 5 * deviation / 20)
            np.testing.assert_allclose(found.std(axis=0), deviation, rtol=0.2)
            errors[name, shots] = found.std(axis=0)
    for name in ("coupling", "longitudinal_field", "transverse_field"):
        np.testing.assert_allclose(errors[name, 16] / errors[name, 256], 4, rtol=0.3)


def test_samples_are_outcomes_and_clamped_spins_show_what_they_are_given():
    net = small(2, entry="clamps")
    x = jnp.array([0.3])
    state = net.relax(x).state
    outcome = sample(state, 50, "X", key=jax.random.key(0))
    assert outcome.shape == (50, 2)
    assert set(np.unique(outcome)) <= {-1.0, 1.0}
    drawn = sampled_measure(net, state, x, 20000, key=jax.random.key(1))
    exact = net.measure(state[None], x[None])
    for found, wanted in zip(jax.tree.leaves(drawn), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(found, wanted, atol=0.04)
    with pytest.raises(ValueError, match="shots: wanted"):
        sample(state, 0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="basis: wanted"):
        sample(state, 5, "Y", key=jax.random.key(0))
    with pytest.raises(ValueError, match="spins: wanted"):
        entanglement_entropy(state, [0, 0])
    with pytest.raises(ValueError, match="amplitudes of n spins"):
        spin_means(jnp.ones(5))


def test_outcomes_are_probabilities_in_both_bases():
    state = random_state(3)
    for basis in ("Z", "X"):
        net = TransverseFieldIsing.chain(5, outputs=outcomes([3, 1], basis))
        squares = np.asarray(in_basis(state, basis)).reshape((2,) * 5) ** 2
        wanted = squares.sum(axis=(0, 2, 4)).T.ravel()
        np.testing.assert_allclose(net.read(state, NONE), wanted, atol=1e-12)


# pictures


def test_pictures_show_the_numbers():
    net = TransverseFieldIsing.lattice((2, 3), coupling=0.6, transverse_field=0.8, longitudinal_field=0.3, inputs=(0,))
    x = jnp.array([0.5])
    state = net.relax(x).state
    ax = net.draw(state, x)
    np.testing.assert_allclose(ax.collections[1].get_array(), spin_means(state))
    assert len(ax.collections[0].get_segments()) == 7
    assert net.draw(ax=ax) is ax
    np.testing.assert_allclose(pictures.magnetisation(net, state).images[0].get_array().ravel(), spin_means(state))
    wanted = spin_correlations(state, "X", connected=True)
    np.testing.assert_allclose(pictures.correlations(net, state, "X").images[0].get_array(), wanted)
    chain = TransverseFieldIsing.chain(4, transverse_field=0.8, longitudinal_field=0.1)
    ground = chain.relax(NONE).state
    heights = [bar.get_height() for bar in pictures.magnetisation(chain, ground, "X").patches]
    np.testing.assert_allclose(heights, spin_means(ground, "X"))
    matplotlib.pyplot.close("all")


# parameters that vanish, rows of H that are equal


def equal_rows():
    operator = TransverseFieldIsing.chain(2).hamiltonian(NONE).matrix()
    return HamiltonianSubstrate.from_operators([np.asarray(operator), np.diag([1.0, 0, 0, -1])], [1.0, 0.0])


@pytest.mark.parametrize(
    "net",
    [TransverseFieldIsing.chain(2), equal_rows(), TransverseFieldIsing.chain(2).ensemble(0.7)],
    ids=["spins", "operators", "ensemble"],
)
def test_the_energy_of_any_state_is_smooth_in_parameters_that_vanish(net):
    """Fields are 0 by default; states off the norm feel a size of H, whose slope must not jump there."""
    draw = np.random.default_rng(2)
    state = jnp.asarray(draw.normal(size=jnp.shape(net.initial_state(NONE))))
    measured = net.measure(state[None], NONE[None])
    leaves, tree = jax.tree.flatten(split_parameters(net)[0])
    towards = [jnp.asarray(draw.normal(size=leaf.shape)) for leaf in leaves]
    slope = sum(jnp.vdot(m, d) for m, d in zip(jax.tree.leaves(measured), towards, strict=True))
    rest = split_parameters(net)[1]

    def energy(step):
        moved = [leaf + step * d for leaf, d in zip(leaves, towards, strict=True)]
        return eqx.combine(jax.tree.unflatten(tree, moved), rest).energy(state, NONE)

    for sign in (1, -1):  # from either side: Richardson's differences of second order
        one_sided = (4 * energy(sign * 5e-6) - energy(sign * 1e-5) - 3 * energy(0.0)) / (sign * 1e-5)
        np.testing.assert_allclose(one_sided, slope, rtol=1e-8)
