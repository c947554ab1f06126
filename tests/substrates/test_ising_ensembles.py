"""Spins at a temperature against closed forms: Boltzmann weights, chains and lattices of Ising, Onsager and Kaufman."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning import EquilibriumPropagation, FluctuationResponse, SquaredError
from substrates import IsingModel, Nudge, Pin, Status
from substrates.classical.ising.clusters import Clusters
from substrates.classical.ising.onsager import (
    onsager_energy,
    onsager_magnetisation,
    torus_energy,
)
from substrates.substrate import relax_batch
from theory_checks import SealedSubstrate, check_substrate

EDGES = np.array([(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (3, 4)])
FREE = 4


class Overlap(eqx.Module):
    """C = -<output, target>: the squared error of single spins, up to a constant."""

    separable = True

    def __call__(self, output, target):
        return -output @ target


overlap = Overlap()
run = eqx.filter_jit(lambda rule, *arguments, **options: rule(*arguments, **options))
relax = eqx.filter_jit(lambda system, x, nudge=None, start=None, key=None: system.relax(x, nudge, start, key=key))


def spins(seed, scale=0.6):
    draw = np.random.default_rng(seed)
    coupling, field = scale * draw.normal(size=6), scale * draw.normal(size=5)
    return IsingModel.from_edges(EDGES, 5, coupling=coupling, field=field, inputs=[0], outputs=[2, 4])


def boltzmann(net, x, temperature, y=None, beta=0.0):
    """(configurations, weights, conjugates dE/dJ and dE/dh, cost), in numpy."""
    s = np.array([(float(x[0]), *rest) for rest in itertools.product([-1.0, 1.0], repeat=FREE)])
    i, j = EDGES.T
    pairs, cost = s[:, i] * s[:, j], 0.5 * np.sum((s[:, [2, 4]] - (0 if y is None else np.asarray(y))) ** 2, axis=1)
    energy = -pairs @ np.asarray(net.coupling.weight) - s @ np.asarray(net.field)
    weight = np.exp(-(energy + beta * cost) / temperature)
    return s, weight, -pairs, -s, cost, energy


X, Y = jnp.array([0.8]), jnp.array([1.0, -1.0])


@given(st.integers(0, 2**31 - 1), st.sampled_from([0.3, 1.0, 4.0]), st.sampled_from([-0.7, 0.0, 1.5]))
def test_the_exact_ensemble_has_boltzmann_weights(seed, temperature, beta):
    net = spins(seed)
    system = eqx.tree_at(lambda e: e.temperature, net.ensemble(1.0), jnp.asarray(temperature))
    found = relax(system, X, Nudge(SquaredError(), Y, jnp.asarray(beta)))
    s, weight, *_ = boltzmann(net, X, temperature, Y, beta)
    p = weight / weight.sum()
    configurations = np.asarray(system.configurations())
    order = np.lexsort(configurations.T[::-1])
    np.testing.assert_array_equal(configurations[order], s[:, 1:])
    np.testing.assert_allclose(jax.nn.softmax(found.state)[order], p, rtol=1e-9)
    np.testing.assert_allclose(found.energy, -temperature * np.log(weight.sum()), rtol=1e-9)
    np.testing.assert_allclose(system.read(found.state, X), p @ s[:, [2, 4]], atol=1e-12)
    assert found.converged


@pytest.mark.slow
def test_the_laws_hold_for_an_ensemble():
    system = spins(1).ensemble(0.9)
    xs, ys = jnp.array([[0.8], [-0.5]]), jnp.array([[1.0, -1.0], [0.5, 0.2]])
    report = check_substrate(system, xs, ys, cost=overlap)
    report.raise_if_failed()
    assert sum(law.verdict == "holds" for law in report.laws) >= 20


@pytest.mark.parametrize("cost", [SquaredError(), overlap], ids=["squared", "overlap"])
def test_stochastic_propagation_has_the_covariance_gradient(cost):
    """One-sided slopes 1, centred 2, and the limit is -(1/T) Cov(C, dE/dtheta)."""
    net, temperature = spins(2), 0.7
    s, weight, by_coupling, by_field, squared, _ = boltzmann(net, X, temperature, Y)
    p = weight / weight.sum()
    c = squared if isinstance(cost, SquaredError) else -s[:, [2, 4]] @ np.asarray(Y)
    covariance = lambda conjugate: -((p * c) @ conjugate - (p @ c) * (p @ conjugate)) / temperature
    exact = np.concatenate([covariance(by_coupling), covariance(by_field)])
    system = net.ensemble(temperature)
    errors = {}
    for variant in ("positive", "centered"):
        for beta in (0.04, 0.02):
            rule = EquilibriumPropagation(jnp.asarray(beta), variant, cost)
            gradient = run(rule, system, X[None], Y[None]).gradient.model
            found = np.concatenate([gradient.coupling.weight, gradient.field])
            errors[variant, beta] = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert errors["centered", 0.02] < 1e-3
    np.testing.assert_allclose(errors["positive", 0.04] / errors["positive", 0.02], 2.0, atol=0.1)
    np.testing.assert_allclose(errors["centered", 0.04] / errors["centered", 0.02], 4.0, atol=0.1)


def test_at_low_temperature_the_ensemble_is_the_ground_state():
    net = spins(3)
    ground = net.relax(X)
    for nudge in (None, Nudge(SquaredError(), Y, jnp.asarray(0.8))):
        cold = relax(net.ensemble(1e-4), X, nudge)
        wanted = relax(net, X, nudge)
        np.testing.assert_allclose(cold.energy, wanted.energy, atol=1e-9)
        np.testing.assert_allclose(net.ensemble(1e-4).read(cold.state, X), net.read(wanted.state, X), atol=1e-9)
    assert ground.converged
    narrow = lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf
    single = relax(jax.tree.map(narrow, net.ensemble(1e-4)), X.astype(jnp.float32))
    assert single.converged


def chain_energy(n, coupling, temperature):
    """The mean energy of a closed chain, from the eigenvalues of its transfer matrix."""
    t = np.tanh(coupling / temperature)
    return -n * coupling * (t + t ** (n - 1)) / (1 + t**n)


def test_a_closed_chain_has_the_energy_of_its_transfer_matrix():
    n, coupling, temperature = 9, 0.8, 1.1
    net = IsingModel.lattice((n,), coupling=coupling, periodic=True)
    found = net.ensemble(temperature).relax(jnp.zeros(0))
    p, levels = jax.nn.softmax(found.state), net.ensemble(temperature).levels(jnp.zeros(0))
    np.testing.assert_allclose(p @ levels, chain_energy(n, coupling, temperature), rtol=1e-12)
    z = (2 * np.cosh(coupling / temperature)) ** n + (2 * np.sinh(coupling / temperature)) ** n
    np.testing.assert_allclose(found.energy, -temperature * np.log(z), rtol=1e-12)


def test_kaufmans_torus_is_the_sum_over_all_configurations():
    for shape, temperature in (((3, 4), 2.1), ((4, 4), 1.3), ((3, 3), 5.0)):
        net = IsingModel.lattice(shape, periodic=True)
        system = net.ensemble(temperature)
        p = jax.nn.softmax(system.relax(jnp.zeros(0)).state)
        mean = float(p @ system.levels(jnp.zeros(0))) / np.prod(shape)
        np.testing.assert_allclose(torus_energy(shape, temperature), mean, rtol=1e-9)


def test_onsager_is_the_limit_of_kaufman_and_has_the_known_values():
    np.testing.assert_allclose(torus_energy((64, 64), 1.8), onsager_energy(1.8), rtol=1e-8)
    np.testing.assert_allclose(torus_energy((64, 64), 4.0), onsager_energy(4.0), rtol=1e-8)
    critical = 2 / np.log(1 + 2**0.5)
    np.testing.assert_allclose(onsager_energy(critical), -(2**0.5), atol=1e-6)
    assert onsager_magnetisation(critical + 1e-9) == 0
    np.testing.assert_allclose(onsager_magnetisation(1.0), 0.99927577, atol=1e-8)  # Yang 1952's formula by hand


@pytest.mark.parametrize("update", ["heat bath", "metropolis", "clusters"])
@pytest.mark.parametrize("beta", [0.0, 1.5])
def test_samples_have_the_means_of_the_exact_ensemble(update, beta):
    net, temperature = spins(4), 0.9
    system = net.sampled(temperature, chains=2048, draws=4, burn_in=80, thinning=8, update=update)
    nudge = Nudge(SquaredError(), Y, jnp.asarray(beta))
    found = relax(system, X, nudge, None, jax.random.key(5))
    s, weight, *_, energy = boltzmann(net, X, temperature, Y, beta)
    p = weight / weight.sum()
    cost = boltzmann(net, X, temperature, Y)[4]
    samples = np.asarray(found.state).reshape(-1, FREE)
    error = 5 / np.sqrt(samples.shape[0] / 3)
    np.testing.assert_allclose(samples.mean(axis=0), p @ s[:, 1:], atol=error)
    wanted = p @ (s[:, 1:, None] * s[:, None, 1:]).reshape(-1, FREE**2)
    pairs = (samples[:, :, None] * samples[:, None, :]).reshape(-1, FREE**2)
    np.testing.assert_allclose(pairs.mean(axis=0), wanted, atol=error)
    np.testing.assert_allclose(found.energy, p @ (energy + beta * cost), atol=3 * error)
    assert found.status == Status.truncated
    assert 0 < float(found.residual) < 0.05


def test_layers_are_sampled_like_their_exact_ensemble():
    net = IsingModel.layered((3, 4, 2), key=jax.random.key(1), copies=2, levels=(0.0, 1.0))
    x, y, temperature = jnp.array([0.5, -1.0, 0.3]), jnp.array([1.0, 0.0]), 0.8
    for nudge in (None, Nudge(SquaredError(), y, jnp.asarray(2.0))):
        exact = net.ensemble(temperature)
        wanted = exact.read(relax(exact, x, nudge).state, x)
        system = net.sampled(temperature, chains=2048, draws=4, burn_in=40, thinning=3)
        shown = system.read(relax(system, x, nudge, None, jax.random.key(2)).state, x)
        np.testing.assert_allclose(shown, wanted, atol=0.5 * 5 / np.sqrt(2 * 2048))


def test_clusters_are_the_connected_parts_of_the_bonds():
    import scipy.sparse.csgraph

    net = IsingModel.lattice((6, 7), periodic=True)
    clusters = Clusters(net.sweeps(jnp.zeros(0), None))
    bonds = np.random.default_rng(0).random((84, 5)) < 0.45
    labels = np.asarray(clusters.labels(jnp.asarray(bonds), 42))
    for replica in range(5):
        i, j = (end[bonds[:, replica]] for end in clusters.coupled.places)
        matrix = scipy.sparse.coo_array((np.ones(i.size), (i, j)), shape=(42, 42))
        parts = scipy.sparse.csgraph.connected_components(matrix, directed=False)[1]
        first = np.array([np.flatnonzero(parts == part)[0] for part in parts])
        np.testing.assert_array_equal(labels[:, replica], first)


@pytest.mark.parametrize("temperature", [2.0, 3.0])
def test_a_lattice_at_a_temperature_has_onsagers_energy_and_magnetisation(temperature):
    net = IsingModel.lattice((16, 16), periodic=True)
    system = net.sampled(temperature, chains=64, draws=40, burn_in=60, thinning=1, update="clusters")
    found = relax(system, jnp.zeros(0), None, None, jax.random.key(1))
    energies = np.asarray(system.of_each(lambda s: net.energy(s, jnp.zeros(0)), found.state)).mean(axis=0) / 256
    error = energies.std(ddof=1) / 8
    assert abs(energies.mean() - torus_energy((16, 16), temperature)) < 4 * error
    assert error < 0.01
    if temperature < 2.269:
        magnetisation = np.abs(np.asarray(found.state).mean(axis=2)).mean(axis=0)
        wanted = onsager_magnetisation(temperature)
        assert abs(magnetisation.mean() - wanted) < 4 * magnetisation.std(ddof=1) / 8 + 1e-3


def test_common_random_numbers_keep_free_and_nudged_chains_together():
    net = spins(5)
    system = net.sampled(1.0, chains=64, draws=8)
    key = jax.random.key(3)
    free = relax(system, X, None, None, key)
    nudge = Nudge(SquaredError(), Y, jnp.asarray(0.02))
    same = relax(system, X, nudge, free.state, key)
    other = relax(system, X, nudge, free.state, jax.random.key(4))
    assert float(jnp.mean(same.state != free.state)) < 0.05
    assert float(jnp.mean(other.state != free.state)) > 0.2


def test_learning_from_fluctuations_alone():
    net, temperature = spins(2), 0.7
    _, weight, by_coupling, by_field, cost, _ = boltzmann(net, X, temperature, Y)
    p = weight / weight.sum()
    covariance = lambda conjugate: -((p * cost) @ conjugate - (p @ cost) * (p @ conjugate)) / temperature
    system = SealedSubstrate(net.sampled(temperature, chains=1, draws=1, burn_in=30))
    rule = FluctuationResponse(temperature, samples=64)
    many = [run(rule, system, X[None], Y[None], key=jax.random.key(k)) for k in range(40)]
    gradients = [jax.tree.leaves(e.gradient) for e in many]
    for index, wanted in enumerate((covariance(by_coupling), covariance(by_field))):
        found = np.stack([g[index] for g in gradients])
        error = found.std(axis=0, ddof=1) / np.sqrt(len(many)) + 1e-12
        assert np.all(np.abs(found.mean(axis=0) - wanted) < 5 * error)
    cost_error = np.std([float(e.cost) for e in many], ddof=1) / np.sqrt(len(many))
    assert abs(np.mean([float(e.cost) for e in many]) - p @ cost) < 5 * cost_error
    assert many[0].relaxations == 64


def test_a_sampled_ensemble_learns():
    """Two coins that should agree with their inputs' product: the mean cost falls by nudges on samples."""
    net = IsingModel.layered((2, 4, 1), key=jax.random.key(0), levels=(-1.0, 1.0))
    x = jnp.array([[-1.0, -1.0], [1.0, 1.0]])
    y = jnp.array([[-1.0], [1.0]])
    system, rule = (
        net.sampled(0.5, chains=32, draws=4, burn_in=60, thinning=4),
        EquilibriumPropagation(jnp.asarray(0.3)),
    )
    step = eqx.filter_jit(
        lambda system, key: jax.tree.map(
            lambda leaf, g: leaf - 0.3 * g, system, eqx.combine(rule(system, x, y, key=key).gradient, _zeros(system))
        )
    )
    before = float(run(rule, system, x, y, key=jax.random.key(9)).cost)
    for k in range(40):
        system = step(system, jax.random.key(k))
    after = run(rule, system, x, y, key=jax.random.key(9))
    assert float(after.cost) < 0.3 * before
    assert int(after.unconverged) == 6  # truncated by request, counted, and usable
    assert int(after.unusable) == 0


def _zeros(system):
    return jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_inexact_array(leaf) else leaf, system)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: spins(0).ensemble(0.0), "temperature: wanted a positive number, in units of the couplings, got 0.0"),
        (lambda: spins(0).ensemble(-1.0), "temperature: wanted a positive number"),
        (lambda: spins(0).sampled(float("nan")), "temperature: wanted a positive number"),
        (lambda: IsingModel.lattice((5, 5)).ensemble(1.0), "model: wanted at most 20 free spins to enumerate, got 25"),
        (lambda: spins(0).sampled(1.0, chains=0), "chains: wanted a whole number, at least 1, got 0"),
        (lambda: spins(0).sampled(1.0, thinning=0), "thinning: wanted a whole number, at least 1, got 0"),
        (lambda: spins(0).sampled(1.0, update="wolff"), "update: wanted one of .* got 'wolff'"),
        (
            lambda: IsingModel.layered((2, 3, 1), key=jax.random.key(0)).sampled(1.0, update="clusters").relax(X),
            "x: wanted shape",
        ),
        (
            lambda: IsingModel.layered((1, 3, 1), key=jax.random.key(0)).sampled(1.0, update="clusters").relax(X),
            "update: wanted spins on a graph for cluster updates, got layers",
        ),
        (lambda: spins(0).ensemble(1.0).relax(X, Pin(Y)), "nudge: wanted a Nudge or None, got a Pin"),
        (lambda: spins(0).sampled(1.0).relax(X, Pin(Y)), "nudge: wanted a Nudge or None, got a Pin"),
        (lambda: FluctuationResponse(0.0), "temperature: wanted a positive number, got 0.0"),
        (lambda: FluctuationResponse(1.0, samples=1), "samples: wanted a whole number, at least 2"),
        (
            lambda: FluctuationResponse(1.0)(spins(0).sampled(1.0, chains=1, draws=1), X[None], Y[None]),
            "key: wanted a key, which draws the thermal samples, got None",
        ),
    ],
)
def test_what_makes_no_ensemble_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_batches_of_ensembles():
    system = spins(6).sampled(1.0, chains=8, draws=4)
    xs = jnp.array([[0.5], [-0.5], [1.0]])
    keys = jax.random.split(jax.random.key(0), 3)
    found = relax_batch(system, xs, keys=keys)
    assert found.state.shape == (3, 4, 8, FREE)
    one = relax(system, xs[1], None, None, keys[1])
    np.testing.assert_array_equal(one.state, found.state[1])
