"""The devices that the command computes on, in this process and in others: the words for them and what they come to."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from learning.devices import ColumnsError, Devices, ProcessError
from learning.options import UsageError, count, reader
from learning.training import TrainingError
from substrates.substrate import COLUMNS, EXAMPLES

NAMES = ("devices", "columns", "distributed", "coordinator", "process")
"""The options, none of which changes what is computed but for rounding."""

_HEARTBEAT_SECONDS = 10
_FAREWELL_SECONDS = 30
"""How long a process is silent before the others take it for dead, and how long one that ends waits for the others."""

_place = reader(
    lambda text: tuple(int(number) for number in text.split("/")),
    lambda pair: len(pair) == 2 and 0 <= pair[0] < pair[1],
    "I/N, the number of this process from 0 to N - 1 and how many there are, such as 0/2",
)
_address = reader(
    lambda text: (text, *text.rpartition(":")[::2]),
    lambda parts: bool(parts[1]) and parts[2].isdecimal() and 0 < int(parts[2]) < 65536,
    "HOST:PORT, where process 0 runs, such as node1:7777",
)


def add(group: Any) -> None:
    """Adds the options to a group of a parser."""
    group.add_argument(
        "--devices",
        type=count,
        metavar="N",
        help="share each batch over N devices of every process (default: no sharing; with --distributed all of them)",
    )
    group.add_argument(
        "--columns",
        type=count,
        metavar="C",
        help="let C of those devices at a time have the same examples and share the columns of large matrices of "
        "parameters, so that none holds a whole one (default: 1, each device has all parameters)",
    )
    group.add_argument(
        "--distributed",
        action="store_true",
        help="share each batch with other processes that were given the same command, --out and all: those that Slurm "
        "or Open MPI started, or those that --coordinator names",
    )
    group.add_argument(
        "--coordinator", type=_address, metavar="HOST:PORT", help="where the processes meet: a free port of process 0"
    )
    group.add_argument("--process", type=_place, metavar="I/N", help="this is process I, from 0, of N")


def join(options: argparse.Namespace) -> None:
    """Meets the other processes, if there are to be any; it comes before anything is computed.

    Raises UsageError for options that do not go together, and where the others are not found.
    """
    together = {"--coordinator": options.coordinator, "--process": options.process}
    given = [flag for flag, value in together.items() if value is not None]
    if not options.distributed:
        if given:
            raise UsageError(f"{given[0]}: this is for processes that train together; give --distributed too")
        return
    if len(given) == 1:
        missing = next(flag for flag in together if flag not in given)
        raise UsageError(f"{missing}: wanted with {given[0]}, got none; give both, or neither under Slurm and Open MPI")
    if options.out is None:
        raise UsageError("--out: processes that train together need one folder that all of them see; name it")
    place: dict[str, Any] = {}
    if given:
        index, number = options.process
        place = {"coordinator_address": options.coordinator[0], "process_id": index, "num_processes": number}
        place["cluster_detection_method"] = "deactivate"
    try:
        jax.distributed.initialize(
            **place, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS, shutdown_timeout_seconds=_FAREWELL_SECONDS
        )
    except ValueError as error:
        raise UsageError(
            "--distributed: neither Slurm nor Open MPI started this process; give --coordinator HOST:PORT and "
            "--process I/N"
        ) from error
    except RuntimeError as error:
        raise UsageError(f"--distributed: JAX cannot meet the other processes: {error}") from error


def mesh_of(options: argparse.Namespace) -> Mesh | None:
    """The devices that share each batch, or None; raises UsageError where there are not so many, or where those that
    share columns do not divide them.
    """
    columns = options.columns or 1
    if options.devices is None and not options.distributed:
        if columns > 1:
            raise UsageError(
                f"--columns: wanted with --devices or --distributed, got neither; give --devices {columns} too"
            )
        return None
    own = jax.local_devices()
    if options.devices is not None and options.devices > len(own):
        kind = own[0].platform
        advice = f", or set JAX_NUM_CPU_DEVICES={options.devices}" if kind == "cpu" else ""
        raise UsageError(f"--devices: wanted {options.devices}, JAX finds {len(own)} ({kind}); ask for fewer{advice}")
    chosen = []
    for process in range(jax.process_count()):
        theirs = [device for device in jax.devices() if device.process_index == process]
        chosen += theirs[: options.devices]
    if len(chosen) % columns:
        fitting = " or ".join(str(n) for n in range(1, len(chosen) + 1) if len(chosen) % n == 0)
        raise UsageError(f"--columns: wanted what divides {len(chosen)}, the devices, got {columns}; give {fitting}")
    return jax.make_mesh((len(chosen) // columns, columns), (EXAMPLES, COLUMNS), devices=chosen)


@contextlib.contextmanager
def named_as_options() -> Iterator[None]:
    """In here what devices cannot share is refused by UsageErrors, in the words of the command line."""
    try:
        yield
    except ColumnsError as error:
        raise UsageError(
            f"--columns: {error.reason}; leave it out, and each of the --devices has all parameters"
        ) from error
    except ValueError as error:
        if not str(error).startswith("batch_size: "):
            raise
        raise UsageError(str(error).replace("batch_size", "--batch-size", 1)) from error


@contextlib.contextmanager
def lost_run(devices: Devices, again: str) -> Iterator[None]:
    """Says how to go on without a process that ends: first of all, since JAX may end the others before they can speak,
    and again where an error of JAX leaves the time.

    Args:
        devices: which several processes have, or nothing is said.
        again: the command that resumes the run.

    Raises ProcessError in place of what JAX says of a device or another process.
    """
    if not devices.several:
        yield
        return
    here = f"groundstate: process {jax.process_index()} of {jax.process_count()}"
    tell = lambda text: print(f"{here}: {text}", file=sys.stderr, flush=True)
    rescue = f"go on from its last checkpoint with: {again} (alone, or --distributed over any number of processes)"
    tell(f"if another process ends before the run does, this one ends within a minute; {rescue}")
    try:
        yield
    except (jax.errors.JaxRuntimeError, TrainingError) as error:
        if isinstance(error, TrainingError) and not isinstance(error.__cause__, jax.errors.JaxRuntimeError):
            raise
        tell(f"the run has lost a device or a process; {rescue}")
        raise ProcessError(str(error).splitlines()[0]) from error
