"""Theorems of circuits: what resistors, sources and diodes settle to, how they get there, and what they can compute."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float, PyTree

from substrates.classical.predictive_coding import PredictiveCodingNetwork
from substrates.classical.resistor import GROUND, ResistorNetwork, Shockley
from substrates.classical.resistor.circuit import ResistorCircuit
from substrates.classical.resistor.coordinate_descent import CoordinateDescent
from substrates.substrate import Equilibrium, Nudge, Solver, Substrate, relax_batch
from theory_checks.case import compiled, relax
from theory_checks.theorems.measured import agreement, of_examples, power_law, require, require_kind, settled, smaller
from theory_checks.theorems.theorem import Finding, Theorem

ROUNDING = 1e-9
"""What solvers leave of balances, as a part of what meets in them."""

_BRIDGE = [(0, 1), (1, 2), (2, 3), (3, 4), (1, 3), (0, 3), (2, GROUND), (4, GROUND)]
_SIEMENS = np.array([1.0, 0.4, 0.7, 1.3, 0.2, 0.5, 0.9, 0.3])


def _circuit(**elements: Any) -> ResistorNetwork:
    words = {"inputs": [0], "outputs": [2, 4], "conductance": _SIEMENS, "current_sources": [(4, 2, 0.6)]}
    return ResistorNetwork.from_edges(_BRIDGE, 5, **{**words, **elements})


def _currents_leaving(net: ResistorNetwork, voltages: np.ndarray, diode_currents: np.ndarray) -> tuple[Any, Any]:
    """The sum of the currents that leave each node, element by element from its own law, and what part it is of the sum
    of their sizes; the currents of voltage sources left out."""
    v = np.append(voltages, 0.0)
    leaving, meeting = np.zeros(net.n + 1), np.zeros(net.n + 1)
    edges = np.asarray(net.edges)
    resistors = np.asarray(net.conductance) * (v[edges[:, 0]] - v[edges[:, 1]])
    elements = (edges, resistors), (net.diodes, diode_currents), (net.current_sources, np.asarray(net.source_current))
    for pairs, currents in elements:
        for (a, b), current in zip(pairs, currents, strict=True):
            leaving[a] += current
            leaving[b] -= current
            meeting[[a, b]] += abs(current)
    return leaving[:-1], leaving[:-1] / np.where(meeting > 0, meeting, 1.0)[:-1]


def _free_nodes(net: ResistorNetwork) -> np.ndarray:
    return np.setdiff1d(np.arange(net.n), [*net.inputs, *net.rails])


def _require_grounded_sources(net: ResistorNetwork) -> None:
    tied = len(net.voltage_sources) + len(net.controlled_sources)
    require(not tied, "Voltage sources between nodes tie their currents together: here all sources go to ground.")


@of_examples
def co_content(net: ResistorNetwork | None = None, x: Any = None) -> tuple[Finding, ...]:
    """Kirchhoff's current law as the stationarity of the co-content, and content and co-content as a Legendre pair.

    Args:
        net: resistors, current sources, real diodes, and voltage sources to ground; a small circuit by default.
        x: volts at the inputs, shape (inputs,).

    Raises NotApplicableError for ideal diodes, which have no branch law, and for sources between nodes.
    """
    if net is None:
        net, x = (
            _circuit(diodes=[(3, 2), (GROUND, 4)], diode=Shockley(jnp.asarray(1e-6), jnp.asarray(0.05))),
            np.array([1.5]),
        )
    require_kind(net, ResistorNetwork, "circuits on graphs")
    require(not net.topology.bounded, "Ideal diodes have no branch law: see diode-complementarity.")
    _require_grounded_sources(net)
    x, free = jnp.asarray(x), _free_nodes(net)
    law = net.diode

    def leaving(state: Array) -> tuple[np.ndarray, np.ndarray]:
        v = np.append(net.voltages(state, x), 0.0)
        drops = v[net.diodes[:, 0]] - v[net.diodes[:, 1]]
        carried = drops[:0] if law is None else law.saturation_current * np.expm1(drops / law.emission_voltage)
        return _currents_leaving(net, v[:-1], np.asarray(carried))

    state = settled(net, x).state
    parts = leaving(state)[1]
    balance = agreement("currents that leave free nodes at rest", parts[free], np.zeros(free.size), ROUNDING)
    away = state + 0.1 * np.random.default_rng(0).normal(size=state.shape)
    slope = agreement(
        "dP/dv at another state against the currents that leave",
        jax.grad(net.energy)(away, x),
        leaving(away)[0][free],
        1e-9,
    )
    return balance, slope, _legendre_pair(net, state, x)


def _legendre_pair(net: ResistorNetwork, state: Array, x: Array) -> Finding:
    """content + co-content = v i, branch by branch; the content from the inverse of each branch's law."""
    drops, g = np.asarray(net.voltage_drops(state, x)), np.asarray(net.conductance)
    through = g * drops
    contents, products = [np.divide(through**2, 2 * g, where=g > 0, out=np.zeros_like(g))], [through * drops]
    co_contents = [g * drops**2 / 2]
    if net.diode is not None and len(net.diodes):
        at = np.asarray(net.diode_drops(state, x))
        size, volts = (
            np.broadcast_to(value, at.shape) for value in (net.diode.saturation_current, net.diode.emission_voltage)
        )
        current = np.asarray(net.diode.current(jnp.asarray(at)))
        contents.append(volts * (scipy.special.xlogy(current + size, (current + size) / size) - current))
        co_contents.append(np.asarray(net.diode.content(jnp.asarray(at))))
        products.append(current * at)
    both = np.concatenate(contents) + np.concatenate(co_contents)
    return agreement("content + co-content of each branch against its v i", both, np.concatenate(products), 1e-9)


@of_examples
def diode_complementarity(net: ResistorCircuit | None = None, x: Any = None) -> tuple[Finding, ...]:
    """That ideal diodes either carry a forward current or hold off a reverse voltage, and currents balance with theirs.

    These are the conditions of Karush, Kuhn and Tucker for the least co-content over v_anode <= v_cathode; as the
    co-content is convex they suffice.

    Args:
        net: a circuit with ideal diodes, on a graph or layered; a small one by default.
        x: volts at the inputs, shape (inputs,).

    Raises NotApplicableError for circuits without ideal diodes, and for sources between nodes.
    """
    if net is None:
        net, x = _circuit(diodes=[(GROUND, 1), (3, 2), (4, GROUND)]), np.array([-1.5])
    require_kind(net, ResistorCircuit, "circuits")
    circuit: ResistorNetwork = net.to_circuit()
    require(len(circuit.diodes) and circuit.diode is None, "The circuit has no ideal diodes.")
    _require_grounded_sources(circuit)
    x = jnp.asarray(x)
    state = settled(circuit, x).state
    drops, currents = np.asarray(circuit.diode_drops(state, x)), np.asarray(circuit.diode_currents(state, x))
    _, parts = _currents_leaving(circuit, np.asarray(circuit.voltages(state, x)), currents)
    free = _free_nodes(circuit)
    volts = float(np.max(np.abs(circuit.voltages(state, x)))) or 1.0
    amperes = volts * float(np.max(circuit.conductance_scale()))
    return (
        smaller("drops of the diodes", drops, np.zeros_like(drops), volts, ROUNDING),
        smaller("minus their currents", -currents, np.zeros_like(drops), amperes, ROUNDING),
        agreement("drop times current", drops * currents / (volts * amperes), np.zeros_like(drops), ROUNDING),
        agreement("currents that leave free nodes", parts[free], np.zeros(free.size), ROUNDING),
    )


@of_examples
def coordinate_descent(
    substrate: Substrate | None = None,
    x: Any = None,
    *,
    nudge: Nudge | None = None,
    start: PyTree = None,
    sweep: Solver | None = None,
    sweeps: int = 12,
) -> tuple[Finding, ...]:
    """That exact sweeps over blocks of variables never raise the total energy, and fall to that of the equilibrium.

    Args:
        substrate: a small circuit by default.
        x: the input of one example.
        nudge: what acts on the outputs.
        start: where the first sweep starts; by default near where a free phase starts.
        sweep: a solver that does one sweep; by default that of the class, or `CoordinateDescent` for circuits.
        sweeps: how many.

    Raises NotApplicableError for a system whose solver does not sweep, or not by minima of blocks.
    """
    if substrate is None:
        substrate, x = _circuit(diodes=[(GROUND, 1), (3, GROUND)]), np.array([-1.5])
    require_kind(substrate, Substrate, "systems that sweeps settle")
    require(substrate.conservative, "Without an energy nothing is to fall.")
    if sweep is None and isinstance(substrate, ResistorNetwork):
        sweep = CoordinateDescent(1)
    if sweep is None:
        own: Any = substrate.solver
        require(hasattr(own, "sweeps"), f"{type(own).__name__} does not settle {type(substrate).__name__} by sweeps.")
        stepping = isinstance(substrate, PredictiveCodingNetwork)
        require(not stepping, "Sweeps of predictive coding step along errors, and not to the minimum of a block.")
        sweep = dataclasses.replace(own, sweeps=1)
    x = jnp.asarray(x)
    state = _beside(substrate.start(x), substrate.bounds(x)) if start is None else start
    energies = [_total(substrate, state, x, nudge)]
    for _ in range(sweeps):
        state = _swept(substrate, x, nudge, state, sweep).state
        energies.append(_total(substrate, state, x, nudge))
    rest = relax(substrate, x, nudge, state, None)
    require(rest.converged, f"{type(substrate).__name__} does not come to rest: {rest.status}.")
    lowest = _total(substrate, rest.state, x, nudge)
    size = float(np.max(np.abs(energies)))
    return (
        smaller("the energy after each sweep against that before", energies[1:], energies[:-1], size, 1e-13),
        smaller("the energy at rest against that after each sweep", [lowest] * sweeps, energies[1:], size, 1e-12),
    )


def _beside(state: PyTree, bounds: Any) -> PyTree:
    """A state near one that may be at rest already."""
    draw = np.random.default_rng(0)
    moved = jax.tree.map(lambda s: s + 0.2 * draw.normal(size=np.shape(s)), state)
    return moved if bounds is None else jax.tree.map(jnp.clip, moved, *bounds)


@compiled
def _total(substrate: Substrate, state: PyTree, x: PyTree, nudge: Nudge | None) -> Any:
    return substrate.total_energy(state, x, nudge)


@compiled
def _swept(substrate: Substrate, x: PyTree, nudge: Nudge | None, start: PyTree, sweep: Solver) -> Equilibrium:
    return substrate.relax(x, nudge, start, solver=sweep)


Build = Callable[[Sequence[Any], Sequence[Any], float], Any]
_GAMMAS = (1e-4, 1e-5, 1e-6)


def universal_approximation(
    substrate: Substrate | None = None,
    x: Float[Any, "batch inputs"] = None,
    y: Any = None,
    *,
    weights: Sequence[Any] | None = None,
    biases: Sequence[Any] | None = None,
    gammas: Sequence[float] = _GAMMAS,
    build: Build = ResistorNetwork.from_relu,
) -> tuple[Finding, ...]:
    """That a circuit of resistors, diodes and amplifiers computes a ReLU perceptron up to an error O(gamma).

    Args:
        substrate: None, for the circuits are built here, at every gamma one.
        x: inputs, shape (batch, inputs).
        y: not used.
        weights, biases: of the perceptron, as `ResistorNetwork.from_relu` takes them; a small one by default.
        gammas: scales of one layer's conductances to those of the layer before it, descending.
        build: makes the circuit.

    Raises NotApplicableError for a system that is built, and for a single layer, which has no error.
    """
    require(
        substrate is None,
        "It speaks of the circuits that are built of a perceptron at ever smaller gamma: give weights, biases and x.",
    )
    draw = np.random.default_rng(3)
    if weights is None or biases is None:
        weights, biases = (
            [draw.normal(size=s) / s[0] ** 0.5 for s in ((3, 5), (5, 2))],
            [draw.normal(size=5), draw.normal(size=2)],
        )
    xs = draw.normal(size=(8, len(weights[0]))) if x is None else np.asarray(x)
    require(len(weights) > 1, "A perceptron of one layer is a circuit without error at any gamma.")
    wanted, last = xs, len(weights) - 1
    for layer, (W, b) in enumerate(zip(weights, biases, strict=True)):
        wanted = wanted @ np.asarray(W) + np.asarray(b)
        wanted = np.maximum(wanted, 0) if layer < last else wanted
    errors = []
    for gamma in gammas:
        found = relax_batch(build(weights, biases, gamma), jnp.asarray(xs))
        require(np.all(found.converged), f"The circuit does not come to rest at gamma = {gamma}.")
        errors.append(float(np.max(np.abs(np.asarray(found.state[-1]) - wanted)) / np.max(np.abs(wanted))))
    return (
        power_law("the order of the error in gamma", gammas, errors, 1),
        smaller("the error at the smallest gamma", errors[-1], 0.0, 1.0, 1e4 * gammas[-1]),
    )


THEOREMS = (
    Theorem(
        "co-content",
        r"At the operating point of a circuit the co-content $P(v) = \sum_b \int_0^{v_b} i_b(z)\,dz$ is stationary in "
        r"the voltages of the free nodes, $\partial P/\partial v_k = \sum_b i_b = 0$: Kirchhoff's current law. The "
        r"content $Q(i) = \int_0^i v\,di$ is its Legendre transform, $P + Q = v i$ in each branch.",
        ("two-terminal elements whose branch laws i(v) increase", "voltage sources to ground"),
        "Millar 1951; Kendall et al. 2020, arXiv 2006.01981",
        "circuits of resistors, sources and real diodes",
        co_content,
        universal=False,
    ),
    Theorem(
        "diode-complementarity",
        r"A circuit with ideal diodes minimises its co-content subject to $v_a \leq v_c$ at every diode; the "
        r"multipliers are the diodes' currents: $i \geq 0$, $v_a - v_c \leq 0$, $i\,(v_a - v_c) = 0$.",
        ("ideal diodes", "conductances that are not negative"),
        "Scellier 2024, arXiv 2402.11674",
        "circuits with ideal diodes",
        diode_complementarity,
        universal=False,
    ),
    Theorem(
        "coordinate-descent",
        r"A sweep that puts block after block of variables at its exact minimum given the others never raises the "
        r"total energy: $F(s^{t+1}) \leq F(s^t)$.",
        ("variables of a block do not feel one another", "each step is the minimum of its block"),
        "Scellier 2024, arXiv 2402.11674; Scellier et al. 2023, arXiv 2312.15103",
        "systems with an energy that sweeps settle",
        coordinate_descent,
        universal=False,
    ),
    Theorem(
        "universal-approximation",
        r"Sources, resistors, diodes and amplifiers compute any perceptron of ReLUs, with twice its units, up to an "
        r"error $O(\gamma)$, when the conductances of layer $l$ are scaled by $\gamma^{l-1}$.",
        ("ideal elements", "at least two layers"),
        "Scellier and Mishra 2025, arXiv 2312.15063",
        "deep resistive networks",
        universal_approximation,
        universal=False,
    ),
)
