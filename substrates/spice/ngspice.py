"""ngspice as an independent judge, a process per netlist, and as a machine that is kept alive and spoken to."""

from __future__ import annotations

import math
import os
import select
import shutil
import subprocess
import tempfile
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from substrates.laboratory.system import LaboratoryError
from substrates.spice.deck import TIGHT, plainly_named, write_deck
from substrates.spice.reader import parse_deck

LINES_OF_A_LIFE = 20_000
"""ngspice loses about 2 kB with every settling and 0.4 kB with every change: after so many lines a new one is due."""

_MOST_BYTES = 64 * 2**20
_WAIT = 0.25


def operating_point(netlist: str, timeout: float = 60.0, folder: str | Path | None = None) -> dict[str, float]:
    """The voltage of every node but ground, in volts, as one ngspice process finds it.

    The netlist is read and written anew before ngspice sees it: only R, V, I, D, E, F, G and H elements and diode
    models reach it, with tight tolerances; its names, comments, requests for output and options do not.
    ngspice starts without a shell and without anybody's initialisation file, in a private temporary directory.

    Beyond three emission voltages in reverse, ngspice's diode leaks Is (1 - (3 Ve / (e v))^3) where Shockley's law has
    Is (1 - exp(v / Ve)): up to 0.5 % of Is apart.

    Args:
        netlist: a deck, from `to_netlist` or elsewhere.
        timeout: seconds after which the process is killed.
        folder: that of the files which the netlist includes; None for none.

    Raises FileNotFoundError where ngspice is not installed, NetlistError for a deck that `from_netlist` could not read,
    TimeoutError, and RuntimeError where ngspice finds no operating point.
    """
    if not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"timeout: wanted a positive number of seconds, got {timeout}")
    deck, names = plainly_named(parse_deck(netlist, folder))
    point = run_deck(write_deck(deck, f"{TIGHT} itl1=10000"), timeout)
    return {name: point[f"v(n{k})"] for k, name in enumerate(names)}


def run_deck(text: str, timeout: float = 60.0) -> dict[str, float]:
    """All node voltages `v(...)` and branch currents `i(...)` of a deck that is handed to ngspice AS IT IS.

    Only for decks that this package wrote: ngspice executes commands that it finds in a deck. Raises as
    `operating_point` does.
    """
    program = _program()
    with tempfile.TemporaryDirectory(prefix="groundstate-") as folder:
        deck, raw = Path(folder, "deck.cir"), Path(folder, "point.raw")
        deck.write_text(text, encoding="ascii")
        try:
            done = subprocess.run(
                [program, "-n", "-b", "-r", str(raw), str(deck)],
                cwd=folder,
                env=_environment(folder),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"ngspice did not end within {timeout:g} s; give it a longer timeout") from None
        report = (done.stderr + done.stdout).decode("ascii", "replace")
        if done.returncode != 0 or not raw.exists():
            raise RuntimeError(f"ngspice found no operating point (exit status {done.returncode}): {_tail(report)}")
        point = read_raw(raw.read_bytes())
    if not point or not all(map(math.isfinite, point.values())):
        raise RuntimeError(f"ngspice returned an operating point that is empty or not finite: {_tail(report)}")
    return point


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
        program = _program()
        folder = tempfile.TemporaryDirectory(prefix="groundstate-")
        self._folder = Path(folder.name)
        process = subprocess.Popen(
            [program, "-n", "-p"],
            cwd=folder.name,
            env=_environment(folder.name),
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
            raise LaboratoryError(f"ngspice cannot read the deck of the circuit: {_tail(report)}")

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
                        raise SpiceEndedError(f"ngspice ended: {_tail(heard.decode('ascii', 'replace'))}")
                    if len(heard) > _MOST_BYTES:
                        raise LaboratoryError(f"ngspice said more than {_MOST_BYTES} bytes and was ended")
        return heard


def _program() -> str:
    """The path of ngspice. Raises FileNotFoundError where it is not installed."""
    program = shutil.which("ngspice")
    if program is None:
        raise FileNotFoundError("ngspice is not on the PATH; install it with: apt-get install ngspice")
    return program


def _environment(folder: str) -> dict[str, str]:
    """The variables of an ngspice at home in a folder: nobody's initialisation file, one thread."""
    return {"PATH": os.defpath, "HOME": folder, "LC_ALL": "C", "OMP_NUM_THREADS": "1"}


def read_raw(raw: bytes) -> dict[str, float]:
    """The one real point of a binary SPICE3 raw file, by name. Raises RuntimeError for a file of another kind."""
    head, marker, body = raw.partition(b"Binary:\n")
    fields, _, variables = head.decode("ascii", "replace").partition("Variables:\n")
    header = dict(line.split(":", 1) for line in fields.splitlines() if ":" in line)
    names = [line.split()[1] for line in variables.splitlines() if line.strip()]
    points = header.get("No. Points", "").strip()
    if not marker or points != "1" or header.get("Flags", "").strip() != "real" or len(body) != 8 * len(names):
        raise RuntimeError(f"ngspice wrote a raw file without one real point: {head[:200]!r}")
    return dict(zip(names, np.frombuffer(body, dtype="<f8").tolist(), strict=True))


def _tail(report: str) -> str:
    """The last lines of a report that say what went wrong."""
    lines = [line.strip() for line in report.splitlines() if line.strip() and "compatibility" not in line]
    wanted = [line for line in lines if any(word in line.lower() for word in ("error", "warning", "fatal", "singular"))]
    return "; ".join((wanted or lines)[-5:])[:1000]


def _end(process: subprocess.Popen, folder: tempfile.TemporaryDirectory) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    folder.cleanup()
