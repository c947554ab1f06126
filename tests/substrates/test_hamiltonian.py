"""Hamiltonians of given operators, real and complex, and the way to QuTiP and back."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qutip

from learning import EquilibriumPropagation, SquaredError
from substrates import Nudge, Status, TransverseFieldIsing
from substrates.quantum import HamiltonianSubstrate
from substrates.quantum.eigensolvers import EigenstateSolver
from theory_checks import check_substrate

NONE = jnp.zeros(0)
DENSE, PRODUCTS = EigenstateSolver(), EigenstateSolver(dense=0)
relax = eqx.filter_jit(lambda net, x, nudge, start, solver: net.relax(x, nudge, start, solver=solver))
estimate = eqx.filter_jit(lambda rule, net, x, y: rule(net, x, y))


def place(op, *spins, n=3):
    return qutip.tensor([op if i in spins else qutip.qeye(2) for i in range(n)])


X, Y, Z = qutip.sigmax(), qutip.sigmay(), qutip.sigmaz()
EXCHANGE = [sum(place(op, i, i + 1) for op in (X, Y, Z)) for i in range(2)]
TWIST = [qutip.tensor(X, Y, qutip.qeye(2)) - qutip.tensor(Y, X, qutip.qeye(2))]  # Dzyaloshinskii and Moriya's, complex
FIELD = 0.3 * place(Z, 0) + 0.2 * place(X, 2) + 0.15 * place(Y, 1)


def magnet(level=0, **options):
    """Three spins with exchange and a twist: a complex Hamiltonian without degeneracy."""
    return HamiltonianSubstrate.from_operators(
        EXCHANGE + TWIST,
        [0.6, -0.9, 0.5],
        **{"base": FIELD, "drives": [place(Z, 1)], "outputs": [place(Z, 2), place(Y, 0)], "level": level, **options},
    )


def dense(net, x):
    base, terms = FIELD.full(), [op.full() for op in EXCHANGE + TWIST]
    return base + sum(float(w) * A for w, A in zip(net.weight, terms, strict=True)) + float(x[0]) * place(Z, 1).full()


def cluster_chain(n, weight, **options):
    """Z X Z on neighbours, X X of neighbours, and X on each: three trainable strengths."""
    at = lambda **given: qutip.tensor([given.get(f"s{i}", qutip.qeye(2)) for i in range(n)])
    terms = [
        -sum(at(**{f"s{i - 1}": Z, f"s{i}": X, f"s{i + 1}": Z}) for i in range(1, n - 1)),
        -sum(at(**{f"s{i}": Z, f"s{i + 1}": Z}) for i in range(n - 1)),
        -sum(at(**{f"s{i}": X}) for i in range(n)),
    ]
    return HamiltonianSubstrate.from_operators(terms, weight, **options), terms


@pytest.mark.parametrize("solver", [DENSE, PRODUCTS], ids=["dense", "products"])
@pytest.mark.parametrize("level", [0, 2])
def test_complex_operators_have_the_levels_and_means_of_their_matrix(solver, level):
    net, x = magnet(level), jnp.array([0.4])
    found = relax(net, x, None, None, solver)
    levels, vectors = np.linalg.eigh(dense(net, x))
    assert found.converged
    np.testing.assert_allclose(found.energy, levels[level], atol=1e-12)
    psi = vectors[:, level]
    assert abs(psi.conj() @ np.asarray(net.amplitudes(found.state))) > 1 - 1e-12
    wanted = [np.real(psi.conj() @ op.full() @ psi) for op in (place(Z, 2), place(Y, 0))]
    np.testing.assert_allclose(net.read(found.state, x), wanted, atol=1e-9)


def test_phases_do_not_drift():
    net, x = magnet(), jnp.array([0.4])
    for solver in (DENSE, PRODUCTS):
        free = relax(net, x, None, None, solver).state
        moved = relax(net, x, Nudge(SquaredError(), jnp.array([0.2, 0.1]), jnp.asarray(1e-3)), free, solver).state
        assert float(jnp.linalg.norm(moved - free)) < 1e-2
        assert abs(float(jnp.vdot(net.gauge(x), moved))) < 1e-10


def test_complex_systems_keep_the_contract():
    x, y = jnp.array([[0.4], [-0.2]]), jnp.array([[0.5, 0.2], [-0.3, 0.1]])
    check_substrate(magnet(), x, y).raise_if_failed()


@pytest.mark.parametrize("level", [0, 1])
def test_equilibrium_propagation_has_the_exact_gradient_of_complex_systems(level):
    net, x, y = magnet(level), jnp.array([[0.4]]), np.array([[0.5, 0.2]])
    outputs = [place(Z, 2).full(), place(Y, 0).full()]

    def loss(k, step):
        moved = eqx.tree_at(lambda n: n.weight, net, net.weight.at[k].add(step))
        psi = np.linalg.eigh(dense(moved, x[0]))[1][:, level]
        return 0.5 * sum((np.real(psi.conj() @ o @ psi) - t) ** 2 for o, t in zip(outputs, y[0], strict=True))

    slope = lambda k, h: (loss(k, h) - loss(k, -h)) / (2 * h)
    wanted = np.array([(4 * slope(k, 5e-4) - slope(k, 1e-3)) / 3 for k in range(3)])
    found = estimate(EquilibriumPropagation(jnp.asarray(2e-4)), net, x, jnp.asarray(y)).gradient.weight
    np.testing.assert_allclose(found, wanted, atol=2e-6 * np.abs(wanted).max())


def test_a_degenerate_level_of_a_complex_system_is_reported():
    free = HamiltonianSubstrate.from_operators([place(Y, 0)], 1.0, outputs=[place(Z, 1)])  # spins 1 and 2 are idle
    for solver in (DENSE, PRODUCTS):
        assert relax(free, NONE, None, None, solver).status == Status.zero_mode
    assert relax(magnet(), jnp.array([0.4]), None, None, PRODUCTS).converged


def test_a_cluster_chain_has_the_ground_state_that_qutip_finds():
    net, terms = cluster_chain(6, [1.0, 0.4, 0.3], outputs=[place(X, 2, n=6)])
    H = sum(w * A for w, A in zip([1.0, 0.4, 0.3], terms, strict=True)) + 0.0
    energy, ground = H.groundstate()
    biased, _ = cluster_chain(6, [1.0, 0.4, 0.3], base=0.05 * place(Z, 0, n=6), outputs=[place(X, 2, n=6)])
    found = relax(net, NONE, None, None, DENSE)
    np.testing.assert_allclose(found.energy, energy, atol=1e-10)
    H = H + 0.05 * place(Z, 0, n=6)
    energy, ground = H.groundstate()
    found = relax(biased, NONE, None, None, PRODUCTS)
    np.testing.assert_allclose(found.energy, energy, atol=1e-10)
    np.testing.assert_allclose(biased.read(found.state, NONE)[0], qutip.expect(place(X, 2, n=6), ground), atol=1e-7)


def test_it_agrees_with_spins_in_a_transverse_field_and_their_gibbs_states():
    spins = TransverseFieldIsing.chain(3, coupling=0.7, longitudinal_field=0.2, transverse_field=0.5, outputs=[1])
    terms = [place(Z, 0, 1) + place(Z, 1, 2), place(X, 0) + place(X, 1) + place(X, 2)]
    net = HamiltonianSubstrate.from_operators(
        terms, [-0.7, -0.5], base=-0.2 * sum(place(Z, i) for i in range(3)), outputs=[place(Z, 1)]
    )
    assert not net.is_complex
    found, wanted = net.relax(NONE), spins.relax(NONE)
    np.testing.assert_allclose(found.energy, wanted.energy, atol=1e-12)
    np.testing.assert_allclose(net.read(found.state, NONE), spins.read(wanted.state, NONE), atol=1e-10)
    found, wanted = net.ensemble(0.6).relax(NONE), spins.ensemble(0.6).relax(NONE)
    np.testing.assert_allclose(found.energy, wanted.energy, atol=1e-12)


# to QuTiP and back


def spins(**options):
    draw = np.random.default_rng(0)
    return TransverseFieldIsing.from_edges(
        [(0, 1), (1, 2), (0, 3), (2, 3)],
        coupling=draw.normal(size=4),
        longitudinal_field=draw.normal(size=4),
        transverse_field=draw.normal(size=4),
        **{"inputs": (1,), "outputs": (2, "X0 Z1", "Y0 Y3", {"": 0.5, "Z0": 0.5}), **options},
    )


@pytest.mark.parametrize("entry", ["fields", "clamps"])
def test_qutip_sees_the_same_system(entry):
    outputs = (2, "X0 Z2", "Y0 Y3", {"": 0.5, "Z0": 0.5}) if entry == "clamps" else None
    net, x = spins(entry=entry, **({"outputs": outputs} if outputs else {})), jnp.array([0.7])
    found = net.relax(x)
    seen = net.to_qutip(x, found.state)
    np.testing.assert_allclose(seen.hamiltonian.full(), net.hamiltonian(x).matrix(), atol=1e-14)
    np.testing.assert_allclose(qutip.expect(seen.hamiltonian, seen.state), found.energy, atol=1e-12)
    shown = [qutip.expect(operator, seen.state) for operator in seen.outputs]
    np.testing.assert_allclose(net.read(found.state, x), shown, atol=1e-12)
    np.testing.assert_allclose(seen.hamiltonian.groundstate()[0], found.energy, atol=1e-10)


def test_the_way_back_finds_the_parameters():
    net = spins()
    back = TransverseFieldIsing.from_qutip(net.to_qutip(jnp.zeros(1)).hamiltonian + 3.0, inputs=(1,), outputs=(2,))
    wanted = {
        tuple(sorted(edge)): J for edge, J in zip(net.graph.edges.tolist(), np.asarray(net.coupling), strict=True)
    }
    found = {tuple(edge): J for edge, J in zip(back.graph.edges.tolist(), np.asarray(back.coupling), strict=True)}
    assert found.keys() == wanted.keys()
    for edge, J in wanted.items():
        np.testing.assert_allclose(found[edge], J, atol=1e-12)
    np.testing.assert_allclose(back.longitudinal_field, net.longitudinal_field, atol=1e-12)
    np.testing.assert_allclose(back.transverse_field, net.transverse_field, atol=1e-12)
    np.testing.assert_allclose(back.offset, 3.0, atol=1e-12)
    x = jnp.array([0.3])
    np.testing.assert_allclose(back.relax(x).energy, net.relax(x).energy + 3.0, atol=1e-10)


@pytest.mark.parametrize(
    ("hamiltonian", "message"),
    [
        (qutip.qeye(3), "qubits"),
        (qutip.tensor(X, Y), "others of size 1"),
        (qutip.tensor(X, X), "others of size 1"),
        (qutip.tensor(Z, X), "others of size 1"),
        (place(Z, 0, 1, 2), "others of size 1"),
        (qutip.tensor(qutip.sigmap(), qutip.qeye(2)), "Hermitian"),
    ],
)
def test_other_hamiltonians_are_no_spins_in_a_transverse_field(hamiltonian, message):
    with pytest.raises(ValueError, match=message):
        TransverseFieldIsing.from_qutip(hamiltonian)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": []}, "at least one operator"),
        ({"terms": [np.ones((2, 3))]}, "square matrices"),
        ({"terms": [np.array([[0, 1.0], [0, 0]])]}, "Hermitian"),
        ({"terms": [np.array([[1j, 0], [0, 0]])]}, "Hermitian"),
        ({"terms": [np.array([[np.nan, 0], [0, 0]])]}, "finite"),
        ({"outputs": [np.eye(4)]}, "outputs: wanted operators of the size"),
        ({"weight": [1.0, 2.0]}, "weight: wanted one number"),
        ({"weight": np.nan}, "weight: wanted finite"),
        ({"level": 2}, "level: wanted"),
        ({"terms": [np.eye(2)]}, "GB"),
    ],
)
def test_what_makes_no_system_is_refused(options, message, monkeypatch):
    settings = {"terms": [np.diag([1.0, -1.0])], "weight": 1.0, **options}
    if message == "GB":
        monkeypatch.setattr("substrates.quantum.hamiltonian.MOST_LEVELS", 1)
    with pytest.raises(ValueError, match=message):
        HamiltonianSubstrate.from_operators(settings.pop("terms"), settings.pop("weight"), **settings)


def test_wrong_inputs_are_refused():
    with pytest.raises(ValueError, match="x: wanted shape"):
        magnet().relax(jnp.zeros(2))
    with pytest.raises(ValueError, match="real operators"):
        magnet().ensemble(1.0)
    with pytest.raises(ValueError, match="traced"):
        jax.jit(lambda w: HamiltonianSubstrate.from_operators([np.eye(2)], w).weight)(1.0)
