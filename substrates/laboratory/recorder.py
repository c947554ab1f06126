"""A protocol of everything that was done to a physical system, and a system that answers from it."""

from __future__ import annotations

import abc
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from substrates.laboratory.system import LaboratoryError, PhysicalSystem, Reading, Spec, Terminals
from substrates.solvers.solver import FAILURES, Status

Array = np.ndarray

_STATUSES = ("converged", "truncated", *FAILURES)


class ReplayError(LaboratoryError):
    """Something else was asked of a replay than was recorded."""


@dataclass(frozen=True)
class Event:
    """One verb with its arguments and its answer.

    Attributes:
        verb: its name.
        arguments: what it was given, by name; arrays are copies.
        answer: what it gave: None, a `Status`, or a `Reading`.
        failure: the kind and the text of what it raised instead; None where it raised nothing.
    """

    verb: str
    arguments: dict[str, Any]
    answer: Any = None
    failure: tuple[str, str] | None = None


class _Verbs(abc.ABC):
    """The five verbs, each of which goes by its name and arguments through `_do`."""

    def set_knobs(self, u: Float[Array, "knobs"]) -> None:
        """Turns every knob."""
        self._do("set_knobs", u=u)

    def clamp(self, x: Float[Array, "*copies inputs"] | None) -> None:
        """Holds the inputs."""
        self._do("clamp", x=x)

    def nudge(self, target: Float[Array, "*copies outputs"] | None, beta: float) -> None:
        """Pulls the outputs towards a target."""
        self._do("nudge", target=target, beta=beta)

    def settle(self) -> Status:
        """Waits until the system is at rest."""
        return self._do("settle")

    def read(self) -> Reading:
        """Reads what the meters show."""
        return self._do("read")

    @abc.abstractmethod
    def _do(self, verb: str, **arguments: Any) -> Any: ...


class Recorder(_Verbs):
    """A physical system that keeps every verb with its answer, for `replay`; the same five verbs.

    Args:
        system: what is inside. Its capabilities beyond the five verbs are not passed on.
    """

    def __init__(self, system: PhysicalSystem):
        self._system = system
        self.events: list[Event] = []

    @property
    def spec(self) -> Spec:
        """Of the system inside."""
        return self._system.spec

    def replay(self) -> Replay:
        """A system that answers as this one did, from the first verb on."""
        return Replay(self.spec, list(self.events))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the protocol to one file, which `Replay.load` reads."""
        arrays: dict[str, Array] = {}
        entries = [_entry(event, arrays) for event in self.events]
        spec = {name: _terminals(getattr(self.spec, name), name, arrays) for name in _GROUPS}
        text = json.dumps({"events": entries, "spec": spec, "copies": self.spec.copies})
        partial = Path(f"{os.fspath(path)}.partial")
        arrays["protocol"] = np.asarray(text)
        with partial.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        partial.replace(path)

    def _do(self, verb: str, **arguments: Any) -> Any:
        kept = {name: np.array(value) if isinstance(value, np.ndarray) else value for name, value in arguments.items()}
        try:
            answer = getattr(self._system, verb)(*arguments.values())
        except (ValueError, LaboratoryError) as error:
            self.events.append(Event(verb, kept, failure=(type(error).__name__, str(error))))
            raise
        self.events.append(Event(verb, kept, answer))
        return answer


class Replay(_Verbs):
    """A physical system that is not there: it answers from a protocol, if it is asked the very same.

    Raises ReplayError (a `LaboratoryError`) where a verb or an argument differs, or the protocol has ended.
    """

    def __init__(self, spec: Spec, events: list[Event]):
        self._spec, self.events, self.position = spec, events, 0

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Replay:
        """The replay of a protocol that `Recorder.save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        told = json.loads(str(arrays.pop("protocol")))
        spec = Spec(**{name: _read_terminals(told["spec"][name], arrays) for name in _GROUPS}, copies=told["copies"])
        return cls(spec, [_read_entry(entry, arrays) for entry in told["events"]])

    @property
    def spec(self) -> Spec:
        """Of the recorded system."""
        return self._spec

    def _do(self, verb: str, **arguments: Any) -> Any:
        if self.position == len(self.events):
            raise ReplayError(f"{verb}: the protocol of {len(self.events)} verbs has ended; record a longer run")
        event = self.events[self.position]
        if event.verb != verb:
            raise ReplayError(f"verb {self.position}: wanted {event.verb}, as recorded, got {verb}")
        for name, value in arguments.items():
            recorded = event.arguments[name]
            same = (value is None) == (recorded is None) and (value is None or np.array_equal(value, recorded))
            if not same:
                raise ReplayError(f"verb {self.position}, {verb}: wanted {name} as recorded, {recorded}, got {value}")
        self.position += 1
        if event.failure is not None:
            kind, text = event.failure
            raise (ValueError if kind == "ValueError" else LaboratoryError)(text)
        return event.answer


_GROUPS = ("knobs", "parameters", "inputs", "outputs")


def _entry(event: Event, arrays: dict[str, Array]) -> dict[str, Any]:
    entry: dict[str, Any] = {"verb": event.verb, "failure": event.failure, "answer": None}
    entry["arguments"] = {name: _kept(value, arrays) for name, value in event.arguments.items()}
    if isinstance(event.answer, Reading):
        entry["answer"] = {"reading": {f.name: _kept(getattr(event.answer, f.name), arrays) for f in fields(Reading)}}
    elif event.verb == "settle" and event.failure is None:
        entry["answer"] = {"status": next(name for name in _STATUSES if bool(event.answer == getattr(Status, name)))}
    return entry


def _read_entry(entry: dict[str, Any], arrays: dict[str, Array]) -> Event:
    arguments = {name: _found(value, arrays) for name, value in entry["arguments"].items()}
    answer = entry["answer"]
    if answer is not None and "reading" in answer:
        answer = Reading(**{name: _found(value, arrays) for name, value in answer["reading"].items()})
    elif answer is not None:
        answer = getattr(Status, answer["status"])
    failure = entry["failure"]
    return Event(entry["verb"], arguments, answer, None if failure is None else (failure[0], failure[1]))


def _kept(value: Any, arrays: dict[str, Array]) -> Any:
    """None and numbers as they are; an array goes among the arrays, and its name stays."""
    if value is None or np.ndim(value) == 0:
        return None if value is None else float(value)
    name = f"a{len(arrays)}"
    arrays[name] = np.asarray(value)
    return name


def _found(value: Any, arrays: dict[str, Array]) -> Any:
    return arrays[value] if isinstance(value, str) else value


def _terminals(group: Terminals, name: str, arrays: dict[str, Array]) -> dict[str, Any]:
    told = asdict(group)
    return told | {bound: _kept(np.broadcast_to(told[bound], (group.size,)), arrays) for bound in ("lower", "upper")}


def _read_terminals(told: dict[str, Any], arrays: dict[str, Array]) -> Terminals:
    return Terminals(told["size"], told["unit"], _found(told["lower"], arrays), _found(told["upper"], arrays))
