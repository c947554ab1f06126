"""Large elastic networks by multigrid, against factors, against eigenvalues, and against what cannot hold."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import example, given
from hypothesis import strategies as st

from learning import EquilibriumPropagation, SquaredError
from substrates import ElasticNetwork, Nudge, Status
from substrates.classical.elastic import grid, sparse_factor
from substrates.classical.elastic.springs import zero_mode_threshold

FEW, MANY = 0, 2**40


@pytest.fixture
def by_grid(monkeypatch):
    """Chooses multigrid, or factors, whatever the size."""

    def choose(most_factored):
        monkeypatch.setattr(grid, "MOST_FACTORED", most_factored)
        jax.clear_caches()

    yield choose
    jax.clear_caches()


def lattice(side, seed=0, **options):
    words = {
        "clamped": ["left"],
        "inputs": [{"right": (1.0, 0.0)}],
        "outputs": [side * side // 2 + side // 2],
    } | options
    return ElasticNetwork.lattice("triangular", (side, side), disorder=0.1, key=jax.random.key(seed), **words)


def settle(net, x, nudge=None, start=None):
    return eqx.filter_jit(lambda net, x, nudge, start: net.relax(x, nudge, start))(net, x, nudge, start)


@pytest.mark.parametrize("pull", [0.1, -0.01])
def test_a_lattice_settles_where_factors_put_it(by_grid, pull):
    net, x = lattice(64), jnp.array([63 * pull])
    found = {}
    for most in (FEW, MANY):
        by_grid(most)
        found[most] = settle(net, x)
        assert found[most].status == Status.converged
    np.testing.assert_allclose(found[FEW].state, found[MANY].state, atol=1e-8)
    np.testing.assert_allclose(found[FEW].energy, found[MANY].energy, rtol=1e-12)


def test_rollers_and_three_dimensions(by_grid):
    net = ElasticNetwork.lattice(
        "fcc",
        (4, 4, 4),
        clamped=["left"],
        inputs=[{("right", 0): 1.0}],
        outputs=[20],
        stiffness=1.0,
    )
    x, found = jnp.array([0.2]), {}
    assert not net.topology.whole_nodes
    for most in (FEW, MANY):
        by_grid(most)
        found[most] = settle(net, x)
        assert found[most].status == Status.converged
    np.testing.assert_allclose(found[FEW].state, found[MANY].state, atol=1e-8)


def test_the_gradient_is_that_by_factors_and_takes_one_hierarchy(by_grid, monkeypatch):
    net, x, y = lattice(24, seed=3), jnp.array([[1.0]]), jnp.array([[0.6, 0.2]])
    rule = EquilibriumPropagation(beta=1e-3, variant="centered", cost=SquaredError())
    made, make = [], grid.Multigrid.of
    monkeypatch.setattr(grid.Multigrid, "of", lambda *words: made.append(1) or make(*words))
    found = {}
    for most in (FEW, MANY):
        by_grid(most)
        found[most] = rule(net, x, y).gradient
    # the free phase, whose equilibrium is the anchor of both nudged ones
    assert len(made) <= 2
    for ours, wanted in zip(jax.tree.leaves(found[FEW]), jax.tree.leaves(found[MANY]), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-5 * float(jnp.max(jnp.abs(wanted))))


def springs_of(net, x, state=None):
    positions = net.positions(net.initial_state(x) if state is None else state, x)
    return tuple(np.asarray(array) for array in (net.stiffness, net.rest_length, positions))


@given(st.floats(-0.8, 0.3), st.integers(0, 1000))
@example(-0.7, 0)
def test_stability_and_the_softest_mode_are_those_of_all_eigenvalues(strain, seed):
    net = lattice(7, seed)
    x = jnp.array([6 * strain])
    state, topology, springs = net.initial_state(x), net.topology, springs_of(net, x)
    hessian, held = np.asarray(net.hessian(state, x)), sparse_factor.node_stiffness(net.topology, springs[0])
    values = scipy.linalg.eigh(hessian, np.diag(held), eigvals_only=True)
    threshold = zero_mode_threshold(np.float64)
    found = grid.softest(topology, springs, None, threshold, forces=(held, held))
    assert (values[0] < -1e-6) or strain != -0.7
    if values[0] > 1e-6:
        assert found.eigenvalue == np.inf
        moved = np.linalg.solve(hessian, held)
        np.testing.assert_allclose(found.step, np.abs(moved).max(), rtol=0.1)
    if values[0] < -1e-6:
        np.testing.assert_allclose(found.eigenvalue, values[0], rtol=1e-2)
        bent = found.mode @ hessian @ found.mode / (found.mode @ (held * found.mode))
        np.testing.assert_allclose(bent, values[0], rtol=1e-2)


@pytest.mark.parametrize("weight", [-0.5, -5.0])
def test_the_curvature_of_a_nudge_counts(weight):
    net, x = lattice(12), jnp.array([0.4])
    state, read = net.initial_state(x), net.topology.read_coordinates
    hessian = np.array(net.hessian(state, x))
    hessian[read, read] += weight
    added = read, weight * np.eye(len(read))
    found = grid.softest(net.topology, springs_of(net, x), added, zero_mode_threshold(np.float64))
    assert (found.eigenvalue == np.inf) == (np.linalg.eigvalsh(hessian)[0] > 0) == (weight == -0.5)


def test_a_nudge_that_outweighs_the_springs_is_told(by_grid):
    by_grid(FEW)
    net, x = lattice(16), jnp.array([0.3])
    free = settle(net, x)
    y = net.read(free.state, x)
    stable, unstable = (settle(net, x, Nudge(SquaredError(), y, jnp.array(beta)), free.state) for beta in (-0.1, -50.0))
    assert stable.status == Status.converged
    assert unstable.status != Status.converged


def test_floppy_networks_are_refused_with_the_nodes_that_move(by_grid):
    by_grid(FEW)
    with pytest.raises(ValueError, match="a motion that stretches none"):
        ElasticNetwork.lattice("square", (8, 8), clamped=["left"], inputs=[{"right": (1.0, 0.0)}], outputs=[20])
    assert lattice(8).topology.free.size


def test_rigid_motions_stretch_nothing():
    for dim in (2, 3):
        places = np.random.default_rng(dim).normal(size=(9, dim))
        motions = grid.rigid_motions(places)
        assert np.linalg.matrix_rank(motions) == dim * (dim + 1) // 2
        for moved in motions.T.reshape(-1, 9, dim):
            apart, change = (v[:, None] - v[None] for v in (places, moved))
            np.testing.assert_allclose(np.sum(apart * change, axis=-1), 0, atol=1e-12)


@pytest.mark.slow
def test_the_rigid_motions_keep_the_iterations_few():
    """At twice the side as many cycles; without the rotation, which a translation cannot replace, more."""
    counts = {}
    for side in (48, 96):
        net = lattice(side, floppy=True)
        springs = springs_of(net, jnp.array([0.0]))
        at = grid.grid_at(net.topology, springs)
        right = np.random.default_rng(0).normal(size=net.topology.free.size)
        count = []
        at.multigrid.solve(at.whole(right), 1e-8, lambda v, c=count, a=at: c.append(1) or a.multigrid.matrix @ v)
        counts[side] = len(count)
    assert counts[96] <= counts[48] + 3
    assert counts[96] <= 25
