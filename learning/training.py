"""Training: a rule applied batch after batch, compiled, reported, saved, interruptible and exactly resumable."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree
from tqdm import tqdm

from learning.checkpoint import digest, load_checkpoint, raw
from learning.closures import describe_functions
from learning.data import Data, Split, number_names
from learning.devices import Devices
from learning.evaluation import Evaluation
from learning.examples import Examples, prepare
from learning.homeostat import Homeostat
from learning.pictures import learning_curve
from learning.prediction import Prediction, predict
from learning.rule import ConvergenceError, Estimator, Mover
from learning.run_folder import (
    CHECKPOINT,
    OPTIMISER,
    RunFolder,
    Simulation,
    describe_tree,
    read_config,
    read_data,
    read_times,
    surroundings,
    version,
)
from learning.steps import BenchTrainer, Epochs, Trainer
from learning.structure import name_of
from substrates import explained
from substrates.laboratory.system import PhysicalSystem
from substrates.pictures import display
from substrates.substrate import FAILURES, Status, Substrate, check_key, split_parameters

_CHUNK_SECONDS = 0.5
_GROWTH = 8
_EVALUATION = 2**32 - 1  # no epoch has this number


@dataclass
class Run:
    """What came of training.

    Attributes:
        substrate: the trained system.
        history: an array per quantity with one entry per whole epoch: `cost` (mean over the epoch's batches, each
            before its step), `error` (with labels; the part of wrong answers), `residual` (the largest), `unconverged`
            (equilibria, or phases of a mover), and with validation examples `validation_cost`, `validation_error`,
            `validation_unconverged`. Costs and errors are those of free outputs. Where a rule on the bench never
            settles freely (`AgnosticEP`, centred and pessimistic), `estimated_error` stands in place of `error`, and
            `cost` is estimated in the same way: see `AgnosticEP`.
        epochs: how many whole epochs are done.
        seconds: wall time of all the training that is in the result, over resumes; compilation is included.
        epoch_seconds: wall time of each epoch.
        interrupted: whether Ctrl-C ended it before the epochs that were asked for.
        train, validation, test: evaluations of the trained system, where they were asked for.
        folder: where it was saved, or None.
        classes: what each output stands for: the names of a data set's classes, the names or the whole numbers that
            were the labels; None without labels.
        homeostat: what holds the parameters of a physical system, or None.
        given: the data, or None while they are in the folder only; see `data`.
    """

    substrate: Any
    history: dict[str, np.ndarray]
    epochs: int
    seconds: float
    epoch_seconds: np.ndarray
    interrupted: bool = False
    train: Evaluation | None = None
    validation: Evaluation | None = None
    test: Evaluation | None = None
    folder: Path | None = None
    classes: tuple[Any, ...] | None = None
    homeostat: Homeostat | None = None
    given: Data | Split | None = None

    @property
    def data(self) -> Data | Split:
        """The data that it learned, in the parts `train`, `validation` and `test`, each a pair (X, Y) or None.

        Labels that were given as names are whole numbers, the places of the names in `classes`. Of a loaded run the
        data are fetched when first asked for: by `load_data`, or from the folder.

        Raises RunFolderError if the folder does not hold them (see `RunFolder`), CheckpointError if their file is
        damaged or lost, DataError if a set cannot be had.
        """
        if self.given is None:
            if self.folder is None:
                raise ValueError("data: this run knows neither its data nor a folder that holds them")
            self.given = read_data(self.folder)
        return self.given

    def predict(self, x: PyTree, *, batch_size: int | None = None, key: PRNGKeyArray | None = None) -> Prediction:
        """The outputs of the trained system for a batch of inputs, and the `classes` that they stand for.

        Args:
            x: inputs with a leading axis of n examples, scaled as those that it learned.
            batch_size, key: as in `learning.predict`.

        Raises ValueError for inputs that do not fit the system.
        """
        return predict(
            self.substrate, x, classes=self.classes, batch_size=batch_size, homeostat=self.homeostat, key=key
        )

    def _repr_html_(self) -> str:
        """The learning curve beside the words of `print`, for notebooks."""
        title, *lines = repr(self).splitlines()
        rows = [tuple(re.split(r"  +", line.strip(), maxsplit=1)) for line in lines]
        return display.beside(title, display.picture(lambda ax: learning_curve(self.history, ax)), rows)

    def __repr__(self) -> str:
        ended = ", interrupted" if self.interrupted else ""
        lines = [f"{type(self.substrate).__name__}: {self.epochs} epochs in {self.seconds:.1f} s{ended}"]
        shown = [("cost", 1, "")] + [(name, 100, " %") for name in ("error", "estimated_error", "validation_error")]
        for name, scale, unit in shown:
            values = self.history.get(name, np.zeros(0))
            if len(values):
                label = name.replace("_", " ")
                lines.append(f"  {label:<17} {scale * values[0]:.4g}{unit} -> {scale * values[-1]:.4g}{unit}")
        if len(self.history.get("residual", [])):
            total = int(np.sum(self.history["unconverged"]))
            lines.append(f"  {'equilibria':<17} {total} unconverged, residual {np.max(self.history['residual']):.1e}")
        for name in ("train", "validation", "test"):
            if getattr(self, name) is not None:
                lines.append(f"  {name:<17} {getattr(self, name)}")
        return "\n".join(lines + ([f"  in {self.folder}"] if self.folder else []))


class TrainingError(ConvergenceError):
    """Training met a batch that it must not learn from; `run` holds what was learned before it."""

    run: Run


def fit(
    substrate: Any,
    rule: Estimator | Mover,
    data: tuple[Any, Any] | Data,
    *,
    optimiser: optax.GradientTransformation | None = None,
    epochs: int,
    key: PRNGKeyArray,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    validation: tuple[Any, Any] | None = None,
    test: tuple[Any, Any] | None = None,
    strict: bool | None = None,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool = True,
    observe: Callable[[Any], Mapping[str, float]] | None = None,
    checkpoint_every: float = 10.0,
    config: dict[str, Any] | None = None,
    summary: dict[str, Any] | None = None,
) -> Run:
    """Trains a system by a rule.

    One step: the rule estimates the gradient on a batch, the optimiser turns it into updates of the trainable
    parameters, and `constrained()` makes the system physical again; a mover does all of that itself. Every epoch
    visits all examples in a new order drawn from the key; the last batch is filled up with the first examples of the
    same order, so that every batch is full and none is left out.

    Args:
        substrate: the system to train; a `Substrate` is not changed, a `PhysicalSystem` is the one that learns.
        rule: an estimator, which needs an optimiser, or a mover, which must not have one.
        data: (X, Y) with a leading axis of n examples. Y is either integer labels of shape (n,), encoded one-hot to
            the outputs, or names of shape (n,), whose classes in alphabetical order are the outputs, or real targets
            of shape (n, outputs). Or a `Data` of `load_data`, which brings its own validation and test examples.
        optimiser: an optax transformation of the trainable parameters (a tree like the substrate).
        epochs: how many times every example is visited, those of a resumed run included.
        key: all randomness: the order of the examples and what the substrate and the rule draw.
        batch_size: examples per step, by default 32 or all if there are fewer, rounded up to a multiple of the
            devices, and of a resumed run those of its start; of a physical system as many as it has copies, or one.
        mesh: devices that share the examples of every batch, `jax.make_mesh((4,), ("examples",))` say; batches must
            be multiples of their number. Each device loops over its own examples until they have settled; what is
            summed over a batch is summed over all devices, and the parameters are on every device. Along a second axis,
            `jax.make_mesh((2, 2), ("examples", "columns"))`, devices have the same examples and share the columns of
            large trained matrices, and of what the optimiser keeps of their shape (`column_spec`); rules that move
            parameters themselves, and systems that compute on the host while they settle, cannot. The numbers are those
            of one device but for rounding: the order of the examples and what is drawn for each do not depend on how
            many devices there are, and a run may be resumed on others. After `jax.distributed.initialize()` a mesh of
            all `jax.devices()` trains in all processes together: each makes the same call, reads its own part of every
            batch and returns the run; process 0 alone writes `out`, which all must see to resume.
        validation: examples evaluated after every epoch.
        test: examples evaluated once, at the very end.
        strict: raise TrainingError at the first batch with an unusable equilibrium, rather than count it in the
            history and learn from it all the same; by default what the rule says. A mover sees to it itself.
        out: a folder that the run is saved in (see `RunFolder`; `load_run` opens it again), or None.
        resume: go on from the checkpoint in `out`, given the same arguments as at the start; bit for bit what an
            uninterrupted run would have given. More epochs may be asked for. Without a checkpoint the run starts.
        progress: show a bar with cost, error, residual and unconverged equilibria.
        observe: called with the system after every epoch, in every process; what it returns stands in the history by
            its names.
        checkpoint_every: seconds between checkpoints, written between compiled chunks of about half a second.
        config: what else to record in config.json; a resumed run must agree with it.
        summary: what else to record in summary.json.

    Ctrl-C ends training at the next chunk, and what is done is kept and returned; a second Ctrl-C ends it at once.

    Raises:
        TrainingError: a strict run met an equilibrium that did not converge, or the cost is no longer finite. Its
            `run` holds the system as it was before that batch.
        RunFolderError, CheckpointError: the folder or its checkpoint is of no use, said before training begins.
        ProcessError: several processes were not given the same, or another one has stopped.
        TypeError, ValueError: an argument makes no sense.
    """
    began = time.monotonic()
    _check_arguments(substrate, rule, optimiser, epochs, key, batch_size, out, resume or config or summary)
    cost = getattr(rule, "cost", None)
    given, classes = _parts(data, validation, test)
    examples = prepare(substrate, given.train, cost=cost)
    validated = None if given.validation is None else prepare(substrate, given.validation, "validation", cost)
    tested = None if given.test is None else prepare(substrate, given.test, "test", cost)
    classes = _classes(classes, examples)
    if batch_size is not None and batch_size > examples.size:
        raise ValueError(f"batch_size: wanted at most the {examples.size} examples there are, got {batch_size}")
    on_bench = not isinstance(substrate, Substrate)
    devices = Devices(mesh)
    recorded = (read_config(Path(out)) or {}) if resume and out is not None else {}
    usual = (substrate.spec.copies or 1) if on_bench else devices.rounded(min(32, examples.size), examples.size)
    size = recorded.get("batch_size", usual) if batch_size is None else batch_size
    devices.check_batch(size)
    if mesh is not None and on_bench and not isinstance(substrate, Simulation):
        raise ValueError(f"mesh: {type(substrate).__name__} is no simulation, which devices could share; leave it out")
    devices.check_columns(substrate, rule)
    strict = bool(getattr(rule, "strict", True)) if strict is None else strict
    homeostat = getattr(rule, "homeostat", None) if on_bench else None
    run = Run(substrate, {}, 0, 0.0, np.zeros(0), classes=classes, homeostat=homeostat, given=given)
    run.folder = None if out is None else Path(out)
    facts = {}
    if out is not None or devices.several:
        facts = {
            "groundstate": version(),
            "class": name_of(type(substrate)),
            "substrate": describe_tree(substrate),
            "initial_arrays": digest(substrate.read().parameters if on_bench else substrate),
            "rule": eqx.tree_pformat(rule, short_arrays=False),
            OPTIMISER: None
            if optimiser is None
            else {"optax": optax.__version__, "made of": describe_functions(optimiser)},
            "data": [digest((part.x, part.y)) for part in (examples, validated, tested) if part is not None],
            "examples": examples.size,
            "batch_size": size,
            "epochs": epochs,
            "key": np.asarray(raw(key)).tolist(),
            "strict": strict,
            **(config or {}),
        }
        devices.check_same(**facts)
    opened = lambda: None if out is None or not devices.leads else RunFolder(out, facts, resume=resume)
    folder = devices.together(opened)
    with folder or contextlib.nullcontext():
        trainer = (BenchTrainer if on_bench else Trainer)(
            substrate, rule, optimiser, examples, size, key, strict, devices
        )
        session = _Session(
            trainer, validated, tested, folder, epochs, checkpoint_every, began, summary or {}, run, observe
        )
        if resume and run.folder is not None:
            devices.together(session.restore)
            devices.check_same(resume=f"epoch {session.epoch + 1}, batch {session.batch + 1}")
        return session.run(progress and devices.leads)


@dataclass
class _Session:
    """One call of `fit`: where training stands, and what is reported and saved of it."""

    trainer: Epochs
    validation: Examples | None
    test: Examples | None
    folder: RunFolder | None
    epochs: int
    checkpoint_every: float
    began: float
    noted: dict[str, Any]
    outset: Run
    observe: Callable[[Any], Mapping[str, float]] | None = None
    epoch: int = 0
    batch: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)
    partial_seconds: float = 0.0
    seconds_before: float = 0.0

    def __post_init__(self):
        self.moving = _copy(self.trainer.initial)
        self.saved = time.monotonic()

    def restore(self) -> None:
        """Goes on from the checkpoint, if there is one; every process reads it."""
        path = self.outset.folder
        if path is None or not (path / CHECKPOINT).exists():
            return
        saved, facts = load_checkpoint(path / CHECKPOINT, self.moving)
        self.moving = self.trainer.restore(saved)
        self.epoch, self.batch, self.rows = facts["epoch"], facts["batch"], facts["rows"]
        self.epoch_seconds, self.partial_seconds, self.seconds_before = read_times(path, self.epoch)
        if self.epoch + (self.batch > 0) > self.epochs:
            raise ValueError(
                f"epochs: {path} has already done {self.epoch} epochs and {self.batch} batches; ask for "
                f"at least {self.epoch + (self.batch > 0)}, got {self.epochs}"
            )

    def save(self) -> None:
        moving = self.trainer.devices.gathered(self.moving)  # for which the process that writes needs the others
        if self.folder is None:
            return
        facts = {"epoch": self.epoch, "batch": self.batch, "rows": self.rows}
        times = {
            "epoch_seconds": self.epoch_seconds,
            "partial_seconds": self.partial_seconds,
            "seconds": self.seconds,
        }
        self.folder.save(moving, facts, times)
        self.saved = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.began

    def run(self, progress: bool) -> Run:
        if self.folder is not None:
            self.folder.begin([self._metrics(i) for i in range(len(self.rows))])
            self.folder.describe(_simulated(self.outset.substrate), self.outset.classes, self.outset.data)
        together = self.trainer.devices
        with _catch_interrupt() as interrupted, _bar(self, progress) as bar:
            chunk, ended = 1, lambda: together.any(interrupted.is_set())
            while self.epoch < self.epochs and not ended():
                order = self.trainer.order(self.epoch)
                while self.batch < self.trainer.batches and not ended():
                    chunk = together.least(self._advance_chunk(order, chunk, bar))
                    self._save_if_due()
                if self.batch == self.trainer.batches:
                    self._end_epoch(bar)
                    self._save_if_due()
            self.save()
            return self._finish(ended() and self.epoch < self.epochs)

    def _advance_chunk(self, order: tuple[Array, PRNGKeyArray], chunk: int, bar: Any) -> int:
        """Trains on at most `chunk` batches and returns how many to take next, for about `_CHUNK_SECONDS`."""
        start, stop = self.batch, min(self.batch + chunk, self.trainer.batches)
        before, began = _copy(self.moving), time.monotonic()
        try:
            reached, self.moving = self.trainer.advance(self.moving, order, start, stop)
        except RuntimeError as error:  # raised by a mover
            self.batch, before = self.trainer.last or (start, before)
            self.moving = before
            self._raise(
                f"epoch {self.epoch + 1}, batches {start + 1} to {stop}: {str(error).rstrip('.')}.", before, error
            )
        elapsed = time.monotonic() - began
        self.partial_seconds += elapsed
        if not bool(self.moving.tally.good(self.trainer.strict)):
            self._stop(before, reached)
        self.batch = reached
        bar.update(reached - start)
        bar.set_postfix(_rounded(self._row(reached)), refresh=False)
        return max(1, min(chunk * _GROWTH, int((reached - start) * _CHUNK_SECONDS / max(elapsed, 1e-9))))

    def _end_epoch(self, bar: Any) -> None:
        began = time.monotonic()
        row = self._row(self.batch)
        if self.epoch == 0 and row["cost"] != 0:
            self._warn_of_standstill(row["cost"])
        if self.validation is not None:
            found = self._evaluate(self.validation)
            row |= {"validation_cost": found.cost, "validation_unconverged": found.unconverged}
            if found.error is not None:
                row["validation_error"] = found.error
        if self.observe is not None:
            seen = {name: float(value) for name, value in self.observe(self.trainer.system(self.moving)).items()}
            if taken := sorted(seen.keys() & row.keys()):
                raise ValueError(f"observe: wanted names that the history has not, got {', '.join(taken)}")
            row |= seen
        self.rows.append(row)
        self.epoch_seconds.append(self.partial_seconds + time.monotonic() - began)
        self.epoch, self.batch, self.partial_seconds = self.epoch + 1, 0, 0.0
        self.moving = self.trainer.begin_epoch(self.moving)
        if self.folder is not None:
            self.folder.add_metrics(self._metrics(self.epoch - 1))
        bar.set_description(
            f"epoch {self.epoch + 1}/{self.epochs}" if self.epoch < self.epochs else "trained", refresh=False
        )
        bar.set_postfix(_rounded(row), refresh=False)

    def _warn_of_standstill(self, cost: float) -> None:
        """A nudge that moves no state by more than rounding gives a gradient of zeros, in states that are at rest."""
        gathered = self.trainer.devices.gathered
        ends = (jax.device_get(gathered(moving.parameters)) for moving in (self.trainer.initial, self.moving))
        if not eqx.tree_equal(*ends):
            return
        dtype = jnp.result_type(*jax.tree.leaves(self.moving.parameters))
        warnings.warn(
            f"epoch 1 has changed no parameter, though the cost is {cost:.3g}: the nudge may be too faint for what "
            f"{dtype.name} tells apart (choose a larger beta), all parameters may stand at their limits, or the "
            f"learning rate is 0; see {explained.STRENGTH}",
            stacklevel=2,
        )

    def _row(self, batches: int) -> dict[str, Any]:
        tally = jax.device_get(self.moving.tally)
        row: dict[str, Any] = {"cost": float(tally.cost) / batches}
        if self.trainer.examples.labelled:
            name = "estimated_error" if self.trainer.estimates else "error"
            row[name] = int(tally.wrong) / (batches * self.trainer.batch_size)
        row |= {"residual": float(tally.residual), "unconverged": int(tally.unconverged)}
        return row

    def _metrics(self, epoch: int) -> dict[str, Any]:
        return {"epoch": epoch + 1, **self.rows[epoch], "seconds": _known(self.epoch_seconds[epoch])}

    def _save_if_due(self) -> None:
        due = self.folder is not None and time.monotonic() - self.saved >= self.checkpoint_every
        together = self.trainer.devices
        if due if together.columns == 1 else together.any(due):
            self.save()

    def _stop(self, before: Any, reached: int) -> NoReturn:
        """Raises for the bad batch before `reached`, from which the compiled steps have learned nothing."""
        tally = jax.device_get(self.moving.tally)
        kinds = [
            f"{count} times: {Status[getattr(Status, name)]}"
            for name, count in zip(FAILURES, tally.failures, strict=True)
            if count
        ]
        advice = "Give the solver more steps, choose a smaller beta or learning rate" + (
            ", or count them and learn all the same with strict=False" if self.trainer.strict else ""
        )
        what = (
            f"equilibria are unusable ({' '.join(kinds)}), largest residual {float(tally.residual):.2e}. {advice}; see "
            f"{explained.NOT_AT_REST}"
            if kinds
            else f"the cost is {float(tally.cost)}. Choose a smaller learning rate or beta"
        )
        system = self.trainer.system(self.moving)
        undecided = system.undecided() if kinds and isinstance(system, Substrate) else ""
        where = f"epoch {self.epoch + 1}, batch {reached} of {self.trainer.batches}"
        self._raise(f"{where}: {what}. {undecided}{'.' if undecided else ''}".strip(), before)

    def _raise(self, what: str, before: Any, cause: Exception | None = None) -> NoReturn:
        """Raises with the system as it was before the bad batch, or before the chunk if it is no longer finite."""
        leaves = filter(eqx.is_inexact_array, jax.tree.leaves(self.moving.parameters))
        if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves):
            self.moving = before
        where = "" if self.outset.folder is None else f", and {self.outset.folder} holds a checkpoint"
        error = TrainingError(f"{what} The system as it was before is kept in the error's `run`{where}")
        error.run = self._result(interrupted=False)
        self.moving = before
        self.save()
        raise error from cause

    def _evaluate(self, examples: Examples) -> Evaluation:
        return self.trainer.evaluate(self.moving, examples, jax.random.fold_in(self.trainer.key, _EVALUATION))

    def _result(self, interrupted: bool) -> Run:
        return replace(
            self.outset,
            substrate=_copy(self.trainer.system(self.moving)),
            history=as_history(self.rows),
            epochs=self.epoch,
            seconds=self.seconds,
            epoch_seconds=np.asarray(self.epoch_seconds),
            interrupted=interrupted,
        )

    def _finish(self, interrupted: bool) -> Run:
        run = self._result(interrupted)
        parts = {"validation": self.validation, "test": self.test}
        if self.outset.folder is not None:
            parts["train"] = self.trainer.examples
        for name, examples in parts.items():
            if examples is not None:
                setattr(run, name, self._evaluate(examples))
        self.trainer.devices.together(lambda: self._conclude(run))  # none leaves before the folder is written
        return run

    def _conclude(self, run: Run) -> None:
        if self.folder is not None:
            self.folder.draw(run.history)
        run.seconds = round(self.seconds, 3)
        if self.folder is not None:
            self.folder.write_summary(self._summary(run))

    def _summary(self, run: Run) -> dict[str, Any]:
        assert self.folder is not None
        evaluations = {name: getattr(run, name) for name in ("test", "validation", "train")}
        return {
            **{f"{name}_accuracy": found and found.accuracy for name, found in evaluations.items()},
            **{f"{name}_cost": found and found.cost for name, found in evaluations.items()},
            "unconverged": int(sum(row.get("unconverged", 0) for row in self.rows)),
            **self.noted,
            "seconds": run.seconds,
            "epochs": run.epochs,
            "interrupted": run.interrupted,
            **surroundings(),
        }


def as_history(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """What the epochs came to, an array for each quantity."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.asarray([row[name] for row in rows]) for name in names}


def _parts(data: Any, validation: Any, test: Any) -> tuple[Data | Split, tuple[Any, ...] | None]:
    """The examples in their parts, labels as numbers, and the classes as far as the data name them."""
    if isinstance(data, Data):
        if validation is not None or test is not None:
            raise ValueError(f"validation, test: the data set {data.name} brings its own; leave them out")
        return data, data.classes
    return number_names(Split(data, validation, test))


def _classes(named: tuple[Any, ...] | None, examples: Examples) -> tuple[Any, ...] | None:
    """What each output stands for."""
    if not examples.labelled:
        return None
    outputs = examples.y.shape[1]
    if named is not None and len(named) != outputs:
        raise ValueError(f"data: {len(named)} classes want as many outputs, and the system has {outputs}")
    return tuple(range(outputs)) if named is None else named


def _simulated(system: Any) -> Any:
    """The substrate that a file can describe: the system, or the one whose parameters a physical system shows."""
    if isinstance(system, Substrate):
        return system
    if isinstance(system, Simulation):
        parameters = ravel_pytree(split_parameters(system.substrate)[0])[0]
        if np.array_equal(parameters, system.read().parameters):
            return system.substrate
    return None


def _check_arguments(substrate, rule, optimiser, epochs, key, batch_size, out, about_folder) -> None:
    if not isinstance(rule, Estimator | Mover):
        raise TypeError(f"rule: wanted an Estimator or a Mover, got {type(rule).__name__}")
    if not isinstance(substrate, Substrate | PhysicalSystem):
        raise TypeError(f"substrate: wanted a Substrate or a PhysicalSystem, got {type(substrate).__name__}")
    name = type(rule).__name__
    on_bench = not isinstance(substrate, Substrate)
    if on_bench and isinstance(rule, Estimator):
        raise TypeError(
            f"rule: {name} estimates gradients of a Substrate, but {type(substrate).__name__} has five verbs only; use "
            "AgnosticEP, or KnobDescent with a rule of order zero"
        )
    if isinstance(rule, Mover) and rule.on_bench and not on_bench:
        raise TypeError(
            f"substrate: {name} trains a PhysicalSystem, got {type(substrate).__name__}; put it on the bench with "
            "Plant(substrate, epsilon)"
        )
    if isinstance(rule, Mover) and optimiser is not None:
        raise ValueError(f"optimiser: {name} moves the parameters itself and would ignore it; leave it out")
    if isinstance(rule, Estimator) and optimiser is None:
        raise ValueError(f"optimiser: {name} estimates gradients and needs one; give optimiser=optax.sgd(0.1), say")
    if optimiser is not None and not isinstance(optimiser, optax.GradientTransformation):
        raise TypeError(f"optimiser: wanted an optax transformation, got {optimiser!r}; give optax.sgd(0.1), say")
    check_key("key", key)
    if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer) or epochs < 0:
        raise ValueError(f"epochs: wanted a whole number, at least 0, got {epochs!r}")
    if batch_size is not None and (not isinstance(batch_size, int | np.integer) or batch_size < 1):
        raise ValueError(f"batch_size: wanted a whole number, at least 1, got {batch_size!r}")
    if out is None and about_folder:
        raise ValueError("resume, config, summary: they are about the folder of the run; give out=")


def _known(seconds: float) -> float | None:
    return round(seconds, 4) if np.isfinite(seconds) else None


def _copy(tree: Any) -> Any:
    """A tree whose arrays are new; those of numpy, which systems on the bench show, stay what they are."""
    copied = lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else jnp.array(leaf, leaf.dtype, copy=True)
    return jax.tree.map(lambda leaf: copied(leaf) if eqx.is_array(leaf) else leaf, tree)


def _rounded(row: dict[str, Any]) -> dict[str, str]:
    percent = lambda name, value: f"{100 * value:.2f}%" if name.endswith("error") else f"{value:.3g}"
    return {name.replace("validation_", "val_"): percent(name, value) for name, value in row.items()}


@contextlib.contextmanager
def _catch_interrupt() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, once; the next Ctrl-C interrupts as ever. Only the main thread can catch signals."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.getsignal(signal.SIGINT)

    def note(*_: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)


def _bar(session: _Session, progress: bool) -> Any:
    batches = session.trainer.batches
    return tqdm(
        total=session.epochs * batches,
        initial=session.epoch * batches + session.batch,
        desc=f"epoch {session.epoch + 1}/{session.epochs}",
        unit="batch",
        disable=not progress,
    )
