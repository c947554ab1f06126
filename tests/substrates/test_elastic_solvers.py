"""The solvers of elastic networks: against SciPy, the generic solver and each other, dense and sparse, on saddles."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from learning import SquaredError
from substrates import ElasticNetwork, Nudge, Pin, Status
from substrates.classical.elastic import FIRE, ElasticEquilibrium
from substrates.classical.elastic.balance import Objective
from substrates.solvers.generic import DescendThenPolish

SPARSE = ElasticEquilibrium(dense_size=4)
TARGET = jnp.array([0.2, -0.1, 0.05])
X = jnp.array([0.3, -0.1])

relax = eqx.filter_jit(lambda net, x, nudge=None, start=None, solver=None: net.relax(x, nudge, start, solver=solver))


def lattice(dtype=None):
    """Twenty disordered nodes with springs of random stiffness and length, so that they are stressed at rest."""
    net = ElasticNetwork.lattice(
        "triangular", (5, 4), clamped=["left"], inputs=[{("right", 0): 1.0}, {("right", 1): 1.0}],
        outputs=[6, (13, 1)], disorder=0.1, key=jax.random.key(0),
    )  # fmt: skip
    draw = np.random.default_rng(0)
    k = draw.uniform(0.5, 2.0, net.stiffness.shape)
    lengths = np.asarray(net.rest_length) * (1 + 0.05 * draw.uniform(-1, 1, net.stiffness.shape))
    values = (jnp.asarray(k, dtype), jnp.asarray(lengths, dtype))
    return eqx.tree_at(lambda n: (n.stiffness, n.rest_length), net, values)


NET = lattice()


def phase(name, dtype=jnp.float64):
    nudge = Nudge(SquaredError(), TARGET.astype(dtype), jnp.asarray(0.3, dtype))
    return {"free": None, "nudged": nudge, "pinned": Pin(TARGET.astype(dtype))}[name]


def energy_in_numpy(net, x, nudge):
    """The total energy of a flat state and its gradient, in numpy alone."""
    i, j = net.edges.T
    k, rest = np.asarray(net.stiffness), np.asarray(net.rest_length)
    topology = net.topology

    def function(flat):
        places = np.array(topology.reference.ravel())
        places[topology.prescribed] += topology.drive.to_scipy() @ np.asarray(x)
        places[topology.free] = flat
        places = places.reshape(-1, net.dim)
        vectors = places[j] - places[i]
        lengths = np.linalg.norm(vectors, axis=1)
        pulls = (k * (lengths - rest) / lengths)[:, None] * vectors
        gradient = np.zeros_like(places)
        np.add.at(gradient, j, pulls)
        np.add.at(gradient, i, -pulls)
        energy = 0.5 * np.sum(k * (lengths - rest) ** 2)
        if nudge is not None:
            gap = topology.read_map.to_scipy() @ (places - topology.reference).ravel() - np.asarray(nudge.target)
            energy += float(nudge.beta) / 2 * gap @ gap
            pull = topology.read_map.to_scipy().T @ (float(nudge.beta) * gap)
            gradient += pull.reshape(gradient.shape)
        return energy, gradient.ravel()[topology.free]

    return function


@pytest.mark.parametrize("name", ["free", "nudged"])
def test_scipy_finds_the_same_minimum(name):
    found = relax(NET, X, phase(name))
    function = energy_in_numpy(NET, X, phase(name))
    start = np.asarray(NET.initial_state(X)).ravel()
    wanted = scipy.optimize.minimize(function, start, jac=True, method="BFGS", options={"gtol": 1e-8})
    assert found.status == Status.converged
    np.testing.assert_allclose(found.energy, wanted.fun, rtol=1e-10)
    np.testing.assert_allclose(np.ravel(found.state), wanted.x, atol=1e-6)
    assert np.max(np.abs(function(np.asarray(found.state).ravel())[1])) < 1e-10


@pytest.mark.parametrize("name", ["free", "nudged", "pinned"])
def test_every_solver_finds_the_same_equilibrium(name):
    nudge = phase(name)
    wanted = relax(NET, X, nudge)
    assert wanted.status == Status.converged
    solvers = [SPARSE, DescendThenPolish(), *([] if name == "pinned" else [FIRE()])]
    for solver in solvers:
        found = relax(NET, X, nudge, None, solver)
        assert found.status == Status.converged, (solver, str(found))
        np.testing.assert_allclose(found.state, wanted.state, atol=1e-7)
        # the energy is not stationary in pinned outputs: it errs by what holds them, less than 1 N, times the residual
        first_order = float(found.residual + wanted.residual) if name == "pinned" else 0.0
        np.testing.assert_allclose(found.energy, wanted.energy, rtol=1e-10, atol=first_order)
    if name == "pinned":
        np.testing.assert_allclose(NET.read(wanted.state, X), TARGET, atol=1e-9)


def test_a_pin_pulls_as_hard_as_the_closed_form_says():
    # two springs in line: pinning the middle node at q leaves the tensions k1 q and k2 (u - q)
    net = ElasticNetwork.from_edges(
        [(0, 1), (1, 2)], positions=[[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], clamped=[0, (1, 1), (2, 1)],
        inputs=[(2, 0)], outputs=[(1, 0)], stiffness=np.array([1.0, 3.0]),
    )  # fmt: skip
    x = jnp.array([0.4])
    pinned = relax(net, x, Pin(jnp.array([0.1])))
    assert pinned.status == Status.converged
    np.testing.assert_allclose(net.tensions(pinned.state, x), [0.1, 0.9], atol=1e-8)
    beta = jnp.asarray(2.0)
    nudged = relax(net, x, Nudge(SquaredError(), jnp.array([0.1]), beta))
    np.testing.assert_allclose(net.read(nudged.state, x), [(3 * 0.4 + 2 * 0.1) / (1 + 3 + 2)], atol=1e-10)


def test_a_nudge_that_pushes_harder_than_the_springs_hold_has_no_minimum():
    net = ElasticNetwork.from_edges(
        [(0, 1), (1, 2)], positions=[[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], clamped=[0, 2, (1, 1)], inputs=[],
        outputs=[(1, 0)], stiffness=np.array([1.0, 3.0]),
    )  # fmt: skip
    push = lambda beta: Nudge(SquaredError(), jnp.array([0.1]), jnp.asarray(beta))
    held = relax(net, jnp.zeros(0), push(-2.0))
    assert held.status == Status.converged
    np.testing.assert_allclose(net.read(held.state, jnp.zeros(0)), [-0.1], atol=1e-9)
    for solver in (None, ElasticEquilibrium(dense_size=0)):
        assert relax(net, jnp.zeros(0), push(-5.0), None, solver).status == Status.unstable


def test_a_saddle_is_left_for_a_minimum_by_sparse_factors_too():
    # a square whose inner node is pressed from all sides: it is a saddle at the centre by symmetry
    corners = [[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [0.0, 0.0]]
    net = ElasticNetwork.from_edges(
        [(i, 4) for i in range(4)], positions=corners, clamped=[0, 1, 2, 3], inputs=[], outputs=[4], rest_length=3.0
    )
    for solver in (None, ElasticEquilibrium(dense_size=0)):
        found = relax(net, jnp.zeros(0), None, None, solver)
        assert found.status == Status.converged
        assert net.rigidity(jnp.zeros(0), found.state).stable
        assert float(jnp.linalg.norm(found.state)) > 0.5
    stuck = relax(net, jnp.zeros(0), None, None, FIRE())
    assert stuck.status == Status.unstable, "FIRE stays at the saddle, and says so"


@eqx.filter_jit
def energies_downhill(net, x, start, count):
    """The total energy after 0, 1, 2, ... steps by dense factors, and by sparse ones, from one start."""
    solvers = ElasticEquilibrium(), SPARSE
    after = lambda steps: tuple(net.relax(x, start=start, solver=solver.limited(steps)).energy for solver in solvers)
    return jax.lax.map(after, jnp.arange(count, dtype=jnp.int32))


def test_no_step_raises_the_energy():
    for seed in range(3):
        start = NET.initial_state(X) + 0.4 * jax.random.normal(jax.random.key(seed), NET.topology.state_shape)
        rounding = float(Objective(NET, NET.prescribed(X), None).balance(start.ravel()).rounding)
        for energies in energies_downhill(NET, X, start, 25):
            energies = np.asarray(energies)
            assert np.all(np.diff(energies) <= rounding)
            assert energies[-1] < 0.5 * energies[0]


@pytest.mark.parametrize("solver", [None, SPARSE])
def test_a_nudge_of_no_strength_is_a_free_phase(solver):
    warm = NET.initial_state(X) + 0.05 * jax.random.normal(jax.random.key(5), NET.topology.state_shape)
    none = Nudge(SquaredError(), TARGET, jnp.asarray(0.0))
    for start in (None, warm):
        free, nudged = relax(NET, X, None, start, solver), relax(NET, X, none, start, solver)
        assert free.status == nudged.status == Status.converged
        assert int(free.steps) == int(nudged.steps)
        np.testing.assert_allclose(nudged.state, free.state, rtol=0, atol=1e-12)
        np.testing.assert_allclose(nudged.energy, free.energy, rtol=1e-12)
    stopped = [relax(NET, X, nudge, warm, ElasticEquilibrium(max_steps=2)) for nudge in (None, none)]
    assert all(found.status == Status.out_of_steps for found in stopped)
    np.testing.assert_allclose(*(found.residual for found in stopped), rtol=1e-9)
