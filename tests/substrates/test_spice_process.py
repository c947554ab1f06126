import gc
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from spice_circuits import needs_ngspice

from substrates import SpiceCircuit, Status
from substrates.laboratory import spice_circuit
from substrates.laboratory.system import LaboratoryError, checked_reading
from substrates.spice import ngspice
from substrates.spice.ngspice import SpiceEndedError, SpiceProcess

ROOT = Path(__file__).parent.parent.parent
DIVIDER = "t\nV1 a 0 0\nR1 a b 1k\nR2 b 0 1k\nD1 b 0 m\n.model m D(IS=1n N=1.5)\n"


def divider(netlist=DIVIDER, **options):
    return SpiceCircuit.from_netlist(netlist, inputs=["a"], outputs=["b"], **{"epsilon": 1e-6, **options})


def gone(pid, seconds=5.0):
    """Whether a process ends within some seconds; one that waits to be reaped has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def pretend_ngspice(folder, monkeypatch, script):
    program = folder / "ngspice"
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(ngspice.shutil, "which", lambda name: str(program))


ANSWERING = """while read -r line; do case "$line" in
  "echo "*) echo "${line#echo }";;
  source*) echo "Circuit: t";;
  "print all") PRINT;;
esac; done
"""
GOOD = "echo 'n0 = 0.0'; echo 'n1 = 0.5'; echo 'k0 = 0.1'; echo 'k1 = 0.2'"


# a process that dies


@needs_ngspice
def test_a_killed_ngspice_is_started_again_with_everything_as_it_was():
    with divider() as live, divider() as untouched:
        for circuit in (live, untouched):
            circuit.set_knobs(np.array([2e-3, 1e-3]))
            circuit.clamp(np.array([0.7]))
            circuit.nudge(np.array([0.1]), 1e-3)
        for circuit in (live, untouched):
            circuit.settle()
        shown, first = live.read(), live.pid
        os.kill(first, signal.SIGKILL)
        np.testing.assert_array_equal(live.read().outputs, shown.outputs)  # the meters show what they showed
        assert live.settle() == Status.converged
        assert live.pid != first
        assert gone(first)
        np.testing.assert_allclose(live.read().outputs, shown.outputs, rtol=1e-12)
        np.testing.assert_allclose(live.read().parameters, shown.parameters, rtol=1e-12)
        os.kill(live.pid, signal.SIGTERM)
        for circuit in (live, untouched):  # the next verbs count too, whether it died or not
            circuit.clamp(np.array([-0.4]))
            circuit.settle()
        np.testing.assert_allclose(live.read().outputs, untouched.read().outputs, rtol=1e-12)


def test_an_ngspice_that_dies_again_and_again_is_an_error_and_nothing_is_lost(tmp_path, monkeypatch):
    pretend_ngspice(tmp_path, monkeypatch, ANSWERING.replace("PRINT", GOOD))
    live = divider()
    live.set_knobs(np.array([2e-3, 3e-3]))
    pretend_ngspice(tmp_path, monkeypatch, "echo 'Fatal error: no luck'\n")
    live.close()
    with pytest.raises(SpiceEndedError, match="ngspice ended"):
        live.settle()
    assert live.pid is None
    np.testing.assert_array_equal(live.read().knobs, [2e-3, 3e-3])
    pretend_ngspice(tmp_path, monkeypatch, ANSWERING.replace("PRINT", GOOD))
    assert live.settle() == Status.converged
    live.close()


@needs_ngspice
def test_it_is_renewed_before_it_has_leaked_much(monkeypatch):
    monkeypatch.setattr(spice_circuit, "LINES_OF_A_LIFE", 40)
    pids, shown = [], []
    with divider() as live:
        live.clamp(np.array([0.7]))
        for _ in range(30):
            live.settle()
            pids.append(live.pid)
            shown.append(live.read().outputs[0])
    assert 1 < len(set(pids)) < 6
    assert all(map(gone, set(pids)))
    np.testing.assert_allclose(shown, shown[0], rtol=1e-12)


# a process that hangs, babbles or lies


@needs_ngspice
def test_an_ngspice_that_stops_is_ended_and_the_next_settling_has_a_new_one():
    with divider(timeout=0.5) as live:
        live.clamp(np.array([0.7]))
        live.settle()
        shown, pid = live.read(), live.pid
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(LaboratoryError, match=r"did not answer within 0\.5 s"):
            live.settle()
        assert live.pid is None
        assert gone(pid)
        assert live.settle() == Status.converged
        np.testing.assert_allclose(live.read().outputs, shown.outputs, rtol=1e-12)


@pytest.mark.parametrize("script", ["exec sleep 60\n", "while read -r line; do :; done\n", "exec sleep 60 <&-\n"])
def test_a_hanging_ngspice_is_ended(tmp_path, monkeypatch, script):
    pretend_ngspice(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid\n{script}")
    with pytest.raises(LaboratoryError):
        divider(timeout=0.3)
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_babbling_ngspice_is_ended(tmp_path, monkeypatch):
    pretend_ngspice(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid\nexec yes\n")
    with pytest.raises(LaboratoryError, match=r"said more than|did not answer"):
        divider(timeout=2.0)
    assert gone(int((tmp_path / "pid").read_text()))


def test_an_answer_that_is_no_number_is_no_reading(tmp_path, monkeypatch):
    pretend_ngspice(tmp_path, monkeypatch, ANSWERING.replace("PRINT", GOOD.replace("0.5", "-nan")))
    live = divider()
    assert live.settle() == Status.not_finite
    with pytest.raises(LaboratoryError, match="outputs: wanted finite readings"):
        checked_reading(live.spec, live.read())
    live.close()


def test_no_operating_point_is_a_status_and_no_reading(tmp_path, monkeypatch):
    point = tmp_path / "point"
    point.write_text("")
    pretend_ngspice(tmp_path, monkeypatch, ANSWERING.replace("PRINT", f"[ -e {point} ] && {{ {GOOD}; }}"))
    live = divider()
    point.unlink()
    live.clamp(np.array([0.7]))
    assert live.settle() == Status.out_of_steps
    for meter in (live.read, live.read_conjugate):
        with pytest.raises(LaboratoryError, match="found no operating point"):
            meter()
    point.write_text("")
    assert live.settle() == Status.converged
    live.close()


@needs_ngspice
def test_a_netlist_without_an_operating_point_is_an_error():
    with pytest.raises(LaboratoryError, match="no operating point"):
        divider(DIVIDER + "V2 c d 1\nV3 c d 2\nR3 c 0 1k\n")


def test_a_missing_ngspice_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="apt-get install ngspice"):
        divider()


def test_a_deck_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    pretend_ngspice(tmp_path, monkeypatch, ANSWERING.replace('"Circuit: t"', '"Error: circuit not parsed."'))
    with pytest.raises(LaboratoryError, match="cannot read the deck"):
        divider()


# no process is left behind


@needs_ngspice
def test_closed_and_forgotten_circuits_leave_no_process_and_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    closed, forgotten = divider(), divider()
    pids = closed.pid, forgotten.pid
    closed.close()
    closed.close()
    assert closed.pid is None
    del forgotten
    gc.collect()
    failing = divider()
    pids = (*pids, failing.pid)
    with pytest.raises(ValueError, match="x: wanted"), failing:
        failing.clamp(np.zeros(2))
    assert all(map(gone, pids))
    assert not list(tmp_path.iterdir())


@needs_ngspice
@pytest.mark.parametrize("end", ["", "import os; os.kill(os.getpid(), 9)"])
def test_no_process_outlives_python(end):
    program = (
        "from substrates.spice.ngspice import SpiceProcess\n"
        f"process = SpiceProcess(5.0)\nprint(process.pid, flush=True)\n{end}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert gone(int(done.stdout)), done.stderr


@needs_ngspice
def test_many_circuits_live_side_by_side():
    def learn(k):
        with divider() as live:
            shown = []
            for step in range(20):
                live.clamp(np.array([0.05 * k + 0.01 * step]))
                assert live.settle() == Status.converged
                shown.append(live.read().outputs[0])
            return shown, live.pid

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(learn, range(8)))
    assert len({pid for _, pid in together}) == 8
    for k, (shown, _) in enumerate(together):
        assert shown == learn(k)[0]


# what a netlist says is never executed


@needs_ngspice
@pytest.mark.parametrize(
    "line",
    [
        ".control\nshell touch MARK\n.endc",
        ".exec touch MARK",
        "shell touch MARK",
        ".include MARK",
        ".lib MARK tt",
        ".csparam x={shell}",
        ".func f(x) {x}",
        "R9 b 0 `touch MARK`",
        "R9 b 0 {system('touch MARK')}",
        "B9 b 0 i=v(a)*v(b)",
        "A9 b c model",
        ".model m2 D(IS=1n) shell",
        "R9 b 0 1k\r\nshell touch MARK",
        "R9 b 0 1k\x0bshell touch MARK",
        "R9 b 0 1k\u2028shell touch MARK",
        "X9 b 0 sub",
    ],
)
def test_hostile_lines_are_refused(tmp_path, line):
    mark = tmp_path / "mark"
    mark_before = line.replace("MARK", str(mark))
    with pytest.raises(ValueError, match=r"netlist, line [78]"):
        divider(DIVIDER + mark_before + "\n")
    assert not mark.exists()


@needs_ngspice
@pytest.mark.parametrize(
    "name", ["b; shell touch MARK", "b\nshell touch MARK", "`touch MARK`", "b$(touch MARK)", "../b"]
)
def test_hostile_names_are_refused(tmp_path, name):
    mark = tmp_path / "mark"
    name = name.replace("MARK", str(mark))
    for options in ({"outputs": [name]}, {"inputs": [name]}, {"trainable": [name]}):
        with pytest.raises(ValueError, match="the netlist has no"):
            SpiceCircuit.from_netlist(DIVIDER, **{"inputs": ["a"], "outputs": ["b"], "epsilon": 0.0, **options})
    assert not mark.exists()


@needs_ngspice
def test_names_that_mean_something_to_ngspice_never_reach_it(tmp_path):
    mark = tmp_path / "mark"
    netlist = (
        f"shell touch {mark}\nVshell quit 0 0\nRecho quit alter 1k\nR$x alter 0 1k\nDdestroy alter 0 all\n"
        f"R3 alter 0 1meg ; shell touch {mark}\n* shell touch {mark}\n*# shell touch {mark}\n"
        ".model all D(IS=1n N=1.5)\n"
    )
    with SpiceCircuit(netlist, inputs=["quit"], outputs=["alter"], epsilon=1e-6) as live, divider() as plain:
        for circuit in (live, plain):
            circuit.clamp(np.array([0.7]))
            circuit.settle()
        assert live.read().outputs[0] == pytest.approx(plain.read().outputs[0], rel=1e-3)
    assert not mark.exists()


@needs_ngspice
def test_nobodys_initialisation_file_is_read(tmp_path, monkeypatch):
    mark = tmp_path / "mark"
    (tmp_path / ".spiceinit").write_text(f"shell touch {mark}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    process = SpiceProcess(5.0)
    assert process.ask(["echo hello"]).startswith("hello")
    process.close()
    assert not process.alive
    assert not mark.exists()
