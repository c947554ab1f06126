"""The deep resistive network against the generic solver, a bounded program of SciPy, and its own circuit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from learning import CrossEntropy, EquilibriumPropagation, SquaredError
from substrates import Nudge, Pin, ResistorNetwork, Status, Substrate
from substrates.classical.resistor.layer_descent import LayerDescent
from substrates.solvers.generic import DescendThenPolish
from substrates.substrate import relax_batch

SIZES = (3, 8, 6, 2)
seeds = st.integers(0, 2**31 - 1)


def network(seed, *, amplifiers=((2.0, 2.0), (3.0, 0.5)), rails=(1.0, -1.0, 0.0), sizes=SIZES, dtype=None):
    return ResistorNetwork.layered(
        sizes, key=jax.random.key(seed), input_gain=5.0, amplifiers=amplifiers, rails=rails, dtype=dtype
    )


def inputs(seed, batch=None, n=SIZES[0]):
    shape = (n,) if batch is None else (batch, n)
    return jax.random.normal(jax.random.key(seed + 1), shape)


relax = eqx.filter_jit(lambda net, x, nudge=None, start=None, solver=None: net.relax(x, nudge, start, solver=solver))


def split(flat):
    return tuple(jnp.split(flat, np.cumsum(SIZES[1:-1])))


energy_and_slope = eqx.filter_jit(lambda y, net, x: jax.value_and_grad(lambda y: net.energy(split(y), x))(y))
energy_hessian = eqx.filter_jit(lambda y, net, x: jax.hessian(lambda y: net.energy(split(y), x))(y))


def largest_difference(left, right):
    return max(
        float(jnp.max(jnp.abs(a - b))) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


@given(seeds)
def test_operating_point_solves_the_bounded_quadratic_program(seed):
    net, x = network(seed), inputs(seed)
    found = relax(net, x)
    assert found.status == Status.converged
    flat = jnp.concatenate(found.state)
    lower, upper = (np.concatenate(side) for side in net.bounds(x))
    bounds = list(zip(lower, upper, strict=True))
    oracle = minimize(
        lambda y: tuple(np.asarray(part) for part in energy_and_slope(jnp.asarray(y), net, x)),
        np.zeros(flat.size),
        jac=True,
        bounds=bounds,
        method="L-BFGS-B",
        options={"ftol": 0, "gtol": 1e-11, "maxiter": 5000, "maxfun": 20000},
    )
    assert float(found.energy) <= oracle.fun + 1e-10 * abs(oracle.fun)
    np.testing.assert_allclose(flat, oracle.x, atol=1e-4 * float(jnp.max(jnp.abs(flat))))


@given(seeds)
@settings(max_examples=8)
def test_layer_descent_agrees_with_the_generic_solver(seed):
    net, x = network(seed), inputs(seed)
    ours = relax(net, x)
    generic = relax(net, x, solver=DescendThenPolish())
    scale = float(jnp.max(jnp.abs(ours.state[0])))
    assert generic.status == Status.converged
    flat, unravel = jax.flatten_util.ravel_pytree(ours.state)
    softest = jnp.linalg.eigvalsh(jax.hessian(lambda y: net.energy(unravel(y), x))(flat))[0]
    error_bound = 2 * flat.size**0.5 * generic.residual / softest
    assert largest_difference(ours.state, generic.state) < error_bound + 1e-12 * scale
    circuit = net.to_circuit()
    np.testing.assert_allclose(ours.state[-1], circuit.read(circuit.relax(x).state, x), rtol=1e-10, atol=1e-11 * scale)


@given(seeds, st.sampled_from(["free", "nudged", "pinned"]))
def test_reported_residual_is_the_definition(seed, phase):
    net, x = network(seed), inputs(seed)
    start = relax(net, x).state
    target = jnp.array([0.3, -0.2])
    nudge = {"free": None, "nudged": Nudge(SquaredError(), target, jnp.array(0.2)), "pinned": Pin(target)}[phase]
    truncated = relax(net, x, nudge, start, LayerDescent(sweeps=1))
    assert truncated.status == Status.truncated
    np.testing.assert_allclose(truncated.residual, net.residual(truncated.state, x, nudge), rtol=1e-9, atol=1e-12)
    settled = relax(net, x, nudge, start)
    assert settled.status == Status.converged
    assert float(settled.residual) < 1e-10


@given(seeds)
def test_no_sweep_raises_the_co_content(seed):
    net, x = network(seed), inputs(seed)
    nudge = Nudge(SquaredError(), jnp.array([1.0, -1.0]), jnp.array(0.5))
    energies = [relax(net, x, nudge, None, LayerDescent(sweeps=n)).energy for n in range(6)]
    steps = np.diff(np.asarray(energies))
    assert np.all(steps <= 1e-12 * abs(float(energies[0])) + 1e-12)


def test_no_diode_carries_current_backwards():
    net, x = network(5), inputs(5)
    state = relax(net, x).state
    force = net.total_force(state, x)
    for layer, current in zip(state[:-1], force[:-1], strict=True):
        half = (layer.size + 1) // 2
        assert jnp.all(layer[:half] >= 0)
        assert jnp.all(layer[half:] <= 0)
        # at 0 V the diode supplies what Kirchhoff's law lacks: into an excitatory node, out of an inhibitory one
        assert jnp.all(jnp.where(layer == 0, current, 0.0)[:half] <= 1e-12)
        assert jnp.all(jnp.where(layer == 0, current, 0.0)[half:] >= -1e-12)
        assert jnp.any(layer == 0), "an instance in which no diode conducts tests nothing"


def test_pin_holds_the_outputs_and_settles_the_rest():
    net, x, target = network(2), inputs(2), jnp.array([0.4, -0.1])
    pinned = relax(net, x, Pin(target))
    np.testing.assert_array_equal(pinned.state[-1], target)
    stiff = relax(net, x, Nudge(SquaredError(), target, jnp.array(1e9)))
    assert largest_difference(pinned.state, stiff.state) < 1e-6


def test_measurements_are_the_derived_ones():
    net, xs = network(1), inputs(1, batch=7)
    targets = jax.random.normal(jax.random.key(9), (7, 2))
    free = relax_batch(net, xs).state
    nudged = relax_batch(net, xs, Nudge(SquaredError(), targets, jnp.array(0.5)), free).state
    assert largest_difference(net.measure(free, xs), Substrate.measure(net, free, xs)) < 1e-12
    contrast = net.contrast(nudged, free, xs)
    assert largest_difference(contrast, Substrate.contrast(net, nudged, free, xs)) < 1e-12
    plain = jax.tree.map(jnp.subtract, net.measure(nudged, xs), net.measure(free, xs))
    assert largest_difference(contrast, plain) < 1e-11


@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()])
def test_gradient_is_that_of_the_loss(cost):
    net, xs = network(4), inputs(4, batch=5)
    targets = jax.nn.one_hot(jnp.arange(5) % 2, 2)

    @eqx.filter_jit
    def loss(net):
        return jnp.mean(jax.vmap(cost)(relax_batch(net, xs).state[-1], targets))

    estimate = eqx.filter_jit(EquilibriumPropagation(beta=1e-3, cost=cost))(net, xs, targets)
    for where, gradient in (
        (lambda n: n.conductance[0], estimate.gradient.conductance[0]),
        (lambda n: n.conductance[2], estimate.gradient.conductance[2]),
        (lambda n: n.bias_current[1], estimate.gradient.bias_current[1]),
        (lambda n: n.rail_conductance[0], estimate.gradient.rail_conductance[0]),
    ):
        direction = jax.random.normal(jax.random.key(3), gradient.shape)
        shifted = [eqx.tree_at(where, net, where(net) + h * direction) for h in (1e-6, -1e-6)]
        slope = (loss(shifted[0]) - loss(shifted[1])) / 2e-6
        np.testing.assert_allclose(jnp.sum(gradient * direction), slope, rtol=2e-4, atol=1e-8)


def test_batch_equals_singles_and_jit_equals_eager():
    net, xs = network(6), inputs(6, batch=4)
    batched = relax_batch(net, xs).state
    singles = [net.relax(x).state for x in xs]
    for layer, stacked in enumerate(batched):
        np.testing.assert_allclose(stacked, jnp.stack([single[layer] for single in singles]), rtol=1e-12, atol=1e-13)


def test_a_floating_node_stays_where_it_is():
    net = network(0, rails=())
    cut = eqx.tree_at(
        lambda n: n.conductance,
        net,
        (net.conductance[0].at[:, 0].set(0), net.conductance[1].at[0].set(0), net.conductance[2]),
    )
    settled = relax(cut, inputs(0))
    assert settled.status == Status.converged
    assert settled.state[0][0] == 0


def test_a_nudge_that_pushes_harder_than_the_outputs_are_held_is_unstable():
    net, x = network(3), inputs(3)
    held = net.weights()[-1] * net.column_sums(2)
    nudge = Nudge(SquaredError(), jnp.zeros(2), -1.1 * jnp.max(held))
    assert relax(net, x, nudge).status == Status.unstable
    with pytest.raises(RuntimeError, match="pushes the outputs harder"):
        EquilibriumPropagation(beta=float(1.1 * jnp.max(held)), variant="negative")(net, x[None], jnp.zeros((1, 2)))


def test_float32_gradient_of_three_hidden_layers_keeps_its_direction():
    sizes = (64, 128, 128, 128, 10)
    exact = network(0, sizes=sizes, amplifiers=None, rails=())
    exact = eqx.tree_at(lambda n: n.input_gain, exact, jnp.array(4000.0))
    xs = jax.random.uniform(jax.random.key(1), (4, 64)) * jax.random.bernoulli(jax.random.key(2), 0.3, (4, 64)).astype(
        float
    )
    targets = jax.nn.one_hot(jnp.arange(4), 10)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, exact)
    rule = EquilibriumPropagation(beta=2.0)
    reference = eqx.filter_jit(rule)(exact, xs, targets).gradient.conductance[0]
    rounded = eqx.filter_jit(rule)(single, xs.astype(jnp.float32), targets.astype(jnp.float32)).gradient.conductance[0]
    assert rounded.dtype == jnp.float32
    cosine = jnp.sum(reference * rounded.astype(reference.dtype)) / (
        jnp.linalg.norm(reference) * jnp.linalg.norm(rounded.astype(reference.dtype))
    )
    assert cosine > 0.99


def test_no_array_holds_every_example_of_every_conductance():
    net = ResistorNetwork.layered((7, 11, 3), key=jax.random.key(0), input_gain=3.0)
    xs, targets = jnp.ones((5, 7)), jnp.ones((5, 3))
    program = eqx.filter_make_jaxpr(EquilibriumPropagation(beta=0.1, strict=False))(net, xs, targets)[0]
    assert "5,14,11]" not in str(program)
    assert "5,11,3]" not in str(program)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sizes": (3,)}, "sizes"),
        ({"sizes": (3, 0, 2)}, "sizes"),
        ({"input_gain": -1.0}, "input_gain"),
        ({"input_gain": float("nan")}, "input_gain"),
        ({"weight_gain": 0.0}, "weight_gain"),
        ({"amplifiers": [(1.0, 1.0), (2.0, 2.0)]}, "amplifiers"),
        ({"amplifiers": [(1.0, 0.0)]}, "amplifiers"),
        ({"rails": (float("inf"),)}, "rails"),
        ({"floor": -1.0}, "floor"),
    ],
)
def test_impossible_options_are_refused_by_name(options, named, key):
    with pytest.raises(ValueError, match=named):
        ResistorNetwork.layered(**{"sizes": (3, 4, 2), "key": key, **options})


def test_wrong_input_shape_is_refused():
    with pytest.raises(ValueError, match=r"x: wanted shape \(3,\)"):
        network(0).relax(jnp.ones(4))


def test_constrained_lifts_conductances_to_the_floor(key):
    net = ResistorNetwork.layered((3, 4, 2), key=key, floor=0.01)
    below = eqx.tree_at(lambda n: n.conductance[0], net, net.conductance[0] - 1)
    assert all(jnp.min(g) >= 0.01 for g in below.constrained().conductance)
