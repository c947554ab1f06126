"""Ising models in any unit of energy, and of couplings decades apart, against brute force in whole numbers."""

import itertools
import operator
from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning import EquilibriumPropagation, SquaredError
from substrates import IsingModel, Nudge, Pin
from substrates.classical.ising.annealing import Annealing, best
from substrates.classical.ising.enumeration import Enumeration
from substrates.classical.ising.sweeps import sweep_words
from substrates.classical.ising.tempering import Tempering

EDGES = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 3), (1, 4), (5, 6), (2, 6)])
ANNEAL, TEMPER = Annealing(sweeps=60, replicas=12, reverse_sweeps=40), Tempering(sweeps=60, temperatures=6)
SOLVERS = pytest.mark.parametrize(
    "solver", [Enumeration(), ANNEAL, TEMPER], ids=["enumeration", "annealing", "tempering"]
)
DTYPES = pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
seeds = st.integers(0, 2**31 - 1)
relax = eqx.filter_jit(lambda net, x, nudge, start, solver: net.relax(x, nudge, start, solver=solver))
learned = eqx.filter_jit(lambda rule, net, x, y: rule(net, x, y).gradient)


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


def scaled(net, s):
    """All energies times s."""
    return jax.tree.map(lambda leaf: s * leaf if eqx.is_inexact_array(leaf) else leaf, net)


def graph(seed):
    draw = np.random.default_rng(seed)
    return IsingModel.from_edges(
        EDGES, 7, coupling=draw.normal(size=10), field=draw.normal(size=7), inputs=[0], outputs=[4, 6]
    )


def layered(seed):
    return IsingModel.layered((3, 4, 2), key=jax.random.key(seed), copies=2, levels=(0.0, 1.0))


@SOLVERS
@given(seeds, st.floats(0, 1), st.sampled_from([jnp.float64, jnp.float32]), st.sampled_from(["graph", "layered"]))
def test_the_unit_of_energy_changes_no_state(solver, seed, where, dtype, kind):
    low, high = (-80, 50) if dtype == jnp.float64 else (-40, 40)
    s = jnp.asarray(2.0 ** round(low + where * (high - low)), dtype)
    net, x = (graph(seed), jnp.array([0.7])) if kind == "graph" else (layered(seed), jnp.array([0.5, -1.0, 2.0]))
    net, x, y = cast(net, dtype), x.astype(dtype), jnp.array([1.0, 0.0], dtype)
    ours = scaled(net, s)
    start = relax(net, -x, None, None, solver).state
    for beta, begin in ((0.0, None), (0.0, start), (0.7, None), (-2.0, start)):
        nudge = lambda unit, beta=beta: Nudge(SquaredError(), y, unit * jnp.asarray(beta, dtype))
        wanted, found = relax(net, x, nudge(1), begin, solver), relax(ours, x, nudge(s), begin, solver)
        assert wanted.converged
        assert found.converged
        for one, other in zip(jax.tree.leaves(found.state), jax.tree.leaves(wanted.state), strict=True):
            np.testing.assert_array_equal(one, other)


@DTYPES
def test_gradients_have_no_unit_and_no_scale(dtype):
    x, y = jnp.asarray([[0.7], [-0.3]], dtype), jnp.asarray([[1.0, -1.0], [1.0, 1.0]], dtype)
    gradient = lambda s: learned(
        EquilibriumPropagation(jnp.asarray(2.0 * s, dtype)), scaled(cast(graph(8), dtype), s), x, y
    )
    wanted = gradient(1.0)
    for s in (1e-24, 1e15) if dtype == jnp.float64 else (1e-12, 1e12):
        for one, other in zip(jax.tree.leaves(gradient(s)), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(s * one, other, rtol=1e-6)


# couplings decades apart


def least(edges, coupling, field):
    """The ground state, by brute force in exact numbers."""
    n, J, h = len(field), [Fraction(float(v)) for v in coupling], [Fraction(float(v)) for v in field]
    bonds = lambda s: sum(J[k] * s[i] * s[j] for k, (i, j) in enumerate(edges))
    return min(itertools.product([-1, 1], repeat=n), key=lambda s: -bonds(s) - sum(map(operator.mul, h, s)))


@DTYPES
@SOLVERS
@pytest.mark.parametrize("warm", [False, True])
def test_spins_that_strong_couplings_do_not_decide_end_right_by_their_own(solver, dtype, warm):
    draw = np.random.default_rng(0)
    edges = [(0, 1), (1, 2), (2, 0), (2, 3), (4, 5), (5, 6)]
    for _ in range(6):
        coupling = np.r_[draw.normal(size=3), 1e-12 * draw.normal(size=3)]
        field = np.r_[draw.normal(size=3), 1e-12 * draw.normal(size=4)]
        net = cast(IsingModel.from_edges(edges, 7, coupling=coupling, field=field), dtype)
        start = jnp.asarray(draw.choice([-1.0, 1.0], 7), dtype) if warm else None
        found = relax(net, jnp.zeros(0, dtype), None, start, solver)
        assert found.converged
        if solver != Enumeration():
            # single flips and luck: at least no spin is left against its own field
            felt = net.local_field(found.state, jnp.zeros(0, dtype))
            assert jnp.all(found.state * felt > 0)
            continue
        np.testing.assert_array_equal(found.state, least(edges, net.coupling.weight, net.field))


@DTYPES
def test_a_weakly_held_pair_turns_over_as_a_whole(dtype):
    """Both spins point up, held together; weak fields want both down, which no single flip does."""
    net = cast(IsingModel.from_edges([(0, 1), (2, 3)], 4, coupling=[1.0, 1e-6], field=[1e-12, -2e-12, 0.5, 0.0]), dtype)
    x, up, down = jnp.zeros(0, dtype), jnp.ones(4, dtype), jnp.array([-1.0, -1.0, 1.0, 1.0], dtype)
    np.testing.assert_array_equal(relax(net, x, None, up, Enumeration()).state, down)
    replicas = net.sweeps(x, None).load(jnp.stack([up, down, up]), sweep_words(jax.random.key(0), 0))
    kept, _ = best(net, x, None, net.sweeps(x, None), replicas, up, sweep_words(jax.random.key(0), 1))
    np.testing.assert_array_equal(kept, down)


@DTYPES
def test_what_is_tied_stays_at_the_start(dtype):
    """Isolated spins without a field, and a pair that no field turns, beside strong ones."""
    net = cast(IsingModel.from_edges([(0, 1), (2, 3)], 6, coupling=[1.0, 1e-9], field=[0.3, 0, 0, 0, 0, 1e-15]), dtype)
    start = jnp.array([1.0, 1.0, -1.0, -1.0, -1.0, -1.0], dtype)
    for solver in (Enumeration(), ANNEAL, TEMPER):
        found = relax(net, jnp.zeros(0, dtype), None, start, solver)
        np.testing.assert_array_equal(found.state, [1, 1, -1, -1, -1, 1])


@DTYPES
def test_a_pin_beside_weak_spins(dtype):
    net = cast(
        IsingModel.from_edges([(0, 1), (1, 2)], 4, coupling=[1.0, 1e-12], field=[0.5, 0, 0, -1e-13], outputs=[0]), dtype
    )
    for solver in (Enumeration(), ANNEAL):
        found = relax(net, jnp.zeros(0, dtype), Pin(jnp.array([-1.0], dtype)), None, solver)
        assert found.converged
        np.testing.assert_array_equal(found.state, [-1, -1, -1, -1])


def test_a_spin_against_its_own_weak_field_is_no_equilibrium():
    net = IsingModel.from_edges([(0, 1)], 3, coupling=1.0, field=[0.1, 0.0, 1e-12], outputs=[1])
    off = jnp.array([1.0, 1.0, -1.0])
    np.testing.assert_allclose(net.residual(off, jnp.zeros(0)), 1.0)
    nudge = Nudge(SquaredError(), jnp.ones(1), 1e3)
    np.testing.assert_allclose(net.residual(off, jnp.zeros(0), nudge), 1.0)


@DTYPES
def test_a_strong_nudge_hides_no_spin_that_it_does_not_reach(dtype):
    """What rounding makes of a large cost is no energy that a flip releases."""
    net, x = cast(layered(4), dtype), jnp.array([0.5, -1.0, 2.0], dtype)
    for beta in (1e-3, 3e3, 1e6):
        nudge = Nudge(SquaredError(), jnp.array([1.0, 0.0], dtype), jnp.asarray(beta, dtype))
        found, exact = relax(net, x, nudge, None, ANNEAL), relax(net, x, nudge, None, Enumeration())
        assert found.converged
        assert exact.converged
        np.testing.assert_allclose(found.energy, exact.energy, rtol=1e-5)
