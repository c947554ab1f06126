"""Comparisons of learning rules: the same starts, the same examples, the same budget of physical relaxations."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray

from learning import catalogue
from learning.checkpoint import digest, remove_unfinished, require_writable, write_atomically, write_json
from learning.data import Data, load_data
from learning.evaluation import default_batch, evaluate_examples
from learning.examples import Examples, prepare
from learning.lock import FolderLock
from learning.options import UsageError, in_words, on_bench, options_of, rule_and_options, rule_of, settings_of
from learning.pictures import compared
from learning.reference import ImplicitGradient
from learning.rounding import in_64_bits
from learning.rule import ConvergenceError, Estimator, Mover
from learning.run_folder import RunFolderError, surroundings, version
from learning.steps import BenchTrainer, Epochs, Trainer, lenient
from substrates.laboratory.imperfect import QuantisedKnobs, ReadNoise
from substrates.laboratory.plant import Plant
from substrates.session import filling_workers, keep_compiled, whole_products
from substrates.substrate import Substrate, split_parameters

CONFIG, RUNS, TABLE, SUMMARY, FIGURE = "comparison.json", "runs", "table.md", "table.json", "comparison.png"

_IDEAL = "ideal"
_PROBE = 16
"""So many training examples the gradients are compared on."""


@dataclass(frozen=True)
class ComparisonSettings:
    """What every run of a comparison has in common.

    Attributes:
        substrate: a name of the command's list, or path/to/file.py:ClassName.
        data: a name of `load_data`.
        sizes: hidden sizes; None for the substrate's own.
        budget: physical relaxations of single examples that a training may take.
        batch_size: examples per step.
        optimiser: a name of the command's list; rules on the bench need none.
        learning_rates: of which each run keeps the one that does best on validation examples. A rule on the bench moves
            parameters by its epsilon, in the same ratios, as they are to the middle one.
        checkpoints: how often, after the start, accuracy and gradients are looked at.
        beta: how strongly rules nudge that are not told otherwise; None for the substrate's own strength. Rules on the
            bench have their own.
        annealed: whether learning rates fall to zero along half a cosine, those of rules on the bench excepted.
    """

    substrate: str = "hopfield"
    data: str = "digits"
    sizes: tuple[int, ...] | None = (16,)
    budget: int = 24_000
    batch_size: int = 8
    optimiser: str = "adam"
    learning_rates: tuple[float, ...] = (0.001, 0.004, 0.016)
    checkpoints: int = 4
    beta: float | None = 0.1
    annealed: bool = False

    def __post_init__(self):
        for name in ("budget", "batch_size", "checkpoints"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: wanted a positive whole number, got {value!r}")
        if not self.learning_rates or not all(0 < rate < np.inf for rate in self.learning_rates):
            raise ValueError(f"learning_rates: wanted positive numbers, at least one, got {self.learning_rates}")
        if self.beta is not None and not 0 < self.beta < np.inf:
            raise ValueError(f"beta: wanted a positive number or None, got {self.beta!r}")
        if self.optimiser not in catalogue.OPTIMISERS:
            raise ValueError(f"optimiser: wanted one of {', '.join(catalogue.OPTIMISERS)}, got {self.optimiser!r}")


class Condition(NamedTuple):
    """What is not ideal: at most one of the three."""

    read_noise: float = 0.0
    knob_bits: int | None = None
    twin_mismatch: float | None = None

    def __str__(self) -> str:
        different = [
            f"{name.replace('_', ' ')} {value:g}"
            for (name, value), usual in zip(self._asdict().items(), Condition(), strict=True)
            if value != usual
        ]
        return different[0] if different else _IDEAL


class Task(NamedTuple):
    """One run: a rule, a seed, and what is not ideal."""

    settings: ComparisonSettings
    rule: str
    condition: Condition
    seed: int

    @property
    def file(self) -> str:
        """The name of its file."""
        words = (str(self.condition), self.rule.rpartition("/")[2], f"seed {self.seed}")
        return "--".join(re.sub(r"[^\w.]+", "-", word) for word in words) + ".json"


@dataclass(frozen=True)
class Comparison:
    """What came of a comparison.

    Attributes:
        rows: for each condition and rule: the test accuracy (mean, and standard deviation over seeds, NaN for one),
            the cosine with the exact gradient at the checkpoints, what one step and all of them took.
        refused: for each condition and rule that cannot be trained, why.
        folder: where table.md, table.json, comparison.png and the runs are.
        done: how many runs were done now; the others were there already.
    """

    rows: list[dict[str, Any]]
    refused: list[dict[str, str]]
    folder: Path
    done: int

    def __str__(self) -> str:
        return _table(self.rows, self.refused)


def compare(
    rules: Sequence[str] | None = None,
    settings: ComparisonSettings | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    read_noise: Sequence[float] = (),
    knob_bits: Sequence[int] = (),
    twin_mismatch: Sequence[float] = (),
    jobs: int = 1,
    out: str | os.PathLike,
) -> Comparison:
    """Trains one kind of substrate by each of several rules and compares what they reach with equal means.

    Of a seed all rules get the same initial substrate, the same examples in the same order, and as many steps as the
    budget of physical relaxations pays for: a rule that takes 2 for an example makes more steps than one that takes 3.
    Every run trains once with each learning rate, keeps the one that is best on the validation examples, and is judged
    on the test examples once. Equilibria that did not converge are learned from all the same, and counted.

    At checkpoints the gradient of the rule on the same sixteen training examples is held against that of
    `ImplicitGradient` on the same substrate in 64 bits: cosine = <g, exact> / (|g| |exact|).

    Runs go through joblib. `with joblib.parallel_config(backend="dask")` around the call takes them to a cluster; by
    itself it starts processes on this machine. A finished run is one file, written atomically, and is not repeated when
    the same call comes again, unless the file is damaged.

    Args:
        rules: names of the command's list, each alone or with options, as in "coupled,variant=positive"; None for all
            by their names alone. Those that cannot train the substrate are listed with the reason that they give.
        settings: what all runs have in common; a folder holds runs of one such.
        seeds: each draws a start, the validation examples and the order of the rest.
        read_noise: further sets of runs, with errors of this size in what meters show of the state (`ReadNoise`).
        knob_bits: further sets of runs, with parameters on 2^bits levels after each step (`QuantisedKnobs`).
        twin_mismatch: further sets of runs of the rules that have a twin, known so badly (`Mismatch`).
        jobs: how many runs go on at once.
        out: the folder of the comparison; made if need be.

    Raises:
        CatalogueError: a name leads to nothing.
        UsageError: a rule has no such option, or refuses its value.
        DataError: the data cannot be had.
        RunFolderError: the folder holds other files, or a comparison with other settings.
        ValueError: an argument makes no sense.
    """
    settings = ComparisonSettings() if settings is None else settings
    names = list(catalogue.names(catalogue.RULES)) if rules is None else list(dict.fromkeys(map(in_words, rules)))
    options = {name: options_of(rule_and_options(name)[0]) for name in names}
    if not names or not seeds:
        raise ValueError(f"rules, seeds: wanted at least one of each, got {names} and {list(seeds)}")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise ValueError(f"seeds: wanted whole numbers from 0 to {2**32 - 1}, got {seed!r}")
    conditions = [
        Condition(),
        *(Condition(read_noise=size) for size in read_noise),
        *(Condition(knob_bits=bits) for bits in knob_bits),
        *(Condition(twin_mismatch=size) for size in twin_mismatch),
    ]
    tasks = [
        Task(settings, name, condition, seed)
        for condition in dict.fromkeys(conditions)
        for name in names
        if condition.twin_mismatch is None or "twin" in options[name]
        for seed in dict.fromkeys(seeds)
    ]
    _refuse_senseless(names, settings, seeds[0])
    folder = Path(out)
    lock = _claim(folder, settings)
    try:
        missing = [task for task in tasks if _done(folder / RUNS / task.file) is None]
        _run_all(missing, folder / RUNS, jobs, len(dict.fromkeys(seeds)))
        runs = [(task, _read(folder / RUNS / task.file)) for task in tasks]
        rows, refused = _summarise(runs)
        found = Comparison(rows, refused, folder, len(missing))
        write_json(folder / SUMMARY, {"rows": rows, "refused": refused, **surroundings()})
        write_atomically(folder / TABLE, lambda file: file.write(f"{found}\n".encode()))
        _draw(runs, folder / FIGURE)
        return found
    finally:
        lock.release()


def _refuse_senseless(names: Sequence[str], settings: ComparisonSettings, seed: int) -> None:
    """Raises ValueError for what no rule could be compared on, and for an option whose value its rule refuses."""
    with _precision(settings, bench=False):
        data = _data(settings.data, seed)
        start = _start(settings, data, jax.random.key(seed))
        for name in names:
            asked = rule_and_options(name)[1]
            try:
                _ruled(start, settings, name, Condition())
            except UsageError as error:
                refused = str(error).partition(":")[0].lstrip("-").replace("-", "_")
                if refused in asked:
                    raise UsageError(f"{name}: {error}") from error


def _claim(folder: Path, settings: ComparisonSettings) -> FolderLock:
    """The lock of a folder that may hold runs of these settings, which it then says."""
    try:
        require_writable(folder / RUNS)
    except OSError as error:
        raise RunFolderError(f"out: cannot write in {folder} ({error}); name another folder") from error
    held = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name != RUNS]
    if held and CONFIG not in held:
        raise RunFolderError(f"out: {folder} holds files that are no comparison ({held[0]}); name another folder")
    lock = FolderLock(folder)
    try:
        wanted = {"groundstate": version(), **asdict(settings)}
        wanted = {name: list(value) if isinstance(value, tuple) else value for name, value in wanted.items()}
        file = catalogue.file_of(settings.substrate)
        if file is not None:  # a system of the user's own, whose runs are those of this text
            wanted["source"] = catalogue.text_of(file)
        if CONFIG in held:
            there = _read(folder / CONFIG)
            for name, value in wanted.items():
                if there.get(name) != value:
                    raise RunFolderError(
                        f"out: {folder} holds a comparison with {name} {there.get(name)}, got {value}; give what it "
                        "was started with, or name another folder"
                    )
        remove_unfinished(folder / RUNS)
        write_json(folder / CONFIG, wanted)
    except BaseException:
        lock.release()
        raise
    return lock


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}); remove this file and call again") from error


def _done(path: Path) -> dict[str, Any] | None:
    """The run that a file holds, None where it must be done: where there is no file, or a damaged one."""
    try:
        run = _read(path)
    except RunFolderError:
        return None
    return run if isinstance(run, dict) and (run.keys() >= {"refused"} or run.keys() >= _OF_A_RUN) else None


def _run_all(tasks: list[Task], folder: Path, jobs: int, together: int) -> None:
    """All runs, those of one rule in one process as long as others are busy too: it compiles its programs once."""
    import joblib

    size = together if len(tasks) >= jobs * together else 1
    run = joblib.delayed(_write)
    most: Any = size  # joblib is typed for "auto" alone
    with filling_workers():
        joblib.Parallel(n_jobs=jobs, batch_size=most, pre_dispatch="all")(run(task, folder) for task in tasks)


def _write(task: Task, folder: Path) -> None:
    keep_compiled()
    whole_products()
    write_json(folder / task.file, _run(task))


def _run(task: Task) -> dict[str, Any]:
    """What a run came to; where its rule cannot train the substrate, why."""
    bench = on_bench(rule_and_options(task.rule)[0])
    with _precision(task.settings, bench):
        try:
            subject = _Subject(task)
        except (ValueError, TypeError, NotImplementedError) as error:
            return {**_shown(task), "refused": " ".join(str(error).split())}
        return _trained(subject)


def _precision(settings: ComparisonSettings, bench: bool) -> Any:
    """The precision that rules run in, on the bench or not."""
    kind = catalogue.find(catalogue.SUBSTRATES, settings.substrate)
    return jax.enable_x64(bench or getattr(kind, "training_precision", 32) == 64)


def _start(settings: ComparisonSettings, data: Data, key: PRNGKeyArray) -> Substrate:
    """The substrate that all rules begin with."""
    kind = catalogue.find(catalogue.SUBSTRATES, settings.substrate)
    return catalogue.build(kind, data.n_inputs, data.n_outputs, sizes=settings.sizes, key=key)


def _ruled(start: Substrate, settings: ComparisonSettings, words: str, condition: Condition) -> tuple[Any, Any]:
    """A rule, and what the start is trained with by it."""
    rule_class, asked = rule_and_options(words)
    if condition.twin_mismatch is not None:
        asked = {"twin": condition.twin_mismatch, **asked}
    if not on_bench(rule_class):
        strengths = [name for name in options_of(rule_class) if "beta" in (name, rule_class.usual.get(name))]
        asked = dict.fromkeys(strengths, settings.beta) | asked
    ruled, trained = settings_of(start, rule_class, asked)
    return lenient(rule_of(rule_class, ruled)), trained


def _shown(task: Task) -> dict[str, Any]:
    return {"rule": task.rule, "condition": str(task.condition), "seed": task.seed}


@functools.lru_cache(maxsize=4)
def _data(name: str, seed: int) -> Data:
    return load_data(name, seed=seed)


@functools.lru_cache(maxsize=4)
def _optimiser(name: str, annealed_over: int | None) -> optax.GradientTransformation:
    """An optimiser whose learning rate is a number of its state, so that all of them are one program."""
    course: Any = 1.0
    if annealed_over is not None:  # optax's own schedule mixes dtypes
        course = lambda step: (1 + jnp.cos(jnp.pi * jnp.asarray(step, jnp.float32) / annealed_over)) / 2
    return optax.chain(catalogue.OPTIMISERS[name](course), optax.inject_hyperparams(optax.scale)(step_size=1.0))


class _Subject:
    """What a task trains: the substrate, its rule and its examples."""

    def __init__(self, task: Task):
        self.task, settings = task, task.settings
        self.bench = on_bench(rule_and_options(task.rule)[0])
        self.data = _data(settings.data, task.seed)
        build_key, self.key = jax.random.split(jax.random.key(task.seed))
        self.start = _start(settings, self.data, build_key)
        self.rule, self.trained = _ruled(self.start, settings, task.rule, task.condition)
        prepared = lambda part, name: prepare(self.start, part, name, self.rule.cost)
        self.examples = prepared(self.data.train, "data")
        self.validation, self.test = (
            prepared(part, name) for part, name in ((self.data.validation, "validation"), (self.data.test, "test"))
        )
        self.probe = jax.tree.map(lambda leaf: leaf[:_PROBE], (self.examples.x, self.examples.y))
        self.relaxations = self._count()
        self.steps = settings.budget // (settings.batch_size * self.relaxations)
        if self.steps < 1:
            raise ValueError(
                f"one step takes {settings.batch_size * self.relaxations:,} relaxations, and the budget is "
                f"{settings.budget:,}"
            )

    def _count(self) -> int:
        """How many relaxations an example takes: what an estimate counts, found by its shapes alone."""
        if not isinstance(self.rule, Mover):
            estimate = lambda system, x, y: self.rule(system, x, y, key=self.key)
            x, y = jax.tree.map(jnp.asarray, self.probe)
            return eqx.filter_eval_shape(estimate, self.imperfect(self.start), x, y).relaxations
        if self.task.condition != Condition():
            raise ValueError(f"{type(self.rule).__name__} is compared in the ideal case only")
        if not self.bench:
            raise ValueError(
                f"{type(self.rule).__name__} moves parameters at learning rates of its own, without an optimiser, "
                "and is not compared"
            )
        if self.rule.relaxations is None:
            raise ValueError(f"{type(self.rule).__name__} does not say how many relaxations it takes")
        self._plant(self.start, self.trained["epsilon"], self.task.settings.batch_size)  # raises where there is none
        return self.rule.relaxations

    def imperfect(self, substrate: Substrate) -> Substrate:
        """A substrate with what is not ideal about it."""
        condition = self.task.condition
        if condition.read_noise:
            return ReadNoise(substrate, condition.read_noise)
        if condition.knob_bits is not None:
            return QuantisedKnobs.around(substrate, condition.knob_bits).constrained()
        return substrate

    def trainer(self, rate: float) -> tuple[Epochs, Any]:
        """What trains with a learning rate, and what moves."""
        settings, size = self.task.settings, self.task.settings.batch_size
        if self.bench:
            middle = settings.learning_rates[len(settings.learning_rates) // 2]
            epsilon = jax.tree.map(lambda each: each * rate / middle, self.trained["epsilon"])
            plant = self._plant(self.start, epsilon, size)
            trainer = BenchTrainer(plant, self.rule, None, self.examples, size, self.key, False)
            return trainer, trainer.initial
        chosen = _optimiser(settings.optimiser, self.steps if settings.annealed else None)
        trainer = Trainer(self.imperfect(self.start), self.rule, chosen, self.examples, size, self.key, False)
        state, scale = trainer.initial.optimiser
        scale = scale._replace(hyperparams=jax.tree.map(lambda one: rate * one, scale.hyperparams))
        return trainer, trainer.initial._replace(optimiser=(state, scale))

    def _plant(self, substrate: Substrate, epsilon: Any, copies: int) -> Plant:
        return Plant(
            substrate,
            epsilon,
            cost=self.rule.cost,
            copies=None if copies == 1 else copies,
            inputs=self.data.n_inputs,
        )

    def accuracy(self, substrate: Substrate, examples: Examples) -> float:
        """The part of examples that a substrate gets right, its outputs read without noise."""
        found = evaluate_examples(substrate, examples, self.rule.cost, default_batch(examples), key=self.key)
        assert found.accuracy is not None  # all sets of `load_data` have labels
        return found.accuracy

    def cosine(self, substrate: Substrate) -> float | None:
        """Of the rule's gradient with the exact one; None where there is no exact one, or one of them vanishes."""
        with jax.enable_x64(True):
            try:
                reference = ImplicitGradient(self.rule.cost, strict=False)
                exact = _vector(_exact(reference, *in_64_bits((substrate, self.probe))))
            except (TypeError, ValueError):
                return None
        x, y = jax.tree.map(jnp.asarray, self.probe)
        if self.bench:
            plant = self._plant(substrate, 1e-4, len(y))
            before = np.array(plant.read().parameters)
            self.rule.step(plant, x, y, key=self.key)
            found = before - plant.read().parameters
        else:
            found = _vector(self.rule(self.imperfect(substrate), x, y, key=self.key).gradient)
        size = float(np.linalg.norm(found) * np.linalg.norm(exact))
        return float(found @ exact) / size if np.isfinite(size) and size > 0 else None


def _vector(tree: Any) -> np.ndarray:
    return np.asarray(ravel_pytree(split_parameters(tree)[0])[0], dtype=float)


@eqx.filter_jit
def _exact(rule: Estimator, substrate: Substrate, probe: tuple[Array, Array]) -> Any:
    return rule(substrate, *probe).gradient


def _trained(subject: _Subject) -> dict[str, Any]:
    """The run with the learning rate that is best on validation examples."""
    task, best = subject.task, None
    for rate in task.settings.learning_rates:
        snapshots, unconverged = _train(subject, rate)
        if snapshots is None:
            continue
        accuracies = [subject.accuracy(substrate, subject.validation) for _, substrate in snapshots]
        if best is None or accuracies[-1] > best[0]:
            best = accuracies[-1], rate, snapshots, accuracies, unconverged
    if best is None:
        return {**_shown(task), "refused": "with every learning rate the cost ended in infinity or no number"}
    _, rate, snapshots, accuracies, unconverged = best
    each = subject.relaxations * task.settings.batch_size
    return {
        **_shown(task),
        "start": digest(subject.start),
        "learning_rate": rate,
        "relaxations_per_example": subject.relaxations,
        "steps": subject.steps,
        "relaxations": subject.steps * each,
        "unconverged": unconverged,
        "test_accuracy": subject.accuracy(snapshots[-1][1], subject.test),
        "at": [step * each for step, _ in snapshots],
        "validation_accuracy": accuracies,
        "cosine": [subject.cosine(substrate) for _, substrate in snapshots],
    }


def _train(subject: _Subject, rate: float) -> tuple[list[tuple[int, Substrate]] | None, int]:
    """The substrate after some of the steps, None where the cost is no longer finite; how many phases failed."""
    trainer, moving = subject.trainer(rate)
    stops = np.unique(np.linspace(0, subject.steps, subject.task.settings.checkpoints + 1).round().astype(int))
    snapshots, unconverged, done = [], 0, 0
    for stop in stops.tolist():
        while done < stop:
            epoch, at = divmod(done, trainer.batches)
            if at == 0:
                unconverged += int(moving.tally.unconverged)
                moving = trainer.begin_epoch(moving)
            until = min(trainer.batches, at + stop - done)
            try:
                reached, moving = trainer.advance(moving, trainer.order(epoch), at, until)
            except ConvergenceError:
                return None, unconverged
            if not bool(moving.tally.good(False)):
                return None, unconverged
            done += reached - at
        snapshots.append((stop, _bare(trainer.system(moving))))
        moving = _copied(moving)
    return snapshots, unconverged + int(moving.tally.unconverged)


def _copied(moving: Any) -> Any:
    """The same in other buffers, since those that go on are overwritten."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True) if isinstance(leaf, jax.Array) else leaf, moving)


def _bare(system: Any) -> Substrate:
    """The substrate itself, without what was put around it."""
    if isinstance(system, Plant):
        return system.substrate
    return system.inner if isinstance(system, ReadNoise | QuantisedKnobs) else system


def _summarise(runs: list[tuple[Task, dict[str, Any]]]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """What the seeds of each rule came to, and which were refused."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for task, run in runs:
        groups.setdefault((str(task.condition), task.rule), []).append(run)
    rows, refused = [], []
    for (condition, rule), found in groups.items():
        good = [run for run in found if "refused" not in run]
        if len(good) < len(found):
            reason = next(run["refused"] for run in found if "refused" in run)
            some = f"{len(found) - len(good)} of {len(found)} runs: " if good else ""
            refused.append({"condition": condition, "rule": rule, "reason": some + reason})
        if not good:
            continue
        accuracy = [run["test_accuracy"] for run in good]
        cosines = np.array([run["cosine"] for run in good], dtype=float)
        known = bool(np.isfinite(cosines).all())
        rows.append(
            {
                "condition": condition,
                "rule": rule,
                "runs": len(good),
                "test_accuracy": float(np.mean(accuracy)),
                "test_accuracy_deviation": float(np.std(accuracy, ddof=1)) if len(good) > 1 else None,
                "cosine_first": float(cosines[:, 0].mean()) if known else None,
                "cosine_mean": float(cosines.mean()) if known else None,
                "relaxations_per_example": good[0]["relaxations_per_example"],
                "steps": good[0]["steps"],
                "relaxations": good[0]["relaxations"],
                "unconverged": sum(run["unconverged"] for run in good),
                "learning_rates": [run["learning_rate"] for run in good],
            }
        )
    return sorted(rows, key=lambda row: (row["condition"] != _IDEAL, row["condition"], -row["test_accuracy"])), refused


def _table(rows: Sequence[Mapping[str, Any]], refused: Sequence[Mapping[str, str]]) -> str:
    """The rows as a table, and under it who was refused, in Markdown."""
    number = lambda value, form: "" if value is None else format(value, form)
    lines = [
        "| condition | rule | test accuracy, % | cosine at first | cosine, mean | relaxations per example | steps "
        "| relaxations |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = row["test_accuracy_deviation"]
        accuracy = f"{100 * row['test_accuracy']:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")
        cells = [row["condition"], row["rule"], accuracy, number(row["cosine_first"], ".3f")]
        cells += [number(row["cosine_mean"], ".3f"), *(f"{row[name]:,}" for name in _COUNTS)]
        lines.append("| " + " | ".join(cells) + " |")
    if refused:
        lines += ["", "Not trained:", ""]
        lines += [f"- {each['rule']} ({each['condition']}): {each['reason']}" for each in refused]
    return "\n".join(lines)


_COUNTS = ("relaxations_per_example", "steps", "relaxations")

_OF_A_RUN = frozenset(
    {*_COUNTS, "learning_rate", "unconverged", "test_accuracy", "at", "validation_accuracy", "cosine"}
)
"""What the file of a run that was not refused says."""


def _draw(runs: list[tuple[Task, dict[str, Any]]], path: Path) -> None:
    """Accuracy and cosine along training, a row of axes for each condition."""
    from matplotlib.figure import Figure

    groups: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for task, run in runs:
        if "refused" not in run:
            groups.setdefault(str(task.condition), {}).setdefault(task.rule, []).append(run)
    figure = Figure(figsize=(11.0, 0.8 + 3.6 * max(len(groups), 1)), layout="constrained")
    for axes, (condition, rules) in zip(
        figure.subplots(max(len(groups), 1), 2, squeeze=False), groups.items(), strict=False
    ):
        for ax, name, label in zip(axes, ("validation_accuracy", "cosine"), ("accuracy", "cosine"), strict=True):
            curves = {
                rule: (found[0]["at"], np.array([run[name] for run in found], dtype=float))
                for rule, found in rules.items()
            }
            compared(curves, ax, xlabel="relaxations", ylabel=f"{label} ({condition})")
        axes[1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))
