"""Holomorphic equilibrium propagation: Cauchy's order, conjugate symmetry, the real cases, lock-in, and its limits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_system import SYSTEMS

from learning import EquilibriumPropagation, HolomorphicEP, ImplicitGradient, OscillatingEP, SquaredError
from learning.holomorphic import cauchy_estimate
from learning.rule import ConvergenceError
from substrates import Nudge, Substrate
from substrates.solvers.solver import Solver, Status, judge, tolerance
from substrates.substrate import NudgeRefusedError
from theory_checks import SealedSubstrate


class Springs(Substrate):
    """A convex chain of hardening springs."""

    stiffness: jax.Array

    def energy(self, state, x):
        stretch = jnp.diff(jnp.concatenate([x, state]))
        return 0.5 * jnp.sum(self.stiffness * stretch**2) + jnp.sum(state**4 / 4 + jnp.cosh(state))

    def initial_state(self, x):
        return jnp.full(3, 0.1, x.dtype)

    def read(self, state, x):
        return state[1:]


class Creeping(Solver):
    """A gradient flow in small steps."""

    max_steps: int | jax.Array = 5000

    def __call__(self, substrate, x, nudge, start, key):
        step = lambda _, s: s + 0.05 * substrate.total_force(s, x, nudge)
        state = jax.lax.fori_loop(0, self.max_steps, step, start)
        found = judge(substrate, state, x, nudge, self.max_steps, tolerance(substrate, start, x, nudge))
        stopped = Status.where(found.converged, Status.out_of_steps, found.status)
        return eqx.tree_at(lambda e: e.status, found, stopped)


class CreepingSprings(Springs):
    solver = Creeping()


class Ball(Substrate):
    """E = k s^2 / 2 - s x: nudged it is a ball on a spring of stiffness k + beta."""

    stiffness: jax.Array

    def energy(self, state, x):
        return jnp.sum(0.5 * self.stiffness * state**2 - state * x)

    def initial_state(self, x):
        return jnp.zeros_like(x)

    def read(self, state, x):
        return state


SYSTEM = Springs(jnp.array([1.0, 2.0, 1.5]))
X, Y = jnp.array([[0.6], [-0.8]]), jnp.array([[0.5, 0.7], [-0.3, -0.5]])


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def apart(found, wanted):
    return np.linalg.norm(flat(found.gradient) - flat(wanted.gradient)) / np.linalg.norm(flat(wanted.gradient))


EXACT = ImplicitGradient()(SYSTEM, X, Y)


@pytest.mark.parametrize("points", [1, 2, 3, 4, 8])
def test_halving_the_radius_divides_the_error_by_two_to_the_number_of_points(points):
    errors = [apart(HolomorphicEP(radius, points)(SYSTEM, X, Y), EXACT) for radius in (0.4, 0.2, 0.1)]
    slopes = np.log2(np.divide(errors[:-1], errors[1:]))
    assert abs(slopes[-1] - points) < 0.15 * points or errors[-1] < 1e-9
    assert abs(slopes[0] - points) < 0.25 * points


@pytest.mark.parametrize(("points", "variant"), [(1, "positive"), (2, "centered")])
def test_real_points_are_equilibrium_propagation(points, variant):
    found, wanted = HolomorphicEP(0.3, points)(SYSTEM, X, Y), EquilibriumPropagation(0.3, variant)(SYSTEM, X, Y)
    np.testing.assert_array_equal(flat(found.gradient), flat(wanted.gradient))
    assert found.relaxations == wanted.relaxations


def test_two_complex_points_are_the_centred_difference():
    found = cauchy_estimate(HolomorphicEP(0.3, 2), SYSTEM, X, Y, None)
    plain = [
        SYSTEM.measure(e.state, X, Nudge(SquaredError(), Y, b)) for e, b in zip(*phases(0.3, (1, -1)), strict=True)
    ]
    difference = jax.tree.map(lambda a, b: (a - b) / 0.6, *plain)
    np.testing.assert_allclose(flat(found.gradient), flat(difference), rtol=1e-9)


def phases(radius, turns):
    """Equilibria at radius * turns, one after the other, and the nudges."""
    betas = [radius * turn for turn in turns]
    relax = lambda x, y, b: SYSTEM.relax(x, Nudge(SquaredError(), y, b), SYSTEM.relax(x).state)
    return [jax.vmap(lambda x, y, b=b: relax(x, y, jnp.asarray(b)))(X, Y) for b in betas], betas


@pytest.mark.parametrize("points", [3, 4, 5])
def test_half_a_circle_stands_for_the_whole(points):
    turns = np.exp(2j * np.pi * np.arange(points) / points)
    found, betas = phases(0.4, turns)
    total = 0
    for equilibrium, beta, turn in zip(found, betas, turns, strict=True):
        total += flat(SYSTEM.measure(equilibrium.state, X, Nudge(SquaredError(), Y, beta))) / (turn * 0.4 * points)
    np.testing.assert_allclose(total.imag, 0, atol=1e-10)
    estimate = HolomorphicEP(0.4, points)(SYSTEM, X, Y)
    np.testing.assert_allclose(flat(estimate.gradient), total.real, rtol=1e-8)
    assert estimate.relaxations == 2 + points // 2
    np.testing.assert_allclose(
        np.mean([e.state for e in found], axis=0), estimate.equilibria[0].state, atol=0.4**points
    )


@pytest.mark.parametrize(
    "name",
    [
        "oscillators",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("resistors of a graph", "springs", "quantum oscillators")
        ),
    ],
)
def test_every_holomorphic_substrate_has_its_gradient(name):
    net = SYSTEMS[name]()
    draw = np.random.default_rng(3)
    x = jnp.asarray(draw.uniform(0.2, 0.8, (2, net.input_size)))
    shown = jax.vmap(lambda x: net.read(net.relax(x).state, x))(x)
    y = shown + 0.1 * jnp.asarray(draw.normal(size=shown.shape))
    radius, bound = (1e-5, 1e-4) if name == "springs" else (0.02, 1e-5)  # soft springs bear no more
    assert apart(HolomorphicEP(radius, 4)(net, x, y), ImplicitGradient()(net, x, y)) < bound


def test_a_sealed_system_gives_the_same():
    for rule in (HolomorphicEP(0.4, 4), OscillatingEP(0.4, 4, 1, None)):
        sealed, open_ = rule(SealedSubstrate(SYSTEM), X, Y), rule(SYSTEM, X, Y)
        np.testing.assert_array_equal(flat(sealed.gradient), flat(open_.gradient))


def test_a_batch_gives_the_mean_of_its_examples():
    rule = HolomorphicEP(0.4, 4)
    singles = [flat(rule(SYSTEM, X[k : k + 1], Y[k : k + 1]).gradient) for k in range(len(X))]
    np.testing.assert_allclose(flat(rule(SYSTEM, X, Y).gradient), np.mean(singles, axis=0), rtol=1e-9)


# an oscillating nudge


def test_a_system_that_settles_at_once_is_locked_in_as_on_the_circle():
    found, wanted = OscillatingEP(0.4, 6, 1, None)(SYSTEM, X, Y), HolomorphicEP(0.4, 6)(SYSTEM, X, Y)
    assert apart(found, wanted) < 1e-7
    np.testing.assert_allclose(found.output, wanted.output, atol=0.4**6)
    np.testing.assert_allclose(found.cost, wanted.cost, rtol=1e-2)


def test_a_slow_system_falls_into_step_as_the_period_grows():
    creeping = CreepingSprings(SYSTEM.stiffness)
    errors = [apart(OscillatingEP(0.4, period, 2, 2)(creeping, X, Y), EXACT) for period in (200, 400, 800)]
    assert errors[0] < 0.1
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.3)


# limits


def test_a_radius_beyond_the_first_singularity_is_reported():
    """A ball on a spring of stiffness 1 has none left at beta = -1."""
    ball, x, y = Ball(jnp.ones(1)), jnp.ones((1, 1)), jnp.full((1, 1), 0.5)
    exact = ImplicitGradient()(ball, x, y)
    assert apart(HolomorphicEP(0.5, 8)(ball, x, y), exact) < 0.02
    for points in (3, 4, 8):
        assert apart(HolomorphicEP(0.6, points)(ball, x, y), exact) < (1 + points) * 0.6**points  # a double pole
        for radius in (1.0, 1.1, 1.5, 10.0):
            with pytest.raises(ConvergenceError, match="The radius may leave the disc"):
                HolomorphicEP(radius, points)(ball, x, y)


def test_systems_without_analytic_continuation_are_refused():
    net = SYSTEMS["continuous Hopfield"]()
    with pytest.raises(NudgeRefusedError, match="points on a circle want states with an analytic"):
        HolomorphicEP(0.1, 4)(net, jnp.zeros((1, 3)), jnp.zeros((1, 2)))
    HolomorphicEP(0.1, 2)(net, jnp.zeros((1, 3)), jnp.zeros((1, 2)))  # needs none


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HolomorphicEP(0.0), "radius: wanted a positive number"),
        (lambda: HolomorphicEP(float("nan")), "radius: wanted a positive number"),
        (lambda: HolomorphicEP(0.1, 0), "points: wanted a whole number, at least 1, got 0"),
        (lambda: HolomorphicEP(0.1, 2.5), "points: wanted a whole number"),
        (lambda: OscillatingEP(0.1, 2), "period: wanted a whole number, at least 3, got 2"),
        (lambda: OscillatingEP(0.1, 10, 0), "periods: wanted a whole number, at least 1"),
        (lambda: OscillatingEP(0.1, 10, 1, 0), "sweeps: wanted a whole number, at least 1"),
    ],
)
def test_impossible_circles_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
