"""Newton's method on circuits: damped so that the co-content falls, within bounds on single potentials."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact

from substrates.classical.resistor.linear_solve import (
    DENSE_SIZE,
    Solve,
    Solved,
    conductance_solver,
    eliminates,
    matrix_rounding,
)
from substrates.classical.resistor.sparse_inverse import WIDEST
from substrates.classical.resistor.topology import Circuit, Flow
from substrates.nudge import Nudge
from substrates.solvers.certificate import state_tolerance
from substrates.solvers.solver import (
    Equilibrium,
    allowed,
    clipped_by_bounds,
    default_tolerance,
    judge,
    judged,
    left_over,
)

SHORT = 1e9
"""Diodes that carry so many times what all resistors together could short the sources."""


ROUGHLY = 1e-3
"""Where so small a part of the currents is left over, the way is over on which diodes may come to their knee."""


class Penalty(eqx.Module):
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


class Straightened(eqx.Module):
    """Real diodes whose current goes on along its tangent above a knee, so that no exponential overflows.

    No diode of a circuit with a resistor on every path comes to its knee: those that do short sources. Only the drops
    of those that move, which hang on a free potential, are bent so low, and the content is theirs: beside that of the
    others, which stays as it is and may be huge, no step down would be seen.
    """

    law: Any
    knee: Float[Array, "diodes"]
    knee_current: Float[Array, "diodes"]
    knee_conductance: Float[Array, "diodes"]
    moves: Bool[Array, "diodes"]

    def current(self, drop):
        above = jnp.maximum(drop - self.knee, 0.0)
        return self.law.current(jnp.minimum(drop, self.knee)) + self.knee_conductance * above

    def conductance(self, drop):
        return self.law.conductance(jnp.minimum(drop, self.knee))

    def content(self, drop):
        above = jnp.maximum(drop - self.knee, 0.0)
        tangent = (self.knee_current + self.knee_conductance / 2 * above) * above
        return jnp.where(self.moves, self.law.content(jnp.minimum(drop, self.knee)) + tangent, 0)


class View(NamedTuple):
    """What Newton's method sees at some potentials.

    Attributes:
        flow: voltages and currents.
        gradient: the sum of the currents that leave each potential, those of nudges and pins among them.
        balance: what of it no bound takes up; where one does, the current that would lead there.
        held: where a bound does; None without bounds.
        pull: the currents into the outputs; None without a nudge or a pin.
        meeting: the currents that meet at each potential.
        left: the largest part of them that the balance leaves over.
        merit: what falls on the way, the co-content where there is one; None where steps are not weighed.
    """

    potentials: Array
    flow: Flow
    gradient: Array
    balance: Array
    held: Any
    pull: Any
    meeting: Any
    left: Any
    merit: Array | None


class NewtonCircuit(eqx.Module):
    """A circuit without constraints but bounds on its potentials: what Newton's method works on.

    Attributes:
        law: of the diodes; None without any that conduct.
        hold: a nudge, or the springs of a pin, or None.
        ceiling: of the currents of real diodes.
        companion: whether a step solves for the potentials, as SPICE does, rather than for their change.
        exact: whether solutions are exact, or say where they are not precise.
        bounds: (lower, upper, the conductance at each potential), or None.
    """

    net: Circuit
    x: Array
    law: Any
    hold: Any
    ceiling: Array | None
    solve: Solve
    companion: bool
    exact: bool
    bounds: tuple[Array, Array, Array] | None

    @classmethod
    def of(
        cls,
        net: Circuit,
        x: Array,
        nudge: Any,
        dense_size: int = DENSE_SIZE,
        widest: int = WIDEST,
        bounded: bool = False,
    ) -> Self:
        """That of a circuit at an input, under a nudge; `bounded` by its ideal diodes, or by nothing."""
        companion = eliminates(net.topology, dense_size)
        ceiling = None if net.diode is None else net.current_ceiling(x)
        solve = conductance_solver(net.topology, net.conductance.dtype, dense_size, widest)
        exact = companion or net.topology.size > dense_size
        bounds: Any = (*cast(Any, net.bounds(x)), net.conductance_scale()) if bounded else None
        return cls(net, x, straightened(net, ceiling), nudge, ceiling, solve, companion, exact, bounds)

    def within(self, potentials: Array) -> Array:
        """Potentials inside their bounds."""
        if self.bounds is None:
            return potentials
        return jnp.minimum(jnp.maximum(potentials, self.bounds[0]), self.bounds[1])

    def infeasible(self, view: View) -> Array | np.bool_:
        """Whether bounds cross or voltage sources force a diode, by more than rounding, or diodes short sources."""
        small, found = default_tolerance(view.potentials.dtype), np.False_
        if self.bounds is not None:
            lower, upper, _ = self.bounds
            found = jnp.any(lower - upper > small * jnp.maximum(jnp.abs(lower), jnp.abs(upper)))
        if self.net.topology.maps.held.size:
            drop, span = self.net.across_sources(view.flow)
            found |= jnp.any(drop > small * span)
        if isinstance(self.law, Straightened):
            found |= (view.left <= ROUGHLY) & jnp.any(self.law.moves & (view.flow.diode_drops > self.law.knee))
        return found

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
        return self.exact and self.law is None and affine and self.bounds is None

    def view(self, potentials: Array, judged: bool = True) -> View:
        """What is seen at some potentials; `judged` by the currents that meet there, or not."""
        net, law, hold = self.net, self.law, self.hold
        flow = net.flow(potentials, self.x, None if law is None else law.current)
        gradient, pull, meeting, left = net.leaving(flow), None, None, None
        output = None if hold is None else net.read(potentials, self.x)
        if hold is not None:
            pull = hold.pull(output)
            gradient -= net.topology.maps.read_test.transpose(pull)
        balance, held = gradient, None
        if self.bounds is not None:
            lower, upper, stiffness = self.bounds
            left_to, held = clipped_by_bounds(potentials, -gradient, stiffness, lower, upper)
            balance = -left_to
        if judged:
            known = flow if net.diode is not None else flow._replace(diode_current=None)
            meeting = net.meeting_at(known, self.ceiling)
            left = left_over(balance, meeting)
        view = View(potentials, flow, gradient, balance, held, pull, meeting, left, None)
        if judged and self.weighed:
            view = view._replace(
                merit=self.energy(view) if net.conservative else jnp.max(jnp.abs(gradient), initial=0.0)
            )
        return view

    def energy(self, view: View) -> Array:
        """The co-content, with what diodes and a nudge or a pin add."""
        energy = self.net.content(view.flow)
        energy += 0.0 if self.law is None else jnp.sum(self.law.content(view.flow.diode_drops))
        return energy + (0.0 if self.hold is None else self.hold.energy(self.net.read(view.potentials, self.x)))

    def limit(self, meeting: Array, pull: Array | None) -> Array:
        """The `tolerance` where such currents meet and a nudge pulls so."""
        return allowed(meeting.dtype, self.hold, None if pull is None else self.brought(pull), meeting)

    def equilibrium(self, view: View, limit: Array, steps: Array) -> Equilibrium:
        """What was found, judged as `judge` would, with a tolerance that also holds at its end."""
        net, nudge, meeting = self.net, self.hold, view.meeting
        # the pulls, and with them what they may leave over, are those of the state that was found
        limit = jnp.maximum(limit, self.limit(meeting, view.pull))
        if not net.conservative:
            return judge(net, view.potentials, self.x, nudge, steps, limit)
        if nudge is not None:
            meeting += jnp.abs(self.brought(nudge.size(net.read(view.potentials, self.x), view.pull)))
        energy = self.energy(view) if view.merit is None else view.merit
        if isinstance(self.law, Straightened):
            energy += jnp.sum(jnp.where(self.law.moves, 0, self.law.law.content(view.flow.diode_drops)))
        return judged(view.potentials, energy, left_over(view.balance, meeting), steps, limit)

    def brought(self, pull: Array) -> Array:
        """What a nudge brings to the potentials."""
        return self.net.topology.maps.read.transpose(pull)[: self.net.topology.size]

    def slopes(self, view: View) -> tuple[Array, Array | None]:
        """(the conductances of resistors and of diodes that conduct; what a nudge or a pin adds at the outputs)."""
        conductance, hold = self.net.conductance, self.hold
        if self.law is not None:
            conductance = jnp.concatenate([conductance, self.law.conductance(view.flow.diode_drops)])
        return conductance, None if hold is None else hold.curvature(self.net.read(view.potentials, self.x))

    def decided(self, view: View) -> Bool[Array, ""]:
        """Whether rounding of the currents that meet moves no potential by more than a small part of the largest
        voltage, as far as each may be off by itself: |M^-1_ij eps meeting_j|, the root of the sum of squares over j;
        and whether M stays itself under rounding, so that steps lead nearer.
        """
        conductance, curvature = self.slopes(view)
        column = lambda current: self.solve(conductance, current, curvature).potentials
        inverse = jax.vmap(column, out_axes=1)(jnp.eye(view.potentials.size, dtype=view.potentials.dtype))
        uncertain = float(jnp.finfo(view.potentials.dtype).eps) * view.meeting
        moved = jnp.linalg.norm(inverse * uncertain[None], axis=1)
        still = shift_of(self.net, view.potentials, moved, self.x) <= state_tolerance(view.potentials.dtype)
        return still & (matrix_rounding(self.net.topology, inverse, conductance, curvature) <= 1)

    def step(self, view: View, alone: Any = False) -> Solved:
        """Where Newton's method leads: to potentials, or by a change of them; see `companion`.

        Potentials that a bound takes up are held there, unless the circuit is looked at `alone`.
        """
        net, maps = self.net, self.net.topology.maps
        u, (conductance, curvature) = view.potentials, self.slopes(view)
        current = -view.gradient
        if self.companion:
            # every element as a conductance beside a current source: nothing is lost to what u already carries
            current = -net.imbalance(jnp.zeros_like(u), self.x)
            if self.law is not None:
                slope = conductance[net.conductance.size :]
                current += maps.diode_test.transpose(slope * maps.diode(u) - view.flow.diode_current)
            if curvature is not None:
                current += maps.read_test.transpose(view.pull + curvature @ maps.read_test(u))
        if self.bounds is None or alone is True:
            return self.solve(conductance, current, curvature)
        held = view.held if alone is False else view.held & ~alone
        return self.solve(conductance, current, curvature, held, jnp.where(view.gradient > 0, *self.bounds[:2]))


class Ending(NamedTuple):
    """How an iteration ended.

    Attributes:
        steps: how many Newton steps it took.
        still: whether the last one led to where it was.
        stable: whether the last matrix was positive definite.
        precise: whether the last solution was decided by the precision.
    """

    steps: Any = np.int32(0)
    still: Any = np.False_
    stable: Any = np.True_
    precise: Any = np.True_


def straightened(net: Circuit, ceiling: Any) -> Any:
    """The law of real diodes, straightened far above a ceiling of their currents; None without any."""
    diode = net.diode
    if diode is None or jnp.iscomplexobj(diode.saturation_current):
        return diode
    moves = net.topology.maps.diode.absolute(np.ones(net.topology.size, net.conductance.dtype)) > 0
    highest = jnp.log(jnp.maximum(ceiling, diode.saturation_current) / diode.saturation_current) + math.log(SHORT)
    most = 0.75 * float(np.log(float(jnp.finfo(highest.dtype).max)))
    knee = diode.emission_voltage * jnp.where(moves & (highest < most), highest, most)
    return Straightened(diode, knee, diode.current(knee), diode.conductance(knee), moves)


def shift_of(net: Circuit, potentials: Array, change: Array, x: Array) -> Float[Array, ""]:
    """The largest change of a potential as a part of the largest voltage."""
    span = jnp.max(jnp.abs(net.voltages(potentials, x)), initial=0.0)
    return jnp.max(jnp.abs(change), initial=0.0) / jnp.maximum(span, float(jnp.finfo(span.dtype).tiny))


def newton(circuit: NewtonCircuit, first: View, limit, max_steps, certain: bool = True) -> tuple[View, Ending]:
    """Damped Newton to where Kirchhoff's law holds at every node and, to be `certain`, a step leads nowhere."""
    net, x, dtype = circuit.net, circuit.x, first.potentials.dtype
    epsilon = float(jnp.finfo(dtype).eps)
    small = 0.5 * state_tolerance(dtype)
    # bounds hide where a nudge pushes harder than conductances hold: there the circuit is looked at alone, at the end
    hidden = circuit.bounds is not None and isinstance(circuit.hold, Nudge)
    arrived = lambda view, ending: (view.left <= limit) & (ending.still | (not certain))

    def running(carry):
        view, ending, going, seen = carry
        return (ending.steps < max_steps) & ending.stable & going & ~(arrived(view, ending) & seen)

    def advance(carry):
        view, ending, _, _ = carry
        alone = arrived(view, ending) if hidden else np.False_
        u, found = view.potentials, circuit.step(view, alone)
        target = found.potentials if circuit.companion else u + found.potentials
        direction = target - u if circuit.companion else found.potentials
        change = circuit.within(target) - u if circuit.bounds is not None else direction
        shift = shift_of(net, u + change, change, x)
        ended = lambda still: Ending(ending.steps + 1 - alone.astype(np.int32), still, found.positive, found.precise)
        if not circuit.weighed:
            still = np.True_ if circuit.linear else shift <= small
            going = found.positive & (shift >= 0)  # and not NaN
            return circuit.view(target), ended(still), going, np.True_
        slope = jnp.minimum(jnp.sum(change * view.gradient), 0.0) if net.conservative else -view.merit
        # the merit is a sum that cancels: it is uncertain by the rounding of its terms, not of itself
        rounding = 16 * epsilon * (jnp.abs(view.merit) + jnp.sum(jnp.abs(u) * view.meeting))

        def taken(trial):
            """Whether the merit falls, or the parts of the currents do; or, where these balance, nothing tells."""
            fraction, new = trial
            after = left_over(new.balance, view.meeting)
            falls = new.merit <= view.merit + 1e-4 * fraction * slope
            calms = after <= jnp.where(view.left <= limit, limit, (1 - 0.25 * fraction) * view.left)
            # once the merit no longer resolves a step, only the currents count
            return ((jnp.abs(slope) > rounding) & falls) | (calms & (new.merit <= view.merit + rounding))

        def shorter(trial):
            fraction = trial[0] / 2
            fraction = jnp.where(fraction > epsilon, fraction, 0.0)
            point = circuit.within(jnp.where(fraction == 1, target, u + fraction * direction))
            return fraction, circuit.view(jnp.where(fraction > 0, point, u))

        moves = found.positive & ~alone
        refused = lambda trial: moves & ((trial[0] > 1) | (~taken(trial) & (trial[0] > 0)))
        fraction, new = jax.lax.while_loop(refused, shorter, (jnp.asarray(2.0, dtype), view))
        going = found.positive & (fraction > 0)
        after = ended(alone | (shift <= jnp.where(going, fraction, 1) * small))
        return new, after, going, alone if hidden else np.True_

    view, ending, *_ = jax.lax.while_loop(running, advance, (first, Ending(), np.True_, np.bool_(not hidden)))
    return view, ending
