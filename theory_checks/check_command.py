"""The command `groundstate check`: the conformance kit at a prompt."""

from __future__ import annotations

import argparse
import json
from typing import Any

import jax

from learning import catalogue
from learning.options import UsageError, count, positive, reader, whole
from substrates.session import keep_compiled, whole_products
from substrates.substrate import Substrate
from theory_checks.conformance import check_substrate
from theory_checks.report import Report
from theory_checks.small_systems import small_batch, small_system

_SIZES = reader(
    lambda text: tuple(int(size) for size in text.split(",")),
    lambda sizes: min(sizes) >= 1,
    "positive whole numbers such as 4 or 4,4",
)
_SEED = reader(whole, lambda value: 0 <= value < 2**32, f"a whole number from 0 to {2**32 - 1}")


def add(commands: Any) -> None:
    """Adds the command to the parsers of `groundstate`."""
    parser = commands.add_parser(
        "check",
        help="hold a substrate against the laws of its contract",
        description="Builds a small system of a kind, holds it against every law of the contract and of equilibrium "
        "propagation, and prints a table. The exit code is 0 if all laws hold, 1 if one is broken, 2 for wrong usage.",
        epilog="examples:\n  groundstate check hopfield\n  groundstate check my_system.py:MySystem --json\n"
        "  groundstate check my_system.py:chain --inputs 1      # a system that the file builds",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=_check)
    parser.add_argument(
        "substrate",
        help="a name that `groundstate list` shows, or path/to/file.py:NAME, a class with `for_task` (or one that is "
        "built without arguments) or a system",
    )
    parser.add_argument("--inputs", type=count, metavar="N", help="numbers in x (default: the system's own, or 2)")
    parser.add_argument("--outputs", type=count, default=2, metavar="N", help="of a system built for it (default: 2)")
    parser.add_argument("--sizes", type=_SIZES, metavar="N", help="hidden sizes, such as 4 or 4,4 (default: 4)")
    parser.add_argument("--examples", type=count, default=2, metavar="N", help="in the batch (default: 2)")
    parser.add_argument("--beta", type=positive, metavar="X", help="the largest nudge (default: one that suits it)")
    parser.add_argument("--cost", choices=sorted(catalogue.COSTS), default="squared-error")
    parser.add_argument("--seed", type=_SEED, default=0, metavar="N", help="(default: 0)")
    parser.add_argument("--precision", type=int, choices=(32, 64), default=64, help="bits of a number (default: 64)")
    parser.add_argument("--json", action="store_true", help="print JSON: system, passed, and all that each law found")


def _check(options: argparse.Namespace) -> int:
    keep_compiled()
    whole_products()
    with jax.enable_x64(options.precision == 64):
        report = _report(options)
    print(json.dumps(report.as_dict(), indent=1) if options.json else report)
    return 0 if report.passed else 1


def _report(options: argparse.Namespace) -> Report:
    build, draw, relax = jax.random.split(jax.random.key(options.seed), 3)
    system, cost = _system(options, build), catalogue.COSTS[options.cost]()
    if options.inputs is not None and system.x_shape not in (None, (options.inputs,)):
        raise UsageError(f"--inputs: {type(system).__name__} takes x of shape {system.x_shape}, got {options.inputs}")
    x, y = small_batch(system, options.examples, n_inputs=options.inputs or 2, cost=cost, key=draw)
    return check_substrate(system, x, y, cost=cost, key=relax, beta=options.beta)


def _system(options: argparse.Namespace, key: Any) -> Substrate:
    """The system that a word means: an instance, what `for_task` builds, or what the class builds without arguments."""
    found = catalogue.find(catalogue.SUBSTRATES, options.substrate, object)
    if isinstance(found, Substrate):
        return found
    if not isinstance(found, type) or not issubclass(found, Substrate):
        raise UsageError(
            f"substrate: wanted a Substrate, as a class or a system, got {options.substrate}, which is "
            f"{found.__name__ if isinstance(found, type) else f'of type {type(found).__name__}'}"
        )
    try:
        return small_system(found, options.inputs or 2, options.outputs, sizes=options.sizes, key=key)
    except TypeError as error:
        raise UsageError(
            f"substrate: {found.__name__} has no for_task and is not built without arguments ({error}); define "
            "for_task(n_inputs, n_outputs, *, sizes=None, key), or build a system in the file and name that"
        ) from error
