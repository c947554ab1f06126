"""Energies have any unit, and gaps are judged beside them: states against those in other units, and against numpy."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from learning import SquaredError
from substrates import FreeFermionChain, HamiltonianSubstrate, Nudge, Status, TransverseFieldIsing
from substrates.quantum.eigensolvers import NEARLY_DEGENERATE, EigenstateSolver

DENSE, PRODUCTS = EigenstateSolver(), EigenstateSolver(dense=0)
SOLVERS = pytest.mark.parametrize("solver", [DENSE, PRODUCTS], ids=["dense", "products"])
NONE = jnp.zeros(0)
N = 5

exponents = {jnp.float64: st.floats(-24, 15), jnp.float32: st.floats(-12, 12)}
relax = eqx.filter_jit(lambda net, x, nudge=None, solver=None: net.relax(x, nudge, solver=solver))


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


@functools.cache
def spins(level=0, entry="fields"):
    draw = np.random.default_rng(3)
    return TransverseFieldIsing.chain(
        N + (entry == "clamps"),
        coupling=draw.normal(size=N - (entry == "fields")),
        transverse_field=draw.uniform(0.5, 1.5, N + (entry == "clamps")),
        longitudinal_field=draw.normal(size=N + (entry == "clamps")),
        inputs=(0,),
        entry=entry,
        outputs=(2, "X1"),
        level=level,
    )


@functools.cache
def matrices(is_complex, level=0):
    draw = np.random.default_rng(7)
    terms = draw.normal(size=(3, 6, 6)) + (1j if is_complex else 0) * draw.normal(size=(3, 6, 6))
    terms = [(term + term.conj().T) / 2 for term in terms]
    return HamiltonianSubstrate.from_operators(terms, [0.7, -1.1, 0.4], outputs=[terms[0]], level=level)


@functools.cache
def fermions():
    draw = np.random.default_rng(1)
    return FreeFermionChain.chain(
        6, coupling=draw.uniform(-1, 1, 5), transverse_field=draw.uniform(0.8, 1.5, 6), outputs=("X0", "Z2 Z3")
    )


def with_parameters(net, function):
    return jax.tree.map(lambda leaf: function(leaf) if eqx.is_inexact_array(leaf) else leaf, net)


def in_units(net, s):
    """The same system with every energy multiplied by s."""
    if isinstance(net, HamiltonianSubstrate):
        return eqx.tree_at(lambda h: h.weight, net, net.weight * s)
    return with_parameters(net, lambda leaf: leaf * s)


SYSTEMS = {
    "spins": (lambda: spins(), 0.3),
    "excited spins": (lambda: spins(1), 0.3),
    "clamped spins": (lambda: spins(0, "clamps"), None),
    "matrices": (lambda: matrices(False), None),
    "complex matrices": (lambda: matrices(True, 1), None),
    "fermions": (fermions, None),
}


def clamped(net, field, s, dtype):
    """An input that is an energy goes with the unit; a clamped spin does not."""
    if not isinstance(net, TransverseFieldIsing):
        return jnp.zeros(0, dtype)
    return jnp.asarray([0.5 if field is None else field * s], dtype)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("name", SYSTEMS)
@given(data=st.data())
def test_the_unit_of_energy_does_not_matter(name, dtype, data):
    make, field = SYSTEMS[name]
    net, s = cast(make(), dtype), 10 ** data.draw(exponents[dtype])
    solver = data.draw(st.sampled_from([DENSE, PRODUCTS])) if name in ("spins", "complex matrices") else None
    beta = data.draw(st.sampled_from([None, 0.02]))
    close = 1e-9 if dtype == jnp.float64 else 2e-3
    found = []
    for unit in (1.0, s):
        system, x = in_units(net, jnp.asarray(unit, dtype)), clamped(net, field, unit, dtype)
        about = jnp.full(len(net.read(net.initial_state(x), x)), 0.2, dtype)
        nudge = None if beta is None else Nudge(SquaredError(), about, jnp.asarray(beta * unit, dtype))
        found.append(relax(system, x, nudge, solver))
        assert found[-1].converged
        assert found[-1].state.dtype == dtype
    np.testing.assert_allclose(found[1].state, found[0].state, atol=close)
    np.testing.assert_allclose(found[1].energy / s, found[0].energy, rtol=close)
    assert float(found[1].residual) < 1e-4


@SOLVERS
@pytest.mark.parametrize("s", [1e-24, 1e-9, 1e15])
def test_a_degenerate_level_is_reported_in_every_unit(solver, s):
    tied = TransverseFieldIsing.chain(N, transverse_field=0.0, outputs=[0])
    assert relax(in_units(tied, s), NONE, None, solver).status == Status.zero_mode
    assert relax(in_units(HamiltonianSubstrate.from_operators([np.diag([1.0, 1, 2])], 1.0), s), NONE).status == (
        Status.zero_mode
    )


@pytest.mark.slow
@SOLVERS
@pytest.mark.parametrize("level", [0, 1])
@given(seed=st.integers(0, 2**31 - 1), part=st.floats(-12, -3))
@example(seed=0, part=-9.85)
def test_a_gap_is_judged_by_the_documented_bound(solver, level, seed, part):
    """Spins that are joined to nothing, one with fields many decades below those of the others."""
    draw = np.random.default_rng(seed)
    field, bias = draw.uniform(0.5, 1.5, N), draw.normal(size=N)
    weak = seed % N
    field[weak], bias[weak] = 10**part * field[weak], 10**part * bias[weak]
    net = eqx.tree_at(
        lambda n: (n.transverse_field, n.longitudinal_field),
        loose(level),
        (jnp.asarray(field), jnp.asarray(bias)),
    )
    found = relax(net, NONE, None, solver)
    sizes = np.hypot(field, bias)
    levels = np.sort(np.sum(np.where(np.indices((2,) * N).reshape(N, -1).T, 1, -1) * sizes, axis=1))
    gap = np.min(np.diff(levels)[max(level - 1, 0) : level + 1]) / float(net.energy_scale(NONE))
    assert found.status == (Status.zero_mode if gap <= NEARLY_DEGENERATE else Status.converged) or (
        abs(gap / NEARLY_DEGENERATE - 1) < 1e-3
    )
    if found.converged and level == 0:
        np.testing.assert_allclose(net.read(found.state, NONE), bias / sizes, atol=1e-4)


@functools.cache
def loose(level):
    return TransverseFieldIsing.from_edges(
        np.zeros((0, 2), int), N, coupling=np.zeros(0), transverse_field=1.0, outputs=range(N), level=level
    )


@pytest.mark.slow
@pytest.mark.parametrize("n", [7, 10])
@pytest.mark.parametrize("part", [1.4e-10, 1e-5])
def test_a_tiny_gap_is_found_among_many_amplitudes(n, part):
    """The weak spin is a small share of what the search for the next level starts from."""
    for weak in range(n):
        strength = np.where(np.arange(n) == weak, part * n, 1.0)
        net = TransverseFieldIsing.from_edges(
            np.zeros((0, 2), int), n, coupling=np.zeros(0), transverse_field=strength, longitudinal_field=0.5 * strength
        )
        assert relax(net, NONE).status == (Status.zero_mode if part < 1e-6 else Status.converged)


@pytest.mark.slow
@pytest.mark.parametrize("level", [0, 1])
@given(seed=st.integers(0, 2**31 - 1), part=st.sampled_from([1.4e-10, 1e-7, 1e-5]), size=st.sampled_from([8]))
def test_a_tiny_gap_of_any_operators_is_found(level, seed, part, size):
    """Levels at random, one pair of them apart by a part of the scale, in a random basis."""
    draw = np.random.default_rng(seed)
    basis = np.linalg.qr(draw.normal(size=(size, size)))[0]
    levels = np.sort(draw.uniform(0, 1, size)) + 0.1 * np.arange(size)
    levels[level + 1] = levels[level] + 2 * part
    net = eqx.tree_at(lambda n: n.terms, diagonal(level, size), jnp.asarray((basis * levels) @ basis.T)[None])
    gap = 2 * part / float(net.energy_scale(NONE))
    for solver in (DENSE, PRODUCTS):
        tied = relax(net, NONE, None, solver).status
        assert tied == (Status.zero_mode if gap <= NEARLY_DEGENERATE else Status.converged)


@functools.cache
def diagonal(level, size):
    return HamiltonianSubstrate.from_operators([np.diag(np.arange(float(size)))], 1.0, level=level)


@pytest.mark.slow
def test_terms_that_do_nothing_to_the_state_hide_no_level():
    """The ground states are what every term turns into zero."""
    net = HamiltonianSubstrate.from_operators([np.diag([0.0, 0, 1, 2])], 1.0)
    for solver in (DENSE, PRODUCTS):
        assert relax(net, NONE, None, solver).status == Status.zero_mode


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@given(first=st.floats(-18, 0), second=st.floats(-18, 0))
@example(first=-12.0, second=-12.5)
def test_weak_fields_of_fermions_are_right_or_reported(dtype, first, second):
    """Two parts of a chain, joined to nothing, with fields and coupling decades below the rest."""
    weak = np.array([[10**first, 0.3 * 10**second], [0.0, 10**second]])
    strong = np.array([[1.0, 0.6, 0.0], [0.0, 0.8, -0.5], [0.0, 0.0, 1.2]])
    matrix = np.block([[weak, np.zeros((2, 3))], [np.zeros((3, 2)), strong]])
    net = eqx.tree_at(
        lambda n: (n.coupling, n.transverse_field),
        blocks(dtype),
        (jnp.asarray(np.diagonal(matrix, 1), dtype), jnp.asarray(np.diagonal(matrix), dtype)),
    )
    found = relax(net, NONE)
    assert found.status in (Status.converged, Status.zero_mode)
    if found.converged:
        for part, block in ((slice(0, 2), weak), (slice(2, 5), strong)):
            left, _, right = np.linalg.svd(block)
            np.testing.assert_allclose(found.state[part, part], left @ right, atol=np.finfo(dtype).eps ** 0.4)


@functools.cache
def blocks(dtype):
    return FreeFermionChain.chain(5, coupling=np.ones(4, dtype), transverse_field=np.ones(5, dtype))


@pytest.mark.slow
@pytest.mark.parametrize(
    "system",
    [spins(), matrices(True), fermions(), spins().ensemble(0.7)],
    ids=["spins", "complex matrices", "fermions", "Gibbs"],
)
def test_what_draws_a_state_to_its_norm_has_the_unit_of_energy_and_no_derivative(system):
    """Away from equilibrium E and the force scale with the unit; at equilibrium dE/dtheta is that of the mean alone."""
    x = jnp.array([0.3]) if system.input_size or hasattr(system, "model") else NONE
    found = system.relax(x)
    state = 1.1 * found.state + 0.01 * np.random.default_rng(0).normal(size=found.state.shape)
    s = 1e-9
    scaled = in_units(system, s)
    moved = x * s
    np.testing.assert_allclose(scaled.energy(state, moved) / s, system.energy(state, x), rtol=1e-9)
    force = jax.tree.map(np.asarray, system.total_force(state, x))
    np.testing.assert_allclose(scaled.total_force(state, moved) / s, force, atol=1e-8 * np.abs(force).max())
    np.testing.assert_allclose(force, -jax.grad(system.energy)(state, x), atol=1e-10)
    measured = jax.tree.leaves(system.measure(found.state[None], x[None]))
    same = jax.tree.leaves(scaled.measure(found.state[None], moved[None]))
    for a, b in zip(measured, same, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)
