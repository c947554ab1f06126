"""Simulated systems on the bench: joint equilibria against SciPy and their own conditions, and the five verbs."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree

from learning import AgnosticEP, CrossEntropy, EquilibriumPropagation, IntegralControl, SquaredError
from substrates import HopfieldNetwork, Nudge, PhysicalSystem, Plant, ResistorNetwork, Status, Substrate
from substrates.laboratory.system import ConjugateReadout, Reading, SelfHolding, Spec, Terminals, checked_reading
from substrates.solvers.joint import PotentialControl, SpringControl
from substrates.solvers.solver import Solver, judge
from substrates.substrate import split_parameters

X, Y = np.array([0.7, -0.4]), np.array([0.6])


class NewtonStep(Solver):
    """Settles what is quadratic."""

    def __call__(self, substrate, x, nudge, start, key):
        total = lambda state: substrate.total_energy(state, x, nudge)
        state = start - jnp.linalg.solve(jax.hessian(total)(start), jax.grad(total)(start))
        return judge(substrate, state, x, nudge, 1, 1e-11)


class Chain(Substrate):
    """Three coordinates on springs; the energy is quadratic in the rest lengths and linear in the stiffness."""

    stiffness: jax.Array
    rest: jax.Array

    solver: ClassVar[Solver] = NewtonStep()

    @property
    def input_size(self):
        return 2

    def energy(self, state, x):
        ends = jnp.concatenate([x[:1], state, x[1:]])
        return 0.5 * jnp.sum(self.stiffness * (jnp.diff(ends) - self.rest) ** 2)

    def initial_state(self, x):
        return jnp.zeros(3)

    def read(self, state, x):
        return state[1:2]

    def constrained(self):
        return eqx.tree_at(lambda chain: chain.stiffness, self, jnp.maximum(self.stiffness, 0.2))


CHAIN = Chain(jnp.array([1.0, 0.8, 1.2, 0.7]), jnp.array([0.1, -0.2, 0.3, 0.0]))
HOPFIELD = HopfieldNetwork.layered((2, 4, 1), key=jax.random.key(1))
RESISTORS = ResistorNetwork.from_edges(
    [(0, 2), (1, 2), (2, 3), (1, 3)], 4, inputs=[0, 1], outputs=[3], conductance=[2.0, 1.5, 2.5, 2.0], floor=0.2
)


def flat(system):
    return np.asarray(ravel_pytree(split_parameters(system)[0])[0])


def scipy_joint_minimum(system, epsilon, u, x, y, beta):
    """theta at the minimum over (theta, s), by SciPy's BFGS on the whole."""
    parameters, rest = split_parameters(system)
    theta, unravel = ravel_pytree(parameters)
    nudge = Nudge(SquaredError(), jnp.asarray(y), beta)

    def total(z):
        net = eqx.combine(unravel(z[: theta.size]), rest)
        return jnp.sum((u - z[: theta.size]) ** 2) / (2 * epsilon) + net.total_energy(z[theta.size :], x, nudge)

    start = np.concatenate([theta, system.relax(x, nudge).state])
    found = scipy.optimize.minimize(jax.jit(total), start, jac=jax.jit(jax.grad(total)), options={"gtol": 1e-10})
    return found.x[: theta.size], found.x[theta.size :]


@pytest.mark.parametrize("beta", [0.0, 0.8])
def test_parameters_and_state_settle_to_their_joint_minimum(beta):
    plant = Plant(CHAIN, 0.3)
    u = flat(CHAIN) + 0.05
    plant.clamp(X)
    plant.nudge(Y, beta)
    plant.set_knobs(u)
    assert plant.settle() == Status.converged
    shown = plant.read()
    theta, state = scipy_joint_minimum(CHAIN, 0.3, u, jnp.asarray(X), Y, beta)
    np.testing.assert_allclose(shown.parameters, theta, atol=1e-7)
    np.testing.assert_allclose(shown.outputs, state[1:2], atol=1e-7)
    np.testing.assert_array_equal(shown.knobs, u)


@pytest.mark.parametrize("system", [CHAIN, HOPFIELD, RESISTORS], ids=["chain", "hopfield", "resistors"])
def test_every_parameter_balances_its_knob_or_stands_at_its_limit(system):
    plant = Plant(system, 0.5, inputs=2, copies=3)
    draw = np.random.default_rng(0)
    u = flat(system) + draw.normal(scale=0.6, size=plant.spec.knobs.size)
    u[0] = -1.0
    plant.clamp(draw.normal(size=(3, 2)))
    plant.nudge(draw.normal(size=(3, 1)), 0.7)
    plant.set_knobs(u)
    assert plant.settle() == Status.converged
    theta = plant.read().parameters
    free = u - 0.5 * plant.read_conjugate()
    np.testing.assert_allclose(theta, np.maximum(free, plant.spec.parameters.lower), atol=1e-9)
    if system is not HOPFIELD:
        assert theta[0] == 0.2


def test_no_round_raises_the_joint_energy():
    """Even for knobs so soft that the parameters' own step would overshoot."""
    control = SpringControl(jnp.asarray(20.0))
    knobs = split_parameters(CHAIN)[0]
    xs = jnp.asarray(X)[None]
    energies = []
    for rounds in range(1, 8):
        found = CHAIN.relax_jointly(control, knobs, xs, max_rounds=rounds)
        theta = split_parameters(found.system)[0]
        energies.append(float(control.energy(knobs, theta) + found.system.energy(found.states.state[0], xs[0])))
    assert np.all(np.diff(energies) <= 1e-12), energies
    assert energies[-1] < energies[0] - 1e-3


def test_parameters_come_to_rest_also_where_all_knobs_are_zero():
    plant = Plant(CHAIN, 0.3, max_rounds=200)
    plant.set_knobs(np.zeros(8))
    plant.clamp(X)
    assert plant.settle() == Status.converged
    assert np.abs(plant.read().parameters[4:]).min() > 1e-3


def test_holding_sets_the_knobs_of_the_formula_and_moves_nothing():
    plant = Plant(CHAIN, 0.3)
    theta = flat(CHAIN)
    plant.clamp(X)
    plant.nudge(Y, 0.4)
    assert plant.hold(theta) == Status.converged
    np.testing.assert_array_equal(plant.read().parameters, theta)
    np.testing.assert_allclose(plant.read().knobs, theta + 0.3 * plant.read_conjugate(), rtol=1e-12)
    plant.settle()
    np.testing.assert_allclose(plant.read().parameters, theta, atol=1e-10)


def test_one_compliance_per_parameter():
    plant = Plant(CHAIN, {"stiffness": 0.3, "rest": 0.05})
    plant.clamp(X)
    plant.settle()
    epsilon = np.repeat([0.3, 0.05], 4)
    np.testing.assert_allclose(plant.read().parameters, flat(CHAIN) - epsilon * plant.read_conjugate(), atol=1e-9)
    for wrong in ({"stiffness": 0.3}, {"stiffness": 0.3, "rest": 0.1, "length": 0.1}):
        with pytest.raises(ValueError, match=r"epsilon: .*the parameters are stiffness, rest"):
            Plant(CHAIN, wrong)


# other control energies


def sinh_well(u, theta):
    """U = 1/2 (sinh theta - u)' Q (sinh theta - u)."""
    off = jnp.sinh(theta) - u
    return 0.5 * off @ (METRIC @ off)


METRIC = jnp.eye(8) + 0.2 * jnp.ones((8, 8))


@pytest.mark.parametrize("homeostat", ["read-back", "known"])
def test_the_step_is_riemannian_under_a_general_control_energy(homeostat):
    from learning import SelfControl

    epsilon, beta = 1e-3, 1e-3
    plant = Plant(CHAIN, control=PotentialControl(sinh_well, epsilon))
    plant.set_knobs(np.sinh(flat(CHAIN)))  # which would hold the parameters if nothing else did
    rule = AgnosticEP(beta, "centered", IntegralControl() if homeostat == "read-back" else SelfControl())
    theta = flat(CHAIN)
    rule.step(plant, X[None], Y[None])
    step = (plant.read().parameters - theta) / (-epsilon * beta)
    slope = flat(EquilibriumPropagation(1e-3)(CHAIN, jnp.asarray(X)[None], jnp.asarray(Y)[None]).gradient)
    stretch = np.diag(np.cosh(theta))
    wanted = np.linalg.solve(stretch @ np.asarray(METRIC) @ stretch, slope)
    np.testing.assert_allclose(step, wanted, atol=0.02 * np.abs(wanted).max())
    assert np.linalg.norm(step - slope) > 0.1 * np.linalg.norm(slope)


def test_a_general_control_energy_within_limits_comes_to_the_joint_minimum():
    """Against SciPy, with three stiffnesses at their limit, which bend the steps of the others in a metric that couples
    them.
    """
    epsilon = 0.05
    knobs = np.array([0.05, 0.9, -0.1, 0.1, 0.3, -0.2, 0.1, 0.0])
    plant = Plant(CHAIN, control=PotentialControl(sinh_well, epsilon))
    plant.set_knobs(knobs)
    plant.clamp(X)
    plant.settle()
    found = plant.read().parameters

    @jax.jit
    def joint(z):
        theta, state = z[:8], z[8:]
        net = eqx.tree_at(lambda c: (c.stiffness, c.rest), CHAIN, (theta[:4], theta[4:]))
        return sinh_well(jnp.asarray(knobs), theta) / epsilon + net.energy(state, jnp.asarray(X))

    bounds = [(0.2, None)] * 4 + [(None, None)] * 7
    start = np.concatenate([found + 0.1, np.zeros(3)])
    best = scipy.optimize.minimize(
        joint, start, jac=jax.jit(jax.grad(joint)), bounds=bounds, method="L-BFGS-B", options={"ftol": 0, "gtol": 1e-10}
    )
    assert np.sum(best.x[:4] == 0.2) == 3
    np.testing.assert_allclose(found, best.x[:8], atol=1e-6)


# the verbs


def test_a_plant_is_a_physical_system_that_can_do_more():
    plant = Plant(CHAIN, 0.1)
    for kind in (PhysicalSystem, ConjugateReadout, SelfHolding):
        assert isinstance(plant, kind)
    spec = plant.spec
    assert (spec.knobs.size, spec.inputs.size, spec.outputs.size, spec.copies) == (8, 2, 1, None)
    np.testing.assert_array_equal(spec.parameters.lower, [0.2] * 4 + [-np.inf] * 4)
    assert repr(plant) == "Plant(Chain: 8 knobs, 2 inputs, 1 outputs)"


def test_one_copy_is_the_system_itself_and_copies_share_the_mean():
    x, y = np.array([[0.7, -0.4], [0.1, 0.9]]), np.array([[0.6], [-0.2]])
    both = Plant(CHAIN, 0.3, copies=2)
    both.clamp(x)
    both.nudge(y, 0.5)
    both.settle()
    alone = [Plant(CHAIN, 0.3) for _ in range(2)]
    forces = []
    for plant, example, target in zip(alone, x, y, strict=True):
        plant.clamp(example)
        plant.nudge(target, 0.5)
        plant.hold(both.read().parameters)
        forces.append(plant.read_conjugate())
    np.testing.assert_allclose(both.read().parameters, flat(CHAIN) - 0.3 * np.mean(forces, axis=0), atol=1e-9)
    np.testing.assert_allclose(both.read().outputs[0], alone[0].read().outputs, atol=1e-9)


@pytest.mark.parametrize(
    ("verb", "match"),
    [
        (lambda p: p.set_knobs(np.zeros(7)), r"u: wanted real numbers of shape \(8,\), got float64 of shape \(7,\)"),
        (lambda p: p.set_knobs(np.full(8, np.nan)), "u: wanted finite numbers, got nan at"),
        (lambda p: p.set_knobs(np.full(8, 9.0)), r"u: wanted knob 0 from -2 to 2.*got 9 \(8 knobs are out of range\)"),
        (lambda p: p.clamp(np.zeros(3)), r"x: wanted real numbers of shape \(2,\)"),
        (lambda p: p.clamp(np.array([np.inf, 0.0])), "x: wanted finite numbers"),
        (lambda p: p.nudge(None, 0.1), r"target: wanted shape \(1,\) for a nudge of beta 0.1, got None"),
        (lambda p: p.nudge(np.zeros(2), 0.1), r"target: wanted real numbers of shape \(1,\)"),
        (lambda p: p.nudge(Y, np.inf), "beta: wanted a finite number"),
    ],
)
def test_a_verb_that_makes_no_sense_is_refused_and_changes_nothing(verb, match):
    plant = Plant(CHAIN, 0.3, knob_range=(-2, 2))
    plant.clamp(X)
    plant.settle()
    before = plant.read()
    with pytest.raises(ValueError, match=match):
        verb(plant)
    plant.settle()
    np.testing.assert_allclose(plant.read().parameters, before.parameters, atol=1e-11)


class Forced(Substrate):
    weight: jax.Array

    def force(self, state, x, nudge=None):
        return self.weight * x - state

    def initial_state(self, x):
        return jnp.zeros_like(x)

    def read(self, state, x):
        return state


class Silent(Substrate):
    weight: jax.Array

    def energy(self, state, x):
        return 0.5 * jnp.sum((self.weight * x - state) ** 2)

    def initial_state(self, x):
        return jnp.zeros_like(x)

    def read(self, state, x):
        return state


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(substrate="net", epsilon=0.1), "substrate: wanted a Substrate, got str"),
        (dict(substrate=Forced(jnp.ones(2)), epsilon=0.1), "got one with a force only, Forced"),
        (dict(substrate=CHAIN), "epsilon, control: wanted one of the two"),
        (dict(substrate=CHAIN, epsilon=-1.0), "epsilon: wanted positive numbers"),
        (dict(substrate=CHAIN, epsilon=0.1, copies=0), "copies: wanted a positive whole number"),
        (dict(substrate=CHAIN, epsilon=0.1, knob_range=(1, -1)), "lower, upper: wanted lower <= upper"),
        (dict(substrate=Silent(jnp.ones(2)), epsilon=0.1), "inputs: Silent does not tell how many inputs it has"),
    ],
)
def test_what_makes_no_plant_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        Plant(**options)


def test_a_reading_is_checked():
    spec = Spec(Terminals(2), Terminals(2), Terminals(1), Terminals(1))
    good = dict(outputs=np.zeros(1), parameters=np.zeros(2), knobs=np.zeros(2))
    assert checked_reading(spec, Reading(**good)).outputs.shape == (1,)
    for name, wrong, match in (
        ("outputs", np.zeros(2), r"outputs: wanted a reading of shape \(1,\)"),
        ("parameters", np.array([0.0, np.nan]), r"parameters: wanted finite readings, got nan at \[1\]"),
    ):
        with pytest.raises(RuntimeError, match=match):
            checked_reading(spec, Reading(**{**good, name: wrong}))
    with pytest.raises(ValueError, match="knobs: wanted one for each of the 2 parameters, got 1"):
        Spec(Terminals(1), Terminals(2), Terminals(1), Terminals(1))


def test_a_joint_relaxation_that_runs_out_of_rounds_says_so():
    plant = Plant(CHAIN, 0.5, max_rounds=1)
    plant.set_knobs(flat(CHAIN) + 1.0)
    plant.clamp(X)
    assert plant.settle() == Status.out_of_steps


# Hopfield networks settle with their couplings in closed form

DEEP = HopfieldNetwork.layered((3, 6, 5, 2), key=jax.random.key(2))
INPUTS = jax.random.normal(jax.random.key(3), (4, 3))
TARGETS = jax.random.normal(jax.random.key(4), (4, 2))
LABELS = jnp.eye(2)[jnp.array([0, 1, 1, 0])]
NUDGES = [None, Nudge(SquaredError(), TARGETS, jnp.asarray(0.5)), Nudge(CrossEntropy(), LABELS, jnp.asarray(-0.5))]


@pytest.mark.parametrize(
    ("nudges", "shared"),
    list(zip(NUDGES, [True, False, False], strict=True)),
    ids=["free", "squared error", "cross-entropy"],
)
def test_couplings_that_are_eliminated_rest_where_alternation_leads(nudges, shared):
    knobs = split_parameters(DEEP)[0]
    epsilon = 0.1 if shared else jax.tree.map(lambda leaf: jnp.asarray(0.08 * leaf.ndim), knobs)
    control = SpringControl(epsilon)
    found = DEEP.relax_jointly(control, knobs, INPUTS, nudges)
    wanted = Substrate.relax_jointly(DEEP, control, knobs, INPUTS, nudges)
    assert found.status == Status.converged
    np.testing.assert_allclose(flat(found.system), flat(wanted.system), atol=1e-9)
    for ours, theirs in zip(found.states.state, wanted.states.state, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)
    np.testing.assert_allclose(found.states.energy, wanted.states.energy, atol=1e-9)


@pytest.mark.parametrize("nudges", NUDGES[:2], ids=["free", "nudged"])
def test_no_sweep_of_eliminated_couplings_raises_the_joint_energy(nudges):
    """From states far away, and with knobs so soft that the common minimum lies at the bounds."""
    control, knobs = SpringControl(jnp.asarray(0.6)), split_parameters(DEEP)[0]
    starts = tuple(jax.random.uniform(jax.random.key(k), (4, size)) for k, size in enumerate((6, 5, 2)))
    energies = []
    for sweeps in (1, 2, 3, 5, 8):
        found = DEEP.relax_jointly(control, knobs, INPUTS, nudges, starts, max_rounds=sweeps)
        theta = split_parameters(found.system)[0]
        energies.append(float(control.energy(knobs, theta) + jnp.mean(found.states.energy)))
    assert np.all(np.diff(energies) <= 1e-12), energies
    assert energies[-1] < energies[0] - 1e-3
    assert found.status == Status.out_of_steps


def test_a_nudge_harder_than_the_outputs_hold_themselves_is_unstable():
    nudges = Nudge(SquaredError(), TARGETS, jnp.asarray(-1.5))
    found = DEEP.relax_jointly(SpringControl(jnp.asarray(0.05)), split_parameters(DEEP)[0], INPUTS, nudges)
    assert found.status == Status.unstable


def test_readings_cannot_be_written_to_and_follow_the_plant():
    plant = Plant(DEEP, 0.05)
    first = plant.read()
    with pytest.raises(ValueError, match="read-only"):
        first.parameters[0] = 1.0
    plant.set_knobs(first.knobs + 0.1)
    np.testing.assert_allclose(plant.read().knobs, first.knobs + 0.1, rtol=1e-15)
    np.testing.assert_array_equal(plant.read().parameters, first.parameters)
    plant.clamp(np.array(INPUTS[0]))
    plant.settle()
    assert np.all(plant.read().parameters != first.parameters)
