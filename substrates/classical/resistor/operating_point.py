"""The solver of circuits: damped Newton on the co-content, with multipliers for ideal diodes and pinned outputs."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from substrates.classical.resistor.linear_solve import DENSE_SIZE, eliminates
from substrates.classical.resistor.newton import Ending, NewtonCircuit, Penalty, newton, shift_of
from substrates.classical.resistor.sparse_inverse import WIDEST
from substrates.classical.resistor.topology import Circuit
from substrates.nudge import HeldBySprings, Nudge, Pin
from substrates.solvers.certificate import state_tolerance
from substrates.solvers.solver import Equilibrium, Solver, Status, judged

PENALTY = 100.0
"""Conductance of a penalised diode or pin, in units of the total conductance at its ends."""


class OperatingPoint(Solver):
    """Finds the operating point of a circuit, exactly, from any start, however far its conductances are apart.

    Resistors, sources, real diodes and nudges: Newton's method on Kirchhoff's current law, damped so that the
    co-content falls (one step for a linear circuit). Ideal diodes that bound single potentials: the same with those
    held that their bounds take up, and steps cut off at the bounds (a projected Newton method). Other ideal diodes,
    and pins: the augmented Lagrangian, in which a diode is one of conductance r in series with a battery i_d / r,
    i = max(0, i_d + r (v_anode - v_cathode)); each round solves that circuit by Newton, takes its diode currents for
    i_d, and corrects them with the conducting diodes held. Both converge from anywhere, and end exactly once the set
    of conducting diodes is right.

    Kirchhoff's law may hold to rounding at every node of a part whose nodes are joined strongly to one another and
    weakly to the rest, wherever that part stands. So each relaxation solves at least once, and ends where the next
    solution is the same: nodes are eliminated without a subtraction (`star_mesh`), which no ratio of conductances
    disturbs; circuits with controlled sources and large ones are refined.

    Status: infeasible, where the diode currents grow along a circulation that the sources drive (Farkas' certificate);
    unstable, where the conductances and the nudge's curvature together are not positive definite; ill_conditioned,
    where the solution of a large circuit, or of one with controlled sources, is not decided by its precision.

    Attributes:
        max_steps: the most Newton steps in all.
        dense_size: up to this many potentials nodes are eliminated one by one; above, the conductance matrix is sparse
            and inverted on the host, once for all phases with the same conductances.
        widest: up to this bandwidth a sparse matrix is factorised; wider ones are solved by conjugate gradients with
            algebraic multigrid, and factorised after all where these stall: conductances at random over many decades.

    Source: Bertsekas 1982, "Projected Newton methods for optimization problems with simple constraints"; Rockafellar
    1976, "Augmented Lagrangians and applications of the proximal point algorithm in convex
    programming"; the test of steps, Hager and Zhang 2005, "A new conjugate gradient method with guaranteed descent".
    """

    max_steps: int = 500
    dense_size: int = DENSE_SIZE
    widest: int = WIDEST

    def __call__(
        self, substrate: Circuit, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        return _settle(self, substrate, jnp.asarray(x), nudge, start)


def _settle(solver: OperatingPoint, net: Circuit, x: Array, nudge: Any, start: PyTree) -> Equilibrium:
    topology, nudged, pinned = net.topology, isinstance(nudge, Nudge), isinstance(nudge, Pin)
    single = eliminates(topology, solver.dense_size) and not (pinned or topology.diodes_between_potentials)
    circuit = NewtonCircuit.of(net, x, nudge, solver.dense_size, solver.widest, bounded=topology.bounded and single)
    if pinned or (topology.bounded and not single):
        found, infeasible, ending = _multipliers(solver, circuit, start)
    else:
        first = circuit.view(circuit.within(start))
        limit = circuit.limit(first.meeting, first.pull)
        view, ending = newton(circuit, first, limit, solver.max_steps)
        if not circuit.exact:
            ending = ending._replace(precise=circuit.decided(view))
        found, infeasible = circuit.equilibrium(view, limit, ending.steps), circuit.infeasible(view)
    failed = found.status != Status.converged
    status = Status.where(ending.still | failed, found.status, Status.out_of_steps)
    status = Status.where(ending.precise | failed, status, Status.ill_conditioned)
    # what is not positive definite without a nudge has a node that no conductance holds
    told = ending.stable | (found.status == Status.not_finite)
    unheld = Status.zero_mode if net.conservative else Status.unstable
    if nudged and net.conservative:
        unheld = Status.where(nudge.beta == 0, Status.zero_mode, Status.unstable)
    status = Status.where(told, status, unheld)
    if pinned or topology.bounded or net.diode is not None:
        status = Status.where(infeasible, Status.infeasible, status)
    return eqx.tree_at(lambda e: e.status, found, status)


def _multipliers(solver: OperatingPoint, free: NewtonCircuit, start: PyTree) -> tuple[Equilibrium, Array, Ending]:
    """The augmented Lagrangian: (what it found, whether that is infeasible, how it ended)."""
    net, x, nudge, maps = free.net, free.x, free.hold, free.net.topology.maps
    dtype, ideal, pinned = net.conductance.dtype, net.topology.bounded, isinstance(nudge, Pin)
    epsilon = float(jnp.finfo(dtype).eps)
    held = net.held_by(nudge, net.read(start, x)) if isinstance(nudge, Nudge) else None
    diode_strength = PENALTY * net.diode_scale(held) if ideal else jnp.zeros(0, dtype)
    pin_strength = PENALTY * net.output_scale() if pinned else jnp.zeros(0, dtype)
    target = jnp.asarray(nudge.target, dtype) if pinned else jnp.zeros(0, dtype)
    at_rest = jnp.zeros(net.topology.size, dtype)
    carries_currents = isinstance(start, tuple)
    bounds = None if carries_currents else net.bounds(x)
    stiffer = epsilon**-0.25

    def limit_at(state):
        if pinned or nudge is None:
            return free.limit(at_rest, None)
        u, current = state if carries_currents else (state, None if net.diode is None else net.diode.current)
        meeting = net.meeting_at(net.flow(u, x, current), free.ceiling)
        return free.limit(meeting, nudge.pull(net.read(u, x)))

    def state_of(u, diode_current):
        if carries_currents:
            return u, diode_current
        return u if bounds is None else jnp.clip(u, *bounds)

    def circuit(diode_current, pin_current, stiffer: float = 1.0, **options):
        law = Penalty(diode_current, diode_strength, stiffer) if ideal else free.law
        hold = HeldBySprings(target, pin_current, stiffer * pin_strength) if pinned else nudge
        return dataclasses.replace(free, law=law, hold=hold, **options)

    def corrected(carry, _):
        """A Newton step on Kirchhoff's law and on the drops of the diodes that conduct, which are held at zero."""
        u, diode_current, pin_current = carry
        held = circuit(diode_current, pin_current, stiffer, companion=False)
        view = held.view(u, judged=False)
        found = held.step(view)
        change = found.potentials
        # the drops to come, from the change: differences of voltages would be rounded too coarsely
        if ideal:
            diode_current = view.flow.diode_current + held.law.conductance(view.flow.diode_drops) * maps.diode(change)
        if pinned:
            pin_current = stiffer * pin_strength * maps.read_test(change) - view.pull
        return (u + change, diode_current, pin_current), (shift_of(net, u + change, change, x), found.precise)

    def running(carry):
        *_, residual, infeasible, ending = carry
        going = ((ending.steps < solver.max_steps) | (ending.steps == 0)) & ~infeasible & ending.stable
        return going & ~((residual <= limit) & ending.still)

    def round_(carry):
        u, diode_current, pin_current, _, _, ending = carry
        looseness = jnp.where(ending.steps < solver.max_steps // 10, PENALTY, 1.0).astype(dtype)
        inner = circuit(diode_current, pin_current)
        view, inside = newton(inner, inner.view(u), looseness * limit, solver.max_steps, certain=free.law is not None)
        plain = (
            view.potentials,
            view.flow.diode_current if ideal else diode_current,
            -view.pull if pinned else pin_current,
        )
        infeasible = certified(plain[1] - diode_current, plain[2] - pin_current)
        polished, (shifts, precise) = jax.lax.scan(corrected, plain, None, length=4)
        both = jax.tree.map(lambda p, q: jnp.stack([p, q]), plain, polished)
        residual, polished_residual = jax.vmap(lambda u, i, _: net.residual(state_of(u, i), x, nudge))(*both)
        better = polished_residual <= jnp.maximum(residual, limit)
        kept = jax.tree.map(lambda p, q: jnp.where(better, p, q), (*polished, polished_residual), (*plain, residual))
        still = better & (shifts[-1] <= 0.5 * state_tolerance(dtype))
        steps = ending.steps + jnp.maximum(inside.steps, 1)
        return *kept, infeasible, Ending(steps, still, inside.stable, precise[-1])

    def certified(diode_growth, pin_growth):
        """Farkas: a circulation of diode and pin currents that meets no resistor and that the sources drive."""
        back, work, growth = at_rest, [], []
        if ideal:
            upward = jnp.maximum(diode_growth, 0.0)
            back += maps.diode.transpose(upward)
            growth, work = [upward], [upward * net.diode_drops(at_rest, x)]
        if pinned:
            back += maps.read_test.transpose(pin_growth)
            growth, work = [*growth, pin_growth], [*work, pin_growth * (net.read(at_rest, x) - target)]
        growth, work = jnp.concatenate(growth), jnp.concatenate(work)
        small = epsilon**0.5
        resisted = jnp.max(jnp.abs(back), initial=0.0) > small * jnp.max(jnp.abs(growth), initial=0.0)
        return ~resisted & (jnp.sum(work) > small * jnp.sum(jnp.abs(work)))

    u, diode_current = start if carries_currents else (start, jnp.zeros_like(diode_strength))
    limit = limit_at(start)
    first = (u, diode_current, jnp.zeros_like(target), jnp.asarray(jnp.inf, diode_strength.dtype), np.False_, Ending())
    u, diode_current, pin_current, residual, infeasible, ending = jax.lax.while_loop(running, round_, first)
    if isinstance(nudge, Nudge):
        positive = free.solve(net.conductance, at_rest, nudge.curvature(net.read(u, x))).positive
        ending = ending._replace(stable=ending.stable & (positive | (nudge.beta == 0)))
    if not free.exact:
        held = circuit(diode_current, pin_current, stiffer)
        ending = ending._replace(precise=held.decided(held.view(u)))
    state = state_of(u, diode_current)
    energy = net.total_energy(state, x, nudge) if net.conservative else None
    return judged(state, energy, residual, ending.steps, jnp.maximum(limit, limit_at(state))), infeasible, ending
