"""Hopfield networks of smooth units against their own equations in numpy, beside the real axis too."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from scipy.special import entr, expit

from learning import EquilibriumPropagation, ImplicitGradient, SquaredError, fit
from substrates import Nudge, SmoothHopfieldNetwork
from substrates.activation import activity, own_energy
from substrates.classical.hopfield.block_descent import BlockDescent
from theory_checks import check_substrate

KEY = jax.random.key(0)
RHO = {"sigmoid": lambda z: 1 / (1 + np.exp(-z)), "tanh": np.tanh}
SLOPE = {"sigmoid": lambda z: 0.25 / np.cosh(z / 2) ** 2, "tanh": lambda z: 1 / np.cosh(z) ** 2}
X, Y = jnp.array([0.8, -0.5, 0.3]), jnp.array([0.4, -0.9])
relax = eqx.filter_jit(lambda net, x, nudge: net.relax(x, nudge))


def layers(activation, seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    gain = {"sigmoid": 2.0, "tanh": 0.8}[activation]
    net = SmoothHopfieldNetwork.layered((3, 4, 3, 2), key=keys[0], gain=gain, activation=activation)
    bias = tuple(0.3 * jax.random.normal(k, b.shape) for k, b in zip(keys[1:], net.bias, strict=True))
    return eqx.tree_at(lambda n: n.bias, net, bias)


def maps(pooling="soft"):
    return SmoothHopfieldNetwork.convolutional((4, 4, 1), (2, 2), 2, key=KEY, pooling=pooling, gain=1.5)


def root(net, rho, slope, x, y, beta):
    """What units feel under a complex nudge with the squared error: Newton's method on u = a, in numpy, followed from
    the free phase in small steps of beta."""
    weights, biases = [np.asarray(c.weight) for c in net.coupling], [np.asarray(b) for b in net.bias]
    ends = np.cumsum([0, *(len(b) for b in biases)])

    between = np.zeros((ends[-1], ends[-1]))
    for k, w in enumerate(weights[1:]):
        between[ends[k] : ends[k + 1], ends[k + 1] : ends[k + 2]] = w
    between += between.T
    field = np.concatenate([biases[0] + np.asarray(x) @ weights[0], *biases[1:]])
    u, last = np.zeros(ends[-1], complex), slice(ends[-2], None)
    for part in np.linspace(0, 1, 30):
        for _ in range(10):
            s, ds = rho(u), slope(u)
            s[last], ds[last] = u[last], 1
            miss, jacobian = u - field - between @ s, np.eye(len(u)) - between * ds[None]
            miss[last] += part * beta * (u[last] - np.asarray(y))
            jacobian[last, last] += part * beta * np.eye(len(y))
            u = u - np.linalg.solve(jacobian, miss)
    assert np.max(np.abs(miss)) < 1e-12
    return u


@pytest.mark.parametrize("activation", RHO)
@pytest.mark.parametrize("beta", [0.0, 0.4, 0.3 + 0.2j, -0.2 + 0.5j])
def test_units_feel_what_their_equations_say_under_real_and_complex_nudges(activation, beta):
    net = layers(activation)
    found = relax(net, X, Nudge(SquaredError(), Y, jnp.asarray(beta)))
    wanted = root(net, RHO[activation], SLOPE[activation], X, Y, beta)
    np.testing.assert_allclose(np.concatenate(found.state), wanted, atol=1e-9)
    assert found.converged
    shown = net.activities(found.state)
    np.testing.assert_allclose(shown[0], RHO[activation](wanted[:4]), atol=1e-9)
    np.testing.assert_allclose(shown[-1], wanted[-2:], atol=1e-9)


def test_maps_with_soft_pooling_settle_to_a_root_of_the_continued_force():
    net, x = maps(), jax.random.normal(KEY, (16,))
    found = relax(net, x, Nudge(SquaredError(), Y, 0.3 + 0.2j))
    wide = lambda tree: jax.tree.map(lambda leaf: leaf.astype(complex), tree)
    system = jax.tree.map(lambda leaf: leaf.astype(complex), net)

    def total(state):  # the energy and its nudge, written out
        gap = state[-1] - wide(Y)
        return system.energy(state, wide(x)) + jnp.asarray(0.3 + 0.2j) * jnp.sum(gap**2) / 2

    balance = jax.grad(total, holomorphic=True)(found.state)
    assert found.converged
    assert max(float(jnp.max(jnp.abs(b))) for b in balance) < 1e-10
    assert max(float(jnp.max(jnp.abs(u.imag))) for u in found.state) > 1e-2


def test_no_sweep_raises_the_energy():
    net = layers("sigmoid", seed=4)
    start = tuple(3.0 * jax.random.normal(KEY, (n,)) for n in (4, 3, 2))
    for nudge in (None, Nudge(SquaredError(), Y, 0.7)):
        states = [start] + [net.relax(X, nudge, start, solver=BlockDescent(sweeps=k)).state for k in range(1, 8)]
        energies = [float(net.total_energy(state, X, nudge)) for state in states]
        assert all(after <= before + 1e-14 for before, after in itertools.pairwise(energies))
        assert energies[1] < energies[0] - 1e-3


def test_units_without_a_cue_leave_the_saddle_between_their_memories():
    """By symmetry all forces vanish where every unit feels nothing, and the energy falls on both sides."""
    net = SmoothHopfieldNetwork.layered((2, 3, 2), key=KEY, activation="tanh", gain=4.0)
    nothing = jnp.zeros(2)
    assert all(jnp.all(layer == 0) for layer in net.initial_state(nothing))
    found = relax(net, nothing, None)
    flat, tree = ravel_pytree(found.state)
    curvature = np.linalg.eigvalsh(jax.hessian(lambda state: net.energy(tree(state), nothing))(flat))
    saddle = np.linalg.eigvalsh(jax.hessian(lambda state: net.energy(tree(state), nothing))(jnp.zeros_like(flat)))
    assert found.converged
    assert saddle[0] < -0.1
    assert curvature[0] > 0


@given(st.lists(st.floats(-30, 30), min_size=4, max_size=4))
def test_the_energy_of_sigmoid_units_is_a_mean_field_free_energy(felt):
    u = np.array(felt)
    np.testing.assert_allclose(own_energy("sigmoid", jnp.asarray(u)), -(entr(expit(u)) + entr(expit(-u))), atol=1e-11)


@pytest.mark.parametrize("kind", RHO)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_slopes_do_not_cancel_where_units_saturate(kind, dtype):
    u = jnp.asarray([-18.0, -3.0, -0.2, 0.0, 0.7, 5.0, 18.0], dtype)
    wanted = SLOPE[kind](np.asarray(u, float))
    rtol = 40 * float(jnp.finfo(dtype).eps)
    for function, factor in ((activity, 1), (own_energy, np.asarray(u, float))):
        slope = jax.vmap(jax.grad(lambda u, f=function: f(kind, u)))(u)
        np.testing.assert_allclose(slope, factor * wanted, rtol=rtol, atol=1e-30)


@pytest.mark.parametrize("kind", RHO)
def test_own_energies_are_the_integrals_of_their_slopes_beside_the_real_axis(kind):
    """From 0 to z along a straight line, by Gauss's rule."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    for z in (1.5 + 0.8j, -2.0 + 1.0j, 0.4 - 1.2j):
        u = z * (nodes + 1) / 2
        wanted = np.sum(weights * u * SLOPE[kind](u)) * z / 2
        found = own_energy(kind, jnp.asarray(z)) - own_energy(kind, jnp.zeros((), complex))
        np.testing.assert_allclose(found, wanted, atol=1e-12)


@pytest.mark.slow
def test_maps_learn_by_the_true_gradient():
    net, xs, ys = maps(), jax.random.normal(KEY, (2, 16)), jnp.array([[0.4, -0.9], [0.1, 0.5]])
    found, wanted = (rule(net, xs, ys).gradient for rule in (EquilibriumPropagation(1e-3), ImplicitGradient()))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_it_trains_on_exclusive_or():
    x, y = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), jnp.array([[-1.0], [1.0], [1.0], [-1.0]])
    net = SmoothHopfieldNetwork.layered((2, 6, 1), key=jax.random.key(1), activation="tanh")
    trained = fit(
        net, EquilibriumPropagation(0.25), (x, y), optimiser=optax.adam(0.1), epochs=150, key=KEY, progress=False
    ).substrate
    outputs = jax.vmap(lambda x: trained.read(trained.relax(x).state, x))(x)
    np.testing.assert_allclose(outputs, y, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "size"), [(layers("sigmoid"), 3), (layers("tanh"), 3), (maps(), 16), (maps("average"), 16)]
)
def test_all_laws_hold(net, size):
    xs, ys = jax.random.normal(jax.random.key(1), (2, size)), jax.random.normal(jax.random.key(2), (2, 2))
    check_substrate(net, xs, ys).raise_if_failed()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: SmoothHopfieldNetwork.layered((2, 3, 1), key=KEY, activation="relu"),
            r"activation: wanted one of \('sigmoid', 'tanh'\), got 'relu'",
        ),
        (lambda: maps("max"), "pooling: wanted None, 'average' or 'soft', which are smooth, got 'max'"),
        (lambda: layers("tanh").relax(jnp.zeros(4)), r"x: wanted shape \(3,\), one number per input, got \(4,\)"),
    ],
)
def test_what_it_cannot_be_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_task_makes_a_network():
    net = SmoothHopfieldNetwork.for_task(3, 2, sizes=(5,), key=KEY)
    assert net.shapes == ((3,), (5,), (2,))
    assert net.holomorphic
    assert set(net.training_defaults()) == {"beta", "epochs", "batch_size", "optimiser", "learning_rate", "bench"}
