"""A SPICE circuit on the bench: a live ngspice behind the five verbs."""

from __future__ import annotations

import contextlib
import math
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from substrates.classical.resistor.circuit import ResistorCircuit
from substrates.classical.resistor.network import ResistorNetwork
from substrates.laboratory.system import (
    LaboratoryError,
    Reading,
    Spec,
    Terminals,
    checked_hold,
    checked_input,
    checked_knobs,
    checked_nudge,
    refuse_nudge_of_held,
)
from substrates.solvers.solver import Status
from substrates.spice.deck import node_number
from substrates.spice.lines import NetlistError
from substrates.spice.live import STOP, LiveDeck, assign_roles
from substrates.spice.ngspice import LINES_OF_A_LIFE, SpiceEndedError, SpiceProcess
from substrates.spice.stability import Stability

Array = np.ndarray

_GRIP = 1e9
"""Outputs are held by conductances so many times the largest that is trained."""

_VOLTAGE = re.compile(r"^([nk]\d+) = (\S+)$", re.MULTILINE)
_MEASURE = ["op", "print all", "destroy all"]


class SpiceCircuit:
    """A circuit of resistors, diodes and sources that lives in ngspice and is trained through the five verbs.

    With epsilon > 0 the trained conductances are physical: each is the voltage of a control node in the circuit
    itself, held softly by its knob u and pulled by the power of its own resistor, so that at the operating point

        theta = u - epsilon dv^2 / 2,   theta >= floor,

    the joint equilibrium of |u - theta|^2 / (2 epsilon) + E + beta C, where E is the co-content (half the power, for
    resistors). With epsilon = 0 the knobs are the conductances. A nudge connects every output by a conductance beta
    to a source at its target.

    SPICE solves Kirchhoff's laws and does not ask whether a circuit would stay there: `settle` does, from the second
    derivative of the total energy at the operating point, and says `unstable` where it is no minimum (a negative beta
    beyond what holds an output, or an epsilon too large for the voltages). Circuits with E, F, G or H elements, which
    may have no energy, are not judged so.

    Every settling starts from scratch, so that the operating point depends on knobs, inputs and nudge alone. When
    ngspice dies it is started anew with everything as it was. Use it in a `with` block, or `close` it.

    There is one circuit, and it holds one input and one nudge at a time: a verb from another thread, while one is at
    work, raises LaboratoryError; `close` waits. Give each thread a circuit of its own.

    Attributes:
        spec: sizes and ranges; knobs and parameters in siemens, inputs and outputs in volts.
        epsilon: S/V^2, how far a conductance yields to the power; 0 for hard knobs.
        status: how the last settling ended.
        notes: what the netlist says that is not in the circuit, or is there as something else.

    Source: Scellier, Mishra, Bengio and Ollivier 2022, arXiv 2205.15021; Kendall et al. 2020, arXiv 2006.01981.
    """

    def __init__(
        self,
        netlist: str,
        *,
        epsilon: float,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        trainable: Sequence[str] | None = None,
        floor: float = 1e-9,
        knob_range: tuple[Any, Any] = (-np.inf, np.inf),
        timeout: float = 10.0,
        folder: str | Path | None = None,
    ):
        """Puts a netlist on the bench, its knobs at its conductances and its inputs at 0, and settles it once.

        Args:
            netlist: what `ResistorNetwork.read_netlist` reads. It is data: nothing in it is ever executed, and no name
                in it reaches ngspice.
            epsilon: compliance of the conductances, S/V^2; 0 for hard knobs.
            inputs: nodes, each held by a voltage source to ground; None for those that a comment of `to_netlist` lists.
            outputs: nodes that are read and nudged; None as for inputs.
            trainable: resistors, those in a subcircuit as x1.r1; None for all positive ones, in the netlist's order.
            floor: the least conductance, siemens.
            knob_range: (lower, upper) of the knobs, siemens, numbers or one for each; hard knobs stay above the floor.
            timeout: seconds after which an ngspice that does not answer is ended.
            folder: that of the files which the netlist includes; None for none.

        Raises:
            ValueError: for a netlist, a name or a number that makes no such circuit.
            FileNotFoundError: ngspice is not installed.
            LaboratoryError: ngspice finds no operating point; says why where the netlist tells (a loop of sources).
        """
        if not (math.isfinite(epsilon) and epsilon >= 0):
            raise ValueError(f"epsilon: wanted a compliance of at least 0 S/V^2, got {epsilon}")
        if not (math.isfinite(floor) and floor > 0):
            raise ValueError(f"floor: wanted a positive conductance in siemens, got {floor}")
        if not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"timeout: wanted a positive number of seconds, got {timeout}")
        self.epsilon, self._floor, self._timeout = float(epsilon), float(floor), float(timeout)
        roles = assign_roles(netlist, inputs, outputs, trainable, 1 / self._floor, folder)
        self.notes = roles.notes
        count = len(roles.trainable)
        lower, upper = (np.asarray(side, float) for side in knob_range)
        lower = lower if epsilon else np.maximum(lower, self._floor)
        self.spec = Spec(
            knobs=Terminals(count, "S", lower, upper),
            parameters=Terminals(count, "S", self._floor if epsilon else lower, np.inf if epsilon else upper),
            inputs=Terminals(len(roles.inputs), "V"),
            outputs=Terminals(len(roles.outputs), "V"),
        )
        self._knobs = np.clip([1 / resistor.value for resistor in roles.trainable], lower, upper)
        self._x, (self._target, self._beta) = checked_input(self.spec, None), checked_nudge(self.spec, None, 0.0)
        self._held: Array | None = None
        self._live = LiveDeck(roles, self.epsilon, self._floor)
        self._stability = Stability(roles)
        self._ends = np.array([[node_number(name) for name in resistor.nodes] for resistor in roles.trainable])
        self._output_nodes = np.array([node_number(name) for name in roles.outputs])
        self._nodes = 1 + max(node_number(name) for element in roles.deck.elements for name in element.nodes)
        self._at_work, self._worker = threading.RLock(), ""
        self._process: SpiceProcess | None = None
        self._sent: Array | None = None
        self._voltages: Array | None = None
        self._parameters = self._knobs
        self.status = self.settle()
        if self._voltages is None:
            self.close()
            failed = "ngspice finds no operating point of the netlist with its inputs at 0 V"
            try:
                ResistorNetwork.from_netlist(netlist, inputs=inputs, outputs=outputs)
            except NetlistError as cause:
                raise LaboratoryError(f"{failed}: {cause}") from cause
            raise LaboratoryError(failed)

    @classmethod
    def from_netlist(cls, text: str, **options: Any) -> Self:
        """The same as the constructor, by the name that other circuits have."""
        return cls(text, **options)

    @classmethod
    def from_network(cls, network: ResistorCircuit, **options: Any) -> Self:
        """A resistor network in ngspice: knob k is its conductance k. Its ideal diodes become near-ideal ones.

        Args:
            network: with at least one input and one output.
            options: those of the constructor; the floor is the network's own where it has one.
        """
        circuit = network.to_circuit()
        own = {"floor": float(circuit.floor)} if circuit.floor > 0 else {}
        return cls(circuit.to_netlist(np.zeros(len(circuit.inputs))), **{**own, **options})

    # the five verbs

    def set_knobs(self, u: Float[Array, "knobs"]) -> None:
        with self._alone("set_knobs"):
            self._knobs = checked_knobs(self.spec, u)

    def clamp(self, x: Float[Array, "inputs"] | None) -> None:
        with self._alone("clamp"):
            self._x = checked_input(self.spec, x)

    def nudge(self, target: Float[Array, "outputs"] | None, beta: float) -> None:
        with self._alone("nudge"):
            target, beta = checked_nudge(self.spec, target, beta)
            refuse_nudge_of_held(self._held, beta)
            self._target, self._beta = target, beta

    def settle(self) -> Status:
        """Waits for the operating point. Raises LaboratoryError, with everything kept, where ngspice fails twice."""
        with self._alone("settle"):
            return self._settle()

    def read(self) -> Reading:
        """What the meters showed when the circuit settled last. Raises LaboratoryError where it did not."""
        with self._alone("read"):
            voltages = self._settled_voltages()
            return Reading(voltages[self._output_nodes], self._parameters.copy(), self._knobs.copy())

    # what a circuit can do besides

    def read_conjugate(self) -> Float[Array, "parameters"]:
        """dv^2/2 of every trained resistor, V^2: the power of one siemens, halved."""
        with self._alone("read_conjugate"):
            voltages = np.append(self._settled_voltages(), 0.0)
        return (voltages[self._ends[:, 0]] - voltages[self._ends[:, 1]]) ** 2 / 2

    def hold_outputs(self, target: Float[Array, "outputs"] | None) -> None:
        """Holds the outputs to a part of 1e-9, by conductances far above all others to sources; None releases them.

        Raises ValueError for a target that does not fit, and while a nudge acts.
        """
        with self._alone("hold_outputs"):
            self._held = checked_hold(self.spec, target, self._beta)

    @property
    def pid(self) -> int | None:
        """The number of the ngspice process that is alive, None after `close`."""
        return self._process.pid if self._process is not None and self._process.alive else None

    def close(self) -> None:
        """Ends ngspice, when it has answered; another `settle` would start it again."""
        with self._at_work:
            if self._process is not None:
                self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def __repr__(self) -> str:
        spec = self.spec
        return (
            f"{type(self).__name__}({spec.knobs.size} knobs, {spec.inputs.size} inputs, {spec.outputs.size} outputs, "
            f"{self._nodes} nodes, epsilon={self.epsilon:g})"
        )

    @contextlib.contextmanager
    def _alone(self, verb: str) -> Iterator[None]:
        """Refuses a verb while another thread is at one: what it set would be settled under the other's conditions."""
        name = threading.current_thread().name
        if not self._at_work.acquire(blocking=False):
            raise LaboratoryError(
                f"{verb}: {self._worker} is at work on this circuit, and this is {name}; give each thread a circuit of "
                "its own, or let one wait for the other"
            )
        try:
            self._worker = name
            yield
        finally:
            self._at_work.release()

    def _settle(self) -> Status:
        values = self._values()
        try:
            report = self._measure(values)
        except SpiceEndedError:
            report = self._measure(values)
        found = dict(_VOLTAGE.findall(report))
        show = lambda kind, count: np.array([float(found.get(f"{kind}{k}", "nan")) for k in range(count)])
        voltages = show("n", self._nodes)
        parameters = show("k", self._knobs.size) if self.epsilon else self._knobs
        if not found:
            self._voltages, self.status = None, Status.out_of_steps
            return self.status
        self._voltages, self._parameters = voltages, parameters
        if not (np.all(np.isfinite(voltages)) and np.all(np.isfinite(parameters))):
            self.status = Status.not_finite
        else:
            self.status = Status.converged if self._is_minimum() else Status.unstable
        return self.status

    def _values(self) -> Float[Array, "settings"]:
        """The settings of the live deck: inputs, knobs, nudge conductances, nudge currents."""
        knobs = self._knobs / self.epsilon if self.epsilon else 1 / self._knobs
        stiffness, target = self._pulled()
        return np.concatenate([self._x, knobs, np.full(target.size, stiffness), stiffness * target])

    def _pulled(self) -> tuple[float, Float[Array, "outputs"]]:
        """The conductance from every output to a source, and the voltages of these."""
        if self._held is None:
            return self._beta, self._target
        return _GRIP * float(np.max(self._parameters)), self._held

    def _measure(self, values: Float[Array, "settings"]) -> str:
        """What a live ngspice with these settings says to an operating-point analysis."""
        process = self._process
        if process is None or not process.alive or process.lines > LINES_OF_A_LIFE:
            self.close()
            process = self._process = SpiceProcess(self._timeout)
            self._sent = None
        changes = None if self._sent is None else self._live.changes(self._sent, values)
        if changes is None:
            process.load(self._live.text(values))
            changes = []
        self._sent = values
        return process.ask([*changes, *_MEASURE])

    def _settled_voltages(self) -> Float[Array, "nodes"]:
        if self._voltages is None:
            raise LaboratoryError(
                "the circuit found no operating point when it settled last: the meters show nothing; "
                "weaken the nudge or move the knobs, and settle again"
            )
        return self._voltages

    def _is_minimum(self) -> bool:
        """Whether the circuit stays at its operating point."""
        stiffness = self._pulled()[0]
        if not self.epsilon and stiffness >= 0 and self._stability.certain:
            return True
        yields = self.epsilon * np.where(self._parameters > STOP * self._floor, 2 * self.read_conjugate(), 0.0)
        return self._stability.holds(self._settled_voltages(), self._parameters - yields, stiffness)
