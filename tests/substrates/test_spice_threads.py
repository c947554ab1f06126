"""One live circuit and several threads; and what is said of circuits without an operating point."""

import shutil
import threading

import numpy as np
import pytest

from substrates import SpiceCircuit
from substrates.laboratory import spice_circuit
from substrates.laboratory.system import LaboratoryError

pytestmark = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")

DIVIDER = "divider\nV1 a 0 0\nR1 a b 1k\nR2 b 0 1k\n.end\n"


def divider():
    return SpiceCircuit(DIVIDER, epsilon=0.0, inputs=["a"], outputs=["b"])


VERBS = {
    "set_knobs": lambda circuit: circuit.set_knobs(np.array([1e-3, 1e-3])),
    "clamp": lambda circuit: circuit.clamp(np.array([3.0])),
    "nudge": lambda circuit: circuit.nudge(np.array([1.0]), 1e-3),
    "settle": lambda circuit: circuit.settle(),
    "read": lambda circuit: circuit.read(),
    "read_conjugate": lambda circuit: circuit.read_conjugate(),
}


@pytest.fixture
def settling(monkeypatch):
    """A circuit that another thread is settling, until the event is set."""
    go_on, begun = threading.Event(), threading.Event()
    with divider() as circuit:
        circuit.clamp(np.array([2.0]))
        ask = spice_circuit.SpiceProcess.ask

        def slow(process, commands):
            begun.set()
            go_on.wait(60)
            return ask(process, commands)

        monkeypatch.setattr(spice_circuit.SpiceProcess, "ask", slow)
        thread = threading.Thread(target=circuit.settle, name="the first")
        thread.start()
        assert begun.wait(60)
        yield circuit, go_on, thread
        go_on.set()
        thread.join()


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_from_another_thread_is_refused_by_name(settling, verb):
    circuit, go_on, thread = settling
    with pytest.raises(LaboratoryError, match=f"^{verb}: the first is at work on this circuit, and this is MainThread"):
        VERBS[verb](circuit)
    go_on.set()
    thread.join()
    np.testing.assert_allclose(circuit.read().outputs, 1.0, rtol=1e-6)  # nothing was changed
    VERBS[verb](circuit)


def test_close_waits_for_the_verb_at_work(settling):
    circuit, go_on, thread = settling
    closing = threading.Thread(target=circuit.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    go_on.set()
    closing.join(60)
    thread.join()
    assert circuit.pid is None
    np.testing.assert_allclose(circuit.read().outputs, 1.0, rtol=1e-6)


def test_threads_in_a_race_meet_no_other_error():
    refused, wrong = [], []
    with divider() as circuit:

        def work():
            for _ in range(50):
                try:
                    circuit.settle()
                    circuit.read()
                except LaboratoryError as error:
                    refused.append(str(error))
                except BaseException as error:
                    wrong.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert all("is at work on this circuit" in message for message in refused)
        circuit.clamp(np.array([2.0]))
        circuit.settle()
        np.testing.assert_allclose(circuit.read().outputs, 1.0, rtol=1e-6)


def test_threads_with_circuits_of_their_own_do_not_disturb_each_other():
    seen = {}

    def work(volts):
        with divider() as circuit:
            for _ in range(20):
                circuit.clamp(np.array([volts]))
                circuit.settle()
                seen.setdefault(volts, []).append(circuit.read().outputs[0])

    threads = [threading.Thread(target=work, args=(volts,)) for volts in (1.0, 4.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(seen[1.0], 0.5, rtol=1e-6)
    np.testing.assert_allclose(seen[4.0], 2.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ("V2 c a 1\nV3 c 0 1", "loop"),
        ("E1 a 0 b 0 1", "loop"),
        ("R5 c d 1k", "floating"),
    ],
)
def test_a_circuit_without_an_operating_point_says_why(lines, cause):
    text = f"loop\nV1 a 0 0\n{lines}\nR1 a b 1k\nR2 b 0 1k\n.end\n"
    with pytest.raises(LaboratoryError, match=f"ngspice finds no operating point .*: .*{cause}") as raised:
        SpiceCircuit(text, epsilon=0.0, inputs=["a"], outputs=["b"])
    assert raised.value.__cause__ is not None


def test_where_the_netlist_tells_nothing_neither_does_the_error():
    text = "shorted\nV1 a 0 0\nV2 c 0 100\nD1 c 0 M\nR1 a b 1k\nR2 b 0 1k\n.model M D(IS=1e-14)\n.end\n"
    with pytest.raises(LaboratoryError, match=r"with its inputs at 0 V$"):
        SpiceCircuit(text, epsilon=0.0, inputs=["a"], outputs=["b"])
