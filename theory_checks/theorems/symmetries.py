"""Theorems of symmetry: reciprocity of responses, and what may be turned, shifted or renamed without a change."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from substrates.classical.elastic import ElasticNetwork
from substrates.classical.ising import IsingModel
from substrates.classical.oscillator import OscillatorNetwork
from substrates.classical.resistor import GROUND, ResistorNetwork
from substrates.quantum.transverse_ising import TransverseFieldIsing
from substrates.substrate import Nudge, Substrate
from theory_checks.case import compiled
from theory_checks.theorems.measured import agreement, of_examples, require, require_kind, settled
from theory_checks.theorems.theorem import Finding, NotApplicableError, Theorem

_SQUARE = [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]


class _Field(eqx.Module):
    """C = <direction, output>: a constant pull on the outputs."""

    separable: ClassVar[bool] = True
    quadratic: ClassVar[bool] = True

    direction: Float[Array, "outputs"]

    def __call__(self, output: Array, target: Array) -> Array:
        return jnp.sum(self.direction * output)


@of_examples
def onsager_reciprocity(
    substrate: Substrate | None = None, x: Any = None, *, beta: float | None = None, start: PyTree = None
) -> tuple[Finding, ...]:
    """That outputs answer to fields on one another symmetrically, R_kj = do_k/dbeta_j = R_jk; or, for a system without
    an energy, by how much they do not.

    With J the Jacobian of the force and P what outputs show of the state, R = P J^-1 P' and so
    R - R' = -2 P J'^-1 A J^-1 P', A = (J - J')/2: zero where the force has an energy.

    Args:
        substrate: with at least two outputs; a small resistor network by default.
        x: the input of one example.
        beta: the largest field; by default one that moves outputs by a hundredth of their size.
        start: where the free phase starts.

    Raises NotApplicableError for fewer outputs, states that are discrete or bounded, and where nothing comes to rest.
    """
    if substrate is None:
        edges, siemens = [*_SQUARE, (3, 4), (1, 4), (4, GROUND)], [1.0, 0.4, 0.7, 1.3, 0.2, 0.5, 0.9, 0.3]
        substrate = ResistorNetwork.from_edges(edges, 5, inputs=[0], outputs=[1, 2, 4], conductance=siemens)
        x = np.array([1.5])
    require_kind(substrate, Substrate, "systems that settle")
    x = jnp.asarray(x)
    smooth = not substrate.discrete and substrate.bounds(x) is None
    require(smooth, "States that are discrete or at bounds do not answer smoothly.")
    free = settled(substrate, x, None, start).state
    outputs = np.asarray(substrate.read(free, x))
    require(outputs.size > 1, "There is one output: nothing to be reciprocal with.")

    def shown(strength: float, direction: np.ndarray) -> np.ndarray:
        nudge = Nudge(_Field(jnp.asarray(direction)), jnp.zeros(outputs.size), jnp.asarray(strength))
        return np.asarray(substrate.read(settled(substrate, x, nudge, free).state, x))

    def responses(strength: float) -> np.ndarray:
        columns = [(shown(strength, e) - shown(-strength, e)) / (2 * strength) for e in np.eye(outputs.size)]
        return np.stack(columns, axis=1)

    if beta is None:
        weak = 1e-6
        beta = min(1e-2, 1e-2 * float(0.1 + np.max(np.abs(outputs))) / float(np.max(np.abs(responses(weak))) + weak))
    found = (4 * responses(beta / 2) - responses(beta)) / 3
    if substrate.conservative:
        return (agreement("do_k/dbeta_j against its transpose", found, found.T, 1e-6),)
    jacobian, show = (np.asarray(matrix) for matrix in _slopes(substrate, free, x))
    inverse = np.linalg.inv(jacobian)
    odd = -2 * show @ inverse.T @ ((jacobian - jacobian.T) / 2) @ inverse @ show.T
    size = np.linalg.norm(found)
    gap = "R - R' over R against -2 P J'^-1 A J^-1 P'"
    return (
        agreement("do_k/dbeta_j against P J^-1 P'", found, show @ inverse @ show.T, 1e-6),
        Finding(gap, found - found.T, odd, float(np.linalg.norm(found - found.T - odd) / size), 1e-6),
    )


@compiled
def _slopes(substrate: Substrate, state: PyTree, x: Array) -> tuple[Array, Array]:
    """The Jacobians of the force and of what is read, in the state."""
    vector, unravel = ravel_pytree(state)
    force = lambda s: ravel_pytree(substrate.force(unravel(s), x))[0]
    return jax.jacfwd(force)(vector), jax.jacfwd(lambda s: substrate.read(unravel(s), x))(vector)


@of_examples
def gauge_symmetries(substrate: Substrate | None = None, x: Any = None, *, seed: int = 0) -> tuple[Finding, ...]:
    """That what nobody can see changes nothing: spins and their fields turned round, the common phase of oscillators,
    rigid motions of springs, a constant added to all voltages, the sign of a quantum state.

    The energy is compared at random states, and equilibria where the transformed system settles too.

    Args:
        substrate: an `IsingModel`, an `OscillatorNetwork`, an `ElasticNetwork`, a `ResistorNetwork` or a
            `TransverseFieldIsing`; by default one of each.
        x: the input of one example.
        seed: draws the states and the transformations.

    Raises NotApplicableError for other systems and for those that something fixes in space, phase or voltage.
    """
    if substrate is None:
        return tuple(finding for system, x in _examples() for finding in gauge_symmetries(system, x, seed=seed))
    kinds = (IsingModel, OscillatorNetwork, ElasticNetwork, ResistorNetwork, TransverseFieldIsing)
    require_kind(substrate, kinds, "spins, oscillators, springs and circuits on graphs")
    return _symmetries(substrate, jnp.asarray(x), np.random.default_rng(seed))


def _examples() -> list[tuple[Substrate, Any]]:
    square = np.array([[0.0, 0.0], [1.0, 0.1], [1.1, 0.9], [0.0, 1.2]])
    strengths = np.array([0.7, -0.4, 0.9, 0.3, -0.6])
    springs = {"positions": square, "inputs": [], "outputs": [2], "stiffness": np.abs(strengths), "floppy": True}
    spins = {"coupling": strengths, "longitudinal_field": [0.3, -0.2, 0.1, 0.4], "outputs": ["Z1", "X2"]}
    fields = {"field": 0.3, "field_phase": [0.1, 0.9, -0.4, 0.6]}
    return [
        (IsingModel.from_edges(_SQUARE, coupling=strengths, field=0.25, inputs=[0], outputs=[2]), np.array([0.8])),
        (OscillatorNetwork.from_edges(_SQUARE, coupling=strengths, inputs=[0], outputs=[2], **fields), np.array([0.4])),
        (ElasticNetwork.from_edges(_SQUARE, **springs), np.zeros(0)),
        (
            ResistorNetwork.from_edges(_SQUARE, inputs=[0, 1], outputs=[2], conductance=np.abs(strengths)),
            np.array([1.0, -0.5]),
        ),
        (TransverseFieldIsing.from_edges(_SQUARE, transverse_field=[0.8, 1.1, 0.6, 0.9], **spins), np.zeros(0)),
    ]


@compiled
def _energies(substrate: Substrate, states: PyTree, x: Array) -> Any:
    return jax.vmap(lambda s: substrate.energy(s, x))(states)


def _carried(
    name: str, systems: tuple[Substrate, Substrate], inputs: tuple[Any, Any], states: Any, act: Callable, bound: float
) -> tuple[Finding, ...]:
    """That energies are the same at states and at transformed ones, and that the equilibrium is carried along."""
    before, after = (
        _energies(s, jnp.asarray(state), x) for s, x, state in zip(systems, inputs, (states, act(states)), strict=True)
    )
    one = settled(systems[0], inputs[0]).state
    other = settled(systems[1], inputs[1], None, jnp.asarray(act(np.asarray(one)))).state
    return (
        agreement(f"{name}: energies at random states", after, before, 1e-11),
        agreement(f"{name}: the equilibrium", other, act(np.asarray(one)), bound),
    )


@functools.singledispatch
def _symmetries(substrate: Any, x: Any, draw: np.random.Generator) -> tuple[Finding, ...]:
    raise NotApplicableError(f"No symmetry is known of {type(substrate).__name__}.")


@_symmetries.register
def _(net: IsingModel, x: Any, draw: np.random.Generator) -> tuple[Finding, ...]:
    roles, edges = net.roles, np.asarray(net.coupling.graph.edges)
    free, held = np.asarray(roles.free), np.asarray(roles.inputs)
    states = draw.choice([-1.0, 1.0], (8, free.size))
    findings = []
    for name, g in (
        ("all spins and fields turned round", -np.ones(net.n)),
        ("some of them", draw.choice([-1.0, 1.0], net.n)),
    ):
        moved = (net.coupling.weight * g[edges[:, 0]] * g[edges[:, 1]], net.field * g)
        turned = eqx.tree_at(lambda n: (n.coupling.weight, n.field), net, moved)
        findings += _carried(name, (net, turned), (x, x * g[held]), states, lambda s, g=g: s * g[free], 0.0)
    return tuple(findings)


@_symmetries.register
def _(net: OscillatorNetwork, x: Any, draw: np.random.Generator) -> tuple[Finding, ...]:
    pinned = net.second_harmonic is not None and np.any(net.second_harmonic)
    require(not pinned, "Second harmonics hold the phases to two directions.")
    tilted = net.frequency is not None and np.any(net.frequency)
    require(not tilted, "With natural frequencies the energy of a common phase is that of their sum.")
    turn = float(draw.uniform(0.5, 1.5))
    places = lambda n: (n.field_phase, n.reference_phase)
    turned = eqx.tree_at(places, net, tuple(value + turn for value in places(net)))
    states = draw.normal(size=(8, np.asarray(net.roles.free).size))
    return _carried("a common phase", (net, turned), (x, x + turn), states, lambda s: s + turn, 1e-7)


@_symmetries.register
def _(net: ElasticNetwork, x: Any, draw: np.random.Generator) -> tuple[Finding, ...]:
    require(net.load is None, "Dead loads have directions that no rotation carries along.")
    require(not len(net.topology.prescribed), "Nodes that are held fix the network in space.")
    first = np.asarray(net.initial_state(x))
    rotation = np.linalg.qr(draw.normal(size=(first.shape[1],) * 2))[0]
    shift, states = draw.normal(size=first.shape[1]), first + 0.2 * draw.normal(size=(8, *first.shape))
    act = lambda s: s @ rotation.T + shift
    forces = compiled(lambda s: jax.vmap(lambda one: net.force(one, x))(s))
    name = "rigid motions"
    return (
        agreement(
            f"{name}: energies at random states",
            _energies(net, jnp.asarray(act(states)), x),
            _energies(net, jnp.asarray(states), x),
            1e-11,
        ),
        agreement(
            f"{name}: forces, which turn",
            forces(jnp.asarray(act(states))),
            forces(jnp.asarray(states)) @ rotation.T,
            1e-10,
        ),
    )


@_symmetries.register
def _(net: ResistorNetwork, x: Any, draw: np.random.Generator) -> tuple[Finding, ...]:
    joined = [net.edges, net.diodes, net.current_sources, net.voltage_sources, net.controlled_sources]
    grounded = any(np.any(np.asarray(nodes) == GROUND) for nodes in joined)
    require(not grounded, "Elements that lead to ground fix the voltages.")
    require(not net.topology.diodes_between_potentials, "The state holds currents of diodes beside voltages.")
    shift = float(draw.uniform(0.5, 1.5))
    raised = eqx.tree_at(lambda n: n.rail_voltage, net, net.rail_voltage + shift)
    states = draw.normal(size=(8, net.topology.size))
    return _carried(
        "a constant added to all voltages", (net, raised), (x, x + shift), states, lambda s: s + shift, 1e-9
    )


@_symmetries.register
def _(net: TransverseFieldIsing, x: Any, draw: np.random.Generator) -> tuple[Finding, ...]:
    require(net.entry == "fields", "Spins that are clamped do not turn round.")
    turned = eqx.tree_at(lambda n: n.longitudinal_field, net, -net.longitudinal_field)
    states = draw.normal(size=(8, net.dimension))
    # X on every spin turns up into down: the basis states in reverse
    flipped = lambda s: s[..., ::-1]
    one, other = settled(net, x).state, settled(turned, -x).state
    outcomes = agreement(
        "its probabilities, which are turned round", np.asarray(other) ** 2, flipped(np.asarray(one)) ** 2, 1e-7
    )
    plain = _energies(net, jnp.asarray(states), x)
    return (
        agreement(
            "spins and longitudinal fields turned round: energies",
            _energies(turned, jnp.asarray(flipped(states)), -x),
            plain,
            1e-11,
        ),
        agreement("the sign of the state: energies", _energies(net, jnp.asarray(-states), x), plain, 1e-13),
        outcomes,
    )


THEOREMS = (
    Theorem(
        "onsager-reciprocity",
        r"The response $R_{kj} = do_k/d\beta_j$ of output $k$ to a field on output $j$ is symmetric where the force "
        r"has an energy. For a vector field with Jacobian $J = S + A$ it is not, by $R - R' = -2PJ'^{-1}AJ^{-1}P'$.",
        ("a rest that is not degenerate", "fields that act through what is read"),
        "Onsager 1931; Wanjura and Marquardt 2024, arXiv 2406.06482; Scellier et al. 2018, arXiv 1808.04873",
        "systems of two outputs or more whose states are smooth",
        onsager_reciprocity,
        universal=False,
    ),
    Theorem(
        "gauge-symmetries",
        r"$E(gs; g\theta, gx) = E(s; \theta, x)$, and equilibria go along, for spins turned round with their fields, a "
        r"common phase, rigid motions, a constant added to all voltages, the sign of a state vector.",
        ("nothing that fixes the system in space, phase or voltage",),
        "Mattis 1976 for spins; textbook symmetries of the others",
        "spins, oscillators, springs, circuits and quantum spins on graphs",
        gauge_symmetries,
        universal=False,
    ),
)
