"""The solver of circuits: damped Newton on the co-content, with multipliers for ideal diodes and pinned outputs."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, PRNGKeyArray, PyTree

from substrates.classical.resistor.linear_solve import Solve, conductance_solver
from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Equilibrium, Solver, Status, judge, tolerance

PENALTY = 100.0
"""Conductance of a penalised diode or pin, in units of the total conductance at its ends."""


class OperatingPoint(Solver):
    """Finds the operating point of a circuit, exactly, from any start.

    Resistors, sources, real diodes and nudges: Newton's method on Kirchhoff's current law, damped so that the
    co-content falls (one step for a linear circuit). Ideal diodes and pins: the augmented Lagrangian, in which a diode
    is one of conductance r in series with a battery i_d / r, i = max(0, i_d + r (v_anode - v_cathode)); each round
    solves that circuit by Newton, takes its diode currents for i_d, and corrects them with the conducting diodes held.
    It converges from anywhere, and ends exactly once the set of conducting diodes is right.

    Status: infeasible, where the diode currents grow along a circulation that the sources drive (Farkas' certificate);
    unstable, where the conductances and the nudge's curvature together are not positive definite.

    Attributes:
        max_steps: the most Newton steps in all.
        dense_size: up to this many potentials the conductance matrix is dense; above, it is sparse, on the host.
        absolute_tolerance: amperes, 0 by default: circuits have no smallest current.
        relative_tolerance: on the residual; None takes it from the dtype.

    Source: Rockafellar 1976, "Augmented Lagrangians and applications of the proximal point algorithm in convex
    programming"; the test of steps, Hager and Zhang 2005, "A new conjugate gradient method with guaranteed descent".
    """

    max_steps: int = 500
    dense_size: int = 512
    absolute_tolerance: float = 0.0
    relative_tolerance: float | None = None

    def __call__(
        self, substrate: Any, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
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


class _Spring(eqx.Module):
    """A pin as a nudge: the energy m (o - target) + r (o - target)^2 / 2."""

    target: Inexact[Array, "outputs"]
    multiplier: Inexact[Array, "outputs"]
    strength: Float[Array, "outputs"]

    def energy(self, output):
        gap = output - self.target
        return jnp.sum(self.multiplier * gap + self.strength * gap**2 / 2)

    def pull(self, output):
        return -(self.multiplier + self.strength * (output - self.target))

    def curvature(self, output):
        return jnp.diag(self.strength)


class _Circuit(eqx.Module):
    """A circuit without constraints: what Newton's method sees."""

    net: Any
    x: Array
    diode: Any
    hold: Any
    solve: Solve = eqx.field(static=True)

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

    def step(self, u, current):
        net = self.net
        conductance = net.conductance
        if self.diode is not None:
            conductance = jnp.concatenate([conductance, self.diode.conductance(net.diode_drops(u, self.x))])
        curvature = None if self.hold is None else self.hold.curvature(net.read(u, self.x))
        return self.solve(conductance, current, curvature)


def _settle(solver: OperatingPoint, net: Any, x: Array, nudge: Nudge | Pin | None, start: PyTree) -> Equilibrium:
    complex_valued = jnp.iscomplexobj(net.conductance)
    solve = conductance_solver(net.topology, net.conductance.dtype, solver.dense_size)
    ideal = net.topology.ideal_diodes and len(net.diodes) > 0
    if ideal and complex_valued:
        raise TypeError("nudge: wanted a real one, because ideal diodes have no analytic continuation, got a complex")
    limit = lambda state: tolerance(net, state, x, nudge, solver.absolute_tolerance, solver.relative_tolerance)
    if ideal or isinstance(nudge, Pin):
        state, steps, infeasible, stable = _multipliers(solver, net, x, nudge, start, solve, limit)
    else:
        circuit = _Circuit(net, x, _real_diodes(net, x), nudge, solve)
        forced = isinstance(nudge, Nudge)  # one step at least, which tells whether the nudge is stable
        # with real diodes the limit allows for the rounding of an exponential; Newton's method does better
        aim = limit if net.diode is None else lambda u: 0.01 * limit(u)
        state, steps, stable = _newton(circuit, start, aim, solver.max_steps, forced)
        infeasible = jnp.asarray(False)
    found = judge(net, state, x, nudge, steps, limit(state))
    if isinstance(nudge, Nudge) or not net.conservative:
        found = eqx.tree_at(lambda e: e.status, found, Status.where(stable, found.status, Status.unstable))
    return eqx.tree_at(lambda e: e.status, found, Status.where(infeasible, Status.infeasible, found.status))


def _real_diodes(net: Any, x: Array) -> Any:
    """The law of the real diodes, straightened far above the current that the sources can drive; None without any."""
    if net.diode is None or jnp.iscomplexobj(net.conductance):
        return net.diode
    highest = 1e3 * net.current_ceiling(x) / net.diode.saturation_current
    return _Straightened(net.diode, net.diode.emission_voltage * jnp.log1p(highest))


def _newton(circuit: _Circuit, u, limit, max_steps, forced: bool = False) -> tuple[Any, Array, Bool[Array, ""]]:
    """Damped Newton; (potentials, steps, whether the last matrix was positive definite)."""
    complex_valued = jnp.iscomplexobj(u)
    epsilon = float(jnp.finfo(u.dtype).eps)
    size = lambda gradient: jnp.max(jnp.abs(gradient), initial=0.0)

    def running(carry):
        u, gradient, step, stable, going = carry
        unsettled = ~(size(gradient) <= limit(u))
        if forced:
            unsettled |= step == 0
        return (step < max_steps) & stable & going & unsettled

    def advance(carry):
        u, gradient, step, _, _ = carry
        direction, stable = circuit.step(u, -gradient)
        if complex_valued:  # nothing to descend: plain Newton stays on the branch of its start
            moved = u + direction
            return moved, circuit.gradient(moved), step + 1, stable, jnp.asarray(True)
        merit = circuit.merit(u, gradient)
        slope = jnp.sum(direction * gradient) if circuit.net.conservative else -merit
        # the merit is a sum that cancels: it is uncertain by the rounding of its terms, not of itself
        terms = jnp.abs(merit) + jnp.sum(jnp.abs(u) * circuit.net.force_scale(u, circuit.x))
        rounding = 16 * epsilon * terms

        def evaluate(trial):
            fraction = trial[0] / 2
            moved = u + fraction * direction
            new_gradient = circuit.gradient(moved)
            return fraction, moved, new_gradient, circuit.merit(moved, new_gradient)

        def refused(trial):
            fraction, _, new_gradient, new_merit = trial
            falls = new_merit <= merit + 1e-4 * fraction * slope
            flattens = (size(new_gradient) <= 0.5 * size(gradient)) & (new_merit <= merit + rounding)
            return (fraction > 1) | (~(falls | flattens) & (fraction > epsilon))

        untried = (jnp.asarray(2.0, u.dtype), u, gradient, jnp.asarray(jnp.inf, u.dtype))
        fraction, moved, new_gradient, _ = jax.lax.while_loop(refused, evaluate, untried)
        # once the merit no longer resolves a step, only a flatter gradient counts
        stalled = (jnp.abs(slope) <= rounding) & (size(new_gradient) > 0.5 * size(gradient))
        going = stable & (fraction > epsilon) & ~stalled
        kept = lambda new, old: jnp.where(going, new, old)
        return kept(moved, u), kept(new_gradient, gradient), step + 1, stable, going

    first = (u, circuit.gradient(u), jnp.zeros((), jnp.int32), jnp.asarray(True), jnp.asarray(True))
    u, _, steps, stable, _ = jax.lax.while_loop(running, advance, first)
    return u, steps, stable


def _multipliers(solver, net, x, nudge, start, solve, limit):
    """The augmented Lagrangian; (state, Newton steps, whether it is infeasible, whether the nudge is stable)."""
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
        hold = _Spring(target, pin_current, stiffer * pin_strength) if pinned else nudge
        return _Circuit(net, x, diode, hold, solve)

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
        if len(net.diodes):
            at_diodes = strength if real is None else real.conductance(net.diode_drops(u, x))
            conductance = jnp.concatenate([conductance, at_diodes])
        curvature = None if held.hold is None else held.hold.curvature(net.read(u, x))
        change = solve(conductance, -balance, curvature)[0]
        # the drops to come, from the change: differences of voltages would be rounded too coarsely
        diode_current += strength * (drop + topology.diode_map(change)) if ideal else 0.0
        pin_current += stiffer * pin_strength * (gap + topology.read_map(change)) if pinned else 0.0
        return (u + change, diode_current, pin_current), None

    def running(carry):
        u, diode_current, _, step, residual, infeasible, stable = carry
        settled = residual <= limit(state_of(u, diode_current))
        return (step < solver.max_steps) & ~settled & ~infeasible & stable

    def round_(carry):
        u, diode_current, pin_current, step, _, _, _ = carry
        looseness = jnp.where(step < solver.max_steps // 10, PENALTY, 1.0).astype(dtype)
        loose = lambda u: looseness * limit(state_of(u, diode_current))
        u, steps, stable = _newton(circuit(diode_current, pin_current), u, loose, solver.max_steps)
        new_diode_current = jnp.maximum(diode_current + diode_strength * drops(u), 0.0)
        new_pin_current = pin_current + pin_strength * gaps(u)
        infeasible = _certified(new_diode_current - diode_current, new_pin_current - pin_current, u)
        plain = (u, new_diode_current, new_pin_current)
        polished = jax.lax.scan(corrected, plain, None, length=4)[0]
        residual, polished_residual = (net.residual(state_of(v, i), x, nudge) for v, i, _ in (plain, polished))
        better = polished_residual <= residual
        u, diode_current, pin_current = jax.tree.map(lambda p, q: jnp.where(better, p, q), polished, plain)
        residual = jnp.where(better, polished_residual, residual)
        return u, diode_current, pin_current, step + jnp.maximum(steps, 1), residual, infeasible, stable

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
    first = (u, diode_current, pin_current, jnp.zeros((), jnp.int32), residual, no, yes)
    u, diode_current, _, steps, _, infeasible, stable = jax.lax.while_loop(running, round_, first)
    if isinstance(nudge, Nudge):
        stable &= solve(net.conductance, jnp.zeros_like(u), nudge.curvature(net.read(u, x)))[1]
    return state_of(u, diode_current), steps, infeasible, stable
