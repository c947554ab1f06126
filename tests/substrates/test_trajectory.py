"""Paths of stationary action between fixed ends and in loops, against closed forms, SciPy and dense linear algebra."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from hypothesis import given
from hypothesis import strategies as st

from learning import EquilibriumPropagation, ImplicitGradient, SquaredError
from substrates import Lagrangian, MechanicalLagrangian, Nudge, Pin, Status, Trajectory, fixed
from substrates.classical.trajectory import CoupledPendulums, MeanSquare, Samples
from substrates.classical.trajectory.action import Curvature
from substrates.classical.trajectory.elimination import solve_path
from substrates.classical.trajectory.newton import PathNewton
from substrates.parameters import split_parameters
from substrates.solvers.generic import Newton

NOTHING = jnp.zeros(0)


class Springs(MechanicalLagrangian):
    """Masses on springs, pushed by x cos(w t)."""

    stiffness: jax.Array
    mass: jax.Array
    frequency: jax.Array = fixed(default_factory=lambda: jnp.asarray(1.0))

    def potential(self, position, time, x):
        pushed = jnp.sum(x * position) if x.size else 0.0
        return jnp.sum(self.stiffness * position**2) / 2 - jnp.cos(self.frequency * time) * pushed


class Charge(Lagrangian):
    """A charge in a magnetic field B and on a spring: no motion of masses in a potential."""

    field: jax.Array
    stiffness: jax.Array

    def __call__(self, position, velocity, time, x):
        turning = position[0] * velocity[1] - position[1] * velocity[0]
        return (jnp.sum(velocity**2) + self.field * turning - self.stiffness * jnp.sum(position**4) / 2) / 2


def pendulum(weight=1.0, n=1):
    edges = tuple((i, i + 1) for i in range(n - 1))
    return CoupledPendulums(
        weight=jnp.full(n, weight),
        coupling=jnp.full(len(edges), 0.7),
        drive=jnp.eye(n),
        mass=jnp.ones(n),
        frequency=jnp.asarray(1.0),
        edges=edges,
    )


relax = eqx.filter_jit(lambda net, x: net.relax(x))


def spring_between(stiffness, first, last, steps=20, duration=2.0):
    law = Springs(stiffness=jnp.asarray([stiffness]), mass=jnp.ones(1))
    return Trajectory.between(law, [first], [last], duration=duration, steps=steps, meter=Samples([0], [steps // 2]))


@given(st.floats(0.1, 60.0), st.floats(-2, 2), st.floats(-2, 2))
def test_a_spring_follows_the_closed_form_of_the_discrete_action(stiffness, first, last):
    """Up to 4.9 half swings: minima and saddles, past conjugate points."""
    found = relax(spring_between(stiffness, first, last), NOTHING)
    turn = np.arccos(1 - stiffness * 0.1**2 / 2)
    if abs(np.sin(20 * turn)) < 1e-2:
        return
    k = np.arange(1, 20)
    exact = (first * np.sin(turn * (20 - k)) + last * np.sin(turn * k)) / np.sin(20 * turn)
    assert found.converged
    np.testing.assert_allclose(found.state[:, 0], exact, rtol=1e-9, atol=1e-9 * np.abs(exact).max() + 1e-300)


def test_a_path_of_ten_thousand_steps_is_found_in_one_go():
    found = relax(spring_between(130.0, 0.3, -0.4, steps=10_000), NOTHING)
    turn = np.arccos(1 - 130.0 * 2e-4**2 / 2)
    k = np.arange(1, 10_000)
    exact = (0.3 * np.sin(turn * (10_000 - k)) - 0.4 * np.sin(turn * k)) / np.sin(10_000 * turn)
    assert found.converged
    assert found.steps <= 2
    np.testing.assert_allclose(found.state[:, 0], exact, atol=1e-7 * np.abs(exact).max())


def test_a_driven_spring_repeats_with_the_amplitude_of_the_discrete_resonance():
    law = Springs(stiffness=jnp.asarray([1.7, 0.2]), mass=jnp.asarray([1.0, 2.0]))
    net = Trajectory.loop(law, 2, duration=2 * np.pi, steps=12, meter=Samples([0, 1], [0]), n_inputs=2)
    found = relax(net, jnp.asarray([0.5, -1.0]))
    h = 2 * np.pi / 12
    amplitude = np.array([0.5, -1.0]) / (np.array([1.7, 0.2]) - np.array([1.0, 2.0]) * (2 / h * np.sin(h / 2)) ** 2)
    assert found.converged
    np.testing.assert_allclose(found.state, np.cos(h * np.arange(12))[:, None] * amplitude, atol=1e-12)
    np.testing.assert_allclose(net.read(found.state, jnp.zeros(2)), amplitude, atol=1e-12)


def test_a_pendulum_tends_to_the_path_of_scipy_as_the_square_of_the_step():
    def motion(t, y):
        return np.stack([y[1], 0.6 * np.cos(t) - 2.0 * np.sin(y[0])])

    ends = lambda a, b: np.array([a[0] - 0.2, b[0] - 1.5])
    grid = np.linspace(0, 1.6, 50)
    exact = scipy.integrate.solve_bvp(motion, ends, grid, np.stack([0.2 + 0.8 * grid, 0 * grid]), tol=1e-10)
    errors = []
    for steps in (8, 16):
        net = Trajectory.between(
            pendulum(2.0), [0.2], [1.5], duration=1.6, steps=steps, meter=Samples([0], [1]), n_inputs=1
        )
        found = relax(net, jnp.asarray([0.6]))
        assert found.converged
        errors.append(np.abs(net.path(found.state)[:, 0] - exact.sol(net.times)[0]).max())
    assert errors[1] < 2e-3
    assert 3.8 < errors[0] / errors[1] < 4.2


@pytest.mark.parametrize("loop", [False, True])
def test_elimination_solves_what_dense_algebra_solves_where_parts_are_singular(loop):
    rng = np.random.default_rng(0)
    n, nodes = 3, 8
    diagonal = rng.standard_normal((nodes, n, n))
    diagonal += np.swapaxes(diagonal, 1, 2)
    diagonal[0] = 0.0  # without pivots nothing could be done here
    upper = rng.standard_normal((nodes if loop else nodes - 1, n, n))
    whole = np.zeros((nodes, n, nodes, n))
    for k in range(nodes):
        whole[k, :, k] = diagonal[k]
    for k, block in enumerate(upper):
        after = (k + 1) % nodes
        whole[k, :, after], whole[after, :, k] = block, block.T
    right = rng.standard_normal((nodes, n, 2))
    curvature = Curvature(jnp.zeros((nodes, n)), jnp.asarray(diagonal), jnp.asarray(upper), jnp.zeros((1, n, n)))
    exact = np.linalg.solve(whole.reshape(nodes * n, nodes * n), right.reshape(nodes * n, 2)).reshape(right.shape)
    np.testing.assert_allclose(solve_path(curvature, jnp.asarray(right)), exact, rtol=1e-10, atol=1e-10)


LEARNERS = {
    "ends": lambda: Trajectory.between(
        pendulum(1.5, 2), [0.0, 0.2], [1.0, -0.3], duration=1.0, steps=5, meter=Samples([1], [2, 3]), n_inputs=2
    ),
    "loop": lambda: Trajectory.loop(
        pendulum(2.5, 2), 2, duration=2 * np.pi, steps=8, meter=MeanSquare([0, 1], 1, 5), n_inputs=2
    ),
    "charge": lambda: Trajectory.between(
        Charge(jnp.asarray(0.8), jnp.asarray(0.5)),
        [0.0, 0.2],
        [1.0, -0.3],
        duration=1.0,
        steps=5,
        meter=Samples([1], [2]),
    ),
    "masses": lambda: Trajectory.between(
        Springs(stiffness=jnp.asarray([1.0, 30.0]), mass=jnp.asarray([1.5, 0.9])),
        [0.0, 0.2],
        [1.0, -0.3],
        duration=1.0,
        steps=7,
        meter=Samples([0, 1], [3]),
    ),
}


@pytest.mark.parametrize(
    "name", ["loop", "charge", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ends", "masses"))]
)
def test_the_contrast_of_two_paths_is_the_derivative_of_the_cost(name):
    net = LEARNERS[name]()
    x = jnp.asarray([[0.7, -0.4]])[:, : net.n_inputs]
    y = jnp.full((1, *eqx.filter_eval_shape(net.read, net.guess, x[0]).shape), 0.3)
    estimate = EquilibriumPropagation(1e-4)(net, x, y)
    assert estimate.equilibria[0].converged.all()
    parameters, rest = split_parameters(net)
    values, structure = jax.tree.flatten(parameters)

    def cost(k, sign):
        moved = [v + sign * 1e-5 if j == k else v for j, v in enumerate(values)]
        shifted = eqx.combine(structure.unflatten(moved), rest)
        return SquaredError()(shifted.read(relax(shifted, x[0]).state, x[0]), y[0])

    for k, leaf in enumerate(jax.tree.leaves(estimate.gradient)):
        slope = (cost(k, 1) - cost(k, -1)) / 2e-5
        np.testing.assert_allclose(jnp.sum(leaf), slope, rtol=1e-5, atol=1e-8)


def test_a_saddle_teaches_as_a_minimum_does():
    net = LEARNERS["masses"]()
    x, y = jnp.zeros((1, 0)), jnp.asarray([[0.3, 0.1]])
    state = relax(net, NOTHING).state
    hessian = jax.hessian(lambda s: net.energy(s.reshape(state.shape), NOTHING))(state.ravel())
    assert np.linalg.eigvalsh(hessian)[0] < 0
    wanted = jax.tree.leaves(ImplicitGradient()(net, x, y).gradient)
    errors = []
    for beta in (0.1, 0.05):
        found = jax.tree.leaves(EquilibriumPropagation(beta)(net, x, y).gradient)
        errors.append(max(np.abs(f - w).max() for f, w in zip(found, wanted, strict=True)))
    assert 3.9 < errors[0] / errors[1] < 4.1


def test_steps_too_long_for_the_motion_say_so():
    assert relax(spring_between(390.0, 0.3, 0.2), NOTHING).status == Status.converged
    assert relax(spring_between(410.0, 0.3, 0.2), NOTHING).status == Status.too_coarse
    with pytest.raises(RuntimeError, match="time step is too long"):
        EquilibriumPropagation(0.1)(spring_between(410.0, 0.3, 0.2), jnp.zeros((1, 0)), jnp.zeros((1, 1)))


def test_what_nothing_decides_says_so():
    undriven = Trajectory.loop(
        pendulum(1.0),
        1,
        duration=2 * np.pi,
        steps=12,
        meter=Samples([0], [1]),
        guess=np.full((12, 1), np.pi),
        n_inputs=1,
    )
    assert relax(undriven, jnp.zeros(1)).converged  # upright, where no neighbouring loop exists
    stiffness = (2 / 0.1 * np.sin(np.pi / 40)) ** 2  # its half swing takes the whole time
    assert relax(spring_between(stiffness, 0.3, -0.3), NOTHING).status == Status.zero_mode
    free = Springs(stiffness=jnp.zeros(1), mass=jnp.ones(1))
    drifting = Trajectory.loop(free, 1, duration=1.0, steps=4, meter=Samples([0], [1]))
    assert relax(drifting, NOTHING).status == Status.zero_mode


def test_a_linear_path_is_found_in_one_step_however_it_is_nudged():
    net = LEARNERS["masses"]()
    nudge = Nudge(SquaredError(), jnp.asarray([0.3, 0.1]), 20.0)
    found = eqx.filter_jit(lambda net: net.relax(NOTHING, nudge))(net)
    assert found.converged
    assert found.steps == 1


@pytest.mark.slow
def test_a_nudge_of_any_cost_bends_the_path_exactly():
    """Woodbury's identity against the contract's own solver, for a cost that couples outputs."""
    net = LEARNERS["loop"]()
    x, y = jnp.asarray([0.7, -0.4]), jnp.asarray([0.2, 0.1])
    nudge = Nudge(lambda o, y: jnp.sum(o - y) ** 2 * jnp.exp(o[0]), y, 0.3)
    free = net.relax(x)
    own, generic = (net.relax(x, nudge, free.state, solver=solver) for solver in (None, Newton()))
    assert own.converged
    assert np.abs(own.state - free.state).max() > 1e-3
    np.testing.assert_allclose(own.state, generic.state, atol=1e-10)


def test_32_bits_are_enough_for_short_paths():
    net = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, LEARNERS["ends"]())
    found = relax(net, jnp.asarray([0.7, -0.4], jnp.float32))
    assert found.converged
    assert found.state.dtype == jnp.float32
    np.testing.assert_allclose(found.state, relax(LEARNERS["ends"](), jnp.asarray([0.7, -0.4])).state, atol=1e-5)


METER = Samples([0], [1])
WORDS = {"duration": 1.0, "steps": 4, "meter": METER}
PAIR = {
    "weight": jnp.ones(2),
    "coupling": jnp.ones(1),
    "drive": jnp.eye(2),
    "mass": jnp.ones(2),
    "frequency": jnp.ones(()),
    "edges": ((0, 1),),
}
ONE = [pendulum(), [0.0], [1.0]]
MISTAKES = [
    (lambda: Trajectory.between(pendulum(), [0.0], [0.0, 1.0], **WORDS), r"last: wanted shape \(1,\), like first"),
    (lambda: Trajectory.between(pendulum(), 0.0, [0.0], **WORDS), r"first: wanted shape \(n,\)"),
    (lambda: Trajectory.between(pendulum(), [0.0], [np.nan], **WORDS), "last: wanted finite numbers"),
    (lambda: Trajectory.between(*ONE, **{**WORDS, "steps": 1}), "steps: wanted at least 2, got 1"),
    (lambda: Trajectory.between(*ONE, **{**WORDS, "duration": 0.0}), "duration: wanted a positive"),
    (lambda: Trajectory.between(*ONE, **WORDS, guess=np.zeros((4, 1))), r"guess: wanted shape \(3, 1\)"),
    (lambda: Trajectory.between(*ONE, **WORDS, n_inputs=-1), "n_inputs: wanted how many"),
    (lambda: Trajectory.loop(pendulum(), 1, **{**WORDS, "steps": 5}), "steps: wanted an even number for a loop, got 5"),
    (lambda: Trajectory.loop(pendulum(), 0, **WORDS), "n: wanted at least one coordinate"),
    (
        lambda: Trajectory.loop(pendulum(), 1, **{**WORDS, "meter": Samples([0], [4])}),
        "steps: wanted steps from 0 to 3",
    ),
    (lambda: Trajectory.loop(pendulum(), 1, **{**WORDS, "meter": Samples([1], [1])}), "coordinates: wanted coord"),
    (lambda: Trajectory.loop(pendulum(), 1, **{**WORDS, "meter": MeanSquare([0], 3, 3)}), "start, stop: wanted 0 <="),
    (lambda: Samples([], [1]), "coordinates: wanted at least one"),
    (lambda: CoupledPendulums(**{**PAIR, "coupling": jnp.ones(2)}), r"coupling: wanted shape \(1,\), got \(2,\)"),
    (lambda: CoupledPendulums(**{**PAIR, "weight": jnp.ones(())}), r"weight: wanted shape \(2,\), got \(\)"),
    (
        lambda: CoupledPendulums(**{**PAIR, "edges": ((0, 2),)}),
        "edges: wanted pairs of different pendulums from 0 to 1",
    ),
    (lambda: CoupledPendulums(**{**PAIR, "drive": jnp.ones(2)}), r"drive: wanted shape \(2, inputs\)"),
]


@pytest.mark.parametrize(("call", "words"), MISTAKES)
def test_mistakes_are_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_outputs_along_a_path_cannot_be_pinned():
    with pytest.raises(ValueError, match="Trajectory nudges outputs and cannot hold them at a pin"):
        spring_between(1.0, 0.3, 0.2).relax(NOTHING, Pin(jnp.zeros(1)))


def test_springs_that_would_push_are_brought_to_zero():
    law = eqx.tree_at(lambda law: law.coupling, pendulum(n=3), jnp.asarray([-0.1, 0.2]))
    net = Trajectory.between(law, np.zeros(3), np.ones(3), **WORDS, n_inputs=3)
    np.testing.assert_array_equal(net.constrained().lagrangian.coupling, [0.0, 0.2])


def test_a_path_that_is_not_reached_is_told_of_its_guess():
    words = {"duration": 3.0, "steps": 10, "meter": Samples([0], [5]), "n_inputs": 1}
    path = Trajectory.between(pendulum(), [0.0], [2.0], **words)
    found = path.relax(jnp.zeros(1), solver=PathNewton(max_steps=1))
    assert found.status == Status.out_of_steps
    assert "another start may be nearer (of a path, its `guess`)" in str(found)
    settled = path.relax(jnp.zeros(1))
    nearer = Trajectory.between(pendulum(), [0.0], [2.0], guess=settled.state, **words)
    assert nearer.relax(jnp.zeros(1), solver=PathNewton(max_steps=1)).converged
