"""The command `groundstate`: trains a substrate on a data set, and lists what there is."""

from __future__ import annotations

import argparse
import contextlib
import math
import re
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from learning import catalogue, hosts, list_command, new_command, notebook_command, show_command
from learning.comparison import ComparisonSettings, compare
from learning.data import DATA_SETS, load_data
from learning.devices import Devices, ProcessError
from learning.list_command import count_parameters, first_line
from learning.options import (
    UsageError,
    by_parameter,
    count,
    not_negative,
    on_bench,
    options_of,
    positive,
    reader,
    rule_of,
    settings_of,
    who_has,
    whole,
)
from learning.rounding import check_bfloat16
from learning.rule import ConvergenceError, Estimator, Mover
from learning.run_folder import claim, read_config
from learning.training import Run, fit
from substrates.laboratory.plant import Plant
from substrates.mixed import in_bfloat16
from substrates.session import keep_compiled, whole_products

_EXAMPLES = """\
examples:
  groundstate train resistor
  groundstate train resistor --data mnist --sizes 1024 --epochs 50 --out runs/drn
  groundstate train resistor --out runs/drn --resume
  groundstate train my_system.py:MySystem --data iris --optimiser sgd --learning-rate 0.1
  groundstate train hopfield --out runs/two --distributed --coordinator node1:7777 --process 0/2
  groundstate train resistor --learning-rate "conductance[0]=0.006,conductance[1]=0.003,bias_current=0.006"

MNIST and Fashion-MNIST are read from $GROUNDSTATE_DATA/<name>/ or the cache, and else downloaded from OpenML.
What was compiled is kept in the cache too; GROUNDSTATE_CACHE names another folder, or "off".
"""


_seed = reader(whole, lambda value: 0 <= value < 2**32, f"a whole number from 0 to {2**32 - 1}")
_sizes = reader(
    lambda text: [int(size) for size in text.split(",")],
    lambda sizes: min(sizes) >= 1,
    "positive whole numbers such as 256 or 512,512",
)
_validation = reader(
    lambda text: int(text) if text.isdecimal() else float(text),
    lambda value: isinstance(value, int) or 0 < value < 1,
    "a fraction below 1 or a whole number of examples",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.

    Commands of other packages are functions in the entry-point group `groundstate.commands` that add a parser, with
    `run` among its defaults, to what `argparse` returns of `add_subparsers`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        rule = _rule_asked_for(words)
        options, strange = _parser(rule, words[:1]).parse_known_args(words)
        if strange:
            raise UsageError(_explain(strange[0], rule))
        with _plain_warnings():
            return options.run(options)
    except (ConvergenceError, ProcessError) as error:
        print(f"groundstate: training stopped. {error}", file=sys.stderr)
        return 1
    except Exception as error:
        place = catalogue.place_of(error)
        if not place and not isinstance(error, ValueError | TypeError | NotImplementedError):
            raise
        print(f"groundstate: error: {place}{f'{type(error).__name__}: ' * bool(place)}{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("groundstate: interrupted", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings are said once, in a line without the code that gives them; whoever catches them has them as ever."""
    said, usual = set(), warnings.formatwarning

    def line(message: Warning | str, *_: Any, **__: Any) -> str:
        text = f"groundstate: warning: {message}\n"
        new = text not in said
        said.add(text)
        return text * new

    warnings.formatwarning = line
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _rule_asked_for(words: list[str]) -> Any:
    """The class of the rule whose options the command line may have: that of --rule, or of the run that is resumed."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--rule")
    finder.add_argument("--out", type=Path)
    finder.add_argument("--resume", action="store_true")
    found = finder.parse_known_args(words)[0]
    name = found.rule
    if name is None and found.resume and found.out is not None:
        name = ((read_config(found.out) or {}).get("options") or {}).get("rule")
    return catalogue.find(catalogue.RULES, name or _RULE)


def _explain(word: str, rule: Any) -> str:
    """Why a word of the command line means nothing."""
    flag = word.partition("=")[0]
    others = who_has(flag.removeprefix("--").replace("-", "_")) if flag.startswith("--") else []
    if not others:
        return f"{word}: unrecognised; see --help"
    return f"{flag}: the rule {rule.__name__} has no use for it; leave it out, or take --rule {' or '.join(others)}"


def _parser(rule: Any, first: Sequence[str] = ()) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="groundstate",
        description="Trains physical systems that settle, by what an experimenter can do from outside.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    train = commands.add_parser(
        "train",
        help="train a substrate on a data set",
        description="Trains a substrate on a data set. The last printed line is the folder that the run is saved in.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    train.set_defaults(run=_train)
    of_substrate = "(default: the substrate's own)"
    train.add_argument("substrate", help="a name that `groundstate list` shows, or path/to/file.py:ClassName")
    what = train.add_argument_group("what is trained")
    what.add_argument("--data", metavar="NAME", help="the data set: " + ", ".join(DATA_SETS) + " (default: digits)")
    what.add_argument(
        "--sizes", type=_sizes, nargs="+", metavar="N", help=f"hidden sizes, such as 256 or 512,512 {of_substrate}"
    )
    what.add_argument(
        "--validation",
        type=_validation,
        metavar="PART",
        help="set aside from the training examples: a fraction below 1, or a number of examples (default: 0.1)",
    )
    how = train.add_argument_group("how it is trained")
    how.add_argument(
        "--rule",
        metavar="NAME",
        help=f"the learning rule; --rule NAME --help shows its own options (default: {_RULE})",
    )
    how.add_argument("--cost", choices=sorted(catalogue.COSTS), help=f"what the outputs are judged by {of_substrate}")
    how.add_argument(
        "--lenient", action="store_true", default=None, help="learn from unconverged equilibria too, and count them"
    )
    how.add_argument("--epochs", type=count, metavar="N", help=f"visits of every example {of_substrate}")
    how.add_argument("--batch-size", type=count, metavar="N", help=f"examples per step {of_substrate}")
    how.add_argument("--optimiser", choices=sorted(catalogue.OPTIMISERS), help=f"momentum is 0.9 {of_substrate}")
    how.add_argument(
        "--learning-rate",
        type=by_parameter,
        metavar="X",
        help=f"one number, or parameter=number,... {of_substrate}",
    )
    how.add_argument(
        "--decay", type=positive, metavar="X", help=f"factor on the learning rate per epoch {of_substrate}"
    )
    how.add_argument(
        "--weight-decay", type=positive, metavar="X", help="adds X times each parameter to its gradient (default: none)"
    )
    _add_options(train.add_argument_group(f"options of {rule.__name__}"), rule)
    where = train.add_argument_group("where and how it is run")
    where.add_argument("--seed", type=_seed, metavar="N", help="one seed gives the same numbers again (default: 0)")
    where.add_argument(
        "--precision", type=int, choices=(32, 64), help="bits of a number (default: the substrate's own)"
    )
    where.add_argument(
        "--dtype",
        choices=("bfloat16",),
        help="multiply changes of the state by couplings in bfloat16, as tensor cores do fastest, and make it good in "
        "--precision: equilibria are as exact as ever. Beforehand the gradient of a batch is compared with that of 64 "
        "bits; systems in which it would be lost, or nothing gained, are refused (default: nothing is rounded)",
    )
    where.add_argument("--device", choices=("cpu", "gpu"), help="(default: what JAX finds best)")
    hosts.add(where)
    where.add_argument(
        "--out", type=Path, metavar="FOLDER", help="the run's folder (default: runs/<substrate>-<data>-<time>)"
    )
    where.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, with the options that it was started with; --epochs may be raised",
    )
    where.add_argument("--quiet", action="store_true", help="print the run's folder only")
    _add_compare(commands)
    for command in (list_command, show_command, notebook_command, new_command):
        command.add(commands)
    if not set(first) <= set(commands.choices):  # others come from other packages, and cost their import
        for name in catalogue.names(catalogue.COMMANDS):
            catalogue.find(catalogue.COMMANDS, name)(commands)
    return parser


def _add_compare(commands: Any) -> None:
    """The command `groundstate compare`."""
    usual = ComparisonSettings()
    parser = commands.add_parser(
        "compare",
        help="compare learning rules on equal means",
        description="Trains a substrate by each of several rules, from the same starts and with the same number of "
        "physical relaxations, and writes a table and a figure into one folder. Called again, it repeats no run that "
        "is done.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=_compare)
    parser.add_argument(
        "substrate", nargs="?", default=usual.substrate, help=f"as for train (default: {usual.substrate}, 16 hidden)"
    )
    parser.add_argument("--data", metavar="NAME", default=usual.data, help=f"the data set (default: {usual.data})")
    parser.add_argument("--sizes", type=_sizes, nargs="+", metavar="N", help="hidden sizes, as for train")
    parser.add_argument(
        "--rules",
        nargs="+",
        metavar="NAME",
        help="names that `groundstate list` shows, with options as in coupled,variant=positive (default: all)",
    )
    parser.add_argument("--seeds", nargs="+", type=_seed, default=[0, 1, 2], metavar="N", help="(default: 0 1 2)")
    parser.add_argument(
        "--budget",
        type=count,
        default=usual.budget,
        metavar="N",
        help=f"physical relaxations of examples in one training (default: {usual.budget})",
    )
    parser.add_argument("--batch-size", type=count, default=usual.batch_size, metavar="N", help="examples per step")
    parser.add_argument(
        "--beta", type=positive, default=usual.beta, metavar="X", help=f"the strength of nudges (default: {usual.beta})"
    )
    parser.add_argument("--optimiser", choices=sorted(catalogue.OPTIMISERS), default=usual.optimiser)
    parser.add_argument(
        "--learning-rates",
        nargs="+",
        type=positive,
        default=usual.learning_rates,
        metavar="X",
        help="of which every run keeps the one that is best on validation examples "
        f"(default: {' '.join(map(str, usual.learning_rates))})",
    )
    parser.add_argument("--anneal", action="store_true", help="learning rates fall to zero along half a cosine")
    parser.add_argument(
        "--read-noise", nargs="+", type=positive, default=(), metavar="X", help="and with such errors of all meters"
    )
    parser.add_argument("--knob-bits", nargs="+", type=count, default=(), metavar="N", help="and with so few levels")
    parser.add_argument(
        "--twin-mismatch", nargs="+", type=not_negative, default=(), metavar="X", help="and with twins known so badly"
    )
    parser.add_argument("--jobs", type=count, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="(default: runs/compare-<substrate>-<data>; what is there goes on)",
    )


def _compare(options: argparse.Namespace) -> int:
    usual = ComparisonSettings()
    sizes = usual.sizes if options.substrate == usual.substrate else None
    if options.sizes is not None:
        sizes = tuple(size for sizes in options.sizes for size in sizes)
    settings = ComparisonSettings(
        options.substrate,
        options.data,
        sizes,
        options.budget,
        options.batch_size,
        options.optimiser,
        tuple(options.learning_rates),
        beta=options.beta,
        annealed=options.anneal,
    )
    name = re.sub(r"[^\w.-]+", "-", options.substrate.rpartition(":")[2])
    found = compare(
        options.rules,
        settings,
        seeds=options.seeds,
        read_noise=options.read_noise,
        knob_bits=options.knob_bits,
        twin_mismatch=options.twin_mismatch,
        jobs=options.jobs,
        out=options.out or Path("runs") / f"compare-{name}-{options.data}",
    )
    print(found)
    print(f"{found.done} runs were done now.")
    print(found.folder)
    return 0 if found.rows else 1


def _add_options(group: Any, rule: Any) -> None:
    """The options of a rule."""
    for name, option in options_of(rule).items():
        kind = {"action": argparse.BooleanOptionalAction} if option.read is None else {"type": option.read}
        named = {} if option.read is None else {"metavar": option.wanted}
        about = f"{option.about.rstrip('.')} (default: {option.default})".replace("%", "%%").strip()
        group.add_argument(f"--{name.replace('_', '-')}", help=about, **kind, **named)
    if on_bench(rule):
        group.add_argument(
            "--epsilon",
            type=positive,
            metavar="X",
            help="how far a parameter yields to a unit of force (default: the substrate's own)",
        )
        group.add_argument(
            "--read-back",
            action="store_true",
            default=None,
            help="hold the parameters by reading them, as on a real system, not by what the simulation knows",
        )


_RULE = "equilibrium-propagation"

_RECORDED = (
    "data", "sizes", "validation", "rule", "beta", "variant", "epsilon", "read_back", "cost", "lenient", "batch_size",
    "optimiser", "learning_rate", "decay", "seed", "precision",
)  # fmt: skip
"""The options that every run records, given or not; others where they are given."""

_TRIED = 32
"""So many examples show whether bfloat16 is safe."""

_OF_THE_CALL = ("run", "out", "resume", "epochs", "device", "quiet", *hosts.NAMES)
"""The options that may be others when a run is resumed."""


def _train(options: argparse.Namespace) -> int:
    if options.resume and options.out is None:
        raise UsageError("--resume: which run? name its folder with --out")
    asked = _asked(options)
    keep_compiled()
    whole_products()
    if options.device is not None:
        jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[options.device])
    hosts.join(options)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts that its plug-in is there
        raise UsageError(
            f"--device: JAX finds no {options.device or 'device'}; a GPU needs groundstate[gpu] and NVIDIA's driver"
        ) from error
    devices = Devices(hosts.mesh_of(options))
    out = options.out or Path("runs") / _name_of_run(options, asked)
    devices.together(lambda: claim(out, resume=options.resume) if devices.leads else None)
    try:
        substrate_class = catalogue.find(catalogue.SUBSTRATES, asked["substrate"])
        rule_class = catalogue.find(catalogue.RULES, asked["rule"] or _RULE)
        usual = 64 if on_bench(rule_class) else getattr(substrate_class, "training_precision", 32)
        with (
            jax.enable_x64((asked["precision"] or usual) == 64),
            hosts.named_as_options(),
            hosts.lost_run(devices, _again(asked, out)),
        ):
            return _train_in(out, options, asked, substrate_class, rule_class, devices)
    finally:
        if devices.leads:
            with contextlib.suppress(OSError):
                out.rmdir()  # only if nothing came of it


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """The options that say what is computed; for a resumed run those that are not given are as at its start."""
    given = {name: value for name, value in vars(options).items() if name not in _OF_THE_CALL and value is not None}
    asked = dict.fromkeys(_RECORDED) | given
    if asked["sizes"] is not None:
        asked["sizes"] = [size for sizes in asked["sizes"] for size in sizes]
    recorded = read_config(options.out) if options.resume else None
    if recorded is None:
        return asked
    before = recorded.get("options")
    if before is None:
        raise UsageError(f"--resume: the run in {options.out} was not started by this command; resume it with fit")
    for name, value in asked.items():
        if value is not None and value != before.get(name):
            raise UsageError(
                f"--{name.replace('_', '-')}: the run in {options.out} was started with "
                f"{'its default' if before.get(name) is None else before[name]}, got {value}; leave it out to resume"
            )
    options.epochs = recorded["epochs"] if options.epochs is None else options.epochs
    return before


def _name_of_run(options: argparse.Namespace, asked: dict[str, Any]) -> str:
    name = re.sub(r"[^\w.-]+", "-", options.substrate.rpartition(":")[2])
    return f"{name}-{asked['data'] or 'digits'}-{time.strftime('%Y%m%d-%H%M%S')}"


def _again(asked: dict[str, Any], out: Path) -> str:
    """What resumes a run."""
    return f"groundstate train {asked['substrate']} --out {out} --resume"


def _train_in(
    out: Path,
    options: argparse.Namespace,
    asked: dict[str, Any],
    substrate_class: Any,
    rule_class: Any,
    devices: Devices,
) -> int:
    new = not options.resume or read_config(out) is None
    say = (lambda text: print(text, flush=True)) if devices.leads and not options.quiet else (lambda *_: None)
    if options.resume and new:
        say(f"There is no run in {out} yet: it starts now.")
    seed = asked["seed"] or 0
    part = 0.1 if asked["validation"] is None else asked["validation"]
    data = load_data(asked["data"] or "digits", seed=seed, validation=part)
    build_key, train_key = jax.random.split(jax.random.key(seed))
    sizes = None if asked["sizes"] is None else tuple(asked["sizes"])
    substrate = catalogue.build(substrate_class, data.n_inputs, data.n_outputs, sizes=sizes, key=build_key)
    if asked.get("dtype") is not None:
        substrate = _in_bfloat16(substrate, rule_class)
    ruled, settings = settings_of(substrate, rule_class, asked)
    settings["epochs"] = options.epochs or settings["epochs"]
    examples = len(data.train[1])
    settings["batch_size"] = min(settings["batch_size"], examples)
    shared = devices.rounded(settings["batch_size"], examples)
    if new and asked["batch_size"] is None and shared != settings["batch_size"]:
        settings["batch_size"] = asked["batch_size"] = shared  # recorded, so that other devices go on with it
    rule = rule_of(rule_class, ruled, lenient=bool(asked["lenient"]), read_back=bool(asked.get("read_back")))
    system = substrate
    if on_bench(rule_class):
        copies = None if settings["batch_size"] == 1 else settings["batch_size"]
        system = Plant(substrate, settings["epsilon"], cost=rule.cost, copies=copies, inputs=data.n_inputs)
    devices.check_batch(settings["batch_size"])
    devices.check_columns(substrate, rule)
    rounding = None
    if asked.get("dtype") is not None:
        tried = [part[: min(settings["batch_size"], _TRIED)] for part in data.train]
        rounding = check_bfloat16(substrate, rule, *tried, key=train_key)
    batches = math.ceil(examples / settings["batch_size"])
    epochs = settings.pop("epochs")
    say(data)
    say(f"{first_line(type(substrate))} {count_parameters(substrate):,} parameters.")
    say(f"{rule}; {_describe(settings)}; {epochs} epochs of {batches} batches.")
    if rounding is not None:
        say(f"{rounding}.")
    optimiser = None
    if not issubclass(rule_class, Mover):
        rates = (settings["optimiser"], settings["learning_rate"], settings["decay"])
        optimiser = catalogue.optimiser(*rates, batches, substrate, settings.get("weight_decay", 0.0))
    run = fit(
        system,
        rule,
        data,
        optimiser=optimiser,
        epochs=epochs,
        key=train_key,
        batch_size=settings["batch_size"],
        mesh=devices.mesh,
        out=out,
        resume=options.resume,
        progress=sys.stderr.isatty() and not options.quiet,
        config={"options": asked, "settings": settings},
        summary={"seed": seed, **({} if rounding is None else {"bfloat16": str(rounding)})},
    )
    say(_report(run))
    if run.interrupted:
        say(f"Interrupted; what is done is kept. Go on with: {_again(asked, out)}")
    if devices.leads:
        print(out)
    return 130 if run.interrupted else 0


def _in_bfloat16(substrate: Any, rule_class: Any) -> Any:
    if not issubclass(rule_class, Estimator):
        raise UsageError(f"--dtype: {rule_class.__name__} moves parameters while states settle; leave it out")
    try:
        return in_bfloat16(substrate)
    except TypeError as error:
        raise UsageError(f"--dtype: {error}") from error


def _report(run: Run) -> str:
    lines = []
    for name in ("train", "validation", "test"):
        found = getattr(run, name)
        if found is not None:
            right = "" if found.accuracy is None else f"{100 * found.accuracy:6.2f} % right"
            lines.append(f"  {name:<11}{right}   cost {found.cost:<9.4g} ({found.size:,} examples)")
    unconverged = int(sum(run.history.get("unconverged", [])))
    lines.append(f"  {run.epochs} epochs in {run.seconds:.1f} s; {unconverged} equilibria did not converge")
    return "\n".join(lines)


def _describe(settings: dict[str, Any]) -> str:
    if "learning_rate" not in settings:
        return f"epsilon {_listed(settings['epsilon'])}, {settings['batch_size']} copies"
    shown = _listed(settings["learning_rate"])
    if "optimiser" not in settings:
        return f"learning rate {shown}, batches of {settings['batch_size']}"
    decay = "" if settings["decay"] == 1 else f", times {settings['decay']:g} per epoch"
    weight_decay = f", weight decay {settings['weight_decay']:g}" if "weight_decay" in settings else ""
    return f"{settings['optimiser']}, learning rate {shown}{decay}{weight_decay}, batches of {settings['batch_size']}"


def _listed(value: float | dict[str, float]) -> str:
    return f"{value:g}" if isinstance(value, float | int) else ", ".join(f"{k} {v:g}" for k, v in value.items())


if __name__ == "__main__":
    sys.exit(main())
