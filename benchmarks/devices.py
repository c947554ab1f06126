"""Batches shared by devices: what sharing costs on one device, and what more devices bring.

    python benchmarks/devices.py                    # 1, 2, 4, ... of the accelerators, or of the cores, that are there
    python benchmarks/devices.py --counts 1 2

Accelerators are those of one process. Of CPUs every device is a process of its own, held to one core, and processes
meet over localhost. Strong: batches of 256 for all devices together. Weak: 256 for each. A step is one of equilibrium
propagation on a Hopfield network 64-1024-10 by the digits in single precision: medians of rounds that take turns. What
sharing costs on one device is told in processor time where devices are cores, which other programs do not blur. By
columns: all devices have all examples and share the columns of the matrices; one round, and kB of parameters on each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import time
from statistics import median
from typing import Any

import jax
import numpy as np
import optax

from learning import EquilibriumPropagation, load_data
from learning.devices import Devices
from learning.examples import prepare
from learning.steps import Trainer
from substrates import HopfieldNetwork

BATCH, STEPS, ROUNDS = 256, 4, 25


class Timed:
    """Training that goes on a few steps at a time."""

    def __init__(self, batch: int, devices: Devices):
        key = jax.random.key(0)
        data = load_data("digits").train
        repeated = tuple(np.concatenate([part] * -(-batch * STEPS // len(part)))[: batch * STEPS] for part in data)
        net = HopfieldNetwork.for_task(64, 10, sizes=(1024,), key=key)
        rule = EquilibriumPropagation(beta=0.5, strict=False)
        examples = prepare(net, repeated)
        self.trainer = Trainer(net, rule, optax.sgd(0.01), examples, batch, key, False, devices)
        self.moving, self.order = self.trainer.initial, self.trainer.order(0)
        self.seconds: list[float] = []
        self.work: list[float] = []
        self.go()
        self.seconds.clear()
        self.work.clear()

    def go(self) -> None:
        begun, working = time.perf_counter(), time.process_time()
        _, self.moving = self.trainer.advance(self.moving, self.order, 0, STEPS)
        jax.block_until_ready(self.moving.parameters)
        self.seconds.append((time.perf_counter() - begun) / STEPS)
        self.work.append((time.process_time() - working) / STEPS)

    @property
    def kilobytes(self) -> float:
        """The parameters on one device."""
        leaves = jax.tree.leaves(self.moving.parameters)
        return sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves) / 1e3


def measure(count: int) -> dict[str, float]:
    """Seconds per step of this process, which has some or all of so many devices."""
    devices = Devices(jax.make_mesh((count,), ("examples",), devices=jax.devices()[:count]))
    kinds = {"strong": Timed(BATCH, devices), "weak": Timed(BATCH * count, devices)}
    if count == 1:
        kinds["plain"] = Timed(BATCH, Devices())
    for _ in range(ROUNDS):
        for timed in kinds.values():
            timed.go()
    found = {name: median(timed.seconds) for name, timed in kinds.items()}
    mesh = jax.make_mesh((1, count), ("examples", "columns"), devices=jax.devices()[:count])
    columns = Timed(BATCH, Devices(mesh))
    columns.go()
    found |= {"columns": columns.seconds[0], "kilobytes": columns.kilobytes}
    if count == 1:
        clock = "work" if jax.default_backend() == "cpu" else "seconds"
        found["cost"] = median(getattr(kinds["strong"], clock)) / median(getattr(kinds["plain"], clock))
    return found


def by_processes(count: int) -> dict[str, float]:
    """The same by processes with a core each; what process 0 measured."""
    cores = sorted(os.sched_getaffinity(0))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = [sys.executable, __file__, "--place", str(port), str(count)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    workers = [subprocess.Popen([*words, str(k), str(cores[k])], **pipes) for k in range(count)]
    said = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        sys.exit(f"{count} processes: one of them failed")
    return json.loads(said[0].splitlines()[-1])


def work(port: int, count: int, process: int, core: int) -> None:
    os.sched_setaffinity(0, {core})
    if count > 1:
        jax.distributed.initialize(f"localhost:{port}", count, process)
    print(json.dumps(measure(count)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+")
    parser.add_argument("--place", type=int, nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.place:
        work(*options.place)
        return
    on_cpu = jax.default_backend() == "cpu"
    there = len(os.sched_getaffinity(0)) if on_cpu else jax.device_count()
    counts = sorted({1, *(options.counts or [2**k for k in range(there.bit_length()) if 2**k <= there])})
    print(f"{jax.devices()[0].device_kind}, {there} of them; {platform.python_version()}, jax {jax.__version__}")
    print(
        "devices  strong: ms per step  times faster  weak: ms per step  of what one device does  by columns: ms     kB"
    )
    alone = 0.0
    for count in counts:
        found = by_processes(count) if on_cpu else measure(count)
        if count == 1:
            alone = found["strong"]
            print(f"sharing on one device takes {found['cost']:.3f} times what a step takes without a mesh")
        strong, weak = found["strong"], found["weak"]
        ratios = f"{alone / strong:12.2f}", f"{alone / weak:24.2f}"
        columns = f"{1e3 * found['columns']:14.1f}  {found['kilobytes']:5.0f}"
        print(f"{count:7}  {1e3 * strong:19.1f}  {ratios[0]}  {1e3 * weak:17.1f}  {ratios[1]}  {columns}", flush=True)


if __name__ == "__main__":
    main()
