"""Recurrent networks without an energy against their equations in numpy, the flow, and what their bias should be."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, root

from learning import EquilibriumPropagation, ImplicitGradient, SquaredError, fit
from learning.rule import ConvergenceError
from substrates import (
    AdjointResponse,
    HopfieldNetwork,
    Nudge,
    Pin,
    RecurrentNetwork,
    SameUpdates,
    SmoothHopfieldNetwork,
)
from substrates.classical.recurrent.connection import Connection
from substrates.solvers.anderson import Anderson
from substrates.solvers.generic import DescendThenPolish
from substrates.solvers.solver import Status
from substrates.solvers.stability import Motion
from substrates.wiring import Dense
from theory_checks import check_substrate

KEY = jax.random.key(0)
RHO = {"sigmoid": lambda z: 1 / (1 + np.exp(-z)), "tanh": np.tanh}
SLOPE = {"sigmoid": lambda z: 0.25 / np.cosh(z / 2) ** 2, "tanh": lambda z: 1 / np.cosh(z) ** 2}
X, Y = jnp.array([0.8, -0.5, 0.3]), jnp.array([0.4, -0.9])
XS, YS = jnp.stack([X, -X]), jnp.stack([Y, -Y])
relax = eqx.filter_jit(lambda net, x, nudge: net.relax(x, nudge))
gradient = eqx.filter_jit(lambda rule, net, x, y: rule(net, x, y).gradient)
propagation = lambda beta: EquilibriumPropagation(jnp.asarray(beta))  # a number of run time


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def chain(angle=90.0, activation="tanh", gain=1.2):
    keys = jax.random.split(KEY, 4)
    net = RecurrentNetwork.layered((3, 4, 3, 2), key=keys[0], gain=gain, angle=angle, activation=activation)
    bias = tuple(0.3 * jax.random.normal(k, b.shape) for k, b in zip(keys[1:], net.bias, strict=True))
    return eqx.tree_at(lambda n: n.bias, net, bias)


def loop(activation="sigmoid"):
    """Forward, past a layer, from the outputs to the first layer, and a layer to itself."""
    pairs = [(0, 1), (1, 2), (2, 3), (1, 3), (3, 1), (2, 2)]
    return RecurrentNetwork.from_connections((3, 4, 3, 2), pairs, key=KEY, activation=activation, gain=1.5)


def spinning(growth, turn):
    """Two tanh units that turn each other, u' = rho'(u) (W s - u), W = [[g, -t], [t, g]], read by two outputs."""
    turning = jnp.array([[growth, turn], [-turn, growth]])
    joined = (
        Connection(Dense(jnp.zeros((1, 2))), 0, 1),
        Connection(Dense(turning), 1, 1),
        Connection(Dense(jnp.eye(2)), 1, 2),
    )
    return RecurrentNetwork(joined, (jnp.zeros(2), jnp.zeros(2)), ((1,), (2,), (2,)), "tanh")


def written_out(net, u, x, beta=0.0, y=None):
    """The force on all units in a row, in numpy: a matrix between all layers, slopes and nudge put in by hand."""
    sizes = [shape[0] for shape in net.shapes]
    ends = np.cumsum([0, *sizes])
    weight = np.zeros((ends[-1], ends[-1]))
    for c in net.connection:
        w = np.asarray(c.coupling.weight)
        rows, columns = slice(ends[c.source], ends[c.source + 1]), slice(ends[c.target], ends[c.target + 1])
        weight[rows, columns] += w.T if c.transposed else w
    u = np.asarray(u)
    s, slope = RHO[net.activation](u), SLOPE[net.activation](u)
    s[-sizes[-1] :], slope[-sizes[-1] :] = u[-sizes[-1] :], 1
    felt = (np.concatenate([x, s]) @ weight)[sizes[0] :] + np.concatenate(net.bias)
    force = slope * (felt - u)
    if y is not None:
        force[-sizes[-1] :] -= beta * (u[-sizes[-1] :] - np.asarray(y))
    return force


@pytest.mark.parametrize("net", [chain(), chain(40.0, "sigmoid"), loop(), loop("tanh")])
def test_its_fixed_points_are_the_roots_of_its_equations(net):
    state = net.initial_state(X)
    u, unravel = ravel_pytree(state)
    moved = unravel(u + jax.random.normal(KEY, u.shape))
    np.testing.assert_allclose(flat(net.force(moved, X)), written_out(net, flat(moved), X), atol=1e-13)
    for beta in (0.0, 0.5, -0.3):
        found = relax(net, X, Nudge(SquaredError(), Y, jnp.asarray(beta)))
        wanted = root(lambda u, b=beta: written_out(net, u, X, b, Y), flat(found.state) + 0.01, tol=1e-13)
        assert found.converged
        np.testing.assert_allclose(flat(found.state), wanted.x, atol=1e-9)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_tied_weights_are_a_hopfield_network(activation):
    """Forces, Jacobians and contrasts, the last summed over the two ways of each pair."""
    net = chain(0.0, activation)
    hopfield = SmoothHopfieldNetwork(tuple(c.coupling for c in net.connection[:3]), net.bias, (3,), activation)
    state = jax.tree.map(lambda u: u + 0.3, net.initial_state(X))
    np.testing.assert_allclose(flat(net.force(state, X)), flat(hopfield.force(state, X)), atol=1e-13)
    jacobian = net.jacobian(state, X)
    np.testing.assert_allclose(jacobian, jacobian.T, atol=1e-13)
    rule = propagation(1e-2)
    ours, theirs = gradient(rule, net, XS, YS), gradient(rule, hopfield, XS, YS)
    weights = [c.coupling.weight for c in ours.connection]
    both = [weights[0], weights[1] + weights[3], weights[2] + weights[4]]
    for found, wanted in zip(both, theirs.coupling, strict=True):
        np.testing.assert_allclose(found, wanted.weight, atol=1e-8)
    assert net.pairs == ((1, 3), (2, 4))


def test_tied_maps_are_a_hopfield_network_of_maps():
    net = RecurrentNetwork.convolutional((4, 4, 1), (2, 2), 2, key=KEY, gain=1.5, angle=0.0)
    couplings = tuple(c.coupling for c in net.connection[:3])
    hopfield = SmoothHopfieldNetwork(couplings, net.bias, (4, 4, 1), "sigmoid")
    x = jax.random.normal(KEY, (16,))
    state = jax.tree.map(lambda u: u + 0.3, net.initial_state(x))
    np.testing.assert_allclose(flat(net.force(state, x)), flat(hopfield.force(state, x)), atol=1e-13)
    assert net.pairs == ((1, 3), (2, 4))


def predicted_bias(net):
    """-(dmu/dtheta)' J'^-1 (2 A) J^-1 dC/du: the true gradient less what equilibrium propagation finds."""
    parameters, rest = eqx.partition(net, eqx.is_inexact_array)
    theta, unravel_theta = ravel_pytree(parameters)
    total = np.zeros(theta.size)
    for x, y in zip(XS, YS, strict=True):
        u, unravel = ravel_pytree(relax(net, x, None).state)
        force = lambda theta, u, x=x, unravel=unravel: ravel_pytree(
            eqx.combine(unravel_theta(theta), rest).force(unravel(u), x)
        )[0]
        by_theta, jacobian = np.asarray(jax.jacfwd(force)(theta, u)), np.asarray(jax.jacfwd(force, 1)(theta, u))
        slope = np.zeros(u.size)
        slope[-2:] = np.asarray(u)[-2:] - np.asarray(y)
        twice_odd = jacobian - jacobian.T
        total += by_theta.T @ np.linalg.solve(jacobian.T, twice_odd @ np.linalg.solve(jacobian, slope))
    return -total / len(XS)


@pytest.mark.slow
@pytest.mark.parametrize("net", [chain(), loop()])
def test_the_bias_of_equilibrium_propagation_is_the_predicted_one_and_the_repair_removes_it(net):
    rule = propagation(1e-4)
    exact = flat(gradient(ImplicitGradient(), net, XS, YS))
    found, repaired = (flat(gradient(rule, system, XS, YS)) for system in (net, AdjointResponse(net)))
    bias = predicted_bias(net)
    assert np.linalg.norm(bias) > 0.05 * np.linalg.norm(exact)
    np.testing.assert_allclose(exact - found, bias, atol=1e-6 * np.linalg.norm(exact))
    # what is left is the bias of finite nudges, which two strengths tell
    finer = flat(gradient(propagation(0.5e-4), AdjointResponse(net), XS, YS))
    np.testing.assert_allclose((4 * finer - repaired) / 3, exact, atol=1e-8 * np.linalg.norm(exact))


def test_the_cosine_to_the_true_gradient_tends_to_one_as_the_jacobian_becomes_symmetric():
    angles, cosines = (60.0, 20.0, 5.0, 1.0), []
    for angle in angles:
        net = chain(angle)
        a, b = (flat(gradient(rule, net, XS, YS)) for rule in (propagation(1e-3), ImplicitGradient()))
        cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert np.all(np.diff(cosines) > 0)
    # 1 - cos is quadratic in A
    assert 15 < (1 - cosines[2]) / (1 - cosines[3]) < 35
    assert 1 - cosines[3] < 1e-3


def test_a_fixed_point_that_the_flow_leaves_is_unstable_and_no_rule_learns_from_it():
    net, x = spinning(1.5, 2.0), jnp.zeros(1)
    found = relax(net, x, None)
    assert Status[found.status] == Status[Status.unstable]
    np.testing.assert_allclose(net.stability(net.initial_state(x), x), 0.5, rtol=1e-9)  # W - 1 has 0.5 +- 2i
    moving = solve_ivp(lambda _, u: written_out(net, u, [0.0]), (0, 100), np.full(4, 1e-3), rtol=1e-8)
    late = moving.y[:2, moving.t > 50]
    assert np.linalg.norm(late, axis=0).min() > 0.5  # it circles
    with pytest.raises(ConvergenceError, match="flow of a system without an energy leaves"):
        EquilibriumPropagation(0.1)(net, x[None], jnp.zeros((1, 2)))


def test_a_start_on_an_unstable_fixed_point_goes_where_the_flow_goes():
    net, x = spinning(2.0, 0.0), jnp.zeros(1)
    found = relax(net, x, None)  # starts at 0, where all forces balance
    wanted = brentq(lambda u: u - 2 * np.tanh(u), 0.1, 5)
    assert found.converged
    np.testing.assert_allclose(np.abs(found.state[0]), wanted, rtol=1e-9)
    assert net.stability(found.state, x) < 0


@pytest.mark.parametrize("turn", [0.0, 0.5, 3.0, 10.0])
def test_turning_forces_neither_hide_nor_feign_instability(turn):
    for growth, stable in ((0.9, True), (1.1, False)):
        net = spinning(growth, turn)
        state, x = net.initial_state(jnp.zeros(1)), jnp.zeros(1)
        u, unravel = ravel_pytree(state)
        motion = Motion.about(u, lambda u, n=net, back=unravel, x=x: ravel_pytree(n.force(back(u), x))[0])
        assert bool(motion.stable(jnp.ones(4))) == stable
        assert (motion.fastest(200)[0] < 0) == stable


@pytest.mark.parametrize("seed", range(4))
def test_contraction_is_seen_where_it_is(seed):
    draw = np.random.default_rng(seed)
    for n in (6, 60):
        matrix = draw.normal(size=(n, n)) / n**0.5
        top = np.linalg.eigvalsh(matrix + matrix.T)[-1] / 2
        for shift, wanted in ((top + 0.2, True), (top - 0.2, False)):
            motion = Motion.about(jnp.zeros(n), lambda u, m=matrix, s=shift: jnp.asarray(m) @ u - s * u)
            assert bool(motion.contracts(jnp.ones(n))) == wanted
            eigenvalues = np.linalg.eigvals(matrix - shift * np.eye(n))
            np.testing.assert_allclose(motion.spectral_abscissa(), eigenvalues.real.max(), atol=1e-9)


def test_anderson_agrees_with_the_flow_and_holds_pins():
    net = loop()
    ours, theirs = net.relax(X), net.relax(X, solver=DescendThenPolish())
    np.testing.assert_allclose(flat(ours.state), flat(theirs.state), atol=1e-9)
    held = net.relax(X, Pin(jnp.array([0.1, -0.2])))
    assert held.converged
    np.testing.assert_allclose(held.state[-1], [0.1, -0.2], atol=1e-12)
    assert Status[net.relax(X, solver=Anderson(max_steps=2)).status] == Status[Status.out_of_steps]


def test_layers_of_weak_and_strong_weights_settle_alike():
    net = chain()
    for size in (1e-6, 1e6):  # of the last layer and its biases: no test of convergence may notice
        scaled = eqx.tree_at(
            lambda n: (n.connection[2].coupling.weight, n.bias[2]), net, replace_fn=lambda leaf, s=size: s * leaf
        )
        scaled = eqx.tree_at(
            lambda n: n.connection[4].coupling.weight, scaled, replace_fn=lambda leaf, s=size: leaf / s
        )
        found, wanted = scaled.relax(X), net.relax(X)
        assert found.converged
        np.testing.assert_allclose(found.state[-1] / size, wanted.state[-1], rtol=1e-8)


def test_same_updates_align_weights_by_the_law_of_kolen_and_pollack():
    net, rate, decay = SameUpdates(chain()), 0.2, 0.1
    apart = lambda net: flat(
        [net.inner.connection[i].coupling.weight - net.inner.connection[j].coupling.weight for i, j in net.inner.pairs]
    )
    optimiser = optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate))
    run = fit(net, EquilibriumPropagation(0.1), (XS, YS), optimiser=optimiser, epochs=7, key=KEY, progress=False)
    np.testing.assert_allclose(apart(run.substrate), (1 - rate * decay) ** 7 * apart(net), rtol=1e-9)
    assert run.history["cost"][-1] < run.history["cost"][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "size"),
    [
        (chain(), 3),
        (loop(), 3),
        (RecurrentNetwork.convolutional((4, 4, 1), (2, 2), 2, key=KEY, gain=1.5), 16),
        (RecurrentNetwork.convolutional((4, 4, 1), (2, 2), 2, key=KEY, gain=1.5, pooling="average"), 16),
    ],
)
def test_all_laws_hold(net, size):
    xs, ys = jax.random.normal(jax.random.key(1), (2, size)), jax.random.normal(jax.random.key(2), (2, 2))
    check_substrate(net, xs, ys).raise_if_failed()


def test_the_angle_between_weights_is_the_one_asked_for():
    net = RecurrentNetwork.layered((200, 300, 200), key=KEY, angle=60.0)
    forward, feedback = (flat(net.connection[k].coupling.weight) for k in (1, 2))
    cosine = forward @ feedback / np.linalg.norm(forward) / np.linalg.norm(feedback)
    np.testing.assert_allclose(np.degrees(np.arccos(cosine)), 60, atol=1.0)


FIELDS = {"bias": (jnp.zeros(2), jnp.zeros(1)), "shapes": ((3,), (2,), (1,))}
FORWARD = (Connection(Dense(jnp.ones((3, 2))), 0, 1), Connection(Dense(jnp.ones((2, 1))), 1, 2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: RecurrentNetwork((*FORWARD, Connection(Dense(jnp.ones((3, 1))), 2, 1, True)), **FIELDS),
            r"connection\[2\], 2 -> 1: weight: wanted 2 rows",
        ),
        (
            lambda: RecurrentNetwork((*FORWARD, Connection(Dense(jnp.ones((2, 2))), 2, 1, True)), **FIELDS),
            r"connection\[2\], 2 -> 1: wanted a coupling to a group of shape \(1,\), got one to \(2,\); the weights",
        ),
        (
            lambda: RecurrentNetwork((*FORWARD, Connection(Dense(jnp.ones((2, 3))), 1, 0)), **FIELDS),
            "a target from 1, for the input is clamped, got 1 -> 0",
        ),
        (lambda: RecurrentNetwork(FORWARD[:1], **FIELDS), r"got none into \[2\]"),
        (lambda: RecurrentNetwork(FORWARD, (jnp.zeros(2),), FIELDS["shapes"]), "bias: wanted one vector for each of"),
        (
            lambda: RecurrentNetwork(FORWARD, (jnp.zeros(2), jnp.zeros(2)), FIELDS["shapes"]),
            r"bias\[1\]: wanted shape \(1,\), got \(2,\)",
        ),
        (lambda: RecurrentNetwork.layered((2, 3, 1), key=KEY, activation="relu"), "activation: wanted one of"),
        (lambda: RecurrentNetwork.layered((2, 3, 1), key=KEY, angle=200), "angle: wanted degrees from 0"),
        (lambda: RecurrentNetwork.from_connections((2, 3, 1), [(0, 1), (1, 5)], key=KEY), r"got \(1, 5\)"),
        (lambda: RecurrentNetwork.from_connections((2, 3, 1), [(0, 1), (0, 1)], key=KEY), "more than once"),
        (lambda: RecurrentNetwork.from_connections((2, 3, 1), [0, 1], key=KEY), "connections: wanted pairs"),
        (
            lambda: RecurrentNetwork.convolutional((4, 4, 1), (2,), 2, key=KEY, pooling="max"),
            "pooling: wanted None, 'average' or 'soft'",
        ),
        (lambda: chain().relax(jnp.zeros(4)), r"x: wanted shape \(3,\)"),
        (
            lambda: AdjointResponse(HopfieldNetwork.layered((3, 4, 2), key=KEY)).relax(X),
            "inner: wanted states without bounds",
        ),
    ],
)
def test_what_it_cannot_be_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_only_networks_with_weights_there_and_back_share_updates():
    with pytest.raises(TypeError, match="inner: wanted a network with weights there and back"):
        SameUpdates(HopfieldNetwork.layered((3, 4, 2), key=KEY))
