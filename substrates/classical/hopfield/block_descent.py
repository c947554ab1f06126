"""Block coordinate descent for Hopfield networks: one layer at a time, each at its minimum given the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from substrates.nudge import Nudge, Pin
from substrates.solvers.solver import Equilibrium, Solver, Status, left_over, tolerance
from substrates.strength import Strength, squared_norm
from substrates.wiring import Convolution, Dense

State = tuple[Float[Array, "..."], ...]

BATCH = 32
"""So many sweeps are measured against the forces that met at each unit before them."""


class BlockDescent(Solver):
    """Settles a Hopfield network layer by layer; no step raises the total energy.

    Given its neighbours, a hidden layer feels a = b + P(w * s_before) + (what the layer after sends back) and moves to
    clip(a, 0, 1). That is its exact minimum where the interaction is bilinear (dense, convolutions without pooling or
    with average pooling): the energy is then separable in the units of a layer, each with curvature 1. Layers that are
    not neighbours do not feel each other, so a sweep is the update of the even and odd layers in turn, in an order that
    carries the news: from the inputs to the outputs in the free phase, from the outputs back in a nudged one.

    With max pooling the energy of a layer is convex minus convex (the layer after is never negative), and clip(a, 0, 1)
    minimises its tangent majoriser: the convex-concave procedure. With soft pooling a step is halved until the energy
    does not rise.

    The outputs move to (a + pull + h o)/(1 + h), with the pull and the stiffness h of the nudge: exactly their minimum
    for the squared error under any beta > -1, and for other costs a step of Newton's method by the diagonal, halved
    until the energy does not rise. A pin holds them.

    Attributes:
        sweeps: a number of sweeps to do without a test (status `truncated`), or None to sweep until converged.
        max_sweeps: the most sweeps of a converging solve. It sweeps until no unit moves by more than the tolerance, as
            a part of what meets there, nor has far to go at the rate at which the moves shrink, and goes on as long as
            the residual is above the tolerance. A network that still creeps when the sweeps run out is `out_of_steps`.

    Where couplings are so strong that the energy may have saddles, forces can balance on one, as those of a memory do
    whose cue has no overlap with its patterns. There a roughly settled state is pushed aside a little, in a random
    direction (the same one each time, or that of the key), and settles again.

    Source: Scellier, Ernoult, Kendall and Kumar 2023, arXiv 2312.15103, for the alternate updates; Yuille and
    Rangarajan 2003, "The concave-convex procedure".
    """

    sweeps: int | None = None
    max_sweeps: int = 2000

    def __call__(
        self, substrate: Any, x: Array, nudge: Nudge | Pin | None, start: State, key: PRNGKeyArray | None
    ) -> Equilibrium:
        layers = _Layers(substrate, x, nudge, start)
        limit = tolerance(substrate, start, x, nudge)
        carry = layers.lifted(layers.pinned(start))
        if self.sweeps is not None:
            for _ in range(self.sweeps):
                carry = layers.sweep(carry)
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

    def _converge(self, layers: _Layers, carry: tuple[State, State], limit: Array, key: PRNGKeyArray | None) -> tuple:
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

            def moving(inner):
                _, before, change, step = inner
                going = restless(before, change, level) & (step < jnp.minimum(first + BATCH, self.max_sweeps))
                return going | (step == first)

            def advance(inner):
                (state, lifts), _, before, step = inner
                before = jnp.where(jnp.isfinite(before), before, 0)
                moved = layers.sweep((state, lifts))
                both = zip(moved[0][watched], state[watched], weights, strict=True)
                changes = [jnp.max(jnp.abs(new - old) * weight) for new, old, weight in both]
                return moved, before, jnp.max(jnp.stack(changes)), step + 1

            inner = (carry, jnp.zeros_like(limit), change, first)
            carry, before, change, step = jax.lax.while_loop(moving, advance, inner)
            return carry, layers.residual(carry), restless(before, change, level), step, change

        def unsettled(outer):
            (_, residual, moves, step, _), aside = outer
            return ((residual > limit) | moves | aside) & (step < self.max_sweeps)

        def again(outer):
            (carry, _, moves, step, change), aside = outer
            push = aside & ~moves
            pushed = layers.pushed(carry, rough, key, step)
            carry = jax.tree.map(lambda new, old: jnp.where(push, new, old), pushed, carry)
            still = aside & moves
            change = jnp.where(push, endless, change)
            return settle(carry, step, change, jnp.where(still, rough, limit)), still

        outer = settle(carry, jnp.zeros((), jnp.int32), endless, rough), saddles
        (carry, residual, moves, step, _), aside = jax.lax.while_loop(unsettled, again, outer)
        return carry, residual, moves | aside, step


def one_over(scale: State) -> State:
    """1/scale; 0 where nothing meets yet, which the residual sees to once something does."""
    return jax.tree.map(lambda size: jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 0), scale)


def restless(before: Array, change: Array, level: Array) -> Array:
    """Whether sweeps that change a state by one part, then by another, have farther to go than a tolerance allows.

    The changes shrink by rho = change/before, so that change rho/(1 - rho) is still to come. A state may be off by
    eps^(-1/4)/2 times the tolerance of its forces: 2 eps^(1/2) in a free phase. At first `before` is 0.
    """
    reach = float(jnp.finfo(level.dtype).eps) ** -0.25 / 2
    return (change > level) | (change**2 > reach * level * (before - change))


class _Layers:
    """One solve. A carry is (state, lifts): lifts[k] is what layer k sends on, before pooling; both are current."""

    def __init__(self, net: Any, x: Array, nudge: Nudge | Pin | None, start: State):
        if [layer.shape for layer in start] != list(net.shapes[1:]):
            raise ValueError(
                f"start: wanted layers of the shapes {net.shapes[1:]}, got {tuple(layer.shape for layer in start)}"
            )
        self.net, self.nudge, self.last = net, nudge, len(start) - 1
        self.couplings = net.coupling[1:]
        self.field = net.bias[0] + net.arriving(0, net.clamped(x))
        self.strengths = tuple(map(Strength.of, self.couplings))

    def pinned(self, state: State) -> State:
        if isinstance(self.nudge, Pin):
            return (*state[:-1], jnp.asarray(self.nudge.target, state[-1].dtype))
        return state

    def lifted(self, state: State) -> tuple[State, State]:
        return state, tuple(_lift(c, layer) for c, layer in zip(self.couplings, state[:-1], strict=True))

    def from_before(self, lifts: Any, k: int) -> Array:
        """The bias and what the layer before sends."""
        if k == 0:
            return self.field
        coupling, lift = self.couplings[k - 1], lifts[k - 1]
        return self.net.bias[k] + (coupling.pool(lift) if isinstance(coupling, Convolution) else lift)

    def from_after(self, state: Any, lifts: Any, k: int) -> Array:
        """What the layer after sends back."""
        coupling, after = self.couplings[k], state[k + 1]
        if isinstance(coupling, Dense):
            return coupling.backward(after).reshape(state[k].shape)
        return coupling.convolve_back(coupling.unpool(after, lifts[k]), state[k].shape)

    def sweep(self, carry: tuple[State, State]) -> tuple[State, State]:
        state, lifts = list(carry[0]), list(carry[1])
        order = range(self.last + 1)
        for k in order if self.nudge is None else reversed(order):
            if k == self.last:
                state[k] = output_at_rest(state[k], self.from_before(lifts, k), self.nudge)
            else:
                before = self.from_before(lifts, k)
                moved = jnp.clip(before + self.from_after(state, lifts, k), 0, 1)
                lift = _lift(self.couplings[k], moved)
                if isinstance(self.couplings[k], Convolution) and self.couplings[k].pooling == "soft":
                    moved, lift = self.not_uphill(before, state[k + 1], (state[k], lifts[k]), (moved, lift), k)
                state[k], lifts[k] = moved, lift
        return tuple(state), tuple(lifts)

    def not_uphill(self, before: Array, after: Array, old: tuple, new: tuple, k: int) -> tuple[Array, Array]:
        """The way from an old to a new layer, with its lift, halved until the energy does not rise."""

        def along(t):
            return tuple((1 - t) * start + t * end for start, end in zip(old, new, strict=True))

        def energy(t):
            s, lift = along(t)
            return jnp.sum(0.5 * s**2 - before * s) - jnp.sum(after * self.couplings[k].pool(lift))

        sent = jnp.sum(jnp.abs(after * self.couplings[k].pool(old[1])))
        size = jnp.sum(0.5 * old[0] ** 2 + jnp.abs(before * old[0])) + sent
        return along(_downhill(energy, energy(jnp.zeros_like(size)), size))

    def scale(self, state: State) -> State:
        """The sizes of the forces that meet at each unit: the substrate's own `force_scale`."""
        return meeting_layers(self.field, self.net.bias, self.strengths, state)

    def residual(self, carry: tuple[State, State]) -> Float[Array, ""]:
        """The largest part of the forces that is left over: the substrate's own residual, from the products at hand."""
        state, lifts = carry
        forces = []
        for k, s in enumerate(state):
            force = self.from_before(lifts, k) - s
            if k < self.last:
                force = jnp.clip(force + self.from_after(state, lifts, k), 0 - s, 1 - s)
            elif isinstance(self.nudge, Nudge):
                force += self.nudge.pull(s)
            elif isinstance(self.nudge, Pin):
                force = s - self.nudge.target
            forces.append(force)
        scale = self.scale(state)
        if isinstance(self.nudge, Nudge):
            scale = (*scale[:-1], scale[-1] + self.nudge.size(state[-1]))
        return left_over(tuple(forces), scale)

    def convex(self, state: State) -> Array:
        """Whether the couplings alone show that the energy is convex, so that it has no saddle to rest on."""
        pinned = isinstance(self.nudge, Pin)
        couplings = self.couplings[:-1] if pinned else self.couplings
        return chain_is_convex(couplings, 1.0 if pinned else 1 + least_stiffness(self.nudge, state[-1]))

    def pushed(
        self, carry: tuple[State, State], size: Array, key: PRNGKeyArray | None, step: Array
    ) -> tuple[State, State]:
        """A state off by some part of the forces that meet at each unit."""
        state, scale = carry[0], self.scale(carry[0])
        key = jax.random.fold_in(jax.random.key(0) if key is None else key, step)
        aside = [
            s + size * m * jax.random.uniform(k, s.shape, s.dtype, -1, 1)
            for k, s, m in zip(jax.random.split(key, len(state)), state, scale, strict=True)
        ]
        return self.lifted(self.pinned((*(jnp.clip(s, 0, 1) for s in aside[:-1]), aside[-1])))

    def energy(self, carry: tuple[State, State]) -> Float[Array, ""]:
        """The total energy, the substrate's own, from the products at hand."""
        state, lifts = carry
        total = jnp.zeros((), state[0].dtype)
        for k, s in enumerate(state):
            total += jnp.sum(0.5 * s**2 - self.from_before(lifts, k) * s)
        return total + self.nudge.energy(state[-1]) if isinstance(self.nudge, Nudge) else total

    def runaway(self, state: State) -> Array:
        """Whether a negative nudge pushes an output harder than its own energy o^2/2 holds it."""
        if not isinstance(self.nudge, Nudge):
            return jnp.asarray(False)
        return jnp.any(1 + self.nudge.stiffness(state[-1]) <= 0)


def output_at_rest(o: Float[Array, "outputs"], a: Float[Array, "outputs"], nudge: Nudge | Pin | None) -> Array:
    """Where the outputs go that feel the field a, from o; see `BlockDescent`."""
    if nudge is None:
        return a
    if isinstance(nudge, Pin):
        return o
    energy = lambda o: jnp.sum(0.5 * o**2 - a * o) + nudge.energy(o)
    curvature = 1 + nudge.stiffness(o)
    step = (a - o + nudge.pull(o)) / jnp.where(curvature > 0, curvature, 1)
    size = jnp.sum(0.5 * o**2 + jnp.abs(a * o)) + jnp.abs(nudge.energy(o))
    return o + _downhill(lambda t: energy(o + t * step), energy(o), size) * step


def meeting_layers(field: Array, bias: State, strengths: tuple[Strength, ...], state: State) -> State:
    """The sizes of the forces that meet at each unit: its own activity, its bias or input field, and its neighbours."""
    sizes = []
    for k, s in enumerate(state):
        size = jnp.abs(s) + (jnp.abs(field) if k == 0 else jnp.abs(bias[k]) + strengths[k - 1].forward(state[k - 1]))
        sizes.append(size + strengths[k].backward(state[k + 1], s.shape) if k + 1 < len(state) else size)
    return tuple(sizes)


def chain_is_convex(couplings: Sequence[Dense | Convolution], held: Array | float) -> Array:
    """Whether the norms of couplings show that layers of curvature 1, the last of `held`, have a convex energy.

    Layers joined in a chain by norms w_k cost at least what a chain of single units joined by w_k costs, whose pivots
    1 - w_k^2/pivot are positive.
    """
    pivot: Any = 1.0
    convex = jnp.asarray(True)
    for k, coupling in enumerate(couplings, 1):
        lost = squared_norm(coupling) / jnp.where(pivot > 0, pivot, 1)
        pivot = (held if k == len(couplings) else 1) - lost
        convex &= pivot > 0
    return convex


def least_stiffness(nudge: Nudge | Pin | None, output: Array) -> Array | float:
    """A bound of the lowest curvature that a nudge adds to the outputs (Gershgorin)."""
    if not isinstance(nudge, Nudge):
        return 0.0
    if nudge.separable:
        return jnp.min(nudge.stiffness(output))
    curvature = nudge.curvature(output)
    own = jnp.diagonal(curvature)
    return jnp.min(own + jnp.abs(own) - jnp.sum(jnp.abs(curvature), axis=1))


def _lift(coupling: Dense | Convolution, layer: Array) -> Array:
    return coupling.convolve(layer) if isinstance(coupling, Convolution) else coupling.forward(layer.ravel())


def _downhill(energy: Any, value: Array, size: Array) -> Array:
    """The largest of 1, 1/2, 1/4, ... at which an energy does not exceed a value, or 0.

    `size` is the sum of the magnitudes of its terms, which bounds its rounding.
    """
    slack = 8 * jnp.finfo(size.dtype).eps * size
    uphill = lambda t: (energy(t) > value + slack) & (t > 1e-6)
    fraction = jax.lax.while_loop(uphill, lambda t: t / 2, jnp.ones_like(size))
    return jnp.where(fraction > 1e-6, fraction, 0)
