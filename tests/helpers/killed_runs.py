"""Runs a training in children that are killed with SIGKILL and resumed, again and again, until one ends.

Usage: killed_runs.py FOLDER SCHEDULE, with a JSON list of [kind, number] per child: ["event", n] dies at its n-th
opening or renaming of a file in FOLDER, ["half", n] inside its n-th checkpoint, half written, ["flush", n] before its
n-th file is flushed, ["time", s] after s seconds of training. The last child is left to end. Prints one JSON line with
the number of children that died and the digests of the parameters, the optimiser's checkpoint and the history.
"""

import hashlib
import json
import os
import signal
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import optax
from linear_response import LinearResponse

import learning.checkpoint
from learning import EquilibriumPropagation, fit, training

OPTIMISER = optax.adam(0.01)


def die():
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # until the signal comes


def dies_at(number, call=lambda *_: None):
    """A function that does what it wraps until it is called for the n-th time."""
    calls = []

    def wrapped(*arguments, **options):
        calls.append(None)
        if len(calls) == number:
            die()
        return call(*arguments, **options)

    return wrapped


def arm(folder, kind, number):
    if kind == "event":
        count = dies_at(number)

        def watch(event, arguments):
            if event in ("open", "os.rename", "os.mkdir") and str(folder) in str(arguments[0]):
                count()

        sys.addaudithook(watch)
    elif kind == "half":
        save = np.savez
        count = dies_at(number)

        def save_half(file, **members):
            start = file.tell()
            save(file, **members)
            file.truncate((start + file.tell()) // 2)
            file.flush()
            count()
            file.seek(start)
            file.truncate()
            save(file, **members)

        np.savez = save_half
    elif kind == "flush":
        learning.checkpoint.os.fsync = dies_at(number, os.fsync)
    elif kind == "time":
        advance = training.Trainer.advance

        def started(*arguments):
            training.Trainer.advance = advance
            threading.Timer(number, die).start()
            return advance(*arguments)

        training.Trainer.advance = started


def train(folder, chunk_seconds):
    training._CHUNK_SECONDS = chunk_seconds
    rng = np.random.default_rng(3)
    x = rng.normal(size=(41, 3))
    data = (x, x @ rng.normal(size=(3, 2)))
    net = LinearResponse(np.zeros((2, 3), np.float32), np.zeros(2, np.float32), np.asarray(np.inf, np.float32))
    net = jax.tree.map(jax.numpy.asarray, net)
    return fit(
        net, EquilibriumPropagation(beta=0.5), data, optimiser=OPTIMISER, epochs=5, batch_size=4,
        key=jax.random.key(7), validation=data, out=folder, resume=True, progress=False, checkpoint_every=0.0,
    )  # fmt: skip


def outcome(run):
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    metrics = [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]
    with np.load(run.folder / "checkpoint.npz") as saved:
        optimiser = b"".join(saved[name].tobytes() for name in sorted(saved.files) if name != "header")
    parts = {
        "parameters": b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(run.substrate)),
        "checkpoint": optimiser,
        "history": b"".join(name.encode() + values.tobytes() for name, values in run.history.items()),
        "metrics": json.dumps(metrics).encode(),
    }
    return {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()} | {"epochs": run.epochs}


def main(folder, schedule):
    jax.config.update("jax_compilation_cache_dir", str(folder.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    died = 0
    for child, (kind, number) in enumerate([*schedule, ["none", 0]]):
        pid = os.fork()  # JAX has not started its threads here
        if pid == 0:
            arm(folder, kind, number)
            run = train(folder, chunk_seconds=(0.0, 0.001, 0.5)[child % 3])
            (folder.parent / "outcome.json").write_text(json.dumps(outcome(run)))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        died += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not (os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0):
            sys.exit(f"child {child} ({kind} {number}) failed")
    print(json.dumps({"died": died} | json.loads((folder.parent / "outcome.json").read_text())))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
