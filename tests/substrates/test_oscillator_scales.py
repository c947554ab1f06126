"""Oscillators in any unit of energy, of parts with strengths decades apart, and where nothing decides the state."""

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning import EquilibriumPropagation, SquaredError
from substrates import Nudge, OscillatorNetwork, Pin, Status
from substrates.classical.oscillator import BestOf, KuramotoFlow, PhaseDescent

seeds = st.integers(0, 2**31 - 1)
NOTHING = jnp.zeros(0)
EDGES = [(0, 1), (0, 3), (1, 2), (1, 4), (2, 3), (2, 5), (3, 4), (4, 5), (0, 5), (3, 6), (5, 6)]
TARGET = jnp.array([0.3, -0.4])
relax = eqx.filter_jit(
    lambda net, x, nudge=None, start=None, solver=None: net.relax(x, nudge, start=start, solver=solver)
)
learned = eqx.filter_jit(lambda rule, net, x, y: rule(net, x, y).gradient)


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


def network(seed):
    draw = np.random.default_rng(seed)
    return OscillatorNetwork.from_edges(
        EDGES,
        inputs=[0, 1],
        outputs=[5, 6],
        references={2: 0.4},
        coupling=draw.normal(size=11),
        field=1 + draw.uniform(size=7),
        field_phase=draw.normal(size=7),
        second_harmonic=0.2 * draw.normal(size=7),
        frequency=0.1 * draw.normal(size=7),
    )


def scaled(net, s):
    """All energies times s."""
    strengths = lambda n: (n.coupling.weight, n.field, n.second_harmonic, n.frequency)
    return eqx.tree_at(strengths, net, tuple(s * leaf for leaf in strengths(net)))


def of_layers(s):
    net = OscillatorNetwork.layered((2, 5, 4, 2), key=jax.random.key(0), field=0.4, second_harmonic=0.1, frequency=0.05)
    return jax.tree.map(lambda leaf: s * leaf, net)


# any unit of energy


@pytest.mark.parametrize(
    "solver", [PhaseDescent(), PhaseDescent(dense_size=0), KuramotoFlow()], ids=["descent", "large", "flow"]
)
@given(seeds, st.floats(0, 1), st.sampled_from([jnp.float64, jnp.float32]))
def test_the_unit_of_energy_changes_no_state(solver, seed, where, dtype):
    low, high, close = (-80, 50, 1e-6) if dtype == jnp.float64 else (-40, 40, 1e-3)
    s = jnp.asarray(2.0 ** round(low + where * (high - low)), dtype)
    net = cast(network(seed), dtype)
    x, other, y = (jnp.asarray(a, dtype) for a in ([0.3, -0.8], [2.0, 1.0], TARGET))
    ours = scaled(net, s)
    start = relax(net, other, solver=solver).state
    for nudge, begin in ((None, None), (None, start), (0.1, start), (-0.05, None)):
        unit = None if nudge is None else Nudge(SquaredError(), y, jnp.asarray(nudge, dtype))
        force = None if nudge is None else Nudge(SquaredError(), y, s * jnp.asarray(nudge, dtype))
        wanted, found = relax(net, x, unit, begin, solver), relax(ours, x, force, begin, solver)
        assert wanted.converged == found.converged
        assert not found.converged or jnp.max(jnp.abs(found.state - wanted.state)) < close


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_gradients_scale_with_the_unit_of_energy(dtype):
    x, y = jnp.array([[0.3, -0.8], [1.0, 0.2]], dtype), jnp.asarray([TARGET, -TARGET], dtype)
    exponents = (-24, 15) if dtype == jnp.float64 else (-12, 12)
    close = 1e-6 if dtype == jnp.float64 else 1e-3
    for build in (lambda s: scaled(network(1), s), of_layers):
        gradient = lambda s, build=build: learned(
            EquilibriumPropagation(jnp.asarray(0.1 * s, dtype)), cast(build(s), dtype), x, y
        )
        strengths = lambda tree: jax.tree.leaves((tree.coupling, tree.field, tree.second_harmonic, tree.frequency))
        wanted = gradient(1.0)
        for s in (10.0**k for k in exponents):
            found = gradient(s)
            pairs = [(s * a, b) for a, b in zip(strengths(found), strengths(wanted), strict=True)]
            pairs += zip(jax.tree.leaves(found.field_phase), jax.tree.leaves(wanted.field_phase), strict=True)
            for one, other in pairs:
                np.testing.assert_allclose(one, other, atol=close * float(jnp.max(jnp.abs(other))))


# strengths decades apart


def off(net, state, x):
    """How far Newton's method in 40 digits leads from a state of `EDGES` without harmonics and frequencies, radians."""
    with mpmath.workdps(40):
        number = lambda values: [mpmath.mpf(float(v)) for v in values]
        phi = number(net.phases(state, x))
        h, psi, w = map(number, (net.field, net.field_phase, net.coupling.weight))
        torque, hessian = mpmath.zeros(7, 1), mpmath.zeros(7, 7)
        for i in range(7):
            torque[i] = -h[i] * mpmath.sin(phi[i] - psi[i])
            hessian[i, i] = h[i] * mpmath.cos(phi[i] - psi[i])
        for (i, j), weight in zip(EDGES, w, strict=True):
            sine, cosine = weight * mpmath.sin(phi[i] - phi[j]), weight * mpmath.cos(phi[i] - phi[j])
            for a, b, sign in ((i, j, -1), (j, i, 1)):
                torque[a] += sign * sine
                hessian[a, a] += cosine
                hessian[a, b] -= cosine
        free = net.roles.free.tolist()
        matrix = mpmath.matrix([[hessian[a, b] for b in free] for a in free])
        return max(abs(float(d)) for d in mpmath.lu_solve(matrix, mpmath.matrix([torque[a] for a in free])))


def decades_apart(seed, held, decades):
    """Strengths over decades: of every coupling and field, or of all that holds a group of strongly joined phases."""
    draw = np.random.default_rng(seed)
    strength = lambda n, low: 10 ** draw.uniform(low, 0, n)
    w, h = strength(11, -decades) * draw.choice([-1, 1], 11), strength(7, -decades)
    if held:
        w, h = strength(11, -1) * draw.choice([-1, 1, 1], 11), 10.0**-decades * strength(7, -1)
        w = np.where(np.isin(EDGES, [0, 1, 2]).any(axis=1), 10.0**-decades * w, w)
    return OscillatorNetwork.from_edges(
        EDGES,
        inputs=[0, 1],
        outputs=[5, 6],
        references={2: 0.4},
        coupling=w,
        field=h,
        field_phase=draw.normal(size=7),
    )


@pytest.mark.slow
@pytest.mark.parametrize("solver", [PhaseDescent(), PhaseDescent(dense_size=0)], ids=["dense", "large"])
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize(("held", "decades"), [(False, 12), (True, 3), (True, 6), (True, 12)])
def test_of_strengths_decades_apart_no_state_is_wrong(held, decades, dtype, solver):
    found, close = [], 1e-6 if dtype == jnp.float64 else 1e-3
    x, other = jnp.array([1.0, -2.0], dtype), jnp.array([2.5, 0.5], dtype)
    for seed in range(6):
        net = cast(decades_apart(seed, held, decades), dtype)
        for start in (None, relax(net, other, solver=solver).state):
            settled = relax(net, x, None, start, solver)
            found.append(bool(settled.converged))
            assert not settled.converged or off(net, settled.state, x) < close
    digits = 12 if dtype == jnp.float64 else 5
    if held and decades > digits - 1:
        assert not any(found)
    else:
        assert sum(found) >= 0.8 * len(found)


@pytest.mark.slow
def test_a_weak_part_is_judged_by_its_own_torques():
    """A phase between two others, all 1e11 times weaker than a coupling elsewhere: the resultant of its neighbours."""
    net = OscillatorNetwork.from_edges(
        [(0, 1), (0, 2), (3, 1)], inputs=[0, 3], coupling=[1e-11, 1.0, 1e-11], outputs=[1, 2]
    )
    x = jnp.array([2.0, 0.5])
    for dtype, close in ((jnp.float64, 1e-8), (jnp.float32, 1e-4)):
        for solver in (PhaseDescent(), PhaseDescent(dense_size=0)):
            found = relax(cast(net, dtype), x.astype(dtype), solver=solver)
            assert found.converged
            np.testing.assert_allclose(found.state, [1.25, 2.0], atol=close)
    np.testing.assert_allclose(net.residual(jnp.array([1.25 + np.pi / 2, 2.0]), x), np.cos(0.75), rtol=1e-9)


@pytest.mark.slow
def test_weakly_held_lattices_too_large_to_decompose():
    """One reference turns all of a lattice, by couplings a ten-thousandth of the others."""
    lattice = OscillatorNetwork.lattice((10, 10), references={0: 2.5})
    weight = np.where((lattice.coupling.graph.edges == 0).any(axis=1), 1e-4, 1.0)
    lattice = eqx.tree_at(lambda n: n.coupling.weight, lattice, jnp.asarray(weight))
    found = relax(lattice, NOTHING)
    assert found.converged
    np.testing.assert_allclose(found.state, 2.5, atol=1e-7)
    single = relax(cast(lattice, jnp.float32), jnp.zeros(0, jnp.float32))
    assert not single.converged


# what nothing decides


@pytest.mark.slow
@pytest.mark.parametrize("dense_size", [96, 0])
def test_parts_that_nothing_holds_are_said_to_turn_freely(dense_size):
    solver = PhaseDescent(dense_size=dense_size)
    apart = lambda field: OscillatorNetwork.from_edges([(0, 1), (2, 3)], 5, coupling=1.0, field=field)
    found = relax(apart([0.0, 1.0, 0.0, 0.0, 1.0]), NOTHING, None, jnp.array([0.3, 1.0, 2.0, 1.0, -1.0]), solver)
    assert found.status == Status.zero_mode
    np.testing.assert_allclose(found.state[jnp.array([0, 1, 4])], 0, atol=1e-9)
    np.testing.assert_allclose(found.state[2], found.state[3], atol=1e-9)
    lonely = relax(apart([0.0, 1.0, 1.0, 0.0, 0.0]), NOTHING, None, jnp.ones(5), solver)
    assert lonely.status == Status.zero_mode
    np.testing.assert_allclose(lonely.state, [0, 0, 0, 0, 1.0], atol=1e-9)
    assert relax(apart([0.0, 1.0, 1.0, 0.0, -1.0]), NOTHING, solver=solver).converged


@pytest.mark.slow
def test_the_best_of_many_starts_is_found_though_all_turn_freely():
    ring = OscillatorNetwork.lattice(9, periodic=True)
    found = ring.relax(NOTHING, solver=BestOf(8), start=2 * jnp.pi * jnp.arange(9.0) / 9, key=jax.random.key(1))
    assert found.status == Status.zero_mode
    np.testing.assert_allclose(found.energy, -9, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("solver", [PhaseDescent(), KuramotoFlow(max_steps=10)])
def test_a_saddle_is_left(solver):
    """All phases opposed to what they feel, or two halves opposed to one another: balanced, and no minimum."""
    pair = OscillatorNetwork.from_edges([(0, 1), (1, 2), (2, 3)], coupling=1.0, references={0: 0.0}, outputs=[3])
    for start in (jnp.full(3, jnp.pi), jnp.array([0.0, jnp.pi, jnp.pi])):
        found = relax(pair, NOTHING, None, start, solver)
        assert found.converged
        np.testing.assert_allclose(jnp.cos(found.state), 1.0, atol=1e-9)


@pytest.mark.slow
def test_large_systems_say_that_a_phase_alone_stands_opposed():
    # all coupled, so that they turn together: where one feels exactly nothing sideways, it stays
    crowd = OscillatorNetwork.all_to_all(12, coupling=1.0, field=1.0)
    upright = jnp.zeros(12)
    solver = PhaseDescent(dense_size=0)
    flipped = eqx.tree_at(lambda n: n.field, crowd, jnp.ones(12).at[0].set(-20.0))
    found = relax(flipped, NOTHING, None, upright, solver)
    assert found.status == Status.unstable
    assert relax(crowd, NOTHING, None, upright, solver).converged
    left = relax(flipped, NOTHING, None, upright)
    assert left.converged
    assert left.energy < found.energy - 1


@pytest.mark.slow
def test_a_nudge_that_pushes_harder_than_the_fields_hold_is_unstable():
    net = network(3)
    found = relax(net, jnp.array([0.3, -0.8]), Nudge(SquaredError(), TARGET, jnp.array(-50.0)))
    assert not found.converged


@pytest.mark.slow
def test_a_pin_in_any_unit():
    for s in (1e-24, 1.0, 1e15):
        net, x = scaled(network(2), s), jnp.array([0.3, -0.8])
        found = relax(net, x, Pin(TARGET))
        assert found.converged
        np.testing.assert_allclose(net.read(found.state, x), TARGET, atol=1e-12)
        np.testing.assert_allclose(found.state, relax(network(2), x, Pin(TARGET)).state, atol=1e-6)
