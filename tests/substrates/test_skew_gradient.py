"""Systems with a signature: rest on stable saddles, gradients from their contrasts, and what does not hold there."""

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import networkx as nx
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from scipy.integrate import solve_ivp

from learning import EquilibriumPropagation, ImplicitGradient, SquaredError, fit
from substrates import ActivatorInhibitor, Nudge, Pin, SkewGradient, Status
from theory_checks.case import Case
from theory_checks.laws_of_response import bounds

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SQUARE = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]
PARAMETERS = "activator_diffusion", "inhibitor_diffusion", "gain", "coupling", "decay", "bias"
seeds = st.integers(0, 2**16)
settle = eqx.filter_jit(lambda net, x, nudge=None, start=None: net.relax(x, nudge, start))


def drawn(seed):
    """A network that rests, an input and a target."""
    rng = np.random.default_rng(seed)
    net = ActivatorInhibitor.from_edges(
        SQUARE,
        inputs=[0, 1],
        outputs=[2, 3],
        activator_diffusion=rng.uniform(0.1, 0.5, 5),
        inhibitor_diffusion=rng.uniform(0.1, 0.8, 5),
        gain=rng.uniform(-0.2, 0.4, 4),
        coupling=rng.uniform(0.7, 1.3, 4),
        decay=rng.uniform(0.8, 1.5, 4),
        bias=rng.normal(size=4),
    )
    return net, jnp.asarray(rng.normal(size=2)), jnp.asarray(rng.normal(size=2))


def flow_of(net, x):
    """FitzHugh's and Nagumo's rates, node by node, in NumPy."""
    d, big, a, c, g, b = (np.asarray(getattr(net, name)) for name in PARAMETERS)
    feed = b.copy()
    feed[list(net.inputs)] += np.asarray(x)

    def rates(_, s):
        u, v = s.reshape(2, -1)
        du, dv = a * u - u**3 - c * v + feed, c * u - g * v
        for (i, j), slow, fast in zip(np.asarray(net.graph.edges), d, big, strict=True):
            du[i] += slow * (u[j] - u[i])
            du[j] += slow * (u[i] - u[j])
            dv[i] += fast * (v[j] - v[i])
            dv[j] += fast * (v[i] - v[j])
        return np.concatenate([du, dv])

    return rates


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def apart(found, wanted):
    return np.linalg.norm(flat(found) - flat(wanted)) / np.linalg.norm(flat(wanted))


@given(seeds)
def test_it_rests_where_the_rates_of_fitzhugh_and_nagumo_vanish(seed):
    net, x, _ = drawn(seed)
    found = settle(net, x)
    assert found.converged
    np.testing.assert_allclose(flow_of(net, x)(0, flat(found.state)), 0, atol=1e-10)


@given(seeds)
def test_the_flow_is_the_skew_gradient_of_the_energy(seed):
    net, x, _ = drawn(seed)
    state = jax.tree.map(jnp.asarray, type(net.initial_state(x))(*np.random.default_rng(seed).normal(size=(2, 4))))
    slopes, signs = jax.grad(net.energy)(state, x), net.signature(state)
    turned = flat(jax.tree.map(lambda q, slope: -q * slope, signs, slopes))
    np.testing.assert_allclose(turned, flow_of(net, x)(0, flat(state)), atol=1e-12)


def test_the_flow_in_time_leads_there_and_the_energy_is_a_saddle():
    net, x, _ = drawn(1)
    found = settle(net, x)
    path = solve_ivp(flow_of(net, x), (0, 200), np.zeros(8), method="LSODA", rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(flat(found.state), path.y[:, -1], atol=1e-8)
    state, unravel = ravel_pytree(found.state)
    values = np.linalg.eigvalsh(jax.hessian(lambda s: net.energy(unravel(s), x))(state))
    assert np.sum(values < 0) == np.sum(values > 0) == 4


def test_the_centred_contrast_is_the_gradient_up_to_beta_squared():
    net, x, y = drawn(2)
    exact = ImplicitGradient()(net, x[None], y[None]).gradient

    def loss(bias):
        moved = eqx.tree_at(lambda n: n.bias, net, bias)
        found = settle(moved, x)
        return float(SquaredError()(moved.read(found.state, x), y))

    step, eye = 1e-5, np.eye(4)
    slopes = [(loss(net.bias + step * e) - loss(net.bias - step * e)) / (2 * step) for e in eye]
    np.testing.assert_allclose(exact.bias, slopes, rtol=1e-6)
    gradient = lambda beta: EquilibriumPropagation(jnp.asarray(beta))(net, x[None], y[None]).gradient
    errors = [apart(gradient(beta), exact) for beta in (0.04, 0.02, 0.01)]
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 4, rtol=0.03)
    assert errors[-1] < 1e-4


class Spirals(SkewGradient):
    """Phi = a p^2/2 + p q - b q^2/2 - x p: a min-max game whose flow spirals into (b, 1) x / (1 + a b), or away."""

    a: jax.Array
    b: jax.Array

    def energy(self, state, x):
        p, q = state
        return self.a * p**2 / 2 + p * q - self.b * q**2 / 2 - x[0] * p

    def initial_state(self, x):
        return jnp.zeros(()), jnp.zeros(())

    def read(self, state, x):
        return jnp.stack(state)

    def signature(self, state):
        return jnp.ones(()), -jnp.ones(())


def game(a, b):
    return Spirals(jnp.asarray(a), jnp.asarray(b))


@pytest.mark.parametrize(
    ("a", "b", "status"),
    [
        (0.5, 0.2, Status.converged),
        (-0.1, 0.2, Status.converged),
        (-0.3, 0.2, Status.unstable),
        (-0.2, 0.2, Status.zero_mode),
    ],
)
def test_rest_is_called_so_only_where_the_flow_stays(a, b, status):
    """The rates are -(a + b)/2 +- i ..: stable for a + b > 0, whatever the signs of the curvatures."""
    found = settle(game(a, b), jnp.array([0.7]))
    assert found.status == status
    if status == Status.converged:
        np.testing.assert_allclose(flat(found.state), np.array([b, 1]) * 0.7 / (1 + a * b), rtol=1e-12)


def test_bounds_of_the_cost_do_not_hold_and_the_kit_says_so():
    """C = q: a nudge on what goes up the energy raises it, so that L(0, b) >= L."""
    net, x = game(0.5, 0.2), jnp.array([0.7])
    cost = lambda output, target: output[1]
    free, plus = settle(net, x), settle(net, x, Nudge(cost, jnp.zeros(2), jnp.asarray(0.1)))
    lower = (plus.energy - free.energy) / 0.1
    assert lower > net.read(free.state, x)[1] + 1e-3
    assert net.read(plus.state, x)[1] > net.read(free.state, x)[1]
    low = settle(net, x, Nudge(lambda output, target: output[0], jnp.zeros(2), jnp.asarray(0.1)))
    assert (low.energy - free.energy) / 0.1 < net.read(free.state, x)[0] - 1e-3
    case = Case(net, x[None], jnp.array([[0.1, 0.2]]), SquaredError(), jax.random.key(0), 0.1)
    assert {law.verdict for law in bounds(case)} == {"does not apply"}


def test_an_unstable_rest_is_not_learned_from():
    with pytest.raises(RuntimeError, match="1 of 1 free equilibria"):
        EquilibriumPropagation(0.01)(game(-0.3, 0.2), jnp.array([[0.7]]), jnp.zeros((1, 2)))


def test_outputs_are_held_at_a_pin():
    net, x, y = drawn(3)
    found = net.relax(x, Pin(0.1 * y))
    assert found.converged
    np.testing.assert_allclose(net.read(found.state, x), 0.1 * y, atol=1e-10)


def test_an_inhibitor_that_spreads_faster_makes_patterns():
    """Turing: uniform rest is stable without diffusion and unstable with it; the flow leaves it for a pattern."""
    ring = dict(inputs=[0], outputs=[5], gain=0.6, periodic=True)
    still = ActivatorInhibitor.lattice((16,), activator_diffusion=0.0, inhibitor_diffusion=0.0, **ring)
    spread = ActivatorInhibitor.lattice((16,), activator_diffusion=0.05, inhibitor_diffusion=2.0, **ring)
    x = jnp.zeros(1)
    assert settle(still, x).converged
    assert settle(spread, x).status == Status.unstable
    q = 2 * np.pi * np.arange(16) / 16
    slow, fast = 0.6 - 0.05 * 4 * np.sin(q / 2) ** 2, 1 + 2 * 4 * np.sin(q / 2) ** 2
    assert np.max(slow - 1 / fast) > 0  # the determinant of a mode changes sign
    noise = 0.1 * np.random.default_rng(0).normal(size=(2, 16))
    start = type(spread.initial_state(x))(*map(jnp.asarray, noise))
    pattern = settle(spread, x, None, start)
    assert pattern.converged
    assert np.ptp(pattern.state.activator) > 0.3


@given(seeds)
def test_without_gain_there_is_one_rest_and_it_is_stable(seed):
    """(J + J')/2 has no part above 0: the coupling of activator and inhibitor turns, and does no work."""
    rng = np.random.default_rng(seed)
    net, x, _ = drawn(seed)
    values = [rng.uniform(0, 5, 5), rng.uniform(0, 5, 5), rng.uniform(-2, -0.01, 4), rng.normal(size=4) * 3]
    names = ("activator_diffusion", "inhibitor_diffusion", "gain", "coupling")
    net = eqx.tree_at(lambda n: [getattr(n, name) for name in names], net, list(map(jnp.asarray, values)))
    start = type(net.initial_state(x))(*map(jnp.asarray, 3 * rng.normal(size=(2, 4))))
    near, far = settle(net, x), settle(net, x, None, start)
    assert near.converged
    assert far.converged
    np.testing.assert_allclose(flat(far.state), flat(near.state), atol=1e-9)


def test_it_learns_an_input_output_map():
    teacher, _, _ = drawn(4)
    net = eqx.tree_at(lambda n: (n.bias, n.coupling), teacher, (jnp.zeros(4), jnp.ones(4)))
    X = jax.random.normal(jax.random.key(0), (16, 2))
    Y = jax.vmap(lambda x: teacher.read(teacher.relax(x).state, x))(X)
    run = fit(
        net,
        EquilibriumPropagation(0.05),
        (X, Y),
        optimiser=optax.adam(0.03),
        epochs=40,
        batch_size=8,
        key=jax.random.key(1),
        progress=False,
    )
    assert run.history["cost"][-1] < 0.02 * run.history["cost"][0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activator_diffusion": -0.1}, "activator_diffusion: wanted numbers of 0 or more"),
        ({"inhibitor_diffusion": [1.0]}, r"inhibitor_diffusion: wanted one number or shape \(5,\)"),
        ({"decay": 0.0}, "decay: wanted positive numbers"),
        ({"decay_floor": 2.0}, "decay_floor: wanted a positive number, at most the smallest decay"),
        ({"gain_ceiling": 0.1}, "gain_ceiling: wanted a finite number, at least the largest gain, 0.5, got 0.1"),
        ({"outputs": []}, "outputs: wanted at least one node"),
        ({"gain": np.nan}, "gain: wanted finite"),
    ],
)
def test_what_makes_no_network_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ActivatorInhibitor.from_edges(SQUARE, 4, **({"inputs": [0], "outputs": [2]} | options))


def test_training_keeps_diffusion_and_decay_physical():
    net, _, _ = drawn(5)
    far = eqx.tree_at(lambda n: [getattr(n, name) for name in PARAMETERS], net, replace_fn=lambda leaf: leaf - 10)
    near = far.constrained()
    for name, floor in (("activator_diffusion", 0), ("inhibitor_diffusion", 0), ("decay", net.decay_floor)):
        np.testing.assert_array_equal(getattr(near, name), np.full(getattr(net, name).shape, floor))
    np.testing.assert_array_equal(near.gain, far.gain)
    task = ActivatorInhibitor.for_task(2, 2, key=jax.random.key(0))
    up = eqx.tree_at(lambda n: n.gain, task, task.gain + 1).constrained()
    np.testing.assert_array_equal(up.gain, 0 * task.gain)
    assert net.decay_floor == net.decay.min() / 1000


def test_a_graph_of_labels_is_the_network_of_its_numbers_and_is_drawn():
    graph = nx.relabel_nodes(nx.Graph(SQUARE), dict(enumerate("abcd")))
    gains = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
    net = ActivatorInhibitor.from_networkx(graph, inputs=["a"], outputs=["d"], gain=gains)
    assert {label: float(a) for label, a in net.by_label(net.gain).items()} == gains
    x = jnp.array([0.5])
    state = net.relax(x).state
    ax = net.draw(state, x)
    drawn_as = {artist.get_label(): artist for artist in ax.collections}
    np.testing.assert_array_equal(drawn_as["activator"].get_array(), state.activator)
    np.testing.assert_array_equal(drawn_as["inhibitor"].get_array(), state.inhibitor)
    plt.close("all")
