"""Resistor networks: the public name, and the ways to build one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxtyping import Array, Float, PRNGKeyArray

from substrates.substrate import Substrate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from substrates.classical.resistor.circuit import CircuitNetwork
    from substrates.classical.resistor.elements import Shockley
    from substrates.classical.resistor.layered import LayeredNetwork


class ResistorNetwork(Substrate):
    """A network of resistors, sources and diodes, which settles to its operating point.

    Node voltages obey Kirchhoff's laws: they minimise the co-content, half the dissipated power for linear resistors,
    under the constraints that voltage sources and ideal diodes impose. The trainable parameters are conductances.
    Build one by `from_edges`, `from_networkx` or `lattice` (any graph), by `layered` or `for_task` (the deep resistive
    network), by `from_relu` or by `from_netlist`.

    Source: Kendall et al. 2020, arXiv 2006.01981; Scellier 2024, arXiv 2402.11674.
    """

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
    ) -> CircuitNetwork:
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
        from substrates.classical.resistor.build import build_circuit

        return build_circuit(
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
    ) -> CircuitNetwork:
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
        from substrates.classical.resistor.build import circuit_from_networkx

        return circuit_from_networkx(
            graph, inputs=inputs, outputs=outputs, conductance=conductance, rails=rails, floor=floor
        )

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
    ) -> CircuitNetwork:
        """A grid of any dimension with a resistor between nearest neighbours; nodes are numbered in C order.

        Args:
            shape: the number of nodes along each axis.
            inputs, outputs, rails: nodes, as in `from_edges`; `numpy.ravel_multi_index` numbers them.
            conductance: one number, or one per edge in the order of `substrates.wiring.lattice_edges`.
            periodic: whether each axis closes on itself.
            floor: the smallest conductance that training may reach, siemens.
        """
        import numpy as np

        from substrates.classical.resistor.build import build_circuit
        from substrates.wiring import lattice_edges

        sides = tuple(int(side) for side in np.atleast_1d(np.asarray(shape)))
        if not sides or min(sides) < 1:
            raise ValueError(f"shape: wanted positive numbers of nodes along each axis, got {shape}")
        return build_circuit(
            lattice_edges(sides, periodic),
            int(np.prod(sides)),
            inputs=inputs,
            outputs=outputs,
            conductance=conductance,
            rails=rails,
            floor=floor,
        )

    @classmethod
    def layered(cls, sizes: Sequence[int], *, key: PRNGKeyArray, **options: Any) -> LayeredNetwork:
        """The deep resistive network of given layer sizes; see `layered_network` for the options.

        Source: Scellier 2024, arXiv 2402.11674.
        """
        from substrates.classical.resistor.layered import layered_network

        return layered_network(sizes, key=key, **options)

    @classmethod
    def from_relu(cls, weights: Sequence[Any], biases: Sequence[Any], gamma: float) -> LayeredNetwork:
        """The resistive network that computes what a ReLU multilayer perceptron does, up to an error of order gamma.

        Source: Scellier and Mishra 2025, arXiv 2312.15063.
        """
        from substrates.classical.resistor.relu import from_relu

        return from_relu(weights, biases, gamma)

    @classmethod
    def from_netlist(
        cls, text: str, *, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
    ) -> CircuitNetwork:
        """The circuit that a SPICE netlist of R, V, I, D and E elements describes; see `read_netlist`."""
        from substrates.classical.resistor.netlist import from_netlist

        return from_netlist(text, inputs=inputs, outputs=outputs)

    def to_netlist(self, x: Float[Array, "inputs"]) -> str:
        """The network at the input x, shape (inputs,), volts, as a complete SPICE deck; see `netlist.to_netlist`."""
        from substrates.classical.resistor.netlist import to_netlist

        return to_netlist(self, x)

    @classmethod
    def for_task(
        cls, n_inputs: int, n_outputs: int, *, sizes: tuple[int, ...] | None = None, key: PRNGKeyArray
    ) -> LayeredNetwork:
        """A deep resistive network fit for a data set with `n_inputs` features and `n_outputs` outputs."""
        from substrates.classical.resistor.layered import LayeredNetwork

        return LayeredNetwork.for_task(n_inputs, n_outputs, sizes=sizes, key=key)

    def draw(self, state: Any = None, x: Any = None, ax: Axes | None = None) -> Axes:
        """The network in its equilibrium, as `substrates.pictures.network` draws it; see there."""
        from substrates import pictures

        return pictures.network(self, state, x, ax)  # pyright: ignore[reportArgumentType]
