"""Block coordinate descent for Hopfield networks: one layer at a time, each at its minimum given the others."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from substrates.classical.hopfield.layers import (
    BATCH,
    Layered,
    State,
    balances,
    chain_is_convex,
    downhill,
    least_stiffness,
    meeting_layers,
    one_over,
    output_at_rest,
    pushed_aside,
    restless,
)
from substrates.nudge import Nudge, Pin
from substrates.solvers.batching import if_any
from substrates.solvers.solver import Equilibrium, Solver, Status, left_over, tolerance
from substrates.wiring import Convolution, Dense, Strength, added, sweep_layers
from substrates.wiring.layers import feed, lifted
from substrates.wiring.near import ROUGHNESS, in_full, near, roughly

Carry = tuple[State, State]


class BlockDescent(Solver):
    """Settles a Hopfield network layer by layer; no step raises the total energy.

    Given its neighbours, a hidden layer feels a = b + P(w * s_before) + (what the layer after sends back) and moves to
    clip(a, 0, 1), or, where its units are smooth, to the state that feels just that. Where the interaction is bilinear
    (dense, convolutions without pooling or with average pooling) this is its exact minimum: the energy is then
    separable in the units of a layer, and convex in the activity of each. Layers that are not neighbours do not feel
    each other, so a sweep is the update of the even and odd layers in turn, in an order that carries the news: from the
    inputs to the outputs in the free phase, from the outputs back in a nudged one.

    With max pooling the energy of a layer is convex minus convex (the layer after is never negative), and clip(a, 0, 1)
    minimises its tangent majoriser: the convex-concave procedure. With soft pooling a step is halved until the energy
    does not rise.

    The outputs move to (a + pull + h o)/(1 + h), with the pull and the stiffness h of the nudge: exactly their minimum
    for the squared error under any beta > -1, and for other costs a step of Newton's method by the diagonal, halved
    until the energy does not rise. A pin holds them. Under a complex nudge the same sweeps lead to the continuation of
    the free state, as long as the nudge leaves it in their reach; nothing is halved or pushed there.

    Attributes:
        sweeps: a number of sweeps to do without a test (status `truncated`), or None to sweep until converged.
        max_sweeps: the most sweeps of a converging solve. It sweeps until no unit moves by more than the tolerance, as
            a part of what meets there, nor has far to go at the rate at which the moves shrink, and goes on as long as
            the residual is above the tolerance. A network that still creeps when the sweeps run out is `out_of_steps`.
        mixed: multiply changes of the activities in bfloat16 (`Solver.in_bfloat16`). Sweeps go on from products that
            are known in full until they have come as far as such changes tell; these are then done in full again.

    Where couplings are so strong that the energy may have saddles, forces can balance on one, as those of a memory do
    whose cue has no overlap with its patterns. There a roughly settled state is pushed aside a little, in a random
    direction (the same one each time, or that of the key), and settles again.

    Source: Scellier, Ernoult, Kendall and Kumar 2023, arXiv 2312.15103, for the alternate updates; Yuille and
    Rangarajan 2003, "The concave-convex procedure".
    """

    sweeps: int | None = None
    max_sweeps: int = 2000
    mixed: bool = eqx.field(static=True, default=False)

    def __call__(
        self, substrate: Layered, x: Array, nudge: Nudge | Pin | None, start: State, key: PRNGKeyArray | None
    ) -> Equilibrium:
        with in_full(self.mixed):
            return self._settle(substrate, x, nudge, start, key)

    def _settle(
        self, substrate: Layered, x: Array, nudge: Nudge | Pin | None, start: State, key: PRNGKeyArray | None
    ) -> Equilibrium:
        layers = _Layers(substrate, x, nudge, start, self.mixed)
        limit = tolerance(substrate, start, x, nudge)
        carry = layers.lifted(layers.pinned(start))
        if self.sweeps is not None:
            close = layers.near(carry)
            for _ in range(self.sweeps):
                carry = close.sweep(carry)
            carry = layers.in_full(carry)
            steps = jnp.asarray(self.sweeps, jnp.int32)
            residual = layers.residual(carry)
            status = Status.truncated
        else:
            carry, residual, moves, steps = self._converge(layers, carry, limit, key)
            status = Status.where((residual <= limit) & ~moves, Status.converged, Status.out_of_steps)
        state = carry[0]
        finite = jnp.isfinite(residual)
        for layer in state:
            finite &= jnp.all(jnp.isfinite(layer))
        status = Status.where(finite, status, Status.not_finite)
        status = Status.where(layers.runaway(state), Status.unstable, status)
        return Equilibrium(state, layers.energy(carry), residual, steps, status)

    def _converge(
        self, layers: _Layers, carry: Carry, limit: Array, key: PRNGKeyArray | None
    ) -> tuple[Carry, Array, Array, Array]:
        """(carry, residual, whether it still moves, sweeps). Where the energy may have saddles it settles roughly, is
        pushed aside by as much, and settles again: what a push grows from was no minimum.
        """
        saddles = ~layers.convex(carry[0])
        rough = jnp.where(saddles, jnp.maximum(jnp.sqrt(limit) / 4, limit), limit)
        endless = jnp.full_like(limit, jnp.inf)
        # layers between two that rest are at rest, so that every other layer is watched
        watched = slice(layers.last % 2, None, 2)

        def settle(carry, first, change, level):
            weights = one_over(layers.scale(carry[0])[watched])
            close, origin = layers.near(carry), carry[0]

            def distance(here, there):
                parts = zip(here[watched], there[watched], weights, strict=True)
                return jnp.max(jnp.stack([jnp.max(jnp.abs(new - old) * weight) for new, old, weight in parts]))

            def moving(inner):
                (state, _), before, change, step = inner
                going = restless(before, change, level) & (step < jnp.minimum(first + BATCH, self.max_sweeps))
                if self.mixed:
                    going &= change > ROUGHNESS * distance(state, origin)
                return going | ((step == first) & (step < self.max_sweeps))

            def advance(inner):
                carry, _, before, step = inner
                before = jnp.where(jnp.isfinite(before), before, 0)
                moved = close.sweep(carry)
                return moved, before, distance(moved[0], carry[0]), step + 1

            inner = (carry, jnp.zeros_like(limit), change, first)
            carry, before, change, step = jax.lax.while_loop(moving, advance, inner)
            carry = layers.in_full(carry)
            return carry, layers.residual(carry), restless(before, change, level), step, change

        def unsettled(outer):
            (_, residual, moves, step, _), aside = outer
            return unknown(residual) | (((residual > limit) | moves | aside) & (step < self.max_sweeps))

        def again(outer):
            (carry, _, moves, step, change), aside = outer
            push = aside & ~moves
            if not layers.continued:
                carry = if_any(push, lambda carry, step: layers.pushed(carry, rough, key, step), carry, step)
            still = aside & moves
            change = jnp.where(push, endless, change)
            return settle(carry, step, change, jnp.where(still, rough, limit)), still

        unknown = lambda residual: residual < 0
        first = carry, jnp.full_like(limit, -1), jnp.asarray(True), jnp.zeros((), jnp.int32), endless
        outer = first, saddles
        (carry, residual, moves, step, _), aside = jax.lax.while_loop(unsettled, again, outer)
        return carry, residual, moves | aside, step


class _Layers:
    """One solve. A carry is (state, lifts): lifts[k] is what layer k sends on, before pooling; both are current."""

    def __init__(self, net: Layered, x: Array, nudge: Nudge | Pin | None, start: State, mixed: bool):
        if [layer.shape for layer in start] != list(net.shapes[1:]):
            raise ValueError(
                f"start: wanted layers of the shapes {net.shapes[1:]}, got {tuple(layer.shape for layer in start)}"
            )
        self.net, self.nudge, self.last = net, nudge, len(start) - 1
        self.unit, self.continued = net.unit, jnp.iscomplexobj(start[-1])
        self.couplings = net.coupling[1:]
        self.field = added(net.bias[0], feed(net.coupling[0], net.clamped(x)))
        self.strengths = tuple(Strength.of(c.weight) for c in self.couplings)
        self.rough = tuple(map(roughly, self.couplings)) if mixed else None

    def near(self, carry: Carry) -> _Layers:
        """The same solve with couplings that multiply changes from here in bfloat16, where they may."""
        if self.rough is None:
            return self
        sent = [*(self.unit.sent(s) for s in carry[0][:-1]), carry[0][-1]]
        close = copy.copy(self)
        close.couplings = tuple(map(near, self.couplings, self.rough, sent[:-1], carry[1], sent[1:]))
        return close

    def in_full(self, carry: Carry) -> Carry:
        """A carry of roughly multiplied changes, with its products in full."""
        return carry if self.rough is None else self.lifted(carry[0])

    def pinned(self, state: State) -> State:
        if isinstance(self.nudge, Pin):
            return (*state[:-1], jnp.asarray(self.nudge.target, state[-1].dtype))
        return state

    def lifted(self, state: State) -> Carry:
        return state, tuple(lifted(c, self.unit.sent(s)) for c, s in zip(self.couplings, state[:-1], strict=True))

    def from_before(self, lifts: Sequence[Array], k: int) -> Array:
        """The bias and what the layer before sends."""
        if k == 0:
            return self.field
        coupling, lift = self.couplings[k - 1], lifts[k - 1]
        return added(self.net.bias[k], coupling.pool(lift) if isinstance(coupling, Convolution) else lift)

    def from_after(self, state: Sequence[Array], lifts: Sequence[Array], k: int) -> Array:
        """What the layer after sends back."""
        coupling = self.couplings[k]
        after = state[k + 1] if k + 1 == self.last else self.unit.sent(state[k + 1])
        if isinstance(coupling, Dense):
            return coupling.backward(after).reshape(state[k].shape)
        return coupling.convolve_back(coupling.unpool(after, lifts[k]), state[k].shape)

    def sweep(self, carry: Carry) -> Carry:
        return sweep_layers(self._in_turn, carry, self.last + 1, self.nudge)

    def _in_turn(self, carry: Carry, order: Sequence[int]) -> Carry:
        state, lifts = list(carry[0]), list(carry[1])
        for k in order:
            if k == self.last:
                state[k] = output_at_rest(state[k], self.from_before(lifts, k), self.nudge)
            else:
                coupling, before = self.couplings[k], self.from_before(lifts, k)
                moved = self.unit.at_rest(before + self.from_after(state, lifts, k))
                lift = lifted(coupling, self.unit.sent(moved))
                if isinstance(coupling, Convolution) and coupling.pooling == "soft":
                    moved, lift = _not_uphill(coupling, before, state[k + 1], (state[k], lifts[k]), (moved, lift))
                state[k], lifts[k] = moved, lift
        return tuple(state), tuple(lifts)

    def scale(self, state: State) -> State:
        """The sizes of the forces that meet at each unit: the substrate's own `force_scale`."""
        return meeting_layers(self.field, self.net.bias, self.strengths, state, self.unit)

    def residual(self, carry: Carry) -> Float[Array, ""]:
        """The largest part of the forces that is left over: the substrate's own residual, from the products at hand."""
        state, lifts = carry
        before, after = lambda k: self.from_before(lifts, k), lambda k: self.from_after(*carry, k)
        *forces, last = balances(state, before, after, self.unit)
        if isinstance(self.nudge, Nudge):
            last += self.nudge.pull(state[-1])
        elif isinstance(self.nudge, Pin):
            last = state[-1] - self.nudge.target
        scale = self.scale(state)
        if isinstance(self.nudge, Nudge):
            scale = (*scale[:-1], scale[-1] + jnp.real(self.nudge.size(state[-1])))
        return left_over((*forces, last), scale)

    def convex(self, state: State) -> Array:
        """Whether the couplings alone show that the energy is convex, so that it has no saddle to rest on.

        A continued state stays on its branch, whatever that is.
        """
        if self.continued:
            return jnp.asarray(True)
        pinned = isinstance(self.nudge, Pin)
        couplings = self.couplings[:-1] if pinned else self.couplings
        own = self.unit.stiffness
        return chain_is_convex(couplings, own if pinned else 1 + least_stiffness(self.nudge, state[-1]), own)

    def pushed(self, carry: Carry, size: Array, key: PRNGKeyArray | None, step: Array) -> Carry:
        """`pushed_aside`, but for pinned outputs."""
        return self.lifted(self.pinned(pushed_aside(carry[0], self.scale(carry[0]), size, key, step, self.unit)))

    def energy(self, carry: Carry) -> Float[Array, ""]:
        """The total energy, the substrate's own, from the products at hand."""
        state, lifts = carry
        total = jnp.zeros((), state[0].dtype)
        for k, s in enumerate(state):
            own, sent = (0.5 * s**2, s) if k == self.last else (self.unit.own_energy(s), self.unit.sent(s))
            total += jnp.sum(own - self.from_before(lifts, k) * sent)
        return total + self.nudge.energy(state[-1]) if isinstance(self.nudge, Nudge) else total

    def runaway(self, state: State) -> Array:
        """Whether a negative nudge pushes an output harder than its own energy o^2/2 holds it."""
        if not isinstance(self.nudge, Nudge):
            return jnp.asarray(False)
        return jnp.any(1 + jnp.real(self.nudge.stiffness(state[-1])) <= 0)


def _not_uphill(
    coupling: Convolution, before: Array, after: Array, old: tuple[Array, Array], new: tuple[Array, Array]
) -> tuple[Array, Array]:
    """The way from an old to a new layer, with its lift, halved until the energy does not rise."""

    def along(t):
        return (1 - t) * old[0] + t * new[0], (1 - t) * old[1] + t * new[1]

    def energy(t):
        s, lift = along(t)
        return jnp.sum(0.5 * s**2 - before * s) - jnp.sum(after * coupling.pool(lift))

    sent = jnp.sum(jnp.abs(after * coupling.pool(old[1])))
    size = jnp.sum(0.5 * old[0] ** 2 + jnp.abs(before * old[0])) + sent
    return along(downhill(energy, energy(jnp.zeros_like(size)), size))
