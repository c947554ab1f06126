"""Calibration from outside: against linear systems in closed form, and each planted defect is named."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from black_boxes import LinearSystem
from linear_response import LinearResponse
from spice_circuits import needs_ngspice

from learning import AgnosticEP, calibrate
from substrates import Noisy, Plant, SpiceCircuit, Status
from substrates.laboratory.system import LaboratoryError, Reading, Terminals
from theory_checks import SealedSystem

X, Y = np.array([0.5, -0.3, 0.8]), np.array([1.0, -0.5])
DRAWN = LinearSystem.drawn


def problems(system, **options):
    return "\n".join(calibrate(system, X, Y, **options).problems)


# closed forms


@pytest.mark.parametrize("seed", range(5))
def test_answers_to_knobs_and_nudges_are_those_of_the_linear_system(seed):
    system = DRAWN(seed)
    found = calibrate(system, X, Y)
    free = np.linalg.inv(system.stiffness(0.0))
    turns = found.probing.turns
    np.testing.assert_allclose(found.probing.parameters, turns @ free[:6, :6].T / 0.2, atol=1e-10)
    np.testing.assert_allclose(found.probing.outputs, turns @ free[-2:, :6].T / 0.2, atol=1e-10)
    at_rest = free @ np.concatenate([np.ones(6) / 0.2, system.drive @ X])
    np.testing.assert_allclose(found.rest.reading.outputs, at_rest[-2:], atol=1e-12)
    beta = found.nudging.beta
    nudged = [
        np.linalg.solve(
            system.stiffness(b), np.concatenate([np.ones(6) / 0.2, system.drive @ X]) + b * np.append(np.zeros(8), Y)
        )
        for b in (beta, -beta)
    ]
    np.testing.assert_allclose(found.nudging.outputs, (nudged[0] - nudged[1])[-2:] / 2, atol=1e-10)
    np.testing.assert_allclose(found.nudging.parameters, (nudged[0] - nudged[1])[:6] / 2, atol=1e-10)
    slope = free[:, -2:] @ (Y - at_rest[-2:])  # dz/dbeta at beta = 0
    np.testing.assert_allclose(found.nudging.output_gain, np.linalg.norm(slope[-2:]), rtol=0.02)
    np.testing.assert_allclose(found.nudging.parameter_gain, slope[:6], atol=0.02 * np.abs(slope[:6]).max())
    np.testing.assert_allclose(found.epsilon, 0.2, rtol=1e-7)
    cost = np.sum((at_rest[-2:] - Y) ** 2) / 2
    removed = found.beta * np.sum(slope[:6] ** 2) / 0.2 / cost  # beta epsilon |gradient|^2 / C
    np.testing.assert_allclose(found.progress, removed, rtol=0.04)
    np.testing.assert_allclose(found.softer, 0.1 / found.progress)
    assert found.probing.reciprocity.number < 1e-8
    assert found.nudge_reciprocity.number < 1e-8
    assert found.usable
    assert "usable" in str(found)


def test_the_gain_of_a_knob_is_that_of_its_device():
    inside = DRAWN(epsilon=1e-4)
    noisy = Noisy(inside, spread=0.2, seed=2)
    wanted = []
    for knob in range(6):
        noisy.set_knobs(np.ones(6) + np.eye(6)[knob])
        wanted.append(inside.u[knob] - 1)
    noisy.set_knobs(np.ones(6))
    np.testing.assert_allclose(calibrate(noisy, X, Y).probing.gain, wanted, rtol=2e-3)
    assert np.ptp(wanted) > 0.1


def test_knobs_of_unequal_softness_are_reciprocal_once_that_is_said():
    epsilon = np.linspace(0.05, 0.5, 6)
    told = calibrate(DRAWN(epsilon=epsilon), X, Y, compliance=10 * epsilon)
    assert told.usable
    assert told.nudge_reciprocity.number < 1e-8
    np.testing.assert_allclose(told.epsilon, 0.1, rtol=1e-7)
    assert "compliance=" in problems(DRAWN(epsilon=epsilon))


def test_the_cost_of_the_nudge_sets_the_scale_of_epsilon():
    twice = lambda output, target: jnp.sum((output - target) ** 2)
    found = calibrate(DRAWN(sign=2.0), X, Y, cost=twice)
    np.testing.assert_allclose(found.epsilon, 0.2, rtol=1e-7)


def test_copies_share_the_mean():
    draw = np.random.default_rng(0)
    net = LinearResponse(jnp.asarray(draw.normal(size=(2, 3))), jnp.zeros(2))
    xs, ys = draw.normal(size=(4, 3)), draw.normal(size=(4, 2))
    found = calibrate(Plant(net, 0.01, copies=4, inputs=3), xs, ys)
    np.testing.assert_allclose(found.epsilon, 0.01, rtol=0.05)
    assert found.usable


@pytest.mark.parametrize("output_noise", [0.0, 1e-3])
def test_the_noise_of_the_meters_is_estimated(output_noise):
    found = calibrate(Noisy(DRAWN(), output_noise=output_noise, parameter_noise=2e-4, seed=5), X, Y, repeats=400)
    np.testing.assert_allclose(found.rest.output_noise, output_noise, rtol=0.1, atol=1e-12)
    np.testing.assert_allclose(found.rest.parameter_noise, 2e-4, rtol=0.07)
    assert found.rule.homeostat.noise > 3 * 2e-4


@needs_ngspice
@pytest.mark.parametrize("epsilon", [1e-7, 1e-5])
def test_the_compliance_of_a_live_circuit_with_a_diode_is_found(epsilon):
    resistors = "R1 a b 1k\nR2 b c 2k\nR3 b 0 3k\nR4 a d 4k\nR5 d b 5k\n"
    deck = f"t\nV1 a 0 0\nV2 c 0 0\n{resistors}D1 d 0 m\n.model m D(IS=1n N=1.5)\n"
    with SpiceCircuit.from_netlist(deck, inputs=["a", "c"], outputs=["b", "d"], epsilon=epsilon, floor=1e-7) as live:
        found = calibrate(live, np.array([2.0, -1.0]), np.array([0.5, 0.2]))
    assert found.usable
    np.testing.assert_allclose(found.epsilon, epsilon, rtol=0.01)
    assert found.nudge_reciprocity.number < 0.01


# what is suggested


def test_the_suggested_rule_learns():
    system = DRAWN(1)
    found = calibrate(system, X, Y)
    assert isinstance(found.rule, AgnosticEP)
    assert found.rule.nudges == (-found.nudging.beta, found.nudging.beta)
    costs = [float(found.rule.step(system, X[None], Y[None]).cost) for _ in range(40)]
    assert costs[-1] < 0.6 * costs[0]
    assert np.all(np.diff(costs) < 0)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_nudge_fits_systems_of_any_stiffness(scale):
    system = DRAWN()
    system = LinearSystem(scale * system.H, scale * system.drive, 6, 2, 0.2 / scale)
    found = calibrate(system, X, Y)
    np.testing.assert_allclose(found.beta / scale, calibrate(DRAWN(), X, Y).beta, rtol=0.3)
    assert 0.03 < found.nudging.pull < 0.15
    assert found.nudging.asymmetry <= 0.1
    assert found.usable


# planted defects


@pytest.mark.parametrize("twist", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_system_without_an_energy_is_named(twist, seed):
    found = problems(DRAWN(seed, twist=twist))
    assert "reciprocity of knobs" in found
    assert "reciprocity of nudge and knobs" in found


@pytest.mark.parametrize("noise", [0.0, 1e-3])
@pytest.mark.parametrize("dead", [[], [3], [0, 5]])
def test_dead_knobs_are_found_and_no_others(dead, noise):
    found = calibrate(Noisy(DRAWN(), dead=dead, parameter_noise=noise, seed=1), X, Y)
    assert list(found.probing.dead) == dead
    assert ("follow its knob" in "\n".join(found.problems)) == bool(dead)


def test_dead_knobs_do_not_count_as_a_lack_of_reciprocity():
    found = calibrate(Noisy(DRAWN(), dead=[3]), X, Y)
    assert found.probing.reciprocity.number < 1e-8
    assert found.nudge_reciprocity.number < 1e-8


def test_dead_knobs_are_found_among_many():
    dead = [3, 77, 140]
    assert list(calibrate(Noisy(DRAWN(n_knobs=150), dead=dead), X, Y).probing.dead) == dead


@pytest.mark.parametrize(
    ("system", "said"),
    [
        (lambda: DRAWN(sign=-1.0), "nudge: wanted the outputs to move towards the target for beta > 0, got -"),
        (lambda: DRAWN(sign=0.0), "nudge: wanted the outputs to move towards the target"),
        (lambda: DRAWN(epsilon=1e-12), "nudge: wanted the parameters to move by 3 times the noise"),
        (lambda: Noisy(DRAWN(), parameter_noise=0.01), "soften the knobs, or read more finely"),
        (lambda: Noisy(DRAWN(), hysteresis=3e-3), "parameters: wanted them back"),
        (lambda: Noisy(DRAWN(), hysteresis=0.5), r"no answer from 6 \(0, 1, 2, 3, 4, 5\)"),
        (lambda: Noisy(DRAWN(), drift=1e-2), "look for play, drift"),
        (lambda: DRAWN(knob_range=(-2.0, 1.0 + 1e-6)), "knobs: wanted room"),
        (lambda: Noisy(DRAWN(knob_range=(-2.0, 2.0)), bits=8), "knobs: wanted to set them more finely"),
        (lambda: Restless(DRAWN()), "rest: wanted the system to come to rest"),
        (lambda: OneSided(DRAWN()), r"nudge: wanted opposite answers to \+-beta"),
    ],
)
def test_what_spoils_learning_is_said(system, said):
    found = calibrate(system(), X, Y)
    assert not found.usable
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(str(found))


class Around:
    """A system with one verb replaced."""

    def __init__(self, system):
        self.system, self.spec = system, system.spec

    def __getattr__(self, name):
        return getattr(self.system, name)


class Restless(Around):
    def settle(self):
        self.system.settle()
        return Status.out_of_steps


class OneSided(Around):
    """Its nudge can only pull."""

    def nudge(self, target, beta):
        self.system.nudge(target, max(beta, 0.0))


class Failing(Around):
    """Shows what is no number at one of its readings."""

    def __init__(self, system, at):
        super().__init__(system)
        self.left = at

    def read(self):
        self.left -= 1
        shown = self.system.read()
        return shown if self.left else Reading(np.full(2, np.nan), shown.parameters, shown.knobs)


# manners


def worked_on(system):
    """The same system after a phase of learning: its parameters rest where input and nudge hold them."""
    system.set_knobs(np.linspace(0.5, 1.5, 6))
    system.clamp(X)
    system.nudge(Y, 0.3)
    system.settle()
    return system


def assert_as_found(system, before):
    after = system.read()
    np.testing.assert_allclose(after.parameters, before.parameters, atol=1e-7)
    assert system.beta == 0
    assert not np.any(system.x)


def test_the_system_is_left_as_it_was_found_and_the_settles_are_counted():
    system = worked_on(DRAWN())
    before, settled = system.read(), system.settled
    found = calibrate(system, X, Y)
    assert_as_found(system, before)
    assert found.settles == system.settled - settled
    assert found.settles < 60
    assert found.moved <= 1e-7


@pytest.mark.parametrize("at", [2, 5, 20, 35])
def test_the_system_is_left_as_it_was_found_after_a_failure(at):
    system = worked_on(DRAWN())
    before = system.read()
    with pytest.raises(LaboratoryError, match="outputs: wanted finite readings, got nan"):
        calibrate(Failing(system, at), X, Y)
    assert_as_found(system, before)


@pytest.mark.parametrize("at", [None, 20])
def test_knobs_at_rest_come_back_exactly(at):
    system = DRAWN()
    before = system.read()
    if at is None:
        calibrate(system, X, Y)
    else:
        with pytest.raises(LaboratoryError):
            calibrate(Failing(system, at), X, Y)
    np.testing.assert_array_equal(system.read().knobs, before.knobs)


def test_parameters_at_their_limit_are_left_out():
    system = DRAWN()
    system.clamp(X)
    system.settle()
    lower = np.where(np.arange(6) == 1, system.read().parameters, -np.inf)
    system.spec = dataclasses.replace(system.spec, parameters=Terminals(6, "", lower))
    found = calibrate(SealedSystem(system), X, Y)
    assert found.probing.at_limit == (1,)
    assert np.isnan(found.probing.gain[1])
    assert not np.any(found.probing.turns[:, 1])
    np.testing.assert_allclose(found.epsilon, 0.2, rtol=1e-7)
    assert found.usable


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(x=None), "x, y: wanted an input and a target"),
        (dict(x=np.zeros(2)), r"x, y: x: wanted real numbers of shape \(3,\)"),
        (dict(y=np.array([np.nan, 0.0])), "x, y: target: wanted finite numbers"),
        (dict(compliance=np.ones(5)), "compliance: wanted positive numbers"),
        (dict(compliance=-1.0), "compliance: wanted positive numbers"),
        (dict(step=0.0), "step: wanted a number between 0 and 1"),
        (dict(linear=2.0), "linear: wanted a number between 0 and 1"),
        (dict(pairs=0), "pairs: wanted a whole number from 1"),
        (dict(repeats=1), "repeats: wanted a whole number from 2"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, match):
    given = {"x": X, "y": Y} | options
    with pytest.raises(ValueError, match=match):
        calibrate(DRAWN(), given.pop("x"), given.pop("y"), **given)


def test_a_target_that_is_reached_is_refused():
    system = DRAWN()
    system.clamp(X)
    system.settle()
    with pytest.raises(ValueError, match="y: wanted a target that the system does not show anyway"):
        calibrate(system, X, system.read().outputs)


def test_directions_are_drawn_from_the_seed():
    shown = [str(calibrate(Noisy(DRAWN(), parameter_noise=1e-4), X, Y, seed=seed)) for seed in (0, 0, 1)]
    assert shown[0] == shown[1] != shown[2]
