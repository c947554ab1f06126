"""How quantum oscillators answer to nudges and learn: theorems, finite differences, elastic networks, data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from learning import CrossEntropy, EquilibriumPropagation, PositionError, SquaredError, fit, load_data
from substrates import ElasticNetwork, Nudge, Pin, QuantumOscillatorNetwork, Status
from substrates.solvers.generic import DescendThenPolish
from substrates.substrate import relax_batch, split_parameters
from theory_checks import SealedSubstrate, check_substrate

EDGES = [(0, 1), (1, 2), (2, 3), (0, 3)]
XS = jnp.array([[0.7, -0.4], [-0.2, 0.9]])
X, Y = XS[0], jnp.array([0.6, -0.3])

relax = eqx.filter_jit(lambda net, x, nudge=None, start=None, solver=None: net.relax(x, nudge, start, solver=solver))
estimate = eqx.filter_jit(lambda rule, *arguments: rule(*arguments))
flat = lambda tree: ravel_pytree(tree)[0]


def network(**options):
    draw = np.random.default_rng(3)
    given = {
        "inputs": [0, 1],
        "outputs": [2, 3],
        "stiffness": draw.uniform(0.3, 1.5, len(EDGES)),
        "onsite_stiffness": draw.uniform(0.5, 2.0, 4),
        "bias_force": draw.normal(size=4),
        "mass": draw.uniform(0.5, 2.0, 4),
    }
    return QuantumOscillatorNetwork.from_edges(EDGES, 4, **{**given, **options})


def moments_of(target):
    """The moments of a sharp target."""
    return jnp.concatenate([target, target**2], axis=-1)


# nudges


temperatures = pytest.mark.parametrize("temperature", [0.0, pytest.param(0.5, marks=pytest.mark.slow)])


@temperatures
def test_a_cost_of_means_is_a_force_and_leaves_the_covariance_alone(temperature):
    net = network(temperature=temperature)
    free = relax(net, X)
    for beta in (-0.3, 0.5, 20.0):
        found = relax(net, X, Nudge(SquaredError(), Y, jnp.array(beta)))
        assert found.status == Status.converged
        np.testing.assert_array_equal(found.state.factor, free.state.factor)
        held = net.stiffness_matrix(X).at[jnp.array([2, 3]), jnp.array([2, 3])].add(beta)
        force = net.total_bias(X).at[jnp.array([2, 3])].add(beta * Y)
        np.testing.assert_allclose(found.state.mean, jnp.linalg.solve(held, force), rtol=1e-10)


@temperatures
def test_a_cost_of_positions_stiffens_the_outputs(temperature):
    """F = E + beta <(x - y)^2>/2 is the energy of oscillators with K_oo + beta and f_o + beta y."""
    net = network(reading="moments", temperature=temperature)
    for beta in (-0.3, 0.5, 20.0):
        found = relax(net, X, Nudge(PositionError(), moments_of(Y), jnp.array(beta)))
        assert found.status == Status.converged
        moved = lambda values, by: values.at[jnp.array([2, 3])].add(by)
        stiffer = eqx.tree_at(
            lambda n: (n.onsite_stiffness, n.bias_force),
            net,
            (moved(net.onsite_stiffness, beta), moved(net.bias_force, beta * Y)),
        )
        wanted = relax(stiffer, X)
        np.testing.assert_allclose(flat(found.state), flat(wanted.state), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(found.energy, wanted.energy + beta * jnp.sum(Y**2) / 2, rtol=1e-12)


def test_position_error_is_the_squared_error_and_the_variance():
    net = network(reading="moments")
    state = relax(net, X).state
    variance = jnp.diagonal(net.covariance(state))[2:]
    wanted = SquaredError()(state.mean[2:], Y) + jnp.sum(variance) / 2
    np.testing.assert_allclose(PositionError()(net.read(state, X), moments_of(Y)), wanted, rtol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("reading", ["mean", "moments"])
def test_costs_that_are_not_quadratic_settle_by_newtons_method(reading):
    net, target = network(reading=reading, drive="stiffness"), jnp.eye(4 if reading == "moments" else 2)[0]
    for cost, beta in ((CrossEntropy(), 2.0), (SquaredError(), 0.3)):
        nudge = Nudge(cost, target, jnp.array(beta))
        found = relax(net, X, nudge)
        assert found.status == Status.converged
        generic = relax(net, X, nudge, relax(net, X).state, DescendThenPolish())
        assert generic.status == Status.converged
        np.testing.assert_allclose(flat(found.state), flat(generic.state), atol=1e-8)


def test_a_nudge_about_the_free_output_is_linear():
    net = network(reading="moments")
    free = net.read(relax(net, X).state, X)
    nudge = Nudge(SquaredError(), moments_of(Y), jnp.array(0.1), about=free)
    found = relax(net, X, nudge)
    pull = nudge.pull(free)
    pulled = eqx.tree_at(
        lambda n: (n.onsite_stiffness, n.bias_force),
        net,
        (net.onsite_stiffness.at[2:].add(-2 * pull[2:]), net.bias_force.at[2:].add(pull[:2])),
    )
    np.testing.assert_allclose(flat(found.state), flat(relax(pulled, X).state), rtol=1e-12, atol=1e-14)


def test_a_pin_holds_means_and_variances():
    net = network()
    found = relax(net, X, Pin(Y))
    assert found.status == Status.converged
    np.testing.assert_allclose(found.state.mean[2:], Y, rtol=1e-12)
    stiff = relax(net, X, Nudge(SquaredError(), Y, jnp.array(1e9)))
    np.testing.assert_allclose(found.state.mean, stiff.state.mean, atol=1e-7)
    both = jnp.array([0.6, -0.3, 0.6, 0.3])
    net = network(reading="moments")
    found = relax(net, X, Pin(both))
    assert found.status == Status.converged
    np.testing.assert_allclose(net.read(found.state, X), both, rtol=1e-10)


@pytest.mark.slow
def test_a_complex_beta_continues_analytically():
    net, beta = network(), jnp.array(0.3 + 0.4j)
    found = relax(net, X, Nudge(SquaredError(), Y, beta), relax(net, X).state)
    assert found.status == Status.converged
    held = net.stiffness_matrix(X).astype(complex).at[jnp.array([2, 3]), jnp.array([2, 3])].add(beta)
    force = net.total_bias(X).astype(complex).at[jnp.array([2, 3])].add(beta * Y.astype(complex))
    np.testing.assert_allclose(found.state.mean, jnp.linalg.solve(held, force), atol=1e-10)


# instability


@pytest.mark.slow
def test_a_nudge_that_pushes_harder_than_the_outputs_are_held_is_unstable():
    for net, cost, y in ((network(), SquaredError(), Y), (network(reading="moments"), PositionError(), moments_of(Y))):
        compliance = np.linalg.inv(net.stiffness_matrix(X))[2:, 2:]
        edge = -1 / np.linalg.eigvalsh(compliance)[-1]
        assert relax(net, X, Nudge(cost, y, jnp.array(0.99 * edge))).status == Status.converged
        assert relax(net, X, Nudge(cost, y, jnp.array(1.01 * edge))).status == Status.unstable
        with pytest.raises(RuntimeError, match="pushes the outputs harder"):
            EquilibriumPropagation(beta=-1.01 * float(edge), cost=cost)(net, X[None], y[None])


def test_stiffness_that_is_not_positive_comes_back_as_a_status():
    net = network()
    soften = lambda k: relax(eqx.tree_at(lambda n: n.onsite_stiffness, net, jnp.full(4, k)), X).status
    assert soften(-3.0) == Status.unstable
    assert soften(0.0) == Status.zero_mode
    assert soften(1e-6) == Status.converged
    assert soften(jnp.nan) == Status.not_finite
    assert relax(net, jnp.array([0.1, jnp.nan])).status == Status.not_finite
    assert relax(net, X, Nudge(SquaredError(), jnp.array([jnp.nan, 0.0]), jnp.array(0.1))).status == Status.not_finite


@pytest.mark.parametrize("seed", range(3))
def test_constrained_networks_are_stable_however_they_were_pushed(seed):
    net = network(stiffness_floor=-np.inf)
    keys = jax.random.split(jax.random.key(seed))
    pushed = eqx.tree_at(
        lambda n: (n.stiffness, n.onsite_stiffness),
        net,
        (3 * jax.random.normal(keys[0], (4,)), 3 * jax.random.normal(keys[1], (4,))),
    )
    held = pushed.constrained()
    assert np.all(held.stiffness >= pushed.stiffness)
    np.testing.assert_array_equal(held.stiffness[pushed.stiffness >= 0], pushed.stiffness[pushed.stiffness >= 0])
    least = np.linalg.eigvalsh(held.stiffness_matrix(X))[0]
    assert least >= held.onsite_floor > 0
    assert jnp.all(network().constrained().stiffness == network().stiffness)


# learning


@pytest.mark.parametrize(
    "options",
    [
        {"reading": "moments", "drive": "anchor"},
        {"temperature": 0.4},
        {"temperature": 0.4, "reading": "moments", "drive": "stiffness"},
        {"hbar": 0.0},
    ],
)
@pytest.mark.slow
def test_the_conformance_kit_finds_no_fault(options):
    net = network(**options)
    ys = jnp.stack([Y, -Y])
    cost, ys = (PositionError(), moments_of(ys)) if net.reading == "moments" else (SquaredError(), ys)
    report = check_substrate(net, XS, ys, cost=cost)
    report.raise_if_failed()
    slopes = [law for law in report.laws if law.name.startswith(("EP ->", "EP one-sided", "EP centred", "EP ="))]
    assert len(slopes) >= 3
    assert all(law.verdict == "holds" for law in slopes)


@pytest.mark.parametrize(
    ("temperature", "variants"),
    [
        (0.0, {"centered": 2}),
        pytest.param(0.0, {"positive": 1, "negative": 1}, marks=pytest.mark.slow),
        pytest.param(0.4, {"positive": 1, "negative": 1, "centered": 2}, marks=pytest.mark.slow),
    ],
)
def test_the_gradient_is_that_of_finite_differences(temperature, variants):
    """Of the exact loss <(x - y)^2>/2, zero-point and thermal motion included, to 1e-6; slopes 1 and 2."""
    net = network(reading="moments", temperature=temperature)
    target = moments_of(Y)

    @jax.jit
    def loss(parameters):
        moved = eqx.tree_at(lambda n: (n.stiffness, n.onsite_stiffness, n.bias_force), net, parameters)
        return PositionError()(moved.read(moved.relax(X).state, X), target)

    at, step = (net.stiffness, net.onsite_stiffness, net.bias_force), 1e-4
    vector, unravel = ravel_pytree(at)
    # differences of fourth order
    difference = lambda e: sum(
        w * loss(unravel(vector + k * step * e)) for k, w in ((1, 8), (-1, -8), (2, -1), (-2, 1))
    )
    wanted = np.array([difference(e) for e in np.eye(vector.size)]) / (12 * step)

    def error(variant, beta):
        found = estimate(EquilibriumPropagation(beta, variant, PositionError()), net, X[None], target[None]).gradient
        found = flat((found.stiffness, found.onsite_stiffness, found.bias_force))
        return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))

    for variant, order in variants.items():
        assert error(variant, 1e-4 if order == 2 else 1e-7) < 1e-6
        ratio = error(variant, 0.02) / error(variant, 0.01)
        np.testing.assert_allclose(np.log2(ratio), order, atol=0.05)


def test_the_ground_energy_is_concave_in_the_nudge():
    net = network(reading="moments")
    energy = lambda beta: relax(net, X, Nudge(PositionError(), moments_of(Y), jnp.array(beta))).energy
    energies = np.array([energy(beta) for beta in np.linspace(-0.4, 2.0, 13)])
    assert np.all(np.diff(energies, 2) < 0)


@pytest.mark.slow
def test_zero_point_motion_has_a_gradient_that_vanishes_with_hbar():
    rule, exact = EquilibriumPropagation(0.1, cost=PositionError()), {}
    for hbar in (1.0, 0.5, 0.0):
        found = estimate(rule, network(reading="moments", hbar=hbar), X[None], moments_of(Y)[None])
        exact[hbar] = flat(found.gradient)
    np.testing.assert_allclose(exact[0.5] - exact[0.0], (exact[1.0] - exact[0.0]) / 2, rtol=1e-9, atol=1e-12)
    assert np.linalg.norm(exact[1.0] - exact[0.0]) > 0.01 * np.linalg.norm(exact[0.0])
    for hbar in (1.0, 0.0):
        found = estimate(EquilibriumPropagation(0.1), network(hbar=hbar), X[None], Y[None])
        np.testing.assert_allclose(flat(found.gradient), exact[0.0], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_its_means_are_an_elastic_network_and_learn_like_one():
    """A row of nodes between walls, springs along it; the left wall is moved, which is an anchor displaced."""
    k = np.array([1.2, 0.7, 0.4, 0.9])
    row = ElasticNetwork.from_edges(
        [(0, 1), (1, 2), (2, 3), (3, 4)],
        positions=[(i, 0.0) for i in range(5)],
        inputs=[(0, 0)],
        clamped=[(0, 1), (1, 1), (2, 1), (3, 1), 4],
        outputs=[(3, 0)],
        stiffness=k,
    )
    net = QuantumOscillatorNetwork.from_edges(
        [(0, 1), (1, 2)], 3, inputs=[0], outputs=[2], stiffness=k[1:3], onsite_stiffness=[k[0], 0.0, k[3]],
        drive="anchor", hbar=0.0,
    )  # fmt: skip
    x, y = jnp.array([0.05]), jnp.array([0.03])
    for beta in (0.1, 1.0):
        rule = EquilibriumPropagation(beta, "positive")
        wanted, found = rule(row, x[None], y[None]), rule(net, x[None], y[None])
        elastic, quantum = wanted.equilibria[0], found.equilibria[0]
        np.testing.assert_allclose(quantum.state.mean[0], np.ravel(elastic.state) - np.arange(1, 4), atol=1e-10)
        np.testing.assert_allclose(quantum.energy, elastic.energy, rtol=1e-8)
        found = found.gradient
        both = jnp.array([found.onsite_stiffness[0], *found.stiffness, found.onsite_stiffness[2]])
        np.testing.assert_allclose(both, wanted.gradient.stiffness, rtol=1e-6)


def test_a_batch_of_forces_shares_one_eigenvalue_problem():
    xs, ys = jnp.ones((7, 2)), jnp.ones((7, 2))
    net = network()
    program = str(
        jax.make_jaxpr(lambda xs, ys: relax_batch(net, xs, Nudge(SquaredError(), ys, jnp.array(0.1))))(xs, ys)
    )
    assert "7,4,4" not in program
    softened = network(drive="stiffness")
    assert "7,4,4" in str(jax.make_jaxpr(lambda xs: relax_batch(softened, xs))(xs))


@pytest.mark.slow
def test_a_sealed_network_learns_exclusive_or_from_stiffnesses():
    """Means answer linearly to forces, so no forces do; differences of means answer nonlinearly to stiffnesses."""
    xs = jnp.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    ys = jax.nn.one_hot(jnp.array([0, 1, 1, 0]), 2)
    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, 3000))

    @eqx.filter_jit
    def train(net):
        rule = EquilibriumPropagation(0.1, cost=CrossEntropy())
        moving, rest = split_parameters(net)

        def step(carry, _):
            moving, memory = carry
            found = rule(eqx.combine(moving, rest), xs, ys)
            with jax.numpy_dtype_promotion("standard"):  # which optax relies on
                updates, memory = optimiser.update(found.gradient, memory)
            moved = eqx.combine(eqx.apply_updates(moving, updates), rest).constrained()
            return (split_parameters(moved)[0], memory), found.cost

        return jax.lax.scan(step, (moving, optimiser.init(moving)), length=3000)[1]

    draw = np.random.default_rng(0)
    springs, force = draw.uniform(0.0, 1.5, 5), draw.normal(size=4)
    build = lambda drive: QuantumOscillatorNetwork.from_edges(
        [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)], 4, inputs=[0, 1], outputs=[2, 3], stiffness=springs,
        onsite_stiffness=1.0, bias_force=force, drive=drive, gain=2.0, stiffness_floor=0.0, onsite_floor=0.05,
    )  # fmt: skip
    assert train(SealedSubstrate(build("stiffness")))[-1] < 0.05
    assert jnp.min(train(SealedSubstrate(build("force")))) > np.log(2) - 1e-9, "the best linear answer is one half"


@pytest.mark.slow
def test_forces_learn_iris():
    data = load_data("iris", seed=0)
    run = fit(
        QuantumOscillatorNetwork.for_task(4, 3, key=jax.random.key(0)),
        EquilibriumPropagation(0.1, cost=CrossEntropy()),
        data.train,
        optimiser=optax.adam(0.02),
        epochs=60,
        batch_size=16,
        test=data.test,
        key=jax.random.key(1),
        progress=False,
    )
    assert run.test.accuracy >= 0.93
    assert sum(run.history["unconverged"]) == 0
