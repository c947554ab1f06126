"""Trains on all devices of this process, or of several; tests/learning/test_devices.py looks at what comes of it.

Usage: shared_training.py FOLDER NAMES [PORT PROCESS PROCESSES]. Writes into FOLDER, by the number of the process, what
each of the `TRAININGS` in a JSON list came to, twice; and where several processes train the first of `TRAININGS`, what
they refused and the sums over devices in the compiled program of its steps.
"""

import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from linear_response import LinearResponse

from learning import (
    AgnosticEP,
    ContinualEP,
    EquilibriumPropagation,
    JacobianHomeostasis,
    SelfControl,
    SimultaneousPerturbation,
    fit,
)
from learning.steps import _advance
from learning.training import Trainer
from substrates import HopfieldNetwork, IsingModel, Plant, RecurrentNetwork, SmoothHopfieldNetwork, start_session

SEED = 5
X = np.random.default_rng(0).uniform(size=(23, 3))
DATA = (X, (np.argsort(X, axis=1)[:, 0]).astype(np.int32))
ADAM = optax.adam(0.02)


def built(kind, sizes=(5,)):
    return kind.for_task(3, 3, sizes=sizes, key=jax.random.key(1))


FIRST = "equilibrium propagation with random signs"
TRAININGS = {
    FIRST: lambda: dict(
        substrate=built(HopfieldNetwork), rule=EquilibriumPropagation(beta=0.3, variant="random"), optimiser=ADAM
    ),
    "without an energy, with random directions": lambda: dict(
        substrate=built(RecurrentNetwork),
        rule=JacobianHomeostasis(EquilibriumPropagation(beta=0.3), 0.1),
        optimiser=ADAM,
    ),
    "random pushes": lambda: dict(
        substrate=built(HopfieldNetwork), rule=SimultaneousPerturbation(step=0.01), optimiser=ADAM
    ),
    "spins that draw": lambda: dict(
        substrate=built(IsingModel, (4,)), rule=EquilibriumPropagation(beta=2.0, strict=False), optimiser=ADAM
    ),
    "parameters that move along": lambda: dict(
        substrate=built(SmoothHopfieldNetwork), rule=ContinualEP(beta=0.3, learning_rate=0.01, steps=4)
    ),
    "copies on the bench": lambda: dict(
        substrate=Plant(built(HopfieldNetwork), 0.01, copies=4), rule=AgnosticEP(beta=0.3, homeostat=SelfControl())
    ),
}


def train(name, mesh=None, **changes):
    """One epoch or more of one of the trainings: the same numbers on any number of devices, but for rounding."""
    options = dict(
        data=DATA, epochs=1, batch_size=4, key=jax.random.key(SEED), validation=DATA, progress=False, mesh=mesh
    )
    return fit(**(options | TRAININGS[name]() | changes))


def numbers(run):
    """What a run came to."""
    leaves = jax.tree.leaves(run.substrate) if jax.tree.leaves(run.substrate) != [run.substrate] else []
    parameters = [np.asarray(leaf) for leaf in leaves] or [run.substrate.read().parameters]
    return {str(k): leaf for k, leaf in enumerate(parameters)} | run.history


def check_numbers(folder, name, processes, wanted):
    """What processes found is what one device did, to 1e-10; repeats and processes are alike to the last bit."""
    found = []
    for again in range(2):
        for process in range(processes):
            with np.load(folder / f"{name} {again} {process}.npz") as arrays:
                found.append(dict(arrays))
    for other in found:
        assert set(other) == set(wanted)
        for part in wanted:
            np.testing.assert_array_equal(other[part], found[0][part])
    for part in wanted.keys() - {"residual"}:  # which is rounding alone
        scale = np.max(np.abs(wanted[part]), initial=0.0, where=~np.isnan(wanted[part]))  # no label, no error
        np.testing.assert_allclose(found[0][part], wanted[part], rtol=0, atol=1e-10 * scale, err_msg=part)


def refused(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def program(mesh):
    """The compiled steps of a network that settles in loops."""
    seen = []

    class LookedError(Exception):
        pass

    def look(trainer, moving, order, start, stop):
        bounds = (jnp.asarray(start, jnp.int32), jnp.asarray(stop, jnp.int32))
        places, first, last, key = trainer.devices.place((order[0], *bounds, order[1]))
        with trainer.devices.sharing():
            lowered = _advance.lower((trainer.standing, places, first, last, key), moving)
        seen.append(lowered.compile().compiled.as_text())
        raise LookedError

    advance, Trainer.advance = Trainer.advance, look
    try:
        train(FIRST, mesh)
    except LookedError:
        return seen[0]
    finally:
        Trainer.advance = advance


def main(folder, names, port=None, process="0", processes="1"):
    start_session()
    if port is not None:
        jax.distributed.initialize(
            f"localhost:{port}", int(processes), int(process), heartbeat_timeout_seconds=10, shutdown_timeout_seconds=30
        )
    mesh = jax.make_mesh((jax.device_count(),), ("batch",))
    for name in names:
        for again in range(2):
            np.savez(folder / f"{name} {again} {process}.npz", **numbers(train(name, mesh)))
    if port is not None and FIRST in names:
        told = look_around(folder, mesh, int(process))
        (folder / f"told {process}.json").write_text(json.dumps(told))


def look_around(folder, mesh, process):
    """What processes say that were given different things, or what they cannot share."""
    text = program(mesh)
    net = dict(
        substrate=LinearResponse(jnp.zeros((3, 3)), jnp.zeros(3)),
        rule=EquilibriumPropagation(beta=0.5),
        data=DATA,
        optimiser=optax.sgd(0.1),
        epochs=1,
        batch_size=4,
        key=jax.random.key(SEED),
        progress=False,
        mesh=mesh,
    )
    (folder / "file").touch()
    return {
        "collectives": re.findall(r" (all-reduce|all-gather|all-to-all|collective-permute)(?:-start)?\(", text),
        "reduced at once": re.findall(r"= \((.*?)\) all-reduce(?:-start)?\(", text),
        "unequal parts": refused(lambda: fit(**net | {"batch_size": 2 * jax.device_count() + 1})),
        "another key": refused(lambda: fit(**net | {"key": jax.random.key(process)})),
        "no folder": refused(lambda: fit(**net | {"out": folder / "file"})),
        "devices of one process": refused(
            lambda: fit(**net | {"mesh": jax.make_mesh((1,), ("batch",), devices=jax.devices()[:1])})
        ),
        "kept in": str(fit(**net | {"out": folder / "run"}).folder),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), *sys.argv[3:])
