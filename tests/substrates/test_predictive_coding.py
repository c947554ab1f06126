"""Predictive coding networks at rest: closed forms, NumPy by hand, the generic solver, and what must not settle."""

import dataclasses
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.signal import correlate

from learning import SquaredError
from substrates import Nudge, Pin, PredictiveCodingNetwork, Status
from substrates.classical.predictive_coding import Skip
from substrates.classical.predictive_coding.error_sweep import ErrorSweep
from substrates.classical.predictive_coding.projected_gradient import ProjectedGradient
from substrates.solvers.generic import DescendThenPolish
from substrates.wiring import Convolution, Dense

SIZES = (4, 6, 5, 3)
RECTIFIERS = ("buffered", "bounded", "free")
seeds = st.integers(0, 2**31 - 1)

relax = eqx.filter_jit(lambda net, x, nudge=None, start=None, solver=None: net.relax(x, nudge, start, solver=solver))
defined = eqx.filter_jit(lambda net, s, x, nudge: (net.residual(s, x, nudge), net.total_energy(s, x, nudge)))
energy = eqx.filter_jit(lambda net, s, x: net.energy(s, x))
measure = eqx.filter_jit(lambda net, s, x: net.measure(s, x))


def network(seed, rectifier="buffered", gain=1.7, sizes=SIZES):
    return PredictiveCodingNetwork.dense(sizes, key=jax.random.key(seed), gain=gain, rectifier=rectifier)


def inputs(seed, n=SIZES[0]):
    return jax.random.normal(jax.random.key(seed + 1), (n,))


def squared(beta, target=(1.0, 0.0, -1.0)):
    return Nudge(SquaredError(), jnp.array(target), jnp.asarray(beta, float))


def largest_difference(left, right):
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return max(float(jnp.max(jnp.abs(a - b))) for a, b in pairs)


def weights(net):
    return [(np.asarray(c.weight), np.asarray(b)) for c, b in zip(net.coupling, net.bias, strict=True)]


# units and weak parts


@given(st.integers(-40, 40), st.sampled_from((1e-9, 1e-3, 0.1, -0.1)), st.booleans(), st.booleans())
def test_activities_scale_with_the_input_and_no_test_notices(power, beta, single, published):
    dtype, scale = (jnp.float32, 2.0 ** (power // 2)) if single else (jnp.float64, 2.0**power)
    solver = ProjectedGradient() if published else ErrorSweep()
    net = PredictiveCodingNetwork.dense(SIZES, key=jax.random.key(3), dtype=dtype)
    scaled = eqx.tree_at(lambda n: n.bias, net, tuple(b * scale for b in net.bias))
    x, target = inputs(3).astype(dtype), jnp.array((1.0, 0.0, -1.0), dtype)
    one = relax(net, x, Nudge(SquaredError(), target, jnp.asarray(beta, dtype)), None, solver)
    many = relax(scaled, x * scale, Nudge(SquaredError(), target * scale, jnp.asarray(beta, dtype)), None, solver)
    assert one.status == many.status == Status.converged
    assert int(one.steps) == int(many.steps)
    for a, b in zip(one.state, many.state, strict=True):
        np.testing.assert_array_equal(a * scale, b)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize(
    ("weights", "solver"),
    [
        *itertools.product([(1.0, 1e-12), (1e-12, 1.0), (1e6, 1e-6)], [ErrorSweep(), ProjectedGradient()]),
        ((1e-9, 1e3), ErrorSweep()),
    ],
)
def test_weak_layers_settle_beside_strong_ones(weights, solver, dtype):
    # h = a + w eps, o = w h + eps, eps = beta (y - o)
    net = PredictiveCodingNetwork(
        tuple(Dense(jnp.full((1, 1), w, dtype)) for w in weights),
        (jnp.zeros(1, dtype), jnp.zeros(1, dtype)),
        shape=(1,),
    )
    a, w = weights
    x = jnp.full(1, 0.5, dtype)
    for strength in (1e-6, 0.1, -0.1):
        beta = strength / w**2 if w > 1 else strength
        y = 2 * w * a * 0.5
        o = (w * a * 0.5 + beta * (1 + w**2) * y) / (1 + beta * (1 + w**2))
        eps = beta * (y - o)
        nudge = Nudge(SquaredError(), jnp.full(1, y, dtype), jnp.asarray(beta, dtype))
        for start in (None, relax(net, 3 * x).state):
            found = relax(net, x, nudge, start, solver)
            assert found.status == Status.converged
            close = 1e-6 if dtype == jnp.float64 else 1e-3
            np.testing.assert_allclose(found.state[0], [a * 0.5 + w * eps], rtol=close)
            np.testing.assert_allclose(found.state[1], [o], rtol=close)


# the free equilibrium


@given(seeds)
def test_the_free_equilibrium_is_the_forward_pass_and_teaches_nothing(seed):
    net, x = network(seed), inputs(seed)
    found = relax(net, x)
    h = np.asarray(x)
    for k, (w, b) in enumerate(weights(net), 1):
        h = h @ w + b
        h = h if k == len(net.coupling) else np.maximum(h, 0)
        np.testing.assert_allclose(found.state[k - 1], h, rtol=1e-12, atol=1e-14)
    assert found.status == Status.converged
    assert found.steps == 1
    assert found.energy == 0
    assert found.residual == 0
    states, xs = jax.tree.map(lambda leaf: leaf[None], (found.state, x))
    assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(measure(net, states, xs))) < 1e-15


@pytest.mark.parametrize("rectifier", RECTIFIERS)
def test_the_energy_by_hand(rectifier):
    rng = np.random.default_rng(3)
    skip = Skip(jnp.asarray(rng.normal(size=(4, 5))), 0, 2)
    net = dataclasses.replace(network(2, rectifier), skips=(skip,))
    x, state = rng.normal(size=4), [rng.exponential(size=n) for n in (6, 5)] + [rng.normal(size=3)]
    (w1, b1), (w2, b2), (w3, b3) = weights(net)
    a1, a2, a3 = x @ w1 + b1, state[0] @ w2 + b2 + x @ np.asarray(skip.weight), state[1] @ w3 + b3
    predictions = (np.maximum(a1, 0), np.maximum(a2, 0), a3)
    by_hand = 0.5 * sum(np.sum((h - f) ** 2) for h, f in zip(state, predictions, strict=True))
    if rectifier == "buffered":
        by_hand += state[0] @ np.maximum(-a1, 0) + state[1] @ np.maximum(-a2, 0)
    assert (a1 < 0).any()
    assert (a2 < 0).any()
    np.testing.assert_allclose(energy(net, tuple(map(jnp.asarray, state)), jnp.asarray(x)), by_hand, rtol=1e-13)


def test_a_convolutional_forward_pass_by_hand():
    net = PredictiveCodingNetwork.convolutional(
        (4, 6, 2), (3, 2), (3,), key=jax.random.key(0), pooled=(2,), pooling="average", skips=((0, 2),)
    )
    x = jax.random.normal(jax.random.key(1), (4, 6, 2))
    convolve = lambda u, w: np.stack(
        [sum(correlate(u[..., i], w[..., i, o], "same") for i in range(u.shape[2])) for o in range(w.shape[3])], -1
    )
    (w1, b1), (w2, b2), (w3, b3) = weights(net)
    h1 = np.maximum(convolve(np.asarray(x), w1) + b1, 0)
    pooled = convolve(h1, w2).reshape(2, 2, 3, 2, 2).mean(axis=(1, 3))
    assert net.skips[0].stride == 2
    h2 = np.maximum(pooled + b2 + np.asarray(x)[::2, ::2] @ np.asarray(net.skips[0].weight), 0)
    wanted = h1, h2, h2.ravel() @ w3 + b3
    for given_x in (x, x.ravel()):
        for h, by_hand in zip(relax(net, given_x).state, wanted, strict=True):
            np.testing.assert_allclose(h, by_hand, rtol=1e-12, atol=1e-14)


# nudged equilibria in closed form


def awake(seed, rectifier):
    """A network whose pre-activations are all positive, where it is linear, and J_k = dh_L/dh_k of its layers."""
    net = network(seed, rectifier, gain=1.0)
    lifted = tuple(b + (5.0 if k < 2 else 0.0) for k, b in enumerate(net.bias))
    net = eqx.tree_at(lambda n: n.bias, net, lifted)
    (_, _), (w2, _), (w3, _) = weights(net)
    return net, [(w2 @ w3).T, w3.T, np.eye(3)]


@pytest.mark.parametrize("rectifier", RECTIFIERS)
@pytest.mark.parametrize("strength", [-0.5, 0.1, 3.0])
def test_a_linear_network_relaxes_to_the_quadratic_penalty_in_closed_form(rectifier, strength):
    # minimise 1/2 sum |eps_k|^2 + beta/2 |o + sum J_k eps_k - y|^2
    net, slopes = awake(1, rectifier)
    x, nudge = inputs(1), squared(0.0)
    gram = sum(j @ j.T for j in slopes)
    beta = strength / np.linalg.eigvalsh(gram)[-1]
    free = relax(net, x)
    miss = np.asarray(free.state[-1] - nudge.target)
    pulled = np.linalg.solve(np.eye(3) + beta * gram, miss)
    found = relax(net, x, squared(beta), free.state)
    assert found.status == Status.converged
    assert all(jnp.all(a > 0) for a in net.drives(found.state, x)[:-1]), "a node asleep makes it nonlinear"
    np.testing.assert_allclose(found.energy, 0.5 * beta * miss @ pulled, rtol=1e-9)
    for error, slope in zip(net.errors(found.state, x), slopes, strict=True):
        np.testing.assert_allclose(error, -beta * slope.T @ pulled, atol=1e-9 * abs(beta))


@pytest.mark.parametrize("rectifier", RECTIFIERS)
def test_a_pin_in_closed_form(rectifier):
    net, slopes = awake(1, rectifier)
    x = inputs(1)
    free = relax(net, x)
    target = free.state[-1] + jnp.array([0.3, -0.2, 0.1])
    push = np.linalg.solve(sum(j @ j.T for j in slopes), np.array([0.3, -0.2, 0.1]))
    found = relax(net, x, Pin(target), free.state)
    assert found.status == Status.converged
    np.testing.assert_array_equal(found.state[-1], target)
    for error, slope in zip(net.errors(found.state, x), slopes, strict=True):
        np.testing.assert_allclose(error, slope.T @ push, atol=1e-9)


def test_a_pin_where_nodes_sleep_solves_the_bounded_program():
    net, x = network(3), inputs(3)
    free = relax(net, x)
    target = free.state[-1] + 0.05
    found = relax(net, x, Pin(target), free.state)
    assert found.status == Status.converged
    assert any(jnp.any(h == 0) for h in found.state)
    whole = lambda y: (y[:6], y[6:], target)
    program = jax.jit(jax.value_and_grad(lambda y: net.energy(whole(y), x)))
    oracle = minimize(
        lambda y: tuple(map(np.asarray, program(jnp.asarray(y)))), np.concatenate(free.state[:2]), jac=True,
        bounds=[(0, None)] * 11, method="L-BFGS-B", options={"ftol": 0, "gtol": 1e-10},
    )  # fmt: skip
    np.testing.assert_allclose(found.energy, oracle.fun, rtol=1e-8)
    np.testing.assert_allclose(jnp.concatenate(found.state[:2]), oracle.x, atol=1e-6)


def test_beyond_its_last_stable_nudge_nothing_settles():
    net, slopes = awake(1, "buffered")
    softest = np.linalg.eigvalsh(sum(j @ j.T for j in slopes))[-1]
    x = inputs(1)
    free = relax(net, x)
    assert relax(net, x, squared(-0.9 / softest), free.state).status == Status.converged
    assert relax(net, x, squared(-1.2 / softest), free.state).status != Status.converged
    assert relax(net, x, squared(-1.1), free.state).status == Status.unstable


def test_a_negative_pre_activation_is_a_buffer_of_the_modified_scheme_only():
    # x = 1, a_1 = -0.05, a_2 = h_1: the target 1 pulls node 1 up by less than its buffer at beta = 0.05
    beta = 0.05
    one = lambda rectifier: PredictiveCodingNetwork(
        (Dense(jnp.array([[-0.05]])), Dense(jnp.array([[1.0]]))), (jnp.zeros(1), jnp.zeros(1)), shape=(1,),
        rectifier=rectifier,
    )  # fmt: skip
    x, nudge = jnp.ones(1), squared(beta, (1.0,))
    asleep = (0.0, beta / (1 + beta))
    raised = beta / (1 + 2 * beta)
    for rectifier, solver, wanted in (
        ("buffered", ErrorSweep(), asleep),
        ("buffered", ProjectedGradient(), asleep),
        ("bounded", ErrorSweep(), (raised, 2 * raised)),
        ("bounded", ProjectedGradient(modified=False), (raised, 2 * raised)),
    ):
        found = relax(one(rectifier), x, nudge, None, solver)
        assert found.status == Status.converged, (rectifier, solver)
        np.testing.assert_allclose(jnp.concatenate(found.state), wanted, rtol=1e-9)
    published = relax(one("bounded"), x, nudge, None, ProjectedGradient())
    np.testing.assert_allclose(jnp.concatenate(published.state), asleep, rtol=1e-9)
    assert published.status == Status.out_of_steps, "it rests where the bounded energy has a force"
    # the feedback is left over of itself and of the pre-activation
    np.testing.assert_allclose(published.residual, asleep[1] / (0.05 + asleep[1]), rtol=1e-9)


# the solvers against one another


@pytest.mark.parametrize(
    ("rectifier", "schemes"),
    [
        ("buffered", (ErrorSweep(), ProjectedGradient(rate=0.2, max_sweeps=5000))),
        ("bounded", (ErrorSweep(), ProjectedGradient(rate=0.2, max_sweeps=5000, modified=False))),
    ],
)
@given(seed=seeds, sign=st.sampled_from([-1, 1]))
def test_the_schemes_and_the_generic_solver_settle_in_the_same_place(rectifier, schemes, seed, sign):
    net, x, nudge = network(seed, rectifier), inputs(seed), squared(sign * 0.1)
    start = relax(net, x).state
    generic = relax(net, x, nudge, start, DescendThenPolish())
    assert generic.status == Status.converged
    for solver in schemes:
        found = relax(net, x, nudge, start, solver)
        assert found.status == Status.converged, solver
        assert largest_difference(found.state, generic.state) < 1e-7


def test_a_free_network_settles_where_no_node_meets_its_kink():
    net, x = network(4, "free"), inputs(4)
    start = relax(net, x).state
    found = [relax(net, x, squared(0.02), start, solver) for solver in (ErrorSweep(), DescendThenPolish())]
    assert all(f.status == Status.converged for f in found)
    assert largest_difference(found[0].state, found[1].state) < 1e-9


@pytest.mark.parametrize(
    "options",
    [{"pooling": "average", "skips": ((0, 2),)}, {"pooling": "soft"}],
)
def test_convolutional_networks_settle_where_the_generic_solver_does(options):
    net = PredictiveCodingNetwork.convolutional(
        (4, 4, 2), (3, 2), (3,), key=jax.random.key(0), pooled=(2,), gain=1.5, **options
    )
    x = jax.random.normal(jax.random.key(1), (32,))
    start = relax(net, x).state
    found = relax(net, x, squared(0.1), start)
    generic = relax(net, x, squared(0.1), start, DescendThenPolish())
    assert found.status == Status.converged
    assert generic.status == Status.converged
    assert largest_difference(found.state, generic.state) < 1e-7


def tied(gap):
    """One map of 2x2 that copies its input, pooled by its maximum and read: the two largest entries differ by gap."""
    copy = Convolution(jnp.ones((1, 1, 1, 1)), padding=0)
    net = PredictiveCodingNetwork(
        (copy, Convolution(jnp.ones((1, 1, 1, 1)), "max", 0), Dense(jnp.ones((1, 1)))),
        (jnp.zeros(1), jnp.zeros(1), jnp.zeros(1)), shape=(2, 2, 1),
    )  # fmt: skip
    return net, jnp.array([1.0, 1.0 - gap, 0.3, 0.2])


def test_maximum_pooling_settles_until_a_nudge_ties_a_window():
    beta = 0.1
    nudge = squared(beta, (0.0,))
    wide, x = tied(0.5)
    pushed = -beta / (1 + 3 * beta)  # each of three layers gives way by the same error
    found = relax(wide, x, nudge, wide.relax(x).state, ErrorSweep())
    assert found.status == Status.converged
    np.testing.assert_allclose(found.state[0][0, 0, 0] - 1, pushed, rtol=1e-9)
    close, x = tied(0.01)
    assert relax(close, x, nudge, close.relax(x).state, ErrorSweep()).status == Status.out_of_steps


def test_a_step_of_rate_one_is_too_long_for_strong_couplings_and_nudges():
    # at beta = 0 the sweeps are nilpotent; else gradient steps on a layer, whose Hessian is 1 + J'J, must be shorter
    net, _ = awake(1, "buffered")
    strong = eqx.tree_at(lambda n: n.coupling[2].weight, net, 3 * net.coupling[2].weight)
    largest = 1 + np.linalg.norm(np.asarray(strong.coupling[2].weight), 2) ** 2
    x, small = inputs(1), ProjectedGradient(rate=1 / largest, max_sweeps=5000)
    target = relax(strong, x).state[-1] + 0.1
    for beta, settles in ((0.01, True), (1.0, False)):
        nudge = squared(beta, target)
        at_rate_one = relax(strong, x, nudge, None, ProjectedGradient(max_sweeps=5000))
        assert (at_rate_one.status == Status.converged) == settles
        settled = relax(strong, x, nudge, None, small)
        assert settled.status == Status.converged
        assert largest_difference(settled.state, relax(strong, x, nudge).state) < 1e-8


def test_updating_all_layers_at_once_does_not_settle():
    net, x, nudge = network(7, gain=2.0), inputs(7), squared(0.01)
    start = relax(net, x).state
    assert relax(net, x, nudge, start, ProjectedGradient()).status == Status.converged
    together = relax(net, x, nudge, start, ProjectedGradient(synchronous=True))
    assert together.status in (Status.out_of_steps, Status.not_finite)
    assert not float(together.residual) < 1e-3


@given(seeds, st.sampled_from([-0.2, 0.3]), st.sampled_from([ErrorSweep(1), ProjectedGradient(1)]))
def test_what_is_reported_is_the_definition(seed, beta, solver):
    net, x, nudge = network(seed), inputs(seed), squared(beta)
    found = relax(net, x, nudge, None, solver)
    residual, total = defined(net, found.state, x, nudge)
    assert found.status == Status.truncated
    assert found.steps == 1
    np.testing.assert_allclose(found.residual, residual, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(found.energy, total, rtol=1e-9, atol=1e-14)


@given(seed=seeds)
def test_the_penalty_bounds_the_cost_and_nudging_lowers_it(seed):
    net, x = network(seed), inputs(seed)
    free = relax(net, x)
    cost = lambda state: float(SquaredError()(state[-1], squared(0.0).target))
    along = []
    for beta in (-0.02, 0.02, 0.5):
        found = relax(net, x, squared(beta), free.state)
        if found.status != Status.converged:
            assert beta < 0, "a positive nudge always settles"
            continue
        surrogate = float(found.energy) / beta
        # (min F(beta) - min F(0)) / beta is the mean of C over nudges between 0 and beta
        assert np.sign(beta) * (cost(free.state) - surrogate) >= -1e-12
        along.append((beta, cost(found.state)))
    along.append((0.0, cost(free.state)))
    assert np.all(np.diff([c for _, c in sorted(along)]) <= 1e-12)


# the published shapes


def test_the_published_shapes():
    key = jax.random.key(0)
    vgg5 = eqx.filter_eval_shape(lambda k: PredictiveCodingNetwork.vgg5(key=k), key)
    assert vgg5.shapes == (
        (32, 32, 3), (32, 32, 128), (16, 16, 256), (8, 8, 512), (4, 4, 512), (2, 2, 512), (10,)
    )  # fmt: skip
    vgg10 = eqx.filter_eval_shape(lambda k: PredictiveCodingNetwork.vgg10(key=k, skips=((2, 5), (5, 8))), key)
    assert vgg10.shapes == (
        (224, 224, 3), (112, 112, 64), (56, 56, 128), (56, 56, 256), (28, 28, 256), (28, 28, 512), (14, 14, 512),
        (14, 14, 512), (7, 7, 512), (2048,), (1000,),
    )  # fmt: skip
    assert [skip.stride for skip in vgg10.skips] == [2, 4]
    count = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(vgg5))
    channels = (3, 128, 256, 512, 512, 512)
    assert count == sum(9 * a * b + b for a, b in itertools.pairwise(channels)) + 2048 * 10 + 10


@pytest.mark.parametrize(("build", "fan"), [("vgg5", 2), ("vgg10", 3)])
def test_published_weights_are_uniform_up_to_one_over_the_root_of_the_fan(build, fan):
    constructor = getattr(PredictiveCodingNetwork, build)
    net = eqx.filter_jit(lambda key: constructor((32, 32, 3), 10, key=key, width=0.06))(jax.random.key(0))
    for layer in net.coupling[:-1]:
        if isinstance(layer, Convolution):
            reach = 1 / np.sqrt(9 * layer.weight.shape[fan])
            assert 0.9 * reach < float(jnp.max(jnp.abs(layer.weight))) <= reach
            np.testing.assert_allclose(jnp.std(layer.weight), reach / np.sqrt(3), rtol=0.15)
