"""One ngspice, kept alive and spoken to over its pipe."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

from substrates.classical.resistor.ngspice import ngspice_program, private_environment, tail
from substrates.laboratory.system import LaboratoryError

LINES_OF_A_LIFE = 20_000
"""ngspice loses about 2 kB with every settling and 0.4 kB with every change: after so many lines a new one is due."""

_MOST_BYTES = 64 * 2**20
_WAIT = 0.25


class SpiceEndedError(LaboratoryError):
    """The process ended by itself, or was ended by somebody else."""


class SpiceProcess:
    """A live ngspice, in a private directory and without anybody's initialisation file.

    What it is told must have been written by this package: ngspice executes every line. The process ends with `close`,
    when the object is dropped, when Python ends, and by itself when Python is killed.

    Attributes:
        timeout: seconds that an answer may take, those not counted in which Python was stopped.
        lines: how many lines it has been told.
        pid: its number among the processes of the machine.
    """

    def __init__(self, timeout: float):
        program = ngspice_program()
        folder = tempfile.TemporaryDirectory(prefix="groundstate-")
        self._folder = Path(folder.name)
        process = subprocess.Popen(
            [program, "-n", "-p"],
            cwd=folder.name,
            env=private_environment(folder.name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the training, not for the circuit
        )
        self.close = weakref.finalize(self, _end, process, folder)
        assert process.stdin is not None
        assert process.stdout is not None
        self._into, self._out_of = process.stdin.fileno(), process.stdout.fileno()
        for pipe in (self._into, self._out_of):
            os.set_blocking(pipe, False)
        self.pid, self.timeout, self.lines, self._asked = process.pid, timeout, 0, 0
        self.ask(["set numdgt=17"])

    @property
    def alive(self) -> bool:
        """Whether it has not been closed."""
        return self.close.alive

    def load(self, deck: str) -> None:
        """Replaces the circuit by that of a deck. Raises LaboratoryError where ngspice cannot read it."""
        Path(self._folder, "deck.cir").write_text(deck, encoding="ascii")
        report = self.ask(["remcirc", "source deck.cir"] if self.lines > 1 else ["source deck.cir"])
        if "Error" in report or "Circuit:" not in report:
            raise LaboratoryError(f"ngspice cannot read the deck of the circuit: {tail(report)}")

    def ask(self, commands: Sequence[str]) -> str:
        """What ngspice says to some commands.

        Raises SpiceEndedError where it is no more, LaboratoryError where it does not answer in time or says too much.
        Either closes it.
        """
        self._asked += 1
        mark = f"groundstate {self._asked}"
        try:
            heard = self._converse("\n".join([*commands, f"echo {mark}", ""]).encode("ascii"), f"{mark}\n".encode())
        except BaseException:
            self.close()  # the conversation is out of step
            raise
        self.lines += len(commands)
        return heard.decode("ascii", "replace")

    def _converse(self, left: bytes, mark: bytes) -> bytearray:
        patience = self.timeout
        heard = bytearray()
        poll = select.poll()
        poll.register(self._out_of, select.POLLIN)
        poll.register(self._into, select.POLLOUT)
        while not heard.endswith(mark):
            if patience <= 0:
                raise LaboratoryError(f"ngspice did not answer within {self.timeout:g} s and was ended; allow it more")
            began, wait = time.monotonic(), min(patience, _WAIT)
            ready = poll.poll(wait * 1000)
            patience -= min(time.monotonic() - began, wait)  # not the time in which Python itself was stopped
            for pipe, _ in ready:
                if pipe == self._into:
                    try:
                        left = left[os.write(pipe, left) :]
                    except BrokenPipeError:
                        raise SpiceEndedError("ngspice ended: its pipe is closed") from None
                    if not left:
                        poll.unregister(pipe)
                else:
                    said = os.read(pipe, 2**16)
                    heard += said
                    if not said:
                        raise SpiceEndedError(f"ngspice ended: {tail(heard.decode('ascii', 'replace'))}")
                    if len(heard) > _MOST_BYTES:
                        raise LaboratoryError(f"ngspice said more than {_MOST_BYTES} bytes and was ended")
        return heard


def _end(process: subprocess.Popen, folder: tempfile.TemporaryDirectory) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    folder.cleanup()
