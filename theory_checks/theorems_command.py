"""The command `groundstate theorems`: what is proved, and what is measured on which system."""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import Any

import jax

from learning import catalogue
from learning.options import UsageError, count
from substrates.session import filling_workers, keep_compiled
from theory_checks.battery import OWN, PROPERTIES, Cell, battery, gathered, measure
from theory_checks.proofs import PROOFS, prove
from theory_checks.theorems import ALL, Theorem

WIDTH = 110


def add(commands: Any) -> None:
    """Adds the command to the parsers of `groundstate`."""
    parser = commands.add_parser(
        "theorems",
        help="list the theorems, prove one, or measure them all on every kind of system",
        description="Without a name: a line for each theorem. With one: its statement, its proof, which SymPy checks "
        "step by step, and what it came to on a small system. With --battery: all theorems on a small system of every "
        "kind. The exit code is 0 if all holds, 1 if a theorem fails, 2 for wrong usage.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_theorems)
    parser.add_argument("name", nargs="?", help="a theorem")
    parser.add_argument("--battery", action="store_true", help="measure theorems on small systems of every kind")
    parser.add_argument(
        "--substrates", nargs="+", metavar="NAME", help="only these kinds, names or path/to/file.py:NAME (default: all)"
    )
    parser.add_argument("--jobs", type=count, default=2, metavar="N", help="processes of the battery (default: 2)")
    parser.add_argument("--json", action="store_true", help="print the battery, or the list, as JSON")


def _theorems(options: argparse.Namespace) -> int:
    keep_compiled()
    known = {theorem.name: theorem for theorem in ALL}
    if options.name is not None and options.name not in known:
        raise UsageError(f"name: wanted one of {', '.join(known)}, got {options.name!r}")
    chosen = ALL if options.name is None else (known[options.name],)
    if options.battery or options.substrates:
        return _battery(options, chosen)
    if options.name is None:
        _list(chosen, options.json)
        return 0
    return _one(chosen[0])


def _list(theorems: tuple[Theorem, ...], as_json: bool) -> None:
    if as_json:
        described = ("name", "statement", "assumptions", "source", "applies_to")
        rows = [
            {**{word: getattr(each, word) for word in described}, "proved": each.name in PROOFS} for each in theorems
        ]
        print(json.dumps(rows, indent=1))
        return
    width = max(len(theorem.name) for theorem in theorems) + 2
    for theorem in theorems:
        proved = "proved, measured" if theorem.name in PROOFS else "measured"
        print(f"{theorem.name:<{width}}{proved:<18}{theorem.applies_to}")
    print(f"\n{len(theorems)} theorems; the properties that they show, with the laws of `groundstate check`:\n")
    for each in PROPERTIES:
        shown = [*each.theorems, *(f'"{law}"' for law in each.laws)]
        print(textwrap.fill(f"{each.name:<4}{each.says}: {', '.join(shown)}", WIDTH, subsequent_indent=" " * 4))


def _one(theorem: Theorem) -> int:
    print(textwrap.fill(f"{theorem.name}: {theorem.statement}", WIDTH))
    print(textwrap.fill(f"Assumes {'; '.join(theorem.assumptions)}.", WIDTH))
    print(f"Source: {theorem.source}.\n")
    proved = True
    if theorem.name in PROOFS:
        verification = prove(theorem.name).verify()
        proved = bool(verification)
        print(verification, end="\n\n")
    if theorem.universal:
        kinds = {"hopfield": catalogue.find(catalogue.SUBSTRATES, "hopfield")}
        cells = battery(kinds, (theorem,)).cells
    else:
        with jax.enable_x64(True):
            cells = (measure(theorem, OWN),)
    for cell in cells:
        _show(cell)
    return 0 if proved and all(cell.verdict != "fails" for cell in cells) else 1


def _show(cell: Cell) -> None:
    print(f"{cell.theorem} on {cell.system}: {cell.verdict} {cell.reason}".rstrip())
    for finding in cell.findings:
        print(f"  {finding}")


def _battery(options: argparse.Namespace, theorems: tuple[Theorem, ...]) -> int:
    import joblib

    names = options.substrates or catalogue.names(catalogue.SUBSTRATES)
    for name in names:  # a name that is wrong is told before anything is measured
        catalogue.find(catalogue.SUBSTRATES, name)
    cells = []
    with filling_workers():
        workers: Any = joblib.Parallel(n_jobs=options.jobs, return_as="generator", batch_size=1)  # type: ignore[arg-type]
        for measured in workers(joblib.delayed(_measured)(name, theorems) for name in (None, *names)):
            for cell in () if options.json else measured:
                _show(cell)
            cells += measured
    found = gathered(cells, theorems)
    if options.json:
        print(json.dumps({"passed": found.passed, "cells": [cell.as_dict() for cell in found.cells]}, indent=1))
    else:
        print(f"\n{found}")
    return 0 if found.passed else 1


def _measured(name: str | None, theorems: tuple[Theorem, ...]) -> tuple[Cell, ...]:
    """The battery on one kind, or on the theorems' own systems: what a process does at a time."""
    keep_compiled()
    kinds = {} if name is None else {name: catalogue.find(catalogue.SUBSTRATES, name)}
    return battery(kinds, theorems, own=name is None).cells
