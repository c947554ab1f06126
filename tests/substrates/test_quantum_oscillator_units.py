"""Quantum oscillators know no unit: stiffnesses and hbar of any size, and soft parts beside stiff ones."""

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning import PositionError
from substrates import Nudge, Pin, QuantumOscillatorNetwork, Status

EDGES = [(0, 1), (1, 2), (2, 3), (3, 4), (0, 3), (1, 4)]
X = jnp.array([0.7, -0.4])
PRECISIONS = {jnp.float64: 1e-6, jnp.float32: 1e-3}

relax = eqx.filter_jit(lambda net, x, nudge=None, start=None: net.relax(x, nudge, start))


def network(**options):
    draw = np.random.default_rng(0)
    given = {
        "inputs": [0, 2],
        "outputs": [3, 4],
        "stiffness": draw.uniform(0.1, 1.5, len(EDGES)),
        "onsite_stiffness": draw.uniform(0.2, 2.0, 5),
        "bias_force": draw.normal(size=5),
        "mass": draw.uniform(0.5, 2.0, 5),
        "drive": "stiffness",
        "reading": "moments",
    }
    return QuantumOscillatorNetwork.from_edges(EDGES, 5, **{**given, **options})


def scaled(net, factor, dtype):
    """All stiffnesses and forces times a number."""
    where = lambda n: (n.stiffness, n.onsite_stiffness, n.bias_force)
    net = eqx.tree_at(where, net, tuple(factor * leaf for leaf in where(net)))
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, net)


def near(found, wanted, part):
    np.testing.assert_allclose(np.asarray(found, float), wanted, rtol=0, atol=part * np.max(np.abs(wanted)))


@settings(max_examples=6)
@given(st.integers(-24, 15))
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_stiffnesses_times_a_number_leave_means_and_shrink_spreads_by_its_root(dtype, power):
    factor = 10.0 ** (power if dtype == jnp.float64 else max(-12, min(12, power)))
    target = jnp.array([0.3, -0.2])
    moments = jnp.concatenate([target, target**2])
    for beta in (0.0, 0.2):
        nudge = lambda s, t, b=beta: Nudge(PositionError(), moments.astype(t), jnp.asarray(b * s, t)) if b else None
        wanted = relax(network(), X, nudge(1.0, jnp.float64))
        found = relax(scaled(network(), factor, dtype), X.astype(dtype), nudge(factor, dtype))
        assert wanted.status == found.status == Status.converged, str(found)
        near(found.state.mean, wanted.state.mean, PRECISIONS[dtype])
        near(found.state.factor * factor**0.25, wanted.state.factor, PRECISIONS[dtype])


@pytest.mark.parametrize("temperature", [0.0, 0.4])
def test_planck_s_constant_in_si_units(temperature):
    # energies, temperatures and hbar times the same number
    tiny = 1e-34
    wanted = relax(network(temperature=temperature), X)
    net = scaled(network(hbar=tiny, temperature=temperature * tiny), tiny, jnp.float64)
    net = eqx.tree_at(lambda n: n.mass, net, net.mass * tiny)
    found = relax(net, X)
    assert found.status == Status.converged
    near(found.state.mean, wanted.state.mean, 1e-9)
    near(found.state.factor, wanted.state.factor, 1e-9)
    np.testing.assert_allclose(found.energy / tiny, wanted.energy, rtol=1e-9)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_pin_holds_in_any_unit(dtype):
    target = jnp.array([0.3, -0.2])
    wanted = relax(network(reading="mean"), X, Pin(target))
    for factor in (1e-12, 1e12):
        found = relax(scaled(network(reading="mean"), factor, dtype), X.astype(dtype), Pin(target.astype(dtype)))
        assert found.status == Status.converged
        near(found.state.mean, wanted.state.mean, PRECISIONS[dtype])


def exact_means(net, x):
    with mpmath.workdps(60):
        stiffness = mpmath.matrix(net.n, net.n)
        for i, k in enumerate(np.asarray(net.onsite_stiffness, float)):
            stiffness[i, i] += mpmath.mpf(float(k))
        for (i, j), k in zip(net.graph.edges, np.asarray(net.stiffness, float), strict=True):
            for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
                stiffness[int(a), int(b)] += sign * mpmath.mpf(float(k))
        force = mpmath.matrix([mpmath.mpf(float(f)) for f in np.asarray(net.total_bias(x), float)])
        return np.array([float(value) for value in mpmath.lu_solve(stiffness, force)])


@settings(max_examples=8)
@given(st.integers(0, 2**31 - 1))
@pytest.mark.parametrize("hbar", [0.0, 1.0])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_stiffnesses_over_twelve_decades_settle_right_or_say_what_is_wrong(dtype, hbar, seed):
    draw = np.random.default_rng(seed)
    net = network(drive="force", reading="mean", hbar=hbar)
    sizes = tuple(jnp.asarray(10 ** draw.uniform(-12, 0, count)) for count in (6, 5))
    net = eqx.tree_at(lambda n: (n.stiffness, n.onsite_stiffness), net, sizes)
    net, x = scaled(net, 1.0, dtype), X.astype(dtype)
    found = relax(net, x)
    if found.status == Status.converged:
        near(found.state.mean, exact_means(net, x), PRECISIONS[dtype])
    else:
        assert found.status in (Status.ill_conditioned, Status.zero_mode)


def test_soft_oscillators_beside_stiff_ones_keep_their_means_and_admit_their_spreads():
    soft = lambda hbar: QuantumOscillatorNetwork.from_edges(
        [(0, 1), (1, 2)], 3, inputs=[0], outputs=[2], stiffness=[1.0, 1e-12], onsite_stiffness=[1.0, 1.0, 1e-12],
        bias_force=[1.0, 0.0, 1e-12], hbar=hbar,
    )  # fmt: skip
    classical = relax(soft(0.0), jnp.zeros(1))
    assert classical.status == Status.converged
    near(classical.state.mean, exact_means(soft(0.0), jnp.zeros(1)), 1e-14)
    quantum = relax(soft(1.0), jnp.zeros(1))
    assert quantum.status == Status.ill_conditioned, "its frequency is rounded at 1e-4"
    near(quantum.state.mean, classical.state.mean, 1e-14)
