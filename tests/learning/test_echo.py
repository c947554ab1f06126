"""Hamiltonian echoes give the gradient of leapfrog; contrasts of launches do not, and friction is found out."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learning import CrossEntropy, EquilibriumPropagation, HamiltonianEcho, ImplicitGradient, SquaredError, fit
from learning.rule import ConvergenceError
from substrates import MechanicalLagrangian, ResistorNetwork, Trajectory, fixed
from substrates.classical.trajectory import MeanSquare, Samples
from substrates.classical.trajectory.action import step_action
from substrates.parameters import split_parameters
from substrates.substrate import NudgeRefusedError
from theory_checks import SealedSubstrate


class Chain(MechanicalLagrangian):
    """Masses that learn too, joined by springs that harden, driven at the first one."""

    stiffness: jax.Array
    mass: jax.Array
    hardening: jax.Array
    frequency: jax.Array = fixed(default_factory=lambda: jnp.asarray(2.0))

    def potential(self, position, time, x):
        stretch = jnp.diff(position, prepend=0.0)
        held = jnp.sum(self.stiffness * stretch**2) / 2 + self.hardening * jnp.sum(position**4) / 4
        return held - jnp.sin(self.frequency * time) * jnp.sum(x) * position[0]


def chain(steps=60, duration=4.0, friction=0.0, meter=None):
    law = Chain(stiffness=jnp.asarray([1.0, 0.7, 1.4]), mass=jnp.asarray([1.0, 0.8, 1.3]), hardening=jnp.asarray(0.6))
    meter = Samples([1, 2], [steps // 3, steps]) if meter is None else meter
    return Trajectory.launched(
        law,
        [0.2, 0.0, -0.1],
        [0.0, 0.3, 0.0],
        duration=duration,
        steps=steps,
        meter=meter,
        n_inputs=1,
        friction=friction,
    )


X, Y = jnp.asarray([[0.7], [-0.2]]), jnp.asarray([[0.3, -0.2, 0.1, 0.4], [0.0, 0.1, 0.2, -0.5]])


def through_time(net, x, y, cost=SquaredError()):  # noqa: B008
    """Automatic differentiation through leapfrog."""
    parameters, rest = split_parameters(net)

    def mean_cost(parameters):
        system = eqx.combine(parameters, rest)
        shown = jax.vmap(lambda x: system.read(system.relax(x).state, x))(x)
        return jnp.mean(jax.vmap(cost)(shown, y))

    return jax.grad(mean_cost)(parameters)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def gap(found, wanted):
    return np.linalg.norm(flat(found) - flat(wanted)) / np.linalg.norm(flat(wanted))


@pytest.mark.parametrize("cost", [SquaredError(), CrossEntropy()])
@pytest.mark.parametrize("meter", [None, MeanSquare([0, 2], 5, 250)])
def test_the_echo_is_the_gradient_of_leapfrog_to_eight_digits(meter, cost):
    net = chain(steps=300, meter=meter)
    y = jnp.abs(Y[:, : 4 if meter is None else 2])
    estimate = HamiltonianEcho(1e-4, cost)(net, X, y)
    assert estimate.relaxations == 3
    assert gap(estimate.gradient, through_time(net, X, y, cost)) < 1e-8


def test_its_bias_falls_as_beta_squared():
    net = chain()
    wanted = through_time(net, X, Y)
    errors = [gap(HamiltonianEcho(beta)(net, X, Y).gradient, wanted) for beta in (0.1, 0.05, 0.025)]
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2.0, atol=0.05)


def test_implicit_differentiation_of_a_motion_is_differentiation_through_it():
    net = chain(steps=20)
    assert gap(ImplicitGradient()(net, X, Y).gradient, through_time(net, X, Y)) < 1e-12


def nudged_launch(net, beta, x, y):
    """dS/dtheta along a launch nudged on its way out: S + beta C is stationary, q_0 and p_0 are given."""
    law, h = net.lagrangian, net.step
    steps = jnp.arange(net.steps)
    times = steps.astype(h.dtype) * h
    output = net.read(net.relax(x).state, x)
    pull = lambda q, k: jax.grad(lambda q: jnp.sum((output - y) * net.meter(q, k)))(q)
    push = lambda q, k: -jax.grad(law.potential)(q, k.astype(h.dtype) * h, x) + beta * pull(q, k) / h

    def step(carry, k):
        q, p = carry
        half = p + h / 2 * push(q, k)
        there = q + h * half / law.mass
        return (there, half + h / 2 * push(there, k + 1)), there

    there = jax.lax.scan(step, (net.position, net.momentum), steps)[1]
    path = jnp.concatenate([net.position[None], there])
    action = lambda law: jnp.sum(jax.vmap(lambda a, b, t: step_action(law, a, b, t, h, x))(path[:-1], path[1:], times))
    return jax.grad(lambda law: action(law))(law)


def test_the_contrast_of_two_launches_is_wrong_by_as_much_as_the_gradient_and_is_refused():
    net = chain()
    wanted = through_time(net, X[:1], Y[:1])
    for beta in (1e-3, 1e-4):
        plus, minus = (nudged_launch(net, sign * beta, X[0], Y[0]) for sign in (1, -1))
        naive = jax.tree.map(lambda p, m, b=beta: (p - m) / (2 * b), plus, minus)
        learnt = jax.tree.leaves(wanted.lagrangian)
        found = [getattr(naive, name) for name in ("mass", "stiffness", "hardening")]
        assert [leaf.shape for leaf in found] == [leaf.shape for leaf in learnt]
        assert gap(found, learnt) > 0.5
    with pytest.raises(NudgeRefusedError, match=r"its end is free, .* leave a boundary term"):
        EquilibriumPropagation(0.1)(net, X, Y)


def test_friction_is_refused_and_would_teach_something_else():
    net = chain(friction=0.1)
    with pytest.raises(ConvergenceError, match=r"echoes do not return .* friction"):
        HamiltonianEcho(1e-3)(net, X, Y)
    lenient = HamiltonianEcho(1e-3, strict=False)(net, X, Y)
    assert lenient.equilibria[1].residual.min() > 0.1
    assert gap(lenient.gradient, through_time(net, X, Y)) > 0.05


def test_steps_too_long_are_refused():
    with pytest.raises(ConvergenceError, match="time step is too long"):
        HamiltonianEcho(1e-3)(chain(steps=30, duration=60.0), X, Y)


def test_a_sealed_motion_learns():
    net = chain(steps=20)
    sealed = HamiltonianEcho(1e-3)(SealedSubstrate(net), X, Y).gradient
    assert gap(sealed, HamiltonianEcho(1e-3)(net, X, Y).gradient) == 0


def test_what_settles_is_refused():
    net = ResistorNetwork.from_edges([(0, 1), (1, 2)], inputs=[0, 2], outputs=[1], conductance=1.0)
    with pytest.raises(TypeError, match=r"HamiltonianEcho: wanted a motion .* got ResistorNetwork, which settles"):
        HamiltonianEcho(0.1)(net, jnp.zeros((1, 2)), jnp.zeros((1, 1)))
    with pytest.raises(TypeError, match="echo: wanted a system that runs back"):
        net.echo(jnp.zeros((1, 1)), jnp.zeros((1, 2)), None)
    with pytest.raises(ValueError, match="beta: wanted a positive number"):
        HamiltonianEcho(0.0)


def test_a_chain_learns_to_move_as_another_does():
    net = chain(steps=20)
    where = lambda net: (net.lagrangian.stiffness, net.lagrangian.hardening)
    teacher = eqx.tree_at(where, net, (jnp.asarray([1.5, 0.4, 1.0]), jnp.asarray(0.3)))
    shown = jax.vmap(lambda x: teacher.read(teacher.relax(x).state, x))(X)
    run = fit(
        net,
        HamiltonianEcho(0.01),
        (X, shown),
        optimiser=optax.adam(0.05),
        epochs=100,
        key=jax.random.key(0),
        progress=False,
    )
    assert run.history["cost"][-1] < run.history["cost"][0] / 100
