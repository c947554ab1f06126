"""A recorded run replays without the system."""

import numpy as np
import pytest
from black_boxes import SpringScale

from learning import AgnosticEP, IntegralControl
from substrates import PhysicalSystem, Recorder, Replay, Status
from substrates.laboratory.recorder import ReplayError

X, Y = np.array([[0.9, -0.3, 0.5], [0.1, 0.4, -0.2]]), np.array([[0.2], [0.3]])
RULE = AgnosticEP(0.1, "centered", IntegralControl(relative=1e-6), precision=1e-3)


def learn(system):
    """A few steps of agnostic learning; (costs, where the parameters end)."""
    costs = [float(RULE.step(system, X[k % 2][None], Y[k % 2][None]).cost) for k in range(4)]
    return costs, system.read().parameters


def recorded():
    recorder = Recorder(SpringScale([0.4, -0.7, 1.1], knob_range=(-50.0, 50.0)))
    return recorder, learn(recorder)


@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_replay_equals_the_run(tmp_path, through_a_file):
    recorder, (costs, parameters) = recorded()
    recorder.save(tmp_path / "run.npz")
    replay = Replay.load(tmp_path / "run.npz") if through_a_file else recorder.replay()
    assert isinstance(recorder, PhysicalSystem)
    assert isinstance(replay, PhysicalSystem)
    again, ends = learn(replay)
    assert again == costs
    assert np.array_equal(ends, parameters)
    assert replay.position == len(replay.events) == len(recorder.events)
    assert {event.verb for event in replay.events} == {"set_knobs", "clamp", "nudge", "settle", "read"}
    for name in ("knobs", "parameters", "inputs", "outputs"):
        ours, theirs = getattr(replay.spec, name), getattr(recorder.spec, name)
        assert (ours.size, ours.unit) == (theirs.size, theirs.unit)
        assert np.all(np.asarray(ours.lower) == theirs.lower)
        assert np.all(np.asarray(ours.upper) == theirs.upper)


def test_later_changes_of_an_array_do_not_reach_the_protocol():
    recorder = Recorder(SpringScale([0.4]))
    u = np.array([0.1])
    recorder.set_knobs(u)
    u[0] = 9.0
    assert recorder.events[0].arguments["u"][0] == 0.1


def test_another_question_is_refused():
    recorder, _ = recorded()
    replay = recorder.replay()
    first = recorder.events[0]
    other = "clamp" if first.verb != "clamp" else "settle"
    with pytest.raises(ReplayError, match=f"verb 0: wanted {first.verb}"):
        getattr(replay, other)(*([X[0]] if other == "clamp" else []))
    short = Recorder(SpringScale([0.4]))
    short.clamp(np.array([0.5]))
    replay = short.replay()
    with pytest.raises(ReplayError, match="wanted x as recorded"):
        replay.clamp(np.array([0.6]))
    replay.clamp(np.array([0.5]))
    with pytest.raises(ReplayError, match="protocol of 1 verbs has ended"):
        replay.settle()


def test_failures_are_recorded_and_replayed(tmp_path):
    recorder = Recorder(SpringScale([0.4], knob_range=(0.0, 1.0)))
    with pytest.raises(ValueError, match="u: wanted knob 0"):
        recorder.set_knobs(np.array([2.0]))
    assert recorder.settle() == Status.converged
    recorder.save(tmp_path / "run.npz")
    replay = Replay.load(tmp_path / "run.npz")
    with pytest.raises(ValueError, match="u: wanted knob 0"):
        replay.set_knobs(np.array([2.0]))
    assert replay.settle() == Status.converged


def test_an_interrupted_save_leaves_the_old_protocol(tmp_path, monkeypatch):
    recorder, _ = recorded()
    path = tmp_path / "run.npz"
    recorder.save(path)
    before = path.read_bytes()

    def broken(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", broken)
    with pytest.raises(OSError, match="disk full"):
        recorder.save(path)
    assert path.read_bytes() == before
