"""The conformance kit of physical systems: sound ones pass, and each planted error fails the law that it breaks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from black_boxes import LinearSystem, SpringScale
from spice_circuits import needs_ngspice

from substrates import HopfieldNetwork, Noisy, Plant, ResistorNetwork, SpiceCircuit, Status
from theory_checks import BrokenLawError, SealedSystem, check_system

X, Y = np.array([0.5, -0.3, 0.8]), np.array([1.0, -0.5])
DRAWN = LinearSystem.drawn
EDGES = [(0, 2), (0, 3), (1, 3), (1, 4), (2, 3), (3, 4), (2, 5), (3, 5), (4, 5)]
NET = ResistorNetwork.from_edges(EDGES, n=6, inputs=[0, 1], outputs=[5], conductance=jnp.linspace(0.5, 1.5, 9))
VOLTS, WANTED = np.array([1.0, 0.5]), np.array([0.2])
LAWS = 21


def undecided(report):
    return [law.name for law in report.laws if law.verdict == "does not apply"]


# sound systems


def test_a_circuit_obeys_every_law_by_its_five_verbs():
    report = check_system(SealedSystem(Plant(NET, 0.1, inputs=2)), VOLTS, WANTED).raise_if_failed()
    assert len(report.laws) == LAWS
    assert undecided(report) == []


@needs_ngspice
def test_a_live_circuit_obeys_every_law():
    with SpiceCircuit.from_network(NET, epsilon=0.1) as circuit:
        report = check_system(circuit, VOLTS, WANTED).raise_if_failed()
    assert undecided(report) == []


@needs_ngspice
def test_a_live_circuit_with_rigid_knobs_cannot_learn():
    with SpiceCircuit.from_network(NET, epsilon=0.0) as circuit:
        report = check_system(circuit, VOLTS, WANTED)
    assert [law.name for law in report.failures] == ["yielding"]


@pytest.mark.parametrize("copies", [None, 3])
def test_a_hopfield_network_obeys_every_law(copies):
    net = HopfieldNetwork.layered((4, 8, 3), key=jax.random.key(1))
    x, y = np.array([0.3, 0.9, 0.1, 0.6]), np.array([1.0, 0.0, 0.0])
    if copies:
        x, y = np.random.default_rng(0).uniform(size=(3, 4)), np.eye(3)
    report = check_system(Plant(net, 0.1, copies=copies), x, y).raise_if_failed()
    assert set(undecided(report)) <= {"bias"}  # piecewise linear


@pytest.mark.parametrize("seed", range(5))
def test_linear_systems_obey_every_law(seed):
    system = DRAWN(seed)
    before = system.read()
    report = check_system(system, X, Y, seed=seed).raise_if_failed()
    assert undecided(report) == []
    assert report["gradient"].number < 0.2
    assert report["bias"].number == pytest.approx(2, abs=0.1)
    np.testing.assert_allclose(system.read().parameters, before.parameters, atol=1e-7)
    assert system.beta == 0
    assert not np.any(system.x)


def test_parameters_that_the_free_state_does_not_push_cannot_be_coupled():
    report = check_system(SpringScale([0.4, -0.7, 1.1], 1.3), X, np.array([0.4])).raise_if_failed()
    assert undecided(report) == ["reciprocity of knobs"]


@pytest.mark.parametrize("noise", [1e-5, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("seed", range(5))
def test_noise_alone_breaks_no_law(noise, seed):
    noisy = Noisy(DRAWN(seed), output_noise=noise, parameter_noise=noise, seed=seed)
    report = check_system(noisy, X, Y).raise_if_failed()
    decided = {law.name for law in report.laws} - set(undecided(report))
    assert {"rest", "knobs", "pull", "reading", "refusals"} <= decided
    if noise == 1e-5:
        assert undecided(report) == ["bias"]


@pytest.mark.parametrize("seed", range(3))
def test_knobs_on_levels_break_no_law(seed):
    noisy = Noisy(DRAWN(seed, knob_range=(-3.0, 5.0)), output_noise=1e-5, parameter_noise=1e-5, bits=16, seed=seed)
    report = check_system(noisy, X, Y).raise_if_failed()
    assert "gradient" not in undecided(report)


def test_knobs_of_unequal_softness_pass_once_that_is_said():
    epsilon = np.linspace(0.05, 0.5, 6)
    assert check_system(DRAWN(epsilon=epsilon), X, Y, compliance=epsilon).passed
    assert not check_system(DRAWN(epsilon=epsilon), X, Y).passed


# planted errors


class Around:
    """A system with a verb replaced."""

    def __init__(self, system=None):
        self.system = DRAWN(knob_range=(-3.0, 3.0)) if system is None else system
        self.spec = self.system.spec

    def __getattr__(self, name):
        return getattr(self.system, name)


class Clipping(Around):
    def set_knobs(self, u):
        self.system.set_knobs(np.clip(u, -3.0, 3.0))


class Careless(Around):
    """Takes a nudge without a target for none."""

    def nudge(self, target, beta):
        self.system.nudge(target, 0.0 if target is None else beta)


class Grumbling(Around):
    """Refuses, but not by a ValueError."""

    def clamp(self, x):
        try:
            self.system.clamp(x)
        except ValueError as error:
            raise RuntimeError(str(error)) from error


class HalfDone(Around):
    """Refuses a nudge that has no target after it has turned the knobs."""

    def nudge(self, target, beta):
        if target is None and beta:
            self.system.set_knobs(self.system.u + 0.1)
        self.system.nudge(target, beta)


class Touchy(Around):
    """Every reading disturbs it."""

    def read(self):
        self.system.z = self.system.z + 1e-3
        return self.system.read()


class Sticking(Around):
    """A nudge of beta = 0 still pulls a little."""

    def nudge(self, target, beta):
        self.system.nudge(target, beta)
        if target is not None and beta == 0:
            self.system.nudge(target, 1e-3)


class Deaf(Around):
    """Checks its input, and leaves it."""

    def clamp(self, x):
        self.system.clamp(x)
        self.system.clamp(X)


class Rooted(Around):
    """Its nudge grows with the root of beta."""

    def nudge(self, target, beta):
        self.system.nudge(target, np.sign(beta) * np.sqrt(abs(beta)))


class Restless(Around):
    def settle(self):
        self.system.settle()
        return Status.out_of_steps


class Unreadable(Around):
    def read(self):
        shown = self.system.read()
        return dataclasses.replace(shown, parameters=np.full(6, np.nan))


class Growing(Around):
    """Shows more outputs than it says."""

    def read(self):
        shown = self.system.read()
        return dataclasses.replace(shown, outputs=np.zeros(3))


@pytest.mark.parametrize(
    ("system", "laws"),
    [
        (Clipping, {"refusals"}),
        (Careless, {"refusals"}),
        (Grumbling, {"refusals"}),
        (HalfDone, {"kept"}),
        (Touchy, {"reading"}),
        (Sticking, {"no nudge"}),
        (Deaf, {"clamp"}),
        (Rooted, {"bias"}),
        (Restless, {"rest"}),
        (Unreadable, {"readings"}),
        (Growing, {"readings"}),
        (lambda: DRAWN(sign=-1.0), {"pull"}),
        (lambda: DRAWN(sign=0.0), {"pull", "yielding"}),
        (lambda: DRAWN(twist=0.1), {"reciprocity of knobs", "reciprocity of nudge and knobs", "gradient", "descent"}),
        (lambda: DRAWN(twist=1.0), {"reciprocity of knobs", "reciprocity of nudge and knobs", "gradient", "mean cost"}),
        (lambda: DRAWN(epsilon=1e-12), {"yielding"}),
        (lambda: DRAWN(knob_range=(-2.0, 1.0 + 1e-6)), {"range"}),
        (lambda: Noisy(DRAWN(), dead=[2]), {"knobs", "holding"}),
        (lambda: Noisy(DRAWN(), hysteresis=3e-3), {"return of parameters"}),
        (lambda: Noisy(DRAWN(), drift=1e-2), {"return of parameters"}),
    ],
)
def test_a_planted_error_breaks_its_law(system, laws):
    report = check_system(system(), X, Y)
    assert laws <= {law.name for law in report.failures}, str(report)


def test_what_was_accepted_is_named():
    law = check_system(Clipping(), X, Y)["refusals"]
    assert "set_knobs out of range" in law.compared
    assert law.number == 2
    assert "nudge without a target" in check_system(Careless(), X, Y)["refusals"].compared


def test_a_report_of_a_system_can_be_raised():
    report = check_system(DRAWN(twist=1.0), X, Y)
    with pytest.raises(BrokenLawError, match="reciprocity of knobs"):
        report.raise_if_failed()
    assert "LinearSystem: 6 knobs, 3 inputs, 2 outputs, beta = " in str(report)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(steps=0), "steps: wanted a whole number from 1"),
        (dict(compliance=0.0), "compliance: wanted positive numbers"),
        (dict(x=None), "x, y: wanted an input and a target"),
        (dict(y=np.zeros(3)), "x, y: target: wanted real numbers of shape"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, match):
    given = {"x": X, "y": Y} | options
    with pytest.raises(ValueError, match=match):
        check_system(DRAWN(), given.pop("x"), given.pop("y"), **given)
