"""Springs without a rest length, which are linear however they turn, and ropes, which only pull."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from learning import EquilibriumPropagation, ImplicitGradient
from substrates import ElasticNetwork, Nudge, Status
from substrates.substrate import SquaredError

PLACES = [[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [1.0, 0.7], [1.2, 1.1]]
EDGES = [(0, 3), (1, 3), (2, 4), (3, 4), (1, 4)]


def ideal(stiffness, positions=PLACES, **options):
    options = {"inputs": [(2, 0)], "outputs": [4], "clamped": [0, 1, (2, 1)], "loads": {4: (0.3, -0.2)}, **options}
    return ElasticNetwork.from_edges(EDGES, positions=positions, stiffness=stiffness, rest_length=0.0, **options)


def linear_solution(net, x):
    """The positions of nodes 3 and 4 by the Laplacian of the stiffnesses, axis by axis."""
    laplacian = np.zeros((5, 5))
    for (a, b), k in zip(EDGES, np.asarray(net.stiffness), strict=True):
        laplacian[[a, b], [a, b]] += k
        laplacian[[a, b], [b, a]] -= k
    held = net.reference[:3] + np.array([[0, 0], [0, 0], [x, 0]])
    right = np.asarray(net.load)[3:] - laplacian[3:, :3] @ held
    return np.linalg.solve(laplacian[3:, 3:], right)


@given(st.lists(st.floats(0.1, 10), min_size=5, max_size=5).map(np.array), st.floats(-1, 1))
def test_springs_without_a_rest_length_settle_as_a_linear_system_does(stiffness, x):
    net = ideal(stiffness)
    found = net.relax(jnp.array([x]))
    assert bool(found.converged)
    np.testing.assert_allclose(found.state, linear_solution(net, x), rtol=1e-9, atol=1e-9)


def test_nodes_of_a_spring_without_a_rest_length_may_stand_at_one_place():
    together = np.array(PLACES)
    together[4] = together[3]
    net = ideal(np.array([1.0, 2.0, 0.5, 3.0, 1.0]), together)
    x = jnp.array([0.4])
    np.testing.assert_allclose(net.relax(x).state, linear_solution(net, 0.4), rtol=1e-9)
    state = jnp.asarray(together[3:])
    # the Hessian of a quadratic energy is the same everywhere, at one place too
    np.testing.assert_allclose(net.hessian(state, x), net.hessian(net.relax(x).state, x), rtol=1e-12, atol=1e-14)
    alone = ElasticNetwork.from_edges(
        [(0, 1)], positions=[[0, 0], [0, 0], [1, 1]], rest_length=0.0, clamped=[0, 2], inputs=[], outputs=[1]
    )
    found = alone.relax(jnp.zeros(0))
    assert bool(found.converged)
    np.testing.assert_allclose(found.state, [[0.0, 0.0]], atol=1e-12)


def test_springs_with_a_rest_length_still_need_a_direction():
    with pytest.raises(ValueError, match=r"at the same place, .* or give it the rest length 0"):
        ElasticNetwork.from_edges(
            [(0, 1)], positions=[[0, 0], [0, 0], [1, 1]], rest_length=1.0, clamped=[0, 2], inputs=[], outputs=[1]
        )


def hung(tension_only=True, load=(0.3, -1.0), stiffness=(1.0, 2.0, 1.5), **options):
    """A node between two anchors and one below it."""
    positions = [[-1.0, 1.0], [1.0, 1.0], [0.0, -1.0], [0.0, 0.0]]
    return ElasticNetwork.from_edges(
        [(0, 3), (1, 3), (2, 3)],
        positions=positions,
        stiffness=np.array(stiffness),
        clamped=[0, 1],
        inputs=[2],
        outputs=[3],
        loads={3: load},
        tension_only=tension_only,
        **options,
    )


def energy_of_ropes(net, place, x):
    ends = np.array([[-1.0, 1.0], [1.0, 1.0], [x[0], -1.0 + x[1]]])
    stretched = np.maximum(np.linalg.norm(place - ends, axis=1) - np.asarray(net.rest_length), 0.0)
    return 0.5 * np.sum(np.asarray(net.stiffness) * stretched**2) - place @ np.asarray(net.load)[3]


@given(
    st.tuples(st.floats(-1, 1), st.floats(-2, -0.5)),
    st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    st.lists(st.floats(0.3, 3), min_size=3, max_size=3).map(tuple),
)
def test_ropes_settle_where_their_energy_is_least(load, x, stiffness):
    net = hung(load=load, stiffness=stiffness)
    found = net.relax(jnp.array(x))
    assert bool(found.converged) or bool(found.status == Status.zero_mode)
    options = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000}
    best = minimize(
        lambda p: energy_of_ropes(net, p, x), np.asarray(found.state)[0], method="Nelder-Mead", options=options
    )
    assert float(found.energy) <= best.fun + 1e-9
    assert float(found.energy) == pytest.approx(energy_of_ropes(net, np.asarray(found.state)[0], x), abs=1e-12)
    assert np.all(np.asarray(net.tensions(found.state, jnp.array(x))) >= 0)


def test_a_slack_rope_bears_nothing_and_learns_nothing():
    net, x = hung(), jnp.array([0.0, 0.3])
    found = net.relax(x)
    assert bool(found.converged)
    assert float(net.extensions(found.state, x)[2]) < 0
    assert float(net.tensions(found.state, x)[2]) == 0 == float(net.stored_energy(found.state, x)[2])
    batch, target = x[None], jnp.array([[0.1, -0.5]])
    ours = EquilibriumPropagation(1e-3)(net, batch, target).gradient
    exact = ImplicitGradient()(net, batch, target).gradient
    for name in ("stiffness", "rest_length"):
        np.testing.assert_allclose(getattr(ours, name), getattr(exact, name), rtol=1e-4, atol=1e-9)
        assert getattr(ours, name)[2] == 0
    assert not net.holomorphic
    bare = net.rigidity(x)
    assert bare.stable
    assert len(bare.self_stress) == 1


def test_the_contrast_of_ropes_that_tighten_is_that_of_the_measured_energies():
    net, x = hung(), jnp.array([[0.0, 0.0]])
    plus, minus = jnp.array([[[0.1, 0.4]]]), jnp.array([[[0.0, -0.4]]])
    contrast = net.contrast(plus, minus, x)
    measured = jax.tree.map(jnp.subtract, net.measure(plus, x), net.measure(minus, x))
    for ours, wanted in zip(jax.tree.leaves(contrast), jax.tree.leaves(measured), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-12, atol=1e-14)
    derivative = eqx.filter_grad(lambda net: net.energy(plus[0], x[0]))(net)
    np.testing.assert_allclose(net.measure(plus, x).stiffness, derivative.stiffness, rtol=1e-12)


def test_a_node_on_slack_ropes_alone_is_not_decided():
    net = hung(load=(0.0, 0.0), rest_length=1.6)
    assert bool(net.relax(jnp.zeros(2)).status == Status.zero_mode)


def test_springs_and_ropes_are_told_apart():
    mixed = hung(tension_only=np.array([False, True, True]))
    x = jnp.array([0.0, 0.5])
    nudge = Nudge(SquaredError(), jnp.array([0.0, 0.9]), jnp.asarray(3.0))
    found = mixed.relax(x, nudge)
    assert bool(found.converged)
    tensions = np.asarray(mixed.tensions(found.state, x))
    assert tensions[0] < 0
    assert np.all(tensions[1:] >= 0)


@pytest.mark.parametrize("wrong", [np.array([True, False]), 1.0, "all"])
def test_what_is_a_rope_is_said_by_true_and_false(wrong):
    with pytest.raises(ValueError, match="tension_only: wanted True or False"):
        hung(tension_only=wrong)
