"""The solver of circuits: damped Newton on the co-content, with multipliers for ideal diodes and pinned outputs."""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, PRNGKeyArray, PyTree

from substrates.classical.resistor.linear_solve import DENSE_SIZE, Solve, Solved, conductance_solver, eliminates
from substrates.classical.resistor.topology import Circuit, potentials_of
from substrates.nudge import HeldBySprings, Nudge, Pin
from substrates.solvers.certificate import state_tolerance
from substrates.solvers.solver import Equilibrium, Solver, Status, judge, left_over, tolerance

PENALTY = 100.0
"""Conductance of a penalised diode or pin, in units of the total conductance at its ends."""


class OperatingPoint(Solver):
    """Finds the operating point of a circuit, exactly, from any start, however far its conductances are apart.

    Resistors, sources, real diodes and nudges: Newton's method on Kirchhoff's current law, damped so that the
    co-content falls (one step for a linear circuit). Ideal diodes and pins: the augmented Lagrangian, in which a diode
    is one of conductance r in series with a battery i_d / r, i = max(0, i_d + r (v_anode - v_cathode)); each round
    solves that circuit by Newton, takes its diode currents for i_d, and corrects them with the conducting diodes held.
    It converges from anywhere, and ends exactly once the set of conducting diodes is right.

    Kirchhoff's law may hold to rounding at every node of a part whose nodes are joined strongly to one another and
    weakly to the rest, wherever that part stands. So each relaxation solves at least once, and ends where the next
    solution is the same: nodes are eliminated without a subtraction (`star_mesh`), which no ratio of conductances
    disturbs; circuits with controlled sources and large ones are refined.

    Status: infeasible, where the diode currents grow along a circulation that the sources drive (Farkas' certificate);
    unstable, where the conductances and the nudge's curvature together are not positive definite; ill_conditioned,
    where a large circuit's solution is not decided by its precision.

    Attributes:
        max_steps: the most Newton steps in all.
        dense_size: up to this many potentials nodes are eliminated one by one; above, the conductance matrix is sparse
            and factorised on the host.

    Source: Rockafellar 1976, "Augmented Lagrangians and applications of the proximal point algorithm in convex
    programming"; the test of steps, Hager and Zhang 2005, "A new conjugate gradient method with guaranteed descent".
    """

    max_steps: int = 500
    dense_size: int = DENSE_SIZE

    def __call__(
        self, substrate: Circuit, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        return _settle(self, substrate, jnp.asarray(x), nudge, start)


class _Penalty(eqx.Module):
    """Diodes as i = max(0, i_d + r v): ideal ones, but for the conductance r and the battery i_d / r."""

    multiplier: Inexact[Array, "diodes"]
    strength: Float[Array, "diodes"]

    def current(self, drop):
        return jnp.maximum(self.multiplier + self.strength * drop, 0.0)

    def conductance(self, drop):
        return jnp.where(self.multiplier + self.strength * drop > 0, self.strength, 0.0)

    def content(self, drop):
        return self.current(drop) ** 2 / (2 * self.strength)


class _Straightened(eqx.Module):
    """Real diodes whose current goes on along its tangent above a knee, so that no exponential overflows."""

    law: Any
    knee: Float[Array, ""]

    def current(self, drop):
        above = jnp.maximum(drop - self.knee, 0.0)
        return self.law.current(jnp.minimum(drop, self.knee)) + self.law.conductance(self.knee) * above

    def conductance(self, drop):
        return self.law.conductance(jnp.minimum(drop, self.knee))

    def content(self, drop):
        above = jnp.maximum(drop - self.knee, 0.0)
        tangent = self.law.current(self.knee) * above + self.law.conductance(self.knee) * above**2 / 2
        return self.law.content(jnp.minimum(drop, self.knee)) + tangent


class _Unconstrained(eqx.Module):
    """A circuit without constraints: what Newton's method sees.

    Attributes:
        companion: whether a step solves for the potentials, as SPICE does, rather than for their change.
        exact: whether solutions are exact, or say where they are not precise.
    """

    net: Circuit
    x: Array
    diode: Any
    hold: Any
    solve: Solve = eqx.field(static=True)
    companion: bool = eqx.field(static=True)
    exact: bool = eqx.field(static=True)

    @property
    def linear(self) -> bool:
        """Whether one step is exact."""
        affine = self.hold is None or self.hold.affine
        return self.exact and self.diode is None and affine

    def gradient(self, u):
        net = self.net
        current = None if self.diode is None else self.diode.current(net.diode_drops(u, self.x))
        balance = net.imbalance(u, self.x, current)
        if self.hold is None:
            return balance
        return balance - net.topology.read_test_map.transpose(self.hold.pull(net.read(u, self.x)))

    def merit(self, u, gradient):
        net = self.net
        if not net.conservative:
            return jnp.max(jnp.abs(gradient), initial=0.0)
        merit = net.content(u, self.x)
        if self.diode is not None:
            merit += jnp.sum(self.diode.content(net.diode_drops(u, self.x)))
        return merit if self.hold is None else merit + self.hold.energy(net.read(u, self.x))

    def step(self, u, gradient) -> tuple[Array, Solved]:
        """Where Newton's method leads from the potentials u."""
        net, topology, diode, hold = self.net, self.net.topology, self.diode, self.hold
        conductance, curvature = net.conductance, None
        # every element as a conductance beside a current source: nothing is lost to what u already carries
        driven = -net.imbalance(jnp.zeros_like(u), self.x)
        if diode is not None:
            drop = net.diode_drops(u, self.x)
            slope = diode.conductance(drop)
            conductance = jnp.concatenate([conductance, slope])
            driven += topology.diode_test_map.transpose(slope * topology.diode_map(u) - diode.current(drop))
        if hold is not None:
            output = net.read(u, self.x)
            curvature = hold.curvature(output)
            pull = hold.pull(output) + curvature @ topology.read_map(u)
            driven += topology.read_test_map.transpose(pull)
        found = self.solve(conductance, driven if self.companion else -gradient, curvature)
        return found.potentials if self.companion else u + found.potentials, found


def _settle(solver: OperatingPoint, net: Circuit, x: Array, nudge: Nudge | Pin | None, start: PyTree) -> Equilibrium:
    solve = conductance_solver(net.topology, net.conductance.dtype, solver.dense_size)
    companion = eliminates(net.topology, solver.dense_size)
    circuit_of = functools.partial(
        _Unconstrained,
        net,
        x,
        solve=solve,
        companion=companion,
        exact=companion or len(net.topology.potentials) > solver.dense_size,
    )
    ideal = net.topology.ideal_diodes and len(net.topology.diodes) > 0
    limit = tolerance(net, start, x, nudge)
    if ideal or isinstance(nudge, Pin):
        state, ending = _multipliers(solver, net, x, nudge, start, circuit_of, limit)
    else:
        circuit = circuit_of(_real_diodes(net, x), nudge)
        state, ending = _newton(circuit, start, limit, solver.max_steps)
    # the pulls, and with them what they may leave over, are those of the state that was found
    limit = jnp.maximum(limit, tolerance(net, state, x, nudge))
    found = judge(net, state, x, nudge, ending.steps, limit)
    status = Status.where(ending.still | ~found.converged, found.status, Status.out_of_steps)
    status = Status.where(ending.precise | ~found.converged, status, Status.ill_conditioned)
    # what is not positive definite without a nudge has a node that no conductance holds
    pushed = isinstance(nudge, Nudge) or not net.conservative
    told = ending.stable | (found.status == Status.not_finite)
    status = Status.where(told, status, Status.unstable if pushed else Status.zero_mode)
    status = Status.where(ending.infeasible, Status.infeasible, status)
    return eqx.tree_at(lambda e: e.status, found, status)


class _Ending(eqx.Module):
    """How an iteration ended.

    Attributes:
        steps: how many Newton steps it took.
        still: whether the last one led to where it was.
        stable: whether the last matrix was positive definite.
        precise: whether the last solution was decided by the precision.
        infeasible: whether the sources drive a current without limit.
    """

    steps: Array
    still: Bool[Array, ""]
    stable: Bool[Array, ""]
    precise: Bool[Array, ""]
    infeasible: Bool[Array, ""]


def _real_diodes(net: Circuit, x: Array) -> Any:
    """The law of the real diodes, straightened far above the current that the sources can drive; None without any."""
    if net.diode is None or jnp.iscomplexobj(net.conductance):
        return net.diode
    highest = 1e3 * net.current_ceiling(x) / net.diode.saturation_current
    return _Straightened(net.diode, net.diode.emission_voltage * jnp.log1p(highest))


def _shift(net: Circuit, u: Array, change: Array, x: Array) -> Float[Array, ""]:
    """The largest change of a potential as a part of the largest voltage."""
    span = jnp.maximum(jnp.max(jnp.abs(net.voltages(u, x)), initial=0.0), jnp.max(jnp.abs(u), initial=0.0))
    return jnp.max(jnp.abs(change), initial=0.0) / jnp.where(span > 0, span, 1)


def _newton(circuit: _Unconstrained, u, limit, max_steps, certain: bool = True) -> tuple[Any, _Ending]:
    """Damped Newton to where Kirchhoff's law holds at every node and, to be `certain`, a step leads nowhere."""
    net, x = circuit.net, circuit.x
    complex_valued = jnp.iscomplexobj(u)
    epsilon = float(jnp.finfo(u.dtype).eps)
    small = 0.5 * state_tolerance(u.dtype)
    scale = lambda u: potentials_of(net.force_scale(u, x))

    def running(carry):
        u, gradient, ending, going = carry
        settled = left_over(gradient, scale(u)) <= limit
        return (ending.steps < max_steps) & ending.stable & going & ~(settled & (ending.still | (not certain)))

    def advance(carry):
        u, gradient, ending, _ = carry
        target, found = circuit.step(u, gradient)
        direction = target - u
        shift = _shift(net, target, direction, x)
        ended = lambda still: _Ending(ending.steps + 1, still, found.positive, found.precise, ending.infeasible)
        if complex_valued or circuit.linear:
            # where a step is exact, nothing tells better; and a complex one has nothing to descend, so that plain
            # Newton stays on the branch of its start
            still = jnp.asarray(True) if circuit.linear else shift <= small
            return target, circuit.gradient(target), ended(still), found.positive
        merit, meeting = circuit.merit(u, gradient), scale(u)
        before = left_over(gradient, meeting)
        slope = jnp.sum(direction * gradient) if net.conservative else -merit
        # the merit is a sum that cancels: it is uncertain by the rounding of its terms, not of itself
        rounding = 16 * epsilon * (jnp.abs(merit) + jnp.sum(jnp.abs(u) * meeting))
        at = lambda fraction: jnp.where(fraction == 1, target, u + fraction * direction)

        def taken(trial):
            """Whether the merit falls, or the parts of the currents do; or, where these balance, nothing tells."""
            fraction, new_gradient, new_merit = trial
            after = left_over(new_gradient, meeting)
            falls = new_merit <= merit + 1e-4 * fraction * slope
            calms = after <= jnp.where(before <= limit, limit, (1 - 0.25 * fraction) * before)
            # once the merit no longer resolves a step, only the currents count
            return jnp.where(jnp.abs(slope) <= rounding, False, falls) | (calms & (new_merit <= merit + rounding))

        def shorter(trial):
            fraction = trial[0] / 2
            new_gradient = circuit.gradient(at(fraction))
            return fraction, new_gradient, circuit.merit(at(fraction), new_gradient)

        untried = (jnp.asarray(2.0, u.dtype), gradient, jnp.asarray(jnp.inf, u.dtype))
        refused = lambda trial: (trial[0] > 1) | (~taken(trial) & (trial[0] > epsilon))
        fraction, new_gradient, _ = jax.lax.while_loop(refused, shorter, untried)
        going = found.positive & (fraction > epsilon)
        kept = lambda new, old: jnp.where(going, new, old)
        still = shift <= jnp.where(going, fraction, 1) * small
        return kept(at(fraction), u), kept(new_gradient, gradient), ended(still), going

    no, yes = jnp.asarray(False), jnp.asarray(True)
    first = (u, circuit.gradient(u), _Ending(jnp.zeros((), jnp.int32), no, yes, yes, no), yes)
    u, _, ending, _ = jax.lax.while_loop(running, advance, first)
    return u, ending


def _multipliers(solver, net, x, nudge, start, circuit_of, limit) -> tuple[Any, _Ending]:
    """The augmented Lagrangian."""
    topology, dtype = net.topology, net.conductance.dtype
    real = _real_diodes(net, x)
    ideal, pinned = topology.ideal_diodes, isinstance(nudge, Pin)
    epsilon = float(jnp.finfo(dtype).eps)
    diode_strength = PENALTY * net.diode_scale() if ideal else jnp.zeros(0, dtype)
    pin_strength = PENALTY * net.output_scale() if pinned else jnp.zeros(0, dtype)
    target = jnp.asarray(nudge.target, dtype) if pinned else jnp.zeros(0, dtype)
    carries_currents = isinstance(start, tuple)
    bounds = None if carries_currents else net.bounds(x)

    def state_of(u, diode_current):
        if carries_currents:
            return u, diode_current
        return u if bounds is None else jnp.clip(u, *bounds)

    drops = lambda u: net.diode_drops(u, x) if ideal else jnp.zeros(0, dtype)
    gaps = lambda u: net.read(u, x) - target if pinned else jnp.zeros(0, dtype)

    def circuit(diode_current, pin_current, stiffer: float = 1.0):
        diode = _Penalty(diode_current, stiffer * diode_strength) if ideal else real
        hold = HeldBySprings(target, pin_current, stiffer * pin_strength) if pinned else nudge
        return circuit_of(diode, hold)

    def corrected(carry, _):
        """A Newton step on Kirchhoff's law and on the drops of the diodes that conduct, which are held at zero."""
        u, diode_current, pin_current = carry
        conducting = diode_current + diode_strength * drops(u) > 0
        diode_current = jnp.where(conducting, diode_current, 0.0)
        stiffer = epsilon**-0.25
        strength = stiffer * jnp.where(conducting, diode_strength, 0.0)
        held = circuit(diode_current, pin_current, stiffer)
        carried = diode_current if real is None else real.current(net.diode_drops(u, x))
        balance = net.imbalance(u, x, carried)
        if held.hold is not None:
            pull = -pin_current if pinned else held.hold.pull(net.read(u, x))
            balance -= topology.read_test_map.transpose(pull)
        drop, gap = drops(u), gaps(u)
        balance += topology.diode_test_map.transpose(strength * drop) if ideal else 0.0
        balance += topology.read_test_map.transpose(stiffer * pin_strength * gap) if pinned else 0.0
        conductance = net.conductance
        if len(net.topology.diodes):
            at_diodes = strength if real is None else real.conductance(net.diode_drops(u, x))
            conductance = jnp.concatenate([conductance, at_diodes])
        curvature = None if held.hold is None else held.hold.curvature(net.read(u, x))
        found = held.solve(conductance, -balance, curvature)
        change = found.potentials
        # the drops to come, from the change: differences of voltages would be rounded too coarsely
        diode_current += strength * (drop + topology.diode_map(change)) if ideal else 0.0
        pin_current += stiffer * pin_strength * (gap + topology.read_map(change)) if pinned else 0.0
        return (u + change, diode_current, pin_current), (_shift(net, u + change, change, x), found.precise)

    def running(carry):
        _, _, _, residual, ending = carry
        going = (ending.steps < solver.max_steps) & ~ending.infeasible & ending.stable
        return going & ~((residual <= limit) & ending.still)

    def round_(carry):
        u, diode_current, pin_current, _, ending = carry
        looseness = jnp.where(ending.steps < solver.max_steps // 10, PENALTY, 1.0).astype(dtype)
        inner = circuit(diode_current, pin_current)
        u, inside = _newton(inner, u, looseness * limit, solver.max_steps, certain=real is not None)
        new_diode_current = jnp.maximum(diode_current + diode_strength * drops(u), 0.0)
        new_pin_current = pin_current + pin_strength * gaps(u)
        infeasible = _certified(new_diode_current - diode_current, new_pin_current - pin_current, u)
        plain = (u, new_diode_current, new_pin_current)
        polished, (shifts, precise) = jax.lax.scan(corrected, plain, None, length=4)
        residual, polished_residual = (net.residual(state_of(v, i), x, nudge) for v, i, _ in (plain, polished))
        better = polished_residual <= jnp.maximum(residual, limit)
        u, diode_current, pin_current = jax.tree.map(lambda p, q: jnp.where(better, p, q), polished, plain)
        residual = jnp.where(better, polished_residual, residual)
        still = better & (shifts[-1] <= 0.5 * state_tolerance(dtype))
        steps = ending.steps + jnp.maximum(inside.steps, 1)
        return u, diode_current, pin_current, residual, _Ending(steps, still, inside.stable, precise[-1], infeasible)

    def _certified(diode_growth, pin_growth, u):
        """Farkas: a circulation of diode and pin currents that meets no resistor and that the sources drive."""
        back, at_rest = jnp.zeros_like(u), jnp.zeros_like(u)
        driven = largest = size = jnp.zeros((), dtype)
        circulation = (
            (jnp.maximum(diode_growth, 0.0), topology.diode_map, drops),
            (pin_growth, topology.read_map, gaps),
        )
        for growth, through, voltages in circulation:
            if growth.size:
                back += through.transpose(growth)
                driven += jnp.sum(growth * voltages(at_rest))
                size += jnp.sum(jnp.abs(growth * voltages(at_rest)))
                largest = jnp.maximum(largest, jnp.max(jnp.abs(growth)))
        small = epsilon**0.5
        return (jnp.max(jnp.abs(back), initial=0.0) <= small * largest) & (driven > small * size)

    u, diode_current = start if carries_currents else (start, jnp.zeros_like(diode_strength))
    pin_current = jnp.zeros_like(target)
    no, yes = jnp.asarray(False), jnp.asarray(True)
    residual = net.residual(state_of(u, diode_current), x, nudge)
    first = (u, diode_current, pin_current, residual, _Ending(jnp.zeros((), jnp.int32), no, yes, yes, no))
    u, diode_current, _, _, ending = jax.lax.while_loop(running, round_, first)
    if isinstance(nudge, Nudge):
        solve = circuit_of(real, nudge).solve
        held = solve(net.conductance, jnp.zeros_like(u), nudge.curvature(net.read(u, x))).positive
        ending = eqx.tree_at(lambda e: e.stable, ending, ending.stable & held)
    return state_of(u, diode_current), ending
