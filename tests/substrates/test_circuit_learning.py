"""Equilibrium propagation on circuits: its gradient against finite differences of the loss, and its orders in beta."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuits import EDGES, circuit, inputs

from learning import CrossEntropy, EquilibriumPropagation, ImplicitGradient, SquaredError
from substrates import ResistorNetwork
from substrates.substrate import relax_batch

BATCH = 3
TARGETS = jnp.array([[0.5, -0.2], [0.0, 0.4], [1.0, 0.1]])
estimate = eqx.filter_jit(lambda rule, net, xs, ys: rule(net, xs, ys).gradient.conductance)


def loss_slope(net, xs, cost):
    """The gradient of the mean cost in every conductance, by fourth-order central differences of relaxed losses."""

    @jax.jit
    def loss(g):
        moved = eqx.tree_at(lambda net: net.conductance, net, g)
        states = relax_batch(moved, xs).state
        return jnp.mean(jax.vmap(cost)(jax.vmap(moved.read)(states, xs), TARGETS))

    slopes = []
    for k in range(len(EDGES)):
        step = 1e-3 * net.conductance[k]
        at = [float(loss(net.conductance.at[k].add(m * step))) for m in (-2, -1, 1, 2)]
        slopes.append((at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step))
    return np.asarray(slopes)


@pytest.mark.parametrize(
    ("kind", "cost"),
    [
        ("amplifier", CrossEntropy()),
        pytest.param("diodes", SquaredError(), marks=pytest.mark.slow),
        pytest.param("real diodes", SquaredError(), marks=pytest.mark.slow),
        pytest.param("bounds", CrossEntropy(), marks=pytest.mark.slow),
        pytest.param("real diodes", CrossEntropy(), marks=pytest.mark.slow),
    ],
)
def test_gradient_against_finite_differences_and_its_orders(kind, cost):
    """One-sided errors fall as beta, centred ones as beta squared, down to the rounding of the differences."""
    net, xs = circuit(kind, 11), inputs(11, BATCH)
    wanted = loss_slope(net, xs, cost)
    size = np.max(np.abs(wanted))

    def error(variant, beta):
        rule = EquilibriumPropagation(beta=jnp.asarray(beta), variant=variant, cost=cost)
        return np.max(np.abs(estimate(rule, net, xs, TARGETS) - wanted)) / size

    betas = np.array([1e-3, 5e-4])
    for variant, order in (("positive", 1), ("centered", 2)):
        errors = np.array([error(variant, beta) for beta in betas])
        slopes = np.log2(errors[:-1] / errors[1:])
        np.testing.assert_allclose(slopes, order, atol=0.15)
    assert error("centered", 3e-5) < 5e-7


def test_single_precision_keeps_the_gradient_of_a_small_beta():
    """The contrast (d_i - d_j)(m_i - m_j) does not cancel: float32 agrees with float64 where squares would not."""
    wide, narrow = circuit("linear", 2), circuit("linear", 2, jnp.float32)
    xs = 100 * inputs(2, BATCH)
    rule = lambda dtype: EquilibriumPropagation(beta=jnp.asarray(1e-2, dtype), cost=SquaredError())
    exact = estimate(rule(jnp.float64), wide, xs, TARGETS)
    rough = estimate(rule(jnp.float32), narrow, xs.astype(jnp.float32), TARGETS.astype(jnp.float32))
    assert rough.dtype == jnp.float32
    cosine = exact @ rough.astype(jnp.float64) / jnp.linalg.norm(exact) / jnp.linalg.norm(rough).astype(jnp.float64)
    assert cosine > 0.9999


def test_contrast_is_the_difference_of_measurements():
    net, xs = circuit("sources", 4), inputs(4, BATCH)
    plus, minus = (relax_batch(net, xs * scale).state for scale in (1.0, 0.7))
    stable = net.contrast(plus, minus, xs).conductance
    plain = net.measure(plus, xs).conductance - net.measure(minus, xs).conductance
    np.testing.assert_allclose(stable, plain, rtol=1e-9, atol=1e-12)


def test_a_one_way_amplifier_gets_the_vector_field_rule():
    """Without an energy the contrast is -<d force/d conductance, d>; its gradient is exact only with the transpose."""
    net, xs = circuit("one-way amplifier", 4), inputs(4, BATCH)
    assert not net.conservative
    plus, minus = (relax_batch(net, xs * scale).state for scale in (1.0, 0.7))
    mean = (plus + minus) / 2

    def work(g):
        moved = eqx.tree_at(lambda net: net.conductance, net, g)
        return -jnp.mean(jax.vmap(lambda s, x, d: jnp.sum(moved.force(s, x) * d))(mean, xs, plus - minus))

    np.testing.assert_allclose(net.contrast(plus, minus, xs).conductance, jax.grad(work)(net.conductance), rtol=1e-10)
    with pytest.raises(TypeError, match="no energy"):
        net.measure(plus, xs)


@pytest.mark.slow
def test_the_exact_gradient_of_a_long_ladder_needs_no_matrix():
    """700 nodes, which leak to ground: too many to factorise, and ill-conditioned."""
    n = 700
    edges = [(k, k + 1) for k in range(n - 1)] + [(k, n) for k in range(1, n - 1)]
    conductance = np.repeat([1.0, 1e-4], [n - 1, n - 2])
    net = ResistorNetwork.from_edges(edges, n=n + 1, inputs=[0, n], outputs=[n - 1], conductance=conductance)
    found = ImplicitGradient()(net, jnp.array([[1.0, 0.0]]), jnp.array([[0.5]]))
    laplacian = np.zeros((n + 1, n + 1))
    for (a, b), g in zip(edges, conductance, strict=True):
        laplacian[np.ix_([a, b], [a, b])] += g * np.array([[1, -1], [-1, 1]])
    inner = laplacian[1:n, 1:n]
    driven, pushed = (np.zeros(n + 1) for _ in range(2))
    driven[0], driven[1:n] = 1, np.linalg.solve(inner, -laplacian[1:n, 0])
    pushed[1:n] = np.linalg.solve(inner, np.eye(n - 1)[-1])
    drop = lambda v: np.array([v[a] - v[b] for a, b in edges])
    wanted = -(driven[n - 1] - 0.5) * drop(driven) * drop(pushed)
    np.testing.assert_allclose(found.gradient.conductance, wanted, atol=1e-9 * np.abs(wanted).max())
