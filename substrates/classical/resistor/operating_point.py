"""The solver of circuits: damped Newton on the co-content, with multipliers for ideal diodes and pinned outputs."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, PyTree

from substrates.classical.resistor.linear_solve import DENSE_SIZE, Solve, Solved, conductance_solver, eliminates
from substrates.classical.resistor.topology import Circuit, Flow
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
    """Diodes as i = max(0, i_d + r v): ideal ones, but for the conductance r and the battery i_d / r.

    Those that conduct so may be stiffer than r.
    """

    multiplier: Inexact[Array, "diodes"]
    strength: Float[Array, "diodes"]
    stiffer: float = 1.0

    def current(self, drop):
        conducts = self.multiplier + self.strength * drop > 0
        return jnp.where(conducts, self.multiplier + self.stiffer * self.strength * drop, 0.0)

    def conductance(self, drop):
        return jnp.where(self.multiplier + self.strength * drop > 0, self.stiffer * self.strength, 0.0)

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


class _View(NamedTuple):
    """What Newton's method sees at some potentials.

    Attributes:
        flow: voltages and currents.
        gradient: the sum of the currents that leave each potential, those of nudges and pins among them.
        pull: the currents into the outputs; None without a nudge or a pin.
        meeting: the currents that meet at each potential.
        merit: what falls on the way, the co-content where there is one; None where steps are not weighed.
    """

    potentials: Array
    flow: Flow
    gradient: Array
    pull: Array | None
    meeting: Array | None
    merit: Array | None


class _Unconstrained(eqx.Module):
    """A circuit without constraints: what Newton's method works on.

    Attributes:
        law: of the diodes; None without any that conduct.
        hold: a nudge, or the springs of a pin, or None.
        ceiling: of the currents of real diodes.
        companion: whether a step solves for the potentials, as SPICE does, rather than for their change.
        exact: whether solutions are exact, or say where they are not precise.
    """

    net: Circuit
    x: Array
    law: Any
    hold: Any
    ceiling: Array | None
    solve: Solve
    companion: bool
    exact: bool

    @property
    def weighed(self) -> bool:
        """Whether steps are weighed: not where they are exact; and a complex one has nothing to descend, so that plain
        Newton stays on the branch of its start.
        """
        return not (self.linear or jnp.iscomplexobj(self.net.conductance))

    @property
    def linear(self) -> bool:
        """Whether one step is exact."""
        affine = self.hold is None or self.hold.affine
        return self.exact and self.law is None and affine

    def view(self, potentials: Array, judged: bool = True) -> _View:
        """What is seen at some potentials; `judged` by the currents that meet there, or not."""
        net, law, hold = self.net, self.law, self.hold
        flow = net.flow(potentials, self.x, None if law is None else law.current)
        gradient, pull, meeting, merit = net.leaving(flow), None, None, None
        output = None if hold is None else net.read(potentials, self.x)
        if hold is not None:
            pull = hold.pull(output)
            gradient -= net.topology.maps.read_test.transpose(pull)
        if judged:
            known = flow if net.diode is not None else flow._replace(diode_current=None)
            meeting = net.meeting_at(known, self.ceiling)
        if judged and self.weighed and net.conservative:
            merit = net.content(flow)
            merit += 0.0 if law is None else jnp.sum(law.content(flow.diode_drops))
            merit += 0.0 if hold is None else hold.energy(output)
        elif judged and self.weighed:
            merit = jnp.max(jnp.abs(gradient), initial=0.0)
        return _View(potentials, flow, gradient, pull, meeting, merit)

    def limit(self, state: PyTree) -> Array:
        """The `tolerance` at a state."""
        net, x, nudge = self.net, self.x, self.hold
        if not isinstance(nudge, Nudge):
            return tolerance(net, state, x, None)
        u, current = state if isinstance(state, tuple) else (state, None if net.diode is None else net.diode.current)
        meeting = net.meeting_at(net.flow(u, x, current), self.ceiling)
        brought = net.topology.maps.read.transpose(nudge.pull(net.read(u, x)))[: u.size]
        return tolerance(net, u, x, nudge, scale=meeting, brought=brought)

    def step(self, view: _View) -> Solved:
        """Where Newton's method leads: to potentials, or by a change of them; see `companion`."""
        net, maps, law, hold = self.net, self.net.topology.maps, self.law, self.hold
        u, conductance, curvature = view.potentials, net.conductance, None
        current = -view.gradient
        if self.companion:
            # every element as a conductance beside a current source: nothing is lost to what u already carries
            current = -net.imbalance(jnp.zeros_like(u), self.x)
        if law is not None:
            slope = law.conductance(view.flow.diode_drops)
            conductance = jnp.concatenate([conductance, slope])
            if self.companion:
                current += maps.diode_test.transpose(slope * maps.diode(u) - view.flow.diode_current)
        if hold is not None:
            curvature = hold.curvature(net.read(u, self.x))
            if self.companion:
                current += maps.read_test.transpose(view.pull + curvature @ maps.read_test(u))
        return self.solve(conductance, current, curvature)


def _settle(solver: OperatingPoint, net: Circuit, x: Array, nudge: Nudge | Pin | None, start: PyTree) -> Equilibrium:
    topology = net.topology
    companion = eliminates(topology, solver.dense_size)
    circuit = _Unconstrained(
        net,
        x,
        _real_diodes(net, x),
        nudge,
        None if net.diode is None else net.current_ceiling(x),
        conductance_solver(topology, net.conductance.dtype, solver.dense_size),
        companion,
        exact=companion or topology.size > solver.dense_size,
    )
    constrained, nudged = topology.bounded or isinstance(nudge, Pin), isinstance(nudge, Nudge)
    limit = circuit.limit(start)
    if constrained:
        state, residual, ending = _multipliers(solver, circuit, start, limit)
    else:
        view, ending = _newton(circuit, start, limit, solver.max_steps)
        state, residual = view.potentials, None
    if nudged:
        # the pulls, and with them what they may leave over, are those of the state that was found
        limit = jnp.maximum(limit, circuit.limit(state))
    found = judge(net, state, x, nudge, ending.steps, limit, residual)
    status = Status.where(ending.still | ~found.converged, found.status, Status.out_of_steps)
    status = Status.where(ending.precise | ~found.converged, status, Status.ill_conditioned)
    # what is not positive definite without a nudge has a node that no conductance holds
    told = ending.stable | (found.status == Status.not_finite)
    status = Status.where(told, status, Status.zero_mode if net.conservative else Status.unstable)
    if nudged:
        status = Status.where(told | (nudge.beta == 0), status, Status.unstable)
    if constrained:
        status = Status.where(ending.infeasible, Status.infeasible, status)
    return eqx.tree_at(lambda e: e.status, found, status)


class _Ending(NamedTuple):
    """How an iteration ended.

    Attributes:
        steps: how many Newton steps it took.
        still: whether the last one led to where it was.
        stable: whether the last matrix was positive definite.
        precise: whether the last solution was decided by the precision.
        infeasible: whether the sources drive a current without limit.
    """

    steps: Any = np.int32(0)
    still: Any = np.False_
    stable: Any = np.True_
    precise: Any = np.True_
    infeasible: Any = np.False_


def _real_diodes(net: Circuit, x: Array) -> Any:
    """The law of the real diodes, straightened far above the current that the sources can drive; None without any."""
    if net.diode is None or jnp.iscomplexobj(net.conductance):
        return net.diode
    highest = 1e3 * net.current_ceiling(x) / net.diode.saturation_current
    return _Straightened(net.diode, net.diode.emission_voltage * jnp.log1p(highest))


def _shift(net: Circuit, potentials: Array, change: Array, x: Array) -> Float[Array, ""]:
    """The largest change of a potential as a part of the largest voltage."""
    span = jnp.max(jnp.abs(net.voltages(potentials, x)), initial=0.0)
    return jnp.max(jnp.abs(change), initial=0.0) / jnp.where(span > 0, span, 1)


def _newton(circuit: _Unconstrained, u, limit, max_steps, certain: bool = True) -> tuple[_View, _Ending]:
    """Damped Newton to where Kirchhoff's law holds at every node and, to be `certain`, a step leads nowhere."""
    net, x = circuit.net, circuit.x
    epsilon = float(jnp.finfo(u.dtype).eps)
    small = 0.5 * state_tolerance(u.dtype)

    def running(carry):
        view, ending, going = carry
        settled = left_over(view.gradient, view.meeting) <= limit
        return (ending.steps < max_steps) & ending.stable & going & ~(settled & (ending.still | (not certain)))

    def advance(carry):
        view, ending, _ = carry
        u, found = view.potentials, circuit.step(view)
        target, direction = (
            (found.potentials, found.potentials - u) if circuit.companion else (u + found.potentials, found.potentials)
        )
        shift = _shift(net, target, direction, x)
        ended = lambda still: _Ending(ending.steps + 1, still, found.positive, found.precise, ending.infeasible)
        if not circuit.weighed:
            still = np.True_ if circuit.linear else shift <= small
            return circuit.view(target), ended(still), found.positive
        before = left_over(view.gradient, view.meeting)
        slope = jnp.sum(direction * view.gradient) if net.conservative else -view.merit
        # the merit is a sum that cancels: it is uncertain by the rounding of its terms, not of itself
        rounding = 16 * epsilon * (jnp.abs(view.merit) + jnp.sum(jnp.abs(u) * view.meeting))

        def taken(trial):
            """Whether the merit falls, or the parts of the currents do; or, where these balance, nothing tells."""
            fraction, new = trial
            after = left_over(new.gradient, view.meeting)
            falls = new.merit <= view.merit + 1e-4 * fraction * slope
            calms = after <= jnp.where(before <= limit, limit, (1 - 0.25 * fraction) * before)
            # once the merit no longer resolves a step, only the currents count
            return ((jnp.abs(slope) > rounding) & falls) | (calms & (new.merit <= view.merit + rounding))

        def shorter(trial):
            fraction = trial[0] / 2
            return fraction, circuit.view(jnp.where(fraction == 1, target, u + fraction * direction))

        refused = lambda trial: (trial[0] > 1) | (~taken(trial) & (trial[0] > epsilon))
        fraction, new = jax.lax.while_loop(refused, shorter, (jnp.asarray(2.0, u.dtype), view))
        going = found.positive & (fraction > epsilon)
        still = shift <= jnp.where(going, fraction, 1) * small
        return jax.tree.map(lambda p, q: jnp.where(going, p, q), new, view), ended(still), going

    view, ending, _ = jax.lax.while_loop(running, advance, (circuit.view(u), _Ending(), np.True_))
    return view, ending


def _multipliers(
    solver: OperatingPoint, free: _Unconstrained, start: PyTree, limit: Array
) -> tuple[Any, Array, _Ending]:
    """The augmented Lagrangian: (state, residual, how it ended)."""
    net, x, nudge, maps = free.net, free.x, free.hold, free.net.topology.maps
    dtype, ideal, pinned = net.conductance.dtype, net.topology.bounded, isinstance(nudge, Pin)
    epsilon = float(jnp.finfo(dtype).eps)
    diode_strength = PENALTY * net.diode_scale() if ideal else jnp.zeros(0, dtype)
    pin_strength = PENALTY * net.output_scale() if pinned else jnp.zeros(0, dtype)
    target = jnp.asarray(nudge.target, dtype) if pinned else jnp.zeros(0, dtype)
    carries_currents = isinstance(start, tuple)
    bounds = None if carries_currents else net.bounds(x)
    stiffer = epsilon**-0.25

    def state_of(u, diode_current):
        if carries_currents:
            return u, diode_current
        return u if bounds is None else jnp.clip(u, *bounds)

    def circuit(diode_current, pin_current, stiffer: float = 1.0, **options):
        law = _Penalty(diode_current, diode_strength, stiffer) if ideal else free.law
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
        return (u + change, diode_current, pin_current), (_shift(net, u + change, change, x), found.precise)

    def running(carry):
        *_, residual, ending = carry
        going = ((ending.steps < solver.max_steps) | (ending.steps == 0)) & ~ending.infeasible & ending.stable
        return going & ~((residual <= limit) & ending.still)

    def round_(carry):
        u, diode_current, pin_current, _, ending = carry
        looseness = jnp.where(ending.steps < solver.max_steps // 10, PENALTY, 1.0).astype(dtype)
        inner = circuit(diode_current, pin_current)
        view, inside = _newton(inner, u, looseness * limit, solver.max_steps, certain=not ideal)
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
        return *kept, _Ending(steps, still, inside.stable, precise[-1], infeasible)

    at_rest = jnp.zeros(net.topology.size, dtype)

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
    first = (u, diode_current, jnp.zeros_like(target), jnp.asarray(jnp.inf, diode_strength.dtype), _Ending())
    u, diode_current, _, residual, ending = jax.lax.while_loop(running, round_, first)
    if isinstance(nudge, Nudge):
        held = free.solve(net.conductance, at_rest, nudge.curvature(net.read(u, x))).positive
        ending = ending._replace(stable=ending.stable & (held | (nudge.beta == 0)))
    return state_of(u, diode_current), residual, ending
