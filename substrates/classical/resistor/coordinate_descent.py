"""Exact block coordinate descent on circuits whose ideal diodes bound single potentials."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from substrates.classical.resistor.linear_solve import conductance_solver, conductances, eliminates
from substrates.classical.resistor.star_mesh import star_mesh, with_held
from substrates.classical.resistor.topology import Circuit
from substrates.nudge import Nudge
from substrates.solvers.certificate import state_tolerance
from substrates.solvers.solver import Equilibrium, Solver, Status, judge, reach, tolerance


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
    topology, dtype = net.topology, net.conductance.dtype
    limit = tolerance(net, start, x, nudge)
    total = net.conductance_scale()
    bounds = net.bounds(x)
    colour = jnp.asarray(topology.maps.colour)
    colours = jnp.max(colour, initial=-1) + 1
    read = (
        None
        if nudge is None
        else topology.maps.read_test.dense(dtype) * topology.maps.read.dense(dtype)[:, : topology.size]
    )

    def added(u) -> Float[Array, "potentials"]:
        if nudge is None:
            return jnp.zeros_like(total)
        return nudge.stiffness(net.read(u, x)) @ read

    def sweep(u):
        def settle(number, u):
            moved = u + net.total_force(u, x, nudge) / (total + added(u))
            return jnp.where(colour == number, moved if bounds is None else jnp.clip(moved, *bounds), u)

        return jax.lax.fori_loop(0, colours, settle, u)

    held = lambda u: jnp.all(total + added(u) > 0)
    if solver.sweeps is not None:
        steps = jnp.asarray(solver.sweeps, jnp.int32)
        u = jax.lax.fori_loop(0, solver.sweeps, lambda _, u: sweep(u), start)
    else:

        def running(carry):
            u, step = carry
            return (step < solver.max_sweeps) & ~(net.residual(u, x, nudge) <= limit) & held(u)

        u, steps = jax.lax.while_loop(running, lambda c: (sweep(c[0]), c[1] + 1), (start, jnp.zeros((), jnp.int32)))
    found = judge(net, u, x, nudge, steps, limit)
    status = found.status
    if solver.sweeps is not None:
        status = Status.where(status == Status.not_finite, status, Status.truncated)
    elif eliminates(topology):
        status = Status.where((status != Status.converged) | _arrived(net, u, x, nudge), status, Status.out_of_steps)
    if topology.maps.held.size:
        forced = jnp.any(net.stationarity(u, x, nudge)[-1] > limit)
        status = Status.where(forced, Status.infeasible, status)
    if bounds is not None:
        status = Status.where(jnp.any(bounds[0] > bounds[1]), Status.infeasible, status)
    if isinstance(nudge, Nudge):
        solve = conductance_solver(topology, dtype)
        curvature = nudge.curvature(net.read(u, x))
        stable = lambda: solve(net.conductance, jnp.zeros_like(u), curvature).positive
        pushes = jnp.any(jnp.linalg.eigvalsh(curvature) < 0) if curvature.size else jnp.asarray(False)
        status = Status.where(jax.lax.cond(pushes, stable, lambda: jnp.asarray(True)), status, Status.unstable)
    return eqx.tree_at(lambda e: e.status, found, status)


def _arrived(net: Circuit, u: Array, x: Array, nudge: Nudge | None) -> Bool[Array, ""]:
    """Whether the circuit with the potentials held that a bound holds has its operating point here.

    Sweeps over a part that is joined strongly inside and weakly to the rest move it by less than rounding, wherever it
    stands.
    """
    topology, bounds = net.topology, net.bounds(x)
    held, place = jnp.zeros(u.shape, bool), u
    if bounds is not None:
        force, stiffness = net.total_force(u, x, nudge), net.conductance_scale()
        low, high = (force <= reach(stiffness, bounds[0], u)), (force >= reach(stiffness, bounds[1], u))
        held, place = low | high, jnp.where(low, bounds[0], jnp.where(high, bounds[1], u))
    driven, curvature = -net.imbalance(jnp.zeros_like(u), x), None
    if nudge is not None:
        output = net.read(u, x)
        curvature = nudge.curvature(output)
        driven += topology.maps.read_test.transpose(nudge.pull(output) + curvature @ topology.maps.read_test(u))
    there, _ = star_mesh(*with_held(*conductances(topology, net.conductance, curvature), driven, held, place))
    size = jnp.max(jnp.abs(net.voltages(u, x)), initial=0.0)
    return jnp.max(jnp.abs(there - u), initial=0.0) <= state_tolerance(u.dtype) * size
