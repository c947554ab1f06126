"""Hopfield networks against brute force over active sets, closed forms, the generic solver, and the theorems."""

import itertools
from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning import CrossEntropy, EquilibriumPropagation, ImplicitGradient, SquaredError, fit, load_data
from substrates import HopfieldNetwork, Nudge, Pin, Status, Substrate
from substrates.classical.hopfield.block_descent import BlockDescent
from substrates.readout import LinearReadout
from substrates.solvers.generic import DescendThenPolish
from substrates.substrate import relax_batch
from substrates.wiring import Convolution, Dense
from theory_checks import SealedSubstrate, check_substrate

SIZES = (3, 5, 4, 2)
IMAGE = (8, 8, 1)
seeds = st.integers(0, 2**31 - 1)

relax = eqx.filter_jit(lambda net, x, nudge=None, start=None, solver=None: net.relax(x, nudge, start, solver=solver))
estimate = eqx.filter_jit(lambda rule, *arguments: rule(*arguments))
defined = eqx.filter_jit(lambda net, s, x, nudge=None: (net.residual(s, x, nudge), net.total_energy(s, x, nudge)))
measure = eqx.filter_jit(lambda net, states, xs: net.measure(states, xs))
contrast = eqx.filter_jit(lambda net, plus, minus, xs: net.contrast(plus, minus, xs))


def perturbed(net, seed):
    """The same network with random biases, so that units saturate at either bound."""
    keys = jax.random.split(jax.random.key(seed + 7), len(net.bias))
    biases = tuple(b + 0.3 * jax.random.normal(k, b.shape, b.dtype) for k, b in zip(keys, net.bias, strict=True))
    return eqx.tree_at(lambda n: n.bias, net, biases)


def dense(seed, gain=1.0, sizes=SIZES):
    return perturbed(HopfieldNetwork.layered(sizes, key=jax.random.key(seed), gain=gain), seed)


def convolutional(seed, pooling, gain=1.0):
    net = HopfieldNetwork.convolutional(IMAGE, (3, 4), 2, key=jax.random.key(seed), pooling=pooling, gain=gain)
    return perturbed(net, seed)


def inputs(seed, *batch, n=SIZES[0]):
    return jax.random.normal(jax.random.key(seed + 1), (*batch, n))


def images(seed, *batch):
    return jax.random.uniform(jax.random.key(seed + 1), (*batch, 64))


def largest_difference(left, right):
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return max(float(jnp.max(jnp.abs(a - b), initial=0.0)) for a, b in pairs)


# where it settles


def least_energies(net, x):
    """Every point of a small dense network that satisfies the optimality conditions, by its energy: all active sets."""
    weights = [np.asarray(c.weight) for c in net.coupling]
    sizes = [w.shape[1] for w in weights]
    n, hidden = sum(sizes), sum(sizes[:-1])
    stops = np.cumsum([0, *sizes])
    matrix = np.eye(n)
    for k, w in enumerate(weights[1:]):
        before, after = slice(stops[k], stops[k + 1]), slice(stops[k + 1], stops[k + 2])
        matrix[before, after], matrix[after, before] = -w, -w.T
    field = np.concatenate([np.asarray(b) for b in net.bias])
    field[: sizes[0]] += np.asarray(x) @ weights[0]
    found = []
    for sides in itertools.product((0.0, 1.0, None), repeat=hidden):
        open_units = [i for i in range(n) if i >= hidden or sides[i] is None]
        s = np.array([*(0.0 if side is None else side for side in sides), *np.zeros(n - hidden)])
        s[open_units] = np.linalg.solve(matrix[np.ix_(open_units, open_units)], (field - matrix @ s)[open_units])
        force = field - matrix @ s
        natural = np.append(np.clip(s[:hidden] + force[:hidden], 0, 1) - s[:hidden], force[hidden:])
        if np.max(np.abs(natural)) < 1e-9:
            found.append((0.5 * s @ matrix @ s - field @ s, s))
    return sorted(found, key=lambda pair: pair[0])


@pytest.mark.parametrize("seed", range(4))
def test_it_settles_where_the_optimality_conditions_hold(seed):
    net, x = dense(seed, gain=0.8, sizes=(3, 4, 3, 2)), inputs(seed)
    found = relax(net, x)
    assert found.status == Status.converged
    points = least_energies(net, x)
    assert len(points) == 1, "a convex instance has one such point"
    np.testing.assert_allclose(jnp.concatenate(found.state), points[0][1], atol=1e-9)
    np.testing.assert_allclose(found.energy, points[0][0], atol=1e-10)


def test_a_network_of_strong_couplings_settles_in_one_of_several_minima():
    net = dense(1, gain=3.0, sizes=(3, 4, 3, 2))
    points = least_energies(net, inputs(1))
    assert len(points) > 1
    reached = set()
    for seed in range(20):
        keys = jax.random.split(jax.random.key(seed), 3)
        start = tuple(jax.random.uniform(k, (n,)) for k, n in zip(keys, (4, 3, 2), strict=True))
        found = relax(net, inputs(1), None, start)
        gaps = [np.max(np.abs(jnp.concatenate(found.state) - s)) for _, s in points]
        assert min(gaps) < 1e-8
        reached.add(int(np.argmin(gaps)))
    assert 0 in reached, "the deepest minimum has a basin"
    assert len(reached) > 1


@pytest.mark.parametrize("kind", ["dense", "average", "max", "soft"])
@given(seed=seeds)
def test_no_sweep_raises_the_total_energy(kind, seed):
    net = dense(seed, gain=2.0) if kind == "dense" else convolutional(seed, kind, gain=2.0)
    x = inputs(seed) if kind == "dense" else images(seed)
    target = jnp.array([1.0, -1.0])
    nudge = Nudge(CrossEntropy(), target, jnp.array(0.8 if seed % 2 else -0.8))
    start = tuple(jax.random.uniform(jax.random.key(seed), shape) for shape in net.shapes[1:])
    for acting in (None, nudge):
        energies = descents(net, x, acting, start)
        assert np.all(np.diff(energies) <= 1e-13 * (1 + np.abs(energies[0])))
        assert energies[-1] < energies[0] - 1e-3


@eqx.filter_jit
def descents(net, x, nudge, start):
    """The total energy at a start and after each of eight sweeps from it."""

    def sweep(state, _):
        found = net.relax(x, nudge, state, solver=BlockDescent(sweeps=1))
        return found.state, found.energy

    return jnp.append(net.total_energy(start, x, nudge), jax.lax.scan(sweep, start, length=8)[1])


@pytest.mark.parametrize("kind", ["dense", "max", pytest.param("soft", marks=pytest.mark.slow)])
def test_the_generic_solver_agrees(kind):
    for seed in range(3):
        net = dense(seed) if kind == "dense" else convolutional(seed, kind, gain=0.6)
        x = inputs(seed) if kind == "dense" else images(seed)
        ours, generic = relax(net, x), relax(net, x, solver=DescendThenPolish())
        assert ours.status == generic.status == Status.converged
        assert largest_difference(ours.state, generic.state) < 1e-7


@given(seeds, st.sampled_from(["free", "nudged", "pinned"]))
def test_the_reported_residual_and_energy_are_the_definitions(seed, phase):
    net, x, target = convolutional(seed, "max"), images(seed), jnp.array([0.3, -0.2])
    nudge = {"free": None, "nudged": Nudge(SquaredError(), target, jnp.array(0.4)), "pinned": Pin(target)}[phase]
    start = relax(net, x).state
    for solver, status in ((BlockDescent(sweeps=1), Status.truncated), (None, Status.converged)):
        found = relax(net, x, nudge, start, solver)
        assert found.status == status
        residual, energy = defined(net, found.state, x, nudge)
        np.testing.assert_allclose(found.residual, residual, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(found.energy, energy, rtol=1e-12)
    assert phase != "pinned" or bool(jnp.all(found.state[-1] == target))


def test_forces_are_those_of_the_formula():
    net, x = dense(3), inputs(3)
    s1, s2, o = state = tuple(jax.random.uniform(jax.random.key(k), (n,)) for k, n in enumerate(SIZES[1:]))
    w0, w1, w2 = (c.weight for c in net.coupling)
    b1, b2, b3 = net.bias
    wanted = (x @ w0 + s2 @ w1.T + b1 - s1, s1 @ w1 + o @ w2.T + b2 - s2, s2 @ w2 + b3 - o)
    assert largest_difference(net.force(state, x), wanted) < 1e-14


def test_the_feed_forward_start_saves_sweeps_and_changes_no_equilibrium():
    fewer = 0
    for seed in range(10):
        net, x = dense(seed, gain=0.7), inputs(seed)
        zeros = tuple(jnp.zeros(n) for n in SIZES[1:])
        forward, cold = relax(net, x), relax(net, x, None, zeros)
        assert forward.status == cold.status == Status.converged
        assert largest_difference(forward.state, cold.state) < 1e-10
        assert net.residual(net.initial_state(x), x) <= net.residual(zeros, x)
        fewer += int(cold.steps) - int(forward.steps)
    assert fewer > 0


def test_relabelling_hidden_units_changes_nothing_but_their_order():
    net, x = dense(4), inputs(4)
    order = np.random.default_rng(0).permutation(SIZES[1])
    relabelled = eqx.tree_at(
        lambda n: (n.coupling[0].weight, n.coupling[1].weight, n.bias[0]),
        net,
        (net.coupling[0].weight[:, order], net.coupling[1].weight[order], net.bias[0][order]),
    )
    one, other = relax(net, x), relax(relabelled, x)
    np.testing.assert_allclose(other.state[0], one.state[0][order], atol=1e-11)
    np.testing.assert_allclose(other.state[-1], one.state[-1], atol=1e-11)
    np.testing.assert_allclose(other.energy, one.energy, atol=1e-12)


# nudges and pins


def test_one_step_settles_a_nudged_output_exactly():
    net, x = dense(0, sizes=(3, 2)), inputs(0)
    a, y = x @ net.coupling[0].weight + net.bias[0], jnp.array([0.7, -0.4])
    for beta in (-0.9, -0.3, 0.5, 1.5, 30.0):
        nudge = Nudge(SquaredError(), y, jnp.array(beta))
        found = relax(net, x, nudge, None, BlockDescent(sweeps=1))
        np.testing.assert_allclose(found.state[0], (a + beta * y) / (1 + beta), rtol=1e-12, atol=1e-14)


def test_cross_entropy_finds_the_softmax_fixed_point():
    net, x, y = dense(2, sizes=(3, 2)), inputs(2), jnp.array([1.0, 0.0])
    a = x @ net.coupling[0].weight + net.bias[0]
    for beta in (-1.5, 0.5, 40.0):
        found = relax(net, x, Nudge(CrossEntropy(), y, jnp.array(beta)))
        assert found.status == Status.converged
        np.testing.assert_allclose(found.state[0], a + beta * (y - jax.nn.softmax(found.state[0])), atol=1e-9)


def test_a_nudge_about_the_free_output_is_a_field_at_any_strength():
    net, x, y = dense(5), inputs(5), jnp.array([0.5, 0.1])
    free = relax(net, x)
    nudge = Nudge(SquaredError(), y, jnp.array(-3.0), about=free.state[-1])
    found = relax(net, x, nudge, free.state)
    assert found.status == Status.converged
    lifted = eqx.tree_at(lambda n: n.bias[-1], net, net.bias[-1] + nudge.pull(free.state[-1]))
    assert largest_difference(found.state, relax(lifted, x, None, free.state).state) < 1e-10


@pytest.mark.parametrize("beta", [-1.0, -1.5])
def test_a_nudge_that_pushes_harder_than_the_outputs_hold_is_unstable(beta):
    net, x = dense(3), inputs(3)
    assert relax(net, x, Nudge(SquaredError(), jnp.zeros(2), jnp.array(beta))).status == Status.unstable
    with pytest.raises(RuntimeError, match="pushes the outputs harder"):
        EquilibriumPropagation(beta=-beta, variant="negative")(net, x[None], jnp.zeros((1, 2)))


def test_a_stiff_nudge_is_a_pin():
    net, x, target = dense(6), inputs(6), jnp.array([0.4, -0.1])
    pinned = relax(net, x, Pin(target))
    assert pinned.status == Status.converged
    stiff = relax(net, x, Nudge(SquaredError(), target, jnp.array(1e9)))
    assert largest_difference(pinned.state, stiff.state) < 1e-6


def test_not_a_number_comes_back_as_a_status():
    assert relax(dense(0), jnp.array([0.1, jnp.nan, 0.2])).status == Status.not_finite
    short = relax(dense(0, gain=2.0), inputs(0), None, None, BlockDescent(max_sweeps=1))
    assert short.status == Status.out_of_steps


# learning


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["dense", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("average", "max", "soft"))],
)
def test_the_conformance_kit_finds_no_fault(kind):
    net = dense(0) if kind == "dense" else convolutional(0, kind)
    x = inputs(0, 2) if kind == "dense" else images(0, 2)
    report = check_substrate(net, x, jax.random.normal(jax.random.key(2), (2, 2)))
    report.raise_if_failed()
    slopes = [law for law in report.laws if law.name.startswith(("EP ->", "EP one-sided", "EP centred", "EP ="))]
    assert len(slopes) >= 3
    assert all(law.verdict == "holds" for law in slopes)


def test_measurements_are_the_derived_ones():
    for net, xs in ((dense(1), inputs(1, 3)), (convolutional(1, "average"), images(1, 3))):
        free = relax_batch(net, xs).state
        nudged = relax_batch(net, xs, Nudge(SquaredError(), jnp.ones((3, 2)), jnp.array(0.5)), free).state
        observed = measure(net, free, xs)
        plain = jax.tree.map(jnp.subtract, measure(net, nudged, xs), observed)
        assert largest_difference(contrast(net, nudged, free, xs), plain) < 1e-13
        # -<s_(k+1), w_k s_k> and -<b, s>, one pair at a time
        wanted = -np.mean([np.outer(u, v) for u, v in zip(free[-2].reshape(3, -1), free[-1], strict=True)], axis=0)
        np.testing.assert_allclose(observed.coupling[-1].weight, wanted, atol=1e-14)
        np.testing.assert_allclose(observed.bias[-1], -np.mean(free[-1], axis=0), atol=1e-14)


def test_a_sealed_network_learns():
    net = SealedSubstrate(dense(0, sizes=(2, 6, 1)))
    xs = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    ys = jnp.array([[0.1], [0.6], [0.6], [0.3]])
    rule = EquilibriumPropagation(beta=0.3)

    @eqx.filter_jit
    def train(net):
        moving, rest = eqx.partition(net, eqx.is_inexact_array)

        def step(moving, _):
            found = rule(eqx.combine(moving, rest), xs, ys)
            return eqx.apply_updates(moving, jax.tree.map(lambda g: -0.1 * g, found.gradient)), found.cost

        return jax.lax.scan(step, moving, length=1000)[1]

    costs = train(net)
    assert costs[-1] < 0.1 * costs[0]


def test_a_softmax_read_out_learns_with_it():
    net = LinearReadout(dense(2, gain=0.8), jax.random.normal(jax.random.key(1), (3, 2)))
    xs, ys = inputs(2, 3), jnp.eye(3)
    found = estimate(EquilibriumPropagation(1e-4, cost=CrossEntropy()), net, xs, ys).gradient
    wanted = estimate(ImplicitGradient(CrossEntropy()), net, xs, ys).gradient
    assert largest_difference(found, wanted) < 1e-6


def test_no_array_holds_every_example_of_every_coupling():
    net = HopfieldNetwork.layered((7, 11, 3), key=jax.random.key(0))
    rule = EquilibriumPropagation(beta=0.1, strict=False)
    program = str(eqx.filter_make_jaxpr(rule)(net, jnp.ones((5, 7)), jnp.ones((5, 3)))[0])
    assert "5,7,11]" not in program
    assert "5,11,3]" not in program


# max pooling


def events(net, x, states):
    """What each state decides: which entries the windows choose, and which units are at a bound."""
    decided = []
    for state in states:
        lifts = net.coupling[1].convolve(state[0])
        chosen = net.coupling[1].unpool(jnp.ones_like(state[1]), lifts) > 0
        decided.append(np.concatenate([np.ravel(chosen), *(np.ravel(np.sign(s * (1 - s))) for s in state[:-1])]))
    return decided


def test_with_max_pooling_the_gradient_is_right_until_a_window_chooses_otherwise():
    """At finite beta it and finite differences may disagree: each is right about the branch that it follows."""
    centred = lambda beta: EquilibriumPropagation(beta)
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    wide = []
    for seed in range(8):
        net, x, y = convolutional(seed, "max", gain=1.5), images(seed), jnp.array([1.0, 0.0])
        free = relax(net, x)
        assert free.status == Status.converged
        assert int(net.ties(free.state, x)) == 0, "a minimum does not rest on a kink"
        exact = flat(estimate(ImplicitGradient(), net, x[None], y[None]).gradient)
        for beta in (0.1, 1e-2, 1e-3, 1e-4):
            nudged = [relax(net, x, Nudge(SquaredError(), y, jnp.array(b)), free.state).state for b in (beta, -beta)]
            found = flat(estimate(centred(jnp.array(beta)), net, x[None], y[None]).gradient)
            error = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
            decided = events(net, x, (free.state, *nudged))
            same = all(np.array_equal(d, decided[0]) for d in decided)
            if same:
                assert error < 1e3 * beta**2 + 1e-9 / beta
            elif beta == 0.1:
                wide.append(error)
    assert max(wide) > 0.1, "where something switches the estimate belongs to another branch"


def test_a_tie_is_seen():
    net = convolutional(0, "max")
    flat = jax.tree.map(jnp.zeros_like, relax(net, images(0)).state)
    assert int(net.ties(flat, images(0))) == 0, "nobody listens"
    listening = (flat[0], jnp.ones_like(flat[1]), flat[2])
    assert int(net.ties(listening, images(0))) == listening[1].size


# the associative memory


def test_the_linear_layer_leaves_hopfields_energy():
    patterns = np.sign(np.random.default_rng(0).normal(size=(3, 8)))
    net = HopfieldNetwork.from_patterns(patterns)
    weight = net.coupling[1].weight
    hebb = patterns.T @ patterns / 3
    np.fill_diagonal(hebb, 0)
    gaps = []
    for sigma in itertools.islice(itertools.product((-1.0, 1.0), repeat=8), 0, 256, 5):
        s = jnp.asarray((1 + np.array(sigma)) / 2)
        energy = net.energy((s, s @ weight), jnp.zeros(1))
        gaps.append(float(energy) + 0.125 * np.array(sigma) @ hebb @ np.array(sigma))
    np.testing.assert_allclose(gaps, gaps[0], atol=1e-12)


def test_a_memory_below_capacity_mends_its_cues():
    rng = np.random.default_rng(1)
    patterns = np.sign(rng.normal(size=(6, 200)))
    net = HopfieldNetwork.from_patterns(patterns)
    for pattern in patterns:
        cue = pattern * np.where(rng.random(200) < 0.15, -1, 1)
        s = jnp.asarray((1 + cue) / 2)
        found = relax(net, jnp.zeros(1), None, (s, s @ net.coupling[1].weight))
        assert found.status == Status.converged
        np.testing.assert_allclose(2 * found.state[0] - 1, pattern, atol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("beta", [None, 0.1])
def test_a_cue_without_overlap_does_not_rest_on_the_saddle(dtype, beta):
    nudge = None if beta is None else Nudge(SquaredError(), jnp.zeros(1, dtype), jnp.asarray(beta, dtype))
    pattern = np.array([1.0, -1, 1, -1, 1, -1, 1, 1])
    net = HopfieldNetwork.from_patterns(pattern[None], dtype=dtype)
    middle = jnp.full(8, 0.5, dtype)
    found = relax(net, jnp.zeros(1, dtype), nudge, (middle, middle @ net.coupling[1].weight))
    assert found.status == Status.converged
    overlap = float(pattern @ np.asarray(2 * found.state[0] - 1))
    np.testing.assert_allclose(abs(overlap), 8, rtol=1e-6)
    again = relax(net, jnp.zeros(1, dtype), nudge, (middle, middle @ net.coupling[1].weight))
    np.testing.assert_array_equal(found.state[0], again.state[0])


def test_a_key_draws_the_way_down_from_a_saddle():
    net = HopfieldNetwork.from_patterns(np.ones((1, 4)))
    start = (jnp.full(4, 0.5), jnp.full(1, 2.0))
    sides = {float(net.relax(jnp.zeros(1), start=start, key=jax.random.key(k)).state[0][0]) for k in range(6)}
    assert sides == {0.0, 1.0}


# weak parts and slow ones


def chain_of_units(couplings, dtype):
    """A network of single units in a chain."""
    dense = tuple(Dense(jnp.full((1, 1), w, dtype)) for w in couplings)
    return HopfieldNetwork(dense, tuple(jnp.zeros(1, dtype) for _ in couplings), (1,))


def chain_at_rest(couplings, x, beta=0.0, target=0.0):
    """Where a chain settles that no bound holds, by elimination in rational numbers from the outputs."""
    ws, own = [Fraction(float(w)) for w in couplings], [Fraction(1)] * len(couplings)
    field = [Fraction(0)] * len(ws)
    field[0] = ws[0] * Fraction(float(x))
    own[-1] += Fraction(float(beta))
    field[-1] += Fraction(float(beta)) * Fraction(float(target))
    for k in reversed(range(1, len(ws))):
        own[k - 1] -= ws[k] ** 2 / own[k]
        field[k - 1] += ws[k] * field[k] / own[k]
    s = [field[0] / own[0]]
    for k in range(1, len(ws)):
        s.append((field[k] + ws[k] * s[-1]) / own[k])
    return [float(v) for v in s]


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("couplings", [(1.0, 1e-12, 0.5, 0.5), (1e-12, 0.5, 0.5, 1e-3), (1.0, 0.5, 0.5, 1e-9)])
@pytest.mark.parametrize("beta", [None, 1e-6, 0.1, -0.1])
def test_weak_layers_settle_beside_strong_ones(couplings, beta, dtype):
    net = chain_of_units(couplings, dtype)
    exact_w = [float(c.weight[0, 0]) for c in net.coupling]
    free = chain_at_rest(exact_w, 0.25)
    target = 2 * jnp.asarray(free[-1], dtype)
    nudge = None if beta is None else Nudge(SquaredError(), target[None], jnp.asarray(beta, dtype))
    wanted = chain_at_rest(exact_w, 0.25, *((0.0, 0.0) if nudge is None else (nudge.beta, target)))
    x = jnp.full(1, 0.25, dtype)
    for start in (None, relax(net, 2.5 * x).state):
        found = relax(net, x, nudge, start)
        assert found.status == Status.converged
        np.testing.assert_allclose(np.concatenate(found.state), wanted, rtol=1e-6 if dtype == jnp.float64 else 1e-3)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("w", [0.9, 0.99, 0.999, 1 - 1e-5])
def test_a_network_that_creeps_is_right_or_says_so(w, dtype):
    net = chain_of_units((1.0, w), dtype)
    exact = 0.4
    x = jnp.asarray([exact * (1 - float(net.coupling[1].weight[0, 0]) ** 2)], dtype)
    for start in (None, (jnp.full(1, exact + 0.01, dtype), jnp.full(1, exact + 0.01, dtype))):
        found = relax(net, x, None, start)
        close = abs(float(found.state[0][0]) - exact) < (1e-6 if dtype == jnp.float64 else 5e-3)
        assert close or found.status == Status.out_of_steps
    assert close or w > 0.99


# dtypes


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-4), (jnp.bfloat16, 0.1)])
def test_coarse_arithmetic_settles_near_the_same_place(dtype, tolerance):
    exact = dense(3, gain=0.8)
    coarse = jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, exact)
    one, other = relax(exact, inputs(3)), relax(coarse, inputs(3).astype(dtype))
    assert other.status == Status.converged
    assert all(layer.dtype == dtype for layer in other.state)
    assert largest_difference(one.state, jax.tree.map(lambda s: s.astype(float), other.state)) < tolerance


@pytest.mark.parametrize(
    ("kind", "dtype"), [("dense", jnp.bfloat16), pytest.param("conv", jnp.float32, marks=pytest.mark.slow)]
)
def test_it_reads_digits_in_coarse_arithmetic_and_by_convolutions(kind, dtype):
    digits = load_data("digits", seed=0)
    if kind == "dense":
        net = HopfieldNetwork.layered((64, 64, 10), key=jax.random.key(0), dtype=dtype)
    else:
        net = HopfieldNetwork.convolutional(
            (8, 8, 1), (16, 32), 10, pooling=None, gain=1.0, key=jax.random.key(0), dtype=dtype
        )
    run = fit(
        net,
        EquilibriumPropagation(beta=0.5),
        digits.train,
        optimiser=optax.sgd(0.1) if kind == "dense" else optax.adam(2e-3),
        epochs=6,
        batch_size=8,
        key=jax.random.key(1),
        test=digits.test,
        progress=False,
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(run.substrate)} == {jnp.dtype(dtype)}
    assert int(np.sum(run.history["unconverged"])) == 0
    assert run.test is not None
    assert run.test.error is not None
    assert run.test.error < 0.07


# what is refused


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sizes": (3,)}, "sizes"),
        ({"sizes": (3, 0, 2)}, "sizes"),
        ({"sizes": (3, 2.5, 2)}, "sizes"),
        ({"gain": -1.0}, "gain"),
        ({"gain": float("nan")}, "gain"),
        ({"gain": (1.0, 1.0, 1.0)}, "gain"),
        ({"dtype": jnp.int32}, "dtype"),
        ({"dtype": jnp.complex64}, "dtype"),
    ],
)
def test_impossible_dense_networks_are_refused_by_name(options, named, key):
    with pytest.raises(ValueError, match=named):
        HopfieldNetwork.layered(**{"sizes": (3, 4, 2), "key": key, **options})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"input_shape": (8, 8)}, "input_shape"),
        ({"channels": ()}, "channels"),
        ({"channels": (2, 0)}, "channels"),
        ({"n_outputs": 0}, "n_outputs"),
        ({"pooling": "min"}, "pooling"),
        ({"channels": (2, 2, 2, 2)}, "coupling 3: pooling: windows of 2x2 do not divide"),
        ({"kernel": 11, "padding": 0}, "does not fit"),
        ({"padding": -1}, "padding"),
    ],
)
def test_impossible_convolutions_are_refused_by_name(options, named, key):
    with pytest.raises(ValueError, match=named):
        HopfieldNetwork.convolutional(**{"input_shape": IMAGE, "channels": (2,), "n_outputs": 2, "key": key, **options})


def test_what_a_subclass_builds_is_that_subclass(key):
    class Own(HopfieldNetwork):
        pass

    built = (
        Own.layered((3, 4, 2), key=key),
        Own.convolutional(IMAGE, (2,), 2, key=key),
        Own.from_patterns([[1, -1]]),
        Own.for_task(3, 2, key=key),
    )
    assert [type(net) for net in built] == [Own] * 4


def test_parts_that_do_not_fit_are_refused():
    ones = lambda *shape: jnp.ones(shape)
    with pytest.raises(ValueError, match="coupling 1"):
        HopfieldNetwork((Dense(ones(3, 4)), Dense(ones(5, 2))), (ones(4), ones(2)), (3,))
    with pytest.raises(ValueError, match=r"bias\[0\]: wanted shape \(4,\)"):
        HopfieldNetwork((Dense(ones(3, 4)), Dense(ones(4, 2))), (ones(3), ones(2)), (3,))
    with pytest.raises(ValueError, match="bias: wanted one vector"):
        HopfieldNetwork((Dense(ones(3, 4)),), (), (3,))
    with pytest.raises(ValueError, match="Dense one to the outputs"):
        HopfieldNetwork((Convolution(ones(3, 3, 1, 2), "max"),), (ones(2),), IMAGE)
    with pytest.raises(ValueError, match="patterns"):
        HopfieldNetwork.from_patterns([[1.0, 0.0]])


def test_wrong_inputs_starts_and_nudges_are_refused():
    net = dense(0)
    with pytest.raises(ValueError, match=r"x: wanted shape \(3,\)"):
        net.relax(jnp.ones(4))
    with pytest.raises(ValueError, match=r"start: wanted shape \(5,\) and"):
        net.relax(jnp.ones(3), start=(jnp.ones(5), jnp.ones(4), jnp.ones(3)))
    with pytest.raises(ValueError, match="no analytic continuation"):
        net.relax(jnp.ones(3), Nudge(SquaredError(), jnp.ones(2), 0.1j))


def test_an_image_may_be_flat_or_not():
    net, x = convolutional(0, "average"), images(0)
    assert largest_difference(relax(net, x).state, relax(net, x.reshape(IMAGE)).state) == 0


def test_its_gradient_in_max_pooling_is_a_plain_difference():
    assert [convolutional(0, p).contrast_points for p in (None, "average", "soft", "max")] == [1, 1, 2, 0]
    assert isinstance(convolutional(0, None), Substrate)


def test_units_without_a_cue_leave_a_state_from_which_the_energy_falls():
    """s'^2/2 - (3 s)^2/2 has its minimum at the bound, and no force at s = 0."""
    net = HopfieldNetwork(
        (Dense(jnp.zeros((1, 1))), Dense(jnp.array([[3.0]]))), (jnp.zeros(1), jnp.zeros(1)), input_shape=(1,)
    )
    found = net.relax(jnp.zeros(1))
    assert found.converged
    np.testing.assert_allclose(np.concatenate(found.state), [1, 3], atol=1e-12)
    gentle = eqx.tree_at(lambda n: n.coupling[1].weight, net, jnp.array([[0.9]]))
    start = (jnp.array([0.4]), jnp.array([-0.2]))
    for found in (gentle.relax(jnp.zeros(1)), gentle.relax(jnp.zeros(1), start=start)):
        assert found.converged
        np.testing.assert_allclose(np.concatenate(found.state), 0, atol=1e-25)
