"""Elastic networks know no unit: stiffnesses and lengths of any size, and weak parts beside strong ones."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning import EquilibriumPropagation, SquaredError
from substrates import ElasticNetwork, Nudge, Pin, Status
from substrates.classical.elastic import FIRE, ElasticEquilibrium
from substrates.classical.elastic.sparse_factor import softest

PRECISIONS = {jnp.float64: 1e-6, jnp.float32: 1e-3}
X = jnp.array([0.3, -0.1])
TARGET = jnp.array([0.2, -0.1, 0.05])

relax = eqx.filter_jit(lambda net, x, nudge=None, start=None, solver=None: net.relax(x, nudge, start, solver=solver))


def lattice(length=1.0):
    """Twelve free nodes between a clamped and a driven side, stressed at rest; `length` is the spacing in metres."""
    plain = ElasticNetwork.lattice(
        "triangular", (5, 4), clamped=["left"], inputs=[{("right", 0): 1.0}, {("right", 1): 1.0}],
        outputs=[6, (13, 1)], disorder=0.1, key=jax.random.key(0),
    )  # fmt: skip
    net = ElasticNetwork.from_edges(
        plain.edges, positions=length * plain.reference, clamped=[0, 5, 10, 15], outputs=[6, (13, 1)],
        inputs=[{(node, axis): 1.0 for node in (4, 9, 14, 19)} for axis in (0, 1)],
    )  # fmt: skip
    draw = np.random.default_rng(0)
    k, stretch = draw.uniform(0.5, 2.0, net.stiffness.shape), 1 + 0.05 * draw.uniform(-1, 1, net.stiffness.shape)
    values = (jnp.asarray(k), net.rest_length * stretch)
    return eqx.tree_at(lambda n: (n.stiffness, n.rest_length), net, values)


NET = lattice()


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


def scaled(net, factor, dtype):
    return cast(eqx.tree_at(lambda n: n.stiffness, net, net.stiffness * factor), dtype)


def pull(factor, dtype):
    return Nudge(SquaredError(), TARGET.astype(dtype), jnp.asarray(0.3 * factor, dtype))


def assert_same(found, wanted, dtype):
    assert found.status == Status.converged, str(found)
    gap = np.max(np.abs(np.asarray(found.state, float) - np.asarray(wanted, float)))
    assert gap <= PRECISIONS[dtype] * np.max(np.abs(wanted))


FREE, NUDGED = relax(NET, X).state, relax(NET, X, pull(1.0, jnp.float64)).state


@settings(max_examples=8)
@given(st.integers(-24, 15))
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_all_stiffnesses_times_a_number_leave_the_state(dtype, power):
    factor = 10.0 ** (power if dtype == jnp.float64 else max(-12, min(12, power)))
    net, x = scaled(NET, factor, dtype), X.astype(dtype)
    assert_same(relax(net, x), FREE, dtype)
    assert_same(relax(net, x, pull(factor, dtype), jnp.asarray(FREE, dtype)), NUDGED, dtype)


@pytest.mark.parametrize("solver", [ElasticEquilibrium(dense_size=4), FIRE()])
def test_so_do_sparse_factors_and_inertia(solver):
    steps = int(relax(NET, X, None, None, solver).steps)
    for factor in (1e-24, 1e15):
        found = relax(scaled(NET, factor, jnp.float64), X, None, None, solver)
        assert_same(found, FREE, jnp.float64)
        assert abs(int(found.steps) - steps) <= 0.05 * steps


@pytest.mark.parametrize("compression", [1.0, 0.6])
def test_and_what_a_factor_tells_of_a_state(compression):
    """Of a minimum, and of a saddle."""
    positions = compression * np.asarray(NET.positions(FREE, X))
    force = np.random.default_rng(1).standard_normal(NET.topology.free.size)

    def told(factor):
        springs = factor * np.asarray(NET.stiffness), np.asarray(NET.rest_length), positions
        return softest(NET.topology, springs, None, 1e-14, forces=(factor * force, 1e-16 * factor * abs(force)))

    wanted = told(1.0)
    assert (wanted.eigenvalue < 0) == (compression < 1)
    for factor in (1e-24, 1e15):
        for found, own in zip(told(factor), wanted, strict=True):
            np.testing.assert_allclose(found, own, rtol=1e-4)


@pytest.mark.slow
def test_and_a_pin():
    wanted = relax(NET, X, Pin(TARGET)).state
    for factor in (1e-24, 1e15):
        assert_same(relax(scaled(NET, factor, jnp.float64), X, Pin(TARGET)), wanted, jnp.float64)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_nanometres_are_as_good_as_metres(dtype):
    net = cast(lattice(1e-9), dtype)
    found = relax(net, (1e-9 * X).astype(dtype))
    assert_same(found, 1e-9 * FREE, dtype)


@pytest.mark.slow
def test_gradients_of_equilibrium_propagation_scale_with_the_energies():
    gradient = eqx.filter_jit(
        lambda net, beta: EquilibriumPropagation(beta=beta, variant="centered")(net, X[None], TARGET[None]).gradient
    )
    wanted = gradient(NET, jnp.asarray(1e-3))
    for factor in (1e-24, 1e12):
        found = gradient(scaled(NET, factor, jnp.float64), jnp.asarray(1e-3 * factor))
        for one, other in ((found.stiffness * factor, wanted.stiffness), (found.rest_length, wanted.rest_length)):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * np.max(np.abs(other)))


def two_chains(weak, held=1.0):
    """A chain of springs 1, 2, 4 N/m, and one `weak` times as stiff; the last spring of each is `held` times itself."""
    places = [[float(i), float(row)] for row in (0, 1) for i in range(4)]
    rollers = [(node, 1) for node in (1, 2, 5, 6)]
    k = np.array([1.0, 2.0, 4.0 * held])
    return ElasticNetwork.from_edges(
        [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7)], positions=places, clamped=[0, 4, *rollers],
        inputs=[{3: (1.0, 0.0)}, {7: (1.0, 0.0)}], outputs=[(1, 0), (5, 0)], stiffness=np.concatenate([k, weak * k]),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("size", [400, 0])
def test_a_part_twelve_decades_weaker_settles_beside_a_strong_one(dtype, size):
    # springs in series share the extension by their compliance, however weak they are
    net, solver = cast(two_chains(1e-12), dtype), ElasticEquilibrium(dense_size=size)
    shares = np.cumsum([1.0, 0.5, 0.25])[:2] / 1.75
    there = lambda x: (np.array([1.0, 2.0])[None] + np.asarray(x)[:, None] * shares).ravel()
    one, other = np.array([0.3, 0.6]), np.array([0.3, -0.2])
    cold = relax(net, jnp.asarray(other, dtype), None, None, solver)
    assert_same(cold, there(other), dtype)
    # the strong part is right at once, the weak one is not
    assert_same(relax(net, jnp.asarray(one, dtype), None, cold.state, solver), there(one), dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_what_rounding_decides_is_not_called_converged(dtype):
    # a strong pair of springs, held on one side alone by one a hundred billion times weaker
    eps = float(jnp.finfo(dtype).eps)
    net = ElasticNetwork.from_edges(
        [(0, 1), (1, 2), (2, 3)], positions=[[float(i), 0.0] for i in range(4)], clamped=[0, (1, 1), (2, 1)],
        inputs=[{3: (1.0, 0.0)}], outputs=[(1, 0)], stiffness=np.array([4 * eps, 1.0, 4 * eps]),
    )  # fmt: skip
    found = relax(cast(net, dtype), jnp.asarray([0.3], dtype))
    assert found.status in (Status.zero_mode, Status.ill_conditioned)
    held = eqx.tree_at(lambda n: n.stiffness, net, jnp.array([0.01, 1.0, 0.01]))
    found = relax(cast(held, dtype), jnp.asarray([0.3], dtype))
    assert_same(found, [1 + 0.3 * 100 / 201, 2 + 0.3 * 101 / 201], dtype)


@pytest.mark.slow
def test_rigidity_counts_weak_parts_like_strong_ones():
    at = two_chains(1e-12).rigidity()
    assert at.stable
    assert len(at.zero_modes) == 0
