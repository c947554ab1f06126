"""Trains in several processes that share columns; tests/learning/test_columns.py compares what comes of it.

Usage: column_training.py FOLDER NAMES PORT PROCESS PROCESSES COLUMNS. Writes into FOLDER, by the number of the process,
what each of the `TRAININGS` in a JSON list came to, twice; of what shape its parts were, and what was exchanged in its
steps; and for the first what became of folders, of a bad batch, and of what cannot be shared.
"""

import json
import math
import re
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from linear_response import LinearResponse
from shared_training import numbers, refused

from learning import AgnosticEP, ContinualEP, EquilibriumPropagation, fit
from learning.devices import Devices
from learning.examples import prepare
from learning.steps import Trainer, _advance
from learning.training import TrainingError
from substrates import (
    HopfieldNetwork,
    Plant,
    PredictiveCodingNetwork,
    ResistorNetwork,
    start_session,
)
from substrates.solvers.host import on_host

SEED = 5
X = np.random.default_rng(0).uniform(size=(24, 64))
LABELLED = (X[:, :32], np.argsort(X[:, :4], axis=1)[:, 0].astype(np.int32))
PAIRED = (X, X @ np.random.default_rng(1).normal(size=(64, 64)) / 8)
ADAM, MOMENTUM = optax.adam(0.02), optax.sgd(0.01, momentum=0.9)
RULE = EquilibriumPropagation(beta=0.3)

linear = lambda: LinearResponse(jnp.zeros((64, 64)), jnp.zeros(64))


class Consults(LinearResponse):
    """The same, which asks the host on its way."""

    def relax(self, x, nudge=None, start=None, *, key=None, solver=None):
        asked = on_host(lambda inputs: inputs, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="broadcast_all")
        return super().relax(asked, nudge, start, key=key, solver=solver)


layered = lambda kind: kind.for_task(32, 4, sizes=(128,), key=jax.random.key(1))

FIRST = "linear"
TRAININGS = {
    FIRST: lambda: dict(substrate=linear(), rule=RULE, data=PAIRED, optimiser=ADAM),
    "Hopfield": lambda: dict(substrate=layered(HopfieldNetwork), rule=RULE, optimiser=ADAM),
    "resistors": lambda: dict(substrate=layered(ResistorNetwork), rule=RULE, optimiser=ADAM),
    "predictive coding": lambda: dict(substrate=layered(PredictiveCodingNetwork), rule=RULE, optimiser=MOMENTUM),
}


def train(name, **changes):
    """One epoch or more of one of the trainings: the same numbers on any number of devices, but for rounding."""
    options = dict(data=LABELLED, epochs=1, batch_size=8, key=jax.random.key(SEED), progress=False)
    options |= TRAININGS[name]()
    return fit(**(options | {"validation": options["data"], "observe": largest} | changes))


def largest(system):
    """What needs all columns of the first matrix."""
    return {"largest": float(jnp.max(jnp.abs(jax.tree.leaves(system)[0])))}


def parts(name, mesh):
    """The shapes of what moves in a training and of this process's parts after a step, and what devices exchange in it:
    the sizes of what is gathered.
    """
    options = {"data": LABELLED, "optimiser": None} | TRAININGS[name]()
    system, optimiser = options["substrate"], options["optimiser"]
    trainer = Trainer(
        system,
        options["rule"],
        optimiser,
        prepare(system, options["data"]),
        8,
        jax.random.key(SEED),
        True,
        Devices(mesh),
    )
    start, stop = jnp.asarray(0, jnp.int32), jnp.asarray(1, jnp.int32)
    places, first, last, key = trainer.devices.place((trainer.order(0)[0], start, stop, jax.random.key(SEED)))
    with trainer.devices.sharing():
        lowered = _advance.lower((trainer.standing, places, first, last, key), trainer.initial)
    text = lowered.compile().compiled.as_text()
    _, moving = trainer.advance(trainer.initial, trainer.order(0), 0, 1)
    arrays = filter(eqx.is_array, jax.tree.leaves((moving.parameters, moving.optimiser)))
    gathered = re.findall(r"= (.*?) all-gather(?:-start|-done)?\(", text)
    shapes = [shape for found in gathered for shape in re.findall(r"\[([\d,]+)\]", found)]
    return {
        "parts": [[leaf.shape, [part.data.shape for part in leaf.addressable_shards]] for leaf in arrays],
        "gathered": [math.prod(map(int, shape.split(","))) for shape in shapes],
    }


def look_around(folder, mesh):
    """Runs that are saved and resumed, a batch from which nothing may be learned, and what cannot be shared."""
    rows = jax.make_mesh((jax.device_count(), 1), ("batch", "matrix"))
    flat = jax.make_mesh((jax.device_count(),), ("batch",))
    run = dict(out=folder / "run", checkpoint_every=0.0)
    train(FIRST, mesh=mesh, **run)
    train(FIRST, mesh=flat, resume=True, **run | {"epochs": 2})
    train(FIRST, mesh=mesh, resume=True, out=folder / "alone", epochs=2)
    weak = eqx.tree_at(lambda net: net.weak_point, linear(), jnp.asarray(X[:, 0].max() - 1e-9))
    try:
        stopped = train(FIRST, mesh=mesh, substrate=weak)
    except TrainingError as error:
        stopped = error.run
    alone = dict(mesh=mesh, optimiser=None)
    plant = Plant(linear(), 0.01, copies=8, inputs=64)
    small = LinearResponse(jnp.zeros((63, 63)), jnp.zeros(63))
    no_data = (np.ones((8, 63)), np.ones((8, 63)))
    return {
        "stopped": [stopped.epochs, np.asarray(stopped.substrate.weight).tolist()],
        "on the bench": refused(lambda: train(FIRST, substrate=plant, rule=AgnosticEP(beta=0.3), **alone)),
        "moved": refused(lambda: train(FIRST, rule=ContinualEP(beta=0.3, learning_rate=0.01, steps=5), **alone)),
        "host": refused(lambda: train(FIRST, mesh=mesh, substrate=Consults(jnp.zeros((64, 64)), jnp.zeros(64)))),
        "small": refused(lambda: train(FIRST, mesh=mesh, substrate=small, data=no_data, validation=None)),
        "unequal parts": refused(lambda: train(FIRST, mesh=rows, batch_size=9)),
    }


def main(folder, names, port, process, processes, columns):
    start_session()
    jax.distributed.initialize(
        f"localhost:{port}", int(processes), int(process), heartbeat_timeout_seconds=10, shutdown_timeout_seconds=30
    )
    mesh = jax.make_mesh((jax.device_count() // int(columns), int(columns)), ("batch", "matrix"))
    told = {}
    for name in names:
        told[name] = parts(name, mesh)
        for again in range(2):
            np.savez(folder / f"{name} {again} {process}.npz", **numbers(train(name, mesh=mesh)))
    if FIRST in names:
        told |= look_around(folder, mesh)
    (folder / f"told {process}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), *sys.argv[3:])
