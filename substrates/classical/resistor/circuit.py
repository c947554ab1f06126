"""What resistor networks of every layout share."""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from substrates.spice.netlist import write_netlist
from substrates.substrate import Substrate


class ResistorCircuit(Substrate):
    """A network of resistors, sources and diodes, which settles to its operating point.

    Node voltages obey Kirchhoff's laws: they minimise the co-content, half the dissipated power for linear resistors,
    under the constraints that voltage sources and ideal diodes impose. The trainable parameters are conductances.
    `ResistorNetwork` is one on any graph, `LayeredNetwork` the deep resistive network.

    Source: Kendall et al. 2020, arXiv 2006.01981; Scellier 2024, arXiv 2402.11674.
    """

    conductance: eqx.AbstractVar[Any]

    contrast_points: ClassVar[int] = 1
    linear_in_parameters: ClassVar[bool] = True

    @abc.abstractmethod
    def to_circuit(self) -> Any:
        """The same network as single elements on a graph, a `ResistorNetwork`."""

    @abc.abstractmethod
    def voltages(self, state: PyTree, x: Float[Array, "inputs"]) -> PyTree:
        """The voltage of every node, volts."""

    @abc.abstractmethod
    def voltage_drops(self, state: PyTree, x: Float[Array, "inputs"]) -> PyTree:
        """The voltage across each resistor, from its first node to its second, volts."""

    def currents(self, state: PyTree, x: Float[Array, "inputs"]) -> Any:
        """The current through each resistor, from its first node to its second, amperes."""
        return jax.tree.map(jnp.multiply, self.conductance, self.voltage_drops(state, x))

    def dissipated_power(self, state: PyTree, x: Float[Array, "inputs"]) -> Any:
        """The power g dv^2 that each resistor turns into heat, watts."""
        return jax.tree.map(lambda g, drop: g * drop**2, self.conductance, self.voltage_drops(state, x))

    def to_netlist(self, x: Float[Array, "inputs"]) -> str:
        """The network at the input x, shape (inputs,), volts, as a complete SPICE deck; see `write_netlist`."""
        return write_netlist(self.to_circuit(), x)
