"""Resistor networks on any graph: resistors, sources and diodes between any nodes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeVar, cast

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from substrates import arguments
from substrates.classical.resistor import pictures
from substrates.classical.resistor.build import NO_IMPEDANCES, circuit_fields, layered_fields
from substrates.classical.resistor.circuit import ResistorCircuit
from substrates.classical.resistor.elements import Shockley
from substrates.classical.resistor.layered import LayeredNetwork
from substrates.classical.resistor.layout import floating_nodes
from substrates.classical.resistor.linear_solve import conductance_solver
from substrates.classical.resistor.operating_point import OperatingPoint
from substrates.classical.resistor.relu import relu_fields
from substrates.classical.resistor.topology import Flow, Topology, least, potentials_of
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import left_by_bounds, left_over
from substrates.spice.netlist import read_circuit
from substrates.substrate import fixed
from substrates.wiring import connected_parts, lattice_edges, taken

if TYPE_CHECKING:
    from matplotlib.axes import Axes

State = Any
"""The independent potentials, or (potentials, diode currents)."""


Network = TypeVar("Network")


class CircuitFromNetlist(NamedTuple, Generic[Network]):
    """What a netlist describes.

    Attributes:
        network: the circuit.
        names: the name of each node in the netlist, in the order of the circuit's nodes.
        x: the volts that the netlist puts on the inputs, shape (inputs,).
        notes: what the netlist says that is not in the circuit, or is there as something else, a sentence each.
    """

    network: Network
    names: tuple[str, ...]
    x: Float[np.ndarray, "inputs"]
    notes: tuple[str, ...] = ()


def _of_layout(kind: str, doc: str) -> Any:
    return property(lambda self: getattr(self.topology.layout, kind), doc=doc)


def _nodes_of_layout(kind: str, doc: str) -> Any:
    return property(lambda self: tuple(getattr(self.topology.layout, kind).tolist()), doc=doc)


class ResistorNetwork(ResistorCircuit):
    """A network of resistors, sources and diodes on any graph, which settles to its operating point.

    Build one by `from_edges`, `from_networkx`, `lattice` or `from_netlist`; `layered`, `from_relu` and `for_task` build
    its layered sibling, the deep resistive network. The energy is the co-content, in watts,

        P(v) = sum 1/2 g (v_a - v_b)^2 - sum I (v_to - v_from) + sum Is (Ve exp(v_d / Ve) - v_d - Ve)

    over resistors, current sources and real diodes. Voltage sources tie nodes together; the independent potentials u
    that they leave free are the state, for plain circuits the voltages of the free nodes in node order. The operating
    point minimises P subject to v_anode <= v_cathode at every ideal diode, which is Kirchhoff's current law.

    With ideal diodes between independent potentials the state is (u, diode currents), the energy the Lagrangian
    P + sum i_d (v_anode - v_cathode), which equals P at the operating point, and equilibrium is its saddle. Controlled
    sources whose reverse gain differs from their gain leave no energy, only the force.

    Attributes:
        conductance: of each resistor, shape (m,), siemens; trainable.
        rail_voltage, source_voltage: volts of the rails and of the two-node sources.
        source_current: amperes of the current sources.
        diode: None for ideal diodes, or the law of all diodes.
        topology: which element joins which nodes.
        floor: the smallest conductance that `constrained` allows, siemens.
        labels: of the nodes, in their order, where the circuit was built from labels; None where they are numbers.

    Source: Kendall et al. 2020, arXiv 2006.01981 (co-content); Scellier 2024, arXiv 2402.11674 (ideal diodes).
    """

    conductance: Float[Array, "edges"]
    topology: Topology = fixed()
    rail_voltage: Float[Array, "rails"] = fixed()
    source_voltage: Float[Array, "voltage_sources"] = fixed()
    source_current: Float[Array, "current_sources"] = fixed()
    diode: Shockley | None = fixed()
    floor: float = eqx.field(static=True, default=0.0)
    labels: tuple[Hashable, ...] | None = eqx.field(static=True, default=None)

    solver: ClassVar[Any] = OperatingPoint()

    # the contract

    def energy(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, ""]:
        if not self.conservative:
            raise TypeError(
                "energy: a circuit with controlled sources whose reverse gain differs from their gain has none; "
                "its force and its contrast exist"
            )
        flow = self.flow(potentials_of(state), x)
        content = self.content(flow)
        if isinstance(state, tuple):
            return content + jnp.sum(state[1] * flow.diode_drops)
        return content if self.diode is None else content + jnp.sum(self.diode.content(flow.diode_drops))

    @property
    def conservative(self) -> bool:
        """Whether the circuit has an energy: whether every controlled source acts back as much as it acts."""
        return self.topology.conservative

    @property
    def holomorphic(self) -> bool:  # type: ignore[override]
        """Whether no ideal diode clips a voltage."""
        return not self.topology.bounded

    @property
    def input_size(self) -> int:
        return self.topology.count("inputs")

    def initial_state(self, x: Float[Array, "inputs"]) -> State:
        dtype = self.conductance.dtype
        potentials = jnp.zeros(self.topology.size, dtype)
        if self.topology.diodes_between_potentials:
            return potentials, jnp.zeros(self.topology.count("diodes"), dtype)
        bounds = self.bounds(x)
        return potentials if bounds is None else jnp.clip(potentials, *bounds)

    def read(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "outputs"]:
        return self.topology.maps.read(self._with_sources(potentials_of(state), x))

    def force(self, state: State, x: Float[Array, "inputs"]) -> State:
        """The current that flows into each independent potential; with diode currents also minus the diode drops."""
        flow = self._flow_of(state, x)
        force = -self.leaving(flow)
        return (force, -flow.diode_drops) if isinstance(state, tuple) else force

    def bounds(self, x: Float[Array, "inputs"]) -> tuple[State, State] | None:
        """The bounds that ideal diodes set on single potentials, and zero on diode currents in the state."""
        topology, dtype = self.topology, self.conductance.dtype
        if not topology.bounded:
            return None
        size, diodes = topology.size, topology.count("diodes")
        infinite = jnp.full(size, jnp.inf, dtype)
        if topology.diodes_between_potentials:
            open_side = jnp.full(diodes, jnp.inf, dtype)
            return (-infinite, jnp.zeros(diodes, dtype)), (infinite, open_side)
        slope = jnp.asarray(topology.maps.slopes[0], dtype)
        limit = -self.diode_drops(jnp.zeros(size, dtype), x) / slope
        at = {"mode": "drop", "wrap_negative_indices": False}
        lower = (-infinite).at[topology.maps.bounded].max(jnp.where(slope < 0, limit, -jnp.inf), **at)
        upper = infinite.at[topology.maps.bounded].min(jnp.where(slope > 0, limit, jnp.inf), **at)
        return lower, upper

    def reciprocal(self, x: Float[Array, "inputs"]) -> bool:
        """Without ideal diodes, and without controlled sources, which make a circuit without an energy."""
        return self.conservative and not self.topology.bounded

    def stationarity(self, state: State, x: Float[Array, "inputs"], nudge: Nudge | Pin | None = None) -> Any:
        """Kirchhoff's current law and the law of the ideal diodes, all in amperes.

        Without ideal diodes it is the current that leaves each potential. A diode that bounds one potential lets the
        current be what it must once the bound is reached: -clip(force, G (lower - u), G (upper - u)), G being the
        conductance at the potential. Diodes in the state add min(current, -G drop), and ideal diodes across sources
        max(G drop, 0). A pin adds G (output - target), and the currents that hold the outputs.
        """
        balances = [balance for balance, _ in self._laws(state, x, nudge)]
        return tuple(balances) if len(balances) > 1 else balances[0]

    def residual(self, state: State, x: Float[Array, "inputs"], nudge: Nudge | Pin | None = None) -> Float[Array, ""]:
        """The largest part of the currents that meet at a potential which `stationarity` leaves over; of a diode's law
        the part of what its end with the smaller conductance carries, of a pin's of what the output and target show.
        """
        balances, sizes = (jnp.concatenate(numbers) for numbers in zip(*self._laws(state, x, nudge), strict=True))
        return left_over(balances, sizes)

    def _laws(self, state: State, x: Array, nudge: Nudge | Pin | None) -> list[tuple[Array, Array]]:
        """What each law of `stationarity` leaves over, and the currents that meet there."""
        topology, maps, flow = self.topology, self.topology.maps, self._flow_of(state, x)
        balance, meeting = self.leaving(flow), self.meeting_at(flow, self._ceiling(x))
        laws, held = [], None
        if isinstance(nudge, Nudge):
            output = self.read(state, x)
            held = self.held_by(nudge, output)
            pull = nudge.pull(output)
            balance -= self._brought(pull)
            meeting += jnp.abs(self._brought(nudge.size(output, pull)))
        if isinstance(nudge, Pin):
            projection = jnp.asarray(maps.pin_projection, balance.dtype)
            balance -= maps.read_test.transpose(projection @ maps.read_test(balance))
            output, stiffness = self.read(state, x), self.output_scale()
            # a node may be held at 0 V: it counts as far as the currents that meet there would move it
            sizes = jnp.maximum(jnp.abs(potentials_of(state)), meeting / self.conductance_scale())
            reached = maps.read.absolute(self._with_sources(sizes, None))
            shown = jnp.maximum(jnp.abs(output), reached) + jnp.abs(nudge.target)
            laws.append((stiffness * (output - nudge.target), stiffness * shown))
        if topology.bounded and not isinstance(state, tuple):
            (lower, upper), scale = cast(Any, self.bounds(x)), self.conductance_scale()
            balance = -left_by_bounds(cast(Any, state), -balance, scale, lower, upper)
        if isinstance(state, tuple):
            scale = self.diode_scale(held)
            laws.append((jnp.minimum(state[1], -scale * flow.diode_drops), self._diode_meeting(state, flow, scale)))
        elif maps.held.size:
            scale = taken(self.diode_scale(held), maps.held)
            drop, span = self.across_sources(flow)
            laws.append((scale * jnp.maximum(drop, 0.0), scale * span))
        return [(balance, meeting), *laws]

    def force_scale(self, state: State, x: Float[Array, "inputs"]) -> State:
        """At each potential the sum, over the elements there, of the currents that each end's voltage would drive; for
        a diode current in the state what the diode's end with the smaller conductance would carry.

        Rounding of the voltages makes currents uncertain by this times the rounding error.
        """
        flow = self._flow_of(state, x)
        meeting = self.meeting_at(flow, self._ceiling(x))
        if not isinstance(state, tuple):
            return meeting
        return meeting, self._diode_meeting(state, flow, self.diode_scale())

    def _diode_meeting(self, state: State, flow: Flow, scale: Float[Array, "diodes"]) -> Float[Array, "diodes"]:
        return jnp.abs(state[1]) + scale * self._diode_spans(flow.voltages)

    def constrained(self) -> Self:
        """The circuit with every conductance at or above the floor."""
        return eqx.tree_at(lambda net: net.conductance, self, jnp.maximum(self.conductance, self.floor))

    def undecided(self) -> str:
        """Which nodes no conductance holds any more."""
        floating = floating_nodes(self.topology.layout, np.asarray(self.conductance))
        if not floating:
            return ""
        names = arguments.abridged([node if self.labels is None else self.labels[node] for node in floating])
        return (
            f"Nodes {names} float: every resistor on a path from them to an input, a rail or ground has come to a "
            "conductance of 0. Give the circuit a floor that training may not go below"
        )

    # how to build one

    @classmethod
    def from_edges(
        cls,
        edges: Any,
        n: int | None = None,
        *,
        inputs: Sequence[int],
        outputs: Sequence[int],
        conductance: Any,
        rails: Mapping[int, float] | None = None,
        diodes: Sequence[tuple[int, int]] = (),
        diode: Shockley | None = None,
        current_sources: Sequence[tuple[int, int, float]] = (),
        voltage_sources: Sequence[tuple[int, int, float]] = (),
        controlled_sources: Sequence[tuple[float, ...]] = (),
        floor: float = 0.0,
    ) -> Self:
        """A circuit on any graph of nodes 0 to n-1 and ground, which is node -1.

        Args:
            edges: resistors between two nodes each, integers of shape (m, 2).
            n: the number of nodes without ground; by default one more than the largest that is mentioned.
            inputs: the nodes that the input x clamps, by voltage sources to ground.
            outputs: the nodes that are read.
            conductance: of each resistor, siemens, shape (m,) or one number; trainable.
            rails: fixed voltages of nodes, {node: volts}.
            diodes: (anode, cathode) of each diode.
            diode: None for ideal diodes (v_anode <= v_cathode, no drop when on, no current when off), or a `Shockley`.
            current_sources: (from, to, amperes); the current enters node `to`.
            voltage_sources: (plus, minus, volts).
            controlled_sources: (plus, minus, control plus, control minus, gain) with
                v_plus - v_minus = gain (v_control_plus - v_control_minus). A sixth number is the reverse gain: that
                times the current out of the source is drawn from the control nodes. It is 0 by default (SPICE's E
                element, a circuit without an energy); equal to the gain it makes an ideal bidirectional amplifier.
            floor: the smallest conductance that training may reach, siemens.

        Raises:
            ValueError: for elements that make no circuit with one operating point; the message says which.
        """
        sources = [(current_sources, 2), (voltage_sources, 2), (controlled_sources, 4)]
        ends = [source[:count] for many, count in sources for source in many if isinstance(source, Sequence)]
        arguments.refuse_unjoined("outputs", outputs, [edges, diodes, list(rails or ()), inputs, *ends], n)
        fields = circuit_fields(
            edges,
            n,
            inputs=inputs,
            outputs=outputs,
            conductance=conductance,
            rails=rails,
            diodes=diodes,
            diode=diode,
            current_sources=current_sources,
            voltage_sources=voltage_sources,
            controlled_sources=controlled_sources,
            floor=floor,
        )
        return cls(**fields)

    @classmethod
    def from_networkx(
        cls,
        graph: Any,
        *,
        inputs: Sequence[Hashable],
        outputs: Sequence[Hashable],
        conductance: Any = None,
        resistance: Any = None,
        rails: Mapping[Hashable, float] | None = None,
        floor: float = 0.0,
    ) -> Self:
        """The circuit with a resistor on every edge of a NetworkX graph; nodes are numbered in the graph's order.

        Its nodes go by their labels in its methods, too.

        Args:
            graph: undirected; a multigraph's parallel edges are parallel resistors.
            inputs, outputs: labels of nodes.
            conductance: the edge attribute that holds the siemens, by default "conductance", or an array in the order
                of `graph.edges`.
            resistance: in its place the ohms, in the same ways.
            rails: {label: volts}.
            floor: the smallest conductance that training may reach, siemens.

        Raises:
            ValueError: for a label that is no node, an edge without the attribute, and whatever `from_edges` refuses.
        """
        number = arguments.numbering(graph, parallel=True)
        words: dict[str, Any] = {
            "inputs": arguments.numbers_of("inputs", inputs, number),
            "outputs": arguments.numbers_of("outputs", outputs, number),
            "rails": arguments.by_number("rails", rails, number),
            "conductance": _siemens(graph, conductance, resistance),
        }
        edges, labels = [(number[a], number[b]) for a, b in graph.edges()], tuple(number)
        with arguments.explained(labels):
            return cls(**circuit_fields(edges, len(number), floor=floor, labels=labels, **words))

    @classmethod
    def lattice(
        cls,
        shape: int | Sequence[int],
        *,
        inputs: Sequence[int],
        outputs: Sequence[int],
        conductance: Any = 1.0,
        rails: Mapping[int, float] | None = None,
        periodic: bool = False,
        floor: float = 0.0,
    ) -> Self:
        """A grid of any dimension with a resistor between nearest neighbours; nodes are numbered in C order.

        Args:
            shape: the number of nodes along each axis.
            inputs, outputs, rails: nodes, as in `from_edges`; `numpy.ravel_multi_index` numbers them.
            conductance: one number, or one per edge in the order of `substrates.wiring.lattice_edges`.
            periodic: whether all axes close on themselves.
            floor: the smallest conductance that training may reach, siemens.
        """
        sides = arguments.sides(shape, periodic)
        return cls.from_edges(
            lattice_edges(sides, periodic),
            math.prod(sides),
            inputs=inputs,
            outputs=outputs,
            conductance=conductance,
            rails=rails,
            floor=floor,
        )

    @classmethod
    def from_netlist(
        cls,
        text: str,
        *,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        folder: str | Path | None = None,
    ) -> Self:
        """The circuit that a SPICE netlist describes; see `read_netlist`, which also gives names and notes."""
        return cls.read_netlist(text, inputs=inputs, outputs=outputs, folder=folder).network

    @classmethod
    def read_netlist(
        cls,
        text: str,
        *,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        folder: str | Path | None = None,
    ) -> CircuitFromNetlist[Self]:
        """The circuit that a netlist of ngspice, LTspice, KiCad or PSpice describes at its operating point, with the
        names of its nodes and the volts on its inputs.

        It reads R, C, L, V, I, D, E, F, G and H elements, B elements of a linear law, .model of diodes and resistors,
        .param with arithmetic, .subckt with parameters, .temp and .options. Capacitors are open, inductors and
        resistors of 0 ohms are sources of 0 volts, and sources that change in time count by their value at time 0.
        Requests for analyses and output are passed over; `notes` says what was.

        A voltage source between a node and ground makes the node an input, if `inputs` names it, and a rail otherwise.
        Nodes are numbered by first appearance, and go by their names in the circuit's methods; node n1 of a subcircuit
        x1 is x1.n1. Controlled sources become controlled sources of voltage; a G, an H or a negative resistor takes a
        resistor besides. Conductances are in the order of the netlist's resistors; those which are none of its own (of
        a diode's RS, a G, an H) come last, and the notes name them.

        Args:
            text: the netlist; its first line is a title. Read as data: nothing in it is ever executed.
            inputs, outputs: names of nodes; None takes them from the comments that `to_netlist` writes, or else none.
            folder: that of the files which the netlist includes; None for none. No file outside of it is read.

        Raises:
            NetlistError: with the line's number, for everything that it does not understand, and for circuits that
                have no unique operating point.
        """
        found = read_circuit(text, inputs, outputs, folder)
        law = None if found.diode is None else Shockley(*map(jnp.asarray, found.diode))
        with found.explained():
            network = cls(**circuit_fields(**found.elements, diode=law, labels=found.names))
        return CircuitFromNetlist(network, found.names, found.x, found.notes)

    @classmethod
    def layered(cls, sizes: Sequence[int], *, key: PRNGKeyArray, **options: Any) -> LayeredNetwork[Self]:
        """The deep resistive network of given layer sizes; see `layered_fields` for the options.

        Source: Scellier 2024, arXiv 2402.11674.
        """
        return LayeredNetwork(**layered_fields(sizes, key=key, **options), build_circuit=cls.from_edges)

    @classmethod
    def from_relu(cls, weights: Sequence[Any], biases: Sequence[Any], gamma: float) -> LayeredNetwork[Self]:
        """The resistive network that computes what a ReLU multilayer perceptron does, up to an error of order gamma;
        see `relu_fields`.

        Source: Scellier and Mishra 2025, arXiv 2312.15063.
        """
        return LayeredNetwork(**relu_fields(weights, biases, gamma), build_circuit=cls.from_edges)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> LayeredNetwork[Self]:
        """A deep resistive network for a data set: `sizes` hidden layers (by default one of 256 nodes).

        Every layer of resistors divides the voltages. The input gain makes up for it: in proportion to
        sqrt(n_inputs n_hidden), which spreads over the nodes, and to the number of hidden layers squared, which fits
        the gains 480, 2000 and 4000 that Scellier 2024 (arXiv 2402.11674) gives networks of 1 to 3 layers of 1024.
        """
        hidden = (256,) if sizes is None else tuple(sizes)
        typical = float(np.mean(hidden)) if hidden else n_outputs
        gain = 480.0 * (n_inputs * typical / (784 * 1024)) ** 0.5 * max(len(hidden), 1) ** 2
        return cls.layered((n_inputs, *hidden, n_outputs), key=key, input_gain=gain)

    # what it is made of

    @property
    def n(self) -> int:
        """The number of nodes without ground."""
        return self.topology.n

    edges = _of_layout("edges", "The two nodes of each resistor, shape (m, 2).")
    inputs = _nodes_of_layout("inputs", "The nodes that the input clamps.")
    outputs = _nodes_of_layout("outputs", "The nodes that are read.")
    rails = _nodes_of_layout("rails", "The nodes at fixed voltages.")
    diodes = _of_layout("diodes", "(anode, cathode) of each diode, shape (k, 2).")
    current_sources = _of_layout("current_sources", "(from, to) of each current source, shape (k, 2).")
    voltage_sources = _of_layout("voltage_sources", "(plus, minus) of each two-node voltage source, shape (k, 2).")
    controlled_sources = _of_layout(
        "controlled_sources", "(plus, minus, control plus, control minus) of each controlled source, shape (k, 4)."
    )

    @property
    def gain(self) -> np.ndarray:
        """The gain of each controlled source, shape (k,)."""
        return self.topology.layout.gains[0]

    @property
    def reverse_gain(self) -> np.ndarray:
        """The reverse gain of each controlled source, shape (k,)."""
        return self.topology.layout.gains[1]

    # what an instrument shows

    def voltages(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "n"]:
        """The voltage of every node, volts."""
        return self.topology.maps.voltages(self._with_sources(potentials_of(state), x))

    def voltage_drops(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "edges"]:
        """The voltage across each resistor, from its first node to its second, volts."""
        return self.flow(potentials_of(state), x).drops[: self.conductance.size]

    def diode_drops(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "diodes"]:
        """The voltage across each diode, from anode to cathode, volts."""
        return self.flow(potentials_of(state), x).diode_drops

    def diode_currents(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "diodes"]:
        """The current through each diode, from anode to cathode, amperes.

        That of an ideal diode which bounds one potential is what Kirchhoff's law leaves for it at equilibrium; diodes
        that set the same bound share it equally. Of ideal diodes across voltage sources nothing determines it: 0.
        """
        current = self._flow_of(state, x).diode_current
        bounds = self.bounds(x)
        if current is not None or bounds is None:
            return jnp.zeros(0, self.conductance.dtype) if current is None else current
        maps, dtype = self.topology.maps, state.dtype
        (slope, weight), potential = jnp.asarray(maps.slopes, dtype), maps.bounded
        limit = -self.diode_drops(jnp.zeros_like(state), x) / slope
        tightest = jnp.where(weight > 0, *(jnp.append(side, jnp.nan)[potential] for side in reversed(bounds)))
        setting = limit == tightest
        side = (weight > 0).astype(int)
        sharing = jnp.zeros((2, state.size + 1), dtype).at[side, potential].add(setting.astype(dtype))
        force = jnp.append(self.force(state, x), 0.0)[potential]
        current = jnp.maximum(force / weight, 0.0) / jnp.maximum(sharing[side, potential], 1.0)
        return jnp.where(setting, current, 0.0)

    def source_currents(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "sources"]:
        """The current out of the plus terminal of each voltage source, amperes, at equilibrium.

        In this order: inputs, rails, two-node sources, controlled sources.
        """
        flow = self.flow(potentials_of(state), x, self.diode_currents(state, x))
        return self.topology.maps.delivered.transpose(self._through(flow))

    def effective_resistance(self, a: Hashable, b: Hashable) -> Float[Array, ""]:
        """The resistance between two nodes with every independent source set to zero, ohms: what an ohmmeter shows in
        the circuit, 0 between two driven nodes. `resistance_distances` are those of the resistors alone.

        Args:
            a, b: labels of nodes where the circuit was built from labels, numbers of nodes elsewhere; -1 is ground,
                unless it is a label.

        Raises:
            ValueError: for a circuit with diodes, or nodes that do not exist.
        """
        if self.topology.count("diodes"):
            raise ValueError("effective_resistance: wanted a linear circuit, got one with diodes")
        named = (("a", a), ("b", b))
        first, second = (arguments.number_of_node(name, node, self.n, self.labels, ground=True) for name, node in named)
        probe = np.zeros(self.n + 1)
        probe[first] += 1.0
        probe[second] -= 1.0
        probe = jnp.asarray(probe[:-1], self.conductance.dtype)
        solve = conductance_solver(self.topology, self.conductance.dtype)
        response = solve(self.conductance, self.topology.maps.test.transpose(probe), None).potentials
        return jnp.sum(probe * self.topology.maps.voltages(self._with_sources(response, None)))

    def resistance_distances(self) -> Float[Array, "n n"]:
        """The resistance between every two nodes through the resistors alone, ohms: no source, rail or diode conducts.

            R_ij = (e_i - e_j)' L^+ (e_i - e_j),

        L being the Laplacian of the conductances, ground among its nodes; infinite where no resistors join two nodes.
        `effective_resistance` is what an ohmmeter shows in the circuit, sources set to zero.

        Source: Klein and Randic 1993, "Resistance distance".
        """
        size, dtype, edges = self.n + 1, self.conductance.dtype, self.edges % (self.n + 1)
        known = None if isinstance(self.conductance, Tracer) else np.asarray(self.conductance) > 0
        part = connected_parts(size, edges if known is None else edges[known])
        apart = part[:, None] != part[None]
        largest = jnp.max(self.conductance, initial=0.0)
        unit = jnp.where(largest > 0, largest, 1.0)
        nodes = jnp.zeros((len(edges), size), dtype)
        nodes = nodes.at[np.arange(len(edges))[:, None], edges].set(jnp.asarray([1.0, -1.0], dtype))
        laplacian = (nodes * (self.conductance / unit)[:, None]).T @ nodes
        # of each part one node is held, the best connected, so that small conductances are not lost beside large ones
        total = jnp.where(apart, -1.0, jnp.diagonal(laplacian))
        free = jnp.where(jnp.argmax(total, axis=1) == np.arange(size), 0.0, 1.0)
        laplacian = free[None] * laplacian * free[:, None] + jnp.diag(1 - free)
        scale = 1 / jnp.sqrt(jnp.diagonal(laplacian))
        inverse = jnp.linalg.inv(scale[None] * laplacian * scale[:, None]) * jnp.outer(free * scale, free * scale)
        own = jnp.diagonal(inverse)
        found = jnp.where(apart, jnp.inf, (own[:, None] + own[None] - 2 * inverse) / unit)
        return found[: self.n, : self.n]

    def to_circuit(self) -> Self:
        """The network itself, which is one of single elements."""
        return self

    def draw(self, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
        """The network in its equilibrium, as `pictures.circuit` draws it; see there."""
        return pictures.circuit(self, state, x, ax)

    def by_label(self, values: Any) -> dict[Hashable, Any]:
        """{label: entry} of one entry per node, such as `voltages(state, x)`; {number: entry} without labels.

        Raises:
            ValueError: for another number of entries.
        """
        return arguments.by_label(values, self.n, self.labels)

    # what solvers build on

    def flow(
        self, potentials: Inexact[Array, "potentials"], x: Float[Array, "inputs"], diode_current: Any = None
    ) -> Flow:
        """Voltages and currents at independent potentials.

        Args:
            potentials: volts.
            x: the input.
            diode_current: amperes through the diodes, or a function of their drops that gives them.
        """
        maps, edges, diodes = self.topology.maps, self.conductance.size, self.topology.count("diodes")
        known_voltages = self._with_sources(potentials, x)
        drops = maps.drops(known_voltages)
        at_diodes = drops[edges : edges + diodes]
        known: Any = diode_current(at_diodes) if callable(diode_current) else diode_current
        return Flow(maps.voltages(known_voltages), drops, at_diodes, known)

    def content(self, flow: Flow) -> Inexact[Array, ""]:
        """The co-content of resistors and current sources, watts."""
        edges, sources = self.conductance.size, self.source_current.size
        content = 0.5 * jnp.sum(self.conductance * flow.drops[:edges] ** 2)
        return content + jnp.sum(self.source_current * flow.drops[-sources:]) if sources else content

    def leaving(self, flow: Flow) -> Inexact[Array, "potentials"]:
        """The sum of the currents that leave each independent potential, amperes: 0 by Kirchhoff's current law."""
        return self.topology.maps.leaving.transpose(self._through(flow))

    def imbalance(
        self,
        potentials: Inexact[Array, "potentials"],
        x: Float[Array, "inputs"],
        diode_current: Inexact[Array, "diodes"] | None = None,
    ) -> Inexact[Array, "potentials"]:
        """`leaving` at independent potentials."""
        return self.leaving(self.flow(potentials, x, diode_current))

    def across_sources(self, flow: Flow) -> tuple[Float[Array, "held"], Float[Array, "held"]]:
        """The drops of ideal diodes across voltage sources alone, and the sizes of the voltages at their ends."""
        held = self.topology.maps.held
        return taken(flow.diode_drops, held), taken(self._diode_spans(flow.voltages), held)

    def meeting_at(self, flow: Flow, ceiling: Any = None) -> Float[Array, "potentials"]:
        """`force_scale` at the potentials; with real diodes, which carry no more than a `current_ceiling`, though their
        law may say so far from equilibrium.
        """
        at_diodes = None if flow.diode_current is None else jnp.abs(flow.diode_current)
        span = self.topology.maps.ends(jnp.abs(flow.voltages))
        if self.diode is not None and at_diodes is not None:
            spread = self._at_diodes(span) / jnp.abs(self.diode.emission_voltage)
            at_diodes = jnp.minimum(at_diodes, ceiling) * (1 + spread)
        at_resistors = jnp.abs(self.conductance) * span[: self.conductance.size]
        return self.topology.maps.meeting.transpose(self._of_all(at_resistors, at_diodes, jnp.abs(self.source_current)))

    def conductance_scale(self) -> Float[Array, "potentials"]:
        """The total conductance at each independent potential, siemens; the largest one where it is zero."""
        total = jnp.abs(self.topology.maps.own.transpose(self.conductance))
        largest = jnp.max(total, initial=0.0)
        return jnp.where(total > 0, total, jnp.where(largest > 0, largest, 1.0))

    def current_ceiling(self, x: Float[Array, "inputs"]) -> Float[Array, ""]:
        """What the sources can drive together through all resistors in parallel, amperes."""
        highest = jnp.max(jnp.abs(self.voltages(jnp.zeros(self.topology.size, self.conductance.dtype), x)), initial=0.0)
        return 2 * highest * jnp.sum(jnp.abs(self.conductance)) + jnp.sum(jnp.abs(self.source_current))

    def held_by(self, nudge: Nudge, output: Float[Array, "outputs"]) -> Float[Array, "potentials"]:
        """The conductances by which a nudge holds the potentials, siemens."""
        return self._brought(jnp.abs(nudge.stiffness(output)))

    def _brought(self, at_outputs: Inexact[Array, "outputs"]) -> Inexact[Array, "potentials"]:
        return self.topology.maps.read.transpose(at_outputs)[: self.topology.size]

    def diode_scale(self, held: Float[Array, "potentials"] | None = None) -> Float[Array, "diodes"]:
        """The smaller of the total conductances at the two ends of each diode, with those of a nudge, siemens."""
        scale = self.conductance_scale() if held is None else self.conductance_scale() + held
        smaller = least(self.topology.maps.diode, scale)
        return jnp.where(jnp.isfinite(smaller), smaller, jnp.max(scale, initial=1.0 if scale.size == 0 else 0.0))

    def output_scale(self) -> Float[Array, "outputs"]:
        """The total conductance at each output, siemens."""
        scale = self.conductance_scale()
        reached = self.topology.maps.read.absolute(self._with_sources(scale, None))
        return jnp.where(reached > 0, reached, jnp.max(scale, initial=1.0 if scale.size == 0 else 0.0))

    def _ceiling(self, x: Array) -> Array | None:
        return None if self.diode is None else self.current_ceiling(x)

    def _flow_of(self, state: State, x: Array) -> Flow:
        known = state[1] if isinstance(state, tuple) else None if self.diode is None else self.diode.current
        return self.flow(potentials_of(state), x, known)

    def _diode_spans(self, voltages: Array) -> Array:
        """The sum of the sizes of the voltages at the two ends of each diode."""
        return self._at_diodes(self.topology.maps.ends(jnp.abs(voltages)))

    def _at_diodes(self, of_all: Array) -> Array:
        edges = self.conductance.size
        return of_all[edges : edges + self.topology.count("diodes")]

    def _of_all(self, resistors: Array, diodes: Array | None, sources: Array) -> Array:
        """One number for each element, 0 for diodes of which nothing is known."""
        diodes = jnp.zeros(self.topology.count("diodes"), resistors.dtype) if diodes is None else diodes
        parts = [part for part in (resistors, diodes, sources) if part.size]
        return jnp.concatenate(parts) if len(parts) != 1 else parts[0]

    def _through(self, flow: Flow) -> Inexact[Array, "elements"]:
        through = self.conductance * flow.drops[: self.conductance.size]
        return self._of_all(through, flow.diode_current, self.source_current)

    def _with_sources(self, potentials: Array, x: Array | None) -> Array:
        """Potentials and the values of the sources that are not controlled, which are zero where x is None."""
        if x is None:
            silent = self.input_size + self.rail_voltage.size + self.source_voltage.size
            return jnp.concatenate([potentials, jnp.zeros(silent, potentials.dtype)])
        return jnp.concatenate([potentials, *self._sources_at(x)])

    def _sources_at(self, x: Array) -> list[Array]:
        """The values of the sources that are not controlled."""
        values = (jnp.asarray(x).astype(self.conductance.dtype), self.rail_voltage, self.source_voltage)
        return [value for value in values if value.size]


def _siemens(graph: Any, conductance: Any, resistance: Any) -> Any:
    """The conductances of the edges of a graph, from one of two ways to say them."""
    if resistance is None:
        name = "conductance" if conductance is None else conductance
        return arguments.of_edges("conductance", name, graph, NO_IMPEDANCES)
    if conductance is not None:
        raise ValueError("resistance: wanted siemens or ohms, got both: leave conductance out")
    ohms = arguments.one_each(
        "resistance", arguments.of_edges("resistance", resistance, graph), len(graph.edges), "edge"
    )
    wrong = np.flatnonzero(np.asarray(ohms) <= 0)
    if wrong.size:
        raise ValueError(
            f"resistance: wanted positive ohms, got {ohms[wrong[0]]} on the edge {list(graph.edges)[wrong[0]]}"
        )
    return 1 / ohms
