"""The command `groundstate list`: what there is, a line each."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import jax

from learning import catalogue
from learning.data import DATA_SETS
from learning.options import FALLBACK
from substrates.session import keep_compiled
from substrates.substrate import split_parameters

INPUTS, OUTPUTS = 64, 10
"""Of the digits, for which every substrate is built to say how large it is."""


def add(commands: Any) -> None:
    """Adds the command to the parsers of `groundstate`."""
    parser = commands.add_parser(
        "list",
        help="show the substrates, rules and data sets",
        description="Shows the substrates, each as it is built and trained for the digits where nobody says otherwise, "
        "the rules, the data sets and the costs.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_list)


def _list(options: argparse.Namespace) -> int:
    keep_compiled()
    sections = {
        "substrates": ((name, _substrate(name)) for name in catalogue.names(catalogue.SUBSTRATES)),
        "rules": ((name, _rule(name)) for name in catalogue.names(catalogue.RULES)),
        "data sets": DATA_SETS.items(),
        "costs": ((name, first_line(cost)) for name, cost in catalogue.COSTS.items()),
    }
    for title, entries in sections.items():
        print(title)
        _print(iter(entries))
    return 0


def _print(entries: Iterator[tuple[str, str]]) -> None:
    for name, about in entries:
        print(f"  {name:<26} {about}", flush=True)


def _substrate(name: str) -> str:
    """What a substrate is, how large, and how it learns."""
    try:
        substrate_class = catalogue.find(catalogue.SUBSTRATES, name)
    except catalogue.CatalogueError as error:  # of a package that is there no more
        return str(error)
    about = first_line(substrate_class).rstrip(",.:")
    precision = getattr(substrate_class, "training_precision", 32)
    try:
        with jax.enable_x64(precision == 64):
            substrate = substrate_class.for_task(INPUTS, OUTPUTS, key=jax.random.key(0))
            parameters = count_parameters(substrate)
    except Exception as error:  # of a plug-in: the list goes on
        return f"{about}; cannot be built for the digits: {error}"
    how = {**FALLBACK, **substrate.training_defaults()}
    nudges = f"nudges of {how['beta']:g}, " if "beta" in how else ""
    learns = f"learns by {nudges}{how['optimiser']}, {how['epochs']} epochs in {precision} bits"
    return f"{about}; {parameters:,} parameters for the digits; {learns}"


def _rule(name: str) -> str:
    """What a rule says of itself in one line."""
    try:
        rule = catalogue.find(catalogue.RULES, name)
    except catalogue.CatalogueError as error:  # of a package that is there no more
        return str(error)
    return getattr(rule, "in_short", "") or first_line(rule)


def count_parameters(substrate: Any) -> int:
    """How many numbers are trained."""
    return sum(leaf.size for leaf in jax.tree.leaves(split_parameters(substrate)[0]))


def first_line(thing: type) -> str:
    """The first line of a class's docstring, or its name."""
    lines = (thing.__doc__ or "").strip().split("\n")
    written = lines[0] and not lines[0].startswith(f"{thing.__name__}(")  # a dataclass without one gets its signature
    return lines[0] if written else f"{thing.__name__}."
