"""Equilibria as layers of a JAX program: their derivatives against finite differences and rules that look inside."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_system import KEY, SYSTEMS, input_size

from substrates import HamiltonianSubstrate, Nudge, Pin, QuantumOscillatorNetwork, ResistorNetwork, Status
from substrates.substrate import SquaredError, split_parameters

QUICK = ("resistors", "oscillators", "continuous Hopfield", "quantum spins", "quantum oscillators")
DISCRETE = ("spins", "layered spins", "sampled spins")
SMOOTH = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SYSTEMS if name not in DISCRETE
]
STEP = 1e-5


def like(tree, seed):
    """Random numbers in the shape of the inexact leaves of a tree."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def moved(tree, direction, size):
    return jax.tree.map(lambda leaf, along: leaf + size * along, tree, direction)


@pytest.mark.parametrize("name", SMOOTH)
def test_outputs_answer_to_parameters_inputs_and_nudges(name):
    parameters, rest = split_parameters(SYSTEMS[name]())
    net = eqx.combine(parameters, rest)
    x = jnp.linspace(0.3, 0.8, input_size(net))
    free = net.relax(x, key=KEY)
    shown = net.read(free.state, x)

    @jax.jit
    def settled(given):
        parameters, x, target = given
        net = eqx.combine(parameters, rest)
        found = net.relax(x, Nudge(SquaredError(), target, 0.001), free.state, key=KEY)
        return (net.read(found.state, x), found.energy) if net.conservative else (net.read(found.state, x),)

    given = (parameters, x, 0.9 * shown + 0.05)
    along = like(given, 1)
    along = (moved(along[0], along[0], -0.9), *along[1:])
    found, change = jax.jvp(settled, (given,), (along,))
    ahead, behind = (settled(moved(given, along, sign * STEP)) for sign in (1, -1))
    for ours, plus, minus in zip(change, ahead, behind, strict=True):
        wanted = (plus - minus) / (2 * STEP)
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-6 * float(jnp.max(jnp.abs(wanted))))
    weights = like(found, 2)
    (back,) = jax.vjp(settled, given)[1](weights)
    inner = lambda a, b: sum(float(jnp.vdot(p, q)) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert inner(back, along) == pytest.approx(inner(weights, change), rel=1e-9)


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_states_have_no_derivative(name):
    net = SYSTEMS[name]()
    x = jnp.ones(input_size(net))
    with pytest.raises(TypeError, match="discrete"):
        eqx.filter_grad(lambda net: jnp.sum(net.read(net.relax(x, key=KEY).state, x)))(net)


def ladder(n, key=KEY):
    """Resistors in a row between two inputs, each node also to ground: n free nodes."""
    edges = [(k, k + 1) for k in range(n + 1)] + [(k, -1) for k in range(1, n + 1)]
    conductance = jax.random.uniform(key, (len(edges),), minval=0.5, maxval=2.0)
    return ResistorNetwork.from_edges(edges, inputs=[0, n + 1], outputs=[n // 2], conductance=conductance)


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev])
def test_a_pinned_state_answers_to_its_pin_and_its_input(derivative):
    net, x = ladder(5), jnp.array([1.0, -0.5])
    state = lambda x, target: net.relax(x, Pin(target)).state
    pinned = jnp.array([0.3])
    for given in (0, 1):
        found = derivative(state, given)(x, pinned)
        wanted, size = np.empty(found.shape), (x, pinned)[given].size
        for k in range(size):
            shift = STEP * jnp.eye(size)[k]
            ends = [(x + s * shift, pinned) if given == 0 else (x, pinned + s * shift) for s in (1, -1)]
            wanted[:, k] = (state(*ends[0]) - state(*ends[1])) / (2 * STEP)
        np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_second_derivatives_are_those_of_the_closed_form():
    divider = ResistorNetwork.from_edges([(0, 1), (1, -1)], inputs=[0], outputs=[1], conductance=np.array([2.0, 3.0]))
    at = lambda g: eqx.tree_at(lambda net: net.conductance, divider, g)
    ours = jax.hessian(lambda g: at(g).relax(jnp.ones(1)).state[0])(divider.conductance)
    closed = jax.hessian(lambda g: g[0] / (g[0] + g[1]))(divider.conductance)
    np.testing.assert_allclose(ours, closed, rtol=1e-12)


def test_a_batch_of_gradients_is_each_by_itself():
    net, xs = SYSTEMS["oscillators"](), jax.random.normal(KEY, (3, 3))
    slope = jax.jit(jax.grad(lambda x: jnp.sum(net.read(net.relax(x, key=KEY).state, x) ** 2)))
    np.testing.assert_allclose(jax.vmap(slope)(xs), jnp.stack([slope(x) for x in xs]), rtol=1e-9, atol=1e-14)


def test_above_the_dense_size_derivatives_need_no_matrix():
    net, x = ladder(700), jnp.array([1.0, -0.5])
    shown = lambda net: net.read(net.relax(x).state, x)[0]
    gradient = eqx.filter_grad(shown)(net).conductance
    along = jax.random.normal(KEY, gradient.shape)
    at = lambda step: eqx.tree_at(lambda net: net.conductance, net, net.conductance + step * along)
    wanted = (shown(at(STEP)) - shown(at(-STEP))) / (2 * STEP)
    assert float(jnp.vdot(gradient, along)) == pytest.approx(float(wanted), rel=1e-6)


def test_a_state_that_nothing_decides_says_that_it_has_no_derivative():
    tied = HamiltonianSubstrate.from_operators([np.diag([1.0, -1.0])], [0.0], outputs=[np.diag([1.0, -1.0])])
    x = jnp.zeros(tied.input_size)
    assert bool(tied.relax(x).status == Status.zero_mode)
    with pytest.raises(RuntimeError, match="does not move smoothly"):
        eqx.filter_grad(lambda net: jnp.sum(net.relax(x).state * jnp.array([1.0, -0.3])))(tied)


def test_a_state_that_has_not_settled_says_that_it_has_no_derivative():
    net, x = SYSTEMS["continuous Hopfield"](), jnp.array([0.2, 0.5, 0.9])
    stopped = net.solver.limited(1)
    with pytest.raises(RuntimeError, match="did not converge"):
        eqx.filter_grad(lambda net: jnp.sum(net.read(net.relax(x, solver=stopped).state, x)))(net)


def test_a_state_behind_nan_has_no_derivative():
    net = ladder(3)
    with pytest.raises(RuntimeError, match="did not converge"):
        jax.grad(lambda x: net.relax(x).state[0])(jnp.array([jnp.nan, 1.0]))


PINNED = {
    "bounds": lambda: SYSTEMS["continuous Hopfield"](),
    "sweeps": lambda: SYSTEMS["predictive coding"](),
    "moments": lambda: QuantumOscillatorNetwork.from_edges(
        [(0, 1), (1, 2)], inputs=[0, 1], outputs=[2], drive="stiffness", reading="moments", bias_force=0.5
    ),
}


@pytest.mark.parametrize("name", PINNED)
def test_pinned_states_answer_where_bounds_hold_them_and_where_outputs_bend(name):
    net = PINNED[name]()
    x = jnp.linspace(0.3, -0.4, input_size(net))
    target = net.read(net.relax(x).state, x) + 0.05
    pinned = jax.jit(
        lambda y: jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(net.relax(x, Pin(y)).state)])
    )
    shifts = STEP * np.eye(target.size)
    wanted = np.stack([(pinned(target + e) - pinned(target - e)) / (2 * STEP) for e in shifts], axis=1)
    np.testing.assert_allclose(jax.jacfwd(pinned)(target), wanted, atol=1e-7)
    np.testing.assert_allclose(jax.jacrev(pinned)(target), wanted, atol=1e-7)


@pytest.mark.slow
def test_outputs_that_are_linear_have_second_derivatives_of_zero():
    net, x = ladder(4), jnp.array([1.0, 0.3])
    shown = lambda x: net.read(net.relax(x).state, x)[0]
    for second in (jax.hessian(shown), jax.jacrev(jax.jacrev(shown)), jax.jacfwd(jax.jacfwd(shown))):
        np.testing.assert_array_equal(second(x), np.zeros((2, 2)))


@pytest.mark.slow
def test_second_derivatives_at_a_temperature():
    net = QuantumOscillatorNetwork.from_edges(
        [(0, 1)], inputs=[0], outputs=[1], drive="stiffness", reading="moments", bias_force=0.5, temperature=0.7
    )
    cost = lambda x: jnp.sum(net.read(net.relax(x).state, x) ** 2)
    x, slope = jnp.array([0.3]), jax.jit(jax.grad(cost))
    wanted = (slope(x + STEP) - slope(x - STEP)) / (2 * STEP)
    np.testing.assert_allclose(jax.hessian(cost)(x)[:, 0], wanted, rtol=1e-7)
