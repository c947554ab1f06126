"""ngspice as an independent judge: one process per netlist, its operating point read back to the last bit."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from substrates.classical.resistor.deck import GROUND, Deck, Element, parse_deck, write_deck

INSTALL = "install it with: apt-get install ngspice"
TIGHT = "reltol=1e-10 abstol=1e-18 vntol=1e-14 gmin=1e-20 itl1=10000"


def operating_point(netlist: str, timeout: float = 60.0) -> dict[str, float]:
    """The voltage of every node but ground, in volts, as one ngspice process finds it.

    The netlist is read and written anew before ngspice sees it: only R, V, I, D, E and F elements and diode models
    reach it, with tight tolerances; its names, comments, requests for output and options do not.
    ngspice starts without a shell and without anybody's initialisation file, in a private temporary directory.

    Beyond three emission voltages in reverse, ngspice's diode leaks Is (1 - (3 Ve / (e v))^3) where Shockley's law has
    Is (1 - exp(v / Ve)): up to 0.5 % of Is apart.

    Args:
        netlist: a deck, from `to_netlist` or elsewhere.
        timeout: seconds after which the process is killed.

    Raises FileNotFoundError where ngspice is not installed, NetlistError for a deck that `from_netlist` could not read,
    TimeoutError, and RuntimeError where ngspice finds no operating point.
    """
    if not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"timeout: wanted a positive number of seconds, got {timeout}")
    deck, names = plainly_named(parse_deck(netlist))
    point = run_deck(write_deck(deck, TIGHT), timeout)
    return {name: point[f"v(n{k})"] for k, name in enumerate(names)}


def run_deck(text: str, timeout: float = 60.0) -> dict[str, float]:
    """All node voltages `v(...)` and branch currents `i(...)` of a deck that is handed to ngspice AS IT IS.

    Only for decks that this package wrote: ngspice executes commands that it finds in a deck. Raises as
    `operating_point` does.
    """
    program = ngspice_program()
    with tempfile.TemporaryDirectory(prefix="groundstate-") as folder:
        deck, raw = Path(folder, "deck.cir"), Path(folder, "point.raw")
        deck.write_text(text, encoding="ascii")
        try:
            done = subprocess.run(
                [program, "-n", "-b", "-r", str(raw), str(deck)],
                cwd=folder,
                env=private_environment(folder),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"ngspice did not end within {timeout:g} s; give it a longer timeout") from None
        report = (done.stderr + done.stdout).decode("ascii", "replace")
        if done.returncode != 0 or not raw.exists():
            raise RuntimeError(f"ngspice found no operating point (exit status {done.returncode}): {tail(report)}")
        point = read_raw(raw.read_bytes())
    if not point or not all(map(math.isfinite, point.values())):
        raise RuntimeError(f"ngspice returned an operating point that is empty or not finite: {tail(report)}")
    return point


def ngspice_program() -> str:
    """The path of ngspice. Raises FileNotFoundError where it is not installed."""
    program = shutil.which("ngspice")
    if program is None:
        raise FileNotFoundError(f"ngspice is not on the PATH; {INSTALL}")
    return program


def private_environment(folder: str) -> dict[str, str]:
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


def plainly_named(deck: Deck) -> tuple[Deck, list[str]]:
    """The deck with names that mean nothing to ngspice, and the old names of its nodes n0, n1, ..."""
    elements = [element for element in deck.elements if element.value != math.inf]
    nodes = {GROUND: GROUND}
    for element in elements:
        for name in element.nodes:
            nodes.setdefault(name, f"n{len(nodes) - 1}")
    models = {name: f"m{k}" for k, name in enumerate(deck.models)}
    renamed = {element.name: f"{element.name[0]}{k}" for k, element in enumerate(elements)}
    references = {"d": models, "f": renamed}
    plain = tuple(
        Element(
            renamed[element.name],
            tuple(nodes[name] for name in element.nodes),
            element.value,
            references.get(element.name[0], {}).get(element.reference, ""),
        )
        for element in elements
    )
    laws = {models[name]: model for name, model in deck.models.items()}
    return deck._replace(title="operating point", elements=plain, models=laws, notes={}), list(nodes)[1:]


def tail(report: str) -> str:
    """The last lines of a report that say what went wrong."""
    lines = [line.strip() for line in report.splitlines() if line.strip() and "compatibility" not in line]
    wanted = [line for line in lines if any(word in line.lower() for word in ("error", "warning", "fatal", "singular"))]
    return "; ".join((wanted or lines)[-5:])[:1000]
