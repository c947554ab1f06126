"""Motions from a launch, there and back, against closed forms, stationary paths and conservation laws."""

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from learning import SquaredError
from substrates import MechanicalLagrangian, Nudge, Status, Trajectory, fixed
from substrates.classical.trajectory import CoupledPendulums, MeanSquare, Samples
from substrates.substrate import NudgeRefusedError

NOTHING = jnp.zeros(0)


class Springs(MechanicalLagrangian):
    """Masses on springs that harden, pushed by x cos(w t)."""

    stiffness: jax.Array
    mass: jax.Array
    hardening: jax.Array
    frequency: jax.Array = fixed(default_factory=lambda: jnp.asarray(1.3))

    def potential(self, position, time, x):
        held = jnp.sum(self.stiffness * position**2) / 2 + self.hardening * jnp.sum(position**4) / 4
        pushed = jnp.sum(x * position) if x.size else 0.0
        return held - jnp.cos(self.frequency * time) * pushed


def spring(stiffness, steps=20, duration=2.0, friction=0.0, hardening=0.0, n_inputs=0):
    law = Springs(stiffness=jnp.asarray([stiffness]), mass=jnp.ones(1), hardening=jnp.asarray(hardening))
    options = {"meter": Samples([0], [steps // 2, steps]), "friction": friction, "n_inputs": n_inputs}
    return Trajectory.launched(law, [0.4], [0.3], duration=duration, steps=steps, **options)


def pendulums(steps, duration, friction=0.0, meter=None):
    law = CoupledPendulums.random(3, 2, frequency=1.5, key=jax.random.key(0))
    meter = Samples([1, 2], [steps // 2, steps]) if meter is None else meter
    launch = [0.0, 0.5, -0.4], [0.3, 0.0, 0.1]
    return Trajectory.launched(law, *launch, duration=duration, steps=steps, meter=meter, n_inputs=2, friction=friction)


X = jnp.asarray([0.8, -0.5])
relax = eqx.filter_jit(lambda net, x: net.relax(x))


@given(st.floats(0.1, 390.0))
def test_a_spring_follows_the_closed_form_of_leapfrog(stiffness):
    net = spring(stiffness)
    h = 0.1
    turn = np.arccos(1 - stiffness * h**2 / 2)
    k = np.array([10, 20])
    # q_1 = q_0 cos(turn) + h p_0
    exact = 0.4 * np.cos(turn * k) + 0.3 * h * np.sin(turn * k) / np.sin(turn)
    found = relax(net, NOTHING)
    assert found.converged
    np.testing.assert_allclose(net.read(found.state, NOTHING), exact, rtol=1e-8, atol=1e-8)


def test_a_launch_and_the_path_between_its_ends_are_the_same():
    net = pendulums(12, 1.5)
    path = net.path(X)
    found = relax(net, X)
    np.testing.assert_allclose(path[-1], found.state[0], atol=1e-14)
    between = Trajectory.between(
        net.lagrangian, path[0], path[-1], duration=1.5, steps=12, meter=net.meter, n_inputs=2, guess=path[1:-1] + 0.01
    )
    settled = between.relax(X)
    assert settled.converged
    np.testing.assert_allclose(settled.state, path[1:-1], atol=1e-12)
    np.testing.assert_allclose(between.read(settled.state, X), net.read(found.state, X), atol=1e-12)


def test_energy_is_kept_up_to_the_square_of_the_step():
    drift = [jnp.ptp(spring(2.0, steps, 40.0, hardening=1.0).energies(NOTHING)) for steps in (400, 800)]
    assert 3.8 < drift[0] / drift[1] < 4.2
    assert drift[1] < 2e-3
    rubbed = spring(2.0, 800, 40.0, 0.05).energies(NOTHING)
    np.testing.assert_allclose(rubbed[-1] / rubbed[0], np.exp(-0.05 * 40), rtol=0.1)


def test_ten_thousand_steps_are_retraced():
    assert pendulums(10_000, 50.0).retrace(X) < 1e-12
    assert spring(3.0, 10_000, 300.0).retrace(NOTHING) < 1e-12


def end_of(net, x):
    return np.concatenate(relax(net, x).state[:2])


@given(st.floats(0.5, 4.0), st.floats(0.0, 5.0))
def test_friction_leaves_leapfrog_of_second_order(stiffness, friction):
    exact = expm(2.0 * np.array([[0.0, 1.0], [-stiffness, -friction]])) @ [0.4, 0.3]
    errors = [np.linalg.norm(end_of(spring(stiffness, n, friction=friction), NOTHING) - exact) for n in (40, 80, 160)]
    assert 3.8 < errors[0] / errors[1] < 4.2
    assert 3.95 < errors[1] / errors[2] < 4.05
    assert errors[0] < 2e-3


@pytest.mark.parametrize("friction", [0.0, 0.2, 2.0])
def test_driven_pendulums_with_friction_move_as_an_independent_integrator_says(friction):
    launched = [pendulums(steps, 4.0, friction) for steps in (200, 400, 800)]
    law, q, p = launched[0].lagrangian, launched[0].position, launched[0].momentum
    push = jax.jit(lambda q, t: -jax.grad(law.potential)(q, t, X))
    slope = lambda t, at: np.concatenate([at[3:] / law.mass, push(at[:3], t) - friction * at[3:]])
    exact = solve_ivp(slope, (0, 4), np.concatenate([q, p]), method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]
    errors = [np.abs(end_of(net, X) - exact).max() for net in launched]
    for coarse, fine in pairwise(errors):
        assert 3.9 < coarse / fine < 4.1
    assert errors[0] < 1e-3


def test_friction_shows_when_a_motion_should_return():
    miss = [float(pendulums(400, 4.0, friction).retrace(X)) for friction in (1e-3, 2e-3)]
    assert miss[0] > 1e-3
    assert 1.9 < miss[1] / miss[0] < 2.1


def test_steps_too_long_for_the_motion_say_so():
    assert relax(spring(390.0), NOTHING).status == Status.converged
    for steps in (20, 20_000):  # until it is no number any more
        assert relax(spring(410.0, steps, 0.1 * steps), NOTHING).status == Status.too_coarse
    # a drive that turns round while the mass is at rest is no fast motion
    still = Trajectory.launched(
        spring(1.0).lagrangian, [0.0], [0.0], duration=20.0, steps=200, meter=Samples([0], [3]), n_inputs=1
    )
    assert relax(still, jnp.ones(1)).status == Status.converged
    assert relax(spring(2.0, n_inputs=1), jnp.asarray([jnp.nan])).status == Status.not_finite


def test_what_is_read_along_the_way_is_what_the_path_shows():
    for meter in (Samples([2, 0], [0, 7, 3]), MeanSquare([1, 2], 2, 9)):
        net = pendulums(12, 1.5, meter=meter)
        path = np.asarray(net.path(X))
        wanted = path[[0, 7, 3]][:, [2, 0]].ravel() if isinstance(meter, Samples) else (path[2:9, 1:] ** 2).mean(axis=0)
        np.testing.assert_allclose(net.read(relax(net, X).state, X), wanted, atol=1e-14)


def test_memory_does_not_grow_with_the_length():
    def needed(steps):
        net = pendulums(steps, 1.0, meter=Samples([1], [3]))
        free = net.relax(X)
        batch = lambda tree: jax.tree.map(lambda leaf: leaf[None], tree)
        nudge = Nudge(SquaredError(), jnp.ones((1, 1)), jnp.asarray(0.1), batch(free.state[2]))

        def there_and_back(x):
            state = net.relax(x).state
            return net.echo(batch(state), batch(x), nudge)[0].lagrangian.weight

        return jax.jit(there_and_back).lower(X).compile().memory_analysis().temp_size_in_bytes

    assert needed(100_000) == needed(1000)


def test_launches_are_neither_nudged_nor_contrasted():
    net = pendulums(12, 1.5)
    state = net.relax(X).state
    batch = jax.tree.map(lambda leaf: leaf[None], state)
    with pytest.raises(
        NudgeRefusedError, match=r"nudge: wanted None, got a Nudge: .* boundary term .* HamiltonianEcho"
    ):
        net.relax(X, Nudge(SquaredError(), jnp.zeros(4), 0.0))
    with pytest.raises(TypeError, match=r"contrast: InitialValueTrajectory cannot be contrasted: .* boundary term"):
        net.contrast(batch, batch, X[None])
    with pytest.raises(TypeError, match="measure: InitialValueTrajectory shows dS/dtheta along an echo alone"):
        net.measure(batch, X[None])
    with pytest.raises(ValueError, match="nudges: wanted `about`"):
        net.echo(batch, X[None], Nudge(SquaredError(), jnp.zeros((1, 4)), 0.1))


class Charge(eqx.Module):
    field: jax.Array

    def __call__(self, position, velocity, time, x):
        return jnp.sum(velocity**2) / 2 + self.field * position[0] * velocity[1]


WORDS = {"duration": 1.0, "steps": 4, "meter": Samples([0], [1])}
LAW = spring(1.0).lagrangian
MISTAKES = [
    (lambda: Trajectory.launched(Charge(jnp.ones(())), [0.0], [0.0], **WORDS), "lagrangian: wanted a MechanicalL"),
    (lambda: Trajectory.launched(LAW, [0.0, 1.0], [0.0, 1.0], **WORDS), "position, momentum: wanted one number for"),
    (lambda: Trajectory.launched(LAW, [0.0], [0.0, 1.0], **WORDS), "position, momentum: wanted one number for"),
    (lambda: Trajectory.launched(LAW, [0.0], [0.0], **{**WORDS, "steps": 0}), "steps: wanted at least 1, got 0"),
    (lambda: Trajectory.launched(LAW, [0.0], [0.0], **WORDS, friction=-1.0), "friction: wanted a rate"),
    (lambda: Trajectory.launched(LAW, [0.0], [0.0], **{**WORDS, "steps": 1, "meter": Samples([0], [2])}), "steps: wan"),
]


@pytest.mark.parametrize(("call", "words"), MISTAKES)
def test_mistakes_are_refused_by_name(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()
