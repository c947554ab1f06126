"""Resistor networks on any graph: resistors, sources and diodes between any nodes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from substrates import arguments
from substrates.classical.resistor import pictures
from substrates.classical.resistor.build import NO_IMPEDANCES, circuit_fields, layered_fields
from substrates.classical.resistor.circuit import ResistorCircuit
from substrates.classical.resistor.elements import Shockley
from substrates.classical.resistor.layered import LayeredNetwork
from substrates.classical.resistor.linear_solve import conductance_solver
from substrates.classical.resistor.operating_point import OperatingPoint
from substrates.classical.resistor.relu import relu_fields
from substrates.classical.resistor.topology import Topology, potentials_of
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import left_over, reach
from substrates.spice.netlist import read_circuit
from substrates.substrate import fixed
from substrates.wiring import lattice_edges

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
    """

    network: Network
    names: tuple[str, ...]
    x: Float[np.ndarray, "inputs"]


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
    topology: Topology = eqx.field(static=True)
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
        content = self.content(potentials_of(state), x)
        drop = self.diode_drops(state, x)
        if isinstance(state, tuple):
            return content + jnp.sum(state[1] * drop)
        return content if self.diode is None else content + jnp.sum(self.diode.content(drop))

    def content(self, potentials: Inexact[Array, "potentials"], x: Float[Array, "inputs"]) -> Inexact[Array, ""]:
        """The co-content of resistors and current sources, watts."""
        voltages = self.voltages(potentials, x)
        drops = self._drops(self.edges, voltages)
        delivered = self.source_current * self._drops(self.current_sources, voltages)
        return 0.5 * jnp.sum(self.conductance * drops**2) + jnp.sum(delivered)

    @property
    def conservative(self) -> bool:
        """Whether the circuit has an energy: whether every controlled source acts back as much as it acts."""
        return self.topology.conservative

    @property
    def holomorphic(self) -> bool:  # type: ignore[override]
        """Whether no ideal diode clips a voltage."""
        return not (self.topology.ideal_diodes and len(self.topology.diodes) > 0)

    @property
    def input_size(self) -> int:
        return len(self.inputs)

    def initial_state(self, x: Float[Array, "inputs"]) -> State:
        potentials = jnp.zeros(len(self.topology.potentials), self.conductance.dtype)
        arguments.refuse_complex_input(x, self.conductance.dtype)
        self._driven(x)  # refuses a wrong shape
        if self.topology.diodes_between_potentials:
            return potentials, jnp.zeros(len(self.diodes), self.conductance.dtype)
        bounds = self.bounds(x)
        return potentials if bounds is None else jnp.clip(potentials, *bounds)

    def read(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "outputs"]:
        return self.voltages(state, x)[np.asarray(self.outputs, int)]

    def force(self, state: State, x: Float[Array, "inputs"]) -> State:
        """The current that flows into each independent potential; with diode currents also minus the diode drops."""
        if isinstance(state, tuple):
            return -self.imbalance(state[0], x, state[1]), -self.diode_drops(state, x)
        law = self.diode
        currents = None if law is None else law.current(self.diode_drops(state, x))
        return -self.imbalance(state, x, currents)

    def bounds(self, x: Float[Array, "inputs"]) -> tuple[State, State] | None:
        """The bounds that ideal diodes set on single potentials, and zero on diode currents in the state."""
        topology, dtype = self.topology, self.conductance.dtype
        if not (topology.ideal_diodes and len(self.diodes)):
            return None
        infinite = jnp.full(len(topology.potentials), jnp.inf, dtype)
        if topology.diodes_between_potentials:
            open_side = jnp.full(len(self.diodes), jnp.inf, dtype)
            return (-infinite, jnp.zeros_like(open_side)), (infinite, open_side)
        single = topology.diode_reach[topology.diode_map.rows] == 1
        diode, potential = topology.diode_map.rows[single], topology.diode_map.columns[single]
        slope = topology.diode_map.values[single].astype(dtype)
        limit = -self.diode_drops(jnp.zeros_like(infinite), x)[diode] / slope
        lower = (-infinite).at[potential[slope < 0]].max(limit[slope < 0])
        return lower, infinite.at[potential[slope > 0]].min(limit[slope > 0])

    def stationarity(self, state: State, x: Float[Array, "inputs"], nudge: Nudge | Pin | None = None) -> Any:
        """Kirchhoff's current law and the law of the ideal diodes, all in amperes.

        Without ideal diodes it is the current that leaves each potential. A diode that bounds one potential lets the
        current be what it must once the bound is reached: -clip(force, G (lower - u), G (upper - u)), G being the
        conductance at the potential. Diodes in the state add min(current, -G drop), and ideal diodes across sources
        max(G drop, 0). A pin adds G (output - target), and the currents that hold the outputs.
        """
        scale = self.conductance_scale()
        topology = self.topology
        force = potentials_of(self.total_force(state, x, nudge))
        laws = []
        if isinstance(nudge, Pin):
            injected = topology.read_test_map
            current = jnp.asarray(topology.pin_projection, force.dtype) @ injected(force)
            force = force - injected.transpose(current)
            laws.append(self._scale_of(topology.read_map, scale) * (self.read(state, x) - nudge.target))
        if topology.ideal_diodes and len(self.diodes):
            drop = self._scale_of(topology.diode_map, scale) * self.diode_drops(state, x)
            if isinstance(state, tuple):
                laws.append(jnp.minimum(state[1], -drop))
            else:
                lower, upper = cast(Any, self.bounds(x))
                force = jnp.clip(force, reach(scale, lower, state), reach(scale, upper, state))
                held = np.flatnonzero(topology.diode_reach == 0)
                if held.size:
                    laws.append(jnp.maximum(drop[held], 0.0))
        return (-force, *laws) if laws else -force

    def residual(self, state: State, x: Float[Array, "inputs"], nudge: Nudge | Pin | None = None) -> Float[Array, ""]:
        """The largest part of the currents that meet at a potential which `stationarity` leaves over; of a diode's law
        the part of what its end with the smaller conductance carries, of a pin's of what the output and target show.
        """
        balance = self.stationarity(state, x, nudge)
        scale = self.meeting(state, x, nudge if isinstance(nudge, Nudge) else None)
        if not isinstance(balance, tuple):
            return left_over(balance, scale)
        sizes = [potentials_of(scale)]
        if isinstance(nudge, Pin):
            reached = self.topology.read_map.absolute(jnp.abs(potentials_of(state)))
            shown = jnp.maximum(jnp.abs(self.read(state, x)), reached) + jnp.abs(nudge.target)
            sizes.append(self.output_scale() * shown)
        if isinstance(state, tuple):
            sizes.append(scale[1])
        elif len(balance) > len(sizes):
            held = np.flatnonzero(self.topology.diode_reach == 0)
            sizes.append((self.diode_scale() * self._diode_span(self.voltages(state, x)))[held])
        return left_over(balance, tuple(sizes))

    def force_scale(self, state: State, x: Float[Array, "inputs"]) -> State:
        """At each potential the sum, over the elements there, of the currents that each end's voltage would drive; for
        a diode current in the state what the diode's end with the smaller conductance would carry.

        Rounding of the voltages makes currents uncertain by this times the rounding error.
        """
        voltages = self.voltages(state, x)
        sizes = jnp.abs(jnp.append(voltages, 0.0))
        edges, sources, diodes = self.edges, self.current_sources, self.diodes
        at_edges = jnp.abs(self.conductance) * (sizes[edges[:, 0]] + sizes[edges[:, 1]])
        meeting = self._gather(edges, at_edges, at_edges)
        meeting += self._gather(sources, jnp.abs(self.source_current), jnp.abs(self.source_current))
        if self.diode is not None:
            drop = self.diode_drops(state, x)
            # a diode carries no more than the sources drive, though its law may say so far from equilibrium
            current = jnp.minimum(jnp.abs(self.diode.current(drop)), self.current_ceiling(x))
            at_diodes = current * (1 + self._diode_span(voltages) / jnp.abs(self.diode.emission_voltage))
            meeting += self._gather(diodes, at_diodes, at_diodes)
        elif isinstance(state, tuple):
            meeting += self._gather(diodes, jnp.abs(state[1]), jnp.abs(state[1]))
        at_potentials = self.topology.test_map.absolute.transpose(meeting)
        if not isinstance(state, tuple):
            return at_potentials
        return at_potentials, jnp.abs(state[1]) + self.diode_scale() * self._diode_span(voltages)

    def _diode_span(self, voltages: Inexact[Array, "n"]) -> Float[Array, "diodes"]:
        """The sum of the sizes of the voltages at the two ends of each diode."""
        sizes = jnp.abs(jnp.append(voltages, 0.0))
        return sizes[self.diodes[:, 0]] + sizes[self.diodes[:, 1]]

    def constrained(self) -> Self:
        """The circuit with every conductance at or above the floor."""
        return eqx.tree_at(lambda net: net.conductance, self, jnp.maximum(self.conductance, self.floor))

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
        conductance: Any = "conductance",
        rails: Mapping[Hashable, float] | None = None,
        floor: float = 0.0,
    ) -> Self:
        """The circuit with a resistor on every edge of a NetworkX graph; nodes are numbered in the graph's order.

        Its nodes go by their labels in its methods, too.

        Args:
            graph: undirected; a multigraph's parallel edges are parallel resistors.
            inputs, outputs: labels of nodes.
            conductance: the edge attribute that holds the siemens, or an array in the order of `graph.edges`.
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
            "conductance": arguments.of_edges("conductance", conductance, graph, NO_IMPEDANCES),
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
            periodic: whether each axis closes on itself.
            floor: the smallest conductance that training may reach, siemens.
        """
        sides = tuple(int(side) for side in np.atleast_1d(np.asarray(shape)))
        if not sides or min(sides) < 1:
            raise ValueError(f"shape: wanted positive numbers of nodes along each axis, got {shape}")
        return cls.from_edges(
            lattice_edges(sides, periodic),
            int(np.prod(sides)),
            inputs=inputs,
            outputs=outputs,
            conductance=conductance,
            rails=rails,
            floor=floor,
        )

    @classmethod
    def from_netlist(
        cls, text: str, *, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
    ) -> Self:
        """The circuit that a SPICE netlist of R, V, I, D and E elements describes; see `read_netlist`."""
        return cls.read_netlist(text, inputs=inputs, outputs=outputs).network

    @classmethod
    def read_netlist(
        cls, text: str, *, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
    ) -> CircuitFromNetlist[Self]:
        """The circuit that a netlist describes, with the names of its nodes and the volts on its inputs.

        A voltage source between a node and ground makes the node an input, if `inputs` names it, and a rail otherwise.
        Nodes are numbered by first appearance, and go by their names in the circuit's methods. E elements become
        controlled sources; an F element is accepted only as the backward half of a bidirectional amplifier, as
        `to_netlist` writes it.

        Args:
            text: the netlist; its first line is a title. Read as data: nothing in it is ever executed or included.
            inputs, outputs: names of nodes; None takes them from the comments that `to_netlist` writes, or else none.

        Raises:
            NetlistError: with the line's number, for everything that it does not understand, and for circuits that
                have no unique operating point.
        """
        found = read_circuit(text, inputs, outputs)
        law = None if found.diode is None else Shockley(*map(jnp.asarray, found.diode))
        with found.explained():
            network = cls(**circuit_fields(**found.elements, diode=law, labels=found.names))
        return CircuitFromNetlist(network, found.names, found.x)

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

    @property
    def edges(self) -> np.ndarray:
        """The two nodes of each resistor, shape (m, 2)."""
        return self.topology.edges

    @property
    def inputs(self) -> tuple[int, ...]:
        """The nodes that the input clamps."""
        return self.topology.inputs

    @property
    def outputs(self) -> tuple[int, ...]:
        """The nodes that are read."""
        return self.topology.outputs

    @property
    def rails(self) -> tuple[int, ...]:
        """The nodes at fixed voltages."""
        return self.topology.rails

    @property
    def diodes(self) -> np.ndarray:
        """(anode, cathode) of each diode, shape (k, 2)."""
        return self.topology.diodes

    @property
    def current_sources(self) -> np.ndarray:
        """(from, to) of each current source, shape (k, 2)."""
        return self.topology.current_sources

    @property
    def voltage_sources(self) -> np.ndarray:
        """(plus, minus) of each two-node voltage source, shape (k, 2)."""
        return self.topology.voltage_sources

    @property
    def controlled_sources(self) -> np.ndarray:
        """(plus, minus, control plus, control minus) of each controlled source, shape (k, 4)."""
        return self.topology.controlled_sources

    @property
    def gain(self) -> np.ndarray:
        """The gain of each controlled source, shape (k,)."""
        return self.topology.gain

    @property
    def reverse_gain(self) -> np.ndarray:
        """The reverse gain of each controlled source, shape (k,)."""
        return self.topology.reverse_gain

    # what an instrument shows

    def voltages(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "n"]:
        """The voltage of every node, volts."""
        topology = self.topology
        return topology.voltage_map(potentials_of(state)) + topology.drive_map(self._driven(x))

    def voltage_drops(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "edges"]:
        """The voltage across each resistor, from its first node to its second, volts."""
        return self._drops(self.edges, self.voltages(state, x))

    def diode_drops(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "diodes"]:
        """The voltage across each diode, from anode to cathode, volts."""
        return self._drops(self.diodes, self.voltages(state, x))

    def diode_currents(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "diodes"]:
        """The current through each diode, from anode to cathode, amperes.

        That of an ideal diode which bounds one potential is what Kirchhoff's law leaves for it at equilibrium; diodes
        that set the same bound share it equally. Of ideal diodes across voltage sources nothing determines it: 0.
        """
        if self.diode is not None:
            return self.diode.current(self.diode_drops(state, x))
        if isinstance(state, tuple):
            return state[1]
        bounds = self.bounds(x)
        if bounds is None:
            return jnp.zeros(0, state.dtype)
        topology = self.topology
        back = topology.diode_test_map
        single = topology.diode_reach[back.rows] == 1
        diode, potential, weight = back.rows[single], back.columns[single], back.values[single].astype(state.dtype)
        tightest = jnp.where(weight > 0, bounds[1][potential], bounds[0][potential])
        at_rest = self.diode_drops(jnp.zeros_like(state), x)[diode]
        slope = jnp.asarray(topology.diode_map.values[topology.diode_reach[topology.diode_map.rows] == 1], state.dtype)
        setting = -at_rest / slope == tightest
        share = (
            jnp.zeros((2, state.size), state.dtype)
            .at[(weight > 0).astype(int), potential]
            .add(setting.astype(state.dtype))
        )
        force = self.force(state, x)[potential]
        current = jnp.maximum(force / weight, 0.0) / jnp.maximum(share[(weight > 0).astype(int), potential], 1.0)
        return jnp.zeros(len(self.diodes), state.dtype).at[diode].set(jnp.where(setting, current, 0.0))

    def source_currents(self, state: State, x: Float[Array, "inputs"]) -> Inexact[Array, "sources"]:
        """The current out of the plus terminal of each voltage source, amperes, at equilibrium.

        In this order: inputs, rails, two-node sources, controlled sources.
        """
        return self.topology.source_current_map.transpose(
            self._leaving(self.voltages(state, x), self.diode_currents(state, x))
        )

    def effective_resistance(self, a: Hashable, b: Hashable) -> Float[Array, ""]:
        """The resistance between two nodes with every independent source set to zero, ohms.

        Args:
            a, b: labels of nodes where the circuit was built from labels, numbers of nodes elsewhere; -1 is ground,
                unless it is a label.

        Raises:
            ValueError: for a circuit with diodes, or nodes that do not exist.
        """
        if len(self.diodes):
            raise ValueError("effective_resistance: wanted a linear circuit, got one with diodes")
        first, second = (
            arguments.number_of_node(name, node, self.n, self.labels, ground=True)
            for name, node in (("a", a), ("b", b))
        )
        probe = np.zeros(self.n + 1)
        probe[first] += 1.0
        probe[second] -= 1.0
        probe = jnp.asarray(probe[:-1], self.conductance.dtype)
        solve = conductance_solver(self.topology, self.conductance.dtype)
        response = solve(self.conductance, self.topology.test_map.transpose(probe), None).potentials
        return jnp.sum(probe * self.topology.voltage_map(response))

    def to_circuit(self) -> Self:
        """The network itself, which is one of single elements."""
        return self

    def draw(self, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
        """The network in its equilibrium, as `pictures.circuit` draws it; see there."""
        return pictures.circuit(self, state, x, ax)

    # what solvers build on

    def imbalance(
        self,
        potentials: Inexact[Array, "potentials"],
        x: Float[Array, "inputs"],
        diode_current: Inexact[Array, "diodes"] | None = None,
    ) -> Inexact[Array, "potentials"]:
        """The sum of the currents that leave each independent potential, amperes: 0 by Kirchhoff's current law."""
        return self.topology.test_map.transpose(self._leaving(self.voltages(potentials, x), diode_current))

    def conductance_scale(self) -> Float[Array, "potentials"]:
        """The total conductance at each independent potential, siemens; the largest one where it is zero."""
        rows, columns, element, coefficient = self.topology.conductance_pattern
        own = (rows == columns) & (element < len(self.edges))
        parts = coefficient[own].astype(self.conductance.dtype) * self.conductance[element[own]]
        total = jnp.abs(jax.ops.segment_sum(parts, rows[own], len(self.topology.potentials)))
        largest = jnp.max(total, initial=0.0)
        return jnp.where(total > 0, total, jnp.where(largest > 0, largest, 1.0))

    def current_ceiling(self, x: Float[Array, "inputs"]) -> Float[Array, ""]:
        """What the sources can drive together through all resistors in parallel, amperes."""
        highest = jnp.max(jnp.abs(self.topology.drive_map(self._driven(x))), initial=0.0)
        return 2 * highest * jnp.sum(jnp.abs(self.conductance)) + jnp.sum(jnp.abs(self.source_current))

    def diode_scale(self) -> Float[Array, "diodes"]:
        """The smaller of the total conductances at the two ends of each diode, siemens."""
        ends, scale = self.topology.diode_map, self.conductance_scale()
        reached = np.abs(ends.values).astype(scale.dtype) * scale[ends.columns]
        smaller = jax.ops.segment_min(reached, ends.rows, len(self.diodes), indices_are_sorted=True)
        return jnp.where(jnp.isfinite(smaller), smaller, jnp.max(scale, initial=1.0 if scale.size == 0 else 0.0))

    def output_scale(self) -> Float[Array, "outputs"]:
        """The total conductance at each output, siemens."""
        return self._scale_of(self.topology.read_map, self.conductance_scale())

    def _scale_of(self, drop_map: Any, scale: Float[Array, "potentials"]) -> Float[Array, "..."]:
        reached = drop_map.absolute(scale)
        return jnp.where(reached > 0, reached, jnp.max(scale, initial=1.0 if scale.size == 0 else 0.0))

    def _driven(self, x: Float[Array, "inputs"]) -> Inexact[Array, "independent_sources"]:
        x = jnp.asarray(x)
        if x.shape != (len(self.inputs),):
            raise ValueError(
                f"x: wanted shape ({len(self.inputs)},), one voltage per input, got shape {x.shape}; "
                "jax.vmap or relax_batch take batches"
            )
        return jnp.concatenate([x.astype(self.conductance.dtype), self.rail_voltage, self.source_voltage])

    def _drops(self, pairs: np.ndarray, voltages: Inexact[Array, "n"]) -> Inexact[Array, "pairs"]:
        padded = jnp.append(voltages, jnp.zeros((), voltages.dtype))  # ground, -1, is the last
        return padded[pairs[:, 0]] - padded[pairs[:, 1]]

    def _gather(self, pairs: np.ndarray, first: Array, second: Array) -> Inexact[Array, "n"]:
        return jnp.zeros(self.n + 1, first.dtype).at[pairs[:, 0]].add(first).at[pairs[:, 1]].add(second)[:-1]

    def _leaving(self, voltages: Inexact[Array, "n"], diode_current: Array | None) -> Inexact[Array, "n"]:
        through = self.conductance * self._drops(self.edges, voltages)
        leaving = self._gather(self.edges, through, -through)
        leaving += self._gather(self.current_sources, self.source_current, -self.source_current)
        if diode_current is not None:
            leaving += self._gather(self.diodes, diode_current, -diode_current)
        return leaving
