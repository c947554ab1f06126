"""Agnostic equilibrium propagation: against closed forms, finite differences and its own theorems."""

import itertools
import json

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from black_boxes import SpringScale
from hypothesis import given
from hypothesis import strategies as st
from linear_response import LinearResponse

from learning import AgnosticEP, EquilibriumPropagation, IntegralControl, SelfControl, fit
from learning.agnostic import inside
from learning.homeostat import HomeostasisError
from learning.training import TrainingError
from substrates import Plant, ResistorNetwork, Status
from substrates.laboratory.system import LaboratoryError, Reading
from theory_checks import SealedSystem, SealError

VARIANTS = ("optimistic", "pessimistic", "centered")
EDGES = [(0, 2), (0, 3), (1, 3), (1, 4), (2, 3), (3, 4), (2, 5), (3, 5), (4, 5)]
NET = ResistorNetwork.from_edges(EDGES, n=6, inputs=[0, 1], outputs=[5], conductance=jnp.linspace(0.5, 1.5, 9))
X, Y = np.array([1.0, 0.5]), np.array([0.2])
SLOPE = EquilibriumPropagation(beta=1e-3)(NET, X[None], Y[None]).gradient.conductance


def scale(epsilon=0.1, k=1.3, pull=(0.3, -0.2, 0.1), **options):
    return SpringScale([0.4, -0.7, 1.1], k, epsilon, pull, **options)


INPUT, TARGET = np.array([0.9, -0.3, 0.5]), np.array([0.4])


def one_step(system, rule, x=INPUT, y=TARGET):
    before = system.read().parameters
    found = rule.step(system, x[None], y[None])
    return found, before, system.read().parameters


# the step


def step_error(variant, epsilon, beta, slope):
    """The relative distance of a step on the scale from gradient descent down `slope` times (theta.x - y) x."""
    rule = AgnosticEP(beta, variant, IntegralControl(relative=1e-9), precision=1e-4)
    _, before, after = one_step(scale(epsilon), rule)
    wanted = slope * (before @ INPUT - TARGET[0]) * INPUT
    return np.linalg.norm((after - before) / (-epsilon * beta) - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_error_of_the_step_falls_with_beta_over_three_decades(variant):
    errors = [step_error(variant, 1e-5, beta, 1.0) for beta in (0.2, 0.02, 0.002, 0.0002)]
    if variant == "centered":
        errors = [step_error(variant, 1e-5, beta, 1.0) for beta in (1.0, 0.1, 0.01, 0.001)]
    np.testing.assert_allclose(-np.diff(np.log10(errors)), 2 if variant == "centered" else 1, atol=0.1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_descends_the_mean_cost_over_its_nudges_with_an_error_that_falls_with_epsilon(variant):
    beta = 0.4
    first, second = AgnosticEP(beta, variant).nudges
    stiffness = lambda beta: 1.3 * beta / (1.3 + beta)
    slope = (stiffness(second) - stiffness(first)) / beta
    errors = [step_error(variant, epsilon, beta, slope) for epsilon in (1e-1, 1e-2, 1e-3, 1e-4)]
    if variant == "pessimistic":  # the parameters move without a nudge, on which the force here does not depend
        assert max(errors) < 1e-5
    else:
        np.testing.assert_allclose(-np.diff(np.log10(errors)), 1, atol=0.1)


@pytest.mark.parametrize("homeostat", [IntegralControl(), SelfControl()], ids=["read-back", "known"])
def test_a_circuit_makes_the_step_of_equilibrium_propagation(homeostat):
    rule = AgnosticEP(0.02, "centered", homeostat, precision=1e-4)
    for epsilon in (1e-1, 1e-2):
        _, before, after = one_step(Plant(NET, epsilon, inputs=2), rule, X, Y)
        step = (after - before) / (-epsilon * 0.02)
        assert np.linalg.norm(step - SLOPE) < (0.1 * epsilon + 1e-3) * np.linalg.norm(SLOPE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_controller_rests_at_the_knobs_of_the_formula(variant):
    system = scale(0.3)
    rule = AgnosticEP(0.5, variant)
    theta = system.read().parameters
    first, _ = rule.nudges
    system.clamp(INPUT)
    system.nudge(TARGET, first)
    held = rule.homeostat.hold(system, theta, 1e-12)
    force = system.force_on_parameters(theta, INPUT, TARGET[0], first)
    assert held.settled
    np.testing.assert_allclose(held.reading.knobs, theta + 0.3 * force, atol=1e-11)
    np.testing.assert_allclose(held.reading.parameters, theta, atol=1e-12)


def test_without_homeostasis_the_step_is_worse():
    system = scale(0.05)
    _, before, after = one_step(system, AgnosticEP(0.05))
    exact = 0.05 * 0.05 * (0.4 - before @ INPUT) * INPUT
    careless = scale(0.05)
    careless.clamp(INPUT)
    careless.nudge(TARGET, 0.05)
    careless.settle()
    wrong = np.linalg.norm(careless.read().parameters - before - exact)
    assert wrong > 10 * np.linalg.norm(after - before - exact)


def test_only_the_five_verbs_are_used():
    sealed = SealedSystem(Plant(NET, 0.1, inputs=2))
    found, before, after = one_step(sealed, AgnosticEP(0.1), X, Y)
    assert found.system is sealed
    assert np.any(after != before)
    with pytest.raises(SealError, match="substrate"):
        sealed.substrate  # noqa: B018
    with pytest.raises(TypeError, match="cannot hold its parameters by itself"):
        one_step(sealed, AgnosticEP(0.1, homeostat=SelfControl()), X, Y)


# the Lyapunov theorem


@given(
    seed=st.integers(0, 2**32 - 1),
    epsilon=st.floats(1e-3, 5.0),
    beta=st.floats(1e-2, 5.0),
    variant=st.sampled_from(VARIANTS),
)
def test_the_mean_cost_over_the_nudges_never_rises(seed, epsilon, beta, variant):
    violation = lyapunov_change(np.random.default_rng(seed), epsilon, beta, variant)
    assert violation < 1e-9


@pytest.mark.slow
def test_the_mean_cost_over_the_nudges_never_rises_in_ten_thousand_trials():
    draw = np.random.default_rng(0)
    changes = []
    for trial in range(10_000):
        epsilon, beta = draw.uniform(0.01, 5, size=2)
        changes.append(lyapunov_change(draw, epsilon, beta, VARIANTS[trial % 3]))
    assert max(changes) < 1e-9
    assert np.mean(np.asarray(changes) < -1e-9) > 0.9  # and mostly falls


def lyapunov_change(draw, epsilon, beta, variant):
    """How much one step raises the surrogate, relative to it, on a random convex system."""
    theta, x, pull = draw.normal(size=(3, 3))
    y = draw.normal(size=1)
    rule = AgnosticEP(beta, variant, IntegralControl(max_rounds=400))
    first, second = rule.nudges
    k = draw.uniform(0.5, 2) + max(0.0, -first)
    if first < 0:
        # the homeostat must hold theta at a minimum of the controlled energy, which a negative nudge bends down
        epsilon = min(epsilon, 0.9 * (k + first) / (-first * k * (x @ x)))
    system = SpringScale(theta, k, epsilon, pull)
    before = system.surrogate(theta, x, y[0], first, second)
    rule.step(system, x[None], y[None])
    after = system.surrogate(system.read().parameters, x, y[0], first, second)
    return (after - before) / (abs(before) + 1e-12)


# limits


def test_a_parameter_at_its_floor_can_leave_it():
    """Held at the floor itself, every knob below the edge holds it, and it would never move again."""
    net = eqx.tree_at(lambda net: net.conductance, NET, NET.conductance.at[0].set(NET.floor))
    target = np.array([2.0])  # wants more current from the first input
    assert float(EquilibriumPropagation(beta=1e-3)(net, X[None], target[None]).gradient.conductance[0]) < 0
    moved = {}
    for margin in (0.0, 1e-3):
        system = Plant(net, 0.5, inputs=2)
        limits = system.spec.parameters
        held = inside(system.read().parameters, limits.lower, limits.upper, margin)
        _, before, after = one_step(system, AgnosticEP(0.5, margin=margin), X, target)
        assert before[0] == NET.floor
        moved[margin] = after[0] - held[0]
    assert moved[1e-3] > 1e-3
    assert abs(moved[0.0]) < 1e-9


def test_inside_moves_only_what_is_at_a_limit():
    system = Plant(NET, 0.5, inputs=2)
    theta = np.linspace(0.0, 1.0, 9) + NET.floor
    held = inside(theta, system.spec.parameters.lower, np.inf, 0.01)
    np.testing.assert_allclose(held[1:], theta[1:])
    np.testing.assert_allclose(held[0] - NET.floor, 0.01 * np.sqrt(np.mean((theta - NET.floor) ** 2)))


def test_saturated_knobs_are_reported_and_counted():
    tight = scale(0.5, pull=(5.0, 0.0, 0.0), knob_range=(-1.2, 1.2))
    with pytest.raises(HomeostasisError, match="1 knobs stand at the end of their range"):
        one_step(tight, AgnosticEP(0.1))
    found, *_ = one_step(scale(0.5, pull=(5.0, 0.0, 0.0), knob_range=(-1.2, 1.2)), AgnosticEP(0.1, strict=False))
    assert found.unconverged == 1
    assert found.residual > 0.1


def test_a_controller_that_does_not_settle_says_so():
    with pytest.raises(HomeostasisError, match="after 2 rounds a parameter is still"):
        one_step(scale(2.0), AgnosticEP(0.5, homeostat=IntegralControl(gain=0.01, max_rounds=2)))


class Broken(SpringScale):
    """Stops settling, or shows no number, after so many settlings."""

    def __init__(self, good, kind):
        super().__init__([0.4, -0.7, 1.1])
        self.good, self.kind = good, kind

    def settle(self):
        status = super().settle()
        return Status.out_of_steps if self.kind == "restless" and self.settled > self.good else status

    def read(self):
        shown = super().read()
        if self.kind == "blind" and self.settled > self.good:
            return Reading(shown.outputs * np.nan, shown.parameters, shown.knobs)
        return shown


def test_a_system_that_does_not_settle_or_shows_no_number_is_refused():
    with pytest.raises(HomeostasisError, match="the system did not settle"):
        one_step(Broken(0, "restless"), AgnosticEP(0.1))
    with pytest.raises(LaboratoryError, match="outputs: wanted finite readings"):
        one_step(Broken(0, "blind"), AgnosticEP(0.1))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(beta=0.0), "beta: wanted a positive number"),
        (dict(beta=0.1, variant="both"), "variant: wanted one of"),
        (dict(beta=0.1, margin=-1.0), "margin: wanted"),
        (dict(beta=0.1, precision=0.0), "precision: wanted"),
    ],
)
def test_impossible_rules_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        AgnosticEP(**options)


@pytest.mark.parametrize("options", [dict(gain=0.0), dict(max_rounds=1), dict(noise=-1.0)])
def test_impossible_homeostats_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        IntegralControl(**options)


# training


def line(n=40):
    x = np.random.default_rng(3).normal(size=(n, 3))
    return x, x @ np.array([[0.5], [-0.2], [0.8]])


def test_fit_trains_a_black_box(key):
    system = scale(0.5)
    run = fit(system, AgnosticEP(0.5), line(), epochs=4, key=key, validation=line(7), progress=False)
    assert run.substrate is system
    assert run.history["cost"][-1] < 1e-2 * run.history["cost"][0]
    assert run.history["validation_cost"][-1] < 1e-2 * run.history["cost"][0]
    assert int(np.sum(run.history["unconverged"])) == 0
    np.testing.assert_allclose(system.read().parameters, [0.5, -0.2, 0.8], atol=0.05)


def test_copies_learn_the_mean_of_their_examples(key):
    x, y = np.array([[1.0, 0.5], [0.3, -0.8]]), np.array([[0.2], [0.1]])
    slope = EquilibriumPropagation(beta=1e-3)(NET, x, y).gradient.conductance
    system = Plant(NET, 1e-3, inputs=2, copies=2)
    rule = AgnosticEP(0.02, "centered", SelfControl())
    before = system.read().parameters
    rule.step(system, x, y)
    np.testing.assert_allclose((system.read().parameters - before) / -2e-5, slope, atol=2e-3 * np.abs(slope).max())
    with pytest.raises(ValueError, match="wanted 2 examples for each step, one for each copy"):
        rule.step(system, x[:1], y[:1])


def test_a_run_that_fails_is_saved_where_it_failed_and_goes_on(key, tmp_path):
    options = dict(epochs=2, key=key, progress=False, out=tmp_path / "run")
    broken = Broken(100, "restless")
    with pytest.raises(TrainingError, match="did not settle") as raised:
        fit(broken, AgnosticEP(0.5), line(), **options)
    assert raised.value.run.epochs == 0
    stopped = broken.read()
    mended = Broken(10**9, "restless")
    run = fit(mended, AgnosticEP(0.5), line(), resume=True, **options)
    whole = Broken(10**9, "restless")
    fit(whole, AgnosticEP(0.5), line(), epochs=2, key=key, progress=False)
    assert run.epochs == 2
    assert np.linalg.norm(stopped.parameters - whole.theta) > 1e-3
    # homeostasis brings the parameters back to a hundredth of a step
    np.testing.assert_allclose(mended.theta, whole.theta, atol=2e-3)


@pytest.mark.parametrize(
    ("system", "rule", "match"),
    [
        (NET, AgnosticEP(0.1), "trains a PhysicalSystem, got ResistorNetwork; put it on the bench"),
        (scale(), EquilibriumPropagation(0.1), "has five verbs only; use AgnosticEP"),
        ("net", AgnosticEP(0.1), "wanted a Substrate or a PhysicalSystem, got str"),
    ],
)
def test_rules_and_systems_that_do_not_fit_are_refused(system, rule, match, key):
    with pytest.raises(TypeError, match=match):
        fit(system, rule, line(), epochs=1, key=key)


def test_examples_that_do_not_fit_are_refused(key):
    x, y = line()
    for data, match in (((x[:, :2], y), "like the inputs"), ((x, y[:, [0, 0]]), "like the outputs")):
        with pytest.raises(ValueError, match=match):
            fit(scale(), AgnosticEP(0.1), data, epochs=1, key=key)


def test_all_variants_use_different_nudges():
    found = {variant: AgnosticEP(0.4, variant).nudges for variant in VARIANTS}
    assert found == {"optimistic": (0.0, 0.4), "pessimistic": (-0.4, 0.0), "centered": (-0.2, 0.2)}
    assert all(np.isclose(b - a, 0.4) for a, b in found.values())
    assert len(set(itertools.chain(found.values()))) == 3


# what a history says of free outputs


def free_outputs(rule, x, y, epsilon=1e-4):
    """What every step reports as free outputs, and the free outputs before it, exactly, of linear springs."""
    system, told, exact = scale(epsilon), [], []
    for one, target in zip(x, y, strict=True):
        exact.append(one @ system.read().parameters)
        told.append(rule.step(system, one[None], target[None]).output[0, 0])
    return np.array(told), np.array(exact)


@pytest.mark.parametrize("variant", VARIANTS)
def test_reported_outputs_are_the_free_ones(variant):
    x, y = line(12)
    errors = []
    for beta in (0.4, 0.2):
        told, exact = free_outputs(AgnosticEP(beta, variant, precision=1e-4), x, y)
        errors.append(np.max(np.abs(told - exact)))
    if variant == "optimistic":  # settled without a nudge
        np.testing.assert_allclose(errors, 0, atol=1e-5)
    elif variant == "pessimistic":  # after the step, which falls with beta
        assert errors[0] < 1e-2
        np.testing.assert_allclose(errors[1] / errors[0], 1 / 2, atol=0.1)
    else:  # between two nudges, a parabola
        assert errors[0] < 0.1
        np.testing.assert_allclose(errors[1] / errors[0], 1 / 4, atol=0.05)


@pytest.mark.parametrize("homeostat", [SelfControl(), IntegralControl()], ids=["compiled", "by verbs"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_errors_in_a_history_are_those_of_free_outputs(variant, homeostat, key, tmp_path):
    """In the first phase all outputs but those of the optimistic variant show another label."""
    net = LinearResponse(jnp.eye(2), jnp.asarray([0.0, 0.1]))
    x, labels = np.array([[0.6, 0.4], [0.5, 0.5], [0.65, 0.4], [0.45, 0.5]]), np.array([0, 1, 0, 1])
    distance = x + np.array([0.0, 0.1]) - np.eye(2)[labels]
    run = fit(
        Plant(net, 1e-6, inputs=2), AgnosticEP(0.4, variant, homeostat), (x, labels), epochs=1, key=key,
        progress=False, out=tmp_path / "run",
    )  # fmt: skip
    name, other = ("error", "estimated_error") if variant == "optimistic" else ("estimated_error", "error")
    assert other not in run.history
    np.testing.assert_array_equal(run.history[name], [0.0])
    # the line through (f - b y) / (1 - b) and (f + b y) / (1 + b), b = beta / 2, at no nudge
    factor = 1 / (1 - 0.2**2) ** 2 if variant == "centered" else 1.0
    np.testing.assert_allclose(run.history["cost"], factor * np.sum(distance**2) / 2 / len(x), rtol=1e-4)
    assert name.replace("_", " ") in repr(run)
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert name in row
    assert other not in row
