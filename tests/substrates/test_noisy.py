"""Imperfect laboratories: each imperfection against its own definition."""

import dataclasses

import jax
import numpy as np
import pytest
from black_boxes import SpringScale
from hypothesis import given
from hypothesis import strategies as st

from learning import AgnosticEP, IntegralControl
from substrates import HopfieldNetwork, Noisy, Patience, PhysicalSystem, Plant, Recorder, Replay
from substrates.laboratory.system import Reading

RANGE = (-2.0, 2.0)


def scale():
    return SpringScale([0.4, -0.7, 1.1], k=1.3, knob_range=RANGE)


def standing(system, u):
    """Where the knobs inside really stand."""
    inside = scale()
    noisy = Noisy(inside, **system)
    for each in u:
        noisy.set_knobs(np.asarray(each, float))
    return inside.u, noisy


def test_without_imperfections_nothing_changes():
    inside, plain = scale(), scale()
    noisy = Noisy(inside)
    assert isinstance(noisy, PhysicalSystem)
    for system in (noisy, plain):
        system.set_knobs(np.array([0.1, 0.2, 0.3]))
        system.clamp(np.array([1.0, 0.5, -0.5]))
        system.nudge(np.array([0.4]), 0.1)
        system.settle()
    assert np.array_equal(noisy.read().outputs, plain.read().outputs)
    assert np.array_equal(noisy.read().parameters, plain.read().parameters)


def test_meters_have_the_errors_that_they_state():
    noisy = Noisy(scale(), output_noise=0.1, parameter_noise=0.02, seed=3)
    noisy.settle()
    readings = [noisy.read() for _ in range(4000)]
    assert readings[0].output_error == 0.1
    assert readings[0].parameter_error == 0.02
    np.testing.assert_allclose(np.std([r.outputs[0] for r in readings]), 0.1, rtol=0.05)
    np.testing.assert_allclose(np.std([r.parameters for r in readings], axis=0), 0.02, rtol=0.06)
    np.testing.assert_allclose(np.mean([r.outputs[0] for r in readings]), 0.0, atol=4 * 0.1 / 4000**0.5)


@given(st.integers(1, 12), st.lists(st.floats(*RANGE), min_size=3, max_size=3))
def test_a_quantised_knob_stands_on_the_nearest_level(bits, u):
    inside, noisy = standing({"bits": bits}, [u])
    step = 4.0 / (2**bits - 1)
    levels = (inside + 2.0) / step
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-9)
    assert np.all(np.abs(inside - u) <= step / 2 * (1 + 1e-9))
    assert np.array_equal(noisy.read().knobs, inside)


def test_a_knob_with_play_follows_only_a_push():
    inside, _ = standing({"hysteresis": 0.1}, [[0.45, -0.7, 1.1]])
    np.testing.assert_allclose(inside, [0.4, -0.7, 1.1])
    inside, _ = standing({"hysteresis": 0.1}, [[0.9, -0.7, 1.1], [0.85, -0.7, 1.1]])
    np.testing.assert_allclose(inside, [0.8, -0.7, 1.1])
    inside, _ = standing({"hysteresis": 0.1}, [[0.9, -0.7, 1.1], [0.0, -0.7, 1.1]])
    np.testing.assert_allclose(inside, [0.1, -0.7, 1.1])


def test_dead_knobs_do_not_move_and_the_dial_does_not_tell():
    inside, noisy = standing({"dead": [1], "drift": 0.1}, [[0.0, 0.0, 0.0]])
    noisy.settle()
    assert inside[1] == -0.7
    assert noisy.read().knobs[1] == 0.0
    stuck = [standing({"dead": 2 / 3, "seed": seed}, [[0.0, 0.0, 0.0]])[0] for seed in range(5)]
    assert [int(np.sum(u != 0)) for u in stuck] == [2] * 5


def test_gains_differ_between_devices_and_not_between_uses():
    first, _ = standing({"spread": 0.2}, [[1.4, 0.3, 0.1]])
    gain = (first - [0.4, -0.7, 1.1]) / [1.0, 1.0, -1.0]
    assert np.ptp(gain) > 0
    second, _ = standing({"spread": 0.2}, [[0.9, -0.2, 0.6]])
    np.testing.assert_allclose(second, [0.4, -0.7, 1.1] + gain * [0.5, 0.5, -0.5])
    other, _ = standing({"spread": 0.2, "seed": 1}, [[0.9, -0.2, 0.6]])
    assert not np.any(other == second)


def test_slips_add_up_as_a_random_walk_and_stop_at_the_ends():
    ends = []
    for seed in range(300):
        inside = scale()
        noisy = Noisy(inside, drift=0.01, seed=seed)
        for _ in range(16):
            noisy.settle()
        ends.append(inside.u - [0.4, -0.7, 1.1])
    np.testing.assert_allclose(np.std(ends), 0.04, rtol=0.06)
    inside = scale()
    far = Noisy(inside, drift=100.0)
    far.settle()
    assert np.all(np.abs(inside.u) == 2.0)


def test_agnostic_learning_survives_small_imperfections():
    inside = scale()
    noisy = Noisy(inside, output_noise=1e-4, parameter_noise=1e-5, bits=16, seed=1)
    rule = AgnosticEP(0.5, "centered", IntegralControl(relative=0.05), precision=0.5, strict=False)
    x, y = np.array([0.9, -0.3, 0.5]), np.array([0.2])
    costs = [float(rule.step(noisy, x[None], y[None]).cost) for _ in range(40)]
    assert np.mean(costs[-3:]) < 0.05 * costs[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(output_noise=-1.0), "output_noise: wanted"),
        (dict(parameter_noise=np.nan), "parameter_noise: wanted"),
        (dict(drift=np.inf), "drift: wanted"),
        (dict(bits=0), "bits: wanted"),
        (dict(bits=2.5), "bits: wanted"),
        (dict(dead=1.5), "dead: wanted a part"),
        (dict(dead=[3]), "dead: wanted numbers"),
    ],
)
def test_impossible_imperfections_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Noisy(scale(), **options)


def test_levels_need_a_finite_range():
    with pytest.raises(ValueError, match="bits: wanted knobs of a finite range"):
        Noisy(SpringScale([0.1]), bits=8)


def test_knobs_out_of_range_leave_everything_as_it_was():
    inside = scale()
    noisy = Noisy(inside, hysteresis=0.01)
    with pytest.raises(ValueError, match="u: wanted knob 2"):
        noisy.set_knobs(np.array([0.0, 0.0, 5.0]))
    assert np.array_equal(inside.u, [0.4, -0.7, 1.1])
    assert np.array_equal(noisy.read().knobs, [0.4, -0.7, 1.1])


def test_a_plant_in_any_wrapping_shows_what_the_plant_shows(tmp_path):
    """Its readings make their vectors late; whoever copies, changes or keeps them must not notice."""
    plants = [Plant(HopfieldNetwork.layered((2, 4, 1), key=jax.random.key(0)), 0.01) for _ in range(4)]
    recorder = Recorder(plants[2])
    shown = []
    for system in (plants[0], Noisy(plants[1]), recorder, Patience(plants[3], 1e-6)):
        system.clamp(np.array([0.4, -0.3]))
        system.nudge(np.array([1.0]), 0.5)
        system.settle()
        shown.append(system.read())
    recorder.save(tmp_path / "run.npz")
    replayed = Replay.load(tmp_path / "run.npz")
    replayed.clamp(np.array([0.4, -0.3]))
    replayed.nudge(np.array([1.0]), 0.5)
    replayed.settle()
    for reading in (*shown[1:], replayed.read(), dataclasses.replace(shown[0])):
        for field in dataclasses.fields(Reading):
            wanted = getattr(shown[0], field.name)
            if wanted is None:
                assert getattr(reading, field.name) is None
            else:
                np.testing.assert_allclose(getattr(reading, field.name), wanted, rtol=1e-6)
    noisy = Noisy(plants[1], parameter_noise=1e-3).read()
    assert noisy.parameter_error == pytest.approx(np.hypot(1e-3, shown[0].parameter_error))
    assert not np.array_equal(noisy.parameters, shown[0].parameters)
    assert dataclasses.replace(shown[0], outputs=np.zeros(1)).outputs == 0
