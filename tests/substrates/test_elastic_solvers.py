"""The solvers of elastic networks: against SciPy, the generic solver and each other, dense and sparse."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from learning import SquaredError
from substrates import ElasticNetwork, Nudge, Status
from substrates.classical.elastic import FIRE, ElasticEquilibrium
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
    return {"free": None, "nudged": nudge}[name]


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


@pytest.mark.parametrize("name", ["free", pytest.param("nudged", marks=pytest.mark.slow)])
def test_every_solver_finds_the_same_equilibrium(name):
    nudge = phase(name)
    wanted = relax(NET, X, nudge)
    assert wanted.status == Status.converged
    for solver in (SPARSE, DescendThenPolish(), FIRE()):
        found = relax(NET, X, nudge, None, solver)
        assert found.status == Status.converged, (solver, str(found))
        np.testing.assert_allclose(found.state, wanted.state, atol=1e-7)
        np.testing.assert_allclose(found.energy, wanted.energy, rtol=1e-10)
