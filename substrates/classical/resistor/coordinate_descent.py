"""Exact block coordinate descent on circuits whose ideal diodes bound single potentials."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from substrates.classical.resistor.newton import NewtonCircuit, shift_of
from substrates.classical.resistor.topology import Circuit
from substrates.nudge import Nudge
from substrates.solvers.batching import spectra_in_turn
from substrates.solvers.certificate import state_tolerance
from substrates.solvers.solver import Equilibrium, Solver, Status


class CoordinateDescent(Solver):
    """Settles a circuit of resistors, sources and ideal diodes that bound single potentials, colour by colour.

    Potentials of one colour are not joined to one another, so that all of them are put at their exact minimum at once,

        u <- clip((sum g v + I + h o + pull) / (G + h), lower, upper),

    with G the total conductance at a potential and h what the nudge adds. The co-content never rises. Costs that are
    not quadratic and separable in the outputs get a Newton step in place of the minimum.

    Attributes:
        sweeps: None to go on until the residual is below the tolerance, or a number of sweeps without a test.
        max_sweeps: the most sweeps when `sweeps` is None.

    Raises:
        ValueError: for a circuit with real diodes or with ideal diodes between potentials, and for a pin.

    Source: Scellier 2024, arXiv 2402.11674.
    """

    pins: ClassVar[bool] = False

    sweeps: int | None = eqx.field(static=True, default=None)
    max_sweeps: int = 10_000

    def __check_init__(self):
        if self.sweeps is not None and self.sweeps < 1:
            raise ValueError(f"sweeps: wanted a positive number, or None to settle, got {self.sweeps}")

    def __call__(
        self, substrate: Circuit, x: PyTree, nudge: Nudge | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        if substrate.diode is not None or substrate.topology.diodes_between_potentials:
            kind = "real diodes" if substrate.diode is not None else "ideal diodes between independent potentials"
            raise ValueError(
                "solver: wanted a circuit of resistors and of ideal diodes that bound single potentials for "
                f"CoordinateDescent, got {kind}: use OperatingPoint"
            )
        return _descend(self, substrate, jnp.asarray(x), nudge, start)


def _descend(solver: CoordinateDescent, net: Circuit, x: Array, nudge: Nudge | None, start: PyTree) -> Equilibrium:
    topology = net.topology
    circuit = NewtonCircuit.of(net, x, nudge, bounded=topology.bounded)
    first = circuit.view(start)
    limit = circuit.limit(first.meeting, first.pull)
    total, colour = net.conductance_scale(), jnp.asarray(topology.maps.colour)
    colours = jnp.max(colour, initial=-1) + 1
    if nudge is not None:
        shown = topology.maps.read_test.dense(total.dtype) * topology.maps.read.dense(total.dtype)[:, : topology.size]
    stiffness = lambda u: total if nudge is None else total + nudge.stiffness(net.read(u, x)) @ shown

    def sweep(_, u):
        def settle(number, u):
            moved = circuit.within(u - circuit.view(u, judged=False).gradient / stiffness(u))
            return jnp.where(colour == number, moved, u)

        return jax.lax.fori_loop(0, colours, settle, u)

    if solver.sweeps is not None:
        steps = jnp.asarray(solver.sweeps, jnp.int32)
        view = circuit.view(jax.lax.fori_loop(0, solver.sweeps, sweep, start))
    else:

        def running(carry):
            view, step = carry
            held = jnp.all(stiffness(view.potentials) > 0)
            return (step < solver.max_sweeps) & ~(view.left <= limit) & held

        swept = lambda carry: (circuit.view(sweep(None, carry[0].potentials)), carry[1] + 1)
        view, steps = jax.lax.while_loop(running, swept, (first, jnp.zeros((), jnp.int32)))
    found = circuit.equilibrium(view, limit, steps)
    status = found.status
    if solver.sweeps is not None:
        status = Status.where(status == Status.not_finite, status, Status.truncated)
    elif circuit.companion:
        # sweeps over a part that is joined strongly inside and weakly to the rest move it by less than rounding,
        # wherever it stands
        change = circuit.step(view).potentials - view.potentials
        arrived = shift_of(net, view.potentials, change, x) <= state_tolerance(change.dtype)
        status = Status.where((status != Status.converged) | arrived, status, Status.out_of_steps)
    status = Status.where(circuit.infeasible(view), Status.infeasible, status)
    if nudge is not None:
        curvature = nudge.curvature(net.read(view.potentials, x))
        pushes = jnp.any(spectra_in_turn(jnp.linalg.eigvalsh)(curvature) < 0)
        alone = lambda: circuit.step(view, alone=True).positive
        status = Status.where(jax.lax.cond(pushes, alone, lambda: jnp.asarray(True)), status, Status.unstable)
    return eqx.tree_at(lambda e: e.status, found, status)
