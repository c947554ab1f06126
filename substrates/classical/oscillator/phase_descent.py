"""Exact block descent of coupled phases, finished by Newton's method."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Inexact, Int, PRNGKeyArray, PyTree

from substrates.classical.oscillator.newton import settle_by_newton
from substrates.classical.oscillator.phases import LocalTerms, Oscillators, angle_between, arrows, wrapped
from substrates.classical.oscillator.whole import MOST_COLOURS, Whole, balance
from substrates.nudge import Nudge, Pin
from substrates.solvers.generic import DescendThenPolish
from substrates.solvers.solver import Equilibrium, Solver, Status, judge, tolerance
from substrates.wiring import Bonds, CompiledRoles, Dense, with_leading_axes

DENSE_SIZE = 96
"""Up to so many phases a network is one matrix, and the Hessian is decomposed."""
PERIOD = 3
MOST_GAIN = 1.9
NEAR = 1e-2
"""The torque, as a part of what meets at a phase, at which small systems leave the sweeps for Newton's method."""


class InBlocks(Oscillators, Protocol):
    """Oscillators that turn in blocks."""

    def blocks(self, x: Float[Array, "inputs"], small: bool) -> Whole | LayerBlocks | GraphBlocks:
        """The phases that turn together at the input x; of a small network, or one at run time, the whole."""
        ...


class PhaseDescent(Solver):
    """Settles oscillators block by block, each phase exactly given the phases of its neighbours.

    With z = e^(i phi), nodes that are not joined to one another turn to

        z_i <- A_i / |A_i|,   A_i = sum_j W_ij z_j + h_i e^(i psi_i) + 2 K_i cos(phi_i),

    which minimises the energy over them (the second harmonic, concave in z, by its tangent). Blocks whose nodes are
    joined add c_i z_i with c_i = sum_j |W_ij|, which makes W + c positive and every step a descent. A natural
    frequency turns z_i on by arcsin(omega_i / |A_i|), to where the torques balance; where omega_i exceeds |A_i| there
    is no balance, and the residual tells. A nudge acts on the outputs by its torque and stiffness. Blocks are swept in
    order in the free phase and backwards in a nudged one, until no torque is more than a part of what meets at its
    phase. Small systems leave the sweeps once they are near, for Newton's method, which leaves saddles and certifies
    the state by its Hessian; large ones if the sweeps run out, or where phases are held so weakly that torques do not
    tell how far they are from rest. Of large systems a saddle is `unstable` where one phase alone stands opposed to
    what it feels; others are not seen.

    Parts that nothing holds turn freely as a whole: they settle against one another, and the status is `zero_mode`.

    Phases stay on the branch of the start: phi = start + an angle in (-pi, pi]. A complex state is left to
    `DescendThenPolish`.

    Attributes:
        sweeps: a number of sweeps to do without a test (status `truncated`), or None to settle until converged.
        max_sweeps: the most sweeps of a converging solve.
        dense_size: up to this many phases Newton's method factorises the Hessian; above it solves by conjugate
            gradients, without a matrix.
    """

    sweeps: int | None = None
    max_sweeps: int = 2000
    dense_size: int = DENSE_SIZE

    def __call__(
        self, substrate: InBlocks, x: PyTree, nudge: Nudge | Pin | None, start: PyTree, key: PRNGKeyArray | None
    ) -> Equilibrium:
        if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(start)):
            return DescendThenPolish()(substrate, x, nudge, start, key)
        meeting = substrate.force_scale(start, x)
        limit = tolerance(substrate, start, x, nudge, scale=meeting)
        if isinstance(nudge, Pin):
            start = pinned(substrate, start, nudge)
        small = sum(leaf.size for leaf in jax.tree.leaves(start)) <= self.dense_size
        blocks = substrate.blocks(x, small)
        if isinstance(blocks, Whole):
            phases = _AtOnce(substrate, blocks, nudge, start, meeting)
        else:
            phases = _InTurn(substrate, blocks, nudge, start, meeting)
        if self.sweeps is not None:
            z = jax.lax.fori_loop(0, self.sweeps, lambda _, z: phases.sweep(z)[0], phases.start)
            found = judge(substrate, phases.unwound(z), x, nudge, self.sweeps, limit)
            finite = found.status != Status.not_finite
            return dataclasses.replace(found, status=Status.where(finite, Status.truncated, Status.not_finite))
        # half of the limit leaves the other half to the rounding between arrows and phases
        if small and isinstance(blocks, Whole):
            near = jnp.maximum(limit / 2, NEAR)
            moving = lambda carry: (carry[1] > near) & (carry[2] < self.max_sweeps)
            advance = lambda carry: (*phases.sweep(carry[0]), carry[2] + 1)
            first = (phases.start, jnp.full_like(limit, jnp.inf), jnp.zeros((), jnp.int32))
            z, _, sweeps = jax.lax.while_loop(moving, advance, first)
            return settle_by_newton(substrate, x, nudge, phases.unwound(z), limit, sweeps, blocks)
        z, torque, sweeps = self._sweep_until(phases, limit / 2)
        return settle_by_newton(substrate, x, nudge, phases.unwound(z), limit, sweeps, None, jnp.isinf(torque))

    def _sweep_until(self, phases: _Phases, enough: Array) -> tuple[PyTree, Array, Array]:
        """Sweeps until no phase feels more torque than that part of what meets at it: (arrows, the largest, sweeps).

        A sweep tells what each block felt before its turn, not what the turns of later blocks made of it: when that is
        little enough, the torques are looked at all at once, and more is asked of the sweeps if they disagree.
        """

        def running(carry):
            _, torque, worst, *_, sweep = carry
            return (worst > enough) & ((sweep < self.max_sweeps) | (torque < jnp.inf))

        def advance(carry):
            z, torque, _, near, earlier, gain, sweep = carry
            look = ~(torque > near) | (sweep >= self.max_sweeps)
            z, felt = phases.sweep(z, gain, look)
            judging = ~look & (sweep % PERIOD == 0)
            better = over_relaxation(gain, (felt / earlier) ** (1 / PERIOD))
            gain = jnp.where(judging & (sweep > 0), better, gain)
            # infinite after a look, so that each is followed by a sweep
            torque, worst = jnp.where(look, infinite, felt), jnp.where(look, felt, infinite)
            near = jnp.where(look, carry[1] / 4, near)
            return z, torque, worst, near, jnp.where(judging, felt, earlier), gain, sweep + (~look).astype(jnp.int32)

        infinite = jnp.full_like(enough, jnp.inf)
        first = (phases.start, infinite, infinite, enough, infinite, jnp.ones_like(enough), jnp.zeros((), jnp.int32))
        z, _, worst, *_, sweeps = jax.lax.while_loop(running, advance, first)
        return z, worst, sweeps


def over_relaxation(gain: Float[Array, ""], rate: Float[Array, ""]) -> Float[Array, ""]:
    """The gain by which updates had better overshoot, judged by the rate at which sweeps with the present one converge.

    With rho = (rate + gain - 1)^2 / (gain^2 rate) the rate of plain sweeps, it is 2 / (1 + sqrt(1 - rho)); a rate
    below gain - 1 tells nothing and a rising torque starts anew from 1.

    Source: Young 1954; the adaptive estimate, Hageman and Young 1981, "Applied Iterative Methods", chapter 9.
    """
    plain = (rate + gain - 1) ** 2 / (gain**2 * jnp.maximum(rate, 1e-6))
    better = 2 / (1 + jnp.sqrt(jnp.maximum(1 - plain, 0.0)))
    chosen = jnp.where(rate > gain - 1, jnp.clip(better, gain, MOST_GAIN), gain)
    return jnp.where(rate < 1, chosen, 1.0)


class _Phases(abc.ABC):
    """The constants of one solve, and the sweeps.

    Attributes:
        start: the phases, as the sweeps have them.
        count: how many blocks turn in a sweep.
    """

    start: PyTree
    count: int | Int[Array, ""]

    def __init__(self, net: InBlocks, nudge: Nudge | Pin | None, first: PyTree, meeting: PyTree):
        self.net, self.first = net, first
        self.nudge = nudge if isinstance(nudge, Nudge) else None
        self.pinned = isinstance(nudge, Pin)
        self.backwards = self.pinned if self.nudge is None else self.nudge.beta != 0

    @abc.abstractmethod
    def turn(self, number: Any, z: PyTree, gain: Any, look: Any) -> tuple[PyTree, Float[Array, ""]]:
        """The phases after a block has turned `gain` times as far as it takes to rest, and the largest torque that any
        of it felt before, as a part of what meets there. In a look nothing turns, and the torque is infinite where a
        phase stands opposed to what it feels.
        """

    @abc.abstractmethod
    def unwound(self, z: PyTree) -> PyTree:
        """The state, each phase within half a turn of the start."""

    def sweep(self, z: PyTree, gain: Any = 1.0, look: Any = False) -> tuple[PyTree, Float[Array, ""]]:
        """One turn of every block, and the largest torque that any phase felt just before its turn."""

        def update(number: Array, carry: tuple) -> tuple:
            number = jnp.where(self.backwards, self.count - 1 - number, number)
            z, torque = self.turn(number, carry[0], gain, look)
            return z, jnp.maximum(carry[1], torque)

        return jax.lax.fori_loop(0, self.count, update, (z, jnp.zeros((), jax.tree.leaves(z)[0].dtype)))


def opposed(curvature: Float[Array, "n"]) -> Bool[Array, "n"]:
    """Whether a phase loses energy, to second order, by turning alone; curvatures in parts of what meets."""
    return curvature < -(float(jnp.finfo(curvature.dtype).eps) ** 0.5)


class _AtOnce(_Phases):
    """Sweeps of a small network: every class of phases sees the whole, and turns. Phases stay angles."""

    def __init__(self, net: InBlocks, whole: Whole, nudge: Nudge | Pin | None, first: PyTree, meeting: PyTree):
        _Phases.__init__(self, net, nudge, first, meeting)
        self.whole = whole
        self.start, self.unravel = ravel_pytree(first)
        meeting = ravel_pytree(meeting)[0]
        self.unit = 1 / jnp.where(meeting > 0, meeting, 1.0)
        self.colour, self.count, self.shift = whole.at_once()
        if self.pinned:
            self.colour = jnp.where(jnp.any(whole.shown > 0, axis=0), -1, self.colour)

    def turn(self, number, z, gain, look):
        along, across, curvature = (self.unit * part for part in self.whole.balance(z, self.nudge, self.shift))
        size = jnp.sqrt(along**2 + across**2)
        angle, torque = jnp.arctan2(across, along), across
        if self.whole.frequency is not None:
            turning = self.unit * self.whole.frequency
            torque = across + turning
            angle += jnp.arcsin(jnp.maximum(jnp.minimum(turning / jnp.where(size > 0, size, jnp.inf), 1), -1))
        torque, turns = jnp.where(along >= 0, jnp.abs(torque), size), self.colour == number
        felt = torque if look is False else jnp.where(look & opposed(curvature), jnp.inf, torque)
        moved = self.start + wrapped(z - self.start + gain * angle)
        return jnp.where(turns & ~jnp.asarray(look), moved, z), jnp.max(jnp.where(turns, felt, 0))

    def unwound(self, z):
        return self.unravel(z)


class _InTurn(_Phases):
    """Sweeps of a large network, block by block, on arrows."""

    def __init__(
        self,
        net: InBlocks,
        blocks: LayerBlocks | GraphBlocks,
        nudge: Nudge | Pin | None,
        first: PyTree,
        meeting: PyTree,
    ):
        _Phases.__init__(self, net, nudge, first, meeting)
        self.blocks, self.count = blocks, len(blocks.nodes)
        self.start = blocks.arrows(first)
        self.unit = [1 / jnp.where(size > 0, size, 1.0) for size in blocks.split(meeting)]

    def turn(self, number, z, gain, look):
        return jax.lax.switch(number, [lambda z, k=k: self._turned(k, z, gain, look) for k in range(self.count)], z)

    def _turned(self, k: int, z: PyTree, gain: Any, look: Any) -> tuple[PyTree, Float[Array, ""]]:
        block, unit = self.blocks.nodes[k], self.unit[k]
        c, s = old = self.blocks.get(z, k)
        parts = balance(old, self.blocks.field(z, k), block.harmonic)
        if block.outputs is not None and self.nudge is not None:
            torque, stiffness = self._nudge_on(z, self.nudge, block.outputs)
            parts = parts[0] + stiffness, parts[1] + torque, parts[2] + stiffness
        along, across, curvature = (unit * part for part in parts)
        if block.shift is not None:
            along += unit * block.shift
        size, torque = jnp.sqrt(along**2 + across**2), across
        moving = size > 0
        over = jnp.where(moving, size, 1.0)
        cosine, sine = jnp.where(moving, along, 1.0) / over, across / over
        if block.frequency is not None:
            turning = unit * block.frequency
            torque = across + turning
            by = jnp.clip(turning / jnp.where(moving, size, jnp.inf), -1, 1)
            rest = jnp.sqrt(1 - by**2)
            cosine, sine = cosine * rest - sine * by, sine * rest + cosine * by
        felt, still = jnp.where(along >= 0, jnp.abs(torque), size), jnp.asarray(look)
        felt = jnp.where(still & opposed(curvature), jnp.inf, felt)
        held = self._held(k)
        if held is not None:
            felt, still = jnp.where(held, 0, felt), still | held
        new = jnp.stack([c * cosine - s * sine, s * cosine + c * sine])
        if not isinstance(gain, float):
            beyond = gain * new - (gain - 1) * old
            new = beyond / jnp.sqrt(jnp.sum(beyond**2, axis=0, keepdims=True))
        return self.blocks.put(z, k, jnp.where(with_leading_axes(still, old.ndim), old, new)), jnp.max(felt)

    def _held(self, k: int) -> np.ndarray | None:
        """Which nodes of a block a pin holds."""
        outputs = self.blocks.nodes[k].outputs
        if outputs is None or not self.pinned:
            return None
        return np.isin(np.arange(outputs.size), outputs.slot)

    def _nudge_on(self, z: PyTree, nudge: Nudge, outputs: Outputs) -> tuple[Array, ...]:
        """The torque -beta dC/dphi and the stiffness beta d2C/dphi2 (its diagonal) of a nudge on a block."""
        arrow = self.blocks.outputs(z)
        if self.net.readout == "sine":
            cosine, sine = arrow
            pull = nudge.pull(sine)
            return outputs.spread((pull * cosine, nudge.stiffness(sine) * cosine**2 + pull * sine))
        phase = self.net.output_phases(self.first) + angle_between(arrow, self.blocks.outputs(self.start))
        return outputs.spread((nudge.pull(phase), nudge.stiffness(phase)))

    def unwound(self, z):
        return self.blocks.unwound(z, self.first)


def pinned(net: Oscillators, start: PyTree, pin: Pin) -> PyTree:
    """The start with its outputs turned, within half a turn, to where they show what the pin demands."""
    phase = net.output_phases(start)
    target = jnp.asarray(pin.target, phase.dtype)
    if net.readout == "sine":
        rising = jnp.arcsin(target)  # NaN beyond 1: no phase shows that, and the status says so
        turns = jnp.stack([wrapped(rising - phase), wrapped(jnp.pi - rising - phase)])
        turn = jnp.where(jnp.abs(turns[0]) <= jnp.abs(turns[1]), turns[0], turns[1])
        return net.with_outputs(start, phase + turn)
    return net.with_outputs(start, target)


class Outputs(NamedTuple):
    """The outputs in a block: `index` of each, and its `slot` in the block of `size` nodes."""

    index: np.ndarray
    slot: np.ndarray
    size: int

    def spread(self, values: tuple[Array, ...]) -> tuple[Array, ...]:
        """Numbers per output as numbers per node of the block, zero elsewhere."""
        if np.array_equal(self.index, np.arange(values[0].size)) and np.array_equal(self.slot, np.arange(self.size)):
            return values  # a layer of outputs, in order
        return tuple(jnp.zeros(self.size, v.dtype).at[self.slot].set(v[self.index]) for v in values)


class Block(NamedTuple):
    """Nodes that turn together: what they feel beside the field of the others; None for what there is not."""

    shift: Float[Array, "block"] | None
    harmonic: Float[Array, "block"] | None
    frequency: Float[Array, "block"] | None
    outputs: Outputs | None


class LayerBlocks:
    """The layers after the input of a layered network, one block each; arrows are a tuple of (2, nodes).

    Args:
        coupling: between successive layers, the first of them the input.
        terms: what acts on the phases of each layer after it.
        inputs: the arrows of the input, which feel nothing: what they exert is computed once.
    """

    def __init__(self, coupling: tuple[Dense, ...], terms: LocalTerms, inputs: Float[Array, "2 inputs"]):
        self.coupling = coupling
        self.last = len(coupling) - 1
        self.source = [h[None] * arrows(psi) for h, psi in zip(terms.field, terms.field_phase, strict=True)]
        self.source[0] += coupling[0].forward(inputs)
        none = (None,) * len(coupling)
        pairs = zip(terms.second_harmonic or none, terms.frequency or none, strict=True)
        self.nodes = [Block(None, *pair, None) for pair in pairs]
        outputs = np.arange(terms.field[-1].size)
        self.nodes[-1] = self.nodes[-1]._replace(outputs=Outputs(outputs, outputs, outputs.size))

    def split(self, values: tuple) -> tuple:
        return values

    def arrows(self, state: tuple) -> tuple:
        return tuple(arrows(phase) for phase in state)

    def field(self, z: tuple, k: int) -> Inexact[Array, "2 nodes"]:
        field = self.source[k]
        if k > 0:
            field += self.coupling[k].forward(z[k - 1])
        if k < self.last:
            field += self.coupling[k + 1].backward(z[k + 1])
        return field

    def get(self, z: tuple, k: int) -> Array:
        return z[k]

    def put(self, z: tuple, k: int, new: Array) -> tuple:
        return (*z[:k], new, *z[k + 1 :])

    def outputs(self, z: tuple) -> Inexact[Array, "2 outputs"]:
        return z[-1]

    def unwound(self, z: tuple, first: tuple) -> tuple:
        return tuple(phase + angle_between(new, arrows(phase)) for new, phase in zip(z, first, strict=True))


class GraphBlocks:
    """The colour classes of the free nodes of a large graph, or all of them at once if the colours are many.

    Arrows are one array (2, n) of all nodes, the clamped ones among them.

    Args:
        coupling: between the nodes.
        roles: of the nodes.
        terms: what acts on the phase of each.
        phases: of a state, the phases of all nodes.
    """

    def __init__(self, coupling: Bonds, roles: CompiledRoles, terms: LocalTerms, phases: Callable[[Array], Array]):
        self.dense, self.free, self.read, self.phases = coupling.dense, roles.free, roles.outputs, phases
        many = len(roles.classes) > MOST_COLOURS
        self.members = [roles.free] if many else [roles.free[members] for members in roles.classes]
        matrix = coupling.matrix() if self.dense else None
        self.source = terms.field[None] * arrows(terms.field_phase)
        self.rows, self.nodes = [], []
        neighbours, along = roles.edges.neighbours
        for members in self.members:
            rows = matrix[:, members] if matrix is not None else (coupling.along(along[members]), neighbours[members])
            self.rows.append(rows)
            shift = None
            if many:  # joined to one another
                sizes = jnp.abs(coupling.along(along[members]))
                shift = jnp.sum(jnp.where(np.isin(neighbours[members], roles.free), sizes, 0), axis=1)
            index = np.flatnonzero(np.isin(self.read, members))
            slot = np.searchsorted(members, self.read[index])
            harmonic, frequency = (
                None if values is None else values[members] for values in (terms.second_harmonic, terms.frequency)
            )
            shown = Outputs(index, slot, len(members)) if len(index) else None
            self.nodes.append(Block(shift, harmonic, frequency, shown))

    def split(self, values: Array) -> tuple:
        return tuple(values[np.searchsorted(self.free, members)] for members in self.members)

    def arrows(self, state: Array) -> Array:
        return arrows(self.phases(state))

    def field(self, z: Array, k: int) -> Inexact[Array, "2 block"]:
        if self.dense:
            return self.source[:, self.members[k]] + z @ self.rows[k]
        weight, neighbours = self.rows[k]
        return self.source[:, self.members[k]] + jnp.sum(weight[None] * z[:, neighbours], axis=-1)

    def get(self, z: Array, k: int) -> Array:
        return z[:, self.members[k]]

    def put(self, z: Array, k: int, new: Array) -> Array:
        return z.at[:, self.members[k]].set(new)

    def outputs(self, z: Array) -> Inexact[Array, "2 outputs"]:
        return z[:, self.read]

    def unwound(self, z: Array, first: Array) -> Array:
        return first + angle_between(z[:, self.free], arrows(first))
