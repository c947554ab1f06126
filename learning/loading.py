"""A run's folder opened again: the trained system, its history and its data."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from learning.checkpoint import CheckpointError, named_arrays, read_checkpoint, replace_arrays
from learning.homeostat import IntegralControl
from learning.run_folder import (
    CHECKPOINT,
    RunFolderError,
    read_config,
    read_seconds,
    read_system,
    read_times,
    version,
)
from learning.training import Run, as_history
from substrates.laboratory.system import PhysicalSystem
from substrates.substrate import Substrate, split_parameters

_PARAMETERS = ".parameters"


def load_run(folder: str | os.PathLike, *, like: Any = None) -> Run:
    """The run that a folder holds: the trained system, its history so far, its classes and its data.

    The substrate is built again from names of classes and from arrays, without pickle; no module is imported but those
    of this project, of JAX and of installed plug-ins, so import the module of a class of your own first. Numbers come
    in the precision of the process: where it is 32 bits, those of 64 are rounded; those of 32 stay what they are.

    A run on the bench gives the substrate that a `Plant` simulated, with the parameters that it learned. Any other
    physical system has to be given, as `like`.

    Args:
        folder: what `fit` was given as `out`, or `groundstate train` printed; a run that is going on may be looked at.
        like: a system of the class and sizes that were trained, where the folder cannot tell how to build it (a class
            defined in a function, a field that is neither numbers nor text, a physical system). Of a substrate its
            trainable arrays are replaced, in its own precision; a physical system is put where the run left it.

    Returns a `Run` as of its last checkpoint, with all seconds that are on record; where their file is damaged it
    warns, and those of the epochs are NaN. Its evaluations are None: make them by
    `evaluate(run.substrate, run.data.test)`, or ask `run.predict(x)`.

    Raises:
        RunFolderError: no run is there, it has no checkpoint yet, or the substrate cannot be built; says why.
        CheckpointError: the checkpoint, which alone holds what was learned, or the system is damaged or was written in
            another format, or `like` is another system.
    """
    path = Path(folder)
    config = read_config(path)
    if config is None:
        raise RunFolderError(f"folder: there is no run in {path}; give what fit was given as out=")
    if not (path / CHECKPOINT).exists():
        raise RunFolderError(f"folder: the run in {path} has no checkpoint yet; wait for its first, or resume it")
    if like is not None and not isinstance(like, Substrate | PhysicalSystem):
        raise TypeError(f"like: wanted a Substrate or a PhysicalSystem, got {type(like).__name__}")
    arrays, facts = read_checkpoint(path / CHECKPOINT)
    system, reason, described = read_system(path)
    if like is None and system is None:
        raise RunFolderError(
            f"folder: {path} holds a {config.get('class')}, written by groundstate {config.get('groundstate')}, that "
            f"cannot be built here with groundstate {version()}: {reason}; give like=, a system of that class "
            "and its sizes"
        )
    system, homeostat = system if like is None else like, None
    if isinstance(system, PhysicalSystem):
        homeostat = IntegralControl()
        _put_back(system, arrays, path)
    elif _PARAMETERS in arrays:  # one vector, of a physical system
        system = _with_vector(system, arrays[_PARAMETERS], path)
    else:
        system = _with_arrays(system, arrays, path)
    try:
        each, _, total = read_times(path, facts["epoch"])
    except CheckpointError as error:
        warnings.warn(f"{error}; all else of the run is whole", stacklevel=2)
        each, total = [math.nan] * facts["epoch"], read_seconds(path)
    classes = described["classes"]
    return Run(
        substrate=system,
        history=as_history(facts["rows"]),
        epochs=facts["epoch"],
        seconds=total,
        epoch_seconds=np.asarray(each),
        interrupted=facts["epoch"] < config["epochs"],
        folder=path,
        classes=None if classes is None else tuple(classes),
        homeostat=homeostat,
    )


def _with_arrays(system: Substrate, arrays: dict[str, np.ndarray], path: Path) -> Substrate:
    """The substrate with what moved in training."""
    moved = {name.removeprefix(_PARAMETERS): found for name, found in arrays.items() if name.startswith(_PARAMETERS)}
    own, trained = named_arrays(system), named_arrays(split_parameters(system)[0])
    for name in {**trained, **moved}:
        here, there = own.get(name), moved.get(name)
        if here is None or there is None or here.shape != there.shape or here.dtype.kind != there.dtype.kind:
            raise _foreign(path, name.lstrip("."), here, there)
    return replace_arrays(system, moved)


def _with_vector(system: Substrate, vector: np.ndarray, path: Path) -> Substrate:
    """The substrate with the parameters that a physical system showed as one vector."""
    parameters, _ = split_parameters(system)
    flat, unravel = ravel_pytree(parameters)
    if flat.shape != vector.shape:
        raise _foreign(path, "parameters", flat, vector)
    return replace_arrays(system, named_arrays(unravel(jnp.asarray(vector, flat.dtype))))


def _put_back(system: PhysicalSystem, arrays: dict[str, np.ndarray], path: Path) -> None:
    """Sets the knobs of a physical system as the run left them, and holds its parameters where they were."""
    knobs, parameters = arrays.get(".knobs"), arrays.get(_PARAMETERS)
    if knobs is None or parameters is None:
        raise CheckpointError(f"{path}: holds no run on the bench; give like= a Substrate")
    if knobs.shape != (system.spec.knobs.size,):
        raise _foreign(path, "knobs", np.zeros(system.spec.knobs.size), knobs)
    system.set_knobs(knobs)
    system.clamp(None)
    system.nudge(None, 0.0)
    IntegralControl().hold(system, parameters)


def _foreign(path: Path, name: str, here: Any, there: Any) -> CheckpointError:
    shown = lambda array: "absent" if array is None else f"{array.dtype.name}{list(array.shape)}"
    return CheckpointError(
        f"{path}: belongs to another system: {name} is {shown(here)} here and {shown(there)} in the file; give like= a "
        "system of the class and sizes that were trained"
    )
