"""Nudges: energies, pulls and curvatures against closed forms; tangents; nudges seen from further inside; batching."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_system import KEY, SYSTEMS, input_size
from hypothesis import given
from hypothesis import strategies as st

from learning import CrossEntropy, SquaredError
from learning.costs import NegativeLogLikelihood
from substrates import Nudge, Pin
from substrates.nudge import batch_axes

vectors = st.lists(st.floats(-3, 3), min_size=3, max_size=3).map(jnp.array)
betas = st.floats(-2, 2).map(jnp.asarray)
OUTPUT, TARGET = jnp.array([0.4, -1.2, 2.0]), jnp.array([0.0, 1.0, 0.0])


class Affine(eqx.Module):
    weight: jax.Array
    offset: jax.Array

    def __call__(self, inner):
        return self.weight @ inner + self.offset


class Curved(eqx.Module):
    def __call__(self, inner):
        return jnp.stack([inner[0] * inner[1], jnp.sin(inner[0]), inner[1] ** 2])


def differences(function, at, step=1e-6):
    unit = np.eye(at.size)
    return np.array([(function(at + step * e) - function(at - step * e)) / (2 * step) for e in unit])


@given(vectors, vectors, betas)
def test_the_pull_is_minus_the_slope_of_its_energy(output, target, beta):
    for cost in (SquaredError(), CrossEntropy()):
        nudge = Nudge(cost, target, beta)
        np.testing.assert_allclose(nudge.pull(output), -differences(nudge.energy, output), atol=1e-7)
        np.testing.assert_allclose(nudge.curvature(output), -differences(nudge.pull, output), atol=1e-7)
        np.testing.assert_allclose(nudge.stiffness(output), np.diag(nudge.curvature(output)), atol=1e-14)


@given(vectors, vectors, betas)
def test_a_tangent_touches_the_cost_at_the_free_output_and_is_straight(output, about, beta):
    full, tangent = Nudge(CrossEntropy(), TARGET, beta), Nudge(CrossEntropy(), TARGET, beta, about)
    np.testing.assert_allclose(tangent.energy(about), full.energy(about), atol=1e-13)
    np.testing.assert_allclose(tangent.pull(output), full.pull(about), atol=1e-13)
    np.testing.assert_allclose(tangent.curvature(output), np.zeros((3, 3)))
    chord = tangent.energy(output) - tangent.energy(about)
    np.testing.assert_allclose(chord, -full.pull(about) @ (output - about), atol=1e-12)


@pytest.mark.parametrize("about", [None, OUTPUT + 0.3])
def test_a_nudge_seen_from_inside_pulls_through_the_map(about):
    weight, offset = jax.random.normal(jax.random.key(0), (3, 2)), jnp.array([0.1, -0.2, 0.3])
    nudge, inner = Nudge(CrossEntropy(), TARGET, 0.7, about), jnp.array([0.5, -0.9])
    inside, output = nudge.through(Affine(weight, offset)), weight @ inner + offset
    np.testing.assert_allclose(inside.energy(inner), nudge.energy(output), rtol=1e-13)
    np.testing.assert_allclose(inside.pull(inner), weight.T @ nudge.pull(output), rtol=1e-12)
    np.testing.assert_allclose(inside.curvature(inner), weight.T @ nudge.curvature(output) @ weight, atol=1e-13)


def test_a_nudge_passes_through_a_curved_map():
    inside, inner = Nudge(SquaredError(), TARGET, 0.7).through(Curved()), jnp.array([0.5, -0.9])
    np.testing.assert_allclose(inside.pull(inner), -differences(inside.energy, inner), atol=1e-8)


@pytest.mark.parametrize("about", [False, True])
@pytest.mark.parametrize("each", [False, True])
def test_a_batch_of_nudges_maps_over_targets_free_outputs_and_strengths(about, each):
    outputs, targets = jnp.stack([OUTPUT, 2 * OUTPUT]), jnp.stack([TARGET, -TARGET])
    beta = jnp.array([0.3, 0.6]) if each else jnp.asarray(0.3)
    nudges = Nudge(SquaredError(), targets, beta, outputs + 1 if about else None)
    pulls = jax.vmap(lambda n, o: n.pull(o), in_axes=(batch_axes(nudges), 0))(nudges, outputs)
    strengths = np.array([0.3, 0.6 if each else 0.3])[:, None]
    np.testing.assert_allclose(pulls, -strengths * (outputs + float(about) - targets), rtol=1e-13)
    inside = nudges.through(Affine(jnp.eye(3), jnp.zeros(3)))
    seen = jax.vmap(lambda n, o: n.pull(o), in_axes=(batch_axes(inside), 0))(inside, outputs)
    np.testing.assert_allclose(seen, pulls, rtol=1e-13)


def test_pins_map_over_their_targets():
    pins = Pin(jnp.zeros((4, 3)))
    assert jax.tree.leaves(batch_axes(pins)) == [0]
    assert batch_axes(None) is None


def test_another_strength_needs_no_new_program():
    traced = []

    @jax.jit
    def pull(nudge):
        traced.append(1)
        return nudge.pull(OUTPUT)

    for beta in (0.1, -0.5, 2.0):
        np.testing.assert_allclose(pull(Nudge(SquaredError(), TARGET, jnp.asarray(beta))), beta * (TARGET - OUTPUT))
    assert len(traced) == 1


def test_a_complex_strength_pulls_analytically():
    wide = lambda a: jax.lax.complex(a, jnp.zeros_like(a))
    for cost in (SquaredError(), CrossEntropy()):
        real = Nudge(cost, TARGET, 1.0).pull(OUTPUT)
        turned = Nudge(cost, wide(TARGET), jnp.asarray(0.2 + 0.5j)).pull(wide(OUTPUT))
        np.testing.assert_allclose(turned, (0.2 + 0.5j) * np.asarray(real), rtol=1e-13)


@pytest.mark.parametrize("beta", [0, 0.0, jnp.zeros(()), jnp.zeros((), complex)])
@pytest.mark.parametrize("about", [None, jnp.array([0.0, 1.0, 0.0])])
def test_strength_zero_adds_nothing_where_a_cost_is_infinite_or_no_number(beta, about):
    holomorphic = jnp.iscomplexobj(beta)
    output, target, about = (
        None if a is None else jnp.asarray(a, complex if holomorphic else float)
        for a in ([0, 1, 0], [0.5, 0.5, 0], about)
    )
    nudge = Nudge(NegativeLogLikelihood(), target, beta, about)
    slope = jax.grad(nudge.energy, holomorphic=holomorphic)(output)
    bend = jax.jacfwd(nudge.pull, holomorphic=holomorphic)(output)
    for found in (nudge.energy(output), nudge.pull(output), nudge.curvature(output), nudge.size(output), slope, bend):
        np.testing.assert_array_equal(found, np.zeros(np.shape(found)))
    pull = lambda beta: Nudge(NegativeLogLikelihood(), TARGET, beta).pull(jnp.asarray([0.0, 1.0, 0.0]))
    some = jax.vmap(pull)(jnp.array([0.0, 2.0]))
    np.testing.assert_array_equal(some, [[0, 0, 0], [np.nan, 2.0, np.nan]])


@pytest.mark.parametrize("about", [None, TARGET])
def test_derivatives_in_the_strength_are_right_at_zero(about):
    pull = lambda beta: Nudge(CrossEntropy(), TARGET, beta, about).pull(OUTPUT)
    energy = lambda beta: Nudge(CrossEntropy(), TARGET, beta, about).energy(OUTPUT)
    np.testing.assert_allclose(jax.jacfwd(pull)(0.0), pull(1.0), rtol=1e-14)
    np.testing.assert_allclose(jax.jacrev(pull)(0.0), pull(1.0), rtol=1e-14)
    np.testing.assert_allclose(jax.grad(energy)(0.0), energy(1.0), rtol=1e-14)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_target_and_a_strength_of_64_bits_leave_a_system_of_32_as_it_is(name):
    single = {np.dtype("f8"): np.dtype("f4"), np.dtype("c16"): np.dtype("c8")}
    narrow = lambda leaf: leaf.astype(single.get(leaf.dtype, leaf.dtype)) if eqx.is_inexact_array(leaf) else leaf
    net = jax.tree.map(narrow, SYSTEMS[name]())
    x = jnp.linspace(0.3, 0.8, input_size(net), dtype=jnp.float32)
    shown = eqx.filter_eval_shape(lambda net, x: net.read(net.start(x, KEY), x), net, x)
    assert shown.dtype == jnp.float32
    nudge = Nudge(SquaredError(), jnp.zeros(shown.shape), jnp.asarray(0.01))
    found = eqx.filter_eval_shape(lambda net, x, nudge: net.relax(x, nudge, key=KEY), net, x, nudge)
    assert {leaf.dtype for leaf in jax.tree.leaves(found) if leaf.dtype.kind in "fc"} <= set(single.values())
